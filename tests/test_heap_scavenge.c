/* SPDX-License-Identifier: MIT
 *
 * Giving memory back, on demand and by the policy, with a clock that the tests move; and the figures, which must add up
 * after every operation and be the system's own.
 */
#include <stdio.h>
#include <string.h>

#include "common/heap/heap.h"
#include "common/vm/vm.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

#define PAGE VMK_HEAP_PAGE_SIZE
#define MIB ((size_t)1 << 20)
#define CHUNK_SIZE VMKI_CHUNK_SIZE

enum { CHUNK = VMKI_CHUNK_PAGES, LAYOUTS = 3, INTERVAL = 100, COLD = 16 };

static const vmk_layout layouts[LAYOUTS] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};

/* --- the system ------------------------------------------------------------------------------------------------- */

static size_t unit; /* heap pages that go back together */
static size_t huge; /* heap pages in a huge page; 0: there are none */
static bool discards;
static vmk_stats at_start;
static uint64_t now;

/* The model has huge pages in half of its settings; what is found out first stays. */
static void before_each(void)
{
#ifdef VMKIT_MODEL
    model_rules rules = {.huge_page_size = vmk_granularity() == vmk_page_size() ? 2 * MIB : 0};
    model_reset(&rules);
#endif
    const vmk_caps *caps = vmk_capabilities();
    unit = vmki_max(vmk_page_size() / PAGE, 1);
    huge = caps->huge_page_size <= CHUNK_SIZE ? caps->huge_page_size / PAGE : 0;
    huge = huge > unit ? huge : 0;
    discards = (caps->features & VMK_CAP_DISCARD_PROMPT) != 0 && (caps->features & VMK_CAP_DISCARD_ZERO) != 0 &&
               caps->overcommit != VMK_OVERCOMMIT_NEVER;
    now = 1000;
    vmk_stats_now(&at_start);
}

/* Whatever a test has done, nothing is left of it. */
static void after_each(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    ck_assert_uint_eq(stats.regions, at_start.regions);
    ck_assert_uint_eq(stats.reserved, at_start.reserved);
    ck_assert_uint_eq(stats.committed, at_start.committed);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
    ck_assert_uint_eq(model_reserved(), stats.reserved + stats.overhead);
    ck_assert_uint_eq(model_committed(), stats.committed + stats.overhead);
#endif
}

static uint64_t test_clock(void *context)
{
    (void)context;
    return now;
}

/* --- heaps ------------------------------------------------------------------------------------------------------ */

static vmk_heap *heap_make(vmk_layout layout, unsigned flags, unsigned keep_percent)
{
    vmk_heap *heap = NULL;
    vmk_heap_options options = {.layout = layout,
                                .flags = flags,
                                .window = 32 * MIB,
                                .clock = test_clock,
                                .scavenge_interval = INTERVAL,
                                .keep_percent = keep_percent};
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
    return heap;
}

static vmk_heap_stats figures(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats;
}

static vmk_span *take_aligned(vmk_heap *heap, size_t pages, size_t align, unsigned flags)
{
    vmk_span *span = NULL;
    MUST(vmk_span_alloc(heap, pages, align, flags, &span) == VMK_OK);
    return span;
}

static vmk_span *take(vmk_heap *heap, size_t pages)
{
    return take_aligned(heap, pages, 0, 0);
}

/* What is written, and looked for: the ends of each page. */
static void fill(const vmk_span *span, size_t from, unsigned char value)
{
    for (size_t page = from; page < span->pages; page++)
        span->base[page * PAGE] = span->base[page * PAGE + PAGE - 1] = value;
}

static bool filled(const vmk_span *span, size_t from, size_t limit, unsigned char value)
{
    for (size_t page = from; page < limit; page++)
        if (span->base[page * PAGE] != value || span->base[page * PAGE + PAGE - 1] != value)
            return false;
    return true;
}

/* Take and write `count` spans of one page. */
static void take_singles(vmk_heap *heap, vmk_span **spans, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        spans[i] = take(heap, 1);
        fill(spans[i], 0, (unsigned char)(i | 1));
    }
}

/* --- figures ---------------------------------------------------------------------------------------------------- */

typedef struct walked {
    size_t sum[VMK_RANGE_RESERVED + 1];
    size_t ranges;
    size_t stop_after; /* 0: never */
    uintptr_t end;
    size_t gaps;
    size_t splits;
    vmk_range_use last;
} walked;

static bool note_range(void *context, const vmk_range *range)
{
    walked *w = context;
    uintptr_t base = (uintptr_t)range->base;
    MUST(range->size != 0 && range->size % PAGE == 0 && (w->ranges == 0 || base >= w->end));
    MUST((range->span != NULL) == (range->use == VMK_RANGE_IN_USE));
    bool follows = w->ranges != 0 && base == w->end;
    w->gaps += w->ranges != 0 && !follows;
    /* Free ranges of a kind are one, but where a region ends. */
    w->splits += follows && range->use == w->last && (range->use == VMK_RANGE_IDLE || range->use == VMK_RANGE_RELEASED);
    w->sum[range->use] += range->size;
    w->end = base + range->size;
    w->last = range->use;
    w->ranges++;
    return w->ranges != w->stop_after;
}

static void check_walk(vmk_heap *heap, const vmk_heap_stats *stats)
{
    walked w = {.ranges = 0};
    size_t arenas = vmki_heap_of(heap)->arena_count;
    vmk_heap_walk(heap, note_range, &w);
    MUST(w.sum[VMK_RANGE_IN_USE] == stats->in_use && w.sum[VMK_RANGE_IDLE] == stats->idle);
    MUST(w.sum[VMK_RANGE_RELEASED] == stats->released);
    MUST(w.sum[0] + w.sum[1] + w.sum[2] + w.sum[3] == stats->part[VMK_HEAP_ARENA].reserved);
    MUST(w.gaps + w.splits < arenas);
}

/* Parts add up; the process's figures have changed by exactly the heap's. */
static vmk_heap_stats check_figures(vmk_heap *heap)
{
    vmk_heap_stats stats = figures(heap);
    vmk_stats all;
    size_t reserved = 0, committed = 0;
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        MUST(stats.part[part].committed <= stats.part[part].reserved);
        reserved += stats.part[part].reserved;
        committed += stats.part[part].committed;
    }
    MUST(stats.reserved == reserved && stats.committed == committed);
    vmk_stats_now(&all);
    MUST(all.reserved - at_start.reserved == stats.reserved && all.committed - at_start.committed == stats.committed);
    MUST(all.regions - at_start.regions == stats.regions);
    MUST(stats.in_use <= stats.in_use_peak && stats.in_use + stats.idle <= stats.part[VMK_HEAP_ARENA].committed);
    MUST(stats.released <= stats.released_total);
    const vmki_heap *inside = vmki_heap_of(heap);
    size_t grown = 0;
    for (size_t i = 0; i < inside->arena_count; i++)
        grown += vmki_heap_arenas(inside)[i].grown * PAGE;
    MUST(stats.in_use + stats.idle + stats.released == grown);
    bool promised = discards && (inside->options.flags & VMK_HEAP_DECOMMIT) == 0;
    MUST(stats.part[VMK_HEAP_ARENA].committed == grown - (promised ? 0 : stats.released));
    return stats;
}

static void check_range(const void *base, size_t reserved, size_t committed)
{
    support_figures system;
    if (reserved == 0 || !support_system_figures(base, reserved, &system))
        return;
    ck_assert_uint_eq(system.reserved, reserved);
    ck_assert_uint_eq(system.committed, committed);
}

/* What the system itself shows of every part. The model shows all of it at once. */
static void check_system(vmk_heap *heap)
{
    vmk_heap_stats stats = check_figures(heap);
#ifdef VMKIT_MODEL
    vmk_stats all;
    vmk_stats_now(&all);
    ck_assert_uint_eq(model_reserved(), all.reserved + all.overhead);
    ck_assert_uint_eq(model_committed(), all.committed + all.overhead);
    (void)stats;
    (void)check_range;
#else
    for (unsigned part = 0; part < VMK_HEAP_ARENA; part++)
        check_range((const void *)stats.part[part].base, stats.part[part].reserved, stats.part[part].committed);
    vmki_heap *inside = vmki_heap_of(heap);
    size_t reserved = 0, committed = 0;
    for (size_t i = 0; i < inside->arena_count; i++) {
        vmki_arena *arena = vmki_heap_arenas(inside) + i;
        size_t size = arena->pages * PAGE, offset = vmki_arena_offset(inside, arena, arena->first);
        size_t part = vmki_vm_committed(vmki_arena_region(inside, arena), offset, size);
        check_range((const void *)(heap->origin + arena->first * PAGE), size, part);
        reserved += size;
        committed += part;
    }
    ck_assert_uint_eq(stats.part[VMK_HEAP_ARENA].reserved, reserved);
    ck_assert_uint_eq(stats.part[VMK_HEAP_ARENA].committed, committed);
#endif
}

static void heap_end(vmk_heap *heap)
{
    check_system(heap);
    ck_assert(vmki_heap_check(heap));
    vmk_heap_destroy(heap);
}

/* Scavenge, and see that what is said to be returned is what has changed. */
static size_t scavenge(vmk_heap *heap, size_t most)
{
    vmk_heap_stats before = figures(heap), after;
    size_t returned = vmk_heap_scavenge(heap, most);
    after = check_figures(heap);
    MUST(before.idle - after.idle == returned && after.released - before.released == returned);
    MUST(after.released_total - before.released_total == returned && after.in_use == before.in_use);
    return returned;
}

/* --- on demand -------------------------------------------------------------------------------------------------- */

START_TEST(as_much_as_is_asked_for)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 0);
    vmk_span *span = take(heap, 1600);
    ck_assert_uint_eq(scavenge(heap, SIZE_MAX), figures(heap).released); /* of the step, if it gave more */
    fill(span, 0, 7);
    vmk_span_free(heap, span);
    size_t idle = figures(heap).idle;
    ck_assert_uint_eq(scavenge(heap, 0), 0);
    ck_assert_uint_eq(scavenge(heap, 1), unit * PAGE);
    ck_assert_uint_eq(scavenge(heap, PAGE), unit * PAGE);
    ck_assert_uint_eq(scavenge(heap, unit * PAGE + 1), vmki_ceil(unit + 1, unit) * PAGE);
    ck_assert_uint_eq(scavenge(heap, 40 * PAGE), 40 * PAGE);
    if (huge != 0)
        ck_assert_uint_eq(scavenge(heap, (huge + 8) * PAGE), (huge + 8) * PAGE);
    ck_assert_uint_eq(figures(heap).released_total, idle - figures(heap).idle);
    size_t rest = figures(heap).idle;
    ck_assert_uint_eq(scavenge(heap, SIZE_MAX), rest);
    ck_assert_uint_eq(scavenge(heap, SIZE_MAX), 0);
    ck_assert_uint_eq(figures(heap).idle, 0);
    heap_end(heap);
}
END_TEST

/* What the system sees of it: memory leaves, and so does the promise of it where it is decommitted. */
START_TEST(what_is_returned_leaves_the_process)
{
    bool forced = _i != 0;
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, forced ? VMK_HEAP_DECOMMIT : 0, 0);
    vmk_span *kept = take(heap, 8), *span = take(heap, 1024);
    memset(kept->base, 3, 8 * PAGE);
    memset(span->base, 5, 1024 * PAGE);
    unsigned char *base = span->base;
    size_t size = 1024 * PAGE;
    support_figures before = {0}, after = {0};
    vmk_stats all_before, all_after;
    vmk_span_free(heap, span);
#ifndef VMKIT_MODEL
    bool told = support_system_figures(base, size, &before);
#else
    bool told = false;
#endif
    vmk_stats_now(&all_before);
    size_t returned = scavenge(heap, SIZE_MAX);
    vmk_stats_now(&all_after);
    ck_assert_uint_ge(returned, size);
    ck_assert_uint_eq(all_before.committed - all_after.committed, discards && !forced ? 0 : returned);
    if (told) {
        ck_assert(support_system_figures(base, size, &after));
        ck_assert_uint_eq(after.reserved, size);
        ck_assert_uint_eq(before.committed - after.committed, discards && !forced ? 0 : size);
        ck_assert_uint_eq(after.resident, 0);
        ck_assert(before.resident == size || before.resident == 0); /* 0: it doesn't tell */
    }
    ck_assert(support_readable(base) == (discards && !forced) || told == false);
    ck_assert(filled(kept, 0, 8, 3));
    heap_end(heap);
}
END_TEST

/* Used again: committed, zero, and known to be. What was only freed is not known to be zero. */
START_TEST(used_again)
{
    bool forced = _i != 0;
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, forced ? VMK_HEAP_DECOMMIT : 0, 0);
    vmk_span *span = take(heap, 64);
    ck_assert((span->flags & VMK_SPAN_ZERO) != 0); /* never used before */
    memset(span->base, 9, 64 * PAGE);
    unsigned char *base = span->base;
    vmk_span_free(heap, span);
    span = take(heap, 64);
    ck_assert(span->base == base && (span->flags & VMK_SPAN_ZERO) == 0);
    vmk_span_free(heap, span);
    (void)scavenge(heap, SIZE_MAX);
    vmk_heap_stats before = figures(heap);
    span = take(heap, 32);
    vmk_heap_stats after = check_figures(heap);
    ck_assert(span->base == base && (span->flags & VMK_SPAN_ZERO) != 0);
    ck_assert(support_writable(base) && support_writable(base + 32 * PAGE - 1));
    for (size_t i = 0; i < 32 * PAGE; i++)
        MUST(base[i] == 0);
    size_t again = vmki_ceil(32, unit) * PAGE;
    ck_assert_uint_eq(before.released - after.released, again);
    ck_assert_uint_eq(after.in_use - before.in_use, 32 * PAGE);
    ck_assert_uint_eq(after.committed - before.committed, discards && !forced ? 0 : again);
    fill(span, 0, 4);
    check_system(heap);
    ck_assert_int_eq(vmk_span_resize(heap, span, 64), VMK_OK); /* into released pages, too */
    ck_assert((span->flags & VMK_SPAN_ZERO) != 0 && filled(span, 0, 32, 4) && filled(span, 32, 64, 0));
    heap_end(heap);
}
END_TEST

/* The released part of [base, base + pages * PAGE), by the heap's own bits. */
static bool is_released(vmk_heap *heap, const unsigned char *base, size_t pages, bool value)
{
    size_t first = ((uintptr_t)base - heap->origin) / PAGE;
    return vmki_pages_all(&vmki_heap_of(heap)->pages, VMKI_PAGE_HELD, !value, first, pages);
}

/* One unit after the other: the highest there is, in the whole heap and in each chunk. */
START_TEST(highest_addresses_first)
{
    enum { RUNS = 7 };
    static const size_t starts[RUNS] = {16, 80, 300, 500, 528, 1000, 1040}; /* two over a chunk's end */
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 0);
    vmk_span *span = take(heap, 3 * CHUNK), *parts[2 * RUNS + 1];
    size_t at = 0;
    (void)scavenge(heap, SIZE_MAX);
    parts[0] = span;
    for (size_t i = 0; i < RUNS; i++) {
        size_t start = vmki_ceil(starts[i], unit);
        ck_assert_int_eq(vmk_span_split(heap, parts[2 * i], start - at, &parts[2 * i + 1]), VMK_OK);
        ck_assert_int_eq(vmk_span_split(heap, parts[2 * i + 1], 2 * unit, &parts[2 * i + 2]), VMK_OK);
        at = start + 2 * unit;
    }
    unsigned char *base[RUNS];
    for (size_t i = 0; i < RUNS; i++) {
        base[i] = parts[2 * i + 1]->base;
        fill(parts[2 * i + 1], 0, 1);
        vmk_span_free(heap, parts[2 * i + 1]);
    }
    for (size_t i = RUNS; i-- > 0;)
        for (size_t half = 2; half-- > 0;) {
            ck_assert(is_released(heap, base[i] + half * unit * PAGE, unit, false));
            ck_assert_uint_eq(scavenge(heap, 1), unit * PAGE);
            ck_assert_msg(is_released(heap, base[i] + half * unit * PAGE, unit, true), "run %zu, half %zu", i, half);
        }
    ck_assert_uint_eq(scavenge(heap, SIZE_MAX), 0);
    heap_end(heap);
}
END_TEST

/* A whole huge page low in memory goes before all that is smaller, and lies higher. */
START_TEST(whole_huge_pages_first)
{
    if (huge == 0)
        return;
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 0);
    vmk_span *low = take_aligned(heap, huge, huge * PAGE, 0), *high = take_aligned(heap, huge, huge * PAGE, 0);
    vmk_span *between = take(heap, 8 * unit), *part = take(heap, huge - 1), *after = take(heap, 1);
    (void)after;
    (void)between;
    (void)scavenge(heap, SIZE_MAX);
    unsigned char *low_base = low->base, *high_base = high->base, *part_base = part->base;
    vmk_span_free(heap, low);
    vmk_span_free(heap, high);
    vmk_span_free(heap, part);
    ck_assert_uint_eq(scavenge(heap, huge * PAGE), huge * PAGE);
    ck_assert(is_released(heap, high_base, huge, true) && is_released(heap, low_base, huge, false));
    ck_assert(is_released(heap, part_base, huge - 1, false));
    ck_assert_uint_eq(scavenge(heap, (huge + unit) * PAGE), (huge + unit) * PAGE);
    ck_assert(is_released(heap, low_base, huge, true) && !is_released(heap, part_base, huge - 1, false));
    heap_end(heap);
}
END_TEST

/* A page of the system that one span still has a part of stays, and all that is in it. */
START_TEST(only_whole_pages_of_the_system)
{
    enum { SINGLES = 256 };
    static vmk_span *spans[SINGLES];
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, _i != 0 ? VMK_HEAP_DECOMMIT : 0, 0);
    take_singles(heap, spans, SINGLES);
    (void)scavenge(heap, SIZE_MAX);
    size_t expected = 0;
    for (size_t i = 0; i < SINGLES; i += unit) { /* every third unit is free, of the others one page is not */
        size_t keep = (i / unit) % 3 == 0 ? SIZE_MAX : i + (i / unit) % unit;
        for (size_t j = i; j < i + unit; j++)
            if (j != keep) {
                vmk_span_free(heap, spans[j]);
                spans[j] = NULL;
            }
        expected += keep == SIZE_MAX ? unit : 0;
    }
    ck_assert_uint_eq(scavenge(heap, SIZE_MAX), expected * PAGE);
    ck_assert(vmki_heap_check(heap));
    for (size_t i = 0; i < SINGLES; i++)
        if (spans[i] != NULL)
            MUST(filled(spans[i], 0, 1, (unsigned char)(i | 1)));
    /* One page of a unit that was returned: the unit comes back, and nothing of the others is lost. */
    vmk_span *span = take(heap, 1);
    fill(span, 0, 2);
    ck_assert(vmki_heap_check(heap));
    check_system(heap);
    for (size_t i = 0; i < SINGLES; i++)
        if (spans[i] != NULL)
            MUST(filled(spans[i], 0, 1, (unsigned char)(i | 1)));
    heap_end(heap);
}
END_TEST

/* Mark bits go back once all of a chunk is free, and not before. */
START_TEST(mark_bits_go_back)
{
    vmk_heap *heap = heap_make(layouts[_i], 0, 0);
    size_t page = vmk_page_size();
    vmk_span *first = take_aligned(heap, 2 * CHUNK, 2 * CHUNK_SIZE, VMK_SPAN_MARKS), *rest;
    vmk_span *other = take_aligned(heap, 16, CHUNK_SIZE, VMK_SPAN_MARKS);        /* in another chunk */
    ck_assert_int_eq(vmk_span_split(heap, first, 2 * CHUNK - 8, &rest), VMK_OK); /* the end of its chunk */
    memset(vmk_span_marks(heap, first), 0xff, 2 * CHUNK * (PAGE / 128));
    memset(vmk_span_marks(heap, other), 0xa5, 16 * (PAGE / 128));
    size_t used = figures(heap).part[VMK_HEAP_BITMAP].committed;
    ck_assert_uint_ge(used, 2 * CHUNK * (PAGE / 128));
    vmk_span_free(heap, first);
    (void)scavenge(heap, SIZE_MAX);
    size_t half = figures(heap).part[VMK_HEAP_BITMAP].committed; /* of the chunk that is all free, where pages allow */
    ck_assert_uint_eq(used - half, vmki_floor(CHUNK * (PAGE / 128), page));
    ck_assert_uint_eq(vmk_span_marks(heap, rest)[0], 0xff);
    vmk_span_free(heap, rest);
    (void)scavenge(heap, SIZE_MAX);
    ck_assert_uint_eq(half - figures(heap).part[VMK_HEAP_BITMAP].committed,
                      2 * CHUNK * (PAGE / 128) - vmki_floor(CHUNK * (PAGE / 128), page));
    ck_assert_uint_eq(vmk_span_marks(heap, other)[0], 0xa5);
    ck_assert(vmki_heap_check(heap));
    first = take_aligned(heap, CHUNK, CHUNK_SIZE, VMK_SPAN_MARKS);
    for (size_t i = 0; i < CHUNK * (PAGE / 128); i++)
        MUST(vmk_span_marks(heap, first)[i] == 0);
    heap_end(heap);
}
END_TEST

/* --- the policy ------------------------------------------------------------------------------------------------- */

static size_t tick(vmk_heap *heap)
{
    vmk_heap_stats before = figures(heap), after;
    size_t returned = vmk_heap_scavenge_tick(heap);
    after = check_figures(heap);
    MUST(before.idle - after.idle == returned && after.released - before.released == returned);
    return returned;
}

static size_t tick_after(vmk_heap *heap, uint64_t time)
{
    now += time;
    return tick(heap);
}

static uint64_t ticks(vmk_heap *heap)
{
    return vmki_heap_of(heap)->tick;
}

START_TEST(nothing_before_its_time)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 0);
    vmk_span *span = take(heap, 2 * CHUNK);
    fill(span, 0, 1);
    vmk_span_free(heap, span);
    ck_assert(tick_after(heap, INTERVAL - 1) == 0 && ticks(heap) == 0);
    ck_assert(tick_after(heap, 1) == 0 && ticks(heap) == 1); /* freed in the interval that ends now */
    ck_assert(tick(heap) == 0 && ticks(heap) == 1);
    ck_assert(tick_after(heap, INTERVAL - 1) == 0 && ticks(heap) == 1);
    ck_assert_uint_eq(tick_after(heap, 1), 2 * CHUNK * PAGE);
    ck_assert_uint_eq(ticks(heap), 2);
    for (int i = 0; i < 1000; i++)
        MUST(tick(heap) == 0 && ticks(heap) == 2);                            /* the clock stands still */
    ck_assert(tick_after(heap, 10 * INTERVAL + 50) == 0 && ticks(heap) == 3); /* late is once, */
    ck_assert(tick_after(heap, INTERVAL - 1) == 0 && ticks(heap) == 3);       /* and counts from then on */
    ck_assert(tick_after(heap, 1) == 0 && ticks(heap) == 4);
    heap_end(heap);
}
END_TEST

START_TEST(what_was_freed_of_late_stays)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 0);
    vmk_span *low = take(heap, CHUNK), *middle = take(heap, CHUNK), *high = take(heap, CHUNK);
    unsigned char *bases[] = {low->base, middle->base, high->base};
    vmk_span_free(heap, low); /* in tick 0, */
    (void)tick_after(heap, INTERVAL);
    vmk_span_free(heap, high); /* in 1, */
    ck_assert_uint_eq(tick_after(heap, INTERVAL), CHUNK * PAGE);
    ck_assert(is_released(heap, bases[0], CHUNK, true) && is_released(heap, bases[2], CHUNK, false));
    ck_assert_int_eq(vmk_span_resize(heap, middle, CHUNK + 1), VMK_OK);
    ck_assert_int_eq(vmk_span_resize(heap, middle, CHUNK), VMK_OK); /* and a page of it in 2 */
    ck_assert_uint_eq(tick_after(heap, INTERVAL), 0);
    ck_assert(is_released(heap, bases[2], CHUNK, false));
    vmk_span_free(heap, middle); /* in 3 */
    ck_assert_uint_eq(tick_after(heap, INTERVAL), CHUNK * PAGE);
    ck_assert(is_released(heap, bases[1], CHUNK, false) && is_released(heap, bases[2], CHUNK, true));
    ck_assert_uint_eq(tick_after(heap, INTERVAL), CHUNK * PAGE);
    heap_end(heap);
}
END_TEST

/* keep_percent of what is in use stays idle; whole huge pages go, where there are any. */
START_TEST(a_share_is_kept)
{
    static const unsigned percents[] = {1, 10, 33, 50, 100, 200, 1000000};
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, percents[i]);
        vmk_span *kept = take(heap, CHUNK), *span = take(heap, 4 * CHUNK);
        (void)scavenge(heap, SIZE_MAX);
        vmk_span_free(heap, span);
        (void)tick_after(heap, INTERVAL);
        size_t keep = (size_t)vmki_min64((uint64_t)CHUNK * percents[i] / 100, 4 * CHUNK), excess = 4 * CHUNK - keep;
        size_t expected = huge != 0 ? vmki_floor(excess, huge) : vmki_ceil(excess, unit);
        ck_assert_uint_eq(tick_after(heap, INTERVAL), expected * PAGE);
        ck_assert_uint_eq(tick_after(heap, INTERVAL), 0);
        vmk_span_free(heap, kept);
        heap_end(heap);
        now = 1000;
    }
}
END_TEST

/* Where huge pages are worth keeping, their parts go back when nothing near them was freed for 16 intervals. */
START_TEST(parts_go_back_when_cold)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 1);
    vmk_span *spans[8];
    for (size_t i = 0; i < 8; i++)
        spans[i] = take(heap, 64);
    (void)scavenge(heap, SIZE_MAX);
    for (int i = 0; i < 3; i++)
        (void)tick_after(heap, INTERVAL);
    for (size_t i = 0; i < 8; i += 2)
        vmk_span_free(heap, spans[i]); /* in tick 3 */
    size_t keep = 4 * 64 / 100;
    size_t expected = vmki_ceil(4 * 64 - keep, unit) * PAGE;
    ck_assert_uint_eq(tick_after(heap, INTERVAL), 0); /* 3 */
    if (huge == 0) {
        ck_assert_uint_eq(tick_after(heap, INTERVAL), expected);
    } else {
        for (int i = 0; i < COLD; i++)
            ck_assert_uint_eq(tick_after(heap, INTERVAL), 0);
        ck_assert_uint_eq(ticks(heap), 4 + COLD);
        ck_assert_uint_eq(tick_after(heap, INTERVAL), expected);
    }
    heap_end(heap);
}
END_TEST

/* Two threads look at the clock, and the one that looked first comes second: here, the clock itself does it. */
static vmk_heap *overtaken;

static uint64_t clock_overtaken(void *context)
{
    uint64_t then = now;
    (void)context;
    if (overtaken != NULL) {
        vmk_heap *heap = overtaken;
        overtaken = NULL;
        now += INTERVAL;
        (void)vmk_heap_scavenge_tick(heap);
    }
    return then;
}

START_TEST(an_overtaken_tick_is_none)
{
    vmk_heap *heap = NULL;
    vmk_heap_options options = {.window = 32 * MIB, .clock = clock_overtaken, .scavenge_interval = INTERVAL};
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
    now += INTERVAL + 5;
    overtaken = heap;
    (void)vmk_heap_scavenge_tick(heap);
    ck_assert_uint_eq(ticks(heap), 1);
    now += INTERVAL - 1;
    (void)vmk_heap_scavenge_tick(heap);
    ck_assert_uint_eq(ticks(heap), 1);
    heap_end(heap);
}
END_TEST

/* --- statistics ------------------------------------------------------------------------------------------------- */

enum { SLOTS = 120 };

static void random_step(vmk_heap *heap, vmk_span **slot, unsigned char value, support_random *random)
{
    static const unsigned flags[] = {0, VMK_SPAN_ZERO, VMK_SPAN_MARKS, VMK_SPAN_ZERO | VMK_SPAN_MARKS};
    size_t what = support_random_below(random, 16), pages = 1 + support_random_below(random, what == 0 ? 200 : 24);
    if (what == 1) {
        (void)scavenge(heap, support_random_below(random, 4) == 0 ? SIZE_MAX : support_random_below(random, 4 * MIB));
    } else if (what == 2) {
        now += support_random_below(random, 2 * INTERVAL);
        (void)tick(heap);
    } else if (*slot == NULL) {
        unsigned how = flags[support_random_below(random, 4)];
        if (vmk_span_alloc(heap, pages, 0, how, slot) != VMK_OK) {
            *slot = NULL;
            return;
        }
        MUST(((*slot)->flags & VMK_SPAN_ZERO) == 0 || filled(*slot, 0, pages, 0));
        fill(*slot, 0, value);
    } else if (what < 6) {
        size_t before = (*slot)->pages;
        (void)!vmk_span_resize(heap, *slot, pages);
        MUST(filled(*slot, 0, vmki_min(before, (*slot)->pages), value));
        fill(*slot, 0, value);
    } else {
        MUST(filled(*slot, 0, (*slot)->pages, value));
        vmk_span_free(heap, *slot);
        *slot = NULL;
    }
}

START_TEST(figures_add_up)
{
    static vmk_span *slots[SLOTS];
    support_random random = support_random_start(70 + (uint64_t)_i);
    vmk_heap *heap = heap_make(layouts[_i % LAYOUTS], _i >= LAYOUTS ? VMK_HEAP_DECOMMIT : 0, 5);
    size_t rounds = support_rounds(2500);
    memset(slots, 0, sizeof slots);
    for (size_t round = 0; round < rounds; round++) {
        size_t i = support_random_below(&random, SLOTS);
        random_step(heap, &slots[i], (unsigned char)(i + 1), &random);
        vmk_heap_stats stats = check_figures(heap);
        if (round % 16 == 0) {
            check_walk(heap, &stats);
            MUST(vmki_heap_check(heap));
        }
        if (round % 128 == 0)
            check_system(heap);
    }
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i] != NULL) {
            MUST(filled(slots[i], 0, slots[i]->pages, (unsigned char)(i + 1)));
            vmk_span_free(heap, slots[i]);
        }
    ck_assert(figures(heap).in_use == 0 && figures(heap).spans == 0);
    heap_end(heap);
}
END_TEST

START_TEST(a_hundred_heaps_leave_nothing)
{
    for (size_t i = 0; i < 100; i++) {
        vmk_heap *heap = heap_make(layouts[i % LAYOUTS], 0, 0);
        vmk_span *span = take_aligned(heap, 1 + i, 0, i % 2 == 0 ? VMK_SPAN_MARKS : 0);
        fill(span, 0, 1);
        if (i % 3 == 0)
            vmk_span_free(heap, span);
        if (i % 5 == 0)
            (void)scavenge(heap, SIZE_MAX);
        vmk_heap_destroy(heap);
        after_each();
    }
}
END_TEST

START_TEST(a_fresh_heap_is_small)
{
    printf("struct vmki_heap: %u bytes\n", (unsigned)sizeof(vmki_heap));
    ck_assert_uint_le(sizeof(vmki_heap), (size_t)64 << 10);
    for (unsigned i = 0; i < LAYOUTS; i++) {
        vmk_heap *heap = heap_make(layouts[i], 0, 0);
        vmk_heap_stats stats = check_figures(heap);
        printf("%s: %u KiB committed of %u MiB\n", vmk_layout_name(stats.layout), (unsigned)(stats.committed >> 10),
               (unsigned)(stats.reserved >> 20));
        ck_assert_int_eq(stats.layout, layouts[i]);
        ck_assert(stats.in_use == 0 && stats.idle == 0 && stats.released == 0 && stats.grow_count == 0);
        if (vmk_page_size() <= 16384)
            ck_assert_uint_le(stats.committed, (size_t)64 << 10);
        ck_assert(stats.window == heap->origin && stats.window % CHUNK_SIZE == 0 && stats.window_size >= 32 * MIB);
        heap_end(heap);
    }
}
END_TEST

START_TEST(a_walk_may_stop)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0, 0);
    vmk_span *spans[5];
    take_singles(heap, spans, 5);
    for (size_t stop = 1; stop <= 6; stop++) {
        walked w = {.stop_after = stop};
        vmk_heap_walk(heap, note_range, &w);
        ck_assert_uint_eq(w.ranges, stop);
        ck_assert_uint_eq(w.sum[VMK_RANGE_IN_USE], vmki_min(stop, 5) * PAGE);
    }
    heap_end(heap);
}
END_TEST

START_TEST(names)
{
    static const char *const parts[] = {"header", "regions", "spans", "records", "page bits", "mark bitmap", "arena"};
    for (int i = 0; i < VMK_HEAP_PARTS; i++)
        ck_assert_str_eq(vmk_heap_part_name((vmk_heap_part)i), parts[i]);
    ck_assert_str_eq(vmk_heap_part_name(VMK_HEAP_PARTS), "unknown");
    ck_assert_str_eq(vmk_heap_part_name((vmk_heap_part)-1), "unknown");
    ck_assert_str_eq(vmk_layout_name(VMK_LAYOUT_AUTO), "auto");
    ck_assert_str_eq(vmk_layout_name(VMK_LAYOUT_64), "64-bit");
    ck_assert_str_eq(vmk_layout_name(VMK_LAYOUT_LIMITED), "limited");
    ck_assert_str_eq(vmk_layout_name(VMK_LAYOUT_32), "32-bit");
    ck_assert_str_eq(vmk_layout_name((vmk_layout)4), "unknown");
    ck_assert_str_eq(vmk_layout_name((vmk_layout)-1), "unknown");
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap, scavenging and figures");
    TCase *tests = tcase_create("scavenge");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, before_each, after_each);
    tcase_add_test(tests, as_much_as_is_asked_for);
    tcase_add_loop_test(tests, what_is_returned_leaves_the_process, 0, 2);
    tcase_add_loop_test(tests, used_again, 0, 2);
    tcase_add_test(tests, highest_addresses_first);
    tcase_add_test(tests, whole_huge_pages_first);
    tcase_add_loop_test(tests, only_whole_pages_of_the_system, 0, 2);
    tcase_add_loop_test(tests, mark_bits_go_back, 0, LAYOUTS);
    tcase_add_test(tests, nothing_before_its_time);
    tcase_add_test(tests, what_was_freed_of_late_stays);
    tcase_add_test(tests, a_share_is_kept);
    tcase_add_test(tests, parts_go_back_when_cold);
    tcase_add_test(tests, an_overtaken_tick_is_none);
    tcase_add_loop_test(tests, figures_add_up, 0, 2 * LAYOUTS);
    tcase_add_test(tests, a_hundred_heaps_leave_nothing);
    tcase_add_test(tests, a_fresh_heap_is_small);
    tcase_add_test(tests, a_walk_may_stop);
    tcase_add_test(tests, names);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
