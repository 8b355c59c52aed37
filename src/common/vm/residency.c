/* SPDX-License-Identifier: MIT
 *
 * The memory behind pages: having some at once, which pages have some, in huge pages or not, and from which node. Each
 * by the best that the system has, and else by what every system has.
 */
#include <string.h>

#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/vm.h"

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
    if (!vmki_region_committed(region, offset, size))
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

/* --- huge pages, nodes ------------------------------------------------------------------------------------------ */

vmk_status vmk_huge_report(const vmk_region *region, size_t offset, size_t size, size_t *huge)
{
    size_t sum = 0, run;
    VMKI_REQUIRE_LIVE(region, "vmk_huge_report");
    if (!vmki_region_has(region, offset, size))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    for (size_t at = 0; at < size; at += run) {
        vmk_state state = vmk_region_query(region, offset + at, &run);
        size_t found = 0;
        run = vmki_min(run, size - at);
        vmk_status status =
            state == VMK_STATE_COMMITTED ? vmki_os_huge_report(region->base + offset + at, run, &found) : VMK_OK;
        if (status != VMK_OK)
            return status;
        sum += found;
    }
    *huge = sum;
    vmki_os_error_set(before);
    return VMK_OK;
}

vmk_status vmk_node_prefer(vmk_region *region, size_t offset, size_t size, unsigned node)
{
    VMKI_REQUIRE_LIVE(region, "vmk_node_prefer");
    if (!vmki_region_has(region, offset, size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_node_prefer(region->base + offset, size, node);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_node_of(const void *address, unsigned *node)
{
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_node_of(address, node);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}
