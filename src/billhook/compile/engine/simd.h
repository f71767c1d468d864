/* The only file that knows instruction sets: vectors of BH_LANES floats.
 *
 * A pixel vector of the file (16 floats) is BH_PARTS of them; bh_vec_mask takes the bits of one part.
 */
#ifndef BH_SIMD_H
#define BH_SIMD_H

#include <stdint.h>
#include <string.h>

#define BH_INLINE static inline __attribute__((always_inline))

/* Before a loop whose arrays must become registers. */
#if defined(__clang__)
#define BH_UNROLL(times) _Pragma("clang loop unroll(full)")
#else
#define BH_PRAGMA(text) _Pragma(#text)
#define BH_UNROLL(times) BH_PRAGMA(GCC unroll times)
#endif

#if defined(__AVX512F__)
#include <immintrin.h>
#define BH_LANES 16
typedef __m512 bh_vec;
BH_INLINE bh_vec bh_load(const float *p) { return _mm512_loadu_ps(p); }
BH_INLINE void bh_store(float *p, bh_vec v) { _mm512_storeu_ps(p, v); }
BH_INLINE bh_vec bh_keep(bh_vec v) { /* in a register: compilers would rather load it for each sum that uses it */
    __asm__("" : "+v"(v));
    return v;
}
BH_INLINE bh_vec bh_set(float x) { return _mm512_set1_ps(x); }
BH_INLINE bh_vec bh_fma(bh_vec a, bh_vec b, bh_vec c) { return _mm512_fmadd_ps(a, b, c); }
BH_INLINE bh_vec bh_add(bh_vec a, bh_vec b) { return _mm512_add_ps(a, b); }
BH_INLINE bh_vec bh_sub(bh_vec a, bh_vec b) { return _mm512_sub_ps(a, b); }
BH_INLINE bh_vec bh_mul(bh_vec a, bh_vec b) { return _mm512_mul_ps(a, b); }
BH_INLINE bh_vec bh_div(bh_vec a, bh_vec b) { return _mm512_div_ps(a, b); }
BH_INLINE bh_vec bh_sqrt(bh_vec v) { return _mm512_sqrt_ps(v); }
BH_INLINE bh_vec bh_pick_floats(const float *p, const int32_t *at) { /* p[at[i]] */
    return _mm512_i32gather_ps(_mm512_loadu_si512(at), p, 4);
}
BH_INLINE bh_vec bh_max(bh_vec a, bh_vec b) { return _mm512_max_ps(a, b); }
BH_INLINE bh_vec bh_min(bh_vec a, bh_vec b) { return _mm512_min_ps(a, b); }
BH_INLINE bh_vec bh_nan_of(bh_vec a, bh_vec otherwise) {
    return _mm512_mask_mov_ps(otherwise, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
}
BH_INLINE bh_vec bh_vec_mask(bh_vec v, uint32_t bits) { return _mm512_maskz_mov_ps((__mmask16)bits, v); }
BH_INLINE bh_vec bh_if_negative(bh_vec x, bh_vec then, bh_vec otherwise) {
    return _mm512_mask_mov_ps(otherwise, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), then);
}
BH_INLINE bh_vec bh_round(bh_vec v) { return _mm512_roundscale_ps(v, 0x08); }
BH_INLINE bh_vec bh_power_of_two(bh_vec n) { /* 2^n for whole n in -126 .. 127 */
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
BH_INLINE float bh_sum(bh_vec v) { return _mm512_reduce_add_ps(v); }
#define BH_SHIFTS 1 /* shifting lanes is faster than reading vectors that lie in two cache lines */
BH_INLINE bh_vec bh_next(bh_vec v, float last) { /* lanes 1, 2 ... of v, and `last` */
    return _mm512_castsi512_ps(
        _mm512_alignr_epi32(_mm512_castps_si512(_mm512_set1_ps(last)), _mm512_castps_si512(v), 1));
}
BH_INLINE bh_vec bh_previous(bh_vec v, float first) { /* `first`, and lanes 0, 1 ... of v */
    return _mm512_castsi512_ps(
        _mm512_alignr_epi32(_mm512_castps_si512(v), _mm512_castps_si512(_mm512_set1_ps(first)), 15));
}

#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define BH_LANES 8
typedef __m256 bh_vec;
BH_INLINE bh_vec bh_load(const float *p) { return _mm256_loadu_ps(p); }
BH_INLINE void bh_store(float *p, bh_vec v) { _mm256_storeu_ps(p, v); }
BH_INLINE bh_vec bh_keep(bh_vec v) {
    __asm__("" : "+x"(v));
    return v;
}
BH_INLINE bh_vec bh_set(float x) { return _mm256_set1_ps(x); }
BH_INLINE bh_vec bh_fma(bh_vec a, bh_vec b, bh_vec c) { return _mm256_fmadd_ps(a, b, c); }
BH_INLINE bh_vec bh_add(bh_vec a, bh_vec b) { return _mm256_add_ps(a, b); }
BH_INLINE bh_vec bh_sub(bh_vec a, bh_vec b) { return _mm256_sub_ps(a, b); }
BH_INLINE bh_vec bh_mul(bh_vec a, bh_vec b) { return _mm256_mul_ps(a, b); }
BH_INLINE bh_vec bh_div(bh_vec a, bh_vec b) { return _mm256_div_ps(a, b); }
BH_INLINE bh_vec bh_sqrt(bh_vec v) { return _mm256_sqrt_ps(v); }
BH_INLINE bh_vec bh_pick_floats(const float *p, const int32_t *at) {
    return _mm256_i32gather_ps(p, _mm256_loadu_si256((const __m256i *)(const void *)at), 4);
}
BH_INLINE bh_vec bh_max(bh_vec a, bh_vec b) { return _mm256_max_ps(a, b); }
BH_INLINE bh_vec bh_min(bh_vec a, bh_vec b) { return _mm256_min_ps(a, b); }
BH_INLINE bh_vec bh_nan_of(bh_vec a, bh_vec otherwise) {
    return _mm256_blendv_ps(otherwise, a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
BH_INLINE bh_vec bh_vec_mask(bh_vec v, uint32_t bits) {
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), each);
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, each)));
}
BH_INLINE bh_vec bh_if_negative(bh_vec x, bh_vec then, bh_vec otherwise) {
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}
BH_INLINE bh_vec bh_round(bh_vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
BH_INLINE bh_vec bh_power_of_two(bh_vec n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
BH_INLINE float bh_sum(bh_vec v) {
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(BH_PORTABLE_VECTORS)
#include <arm_neon.h>
#define BH_LANES 4
typedef float32x4_t bh_vec;
BH_INLINE bh_vec bh_load(const float *p) { return vld1q_f32(p); }
BH_INLINE void bh_store(float *p, bh_vec v) { vst1q_f32(p, v); }
BH_INLINE bh_vec bh_keep(bh_vec v) { return v; }
BH_INLINE bh_vec bh_set(float x) { return vdupq_n_f32(x); }
BH_INLINE bh_vec bh_fma(bh_vec a, bh_vec b, bh_vec c) { return vfmaq_f32(c, a, b); }
BH_INLINE bh_vec bh_add(bh_vec a, bh_vec b) { return vaddq_f32(a, b); }
BH_INLINE bh_vec bh_sub(bh_vec a, bh_vec b) { return vsubq_f32(a, b); }
BH_INLINE bh_vec bh_mul(bh_vec a, bh_vec b) { return vmulq_f32(a, b); }
BH_INLINE bh_vec bh_div(bh_vec a, bh_vec b) { return vdivq_f32(a, b); }
BH_INLINE bh_vec bh_sqrt(bh_vec v) { return vsqrtq_f32(v); }
BH_INLINE bh_vec bh_pick_floats(const float *p, const int32_t *at) {
    const float lanes[4] = {p[at[0]], p[at[1]], p[at[2]], p[at[3]]};
    return vld1q_f32(lanes);
}
BH_INLINE bh_vec bh_max(bh_vec a, bh_vec b) { return vmaxq_f32(a, b); }
BH_INLINE bh_vec bh_min(bh_vec a, bh_vec b) { return vminq_f32(a, b); }
BH_INLINE bh_vec bh_nan_of(bh_vec a, bh_vec otherwise) { return vbslq_f32(vceqq_f32(a, a), otherwise, a); }
BH_INLINE bh_vec bh_vec_mask(bh_vec v, uint32_t bits) {
    static const uint32_t each[4] = {1, 2, 4, 8};
    uint32x4_t set = vtstq_u32(vdupq_n_u32(bits), vld1q_u32(each));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), set));
}
BH_INLINE bh_vec bh_if_negative(bh_vec x, bh_vec then, bh_vec otherwise) {
    return vbslq_f32(vcltzq_f32(x), then, otherwise);
}
BH_INLINE bh_vec bh_round(bh_vec v) { return vrndnq_f32(v); }
BH_INLINE bh_vec bh_power_of_two(bh_vec n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
BH_INLINE float bh_sum(bh_vec v) { return vaddvq_f32(v); }

#else /* the compiler's own vectors: whatever the processor has, with separate multiply and add */
#define BH_LANES 4
typedef float bh_vec __attribute__((vector_size(16)));
typedef int32_t bh_ints __attribute__((vector_size(16)));
BH_INLINE bh_vec bh_load(const float *p) {
    bh_vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
BH_INLINE void bh_store(float *p, bh_vec v) { memcpy(p, &v, sizeof v); }
BH_INLINE bh_vec bh_keep(bh_vec v) { return v; }
BH_INLINE bh_vec bh_set(float x) { return (bh_vec){x, x, x, x}; }
BH_INLINE bh_vec bh_fma(bh_vec a, bh_vec b, bh_vec c) { return a * b + c; }
BH_INLINE bh_vec bh_add(bh_vec a, bh_vec b) { return a + b; }
BH_INLINE bh_vec bh_sub(bh_vec a, bh_vec b) { return a - b; }
BH_INLINE bh_vec bh_mul(bh_vec a, bh_vec b) { return a * b; }
BH_INLINE bh_vec bh_div(bh_vec a, bh_vec b) { return a / b; }
BH_INLINE bh_vec bh_sqrt(bh_vec v) { /* Heron's method, without the library of mathematics */
    bh_vec s = (bh_vec)(((bh_ints)v >> 1) + 0x1fbd1df5);
    for (int i = 0; i < 4; i++) s = (s + v / s) * (bh_vec){0.5f, 0.5f, 0.5f, 0.5f};
    return s;
}
BH_INLINE bh_vec bh_pick_floats(const float *p, const int32_t *at) {
    return (bh_vec){p[at[0]], p[at[1]], p[at[2]], p[at[3]]};
}
BH_INLINE bh_vec bh_pick(bh_ints which, bh_vec then, bh_vec otherwise) {
    return (bh_vec)((which & (bh_ints)then) | (~which & (bh_ints)otherwise));
}
BH_INLINE bh_vec bh_max(bh_vec a, bh_vec b) { return bh_pick(a > b, a, b); }
BH_INLINE bh_vec bh_min(bh_vec a, bh_vec b) { return bh_pick(a < b, a, b); }
BH_INLINE bh_vec bh_nan_of(bh_vec a, bh_vec otherwise) { return bh_pick(a != a, a, otherwise); }
BH_INLINE bh_vec bh_vec_mask(bh_vec v, uint32_t bits) {
    const bh_ints each = {1, 2, 4, 8};
    bh_ints given = {(int32_t)bits, (int32_t)bits, (int32_t)bits, (int32_t)bits};
    return (bh_vec)((bh_ints)v & ((given & each) != 0));
}
BH_INLINE bh_vec bh_if_negative(bh_vec x, bh_vec then, bh_vec otherwise) {
    return bh_pick(x < (bh_vec){0}, then, otherwise);
}
BH_INLINE bh_vec bh_round(bh_vec v) { /* right for |v| < 2^22, which is all that is asked */
    const bh_vec shift = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};
    return (v + shift) - shift;
}
BH_INLINE bh_vec bh_power_of_two(bh_vec n) {
    return (bh_vec)((__builtin_convertvector(n, bh_ints) + 127) << 23);
}
BH_INLINE float bh_sum(bh_vec v) { return (v[0] + v[1]) + (v[2] + v[3]); }
#endif

#define BH_PARTS (16 / BH_LANES)

/* Largest and smallest number where NaN is both; bh_max and bh_min drop it in one of their arguments. */
BH_INLINE bh_vec bh_largest(bh_vec a, bh_vec b) { return bh_nan_of(a, bh_max(a, b)); }
BH_INLINE bh_vec bh_smallest(bh_vec a, bh_vec b) { return bh_nan_of(a, bh_min(a, b)); }

/* Bits of the `part`-th vector of lanes in a pixel vector's mask. */
BH_INLINE uint32_t bh_part(uint32_t mask, uint32_t part) {
    return (mask >> (part * BH_LANES)) & ((1u << BH_LANES) - 1u);
}

#endif
