/* Dense matrix × pixels of small planes: rows lie in lanes, pixels are broadcast.
 *
 * SPMM rounds planes up to whole vectors of pixels, which wastes a quarter of the work on 7 × 7 of them. Here a
 * tile is LANES · VECS rows × runs of 7 pixels, and nothing is computed twice where rows of pixels are a
 * multiple of 7 long.
 */

#if BH_LANES == 16 || defined(__aarch64__) /* 32 registers */
#define BH_RUN_VECS 2
#define BH_RUN_RUNS 2
#else /* 16 */
#define BH_RUN_VECS 1
#define BH_RUN_RUNS 1
#endif
#define BH_RUN_ROWS (BH_LANES * BH_RUN_VECS)

typedef struct { /* one block of rows */
    const int32_t *columns;
    const float *weights;
    uint32_t count;
    const float *bias;
    const int32_t *out, *added; /* `added` is NULL if nothing is */
    const bh_instruction *op;
} bh_rows;

/* Sums of rows [from, from + RUN_ROWS) at RUNS runs: sums[run · 7 + pixel][row]. */
BH_INLINE void bh_run_sums(const bh_rows *b, const float *arena, const int32_t *run, uint32_t from, float *sums,
                           const uint32_t RUNS) {
    bh_vec sum[2][BH_RUN][2];
BH_UNROLL(2)
    for (uint32_t n = 0; n < RUNS; n++) {
BH_UNROLL(7)
        for (uint32_t i = 0; i < BH_RUN; i++) {
BH_UNROLL(2)
            for (uint32_t v = 0; v < BH_RUN_VECS; v++) sum[n][i][v] = bh_load(b->bias + from + v * BH_LANES);
        }
    }
    const float *first = arena + run[0], *second = arena + run[RUNS - 1];
    const float *weights = b->weights + from;
    for (uint32_t k = 0; k < b->count; k++) {
        bh_vec w[2];
BH_UNROLL(2)
        for (uint32_t v = 0; v < BH_RUN_VECS; v++) w[v] = bh_load(weights + v * BH_LANES);
        weights += BH_RUNS_ROWS;
BH_UNROLL(2)
        for (uint32_t n = 0; n < RUNS; n++) {
            const float *x = (n ? second : first) + b->columns[k];
BH_UNROLL(7)
            for (uint32_t i = 0; i < BH_RUN; i++) {
                bh_vec pixel = bh_set(x[i]);
BH_UNROLL(2)
                for (uint32_t v = 0; v < BH_RUN_VECS; v++) sum[n][i][v] = bh_fma(w[v], pixel, sum[n][i][v]);
            }
        }
    }
BH_UNROLL(2)
    for (uint32_t n = 0; n < RUNS; n++) {
BH_UNROLL(7)
        for (uint32_t i = 0; i < BH_RUN; i++) {
BH_UNROLL(2)
            for (uint32_t v = 0; v < BH_RUN_VECS; v++)
                bh_store(sums + (n * BH_RUN + i) * BH_RUN_ROWS + v * BH_LANES, sum[n][i][v]);
        }
    }
}

/* Add what is added, apply the activation, and write rows [from, from + RUN_ROWS) of one run. */
static void bh_run_finish(const bh_rows *b, float *arena, int32_t run, uint32_t from, float *sums) {
    const uint32_t function = b->op->function;
    const bh_bounds bounds = bh_bounds_of(b->op);
    for (uint32_t r = 0; b->added && r < BH_RUN_ROWS; r++) {
        if (b->out[from + r] < 0) continue;
        const float *added = arena + b->added[from + r] + run;
BH_UNROLL(7)
        for (uint32_t i = 0; i < BH_RUN; i++) sums[i * BH_RUN_ROWS + r] += added[i];
    }
    for (uint32_t i = 0; i < BH_RUN * BH_RUN_ROWS; i += BH_LANES) {
        bh_vec v = bh_clip(bh_load(sums + i), bounds.low, bounds.high);
        if (function > BH_CLIP) v = bh_activate(v, function, b->op->low, b->op->high);
        bh_store(sums + i, v);
    }
    for (uint32_t r = 0; r < BH_RUN_ROWS; r++) {
        if (b->out[from + r] < 0) continue;
        float *out = arena + b->out[from + r] + run;
BH_UNROLL(7)
        for (uint32_t i = 0; i < BH_RUN; i++) out[i] = sums[i * BH_RUN_ROWS + r];
    }
}

static void bh_run_block(const bh_rows *b, float *arena, const int32_t *runs, uint32_t count) {
    float sums[BH_RUN_RUNS * BH_RUN * BH_RUN_ROWS];
    for (uint32_t from = 0; from < BH_RUNS_ROWS; from += BH_RUN_ROWS) {
        uint32_t n = 0;
        for (; n + BH_RUN_RUNS <= count; n += BH_RUN_RUNS) {
            bh_run_sums(b, arena, runs + n, from, sums, BH_RUN_RUNS);
            for (uint32_t i = 0; i < BH_RUN_RUNS; i++)
                bh_run_finish(b, arena, runs[n + i], from, sums + i * BH_RUN * BH_RUN_ROWS);
        }
        for (; n < count; n++) {
            bh_run_sums(b, arena, runs + n, from, sums, 1);
            bh_run_finish(b, arena, runs[n], from, sums);
        }
    }
}

static void bh_runs(const bh_job *job) {
    const bh_model *model = job->model;
    const bh_instruction *op = job->op;
    const uint32_t *starts = bh_u32(model, op->ref[RUNS_STARTS_REF]), *arg = op->arg;
    const int32_t *columns = bh_i32(model, op->ref[RUNS_COLUMNS_REF]);
    const int32_t *added = op->ref[RUNS_ADDED_REF].count ? bh_i32(model, op->ref[RUNS_ADDED_REF]) : NULL;
    const bh_ref runs = op->ref[RUNS_RUNS_REF];
    bh_rows b = {.op = op};
    uint32_t n, end;
    bh_share(job, arg[RUNS_BLOCKS], &n, &end);
    for (; n < end; n++) {
        const size_t first = (size_t)n * BH_RUNS_ROWS;
        b.columns = columns + (arg[RUNS_SHARED] ? 0 : starts[n]);
        b.weights = bh_f32(model, op->ref[RUNS_WEIGHTS_REF]) + (size_t)starts[n] * BH_RUNS_ROWS;
        b.count = starts[n + 1] - starts[n];
        b.bias = bh_f32(model, op->ref[RUNS_BIAS_REF]) + first;
        b.out = bh_i32(model, op->ref[RUNS_OUT_REF]) + first;
        b.added = added ? added + first : NULL;
        for (uint32_t r = 0; r < BH_RUNS_ROWS; r++) /* only pixels are written below */
            if (b.out[r] >= 0)
                bh_clear_margin(job->arena + b.out[r] - arg[RUNS_BEFORE], (size_t)arg[RUNS_BEFORE] + arg[RUNS_SIZE], 0);
        bh_run_block(&b, job->arena, bh_i32(model, runs), runs.count);
    }
}
