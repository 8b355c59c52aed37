/* SPDX-License-Identifier: MIT
 *
 * Spans: each promise by itself. The tests named after the seed are of the defects of the heap that this one comes
 * from; random operations are in test_heap_span_random.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/heap/heap.h"
#include "common/heap/tools.h"
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

static vmk_heap *heap_64(size_t window)
{
    return heap_make(&(vmk_heap_options){.layout = VMK_LAYOUT_64, .window = window});
}

static void heap_end(vmk_heap *heap)
{
    ck_assert(vmki_heap_check(heap));
    vmk_heap_destroy(heap);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

static vmk_span *take(vmk_heap *heap, size_t pages, unsigned flags)
{
    vmk_span *span = NULL;
    ck_assert_int_eq(vmk_span_alloc(heap, pages, 0, flags, &span), VMK_OK);
    ck_assert_uint_eq(span->pages, pages);
    return span;
}

static vmk_heap_stats stats_of(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats;
}

static bool all_are(const unsigned char *bytes, size_t size, unsigned char value)
{
    return size == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static bool all_zero(const vmk_span *span)
{
    return all_are(span->base, span->pages * PAGE, 0);
}

/* --- merging ---------------------------------------------------------------------------------------------------- */

static const unsigned char orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

/* Three neighbours freed in every order are one: at the first page of the window, in the middle, at the last page that
 * has grown, and across chunks. */
static void merges_in_order(const unsigned char *order, size_t before, size_t each, bool last)
{
    vmk_heap *heap = heap_64(16 * MIB);
    vmk_span *spans[3], *first = before == 0 ? NULL : take(heap, before, 0), *behind = NULL;
    for (int i = 0; i < 3; i++)
        spans[i] = take(heap, each, 0);
    vmk_heap_stats stats = stats_of(heap);
    if (last)
        ck_assert_int_eq(vmk_span_resize(heap, spans[2], each + stats.idle / PAGE), VMK_OK);
    else
        behind = take(heap, 1, 0);
    size_t pages = spans[0]->pages + spans[1]->pages + spans[2]->pages;
    unsigned char *base = spans[0]->base;
    uint64_t grown = stats_of(heap).grow_count;
    for (int i = 0; i < 3; i++) {
        vmk_span_free(heap, spans[order[i]]);
        ck_assert(vmki_heap_check(heap));
    }
    vmk_span *all = take(heap, pages, 0);
    ck_assert_ptr_eq(all->base, base);
    ck_assert_uint_eq(stats_of(heap).grow_count, grown);
    ck_assert(first == NULL || vmk_span_find(heap, (uintptr_t)base - 1) == first);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)base + pages * PAGE), behind);
    heap_end(heap);
}

START_TEST(seed_defect_1_forward_merging_is_on)
{
    merges_in_order(orders[_i], 0, 3, false);
    merges_in_order(orders[_i], 5, 3, false);
    merges_in_order(orders[_i], 5, 3, true);
    merges_in_order(orders[_i], 0, 400, false);
    merges_in_order(orders[_i], 511, CHUNK, true);
}
END_TEST

START_TEST(the_lowest_place_is_taken)
{
    vmk_heap *heap = heap_64(16 * MIB);
    vmk_span *spans[12];
    for (int i = 0; i < 12; i++)
        spans[i] = take(heap, 1 + (size_t)i % 4, 0); /* 1 2 3 4 1 2 3 4 1 2 3 4 */
    unsigned char *three = spans[2]->base, *four = spans[7]->base, *one = spans[8]->base;
    vmk_span_free(heap, spans[8]);
    vmk_span_free(heap, spans[7]);
    vmk_span_free(heap, spans[2]);
    ck_assert_ptr_eq(take(heap, 4, 0)->base, four);
    ck_assert_ptr_eq(take(heap, 2, 0)->base, three);
    ck_assert_ptr_eq(take(heap, 1, 0)->base, three + 2 * PAGE);
    ck_assert_ptr_eq(take(heap, 1, 0)->base, one);
    heap_end(heap);
}
END_TEST

/* --- full windows ----------------------------------------------------------------------------------------------- */

/* The table of spans is one entry longer than the window, and has it in its own pages. */
START_TEST(seed_defect_2_a_full_window_has_its_last_slot)
{
    size_t pages = (size_t)(_i + 1) * CHUNK;
    vmk_heap *heap = heap_64(pages * PAGE);
    vmk_span *span, *last = NULL, *first = take(heap, 1, 0);
    for (size_t i = 1; i < pages; i++) {
        last = take(heap, 1, 0);
        MUST((uintptr_t)last->base == heap->origin + i * PAGE);
    }
    vmk_span was = *last;
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_ERR_LIMIT);
    ck_assert_int_eq(vmk_span_alloc(heap, pages + 1, 0, 0, &span), VMK_ERR_LIMIT);
    ck_assert_int_eq(vmk_span_resize(heap, last, 2), VMK_ERR_TAKEN);
    ck_assert_uint_eq(heap->limit, pages);
    ck_assert_uint_eq(heap->spans[pages], 0);
    ck_assert_uint_eq(heap->classes[pages], 0);
    ck_assert_uint_eq(heap->spans[pages - 1], last->id);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)last->base + PAGE - 1), last);
    ck_assert_ptr_null(vmk_span_find(heap, (uintptr_t)last->base + PAGE));
    ck_assert(memcmp(&was, last, sizeof was) == 0);
    ck_assert(all_are((const unsigned char *)&heap->records[0], sizeof(vmk_span), 0));
    vmk_heap_stats stats = stats_of(heap);
    ck_assert_uint_le((uintptr_t)(heap->classes + pages + 1), stats.part[VMK_HEAP_RECORDS].base);
    ck_assert_uint_eq(stats.idle, 0);
    /* What follows the last page is not looked at when it is freed, nor what is before the first. */
    vmk_span_free(heap, vmk_span_find(heap, (uintptr_t)last->base - 1));
    vmk_span_free(heap, last);
    vmk_span_free(heap, first);
    vmk_span_free(heap, vmk_span_find(heap, heap->origin + PAGE));
    ck_assert_uint_eq((uintptr_t)take(heap, 2, 0)->base, heap->origin);
    ck_assert_uint_eq((uintptr_t)take(heap, 2, 0)->base, heap->origin + (pages - 2) * PAGE);
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_ERR_LIMIT);
    heap_end(heap);
}
END_TEST

static size_t up(size_t size)
{
    return vmk_page_ceil(size);
}

/* Entries of so many pages: an id, a class, an owner, each in pages of its own. */
static size_t spans_committed(size_t pages)
{
    return up(pages * 4) + up(pages) + up(pages * sizeof(uintptr_t));
}

/* What of the table is committed is what has grown and one entry more, which can be read: at each 512 pages too. */
START_TEST(spans_grow_by_formula)
{
    vmk_heap *heap = heap_make(&(vmk_heap_options){.layout = VMK_LAYOUT_64, .window = 32 * MIB, .step = 4 * MIB});
    ck_assert_uint_eq(stats_of(heap).part[VMK_HEAP_SPANS].committed, 0);
    for (size_t chunk = 1; chunk <= 8; chunk++) {
        vmk_span *span = take(heap, CHUNK, 0);
        size_t pages = chunk * CHUNK;
        ck_assert_uint_eq(heap->limit, pages);
        ck_assert_uint_eq(stats_of(heap).part[VMK_HEAP_SPANS].committed, spans_committed(pages + 1));
        ck_assert_uint_eq(*(const volatile uint32_t *)&heap->spans[pages], 0);
        ck_assert_uint_eq(*(const volatile uint8_t *)&heap->classes[pages], 0);
        ck_assert_uint_eq(heap->spans[pages - 1], span->id);
        ck_assert_uint_eq(heap->spans[0], vmk_span_find(heap, heap->origin)->id);
    }
    heap_end(heap);
}
END_TEST

/* Entries are counted from the start of the window, wherever that is: above 2 GiB too, if the system grants it. */
START_TEST(seed_defect_3_the_index_is_relative)
{
    static const uint64_t hints[] = {0x90000000u, 0xa0000000u, (uint64_t)0x6000 << 32};
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        if (hints[i] > UINTPTR_MAX)
            continue;
        for (int j = 0; j < LAYOUTS; j++) {
            vmk_heap *heap =
                heap_make(&(vmk_heap_options){.layout = layouts[j], .window = 8 * MIB, .hint = (uintptr_t)hints[i]});
            vmk_span *span = take(heap, 3, VMK_SPAN_MARKS);
            size_t page = ((uintptr_t)span->base - heap->origin) / PAGE;
            ck_assert_uint_eq(heap->origin % VMKI_CHUNK_SIZE, 0);
            ck_assert_uint_eq(heap->spans[page + 2], span->id);
            ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)span->base + 3 * PAGE - 1), span);
            ck_assert_ptr_null(vmk_span_find(heap, (uintptr_t)span->base - 1));
            vmk_table_stats spans, marks;
            vmk_table_stats_now(&vmki_heap_of(heap)->spans, &spans);
            vmk_table_stats_now(&vmki_heap_of(heap)->bitmap, &marks);
            ck_assert_uint_le(spans.committed, spans_committed(CHUNK) + 3 * vmk_page_size());
            ck_assert_uint_le(marks.committed, 2 * vmk_page_size());
            ck_assert(layouts[j] != VMK_LAYOUT_64 || page == 0);
            heap_end(heap);
        }
    }
}
END_TEST

/* --- zero ------------------------------------------------------------------------------------------------------- */

START_TEST(zero_is_known_and_made)
{
    vmk_heap *heap = heap_64(32 * MIB);
    vmk_span *fresh = take(heap, 40, 0);
    ck_assert_uint_eq(fresh->flags, VMK_SPAN_ZERO);
    ck_assert(all_zero(fresh));
    memset(fresh->base, 0xa5, 40 * PAGE);
    vmk_span_free(heap, fresh);
    vmk_span *again = take(heap, 20, VMK_SPAN_MARKS);
    ck_assert_uint_eq(again->flags, VMK_SPAN_MARKS);
    vmk_span_free(heap, again);
    again = take(heap, 20, VMK_SPAN_ZERO);
    ck_assert_uint_eq(again->flags, VMK_SPAN_ZERO);
    ck_assert(all_zero(again));
    vmki_tools_open(again->base + 20 * PAGE, 20 * PAGE);          /* free pages, which are nobody's to look at */
    ck_assert(all_are(again->base + 20 * PAGE, 20 * PAGE, 0xa5)); /* no more was cleared than asked */
    memset(again->base, 0xa5, 20 * PAGE);
    ck_assert_int_eq(vmk_span_resize(heap, again, 64), VMK_OK); /* dirty pages, and then fresh ones */
    ck_assert(all_are(again->base, 20 * PAGE, 0xa5));
    ck_assert(all_are(again->base + 20 * PAGE, 44 * PAGE, 0));
    vmk_span_free(heap, again);
    ck_assert_uint_ge(vmk_heap_scavenge(heap, SIZE_MAX), 64 * PAGE);
    again = take(heap, 64, 0);
    ck_assert_uint_eq(again->flags, VMK_SPAN_ZERO);
    ck_assert(all_zero(again));
    heap_end(heap);
}
END_TEST

/* A span that was shortened, or cut, leaves pages behind that were written. */
START_TEST(what_was_part_of_a_span_is_dirty)
{
    vmk_heap *heap = heap_64(8 * MIB);
    vmk_span *span = take(heap, 16, VMK_SPAN_ZERO), *rest;
    memset(span->base, 0xa5, 16 * PAGE);
    ck_assert_int_eq(vmk_span_resize(heap, span, 8), VMK_OK);
    ck_assert_uint_eq(take(heap, 8, 0)->flags, 0);
    ck_assert_int_eq(vmk_span_split(heap, span, 4, &rest), VMK_OK);
    ck_assert_uint_eq(rest->flags, VMK_SPAN_ZERO); /* they were, when it was handed out */
    vmk_span_free(heap, rest);
    ck_assert(all_zero(take(heap, 4, VMK_SPAN_ZERO)));
    heap_end(heap);
}
END_TEST

#ifndef VMKIT_MODEL
static size_t resident_of(const vmk_span *span)
{
    support_figures figures = {0};
    return support_system_figures(span->base, span->pages * PAGE, &figures) ? figures.resident : 0;
}

START_TEST(fresh_memory_is_never_cleared)
{
    vmk_heap *heap = heap_64(128 * MIB);
    vmk_span *span = take(heap, 4096, VMK_SPAN_ZERO);
    ck_assert_uint_eq(resident_of(span), 0);
    ck_assert_int_eq(vmk_span_resize(heap, span, 8192), VMK_OK);
    ck_assert_uint_eq(resident_of(span), 0);
    memset(span->base, 1, 64 * PAGE);
    vmk_span_free(heap, span);
    (void)vmk_heap_scavenge(heap, SIZE_MAX);
    span = take(heap, 8192, VMK_SPAN_ZERO);
    ck_assert_uint_eq(resident_of(span), 0); /* by the system's word, not by ours */
    ck_assert(all_zero(span));
    heap_end(heap);
}
END_TEST
#endif

/* --- mark bits -------------------------------------------------------------------------------------------------- */

static void marks_set(vmk_heap *heap, const vmk_span *span)
{
    memset(vmk_span_marks(heap, span), 0xff, span->pages * MARKS);
}

static bool marks_are(vmk_heap *heap, const vmk_span *span, size_t from, size_t count, unsigned char value)
{
    return all_are(vmk_span_marks(heap, span) + from * MARKS, count * MARKS, value);
}

START_TEST(marks_are_zero_when_handed_out)
{
    vmk_heap *heap = heap_64(8 * MIB);
    vmk_span *low = take(heap, 3, VMK_SPAN_MARKS), *span = take(heap, 5, VMK_SPAN_MARKS), *rest;
    vmk_span *high = take(heap, 3, VMK_SPAN_MARKS);
    ck_assert(marks_are(heap, low, 0, 11, 0));
    marks_set(heap, low);
    marks_set(heap, span);
    marks_set(heap, high);
    vmk_span_free(heap, span);
    span = take(heap, 5, VMK_SPAN_MARKS);
    ck_assert(marks_are(heap, span, 0, 5, 0));
    marks_set(heap, span);
    ck_assert_int_eq(vmk_span_resize(heap, span, 2), VMK_OK);
    ck_assert_int_eq(vmk_span_resize(heap, span, 5), VMK_OK);
    ck_assert(marks_are(heap, span, 0, 2, 0xff));
    ck_assert(marks_are(heap, span, 2, 3, 0));
    marks_set(heap, span);
    ck_assert_int_eq(vmk_span_split(heap, span, 1, &rest), VMK_OK);
    ck_assert(marks_are(heap, rest, 0, 4, 0xff)); /* a cut changes nothing */
    vmk_span_free(heap, rest);
    ck_assert(marks_are(heap, take(heap, 4, VMK_SPAN_MARKS), 0, 4, 0));
    ck_assert(marks_are(heap, span, 0, 1, 0xff));
    ck_assert(marks_are(heap, low, 0, 3, 0xff));
    ck_assert(marks_are(heap, high, 0, 3, 0xff));
    heap_end(heap);
}
END_TEST

/* Pages of the system that marks have touched, and no others, are committed. */
START_TEST(marks_grow_by_formula)
{
    static bool touched[64 * MIB / PAGE * MARKS / 4096];
    size_t os_page = vmk_page_size(), expected = 0;
    support_random random = support_random_start(30);
    vmk_heap *heap = heap_64(48 * MIB);
    memset(touched, 0, sizeof touched);
    for (size_t pages = 0; pages + 300 < 48 * MIB / PAGE;) {
        bool with = support_random_below(&random, 3) == 0;
        vmk_span *span = take(heap, 1 + support_random_below(&random, 200), with ? VMK_SPAN_MARKS : 0);
        size_t first = pages * MARKS / os_page;
        pages += span->pages;
        for (size_t i = first; with && i <= (pages * MARKS - 1) / os_page; i++) {
            expected += touched[i] ? 0 : os_page;
            touched[i] = true;
        }
        vmk_table_stats stats;
        vmk_table_stats_now(&vmki_heap_of(heap)->bitmap, &stats);
        ck_assert_uint_eq(stats.committed, expected);
        ck_assert_uint_eq(stats_of(heap).part[VMK_HEAP_BITMAP].committed, stats.committed + stats.overhead);
    }
    ck_assert_uint_gt(expected, 0);
#ifndef VMKIT_MODEL
    for (size_t i = 0; i < 48 * MIB / PAGE * MARKS / os_page; i++)
        MUST(support_readable(heap->marks + i * os_page) == touched[i]);
#endif
    heap_end(heap);
}
END_TEST

START_TEST(no_marks_no_bitmap)
{
    vmk_heap *heap = heap_64(16 * MIB);
    vmk_span *span = take(heap, 1000, VMK_SPAN_ZERO);
    ck_assert_int_eq(vmk_span_resize(heap, span, 1200), VMK_OK);
    ck_assert_uint_eq(stats_of(heap).part[VMK_HEAP_BITMAP].committed, 0);
    vmk_span_free(heap, span);
    (void)vmk_heap_scavenge(heap, SIZE_MAX);
    ck_assert_uint_eq(stats_of(heap).part[VMK_HEAP_BITMAP].committed, 0);
    heap_end(heap);
}
END_TEST

/* --- resize and split ------------------------------------------------------------------------------------------- */

START_TEST(resize_takes_what_is_free_behind)
{
    vmk_heap *heap = heap_64(16 * MIB);
    vmk_span *span = take(heap, 4, 0), *next = take(heap, 4, 0), *last = take(heap, 1, 0);
    vmk_span_set_class(heap, span, 7);
    ck_assert_int_eq(vmk_span_resize(heap, span, 5), VMK_ERR_TAKEN);
    vmk_span_free(heap, next);
    ck_assert_int_eq(vmk_span_resize(heap, span, 6), VMK_OK);
    ck_assert_uint_eq(vmk_heap_class(heap, span->base + 6 * PAGE - 1), 7);
    ck_assert_uint_eq(heap->classes[6], 0);
    next = take(heap, 2, 0);
    ck_assert_ptr_eq(next->base, span->base + 6 * PAGE);
    vmk_span_free(heap, next);
    ck_assert_int_eq(vmk_span_resize(heap, span, 9), VMK_ERR_TAKEN);
    ck_assert_uint_eq(span->pages, 6);
    ck_assert_ptr_null(vmk_span_find(heap, (uintptr_t)span->base + 6 * PAGE));
    ck_assert_int_eq(vmk_span_resize(heap, span, 8), VMK_OK);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)last->base - 1), span);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)last->base), last);
    ck_assert_int_eq(vmk_span_resize(heap, span, 8), VMK_OK);
    ck_assert_int_eq(vmk_span_resize(heap, span, 1), VMK_OK);
    ck_assert_uint_eq(heap->classes[1], 0);
    ck_assert_ptr_eq(take(heap, 7, 0)->base, span->base + PAGE);
    heap_end(heap);
}
END_TEST

START_TEST(resize_grows_the_arena)
{
    vmk_heap *heap = heap_64(8 * MIB);
    vmk_span *span = take(heap, 1, 0);
    size_t idle = stats_of(heap).idle / PAGE;
    memset(span->base, 1, PAGE);
    ck_assert_int_eq(vmk_span_resize(heap, span, 1 + idle), VMK_OK);
    ck_assert_uint_eq(stats_of(heap).grow_count, 1);
    ck_assert_int_eq(vmk_span_resize(heap, span, 2 + idle), VMK_OK);
    ck_assert_uint_eq(stats_of(heap).grow_count, 2);
    ck_assert_int_eq(vmk_span_resize(heap, span, 1024), VMK_OK);
    ck_assert_int_eq(vmk_span_resize(heap, span, 1025), VMK_ERR_TAKEN);
    ck_assert_uint_eq(span->pages, 1024);
    ck_assert(all_are(span->base, PAGE, 1));
    vmk_heap_stats stats = stats_of(heap);
    ck_assert_uint_eq(stats.in_use, 1024 * PAGE);
    ck_assert_uint_eq(stats.in_use_peak, 1024 * PAGE);
    ck_assert_uint_eq(stats.spans, 1);
    ck_assert_int_eq(vmk_span_resize(heap, span, 1), VMK_OK);
    ck_assert_uint_eq(stats_of(heap).idle, 1023 * PAGE);
    ck_assert_uint_eq(stats_of(heap).in_use_peak, 1024 * PAGE);
    heap_end(heap);
}
END_TEST

START_TEST(halves_of_a_split_merge_again)
{
    vmk_heap *heap = heap_64(8 * MIB);
    vmk_span *before = take(heap, 1, 0), *span = take(heap, 10, 0), *rest = NULL, *behind = take(heap, 1, 0);
    int mine;
    span->owner = &mine;
    vmk_span_set_class(heap, span, 9);
    ck_assert_int_eq(vmk_span_split(heap, span, 4, &rest), VMK_OK);
    ck_assert_uint_eq(rest->pages, 6);
    ck_assert_ptr_eq(rest->owner, &mine);
    ck_assert_uint_eq(vmk_heap_class(heap, rest->base), 9);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)rest->base - 1), span);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)rest->base), rest);
    ck_assert_uint_eq(stats_of(heap).spans, 4);
    vmk_span_free(heap, _i == 0 ? span : rest);
    vmk_span_free(heap, _i == 0 ? rest : span);
    ck_assert_uint_eq(heap->classes[10], 0);
    ck_assert_ptr_eq(take(heap, 10, 0)->base, before->base + PAGE);
    ck_assert_ptr_eq(vmk_span_find(heap, (uintptr_t)behind->base), behind);
    heap_end(heap);
}
END_TEST

/* --- arguments -------------------------------------------------------------------------------------------------- */

START_TEST(bad_arguments_change_nothing)
{
    const size_t too_many = SIZE_MAX / PAGE + 1, most = SIZE_MAX / PAGE;
    vmk_heap *heap = heap_64(8 * MIB);
    vmk_span mark, *span = take(heap, 3, 0), *out = &mark;
    uint64_t grown = stats_of(heap).grow_count;
    size_t committed = stats_of(heap).committed;
    errno = 4711;
    ck_assert_int_eq(vmk_span_alloc(heap, 0, 0, 0, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_alloc(heap, too_many, 0, 0, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_alloc(heap, SIZE_MAX, 0, 0, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 3 * PAGE, 0, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_alloc(heap, 1, SIZE_MAX, 0, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_alloc(heap, 1, 0, 4, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_alloc(heap, most, 0, 0, &out), VMK_ERR_LIMIT);
    ck_assert_int_eq(vmk_span_alloc(heap, 1025, 0, 0, &out), VMK_ERR_LIMIT);
    ck_assert_int_eq(vmk_span_alloc(heap, 1024, 0, 0, &out), VMK_ERR_LIMIT); /* there is one already */
    ck_assert_int_eq(vmk_span_alloc(heap, 1, SIZE_MAX / 2 + 1, 0, &out), VMK_ERR_LIMIT);
    ck_assert_int_eq(vmk_span_resize(heap, span, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_resize(heap, span, too_many), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_resize(heap, span, most), VMK_ERR_TAKEN);
    ck_assert_int_eq(vmk_span_split(heap, span, 0, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_split(heap, span, 3, &out), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_span_split(heap, span, SIZE_MAX, &out), VMK_ERR_ARGUMENT);
    ck_assert_ptr_eq(out, &mark);
    ck_assert_uint_eq(span->pages, 3);
    ck_assert_uint_eq(stats_of(heap).grow_count, grown);
    ck_assert_uint_eq(stats_of(heap).committed, committed);
    ck_assert_uint_eq(stats_of(heap).spans, 1);
    ck_assert(vmki_heap_check(heap));
    for (size_t align = 1; align <= 4 * MIB; align *= 2) { /* less than a page is a page's */
        ck_assert_int_eq(vmk_span_alloc(heap, 1, align, 0, &out), VMK_OK);
        ck_assert_uint_eq((uintptr_t)out->base % (align > PAGE ? align : PAGE), 0);
        vmk_span_free(heap, out);
    }
    ck_assert_int_eq(errno, 4711);
    heap_end(heap);
}
END_TEST

/* --- statistics ------------------------------------------------------------------------------------------------- */

/* Every byte is of a part, the tables' too, and what a part says is what the system says. */
START_TEST(seed_defect_6_every_byte_is_counted)
{
    vmk_stats before, after;
    vmk_stats_now(&before);
    vmk_heap *heap = heap_make(&(vmk_heap_options){.layout = layouts[_i], .window = 32 * MIB});
    for (int i = 0; i < 40; i++)
        vmk_span_free(heap, take(heap, 1 + (size_t)i % 7, i % 2 ? VMK_SPAN_MARKS : 0));
    vmk_span *span = take(heap, 700, VMK_SPAN_MARKS);
    vmk_heap_stats stats = stats_of(heap);
    vmk_stats_now(&after);
    size_t reserved = 0, committed = 0;
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        reserved += stats.part[part].reserved;
        committed += stats.part[part].committed;
        ck_assert_uint_gt(stats.part[part].committed, 0);
        ck_assert(part == 0 || part == VMK_HEAP_ARENA ||
                  stats.part[part].base == stats.part[part - 1].base + stats.part[part - 1].reserved);
#ifndef VMKIT_MODEL
        support_figures figures;
        if (stats.part[part].base != 0 &&
            support_system_figures((void *)stats.part[part].base, stats.part[part].reserved, &figures)) {
            ck_assert_uint_eq(figures.reserved, stats.part[part].reserved);
            ck_assert_uint_eq(figures.committed, stats.part[part].committed);
        }
#endif
    }
    ck_assert_uint_eq(stats.reserved, reserved);
    ck_assert_uint_eq(stats.committed, committed);
    ck_assert_uint_eq(after.reserved - before.reserved, reserved);
    ck_assert_uint_eq(after.committed - before.committed, committed);
    ck_assert_uint_eq(after.regions - before.regions, stats.regions);
    ck_assert_uint_eq(stats.in_use, 700 * PAGE);
    ck_assert_uint_eq(stats.in_use + stats.idle + stats.released, stats.part[VMK_HEAP_ARENA].committed);
    ck_assert_uint_ge((uintptr_t)span->base, stats.window);
    heap_end(heap);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.committed, before.committed);
    ck_assert_uint_eq(after.regions, before.regions);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap_span");
    TCase *tests = tcase_create("heap_span");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, seed_defect_1_forward_merging_is_on, 0, 6);
    tcase_add_test(tests, the_lowest_place_is_taken);
    tcase_add_loop_test(tests, seed_defect_2_a_full_window_has_its_last_slot, 0, 2);
    tcase_add_test(tests, spans_grow_by_formula);
    tcase_add_test(tests, seed_defect_3_the_index_is_relative);
    tcase_add_test(tests, zero_is_known_and_made);
    tcase_add_test(tests, what_was_part_of_a_span_is_dirty);
    tcase_add_test(tests, marks_are_zero_when_handed_out);
    tcase_add_test(tests, marks_grow_by_formula);
    tcase_add_test(tests, no_marks_no_bitmap);
    tcase_add_test(tests, resize_takes_what_is_free_behind);
    tcase_add_test(tests, resize_grows_the_arena);
    tcase_add_loop_test(tests, halves_of_a_split_merge_again, 0, 2);
    tcase_add_test(tests, bad_arguments_change_nothing);
    tcase_add_loop_test(tests, seed_defect_6_every_byte_is_counted, 0, LAYOUTS);
#ifndef VMKIT_MODEL
    tcase_add_test(tests, fresh_memory_is_never_cleared);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
