/* SPDX-License-Identifier: MIT
 *
 * All of it in some threads at once: most blocks are small and die soon, some are large, some stay for long, and some
 * are exchanged between threads through common slots, and freed by whoever gets them. There are several rounds; the
 * threads of one end before the next.
 * SIZE: thousands of blocks of each thread and round.
 */
#include <stdatomic.h>

#include "work.h"

enum { ROUNDS = 10, RECENT = 256, LASTING = 4096, COMMON = 1024 };

typedef struct stress {
    size_t blocks;
    size_t round;
} stress;

static work_block *_Atomic common[COMMON];

/* 8 bytes to 64 KiB: mostly as work_size has it. */
static size_t size_of(uint64_t *random)
{
    size_t kind = work_below(random, 1000);
    if (kind < 980)
        return work_size(random);
    return kind < 998 ? work_between(random, 1025, 8 * WORK_KIB) : work_between(random, 8 * WORK_KIB, 64 * WORK_KIB);
}

static uint64_t run(void *context, size_t index)
{
    const stress *shared = context;
    work_block *recent[RECENT] = {NULL}, **lasting = calloc(LASTING, sizeof(work_block *));
    uint64_t random = work_seed(index + shared->round * WORK_THREADS_MAX), sum = 0;
    if (lasting == NULL)
        work_fail("no memory");
    for (size_t i = 0; i < shared->blocks; i++) {
        work_block *block = work_take(size_of(&random), i), **place = &recent[i % RECENT];
        size_t fate = work_below(&random, 100);
        if (fate < 10)
            place = &lasting[work_below(&random, LASTING)];
        if (fate >= 95) {
            sum += work_give(atomic_exchange(&common[work_below(&random, COMMON)], block));
        } else {
            sum += work_give(*place);
            *place = block;
        }
    }
    for (size_t i = 0; i < RECENT; i++)
        sum += work_give(recent[i]);
    for (size_t i = 0; i < LASTING; i++) /* half of it goes on to live, and is freed in the next round or at the end */
        sum += work_give(i % 2 == 0 ? lasting[i] : atomic_exchange(&common[i % COMMON], lasting[i]));
    free(lasting);
    return sum;
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    stress shared = {arguments.size * 1000, 0};
    uint64_t sum = 0;
    for (; shared.round < ROUNDS; shared.round++)
        sum += work_parallel(arguments.threads, run, &shared);
    for (size_t i = 0; i < COMMON; i++)
        sum += work_give(atomic_load(&common[i]));
    return work_end(sum);
}
