/* exp(x - largest) over its sum, over channels at every pixel, then the activation. */

/* One vector of pixels and channels [first, end); results stand in the output before they are divided. */
BH_INLINE void bh_softmax_pixels(const bh_flat *f, uint32_t vector, uint32_t first, uint32_t end) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena + (size_t)vector * BH_LANES;
    bh_vec largest = bh_load(arena + f->in[first]), sum = bh_set(0.0f);
    for (uint32_t c = first + 1; c < end; c++) largest = bh_max(largest, bh_load(arena + f->in[c]));
    for (uint32_t c = first; c < end; c++) {
        bh_vec e = bh_exp(bh_sub(bh_load(arena + f->in[c]), largest));
        bh_store(bh_flat_out(f, c) + (size_t)vector * BH_LANES, e);
        sum = bh_add(sum, e);
    }
    for (uint32_t c = first; c < end; c++) {
        float *out = bh_flat_out(f, c) + (size_t)vector * BH_LANES;
        bh_vec x = bh_activate(bh_div(bh_load(out), sum), op->function, op->low, op->high);
        bh_store(out, bh_flat_mask(f, vector, x));
    }
}

static void bh_softmax_vector(const bh_flat *f, uint32_t first, uint32_t end) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena;
    float largest = arena[f->in[first]];
    for (uint32_t c = first + 1; c < end; c++)
        if (arena[f->in[c]] > largest) largest = arena[f->in[c]];
    bh_vec sums = bh_set(0.0f);
    for (uint32_t c = first; c < end; c += BH_LANES) {
        const size_t count = end - c;
        bh_vec e = bh_exp(bh_sub(bh_gather(arena, f->in + c, count), bh_set(largest)));
        if (count < BH_LANES) e = bh_vec_mask(e, (1u << count) - 1u);
        sums = bh_add(sums, e);
        bh_scatter(bh_flat_out(f, c), f->stride, e, count);
    }
    const float sum = bh_sum(sums);
    for (uint32_t c = first; c < end; c++) {
        float *out = bh_flat_out(f, c), lanes[BH_LANES];
        bh_store(lanes, bh_activate(bh_set(*out / sum), op->function, op->low, op->high));
        *out = lanes[0];
    }
}

static void bh_softmax(const bh_job *job) {
    const bh_flat f = bh_flat_of(job);
    const uint32_t group = job->op->arg[FLAT_FUNCTION] ? job->op->arg[FLAT_FUNCTION] : f.channels;
    uint32_t i, end;
    if (!f.vectors) {
        bh_share(job, f.channels / group, &i, &end);
        for (; i < end; i++) bh_softmax_vector(&f, i * group, (i + 1) * group);
        return;
    }
    bh_share(job, f.vectors, &i, &end);
    for (; i < end; i++)
        for (uint32_t c = 0; c < f.channels; c += group) bh_softmax_pixels(&f, i, c, c + group);
    bh_share(job, f.channels, &i, &end);
    for (; i < end; i++) bh_flat_margins(&f, bh_flat_out(&f, i), 0);
}
