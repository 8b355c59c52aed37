/* SPDX-License-Identifier: MIT
 *
 * Spans, in all layouts: a million random operations against an ordered map of them.
 */
#include <stdlib.h>
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
#define MARKS (PAGE / 128) /* bytes of mark bits for a page */
#define MIB ((size_t)1 << 20)
#define NONE UINT64_MAX
#define MISALIGNED 16 /* see vmki_pages_find */

/* The model OS has 256 MiB of address space. */
#ifdef VMKIT_MODEL
#define WINDOW (64 * MIB)
enum { STEPS = 30000, PAGES_MOST = 2048 };
#else
#define WINDOW (256 * MIB)
enum { STEPS = 333334, PAGES_MOST = 3072 };
#endif

enum { SPANS_MOST = 1024, RANGES_MOST = 256, STALE = 64 };

static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* --- heaps ------------------------------------------------------------------------------------------------------ */

static vmk_heap *heap_make(const vmk_heap_options *options)
{
    vmk_heap *heap = NULL;
#ifdef VMKIT_MODEL
    model_reset(NULL);
#endif
    ck_assert_int_eq(vmk_heap_create(&heap, options), VMK_OK);
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

static bool all_are(const unsigned char *bytes, size_t size, unsigned char value)
{
    return size == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* --- the ordered map -------------------------------------------------------------------------------------------- */

typedef struct live {
    vmk_span *span;
    unsigned char *base;
    size_t pages;
    unsigned flags;
    uint8_t fill;
    uint8_t size_class;
} live;

typedef struct range {
    uint64_t low, high;
} range;

typedef struct world {
    vmk_heap *heap;
    vmk_region planted[2]; /* where the heap would like to grow */
    live spans[SPANS_MOST];
    size_t count;
    size_t pages;
    size_t pages_most;
    range grown[RANGES_MOST]; /* as the hook was told; those that touch are one */
    size_t ranges;
    uint64_t growths;
    uint8_t *dirty; /* by page of the window: may be other than zero, as far as the heap can know */
    uintptr_t stale[STALE];
    size_t refused;
    bool walk_agrees;
    support_random random;
} world;

static world w;

static size_t below(size_t limit)
{
    return support_random_below(&w.random, limit);
}

/* Under the heap's lock: nothing is asserted here. */
static vmk_status note_growth(void *context, void *base, size_t size)
{
    uint64_t low = (uintptr_t)base, high = low + size;
    size_t at = 0;
    (void)context;
    w.growths++;
    while (at < w.ranges && w.grown[at].high < low)
        at++;
    if (at == w.ranges || w.grown[at].low > high) {
        if (w.ranges == RANGES_MOST)
            return VMK_ERR_LIMIT;
        memmove(&w.grown[at + 1], &w.grown[at], (w.ranges++ - at) * sizeof(range));
        w.grown[at] = (range){low, high};
        return VMK_OK;
    }
    w.grown[at].low = w.grown[at].low < low ? w.grown[at].low : low;
    w.grown[at].high = w.grown[at].high > high ? w.grown[at].high : high;
    if (at + 1 < w.ranges && w.grown[at + 1].low == w.grown[at].high) {
        w.grown[at].high = w.grown[at + 1].high;
        memmove(&w.grown[at + 1], &w.grown[at + 2], (--w.ranges - at - 1) * sizeof(range));
    }
    return VMK_OK;
}

static uint64_t live_end(const live *s)
{
    return (uint64_t)(uintptr_t)s->base + (uint64_t)s->pages * PAGE;
}

/* The first span that ends behind the address. */
static size_t live_above(uint64_t address)
{
    size_t low = 0, high = w.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (live_end(&w.spans[middle]) > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static const live *live_at(uint64_t address)
{
    size_t at = live_above(address);
    return at < w.count && (uintptr_t)w.spans[at].base <= address ? &w.spans[at] : NULL;
}

static void live_insert(live s)
{
    size_t at = live_above((uintptr_t)s.base);
    MUST(at == w.count || live_end(&s) <= (uintptr_t)w.spans[at].base); /* no overlap */
    memmove(&w.spans[at + 1], &w.spans[at], (w.count++ - at) * sizeof(live));
    w.spans[at] = s;
}

static void live_remove(size_t at)
{
    memmove(&w.spans[at], &w.spans[at + 1], (--w.count - at) * sizeof(live));
}

/* The lowest place that fits; or the lowest where alignment can't matter, and how many there are that have the size
 * alone. */
typedef struct places {
    uint64_t lowest, roomy;
    size_t misaligned;
} places;

static places places_for(size_t pages, size_t align)
{
    places result = {NONE, NONE, 0};
    uint64_t size = (uint64_t)pages * PAGE, unit = align > PAGE ? align : PAGE;
    for (size_t i = 0; i < w.ranges; i++) {
        uint64_t at = w.grown[i].low, end;
        for (size_t next = live_above(at);; at = live_end(&w.spans[next++])) {
            end = next < w.count && (uintptr_t)w.spans[next].base < w.grown[i].high ? (uintptr_t)w.spans[next].base
                                                                                    : w.grown[i].high;
            uint64_t start = (at + unit - 1) / unit * unit;
            result.misaligned += result.lowest == NONE && start != at && end - at >= size; /* what fits there too */
            if (result.lowest == NONE && start <= end && end - start >= size)
                result.lowest = start;
            if (result.roomy == NONE && end - at >= size + unit - PAGE)
                result.roomy = start;
            if (end == w.grown[i].high)
                break;
        }
    }
    return result;
}

static size_t window_page(uint64_t address)
{
    return (size_t)((address - w.heap->origin) / PAGE);
}

static bool any_dirty(const unsigned char *base, size_t pages)
{
    return memchr(w.dirty + window_page((uintptr_t)base), 1, pages) != NULL;
}

/* --- contents --------------------------------------------------------------------------------------------------- */

static unsigned char pattern(const live *s, size_t page)
{
    return (unsigned char)(((uintptr_t)s->base / PAGE + page) * 37 + s->fill) | 1;
}

static void pages_fill(const live *s, size_t from)
{
    unsigned char *marks = vmk_span_marks(w.heap, s->span);
    for (size_t i = from; i < s->pages; i++) {
        s->base[i * PAGE] = s->base[(i + 1) * PAGE - 1] = pattern(s, i);
        if ((s->flags & VMK_SPAN_MARKS) != 0)
            marks[i * MARKS] = marks[(i + 1) * MARKS - 1] = pattern(s, i);
    }
}

static void must_be_kept(const live *s)
{
    const unsigned char *marks = vmk_span_marks(w.heap, s->span);
    for (size_t i = 0; i < s->pages; i++) {
        unsigned char value = pattern(s, i);
        MUST(s->base[i * PAGE] == value && s->base[(i + 1) * PAGE - 1] == value);
        if ((s->flags & VMK_SPAN_MARKS) != 0)
            MUST(marks[i * MARKS] == value && marks[(i + 1) * MARKS - 1] == value);
    }
}

/* Pages that are new in a span. What this suite writes is at both ends of a page; all else is looked at now and then.
 */
static void must_be_new(const live *s, size_t from)
{
    bool all = s->pages - from <= 2 || below(32) == 0;
    for (size_t i = from; i < s->pages && (s->flags & VMK_SPAN_ZERO) != 0; i++)
        MUST(s->base[i * PAGE] == 0 && s->base[(i + 1) * PAGE - 1] == 0 &&
             (!all || all_are(s->base + i * PAGE, PAGE, 0)));
    if ((s->flags & VMK_SPAN_MARKS) != 0)
        MUST(all_are(vmk_span_marks(w.heap, s->span) + from * MARKS, (s->pages - from) * MARKS, 0));
    MUST(vmk_heap_class(w.heap, s->base + from * PAGE) == s->size_class);
    MUST(vmk_heap_class(w.heap, s->base + s->pages * PAGE - 1) == s->size_class);
}

/* --- steps ------------------------------------------------------------------------------------------------------ */

/* Did the heap choose the lowest place? With few free runs, or no alignment, there is no other answer. */
static void must_be_lowest(uint64_t base, size_t align, places fits)
{
    if (base != fits.lowest)
        MUST(align > PAGE && fits.misaligned >= MISALIGNED && base == fits.roomy);
}

static void step_alloc(size_t pages, size_t align, unsigned flags)
{
    live s = {.pages = pages, .fill = (uint8_t)below(256)};
    places before = places_for(pages, align);
    uint64_t growths = w.growths;
    vmk_status status = vmk_span_alloc(w.heap, pages, align, flags, &s.span);
    if (status != VMK_OK) {
        MUST(s.span == NULL && places_for(pages, align).lowest == NONE);
        w.refused++;
        return;
    }
    MUST((before.lowest != NONE) == (w.growths == growths));
    s.base = s.span->base;
    must_be_lowest((uintptr_t)s.base, align, before.lowest != NONE ? before : places_for(pages, align));
    s.flags = (flags & VMK_SPAN_MARKS) | (any_dirty(s.base, pages) ? flags & VMK_SPAN_ZERO : VMK_SPAN_ZERO);
    MUST(s.span->pages == pages && s.span->flags == s.flags && s.span->owner == NULL);
    MUST(align == 0 || (uintptr_t)s.base % align == 0);
    must_be_new(&s, 0);
    pages_fill(&s, 0);
    s.span->owner = s.base;
    live_insert(s);
    w.pages += pages;
}

static void given(const unsigned char *base, size_t pages)
{
    memset(w.dirty + window_page((uintptr_t)base), 1, pages);
    w.stale[below(STALE)] = (uintptr_t)base + below(pages * PAGE);
    w.pages -= pages;
}

static void step_free(size_t at)
{
    live s = w.spans[at];
    must_be_kept(&s);
    vmk_span_free(w.heap, s.span);
    given(s.base, s.pages);
    live_remove(at);
}

/* How many pages behind a span are free; *in_use: by a span, not by what has not grown. */
static size_t room_behind(size_t at, bool *in_use)
{
    uint64_t end = live_end(&w.spans[at]);
    size_t i = 0;
    while (w.grown[i].high < end)
        i++;
    *in_use = at + 1 < w.count && (uintptr_t)w.spans[at + 1].base < w.grown[i].high;
    return (size_t)(((*in_use ? (uintptr_t)w.spans[at + 1].base : w.grown[i].high) - end) / PAGE);
}

static void step_resize(size_t at, size_t pages)
{
    live *s = &w.spans[at];
    bool in_use;
    size_t old = s->pages, room = room_behind(at, &in_use);
    uint64_t growths = w.growths;
    vmk_status status = vmk_span_resize(w.heap, s->span, pages);
    bool fits = pages <= old + room;
    MUST(status == VMK_OK || (!fits && status == VMK_ERR_TAKEN));
    MUST(!fits || w.growths == growths);
    MUST(fits || !in_use || status == VMK_ERR_TAKEN);
    if (status == VMK_OK) {
        s->pages = pages;
        if (pages > old) {
            w.pages += pages - old;
            must_be_new(s, old);
            pages_fill(s, old);
        } else if (pages < old) {
            given(s->base + pages * PAGE, old - pages);
        }
    }
    MUST(s->span->base == s->base && s->span->pages == s->pages && s->span->flags == s->flags);
    MUST(s->span->owner == s->base);
    must_be_kept(s);
}

static void step_split(size_t at, size_t pages)
{
    live rest = w.spans[at]; /* contents depend on `fill` and the address: they go on as they are */
    ck_assert_int_eq(vmk_span_split(w.heap, rest.span, pages, &rest.span), VMK_OK);
    MUST(rest.span != w.spans[at].span && rest.span->owner == w.spans[at].base);
    w.spans[at].pages = pages;
    rest.base += pages * PAGE;
    rest.pages -= pages;
    rest.span->owner = rest.base;
    MUST(rest.span->pages == rest.pages && rest.span->base == rest.base && rest.span->flags == rest.flags);
    MUST(w.spans[at].span->pages == pages && w.spans[at].span->base == w.spans[at].base);
    live_insert(rest);
    must_be_kept(&rest);
}

static bool walked(void *context, const vmk_range *part)
{
    bool scavenged = context != NULL;
    uint64_t low = (uintptr_t)part->base, high = low + part->size;
    const live *s = live_at(low);
    bool is_free = live_above(low) == w.count || (uintptr_t)w.spans[live_above(low)].base >= high, grown = false;
    for (size_t i = 0; i < w.ranges; i++)
        grown |= w.grown[i].low <= low && high <= w.grown[i].high;
    if (part->use == VMK_RANGE_IN_USE)
        w.walk_agrees &= s != NULL && part->span == s->span && high <= live_end(s);
    else
        w.walk_agrees &= is_free && part->span == NULL && grown == (part->use != VMK_RANGE_RESERVED);
    if (scavenged && part->use == VMK_RANGE_IDLE) /* less than a page of the system */
        w.walk_agrees &= (high & ~(uint64_t)(vmk_page_size() - 1)) <= low ||
                         ((high & ~(uint64_t)(vmk_page_size() - 1)) - low) < vmk_page_size();
    if (part->use == VMK_RANGE_RELEASED)
        memset(w.dirty + window_page(low), 0, (size_t)((high - low) / PAGE));
    return true;
}

static void must_be_sound(bool scavenged)
{
    w.walk_agrees = true;
    vmk_heap_walk(w.heap, walked, scavenged ? &w : NULL);
    ck_assert(w.walk_agrees);
    ck_assert(vmki_heap_check(w.heap));
}

/* --- asking ----------------------------------------------------------------------------------------------------- */

static uintptr_t any_word(void)
{
    const live *s = w.count == 0 ? NULL : &w.spans[below(w.count)];
    vmki_heap *heap = vmki_heap_of(w.heap);
    uintptr_t base = s == NULL ? w.heap->origin : (uintptr_t)s->base;
    size_t size = s == NULL ? PAGE : s->pages * PAGE;
    switch (below(11)) {
    case 0:
        return base;
    case 1:
        return base + below(size);
    case 2:
        return base + size - 1;
    case 3:
        return base + size; /* one past the end */
    case 4:
        return base - 1;
    case 5:
        return w.stale[below(STALE)];
    case 6: /* the edges of the window, from both sides */
        return w.heap->origin - below(2) * (1 + below(2 * PAGE));
    case 7:
        return w.heap->origin + heap->plan.window_pages * PAGE - below(2) + below(2) * below(2 * PAGE);
    case 8: /* free, hole, reserved */
        return w.heap->origin + below(heap->plan.window_pages) * PAGE + below(PAGE);
    case 9: /* and where what has grown ends */
        return (uintptr_t)(w.ranges == 0 ? 0 : w.grown[below(w.ranges)].high - below(2));
    default:
        return below(8) == 0 ? 0 - (uintptr_t)below(2) : (uintptr_t)support_random_next(&w.random);
    }
}

static void ask(void)
{
    for (int i = 0; i < 4; i++) {
        uintptr_t word = any_word();
        const live *s = live_at(word);
        vmk_span *found = vmk_span_find(w.heap, word);
        if (found != (s == NULL ? NULL : s->span))
            ck_abort_msg("%#llx", (unsigned long long)word);
        if (s != NULL) {
            MUST(vmk_span_of(w.heap, (void *)word) == s->span);
            MUST(vmk_heap_class(w.heap, (void *)word) == s->size_class);
        }
    }
}

/* --- random operations ------------------------------------------------------------------------------------------ */

static void step_random(bool small)
{
    size_t kind = below(100), at = w.count == 0 ? 0 : below(w.count);
    size_t pages = 1 + (below(small ? 16 : 64) >> below(4)), align = below(4) != 0 ? 0 : PAGE << below(small ? 6 : 11);
    if (!small && below(64) == 0)
        pages = 600 + below(500);
    if (w.count == SPANS_MOST || w.pages > w.pages_most || (w.pages > w.pages_most / 2 && below(8) == 0)) {
        step_free(at);
    } else if (kind < 40 || w.count == 0) {
        step_alloc(pages, align, (unsigned)below(4));
    } else if (kind < 65) {
        step_free(at);
    } else if (kind < 82) {
        step_resize(at, below(2) == 0 ? w.spans[at].pages + pages : 1 + below(2 * w.spans[at].pages));
    } else if (kind < 92) {
        if (w.spans[at].pages > 1)
            step_split(at, 1 + below(w.spans[at].pages - 1));
    } else {
        w.spans[at].size_class = (uint8_t)below(256);
        vmk_span_set_class(w.heap, w.spans[at].span, w.spans[at].size_class);
    }
}

/* Take the address space behind the first region, so that regions have holes between them. */
static bool plant_behind(void *context, const vmk_range *part)
{
    *(uintptr_t *)context = (uintptr_t)part->base + part->size;
    return true;
}

static void world_start(vmk_layout layout, size_t pages_most, uint64_t salt)
{
    memset(&w, 0, sizeof w);
    w.random = support_random_start(salt);
    w.pages_most = pages_most;
    w.heap = heap_make(&(vmk_heap_options){.layout = layout, .window = WINDOW, .on_grow = note_growth});
    w.dirty = calloc(vmki_heap_of(w.heap)->plan.window_pages, 1);
    ck_assert(w.dirty != NULL);
    if (layout != VMK_LAYOUT_LIMITED)
        return;
    uintptr_t end = 0;
    vmk_heap_walk(w.heap, plant_behind, &end);
    vmk_reserve_options how = {.hint = (void *)end, .flags = VMK_RESERVE_EXACT};
    if (vmk_reserve(&w.planted[0], VMKI_QUANTUM, &how) != VMK_OK)
        w.planted[0].base = NULL;
    how.hint = (void *)(end + 5 * CHUNK * PAGE);
    if (vmk_reserve(&w.planted[1], 3 * VMKI_QUANTUM, &how) != VMK_OK)
        w.planted[1].base = NULL;
}

static void world_end(void)
{
    while (w.count > 0)
        step_free(below(w.count));
    must_be_sound(false);
    vmk_heap_stats stats;
    vmk_heap_stats_now(w.heap, &stats);
    ck_assert_uint_eq(stats.in_use, 0);
    ck_assert_uint_eq(stats.spans, 0);
    heap_end(w.heap);
    for (size_t i = 0; i < 2; i++)
        if (w.planted[i].base != NULL)
            vmk_release(&w.planted[i]);
    free(w.dirty);
}

START_TEST(random_operations_against_an_ordered_map)
{
    size_t steps = support_rounds(STEPS);
    world_start(layouts[_i], PAGES_MOST, 1 + (uint64_t)_i);
    for (size_t i = 0; i < steps; i++) {
        step_random(false);
        ask();
        if (i % 4096 == 4095) {
            bool scavenge = below(4) == 0;
            if (scavenge)
                (void)vmk_heap_scavenge(w.heap, SIZE_MAX);
            must_be_sound(scavenge);
        }
    }
    ck_assert_uint_lt(w.refused, steps / 100);
    vmk_heap_stats stats;
    vmk_heap_stats_now(w.heap, &stats);
    ck_assert_uint_eq(stats.grow_count, w.growths);
    world_end();
}
END_TEST

START_TEST(every_step_of_a_small_heap_is_sound)
{
    size_t steps = support_rounds(1500);
    world_start(layouts[_i], 256, 11 + (uint64_t)_i);
    for (size_t i = 0; i < steps; i++) {
        step_random(true);
        ask();
        bool scavenge = below(20) == 0;
        if (scavenge)
            (void)vmk_heap_scavenge(w.heap, SIZE_MAX);
        must_be_sound(scavenge);
    }
    ck_assert_uint_eq(w.refused, 0);
    world_end();
}
END_TEST

/* Regions far apart, and a span in each: all between them is nobody's. */
START_TEST(holes_belong_to_nobody)
{
    world_start(VMK_LAYOUT_LIMITED, PAGES_MOST, 20);
    while (w.ranges < 2 && w.count < SPANS_MOST)
        step_alloc(64, 0, 0);
    ck_assert(w.ranges >= 2 || w.planted[0].base == NULL);
    for (size_t i = 0; i + 1 < w.ranges; i++) {
        for (uint64_t at = w.grown[i].high; at < w.grown[i + 1].low; at += PAGE) {
            MUST(vmk_span_find(w.heap, (uintptr_t)at) == NULL);
            MUST(vmk_span_find(w.heap, (uintptr_t)at + PAGE - 1) == NULL);
        }
        MUST(vmk_span_find(w.heap, (uintptr_t)w.grown[i].low) != NULL);
        MUST(vmk_span_find(w.heap, (uintptr_t)w.grown[i + 1].low) != NULL);
    }
    must_be_sound(false);
    world_end();
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap_span_random");
    TCase *tests = tcase_create("heap_span_random");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, random_operations_against_an_ordered_map, 0, LAYOUTS);
    tcase_add_loop_test(tests, every_step_of_a_small_heap_is_sound, 0, LAYOUTS);
    tcase_add_test(tests, holes_belong_to_nobody);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
