/* SPDX-License-Identifier: MIT
 *
 * Seeing collected heaps: figures and events, walks, why an object lives, dumps. Leaks are in test_gc_leak.c, what the
 * program vmkit makes of a dump in check_gc_dump.sh.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gc/gc.h"
#include "object_kinds.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model/model.h"
#endif

#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __declspec(noinline)
#endif

/* --- heaps -------------------------------------------------------------------------------------------------------- */

#define EXACT (VMK_GC_NO_STACKS | VMK_GC_NO_STATIC) /* what lives is known exactly */

static vmk_gc *make(unsigned flags)
{
    static vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = flags, .heap = &below};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    return gc;
}

static void end(vmk_gc *gc)
{
    ck_assert(vmki_gc_check(gc));
    vmk_gc_destroy(gc);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

typedef struct node {
    struct node *left;
    struct node *right;
    size_t value;
} node;

static vmk_gc_type *node_type(vmk_gc *gc)
{
    static const size_t pointers[] = {3};
    static const vmk_gc_layout layout = {.name = "node", .size = sizeof(node), .pointers = pointers};
    vmk_gc_type *type;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
    return type;
}

static node *node_new(vmk_gc *gc, vmk_gc_type *type)
{
    node *made = vmk_gc_alloc_typed(gc, type, 1);
    ck_assert_ptr_nonnull(made);
    return made;
}

/* --- paths -------------------------------------------------------------------------------------------------------- */

enum { STEPS_MOST = 64 };

typedef struct path {
    size_t count;
    vmk_gc_step step[STEPS_MOST];
} path;

static void path_add(void *context, const vmk_gc_step *step)
{
    path *p = context;
    if (p->count < STEPS_MOST)
        p->step[p->count] = *step;
    p->count++;
}

static bool why(vmk_gc *gc, const void *address, path *p)
{
    vmk_status status = VMK_STATUS_COUNT;
    p->count = 0;
    bool found = vmk_gc_why(gc, address, path_add, p, &status);
    ck_assert_int_eq(status, VMK_OK);
    ck_assert(found == (p->count != 0));
    for (size_t i = 0; i < p->count && i < STEPS_MOST; i++) {
        const vmk_gc_step *step = &p->step[i];
        ck_assert(step->from == (i == 0 ? NULL : p->step[i - 1].object.base));
        if (i == 0 || step->at == NULL)
            continue;
        ck_assert((uintptr_t)step->at >= (uintptr_t)step->from);
        ck_assert((uintptr_t)step->at < (uintptr_t)step->from + p->step[i - 1].object.size);
    }
    return found;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

START_TEST(names)
{
    ck_assert_str_eq(vmk_gc_cause_name(VMK_GC_CAUSE_ASKED), "asked for");
    ck_assert_str_eq(vmk_gc_cause_name(VMK_GC_CAUSE_STRESS), "every allocation");
    ck_assert_str_eq(vmk_gc_cause_name(VMK_GC_CAUSE_COUNT), "unknown");
    ck_assert_str_eq(vmk_gc_cause_name((vmk_gc_cause)77), "unknown");
    ck_assert_str_eq(vmk_gc_root_name(VMK_GC_ROOT_STACK), "stack");
    ck_assert_str_eq(vmk_gc_root_name(VMK_GC_ROOT_EPHEMERON), "ephemeron");
    ck_assert_str_eq(vmk_gc_root_name(VMK_GC_ROOT_COUNT), "unknown");
    ck_assert_str_eq(vmk_gc_root_name((vmk_gc_root)77), "unknown");
}
END_TEST

/* --- figures ------------------------------------------------------------------------------------------------------ */

typedef struct sums {
    uint64_t cycles, pause, pause_max, stop_max, mark, sweep, by_cause[VMK_GC_CAUSE_COUNT];
    vmk_gc_event last;
} sums;

static void sums_add(void *context, const vmk_gc_event *event)
{
    sums *s = context;
    s->cycles++;
    s->pause += event->pause;
    s->mark += event->mark_time;
    s->sweep += event->sweep_time;
    s->pause_max = event->pause > s->pause_max ? event->pause : s->pause_max;
    s->stop_max = event->stop_time > s->stop_max ? event->stop_time : s->stop_max;
    s->by_cause[event->cause]++;
    s->last = *event;
}

START_TEST(figures_are_the_sums_of_events)
{
    sums s = {0};
    static vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {
        .flags = EXACT, .heap = &below, .pace = {.min_heap = 64 * 1024}, .on_event = sums_add, .on_event_context = &s};
    vmk_gc *gc;
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.cycles, 0);
    ck_assert_uint_eq(stats.last.number, 0);
    ck_assert_uint_ge(stats.threads, 1);
    size_t rounds = support_rounds(20000);
    for (size_t i = 0; i < rounds; i++) {
        MUST(vmk_gc_alloc_leaf(gc, 100) != NULL);
        if (i % 1000 == 0)
            vmk_gc_collect(gc);
    }
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.cycles, s.cycles);
    ck_assert_uint_eq(stats.last.number, s.cycles);
    ck_assert_uint_eq(stats.pause_total, s.pause);
    ck_assert_uint_eq(stats.pause_max, s.pause_max);
    ck_assert_uint_eq(stats.stop_max, s.stop_max);
    ck_assert_uint_eq(stats.mark_total, s.mark);
    ck_assert_uint_eq(stats.sweep_total, s.sweep);
    ck_assert(memcmp(&stats.last, &s.last, sizeof s.last) == 0);
    uint64_t causes = 0;
    for (int cause = 0; cause < VMK_GC_CAUSE_COUNT; cause++) {
        ck_assert_uint_eq(stats.by_cause[cause], s.by_cause[cause]);
        causes += s.by_cause[cause];
    }
    ck_assert_uint_eq(causes, s.cycles);
    ck_assert_uint_eq(stats.by_cause[VMK_GC_CAUSE_ASKED], (rounds + 999) / 1000);
    ck_assert_uint_ge(stats.allocated_total, rounds * 100);
    end(gc);
}
END_TEST

START_TEST(figures_agree_with_what_was_done)
{
    enum { KEPT = 300 };
    vmk_gc *gc = make(EXACT);
    static void *kept[KEPT];
    vmk_gc_stats stats, later;
    ck_assert_int_eq(vmk_gc_slots_add(gc, kept, KEPT), VMK_OK);
    for (size_t i = 0; i < KEPT; i++) {
        kept[i] = vmk_gc_alloc(gc, 64);
        MUST(kept[i] != NULL && vmk_gc_alloc_leaf(gc, 48) != NULL);
    }
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.live_objects, KEPT);
    ck_assert_uint_eq(stats.live_bytes, KEPT * 64);
    ck_assert_uint_eq(stats.last.live_bytes, stats.live_bytes);
    ck_assert_uint_ge(stats.allocated_total, KEPT * (64 + 48));
    ck_assert_uint_eq(stats.freed_total, 0);
    ck_assert_uint_ge(stats.heap_size, KEPT * 64);
    ck_assert_uint_gt(stats.metadata, 0);
    ck_assert_uint_gt(stats.next, 0);
    size_t freed = vmk_gc_usable_size(gc, kept[0]);
    vmk_gc_free(gc, kept[0]);
    kept[0] = NULL;
    vmk_gc_stats_now(gc, &later);
    ck_assert_uint_eq(later.freed_total, freed);
    void *large = vmk_gc_alloc_leaf(gc, 1 << 20);
    ck_assert_ptr_nonnull(large);
    vmk_gc_stats_now(gc, &later);
    ck_assert_uint_ge(later.allocated, 1 << 20);
    ck_assert_uint_ge(later.heap_size, KEPT * 64 + (1 << 20));
    ck_assert_uint_eq(later.allocated_total, stats.allocated_total - stats.allocated + later.allocated);
    ck_assert_uint_le(later.next, stats.next - (1 << 20));
    kept[0] = large;
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &later);
    ck_assert_uint_eq(later.live_objects, KEPT);
    ck_assert_uint_eq(later.live_bytes, (KEPT - 1) * 64 + (1 << 20));
    memset(kept, 0, sizeof kept);
    end(gc);
}
END_TEST

static void finalize_nothing(void *context, void *object)
{
    (void)context;
    (void)object;
}

START_TEST(figures_of_weak_things)
{
    vmk_gc *gc = make(EXACT);
    void *slots[3] = {NULL};
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, 3), VMK_OK);
    slots[0] = vmk_gc_alloc(gc, 32);
    ck_assert_int_eq(vmk_gc_finalizer_set(gc, slots[0], finalize_nothing, NULL, 0), VMK_OK);
    slots[1] = vmk_gc_weak_new(gc, slots[0], VMK_GC_LONG);
    slots[2] = vmk_gc_ephemeron_new(gc, slots[0], slots[0]);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.finalizers, 1);
    ck_assert_uint_eq(stats.finalizable, 0);
    ck_assert_uint_eq(stats.links, 1);
    ck_assert_uint_eq(stats.ephemerons, 1);
    slots[0] = slots[2] = NULL;
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.finalizers, 0);
    ck_assert_uint_eq(stats.finalizable, 1);
    ck_assert_uint_eq(stats.ephemerons, 0);
    ck_assert_uint_eq(stats.last.finalizable, 1);
    ck_assert_uint_eq(vmk_gc_finalize(gc, 10), 1);
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.finalizable, 0);
    end(gc);
}
END_TEST

/* --- walks -------------------------------------------------------------------------------------------------------- */

enum { WALKED_MOST = 4000 };

typedef struct walked {
    size_t count;
    size_t most;
    bool wrong; /* not in order */
    vmk_gc_object object[WALKED_MOST];
} walked;

static bool walked_add(void *context, const vmk_gc_object *object)
{
    walked *w = context;
    if (w->count != 0 &&
        (uintptr_t)w->object[w->count - 1].base + w->object[w->count - 1].size > (uintptr_t)object->base)
        w->wrong = true;
    w->object[w->count++] = *object;
    return w->count < w->most;
}

static int by_base(const void *a, const void *b)
{
    uintptr_t one = (uintptr_t)((const vmk_gc_object *)a)->base, other = (uintptr_t)((const vmk_gc_object *)b)->base;
    return one < other ? -1 : one > other;
}

static void walk(vmk_gc *gc, walked *w)
{
    w->count = 0;
    w->most = WALKED_MOST;
    w->wrong = false;
    vmk_gc_walk(gc, walked_add, w);
    ck_assert(!w->wrong);
}

/* Objects of every kind and of many sizes, some freed: the walk shows the others, and all that is known of them. */
START_TEST(a_walk_shows_what_there_is)
{
    enum { COUNT = 2000 };
    static vmk_gc_object mine[COUNT];
    static walked w;
    vmk_gc *gc = make(EXACT);
    vmk_gc_type *node_of = node_type(gc), *nameless;
    const vmk_gc_layout layout = {.size = 2 * sizeof(void *)};
    support_random random = support_random_start(1);
    size_t count = 0;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &nameless), VMK_OK);
    vmk_gc_disable(gc);
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = support_random_below(&random, i % 100 == 0 ? 200000 : 2000) + 1;
        vmk_gc_object *o = &mine[count];
        *o = (vmk_gc_object){0};
        switch (i % 4) {
        case 0:
            o->base = vmk_gc_alloc(gc, size);
            break;
        case 1:
            o->base = vmk_gc_alloc_leaf(gc, size);
            o->leaf = true;
            break;
        case 2:
            o->base = vmk_gc_alloc_typed(gc, node_of, size / sizeof(node));
            o->type = "node";
            break;
        default:
            o->base = vmk_gc_alloc_typed(gc, nameless, size / layout.size);
            o->type = "";
            o->leaf = true;
        }
        MUST(o->base != NULL);
        o->size = vmk_gc_usable_size(gc, o->base);
        if (support_random_below(&random, 3) == 0)
            vmk_gc_free(gc, o->base);
        else
            count++;
    }
    qsort(mine, count, sizeof mine[0], by_base);
    walk(gc, &w);
    ck_assert_uint_eq(w.count, count);
    for (size_t i = 0; i < count; i++) {
        MUST(w.object[i].base == mine[i].base && w.object[i].size == mine[i].size);
        MUST(w.object[i].leaf == mine[i].leaf && w.object[i].site == NULL);
        MUST((w.object[i].type == NULL) == (mine[i].type == NULL));
        MUST(mine[i].type == NULL || strcmp(w.object[i].type, mine[i].type) == 0);
    }
    w.count = 0;
    w.most = 5;
    vmk_gc_walk(gc, walked_add, &w);
    ck_assert_uint_eq(w.count, 5); /* it asked for no more */
    ck_assert_ptr_eq(w.object[4].base, mine[4].base);
    vmk_gc_collect(gc);
    walk(gc, &w);
    ck_assert_uint_eq(w.count, 0);
    vmk_gc_enable(gc);
    memset(&w, 0, sizeof w); /* static data, that a heap made later may take for pointers */
    memset(mine, 0, sizeof mine);
    end(gc);
}
END_TEST

/* --- why: roots --------------------------------------------------------------------------------------------------- */

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

/* --- why: ways ---------------------------------------------------------------------------------------------------- */

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
    vmk_gc *gc = make(EXACT);
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
    range[1] = target + 64; /* a root that is scanned */
    ck_assert(why(gc, target, &p));
    ck_assert_ptr_eq(p.step[0].at, &range[1]);
    range[1] = target + 65;
    ck_assert(!why(gc, target, &p));
    slot = target + 64; /* one that is exact */
    ck_assert(!why(gc, target, &p));
    end(gc);
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

/* --- dumps -------------------------------------------------------------------------------------------------------- */

typedef struct text {
    size_t length;
    size_t room; /* after so many bytes it gives up */
    char bytes[1 << 16];
} text;

static bool text_add(void *context, const char *bytes, size_t length)
{
    text *t = context;
    if (length > t->room - t->length)
        return false;
    memcpy(t->bytes + t->length, bytes, length);
    t->length += length;
    t->bytes[t->length] = '\0';
    return true;
}

static bool has_line(const text *t, const char *format, ...)
{
    char line[200];
    va_list arguments;
    va_start(arguments, format);
    line[0] = '\n';
    vsnprintf(line + 1, sizeof line - 2, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    return strstr(t->bytes, line) != NULL;
}

START_TEST(a_dump_says_all)
{
    static text t = {.room = sizeof t.bytes - 1};
    vmk_gc *gc = make(EXACT);
    const vmk_gc_layout odd = {.name = "two\nlines \\", .size = sizeof(void *)};
    vmk_gc_type *type = node_type(gc), *odd_type;
    void *slot = NULL;
    ck_assert_int_eq(vmk_gc_type_create(gc, &odd, &odd_type), VMK_OK);
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    node *first = node_new(gc, type);
    slot = first;
    first->right = (node *)(void *)((char *)vmk_gc_alloc_leaf(gc, 40000) + 5);
    void *lost = vmk_gc_alloc(gc, 16);
    ck_assert_int_eq(vmk_gc_pin(gc, lost), VMK_OK);
    void *pair = vmk_gc_ephemeron_new(gc, first, lost);
    ck_assert(vmk_gc_dump(gc, text_add, &t));
    ck_assert_int_eq(strncmp(t.bytes, "vmkit-gc-dump 1\n", 16), 0);
    uintptr_t large = (uintptr_t)first->right - 5;
    unsigned long long usable = vmk_gc_usable_size(gc, first);
    ck_assert(has_line(&t, "word %x", (unsigned)sizeof(void *)));
    ck_assert(has_line(&t, "type 2 %x map node", (unsigned)sizeof(node)));
    ck_assert(has_line(&t, "type 3 %x leaf two\\x0alines \\x5c", (unsigned)sizeof(void *)));
    ck_assert(has_line(&t, "root SLOT 0 %llx %llx", (unsigned long long)(uintptr_t)&slot,
                       (unsigned long long)(uintptr_t)first));
    ck_assert(has_line(&t, "root PIN 0 - %llx", (unsigned long long)(uintptr_t)lost));
    ck_assert(has_line(&t, "o %llx %llx typed 2 0\nr %x %llx", (unsigned long long)(uintptr_t)first, usable,
                       (unsigned)sizeof(void *), (unsigned long long)large));
    ck_assert(has_line(&t, "span %llx %x\no %llx %x leaf 0 0", (unsigned long long)large, 5 * 8192,
                       (unsigned long long)large, 5 * 8192));
    ck_assert(has_line(&t, "ephemeron %llx %llx %llx", (unsigned long long)(uintptr_t)pair,
                       (unsigned long long)(uintptr_t)first, (unsigned long long)(uintptr_t)lost));
    ck_assert(
        has_line(&t, "end 4 %llx 2 1", usable + 5 * 8192 + 16 + (unsigned long long)vmk_gc_usable_size(gc, pair)));
    size_t whole = t.length;
    t.length = 0;
    t.room = whole - 1;
    ck_assert(!vmk_gc_dump(gc, text_add, &t)); /* it gave up */
    t.room = 0;
    t.length = 0;
    ck_assert(!vmk_gc_dump(gc, text_add, &t));
    vmk_gc_unpin(gc, lost);
    end(gc);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gc_see");
    TCase *c = tcase_create("seeing");
    tcase_add_test(c, names);
    tcase_add_test(c, figures_are_the_sums_of_events);
    tcase_add_test(c, figures_agree_with_what_was_done);
    tcase_add_test(c, figures_of_weak_things);
    tcase_add_test(c, a_walk_shows_what_there_is);
    tcase_add_test(c, why_because_of_what_the_program_names);
    tcase_add_test(c, why_because_of_static_data);
    tcase_add_test(c, why_shows_each_step);
    tcase_add_test(c, why_shows_a_shortest_way);
    tcase_add_test(c, why_through_functions_that_trace);
    tcase_add_test(c, why_takes_what_marking_takes);
    tcase_add_test(c, why_because_of_an_end);
    tcase_add_test(c, why_because_of_an_ephemeron);
    tcase_add_test(c, asking_changes_nothing);
    tcase_add_test(c, a_dump_says_all);
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
