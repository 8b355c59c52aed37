/* SPDX-License-Identifier: MIT
 *
 * One side only allocates, the other only frees. Batches of blocks go from a producer to its consumer through a queue
 * that holds few of them. THREADS: half of them produce, half consume. SIZE: batches from each producer.
 */
#include "work.h"

enum { BATCH = 128, QUEUE = 64 };

typedef struct batch {
    work_block *blocks[BATCH];
} batch;

typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    batch *batches[QUEUE];
    size_t put;
    size_t taken;
    size_t limit; /* how many go through it in all */
} queue;

static void queue_put(queue *q, batch *b)
{
    pthread_mutex_lock(&q->lock);
    while (q->put - q->taken == QUEUE)
        pthread_cond_wait(&q->changed, &q->lock);
    q->batches[q->put++ % QUEUE] = b;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

static batch *queue_take(queue *q)
{
    pthread_mutex_lock(&q->lock);
    while (q->put == q->taken)
        pthread_cond_wait(&q->changed, &q->lock);
    batch *b = q->batches[q->taken++ % QUEUE];
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return b;
}

static uint64_t produce(queue *q, size_t index)
{
    uint64_t random = work_seed(index);
    for (size_t i = 0; i < q->limit; i++) {
        batch *b = malloc(sizeof *b);
        if (b == NULL)
            work_fail("no memory");
        for (size_t j = 0; j < BATCH; j++)
            b->blocks[j] = work_take(work_size(&random), i + j);
        queue_put(q, b);
    }
    return 0;
}

static uint64_t consume(queue *q)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < q->limit; i++) {
        batch *b = queue_take(q);
        for (size_t j = 0; j < BATCH; j++)
            sum += work_give(b->blocks[j]);
        free(b);
    }
    return sum;
}

static uint64_t side(void *context, size_t index)
{
    queue *q = (queue *)context + index / 2;
    return index % 2 == 0 ? produce(q, index) : consume(q);
}

int main(int argc, char **argv)
{
    static queue queues[WORK_THREADS_MAX / 2];
    work_arguments arguments = work_begin(argc, argv);
    for (size_t i = 0; i < arguments.threads / 2; i++) {
        pthread_mutex_init(&queues[i].lock, NULL);
        pthread_cond_init(&queues[i].changed, NULL);
        queues[i].limit = arguments.size;
    }
    return work_end(work_parallel(arguments.threads / 2 * 2, side, queues));
}
