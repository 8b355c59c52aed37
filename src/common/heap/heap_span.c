/* SPDX-License-Identifier: MIT
 *
 * Spans. What can fail is done first: a record, the memory, the mark bits; then the span comes into being by stores
 * that can't. A free span is nothing but bits: it has no record, and its entries are 0.
 */
#include "common/heap/heap.h"

#include <string.h>

#include "common/base/check.h"
#include "common/heap/tools.h"

#define MARKS_SIZE (VMK_HEAP_PAGE_SIZE / 128) /* bytes of mark bits for a page */

/* --- records ---------------------------------------------------------------------------------------------------- */

static vmk_span *record_at(const vmki_heap *heap, uint32_t id)
{
    return &heap->view.records[id];
}

/* A record for a span; nothing is taken yet. */
static vmk_status record_ready(vmki_heap *heap, uint32_t *id)
{
    if (heap->records_free != 0) {
        *id = heap->records_free;
        return VMK_OK;
    }
    vmk_status status = vmk_table_ensure(&heap->records, (size_t)heap->records_made + 1 + VMKI_SKEW);
    if (status == VMK_OK)
        *id = heap->records_made;
    return status;
}

static vmk_span *record_take(vmki_heap *heap, uint32_t id)
{
    vmk_span *span = record_at(heap, id);
    if (id == heap->records_free)
        heap->records_free = (uint32_t)(uintptr_t)span->owner;
    else
        heap->records_made++;
    heap->span_count++;
    return span;
}

static void record_give(vmki_heap *heap, vmk_span *span)
{
    span->state = VMKI_SPAN_FREE;
    span->owner = (void *)(uintptr_t)heap->records_free;
    heap->records_free = span->id;
    heap->span_count--;
}

/* What is wrong with a span that was passed in, or NULL. Under the lock. */
static const char *span_crime(const vmki_heap *heap, const vmk_span *span)
{
    uintptr_t offset = (uintptr_t)span - (uintptr_t)heap->view.records;
    if (offset % sizeof(vmk_span) != 0 || offset / sizeof(vmk_span) == 0 ||
        offset / sizeof(vmk_span) >= heap->records_made)
        return "not a span of this heap";
    return span->state == VMKI_SPAN_LIVE ? NULL : "span was freed before";
}

/* Take the lock, and the span for a live one; else it is misuse. */
static vmki_heap *enter(vmk_heap *view, const vmk_span *span, const char *no_heap, const char *foreign,
                        const char *freed)
{
    vmki_heap *heap = vmki_heap_require(view, no_heap);
    vmki_heap_lock(heap);
    const char *crime = span_crime(heap, span);
    if (VMKI_UNLIKELY(crime != NULL)) {
        vmki_heap_unlock(heap);
        vmki_misuse(crime[0] == 'n' ? foreign : freed, span);
    }
    return heap;
}

#define ENTER(heap, span, function)                                                                                    \
    enter(heap, span, function ": not a heap", function ": not a span of this heap", function ": span was freed before")

/* --- entries ---------------------------------------------------------------------------------------------------- */

static size_t page_of(const vmki_heap *heap, const vmk_span *span)
{
    return ((uintptr_t)span->base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
}

static unsigned char *page_at(const vmki_heap *heap, size_t page)
{
    return (unsigned char *)(heap->view.origin + (page << VMK_HEAP_PAGE_SHIFT));
}

/* The span table's entries of a range. Release, for those who look up without the lock: the record first, then its id.
 */
static void entries_set(vmki_heap *heap, size_t first, size_t count, uint32_t id)
{
    uint32_t *entries = vmk_table_at(&heap->spans, 0, first);
    for (size_t i = 0; i < count; i++)
        VMKI_STORE_RELEASE(&entries[i], id);
}

static void classes_set(vmki_heap *heap, size_t first, size_t count, uint8_t class_of_size)
{
    memset(vmk_table_at(&heap->spans, 1, first), class_of_size, count);
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* Commit released pages of one arena again. */
static vmk_status piece_hold(vmki_heap *heap, vmki_arena *arena, size_t first, size_t count)
{
    vmk_region *region = vmki_arena_region(heap, arena);
    size_t offset = vmki_arena_offset(heap, arena, first), size = count << VMK_HEAP_PAGE_SHIFT;
    vmk_status status = vmk_commit(region, offset, size);
    if (status != VMK_OK)
        return status;
    vmk_reuse(region, offset, size);
    vmki_pages_assign(&heap->pages, VMKI_PAGE_HELD, first, count, true);
    heap->released -= count;
    heap->idle += count;
    return VMK_OK;
}

/* Have the free pages of a range held: of one arena, or of several in a row. What was released comes in units of the
 * system's page, which may be more than one of the heap's. What has been committed before a failure is idle. */
static vmk_status pages_hold(vmki_heap *heap, size_t first, size_t count)
{
    size_t unit = vmki_max(vmk_page_size() >> VMK_HEAP_PAGE_SHIFT, 1), length;
    size_t from = vmki_floor(first, unit), limit = vmki_ceil(first + count, unit);
    while (vmki_pages_next(&heap->pages, VMKI_PAGE_HELD, false, &from, limit, &length)) {
        vmki_arena *arena = vmki_heap_arena_above(heap, from);
        size_t piece = vmki_min(length, arena->first + arena->pages - from);
        vmk_status status = piece_hold(heap, arena, from, piece);
        if (status != VMK_OK)
            return status;
        from += piece;
    }
    return VMK_OK;
}

/* Have the mark bits of a range ready: by groups, so that neighbours find them so. They are zero, since spans that are
 * freed leave them so. */
static vmk_status marks_ready(vmki_heap *heap, size_t first, size_t count)
{
    if (vmki_pages_all(&heap->pages, VMKI_PAGE_MARKS, true, first, count))
        return VMK_OK;
    size_t low = vmki_floor(first, VMKI_MARKS_GROUP), high = vmki_ceil(first + count, VMKI_MARKS_GROUP);
    vmk_status status = vmk_table_ensure_range(&heap->bitmap, low, high - low);
    if (status == VMK_OK)
        vmki_pages_assign(&heap->pages, VMKI_PAGE_MARKS, low, high - low, true);
    return status;
}

/* Clear what may not be zero of pages in use. Without the lock while it clears: they are the caller's. */
static void pages_clear(vmki_heap *heap, size_t first, size_t limit)
{
    size_t length;
    for (;; first += length) {
        vmki_heap_lock(heap);
        bool found = vmki_pages_next(&heap->pages, VMKI_PAGE_DIRTY, true, &first, limit, &length);
        vmki_heap_unlock(heap);
        if (!found)
            return;
        memset(page_at(heap, first), 0, length << VMK_HEAP_PAGE_SHIFT);
    }
}

/* Have the memory and the mark bits of free pages ready for a span. What it has done stays done on failure. */
static vmk_status pages_prepare(vmki_heap *heap, size_t first, size_t count, unsigned flags)
{
    vmk_status status = VMK_OK;
    if (heap->released != 0)
        status = pages_hold(heap, first, count);
    if (status == VMK_OK && (flags & VMK_SPAN_MARKS) != 0)
        status = marks_ready(heap, first, count);
    return status;
}

/* Free, held pages become part of the span with this id. */
static void pages_take(vmki_heap *heap, size_t first, size_t count, uint32_t id)
{
    vmki_tools_open(page_at(heap, first), count << VMK_HEAP_PAGE_SHIFT);
    vmki_pages_set_used(&heap->pages, first, count);
    entries_set(heap, first, count, id);
    heap->idle -= count;
    heap->in_use += count;
    heap->in_use_peak = vmki_max(heap->in_use_peak, heap->in_use);
}

/* The reverse. Whatever the pages of a live span hold may have been written. */
static void pages_give(vmki_heap *heap, size_t first, size_t count, unsigned flags)
{
    vmki_tools_close(page_at(heap, first), count << VMK_HEAP_PAGE_SHIFT);
    entries_set(heap, first, count, 0);
    if ((flags & VMK_SPAN_MARKS) != 0)
        memset(vmk_table_at(&heap->bitmap, 0, first), 0, count * MARKS_SIZE);
    vmki_pages_assign(&heap->pages, VMKI_PAGE_DIRTY, first, count, true);
    vmki_pages_set_free(&heap->pages, first, count);
    for (size_t chunk = first >> VMKI_CHUNK_SHIFT; chunk <= (first + count - 1) >> VMKI_CHUNK_SHIFT; chunk++)
        *vmki_pages_time(&heap->pages, chunk) = heap->tick;
    heap->in_use -= count;
    heap->idle += count;
}

/* --- alloc and free --------------------------------------------------------------------------------------------- */

/* Under the lock. *dirty tells whether anything must be cleared to make it zero. */
static vmk_status span_alloc(vmki_heap *heap, size_t pages, size_t align, unsigned flags, vmk_span **result,
                             bool *dirty)
{
    size_t first = vmki_pages_find(&heap->pages, pages, align);
    vmk_status status;
    uint32_t id;
    if (!vmki_heap_allows(heap, pages))
        return VMK_ERR_LIMIT;
    if (first == SIZE_MAX) {
        status = vmki_heap_grow(heap, pages, align);
        if (status != VMK_OK)
            return status;
        first = vmki_pages_find(&heap->pages, pages, align);
        VMKI_ASSERT(first != SIZE_MAX);
    }
    status = record_ready(heap, &id);
    if (status == VMK_OK)
        status = pages_prepare(heap, first, pages, flags);
    if (status != VMK_OK)
        return status;
    *dirty = !vmki_pages_all(&heap->pages, VMKI_PAGE_DIRTY, false, first, pages);
    vmk_span *span = record_take(heap, id);
    span->base = page_at(heap, first);
    span->pages = pages;
    span->owner = NULL;
    span->id = id;
    span->flags = (uint16_t)(flags & VMK_SPAN_MARKS);
    span->state = VMKI_SPAN_LIVE;
    if (!*dirty || (flags & VMK_SPAN_ZERO) != 0)
        span->flags |= VMK_SPAN_ZERO;
    pages_take(heap, first, pages, id);
    *result = span;
    return VMK_OK;
}

vmk_status vmki_span_alloc(vmki_heap *heap, size_t pages, size_t align, unsigned flags, bool asks, vmk_span **result)
{
    if (align == 0)
        align = VMK_HEAP_PAGE_SIZE;
    if (pages == 0 || pages > SIZE_MAX >> VMK_HEAP_PAGE_SHIFT || !vmki_is_power_of_two(align) ||
        (flags & ~(unsigned)(VMK_SPAN_ZERO | VMK_SPAN_MARKS)) != 0)
        return VMK_ERR_ARGUMENT;
    size_t align_pages = vmki_max(align >> VMK_HEAP_PAGE_SHIFT, 1);
    if (pages > heap->plan.window_pages || align_pages > heap->plan.window_pages + heap->pages.bias)
        return VMK_ERR_LIMIT;
    vmki_os_error before = vmki_os_error_get();
    vmk_span *span;
    bool dirty;
    vmk_status status;
    do {
        vmki_heap_lock(heap);
        status = span_alloc(heap, pages, align_pages, flags, &span, &dirty);
        vmki_heap_unlock(heap);
    } while (status != VMK_OK && asks && vmki_heap_again(heap, pages << VMK_HEAP_PAGE_SHIFT, status));
    if (status != VMK_OK)
        return status;
    if (dirty && (flags & VMK_SPAN_ZERO) != 0) {
        size_t first = page_of(heap, span);
        pages_clear(heap, first, first + pages);
    }
    *result = span;
    vmki_os_error_set(before);
    return VMK_OK;
}

vmk_status vmk_span_alloc(vmk_heap *view, size_t pages, size_t align, unsigned flags, vmk_span **result)
{
    return vmki_span_alloc(vmki_heap_require(view, "vmk_span_alloc: not a heap"), pages, align, flags, true, result);
}

void vmk_span_free(vmk_heap *view, vmk_span *span)
{
    vmki_heap *heap = ENTER(view, span, "vmk_span_free");
    size_t first = page_of(heap, span);
    if (heap->view.classes[first] != 0)
        classes_set(heap, first, span->pages, 0);
    pages_give(heap, first, span->pages, span->flags);
    record_give(heap, span);
    vmki_heap_unlock(heap);
}

/* --- resize, split, class --------------------------------------------------------------------------------------- */

/* Make [first, first + count) free pages, by growing if they are the last. */
static vmk_status pages_behind(vmki_heap *heap, size_t first, size_t count)
{
    size_t end = vmki_heap_grown_end(heap, first - 1);
    size_t there = end > first ? vmki_min(end - first, count) : 0;
    if (there > 0 && !vmki_pages_all(&heap->pages, VMKI_PAGE_FREE, true, first, there))
        return VMK_ERR_TAKEN;
    return there < count ? vmki_heap_grow_at(heap, end, count - there) : VMK_OK;
}

/* Under the lock; *dirty as in span_alloc. */
static vmk_status span_extend(vmki_heap *heap, vmk_span *span, size_t more, bool *dirty)
{
    size_t first = page_of(heap, span), end = first + span->pages;
    if (more > heap->plan.window_pages - end)
        return VMK_ERR_TAKEN;
    if (!vmki_heap_allows(heap, more))
        return VMK_ERR_LIMIT;
    vmk_status status = pages_behind(heap, end, more);
    if (status == VMK_OK)
        status = pages_prepare(heap, end, more, span->flags);
    if (status != VMK_OK)
        return status;
    *dirty = (span->flags & VMK_SPAN_ZERO) != 0 && !vmki_pages_all(&heap->pages, VMKI_PAGE_DIRTY, false, end, more);
    span->pages += more;
    if (heap->view.classes[first] != 0)
        classes_set(heap, end, more, heap->view.classes[first]);
    pages_take(heap, end, more, span->id);
    return VMK_OK;
}

static void span_shorten(vmki_heap *heap, vmk_span *span, size_t pages)
{
    size_t end = page_of(heap, span) + pages, fewer = span->pages - pages;
    if (heap->view.classes[end] != 0)
        classes_set(heap, end, fewer, 0);
    span->pages = pages;
    pages_give(heap, end, fewer, span->flags);
}

vmk_status vmk_span_resize(vmk_heap *view, vmk_span *span, size_t pages)
{
    bool dirty = false;
    vmk_status status = VMK_OK;
    if (pages == 0 || pages > SIZE_MAX >> VMK_HEAP_PAGE_SHIFT)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmki_heap *heap = ENTER(view, span, "vmk_span_resize");
    size_t first = page_of(heap, span), old = span->pages;
    if (pages > old)
        status = span_extend(heap, span, pages - old, &dirty);
    else if (pages < old)
        span_shorten(heap, span, pages);
    vmki_heap_unlock(heap);
    if (dirty)
        pages_clear(heap, first + old, first + pages);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_span_split(vmk_heap *view, vmk_span *span, size_t pages, vmk_span **rest)
{
    uint32_t id;
    vmki_os_error before = vmki_os_error_get();
    vmki_heap *heap = ENTER(view, span, "vmk_span_split");
    vmk_status status = pages > 0 && pages < span->pages ? record_ready(heap, &id) : VMK_ERR_ARGUMENT;
    if (status == VMK_OK) {
        vmk_span *second = record_take(heap, id);
        *second = *span;
        second->base += pages << VMK_HEAP_PAGE_SHIFT;
        second->pages -= pages;
        second->id = id;
        span->pages = pages;
        entries_set(heap, page_of(heap, second), second->pages, id);
        *rest = second;
        vmki_os_error_set(before);
    }
    vmki_heap_unlock(heap);
    return status;
}

void vmk_span_set_class(vmk_heap *view, vmk_span *span, uint8_t class_of_size)
{
    vmki_heap *heap = ENTER(view, span, "vmk_span_set_class");
    classes_set(heap, page_of(heap, span), span->pages, class_of_size);
    vmki_heap_unlock(heap);
}
