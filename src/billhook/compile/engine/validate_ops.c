/* What every kind of instruction must satisfy; format.h says what the arguments mean.
 *
 * What is read may begin or end in the slack around the arena, what is written may not. Operators read whole
 * vectors, at most 64 floats more than the pixels that are checked here, which the slack takes. Another thread may
 * be writing those, if they belong to what the instruction makes: ThreadSanitizer says so, and no result depends on
 * them.
 */
#include <math.h>
#include <string.h>

#include "validate.h"

#define LARGEST_WINDOW 65535u /* numbers that describe windows; their products fit 64 bits */
#define WIDEST_OF_BYTES 256   /* pixels of such windows, for which a line of POOL is long enough */
#define WIDEST_STEP_OF_BYTES 32

static uint64_t arena_of(const bh_check *check) { return check->model->header->arena; }

/* Whether `count` planes, `stride` floats apart from `first` on, can be written. */
int bh_check_written(const bh_check *check, uint32_t first, uint32_t stride, uint32_t count, bh_extent extent) {
    uint64_t arena = arena_of(check);
    int fits = first <= arena && stride <= arena && extent.behind <= arena && extent.ahead <= first &&
               first + (uint64_t)(count - 1) * stride + extent.behind <= arena;
    return fits ? 1 : bh_refuse(check, "writes outside the arena");
}

/* Whether `length` floats from any address of the table on can be read; shifted ones may lie in the slack. */
static int reads_shifted(const bh_check *check, bh_ref table, uint64_t length) {
    if (!bh_check_ref(check, table, sizeof(int32_t))) return 0;
    const int32_t *at = bh_i32(check->model, table);
    int64_t last = (int64_t)(arena_of(check) + BH_SLACK) - (int64_t)length;
    for (uint32_t i = 0; i < table.count; i++)
        if (at[i] < -BH_SLACK || at[i] > last) return bh_refuse(check, "reads outside the arena");
    return 1;
}

/* Whether what stands in the table, but -1, can be written. */
static int writes_listed(const bh_check *check, bh_ref table, bh_extent extent) {
    if (!bh_check_ref(check, table, sizeof(int32_t))) return 0;
    const int32_t *at = bh_i32(check->model, table);
    uint64_t arena = arena_of(check);
    if (extent.ahead > arena || extent.behind > arena) return bh_refuse(check, "writes outside the arena");
    int64_t first = (int64_t)extent.ahead, last = (int64_t)(arena - extent.behind);
    for (uint32_t i = 0; i < table.count; i++)
        if (at[i] != -1 && (at[i] < first || at[i] > last))
            return bh_refuse(check, "writes outside the arena");
    return 1;
}

static int planes_listed(const bh_check *check, bh_ref table) {
    if (!bh_check_ref(check, table, sizeof(int32_t))) return 0;
    for (uint32_t i = 0; i < table.count; i++)
        if (bh_i32(check->model, table)[i] < 0) return bh_refuse(check, "a row is written nowhere");
    return 1;
}

/* Blocks of rows, the part that SPMM and SPMV have in common. */
typedef struct {
    uint32_t rows, blocks, shared;
    bh_ref columns, starts, weights, bias, out;
    uint32_t together; /* rows that one entry of `out` is about */
} bh_matrix;

static int check_matrix(const bh_check *check, const bh_matrix *m) {
    uint64_t all = (uint64_t)m->blocks * m->rows;
    if (!m->blocks) return bh_refuse(check, "no rows");
    if (m->shared > 1) return bh_refuse(check, "unknown way to share columns");
    if (m->starts.count != (uint64_t)m->blocks + 1 || m->bias.count != all ||
        m->out.count != all / m->together)
        return bh_refuse(check, "tables do not fit the number of rows");
    if (!bh_check_ref(check, m->starts, 4) || !bh_check_ref(check, m->bias, 4) ||
        !bh_check_ref(check, m->weights, 4))
        return 0;
    const uint32_t *starts = bh_u32(check->model, m->starts);
    if (starts[0] != 0) return bh_refuse(check, "the first block does not begin at column 0");
    for (uint32_t b = 0; b < m->blocks; b++) {
        if (starts[b + 1] < starts[b]) return bh_refuse(check, "a block ends before it begins");
        if (m->shared && starts[b + 1] - starts[b] != m->columns.count)
            return bh_refuse(check, "blocks do not have the columns that they share");
    }
    if (!m->shared && starts[m->blocks] != m->columns.count)
        return bh_refuse(check, "blocks have other columns than the table");
    if ((uint64_t)starts[m->blocks] * m->rows != m->weights.count)
        return bh_refuse(check, "not one weight for every row and column");
    return 1;
}

/* The pixels of SPMM and SPMM8, whose first arguments are the same. */
static int check_pixels_of(const bh_check *check, const bh_instruction *op, const bh_matrix *matrix, bh_ref added,
                           bh_ref mask) {
    const uint32_t *arg = op->arg, vectors = arg[SPMM_VECTORS], panel = arg[SPMM_PANEL];
    uint64_t length = (uint64_t)vectors * BH_VECTOR;
    if (!vectors || length > arena_of(check))
        return bh_refuse(check, "planes are empty or larger than the arena");
    if (!panel || panel > INT32_MAX ||
        ((uint64_t)vectors + panel - 1) / panel * arg[SPMM_BLOCKS] > UINT32_MAX)
        return bh_refuse(check, "panels have no sensible size");
    if (arg[SPMM_SIZE] < length) return bh_refuse(check, "planes are smaller than their pixels");
    if (mask.count != vectors) return bh_refuse(check, "not one mask for every vector");
    if (added.count && added.count != matrix->out.count)
        return bh_refuse(check, "not one added plane for every row");
    return bh_check_ref(check, mask, 2) && reads_shifted(check, matrix->columns, length) &&
           reads_shifted(check, added, length) &&
           writes_listed(check, matrix->out, (bh_extent){arg[SPMM_BEFORE], arg[SPMM_SIZE]});
}

static int check_spmm(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg, rows = arg[SPMM_ROWS];
    const bh_ref added = op->ref[SPMM_ADDED_REF];
    const bh_matrix matrix = {
        rows,
        arg[SPMM_BLOCKS],
        arg[SPMM_SHARED],
        op->ref[SPMM_COLUMNS_REF],
        op->ref[SPMM_STARTS_REF],
        op->ref[SPMM_WEIGHTS_REF],
        op->ref[SPMM_BIAS_REF],
        op->ref[SPMM_OUT_REF],
        1,
    };
    if (rows != 1 && rows != 4 && rows != 8) return bh_refuse(check, "blocks must have 1, 4 or 8 rows");
    if (!check_matrix(check, &matrix)) return 0;
    return check_pixels_of(check, op, &matrix, added, op->ref[SPMM_MASK_REF]);
}

static int is_byte(uint32_t x) { return x < 256; }

static bh_matrix quads_of(const bh_instruction *op, uint32_t rows, uint32_t blocks, uint32_t shared) {
    return (bh_matrix){
        rows,
        blocks,
        shared,
        op->ref[SPMM8_COLUMNS_REF],
        op->ref[SPMM8_STARTS_REF],
        op->ref[SPMM8_WEIGHTS_REF],
        op->ref[SPMM8_BIAS_REF],
        op->ref[SPMM8_OUT_REF],
        4,
    };
}

static int check_bytes(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    if (!is_byte(arg[SPMM8_ZERO]) || !is_byte(arg[SPMM8_LOW]) || !is_byte(arg[SPMM8_HIGH]) ||
        !is_byte(arg[SPMM8_ADDED_ZERO]))
        return bh_refuse(check, "a number of 8 bits is larger than 255");
    return 1;
}

/* Scales may be any numbers: what is out of range, or none, is rounded to a byte all the same. */
static int check_scales(const bh_check *check, const bh_instruction *op) {
    if (op->ref[SPMM8_SCALE_REF].count != op->ref[SPMM8_BIAS_REF].count)
        return bh_refuse(check, "not one scale for every row");
    return bh_check_ref(check, op->ref[SPMM8_SCALE_REF], 4);
}

static int check_spmm8(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const bh_matrix matrix = quads_of(op, arg[SPMM_ROWS], arg[SPMM_BLOCKS], arg[SPMM_SHARED]);
    if (matrix.rows != 4 && matrix.rows != 8) return bh_refuse(check, "blocks must have 4 or 8 rows");
    return check_bytes(check, op) && check_matrix(check, &matrix) && check_scales(check, op) &&
           check_pixels_of(check, op, &matrix, op->ref[SPMM8_ADDED_REF], op->ref[SPMM8_MASK_REF]);
}

_Static_assert((int)SPMV8_COLUMNS_REF == (int)SPMM8_COLUMNS_REF && (int)SPMV8_BIAS_REF == (int)SPMM8_BIAS_REF &&
                   (int)SPMV8_SCALE_REF == (int)SPMM8_SCALE_REF && (int)SPMV8_OUT_REF == (int)SPMM8_OUT_REF,
               "data of SPMV8 and SPMM8 have the same places");

static int check_spmv(const bh_check *check, const bh_instruction *op) {
    const bh_matrix matrix = {
        op->arg[SPMV_ROWS],        op->arg[SPMV_BLOCKS],     op->arg[SPMV_SHARED],
        op->ref[SPMV_COLUMNS_REF], op->ref[SPMV_STARTS_REF], op->ref[SPMV_WEIGHTS_REF],
        op->ref[SPMV_BIAS_REF],    op->ref[SPMV_OUT_REF],    1,
    };
    if (matrix.rows != 1 && matrix.rows != 16) return bh_refuse(check, "blocks must have 1 or 16 rows");
    return check_matrix(check, &matrix) && reads_shifted(check, matrix.columns, 1) &&
           writes_listed(check, matrix.out, (bh_extent){0, 1});
}

static int check_spmv8(const bh_check *check, const bh_instruction *op) {
    bh_matrix matrix = quads_of(op, op->arg[SPMV_ROWS], op->arg[SPMV_BLOCKS], op->arg[SPMV_SHARED]);
    matrix.together = 1; /* floats are written, row by row */
    if (matrix.rows != 16) return bh_refuse(check, "blocks must have 16 rows");
    return check_matrix(check, &matrix) && check_scales(check, op) && reads_shifted(check, matrix.columns, 1) &&
           writes_listed(check, matrix.out, (bh_extent){0, 1});
}

_Static_assert(COPY_PITCH == 9 && POOL_PITCH == 9 && RESIZE_PITCH == 9,
               "the first ten arguments are the same");

/* The planes read and written of COPY, POOL and RESIZE. */
static int check_planes(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t height = arg[COPY_OUT_HEIGHT], width = arg[COPY_OUT_WIDTH], pitch = arg[COPY_OUT_PITCH];
    const bh_ref in = op->ref[COPY_IN_REF];
    if (!bh_check_plane(check, height, width, pitch) ||
        !bh_check_plane(check, arg[COPY_HEIGHT], arg[COPY_WIDTH], arg[COPY_PITCH]))
        return 0;
    uint64_t read = bh_span(arg[COPY_HEIGHT], arg[COPY_WIDTH], arg[COPY_PITCH]);
    bh_extent written = {arg[COPY_BEFORE], bh_span(height, width, pitch)};
    if (arg[COPY_SIZE] && arg[COPY_SIZE] < written.behind)
        return bh_refuse(check, "planes are smaller than their pixels");
    if (arg[COPY_SIZE]) written.behind = arg[COPY_SIZE];
    return bh_check_pixels(check, in, (bh_extent){0, read}, "reads outside the arena") &&
           bh_check_written(check, arg[COPY_OUT], arg[COPY_OUT_STRIDE], in.count, written);
}

static int check_copy(const bh_check *check, const bh_instruction *op) {
    const uint32_t y = op->arg[COPY_STEP_Y], x = op->arg[COPY_STEP_X];
    if (!y || !x || y > LARGEST_WINDOW || x > LARGEST_WINDOW)
        return bh_refuse(check, "steps have no sensible size");
    return check_planes(check, op);
}

static int check_pool(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t positive[] = {POOL_KERNEL_Y, POOL_KERNEL_X,   POOL_STRIDE_Y,
                                 POOL_STRIDE_X, POOL_DILATION_Y, POOL_DILATION_X};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        if (!arg[positive[i]] || arg[positive[i]] > LARGEST_WINDOW)
            return bh_refuse(check, "windows have no sensible size");
    if (arg[POOL_TOP] > LARGEST_WINDOW || arg[POOL_LEFT] > LARGEST_WINDOW)
        return bh_refuse(check, "windows have no sensible padding");
    if (arg[POOL_MODE] > 5) return bh_refuse(check, "unknown mode");
    if (arg[POOL_MODE] == 3 && ((uint64_t)arg[POOL_KERNEL_X] * arg[POOL_DILATION_X] > WIDEST_OF_BYTES ||
                                arg[POOL_STRIDE_X] > WIDEST_STEP_OF_BYTES || arg[POOL_AREA] > 255))
        return bh_refuse(check, "windows of bytes have no sensible size");
    return check_planes(check, op);
}

static int check_mean(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const bh_ref in = op->ref[MEAN_IN_REF];
    if (!bh_check_plane(check, arg[MEAN_HEIGHT], arg[MEAN_WIDTH], arg[MEAN_PITCH])) return 0;
    uint64_t read = bh_span(arg[MEAN_HEIGHT], arg[MEAN_WIDTH], arg[MEAN_PITCH]);
    return bh_check_pixels(check, in, (bh_extent){0, read}, "reads outside the arena") &&
           bh_check_written(check, arg[MEAN_OUT], arg[MEAN_OUT_STRIDE], in.count, (bh_extent){0, 1});
}

/* What AFFINE, BINARY, SOFTMAX and conversions have in common, with `planes` that are written. */
static int check_flat_planes(const bh_check *check, const bh_instruction *op, uint32_t planes) {
    const uint32_t *arg = op->arg;
    const uint32_t vectors = arg[FLAT_VECTORS];
    const bh_ref in = op->ref[FLAT_IN_REF], mask = op->ref[FLAT_MASK_REF];
    bh_extent written = {0, 1};
    uint64_t read = 1;
    if (mask.count != vectors) return bh_refuse(check, "not one mask for every vector");
    if (vectors) {
        read = (uint64_t)vectors * BH_VECTOR;
        if (arg[FLAT_SIZE] < read) return bh_refuse(check, "planes are smaller than their pixels");
        written = (bh_extent){arg[FLAT_BEFORE], arg[FLAT_SIZE]};
    }
    return bh_check_ref(check, mask, 2) &&
           bh_check_pixels(check, in, (bh_extent){0, read}, "reads outside the arena") &&
           bh_check_written(check, arg[FLAT_OUT], arg[FLAT_OUT_STRIDE], planes, written);
}

int bh_check_flat(const bh_check *check, const bh_instruction *op) {
    return check_flat_planes(check, op, op->ref[FLAT_IN_REF].count);
}

static int check_quantise(const bh_check *check, const bh_instruction *op) {
    if (!is_byte(op->arg[CONVERT_ZERO])) return bh_refuse(check, "a number of 8 bits is larger than 255");
    const uint64_t channels = op->ref[FLAT_IN_REF].count;
    return check_flat_planes(check, op, (uint32_t)((channels + 3) / 4));
}

static int check_dequantise(const bh_check *check, const bh_instruction *op) {
    const uint32_t channels = op->arg[CONVERT_CHANNELS];
    if (!is_byte(op->arg[CONVERT_ZERO])) return bh_refuse(check, "a number of 8 bits is larger than 255");
    if (!channels || op->ref[FLAT_IN_REF].count != ((uint64_t)channels + 3) / 4)
        return bh_refuse(check, "not one quad for every four channels");
    return check_flat_planes(check, op, channels);
}

static int check_affine(const bh_check *check, const bh_instruction *op) {
    const bh_ref in = op->ref[FLAT_IN_REF], scale = op->ref[FLAT_SCALE_REF], shift = op->ref[FLAT_SHIFT_REF];
    if ((scale.count && scale.count != in.count) || (shift.count && shift.count != in.count))
        return bh_refuse(check, "not one scale and shift for every channel");
    return bh_check_ref(check, scale, 4) && bh_check_ref(check, shift, 4) && bh_check_flat(check, op);
}

static int check_binary(const bh_check *check, const bh_instruction *op) {
    const uint32_t vectors = op->arg[FLAT_VECTORS], by_channel = op->arg[FLAT_BY_CHANNEL];
    if (op->arg[FLAT_FUNCTION] > 5 || by_channel > 1) return bh_refuse(check, "unknown function");
    if (op->ref[FLAT_SCALE_REF].count != op->ref[FLAT_IN_REF].count)
        return bh_refuse(check, "its two values have different numbers of channels");
    uint64_t read = by_channel || !vectors ? 1 : (uint64_t)vectors * BH_VECTOR;
    return bh_check_flat(check, op) &&
           bh_check_pixels(check, op->ref[FLAT_SCALE_REF], (bh_extent){0, read}, "reads outside the arena");
}

static int check_resize(const bh_check *check, const bh_instruction *op) {
    float scale[2];
    memcpy(scale, &op->arg[RESIZE_SCALE_Y], sizeof scale);
    if (op->arg[RESIZE_MODE] > 2) return bh_refuse(check, "unknown mode");
    for (int i = 0; i < 2; i++)
        if (!isfinite(scale[i]) || scale[i] < 0) return bh_refuse(check, "scales must be positive");
    return check_planes(check, op);
}

/* The pixels of RUNS and RUNS8, whose first arguments are the same. */
static int check_runs_of(const bh_check *check, const bh_instruction *op, const bh_matrix *matrix, bh_ref added,
                         bh_ref runs) {
    const uint32_t *arg = op->arg;
    if (!check_matrix(check, matrix) || !bh_check_plane(check, arg[RUNS_HEIGHT], arg[RUNS_WIDTH], arg[RUNS_PITCH]))
        return 0;
    uint64_t length = bh_span(arg[RUNS_HEIGHT], arg[RUNS_WIDTH], arg[RUNS_PITCH]);
    if (length > arena_of(check)) return bh_refuse(check, "planes are empty or larger than the arena");
    if (arg[RUNS_SIZE] < length) return bh_refuse(check, "planes are smaller than their pixels");
    if (added.count && added.count != matrix->out.count)
        return bh_refuse(check, "not one added plane for every row");
    if (!bh_check_ref(check, runs, sizeof(int32_t))) return 0;
    const int32_t *run = bh_i32(check->model, runs);
    for (uint32_t i = 0; i < runs.count; i++)
        if (run[i] < 0 || (uint64_t)run[i] + BH_RUN > length) return bh_refuse(check, "runs leave their planes");
    return reads_shifted(check, matrix->columns, length) && reads_shifted(check, added, length) &&
           writes_listed(check, matrix->out, (bh_extent){arg[RUNS_BEFORE], arg[RUNS_SIZE]});
}

static int check_runs(const bh_check *check, const bh_instruction *op) {
    const bh_matrix matrix = {
        BH_RUNS_ROWS,
        op->arg[RUNS_BLOCKS],
        op->arg[RUNS_SHARED],
        op->ref[RUNS_COLUMNS_REF],
        op->ref[RUNS_STARTS_REF],
        op->ref[RUNS_WEIGHTS_REF],
        op->ref[RUNS_BIAS_REF],
        op->ref[RUNS_OUT_REF],
        1,
    };
    return check_runs_of(check, op, &matrix, op->ref[RUNS_ADDED_REF], op->ref[RUNS_RUNS_REF]);
}

static int check_runs8(const bh_check *check, const bh_instruction *op) {
    const bh_matrix matrix = quads_of(op, BH_RUNS_ROWS, op->arg[RUNS_BLOCKS], op->arg[RUNS_SHARED]);
    return check_bytes(check, op) && check_scales(check, op) &&
           check_runs_of(check, op, &matrix, op->ref[SPMM8_ADDED_REF], op->ref[RUNS8_RUNS_REF]);
}

/* Whether the instruction ahead makes the planes of a chain, and all slots lie in the arena. */
static int check_chain(const bh_check *check, const bh_instruction *op, uint64_t *slots) {
    const uint64_t count = op->arg[DEPTHWISE_SLOTS], channels = op->ref[DEPTHWISE_IN_REF].count;
    *slots = 0;
    if (!count) return 1;
    if (!check->number || op[-1].kind != BH_SPMM) return bh_refuse(check, "chained to nothing that makes planes");
    const bh_instruction *product = op - 1;
    const uint64_t rows = product->arg[SPMM_ROWS], blocks = product->arg[SPMM_BLOCKS];
    if (blocks * rows < channels || (blocks - 1) * rows >= channels)
        return bh_refuse(check, "chained to another number of planes");
    if (count > LARGEST_WINDOW || op->arg[DEPTHWISE_SLOT] > arena_of(check))
        return bh_refuse(check, "slots are larger than the arena");
    *slots = (count - 1) * op->arg[DEPTHWISE_SLOT];
    const bh_extent extent = {product->arg[SPMM_BEFORE], product->arg[SPMM_SIZE] + *slots};
    return writes_listed(check, product->ref[SPMM_OUT_REF], extent);
}

static int check_reuse(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t length = arg[REUSE_LENGTH], hashes = arg[REUSE_HASHES], vectors = arg[REUSE_VECTORS];
    const bh_ref columns = op->ref[REUSE_COLUMNS_REF], planes = op->ref[REUSE_PLANES_REF];
    const bh_ref offsets = op->ref[REUSE_OFFSETS_REF], weights = op->ref[REUSE_WEIGHTS_REF];
    const bh_ref bias = op->ref[REUSE_BIAS_REF], out = op->ref[REUSE_OUT_REF], added = op->ref[REUSE_ADDED_REF];
    const uint64_t arena = arena_of(check), padded = (uint64_t)(hashes + 3) / 4 * 4;
    if (!length || !hashes || hashes > BH_REUSE_HASHES)
        return bh_refuse(check, "slabs have no sensible length or number of hyper-planes");
    const uint64_t slabs = ((uint64_t)columns.count + length - 1) / length;
    if (planes.count != columns.count * padded || offsets.count != slabs * padded)
        return bh_refuse(check, "not one hyper-plane for every column and slab");
    if (!out.count || bias.count % BH_VECTOR || bias.count < out.count ||
        weights.count != (uint64_t)columns.count * bias.count)
        return bh_refuse(check, "not one weight for every row and column");
    if (added.count && added.count != out.count) return bh_refuse(check, "not one added plane for every row");
    const uint64_t pixels = (uint64_t)vectors * BH_VECTOR;
    if (!vectors || pixels > arena || bias.count > arena)
        return bh_refuse(check, "planes are empty or larger than the arena");
    if (arg[REUSE_SIZE] < pixels) return bh_refuse(check, "planes are smaller than their pixels");
    if (op->ref[REUSE_MASK_REF].count != vectors) return bh_refuse(check, "not one mask for every vector");
    const uint64_t room = 2 * pixels * bias.count + 3 * pixels + ((uint64_t)1 << hashes);
    const bh_ref floats[] = {planes, offsets, weights, bias};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        if (!bh_check_ref(check, floats[i], 4)) return 0;
    return bh_check_ref(check, op->ref[REUSE_MASK_REF], 2) &&
           writes(check, arg[REUSE_ROOM], 0, 1, (bh_extent){0, room}) && reads_shifted(check, columns, pixels) &&
           reads_shifted(check, added, pixels) && planes_listed(check, out) &&
           writes_listed(check, out, (bh_extent){arg[REUSE_BEFORE], arg[REUSE_SIZE]});
}

static int check_depthwise(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t kernel = arg[DEPTHWISE_KERNEL], stride = arg[DEPTHWISE_STRIDE];
    const bh_ref in = op->ref[DEPTHWISE_IN_REF], weights = op->ref[DEPTHWISE_WEIGHTS_REF];
    if ((kernel != 3 && kernel != 5) || (stride != 1 && stride != 2))
        return bh_refuse(check, "windows must be 3x3 or 5x5 with stride 1 or 2");
    if (arg[DEPTHWISE_TOP] >= kernel || arg[DEPTHWISE_LEFT] >= kernel)
        return bh_refuse(check, "windows have no sensible padding");
    if (weights.count != (uint64_t)in.count * kernel * kernel || op->ref[DEPTHWISE_BIAS_REF].count != in.count)
        return bh_refuse(check, "not one window and bias for every channel");
    uint64_t slots;
    if (!bh_check_ref(check, weights, 4) || !bh_check_ref(check, op->ref[DEPTHWISE_BIAS_REF], 4) ||
        !check_planes(check, op) || !check_chain(check, op, &slots))
        return 0;
    const int64_t pitch = arg[DEPTHWISE_PITCH];
    const int64_t rows = (int64_t)(arg[DEPTHWISE_OUT_HEIGHT] - 1) * stride + kernel - 1;
    if (rows > INT32_MAX / pitch) return bh_refuse(check, "reads outside the arena");
    const int64_t first = -(int64_t)arg[DEPTHWISE_TOP] * pitch - arg[DEPTHWISE_LEFT];
    const int64_t pixels = (int64_t)(arg[DEPTHWISE_OUT_WIDTH] - 1) * stride + kernel;
    /* Whole vectors of strided floats, and those of the row behind an odd number of rows that are read in pairs. */
    const int64_t last = first + rows * pitch + pixels + 64 + 2 * BH_PAIRED_PITCH + (int64_t)slots;
    const int32_t *at = bh_i32(check->model, in);
    for (uint32_t c = 0; c < in.count; c++)
        if (at[c] + first < -BH_SLACK || at[c] + last > (int64_t)arena_of(check) + BH_SLACK)
            return bh_refuse(check, "reads outside the arena");
    return 1;
}

int bh_check_instruction(const bh_check *check, const bh_instruction *op) {
    static const struct {
        const char *name;
        int (*check)(const bh_check *, const bh_instruction *);
    } kinds[BH_KINDS] = {
        [BH_SPMM] = {"spmm", check_spmm},       [BH_SPMV] = {"spmv", check_spmv},
        [BH_COPY] = {"copy", check_copy},       [BH_POOL] = {"pool", check_pool},
        [BH_MEAN] = {"mean", check_mean},       [BH_AFFINE] = {"affine", check_affine},
        [BH_BINARY] = {"binary", check_binary}, [BH_RESIZE] = {"resize", check_resize},
        [BH_SOFTMAX] = {"softmax", bh_check_softmax}, [BH_DEPTHWISE] = {"depthwise", check_depthwise},
        [BH_RUNS] = {"runs", check_runs},       [BH_SPMM8] = {"spmm8", check_spmm8},
        [BH_SPMV8] = {"spmv8", check_spmv8},    [BH_QUANTISE] = {"quantise", check_quantise},
        [BH_DEQUANTISE] = {"dequantise", check_dequantise}, [BH_RUNS8] = {"runs8", check_runs8},
        [BH_GATHER] = {"gather", bh_check_gather}, [BH_NORM] = {"norm", bh_check_norm},
        [BH_MATMUL] = {"matmul", bh_check_matmul},
        [BH_REUSE] = {"reuse", check_reuse},
    };
    if (op->kind >= BH_KINDS) return bh_refuse(check, "unknown kind");
    bh_check named = *check;
    named.kind = kinds[op->kind].name;
    if (op->function > BH_GELU_TANH) return bh_refuse(&named, "unknown activation");
    return kinds[op->kind].check(&named, op);
}
