/* SPDX-License-Identifier: MIT
 *
 * The check of all slabs, for tests: every slab is kept by somebody, counted rightly, and in the list that its keeper
 * says.
 */
#include "common/heap/object.h"

/* Do bits stand only where slots begin, and do they add up? */
static bool bits_check(const vmki_heap *heap, const vmki_slab *span)
{
    const vmki_class *c = &vmki_classes[span->size_class];
    const size_t *objects = vmki_objects_word(heap, (uintptr_t)span->base);
    const size_t *taken = vmki_taken_word(heap, (uintptr_t)span->base);
    const size_t *remote = vmki_remote_word(heap, (uintptr_t)span->base);
    size_t bits = span->pages * (VMK_HEAP_PAGE_SIZE / VMKI_GRANULE), set = 0;
    for (size_t i = 0; i < bits; i++) {
        size_t mask = (size_t)1 << i % VMKI_WORD_BITS;
        bool object = (objects[i / VMKI_WORD_BITS] & mask) != 0, freed = (remote[i / VMKI_WORD_BITS] & mask) != 0;
        bool in_use = (taken[i / VMKI_WORD_BITS] & mask) != 0;
        bool slot = i % c->granules == 0 && i / c->granules < span->capacity;
        if ((in_use && !slot) || (object && !in_use) || (freed && !object))
            return false;
        set += in_use;
    }
    return set == span->used && span->used <= span->capacity;
}

/* Is the span in the list? */
static bool list_has(const vmki_heap *heap, uint32_t head, const vmki_slab *span)
{
    uint32_t previous = 0;
    for (uint32_t id = head; id != 0; previous = id, id = vmki_slab_at(heap, id)->next) {
        if (vmki_slab_at(heap, id)->previous != previous)
            return false;
        if (id == span->id)
            return true;
    }
    return false;
}

/* Do the pages say whose they are? */
static bool owners_check(const vmki_heap *heap, const vmki_slab *span, uintptr_t owner)
{
    size_t first = ((uintptr_t)span->base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
    for (size_t i = 0; i < span->pages; i++)
        if (heap->owners[first + i] != owner)
            return false;
    return true;
}

static bool slab_check(const vmki_heap *heap, const vmki_slab *span)
{
    uintptr_t keeper = vmki_keeper(span);
    bool kept = keeper != VMKI_KEEPER_ORPHAN && !((const vmk_cache *)keeper)->hardened;
    if (!bits_check(heap, span) ||
        !owners_check(heap, span, kept ? vmki_owner((const vmk_cache *)keeper, span->size_class) : 0))
        return false;
    if (keeper == VMKI_KEEPER_ORPHAN)
        return span->list == VMKI_LIST_ORPHAN && list_has(heap, heap->objects.orphans[span->size_class], span);
    const vmk_cache *cache = (const vmk_cache *)keeper;
    const vmki_source *e = &cache->source[span->size_class];
    switch (span->list) {
    case VMKI_LIST_CURRENT:
        return e->slab == span;
    case VMKI_LIST_AVAILABLE:
        return list_has(heap, e->available, span);
    case VMKI_LIST_FULL:
        return list_has(heap, e->full, span);
    default:
        return false;
    }
}

/* Does the stack of a class lie in its place, and hold slots of the cache's that are taken and no objects? *count: how
 * many. */
static bool stack_check(const vmki_heap *heap, const vmk_cache *cache, unsigned size_class, size_t *count)
{
    const vmki_stack *stack = &cache->stack[size_class];
    void *const *slot = stack->top;
    *count = 0;
    if (stack->last == &cache->nothing)
        return stack->top == stack->last && cache->nothing == NULL;
    if (slot < cache->slots || stack->top > stack->last || stack->last >= cache->slots + cache->slots_used)
        return false;
    for (; *slot != NULL; slot--, ++*count) {
        uintptr_t address = (uintptr_t)*slot;
        const vmki_slab *span = vmki_slab_find(heap, address);
        if (span == NULL || vmki_keeper(span) != (uintptr_t)cache || span->size_class != size_class ||
            (*vmki_taken_word(heap, address) & vmki_bit_of(address)) == 0 || vmki_object_begins(heap, address))
            return false;
    }
    return true; /* the first stack has NULL below it, too */
}

/* Are the slots that are taken, and no objects, those in the stacks? Each of those has been looked at. */
static bool cache_check(const vmki_heap *heap, const vmk_cache *cache)
{
    size_t stacked = 0, taken = 0, count;
    for (unsigned c = 1; c < VMK_CLASSES; c++, stacked += count)
        if (!stack_check(heap, cache, c, &count))
            return false;
    for (uint32_t id = 1; id < vmki_slabs_made(heap); id++) {
        const vmki_slab *span = vmki_slab_at(heap, id);
        if (vmki_keeper(span) != (uintptr_t)cache)
            continue;
        const size_t *objects = vmki_objects_word(heap, (uintptr_t)span->base);
        taken += span->used;
        for (uint32_t i = 0; i < vmki_slab_words(&vmki_classes[span->size_class], span->capacity); i++)
            taken -= vmki_ones_in(objects[i]);
    }
    return stacked == taken;
}

bool vmki_objects_check(vmk_heap *view)
{
    const vmki_heap *heap = vmki_heap_of(view);
    uint32_t orphans = 0;
    if (!vmki_heap_check(view))
        return false;
    for (uint32_t id = 1; id < vmki_slabs_made(heap); id++) {
        const vmki_slab *span = vmki_slab_at(heap, id);
        if (vmki_keeper(span) == 0 || vmki_keeper(span) == VMKI_KEEPER_LARGE)
            continue;
        if (span->id != id || !slab_check(heap, span))
            return false;
        orphans += vmki_keeper(span) == VMKI_KEEPER_ORPHAN;
    }
    for (const vmk_cache *cache = heap->objects.caches; cache != NULL; cache = cache->next)
        if (!cache_check(heap, cache))
            return false;
    return orphans == heap->objects.orphan_count;
}
