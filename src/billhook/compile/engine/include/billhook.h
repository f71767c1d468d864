/* billhook's engine: runs one compiled network on a CPU.
 *
 *     bh_model *model;
 *     char why[BH_MESSAGE];
 *     if (bh_model_open("model.bhk", &model, why) != BH_OK) ...         validated before anything is used
 *     bh_session *session;
 *     if (bh_session_create(model, 1, BH_BEST, &session, why) != BH_OK) ...
 *     const float *inputs[] = {image};
 *     float *outputs[] = {logits};
 *     bh_session_run(session, inputs, outputs, 1);
 *     bh_session_free(session);
 *     bh_model_free(model);
 *
 * A model is only read and may be shared by sessions of several threads; a session belongs to one caller at a
 * time. There is no global state. Functions return BH_OK or a code for which bh_text has words; those that take
 * `why` write there what is wrong with what, which may be NULL.
 */
#ifndef BILLHOOK_H
#define BILLHOOK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BH_API __attribute__((visibility("default")))
#define BH_MESSAGE 256 /* bytes that `why` must have room for */

typedef enum {
    BH_OK = 0,
    BH_ERROR_FILE = 1,    /* cannot be read */
    BH_ERROR_FORMAT = 2,  /* not a model, damaged, or made for another version */
    BH_ERROR_MEMORY = 3,  /* not enough of it */
    BH_ERROR_ARGUMENT = 4 /* what was passed makes no sense */
} bh_status;

typedef enum { /* instruction sets; each includes what is named before it on the same processor family */
    BH_BEST = 0, /* the best that the processor has */
    BH_PORTABLE = 1,
    BH_AVX2 = 2, /* with FMA */
    BH_AVX512 = 3,
    BH_NEON = 4,
    BH_AVX512VNNI = 5, /* products of 8 bits */
    BH_DOTPROD = 6,    /* the same on ARM */
    BH_AVXVNNI = 7     /* AVX2 with products of 8 bits */
} bh_isa;

typedef struct bh_model bh_model;
typedef struct bh_session bh_session;

/* One input or output of a network, without the batch dimension. */
typedef struct {
    const char *name;
    uint32_t rank;
    const uint32_t *shape;
    size_t size; /* numbers of one sample */
} bh_port;

BH_API const char *bh_text(bh_status status);
BH_API const char *bh_version(void);

/* Map a file, or use bytes that the caller keeps (64-byte aligned) until bh_model_free; both are validated, once:
 * neither may change while the model is open. Replace a file by renaming another one over it. */
BH_API bh_status bh_model_open(const char *path, bh_model **model, char *why);
BH_API bh_status bh_model_from_memory(const void *bytes, size_t size, bh_model **model, char *why);
BH_API void bh_model_free(bh_model *model);

BH_API uint32_t bh_model_inputs(const bh_model *model);
BH_API uint32_t bh_model_outputs(const bh_model *model);
BH_API bh_port bh_model_input(const bh_model *model, uint32_t number);
BH_API bh_port bh_model_output(const bh_model *model, uint32_t number);
BH_API size_t bh_model_arena(const bh_model *model); /* bytes of activations that a session allocates */

/* 1 if this processor, and this build, can run an instruction set. */
BH_API int bh_has(bh_isa isa);

/* threads: including the caller's, at least 1. */
BH_API bh_status bh_session_create(const bh_model *model, uint32_t threads, bh_isa isa, bh_session **session,
                                   char *why);
BH_API void bh_session_free(bh_session *session);
BH_API const char *bh_session_isa(const bh_session *session);

/* inputs[i] and outputs[i] hold `batch` samples one after the other, row-major. */
BH_API bh_status bh_session_run(bh_session *session, const float *const *inputs, float *const *outputs,
                                size_t batch);

/* For tuning: run one instruction `repeat` times on what the arena holds; seconds of the fastest. */
BH_API uint32_t bh_model_instructions(const bh_model *model);
BH_API bh_status bh_session_time(bh_session *session, uint32_t instruction, uint32_t repeat, double *seconds);

#ifdef __cplusplus
}
#endif
#endif
