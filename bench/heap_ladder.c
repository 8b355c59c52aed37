/* SPDX-License-Identifier: MIT
 *
 * The ladder of block sizes: 128 MiB in blocks of 1 MiB, all freed; the same in blocks of 2, 4 ... 64 MiB; then small
 * blocks come and go, 8 MiB of them at a time; then 100 MiB are wanted in one block. It was this ladder that showed in
 * 2013 that a heap had stopped merging free spans.
 *
 * What is compared with peers is what the system counts as private and writable (VmData), less what there was at the
 * start: memory that the allocator has got and may use, be it touched or not, and that is not unmapped or made
 * inaccessible. Memory that was discarded (MADV_DONTNEED, MADV_FREE) still counts there, for all alike; so the peak of
 * resident memory is told too, and every block is touched, page by page, to make that mean something.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "heap.h"

enum { RUNG_MIB = 128, LAST_MIB = 100, CHURN_PAGES = 8, CHURN_LIVE = 228, CHURN_OPERATIONS = 100000 };

static vmk_heap *heap; /* NULL: malloc */

static void *take(size_t size)
{
    void *block;
    if (heap != NULL) {
        vmk_span *span;
        bench_must(vmk_span_alloc(heap, size / VMK_HEAP_PAGE_SIZE, 0, 0, &span));
        block = span->base;
    } else {
        block = malloc(size);
        if (block == NULL)
            bench_fail("malloc failed");
    }
    bench_touch(block, size);
    return block;
}

static void give(void *block)
{
    if (heap != NULL)
        vmk_span_free(heap, vmk_span_of(heap, block));
    else
        free(block);
}

/* --- what the system counts -------------------------------------------------------------------------------------- */

/* A field of /proc/self/status, in bytes. Read without stdio, which would allocate. */
static size_t status_field(const char *name)
{
    static char text[8192];
    int file = open("/proc/self/status", O_RDONLY);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (length <= 0)
        bench_fail("can't read /proc/self/status");
    close(file);
    text[length] = '\0';
    const char *field = strstr(text, name);
    if (field == NULL)
        bench_fail("a field is missing in /proc/self/status");
    return (size_t)strtoull(field + strlen(name), NULL, 10) * BENCH_KIB;
}

typedef struct peaks {
    size_t data;
    size_t arena;
} peaks;

static void sample(peaks *peak)
{
    size_t data = status_field("VmData:");
    peak->data = data > peak->data ? data : peak->data;
    if (heap != NULL) {
        vmk_heap_stats stats;
        vmk_heap_stats_now(heap, &stats);
        size_t arena = stats.part[VMK_HEAP_ARENA].committed;
        peak->arena = arena > peak->arena ? arena : peak->arena;
    }
}

/* --- the workload ------------------------------------------------------------------------------------------------ */

static void climb(size_t rung, peaks *peak)
{
    static void *blocks[RUNG_MIB];
    for (size_t size = BENCH_MIB; size <= rung / 2; size *= 2) {
        for (size_t i = 0; i < rung / size; i++)
            blocks[i] = take(size);
        sample(peak);
        for (size_t i = 0; i < rung / size; i++)
            give(blocks[i]);
    }
}

/* Answers the bytes that stay in use. */
static size_t churn(peaks *peak)
{
    static void *blocks[CHURN_LIVE];
    static size_t sizes[CHURN_LIVE];
    uint64_t random = BENCH_SEED;
    size_t in_use = 0;
    for (size_t i = 0; i < CHURN_OPERATIONS; i++) {
        size_t slot = bench_random(&random) % CHURN_LIVE;
        if (blocks[slot] != NULL)
            give(blocks[slot]);
        in_use -= sizes[slot];
        sizes[slot] = (1 + (bench_random(&random) >> 20) % CHURN_PAGES) * VMK_HEAP_PAGE_SIZE;
        blocks[slot] = take(sizes[slot]);
        in_use += sizes[slot];
        if (i % 1000 == 0)
            sample(peak);
    }
    return in_use;
}

void bench_heap_ladder(const char *variant, size_t rung)
{
    if (rung != RUNG_MIB * BENCH_MIB)
        bench_fail("the ladder's rungs are of 128 MiB");
    size_t data = status_field("VmData:"), resident = status_field("VmRSS:");
    peaks peak = {0, 0};
    if (strcmp(variant, "heap") == 0)
        bench_must(vmk_heap_create(&heap, NULL));
    else if (strcmp(variant, "malloc") != 0)
        bench_fail("no such variant of ladder");
    climb(rung, &peak);
    size_t in_use = churn(&peak);
    in_use += LAST_MIB * BENCH_MIB;
    void *last = take(LAST_MIB * BENCH_MIB);
    sample(&peak);
    printf("data %.3f\n", (double)(peak.data - data) / (double)BENCH_MIB);
    printf("resident %.3f\n", (double)(status_field("VmHWM:") - resident) / (double)BENCH_MIB);
    printf("waste %.4f\n", (double)(status_field("VmData:") - data) / (double)in_use);
    if (heap != NULL)
        printf("arena %.3f\n", (double)peak.arena / (double)BENCH_MIB);
    give(last);
}
