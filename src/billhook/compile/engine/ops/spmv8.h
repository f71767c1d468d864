/* Sparse matrix × vector in 8 bits: linear layers. Rows of a block lie in lanes; a column is a quad of channels. */

static void bh_spmv8(const bh_job *job) {
    const bh_model *model = job->model;
    const bh_instruction *op = job->op;
    const uint32_t *starts = bh_u32(model, op->ref[SPMV8_STARTS_REF]);
    const int32_t *table = bh_i32(model, op->ref[SPMV8_COLUMNS_REF]);
    const int32_t *out = bh_i32(model, op->ref[SPMV8_OUT_REF]);
    uint32_t n, end;
    bh_share(job, op->arg[SPMV_BLOCKS], &n, &end);
    for (; n < end; n++) {
        const int32_t *columns = table + (op->arg[SPMV_SHARED] ? 0 : starts[n]);
        const int32_t *weights = bh_i32(model, op->ref[SPMV8_WEIGHTS_REF]) + (size_t)starts[n] * 16;
        const int32_t *bias = bh_i32(model, op->ref[SPMV8_BIAS_REF]) + (size_t)n * 16;
        const float *scale = bh_f32(model, op->ref[SPMV8_SCALE_REF]) + (size_t)n * 16;
        const uint32_t count = starts[n + 1] - starts[n];
        float result[16];
        for (uint32_t v = 0; v < BH_PARTS; v++) {
            bh_quad sum = bh_quad_load(bias + v * BH_LANES), other = bh_quad_set(0);
            for (uint32_t k = 0; k < count; k++) {
                const bh_quad w = bh_quad_load(weights + (size_t)k * 16 + v * BH_LANES);
                sum = bh_dot(sum, bh_quad_set(bh_lane(job->arena + columns[k])), w);
#if BH_SHIFT
                other = bh_dot(other, bh_quad_set(0), w); /* what dots with x have lost */
#endif
            }
            bh_vec y = bh_mul(bh_quad_float(bh_quad_sub(sum, other)), bh_load(scale + v * BH_LANES));
            bh_store(result + v * BH_LANES, bh_activate(y, op->function, op->low, op->high));
        }
        for (uint32_t r = 0; r < 16; r++)
            if (out[n * 16 + r] >= 0) job->arena[out[n * 16 + r]] = result[r];
    }
}
