/* SPDX-License-Identifier: MIT
 *
 * Links and weak references. A link is a word that holds the complement of an object's address, and a record of it; a
 * weak reference is a link in a leaf of the collector's own.
 *
 * The record is found by the link's address, by the object that is referred to, and by the object that the link lies
 * in: so that freeing an object by hand costs what there is to do, however many links there are. A link at the start of
 * its object (every weak reference is one) is found by its address, and is not chained for that.
 *
 * A link that was cleared is no link any more, and has no record.
 *
 * Reading. Between the load of the hidden word and the moment at which the address is in a register or on the stack in
 * plain sight, no cycle may come: so a registered thread is inside meanwhile, and any other has the world's lock. What
 * keeps the object alive from then on is the reader's stack, if it is registered.
 */
#include "common/gc/gc.h"

typedef struct link {
    vmki_record record; /* the object that it refers to; the chain of those that do too */
    vmki_chain in;      /* of those that lie in the same object */
    uintptr_t holder;   /* that object, 0: none */
    uintptr_t *at;
    vmk_gc_weak_kind kind;
} link;

enum { CHAIN_TO = offsetof(link, record.chain), CHAIN_IN = offsetof(link, in) };

struct vmk_gc_weak {
    uintptr_t link;
};

/* The upper half of the address space is the system's, or (in 32 bits) at least no place for objects that also lie in
 * the lower half at the complement: one that was taken for a pointer would do no harm beyond keeping something alive.
 */
static inline uintptr_t turned(uintptr_t address)
{
    return ~address;
}

static inline bool chained_in(const link *l)
{
    return l->holder != 0 && l->holder != (uintptr_t)l->at;
}

/* --- records: under the lock -------------------------------------------------------------------------------------- */

static vmk_status room_make(vmki_links *links)
{
    vmk_status status = vmki_records_reserve(&links->records, sizeof(link));
    if (status == VMK_OK)
        status = vmki_map_reserve(&links->map, links->map.count + 1);
    if (status == VMK_OK)
        status = vmki_map_reserve(&links->to, links->to.count + 1);
    if (status == VMK_OK)
        status = vmki_map_reserve(&links->in, links->in.count + 1);
    return status;
}

static void link_forget(vmki_links *links, size_t number)
{
    link *l = vmki_record_at(&links->records, number);
    vmki_chain_remove(&links->to, l->record.object, &links->records, CHAIN_TO, number);
    if (chained_in(l))
        vmki_chain_remove(&links->in, l->holder, &links->records, CHAIN_IN, number);
    (void)vmki_map_remove(&links->map, (uintptr_t)l->at);
    vmki_records_give(&links->records, number);
}

static void link_clear(vmki_links *links, size_t number)
{
    link *l = vmki_record_at(&links->records, number);
    VMKI_STORE_RELAXED(l->at, 0);
    link_forget(links, number);
}

/* The record of a link, made if there is none. There is room. */
static size_t link_of(vmki_gc *gc, uintptr_t *at, uintptr_t object)
{
    vmki_links *links = &gc->links;
    uintptr_t *known = NULL;
    uint8_t code;
    vmk_status status = vmki_map_add(&links->map, (uintptr_t)at, &known);
    VMKI_ASSERT(status == VMK_OK);
    size_t number = *known;
    if (number != 0) {
        link *l = vmki_record_at(&links->records, number);
        vmki_chain_remove(&links->to, l->record.object, &links->records, CHAIN_TO, number);
        l->record.object = object;
        return number;
    }
    number = *known = vmki_records_take(&links->records, object);
    link *l = vmki_record_at(&links->records, number);
    l->at = at;
    l->holder = vmki_gc_find(gc, (uintptr_t)at, &code); /* it stays: the caller knows of it */
    if (chained_in(l))
        vmki_chain_add(&links->in, l->holder, &links->records, CHAIN_IN, number);
    return number;
}

static vmk_status link_set(vmki_gc *gc, uintptr_t *at, uintptr_t object, vmk_gc_weak_kind kind)
{
    vmki_links *links = &gc->links;
    vmki_gc_acquire(&links->lock);
    vmk_status status = room_make(links);
    if (status == VMK_OK) {
        size_t number = link_of(gc, at, object);
        vmki_chain_add(&links->to, object, &links->records, CHAIN_TO, number);
        ((link *)vmki_record_at(&links->records, number))->kind = kind == VMK_GC_SHORT ? VMK_GC_SHORT : VMK_GC_LONG;
        VMKI_STORE_RELAXED(at, turned(object));
    }
    vmki_gc_release(&links->lock);
    return status;
}

/* --- links -------------------------------------------------------------------------------------------------------- */

vmk_status vmk_gc_link_add(vmk_gc *view, uintptr_t *at, void *object, vmk_gc_weak_kind kind)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_link_add");
    vmki_os_error before = vmki_os_error_get();
    (void)vmki_gc_object_require(gc, object, "vmk_gc_link_add: not an object of this heap");
    if (at == NULL || !vmki_is_aligned((uintptr_t)at, sizeof *at))
        return VMK_ERR_ARGUMENT;
    vmk_status status = link_set(gc, at, (uintptr_t)object, kind);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

bool vmk_gc_link_remove(vmk_gc *view, uintptr_t *at)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_link_remove");
    vmki_gc_acquire(&gc->links.lock);
    const uintptr_t *known = vmki_map_find(&gc->links.map, (uintptr_t)at);
    bool was = known != NULL;
    if (was)
        link_forget(&gc->links, *known);
    vmki_gc_release(&gc->links.lock);
    return was;
}

static void *link_get(const uintptr_t *at)
{
    void *volatile object = NULL; /* in memory, in plain sight, before anything may stop the thread */
    vmki_gc_read_begin();
    uintptr_t word = VMKI_LOAD_RELAXED(at);
    if (word != 0)
        object = (void *)turned(word);
    vmki_gc_read_end();
    return object;
}

void *vmk_gc_link_get(vmk_gc *view, const uintptr_t *at)
{
    (void)VMKI_GC_REQUIRE(view, "vmk_gc_link_get");
    return link_get(at);
}

/* --- weak references ---------------------------------------------------------------------------------------------- */

static vmk_gc_weak *weak_make(vmki_gc *gc, void *object, vmk_gc_weak_kind kind)
{
    vmk_gc_weak *weak = vmki_gc_alloc_own(gc, sizeof *weak);
    if (weak != NULL && link_set(gc, &weak->link, (uintptr_t)object, kind) != VMK_OK) {
        vmk_gc_free(gc, weak);
        return NULL;
    }
    return weak;
}

vmk_gc_weak *vmk_gc_weak_new(vmk_gc *view, void *object, vmk_gc_weak_kind kind)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_weak_new");
    (void)vmki_gc_object_require(gc, object, "vmk_gc_weak_new: not an object of this heap");
    if ((gc->flags & VMK_GC_NO_STACKS) == 0)
        return weak_make(gc, object, kind);
    if (vmk_gc_pin(gc, object) != VMK_OK) /* allocating is a safe point, and this stack keeps nothing alive */
        return NULL;
    vmk_gc_weak *weak = weak_make(gc, object, kind);
    vmk_gc_unpin(gc, object);
    return weak;
}

void *vmk_gc_weak_get(vmk_gc *view, const vmk_gc_weak *weak)
{
    (void)VMKI_GC_REQUIRE(view, "vmk_gc_weak_get");
    return link_get(&weak->link);
}

/* --- in the cycle, and by hand ------------------------------------------------------------------------------------ */

/* A link in an object that nothing reached so far is cleared like any other when short ones are, for a finalizer may
 * revive that object; its memory is whole until the cycle ends. */
size_t vmki_links_clear(vmki_gc *gc, vmk_gc_weak_kind kind)
{
    vmki_links *links = &gc->links;
    size_t cleared = 0;
    vmki_os_lock_acquire(&links->lock);
    for (size_t number = 1; number <= links->records.made; number++) {
        const link *l = vmki_record_at(&links->records, number);
        if (l->record.object == 0)
            continue;
        bool seen = l->holder == 0 || vmki_gc_marked(gc, l->holder);
        if (kind == VMK_GC_LONG && !seen) {
            link_forget(links, number);
        } else if (l->kind == kind && !vmki_gc_marked(gc, l->record.object)) {
            link_clear(links, number);
            cleared += seen;
        }
    }
    vmki_os_lock_release(&links->lock);
    return cleared;
}

void vmki_links_drop(vmki_gc *gc, uintptr_t object)
{
    vmki_links *links = &gc->links;
    size_t number;
    if (vmki_records_count(&links->records) == 0)
        return;
    vmki_gc_acquire(&links->lock);
    while ((number = vmki_chain_first(&links->to, object)) != 0)
        link_clear(links, number);
    while ((number = vmki_chain_first(&links->in, object)) != 0)
        link_forget(links, number);
    number = vmki_chain_first(&links->map, object);
    if (number != 0)
        link_forget(links, number);
    vmki_gc_release(&links->lock);
}

void vmki_links_fini(vmki_gc *gc)
{
    vmki_map_fini(&gc->links.map);
    vmki_map_fini(&gc->links.to);
    vmki_map_fini(&gc->links.in);
    vmki_records_fini(&gc->links.records);
}
