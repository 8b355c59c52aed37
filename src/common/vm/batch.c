/* SPDX-License-Identifier: MIT
 *
 * Batches: decommit, discard and protect of many ranges of a region.
 *
 * Ranges that touch are one, a group. Where the system takes many ranges at once it is given the committed runs of as
 * many groups as fit into one request; what it refuses is done as if it had been asked for alone. So everything works
 * without such a system as well, at a call for each group, and only then fails where that fails.
 *
 * A decommit by batch leaves its pages in a mapping that can be written, marked as guards: no mapping is split, so none
 * is needed. Such pages are reserved like others; region->marked says that there may be some, and whoever commits
 * clears the marks. A group is decommitted whole or not at all, so a request has none in part.
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
    size_t count;
    size_t groups;
    size_t next; /* the first range that is not in it */
} request;

/* Add the committed runs of a group; false, and none of them, if there is no room. */
static bool request_add(request *r, const vmk_region *region, const group *g)
{
    uintptr_t from = address_of(region, g->offset), limit = from + g->size;
    size_t count = r->count;
    vmki_os_range run;
    while (next_run(region, &from, limit, &run)) {
        if (count == AT_ONCE)
            return false;
        r->runs[count++] = run;
    }
    r->count = count;
    r->groups++;
    r->next = g->next;
    return true;
}

/* As many groups as fit, from ranges[at] on. */
static void request_fill(request *r, const vmk_region *region, const vmk_run *ranges, size_t count, size_t at)
{
    group g;
    r->count = r->groups = 0;
    r->next = at;
    while (next_group(ranges, count, r->next, &g))
        if (!request_add(r, region, &g))
            return;
    r->next = count; /* those of size 0 at the end */
}

/* A group that could be neither given back nor decommitted: pages of it may be marked. */
static void unmark(const vmk_region *region, const group *g)
{
    vmki_os_error why = vmki_os_error_get();
    uintptr_t from = address_of(region, g->offset), limit = from + g->size;
    vmki_os_range run;
    while (next_run(region, &from, limit, &run))
        vmki_os_guard_clear(run.base, run.size);
    vmki_os_error_set(why);
}

/* The first groups of a request are done, as far as the first run that isn't. Moves *at past them. */
static void request_note(const request *r, vmk_region *region, const vmk_run *ranges, size_t done, size_t *at)
{
    uintptr_t until = done < r->count ? (uintptr_t)r->runs[done].base : UINTPTR_MAX;
    group g;
    while (next_group(ranges, r->next, *at, &g) && address_of(region, g.offset) + g.size <= until) {
        vmki_vm_decommitted(region, g.offset, g.size);
        *at = g.next;
    }
    if (done == r->count)
        *at = r->next;
}

/* One request to the system, under the lock. *able: false once it has turned out that it takes none. */
static vmk_status decommit_some(vmk_region *region, const vmk_run *ranges, size_t count, size_t *at, bool *able)
{
    request r;
    group g;
    size_t done = 0;
    bool asked = false;
    if (*able) {
        request_fill(&r, region, ranges, count, *at);
        if (r.count == 0 && r.next != *at) { /* nothing is committed there */
            *at = r.next;
            return VMK_OK;
        }
    }
    if (*able && r.count != 0 && vmki_extents_prepare(r.groups) == VMK_OK) {
        region->marked++;
        vmk_status status = vmki_os_decommit_batch(r.runs, r.count, &done);
        asked = status != VMK_ERR_UNSUPPORTED || done != 0;
        if (!asked) {
            region->marked--;
            *able = false;
        }
        request_note(&r, region, ranges, done, at);
        if (done == r.count)
            return VMK_OK;
    }
    if (!next_group(ranges, count, *at, &g)) {
        *at = count;
        return VMK_OK;
    }
    vmk_status status = vmki_vm_decommit(region, g.offset, g.size);
    if (status == VMK_OK)
        *at = g.next;
    else if (asked)
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
        status = vmki_os_protect(region->base + g.offset, g.size, access);
        if (status == VMK_OK)
            at = g.next;
    }
    if (done != NULL)
        *done = status == VMK_OK ? count : at;
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}
