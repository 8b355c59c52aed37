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

static model_page pages[MODEL_MAX_PAGES];
static model_page before[MODEL_MAX_PAGES]; /* of the range that a call is changing, as it was */
static unsigned char pattern[MODEL_MAX_PAGE];
static unsigned char zeroes[MODEL_MAX_PAGE];
static uint32_t serial;

static const char *const call_names[MODEL_CALLS] = {"reserve",       "release",     "commit",        "decommit",
                                                    "discard",       "reuse",       "protect",       "advise",
                                                    "name",          "guard_set",   "guard_clear",   "decommit_batch",
                                                    "discard_batch", "commit_huge", "decommit_huge", "node_prefer"};

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

model_page *model_page_of(size_t index)
{
    return &pages[index];
}

static bool is_ours(size_t index)
{
    return pages[index].owner != 0;
}

bool model_is_committed(const model_page *p)
{
    return p->state == MODEL_COMMITTED || p->state == MODEL_READ_ONLY || p->state == MODEL_NO_ACCESS;
}

/* The first page of the span that is not free; its end if all are. */
static size_t first_taken(model_span s)
{
    size_t i = s.first;
    while (i < s.first + s.count && pages[i].state == MODEL_FREE)
        i++;
    return i;
}

static bool all_free(model_span s)
{
    return first_taken(s) == s.first + s.count;
}

/* Has nobody written to this page, which nobody may touch? Found out once: then it is as it should have been. */
void model_check_untouched(model_call call, size_t index)
{
    const unsigned char *expected = pages[index].stale ? pattern : zeroes;
    if (memcmp(page_at(index), expected, model.page_size) == 0)
        return;
    model_violate(call_names[call], "memory was written while it was not committed", index * model.page_size);
    memcpy(page_at(index), expected, model.page_size);
}

void model_make_zero(model_call call, size_t index)
{
    model_check_untouched(call, index);
    if (pages[index].stale)
        memset(page_at(index), 0, model.page_size);
    pages[index].stale = false;
}

void model_make_stale(size_t index)
{
    memcpy(page_at(index), pattern, model.page_size);
    pages[index].stale = true;
}

void model_poison(model_span s)
{
    POISON(page_at(s.first), s.count * model.page_size);
}

void model_unpoison(model_span s)
{
    UNPOISON(page_at(s.first), s.count * model.page_size);
}

/* --- changes of state ------------------------------------------------------------------------------------------- */

/* What the kernel tells mappings apart by; 0: no mapping of ours. */
static unsigned kind(size_t index)
{
    const model_page *p = &pages[index];
    return is_ours(index) ? (p->kept != 0 ? p->kept : p->state) * 4u + p->huge * 2u + p->of_pool : 0;
}

/* Mappings that begin in the span or right behind it: those that a change of the span can make or end. */
size_t model_mappings_beginning(model_span s)
{
    size_t count = 0;
    for (size_t i = s.first; i < vmki_min(s.first + s.count + 1, model.pages); i++)
        if (kind(i) != 0 && (i == 0 || kind(i) != kind(i - 1) || pages[i].name != pages[i - 1].name))
            count++;
    return count;
}

static void count_pages(model_span s, size_t *ours, size_t *committed, size_t *pooled)
{
    *ours = *committed = *pooled = 0;
    for (size_t i = s.first; i < s.first + s.count; i++) {
        *ours += is_ours(i);
        *committed += model_is_committed(&pages[i]);
        *pooled += model_is_committed(&pages[i]) && pages[i].of_pool;
    }
}

/* Give all pages of the span a state and an owner, unless the mappings would be too many; what was is in `before`.
 * Contents are not touched. */
bool model_change(model_span s, model_state state, uint32_t owner, bool may_refuse)
{
    size_t ours, committed, pooled, ours_now, committed_now, pooled_now;
    count_pages(s, &ours, &committed, &pooled);
    size_t mappings = model.mappings - model_mappings_beginning(s);
    memcpy(before + s.first, pages + s.first, s.count * sizeof *pages);
    if (state == MODEL_FREE || state == MODEL_RESERVED)
        model_watch_forget(s.first, s.count);
    for (size_t i = s.first; i < s.first + s.count; i++) {
        pages[i].state = (uint8_t)state;
        pages[i].owner = owner;
        pages[i].kept = 0;
        if (owner == 0) {
            pages[i].huge = pages[i].of_pool = pages[i].guard = false;
            pages[i].node = 0;
        }
        if (owner == 0 || state == MODEL_RESERVED)
            pages[i].name = NULL;
    }
    mappings += model_mappings_beginning(s);
    if (may_refuse && model.rules.max_mappings != 0 && mappings > vmki_max(model.rules.max_mappings, model.mappings)) {
        memcpy(pages + s.first, before + s.first, s.count * sizeof *pages);
        return false;
    }
    count_pages(s, &ours_now, &committed_now, &pooled_now);
    model.mappings = mappings;
    model.reserved += ours_now - ours;
    model.committed += committed_now - committed;
    model.pooled += pooled_now - pooled;
    return true;
}

/* --- checking calls --------------------------------------------------------------------------------------------- */

size_t model_offset_of(const void *address)
{
    return (size_t)((uintptr_t)address - (uintptr_t)model.base);
}

/* Whole pages inside the model's address space? */
bool model_find_span(const void *base, size_t size, model_span *s)
{
    size_t offset = model_offset_of(base);
    if (size == 0 || !vmki_is_aligned(offset, model.page_size) || !vmki_is_aligned(size, model.page_size) ||
        !vmki_range_within(offset, size, MODEL_MAX_ADDRESS_SPACE))
        return false;
    *s = (model_span){offset / model.page_size, size / model.page_size};
    return true;
}

/* The span of a call, if it is one of whole pages in one live reservation; else a violation. */
bool model_check_span(model_call call, const void *base, size_t size, model_span *s)
{
    if (!model_find_span(base, size, s)) {
        model_violate(call_names[call], "no range of whole pages", model_offset_of(base));
        return false;
    }
    for (size_t i = s->first; i < s->first + s->count; i++)
        if (!is_ours(i) || pages[i].owner != pages[s->first].owner) {
            model_violate(call_names[call], "the range is not inside one reservation", i * model.page_size);
            return false;
        }
    return true;
}

/* Explicit huge pages have calls of their own. */
static void check_usual(model_call call, model_span s)
{
    for (size_t i = s.first; i < s.first + s.count; i++)
        if (pages[i].of_pool)
            model_violate(call_names[call], "not for explicit huge pages", i * model.page_size);
}

bool model_check_committed(model_call call, const void *base, size_t size, bool writable, model_span *s)
{
    if (!model_check_span(call, base, size, s))
        return false;
    for (size_t i = s->first; i < s->first + s->count; i++)
        if (!model_is_committed(&pages[i]) || (writable && pages[i].state != MODEL_COMMITTED)) {
            model_violate(call_names[call], "a page is not committed, or not writable", i * model.page_size);
            return false;
        }
    return true;
}

bool model_all_committed(const void *base, size_t size)
{
    model_span s;
    if (!model_find_span(base, size, &s))
        return false;
    for (size_t i = s.first; i < s.first + s.count; i++)
        if (!model_is_committed(&pages[i]) || pages[i].guard || pages[i].owner != pages[s.first].owner)
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
static bool place_at_hint(const vmki_os_request *request, model_span *s)
{
    uintptr_t hint = request->hint;
    return hint != 0 && vmki_is_aligned(hint, request->align) &&
           model_find_span((const void *)hint, request->size, s) && all_free(*s);
}

/* The lowest place that is free and aligned; `apart`: with a free page before it. */
static bool place_lowest(const vmki_os_request *request, bool apart, model_span *s)
{
    if (request->size > MODEL_MAX_ADDRESS_SPACE)
        return false;
    uintptr_t base = (uintptr_t)model.base;
    uintptr_t end = base + MODEL_MAX_ADDRESS_SPACE;
    uintptr_t next;
    for (uintptr_t at = vmki_ceil(base, request->align); at >= base && at < end && request->size <= end - at;
         at = next) {
        *s = (model_span){(at - base) / model.page_size, request->size / model.page_size};
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
static vmk_status place(const vmki_os_request *request, model_span *s)
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

vmk_status model_reserve(const vmki_os_request *request, model_span *s)
{
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_request(request) && !model_planned(&status)) {
        status = place(request, s);
        if (status == VMK_OK && !model_change(*s, MODEL_RESERVED, serial + 1, true))
            status = VMK_ERR_MAPPINGS;
    }
    if (status != VMK_OK)
        return status;
    serial++;
    for (size_t i = s->first; i < s->first + s->count; i++)
        pages[i].node = request->node <= model.rules.nodes ? (uint8_t)request->node : 0;
    return VMK_OK;
}

vmk_status vmki_os_reserve(const vmki_os_request *request, void **base)
{
    model_lock();
    model_span s = {0, 0};
    vmk_status status = model_reserve(request, &s);
    if (status == VMK_OK)
        *base = page_at(s.first);
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
            model_check_untouched(MODEL_RELEASE, i);
}

/* What a release does to the contents. */
static void clear_out(model_span s)
{
    size_t limit = s.first + s.count;
    for (size_t run = s.first, i = s.first; i < limit; run = i) {
        for (; i < limit && !model_is_committed(&before[i]); i++)
            continue;
        check_reserved_run(run, i);
        for (; i < limit && model_is_committed(&before[i]); i++) {
            model_make_stale(i);
        }
    }
}

void vmki_os_release(void *base, size_t size)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (model_check_span(MODEL_RELEASE, base, size, &s)) {
        uint32_t owner = pages[s.first].owner;
        size_t limit = s.first + s.count;
        if ((s.first > 0 && pages[s.first - 1].owner == owner) || (limit < model.pages && pages[limit].owner == owner))
            model_violate("release", "a part of a reservation", model_offset_of(base));
        else
            status = VMK_OK;
    }
    if (status == VMK_OK) {
        model_change(s, MODEL_FREE, 0, false);
        model_unpoison(s);
        clear_out(s);
        model_poison(s);
    }
    model_note(MODEL_RELEASE, model_offset_of(base), size, status);
    model_unlock();
}

/* --- commit and decommit ---------------------------------------------------------------------------------------- */

static vmk_status commit_span(model_span s)
{
    size_t ours, committed, pooled;
    count_pages(s, &ours, &committed, &pooled);
    size_t charge = (model.committed + s.count - committed) * model.page_size;
    if (model.rules.commit_quota != 0 && charge > model.rules.commit_quota)
        return VMK_ERR_COMMIT;
    if (!model_change(s, MODEL_COMMITTED, pages[s.first].owner, true))
        return VMK_ERR_MAPPINGS;
    model_unpoison(s);
    for (size_t i = s.first; i < s.first + s.count; i++) {
        if (pages[i].guard && !model_is_committed(&before[i]))
            model_violate("commit", "a page is still marked as a guard", i * model.page_size);
        if (!model_is_committed(&before[i]))
            model_make_zero(MODEL_COMMIT, i);
    }
    return VMK_OK;
}

/* What a refused commit leaves behind: the first half, or as much of it as the rules allow. */
static void commit_half(model_span s)
{
    do
        s.count /= 2;
    while (s.count != 0 && commit_span(s) != VMK_OK);
}

vmk_status vmki_os_commit(void *base, size_t size)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (model_check_span(MODEL_COMMIT, base, size, &s)) {
        check_usual(MODEL_COMMIT, s);
        if (!model_planned(&status))
            status = commit_span(s);
        if (status != VMK_OK)
            commit_half(s);
    }
    model_note(MODEL_COMMIT, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

vmk_status vmki_os_decommit(void *base, size_t size)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    bool sound = model_check_span(MODEL_DECOMMIT, base, size, &s);
    if (sound)
        check_usual(MODEL_DECOMMIT, s);
    if (sound && !model_planned(&status))
        status = model_change(s, MODEL_RESERVED, pages[s.first].owner, true) ? VMK_OK : VMK_ERR_MAPPINGS;
    if (status == VMK_OK) {
        model_unpoison(s);
        for (size_t i = s.first; i < s.first + s.count; i++)
            if (model_is_committed(&before[i]))
                model_make_stale(i);
        model_poison(s);
    }
    model_note(MODEL_DECOMMIT, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

/* --- calls on committed pages, and advice ----------------------------------------------------------------------- */

vmk_status vmki_os_discard(void *base, size_t size)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (model_check_committed(MODEL_DISCARD, base, size, true, &s) && !model_planned(&status)) {
        status = VMK_OK;
        check_usual(MODEL_DISCARD, s);
        if (model.rules.junk_on_discard)
            memset(base, JUNK, size);
    }
    model_note(MODEL_DISCARD, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

void vmki_os_reuse(void *base, size_t size)
{
    model_lock();
    model_span s;
    bool sound = model_check_committed(MODEL_REUSE, base, size, false, &s);
    model_note(MODEL_REUSE, model_offset_of(base), size, sound ? VMK_OK : VMK_ERR_ARGUMENT);
    model_unlock();
}

vmk_status vmki_os_protect(void *base, size_t size, vmk_access access)
{
    static const model_state states[] = {MODEL_NO_ACCESS, MODEL_READ_ONLY, MODEL_COMMITTED};
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (access > VMK_ACCESS_READ_WRITE)
        model_violate("protect", "no such access", model_offset_of(base));
    else if (model_check_committed(MODEL_PROTECT, base, size, false, &s) && !model_planned(&status))
        status = model_change(s, states[access], pages[s.first].owner, true) ? VMK_OK : VMK_ERR_MAPPINGS;
    if (status == VMK_OK && access == VMK_ACCESS_NONE)
        model_poison(s);
    else if (status == VMK_OK)
        model_unpoison(s);
    model_note(MODEL_PROTECT, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

/* Advice makes mappings differ, as it does on Linux, but is never refused for their number. */
static void advise_span(model_span s, bool huge)
{
    model.mappings -= model_mappings_beginning(s);
    for (size_t i = s.first; i < s.first + s.count; i++)
        pages[i].huge = huge;
    model.mappings += model_mappings_beginning(s);
}

vmk_status vmki_os_advise(void *base, size_t size, vmk_advice advice)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (model_check_span(MODEL_ADVISE, base, size, &s) && !model_planned(&status)) {
        bool of_huge_pages = advice <= VMK_ADVICE_NO_HUGE;
        bool able = of_huge_pages ? model.rules.huge_page_size != 0 : (model.rules.advice & 1u << advice) != 0;
        status = able ? VMK_OK : VMK_ERR_UNSUPPORTED;
        if (able && of_huge_pages)
            advise_span(s, advice == VMK_ADVICE_HUGE);
    }
    model_note(MODEL_ADVISE, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

void vmki_os_name(void *base, size_t size, const char *name)
{
    model_lock();
    model_span s;
    bool sound = model_check_span(MODEL_NAME, base, size, &s) && name != NULL;
    if (sound) {
        model.mappings -= model_mappings_beginning(s);
        for (size_t i = s.first; i < s.first + s.count; i++)
            pages[i].name = name;
        model.mappings += model_mappings_beginning(s);
    }
    model_note(MODEL_NAME, model_offset_of(base), size, sound ? VMK_OK : VMK_ERR_ARGUMENT);
    model_unlock();
}

const char *model_name_of(const void *address)
{
    model_lock();
    size_t index = model_offset_of(address) / model.page_size;
    const char *name = index < model.pages ? pages[index].name : NULL;
    model_unlock();
    return name;
}

/* --- foreign mappings ------------------------------------------------------------------------------------------- */

static void plant_check(model_span *s, const void *address, size_t size)
{
    if (!model_find_span(address, vmki_ceil(size, model.page_size), s) ||
        !vmki_is_aligned((uintptr_t)address, model.granularity)) {
        model_violate("plant", "not a place in the model's address space", model_offset_of(address));
        *s = (model_span){0, 0};
    }
}

bool model_plant(void *address, size_t size, unsigned char fill)
{
    model_lock();
    model_span s;
    plant_check(&s, address, size);
    bool done = s.count != 0 && all_free(s);
    if (done) {
        model_change(s, MODEL_PLANTED, 0, false);
        model_unpoison(s);
        memset(address, fill, s.count * model.page_size);
    }
    model_unlock();
    return done;
}

bool model_planted_intact(void *address, size_t size, unsigned char fill)
{
    model_lock();
    model_span s;
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
    model_span s;
    plant_check(&s, address, size);
    for (size_t i = s.first; i < s.first + s.count; i++)
        if (pages[i].state == MODEL_PLANTED) {
            pages[i].state = MODEL_FREE;
            model_make_stale(i);
        }
    if (s.count != 0)
        model_poison(s);
    model_unlock();
}
