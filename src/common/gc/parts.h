/* SPDX-License-Identifier: MIT
 *
 * The parts of a collected heap, by module: each is written by that module alone. To be included by gc.h.
 */
#ifndef VMKI_GC_PARTS_H
#define VMKI_GC_PARTS_H

#include "common/gc/map.h"
#include "common/gc/records.h"
#include "common/gc/world.h"

/* pace.c */
typedef struct vmki_pace {
    size_t goal; /* bytes allocated at which a cycle is due; atomic */
    vmk_gc_pace set;
    size_t disabled; /* how often; atomic */
    size_t floor;    /* of the goal under a soft limit: what collecting costs says */
    bool soft;       /* the goal is the soft limit's */
    unsigned barren; /* cycles one after the other that were to find memory, and found hardly any */
    uint64_t ended;  /* when the last cycle did */
} vmki_pace;

/* roots.c */
typedef struct vmki_roots {
    vmki_os_lock lock;
    vmki_map ranges; /* by base: an index + 1 into the table */
    vmk_table table;
    vmki_map pins;     /* by object: how often */
    size_t count;      /* records that were ever used, */
    size_t free_first; /* and those that aren't any more; index + 1 */
    bool ready;
} vmki_roots;

/* mark.c, marker.c */
enum { VMKI_MARKERS_MAX = 64 };
typedef struct vmki_marking {
    struct vmki_crew *crew; /* see marker.h; NULL: not yet */
    vmk_region region;      /* that it is in */
    vmk_table pages;        /* by page of the window: see mark.c */
    bool ready;             /* there is that table, */
    bool paged;             /* and it has all that this cycle needs */
    void (*reached)(struct vmk_gc *gc, uintptr_t base);
} vmki_marking;

/* finalize.c */
typedef struct vmki_queue {
    size_t first; /* records by number, 0: none */
    size_t last;
} vmki_queue;

typedef struct vmki_finalizers {
    vmki_os_lock lock;
    vmki_map set; /* by object: its record, those that wait too */
    vmki_records records;
    vmki_queue queue;   /* those that wait */
    vmki_queue running; /* those being run of which no stack keeps the object alive */
    size_t waiting;     /* in the queue; atomic */

    vmki_os_lock thread_lock; /* of what follows; never held inside, nor taken while the world is stopped */
    bool runs;
    uintptr_t stop; /* atomic, as the next */
    uintptr_t thread_id;
    vmki_os_thread thread;
    vmki_os_event event;
} vmki_finalizers;

/* weak.c */
typedef struct vmki_links {
    vmki_os_lock lock;
    vmki_map map; /* by the link's address: its record */
    vmki_map to;  /* by object: the first record of those that refer to it */
    vmki_map in;  /* by object: the first record of those that lie in it, but not at its start */
    vmki_records records;
} vmki_links;

/* ephemeron.c */
typedef struct vmki_ephemerons {
    vmki_os_lock lock;
    vmki_map keys; /* by key: the first record of those that have it */
    vmki_records records;
    size_t ready; /* while they are marked: the first of those whose value is to be */
    size_t steps; /* records looked at by that, ever. For tests */
} vmki_ephemerons;

/* leak.c */
typedef struct vmki_leaks {
    vmki_os_lock lock;
    vmki_map sites;                  /* by object */
    struct vmki_leak_batch *batches; /* that were found, and not told yet */
    size_t untold;                   /* bytes of what there was no memory to note */
} vmki_leaks;

#endif
