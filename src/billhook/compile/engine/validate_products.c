/* What matrices times pixels, or times a vector, must satisfy. */
#include "validate.h"

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
    if (!vectors || length > bh_arena_of(check))
        return bh_refuse(check, "planes are empty or larger than the arena");
    if (!panel || panel > INT32_MAX ||
        ((uint64_t)vectors + panel - 1) / panel * arg[SPMM_BLOCKS] > UINT32_MAX)
        return bh_refuse(check, "panels have no sensible size");
    if (arg[SPMM_SIZE] < length) return bh_refuse(check, "planes are smaller than their pixels");
    if (mask.count != vectors) return bh_refuse(check, "not one mask for every vector");
    if (added.count && added.count != matrix->out.count)
        return bh_refuse(check, "not one added plane for every row");
    return bh_check_ref(check, mask, 2) && bh_check_shifted(check, matrix->columns, length) &&
           bh_check_shifted(check, added, length) &&
           bh_check_listed(check, matrix->out, (bh_extent){arg[SPMM_BEFORE], arg[SPMM_SIZE]});
}

int bh_check_spmm(const bh_check *check, const bh_instruction *op) {
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

int bh_check_spmv(const bh_check *check, const bh_instruction *op) {
    const bh_matrix matrix = {
        op->arg[SPMV_ROWS],        op->arg[SPMV_BLOCKS],     op->arg[SPMV_SHARED],
        op->ref[SPMV_COLUMNS_REF], op->ref[SPMV_STARTS_REF], op->ref[SPMV_WEIGHTS_REF],
        op->ref[SPMV_BIAS_REF],    op->ref[SPMV_OUT_REF],    1,
    };
    if (matrix.rows != 1 && matrix.rows != 16) return bh_refuse(check, "blocks must have 1 or 16 rows");
    return check_matrix(check, &matrix) && bh_check_shifted(check, matrix.columns, 1) &&
           bh_check_listed(check, matrix.out, (bh_extent){0, 1});
}

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
    if (!bh_is_byte(arg[SPMM8_ZERO]) || !bh_is_byte(arg[SPMM8_LOW]) || !bh_is_byte(arg[SPMM8_HIGH]) ||
        !bh_is_byte(arg[SPMM8_ADDED_ZERO]))
        return bh_refuse(check, "a number of 8 bits is larger than 255");
    return 1;
}

/* Scales may be any numbers: what is out of range, or none, is rounded to a byte all the same. */
static int check_scales(const bh_check *check, const bh_instruction *op) {
    if (op->ref[SPMM8_SCALE_REF].count != op->ref[SPMM8_BIAS_REF].count)
        return bh_refuse(check, "not one scale for every row");
    return bh_check_ref(check, op->ref[SPMM8_SCALE_REF], 4);
}

int bh_check_spmm8(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const bh_matrix matrix = quads_of(op, arg[SPMM_ROWS], arg[SPMM_BLOCKS], arg[SPMM_SHARED]);
    if (matrix.rows != 4 && matrix.rows != 8) return bh_refuse(check, "blocks must have 4 or 8 rows");
    return check_bytes(check, op) && check_matrix(check, &matrix) && check_scales(check, op) &&
           check_pixels_of(check, op, &matrix, op->ref[SPMM8_ADDED_REF], op->ref[SPMM8_MASK_REF]);
}

_Static_assert((int)SPMV8_COLUMNS_REF == (int)SPMM8_COLUMNS_REF && (int)SPMV8_BIAS_REF == (int)SPMM8_BIAS_REF &&
                   (int)SPMV8_SCALE_REF == (int)SPMM8_SCALE_REF && (int)SPMV8_OUT_REF == (int)SPMM8_OUT_REF,
               "data of SPMV8 and SPMM8 have the same places");

int bh_check_spmv8(const bh_check *check, const bh_instruction *op) {
    bh_matrix matrix = quads_of(op, op->arg[SPMV_ROWS], op->arg[SPMV_BLOCKS], op->arg[SPMV_SHARED]);
    matrix.together = 1; /* floats are written, row by row */
    if (matrix.rows != 16) return bh_refuse(check, "blocks must have 16 rows");
    return check_matrix(check, &matrix) && check_scales(check, op) && bh_check_shifted(check, matrix.columns, 1) &&
           bh_check_listed(check, matrix.out, (bh_extent){0, 1});
}

/* The pixels of RUNS and RUNS8, whose first arguments are the same. */
static int check_runs_of(const bh_check *check, const bh_instruction *op, const bh_matrix *matrix, bh_ref added,
                         bh_ref runs) {
    const uint32_t *arg = op->arg;
    if (!check_matrix(check, matrix) || !bh_check_plane(check, arg[RUNS_HEIGHT], arg[RUNS_WIDTH], arg[RUNS_PITCH]))
        return 0;
    uint64_t length = bh_span(arg[RUNS_HEIGHT], arg[RUNS_WIDTH], arg[RUNS_PITCH]);
    if (length > bh_arena_of(check)) return bh_refuse(check, "planes are empty or larger than the arena");
    if (arg[RUNS_SIZE] < length) return bh_refuse(check, "planes are smaller than their pixels");
    if (added.count && added.count != matrix->out.count)
        return bh_refuse(check, "not one added plane for every row");
    if (!bh_check_ref(check, runs, sizeof(int32_t))) return 0;
    const int32_t *run = bh_i32(check->model, runs);
    for (uint32_t i = 0; i < runs.count; i++)
        if (run[i] < 0 || (uint64_t)run[i] + BH_RUN > length) return bh_refuse(check, "runs leave their planes");
    return bh_check_shifted(check, matrix->columns, length) && bh_check_shifted(check, added, length) &&
           bh_check_listed(check, matrix->out, (bh_extent){arg[RUNS_BEFORE], arg[RUNS_SIZE]});
}

int bh_check_runs(const bh_check *check, const bh_instruction *op) {
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

int bh_check_runs8(const bh_check *check, const bh_instruction *op) {
    const bh_matrix matrix = quads_of(op, BH_RUNS_ROWS, op->arg[RUNS_BLOCKS], op->arg[RUNS_SHARED]);
    return check_bytes(check, op) && check_scales(check, op) &&
           check_runs_of(check, op, &matrix, op->ref[SPMM8_ADDED_REF], op->ref[RUNS8_RUNS_REF]);
}

int bh_check_reuse(const bh_check *check, const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint32_t length = arg[REUSE_LENGTH], hashes = arg[REUSE_HASHES], vectors = arg[REUSE_VECTORS];
    const bh_ref columns = op->ref[REUSE_COLUMNS_REF], planes = op->ref[REUSE_PLANES_REF];
    const bh_ref offsets = op->ref[REUSE_OFFSETS_REF], weights = op->ref[REUSE_WEIGHTS_REF];
    const bh_ref bias = op->ref[REUSE_BIAS_REF], out = op->ref[REUSE_OUT_REF], added = op->ref[REUSE_ADDED_REF];
    const uint64_t arena = bh_arena_of(check), padded = (uint64_t)(hashes + 3) / 4 * 4;
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
           bh_check_written(check, arg[REUSE_ROOM], 0, 1, (bh_extent){0, room}) && bh_check_shifted(check, columns, pixels) &&
           bh_check_shifted(check, added, pixels) && planes_listed(check, out) &&
           bh_check_listed(check, out, (bh_extent){arg[REUSE_BEFORE], arg[REUSE_SIZE]});
}
