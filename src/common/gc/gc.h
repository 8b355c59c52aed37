/* SPDX-License-Identifier: MIT
 *
 * What the files of the collector share.
 *
 *   world.h      threads: what they have, and how they are stopped
 *   world.c      the world's lock; threads come and go; fork
 *   world_stop.c stopping, going on, blocking
 *   stack.c      what was in registers; stacks of coroutines; visiting what threads have
 *   gc.c         the life of a collected heap; its types; caches of threads; fork
 *   alloc.c      allocating: the public functions, and what every allocation runs through
 *   slab.c       slabs: taking free slots by words of bits, sweeping lazily
 *   large.c      objects that are spans of their own
 *   pace.c       when to collect
 *   collect.c    the cycle, from stopping the world to the event
 *   roots.c      what the program names; visiting all roots
 *   mark.c       marking: what a word points to, scanning objects, the ring, pages by density
 *   marker.c     the threads that mark: their stacks, stealing, and when all is marked
 *   map.c        a map from addresses to words; records.c: records by number, and chains of them
 *   finalize.c   finalizers
 *   weak.c       links and weak references
 *   ephemeron.c  ephemerons
 *   see.c        statistics, walks
 *   refs.c       the references of an object, one by one, for why.c and dump.c
 *   why.c        the path that keeps an object alive
 *   dump.c       a heap as text
 *   leak.c       sites, and what was never freed
 *   gc_check.c   is it all as it should be?
 *
 * Slabs. Objects of up to 32 KiB lie in slabs: spans of a power of two of bytes, aligned to it, cut into slots of one
 * class. All slots of a slab belong to one bin: a kind (leaf, conservative, or a type) and a class. The byte that the
 * heap keeps for each page says kind and class, so that from any word to the base of its object it takes one load that
 * depends on the word. Larger objects are spans of their own.
 *
 * Bits. Two for each 16 bytes of the window, meant by the first granule of a slot: `taken` says that it is an object,
 * `marks` (the heap's bitmap) that the running cycle has reached it. Sweeping is taken &= marks, marks = 0, word by
 * word. A slab whose epoch is not the heap's has not been swept since the last cycle: an object there is one only if it
 * is marked too.
 *
 * Invariants
 *   - While a cycle marks, all slabs are swept (so all marks were 0), no cache has a slab, and every taken bit is an
 *     object's.
 *   - A slab that a cache has (OWNED) is swept. The slots of the cache's word whose bit in `free` is set are taken, but
 *     no objects; all others that are taken are objects.
 *   - A slab is in the list of its bin: before the bin's cursor what has been looked at in this epoch, from the cursor
 * on what may have free slots.
 */
#ifndef VMKI_GC_H
#define VMKI_GC_H

#include "common/base/check.h"
#include "common/gc/map.h"
#include "common/gc/world.h"
#include "common/heap/class.h"
#include "common/heap/heap.h"

enum vmki_gc_kind { VMKI_LEAF, VMKI_CONSERVATIVE, VMKI_TYPED, VMKI_KINDS };

enum {
    VMKI_GC_BINS_FIXED = 2 * VMK_CLASSES, /* leaves by class, then conservative ones; those of types follow */
    VMKI_GC_BINS_MAX = 8192,
    VMKI_GC_TYPES_MAX = 4000,
    VMKI_GC_MAGIC_SHIFT = 31
};

/* What a page's class byte stands for; 0: no page of objects. Static, filled in once. */
typedef struct vmki_gc_code {
    uint32_t magic;    /* a granule's number in its slab x magic >> VMKI_GC_MAGIC_SHIFT is its slot's number */
    uint32_t granules; /* of a slot. 0: large */
    uint32_t size;
    uint32_t capacity; /* slots of a slab */
    uint8_t shift;     /* a slab has so many bytes, as a power of two */
    uint8_t kind;
    uint8_t size_class; /* 0: large */
} vmki_gc_code;

extern vmki_gc_code vmki_gc_codes[256];

static inline uint8_t vmki_gc_code_of(unsigned kind, unsigned size_class)
{
    return (uint8_t)(1 + kind * VMK_CLASSES + size_class);
}

struct vmk_gc_type {
    char name[32];
    size_t words;        /* of an element */
    size_t map_word;     /* the map where words fit in one */
    const size_t *map;   /* NULL: leaf, or traced */
    vmk_gc_trace *trace; /* or NULL */
    void *trace_context;
    bool leaf;                  /* neither: its objects are of the kind VMKI_LEAF */
    uint16_t bins[VMK_CLASSES]; /* 0: none yet */
};

typedef struct vmki_gc_bin {
    vmk_gc_type *type; /* NULL: not typed */
    uint8_t code;
    uint32_t first; /* slabs, by id, 0: none */
    uint32_t last;
    uint32_t cursor; /* 0: all have been looked at */
} vmki_gc_bin;

enum vmki_gc_slab_state { VMKI_SLAB_NONE, VMKI_SLAB_IDLE, VMKI_SLAB_OWNED };

/* By the id of a span. A large object's too. */
typedef struct vmki_gc_slab {
    uint32_t next; /* in the bin's list */
    uint32_t previous;
    uint32_t epoch;
    uint32_t freed; /* by hand since it was looked at last; atomic */
    uint16_t bin;
    uint8_t state;
    bool fresh; /* what was never taken in it is zero */
} vmki_gc_slab;

/* What a thread has of a bin: a slab, and the free slots of one word of its bits. */
typedef struct vmki_gc_run {
    size_t free;
    unsigned char *base; /* of the word's first granule */
    uint32_t slab;       /* 0: none */
    uint32_t word;       /* the next one to look at */
    uint32_t phase;      /* where slots begin in it, see class.h */
    uint32_t next;       /* of the cache's runs that have a slab: bin + 1; 0: the last */
} vmki_gc_run;

typedef struct vmki_gc_cache {
    vmki_gc_run *runs;
    uint32_t bins; /* so many are ready */
    uint32_t active;
    size_t allocated; /* bytes in slots taken, not yet told to the heap */
    vmk_table table;
    struct vmki_gc_cache *next; /* of the heap's, live or spare */
    struct vmki_gc_cache *previous;
    vmki_mutator *mutator;
} vmki_gc_cache;

/* Memory of some caches: never given back while the heap lives. */
typedef struct vmki_gc_block {
    vmk_region region; /* which it lies in */
    struct vmki_gc_block *next;
    size_t count; /* of caches that were made */
    vmki_gc_cache caches[];
} vmki_gc_block;

typedef struct vmki_marker vmki_marker;

typedef struct vmk_gc vmki_gc;

/* Each module's own part; what is in it is that module's business. */
#include "common/gc/parts.h"

struct vmk_gc {
    uintptr_t seal;
    uint32_t number;
    unsigned flags;
    bool slow; /* every allocation has more to do: STRESS, SITES */
    vmk_heap *heap;
    size_t *taken; /* a bit for each 16 bytes of the window, as the heap's marks */
    size_t *marks;
    vmki_gc_slab *slabs; /* by the id of a span */
    vmki_gc_bin *bins;
    uintptr_t origin; /* of the heap's window */
    uint32_t epoch;
    vmk_gc_options options;
    struct vmk_gc *next; /* of all; under the world's lock */

    vmki_os_lock lock; /* all below: slabs, bins, caches */
    vmk_table taken_table;
    vmk_table slab_table;
    vmk_table bin_table;
    vmk_table type_table;
    struct vmki_gc_block *blocks; /* memory of caches */
    vmk_gc_type *own;             /* of the collector's own objects: leaves */
    size_t bin_count;
    size_t type_count;
    vmki_gc_cache *caches;
    vmki_gc_cache *spare;
    uint32_t sweep_next;  /* the slab that a sweep of all goes on with */
    uint32_t sweep_limit; /* where it ends: ids from there on are younger */
    uint32_t slab_limit;  /* ids that ever were slabs are below */
    uint64_t sweep_time;
    unsigned sweep_count;      /* of slabs, one by one: some are timed */
    size_t freed_by_hand;      /* bytes; atomic, as the next */
    size_t allocated;          /* bytes since the last cycle */
    uint64_t allocated_before; /* up to then */
    uint64_t freed_before;

    vmki_pace pace;
    vmki_roots roots;
    vmki_marking marking;
    vmki_finalizers finalizers;
    vmki_links links;
    vmki_ephemerons ephemerons;
    vmki_leaks leaks;
    vmk_gc_stats stats; /* what cycles count; under the world's lock */
};

/* --- from words to objects ---------------------------------------------------------------------------------------- */

/* Where in the bits a granule is. */
static inline size_t vmki_gc_granule(const vmki_gc *gc, uintptr_t address)
{
    return (address - gc->origin) >> VMKI_GRANULE_SHIFT;
}

static inline bool vmki_gc_bit(const size_t *bits, size_t granule)
{
    return (VMKI_LOAD_RELAXED(&bits[granule / VMKI_WORD_BITS]) >> (granule % VMKI_WORD_BITS) & 1) != 0;
}

/* The class byte of the page that a word points into, if that is a page of objects, else 0. */
static inline uint8_t vmki_gc_page_code(const vmki_gc *gc, uintptr_t word)
{
    const vmk_heap *heap = gc->heap;
    size_t page = (word - gc->origin) >> VMK_HEAP_PAGE_SHIFT;
    if (page >= VMK_LOAD_ACQUIRE(&heap->limit))
        return 0;
    if (heap->present != NULL && (VMK_LOAD_ACQUIRE_32(&heap->present[page >> 14]) >> (page >> 9 & 31) & 1) == 0)
        return 0;
    return VMKI_LOAD_RELAXED(&heap->classes[page]);
}

/* The start of the slot of a slab that a word points into, where its page has this code (of a small class); 0 for what
 * is left over at a slab's end. */
static inline uintptr_t vmki_gc_slot(const vmki_gc_code *code, uintptr_t word)
{
    uintptr_t slab = word & ~(((uintptr_t)1 << code->shift) - 1);
    uint32_t slot = (uint32_t)((((uint64_t)(word - slab) >> VMKI_GRANULE_SHIFT) * code->magic) >> VMKI_GC_MAGIC_SHIFT);
    return slot < code->capacity ? slab + (uintptr_t)slot * code->size : 0;
}

/* The start of the slot or large object that a word points into, 0 if none; *code: its page's. It need not be taken.
 * Only for what stays: the world is stopped, or the caller knows of the object. */
static inline uintptr_t vmki_gc_find(const vmki_gc *gc, uintptr_t word, uint8_t *code)
{
    *code = vmki_gc_page_code(gc, word);
    if (*code == 0)
        return 0;
    const vmki_gc_code *c = &vmki_gc_codes[*code];
    if (c->size_class != 0)
        return vmki_gc_slot(c, word);
    return (uintptr_t)vmk_span_of(gc->heap, (const void *)word)->base;
}

/* While the world is stopped: the object that a word points into, or 0. */
static inline uintptr_t vmki_gc_object(const vmki_gc *gc, uintptr_t word, uint8_t *code)
{
    uintptr_t base = vmki_gc_find(gc, word, code);
    return base != 0 && vmki_gc_bit(gc->taken, vmki_gc_granule(gc, base)) ? base : 0;
}

/* While the world is stopped and marking has ended: has it been reached? */
static inline bool vmki_gc_marked(const vmki_gc *gc, uintptr_t base)
{
    return vmki_gc_bit(gc->marks, vmki_gc_granule(gc, base));
}

static inline vmki_gc_slab *vmki_gc_slab_of(const vmki_gc *gc, uintptr_t base)
{
    return &gc->slabs[vmk_span_of(gc->heap, (const void *)base)->id];
}

/* Usable bytes of an object whose page has this code. */
static inline size_t vmki_gc_size(const vmki_gc *gc, uintptr_t base, uint8_t code)
{
    const vmki_gc_code *c = &vmki_gc_codes[code];
    if (c->size_class != 0)
        return c->size;
    return vmk_span_of(gc->heap, (const void *)base)->pages << VMK_HEAP_PAGE_SHIFT;
}

/* The type of a typed object; NULL for others. */
static inline const vmk_gc_type *vmki_gc_type_of(const vmki_gc *gc, uintptr_t base)
{
    return gc->bins[vmki_gc_slab_of(gc, base)->bin].type;
}

/* --- gc.c --------------------------------------------------------------------------------------------------------- */

/* The live collected heap, or misuse. */
vmki_gc *vmki_gc_require(vmk_gc *gc, const char *crime);
#define VMKI_GC_SEAL ((uintptr_t)0x766d6b47u) /* "vmkG" */
#define VMKI_GC_REQUIRE(gc, function)                                                                                  \
    (VMKI_LIKELY((gc) != NULL && (gc)->seal == VMKI_GC_SEAL)                                                           \
         ? (gc)                                                                                                        \
         : vmki_gc_require((gc), function ": not a collected heap"))

/* The calling thread is inside from now on, if it is registered; and no longer. */
static inline void vmki_gc_enter(void)
{
    vmki_mutator *mutator = vmki_mutator_self();
    if (mutator != NULL)
        vmki_mutator_enter(mutator);
}

static inline void vmki_gc_leave(void)
{
    vmki_mutator *mutator = vmki_mutator_self();
    if (mutator != NULL)
        vmki_mutator_leave(mutator);
}

/* A thread that has a lock of a collected heap's is inside, if it is registered: so nobody who stands still has one. */
static inline void vmki_gc_acquire(vmki_os_lock *lock)
{
    vmki_gc_enter();
    vmki_os_lock_acquire(lock);
}

static inline void vmki_gc_release(vmki_os_lock *lock)
{
    vmki_os_lock_release(lock);
    vmki_gc_leave();
}

/* Between these two no cycle comes, whoever the calling thread is: so a hidden address can be turned into one in plain
 * sight (in memory of the stack). */
static inline void vmki_gc_read_begin(void)
{
    if (vmki_mutator_self() != NULL)
        vmki_gc_enter();
    else
        vmki_world_lock();
}

static inline void vmki_gc_read_end(void)
{
    if (vmki_mutator_self() != NULL)
        vmki_gc_leave();
    else
        vmki_world_unlock();
}

/* The heap's own lock, that way. */
static inline void vmki_gc_lock(vmki_gc *gc)
{
    vmki_gc_acquire(&gc->lock);
}

static inline void vmki_gc_unlock(vmki_gc *gc)
{
    vmki_gc_release(&gc->lock);
}

/* The thread's cache of this heap, made if there is none; its run of a bin is ready. NULL: no memory. The thread is
 * registered, and not inside. */
vmki_gc_cache *vmki_gc_cache_of(vmki_gc *gc, vmki_mutator *mutator, unsigned bin);

/* All caches give back the words that they have: under the world's lock, all threads stopped (or gone). */
void vmki_gc_flush(vmki_gc *gc);

/* What page classes stand for: at the first heap. */
void vmki_gc_codes_init(void);

/* The bin for objects of a type and class (0: large), made if there is none; 0 where it can't be. Not inside. */
unsigned vmki_gc_bin_of_type(vmki_gc *gc, vmk_gc_type *type, unsigned size_class);

/* --- alloc.c ------------------------------------------------------------------------------------------------------ */

/* Misuse unless it is the start of an object that is one now. Answers its page's code. Under no lock. */
uint8_t vmki_gc_object_require(vmki_gc *gc, const void *object, const char *crime);

/* An object of the collector's own (weak references, ephemerons): a leaf; NULL: no memory. As vmk_gc_alloc_leaf, a safe
 * point. */
void *vmki_gc_alloc_own(vmki_gc *gc, size_t size);

/* --- slab.c ------------------------------------------------------------------------------------------------------- */

/* Take a slot from the run, which has none free: from the next word of its slab, a swept slab, a new one. NULL: none
 * without a new span, and that can't be had: *status; or a cycle is due first, and *status is VMK_OK. `inside`. */
void *vmki_gc_slab_take(vmki_gc *gc, vmki_gc_cache *cache, unsigned bin, vmk_status *status);

/* Give the run's slab back, and the slots of its word that are free. */
void vmki_gc_slab_put(vmki_gc *gc, vmki_gc_cache *cache, vmki_gc_run *run, unsigned bin);

/* A slot was freed by hand, its bit is clear. */
void vmki_gc_slab_freed(vmki_gc *gc, uint32_t slab);

/* Nanoseconds of sweeping since this was asked last. Under the world's lock. */
uint64_t vmki_gc_sweep_time_take(vmki_gc *gc);

/* The slab of an object is swept after this. Under no lock. */
void vmki_gc_slab_settle(vmki_gc *gc, vmki_gc_slab *slab, uintptr_t base);

/* Sweep slabs that have not been since the last cycle, in the order of ids, until `pages` heap pages have become free
 * (SIZE_MAX: all). Under no lock. Answers the pages. */
size_t vmki_gc_slabs_sweep(vmki_gc *gc, size_t pages);

/* A span for a slab or a large object, described and in its bin's list, swept. *status as vmk_span_alloc. Under the
 * lock. */
vmk_span *vmki_gc_slab_make(vmki_gc *gc, unsigned bin, size_t pages, size_t align, unsigned flags, vmk_status *status);

/* The reverse: no object is in it any more. Under the lock. */
void vmki_gc_slab_end(vmki_gc *gc, vmk_span *span);

/* Marking has ended: all slabs are unswept from now on. The world is stopped. */
void vmki_gc_slabs_turn(vmki_gc *gc);

/* --- large.c ------------------------------------------------------------------------------------------------------ */

/* A large object; NULL: *status. Not inside. It may have swept. */
void *vmki_gc_large_alloc(vmki_gc *gc, unsigned bin, size_t size, vmk_status *status);

/* --- pace.c ------------------------------------------------------------------------------------------------------- */

void vmki_pace_init(vmki_gc *gc, const vmk_gc_pace *pace);

/* Is a cycle due? *cause: why. Cheap. */
bool vmki_pace_due(const vmki_gc *gc, vmk_gc_cause *cause);

/* Memory can't be had: is it worth while to collect for it, or did that bring nothing the last times? */
bool vmki_pace_worth(vmki_gc *gc);

/* A cycle has ended: when shall the next be? Under the world's lock. */
void vmki_pace_after(vmki_gc *gc, vmk_gc_event *event);

/* --- collect.c ---------------------------------------------------------------------------------------------------- */

/* A cycle, unless `epoch` is no longer the heap's: then somebody else's was in between. VMK_GC_CAUSE_ASKED collects in
 * any case. Under no lock, not inside. */
void vmki_gc_cycle(vmki_gc *gc, vmk_gc_cause cause, uint32_t epoch);

/* Run `body` with the world stopped, everything swept, and all caches flushed. */
void vmki_gc_stopped(vmki_gc *gc, void (*body)(vmki_gc *gc, void *argument), void *argument);

/* --- mark.c, marker.c --------------------------------------------------------------------------------------------- */

/* A cycle will begin: under the world's lock, all threads still run. Threads that mark are started here, since while
 * the world is stopped they can't be; whatever fails, marking works, with fewer. */
void vmki_markers_prepare(vmki_gc *gc);

/* The world is stopped. Get ready; the collecting thread is the marker that is answered. */
vmki_marker *vmki_mark_begin(vmki_gc *gc);

/* Mark what a word of a root, or a range, may point to, and note it to be scanned. `exact`: an array of pointers; else
 * ends of objects count too. */
void vmki_mark_word(vmki_marker *marker, uintptr_t word, bool exact);
void vmki_mark_range(vmki_marker *marker, const void *base, size_t size, bool exact);

/* The visitor to be given to functions of the program's that show roots. */
vmk_gc_visitor *vmki_mark_visitor(vmki_marker *marker);

/* Mark an object's references as if it was marked, but not itself. */
void vmki_mark_inside(vmki_marker *marker, uintptr_t base);

/* Until nothing noted is left: by all markers. */
void vmki_mark_drain(vmki_gc *gc);

/* While set: `reached` is called for every object that becomes marked, at the latest before vmki_mark_drain returns, by
 * the collecting thread alone (the other markers rest); perhaps twice. It may mark words. For ephemerons. NULL ends it.
 */
void vmki_mark_watch(vmki_gc *gc, void (*reached)(vmki_gc *gc, uintptr_t base));

/* Done: counts of what was marked, by all. */
void vmki_mark_end(vmki_gc *gc, vmk_gc_event *event);

/* Bytes committed for marking. */
size_t vmki_mark_bytes(const vmki_gc *gc);

/* Threads that mark sleep between cycles; they are ended here, with all that marking has. After a fork the child has
 * none. */
void vmki_markers_end(vmki_gc *gc);
void vmki_markers_forget(vmki_gc *gc);

/* The generic visitor behind vmk_gc_visit: the first member of whoever visits. */
struct vmk_gc_visitor {
    void (*visit)(vmk_gc_visitor *visitor, uintptr_t word);
    bool ends; /* words of ranges may be ends of objects: what is shown is a root */
};

/* --- roots.c ------------------------------------------------------------------------------------------------------ */

typedef struct vmki_root {
    vmk_gc_root kind;
    const vmki_mutator *mutator; /* of what is a thread's */
    const void *base;            /* memory, words of which are roots; for PIN and FINALIZABLE one that holds a copy */
    size_t size;
    bool exact;
    vmk_gc_trace *trace; /* TRACER: instead of memory */
    void *context;
} vmki_root;

/* May words of the root be ends of objects? Where compilers keep pointers that a loop has run out: elsewhere a pointer
 * to the start of an object would keep its neighbour, which is mostly as old. */
static inline bool vmki_root_ends(const vmki_gc *gc, const vmki_root *root)
{
    return !root->exact && (root->kind == VMK_GC_ROOT_STACK || root->kind == VMK_GC_ROOT_REGISTERS ||
                            (gc->flags & VMK_GC_PAST_END) != 0);
}

/* While the world is stopped: all roots. */
void vmki_roots_visit(vmki_gc *gc, void (*visit)(void *context, const vmki_root *root), void *context);
void vmki_roots_fini(vmki_gc *gc);

/* A pinned object goes by hand. Cheap where nothing is pinned. */
void vmki_pin_drop(vmki_gc *gc, uintptr_t object);

/* --- finalize.c, weak.c, ephemeron.c: in the cycle, the world stopped --------------------------------------------- */

/* Objects with finalizers that were not reached: those whose time has come wait to be finalized from now on, and they
 * and what they reach are marked. Drains. */
void vmki_finalizers_mark(vmki_gc *gc, vmki_marker *marker);
/* Roots: what waits. */
void vmki_finalizers_visit(vmki_gc *gc, void (*visit)(void *context, const vmki_root *root), void *context);
/* The object goes by hand. */
void vmki_finalizer_drop(vmki_gc *gc, uintptr_t object);
/* After a cycle, when threads go on: wake who runs them. */
void vmki_finalizers_wake(vmki_gc *gc);
void vmki_finalizers_fini(vmki_gc *gc);
/* After a fork the child has no thread for them; it is started again when it is needed. */
void vmki_finalizers_forget(vmki_gc *gc);

/* Links of one kind to what is not marked become 0; LONG: links in objects that are not marked are forgotten too.
 * Answers how many. */
size_t vmki_links_clear(vmki_gc *gc, vmk_gc_weak_kind kind);
void vmki_links_drop(vmki_gc *gc, uintptr_t object); /* by hand: of it, and in it */
void vmki_links_fini(vmki_gc *gc);

/* Mark the values of those that are reached and whose keys are, until there are no more. Drains. */
void vmki_ephemerons_mark(vmki_gc *gc, vmki_marker *marker);
/* Those that are marked and whose keys are not: cleared. `end`: those that are not marked are forgotten. Answers how
 * many were cleared. */
size_t vmki_ephemerons_clear(vmki_gc *gc, bool end);
void vmki_ephemerons_drop(vmki_gc *gc, uintptr_t object);
void vmki_ephemerons_fini(vmki_gc *gc);
/* For why and dump: the value of each whose key is marked or `all`: from the ephemeron, the address of the value's word
 * is NULL. */
void vmki_ephemerons_visit(vmki_gc *gc,
                           void (*visit)(void *context, uintptr_t ephemeron, uintptr_t key, uintptr_t value),
                           void *context);

/* --- leak.c ------------------------------------------------------------------------------------------------------- */

/* Note where an object was allocated. Failing is no failure: it has no site then. */
void vmki_site_note(vmki_gc *gc, uintptr_t object, const void *site);
const void *vmki_site_of(const vmki_gc *gc, uintptr_t object);
void vmki_site_drop(vmki_gc *gc, uintptr_t object);
/* In the cycle, when all marking is over: sites of what is not marked go; with LEAKS, note what will be told. */
void vmki_leaks_find(vmki_gc *gc);
/* After the cycle: tell. */
void vmki_leaks_tell(vmki_gc *gc);
void vmki_leaks_fini(vmki_gc *gc);

/* --- refs.c, see.c, gc_check.c ------------------------------------------------------------------------------------ */

/* While the world is stopped: call `visit` for each word of an object, or of a root, that refers to an object (that is
 * taken): `at` is where the word is, or NULL. Not fast. */
typedef void vmki_ref_visitor(void *context, const void *at, uintptr_t object);
void vmki_refs_of_object(vmki_gc *gc, uintptr_t base, vmki_ref_visitor *visit, void *context);
void vmki_refs_of_root(vmki_gc *gc, const vmki_root *root, vmki_ref_visitor *visit, void *context);

/* While the world is stopped: call `visit` for each object in the order of addresses, until it answers false. */
void vmki_gc_each(vmki_gc *gc, bool (*visit)(void *context, uintptr_t base, uint8_t code), void *context);

/* What the public knows of an object. While the world is stopped. */
vmk_gc_object vmki_gc_describe(const vmki_gc *gc, uintptr_t base, uint8_t code);

/* The whole heap, as the invariants above say; the world is stopped, all is swept. NULL, or what is wrong. */
const char *vmki_gc_wrong(vmki_gc *gc);
/* For tests: stops the world and looks. */
bool vmki_gc_check(vmk_gc *gc);

#endif
