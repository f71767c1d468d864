/* What depends on the processor that runs: which kernels it can have, and how it treats denormal numbers. */
#ifndef BH_CPU_H
#define BH_CPU_H

#include "engine.h"

/* NULL if this processor or this build lacks them. */
const bh_kernels *bh_kernels_for(bh_isa isa);

/* Name of the instruction set that this build has when it has no better one. */
const char *bh_least_isa(void);

/* Treat denormal numbers as zeros in the calling thread until bh_denormals_restore gets what this returns. */
uint64_t bh_denormals_flush(void);
void bh_denormals_restore(uint64_t before);

#endif
