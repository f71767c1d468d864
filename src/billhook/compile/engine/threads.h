/* A few threads that run the same task together; the caller is the first of them. */
#ifndef BH_THREADS_H
#define BH_THREADS_H

#include <stdint.h>

typedef struct bh_pool bh_pool;
typedef void (*bh_task)(void *context, uint32_t thread);

/* NULL if there is not enough memory or the system gives no more threads. */
bh_pool *bh_pool_create(uint32_t threads);
void bh_pool_free(bh_pool *pool);

/* Run task(context, 0 .. threads - 1), one call in each thread, and return when all have returned. */
void bh_pool_run(bh_pool *pool, bh_task task, void *context);

/* Inside a task: wait until all threads are here. */
void bh_pool_barrier(bh_pool *pool);

#endif
