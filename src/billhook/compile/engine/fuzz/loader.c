/* Whatever the bytes are: an error, or a run that leaves neither the file nor the arena.
 *
 * Best built with BH_SANITIZE. driver.c damages files; with clang this is a libFuzzer target instead.
 */
#include "loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"
#include "session.h"
#include "validate.h"

#define BATCH 2
#define MOST_FLOATS ((size_t)4 << 20)
#define MOST_WORK 2000000u /* nanoseconds: a file may ask for years of pooling, which is no mistake */

static void fill(float *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) numbers[i] = (float)(i % 17) - 8.0f;
}

static int too_much(const bh_model *model) {
    uint64_t work = 0;
    for (uint32_t i = 0; i < model->header->instructions; i++) {
        uint64_t more = bh_work(&model->instructions[i]);
        if (model->instructions[i].kind == BH_POOL) { /* wide windows are combined number by number */
            const uint32_t *arg = model->instructions[i].arg;
            uint64_t rows = arg[POOL_KERNEL_Y] < arg[POOL_HEIGHT] ? arg[POOL_KERNEL_Y] : arg[POOL_HEIGHT];
            more += more / 2 * (rows < 64 ? rows : 64);
        }
        if (more > MOST_WORK || (work += more) > MOST_WORK) return 1;
    }
    return bh_model_arena(model) / sizeof(float) > MOST_FLOATS;
}

static void expect_zeros(const float *numbers, size_t count, const char *where) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &numbers[i], sizeof bits);
        if (bits) {
            fprintf(stderr, "an instruction wrote %s\n", where);
            abort();
        }
    }
}

static void run(const bh_model *model, uint32_t threads, bh_isa isa) {
    bh_session *session;
    if (bh_session_create(model, threads, isa, &session, NULL) != BH_OK) return;
    for (uint32_t i = 0; i < model->header->instructions; i++)
        session->shares[i] = threads; /* however little work there is */
    const uint32_t inputs = bh_model_inputs(model), outputs = bh_model_outputs(model);
    float **buffers = calloc((size_t)inputs + outputs + 1, sizeof *buffers);
    for (uint32_t i = 0; i < inputs + outputs; i++) {
        size_t size = i < inputs ? bh_model_input(model, i).size : bh_model_output(model, i - inputs).size;
        buffers[i] = malloc(BATCH * size * sizeof(float));
        if (!buffers[i]) exit(1);
        fill(buffers[i], BATCH * size);
    }
    bh_session_run(session, (const float *const *)buffers, buffers + inputs, BATCH);
    expect_zeros(session->arena - BH_SLACK, BH_SLACK, "before the arena");
    expect_zeros(session->arena + model->header->arena, BH_SLACK, "behind the arena");
    for (uint32_t i = 0; i < inputs + outputs; i++) free(buffers[i]);
    free(buffers);
    bh_session_free(session);
}

/* Whether a port is what it says: a name that ends, and as many numbers as its shape has. */
static void expect_port(bh_port port) {
    size_t size = 1;
    for (uint32_t d = 0; d < port.rank; d++) size *= port.shape[d];
    if (strlen(port.name) > 1u << 30 || size != port.size) {
        fprintf(stderr, "a port is not what it says\n");
        abort();
    }
}

int bh_load(const unsigned char *bytes, size_t size, int repair) {
    void *copy; /* of exactly this size, so that a sanitizer sees each byte too many */
    if (posix_memalign(&copy, BH_ALIGN, size ? size : 1) != 0) exit(1);
    memcpy(copy, bytes, size);
    if (repair && size >= sizeof(bh_header)) {
        bh_header *header = copy;
        header->bytes = size;
        header->checksum = bh_crc32((unsigned char *)copy + sizeof *header, size - sizeof *header);
    }
    bh_model *model;
    char why[BH_MESSAGE];
    int good = bh_model_from_memory(copy, size, &model, why) == BH_OK;
    if (good) {
        for (uint32_t i = 0; i < bh_model_inputs(model); i++) expect_port(bh_model_input(model, i));
        for (uint32_t i = 0; i < bh_model_outputs(model); i++) expect_port(bh_model_output(model, i));
        const uint32_t shared = model->header->checksum % 3; /* threads take time, so not everywhere */
        for (int isa = BH_PORTABLE; isa <= BH_AVXVNNI && !too_much(model); isa++)
            run(model, (uint32_t)isa % 3 == shared ? 2 : 1, (bh_isa)isa);
        bh_model_free(model);
    } else if (!memchr(why, 0, sizeof why)) {
        abort();
    }
    free(copy);
    return good;
}

#ifdef BH_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    bh_load(bytes, size, 1);
    return 0;
}

#endif
