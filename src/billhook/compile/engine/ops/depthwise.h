/* Depthwise convolutions: one window for each plane, read where it lies.
 *
 * Several rows are made at once, because neighbouring rows share most of what they read; only additions to
 * registers are then left to do.
 */

typedef struct { /* one plane */
    const float *in; /* what the window of pixel (0, 0) begins with */
    uint32_t pitch;  /* of what is read */
    const float *weights;
    float bias;
    const bh_instruction *op;
    bh_bounds bounds;
} bh_window;

/* ROWS rows from row y on, the last pixels first: a vector that reaches into the next row is written before it. */
BH_INLINE void bh_depthwise_rows(const bh_window *w, const bh_target *out, uint32_t y, const uint32_t ROWS,
                                 const uint32_t SIZE, const uint32_t STRIDE) {
    const uint32_t tail = (out->width - 1) / BH_LANES;
    const int rare = w->op->function > BH_CLIP;
    const float *rows = w->in + (size_t)y * STRIDE * w->pitch;
    for (uint32_t j = tail * BH_LANES, part = 0; part <= tail; part++, j -= BH_LANES) {
        bh_vec sum[4];
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++) sum[r] = bh_set(w->bias);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < (ROWS - 1) * STRIDE + SIZE; i++) {
#pragma GCC unroll 5
            for (uint32_t k = 0; k < SIZE; k++) {
                const bh_vec x = bh_every(rows + (size_t)i * w->pitch + (size_t)j * STRIDE + k, STRIDE, BH_LANES);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < ROWS; r++)
                    if (i >= r * STRIDE && i - r * STRIDE < SIZE)
                        sum[r] = bh_fma(bh_set(w->weights[(i - r * STRIDE) * SIZE + k]), x, sum[r]);
            }
        }
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++) {
            bh_vec s = bh_clip(sum[r], w->bounds.low, w->bounds.high);
            if (rare) s = bh_activate(s, w->op->function, w->op->low, w->op->high);
            bh_put(out->origin + (size_t)(y + r) * out->pitch + j, bh_limit(out, y + r), s, out->width - j);
        }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < ROWS; r++) bh_clear_behind(out, y + r);
}

#define BH_DEPTHWISE_PLANE(NAME, ROWS, SIZE, STRIDE)                                                          \
    static void NAME(const bh_window *w, const bh_target *out) {                                              \
        uint32_t y = 0;                                                                                       \
        for (; y + (ROWS) <= out->height; y += (ROWS)) bh_depthwise_rows(w, out, y, ROWS, SIZE, STRIDE);      \
        for (; y < out->height; y++) bh_depthwise_rows(w, out, y, 1, SIZE, STRIDE);                           \
    }
BH_DEPTHWISE_PLANE(bh_depthwise_3_1, 4, 3, 1)
BH_DEPTHWISE_PLANE(bh_depthwise_3_2, 2, 3, 2)
BH_DEPTHWISE_PLANE(bh_depthwise_5_1, 4, 5, 1)
BH_DEPTHWISE_PLANE(bh_depthwise_5_2, 2, 5, 2)

static void bh_depthwise(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t size = op->arg[DEPTHWISE_KERNEL], stride = op->arg[DEPTHWISE_STRIDE];
    bh_window w = {.op = op, .bounds = bh_bounds_of(op)};
    uint32_t c, end;
    bh_share(job, op->ref[DEPTHWISE_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_source in = bh_source_of(job, c);
        const bh_target out = bh_target_of(job, c);
        w.in = in.origin - (size_t)op->arg[DEPTHWISE_TOP] * in.pitch - op->arg[DEPTHWISE_LEFT];
        w.pitch = in.pitch;
        w.weights = bh_f32(job->model, op->ref[DEPTHWISE_WEIGHTS_REF]) + (size_t)c * size * size;
        w.bias = bh_f32(job->model, op->ref[DEPTHWISE_BIAS_REF])[c];
        bh_clear_before(&out);
        if (size == 3)
            stride == 1 ? bh_depthwise_3_1(&w, &out) : bh_depthwise_3_2(&w, &out);
        else
            stride == 1 ? bh_depthwise_5_1(&w, &out) : bh_depthwise_5_2(&w, &out);
    }
}
