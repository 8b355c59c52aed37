/* SPDX-License-Identifier: MIT
 *
 * When to collect. The goal is a number of bytes to be allocated since the last cycle: a percentage of what was live
 * then, and no less than the least heap. Without a percentage it is as much as was live, and as much again up to a
 * bound: the smaller a heap, the more cycles cost beside the memory that fewer would take (M. Kirisame, P. Shenoy,
 * P. Panchekha, "Optimal heap limits for reducing browser memory use", 2022, has the argument for a square root). A
 * soft limit lowers it, down to what keeps collecting below about half of the time: if the last cycle took longer than
 * the program ran before it, the goal is doubled, up to what it would be without the limit. So a heap whose live
 * objects alone are over its soft limit grows past it, instead of collecting for ever.
 */
#include "common/gc/gc.h"

enum {
    GOAL_MORE_MOST = 64 << 20, /* bytes, where no percentage is set */
    MIN_HEAP_DEFAULT = 4 << 20,
    GOAL_LEAST = 256 << 10, /* under a soft limit, whatever it says */
    BARREN_DIVISOR = 50,    /* a cycle for memory that finds less than this part of the heap has found hardly any */
    BARREN_MOST = 3         /* such cycles, before allocations fail without another one */
};

static size_t goal_of_live(const vmki_pace *pace, size_t live)
{
    size_t least = pace->set.min_heap != 0 ? pace->set.min_heap : MIN_HEAP_DEFAULT;
    size_t goal;
    if (pace->set.goal_percent == 0)
        goal = live + vmki_min(live, GOAL_MORE_MOST);
    else if (vmki_mul_overflow(live / 100, pace->set.goal_percent, &goal))
        goal = SIZE_MAX / 2;
    return vmki_max(goal, least);
}

static void goal_set(vmki_pace *pace, size_t live)
{
    size_t goal = goal_of_live(pace, live), soft = pace->set.soft_limit;
    pace->soft = false;
    if (soft != 0) {
        size_t room = vmki_max(soft > live ? soft - live : 0, GOAL_LEAST);
        if (pace->floor > room)
            room = pace->floor;
        pace->soft = room < goal;
        goal = vmki_min(room, goal);
    }
    VMKI_STORE_RELAXED(&pace->goal, goal);
}

void vmki_pace_init(vmki_gc *gc, const vmk_gc_pace *set)
{
    gc->pace.set = *set;
    gc->pace.ended = vmki_os_clock();
    goal_set(&gc->pace, 0);
}

bool vmki_pace_due(const vmki_gc *gc, vmk_gc_cause *cause)
{
    if (VMKI_LIKELY(VMKI_LOAD_RELAXED(&gc->allocated) < VMKI_LOAD_RELAXED(&gc->pace.goal)))
        return false;
    *cause = gc->pace.soft ? VMK_GC_CAUSE_SOFT_LIMIT : VMK_GC_CAUSE_GOAL;
    return VMKI_LOAD_RELAXED(&gc->pace.disabled) == 0;
}

bool vmki_pace_worth(vmki_gc *gc)
{
    if (VMKI_LOAD_RELAXED(&gc->pace.barren) < BARREN_MOST)
        return true;
    VMKI_STORE_RELAXED(&gc->pace.barren, BARREN_MOST - 1); /* whoever tries again may have let go of something */
    return false;
}

void vmki_pace_after(vmki_gc *gc, vmk_gc_event *event)
{
    vmki_pace *pace = &gc->pace;
    uint64_t now = vmki_os_clock(), whole = now - pace->ended;
    size_t found = event->before > event->live_bytes ? event->before - event->live_bytes : 0;
    pace->ended = now;
    /* Half of the time and more was the collector's: fewer cycles. Less than a quarter: as the limit says. */
    if (event->pause > whole / 2)
        pace->floor = vmki_max(pace->floor, GOAL_LEAST) * 2;
    else if (event->pause < whole / 4)
        pace->floor /= 2;
    pace->floor = vmki_min(pace->floor, goal_of_live(pace, event->live_bytes));
    if (event->cause == VMK_GC_CAUSE_EXHAUSTED)
        pace->barren = found < event->before / BARREN_DIVISOR ? pace->barren + 1 : 0;
    else if (found >= event->before / BARREN_DIVISOR)
        pace->barren = 0;
    goal_set(pace, event->live_bytes);
    event->next = pace->goal;
}

void vmk_gc_pace_set(vmk_gc *view, const vmk_gc_pace *set)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_pace_set");
    vmki_heap *heap = vmki_heap_of(gc->heap);
    vmki_world_lock();
    gc->pace.set = *set;
    goal_set(&gc->pace, gc->stats.live_bytes);
    vmki_heap_lock(heap);
    heap->options.limit = set->hard_limit;
    vmki_heap_unlock(heap);
    vmki_world_unlock();
}

void vmk_gc_disable(vmk_gc *view)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_disable");
    VMKI_FETCH_ADD(&gc->pace.disabled, 1);
}

void vmk_gc_enable(vmk_gc *view)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_enable");
    if (VMKI_FETCH_ADD(&gc->pace.disabled, SIZE_MAX) == 0) {
        VMKI_FETCH_ADD(&gc->pace.disabled, 1);
        vmki_misuse("vmk_gc_enable: not disabled", gc);
    }
}
