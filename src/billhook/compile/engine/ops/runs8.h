/* Dense matrix × pixels of small planes in 8 bits: RUNS on quads. Rows lie in lanes, quads of pixels are broadcast. */

#if BH_LANES == 16 && defined(__AVX512VNNI__)
#define BH_RUN8_VECS 2
#define BH_RUN8_RUNS 2
#elif BH_LANES == 16 || (defined(__aarch64__) && !defined(BH_PORTABLE_VECTORS))
#define BH_RUN8_VECS 2
#define BH_RUN8_RUNS 1
#else
#define BH_RUN8_VECS 1
#define BH_RUN8_RUNS 1
#endif
#define BH_RUN8_ROWS (BH_LANES * BH_RUN8_VECS)

/* Finished sums of a vector of rows at one pixel: scaled, added to, rounded, and one lane for every four rows. */
BH_INLINE void bh_run8_finish(const bh_block8 *b, int32_t at, uint32_t row, bh_quad sum, const bh_bounds *bounds) {
    uint32_t four[BH_LANES / 4];
    bh_vec y = bh_fma(bh_quad_float(sum), bh_load(b->scale + row), b->zero);
    if (b->added) {
        for (uint32_t q = 0; q < BH_LANES / 4; q++)
            memcpy(&four[q], b->arena + b->added[row / 4 + q] + at, sizeof *four);
        y = bh_fma(bh_float_of_bytes(four), b->added_scale, y);
    }
    if (b->op->function != BH_NONE) y = bh_spmm8_rare(b->op, y);
    bh_bytes_of(four, bh_clip(y, bounds->low, bounds->high));
    for (uint32_t q = 0; q < BH_LANES / 4; q++)
        if (b->out[row / 4 + q] >= 0) memcpy(b->arena + b->out[row / 4 + q] + at, &four[q], sizeof *four);
}

/* Rows [from, from + RUN8_ROWS) at RUNS runs. */
BH_INLINE void bh_run8_tile(const bh_block8 *b, const int32_t *run, uint32_t from, const bh_bounds *bounds,
                            const uint32_t RUNS) {
    bh_quad sum[2][BH_RUN][2];
BH_UNROLL(2)
    for (uint32_t n = 0; n < RUNS; n++) {
BH_UNROLL(7)
        for (uint32_t i = 0; i < BH_RUN; i++) {
BH_UNROLL(2)
            for (uint32_t v = 0; v < BH_RUN8_VECS; v++)
                sum[n][i][v] = bh_quad_load(b->start + from + v * BH_LANES);
        }
    }
    const float *first = b->arena + run[0], *second = b->arena + run[RUNS - 1];
    const int32_t *weights = b->weights + from;
    for (uint32_t k = 0; k < b->count; k++) {
        bh_quad w[2];
BH_UNROLL(2)
        for (uint32_t v = 0; v < BH_RUN8_VECS; v++) w[v] = bh_quad_load(weights + v * BH_LANES);
        weights += BH_RUNS_ROWS;
BH_UNROLL(2)
        for (uint32_t n = 0; n < RUNS; n++) {
            const float *x = (n ? second : first) + b->columns[k];
BH_UNROLL(7)
            for (uint32_t i = 0; i < BH_RUN; i++) {
                const bh_quad pixel = bh_quad_set(bh_lane(x + i));
BH_UNROLL(2)
                for (uint32_t v = 0; v < BH_RUN8_VECS; v++) sum[n][i][v] = bh_dot(sum[n][i][v], pixel, w[v]);
            }
        }
    }
BH_UNROLL(2)
    for (uint32_t n = 0; n < RUNS; n++) {
BH_UNROLL(7)
        for (uint32_t i = 0; i < BH_RUN; i++) {
BH_UNROLL(2)
            for (uint32_t v = 0; v < BH_RUN8_VECS; v++)
                bh_run8_finish(b, run[n] + (int32_t)i, from + v * BH_LANES, sum[n][i][v], bounds);
        }
    }
}

static void bh_runs8(const bh_job *job) {
    const bh_model *model = job->model;
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg, *starts = bh_u32(model, op->ref[SPMM8_STARTS_REF]);
    const int32_t *runs = bh_i32(model, op->ref[RUNS8_RUNS_REF]);
    const uint32_t count = op->ref[RUNS8_RUNS_REF].count;
    const bh_bounds bounds = {bh_set((float)arg[SPMM8_LOW]), bh_set((float)arg[SPMM8_HIGH])};
    bh_block8 b = bh_block8_of(job);
    uint32_t n, end;
    bh_share(job, arg[RUNS_BLOCKS], &n, &end);
    for (; n < end; n++) {
        bh_block8_at(&b, job, n, BH_RUNS_ROWS, arg[RUNS_SHARED] ? 0 : starts[n]);
        for (uint32_t q = 0; q < BH_RUNS_ROWS / 4; q++) /* only pixels are written below */
            if (b.out[q] >= 0)
                bh_clear_margin(job->arena + b.out[q] - arg[RUNS_BEFORE], (size_t)arg[RUNS_BEFORE] + arg[RUNS_SIZE],
                                bh_four_of(arg[SPMM8_ZERO]));
        for (uint32_t from = 0; from < BH_RUNS_ROWS; from += BH_RUN8_ROWS) {
            uint32_t r = 0;
            for (; r + BH_RUN8_RUNS <= count; r += BH_RUN8_RUNS)
                bh_run8_tile(&b, runs + r, from, &bounds, BH_RUN8_RUNS);
            for (; r < count; r++) bh_run8_tile(&b, runs + r, from, &bounds, 1);
        }
    }
}
