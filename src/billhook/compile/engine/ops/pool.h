/* Largest or mean number of windows: rows of a window are combined first, then its columns.
 *
 * The combined rows lie in a line on the stack, with neutral numbers where a window leaves the plane. Only pixels
 * are read, whatever the margins hold.
 */

#define BH_LINE 1024 /* floats that one pass may combine */

typedef struct { /* columns [from, from + count) of the output, which one line serves */
    uint32_t from, count;
    uint32_t first, last; /* of the line: those that are pixels */
    int64_t at;           /* input column of line[0] */
} bh_stretch;

enum { BH_SUMS = 0, BH_LARGEST = 1, BH_LARGEST_BYTES = 2 };

BH_INLINE bh_vec bh_combine(bh_vec a, bh_vec b, const int how) {
    if (how == BH_LARGEST_BYTES) return bh_of_bits(bh_byte_max(bh_bits(a), bh_bits(b)));
    return how == BH_LARGEST ? bh_largest(a, b) : bh_add(a, b);
}

/* Numbers k of a window for which at + k · dilation lies in [low, high): [*first, *last). */
BH_INLINE void bh_taps(int64_t at, uint32_t kernel, uint32_t dilation, int64_t low, int64_t high,
                       uint32_t *first, uint32_t *last) {
    bh_inside(kernel, dilation, at - low, (uint32_t)(high - low), first, last);
}

/* How many numbers of the window at row (or column) i of the output a mean divides by, along one direction. */
static float bh_divisor(const uint32_t *arg, uint32_t i, int across) {
    const uint32_t kernel = arg[across ? POOL_KERNEL_X : POOL_KERNEL_Y];
    const uint32_t dilation = arg[across ? POOL_DILATION_X : POOL_DILATION_Y];
    const int64_t padding = arg[across ? POOL_LEFT : POOL_TOP], size = arg[across ? POOL_WIDTH : POOL_HEIGHT];
    const int64_t behind = across ? arg[POOL_AREA] & 0xFFFF : arg[POOL_AREA] >> 16;
    const int64_t at = (int64_t)i * arg[across ? POOL_STRIDE_X : POOL_STRIDE_Y] - padding;
    const int whole = arg[POOL_MODE] == 1;
    uint32_t first, last;
    bh_taps(at, kernel, dilation, whole ? -padding : 0, whole ? size + behind : size, &first, &last);
    return last > first ? (float)(last - first) : 1.0f;
}

BH_INLINE bh_stretch bh_stretch_of(const uint32_t *arg, uint32_t from, uint32_t count) {
    bh_stretch s = {.from = from, .count = count};
    s.at = (int64_t)from * arg[POOL_STRIDE_X] - arg[POOL_LEFT];
    const uint32_t length =
        (count - 1) * arg[POOL_STRIDE_X] + (arg[POOL_KERNEL_X] - 1) * arg[POOL_DILATION_X] + 1;
    bh_inside(length, 1, s.at, arg[POOL_WIDTH], &s.first, &s.last);
    return s;
}

/* Rows [from, to) of the windows of output row y, combined, into the line. */
BH_INLINE void bh_combine_rows(const bh_source *in, const uint32_t *arg, uint32_t y, const bh_stretch *s,
                               float *line, const int how) {
    const int64_t top = (int64_t)y * arg[POOL_STRIDE_Y] - arg[POOL_TOP];
    const size_t step = (size_t)arg[POOL_DILATION_Y] * in->pitch;
    const bh_vec nothing = bh_set(how == BH_LARGEST ? -INFINITY : 0.0f);
    uint32_t from, to;
    bh_taps(top, arg[POOL_KERNEL_Y], arg[POOL_DILATION_Y], 0, in->height, &from, &to);
    const uint32_t rows = to - from;
    const int64_t row = rows ? top + (int64_t)from * arg[POOL_DILATION_Y] : 0;
    const float *upper = in->origin + row * in->pitch + (s->first < s->last ? s->at : 0);
    for (size_t i = s->first; i < s->last; i += BH_LANES) {
        bh_vec v = rows ? bh_load(upper + i) : nothing;
        const float *p = upper + i + step;
        for (uint32_t k = 1; k < rows; k++, p += step) v = bh_combine(v, bh_load(p), how);
        bh_store(line + i, v);
    }
    if (s->first < s->last) bh_store(line + s->last, nothing); /* where the last vector went too far */
}

/* The output of a stretch of row y from the line. */
BH_INLINE void bh_combine_columns(const bh_job *job, const bh_target *out, uint32_t y, const bh_stretch *s,
                                  const float *line, const float *columns, const int how,
                                  const uint32_t stride) {
    const bh_instruction *op = job->op;
    const uint32_t kernel = op->arg[POOL_KERNEL_X], dilation = op->arg[POOL_DILATION_X];
    const bh_vec rows = bh_set(how ? 1.0f : bh_divisor(op->arg, y, 0));
    float *to = out->origin + (size_t)y * out->pitch + s->from;
    for (size_t j = 0; j < s->count; j += BH_LANES) {
        const float *p = line + j * stride;
        const size_t left = s->count - j;
        bh_vec v = bh_every(p, stride, left);
        for (uint32_t k = 1; k < kernel; k++)
            v = bh_combine(v, bh_every(p + k * dilation, stride, left), how);
        if (how == BH_SUMS) v = bh_div(v, bh_mul(rows, bh_load(columns + j)));
        bh_put(to + j, bh_limit(out, y), bh_activate(v, op->function, op->low, op->high), left);
    }
}

/* Line and divisors of a stretch, before its first row. */
static void bh_prepare(const uint32_t *arg, const bh_stretch *s, float *line, float *columns, int how) {
    for (size_t i = 0; i < BH_LINE + 64; i++) line[i] = how == BH_LARGEST ? -INFINITY : 0.0f;
    for (uint32_t j = 0; how == BH_SUMS && j < s->count; j++) columns[j] = bh_divisor(arg, s->from + j, 1);
}

BH_INLINE void bh_pool_as(const bh_job *job, uint32_t most, const int how, const uint32_t stride) {
    const uint32_t *arg = job->op->arg, width = arg[POOL_OUT_WIDTH];
    float line[BH_LINE + 64], columns[BH_LINE + 16] = {0};
    uint32_t c, end, prepared = UINT32_MAX;
    bh_share(job, job->op->ref[POOL_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_source in = bh_source_of(job, c);
        bh_target out = bh_target_of(job, c);
        if (how == BH_LARGEST_BYTES) out.fill = bh_four_of(arg[POOL_AREA]);
        bh_clear_before(&out);
        for (uint32_t y = 0; y < out.height; y++) {
            for (uint32_t x = 0; x < width; x += most) {
                const bh_stretch s = bh_stretch_of(arg, x, width - x < most ? width - x : most);
                if (prepared != x) bh_prepare(arg, &s, line, columns, how);
                prepared = x;
                bh_combine_rows(&in, arg, y, &s, line, how);
                bh_combine_columns(job, &out, y, &s, line, columns, how, stride);
                if (width - x <= most) break;
            }
            bh_clear_behind(&out, y);
        }
    }
}

/* For windows wider than a line: number by number. */
static void bh_pool_wide(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg;
    uint32_t c, end;
    bh_share(job, op->ref[POOL_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_source in = bh_source_of(job, c);
        const bh_target out = bh_target_of(job, c);
        bh_clear_before(&out);
        for (uint32_t i = 0; i < out.height * (uint64_t)out.width; i++) {
            const uint32_t y = i / out.width, x = i % out.width;
            const int64_t top = (int64_t)y * arg[POOL_STRIDE_Y] - arg[POOL_TOP];
            const int64_t left = (int64_t)x * arg[POOL_STRIDE_X] - arg[POOL_LEFT];
            uint32_t ky, bottom, first, right;
            bh_taps(top, arg[POOL_KERNEL_Y], arg[POOL_DILATION_Y], 0, in.height, &ky, &bottom);
            bh_taps(left, arg[POOL_KERNEL_X], arg[POOL_DILATION_X], 0, in.width, &first, &right);
            float result = arg[POOL_MODE] ? 0.0f : -INFINITY;
            for (; ky < bottom; ky++) {
                const float *row = in.origin + (top + (int64_t)ky * arg[POOL_DILATION_Y]) * in.pitch + left;
                for (uint32_t kx = first; kx < right; kx++) {
                    const float v = row[(size_t)kx * arg[POOL_DILATION_X]];
                    result = arg[POOL_MODE] ? result + v : v > result || isnan(v) ? v : result;
                }
            }
            if (arg[POOL_MODE]) result /= bh_divisor(arg, y, 0) * bh_divisor(arg, x, 1);
            float lanes[BH_LANES];
            bh_store(lanes, bh_activate(bh_set(result), op->function, op->low, op->high));
            out.origin[(size_t)y * out.pitch + x] = lanes[0];
            if (x + 1 == out.width) bh_clear_behind(&out, y);
        }
    }
}

/* Largest or mean number of rows [top, bottom) and columns [left, right). */
static float bh_pool_window(const bh_source *in, size_t top, size_t bottom, size_t left, size_t right,
                            const int largest) {
    const bh_vec nothing = bh_set(largest ? -INFINITY : 0.0f);
    bh_vec found = nothing;
    for (size_t y = top; y < bottom; y++) {
        const float *row = in->origin + y * in->pitch;
        for (size_t x = left; x < right; x += BH_LANES) {
            float lanes[BH_LANES];
            bh_store(lanes, nothing);
            memcpy(lanes, row + x, (right - x < BH_LANES ? right - x : BH_LANES) * sizeof(float));
            found = bh_combine(found, bh_load(lanes), largest);
        }
    }
    if (!largest) return bh_sum(found) / (float)((bottom - top) * (right - left));
    float lanes[BH_LANES];
    bh_store(lanes, found);
    for (size_t i = 1; i < BH_LANES; i++)
        if (lanes[i] > lanes[0] || isnan(lanes[i])) lanes[0] = lanes[i];
    return lanes[0];
}

/* Windows that cover the plane as evenly as they can (adaptive pooling). */
static void bh_pool_covering(const bh_job *job) {
    const bh_instruction *op = job->op;
    uint32_t c, end;
    bh_share(job, op->ref[POOL_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_source in = bh_source_of(job, c);
        const bh_target out = bh_target_of(job, c);
        const size_t height = in.height, width = in.width;
        bh_clear_before(&out);
        for (size_t y = 0; y < out.height; y++) {
            const size_t top = y * height / out.height, bottom = ((y + 1) * height - 1) / out.height + 1;
            for (size_t x = 0; x < out.width; x++) {
                const size_t left = x * width / out.width, right = ((x + 1) * width - 1) / out.width + 1;
                float lanes[BH_LANES];
                const float found = bh_pool_window(&in, top, bottom, left, right, op->arg[POOL_MODE] == 4);
                bh_store(lanes, bh_activate(bh_set(found), op->function, op->low, op->high));
                out.origin[y * out.pitch + x] = lanes[0];
            }
            bh_clear_behind(&out, (uint32_t)y);
        }
    }
}

static void bh_pool(const bh_job *job) {
    const uint32_t *arg = job->op->arg, stride = arg[POOL_STRIDE_X];
    if (arg[POOL_MODE] > 3) {
        bh_pool_covering(job);
        return;
    }
    const uint64_t window = (uint64_t)(arg[POOL_KERNEL_X] - 1) * arg[POOL_DILATION_X] + 1;
    const uint32_t most = window > BH_LINE ? 0 : (BH_LINE - (uint32_t)window) / stride + 1;
    if (most < BH_VECTOR && most < arg[POOL_OUT_WIDTH])
        bh_pool_wide(job);
    else if (arg[POOL_MODE] == 3)
        bh_pool_as(job, most, BH_LARGEST_BYTES, stride);
    else if (arg[POOL_MODE] == 0 && stride == 2)
        bh_pool_as(job, most, BH_LARGEST, 2);
    else if (arg[POOL_MODE] == 0)
        bh_pool_as(job, most, BH_LARGEST, stride);
    else
        bh_pool_as(job, most, BH_SUMS, stride);
}
