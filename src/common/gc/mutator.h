/* SPDX-License-Identifier: MIT
 *
 * What the files about threads share.
 *
 *   world.c       the lock; threads come and go; fork
 *   world_stop.c  stopping and going on; blocking
 *   stack.c       stacks: noting what was in registers, coroutines, visiting all that a thread has
 */
#ifndef VMKI_MUTATOR_H
#define VMKI_MUTATOR_H

#include "common/gc/world.h"

typedef struct vmki_pool {
    unsigned char *fresh; /* memory that was never used */
    size_t left;
} vmki_pool;

typedef struct vmki_world {
    vmki_os_lock lock; /* all below but for the last four */
    bool prepared;
    bool fork_prepared;
    vmk_status status; /* of what the system says to stopping threads */
    vmki_mutator *first;
    size_t count;
    vmki_mutator *spare;
    vmki_pool mutators;
    vmk_gc_stack *stacks;
    vmk_gc_stack *spare_stacks;
    vmki_pool pool_of_stacks;
    size_t over;           /* atomic; mutators that are */
    size_t missing;        /* atomic; mutators that are ASKED, and whoever is about to say that one no longer is */
    size_t told;           /* atomic; how many were, or more: no more than a hint */
    vmki_os_event arrived; /* nobody is missing, or nobody who wasn't told; or one was told */
} vmki_world;

extern vmki_world vmki_the_world;

/* While the world is stopped: has it anything to look at? */
static inline bool vmki_mutator_is_there(const vmki_mutator *mutator)
{
    uint32_t state = VMKI_LOAD_32(&mutator->state);
    return state < VMKI_ENDED && !(state == VMKI_STOPPED && mutator->stands == VMKI_STANDS_GONE);
}

/* --- world.c ------------------------------------------------------------------------------------------------------ */

/* Memory for a record, zeroed, never given back. NULL: *status. Under the lock. */
void *vmki_pool_take(vmki_pool *pool, size_t size, vmk_status *status);

/* The thread has ended without telling: all that it had is given back. Under the lock. */
void vmki_mutator_bury(vmki_mutator *mutator);

/* --- world_stop.c ------------------------------------------------------------------------------------------------- */

/* Called in a thread that was interrupted. */
void vmki_mutator_here(vmki_os_mutator *mutator, void *sp);

/* Become BLOCKED, or HELD; what is in registers has been noted. And from there what `state` says: it waits while it is
 * HELD. */
void vmki_mutator_rest(vmki_mutator *mutator);
void vmki_mutator_become(vmki_mutator *mutator, enum vmki_mutator_state state);

/* --- stack.c ------------------------------------------------------------------------------------------------------ */

/* Note what the callers of the function that has this frame (VMKI_FRAME_ADDRESS) had in registers. Answers an address
 * below all frames of now. The thread itself, inside. */
void *vmki_left_note(vmki_mutator *mutator, vmki_left *left, void *frame);

/* How many bytes vmki_os_registers_save writes is found out. Under the lock. */
void vmki_left_prepare(void);

/* The thread itself leaves the stack that it is on: sp and registers are noted there. Inside. */
void vmki_stack_leave(vmki_mutator *mutator, void *frame);

/* What is on it, nobody needs any more. */
void vmki_stack_clear(vmk_gc_stack *stack);

#endif
