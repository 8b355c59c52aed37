/* SPDX-License-Identifier: MIT
 *
 * The check of a whole heap, for tests: every invariant that heap.h names, each looked at from both its sides.
 */
#include "common/heap/heap.h"

#include "common/table/table.h"
#include "common/vm/vm.h"

typedef struct tally {
    size_t in_use;
    size_t idle;
    size_t released;
    size_t spans;
} tally;

/* A span starts here: is its record as it should be, and its every entry? Entries of neighbours are not looked at. */
static bool span_check(const vmki_heap *heap, size_t page)
{
    uint32_t id = heap->view.spans[page];
    if (id >= heap->records_made)
        return false;
    const vmk_span *span = &heap->view.records[id];
    if (span->id != id || (uintptr_t)span->base != heap->view.origin + (page << VMK_HEAP_PAGE_SHIFT) ||
        span->pages == 0 || span->pages > vmki_heap_grown_end(heap, page) - page)
        return false;
    for (size_t i = 0; i < span->pages; i++)
        if (heap->view.spans[page + i] != id || heap->view.classes[page + i] != heap->view.classes[page])
            return false;
    if ((span->flags & VMK_SPAN_MARKS) != 0 && !vmki_pages_all(&heap->pages, VMKI_PAGE_MARKS, true, page, span->pages))
        return false;
    return vmki_pages_all(&heap->pages, VMKI_PAGE_FREE, false, page, span->pages) &&
           vmki_pages_all(&heap->pages, VMKI_PAGE_HELD, true, page, span->pages);
}

/* Every published page is of a span that starts in its run of arenas, or free; what is held is committed. */
static bool pages_check(const vmki_heap *heap, size_t first, size_t end, tally *sum)
{
    for (size_t page = first; page < end;) {
        uint32_t id = heap->view.spans[page];
        if (id != 0) {
            if (!span_check(heap, page))
                return false;
            sum->spans++;
            sum->in_use += heap->view.records[id].pages;
            page += heap->view.records[id].pages;
            continue;
        }
        if (!vmki_pages_all(&heap->pages, VMKI_PAGE_FREE, true, page, 1) || heap->view.classes[page] != 0)
            return false;
        bool held = vmki_pages_all(&heap->pages, VMKI_PAGE_HELD, true, page, 1);
        sum->idle += held;
        sum->released += !held;
        page++;
    }
    return true;
}

/* Is what is held committed, and what was decommitted not? */
static bool arena_check(vmki_heap *heap, vmki_arena *arena)
{
    vmk_region *region = vmki_arena_region(heap, arena);
    size_t offset = vmki_arena_offset(heap, arena, arena->first);
    size_t committed = vmki_vm_committed(region, offset, arena->pages << VMK_HEAP_PAGE_SHIFT) >> VMK_HEAP_PAGE_SHIFT;
    size_t held = arena->grown == 0 ? 0 : vmki_pages_count(&heap->pages, VMKI_PAGE_HELD, arena->first, arena->grown);
    if (arena->pages == 0 || arena->grown > arena->pages || !vmki_region_check(region) || committed < held)
        return false;
    for (size_t page = arena->first, length;
         page < arena->first + arena->grown &&
         vmki_pages_next(&heap->pages, VMKI_PAGE_HELD, true, &page, arena->first + arena->grown, &length);
         page += length) {
        size_t run;
        if (vmki_vm_query(region, vmki_arena_offset(heap, arena, page), &run) != VMK_STATE_COMMITTED ||
            run < length << VMK_HEAP_PAGE_SHIFT)
            return false;
    }
    return true;
}

static bool records_check(const vmki_heap *heap, const tally *sum)
{
    size_t free_records = 0;
    for (uint32_t id = heap->records_free; id != 0; id = (uint32_t)(uintptr_t)heap->view.records[id].owner)
        if (id >= heap->records_made || ++free_records >= heap->records_made)
            return false;
    return heap->span_count == sum->spans && heap->span_count + free_records + 1 == heap->records_made;
}

bool vmki_heap_check(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_of(view);
    const vmki_arena *arenas = vmki_heap_arenas(heap);
    size_t reserved = 0, grown = 0;
    tally sum = {0};
    for (size_t i = 0; i < heap->arena_count; i++) {
        size_t end = arenas[i].first + arenas[i].pages;
        if (end > heap->plan.window_pages || (i > 0 && arenas[i - 1].first + arenas[i - 1].pages > arenas[i].first) ||
            !arena_check(heap, vmki_heap_arenas(heap) + i))
            return false;
        reserved += arenas[i].pages;
        grown += arenas[i].grown;
        /* Where arenas follow each other without a gap a span may go on from one to the next: look at them as one. */
        bool goes_on = i > 0 && arenas[i - 1].first + arenas[i - 1].grown == arenas[i].first;
        if (!goes_on && arenas[i].grown > 0 &&
            !pages_check(heap, arenas[i].first, vmki_heap_grown_end(heap, arenas[i].first), &sum))
            return false;
    }
    return reserved == heap->arena_reserved && grown == sum.in_use + sum.idle + sum.released &&
           sum.in_use == heap->in_use && sum.idle == heap->idle && sum.released == heap->released &&
           heap->pages.free_count == heap->idle + heap->released && vmki_table_check(&heap->spans) &&
           vmki_table_check(&heap->records) && vmki_table_check(&heap->bitmap) && vmki_table_check(&heap->arenas) &&
           vmki_pages_check(&heap->pages) && records_check(heap, &sum);
}
