/* Everything in a file is checked before it is used; what passes cannot make the engine leave file or arena. */
#ifndef BH_VALIDATE_H
#define BH_VALIDATE_H

#include "engine.h"

/* Whom a message is about; `part` is NULL for the file itself, `kind` for ports. */
typedef struct {
    const bh_model *model;
    char *why; /* BH_MESSAGE bytes, or NULL */
    const char *part;
    uint32_t number;
    const char *kind;
} bh_check;

/* The floats that a check is about, seen from an address: [ahead before it, behind from it on). */
typedef struct {
    uint64_t ahead, behind;
} bh_extent;

/* All return 1 if it is right, else 0 after writing the message. */
int bh_refuse(const bh_check *check, const char *what); /* returns 0 */
int bh_check_ref(const bh_check *check, bh_ref ref, size_t element);
int bh_check_plane(const bh_check *check, uint32_t height, uint32_t width, uint32_t pitch);
int bh_check_instruction(const bh_check *check, const bh_instruction *op);

/* Floats from the first pixel of a checked plane to behind its last one. */
static inline uint64_t bh_span(uint32_t height, uint32_t width, uint32_t pitch) {
    return (uint64_t)(height - 1) * pitch + width;
}

/* Addresses that a table holds: `what` is refused if one of them does not fit. */
int bh_check_pixels(const bh_check *check, bh_ref table, bh_extent extent, const char *what);

/* Whether `count` planes, `stride` floats apart from `first` on, can be written. */
int bh_check_written(const bh_check *check, uint32_t first, uint32_t stride, uint32_t count, bh_extent extent);

/* Whether `length` floats from any address of the table on can be read; shifted ones may lie in the slack. */
int bh_check_shifted(const bh_check *check, bh_ref table, uint64_t length);

/* Whether what stands in the table, but -1, can be written. */
int bh_check_listed(const bh_check *check, bh_ref table, bh_extent extent);

static inline uint64_t bh_arena_of(const bh_check *check) { return check->model->header->arena; }
static inline int bh_is_byte(uint32_t x) { return x < 256; }

/* One for each kind of instruction. */
int bh_check_spmm(const bh_check *check, const bh_instruction *op);
int bh_check_spmv(const bh_check *check, const bh_instruction *op);
int bh_check_copy(const bh_check *check, const bh_instruction *op);
int bh_check_pool(const bh_check *check, const bh_instruction *op);
int bh_check_mean(const bh_check *check, const bh_instruction *op);
int bh_check_affine(const bh_check *check, const bh_instruction *op);
int bh_check_binary(const bh_check *check, const bh_instruction *op);
int bh_check_resize(const bh_check *check, const bh_instruction *op);
int bh_check_softmax(const bh_check *check, const bh_instruction *op);
int bh_check_depthwise(const bh_check *check, const bh_instruction *op);
int bh_check_runs(const bh_check *check, const bh_instruction *op);
int bh_check_spmm8(const bh_check *check, const bh_instruction *op);
int bh_check_spmv8(const bh_check *check, const bh_instruction *op);
int bh_check_quantise(const bh_check *check, const bh_instruction *op);
int bh_check_dequantise(const bh_check *check, const bh_instruction *op);
int bh_check_runs8(const bh_check *check, const bh_instruction *op);
int bh_check_gather(const bh_check *check, const bh_instruction *op);
int bh_check_norm(const bh_check *check, const bh_instruction *op);
int bh_check_matmul(const bh_check *check, const bh_instruction *op);
int bh_check_reuse(const bh_check *check, const bh_instruction *op);

/* Check the whole file and fill in the rest of `model`, whose bytes and size are known. */
bh_status bh_validate(bh_model *model, char *why);

#endif
