/* One barrier does everything: workers wait at it for a task, meet at it inside the task, and leave through it.
 *
 * Waiting is a short spin, because the others usually are microseconds away, and then sleep: an idle session
 * costs nothing.
 */
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define SPIN_NANOSECONDS 40000

struct bh_pool {
    uint32_t threads;
    uint32_t started; /* workers that run, which is fewer only while the pool is made */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_uint arrived;
    atomic_uint phase; /* counts how often all have arrived */
    bh_task task;      /* NULL: end */
    void *context;
    struct bh_worker {
        bh_pool *pool;
        uint32_t thread;
        pthread_t handle;
    } workers[];
};

static inline void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wait_while(bh_pool *pool, unsigned phase) {
    int64_t end = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(&pool->phase, memory_order_acquire) != phase) return;
            rest();
        }
    } while (nanoseconds() < end);
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->phase) == phase) pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void bh_pool_barrier(bh_pool *pool) {
    if (pool->threads == 1) return;
    unsigned phase = atomic_load(&pool->phase);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 < pool->threads) {
        wait_while(pool, phase);
        return;
    }
    atomic_store(&pool->arrived, 0);
    pthread_mutex_lock(&pool->lock); /* else a thread could fall asleep between its look and this */
    atomic_store(&pool->phase, phase + 1);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *given) {
    struct bh_worker *worker = given;
    bh_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock); /* until the pool is complete */
    pthread_mutex_unlock(&pool->lock);
    for (;;) {
        bh_pool_barrier(pool);
        if (!pool->task) return NULL;
        pool->task(pool->context, worker->thread);
        bh_pool_barrier(pool);
    }
}

bh_pool *bh_pool_create(uint32_t threads) {
    bh_pool *pool = calloc(1, sizeof *pool + (threads - 1) * sizeof pool->workers[0]);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pthread_mutex_lock(&pool->lock);
    for (; pool->started < threads - 1; pool->started++) {
        struct bh_worker *worker = &pool->workers[pool->started];
        *worker = (struct bh_worker){.pool = pool, .thread = pool->started + 1};
        if (pthread_create(&worker->handle, NULL, work, worker) != 0) break;
    }
    pool->threads = pool->started + 1;
    pthread_mutex_unlock(&pool->lock);
    if (pool->threads == threads) return pool;
    bh_pool_free(pool);
    return NULL;
}

void bh_pool_free(bh_pool *pool) {
    if (!pool) return;
    pool->task = NULL;
    bh_pool_barrier(pool);
    for (uint32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void bh_pool_run(bh_pool *pool, bh_task task, void *context) {
    pool->task = task;
    pool->context = context;
    bh_pool_barrier(pool);
    task(context, 0);
    bh_pool_barrier(pool);
}
