/* SPDX-License-Identifier: MIT
 *
 * What the workloads of the suite "malloc" have in common. A workload is a program that uses malloc as one finds it:
 *
 *     malloc_NAME SIZE THREADS [MODE]
 *
 * SIZE is how much is to be done. It prints a checksum, which depends on nothing but the arguments, and whose malloc it
 * was. Every block that it gets is written at both ends and is looked at again before it is freed, so an allocator that
 * hands out a byte twice does not get away with being fast.
 */
#ifndef VMKIT_BENCH_WORK_H
#define VMKIT_BENCH_WORK_H

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../random.h"

#define WORK_KIB ((size_t)1 << 10)
#define WORK_MIB ((size_t)1 << 20)
#define WORK_THREADS_MAX 64

__attribute__((noreturn)) static inline void work_fail(const char *what)
{
    fprintf(stderr, "work: %s\n", what);
    exit(1);
}

/* --- arguments and results --------------------------------------------------------------------------------------- */

typedef struct work_arguments {
    size_t size;
    size_t threads;
    const char *mode;
} work_arguments;

static inline work_arguments work_begin(int argc, char **argv)
{
    work_arguments arguments = {argc > 1 ? strtoul(argv[1], NULL, 10) : 0, argc > 2 ? strtoul(argv[2], NULL, 10) : 1,
                                argc > 3 ? argv[3] : ""};
    if (arguments.size == 0 || arguments.threads == 0 || arguments.threads > WORK_THREADS_MAX)
        work_fail("usage: malloc_NAME SIZE [THREADS [MODE]]");
    return arguments;
}

static inline int work_end(uint64_t checksum)
{
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (address == NULL || dladdr(address, &info) == 0)
        work_fail("can't say whose malloc this is");
    printf("checksum %016llx\nmalloc %s\n", (unsigned long long)checksum, info.dli_fname);
    return 0;
}

static inline size_t work_between(uint64_t *state, size_t least, size_t most)
{
    return least + work_below(state, most - least + 1);
}

/* 16 to 1024 bytes as programs ask for them: half of the blocks have at most 64 bytes, one in 16 more than 512. */
static inline size_t work_size(uint64_t *state)
{
    static const uint16_t steps[17] = {16, 16, 24, 32, 32, 40, 48, 56, 64, 80, 96, 128, 160, 224, 320, 512, 1024};
    size_t step = work_below(state, 16);
    return work_between(state, steps[step], steps[step + 1]);
}

/* --- blocks ------------------------------------------------------------------------------------------------------ */

typedef struct work_block {
    uint32_t size;
    uint32_t tag;
} work_block;

enum { WORK_LEAST = sizeof(work_block) };

/* The compiler must suppose that this reads and writes the block; else it may drop a malloc whose block is only freed.
 */
static inline void *work_escape(void *block)
{
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

/* Write both ends of a block of at least WORK_LEAST bytes. */
static inline work_block *work_mark(void *memory, size_t size, uint64_t tag)
{
    if (memory == NULL)
        work_fail("no memory");
    work_block *block = (work_block *)memory;
    block->size = (uint32_t)size;
    block->tag = (uint32_t)tag;
    if (size > WORK_LEAST)
        ((unsigned char *)memory)[size - 1] = (unsigned char)tag;
    return (work_block *)work_escape(block);
}

/* Answers the block's part of the checksum. */
static inline uint64_t work_check(const work_block *block)
{
    if (block->size > WORK_LEAST && ((const unsigned char *)block)[block->size - 1] != (unsigned char)block->tag)
        work_fail("a block was overwritten");
    return (uint64_t)block->size * 31 + block->tag;
}

static inline work_block *work_take(size_t size, uint64_t tag)
{
    return work_mark(malloc(size), size, tag);
}

static inline uint64_t work_give(work_block *block)
{
    if (block == NULL)
        return 0;
    uint64_t sum = work_check(block);
    free(block);
    return sum;
}

/* --- threads ----------------------------------------------------------------------------------------------------- */

typedef uint64_t (*work_function)(void *context, size_t index);

typedef struct work_thread {
    pthread_t thread;
    work_function function;
    void *context;
    size_t index;
    uint64_t sum;
} work_thread;

static inline void *work_thread_run(void *argument)
{
    work_thread *self = (work_thread *)argument;
    self->sum = self->function(self->context, self->index);
    return NULL;
}

static inline void work_start(work_thread *self, work_function function, void *context, size_t index)
{
    self->function = function;
    self->context = context;
    self->index = index;
    if (pthread_create(&self->thread, NULL, work_thread_run, self) != 0)
        work_fail("can't start a thread");
}

static inline uint64_t work_join(work_thread *self)
{
    if (pthread_join(self->thread, NULL) != 0)
        work_fail("can't join a thread");
    return self->sum;
}

/* Run function(context, 0 ... count - 1), each in a thread, and answer the sum of what they answer. */
static inline uint64_t work_parallel(size_t count, work_function function, void *context)
{
    work_thread threads[WORK_THREADS_MAX];
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        work_start(&threads[i], function, context, i);
    for (size_t i = 0; i < count; i++)
        sum += work_join(&threads[i]);
    return sum;
}

#endif
