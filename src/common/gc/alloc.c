/* SPDX-License-Identifier: MIT
 *
 * Allocating. The fast path is a thread's own run of free slots: a few loads and two stores, between which the thread
 * is not stopped, for the slot is no longer free and nobody knows of it yet. What it takes beyond that is in
 * object_slow.
 */
#include "common/gc/gc.h"

#include <string.h>

/* --- the ways to an object ---------------------------------------------------------------------------------------- */

/* Of a thread that may allocate; misuse if it may not. NULL: it can't be registered for want of memory. */
static vmki_mutator *mutator_require(vmki_gc *gc)
{
    vmki_mutator *mutator = vmki_mutator_self();
    if (VMKI_LIKELY(mutator != NULL))
        return mutator;
    if ((gc->flags & VMK_GC_AUTO_THREADS) == 0)
        vmki_misuse("vmk_gc_alloc: the thread is not registered", gc);
    return vmk_gc_thread_register() == VMK_OK ? vmki_mutator_self() : NULL;
}

/* One attempt. NULL with VMK_OK: a cycle is due. */
static void *object_try(vmki_gc *gc, vmki_mutator *mutator, unsigned bin, size_t size, vmk_status *status)
{
    if (vmki_gc_codes[gc->bins[bin].code].size_class == 0)
        return vmki_gc_large_alloc(gc, bin, size, status);
    vmki_gc_cache *cache = vmki_gc_cache_of(gc, mutator, bin);
    if (cache == NULL) {
        *status = VMK_ERR_COMMIT;
        return NULL;
    }
    vmki_mutator_enter(mutator);
    void *object = vmki_gc_slab_take(gc, cache, bin, status);
    vmki_mutator_leave(mutator);
    return object;
}

/* May it be tried again? `tries` counts cycles that were made for it. */
static bool object_again(vmki_gc *gc, size_t size, vmk_status status, unsigned *tries)
{
    if (status == VMK_OK) {
        vmk_gc_cause cause;
        if (vmki_pace_due(gc, &cause))
            vmki_gc_cycle(gc, cause, gc->epoch);
        return true;
    }
    if ((*tries)++ == 0 && vmki_pace_worth(gc)) {
        vmki_gc_cycle(gc, VMK_GC_CAUSE_EXHAUSTED, gc->epoch);
        return true;
    }
    if (gc->options.on_exhausted == NULL ||
        !gc->options.on_exhausted(gc->options.on_exhausted_context, gc, size, status))
        return false;
    *tries = 0;
    return true;
}

static VMKI_COLD void *object_slow(vmki_gc *gc, unsigned bin, size_t size, const void *site)
{
    vmki_os_error before = vmki_os_error_get();
    vmki_mutator *mutator = mutator_require(gc);
    vmk_status status = VMK_ERR_COMMIT;
    unsigned tries = 0;
    void *object = NULL;
    if (mutator == NULL)
        return NULL;
    if ((gc->flags & VMK_GC_STRESS) != 0 && VMKI_LOAD_RELAXED(&gc->pace.disabled) == 0)
        vmki_gc_cycle(gc, VMK_GC_CAUSE_STRESS, gc->epoch);
    do {
        vmki_mutator_poll(mutator);
        object = object_try(gc, mutator, bin, size, &status);
    } while (object == NULL && object_again(gc, size, status, &tries));
    if (object == NULL)
        return NULL;
    if ((gc->flags & VMK_GC_SITES) != 0)
        vmki_site_note(gc, (uintptr_t)object, site);
    vmki_os_error_set(before);
    return object;
}

static inline void *object_alloc(vmki_gc *gc, unsigned bin, size_t size, const void *site)
{
    vmki_mutator *mutator = vmki_mutator_self();
    if (VMKI_UNLIKELY(mutator == NULL || gc->slow))
        return object_slow(gc, bin, size, site);
    vmki_gc_cache *cache = mutator->caches[gc->number];
    if (VMKI_UNLIKELY(cache == NULL || bin >= cache->bins || VMKI_LOAD_RELAXED(&mutator->wanted) != VMKI_WANTED_NOT))
        return object_slow(gc, bin, size, site);
    vmki_mutator_enter(mutator);
    vmki_gc_run *run = &cache->runs[bin];
    size_t free = run->free;
    unsigned char *object = NULL;
    if (VMKI_LIKELY(free != 0)) {
        run->free = free & (free - 1);
        object = run->base + ((size_t)vmki_lowest_bit(free) << VMKI_GRANULE_SHIFT);
    }
    vmki_mutator_leave(mutator);
    if (VMKI_UNLIKELY(object == NULL))
        return object_slow(gc, bin, size, site);
    return object;
}

static inline unsigned size_class_of(size_t size)
{
    return size <= VMK_OBJECT_SMALL_MAX ? vmki_class_of(size) : 0;
}

static inline void *object_of_kind(vmki_gc *gc, unsigned kind, size_t size, const void *site)
{
    return object_alloc(gc, kind * VMK_CLASSES + size_class_of(size), size, site);
}

void *vmk_gc_alloc(vmk_gc *gc, size_t size)
{
    return object_of_kind(VMKI_GC_REQUIRE(gc, "vmk_gc_alloc"), VMKI_CONSERVATIVE, size, VMKI_RETURN_ADDRESS());
}

void *vmk_gc_alloc_leaf(vmk_gc *gc, size_t size)
{
    return object_of_kind(VMKI_GC_REQUIRE(gc, "vmk_gc_alloc_leaf"), VMKI_LEAF, size, VMKI_RETURN_ADDRESS());
}

static void *object_of_type(vmki_gc *gc, vmk_gc_type *type, size_t size, const void *site)
{
    unsigned size_class = size_class_of(size), bin = VMKI_LOAD_RELAXED(&type->bins[size_class]);
    if (VMKI_UNLIKELY(bin == 0)) {
        bin = vmki_gc_bin_of_type(gc, type, size_class);
        if (bin == 0)
            return NULL;
    }
    return object_alloc(gc, bin, size, site);
}

void *vmk_gc_alloc_typed(vmk_gc *view, vmk_gc_type *type, size_t count)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_alloc_typed");
    size_t size;
    if (vmki_mul_overflow(vmki_max(count, 1), type->words * sizeof(void *), &size))
        return NULL;
    return object_of_type(gc, type, size, VMKI_RETURN_ADDRESS());
}

void *vmki_gc_alloc_own(vmki_gc *gc, size_t size)
{
    return object_of_type(gc, gc->own, size, NULL);
}

void *vmk_gc_alloc_pinned(vmk_gc *view, size_t size)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_alloc_pinned");
    void *object = object_of_kind(gc, VMKI_CONSERVATIVE, size, VMKI_RETURN_ADDRESS());
    if (object != NULL && vmk_gc_pin(gc, object) != VMK_OK) {
        vmk_gc_free(gc, object);
        return NULL;
    }
    return object;
}

/* --- what is an object -------------------------------------------------------------------------------------------- */

/* The object that an address is in, or 0. Inside, or unregistered. */
static uintptr_t object_find(vmki_gc *gc, uintptr_t address, uint8_t *code)
{
    vmk_span *span = vmk_span_find(gc->heap, address);
    *code = 0;
    if (span == NULL || span->id >= vmk_table_ready(&gc->slab_table))
        return 0;
    vmki_gc_slab *slab = &gc->slabs[span->id];
    if (VMKI_LOAD_ACQUIRE(&slab->state) == VMKI_SLAB_NONE)
        return 0;
    uintptr_t base = vmki_gc_find(gc, address, code);
    if (base == 0)
        return 0;
    vmki_gc_slab_settle(gc, slab, base);
    return vmki_gc_bit(gc->taken, vmki_gc_granule(gc, base)) ? base : 0;
}

/* A slot that a cache holds ready is taken, and no object: those of other threads are not asked after, for nobody has
 * been given their addresses. */
static uintptr_t object_look(vmki_gc *gc, const void *address, uint8_t *code)
{
    vmki_gc_enter();
    uintptr_t base = object_find(gc, (uintptr_t)address, code);
    vmki_gc_leave();
    return base;
}

uint8_t vmki_gc_object_require(vmki_gc *gc, const void *object, const char *crime)
{
    uint8_t code;
    if (VMKI_UNLIKELY(object_look(gc, object, &code) != (uintptr_t)object || object == NULL))
        vmki_misuse(crime, object);
    return code;
}

void *vmk_gc_base(vmk_gc *view, const void *address)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_base");
    uint8_t code;
    return (void *)object_look(gc, address, &code);
}

size_t vmk_gc_usable_size(vmk_gc *view, const void *object)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_usable_size");
    if (object == NULL)
        return 0;
    uint8_t code = vmki_gc_object_require(gc, object, "vmk_gc_usable_size: not an object of this heap");
    return vmki_gc_size(gc, (uintptr_t)object, code);
}

/* --- freeing ------------------------------------------------------------------------------------------------------ */

/* What was noted of an object that goes by hand. */
static void notes_drop(vmki_gc *gc, uintptr_t object)
{
    vmki_finalizer_drop(gc, object);
    vmki_links_drop(gc, object);
    vmki_ephemerons_drop(gc, object);
    vmki_pin_drop(gc, object);
    if ((gc->flags & VMK_GC_SITES) != 0)
        vmki_site_drop(gc, object);
}

/* Its bit goes, by exactly one of those who free it. Inside, where the thread is registered. */
static bool bit_clear(vmki_gc *gc, uintptr_t object)
{
    size_t granule = vmki_gc_granule(gc, object), bit = (size_t)1 << granule % VMKI_WORD_BITS;
    return (VMKI_FETCH_AND(&gc->taken[granule / VMKI_WORD_BITS], ~bit) & bit) != 0;
}

static bool object_free(vmki_gc *gc, uintptr_t object, uint8_t code)
{
    vmk_span *span = vmk_span_of(gc->heap, (const void *)object);
    if (vmki_gc_codes[code].size_class != 0) {
        if (!bit_clear(gc, object))
            return false;
        vmki_gc_slab_freed(gc, span->id);
        return true;
    }
    vmki_os_lock_acquire(&gc->lock);
    bool cleared = gc->slabs[span->id].state == VMKI_SLAB_IDLE && bit_clear(gc, object);
    if (cleared)
        vmki_gc_slab_end(gc, span);
    vmki_os_lock_release(&gc->lock);
    return cleared;
}

void vmk_gc_free(vmk_gc *view, void *object)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_free");
    const char *crime = "vmk_gc_free: not an object of this heap, or freed before";
    if (object == NULL)
        return;
    uint8_t code = vmki_gc_object_require(gc, object, crime);
    size_t size = vmki_gc_size(gc, (uintptr_t)object, code);
    notes_drop(gc, (uintptr_t)object);
    vmki_gc_enter();
    bool freed = object_free(gc, (uintptr_t)object, code);
    vmki_gc_leave();
    if (!freed)
        vmki_misuse(crime, object);
    VMKI_FETCH_ADD(&gc->freed_by_hand, size);
}

/* --- changing the size -------------------------------------------------------------------------------------------- */

static bool size_fits(const vmki_gc_code *code, size_t usable, size_t size)
{
    if (code->size_class == 0)
        return size > VMK_OBJECT_SMALL_MAX && size <= usable && usable - size < usable / 4;
    return size <= VMK_OBJECT_SMALL_MAX && size_class_of(size) == code->size_class;
}

/* Into another object. Allocating is a safe point: where stacks keep nothing alive, the old object must be held over
 * it. */
static void *object_move(vmki_gc *gc, void *object, size_t usable, vmk_gc_type *type, unsigned kind, size_t size,
                         const void *site)
{
    bool holds = (gc->flags & VMK_GC_NO_STACKS) != 0;
    if (holds && vmk_gc_pin(gc, object) != VMK_OK)
        return NULL;
    void *moved = type != NULL ? object_of_type(gc, type, size, site) : object_of_kind(gc, kind, size, site);
    if (moved != NULL)
        memcpy(moved, object, vmki_min(usable, size));
    if (holds)
        vmk_gc_unpin(gc, object);
    return moved;
}

void *vmk_gc_realloc(vmk_gc *view, void *object, size_t size)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_realloc");
    const void *site = VMKI_RETURN_ADDRESS();
    if (object == NULL)
        return object_of_kind(gc, VMKI_CONSERVATIVE, size, site);
    uint8_t number = vmki_gc_object_require(gc, object, "vmk_gc_realloc: not an object of this heap");
    const vmki_gc_code *code = &vmki_gc_codes[number];
    size_t usable = vmki_gc_size(gc, (uintptr_t)object, number);
    vmk_gc_type *type = gc->bins[vmki_gc_slab_of(gc, (uintptr_t)object)->bin].type;
    if (type != NULL && size % (type->words * sizeof(void *)) != 0)
        vmki_misuse("vmk_gc_realloc: not whole elements of the type", object);
    if (!size_fits(code, usable, size))
        return object_move(gc, object, usable, type, code->kind, size, site);
    memset((unsigned char *)object + size, 0, usable - size); /* it may grow again */
    return object;
}
