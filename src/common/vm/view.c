/* SPDX-License-Identifier: MIT
 *
 * Views of memory. The system maps from multiples of its granularity; what lies between such a one and the offset that
 * was asked for, the lead, is mapped too and never spoken of.
 *
 * A view has a handle of its own, by which it grows and is flushed when the memory is done with.
 */
#include "common/vm/memory.h"

#include "common/base/check.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b56u)     /* "vmkV" */
#define SEAL_UNMAPPED ((uintptr_t)0x64656164u) /* "dead" */

void vmki_view_require(const vmk_view *view, const char *not_live, const char *unmapped)
{
    if (VMKI_LIKELY(view->seal == SEAL_LIVE))
        return;
    vmki_misuse(view->seal == SEAL_UNMAPPED ? unmapped : not_live, view);
}

/* --- mapping ---------------------------------------------------------------------------------------------------- */

/* Does memory of `limit` bytes have so many from the offset on, and an address space room for them? */
static bool range_fits(uint64_t offset, uint64_t size, uint64_t limit)
{
    return size != 0 && offset <= limit && size <= limit - offset && size <= SIZE_MAX / 2;
}

static vmk_status map_with_handle(vmk_view *view)
{
    void *base;
    vmk_status status = vmki_os_view_map(view->handle, view->flags, view->offset - view->lead, view->lead + view->size,
                                         view->kind, &base);
    if (status == VMK_OK)
        view->base = (unsigned char *)base + view->lead;
    return status;
}

vmk_status vmk_view_map(vmk_view *view, const vmk_memory *memory, uint64_t offset, size_t size, vmk_view_kind kind)
{
    VMKI_REQUIRE_MEMORY(memory, "vmk_view_map");
    uint64_t limit = vmki_memory_size(memory);
    uint64_t length = size == 0 && offset < limit ? limit - offset : size;
    if ((unsigned)kind > VMK_VIEW_PRIVATE || !range_fits(offset, length, limit) ||
        (kind == VMK_VIEW_SHARED && (memory->flags & VMK_MEMORY_WRITE) == 0))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_view made = {.size = (size_t)length, .offset = offset, .kind = kind, .flags = memory->flags, .seal = SEAL_LIVE};
    made.lead = (size_t)(offset & (vmk_granularity() - 1));
    vmk_status status = vmki_os_memory_duplicate(memory->handle, false, &made.handle);
    if (status != VMK_OK)
        return status;
    status = map_with_handle(&made);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        vmki_os_memory_close(made.handle);
        vmki_os_error_set(why);
        return status;
    }
    *view = made;
    vmki_os_error_set(before);
    return VMK_OK;
}

/* Elsewhere, of the same memory: what a PRIVATE view has written would be lost. */
static vmk_status map_anew(vmk_view *view, size_t size)
{
    vmk_view larger = *view;
    larger.size = size;
    vmk_status status = map_with_handle(&larger);
    if (status != VMK_OK)
        return status;
    vmki_os_view_unmap(view->base - view->lead, view->lead + view->size);
    *view = larger;
    return VMK_OK;
}

vmk_status vmk_view_grow(vmk_view *view, const vmk_memory *memory, size_t size)
{
    VMKI_REQUIRE_VIEW(view, "vmk_view_grow");
    VMKI_REQUIRE_MEMORY(memory, "vmk_view_grow");
    if (size < view->size || !range_fits(view->offset, size, vmki_memory_size(memory)))
        return VMK_ERR_ARGUMENT;
    if (size == view->size)
        return VMK_OK;
    if (view->snapshots != 0)
        return VMK_ERR_UNSUPPORTED;
    vmki_os_error before = vmki_os_error_get();
    void *base = view->base - view->lead;
    vmk_status status = vmki_os_view_remap(&base, view->lead + view->size, view->lead + size);
    if (status == VMK_OK) {
        view->base = (unsigned char *)base + view->lead;
        view->size = size;
    } else if (status == VMK_ERR_UNSUPPORTED && view->kind != VMK_VIEW_PRIVATE) {
        status = map_anew(view, size);
    }
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

/* --- the rest --------------------------------------------------------------------------------------------------- */

vmk_status vmk_view_flush(vmk_view *view, size_t offset, size_t size)
{
    VMKI_REQUIRE_VIEW(view, "vmk_view_flush");
    if (!vmki_range_within(offset, size, view->size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        size = view->size - offset;
    if (size == 0 || view->kind != VMK_VIEW_SHARED || (view->flags & VMK_MEMORY_FILE) == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_view_flush(view->base + offset, size, view->handle, view->flags);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmk_view_unmap(vmk_view *view)
{
    VMKI_REQUIRE_VIEW(view, "vmk_view_unmap");
    if (view->snapshots != 0)
        vmki_misuse("vmk_view_unmap: view has snapshots", view);
    vmki_os_error before = vmki_os_error_get();
    vmki_os_view_unmap(view->base - view->lead, view->lead + view->size);
    vmki_os_memory_close(view->handle);
    view->seal = SEAL_UNMAPPED;
    vmki_os_error_set(before);
}
