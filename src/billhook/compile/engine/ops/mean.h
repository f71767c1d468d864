/* Mean of every plane: rows and the zeros between them are one run of floats. */

static float bh_plane_sum(const float *plane, size_t count) {
    bh_vec sum[4] = {bh_set(0.0f), bh_set(0.0f), bh_set(0.0f), bh_set(0.0f)};
    size_t i = 0;
    for (; i + 4 * BH_LANES <= count; i += 4 * BH_LANES)
        for (size_t k = 0; k < 4; k++) sum[k] = bh_add(sum[k], bh_load(plane + i + k * BH_LANES));
    for (; i + BH_LANES <= count; i += BH_LANES) sum[0] = bh_add(sum[0], bh_load(plane + i));
    if (i < count) sum[1] = bh_add(sum[1], bh_vec_mask(bh_load(plane + i), (1u << (count - i)) - 1u));
    return bh_sum(bh_add(bh_add(sum[0], sum[1]), bh_add(sum[2], sum[3])));
}

static void bh_mean(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg;
    const int32_t *in = bh_i32(job->model, op->ref[MEAN_IN_REF]);
    const size_t count = (size_t)(arg[MEAN_HEIGHT] - 1) * arg[MEAN_PITCH] + arg[MEAN_WIDTH];
    const float pixels = (float)arg[MEAN_HEIGHT] * (float)arg[MEAN_WIDTH];
    uint32_t c, end;
    bh_share(job, op->ref[MEAN_IN_REF].count, &c, &end);
    for (; c < end; c += BH_LANES) {
        float mean[BH_LANES] = {0};
        const uint32_t some = end - c < BH_LANES ? end - c : BH_LANES;
        for (uint32_t i = 0; i < some; i++) mean[i] = bh_plane_sum(job->arena + in[c + i], count) / pixels;
        float *out = job->arena + arg[MEAN_OUT] + (size_t)c * arg[MEAN_OUT_STRIDE];
        bh_scatter(out, arg[MEAN_OUT_STRIDE], bh_activate(bh_load(mean), op->function, op->low, op->high),
                   some);
    }
}
