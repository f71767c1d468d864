/* Runs the network once.
 *
 *     network                      with zeros; writes all numbers of the outputs as text
 *     network a.bin b.bin          inputs: raw float32, row-major, one file each in the order of network.h
 *     network a.bin -o out.bin     outputs as raw float32, one after the other
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billhook.h"
#include "network.h"

static const size_t input_sizes[] = NETWORK_INPUT_SIZES;
static const size_t output_sizes[] = NETWORK_OUTPUT_SIZES;
static const char *const output_names[] = NETWORK_OUTPUT_NAMES;

static void stop(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static float *zeros(size_t count) {
    float *made = calloc(count, sizeof(float));
    if (!made) stop("network", "not enough memory");
    return made;
}

static void read_floats(const char *path, float *to, size_t count) {
    FILE *file = fopen(path, "rb");
    if (!file) stop(path, "cannot be opened");
    size_t found = fread(to, sizeof(float), count, file);
    if (found != count || fgetc(file) != EOF) stop(path, "does not hold as many numbers as the input has");
    fclose(file);
}

static void write_floats(const char *path, float *const *outputs) {
    FILE *file = fopen(path, "wb");
    if (!file) stop(path, "cannot be opened");
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++)
        if (fwrite(outputs[i], sizeof(float), output_sizes[i], file) != output_sizes[i])
            stop(path, "cannot be written");
    if (fclose(file) != 0) stop(path, "cannot be written");
}

static void run(const float *const *inputs, float *const *outputs) {
    char why[BH_MESSAGE];
    bh_model *model;
    bh_session *session;
    if (bh_model_from_memory(network_model, (size_t)network_model_bytes, &model, why) != BH_OK)
        stop("the model", why);
    if (bh_session_create(model, 1, BH_BEST, &session, why) != BH_OK) stop("the engine", why);
    bh_status status = bh_session_run(session, inputs, outputs, 1);
    if (status != BH_OK) stop("the network", bh_text(status));
    bh_session_free(session);
    bh_model_free(model);
}

int main(int count, char **arguments) {
    float *inputs[NETWORK_INPUTS], *outputs[NETWORK_OUTPUTS];
    for (size_t i = 0; i < NETWORK_INPUTS; i++) inputs[i] = zeros(input_sizes[i]);
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++) outputs[i] = zeros(output_sizes[i]);
    const char *target = NULL;
    size_t given = 0;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "-o") == 0 && i + 1 < count)
            target = arguments[++i];
        else if (given == NETWORK_INPUTS)
            stop(arguments[i], "the network has fewer inputs");
        else {
            read_floats(arguments[i], inputs[given], input_sizes[given]);
            given++;
        }
    }

    run((const float *const *)inputs, outputs);

    if (target) write_floats(target, outputs);
    for (size_t i = 0; !target && i < NETWORK_OUTPUTS; i++)
        for (size_t j = 0; j < output_sizes[i]; j++)
            printf("%s[%zu] = %.9g\n", output_names[i], j, (double)outputs[i][j]);
    for (size_t i = 0; i < NETWORK_INPUTS; i++) free(inputs[i]);
    for (size_t i = 0; i < NETWORK_OUTPUTS; i++) free(outputs[i]);
    return EXIT_SUCCESS;
}
