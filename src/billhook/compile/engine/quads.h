/* Vectors of quads: 32-bit lanes with four channels of a pixel in 8 bits each, or a sum in 32.
 *
 * The second file that knows instruction sets, beside simd.h. BH_SHIFT is what bh_dot subtracts from every
 * channel, where a processor only multiplies numbers with sign: Σ w · (x - BH_SHIFT).
 */
#ifndef BH_QUADS_H
#define BH_QUADS_H

#include "simd.h"

#if BH_LANES == 16 || (BH_LANES == 8 && defined(__AVX2__))
#define BH_SHIFT 0
#if BH_LANES == 16
#define BH_X86(name) _mm512_##name
#define BH_SHIFT_BITS(channel) ((unsigned)(channel) * 8)
#define BH_X86_BITS(name) _mm512_##name##_si512
typedef __m512i bh_quad;
BH_INLINE bh_quad bh_quad_load(const void *p) { return _mm512_loadu_si512(p); }
BH_INLINE void bh_quad_store(void *p, bh_quad q) { _mm512_storeu_si512(p, q); }
BH_INLINE bh_quad bh_quad_pick(uint32_t bits, bh_quad then, bh_quad otherwise) {
    return _mm512_mask_mov_epi32(otherwise, (__mmask16)bits, then);
}
BH_INLINE bh_quad bh_transposed(bh_quad q) { /* 4 × 4 bytes in every 128 bits */
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_shuffle_epi8(q, _mm512_broadcast_i32x4(order));
}
#else
#define BH_X86(name) _mm256_##name
#define BH_SHIFT_BITS(channel) ((channel) * 8)
#define BH_X86_BITS(name) _mm256_##name##_si256
typedef __m256i bh_quad;
BH_INLINE bh_quad bh_quad_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
BH_INLINE void bh_quad_store(void *p, bh_quad q) { _mm256_storeu_si256((__m256i *)p, q); }
BH_INLINE bh_quad bh_quad_pick(uint32_t bits, bh_quad then, bh_quad otherwise) {
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), each);
    return _mm256_blendv_epi8(otherwise, then, _mm256_cmpeq_epi32(set, each));
}
BH_INLINE bh_quad bh_transposed(bh_quad q) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_shuffle_epi8(q, _mm256_broadcastsi128_si256(order));
}
#endif
BH_INLINE bh_quad bh_quad_set(int32_t x) { return BH_X86(set1_epi32)(x); }
BH_INLINE bh_quad bh_quad_sub(bh_quad a, bh_quad b) { return BH_X86(sub_epi32)(a, b); }
#if defined(__AVX512VNNI__) && BH_LANES == 16
BH_INLINE bh_quad bh_dot(bh_quad sum, bh_quad x, bh_quad w) {
    /* Not the intrinsic: around that GCC 12 copies sums from register to register, which costs half of the speed. */
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
}
#elif defined(__AVXVNNI__)
BH_INLINE bh_quad bh_dot(bh_quad sum, bh_quad x, bh_quad w) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));
    return sum;
}
#else
/* Even and odd channels apart, as 16 bits: no sum of two products is cut off. */
BH_INLINE bh_quad bh_dot(bh_quad sum, bh_quad x, bh_quad w) {
    bh_quad even = BH_X86(madd_epi16)(BH_X86_BITS(and)(x, BH_X86(set1_epi32)(0x00FF00FF)),
                                      BH_X86(srai_epi16)(BH_X86(slli_epi16)(w, 8), 8));
    bh_quad odd = BH_X86(madd_epi16)(BH_X86(srli_epi16)(x, 8), BH_X86(srai_epi16)(w, 8));
    return BH_X86(add_epi32)(sum, BH_X86(add_epi32)(even, odd));
}
#endif
BH_INLINE bh_vec bh_quad_float(bh_quad q) { return BH_X86(cvtepi32_ps)(q); }
BH_INLINE bh_vec bh_byte(bh_quad q, const int channel) {
    bh_quad moved = channel ? BH_X86(srli_epi32)(q, BH_SHIFT_BITS(channel)) : q;
    return BH_X86(cvtepi32_ps)(BH_X86_BITS(and)(moved, BH_X86(set1_epi32)(255)));
}
BH_INLINE bh_quad bh_byte_max(bh_quad a, bh_quad b) { return BH_X86(max_epu8)(a, b); }
BH_INLINE bh_quad bh_byte_min(bh_quad a, bh_quad b) { return BH_X86(min_epu8)(a, b); }
#if BH_LANES == 16
BH_INLINE bh_quad bh_bits(bh_vec v) { return _mm512_castps_si512(v); }
BH_INLINE bh_vec bh_of_bits(bh_quad q) { return _mm512_castsi512_ps(q); }
#else
BH_INLINE bh_quad bh_bits(bh_vec v) { return _mm256_castps_si256(v); }
BH_INLINE bh_vec bh_of_bits(bh_quad q) { return _mm256_castsi256_ps(q); }
#endif
/* Rounded to the nearest, even ones if in doubt; beyond 0 .. 255 the nearest of these, NaN becomes 0. */
BH_INLINE bh_quad bh_quads_of(const bh_vec v[4]) {
    const bh_vec most = bh_set(65535.0f); /* beyond 2^31 conversions go wrong */
    bh_quad a = BH_X86(packs_epi32)(BH_X86(cvtps_epi32)(bh_min(most, v[0])),
                                    BH_X86(cvtps_epi32)(bh_min(most, v[1])));
    bh_quad b = BH_X86(packs_epi32)(BH_X86(cvtps_epi32)(bh_min(most, v[2])),
                                    BH_X86(cvtps_epi32)(bh_min(most, v[3])));
    return bh_transposed(BH_X86(packus_epi16)(a, b));
}

/* LANES bytes as floats, and floats as bytes, rounded as above. */
#if BH_LANES == 16
BH_INLINE bh_vec bh_float_of_bytes(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)));
}
BH_INLINE void bh_bytes_of(void *p, bh_vec within) {
    _mm_storeu_si128(p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(within)));
}
#else
BH_INLINE bh_vec bh_float_of_bytes(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p)));
}
BH_INLINE void bh_bytes_of(void *p, bh_vec within) {
    const __m256i whole = _mm256_cvtps_epi32(within);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(p, _mm_packus_epi16(words, words));
}
#endif

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(BH_PORTABLE_VECTORS)
#define BH_SHIFT 128
typedef int32x4_t bh_quad;
BH_INLINE bh_quad bh_quad_load(const void *p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
BH_INLINE void bh_quad_store(void *p, bh_quad q) { vst1q_s8(p, vreinterpretq_s8_s32(q)); }
BH_INLINE bh_quad bh_quad_set(int32_t x) { return vdupq_n_s32(x); }
BH_INLINE bh_quad bh_quad_sub(bh_quad a, bh_quad b) { return vsubq_s32(a, b); }
BH_INLINE bh_quad bh_quad_pick(uint32_t bits, bh_quad then, bh_quad otherwise) {
    static const uint32_t each[4] = {1, 2, 4, 8};
    return vbslq_s32(vtstq_u32(vdupq_n_u32(bits), vld1q_u32(each)), then, otherwise);
}
BH_INLINE bh_quad bh_dot(bh_quad sum, bh_quad x, bh_quad w) {
    const int8x16_t a = vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(x), vdupq_n_u8(128)));
    const int8x16_t b = vreinterpretq_s8_s32(w);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, a, b);
#else
    /* Two products of -128 .. 127 and -127 .. 127 fit 16 bits. */
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
BH_INLINE bh_vec bh_quad_float(bh_quad q) { return vcvtq_f32_s32(q); }
BH_INLINE bh_vec bh_byte(bh_quad q, const int channel) {
    const uint32x4_t moved = vshlq_u32(vreinterpretq_u32_s32(q), vdupq_n_s32(-8 * channel));
    return vcvtq_f32_u32(vandq_u32(moved, vdupq_n_u32(255)));
}
BH_INLINE bh_quad bh_byte_max(bh_quad a, bh_quad b) {
    return vreinterpretq_s32_u8(vmaxq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
}
BH_INLINE bh_quad bh_byte_min(bh_quad a, bh_quad b) {
    return vreinterpretq_s32_u8(vminq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
}
BH_INLINE bh_quad bh_bits(bh_vec v) { return vreinterpretq_s32_f32(v); }
BH_INLINE bh_vec bh_of_bits(bh_quad q) { return vreinterpretq_f32_s32(q); }
BH_INLINE bh_quad bh_quads_of(const bh_vec v[4]) {
    static const uint8_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const int16x8_t a = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(v[0])), vqmovn_s32(vcvtnq_s32_f32(v[1])));
    const int16x8_t b = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(v[2])), vqmovn_s32(vcvtnq_s32_f32(v[3])));
    const uint8x16_t bytes = vcombine_u8(vqmovun_s16(a), vqmovun_s16(b));
    return vreinterpretq_s32_u8(vqtbl1q_u8(bytes, vld1q_u8(order)));
}
BH_INLINE bh_vec bh_float_of_bytes(const void *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const uint16x8_t words = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(words)));
}
BH_INLINE void bh_bytes_of(void *p, bh_vec within) {
    const uint16x4_t words = vqmovn_u32(vcvtnq_u32_f32(within));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(words, words))), 0);
    memcpy(p, &four, sizeof four);
}

#else
#define BH_SHIFT 0
typedef uint32_t bh_quad __attribute__((vector_size(16)));
BH_INLINE bh_quad bh_quad_load(const void *p) {
    bh_quad q;
    memcpy(&q, p, sizeof q);
    return q;
}
BH_INLINE void bh_quad_store(void *p, bh_quad q) { memcpy(p, &q, sizeof q); }
BH_INLINE bh_quad bh_quad_set(int32_t x) {
    const uint32_t u = (uint32_t)x;
    return (bh_quad){u, u, u, u};
}
BH_INLINE bh_quad bh_quad_sub(bh_quad a, bh_quad b) { return a - b; }
BH_INLINE bh_quad bh_quad_pick(uint32_t bits, bh_quad then, bh_quad otherwise) {
    const bh_quad each = {1, 2, 4, 8}, given = {bits, bits, bits, bits};
    const bh_quad which = (bh_quad)((given & each) != 0);
    return (which & then) | (~which & otherwise);
}
BH_INLINE bh_quad bh_dot(bh_quad sum, bh_quad x, bh_quad w) {
    for (unsigned i = 0; i < 32; i += 8) {
        const bh_ints signs = (bh_ints)((w << (24 - i))) >> 24;
        sum += ((x >> i) & 255) * (bh_quad)signs;
    }
    return sum;
}
BH_INLINE bh_vec bh_quad_float(bh_quad q) { return __builtin_convertvector((bh_ints)q, bh_vec); }
BH_INLINE bh_vec bh_byte(bh_quad q, const int channel) {
    return __builtin_convertvector((bh_ints)((q >> (unsigned)(8 * channel)) & 255), bh_vec);
}
typedef uint8_t bh_bytes __attribute__((vector_size(16)));
BH_INLINE bh_quad bh_byte_max(bh_quad a, bh_quad b) {
    const bh_bytes which = (bh_bytes)((bh_bytes)a > (bh_bytes)b);
    return (bh_quad)((which & (bh_bytes)a) | (~which & (bh_bytes)b));
}
BH_INLINE bh_quad bh_byte_min(bh_quad a, bh_quad b) {
    const bh_bytes which = (bh_bytes)((bh_bytes)a < (bh_bytes)b);
    return (bh_quad)((which & (bh_bytes)a) | (~which & (bh_bytes)b));
}
BH_INLINE bh_quad bh_bits(bh_vec v) { return (bh_quad)v; }
BH_INLINE bh_vec bh_of_bits(bh_quad q) { return (bh_vec)q; }
BH_INLINE bh_quad bh_quads_of(const bh_vec v[4]) {
    bh_quad made = {0};
    for (unsigned c = 0; c < 4; c++) {
        const bh_vec within = bh_round(bh_min(bh_max(v[c], bh_set(0.0f)), bh_set(255.0f)));
        made |= (bh_quad)__builtin_convertvector(within, bh_ints) << (8 * c);
    }
    return made;
}
BH_INLINE bh_vec bh_float_of_bytes(const void *p) {
    const uint8_t *byte = p;
    return (bh_vec){byte[0], byte[1], byte[2], byte[3]};
}
BH_INLINE void bh_bytes_of(void *p, bh_vec within) {
    uint8_t *byte = p;
    within = bh_round(bh_max(within, bh_set(0.0f))); /* so that NaN is 0 */
    for (int i = 0; i < 4; i++) byte[i] = (uint8_t)within[i];
}
#endif

BH_INLINE int32_t bh_lane(const float *p) {
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

#endif
