/* SPDX-License-Identifier: MIT
 *
 * What the suites that look at collected heaps share: heaps whose roots are known, nodes, and the answers to "why".
 */
#ifndef VMKIT_TESTS_GC_SEEN_H
#define VMKIT_TESTS_GC_SEEN_H

#include "common/gc/gc.h"
#include "object_kinds.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model/model.h"
#endif

/* --- heaps -------------------------------------------------------------------------------------------------------- */

#define EXACT (VMK_GC_NO_STACKS | VMK_GC_NO_STATIC) /* what lives is known exactly */

static inline vmk_gc *make(unsigned flags)
{
    static vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = flags, .heap = &below};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    return gc;
}

static inline void end(vmk_gc *gc)
{
    ck_assert(vmki_gc_check(gc));
    vmk_gc_destroy(gc);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

typedef struct node {
    struct node *left;
    struct node *right;
    size_t value;
} node;

static inline vmk_gc_type *node_type(vmk_gc *gc)
{
    static const size_t pointers[] = {3};
    static const vmk_gc_layout layout = {.name = "node", .size = sizeof(node), .pointers = pointers};
    vmk_gc_type *type;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
    return type;
}

static inline node *node_new(vmk_gc *gc, vmk_gc_type *type)
{
    node *made = vmk_gc_alloc_typed(gc, type, 1);
    ck_assert_ptr_nonnull(made);
    return made;
}

/* --- paths -------------------------------------------------------------------------------------------------------- */

enum { STEPS_MOST = 64 };

typedef struct path {
    size_t count;
    vmk_gc_step step[STEPS_MOST];
} path;

static inline void path_add(void *context, const vmk_gc_step *step)
{
    path *p = context;
    if (p->count < STEPS_MOST)
        p->step[p->count] = *step;
    p->count++;
}

static inline bool why(vmk_gc *gc, const void *address, path *p)
{
    vmk_status status = VMK_STATUS_COUNT;
    p->count = 0;
    bool found = vmk_gc_why(gc, address, path_add, p, &status);
    ck_assert_int_eq(status, VMK_OK);
    ck_assert(found == (p->count != 0));
    for (size_t i = 0; i < p->count && i < STEPS_MOST; i++) {
        const vmk_gc_step *step = &p->step[i];
        ck_assert(step->from == (i == 0 ? NULL : p->step[i - 1].object.base));
        if (i == 0 || step->at == NULL)
            continue;
        ck_assert((uintptr_t)step->at >= (uintptr_t)step->from);
        ck_assert((uintptr_t)step->at < (uintptr_t)step->from + p->step[i - 1].object.size);
    }
    return found;
}

#endif
