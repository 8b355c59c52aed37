/* SPDX-License-Identifier: MIT
 *
 * fork of a program whose heap has a thread for finalizers: the child has it too, as soon as there is something for it
 * to do, and runs what waited at the fork as well.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "gc_graph.h"

enum { COUNT = 100, DEADLINE = 60, CHILDREN = 10 };

static size_t runs[4 * COUNT]; /* of each object; atomic, as the next ones */
static size_t done;
static size_t holds; /* the thread is kept busy meanwhile */

static void run(void *context, void *object)
{
    const node *n = object;
    (void)context;
    while (VMKI_LOAD(&holds) != 0) {
        vmk_gc_safepoint();
        support_yield();
    }
    VMKI_FETCH_ADD(&runs[n->number], 1);
    VMKI_FETCH_ADD(&done, 1);
}

static bool add(vmk_gc *gc, size_t first)
{
    for (size_t i = first; i < first + COUNT; i++) {
        node *n = vmk_gc_alloc(gc, sizeof *n);
        if (n == NULL)
            return false;
        n->number = i;
        if (vmk_gc_finalizer_set(gc, n, run, NULL, 0) != VMK_OK)
            return false;
    }
    vmk_gc_collect(gc);
    return true;
}

static void wait_for(size_t count)
{
    while (VMKI_LOAD(&done) < count) {
        vmk_gc_safepoint();
        support_yield();
    }
}

static bool once(size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        if (runs[i] != 1)
            return false;
    return true;
}

/* Of the objects from COUNT on one was being run by a thread that is not here: it may have been lost by the fork. */
static int child_looks(vmk_gc *gc)
{
    (void)alarm(DEADLINE);
    VMKI_STORE_RELAXED(&holds, 0);
    if (!SUPPORT_CHILD_HAS_THREADS)
        return vmk_gc_finalize(gc, SIZE_MAX) >= COUNT - 1 ? 0 : __LINE__;
    if (!add(gc, 2 * COUNT))
        return __LINE__;
    wait_for(3 * COUNT - 1);
    if (!once(0, COUNT) || !once(2 * COUNT, COUNT))
        return __LINE__;
    size_t lost = 0;
    for (size_t i = COUNT; i < 2 * COUNT; i++)
        lost += runs[i] == 0;
    if (lost > 1)
        return __LINE__;
    if (!vmki_gc_check(gc))
        return __LINE__;
    vmk_gc_destroy(gc);
    return 0;
}

START_TEST(a_child_runs_finalizers)
{
    vmk_gc *gc = exact_heap(VMK_GC_FINALIZER_THREAD);
    memset(runs, 0, sizeof runs);
    done = 0;
    ck_assert(add(gc, 0));
    wait_for(COUNT);
    VMKI_STORE_RELAXED(&holds, 1);
    ck_assert(add(gc, COUNT));
    for (int i = 0; i < CHILDREN; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0)
            _exit(child_looks(gc));
        ck_assert_int_gt(child, 0);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 0);
    }
    VMKI_STORE_RELAXED(&holds, 0);
    wait_for(2 * COUNT);
    ck_assert(once(0, 2 * COUNT));
    vmk_gc_destroy(gc);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *s = suite_create("gc_finalize_posix");
    TCase *t = tcase_create("gc_finalize_posix");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, a_child_runs_finalizers);
    suite_add_tcase(s, t);
    return support_main(argc, argv, s, NULL);
}
