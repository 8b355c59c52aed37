/* SPDX-License-Identifier: MIT
 *
 * The world's lock; threads that come and go; fork.
 *
 * A thread that waits for the lock is BLOCKED, so whoever has it may stop the world. It is RUNNING again as soon as it
 * has the lock, for then nobody stops anything. The loader's lock comes after this one: who has that already must not
 * wait for this. The record of a thread that has ended is used again by later ones and
 * never given back: who stops the world, or signals an event, may look at it a moment longer.
 */
#include "common/gc/world.h"

#include <string.h>

#include "common/base/check.h"
#include "common/gc/mutator.h"
#include "common/heap/heap.h"
#include "common/vm/vm.h"

#define BLOCK_SIZE ((size_t)64 << 10)

vmki_world vmki_the_world;

/* --- the lock ----------------------------------------------------------------------------------------------------- */

static void mutator_take_out(vmki_mutator *mutator);

/* For the calling thread, whose mutator that is. */
static void lock_as(vmki_mutator *mutator)
{
    if (mutator == NULL || mutator->blocks) { /* it is BLOCKED anyway */
        vmki_os_lock_acquire(&vmki_the_world.lock);
        return;
    }
    vmki_mutator_enter(mutator);
    if (!mutator->noted)
        mutator->sp = vmki_left_note(mutator, &mutator->left, VMKI_FRAME_ADDRESS());
    mutator->stands = VMKI_STANDS_NOTED;
    vmki_mutator_rest(mutator);
    VMKI_STORE_RELAXED(&mutator->inside, 0); /* it parks nowhere now */
    vmki_os_lock_acquire(&vmki_the_world.lock);
    VMKI_ASSERT(vmki_cas_32(&mutator->state, VMKI_BLOCKED, VMKI_RUNNING));
}

static bool some_are_over(void)
{
    return (intptr_t)VMKI_LOAD(&vmki_the_world.over) > 0;
}

/* Those who have ended in the meantime. Under the lock. */
static void bury_over(void)
{
    if (!some_are_over())
        return;
    for (vmki_mutator *mutator = vmki_the_world.first, *next; mutator != NULL; mutator = next) {
        next = mutator->next;
        if (VMKI_LOAD_32(&mutator->state) != VMKI_OVER)
            continue;
        VMKI_FETCH_ADD(&vmki_the_world.over, SIZE_MAX);
        mutator_take_out(mutator);
    }
}

void vmki_world_lock(void)
{
    lock_as(vmki_mutator_self());
    bury_over();
}

void vmki_world_note(void *frame)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self == NULL || self->blocks)
        return;
    vmki_mutator_enter(self); /* or one who stops it would write over it */
    (void)vmki_left_note(self, &self->left, frame);
    self->sp = frame;
    self->noted = true;
    vmki_mutator_leave(self);
}

/* Whoever ends and finds the lock held leaves it to who has it. */
void vmki_world_unlock(void)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self != NULL)
        self->noted = false;
    do {
        vmki_os_lock_release(&vmki_the_world.lock);
        if (!some_are_over() || !vmki_os_lock_try(&vmki_the_world.lock))
            return;
        bury_over();
    } while (true);
}

/* --- mutators ----------------------------------------------------------------------------------------------------- */

vmki_mutator *vmki_world_mutators(void)
{
    return vmki_the_world.first;
}

size_t vmki_world_count(void)
{
    return vmki_the_world.count;
}

static vmk_status pool_more(vmki_pool *pool)
{
    vmk_region region; /* forgotten */
    vmk_status status = vmki_region_get(&region, BLOCK_SIZE);
    if (status != VMK_OK)
        return status;
    pool->fresh = region.base;
    pool->left = region.size;
    return VMK_OK;
}

void *vmki_pool_take(vmki_pool *pool, size_t size, vmk_status *status)
{
    size = vmki_ceil(size, 64); /* of a thread's own lines, and aligned for whatever is in it */
    if (pool->left < size) {
        *status = pool_more(pool);
        if (*status != VMK_OK)
            return NULL;
    }
    void *record = pool->fresh;
    pool->fresh += size;
    pool->left -= size;
    return record;
}

static vmk_status mutator_make(vmki_mutator **result)
{
    vmk_status status = VMK_OK;
    vmki_world_lock();
    vmki_mutator *mutator = vmki_the_world.spare;
    if (mutator != NULL) {
        vmki_the_world.spare = mutator->next;
        memset(mutator, 0, sizeof *mutator);
    } else {
        mutator = vmki_pool_take(&vmki_the_world.mutators, sizeof *mutator, &status);
    }
    vmki_world_unlock();
    *result = mutator;
    return status;
}

/* Under the lock. */
static void mutator_keep(vmki_mutator *mutator)
{
    mutator->next = vmki_the_world.spare;
    vmki_the_world.spare = mutator;
}

/* From now on the world stops it. */
static void mutator_link(vmki_mutator *mutator)
{
    vmki_world_lock();
    mutator->previous = NULL;
    mutator->next = vmki_the_world.first;
    if (mutator->next != NULL)
        mutator->next->previous = mutator;
    vmki_the_world.first = mutator;
    vmki_the_world.count++;
    vmki_world_unlock();
}

/* Under the lock. */
static void mutator_take_out(vmki_mutator *mutator)
{
    vmki_gc_thread_ends(mutator);
    VMKI_STORE_RELAXED(&mutator->stack->mutator, NULL);
    if (mutator->previous != NULL)
        mutator->previous->next = mutator->next;
    else
        vmki_the_world.first = mutator->next;
    if (mutator->next != NULL)
        mutator->next->previous = mutator->previous;
    vmki_the_world.count--;
    mutator_keep(mutator);
}

void vmki_mutator_bury(vmki_mutator *mutator)
{
    if (VMKI_LOAD_32(&mutator->state) == VMKI_OVER)
        VMKI_FETCH_ADD(&vmki_the_world.over, SIZE_MAX);
    else
        vmki_os_mutator_forget(&mutator->os);
    mutator_take_out(mutator);
}

/* It ends on a coroutine's stack, which outlives it. */
static void stack_end(vmki_mutator *mutator, void *frame)
{
    if (mutator->stack == &mutator->own)
        return;
    vmki_mutator_enter(mutator);
    vmki_stack_leave(mutator, frame);
    vmki_mutator_leave(mutator);
}

/* The calling thread is no mutator any more. It does not wait for the lock, for it may have the loader's, which is
 * taken later than that (Windows calls at_thread_end so): somebody else buries it, if need be. It only waits while the
 * world is stopped, for then its stack is looked at. */
static void mutator_end(vmki_mutator *mutator, void *frame)
{
    stack_end(mutator, frame);
    if (!mutator->blocks) {
        vmki_mutator_enter(mutator);
        mutator->sp = vmki_left_note(mutator, &mutator->left, frame);
        mutator->stands = VMKI_STANDS_NOTED;
        vmki_mutator_rest(mutator);
        VMKI_STORE_RELAXED(&mutator->inside, 0);
    }
    if (vmki_mutator_self() == mutator)
        vmki_os_mutator_set(NULL);
    vmki_mutator_become(mutator, VMKI_ENDED);
    vmki_os_mutator_forget(&mutator->os);
    (void)VMKI_EXCHANGE(&mutator->state, (uint32_t)VMKI_OVER);
    VMKI_FETCH_ADD(&vmki_the_world.over, 1); /* it may be buried already: then that was less than 0 */
    if (vmki_os_lock_try(&vmki_the_world.lock)) {
        bury_over();
        vmki_world_unlock();
    }
}

/* Called in a thread that ends. */
static void at_thread_end(vmki_os_mutator *os)
{
    mutator_end((vmki_mutator *)(void *)os, VMKI_FRAME_ADDRESS());
}

/* --- fork --------------------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
    vmki_world_lock();
    vmki_gc_before_fork();
}

static void after_fork(void)
{
    vmki_gc_after_fork(false);
    vmki_world_unlock();
}

/* Of all threads this one alone is here, which may be a mutator. The locks of heaps are free again: their layer
 * registered earlier, so it is called earlier. The stacks of others hold nothing that anybody will come back to. */
static void after_fork_in_child(void)
{
    vmki_mutator *self = vmki_mutator_self();
    vmki_gc_after_fork(true);
    for (vmki_mutator *mutator = vmki_the_world.first, *next; mutator != NULL; mutator = next) {
        next = mutator->next;
        if (mutator == self)
            continue;
        vmki_stack_clear(mutator->stack);
        vmki_mutator_bury(mutator);
    }
    vmki_the_world.missing = vmki_the_world.over = 0;
    if (self != NULL)
        self->id = vmki_os_thread_id();
    vmki_world_unlock();
}

/* --- the world ---------------------------------------------------------------------------------------------------- */

/* Registering for fork may itself wait for a fork, which waits for the lock: so it is done without. */
vmk_status vmki_world_prepare(void)
{
    vmki_heaps_prepare(); /* their locks are taken later than the world's */
    vmki_world_lock();
    if (!vmki_the_world.prepared) {
        vmki_the_world.status = vmki_os_world_init(vmki_mutator_here, at_thread_end);
        vmki_the_world.prepared =
            vmki_the_world.status == VMK_OK || vmki_the_world.status == VMK_ERR_UNSUPPORTED; /* others may pass */
        vmki_left_prepare();
    }
    vmk_status status = vmki_the_world.status;
    bool first = !vmki_the_world.fork_prepared;
    vmki_the_world.fork_prepared = true;
    vmki_world_unlock();
    if (first)
        vmki_os_at_fork(before_fork, after_fork, after_fork_in_child);
    return status;
}

/* --- the public part ---------------------------------------------------------------------------------------------- */

static void mutator_begin(vmki_mutator *mutator)
{
    mutator->id = vmki_os_thread_id();
    mutator->registrations = 1;
    mutator->own.low = mutator->os.stack_low;
    mutator->own.high = mutator->own.sp = mutator->os.stack_high;
    mutator->own.mutator = mutator;
    mutator->stack = &mutator->own;
}

static vmk_status thread_register(void)
{
    vmki_mutator *mutator;
    vmk_status status = vmki_world_prepare();
    if (status != VMK_OK && status != VMK_ERR_UNSUPPORTED) /* then it stops at safe points */
        return status;
    status = mutator_make(&mutator);
    if (status != VMK_OK)
        return status;
    status = vmki_os_mutator_describe(&mutator->os);
    if (status != VMK_OK) {
        vmki_world_lock();
        mutator_keep(mutator);
        vmki_world_unlock();
        return status;
    }
    mutator_begin(mutator);
    vmki_os_mutator_set(&mutator->os); /* may allocate: without the lock, and before anybody interrupts it */
    mutator_link(mutator);
    return VMK_OK;
}

vmk_status vmk_gc_thread_register(void)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self != NULL) {
        self->registrations++;
        return VMK_OK;
    }
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = thread_register();
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmk_gc_thread_unregister(void)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self == NULL)
        vmki_misuse("vmk_gc_thread_unregister: not a registered thread", NULL);
    if (--self->registrations > 0)
        return;
    vmki_os_error before = vmki_os_error_get();
    mutator_end(self, VMKI_FRAME_ADDRESS());
    vmki_os_error_set(before);
}
