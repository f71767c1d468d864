/* A session: the arena, the threads, and the loop over samples and instructions. */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cpu.h"

#define MOST_THREADS 1024
#define WORTH 5000 /* nanoseconds of work that a further thread must have; meeting costs about one thousand */
#define HUGE_PAGE ((size_t)2 << 20)
#define GUARD ((size_t)64 << 10) /* bytes that nobody may touch; the largest page of common systems */

static bh_status fail(char *why, bh_status status, const char *what) {
    if (why) snprintf(why, BH_MESSAGE, "%s", what);
    return status;
}

static bh_status lacks(char *why, bh_isa isa) {
    if (isa != BH_BEST) return fail(why, BH_ERROR_ARGUMENT, "this processor or build lacks the instruction set");
    if (why)
        snprintf(why, BH_MESSAGE, "this processor lacks %s, which this build of the engine needs", bh_least_isa());
    return BH_ERROR_ARGUMENT;
}

/* Zeros between two guards, so that even a mistake in an operator could not reach other memory unnoticed. */
static int map_arena(bh_session *session) {
    size_t bytes = ((size_t)session->model->header->arena + 2 * BH_SLACK) * sizeof(float);
    bytes = (bytes + GUARD - 1) / GUARD * GUARD;
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : GUARD;
    session->mapped = bytes + 2 * GUARD + align;
    session->mapping = mmap(NULL, session->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (session->mapping == MAP_FAILED) return 0;
    uintptr_t first = ((uintptr_t)session->mapping + GUARD + align - 1) / align * align;
    if (mprotect((void *)first, bytes, PROT_READ | PROT_WRITE) != 0) return 0;
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_PAGE) madvise((void *)first, bytes, MADV_HUGEPAGE);
#endif
    session->arena = (float *)first + BH_SLACK;
    return 1;
}

static void share_work(bh_session *session) {
    for (uint32_t i = 0; i < session->model->header->instructions; i++) {
        const bh_instruction *op = &session->model->instructions[i];
        uint64_t work = bh_work(op), most = session->threads;
        if (bh_chained(session->model, i)) most = 1;
        if (bh_chained(session->model, i + 1)) {
            work += bh_work(op + 1);
            if (most > op[1].arg[DEPTHWISE_SLOTS]) most = op[1].arg[DEPTHWISE_SLOTS];
        }
        uint64_t worth = 1 + work / WORTH;
        session->shares[i] = (uint32_t)(worth < most ? worth : most);
    }
}

bh_status bh_session_create(const bh_model *model, uint32_t threads, bh_isa isa, bh_session **session,
                            char *why) {
    if (!model || !session) return fail(why, BH_ERROR_ARGUMENT, "no model, or nowhere to put the session");
    *session = NULL;
    if (threads < 1 || threads > MOST_THREADS)
        return fail(why, BH_ERROR_ARGUMENT, "threads must be 1 .. 1024");
    const bh_kernels *kernels = bh_kernels_for(isa);
    if (!kernels) return lacks(why, isa);
    bh_session *made = calloc(1, sizeof *made + model->header->instructions * sizeof(uint32_t));
    if (!made) return fail(why, BH_ERROR_MEMORY, bh_text(BH_ERROR_MEMORY));
    made->model = model;
    made->kernels = kernels;
    made->threads = threads;
    made->mapping = MAP_FAILED;
    share_work(made);
    if (!map_arena(made)) {
        bh_session_free(made);
        return fail(why, BH_ERROR_MEMORY, "not enough memory for the activations");
    }
    made->pool = bh_pool_create(threads);
    if (!made->pool) {
        bh_session_free(made);
        return fail(why, BH_ERROR_MEMORY, "the system gives no more threads");
    }
    *session = made;
    return BH_OK;
}

void bh_session_free(bh_session *session) {
    if (!session) return;
    bh_pool_free(session->pool);
    if (session->mapping != MAP_FAILED) munmap(session->mapping, session->mapped);
    free(session);
}

const char *bh_session_isa(const bh_session *session) { return session->kernels->name; }

/* One call of bh_session_run or bh_session_time, as all threads see it. */
typedef struct {
    bh_session *session;
    const float *const *inputs;
    float *const *outputs;
    size_t batch;
    uint32_t instruction, repeat; /* of bh_session_time */
    double seconds;
} bh_call;

static size_t port_size(const bh_port_record *port) {
    return (size_t)port->planes.count * port->height * port->width;
}

/* One plane of an input, with all that is zero around its pixels. */
static void load_plane(const bh_port_record *port, const float *from, float *plane) {
    const size_t width = port->width, pitch = port->pitch, size = port->size;
    const size_t rows = pitch == width ? 1 : port->height, row = pitch == width ? port->height * width : width;
    memset(plane - port->before, 0, port->before * sizeof(float));
    for (size_t y = 0; y < rows; y++) {
        memcpy(plane + y * pitch, from + y * row, row * sizeof(float));
        size_t end = y + 1 < rows ? (y + 1) * pitch : size;
        if (size) memset(plane + y * pitch + row, 0, (end - y * pitch - row) * sizeof(float));
    }
}

static void store_plane(const bh_port_record *port, const float *plane, float *to) {
    for (size_t y = 0; y < port->height; y++)
        memcpy(to + y * port->width, plane + y * port->pitch, port->width * sizeof(float));
}

/* A thread's share of copying all inputs (or outputs) of one sample; threads take planes in turn. */
static void move_ports(const bh_call *call, size_t sample, uint32_t thread, int output) {
    const bh_session *session = call->session;
    const bh_header *header = session->model->header;
    const bh_port_record *ports = session->model->ports + (output ? header->inputs : 0);
    for (uint32_t i = 0; i < (output ? header->outputs : header->inputs); i++) {
        const bh_port_record *port = &ports[i];
        const int32_t *planes = bh_i32(session->model, port->planes);
        const size_t pixels = (size_t)port->height * port->width, first = sample * port_size(port);
        for (uint32_t c = thread; c < port->planes.count; c += session->threads) {
            if (output)
                store_plane(port, session->arena + planes[c], call->outputs[i] + first + c * pixels);
            else
                load_plane(port, call->inputs[i] + first + c * pixels, session->arena + planes[c]);
        }
    }
}

static void run_share(const bh_session *session, uint32_t number, uint32_t thread) {
    const bh_instruction *op = &session->model->instructions[number];
    const uint32_t shares = session->shares[number];
    if (thread >= shares || bh_chained(session->model, number)) return;
    const bh_job job = {session->model, op, session->arena, thread, shares};
    const int chain = bh_chained(session->model, number + 1);
    (chain ? bh_chain_of(session->kernels) : bh_run_of(session->kernels, op->kind))(&job);
}

/* Where only the first thread works before and after, the others need not meet it. */
static void run_instructions(const bh_session *session, uint32_t thread) {
    const uint32_t count = session->model->header->instructions;
    for (uint32_t i = 0, next; i < count; i = next) {
        next = i + (bh_chained(session->model, i + 1) ? 2 : 1);
        run_share(session, i, thread);
        if (session->shares[i] > 1 || (next < count && session->shares[next] > 1))
            bh_pool_barrier(session->pool);
    }
}

static void run_task(void *context, uint32_t thread) {
    const bh_call *call = context;
    uint64_t before = bh_denormals_flush();
    for (size_t sample = 0; sample < call->batch; sample++) {
        move_ports(call, sample, thread, 0);
        bh_pool_barrier(call->session->pool);
        run_instructions(call->session, thread);
        bh_pool_barrier(call->session->pool);
        move_ports(call, sample, thread, 1);
        bh_pool_barrier(call->session->pool); /* the next inputs may lie where these outputs are */
    }
    bh_denormals_restore(before);
}

bh_status bh_session_run(bh_session *session, const float *const *inputs, float *const *outputs,
                         size_t batch) {
    if (!session) return BH_ERROR_ARGUMENT;
    const bh_header *header = session->model->header;
    if ((!inputs && header->inputs) || (!outputs && header->outputs)) return BH_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < header->inputs; i++)
        if (!inputs[i]) return BH_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < header->outputs; i++)
        if (!outputs[i]) return BH_ERROR_ARGUMENT;
    bh_call call = {.session = session, .inputs = inputs, .outputs = outputs, .batch = batch};
    bh_pool_run(session->pool, run_task, &call);
    return BH_OK;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void time_task(void *context, uint32_t thread) {
    bh_call *call = context;
    bh_pool *pool = call->session->pool;
    const int alone = call->session->shares[call->instruction] == 1;
    uint64_t before = bh_denormals_flush();
    for (uint32_t i = 0; i < call->repeat && !(alone && thread); i++) {
        if (!alone) bh_pool_barrier(pool);
        double start = seconds_now();
        run_share(call->session, call->instruction, thread);
        if (!alone) bh_pool_barrier(pool);
        double spent = seconds_now() - start;
        if (thread == 0 && (i == 0 || spent < call->seconds)) call->seconds = spent;
    }
    bh_denormals_restore(before);
}

bh_status bh_session_time(bh_session *session, uint32_t instruction, uint32_t repeat, double *seconds) {
    if (!session || !seconds || !repeat || instruction >= session->model->header->instructions)
        return BH_ERROR_ARGUMENT;
    bh_call call = {.session = session, .instruction = instruction, .repeat = repeat};
    bh_pool_run(session->pool, time_task, &call);
    *seconds = call.seconds;
    return BH_OK;
}
