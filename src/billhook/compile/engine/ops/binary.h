/* a ∘ b, number by number; b may have one number per channel. */

BH_INLINE bh_vec bh_two(bh_vec a, bh_vec b, const uint32_t function) {
    switch (function) {
    case 0:
        return bh_add(a, b);
    case 1:
        return bh_sub(a, b);
    case 2:
        return bh_mul(a, b);
    case 3:
        return bh_div(a, b);
    case 4:
        return bh_largest(a, b);
    default:
        return bh_smallest(a, b);
    }
}

/* `function` is a constant wherever this is used, so that loops have no branch for it. */
BH_INLINE void bh_binary_as(const bh_job *job, const uint32_t function) {
    const bh_instruction *op = job->op;
    const bh_flat f = bh_flat_of(job);
    const int32_t *other = bh_i32(job->model, op->ref[FLAT_SCALE_REF]);
    uint32_t c, end;
    bh_share(job, f.channels, &c, &end);
    if (!f.vectors) {
        for (; c < end; c += BH_LANES) {
            const size_t count = end - c;
            bh_vec a = bh_gather(job->arena, f.in + c, count), b = bh_gather(job->arena, other + c, count);
            bh_vec x = bh_activate(bh_two(a, b, function), op->function, op->low, op->high);
            bh_scatter(bh_flat_out(&f, c), f.stride, x, count);
        }
        return;
    }
    for (; c < end; c++) {
        const float *a = job->arena + f.in[c], *b = job->arena + other[c];
        const size_t step = op->arg[FLAT_BY_CHANNEL] ? 0 : BH_LANES;
        const bh_vec one = bh_set(*b);
        float *out = bh_flat_out(&f, c);
        for (uint32_t v = 0; v < f.vectors; v++) {
            bh_vec x =
                bh_two(bh_load(a + (size_t)v * BH_LANES), step ? bh_load(b + v * step) : one, function);
            x = bh_activate(x, op->function, op->low, op->high);
            bh_store(out + (size_t)v * BH_LANES, bh_flat_mask(&f, v, x));
        }
        bh_flat_margins(&f, out, 0);
    }
}

static void bh_binary(const bh_job *job) {
    switch (job->op->arg[FLAT_FUNCTION]) {
    case 0:
        bh_binary_as(job, 0);
        break;
    case 1:
        bh_binary_as(job, 1);
        break;
    case 2:
        bh_binary_as(job, 2);
        break;
    case 3:
        bh_binary_as(job, 3);
        break;
    case 4:
        bh_binary_as(job, 4);
        break;
    default:
        bh_binary_as(job, 5);
        break;
    }
}
