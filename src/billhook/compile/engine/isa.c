/* All operators for one instruction set.
 *
 * Compiled once for each, with its flags and BH_KERNELS, the name of the table, and BH_ISA_NAME. What follows is
 * static, so that several of them fit into one library.
 */
#include "engine.h"

#include <math.h>
#include <string.h>

#include "simd.h"

#include "ops/epilogue.h"

#include "ops/spmm.h"
#include "ops/spmv.h"
#include "ops/planes.h"

#include "ops/affine.h"
#include "ops/binary.h"
#include "ops/copy.h"
#include "ops/depthwise.h"
#include "ops/mean.h"
#include "ops/pool.h"
#include "ops/reuse.h"
#include "ops/runs.h"
#include "ops/resize.h"
#include "ops/softmax.h"

const bh_kernels BH_KERNELS = {
    BH_ISA_NAME,
    {bh_spmm, bh_spmv, bh_copy, bh_pool, bh_mean, bh_affine, bh_binary, bh_resize, bh_softmax,
     bh_depthwise, bh_runs, bh_reuse},
};
