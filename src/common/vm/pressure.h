/* SPDX-License-Identifier: MIT
 *
 * The decisions of memory pressure, apart from the thread that takes them: a function of what it sees and remembers.
 */
#ifndef VMKI_PRESSURE_H
#define VMKI_PRESSURE_H

#include "common/base/compiler.h"

/* What is remembered between looks. All zero at first. */
typedef struct vmki_pressure_view {
    unsigned low;                 /* bit i: bound i is */
    unsigned told;                /* the system has told of it, */
    uint64_t told_at[VMK_BOUNDS]; /* and last at this time */
} vmki_pressure_view;

/* One look: how much room there is now, and of which bounds the system has told since the last. Times are nanoseconds.
 * Answers how many events there are, at most one for each bound, in their order. */
unsigned vmki_pressure_decide(vmki_pressure_view *view, const vmk_room *room, unsigned told, uint64_t now,
                              const vmk_pressure_options *options, vmk_pressure_event events[VMK_BOUNDS]);

#endif
