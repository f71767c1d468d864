/* All operators for one instruction set.
 *
 * Compiled once for each, with its flags and BH_KERNELS, the name of the table, and BH_ISA_NAME. What follows is
 * static, so that several of them fit into one library.
 */
#include "engine.h"

#include <math.h>
#include <string.h>

#include "quads.h"
#include "simd.h"

#include "ops/epilogue.h"

#include "ops/planes.h"

#include "ops/spmm.h"
#include "ops/spmm8.h"
#include "ops/spmv.h"
#include "ops/spmv8.h"

#include "ops/affine.h"
#include "ops/binary.h"
#include "ops/convert.h"
#include "ops/copy.h"
#include "ops/depthwise.h"
#include "ops/chain.h"
#include "ops/gather.h"
#include "ops/matmul.h"
#include "ops/mean.h"
#include "ops/norm.h"
#include "ops/pool.h"
#include "ops/reuse.h"
#include "ops/runs.h"
#include "ops/runs8.h"
#include "ops/resize.h"
#include "ops/softmax.h"

const bh_kernels BH_KERNELS = {
    BH_ISA_NAME,
    {bh_spmm, bh_spmv, bh_copy, bh_pool, bh_mean, bh_affine, bh_binary, bh_resize, bh_softmax,
     bh_depthwise, bh_runs, bh_spmm8, bh_spmv8, bh_quantise, bh_dequantise,
     bh_runs8, bh_gather_planes, bh_norm, bh_matmul, bh_reuse},
    bh_chain,
};
