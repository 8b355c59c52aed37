/* SPDX-License-Identifier: MIT
 *
 * Why an object lives: because of each kind of root alone, by a shortest way, and by what marking takes for a pointer.
 */
#include <stdlib.h>
#include <string.h>

#include "gc_seen.h"

#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __declspec(noinline)
#endif

static void finalize_nothing(void *context, void *object)
{
    (void)context;
    (void)object;
}

/* --- roots -------------------------------------------------------------------------------------------------------- */

static void *static_word;

static void trace_one(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    ck_assert_ptr_null(object);
    ck_assert_uint_eq(size, 0);
    vmk_gc_visit(visitor, *(void **)context);
}

static void expect_one(vmk_gc *gc, void *object, vmk_gc_root root, const void *at)
{
    path p;
    ck_assert(why(gc, object, &p));
    ck_assert_uint_eq(p.count, 1);
    ck_assert_int_eq(p.step[0].root, root);
    ck_assert_ptr_eq(p.step[0].at, at);
    ck_assert_uint_eq(p.step[0].thread, 0);
    ck_assert_ptr_eq(p.step[0].object.base, object);
    ck_assert_uint_eq(p.step[0].object.size, vmk_gc_usable_size(gc, object));
}

START_TEST(why_because_of_what_the_program_names)
{
    vmk_gc *gc = make(EXACT);
    void *range[4] = {NULL}, *slots[4] = {NULL}, *traced = NULL;
    path p;
    void *object = vmk_gc_alloc(gc, 100);
    ck_assert(!why(gc, object, &p));
    ck_assert_int_eq(vmk_gc_roots_add(gc, range, sizeof range), VMK_OK);
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, 4), VMK_OK);
    ck_assert_int_eq(vmk_gc_tracer_add(gc, trace_one, &traced), VMK_OK);
    ck_assert(!why(gc, object, &p));
    range[2] = object;
    expect_one(gc, object, VMK_GC_ROOT_RANGE, &range[2]);
    range[2] = NULL;
    slots[3] = object;
    expect_one(gc, object, VMK_GC_ROOT_SLOT, &slots[3]);
    slots[3] = NULL;
    traced = object;
    expect_one(gc, object, VMK_GC_ROOT_TRACER, NULL);
    traced = NULL;
    ck_assert_int_eq(vmk_gc_pin(gc, object), VMK_OK);
    expect_one(gc, object, VMK_GC_ROOT_PIN, NULL);
    vmk_gc_unpin(gc, object);
    ck_assert(!why(gc, object, &p));
    ck_assert_int_eq(vmk_gc_finalizer_set(gc, object, finalize_nothing, NULL, 0), VMK_OK);
    ck_assert(!why(gc, object, &p)); /* it has one, and does not wait yet */
    vmk_gc_collect(gc);
    expect_one(gc, object, VMK_GC_ROOT_FINALIZABLE, NULL);
    ck_assert_uint_eq(vmk_gc_finalize(gc, 1), 1);
    end(gc);
}
END_TEST

START_TEST(why_because_of_static_data)
{
    vmk_gc *gc = make(VMK_GC_NO_STACKS);
    static_word = vmk_gc_alloc(gc, 40);
    expect_one(gc, static_word, VMK_GC_ROOT_STATIC, &static_word);
    static_word = NULL;
    end(gc);
}
END_TEST

#ifndef VMKIT_MODEL
typedef struct holder {
    vmk_gc *gc;
    uintptr_t hidden; /* ~ the object */
    uintptr_t id;
    uintptr_t at; /* of the word that holds it, */
    bool on_stack;
    bool wrong;
    uintptr_t ready, done;
} holder;

static _Thread_local void *thread_word;

static NOINLINE void hold(holder *h, void *volatile *word)
{
    *word = vmk_gc_alloc(h->gc, 200);
    h->hidden = ~(uintptr_t)*word;
    h->at = (uintptr_t)word;
    (void)VMKI_EXCHANGE(&h->ready, (uintptr_t)1);
    while (VMKI_LOAD(&h->done) == 0)
        support_yield();
    *word = NULL;
}

static void hold_in_thread(holder *h)
{
    void *volatile on_stack = NULL;
    if (vmk_gc_thread_register() != VMK_OK)
        h->wrong = true;
    h->id = vmki_os_thread_id();
    hold(h, h->on_stack ? &on_stack : (void *volatile *)&thread_word);
    vmk_gc_thread_unregister();
}

static void ask_for_holder(holder *h)
{
    path p;
    vmk_gc_step expected = {0};
    while (VMKI_LOAD(&h->ready) == 0)
        support_yield();
    vmk_status status;
    p.count = 0;
    bool found = vmk_gc_why(h->gc, (void *)~h->hidden, path_add, &p, &status);
    expected = p.step[0];
    h->wrong = h->wrong || !found || status != VMK_OK || p.count != 1 || expected.thread != h->id;
    h->wrong = h->wrong || expected.object.base != (void *)~h->hidden;
    if (h->on_stack) /* a copy may be deeper in the stack, or in a register */
        h->wrong = h->wrong || (expected.root != VMK_GC_ROOT_STACK && expected.root != VMK_GC_ROOT_REGISTERS);
    (void)VMKI_EXCHANGE(&h->done, (uintptr_t)1);
}

static void hold_and_ask(void *argument, unsigned number)
{
    if (number == 0)
        ask_for_holder(argument);
    else
        hold_in_thread(argument);
}

START_TEST(why_because_of_another_thread)
{
    for (unsigned on_stack = 0; on_stack < 2; on_stack++) {
        vmk_gc *gc = make(VMK_GC_NO_STATIC);
        holder h = {.gc = gc, .on_stack = on_stack != 0};
        support_threads(2, hold_and_ask, &h);
        ck_assert(!h.wrong);
        end(gc);
    }
}
END_TEST
#endif

/* --- ways --------------------------------------------------------------------------------------------------------- */

START_TEST(why_shows_each_step)
{
    vmk_gc *gc = make(EXACT);
    vmk_gc_type *type = node_type(gc);
    void *slot = NULL;
    path p;
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    node *first = node_new(gc, type);
    slot = first;
    first->right = node_new(gc, type);
    first->right->left = vmk_gc_alloc(gc, 100);
    void **words = (void **)(void *)first->right->left;
    words[7] = vmk_gc_alloc_leaf(gc, 50000);
    ck_assert(why(gc, (char *)words[7] + 49999, &p)); /* its inside */
    ck_assert_uint_eq(p.count, 4);
    ck_assert_int_eq(p.step[0].root, VMK_GC_ROOT_SLOT);
    ck_assert_ptr_eq(p.step[0].at, &slot);
    ck_assert_str_eq(p.step[0].object.type, "node");
    ck_assert_ptr_eq(p.step[1].at, &first->right);
    ck_assert_ptr_eq(p.step[2].at, &first->right->left);
    ck_assert_ptr_null(p.step[2].object.type);
    ck_assert(!p.step[2].object.leaf);
    ck_assert_ptr_eq(p.step[3].at, &words[7]);
    ck_assert_ptr_eq(p.step[3].object.base, words[7]);
    ck_assert(p.step[3].object.leaf);
    ck_assert(!why(gc, &slot, &p)); /* no object */
    ck_assert(!why(gc, NULL, &p));
    words[7] = NULL;
    slot = NULL;
    ck_assert(!why(gc, words, &p));
    end(gc);
}
END_TEST

/* A long list, whose end is also near the root by another way. */
START_TEST(why_shows_a_shortest_way)
{
    enum { LONG = 1000 };
    vmk_gc *gc = make(EXACT);
    vmk_gc_type *type = node_type(gc);
    void *slots[2] = {NULL};
    path p;
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, 2), VMK_OK);
    node *at = node_new(gc, type);
    slots[0] = at;
    for (int i = 0; i < LONG; i++)
        at = at->left = node_new(gc, type);
    ck_assert(why(gc, at, &p));
    ck_assert_uint_eq(p.count, LONG + 1);
    slots[1] = node_new(gc, type);
    ((node *)slots[1])->right = node_new(gc, type);
    ((node *)slots[1])->right->right = at;
    at->left = slots[0]; /* and round */
    ck_assert(why(gc, at, &p));
    ck_assert_uint_eq(p.count, 3);
    ck_assert_ptr_eq(p.step[0].at, &slots[1]);
    end(gc);
}
END_TEST

static void trace_fields(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    void **words = object;
    (void)context;
    if (size >= 2 * sizeof *words && words[0] != NULL) { /* 0: how many behind it */
        vmk_gc_visit(visitor, words[1]);
        vmk_gc_visit_range(visitor, words + 2, sizeof *words);
    }
}

START_TEST(why_through_functions_that_trace)
{
    vmk_gc *gc = make(EXACT);
    const vmk_gc_layout layout = {.name = "traced", .size = 4 * sizeof(void *), .trace = trace_fields};
    vmk_gc_type *type;
    void *slot = NULL;
    path p;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    void **object = vmk_gc_alloc_typed(gc, type, 1);
    slot = object;
    object[1] = vmk_gc_alloc(gc, 16);
    object[2] = vmk_gc_alloc(gc, 16);
    object[3] = vmk_gc_alloc(gc, 16);
    ck_assert(!why(gc, object[1], &p));
    object[0] = object;
    ck_assert(why(gc, object[1], &p));
    ck_assert_uint_eq(p.count, 2);
    ck_assert_ptr_null(p.step[1].at);
    ck_assert_ptr_eq(p.step[1].from, object);
    ck_assert(why(gc, object[2], &p));
    ck_assert(!why(gc, object[3], &p)); /* not shown */
    end(gc);
}
END_TEST

/* A typed object's words are exact: not those that the map leaves out, nor the rest behind whole elements, nor ends. */
START_TEST(why_takes_what_marking_takes)
{
    vmk_gc *gc = make(EXACT | VMK_GC_PAST_END);
    const size_t pointers[] = {2};
    const vmk_gc_layout layout = {.size = 3 * sizeof(void *), .pointers = pointers};
    vmk_gc_type *type;
    void *slot = NULL, *range[2] = {NULL};
    path p;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    void **object = vmk_gc_alloc_typed(gc, type, 2);
    size_t words = vmk_gc_usable_size(gc, object) / sizeof(void *);
    slot = object;
    for (size_t i = 0; i < words; i++) {
        void *target = vmk_gc_alloc(gc, 64);
        object[i] = target;
        MUST(why(gc, target, &p) == (i % 3 == 1 && i < words / 3 * 3));
        object[i] = (char *)target + 63;
        MUST(why(gc, target, &p) == (i % 3 == 1 && i < words / 3 * 3));
        object[i] = (char *)target + 64;
        MUST(!why(gc, target, &p));
        object[i] = NULL;
    }
    char *target = vmk_gc_alloc(gc, 64);
    ck_assert_int_eq(vmk_gc_roots_add(gc, range, sizeof range), VMK_OK);
    range[1] = target + 64; /* a root that is scanned, where ends are asked for */
    ck_assert(why(gc, target, &p));
    ck_assert_ptr_eq(p.step[0].at, &range[1]);
    range[1] = target + 65;
    ck_assert(!why(gc, target, &p));
    slot = target + 64; /* one that is exact */
    ck_assert(!why(gc, target, &p));
    end(gc);
}
END_TEST

static void trace_range(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    if (object == NULL)
        vmk_gc_visit_range(visitor, context, sizeof(void *));
    else
        vmk_gc_visit_range(visitor, object, size);
}

START_TEST(why_because_of_an_end_that_is_shown)
{
    for (unsigned past_end = 0; past_end < 2; past_end++) {
        vmk_gc *gc = make(EXACT | (past_end != 0 ? VMK_GC_PAST_END : 0));
        const vmk_gc_layout layout = {.size = 2 * sizeof(void *), .trace = trace_range};
        vmk_gc_type *type;
        void *slot = NULL, *shown = NULL;
        path p;
        ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
        ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
        ck_assert_int_eq(vmk_gc_tracer_add(gc, trace_range, &shown), VMK_OK);
        void **from = vmk_gc_alloc_typed(gc, type, 1);
        char *target = vmk_gc_alloc(gc, 128);
        slot = from;
        from[1] = target + vmk_gc_usable_size(gc, target);
        ck_assert(why(gc, target, &p) == (past_end != 0));
        from[1] = NULL;
        shown = target + vmk_gc_usable_size(gc, target);
        ck_assert(why(gc, target, &p));
        ck_assert_int_eq(p.step[0].root, VMK_GC_ROOT_TRACER);
        end(gc);
    }
}
END_TEST

START_TEST(why_because_of_an_end)
{
    for (unsigned past_end = 0; past_end < 2; past_end++) {
        vmk_gc *gc = make(EXACT | (past_end != 0 ? VMK_GC_PAST_END : 0));
        void *slot = NULL;
        path p;
        ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
        void **from = vmk_gc_alloc(gc, 32);
        char *target = vmk_gc_alloc(gc, 128), *large = vmk_gc_alloc(gc, 100000);
        slot = from;
        from[1] = target + vmk_gc_usable_size(gc, target);
        from[3] = large + vmk_gc_usable_size(gc, large);
        ck_assert(why(gc, target, &p) == (past_end != 0));
        ck_assert(why(gc, large, &p) == (past_end != 0));
        end(gc);
    }
}
END_TEST

START_TEST(why_because_of_an_ephemeron)
{
    enum { PAIRS = 50 };
    vmk_gc *gc = make(EXACT);
    void *slots[PAIRS + 1] = {NULL}, *objects[PAIRS + 1];
    path p;
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, PAIRS + 1), VMK_OK);
    objects[0] = vmk_gc_alloc(gc, 16);
    for (int i = 0; i < PAIRS; i++) { /* each value is the next one's key; the last pairs first */
        objects[i + 1] = vmk_gc_alloc(gc, 16);
        slots[PAIRS - i] = vmk_gc_ephemeron_new(gc, objects[i], objects[i + 1]);
    }
    ck_assert(!why(gc, objects[PAIRS], &p));
    slots[0] = objects[0];
    for (int i = 1; i <= PAIRS; i++) {
        MUST(why(gc, objects[i], &p));
        MUST(p.count == 2);
        MUST(p.step[0].object.base == slots[PAIRS - i + 1] && p.step[0].root == VMK_GC_ROOT_SLOT);
        MUST(p.step[1].root == VMK_GC_ROOT_EPHEMERON && p.step[1].at == NULL);
    }
    slots[PAIRS / 2] = NULL; /* a pair in the middle can't be reached */
    ck_assert(why(gc, objects[PAIRS / 2], &p));
    ck_assert(!why(gc, objects[PAIRS / 2 + 1], &p));
    end(gc);
}
END_TEST

#ifndef VMKIT_MODEL
/* Both objects can be found on the stack of who asks; one of them is in a static variable too. */
START_TEST(who_asks_is_the_last_reason)
{
    vmk_gc *gc = make(0);
    path p;
    void *volatile on_stack = vmk_gc_alloc(gc, 64);
    void **other = vmk_gc_alloc(gc, 96); /* of another slab: the address of the next object is the end of this one */
    static_word = other;
    other[3] = on_stack;
    ck_assert(why(gc, on_stack, &p));
    ck_assert_int_eq(p.step[0].root, VMK_GC_ROOT_STATIC);
    ck_assert_ptr_eq(p.step[0].at, &static_word);
    ck_assert_uint_eq(p.count, 2);
    other[3] = NULL;
    static_word = NULL;
    ck_assert(why(gc, on_stack, &p));
    ck_assert(p.step[0].root == VMK_GC_ROOT_STACK || p.step[0].root == VMK_GC_ROOT_REGISTERS);
    ck_assert_uint_eq(p.count, 1);
    ck_assert_uint_eq(p.step[0].thread, vmki_os_thread_id());
    ck_assert_ptr_nonnull(on_stack);
    end(gc);
}
END_TEST
#endif

/* Marks are as they were, and the next cycle finds what it should. */
START_TEST(asking_changes_nothing)
{
    enum { COUNT = 500 };
    vmk_gc *gc = make(EXACT | VMK_GC_VERIFY);
    vmk_gc_type *type = node_type(gc);
    void *slot = NULL;
    path p;
    support_random random = support_random_start(2);
    node *nodes[COUNT];
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    vmk_gc_disable(gc);
    for (size_t i = 0; i < COUNT; i++) {
        nodes[i] = node_new(gc, type);
        nodes[i]->left = i != 0 ? nodes[support_random_below(&random, i)] : NULL;
        nodes[i]->right = i != 0 ? nodes[support_random_below(&random, i)] : NULL;
    }
    slot = nodes[COUNT / 2];
    size_t reached = 0;
    for (size_t i = 0; i < COUNT; i++)
        reached += why(gc, nodes[i], &p);
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.live_objects, reached);
    ck_assert_uint_ge(reached, 2);
    vmk_gc_enable(gc);
    end(gc);
}
END_TEST

#ifdef VMKIT_MODEL
START_TEST(why_without_memory)
{
    vmk_gc *gc = make(EXACT);
    vmk_gc_type *type = node_type(gc);
    void *slots[2] = {NULL};
    path p;
    vmk_status status;
    bool found;
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, 2), VMK_OK);
    node *at = node_new(gc, type);
    slots[0] = at;
    slots[1] = vmk_gc_ephemeron_new(gc, at, at);
    for (int i = 0; i < 600; i++)
        at = at->left = node_new(gc, type);
    uint64_t failures = 0;
    for (uint64_t n = 1;; n++) {
        p.count = 0;
        model_fail_nth(n, VMK_ERR_COMMIT, true);
        found = vmk_gc_why(gc, at, path_add, &p, &status);
        bool failed = model_failed();
        model_fail_nth(0, VMK_OK, false);
        ck_assert(found == (p.count == 601) && (found || p.count == 0));
        ck_assert(found ? status == VMK_OK : status == VMK_ERR_COMMIT);
        ck_assert(vmki_gc_check(gc));
        if (!failed)
            break;
        failures += !found;
    }
    ck_assert(found);
    ck_assert_uint_ge(failures, 3);
    end(gc);
}
END_TEST
#endif

static Suite *suite(void)
{
    Suite *s = suite_create("gc_why");
    TCase *c = tcase_create("why");
    tcase_add_test(c, why_because_of_what_the_program_names);
    tcase_add_test(c, why_because_of_static_data);
    tcase_add_test(c, why_shows_each_step);
    tcase_add_test(c, why_shows_a_shortest_way);
    tcase_add_test(c, why_through_functions_that_trace);
    tcase_add_test(c, why_takes_what_marking_takes);
    tcase_add_test(c, why_because_of_an_end);
    tcase_add_test(c, why_because_of_an_end_that_is_shown);
    tcase_add_test(c, why_because_of_an_ephemeron);
    tcase_add_test(c, asking_changes_nothing);
#ifdef VMKIT_MODEL
    tcase_add_test(c, why_without_memory);
#else
    tcase_add_test(c, why_because_of_another_thread);
    tcase_add_test(c, who_asks_is_the_last_reason);
#endif
    tcase_set_timeout(c, 0);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
