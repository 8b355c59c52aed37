/* SPDX-License-Identifier: MIT
 *
 * Figures that add up, and the walk of all ranges.
 */
#include "common/heap/heap.h"

#include "common/base/check.h"
#include "common/vm/vm.h"

const char *vmk_heap_part_name(vmk_heap_part part)
{
#define PART_NAME(name, text) text,
    static const char *const names[] = {VMK_HEAP_PART_TABLE(PART_NAME)};
#undef PART_NAME
    return (unsigned)part < VMK_HEAP_PARTS ? names[part] : "unknown";
}

const char *vmk_layout_name(vmk_layout layout)
{
    static const char *const names[] = {"auto", "64-bit", "limited", "32-bit"};
    return (unsigned)layout < sizeof names / sizeof names[0] ? names[layout] : "unknown";
}

/* --- statistics ------------------------------------------------------------------------------------------------- */

static void arena_figures(vmki_heap *heap, vmk_heap_stats *stats)
{
    size_t reserved = 0, committed = 0;
    vmki_vm_lock();
    for (size_t i = 0; i < heap->arena_count; i++) {
        vmki_arena *arena = vmki_heap_arenas(heap) + i;
        size_t size = arena->pages << VMK_HEAP_PAGE_SHIFT;
        reserved += size;
        committed +=
            vmki_vm_committed(vmki_arena_region(heap, arena), vmki_arena_offset(heap, arena, arena->first), size);
    }
    vmki_vm_unlock();
    stats->part[VMK_HEAP_ARENA].reserved = reserved;
    stats->part[VMK_HEAP_ARENA].committed = committed;
    if (heap->arena_count == 1)
        stats->part[VMK_HEAP_ARENA].base = heap->view.origin + (vmki_heap_arenas(heap)->first << VMK_HEAP_PAGE_SHIFT);
}

static void meta_figures(vmki_heap *heap, vmk_heap_stats *stats)
{
    vmki_vm_lock();
    for (unsigned part = 0; part < VMK_HEAP_ARENA; part++) {
        size_t offset = heap->plan.offset[part], size = heap->plan.size[part];
        /* What lies between two parts, to align the next, is of the first. */
        size_t end = part + 1u < VMK_HEAP_ARENA             ? heap->plan.offset[part + 1]
                     : heap->plan.size[VMK_HEAP_ARENA] != 0 ? heap->plan.offset[VMK_HEAP_ARENA]
                                                            : heap->meta.size;
        stats->part[part].base = (uintptr_t)heap->meta.base + offset;
        stats->part[part].reserved = end - offset;
        stats->part[part].committed = vmki_vm_committed(&heap->meta, offset, size);
    }
    vmki_vm_unlock();
}

/* What only objects need lies elsewhere, and is counted with what it is most like. */
static void objects_figures(const vmki_heap *heap, vmk_heap_stats *stats)
{
    vmk_table_stats bits, slabs;
    vmk_table_stats_now(&heap->objects.bits, &bits);
    vmk_table_stats_now(&heap->objects.slabs, &slabs);
    stats->part[VMK_HEAP_BITMAP].reserved += bits.reserved;
    stats->part[VMK_HEAP_BITMAP].committed += bits.committed + bits.overhead;
    stats->part[VMK_HEAP_RECORDS].reserved += slabs.reserved;
    stats->part[VMK_HEAP_RECORDS].committed += slabs.committed + slabs.overhead;
}

void vmk_heap_stats_now(vmk_heap *view, vmk_heap_stats *stats)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_stats_now: not a heap");
    *stats = (vmk_heap_stats){.layout = heap->plan.layout, .window = heap->view.origin};
    stats->window_size = (uint64_t)heap->plan.window_pages << VMK_HEAP_PAGE_SHIFT;
    vmki_heap_lock(heap);
    meta_figures(heap, stats);
    arena_figures(heap, stats);
    if (heap->objects.begun)
        objects_figures(heap, stats);
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        stats->reserved += stats->part[part].reserved;
        stats->committed += stats->part[part].committed;
    }
    stats->in_use = heap->in_use << VMK_HEAP_PAGE_SHIFT;
    stats->idle = heap->idle << VMK_HEAP_PAGE_SHIFT;
    stats->released = heap->released << VMK_HEAP_PAGE_SHIFT;
    stats->in_use_peak = heap->in_use_peak << VMK_HEAP_PAGE_SHIFT;
    stats->spans = heap->span_count;
    stats->regions = (heap->plan.layout == VMK_LAYOUT_64 ? 1 : 1 + heap->arena_count) + (heap->objects.begun ? 2u : 0);
    stats->grow_count = heap->grow_count;
    stats->released_total = heap->released_total << VMK_HEAP_PAGE_SHIFT;
    vmki_heap_unlock(heap);
}

/* --- walk ------------------------------------------------------------------------------------------------------- */

/* The range that starts at a page of an arena. */
static vmk_range range_at(const vmki_heap *heap, const vmki_arena *arena, size_t page)
{
    size_t grown_end = arena->first + arena->grown, end = arena->first + arena->pages, length = end - page;
    vmk_range range = {.base = (unsigned char *)(heap->view.origin + (page << VMK_HEAP_PAGE_SHIFT)),
                       .use = VMK_RANGE_RESERVED};
    if (page < grown_end) {
        uint32_t id = heap->view.spans[page];
        size_t first = page;
        if (id != 0) {
            range.use = VMK_RANGE_IN_USE;
            range.span = &heap->view.records[id];
            length = range.span->pages - (size_t)(range.base - range.span->base) / VMK_HEAP_PAGE_SIZE;
            length = vmki_min(length, end - page); /* a span over two arenas is two ranges */
        } else if (vmki_pages_next(&heap->pages, VMKI_PAGE_IDLE, true, &first, grown_end, &length) && first == page) {
            range.use = VMK_RANGE_IDLE;
        } else {
            first = page;
            (void)vmki_pages_next(&heap->pages, VMKI_PAGE_RELEASED, true, &first, grown_end, &length);
            range.use = VMK_RANGE_RELEASED;
        }
    }
    range.size = length << VMK_HEAP_PAGE_SHIFT;
    return range;
}

void vmk_heap_walk(vmk_heap *view, vmk_range_visitor *visit, void *context)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_walk: not a heap");
    bool go_on = true;
    vmki_heap_lock(heap);
    for (size_t i = 0; i < heap->arena_count && go_on; i++) {
        const vmki_arena *arena = vmki_heap_arenas(heap) + i;
        for (size_t page = arena->first; page < arena->first + arena->pages && go_on;) {
            vmk_range range = range_at(heap, arena, page);
            page += range.size >> VMK_HEAP_PAGE_SHIFT;
            go_on = visit(context, &range);
        }
    }
    vmki_heap_unlock(heap);
}
