/* Depthwise convolutions: one window for each plane, read where it lies.
 *
 * Several lines are made at once, because neighbouring rows share most of what they read, and the weights of a
 * plane stay in registers; only additions to registers are then left to do. A line is a row, or, where two rows
 * are as long as a vector, two of them.
 */

typedef struct { /* how all planes of an instruction are made */
    const float *arena;
    const int32_t *planes;
    size_t ahead;   /* floats from where the window of pixel (0, 0) begins to that pixel */
    size_t pitch;   /* of what is read */
    size_t second;  /* stride 2: from where the first half of a vector's lanes is read to where the others are */
    bh_target out;  /* plane 0 */
    size_t stride;  /* from plane to plane */
    uint32_t lines; /* that whole vectors make; rows behind them are made by pixels */
    size_t to_next; /* line */
    size_t last;    /* vector of a line, counted in floats from its first pixel */
    size_t end;     /* of a line, which may reach into the next one */
    size_t behind;  /* the last line */
    uint32_t mask;  /* of a line's last vector: which lanes are pixels */
    uint32_t final; /* of the last line's */
    const float *weights, *bias;
    const bh_instruction *op;
    bh_bounds bounds;
} bh_sweep;

/* What LANES neighbouring windows, or two times LANES / 2, have at the places of one of their rows. */
BH_INLINE void bh_taps_of_row(bh_vec *x, const float *p, size_t second, const uint32_t SIZE,
                              const uint32_t STRIDE, const int PAIRS) {
#ifdef BH_SHIFTS
    if (STRIDE == 1) {
        const uint32_t middle = SIZE / 2;
        x[middle] = bh_keep(bh_load(p + middle));
BH_UNROLL(2)
        for (uint32_t k = 1; k <= middle; k++) {
            x[middle - k] = bh_keep(bh_previous(x[middle - k + 1], p[middle - k]));
            x[middle + k] = bh_keep(bh_next(x[middle + k - 1], p[middle + k + BH_LANES - 1]));
        }
        return;
    }
    if (!PAIRS) {
        const bh_vec a = bh_keep(bh_load(p)), b = bh_keep(bh_load(p + BH_LANES));
        x[0] = bh_keep(bh_every_second(a, b, 0));
        x[1] = bh_keep(bh_every_second(a, b, 1));
BH_UNROLL(3)
        for (uint32_t k = 2; k < SIZE; k++) x[k] = bh_keep(bh_next(x[k - 2], p[2 * BH_LANES + k - 2]));
        return;
    }
#else
    (void)PAIRS;
#endif
BH_UNROLL(5)
    for (uint32_t k = 0; k < SIZE; k++) {
        if (STRIDE == 1) {
            x[k] = bh_keep(bh_load(p + k));
        } else {
            const float *even = p + k - k % 2;
            x[k] = bh_keep(bh_every_second(bh_load(even), bh_load(even + second), k % 2));
        }
    }
}

/* ROWS lines, STEP rows of the input from one to the next; the last pixels of a line first: their vector may
 * reach into the next line, which is written after it. */
BH_INLINE void bh_depthwise_lines(const bh_sweep *w, const float *in, float *line, const bh_vec *weights,
                                  float bias, uint32_t final, const uint32_t ROWS, const uint32_t SIZE,
                                  const uint32_t STRIDE, const uint32_t STEP, const int RARE) {
    for (size_t j = w->last + BH_LANES; j < w->end; j += BH_LANES)
BH_UNROLL(4)
        for (uint32_t r = 0; r < ROWS; r++) bh_store(line + r * w->to_next + j, bh_set(0.0f));
    uint32_t mask = w->mask;
    for (size_t j = w->last, next = 0;; j = next, next += BH_LANES) {
        bh_vec sum[4];
BH_UNROLL(4)
        for (uint32_t r = 0; r < ROWS; r++) sum[r] = bh_set(bias);
BH_UNROLL(16)
        for (uint32_t i = 0; i < (ROWS - 1) * STEP + SIZE; i++) {
            if (i % STEP >= SIZE) continue; /* between lines that have no rows in common */
            bh_vec x[5];
            bh_taps_of_row(x, in + i * w->pitch + j * STRIDE, STEP == STRIDE ? BH_LANES : w->second, SIZE, STRIDE,
                           STEP != STRIDE);
BH_UNROLL(5)
            for (uint32_t k = 0; k < SIZE; k++) {
BH_UNROLL(4)
                for (uint32_t r = 0; r < ROWS; r++)
                    if (i >= r * STEP && i - r * STEP < SIZE)
                        sum[r] = bh_fma(weights[(i - r * STEP) * SIZE + k], x[k], sum[r]);
            }
        }
BH_UNROLL(4)
        for (uint32_t r = 0; r < ROWS; r++) {
            const uint32_t pixels = STEP != STRIDE && r == ROWS - 1 ? final : mask;
            bh_vec made = bh_clip(sum[r], w->bounds.low, w->bounds.high);
            if (RARE) made = bh_activate_rarely(made, w->op->function, w->op->low);
            bh_store(line + r * w->to_next + j, bh_vec_mask(made, pixels));
        }
        if (next == w->last) return;
        mask = (uint32_t)((1ull << BH_LANES) - 1);
    }
}

/* Planes c .. end - 1. */
BH_INLINE void bh_depthwise_planes(const bh_sweep *given, uint32_t c, uint32_t end, const uint32_t SIZE,
                                   const uint32_t STRIDE, const uint32_t STEP, const int RARE) {
    const bh_sweep w = *given;
    for (; c < end; c++) {
        const float *in = w.arena + w.planes[c] - w.ahead, *weights = w.weights + (size_t)c * SIZE * SIZE;
        float *plane = w.out.origin + c * w.stride, *line = plane, bias = w.bias[c];
        bh_vec each[25];
BH_UNROLL(25)
        for (uint32_t i = 0; i < SIZE * SIZE; i++) each[i] = bh_set(weights[i]);
        bh_clear_margin(plane - w.out.before, w.out.before, 0);
        uint32_t left = w.lines;
        for (; STRIDE == 1 && left >= 4; left -= 4, in += 4 * STEP * w.pitch, line += 4 * w.to_next) {
            const uint32_t final = left == 4 ? w.final : w.mask;
            bh_depthwise_lines(&w, in, line, each, bias, final, 4, SIZE, STRIDE, STEP, RARE);
        }
        for (; left >= 2; left -= 2, in += 2 * STEP * w.pitch, line += 2 * w.to_next) {
            const uint32_t final = left == 2 ? w.final : w.mask;
            bh_depthwise_lines(&w, in, line, each, bias, final, 2, SIZE, STRIDE, STEP, RARE);
        }
        if (left) bh_depthwise_lines(&w, in, line, each, bias, w.final, 1, SIZE, STRIDE, STEP, RARE);
        bh_clear_margin(plane + w.behind, w.out.size - w.behind, 0);
    }
}

/* A call for every vector takes all registers, so that what needs none has code of its own. */
#define BH_DEPTHWISE_BOTH(NAME, SIZE, STRIDE, STEP)                                                           \
    static void NAME(const bh_sweep *w, uint32_t c, uint32_t end) {                                           \
        bh_depthwise_planes(w, c, end, SIZE, STRIDE, STEP, 0);                                                \
    }                                                                                                         \
    static void NAME##_rare(const bh_sweep *w, uint32_t c, uint32_t end) {                                    \
        bh_depthwise_planes(w, c, end, SIZE, STRIDE, STEP, 1);                                                \
    }
BH_DEPTHWISE_BOTH(bh_depthwise_3_1, 3, 1, 1)
BH_DEPTHWISE_BOTH(bh_depthwise_3_2, 3, 2, 2)
BH_DEPTHWISE_BOTH(bh_depthwise_5_1, 5, 1, 1)
BH_DEPTHWISE_BOTH(bh_depthwise_5_2, 5, 2, 2)
BH_DEPTHWISE_BOTH(bh_depthwise_3_1_pairs, 3, 1, 2)
BH_DEPTHWISE_BOTH(bh_depthwise_3_2_pairs, 3, 2, 4)
BH_DEPTHWISE_BOTH(bh_depthwise_5_1_pairs, 5, 1, 2)
BH_DEPTHWISE_BOTH(bh_depthwise_5_2_pairs, 5, 2, 4)

/* Rows from y on, pixel by pixel: where whole vectors would leave the plane, which the compiler avoids. */
static void bh_depthwise_pixels(const bh_sweep *w, const bh_instruction *op, uint32_t c, uint32_t y) {
    const uint32_t size = op->arg[DEPTHWISE_KERNEL], stride = op->arg[DEPTHWISE_STRIDE];
    const float *weights = w->weights + (size_t)c * size * size;
    bh_target out = w->out;
    out.origin += c * w->stride;
    for (; y < out.height; y++) {
        const float *in = w->arena + w->planes[c] - w->ahead + (size_t)y * stride * w->pitch;
        for (size_t x = 0; x < out.width; x++, in += stride) {
            bh_vec sum = bh_set(w->bias[c]);
            for (uint32_t i = 0; i < size * size; i++)
                sum = bh_fma(bh_set(weights[i]), bh_set(in[i / size * w->pitch + i % size]), sum);
            sum = bh_clip(sum, w->bounds.low, w->bounds.high);
            if (op->function > BH_CLIP) sum = bh_activate_rarely(sum, op->function, op->low);
            bh_scatter(out.origin + (size_t)y * out.pitch + x, 1, sum, 1);
        }
        bh_clear_behind(&out, y);
    }
}

/* Whether two rows are one vector, in the plane that is made and, if that is how they are read, in the other. */
static int bh_depthwise_pairs(const bh_instruction *op) {
    const uint32_t half = BH_LANES / 2, pitch = op->arg[DEPTHWISE_PITCH];
    return op->arg[DEPTHWISE_OUT_PITCH] == half && op->arg[DEPTHWISE_SIZE] &&
           (op->arg[DEPTHWISE_STRIDE] == 2 ? pitch <= BH_PAIRED_PITCH : pitch == half);
}

static void bh_depthwise_lay(bh_sweep *w, const bh_instruction *op) {
    const bh_target *out = &w->out;
    const size_t rows = bh_depthwise_pairs(op) ? 2 : 1, lines = (out->height + rows - 1) / rows;
    const uint32_t over = out->width % BH_LANES, row = over ? (1u << over) - 1 : UINT32_MAX;
    if (!out->size) w->out.before = 0;
    w->to_next = rows * out->pitch;
    w->last = (out->width - 1) / BH_LANES * BH_LANES;
    w->end = w->last + BH_LANES < w->to_next ? w->to_next : w->last + BH_LANES;
    w->end = (w->end + BH_LANES - 1) / BH_LANES * BH_LANES;
    w->mask = rows == 2 ? row | row << BH_LANES / 2 : row;
    w->second = rows == 2 ? op->arg[DEPTHWISE_STRIDE] * w->pitch : BH_LANES;
    const size_t fit = out->size < w->end ? 0 : (out->size - w->end) / w->to_next + 1;
    w->lines = (uint32_t)(fit < lines ? fit : lines);
    w->final = rows * w->lines > out->height ? row & ((1u << BH_LANES / 2) - 1) : w->mask;
    w->behind = w->lines ? (w->lines - 1) * w->to_next + w->end : 0;
}

/* For planes that lie `shift` floats behind where the table names them. */
static bh_sweep bh_depthwise_sweep(const bh_job *job, size_t shift) {
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg;
    bh_sweep w = {
        .arena = job->arena + shift,
        .planes = bh_i32(job->model, op->ref[DEPTHWISE_IN_REF]),
        .ahead = (size_t)arg[DEPTHWISE_TOP] * arg[DEPTHWISE_PITCH] + arg[DEPTHWISE_LEFT],
        .pitch = arg[DEPTHWISE_PITCH],
        .out = bh_target_of(job, 0),
        .stride = arg[DEPTHWISE_OUT_STRIDE],
        .weights = bh_f32(job->model, op->ref[DEPTHWISE_WEIGHTS_REF]),
        .bias = bh_f32(job->model, op->ref[DEPTHWISE_BIAS_REF]),
        .op = op,
        .bounds = bh_bounds_of(op),
    };
    bh_depthwise_lay(&w, op);
    return w;
}

/* Channels c .. end - 1. */
static void bh_depthwise_channels(const bh_sweep *w, const bh_instruction *op, uint32_t c, uint32_t end) {
#define BH_BOTH(NAME) {NAME, NAME##_rare}
    static void (*const planes[2][2][2][2])(const bh_sweep *, uint32_t, uint32_t) = {
        {{BH_BOTH(bh_depthwise_3_1), BH_BOTH(bh_depthwise_3_2)},
         {BH_BOTH(bh_depthwise_5_1), BH_BOTH(bh_depthwise_5_2)}},
        {{BH_BOTH(bh_depthwise_3_1_pairs), BH_BOTH(bh_depthwise_3_2_pairs)},
         {BH_BOTH(bh_depthwise_5_1_pairs), BH_BOTH(bh_depthwise_5_2_pairs)}},
    };
    const int pairs = bh_depthwise_pairs(op);
    const uint32_t made = pairs ? 2 * w->lines : w->lines;
    const int five = op->arg[DEPTHWISE_KERNEL] == 5, two = op->arg[DEPTHWISE_STRIDE] == 2;
    planes[pairs][five][two][op->function > BH_CLIP](w, c, end);
    for (; c < end && made < w->out.height; c++) bh_depthwise_pixels(w, op, c, made);
}

static void bh_depthwise(const bh_job *job) {
    const bh_sweep w = bh_depthwise_sweep(job, 0);
    uint32_t c, end;
    bh_share(job, job->op->ref[DEPTHWISE_IN_REF].count, &c, &end);
    bh_depthwise_channels(&w, job->op, c, end);
}
