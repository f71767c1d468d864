/* What GATHER, NORM, MATMUL and SOFTMAX must satisfy; the others are in validate_ops.c. */
#include <math.h>
#include <string.h>

#include "validate.h"

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
    return bh_check_ref(check, scale, 4) && bh_check_ref(check, shift, 4) && bh_check_flat(check, op);
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

int bh_check_softmax(const bh_check *check, const bh_instruction *op) {
    const uint32_t group = op->arg[FLAT_FUNCTION];
    if (group && op->ref[FLAT_IN_REF].count % group)
        return bh_refuse(check, "channels are no whole number of groups");
    return bh_check_flat(check, op);
}
