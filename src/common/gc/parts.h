/* SPDX-License-Identifier: MIT
 *
 * The parts of a collected heap, by module: each is written by that module alone. To be included by gc.h.
 */
#ifndef VMKI_GC_PARTS_H
#define VMKI_GC_PARTS_H

#include "common/gc/map.h"
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
    vmki_map pins; /* by object: how often */
    size_t count;
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
typedef struct vmki_finalizers {
    vmki_os_lock lock;
    vmki_map set;      /* by object: an index + 1 into the table */
    vmk_table table;   /* of records */
    size_t free_first; /* of unused records, index + 1 */
    size_t made;
    size_t queue_first; /* of those that wait, index + 1 */
    size_t queue_last;
    size_t waiting;
    bool ready;
    bool runs; /* the thread */
    bool stop;
    vmki_os_thread thread;
    vmki_os_event event;
} vmki_finalizers;

/* weak.c */
typedef struct vmki_links {
    vmki_os_lock lock;
    vmki_map map; /* by the link's address: the object, the kind in its lowest bit */
} vmki_links;

/* ephemeron.c */
typedef struct vmki_ephemerons {
    vmki_os_lock lock;
    vmki_map map; /* by the ephemeron: an index + 1 into the table, or as ephemeron.c wants it */
    vmk_table table;
    size_t made;
    size_t free_first;
    size_t count;
    bool ready;
} vmki_ephemerons;

/* leak.c */
typedef struct vmki_leaks {
    vmki_os_lock lock;
    vmki_map sites;                  /* by object */
    struct vmki_leak_batch *batches; /* that were found, and not told yet */
    size_t untold;                   /* bytes of what there was no memory to note */
} vmki_leaks;

#endif
