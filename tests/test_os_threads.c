/* SPDX-License-Identifier: MIT
 *
 * The contract of common/base/os.h, second half: the clock, random bits, threads, events.
 *
 * A wake that gets lost shows as a wait that lasts until its time is up, so all waits that should be woken have much
 * time, and are timed. The other way round nothing is asserted: a thread may be late for any length of time.
 */
#include <string.h>
#include <time.h>

#include "common/base/os.h"
#include "support.h"

#define MILLISECOND UINT64_C(1000000)
#define SECOND (1000 * MILLISECOND)
#define LONG_WAIT (20 * SECOND) /* for what should be woken, */
#define WOKEN (10 * SECOND)     /* and was, if it took less */
#define TICK (16 * MILLISECOND) /* how much too early a wait may be over: Windows counts in these */

enum { THREADS = 4 };

/* ThreadSanitizer remembers threads that have ended. */
#if defined(__SANITIZE_THREAD__)
#define KEEPS_THREADS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KEEPS_THREADS 1
#endif
#endif
#if !defined(KEEPS_THREADS)
#define KEEPS_THREADS 0
#endif

static void start(vmki_os_thread *thread, void (*body)(void *argument), void *argument)
{
    ck_assert_int_eq(vmki_os_thread_start(thread, body, argument), VMK_OK);
}

/* Let others come to where they will wait. */
static void pause_for(uint64_t nanoseconds)
{
    vmki_os_event never = {{0}};
    ck_assert(!vmki_os_event_wait(&never, nanoseconds));
}

/* --- the clock -------------------------------------------------------------------------------------------------- */

typedef struct clocks {
    size_t rounds;
    uint64_t latest[THREADS]; /* each written by its thread, read by all */
    size_t own_wrong[THREADS], others_wrong[THREADS];
} clocks;

/* What one processor says can be told from what another says only to a tick (Windows: "values that differ by 1 tick
 * have an ambiguous ordering"), which is a microsecond at most. */
static void watch_clock(void *argument, unsigned number)
{
    clocks *c = argument;
    uint64_t last = 0;
    for (size_t i = 0; i < c->rounds; i++) {
        uint64_t other = VMK_LOAD_ACQUIRE(&c->latest[(number + i) % THREADS]);
        uint64_t now = vmki_os_clock();
        c->own_wrong[number] += now < last;
        c->others_wrong[number] += now + 1000 < other;
        VMKI_STORE_RELEASE(&c->latest[number], now);
        last = now;
    }
}

START_TEST(clock_never_goes_back)
{
    clocks c = {.rounds = support_rounds(50000)};
    uint64_t before = vmki_os_clock();
    support_threads(THREADS, watch_clock, &c);
    for (unsigned i = 0; i < THREADS; i++) {
        ck_assert_uint_eq(c.own_wrong[i], 0);
        ck_assert_uint_eq(c.others_wrong[i], 0);
        ck_assert_uint_gt(c.latest[i], before);
    }
}
END_TEST

/* Held against the C library's clocks: a thread can't use more time of a processor than passes (on Windows clock() is
 * what passes), and what passes is seen by time() too. */
START_TEST(clock_counts_nanoseconds)
{
    time_t date = time(NULL);
    clock_t used = clock();
    uint64_t before = vmki_os_clock();
    while (clock() - used < CLOCKS_PER_SEC / 25)
        ;
    uint64_t passed = vmki_os_clock() - before;
    ck_assert_uint_ge(passed, 20 * MILLISECOND);
    ck_assert_uint_le(passed, (uint64_t)(time(NULL) - date + 2) * SECOND);
}
END_TEST

/* --- random bits ------------------------------------------------------------------------------------------------ */

START_TEST(random_bits_differ)
{
    enum { COUNT = 64 }; /* a bit that is the same in all of them: one in 2^63 */
    uint64_t values[COUNT], ones = 0, zeroes = 0;
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = vmki_os_random();
        ones |= values[i];
        zeroes |= ~values[i];
        for (size_t j = 0; j < i; j++)
            ck_assert_uint_ne(values[i], values[j]);
    }
    ck_assert_uint_eq(ones, UINT64_MAX);
    ck_assert_uint_eq(zeroes, UINT64_MAX);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------------------------- */

typedef struct task {
    size_t given, done;
    vmki_os_event go;
    bool was_told;
} task;

static void do_task(void *argument)
{
    task *t = argument;
    t->done = t->given * 3 + 1;
}

START_TEST(threads_do_what_they_are_told)
{
    enum { COUNT = 16 };
    vmki_os_thread threads[COUNT];
    task tasks[COUNT];
    memset(tasks, 0, sizeof tasks);
    for (size_t i = 0; i < COUNT; i++) {
        tasks[i].given = i;
        start(&threads[i], do_task, &tasks[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        vmki_os_thread_join(&threads[i]);
        ck_assert_uint_eq(tasks[i].done, i * 3 + 1);
    }
}
END_TEST

static void do_task_when_told(void *argument)
{
    task *t = argument;
    t->was_told = vmki_os_event_wait(&t->go, LONG_WAIT);
    do_task(t);
}

/* It runs beside the one who started it, and join waits for its end. */
START_TEST(join_waits)
{
    task t = {.given = 5};
    vmki_os_thread thread;
    uint64_t before = vmki_os_clock();
    start(&thread, do_task_when_told, &t);
    pause_for(5 * MILLISECOND);
    vmki_os_event_signal(&t.go);
    vmki_os_thread_join(&thread);
    ck_assert(t.was_told);
    ck_assert_uint_eq(t.done, 16);
    ck_assert_uint_lt(vmki_os_clock() - before, WOKEN);
}
END_TEST

/* Enough for what it calls: a page of variables, a system call, a reservation. */
static void use_stack(void *argument)
{
    volatile unsigned char bytes[16384];
    size_t sum = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    vmk_usage usage;
    vmk_limits limits;
    vmk_limits_now(&limits);
    *(vmk_status *)argument = vmki_os_usage(&usage);
    for (size_t i = 0; i < sizeof bytes; i++)
        sum += bytes[i];
    if (sum != sizeof bytes / 256 * (255 * 256 / 2))
        *(vmk_status *)argument = VMK_ERR_ARGUMENT;
}

START_TEST(stack_is_large_enough)
{
    vmk_usage usage;
    vmk_status expected = vmki_os_usage(&usage), status = VMK_ERR_TAKEN;
    vmki_os_thread thread;
    start(&thread, use_stack, &status);
    vmki_os_thread_join(&thread);
    ck_assert_int_eq(status, expected);
}
END_TEST

static void count_one(void *argument)
{
    ++*(size_t *)argument;
}

static uint64_t address_space_now(void)
{
    vmk_usage usage;
    return vmk_usage_now(&usage) == VMK_OK ? usage.address_space : 0;
}

static void start_and_join(vmki_os_thread *thread, size_t times)
{
    size_t count = 0;
    for (size_t i = 0; i < times; i++) {
        start(thread, count_one, &count);
        vmki_os_thread_join(thread);
    }
    ck_assert_uint_eq(count, times);
}

START_TEST(joined_threads_leave_nothing)
{
    const size_t times = 2000;
    vmki_os_thread first, last;
    start_and_join(&first, 20); /* the C library keeps some stacks */
    uint64_t before = address_space_now();
    start_and_join(&last, times);
    if (!KEEPS_THREADS && support_system_tells()) /* less than any of them had, if only for its stack */
        ck_assert_uint_lt(address_space_now(), before + times * 4096);
#if defined(_WIN32) /* a handle is a multiple of 4, and that of a new object the least that is free, or nearly so */
    ck_assert_uint_lt(last.handle, first.handle + times);
#endif
}
END_TEST

/* --- events ----------------------------------------------------------------------------------------------------- */

START_TEST(signal_stays_until_reset)
{
    vmki_os_event event = {{0}};
    ck_assert(!vmki_os_event_wait(&event, 0));
    vmki_os_event_signal(&event);
    for (int i = 0; i < 3; i++) {
        uint64_t before = vmki_os_clock();
        ck_assert(vmki_os_event_wait(&event, LONG_WAIT));
        ck_assert_uint_lt(vmki_os_clock() - before, WOKEN);
        ck_assert(vmki_os_event_wait(&event, 0));
    }
    vmki_os_event_reset(&event);
    ck_assert(!vmki_os_event_wait(&event, 0));
    ck_assert(!vmki_os_event_wait(&event, MILLISECOND));
    vmki_os_event_reset(&event); /* of what is not signalled: nothing */
    ck_assert(!vmki_os_event_wait(&event, 0));
    vmki_os_event_signal(&event);
    vmki_os_event_signal(&event);
    ck_assert(vmki_os_event_wait(&event, 1));
}
END_TEST

/* And without a word about it in the error codes. */
START_TEST(wait_ends_without_signal)
{
    const uint64_t times[] = {1, 999999, MILLISECOND, 40 * MILLISECOND};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        vmki_os_event event = {{0}};
        uint64_t before = vmki_os_clock();
        vmki_os_error_set((vmki_os_error){77, 78});
        bool signalled = vmki_os_event_wait(&event, times[i]);
        vmki_os_error error = vmki_os_error_get();
        uint64_t passed = vmki_os_clock() - before;
        ck_assert(!signalled);
        ck_assert_uint_ge(passed + TICK, times[i]);
        ck_assert_int_eq(error.library, 77);
        ck_assert(error.system == 78 || error.system == 0);
    }
}
END_TEST

typedef struct waiter {
    vmki_os_event *event;
    uint64_t time;      /* how long to wait, */
    size_t again;       /* and how often, if in vain */
    vmki_os_event here; /* signalled by the waiter, right before */
    vmki_os_thread thread;
    bool signalled, changed_errors;
    uint64_t passed;
} waiter;

static void wait_for_event(void *argument)
{
    waiter *w = argument;
    uint64_t before = vmki_os_clock();
    vmki_os_event_signal(&w->here);
    vmki_os_error_set((vmki_os_error){77, 78});
    for (size_t i = 0; i <= w->again && !w->signalled; i++)
        w->signalled = vmki_os_event_wait(w->event, w->time);
    vmki_os_error error = vmki_os_error_get();
    w->changed_errors = error.library != 77 || (error.system != 78 && error.system != 0);
    w->passed = vmki_os_clock() - before;
}

static void start_waiter(waiter *w, vmki_os_event *event, uint64_t time)
{
    *w = (waiter){.event = event, .time = time};
    if (time < LONG_WAIT)
        w->again = (size_t)(LONG_WAIT / time);
    start(&w->thread, wait_for_event, w);
    ck_assert(vmki_os_event_wait(&w->here, LONG_WAIT));
}

static void assert_woken(waiter *w)
{
    vmki_os_thread_join(&w->thread);
    ck_assert(w->signalled);
    ck_assert(!w->changed_errors);
    ck_assert_uint_lt(w->passed, WOKEN);
}

/* For any time that can be said, and by one of many short waits as by a long one. */
START_TEST(signal_wakes)
{
    const uint64_t times[] = {LONG_WAIT,       UINT64_MAX,        UINT64_MAX - 1,   (uint64_t)INT64_MAX,
                              3 * MILLISECOND, (uint64_t)1 << 62, (uint64_t)1 << 52};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        vmki_os_event event = {{0}};
        waiter w;
        start_waiter(&w, &event, times[i]);
        pause_for(5 * MILLISECOND);
        vmki_os_event_signal(&event);
        assert_woken(&w);
        ck_assert(vmki_os_event_wait(&event, 0));
    }
}
END_TEST

START_TEST(signal_wakes_all)
{
    vmki_os_event event = {{0}};
    waiter waiters[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        start_waiter(&waiters[i], &event, LONG_WAIT);
    pause_for(5 * MILLISECOND);
    vmki_os_event_signal(&event);
    for (size_t i = 0; i < THREADS; i++)
        assert_woken(&waiters[i]);
}
END_TEST

START_TEST(reset_forgets_no_waiter)
{
    vmki_os_event event = {{0}};
    waiter w;
    start_waiter(&w, &event, LONG_WAIT);
    pause_for(5 * MILLISECOND);
    vmki_os_event_reset(&event);
    pause_for(2 * MILLISECOND);
    vmki_os_event_signal(&event);
    assert_woken(&w);
}
END_TEST

/* --- to and fro ------------------------------------------------------------------------------------------------- */

typedef struct match {
    vmki_os_event turn[2];
    size_t rounds;
    size_t ball; /* by turns */
    size_t wrong[2], late[2];
} match;

static void play(void *argument, unsigned number)
{
    match *m = argument;
    for (size_t i = 0; i < m->rounds && m->late[number] == 0; i++) {
        uint64_t before = vmki_os_clock();
        bool signalled = vmki_os_event_wait(&m->turn[number], LONG_WAIT);
        m->late[number] += !signalled || vmki_os_clock() - before >= WOKEN;
        vmki_os_event_reset(&m->turn[number]);
        m->wrong[number] += m->ball != 2 * i + number;
        m->ball++;
        vmki_os_event_signal(&m->turn[1 - number]);
    }
}

START_TEST(events_pass_the_turn)
{
    match m = {.rounds = support_rounds(10000)};
    vmki_os_event_signal(&m.turn[0]);
    support_threads(2, play, &m);
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(m.late[i], 0);
        ck_assert_uint_eq(m.wrong[i], 0);
    }
    ck_assert_uint_eq(m.ball, 2 * m.rounds);
}
END_TEST

/* A worker that takes all there is to do whenever it is woken, as the heap's does: nothing is left lying when the
 * signal comes between its look and its wait. */
typedef struct queue {
    vmki_os_lock lock;
    vmki_os_event event;
    size_t rounds;
    size_t put, taken; /* under the lock */
    size_t late;
} queue;

/* One that takes it when it can be had only excludes as the others do. */
static void try_to_put(queue *q)
{
    while (!vmki_os_lock_try(&q->lock))
        support_yield();
    q->put++;
    vmki_os_lock_release(&q->lock);
}

static void put_or_take(void *argument, unsigned number)
{
    queue *q = argument;
    size_t all = q->rounds * (THREADS - 1), taken = 0;
    for (size_t i = 0; number != 0 && i < q->rounds; i++) {
        if (number == 1) {
            try_to_put(q);
        } else {
            vmki_os_lock_acquire(&q->lock);
            q->put++;
            vmki_os_lock_release(&q->lock);
        }
        vmki_os_event_signal(&q->event);
        if (i % 16 == 0)
            support_yield();
    }
    while (number == 0 && taken < all && q->late == 0) {
        uint64_t before = vmki_os_clock();
        q->late += !vmki_os_event_wait(&q->event, LONG_WAIT) || vmki_os_clock() - before >= WOKEN;
        vmki_os_event_reset(&q->event);
        vmki_os_lock_acquire(&q->lock);
        taken = q->taken = q->put;
        vmki_os_lock_release(&q->lock);
    }
}

START_TEST(no_signal_is_lost)
{
    queue q = {.rounds = support_rounds(20000)};
    support_threads(THREADS, put_or_take, &q);
    ck_assert_uint_eq(q.late, 0);
    ck_assert_uint_eq(q.taken, q.rounds * (THREADS - 1));
}
END_TEST

START_TEST(lock_is_tried)
{
    vmki_os_lock lock = {0};
    ck_assert(vmki_os_lock_try(&lock));
    ck_assert(!vmki_os_lock_try(&lock));
    vmki_os_lock_release(&lock);
    vmki_os_lock_acquire(&lock);
    ck_assert(!vmki_os_lock_try(&lock));
    vmki_os_lock_release(&lock);
    ck_assert_uint_eq(lock.word, 0); /* as all zero is an unlocked one */
}
END_TEST

static void keep_id(void *argument, unsigned number)
{
    uintptr_t *ids = argument;
    static uint32_t there; /* all live at once, or one could have another's */
    ids[number] = vmki_os_thread_id();
    (void)__atomic_fetch_add(&there, 1, __ATOMIC_SEQ_CST);
    while (VMKI_LOAD_32(&there) < THREADS)
        support_yield();
    if (ids[number] != vmki_os_thread_id())
        ids[number] = 0;
}

START_TEST(threads_have_ids)
{
    uintptr_t ids[THREADS + 1];
    support_threads(THREADS, keep_id, ids);
    ids[THREADS] = vmki_os_thread_id();
    for (unsigned i = 0; i <= THREADS; i++) {
        ck_assert_uint_ne(ids[i], 0);
        for (unsigned j = 0; j < i; j++)
            ck_assert_uint_ne(ids[i], ids[j]);
    }
}
END_TEST

/* --- the suite -------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    const TTest *const tests[] = {lock_is_tried,
                                  clock_never_goes_back,
                                  clock_counts_nanoseconds,
                                  random_bits_differ,
                                  threads_do_what_they_are_told,
                                  join_waits,
                                  stack_is_large_enough,
                                  joined_threads_leave_nothing,
                                  signal_stays_until_reset,
                                  wait_ends_without_signal,
                                  signal_wakes,
                                  signal_wakes_all,
                                  reset_forgets_no_waiter,
                                  events_pass_the_turn,
                                  no_signal_is_lost,
                                  threads_have_ids};
    Suite *suite = suite_create("os_threads");
    TCase *group = tcase_create("threads");
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(group, tests[i]);
    suite_add_tcase(suite, group);
    return support_main(argc, argv, suite, NULL);
}
