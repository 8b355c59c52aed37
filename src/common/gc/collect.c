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
    uint32_t epoch; /* of the heap, when the cycle was found to be due */
    vmk_gc_event event;
    void (*body)(vmki_gc *gc, void *argument); /* of vmki_gc_stopped */
    void *argument;
} cycle;

typedef struct marking {
    vmki_gc *gc;
    vmki_marker *marker;
} marking;

static void root_mark(void *context, const vmki_root *root)
{
    const marking *m = context;
    if (root->trace != NULL)
        root->trace(root->context, NULL, 0, vmki_mark_visitor(m->marker));
    else
        vmki_mark_range(m->marker, root->base, root->size, !vmki_root_ends(m->gc, root));
}

static void mark_all(vmki_gc *gc, vmk_gc_event *event)
{
    uint64_t start = vmki_os_clock();
    vmki_marker *marker = vmki_mark_begin(gc);
    vmki_roots_visit(gc, root_mark, &(marking){gc, marker});
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

/* What was allocated and freed up to now belongs to the past: before threads go on, or they would find a cycle due. */
static void counts_turn(vmki_gc *gc, vmk_gc_event *event)
{
    size_t allocated = VMKI_EXCHANGE(&gc->allocated, 0), freed = VMKI_EXCHANGE(&gc->freed_by_hand, 0);
    size_t before = gc->stats.live_bytes + allocated;
    event->before = before - vmki_min(before, freed);
    gc->allocated_before += allocated;
    gc->freed_before += freed;
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
        counts_turn(gc, &c->event);
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

/* After a big drop: what neither lives nor is needed until the next cycle goes back to the system. Less than that is
 * left where it is, for what is given back is faulted in again. */
static void memory_return(vmki_gc *gc, const vmk_gc_event *event)
{
    size_t needed;
    vmk_heap_stats heap;
    if (vmki_add_overflow(event->live_bytes + event->live_bytes / 4, event->next, &needed))
        return;
    if (event->heap_size / 2 > needed)
        (void)vmki_gc_slabs_sweep(gc, SIZE_MAX);
    vmk_heap_stats_now(gc->heap, &heap);
    if ((heap.in_use + heap.idle) / 2 > needed)
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

/* What the program is told and given when all is over. */
static void cycle_after(vmki_gc *gc, const vmk_gc_event *event)
{
    memory_return(gc, event);
    vmki_finalizers_wake(gc);
    VMKI_FETCH_ADD(&gc->pace.disabled, 1); /* what callbacks allocate does not collect */
    vmki_leaks_tell(gc);
    if (gc->options.on_event != NULL)
        gc->options.on_event(gc->options.on_event_context, event);
    VMKI_FETCH_ADD(&gc->pace.disabled, SIZE_MAX);
    if ((gc->flags & VMK_GC_VERIFY) != 0 && !vmki_gc_check(gc))
        vmki_misuse("vmk_gc: the heap is not as it should be", gc);
}

/* Somebody else's cycle may have been in between. */
static bool cycle_outdated(const cycle *c)
{
    vmk_gc_cause cause = c->event.cause, now;
    if (cause == VMK_GC_CAUSE_ASKED)
        return false;
    return c->gc->epoch != c->epoch ||
           ((cause == VMK_GC_CAUSE_GOAL || cause == VMK_GC_CAUSE_SOFT_LIMIT) && !vmki_pace_due(c->gc, &now));
}

static VMKI_COLD void cycle_run(cycle *c)
{
    vmki_gc *gc = c->gc;
    vmki_world_lock();
    bool outdated = c->body == NULL && cycle_outdated(c);
    if (!outdated)
        world_do(c);
    if (!outdated && c->body == NULL) {
        c->event.sweep_time = vmki_gc_sweep_time_take(gc);
        cycle_count(gc, &c->event);
    }
    vmki_world_unlock();
    if (!outdated && c->body == NULL)
        cycle_after(gc, &c->event);
}

static VMKI_COLD void cycle_begin(vmki_gc *gc, vmk_gc_cause cause, uint32_t epoch)
{
    cycle c = {.gc = gc, .epoch = epoch, .event = {.cause = cause}};
    cycle_run(&c);
}

static VMKI_COLD void stopped_begin(vmki_gc *gc, void (*body)(vmki_gc *gc, void *argument), void *argument)
{
    cycle c = {.gc = gc, .body = body, .argument = argument};
    cycle_run(&c);
}

/* These two have hardly a frame. */
void vmki_gc_cycle(vmki_gc *gc, vmk_gc_cause cause, uint32_t epoch)
{
    refuse_nested();
    vmki_world_note(VMKI_FRAME_ADDRESS());
    cycle_begin(gc, cause, epoch);
}

void vmki_gc_stopped(vmki_gc *gc, void (*body)(vmki_gc *gc, void *argument), void *argument)
{
    refuse_nested();
    vmki_world_note(VMKI_FRAME_ADDRESS());
    stopped_begin(gc, body, argument);
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
