/* SPDX-License-Identifier: MIT
 *
 * Figures of objects, and the walk. Both look at every span that has objects, and at its bits.
 */
#include "common/heap/object.h"

#include "common/base/check.h"
#include "common/vm/extents.h"
#include "common/vm/vm.h"

/* The objects in use in a word of a slab: not what others have freed, nor what a hardened heap keeps back. */
static size_t in_use(const vmki_heap *heap, const vmki_slab *span, uint32_t i)
{
    const size_t *objects = vmki_objects_word(heap, (uintptr_t)span->base);
    const size_t *remote = vmki_remote_word(heap, (uintptr_t)span->base);
    size_t bits = VMKI_LOAD_RELAXED(&objects[i]) & ~VMKI_LOAD_RELAXED(&remote[i]);
    if ((heap->options.flags & VMK_HEAP_HARDENED) == 0)
        return bits;
    uintptr_t base = (uintptr_t)span->base + ((uintptr_t)i * VMKI_WORD_BITS << VMKI_GRANULE_SHIFT);
    for (size_t rest = bits; rest != 0; rest &= rest - 1)
        if (vmki_hardened_kept_back(heap, span, base + ((uintptr_t)vmki_lowest_bit(rest) << VMKI_GRANULE_SHIFT)))
            bits &= ~(rest & (0 - rest));
    return bits;
}

static size_t slab_objects(const vmki_heap *heap, const vmki_slab *span)
{
    size_t sum = 0;
    uint32_t words = vmki_slab_words(&vmki_classes[span->size_class], span->capacity);
    for (uint32_t i = 0; i < words; i++)
        sum += vmki_ones_in(in_use(heap, span, i));
    return sum;
}

static void count_span(const vmki_heap *heap, const vmki_slab *span, const vmk_cache *only, vmk_object_stats *stats)
{
    uintptr_t keeper = VMKI_LOAD_ACQUIRE(&span->keeper); /* before what it says is a slab */
    bool large = keeper == VMKI_KEEPER_LARGE;
    if (keeper == 0 || (only != NULL && keeper != (uintptr_t)only))
        return;
    vmk_class_stats *c = &stats->by_class[large ? 0 : span->size_class];
    size_t objects = large ? 1 : slab_objects(heap, span);
    c->objects += objects;
    c->bytes += large ? vmki_large_usable(heap, span) : objects * vmki_class_size(span->size_class);
    c->spans++;
    c->span_bytes += span->pages << VMK_HEAP_PAGE_SHIFT;
}

static void count_huge(vmki_heap *heap, vmk_object_stats *stats)
{
    vmki_vm_lock();
    for (uintptr_t at = 0;;) {
        const vmki_extent *extent = vmki_extents_above(heap->objects.huge, at);
        if (extent == NULL)
            break;
        stats->by_class[0].objects++;
        stats->by_class[0].spans++;
        stats->by_class[0].bytes += vmki_huge_size(extent->base);
        stats->by_class[0].span_bytes += extent->limit - extent->base;
        at = extent->limit;
    }
    vmki_vm_unlock();
}

void vmk_object_stats_now(vmk_heap *view, const vmk_cache *cache, vmk_object_stats *stats)
{
    *stats = (vmk_object_stats){0};
    vmki_heap *heap = vmki_heap_meant(view);
    for (unsigned c = 1; c < VMK_CLASSES; c++)
        stats->by_class[c].size = vmki_class_size(c);
    if (heap == NULL)
        return;
    vmki_heap_lock(heap);
    for (uint32_t id = 1; id < vmki_slabs_made(heap); id++)
        count_span(heap, vmki_slab_at(heap, id), cache, stats);
    stats->caches = heap->objects.cache_count;
    stats->orphans = heap->objects.orphan_count;
    stats->cache_bytes = (stats->caches + heap->objects.spare_count) * vmki_ceil(sizeof(vmk_cache), VMK_HEAP_PAGE_SIZE);
    vmki_heap_unlock(heap);
    if (cache == NULL)
        count_huge(heap, stats);
    for (unsigned c = 0; c < VMK_CLASSES; c++) {
        stats->sum.objects += stats->by_class[c].objects;
        stats->sum.bytes += stats->by_class[c].bytes;
        stats->sum.spans += stats->by_class[c].spans;
        stats->sum.span_bytes += stats->by_class[c].span_bytes;
    }
}

/* --- the walk --------------------------------------------------------------------------------------------------- */

typedef struct walk {
    vmki_heap *heap;
    vmk_object_visitor *visit;
    void *context;
    const vmki_slab *last; /* a span over two arenas is met twice */
    uintptr_t huge_at;     /* the huge objects below have been visited */
    bool go_on;
} walk;

static bool visit_slab(walk *w, const vmki_slab *span)
{
    size_t size = vmki_class_size(span->size_class);
    size_t usable = size - ((w->heap->options.flags & VMK_HEAP_HARDENED) != 0 ? VMKI_CANARY_SIZE : 0);
    uint32_t words = vmki_slab_words(&vmki_classes[span->size_class], span->capacity);
    for (uint32_t i = 0; i < words; i++)
        for (size_t bits = in_use(w->heap, span, i); bits != 0; bits &= bits - 1) {
            size_t granule = (size_t)i * VMKI_WORD_BITS + vmki_lowest_bit(bits);
            if (!w->visit(w->context, span->base + (granule << VMKI_GRANULE_SHIFT), usable))
                return false;
        }
    return true;
}

/* The huge objects up to an address. They lie before, behind and, where there are holes, between the heap's regions. */
static void visit_huge(walk *w, uintptr_t limit)
{
    while (w->go_on) {
        vmki_vm_lock();
        const vmki_extent *extent = vmki_extents_above(w->heap->objects.huge, w->huge_at);
        uintptr_t base = extent != NULL ? extent->base : limit;
        size_t usable = base < limit ? vmki_huge_size(base) : 0;
        if (base < limit)
            w->huge_at = extent->limit;
        vmki_vm_unlock();
        if (base >= limit)
            return;
        w->go_on = w->visit(w->context, (void *)(base + vmk_page_size()), usable);
    }
}

static bool visit_range(void *context, const vmk_range *range)
{
    walk *w = context;
    const vmki_slab *span = range->span != NULL ? vmki_slab_find(w->heap, (uintptr_t)range->base) : NULL;
    uintptr_t keeper = span != NULL && span != w->last ? VMKI_LOAD_ACQUIRE(&span->keeper) : 0;
    w->last = span;
    visit_huge(w, (uintptr_t)range->base);
    if (!w->go_on)
        return false;
    if (keeper == VMKI_KEEPER_LARGE)
        w->go_on = w->visit(w->context, span->base, vmki_large_usable(w->heap, span));
    else if (keeper != 0)
        w->go_on = visit_slab(w, span);
    return w->go_on;
}

void vmk_object_walk(vmk_heap *view, vmk_object_visitor *visit, void *context)
{
    vmki_heap *heap = vmki_heap_meant(view);
    if (heap == NULL)
        return;
    walk w = {.heap = heap, .visit = visit, .context = context, .go_on = true};
    vmk_heap_walk(&heap->view, visit_range, &w);
    visit_huge(&w, UINTPTR_MAX);
}
