/* SPDX-License-Identifier: MIT
 *
 * Many threads that live shortly: each allocates a few hundred blocks, frees most of them, and leaves the others to the
 * thread that started it, which frees them when a few more threads have come and gone. SIZE: threads in all; THREADS:
 * at a time.
 */
#include "work.h"

enum { BLOCKS = 200, LEFT = 50, KEPT = 16 };

typedef struct job {
    work_block *left[LEFT];
} job;

static uint64_t run(void *context, size_t index)
{
    job *self = context;
    work_block *blocks[BLOCKS];
    uint64_t random = work_seed(index), sum = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = work_take(work_size(&random), i);
    for (size_t i = 0; i < BLOCKS; i++) {
        if (i < LEFT)
            self->left[i] = blocks[i * (BLOCKS / LEFT)];
        if (i % (BLOCKS / LEFT) != 0)
            sum += work_give(blocks[i]);
    }
    return sum;
}

static uint64_t clear(job *old)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < LEFT; i++) {
        sum += work_give(old->left[i]);
        old->left[i] = NULL;
    }
    return sum;
}

int main(int argc, char **argv)
{
    static job jobs[KEPT * WORK_THREADS_MAX];
    work_arguments arguments = work_begin(argc, argv);
    size_t kept = KEPT * arguments.threads;
    uint64_t sum = 0;
    for (size_t i = 0; i < arguments.size; i += arguments.threads) {
        work_thread threads[WORK_THREADS_MAX];
        for (size_t j = 0; j < arguments.threads; j++) {
            sum += clear(&jobs[(i + j) % kept]);
            work_start(&threads[j], run, &jobs[(i + j) % kept], i + j);
        }
        for (size_t j = 0; j < arguments.threads; j++)
            sum += work_join(&threads[j]);
    }
    for (size_t i = 0; i < kept; i++)
        sum += clear(&jobs[i]);
    return work_end(sum);
}
