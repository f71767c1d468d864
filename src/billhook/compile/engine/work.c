/* How much work an instruction is: rough, but enough to see which ones do not pay for a second thread. */
#include "session.h"

/* Of one thread of a laptop; only magnitudes matter. */
#define MULTIPLY_ADDS 30 /* per nanosecond, weights in the cache */
#define FLOATS 4         /* per nanosecond, from beyond the cache */

uint64_t bh_work(const bh_instruction *op) {
    const uint32_t *arg = op->arg;
    const uint64_t channels = op->ref[0].count; /* in all kinds but SPMM, SPMV, GATHER and MATMUL */
    switch (op->kind) {
    case BH_SPMM:
        return (uint64_t)op->ref[SPMM_WEIGHTS_REF].count * arg[SPMM_VECTORS] * BH_VECTOR / MULTIPLY_ADDS +
               (uint64_t)op->ref[SPMM_OUT_REF].count * arg[SPMM_SIZE] / FLOATS;
    case BH_SPMM8:
        return (uint64_t)op->ref[SPMM8_WEIGHTS_REF].count * arg[SPMM_VECTORS] * BH_VECTOR / MULTIPLY_ADDS +
               (uint64_t)op->ref[SPMM8_OUT_REF].count * arg[SPMM_SIZE] / FLOATS;
    case BH_RUNS:
        return (uint64_t)op->ref[RUNS_WEIGHTS_REF].count * op->ref[RUNS_RUNS_REF].count * BH_RUN / MULTIPLY_ADDS;
    case BH_RUNS8:
        return (uint64_t)op->ref[SPMM8_WEIGHTS_REF].count * op->ref[RUNS8_RUNS_REF].count * BH_RUN / MULTIPLY_ADDS;
    case BH_REUSE:
        return 0; /* one thread */
    case BH_SPMV:
        return op->ref[SPMV_WEIGHTS_REF].count / (arg[SPMV_ROWS] == 1 ? 2 : FLOATS); /* of one row, one by one */
    case BH_SPMV8:
        return op->ref[SPMV8_WEIGHTS_REF].count / FLOATS;
    case BH_DEQUANTISE:
        return (uint64_t)arg[CONVERT_CHANNELS] * (arg[FLAT_VECTORS] + 1u) * BH_VECTOR / FLOATS;
    case BH_DEPTHWISE:
        return channels * arg[DEPTHWISE_OUT_HEIGHT] * arg[DEPTHWISE_OUT_WIDTH] * 2 / FLOATS;
    case BH_POOL:
        if (arg[POOL_MODE] > 3) /* every pixel once, some of them twice */
            return channels * ((uint64_t)arg[POOL_HEIGHT] * arg[POOL_WIDTH] +
                               (uint64_t)arg[POOL_OUT_HEIGHT] * arg[POOL_OUT_WIDTH] * 8) / FLOATS;
        return channels * arg[POOL_OUT_HEIGHT] * arg[POOL_OUT_WIDTH] / FLOATS *
               (arg[POOL_KERNEL_Y] + arg[POOL_KERNEL_X]);
    case BH_COPY:
    case BH_RESIZE:
        return channels * arg[COPY_OUT_HEIGHT] * arg[COPY_OUT_WIDTH] * 2 / FLOATS;
    case BH_MEAN:
        return channels * arg[MEAN_HEIGHT] * arg[MEAN_WIDTH] / FLOATS;
    case BH_GATHER: /* rows, not channels */
        return channels * arg[GATHER_OUT_WIDTH] * 2 / FLOATS;
    case BH_MATMUL: /* rows, not channels */
        return channels * op->ref[MATMUL_STEPS_REF].count * arg[MATMUL_VECTORS] * BH_VECTOR / MULTIPLY_ADDS;
    case BH_NORM:
        return channels * (arg[NORM_VECTORS] ? arg[NORM_VECTORS] : 1) * 4 * BH_VECTOR / FLOATS;
    default:
        return channels * (arg[FLAT_VECTORS] ? arg[FLAT_VECTORS] : 1) * 2 * BH_VECTOR / FLOATS;
    }
}
