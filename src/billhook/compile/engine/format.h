/* What a model file looks like; billhook/compile/format.py writes it, and a test compares the two.
 *
 * Little-endian. A file is the header, the instructions, the ports and names, then blocks of data, each
 * beginning at a multiple of 64 bytes. All addresses inside the arena are counted in floats from its first
 * one and fit int32.
 *
 * A plane in the arena is `pitch` floats a row; its address is that of pixel (0, 0), a multiple of 16. Around
 * its rows lie zeros: `before` floats ahead of pixel (0, 0), and behind the last row up to the end of the plane.
 * The floats of a row behind its last pixel are zeros too, and are the left neighbours of the next row. Whoever
 * writes a plane writes all of that: it clears the margins and stores whole vectors under a mask.
 *
 * A plane of quads has four channels of a pixel in the four bytes of each float, the first one lowest: numbers of
 * 0 to 255 of which one, `zero`, means 0. Its margins hold four times `zero`.
 */
#ifndef BH_FORMAT_H
#define BH_FORMAT_H

#include <stdint.h>

#define BH_MAGIC "BILLHOOK"
#define BH_FORMAT_VERSION 1
#define BH_ALIGN 64       /* bytes */
#define BH_VECTOR 16      /* floats: the unit in which pixels are counted and masked */
#define BH_RUNS_ROWS 32   /* in a block of BH_RUNS */
#define BH_RUN 7          /* pixels that such a block reads together */
#define BH_CHAIN 8        /* planes that a chain makes before it reads them */
#define BH_REUSE_HASHES 16 /* at most */
#define BH_MAX_RANK 6
#define BH_REFS 8
#define BH_ARGS 20

typedef struct { /* `count` elements, beginning at byte 64 · `at` of the file */
    uint32_t at;
    uint32_t count;
} bh_ref;

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t checksum;     /* CRC-32 of everything behind this header */
    uint64_t bytes;        /* of the file */
    uint64_t arena;        /* floats; sessions add slack of their own at both ends */
    uint32_t instructions; /* bh_instruction, right behind the header */
    uint32_t inputs;       /* bh_port_record, behind the instructions */
    uint32_t outputs;      /* bh_port_record, behind the inputs */
    uint32_t reserved[5];
} bh_header; /* 64 bytes */

typedef struct {
    bh_ref name;   /* bytes, the last one zero */
    bh_ref planes; /* int32: address of each plane in the arena */
    uint32_t rank;
    uint32_t shape[BH_MAX_RANK]; /* its product is planes · height · width */
    uint32_t height, width, pitch;
    uint32_t before, size; /* inputs: zeros ahead of pixel (0, 0), and floats from there to the plane's end */
} bh_port_record; /* 64 bytes */

typedef enum { /* what is done to every number at the end */
    BH_NONE = 0,
    BH_CLIP = 1, /* min(max(x, low), high) */
    BH_LEAKY = 2, /* x < 0 ? low · x : x */
    BH_SIGMOID = 3,
    BH_SILU = 4,
    BH_HARDSIGMOID = 5,
    BH_HARDSWISH = 6,
    BH_TANH = 7,
    BH_GELU = 8,
    BH_GELU_TANH = 9
} bh_activation;

typedef enum {
    BH_SPMM = 0,    /* sparse matrix × pixels: every kind of convolution */
    BH_SPMV = 1,    /* sparse matrix × vector: linear layers */
    BH_COPY = 2,    /* planes, strided: phases of strided windows, padding, cropping, flattening */
    BH_POOL = 3,    /* largest or mean number of windows */
    BH_MEAN = 4,    /* of each plane */
    BH_AFFINE = 5,  /* scale · x + shift by channel; activation alone */
    BH_BINARY = 6,  /* two values, or a value and one number per channel */
    BH_RESIZE = 7,  /* nearest or bilinear */
    BH_SOFTMAX = 8, /* over channels */
    BH_DEPTHWISE = 9, /* one small window for each plane */
    BH_RUNS = 10,     /* SPMM for small planes, rows in lanes */
    BH_SPMM8 = 11,    /* SPMM on quads */
    BH_SPMV8 = 12,    /* SPMV from quads to floats */
    BH_QUANTISE = 13, /* floats to quads */
    BH_DEQUANTISE = 14,
    BH_RUNS8 = 15, /* RUNS on quads */
    BH_GATHER = 16,   /* planes from pixels that lie anywhere: interleaving, transposing, reordering */
    BH_NORM = 17,     /* minus the mean, divided by the standard deviation, of channels or of planes */
    BH_MATMUL = 18,   /* of two computed values: attention */
    BH_REUSE = 19, /* SPMM of which similar pixels share what they compute: approximate */
    BH_KINDS = 20
} bh_kind;

typedef struct {
    uint32_t kind;     /* bh_kind */
    uint32_t function; /* bh_activation */
    float low, high;   /* of the activation */
    uint32_t arg[BH_ARGS];
    bh_ref ref[BH_REFS];
} bh_instruction; /* 160 bytes */

/* Arguments and data of each kind. X_..._REF number `ref`, the others `arg`.
 *
 * Outputs of all kinds but SPMM and SPMV are planes `OUT_STRIDE` apart, the first one at OUT. */

enum { /* BH_SPMM: out[r][p] = Σ_k weights[k][r] · arena[columns[k] + p] + bias[r] (+ arena[added[r] + p]) */
    SPMM_ROWS,    /* in a block: 1, 4 or 8 */
    SPMM_BLOCKS,  /* of rows; the last may have rows that are written nowhere */
    SPMM_VECTORS, /* of 16 pixels, from pixel (0, 0) on */
    SPMM_SHARED,  /* 1: all blocks have the same columns, which stand there once */
    SPMM_PANEL,   /* vectors that all blocks run over before the next ones; tuned */
    SPMM_BEFORE,  /* zeros ahead of pixel (0, 0) of a written plane */
    SPMM_SIZE,    /* floats from pixel (0, 0) to the end of a written plane */
};
enum {
    SPMM_COLUMNS_REF, /* int32: address of pixel (0, 0) of the plane, shifted */
    SPMM_STARTS_REF,  /* uint32 [blocks + 1]: first column of each block; of the weights too if shared */
    SPMM_WEIGHTS_REF, /* float [columns][rows], block after block */
    SPMM_BIAS_REF,    /* float [blocks · rows] */
    SPMM_OUT_REF,     /* int32 [blocks · rows]: planes; -1 for none */
    SPMM_ADDED_REF,   /* int32 [blocks · rows]: planes; empty if nothing is added */
    SPMM_MASK_REF,    /* uint16 [vectors]: bit i is set if lane i is a pixel */
};

enum { /* BH_SPMV: out[r] = Σ_k weights[k][r] · arena[columns[k]] + bias[r] */
    SPMV_ROWS,   /* in a block: 16, or 1 where rows have no columns in common */
    SPMV_BLOCKS,
    SPMV_SHARED, /* as above */
};
enum {
    SPMV_COLUMNS_REF,
    SPMV_STARTS_REF,
    SPMV_WEIGHTS_REF,
    SPMV_BIAS_REF,
    SPMV_OUT_REF, /* int32 [blocks · rows]: addresses; -1 for none */
};

enum { /* BH_COPY: out(c, i, j) = in(c, i · STEP_Y + FROM_Y, j · STEP_X + FROM_X), 0 where that is no pixel */
    COPY_OUT,
    COPY_OUT_STRIDE,
    COPY_OUT_HEIGHT,
    COPY_OUT_WIDTH,
    COPY_OUT_PITCH,
    COPY_BEFORE,
    COPY_SIZE, /* 0: no margins are written, and only pixels (flattened planes) */
    COPY_HEIGHT,
    COPY_WIDTH,
    COPY_PITCH,
    COPY_STEP_Y,
    COPY_STEP_X,
    COPY_FROM_Y, /* as int32 */
    COPY_FROM_X,
    COPY_FILL, /* the 32 bits that stand for 0 */
};
enum { COPY_IN_REF /* int32 [channels]: planes */ };

enum { /* BH_POOL: windows of in(c, i · STRIDE + k · DILATION - PADDING) */
    POOL_OUT,
    POOL_OUT_STRIDE,
    POOL_OUT_HEIGHT,
    POOL_OUT_WIDTH,
    POOL_OUT_PITCH,
    POOL_BEFORE,
    POOL_SIZE,
    POOL_HEIGHT,
    POOL_WIDTH,
    POOL_PITCH,
    POOL_MODE, /* 0 largest, 1 mean of the whole window, 2 mean of its pixels, 3 largest of each byte; 4 and 5,
                * largest and mean: windows are i · HEIGHT / OUT_HEIGHT .. (i + 1) · HEIGHT / OUT_HEIGHT, rounded
                * outwards */
    POOL_KERNEL_Y,
    POOL_KERNEL_X,
    POOL_STRIDE_Y,
    POOL_STRIDE_X,
    POOL_TOP,
    POOL_LEFT,
    POOL_DILATION_Y,
    POOL_DILATION_X,
    POOL_AREA, /* bottom << 16 | right: how far padding reaches that mode 1 counts; mode 3: zero */
};
enum { POOL_IN_REF };

enum { /* BH_MEAN */
    MEAN_OUT,
    MEAN_OUT_STRIDE,
    MEAN_HEIGHT,
    MEAN_WIDTH,
    MEAN_PITCH,
};
enum { MEAN_IN_REF };

enum { /* BH_AFFINE, BH_BINARY, BH_SOFTMAX: in and out have the same pitch */
    FLAT_OUT,
    FLAT_OUT_STRIDE,
    FLAT_VECTORS, /* 0: vectors, of which each channel is one float */
    FLAT_BEFORE,
    FLAT_SIZE,
    FLAT_FUNCTION, /* BINARY: 0 add, 1 subtract, 2 multiply, 3 divide, 4 maximum, 5 minimum
                    * SOFTMAX: channels that have a sum together, 0 for all */
    FLAT_BY_CHANNEL, /* BINARY: 1 if b is one number per channel */
};
enum {
    FLAT_IN_REF,
    FLAT_SCALE_REF, /* AFFINE: float [channels], or empty. BINARY: int32 [channels], b */
    FLAT_SHIFT_REF, /* AFFINE: float [channels], or empty */
    FLAT_MASK_REF,  /* uint16 [vectors] */
};

enum { /* BH_RESIZE: out(c, i, j) from in at (i · scale) or ((i + 0.5) · scale - 0.5), clamped */
    RESIZE_OUT,
    RESIZE_OUT_STRIDE,
    RESIZE_OUT_HEIGHT,
    RESIZE_OUT_WIDTH,
    RESIZE_OUT_PITCH,
    RESIZE_BEFORE,
    RESIZE_SIZE,
    RESIZE_HEIGHT,
    RESIZE_WIDTH,
    RESIZE_PITCH,
    RESIZE_MODE,    /* 0 nearest, 1 bilinear with half pixels, 2 bilinear with aligned corners */
    RESIZE_SCALE_Y, /* bits of a float */
    RESIZE_SCALE_X,
};
enum { RESIZE_IN_REF };

enum { /* BH_RUNS: what SPMM computes, in blocks of 32 rows, at runs of 7 pixels */
    RUNS_BLOCKS,
    RUNS_SHARED, /* as above */
    RUNS_HEIGHT,
    RUNS_WIDTH,
    RUNS_PITCH,
    RUNS_BEFORE,
    RUNS_SIZE,
};
enum {
    RUNS_COLUMNS_REF,
    RUNS_STARTS_REF,
    RUNS_WEIGHTS_REF,
    RUNS_BIAS_REF,
    RUNS_OUT_REF,
    RUNS_ADDED_REF,
    RUNS_RUNS_REF, /* int32: first pixels, from pixel (0, 0) on */
};

enum { /* BH_DEPTHWISE: out(c, i, j) = Σ weights[c][k][l] · in(c, i · STRIDE + k - TOP, j · STRIDE + l - LEFT) + bias[c];
        * where that is no pixel, the zeros around the plane are read */
    DEPTHWISE_OUT,
    DEPTHWISE_OUT_STRIDE,
    DEPTHWISE_OUT_HEIGHT,
    DEPTHWISE_OUT_WIDTH,
    DEPTHWISE_OUT_PITCH,
    DEPTHWISE_BEFORE,
    DEPTHWISE_SIZE,
    DEPTHWISE_HEIGHT,
    DEPTHWISE_WIDTH,
    DEPTHWISE_PITCH,
    DEPTHWISE_KERNEL, /* 3 or 5 */
    DEPTHWISE_STRIDE, /* 1 or 2 */
    DEPTHWISE_TOP,
    DEPTHWISE_LEFT,
    DEPTHWISE_SLOTS, /* 0; or how many times there is room for the planes of a chain, see below */
    DEPTHWISE_SLOT,  /* floats from one such room to the next */
};
enum {
    DEPTHWISE_IN_REF,
    DEPTHWISE_WEIGHTS_REF, /* float [channels][kernel][kernel] */
    DEPTHWISE_BIAS_REF,    /* float [channels] */
};
/* A chain: SPMM, and a DEPTHWISE with SLOTS behind it that reads what it makes, in its order, and is alone in that.
 * They run together, 8 planes at a time, which so stay in the cache: the tables name the same few planes again and
 * again. Every thread has a slot of its own; the tables name those of the first one. */

enum { /* BH_SPMM8: y = (Σ_k weights[k][r] · quad columns[k] + bias[r]) · scale[r] (+ (added - ADDED_ZERO) · ADDED_SCALE) + ZERO,
        * rounded and held between LOW and HIGH; the first arguments are SPMM's. An activation that is left is one of
        * (y - ZERO) · UNIT */
    SPMM8_ZERO = SPMM_SIZE + 1, /* as many arguments as RUNS has are before it */
    SPMM8_LOW,
    SPMM8_HIGH,
    SPMM8_UNIT,        /* bits of a float */
    SPMM8_ADDED_SCALE, /* bits of a float */
    SPMM8_ADDED_ZERO,
};
enum {
    SPMM8_COLUMNS_REF, /* int32, as in SPMM, of planes of quads */
    SPMM8_STARTS_REF,
    SPMM8_WEIGHTS_REF, /* int8 [columns][rows][4], counted in fours */
    SPMM8_BIAS_REF,    /* int32 [blocks · rows] */
    SPMM8_SCALE_REF,   /* float [blocks · rows] */
    SPMM8_OUT_REF,     /* int32 [blocks · rows / 4]: planes of quads; -1 for none */
    SPMM8_ADDED_REF,   /* int32 [blocks · rows / 4] */
    SPMM8_MASK_REF,
};

/* BH_RUNS8: SPMM8 in blocks of 32 rows at runs of 7 pixels. The first seven arguments are RUNS', the others SPMM8's,
 * and so are the data, but for runs in the place of masks. */
enum { RUNS8_RUNS_REF = SPMM8_MASK_REF };

enum { /* BH_SPMV8: out[r] = (Σ_k weights[k][r] · quad columns[k] + bias[r]) · scale[r]; arguments are SPMV's */
    SPMV8_COLUMNS_REF,
    SPMV8_STARTS_REF,
    SPMV8_WEIGHTS_REF, /* int8 [columns][rows][4], counted in fours */
    SPMV8_BIAS_REF,    /* int32 [blocks · rows] */
    SPMV8_SCALE_REF,   /* float [blocks · rows] */
    SPMV8_OUT_REF,
};

enum { /* BH_QUANTISE: quad = x / SCALE + ZERO, rounded; IN has the planes of all channels.
        * BH_DEQUANTISE: x = (quad - ZERO) · SCALE; IN has the planes of all quads. The first arguments are FLAT's */
    CONVERT_SCALE = FLAT_SIZE + 1, /* bits of a float */
    CONVERT_ZERO,
    CONVERT_CHANNELS, /* of DEQUANTISE */
};

enum { /* BH_GATHER: out(c, i, j) = arena[rows[c · OUT_HEIGHT + i] + columns[j]] */
    GATHER_OUT,
    GATHER_OUT_STRIDE,
    GATHER_OUT_HEIGHT,
    GATHER_OUT_WIDTH,
    GATHER_OUT_PITCH,
    GATHER_BEFORE,
    GATHER_SIZE,
    GATHER_STEP, /* columns[j] is j · STEP; 0: they are a table */
};
enum {
    GATHER_ROWS_REF,    /* int32 [channels · OUT_HEIGHT]: addresses */
    GATHER_COLUMNS_REF, /* int32 [OUT_WIDTH]: floats from there, not negative; empty if there is a step */
};

enum { /* BH_NORM: (in - mean) / sqrt(variance + EPSILON) · scale + shift; in and out have the same pitch */
    NORM_OUT,
    NORM_OUT_STRIDE,
    NORM_VECTORS, /* 0: vectors, of which each channel is one float */
    NORM_BEFORE,
    NORM_SIZE,
    NORM_GROUP,   /* channels that have mean and variance together */
    NORM_PIXELS,  /* of a plane, all of which count; 0: every pixel has its own mean and variance */
    NORM_EPSILON, /* bits of a float */
};
enum {
    NORM_IN_REF,
    NORM_SCALE_REF, /* float [channels] */
    NORM_SHIFT_REF, /* float [channels] */
    NORM_MASK_REF,  /* uint16 [vectors] */
};

enum { /* BH_MATMUL: out(r, p) = SCALE · Σ_k arena[rows[r] + steps[k]] · arena[columns[group of r][k] + p] */
    MATMUL_OUT,
    MATMUL_OUT_STRIDE,
    MATMUL_VECTORS, /* of 16 pixels */
    MATMUL_BEFORE,
    MATMUL_SIZE,
    MATMUL_GROUPS, /* of rows, equally many in each */
    MATMUL_SCALE,  /* bits of a float */
};
enum {
    MATMUL_ROWS_REF,    /* int32 [rows]: addresses */
    MATMUL_STEPS_REF,   /* int32 [k]: floats from there */
    MATMUL_COLUMNS_REF, /* int32 [groups · k]: planes */
    MATMUL_MASK_REF,    /* uint16 [vectors] */
};

enum { /* BH_REUSE: what SPMM computes, one block of all rows; `width` is their number up to a multiple of 16 */
    REUSE_VECTORS, /* as of SPMM */
    REUSE_LENGTH,  /* columns of a slab; the last one may be shorter */
    REUSE_HASHES,  /* hyper-planes of a slab; `padded` is their number up to a multiple of 4 */
    REUSE_BEFORE,
    REUSE_SIZE,
    REUSE_ROOM, /* address of 2 · pixels · width + 3 · pixels + 2^hashes floats to work in; pixels = 16 · VECTORS */
};
enum {
    REUSE_COLUMNS_REF, /* int32 */
    REUSE_PLANES_REF,  /* float [columns][padded] */
    REUSE_OFFSETS_REF, /* float [slabs][padded]: what products with hyper-planes are compared with */
    REUSE_WEIGHTS_REF, /* float [columns][width] */
    REUSE_BIAS_REF,    /* float [width] */
    REUSE_OUT_REF,     /* int32 [rows]: planes */
    REUSE_ADDED_REF,   /* int32 [rows]: planes; empty if nothing is added */
    REUSE_MASK_REF,
};

#endif
