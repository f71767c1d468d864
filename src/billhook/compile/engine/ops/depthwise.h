/* Depthwise convolutions: one window for each plane, read where it lies.
 *
 * Several lines are made at once, because neighbouring rows share most of what they read, and the weights of a
 * plane stay in registers; only additions to registers are then left to do. A line is a row, or, where two rows
 * are as long as a vector, two of them.
 */

typedef struct { /* how a plane is swept; then one plane */
    size_t pitch;   /* of what is read */
    size_t second;  /* stride 2: from where the first half of a vector's lanes is read to where the others are */
    size_t to_next; /* line that is made */
    size_t last;    /* vector of a line, counted in floats from its first pixel */
    size_t end;     /* of a line, which may reach into the next one */
    uint32_t mask;  /* of the last vector: which lanes are pixels */
    bh_bounds bounds;
    const float *in; /* what the window of pixel (0, 0) begins with */
    float *out;
    const float *weights;
    float bias;
} bh_window;

/* What LANES neighbouring windows, or two times LANES / 2, have at one place. */
BH_INLINE bh_vec bh_tap(const float *p, const uint32_t k, size_t second, const uint32_t STRIDE) {
    if (STRIDE == 1) return bh_keep(bh_load(p + k));
    const bh_vec a = bh_keep(bh_load(p + k - k % 2)), b = bh_keep(bh_load(p + k - k % 2 + second));
    return bh_keep(bh_every_second(a, b, k % 2));
}

/* ROWS lines, STEP rows of the input from one to the next; the last pixels of a line first: their vector may
 * reach into the next line, which is written after it. */
BH_INLINE void bh_depthwise_lines(const bh_window *w, const float *in, float *line, const bh_vec *weights,
                                  const uint32_t ROWS, const uint32_t SIZE, const uint32_t STRIDE,
                                  const uint32_t STEP) {
    for (size_t j = w->last + BH_LANES; j < w->end; j += BH_LANES)
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++) bh_store(line + r * w->to_next + j, bh_set(0.0f));
    uint32_t mask = w->mask;
    for (size_t j = w->last, next = 0;; j = next, next += BH_LANES) {
        bh_vec sum[4];
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++) sum[r] = bh_set(w->bias);
#pragma GCC unroll 16
        for (uint32_t i = 0; i < (ROWS - 1) * STEP + SIZE; i++) {
#pragma GCC unroll 5
            for (uint32_t k = 0; k < SIZE; k++) {
                const size_t second = STEP == STRIDE ? BH_LANES : w->second;
                const bh_vec x = bh_tap(in + i * w->pitch + j * STRIDE, k, second, STRIDE);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < ROWS; r++)
                    if (i >= r * STEP && i - r * STEP < SIZE)
                        sum[r] = bh_fma(weights[(i - r * STEP) * SIZE + k], x, sum[r]);
            }
        }
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++)
            bh_store(line + r * w->to_next + j,
                     bh_vec_mask(bh_clip(sum[r], w->bounds.low, w->bounds.high), mask));
        if (next == w->last) return;
        mask = (uint32_t)((1ull << BH_LANES) - 1);
    }
}

/* Lines y .. end - 1 of a plane. */
#define BH_DEPTHWISE_PLANE(NAME, SIZE, STRIDE, STEP)                                                          \
    static void NAME(const bh_window *given, uint32_t y, uint32_t end) {                                      \
        const bh_window w = *given;                                                                           \
        bh_vec each[(SIZE) * (SIZE)];                                                                         \
        _Pragma("GCC unroll 25") for (uint32_t i = 0; i < (SIZE) * (SIZE); i++)                               \
            each[i] = bh_set(w.weights[i]);                                                                   \
        const float *in = w.in + (size_t)y * (STEP) * w.pitch;                                                \
        float *line = w.out + y * w.to_next;                                                                  \
        for (; (STRIDE) == 1 && y + 4 <= end; y += 4, in += 4 * (STEP) * w.pitch, line += 4 * w.to_next)                       \
            bh_depthwise_lines(&w, in, line, each, 4, SIZE, STRIDE, STEP);                                    \
        for (; y + 2 <= end; y += 2, in += 2 * (STEP) * w.pitch, line += 2 * w.to_next)                       \
            bh_depthwise_lines(&w, in, line, each, 2, SIZE, STRIDE, STEP);                                    \
        for (; y < end; y++, in += (STEP) * w.pitch, line += w.to_next)                                       \
            bh_depthwise_lines(&w, in, line, each, 1, SIZE, STRIDE, STEP);                                    \
    }
BH_DEPTHWISE_PLANE(bh_depthwise_3_1, 3, 1, 1)
BH_DEPTHWISE_PLANE(bh_depthwise_3_2, 3, 2, 2)
BH_DEPTHWISE_PLANE(bh_depthwise_5_1, 5, 1, 1)
BH_DEPTHWISE_PLANE(bh_depthwise_5_2, 5, 2, 2)
BH_DEPTHWISE_PLANE(bh_depthwise_3_1_pairs, 3, 1, 2)
BH_DEPTHWISE_PLANE(bh_depthwise_3_2_pairs, 3, 2, 4)
BH_DEPTHWISE_PLANE(bh_depthwise_5_1_pairs, 5, 1, 2)
BH_DEPTHWISE_PLANE(bh_depthwise_5_2_pairs, 5, 2, 4)

/* Rows from y on, pixel by pixel: where whole vectors would leave the plane, which the compiler avoids. */
static void bh_depthwise_pixels(const bh_window *w, const bh_target *out, uint32_t y, uint32_t size,
                                uint32_t stride) {
    for (; y < out->height; y++) {
        const float *in = w->in + (size_t)y * stride * w->pitch;
        for (size_t x = 0; x < out->width; x++, in += stride) {
            bh_vec sum = bh_set(w->bias);
            for (uint32_t i = 0; i < size * size; i++)
                sum = bh_fma(bh_set(w->weights[i]), bh_set(in[i / size * w->pitch + i % size]), sum);
            sum = bh_clip(sum, w->bounds.low, w->bounds.high);
            bh_scatter(out->origin + (size_t)y * out->pitch + x, 1, sum, 1);
        }
        bh_clear_behind(out, y);
    }
}

/* All planes of an instruction are made in the same way. */
typedef struct {
    void (*lines)(const bh_window *w, uint32_t y, uint32_t end);
    uint32_t rows; /* in a line */
    uint32_t made; /* lines */
    int odd;       /* whether a row without a second one follows */
} bh_sweep;

static bh_sweep bh_sweep_of(bh_window *w, const bh_target *out, const bh_instruction *op) {
    static void (*const lines[2][2][2])(const bh_window *, uint32_t, uint32_t) = {
        {{bh_depthwise_3_1, bh_depthwise_3_2}, {bh_depthwise_5_1, bh_depthwise_5_2}},
        {{bh_depthwise_3_1_pairs, bh_depthwise_3_2_pairs}, {bh_depthwise_5_1_pairs, bh_depthwise_5_2_pairs}},
    };
    const uint32_t stride = op->arg[DEPTHWISE_STRIDE], half = BH_LANES / 2;
    const int pairs = out->pitch == half && (stride == 2 || w->pitch == half);
    const uint32_t over = out->width % BH_LANES, row = over ? (1u << over) - 1 : UINT32_MAX;
    const uint32_t rows = pairs ? 2 : 1, all = out->height / rows;
    w->to_next = (size_t)rows * out->pitch;
    w->last = (out->width - 1) / BH_LANES * BH_LANES;
    w->end = w->last + BH_LANES < w->to_next ? w->to_next : w->last + BH_LANES;
    w->end = (w->end + BH_LANES - 1) / BH_LANES * BH_LANES;
    w->mask = pairs ? row | row << half : row;
    w->second = pairs ? stride * w->pitch : BH_LANES;
    const size_t fit = out->size < w->end ? 0 : (out->size - w->end) / w->to_next + 1;
    return (bh_sweep){lines[pairs][op->arg[DEPTHWISE_KERNEL] == 5][stride == 2], rows,
                      fit < all ? (uint32_t)fit : all, pairs && out->height % 2 && fit > all};
}

static void bh_depthwise_plane(const bh_window *w, const bh_target *out, const bh_sweep *sweep,
                               const bh_instruction *op) {
    bh_clear_before(out);
    sweep->lines(w, 0, sweep->made);
    uint32_t lines = sweep->made;
    if (sweep->odd) {
        bh_window alone = *w;
        alone.mask &= (1u << BH_LANES / 2) - 1;
        alone.second = 0;
        sweep->lines(&alone, lines, lines + 1);
        lines++;
    }
    uint32_t y = sweep->rows * sweep->made + (uint32_t)sweep->odd;
    if (y < out->height)
        bh_depthwise_pixels(w, out, y, op->arg[DEPTHWISE_KERNEL], op->arg[DEPTHWISE_STRIDE]);
    else
        bh_clear_end(out, (lines - 1) * w->to_next + w->end);
}

/* Activations that are no clip, over sums that were just stored. */
static __attribute__((noinline)) void bh_depthwise_rare(const bh_target *out, const bh_instruction *op) {
    for (uint32_t y = 0; y < out->height; y++) {
        float *row = out->origin + (size_t)y * out->pitch;
        for (size_t j = 0; j < out->width; j += BH_LANES) {
            const size_t left = out->width - j, count = left < BH_LANES ? left : BH_LANES;
            const bh_vec v = bh_load_some(row + j, count);
            bh_put(row + j, row + j + count, bh_activate(v, op->function, op->low, op->high), count);
        }
    }
}

static void bh_depthwise(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg, size = arg[DEPTHWISE_KERNEL];
    const float *weights = bh_f32(job->model, op->ref[DEPTHWISE_WEIGHTS_REF]);
    const float *bias = bh_f32(job->model, op->ref[DEPTHWISE_BIAS_REF]);
    const bh_target first = bh_target_of(job, 0);
    bh_window w = {.bounds = bh_bounds_of(op), .pitch = arg[DEPTHWISE_PITCH]};
    const bh_sweep sweep = bh_sweep_of(&w, &first, op);
    uint32_t c, end;
    bh_share(job, op->ref[DEPTHWISE_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_target out = bh_target_of(job, c);
        w.in = bh_source_of(job, c).origin - (size_t)arg[DEPTHWISE_TOP] * w.pitch - arg[DEPTHWISE_LEFT];
        w.out = out.origin;
        w.weights = weights + (size_t)c * size * size;
        w.bias = bias[c];
        bh_depthwise_plane(&w, &out, &sweep, op);
        if (op->function > BH_CLIP) bh_depthwise_rare(&out, op);
    }
}
