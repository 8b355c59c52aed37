/* SPDX-License-Identifier: MIT
 *
 * Where objects were allocated; and which were never freed, for programs that free by hand.
 *
 * What a cycle has found is told when threads go on again, while the next cycle may already find more. So each has a
 * reservation of its own, a batch, and whoever tells takes all that are there.
 */
#include "common/gc/gc.h"

typedef struct leak {
    uintptr_t object;
    size_t size;
    const void *site;
} leak;

struct vmki_leak_batch {
    vmk_region region; /* that it is in */
    struct vmki_leak_batch *next;
    size_t count;
    size_t capacity;
    leak found[];
};

/* --- sites -------------------------------------------------------------------------------------------------------- */

void vmki_site_note(vmki_gc *gc, uintptr_t object, const void *site)
{
    uintptr_t *value;
    if (site == NULL) /* of the collector's own */
        return;
    vmki_gc_acquire(&gc->leaks.lock);
    if (vmki_map_add(&gc->leaks.sites, object, &value) == VMK_OK)
        *value = (uintptr_t)site;
    vmki_gc_release(&gc->leaks.lock);
}

void vmki_site_drop(vmki_gc *gc, uintptr_t object)
{
    if ((gc->flags & VMK_GC_SITES) == 0)
        return;
    vmki_gc_acquire(&gc->leaks.lock);
    (void)vmki_map_remove(&gc->leaks.sites, object);
    vmki_gc_release(&gc->leaks.lock);
}

/* All who note sites stand still. */
const void *vmki_site_of(const vmki_gc *gc, uintptr_t object)
{
    const uintptr_t *site = vmki_map_find(&gc->leaks.sites, object);
    return site != NULL ? (const void *)*site : NULL;
}

/* --- leaks: in the cycle ------------------------------------------------------------------------------------------ */

typedef struct search {
    vmki_gc *gc;
    struct vmki_leak_batch *batch; /* NULL: none yet, or none to be had */
    size_t dead;
    size_t untold; /* bytes */
} search;

static bool is_leak(const vmki_gc *gc, uintptr_t base)
{
    return !vmki_gc_marked(gc, base) && vmki_gc_type_of(gc, base) != gc->own;
}

static bool count_leak(void *context, uintptr_t base, uint8_t code)
{
    search *s = context;
    (void)code;
    s->dead += is_leak(s->gc, base) ? 1 : 0;
    return true;
}

/* Room for as many as there are, or as there is address space for. */
static void batch_make(search *s)
{
    vmk_region region;
    size_t least = sizeof *s->batch + sizeof(leak), size;
    if (vmki_mul_overflow(s->dead, sizeof(leak), &size) || vmki_add_overflow(size, sizeof *s->batch, &size))
        size = SIZE_MAX / 4;
    vmk_reserve_options options = {.min_size = least};
    if (vmk_reserve(&region, size, &options) != VMK_OK)
        return;
    if (vmk_commit(&region, 0, vmk_page_size()) != VMK_OK) {
        vmk_release(&region);
        return;
    }
    s->batch = (struct vmki_leak_batch *)(void *)region.base;
    s->batch->region = region;
    s->batch->capacity = (vmk_page_size() - sizeof *s->batch) / sizeof(leak);
}

/* Commit twice as much, or, if that is refused, a page more. */
static bool batch_grow(struct vmki_leak_batch *batch)
{
    vmk_region *region = &batch->region;
    size_t have = region->committed, left = region->size - have, page = vmk_page_size(), more = vmki_min(have, left);
    if (more == 0)
        return false;
    if (vmk_commit(region, have, more) != VMK_OK) {
        more = page;
        if (vmk_commit(region, have, more) != VMK_OK)
            return false;
    }
    batch->capacity = (have + more - sizeof *batch) / sizeof(leak);
    return true;
}

static bool note_leak(void *context, uintptr_t base, uint8_t code)
{
    search *s = context;
    if (!is_leak(s->gc, base))
        return true;
    struct vmki_leak_batch *batch = s->batch;
    size_t size = vmki_gc_size(s->gc, base, code);
    if (batch == NULL || (batch->count == batch->capacity && !batch_grow(batch)))
        s->untold += size;
    else
        batch->found[batch->count++] = (leak){base, size, vmki_site_of(s->gc, base)};
    return true;
}

static bool site_lives(void *context, uintptr_t key, uintptr_t *value)
{
    (void)value;
    return vmki_gc_marked(context, key);
}

static void find(vmki_gc *gc)
{
    search s = {.gc = gc};
    vmki_gc_each(gc, count_leak, &s);
    if (s.dead == 0)
        return;
    batch_make(&s);
    vmki_gc_each(gc, note_leak, &s);
    struct vmki_leak_batch **end = &gc->leaks.batches;
    while (*end != NULL)
        end = &(*end)->next;
    *end = s.batch;
    gc->leaks.untold += s.untold;
}

void vmki_leaks_find(vmki_gc *gc)
{
    bool tells = (gc->flags & VMK_GC_LEAKS) != 0 && gc->options.on_leak != NULL;
    if (!tells && (gc->flags & VMK_GC_SITES) == 0)
        return;
    vmki_os_lock_acquire(&gc->leaks.lock);
    if (tells)
        find(gc);
    vmki_map_filter(&gc->leaks.sites, site_lives, gc);
    vmki_os_lock_release(&gc->leaks.lock);
}

/* --- leaks: after it ---------------------------------------------------------------------------------------------- */

void vmki_leaks_tell(vmki_gc *gc)
{
    if ((gc->flags & VMK_GC_LEAKS) == 0 || gc->options.on_leak == NULL)
        return;
    vmki_gc_acquire(&gc->leaks.lock);
    struct vmki_leak_batch *batch = gc->leaks.batches;
    size_t untold = gc->leaks.untold;
    gc->leaks.batches = NULL;
    gc->leaks.untold = 0;
    vmki_gc_release(&gc->leaks.lock);
    while (batch != NULL) {
        for (size_t i = 0; i < batch->count; i++) {
            const leak *l = &batch->found[i];
            gc->options.on_leak(gc->options.on_leak_context, (const void *)l->object, l->size, l->site);
        }
        vmk_region region = batch->region;
        batch = batch->next;
        vmk_release(&region);
    }
    if (untold != 0)
        gc->options.on_leak(gc->options.on_leak_context, NULL, untold, NULL);
}

void vmki_leaks_fini(vmki_gc *gc)
{
    while (gc->leaks.batches != NULL) {
        vmk_region region = gc->leaks.batches->region;
        gc->leaks.batches = gc->leaks.batches->next;
        vmk_release(&region);
    }
    vmki_map_fini(&gc->leaks.sites);
}
