/* Deep reuse: a product of which pixels that look alike are computed once (Ning and Shen, ICS 2019). Approximate.
 *
 * The columns are cut into slabs. In each, the signs of a pixel's numbers against a few hyper-planes are the number
 * of its cluster; the product is computed for the first pixel of every cluster and added to the sums of all its
 * pixels. Sums lie pixel by pixel, outputs in lanes, and are turned into planes at the end.
 */

#define BH_REUSE_PIXELS 4 /* clusters that one pass over the weights computes */

typedef struct {
    const bh_job *job;
    const int32_t *columns;
    const float *planes, *offsets, *weights;
    const uint16_t *mask;
    uint32_t length, hashes, padded; /* `padded`: hashes, up to a multiple of 4 */
    uint32_t pixels, width;          /* of the sums: flat pixels, and outputs up to whole vectors */
    float *sums, *results;           /* [pixels][width] each */
    int32_t *cluster, *first, *key;  /* of a pixel; first pixel and key of a cluster: [pixels] each */
    int32_t *table;                  /* [1 << hashes]: cluster of a key, -1 for none */
} bh_reuse_state;

/* Keys of the pixels of one vector, as floats, which hold them exactly. */
BH_INLINE bh_vec bh_reuse_keys(const bh_reuse_state *s, const float *pixels, uint32_t from, uint32_t to,
                               const float *offsets) {
    bh_vec key = bh_set(0.0f);
    float bit = 1.0f;
    for (uint32_t h = 0; h < s->hashes; h += 4) {
        bh_vec sum[4];
BH_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) sum[i] = bh_set(-offsets[h + i]);
        for (uint32_t k = from; k < to; k++) {
            const bh_vec x = bh_load(pixels + s->columns[k]);
            const float *plane = s->planes + (size_t)k * s->padded + h;
BH_UNROLL(4)
            for (uint32_t i = 0; i < 4; i++) sum[i] = bh_fma(bh_set(plane[i]), x, sum[i]);
        }
        for (uint32_t i = 0; i < 4 && h + i < s->hashes; i++, bit += bit)
            key = bh_add(key, bh_if_negative(sum[i], bh_set(0.0f), bh_set(bit)));
    }
    return key;
}

/* Gives every pixel of the slab its cluster; returns how many there are. */
static uint32_t bh_reuse_cluster(const bh_reuse_state *s, uint32_t from, uint32_t to, const float *offsets) {
    uint32_t clusters = 0;
    for (uint32_t p = 0; p < s->pixels; p += BH_LANES) {
        const uint32_t bits = bh_part(s->mask[p / BH_VECTOR], p % BH_VECTOR / BH_LANES);
        float keys[BH_LANES];
        if (bits) bh_store(keys, bh_reuse_keys(s, s->job->arena + p, from, to, offsets));
        for (uint32_t i = 0; i < BH_LANES; i++) {
            s->cluster[p + i] = -1;
            if (!(bits >> i & 1u)) continue;
            const int32_t key = (int32_t)keys[i];
            if (s->table[key] < 0) {
                s->table[key] = (int32_t)clusters;
                s->key[clusters] = key;
                s->first[clusters++] = (int32_t)(p + i);
            }
            s->cluster[p + i] = s->table[key];
        }
    }
    for (uint32_t c = 0; c < clusters; c++) s->table[s->key[c]] = -1;
    return clusters;
}

/* The product for the first pixels of COUNT clusters from `c` on, VECS vectors of outputs from `m` on. */
BH_INLINE void bh_reuse_block(const bh_reuse_state *s, uint32_t from, uint32_t to, uint32_t c, uint32_t m,
                              const uint32_t COUNT, const uint32_t VECS) {
    bh_vec sum[BH_REUSE_PIXELS][4];
    const float *x[BH_REUSE_PIXELS];
BH_UNROLL(4)
    for (uint32_t i = 0; i < COUNT; i++) {
        x[i] = s->job->arena + s->first[c + i];
BH_UNROLL(4)
        for (uint32_t v = 0; v < VECS; v++) sum[i][v] = bh_set(0.0f);
    }
    for (uint32_t k = from; k < to; k++) {
        bh_vec w[4];
BH_UNROLL(4)
        for (uint32_t v = 0; v < VECS; v++) w[v] = bh_load(s->weights + (size_t)k * s->width + m + v * BH_LANES);
BH_UNROLL(4)
        for (uint32_t i = 0; i < COUNT; i++) {
            const bh_vec pixel = bh_set(x[i][s->columns[k]]);
BH_UNROLL(4)
            for (uint32_t v = 0; v < VECS; v++) sum[i][v] = bh_fma(w[v], pixel, sum[i][v]);
        }
    }
BH_UNROLL(4)
    for (uint32_t i = 0; i < COUNT; i++) {
BH_UNROLL(4)
        for (uint32_t v = 0; v < VECS; v++)
            bh_store(s->results + (size_t)(c + i) * s->width + m + v * BH_LANES, sum[i][v]);
    }
}

static void bh_reuse_multiply(const bh_reuse_state *s, uint32_t from, uint32_t to, uint32_t clusters) {
    uint32_t m = 0;
    for (; m + 4 * BH_LANES <= s->width; m += 4 * BH_LANES) {
        uint32_t c = 0;
        for (; c + BH_REUSE_PIXELS <= clusters; c += BH_REUSE_PIXELS)
            bh_reuse_block(s, from, to, c, m, BH_REUSE_PIXELS, 4);
        for (; c < clusters; c++) bh_reuse_block(s, from, to, c, m, 1, 4);
    }
    for (; m < s->width; m += BH_LANES) {
        uint32_t c = 0;
        for (; c + BH_REUSE_PIXELS <= clusters; c += BH_REUSE_PIXELS)
            bh_reuse_block(s, from, to, c, m, BH_REUSE_PIXELS, 1);
        for (; c < clusters; c++) bh_reuse_block(s, from, to, c, m, 1, 1);
    }
}

static void bh_reuse_add(const bh_reuse_state *s) {
    for (uint32_t p = 0; p < s->pixels; p++) {
        if (s->cluster[p] < 0) continue;
        float *sum = s->sums + (size_t)p * s->width;
        const float *result = s->results + (size_t)s->cluster[p] * s->width;
        for (uint32_t m = 0; m < s->width; m += BH_LANES)
            bh_store(sum + m, bh_add(bh_load(sum + m), bh_load(result + m)));
    }
}

/* Sums become planes: a vector of pixels of one output at a time. */
static void bh_reuse_finish(const bh_reuse_state *s) {
    const bh_instruction *op = s->job->op;
    const bh_model *model = s->job->model;
    const int32_t *out = bh_i32(model, op->ref[REUSE_OUT_REF]);
    const int32_t *added = op->ref[REUSE_ADDED_REF].count ? bh_i32(model, op->ref[REUSE_ADDED_REF]) : NULL;
    for (uint32_t p = 0; p < s->pixels; p += BH_LANES) {
        const uint32_t bits = bh_part(s->mask[p / BH_VECTOR], p % BH_VECTOR / BH_LANES);
        for (uint32_t m = 0; m < op->ref[REUSE_OUT_REF].count; m++) {
            float lanes[BH_LANES];
            for (uint32_t i = 0; i < BH_LANES; i++) lanes[i] = s->sums[(size_t)(p + i) * s->width + m];
            bh_vec v = bh_load(lanes);
            if (added) v = bh_add(v, bh_load(s->job->arena + added[m] + p));
            v = bh_activate(v, op->function, op->low, op->high);
            bh_store(s->job->arena + out[m] + p, bh_vec_mask(v, bits));
        }
    }
    for (uint32_t m = 0; m < op->ref[REUSE_OUT_REF].count; m++) {
        float *plane = s->job->arena + out[m];
        memset(plane - op->arg[REUSE_BEFORE], 0, op->arg[REUSE_BEFORE] * sizeof(float));
        memset(plane + s->pixels, 0, (op->arg[REUSE_SIZE] - s->pixels) * sizeof(float));
    }
}

static void bh_reuse(const bh_job *job) {
    const bh_model *model = job->model;
    const bh_instruction *op = job->op;
    const uint32_t count = op->ref[REUSE_COLUMNS_REF].count;
    bh_reuse_state s = {.job = job,
                        .columns = bh_i32(model, op->ref[REUSE_COLUMNS_REF]),
                        .planes = bh_f32(model, op->ref[REUSE_PLANES_REF]),
                        .offsets = bh_f32(model, op->ref[REUSE_OFFSETS_REF]),
                        .weights = bh_f32(model, op->ref[REUSE_WEIGHTS_REF]),
                        .mask = bh_u16(model, op->ref[REUSE_MASK_REF]),
                        .length = op->arg[REUSE_LENGTH],
                        .hashes = op->arg[REUSE_HASHES],
                        .pixels = op->arg[REUSE_VECTORS] * BH_VECTOR,
                        .width = op->ref[REUSE_BIAS_REF].count};
    if (job->share) return; /* clusters are of all pixels: one thread */
    s.padded = (s.hashes + 3) / 4 * 4;
    s.sums = job->arena + op->arg[REUSE_ROOM];
    s.results = s.sums + (size_t)s.pixels * s.width;
    s.cluster = (void *)(s.results + (size_t)s.pixels * s.width);
    s.first = s.cluster + s.pixels;
    s.key = s.first + s.pixels;
    s.table = s.key + s.pixels;
    for (uint32_t i = 0; i < 1u << s.hashes; i++) s.table[i] = -1;
    for (uint32_t p = 0; p < s.pixels; p++)
        memcpy(s.sums + (size_t)p * s.width, bh_f32(model, op->ref[REUSE_BIAS_REF]), s.width * sizeof(float));
    const float *offsets = s.offsets;
    for (uint32_t from = 0; from < count; from += s.length, offsets += s.padded) {
        const uint32_t to = count - from < s.length ? count : from + s.length;
        bh_reuse_multiply(&s, from, to, bh_reuse_cluster(&s, from, to, offsets));
        bh_reuse_add(&s);
    }
    bh_reuse_finish(&s);
}
