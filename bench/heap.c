/* SPDX-License-Identifier: MIT
 *
 * bench_heap WORKLOAD VARIANT NUMBER: one measurement in a process of its own. Prints "metric value" lines.
 * bench/run.py runs the variants in turn and compares them.
 */
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "heap.h"

/* --- init ------------------------------------------------------------------------------------------------------- */

enum { CREATIONS = 1 << 10 };

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_us(double *seconds)
{
    qsort(seconds, CREATIONS, sizeof *seconds, compare_times);
    return seconds[CREATIONS / 2] * 1e6;
}

/* As by default where nothing is limited. */
static vmk_heap *create_64(const vmk_heap_options *options, vmk_heap_stats *stats)
{
    vmk_heap *heap;
    bench_must(vmk_heap_create(&heap, options));
    vmk_heap_stats_now(heap, stats);
    if (stats->layout != VMK_LAYOUT_64)
        bench_fail("not the 64-bit layout: is the process limited?");
    return heap;
}

/* What making a heap costs, by the size of its window. The first one is not timed: it probes the system. */
static void init(const char *variant, size_t window)
{
    (void)variant;
    static double create[CREATIONS], destroy[CREATIONS];
    vmk_heap_options options = {.window = window};
    vmk_heap_stats stats;
    vmk_heap *heap = create_64(&options, &stats);
    vmk_heap_destroy(heap);
    for (size_t i = 0; i < CREATIONS; i++) {
        double start = bench_now();
        bench_must(vmk_heap_create(&heap, &options));
        double middle = bench_now();
        vmk_heap_destroy(heap);
        create[i] = middle - start;
        destroy[i] = bench_now() - middle;
    }
    printf("create %.4f\ndestroy %.4f\ncommitted %zu\n", median_us(create), median_us(destroy), stats.committed);
}

/* Marks for whoever traces the system calls: a write that does nothing but fail. */
static void mark(const char *text)
{
    ssize_t none = write(-1, text, strlen(text));
    (void)none;
}

/* The first creation of a process, between two marks. See system_calls in bench/launch.py. */
static void calls(const char *variant, size_t window)
{
    (void)variant;
    vmk_heap_options options = {.window = window};
    vmk_heap *heap;
    mark("begin");
    vmk_status status = vmk_heap_create(&heap, &options);
    mark("end");
    bench_must(status);
}

/* --- warm ------------------------------------------------------------------------------------------------------- */

/* Touch and give back as much memory as any variant will need: see warm in bench/table.c. Page by page, and again as
 * huge pages, which the kernel takes from elsewhere. */
static void warm(const char *variant, size_t size)
{
    (void)variant;
    size_t most = size + size / 4;
    void *base = bench_map(most);
    bench_touch(base, most);
    munmap(base, most);
    base = bench_map(most);
    madvise(base, most, MADV_HUGEPAGE); /* where there are none, nothing is to be warmed */
    bench_touch(base, most);
}

/* --- all -------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(const char *variant, size_t number);
} workloads[] = {{"init", init},
                 {"calls", calls},
                 {"lookup", bench_heap_lookup},
                 {"pages", bench_heap_pages},
                 {"ladder", bench_heap_ladder},
                 {"growth", bench_heap_growth},
                 {"mappings", bench_heap_mappings},
                 {"warm", warm}};

int main(int argc, char **argv)
{
    size_t number = argc == 4 ? (size_t)strtoull(argv[3], NULL, 10) : 0;
    if (number == 0)
        bench_fail("usage: bench_heap WORKLOAD VARIANT NUMBER");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(argv[1], workloads[i].name) == 0) {
            workloads[i].run(argv[2], number);
            return 0;
        }
    }
    bench_fail("no such workload");
}
