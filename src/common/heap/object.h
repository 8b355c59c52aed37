/* SPDX-License-Identifier: MIT
 *
 * What the files of the objects share.
 *
 *   class.c         size classes
 *   object.c        the calls of vmkit.h: allocate, free, reallocate
 *   cache.c         what a thread has: caches, coming and going; fork
 *   slab.c          spans cut into slots: which are free, and who keeps them
 *   object_large.c  objects that are spans, and those that have a reservation of their own
 *   hardened.c      VMK_HEAP_HARDENED
 *   object_stats.c  figures and walks
 *   tools.h         what sanitizers and valgrind are told
 *   object_check.c  is it all as it should be?
 *
 * Bits. Of each granule of a slab there is one bit in each of three columns beside the heap. `objects`: an object in
 * use begins here; written by the keeper alone, at each allocation and free, so that a free that is none is always
 * found out. `taken`: the slot is an object, or stands in the keeper's stack; written by the keeper alone. `remote`:
 * another thread has freed the object; set by anyone, atomically, and taken by the keeper.
 *
 * Stacks. A cache has for each class a stack of free slots: what was freed last is allocated next, while it is in the
 * processor's cache. An empty stack is filled from the class's current slab, of which the words are gone through once;
 * a full one takes no more, and what is freed is free in its slab. If that goes on for as many frees as the stack is
 * deep, the program is doing away with what it has: then what is in the stack is freed in its slabs too, which it would
 * keep from being given back, and it takes nothing until it is filled again.
 *
 * Who keeps a slab is told by span->keeper:
 *   a cache             it is the cache's current one, one of those that are known to have free slots (available), or
 *                       one that was gone through and is not known to have enough of them (full)
 *   ORPHAN              nobody, its thread has ended; it stands in the heap's list, under the heap's lock
 *   LARGE               it is one object
 *   0                   the span is not ours
 * Freeing shall be quick, so this is told a second time, by page: heap->owners has the cache | where in it the class's
 * stack is, and 0 where the long way of freeing is to be taken: for what nobody keeps, large objects, and in hardened
 * heaps everywhere.
 *
 * A keeper that goes through all its slabs would find out by itself what others have freed; but those that are full it
 * does not look at. So there is span->watch: WATCHED where whoever frees must tell. Who changes it to QUEUED puts the
 * span on the keeper's stack of pending ones. While it is QUEUED the keeper stays the keeper, for only the keeper takes
 * it off. (With a seq_cst RMW on `remote` before looking at watch, and on watch before looking at `remote`, one of the
 * two sees the other.)
 */
#ifndef VMKI_OBJECT_H
#define VMKI_OBJECT_H

#include "common/heap/class.h"
#include "common/heap/heap.h"
#include "common/heap/tools.h"

#include <string.h>

#include "os_self.h"

enum { VMKI_KEEPER_ORPHAN = 1, VMKI_KEEPER_LARGE = 2 }; /* no addresses */
enum { VMKI_QUIET, VMKI_WATCHED, VMKI_QUEUED };
enum { VMKI_LIST_NONE, VMKI_LIST_CURRENT, VMKI_LIST_AVAILABLE, VMKI_LIST_FULL, VMKI_LIST_ORPHAN };

/* What is known of a span that is a slab, or a large object; by the span's id. */
typedef struct vmki_slab {
    VMKI_HIDDEN(unsigned char *, base); /* of the span */
    size_t pages; /* guards included. These, and the class, are read by who asks about any address */
    uintptr_t keeper;
    uint32_t id;
    uint32_t used; /* slots that are taken, as are all below of slabs alone */
    uint32_t next; /* in a list */
    uint32_t previous;
    uint32_t next_pending; /* in the stack */
    uint32_t watch;
    uint16_t capacity;
    uint8_t size_class;
    uint8_t list;
} vmki_slab;

/* The stack of a class, in an array that begins with NULL. Before it is first filled, it is the cache's `nothing`. */
typedef struct vmki_stack {
    void **top;  /* the slot to be taken next; NULL is there if there is none */
    void **last; /* where top is if the stack takes no more */
} vmki_stack;

/* Where a class's slots come from. */
typedef struct vmki_source {
    vmki_slab *slab;                    /* the current one, or NULL */
    size_t *word;                       /* of it, in `taken` */
    VMKI_HIDDEN(unsigned char *, base); /* what that word's first bit means */
    size_t starts;                      /* where slots begin in it */
    uint32_t phase;                     /* of the word's first slot, in granules; may be beyond the word */
    uint32_t words_left;                /* of the slab, behind this one */
    uint32_t slabs;                     /* that are kept: the more, the larger the next */
    uint32_t overflows;                 /* of the stack, since it was filled */
    uint32_t available;                 /* lists, by ids */
    uint32_t full;
} vmki_source;

enum { VMKI_STACKS = 1600, VMKI_QUARANTINE = 128 }; /* slots of all stacks; objects kept back */

struct vmk_cache {
    uintptr_t origin; /* these four are the heap's, so that the short ways read from here alone */
    size_t *objects;
    const uintptr_t *owners;
    size_t dense_limit; /* or less, but behind all slabs that the cache keeps */
    vmki_stack stack[VMK_CLASSES];
    vmki_heap *heap;
    struct vmki_thread *thread;
    vmk_span *span; /* that it lies in */
    vmk_cache *next;
    vmk_cache *previous;
    bool hardened;
    bool scarce;      /* no slab could be made lately: what there is is used up before the next attempt */
    uint32_t pending; /* the stack of spans that others have freed objects of; an id, atomic */
    vmki_source source[VMK_CLASSES];
    uint64_t random; /* hardened only: a counter, from a random number on */
    uint32_t quarantine_next;
    uint32_t slots_used; /* stacks get their place when they are first filled: what is not used is not touched */
    void *nothing;       /* NULL */
    void *slots[VMKI_STACKS];
    uintptr_t quarantine[VMKI_QUARANTINE]; /* hardened only */
};

/* What a thread has: what vmki_os_self() points to. */
typedef struct vmki_thread {
    vmk_cache *cache[VMKI_OBJECT_HEAPS]; /* by the heap's number */
    struct vmki_thread *next;            /* of all that live, or of those that are to be used again */
    struct vmki_thread *previous;
} vmki_thread;

/* --- bits ------------------------------------------------------------------------------------------------------- */

static inline unsigned vmki_bit_number(uintptr_t address)
{
    return (unsigned)(address >> VMKI_GRANULE_SHIFT) % VMKI_WORD_BITS;
}

static inline size_t vmki_bit_of(uintptr_t address)
{
    return (size_t)1 << vmki_bit_number(address);
}

/* The words of an address, of a heap with that origin. */
static inline size_t *vmki_objects_word(const vmki_heap *heap, uintptr_t address)
{
    size_t granule = (address - heap->view.origin) >> VMKI_GRANULE_SHIFT;
    return (size_t *)(void *)heap->view.marks + granule / VMKI_WORD_BITS;
}

static inline size_t *vmki_taken_word(const vmki_heap *heap, uintptr_t address)
{
    size_t granule = (address - heap->view.origin) >> VMKI_GRANULE_SHIFT;
    return heap->taken + granule / VMKI_WORD_BITS;
}

static inline size_t *vmki_remote_word(const vmki_heap *heap, uintptr_t address)
{
    size_t granule = (address - heap->view.origin) >> VMKI_GRANULE_SHIFT;
    return heap->remote + granule / VMKI_WORD_BITS;
}

/* Is there an object in use that begins here, as far as its keeper knows? Of addresses in slabs. */
static inline bool vmki_object_begins(const vmki_heap *heap, uintptr_t address)
{
    return address % VMKI_GRANULE == 0 &&
           (VMKI_LOAD_RELAXED(vmki_objects_word(heap, address)) & vmki_bit_of(address)) != 0;
}

/* Of an id that is known to be one of ours; of an address that is known to lie in one. Not by vmk_table_at, which does
 * not know the size of an element beforehand. */
static inline vmki_slab *vmki_slab_at(const vmki_heap *heap, uint32_t id)
{
    return (vmki_slab *)(void *)heap->objects.slabs.column[0] + id;
}

static inline vmki_slab *vmki_slab_of(const vmki_heap *heap, uintptr_t address)
{
    return vmki_slab_at(heap, heap->view.spans[(address - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT]);
}

/* Ids below this may be of ours: those whose keeper is not 0 are. */
static inline uint32_t vmki_slabs_made(const vmki_heap *heap)
{
    if (!VMKI_LOAD_ACQUIRE(&heap->objects.begun)) /* another thread may be making the table */
        return 0;
    return (uint32_t)vmki_min(vmk_table_ready(&heap->objects.slabs), UINT32_MAX);
}

/* What is known of the span that any word points into; NULL: nothing, or it points into none. Like vmk_span_find. */
static inline vmki_slab *vmki_slab_find(const vmki_heap *heap, uintptr_t word)
{
    const vmk_span *span = vmk_span_find(&heap->view, word);
    size_t id = span != NULL ? (size_t)(span - heap->view.records) : SIZE_MAX;
    return id < vmki_slabs_made(heap) ? vmki_slab_at(heap, (uint32_t)id) : NULL;
}

static inline uintptr_t vmki_keeper(const vmki_slab *span)
{
    return VMKI_LOAD_RELAXED(&span->keeper);
}

/* --- cache.c ---------------------------------------------------------------------------------------------------- */

/* The calling thread's cache; NULL: it has none (yet), whether another thread is just giving the heap its number or
 * not. */
static inline vmk_cache *vmki_cache_of(const vmki_heap *heap)
{
    const vmki_thread *self = vmki_os_self();
    return self != NULL ? self->cache[VMKI_LOAD_RELAXED(&heap->objects.number)] : NULL;
}

/* Make one. NULL: no memory. */
vmk_cache *vmki_cache_attach(vmki_heap *heap);

/* The registry's lock, which is free again after a fork. Once a heap has been made. */
void vmki_registry_lock(void);
void vmki_registry_unlock(void);

/* Have the tables of a heap that only objects need. */
vmk_status vmki_objects_begin(vmki_heap *heap);

/* A heap's end: for those that have a number, or huge objects. */
void vmki_objects_end(vmki_heap *heap);

/* All that the calling thread has goes, as at its end. For who allocates after its thread's end was told: nobody would
 * tell it again. */
void vmki_thread_end_now(void);

/* --- slab.c ----------------------------------------------------------------------------------------------------- */

/* Have the stack of a class filled, by whatever means: at least one slot is in it afterwards. */
vmk_status vmki_cache_refill(vmk_cache *cache, unsigned size_class);

/* A slot that the stack has no room for. */
void vmki_stack_overflow(vmk_cache *cache, vmki_stack *stack, const void *slot);

/* A slot that is taken, and no object any more, is free, of a slab that the cache keeps. */
void vmki_slab_put(vmk_cache *cache, const void *slot);

/* Another thread's object: mark it, and tell the keeper if it wants to know. */
void vmki_slab_free_remote(vmki_heap *heap, vmki_slab *span, uintptr_t address);

/* Take over an orphan, if it is still one. */
bool vmki_slab_adopt(vmk_cache *cache, vmki_slab *span);

/* Take what others have freed in slabs that wait for it, and give back slabs that are empty. */
void vmki_cache_collect(vmk_cache *cache);

/* Give back what is empty, and make orphans of the rest. */
void vmki_cache_abandon(vmk_cache *cache);

/* In the child of a fork, whose other threads are gone: make orphans of all that this cache kept, wherever it was
 * interrupted. */
void vmki_cache_bury(vmki_heap *heap, const vmk_cache *cache);

/* Those of the thread that lives on there: have all slabs that are QUEUED on its stack. Whoever was about to put one
 * there is gone. */
void vmki_cache_survive(vmki_heap *heap, vmk_cache *cache);

/* Take over all orphans. */
void vmki_orphans_adopt(vmk_cache *cache);

/* --- object.c --------------------------------------------------------------------------------------------------- */

/* The default heap; NULL until it is made. Written once, with release. */
extern vmki_heap *vmki_default_heap;

/* Make the default heap with these options, unless there is one. NULL: it can't be had. */
vmki_heap *vmki_heap_default_make(const vmk_heap_options *options);

/* The heap that a caller means; NULL: the default one could not be had. */
vmki_heap *vmki_heap_meant(vmk_heap *view);
bool vmki_heap_is_default(const vmki_heap *heap);

VMKI_NORETURN VMKI_COLD void vmki_object_crime(const char *crime, const void *object);

void *vmki_cache_alloc_slow(vmk_cache *cache, size_t size);
void vmki_object_free_slow(vmki_heap *heap, vmk_cache *cache, void *object);

/* Have a record for a span that shall be a slab or a large object: base, pages and id are filled in. */
vmk_status vmki_slab_ready(vmki_heap *heap, const vmk_span *span, vmki_slab **slab);

/* Free an object of a slab, by whatever thread. */
void vmki_slab_free(vmki_heap *heap, vmk_cache *cache, vmki_slab *span, uintptr_t address);

/* The span of an object, which must be one. *usable: its size. */
vmki_slab *vmki_object_span(vmki_heap *heap, const void *object, size_t *usable, const char *crime);

_Static_assert(sizeof(((vmk_cache *)0)->stack) <= VMK_HEAP_PAGE_SIZE,
               "where a stack is fits in what a cache's address leaves");

/* What heap->owners has for the pages of a slab: the two are told apart since caches begin on a page of the heap. */
static inline uintptr_t vmki_owner(const vmk_cache *cache, unsigned size_class)
{
    return (uintptr_t)cache | size_class * sizeof(vmki_stack);
}

/* An object from the class's stack; NULL: it is empty. */
static inline void *vmki_cache_take(vmk_cache *cache, unsigned size_class)
{
    vmki_stack *stack = &cache->stack[size_class];
    void *object = *stack->top;
    if (VMKI_UNLIKELY(object == NULL))
        return NULL;
    vmki_tools_forget(stack->top--);
    size_t granule = ((uintptr_t)object - cache->origin) >> VMKI_GRANULE_SHIFT;
    size_t *word = &cache->objects[granule / VMKI_WORD_BITS];
    VMKI_STORE_RELAXED(word, VMKI_LOAD_RELAXED(word) | (size_t)1 << granule % VMKI_WORD_BITS);
    return object;
}

/* Make what was taken for so many bytes zero, or somewhat more of the slot: what is frequent without a call. */
static inline void vmki_object_clear(void *object, size_t size)
{
    char *start = object, *end = start + vmki_ceil(size + (size == 0), VMKI_GRANULE);
    if (VMKI_TOOLS) { /* no byte more than was asked for */
        memset(start, 0, size);
    } else if (size <= 2 * VMKI_GRANULE) {
        memset(start, 0, VMKI_GRANULE);
        memset(end - VMKI_GRANULE, 0, VMKI_GRANULE);
    } else if (size <= 4 * VMKI_GRANULE) {
        memset(start, 0, 2 * VMKI_GRANULE);
        memset(end - 2 * VMKI_GRANULE, 0, 2 * VMKI_GRANULE);
    } else {
        memset(start, 0, size);
    }
}

/* At most VMK_OBJECT_SMALL_MAX bytes. */
static inline void *vmki_cache_alloc(vmk_cache *cache, size_t size)
{
    unsigned size_class = vmki_class_of(size);
    void *object = vmki_cache_take(cache, size_class);
    if (VMKI_LIKELY(object != NULL))
        return vmki_tools_alloc(cache->heap, object, size, vmki_class_size(size_class), false);
    return vmki_cache_alloc_slow(cache, size);
}

/* The short way of freeing: an object of a slab that this cache, the calling thread's, keeps. Whatever else it is, the
 * long way finds out. Of an address that is no multiple of a granule the rotation makes one beyond every limit. */
static inline void vmki_cache_free(vmk_cache *cache, void *object)
{
    size_t granule = vmki_rotate_right((uintptr_t)object - cache->origin, VMKI_GRANULE_SHIFT);
    size_t page = granule >> (VMK_HEAP_PAGE_SHIFT - VMKI_GRANULE_SHIFT);
    if (VMKI_UNLIKELY(page >= cache->dense_limit)) {
        vmki_object_free_slow(cache->heap, cache, object);
        return;
    }
    size_t offset = VMKI_LOAD_RELAXED(&cache->owners[page]) ^ (uintptr_t)cache; /* of the stack, if it is the owner */
    if (VMKI_UNLIKELY(offset >= sizeof cache->stack)) {
        vmki_object_free_slow(cache->heap, cache, object);
        return;
    }
    size_t *word = &cache->objects[granule / VMKI_WORD_BITS], bit = (size_t)1 << granule % VMKI_WORD_BITS;
    size_t without = VMKI_LOAD_RELAXED(word) ^ bit;
    if (VMKI_UNLIKELY((without & bit) != 0)) {
        vmki_object_free_slow(cache->heap, cache, object);
        return;
    }
    VMKI_STORE_RELAXED(word, without);
    vmki_tools_free(cache->heap, object, vmki_class_size((unsigned)(offset / sizeof(vmki_stack))));
    vmki_stack *stack = (vmki_stack *)(void *)((char *)cache->stack + offset);
    if (VMKI_LIKELY(stack->top != stack->last))
        *++stack->top = object;
    else
        vmki_stack_overflow(cache, stack, object);
}

/* cache: NULL if the calling thread has none. */
static inline void vmki_object_free(vmki_heap *heap, vmk_cache *cache, void *object)
{
    if (VMKI_LIKELY(cache != NULL))
        vmki_cache_free(cache, object);
    else
        vmki_object_free_slow(heap, cache, object);
}

/* --- object_large.c --------------------------------------------------------------------------------------------- */

/* A span for the use of objects: in a hardened heap, and above 4 MiB in all, with inaccessible pages behind it, which
 * count as its own. `asks`: as vmki_span_alloc. */
vmk_status vmki_guarded_alloc(vmki_heap *heap, size_t pages, size_t align, unsigned flags, bool asks, vmk_span **span);
void vmki_guarded_free(vmki_heap *heap, vmk_span *span);

void *vmki_large_alloc(vmki_heap *heap, size_t size, size_t align, bool zero);
void vmki_large_free(vmki_heap *heap, vmki_slab *span, const void *object);
size_t vmki_large_good_size(size_t size); /* see vmk_heap_good_size */
size_t vmki_large_usable(const vmki_heap *heap, const vmki_slab *span);

/* NULL: not where it is. */
void *vmki_large_realloc(vmki_heap *heap, vmki_slab *span, size_t size);

/* Those with a reservation of their own: outside the window. False, 0 or NULL: there is no such object. */
void *vmki_huge_alloc(vmki_heap *heap, size_t size);
bool vmki_huge_free(vmki_heap *heap, const void *object);
size_t vmki_huge_usable(vmki_heap *heap, const void *object);
size_t vmki_huge_size(uintptr_t base); /* usable, of the one whose reservation begins there; under the vm lock */
void *vmki_huge_realloc(vmki_heap *heap, void *object, size_t size);
void vmki_huge_end(vmki_heap *heap);

/* --- hardened.c ------------------------------------------------------------------------------------------------- */

/* Of a small object's slot, behind what may be used. */
#define VMKI_CANARY_SIZE sizeof(uint64_t)

void *vmki_hardened_alloc(vmk_cache *cache, size_t size);
void vmki_hardened_free(vmki_heap *heap, vmk_cache *cache, vmki_slab *span, void *object);

/* Of a slab's bits, an object is in use: was it freed, and is kept back? Under the heap's lock, so that its memory
 * can't go. The other takes the lock, and looks at the bits as well. */
bool vmki_hardened_kept_back(const vmki_heap *heap, const vmki_slab *span, uintptr_t address);
bool vmki_hardened_in_use(vmki_heap *heap, uintptr_t address);

/* Free for good what is kept back. */
void vmki_hardened_flush(vmk_cache *cache);

/* --- object_check.c --------------------------------------------------------------------------------------------- */

/* Are all slabs of a heap as they should be, with vmki_heap_check? Slow; where nobody else uses the heap. */
bool vmki_objects_check(vmk_heap *heap);

#endif
