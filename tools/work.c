/* SPDX-License-Identifier: MIT
 *
 * Random operations on spans. Every page of a span is written at both ends, with what tells it from all others, and
 * read before it is given up; so a page that is handed out twice, or lost by a resize or a scavenge, is noticed.
 */
#include <inttypes.h>
#include <time.h>

#include "tool.h"

enum {
    HANDFUL = 8,                                         /* spans that are had in any case */
    HELD_MAX = 1 << 14,                                  /* spans at a time */
    PAGES_MAX = (128 << 20) / (1 << VMK_HEAP_PAGE_SHIFT) /* pages in use at a time, and half of that in the end */
};

/* A span and what it should contain. */
typedef struct held {
    vmk_span *span;
    uint32_t tag;
    uint32_t first; /* number of its first page in the span that it was once cut from */
} held;

VMK_TABLE_DEFINE(held_table, held);

typedef struct workload {
    vmk_heap *heap;
    held_table table;
    size_t count; /* spans held */
    size_t pages; /* in them */
    size_t pages_wanted;
    uint64_t random;
    work_counts *counts;
    const char *wrong; /* what the library did wrong, if it did */
} workload;

/* splitmix64 */
static uint64_t next_random(workload *w)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(workload *w, size_t bound)
{
    return (size_t)(next_random(w) % bound);
}

/* --- contents ----------------------------------------------------------------------------------------------------- */

/* Never 0: a page that is all zero was not written. */
static unsigned char pattern(const held *h, size_t page)
{
    uint32_t mixed = (h->tag ^ (h->first + (uint32_t)page)) * 2654435761u;
    return (unsigned char)(mixed >> 24 | 1);
}

static unsigned char *page_of(const held *h, size_t page)
{
    return h->span->base + (page << VMK_HEAP_PAGE_SHIFT);
}

static void write_pages(const held *h, size_t from, size_t to)
{
    for (size_t page = from; page < to; page++) {
        unsigned char *at = page_of(h, page);
        at[0] = at[VMK_HEAP_PAGE_SIZE - 1] = pattern(h, page);
    }
}

/* Are the pages as they were written; or all zero, where that is said of them? */
static bool pages_hold(workload *w, const held *h, size_t from, size_t to, bool zero)
{
    bool hold = true;
    for (size_t page = from; page < to && hold; page++) {
        const unsigned char *at = page_of(h, page);
        unsigned char expected = zero ? 0 : pattern(h, page);
        hold = at[0] == expected && at[VMK_HEAP_PAGE_SIZE - 1] == expected;
        w->counts->bytes_checked += 2;
    }
    return hold;
}

static void check(workload *w, bool holds, const char *what)
{
    if (!holds && w->wrong == NULL)
        w->wrong = what;
}

/* A span has new pages: look at them, write them. */
static void take_pages(workload *w, const held *h, size_t from, size_t to)
{
    if ((h->span->flags & VMK_SPAN_ZERO) != 0)
        check(w, pages_hold(w, h, from, to, true), "pages that should be zero are not");
    if ((h->span->flags & VMK_SPAN_MARKS) != 0) {
        unsigned char *marks = vmk_span_marks(w->heap, h->span);
        size_t last = to * (VMK_HEAP_PAGE_SIZE / 128) - 1;
        check(w, marks[from * (VMK_HEAP_PAGE_SIZE / 128)] == 0 && marks[last] == 0, "mark bits are not zero");
        marks[last] = 0xff;
    }
    write_pages(h, from, to);
    w->pages += to - from;
}

/* --- operations --------------------------------------------------------------------------------------------------- */

/* Mostly small ones; of the larger sorts all magnitudes alike. */
static size_t random_pages(workload *w)
{
    size_t sort = below(w, 100);
    if (sort < 90)
        return 1 + below(w, 16);
    return 1 + below(w, (size_t)1 << (sort < 99 ? 5 + below(w, 4) : 9 + below(w, 4)));
}

static void free_one(workload *w)
{
    size_t at = below(w, w->count);
    held *h = held_table_at(&w->table, at);
    vmk_span *span = h->span;
    uintptr_t inside = (uintptr_t)span->base + below(w, span->pages << VMK_HEAP_PAGE_SHIFT);
    check(w, vmk_span_find(w->heap, inside) == span, "an address in a span is not found to be there");
    check(w, pages_hold(w, h, 0, span->pages, false), "the contents of a span have changed");
    w->counts->frees++;
    w->pages -= span->pages;
    w->count--;
    *h = *held_table_at(&w->table, w->count);
    vmk_span_free(w->heap, span);
    check(w, vmk_span_find(w->heap, inside) == NULL, "an address is found to be in a span that was freed");
}

/* The system or a limit says no: let go of an eighth of all spans. */
static void make_room(workload *w, vmk_status status)
{
    w->counts->refused[status]++;
    for (size_t i = w->count / 8 + 1; i > 0 && w->count > 0; i--)
        free_one(w);
}

static void hold(workload *w, held h)
{
    *held_table_at(&w->table, w->count++) = h;
}

static vmk_status room_to_hold(workload *w)
{
    return held_table_ensure(&w->table, w->count + 1);
}

static vmk_status alloc_one(workload *w, size_t pages)
{
    static const unsigned flags[] = {0, 0, VMK_SPAN_ZERO, VMK_SPAN_MARKS};
    held h = {.tag = (uint32_t)next_random(w)};
    size_t align = below(w, 16) == 0 ? VMK_HEAP_PAGE_SIZE << below(w, 5) : 0;
    vmk_status status = room_to_hold(w);
    if (status == VMK_OK)
        status = vmk_span_alloc(w->heap, pages, align, flags[below(w, 4)], &h.span);
    if (status != VMK_OK)
        return status;
    check(w, h.span->pages == pages, "a span has not the size asked for");
    check(w, align == 0 || ((uintptr_t)h.span->base & (align - 1)) == 0, "a span is not aligned as asked for");
    take_pages(w, &h, 0, pages);
    hold(w, h);
    w->counts->allocs++;
    return VMK_OK;
}

static vmk_status resize_one(workload *w)
{
    const held *h = held_table_at(&w->table, below(w, w->count));
    size_t before = h->span->pages;
    size_t after = 1 + below(w, before + before / 2 + 4);
    if (after < before)
        check(w, pages_hold(w, h, after, before, false), "the contents of a span have changed");
    vmk_status status = vmk_span_resize(w->heap, h->span, after);
    if (status == VMK_ERR_TAKEN) {
        w->counts->blocked++;
        return VMK_OK;
    }
    if (status != VMK_OK)
        return status;
    check(w, h->span->pages == after, "a span has not the size that it was given");
    if (after > before) {
        take_pages(w, h, before, after);
        w->counts->grown++;
    } else if (after < before) {
        w->pages -= before - after;
        w->counts->shrunk++;
    }
    return VMK_OK;
}

static vmk_status split_one(workload *w)
{
    held *h = held_table_at(&w->table, below(w, w->count));
    size_t pages = h->span->pages;
    if (pages == 1)
        return VMK_OK;
    size_t kept = 1 + below(w, pages - 1);
    held rest = {.tag = h->tag, .first = h->first + (uint32_t)kept};
    vmk_status status = room_to_hold(w);
    if (status == VMK_OK)
        status = vmk_span_split(w->heap, h->span, kept, &rest.span);
    if (status != VMK_OK)
        return status;
    check(w, h->span->pages == kept && rest.span->pages == pages - kept, "a span was not cut where it should be");
    check(w, rest.span->base == page_of(h, kept), "the rest of a span is not behind it");
    hold(w, rest);
    w->counts->splits++;
    return VMK_OK;
}

static void operate(workload *w)
{
    size_t choice = below(w, 100);
    size_t capacity = w->table.table.capacity;
    vmk_status status = VMK_OK;
    if (w->count == 0 || (choice < 45 && w->pages < w->pages_wanted && w->count < capacity))
        status = alloc_one(w, random_pages(w));
    else if (choice < 75 || w->pages >= w->pages_wanted || w->count == capacity)
        free_one(w);
    else if (choice < 90)
        status = resize_one(w);
    else
        status = split_one(w);
    w->counts->operations++;
    if (status != VMK_OK)
        make_room(w, status);
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

static size_t idle_now(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats.idle;
}

static vmk_status run(workload *w, uint64_t operations)
{
    vmk_status status = VMK_OK;
    for (size_t i = 0; i < HANDFUL && status == VMK_OK; i++)
        status = alloc_one(w, 1 + i % 4);
    if (status != VMK_OK)
        return status;
    w->pages_wanted = PAGES_MAX;
    for (uint64_t i = 0; i < operations && w->wrong == NULL; i++) {
        if (i == operations - operations / 4) /* so that something is free in the end */
            w->pages_wanted = PAGES_MAX / 2;
        operate(w);
    }
    if (operations > 0)
        w->counts->scavenged = vmk_heap_scavenge(w->heap, idle_now(w->heap) / 2);
    for (size_t i = 0; i < w->count; i++) {
        const held *h = held_table_at(&w->table, i);
        check(w, pages_hold(w, h, 0, h->span->pages, false), "the contents of a span have changed");
    }
    vmk_heap_stats stats;
    vmk_heap_stats_now(w->heap, &stats);
    check(w, stats.spans == w->count && stats.in_use == w->pages << VMK_HEAP_PAGE_SHIFT,
          "the heap counts other spans in use than there are");
    return VMK_OK;
}

int work_run(vmk_heap *heap, uint64_t operations, uint64_t seed, work_counts *counts)
{
    static workload w; /* ends with the program, as the spans do */
    vmk_table_config config = {.capacity = HELD_MAX, .min_capacity = 2 * HANDFUL};
    *counts = (work_counts){.seed = seed};
    w = (workload){.heap = heap, .random = seed, .counts = counts};
    vmk_status status = held_table_init_as(&w.table, &config);
    if (status != VMK_OK) {
        complain("no room for the list of spans: %s", vmk_status_text(status));
        return TOOL_FAILED;
    }
    clock_t start = clock();
    status = run(&w, operations);
    counts->milliseconds = (uint64_t)(clock() - start) * 1000 / CLOCKS_PER_SEC;
    held_table_fini(&w.table);
    if (w.wrong != NULL) {
        complain("%s; after %" PRIu64 " operations with --seed %" PRIu64, w.wrong, counts->operations, seed);
        return TOOL_WRONG;
    }
    if (status != VMK_OK) {
        complain("the heap was made, but has no room for a handful of spans: %s (%s)", vmk_status_name(status),
                 vmk_status_text(status));
        return TOOL_FAILED;
    }
    return TOOL_DONE;
}

uint64_t work_refused(const work_counts *counts)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < VMK_STATUS_COUNT; i++)
        sum += counts->refused[i];
    return sum;
}
