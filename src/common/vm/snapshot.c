/* SPDX-License-Identifier: MIT
 *
 * Snapshots of views. One at a time shares its pages with the view, by making the view a private mapping of its memory:
 * that is the system's part. All others are copies.
 */
#include "common/vm/memory.h"

#include <string.h>

#include "common/base/check.h"
#include "common/vm/vm.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b53u)    /* "vmkS" */
#define SEAL_DROPPED ((uintptr_t)0x64656164u) /* "dead" */

/* Both of a view's fields are under the vm lock. Count one more; answers whether it may be the one that shares. */
static bool claim(vmk_view *view)
{
    vmki_vm_lock();
    bool first = !view->frozen;
    view->frozen = true;
    view->snapshots++;
    vmki_vm_unlock();
    return first;
}

static void disclaim(vmk_view *view, bool shared, bool snapshot)
{
    vmki_vm_lock();
    if (shared)
        view->frozen = false;
    if (snapshot)
        view->snapshots--;
    vmki_vm_unlock();
}

/* The mapping is the view and its lead. */
static vmk_status take_shared(vmk_snapshot *made, const vmk_view *view)
{
    void *frozen;
    vmk_status status = vmki_os_snapshot_take(view->handle, view->base - view->lead, view->offset - view->lead,
                                              view->lead + view->size, &frozen);
    if (status == VMK_OK) {
        made->owner = (uintptr_t)frozen;
        made->base = (unsigned char *)frozen + view->lead;
        made->shared = true;
    }
    return status;
}

static vmk_status take_copy(vmk_snapshot *made, const vmk_view *view)
{
    vmki_os_request request = {.align = vmk_granularity()};
    void *base;
    if (vmki_ceil_overflow(view->size, vmk_page_size(), &request.size))
        return VMK_ERR_ADDRESS_SPACE;
    vmk_status status = vmki_os_reserve(&request, &base);
    if (status != VMK_OK)
        return status;
    status = vmki_os_commit(base, request.size);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        vmki_os_release(base, request.size);
        vmki_os_error_set(why);
        return status;
    }
    memcpy(base, view->base, view->size);
    made->owner = (uintptr_t)base;
    made->base = base;
    made->shared = false;
    return VMK_OK;
}

vmk_status vmk_snapshot_take(vmk_snapshot *snapshot, vmk_view *view)
{
    VMKI_REQUIRE_VIEW(view, "vmk_snapshot_take");
    if (view->kind != VMK_VIEW_SHARED || (view->flags & VMK_MEMORY_FILE) != 0)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_snapshot made = {.size = view->size, .of = view, .seal = SEAL_LIVE};
    vmk_status status = VMK_ERR_UNSUPPORTED;
    if (claim(view)) {
        status = take_shared(&made, view);
        if (status != VMK_OK)
            disclaim(view, true, false);
    }
    if (status == VMK_ERR_UNSUPPORTED)
        status = take_copy(&made, view);
    if (status != VMK_OK) {
        disclaim(view, false, true);
        return status;
    }
    *snapshot = made;
    vmki_os_error_set(before);
    return VMK_OK;
}

vmk_status vmk_snapshot_drop(vmk_snapshot *snapshot)
{
    if (snapshot->seal != SEAL_LIVE)
        vmki_misuse(snapshot->seal == SEAL_DROPPED ? "vmk_snapshot_drop: snapshot was dropped before"
                                                   : "vmk_snapshot_drop: not a snapshot",
                    snapshot);
    vmk_view *view = snapshot->of;
    VMKI_REQUIRE_VIEW(view, "vmk_snapshot_drop: its view");
    vmki_os_error before = vmki_os_error_get();
    if (snapshot->shared) {
        vmk_status status = vmki_os_snapshot_drop(view->handle, view->base - view->lead, view->offset - view->lead,
                                                  view->lead + view->size, (void *)snapshot->owner);
        if (status != VMK_OK)
            return status;
    } else {
        vmki_os_release((void *)snapshot->owner, vmki_ceil(snapshot->size, vmk_page_size()));
    }
    disclaim(view, snapshot->shared, true);
    snapshot->seal = SEAL_DROPPED;
    vmki_os_error_set(before);
    return VMK_OK;
}
