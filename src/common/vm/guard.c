/* SPDX-License-Identifier: MIT
 *
 * Guards: marks in the page table where the system has such, else protected pages, and of these no more than leave the
 * program its mappings.
 */
#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/vm.h"

/* Of all guards by protection: how many there are. Each makes two mappings of what was one, and a program that has
 * none left fails in places that have nothing to do with guards. */
static size_t held; /* under the vm lock */

enum { MAPPINGS_OF_GUARD = 2, SHARE_OF_MAPPINGS = 4 };

static bool guard_hold(vmk_region *region)
{
    uint64_t mappings = vmki_vm_basics()->max_mappings;
    vmki_vm_lock();
    bool allowed = mappings == 0 || held < mappings / (MAPPINGS_OF_GUARD * SHARE_OF_MAPPINGS);
    if (allowed) {
        held++;
        region->guards_by++;
        region->guards_held++;
    }
    vmki_vm_unlock();
    return allowed;
}

static void guard_let_go(vmk_region *region)
{
    vmki_vm_lock();
    if (region->guards_held != 0) {
        region->guards_held--;
        held--;
    }
    vmki_vm_unlock();
}

/* Under the vm lock. How many there still are is only estimated: a guard may be cleared in pieces. So whether there
 * ever was one by protection is known apart from that. */
void vmki_guards_forget(vmk_region *region)
{
    held -= region->guards_held;
    region->guards_held = 0;
}

static vmk_status guard_by_protection(vmk_region *region, void *base, size_t size)
{
    if (!guard_hold(region))
        return VMK_ERR_MAPPINGS;
    vmk_status status = vmki_os_protect(base, size, VMK_ACCESS_NONE);
    if (status != VMK_OK)
        guard_let_go(region);
    return status;
}

vmk_status vmk_guard_set(vmk_region *region, size_t offset, size_t size)
{
    VMKI_REQUIRE_LIVE(region, "vmk_guard_set");
    if (!vmki_region_committed(region, offset, size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    region->guards++; /* first: whoever decommits must know */
    (void)vmki_vm_tell(region, (uintptr_t)region->base + offset, size, VMKI_CHANGE_LOSE);
    vmki_vm_unlock();
    vmk_status status = vmki_os_guard_set(region->base + offset, size);
    if (status == VMK_ERR_UNSUPPORTED)
        status = guard_by_protection(region, region->base + offset, size);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    else
        vmki_vm_tell_unlocked(region, (uintptr_t)region->base + offset, size, VMKI_CHANGE_COMMIT);
    return status;
}

vmk_status vmk_guard_clear(vmk_region *region, size_t offset, size_t size)
{
    VMKI_REQUIRE_LIVE(region, "vmk_guard_clear");
    if (!vmki_region_committed(region, offset, size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    bool any = region->guards != 0, by_protection = region->guards_by != 0;
    vmki_vm_unlock();
    vmk_status status = by_protection ? vmki_os_protect(region->base + offset, size, VMK_ACCESS_READ_WRITE) : VMK_OK;
    if (status != VMK_OK)
        return status;
    if (by_protection)
        guard_let_go(region);
    if (any) {
        vmki_os_guard_clear(region->base + offset, size);
        vmki_vm_tell_unlocked(region, (uintptr_t)region->base + offset, size, VMKI_CHANGE_COMMIT);
    }
    vmki_os_error_set(before);
    return VMK_OK;
}
