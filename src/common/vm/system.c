/* SPDX-License-Identifier: MIT
 *
 * What is known of the system: the page, the record of capabilities, the limits, and what they suggest for the size of
 * a reservation.
 *
 * The page and the granularity are asked for at the first need of anything, so finding them is kept apart from the
 * probing of all the rest, which most programs never ask for and should not pay for at their start. Nor does who needs
 * the rest pay for the services, which capabilities.c adds.
 */
#include "common/base/check.h"
#include "common/base/os.h"
#include "common/vm/vm.h"

static size_t known_page_size; /* 0 until known; written last, with release */
static size_t known_granularity;

static VMKI_COLD void facts_find(void)
{
    size_t page_size, granularity;
    vmki_os_error before = vmki_os_error_get();
    vmki_os_page_facts(&page_size, &granularity);
    VMKI_ASSERT(vmki_is_power_of_two(page_size) && vmki_is_power_of_two(granularity) && page_size <= granularity);
    VMKI_STORE_RELAXED(&known_granularity, granularity); /* whoever else is here stores the same */
    VMKI_STORE_RELEASE(&known_page_size, page_size);
    vmki_os_error_set(before);
}

size_t vmk_page_size(void)
{
    if (VMKI_UNLIKELY(VMK_LOAD_ACQUIRE(&known_page_size) == 0))
        facts_find();
    return VMK_LOAD_ACQUIRE(&known_page_size);
}

size_t vmk_granularity(void)
{
    (void)vmk_page_size();
    return VMKI_LOAD_RELAXED(&known_granularity);
}

size_t vmk_page_ceil(size_t size)
{
    size_t rounded;
    (void)vmki_ceil_overflow(size, vmk_page_size(), &rounded);
    return rounded;
}

const vmk_caps *vmki_vm_basics(void)
{
    static vmk_caps basics;
    static size_t probed; /* 1 once it is whole */
    if (VMKI_LIKELY(VMK_LOAD_ACQUIRE(&probed) != 0))
        return &basics;
    vmk_caps found = {.page_size = vmk_page_size(), .granularity = vmk_granularity()};
    vmki_os_error before = vmki_os_error_get();
    vmki_os_probe(&found); /* by as many threads as come here first; one of them publishes */
    vmki_vm_lock();
    if (probed == 0) {
        basics = found;
        VMKI_STORE_RELEASE(&probed, 1);
    }
    vmki_vm_unlock();
    vmki_os_error_set(before);
    return &basics;
}

void vmk_limits_now(vmk_limits *limits)
{
    vmk_limits found = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_error before = vmki_os_error_get();
    vmki_os_limits(&found);
    vmki_os_error_set(before);
    *limits = found;
}

vmk_status vmk_usage_now(vmk_usage *usage)
{
    vmk_usage found = {0};
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_usage(&found);
    if (status == VMK_OK) {
        *usage = found;
        vmki_os_error_set(before);
    }
    return status;
}

static uint64_t what_is_left(uint64_t limit, uint64_t used)
{
    if (limit == VMK_UNLIMITED)
        return VMK_UNLIMITED;
    return limit > used ? limit - used : 0;
}

size_t vmki_vm_budget(size_t wanted, unsigned flags)
{
    vmk_limits limits;
    vmk_usage usage = {0};
    vmk_limits_now(&limits);
    if (vmk_usage_now(&usage) != VMK_OK)
        usage = (vmk_usage){0};
    uint64_t budget = what_is_left(limits.address_space, usage.address_space);
    if (budget != VMK_UNLIMITED)
        budget /=
            2; /* the rest of the program needs stacks, libraries, files: whoever wants it all says so by min_size */
    if ((flags & VMK_RESERVE_SPARSE) == 0) {
        const uint64_t memory[] = {what_is_left(limits.data, usage.data), limits.memory, limits.commit};
        for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
            budget = memory[i] < budget ? memory[i] : budget;
    }
    return budget < wanted ? (size_t)budget : wanted;
}
