/* SPDX-License-Identifier: MIT
 *
 * From a plan to address space, falling back from one layout to the next.
 *
 * Where. On 64-bit systems a heap likes to lie where its addresses are recognised, by people and by a collector: of
 * their bytes 0x00 and 0xc0 are the highest, which no text in UTF-8 and few numbers have. (The choice of the Go
 * language, 2011; that one such address is not enough, since other tools like it too, was learned there as well.) Such
 * an address is only ever a hint: whatever the system answers is taken in the end.
 */
#include "common/heap/heap.h"

#include "common/base/check.h"
#include "common/vm/vm.h"

/* Attempts at addresses of our own choice before the system's is taken. */
enum { HINTS = 8 };

#define WINDOW_64_DEFAULT ((uint64_t)128 << 30)
#define WINDOW_64_DEFAULT_ON_32 ((uint64_t)512 << 20)
#define WINDOW_LIMITED_DEFAULT ((uint64_t)4 << 30) /* on 32-bit systems it becomes half of that */
#define WINDOW_32 ((uint64_t)4 << 30)
#define FIRST_REGION_32 ((size_t)512 << 20)
#define RANDOM_BASES ((uint64_t)1 << 46) /* below this on systems of 47 bits; others refuse and are asked anew */

/* --- one reservation -------------------------------------------------------------------------------------------- */

/* The i-th address to try for a reservation of that size; 0: leave it to the system. */
static uintptr_t hint_of(const vmk_heap_options *options, unsigned i, uint64_t size)
{
    if (options->hint != 0)
        return i == 0 ? vmki_floor(options->hint, VMKI_CHUNK_SIZE) : 0;
    if (sizeof(uintptr_t) < 8 || i >= HINTS)
        return 0;
    if ((options->flags & VMK_HEAP_RANDOM_BASE) == 0)
        return (uintptr_t)(((uint64_t)i << 40) | ((uint64_t)0xc0 << 32));
    if (size >= RANDOM_BASES / 2)
        return 0;
    uint64_t address = vmki_os_random() % (RANDOM_BASES - size);
    return (uintptr_t)address & ~(uintptr_t)(VMKI_CHUNK_SIZE - 1);
}

/* Reserve at one of the hints, or else where the system likes; *hinted tells which. */
static vmk_status reserve_hinted(const vmki_heap *heap, size_t size, const char *name, vmk_region *region, bool *hinted)
{
    const vmk_heap_options *options = &heap->options;
    for (unsigned i = 0;; i++) {
        uintptr_t hint = hint_of(options, i, size);
        vmk_reserve_options how = {
            .hint = (const void *)hint, .align = VMKI_CHUNK_SIZE, .name = vmki_heap_name(heap, name)};
        vmk_status status = vmk_reserve(region, size, &how);
        if (status != VMK_OK)
            return status;
        *hinted = hint != 0 && (uintptr_t)region->base == hint;
        if (*hinted || hint == 0 || hint_of(options, i + 1, size) == 0)
            return VMK_OK; /* what the system chose instead of the last hint is as good as any */
        vmk_release(region);
    }
}

/* --- the limits ------------------------------------------------------------------------------------------------- */

/* How many bytes of address space, and of memory, the process may still take. `all`: look at files, too. */
static void budget_now(bool all, uint64_t *address_space, uint64_t *memory)
{
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmk_usage usage = {0};
    if (all)
        vmki_os_limits(&limits);
    else
        vmki_os_own_limits(&limits);
    bool limited = limits.address_space != VMK_UNLIMITED || limits.data != VMK_UNLIMITED;
    if (limited && vmki_os_usage(&usage) != VMK_OK)
        usage = (vmk_usage){0};
    *address_space = limits.address_space == VMK_UNLIMITED        ? VMK_UNLIMITED
                     : limits.address_space > usage.address_space ? limits.address_space - usage.address_space
                                                                  : 0;
    *memory = limits.data == VMK_UNLIMITED ? VMK_UNLIMITED : limits.data > usage.data ? limits.data - usage.data : 0;
    *memory = vmki_min64(*memory, limits.memory);
}

/* --- the layouts ------------------------------------------------------------------------------------------------ */

static uint64_t window_64(const vmk_heap_options *options)
{
    if (options->window != 0)
        return options->window;
    if (sizeof(uintptr_t) < 8)
        return WINDOW_64_DEFAULT_ON_32;
    uint64_t memory = vmki_min64(vmki_os_physical_memory(), (uint64_t)1 << 44);
    uint64_t window = WINDOW_64_DEFAULT;
    while (window < 4 * memory)
        window *= 2;
    return window;
}

/* Everything at once. */
static vmk_status place_64(vmki_heap *heap, vmki_arena *arena)
{
    bool hinted;
    if (!vmki_heap_plan_make(&heap->plan, VMK_LAYOUT_64, window_64(&heap->options) >> VMK_HEAP_PAGE_SHIFT, SIZE_MAX))
        return VMK_ERR_ADDRESS_SPACE;
    vmk_status status = reserve_hinted(heap, heap->plan.total, VMKI_NAME_HEAP, &heap->meta, &hinted);
    if (status != VMK_OK)
        return status;
    heap->view.origin = (uintptr_t)heap->meta.base + heap->plan.offset[VMK_HEAP_ARENA];
    *arena = (vmki_arena){.pages = heap->plan.window_pages};
    return VMK_OK;
}

/* The first region is there; put the window around it, and reserve the tables. */
static vmk_status place_around(vmki_heap *heap, vmki_arena *arena, bool hinted)
{
    uint64_t base = (uintptr_t)arena->own.base, window = (uint64_t)heap->plan.window_pages << VMK_HEAP_PAGE_SHIFT;
    /* Of all addresses, where that can be said; a 32-bit program may get regions up to the last page but one. */
    uint64_t end = (uint64_t)UINTPTR_MAX - (VMKI_CHUNK_SIZE - 1) + (sizeof(uintptr_t) < 8 ? VMKI_CHUNK_SIZE : 0);
    uint64_t origin = base & ~(uint64_t)(VMKI_CHUNK_SIZE - 1);
    if (!hinted) /* the next regions may lie below as well as above */
        origin = origin > window / 2 ? (origin - window / 2) & ~(uint64_t)(VMKI_CHUNK_SIZE - 1) : 0;
    if (window > end) /* a 32-bit system, and all of it */
        origin = 0;
    else if (origin > end - window)
        origin = end - window;
    arena->first = (size_t)((base - origin) >> VMK_HEAP_PAGE_SHIFT);
    arena->pages = arena->own.size >> VMK_HEAP_PAGE_SHIFT;
    heap->view.origin = (uintptr_t)origin;
    vmk_reserve_options how = {.name = vmki_heap_name(heap, VMKI_NAME_HEAP)};
    return vmk_reserve(&heap->meta, heap->plan.total, &how);
}

/* A first region of `size` or less, and everything else. */
static vmk_status place_in_steps(vmki_heap *heap, vmki_arena *arena, size_t size, bool hinted_only)
{
    vmk_status status;
    do {
        bool hinted;
        size = vmki_max(vmki_floor(size, VMKI_QUANTUM), VMKI_QUANTUM);
        status = reserve_hinted(heap, size, VMKI_NAME_SPANS, &arena->own, &hinted);
        if (status == VMK_OK) {
            status = hinted || !hinted_only ? place_around(heap, arena, hinted) : VMK_ERR_TAKEN;
            if (status == VMK_OK)
                return VMK_OK;
            vmk_release(&arena->own);
            *arena = (vmki_arena){0};
        }
        size /= 2;
    } while (status == VMK_ERR_ADDRESS_SPACE && size >= VMKI_QUANTUM);
    return status;
}

/* With a window as large as the arena can get, where a hint was good; else with one that has room on both sides. */
static vmk_status place_limited(vmki_heap *heap, vmki_arena *arena)
{
    uint64_t address_space, memory;
    budget_now(true, &address_space, &memory);
    uint64_t budget = vmki_min64(address_space, memory);
    uint64_t most = heap->options.window;
    if (most == 0)
        most = budget != VMK_UNLIMITED ? budget : WINDOW_LIMITED_DEFAULT;
    vmk_status status = VMK_ERR_ADDRESS_SPACE;
    for (int centred = sizeof(uintptr_t) < 8; centred < 2; centred++) {
        if (!vmki_heap_plan_limited(&heap->plan, budget, most, centred != 0))
            return VMK_ERR_ADDRESS_SPACE;
        /* A thirty-second at a time: the rest of the program has the rest, until the heap needs it. */
        size_t arena_size = heap->plan.arena_pages * VMK_HEAP_PAGE_SIZE;
        size_t first = vmki_max(arena_size / 32, vmki_min(arena_size, 4 * VMKI_QUANTUM));
        status = place_in_steps(heap, arena, first, centred == 0);
        if (status != VMK_ERR_TAKEN)
            break;
    }
    return status;
}

static vmk_status place_32(vmki_heap *heap, vmki_arena *arena)
{
    if (!vmki_heap_plan_make(&heap->plan, VMK_LAYOUT_32, WINDOW_32 >> VMK_HEAP_PAGE_SHIFT, SIZE_MAX))
        return VMK_ERR_ADDRESS_SPACE;
    return place_in_steps(heap, arena, FIRST_REGION_32, false);
}

/* --- the ladder ------------------------------------------------------------------------------------------------- */

/* Do the limits leave room for the layout that takes most? Half of the address space is the program's. */
static bool limits_allow_64(const vmk_heap_options *options)
{
    uint64_t address_space, memory;
    vmki_heap_plan plan;
    budget_now(false, &address_space, &memory);
    if (address_space == VMK_UNLIMITED && memory == VMK_UNLIMITED)
        return true;
    return vmki_heap_plan_make(&plan, VMK_LAYOUT_64, window_64(options) >> VMK_HEAP_PAGE_SHIFT, SIZE_MAX) &&
           plan.total <= address_space / 2 && plan.size[VMK_HEAP_ARENA] <= memory;
}

static vmk_status place_as(vmki_heap *heap, vmki_arena *arena, vmk_layout layout)
{
    *arena = (vmki_arena){0};
    switch (layout) {
    case VMK_LAYOUT_64:
        return place_64(heap, arena);
    case VMK_LAYOUT_LIMITED:
        return place_limited(heap, arena);
    default:
        return place_32(heap, arena);
    }
}

vmk_status vmki_heap_place(vmki_heap *heap, vmki_arena *arena)
{
    static const vmk_layout orders[][3] = {{VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32},
                                           {VMK_LAYOUT_LIMITED, VMK_LAYOUT_32, VMK_LAYOUT_64},
                                           {VMK_LAYOUT_32, VMK_LAYOUT_LIMITED, VMK_LAYOUT_64}};
    if (heap->options.layout != VMK_LAYOUT_AUTO)
        return place_as(heap, arena, heap->options.layout);
    bool unlimited = limits_allow_64(&heap->options);
    bool narrow = sizeof(uintptr_t) < 8;
    const vmk_layout *order = orders[unlimited ? (narrow ? 2 : 0) : 1];
    vmk_status status = VMK_ERR_ADDRESS_SPACE;
    for (unsigned i = 0; i < (narrow || !unlimited ? 2 : 3); i++) {
        status = place_as(heap, arena, order[i]);
        if (status == VMK_OK || status == VMK_ERR_ARGUMENT)
            break;
    }
    return status;
}
