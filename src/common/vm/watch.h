/* SPDX-License-Identifier: MIT
 *
 * What watch.c and watch_fault.c share: the records of what is being watched.
 *
 * A record lies in pages of its own, for two reasons. The handler of faults writes to it, and must not fault doing so,
 * while the library's own static data may be watched as any other. And a handler that still reads a record when the
 * watch is stopped must find it there.
 */
#ifndef VMKI_WATCH_H
#define VMKI_WATCH_H

#include "common/base/os_service.h"
#include "common/vm/vm.h"

enum { VMKI_WATCH_COUNTERS = 64 };

typedef struct vmki_watch vmki_watch;

struct vmki_watch {
    vmki_watch *next; /* in the list of all; the handler reads it without a lock */
    uintptr_t base;
    uintptr_t limit;
    const vmk_region *region; /* NULL: static data */
    vmk_watch_kind kind;
    size_t forks; /* how many there had been when it was opened */
    size_t record_size;
    unsigned page_bits;
    vmki_os_watch os; /* of the kinds that the system keeps account of */
    bool opened;      /* SOFT_DIRTY: `os` is, so that others may harvest it; under the vm lock */
    /* A bit for each page, of PROTECT and SOFT_DIRTY; else NULL. */
    size_t *dirty; /* written, to be reported */
    size_t *ours;  /* PROTECT: committed, and writable but for us: if it isn't dirty it is protected */
    /* PROTECT. */
    size_t pieces;                    /* upper bound of the mappings that opening pieces has made */
    size_t busy[VMKI_WATCH_COUNTERS]; /* handlers at work on a block, by its number; */
    size_t busy_large;                /* and on more than a block */
};

/* All that are watched; changed under the vm lock. */
extern vmki_watch *vmki_watches;

/* Where runs are collected. Neighbours become one run. */
typedef struct vmki_watch_sink {
    vmk_run *runs;
    size_t capacity;
    size_t count;
    uintptr_t base; /* of the watch */
} vmki_watch_sink;

static inline bool vmki_watch_adjoins(const vmki_watch_sink *sink, uintptr_t from)
{
    const vmk_run *last = sink->runs + sink->count - 1;
    return sink->count != 0 && sink->base + last->offset + last->size == from;
}

static inline void vmki_watch_add(vmki_watch_sink *sink, uintptr_t from, uintptr_t limit)
{
    if (vmki_watch_adjoins(sink, from))
        sink->runs[sink->count - 1].size += limit - from;
    else
        sink->runs[sink->count++] = (vmk_run){from - sink->base, limit - from};
}

/* --- bits, one for a page --------------------------------------------------------------------------------------- */

enum { VMKI_WORD_BITS = sizeof(size_t) * 8 };

/* The bits of the word that page `at` is in which belong to pages of [at, limit). */
VMKI_IN_HANDLER static inline size_t vmki_bits_mask(size_t at, size_t limit)
{
    size_t low = at % VMKI_WORD_BITS, count = vmki_min(limit - at, VMKI_WORD_BITS - low);
    return (count == VMKI_WORD_BITS ? ~(size_t)0 : ((size_t)1 << count) - 1) << low;
}

VMKI_IN_HANDLER static inline size_t vmki_bits_next_word(size_t at)
{
    return at - at % VMKI_WORD_BITS + VMKI_WORD_BITS;
}

VMKI_IN_HANDLER static inline bool vmki_bit(const size_t *bits, size_t at)
{
    return (VMKI_LOAD(&bits[at / VMKI_WORD_BITS]) >> at % VMKI_WORD_BITS & 1) != 0;
}

VMKI_IN_HANDLER static inline void vmki_bits_set(size_t *bits, size_t from, size_t limit)
{
    for (size_t at = from; at < limit; at = vmki_bits_next_word(at))
        (void)VMKI_FETCH_OR(&bits[at / VMKI_WORD_BITS], vmki_bits_mask(at, limit));
}

static inline void vmki_bits_clear(size_t *bits, size_t from, size_t limit)
{
    for (size_t at = from; at < limit; at = vmki_bits_next_word(at))
        (void)VMKI_FETCH_AND(&bits[at / VMKI_WORD_BITS], ~vmki_bits_mask(at, limit));
}

/* The first page of [from, limit) whose bit is set in both (flip: not set in both); limit if there is none. */
VMKI_IN_HANDLER static inline size_t vmki_bits_find(const size_t *bits, const size_t *others, size_t flip, size_t from,
                                                    size_t limit)
{
    for (size_t at = from; at < limit; at = vmki_bits_next_word(at)) {
        size_t word = VMKI_LOAD(&bits[at / VMKI_WORD_BITS]) & VMKI_LOAD(&others[at / VMKI_WORD_BITS]);
        word = (word ^ flip) & vmki_bits_mask(at, limit);
        if (word != 0)
            return at - at % VMKI_WORD_BITS + vmki_lowest_bit(word);
    }
    return limit;
}

#define VMKI_BITS_NOT (~(size_t)0)

VMKI_IN_HANDLER static inline size_t vmki_watch_page(const vmki_watch *watch, uintptr_t address)
{
    return (address - watch->base) >> watch->page_bits;
}

VMKI_IN_HANDLER static inline uintptr_t vmki_watch_address(const vmki_watch *watch, size_t page)
{
    return watch->base + (page << watch->page_bits);
}

/* Under the vm lock: the first committed run of the watched pages in [at, limit). False if there is none. */
bool vmki_watch_run(const vmki_watch *watch, uintptr_t at, uintptr_t limit, uintptr_t *from, uintptr_t *to);

/* --- watch_fault.c: the kind PROTECT ------------------------------------------------------------------------------ */

/* Have the handler of faults installed. Without a lock. */
vmk_status vmki_protect_prepare(void);

/* The rest is under the vm lock. Begin: the watch is in the list, all that is committed becomes protected; if it fails
 * all is writable again. End: false if some could not be made writable, and the watch must stay in the list. */
vmk_status vmki_protect_begin(vmki_watch *watch);
bool vmki_protect_end(vmki_watch *watch);
void vmki_protect_change(vmki_watch *watch, uintptr_t from, uintptr_t limit, vmki_change change);

/* A part of a collect, of a bounded number of system calls: from *at on, which moves on. */
vmk_status vmki_protect_collect(vmki_watch *watch, vmki_watch_sink *sink, uintptr_t *at, uintptr_t limit, bool *full);

/* Everything has been written. */
void vmki_protect_taint(vmki_watch *watch);

/* In the child of a fork: no other thread is in a handler. */
void vmki_protect_child(void);

/* May a handler be reading a record? */
bool vmki_protect_reading(void);

/* Tests: so many mappings may be taken; 0: as many as the system's limit says. */
void vmki_protect_budget_force(size_t mappings);

#endif
