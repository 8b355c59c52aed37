/* SPDX-License-Identifier: MIT
 *
 * The threads that the collector knows, of the whole process: all collected heaps share them, since any thread's stack
 * may hold pointers into any of them. One collection at a time stops them all.
 *
 * How a thread is stopped. Whoever stops sets `wanted` in each mutator, makes it ASKED, and interrupts it (not in a
 * cooperative collection). A thread that is `inside` (it holds a slot that it has taken and nobody else knows of) is
 * let out first: on leaving it sees `wanted` and parks. A thread that is BLOCKED stands still as far as objects go, and
 * becomes HELD: it can't leave before the world goes on. Whatever way it was stopped, what it had in registers is in
 * memory.
 *
 *             ask            stands still                          ask
 *   RUNNING ------> ASKED ------------------> STOPPED     BLOCKED ------> HELD      RUNNING -> BLOCKED, ASKED -> HELD:
 *      ^              |                          |           ^              |       the thread itself, on entering.
 *      |   given up   |         resume           |           |    resume    |       BLOCKED -> RUNNING: on leaving.
 *      `--------------+--------------------------'           `--------------'
 *
 * Locks, in the order in which they are taken: the world's lock; [the loader's]; a gc's lock; those of the heap layer.
 * The world's lock is waited for as BLOCKED.
 */
#ifndef VMKI_WORLD_H
#define VMKI_WORLD_H

#include "common/base/os_world.h"
#include "os_self.h"

enum { VMKI_GCS_MAX = 64 }; /* collected heaps at once */

/* mutator->wanted. LATER is a cooperative stop: a thread that has just taken a slot may go on to its next safe point,
 * for what it has taken may be rooted nowhere yet. */
enum vmki_wanted { VMKI_WANTED_NOT, VMKI_WANTED_NOW, VMKI_WANTED_LATER };

enum vmki_mutator_state {
    VMKI_RUNNING,
    VMKI_ASKED,
    VMKI_STOPPED,
    VMKI_BLOCKED,
    VMKI_HELD,
    VMKI_ENDED, /* after BLOCKED: a thread that ends, and has nothing any more that anybody may look at; */
    VMKI_OVER   /* it needs its record no more */
};

/* Where the registers of a thread are that stands still. */
enum vmki_stands {
    VMKI_STANDS_HERE,      /* on its stack, at sp or above */
    VMKI_STANDS_NOTED,     /* in `left` */
    VMKI_STANDS_SUSPENDED, /* in os.registers */
    VMKI_STANDS_GONE       /* nowhere: the thread has ended, and its stack with it */
};

/* What the callers of a function had in the registers that it must preserve for them. */
enum { VMKI_LEFT_WORDS = 112 };
typedef struct vmki_left {
    size_t count; /* 0: nothing */
    uintptr_t words[VMKI_LEFT_WORDS];
} vmki_left;

struct vmk_gc_stack {
    struct vmk_gc_stack *next; /* of all that are registered; a thread's own isn't */
    struct vmk_gc_stack *previous;
    void *low;
    void *high;
    void *sp;                     /* where it was left; `high` if nobody was ever on it */
    struct vmki_mutator *mutator; /* that runs on it, or NULL; atomic */
    bool seen;                    /* by the visit that is going on */
    vmki_left left;               /* when it was; good until a thread is known to be on it again */
};

struct vmki_gc_cache;

typedef struct vmki_mutator {
    vmki_os_mutator os; /* must be first */
    uintptr_t inside;   /* written by the thread alone, plainly: read when it stands still, or by its own handler */
    uintptr_t wanted;   /* atomic; enum vmki_wanted */
    uint32_t state;     /* atomic; enum vmki_mutator_state */
    uint32_t told;      /* atomic; it was inside when it was interrupted: it will park on leaving */
    uint32_t stands;    /* enum vmki_stands; when it is not RUNNING nor ASKED, as the next two */
    void *sp;           /* what is in use of the stack that it is on begins here */
    vmki_left left;
    uintptr_t id;     /* of the thread, as the system has it */
    vmki_os_event go; /* what a parked thread waits for */
    unsigned registrations;
    struct vmki_gc_cache *caches[VMKI_GCS_MAX]; /* by the number of the heap */
    struct vmk_gc_stack own;
    struct vmk_gc_stack *stack; /* that it is on as far as it has said */
    bool noted;                 /* sp and `left` are those of vmki_world_note */
    bool blocks;                /* between blocking_enter and blocking_leave */
    bool alternate;             /* HERE, on an alternate signal stack: */
    void *alternate_low;
    void *alternate_high;
    struct vmki_mutator *next; /* of all; under the world's lock */
    struct vmki_mutator *previous;
} vmki_mutator;

/* The calling thread's, or NULL. */
static inline vmki_mutator *vmki_mutator_self(void)
{
    return (vmki_mutator *)(void *)vmki_os_mutator_self();
}

/* --- world.c ------------------------------------------------------------------------------------------------------ */

/* Park until nobody wants the thread to stand still. Its registers are saved first. */
VMKI_COLD void vmki_mutator_park(vmki_mutator *mutator);

/* Between these two the thread isn't stopped: it may hold what nobody else knows of. Not for long, no waiting. */
static inline void vmki_mutator_enter(vmki_mutator *mutator)
{
    VMKI_STORE_RELAXED(&mutator->inside, 1);
    VMKI_SIGNAL_FENCE();
}

static inline void vmki_mutator_leave(vmki_mutator *mutator)
{
    VMKI_SIGNAL_FENCE();
    VMKI_STORE_RELAXED(&mutator->inside, 0);
    VMKI_SIGNAL_FENCE();
    if (VMKI_UNLIKELY(VMKI_LOAD_RELAXED(&mutator->wanted) == VMKI_WANTED_NOW))
        vmki_mutator_park(mutator);
}

/* A safe point. Not inside. */
static inline void vmki_mutator_poll(vmki_mutator *mutator)
{
    if (VMKI_UNLIKELY(VMKI_LOAD_RELAXED(&mutator->wanted) != VMKI_WANTED_NOT))
        vmki_mutator_park(mutator);
}

/* Prepare all for threads: before the first heap, any number of times. VMK_ERR_UNSUPPORTED: they can be stopped at safe
 * points only. */
vmk_status vmki_world_prepare(void);

/* What the calling thread has on its stack ends at a frame (VMKI_FRAME_ADDRESS) of a function of this library, which
 * holds no more than it is given; what its callers had in registers is noted. So what lies in frames below, where dead
 * frames of the program were, is no root. Good until the world is unlocked. Does nothing for a thread that isn't
 * registered. */
void vmki_world_note(void *frame);

/* One collection at a time, and no thread comes or goes meanwhile. A registered thread that waits for it counts as
 * BLOCKED. It must not be inside, nor hold another lock. */
void vmki_world_lock(void);
void vmki_world_unlock(void);

/* Under the lock, and within vmki_os_with_libraries: stop all mutators but the calling thread, whose registers are
 * saved in its mutator if it has one, and whose sp is known. When it returns no stopped thread holds the vm lock.
 * Answers how many were stopped; *nanoseconds: how long it took. */
size_t vmki_world_stop(bool cooperative, uint64_t *nanoseconds);
void vmki_world_resume(void);

/* Under the lock: the first of all mutators. */
vmki_mutator *vmki_world_mutators(void);
size_t vmki_world_count(void);

/* While the world is stopped: what its threads may have pointers in. REGISTERS, STACK (also stacks that nobody runs on:
 * mutator is NULL then), THREAD_DATA. */
typedef void vmki_thread_visitor(void *context, vmk_gc_root kind, const vmki_mutator *mutator, const void *base,
                                 size_t size);
void vmki_world_visit(vmki_thread_visitor *visit, void *context);

/* Called by the world when a thread ends or unregisters, under the world's lock: its caches go. gc.c */
void vmki_gc_thread_ends(vmki_mutator *mutator);

/* Fork: the world registers its handlers when it is prepared; before the fork it takes its own lock, then calls the
 * first, which takes those of all heaps; in the child, after the second, all other mutators are forgotten: their caches
 * are flushed by vmki_gc_thread_ends. gc.c */
void vmki_gc_before_fork(void);
void vmki_gc_after_fork(bool in_child);

#endif
