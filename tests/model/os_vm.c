/* SPDX-License-Identifier: MIT
 *
 * The model OS, second half: memory. Every page has a state and an owner, the serial number of its reservation; every
 * call of the contract is a check of both, then a change of state that the rules may refuse, then what the change does
 * to the contents.
 *
 * Contents of pages that nobody may touch. A page that was never committed is zero, since the block was zero, and is
 * not written to: it costs nothing. A page that lost its contents (decommitted, released, unplanted) is stale: it holds
 * a pattern. Either is checked when the page is committed, and (stale ones, and the edges of the others, where a write
 * that goes astray is likely) when it is released. Under AddressSanitizer such pages are poisoned besides, so that a
 * read is found out too, and at once.
 *
 * Mappings are counted as Linux does: neighbours of one kind are one mapping, whoever reserved them.
 *
 * A commit that is refused leaves the first half of its range committed: the contract allows it, and the caller must be
 * able to undo it.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "model/model_private.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#if defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#define POISON(address, size) __asan_poison_memory_region((address), (size))
#define UNPOISON(address, size) __asan_unpoison_memory_region((address), (size))
#else
#define POISON(address, size) ((void)(address), (void)(size))
#define UNPOISON(address, size) ((void)(address), (void)(size))
#endif

enum { EDGE_PAGES = 8, JUNK = 0xDB };

typedef struct page {
    uint32_t owner; /* 0: none */
    uint8_t state;  /* model_state */
    bool stale;     /* holds the pattern; if not, and not committed, it is zero */
    bool huge;      /* advised so */
    bool guard;     /* marked as one: holds the pattern, whatever its state */
    const char *name;
} page;

/* A range of pages. */
typedef struct span {
    size_t first;
    size_t count;
} span;

static page pages[MODEL_MAX_PAGES];
static page before[MODEL_MAX_PAGES]; /* of the range that a call is changing, as it was */
static unsigned char pattern[MODEL_MAX_PAGE];
static unsigned char zeroes[MODEL_MAX_PAGE];
static uint32_t serial;

static const char *const call_names[MODEL_CALLS] = {"reserve", "release", "commit", "decommit",  "discard",    "reuse",
                                                    "protect", "advise",  "name",   "guard_set", "guard_clear"};

void model_pages_init(void)
{
    uint32_t random = 1;
    for (size_t i = 0; i < MODEL_MAX_PAGE; i++) {
        random = random * 1664525u + 1013904223u;
        pattern[i] = (unsigned char)((random >> 24) | 1); /* never zero: a stray write of zeroes is one too */
    }
    POISON(model.base, MODEL_MAX_ADDRESS_SPACE);
}

/* --- pages and their contents ----------------------------------------------------------------------------------- */

static unsigned char *page_at(size_t index)
{
    return model.base + index * model.page_size;
}

static bool is_ours(size_t index)
{
    return pages[index].owner != 0;
}

static bool is_committed(const page *p)
{
    return p->state == MODEL_COMMITTED || p->state == MODEL_READ_ONLY || p->state == MODEL_NO_ACCESS;
}

/* The first page of the span that is not free; its end if all are. */
static size_t first_taken(span s)
{
    size_t i = s.first;
    while (i < s.first + s.count && pages[i].state == MODEL_FREE)
        i++;
    return i;
}

static bool all_free(span s)
{
    return first_taken(s) == s.first + s.count;
}

/* Has nobody written to this page, which nobody may touch? Found out once: then it is as it should have been. */
static void check_untouched(model_call call, size_t index)
{
    const unsigned char *expected = pages[index].stale ? pattern : zeroes;
    if (memcmp(page_at(index), expected, model.page_size) == 0)
        return;
    model_violate(call_names[call], "memory was written while it was not committed", index * model.page_size);
    memcpy(page_at(index), expected, model.page_size);
}

static void make_zero(model_call call, size_t index)
{
    check_untouched(call, index);
    if (pages[index].stale)
        memset(page_at(index), 0, model.page_size);
    pages[index].stale = false;
}

static void make_stale(size_t index)
{
    memcpy(page_at(index), pattern, model.page_size);
    pages[index].stale = true;
}

static void poison(span s)
{
    POISON(page_at(s.first), s.count * model.page_size);
}

static void unpoison(span s)
{
    UNPOISON(page_at(s.first), s.count * model.page_size);
}

/* --- changes of state ------------------------------------------------------------------------------------------- */

/* What the kernel tells mappings apart by; 0: no mapping of ours. */
static unsigned kind(size_t index)
{
    return is_ours(index) ? pages[index].state * 2u + pages[index].huge : 0;
}

/* Mappings that begin in the span or right behind it: those that a change of the span can make or end. */
static size_t mappings_beginning(span s)
{
    size_t count = 0;
    for (size_t i = s.first; i < vmki_min(s.first + s.count + 1, model.pages); i++)
        if (kind(i) != 0 && (i == 0 || kind(i) != kind(i - 1) || pages[i].name != pages[i - 1].name))
            count++;
    return count;
}

static void count_pages(span s, size_t *ours, size_t *committed)
{
    *ours = 0;
    *committed = 0;
    for (size_t i = s.first; i < s.first + s.count; i++) {
        *ours += is_ours(i);
        *committed += is_committed(&pages[i]);
    }
}

/* Give all pages of the span a state and an owner, unless the mappings would be too many; what was is in `before`.
 * Contents are not touched. */
static bool change(span s, model_state state, uint32_t owner, bool may_refuse)
{
    size_t ours, committed, ours_now, committed_now;
    count_pages(s, &ours, &committed);
    size_t mappings = model.mappings - mappings_beginning(s);
    memcpy(before + s.first, pages + s.first, s.count * sizeof *pages);
    if (state == MODEL_FREE || state == MODEL_RESERVED)
        model_watch_forget(s.first, s.count);
    for (size_t i = s.first; i < s.first + s.count; i++) {
        pages[i].state = (uint8_t)state;
        pages[i].owner = owner;
        if (owner == 0)
            pages[i].huge = false;
        if (owner == 0 || state == MODEL_RESERVED)
            pages[i].name = NULL;
    }
    mappings += mappings_beginning(s);
    if (may_refuse && model.rules.max_mappings != 0 && mappings > vmki_max(model.rules.max_mappings, model.mappings)) {
        memcpy(pages + s.first, before + s.first, s.count * sizeof *pages);
        return false;
    }
    count_pages(s, &ours_now, &committed_now);
    model.mappings = mappings;
    model.reserved += ours_now - ours;
    model.committed += committed_now - committed;
    return true;
}

/* --- checking calls --------------------------------------------------------------------------------------------- */

static size_t offset_of(const void *address)
{
    return (size_t)((uintptr_t)address - (uintptr_t)model.base);
}

/* Whole pages inside the model's address space? */
static bool find_span(const void *base, size_t size, span *s)
{
    size_t offset = offset_of(base);
    if (size == 0 || !vmki_is_aligned(offset, model.page_size) || !vmki_is_aligned(size, model.page_size) ||
        !vmki_range_within(offset, size, MODEL_MAX_ADDRESS_SPACE))
        return false;
    *s = (span){offset / model.page_size, size / model.page_size};
    return true;
}

/* The span of a call, if it is one of whole pages in one live reservation; else a violation. */
static bool check_span(model_call call, const void *base, size_t size, span *s)
{
    if (!find_span(base, size, s)) {
        model_violate(call_names[call], "no range of whole pages", offset_of(base));
        return false;
    }
    for (size_t i = s->first; i < s->first + s->count; i++)
        if (!is_ours(i) || pages[i].owner != pages[s->first].owner) {
            model_violate(call_names[call], "the range is not inside one reservation", i * model.page_size);
            return false;
        }
    return true;
}

/* The same for calls on committed pages; `writable`: they must not be protected. */
static bool check_committed_span(model_call call, const void *base, size_t size, bool writable, span *s)
{
    if (!check_span(call, base, size, s))
        return false;
    for (size_t i = s->first; i < s->first + s->count; i++)
        if (!is_committed(&pages[i]) || (writable && pages[i].state != MODEL_COMMITTED)) {
            model_violate(call_names[call], "a page is not committed, or not writable", i * model.page_size);
            return false;
        }
    return true;
}

bool model_all_committed(const void *base, size_t size)
{
    span s;
    if (!find_span(base, size, &s))
        return false;
    for (size_t i = s.first; i < s.first + s.count; i++)
        if (!is_committed(&pages[i]) || pages[i].guard || pages[i].owner != pages[s.first].owner)
            return false;
    return true;
}

/* --- reserve and release ---------------------------------------------------------------------------------------- */

static bool check_request(const vmki_os_request *request)
{
    bool sound = request->size != 0 && vmki_is_aligned(request->size, model.page_size) &&
                 vmki_is_power_of_two(request->align) && request->align >= model.granularity &&
                 vmki_is_aligned(request->hint, request->exact ? request->align : model.granularity) &&
                 !(request->exact && request->hint == 0);
    if (!sound)
        model_violate("reserve", "a request that is not sound", request->size);
    return sound;
}

/* Can the hint be had? */
static bool place_at_hint(const vmki_os_request *request, span *s)
{
    uintptr_t hint = request->hint;
    return hint != 0 && vmki_is_aligned(hint, request->align) && find_span((const void *)hint, request->size, s) &&
           all_free(*s);
}

/* The lowest place that is free and aligned; `apart`: with a free page before it. */
static bool place_lowest(const vmki_os_request *request, bool apart, span *s)
{
    if (request->size > MODEL_MAX_ADDRESS_SPACE)
        return false;
    uintptr_t base = (uintptr_t)model.base;
    uintptr_t end = base + MODEL_MAX_ADDRESS_SPACE;
    uintptr_t next;
    for (uintptr_t at = vmki_ceil(base, request->align); at >= base && at < end && request->size <= end - at;
         at = next) {
        *s = (span){(at - base) / model.page_size, request->size / model.page_size};
        next = at + request->align;
        if (pages[s->first].state != MODEL_FREE || (apart && s->first != 0 && pages[s->first - 1].state != MODEL_FREE))
            continue;
        size_t taken = first_taken(*s);
        if (taken == s->first + s->count)
            return true;
        /* All places before this one have that page in them. */
        next = vmki_ceil((uintptr_t)page_at(taken + 1), request->align);
    }
    return false;
}

/* Every other reservation that may lie anywhere keeps its distance, so that neighbours are not the rule. */
static vmk_status place(const vmki_os_request *request, span *s)
{
    size_t most = model.rules.address_space != 0 ? model.rules.address_space : MODEL_MAX_ADDRESS_SPACE;
    size_t taken = model.reserved * model.page_size;
    bool at_hint = place_at_hint(request, s);
    if (request->exact && !at_hint)
        return VMK_ERR_TAKEN;
    if (taken > most || request->size > most - taken)
        return VMK_ERR_ADDRESS_SPACE;
    if (at_hint || (serial % 2 != 0 && place_lowest(request, true, s)) || place_lowest(request, false, s))
        return VMK_OK;
    return VMK_ERR_ADDRESS_SPACE;
}

vmk_status vmki_os_reserve(const vmki_os_request *request, void **base)
{
    model_lock();
    span s = {0, 0};
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_request(request) && !model_planned(&status)) {
        status = place(request, &s);
        if (status == VMK_OK && !change(s, MODEL_RESERVED, serial + 1, true))
            status = VMK_ERR_MAPPINGS;
    }
    if (status == VMK_OK) {
        serial++;
        *base = page_at(s.first);
    }
    model_note(MODEL_RESERVE, s.first * model.page_size, request->size, status);
    model_unlock();
    return status;
}

/* The pages [first, limit) were never to be written. Those that are not stale are looked at near the ends alone:
 * looking at all of a huge reservation would make the C library's block real. */
static void check_reserved_run(size_t first, size_t limit)
{
    for (size_t i = first; i < limit; i++)
        if (pages[i].stale || i - first < EDGE_PAGES || limit - i <= EDGE_PAGES)
            check_untouched(MODEL_RELEASE, i);
}

/* What a release does to the contents. */
static void clear_out(span s)
{
    size_t limit = s.first + s.count;
    for (size_t run = s.first, i = s.first; i < limit; run = i) {
        for (; i < limit && !is_committed(&before[i]); i++)
            continue;
        check_reserved_run(run, i);
        for (; i < limit && is_committed(&before[i]); i++) {
            pages[i].guard = false;
            make_stale(i);
        }
    }
}

void vmki_os_release(void *base, size_t size)
{
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_span(MODEL_RELEASE, base, size, &s)) {
        uint32_t owner = pages[s.first].owner;
        size_t limit = s.first + s.count;
        if ((s.first > 0 && pages[s.first - 1].owner == owner) || (limit < model.pages && pages[limit].owner == owner))
            model_violate("release", "a part of a reservation", offset_of(base));
        else
            status = VMK_OK;
    }
    if (status == VMK_OK) {
        change(s, MODEL_FREE, 0, false);
        unpoison(s);
        clear_out(s);
        poison(s);
    }
    model_note(MODEL_RELEASE, offset_of(base), size, status);
    model_unlock();
}

/* --- commit and decommit ---------------------------------------------------------------------------------------- */

static vmk_status commit_span(span s)
{
    size_t ours, committed;
    count_pages(s, &ours, &committed);
    size_t charge = (model.committed + s.count - committed) * model.page_size;
    if (model.rules.commit_quota != 0 && charge > model.rules.commit_quota)
        return VMK_ERR_COMMIT;
    if (!change(s, MODEL_COMMITTED, pages[s.first].owner, true))
        return VMK_ERR_MAPPINGS;
    unpoison(s);
    for (size_t i = s.first; i < s.first + s.count; i++) {
        if (pages[i].guard && !is_committed(&before[i]))
            model_violate("commit", "a page is still marked as a guard", i * model.page_size);
        if (!is_committed(&before[i]))
            make_zero(MODEL_COMMIT, i);
    }
    return VMK_OK;
}

/* What a refused commit leaves behind: the first half, or as much of it as the rules allow. */
static void commit_half(span s)
{
    do
        s.count /= 2;
    while (s.count != 0 && commit_span(s) != VMK_OK);
}

vmk_status vmki_os_commit(void *base, size_t size)
{
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_span(MODEL_COMMIT, base, size, &s)) {
        if (!model_planned(&status))
            status = commit_span(s);
        if (status != VMK_OK)
            commit_half(s);
    }
    model_note(MODEL_COMMIT, offset_of(base), size, status);
    model_unlock();
    return status;
}

vmk_status vmki_os_decommit(void *base, size_t size)
{
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_span(MODEL_DECOMMIT, base, size, &s) && !model_planned(&status))
        status = change(s, MODEL_RESERVED, pages[s.first].owner, true) ? VMK_OK : VMK_ERR_MAPPINGS;
    if (status == VMK_OK) {
        unpoison(s);
        for (size_t i = s.first; i < s.first + s.count; i++)
            if (is_committed(&before[i]))
                make_stale(i);
        poison(s);
    }
    model_note(MODEL_DECOMMIT, offset_of(base), size, status);
    model_unlock();
    return status;
}

/* --- calls on committed pages, and advice ----------------------------------------------------------------------- */

vmk_status vmki_os_discard(void *base, size_t size)
{
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_committed_span(MODEL_DISCARD, base, size, true, &s) && !model_planned(&status)) {
        status = VMK_OK;
        if (model.rules.junk_on_discard)
            memset(base, JUNK, size);
    }
    model_note(MODEL_DISCARD, offset_of(base), size, status);
    model_unlock();
    return status;
}

void vmki_os_reuse(void *base, size_t size)
{
    model_lock();
    span s;
    bool sound = check_committed_span(MODEL_REUSE, base, size, false, &s);
    model_note(MODEL_REUSE, offset_of(base), size, sound ? VMK_OK : VMK_ERR_ARGUMENT);
    model_unlock();
}

vmk_status vmki_os_protect(void *base, size_t size, vmk_access access)
{
    static const model_state states[] = {MODEL_NO_ACCESS, MODEL_READ_ONLY, MODEL_COMMITTED};
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (access > VMK_ACCESS_READ_WRITE)
        model_violate("protect", "no such access", offset_of(base));
    else if (check_committed_span(MODEL_PROTECT, base, size, false, &s) && !model_planned(&status))
        status = change(s, states[access], pages[s.first].owner, true) ? VMK_OK : VMK_ERR_MAPPINGS;
    if (status == VMK_OK && access == VMK_ACCESS_NONE)
        poison(s);
    else if (status == VMK_OK)
        unpoison(s);
    model_note(MODEL_PROTECT, offset_of(base), size, status);
    model_unlock();
    return status;
}

/* Advice makes mappings differ, as it does on Linux, but is never refused for their number. */
static void advise_span(span s, bool huge)
{
    model.mappings -= mappings_beginning(s);
    for (size_t i = s.first; i < s.first + s.count; i++)
        pages[i].huge = huge;
    model.mappings += mappings_beginning(s);
}

vmk_status vmki_os_advise(void *base, size_t size, vmk_advice advice)
{
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_span(MODEL_ADVISE, base, size, &s) && !model_planned(&status)) {
        bool of_huge_pages = advice <= VMK_ADVICE_NO_HUGE;
        bool able = of_huge_pages ? model.rules.huge_page_size != 0 : (model.rules.advice & 1u << advice) != 0;
        status = able ? VMK_OK : VMK_ERR_UNSUPPORTED;
        if (able && of_huge_pages)
            advise_span(s, advice == VMK_ADVICE_HUGE);
    }
    model_note(MODEL_ADVISE, offset_of(base), size, status);
    model_unlock();
    return status;
}

void vmki_os_name(void *base, size_t size, const char *name)
{
    model_lock();
    span s;
    bool sound = check_span(MODEL_NAME, base, size, &s) && name != NULL;
    if (sound) {
        model.mappings -= mappings_beginning(s);
        for (size_t i = s.first; i < s.first + s.count; i++)
            pages[i].name = name;
        model.mappings += mappings_beginning(s);
    }
    model_note(MODEL_NAME, offset_of(base), size, sound ? VMK_OK : VMK_ERR_ARGUMENT);
    model_unlock();
}

const char *model_name_of(const void *address)
{
    model_lock();
    size_t index = offset_of(address) / model.page_size;
    const char *name = index < model.pages ? pages[index].name : NULL;
    model_unlock();
    return name;
}

/* --- services --------------------------------------------------------------------------------------------------- */

vmk_status vmki_os_guard_set(void *base, size_t size)
{
    model_lock();
    span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_committed_span(MODEL_GUARD_SET, base, size, false, &s)) {
        status = model.rules.guards ? VMK_OK : VMK_ERR_UNSUPPORTED;
        unpoison(s);
        for (size_t i = s.first; i < s.first + s.count && status == VMK_OK; i++) {
            if (pages[i].guard)
                check_untouched(MODEL_GUARD_SET, i);
            pages[i].guard = true;
            make_stale(i);
        }
        if (status == VMK_OK)
            poison(s);
    }
    model_note(MODEL_GUARD_SET, offset_of(base), size, status);
    model_unlock();
    return status;
}

void vmki_os_guard_clear(void *base, size_t size)
{
    model_lock();
    span s;
    bool sound = check_span(MODEL_GUARD_CLEAR, base, size, &s);
    for (size_t i = s.first; sound && i < s.first + s.count; i++) {
        if (!pages[i].guard)
            continue;
        unpoison((span){i, 1});
        pages[i].guard = false;
        if (is_committed(&pages[i]))
            make_zero(MODEL_GUARD_CLEAR, i);
        else
            poison((span){i, 1});
    }
    model_note(MODEL_GUARD_CLEAR, offset_of(base), size, sound ? VMK_OK : VMK_ERR_ARGUMENT);
    model_unlock();
}

/* Whoever wants it touches the pages. */
vmk_status vmki_os_prefault(void *base, size_t size)
{
    (void)base;
    (void)size;
    return VMK_ERR_UNSUPPORTED;
}

/* What is committed is there. */
vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *resident)
{
    model_lock();
    span s;
    bool sound = find_span(base, size, &s);
    for (size_t i = 0; sound && i < s.count; i++)
        resident[i] = is_committed(&pages[s.first + i]) && !pages[s.first + i].guard;
    model_unlock();
    return sound ? VMK_OK : VMK_ERR_ARGUMENT;
}

/* --- foreign mappings ------------------------------------------------------------------------------------------- */

static void plant_check(span *s, const void *address, size_t size)
{
    if (!find_span(address, vmki_ceil(size, model.page_size), s) ||
        !vmki_is_aligned((uintptr_t)address, model.granularity)) {
        model_violate("plant", "not a place in the model's address space", offset_of(address));
        *s = (span){0, 0};
    }
}

bool model_plant(void *address, size_t size, unsigned char fill)
{
    model_lock();
    span s;
    plant_check(&s, address, size);
    bool done = s.count != 0 && all_free(s);
    if (done) {
        change(s, MODEL_PLANTED, 0, false);
        unpoison(s);
        memset(address, fill, s.count * model.page_size);
    }
    model_unlock();
    return done;
}

bool model_planted_intact(void *address, size_t size, unsigned char fill)
{
    model_lock();
    span s;
    plant_check(&s, address, size);
    bool intact = s.count != 0;
    for (size_t i = s.first; i < s.first + s.count; i++)
        intact = intact && pages[i].state == MODEL_PLANTED;
    for (size_t i = 0; intact && i < s.count * model.page_size; i++)
        intact = ((const unsigned char *)address)[i] == fill;
    model_unlock();
    return intact;
}

void model_unplant(void *address, size_t size)
{
    model_lock();
    span s;
    plant_check(&s, address, size);
    for (size_t i = s.first; i < s.first + s.count; i++)
        if (pages[i].state == MODEL_PLANTED) {
            pages[i].state = MODEL_FREE;
            make_stale(i);
        }
    if (s.count != 0)
        poison(s);
    model_unlock();
}
