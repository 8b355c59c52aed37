/* SPDX-License-Identifier: MIT
 *
 * Finalizers. An object has at most one, in a record that the object finds, from when it is set until it is about to
 * be called. A record is set, or waits in the queue; while its function runs the object may have a new one.
 *
 * Which time has come. When all that is reachable is marked, objects that are not and have a finalizer are candidates.
 * What candidates refer to must stay whole in any case, so it is marked: from the insides of each candidate, not the
 * candidate itself. A candidate that is marked after that is reached by a candidate (by itself, perhaps), and only by
 * such. Then
 *
 *   - all candidates without VMK_GC_ORDERED go to the queue,
 *   - of those with it the ones that are not marked do: nobody who has a finalizer to be run first reaches them. The
 *     others stay as they are, and get another chance in the next cycle. Where they reach themselves they are marked
 *     each time, and so wait for ever, as is promised.
 *
 * What waits in the queue is a root, so that an object which it reaches is not even a candidate before the finalizer
 * has run. All that costs is one marking of what only candidates reach. Ephemerons in there count as references, from
 * their key and themselves to the value.
 *
 * While a finalizer runs its object is kept alive by the stack of the thread that runs it, or, where stacks are no
 * roots, by a record.
 */
#include "common/gc/gc.h"

enum state { STATE_SET, STATE_WAITS, STATE_RUNS };

typedef struct finalizer {
    vmki_record record; /* the object; the chain of the queue that it is in, or of a cycle's candidates */
    vmk_gc_finalizer *call;
    void *context;
    enum state state;
    bool ordered;
} finalizer;

static inline finalizer *at(const vmki_finalizers *all, size_t number)
{
    return vmki_record_at(&all->records, number);
}

/* --- queues: under the lock -----------------------------------------------------------------------------------------
 */

static void queue_add(vmki_finalizers *all, vmki_queue *queue, size_t number, enum state state)
{
    at(all, number)->record.chain = (vmki_chain){.previous = queue->last};
    at(all, number)->state = state;
    if (queue->last != 0)
        at(all, queue->last)->record.chain.next = number;
    else
        queue->first = number;
    queue->last = number;
}

static void queue_remove(vmki_finalizers *all, vmki_queue *queue, size_t number)
{
    vmki_chain chain = at(all, number)->record.chain;
    if (chain.next != 0)
        at(all, chain.next)->record.chain.previous = chain.previous;
    else
        queue->last = chain.previous;
    if (chain.previous != 0)
        at(all, chain.previous)->record.chain.next = chain.next;
    else
        queue->first = chain.next;
}

static void wait_begin(vmki_finalizers *all, size_t number)
{
    queue_add(all, &all->queue, number, STATE_WAITS);
    VMKI_STORE_RELAXED(&all->waiting, all->waiting + 1);
}

static void wait_end(vmki_finalizers *all, size_t number)
{
    queue_remove(all, &all->queue, number);
    at(all, number)->state = STATE_SET;
    VMKI_STORE_RELAXED(&all->waiting, all->waiting - 1);
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

enum { SECOND = 1000000000 };

static bool stopping(const vmki_finalizers *all)
{
    return VMKI_LOAD_ACQUIRE(&all->stop) != 0;
}

/* What it runs is the program's, and touches objects. Without memory it tries again and again. */
static bool thread_register(vmki_finalizers *all)
{
    while (vmk_gc_thread_register() != VMK_OK) {
        vmki_os_event_reset(&all->event); /* what waits is looked for after that in any case */
        if (stopping(all))
            return false;
        (void)vmki_os_event_wait(&all->event, SECOND / 100);
    }
    return true;
}

static void thread_run(void *argument)
{
    vmki_gc *gc = argument;
    vmki_finalizers *all = &gc->finalizers;
    VMKI_STORE_RELAXED(&all->thread_id, vmki_os_thread_id());
    if (!thread_register(all))
        return;
    while (!stopping(all)) {
        if (vmk_gc_finalize(gc, 1) != 0)
            continue;
        vmk_gc_blocking_enter();
        while (!vmki_os_event_wait(&all->event, (uint64_t)SECOND * 3600))
            ;
        vmki_os_event_reset(&all->event);
        vmk_gc_blocking_leave();
    }
    vmk_gc_thread_unregister();
}

/* Have it, if the heap shall have one. Not inside: the C library has locks of its own for it. */
static vmk_status thread_ensure(vmki_gc *gc)
{
    vmki_finalizers *all = &gc->finalizers;
    vmk_status status = VMK_OK;
    if ((gc->flags & VMK_GC_FINALIZER_THREAD) == 0 || VMKI_LOAD_ACQUIRE(&all->runs))
        return VMK_OK;
    vmki_os_lock_acquire(&all->thread_lock);
    if (!all->runs) {
        vmki_os_event_reset(&all->event);
        status = vmki_os_thread_start(&all->thread, thread_run, gc);
        VMKI_STORE_RELEASE(&all->runs, status == VMK_OK);
    }
    vmki_os_lock_release(&all->thread_lock);
    return status;
}

void vmki_finalizers_wake(vmki_gc *gc)
{
    vmki_finalizers *all = &gc->finalizers;
    if ((gc->flags & VMK_GC_FINALIZER_THREAD) == 0 || VMKI_LOAD_RELAXED(&all->waiting) == 0)
        return;
    if (thread_ensure(gc) == VMK_OK) /* else there is no memory now: the next cycle tries again */
        vmki_os_event_signal(&all->event);
}

/* A finalizer that runs is waited for. It may need a collection to return, so this thread must not be waited for. */
static void thread_end(vmki_gc *gc)
{
    vmki_finalizers *all = &gc->finalizers;
    vmki_mutator *mutator = vmki_mutator_self();
    bool blocks = mutator != NULL && !mutator->blocks;
    if (VMKI_LOAD_RELAXED(&all->thread_id) == vmki_os_thread_id())
        vmki_misuse("vmk_gc_destroy: called by a finalizer that the heap's own thread runs", gc);
    VMKI_STORE_RELEASE(&all->stop, 1);
    vmki_os_event_signal(&all->event);
    if (blocks)
        vmk_gc_blocking_enter();
    vmki_os_thread_join(&all->thread);
    if (blocks)
        vmk_gc_blocking_leave();
}

void vmki_finalizers_fini(vmki_gc *gc)
{
    vmki_finalizers *all = &gc->finalizers;
    if (all->runs)
        thread_end(gc);
    vmki_map_fini(&all->set);
    vmki_records_fini(&all->records);
    *all = (vmki_finalizers){.runs = false};
}

void vmki_finalizers_forget(vmki_gc *gc)
{
    vmki_finalizers *all = &gc->finalizers;
    all->runs = false;
    all->thread_lock = (vmki_os_lock){0};
    all->event = (vmki_os_event){{0}};
    all->stop = 0;
    all->thread_id = 0;
}

/* --- what the program calls --------------------------------------------------------------------------------------- */

/* One that waits is set again: whoever says so has the object, so its time has not come yet. */
static vmk_status record_set(vmki_finalizers *all, uintptr_t object, const finalizer *wanted)
{
    uintptr_t *number = vmki_map_find(&all->set, object);
    if (number == NULL) {
        vmk_status status = vmki_records_reserve(&all->records, sizeof(finalizer));
        if (status == VMK_OK)
            status = vmki_map_add(&all->set, object, &number);
        if (status != VMK_OK)
            return status;
        *number = vmki_records_take(&all->records, object);
    } else if (at(all, *number)->state == STATE_WAITS) {
        wait_end(all, *number);
    }
    finalizer *f = at(all, *number);
    f->call = wanted->call;
    f->context = wanted->context;
    f->ordered = wanted->ordered;
    return VMK_OK;
}

vmk_status vmk_gc_finalizer_set(vmk_gc *view, void *object, vmk_gc_finalizer *call, void *context, unsigned flags)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_finalizer_set");
    finalizer wanted = {.call = call, .context = context, .ordered = (flags & VMK_GC_ORDERED) != 0};
    vmki_os_error before = vmki_os_error_get();
    (void)vmki_gc_object_require(gc, object, "vmk_gc_finalizer_set: not an object of this heap");
    if ((flags & ~(unsigned)VMK_GC_ORDERED) != 0)
        return VMK_ERR_ARGUMENT;
    if (call == NULL) {
        vmki_finalizer_drop(gc, (uintptr_t)object);
        return VMK_OK;
    }
    vmk_status status = thread_ensure(gc);
    if (status == VMK_OK) {
        vmki_gc_acquire(&gc->finalizers.lock);
        status = record_set(&gc->finalizers, (uintptr_t)object, &wanted);
        vmki_gc_release(&gc->finalizers.lock);
    }
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmki_finalizer_drop(vmki_gc *gc, uintptr_t object)
{
    vmki_finalizers *all = &gc->finalizers;
    if (vmki_records_count(&all->records) == 0)
        return;
    vmki_gc_acquire(&all->lock);
    const uintptr_t *known = vmki_map_find(&all->set, object);
    if (known != NULL) {
        size_t number = *known;
        if (at(all, number)->state == STATE_WAITS)
            wait_end(all, number);
        (void)vmki_map_remove(&all->set, object);
        vmki_records_give(&all->records, number);
    }
    vmki_gc_release(&all->lock);
}

/* The first that waits, out of the queue; its record lives on if it is to keep the object alive: *running. */
static bool first_take(vmki_gc *gc, finalizer *taken, size_t *running)
{
    vmki_finalizers *all = &gc->finalizers;
    bool keep = (gc->flags & VMK_GC_NO_STACKS) != 0 || vmki_mutator_self() == NULL;
    vmki_gc_acquire(&all->lock);
    size_t number = all->queue.first;
    if (number != 0) {
        *taken = *at(all, number);
        wait_end(all, number);
        (void)vmki_map_remove(&all->set, taken->record.object);
        if (keep)
            queue_add(all, &all->running, number, STATE_RUNS);
        else
            vmki_records_give(&all->records, number);
    }
    *running = keep ? number : 0;
    vmki_gc_release(&all->lock);
    return number != 0;
}

static void running_end(vmki_finalizers *all, size_t number)
{
    vmki_gc_acquire(&all->lock);
    queue_remove(all, &all->running, number);
    vmki_records_give(&all->records, number);
    vmki_gc_release(&all->lock);
}

static bool first_run(vmki_gc *gc)
{
    finalizer taken;
    size_t running;
    if (!first_take(gc, &taken, &running))
        return false;
    void *volatile object = (void *)taken.record.object; /* seen on this stack until the call is over */
    taken.call(taken.context, object);
    object = NULL;
    if (running != 0)
        running_end(&gc->finalizers, running);
    return true;
}

size_t vmk_gc_finalize(vmk_gc *view, size_t most)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_finalize");
    size_t done = 0;
    while (done < most && VMKI_LOAD_RELAXED(&gc->finalizers.waiting) != 0 && first_run(gc))
        done++;
    return done;
}

/* --- in the cycle ------------------------------------------------------------------------------------------------- */

/* All that are set and not marked, as a chain in the order of numbers. Answers the first. */
static size_t candidates_find(vmki_gc *gc)
{
    vmki_finalizers *all = &gc->finalizers;
    size_t first = 0;
    for (size_t number = all->records.made; number > 0; number--) {
        finalizer *f = at(all, number);
        if (f->record.object == 0 || f->state != STATE_SET || vmki_gc_marked(gc, f->record.object))
            continue;
        f->record.chain.next = first;
        first = number;
    }
    return first;
}

/* Those whose time has come begin to wait; after that they are marked, for that is what tells them from the others. */
static void candidates_choose(vmki_gc *gc, vmki_marker *marker, size_t first)
{
    vmki_finalizers *all = &gc->finalizers;
    size_t last = all->queue.last;
    while (first != 0) {
        finalizer *f = at(all, first);
        size_t next = f->record.chain.next;
        if (!f->ordered || !vmki_gc_marked(gc, f->record.object))
            wait_begin(all, first);
        first = next;
    }
    for (size_t number = last != 0 ? at(all, last)->record.chain.next : all->queue.first; number != 0;
         number = at(all, number)->record.chain.next)
        vmki_mark_word(marker, at(all, number)->record.object, true);
}

void vmki_finalizers_mark(vmki_gc *gc, vmki_marker *marker)
{
    vmki_finalizers *all = &gc->finalizers;
    vmki_os_lock_acquire(&all->lock);
    size_t first = candidates_find(gc);
    if (first != 0) {
        for (size_t number = first; number != 0; number = at(all, number)->record.chain.next)
            vmki_mark_inside(marker, at(all, number)->record.object);
        vmki_mark_drain(gc);
        vmki_ephemerons_mark(gc, marker);
        candidates_choose(gc, marker, first);
        vmki_mark_drain(gc);
    }
    vmki_os_lock_release(&all->lock);
}

static void queue_visit(const vmki_finalizers *all, size_t number, void (*visit)(void *context, const vmki_root *root),
                        void *context)
{
    for (; number != 0; number = at(all, number)->record.chain.next) {
        vmki_root root = {.kind = VMK_GC_ROOT_FINALIZABLE,
                          .base = &at(all, number)->record.object,
                          .size = sizeof(uintptr_t),
                          .exact = true};
        visit(context, &root);
    }
}

void vmki_finalizers_visit(vmki_gc *gc, void (*visit)(void *context, const vmki_root *root), void *context)
{
    vmki_finalizers *all = &gc->finalizers;
    vmki_os_lock_acquire(&all->lock);
    queue_visit(all, all->queue.first, visit, context);
    queue_visit(all, all->running.first, visit, context);
    vmki_os_lock_release(&all->lock);
}
