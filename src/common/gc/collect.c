/* SPDX-License-Identifier: MIT
 *
 * The cycle. All that can be done before is: what the last one left to be swept is swept while threads run. Then they
 * are stopped, and in one go marked is what can be reached, decided what becomes of finalizable objects, weak
 * references and ephemerons, and the epoch turned, which makes everything that is not marked free.
 */
#include "common/gc/gc.h"

/* The thread that has stopped the world, while it has: it must not ask for a cycle. */
static uintptr_t stopper;

typedef struct cycle {
    vmki_gc *gc;
    vmk_gc_event event;
    void (*body)(vmki_gc *gc, void *argument); /* of vmki_gc_stopped */
    void *argument;
} cycle;

static void root_mark(void *context, const vmki_root *root)
{
    vmki_marker *marker = context;
    if (root->trace != NULL)
        root->trace(root->context, NULL, 0, vmki_mark_visitor(marker));
    else
        vmki_mark_range(marker, root->base, root->size, root->exact);
}

static void mark_all(vmki_gc *gc, vmk_gc_event *event)
{
    uint64_t start = vmki_os_clock();
    vmki_marker *marker = vmki_mark_begin(gc);
    vmki_roots_visit(gc, root_mark, marker);
    vmki_mark_drain(gc);
    uint64_t marked = vmki_os_clock();
    /* Short references go before finalizers are looked at, long ones after: what a finalizer will get to see is kept
     * alive by then. Ephemerons are looked at twice, for those that only finalizable objects reach. */
    vmki_ephemerons_mark(gc, marker);
    event->weak_cleared = vmki_ephemerons_clear(gc, false) + vmki_links_clear(gc, VMK_GC_SHORT);
    vmki_finalizers_mark(gc, marker);
    vmki_ephemerons_mark(gc, marker);
    event->weak_cleared += vmki_ephemerons_clear(gc, true) + vmki_links_clear(gc, VMK_GC_LONG);
    vmki_leaks_find(gc);
    vmki_mark_end(gc, event);
    event->mark_time = marked - start;
    event->end_time = vmki_os_clock() - marked;
    event->finalizable = gc->finalizers.waiting;
}

static void cycle_stopped(void *argument)
{
    cycle *c = argument;
    vmki_gc *gc = c->gc;
    bool cooperative = (gc->flags & VMK_GC_COOPERATIVE) != 0;
    uint64_t start = vmki_os_clock();
    c->event.threads = (unsigned)vmki_world_stop(cooperative, &c->event.stop_time);
    VMKI_STORE_RELAXED(&stopper, vmki_os_thread_id());
    vmki_gc_flush(gc);
    if (c->body != NULL) {
        c->body(gc, c->argument);
    } else {
        c->event.before =
            gc->stats.live_bytes + gc->allocated - vmki_min(gc->freed_by_hand, gc->stats.live_bytes + gc->allocated);
        mark_all(gc, &c->event);
        vmki_gc_slabs_turn(gc);
    }
    VMKI_STORE_RELAXED(&stopper, 0);
    vmki_world_resume();
    c->event.pause = vmki_os_clock() - start;
}

static void refuse_nested(void)
{
    if (VMKI_LOAD_RELAXED(&stopper) == vmki_os_thread_id())
        vmki_misuse("vmk_gc: called by what runs while threads are stopped", NULL);
}

/* What a cycle adds to the statistics. Under the world's lock. */
static void cycle_count(vmki_gc *gc, vmk_gc_event *event)
{
    vmk_gc_stats *stats = &gc->stats;
    vmk_heap_stats heap;
    gc->allocated_before += VMKI_EXCHANGE(&gc->allocated, 0);
    gc->freed_before += VMKI_EXCHANGE(&gc->freed_by_hand, 0);
    vmk_heap_stats_now(gc->heap, &heap);
    event->heap_size = heap.in_use;
    event->number = ++stats->cycles;
    vmki_pace_after(gc, event);
    stats->by_cause[event->cause]++;
    stats->pause_total += event->pause;
    stats->pause_max = event->pause > stats->pause_max ? event->pause : stats->pause_max;
    stats->stop_max = event->stop_time > stats->stop_max ? event->stop_time : stats->stop_max;
    stats->mark_total += event->mark_time;
    stats->sweep_total += event->sweep_time;
    stats->live_bytes = event->live_bytes;
    stats->live_objects = event->live_objects;
    stats->last = *event;
}

/* After a big drop: what neither lives nor is needed until the next cycle goes back to the system. */
static void memory_return(vmki_gc *gc, const vmk_gc_event *event)
{
    size_t needed;
    vmk_heap_stats heap;
    if (vmki_add_overflow(event->live_bytes + event->live_bytes / 4, event->next, &needed))
        return;
    if (event->heap_size > needed)
        (void)vmki_gc_slabs_sweep(gc, SIZE_MAX);
    vmk_heap_stats_now(gc->heap, &heap);
    if (heap.in_use + heap.idle > needed)
        (void)vmk_heap_scavenge(gc->heap, vmki_min(heap.idle, heap.in_use + heap.idle - needed));
}

/* Sweep, stop, do it, go on. Under the world's lock. */
static void world_do(cycle *c)
{
    (void)vmki_gc_slabs_sweep(c->gc, SIZE_MAX);
    if (c->body == NULL)
        vmki_markers_prepare(c->gc);
    vmki_os_with_libraries(cycle_stopped, c);
}

void vmki_gc_cycle(vmki_gc *gc, vmk_gc_cause cause, uint32_t epoch)
{
    cycle c = {.gc = gc, .event = {.cause = cause}};
    refuse_nested();
    vmki_world_lock();
    if (cause != VMK_GC_CAUSE_ASKED && gc->epoch != epoch) {
        vmki_world_unlock();
        return;
    }
    world_do(&c);
    c.event.sweep_time = gc->sweep_time;
    gc->sweep_time = 0;
    cycle_count(gc, &c.event);
    vmki_world_unlock();
    memory_return(gc, &c.event);
    vmki_finalizers_wake(gc);
    VMKI_FETCH_ADD(&gc->pace.disabled, 1); /* what callbacks allocate does not collect */
    vmki_leaks_tell(gc);
    if (gc->options.on_event != NULL)
        gc->options.on_event(gc->options.on_event_context, &c.event);
    VMKI_FETCH_ADD(&gc->pace.disabled, SIZE_MAX);
    if ((gc->flags & VMK_GC_VERIFY) != 0 && !vmki_gc_check(gc))
        vmki_misuse("vmk_gc: the heap is not as it should be", gc);
}

void vmki_gc_stopped(vmki_gc *gc, void (*body)(vmki_gc *gc, void *argument), void *argument)
{
    cycle c = {.gc = gc, .body = body, .argument = argument};
    refuse_nested();
    vmki_world_lock();
    world_do(&c);
    vmki_world_unlock();
}

void vmk_gc_collect(vmk_gc *view)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_collect");
    vmki_os_error before = vmki_os_error_get();
    vmki_gc_cycle(gc, VMK_GC_CAUSE_ASKED, 0);
    vmki_os_error_set(before);
}

size_t vmk_gc_trim(vmk_gc *view)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_trim");
    (void)vmki_gc_slabs_sweep(gc, SIZE_MAX);
    return vmk_heap_scavenge(gc->heap, SIZE_MAX);
}
