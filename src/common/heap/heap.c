/* SPDX-License-Identifier: MIT
 *
 * The life of a heap; the list of all heaps, which fork needs; looking at options.
 */
#include "common/heap/heap.h"

#include "common/base/check.h"
#include "common/heap/tools.h"
#include "common/vm/vm.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b48u) /* "vmkH" */

#define SCAVENGE_INTERVAL_DEFAULT ((uint64_t)1000000000)
enum { KEEP_PERCENT_DEFAULT = 10, KEEP_PERCENT_MAX = 1000000 };

/* --- all heaps -------------------------------------------------------------------------------------------------- */

static vmki_os_lock list_lock;
static vmki_heap *list; /* under the lock */
static bool prepared;   /* under the lock */

static void before_fork(void)
{
    vmki_os_lock_acquire(&list_lock);
    for (vmki_heap *heap = list; heap != NULL; heap = heap->next) {
        vmki_os_lock_acquire(&heap->scavenger_lock);
        vmki_os_lock_acquire(&heap->lock);
    }
}

static void after_fork(void)
{
    for (vmki_heap *heap = list; heap != NULL; heap = heap->next) {
        vmki_os_lock_release(&heap->lock);
        vmki_os_lock_release(&heap->scavenger_lock);
    }
    vmki_os_lock_release(&list_lock);
}

static void after_fork_in_child(void)
{
    for (vmki_heap *heap = list; heap != NULL; heap = heap->next)
        heap->scavenger_runs = false; /* a child has one thread */
    after_fork();
}

void vmki_heaps_prepare(void)
{
    vmki_os_lock_acquire(&list_lock);
    bool first = !prepared;
    prepared = true;
    vmki_os_lock_release(&list_lock); /* registering may itself wait for a fork, which waits for this lock */
    if (!first)
        return;
    vmki_vm_lock(); /* the vm layer registers first: its lock is the one taken last */
    vmki_vm_unlock();
    vmki_os_at_fork(before_fork, after_fork, after_fork_in_child);
}

static void list_add(vmki_heap *heap)
{
    vmki_heaps_prepare();
    vmki_os_lock_acquire(&list_lock);
    heap->next = list;
    if (list != NULL)
        list->previous = heap;
    list = heap;
    vmki_os_lock_release(&list_lock);
}

static void list_remove(vmki_heap *heap)
{
    vmki_os_lock_acquire(&list_lock);
    if (heap->previous != NULL)
        heap->previous->next = heap->next;
    else
        list = heap->next;
    if (heap->next != NULL)
        heap->next->previous = heap->previous;
    vmki_os_lock_release(&list_lock);
}

/* --- create ----------------------------------------------------------------------------------------------------- */

static uint64_t system_clock(void *context)
{
    (void)context;
    return vmki_os_clock();
}

static bool options_complete(vmk_heap_options *options)
{
    const unsigned known =
        VMK_HEAP_RANDOM_BASE | VMK_HEAP_DECOMMIT | VMK_HEAP_HARDENED | VMK_HEAP_NAMED | VMK_HEAP_SMALL_PAGES;
    size_t step;
    uint64_t most = vmki_min64(VMKI_WINDOW_MAX_PAGES << VMK_HEAP_PAGE_SHIFT, SIZE_MAX - VMKI_CHUNK_SIZE);
    if ((unsigned)options->layout > VMK_LAYOUT_32 || (options->flags & ~known) != 0 || options->window > most ||
        options->keep_percent > KEEP_PERCENT_MAX || vmki_ceil_overflow(options->step, VMKI_QUANTUM, &step))
        return false;
    options->step = step;
    options->window = vmki_ceil(options->window, VMKI_CHUNK_SIZE);
    if (options->clock == NULL)
        options->clock = system_clock;
    if (options->scavenge_interval == 0)
        options->scavenge_interval = SCAVENGE_INTERVAL_DEFAULT;
    if (options->keep_percent == 0)
        options->keep_percent = KEEP_PERCENT_DEFAULT;
    return true;
}

/* The tables, all in meta; none of them commits anything. They fail only where the plan is wrong. */
static void tables_init(vmki_heap *heap)
{
    const vmki_heap_plan *plan = &heap->plan;
    const struct {
        vmk_heap_part part;
        vmk_table *table;
    } tables[] = {{VMK_HEAP_REGIONS, &heap->arenas},
                  {VMK_HEAP_SPANS, &heap->spans},
                  {VMK_HEAP_RECORDS, &heap->records},
                  {VMK_HEAP_BITMAP, &heap->bitmap}};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        vmk_table_config config = vmki_heap_table_config(plan, tables[i].part);
        config.region = &heap->meta;
        config.region_offset = plan->offset[tables[i].part];
        config.region_size = plan->size[tables[i].part];
        VMKI_ASSERT(vmk_table_init(tables[i].table, &config) == VMK_OK);
    }
    VMKI_ASSERT(vmki_pages_init(&heap->pages, &heap->meta, plan->offset[VMK_HEAP_PAGES],
                                plan->window_pages >> VMKI_CHUNK_SHIFT, plan->sparse,
                                heap->view.origin >> VMK_HEAP_PAGE_SHIFT) == VMK_OK);
    heap->view.spans = vmk_table_at(&heap->spans, 0, 0);
    heap->view.classes = vmk_table_at(&heap->spans, 1, 0);
    heap->view.records = (vmk_span *)(void *)((unsigned char *)vmk_table_at(&heap->records, 0, 0) + VMKI_SKEW);
    heap->view.marks = vmk_table_at(&heap->bitmap, 0, 0);
    heap->owners = vmk_table_at(&heap->spans, 2, 0);
    if (plan->sparse) {
        heap->present = (uint32_t *)(void *)(heap->meta.base + sizeof(vmki_heap));
        heap->view.present = heap->present;
        heap->view.limit = plan->window_pages; /* everywhere, chunk by chunk as `present` says */
    }
}

/* Move into the header of what was reserved. On failure all is given back. */
static vmk_status heap_settle(vmki_heap *draft, const vmki_arena *arena, vmki_heap **result)
{
    _Static_assert(sizeof(vmki_heap) % sizeof(uint32_t) == 0, "the bits of present follow it");
    vmk_status status = vmk_commit(&draft->meta, 0, draft->plan.size[VMK_HEAP_HEADER]);
    if (status == VMK_OK) {
        vmki_heap *heap = (vmki_heap *)(void *)draft->meta.base;
        *heap = *draft;
        tables_init(heap);
        heap->records_made = 1;
        status = vmki_heap_arena_add(heap, arena);
        if (status == VMK_OK) {
            *result = heap;
            return VMK_OK;
        }
        draft->meta = heap->meta; /* it has committed pages by now */
    }
    vmk_region own = arena->own;
    if (own.base != NULL)
        vmk_release(&own);
    vmk_release(&draft->meta);
    return status;
}

vmk_status vmk_heap_create(vmk_heap **result, const vmk_heap_options *options)
{
    vmki_heap draft = {0}, *heap = NULL;
    vmki_arena arena;
    if (options != NULL)
        draft.options = *options;
    if (!options_complete(&draft.options))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_heap_place(&draft, &arena);
    if (status == VMK_OK)
        status = heap_settle(&draft, &arena, &heap);
    if (status != VMK_OK)
        return status;
    heap->last_tick = heap->options.clock(heap->options.clock_context);
    heap->objects.number = VMKI_NUMBER_NONE;
    heap->seal = SEAL_LIVE;
    vmki_tools_heap_begin(heap, sizeof *heap);
    list_add(heap);
    *result = &heap->view;
    vmki_os_error_set(before);
    return VMK_OK;
}

/* --- destroy ---------------------------------------------------------------------------------------------------- */

vmki_heap *vmki_heap_require(vmk_heap *view, const char *crime)
{
    vmki_heap *heap = vmki_heap_of(view);
    if (VMKI_UNLIKELY(heap == NULL || heap->seal != SEAL_LIVE))
        vmki_misuse(crime, view);
    return heap;
}

void vmk_heap_destroy(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_destroy: not a heap");
    vmk_heap_scavenger_stop(view);
    vmki_os_error before = vmki_os_error_get();
    if (heap->objects.end != NULL)
        heap->objects.end(heap);
    list_remove(heap);
    heap->seal = 0;
    for (size_t i = 0; i < heap->arena_count; i++) {
        vmki_arena *arena = vmki_heap_arenas(heap) + i;
        size_t first = arena->first << VMK_HEAP_PAGE_SHIFT;
        vmki_tools_open((const void *)(heap->view.origin + first), arena->grown << VMK_HEAP_PAGE_SHIFT);
        if (arena->own.base != NULL)
            vmk_release(&arena->own);
    }
    vmk_region meta = heap->meta; /* which the heap itself is in */
    vmki_tools_heap_end(heap);
    vmk_release(&meta);
    vmki_os_error_set(before);
}
