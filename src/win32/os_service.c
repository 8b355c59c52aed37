/* SPDX-License-Identifier: MIT
 *
 * Guards in the page table, prefault, many ranges at once: Windows has none of these. PrefetchVirtualMemory reads what
 * is on disk, and makes nothing of pages that have never been written. It can tell of pages whether they are in memory,
 * large, and from which node; and it can be told to leave memory out of its error reports, which are its core dumps.
 */
#include "win32/os_service_private.h"

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

vmk_status vmki_os_discard_batch(const vmki_os_range *ranges, size_t count, size_t *done)
{
    (void)ranges;
    (void)count;
    *done = 0;
    return VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_decommit_batch(const vmki_os_range *ranges, size_t count, size_t *done)
{
    (void)ranges;
    (void)count;
    *done = 0;
    return VMK_ERR_UNSUPPORTED;
}

/* --- what is known of pages ------------------------------------------------------------------------------------- */

enum { AT_ONCE = 64 };

/* Of the pages from `base` on, so many; at most AT_ONCE. */
static bool look_at(const void *base, size_t count, PSAPI_WORKING_SET_EX_INFORMATION *info)
{
    size_t page_size, granularity;
    vmki_os_page_facts(&page_size, &granularity);
    for (size_t i = 0; i < count; i++)
        info[i].VirtualAddress = (void *)((uintptr_t)base + i * page_size);
    return QueryWorkingSetEx(GetCurrentProcess(), info, (DWORD)(count * sizeof info[0])) != 0;
}

vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *pages)
{
    PSAPI_WORKING_SET_EX_INFORMATION info[AT_ONCE];
    size_t page_size, granularity;
    vmki_os_page_facts(&page_size, &granularity);
    size_t count = size / page_size;
    for (size_t at = 0; at < count; at += AT_ONCE) {
        size_t step = vmki_min(count - at, AT_ONCE);
        if (!look_at((const unsigned char *)base + at * page_size, step, info))
            return VMK_ERR_UNSUPPORTED;
        for (size_t i = 0; i < step; i++)
            pages[at + i] = info[i].VirtualAttributes.Valid != 0;
    }
    return VMK_OK;
}

vmk_status vmki_os_huge_report(const void *base, size_t size, size_t *huge)
{
    PSAPI_WORKING_SET_EX_INFORMATION info[AT_ONCE];
    size_t page_size, granularity, sum = 0;
    vmki_os_page_facts(&page_size, &granularity);
    size_t count = size / page_size;
    for (size_t at = 0; at < count; at += AT_ONCE) {
        size_t step = vmki_min(count - at, AT_ONCE);
        if (!look_at((const unsigned char *)base + at * page_size, step, info))
            return VMK_ERR_UNSUPPORTED;
        for (size_t i = 0; i < step; i++)
            sum += info[i].VirtualAttributes.Valid != 0 && info[i].VirtualAttributes.LargePage != 0;
    }
    *huge = sum * page_size;
    return VMK_OK;
}

/* --- nodes ------------------------------------------------------------------------------------------------------ */

/* Decided when memory is reserved. */
vmk_status vmki_os_node_prefer(void *base, size_t size, unsigned node)
{
    (void)base;
    (void)size;
    (void)node;
    SetLastError(ERROR_NOT_SUPPORTED);
    return VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_node_of(const void *address, unsigned *node)
{
    PSAPI_WORKING_SET_EX_INFORMATION info;
    size_t page_size, granularity;
    vmki_os_page_facts(&page_size, &granularity);
    if (!look_at((const void *)vmki_floor((uintptr_t)address, page_size), 1, &info) ||
        info.VirtualAttributes.Valid == 0)
        return VMK_ERR_UNSUPPORTED;
    *node = (unsigned)info.VirtualAttributes.Node;
    return VMK_OK;
}

/* --- error reports ---------------------------------------------------------------------------------------------- */

/* Windows 10 keeps blocks of memory out of its error reports: 512 of them, of less than 4 GiB each, known by their
 * first byte. Ranges are not blocks: they overlap, and are put in again in part; so the blocks are remembered here,
 * disjoint, in no order. The lock is held while the system is asked, which only notes it down. */
enum { MOST_BLOCKS = 512 };

#define BLOCK_SIZE ((size_t)1 << 30) /* the longest that is asked for */

typedef struct block {
    uintptr_t base;
    uintptr_t limit;
} block;

static struct {
    vmki_os_lock lock;
    size_t count; /* read without the lock, to see that there is none */
    block blocks[MOST_BLOCKS];
    bool found; /* the functions below are what the system has, or a test */
    vmki_win32_exclude exclude;
    vmki_win32_include include;
} reports;

/* Under the lock. */
static bool reports_ready(void)
{
    static vmki_win32_lookup exclude, include;
    if (!reports.found) {
        reports.exclude = (vmki_win32_exclude)vmki_win32_look_up(&exclude, "WerRegisterExcludedMemoryBlock");
        reports.include = (vmki_win32_include)vmki_win32_look_up(&include, "WerUnregisterExcludedMemoryBlock");
        reports.found = true;
    }
    return reports.exclude != NULL && reports.include != NULL;
}

static void reports_set(bool found, vmki_win32_exclude exclude, vmki_win32_include include)
{
    vmki_os_lock_acquire(&reports.lock);
    reports.found = found;
    reports.exclude = exclude;
    reports.include = include;
    VMKI_STORE_RELAXED(&reports.count, 0);
    vmki_os_lock_release(&reports.lock);
}

void vmki_win32_reports_force(vmki_win32_exclude exclude, vmki_win32_include include)
{
    reports_set(true, exclude, include);
}

void vmki_win32_reports_find(void)
{
    reports_set(false, NULL, NULL);
}

static bool block_add(uintptr_t base, uintptr_t limit)
{
    if (reports.count == MOST_BLOCKS || FAILED(reports.exclude((const void *)base, (DWORD)(limit - base))))
        return false;
    reports.blocks[reports.count] = (block){base, limit};
    VMKI_STORE_RELAXED(&reports.count, reports.count + 1);
    return true;
}

static void block_end(size_t i)
{
    (void)reports.include((const void *)reports.blocks[i].base);
    VMKI_STORE_RELAXED(&reports.count, reports.count - 1);
    reports.blocks[i] = reports.blocks[reports.count];
}

/* From `from` on to where a block begins or ends, or to the limit; in *inside, whether that piece is of a block. */
static uintptr_t piece_end(uintptr_t from, uintptr_t limit, bool *inside)
{
    *inside = false;
    for (size_t i = 0; i < reports.count; i++) {
        const block *b = &reports.blocks[i];
        if (b->base <= from && from < b->limit) {
            *inside = true;
            return vmki_min(b->limit, limit);
        }
        if (b->base > from && b->base < limit)
            limit = b->base;
    }
    return limit;
}

/* What of the range isn't out yet becomes blocks; all of it or nothing. */
static bool exclude_range(uintptr_t base, uintptr_t limit)
{
    size_t before = reports.count;
    bool done = true, inside;
    for (uintptr_t from = base, end; from < limit && done; from = end) {
        end = piece_end(from, limit - from > BLOCK_SIZE ? from + BLOCK_SIZE : limit, &inside);
        done = inside || block_add(from, end);
    }
    while (!done && reports.count > before)
        block_end(reports.count - 1);
    return done;
}

/* Blocks that the range cuts are made anew without it. A range in the middle of one needs one more of them. */
static bool include_range(uintptr_t base, uintptr_t limit)
{
    for (size_t i = reports.count; i-- != 0;) {
        block b = reports.blocks[i];
        if (b.base >= limit || b.limit <= base)
            continue;
        if (b.base < base && b.limit > limit && reports.count == MOST_BLOCKS)
            return false;
        block_end(i);
        if (b.base < base)
            (void)block_add(b.base, base);
        if (b.limit > limit)
            (void)block_add(limit, b.limit);
    }
    return true;
}

vmk_status vmki_os_advise(void *base, size_t size, vmk_advice advice)
{
    uintptr_t from = (uintptr_t)base;
    if (advice != VMK_ADVICE_NO_DUMP && advice != VMK_ADVICE_DUMP)
        return VMK_ERR_UNSUPPORTED;
    vmki_os_lock_acquire(&reports.lock);
    bool done = reports_ready() &&
                (advice == VMK_ADVICE_NO_DUMP ? exclude_range(from, from + size) : include_range(from, from + size));
    vmki_os_lock_release(&reports.lock);
    return done ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

void vmki_win32_reports_forget(void *base, size_t size)
{
    if (VMKI_LIKELY(VMKI_LOAD_RELAXED(&reports.count) == 0))
        return;
    vmki_os_lock_acquire(&reports.lock);
    (void)include_range((uintptr_t)base, (uintptr_t)base + size);
    vmki_os_lock_release(&reports.lock);
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

/* Residency: os_probe.c, which has pages to try it on. */
void vmki_os_probe_service(vmk_caps *caps)
{
    size_t huge;
    ULONG highest = 0;
    vmki_os_request request = {.size = caps->granularity, .align = caps->granularity};
    void *base;
    caps->nodes = GetNumaHighestNodeNumber(&highest) ? (unsigned)highest + 1 : 1;
    if (vmki_os_reserve(&request, &base) != VMK_OK)
        return;
    if (vmki_os_commit(base, request.size) == VMK_OK && vmki_os_huge_report(base, request.size, &huge) == VMK_OK)
        caps->features |= VMK_CAP_HUGE_REPORT;
    if (vmki_os_advise(base, request.size, VMK_ADVICE_NO_DUMP) == VMK_OK)
        caps->advice |= 1u << VMK_ADVICE_NO_DUMP | 1u << VMK_ADVICE_DUMP;
    vmki_os_release(base, request.size);
}
