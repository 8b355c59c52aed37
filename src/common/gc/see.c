/* SPDX-License-Identifier: MIT
 *
 * Figures, names, and walks over all objects.
 */
#include "common/gc/gc.h"
#include "common/vm/vm.h"

/* --- names -------------------------------------------------------------------------------------------------------- */

const char *vmk_gc_cause_name(vmk_gc_cause cause)
{
    switch (cause) {
#define CASE(name, text)                                                                                               \
    case VMK_GC_CAUSE_##name:                                                                                          \
        return text;
        VMK_GC_CAUSE_TABLE(CASE)
#undef CASE
    case VMK_GC_CAUSE_COUNT:
        break;
    }
    return "unknown";
}

const char *vmk_gc_root_name(vmk_gc_root root)
{
    switch (root) {
#define CASE(name, text)                                                                                               \
    case VMK_GC_ROOT_##name:                                                                                           \
        return text;
        VMK_GC_ROOT_TABLE(CASE)
#undef CASE
    case VMK_GC_ROOT_COUNT:
        break;
    }
    return "unknown";
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

static size_t table_bytes(const vmk_table *table)
{
    vmk_table_stats stats = {0};
    if (table->seal != 0)
        vmk_table_stats_now(table, &stats);
    return stats.committed + stats.overhead;
}

static size_t map_bytes(const vmki_map *map)
{
    return map->capacity != 0 ? map->region.committed : 0;
}

/* What threads change while they run. */
static void module_figures(vmki_gc *gc, vmk_gc_stats *stats)
{
    vmki_gc_acquire(&gc->roots.lock);
    stats->metadata += table_bytes(&gc->roots.table) + map_bytes(&gc->roots.ranges) + map_bytes(&gc->roots.pins);
    vmki_gc_release(&gc->roots.lock);
    vmki_gc_acquire(&gc->finalizers.lock);
    stats->finalizable = gc->finalizers.waiting;
    stats->finalizers = gc->finalizers.set.count - stats->finalizable;
    stats->metadata += vmki_records_bytes(&gc->finalizers.records) + map_bytes(&gc->finalizers.set);
    vmki_gc_release(&gc->finalizers.lock);
    vmki_gc_acquire(&gc->links.lock);
    stats->links = gc->links.map.count;
    stats->metadata += map_bytes(&gc->links.map) + map_bytes(&gc->links.to) + map_bytes(&gc->links.in);
    stats->metadata += vmki_records_bytes(&gc->links.records);
    vmki_gc_release(&gc->links.lock);
    vmki_gc_acquire(&gc->ephemerons.lock);
    stats->ephemerons = gc->ephemerons.records.count;
    stats->metadata += vmki_records_bytes(&gc->ephemerons.records) + map_bytes(&gc->ephemerons.keys);
    vmki_gc_release(&gc->ephemerons.lock);
    vmki_gc_acquire(&gc->leaks.lock);
    stats->metadata += map_bytes(&gc->leaks.sites);
    vmki_gc_release(&gc->leaks.lock);
}

static void heap_figures(vmki_gc *gc, vmk_gc_stats *stats)
{
    vmki_gc_acquire(&gc->lock);
    stats->metadata += table_bytes(&gc->taken_table) + table_bytes(&gc->slab_table) + table_bytes(&gc->bin_table) +
                       table_bytes(&gc->type_table);
    for (const vmki_gc_block *block = gc->blocks; block != NULL; block = block->next) {
        stats->metadata += block->region.committed;
        for (size_t i = 0; i < block->count; i++)
            stats->metadata += table_bytes(&block->caches[i].table);
    }
    vmki_gc_release(&gc->lock);
    vmki_heap *heap = vmki_heap_of(gc->heap);
    vmki_gc_acquire(&heap->lock);
    stats->heap_size = heap->in_use << VMK_HEAP_PAGE_SHIFT;
    vmki_gc_release(&heap->lock);
}

void vmk_gc_stats_now(vmk_gc *given, vmk_gc_stats *stats)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(given, "vmk_gc_stats_now");
    vmki_world_lock();
    *stats = gc->stats;
    stats->threads = vmki_world_count();
    stats->allocated = VMKI_LOAD_RELAXED(&gc->allocated);
    stats->allocated_total = gc->allocated_before + stats->allocated;
    stats->freed_total = gc->freed_before + VMKI_LOAD_RELAXED(&gc->freed_by_hand);
    size_t goal = VMKI_LOAD_RELAXED(&gc->pace.goal);
    stats->next = goal == SIZE_MAX ? SIZE_MAX : goal > stats->allocated ? goal - stats->allocated : 0;
    stats->metadata = vmki_mark_bytes(gc);
    vmki_world_unlock();
    module_figures(gc, stats);
    heap_figures(gc, stats);
}

/* --- walks -------------------------------------------------------------------------------------------------------- */

/* All objects whose bits are in one span's part of the bits. */
static bool each_in(const vmki_gc *gc, const vmk_span *span, uint8_t code,
                    bool (*visit)(void *context, uintptr_t base, uint8_t code), void *context)
{
    size_t first = vmki_gc_granule(gc, (uintptr_t)span->base) / VMKI_WORD_BITS;
    size_t count = vmki_gc_codes[code].size_class == 0
                       ? 1
                       : (span->pages << (VMK_HEAP_PAGE_SHIFT - VMKI_GRANULE_SHIFT)) / VMKI_WORD_BITS;
    for (size_t word = first; word < first + count; word++) {
        uintptr_t base = gc->origin + (word * VMKI_WORD_BITS << VMKI_GRANULE_SHIFT);
        for (size_t bits = VMKI_LOAD_RELAXED(&gc->taken[word]); bits != 0; bits &= bits - 1)
            if (!visit(context, base + ((uintptr_t)vmki_lowest_bit(bits) << VMKI_GRANULE_SHIFT), code))
                return false;
    }
    return true;
}

/* By pages, not by the heap's own walk: that would hold the heap's lock while functions of the program's run. Pages of
 * objects come and go by registered threads alone, which stand still. */
void vmki_gc_each(vmki_gc *gc, bool (*visit)(void *context, uintptr_t base, uint8_t code), void *context)
{
    size_t limit = VMK_LOAD_ACQUIRE(&gc->heap->limit);
    for (size_t page = 0; page < limit;) {
        uintptr_t base = gc->origin + (page << VMK_HEAP_PAGE_SHIFT);
        uint8_t code = vmki_gc_page_code(gc, base);
        if (code == 0) {
            page++;
            continue;
        }
        const vmk_span *span = vmk_span_of(gc->heap, (const void *)base);
        if (!each_in(gc, span, code, visit, context))
            return;
        page += span->pages;
    }
}

vmk_gc_object vmki_gc_describe(const vmki_gc *gc, uintptr_t base, uint8_t code)
{
    const vmk_gc_type *type = vmki_gc_type_of(gc, base);
    return (vmk_gc_object){.base = (void *)base,
                           .size = vmki_gc_size(gc, base, code),
                           .leaf = vmki_gc_codes[code].kind == VMKI_LEAF,
                           .type = type != NULL ? type->name : NULL,
                           .site = vmki_site_of(gc, base)};
}

typedef struct walk {
    vmki_gc *gc;
    vmk_gc_object_visitor *visit;
    void *context;
} walk;

static bool walk_object(void *context, uintptr_t base, uint8_t code)
{
    const walk *w = context;
    vmk_gc_object object = vmki_gc_describe(w->gc, base, code);
    return w->visit(w->context, &object);
}

static void walk_all(vmki_gc *gc, void *argument)
{
    vmki_gc_each(gc, walk_object, argument);
}

void vmk_gc_walk(vmk_gc *given, vmk_gc_object_visitor *visit, void *context)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(given, "vmk_gc_walk");
    walk w = {gc, visit, context};
    vmki_gc_stopped(gc, walk_all, &w);
}
