/* Damages model files until something fails; with clang libFuzzer does that instead.
 *
 *     bh_fuzz FILE ...              each file as it is, then with size and checksum put right
 *     bh_fuzz -n 100000 FILE ...    and that many damaged copies of each; -s 7 for other damages
 *     bh_fuzz -t 60 FILE ...        or as many as 60 seconds allow
 *     bh_fuzz -k DAMAGED ...        where the copy is kept that made it fail, or took longer than half a minute
 *
 * A damaged copy that still is a model is often damaged further: so several numbers come to lie together.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "loader.h"

#define MOST_SECONDS 30 /* for one copy, whose work loader.c limits to milliseconds */
#define COPIES_IN_TURN 256

typedef struct { /* one file */
    const char *path;
    unsigned char *bytes, *base; /* as it is, and what is damaged next */
    size_t size;
    int good;
} bh_seed;

typedef struct {
    uint64_t random;
    long copies, models; /* damaged ones, and those of them that ran */
} bh_count;

/* What a handler of signals can see. */
static struct {
    const char *path;
    const unsigned char *bytes;
    size_t size;
} tried;

static void keep(int number) {
    signal(number, SIG_DFL);
    int file = tried.path ? open(tried.path, O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
    if (file >= 0) {
        const unsigned char *from = tried.bytes;
        for (size_t left = tried.size; left;) {
            ssize_t wrote = write(file, from, left);
            if (wrote <= 0) break;
            from += wrote;
            left -= (size_t)wrote;
        }
        close(file);
    }
    raise(number);
}

static int try_one(const unsigned char *bytes, size_t size, int repair) {
    tried.bytes = bytes;
    tried.size = size;
    alarm(MOST_SECONDS);
    int good = bh_load(bytes, size, repair);
    alarm(0);
    return good;
}

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

static bh_seed seed_of(const char *path) {
    bh_seed seed = {.path = path};
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(2);
    }
    seed.size = (size_t)ftell(file);
    rewind(file);
    seed.bytes = malloc(seed.size + 1);
    seed.base = malloc(seed.size + 1);
    if (!seed.bytes || !seed.base || fread(seed.bytes, 1, seed.size, file) != seed.size) exit(2);
    fclose(file);
    memcpy(seed.base, seed.bytes, seed.size);
    seed.good = try_one(seed.bytes, seed.size, 0);
    try_one(seed.bytes, seed.size, 1);
    return seed;
}

static void damaged_copies(bh_seed *seed, unsigned char *copy, long copies, bh_count *count) {
    for (long i = 0; i < copies && seed->size; i++) {
        if (next(&count->random) % 16 == 0) memcpy(seed->base, seed->bytes, seed->size);
        memcpy(copy, seed->base, seed->size);
        size_t left = damage(copy, seed->size, &count->random);
        int good = try_one(copy, left, 1);
        count->copies++;
        count->models += good;
        if (good && left == seed->size && next(&count->random) % 2) memcpy(seed->base, copy, left);
    }
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void keep_what_fails(void) {
    signal(SIGABRT, keep);
    signal(SIGALRM, keep);
#ifndef __SANITIZE_ADDRESS__ /* which reports these, and aborts if abort_on_error=1 */
    signal(SIGSEGV, keep);
    signal(SIGBUS, keep);
    signal(SIGFPE, keep);
    signal(SIGILL, keep);
#endif
}

static void all_of(bh_seed *seeds, int files, long copies, double seconds, bh_count *count) {
    size_t largest = 0;
    for (int i = 0; i < files; i++) largest = seeds[i].size > largest ? seeds[i].size : largest;
    unsigned char *copy = malloc(largest + 1);
    if (!copy) exit(2);
    const double end = seconds_now() + seconds;
    for (int i = 0; i < files; i++) damaged_copies(&seeds[i], copy, copies, count);
    for (int i = 0; files && seconds_now() < end; i = (i + 1) % files)
        damaged_copies(&seeds[i], copy, COPIES_IN_TURN, count);
    free(copy);
}

int main(int count, char **words) {
    long copies = 0;
    double seconds = 0;
    bh_count counted = {.random = 3};
    bh_seed *seeds = calloc((size_t)count, sizeof *seeds);
    if (!seeds) return 2;
    int files = 0, good = 0;
    keep_what_fails();
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "-n") && i + 1 < count)
            copies = strtol(words[++i], NULL, 10);
        else if (!strcmp(words[i], "-t") && i + 1 < count)
            seconds = strtod(words[++i], NULL);
        else if (!strcmp(words[i], "-s") && i + 1 < count)
            counted.random = strtoull(words[++i], NULL, 10) * 2 + 1;
        else if (!strcmp(words[i], "-k") && i + 1 < count)
            tried.path = words[++i];
        else
            seeds[files++] = seed_of(words[i]);
    }
    all_of(seeds, files, copies, seconds, &counted);
    for (int i = 0; i < files; i++) {
        good += seeds[i].good;
        if (!seeds[i].good) fprintf(stderr, "%s: refused\n", seeds[i].path);
        free(seeds[i].bytes);
        free(seeds[i].base);
    }
    free(seeds);
    printf("%d of %d files are models; of %ld damaged copies %ld ran\n", good, files, counted.copies,
           counted.models);
    return 0;
}
