/* SPDX-License-Identifier: MIT
 *
 * What mark.c and marker.c share: a marker, and all of them.
 *
 * Work is a word: the address of an object that is marked and has not been scanned, or where in a large object scanning
 * goes on, with what kind of work it is in the lowest bits. It is in the stack of one marker, in its ring, or in its
 * mailbox, and only that marker touches the first two.
 *
 * Who marks. `busy` counts the markers that may have work: a marker is counted from before it takes any until it has
 * none, mailbox included. So none is left anywhere when it is 0, and it stays 0.
 */
#ifndef VMKI_MARKER_H
#define VMKI_MARKER_H

#include "common/gc/gc.h"

enum {
    VMKI_RING = 16,        /* objects whose first line is on its way; a power of two */
    VMKI_MAIL = 256,       /* words that a marker gives at once */
    VMKI_POLL = 64,        /* objects between two looks at whether others want work */
    VMKI_LINE = 64,        /* bytes that processors pass between them at a time */
    VMKI_PIECE = 128 << 10 /* bytes of a large object that are scanned at once */
};

enum vmki_mail { VMKI_MAIL_EMPTY, VMKI_MAIL_FULL, VMKI_MAIL_TAKEN };

/* The lowest four bits of a work. 1 ... 13: a conservative object of so many granules. PAGE: a page that waits. */
enum { VMKI_WORK_BITS = 15, VMKI_WORK_ANY = 0, VMKI_WORK_PAGE = 14, VMKI_WORK_PIECE = 15 };

/* How a page's objects are scanned, see mark.c. In SWITCHING somebody is at it; QUEUED: it is in a marker's queue, or
 * being scanned. */
enum vmki_scan { VMKI_SCAN_OBJECTS, VMKI_SCAN_SWITCHING, VMKI_SCAN_IDLE, VMKI_SCAN_QUEUED };

/* The columns of the table of pages. */
enum { VMKI_PAGES_STATE, VMKI_PAGES_AGAIN, VMKI_PAGES_NEXT, VMKI_PAGES_SCANNED };

enum { VMKI_PAGE_WORDS = (int)(VMK_HEAP_PAGE_SIZE / VMKI_GRANULE / VMKI_WORD_BITS) };

/* What marking needs to know of a code, and what it counts. */
typedef struct vmki_shape {
    uint32_t magic;    /* see vmki_gc_code */
    uint32_t mask;     /* granules of a slab - 1 */
    uint16_t granules; /* of a slot; 0: no objects, or large ones */
    uint8_t work;      /* what is added to an object's address to make a work of it */
    bool leaf;
    bool paged;   /* objects may be left to their pages */
    size_t count; /* of objects marked */
} vmki_shape;

/* ALONE: no other marker marks, so that bits are set plainly. WATCHED: the same, and all that is marked is shown. */
enum vmki_mark_mode { VMKI_MARK_ALONE, VMKI_MARK_SHARED, VMKI_MARK_WATCHED };

struct vmki_crew;

struct vmki_marker {
    vmk_gc_visitor visitor; /* must be first */
    vmki_gc *gc;
    /* Of the heap, as it is while the world is stopped. */
    uintptr_t origin;
    size_t limit;
    const uint32_t *present;
    const uint8_t *classes;
    const size_t *taken;
    size_t *marks;
    uint8_t *states; /* by page, as the next; NULL: all are scanned object by object. Atomic; enum vmki_scan */
    uint8_t *again;  /* there are objects that are marked and were to be scanned */
    uint32_t *next;  /* page + 1 of a queue; 0: the last */
    size_t *scanned; /* a bit for each granule, as the marks */
    bool past_end;
    uint8_t mode; /* enum vmki_mark_mode */
    bool paged;   /* what is found now is left to its page */
    bool helped;  /* the drain has ended because others shall help */
    bool worked;

    uintptr_t *stack; /* work: [bottom, top) of it */
    size_t bottom;
    size_t top;
    size_t room;
    unsigned ring_first;
    unsigned ring_count;
    uintptr_t ring[VMKI_RING];

    uint32_t first; /* of the queue of pages, + 1; 0: none */
    uint32_t last;
    uint32_t queued;
    size_t pages_seen; /* since the last look at it: pages scanned, and objects in them */
    size_t pages_objects;
    unsigned wait; /* polls, until it may be tried again to leave objects to their pages */

    size_t overflow_low; /* pages with objects that are marked and were to be scanned; low > high: none */
    size_t overflow_high;
    size_t large_bytes;
    vmki_shape shapes[256]; /* by code */

    struct vmki_crew *crew;
    unsigned number;
    vmk_region region; /* of the stack; base is NULL: none */
    vmki_os_thread thread;

    _Alignas(VMKI_LINE) uint32_t mail_state; /* atomic; enum vmki_mail */
    uint32_t mail_count;
    uintptr_t mail[VMKI_MAIL];
};

typedef struct vmki_crew {
    vmki_marker *markers; /* the first is the collecting thread's */
    unsigned count;       /* of these */
    unsigned started;     /* threads: markers 1 ... started */
    size_t rescans;
    size_t patience; /* objects that the first marks before the others are asked */
    vmki_os_event wake;
    vmki_os_event idle; /* those who have nothing to do wait for it, for a moment */
    _Alignas(VMKI_LINE) size_t busy;
    _Alignas(VMKI_LINE) size_t hungry; /* markers without work; no more than a hint */
    _Alignas(VMKI_LINE) size_t open;   /* threads may join */
    size_t inside;                     /* threads that have */
    size_t stop;
} vmki_crew;

/* --- mark.c ------------------------------------------------------------------------------------------------------- */

/* Scan until the marker has no work. ALONE: false where others shall help. SHARED: work is given to who has none. */
bool vmki_marker_drain(vmki_marker *marker);

/* Scan all objects of a page of the window that are marked. */
void vmki_marker_rescan(vmki_marker *marker, size_t page);

/* Which way to mark from now on. */
void vmki_marker_mode(vmki_marker *marker, enum vmki_mark_mode mode);

/* --- marker.c ----------------------------------------------------------------------------------------------------- */

/* Room for more on the stack; false: there is none to be had. */
bool vmki_marker_grow(vmki_marker *marker);

/* This can't be put on the stack: it will be found again. */
void vmki_marker_overflow(vmki_marker *marker, uintptr_t base);

/* Every VMKI_POLL objects, and after a page: give others work; is it better to leave objects to their pages? True: end
 * the drain, for others shall help, or this shall be done another way. */
bool vmki_marker_poll(vmki_marker *marker);

/* The stack is empty, the ring too: take back what nobody has fetched. */
bool vmki_marker_take_back(vmki_marker *marker);

static inline void vmki_marker_push(vmki_marker *marker, uintptr_t work)
{
    if (VMKI_UNLIKELY(marker->top == marker->room) && !vmki_marker_grow(marker))
        vmki_marker_overflow(marker, work);
    else
        marker->stack[marker->top++] = work;
}

#endif
