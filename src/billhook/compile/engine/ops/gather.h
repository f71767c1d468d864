/* Planes from pixels that lie anywhere: every row has an address, every column a distance from it. */

BH_INLINE void bh_gather_row(const bh_job *job, const float *from, float *row, const float *limit,
                             const int32_t *columns, const uint32_t step) {
    const bh_instruction *op = job->op;
    const uint32_t width = op->arg[GATHER_OUT_WIDTH];
    for (uint32_t j = 0; j < width; j += BH_LANES) {
        const uint32_t left = width - j;
        bh_vec x;
        if (step)
            x = bh_every(from + (size_t)j * step, step, left);
        else
            x = left < BH_LANES ? bh_gather(from, columns + j, left) : bh_pick_floats(from, columns + j);
        bh_put(row + j, limit, bh_activate(x, op->function, op->low, op->high), left);
        if (left <= BH_LANES) break;
    }
}

static void bh_gather_planes(const bh_job *job) {
    const bh_instruction *op = job->op;
    const uint32_t step = op->arg[GATHER_STEP];
    const int32_t *rows = bh_i32(job->model, op->ref[GATHER_ROWS_REF]);
    const int32_t *columns = bh_i32(job->model, op->ref[GATHER_COLUMNS_REF]);
    uint32_t c, end;
    bh_share(job, op->ref[GATHER_ROWS_REF].count / op->arg[GATHER_OUT_HEIGHT], &c, &end);
    for (; c < end; c++) {
        const bh_target out = bh_target_of(job, c);
        bh_clear_before(&out);
        for (uint32_t y = 0; y < out.height; y++) {
            const float *from = job->arena + rows[(size_t)c * out.height + y];
            float *row = out.origin + (size_t)y * out.pitch;
            const float *limit = bh_limit(&out, y);
            if (step == 1)
                bh_gather_row(job, from, row, limit, columns, 1);
            else
                bh_gather_row(job, from, row, limit, columns, step);
            bh_clear_behind(&out, y);
        }
    }
}
