/* SPDX-License-Identifier: MIT
 *
 * What a system can do with committed pages beside the usual: guards, prefault, residency. Each by the best that there
 * is, which os.h offers, and else by what every system has.
 */
#include <string.h>

#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/vm.h"

/* Is the range whole pages of the region, all of them committed? */
static bool all_committed(const vmk_region *region, size_t offset, size_t size)
{
    size_t run;
    return vmki_region_has(region, offset, size) &&
           (size == 0 || (vmk_region_query(region, offset, &run) == VMK_STATE_COMMITTED && run >= size));
}

/* --- guards ----------------------------------------------------------------------------------------------------- */

/* Of all guards by protection: how many there are. Each makes two mappings of what was one, and a program that has
 * none left fails in places that have nothing to do with guards. */
static size_t held; /* under the vm lock */

enum { MAPPINGS_OF_GUARD = 2, SHARE_OF_MAPPINGS = 4 };

static bool guard_hold(vmk_region *region)
{
    uint64_t mappings = vmk_capabilities()->max_mappings;
    vmki_vm_lock();
    bool allowed = mappings == 0 || held < mappings / (MAPPINGS_OF_GUARD * SHARE_OF_MAPPINGS);
    if (allowed) {
        held++;
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

/* Under the vm lock. */
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
    if (!all_committed(region, offset, size))
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
    if (status != VMK_OK)
        vmki_vm_tell_unlocked(region, (uintptr_t)region->base + offset, size, VMKI_CHANGE_COMMIT);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_guard_clear(vmk_region *region, size_t offset, size_t size)
{
    VMKI_REQUIRE_LIVE(region, "vmk_guard_clear");
    if (!all_committed(region, offset, size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    bool any = region->guards != 0, by_protection = region->guards_held != 0;
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

/* --- prefault --------------------------------------------------------------------------------------------------- */

/* Have each page written without changing it: a compare-and-swap of a value by itself is a write to the processor, and
 * leaves what other threads do to the word alone. */
static void touch(unsigned char *base, size_t size)
{
    for (size_t at = 0; at < size; at += vmk_page_size()) {
        uint32_t *word = (uint32_t *)(void *)(base + at);
        uint32_t value = VMKI_LOAD_RELAXED(word);
        (void)vmki_cas_32(word, value, value);
    }
}

vmk_status vmk_prefault(vmk_region *region, size_t offset, size_t size)
{
    VMKI_REQUIRE_LIVE(region, "vmk_prefault");
    if (!all_committed(region, offset, size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_tell_unlocked(region, (uintptr_t)region->base + offset, size, VMKI_CHANGE_WRITE);
    vmk_status status = vmki_os_prefault(region->base + offset, size);
    if (status == VMK_ERR_UNSUPPORTED) {
        touch(region->base + offset, size);
        status = VMK_OK;
    }
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

/* --- residency -------------------------------------------------------------------------------------------------- */

enum { PAGES_AT_ONCE = 1024 };

/* Of committed pages, so many: what the system says of each, and how many are there. */
static vmk_status count_resident(const unsigned char *base, size_t count, unsigned char *pages, size_t *there)
{
    unsigned char some[PAGES_AT_ONCE];
    size_t step;
    for (size_t at = 0; at < count; at += step) {
        step = vmki_min(count - at, PAGES_AT_ONCE);
        unsigned char *into = pages != NULL ? pages + at : some;
        vmk_status status = vmki_os_residency(base + at * vmk_page_size(), step * vmk_page_size(), into);
        if (status != VMK_OK)
            return status;
        for (size_t i = 0; i < step; i++)
            *there += into[i];
    }
    return VMK_OK;
}

/* The system is asked of committed pages alone: of the others it is known, and emulators know nothing of them. */
vmk_status vmk_residency(const vmk_region *region, size_t offset, size_t size, unsigned char *pages, size_t *resident)
{
    size_t there = 0, run;
    VMKI_REQUIRE_LIVE(region, "vmk_residency");
    if (!vmki_region_has(region, offset, size))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    for (size_t at = 0; at < size; at += run) {
        vmk_state state = vmk_region_query(region, offset + at, &run);
        run = vmki_min(run, size - at);
        unsigned char *into = pages != NULL ? pages + at / vmk_page_size() : NULL;
        if (state == VMK_STATE_COMMITTED) {
            vmk_status status = count_resident(region->base + offset + at, run / vmk_page_size(), into, &there);
            if (status != VMK_OK)
                return status;
        } else if (into != NULL) {
            memset(into, 0, run / vmk_page_size());
        }
    }
    *resident = there * vmk_page_size();
    vmki_os_error_set(before);
    return VMK_OK;
}
