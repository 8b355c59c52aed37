/* SPDX-License-Identifier: MIT
 *
 * Many finalizers: run a few at a time, by several threads, by the heap's own thread, which the end of the heap waits
 * for; set while there is no memory.
 */
#include "gc_graph.h"

static vmk_gc_stats stats_of(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(gc, &stats);
    return stats;
}

enum { MANY = 3000 };

typedef struct crowd {
    vmk_gc *gc;
    size_t runs[MANY]; /* of each; atomic */
    size_t order[MANY];
    size_t done; /* atomic */
    size_t broken;
    size_t to_run;
} crowd;

static void crowd_run(void *context, void *object)
{
    crowd *c = context;
    const node *n = object;
    if (!whole(n) || n->number >= MANY) {
        VMKI_FETCH_ADD(&c->broken, 1);
        return;
    }
    VMKI_FETCH_ADD(&c->runs[n->number], 1);
    c->order[VMKI_FETCH_ADD(&c->done, 1) % MANY] = n->number;
}

/* So many objects that nobody has, with finalizers. Where stacks are roots too: made deeper in the stack. */
static VMKI_COLD void crowd_add(crowd *c, size_t first, size_t count, unsigned flags)
{
    for (size_t i = first; i < first + count; i++) {
        node *n = node_new(c->gc, i);
        MUST(vmk_gc_finalizer_set(c->gc, n, crowd_run, c, flags) == VMK_OK);
    }
}

static bool crowd_once(const crowd *c, size_t count)
{
    for (size_t i = 0; i < MANY; i++)
        if (c->runs[i] != (i < count ? 1u : 0u))
            return false;
    return c->broken == 0;
}

static crowd the_crowd;

static crowd *crowd_start(vmk_gc *gc)
{
    memset(&the_crowd, 0, sizeof the_crowd);
    the_crowd.gc = gc;
    return &the_crowd;
}

START_TEST(as_many_as_are_asked_for_in_turn)
{
    crowd *c = crowd_start(exact_heap(0));
    crowd_add(c, 0, 100, 0);
    vmk_gc_collect(c->gc);
    crowd_add(c, 100, 100, VMK_GC_ORDERED);
    vmk_gc_collect(c->gc);
    ck_assert_uint_eq(stats_of(c->gc).finalizable, 200);
    ck_assert_uint_eq(vmk_gc_finalize(c->gc, 30), 30);
    ck_assert_uint_eq(stats_of(c->gc).finalizable, 170);
    ck_assert_uint_eq(vmk_gc_finalize(c->gc, 1), 1);
    ck_assert_uint_eq(vmk_gc_finalize(c->gc, SIZE_MAX), 169);
    ck_assert_uint_eq(vmk_gc_finalize(c->gc, SIZE_MAX), 0);
    ck_assert(crowd_once(c, 200));
    for (size_t i = 0; i < 200; i++)
        MUST(c->order[i] == i); /* first come, first served */
    vmk_gc_collect(c->gc);
    ck_assert_uint_eq(stats_of(c->gc).live_objects, 0);
    vmk_gc_destroy(c->gc);
}
END_TEST

/* What was never run never is. */
START_TEST(the_end_of_the_heap_runs_none)
{
    crowd *c = crowd_start(exact_heap(0));
    crowd_add(c, 0, 10, 0);
    vmk_gc_collect(c->gc);
    crowd_add(c, 10, 10, 0);
    vmk_gc_destroy(c->gc);
    ck_assert_uint_eq(c->done, 0);
}
END_TEST

static void crowd_thread(void *argument, unsigned number)
{
    crowd *c = argument;
    (void)number;
    if (vmk_gc_thread_register() != VMK_OK) {
        VMKI_FETCH_ADD(&c->broken, 1);
        return;
    }
    while (VMKI_LOAD(&c->done) + VMKI_LOAD(&c->broken) < c->to_run) {
        if (vmk_gc_finalize(c->gc, 3) == 0)
            vmk_gc_safepoint();
    }
    vmk_gc_thread_unregister();
}

START_TEST(several_threads_run_each_once)
{
    crowd *c = crowd_start(exact_heap(0));
    for (size_t i = 0; i < MANY; i += 500)
        crowd_add(c, i, 500, i % 1000 == 0 ? 0 : VMK_GC_ORDERED);
    vmk_gc_collect(c->gc);
    c->to_run = MANY;
    vmk_gc_blocking_enter();
    support_threads(4, crowd_thread, c);
    vmk_gc_blocking_leave();
    ck_assert(crowd_once(c, MANY));
    ck_assert_uint_eq(vmk_gc_finalize(c->gc, SIZE_MAX), 0);
    vmk_gc_destroy(c->gc);
}
END_TEST

/* Threads that collect, allocate, set and run, all at once. */
static void storm_thread(void *argument, unsigned number)
{
    crowd *c = argument;
    size_t share = MANY / 4;
    if (vmk_gc_thread_register() != VMK_OK) {
        VMKI_FETCH_ADD(&c->broken, 1);
        return;
    }
    for (size_t i = number * share; i < (number + 1) * share; i++) {
        node *n = vmk_gc_alloc(c->gc, sizeof *n);
        if (n == NULL) {
            VMKI_FETCH_ADD(&c->broken, 1);
            break;
        }
        n->number = i;
        n->check = check_of(i);
        if (vmk_gc_finalizer_set(c->gc, n, crowd_run, c, i % 2) != VMK_OK)
            VMKI_FETCH_ADD(&c->broken, 1);
        if (i % 50 == 0)
            vmk_gc_collect(c->gc);
        if (i % 7 == 0)
            (void)vmk_gc_finalize(c->gc, 5);
    }
    vmk_gc_thread_unregister();
}

static vmk_gc *usual_heap(unsigned flags)
{
    vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = flags | VMK_GC_NO_STATIC, .heap = &below};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    return gc;
}

START_TEST(a_storm_of_threads)
{
    crowd *c = crowd_start(usual_heap(0));
    vmk_gc_blocking_enter();
    support_threads(4, storm_thread, c);
    vmk_gc_blocking_leave();
    size_t before = c->done;
    for (int i = 0; i < 3; i++) {
        vmk_gc_collect(c->gc);
        before += vmk_gc_finalize(c->gc, SIZE_MAX);
    }
    ck_assert_uint_eq(c->done, before);
    ck_assert_uint_eq(c->broken, 0);
    size_t never = 0;
    for (size_t i = 0; i < MANY; i++) {
        MUST(c->runs[i] <= 1);
        never += c->runs[i] == 0;
    }
    /* Nobody has them any more, but a word left on a stack may look like one. */
    ck_assert_uint_le(never, 40);
    ck_assert_uint_eq(stats_of(c->gc).finalizers, never);
    vmk_gc_destroy(c->gc);
}
END_TEST

/* --- the heap's own thread ---------------------------------------------------------------------------------------- */

static void wait_for(const size_t *counter, size_t count)
{
    vmk_gc_blocking_enter();
    while (VMKI_LOAD(counter) < count) /* the suite's time is limited */
        support_yield();
    vmk_gc_blocking_leave();
}

static void the_thread_runs_them_in(unsigned flags)
{
    crowd *c = crowd_start(exact_heap(flags | VMK_GC_FINALIZER_THREAD));
    for (size_t i = 0; i < 1000; i += 100) {
        crowd_add(c, i, 100, 0);
        vmk_gc_collect(c->gc);
        wait_for(&c->done, i + 100);
    }
    ck_assert(crowd_once(c, 1000));
    ck_assert_uint_eq(stats_of(c->gc).finalizable, 0);
    vmk_gc_destroy(c->gc);
}

START_TEST(the_heaps_thread_runs_them)
{
    the_thread_runs_them_in(0);
}
END_TEST

START_TEST(the_heaps_thread_where_stacks_are_roots)
{
    crowd *c = crowd_start(usual_heap(VMK_GC_FINALIZER_THREAD));
    crowd_add(c, 0, 1000, 0);
    for (size_t round = 0; VMKI_LOAD(&c->done) < 900; round++)
        vmk_gc_collect(c->gc);
    vmk_gc_destroy(c->gc);
    ck_assert_uint_eq(c->broken, 0);
    ck_assert_uint_le(c->done, 1000);
    for (size_t i = 0; i < MANY; i++)
        MUST(c->runs[i] <= 1);
}
END_TEST

typedef struct slow {
    vmk_gc *gc;
    size_t begun; /* atomic, as the next */
    size_t ended;
    size_t rounds;
} slow;

/* Takes its time, allocates, collects. */
static void slow_run(void *context, void *object)
{
    slow *s = context;
    VMKI_FETCH_ADD(&s->begun, 1);
    for (size_t i = 0; i < s->rounds; i++) {
        for (size_t k = 0; k < 10; k++)
            (void)vmk_gc_alloc(s->gc, 500);
        vmk_gc_collect(s->gc);
        support_yield();
    }
    if (whole(object))
        VMKI_FETCH_ADD(&s->ended, 1);
}

static void end_waits_in(vmk_gc *gc)
{
    slow s = {.gc = gc, .rounds = 30};
    for (size_t i = 0; i < 5; i++) {
        node *n = node_new(s.gc, i);
        ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, n, slow_run, &s, 0), VMK_OK);
    }
    vmk_gc_collect(s.gc);
    while (VMKI_LOAD(&s.begun) == 0)
        vmk_gc_collect(s.gc);
    vmk_gc_destroy(s.gc);
    ck_assert_uint_eq(s.begun, s.ended);
}

/* One that runs is waited for, with all that it does, the others are never begun. */
START_TEST(the_end_waits_for_what_runs)
{
    end_waits_in(exact_heap(VMK_GC_FINALIZER_THREAD));
    end_waits_in(usual_heap(VMK_GC_FINALIZER_THREAD));
    end_waits_in(usual_heap(VMK_GC_FINALIZER_THREAD | VMK_GC_COOPERATIVE));
}
END_TEST

START_TEST(the_end_of_a_thread_that_never_ran)
{
    vmk_gc_destroy(exact_heap(VMK_GC_FINALIZER_THREAD));
    crowd *c = crowd_start(exact_heap(VMK_GC_FINALIZER_THREAD));
    crowd_add(c, 0, 1, 0);
    vmk_gc_destroy(c->gc);
    ck_assert_uint_eq(c->done, 0);
}
END_TEST

/* --- without memory ----------------------------------------------------------------------------------------------- */

#ifdef VMKIT_MODEL
START_TEST(a_refusal_changes_nothing)
{
    for (uint64_t nth = 1; nth < 12; nth++) {
        crowd *c = crowd_start(exact_heap(0));
        void *roots[1] = {NULL};
        size_t refused = 0, count = 0;
        ck_assert_int_eq(vmk_gc_slots_add(c->gc, roots, 1), VMK_OK);
        vmk_gc_disable(c->gc);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (size_t i = 0; i < MANY; i++) {
            roots[0] = vmk_gc_alloc(c->gc, sizeof(node));
            if (roots[0] == NULL)
                continue;
            *(node *)roots[0] = (node){.number = count, .check = check_of(count)};
            vmk_status status = vmk_gc_finalizer_set(c->gc, roots[0], crowd_run, c, 0);
            refused += status != VMK_OK;
            count += status == VMK_OK;
            MUST(stats_of(c->gc).finalizers == count);
        }
        ck_assert_uint_le(refused, 1);
        model_fail_nth(0, VMK_OK, false);
        roots[0] = NULL;
        vmk_gc_collect(c->gc);
        ck_assert_uint_eq(vmk_gc_finalize(c->gc, SIZE_MAX), count);
        ck_assert(crowd_once(c, count));
        vmk_gc_destroy(c->gc);
        ck_assert_ptr_null(model_violation());
    }
}
END_TEST
#endif

int main(int argc, char **argv)
{
    Suite *s = suite_create("gc_finalize_threads");
    TCase *t = tcase_create("gc_finalize_threads");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, as_many_as_are_asked_for_in_turn);
    tcase_add_test(t, the_end_of_the_heap_runs_none);
    tcase_add_test(t, several_threads_run_each_once);
    tcase_add_test(t, a_storm_of_threads);
    tcase_add_test(t, the_heaps_thread_runs_them);
    tcase_add_test(t, the_heaps_thread_where_stacks_are_roots);
    tcase_add_test(t, the_end_waits_for_what_runs);
    tcase_add_test(t, the_end_of_a_thread_that_never_ran);
#ifdef VMKIT_MODEL
    tcase_add_test(t, a_refusal_changes_nothing);
#endif
    suite_add_tcase(s, t);
    return support_main(argc, argv, s, NULL);
}
