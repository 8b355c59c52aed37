/* SPDX-License-Identifier: MIT
 *
 * Stacks other than the system's: coroutines that go from thread to thread while another thread collects all the time,
 * alternate signal stacks. And threads that signals don't reach for a while.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gc_chain.h"
#include "gc_heap.h"
#include "support.h"
#include "world.h"

/* Where there are such contexts, and tools that bear them. */
#if defined(__GLIBC__) && !WORLD_LATE
#include <ucontext.h>
#define HAS_CONTEXTS 1
#endif

enum { CHAIN = 40 };

/* --- coroutines --------------------------------------------------------------------------------------------------- */

#if defined(HAS_CONTEXTS)

enum { COROUTINES = 24, SCHEDULERS = 2, STACK = 64 << 10 };

typedef struct coroutine {
    ucontext_t context;
    ucontext_t *back; /* of the scheduler that runs it */
    vmk_gc_stack *stack;
    unsigned number;
    unsigned done; /* 2: it has ended */
    bool failed;
} coroutine;

/* All of it in memory that nobody scans: registers too are found by what was noted alone. */
static struct plan {
    vmk_gc *gc;
    vmk_region region;
    coroutine *all;
    ucontext_t *schedulers;
    pthread_mutex_t lock;
    unsigned ready[COROUTINES];
    unsigned ready_count;
    unsigned left;
    size_t switches;
    uintptr_t failed;
    uintptr_t collected;
} plan = {.lock = PTHREAD_MUTEX_INITIALIZER};

static WORLD_NOINLINE void yield_back(coroutine *self)
{
    vmk_gc_stack_switch(NULL);
    (void)swapcontext(&self->context, self->back);
}

/* Has a chain in its frames, and makes it longer between two switches. */
static void coroutine_body(unsigned number)
{
    coroutine *self = &plan.all[number];
    chain_link *chain = NULL;
    for (uintptr_t i = 1; i <= plan.switches; i++) {
        chain = chain_add(plan.gc, chain, i);
        yield_back(self);
        if (!chain_whole(chain, i))
            self->failed = true;
    }
    chain = NULL;
    self->done = 1;
    for (;;)
        yield_back(self);
}

static void coroutine_begin(unsigned number)
{
    coroutine *self = &plan.all[number];
    unsigned char *low = (unsigned char *)(plan.all + COROUTINES) + sizeof(ucontext_t) * SCHEDULERS;
    low = (unsigned char *)vmki_ceil((uintptr_t)low, 4096) + (size_t)number * STACK;
    self->number = number;
    ck_assert_int_eq(getcontext(&self->context), 0);
    self->context.uc_stack.ss_sp = low;
    self->context.uc_stack.ss_size = STACK;
    self->context.uc_link = NULL;
    makecontext(&self->context, (void (*)(void))coroutine_body, 1, number);
    ck_assert_int_eq(vmk_gc_stack_register(&self->stack, low, STACK), VMK_OK);
}

/* The next that is ready, taken from anywhere. */
static coroutine *next_ready(support_random *random)
{
    coroutine *next = NULL;
    (void)pthread_mutex_lock(&plan.lock);
    if (plan.ready_count > 0) {
        size_t at = support_random_below(random, plan.ready_count);
        next = &plan.all[plan.ready[at]];
        plan.ready[at] = plan.ready[--plan.ready_count];
    }
    (void)pthread_mutex_unlock(&plan.lock);
    return next;
}

static void put_back(coroutine *one)
{
    (void)pthread_mutex_lock(&plan.lock);
    if (one->done == 0)
        plan.ready[plan.ready_count++] = one->number;
    else
        plan.left--;
    (void)pthread_mutex_unlock(&plan.lock);
}

static void schedule(unsigned number)
{
    support_random random = support_random_start(number);
    ucontext_t *own = &plan.schedulers[number];
    while (VMKI_LOAD_32(&plan.left) > 0) {
        coroutine *one = next_ready(&random);
        if (one == NULL) {
            vmki_os_yield();
            continue;
        }
        one->back = own;
        vmk_gc_stack_switch(one->stack);
        (void)swapcontext(own, &one->context);
        put_back(one);
    }
}

static void coroutines_thread(void *argument, unsigned number)
{
    (void)argument;
    if (vmk_gc_thread_register() != VMK_OK) {
        VMKI_FETCH_ADD(&plan.failed, 1);
        return;
    }
    if (number < SCHEDULERS) {
        schedule(number);
        return;
    }
    while (VMKI_LOAD_32(&plan.left) > 0) {
        vmk_gc_collect(plan.gc);
        overwrite(plan.gc, 500);
        VMKI_FETCH_ADD(&plan.collected, 1);
    }
}

START_TEST(coroutines)
{
    plan.gc = make(0);
    plan.switches = support_rounds(200);
    ck_assert_int_eq(vmk_reserve(&plan.region, (COROUTINES + 4) * STACK, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&plan.region, 0, plan.region.size), VMK_OK);
    plan.all = (coroutine *)(void *)plan.region.base;
    plan.schedulers = (ucontext_t *)(void *)(plan.all + COROUTINES);
    for (unsigned i = 0; i < COROUTINES; i++) {
        coroutine_begin(i);
        plan.ready[i] = i;
    }
    plan.ready_count = plan.left = COROUTINES;
    vmk_gc_blocking_enter();
    support_threads(SCHEDULERS + 1, coroutines_thread, NULL);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(plan.failed, 0);
    ck_assert_uint_gt(plan.collected, 0);
    for (unsigned i = 0; i < COROUTINES; i++) {
        ck_assert(!plan.all[i].failed);
        vmk_gc_stack_unregister(plan.all[i].stack);
    }
    vmk_release(&plan.region);
    end(plan.gc);
}
END_TEST

/* What a coroutine has is alive while it is registered, and not when it no longer is. */
START_TEST(coroutine_ends)
{
    enum { OBJECTS = 100 };
    vmk_gc_stats stats;
    plan.gc = make(0);
    plan.switches = OBJECTS;
    ck_assert_int_eq(vmk_reserve(&plan.region, (COROUTINES + 4) * STACK, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&plan.region, 0, plan.region.size), VMK_OK);
    plan.all = (coroutine *)(void *)plan.region.base;
    plan.schedulers = (ucontext_t *)(void *)(plan.all + COROUTINES);
    coroutine *one = &plan.all[0];
    coroutine_begin(0);
    one->back = &plan.schedulers[0];
    for (unsigned i = 0; i < OBJECTS; i++) {
        vmk_gc_stack_switch(one->stack);
        ck_assert_int_eq(swapcontext(&plan.schedulers[0], &one->context), 0);
    }
    vmk_gc_collect(plan.gc);
    vmk_gc_stats_now(plan.gc, &stats);
    ck_assert_uint_ge(stats.live_objects, OBJECTS);
    vmk_gc_stack_unregister(one->stack);
    vmk_gc_collect(plan.gc);
    vmk_gc_collect(plan.gc);
    vmk_gc_stats_now(plan.gc, &stats);
    ck_assert_uint_lt(stats.live_objects, OBJECTS / 2);
    vmk_release(&plan.region);
    end(plan.gc);
}
END_TEST

#endif

/* --- alternate signal stacks -------------------------------------------------------------------------------------- */

typedef struct patient {
    vmk_gc *gc;
    uintptr_t at, on;
    uintptr_t failed;
    vmki_os_thread thread;
} patient;

static patient the_patient;

static void await_at(uintptr_t point)
{
    while (VMKI_LOAD(&the_patient.at) < point)
        vmki_os_yield();
}

static void patient_failed(bool failed)
{
    if (failed)
        (void)VMKI_EXCHANGE(&the_patient.failed, (uintptr_t)1);
}

/* A handler that allocates is the program's own affair: here it runs where nothing else of it does. */
static void on_alternate_stack(int number)
{
    (void)number;
    chain_link *chain = chain_make(the_patient.gc, CHAIN);
    (void)VMKI_EXCHANGE(&the_patient.at, (uintptr_t)1);
    while (VMKI_LOAD(&the_patient.on) < 1)
        vmki_os_yield();
    patient_failed(!chain_whole(chain, CHAIN));
}

static void alternate_run(void *argument)
{
    static unsigned char memory[128 << 10];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory}, none = {.ss_flags = SS_DISABLE};
    (void)argument;
    patient_failed(vmk_gc_thread_register() != VMK_OK || sigaltstack(&stack, NULL) != 0);
    sigset_t one;
    (void)sigemptyset(&one);
    (void)sigaddset(&one, SIGUSR1);
    (void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    chain_link *chain = chain_make(the_patient.gc, CHAIN);
    (void)raise(SIGUSR1);
    patient_failed(!chain_whole(chain, CHAIN));
    (void)sigaltstack(&none, NULL);
}

START_TEST(alternate_stack)
{
    struct sigaction action, before;
    if (WORLD_LATE) /* ThreadSanitizer lets no handler be interrupted by another */
        return;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alternate_stack;
    action.sa_flags = SA_ONSTACK;
    ck_assert_int_eq(sigaction(SIGUSR1, &action, &before), 0);
    the_patient = (patient){.gc = make(0)};
    ck_assert_int_eq(vmki_os_thread_start(&the_patient.thread, alternate_run, NULL), VMK_OK);
    await_at(1);
    for (size_t i = support_rounds(10); i > 0; i--) {
        vmk_gc_collect(the_patient.gc);
        overwrite(the_patient.gc, 1000);
    }
    (void)VMKI_EXCHANGE(&the_patient.on, (uintptr_t)1);
    vmki_os_thread_join(&the_patient.thread);
    ck_assert_uint_eq(the_patient.failed, 0);
    (void)sigaction(SIGUSR1, &before, NULL);
    end(the_patient.gc);
}
END_TEST

/* --- signals that don't come -------------------------------------------------------------------------------------- */

static void while_blocked_sleeps(void)
{
    sleep_for(2000000);
}

/* The collector holds the lock that this needs, while it waits for the signal to be handled. */
static void while_blocked_maps(void)
{
    vmk_region region;
    for (unsigned i = 0; i < 20; i++) {
        patient_failed(vmk_reserve(&region, vmk_granularity(), NULL) != VMK_OK);
        patient_failed(vmk_commit(&region, 0, region.size) != VMK_OK);
        vmk_release(&region);
    }
}

/* It takes the signal, and so it is lost. */
static void while_blocked_takes(void)
{
    struct timespec moment = {.tv_nsec = 1000000};
    sigset_t all;
    (void)sigfillset(&all);
    while (sigtimedwait(&all, NULL, &moment) > 0)
        ;
}

static void (*while_blocked)(void);

static void blocked_run(void *argument)
{
    sigset_t all, before;
    (void)argument;
    patient_failed(vmk_gc_thread_register() != VMK_OK);
    chain_link *chain = chain_make(the_patient.gc, CHAIN);
    (void)VMKI_EXCHANGE(&the_patient.at, (uintptr_t)1);
    while (VMKI_LOAD(&the_patient.on) < 1) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        while_blocked();
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        for (uint64_t start = vmki_os_clock(); vmki_os_clock() - start < 1000000;) /* a time when signals come */
            ;
        patient_failed(!chain_whole(chain, CHAIN));
    }
}

static void collect_from_blocked(void (*what)(void))
{
    while_blocked = what;
    the_patient = (patient){.gc = make(0)};
    ck_assert_int_eq(vmki_os_thread_start(&the_patient.thread, blocked_run, NULL), VMK_OK);
    await_at(1);
    for (size_t i = support_rounds(30); i > 0; i--) {
        vmk_gc_collect(the_patient.gc);
        overwrite(the_patient.gc, 1000);
    }
    (void)VMKI_EXCHANGE(&the_patient.on, (uintptr_t)1);
    vmk_gc_blocking_enter();
    vmki_os_thread_join(&the_patient.thread);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(the_patient.failed, 0);
    end(the_patient.gc);
}

START_TEST(signals_blocked)
{
    collect_from_blocked(while_blocked_sleeps);
    collect_from_blocked(while_blocked_maps);
    if (!WORLD_LATE) /* ThreadSanitizer has taken it by then */
        collect_from_blocked(while_blocked_takes);
}
END_TEST

/* For longer than the collector is patient: all others go on meanwhile, now and then. */
static void blocked_long_run(void *argument)
{
    sigset_t all, before;
    (void)argument;
    patient_failed(vmk_gc_thread_register() != VMK_OK);
    chain_link *chain = chain_make(the_patient.gc, CHAIN);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)VMKI_EXCHANGE(&the_patient.at, (uintptr_t)1);
    sleep_for(300000000);
    while_blocked_maps();
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    patient_failed(!chain_whole(chain, CHAIN));
}

START_TEST(signals_blocked_long)
{
    the_patient = (patient){.gc = make(0)};
    ck_assert_int_eq(vmki_os_thread_start(&the_patient.thread, blocked_long_run, NULL), VMK_OK);
    await_at(1);
    vmk_gc_collect(the_patient.gc);
    overwrite(the_patient.gc, 1000);
    vmk_gc_blocking_enter();
    vmki_os_thread_join(&the_patient.thread);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(the_patient.failed, 0);
    end(the_patient.gc);
}
END_TEST

/* --- locks and calls of the C library ----------------------------------------------------------------------------- */

enum { BUSY = 4 };
static pthread_mutex_t busy_lock = PTHREAD_MUTEX_INITIALIZER;
static int busy_pipe[2];

static void busy_with(unsigned number)
{
    char byte = 0;
    if (number == 0) {
        (void)pthread_mutex_lock(&busy_lock);
        sleep_for(100000);
        (void)pthread_mutex_unlock(&busy_lock);
    } else if (number == 1) {
        (void)pthread_mutex_lock(&busy_lock);
        (void)pthread_mutex_unlock(&busy_lock);
        patient_failed(write(busy_pipe[1], &byte, 1) != 1);
    } else if (number == 2) {
        patient_failed(read(busy_pipe[0], &byte, 1) != 1);
    } else {
        void *volatile memory = malloc(100000);
        free(memory);
        memory = malloc(100);
        free(memory);
    }
}

static void busy_body(void *argument, unsigned number)
{
    (void)argument;
    patient_failed(vmk_gc_thread_register() != VMK_OK);
    chain_link *chain = chain_make(the_patient.gc, CHAIN);
    if (number == BUSY) {
        for (size_t i = support_rounds(60); i > 0; i--) {
            vmk_gc_collect(the_patient.gc);
            overwrite(the_patient.gc, 500);
        }
        (void)VMKI_EXCHANGE(&the_patient.on, (uintptr_t)1);
    }
    while (VMKI_LOAD(&the_patient.on) == 0) {
        busy_with(number);
        patient_failed(!chain_whole(chain, CHAIN));
    }
    if (number == 1) /* the reader may be waiting still */
        patient_failed(write(busy_pipe[1], "x", 1) != 1);
}

START_TEST(locks_and_calls)
{
    the_patient = (patient){.gc = make(0)};
    ck_assert_int_eq(pipe(busy_pipe), 0);
    vmk_gc_blocking_enter();
    support_threads(BUSY + 1, busy_body, NULL);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(the_patient.failed, 0);
    (void)close(busy_pipe[0]);
    (void)close(busy_pipe[1]);
    end(the_patient.gc);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gc_stacks");
    TCase *stacks = tcase_create("stacks");
#if defined(HAS_CONTEXTS)
    tcase_add_test(stacks, coroutines);
    tcase_add_test(stacks, coroutine_ends);
#endif
    tcase_add_test(stacks, alternate_stack);
    suite_add_tcase(s, stacks);
    TCase *signals = tcase_create("signals");
    tcase_add_test(signals, signals_blocked);
    tcase_add_test(signals, signals_blocked_long);
    tcase_add_test(signals, locks_and_calls);
    suite_add_tcase(s, signals);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
