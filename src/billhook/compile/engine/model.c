/* Model files: mapped, checked, described. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "validate.h"

#ifndef BH_VERSION
#define BH_VERSION "0"
#endif

const char *bh_version(void) { return BH_VERSION; }

const char *bh_text(bh_status status) {
    switch (status) {
    case BH_OK:
        return "no error";
    case BH_ERROR_FILE:
        return "the file cannot be read";
    case BH_ERROR_FORMAT:
        return "not a model, damaged, or made for another version of the engine";
    case BH_ERROR_MEMORY:
        return "not enough memory";
    case BH_ERROR_ARGUMENT:
        return "an argument makes no sense";
    }
    return "unknown status";
}

static bh_status fail(char *why, bh_status status, const char *what) {
    if (why) snprintf(why, BH_MESSAGE, "%s", what);
    return status;
}

/* Takes the bytes over: what is mapped is unmapped if it is no model. */
static bh_status adopt(const void *bytes, size_t size, int mapped, bh_model **model, char *why) {
    bh_model *made = calloc(1, sizeof *made);
    if (!made) {
        if (mapped) munmap((void *)(uintptr_t)bytes, size);
        return fail(why, BH_ERROR_MEMORY, bh_text(BH_ERROR_MEMORY));
    }
    made->bytes = bytes;
    made->size = size;
    made->mapped = mapped;
    bh_status status = bh_validate(made, why);
    if (status == BH_OK)
        *model = made;
    else
        bh_model_free(made);
    return status;
}

bh_status bh_model_open(const char *path, bh_model **model, char *why) {
    if (!path || !model) return fail(why, BH_ERROR_ARGUMENT, "no path, or nowhere to put the model");
    *model = NULL;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for a writer */
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0) {
        int number = errno;
        if (file >= 0) close(file);
        return fail(why, BH_ERROR_FILE, strerror(number));
    }
    if (!S_ISREG(about.st_mode) || about.st_size < (off_t)sizeof(bh_header)) {
        close(file);
        return fail(why, BH_ERROR_FORMAT, "this is no billhook model");
    }
    size_t size = (size_t)about.st_size;
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    int number = errno;
    close(file);
    if (bytes == MAP_FAILED) return fail(why, BH_ERROR_FILE, strerror(number));
    madvise(bytes, size, MADV_WILLNEED);
    return adopt(bytes, size, 1, model, why);
}

bh_status bh_model_from_memory(const void *bytes, size_t size, bh_model **model, char *why) {
    if (!bytes || !model) return fail(why, BH_ERROR_ARGUMENT, "no bytes, or nowhere to put the model");
    *model = NULL;
    if ((uintptr_t)bytes % BH_ALIGN) return fail(why, BH_ERROR_ARGUMENT, "the bytes are not aligned to 64");
    return adopt(bytes, size, 0, model, why);
}

void bh_model_free(bh_model *model) {
    if (!model) return;
    if (model->mapped) munmap((void *)(uintptr_t)model->bytes, model->size);
    free(model);
}

uint32_t bh_model_inputs(const bh_model *model) { return model->header->inputs; }
uint32_t bh_model_outputs(const bh_model *model) { return model->header->outputs; }
uint32_t bh_model_instructions(const bh_model *model) { return model->header->instructions; }
size_t bh_model_arena(const bh_model *model) { return (size_t)model->header->arena * sizeof(float); }

static bh_port describe(const bh_model *model, const bh_port_record *record) {
    size_t size = (size_t)record->planes.count * record->height * record->width;
    return (bh_port){bh_data(model, record->name), record->rank, record->shape, size};
}

/* A number that there is not gives a port without name and numbers. */
bh_port bh_model_input(const bh_model *model, uint32_t number) {
    if (number >= model->header->inputs) return (bh_port){0};
    return describe(model, &model->ports[number]);
}

bh_port bh_model_output(const bh_model *model, uint32_t number) {
    if (number >= model->header->outputs) return (bh_port){0};
    return describe(model, &model->ports[model->header->inputs + number]);
}
