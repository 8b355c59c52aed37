/* SPDX-License-Identifier: MIT
 *
 * Random freeing and allocating of 1 to 256 pages while many free runs stand. The runs are of one page, with a page in
 * use between any two, so an allocator that looks at them one by one looks at them all. The spans that are freed and
 * allocated lie behind the runs ("heap", "tree"), or in between, evenly spread ("heap-spread", "tree-spread").
 */
#include <string.h>

#include "bench.h"
#include "heap.h"

enum { LIVE = 1000, SIZES = 256, OPERATIONS = 1 << 18, WARM_UP = 1 << 14 };

typedef struct page_source {
    uintptr_t (*take)(size_t pages);
    void (*give)(uintptr_t handle, size_t pages);
    size_t (*runs)(void); /* how many free runs there are */
} page_source;

typedef struct live_span {
    uintptr_t handle;
    size_t pages;
} live_span;

/* --- the heap as a source of pages ------------------------------------------------------------------------------- */

static vmk_heap *heap;

static uintptr_t heap_take(size_t pages)
{
    vmk_span *span;
    bench_must(vmk_span_alloc(heap, pages, 0, 0, &span));
    return (uintptr_t)span;
}

static void heap_give(uintptr_t handle, size_t pages)
{
    (void)pages;
    vmk_span_free(heap, (vmk_span *)handle);
}

static bool count_free(void *context, const vmk_range *range)
{
    if (range->use == VMK_RANGE_IDLE)
        ++*(size_t *)context;
    return true;
}

static size_t heap_runs(void)
{
    size_t count = 0;
    vmk_heap_walk(heap, count_free, &count);
    return count;
}

static const page_source heap_source = {heap_take, heap_give, heap_runs};
static const page_source tree_source = {bench_tree_take, bench_tree_give, bench_tree_runs};

/* --- the workload ------------------------------------------------------------------------------------------------ */

static size_t random_pages(uint64_t *random)
{
    return 1 + (bench_random(random) >> 20) % SIZES;
}

static live_span take_random(const page_source *source, uint64_t *random)
{
    live_span span = {.pages = random_pages(random)};
    span.handle = source->take(span.pages);
    return span;
}

/* Make `runs` free runs of a page, and the spans to be worked on. A single page in use is on either side of each. */
static void prefill(const page_source *source, size_t runs, bool spread, live_span *live, uint64_t *random)
{
    uintptr_t *holes = bench_map(runs * sizeof *holes);
    size_t placed = 0;
    for (size_t i = 0; i < runs; i++) {
        holes[i] = source->take(1);
        source->take(1);
        for (; spread && placed * runs < (i + 1) * LIVE; placed++) {
            live[placed] = take_random(source, random);
            source->take(1);
        }
    }
    for (; placed < LIVE; placed++)
        live[placed] = take_random(source, random);
    for (size_t i = 0; i < runs; i++)
        source->give(holes[i], 1);
    munmap(holes, runs * sizeof *holes);
}

static void work(const page_source *source, live_span *live, size_t operations, uint64_t *random)
{
    for (size_t i = 0; i < operations; i++) {
        live_span *span = &live[bench_random(random) % LIVE];
        source->give(span->handle, span->pages);
        *span = take_random(source, random);
    }
}

void bench_heap_pages(const char *variant, size_t free_runs)
{
    static live_span live[LIVE];
    uint64_t random = BENCH_SEED;
    const page_source *source = strncmp(variant, "heap", 4) == 0 ? &heap_source : &tree_source;
    if (source == &heap_source) {
        vmk_heap_options options = {.layout = VMK_LAYOUT_64, .window = 100 * BENCH_GIB};
        bench_must(vmk_heap_create(&heap, &options));
    }
    prefill(source, free_runs, strstr(variant, "-spread") != NULL, live, &random);
    work(source, live, WARM_UP, &random);
    double start = bench_now();
    work(source, live, OPERATIONS, &random);
    double end = bench_now();
    printf("ns %.4f\nruns %zu\n", (end - start) * 1e9 / OPERATIONS, source->runs());
}
