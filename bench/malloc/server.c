/* SPDX-License-Identifier: MIT
 *
 * A server, after Larson and Krishnan's description: each thread replaces random objects of an array, then starts its
 * successor and ends. What it leaves is handed on: before that, its array is exchanged with one that lies in a common
 * place, so objects are freed by other threads than those that made them, most of which have ended.
 * SIZE: thousands of replacements by each line of threads.
 */
#include <semaphore.h>
#include <stdatomic.h>

#include "work.h"

enum { OBJECTS = 2000, GENERATION = 100000, SMALLEST = 16, LARGEST = 1000 };

typedef struct line {
    work_block **objects;
    uint64_t random;
    uint64_t sum;
    size_t left; /* generations */
} line;

static work_block **_Atomic common;
static sem_t ended;

static work_block **array_new(uint64_t *random)
{
    work_block **objects = calloc(OBJECTS, sizeof *objects);
    if (objects == NULL)
        work_fail("no memory");
    for (size_t i = 0; i < OBJECTS; i++)
        objects[i] = work_take(work_between(random, SMALLEST, LARGEST), i);
    return objects;
}

static uint64_t array_free(work_block **objects)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < OBJECTS; i++)
        sum += work_give(objects[i]);
    free(objects);
    return sum;
}

static void line_start(line *self);

static void *line_run(void *argument)
{
    line *self = argument;
    for (size_t i = 0; i < GENERATION; i++) {
        size_t slot = work_below(&self->random, OBJECTS);
        self->sum += work_give(self->objects[slot]);
        self->objects[slot] = work_take(work_between(&self->random, SMALLEST, LARGEST), i);
    }
    self->objects = atomic_exchange(&common, self->objects);
    if (--self->left > 0)
        line_start(self);
    else
        sem_post(&ended);
    return NULL;
}

static void line_start(line *self)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, line_run, self) != 0 || pthread_detach(thread) != 0)
        work_fail("can't start a thread");
}

int main(int argc, char **argv)
{
    static line lines[WORK_THREADS_MAX];
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(WORK_THREADS_MAX), sum = 0;
    if (sem_init(&ended, 0, 0) != 0)
        work_fail("sem_init failed");
    atomic_init(&common, array_new(&random));
    for (size_t i = 0; i < arguments.threads; i++) {
        lines[i].random = work_seed(i);
        lines[i].objects = array_new(&random);
        lines[i].left = 1 + (arguments.size * 1000 - 1) / GENERATION;
    }
    for (size_t i = 0; i < arguments.threads; i++)
        line_start(&lines[i]);
    for (size_t i = 0; i < arguments.threads; i++)
        sem_wait(&ended);
    for (size_t i = 0; i < arguments.threads; i++)
        sum += lines[i].sum + array_free(lines[i].objects);
    return work_end(sum + array_free(atomic_load(&common)));
}
