/* SPDX-License-Identifier: MIT
 *
 * Regions: every operation of vmkit.h's part 2 on a reservation.
 *
 * Invariants
 *   - A region's extents are exactly its committed pages, whole pages inside [base, base + size); region->committed is
 *     their sum. They change together with the system's state, under the vm lock, or not at all.
 *   - The system is asked to commit gaps only, so pages that are live are never touched, and what a failing call has
 *     done can be undone to the page.
 *   - A region that has a name bears it everywhere: a decommit, which may lose it, gives it anew.
 *   - Pages that are reserved bear no marks as guards, unless a batch has left them (region->marked): then a commit
 *     clears them first.
 *   - What gives back (release, decommit, discard) treats a wrong range as misuse: its caller believes memory to be
 * gone or unused that is not. What takes (reserve, commit, protect, advise) answers with VMK_ERR_ARGUMENT.
 */
#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/extents.h"
#include "common/vm/vm.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b52u)     /* "vmkR" */
#define SEAL_RELEASED ((uintptr_t)0x64656164u) /* "dead" */

static vmk_stats stats; /* under the vm lock */

vmki_watcher *vmki_vm_watcher; /* likewise */

/* --- the lock --------------------------------------------------------------------------------------------------- */

static vmki_os_lock lock;
static bool prepared; /* under the lock */
static size_t forks;  /* written where there is but one thread */

static void lock_before_fork(void)
{
    vmki_os_lock_acquire(&lock);
}

static void lock_after_fork(void)
{
    vmki_os_lock_release(&lock);
}

static void lock_in_child(void)
{
    forks++;
    vmki_os_lock_release(&lock);
}

void vmki_vm_lock(void)
{
    vmki_os_lock_acquire(&lock);
    if (VMKI_UNLIKELY(!prepared)) {
        prepared = true;
        vmki_os_lock_release(&lock); /* registering may itself wait for a fork, which waits for this lock */
        vmki_os_at_fork(lock_before_fork, lock_after_fork, lock_in_child);
        vmki_os_lock_acquire(&lock);
    }
}

bool vmki_vm_trylock(void)
{
    return vmki_os_lock_try(&lock);
}

void vmki_vm_unlock(void)
{
    vmki_os_lock_release(&lock);
}

void vmki_vm_tell_unlocked(const vmk_region *region, uintptr_t base, size_t size, vmki_change change)
{
    if (VMKI_LOAD_RELAXED(&vmki_vm_watcher) == NULL)
        return;
    vmki_vm_lock();
    (void)vmki_vm_tell(region, base, size, change);
    vmki_vm_unlock();
}

size_t vmki_vm_forks(void)
{
    vmki_vm_lock();
    vmki_vm_unlock();
    return forks;
}

/* --- arguments -------------------------------------------------------------------------------------------------- */

bool vmki_region_has(const vmk_region *region, size_t offset, size_t size)
{
    return vmki_is_aligned(offset | size, region->unit) && vmki_range_within(offset, size, region->size);
}

bool vmki_region_committed(const vmk_region *region, size_t offset, size_t size)
{
    size_t run;
    return vmki_region_has(region, offset, size) &&
           (size == 0 || (vmk_region_query(region, offset, &run) == VMK_STATE_COMMITTED && run >= size));
}

void vmki_region_require(const vmk_region *region, const char *not_live, const char *released)
{
    if (VMKI_LIKELY(region->seal == SEAL_LIVE))
        return;
    vmki_misuse(region->seal == SEAL_RELEASED ? released : not_live, region);
}

#define REQUIRE_RANGE(region, offset, size, function)                                                                  \
    do {                                                                                                               \
        VMKI_REQUIRE_LIVE(region, function);                                                                           \
        if (VMKI_UNLIKELY(!vmki_region_has(region, offset, size)))                                                     \
            vmki_misuse(function ": range is misaligned or leaves the region",                                         \
                        (const void *)((uintptr_t)(region)->base + (offset)));                                         \
    } while (0)

/* --- reserve and release ---------------------------------------------------------------------------------------- */

static size_t unit_of(const vmk_reserve_options *options)
{
    return options->huge_size != 0 ? options->huge_size : vmk_page_size();
}

/* 0: none is asked for. Which of the others there are the system knows. */
static bool huge_size_possible(size_t size)
{
    return size == 0 || (vmki_is_power_of_two(size) && size > vmk_page_size());
}

static void stats_add_committed(size_t fresh, unsigned gaps)
{
    stats.committed += fresh;
    stats.committed_peak = vmki_max(stats.committed_peak, stats.committed);
    stats.committed_total += fresh;
    stats.commit_count += gaps;
}

static void stats_add_region(size_t size)
{
    stats.regions++;
    stats.reserved += size;
    stats.reserved_peak = vmki_max(stats.reserved_peak, stats.reserved);
}

/* A region of what the system has just given: all of it committed, as huge pages may come, or nothing. */
static vmk_status region_make(vmk_region *region, const vmk_region *made, bool committed)
{
    vmki_vm_lock();
    vmk_status status = committed ? vmki_extents_prepare(1) : VMK_OK;
    if (status == VMK_OK) {
        *region = *made;
        stats_add_region(made->size + made->guard_size);
    }
    if (status == VMK_OK && committed) {
        vmki_extents_insert(&region->extents, (uintptr_t)made->base, (uintptr_t)made->base + made->size);
        region->committed = made->size;
        stats_add_committed(made->size, 1);
    }
    vmki_vm_unlock();
    return status;
}

/* Reserve exactly size and guard, and make it a region. */
static vmk_status reserve_exactly(vmk_region *region, size_t size, size_t guard, const vmki_os_request *how,
                                  const vmk_reserve_options *options)
{
    vmki_os_request request = *how;
    void *base;
    bool committed = false;
    if (vmki_add_overflow(size, guard, &request.size))
        return VMK_ERR_ARGUMENT;
    vmk_status status = options->huge_size == 0 ? vmki_os_reserve(&request, &base)
                                                : vmki_os_reserve_huge(&request, options->huge_size, &base, &committed);
    if (status != VMK_OK)
        return status;
    if (options->name != NULL)
        vmki_os_name(base, request.size, options->name);
    if (committed && guard != 0)
        status = vmki_os_protect((unsigned char *)base + size, guard, VMK_ACCESS_NONE);
    const vmk_region made = {.base = base,
                             .size = size,
                             .guard_size = guard,
                             .unit = unit_of(options),
                             .name = options->name,
                             .seal = SEAL_LIVE};
    if (status == VMK_OK)
        status = region_make(region, &made, committed);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        vmki_os_release(base, request.size);
        vmki_os_error_set(why);
    }
    return status;
}

/* At most `size`, at least `least`: what the limits suggest first, then half of it again and again. */
static vmk_status reserve_at_most(vmk_region *region, size_t size, size_t least, size_t guard,
                                  const vmk_reserve_options *options, const vmki_os_request *how)
{
    size_t unit = unit_of(options);
    size_t attempt = vmki_max(least, vmki_floor(vmki_vm_budget(size, options->flags), unit));
    for (;;) {
        vmk_status status = reserve_exactly(region, attempt, guard, how, options);
        if (status != VMK_ERR_ADDRESS_SPACE || attempt == least)
            return status;
        attempt = vmki_max(least, vmki_floor(attempt / 2, unit));
    }
}

/* Turn options into a request of the system; false where they make no sense. */
static bool options_valid(const vmk_reserve_options *options, vmki_os_request *request)
{
    size_t granularity = vmki_max(vmk_granularity(), options->huge_size);
    size_t align = options->align == 0 ? granularity : options->align;
    if (!vmki_is_power_of_two(align) ||
        (options->flags & ~(unsigned)(VMK_RESERVE_EXACT | VMK_RESERVE_SPARSE | VMK_RESERVE_WATCH)) != 0)
        return false;
    request->align = vmki_max(align, granularity);
    request->hint = (uintptr_t)options->hint;
    request->exact = (options->flags & VMK_RESERVE_EXACT) != 0;
    request->watch = (options->flags & VMK_RESERVE_WATCH) != 0;
    request->node = options->node;
    if (request->exact)
        return request->hint != 0 && vmki_is_aligned(request->hint, request->align);
    request->hint = vmki_floor(request->hint, granularity);
    return true;
}

vmk_status vmk_reserve(vmk_region *region, size_t size, const vmk_reserve_options *options)
{
    static const vmk_reserve_options defaults = {0};
    vmki_os_request request = {0};
    if (options == NULL)
        options = &defaults;
    if (!huge_size_possible(options->huge_size))
        return VMK_ERR_UNSUPPORTED;
    size_t unit = unit_of(options), rounded, least, guard;
    if (size == 0 || options->min_size > size || vmki_ceil_overflow(size, unit, &rounded) ||
        vmki_ceil_overflow(options->guard_size, unit, &guard) || !options_valid(options, &request))
        return VMK_ERR_ARGUMENT;
    least = options->min_size == 0 ? rounded : vmki_ceil(options->min_size, unit);
    size_t whole;
    if (vmki_add_overflow(rounded, guard, &whole))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = least == rounded ? reserve_exactly(region, rounded, guard, &request, options)
                                         : reserve_at_most(region, rounded, least, guard, options, &request);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmk_release(vmk_region *region)
{
    VMKI_REQUIRE_LIVE(region, "vmk_release");
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    if (VMKI_UNLIKELY(vmki_vm_tell(region, (uintptr_t)region->base, region->size, VMKI_CHANGE_END))) {
        vmki_vm_unlock();
        vmki_misuse("vmk_release: region is still being watched", region);
    }
    stats.regions--;
    stats.reserved -= region->size + region->guard_size;
    stats.committed -= region->committed;
    vmki_guards_forget(region);
    vmki_extents_clear(&region->extents);
    region->committed = 0;
    region->seal = SEAL_RELEASED;
    vmki_vm_unlock();
    /* Last, and outside the lock: from here on the addresses may be another's. */
    vmki_os_release(region->base, region->size + region->guard_size);
    vmki_os_error_set(before);
}

/* --- commit and decommit ---------------------------------------------------------------------------------------- */

/* The next piece of [*from, limit) that is not committed; false if there is none. Moves *from past it. */
static bool next_gap(const vmk_region *region, uintptr_t *from, uintptr_t limit, uintptr_t *gap, size_t *size)
{
    const vmki_extent *next = vmki_extents_above(region->extents, *from);
    while (next != NULL && next->base <= *from) {
        *from = next->limit;
        if (*from >= limit)
            return false;
        next = vmki_extents_above(region->extents, *from);
    }
    if (*from >= limit)
        return false;
    uintptr_t end = next != NULL && next->base < limit ? next->base : limit;
    *gap = *from;
    *size = end - *from;
    *from = end;
    return true;
}

/* A decommit was refused: what is committed is still there, to be watched as if it were new. */
static void tell_committed(const vmk_region *region, uintptr_t base, uintptr_t limit)
{
    for (uintptr_t from = base; from < limit;) {
        const vmki_extent *next = vmki_extents_above(region->extents, from);
        if (next == NULL || next->base >= limit)
            return;
        uintptr_t low = vmki_max(next->base, from);
        from = vmki_min(next->limit, limit);
        (void)vmki_vm_tell(region, low, from - low, VMKI_CHANGE_COMMIT);
    }
}

static vmk_status pages_commit(const vmk_region *region, uintptr_t base, size_t size)
{
    if (vmki_region_is_huge(region))
        return vmki_os_commit_huge((void *)base, size, region->unit);
    if (region->marked != 0)
        vmki_os_guard_clear((void *)base, size);
    return vmki_os_commit((void *)base, size);
}

static vmk_status pages_decommit(const vmk_region *region, uintptr_t base, size_t size)
{
    (void)vmki_vm_tell(region, base, size, VMKI_CHANGE_LOSE);
    vmk_status status = vmki_region_is_huge(region) ? vmki_os_decommit_huge((void *)base, size, region->unit)
                                                    : vmki_os_decommit((void *)base, size);
    if (status != VMK_OK && vmki_vm_watcher != NULL)
        tell_committed(region, base, base + size);
    if (status == VMK_OK && region->name != NULL)
        vmki_os_name((void *)base, size, region->name);
    if (status == VMK_OK && (VMKI_LOAD_RELAXED(&region->guards) | region->marked) != 0)
        vmki_os_guard_clear((void *)base, size); /* they would outlast it, and the next commit */
    return status;
}

/* A commit failed in the gap at `failed`: take back what it and the gaps before it have got. */
static void commit_undo(const vmk_region *region, uintptr_t base, uintptr_t failed, size_t failed_size)
{
    vmki_os_error why = vmki_os_error_get();
    uintptr_t from = base, gap;
    size_t size;
    while (next_gap(region, &from, failed + failed_size, &gap, &size)) {
        /* If even this is refused the pages stay accessible, uncounted; the next commit of them clears nothing, for
         * nobody has written to them. */
        (void)pages_decommit(region, gap, size);
    }
    vmki_os_error_set(why);
}

vmk_status vmki_vm_commit(vmk_region *region, size_t offset, size_t size)
{
    uintptr_t base = (uintptr_t)region->base + offset, from = base, gap;
    uintptr_t limit = base + size;
    size_t gap_size, fresh = 0;
    unsigned gaps = 0;
    while (next_gap(region, &from, limit, &gap, &gap_size)) {
        vmk_status status = gaps == 0 ? vmki_extents_prepare(1) : VMK_OK;
        if (status != VMK_OK)
            return status;
        status = pages_commit(region, gap, gap_size);
        if (status != VMK_OK) {
            commit_undo(region, base, gap, gap_size);
            return status;
        }
        (void)vmki_vm_tell(region, gap, gap_size, VMKI_CHANGE_COMMIT);
        fresh += gap_size;
        gaps++;
    }
    if (gaps == 0)
        return VMK_OK;
    vmki_extents_insert(&region->extents, base, limit);
    region->committed += fresh;
    stats_add_committed(fresh, gaps);
    return VMK_OK;
}

/* The first and last committed byte of a range; false if there is none. One call of the system for the hull of several
 * runs keeps decommit all or nothing. */
static bool committed_hull(const vmk_region *region, uintptr_t base, uintptr_t limit, uintptr_t *first,
                           uintptr_t *last_limit, size_t *committed)
{
    *committed = 0;
    for (uintptr_t from = base;;) {
        const vmki_extent *next = vmki_extents_above(region->extents, from);
        if (next == NULL || next->base >= limit)
            return *committed != 0;
        uintptr_t low = next->base > base ? next->base : base;
        uintptr_t high = next->limit < limit ? next->limit : limit;
        if (*committed == 0)
            *first = low;
        *last_limit = high;
        *committed += high - low;
        from = high;
        if (from >= limit)
            return true;
    }
}

vmk_status vmki_vm_decommit(vmk_region *region, size_t offset, size_t size)
{
    uintptr_t base = (uintptr_t)region->base + offset, first, limit;
    size_t committed;
    if (size == 0 || !committed_hull(region, base, base + size, &first, &limit, &committed))
        return VMK_OK;
    vmk_status status = vmki_extents_prepare(1);
    if (status != VMK_OK)
        return status;
    status = pages_decommit(region, first, limit - first);
    if (status == VMK_OK)
        vmki_vm_decommitted(region, offset, size);
    return status;
}

void vmki_vm_decommitted(vmk_region *region, size_t offset, size_t size)
{
    uintptr_t base = (uintptr_t)region->base + offset, first, limit;
    size_t committed;
    if (!committed_hull(region, base, base + size, &first, &limit, &committed))
        return;
    vmki_extents_remove(&region->extents, first, limit);
    region->committed -= committed;
    stats.committed -= committed;
    stats.decommit_count++;
}

vmk_status vmki_vm_move(vmk_region *region, size_t new_size)
{
    VMKI_DCHECK(region->seal == SEAL_LIVE && region->committed == region->size);
    void *base = region->base;
    size_t old_size = region->size;
    vmk_status status = vmki_extents_prepare(1);
    if (status == VMK_OK)
        status = vmki_os_move(&base, old_size, new_size, region->guard_size);
    if (status != VMK_OK)
        return status;
    uintptr_t from = (uintptr_t)region->base;
    vmki_extents_remove(&region->extents, from, from + old_size);
    vmki_extents_insert(&region->extents, (uintptr_t)base, (uintptr_t)base + new_size);
    region->base = base;
    region->size = region->committed = new_size;
    stats.reserved = stats.reserved - old_size + new_size;
    stats.reserved_peak = vmki_max(stats.reserved_peak, stats.reserved);
    stats.committed = stats.committed - old_size + new_size;
    stats.committed_peak = vmki_max(stats.committed_peak, stats.committed);
    return VMK_OK;
}

vmk_status vmk_commit(vmk_region *region, size_t offset, size_t size)
{
    VMKI_REQUIRE_LIVE(region, "vmk_commit");
    if (!vmki_region_has(region, offset, size))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    vmk_status status = vmki_vm_commit(region, offset, size);
    vmki_vm_unlock();
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_decommit(vmk_region *region, size_t offset, size_t size)
{
    REQUIRE_RANGE(region, offset, size, "vmk_decommit");
    vmki_os_error before = vmki_os_error_get();
    vmki_vm_lock();
    vmk_status status = vmki_vm_decommit(region, offset, size);
    vmki_vm_unlock();
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmki_region_get(vmk_region *region, size_t size)
{
    vmk_region got;
    vmk_status status = vmk_reserve(&got, size, NULL);
    if (status != VMK_OK)
        return status;
    status = vmk_commit(&got, 0, got.size);
    if (status == VMK_OK)
        *region = got;
    else
        vmk_release(&got);
    return status;
}

/* --- what leaves pages committed -------------------------------------------------------------------------------- */

/* The next committed run of [*from, limit), taken under the lock; the range is the caller's to keep still. */
static bool next_run(const vmk_region *region, uintptr_t *from, uintptr_t limit, uintptr_t *run, size_t *size)
{
    vmki_vm_lock();
    const vmki_extent *next = *from < limit ? vmki_extents_above(region->extents, *from) : NULL;
    bool found = next != NULL && next->base < limit;
    if (found) {
        *run = next->base > *from ? next->base : *from;
        *size = (next->limit < limit ? next->limit : limit) - *run;
        *from = *run + *size;
    }
    vmki_vm_unlock();
    return found;
}

vmk_status vmk_discard(vmk_region *region, size_t offset, size_t size)
{
    REQUIRE_RANGE(region, offset, size, "vmk_discard");
    if (vmki_region_is_huge(region)) /* what is given back to the pool may be another's when it is needed again */
        return size == 0 ? VMK_OK : VMK_ERR_UNSUPPORTED;
    vmki_os_error before = vmki_os_error_get();
    uintptr_t from = (uintptr_t)region->base + offset, limit = from + size, run;
    size_t run_size;
    while (next_run(region, &from, limit, &run, &run_size)) {
        vmki_vm_tell_unlocked(region, run, run_size, VMKI_CHANGE_WRITE);
        vmk_status status = vmki_os_discard((void *)run, run_size);
        if (status != VMK_OK)
            return status;
    }
    vmki_os_error_set(before);
    return VMK_OK;
}

void vmk_reuse(vmk_region *region, size_t offset, size_t size)
{
    REQUIRE_RANGE(region, offset, size, "vmk_reuse");
    vmki_os_error before = vmki_os_error_get();
    uintptr_t from = (uintptr_t)region->base + offset, limit = from + size, run;
    size_t run_size;
    while (next_run(region, &from, limit, &run, &run_size))
        vmki_os_reuse((void *)run, run_size);
    vmki_os_error_set(before);
}

vmk_status vmki_vm_protect(vmk_region *region, size_t offset, size_t size, vmk_access access)
{
    uintptr_t base = (uintptr_t)region->base + offset;
    vmki_vm_tell_unlocked(region, base, size, VMKI_CHANGE_LOSE);
    vmk_status status = vmki_os_protect((void *)base, size, access);
    if (status != VMK_OK || access == VMK_ACCESS_READ_WRITE)
        vmki_vm_tell_unlocked(region, base, size, VMKI_CHANGE_COMMIT);
    return status;
}

vmk_status vmk_protect(vmk_region *region, size_t offset, size_t size, vmk_access access)
{
    VMKI_REQUIRE_LIVE(region, "vmk_protect");
    if (!vmki_region_committed(region, offset, size) || (unsigned)access > VMK_ACCESS_READ_WRITE)
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_vm_protect(region, offset, size, access);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_advise(vmk_region *region, size_t offset, size_t size, vmk_advice advice)
{
    VMKI_REQUIRE_LIVE(region, "vmk_advise");
    if (!vmki_region_has(region, offset, size) || (unsigned)advice >= VMK_ADVICES)
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_advise(region->base + offset, size, advice);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

/* --- looking ---------------------------------------------------------------------------------------------------- */

vmk_state vmki_vm_query(const vmk_region *region, size_t offset, size_t *run)
{
    uintptr_t address = (uintptr_t)region->base + offset;
    uintptr_t end = (uintptr_t)region->base + region->size;
    const vmki_extent *next = vmki_extents_above(region->extents, address);
    vmk_state state = next != NULL && next->base <= address ? VMK_STATE_COMMITTED : VMK_STATE_RESERVED;
    if (state == VMK_STATE_COMMITTED)
        end = next->limit;
    else if (next != NULL)
        end = next->base;
    *run = end - address;
    return state;
}

size_t vmki_vm_committed(const vmk_region *region, size_t offset, size_t size)
{
    uintptr_t base = (uintptr_t)region->base + offset, first, limit;
    size_t committed;
    (void)committed_hull(region, base, base + size, &first, &limit, &committed);
    return committed;
}

vmk_state vmk_region_query(const vmk_region *region, size_t offset, size_t *run)
{
    size_t length;
    VMKI_REQUIRE_LIVE(region, "vmk_region_query");
    if (offset >= region->size)
        vmki_misuse("vmk_region_query: offset is outside the region", (const void *)((uintptr_t)region->base + offset));
    vmki_vm_lock();
    vmk_state state = vmki_vm_query(region, offset, &length);
    vmki_vm_unlock();
    if (run != NULL)
        *run = length;
    return state;
}

void vmk_stats_now(vmk_stats *out)
{
    vmki_vm_lock();
    *out = stats;
    out->overhead = vmki_extents_overhead();
    vmki_vm_unlock();
}

bool vmki_region_check(const vmk_region *region)
{
    uintptr_t base = (uintptr_t)region->base;
    return region->seal == SEAL_LIVE && vmki_extents_check(region->extents, base, base + region->size) &&
           vmki_extents_size(region->extents) == region->committed;
}
