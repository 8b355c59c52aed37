/* SPDX-License-Identifier: MIT
 *
 * Guards in the page table, prefault, residency: of these Windows has the last. PrefetchVirtualMemory reads what is on
 * disk, and makes nothing of pages that have never been written.
 */
#include "win32/os_private.h"

#include "common/base/os_service.h"

vmk_status vmki_os_guard_set(void *base, size_t size)
{
    (void)base;
    (void)size;
    return VMK_ERR_UNSUPPORTED;
}

void vmki_os_guard_clear(void *base, size_t size)
{
    (void)base;
    (void)size;
}

vmk_status vmki_os_prefault(void *base, size_t size)
{
    (void)base;
    (void)size;
    return VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *pages)
{
    enum { AT_ONCE = 64 };
    PSAPI_WORKING_SET_EX_INFORMATION info[AT_ONCE];
    size_t page_size, granularity;
    vmki_os_page_facts(&page_size, &granularity);
    size_t count = size / page_size;
    for (size_t at = 0; at < count; at += AT_ONCE) {
        size_t step = vmki_min(count - at, AT_ONCE);
        for (size_t i = 0; i < step; i++)
            info[i].VirtualAddress = (void *)((uintptr_t)base + (at + i) * page_size);
        if (!QueryWorkingSetEx(GetCurrentProcess(), info, (DWORD)(step * sizeof info[0])))
            return VMK_ERR_UNSUPPORTED;
        for (size_t i = 0; i < step; i++)
            pages[at + i] = info[i].VirtualAttributes.Valid != 0;
    }
    return VMK_OK;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_service(vmk_caps *caps)
{
    (void)caps; /* residency: os_probe.c, which has pages to try it on */
}
