/* SPDX-License-Identifier: MIT
 *
 * Write-watch: arguments, the list of what is watched, and collecting by what the system keeps account of. The kind
 * PROTECT, which is our own doing, is in watch_fault.c.
 *
 * The system's account is asked for committed runs alone: walking what is only reserved would make page tables for it.
 * Between two runs the lock is let go, and during the call itself it is not held; a page that is decommitted meanwhile
 * may be reported, which is allowed.
 *
 * SOFT_DIRTY has one account for the whole process: clearing it for one watch would take the others' with it. So each
 * has bits of its own besides, and before the account is cleared all of them are brought up to date.
 *
 * Fork. The child's memory is its own, and what the system knew of it is lost. The number of forks that a record was
 * opened in tells: if it is an old one, the watch is opened anew and all counts as written.
 */
#include "common/base/check.h"
#include "common/vm/watch.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b57u)    /* "vmkW" */
#define SEAL_STOPPED ((uintptr_t)0x73746f70u) /* "stop" */

enum { RUNS_AT_ONCE = 256, PROTECT_UNIT = 1 << 16 };

vmki_watch *vmki_watches;
static vmki_watch *retired; /* stopped, and perhaps still being read by a handler; under the vm lock */
static bool prepared;       /* under the vm lock */

/* --- the list --------------------------------------------------------------------------------------------------- */

static void nothing(void)
{
}

static bool watcher(const vmk_region *region, uintptr_t base, size_t size, vmki_change change)
{
    bool any = false;
    for (vmki_watch *watch = vmki_watches; watch != NULL; watch = watch->next) {
        uintptr_t from = vmki_max(base, watch->base), limit = vmki_min(base + size, watch->limit);
        if (watch->region == NULL || watch->region->base != region->base || from >= limit)
            continue;
        any = true;
        if (watch->kind == VMK_WATCH_PROTECT)
            vmki_protect_change(watch, from, limit, change);
        else if (watch->kind == VMK_WATCH_SOFT_DIRTY && change != VMKI_CHANGE_END)
            vmki_bits_set(watch->dirty, vmki_watch_page(watch, from), vmki_watch_page(watch, limit));
    }
    return any;
}

static void prepare(void)
{
    vmki_vm_lock();
    bool first = !prepared;
    prepared = true;
    VMKI_STORE_RELAXED(&vmki_vm_watcher, watcher);
    vmki_vm_unlock();
    if (first)
        vmki_os_at_fork(nothing, nothing, vmki_protect_child);
}

static bool list_add(vmki_watch *watch)
{
    for (const vmki_watch *other = vmki_watches; other != NULL; other = other->next)
        if (other->base < watch->limit && watch->base < other->limit)
            return false;
    watch->next = vmki_watches;
    VMKI_STORE_RELEASE(&vmki_watches, watch);
    return true;
}

static void list_remove(vmki_watch *watch)
{
    vmki_watch **link = &vmki_watches;
    while (*link != watch)
        link = &(*link)->next;
    VMKI_STORE_RELEASE(link, watch->next);
}

bool vmki_watch_run(const vmki_watch *watch, uintptr_t at, uintptr_t limit, uintptr_t *from, uintptr_t *to)
{
    *from = at;
    *to = limit;
    while (watch->region != NULL && *from < limit) {
        size_t run;
        vmk_state state = vmki_vm_query(watch->region, *from - (uintptr_t)watch->region->base, &run);
        *to = vmki_min(*from + run, limit);
        if (state == VMK_STATE_COMMITTED)
            return true;
        *from = *to;
    }
    return *from < limit;
}

/* --- records ---------------------------------------------------------------------------------------------------- */

static vmk_status record_make(uintptr_t base, size_t size, vmk_watch_kind kind, vmki_watch **made)
{
    unsigned page_bits = vmki_lowest_bit(vmk_page_size());
    size_t words = vmki_ceil(size >> page_bits, VMKI_WORD_BITS) / VMKI_WORD_BITS;
    unsigned bitmaps = kind == VMK_WATCH_PROTECT ? 2 : kind == VMK_WATCH_SOFT_DIRTY ? 1 : 0;
    vmki_os_request request = {.align = vmk_granularity()};
    request.size = vmki_ceil(sizeof(vmki_watch) + bitmaps * words * sizeof(size_t), vmk_page_size());
    void *pages;
    vmk_status status = vmki_os_reserve(&request, &pages);
    if (status != VMK_OK)
        return status;
    status = vmki_os_commit(pages, request.size);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        vmki_os_release(pages, request.size);
        vmki_os_error_set(why);
        return status;
    }
    vmki_watch *watch = pages;
    size_t *bits = (size_t *)(void *)(watch + 1);
    *watch = (vmki_watch){.base = base,
                          .limit = base + size,
                          .kind = kind,
                          .forks = vmki_vm_forks(),
                          .record_size = request.size,
                          .page_bits = page_bits,
                          .dirty = bitmaps > 0 ? bits : NULL,
                          .ours = bitmaps > 1 ? bits + words : NULL};
    *made = watch;
    return VMK_OK;
}

/* Of a record that is in no list; and of those before it, if no handler can be reading them. */
static void record_end(vmki_watch *watch)
{
    vmki_vm_lock();
    vmki_watch *first = retired;
    if (watch != NULL) {
        watch->os.state[0] = (uintptr_t)first; /* `next` is still a handler's */
        first = retired = watch;
    }
    if (vmki_protect_reading())
        first = NULL;
    else
        retired = NULL;
    vmki_vm_unlock();
    while (first != NULL) {
        vmki_watch *next = (vmki_watch *)first->os.state[0];
        vmki_os_release(first, first->record_size);
        first = next;
    }
}

/* --- the system's account --------------------------------------------------------------------------------------- */

/* vmki_watch_run, taking the lock. */
static bool next_run(const vmki_watch *watch, uintptr_t at, uintptr_t limit, uintptr_t *from, uintptr_t *to)
{
    vmki_vm_lock();
    bool found = vmki_watch_run(watch, at, limit, from, to);
    vmki_vm_unlock();
    return found;
}

/* Bring the bits of one watch of the kind SOFT_DIRTY up to date. */
static vmk_status harvest_one(vmki_watch *watch)
{
    vmki_os_range some[RUNS_AT_ONCE];
    uintptr_t at = watch->base, from, limit;
    while (vmki_watch_run(watch, at, watch->limit, &from, &limit)) {
        size_t count;
        void *until;
        vmk_status status =
            vmki_os_watch_collect(&watch->os, (void *)from, limit - from, some, RUNS_AT_ONCE, &count, &until);
        if (status != VMK_OK)
            return status;
        for (size_t i = 0; i < count; i++)
            vmki_bits_set(watch->dirty, vmki_watch_page(watch, (uintptr_t)some[i].base),
                          vmki_watch_page(watch, (uintptr_t)some[i].base + some[i].size));
        at = (uintptr_t)until;
    }
    return VMK_OK;
}

/* Bring all of them up to date, then clear the account. */
static vmk_status harvest(vmki_watch *by)
{
    vmk_status status = VMK_OK;
    vmki_vm_lock();
    for (vmki_watch *watch = vmki_watches; watch != NULL && status == VMK_OK; watch = watch->next)
        if (watch->kind == VMK_WATCH_SOFT_DIRTY && watch->opened)
            status = harvest_one(watch);
    if (status == VMK_OK)
        status = vmki_os_watch_arm(&by->os, (void *)by->base, by->limit - by->base);
    vmki_vm_unlock();
    return status;
}

static void set_opened(vmki_watch *watch, bool opened)
{
    vmki_vm_lock();
    watch->opened = opened;
    vmki_vm_unlock();
}

static vmk_status system_open(vmki_watch *watch)
{
    vmk_status status = vmki_os_watch_open(&watch->os, watch->kind, (void *)watch->base, watch->limit - watch->base,
                                           watch->region != NULL);
    if (status == VMK_OK) {
        watch->forks = vmki_vm_forks();
        set_opened(watch, true);
    }
    return status;
}

static void system_end(vmki_watch *watch)
{
    set_opened(watch, false);
    if (watch->forks == vmki_vm_forks())
        vmki_os_watch_close(&watch->os, (void *)watch->base, watch->limit - watch->base);
    else
        vmki_os_watch_forget(&watch->os);
}

static vmk_status system_arm(vmki_watch *watch)
{
    vmk_status status = VMK_OK;
    uintptr_t at = watch->base, from, limit;
    if (watch->kind == VMK_WATCH_SOFT_DIRTY) {
        status = harvest(watch);
        vmki_bits_clear(watch->dirty, 0, vmki_watch_page(watch, watch->limit));
        return status;
    }
    for (; status == VMK_OK && next_run(watch, at, watch->limit, &from, &limit); at = limit)
        status = vmki_os_watch_arm(&watch->os, (void *)from, limit - from);
    return status;
}

static vmk_status system_begin(vmki_watch *watch)
{
    vmk_status status = system_open(watch);
    if (status != VMK_OK)
        return status;
    status = system_arm(watch);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        system_end(watch);
        vmki_os_error_set(why);
    }
    return status;
}

/* The first collect in a child. What the system was never told to watch counts as written. */
static vmk_status begin_anew(vmki_watch *watch)
{
    if (watch->kind != VMK_WATCH_PROTECT) {
        set_opened(watch, false);
        vmki_os_watch_forget(&watch->os);
        vmk_status status = system_open(watch);
        if (status != VMK_OK)
            return status;
    }
    size_t forks = vmki_vm_forks();
    vmki_vm_lock();
    if (watch->kind == VMK_WATCH_PROTECT)
        vmki_protect_taint(watch);
    else if (watch->dirty != NULL)
        vmki_bits_set(watch->dirty, 0, vmki_watch_page(watch, watch->limit));
    watch->forks = forks;
    vmki_vm_unlock();
    return VMK_OK;
}

/* --- start and stop --------------------------------------------------------------------------------------------- */

static vmk_status begin(vmki_watch *watch)
{
    vmki_vm_lock();
    bool added = list_add(watch);
    vmk_status status = added ? VMK_OK : VMK_ERR_ARGUMENT;
    if (added && watch->kind == VMK_WATCH_PROTECT)
        status = vmki_protect_begin(watch);
    vmki_vm_unlock();
    if (status == VMK_OK && watch->kind != VMK_WATCH_PROTECT)
        status = system_begin(watch);
    if (added && status != VMK_OK) {
        vmki_vm_lock();
        list_remove(watch);
        vmki_vm_unlock();
    }
    return status;
}

static vmk_status start_kind(vmk_watch *out, vmk_region *region, uintptr_t base, size_t size, vmk_watch_kind kind)
{
    vmki_watch *watch;
    vmk_status status = kind == VMK_WATCH_PROTECT ? vmki_protect_prepare() : VMK_OK;
    if (status == VMK_OK)
        status = record_make(base, size, kind, &watch);
    if (status != VMK_OK)
        return status;
    watch->region = region;
    status = begin(watch);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        record_end(watch);
        vmki_os_error_set(why);
        return status;
    }
    *out = (vmk_watch){.base = (unsigned char *)base,
                       .size = size,
                       .kind = kind,
                       .unit = kind == VMK_WATCH_PROTECT ? vmki_max(PROTECT_UNIT, vmk_page_size()) : vmk_page_size(),
                       .region = region,
                       .state = watch,
                       .seal = SEAL_LIVE};
    return VMK_OK;
}

static vmk_status start(vmk_watch *out, vmk_region *region, uintptr_t base, size_t size,
                        const vmk_watch_options *options)
{
    static const vmk_watch_options defaults = {0};
    if (options == NULL)
        options = &defaults;
    if ((unsigned)options->kind >= VMK_WATCH_KINDS || (options->flags & ~(unsigned)VMK_WATCH_SYSTEM) != 0)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = VMK_ERR_UNSUPPORTED;
    unsigned able = vmk_capabilities()->watch;
    if ((options->flags & VMK_WATCH_SYSTEM) != 0)
        able &= ~(1u << VMK_WATCH_PROTECT);
    unsigned kind = options->kind != VMK_WATCH_BEST ? options->kind : VMK_WATCH_USERFAULT;
    unsigned last = options->kind != VMK_WATCH_BEST ? options->kind : VMK_WATCH_PROTECT;
    prepare();
    record_end(NULL);
    for (; kind <= last && status == VMK_ERR_UNSUPPORTED; kind++)
        if ((able & 1u << kind) != 0)
            status = start_kind(out, region, base, size, (vmk_watch_kind)kind);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_watch_start(vmk_watch *watch, vmk_region *region, size_t offset, size_t size,
                           const vmk_watch_options *options)
{
    VMKI_REQUIRE_LIVE(region, "vmk_watch_start");
    if (size == 0 || !vmki_region_has(region, offset, size))
        return VMK_ERR_ARGUMENT;
    if (region->unit != vmk_page_size())
        return VMK_ERR_UNSUPPORTED; /* explicit huge pages */
    return start(watch, region, (uintptr_t)region->base + offset, size, options);
}

vmk_status vmk_watch_start_static(vmk_watch *watch, void *base, size_t size, const vmk_watch_options *options)
{
    size_t limit;
    if (size == 0 || base == NULL || !vmki_is_aligned((uintptr_t)base | size, vmk_page_size()) ||
        vmki_add_overflow((uintptr_t)base, size, &limit))
        return VMK_ERR_ARGUMENT;
    if (!vmki_os_static_writable(base, size))
        return VMK_ERR_UNSUPPORTED;
    return start(watch, NULL, (uintptr_t)base, size, options);
}

static void require_live(const vmk_watch *watch, const char *not_started, const char *stopped)
{
    if (VMKI_UNLIKELY(watch->seal != SEAL_LIVE))
        vmki_misuse(watch->seal == SEAL_STOPPED ? stopped : not_started, watch);
}

#define REQUIRE_LIVE(watch, function)                                                                                  \
    require_live(watch, function ": not a watch that was started", function ": watch was stopped before")

void vmk_watch_stop(vmk_watch *watch)
{
    REQUIRE_LIVE(watch, "vmk_watch_stop");
    vmki_os_error before = vmki_os_error_get();
    vmki_watch *record = watch->state;
    bool ended = true;
    if (record->kind != VMK_WATCH_PROTECT)
        system_end(record);
    vmki_vm_lock();
    if (record->kind == VMK_WATCH_PROTECT)
        ended = vmki_protect_end(record);
    if (ended) /* else the handler goes on opening what could not be opened here */
        list_remove(record);
    vmki_vm_unlock();
    if (ended)
        record_end(record);
    watch->seal = SEAL_STOPPED;
    watch->state = NULL;
    vmki_os_error_set(before);
}

/* --- collecting ------------------------------------------------------------------------------------------------- */

static vmk_status collect_protect(vmki_watch *watch, vmki_watch_sink *sink, uintptr_t *at, uintptr_t limit)
{
    vmk_status status = VMK_OK;
    bool full = false;
    while (*at < limit && !full && status == VMK_OK) {
        vmki_vm_lock();
        status = vmki_protect_collect(watch, sink, at, limit, &full);
        vmki_vm_unlock();
    }
    return status;
}

static vmk_status collect_system(vmki_watch *watch, vmki_watch_sink *sink, uintptr_t *at, uintptr_t limit)
{
    vmki_os_range some[RUNS_AT_ONCE];
    uintptr_t from, run_limit;
    while (next_run(watch, *at, limit, &from, &run_limit)) {
        size_t room = vmki_min(sink->capacity - sink->count, RUNS_AT_ONCE), count;
        void *until;
        *at = from;
        if (room == 0)
            return VMK_OK;
        vmk_status status =
            vmki_os_watch_collect(&watch->os, (void *)from, run_limit - from, some, room, &count, &until);
        if (status != VMK_OK)
            return status;
        for (size_t i = 0; i < count; i++)
            vmki_watch_add(sink, (uintptr_t)some[i].base, (uintptr_t)some[i].base + some[i].size);
        *at = (uintptr_t)until;
    }
    *at = limit;
    return VMK_OK;
}

/* The account is in the bits by now. */
static void collect_bits(vmki_watch *watch, vmki_watch_sink *sink, uintptr_t *at, uintptr_t limit)
{
    uintptr_t from, run_limit;
    for (; next_run(watch, *at, limit, &from, &run_limit); *at = run_limit) {
        size_t end = vmki_watch_page(watch, run_limit), to;
        for (size_t page = vmki_watch_page(watch, from);; page = to) {
            page = vmki_bits_find(watch->dirty, watch->dirty, 0, page, end);
            if (page == end)
                break;
            to = vmki_bits_find(watch->dirty, watch->dirty, VMKI_BITS_NOT, page, end);
            *at = vmki_watch_address(watch, page);
            if (sink->count == sink->capacity && !vmki_watch_adjoins(sink, *at))
                return;
            vmki_bits_clear(watch->dirty, page, to);
            vmki_watch_add(sink, *at, vmki_watch_address(watch, to));
        }
    }
    *at = limit;
}

static vmk_status collect(vmki_watch *watch, vmki_watch_sink *sink, uintptr_t *at, uintptr_t limit)
{
    vmk_status status = VMK_OK;
    if (watch->forks != vmki_vm_forks())
        status = begin_anew(watch);
    if (status == VMK_OK && watch->kind == VMK_WATCH_SOFT_DIRTY)
        status = harvest(watch);
    if (status != VMK_OK)
        return status;
    if (watch->kind == VMK_WATCH_PROTECT)
        return collect_protect(watch, sink, at, limit);
    if (watch->kind != VMK_WATCH_SOFT_DIRTY)
        return collect_system(watch, sink, at, limit);
    collect_bits(watch, sink, at, limit);
    return VMK_OK;
}

static bool range_valid(const vmk_watch *watch, size_t offset, size_t size)
{
    return vmki_is_aligned(offset | size, vmk_page_size()) && vmki_range_within(offset, size, watch->size);
}

vmk_status vmk_watch_collect(vmk_watch *watch, size_t offset, size_t size, vmk_run *runs, size_t capacity,
                             size_t *count, size_t *done)
{
    REQUIRE_LIVE(watch, "vmk_watch_collect");
    if (!range_valid(watch, offset, size) || capacity == 0)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmki_watch_sink sink = {.runs = runs, .capacity = capacity, .base = (uintptr_t)watch->base};
    uintptr_t from = (uintptr_t)watch->base + offset, at = from;
    vmk_status status = collect(watch->state, &sink, &at, from + size);
    *count = sink.count;
    *done = at - from;
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_watch_collect_bits(vmk_watch *watch, size_t offset, size_t size, uint64_t *bits, size_t *written)
{
    REQUIRE_LIVE(watch, "vmk_watch_collect_bits");
    if (!range_valid(watch, offset, size))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_run runs[RUNS_AT_ONCE];
    uintptr_t from = (uintptr_t)watch->base + offset, at = from;
    size_t page_size = vmk_page_size(), pages = 0;
    vmk_status status = VMK_OK;
    while (at < from + size && status == VMK_OK) {
        vmki_watch_sink sink = {.runs = runs, .capacity = RUNS_AT_ONCE, .base = from};
        status = collect(watch->state, &sink, &at, from + size);
        for (size_t i = 0; i < sink.count; i++) {
            size_t first = runs[i].offset / page_size, end = first + runs[i].size / page_size;
            pages += end - first;
            for (size_t page = first; page < end; page++)
                bits[page / 64] |= (uint64_t)1 << page % 64;
        }
    }
    if (written != NULL)
        *written = pages;
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}
