/* What a session consists of. */
#ifndef BH_SESSION_H
#define BH_SESSION_H

#include "engine.h"
#include "threads.h"

struct bh_session {
    const bh_model *model;
    const bh_kernels *kernels;
    bh_pool *pool;
    uint32_t threads;
    float *arena; /* float 0 */
    void *mapping;
    size_t mapped;     /* bytes */
    uint32_t shares[]; /* of each instruction */
};

/* Rough nanoseconds that one thread needs for an instruction. */
uint64_t bh_work(const bh_instruction *op);

#endif
