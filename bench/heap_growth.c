/* SPDX-License-Identifier: MIT
 *
 * Growing: what it costs to get memory and touch it, beside plain mappings of the same memory; and how many mappings
 * the kernel keeps for a heap that has grown, was freed in part, gave back what was free, and grew again.
 */
#include <string.h>

#include "bench.h"
#include "heap.h"

enum { STEP_PAGES = 128 }; /* of a mebibyte */
#define HUGE_SIZE (2 * BENCH_MIB)

/* --- growth ------------------------------------------------------------------------------------------------------ */

static void advise_huge(void *base, size_t size)
{
    if (madvise(base, size, MADV_HUGEPAGE) != 0)
        bench_fail("madvise failed");
}

/* A growth hook. */
static vmk_status grown_huge(void *context, void *base, size_t size)
{
    (void)context;
    advise_huge(base, size);
    return VMK_OK;
}

static void grow_heap(size_t size, size_t pages, const vmk_heap_options *options)
{
    vmk_heap *heap;
    bench_must(vmk_heap_create(&heap, options));
    for (size_t grown = 0; grown < size; grown += pages * VMK_HEAP_PAGE_SIZE) {
        vmk_span *span;
        bench_must(vmk_span_alloc(heap, pages, 0, 0, &span));
        bench_touch(span->base, pages * VMK_HEAP_PAGE_SIZE);
    }
}

static void grow_mappings(size_t size, size_t step)
{
    for (size_t grown = 0; grown < size; grown += step)
        bench_touch(bench_map(step), step);
}

static void grow_mapping_huge(size_t size)
{
    uintptr_t base = (uintptr_t)bench_map(size + HUGE_SIZE);
    void *aligned = (void *)((base + HUGE_SIZE - 1) / HUGE_SIZE * HUGE_SIZE);
    advise_huge(aligned, size);
    bench_touch(aligned, size);
}

void bench_heap_growth(const char *variant, size_t size)
{
    const vmk_heap_options huge = {.step = 2 * HUGE_SIZE, .on_grow = grown_huge};
    double start = bench_now();
    if (strcmp(variant, "heap") == 0)
        grow_heap(size, STEP_PAGES, NULL);
    else if (strcmp(variant, "heap-page") == 0)
        grow_heap(size, 1, NULL);
    else if (strcmp(variant, "heap-huge") == 0)
        grow_heap(size, STEP_PAGES, &huge);
    else if (strcmp(variant, "mmap-huge") == 0)
        grow_mapping_huge(size);
    else if (strcmp(variant, "mmap") == 0)
        grow_mappings(size, size);
    else if (strcmp(variant, "mmap-steps") == 0)
        grow_mappings(size, STEP_PAGES * VMK_HEAP_PAGE_SIZE);
    else
        bench_fail("no such variant of growth");
    double end = bench_now();
    printf("ms %.4f\n", (end - start) * 1e3 * (double)BENCH_GIB / (double)size);
}

/* --- mappings ---------------------------------------------------------------------------------------------------- */

static bench_mappings count_of_heap(vmk_heap *heap)
{
    uintptr_t low = UINTPTR_MAX, high = 0;
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    for (int i = 0; i < VMK_HEAP_PARTS; i++) {
        uintptr_t base = stats.part[i].base, end = base + stats.part[i].reserved;
        low = base < low && base != 0 ? base : low;
        high = end > high && base != 0 ? end : high;
    }
    return bench_count_mappings(low, high);
}

static void note(bench_mappings *most, vmk_heap *heap)
{
    bench_mappings count = count_of_heap(heap);
    most->all = count.all > most->all ? count.all : most->all;
    most->inside = count.inside > most->inside ? count.inside : most->inside;
}

/* Fill the slots that are empty with touched spans of 1 to 16 pages. */
static void fill(vmk_heap *heap, vmk_span **spans, size_t count, uint64_t *random)
{
    for (size_t i = 0; i < count; i++) {
        if (spans[i] != NULL)
            continue;
        bench_must(vmk_span_alloc(heap, 1 + (bench_random(random) >> 20) % 16, 0, 0, &spans[i]));
        bench_touch(spans[i]->base, spans[i]->pages * VMK_HEAP_PAGE_SIZE);
    }
}

void bench_heap_mappings(const char *variant, size_t size)
{
    vmk_heap_options options = {.layout = VMK_LAYOUT_64};
    vmk_heap *heap;
    uint64_t random = BENCH_SEED;
    bench_mappings most = {0, 0};
    size_t count = size / (VMK_HEAP_PAGE_SIZE * 17 / 2);
    vmk_span **spans = bench_map(count * sizeof *spans);
    if (strcmp(variant, "decommit") == 0)
        options.flags = VMK_HEAP_DECOMMIT;
    else if (strcmp(variant, "heap") != 0)
        bench_fail("no such variant of mappings");
    size_t before = bench_count_mappings(0, 0).all;
    bench_must(vmk_heap_create(&heap, &options));
    fill(heap, spans, count, &random);
    note(&most, heap);
    size_t returned = 0;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++) {
            if (bench_random(&random) >> 63 != 0) {
                vmk_span_free(heap, spans[i]);
                spans[i] = NULL;
            }
        }
        returned += vmk_heap_scavenge(heap, SIZE_MAX);
        note(&most, heap);
        fill(heap, spans, count, &random);
        note(&most, heap);
    }
    printf("inside %zu\nmore %zu\nreturned %zu\n", most.inside, most.all - before, returned);
}
