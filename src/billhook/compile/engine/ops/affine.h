/* scale · x + shift by channel, then the activation; either, or both, may be missing. */

static void bh_affine(const bh_job *job) {
    const bh_instruction *op = job->op;
    const bh_flat f = bh_flat_of(job);
    const float *scale = op->ref[FLAT_SCALE_REF].count ? bh_f32(job->model, op->ref[FLAT_SCALE_REF]) : NULL;
    const float *shift = op->ref[FLAT_SHIFT_REF].count ? bh_f32(job->model, op->ref[FLAT_SHIFT_REF]) : NULL;
    uint32_t c, end;
    bh_share(job, f.channels, &c, &end);
    if (!f.vectors) {
        for (; c < end; c += BH_LANES) {
            const size_t count = end - c;
            bh_vec x = bh_gather(job->arena, f.in + c, count);
            bh_vec a = scale ? bh_load_some(scale + c, count) : bh_set(1.0f);
            bh_vec b = shift ? bh_load_some(shift + c, count) : bh_set(0.0f);
            x = bh_activate(bh_fma(x, a, b), op->function, op->low, op->high);
            bh_scatter(bh_flat_out(&f, c), f.stride, x, count);
        }
        return;
    }
    for (; c < end; c++) {
        const float *in = job->arena + f.in[c];
        float *out = bh_flat_out(&f, c);
        const bh_vec a = bh_set(scale ? scale[c] : 1.0f), b = bh_set(shift ? shift[c] : 0.0f);
        for (uint32_t v = 0; v < f.vectors; v++) {
            bh_vec x = bh_fma(bh_load(in + (size_t)v * BH_LANES), a, b);
            x = bh_activate(x, op->function, op->low, op->high);
            bh_store(out + (size_t)v * BH_LANES, bh_flat_mask(&f, v, x));
        }
        bh_flat_margins(&f, out, 0);
    }
}
