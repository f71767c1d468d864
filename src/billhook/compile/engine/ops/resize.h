/* Planes of another size: the nearest pixel, or a mixture of four, as PyTorch's interpolate computes it. */

typedef struct { /* where one row or column of the output comes from */
    uint32_t first, second;
    float weight; /* of the second */
} bh_mixture;

BH_INLINE bh_mixture bh_mixture_of(uint32_t i, float scale, uint32_t size, uint32_t mode) {
    float at = mode == 1 ? ((float)i + 0.5f) * scale - 0.5f : (float)i * scale;
    if (!(at > 0)) at = 0;
    const uint32_t last = size - 1;
    uint32_t first = at < (float)last ? (uint32_t)at : last; /* compared first: scales come from a file */
    if (first > last) first = last;
    if (mode == 0) return (bh_mixture){first, first, 0.0f};
    return (bh_mixture){first, first < last ? first + 1 : last, first < last ? at - (float)first : 0.0f};
}

#define BH_COLUMNS 256 /* of the output, that are prepared at a time */

typedef struct { /* mixtures as three arrays, ready for vectors */
    uint32_t first[BH_COLUMNS], second[BH_COLUMNS];
    float weight[BH_COLUMNS];
} bh_columns;

static void bh_prepare_columns(const uint32_t *arg, uint32_t from, float scale, bh_columns *columns) {
    for (uint32_t i = 0; i < BH_COLUMNS; i++) {
        const bh_mixture m = bh_mixture_of(from + i, scale, arg[RESIZE_WIDTH], arg[RESIZE_MODE]);
        columns->first[i] = m.first;
        columns->second[i] = m.second;
        columns->weight[i] = m.weight;
    }
}

BH_INLINE bh_vec bh_pick_lanes(const float *row, const uint32_t *at) {
    float lanes[BH_LANES];
    for (uint32_t i = 0; i < BH_LANES; i++) lanes[i] = row[at[i]];
    return bh_load(lanes);
}

/* a · (1 - weight) + b · weight */
BH_INLINE bh_vec bh_mix(bh_vec a, bh_vec b, bh_vec weight) {
    return bh_fma(b, weight, bh_mul(a, bh_sub(bh_set(1.0f), weight)));
}

/* `count` pixels of row y of the output, from column `from` on, whose mixtures are given. */
BH_INLINE void bh_resize_row(const bh_job *job, const bh_source *in, const bh_target *out, uint32_t y,
                             bh_mixture m, uint32_t from, uint32_t count, const bh_columns *columns,
                             const int nearest) {
    const bh_instruction *op = job->op;
    const float *upper = in->origin + (size_t)m.first * in->pitch;
    const float *lower = in->origin + (size_t)m.second * in->pitch;
    const float *limit = bh_limit(out, y);
    float *row = out->origin + (size_t)y * out->pitch + from;
    for (uint32_t x = 0; x < count; x += BH_LANES) {
        const uint32_t *first = columns->first + x, *second = columns->second + x;
        bh_vec v = bh_pick_lanes(upper, first);
        if (!nearest) {
            const bh_vec weight = bh_load(columns->weight + x);
            bh_vec below = bh_mix(bh_pick_lanes(lower, first), bh_pick_lanes(lower, second), weight);
            v = bh_mix(bh_mix(v, bh_pick_lanes(upper, second), weight), below, bh_set(m.weight));
        }
        bh_put(row + x, limit, bh_activate(v, op->function, op->low, op->high), count - x);
    }
}

static void bh_resize_plane(const bh_job *job, const bh_source *in, const bh_target *out, float scale_y,
                            float scale_x, uint32_t *prepared, bh_columns *columns) {
    const uint32_t *arg = job->op->arg, mode = arg[RESIZE_MODE];
    bh_clear_before(out);
    for (uint32_t y = 0; y < out->height; y++) {
        const bh_mixture m = bh_mixture_of(y, scale_y, in->height, mode);
        for (uint32_t x = 0; x < out->width; x += BH_COLUMNS) {
            const uint32_t count = out->width - x < BH_COLUMNS ? out->width - x : BH_COLUMNS;
            if (*prepared != x) bh_prepare_columns(arg, x, scale_x, columns);
            *prepared = x;
            if (mode == 0)
                bh_resize_row(job, in, out, y, m, x, count, columns, 1);
            else
                bh_resize_row(job, in, out, y, m, x, count, columns, 0);
        }
        bh_clear_behind(out, y);
    }
}

static void bh_resize(const bh_job *job) {
    float scale[2];
    memcpy(scale, &job->op->arg[RESIZE_SCALE_Y], sizeof scale);
    bh_columns columns;
    uint32_t c, end, prepared = UINT32_MAX;
    bh_share(job, job->op->ref[RESIZE_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_source in = bh_source_of(job, c);
        const bh_target out = bh_target_of(job, c);
        bh_resize_plane(job, &in, &out, scale[0], scale[1], &prepared, &columns);
    }
}
