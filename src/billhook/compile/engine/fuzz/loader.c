/* Whatever the bytes are: an error, or a run that leaves neither the file nor the arena.
 *
 *     bh_fuzz FILE ...              each file as it is, then with size and checksum put right
 *     bh_fuzz -n 100000 FILE ...    and that many damaged copies of each; -s 7 for other damages
 *
 * Best built with BH_SANITIZE. With clang it is a libFuzzer target instead.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"
#include "session.h"
#include "validate.h"

#define BATCH 2
#define MOST_FLOATS ((size_t)4 << 20)
#define MOST_WORK 20000000u /* nanoseconds: a file may ask for years of pooling, which is no mistake */

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

/* 1 if it was a model. */
static int load(const unsigned char *bytes, size_t size, int repair) {
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
        if (!too_much(model))
            for (int isa = BH_PORTABLE; isa <= BH_NEON; isa++) run(model, (uint32_t)isa % 2 + 1, (bh_isa)isa);
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
    load(bytes, size, 1);
    return 0;
}

#else

static uint64_t next(uint64_t *state) { /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Dull;
}

/* Numbers at which comparisons go wrong. */
static uint32_t odd_number(uint64_t *state, uint32_t was) {
    const uint32_t numbers[] = {0,          1,          2,          15,         16,
                                17,         255,        65535,      65536,      0x7FFFFFFF,
                                0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x7F800000, 0x7FC00000,
                                0xFFFFF000, 0xFFFFEFFF, was + 1,    was - 1,    was * 2,
                                was / 2,    was + 16,   was - 16,   was + 4096, was - 4096};
    return numbers[next(state) % (sizeof numbers / sizeof *numbers)];
}

static size_t damage(unsigned char *bytes, size_t size, uint64_t *state) {
    if (next(state) % 16 == 0) return next(state) % size;
    for (uint64_t times = 1 + next(state) % 3; times; times--) {
        /* Most of the damage goes where decisions are made: the tables at the beginning. */
        size_t reach = next(state) % 4 && size > 2048 ? 2048 : size;
        size_t at = next(state) % reach;
        if (next(state) % 3 == 0) {
            bytes[at] ^= (unsigned char)(1u << next(state) % 8);
        } else if (size >= 4) {
            at = at / 4 * 4 <= size - 4 ? at / 4 * 4 : size - 4;
            uint32_t word;
            memcpy(&word, bytes + at, 4);
            word = next(state) % 8 ? odd_number(state, word) : (uint32_t)next(state);
            memcpy(bytes + at, &word, 4);
        }
    }
    return size;
}

static void all_of(const char *path, long copies, uint64_t state) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) exit(2);
    size_t size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(size + 1), *damaged = malloc(size + 1);
    if (!bytes || !damaged || fread(bytes, 1, size, file) != size) exit(2);
    fclose(file);
    int good = load(bytes, size, 0);
    load(bytes, size, 1);
    long models = 0;
    for (long i = 0; i < copies && size; i++) {
        memcpy(damaged, bytes, size);
        size_t left = damage(damaged, size, &state);
        models += load(damaged, left, 1);
    }
    printf("%s: %s; of %ld damaged copies %ld ran\n", path, good ? "a model" : "refused", copies, models);
    free(bytes);
    free(damaged);
}

int main(int count, char **words) {
    long copies = 0;
    uint64_t state = 1;
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "-n") && i + 1 < count)
            copies = strtol(words[++i], NULL, 10);
        else if (!strcmp(words[i], "-s") && i + 1 < count)
            state = strtoull(words[++i], NULL, 10) * 2 + 1;
        else
            all_of(words[i], copies, state);
    }
    return 0;
}

#endif
