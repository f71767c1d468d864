/* Which addresses instructions may read and write; what else each must satisfy stands in validate_products.c,
 * validate_planes.c and validate_flat.c, and format.h says what the arguments mean.
 *
 * What is read may begin or end in the slack around the arena, what is written may not. Operators read whole
 * vectors, at most 64 floats more than the pixels that are checked here, which the slack takes. Another thread may
 * be writing those, if they belong to what the instruction makes: ThreadSanitizer says so, and no result depends on
 * them.
 */
#include "validate.h"

int bh_check_written(const bh_check *check, uint32_t first, uint32_t stride, uint32_t count, bh_extent extent) {
    uint64_t arena = bh_arena_of(check);
    int fits = first <= arena && stride <= arena && extent.behind <= arena && extent.ahead <= first &&
               first + (uint64_t)(count - 1) * stride + extent.behind <= arena;
    return fits ? 1 : bh_refuse(check, "writes outside the arena");
}

int bh_check_shifted(const bh_check *check, bh_ref table, uint64_t length) {
    if (!bh_check_ref(check, table, sizeof(int32_t))) return 0;
    const int32_t *at = bh_i32(check->model, table);
    int64_t last = (int64_t)(bh_arena_of(check) + BH_SLACK) - (int64_t)length;
    for (uint32_t i = 0; i < table.count; i++)
        if (at[i] < -BH_SLACK || at[i] > last) return bh_refuse(check, "reads outside the arena");
    return 1;
}

int bh_check_listed(const bh_check *check, bh_ref table, bh_extent extent) {
    if (!bh_check_ref(check, table, sizeof(int32_t))) return 0;
    const int32_t *at = bh_i32(check->model, table);
    uint64_t arena = bh_arena_of(check);
    if (extent.ahead > arena || extent.behind > arena) return bh_refuse(check, "writes outside the arena");
    int64_t first = (int64_t)extent.ahead, last = (int64_t)(arena - extent.behind);
    for (uint32_t i = 0; i < table.count; i++)
        if (at[i] != -1 && (at[i] < first || at[i] > last))
            return bh_refuse(check, "writes outside the arena");
    return 1;
}

int bh_check_instruction(const bh_check *check, const bh_instruction *op) {
    static const struct {
        const char *name;
        int (*check)(const bh_check *, const bh_instruction *);
    } kinds[BH_KINDS] = {
        [BH_SPMM] = {"spmm", bh_check_spmm},
        [BH_SPMV] = {"spmv", bh_check_spmv},
        [BH_COPY] = {"copy", bh_check_copy},
        [BH_POOL] = {"pool", bh_check_pool},
        [BH_MEAN] = {"mean", bh_check_mean},
        [BH_AFFINE] = {"affine", bh_check_affine},
        [BH_BINARY] = {"binary", bh_check_binary},
        [BH_RESIZE] = {"resize", bh_check_resize},
        [BH_SOFTMAX] = {"softmax", bh_check_softmax},
        [BH_DEPTHWISE] = {"depthwise", bh_check_depthwise},
        [BH_RUNS] = {"runs", bh_check_runs},
        [BH_SPMM8] = {"spmm8", bh_check_spmm8},
        [BH_SPMV8] = {"spmv8", bh_check_spmv8},
        [BH_QUANTISE] = {"quantise", bh_check_quantise},
        [BH_DEQUANTISE] = {"dequantise", bh_check_dequantise},
        [BH_RUNS8] = {"runs8", bh_check_runs8},
        [BH_GATHER] = {"gather", bh_check_gather},
        [BH_NORM] = {"norm", bh_check_norm},
        [BH_MATMUL] = {"matmul", bh_check_matmul},
        [BH_REUSE] = {"reuse", bh_check_reuse},
    };
    if (op->kind >= BH_KINDS) return bh_refuse(check, "unknown kind");
    bh_check named = *check;
    named.kind = kinds[op->kind].name;
    if (op->function > BH_GELU_TANH) return bh_refuse(&named, "unknown activation");
    return kinds[op->kind].check(&named, op);
}
