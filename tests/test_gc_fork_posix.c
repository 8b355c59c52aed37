/* SPDX-License-Identifier: MIT
 *
 * fork of a program with collected heaps: each child finds them whole, has one thread, that knows what it knew, and can
 * collect, allocate, have threads, and end; the parent goes on as if nothing had been.
 */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gc_chain.h"
#include "support.h"

#include "common/gc/gc.h"

enum { CHAIN = 100, THREADS = 4, DEADLINE = 60 };

static vmk_gc *make(unsigned flags)
{
    vmk_gc_options options = {.flags = flags, .markers = SUPPORT_CHILD_HAS_THREADS ? 2 : 1};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    return gc;
}

/* --- the child ---------------------------------------------------------------------------------------------------- */

typedef struct guest {
    vmk_gc *gc;
    bool failed;
} guest;

static void guest_run(void *argument)
{
    guest *g = argument;
    g->failed = vmk_gc_thread_register() != VMK_OK;
    chain_link *chain = chain_make(g->gc, CHAIN);
    vmk_gc_collect(g->gc);
    overwrite(g->gc, CHAIN);
    g->failed = g->failed || !chain_whole(chain, CHAIN);
}

/* 0, or the line where something is wrong. */
static int child_looks(vmk_gc *gc, const chain_link *chain, size_t threads)
{
    guest g = {.gc = gc};
    vmki_os_thread thread;
    (void)alarm(DEADLINE);
    if (vmki_world_count() != threads)
        return __LINE__;
    for (unsigned i = 0; i < 3; i++) {
        vmk_gc_collect(gc);
        if (threads > 0)
            overwrite(gc, 1000);
        if (!chain_whole(chain, chain != NULL ? CHAIN : 0))
            return __LINE__;
        if (!vmki_gc_check(gc))
            return __LINE__;
    }
    if (!SUPPORT_CHILD_HAS_THREADS)
        return 0;
    if (vmki_os_thread_start(&thread, guest_run, &g) != VMK_OK)
        return __LINE__;
    for (unsigned i = 0; i < 3; i++)
        vmk_gc_collect(gc);
    vmki_os_thread_join(&thread);
    if (g.failed || vmki_world_count() != threads)
        return __LINE__;
    return 0;
}

/* Fork, and have the child look: how it ended, 0 for well, 1000 and more: by a signal. */
static int fork_and_look(vmk_gc *gc, const chain_link *chain, size_t threads)
{
    int how;
    pid_t child = fork();
    if (child < 0)
        return -1;
    if (child == 0) {
        int line = child_looks(gc, chain, threads);
        _exit(line == 0 ? 0 : 1 + line % 250);
    }
    while (waitpid(child, &how, 0) < 0)
        ;
    return WIFEXITED(how) ? WEXITSTATUS(how) : 1000 + WTERMSIG(how);
}

/* --- one thread --------------------------------------------------------------------------------------------------- */

START_TEST(child_collects)
{
    vmk_gc *gc = make(0);
    chain_link *chain = chain_make(gc, CHAIN);
    vmk_gc_collect(gc);
    ck_assert_int_eq(fork_and_look(gc, chain, 1), 0);
    vmk_gc_collect(gc);
    overwrite(gc, 1000);
    ck_assert(chain_whole(chain, CHAIN));
    vmk_gc_destroy(gc);
}
END_TEST

START_TEST(stranger_forks)
{
    vmk_gc *gc = make(VMK_GC_AUTO_THREADS);
    vmk_gc_thread_unregister();
    ck_assert_int_eq(fork_and_look(gc, NULL, 0), 0);
    ck_assert_int_eq(vmk_gc_thread_register(), VMK_OK);
    ck_assert(vmki_gc_check(gc));
    vmk_gc_destroy(gc);
}
END_TEST

START_TEST(forks_while_blocked)
{
    vmk_gc *gc = make(0);
    chain_link *chain = chain_make(gc, CHAIN);
    vmk_gc_blocking_enter();
    pid_t child = fork();
    vmk_gc_blocking_leave();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        int line = child_looks(gc, chain, 1);
        _exit(line == 0 ? 0 : 1 + line % 250);
    }
    int how;
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert(WIFEXITED(how));
    ck_assert_int_eq(WEXITSTATUS(how), 0);
    ck_assert(chain_whole(chain, CHAIN));
    vmk_gc_destroy(gc);
}
END_TEST

START_TEST(child_of_child)
{
    vmk_gc *gc = make(VMK_GC_FINALIZER_THREAD);
    chain_link *chain = chain_make(gc, CHAIN);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void)alarm(DEADLINE);
        int end = fork_and_look(gc, chain, 1);
        vmk_gc_destroy(gc);
        _exit(end == 0 ? 0 : 1);
    }
    int how;
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert(WIFEXITED(how));
    ck_assert_int_eq(WEXITSTATUS(how), 0);
    ck_assert(chain_whole(chain, CHAIN));
    vmk_gc_destroy(gc);
}
END_TEST

/* --- in a storm --------------------------------------------------------------------------------------------------- */

typedef struct storm {
    vmk_gc *gc;
    vmk_gc *other;
    size_t forks; /* by each of those who do */
    size_t forkers;
    uintptr_t running; /* of those */
    uintptr_t failed;
    int end; /* of a child that failed */
} storm;

static void forker_run(storm *s)
{
    chain_link *chain = chain_make(s->gc, CHAIN);
    for (size_t i = 0; i < s->forks; i++) {
        int end = fork_and_look(s->gc, chain, 1);
        if (end != 0) {
            s->end = end;
            VMKI_FETCH_ADD(&s->failed, 1);
        }
        if (!chain_whole(chain, CHAIN))
            VMKI_FETCH_ADD(&s->failed, 1);
    }
    VMKI_FETCH_ADD(&s->running, SIZE_MAX);
}

static void worker_run(storm *s, unsigned number)
{
    chain_link *chain = chain_make(s->other, CHAIN);
    for (size_t round = 0; VMKI_LOAD(&s->running) > 0; round++) {
        chain_link *more = chain_make(s->gc, 10 + round % 300);
        if (!chain_whole(more, 10 + round % 300) || !chain_whole(chain, CHAIN))
            VMKI_FETCH_ADD(&s->failed, 1);
        more = NULL;
        if (round % 8 == number)
            vmk_gc_collect((round / 8) % 2 == 0 ? s->gc : s->other);
        if (number == 3 && round % 4 == 0) { /* another thread, as far as the collector goes */
            chain = NULL;
            vmk_gc_thread_unregister();
            if (vmk_gc_thread_register() != VMK_OK)
                VMKI_FETCH_ADD(&s->failed, 1);
            chain = chain_make(s->other, CHAIN);
        }
    }
}

static void storm_body(void *argument, unsigned number)
{
    storm *s = argument;
    if (vmk_gc_thread_register() != VMK_OK)
        VMKI_FETCH_ADD(&s->failed, 1);
    if (number < s->forkers)
        forker_run(s);
    else
        worker_run(s, number);
}

static void storm_with(size_t forkers)
{
    storm s = {.gc = make(0), .other = make(0), .forks = support_rounds(20), .forkers = forkers, .running = forkers};
    vmk_gc_blocking_enter();
    support_threads(THREADS, storm_body, &s);
    vmk_gc_blocking_leave();
    ck_assert_msg(s.failed == 0, "%u failed, a child with %d", (unsigned)s.failed, s.end);
    ck_assert(vmki_gc_check(s.gc));
    ck_assert(vmki_gc_check(s.other));
    vmk_gc_destroy(s.gc);
    vmk_gc_destroy(s.other);
}

START_TEST(forks_in_a_storm)
{
    storm_with(1);
}
END_TEST

START_TEST(several_fork)
{
    storm_with(2);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gc_fork");
    TCase *one = tcase_create("one");
    tcase_add_test(one, child_collects);
    tcase_add_test(one, stranger_forks);
    tcase_add_test(one, forks_while_blocked);
    tcase_add_test(one, child_of_child);
    suite_add_tcase(s, one);
    TCase *many = tcase_create("many");
    tcase_add_test(many, forks_in_a_storm);
    tcase_add_test(many, several_fork);
    suite_add_tcase(s, many);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
