/* Products of two computed values: what SPMM computes, with weights that lie in the arena. */

#define BH_PRODUCT_ROWS 4
#if BH_LANES == 16 || defined(__aarch64__) /* 32 registers */
#define BH_PRODUCT_VECS 4
#else
#define BH_PRODUCT_VECS 2
#endif

typedef struct { /* one group of rows */
    const float *arena;
    const int32_t *rows, *steps, *columns;
    uint32_t count; /* steps */
    float scale;
} bh_group;

/* ROWS rows from `row` on, at VECS vectors of lanes from `first` on. */
BH_INLINE void bh_product_tile(const bh_flat *f, const bh_group *g, uint32_t row, uint32_t first,
                               const uint32_t ROWS, const uint32_t VECS) {
    const bh_instruction *op = f->job->op;
    const float *pixels = g->arena + (size_t)first * BH_LANES, *weights[BH_PRODUCT_ROWS];
    bh_vec sum[BH_PRODUCT_ROWS][4];
BH_UNROLL(4)
    for (uint32_t r = 0; r < ROWS; r++) {
        weights[r] = g->arena + g->rows[row + r];
BH_UNROLL(4)
        for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_set(0.0f);
    }
    for (uint32_t k = 0; k < g->count; k++) {
        const float *x = pixels + g->columns[k];
        bh_vec in[4];
BH_UNROLL(4)
        for (uint32_t v = 0; v < VECS; v++) in[v] = bh_load(x + v * BH_LANES);
BH_UNROLL(4)
        for (uint32_t r = 0; r < ROWS; r++) {
            const bh_vec w = bh_set(weights[r][g->steps[k]]);
BH_UNROLL(4)
            for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_fma(w, in[v], sum[r][v]);
        }
    }
    for (uint32_t r = 0; r < ROWS; r++) {
        float *out = bh_flat_out(f, row + r) + (size_t)first * BH_LANES;
        for (uint32_t v = 0; v < VECS; v++) {
            bh_vec x = bh_mul(sum[r][v], bh_set(g->scale));
            x = bh_activate(x, op->function, op->low, op->high);
            bh_store(out + v * BH_LANES, bh_flat_mask(f, first + v, x));
        }
    }
}

BH_INLINE void bh_product_rows(const bh_flat *f, const bh_group *g, uint32_t row, const uint32_t ROWS) {
    uint32_t v = 0;
    for (; v + BH_PRODUCT_VECS <= f->vectors; v += BH_PRODUCT_VECS)
        bh_product_tile(f, g, row, v, ROWS, BH_PRODUCT_VECS);
    for (; v < f->vectors; v++) bh_product_tile(f, g, row, v, ROWS, 1);
}

static void bh_matmul(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t rows = op->ref[MATMUL_ROWS_REF].count, each = rows / op->arg[MATMUL_GROUPS];
    const int32_t *columns = bh_i32(job->model, op->ref[MATMUL_COLUMNS_REF]);
    const bh_flat f = {job,
                       op->arg,
                       NULL,
                       bh_u16(job->model, op->ref[MATMUL_MASK_REF]),
                       rows,
                       op->arg[MATMUL_VECTORS] * BH_PARTS,
                       op->arg[MATMUL_OUT_STRIDE]};
    bh_group g = {.arena = job->arena,
                  .rows = bh_i32(job->model, op->ref[MATMUL_ROWS_REF]),
                  .steps = bh_i32(job->model, op->ref[MATMUL_STEPS_REF]),
                  .count = op->ref[MATMUL_STEPS_REF].count,
                  .scale = bh_float_of(op->arg[MATMUL_SCALE])};
    uint32_t r, end;
    bh_share(job, rows, &r, &end);
    while (r < end) {
        const uint32_t group = r / each, last = (group + 1) * each < end ? (group + 1) * each : end;
        g.columns = columns + (size_t)group * g.count;
        for (; r + BH_PRODUCT_ROWS <= last; r += BH_PRODUCT_ROWS) bh_product_rows(&f, &g, r, BH_PRODUCT_ROWS);
        for (; r < last; r++) bh_product_rows(&f, &g, r, 1);
    }
    bh_share(job, rows, &r, &end);
    for (; r < end; r++) bh_flat_margins(&f, bh_flat_out(&f, r), 0);
}
