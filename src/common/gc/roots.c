/* SPDX-License-Identifier: MIT
 *
 * Roots: what the program names, kept in a table; and visiting all there are.
 *
 * Ranges and slots are found by their base, and the same base may be named more than once: the records of one base are
 * a chain, which the map knows the first of. The last that was added is removed first.
 */
#include "common/base/align.h"
#include "common/base/check.h"
#include "common/gc/gc.h"

enum { ROOTS_MAX = 1 << 24 };

/* A root that the program has named. */
typedef struct named {
    const void *base; /* of memory; for tracers their context */
    size_t size;
    vmk_gc_trace *trace;
    size_t next; /* of the same base, or of free ones; index + 1, 0: none */
    uint8_t kind;
    bool used;
} named;

static named *named_at(const vmki_roots *roots, size_t index)
{
    return vmk_table_at(&roots->table, 0, index);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* A free record. Under the lock, as all here. */
static vmk_status named_take(vmki_roots *roots, size_t *index)
{
    if (!roots->ready) {
        vmk_table_config config = {
            .capacity = ROOTS_MAX, .min_capacity = 1, .column_bits = {sizeof(named) * 8}, .name = "vmkit gc roots"};
        vmk_status status = vmk_table_init(&roots->table, &config);
        if (status != VMK_OK)
            return status;
        roots->ready = true;
    }
    if (roots->free_first != 0) {
        *index = roots->free_first - 1;
        roots->free_first = named_at(roots, *index)->next;
        return VMK_OK;
    }
    if (roots->count == roots->table.capacity)
        return VMK_ERR_COMMIT;
    vmk_status status = vmk_table_ensure(&roots->table, roots->count + 1);
    if (status == VMK_OK)
        *index = roots->count++;
    return status;
}

static void named_give(vmki_roots *roots, size_t index)
{
    named *one = named_at(roots, index);
    *one = (named){.next = roots->free_first};
    roots->free_first = index + 1;
}

static vmk_status memory_add(vmki_roots *roots, vmk_gc_root kind, const void *base, size_t size)
{
    size_t index;
    uintptr_t *first;
    vmk_status status = named_take(roots, &index);
    if (status != VMK_OK)
        return status;
    status = vmki_map_add(&roots->ranges, (uintptr_t)base, &first);
    if (status != VMK_OK) {
        named_give(roots, index);
        return status;
    }
    *named_at(roots, index) = (named){.base = base, .size = size, .next = *first, .kind = (uint8_t)kind, .used = true};
    *first = index + 1;
    return VMK_OK;
}

static bool memory_remove(vmki_roots *roots, const void *base)
{
    uintptr_t *first = vmki_map_find(&roots->ranges, (uintptr_t)base);
    if (first == NULL)
        return false;
    size_t index = *first - 1;
    *first = named_at(roots, index)->next;
    if (*first == 0)
        (void)vmki_map_remove(&roots->ranges, (uintptr_t)base);
    named_give(roots, index);
    return true;
}

static vmk_status tracer_add(vmki_roots *roots, vmk_gc_trace *trace, void *context)
{
    size_t index;
    vmk_status status = named_take(roots, &index);
    if (status == VMK_OK)
        *named_at(roots, index) = (named){.base = context, .trace = trace, .kind = VMK_GC_ROOT_TRACER, .used = true};
    return status;
}

static bool tracer_remove(vmki_roots *roots, vmk_gc_trace *trace, const void *context)
{
    for (size_t i = 0; i < roots->count; i++) {
        const named *one = named_at(roots, i);
        if (one->used && one->kind == VMK_GC_ROOT_TRACER && one->trace == trace && one->base == context) {
            named_give(roots, i);
            return true;
        }
    }
    return false;
}

/* --- the public part ---------------------------------------------------------------------------------------------- */

static vmk_status add(vmki_gc *gc, vmk_gc_root kind, const void *base, size_t size)
{
    size_t end;
    if (base == NULL || size == 0 || !vmki_is_aligned((uintptr_t)base, sizeof(void *)) ||
        vmki_add_overflow((uintptr_t)base, size, &end))
        return VMK_ERR_ARGUMENT;
    vmki_gc_acquire(&gc->roots.lock);
    vmk_status status = memory_add(&gc->roots, kind, base, vmki_floor(size, sizeof(void *)));
    vmki_gc_release(&gc->roots.lock);
    return status;
}

vmk_status vmk_gc_roots_add(vmk_gc *gc, const void *base, size_t size)
{
    return add(VMKI_GC_REQUIRE(gc, "vmk_gc_roots_add"), VMK_GC_ROOT_RANGE, base, size);
}

vmk_status vmk_gc_slots_add(vmk_gc *gc, void *const *slots, size_t count)
{
    size_t size;
    (void)VMKI_GC_REQUIRE(gc, "vmk_gc_slots_add");
    if (vmki_mul_overflow(count, sizeof *slots, &size))
        return VMK_ERR_ARGUMENT;
    return add(gc, VMK_GC_ROOT_SLOT, slots, size);
}

void vmk_gc_roots_remove(vmk_gc *view, const void *base)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_roots_remove");
    vmki_gc_acquire(&gc->roots.lock);
    bool removed = base != NULL && memory_remove(&gc->roots, base);
    vmki_gc_release(&gc->roots.lock);
    if (!removed)
        vmki_misuse("vmk_gc_roots_remove: not a root", base);
}

vmk_status vmk_gc_tracer_add(vmk_gc *view, vmk_gc_trace *trace, void *context)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_tracer_add");
    vmki_gc_acquire(&gc->roots.lock);
    vmk_status status = tracer_add(&gc->roots, trace, context);
    vmki_gc_release(&gc->roots.lock);
    return status;
}

void vmk_gc_tracer_remove(vmk_gc *view, vmk_gc_trace *trace, void *context)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_tracer_remove");
    vmki_gc_acquire(&gc->roots.lock);
    bool removed = tracer_remove(&gc->roots, trace, context);
    vmki_gc_release(&gc->roots.lock);
    if (!removed)
        vmki_misuse("vmk_gc_tracer_remove: not added", context);
}

vmk_status vmk_gc_pin(vmk_gc *view, void *object)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_pin");
    (void)vmki_gc_object_require(gc, object, "vmk_gc_pin: not an object");
    uintptr_t *times;
    vmki_gc_acquire(&gc->roots.lock);
    vmk_status status = vmki_map_add(&gc->roots.pins, (uintptr_t)object, &times);
    if (status == VMK_OK)
        ++*times;
    vmki_gc_release(&gc->roots.lock);
    return status;
}

void vmk_gc_unpin(vmk_gc *view, void *object)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_unpin");
    vmki_gc_acquire(&gc->roots.lock);
    uintptr_t *times = object != NULL ? vmki_map_find(&gc->roots.pins, (uintptr_t)object) : NULL;
    bool pinned = times != NULL;
    if (pinned && --*times == 0)
        (void)vmki_map_remove(&gc->roots.pins, (uintptr_t)object);
    vmki_gc_release(&gc->roots.lock);
    if (!pinned)
        vmki_misuse("vmk_gc_unpin: not pinned", object);
}

void vmki_pin_drop(vmki_gc *gc, uintptr_t object)
{
    if (VMKI_LOAD_RELAXED(&gc->roots.pins.count) == 0)
        return;
    vmki_gc_acquire(&gc->roots.lock);
    (void)vmki_map_remove(&gc->roots.pins, object);
    vmki_gc_release(&gc->roots.lock);
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

typedef struct visit {
    void (*visit)(void *context, const vmki_root *root);
    void *context;
} visit;

static void visit_thread(void *context, vmk_gc_root kind, const vmki_mutator *mutator, const void *base, size_t size)
{
    const visit *v = context;
    vmki_root root = {.kind = kind, .mutator = mutator, .base = base, .size = size};
    v->visit(v->context, &root);
}

static void visit_static(void *context, const void *base, size_t size)
{
    visit_thread(context, VMK_GC_ROOT_STATIC, NULL, base, size);
}

/* Only threads that aren't registered go on, and one of them may have the lock. */
static void visit_named(vmki_roots *roots, const visit *v)
{
    vmki_os_lock_acquire(&roots->lock);
    for (size_t i = 0; i < roots->count; i++) {
        const named *one = named_at(roots, i);
        if (!one->used)
            continue;
        vmki_root root = {.kind = (vmk_gc_root)one->kind, .exact = one->kind == VMK_GC_ROOT_SLOT, .trace = one->trace};
        if (one->trace != NULL) {
            root.context = (void *)(uintptr_t)one->base;
        } else {
            root.base = one->base;
            root.size = one->size;
        }
        v->visit(v->context, &root);
    }
    for (size_t i = 0; i < roots->pins.capacity; i++) {
        const vmki_map_entry *entry = &roots->pins.entries[i];
        vmki_root root = {.kind = VMK_GC_ROOT_PIN, .base = &entry->key, .size = sizeof entry->key, .exact = true};
        if (entry->key != 0)
            v->visit(v->context, &root);
    }
    vmki_os_lock_release(&roots->lock);
}

void vmki_roots_visit(vmki_gc *gc, void (*visitor)(void *context, const vmki_root *root), void *context)
{
    visit v = {visitor, context};
    if ((gc->flags & VMK_GC_NO_STACKS) == 0)
        vmki_world_visit(visit_thread, &v);
    if ((gc->flags & VMK_GC_NO_STATIC) == 0)
        vmki_os_static_data(visit_static, &v);
    visit_named(&gc->roots, &v);
    vmki_finalizers_visit(gc, visitor, context);
}

void vmki_roots_fini(vmki_gc *gc)
{
    vmki_roots *roots = &gc->roots;
    if (roots->ready)
        vmk_table_fini(&roots->table);
    roots->ready = false;
    vmki_map_fini(&roots->ranges);
    vmki_map_fini(&roots->pins);
}
