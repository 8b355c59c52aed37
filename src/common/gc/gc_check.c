/* SPDX-License-Identifier: MIT
 *
 * Is a collected heap as the invariants in gc.h say? Threads stand still, everything is swept, no cache has a slab.
 */
#include "common/gc/gc.h"

#define WRONG_IF(condition, words)                                                                                     \
    do {                                                                                                               \
        if (condition)                                                                                                 \
            return words;                                                                                              \
    } while (0)

/* The lists of bins are well linked, and hold each slab once. */
static const char *lists_wrong(const vmki_gc *gc, size_t *listed)
{
    for (size_t i = 0; i < gc->bin_count; i++) {
        const vmki_gc_bin *bin = &gc->bins[i];
        uint32_t previous = 0;
        bool cursor = bin->cursor == 0;
        for (uint32_t id = bin->first; id != 0; previous = id, id = gc->slabs[id].next) {
            WRONG_IF(id >= gc->slab_limit || gc->slabs[id].state == VMKI_SLAB_NONE, "a list holds what is no slab");
            WRONG_IF(gc->slabs[id].bin != i, "a slab is in another bin's list");
            WRONG_IF(gc->slabs[id].previous != previous, "a list is not linked both ways");
            cursor = cursor || id == bin->cursor;
            WRONG_IF(++*listed > gc->slab_limit, "a list goes round");
        }
        WRONG_IF(bin->last != previous, "a list's end is not its last slab");
        WRONG_IF(!cursor, "a cursor is not in its list");
    }
    return NULL;
}

static const char *bits_wrong(const vmki_gc *gc, const vmk_span *span, const vmki_gc_code *code)
{
    size_t first = vmki_gc_granule(gc, (uintptr_t)span->base);
    size_t granules = span->pages << (VMK_HEAP_PAGE_SHIFT - VMKI_GRANULE_SHIFT);
    if (code->size_class == 0)
        granules = 1;
    for (size_t i = 0; i < granules; i++) {
        WRONG_IF(vmki_gc_bit(gc->marks, first + i), "a mark is left of a cycle");
        bool slot = code->size_class == 0 || (i % code->granules == 0 && i / code->granules < code->capacity);
        WRONG_IF(vmki_gc_bit(gc->taken, first + i) && !slot, "a bit is set that is no slot's");
    }
    return NULL;
}

static const char *slab_wrong(const vmki_gc *gc, uint32_t id)
{
    const vmki_gc_slab *slab = &gc->slabs[id];
    const vmk_span *span = &gc->heap->records[id];
    WRONG_IF(span->state != VMKI_SPAN_LIVE, "a slab has no span");
    WRONG_IF(slab->bin >= gc->bin_count, "a slab has no bin");
    uint8_t number = gc->bins[slab->bin].code;
    const vmki_gc_code *code = &vmki_gc_codes[number];
    if (slab->state == VMKI_SLAB_OWNED) { /* a large object that is being made; it is no object yet */
        WRONG_IF(code->size_class != 0, "a cache has a slab");
        return NULL;
    }
    WRONG_IF(slab->epoch != gc->epoch, "a slab is not swept");
    if (code->size_class != 0) {
        size_t size = (size_t)1 << code->shift;
        WRONG_IF(span->pages << VMK_HEAP_PAGE_SHIFT != size, "a slab is not of its class's size");
        WRONG_IF(!vmki_is_aligned((uintptr_t)span->base, size), "a slab is not aligned");
    }
    for (size_t page = 0; page < span->pages; page++) {
        const unsigned char *address = span->base + (page << VMK_HEAP_PAGE_SHIFT);
        WRONG_IF(vmk_heap_class(gc->heap, address) != number, "a page does not say its code");
        WRONG_IF(vmk_span_of(gc->heap, address) != span, "a page belongs to another span");
    }
    return bits_wrong(gc, span, code);
}

const char *vmki_gc_wrong(vmki_gc *gc)
{
    size_t listed = 0, live = 0;
    const char *wrong = lists_wrong(gc, &listed);
    for (uint32_t id = 1; id < gc->slab_limit && wrong == NULL; id++) {
        if (gc->slabs[id].state == VMKI_SLAB_NONE)
            continue;
        live++;
        wrong = slab_wrong(gc, id);
    }
    if (wrong == NULL && live != listed)
        wrong = "a slab is in no list";
    for (vmki_gc_cache *cache = gc->caches; cache != NULL && wrong == NULL; cache = cache->next) {
        if (cache->active != 0)
            wrong = "a cache is not flushed";
        else if (cache->mutator->caches[gc->number] != cache)
            wrong = "a cache is not its thread's";
    }
    return wrong;
}

/* The heap below too, while nobody else uses it. */
static void check_stopped(vmki_gc *gc, void *argument)
{
    const char *wrong = vmki_gc_wrong(gc);
    vmki_heap *heap = vmki_heap_of(gc->heap);
    vmki_heap_lock(heap);
    if (!vmki_heap_check(gc->heap) && wrong == NULL)
        wrong = "the heap below is not as it should be";
    vmki_heap_unlock(heap);
    *(const char **)argument = wrong;
}

bool vmki_gc_check(vmk_gc *gc)
{
    const char *wrong = NULL;
    vmki_gc_stopped(gc, check_stopped, &wrong);
    if (wrong != NULL) {
        size_t length = 0;
        while (wrong[length] != '\0')
            length++;
        vmki_os_write_error(wrong, length);
        vmki_os_write_error("\n", 1);
    }
    return wrong == NULL;
}
