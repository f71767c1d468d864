/* Runs a model file with the engine as a shared library: MODEL ISA THREADS BATCH INPUTS OUTPUTS.
 *
 * The files hold all inputs (outputs) one after the other, each for the whole batch. The name of the
 * instruction set goes to stdout. */
#include <stdio.h>
#include <stdlib.h>

#include "billhook.h"

#define MOST_PORTS 16

static void check(bh_status status, const char *why) {
    if (status == BH_OK) return;
    fprintf(stderr, "%s: %s\n", bh_text(status), why);
    exit(EXIT_FAILURE);
}

int main(int count, char **arguments) {
    if (count != 7) return EXIT_FAILURE;
    char why[BH_MESSAGE] = "";
    bh_model *model;
    bh_session *session;
    check(bh_model_open(arguments[1], &model, why), why);
    check(bh_session_create(model, (uint32_t)atoi(arguments[3]), (bh_isa)atoi(arguments[2]), &session, why), why);
    const size_t batch = (size_t)atoi(arguments[4]);
    const uint32_t ins = bh_model_inputs(model), outs = bh_model_outputs(model);
    const float *inputs[MOST_PORTS];
    float *outputs[MOST_PORTS];
    FILE *from = fopen(arguments[5], "rb"), *to = fopen(arguments[6], "wb");
    if (!from || !to || ins > MOST_PORTS || outs > MOST_PORTS) return EXIT_FAILURE;
    for (uint32_t i = 0; i < ins; i++) {
        size_t size = batch * bh_model_input(model, i).size;
        float *numbers = malloc(size * sizeof(float));
        if (!numbers || fread(numbers, sizeof(float), size, from) != size) return EXIT_FAILURE;
        inputs[i] = numbers;
    }
    for (uint32_t i = 0; i < outs; i++)
        if (!(outputs[i] = malloc(batch * bh_model_output(model, i).size * sizeof(float)))) return EXIT_FAILURE;
    check(bh_session_run(session, inputs, outputs, batch), "");
    for (uint32_t i = 0; i < outs; i++) {
        size_t size = batch * bh_model_output(model, i).size;
        if (fwrite(outputs[i], sizeof(float), size, to) != size) return EXIT_FAILURE;
    }
    if (fclose(to) != 0) return EXIT_FAILURE;
    puts(bh_session_isa(session));
    bh_session_free(session);
    bh_model_free(model);
    return EXIT_SUCCESS;
}
