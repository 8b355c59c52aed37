/* SPDX-License-Identifier: MIT
 *
 * Misuse of collected heaps: each ends the program and says why. See test_deaths.c.
 */
#include <stdlib.h>

#include "common/gc/gc.h"
#include "support.h"

static vmk_gc *gc;
static void *slot;

static void make(unsigned flags)
{
    vmk_gc_options options = {.flags = flags};
    if (vmk_gc_create(&gc, &options) != VMK_OK)
        exit(SUPPORT_UNREADY);
}

static void *some(size_t size)
{
    make(0);
    void *object = vmk_gc_alloc(gc, size);
    if (object == NULL)
        exit(SUPPORT_UNREADY);
    return object;
}

static void destroy_twice(void)
{
    make(0);
    vmk_gc_destroy(gc);
    vmk_gc_destroy(gc);
}

static void collect_none(void)
{
    static vmk_gc none;
    vmk_gc_collect(&none);
}

static void alloc_null(void)
{
    (void)vmk_gc_alloc(NULL, 1);
}

static void free_twice(void)
{
    void *object = some(100);
    vmk_gc_free(gc, object);
    vmk_gc_free(gc, object);
}

static void free_large_twice(void)
{
    void *object = some((size_t)1 << 20);
    vmk_gc_free(gc, object);
    vmk_gc_free(gc, object);
}

static void free_inside(void)
{
    char *object = some(100);
    vmk_gc_free(gc, object + 16);
}

static void free_foreign(void)
{
    make(0);
    vmk_gc_free(gc, &gc);
}

static void free_dead(void)
{
    make(VMK_GC_NO_STACKS | VMK_GC_NO_STATIC);
    void *object = vmk_gc_alloc(gc, 100);
    vmk_gc_collect(gc);
    vmk_gc_free(gc, object);
}

static void free_other(void)
{
    void *object = some(100);
    make(0);
    vmk_gc_free(gc, object);
}

static void size_of_none(void)
{
    char *object = some(100);
    (void)vmk_gc_usable_size(gc, object + 1);
}

static void realloc_inside(void)
{
    char *object = some(100);
    (void)vmk_gc_realloc(gc, object + 1, 10);
}

static void realloc_part(void)
{
    make(0);
    vmk_gc_type *type;
    if (vmk_gc_type_create(gc, &(vmk_gc_layout){.size = 3 * sizeof(void *)}, &type) != VMK_OK)
        exit(SUPPORT_UNREADY);
    (void)vmk_gc_realloc(gc, vmk_gc_alloc_typed(gc, type, 1), 400 * sizeof(void *));
}

static void realloc_part_in_place(void)
{
    make(0);
    vmk_gc_type *type;
    if (vmk_gc_type_create(gc, &(vmk_gc_layout){.size = 3 * sizeof(void *)}, &type) != VMK_OK)
        exit(SUPPORT_UNREADY);
    void *object = vmk_gc_alloc_typed(gc, type, 1);
    (void)vmk_gc_realloc(gc, object, vmk_gc_usable_size(gc, object));
}

static void pin_none(void)
{
    char *object = some(100);
    VMKI_IGNORE(vmk_gc_pin(gc, object + 16));
}

static void unpin_unpinned(void)
{
    void *object = some(100);
    vmk_gc_unpin(gc, object);
}

static void remove_unknown(void)
{
    make(0);
    vmk_gc_roots_remove(gc, &slot);
}

static void remove_twice(void)
{
    make(0);
    VMKI_IGNORE(vmk_gc_slots_add(gc, &slot, 1));
    vmk_gc_roots_remove(gc, &slot);
    vmk_gc_roots_remove(gc, &slot);
}

static void trace_nothing(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    (void)context, (void)object, (void)size, (void)visitor;
}

static void remove_tracer(void)
{
    make(0);
    vmk_gc_tracer_remove(gc, trace_nothing, NULL);
}

static void enable_enabled(void)
{
    make(0);
    vmk_gc_enable(gc);
}

static void unregister_twice(void)
{
    make(0);
    vmk_gc_thread_unregister();
    vmk_gc_thread_unregister();
}

static void alloc_unregistered(void)
{
    make(0);
    vmk_gc_thread_unregister();
    (void)vmk_gc_alloc(gc, 1);
}

static void block_twice(void)
{
    make(0);
    vmk_gc_blocking_enter();
    vmk_gc_blocking_enter();
}

static void leave_only(void)
{
    make(0);
    vmk_gc_blocking_leave();
}

static void collect_in_trace(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    (void)context, (void)object, (void)size, (void)visitor;
    vmk_gc_collect(gc);
}

static void nested_cycle(void)
{
    make(VMK_GC_NO_STACKS | VMK_GC_NO_STATIC);
    VMKI_IGNORE(vmk_gc_tracer_add(gc, collect_in_trace, NULL));
    vmk_gc_collect(gc);
}

static void stack_in_use(void)
{
    static char low[4096];
    vmk_gc_stack *stack;
    make(0);
    if (vmk_gc_stack_register(&stack, low, sizeof low / 16 * 16) != VMK_OK)
        exit(SUPPORT_UNREADY);
    vmk_gc_stack_switch(stack);
    vmk_gc_stack_unregister(stack);
}

static void finalize(void *context, void *object)
{
    (void)context, (void)object;
}

static void finalizer_inside(void)
{
    char *object = some(100);
    VMKI_IGNORE(vmk_gc_finalizer_set(gc, object + 16, finalize, NULL, 0));
}

static void weak_to_none(void)
{
    make(0);
    (void)vmk_gc_weak_new(gc, &gc, VMK_GC_SHORT);
}

static void link_to_none(void)
{
    static uintptr_t link;
    make(0);
    VMKI_IGNORE(vmk_gc_link_add(gc, &link, &gc, VMK_GC_SHORT));
}

static void ephemeron_of_none(void)
{
    make(0);
    (void)vmk_gc_ephemeron_new(gc, &gc, NULL);
}

static const support_crimes crimes[] = {
    {"destroy-twice", destroy_twice, "vmkit: vmk_gc_destroy: not a collected heap: 0x"},
    {"collect-none", collect_none, "vmkit: vmk_gc_collect: not a collected heap: 0x"},
    {"alloc-null", alloc_null, "vmkit: vmk_gc_alloc: not a collected heap: "},
    {"free-twice", free_twice, "vmkit: vmk_gc_free: not an object of this heap, or freed before: 0x"},
    {"free-large-twice", free_large_twice, "vmkit: vmk_gc_free: not an object of this heap, or freed before: 0x"},
    {"free-inside", free_inside, "vmkit: vmk_gc_free: not an object of this heap, or freed before: 0x"},
    {"free-foreign", free_foreign, "vmkit: vmk_gc_free: not an object of this heap, or freed before: 0x"},
    {"free-dead", free_dead, "vmkit: vmk_gc_free: not an object of this heap, or freed before: 0x"},
    {"free-other", free_other, "vmkit: vmk_gc_free: not an object of this heap, or freed before: 0x"},
    {"size-of-none", size_of_none, "vmkit: vmk_gc_usable_size: not an object of this heap: 0x"},
    {"realloc-inside", realloc_inside, "vmkit: vmk_gc_realloc: not an object of this heap: 0x"},
    {"realloc-part", realloc_part, "vmkit: vmk_gc_realloc: not whole elements of the type: 0x"},
    {"realloc-part-in-place", realloc_part_in_place, "vmkit: vmk_gc_realloc: not whole elements of the type: 0x"},
    {"pin-none", pin_none, "vmkit: vmk_gc_pin: not an object: 0x"},
    {"unpin-unpinned", unpin_unpinned, "vmkit: vmk_gc_unpin: not pinned: 0x"},
    {"remove-unknown", remove_unknown, "vmkit: vmk_gc_roots_remove: not a root: 0x"},
    {"remove-twice", remove_twice, "vmkit: vmk_gc_roots_remove: not a root: 0x"},
    {"remove-tracer", remove_tracer, "vmkit: vmk_gc_tracer_remove: not added: "},
    {"enable-enabled", enable_enabled, "vmkit: vmk_gc_enable: not disabled: 0x"},
    {"unregister-twice", unregister_twice, "vmkit: vmk_gc_thread_unregister: not a registered thread"},
    {"alloc-unregistered", alloc_unregistered, "vmkit: vmk_gc_alloc: the thread is not registered: 0x"},
    {"block-twice", block_twice, "vmkit: vmk_gc_blocking_enter: it has been called before"},
    {"leave-only", leave_only, "vmkit: vmk_gc_blocking_leave: without vmk_gc_blocking_enter"},
    {"nested-cycle", nested_cycle, "vmkit: vmk_gc: called by what runs while threads are stopped"},
    {"stack-in-use", stack_in_use, "vmkit: vmk_gc_stack_unregister: a thread runs on the stack: 0x"},
    {"finalizer-inside", finalizer_inside, "vmkit: vmk_gc_finalizer_set: not an object of this heap: 0x"},
    {"weak-to-none", weak_to_none, "vmkit: vmk_gc_weak_new: not an object of this heap: 0x"},
    {"link-to-none", link_to_none, "vmkit: vmk_gc_link_add: not an object of this heap: 0x"},
    {"ephemeron-of-none", ephemeron_of_none, "vmkit: vmk_gc_ephemeron_new: the key is not an object of this heap: 0x"},
};

int main(int argc, char **argv)
{
    return support_deaths(argc, argv, "gc_deaths", crimes, sizeof crimes / sizeof crimes[0]);
}
