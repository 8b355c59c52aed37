/* SPDX-License-Identifier: MIT
 *
 * Batches: decommit, discard and protect of many ranges of a region.
 *
 * Ranges that touch are one, a group. Where the system takes many ranges at once it is given as many as fit into one
 * request; what it refuses is done as if it had been asked for alone. So everything works without such a system as
 * well, at a call for each group, and only then fails where that fails.
 *
 * A decommit by batch leaves its pages in a mapping that can be written, marked as guards: no mapping is split, so none
 * is needed. Such pages are reserved like others; region->marked says that there may be some, and whoever commits
 * clears the marks. A group is decommitted whole or not at all, so a request has only such as are one committed run;
 * others, with reserved pages between, are decommitted alone.
 */
#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/extents.h"
#include "common/vm/vm.h"

enum { AT_ONCE = 256 };

/* --- the ranges ------------------------------------------------------------------------------------------------- */

typedef enum fault { FINE, WRONG_RANGE, WRONG_ORDER } fault;

/* What is wrong with the list, if anything, and with which of its ranges. */
static fault find_fault(const vmk_region *region, const vmk_run *ranges, size_t count, size_t *which)
{
    size_t limit = 0;
    for (size_t i = 0; i < count; i++) {
        *which = i;
        if (!vmki_region_has(region, ranges[i].offset, ranges[i].size))
            return WRONG_RANGE;
        if (ranges[i].offset < limit)
            return WRONG_ORDER;
        limit = ranges[i].offset + ranges[i].size;
    }
    return FINE;
}

static void require_ranges(const vmk_region *region, const vmk_run *ranges, size_t count, const char *wrong_range,
                           const char *wrong_order)
{
    size_t which;
    fault found = find_fault(region, ranges, count, &which);
    if (VMKI_UNLIKELY(found != FINE))
        vmki_misuse(found == WRONG_RANGE ? wrong_range : wrong_order,
                    (const void *)((uintptr_t)region->base + ranges[which].offset));
}

#define REQUIRE_RANGES(region, ranges, count, function)                                                                \
    do {                                                                                                               \
        VMKI_REQUIRE_LIVE(region, function);                                                                           \
        require_ranges(region, ranges, count, function ": range is misaligned or leaves the region",                   \
                       function ": ranges overlap, or are not in ascending order");                                    \
    } while (0)

typedef struct group {
    size_t offset;
    size_t size; /* not 0 */
    size_t next; /* the first range behind it */
} group;

/* The first group from ranges[at] on; false if there is none. */
static bool next_group(const vmk_run *ranges, size_t count, size_t at, group *g)
{
    while (at < count && ranges[at].size == 0)
        at++;
    if (at == count)
        return false;
    *g = (group){ranges[at].offset, ranges[at].size, at + 1};
    while (g->next < count && (ranges[g->next].size == 0 || ranges[g->next].offset == g->offset + g->size))
        g->size += ranges[g->next++].size;
    return true;
}

/* The next committed run of [*from, limit). Moves *from past it. Under the lock. */
static bool next_run(const vmk_region *region, uintptr_t *from, uintptr_t limit, vmki_os_range *run)
{
    const vmki_extent *next = *from < limit ? vmki_extents_above(region->extents, *from) : NULL;
    if (next == NULL || next->base >= limit)
        return false;
    uintptr_t base = vmki_max(next->base, *from);
    *from = vmki_min(next->limit, limit);
    *run = (vmki_os_range){(void *)base, *from - base};
    return true;
}

static uintptr_t address_of(const vmk_region *region, size_t offset)
{
    return (uintptr_t)region->base + offset;
}

/* --- decommit --------------------------------------------------------------------------------------------------- */

typedef struct request {
    vmki_os_range runs[AT_ONCE];
    size_t next[AT_ONCE]; /* the first range behind each */
    size_t count;
} request;

/* Go past groups that have nothing committed. */
static void skip_reserved(const vmk_region *region, const vmk_run *ranges, size_t count, size_t *at)
{
    group g;
    vmki_os_range run;
    while (next_group(ranges, count, *at, &g)) {
        uintptr_t from = address_of(region, g.offset);
        if (next_run(region, &from, from + g.size, &run))
            return;
        *at = g.next;
    }
    *at = count;
}

/* The groups from ranges[at] on that are one committed run each, as many as fit. */
static void request_fill(request *r, const vmk_region *region, const vmk_run *ranges, size_t count, size_t at)
{
    group g;
    vmki_os_range run, second;
    r->count = 0;
    for (size_t next = at; r->count < AT_ONCE && next_group(ranges, count, next, &g); next = g.next) {
        uintptr_t from = address_of(region, g.offset), limit = from + g.size;
        if (next_run(region, &from, limit, &run)) {
            if (next_run(region, &from, limit, &second))
                return;
            r->runs[r->count] = run;
            r->next[r->count++] = g.next;
        }
    }
}

/* Whoever watches the region; under the lock. */
static void tell(const vmk_region *region, const vmki_os_range *runs, size_t count, vmki_change change)
{
    for (size_t i = 0; i < count && vmki_vm_watcher != NULL; i++)
        (void)vmki_vm_tell(region, (uintptr_t)runs[i].base, runs[i].size, change);
}

/* Ask for it, and note what is done. *able: false once it has turned out that the system takes none. Gives back whether
 * a range was refused, which may have been marked in part. */
static bool request_send(const request *r, vmk_region *region, size_t *at, bool *able)
{
    size_t done;
    if (vmki_extents_prepare(r->count) != VMK_OK)
        return false;
    region->marked++;
    tell(region, r->runs, r->count, VMKI_CHANGE_LOSE);
    vmk_status status = vmki_os_decommit_batch(r->runs, r->count, &done);
    tell(region, r->runs + done, r->count - done, VMKI_CHANGE_COMMIT); /* they still are */
    if (status == VMK_ERR_UNSUPPORTED && done == 0) {
        region->marked--;
        *able = false;
        return false;
    }
    for (size_t i = 0; i < done; i++)
        vmki_vm_decommitted(region, (uintptr_t)r->runs[i].base - (uintptr_t)region->base, r->runs[i].size);
    if (done != 0)
        *at = r->next[done - 1];
    return done < r->count;
}

/* A group that could be neither given back nor decommitted. */
static void unmark(const vmk_region *region, const group *g)
{
    vmki_os_error why = vmki_os_error_get();
    uintptr_t from = address_of(region, g->offset), limit = from + g->size;
    vmki_os_range run;
    while (next_run(region, &from, limit, &run))
        vmki_os_guard_clear(run.base, run.size);
    vmki_os_error_set(why);
}

/* One request to the system, or one group that is for no request, under the lock. */
static vmk_status decommit_some(vmk_region *region, const vmk_run *ranges, size_t count, size_t *at, bool *able)
{
    request r;
    group g;
    bool refused = false;
    skip_reserved(region, ranges, count, at);
    if (*able && *at < count) {
        size_t from = *at;
        request_fill(&r, region, ranges, count, *at);
        if (r.count != 0)
            refused = request_send(&r, region, at, able);
        skip_reserved(region, ranges, count, at); /* to the one that was refused */
        if (*at != from && !refused)
            return VMK_OK;
    }
    if (!next_group(ranges, count, *at, &g))
        return VMK_OK;
    vmk_status status = vmki_vm_decommit(region, g.offset, g.size);
    if (status == VMK_OK)
        *at = g.next;
    else if (refused)
        unmark(region, &g);
    return status;
}

vmk_status vmk_decommit_batch(vmk_region *region, const vmk_run *ranges, size_t count, size_t *done)
{
    REQUIRE_RANGES(region, ranges, count, "vmk_decommit_batch");
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = VMK_OK;
    bool able = !vmki_region_is_huge(region);
    size_t at = 0;
    while (at < count && status == VMK_OK) {
        vmki_vm_lock();
        status = decommit_some(region, ranges, count, &at, &able);
        vmki_vm_unlock();
    }
    if (done != NULL)
        *done = at;
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

/* --- discard ---------------------------------------------------------------------------------------------------- */

typedef struct walk {
    const vmk_run *ranges;
    size_t count;
    size_t next; /* the first range behind the group that is walked now: */
    uintptr_t from;
    uintptr_t limit;
} walk;

/* The next committed runs, up to AT_ONCE of them. */
static size_t take_runs(walk *w, const vmk_region *region, vmki_os_range *runs)
{
    size_t count = 0;
    group g;
    vmki_vm_lock();
    while (count < AT_ONCE) {
        if (next_run(region, &w->from, w->limit, &runs[count])) {
            count++;
        } else if (next_group(w->ranges, w->count, w->next, &g)) {
            w->from = address_of(region, g.offset);
            w->limit = w->from + g.size;
            w->next = g.next;
        } else {
            break;
        }
    }
    tell(region, runs, count, VMKI_CHANGE_WRITE); /* by the system */
    vmki_vm_unlock();
    return count;
}

/* All of the runs, or so many of the first. */
static vmk_status discard_runs(const vmki_os_range *runs, size_t count, size_t *done, bool *able)
{
    for (*done = 0; *done < count; (*done)++) {
        size_t some = 0;
        vmk_status status = *able ? vmki_os_discard_batch(runs + *done, count - *done, &some) : VMK_ERR_UNSUPPORTED;
        *done += some;
        if (*done == count)
            return VMK_OK;
        *able = status != VMK_ERR_UNSUPPORTED || some != 0;
        status = vmki_os_discard(runs[*done].base, runs[*done].size);
        if (status != VMK_OK)
            return status;
    }
    return VMK_OK;
}

/* How many of the ranges end before the address. */
static size_t ranges_before(const vmk_region *region, const vmk_run *ranges, size_t count, uintptr_t address)
{
    size_t i = 0;
    while (i < count && address_of(region, ranges[i].offset) + ranges[i].size <= address)
        i++;
    return i;
}

vmk_status vmk_discard_batch(vmk_region *region, const vmk_run *ranges, size_t count, size_t *done)
{
    REQUIRE_RANGES(region, ranges, count, "vmk_discard_batch");
    vmki_os_error before = vmki_os_error_get();
    walk w = {.ranges = ranges, .count = count};
    vmki_os_range runs[AT_ONCE];
    vmk_status status = VMK_OK;
    size_t taken, some, finished = count;
    bool able = true;
    while (status == VMK_OK && (taken = take_runs(&w, region, runs)) != 0) {
        some = 0;
        status = vmki_region_is_huge(region) ? VMK_ERR_UNSUPPORTED : discard_runs(runs, taken, &some, &able);
        if (status != VMK_OK)
            finished = ranges_before(region, ranges, count, (uintptr_t)runs[some].base);
    }
    if (done != NULL)
        *done = finished;
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

/* --- protect ---------------------------------------------------------------------------------------------------- */

vmk_status vmk_protect_batch(vmk_region *region, const vmk_run *ranges, size_t count, vmk_access access, size_t *done)
{
    size_t at = 0, which;
    group g;
    VMKI_REQUIRE_LIVE(region, "vmk_protect_batch");
    if ((unsigned)access > VMK_ACCESS_READ_WRITE || find_fault(region, ranges, count, &which) != FINE)
        return VMK_ERR_ARGUMENT;
    while (next_group(ranges, count, at, &g)) {
        if (!vmki_region_committed(region, g.offset, g.size))
            return VMK_ERR_ARGUMENT;
        at = g.next;
    }
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = VMK_OK;
    for (at = 0; status == VMK_OK && next_group(ranges, count, at, &g);) {
        status = vmki_vm_protect(region, g.offset, g.size, access);
        if (status == VMK_OK)
            at = g.next;
    }
    if (done != NULL)
        *done = status == VMK_OK ? count : at;
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}
