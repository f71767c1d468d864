/* Planes with other pixels: phases of strided windows, padding, cropping, flattening. */

/* Numbers j of 0 .. count - 1 for which j · step + from is in 0 .. size - 1: [*first, *last). */
BH_INLINE void bh_inside(uint32_t count, uint32_t step, int64_t from, uint32_t size, uint32_t *first,
                         uint32_t *last) {
    int64_t low = from < 0 ? (-from + step - 1) / step : 0;
    int64_t high = from < (int64_t)size ? ((int64_t)size - 1 - from) / step + 1 : 0;
    *first = (uint32_t)(low < count ? low : count);
    *last = (uint32_t)(high < count ? high : count);
    if (*last < *first) *last = *first;
}

static void bh_fill(float *row, uint32_t from, uint32_t to, const float *limit, bh_vec v) {
    for (; from < to; from += BH_LANES) {
        bh_put(row + from, limit, v, to - from);
        if (to - from <= BH_LANES) break;
    }
}

BH_INLINE void bh_copy_row(const bh_job *job, const float *in, float *out, const float *limit, uint32_t count,
                           const uint32_t step) {
    const bh_instruction *op = job->op;
    for (size_t j = 0; j < count; j += BH_LANES) {
        bh_vec x = bh_every(in + j * step, step, count - j);
        bh_put(out + j, limit, bh_activate(x, op->function, op->low, op->high), count - j);
    }
}

static void bh_copy_plane(const bh_job *job, const bh_source *in, const bh_target *out) {
    const bh_instruction *op = job->op;
    const uint32_t step = op->arg[COPY_STEP_X];
    const int32_t from_y = (int32_t)op->arg[COPY_FROM_Y], from_x = (int32_t)op->arg[COPY_FROM_X];
    const bh_vec nothing = bh_of_bits(bh_quad_set((int32_t)out->fill));
    uint32_t top, bottom, left, right;
    bh_inside(out->height, op->arg[COPY_STEP_Y], from_y, in->height, &top, &bottom);
    bh_inside(out->width, step, from_x, in->width, &left, &right);
    bh_clear_before(out);
    for (uint32_t y = 0; y < out->height; y++) {
        float *row = out->origin + (size_t)y * out->pitch;
        const float *limit = bh_limit(out, y);
        if (y < top || y >= bottom || left == right) {
            bh_fill(row, 0, out->width, limit, nothing);
        } else {
            const size_t line = (size_t)((int64_t)y * op->arg[COPY_STEP_Y] + from_y);
            const float *first = in->origin + line * in->pitch + (int64_t)left * step + from_x;
            bh_fill(row, 0, left, limit, nothing);
            if (step == 1)
                bh_copy_row(job, first, row + left, limit, right - left, 1);
            else if (step == 2)
                bh_copy_row(job, first, row + left, limit, right - left, 2);
            else
                bh_copy_row(job, first, row + left, limit, right - left, step);
            bh_fill(row, right, out->width, limit, nothing);
        }
        bh_clear_behind(out, y);
    }
}

static void bh_copy(const bh_job *job) {
    uint32_t c, end;
    bh_share(job, job->op->ref[COPY_IN_REF].count, &c, &end);
    for (; c < end; c++) {
        const bh_source in = bh_source_of(job, c);
        bh_target out = bh_target_of(job, c);
        out.fill = job->op->arg[COPY_FILL];
        bh_copy_plane(job, &in, &out);
    }
}
