/* SPDX-License-Identifier: MIT
 *
 * What this system can do, by trying. What the headers and the version promise is no proof: Wine has functions that do
 * nothing, and a figure of its own for everything. What is tried here is made with the contract's own functions, so a
 * capability is what a caller will see.
 */
#include "os_private.h"

#include <string.h>

#include "common/base/os_service.h"

/* Asked once: GetSystemInfo is two system calls, and every aligned reservation comes by here. Threads that ask at the
 * same time store the same. */
void vmki_os_page_facts(size_t *page_size, size_t *granularity)
{
    static volatile uintptr_t page;
    static volatile uintptr_t unit;
    if (VMKI_LOAD_RELAXED(&page) == 0 || VMKI_LOAD_RELAXED(&unit) == 0) {
        SYSTEM_INFO info;
        GetSystemInfo(&info);
        VMKI_STORE_RELAXED(&page, info.dwPageSize);
        VMKI_STORE_RELAXED(&unit, info.dwAllocationGranularity);
    }
    *page_size = VMKI_LOAD_RELAXED(&page);
    *granularity = VMKI_LOAD_RELAXED(&unit);
}

/* --- addresses -------------------------------------------------------------------------------------------------- */

/* May a program have this address at all? An address outside the address space is error 87, from Wine too; all other
 * refusals, 487 first, are about what is there already. */
static bool address_is_allowed(uintptr_t address, size_t unit)
{
    void *base = VirtualAlloc((void *)address, unit, MEM_RESERVE, PAGE_NOACCESS);
    if (base == NULL)
        return GetLastError() != ERROR_INVALID_PARAMETER;
    VirtualFree(base, 0, MEM_RELEASE);
    return true;
}

/* The first allowed address from `from` on, in steps that double, downwards or upwards; 0 if there is none. */
static uintptr_t first_allowed_address(uintptr_t from, size_t unit, bool down)
{
    for (size_t step = unit; step != 0; step *= 2) {
        if (address_is_allowed(from, unit))
            return from;
        if (down ? from < step : from > UINTPTR_MAX - step)
            break;
        from = down ? from - step : from + step;
    }
    return 0;
}

/* The figures of GetSystemInfo depend on how the program was linked, the version, and what runs it. */
static void probe_addresses(vmk_caps *caps)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    size_t unit = caps->granularity;
    caps->address_min = first_allowed_address((uintptr_t)info.lpMinimumApplicationAddress, unit, false);
    uintptr_t last = vmki_floor((uintptr_t)info.lpMaximumApplicationAddress, unit);
    last = first_allowed_address(last, unit, true);
    caps->address_max = last != 0 ? last + (unit - 1) : 0;
}

/* --- the machine ------------------------------------------------------------------------------------------------ */

/* Wine tells a size of large pages and refuses them as an invalid parameter. Windows refuses them to all but a few, as
 * a privilege not held (1314), or has none free (1450): they exist. */
static void probe_large_pages(vmk_caps *caps)
{
    size_t size = GetLargePageMinimum();
    if (size == 0)
        return;
    void *base = VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT | MEM_LARGE_PAGES, PAGE_READWRITE);
    if (base == NULL && GetLastError() == ERROR_INVALID_PARAMETER)
        return;
    if (base != NULL)
        VirtualFree(base, 0, MEM_RELEASE);
    caps->huge_sizes[0] = size;
}

uint64_t vmki_os_physical_memory(void)
{
    MEMORYSTATUSEX status = {.dwLength = sizeof(status)};
    return GlobalMemoryStatusEx(&status) ? status.ullTotalPhys : 0;
}

/* --- features --------------------------------------------------------------------------------------------------- */

static void *probe_reserve(const vmk_caps *caps, size_t size)
{
    vmki_os_request request = {.size = size, .align = caps->granularity};
    void *base = NULL;
    return vmki_os_reserve(&request, &base) == VMK_OK ? base : NULL;
}

static void probe_placement(vmk_caps *caps)
{
    void *base = probe_reserve(caps, caps->granularity);
    if (base != NULL) {
        vmki_os_request again = {
            .hint = (uintptr_t)base, .size = caps->granularity, .align = caps->granularity, .exact = true};
        void *second;
        vmk_status status = vmki_os_reserve(&again, &second);
        if (status == VMK_OK)
            vmki_os_release(second, caps->granularity);
        else if (status == VMK_ERR_TAKEN)
            caps->features |= VMK_CAP_EXACT;
        vmki_os_release(base, caps->granularity);
    }
    bool refused;
    base = vmki_os_reserve_by_requirement(caps->granularity, 16 * caps->granularity, &refused);
    if (base != NULL) {
        vmki_os_release(base, caps->granularity);
        caps->features |= VMK_CAP_ALIGNED;
    }
}

static int64_t charge_now(void)
{
    PROCESS_MEMORY_COUNTERS_EX counters;
    return vmki_os_counters(&counters) ? (int64_t)counters.PrivateUsage : 0;
}

/* Does the process's commit charge follow a commit that touches nothing, and its reverse? Windows charges to the byte.
 * Wine does not: it says 0, or in other versions what was touched. The system's total would tell it too, but moves with
 * every other process; this one moves with other threads only, hence the size. To be refused is proof as well. */
static void probe_charge(vmk_caps *caps)
{
    const size_t size = 16 << 20;
    const int64_t enough = 8 << 20;
    void *base = probe_reserve(caps, size);
    if (base == NULL)
        return;
    int64_t reserved = charge_now();
    vmk_status status = vmki_os_commit(base, size);
    int64_t committed = charge_now();
    if (status == VMK_ERR_COMMIT || (status == VMK_OK && committed - reserved >= enough)) {
        caps->features |= VMK_CAP_COMMIT_CHARGED;
        caps->overcommit = VMK_OVERCOMMIT_NEVER;
    }
    if (status == VMK_OK && vmki_os_decommit(base, size) == VMK_OK && committed - charge_now() >= enough)
        caps->features |= VMK_CAP_DECOMMIT_CHARGE;
    vmki_os_release(base, size);
}

static void probe_discard(vmk_caps *caps)
{
    enum { PAGES = 4, ALL = 0x01010101 };
    uint32_t before = 0, after = ALL;
    size_t size = PAGES * caps->page_size;
    unsigned char *base = probe_reserve(caps, size);
    if (base == NULL)
        return;
    if (vmki_os_commit(base, size) == VMK_OK) {
        memset(base, 0xA5, size);
        if (vmki_os_residency(base, size, (unsigned char *)&before) == VMK_OK && before == ALL)
            caps->features |= VMK_CAP_RESIDENCY;
        if (vmki_os_discard(base, size) == VMK_OK) {
            if (before == ALL && vmki_os_residency(base, size, (unsigned char *)&after) == VMK_OK && after == 0)
                caps->features |= VMK_CAP_DISCARD_PROMPT;
            size_t zeroes = 0;
            while (zeroes < size && base[zeroes] == 0)
                zeroes++;
            if (zeroes == size)
                caps->features |= VMK_CAP_DISCARD_ZERO;
        }
    }
    vmki_os_release(base, size);
}

/* huge_page_size, max_mappings, VMK_CAP_HUGE_ADVICE and VMK_CAP_FORK stay zero: there is no such thing here. */
void vmki_os_probe(vmk_caps *caps)
{
    probe_addresses(caps);
    probe_large_pages(caps);
    caps->physical_memory = vmki_os_physical_memory();
    probe_placement(caps);
    probe_charge(caps);
    probe_discard(caps);
}
