/* SPDX-License-Identifier: MIT
 *
 * Stopping the world, and letting it go on.
 *
 * Who changes a mutator's state: see world.h. All changes are atomic, so that whoever is stopped or goes to rest by
 * itself, and whoever suspends it (Windows) or gives up waiting for it, agree on what it is. `missing` counts those
 * that are ASKED; who changes one from ASKED takes it off, and who takes off the last one signals.
 *
 * A thread waits for its event `go` in one place at a time: parking it is `inside`, so that its handler does nothing,
 * and HELD it isn't ASKED. So resetting the event takes away nobody's signal.
 *
 * The vm lock. A thread that is stopped where it was interrupted may hold it, since any thread may be in vmk_commit;
 * but the cycle needs it. So whoever stops takes it first, lest it is caught in somebody's hands. Only threads that are
 * `inside` may need it to get out; they have been told then, and will park by themselves when they leave, without it.
 * Once there is a moment at which who stops has the lock and all others stand or have been told, it can be released:
 * who stands doesn't hold it, and who was told won't when it stands. (Who is HELD may, for a moment, and then releases
 * it.)
 *
 * What may go wrong with that: a thread that has the signal blocked waits for the vm lock, or for another that somebody
 * holds who stands, and never gets to unblock it; or whoever was to wake the next one that waits for a lock is stopped
 * when it has released it and before it wakes. So the lock is released now and then, and taken again if it can be had.
 * A thread that is interrupted while it waits for a lock looks at it again (POSIX), and they are interrupted again and
 * again. And when nothing happens for some time, all go on for a moment, and it is tried again, more patiently.
 *
 * In a cooperative collection threads stop at safe points, which are nowhere where the lock is held.
 */
#include "common/base/check.h"
#include "common/gc/mutator.h"
#include "common/vm/vm.h"

enum {
    REPEAT = 4000000, /* nanoseconds until a thread that has not come is interrupted again */
    BREATH = 300000,  /* that others may have the vm lock in between */
    BREATHS_LONGER = 5,
    TRIES = 50,          /* to get it back */
    PATIENCE_FIRST = 12, /* repeats without any progress; then they all may go on for a moment, */
    PATIENCE_LAST = 400, /* and next time it is twice as many, up to this */
    PAUSE = 1000000
};
#define FOREVER UINT64_MAX

/* --- the threads' side -------------------------------------------------------------------------------------------- */

/* It was ASKED until now. When only such are missing as were told, who stops wants to know it too. */
static void arrive(void)
{
    if (VMKI_FETCH_ADD(&vmki_the_world.missing, SIZE_MAX) - 1 <= VMKI_LOAD(&vmki_the_world.told))
        vmki_os_event_signal(&vmki_the_world.arrived);
}

/* If it is ASKED: be STOPPED until the world goes on. */
static void stand_still(vmki_mutator *mutator)
{
    if (!vmki_cas_32(&mutator->state, VMKI_ASKED, VMKI_STOPPED))
        return;
    arrive();
    for (;;) {
        vmki_os_event_reset(&mutator->go);
        if (VMKI_LOAD_32(&mutator->state) != VMKI_STOPPED)
            return;
        (void)vmki_os_event_wait(&mutator->go, FOREVER);
    }
}

/* An interrupt that comes late finds a mutator that is not ASKED, or wanted LATER only. */
void vmki_mutator_here(vmki_os_mutator *os, void *sp)
{
    vmki_mutator *mutator = (vmki_mutator *)(void *)os;
    if (VMKI_LOAD_32(&mutator->state) != VMKI_ASKED || VMKI_LOAD_RELAXED(&mutator->wanted) != VMKI_WANTED_NOW)
        return;
    if (VMKI_LOAD_RELAXED(&mutator->inside) != 0) {
        (void)VMKI_EXCHANGE(&mutator->told, 1u);
        VMKI_FETCH_ADD(&vmki_the_world.told, 1);
        vmki_os_event_signal(&vmki_the_world.arrived);
        return;
    }
    mutator->sp = sp;
    mutator->stands = VMKI_STANDS_HERE;
    mutator->alternate = vmki_os_alternate_stack(&mutator->alternate_low, &mutator->alternate_high);
    stand_still(mutator);
}

/* As long as it is wanted now: the next stop may have begun. For one that can wait there will be another safe point. */
void vmki_mutator_park(vmki_mutator *mutator)
{
    do {
        vmki_mutator_enter(mutator);
        if (VMKI_LOAD_32(&mutator->state) == VMKI_ASKED) {
            mutator->sp = vmki_left_note(mutator, &mutator->left, VMKI_FRAME_ADDRESS());
            mutator->stands = VMKI_STANDS_NOTED;
            stand_still(mutator);
        }
        VMKI_SIGNAL_FENCE();
        VMKI_STORE_RELAXED(&mutator->inside, 0);
        VMKI_SIGNAL_FENCE();
    } while (VMKI_LOAD_RELAXED(&mutator->wanted) == VMKI_WANTED_NOW && VMKI_LOAD_32(&mutator->state) == VMKI_ASKED);
}

void vmki_mutator_rest(vmki_mutator *mutator)
{
    for (;;) {
        if (vmki_cas_32(&mutator->state, VMKI_RUNNING, VMKI_BLOCKED))
            return;
        if (vmki_cas_32(&mutator->state, VMKI_ASKED, VMKI_HELD)) {
            arrive();
            return;
        }
    }
}

void vmki_mutator_become(vmki_mutator *mutator, enum vmki_mutator_state state)
{
    for (;;) {
        vmki_os_event_reset(&mutator->go);
        if (vmki_cas_32(&mutator->state, VMKI_BLOCKED, (uint32_t)state))
            return;
        (void)vmki_os_event_wait(&mutator->go, FOREVER);
    }
}

/* --- stopping ----------------------------------------------------------------------------------------------------- */

static void ask(vmki_mutator *mutator, bool cooperative)
{
    VMKI_STORE_RELAXED(&mutator->told, 0);
    VMKI_STORE_RELAXED(&mutator->wanted, cooperative ? VMKI_WANTED_LATER : VMKI_WANTED_NOW);
    VMKI_FETCH_ADD(&vmki_the_world.missing, 1);
    for (;;) {
        if (vmki_cas_32(&mutator->state, VMKI_RUNNING, VMKI_ASKED))
            return;
        if (vmki_cas_32(&mutator->state, VMKI_BLOCKED, VMKI_HELD) || VMKI_LOAD_32(&mutator->state) >= VMKI_ENDED)
            break;
    }
    VMKI_FETCH_ADD(&vmki_the_world.missing, SIZE_MAX);
}

static void stop_suspended(vmki_mutator *mutator, enum vmki_stands stands)
{
    mutator->stands = stands;
    mutator->sp = mutator->os.sp;
    mutator->alternate = false;
    VMKI_ASSERT(vmki_cas_32(&mutator->state, VMKI_ASKED, VMKI_STOPPED));
    VMKI_FETCH_ADD(&vmki_the_world.missing, SIZE_MAX);
}

/* A suspended thread changes nothing: if it is ASKED and not inside, it is stopped by this. */
static void interrupt(vmki_mutator *mutator)
{
    if (VMKI_LOAD_32(&mutator->state) != VMKI_ASKED)
        return;
    vmki_os_interrupted how = vmki_os_interrupt(&mutator->os);
    if (how == VMKI_OS_CALLS_HERE)
        return;
    if (how == VMKI_OS_GONE) {
        stop_suspended(mutator, VMKI_STANDS_GONE);
        return;
    }
    if (VMKI_LOAD_32(&mutator->state) == VMKI_ASKED) {
        if (VMKI_LOAD_RELAXED(&mutator->inside) == 0) {
            stop_suspended(mutator, VMKI_STANDS_SUSPENDED);
            return;
        }
        VMKI_STORE_RELAXED(&mutator->told, 1);
        VMKI_FETCH_ADD(&vmki_the_world.told, 1);
    }
    vmki_os_resume(&mutator->os);
}

/* For the first time, or again after so many waits that came to nothing: ever more seldom, for the signals of who has
 * them blocked pile up. */
static void interrupt_all(const vmki_mutator *self, unsigned waits)
{
    if ((waits & (waits - 1)) != 0)
        return;
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
        if (mutator != self)
            interrupt(mutator);
}

/* Mutators that may be anywhere yet. */
static size_t untold(const vmki_mutator *self)
{
    size_t count = 0;
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
        if (mutator != self && VMKI_LOAD_32(&mutator->state) == VMKI_ASKED && VMKI_LOAD_32(&mutator->told) == 0)
            count++;
    return count;
}

/* Let others have it, longer the more often that was in vain. Nobody can hold it for long who isn't stopped. */
static bool vm_lock_again(unsigned waits)
{
    vmki_os_event never = {{0}};
    uint64_t breath = (uint64_t)BREATH << (waits < BREATHS_LONGER ? waits : BREATHS_LONGER);
    vmki_vm_unlock();
    for (unsigned tries = 0; tries < TRIES; tries++) {
        (void)vmki_os_event_wait(&never, tries == 0 ? breath : BREATH);
        if (vmki_vm_trylock())
            return true;
    }
    return false;
}

/* Wait for news of those that are missing, `count` now. True: there was none for so long that they have been
 * interrupted again; *waits: how often that was so since there were fewer of them. */
static bool nothing_new(const vmki_mutator *self, size_t count, size_t *before, unsigned *waits)
{
    if (vmki_os_event_wait(&vmki_the_world.arrived, REPEAT))
        return false;
    *waits = count < *before ? 0 : *waits + 1;
    *before = count;
    interrupt_all(self, *waits);
    return true;
}

/* Wait until all that were asked stand, or are told. The vm lock is held, and released. False: they don't. */
static bool all_are_told(const vmki_mutator *self, unsigned patience)
{
    size_t before = SIZE_MAX;
    for (unsigned waits = 0; waits < patience;) {
        vmki_os_event_reset(&vmki_the_world.arrived);
        size_t count = untold(self);
        if (count == 0) {
            vmki_vm_unlock();
            return true;
        }
        if (nothing_new(self, count, &before, &waits) && !vm_lock_again(waits))
            return false;
    }
    vmki_vm_unlock();
    return false;
}

/* Wait until those who were told stand too. */
static bool all_come(const vmki_mutator *self, unsigned patience)
{
    size_t before = SIZE_MAX;
    for (unsigned waits = 0; waits < patience;) {
        vmki_os_event_reset(&vmki_the_world.arrived);
        size_t count = VMKI_LOAD(&vmki_the_world.missing);
        if (count == 0)
            return true;
        (void)nothing_new(self, count, &before, &waits);
    }
    return false;
}

static void all_stop(const vmki_mutator *self)
{
    vmki_os_event never = {{0}};
    for (unsigned patience = PATIENCE_FIRST;; patience = patience < PATIENCE_LAST ? 2 * patience : patience) {
        vmki_vm_lock();
        VMKI_STORE_RELAXED(&vmki_the_world.told, 0);
        for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
            if (mutator != self)
                ask(mutator, false);
        interrupt_all(self, 0);
        if (all_are_told(self, patience) && all_come(self, patience))
            return;
        vmki_world_resume();
        (void)vmki_os_event_wait(&never, PAUSE);
    }
}

static void all_stop_at_safe_points(const vmki_mutator *self)
{
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
        if (mutator != self)
            ask(mutator, true);
    for (;;) {
        vmki_os_event_reset(&vmki_the_world.arrived);
        if (VMKI_LOAD(&vmki_the_world.missing) == 0)
            return;
        (void)vmki_os_event_wait(&vmki_the_world.arrived, FOREVER);
    }
}

size_t vmki_world_stop(bool cooperative, uint64_t *nanoseconds)
{
    vmki_mutator *self = vmki_mutator_self();
    uint64_t start = vmki_os_clock();
    if (self != NULL && !self->noted) { /* what the caller's callers had; what it does on, is below */
        (void)vmki_left_note(self, &self->left, VMKI_FRAME_ADDRESS());
        self->sp = VMKI_FRAME_ADDRESS();
        self->stands = VMKI_STANDS_NOTED;
    }
    if (cooperative)
        all_stop_at_safe_points(self);
    else
        all_stop(self);
    size_t stopped = 0;
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
        stopped += mutator != self && vmki_mutator_is_there(mutator);
    *nanoseconds = vmki_os_clock() - start;
    return stopped;
}

/* --- going on ----------------------------------------------------------------------------------------------------- */

/* What is suspended goes on first: signalling an event takes a lock, on Windows. */
static void resume_suspended(vmki_mutator *mutator)
{
    if (VMKI_LOAD_32(&mutator->state) != VMKI_STOPPED || mutator->stands != VMKI_STANDS_SUSPENDED)
        return;
    (void)VMKI_EXCHANGE(&mutator->state, (uint32_t)VMKI_RUNNING);
    vmki_os_resume(&mutator->os);
}

/* Those that were ASKED in vain may just be coming. */
static void resume(vmki_mutator *mutator)
{
    for (;;) {
        switch (VMKI_LOAD_32(&mutator->state)) {
        case VMKI_ASKED:
            if (!vmki_cas_32(&mutator->state, VMKI_ASKED, VMKI_RUNNING))
                continue;
            VMKI_FETCH_ADD(&vmki_the_world.missing, SIZE_MAX);
            return;
        case VMKI_STOPPED:
            if (mutator->stands == VMKI_STANDS_GONE) /* later */
                return;
            (void)VMKI_EXCHANGE(&mutator->state, (uint32_t)VMKI_RUNNING);
            vmki_os_event_signal(&mutator->go);
            return;
        case VMKI_HELD:
            (void)VMKI_EXCHANGE(&mutator->state, (uint32_t)VMKI_BLOCKED);
            vmki_os_event_signal(&mutator->go);
            return;
        default:
            return;
        }
    }
}

void vmki_world_resume(void)
{
    vmki_mutator *self = vmki_mutator_self(), *next;
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next) {
        VMKI_STORE_RELAXED(&mutator->wanted, VMKI_WANTED_NOT);
        if (mutator != self)
            resume_suspended(mutator);
    }
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
        if (mutator != self)
            resume(mutator);
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = next) {
        next = mutator->next;
        if (mutator != self && VMKI_LOAD_32(&mutator->state) == VMKI_STOPPED) { /* gone */
            vmki_stack_clear(mutator->stack);
            vmki_mutator_bury(mutator);
        }
    }
}

/* --- the public part ---------------------------------------------------------------------------------------------- */

void vmk_gc_safepoint(void)
{
    vmki_mutator *self = vmki_mutator_self();
    if (VMKI_LIKELY(self != NULL))
        vmki_mutator_poll(self);
}

void vmk_gc_blocking_enter(void)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self == NULL || self->blocks)
        vmki_misuse(self == NULL ? "vmk_gc_blocking_enter: not a registered thread"
                                 : "vmk_gc_blocking_enter: it has been called before",
                    NULL);
    vmki_mutator_enter(self);
    (void)vmki_left_note(self, &self->left, VMKI_FRAME_ADDRESS());
    self->sp = VMKI_FRAME_ADDRESS();
    self->stands = VMKI_STANDS_NOTED;
    self->blocks = true;
    vmki_mutator_rest(self);
    VMKI_SIGNAL_FENCE();
    VMKI_STORE_RELAXED(&self->inside, 0);
}

void vmk_gc_blocking_leave(void)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self == NULL || !self->blocks)
        vmki_misuse("vmk_gc_blocking_leave: without vmk_gc_blocking_enter", NULL);
    vmki_mutator_become(self, VMKI_RUNNING);
    self->blocks = false;
}
