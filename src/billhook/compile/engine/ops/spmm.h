/* Sparse matrix × pixels: every kind of convolution.
 *
 * A tile is ROWS × VECS sums that stay in registers while a loop runs over the kept columns of a block of rows;
 * each column costs VECS loads of pixels, ROWS broadcast weights and ROWS · VECS multiply-adds. How large a tile
 * may be depends on the number of registers alone.
 */

#if BH_LANES == 16 || defined(__aarch64__) /* 32 registers */
#define BH_TILE_8 3
#define BH_TILE_4 6
#define BH_TILE_1 12
#define BH_ROWS_8 8 /* rows of a block of 8 that one pass takes */
#else /* 16 */
#define BH_TILE_8 3
#define BH_TILE_4 3
#define BH_TILE_1 8
#define BH_ROWS_8 4
#endif

typedef struct { /* one block of rows */
    const float *arena;
    const int32_t *columns;
    const float *weights;
    uint32_t count; /* columns */
    const float *bias;
    const int32_t *out;
    const int32_t *added; /* NULL if nothing is */
    const uint16_t *mask;
    const bh_instruction *op;
    bh_bounds bounds;
} bh_block;

/* Activations that are no clip, over sums that were just stored: once in the library, not once for every tile. */
static __attribute__((noinline)) void bh_spmm_rare(const bh_block *b, float *out, uint32_t first,
                                                   uint32_t vectors) {
    for (uint32_t v = 0; v < vectors; v++) {
        uint32_t lane = first + v;
        bh_vec s = bh_activate(bh_load(out + v * BH_LANES), b->op->function, b->op->low, b->op->high);
        bh_store(out + v * BH_LANES, bh_vec_mask(s, bh_part(b->mask[lane / BH_PARTS], lane % BH_PARTS)));
    }
}

/* `first` is the first vector of lanes of the tile; `from` the first of the tile's rows in a block of `rows`. */
BH_INLINE void bh_tile(const bh_block *b, float *arena, uint32_t first, uint32_t from, uint32_t rows,
                       const uint32_t ROWS, const uint32_t VECS) {
    bh_vec sum[8][16];
BH_UNROLL(8)
    for (uint32_t r = 0; r < ROWS; r++) {
BH_UNROLL(16)
        for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_set(b->bias[from + r]);
    }
    const float *pixels = b->arena + (size_t)first * BH_LANES;
    const float *weights = b->weights + from;
    for (uint32_t k = 0; k < b->count; k++) {
        const float *x = pixels + b->columns[k];
        bh_vec in[16];
BH_UNROLL(16)
        for (uint32_t v = 0; v < VECS; v++) in[v] = bh_load(x + v * BH_LANES);
BH_UNROLL(8)
        for (uint32_t r = 0; r < ROWS; r++) {
            bh_vec w = bh_set(weights[r]);
BH_UNROLL(16)
            for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_fma(w, in[v], sum[r][v]);
        }
        weights += rows;
    }
    const bh_bounds bounds = b->bounds; /* read once: the compiler cannot know that stores leave them alone */
    const int rare = b->op->function > BH_CLIP;
    uint32_t mask[16];
BH_UNROLL(16)
    for (uint32_t v = 0; v < VECS; v++) mask[v] = bh_part(b->mask[(first + v) / BH_PARTS], (first + v) % BH_PARTS);
    if (b->added) {
BH_UNROLL(8)
        for (uint32_t r = 0; r < ROWS; r++) {
            const float *added = b->arena + b->added[from + r] + (size_t)first * BH_LANES;
BH_UNROLL(16)
            for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_add(sum[r][v], bh_load(added + v * BH_LANES));
        }
    }
BH_UNROLL(8)
    for (uint32_t r = 0; r < ROWS; r++) {
        int32_t plane = b->out[from + r];
        if (plane < 0) continue;
        float *out = arena + plane + (size_t)first * BH_LANES;
BH_UNROLL(16)
        for (uint32_t v = 0; v < VECS; v++)
            bh_store(out + v * BH_LANES, bh_vec_mask(bh_clip(sum[r][v], bounds.low, bounds.high), mask[v]));
        if (rare) bh_spmm_rare(b, out, first, VECS);
    }
}

/* All vectors [first, last) of a block: tiles as even as can be, none larger than TILE. */
#define BH_TILES(NAME, ROWS, TILE, CASES)                                                                     \
    static void NAME(const bh_block *b, float *arena, uint32_t first, uint32_t last, uint32_t from,           \
                     uint32_t rows) {                                                                         \
        while (first < last) {                                                                                \
            uint32_t tiles = (last - first + (TILE)-1) / (TILE);                                              \
            uint32_t size = (last - first + tiles - 1) / tiles;                                               \
            switch (size) { CASES }                                                                           \
            first += size;                                                                                    \
        }                                                                                                     \
    }
#define BH_CASE(ROWS, VECS)                                                                                   \
    case VECS:                                                                                                \
        bh_tile(b, arena, first, from, rows, ROWS, VECS);                                                     \
        break;

#define BH_CASES_3(R) BH_CASE(R, 1) BH_CASE(R, 2) BH_CASE(R, 3)
#define BH_CASES_6(R) BH_CASES_3(R) BH_CASE(R, 4) BH_CASE(R, 5) BH_CASE(R, 6)
#define BH_CASES_8(R) BH_CASES_6(R) BH_CASE(R, 7) BH_CASE(R, 8)
#define BH_CASES_12(R) BH_CASES_8(R) BH_CASE(R, 9) BH_CASE(R, 10) BH_CASE(R, 11) BH_CASE(R, 12)

BH_TILES(bh_tiles_8, BH_ROWS_8, BH_TILE_8, BH_CASES_3(BH_ROWS_8))
#if BH_TILE_4 == 6
BH_TILES(bh_tiles_4, 4, 6, BH_CASES_6(4))
#else
BH_TILES(bh_tiles_4, 4, 3, BH_CASES_3(4))
#endif
#if BH_TILE_1 == 12
BH_TILES(bh_tiles_1, 1, 12, BH_CASES_12(1))
#else
BH_TILES(bh_tiles_1, 1, 8, BH_CASES_8(1))
#endif

/* Zeros ahead of pixel (0, 0) and behind the last vector of the planes of a block. */
static void bh_spmm_margins(const bh_block *b, float *arena, uint32_t rows, int ahead, int behind) {
    const uint32_t *arg = b->op->arg;
    for (uint32_t r = 0; r < rows; r++) {
        if (b->out[r] < 0) continue;
        float *plane = arena + b->out[r];
        size_t end = (size_t)arg[SPMM_VECTORS] * BH_VECTOR;
        if (ahead) memset(plane - arg[SPMM_BEFORE], 0, arg[SPMM_BEFORE] * sizeof(float));
        if (behind) memset(plane + end, 0, (arg[SPMM_SIZE] - end) * sizeof(float));
    }
}

/* Block n of rows, from one vector of the file to another; planes are made `shift` floats behind where the table
 * names them. */
static void bh_spmm_block(const bh_job *job, uint32_t n, uint32_t first, uint32_t last, size_t shift) {
    const bh_model *model = job->model;
    const bh_instruction *op = job->op;
    const uint32_t rows = op->arg[SPMM_ROWS], start = bh_u32(model, op->ref[SPMM_STARTS_REF])[n];
    const bh_block b = {
        .arena = job->arena,
        .columns = bh_i32(model, op->ref[SPMM_COLUMNS_REF]) + (op->arg[SPMM_SHARED] ? 0 : start),
        .weights = bh_f32(model, op->ref[SPMM_WEIGHTS_REF]) + (size_t)start * rows,
        .count = bh_u32(model, op->ref[SPMM_STARTS_REF])[n + 1] - start,
        .bias = bh_f32(model, op->ref[SPMM_BIAS_REF]) + (size_t)n * rows,
        .out = bh_i32(model, op->ref[SPMM_OUT_REF]) + (size_t)n * rows,
        .added = op->ref[SPMM_ADDED_REF].count ? bh_i32(model, op->ref[SPMM_ADDED_REF]) + (size_t)n * rows : NULL,
        .mask = bh_u16(model, op->ref[SPMM_MASK_REF]),
        .op = op,
        .bounds = bh_bounds_of(op),
    };
    float *arena = job->arena + shift;
    bh_spmm_margins(&b, arena, rows, first == 0, last == op->arg[SPMM_VECTORS]);
    first *= BH_PARTS;
    last *= BH_PARTS;
    if (rows == 8) {
        for (uint32_t from = 0; from < 8; from += BH_ROWS_8) bh_tiles_8(&b, arena, first, last, from, 8);
    } else if (rows == 4) {
        bh_tiles_4(&b, arena, first, last, 0, 4);
    } else {
        bh_tiles_1(&b, arena, first, last, 0, 1);
    }
}

static void bh_spmm(const bh_job *job) {
    const uint32_t *arg = job->op->arg, blocks = arg[SPMM_BLOCKS], vectors = arg[SPMM_VECTORS];
    const uint32_t panel = arg[SPMM_PANEL], panels = (vectors + panel - 1) / panel;
    uint32_t unit, end;
    bh_share(job, panels * blocks, &unit, &end);
    for (; unit < end; unit++) { /* all blocks run over a panel, while its pixels are in the cache */
        const uint32_t p = unit / blocks;
        bh_spmm_block(job, unit % blocks, p * panel, p + 1 == panels ? vectors : (p + 1) * panel, 0);
    }
}
