/* The compiled network; made by billhook $version. Sizes and shapes are those of one sample: float32, row-major. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#define NETWORK_INPUTS $inputs
#define NETWORK_INPUT_SIZES {$input_sizes}
#define NETWORK_INPUT_NAMES {$input_names}
$input_shapes

#define NETWORK_OUTPUTS $outputs
#define NETWORK_OUTPUT_SIZES {$output_sizes}
#define NETWORK_OUTPUT_NAMES {$output_names}
$output_shapes

/* model/model.bhk, for bh_model_from_memory */
extern const unsigned char network_model[];
extern const uint64_t network_model_bytes;

#endif
