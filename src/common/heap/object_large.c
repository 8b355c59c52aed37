/* SPDX-License-Identifier: MIT
 *
 * Objects above 32 KiB. Most are spans: taken from the page heap, given back to it, resized in place where there is
 * room. Huge ones, and those that have grown by reallocation, have a reservation of their own: its memory goes back to
 * the system when they are freed, and to grow it is to have the system move its pages.
 *
 * Such a reservation begins with a page that holds its region, the object behind it, and then a guard. That an address
 * is one of these is known from a set of ranges, which is asked for what lies outside the window.
 *
 * Spans, those of slabs too, end in a guard in hardened heaps, and above GUARD_MIN in all: whether one has it follows
 * from its size alone.
 */
#include "common/heap/object.h"

#include <string.h>

#include "common/base/check.h"
#include "common/vm/extents.h"
#include "common/vm/vm.h"

/* From here on a reservation of its own is first choice; where an object has grown out of a span, earlier. */
#define HUGE_MIN ((size_t)32 << 20)
#define HUGE_MIN_GROWN HUGE_MIN

enum { SLACK_DIVISOR = 8 }; /* what grows is given so much more than it wants: it will grow again */

/* Above this an object has a guard in every heap. Below, it would cost more than its two system calls: what of the
 * object shares a huge page with the guard is not in a huge page any more (from 1 MiB on: 1.5 times the time of growing
 * vectors). */
#define GUARD_MIN ((size_t)4 << 20)

/* --- guards ----------------------------------------------------------------------------------------------------- */

static bool is_hardened(const vmki_heap *heap)
{
    return (heap->options.flags & VMK_HEAP_HARDENED) != 0;
}

/* Heap pages of the guard, a page of the system, of a span of so many, whether it is counted among them or not. */
static size_t guard_pages(const vmki_heap *heap, size_t pages)
{
    bool guarded = is_hardened(heap) || pages > GUARD_MIN >> VMK_HEAP_PAGE_SHIFT;
    return guarded ? vmki_max(vmk_page_size() >> VMK_HEAP_PAGE_SHIFT, 1) : 0;
}

/* The pages of a span for so many and their guard; false where there is no such number. */
static bool guarded_pages(const vmki_heap *heap, size_t pages, size_t *whole)
{
    size_t guard = guard_pages(heap, pages);
    *whole = pages;
    return guard == 0 || (!vmki_ceil_overflow(pages, guard, whole) && !vmki_add_overflow(*whole, guard, whole));
}

/* False: the system refuses, for lack of mappings. */
static bool guard_set(vmki_heap *heap, const vmk_span *span, size_t guard, vmk_access access)
{
    size_t first = (((uintptr_t)span->base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT) + span->pages - guard;
    vmki_heap_lock(heap);
    vmki_arena *arena = vmki_heap_arena_above(heap, first);
    vmk_status status = VMK_OK;
    if (first + guard <= arena->first + arena->pages)
        status = vmk_protect(vmki_arena_region(heap, arena), vmki_arena_offset(heap, arena, first),
                             guard << VMK_HEAP_PAGE_SHIFT, access);
    vmki_heap_unlock(heap);
    return status == VMK_OK;
}

vmk_status vmki_guarded_alloc(vmki_heap *heap, size_t pages, size_t align, unsigned flags, bool asks, vmk_span **span)
{
    size_t guard = guard_pages(heap, pages), whole;
    if (!guarded_pages(heap, pages, &whole))
        return VMK_ERR_ARGUMENT;
    if (guard != 0)
        align = vmki_max(align, guard << VMK_HEAP_PAGE_SHIFT);
    vmk_status status = vmki_span_alloc(heap, whole, align, flags, asks, span);
    if (status == VMK_OK && guard != 0)
        (void)guard_set(heap, *span, guard, VMK_ACCESS_NONE); /* or it goes without one */
    return status;
}

void vmki_guarded_free(vmki_heap *heap, vmk_span *span)
{
    size_t guard = guard_pages(heap, span->pages);
    if (guard != 0 && !guard_set(heap, span, guard, VMK_ACCESS_READ_WRITE))
        return; /* nobody may have what stays inaccessible: it is in use for ever */
    vmk_span_free(&heap->view, span);
    (void)vmk_heap_scavenge_tick(&heap->view);
}

/* In place, the guard moves along. False: nothing has changed. */
static bool guarded_resize(vmki_heap *heap, vmk_span *span, size_t pages)
{
    size_t before = guard_pages(heap, span->pages), after = guard_pages(heap, pages), whole;
    if (!guarded_pages(heap, pages, &whole) ||
        (after != 0 && !vmki_is_aligned((uintptr_t)span->base, after << VMK_HEAP_PAGE_SHIFT)) ||
        (before != 0 && !guard_set(heap, span, before, VMK_ACCESS_READ_WRITE)))
        return false;
    bool resized = vmk_span_resize(&heap->view, span, whole) == VMK_OK;
    size_t guard = resized ? after : before;
    if (guard != 0)
        (void)guard_set(heap, span, guard, VMK_ACCESS_NONE);
    return resized;
}

/* --- spans ------------------------------------------------------------------------------------------------------ */

size_t vmki_large_usable(const vmki_heap *heap, const vmki_slab *slab)
{
    size_t pages = VMKI_LOAD_RELAXED(&slab->pages);
    return (pages - guard_pages(heap, pages)) << VMK_HEAP_PAGE_SHIFT;
}

size_t vmki_large_good_size(size_t size)
{
    size_t unit = size > GUARD_MIN ? vmki_max(VMK_HEAP_PAGE_SIZE, vmk_page_size()) : VMK_HEAP_PAGE_SIZE;
    return vmki_ceil_overflow(size, unit, &size) ? SIZE_MAX : size;
}

/* False where there is no such size. */
static bool pages_of(size_t size, size_t *pages)
{
    size_t rounded;
    if (size > PTRDIFF_MAX || vmki_ceil_overflow(size, VMK_HEAP_PAGE_SIZE, &rounded))
        return false;
    *pages = vmki_max(rounded >> VMK_HEAP_PAGE_SHIFT, 1);
    return true;
}

static void *span_try(vmki_heap *heap, size_t pages, size_t align, bool zero, vmk_status *status)
{
    vmk_span *span;
    vmki_slab *slab;
    *status = VMKI_LOAD_ACQUIRE(&heap->objects.begun) ? VMK_OK : vmki_objects_begin(heap);
    if (*status == VMK_OK)
        *status = vmki_guarded_alloc(heap, pages, align, zero ? VMK_SPAN_ZERO : 0, false, &span);
    if (*status != VMK_OK)
        return NULL;
    *status = vmki_slab_ready(heap, span, &slab);
    if (*status != VMK_OK) {
        vmki_guarded_free(heap, span);
        return NULL;
    }
    VMKI_STORE_RELEASE(&slab->keeper, VMKI_KEEPER_LARGE);
    return span->base;
}

/* A span or a reservation, whichever is first choice and can be had. */
static void *large_try(vmki_heap *heap, size_t size, size_t pages, size_t align, bool zero, vmk_status *status)
{
    bool may_be_huge = align <= vmk_page_size();
    void *object = may_be_huge && size >= HUGE_MIN ? vmki_huge_alloc(heap, size) : NULL;
    if (object != NULL)
        return object; /* fresh, so zero */
    object = span_try(heap, pages, align, zero, status);
    if (object != NULL)
        return object;
    return may_be_huge && size < HUGE_MIN ? vmki_huge_alloc(heap, size) : NULL;
}

void *vmki_large_alloc(vmki_heap *heap, size_t size, size_t align, bool zero)
{
    size_t pages;
    vmk_status status;
    void *object;
    if (!pages_of(size, &pages))
        return NULL;
    if (VMKI_LEAKS && vmki_cache_of(heap) == NULL)
        (void)vmki_cache_attach(heap); /* so that no object begins where the heap does, whose address is no secret */
    do
        object = large_try(heap, size, pages, align, zero, &status);
    while (object == NULL && vmki_heap_again(heap, pages << VMK_HEAP_PAGE_SHIFT, status));
    return object != NULL ? vmki_tools_alloc(heap, object, size, pages << VMK_HEAP_PAGE_SHIFT, zero) : NULL;
}

static vmk_span *span_of(const vmki_heap *heap, const vmki_slab *slab)
{
    return &heap->view.records[slab->id];
}

void vmki_large_free(vmki_heap *heap, vmki_slab *slab, const void *object)
{
    if (object != slab->base)
        vmki_object_crime("vmk_heap_free: not the start of an object", object);
    vmki_tools_quiet();
    if (is_hardened(heap))
        memset(slab->base, 0, vmki_large_usable(heap, slab));
    vmki_tools_loud();
    if ((uintptr_t)VMKI_EXCHANGE(&slab->keeper, 0) != VMKI_KEEPER_LARGE) /* another thread was faster */
        vmki_object_crime("vmk_heap_free: object was freed before", object);
    vmki_tools_free(heap, object, vmki_large_usable(heap, slab));
    vmki_guarded_free(heap, span_of(heap, slab));
}

static void *grow_out(vmki_heap *heap, vmki_slab *slab, size_t size)
{
    void *object = vmki_huge_alloc(heap, size + size / SLACK_DIVISOR);
    if (object == NULL)
        return NULL;
    (void)vmki_tools_alloc(heap, object, size, size + size / SLACK_DIVISOR, false);
    memcpy(object, slab->base, vmki_tools_asked(slab->base, vmki_large_usable(heap, slab)));
    vmki_large_free(heap, slab, slab->base);
    return object;
}

/* In place, to at least so many pages, and to more if it grows under a guard: it will grow again, and moving the guard
 * is two system calls. */
static bool resize_in_place(vmki_heap *heap, vmki_slab *slab, size_t pages)
{
    vmk_span *span = span_of(heap, slab);
    size_t slack = pages > slab->pages && guard_pages(heap, pages) != 0 ? pages / SLACK_DIVISOR : 0;
    bool resized = slack != 0 && guarded_resize(heap, span, pages + slack);
    if (!resized)
        resized = guarded_resize(heap, span, pages);
    VMKI_STORE_RELAXED(&slab->pages, span->pages);
    return resized;
}

/* Is it right as it is: of that size, or of a size that resize_in_place() has made? */
static bool suits(const vmki_heap *heap, const vmki_slab *slab, size_t pages)
{
    size_t guard = guard_pages(heap, slab->pages), usable = slab->pages - guard;
    size_t slack = guard == 0 ? 0 : is_hardened(heap) ? guard - 1 : usable / SLACK_DIVISOR;
    return pages <= usable && usable - pages <= slack;
}

void *vmki_large_realloc(vmki_heap *heap, vmki_slab *slab, size_t size)
{
    size_t pages, had = vmki_tools_asked(slab->base, vmki_large_usable(heap, slab));
    if (!pages_of(size, &pages))
        return NULL;
    bool stays = suits(heap, slab, pages);
    if (!stays && (is_hardened(heap) || size <= VMK_OBJECT_SMALL_MAX))
        return NULL;
    if (stays || resize_in_place(heap, slab, pages)) {
        vmki_tools_resize(heap, slab->base, slab->base, had, size, vmki_large_usable(heap, slab));
        return slab->base;
    }
    return size >= HUGE_MIN_GROWN && size <= PTRDIFF_MAX / 2 ? grow_out(heap, slab, size) : NULL;
}

/* --- reservations ----------------------------------------------------------------------------------------------- */

/* What stands in the first page. */
typedef struct huge {
    vmk_region region;
    size_t usable; /* in whole pages of the heap, as those of spans; by growing, all that is there */
} huge;

static size_t header_size(void)
{
    return vmk_page_size();
}

/* The reservation of an object. Under the vm lock. */
static huge *huge_find(const vmki_heap *heap, const void *object)
{
    uintptr_t address = (uintptr_t)object;
    const vmki_extent *extent = vmki_extents_above(heap->objects.huge, address);
    if (extent == NULL || address < header_size() || extent->base != address - header_size())
        return NULL;
    return (huge *)extent->base;
}

/* Count pages as in use, if the limit allows it. */
static bool huge_count(vmki_heap *heap, size_t pages)
{
    vmki_heap_lock(heap);
    bool allowed = vmki_heap_allows(heap, pages);
    if (allowed)
        heap->objects.huge_pages += pages;
    heap->objects.end = vmki_objects_end; /* the heap may have no small objects */
    vmki_heap_unlock(heap);
    return allowed;
}

static void huge_discount(vmki_heap *heap, size_t pages)
{
    vmki_heap_lock(heap);
    heap->objects.huge_pages -= pages;
    vmki_heap_unlock(heap);
}

static size_t region_pages(size_t size)
{
    return (size + VMK_HEAP_PAGE_SIZE - 1) >> VMK_HEAP_PAGE_SHIFT;
}

static vmk_status huge_reserve(const vmki_heap *heap, vmk_region *region, size_t size)
{
    vmk_reserve_options how = {.guard_size = vmk_page_size(), .name = vmki_heap_name(heap, VMKI_NAME_HUGE)};
    vmk_status status = vmk_reserve(region, size, &how);
    if (status != VMK_OK)
        return status;
    status = vmk_commit(region, 0, region->size);
    if (status != VMK_OK)
        vmk_release(region);
    return status;
}

/* The size of the reservation for an object; 0: there is none so large. *usable: what it is said to have. */
static size_t whole_size(size_t size, size_t *usable)
{
    size_t whole;
    *usable = vmki_large_good_size(vmki_max(size, 1));
    if (vmki_add_overflow(*usable, header_size(), &whole) || vmki_ceil_overflow(whole, vmk_granularity(), &whole))
        return 0;
    return whole;
}

void *vmki_huge_alloc(vmki_heap *heap, size_t size)
{
    vmk_region region;
    size_t usable, whole = whole_size(size, &usable);
    if (whole == 0 || !huge_count(heap, region_pages(whole)))
        return NULL;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = huge_reserve(heap, &region, whole);
    if (status == VMK_OK) {
        huge *h = (huge *)(void *)region.base;
        vmki_vm_lock();
        status = vmki_extents_prepare(1);
        if (status == VMK_OK) {
            vmki_extents_insert(&heap->objects.huge, (uintptr_t)region.base, (uintptr_t)region.base + region.size);
            *h = (huge){.region = region, .usable = usable};
        }
        vmki_vm_unlock();
        if (status == VMK_OK) {
            vmki_os_error_set(before);
            return region.base + header_size();
        }
        vmk_release(&region);
    }
    huge_discount(heap, region_pages(whole));
    return NULL;
}

bool vmki_huge_free(vmki_heap *heap, const void *object)
{
    vmk_region region;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    const huge *h = huge_find(heap, object);
    if (h != NULL) {
        region = h->region;
        vmki_extents_remove(&heap->objects.huge, (uintptr_t)region.base, (uintptr_t)region.base + region.size);
    }
    vmki_vm_unlock();
    if (h == NULL)
        return false;
    huge_discount(heap, region_pages(region.size));
    vmki_tools_free(heap, object, 0);
    vmk_release(&region);
    vmki_os_error_set(before);
    return true;
}

size_t vmki_huge_usable(vmki_heap *heap, const void *object)
{
    if (VMKI_LOAD_ACQUIRE(&heap->objects.huge) == NULL)
        return 0;
    vmki_vm_lock();
    const huge *h = huge_find(heap, object);
    size_t usable = h != NULL ? h->usable : 0;
    vmki_vm_unlock();
    return usable;
}

size_t vmki_huge_size(uintptr_t base)
{
    return ((const huge *)base)->usable;
}

/* Have the system move the pages. Under the vm lock. */
static vmk_status huge_move(vmki_heap *heap, huge **h, size_t whole)
{
    vmk_region region = (*h)->region;
    uintptr_t from = (uintptr_t)region.base;
    size_t old = region.size;
    vmk_status status = vmki_vm_move(&region, whole);
    if (status != VMK_OK)
        return status;
    vmki_extents_remove(&heap->objects.huge, from, from + old); /* a node is free then, for what comes next */
    vmki_extents_insert(&heap->objects.huge, (uintptr_t)region.base, (uintptr_t)region.base + whole);
    *h = (huge *)(void *)region.base;
    **h = (huge){.region = region, .usable = whole - header_size()};
    return VMK_OK;
}

void *vmki_huge_realloc(vmki_heap *heap, void *object, size_t size)
{
    size_t usable = vmki_huge_usable(heap, object), rounded, whole, old_whole;
    size_t had = vmki_tools_asked(object, usable);
    if (size <= usable && size >= usable / 2) {
        vmki_tools_resize(heap, object, object, had, size, usable);
        return object;
    }
    if (size < HUGE_MIN_GROWN || size > PTRDIFF_MAX / 2)
        return NULL;
    whole = whole_size(size > usable ? size + size / SLACK_DIVISOR : size, &rounded);
    if (whole == 0 || !huge_count(heap, region_pages(whole)))
        return NULL;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    huge *h = huge_find(heap, object);
    old_whole = h->region.size;
    vmk_status status = huge_move(heap, &h, whole);
    vmki_vm_unlock();
    if (status != VMK_OK) {
        huge_discount(heap, region_pages(whole));
        return NULL;
    }
    huge_discount(heap, region_pages(old_whole));
    vmki_os_error_set(before);
    vmki_tools_resize(heap, object, (unsigned char *)h + header_size(), had, size, whole - header_size());
    return (unsigned char *)h + header_size();
}

void vmki_huge_end(vmki_heap *heap)
{
    while (heap->objects.huge != NULL) {
        const vmki_extent *first = vmki_extents_above(heap->objects.huge, 0);
        (void)vmki_huge_free(heap, (const void *)(first->base + header_size()));
    }
}
