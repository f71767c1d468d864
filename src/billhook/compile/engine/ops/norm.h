/* (x - mean) / sqrt(variance + epsilon) · scale + shift: of channels at every pixel, or of whole planes. */

typedef struct {
    const float *scale, *shift;
    uint32_t group;
    float epsilon;
} bh_norm_args;

static bh_norm_args bh_norm_args_of(const bh_job *job) {
    const bh_instruction *op = job->op;
    return (bh_norm_args){bh_f32(job->model, op->ref[NORM_SCALE_REF]), bh_f32(job->model, op->ref[NORM_SHIFT_REF]),
                          op->arg[NORM_GROUP], bh_float_of(op->arg[NORM_EPSILON])};
}

static float bh_factor(float variance, float epsilon) {
    float lanes[BH_LANES];
    bh_store(lanes, bh_sqrt(bh_set(variance + epsilon)));
    return 1.0f / lanes[0];
}

/* One vector of pixels. The mean is taken away before squaring: nothing is lost where it is large. */
BH_INLINE void bh_norm_pixels(const bh_flat *f, const bh_norm_args *n, uint32_t vector) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena + (size_t)vector * BH_LANES;
    const bh_vec count = bh_set((float)n->group);
    for (uint32_t first = 0; first < f->channels; first += n->group) {
        const uint32_t end = first + n->group;
        bh_vec sum = bh_set(0.0f), squares = bh_set(0.0f);
        for (uint32_t c = first; c < end; c++) sum = bh_add(sum, bh_load(arena + f->in[c]));
        const bh_vec mean = bh_div(sum, count);
        for (uint32_t c = first; c < end; c++) {
            const bh_vec d = bh_sub(bh_load(arena + f->in[c]), mean);
            squares = bh_fma(d, d, squares);
        }
        const bh_vec spread = bh_sqrt(bh_add(bh_div(squares, count), bh_set(n->epsilon)));
        const bh_vec factor = bh_div(bh_set(1.0f), spread);
        for (uint32_t c = first; c < end; c++) {
            const bh_vec a = bh_mul(factor, bh_set(n->scale[c]));
            bh_vec x = bh_fma(bh_sub(bh_load(arena + f->in[c]), mean), a, bh_set(n->shift[c]));
            x = bh_flat_mask(f, vector, bh_activate(x, op->function, op->low, op->high));
            bh_store(bh_flat_out(f, c) + (size_t)vector * BH_LANES, x);
        }
    }
}

/* A group of a vector. */
static void bh_norm_vector(const bh_flat *f, const bh_norm_args *n, uint32_t first) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena;
    const uint32_t end = first + n->group;
    bh_vec sums = bh_set(0.0f), squares = bh_set(0.0f);
    for (uint32_t c = first; c < end; c += BH_LANES)
        sums = bh_add(sums, bh_gather(arena, f->in + c, end - c));
    const float mean = bh_sum(sums) / (float)n->group;
    for (uint32_t c = first; c < end; c += BH_LANES) {
        bh_vec d = bh_sub(bh_gather(arena, f->in + c, end - c), bh_set(mean));
        if (end - c < BH_LANES) d = bh_vec_mask(d, (1u << (end - c)) - 1u);
        squares = bh_fma(d, d, squares);
    }
    const float factor = bh_factor(bh_sum(squares) / (float)n->group, n->epsilon);
    for (uint32_t c = first; c < end; c += BH_LANES) {
        const uint32_t count = end - c;
        const bh_vec a = bh_mul(bh_set(factor), bh_load_some(n->scale + c, count));
        const bh_vec d = bh_sub(bh_gather(arena, f->in + c, count), bh_set(mean));
        bh_vec x = bh_fma(d, a, bh_load_some(n->shift + c, count));
        bh_scatter(bh_flat_out(f, c), f->stride, bh_activate(x, op->function, op->low, op->high), count);
    }
}

static double bh_squares(const bh_flat *f, const float *plane, float mean) {
    bh_vec sum = bh_set(0.0f);
    for (uint32_t v = 0; v < f->vectors; v++) {
        const bh_vec d = bh_flat_mask(f, v, bh_sub(bh_load(plane + (size_t)v * BH_LANES), bh_set(mean)));
        sum = bh_fma(d, d, sum);
    }
    return (double)bh_sum(sum);
}

/* A group of planes. */
static void bh_norm_planes(const bh_flat *f, const bh_norm_args *n, uint32_t first) {
    const bh_instruction *op = f->job->op;
    const float *arena = f->job->arena;
    const uint32_t end = first + n->group;
    const double count = (double)n->group * op->arg[NORM_PIXELS];
    double sum = 0, squares = 0;
    for (uint32_t c = first; c < end; c++)
        sum += (double)bh_plane_sum(arena + f->in[c], (size_t)f->vectors * BH_LANES);
    const float mean = (float)(sum / count);
    for (uint32_t c = first; c < end; c++) squares += bh_squares(f, arena + f->in[c], mean);
    const float factor = bh_factor((float)(squares / count), n->epsilon);
    for (uint32_t c = first; c < end; c++) {
        const float *in = arena + f->in[c];
        float *out = bh_flat_out(f, c);
        const bh_vec a = bh_set(factor * n->scale[c]), b = bh_set(n->shift[c]);
        for (uint32_t v = 0; v < f->vectors; v++) {
            bh_vec x = bh_fma(bh_sub(bh_load(in + (size_t)v * BH_LANES), bh_set(mean)), a, b);
            x = bh_activate(x, op->function, op->low, op->high);
            bh_store(out + (size_t)v * BH_LANES, bh_flat_mask(f, v, x));
        }
        bh_flat_margins(f, out, 0);
    }
}

static void bh_norm(const bh_job *job) {
    const bh_flat f = bh_flat_of(job);
    const bh_norm_args n = bh_norm_args_of(job);
    uint32_t i, end;
    if (f.vectors && !job->op->arg[NORM_PIXELS]) {
        bh_share(job, f.vectors, &i, &end);
        for (; i < end; i++) bh_norm_pixels(&f, &n, i);
        bh_share(job, f.channels, &i, &end);
        for (; i < end; i++) bh_flat_margins(&f, bh_flat_out(&f, i), 0);
        return;
    }
    bh_share(job, f.channels / n.group, &i, &end);
    for (; i < end; i++) {
        if (f.vectors)
            bh_norm_planes(&f, &n, i * n.group);
        else
            bh_norm_vector(&f, &n, i * n.group);
    }
}
