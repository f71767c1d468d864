/* All operators for one instruction set, or only its products of 8 bits.
 *
 * Compiled once for each, with its flags and BH_KERNELS, the name of the table, and BH_ISA_NAME. Where it differs from
 * another one in those products alone, BH_REST is that one's table. What follows is static, so that several of them
 * fit into one library.
 */
#include "engine.h"

#include <math.h>
#include <string.h>

#include "quads.h"
#include "simd.h"

#include "ops/epilogue.h"

#include "ops/planes.h"

#include "ops/spmm8.h"

#include "ops/runs8.h"
#include "ops/spmv8.h"

#ifdef BH_REST

const bh_kernels BH_KERNELS = {
    .name = BH_ISA_NAME,
    .run = {[BH_SPMM8] = bh_spmm8, [BH_SPMV8] = bh_spmv8, [BH_RUNS8] = bh_runs8},
    .rest = &BH_REST,
};

#else

#include "ops/spmm.h"

#include "ops/affine.h"
#include "ops/binary.h"
#include "ops/convert.h"
#include "ops/copy.h"
#include "ops/depthwise.h"
#include "ops/gather.h"
#include "ops/matmul.h"
#include "ops/mean.h"
#include "ops/norm.h"
#include "ops/pool.h"
#include "ops/resize.h"
#include "ops/reuse.h"
#include "ops/runs.h"
#include "ops/softmax.h"
#include "ops/spmv.h"

#include "ops/chain.h"

const bh_kernels BH_KERNELS = {
    .name = BH_ISA_NAME,
    .run =
        {
            [BH_SPMM] = bh_spmm,
            [BH_SPMV] = bh_spmv,
            [BH_COPY] = bh_copy,
            [BH_POOL] = bh_pool,
            [BH_MEAN] = bh_mean,
            [BH_AFFINE] = bh_affine,
            [BH_BINARY] = bh_binary,
            [BH_RESIZE] = bh_resize,
            [BH_SOFTMAX] = bh_softmax,
            [BH_DEPTHWISE] = bh_depthwise,
            [BH_RUNS] = bh_runs,
            [BH_SPMM8] = bh_spmm8,
            [BH_SPMV8] = bh_spmv8,
            [BH_QUANTISE] = bh_quantise,
            [BH_DEQUANTISE] = bh_dequantise,
            [BH_RUNS8] = bh_runs8,
            [BH_GATHER] = bh_gather_planes,
            [BH_NORM] = bh_norm,
            [BH_MATMUL] = bh_matmul,
            [BH_REUSE] = bh_reuse,
        },
    .chain = bh_chain,
};

#endif
