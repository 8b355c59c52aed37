/* SPDX-License-Identifier: MIT
 *
 * Ephemerons. What the program has is a leaf of the collector's own that holds the number of a record; key and value
 * are in the record, which nobody scans. The records of one key are a chain that is found by the key.
 *
 * Marking, in time linear in the ephemerons and in what they keep alive. First the values of all that are reached, and
 * whose keys are, are marked by all markers: mostly that is all there is to do. If some are left, marking goes on by
 * one thread which is told of every object that becomes marked. Such an object may be a key: then its chain is looked
 * through, once; or an ephemeron. An ephemeron of which both are marked then is put on a list, and the values of those
 * on the list are marked, which may put more on it. So each record is looked at a fixed number of times, whatever the
 * order, and nothing needs memory, for the chains are there before.
 */
#include "common/gc/gc.h"

typedef struct pair {
    vmki_record record; /* the ephemeron; the chain of those with the same key */
    uintptr_t key;
    uintptr_t value; /* atomic */
    size_t ready;    /* while they are marked: the next one on the list, or: */
} pair;

#define READY_LAST (SIZE_MAX - 1) /* the last one on it */
#define READY_DONE SIZE_MAX       /* its value is marked */

enum { CHAIN_KEY = offsetof(pair, record.chain) };

struct vmk_gc_ephemeron {
    uintptr_t number; /* 0: cleared. Atomic */
};

/* The record of an object if that is an ephemeron (not cleared), whatever it is; else 0. It is one if the record says
 * so too. */
static size_t number_of(const vmki_ephemerons *all, uintptr_t object)
{
    size_t number = VMKI_LOAD_RELAXED((const uintptr_t *)object);
    if (number == 0 || number > VMKI_LOAD_ACQUIRE(&all->records.made))
        return 0;
    const pair *p = vmki_record_at(&all->records, number);
    return VMKI_LOAD_RELAXED(&p->record.object) == object ? number : 0;
}

static void pair_forget(vmki_ephemerons *all, size_t number)
{
    const pair *p = vmki_record_at(&all->records, number);
    vmki_chain_remove(&all->keys, p->key, &all->records, CHAIN_KEY, number);
    vmki_records_give(&all->records, number);
}

static void pair_clear(vmki_ephemerons *all, size_t number)
{
    const pair *p = vmki_record_at(&all->records, number);
    vmk_gc_ephemeron *ephemeron = (vmk_gc_ephemeron *)p->record.object;
    VMKI_STORE_RELAXED(&ephemeron->number, 0);
    pair_forget(all, number);
}

/* --- what the program calls --------------------------------------------------------------------------------------- */

static vmk_status pair_set(vmki_gc *gc, vmk_gc_ephemeron *ephemeron, uintptr_t key, uintptr_t value)
{
    vmki_ephemerons *all = &gc->ephemerons;
    vmki_gc_acquire(&all->lock);
    vmk_status status = vmki_records_reserve(&all->records, sizeof(pair));
    if (status == VMK_OK)
        status = vmki_map_reserve(&all->keys, all->keys.count + 1);
    if (status == VMK_OK) {
        size_t number = vmki_records_take(&all->records, (uintptr_t)ephemeron);
        pair *p = vmki_record_at(&all->records, number);
        p->key = key;
        p->value = value;
        vmki_chain_add(&all->keys, key, &all->records, CHAIN_KEY, number);
        VMKI_STORE_RELAXED(&ephemeron->number, number);
    }
    vmki_gc_release(&all->lock);
    return status;
}

static vmk_gc_ephemeron *ephemeron_make(vmki_gc *gc, void *key, void *value)
{
    vmk_gc_ephemeron *ephemeron = vmki_gc_alloc_own(gc, sizeof *ephemeron);
    if (ephemeron != NULL && pair_set(gc, ephemeron, (uintptr_t)key, (uintptr_t)value) != VMK_OK) {
        vmk_gc_free(gc, ephemeron);
        return NULL;
    }
    return ephemeron;
}

/* The same where stacks keep nothing alive, and allocating is a safe point. */
static vmk_gc_ephemeron *ephemeron_make_held(vmki_gc *gc, void *key, void *value)
{
    vmk_gc_ephemeron *ephemeron = NULL;
    void *base = vmk_gc_base(gc, value);
    if (vmk_gc_pin(gc, key) != VMK_OK)
        return NULL;
    if (base == NULL || vmk_gc_pin(gc, base) == VMK_OK) {
        ephemeron = ephemeron_make(gc, key, value);
        if (base != NULL)
            vmk_gc_unpin(gc, base);
    }
    vmk_gc_unpin(gc, key);
    return ephemeron;
}

vmk_gc_ephemeron *vmk_gc_ephemeron_new(vmk_gc *view, void *key, void *value)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_ephemeron_new");
    (void)vmki_gc_object_require(gc, key, "vmk_gc_ephemeron_new: the key is not an object of this heap");
    if ((gc->flags & VMK_GC_NO_STACKS) != 0)
        return ephemeron_make_held(gc, key, value);
    return ephemeron_make(gc, key, value);
}

/* As in weak.c: what is read must be in plain sight before a cycle can come. */
static void *pair_get(vmki_gc *gc, const vmk_gc_ephemeron *ephemeron, size_t offset)
{
    void *volatile object = NULL;
    vmki_gc_read_begin();
    size_t number = number_of(&gc->ephemerons, (uintptr_t)ephemeron);
    if (number != 0) {
        const unsigned char *p = vmki_record_at(&gc->ephemerons.records, number);
        object = (void *)VMKI_LOAD_RELAXED((const uintptr_t *)(const void *)(p + offset));
    }
    vmki_gc_read_end();
    return object;
}

void *vmk_gc_ephemeron_key(vmk_gc *view, const vmk_gc_ephemeron *ephemeron)
{
    return pair_get(VMKI_GC_REQUIRE(view, "vmk_gc_ephemeron_key"), ephemeron, offsetof(pair, key));
}

void *vmk_gc_ephemeron_value(vmk_gc *view, const vmk_gc_ephemeron *ephemeron)
{
    return pair_get(VMKI_GC_REQUIRE(view, "vmk_gc_ephemeron_value"), ephemeron, offsetof(pair, value));
}

void vmk_gc_ephemeron_set(vmk_gc *view, vmk_gc_ephemeron *ephemeron, void *value)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_ephemeron_set");
    vmki_gc_acquire(&gc->ephemerons.lock);
    size_t number = number_of(&gc->ephemerons, (uintptr_t)ephemeron);
    if (number != 0) {
        pair *p = vmki_record_at(&gc->ephemerons.records, number);
        VMKI_STORE_RELAXED(&p->value, (uintptr_t)value);
    }
    vmki_gc_release(&gc->ephemerons.lock);
}

void vmki_ephemerons_drop(vmki_gc *gc, uintptr_t object)
{
    vmki_ephemerons *all = &gc->ephemerons;
    size_t number;
    if (vmki_records_count(&all->records) == 0)
        return;
    vmki_gc_acquire(&all->lock);
    while ((number = vmki_chain_first(&all->keys, object)) != 0)
        pair_clear(all, number);
    number = number_of(all, object);
    if (number != 0)
        pair_forget(all, number);
    vmki_gc_release(&all->lock);
}

/* --- in the cycle ------------------------------------------------------------------------------------------------- */

static bool is_reached(const vmki_gc *gc, const pair *p)
{
    return vmki_gc_marked(gc, p->record.object) && vmki_gc_marked(gc, p->key);
}

/* Its value is to be marked, if its time has come. */
static void ready_add(vmki_gc *gc, size_t number)
{
    vmki_ephemerons *all = &gc->ephemerons;
    pair *p = vmki_record_at(&all->records, number);
    all->steps++;
    if (p->record.object != 0 && p->ready == 0 && is_reached(gc, p)) {
        p->ready = all->ready != 0 ? all->ready : READY_LAST;
        all->ready = number;
    }
}

static void ready_mark(vmki_gc *gc, vmki_marker *marker)
{
    vmki_ephemerons *all = &gc->ephemerons;
    while (all->ready != 0) {
        pair *p = vmki_record_at(&all->records, all->ready);
        all->ready = p->ready != READY_LAST ? p->ready : 0;
        p->ready = READY_DONE;
        vmki_mark_word(marker, p->value, true);
    }
}

/* Told of every object that becomes marked. */
static void object_reached(vmki_gc *gc, uintptr_t base)
{
    vmki_ephemerons *all = &gc->ephemerons;
    size_t number = vmki_chain_first(&all->keys, base);
    while (number != 0) {
        const pair *p = vmki_record_at(&all->records, number);
        ready_add(gc, number);
        number = p->record.chain.next;
    }
    if (vmki_gc_page_code(gc, base) != vmki_gc_code_of(VMKI_LEAF, vmki_class_of(sizeof(vmk_gc_ephemeron))))
        return;
    number = number_of(all, base);
    if (number != 0)
        ready_add(gc, number);
}

static size_t all_add(vmki_gc *gc)
{
    vmki_ephemerons *all = &gc->ephemerons;
    for (size_t number = 1; number <= all->records.made; number++)
        ready_add(gc, number);
    return all->ready;
}

/* Is there one that is not done? Then they are all looked at again by the caller. */
static bool some_left(vmki_gc *gc)
{
    vmki_ephemerons *all = &gc->ephemerons;
    bool left = false;
    for (size_t number = 1; number <= all->records.made; number++) {
        const pair *p = vmki_record_at(&all->records, number);
        all->steps++;
        left |= p->record.object != 0 && p->ready != READY_DONE;
    }
    return left;
}

static void all_begin(vmki_gc *gc)
{
    vmki_ephemerons *all = &gc->ephemerons;
    for (size_t number = 1; number <= all->records.made; number++)
        ((pair *)vmki_record_at(&all->records, number))->ready = 0;
}

void vmki_ephemerons_mark(vmki_gc *gc, vmki_marker *marker)
{
    vmki_ephemerons *all = &gc->ephemerons;
    if (vmki_records_count(&all->records) == 0)
        return;
    vmki_os_lock_acquire(&all->lock);
    all_begin(gc);
    if (all_add(gc) != 0) {
        ready_mark(gc, marker);
        vmki_mark_drain(gc);
    }
    if (some_left(gc)) {
        vmki_mark_watch(gc, object_reached);
        (void)all_add(gc);
        while (all->ready != 0) {
            ready_mark(gc, marker);
            vmki_mark_drain(gc);
        }
        vmki_mark_watch(gc, NULL);
    }
    vmki_os_lock_release(&all->lock);
}

size_t vmki_ephemerons_clear(vmki_gc *gc, bool end)
{
    vmki_ephemerons *all = &gc->ephemerons;
    size_t cleared = 0;
    vmki_os_lock_acquire(&all->lock);
    for (size_t number = 1; number <= all->records.made; number++) {
        const pair *p = vmki_record_at(&all->records, number);
        if (p->record.object == 0)
            continue;
        if (!vmki_gc_marked(gc, p->record.object)) {
            if (end)
                pair_forget(all, number);
        } else if (!vmki_gc_marked(gc, p->key)) {
            pair_clear(all, number);
            cleared++;
        }
    }
    vmki_os_lock_release(&all->lock);
    return cleared;
}

void vmki_ephemerons_visit(vmki_gc *gc,
                           void (*visit)(void *context, uintptr_t ephemeron, uintptr_t key, uintptr_t value),
                           void *context)
{
    vmki_ephemerons *all = &gc->ephemerons;
    vmki_os_lock_acquire(&all->lock);
    for (size_t number = 1; number <= all->records.made; number++) {
        const pair *p = vmki_record_at(&all->records, number);
        if (p->record.object != 0)
            visit(context, p->record.object, p->key, p->value);
    }
    vmki_os_lock_release(&all->lock);
}

void vmki_ephemerons_fini(vmki_gc *gc)
{
    vmki_map_fini(&gc->ephemerons.keys);
    vmki_records_fini(&gc->ephemerons.records);
}
