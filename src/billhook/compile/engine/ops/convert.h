/* Between floats and quads. */

BH_INLINE void bh_quantise_vector(const bh_flat *f, uint32_t quad, bh_vec unit, bh_vec zero) {
    const uint32_t first = 4 * quad, count = f->channels - first;
    bh_vec four[4];
    for (uint32_t c = 0; c < 4; c++)
        four[c] = bh_fma(bh_set(c < count ? f->job->arena[f->in[first + c]] : 0.0f), unit, zero);
    float lanes[BH_LANES];
    bh_quad_store(lanes, bh_quads_of(four));
    memcpy(bh_flat_out(f, quad), lanes, sizeof *lanes);
}

static void bh_quantise(const bh_job *job) {
    const bh_flat f = bh_flat_of(job);
    const uint32_t fill = bh_four_of(f.arg[CONVERT_ZERO]);
    const bh_vec unit = bh_set(1.0f / bh_float_of(f.arg[CONVERT_SCALE]));
    const bh_vec zero = bh_set((float)f.arg[CONVERT_ZERO]);
    const bh_quad nothing = bh_quad_set((int32_t)fill);
    uint32_t q, end;
    bh_share(job, (f.channels + 3) / 4, &q, &end);
    for (; q < end; q++) {
        if (!f.vectors) {
            bh_quantise_vector(&f, q, unit, zero);
            continue;
        }
        const float *in[4];
        for (uint32_t c = 0; c < 4; c++) {
            const uint32_t channel = 4 * q + c; /* those that there are not repeat the last one: nobody reads them */
            in[c] = job->arena + f.in[channel < f.channels ? channel : f.channels - 1];
        }
        float *out = bh_flat_out(&f, q);
        for (uint32_t v = 0; v < f.vectors; v++) {
            const size_t at = (size_t)v * BH_LANES;
            bh_vec four[4];
            for (uint32_t c = 0; c < 4; c++) four[c] = bh_fma(bh_load(in[c] + at), unit, zero);
            const uint32_t bits = bh_part(f.mask[v / BH_PARTS], v % BH_PARTS);
            bh_quad_store(out + at, bh_quad_pick(bits, bh_quads_of(four), nothing));
        }
        bh_flat_margins(&f, out, fill);
    }
}

BH_INLINE void bh_dequantise_plane(const bh_flat *f, uint32_t channel, bh_vec unit, bh_vec zero, const int byte) {
    const float *in = f->job->arena + f->in[channel / 4];
    float *out = bh_flat_out(f, channel);
    if (!f->vectors) {
        float lanes[BH_LANES] = {0};
        memcpy(lanes, in, sizeof *lanes);
        bh_store(lanes, bh_mul(bh_sub(bh_byte(bh_quad_load(lanes), byte), zero), unit));
        *out = lanes[0];
        return;
    }
    for (uint32_t v = 0; v < f->vectors; v++) {
        const bh_quad q = bh_quad_load(in + (size_t)v * BH_LANES);
        const bh_vec x = bh_mul(bh_sub(bh_byte(q, byte), zero), unit);
        bh_store(out + (size_t)v * BH_LANES, bh_flat_mask(f, v, x));
    }
    bh_flat_margins(f, out, 0);
}

static void bh_dequantise(const bh_job *job) {
    const bh_flat f = bh_flat_of(job);
    const bh_vec unit = bh_set(bh_float_of(f.arg[CONVERT_SCALE])), zero = bh_set((float)f.arg[CONVERT_ZERO]);
    uint32_t c, end;
    bh_share(job, f.arg[CONVERT_CHANNELS], &c, &end);
    for (; c < end; c++) switch (c % 4) {
        case 0:
            bh_dequantise_plane(&f, c, unit, zero, 0);
            break;
        case 1:
            bh_dequantise_plane(&f, c, unit, zero, 1);
            break;
        case 2:
            bh_dequantise_plane(&f, c, unit, zero, 2);
            break;
        default:
            bh_dequantise_plane(&f, c, unit, zero, 3);
        }
}
