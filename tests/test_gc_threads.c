/* SPDX-License-Identifier: MIT
 *
 * Threads of collected heaps: that come and go, sleep, block, stop at safe points only, hold locks, change stacks; and
 * who stops them.
 */
#include <string.h>

#include "gc_chain.h"
#include "gc_heap.h"
#include "support.h"

#include "common/vm/vm.h"

/* --- a storm ------------------------------------------------------------------------------------------------------ */

enum { STORM_THREADS = 6, CHAIN = 50 };

typedef struct storm {
    vmk_gc *gc[4];
    unsigned heaps;
    size_t rounds;
    uintptr_t left; /* threads that still come and go */
    uintptr_t failed;
    uintptr_t cycles;
} storm;

/* One life of a thread: it begins, uses all heaps, and ends in one of two ways. */
typedef struct life {
    storm *s;
    unsigned number;
    bool failed;
} life;

static void life_run(void *argument)
{
    life *l = argument;
    chain_link *chains[4] = {NULL, NULL, NULL, NULL};
    if (vmk_gc_thread_register() != VMK_OK) {
        l->failed = true;
        return;
    }
    for (uintptr_t i = 1; i <= CHAIN; i++)
        for (unsigned heap = 0; heap < l->s->heaps; heap++)
            chains[heap] = chain_add(l->s->gc[heap], chains[heap], i);
    for (unsigned heap = 0; heap < l->s->heaps; heap++)
        if (!chain_whole(chains[heap], CHAIN))
            l->failed = true;
    if (l->number % 2 == 0)
        vmk_gc_thread_unregister();
}

static void storm_body(void *argument, unsigned number)
{
    storm *s = argument;
    if (number == 0) {
        while (VMKI_LOAD(&s->left) > 0) {
            vmk_gc_collect(s->gc[s->cycles++ % s->heaps]);
            overwrite(s->gc[0], 0);
        }
        return;
    }
    for (size_t round = 0; round < s->rounds; round++) {
        life l = {.s = s, .number = (unsigned)(number + round)};
        vmki_os_thread thread;
        if (vmki_os_thread_start(&thread, life_run, &l) != VMK_OK) {
            VMKI_FETCH_ADD(&s->failed, 1);
            continue;
        }
        vmki_os_thread_join(&thread);
        if (l.failed)
            VMKI_FETCH_ADD(&s->failed, 1);
    }
    VMKI_FETCH_ADD(&s->left, SIZE_MAX);
}

static void storm_of(unsigned heaps, unsigned flags)
{
    storm s = {.heaps = heaps, .rounds = support_rounds(60), .left = STORM_THREADS - 1};
    for (unsigned i = 0; i < heaps; i++)
        s.gc[i] = make(flags);
    vmk_gc_blocking_enter();
    support_threads(STORM_THREADS, storm_body, &s);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(s.failed, 0);
    ck_assert_uint_gt(s.cycles, 0);
    for (unsigned i = 0; i < heaps; i++)
        ck_assert(vmki_gc_check(s.gc[i]));
    for (unsigned i = 0; i < heaps; i++)
        end(s.gc[i]);
}

START_TEST(threads_come_and_go)
{
    storm_of(1, 0);
}
END_TEST

START_TEST(threads_use_many_heaps)
{
    storm_of(4, 0);
}
END_TEST

/* The thread that collects isn't registered, nor are the others until they allocate. */
static void stranger_run(void *argument)
{
    life *l = argument;
    chain_link *chain = chain_make(l->s->gc[0], CHAIN);
    vmk_gc_collect(l->s->gc[0]);
    overwrite(l->s->gc[0], CHAIN);
    if (!chain_whole(chain, CHAIN) || vmki_mutator_self() == NULL)
        l->failed = true;
}

START_TEST(strangers_register_by_allocating)
{
    storm s = {.gc = {make(VMK_GC_AUTO_THREADS)}, .heaps = 1};
    for (unsigned i = 0; i < 10; i++) {
        life l = {.s = &s};
        vmki_os_thread thread;
        ck_assert_int_eq(vmki_os_thread_start(&thread, stranger_run, &l), VMK_OK);
        vmki_os_thread_join(&thread);
        ck_assert(!l.failed);
        ck_assert_uint_eq(vmki_world_count(), 1);
    }
    end(s.gc[0]);
}
END_TEST

START_TEST(registering_counts)
{
    vmk_gc *gc = make(0);
    ck_assert_int_eq(vmk_gc_thread_register(), VMK_OK);
    ck_assert_int_eq(vmk_gc_thread_register(), VMK_OK);
    vmk_gc_thread_unregister();
    vmk_gc_thread_unregister();
    ck_assert_ptr_nonnull(vmki_mutator_self());
    ck_assert_uint_eq(vmki_world_count(), 1);
    vmk_gc_thread_unregister();
    ck_assert_ptr_null(vmki_mutator_self());
    ck_assert_uint_eq(vmki_world_count(), 0);
    vmk_gc_safepoint();
    vmk_gc_collect(gc); /* who is no mutator may */
    ck_assert_int_eq(vmk_gc_thread_register(), VMK_OK);
    end(gc);
}
END_TEST

/* --- all threads collect ------------------------------------------------------------------------------------------ */

static void all_collect_body(void *argument, unsigned number)
{
    storm *s = argument;
    if (vmk_gc_thread_register() != VMK_OK)
        VMKI_FETCH_ADD(&s->failed, 1);
    chain_link *chain = NULL;
    for (uintptr_t i = 1; i <= s->rounds; i++) {
        chain = chain_add(s->gc[0], chain, i);
        if ((i + number) % 3 == 0)
            vmk_gc_collect(s->gc[0]);
        if (!chain_whole(chain, i))
            VMKI_FETCH_ADD(&s->failed, 1);
    }
}

START_TEST(all_collect_at_once)
{
    for (unsigned flags = 0; flags <= VMK_GC_COOPERATIVE; flags += VMK_GC_COOPERATIVE) {
        storm s = {.gc = {make(flags)}, .rounds = support_rounds(60)};
        vmk_gc_blocking_enter();
        support_threads(4, all_collect_body, &s);
        vmk_gc_blocking_leave();
        ck_assert_uint_eq(s.failed, 0);
        end(s.gc[0]);
    }
}
END_TEST

/* --- threads that do all kinds of things -------------------------------------------------------------------------- */

typedef struct worker {
    vmk_gc *gc;
    void (*work)(struct worker *self);
    uintptr_t ready, stop, failed;
    uintptr_t first, second; /* equal where it may be stopped */
    vmki_os_event event;
    vmki_os_lock *lock;
    vmki_os_thread thread;
} worker;

static void worker_run(void *argument)
{
    worker *self = argument;
    if (vmk_gc_thread_register() != VMK_OK) {
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
        (void)VMKI_EXCHANGE(&self->ready, (uintptr_t)1);
        return;
    }
    chain_link *chain = chain_make(self->gc, CHAIN);
    (void)VMKI_EXCHANGE(&self->ready, (uintptr_t)1);
    while (VMKI_LOAD(&self->stop) == 0) {
        self->work(self);
        if (!chain_whole(chain, CHAIN))
            (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
    }
    if (!chain_whole(chain, CHAIN))
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
}

static void worker_start(worker *self, vmk_gc *gc, void (*work)(worker *self))
{
    *self = (worker){.gc = gc, .work = work};
    ck_assert_int_eq(vmki_os_thread_start(&self->thread, worker_run, self), VMK_OK);
    while (VMKI_LOAD(&self->ready) == 0)
        vmk_gc_safepoint();
}

static void worker_end(worker *self)
{
    (void)VMKI_EXCHANGE(&self->stop, (uintptr_t)1);
    vmki_os_event_signal(&self->event);
    vmk_gc_blocking_enter();
    vmki_os_thread_join(&self->thread);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(self->failed, 0);
}

static void work_computing(worker *self)
{
    for (uintptr_t i = 0; i < 100000; i++)
        VMKI_STORE_RELAXED(&self->first, i);
}

static void work_sleeping(worker *self)
{
    (void)vmki_os_event_wait(&self->event, 1000000000);
}

static void work_napping(worker *self)
{
    (void)self;
    sleep_for(100000);
}

static void work_sleeping_blocked(worker *self)
{
    vmk_gc_blocking_enter();
    (void)vmki_os_event_wait(&self->event, 1000000000);
    vmk_gc_blocking_leave();
}

static void work_flickering(worker *self)
{
    (void)self;
    vmk_gc_blocking_enter();
    vmk_gc_blocking_leave();
}

static void work_allocating(worker *self)
{
    if (!chain_whole(chain_make(self->gc, 10), 10))
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
}

/* The vm lock is held most of the time: the collector needs it, and mustn't stop who has it. */
static void work_mapping(worker *self)
{
    vmk_region region;
    if (vmk_reserve(&region, vmk_granularity(), NULL) != VMK_OK) {
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
        return;
    }
    for (unsigned i = 0; i < 20; i++)
        if (vmk_commit(&region, 0, region.size) != VMK_OK || vmk_decommit(&region, 0, region.size) != VMK_OK)
            (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
    vmk_release(&region);
}

static vmki_os_lock contended;

static void work_locking(worker *self)
{
    vmki_os_lock_acquire(&contended);
    self->first++;
    vmki_os_lock_release(&contended);
}

static void work_registering(worker *self)
{
    if (vmk_gc_thread_register() != VMK_OK)
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
    void *slots[2] = {NULL, NULL};
    if (vmk_gc_roots_add(self->gc, slots, sizeof slots) != VMK_OK)
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
    vmk_gc_roots_remove(self->gc, slots);
    vmk_gc_thread_unregister();
}

typedef void work(worker *self);
static work *const works[] = {work_computing,  work_sleeping,    work_napping, work_sleeping_blocked, work_flickering,
                              work_allocating, work_registering, work_locking, work_mapping,          work_mapping};
enum { WORKERS = (int)(sizeof works / sizeof *works) };

START_TEST(stops_whatever_they_do)
{
    static worker workers[WORKERS];
    vmk_gc *gc = make(0);
    for (unsigned i = 0; i < WORKERS; i++)
        worker_start(&workers[i], gc, works[i]);
    chain_link *chain = chain_make(gc, CHAIN);
    for (size_t i = support_rounds(60); i > 0; i--) {
        vmk_gc_collect(gc);
        overwrite(gc, 200);
    }
    ck_assert(chain_whole(chain, CHAIN));
    for (unsigned i = 0; i < WORKERS; i++)
        worker_end(&workers[i]);
    end(gc);
}
END_TEST

START_TEST(each_kind_by_itself)
{
    static worker workers[2];
    vmk_gc *gc = make(0);
    for (unsigned i = 0; i < WORKERS; i++) {
        worker_start(&workers[0], gc, works[i]);
        worker_start(&workers[1], gc, works[i]);
        for (size_t round = support_rounds(20); round > 0; round--) {
            vmk_gc_collect(gc);
            overwrite(gc, 200);
        }
        worker_end(&workers[0]);
        worker_end(&workers[1]);
    }
    end(gc);
}
END_TEST

/* --- where they stop ---------------------------------------------------------------------------------------------- */

static void work_inside(worker *self)
{
    vmki_mutator *mutator = vmki_mutator_self();
    for (unsigned i = 0; i < 100; i++) {
        vmki_mutator_enter(mutator);
        VMKI_FETCH_ADD(&self->first, 1);
        for (volatile unsigned j = 0; j < 200; j++)
            ;
        VMKI_FETCH_ADD(&self->second, 1);
        vmki_mutator_leave(mutator);
    }
}

static void work_safe_points(worker *self)
{
    for (unsigned i = 0; i < 100; i++) {
        VMKI_FETCH_ADD(&self->first, 1);
        for (volatile unsigned j = 0; j < 200; j++)
            ;
        VMKI_FETCH_ADD(&self->second, 1);
        vmk_gc_safepoint();
    }
}

static void look(vmki_gc *gc, void *argument)
{
    worker *workers = argument;
    (void)gc;
    uintptr_t before[2] = {VMKI_LOAD(&workers[0].second), VMKI_LOAD(&workers[1].second)};
    for (unsigned i = 0; i < 2; i++) {
        if (VMKI_LOAD(&workers[i].first) != before[i])
            (void)VMKI_EXCHANGE(&workers[i].failed, (uintptr_t)1);
    }
    sleep_for(200000);
    for (unsigned i = 0; i < 2; i++) {
        if (VMKI_LOAD(&workers[i].second) != before[i]) /* it doesn't stand still */
            (void)VMKI_EXCHANGE(&workers[i].failed, (uintptr_t)1);
    }
}

static void stopped_between(unsigned flags, work *kind)
{
    static worker workers[2];
    vmk_gc *gc = make(flags);
    worker_start(&workers[0], gc, kind);
    worker_start(&workers[1], gc, kind);
    for (size_t i = support_rounds(100); i > 0; i--)
        vmki_gc_stopped(gc, look, workers);
    worker_end(&workers[0]);
    worker_end(&workers[1]);
    end(gc);
}

START_TEST(never_inside)
{
    stopped_between(0, work_inside);
}
END_TEST

START_TEST(at_safe_points_only)
{
    stopped_between(VMK_GC_COOPERATIVE, work_safe_points);
}
END_TEST

/* Collections of both kinds in turn. */
START_TEST(both_ways_to_stop)
{
    static worker workers[2];
    vmk_gc *cooperative = make(VMK_GC_COOPERATIVE), *other = make(0);
    worker_start(&workers[0], cooperative, work_safe_points);
    worker_start(&workers[1], other, work_safe_points);
    for (size_t i = support_rounds(50); i > 0; i--) {
        vmki_gc_stopped(cooperative, look, workers);
        vmk_gc_collect(other);
    }
    worker_end(&workers[0]);
    worker_end(&workers[1]);
    ck_assert(vmki_gc_check(cooperative));
    vmk_gc_destroy(cooperative);
    end(other);
}
END_TEST

/* --- blocking ----------------------------------------------------------------------------------------------------- */

static void work_leaving(worker *self)
{
    vmk_gc_blocking_enter();
    while (VMKI_LOAD(&self->first) == 0 && VMKI_LOAD(&self->stop) == 0)
        vmki_os_yield();
    vmk_gc_blocking_leave();
    VMKI_FETCH_ADD(&self->second, 1);
}

static void let_leave(vmki_gc *gc, void *argument)
{
    worker *self = argument;
    (void)gc;
    uintptr_t before = VMKI_LOAD(&self->second);
    (void)VMKI_EXCHANGE(&self->first, (uintptr_t)1);
    sleep_for(3000000);
    if (VMKI_LOAD(&self->second) != before)
        (void)VMKI_EXCHANGE(&self->failed, (uintptr_t)1);
}

/* It isn't asked, so a cooperative collection gets on without it; and it waits until that is over. */
START_TEST(leaving_waits)
{
    static worker one;
    vmk_gc *gc = make(VMK_GC_COOPERATIVE);
    worker_start(&one, gc, work_leaving);
    for (size_t i = support_rounds(20); i > 0; i--) {
        uintptr_t before = VMKI_LOAD(&one.second);
        vmki_gc_stopped(gc, let_leave, &one);
        while (VMKI_LOAD(&one.second) == before)
            vmki_os_yield();
        (void)VMKI_EXCHANGE(&one.first, (uintptr_t)0);
    }
    worker_end(&one);
    end(gc);
}
END_TEST

static void ends_blocked(void *argument)
{
    life *l = argument;
    l->failed = vmk_gc_thread_register() != VMK_OK;
    if (l->failed)
        return;
    (void)chain_make(l->s->gc[0], CHAIN);
    vmk_gc_blocking_enter();
    if (l->number != 0)
        vmk_gc_thread_unregister();
}

START_TEST(ends_while_blocked)
{
    storm s = {.gc = {make(0)}, .heaps = 1};
    for (unsigned i = 0; i < 2; i++) {
        life l = {.s = &s, .number = i};
        vmki_os_thread thread;
        ck_assert_int_eq(vmki_os_thread_start(&thread, ends_blocked, &l), VMK_OK);
        vmki_os_thread_join(&thread);
        ck_assert(!l.failed);
        vmk_gc_collect(s.gc[0]);
    }
    end(s.gc[0]);
}
END_TEST

/* --- misuse ------------------------------------------------------------------------------------------------------- */

static int crime(int argc, char **argv)
{
    static uintptr_t memory[64];
    vmk_gc *gc;
    vmk_gc_stack *stack;
    if (argc < 1 || vmk_gc_create(&gc, NULL) != VMK_OK ||
        vmk_gc_stack_register(&stack, memory, sizeof memory) != VMK_OK)
        return SUPPORT_UNREADY;
    const char *name = argv[0];
    if (strcmp(name, "unregister") == 0) {
        vmk_gc_thread_unregister();
        vmk_gc_thread_unregister();
    } else if (strcmp(name, "enter twice") == 0) {
        vmk_gc_blocking_enter();
        vmk_gc_blocking_enter();
    } else if (strcmp(name, "enter unregistered") == 0) {
        vmk_gc_thread_unregister();
        vmk_gc_blocking_enter();
    } else if (strcmp(name, "leave") == 0) {
        vmk_gc_blocking_leave();
    } else if (strcmp(name, "stack in use") == 0) {
        vmk_gc_stack_switch(stack);
        vmk_gc_stack_unregister(stack);
    } else if (strcmp(name, "stack twice") == 0) {
        vmk_gc_stack_unregister(stack);
        vmk_gc_stack_unregister(stack);
    } else if (strcmp(name, "stack gone") == 0) {
        vmk_gc_stack_unregister(stack);
        vmk_gc_stack_switch(stack);
    } else if (strcmp(name, "root") == 0) {
        vmk_gc_roots_remove(gc, memory);
    } else if (strcmp(name, "tracer") == 0) {
        vmk_gc_tracer_remove(gc, NULL, memory);
    } else if (strcmp(name, "unpin") == 0) {
        vmk_gc_unpin(gc, vmk_gc_alloc(gc, 1));
    } else if (strcmp(name, "pin") == 0) {
        VMKI_IGNORE(vmk_gc_pin(gc, memory));
    }
    return SUPPORT_SURVIVED;
}

START_TEST(misuse)
{
    support_crime("unregister", "vmk_gc_thread_unregister: not a registered thread");
    support_crime("enter twice", "vmk_gc_blocking_enter: it has been called before");
    support_crime("enter unregistered", "vmk_gc_blocking_enter: not a registered thread");
    support_crime("leave", "vmk_gc_blocking_leave: without vmk_gc_blocking_enter");
    support_crime("stack in use", "vmk_gc_stack_unregister: a thread runs on the stack");
    support_crime("stack twice", "vmk_gc_stack_unregister: not a registered stack");
    support_crime("stack gone", "vmk_gc_stack_switch: not a registered stack");
    support_crime("root", "vmk_gc_roots_remove: not a root");
    support_crime("tracer", "vmk_gc_tracer_remove: not added");
    support_crime("unpin", "vmk_gc_unpin: not pinned");
    support_crime("pin", "vmk_gc_pin: not an object");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gc_threads");
    TCase *life_case = tcase_create("life");
    tcase_add_test(life_case, registering_counts);
    tcase_add_test(life_case, strangers_register_by_allocating);
    tcase_add_test(life_case, ends_while_blocked);
    tcase_add_test(life_case, threads_come_and_go);
    tcase_add_test(life_case, threads_use_many_heaps);
    tcase_add_test(life_case, misuse);
    suite_add_tcase(s, life_case);
    TCase *stop = tcase_create("stop");
    tcase_add_test(stop, never_inside);
    tcase_add_test(stop, at_safe_points_only);
    tcase_add_test(stop, both_ways_to_stop);
    tcase_add_test(stop, leaving_waits);
    tcase_add_test(stop, each_kind_by_itself);
    tcase_add_test(stop, stops_whatever_they_do);
    tcase_add_test(stop, all_collect_at_once);
    suite_add_tcase(s, stop);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), crime);
}
