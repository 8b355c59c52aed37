/* SPDX-License-Identifier: MIT
 *
 * Heaps that threads share: look-ups without locks while one grows, spans that come, go and change all at once beside
 * whoever gives memory back, counts and walks; scavengers that start and stop; heaps that come and go. Run under
 * ThreadSanitizer.
 *
 * A reader looks into a span that it has found only if it knows that it stays; of others it compares the address.
 */
#include <string.h>

#include "common/heap/heap.h"
#include "support.h"

enum { THREADS = 4 };

static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};

/* What went wrong first in each thread, and where: Check's assertions must not be used there. */
typedef struct verdict {
    int line[THREADS]; /* 0: all well */
} verdict;

#define RECORD(v, number, condition)                                                                                   \
    do {                                                                                                               \
        if (!(condition) && (v)->line[number] == 0)                                                                    \
            (v)->line[number] = __LINE__;                                                                              \
    } while (0)

static void assert_all_well(const verdict *v)
{
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_msg(v->line[i] == 0, "thread %u, line %d", i, v->line[i]);
}

static vmk_heap *make(const vmk_heap_options *options)
{
    vmk_heap *heap;
    ck_assert_int_eq(vmk_heap_create(&heap, options), VMK_OK);
    return heap;
}

/* All of it is free again, and as it should be. */
static void end(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    ck_assert_uint_eq(stats.in_use, 0);
    ck_assert_uint_eq(stats.spans, 0);
    ck_assert(vmki_heap_check(heap));
    vmk_heap_destroy(heap);
}

/* --- one grows, others look up ---------------------------------------------------------------------------------- */

enum { STAYING = 3000, PASSING = 64, SPAN_PAGES_MAX = 8 };

typedef struct lookups {
    vmk_heap *heap;
    uint64_t window_size;
    vmk_span *staying[STAYING]; /* freed by nobody, */
    size_t count;               /* and so many of them, published by the grower */
    size_t stop;
    size_t grown_low; /* addresses; published by the hook */
    size_t grown_high;
    size_t looked[THREADS];
    verdict verdict;
} lookups;

static vmk_status note_growth(void *context, void *base, size_t size)
{
    lookups *l = context;
    size_t low = (uintptr_t)base, high = low + size;
    if (l->grown_low == 0 || low < l->grown_low)
        VMKI_STORE_RELEASE(&l->grown_low, low);
    if (high > l->grown_high)
        VMKI_STORE_RELEASE(&l->grown_high, high);
    return VMK_OK;
}

static uint8_t class_for(const vmk_span *span)
{
    return (uint8_t)(span->id * 7 + 1);
}

/* Spans that stay, with others between them that come and go. */
static void grow(lookups *l)
{
    support_random random = support_random_start(10);
    vmk_span *passing[PASSING] = {NULL};
    size_t count = vmki_min(STAYING, support_rounds(STAYING));
    for (size_t i = 0; i < count; i++) {
        vmk_span *span;
        vmk_status status = vmk_span_alloc(l->heap, 1 + support_random_below(&random, SPAN_PAGES_MAX), 0, 0, &span);
        RECORD(&l->verdict, 0, status == VMK_OK);
        if (status != VMK_OK)
            break;
        vmk_span_set_class(l->heap, span, class_for(span));
        l->staying[i] = span;
        VMKI_STORE_RELEASE(&l->count, i + 1);
        vmk_span **other = &passing[support_random_below(&random, PASSING)];
        if (*other != NULL)
            vmk_span_free(l->heap, *other);
        *other = NULL;
        status = vmk_span_alloc(l->heap, 1 + support_random_below(&random, SPAN_PAGES_MAX), 0, 0, other);
        RECORD(&l->verdict, 0, status == VMK_OK);
    }
    VMKI_STORE_RELEASE(&l->stop, 1);
    for (size_t i = 0; i < PASSING; i++)
        if (passing[i] != NULL)
            vmk_span_free(l->heap, passing[i]);
}

/* Nothing, or some record that may be read: no more can be said of what comes and goes. */
static bool possible(const vmk_heap *heap, const vmk_span *found)
{
    uintptr_t offset = (uintptr_t)found - (uintptr_t)heap->records;
    return found == NULL || (offset % sizeof(vmk_span) == 0 && offset != 0 &&
                             offset / sizeof(vmk_span) <= 2 * (STAYING + PASSING) && support_readable(found));
}

static void look_up_living(lookups *l, unsigned number, support_random *random)
{
    size_t count = VMK_LOAD_ACQUIRE(&l->count);
    if (count == 0)
        return;
    const vmk_heap *heap = l->heap;
    vmk_span *span = l->staying[support_random_below(random, count)];
    size_t size = span->pages * VMK_HEAP_PAGE_SIZE;
    unsigned char *inside = span->base + support_random_below(random, size);
    RECORD(&l->verdict, number, vmk_span_find(heap, (uintptr_t)inside) == span);
    RECORD(&l->verdict, number, vmk_span_of(heap, inside) == span);
    RECORD(&l->verdict, number, vmk_heap_class(heap, inside) == class_for(span));
    RECORD(&l->verdict, number, vmk_span_find(heap, (uintptr_t)span->base) == span);
    RECORD(&l->verdict, number, vmk_span_find(heap, (uintptr_t)span->base + size - 1) == span);
    RECORD(&l->verdict, number, vmk_span_find(heap, (uintptr_t)span->base - 1) != span);
    RECORD(&l->verdict, number, vmk_span_find(heap, (uintptr_t)span->base + size) != span);
}

static void look_up_any(lookups *l, unsigned number, support_random *random)
{
    const vmk_heap *heap = l->heap;
    uint64_t bits = support_random_next(random);
    size_t low = VMK_LOAD_ACQUIRE(&l->grown_low), high = VMK_LOAD_ACQUIRE(&l->grown_high);
    RECORD(&l->verdict, number, possible(heap, vmk_span_find(heap, (uintptr_t)bits)));
    RECORD(&l->verdict, number, possible(heap, vmk_span_find(heap, heap->origin + (uintptr_t)(bits % l->window_size))));
    if (high > low)
        RECORD(&l->verdict, number, possible(heap, vmk_span_find(heap, low + (uintptr_t)(bits % (high - low)))));
    RECORD(&l->verdict, number, vmk_span_find(heap, (uintptr_t)l) == NULL);
    if (heap->origin != 0) {
        RECORD(&l->verdict, number, vmk_span_find(heap, 0) == NULL);
        RECORD(&l->verdict, number, vmk_span_find(heap, heap->origin - 1) == NULL);
        if (l->window_size < UINTPTR_MAX - heap->origin)
            RECORD(&l->verdict, number, vmk_span_find(heap, heap->origin + (uintptr_t)l->window_size) == NULL);
    }
}

static void grower_and_readers(void *argument, unsigned number)
{
    lookups *l = argument;
    if (number == 0) {
        grow(l);
        return;
    }
    support_random random = support_random_start(20 + number);
    do {
        look_up_living(l, number, &random);
        if (l->looked[number]++ % 8 == 0) /* asks the system, which takes its time */
            look_up_any(l, number, &random);
    } while (VMK_LOAD_ACQUIRE(&l->stop) == 0);
}

START_TEST(look_ups_need_no_lock_while_one_grows)
{
    static lookups l;
    memset(&l, 0, sizeof l);
    vmk_heap_options options = {.layout = layouts[_i],
                                .window = (size_t)256 << 20,
                                .step = (size_t)64 << 10,
                                .on_grow = note_growth,
                                .on_grow_context = &l};
    l.heap = make(&options);
    vmk_heap_stats stats;
    vmk_heap_stats_now(l.heap, &stats);
    l.window_size = stats.window_size;
    support_threads(THREADS, grower_and_readers, &l);
    assert_all_well(&l.verdict);
    vmk_heap_stats_now(l.heap, &stats);
    ck_assert_uint_gt(stats.grow_count, l.count / 10); /* there was something to see */
    for (size_t i = 0; i < l.count; i++)
        vmk_span_free(l.heap, l.staying[i]);
    end(l.heap);
}
END_TEST

/* --- all at once ------------------------------------------------------------------------------------------------ */

enum { SLOTS = 24, STORM_PAGES_MAX = 40, STRIDE = 512 };

typedef struct storm {
    vmk_heap *heap;
    size_t grown;   /* by the hook: bytes, before anything is published of them */
    size_t working; /* threads that have not yet done their share: each counts itself in `done` */
    size_t done[THREADS];
    size_t returned;
    size_t snapshots;
    verdict verdict;
} storm;

static vmk_status count_growth(void *context, void *base, size_t size)
{
    storm *s = context;
    (void)base;
    VMKI_STORE_RELEASE(&s->grown, s->grown + size); /* under the heap's lock */
    return VMK_OK;
}

static uint64_t word_for(const vmk_span *span, size_t at, unsigned number)
{
    return (uint64_t)span->id << 32 ^ (uint64_t)at * 0x9e3779b1u ^ number;
}

static void fill(const vmk_span *span, size_t from, unsigned number)
{
    for (size_t at = from; at < span->pages * VMK_HEAP_PAGE_SIZE; at += STRIDE) {
        uint64_t word = word_for(span, at, number);
        memcpy(span->base + at, &word, sizeof word);
    }
}

static bool filled(const vmk_span *span, size_t limit, unsigned number)
{
    for (size_t at = 0; at < limit; at += STRIDE) {
        uint64_t word = word_for(span, at, number);
        if (memcmp(span->base + at, &word, sizeof word) != 0)
            return false;
    }
    return true;
}

/* A word at every place where anybody writes. */
static bool zero(const vmk_span *span, size_t from)
{
    static const uint64_t nothing;
    for (size_t at = from; at < span->pages * VMK_HEAP_PAGE_SIZE; at += STRIDE)
        if (memcmp(span->base + at, &nothing, sizeof nothing) != 0)
            return false;
    return true;
}

static void slot_fill(storm *s, vmk_span **slot, unsigned number, support_random *random)
{
    static const unsigned flags[] = {0, VMK_SPAN_ZERO, VMK_SPAN_MARKS, VMK_SPAN_ZERO | VMK_SPAN_MARKS};
    unsigned how = flags[support_random_below(random, 4)];
    size_t pages = 1 + support_random_below(random, STORM_PAGES_MAX);
    size_t align = support_random_below(random, 4) == 0 ? VMK_HEAP_PAGE_SIZE << support_random_below(random, 5) : 0;
    vmk_status status = vmk_span_alloc(s->heap, pages, align, how, slot);
    RECORD(&s->verdict, number, status == VMK_OK);
    if (status != VMK_OK) {
        *slot = NULL;
        return;
    }
    vmk_span *span = *slot;
    RECORD(&s->verdict, number, span->pages == pages && span->owner == NULL);
    RECORD(&s->verdict, number, align == 0 || (uintptr_t)span->base % align == 0);
    RECORD(&s->verdict, number, (how & VMK_SPAN_ZERO) == 0 || (span->flags & VMK_SPAN_ZERO) != 0);
    RECORD(&s->verdict, number, (span->flags & VMK_SPAN_ZERO) == 0 || zero(span, 0));
    span->owner = slot;
    vmk_span_set_class(s->heap, span, (uint8_t)(number + 1));
    if ((how & VMK_SPAN_MARKS) != 0) {
        unsigned char *marks = vmk_span_marks(s->heap, span), *last = marks + pages * (VMK_HEAP_PAGE_SIZE / 128) - 1;
        RECORD(&s->verdict, number, *marks == 0 && *last == 0);
        *marks = *last = (unsigned char)(number + 1);
    }
    fill(span, 0, number);
}

static void slot_resize(storm *s, vmk_span *span, unsigned number, support_random *random)
{
    size_t before = span->pages, pages = 1 + support_random_below(random, STORM_PAGES_MAX);
    vmk_status status = vmk_span_resize(s->heap, span, pages);
    RECORD(&s->verdict, number, status == VMK_OK || (status == VMK_ERR_TAKEN && pages > before));
    RECORD(&s->verdict, number, span->pages == (status == VMK_OK ? pages : before));
    RECORD(&s->verdict, number, filled(span, vmki_min(before, span->pages) * VMK_HEAP_PAGE_SIZE, number));
    if (span->pages > before) {
        size_t from = before * VMK_HEAP_PAGE_SIZE;
        RECORD(&s->verdict, number, (span->flags & VMK_SPAN_ZERO) == 0 || zero(span, from));
        fill(span, from, number);
    }
}

static void slot_look(const storm *s, vmk_span **slot, unsigned number, verdict *v)
{
    const vmk_span *span = *slot;
    const unsigned char *last = span->base + span->pages * VMK_HEAP_PAGE_SIZE - 1;
    RECORD(v, number, vmk_span_of(s->heap, last) == span && vmk_span_of(s->heap, span->base) == span);
    RECORD(v, number, vmk_span_find(s->heap, (uintptr_t)last) == span && span->owner == slot);
    RECORD(v, number, vmk_heap_class(s->heap, span->base) == number + 1 && vmk_heap_class(s->heap, last) == number + 1);
}

static void use_spans(storm *s, unsigned number, size_t rounds)
{
    support_random random = support_random_start(30 + number);
    vmk_span *slots[SLOTS] = {NULL};
    for (size_t i = 0; i < rounds; i++) {
        vmk_span **slot = &slots[support_random_below(&random, SLOTS)];
        if (*slot == NULL) {
            slot_fill(s, slot, number, &random);
            continue;
        }
        slot_look(s, slot, number, &s->verdict);
        if (support_random_below(&random, 3) == 0) {
            slot_resize(s, *slot, number, &random);
            continue;
        }
        RECORD(&s->verdict, number, filled(*slot, (*slot)->pages * VMK_HEAP_PAGE_SIZE, number));
        vmk_span_free(s->heap, *slot);
        *slot = NULL;
    }
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i] != NULL) {
            RECORD(&s->verdict, number, filled(slots[i], slots[i]->pages * VMK_HEAP_PAGE_SIZE, number));
            vmk_span_free(s->heap, slots[i]);
        }
}

typedef struct tally {
    const vmk_heap *heap;
    uintptr_t end;
    size_t grown;
    size_t spans;
    bool right;
} tally;

static bool add_range(void *context, const vmk_range *range)
{
    tally *t = context;
    uintptr_t base = (uintptr_t)range->base;
    t->right &= range->size != 0 && range->size % VMK_HEAP_PAGE_SIZE == 0 && base >= t->end;
    t->right &= (range->use == VMK_RANGE_IN_USE) == (range->span != NULL);
    t->right &=
        vmk_span_find(t->heap, base) == range->span && vmk_span_find(t->heap, base + range->size - 1) == range->span;
    t->end = base + range->size;
    t->grown += range->use != VMK_RANGE_RESERVED ? range->size : 0;
    t->spans += range->span != NULL;
    return true;
}

static void take_figures(storm *s, unsigned number)
{
    vmk_heap_stats now;
    size_t before = VMK_LOAD_ACQUIRE(&s->grown), reserved = 0, committed = 0;
    vmk_heap_stats_now(s->heap, &now);
    size_t after = VMK_LOAD_ACQUIRE(&s->grown), sum = now.in_use + now.idle + now.released;
    RECORD(&s->verdict, number, before <= sum && sum <= after);
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        RECORD(&s->verdict, number, now.part[part].committed <= now.part[part].reserved);
        reserved += now.part[part].reserved;
        committed += now.part[part].committed;
    }
    RECORD(&s->verdict, number, reserved == now.reserved && committed == now.committed);
    RECORD(&s->verdict, number,
           now.in_use <= now.in_use_peak && now.in_use + now.idle <= now.part[VMK_HEAP_ARENA].committed);
    RECORD(&s->verdict, number, now.spans * VMK_HEAP_PAGE_SIZE <= now.in_use && now.released <= now.released_total);
    tally t = {.heap = s->heap, .right = true};
    before = VMK_LOAD_ACQUIRE(&s->grown);
    vmk_heap_walk(s->heap, add_range, &t);
    after = VMK_LOAD_ACQUIRE(&s->grown);
    RECORD(&s->verdict, number, t.right && before <= t.grown && t.grown <= after);
    s->snapshots++;
}

static bool all_done(storm *s)
{
    for (size_t i = 0; i < s->working; i++)
        if (VMK_LOAD_ACQUIRE(&s->done[i]) == 0)
            return false;
    return true;
}

/* Two threads use spans; one gives memory back; one takes figures and walks. */
static void storm_body(void *argument, unsigned number)
{
    storm *s = argument;
    support_random random = support_random_start(40 + number);
    if (number < s->working) {
        use_spans(s, number, support_rounds(6000));
        VMKI_STORE_RELEASE(&s->done[number], 1);
        return;
    }
    do {
        if (number % 2 == 0)
            s->returned += vmk_heap_scavenge(s->heap, support_random_below(&random, (size_t)1 << 20));
        else
            take_figures(s, number);
        support_yield();
    } while (!all_done(s));
}

START_TEST(spans_come_and_go_beside_the_rest)
{
    static storm s;
    memset(&s, 0, sizeof s);
    s.working = 2;
    vmk_heap_options options = {.layout = layouts[_i % 3],
                                .flags = _i >= 3 ? VMK_HEAP_DECOMMIT : 0,
                                .window = (size_t)64 << 20,
                                .on_grow = count_growth,
                                .on_grow_context = &s};
    s.heap = make(&options);
    support_threads(THREADS, storm_body, &s);
    assert_all_well(&s.verdict);
    vmk_heap_stats stats;
    vmk_heap_stats_now(s.heap, &stats);
    ck_assert_uint_eq(stats.idle + stats.released, s.grown);
    ck_assert_uint_eq(stats.released_total, s.returned);
    ck_assert_uint_gt(s.snapshots, 0);
    end(s.heap);
}
END_TEST

/* The first scavenges of a heap decide how it is done: those that come at the same moment, too. */
static void scavenge_once(void *argument, unsigned number)
{
    storm *s = argument;
    VMKI_STORE_RELEASE(&s->done[number], 1);
    while (!all_done(s))
        support_yield();
    size_t returned = vmk_heap_scavenge(s->heap, VMK_HEAP_PAGE_SIZE);
    RECORD(&s->verdict, number, returned != 0);
    VMKI_STORE_RELEASE(&s->done[number], returned);
}

START_TEST(first_scavenges_at_once)
{
    static storm s;
    size_t rounds = support_rounds(200);
    for (size_t round = 0; round < rounds; round++) {
        memset(&s, 0, sizeof s);
        s.working = THREADS;
        s.heap = make(&(vmk_heap_options){.layout = VMK_LAYOUT_LIMITED, .window = (size_t)4 << 20});
        vmk_span *span;
        ck_assert_int_eq(vmk_span_alloc(s.heap, 32, 0, 0, &span), VMK_OK);
        vmk_span_free(s.heap, span);
        support_threads(THREADS, scavenge_once, &s);
        assert_all_well(&s.verdict);
        vmk_heap_stats stats;
        vmk_heap_stats_now(s.heap, &stats);
        size_t returned = 0;
        for (unsigned i = 0; i < THREADS; i++)
            returned += s.done[i];
        ck_assert_uint_eq(stats.released_total, returned);
        end(s.heap);
    }
}
END_TEST

/* --- the scavenger ---------------------------------------------------------------------------------------------- */

/* Two start and stop it, two use spans: nobody can say whether it runs. */
static void start_and_stop(void *argument, unsigned number)
{
    storm *s = argument;
    if (number < s->working) {
        use_spans(s, number, support_rounds(3000));
        VMKI_STORE_RELEASE(&s->done[number], 1);
        return;
    }
    support_random random = support_random_start(50 + number);
    do {
        if (support_random_below(&random, 2) == 0)
            RECORD(&s->verdict, number, vmk_heap_scavenger_start(s->heap) == VMK_OK);
        else
            vmk_heap_scavenger_stop(s->heap);
        if (support_random_below(&random, 4) == 0)
            (void)vmk_heap_scavenge_tick(s->heap);
        support_yield();
    } while (!all_done(s));
}

START_TEST(scavenger_starts_and_stops)
{
    static storm s;
    memset(&s, 0, sizeof s);
    s.working = 2;
    s.heap = make(&(vmk_heap_options){.window = (size_t)64 << 20, .scavenge_interval = 20000, .keep_percent = 1});
    support_threads(THREADS, start_and_stop, &s);
    assert_all_well(&s.verdict);
    ck_assert_int_eq(vmk_heap_scavenger_start(s.heap), VMK_OK);
    ck_assert_int_eq(vmk_heap_scavenger_start(s.heap), VMK_OK);
    vmk_heap_scavenger_stop(s.heap);
    vmk_heap_scavenger_stop(s.heap);
    end(s.heap);
}
END_TEST

/* It does what it is for, by itself: waited for as long as it takes. */
START_TEST(scavenger_scavenges)
{
    vmk_heap *heap = make(&(vmk_heap_options){.window = (size_t)64 << 20, .scavenge_interval = 50000});
    vmk_span *span;
    vmk_heap_stats stats;
    ck_assert_int_eq(vmk_span_alloc(heap, 1024, 0, 0, &span), VMK_OK);
    memset(span->base, 1, span->pages * VMK_HEAP_PAGE_SIZE);
    vmk_span_free(heap, span);
    ck_assert_int_eq(vmk_heap_scavenger_start(heap), VMK_OK);
    do {
        support_yield();
        vmk_heap_stats_now(heap, &stats);
    } while (stats.idle != 0);
    ck_assert_uint_ge(stats.released, 1024 * VMK_HEAP_PAGE_SIZE);
    vmk_heap_scavenger_stop(heap);
    end(heap);
}
END_TEST

/* Ended while the thread runs, most likely in the middle of something. */
START_TEST(destroy_with_the_scavenger_running)
{
    vmk_stats before, after;
    vmk_stats_now(&before);
    size_t rounds = support_rounds(60);
    for (size_t round = 0; round < rounds; round++) {
        vmk_heap *heap = make(&(vmk_heap_options){.window = (size_t)16 << 20, .scavenge_interval = 1});
        vmk_span *spans[64];
        ck_assert_int_eq(vmk_heap_scavenger_start(heap), VMK_OK);
        for (size_t i = 0; i < 64; i++)
            ck_assert_int_eq(vmk_span_alloc(heap, 1 + i % 8, 0, 0, &spans[i]), VMK_OK);
        for (size_t i = 0; i < 64; i += 1 + round % 2)
            vmk_span_free(heap, spans[i]);
        vmk_heap_destroy(heap);
    }
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.regions, before.regions);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.committed, before.committed);
}
END_TEST

/* --- many heaps ------------------------------------------------------------------------------------------------- */

static void one_heap(verdict *v, unsigned number, size_t round)
{
    vmk_heap *heap;
    vmk_span *spans[20];
    vmk_heap_options options = {.layout = layouts[round % 2], .window = (size_t)8 << 20, .scavenge_interval = 1};
    vmk_status status = vmk_heap_create(&heap, &options);
    RECORD(v, number, status == VMK_OK);
    if (status != VMK_OK)
        return;
    if (round % 3 == 0)
        RECORD(v, number, vmk_heap_scavenger_start(heap) == VMK_OK);
    size_t made = 0;
    for (; made < 20; made++) {
        vmk_span **span = &spans[made];
        status = vmk_span_alloc(heap, 1 + made, 0, 0, span);
        /* So small a window may be full of the other heaps. */
        RECORD(v, number,
               status == VMK_OK || (options.layout == VMK_LAYOUT_LIMITED && status == VMK_ERR_ADDRESS_SPACE));
        if (status != VMK_OK)
            break;
        memset((*span)->base, (int)(number + 1), 64);
        RECORD(v, number, vmk_span_find(heap, (uintptr_t)(*span)->base) == *span);
    }
    for (size_t i = 0; i < made; i++) {
        RECORD(v, number, spans[i]->base[63] == number + 1);
        if (i % 2 == 0)
            vmk_span_free(heap, spans[i]);
    }
    vmk_heap_destroy(heap);
}

static void many_heaps(void *argument, unsigned number)
{
    size_t rounds = support_rounds(80);
    for (size_t round = 0; round < rounds; round++)
        one_heap(argument, number, round + number);
}

START_TEST(heaps_come_and_go)
{
    static verdict v;
    vmk_stats before, after;
    vmk_stats_now(&before);
    support_threads(THREADS, many_heaps, &v);
    assert_all_well(&v);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.regions, before.regions);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.committed, before.committed);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap, threads");
    TCase *tests = tcase_create("threads");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, first_scavenges_at_once); /* first: before anything was probed */
    tcase_add_loop_test(tests, look_ups_need_no_lock_while_one_grows, 0, 3);
    tcase_add_loop_test(tests, spans_come_and_go_beside_the_rest, 0, 6);
    tcase_add_test(tests, scavenger_starts_and_stops);
    tcase_add_test(tests, scavenger_scavenges);
    tcase_add_test(tests, destroy_with_the_scavenger_running);
    tcase_add_test(tests, heaps_come_and_go);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
