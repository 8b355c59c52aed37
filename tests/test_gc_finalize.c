/* SPDX-License-Identifier: MIT
 *
 * Finalizers: which run when, as a table of graphs and by a model; that they run once, with all that they see whole;
 * what they may do; the heap's thread for them, and several threads that run them; objects freed by hand; crimes.
 */
#include <stdlib.h>

#include "gc_graph.h"
#include "support.h"

static vmk_gc_stats stats_of(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(gc, &stats);
    return stats;
}

/* --- who is run when ---------------------------------------------------------------------------------------------- */

typedef struct story {
    graph g;
    bool alive[NODES];
    char kinds[NODES]; /* '-': no finalizer, 'u': without an order, 'o': ordered */
    size_t log[NODES];
    size_t logged;
} story;

/* All that can be reached is as it was. */
static void must_be_whole(const node *n, bool seen[NODES])
{
    MUST(n->number < NODES);
    if (seen[n->number])
        return;
    seen[n->number] = true;
    MUST(whole(n));
    for (size_t i = 0; i < EDGES && n->to[i] != NULL; i++)
        must_be_whole(n->to[i], seen);
}

static void note_run(void *context, void *object)
{
    story *s = context;
    bool seen[NODES] = {false};
    must_be_whole(object, seen);
    MUST(s->logged < NODES);
    s->log[s->logged++] = ((node *)object)->number;
}

/* Objects with finalizers that are set in an order of their own: it must not matter. */
static void story_start(story *s, vmk_gc *gc, const char *kinds, support_random *random)
{
    size_t order[NODES], count = strlen(kinds);
    memset(s, 0, sizeof *s);
    graph_start(&s->g, gc, count);
    memcpy(s->kinds, kinds, count);
    for (size_t i = 0; i < count; i++) {
        size_t at = support_random_below(random, i + 1);
        order[i] = order[at];
        order[at] = i;
        s->alive[i] = true;
    }
    for (size_t i = 0; i < count; i++) {
        size_t number = order[i];
        if (kinds[number] != '-')
            MUST(vmk_gc_finalizer_set(gc, graph_node(&s->g, number), note_run, s,
                                      kinds[number] == 'o' ? VMK_GC_ORDERED : 0) == VMK_OK);
    }
}

/* What a cycle is to do: who is run, and who is there after it. */
static void round_expect(story *s, bool runs[NODES])
{
    bool rooted[NODES], reached[NODES], waits[NODES], beyond[NODES];
    for (size_t i = 0; i < s->g.count; i++)
        rooted[i] = s->g.roots[i] != NULL;
    graph_beyond(&s->g, rooted, reached);
    for (size_t i = 0; i < s->g.count; i++)
        waits[i] = s->alive[i] && s->kinds[i] != '-' && !rooted[i] && !reached[i];
    graph_beyond(&s->g, waits, beyond);
    for (size_t i = 0; i < s->g.count; i++) {
        runs[i] = waits[i] && (s->kinds[i] == 'u' || !beyond[i]);
        s->alive[i] = rooted[i] || reached[i] || waits[i] || beyond[i];
    }
}

/* One cycle, and all finalizers that wait after it. */
static void round_do(story *s)
{
    bool runs[NODES] = {false}, ran[NODES] = {false};
    size_t count = 0;
    s->logged = 0;
    round_expect(s, runs);
    for (size_t i = 0; i < s->g.count; i++)
        count += runs[i];
    vmk_gc_collect(s->g.gc);
    MUST(s->logged == 0);
    MUST(stats_of(s->g.gc).finalizable == count);
    for (size_t i = 0; i < s->g.count; i++)
        MUST((s->g.links[i] != 0) == s->alive[i]);
    MUST(vmk_gc_finalize(s->g.gc, SIZE_MAX) == count);
    MUST(s->logged == count);
    for (size_t i = 0; i < count; i++) {
        MUST(runs[s->log[i]] && !ran[s->log[i]]);
        ran[s->log[i]] = true;
        s->kinds[s->log[i]] = '-';
    }
}

typedef struct row {
    const char *kinds;     /* of A, B ... */
    const char *edges;     /* "AB BC": from A to B, from B to C */
    const char *roots;     /* */
    const char *rounds[6]; /* who is run after each cycle */
    const char *left;      /* who is still there after those */
} row;

static const row rows[] = {
    {"u", "", "", {"A", ""}, ""},
    {"o", "", "", {"A", ""}, ""},
    {"-", "", "", {""}, ""},
    {"u", "", "A", {"", ""}, "A"},
    {"o", "", "A", {"", ""}, "A"},
    {"uuu", "AB BC", "", {"ABC", ""}, ""},
    {"ooo", "AB BC", "", {"A", "B", "C", ""}, ""},
    {"ooo", "CB BA", "", {"C", "B", "A", ""}, ""},
    {"ooo", "", "", {"ABC", ""}, ""},
    {"oooo", "AB AC BD CD", "", {"A", "BC", "D", ""}, ""},   /* a diamond */
    {"oo", "AB BA", "", {"", "", ""}, "AB"},                 /* a ring: never */
    {"o", "AA", "", {"", ""}, "A"},                          /* itself */
    {"u", "AA", "", {"A", ""}, ""},                          /* which is nothing where there is no order */
    {"uu", "AB BA", "", {"AB", ""}, ""},                     /* */
    {"o-", "AB BA", "", {"", ""}, "AB"},                     /* by way of one without a finalizer */
    {"o--", "AB BC CA", "", {"", ""}, "ABC"},                /* */
    {"ooo", "AB BC CB", "", {"A", "", ""}, "BC"},            /* a ring behind one that is not in it */
    {"oooo", "AB BA BC CD", "", {"", ""}, "ABCD"},           /* and one in front */
    {"o--o", "AB BC CD", "", {"A", "D", ""}, ""},            /* order over a distance */
    {"-oo", "AB AC", "", {"BC", ""}, ""},                    /* who has no finalizer holds up nobody */
    {"-oo", "AB BC", "", {"B", "C", ""}, ""},                /* */
    {"uo", "AB", "", {"A", "B", ""}, ""},                    /* of both kinds */
    {"ou", "AB", "", {"AB", ""}, ""},                        /* */
    {"uo", "AB BA", "", {"A", "", ""}, "AB"},                /* */
    {"ouo", "AB BC", "", {"AB", "C", ""}, ""},               /* */
    {"oou", "AB BC CB", "", {"AC", "", ""}, "BC"},           /* */
    {"oo", "AB", "B", {"A", ""}, "B"},                       /* reached otherwise */
    {"oo", "AB", "A", {"", ""}, "AB"},                       /* */
    {"oooo", "AB BC DC", "D", {"A", "B", ""}, "CD"},         /* */
    {"ooooo", "AC BC CD CE", "", {"AB", "C", "DE", ""}, ""}, /* */
    {"ooo---", "AD DB BE EC CF", "", {"A", "B", "C", ""}, ""},
    {"uuoo", "AC BC CD", "", {"AB", "C", "D", ""}, ""},
};

static void row_start(story *s, vmk_gc *gc, const row *r, support_random *random)
{
    story_start(s, gc, r->kinds, random);
    for (const char *edge = r->edges; *edge != '\0'; edge += edge[2] == ' ' ? 3 : 2)
        graph_edge(&s->g, (size_t)(edge[0] - 'A'), (size_t)(edge[1] - 'A'));
    for (size_t i = 0; i < s->g.count; i++)
        if (strchr(r->roots, (char)('A' + i)) == NULL)
            s->g.roots[i] = NULL;
}

START_TEST(as_the_table_says)
{
    const row *r = &rows[_i];
    support_random random = support_random_start((uint64_t)_i);
    vmk_gc *gc = exact_heap(0);
    for (size_t order = 0; order < 4; order++) {
        story s;
        row_start(&s, gc, r, &random);
        for (size_t round = 0; round < 6 && r->rounds[round] != NULL; round++) {
            round_do(&s);
            MUST(s.logged == strlen(r->rounds[round]));
            for (size_t i = 0; i < s.logged; i++)
                MUST(strchr(r->rounds[round], (char)('A' + s.log[i])) != NULL);
        }
        for (size_t i = 0; i < s.g.count; i++) {
            MUST((s.g.links[i] != 0) == (strchr(r->left, (char)('A' + i)) != NULL));
            if (s.g.links[i] != 0)
                MUST(vmk_gc_finalizer_set(gc, graph_node(&s.g, i), NULL, NULL, 0) == VMK_OK);
        }
        graph_end(&s.g);
        vmk_gc_collect(gc);
        MUST(stats_of(gc).live_objects == 0 && stats_of(gc).finalizers == 0);
    }
    vmk_gc_destroy(gc);
}
END_TEST

static void random_story(vmk_gc *gc, support_random *random)
{
    story s;
    char kinds[NODES + 1] = {0};
    size_t count = 1 + support_random_below(random, 14), edges = support_random_below(random, 2 * count);
    for (size_t i = 0; i < count; i++)
        kinds[i] = "-uoo"[support_random_below(random, 4)];
    story_start(&s, gc, kinds, random);
    for (size_t i = 0; i < edges; i++) {
        size_t from = support_random_below(random, count), to = support_random_below(random, count), out = 0;
        for (size_t k = 0; k < count; k++)
            out += s.g.edges[from][k];
        if (out < EDGES)
            graph_edge(&s.g, from, to);
    }
    for (size_t i = 0; i < count; i++)
        if (support_random_below(random, 4) != 0)
            s.g.roots[i] = NULL;
    for (size_t round = 0; round < 5; round++) {
        round_do(&s);
        s.g.roots[support_random_below(random, count)] = NULL;
    }
    for (size_t i = 0; i < count; i++)
        if (s.g.links[i] != 0)
            MUST(vmk_gc_finalizer_set(gc, graph_node(&s.g, i), NULL, NULL, 0) == VMK_OK);
    graph_end(&s.g);
    MUST(stats_of(gc).finalizers == 0);
}

START_TEST(random_against_a_model)
{
    support_random random = support_random_start(1);
    vmk_gc *gc = exact_heap(0);
    for (size_t i = support_rounds(400); i > 0; i--)
        random_story(gc, &random);
    vmk_gc_destroy(gc);
}
END_TEST

/* --- what becomes of one ------------------------------------------------------------------------------------------ */

/* One object, root[0], long and short links to it, and what its finalizer is to do. */
typedef struct single {
    vmk_gc *gc;
    void *roots[2];
    uintptr_t links[2]; /* by kind */
    size_t runs;
    bool set_again;
    bool store;
    bool collect;
    bool free_itself;
} single;

static void single_run(void *context, void *object)
{
    single *s = context;
    s->runs++;
    MUST(whole(object));
    MUST(s->links[VMK_GC_SHORT] == 0);
    MUST(vmk_gc_link_get(s->gc, &s->links[VMK_GC_LONG]) == object);
    if (s->collect) {
        for (size_t i = 0; i < 1000; i++)
            (void)node_new(s->gc, i);
        vmk_gc_collect(s->gc);
        MUST(vmk_gc_link_get(s->gc, &s->links[VMK_GC_LONG]) == object);
        MUST(whole(object));
        MUST(vmk_gc_finalize(s->gc, 10) == 0);
    }
    if (s->set_again)
        MUST(vmk_gc_finalizer_set(s->gc, object, single_run, s, 0) == VMK_OK);
    if (s->store)
        s->roots[1] = object;
    if (s->free_itself)
        vmk_gc_free(s->gc, object);
}

static void single_never(void *context, void *object)
{
    (void)object;
    ((single *)context)->runs += 1000;
}

static void single_start(single *s)
{
    memset(s, 0, sizeof *s);
    s->gc = exact_heap(0);
    ck_assert_int_eq(vmk_gc_slots_add(s->gc, s->roots, 2), VMK_OK);
    s->roots[0] = node_new(s->gc, 7);
    for (unsigned kind = 0; kind < 2; kind++)
        ck_assert_int_eq(vmk_gc_link_add(s->gc, &s->links[kind], s->roots[0], (vmk_gc_weak_kind)kind), VMK_OK);
    ck_assert_int_eq(vmk_gc_finalizer_set(s->gc, s->roots[0], single_run, s, 0), VMK_OK);
    ck_assert_uint_eq(stats_of(s->gc).finalizers, 1);
    vmk_gc_collect(s->gc);
    ck_assert_uint_eq(stats_of(s->gc).finalizable, 0);
}

/* Out of the only root; it waits after that. */
static void single_drop(single *s)
{
    s->roots[0] = s->roots[1] = NULL;
    vmk_gc_collect(s->gc);
    ck_assert_uint_eq(stats_of(s->gc).last.finalizable, 1);
    ck_assert_uint_eq(stats_of(s->gc).finalizable, 1);
    ck_assert_uint_eq(stats_of(s->gc).finalizers, 0);
}

static void single_end(single *s, size_t runs)
{
    s->roots[0] = s->roots[1] = NULL;
    vmk_gc_collect(s->gc);
    ck_assert_uint_eq(vmk_gc_finalize(s->gc, SIZE_MAX), 0);
    ck_assert_uint_eq(s->runs, runs);
    ck_assert_uint_eq(s->links[VMK_GC_LONG], 0);
    ck_assert_uint_eq(stats_of(s->gc).live_objects, 0);
    vmk_gc_destroy(s->gc);
}

START_TEST(it_runs_once)
{
    single s;
    single_start(&s);
    single_drop(&s);
    ck_assert_uint_eq(s.links[VMK_GC_SHORT], 0);
    vmk_gc_collect(s.gc); /* while it waits it stays */
    vmk_gc_collect(s.gc);
    ck_assert_uint_ne(s.links[VMK_GC_LONG], 0);
    ck_assert_uint_eq(stats_of(s.gc).live_objects, 1);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, 0), 0);
    ck_assert_uint_eq(s.runs, 0);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
    ck_assert_uint_ne(s.links[VMK_GC_LONG], 0);
    single_end(&s, 1);
}
END_TEST

START_TEST(it_may_revive_the_object)
{
    single s;
    single_start(&s);
    s.store = true;
    single_drop(&s);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, 1), 1);
    ck_assert_ptr_nonnull(s.roots[1]);
    vmk_gc_collect(s.gc);
    vmk_gc_collect(s.gc);
    ck_assert(whole(s.roots[1]));
    ck_assert_ptr_eq(vmk_gc_link_get(s.gc, &s.links[VMK_GC_LONG]), s.roots[1]);
    ck_assert_uint_eq(s.links[VMK_GC_SHORT], 0);
    single_end(&s, 1);
}
END_TEST

START_TEST(it_may_be_set_again)
{
    single s;
    single_start(&s);
    s.set_again = true;
    for (size_t i = 1; i < 10; i++) {
        single_drop(&s);
        ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
        ck_assert_uint_eq(s.runs, i);
    }
    s.set_again = false;
    single_drop(&s);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
    single_end(&s, 10);
}
END_TEST

/* Where stacks are no roots too the object is there until it has returned, whatever happens meanwhile. */
START_TEST(the_object_is_held_while_it_runs)
{
    single s;
    single_start(&s);
    s.collect = true;
    single_drop(&s);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
    single_end(&s, 1);
}
END_TEST

START_TEST(it_may_free_the_object)
{
    single s;
    single_start(&s);
    s.free_itself = true;
    single_drop(&s);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
    ck_assert_uint_eq(s.links[VMK_GC_LONG], 0);
    single_end(&s, 1);
}
END_TEST

START_TEST(it_can_be_taken_away)
{
    single s;
    single_start(&s);
    ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, s.roots[0], NULL, NULL, 0), VMK_OK);
    ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, s.roots[0], NULL, NULL, VMK_GC_ORDERED), VMK_OK);
    ck_assert_uint_eq(stats_of(s.gc).finalizers, 0);
    single_end(&s, 0);
}
END_TEST

START_TEST(it_can_be_taken_away_while_it_waits)
{
    single s;
    single_start(&s);
    single_drop(&s);
    void *object = vmk_gc_link_get(s.gc, &s.links[VMK_GC_LONG]);
    ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, object, NULL, NULL, 0), VMK_OK);
    ck_assert_uint_eq(stats_of(s.gc).finalizable, 0);
    single_end(&s, 0);
}
END_TEST

/* The last one counts; one that waits begins anew. */
START_TEST(it_can_be_replaced)
{
    single s;
    single_start(&s);
    ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, s.roots[0], single_never, &s, 0), VMK_OK);
    ck_assert_uint_eq(stats_of(s.gc).finalizers, 1);
    single_drop(&s);
    void *object = vmk_gc_link_get(s.gc, &s.links[VMK_GC_LONG]);
    s.roots[0] = object;
    ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, object, single_run, &s, VMK_GC_ORDERED), VMK_OK);
    ck_assert_uint_eq(stats_of(s.gc).finalizable, 0);
    ck_assert_uint_eq(stats_of(s.gc).finalizers, 1);
    vmk_gc_collect(s.gc);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 0);
    single_drop(&s);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
    single_end(&s, 1);
}
END_TEST

START_TEST(freed_by_hand_it_does_not_run)
{
    single s;
    single_start(&s);
    vmk_gc_free(s.gc, s.roots[0]);
    ck_assert_uint_eq(stats_of(s.gc).finalizers, 0);
    ck_assert_uint_eq(s.links[VMK_GC_SHORT], 0);
    ck_assert_uint_eq(s.links[VMK_GC_LONG], 0);
    single_end(&s, 0);
}
END_TEST

START_TEST(freed_by_hand_while_it_waits_it_does_not_run)
{
    single s;
    single_start(&s);
    single_drop(&s);
    vmk_gc_free(s.gc, vmk_gc_link_get(s.gc, &s.links[VMK_GC_LONG]));
    ck_assert_uint_eq(stats_of(s.gc).finalizable, 0);
    single_end(&s, 0);
}
END_TEST

START_TEST(flags_are_checked)
{
    single s;
    single_start(&s);
    ck_assert_int_eq(vmk_gc_finalizer_set(s.gc, s.roots[0], single_never, &s, 2), VMK_ERR_ARGUMENT);
    single_drop(&s);
    ck_assert_uint_eq(vmk_gc_finalize(s.gc, SIZE_MAX), 1);
    single_end(&s, 1);
}
END_TEST

/* --- crimes ------------------------------------------------------------------------------------------------------- */

static vmk_gc *doomed;
static size_t no_heap[1000];

static void crime_inside(void)
{
    VMKI_IGNORE(vmk_gc_finalizer_set(doomed, (char *)vmk_gc_alloc(doomed, 100) + 16, single_never, NULL, 0));
}

static void crime_nothing(void)
{
    VMKI_IGNORE(vmk_gc_finalizer_set(doomed, NULL, single_never, NULL, 0));
}

static void crime_foreign(void)
{
    static size_t words[8];
    VMKI_IGNORE(vmk_gc_finalizer_set(doomed, words, single_never, NULL, 0));
}

static void crime_freed(void)
{
    void *object = vmk_gc_alloc(doomed, 100);
    vmk_gc_free(doomed, object);
    VMKI_IGNORE(vmk_gc_finalizer_set(doomed, object, single_never, NULL, 0));
}

static void crime_no_heap(void)
{
    (void)vmk_gc_finalize((vmk_gc *)(void *)&no_heap, 1);
}

static void end_it(void *context, void *object)
{
    (void)object;
    vmk_gc_destroy(context);
}

static void crime_suicide(void)
{
    VMKI_IGNORE(vmk_gc_finalizer_set(doomed, vmk_gc_alloc(doomed, 100), end_it, doomed, 0));
    vmk_gc_collect(doomed);
    vmk_gc_blocking_enter();
    for (;;)
        support_yield();
}

static const support_crimes crimes[] = {
    {"inside", crime_inside, "vmk_gc_finalizer_set: not an object"},
    {"nothing", crime_nothing, "vmk_gc_finalizer_set: not an object"},
    {"foreign", crime_foreign, "vmk_gc_finalizer_set: not an object"},
    {"freed", crime_freed, "vmk_gc_finalizer_set: not an object"},
    {"no heap", crime_no_heap, "vmk_gc_finalize: not a collected heap"},
    {"suicide", crime_suicide, "vmk_gc_destroy: called by a finalizer"},
};

enum { CRIMES = sizeof crimes / sizeof crimes[0], ROWS = sizeof rows / sizeof rows[0] };

static int child(int argc, char **argv)
{
    vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = VMK_GC_NO_STACKS | VMK_GC_NO_STATIC | VMK_GC_FINALIZER_THREAD, .heap = &below};
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
    Suite *s = suite_create("gc_finalize");
    TCase *t = tcase_create("gc_finalize");
    tcase_set_timeout(t, 0);
    tcase_add_loop_test(t, as_the_table_says, 0, ROWS);
    tcase_add_test(t, random_against_a_model);
    tcase_add_test(t, it_runs_once);
    tcase_add_test(t, it_may_revive_the_object);
    tcase_add_test(t, it_may_be_set_again);
    tcase_add_test(t, the_object_is_held_while_it_runs);
    tcase_add_test(t, it_may_free_the_object);
    tcase_add_test(t, it_can_be_taken_away);
    tcase_add_test(t, it_can_be_taken_away_while_it_waits);
    tcase_add_test(t, it_can_be_replaced);
    tcase_add_test(t, freed_by_hand_it_does_not_run);
    tcase_add_test(t, freed_by_hand_while_it_waits_it_does_not_run);
    tcase_add_test(t, flags_are_checked);
    tcase_add_loop_test(t, crimes_end_the_program, 0, CRIMES);
    suite_add_tcase(s, t);
    return support_main(argc, argv, s, child);
}
