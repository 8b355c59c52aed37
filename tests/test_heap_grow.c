/* SPDX-License-Identifier: MIT
 *
 * How a heap grows: in its arena, by an extension, elsewhere; past what is somebody else's, with a hook that looks and
 * one that refuses, under quotas, and until the window is full. Layouts are in test_heap_layout.c, calls that fail one
 * by one in test_heap_faults.c.
 */
#include <string.h>

#include "common/heap/heap.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

#define PAGE VMK_HEAP_PAGE_SIZE
#define CHUNK VMKI_CHUNK_PAGES
#define MIB ((size_t)1 << 20)
#define QUANTUM_PAGES (VMKI_QUANTUM >> VMK_HEAP_PAGE_SHIFT)

static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* --- heaps ------------------------------------------------------------------------------------------------------ */

/* On the model the layout of 32 bits begins with a small region, so that it has to get others; and the heap lies in the
 * middle of the address space. */
static vmk_heap *heap_make(vmk_heap_options options)
{
    vmk_heap *heap = NULL;
#ifdef VMKIT_MODEL
    vmki_heap_plan plan;
    model_rules rules = {0};
    if (options.layout == VMK_LAYOUT_32) {
        ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_32, (uint64_t)1 << (32 - VMK_HEAP_PAGE_SHIFT), SIZE_MAX));
        rules.address_space = model_reserved() + plan.total + 4 * MIB + VMKI_QUANTUM;
    }
    if (options.hint == 0)
        options.hint = vmki_ceil((uintptr_t)model_base() + 64 * MIB, VMKI_CHUNK_SIZE);
    model_reset(&rules);
#endif
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
#ifdef VMKIT_MODEL
    model_reset(NULL);
#endif
    return heap;
}

static void heap_end(vmk_heap *heap)
{
    ck_assert(vmki_heap_check(heap));
    vmk_heap_destroy(heap);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

static vmk_span *take(vmk_heap *heap, size_t pages)
{
    vmk_span *span = NULL;
    ck_assert_int_eq(vmk_span_alloc(heap, pages, 0, 0, &span), VMK_OK);
    return span;
}

static vmk_heap_stats stats_of(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats;
}

static size_t grown_of(const vmk_heap_stats *stats)
{
    return (stats->in_use + stats->idle + stats->released) / PAGE;
}

/* Nothing has happened, as far as figures tell. */
static void must_be_as_before(vmk_heap *heap, const vmk_heap_stats *before)
{
    vmk_heap_stats now = stats_of(heap);
    MUST(now.reserved == before->reserved && now.committed == before->committed && now.regions == before->regions);
    MUST(now.in_use == before->in_use && now.idle == before->idle && now.released == before->released);
    MUST(now.spans == before->spans && now.grow_count == before->grow_count);
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++)
        MUST(now.part[part].committed == before->part[part].committed);
    MUST(vmki_heap_check(heap));
}

static uintptr_t arena_begin(const vmk_heap *heap, const vmki_arena *arena)
{
    return heap->origin + arena->first * PAGE;
}

static uintptr_t arena_end(const vmk_heap *heap, const vmki_arena *arena)
{
    return arena_begin(heap, arena) + arena->pages * PAGE;
}

/* --- in the arena ----------------------------------------------------------------------------------------------- */

/* Each growth is as much as is needed, or the step; the tables are what that takes, and stay where they are. */
START_TEST(tables_follow_the_ladder)
{
    static const size_t ladder[] = {1, 1, 6, 1, 8, 9, 2, 100, 64, 511, 512, 513, 1, 3, 300, 1024, 1};
    const size_t steps[] = {1, VMKI_QUANTUM, 4 * VMKI_QUANTUM};
    vmk_heap *heap = heap_make((vmk_heap_options){.layout = VMK_LAYOUT_64, .window = 32 * MIB, .step = steps[_i % 3]});
    const vmk_heap view = *heap;
    const size_t step = vmki_ceil(steps[_i % 3], VMKI_QUANTUM) / PAGE;
    size_t grown = 0, in_use = 0;
    uint64_t growths = 0;
    for (size_t i = 0; i < sizeof ladder / sizeof ladder[0]; i++) {
        size_t idle = grown - in_use;
        vmk_span *span = take(heap, ladder[i]);
        if (ladder[i] > idle) {
            size_t need = vmki_ceil(ladder[i] - idle, QUANTUM_PAGES);
            grown += need > step ? need : step;
            growths++;
        }
        ck_assert_uint_eq((uintptr_t)span->base, heap->origin + in_use * PAGE);
        in_use += ladder[i];
        vmk_heap_stats stats = stats_of(heap);
        ck_assert_uint_eq(stats.grow_count, growths);
        ck_assert_uint_eq(heap->limit, grown);
        ck_assert_uint_eq(stats.part[VMK_HEAP_ARENA].committed, grown * PAGE);
        ck_assert_uint_eq(stats.part[VMK_HEAP_SPANS].committed, vmk_page_ceil((grown + 1) * 4) +
                                                                    vmk_page_ceil(grown + 1) +
                                                                    vmk_page_ceil((grown + 1) * sizeof(uintptr_t)));
        ck_assert_uint_ge(stats.part[VMK_HEAP_PAGES].committed, vmki_ceil(grown, CHUNK) / CHUNK * sizeof(vmki_chunk));
        ck_assert_uint_eq(heap->origin, view.origin);
        ck_assert_ptr_eq(heap->spans, view.spans);
        ck_assert_ptr_eq(heap->records, view.records);
    }
    heap_end(heap);
}
END_TEST

/* --- the hook --------------------------------------------------------------------------------------------------- */

enum { RANGES = 400 };

typedef struct watcher {
    vmk_heap *heap;
    uintptr_t base[RANGES]; /* of what was accepted */
    size_t size[RANGES];
    size_t count;
    size_t sum;
    size_t calls;
    uint32_t refuse; /* calls, by bit; the last bit stands for all others */
    size_t refuse_above;
    vmk_status code;
    const char *wrong; /* nothing is asserted under the heap's lock */
} watcher;

static bool found_early(const vmk_heap *heap, uintptr_t base, size_t size)
{
    for (uintptr_t at = base; at < base + size; at += PAGE)
        if (vmk_span_find(heap, at) != NULL || vmk_span_find(heap, at + PAGE - 1) != NULL)
            return true;
    return false;
}

/* Entries must be there to be read, the memory to be written, and nobody must know. */
static const char *look(const watcher *w, uintptr_t base, size_t size)
{
    const vmk_heap *heap = w->heap;
    size_t first = (base - heap->origin) / PAGE, pages = size / PAGE;
    bool chunk_is_new = true;
    for (size_t i = 0; i < w->count; i++) {
        if (base < w->base[i] + w->size[i] && w->base[i] < base + size)
            return "the range was told before";
        size_t low = (w->base[i] - heap->origin) / PAGE / CHUNK;
        size_t high = ((w->base[i] - heap->origin + w->size[i]) / PAGE - 1) / CHUNK;
        if (low <= first / CHUNK && first / CHUNK <= high)
            chunk_is_new = false;
    }
    if (size == 0 || size % VMKI_QUANTUM != 0)
        return "not a range of whole quanta";
    if (found_early(heap, base, size))
        return "found before it was published";
    if (heap->present == NULL ? heap->limit != first
                              : chunk_is_new && (heap->present[first / CHUNK / 32] >> first / CHUNK % 32 & 1) != 0)
        return "published before the hook was asked";
    for (size_t i = first; i < first + pages; i++)
        if (heap->spans[i] != 0 || heap->classes[i] != 0)
            return "entries are not zero";
    *(volatile unsigned char *)base = 0;
    *(volatile unsigned char *)(base + size - 1) = 0;
    return NULL;
}

static vmk_status watch(void *context, void *base, size_t size)
{
    watcher *w = context;
    size_t call = w->calls++;
    const char *wrong = look(w, (uintptr_t)base, size);
    if (wrong != NULL)
        w->wrong = wrong;
    if ((w->refuse >> vmki_min(call, 31) & 1) != 0 || (w->refuse_above != 0 && size > w->refuse_above))
        return w->code;
    if (w->count == RANGES)
        return VMK_ERR_LIMIT;
    w->base[w->count] = (uintptr_t)base;
    w->size[w->count++] = size;
    w->sum += size;
    return VMK_OK;
}

static vmk_heap *heap_watched(watcher *w, vmk_layout layout, size_t step)
{
    *w = (watcher){.code = VMK_ERR_UNSUPPORTED}; /* which the heap has no use for */
    w->heap = heap_make(
        (vmk_heap_options){.layout = layout, .window = 32 * MIB, .step = step, .on_grow = watch, .on_grow_context = w});
    return w->heap;
}

static void must_agree(const watcher *w)
{
    vmk_heap_stats stats = stats_of(w->heap);
    ck_assert_msg(w->wrong == NULL, "%s", w->wrong);
    ck_assert_uint_eq(w->count, stats.grow_count);
    ck_assert_uint_eq(w->sum, grown_of(&stats) * PAGE);
}

static watcher watched;

/* The seed moved its bound first, and readers ran into tables that were not there. */
START_TEST(seed_defect_4_the_hook_comes_before_publication)
{
    vmk_heap *heap = heap_watched(&watched, layouts[_i], 0);
    for (size_t i = 0; i < 70; i++) {
        (void)take(heap, 1 + i * 7 % 90);
        must_agree(&watched);
    }
    vmk_span *last = take(heap, 1);
    vmk_status status = vmk_span_resize(heap, last, 1 + (heap->present == NULL ? 200 : 4));
    ck_assert(status == VMK_OK || (status == VMK_ERR_TAKEN && heap->present != NULL)); /* a region may end there */
    must_agree(&watched);
    ck_assert_uint_ge(watched.count, 3);
    heap_end(heap);
}
END_TEST

/* What the hook answers is what the caller gets, nothing has happened, and the next try works. */
START_TEST(a_hook_that_refuses)
{
    vmk_heap *heap = heap_watched(&watched, layouts[_i], 0);
    vmk_span mark, *span = &mark;
    watched.refuse = UINT32_MAX;
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_ERR_UNSUPPORTED);
    /* Tables with holes have records of what is ready, which stay. */
    for (size_t round = 0; round < 12; round++) {
        span = &mark;
        vmk_heap_stats before = stats_of(heap);
        size_t pages = before.idle / PAGE + 1 + round * 30;
        watched.refuse = UINT32_MAX;
        ck_assert_int_eq(vmk_span_alloc(heap, pages, 0, VMK_SPAN_MARKS, &span), VMK_ERR_UNSUPPORTED);
        ck_assert_ptr_eq(span, &mark);
        must_be_as_before(heap, &before);
        must_agree(&watched);
#ifdef VMKIT_MODEL
        vmk_stats all;
        vmk_stats_now(&all);
        ck_assert_uint_eq(model_reserved(), before.reserved + all.overhead);
#endif
        watched.refuse = 0;
        ck_assert_int_eq(vmk_span_alloc(heap, pages, 0, VMK_SPAN_MARKS, &span), VMK_OK);
        must_agree(&watched);
        if (heap->present != NULL)
            continue;
        before = stats_of(heap);
        watched.refuse = UINT32_MAX;
        ck_assert_int_eq(vmk_span_resize(heap, span, pages + before.idle / PAGE + 1), VMK_ERR_UNSUPPORTED);
        ck_assert_uint_eq(span->pages, pages);
        must_be_as_before(heap, &before);
    }
    heap_end(heap);
}
END_TEST

/* Ahead of need is a wish: what is needed is asked for again. */
START_TEST(a_hook_that_refuses_large_steps)
{
    vmk_heap *heap = heap_watched(&watched, layouts[_i], 512 << 10);
    for (size_t pages = QUANTUM_PAGES; pages < 56; pages += QUANTUM_PAGES) {
        size_t sum = watched.sum;
        watched.refuse_above = pages * PAGE;
        (void)take(heap, pages);
        must_agree(&watched);
        ck_assert_uint_le(watched.sum - sum, 2 * pages * PAGE); /* at the end of a region, of two */
        ck_assert(heap->present != NULL || watched.sum - sum == pages * PAGE);
        size_t idle = stats_of(heap).idle / PAGE;
        watched.refuse_above = 0;
        if (idle > 0)
            (void)take(heap, idle);
    }
    heap_end(heap);
}
END_TEST

/* Whichever calls are refused, no range is empty, none is told twice, and the sum is what has grown: where the rest of
 * a region is exactly what is needed, too. */
START_TEST(any_refusals)
{
    const uint32_t step = layouts[_i] == VMK_LAYOUT_32 ? 7 : 1; /* its tables are large */
    for (uint32_t mask = 0; mask < 64; mask += step)
        for (size_t left = 0; left <= 2 * QUANTUM_PAGES; left += QUANTUM_PAGES) {
            vmk_heap *heap = heap_watched(&watched, layouts[_i], VMKI_QUANTUM);
            vmk_span *span = NULL;
            if (layouts[_i] == VMK_LAYOUT_LIMITED)
                (void)take(heap, vmki_heap_arenas(vmki_heap_of(heap))->pages - left);
            else
                (void)take(heap, left + 1);
            watched.calls = 0;
            watched.refuse = mask;
            vmk_status status = vmk_span_alloc(heap, QUANTUM_PAGES, 0, 0, &span);
            ck_assert(status == VMK_OK || (mask != 0 && status == VMK_ERR_UNSUPPORTED));
            must_agree(&watched);
            watched.refuse = 0;
            (void)take(heap, QUANTUM_PAGES);
            must_agree(&watched);
            heap_end(heap);
        }
}
END_TEST

/* --- elsewhere -------------------------------------------------------------------------------------------------- */

/* Somebody else is right behind: the next region lies beyond a hole, which has no entries and takes no memory for them.
 */
START_TEST(a_hole_has_no_entries)
{
#ifdef VMKIT_MODEL
    const size_t window = 64 * MIB, hole = 32 * MIB;
#else
    const size_t window = 512 * MIB, hole = 128 * MIB;
#endif
    vmk_heap *heap = heap_make((vmk_heap_options){.layout = VMK_LAYOUT_LIMITED, .window = window});
    const vmki_heap *inside = vmki_heap_of(heap);
    const vmki_arena *arenas = vmki_heap_arenas(inside);
    vmk_region foreign;
    uintptr_t end = arena_end(heap, &arenas[0]);
    vmk_reserve_options how = {.hint = (const void *)end, .flags = VMK_RESERVE_EXACT};
    if (vmk_reserve(&foreign, hole, &how) == VMK_OK) { /* else somebody else is there already */
        while (inside->arena_count < 2)
            (void)take(heap, 20);
        ck_assert_uint_le(arena_end(heap, &arenas[0]), arena_begin(heap, &arenas[1]));
        size_t low = arenas[0].first + arenas[0].pages, high = arenas[1].first;
        ck_assert_uint_lt(high, inside->plan.window_pages);
        for (size_t page = low; page < high; page++)
            MUST(vmk_span_find(heap, heap->origin + page * PAGE) == NULL);
        for (size_t chunk = vmki_ceil(low, CHUNK) / CHUNK; chunk < high / CHUNK; chunk++)
            MUST((heap->present[chunk / 32] >> chunk % 32 & 1) == 0);
        if (high - low > vmk_page_size()) /* four pages of entries, and tables come by the page */
            ck_assert(!vmk_table_is_ready(&inside->spans, 0, low + (high - low) / 2));
        ck_assert_uint_le(stats_of(heap).part[VMK_HEAP_SPANS].committed, 16 * vmk_page_size());
        vmk_release(&foreign);
    }
    heap_end(heap);
}
END_TEST

#ifdef VMKIT_MODEL

/* In small steps. */
static vmk_heap *heap_in_layout(vmk_layout layout)
{
    return heap_make((vmk_heap_options){.layout = layout, .window = 32 * MIB, .step = VMKI_QUANTUM});
}

/* --- nothing is left -------------------------------------------------------------------------------------------- */

static vmk_stats ledger_open(void)
{
    vmk_stats now;
    vmk_stats_now(&now);
    return now;
}

static void ledger_close(const vmk_stats *book)
{
    vmk_stats now;
    vmk_stats_now(&now);
    ck_assert_uint_eq(now.regions, book->regions);
    ck_assert_uint_eq(now.reserved, book->reserved);
    ck_assert_uint_eq(now.committed, book->committed);
    ck_assert_uint_eq(model_reserved(), now.reserved + now.overhead);
    ck_assert_uint_eq(model_committed(), now.committed + now.overhead);
}

/* All that is reserved is the heap's, or the vm layer's own. */
static void must_own_all(vmk_heap *heap, const vmk_stats *book)
{
    vmk_stats now;
    vmk_heap_stats stats = stats_of(heap);
    vmk_stats_now(&now);
    MUST(now.reserved - book->reserved == stats.reserved && now.regions - book->regions == stats.regions);
    MUST(now.committed - book->committed == stats.committed);
    MUST(model_reserved() == now.reserved + now.overhead && model_committed() == now.committed + now.overhead);
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

START_TEST(what_fits_makes_no_call)
{
    vmk_heap *heap = heap_in_layout(layouts[_i]);
    vmk_span *spans[8], *again;
    for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(vmk_span_alloc(heap, 10 + i, 0, VMK_SPAN_MARKS, &spans[i]), VMK_OK);
    for (size_t i = 0; i < 8; i += 2)
        vmk_span_free(heap, spans[i]);
    uint64_t calls = model_fallible_calls();
    for (size_t i = 0; i < 1000; i++) {
        ck_assert_int_eq(vmk_span_alloc(heap, 1 + i % 10, 0, VMK_SPAN_MARKS | VMK_SPAN_ZERO, &again), VMK_OK);
        ck_assert_int_eq(vmk_span_resize(heap, again, 10), VMK_OK);
        vmk_span_free(heap, again);
    }
    ck_assert_uint_eq(model_fallible_calls(), calls);
    heap_end(heap);
}
END_TEST

/* --- extension -------------------------------------------------------------------------------------------------- */

/* Nobody is behind: the next region goes on where the last one ends, and a span lies across. */
START_TEST(an_extension_leaves_no_gap)
{
    vmk_stats book = ledger_open();
    vmk_heap *heap = heap_in_layout(layouts[_i]);
    const vmki_heap *inside = vmki_heap_of(heap);
    const vmki_arena *arenas = vmki_heap_arenas(inside);
    size_t first = arenas[0].pages;
    vmk_span *low = take(heap, first - 5), *across = take(heap, 700);
    ck_assert_uint_eq((uintptr_t)across->base, (uintptr_t)low->base + low->pages * PAGE);
    ck_assert_uint_eq(inside->arena_count, 2);
    ck_assert_uint_eq(arena_begin(heap, &arenas[1]), arena_end(heap, &arenas[0]));
    ck_assert_uint_eq(arenas[0].grown, first);
    memset(across->base, 0xa5, across->pages * PAGE);
    for (size_t i = 0; i < across->pages; i++)
        MUST(vmk_span_find(heap, (uintptr_t)across->base + i * PAGE) == across);
    must_own_all(heap, &book);
    heap_end(heap);
    ledger_close(&book);
}
END_TEST

/* --- foreign memory --------------------------------------------------------------------------------------------- */

enum { FILL = 0x5a, PLANTS = 4 };

static bool plants_intact(unsigned char *const *plants)
{
    for (size_t i = 0; i < PLANTS; i++)
        if (plants[i] != NULL && !model_planted_intact(plants[i], VMKI_QUANTUM, FILL))
            return false;
    return true;
}

/* Right behind the first region, and further on: the heap goes around. */
START_TEST(foreign_memory_is_never_touched)
{
    vmk_stats book = ledger_open();
    vmk_heap *heap = heap_in_layout(layouts[_i]);
    const vmki_heap *inside = vmki_heap_of(heap);
    unsigned char *plants[PLANTS];
    uintptr_t end = arena_end(heap, vmki_heap_arenas(inside));
    for (size_t i = 0; i < PLANTS; i++) {
        plants[i] = (unsigned char *)(end + i * i * 3 * MIB);
        if (!model_plant(plants[i], VMKI_QUANTUM, FILL))
            plants[i] = NULL;
    }
    ck_assert_ptr_nonnull(plants[0]);
    vmk_status status = VMK_OK;
    for (size_t i = 0; i < 1000 && stats_of(heap).in_use < 40 * MIB && status == VMK_OK; i++) {
        vmk_span *span;
        status = vmk_span_alloc(heap, 1 + i * 13 % 60, 0, VMK_SPAN_ZERO, &span);
        if (status == VMK_OK) {
            MUST(span->base[0] == 0 && memcmp(span->base, span->base + 1, span->pages * PAGE - 1) == 0);
            memset(span->base, 0xa5, span->pages * PAGE);
        }
        must_own_all(heap, &book);
        MUST(plants_intact(plants));
    }
    ck_assert(status == VMK_OK || status == VMK_ERR_LIMIT || status == VMK_ERR_ADDRESS_SPACE);
    ck_assert_uint_gt(stats_of(heap).in_use, 20 * MIB);
    ck_assert_uint_ge(inside->arena_count, 2);
    heap_end(heap);
    ck_assert(plants_intact(plants));
    for (size_t i = 0; i < PLANTS; i++)
        if (plants[i] != NULL)
            model_unplant(plants[i], VMKI_QUANTUM);
    ledger_close(&book);
}
END_TEST

/* Plant whatever is free of a window, or take it away again. */
static void window_fill(const vmk_heap *heap, bool *planted, bool plant)
{
    uintptr_t base = (uintptr_t)model_base();
    for (size_t i = 0; i < MODEL_MAX_ADDRESS_SPACE / VMKI_QUANTUM; i++) {
        uintptr_t at = base + i * VMKI_QUANTUM;
        if (at < heap->origin || at - heap->origin >= heap->limit * PAGE)
            continue;
        if (plant)
            planted[i] = model_plant((void *)at, VMKI_QUANTUM, FILL);
        else if (planted[i])
            model_unplant((void *)at, VMKI_QUANTUM);
    }
}

/* Reservations that were granted, and those given back, since the record was reset. */
static void count_records(size_t *reserved, size_t *released)
{
    const model_record *records;
    size_t count = model_records(&records);
    *reserved = *released = 0;
    for (size_t i = 0; i < count; i++) {
        *reserved += records[i].call == MODEL_RESERVE && records[i].status == VMK_OK ? records[i].size : 0;
        *released += records[i].call == MODEL_RELEASE ? records[i].size : 0;
    }
}

/* A window around the first region has in it what the system chooses: that is taken as it comes. */
START_TEST(what_lies_inside_is_taken)
{
    vmk_heap *heap = heap_make((vmk_heap_options){.layout = VMK_LAYOUT_LIMITED, .window = 32 * MIB, .hint = 1});
    const vmki_heap *inside = vmki_heap_of(heap);
    void *end = (void *)arena_end(heap, vmki_heap_arenas(inside));
    size_t reserved, released;
    bool planted = model_plant(end, VMKI_QUANTUM, FILL); /* or the tables lie there */
    while (inside->arena_count < 2)
        (void)take(heap, 20);
    count_records(&reserved, &released);
    ck_assert_uint_eq(reserved, vmki_heap_arenas(inside)[inside->recent_arena].pages * PAGE);
    ck_assert_uint_eq(released, 0);
    ck_assert(!planted || model_planted_intact(end, VMKI_QUANTUM, FILL));
    heap_end(heap);
    if (planted)
        model_unplant(end, VMKI_QUANTUM);
}
END_TEST

/* The seed kept what the system gave it elsewhere, and could not use it: here it goes back at once. */
START_TEST(seed_defect_5_what_lies_outside_is_given_back)
{
    static bool planted[MODEL_MAX_ADDRESS_SPACE / VMKI_QUANTUM];
    vmk_stats book = ledger_open();
    vmk_heap *heap = heap_in_layout(VMK_LAYOUT_LIMITED);
    const vmki_heap *inside = vmki_heap_of(heap);
    vmk_span *span;
    (void)take(heap, vmki_heap_arenas(inside)->pages - 3);
    window_fill(heap, planted, true);
    for (size_t pages = 4; pages < 300; pages = pages * 2 + 1) {
        size_t reserved, released;
        model_reset(NULL);
        vmk_heap_stats before = stats_of(heap);
        ck_assert_int_eq(vmk_span_alloc(heap, pages, 0, 0, &span), VMK_ERR_ADDRESS_SPACE);
        count_records(&reserved, &released);
        ck_assert_uint_ge(reserved, pages * PAGE); /* the model has room outside the window */
        ck_assert_uint_eq(reserved, released);
        must_be_as_before(heap, &before);
        must_own_all(heap, &book);
    }
    ck_assert_uint_eq((uintptr_t)take(heap, 3)->base, arena_end(heap, vmki_heap_arenas(inside)) - 3 * PAGE);
    window_fill(heap, planted, false);
    (void)take(heap, 300);
    must_own_all(heap, &book);
    heap_end(heap);
    ledger_close(&book);
}
END_TEST

/* --- quotas ----------------------------------------------------------------------------------------------------- */

enum { SPANS = 512, EACH = 16 };

/* As many spans as the quota has room for. */
static size_t take_all(vmk_heap *heap, vmk_span **spans)
{
    size_t count = 0;
    vmk_status status = VMK_OK;
    while (count < SPANS && (status = vmk_span_alloc(heap, EACH, 0, VMK_SPAN_ZERO, &spans[count])) == VMK_OK) {
        MUST(spans[count]->base[0] == 0 && spans[count]->base[EACH * PAGE - 1] == 0);
        spans[count]->base[0] = spans[count]->base[EACH * PAGE - 1] = (unsigned char)(count | 1);
        count++;
    }
    ck_assert_int_eq(status, VMK_ERR_COMMIT);
    ck_assert(vmki_heap_check(heap));
    for (size_t i = 0; i < count; i++)
        MUST(spans[i]->base[0] == (unsigned char)(i | 1) && spans[i]->base[EACH * PAGE - 1] == (unsigned char)(i | 1));
    return count;
}

/* Strict overcommit: until no more can be committed; what is given back is there for the next. */
START_TEST(a_quota_can_be_used_again)
{
    static vmk_span *spans[SPANS];
    vmk_stats book = ledger_open();
    vmk_heap *heap =
        heap_make((vmk_heap_options){.layout = layouts[_i], .window = 32 * MIB, .flags = VMK_HEAP_DECOMMIT});
    size_t quota = model_committed() + 6 * MIB;
    model_reset(&(model_rules){.commit_quota = quota});
    size_t count = take_all(heap, spans);
    ck_assert_uint_gt(count, 30); /* of 48 */
    for (size_t round = 0; round < 3; round++) {
        must_own_all(heap, &book);
        for (size_t i = 0; i < count; i++)
            vmk_span_free(heap, spans[i]);
        size_t committed = model_committed();
        ck_assert_uint_ge(vmk_heap_scavenge(heap, SIZE_MAX), count * EACH * PAGE);
        ck_assert_uint_le(model_committed(), committed - count * EACH * PAGE);
        ck_assert_uint_eq(stats_of(heap).idle, 0);
        size_t again = take_all(heap, spans);
        ck_assert_uint_ge(again, count);
        count = again;
    }
    model_reset(&(model_rules){.commit_quota = quota + 2 * MIB});
    (void)take(heap, 100);
    must_own_all(heap, &book);
    heap_end(heap);
    ledger_close(&book);
}
END_TEST

/* The seed ended the process. Every quota from nothing on: a status, and nothing is lost. */
START_TEST(seed_defect_8_refusal_is_a_status)
{
    heap_end(heap_in_layout(layouts[_i])); /* what the vm layer keeps for itself is there now */
    vmk_stats book = ledger_open();
    size_t heaps = 0, spans = 0;
    for (size_t more = 0; more < (256 << 10) + 32 * vmk_page_size(); more += vmk_page_size()) {
        vmk_heap *heap = NULL;
        vmk_span *span;
        model_reset(&(model_rules){.commit_quota = model_committed() + more + 1});
        vmk_heap_options options = {.layout = layouts[_i], .window = 32 * MIB};
        vmk_status status = vmk_heap_create(&heap, &options);
        ck_assert(status == VMK_OK || (status == VMK_ERR_COMMIT && heap == NULL));
        for (; status == VMK_OK && spans < 100000; spans += status == VMK_OK) {
            vmk_heap_stats before = stats_of(heap);
            status = vmk_span_alloc(heap, 3, 0, VMK_SPAN_MARKS, &span);
            ck_assert(status == VMK_OK || (status == VMK_ERR_COMMIT && stats_of(heap).in_use == before.in_use));
        }
        if (heap != NULL) {
            must_own_all(heap, &book);
            heap_end(heap);
            heaps++;
        }
        ledger_close(&book);
    }
    ck_assert(heaps > 0 && spans > 0);
}
END_TEST

/* --- full, or refused ------------------------------------------------------------------------------------------- */

/* Where the window has room, the system's answer is what the caller gets; where it has none, that. The rest of the last
 * region is room. */
START_TEST(a_full_window_is_not_a_refusal)
{
    vmk_heap *heap = heap_in_layout(layouts[_i]);
    const vmki_heap *inside = vmki_heap_of(heap);
    size_t all = inside->plan.arena_pages;
    vmk_span *span;
    (void)take(heap, all - 3 * QUANTUM_PAGES);
    while (inside->arena_reserved < all)
        (void)take(heap, 1); /* until the last region is there, and has hardly grown */
    size_t idle = stats_of(heap).idle / PAGE;
    if (idle > 0)
        (void)take(heap, idle);
    for (size_t pages = 1; pages <= QUANTUM_PAGES; pages++) {
        vmk_heap_stats before = stats_of(heap);
        model_reset(&(model_rules){.commit_quota = model_committed()});
        ck_assert_int_eq(vmk_span_alloc(heap, pages, 0, 0, &span), VMK_ERR_COMMIT);
        must_be_as_before(heap, &before);
        model_reset(NULL);
        ck_assert_int_eq(vmk_span_alloc(heap, 4 * QUANTUM_PAGES, 0, 0, &span), VMK_ERR_LIMIT);
        must_be_as_before(heap, &before);
    }
    while (stats_of(heap).in_use < all * PAGE)
        (void)take(heap, 1);
    model_reset(&(model_rules){.commit_quota = model_committed(), .address_space = model_reserved()});
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_ERR_LIMIT);
    model_reset(NULL);
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_ERR_LIMIT);
    heap_end(heap);
}
END_TEST

START_TEST(no_address_space_is_not_a_full_window)
{
    vmk_heap *heap = heap_in_layout(layouts[_i]);
    vmk_span *span;
    (void)take(heap, vmki_heap_arenas(vmki_heap_of(heap))->pages);
    vmk_heap_stats before = stats_of(heap);
    model_reset(&(model_rules){.address_space = model_reserved()});
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_ERR_ADDRESS_SPACE);
    must_be_as_before(heap, &before);
    model_reset(NULL);
    (void)take(heap, 1);
    heap_end(heap);
}
END_TEST

#else

/* --- many ------------------------------------------------------------------------------------------------------- */

/* A million free runs are 16 GiB of memory that nobody touches. Wine and the sanitizers have notes of all of it. */
#if defined(_WIN32) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FEW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FEW 1
#endif
#endif
#ifndef FEW
#define FEW 0
#endif

/* Every page in use, then every other free: that is where the first spans of one and of three must go. */
static void holes_are_used(vmk_heap *heap, size_t runs)
{
    uint64_t growths = stats_of(heap).grow_count;
    vmk_span *one = take(heap, 1);
    ck_assert_uint_eq((uintptr_t)one->base, heap->origin);
    vmk_span_free(heap, one);
    for (size_t i = 1; i < 2 * runs; i = i * 4 + 1) { /* odd: in use, between two that are free */
        vmk_span_free(heap, vmk_span_find(heap, heap->origin + i * PAGE));
        vmk_span *three = take(heap, 3);
        ck_assert_uint_eq((uintptr_t)three->base, heap->origin + (i - 1) * PAGE);
    }
    ck_assert_uint_eq(stats_of(heap).grow_count, growths);
    vmk_span *two = take(heap, 2); /* no two in a row are free, but at the end */
    ck_assert_uint_ge((uintptr_t)two->base, heap->origin + (2 * runs - 1) * PAGE);
    vmk_span_free(heap, two);
}

START_TEST(a_million_free_spans)
{
    const size_t runs = FEW || sizeof(void *) < 8 ? 10000 : 1000000;
    const size_t window = sizeof(void *) < 8 ? 512 * MIB : FEW ? 4096 * MIB : 100 * 1024 * MIB;
    support_random random = support_random_start(80);
    vmk_heap *heap = heap_make((vmk_heap_options){.layout = VMK_LAYOUT_64, .window = window});
    for (size_t i = 0; i < 2 * runs; i++)
        MUST((uintptr_t)take(heap, 1)->base == heap->origin + i * PAGE);
    for (size_t i = 0; i < 2 * runs; i += 2)
        vmk_span_free(heap, vmk_span_find(heap, heap->origin + i * PAGE));
    for (size_t i = 0; i < 100000; i++) {
        size_t page = support_random_below(&random, 2 * runs);
        uintptr_t word = heap->origin + page * PAGE + support_random_below(&random, PAGE);
        const vmk_span *span = vmk_span_find(heap, word);
        MUST(page % 2 == 0 ? span == NULL : span != NULL && (uintptr_t)span->base == heap->origin + page * PAGE);
    }
    holes_are_used(heap, runs);
    ck_assert(vmki_heap_check(heap));
    for (size_t i = 0; i < 2 * runs; i++) {
        vmk_span *span = vmk_span_find(heap, heap->origin + i * PAGE);
        if (span != NULL)
            vmk_span_free(heap, span);
    }
    uint64_t growths = stats_of(heap).grow_count;
    ck_assert_uint_eq((uintptr_t)take(heap, 2 * runs)->base, heap->origin); /* all of them are one */
    ck_assert_uint_eq(stats_of(heap).grow_count, growths);
    heap_end(heap);
}
END_TEST

#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap_grow");
    TCase *tests = tcase_create("heap_grow");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, tables_follow_the_ladder, 0, 3);
    tcase_add_loop_test(tests, seed_defect_4_the_hook_comes_before_publication, 0, LAYOUTS);
    tcase_add_loop_test(tests, a_hook_that_refuses, 0, LAYOUTS);
    tcase_add_loop_test(tests, a_hook_that_refuses_large_steps, 0, LAYOUTS);
    tcase_add_loop_test(tests, any_refusals, 0, LAYOUTS);
    tcase_add_test(tests, a_hole_has_no_entries);
#ifdef VMKIT_MODEL
    tcase_add_loop_test(tests, what_fits_makes_no_call, 0, LAYOUTS);
    tcase_add_loop_test(tests, an_extension_leaves_no_gap, 1, LAYOUTS);
    tcase_add_loop_test(tests, foreign_memory_is_never_touched, 1, LAYOUTS);
    tcase_add_test(tests, what_lies_inside_is_taken);
    tcase_add_test(tests, seed_defect_5_what_lies_outside_is_given_back);
    tcase_add_loop_test(tests, a_quota_can_be_used_again, 0, LAYOUTS);
    tcase_add_loop_test(tests, seed_defect_8_refusal_is_a_status, 0, LAYOUTS);
    tcase_add_loop_test(tests, a_full_window_is_not_a_refusal, 0, 2); /* the model has less than a window of 4 GiB */
    tcase_add_loop_test(tests, no_address_space_is_not_a_full_window, 1, LAYOUTS);
#else
    tcase_add_test(tests, a_million_free_spans);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
