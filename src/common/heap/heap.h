/* SPDX-License-Identifier: MIT
 *
 * What the files of the heap layer share.
 *
 *   heap_plan.c      from options and limits to sizes: what goes where in which layout
 *   heap_place.c     from a plan to address space: the hints, and the ladder of layouts
 *   heap.c           the life of a heap, all heaps, fork
 *   heap_grow.c      arenas: reserve, extend, grow
 *   heap_span.c      spans: alloc, free, resize, split
 *   heap_scavenge.c  giving memory back
 *   heap_stats.c     figures and walks
 *   heap_check.c     is it all as it should be?
 *   pages.c          which pages are free
 *
 * Invariants, under the heap's lock
 *   - An arena is a reservation, or the last part of the heap's only one. Its pages [first, first + grown) are
 *     published: each is part of one span in use, or free. Arenas are sorted by address and do not overlap.
 *   - The tables are ready for every published page, and became so before it was published.
 *   - spans[page] is the id of the live record whose range has the page in it, or 0.
 *   - in_use + idle + released is the number of published pages: not free, free and held, free and not held.
 * Readers without the lock see what was published with release: limit or present, then the entries.
 *
 * Locks, in the order in which they are taken: the list of heaps, a heap's scavenger lock, a heap's lock, the vm lock.
 */
#ifndef VMKI_HEAP_H
#define VMKI_HEAP_H

#include "common/base/os.h"
#include "common/heap/pages.h"

#define VMKI_CHUNK_SIZE ((size_t)VMKI_CHUNK_PAGES << VMK_HEAP_PAGE_SHIFT)

/* What reservations and growth are rounded to: Windows' granularity, and no less than any system's page but the
 * largest. */
#define VMKI_QUANTUM ((size_t)64 << 10)

/* As far as addresses of programs go on 64-bit systems that were not asked for more. */
#define VMKI_WINDOW_MAX_PAGES ((uint64_t)1 << (47 - VMK_HEAP_PAGE_SHIFT))

/* More regions than a heap that grows in proportion comes to. */
enum { VMKI_ARENAS_MAX = 256, VMKI_MARKS_GROUP = 64 };

/* What a heap is to be: computed before anything is reserved. */
typedef struct vmki_heap_plan {
    vmk_layout layout;
    bool sparse;         /* tables with holes */
    size_t window_pages; /* a multiple of a chunk */
    size_t arena_pages;  /* that may ever be reserved in it */
    size_t offset[VMK_HEAP_PARTS];
    size_t size[VMK_HEAP_PARTS]; /* address space; the arena's is 0 where it has reservations of its own */
    size_t total;
} vmki_heap_plan;

typedef struct vmki_arena {
    vmk_region own; /* base is NULL where the arena is part of the heap's reservation */
    size_t first;   /* pages, from the start of the window */
    size_t pages;
    size_t grown;
    bool huge; /* huge pages have been asked for, for what was not grown then */
} vmki_arena;

/* Heaps that may have objects at once have numbers: the default one 0, and the last number stands for having none. */
enum { VMKI_OBJECT_HEAPS = 128, VMKI_NUMBER_DEFAULT = 0, VMKI_NUMBER_NONE = VMKI_OBJECT_HEAPS - 1 };

struct vmki_heap;

/* What a heap has for the sake of its objects; see object.h. */
typedef struct vmki_objects {
    uint32_t number;               /* of the heap among those that have objects; atomic */
    uint32_t orphan_count;         /* written under the heap's lock, as is all below */
    uint32_t orphans[VMK_CLASSES]; /* lists, by ids */
    struct vmk_cache *caches;      /* that live */
    struct vmk_cache *spare;       /* to be used again */
    size_t cache_count;
    size_t spare_count;
    struct vmki_extent *huge; /* reservations of single objects; under the vm lock */
    size_t huge_pages;        /* of them; under the heap's lock */
    uint64_t secret;          /* of a hardened heap's canaries */
    /* Each in a reservation of its own, so that heaps without objects do without. */
    bool begun;      /* there are these; under the registry's lock */
    vmk_table bits;  /* by page. Column 0: `taken`, 1: `remote`; sparse */
    vmk_table slabs; /* by the id of a span, of vmki_slab */
    void (*end)(struct vmki_heap *heap);
} vmki_objects;

typedef struct vmki_heap {
    vmk_heap view;      /* must be first */
    uintptr_t *owners;  /* by page, like view.spans: which cache's stack frees there; see object.h */
    size_t dense_limit; /* view.limit where tables have no holes, else 0. Caches have copies of these */
    size_t *taken;      /* a bit for each 16 bytes, as in view.marks; see object.h */
    size_t *remote;
    uintptr_t seal;
    struct vmki_heap *next; /* in the list of all heaps */
    struct vmki_heap *previous;
    vmki_heap_plan plan;
    vmk_heap_options options; /* with defaults filled in */
    vmk_region meta;

    vmki_os_lock lock; /* all below */
    vmk_table spans;   /* by page. Column 0: the id of a span; 1: its class; 2: view of `owners` */
    vmk_table records; /* by id, of vmk_span */
    vmk_table bitmap;  /* by page, of its mark bits; sparse in all layouts, ready where VMKI_PAGE_MARKS says so */
    vmk_table arenas;  /* of vmki_arena */
    vmki_pages pages;
    uint32_t *present;
    size_t arena_count;
    size_t arena_reserved; /* pages */
    size_t recent_arena;   /* the one got last: the next region is asked for behind it */
    bool refused;          /* even the least region, the last time: a full heap asks again and again */
    uint32_t records_made; /* ids below have been handed out */
    uint32_t records_free; /* the first of a list threaded through `owner`; 0: none */
    size_t in_use;         /* pages */
    size_t in_use_peak;
    size_t idle;
    size_t released;
    size_t span_count;
    uint64_t grow_count;
    uint64_t released_total; /* pages */

    uint64_t last_tick; /* by the clock: when the policy was applied last */
    uint64_t tick;      /* how often; chunks remember it as the time of their last free */
    bool discards;      /* memory goes back by discard, not by decommit; decided at the first scavenge */
    bool decided;
    size_t huge_pages; /* heap pages in a huge page that is worth keeping whole, once decided; 0: none */

    vmki_os_lock scavenger_lock; /* of the thread's coming and going */
    vmki_os_thread scavenger;
    vmki_os_event scavenger_stop;
    bool scavenger_runs;

    vmki_objects objects;
} vmki_heap;

/* What mappings are called, see VMK_HEAP_NAMED. */
#define VMKI_NAME_HEAP "vmkit heap"
#define VMKI_NAME_SPANS "vmkit spans"
#define VMKI_NAME_OBJECTS "vmkit objects"
#define VMKI_NAME_HUGE "vmkit huge object"

/* vmk_span.state */
enum { VMKI_SPAN_LIVE = 0x5653, VMKI_SPAN_FREE = 0x6672 };

static inline vmki_heap *vmki_heap_of(vmk_heap *heap)
{
    return (vmki_heap *)(void *)heap;
}

/* The name of a mapping of a heap; NULL: it shall have none. */
static inline const char *vmki_heap_name(const vmki_heap *heap, const char *name)
{
    return (heap->options.flags & VMK_HEAP_NAMED) != 0 ? name : NULL;
}

/* --- heap_plan.c ------------------------------------------------------------------------------------------------ */

/* The config of a table of the heap: SPANS, RECORDS, BITMAP or REGIONS. */
vmk_table_config vmki_heap_table_config(const vmki_heap_plan *plan, vmk_heap_part part);

/* A plan for a window of that many pages, which are rounded up to chunks; arena_pages as they are. False where a size
 * overflows. */
bool vmki_heap_plan_make(vmki_heap_plan *plan, vmk_layout layout, uint64_t window_pages, uint64_t arena_pages);

/* The largest limited plan whose tables and arena together take no more than `budget` bytes of address space, and its
 * arena no more than `most`: with a window as large as the arena, or (centred) twice as large, for a first region that
 * may lie anywhere in it. False where the budget is too small for the tables and one quantum of arena. */
bool vmki_heap_plan_limited(vmki_heap_plan *plan, uint64_t budget, uint64_t most, bool centred);

/* --- heap_place.c ----------------------------------------------------------------------------------------------- */

/* Reserve what the options ask for, layout after layout: the heap's plan, its view's origin, meta (all of it reserved),
 * and the first arena, are filled in. */
vmk_status vmki_heap_place(vmki_heap *heap, vmki_arena *arena);

/* --- heap.c ----------------------------------------------------------------------------------------------------- */

/* Have this layer's part in fork registered, and that of those below it: for layers whose locks are taken earlier. */
void vmki_heaps_prepare(void);

/* The live heap, or misuse. */
vmki_heap *vmki_heap_require(vmk_heap *heap, const char *crime);

static inline void vmki_heap_lock(vmki_heap *heap)
{
    vmki_os_lock_acquire(&heap->lock);
}

static inline void vmki_heap_unlock(vmki_heap *heap)
{
    vmki_os_lock_release(&heap->lock);
}

/* May so many pages more be in use, as the caller wanted it limited? Under the lock. */
static inline bool vmki_heap_allows(const vmki_heap *heap, size_t pages)
{
    size_t limit = heap->options.limit >> VMK_HEAP_PAGE_SHIFT, used = heap->in_use + heap->objects.huge_pages;
    return heap->options.limit == 0 || (pages <= limit && used <= limit - pages);
}

/* So many bytes can't be had: ask the caller whether to try again. Without a lock. */
static inline bool vmki_heap_again(vmki_heap *heap, size_t size, vmk_status why)
{
    return heap->options.on_exhausted != NULL &&
           heap->options.on_exhausted(heap->options.on_exhausted_context, &heap->view, size, why);
}

/* --- heap_span.c ------------------------------------------------------------------------------------------------ */

/* vmk_span_alloc; `asks`: on_exhausted, before it fails. */
vmk_status vmki_span_alloc(vmki_heap *heap, size_t pages, size_t align, unsigned flags, bool asks, vmk_span **result);

/* --- heap_grow.c ------------------------------------------------------------------------------------------------ */

static inline vmki_arena *vmki_heap_arenas(const vmki_heap *heap)
{
    return vmk_table_at(&heap->arenas, 0, 0);
}

/* The reservation that an arena is in, and where in it a page is. */
vmk_region *vmki_arena_region(vmki_heap *heap, vmki_arena *arena);
size_t vmki_arena_offset(const vmki_heap *heap, const vmki_arena *arena, size_t page);

/* The first arena that ends behind the page, or NULL. */
vmki_arena *vmki_heap_arena_above(const vmki_heap *heap, size_t page);

/* Put an arena in its place in the list. VMK_ERR_MAPPINGS: there are too many. */
vmk_status vmki_heap_arena_add(vmki_heap *heap, const vmki_arena *arena);

/* Grow so that there is room for `count` pages in a row, aligned. */
vmk_status vmki_heap_grow(vmki_heap *heap, size_t count, size_t align);

/* Grow the arena that the page `end` is the first ungrown one of, by at least `count` pages. VMK_ERR_TAKEN: there is no
 * such arena, or it has not so many. */
vmk_status vmki_heap_grow_at(vmki_heap *heap, size_t end, size_t count);

/* The end of the published pages that go on without a gap from this one, which is published. */
size_t vmki_heap_grown_end(const vmki_heap *heap, size_t page);

/* Is there a table entry for the chunk? */
bool vmki_heap_chunk_present(const vmki_heap *heap, size_t chunk);

/* --- heap_check.c ----------------------------------------------------------------------------------------------- */

/* Is the whole heap as it should be? Slow; for tests, where nobody else uses the heap. */
bool vmki_heap_check(vmk_heap *heap);

#endif
