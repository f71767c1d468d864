/* Sparse matrix × pixels in 8 bits: SPMM on quads, with sums of 32 bits.
 *
 * A column is a quad of channels at a shifted pixel and has four weights for each row. Four rows make a quad of
 * the output: their sums are scaled, added to, rounded and packed while they are in registers.
 */

#if BH_LANES == 16 && defined(__AVX512VNNI__)
#define BH_TILE8_8 3
#define BH_TILE8_4 6
#define BH_ROWS8_8 8 /* rows of a block of 8 that one pass takes */
#elif defined(__aarch64__) && !defined(BH_PORTABLE_VECTORS)
#define BH_TILE8_8 2
#define BH_TILE8_4 4
#define BH_ROWS8_8 8
#elif defined(__AVXVNNI__)
#define BH_TILE8_8 3
#define BH_TILE8_4 3
#define BH_ROWS8_8 4
#else /* more work for each product */
#define BH_TILE8_8 2
#define BH_TILE8_4 2
#define BH_ROWS8_8 4
#endif

typedef struct { /* one block of rows */
    float *arena;
    const int32_t *columns;
    const int32_t *weights; /* four in each, [columns][rows] */
    uint32_t count;         /* columns */
    int32_t start[BH_RUNS_ROWS]; /* of the sums */
    const float *scale;
    const int32_t *out;
    const int32_t *added; /* NULL if nothing is */
    const uint16_t *mask;
    const bh_instruction *op;
    bh_vec zero, added_scale;
    bh_quad fill, low, high;
} bh_block8;

/* Activations that are no clip work on real numbers; y is in the unit of the output. */
static __attribute__((noinline)) bh_vec bh_spmm8_rare(const bh_instruction *op, bh_vec y) {
    const bh_vec unit = bh_set(bh_float_of(op->arg[SPMM8_UNIT])), zero = bh_set((float)op->arg[SPMM8_ZERO]);
    const bh_vec x = bh_activate(bh_mul(bh_sub(y, zero), unit), op->function, op->low, op->high);
    return bh_add(bh_div(x, unit), zero);
}

/* `first` is the first vector of lanes of the tile; `from` the first of the tile's rows in a block of `rows`. */
BH_INLINE void bh_tile8(const bh_block8 *b, uint32_t first, uint32_t from, uint32_t rows, const uint32_t ROWS,
                        const uint32_t VECS) {
    bh_quad sum[8][6];
BH_UNROLL(8)
    for (uint32_t r = 0; r < ROWS; r++) {
BH_UNROLL(6)
        for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_quad_set(b->start[from + r]);
    }
    const float *pixels = b->arena + (size_t)first * BH_LANES;
    const int32_t *weights = b->weights + from;
    for (uint32_t k = 0; k < b->count; k++) {
        const float *x = pixels + b->columns[k];
        bh_quad in[6];
BH_UNROLL(6)
        for (uint32_t v = 0; v < VECS; v++) in[v] = bh_quad_load(x + v * BH_LANES);
BH_UNROLL(8)
        for (uint32_t r = 0; r < ROWS; r++) {
            const bh_quad w = bh_quad_set(weights[r]);
BH_UNROLL(6)
            for (uint32_t v = 0; v < VECS; v++) sum[r][v] = bh_dot(sum[r][v], in[v], w);
        }
        weights += rows;
    }
    const int rare = b->op->function != BH_NONE;
BH_UNROLL(2)
    for (uint32_t q = 0; q < ROWS / 4; q++) {
        const int32_t plane = b->out[from / 4 + q];
        if (plane < 0) continue;
BH_UNROLL(6)
        for (uint32_t v = 0; v < VECS; v++) {
            const size_t at = (size_t)(first + v) * BH_LANES;
            bh_vec four[4];
BH_UNROLL(4)
            for (uint32_t c = 0; c < 4; c++)
                four[c] = bh_fma(bh_quad_float(sum[4 * q + c][v]), bh_set(b->scale[from + 4 * q + c]), b->zero);
            if (b->added) {
                const bh_quad more = bh_quad_load(b->arena + b->added[from / 4 + q] + at);
                four[0] = bh_fma(bh_byte(more, 0), b->added_scale, four[0]);
                four[1] = bh_fma(bh_byte(more, 1), b->added_scale, four[1]);
                four[2] = bh_fma(bh_byte(more, 2), b->added_scale, four[2]);
                four[3] = bh_fma(bh_byte(more, 3), b->added_scale, four[3]);
            }
            for (uint32_t c = 0; rare && c < 4; c++) four[c] = bh_spmm8_rare(b->op, four[c]);
            bh_quad made = bh_byte_min(bh_byte_max(bh_quads_of(four), b->low), b->high);
            const uint32_t lane = first + v;
            made = bh_quad_pick(bh_part(b->mask[lane / BH_PARTS], lane % BH_PARTS), made, b->fill);
            bh_quad_store(b->arena + plane + at, made);
        }
    }
}

#define BH_TILES8(NAME, ROWS, TILE, CASES)                                                                    \
    static void NAME(const bh_block8 *b, uint32_t first, uint32_t last, uint32_t from, uint32_t rows) {       \
        while (first < last) {                                                                                \
            uint32_t tiles = (last - first + (TILE)-1) / (TILE);                                              \
            uint32_t size = (last - first + tiles - 1) / tiles;                                               \
            switch (size) { CASES }                                                                           \
            first += size;                                                                                    \
        }                                                                                                     \
    }
#define BH_CASE8(ROWS, VECS)                                                                                  \
    case VECS:                                                                                                \
        bh_tile8(b, first, from, rows, ROWS, VECS);                                                           \
        break;
#define BH_CASES8_2(R) BH_CASE8(R, 1) BH_CASE8(R, 2)
#define BH_CASES8_3(R) BH_CASES8_2(R) BH_CASE8(R, 3)
#define BH_CASES8_4(R) BH_CASES8_3(R) BH_CASE8(R, 4)
#define BH_CASES8_6(R) BH_CASES8_4(R) BH_CASE8(R, 5) BH_CASE8(R, 6)
#define BH_CASES8_UP_TO(TILE, R) BH_CASES8_##TILE(R)
#define BH_CASES8(TILE, R) BH_CASES8_UP_TO(TILE, R)

BH_TILES8(bh_tiles8_8, BH_ROWS8_8, BH_TILE8_8, BH_CASES8(BH_TILE8_8, BH_ROWS8_8))
BH_TILES8(bh_tiles8_4, 4, BH_TILE8_4, BH_CASES8(BH_TILE8_4, 4))

/* What sums begin with: the bias, and what bh_dot will have subtracted. */
static void bh_spmm8_start(bh_block8 *b, const int32_t *bias, uint32_t rows) {
    memcpy(b->start, bias, rows * sizeof *bias);
#if BH_SHIFT
    for (uint32_t r = 0; r < rows; r += BH_LANES) {
        bh_quad sum = bh_quad_set(0);
        for (uint32_t k = 0; k < b->count; k++)
            sum = bh_dot(sum, bh_quad_set(0), bh_quad_load(b->weights + (size_t)k * rows + r));
        int32_t lanes[BH_LANES];
        bh_quad_store(lanes, sum);
        for (uint32_t i = 0; i < BH_LANES; i++) b->start[r + i] = (int32_t)((uint32_t)b->start[r + i] - (uint32_t)lanes[i]);
    }
#endif
}

static void bh_spmm8_margins(const bh_block8 *b, uint32_t quads, int ahead, int behind) {
    const uint32_t *arg = b->op->arg;
    const uint32_t fill = bh_four_of(arg[SPMM8_ZERO]);
    for (uint32_t q = 0; q < quads; q++) {
        if (b->out[q] < 0) continue;
        float *plane = b->arena + b->out[q];
        const size_t end = (size_t)arg[SPMM_VECTORS] * BH_VECTOR;
        if (ahead) bh_fill_lanes(plane - arg[SPMM_BEFORE], arg[SPMM_BEFORE], fill);
        if (behind) bh_fill_lanes(plane + end, arg[SPMM_SIZE] - end, fill);
    }
}

/* What all blocks of an instruction have in common; RUNS8 has the same arguments and data in these places. */
static bh_block8 bh_block8_of(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg;
    const int added = op->ref[SPMM8_ADDED_REF].count != 0;
    const float added_scale = bh_float_of(arg[SPMM8_ADDED_SCALE]);
    bh_block8 b = {.arena = job->arena, .op = op};
    b.zero = bh_set((float)arg[SPMM8_ZERO] - (added ? (float)arg[SPMM8_ADDED_ZERO] * added_scale : 0.0f));
    b.added_scale = bh_set(added_scale);
    b.fill = bh_quad_set((int32_t)bh_four_of(arg[SPMM8_ZERO]));
    b.low = bh_quad_set((int32_t)bh_four_of(arg[SPMM8_LOW]));
    b.high = bh_quad_set((int32_t)bh_four_of(arg[SPMM8_HIGH]));
    return b;
}

/* Block `n`, whose columns begin at `first`. */
static void bh_block8_at(bh_block8 *b, const bh_job *job, uint32_t n, uint32_t rows, uint32_t first) {
    const bh_model *model = job->model;
    const bh_ref *ref = job->op->ref;
    const uint32_t *starts = bh_u32(model, ref[SPMM8_STARTS_REF]);
    const size_t row = (size_t)n * rows;
    b->columns = bh_i32(model, ref[SPMM8_COLUMNS_REF]) + first;
    b->weights = bh_i32(model, ref[SPMM8_WEIGHTS_REF]) + (size_t)starts[n] * rows;
    b->count = starts[n + 1] - starts[n];
    b->scale = bh_f32(model, ref[SPMM8_SCALE_REF]) + row;
    b->out = bh_i32(model, ref[SPMM8_OUT_REF]) + row / 4;
    b->added = ref[SPMM8_ADDED_REF].count ? bh_i32(model, ref[SPMM8_ADDED_REF]) + row / 4 : NULL;
    bh_spmm8_start(b, bh_i32(model, ref[SPMM8_BIAS_REF]) + row, rows);
}

static void bh_spmm8(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t *arg = op->arg, rows = arg[SPMM_ROWS], blocks = arg[SPMM_BLOCKS], vectors = arg[SPMM_VECTORS];
    const uint32_t panel = arg[SPMM_PANEL], panels = (vectors + panel - 1) / panel;
    const uint32_t *starts = bh_u32(job->model, op->ref[SPMM8_STARTS_REF]);
    bh_block8 b = bh_block8_of(job);
    b.mask = bh_u16(job->model, op->ref[SPMM8_MASK_REF]);
    uint32_t unit, end;
    bh_share(job, panels * blocks, &unit, &end);
    for (; unit < end; unit++) {
        const uint32_t p = unit / blocks, n = unit % blocks;
        const uint32_t first = p * panel * BH_PARTS;
        const uint32_t last = (p + 1 == panels ? vectors : (p + 1) * panel) * BH_PARTS;
        bh_block8_at(&b, job, n, rows, arg[SPMM_SHARED] ? 0 : starts[n]);
        bh_spmm8_margins(&b, rows / 4, p == 0, p + 1 == panels);
        if (rows == 8) {
            for (uint32_t from = 0; from < 8; from += BH_ROWS8_8) bh_tiles8_8(&b, first, last, from, 8);
        } else {
            bh_tiles8_4(&b, first, last, 0, 4);
        }
    }
}
