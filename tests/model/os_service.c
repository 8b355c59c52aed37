/* SPDX-License-Identifier: MIT
 *
 * The model OS, services of pages: marks, residency, many ranges at once, explicit huge pages, nodes.
 *
 * A decommit by batch leaves its pages in the mapping that they were in, as Linux does, so that mappings are counted
 * truly. What a batch may do to ranges that it has not come to, it does: their contents go. A range that is refused is
 * marked in its first half.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "model/model_private.h"

static unsigned char *address_of(size_t index)
{
    return model.base + index * model.page_size;
}

/* --- marks ------------------------------------------------------------------------------------------------------ */

static void mark(model_call call, model_span s)
{
    model_unpoison(s);
    for (size_t i = s.first; i < s.first + s.count; i++) {
        if (model_page_of(i)->guard)
            model_check_untouched(call, i);
        model_page_of(i)->guard = true;
        model_make_stale(i);
    }
    model_poison(s);
}

vmk_status vmki_os_guard_set(void *base, size_t size)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (model_check_committed(MODEL_GUARD_SET, base, size, false, &s)) {
        status = model.rules.guards && !model_page_of(s.first)->of_pool ? VMK_OK : VMK_ERR_UNSUPPORTED;
        if (status == VMK_OK)
            mark(MODEL_GUARD_SET, s);
    }
    model_note(MODEL_GUARD_SET, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

void vmki_os_guard_clear(void *base, size_t size)
{
    model_lock();
    model_span s;
    bool sound = model_check_span(MODEL_GUARD_CLEAR, base, size, &s);
    for (size_t i = s.first; sound && i < s.first + s.count; i++) {
        if (!model_page_of(i)->guard)
            continue;
        model_unpoison((model_span){i, 1});
        model_page_of(i)->guard = false;
        if (model_is_committed(model_page_of(i)))
            model_make_zero(MODEL_GUARD_CLEAR, i);
        else
            model_poison((model_span){i, 1});
    }
    model_note(MODEL_GUARD_CLEAR, model_offset_of(base), size, sound ? VMK_OK : VMK_ERR_ARGUMENT);
    model_unlock();
}

/* --- memory behind pages ---------------------------------------------------------------------------------------- */

/* Whoever wants it touches the pages. */
vmk_status vmki_os_prefault(void *base, size_t size)
{
    (void)base;
    (void)size;
    return VMK_ERR_UNSUPPORTED;
}

static bool is_there(size_t index)
{
    return model_is_committed(model_page_of(index)) && !model_page_of(index)->guard;
}

/* What is committed is there. */
vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *resident)
{
    model_lock();
    model_span s;
    bool sound = model_find_span(base, size, &s);
    for (size_t i = 0; sound && i < s.count; i++)
        resident[i] = is_there(s.first + i);
    model_unlock();
    return sound ? VMK_OK : VMK_ERR_ARGUMENT;
}

/* An advice is followed at once. */
vmk_status vmki_os_huge_report(const void *base, size_t size, size_t *huge)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    size_t sum = 0;
    if (model_find_span(base, size, &s))
        status = model.rules.huge_page_size + model.rules.huge_size != 0 ? VMK_OK : VMK_ERR_UNSUPPORTED;
    for (size_t i = 0; status == VMK_OK && i < s.count; i++) {
        const model_page *p = model_page_of(s.first + i);
        sum += is_there(s.first + i) && (p->huge || p->of_pool);
    }
    if (status == VMK_OK)
        *huge = sum * model.page_size;
    model_unlock();
    return status;
}

/* --- many ranges at once ---------------------------------------------------------------------------------------- */

static void decommit_by_mark(model_span s)
{
    mark(MODEL_DECOMMIT_BATCH, s);
    model.mappings -= model_mappings_beginning(s);
    for (size_t i = s.first; i < s.first + s.count; i++) {
        model_page_of(i)->kept = model_page_of(i)->state;
        model_page_of(i)->state = MODEL_RESERVED;
    }
    model.mappings += model_mappings_beginning(s);
    model.committed -= s.count;
}

/* What a range that was not come to may look like afterwards. */
static void lose_contents(model_span s)
{
    for (size_t i = s.first; i < s.first + s.count; i++)
        if (model_page_of(i)->state == MODEL_COMMITTED && !model_page_of(i)->guard)
            memset(address_of(i), 0, model.page_size);
}

typedef void on_span(model_span s);

static void discard(model_span s)
{
    if (model.rules.junk_on_discard)
        memset(address_of(s.first), 0xDB, s.count * model.page_size);
}

static void mark_half(model_span s)
{
    s.count /= 2;
    if (s.count != 0)
        mark(MODEL_DECOMMIT_BATCH, s);
}

static vmk_status batch(model_call call, const vmki_os_range *ranges, size_t count, bool writable, on_span *act,
                        on_span *refused, size_t *done)
{
    vmk_status status = VMK_OK;
    model_span s;
    *done = 0;
    for (size_t i = 0; i < count; i++) {
        if (i != 0 && (uintptr_t)ranges[i].base <= (uintptr_t)ranges[i - 1].base + ranges[i - 1].size)
            model_violate("batch", "ranges touch, or are not ascending", model_offset_of(ranges[i].base));
        if (!model_check_committed(call, ranges[i].base, ranges[i].size, writable, &s))
            return VMK_ERR_ARGUMENT;
        if (status == VMK_OK && model_planned(&status) && refused != NULL)
            refused(s);
        if (status == VMK_OK) {
            act(s);
            ++*done;
        } else {
            lose_contents(s);
        }
        model_note(call, model_offset_of(ranges[i].base), ranges[i].size, status);
    }
    return status == VMK_ERR_UNSUPPORTED ? VMK_ERR_COMMIT : status; /* that would mean: not at all */
}

vmk_status vmki_os_discard_batch(const vmki_os_range *ranges, size_t count, size_t *done)
{
    *done = 0;
    model_lock();
    vmk_status status = VMK_ERR_UNSUPPORTED;
    if (model.rules.batch)
        status = batch(MODEL_DISCARD_BATCH, ranges, count, true, discard, NULL, done);
    model_unlock();
    return status;
}

vmk_status vmki_os_decommit_batch(const vmki_os_range *ranges, size_t count, size_t *done)
{
    *done = 0;
    model_lock();
    vmk_status status = VMK_ERR_UNSUPPORTED;
    if (model.rules.batch && model.rules.guards)
        status = batch(MODEL_DECOMMIT_BATCH, ranges, count, false, decommit_by_mark, mark_half, done);
    model_unlock();
    return status;
}

/* --- explicit huge pages ---------------------------------------------------------------------------------------- */

static vmk_status take_from_pool(model_call call, model_span s)
{
    if ((model.pooled + s.count) * model.page_size > model.rules.huge_pool)
        return VMK_ERR_COMMIT;
    if (!model_change(s, MODEL_COMMITTED, model_page_of(s.first)->owner, true))
        return VMK_ERR_MAPPINGS;
    model_unpoison(s);
    for (size_t i = s.first; i < s.first + s.count; i++)
        model_make_zero(call, i);
    return VMK_OK;
}

static void give_up_place(model_span s)
{
    (void)model_change(s, MODEL_FREE, 0, false);
}

vmk_status vmki_os_reserve_huge(const vmki_os_request *request, size_t huge, void **base, bool *committed)
{
    model_lock();
    model_span s = {0, 0};
    vmk_status status = VMK_ERR_UNSUPPORTED;
    if (!vmki_is_power_of_two(huge) || huge <= model.page_size)
        model_violate("reserve_huge", "no size of huge pages", huge);
    else if (huge == model.rules.huge_size)
        status = model_reserve(request, &s);
    if (status == VMK_OK) {
        if (!vmki_is_aligned(request->size | request->align | model_offset_of(address_of(s.first)), huge))
            model_violate("reserve_huge", "not whole huge pages", s.first * model.page_size);
        model.mappings -= model_mappings_beginning(s);
        for (size_t i = s.first; i < s.first + s.count; i++)
            model_page_of(i)->of_pool = true;
        model.mappings += model_mappings_beginning(s);
        if (model.rules.huge_whole)
            status = take_from_pool(MODEL_RESERVE, s);
        if (status != VMK_OK)
            give_up_place(s);
    }
    if (status == VMK_OK) {
        *base = address_of(s.first);
        *committed = model.rules.huge_whole;
    }
    model_note(MODEL_RESERVE, s.first * model.page_size, request->size, status);
    model_unlock();
    return status;
}

/* The span of whole huge pages. */
static bool check_huge(model_call call, const void *base, size_t size, size_t huge, model_span *s)
{
    if (!model_check_span(call, base, size, s))
        return false;
    bool sound = huge == model.rules.huge_size && vmki_is_aligned(model_offset_of(base) | size, huge);
    for (size_t i = s->first; i < s->first + s->count; i++)
        sound =
            sound && model_page_of(i)->of_pool && (call != MODEL_COMMIT_HUGE || !model_is_committed(model_page_of(i)));
    if (!sound)
        model_violate("huge", "not whole huge pages, or committed already", model_offset_of(base));
    return sound;
}

vmk_status vmki_os_commit_huge(void *base, size_t size, size_t huge)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_huge(MODEL_COMMIT_HUGE, base, size, huge, &s) && !model_planned(&status))
        status = take_from_pool(MODEL_COMMIT_HUGE, s);
    model_note(MODEL_COMMIT_HUGE, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

vmk_status vmki_os_decommit_huge(void *base, size_t size, size_t huge)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (check_huge(MODEL_DECOMMIT_HUGE, base, size, huge, &s) && !model_planned(&status))
        status = model.rules.huge_whole ? VMK_ERR_UNSUPPORTED : VMK_OK;
    for (size_t i = s.first; status == VMK_OK && i < s.first + s.count; i++) {
        if (!model_is_committed(model_page_of(i)))
            continue;
        model_unpoison((model_span){i, 1});
        model_make_stale(i);
        model_poison((model_span){i, 1});
    }
    if (status == VMK_OK)
        (void)model_change(s, MODEL_RESERVED, model_page_of(s.first)->owner, false);
    model_note(MODEL_DECOMMIT_HUGE, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

/* --- nodes ------------------------------------------------------------------------------------------------------ */

vmk_status vmki_os_node_prefer(void *base, size_t size, unsigned node)
{
    model_lock();
    model_span s;
    vmk_status status = VMK_ERR_ARGUMENT;
    if (model_check_span(MODEL_NODE_PREFER, base, size, &s) && !model_planned(&status))
        status = node < model.rules.nodes ? VMK_OK : VMK_ERR_UNSUPPORTED;
    for (size_t i = s.first; status == VMK_OK && i < s.first + s.count; i++)
        if (!is_there(i)) /* what has memory keeps it */
            model_page_of(i)->node = (uint8_t)(node + 1);
    model_note(MODEL_NODE_PREFER, model_offset_of(base), size, status);
    model_unlock();
    return status;
}

vmk_status vmki_os_node_of(const void *address, unsigned *node)
{
    model_lock();
    size_t index = model_offset_of(address) / model.page_size;
    bool told = model.rules.nodes != 0 && index < model.pages && is_there(index);
    if (told)
        *node = model_page_of(index)->node != 0 ? model_page_of(index)->node - 1u : 0;
    model_unlock();
    return told ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_service(vmk_caps *caps)
{
    model_lock();
    caps->features |= VMK_CAP_RESIDENCY | (model.rules.guards ? VMK_CAP_GUARDS : 0u) |
                      (model.rules.batch ? VMK_CAP_BATCH : 0u) | (model.rules.nodes > 1 ? VMK_CAP_NODE : 0u) |
                      (model.rules.huge_page_size + model.rules.huge_size != 0 ? VMK_CAP_HUGE_REPORT : 0u);
    caps->nodes = model.rules.nodes != 0 ? model.rules.nodes : 1;
    caps->huge_sizes[0] = model.rules.huge_size;
    model_unlock();
}
