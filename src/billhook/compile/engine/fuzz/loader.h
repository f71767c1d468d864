/* What drivers of the fuzz target call. */
#ifndef BH_LOADER_H
#define BH_LOADER_H

#include <stddef.h>

/* Open bytes as a model and, if they are one, run it on all instruction sets; abort if it does what none may do.
 * `repair` puts size and checksum right first. Returns 1 if it was a model. */
int bh_load(const unsigned char *bytes, size_t size, int repair);

#endif
