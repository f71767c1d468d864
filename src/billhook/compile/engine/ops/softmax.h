/* exp(x - largest) over its sum, over channels at every pixel, then the activation. */

/* One vector of pixels, a plane at a time; results stand in the output before they are divided. */
BH_INLINE void bh_softmax_pixels(const bh_flat *f, uint32_t vector) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena + (size_t)vector * BH_LANES;
    bh_vec largest = bh_load(arena + f->in[0]), sum = bh_set(0.0f);
    for (uint32_t c = 1; c < f->channels; c++) largest = bh_max(largest, bh_load(arena + f->in[c]));
    for (uint32_t c = 0; c < f->channels; c++) {
        bh_vec e = bh_exp(bh_sub(bh_load(arena + f->in[c]), largest));
        bh_store(bh_flat_out(f, c) + (size_t)vector * BH_LANES, e);
        sum = bh_add(sum, e);
    }
    for (uint32_t c = 0; c < f->channels; c++) {
        float *out = bh_flat_out(f, c) + (size_t)vector * BH_LANES;
        bh_vec x = bh_activate(bh_div(bh_load(out), sum), op->function, op->low, op->high);
        bh_store(out, bh_flat_mask(f, vector, x));
    }
}

static void bh_softmax_vector(const bh_flat *f) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena;
    float largest = arena[f->in[0]];
    for (uint32_t c = 1; c < f->channels; c++)
        if (arena[f->in[c]] > largest) largest = arena[f->in[c]];
    bh_vec sums = bh_set(0.0f);
    for (uint32_t c = 0; c < f->channels; c += BH_LANES) {
        const size_t count = f->channels - c;
        bh_vec e = bh_exp(bh_sub(bh_gather(arena, f->in + c, count), bh_set(largest)));
        if (count < BH_LANES) e = bh_vec_mask(e, (1u << count) - 1u);
        sums = bh_add(sums, e);
        bh_scatter(bh_flat_out(f, c), f->stride, e, count);
    }
    const float sum = bh_sum(sums);
    for (uint32_t c = 0; c < f->channels; c++) {
        float *out = bh_flat_out(f, c), lanes[BH_LANES];
        bh_store(lanes, bh_activate(bh_set(*out / sum), op->function, op->low, op->high));
        *out = lanes[0];
    }
}

static void bh_softmax(const bh_job *job) {
    const bh_flat f = bh_flat_of(job);
    if (!f.vectors) {
        if (job->share == 0) bh_softmax_vector(&f);
        return;
    }
    uint32_t v, c, end;
    bh_share(job, f.vectors, &v, &end);
    for (; v < end; v++) bh_softmax_pixels(&f, v);
    bh_share(job, f.channels, &c, &end);
    for (; c < end; c++) bh_flat_margins(&f, bh_flat_out(&f, c), 0);
}
