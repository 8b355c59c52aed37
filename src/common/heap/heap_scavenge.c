/* SPDX-License-Identifier: MIT
 *
 * Giving memory back, chunk by chunk from the highest address down, since spans are placed from the lowest up: what
 * lies high is needed again last.
 *
 * How. Where memory is not promised but given at the touch, and discarding it is prompt, it is discarded: that splits
 * no mapping. Elsewhere (Windows, strict overcommit) the promise itself costs, and it is decommitted.
 *
 * What. A huge page of which a part was given back is a huge page no more, so whole ones are given back first, and
 * parts only when asked for, or by the policy once nothing near them has been freed for long.
 */
#include "common/heap/heap.h"

#include "common/base/check.h"
#include "common/heap/tools.h"
#include "common/vm/vm.h"

/* After so many intervals without a free in its chunk, memory is worth more to the system than a huge page to us. */
enum { COLD_TICKS = 16 };

/* --- how -------------------------------------------------------------------------------------------------------- */

/* Heap pages in a page of the system, which goes back whole or not at all. */
static size_t small_unit(void)
{
    return vmki_max(vmk_page_size() >> VMK_HEAP_PAGE_SHIFT, 1);
}

/* The first time, find out how: probing costs some forty system calls, so it is not done before. Answers the heap pages
 * in a huge page that is worth keeping whole; 0: there are none. */
static size_t method(vmki_heap *heap)
{
    vmki_heap_lock(heap);
    if (!heap->decided) {
        vmki_heap_unlock(heap); /* others may probe meanwhile, and come to the same */
        const vmk_caps *caps = vmki_vm_basics();
        const unsigned wanted = VMK_CAP_DISCARD_PROMPT | VMK_CAP_DISCARD_ZERO;
        size_t huge = caps->huge_page_size <= VMKI_CHUNK_SIZE ? caps->huge_page_size >> VMK_HEAP_PAGE_SHIFT : 0;
        vmki_heap_lock(heap);
        heap->discards = (heap->options.flags & VMK_HEAP_DECOMMIT) == 0 && (caps->features & wanted) == wanted &&
                         caps->overcommit != VMK_OVERCOMMIT_NEVER;
        heap->huge_pages = huge > small_unit() ? huge : 0;
        heap->decided = true;
    }
    size_t huge_pages = heap->huge_pages;
    vmki_heap_unlock(heap);
    return huge_pages;
}

/* Give back idle pages of one arena; false where the system refuses. */
static bool piece_release(vmki_heap *heap, vmki_arena *arena, size_t first, size_t count)
{
    vmk_region *region = vmki_arena_region(heap, arena);
    size_t offset = vmki_arena_offset(heap, arena, first), size = count << VMK_HEAP_PAGE_SHIFT;
    vmki_tools_open(region->base + offset, size); /* a model of a system does what the system does to it */
    vmk_status status = heap->discards ? vmk_discard(region, offset, size) : vmk_decommit(region, offset, size);
    if (heap->discards || status != VMK_OK)
        vmki_tools_close(region->base + offset, size);
    if (status != VMK_OK)
        return false;
    vmki_pages_assign(&heap->pages, VMKI_PAGE_HELD, first, count, false);
    vmki_pages_assign(&heap->pages, VMKI_PAGE_DIRTY, first, count, false);
    heap->idle -= count;
    heap->released += count;
    heap->released_total += count;
    return true;
}

/* The same for pages of several arenas in a row: no call may span two reservations. */
static size_t pages_release(vmki_heap *heap, size_t first, size_t count)
{
    size_t done = 0;
    while (done < count) {
        vmki_arena *arena = vmki_heap_arena_above(heap, first + done);
        size_t piece = vmki_min(count - done, arena->first + arena->pages - (first + done));
        if (!piece_release(heap, arena, first + done, piece))
            break;
        done += piece;
    }
    return done;
}

/* --- one chunk -------------------------------------------------------------------------------------------------- */

/* Where the whole chunk is free its mark bits are not needed either. If there is no memory to note it, they stay. */
static void marks_release(vmki_heap *heap, size_t chunk)
{
    size_t first = chunk << VMKI_CHUNK_SHIFT;
    const uint32_t *entries = vmk_table_at(&heap->spans, 0, first);
    size_t limit = heap->plan.sparse ? VMKI_CHUNK_PAGES : vmki_min(VMKI_CHUNK_PAGES, heap->view.limit - first);
    if (vmki_pages_all(&heap->pages, VMKI_PAGE_MARKS, false, first, VMKI_CHUNK_PAGES))
        return;
    for (size_t i = 0; i < limit; i++)
        if (entries[i] != 0)
            return;
    if (vmk_table_drop_range(&heap->bitmap, first, VMKI_CHUNK_PAGES) == VMK_OK)
        vmki_pages_assign(&heap->pages, VMKI_PAGE_MARKS, first, VMKI_CHUNK_PAGES, false);
}

/* Give back up to `most` idle pages of a chunk, in whole units. Under the lock. */
static size_t chunk_release(vmki_heap *heap, size_t chunk, size_t unit, size_t most)
{
    size_t first = chunk << VMKI_CHUNK_SHIFT, limit = first + VMKI_CHUNK_PAGES, length, done = 0;
    most = vmki_ceil(vmki_min(most, VMKI_CHUNK_PAGES), unit);
    while (done < most && vmki_pages_previous(&heap->pages, VMKI_PAGE_IDLE, first, &limit, &length)) {
        size_t low = vmki_ceil(limit, unit), high = vmki_floor(limit + length, unit);
        if (low >= high)
            continue;
        size_t wanted = vmki_min(high - low, most - done);
        size_t got = pages_release(heap, high - wanted, wanted);
        done += got;
        if (got < wanted)
            break;
    }
    if (done > 0)
        marks_release(heap, chunk);
    return done;
}

/* --- all chunks ------------------------------------------------------------------------------------------------- */

/* The chunk after the last that was ever grown into. */
static size_t chunks_end(const vmki_heap *heap)
{
    size_t end = 0;
    for (size_t i = 0; i < heap->arena_count; i++) {
        const vmki_arena *arena = vmki_heap_arenas(heap) + i;
        if (arena->grown != 0)
            end = arena->first + arena->grown;
    }
    return vmki_ceil(end, VMKI_CHUNK_PAGES) >> VMKI_CHUNK_SHIFT;
}

/* Give back up to `most` pages, in whole units, from chunks in which nothing was freed since the tick `before`. */
static size_t heap_release(vmki_heap *heap, size_t unit, size_t most, uint64_t before)
{
    size_t done = 0;
    vmki_heap_lock(heap);
    size_t chunk = chunks_end(heap);
    while (chunk-- > 0 && done < most && heap->idle > 0) {
        if (!vmki_heap_chunk_present(heap, chunk) || *vmki_pages_time(&heap->pages, chunk) >= before)
            continue;
        done += chunk_release(heap, chunk, unit, most - done);
        vmki_heap_unlock(heap); /* let others in */
        vmki_heap_lock(heap);
    }
    vmki_heap_unlock(heap);
    return done;
}

size_t vmk_heap_scavenge(vmk_heap *view, size_t most)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_scavenge: not a heap");
    vmki_os_error before = vmki_os_error_get();
    size_t pages = (most >> VMK_HEAP_PAGE_SHIFT) + ((most & (VMK_HEAP_PAGE_SIZE - 1)) != 0), done = 0;
    size_t huge = method(heap);
    if (huge != 0)
        done = heap_release(heap, huge, vmki_floor(pages, huge), UINT64_MAX);
    if (done < pages)
        done += heap_release(heap, small_unit(), pages - done, UINT64_MAX);
    vmki_os_error_set(before);
    return done << VMK_HEAP_PAGE_SHIFT;
}

/* --- the policy ------------------------------------------------------------------------------------------------- */

/* Is it time? Then it is the next tick, and *excess the idle pages that are more than are to be kept. */
static bool tick_due(vmki_heap *heap, uint64_t *tick, size_t *excess)
{
    uint64_t now = heap->options.clock(heap->options.clock_context);
    vmki_heap_lock(heap);
    /* Another thread may have looked at the clock later, and come first. */
    bool due = now > heap->last_tick && now - heap->last_tick >= heap->options.scavenge_interval;
    if (due) {
        heap->last_tick = now;
        *tick = heap->tick++;
        uint64_t keep = (uint64_t)heap->in_use * heap->options.keep_percent / 100;
        *excess = heap->idle > keep ? heap->idle - (size_t)keep : 0;
    }
    vmki_heap_unlock(heap);
    return due;
}

size_t vmk_heap_scavenge_tick(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_scavenge_tick: not a heap");
    uint64_t tick;
    size_t excess, done = 0;
    vmki_os_error before = vmki_os_error_get();
    if (!tick_due(heap, &tick, &excess) || excess == 0)
        return 0;
    size_t huge = method(heap);
    /* What was freed in the interval that ends now bears this tick's number: it is left alone. */
    if (huge != 0) {
        done = heap_release(heap, huge, vmki_floor(excess, huge), tick);
        if (done < excess && tick > COLD_TICKS)
            done += heap_release(heap, small_unit(), excess - done, tick - COLD_TICKS);
    } else {
        done = heap_release(heap, small_unit(), excess, tick);
    }
    vmki_os_error_set(before);
    return done << VMK_HEAP_PAGE_SHIFT;
}

/* --- a thread for it -------------------------------------------------------------------------------------------- */

static void scavenger(void *argument)
{
    vmki_heap *heap = argument;
    while (!vmki_os_event_wait(&heap->scavenger_stop, heap->options.scavenge_interval))
        (void)vmk_heap_scavenge_tick(&heap->view);
}

vmk_status vmk_heap_scavenger_start(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_scavenger_start: not a heap");
    vmk_status status = VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmki_os_lock_acquire(&heap->scavenger_lock);
    if (!heap->scavenger_runs) {
        vmki_os_event_reset(&heap->scavenger_stop);
        status = vmki_os_thread_start(&heap->scavenger, scavenger, heap);
        heap->scavenger_runs = status == VMK_OK;
    }
    vmki_os_lock_release(&heap->scavenger_lock);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmk_heap_scavenger_stop(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_require(view, "vmk_heap_scavenger_stop: not a heap");
    vmki_os_error before = vmki_os_error_get();
    vmki_os_lock_acquire(&heap->scavenger_lock);
    if (heap->scavenger_runs) {
        vmki_os_event_signal(&heap->scavenger_stop);
        vmki_os_thread_join(&heap->scavenger);
        heap->scavenger_runs = false;
    }
    vmki_os_lock_release(&heap->scavenger_lock);
    vmki_os_error_set(before);
}
