/* The file as a whole and its ports; validate_ops.c has the instructions.
 *
 * Sizes and addresses are compared as 64-bit numbers. Every size is first held below the arena, which is below
 * 2^31, so that neither sums nor products of two of them can overflow.
 */
#include "validate.h"

#include <stdio.h>
#include <string.h>

#include "crc32.h"

#define LARGEST_ARENA ((uint64_t)INT32_MAX - 2 * BH_SLACK)

_Static_assert(sizeof(bh_header) == 64, "header");
_Static_assert(sizeof(bh_instruction) == 160, "instruction");
_Static_assert(sizeof(bh_port_record) == 64, "port");
_Static_assert(sizeof(float) == 4, "float");
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are little-endian"
#endif

int bh_refuse(const bh_check *check, const char *what) {
    if (!check->why) return 0;
    if (!check->part)
        snprintf(check->why, BH_MESSAGE, "%s", what);
    else if (!check->kind)
        snprintf(check->why, BH_MESSAGE, "%s %u: %s", check->part, check->number, what);
    else
        snprintf(check->why, BH_MESSAGE, "%s %u (%s): %s", check->part, check->number, check->kind, what);
    return 0;
}

static uint64_t tables_end(const bh_header *header) {
    return sizeof(bh_header) + (uint64_t)header->instructions * sizeof(bh_instruction) +
           ((uint64_t)header->inputs + header->outputs) * sizeof(bh_port_record);
}

int bh_check_ref(const bh_check *check, bh_ref ref, size_t element) {
    if (!ref.count) return 1;
    uint64_t from = (uint64_t)ref.at * BH_ALIGN;
    if (from < tables_end(check->model->header)) return bh_refuse(check, "data lies inside the tables");
    if (from + (uint64_t)ref.count * element > check->model->size)
        return bh_refuse(check, "data lies outside the file");
    return 1;
}

int bh_check_plane(const bh_check *check, uint32_t height, uint32_t width, uint32_t pitch) {
    uint64_t arena = check->model->header->arena;
    if (!height || !width || height > arena || width > arena || pitch > arena)
        return bh_refuse(check, "planes are empty or larger than the arena");
    if (pitch < width) return bh_refuse(check, "rows of planes overlap");
    return 1;
}

int bh_check_pixels(const bh_check *check, bh_ref table, bh_extent extent, const char *what) {
    if (!bh_check_ref(check, table, sizeof(int32_t))) return 0;
    if (!table.count) return bh_refuse(check, "no planes");
    const int32_t *at = bh_i32(check->model, table);
    uint64_t arena = check->model->header->arena;
    if (extent.ahead > arena || extent.behind > arena) return bh_refuse(check, what);
    int64_t first = (int64_t)extent.ahead, last = (int64_t)(arena - extent.behind);
    for (uint32_t i = 0; i < table.count; i++)
        if (at[i] < first || at[i] > last) return bh_refuse(check, what);
    return 1;
}

static int check_name(const bh_check *check, bh_ref name) {
    if (!bh_check_ref(check, name, 1)) return 0;
    const unsigned char *text = bh_data(check->model, name);
    if (!name.count || text[name.count - 1] != 0) return bh_refuse(check, "its name has no end");
    return 1;
}

#define MOST_NUMBERS ((uint64_t)1 << 40) /* of one sample of a port */

/* Whether rank and shape are possible and have as many numbers as the planes. */
static int check_shape(const bh_check *check, const bh_port_record *port) {
    if (port->rank > BH_MAX_RANK) return bh_refuse(check, "more dimensions than the engine has");
    uint64_t arena = check->model->header->arena, numbers = 1; /* more than the arena has if planes repeat */
    for (uint32_t d = 0; d < port->rank; d++) {
        if (!port->shape[d] || numbers > MOST_NUMBERS / port->shape[d])
            return bh_refuse(check, "its shape has no sensible size");
        numbers *= port->shape[d];
    }
    uint64_t pixels = (uint64_t)port->height * port->width; /* each below 2^31 by now */
    if (pixels > arena || pixels * port->planes.count != numbers)
        return bh_refuse(check, "its shape and its planes disagree");
    return 1;
}

static int check_port(const bh_check *check, const bh_port_record *port, int written) {
    if (!check_name(check, port->name) || !bh_check_plane(check, port->height, port->width, port->pitch) ||
        !check_shape(check, port))
        return 0;
    bh_extent extent = {0, bh_span(port->height, port->width, port->pitch)};
    if (!written) return bh_check_pixels(check, port->planes, extent, "reads outside the arena");
    extent.ahead = port->before;
    if (port->size && port->size < extent.behind)
        return bh_refuse(check, "its planes are smaller than their pixels");
    if (port->size) extent.behind = port->size;
    return bh_check_pixels(check, port->planes, extent, "writes outside the arena");
}

static int check_header(const bh_check *check) {
    const bh_model *model = check->model;
    if (model->size < sizeof(bh_header) || memcmp(model->header->magic, BH_MAGIC, 8) != 0)
        return bh_refuse(check, "this is no billhook model");
    const bh_header *header = model->header;
    if (header->version != BH_FORMAT_VERSION) {
        if (check->why)
            snprintf(check->why, BH_MESSAGE,
                     "the model has format %u, this engine reads format %u; compile it again",
                     header->version, (unsigned)BH_FORMAT_VERSION);
        return 0;
    }
    if (header->bytes != model->size)
        return bh_refuse(check, "the model is truncated, or something follows it");
    if (tables_end(header) > model->size)
        return bh_refuse(check, "the tables reach beyond the end of the model");
    if (header->arena > LARGEST_ARENA) return bh_refuse(check, "the arena is too large");
    if (bh_crc32(model->bytes + sizeof(bh_header), model->size - sizeof(bh_header)) != header->checksum)
        return bh_refuse(check, "the model is damaged: its checksum is wrong");
    return 1;
}

static int check_parts(bh_check *check) {
    const bh_model *model = check->model;
    const bh_header *header = model->header;
    check->part = "instruction";
    for (check->number = 0; check->number < header->instructions; check->number++)
        if (!bh_check_instruction(check, &model->instructions[check->number])) return 0;
    check->kind = NULL;
    check->part = "input";
    for (check->number = 0; check->number < header->inputs; check->number++)
        if (!check_port(check, &model->ports[check->number], 1)) return 0;
    check->part = "output";
    for (check->number = 0; check->number < header->outputs; check->number++)
        if (!check_port(check, &model->ports[header->inputs + check->number], 0)) return 0;
    return 1;
}

bh_status bh_validate(bh_model *model, char *why) {
    bh_check check = {.model = model, .why = why};
    model->header = (const bh_header *)(const void *)model->bytes;
    if (!check_header(&check)) return BH_ERROR_FORMAT;
    model->instructions = (const bh_instruction *)(const void *)(model->bytes + sizeof(bh_header));
    model->ports = (const bh_port_record *)(const void *)(model->instructions + model->header->instructions);
    return check_parts(&check) ? BH_OK : BH_ERROR_FORMAT;
}
