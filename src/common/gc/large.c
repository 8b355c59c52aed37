/* SPDX-License-Identifier: MIT
 *
 * Large objects: spans of their own. Such an object comes into being by its one taken bit, when its memory is all zero:
 * until then its slab is OWNED, and nobody sweeps or marks it. So it may be cleared at leisure.
 */
#include "common/gc/gc.h"

#include <string.h>

#define CLEAR_AT_ONCE ((size_t)1 << 20) /* between safe points */

static vmk_span *span_make(vmki_gc *gc, unsigned bin, size_t pages, vmk_status *status)
{
    vmki_os_lock_acquire(&gc->lock);
    vmk_span *span = vmki_gc_slab_make(gc, bin, pages, 0, 0, status);
    vmki_os_lock_release(&gc->lock);
    return span;
}

static void clear(vmki_mutator *mutator, unsigned char *base, size_t size)
{
    for (size_t done = 0, step; done < size; done += step) {
        vmki_mutator_poll(mutator);
        step = vmki_min(size - done, CLEAR_AT_ONCE);
        memset(base + done, 0, step);
    }
}

void *vmki_gc_large_alloc(vmki_gc *gc, unsigned bin, size_t size, vmk_status *status)
{
    vmki_mutator *mutator = vmki_mutator_self();
    size_t pages;
    vmk_gc_cause cause;
    if (vmki_ceil_overflow(size, VMK_HEAP_PAGE_SIZE, &pages)) {
        *status = VMK_ERR_LIMIT;
        return NULL;
    }
    pages >>= VMK_HEAP_PAGE_SHIFT;
    *status = VMK_OK;
    if (vmki_pace_due(gc, &cause))
        return NULL;
    (void)vmki_gc_slabs_sweep(gc, pages); /* as many as it takes may be there */
    vmki_mutator_enter(mutator);
    vmk_span *span = span_make(gc, bin, pages, status);
    vmki_mutator_leave(mutator);
    if (span == NULL)
        return NULL;
    if ((span->flags & VMK_SPAN_ZERO) == 0)
        clear(mutator, span->base, pages << VMK_HEAP_PAGE_SHIFT);
    vmki_mutator_enter(mutator);
    vmki_os_lock_acquire(&gc->lock);
    size_t granule = vmki_gc_granule(gc, (uintptr_t)span->base);
    VMKI_FETCH_OR(&gc->taken[granule / VMKI_WORD_BITS], (size_t)1 << granule % VMKI_WORD_BITS);
    VMKI_STORE_RELEASE(&gc->slabs[span->id].epoch, gc->epoch);
    VMKI_STORE_RELEASE(&gc->slabs[span->id].state, VMKI_SLAB_IDLE);
    vmki_os_lock_release(&gc->lock);
    VMKI_FETCH_ADD(&gc->allocated, pages << VMK_HEAP_PAGE_SHIFT);
    vmki_mutator_leave(mutator);
    return span->base;
}
