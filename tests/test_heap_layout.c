/* SPDX-License-Identifier: MIT
 *
 * What a heap is laid out as: sizes by formulas that are computed here once more, the ladder of layouts where address
 * space is refused, and the rule that fits a heap into a limit. Growth is in test_heap_grow.c, real limits are in
 * test_heap_limits_posix.c.
 */
#include <stdio.h>

#include "common/heap/heap.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

#define PAGE VMK_HEAP_PAGE_SIZE
#define MIB ((size_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define QUANTUM_PAGES (VMKI_QUANTUM >> VMK_HEAP_PAGE_SHIFT)
#define BIG_STEP (2 * MIB) /* large tables begin on a multiple of this */

static vmk_heap_stats stats_of(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats;
}

/* --- nothing is left -------------------------------------------------------------------------------------------- */

static vmk_stats ledger_open(void)
{
    vmk_stats now;
#ifdef VMKIT_MODEL
    model_reset(NULL);
#endif
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
#ifdef VMKIT_MODEL
    ck_assert_uint_eq(model_reserved(), now.reserved + now.overhead);
    ck_assert_uint_eq(model_committed(), now.committed + now.overhead);
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

/* --- formulas --------------------------------------------------------------------------------------------------- */

static void must_be_between(uint64_t size, uint64_t least, uint64_t most)
{
    if (size < least || size > most)
        ck_abort_msg("%llu is not in [%llu, %llu]", (unsigned long long)size, (unsigned long long)least,
                     (unsigned long long)most);
}

/* Each column of a table is rounded up to a page, begins on a large step if it is large, and has a guard page. */
static void columns_are_by_formula(uint64_t size, uint64_t bytes, unsigned columns)
{
    must_be_between(size, bytes, bytes + columns * (BIG_STEP + 2 * vmk_page_size()));
}

/* The plan of a window of so many pages, against what the table in docs/design-heap.md says. */
static void plan_is_by_formula(const vmki_heap_plan *plan, uint64_t pages)
{
    const uint64_t record = sizeof(void *) < 8 ? 20 : 32, owner = sizeof(void *), chunks = pages >> 9;
    uint64_t end = 0;
    ck_assert_uint_eq(plan->window_pages, pages);
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        if (part == VMK_HEAP_ARENA && plan->layout != VMK_LAYOUT_64)
            continue;
        ck_assert_uint_ge(plan->offset[part], end); /* in the order of the parts */
        ck_assert_uint_lt(plan->offset[part] - end, part == VMK_HEAP_ARENA ? 4 * MIB : vmk_page_size());
        ck_assert_uint_eq(plan->offset[part] % vmk_page_size(), 0);
        end = plan->offset[part] + (uint64_t)plan->size[part];
    }
    ck_assert_uint_eq(plan->total, end);
    uint64_t ids = pages < UINT32_MAX ? pages + 1 : UINT32_MAX;
    columns_are_by_formula(plan->size[VMK_HEAP_RECORDS], ids * record, 1);
    if (plan->layout == VMK_LAYOUT_64) {
        columns_are_by_formula(plan->size[VMK_HEAP_SPANS], (pages + 1) * (5 + owner), 3);
        uint64_t levels = chunks + chunks / 16 + chunks / 256 + chunks / 4096 + chunks / 65536 + chunks / 1048576;
        columns_are_by_formula(plan->size[VMK_HEAP_PAGES], chunks * 264 + levels * 12, 2 + VMKI_LEVELS_MAX);
        ck_assert_uint_eq(plan->size[VMK_HEAP_ARENA], pages * PAGE);
        ck_assert_uint_eq(plan->offset[VMK_HEAP_ARENA] % (4 * MIB), 0);
    }
    /* The set of a sparse table: a bit for each page, and an entry for some of them. */
    must_be_between(plan->size[VMK_HEAP_BITMAP], pages * 64, pages * 66 + 2 * BIG_STEP);
}

START_TEST(plans_are_by_formula)
{
    static const uint64_t windows[] = {4 << 20, 32 << 20, (uint64_t)128 << 30, (uint64_t)16 << 40, (uint64_t)64 << 40};
    vmki_heap_plan plan;
    if (sizeof(void *) < 8 && _i > 1)
        return;
    uint64_t pages = windows[_i] / PAGE;
    ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_64, pages, SIZE_MAX));
    plan_is_by_formula(&plan, pages);
    ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_64, pages - 1, SIZE_MAX));
    plan_is_by_formula(&plan, pages);
    ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_LIMITED, pages, SIZE_MAX));
    plan_is_by_formula(&plan, pages);
}
END_TEST

START_TEST(no_plan_for_too_much)
{
    vmki_heap_plan plan;
    uint64_t all = (uint64_t)UINTPTR_MAX / PAGE + 1;
    ck_assert(!vmki_heap_plan_make(&plan, VMK_LAYOUT_64, 0, 0));
    ck_assert(!vmki_heap_plan_make(&plan, VMK_LAYOUT_64, all, SIZE_MAX));
    ck_assert(!vmki_heap_plan_make(&plan, VMK_LAYOUT_64, all + 1, SIZE_MAX));
    ck_assert(!vmki_heap_plan_make(&plan, VMK_LAYOUT_LIMITED, UINT64_MAX, SIZE_MAX));
    if (sizeof(void *) < 8)
        ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_32, all, SIZE_MAX));
}
END_TEST

/* --- the limit rule --------------------------------------------------------------------------------------------- */

/* As many below each power of two as above it. */
static uint64_t random_budget(support_random *random)
{
    uint64_t bits = 12 + support_random_below(random, 38), low = (uint64_t)1 << bits;
    return low + support_random_next(random) % low;
}

/* The least plan there can be: a quantum of arena, in one chunk or in two. */
static uint64_t least_budget(bool centred)
{
    vmki_heap_plan plan;
    ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_LIMITED, centred ? 1024 : 512, QUANTUM_PAGES));
    return (uint64_t)plan.total + VMKI_QUANTUM;
}

static uint64_t total_of(const vmki_heap_plan *plan)
{
    return plan->total + (uint64_t)plan->arena_pages * PAGE;
}

/* Is the plan sound, within the budget, and the largest there is? */
static void must_fit(const vmki_heap_plan *plan, uint64_t budget, uint64_t most, bool centred)
{
    vmki_heap_plan larger;
    uint64_t arena = (uint64_t)plan->arena_pages * PAGE, pages = plan->arena_pages + QUANTUM_PAGES;
    MUST(plan->layout == VMK_LAYOUT_LIMITED && plan->sparse && total_of(plan) <= budget);
    MUST(plan->arena_pages != 0 && plan->arena_pages % QUANTUM_PAGES == 0);
    MUST(arena <= most || arena == VMKI_QUANTUM);
    MUST(plan->window_pages >= plan->arena_pages && plan->window_pages % VMKI_CHUNK_PAGES == 0);
    for (unsigned part = 0; part < VMK_HEAP_ARENA; part++)
        MUST(plan->offset[part] % vmk_page_size() == 0 && plan->size[part] % vmk_page_size() == 0 &&
             plan->offset[part] + (uint64_t)plan->size[part] <= plan->total);
    if (arena + VMKI_QUANTUM > most || pages > VMKI_WINDOW_MAX_PAGES / 2 || sizeof(void *) < 8)
        return;
    uint64_t chunks = (pages + VMKI_CHUNK_PAGES - 1) / VMKI_CHUNK_PAGES;
    MUST(vmki_heap_plan_make(&larger, VMK_LAYOUT_LIMITED, (centred ? 2 : 1) * chunks * VMKI_CHUNK_PAGES, pages));
    MUST(total_of(&larger) > budget);
}

/* The seed gave a ninth of the limit to the bitmap: more than the limit in sum, and misaligned. */
START_TEST(seed_defect_7_a_million_limits)
{
#ifdef VMKIT_MODEL
    size_t rounds = support_rounds(50000); /* only the page size differs */
#else
    size_t rounds = support_rounds(250000); /* times two limits, times two kinds */
#endif
    support_random random = support_random_start(70 + (uint64_t)_i);
    bool centred = _i != 0;
    uint64_t least = least_budget(centred);
    for (size_t round = 0; round < rounds; round++) {
        vmki_heap_plan plan, more;
        uint64_t budget = random_budget(&random), most = round % 4 == 0 ? random_budget(&random) : UINT64_MAX;
        bool fits = vmki_heap_plan_limited(&plan, budget, most, centred);
        MUST(fits == (budget >= least));
        uint64_t larger = budget + support_random_next(&random) % (round % 2 == 0 ? 100000 : budget);
        MUST(vmki_heap_plan_limited(&more, larger, most, centred) == (larger >= least));
        if (!fits)
            continue;
        must_fit(&plan, budget, most, centred);
        must_fit(&more, larger, most, centred);
        MUST(more.arena_pages >= plan.arena_pages);
    }
}
END_TEST

/* Every byte around the edge, and no limit at all. */
START_TEST(the_least_limit)
{
    bool centred = _i != 0;
    vmki_heap_plan plan;
    uint64_t least = least_budget(centred);
    for (uint64_t budget = least - 100; budget < least + 100; budget++)
        MUST(vmki_heap_plan_limited(&plan, budget, UINT64_MAX, centred) == (budget >= least));
    ck_assert(!vmki_heap_plan_limited(&plan, 0, UINT64_MAX, centred));
    ck_assert(vmki_heap_plan_limited(&plan, UINT64_MAX, 64 * MIB, centred));
    ck_assert_uint_eq(plan.arena_pages, 64 * MIB / PAGE);
    ck_assert_uint_eq(plan.window_pages, (centred ? 128 : 64) * MIB / PAGE);
    ck_assert(vmki_heap_plan_limited(&plan, least + 2 * VMKI_QUANTUM, 0, centred));
    ck_assert_uint_eq(plan.arena_pages, QUANTUM_PAGES);
}
END_TEST

#ifdef VMKIT_MODEL

/* --- refusal ---------------------------------------------------------------------------------------------------- */

static bool is_refusal(vmk_status status)
{
    return status == VMK_ERR_ADDRESS_SPACE || status == VMK_ERR_COMMIT || status == VMK_ERR_MAPPINGS;
}

/* Make a heap, fill it until it is refused more, and end it. */
static vmk_status use(const vmk_heap_options *options, size_t most, vmk_layout *layout, size_t *in_use)
{
    vmk_heap *heap = NULL;
    vmk_span *span;
    size_t before = model_reserved();
    vmk_status status = vmk_heap_create(&heap, options);
    if (status != VMK_OK) {
        MUST(heap == NULL && is_refusal(status));
        return status;
    }
    *layout = stats_of(heap).layout;
    for (unsigned i = 0; i < 200 && status == VMK_OK; i++) {
        status = vmk_span_alloc(heap, 1 + i % 40, 0, i % 3 == 0 ? VMK_SPAN_MARKS : 0, &span);
        MUST(model_reserved() - before <= most);
    }
    MUST(status == VMK_OK || status == VMK_ERR_LIMIT || is_refusal(status));
    MUST(vmki_heap_check(heap));
    *in_use = stats_of(heap).in_use;
    vmk_heap_destroy(heap);
    return VMK_OK;
}

/* So that what the vm layer keeps for itself is there already. */
static void warm_up(void)
{
    const vmk_heap_options options = {.layout = VMK_LAYOUT_LIMITED, .window = 32 * MIB};
    vmk_layout layout;
    size_t in_use;
    model_reset(NULL);
    ck_assert_int_eq(use(&options, SIZE_MAX, &layout, &in_use), VMK_OK);
}

/* Without a limit that could be asked for, the system has less and less address space. */
START_TEST(refusal_leads_to_the_next_layout)
{
    static const size_t spaces[] = {250, 200, 140, 130, 100, 70, 40, 20, 10, 5, 3, 2, 1};
    warm_up();
    vmk_stats book = ledger_open();
    bool refused = false, seen[4] = {false};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        vmk_layout layout = VMK_LAYOUT_AUTO;
        size_t in_use = 0, space = spaces[i] * MIB - model_reserved();
        model_reset(&(model_rules){.address_space = spaces[i] * MIB});
        vmk_status status = use(&(vmk_heap_options){.window = 128 * MIB}, space, &layout, &in_use);
        ck_assert_int_eq(status, layout == VMK_LAYOUT_AUTO ? VMK_ERR_ADDRESS_SPACE : VMK_OK);
        ck_assert(!refused || status != VMK_OK); /* not again with less */
        refused = status != VMK_OK;
        seen[layout] = true;
        ck_assert(layout != VMK_LAYOUT_64 || spaces[i] > 128);
        ledger_close(&book);
    }
    ck_assert(seen[VMK_LAYOUT_AUTO] && seen[VMK_LAYOUT_LIMITED]);
    ck_assert(seen[sizeof(void *) < 8 ? VMK_LAYOUT_32 : VMK_LAYOUT_64]);
}
END_TEST

/* The layout that was asked for is the only one that is tried. */
START_TEST(no_other_layout_than_asked_for)
{
    vmk_heap *heap = NULL;
    vmk_layout layout = (vmk_layout)_i;
    warm_up();
    vmk_stats book = ledger_open();
    model_reset(&(model_rules){.address_space = model_reserved() + VMKI_QUANTUM});
    ck_assert_int_eq(vmk_heap_create(&heap, &(vmk_heap_options){.layout = layout}), VMK_ERR_ADDRESS_SPACE);
    ck_assert_ptr_null(heap);
    ledger_close(&book);
}
END_TEST

/* A limit that can be asked for, of any number of bytes, on either of the two that count. */
START_TEST(limits_are_kept)
{
    support_random random = support_random_start(75 + (uint64_t)_i);
    warm_up();
    vmk_stats book = ledger_open();
    size_t heaps = 0, rounds = support_rounds(60);
    for (size_t round = 0; round < rounds; round++) {
        vmk_layout layout = VMK_LAYOUT_LIMITED;
        vmk_heap *heap = NULL;
        uint64_t more = random_budget(&random) % (150 * MIB);
        size_t in_use = 0, has = _i == 0 ? model_reserved() : model_committed();
        vmk_limits limits = {.address_space = _i == 0 ? has + more : 0, .data = _i == 1 ? has + more : 0};
        model_reset(&(model_rules){.limits = limits, .address_space = _i == 0 ? (size_t)limits.address_space : 0});
        vmk_status status = use(NULL, _i == 0 ? (size_t)more : SIZE_MAX, &layout, &in_use);
        MUST(status == VMK_OK || more < least_budget(true));
        MUST(layout == VMK_LAYOUT_LIMITED || more < least_budget(true));
        heaps += status == VMK_OK;
        MUST(more < 96 * MIB || in_use > 20 * MIB); /* all of them */
        if (vmk_heap_create(&heap, NULL) == VMK_OK) {
            MUST(stats_of(heap).reserved <= more || layout != VMK_LAYOUT_LIMITED);
            MUST(layout != VMK_LAYOUT_LIMITED || total_of(&vmki_heap_of(heap)->plan) <= more); /* and what may come */
            vmk_heap_destroy(heap);
        }
        ledger_close(&book);
    }
    ck_assert(rounds < 20 || heaps > rounds / 4); /* from few rounds nothing follows */
}
END_TEST

/* What is left decides how large the first region is: 512 MiB, or half of it, and so on, to the page. */
START_TEST(layout_32_begins_smaller)
{
    vmki_heap_plan plan;
    warm_up();
    vmk_stats book = ledger_open();
    ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_32, (uint64_t)1 << (32 - VMK_HEAP_PAGE_SHIFT), SIZE_MAX));
    for (size_t region = 128 * MIB; region >= VMKI_QUANTUM; region /= 2)
        for (unsigned less = 0; less < 2; less++) {
            vmk_heap *heap = NULL;
            size_t space = plan.total + region - less * vmk_page_size(), expected = less != 0 ? region / 2 : region;
            model_reset(&(model_rules){.address_space = model_reserved() + space});
            vmk_status status = vmk_heap_create(&heap, &(vmk_heap_options){.layout = VMK_LAYOUT_32});
            if (expected < VMKI_QUANTUM) {
                ck_assert_int_eq(status, VMK_ERR_ADDRESS_SPACE);
            } else {
                ck_assert_int_eq(status, VMK_OK);
                ck_assert_uint_eq(stats_of(heap).part[VMK_HEAP_ARENA].reserved, expected);
                ck_assert_uint_eq(stats_of(heap).reserved, plan.total + expected);
                ck_assert(vmki_heap_check(heap));
                vmk_heap_destroy(heap);
            }
            ledger_close(&book);
        }
}
END_TEST

#else

/* --- the real system -------------------------------------------------------------------------------------------- */

/* One reservation, laid out by the formulas; only the heap's own record and that of its one region are committed. */
static void layout_is_by_formula(vmk_heap *heap, uint64_t window)
{
    vmk_heap_stats stats = stats_of(heap);
    plan_is_by_formula(&vmki_heap_of(heap)->plan, window / PAGE);
    ck_assert_int_eq(stats.layout, VMK_LAYOUT_64);
    ck_assert_uint_eq(stats.regions, 1);
    ck_assert_uint_eq(stats.window_size, window);
    ck_assert_uint_eq(stats.window % (4 * MIB), 0);
    size_t header = vmk_page_ceil(sizeof(vmki_heap));
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        size_t expected = part == VMK_HEAP_HEADER ? header : part == VMK_HEAP_REGIONS ? vmk_page_size() : 0;
        ck_assert_uint_eq(stats.part[part].committed, expected);
        ck_assert_uint_eq(stats.part[part].base - stats.part[0].base, vmki_heap_of(heap)->plan.offset[part]);
    }
    ck_assert_uint_le(header, 64 << 10);
    support_figures figures;
    if (support_system_figures((void *)stats.part[0].base, stats.reserved, &figures)) {
        ck_assert_uint_eq(figures.reserved, stats.reserved);
        ck_assert_uint_eq(figures.committed, header + vmk_page_size());
    }
}

/* The first page costs a page of each table, and of memory what the step is. */
static void first_span_is_cheap(vmk_heap *heap)
{
    vmk_span *span;
    size_t page = vmk_page_size();
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, VMK_SPAN_MARKS, &span), VMK_OK);
    span->base[0] = 1;
    ck_assert_uint_eq((uintptr_t)span->base, heap->origin);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)span->base + PAGE - 1), span);
    vmk_heap_stats stats = stats_of(heap);
    ck_assert_uint_eq(stats.part[VMK_HEAP_SPANS].committed, 3 * page); /* three columns */
    ck_assert_uint_eq(stats.part[VMK_HEAP_ARENA].committed, 256 << 10);
    ck_assert_uint_le(stats.committed, (256 << 10) + 32 * page + 128 * 1024);
    ck_assert(vmki_heap_check(heap));
}

/* Has the system as much at one place? What it says without a hint is no promise for two at a time. */
static uintptr_t free_at(uintptr_t hint, size_t size)
{
    vmk_region region;
    vmk_reserve_options how = {.hint = (const void *)hint, .flags = VMK_RESERVE_EXACT};
    if (vmk_reserve(&region, size, &how) != VMK_OK)
        return 0;
    vmk_release(&region);
    return hint;
}

/* Sixteen tebibytes where reserving is free: Wine notes every page of what is reserved, and the thread sanitizer has
 * room for one. */
#if defined(_WIN32) || defined(__SANITIZE_THREAD__)
#define LARGE (128 * GIB)
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LARGE (128 * GIB)
#endif
#endif
#ifndef LARGE
#define LARGE (16 * 1024 * GIB)
#endif

START_TEST(layout_64_by_formula)
{
    const uint64_t window = _i == 0 ? 128 * GIB : LARGE;
    vmk_heap *heap = NULL;
    vmk_stats book = ledger_open();
    if (sizeof(void *) < 8)
        return;
    ck_assert_int_eq(vmk_heap_create(&heap, &(vmk_heap_options){.layout = VMK_LAYOUT_64, .window = (size_t)window}),
                     VMK_OK);
    layout_is_by_formula(heap, window);
    first_span_is_cheap(heap);
    vmk_heap_destroy(heap);
    ledger_close(&book);
}
END_TEST

/* Somebody else likes the recognisable address, too. */
START_TEST(layout_64_at_another_hint)
{
    const uint64_t window = 128 * GIB, first = (uint64_t)0xc0 << 32, second = first | (uint64_t)1 << 40;
    vmk_heap *heap = NULL;
    vmk_region foreign = {.base = NULL};
    vmki_heap_plan plan;
    vmk_stats book = ledger_open();
    if (sizeof(void *) < 8)
        return;
    ck_assert(vmki_heap_plan_make(&plan, VMK_LAYOUT_64, window / PAGE, SIZE_MAX));
    uintptr_t expected = free_at((uintptr_t)second, plan.total);
    /* In the middle of where the heap would lie: the hint itself is free. */
    vmk_reserve_options how = {.hint = (const void *)(uintptr_t)(first + 64 * GIB), .flags = VMK_RESERVE_EXACT};
    bool planted = vmk_reserve(&foreign, VMKI_QUANTUM, &how) == VMK_OK;
    ck_assert_int_eq(vmk_heap_create(&heap, &(vmk_heap_options){.layout = VMK_LAYOUT_64, .window = (size_t)window}),
                     VMK_OK);
    uintptr_t base = stats_of(heap).part[VMK_HEAP_HEADER].base;
    ck_assert_uint_ne(base, first);
    ck_assert(!planted || expected == 0 || base == expected);
    layout_is_by_formula(heap, window);
    first_span_is_cheap(heap);
    vmk_heap_destroy(heap);
    if (planted)
        vmk_release(&foreign);
    ledger_close(&book);
}
END_TEST

/* Address space is all that a window costs: what the system counts is what it counts without a heap. */
START_TEST(reserving_is_not_charged)
{
    vmk_usage before, after;
    vmk_heap *heap = NULL;
    vmk_stats book = ledger_open();
    ck_assert_int_eq(vmk_usage_now(&before), VMK_OK);
    ck_assert_int_eq(vmk_heap_create(&heap, &(vmk_heap_options){.layout = VMK_LAYOUT_64}), VMK_OK);
    ck_assert_int_eq(vmk_usage_now(&after), VMK_OK);
    vmk_heap_stats stats = stats_of(heap);
    ck_assert_uint_ge(stats.window_size, sizeof(void *) < 8 ? 512 * MIB : 128 * GIB);
    ck_assert_uint_eq(stats.committed, vmk_page_ceil(sizeof(vmki_heap)) + vmk_page_size());
    if (support_system_tells())
        ck_assert_uint_le(after.data, before.data + 16 * vmk_page_size() + MIB); /* the C library's stdio, at most */
    vmk_heap_destroy(heap);
    ledger_close(&book);
}
END_TEST

/* Above 2 GiB, where the seed's table had no entries. On 32-bit systems the window begins at 0, and entries of what is
 * below cost nothing. */
START_TEST(layout_32_above_2_gib)
{
    const uintptr_t hint = 0x90000000u;
    vmk_heap *heap = NULL;
    vmk_stats book = ledger_open();
    if (free_at(hint, 512 * MIB) == 0) /* only Windows' large addresses, and some sanitizers, have none there */
        return;
    ck_assert_int_eq(vmk_heap_create(&heap, &(vmk_heap_options){.layout = VMK_LAYOUT_32, .hint = hint}), VMK_OK);
    vmk_heap_stats stats = stats_of(heap);
    ck_assert_uint_eq(stats.window, sizeof(void *) < 8 ? 0 : hint);
    ck_assert_uint_eq(stats.part[VMK_HEAP_ARENA].base, hint);
    ck_assert_uint_eq(stats.part[VMK_HEAP_ARENA].reserved, 512 * MIB);
    vmk_span *low, *high;
    ck_assert_int_eq(vmk_span_alloc(heap, 3, 0, VMK_SPAN_MARKS, &low), VMK_OK);
    ck_assert_int_eq(vmk_span_alloc(heap, 600, 0, VMK_SPAN_MARKS, &high), VMK_OK);
    ck_assert_uint_eq((uintptr_t)low->base, hint);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)high->base + 600 * PAGE - 1), high);
    ck_assert_uint_eq(heap->spans[(hint - heap->origin) / PAGE], low->id);
    ck_assert_ptr_null(vmk_span_find(heap, hint - 1));
    ck_assert_ptr_null(vmk_span_find(heap, hint + 512 * MIB));
    for (uint64_t at = 0; at < 4 * GIB; at += 4 * MIB)
        MUST((at >= hint && at < hint + 8 * MIB) || vmk_span_find(heap, (uintptr_t)at) == NULL);
    ck_assert_uint_le(stats_of(heap).part[VMK_HEAP_SPANS].committed, 10 * vmk_page_size());
    ck_assert(vmki_heap_check(heap));
    vmk_heap_destroy(heap);
    ledger_close(&book);
}
END_TEST

#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap_layout");
    TCase *tests = tcase_create("heap_layout");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, plans_are_by_formula, 0, 5);
    tcase_add_test(tests, no_plan_for_too_much);
    tcase_add_loop_test(tests, seed_defect_7_a_million_limits, 0, 2);
    tcase_add_loop_test(tests, the_least_limit, 0, 2);
#ifdef VMKIT_MODEL
    tcase_add_test(tests, refusal_leads_to_the_next_layout);
    tcase_add_loop_test(tests, no_other_layout_than_asked_for, VMK_LAYOUT_AUTO, VMK_LAYOUT_32 + 1);
    tcase_add_loop_test(tests, limits_are_kept, 0, 2);
    tcase_add_test(tests, layout_32_begins_smaller);
#else
    tcase_add_loop_test(tests, layout_64_by_formula, 0, 2);
    tcase_add_test(tests, layout_64_at_another_hint);
    tcase_add_test(tests, reserving_is_not_charged);
    tcase_add_test(tests, layout_32_above_2_gib);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
