/* SPDX-License-Identifier: MIT
 *
 * Links and weak references: what they say of an object in each of its states, as a table; where links may lie, and
 * end; that nobody ever gets an object from one that is gone, while threads collect. Crimes.
 */
#include <stdlib.h>

#include "gc_graph.h"

static vmk_gc_stats stats_of(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(gc, &stats);
    return stats;
}

/* --- what they say ------------------------------------------------------------------------------------------------ */

typedef enum fate {
    ROOTED,     /* reached all the time */
    DROPPED,    /* reached by nobody */
    FINALIZED,  /* reached by nobody, has a finalizer */
    BEHIND,     /* reached by such a one alone */
    REVIVED,    /* has a finalizer that stores it in a root */
    BEHIND_IT,  /* reached by such a one alone */
    FREED,      /* by hand */
    FREED_LATE, /* by hand, while it waits for its finalizer */
    FATES
} fate;

/* Is it there: before, after a cycle, after finalizers, after another cycle, and one more. */
enum { STEPS = 5 };

static const struct {
    fate fate;
    const char *shorts; /* + or - for each step */
    const char *longs;
} table[] = {
    {ROOTED, "+++++", "+++++"}, {DROPPED, "+----", "+----"},    {FINALIZED, "+----", "+++--"},
    {BEHIND, "+----", "+++--"}, {REVIVED, "+----", "+++++"},    {BEHIND_IT, "+----", "+++++"},
    {FREED, "-----", "-----"},  {FREED_LATE, "+----", "++---"},
};

typedef struct stage {
    vmk_gc *gc;
    void *roots[4]; /* the object, who leads to it, what is revived, weak references */
    uintptr_t link;
    vmk_gc_weak *weak;
    uintptr_t *inner; /* in an object */
} stage;

static void revive(void *context, void *object)
{
    ((stage *)context)->roots[2] = object;
}

static void let_go(void *context, void *object)
{
    (void)context;
    MUST(whole(object));
}

static void stage_say(const stage *s, const void *object, bool there)
{
    const void *expected = there ? object : NULL;
    MUST(vmk_gc_link_get(s->gc, &s->link) == expected);
    MUST(vmk_gc_weak_get(s->gc, s->weak) == expected);
    MUST(vmk_gc_link_get(s->gc, s->inner) == expected);
    MUST(!there || whole(expected));
}

static void stage_fate(stage *s, fate f, node *object, node *front)
{
    vmk_gc_finalizer *call = f == REVIVED || f == BEHIND_IT ? revive : let_go;
    bool behind = f == BEHIND || f == BEHIND_IT;
    if (f == FINALIZED || f == REVIVED || f == FREED_LATE || behind)
        MUST(vmk_gc_finalizer_set(s->gc, behind ? front : object, call, s, 0) == VMK_OK);
    if (f == FREED)
        vmk_gc_free(s->gc, object);
    s->roots[1] = NULL;
    if (f != ROOTED)
        s->roots[0] = NULL;
}

START_TEST(as_the_table_says)
{
    fate f = table[_i / 2].fate;
    bool is_short = _i % 2 == 0;
    const char *expected = is_short ? table[_i / 2].shorts : table[_i / 2].longs;
    vmk_gc_weak_kind kind = is_short ? VMK_GC_SHORT : VMK_GC_LONG;
    stage s = {.gc = exact_heap(0)};
    ck_assert_int_eq(vmk_gc_slots_add(s.gc, s.roots, 4), VMK_OK);
    node *front = s.roots[1] = node_new(s.gc, 1);
    node *object = s.roots[0] = front->to[0] = node_new(s.gc, 2);
    node *holder = s.roots[3] = node_new(s.gc, 3);
    s.inner = (uintptr_t *)(void *)&holder->to[3];
    s.weak = (void *)(holder->to[0] = (void *)vmk_gc_weak_new(s.gc, object, kind));
    ck_assert_ptr_nonnull(s.weak);
    ck_assert_int_eq(vmk_gc_link_add(s.gc, &s.link, object, kind), VMK_OK);
    ck_assert_int_eq(vmk_gc_link_add(s.gc, s.inner, object, kind), VMK_OK);
    ck_assert_uint_ne(s.link, (uintptr_t)object);
    ck_assert_uint_eq(stats_of(s.gc).links, 3);
    stage_fate(&s, f, object, front);
    for (size_t step = 0; step < STEPS; step++) {
        if (step == 2)
            (void)vmk_gc_finalize(s.gc, f == FREED_LATE ? 0 : SIZE_MAX);
        else if (step != 0)
            vmk_gc_collect(s.gc);
        if (step == 2 && f == FREED_LATE)
            vmk_gc_free(s.gc, object);
        bool there = expected[step] == '+';
        stage_say(&s, object, there);
        ck_assert_uint_eq(stats_of(s.gc).links, there ? 3 : 0);
    }
    vmk_gc_destroy(s.gc);
}
END_TEST

START_TEST(the_cycle_counts_what_it_clears)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[3] = {NULL};
    uintptr_t links[2];
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 3), VMK_OK);
    roots[0] = node_new(gc, 1);
    roots[1] = vmk_gc_weak_new(gc, roots[0], VMK_GC_LONG);
    roots[2] = vmk_gc_ephemeron_new(gc, roots[0], roots[0]);
    ck_assert_int_eq(vmk_gc_link_add(gc, &links[0], roots[0], VMK_GC_SHORT), VMK_OK);
    ck_assert_int_eq(vmk_gc_link_add(gc, &links[1], roots[0], VMK_GC_LONG), VMK_OK);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).last.weak_cleared, 0);
    ck_assert_uint_eq(stats_of(gc).ephemerons, 1);
    roots[0] = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).last.weak_cleared, 4);
    ck_assert_uint_eq(stats_of(gc).links, 0);
    ck_assert_uint_eq(stats_of(gc).ephemerons, 0);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).last.weak_cleared, 0);
    vmk_gc_destroy(gc);
}
END_TEST

/* --- links -------------------------------------------------------------------------------------------------------- */

START_TEST(a_link_can_be_changed_and_removed)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[2] = {NULL};
    uintptr_t link = 0;
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
    roots[0] = node_new(gc, 1);
    roots[1] = node_new(gc, 2);
    ck_assert(!vmk_gc_link_remove(gc, &link));
    ck_assert_int_eq(vmk_gc_link_add(gc, &link, roots[0], VMK_GC_SHORT), VMK_OK);
    ck_assert_int_eq(vmk_gc_link_add(gc, &link, roots[1], VMK_GC_LONG), VMK_OK);
    ck_assert_uint_eq(stats_of(gc).links, 1);
    ck_assert_ptr_eq(vmk_gc_link_get(gc, &link), roots[1]);
    roots[0] = NULL;
    vmk_gc_collect(gc);
    ck_assert_ptr_eq(vmk_gc_link_get(gc, &link), roots[1]);
    roots[0] = node_new(gc, 3);
    vmk_gc_free(gc, roots[0]); /* perhaps where the first one was */
    roots[0] = NULL;
    ck_assert_ptr_eq(vmk_gc_link_get(gc, &link), roots[1]);
    uintptr_t word = link;
    ck_assert(vmk_gc_link_remove(gc, &link));
    ck_assert(!vmk_gc_link_remove(gc, &link));
    ck_assert_uint_eq(link, word);
    roots[1] = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(link, word); /* it is none any more */
    ck_assert_uint_eq(stats_of(gc).links, 0);
    vmk_gc_destroy(gc);
}
END_TEST

START_TEST(arguments_are_checked)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[1] = {NULL};
    uintptr_t links[2] = {0, 0};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 1), VMK_OK);
    roots[0] = node_new(gc, 1);
    uintptr_t *crooked = (uintptr_t *)((uintptr_t)&links[0] + 1);
    ck_assert_int_eq(vmk_gc_link_add(gc, crooked, roots[0], VMK_GC_SHORT), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_link_add(gc, NULL, roots[0], VMK_GC_SHORT), VMK_ERR_ARGUMENT);
    ck_assert(!vmk_gc_link_remove(gc, NULL));
    ck_assert_uint_eq(links[0] | links[1], 0);
    ck_assert_ptr_null(vmk_gc_link_get(gc, &links[0]));
    vmk_gc_destroy(gc);
}
END_TEST

/* The word of a link in a conservative object, or in a root, is not taken for a pointer. */
START_TEST(a_link_keeps_nothing_alive)
{
    vmk_gc *gc = exact_heap(0);
    uintptr_t words[64] = {0};
    void *roots[2] = {NULL};
    ck_assert_int_eq(vmk_gc_roots_add(gc, words, sizeof words), VMK_OK);
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
    uintptr_t *inside = roots[1] = vmk_gc_alloc(gc, 64 * sizeof *inside);
    for (size_t i = 0; i < 64; i++) {
        roots[0] = node_new(gc, i);
        MUST(vmk_gc_link_add(gc, &words[i], roots[0], VMK_GC_SHORT) == VMK_OK);
        MUST(vmk_gc_link_add(gc, &inside[i], roots[0], VMK_GC_LONG) == VMK_OK);
    }
    roots[0] = NULL;
    vmk_gc_collect(gc);
    for (size_t i = 0; i < 64; i++)
        MUST(words[i] == 0 && inside[i] == 0);
    ck_assert_uint_eq(stats_of(gc).live_objects, 1);
    vmk_gc_destroy(gc);
}
END_TEST

/* At its start, in its middle, at its end: links end with the object that they lie in, which is small or large, and is
 * collected, or freed by hand. Memory that is used again is not written. */
static void links_end_with(vmk_gc *gc, size_t size, bool by_hand, vmk_gc_weak_kind kind)
{
    void *roots[2] = {NULL};
    MUST(vmk_gc_slots_add(gc, roots, 2) == VMK_OK);
    roots[0] = node_new(gc, 1);
    uintptr_t *words = roots[1] = vmk_gc_alloc(gc, size);
    MUST(words != NULL);
    size_t last = size / sizeof *words - 1;
    MUST(vmk_gc_link_add(gc, &words[0], roots[0], kind) == VMK_OK);
    MUST(vmk_gc_link_add(gc, &words[last / 2], roots[0], kind) == VMK_OK);
    MUST(vmk_gc_link_add(gc, &words[last], roots[0], kind) == VMK_OK);
    size_t count = last < 2 ? last + 1 : 3;
    MUST(stats_of(gc).links == count);
    vmk_gc_collect(gc);
    MUST(stats_of(gc).links == count);
    MUST(vmk_gc_link_get(gc, &words[last]) == roots[0]);
    roots[1] = NULL;
    if (by_hand)
        vmk_gc_free(gc, words);
    else
        vmk_gc_collect(gc);
    MUST(stats_of(gc).links == 0);
    MUST(stats_of(gc).last.weak_cleared == 0);
    words = roots[1] = vmk_gc_alloc(gc, size);
    memset(words, 0x55, size);
    roots[0] = NULL;
    vmk_gc_collect(gc);
    for (size_t i = 0; i <= last; i++)
        MUST(words[i] == (UINTPTR_MAX / 255) * 0x55);
    roots[1] = NULL;
    vmk_gc_roots_remove(gc, roots);
    vmk_gc_collect(gc);
}

START_TEST(links_end_with_their_object)
{
    static const size_t sizes[] = {sizeof(uintptr_t), 16, 48, 1024, 30000, 100000, 3 * MIB};
    vmk_gc *gc = exact_heap(0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (unsigned way = 0; way < 4; way++)
            links_end_with(gc, sizes[i], way % 2 != 0, way / 2 != 0 ? VMK_GC_LONG : VMK_GC_SHORT);
    }
    vmk_gc_destroy(gc);
}
END_TEST

/* An object that refers to itself by a link, freed by hand and collected. */
START_TEST(a_link_to_its_own_object)
{
    for (unsigned way = 0; way < 4; way++) {
        vmk_gc *gc = exact_heap(0);
        void *roots[1] = {NULL};
        ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 1), VMK_OK);
        node *n = roots[0] = node_new(gc, 1);
        uintptr_t *at = (uintptr_t *)(void *)&n->to[way / 2];
        ck_assert_int_eq(vmk_gc_link_add(gc, at, n, VMK_GC_LONG), VMK_OK);
        vmk_gc_collect(gc);
        ck_assert_ptr_eq(vmk_gc_link_get(gc, at), n);
        roots[0] = NULL;
        if (way % 2 == 0)
            vmk_gc_free(gc, n);
        else
            vmk_gc_collect(gc);
        ck_assert_uint_eq(stats_of(gc).links, 0);
        vmk_gc_destroy(gc);
    }
}
END_TEST

/* Many to few objects, changed, removed, objects freed by hand and collected: against a model. */
enum { TARGETS = 20, LINKS = 300 };

static void random_links(support_random *random, size_t steps)
{
    static uintptr_t links[LINKS];
    void *roots[TARGETS] = {NULL};
    size_t to[LINKS]; /* TARGETS: none */
    vmk_gc *gc = exact_heap(0);
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, TARGETS), VMK_OK);
    for (size_t i = 0; i < TARGETS; i++)
        roots[i] = node_new(gc, i);
    memset(links, 0, sizeof links);
    for (size_t i = 0; i < LINKS; i++)
        to[i] = TARGETS;
    for (size_t step = 0; step < steps; step++) {
        size_t l = support_random_below(random, LINKS), t = support_random_below(random, TARGETS);
        size_t choice = support_random_below(random, 400);
        if (choice < 250) {
            MUST(vmk_gc_link_add(gc, &links[l], roots[t], (vmk_gc_weak_kind)(choice % 2)) == VMK_OK);
            to[l] = t;
        } else if (choice < 390) {
            MUST(vmk_gc_link_remove(gc, &links[l]) == (to[l] != TARGETS));
            links[l] = 0;
            to[l] = TARGETS;
        } else {
            if (choice < 398)
                vmk_gc_free(gc, roots[t]);
            roots[t] = NULL;
            if (choice >= 398)
                vmk_gc_collect(gc);
            for (size_t i = 0; i < LINKS; i++)
                to[i] = to[i] == t ? TARGETS : to[i];
            for (size_t i = 0; i < LINKS; i++)
                MUST(vmk_gc_link_get(gc, &links[i]) == (to[i] != TARGETS ? roots[to[i]] : NULL));
            roots[t] = node_new(gc, t);
        }
        MUST(vmk_gc_link_get(gc, &links[l]) == (to[l] != TARGETS ? roots[to[l]] : NULL));
    }
    size_t count = 0;
    for (size_t i = 0; i < LINKS; i++)
        count += to[i] != TARGETS;
    ck_assert_uint_eq(stats_of(gc).links, count);
    vmk_gc_destroy(gc);
}

START_TEST(random_against_a_model)
{
    support_random random = support_random_start(3);
    for (size_t i = 0; i < 4; i++)
        random_links(&random, support_rounds(20000));
}
END_TEST

/* --- weak references ---------------------------------------------------------------------------------------------- */

/* Making one collects, here; the object needs no root for that, though stacks are none. */
START_TEST(what_is_passed_is_held)
{
    vmk_gc *gc = exact_heap(VMK_GC_STRESS);
    node *first = node_new(gc, 1);
    vmk_gc_weak *weak = vmk_gc_weak_new(gc, first, VMK_GC_SHORT);
    ck_assert_ptr_eq(vmk_gc_weak_get(gc, weak), first);
    ck_assert(whole(first));
    vmk_gc_ephemeron *ephemeron = vmk_gc_ephemeron_new(gc, first, first);
    ck_assert_ptr_eq(vmk_gc_ephemeron_key(gc, ephemeron), first);
    ck_assert_ptr_eq(vmk_gc_ephemeron_value(gc, ephemeron), first);
    ck_assert(whole(first));
    ck_assert_uint_eq(stats_of(gc).live_objects, 1); /* by the pin, in the cycle that was the last */
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).live_objects, 0);
    ck_assert_uint_eq(stats_of(gc).ephemerons, 0);
    ck_assert_uint_eq(stats_of(gc).links, 0);
    vmk_gc_destroy(gc);
}
END_TEST

START_TEST(they_are_objects_themselves)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[2] = {NULL};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
    roots[0] = node_new(gc, 1);
    for (size_t i = 0; i < 1000; i++)
        roots[1] = vmk_gc_weak_new(gc, roots[0], i % 2 == 0 ? VMK_GC_SHORT : VMK_GC_LONG);
    ck_assert_uint_eq(stats_of(gc).links, 1000);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).links, 1);
    ck_assert_uint_eq(stats_of(gc).live_objects, 2);
    ck_assert_uint_eq(stats_of(gc).last.weak_cleared, 0);
    vmk_gc_free(gc, roots[1]);
    roots[1] = NULL;
    ck_assert_uint_eq(stats_of(gc).links, 0);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).live_objects, 1);
    vmk_gc_destroy(gc);
}
END_TEST

/* --- threads ------------------------------------------------------------------------------------------------------ */

/* Some objects are dropped and made anew all the time, by several threads that collect too; others look at them through
 * weak references and links. Who gets one keeps it for a while: it must stay what it was, though objects of the same
 * size with other contents are made wherever there is room. */
enum { PLACES = 64, PAYLOAD = 6 };

typedef struct storm {
    vmk_gc *gc;
    void *roots[PLACES]; /* strong */
    uintptr_t *links;    /* by place */
    vmk_gc_weak **weaks; /* by place, in an object */
    size_t got;          /* atomic, as the next ones */
    size_t gone;
    size_t broken;
    size_t steps;
} storm;

static void fill(uintptr_t *object, uintptr_t what)
{
    for (size_t i = 0; i < PAYLOAD; i++)
        VMKI_STORE_RELAXED(&object[i], what ^ i);
}

static bool filled(const uintptr_t *object)
{
    uintptr_t what = VMKI_LOAD_RELAXED(&object[0]);
    for (size_t i = 1; i < PAYLOAD; i++) {
        if (VMKI_LOAD_RELAXED(&object[i]) != (what ^ i))
            return false;
    }
    return what % 2 != 0; /* what the others make is even */
}

static void storm_make(storm *s, support_random *random, size_t place)
{
    uintptr_t *object = vmk_gc_alloc_leaf(s->gc, PAYLOAD * sizeof *object);
    if (object == NULL)
        return;
    fill(object, (uintptr_t)support_random_next(random) | 1);
    vmk_gc_weak *weak = vmk_gc_weak_new(s->gc, object, VMK_GC_SHORT);
    if (weak == NULL || vmk_gc_link_add(s->gc, &s->links[place], object, VMK_GC_LONG) != VMK_OK)
        return;
    VMKI_STORE_RELEASE(&s->roots[place], (void *)object);
    VMKI_STORE_RELEASE(&s->weaks[place], weak);
}

static void storm_look(storm *s, support_random *random, size_t place)
{
    const vmk_gc_weak *weak = VMKI_LOAD_ACQUIRE(&s->weaks[place]);
    const uintptr_t *object;
    if (support_random_below(random, 2) == 0)
        object = vmk_gc_link_get(s->gc, &s->links[place]);
    else
        object = weak != NULL ? vmk_gc_weak_get(s->gc, weak) : NULL;
    if (object == NULL) {
        VMKI_FETCH_ADD(&s->gone, 1);
        return;
    }
    for (size_t i = support_random_below(random, 20); i > 0; i--) {
        uintptr_t *other = vmk_gc_alloc_leaf(s->gc, PAYLOAD * sizeof *other);
        if (other != NULL)
            fill(other, i * 2);
    }
    VMKI_FETCH_ADD(filled(object) ? &s->got : &s->broken, 1);
}

static void storm_thread(void *argument, unsigned number)
{
    storm *s = argument;
    support_random random = support_random_start(100 + number);
    if (vmk_gc_thread_register() != VMK_OK) {
        VMKI_FETCH_ADD(&s->broken, 1);
        return;
    }
    for (size_t step = 0; step < s->steps; step++) {
        size_t place = support_random_below(&random, PLACES), choice = support_random_below(&random, 100);
        if (number == 0 && choice < 30) /* one alone makes them, so that a link is not changed by two */
            storm_make(s, &random, place);
        else if (choice < 50)
            VMKI_STORE_RELEASE(&s->roots[place], NULL);
        else if (choice < 95)
            storm_look(s, &random, place);
        else if (choice < 97)
            vmk_gc_collect(s->gc);
    }
    vmk_gc_thread_unregister();
}

static void storm_in(unsigned flags, size_t steps)
{
    static storm s;
    vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = flags | VMK_GC_NO_STATIC, .heap = &below};
    memset(&s, 0, sizeof s);
    s.steps = steps;
    ck_assert_int_eq(vmk_gc_create(&s.gc, &options), VMK_OK);
    ck_assert_int_eq(vmk_gc_roots_add(s.gc, &s, sizeof s), VMK_OK);
    s.weaks = vmk_gc_alloc(s.gc, PLACES * sizeof *s.weaks);
    s.links = calloc(PLACES, sizeof *s.links);
    ck_assert_ptr_nonnull(s.links);
    vmk_gc_blocking_enter();
    support_threads(4, storm_thread, &s);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(s.broken, 0);
    ck_assert_uint_gt(s.got, 0);
    ck_assert_uint_gt(s.gone, 0);
    vmk_gc_destroy(s.gc);
    free(s.links);
}

START_TEST(a_storm_of_threads)
{
    storm_in(0, support_rounds(8000));
    storm_in(VMK_GC_COOPERATIVE, support_rounds(8000));
}
END_TEST

/* --- without memory ----------------------------------------------------------------------------------------------- */

#ifdef VMKIT_MODEL
START_TEST(a_refusal_changes_nothing)
{
    enum { COUNT = 3000 };
    static uintptr_t links[COUNT];
    for (uint64_t nth = 1; nth < 30; nth++) {
        vmk_gc *gc = exact_heap(0);
        void *roots[2] = {NULL};
        size_t refused = 0, count = 0;
        ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
        roots[0] = node_new(gc, 1);
        memset(links, 0, sizeof links);
        uintptr_t *inner = roots[1] = vmk_gc_alloc(gc, COUNT * sizeof *inner);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (size_t i = 0; i < COUNT; i++) {
            uintptr_t *at = i % 2 == 0 ? &links[i] : &inner[i];
            vmk_status status = vmk_gc_link_add(gc, at, roots[0], VMK_GC_SHORT);
            refused += status != VMK_OK;
            count += status == VMK_OK;
            MUST(status == VMK_OK || *at == 0);
            vmk_gc_weak *weak = vmk_gc_weak_new(gc, roots[0], VMK_GC_SHORT);
            refused += weak == NULL;
            count += weak != NULL;
            MUST(weak == NULL || vmk_gc_weak_get(gc, weak) == roots[0]);
        }
        ck_assert_uint_le(refused, 1);
        ck_assert_uint_le(stats_of(gc).links, count); /* weak references were collected */
        model_fail_nth(0, VMK_OK, false);
        vmk_gc_free(gc, roots[0]);
        roots[0] = NULL;
        ck_assert_uint_eq(stats_of(gc).links, 0);
        for (size_t i = 0; i < COUNT; i++)
            MUST(links[i] == 0 && inner[i] == 0);
        vmk_gc_destroy(gc);
        ck_assert_ptr_null(model_violation());
    }
}
END_TEST
#endif

/* --- crimes ------------------------------------------------------------------------------------------------------- */

static vmk_gc *doomed;
static uintptr_t no_link;

static void crime_weak(void)
{
    (void)vmk_gc_weak_new(doomed, &no_link, VMK_GC_SHORT);
}

static void crime_weak_inside(void)
{
    (void)vmk_gc_weak_new(doomed, (char *)vmk_gc_alloc(doomed, 100) + 8, VMK_GC_SHORT);
}

static void crime_link(void)
{
    VMKI_IGNORE(vmk_gc_link_add(doomed, &no_link, NULL, VMK_GC_SHORT));
}

static void crime_ephemeron(void)
{
    (void)vmk_gc_ephemeron_new(doomed, NULL, vmk_gc_alloc(doomed, 100));
}

static void crime_heap(void)
{
    (void)vmk_gc_link_get(NULL, &no_link);
}

static const support_crimes crimes[] = {
    {"weak", crime_weak, "vmk_gc_weak_new: not an object"},
    {"weak inside", crime_weak_inside, "vmk_gc_weak_new: not an object"},
    {"link", crime_link, "vmk_gc_link_add: not an object"},
    {"ephemeron", crime_ephemeron, "vmk_gc_ephemeron_new: the key is not an object"},
    {"heap", crime_heap, "vmk_gc_link_get: not a collected heap"},
};

enum { CRIMES = sizeof crimes / sizeof crimes[0], ROWS = sizeof table / sizeof table[0] };
_Static_assert((int)ROWS == (int)FATES, "a row for each");

static int child(int argc, char **argv)
{
    vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = VMK_GC_NO_STACKS | VMK_GC_NO_STATIC, .heap = &below};
    if (argc < 1 || vmk_gc_create(&doomed, &options) != VMK_OK)
        return SUPPORT_UNREADY;
    return support_commit(argc, argv, crimes, CRIMES);
}

START_TEST(crimes_end_the_program)
{
    support_crime(crimes[_i].name, crimes[_i].message);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *s = suite_create("gc_weak");
    TCase *t = tcase_create("gc_weak");
    tcase_set_timeout(t, 0);
    tcase_add_loop_test(t, as_the_table_says, 0, 2 * ROWS);
    tcase_add_test(t, the_cycle_counts_what_it_clears);
    tcase_add_test(t, a_link_can_be_changed_and_removed);
    tcase_add_test(t, arguments_are_checked);
    tcase_add_test(t, a_link_keeps_nothing_alive);
    tcase_add_test(t, links_end_with_their_object);
    tcase_add_test(t, a_link_to_its_own_object);
    tcase_add_test(t, random_against_a_model);
    tcase_add_test(t, what_is_passed_is_held);
    tcase_add_test(t, they_are_objects_themselves);
    tcase_add_test(t, a_storm_of_threads);
#ifdef VMKIT_MODEL
    tcase_add_test(t, a_refusal_changes_nothing);
#endif
    tcase_add_loop_test(t, crimes_end_the_program, 0, CRIMES);
    suite_add_tcase(s, t);
    return support_main(argc, argv, s, child);
}
