/* What instructions must satisfy that read and write planes row by row. */
#include <math.h>
#include <string.h>

#include "validate.h"

#define LARGEST_WINDOW 65535u /* numbers that describe windows; their products fit 64 bits */
#define WIDEST_OF_BYTES 256   /* pixels of such windows, for which a line of POOL is long enough */
#define WIDEST_STEP_OF_BYTES 32

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

int bh_check_copy(const bh_check *check, const bh_instruction *op) {
    const uint32_t y = op->arg[COPY_STEP_Y], x = op->arg[COPY_STEP_X];
    if (!y || !x || y > LARGEST_WINDOW || x > LARGEST_WINDOW)
        return bh_refuse(check, "steps have no sensible size");
    return check_planes(check, op);
}

int bh_check_pool(const bh_check *check, const bh_instruction *op) {
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

int bh_check_mean(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const bh_ref in = op->ref[MEAN_IN_REF];
    if (!bh_check_plane(check, arg[MEAN_HEIGHT], arg[MEAN_WIDTH], arg[MEAN_PITCH])) return 0;
    uint64_t read = bh_span(arg[MEAN_HEIGHT], arg[MEAN_WIDTH], arg[MEAN_PITCH]);
    return bh_check_pixels(check, in, (bh_extent){0, read}, "reads outside the arena") &&
           bh_check_written(check, arg[MEAN_OUT], arg[MEAN_OUT_STRIDE], in.count, (bh_extent){0, 1});
}

int bh_check_resize(const bh_check *check, const bh_instruction *op) {
    float scale[2];
    memcpy(scale, &op->arg[RESIZE_SCALE_Y], sizeof scale);
    if (op->arg[RESIZE_MODE] > 2) return bh_refuse(check, "unknown mode");
    for (int i = 0; i < 2; i++)
        if (!isfinite(scale[i]) || scale[i] < 0) return bh_refuse(check, "scales must be positive");
    return check_planes(check, op);
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
    if (count > LARGEST_WINDOW || op->arg[DEPTHWISE_SLOT] > bh_arena_of(check))
        return bh_refuse(check, "slots are larger than the arena");
    *slots = (count - 1) * op->arg[DEPTHWISE_SLOT];
    const bh_extent extent = {product->arg[SPMM_BEFORE], product->arg[SPMM_SIZE] + *slots};
    return bh_check_listed(check, product->ref[SPMM_OUT_REF], extent);
}

int bh_check_depthwise(const bh_check *check, const bh_instruction *op) {
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
        if (at[c] + first < -BH_SLACK || at[c] + last > (int64_t)bh_arena_of(check) + BH_SLACK)
            return bh_refuse(check, "reads outside the arena");
    return 1;
}

int bh_check_gather(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t height = arg[GATHER_OUT_HEIGHT], width = arg[GATHER_OUT_WIDTH], step = arg[GATHER_STEP];
    const bh_ref rows = op->ref[GATHER_ROWS_REF], columns = op->ref[GATHER_COLUMNS_REF];
    if (!bh_check_plane(check, height, width, arg[GATHER_OUT_PITCH])) return 0;
    if (!rows.count || rows.count % height) return bh_refuse(check, "not one address for every row");
    if (columns.count != (step ? 0 : width)) return bh_refuse(check, "not one column for every pixel of a row");
    if (!bh_check_ref(check, columns, sizeof(int32_t))) return 0;
    uint64_t reach = (uint64_t)(width - 1) * step + 1;
    const int32_t *column = bh_i32(check->model, columns);
    for (uint32_t j = 0; j < columns.count; j++) {
        if (column[j] < 0) return bh_refuse(check, "columns are negative");
        if ((uint64_t)column[j] + 1 > reach) reach = (uint64_t)column[j] + 1;
    }
    bh_extent written = {arg[GATHER_BEFORE], bh_span(height, width, arg[GATHER_OUT_PITCH])};
    if (arg[GATHER_SIZE] && arg[GATHER_SIZE] < written.behind)
        return bh_refuse(check, "planes are smaller than their pixels");
    if (arg[GATHER_SIZE]) written.behind = arg[GATHER_SIZE];
    return bh_check_pixels(check, rows, (bh_extent){0, reach}, "reads outside the arena") &&
           bh_check_written(check, arg[GATHER_OUT], arg[GATHER_OUT_STRIDE], rows.count / height, written);
}
