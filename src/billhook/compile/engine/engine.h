/* What the parts of the engine share. */
#ifndef BH_ENGINE_H
#define BH_ENGINE_H

#include "format.h"
#include "include/billhook.h"

struct bh_model {
    const unsigned char *bytes;
    size_t size;
    const bh_header *header;
    const bh_instruction *instructions;
    const bh_port_record *ports; /* inputs, then outputs */
    int mapped;                  /* whether bh_model_free has to unmap */
};

/* Data behind a reference; only for files that have been validated. */
static inline const void *bh_data(const bh_model *model, bh_ref ref) {
    return model->bytes + (size_t)ref.at * BH_ALIGN;
}
static inline const int32_t *bh_i32(const bh_model *model, bh_ref ref) { return bh_data(model, ref); }
static inline const uint32_t *bh_u32(const bh_model *model, bh_ref ref) { return bh_data(model, ref); }
static inline const uint16_t *bh_u16(const bh_model *model, bh_ref ref) { return bh_data(model, ref); }
static inline const float *bh_f32(const bh_model *model, bh_ref ref) { return bh_data(model, ref); }

/* One share of an instruction: threads run shares 0 .. shares - 1 side by side. Shares write different floats. */
typedef struct {
    const bh_model *model;
    const bh_instruction *op;
    float *arena; /* float 0; BH_SLACK floats ahead of it and behind its last one may be read, not written */
    uint32_t share, shares;
} bh_job;

#define BH_SLACK 4096
#define BH_PAIRED_PITCH 64 /* longest rows of which DEPTHWISE may read two at once, the last one and what follows too */

typedef void (*bh_run)(const bh_job *job);

/* All operators for one instruction set: the same sources (isa.c), compiled with other flags. */
typedef struct bh_kernels bh_kernels;
struct bh_kernels {
    const char *name;
    bh_run run[BH_KINDS];
    bh_run chain;           /* the SPMM of a chain, and the DEPTHWISE behind it */
    const bh_kernels *rest; /* has what is NULL here */
};

/* See cpu.c. */
extern const bh_kernels bh_kernels_portable, bh_kernels_avx2, bh_kernels_avxvnni, bh_kernels_avx512,
    bh_kernels_avx512vnni, bh_kernels_neon, bh_kernels_dotprod;

static inline bh_run bh_run_of(const bh_kernels *kernels, uint32_t kind) {
    return kernels->run[kind] ? kernels->run[kind] : kernels->rest->run[kind];
}
static inline bh_run bh_chain_of(const bh_kernels *kernels) {
    return kernels->chain ? kernels->chain : kernels->rest->chain;
}

/* Whether an instruction is a DEPTHWISE that runs with the one ahead of it. */
static inline int bh_chained(const bh_model *model, uint32_t number) {
    const bh_instruction *op = &model->instructions[number];
    return number < model->header->instructions && op->kind == BH_DEPTHWISE && op->arg[DEPTHWISE_SLOTS];
}

/* The units [*from, *to) of `units` that belong to a share; whole vectors of work, as even as can be. */
static inline void bh_share(const bh_job *job, uint32_t units, uint32_t *from, uint32_t *to) {
    *from = (uint32_t)((uint64_t)units * job->share / job->shares);
    *to = (uint32_t)((uint64_t)units * (job->share + 1) / job->shares);
}

#endif
