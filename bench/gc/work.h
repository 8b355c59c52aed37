/* SPDX-License-Identifier: MIT
 *
 * What the workloads of the suite "gc" have in common. Each is compiled once for each peer, and run as
 *
 *     gc_NAME_PEER SIZE THREADS MARKERS [MODE]
 *
 * SIZE is how much is to be done, MARKERS how many threads mark (0: what the collector does by default). It prints
 * "metric value" lines; "checksum" must be the same for all peers.
 *
 * PEER_VMKIT and PEER_LIBGC collect. work_alloc is vmk_gc_alloc and GC_MALLOC: zeroed, scanned conservatively.
 * work_leaf is vmk_gc_alloc_leaf and GC_MALLOC_ATOMIC, which does not zero. Roots are the same: stacks, registers,
 * static data; what is mapped (work_map) is none. PEER_MALLOC frees by hand, and WORK_FREES says so.
 */
#ifndef VMKIT_BENCH_GC_WORK_H
#define VMKIT_BENCH_GC_WORK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../random.h"

#if defined(PEER_VMKIT)
#include "vmkit.h"
#elif defined(PEER_LIBGC)
#define GC_THREADS
#include <gc.h>
#elif !defined(PEER_MALLOC)
#error "which peer?"
#endif

#define WORK_MIB ((size_t)1 << 20)
enum { WORK_THREADS_MAX = 64 };

__attribute__((noreturn)) static inline void work_fail(const char *what)
{
    fprintf(stderr, "work: %s\n", what);
    exit(1);
}

static inline void *work_must(void *memory)
{
    if (memory == NULL)
        work_fail("no memory");
    return memory;
}

/* By the clock: collectors have threads of their own, and waiting for them counts. */
static inline double work_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Of the processors, all threads together: what the program takes however busy the machine is. */
static inline double work_now_cpu(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void work_result(const char *metric, double value)
{
    printf("%s %.9g\n", metric, value);
}

static inline void work_checksum(uint64_t value)
{
    work_result("checksum", (double)(value & (((uint64_t)1 << 29) - 1)));
}

/* --- memory that no collector looks into ------------------------------------------------------------------------- */

static inline void *work_map(size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return base == MAP_FAILED ? work_must(NULL) : base;
}

static inline void work_unmap(void *base, size_t size)
{
    if (munmap(base, size) != 0)
        work_fail("munmap failed");
}

/* KiB, as the kernel tells it in /proc/self/status: "VmRSS:" now, "VmHWM:" at most. Of this program alone, unlike what
 * getrusage tells, which begins with the size of whoever started it. */
static inline double work_status_kib(const char *key)
{
    char line[256];
    double value = -1;
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL)
        work_fail("can't read /proc/self/status");
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtod(line + strlen(key), NULL);
    fclose(file);
    return value;
}

/* Let the most be counted anew from what there is now. */
static inline void work_peak_reset(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file == NULL || fputs("5", file) == EOF || fclose(file) != 0)
        work_fail("can't write /proc/self/clear_refs");
}

/* --- peers ------------------------------------------------------------------------------------------------------- */

/* Of all collections so far. seconds: threads stood still. */
typedef struct work_pauses {
    double cycles;
    double seconds;
    double longest;
} work_pauses;

#if defined(PEER_VMKIT)

#define WORK_COLLECTS 1
#define WORK_FREES 0

static vmk_gc *work_gc;

static inline void work_vmk(vmk_status status)
{
    if (status != VMK_OK)
        work_fail(vmk_status_text(status));
}

static inline void work_open(unsigned markers)
{
    vmk_gc_options options = {.markers = markers};
    work_vmk(vmk_gc_create(&work_gc, &options));
}

static inline void *work_alloc(size_t size)
{
    return work_must(vmk_gc_alloc(work_gc, size));
}

static inline void *work_leaf(size_t size)
{
    return work_must(vmk_gc_alloc_leaf(work_gc, size));
}

static inline void work_free(void *object)
{
    (void)object;
}

static inline void work_collect(void)
{
    vmk_gc_collect(work_gc);
}

static inline void work_collecting(bool on)
{
    if (on)
        vmk_gc_enable(work_gc);
    else
        vmk_gc_disable(work_gc);
}

static inline void work_thread_begin(void)
{
    work_vmk(vmk_gc_thread_register());
}

static inline void work_thread_end(void)
{
    vmk_gc_thread_unregister();
}

static inline work_pauses work_pauses_now(void)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(work_gc, &stats);
    return (work_pauses){(double)stats.cycles, (double)stats.pause_total * 1e-9, (double)stats.pause_max * 1e-9};
}

/* Seconds that the last collection marked. */
static inline double work_mark_time(void)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(work_gc, &stats);
    return (double)stats.last.mark_time * 1e-9;
}

#elif defined(PEER_LIBGC)

#define WORK_COLLECTS 1
#define WORK_FREES 0

static work_pauses work_gc_pauses;
static double work_gc_stopped, work_gc_mark_began, work_gc_mark_time;

static void GC_CALLBACK work_gc_event(GC_EventType event)
{
    if (event == GC_EVENT_PRE_STOP_WORLD) {
        work_gc_stopped = work_now();
    } else if (event == GC_EVENT_MARK_START) {
        work_gc_mark_began = work_now();
    } else if (event == GC_EVENT_MARK_END) {
        work_gc_mark_time = work_now() - work_gc_mark_began;
    } else if (event == GC_EVENT_POST_START_WORLD) {
        double pause = work_now() - work_gc_stopped;
        work_gc_pauses.cycles++;
        work_gc_pauses.seconds += pause;
        if (pause > work_gc_pauses.longest)
            work_gc_pauses.longest = pause;
    }
}

static inline void work_open(unsigned markers)
{
    char number[16];
    snprintf(number, sizeof number, "%u", markers);
    if (markers > 0 && setenv("GC_MARKERS", number, 1) != 0)
        work_fail("setenv failed");
    GC_INIT();
    GC_allow_register_threads();
    GC_set_on_collection_event(work_gc_event);
}

static inline void *work_alloc(size_t size)
{
    return work_must(GC_MALLOC(size));
}

static inline void *work_leaf(size_t size)
{
    return work_must(GC_MALLOC_ATOMIC(size));
}

static inline void work_free(void *object)
{
    (void)object;
}

static inline void work_collect(void)
{
    GC_gcollect();
}

static inline void work_collecting(bool on)
{
    if (on)
        GC_enable();
    else
        GC_disable();
}

/* Its pthread_create registers. */
static inline void work_thread_begin(void)
{
}

static inline void work_thread_end(void)
{
}

static inline work_pauses work_pauses_now(void)
{
    return work_gc_pauses;
}

static inline double work_mark_time(void)
{
    return work_gc_mark_time;
}

#else

#define WORK_COLLECTS 0
#define WORK_FREES 1

static inline void work_open(unsigned markers)
{
    (void)markers;
}

static inline void *work_alloc(size_t size)
{
    return work_must(calloc(1, size));
}

static inline void *work_leaf(size_t size)
{
    return work_must(malloc(size));
}

static inline void work_free(void *object)
{
    free(object);
}

static inline void work_thread_begin(void)
{
}

static inline void work_thread_end(void)
{
}

#endif

/* --- arguments and results --------------------------------------------------------------------------------------- */

typedef struct work_arguments {
    size_t size;
    size_t threads;
    unsigned markers;
    const char *mode;
    double began;
    double began_cpu;
} work_arguments;

static inline work_arguments work_begin(int argc, char **argv)
{
    if (argc < 4)
        work_fail("usage: gc_NAME_PEER SIZE THREADS MARKERS [MODE]");
    work_arguments arguments = {strtoul(argv[1], NULL, 10),
                                strtoul(argv[2], NULL, 10),
                                (unsigned)strtoul(argv[3], NULL, 10),
                                argc > 4 ? argv[4] : "",
                                0,
                                0};
    if (arguments.size == 0 || arguments.threads == 0 || arguments.threads > WORK_THREADS_MAX)
        work_fail("SIZE and THREADS are at least 1, THREADS no more than 64");
    work_open(arguments.markers);
    arguments.began = work_now();
    arguments.began_cpu = work_now_cpu();
    return arguments;
}

/* Time by the clock and of processors, most memory, and what the collector knows of its own pauses, in milliseconds. */
static inline void work_report(const work_arguments *arguments)
{
    work_result("ms", (work_now() - arguments->began) * 1e3);
    work_result("cpu", (work_now_cpu() - arguments->began_cpu) * 1e3);
    work_result("peak", work_status_kib("VmHWM:") / 1024);
#if WORK_COLLECTS
    work_pauses pauses = work_pauses_now();
    work_result("cycles", pauses.cycles);
    work_result("paused", pauses.seconds * 1e3);
    work_result("longest", pauses.longest * 1e3);
#endif
}

/* --- the stack --------------------------------------------------------------------------------------------------- */

/* Overwrite what functions that have returned left on the stack: old pointers there keep objects alive. */
__attribute__((noinline, unused)) static void work_scrub(void)
{
    volatile unsigned char dead[16384];
    for (size_t i = 0; i < sizeof dead; i++)
        dead[i] = 0;
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
    work_thread_begin();
    self->sum = self->function(self->context, self->index);
    work_thread_end();
    return NULL;
}

/* Run function(context, 0 ... count - 1), each in a thread, and answer the sum of what they answer. */
static inline uint64_t work_parallel(size_t count, work_function function, void *context)
{
    static work_thread threads[WORK_THREADS_MAX]; /* on the stack it would hold what functions before left there */
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        threads[i] = (work_thread){.function = function, .context = context, .index = i};
        if (pthread_create(&threads[i].thread, NULL, work_thread_run, &threads[i]) != 0)
            work_fail("can't start a thread");
    }
    for (size_t i = 0; i < count; i++) {
        if (pthread_join(threads[i].thread, NULL) != 0)
            work_fail("can't join a thread");
        sum += threads[i].sum;
    }
    return sum;
}

#endif
