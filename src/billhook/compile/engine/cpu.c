#include "cpu.h"

#if defined(BH_WITH_X86)

static int has_avx2(void) {
    __builtin_cpu_init(); /* asks the system, too, whether it saves the registers */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const bh_kernels *bh_kernels_for(bh_isa isa) {
    switch (isa) {
    case BH_BEST:
        return has_avx512() ? &bh_kernels_avx512 : has_avx2() ? &bh_kernels_avx2 : &bh_kernels_portable;
    case BH_PORTABLE:
        return &bh_kernels_portable;
    case BH_AVX2:
        return has_avx2() ? &bh_kernels_avx2 : NULL;
    case BH_AVX512:
        return has_avx512() ? &bh_kernels_avx512 : NULL;
    default:
        return NULL;
    }
}

#else

const bh_kernels *bh_kernels_for(bh_isa isa) {
    switch (isa) {
#if defined(BH_WITH_NEON) /* which every aarch64 processor has */
    case BH_BEST:
    case BH_NEON:
        return &bh_kernels_neon;
#else
    case BH_BEST:
#endif
    case BH_PORTABLE:
        return &bh_kernels_portable;
    default:
        return NULL;
    }
}

#endif

int bh_has(bh_isa isa) { return bh_kernels_for(isa) != NULL; }

#if defined(__SSE__)

#define FLUSH 0x8040u /* results (bit 15) and operands (bit 6) */

uint64_t bh_denormals_flush(void) {
    uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | FLUSH);
    return before;
}

void bh_denormals_restore(uint64_t before) { __builtin_ia32_ldmxcsr((uint32_t)before); }

#elif defined(__aarch64__)

#define FLUSH (1ull << 24)

uint64_t bh_denormals_flush(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | FLUSH));
    return before;
}

void bh_denormals_restore(uint64_t before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }

#else

uint64_t bh_denormals_flush(void) { return 0; }
void bh_denormals_restore(uint64_t before) { (void)before; }

#endif
