/* SPDX-License-Identifier: MIT
 *
 * Growth: memory, tables, hook, publication, in this order; a failure undoes what went before.
 *
 * A heap grows at the end of an arena's published part, where free pages that are already there count towards the
 * request; failing that, by a region right behind the one got last, so that the two are used as one; failing that, by a
 * region wherever the system grants one, if the window has it in it.
 */
#include "common/heap/heap.h"

#include "common/base/check.h"
#include "common/vm/vm.h"

/* Growing costs system calls and, on some systems, commit charge for what is not used yet: an eighth of what there is
 * keeps both small. */
enum { GROWTH_DIVISOR = 8 };
#define GROWTH_MIN ((size_t)256 << 10)
#define GROWTH_MAX ((size_t)64 << 20)
#define HUGE_FROM ((size_t)32 << 20)
#define REGION_STEP_32 ((size_t)64 << 20)

#define QUANTUM_PAGES (VMKI_QUANTUM >> VMK_HEAP_PAGE_SHIFT)

/* --- arenas ----------------------------------------------------------------------------------------------------- */

vmk_region *vmki_arena_region(vmki_heap *heap, vmki_arena *arena)
{
    return arena->own.base != NULL ? &arena->own : &heap->meta;
}

size_t vmki_arena_offset(const vmki_heap *heap, const vmki_arena *arena, size_t page)
{
    size_t offset = (page - arena->first) << VMK_HEAP_PAGE_SHIFT;
    return arena->own.base != NULL ? offset : heap->plan.offset[VMK_HEAP_ARENA] + offset;
}

static size_t arena_end(const vmki_arena *arena)
{
    return arena->first + arena->pages;
}

static size_t arena_grown_end(const vmki_arena *arena)
{
    return arena->first + arena->grown;
}

vmki_arena *vmki_heap_arena_above(const vmki_heap *heap, size_t page)
{
    vmki_arena *arenas = vmki_heap_arenas(heap);
    size_t low = 0, high = heap->arena_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (arena_end(&arenas[middle]) > page)
            high = middle;
        else
            low = middle + 1;
    }
    return low < heap->arena_count ? &arenas[low] : NULL;
}

vmk_status vmki_heap_arena_add(vmki_heap *heap, const vmki_arena *arena)
{
    if (heap->arena_count == heap->arenas.capacity)
        return VMK_ERR_MAPPINGS;
    vmk_status status = vmk_table_ensure(&heap->arenas, heap->arena_count + 1);
    if (status != VMK_OK)
        return status;
    vmki_arena *arenas = vmki_heap_arenas(heap);
    size_t at = heap->arena_count++;
    for (; at > 0 && arenas[at - 1].first > arena->first; at--)
        arenas[at] = arenas[at - 1];
    arenas[at] = *arena;
    heap->recent_arena = at;
    heap->arena_reserved += arena->pages;
    return VMK_OK;
}

/* An arena that has not grown yet. */
static void arena_remove(vmki_heap *heap, size_t at)
{
    vmki_arena *arenas = vmki_heap_arenas(heap);
    VMKI_ASSERT(arenas[at].grown == 0 && arenas[at].own.base != NULL);
    vmk_release(&arenas[at].own);
    heap->arena_reserved -= arenas[at].pages;
    heap->arena_count--;
    for (; at < heap->arena_count; at++)
        arenas[at] = arenas[at + 1];
    heap->recent_arena = heap->arena_count - 1;
}

size_t vmki_heap_grown_end(const vmki_heap *heap, size_t page)
{
    vmki_arena *arenas = vmki_heap_arenas(heap);
    size_t end = page;
    for (size_t i = (size_t)(vmki_heap_arena_above(heap, page) - arenas); i < heap->arena_count; i++) {
        if (arenas[i].first > end)
            break;
        end = arena_grown_end(&arenas[i]);
        if (arenas[i].grown < arenas[i].pages)
            break;
    }
    return end;
}

/* --- tables ----------------------------------------------------------------------------------------------------- */

bool vmki_heap_chunk_present(const vmki_heap *heap, size_t chunk)
{
    if (heap->present == NULL)
        return chunk << VMKI_CHUNK_SHIFT < heap->view.limit;
    return (heap->present[chunk / 32] >> chunk % 32 & 1) != 0;
}

/* What of the tables a growth has made ready, to be undone where a later step fails. */
typedef struct tables_made {
    size_t first; /* sparse: whole chunks; dense: pages */
    size_t count;
} tables_made;

static void spans_undo(vmki_heap *heap, tables_made made)
{
    /* Where there is not even memory to note a hole in a table, entries stay ready: zero, and nobody's. */
    VMKI_IGNORE(vmk_table_drop_range(&heap->spans, made.first, heap->plan.sparse ? made.count : SIZE_MAX));
}

static void tables_undo(vmki_heap *heap, tables_made made)
{
    if (made.count == 0)
        return;
    vmki_os_error why = vmki_os_error_get();
    spans_undo(heap, made);
    size_t first_chunk = vmki_ceil(made.first, VMKI_CHUNK_PAGES) >> VMKI_CHUNK_SHIFT;
    size_t end_chunk = vmki_ceil(made.first + made.count, VMKI_CHUNK_PAGES) >> VMKI_CHUNK_SHIFT;
    vmki_pages_drop(&heap->pages, first_chunk, end_chunk - first_chunk);
    vmki_os_error_set(why);
}

/* Make the tables ready for a range of pages. Sparse ones by whole chunks, since that is what `present` can say. */
static vmk_status tables_ensure(vmki_heap *heap, size_t first, size_t count, tables_made *made)
{
    *made = (tables_made){first, count};
    if (heap->plan.sparse) {
        size_t chunk = first >> VMKI_CHUNK_SHIFT;
        size_t end = vmki_ceil(first + count, VMKI_CHUNK_PAGES) >> VMKI_CHUNK_SHIFT;
        while (chunk < end && vmki_heap_chunk_present(heap, chunk)) /* only those at the edges can be */
            chunk++;
        while (chunk < end && vmki_heap_chunk_present(heap, end - 1))
            end--;
        *made = (tables_made){chunk << VMKI_CHUNK_SHIFT, (end - chunk) << VMKI_CHUNK_SHIFT};
    }
    if (made->count == 0)
        return VMK_OK;
    vmk_status status = vmk_table_ensure_range(&heap->spans, made->first, made->count);
    if (status != VMK_OK)
        return status;
    status = vmki_pages_ensure(&heap->pages, made->first, made->count);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        spans_undo(heap, *made);
        vmki_os_error_set(why);
    }
    return status;
}

/* --- growing an arena ------------------------------------------------------------------------------------------- */

/* Let look-ups see the range, and hand its pages out. */
static void publish(vmki_heap *heap, vmki_arena *arena, size_t first, size_t count)
{
    if (heap->present == NULL) {
        VMKI_STORE_RELEASE(&heap->view.limit, first + count);
        VMKI_STORE_RELEASE(&heap->dense_limit, first + count);
    } else {
        for (size_t chunk = first >> VMKI_CHUNK_SHIFT; chunk <= (first + count - 1) >> VMKI_CHUNK_SHIFT; chunk++) {
            uint32_t word = heap->present[chunk / 32] | (uint32_t)1 << chunk % 32;
            VMKI_STORE_RELEASE(&heap->present[chunk / 32], word);
        }
    }
    arena->grown += count;
    vmki_pages_assign(&heap->pages, VMKI_PAGE_HELD, first, count, true);
    vmki_pages_set_free(&heap->pages, first, count);
    heap->idle += count;
    heap->grow_count++;
}

/* Grow by exactly `count` pages, which the arena has. All or nothing. */
static vmk_status arena_grow(vmki_heap *heap, vmki_arena *arena, size_t count)
{
    size_t first = arena_grown_end(arena), size = count << VMK_HEAP_PAGE_SHIFT;
    vmk_region *region = vmki_arena_region(heap, arena);
    size_t offset = vmki_arena_offset(heap, arena, first);
    tables_made made;
    vmk_status status = vmk_commit(region, offset, size);
    if (status != VMK_OK)
        return status;
    status = tables_ensure(heap, first, count, &made);
    if (status == VMK_OK && heap->options.on_grow != NULL) {
        status = heap->options.on_grow(heap->options.on_grow_context, region->base + offset, size);
        if (status != VMK_OK)
            tables_undo(heap, made);
    }
    if (status == VMK_OK) {
        publish(heap, arena, first, count);
        return VMK_OK;
    }
    vmki_os_error why = vmki_os_error_get();
    VMKI_IGNORE(vmk_decommit(region, offset, size)); /* refused: then it stays committed, and untouched: zero */
    vmki_os_error_set(why);
    return status;
}

static size_t grown_size(const vmki_heap *heap)
{
    return (heap->in_use + heap->idle + heap->released) << VMK_HEAP_PAGE_SHIFT;
}

/* Has the heap got so large that what comes is better had in huge pages: the faults of small ones would take far longer
 * than all that is done here? Then the rest of the arena's reservation is advised so, all at once: it is one mapping.
 */
static void advise_huge(vmki_heap *heap, vmki_arena *arena)
{
    if (arena->huge || (heap->options.flags & VMK_HEAP_SMALL_PAGES) != 0 || grown_size(heap) < HUGE_FROM)
        return;
    arena->huge = true;
    size_t from = vmki_ceil(arena_grown_end(arena) + heap->pages.bias, VMKI_CHUNK_PAGES) - heap->pages.bias;
    size_t end = arena->first + arena->pages;
    if (from < end) /* in vain where there are no huge pages, or no mapping is left */
        VMKI_IGNORE(vmk_advise(vmki_arena_region(heap, arena), vmki_arena_offset(heap, arena, from),
                               (end - from) << VMK_HEAP_PAGE_SHIFT, VMK_ADVICE_HUGE));
}

/* How much to grow by when `need` pages are wanted and `room` could be had, behind the page `end`. */
static size_t growth_step(const vmki_heap *heap, size_t end, size_t need, size_t room)
{
    size_t grown = grown_size(heap);
    size_t step = heap->options.step;
    if (step == 0)
        step = vmki_min(vmki_max(grown / GROWTH_DIVISOR, GROWTH_MIN), GROWTH_MAX);
    step >>= VMK_HEAP_PAGE_SHIFT;
    if (step >= VMKI_CHUNK_PAGES) { /* up to the end of a chunk, so of a huge page */
        size_t behind = end + heap->pages.bias;
        step = vmki_floor(behind + step, VMKI_CHUNK_PAGES) - behind;
    }
    step = vmki_max(step, need);
    return vmki_min(vmki_ceil(step, QUANTUM_PAGES), room);
}

/* Grow by at least `need`: by more if that is granted. */
static vmk_status arena_grow_ahead(vmki_heap *heap, vmki_arena *arena, size_t need)
{
    size_t room = arena->pages - arena->grown;
    size_t least = vmki_min(vmki_ceil(need, QUANTUM_PAGES), room);
    advise_huge(heap, arena);
    size_t step = growth_step(heap, arena_grown_end(arena), need, room);
    vmk_status status = arena_grow(heap, arena, step);
    return status != VMK_OK && step > least ? arena_grow(heap, arena, least) : status;
}

/* --- where to grow ---------------------------------------------------------------------------------------------- */

/* How many pages an arena must grow by to have `count` aligned ones at its end; free ones that are there help. */
static size_t need_at(const vmki_heap *heap, size_t at, size_t count, size_t align)
{
    const vmki_arena *arenas = vmki_heap_arenas(heap);
    size_t end = arena_grown_end(&arenas[at]), from = at;
    while (from > 0 && arena_grown_end(&arenas[from - 1]) == arenas[from].first)
        from--;
    size_t start = end - vmki_pages_free_before(&heap->pages, arenas[from].first, end);
    size_t bias = heap->pages.bias;
    start = vmki_ceil(start + bias, align) - bias;
    return start + count - end;
}

/* The address of a page; the window has it. */
static uintptr_t page_address(const vmki_heap *heap, size_t page)
{
    return heap->view.origin + ((uintptr_t)page << VMK_HEAP_PAGE_SHIFT);
}

/* The size of a region to ask for when at least `least` pages are needed, and the heap may have `most`. */
static size_t region_step(const vmki_heap *heap, size_t least, size_t most)
{
    size_t step =
        heap->plan.layout == VMK_LAYOUT_32 ? REGION_STEP_32 >> VMK_HEAP_PAGE_SHIFT : heap->plan.arena_pages / 32;
    return vmki_min(vmki_max(vmki_ceil(step, QUANTUM_PAGES), least), most);
}

/* Reserve from region_step() down to `least`, halving, as `how` says; `least` and `most` are whole quanta. */
static vmk_status region_reserve(vmki_heap *heap, vmk_region *region, size_t least, size_t most,
                                 const vmk_reserve_options *how)
{
    size_t pages = heap->refused ? least : region_step(heap, least, most);
    vmk_status status = vmk_reserve(region, pages << VMK_HEAP_PAGE_SHIFT, how);
    while (status != VMK_OK && pages != least) {
        pages = vmki_max(least, vmki_floor(pages / 2, QUANTUM_PAGES));
        status = vmk_reserve(region, pages << VMK_HEAP_PAGE_SHIFT, how);
    }
    if (status != VMK_ERR_TAKEN) /* that says nothing of other places */
        heap->refused = status != VMK_OK;
    return status;
}

/* Make a region an arena; on failure it is given back. */
static vmk_status region_adopt(vmki_heap *heap, vmk_region *region)
{
    vmki_arena arena = {.own = *region};
    arena.first = ((uintptr_t)region->base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
    arena.pages = region->size >> VMK_HEAP_PAGE_SHIFT;
    vmk_status status = vmki_heap_arena_add(heap, &arena);
    if (status != VMK_OK)
        vmk_release(region);
    return status;
}

/* The arena got last has just been adopted: grow it, or undo that. */
static vmk_status recent_grow(vmki_heap *heap, size_t need)
{
    vmk_status status = arena_grow_ahead(heap, vmki_heap_arenas(heap) + heap->recent_arena, need);
    if (status != VMK_OK)
        arena_remove(heap, heap->recent_arena);
    return status;
}

/* A region right behind the arena got last, so that the two go on without a gap. VMK_ERR_TAKEN: it can't be had. */
static vmk_status grow_by_extension(vmki_heap *heap, size_t count, size_t align, size_t most)
{
    vmki_arena *last = vmki_heap_arenas(heap) + heap->recent_arena;
    size_t end = arena_end(last), room = last->pages - last->grown;
    size_t need = need_at(heap, heap->recent_arena, count, align);
    if (need <= room) /* it could have grown, and was refused: more room is no help */
        return VMK_ERR_TAKEN;
    size_t least = vmki_ceil(need - room, QUANTUM_PAGES);
    most = vmki_min(most, heap->plan.window_pages - end);
    if (least > most)
        return VMK_ERR_LIMIT;
    vmk_region region;
    vmk_reserve_options how = {.hint = (const void *)page_address(heap, end),
                               .flags = VMK_RESERVE_EXACT,
                               .name = vmki_heap_name(heap, VMKI_NAME_SPANS)};
    vmk_status status = region_reserve(heap, &region, least, most, &how);
    if (status == VMK_OK)
        status = region_adopt(heap, &region);
    if (status != VMK_OK)
        return status;
    if (room > 0) { /* the pointer is still good: the new arena stands behind it */
        status = arena_grow(heap, last, room);
        if (status != VMK_OK) {
            arena_remove(heap, heap->recent_arena);
            return status;
        }
    }
    return recent_grow(heap, least);
}

/* A region wherever there is one in the window: where the system likes; or, if that is outside, at some places of our
 * own choice. What lies outside is given back. */
static vmk_status grow_elsewhere(vmki_heap *heap, size_t count, size_t align, size_t most)
{
    enum { PLACES = 8 };
    size_t least = vmki_ceil(count, QUANTUM_PAGES), window = heap->plan.window_pages;
    if (least > most)
        return VMK_ERR_LIMIT;
    size_t end = arena_end(vmki_heap_arenas(heap) + heap->recent_arena), unit = align << VMK_HEAP_PAGE_SHIFT;
    vmk_reserve_options how = {.align = vmki_max(unit, VMKI_QUANTUM), .name = vmki_heap_name(heap, VMKI_NAME_SPANS)};
    vmk_region region;
    vmk_status status = region_reserve(heap, &region, least, most, &how);
    if (status == VMK_OK) {
        size_t first = ((uintptr_t)region.base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
        if (first < window && region.size >> VMK_HEAP_PAGE_SHIFT <= window - first) {
            status = region_adopt(heap, &region);
            return status == VMK_OK ? recent_grow(heap, count) : status;
        }
        vmk_release(&region);
        status = VMK_ERR_TAKEN;
    }
    how.flags = VMK_RESERVE_EXACT;
    for (unsigned i = 0; i < PLACES && status == VMK_ERR_TAKEN; i++) {
        uintptr_t base = vmki_ceil(page_address(heap, (end + i * (window / PLACES)) % window), how.align);
        size_t first = (base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
        if (base == 0 || first >= window || least > window - first)
            continue;
        how.hint = (const void *)base;
        status = vmk_reserve(&region, least << VMK_HEAP_PAGE_SHIFT, &how);
        if (status == VMK_OK)
            status = region_adopt(heap, &region);
        if (status == VMK_OK)
            return recent_grow(heap, count);
    }
    return status == VMK_ERR_TAKEN ? VMK_ERR_ADDRESS_SPACE : status;
}

vmk_status vmki_heap_grow(vmki_heap *heap, size_t count, size_t align)
{
    vmk_status status = VMK_ERR_LIMIT, refused;
    for (size_t i = 0; i < heap->arena_count; i++) {
        vmki_arena *arena = vmki_heap_arenas(heap) + i;
        size_t need = need_at(heap, i, count, align);
        if (need > arena->pages - arena->grown)
            continue;
        status = arena_grow_ahead(heap, arena, need);
        if (status == VMK_OK)
            return VMK_OK;
    }
    if (heap->plan.layout == VMK_LAYOUT_64)
        return status;
    size_t most = vmki_floor(heap->plan.arena_pages - heap->arena_reserved, QUANTUM_PAGES);
    refused = status;
    status = grow_by_extension(heap, count, align, most);
    if (status == VMK_OK)
        return VMK_OK;
    if (refused == VMK_ERR_LIMIT && status != VMK_ERR_TAKEN)
        refused = status;
    status = grow_elsewhere(heap, count, align, most);
    return status == VMK_ERR_LIMIT ? refused : status; /* there was room, if anything was refused */
}

vmk_status vmki_heap_grow_at(vmki_heap *heap, size_t end, size_t count)
{
    vmki_arena *arena = vmki_heap_arena_above(heap, end);
    if (arena == NULL || arena_grown_end(arena) != end || count > arena->pages - arena->grown)
        return VMK_ERR_TAKEN;
    return arena_grow_ahead(heap, arena, count);
}
