#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* What this build has, the best first; BH_WITH_... come from CMakeLists.txt. */
static const struct {
    bh_isa isa;
    const bh_kernels *kernels;
} built[] = {
#ifdef BH_WITH_AVX512VNNI
    {BH_AVX512VNNI, &bh_kernels_avx512vnni},
#endif
#ifdef BH_WITH_AVX512
    {BH_AVX512, &bh_kernels_avx512},
#endif
#ifdef BH_WITH_AVXVNNI
    {BH_AVXVNNI, &bh_kernels_avxvnni},
#endif
#ifdef BH_WITH_AVX2
    {BH_AVX2, &bh_kernels_avx2},
#endif
#ifdef BH_WITH_DOTPROD
    {BH_DOTPROD, &bh_kernels_dotprod},
#endif
#ifdef BH_WITH_NEON
    {BH_NEON, &bh_kernels_neon},
#endif
#ifdef BH_WITH_PORTABLE
    {BH_PORTABLE, &bh_kernels_portable},
#endif
};

#if defined(__x86_64__)

static int has_avxvnni(void) { /* which not every compiler has a name for */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}

static int can_run(bh_isa isa) {
    __builtin_cpu_init(); /* asks the system, too, whether it saves the registers */
    if (isa == BH_PORTABLE) return 1;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (isa == BH_AVX2 || isa == BH_AVXVNNI) return isa == BH_AVX2 || has_avxvnni();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           (isa == BH_AVX512 || __builtin_cpu_supports("avx512vnni"));
}

#elif defined(__linux__) && defined(__aarch64__)

static int can_run(bh_isa isa) { /* every aarch64 processor has NEON */
    return isa != BH_DOTPROD || (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

#else

static int can_run(bh_isa isa) {
    return isa != BH_DOTPROD;
}

#endif

const bh_kernels *bh_kernels_for(bh_isa isa) {
    for (size_t i = 0; i < sizeof built / sizeof *built; i++)
        if ((isa == BH_BEST || isa == built[i].isa) && can_run(built[i].isa)) return built[i].kernels;
    return NULL;
}

const char *bh_least_isa(void) { return built[sizeof built / sizeof *built - 1].kernels->name; }

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
