/* SPDX-License-Identifier: MIT
 *
 * Objects: the calls of vmkit.h. The short ways of allocating and freeing are inline, in object.h; here is what they
 * are part of, and the long ways.
 */
#include "common/heap/object.h"

#include <string.h>

#include "common/base/check.h"

/* --- the heap that is meant ------------------------------------------------------------------------------------- */

vmki_heap *vmki_default_heap; /* written once, with release, under the registry's lock */

/* Two threads may make one at once: one of the two is the default, the other goes. So that no lock is held meanwhile,
 * which a child of a fork would find taken. */
VMKI_COLD vmki_heap *vmki_heap_default_make(const vmk_heap_options *options)
{
    vmk_heap *made;
    if (vmk_heap_create(&made, options) != VMK_OK)
        return VMKI_LOAD_ACQUIRE(&vmki_default_heap);
    vmki_registry_lock();
    bool first = vmki_default_heap == NULL;
    if (first)
        VMKI_STORE_RELEASE(&vmki_default_heap, vmki_heap_of(made));
    vmki_registry_unlock();
    if (!first)
        vmk_heap_destroy(made);
    return VMKI_LOAD_ACQUIRE(&vmki_default_heap);
}

vmki_heap *vmki_heap_meant(vmk_heap *view)
{
    if (view != NULL)
        return vmki_heap_of(view);
    vmki_heap *heap = VMKI_LOAD_ACQUIRE(&vmki_default_heap);
    return VMKI_LIKELY(heap != NULL) ? heap : vmki_heap_default_make(NULL);
}

bool vmki_heap_is_default(const vmki_heap *heap)
{
    return heap == VMKI_LOAD_ACQUIRE(&vmki_default_heap);
}

vmk_heap *vmk_heap_default(void)
{
    vmki_heap *heap = vmki_heap_meant(NULL);
    return heap != NULL ? &heap->view : NULL;
}

/* --- allocating ------------------------------------------------------------------------------------------------- */

void *vmki_cache_alloc_slow(vmk_cache *cache, size_t size)
{
    if (cache->hardened)
        return vmki_hardened_alloc(cache, size);
    unsigned size_class = vmki_class_of(size);
    if (vmki_cache_refill(cache, size_class) != VMK_OK)
        return NULL;
    return vmki_cache_alloc(cache, size);
}

/* How many bytes a small object may have: in a hardened heap something stands behind it. */
static size_t small_max(const vmki_heap *heap)
{
    return (heap->options.flags & VMK_HEAP_HARDENED) != 0 ? VMK_OBJECT_SMALL_MAX - VMKI_CANARY_SIZE
                                                          : VMK_OBJECT_SMALL_MAX;
}

/* Whatever is not the short way: no cache yet, or no small object. */
static VMKI_COLD void *alloc_long(vmki_heap *heap, size_t size, bool zero)
{
    if (size > small_max(heap))
        return vmki_large_alloc(heap, size, 0, zero);
    vmk_cache *cache = vmki_cache_of(heap);
    if (cache == NULL)
        cache = vmki_cache_attach(heap);
    void *object = cache != NULL ? vmki_cache_alloc(cache, size) : NULL;
    return zero && object != NULL ? memset(object, 0, size) : object;
}

void *vmk_heap_alloc(vmk_heap *view, size_t size)
{
    vmki_heap *heap = vmki_heap_meant(view);
    if (VMKI_UNLIKELY(heap == NULL))
        return NULL;
    vmk_cache *cache = vmki_cache_of(heap);
    if (VMKI_LIKELY(size <= VMK_OBJECT_SMALL_MAX - VMKI_CANARY_SIZE && cache != NULL))
        return vmki_cache_alloc(cache, size);
    return alloc_long(heap, size, false);
}

void *vmk_heap_alloc_zeroed(vmk_heap *view, size_t size)
{
    vmki_heap *heap = vmki_heap_meant(view);
    if (VMKI_UNLIKELY(heap == NULL))
        return NULL;
    vmk_cache *cache = vmki_cache_of(heap);
    if (VMKI_UNLIKELY(size > VMK_OBJECT_SMALL_MAX - VMKI_CANARY_SIZE || cache == NULL))
        return alloc_long(heap, size, true);
    void *object = vmki_cache_alloc(cache, size);
    if (VMKI_LIKELY(object != NULL))
        memset(object, 0, size);
    return object;
}

void *vmk_cache_alloc(vmk_cache *cache, size_t size)
{
    if (VMKI_LIKELY(size <= VMK_OBJECT_SMALL_MAX - VMKI_CANARY_SIZE))
        return vmki_cache_alloc(cache, size);
    return alloc_long(cache->heap, size, false);
}

/* Slots of a class whose size is a multiple of the alignment are aligned, since slabs begin on a page; and multiples of
 * it have such a class. */
static size_t aligned_size(size_t size, size_t align)
{
    return vmki_ceil(vmki_max(size, 1), align);
}

/* So many bytes, of which fewer were asked for. */
static void *alloc_small_aligned(vmki_heap *heap, size_t whole, size_t size)
{
    void *object = alloc_long(heap, whole, false);
    if (object != NULL)
        vmki_tools_resize(heap, object, object, whole, size, whole);
    return object;
}

void *vmk_heap_alloc_aligned(vmk_heap *view, size_t size, size_t align)
{
    vmki_heap *heap = vmki_heap_meant(view);
    if (heap == NULL || !vmki_is_power_of_two(align))
        return NULL;
    if (align <= VMKI_GRANULE)
        return vmk_heap_alloc(&heap->view, size);
    bool hardened = (heap->options.flags & VMK_HEAP_HARDENED) != 0;
    if (size <= VMK_OBJECT_SMALL_MAX / 2 && align <= VMK_HEAP_PAGE_SIZE) {
        size_t whole = aligned_size(size + (hardened ? VMKI_CANARY_SIZE : 0), align);
        if (whole <= VMK_OBJECT_SMALL_MAX)
            return alloc_small_aligned(heap, hardened ? whole - VMKI_CANARY_SIZE : whole, size);
    }
    return vmki_large_alloc(heap, size, align, false);
}

/* --- freeing ---------------------------------------------------------------------------------------------------- */

void vmki_object_crime(const char *crime, const void *object)
{
    vmki_misuse(crime, object);
}

void vmki_slab_free(vmki_heap *heap, vmk_cache *cache, vmki_slab *span, uintptr_t address)
{
    uintptr_t keeper = vmki_keeper(span);
    if (keeper == VMKI_KEEPER_ORPHAN && cache != NULL && vmki_slab_adopt(cache, span))
        keeper = vmki_keeper(span);
    if (cache == NULL || keeper != (uintptr_t)cache) {
        vmki_slab_free_remote(heap, span, address);
        return;
    }
    if (address % VMKI_GRANULE != 0)
        vmki_object_crime("vmk_heap_free: not the start of an object", (const void *)address);
    if (!vmki_object_begins(heap, address))
        vmki_object_crime("vmk_heap_free: object was freed before, or is none", (const void *)address);
    size_t *word = vmki_objects_word(heap, address);
    VMKI_STORE_RELAXED(word, VMKI_LOAD_RELAXED(word) & ~vmki_bit_of(address));
    vmki_slab_put(cache, (const void *)address);
}

void vmki_object_free_slow(vmki_heap *heap, vmk_cache *cache, void *object)
{
    vmki_slab *span = vmki_slab_find(heap, (uintptr_t)object);
    uintptr_t keeper = span != NULL ? VMKI_LOAD_ACQUIRE(&span->keeper) : 0;
    if (keeper == 0) {
        if (!vmki_huge_free(heap, object))
            vmki_object_crime("vmk_heap_free: not an object of this heap", object);
    } else if (keeper == VMKI_KEEPER_LARGE) {
        vmki_large_free(heap, span, object);
    } else if ((heap->options.flags & VMK_HEAP_HARDENED) != 0) {
        vmki_hardened_free(heap, cache, span, object);
    } else {
        if (VMKI_TOOLS && vmki_object_begins(heap, (uintptr_t)object)) /* else it is a crime */
            vmki_tools_free(heap, object, vmki_class_size(span->size_class));
        vmki_slab_free(heap, cache, span, (uintptr_t)object);
    }
}

void vmk_heap_free(vmk_heap *view, void *object)
{
    if (object == NULL)
        return;
    vmki_heap *heap = vmki_heap_meant(view);
    if (VMKI_UNLIKELY(heap == NULL))
        vmki_object_crime("vmk_heap_free: not an object of this heap", object);
    vmki_object_free(heap, vmki_cache_of(heap), object);
}

static size_t usable_size(vmk_heap *view, const void *object);

void vmk_heap_free_sized(vmk_heap *view, void *object, size_t size)
{
    if (object != NULL && size > usable_size(view, object))
        vmki_object_crime("vmk_heap_free_sized: object is smaller than that", object);
    vmk_heap_free(view, object);
}

void vmk_cache_free(vmk_cache *cache, void *object)
{
    if (object != NULL)
        vmki_cache_free(cache, object);
}

/* --- sizes ------------------------------------------------------------------------------------------------------ */

/* What a small object of a class may use. */
static size_t small_usable(const vmki_heap *heap, unsigned size_class)
{
    return vmki_class_size(size_class) - ((heap->options.flags & VMK_HEAP_HARDENED) != 0 ? VMKI_CANARY_SIZE : 0);
}

/* The span of an object in use, if it is one. */
static vmki_slab *object_find(vmki_heap *heap, const void *object, size_t *usable)
{
    uintptr_t address = (uintptr_t)object;
    vmki_slab *span = vmki_slab_find(heap, address);
    uintptr_t keeper = span != NULL ? VMKI_LOAD_ACQUIRE(&span->keeper) : 0;
    if (keeper == 0)
        return NULL;
    if (keeper == VMKI_KEEPER_LARGE) {
        *usable = vmki_large_usable(heap, span);
        return object == VMKI_LOAD_RELAXED(&span->base) ? span : NULL;
    }
    *usable = small_usable(heap, VMKI_LOAD_RELAXED(&span->size_class));
    bool freed = (VMKI_LOAD_RELAXED(vmki_remote_word(heap, address)) & vmki_bit_of(address)) != 0;
    if (!vmki_object_begins(heap, address) || freed)
        return NULL;
    bool hardened = (heap->options.flags & VMK_HEAP_HARDENED) != 0;
    return !hardened || vmki_hardened_in_use(heap, address) ? span : NULL;
}

vmki_slab *vmki_object_span(vmki_heap *heap, const void *object, size_t *usable, const char *crime)
{
    vmki_slab *span = object_find(heap, object, usable);
    if (span != NULL)
        return span;
    *usable = vmki_huge_usable(heap, object);
    if (*usable == 0)
        vmki_object_crime(crime, object);
    return NULL;
}

static size_t usable_size(vmk_heap *view, const void *object)
{
    static const char crime[] = "vmk_heap_usable_size: not an object of this heap";
    size_t usable;
    if (object == NULL)
        return 0;
    vmki_heap *heap = vmki_heap_meant(view);
    if (heap == NULL)
        vmki_object_crime(crime, object);
    (void)vmki_object_span(heap, object, &usable, crime);
    return usable;
}

/* Whoever has asked may use all of it. */
size_t vmk_heap_usable_size(vmk_heap *view, const void *object)
{
    size_t usable = usable_size(view, object);
    if (VMKI_TOOLS && object != NULL)
        vmki_tools_resize(vmki_heap_meant(view), object, object, vmki_tools_asked(object, usable), usable, usable);
    return usable;
}

size_t vmk_heap_good_size(size_t size)
{
    if (size <= VMK_OBJECT_SMALL_MAX)
        return vmki_class_size(vmki_class_computed(size)); /* there may be no table yet */
    return vmki_large_good_size(size);
}

bool vmk_heap_owns(vmk_heap *view, const void *object)
{
    size_t usable;
    vmki_heap *heap = vmki_heap_meant(view);
    return heap != NULL && (object_find(heap, object, &usable) != NULL || vmki_huge_usable(heap, object) != 0);
}

/* --- reallocating ----------------------------------------------------------------------------------------------- */

/* Is the object's own place right for that size? Not where much of it would be left unused. */
static bool fits_in_place(size_t usable, size_t size)
{
    return size <= usable && (usable <= VMK_HEAP_PAGE_SIZE / 16 || size >= usable / 2);
}

static void *realloc_in_place(const vmki_heap *heap, void *object, size_t usable, size_t size)
{
    vmki_tools_resize(heap, object, object, vmki_tools_asked(object, usable), size, usable);
    return object;
}

static void *realloc_by_copy(vmki_heap *heap, void *object, size_t usable, size_t size)
{
    void *fresh = vmk_heap_alloc(&heap->view, size);
    if (fresh == NULL)
        return size <= usable ? realloc_in_place(heap, object, usable, size) : NULL; /* to become smaller can't fail */
    memcpy(fresh, object, vmki_min(vmki_tools_asked(object, usable), size));
    vmki_object_free(heap, vmki_cache_of(heap), object);
    return fresh;
}

void *vmk_heap_realloc(vmk_heap *view, void *object, size_t size)
{
    static const char crime[] = "vmk_heap_realloc: not an object of this heap";
    if (object == NULL)
        return vmk_heap_alloc(view, size);
    vmki_heap *heap = vmki_heap_meant(view);
    if (heap == NULL)
        vmki_object_crime(crime, object);
    size_t usable;
    vmki_slab *span = vmki_object_span(heap, object, &usable, crime);
    void *moved = NULL;
    if (span == NULL)
        moved = vmki_huge_realloc(heap, object, size);
    else if (vmki_keeper(span) == VMKI_KEEPER_LARGE)
        moved = vmki_large_realloc(heap, span, size);
    else if (fits_in_place(usable, size))
        moved = realloc_in_place(heap, object, usable, size);
    return moved != NULL ? moved : realloc_by_copy(heap, object, usable, size);
}

/* --- giving back ------------------------------------------------------------------------------------------------ */

size_t vmk_heap_trim(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_meant(view);
    if (heap == NULL)
        return 0;
    vmki_os_error before = vmki_os_error_get();
    vmk_cache *own = vmki_cache_of(heap), *cache = own;
    if (cache == NULL && VMKI_LOAD_RELAXED(&heap->objects.orphan_count) != 0)
        cache = vmki_cache_attach(heap); /* for as long as it takes to go through the orphans */
    if (cache != NULL) {
        vmki_hardened_flush(cache);
        vmki_orphans_adopt(cache);
        vmki_cache_collect(cache);
    }
    if (own == NULL && cache != NULL)
        vmk_cache_detach(&heap->view);
    size_t returned = vmk_heap_scavenge(&heap->view, SIZE_MAX);
    vmki_os_error_set(before);
    return returned;
}
