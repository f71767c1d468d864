/* Activations, and what happens to a finished sum. */

/* e^x to 2 units in the last place: 2^n · polynomial of the rest, |rest| <= ln 2 / 2. */
BH_INLINE bh_vec bh_exp(bh_vec x) {
    x = bh_min(bh_set(88.0f), bh_max(bh_set(-87.0f), x));
    bh_vec n = bh_round(bh_mul(x, bh_set(1.44269504f)));
    bh_vec r = bh_fma(n, bh_set(-0.693359375f), x); /* ln 2 in two parts, so that nothing is lost */
    r = bh_fma(n, bh_set(2.12194440e-4f), r);
    bh_vec p = bh_set(1.0f / 5040);
    p = bh_fma(p, r, bh_set(1.0f / 720));
    p = bh_fma(p, r, bh_set(1.0f / 120));
    p = bh_fma(p, r, bh_set(1.0f / 24));
    p = bh_fma(p, r, bh_set(1.0f / 6));
    p = bh_fma(p, r, bh_set(0.5f));
    p = bh_fma(p, r, bh_set(1.0f));
    p = bh_fma(p, r, bh_set(1.0f));
    return bh_mul(p, bh_power_of_two(n));
}

BH_INLINE bh_vec bh_sigmoid(bh_vec x) {
    bh_vec one = bh_set(1.0f);
    return bh_div(one, bh_add(one, bh_exp(bh_sub(bh_set(0.0f), x))));
}

BH_INLINE bh_vec bh_tanh(bh_vec x) {
    /* Near zero 1 - 2 / (e^2x + 1) would lose all digits; an odd polynomial keeps them. */
    bh_vec size = bh_max(x, bh_sub(bh_set(0.0f), x));
    bh_vec far = bh_sub(bh_set(1.0f), bh_div(bh_set(2.0f), bh_add(bh_exp(bh_add(size, size)), bh_set(1.0f))));
    far = bh_if_negative(x, bh_sub(bh_set(0.0f), far), far);
    bh_vec s = bh_mul(x, x);
    bh_vec p = bh_set(-5.70498872745e-3f);
    p = bh_fma(p, s, bh_set(2.06390887954e-2f));
    p = bh_fma(p, s, bh_set(-5.37397155531e-2f));
    p = bh_fma(p, s, bh_set(1.33314422036e-1f));
    p = bh_fma(p, s, bh_set(-3.33332819422e-1f));
    bh_vec near = bh_fma(bh_mul(p, s), x, x);
    return bh_if_negative(bh_sub(size, bh_set(0.625f)), near, far);
}

/* Error function, absolute error below 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
BH_INLINE bh_vec bh_erf(bh_vec x) {
    bh_vec size = bh_max(x, bh_sub(bh_set(0.0f), x));
    bh_vec t = bh_div(bh_set(1.0f), bh_fma(bh_set(0.3275911f), size, bh_set(1.0f)));
    bh_vec p = bh_set(1.061405429f);
    p = bh_fma(p, t, bh_set(-1.453152027f));
    p = bh_fma(p, t, bh_set(1.421413741f));
    p = bh_fma(p, t, bh_set(-0.284496736f));
    p = bh_fma(p, t, bh_set(0.254829592f));
    p = bh_mul(p, t);
    bh_vec e = bh_sub(bh_set(1.0f), bh_mul(p, bh_exp(bh_sub(bh_set(0.0f), bh_mul(size, size)))));
    return bh_if_negative(x, bh_sub(bh_set(0.0f), e), e);
}

/* Arguments in the order in which x86 keeps a NaN that is in v. */
BH_INLINE bh_vec bh_clip(bh_vec v, bh_vec low, bh_vec high) { return bh_min(high, bh_max(low, v)); }

/* Not inlined: one copy of the long ones for each instruction set. */
static __attribute__((noinline)) bh_vec bh_activate_rarely(bh_vec v, uint32_t function, float low) {
    const bh_vec zero = bh_set(0.0f), one = bh_set(1.0f);
    switch (function) {
    case BH_LEAKY:
        return bh_if_negative(v, bh_mul(v, bh_set(low)), v);
    case BH_SIGMOID:
        return bh_sigmoid(v);
    case BH_SILU:
        return bh_mul(v, bh_sigmoid(v));
    case BH_HARDSIGMOID:
        return bh_clip(bh_fma(v, bh_set(1.0f / 6), bh_set(0.5f)), zero, one);
    case BH_HARDSWISH:
        return bh_mul(v, bh_clip(bh_fma(v, bh_set(1.0f / 6), bh_set(0.5f)), zero, one));
    case BH_TANH:
        return bh_tanh(v);
    case BH_GELU: {
        bh_vec half = bh_mul(v, bh_set(0.5f));
        return bh_fma(half, bh_erf(bh_mul(v, bh_set(0.70710678f))), half);
    }
    case BH_GELU_TANH: {
        bh_vec half = bh_mul(v, bh_set(0.5f));
        bh_vec cubic = bh_fma(bh_mul(bh_mul(v, v), v), bh_set(0.044715f), v);
        return bh_fma(half, bh_tanh(bh_mul(cubic, bh_set(0.79788456f))), half);
    }
    default:
        return v;
    }
}

/* The clip that every sum goes through: what clips is done with it, all others come after clip(-inf, inf). So
 * the usual activations need no branch for every vector. */
typedef struct {
    bh_vec low, high;
} bh_bounds;

BH_INLINE bh_bounds bh_bounds_of(const bh_instruction *op) {
    const int clip = op->function == BH_CLIP;
    return (bh_bounds){bh_set(clip ? op->low : -INFINITY), bh_set(clip ? op->high : INFINITY)};
}

BH_INLINE bh_vec bh_activate(bh_vec v, uint32_t function, float low, float high) {
    if (function == BH_NONE) return v;
    if (function == BH_CLIP) return bh_clip(v, bh_set(low), bh_set(high));
    return bh_activate_rarely(v, function, low);
}
