/* What instructions must satisfy that take planes as rows of whole vectors. */
#include <math.h>
#include <string.h>

#include "validate.h"

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

static int check_flat(const bh_check *check, const bh_instruction *op) {
    return check_flat_planes(check, op, op->ref[FLAT_IN_REF].count);
}

int bh_check_quantise(const bh_check *check, const bh_instruction *op) {
    if (!bh_is_byte(op->arg[CONVERT_ZERO])) return bh_refuse(check, "a number of 8 bits is larger than 255");
    const uint64_t channels = op->ref[FLAT_IN_REF].count;
    return check_flat_planes(check, op, (uint32_t)((channels + 3) / 4));
}

int bh_check_dequantise(const bh_check *check, const bh_instruction *op) {
    const uint32_t channels = op->arg[CONVERT_CHANNELS];
    if (!bh_is_byte(op->arg[CONVERT_ZERO])) return bh_refuse(check, "a number of 8 bits is larger than 255");
    if (!channels || op->ref[FLAT_IN_REF].count != ((uint64_t)channels + 3) / 4)
        return bh_refuse(check, "not one quad for every four channels");
    return check_flat_planes(check, op, channels);
}

int bh_check_affine(const bh_check *check, const bh_instruction *op) {
    const bh_ref in = op->ref[FLAT_IN_REF], scale = op->ref[FLAT_SCALE_REF], shift = op->ref[FLAT_SHIFT_REF];
    if ((scale.count && scale.count != in.count) || (shift.count && shift.count != in.count))
        return bh_refuse(check, "not one scale and shift for every channel");
    return bh_check_ref(check, scale, 4) && bh_check_ref(check, shift, 4) && check_flat(check, op);
}

int bh_check_binary(const bh_check *check, const bh_instruction *op) {
    const uint32_t vectors = op->arg[FLAT_VECTORS], by_channel = op->arg[FLAT_BY_CHANNEL];
    if (op->arg[FLAT_FUNCTION] > 5 || by_channel > 1) return bh_refuse(check, "unknown function");
    if (op->ref[FLAT_SCALE_REF].count != op->ref[FLAT_IN_REF].count)
        return bh_refuse(check, "its two values have different numbers of channels");
    uint64_t read = by_channel || !vectors ? 1 : (uint64_t)vectors * BH_VECTOR;
    return check_flat(check, op) &&
           bh_check_pixels(check, op->ref[FLAT_SCALE_REF], (bh_extent){0, read}, "reads outside the arena");
}

int bh_check_softmax(const bh_check *check, const bh_instruction *op) {
    const uint32_t group = op->arg[FLAT_FUNCTION];
    if (group && op->ref[FLAT_IN_REF].count % group)
        return bh_refuse(check, "channels are no whole number of groups");
    return check_flat(check, op);
}

_Static_assert(NORM_VECTORS == (int)FLAT_VECTORS && NORM_SIZE == (int)FLAT_SIZE &&
                   NORM_SHIFT_REF == (int)FLAT_SHIFT_REF && NORM_MASK_REF == (int)FLAT_MASK_REF,
               "NORM begins like AFFINE");

int bh_check_norm(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t count = op->ref[NORM_IN_REF].count;
    const bh_ref scale = op->ref[NORM_SCALE_REF], shift = op->ref[NORM_SHIFT_REF];
    float epsilon;
    memcpy(&epsilon, &arg[NORM_EPSILON], sizeof epsilon);
    if (!arg[NORM_GROUP] || count % arg[NORM_GROUP])
        return bh_refuse(check, "channels are no whole number of groups");
    if (arg[NORM_PIXELS] && !arg[NORM_VECTORS]) return bh_refuse(check, "vectors have no planes");
    if (!isfinite(epsilon) || epsilon < 0) return bh_refuse(check, "what is added to the variance is negative");
    if (scale.count != count || shift.count != count)
        return bh_refuse(check, "not one scale and shift for every channel");
    return bh_check_ref(check, scale, 4) && bh_check_ref(check, shift, 4) && check_flat(check, op);
}

/* The smallest and the largest number of a table that has one. */
static void range_of(const bh_check *check, bh_ref table, int64_t *least, int64_t *most) {
    const int32_t *at = bh_i32(check->model, table);
    *least = *most = at[0];
    for (uint32_t i = 1; i < table.count; i++) {
        if (at[i] < *least) *least = at[i];
        if (at[i] > *most) *most = at[i];
    }
}

int bh_check_matmul(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const bh_ref rows = op->ref[MATMUL_ROWS_REF], steps = op->ref[MATMUL_STEPS_REF];
    const bh_ref columns = op->ref[MATMUL_COLUMNS_REF], mask = op->ref[MATMUL_MASK_REF];
    const uint64_t length = (uint64_t)arg[MATMUL_VECTORS] * BH_VECTOR;
    if (!arg[MATMUL_GROUPS] || !rows.count || rows.count % arg[MATMUL_GROUPS])
        return bh_refuse(check, "rows are no whole number of groups");
    if (!steps.count || columns.count != (uint64_t)steps.count * arg[MATMUL_GROUPS])
        return bh_refuse(check, "not one plane for every group and step");
    if (!length || mask.count != arg[MATMUL_VECTORS]) return bh_refuse(check, "not one mask for every vector");
    if (arg[MATMUL_SIZE] < length) return bh_refuse(check, "planes are smaller than their pixels");
    if (!bh_check_ref(check, rows, 4) || !bh_check_ref(check, steps, 4) || !bh_check_ref(check, mask, 2)) return 0;
    int64_t least, most, first, last;
    range_of(check, rows, &least, &most);
    range_of(check, steps, &first, &last);
    if (least + first < 0 || most + last >= (int64_t)check->model->header->arena)
        return bh_refuse(check, "reads outside the arena");
    return bh_check_pixels(check, columns, (bh_extent){0, length}, "reads outside the arena") &&
           bh_check_written(check, arg[MATMUL_OUT], arg[MATMUL_OUT_STRIDE], rows.count,
                  (bh_extent){arg[MATMUL_BEFORE], arg[MATMUL_SIZE]});
}
