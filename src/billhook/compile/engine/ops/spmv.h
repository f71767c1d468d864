/* Sparse matrix × vector: linear layers. Rows of a block lie in lanes; every kept column is one broadcast number.
 *
 * Bound by how fast weights arrive, so several columns are summed apart only to hide the latency of adding.
 */

#define BH_APART 4

BH_INLINE void bh_spmv_block(const float *arena, const int32_t *columns, const float *weights, uint32_t count,
                             const float *bias, float *result, const uint32_t ROWS) {
    const uint32_t PARTS = ROWS / BH_LANES ? ROWS / BH_LANES : 1;
    bh_vec sum[BH_APART][16];
BH_UNROLL(16)
    for (uint32_t v = 0; v < PARTS; v++) {
        sum[0][v] = bh_load(bias + v * BH_LANES);
BH_UNROLL(4)
        for (uint32_t s = 1; s < BH_APART; s++) sum[s][v] = bh_set(0.0f);
    }
    uint32_t k = 0;
    for (; k + BH_APART <= count; k += BH_APART) {
BH_UNROLL(4)
        for (uint32_t s = 0; s < BH_APART; s++) {
            bh_vec x = bh_set(arena[columns[k + s]]);
BH_UNROLL(16)
            for (uint32_t v = 0; v < PARTS; v++)
                sum[s][v] = bh_fma(x, bh_load(weights + (size_t)(k + s) * ROWS + v * BH_LANES), sum[s][v]);
        }
    }
    for (; k < count; k++) {
        bh_vec x = bh_set(arena[columns[k]]);
BH_UNROLL(16)
        for (uint32_t v = 0; v < PARTS; v++)
            sum[0][v] = bh_fma(x, bh_load(weights + (size_t)k * ROWS + v * BH_LANES), sum[0][v]);
    }
BH_UNROLL(16)
    for (uint32_t v = 0; v < PARTS; v++)
        bh_store(result + v * BH_LANES, bh_add(bh_add(sum[0][v], sum[1][v]), bh_add(sum[2][v], sum[3][v])));
}

/* One row, whose columns no other row has. */
static float bh_spmv_row(const float *arena, const int32_t *columns, const float *weights, uint32_t count,
                         float bias) {
    float sum[BH_APART] = {bias};
    uint32_t k = 0;
    for (; k + BH_APART <= count; k += BH_APART) {
BH_UNROLL(4)
        for (uint32_t s = 0; s < BH_APART; s++) sum[s] += weights[k + s] * arena[columns[k + s]];
    }
    for (; k < count; k++) sum[0] += weights[k] * arena[columns[k]];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void bh_spmv(const bh_job *job) {
    const bh_model *model = job->model;
    const bh_instruction *op = job->op;
    const uint32_t *starts = bh_u32(model, op->ref[SPMV_STARTS_REF]);
    const int32_t *columns = bh_i32(model, op->ref[SPMV_COLUMNS_REF]);
    const float *weights = bh_f32(model, op->ref[SPMV_WEIGHTS_REF]);
    const float *bias = bh_f32(model, op->ref[SPMV_BIAS_REF]);
    const int32_t *out = bh_i32(model, op->ref[SPMV_OUT_REF]);
    const uint32_t rows = op->arg[SPMV_ROWS];
    uint32_t n, end;
    bh_share(job, op->arg[SPMV_BLOCKS], &n, &end);
    for (; n < end; n++) {
        float result[16] = {0};
        const int32_t *own = columns + (op->arg[SPMV_SHARED] ? 0 : starts[n]);
        const uint32_t count = starts[n + 1] - starts[n];
        if (rows == 16)
            bh_spmv_block(job->arena, own, weights + (size_t)starts[n] * 16, count, bias + (size_t)n * 16, result,
                          16);
        else
            result[0] = bh_spmv_row(job->arena, own, weights + starts[n], count, bias[n]);
        for (uint32_t v = 0; v < (rows == 16 ? BH_PARTS : 1); v++)
            bh_store(result + v * BH_LANES, bh_activate(bh_load(result + v * BH_LANES), op->function, op->low, op->high));
        for (uint32_t r = 0; r < rows; r++)
            if (out[n * rows + r] >= 0) job->arena[out[n * rows + r]] = result[r];
    }
}
