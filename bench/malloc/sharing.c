/* SPDX-License-Identifier: MIT
 *
 * False sharing, after Berger and others: threads write to small objects of their own, and are slow when two objects
 * lie in one line of the cache. MODE active: each thread allocates its objects itself, so the allocator is to blame.
 * MODE passive: the threads' first objects come from one thread, one beside the other; each thread frees its own and
 * allocates again, and an allocator that gives the same place again spreads the sharing.
 * SIZE: thousands of objects of each thread.
 */
#include <string.h>

#include "work.h"

enum { OBJECT = 8, WRITES = 300 };

typedef struct sharing {
    size_t objects;
    unsigned char *first[WORK_THREADS_MAX];
    pthread_barrier_t start;
} sharing;

static uint64_t run(void *context, size_t index)
{
    sharing *shared = context;
    uint64_t sum = 0;
    pthread_barrier_wait(&shared->start); /* so that no thread is done before the next one starts */
    free(shared->first[index]);
    for (size_t i = 0; i < shared->objects; i++) {
        volatile unsigned char *object = work_escape(malloc(OBJECT));
        if (object == NULL)
            work_fail("no memory");
        object[index % OBJECT] = (unsigned char)i;
        for (size_t j = 0; j < WRITES; j++)
            object[index % OBJECT]++;
        sum += object[index % OBJECT];
        free((void *)object);
    }
    return sum;
}

int main(int argc, char **argv)
{
    static sharing shared;
    work_arguments arguments = work_begin(argc, argv);
    shared.objects = arguments.size * 1000;
    if (pthread_barrier_init(&shared.start, NULL, (unsigned)arguments.threads) != 0)
        work_fail("can't make a barrier");
    if (strcmp(arguments.mode, "passive") == 0) {
        for (size_t i = 0; i < arguments.threads; i++)
            shared.first[i] = work_escape(malloc(OBJECT));
    } else if (strcmp(arguments.mode, "active") != 0) {
        work_fail("usage: malloc_sharing SIZE THREADS active|passive");
    }
    return work_end(work_parallel(arguments.threads, run, &shared));
}
