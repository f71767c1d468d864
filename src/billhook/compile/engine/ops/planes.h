/* What operators share that read and write planes row by row, or floats by address. */

/* Of an argument that holds a float. */
BH_INLINE float bh_float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The same byte four times: what fills margins of quads. */
BH_INLINE uint32_t bh_four_of(uint32_t byte) {
    return byte * 0x01010101u;
}

/* A plane that is written from its first row to its last one. */
typedef struct {
    float *origin; /* pixel (0, 0) */
    uint32_t height, width, pitch;
    size_t before, size; /* size 0: nothing but pixels may be written */
    uint32_t fill;       /* bits of what its margins hold */
} bh_target;

/* A plane that is read. */
typedef struct {
    const float *origin;
    uint32_t height, width, pitch;
} bh_source;

/* COPY, POOL and RESIZE have the same first arguments. */
BH_INLINE bh_target bh_target_of(const bh_job *job, uint32_t channel) {
    const uint32_t *arg = job->op->arg;
    return (bh_target){job->arena + arg[COPY_OUT] + (size_t)channel * arg[COPY_OUT_STRIDE],
                       arg[COPY_OUT_HEIGHT],
                       arg[COPY_OUT_WIDTH],
                       arg[COPY_OUT_PITCH],
                       arg[COPY_BEFORE],
                       arg[COPY_SIZE],
                       0};
}

BH_INLINE bh_source bh_source_of(const bh_job *job, uint32_t channel) {
    const uint32_t *arg = job->op->arg;
    const int32_t *planes = bh_i32(job->model, job->op->ref[COPY_IN_REF]);
    return (bh_source){job->arena + planes[channel], arg[COPY_HEIGHT], arg[COPY_WIDTH], arg[COPY_PITCH]};
}

/* The same 32 bits in every float. */
BH_INLINE void bh_fill_lanes(float *at, size_t count, uint32_t bits) {
    if (!bits) {
        memset(at, 0, count * sizeof(float));
        return;
    }
    for (size_t i = 0; i < count; i++) memcpy(at + i, &bits, sizeof bits);
}

/* Margins are a few whole vectors, for which memset would be a long way. */
BH_INLINE void bh_clear_margin(float *at, size_t count, uint32_t bits) {
    for (; count >= BH_LANES; count -= BH_LANES, at += BH_LANES) bh_quad_store(at, bh_quad_set((int32_t)bits));
    if (count) bh_fill_lanes(at, count, bits);
}

BH_INLINE void bh_clear_before(const bh_target *out) {
    if (out->size) bh_clear_margin(out->origin - out->before, out->before, out->fill);
}

/* Where row y ends for bh_put: behind it only rows that are still to be written, or zeros. */
BH_INLINE const float *bh_limit(const bh_target *out, uint32_t y) {
    if (out->size) return out->origin + out->size;
    if (out->pitch == out->width) return out->origin + (size_t)out->height * out->width;
    return out->origin + (size_t)y * out->pitch + out->width;
}

/* Store the first `count` lanes; others become zeros up to the limit, and must be written after this. */
BH_INLINE void bh_put(float *at, const float *limit, bh_vec v, size_t count) {
    if (count < BH_LANES) v = bh_vec_mask(v, (1u << count) - 1u);
    if (limit - at >= BH_LANES) {
        bh_store(at, v);
    } else {
        float lanes[BH_LANES];
        bh_store(lanes, v);
        memcpy(at, lanes, (size_t)(limit - at) * sizeof(float));
    }
}

/* Zeros between the last pixel of row y and the next row, or the end of the plane. */
BH_INLINE void bh_clear_behind(const bh_target *out, uint32_t y) {
    if (!out->size) return;
    size_t from = (size_t)y * out->pitch + out->width;
    size_t to = y + 1 < out->height ? (size_t)(y + 1) * out->pitch : out->size;
    bh_fill_lanes(out->origin + from, to - from, out->fill);
}

/* x[0], x[2], x[4] ... in the first half of the lanes and y[0], y[2] ... in the others; odd: x[1], x[3] ... */
BH_INLINE bh_vec bh_every_second(bh_vec x, bh_vec y, const int odd) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#if BH_LANES == 16
    if (odd) return __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif BH_LANES == 8
    if (odd) return __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15);
    return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14);
#else
    if (odd) return __builtin_shufflevector(x, y, 1, 3, 5, 7);
    return __builtin_shufflevector(x, y, 0, 2, 4, 6);
#endif
#endif
#endif
    float lanes[2 * BH_LANES];
    bh_store(lanes, x);
    bh_store(lanes + BH_LANES, y);
    for (size_t i = 0; i < BH_LANES; i++) lanes[i] = lanes[2 * i + (odd != 0)];
    return bh_load(lanes);
}

/* Lanes i = 0 .. LANES - 1 of p[i · step]; of those behind `count` only neighbours of the others are read. */
BH_INLINE bh_vec bh_every(const float *p, uint32_t step, size_t count) {
    if (step == 1) return bh_load(p);
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
    if (step == 2) return bh_every_second(bh_load(p), bh_load(p + BH_LANES), 0);
#endif
#endif
    float lanes[BH_LANES] = {0};
    for (size_t i = 0; i < BH_LANES && i < count; i++) lanes[i] = p[i * step];
    return bh_load(lanes);
}

/* Up to LANES floats that lie anywhere, or one after the other; zeros in the lanes behind. */
BH_INLINE bh_vec bh_gather(const float *arena, const int32_t *at, size_t count) {
    float lanes[BH_LANES] = {0};
    for (size_t i = 0; i < BH_LANES && i < count; i++) lanes[i] = arena[at[i]];
    return bh_load(lanes);
}

BH_INLINE bh_vec bh_load_some(const float *p, size_t count) {
    float lanes[BH_LANES] = {0};
    memcpy(lanes, p, (count < BH_LANES ? count : BH_LANES) * sizeof(float));
    return bh_load(lanes);
}

BH_INLINE void bh_scatter(float *out, size_t stride, bh_vec v, size_t count) {
    float lanes[BH_LANES];
    bh_store(lanes, v);
    for (size_t i = 0; i < BH_LANES && i < count; i++) out[i * stride] = lanes[i];
}

/* AFFINE, BINARY and SOFTMAX: planes as rows of whole vectors. */
typedef struct {
    const bh_job *job;
    const uint32_t *arg;
    const int32_t *in;
    const uint16_t *mask;
    uint32_t channels;
    uint32_t vectors; /* of LANES floats; 0 if a channel is one float */
    size_t stride;
} bh_flat;

BH_INLINE bh_flat bh_flat_of(const bh_job *job) {
    const bh_instruction *op = job->op;
    return (bh_flat){job,
                     op->arg,
                     bh_i32(job->model, op->ref[FLAT_IN_REF]),
                     bh_u16(job->model, op->ref[FLAT_MASK_REF]),
                     op->ref[FLAT_IN_REF].count,
                     op->arg[FLAT_VECTORS] * BH_PARTS,
                     op->arg[FLAT_OUT_STRIDE]};
}

BH_INLINE float *bh_flat_out(const bh_flat *f, uint32_t channel) {
    return f->job->arena + f->arg[FLAT_OUT] + channel * f->stride;
}

BH_INLINE bh_vec bh_flat_mask(const bh_flat *f, uint32_t vector, bh_vec v) {
    return bh_vec_mask(v, bh_part(f->mask[vector / BH_PARTS], vector % BH_PARTS));
}

BH_INLINE void bh_flat_margins(const bh_flat *f, float *out, uint32_t fill) {
    const size_t end = (size_t)f->arg[FLAT_VECTORS] * BH_VECTOR;
    bh_fill_lanes(out - f->arg[FLAT_BEFORE], f->arg[FLAT_BEFORE], fill);
    bh_fill_lanes(out + end, f->arg[FLAT_SIZE] - end, fill);
}
