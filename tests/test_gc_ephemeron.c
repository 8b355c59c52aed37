/* SPDX-License-Identifier: MIT
 *
 * Ephemerons: what is left of a pair, as a table and by a model (with finalizers among them); long chains in every
 * order, whose cost is counted; pairs in the hands of several threads.
 */
#include <stdlib.h>

#include "gc_graph.h"

static vmk_gc_stats stats_of(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(gc, &stats);
    return stats;
}

/* --- what is left of a pair --------------------------------------------------------------------------------------- */

enum { KEY = 1, VALUE = 2, PAIR = 4 };

typedef struct row {
    unsigned roots;      /* which of them are */
    bool value_has_key;  /* the value refers to the key, */
    bool key_has_value;  /* the key to the value, */
    bool key_has_pair;   /* or to the ephemeron */
    bool value_has_pair; /* */
    unsigned left;       /* what is there after a cycle */
} row;

static const row rows[] = {
    {KEY | VALUE | PAIR, false, false, false, false, KEY | VALUE | PAIR},
    {KEY | PAIR, false, false, false, false, KEY | VALUE | PAIR}, /* the pair keeps the value */
    {PAIR, false, false, false, false, PAIR},                     /* but not both */
    {KEY, false, false, false, false, KEY},                       /* a key needs the pair for it */
    {VALUE, false, false, false, false, VALUE},
    {VALUE | PAIR, false, false, false, false, VALUE | PAIR},
    {KEY | VALUE, false, false, false, false, KEY | VALUE},
    {0, false, false, false, false, 0},
    {PAIR, true, false, false, false, PAIR}, /* who is reached by the value alone */
    {KEY | PAIR, true, false, false, false, KEY | VALUE | PAIR},
    {VALUE | PAIR, true, false, false, false, KEY | VALUE | PAIR},
    {VALUE, true, false, false, false, KEY | VALUE},
    {PAIR, false, true, false, false, PAIR},
    {PAIR, true, true, false, false, PAIR},
    {KEY, false, true, false, false, KEY | VALUE},
    {KEY, false, false, true, false, KEY | VALUE | PAIR}, /* the pair is found by the key */
    {KEY, true, false, true, false, KEY | VALUE | PAIR},
    {PAIR, true, false, true, true, PAIR},
    {VALUE, false, false, false, true, VALUE | PAIR},
    {VALUE, true, false, false, true, KEY | VALUE | PAIR},
    {0, true, true, true, true, 0},
};

START_TEST(as_the_table_says)
{
    const row *r = &rows[_i];
    graph g;
    void *pairs[1] = {NULL};
    vmk_gc *gc = exact_heap(0);
    graph_start(&g, gc, 2);
    ck_assert_int_eq(vmk_gc_slots_add(gc, pairs, 1), VMK_OK);
    node *key = g.roots[0], *value = g.roots[1];
    uintptr_t link;
    vmk_gc_ephemeron *pair = pairs[0] = vmk_gc_ephemeron_new(gc, key, value);
    ck_assert_ptr_nonnull(pair);
    ck_assert_int_eq(vmk_gc_link_add(gc, &link, pair, VMK_GC_SHORT), VMK_OK);
    ck_assert_ptr_eq(vmk_gc_ephemeron_key(gc, pair), key);
    ck_assert_ptr_eq(vmk_gc_ephemeron_value(gc, pair), value);
    value->to[0] = r->value_has_key ? key : NULL;
    key->to[0] = r->key_has_value ? value : NULL;
    key->to[1] = r->key_has_pair ? (void *)pair : NULL;
    value->to[1] = r->value_has_pair ? (void *)pair : NULL;
    g.roots[0] = (r->roots & KEY) != 0 ? key : NULL;
    g.roots[1] = (r->roots & VALUE) != 0 ? value : NULL;
    pairs[0] = (r->roots & PAIR) != 0 ? pair : NULL;
    for (int cycle = 0; cycle < 3; cycle++) {
        vmk_gc_collect(gc);
        bool has_key = (r->left & KEY) != 0, has_pair = (r->left & PAIR) != 0, both = has_key && has_pair;
        ck_assert_int_eq(g.links[0] != 0, has_key);
        ck_assert_int_eq(g.links[1] != 0, (r->left & VALUE) != 0);
        ck_assert_int_eq(link != 0, has_pair);
        ck_assert_uint_eq(stats_of(gc).ephemerons, both);
        ck_assert_uint_eq(stats_of(gc).last.weak_cleared > 0, cycle == 0 && r->left != (KEY | VALUE | PAIR));
        if (has_pair) {
            ck_assert_ptr_eq(vmk_gc_ephemeron_key(gc, pair), both ? key : NULL);
            ck_assert_ptr_eq(vmk_gc_ephemeron_value(gc, pair), both ? value : NULL);
        }
    }
    vmk_gc_destroy(gc);
}
END_TEST

START_TEST(the_value_can_be_changed)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[3] = {NULL};
    uintptr_t link = 0;
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 3), VMK_OK);
    roots[0] = node_new(gc, 0);
    vmk_gc_ephemeron *pair = roots[1] = vmk_gc_ephemeron_new(gc, roots[0], NULL);
    vmk_gc_collect(gc);
    ck_assert_ptr_eq(vmk_gc_ephemeron_key(gc, pair), roots[0]);
    ck_assert_ptr_null(vmk_gc_ephemeron_value(gc, pair));
    node *value = roots[2] = node_new(gc, 1);
    vmk_gc_ephemeron_set(gc, pair, value);
    ck_assert_int_eq(vmk_gc_link_add(gc, &link, value, VMK_GC_SHORT), VMK_OK);
    roots[2] = NULL;
    vmk_gc_collect(gc);
    ck_assert_ptr_eq(vmk_gc_ephemeron_value(gc, pair), value);
    vmk_gc_ephemeron_set(gc, pair, &value->to[3]); /* the inside of an object keeps it as well */
    vmk_gc_collect(gc);
    ck_assert_ptr_eq(vmk_gc_ephemeron_value(gc, pair), &value->to[3]);
    ck_assert_uint_ne(link, 0);
    vmk_gc_ephemeron_set(gc, pair, roots[0]);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(link, 0);
    roots[0] = NULL;
    vmk_gc_collect(gc);
    vmk_gc_ephemeron_set(gc, pair, roots[1]); /* it is cleared: that does nothing */
    ck_assert_ptr_null(vmk_gc_ephemeron_key(gc, pair));
    ck_assert_ptr_null(vmk_gc_ephemeron_value(gc, pair));
    vmk_gc_destroy(gc);
}
END_TEST

/* A pair that is its own key, or value; pairs of pairs. */
START_TEST(pairs_are_objects_themselves)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[2] = {NULL};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
    roots[0] = node_new(gc, 0);
    vmk_gc_ephemeron *first = roots[1] = vmk_gc_ephemeron_new(gc, roots[0], NULL);
    vmk_gc_ephemeron_set(gc, first, first);
    vmk_gc_ephemeron *second = vmk_gc_ephemeron_new(gc, first, roots[0]);
    vmk_gc_ephemeron_set(gc, first, second);
    roots[1] = second;
    vmk_gc_collect(gc);
    ck_assert_ptr_null(vmk_gc_ephemeron_key(gc, second)); /* nobody had its key */
    ck_assert_uint_eq(stats_of(gc).ephemerons, 0);
    roots[1] = first = vmk_gc_ephemeron_new(gc, roots[0], NULL);
    second = vmk_gc_ephemeron_new(gc, first, roots[0]);
    vmk_gc_ephemeron_set(gc, first, second);
    vmk_gc_collect(gc);
    ck_assert_ptr_eq(vmk_gc_ephemeron_value(gc, first), second);
    ck_assert_ptr_eq(vmk_gc_ephemeron_key(gc, second), first);
    roots[0] = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).ephemerons, 0);
    ck_assert_uint_eq(stats_of(gc).live_objects, 1);
    vmk_gc_destroy(gc);
}
END_TEST

/* The pair, the key, one of several keys. */
START_TEST(freed_by_hand)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[12] = {NULL};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 12), VMK_OK);
    roots[0] = node_new(gc, 0);
    roots[1] = node_new(gc, 1);
    for (size_t i = 2; i < 12; i++)
        roots[i] = vmk_gc_ephemeron_new(gc, roots[i % 2], roots[1]);
    ck_assert_uint_eq(stats_of(gc).ephemerons, 10);
    vmk_gc_free(gc, roots[4]);
    roots[4] = NULL;
    ck_assert_uint_eq(stats_of(gc).ephemerons, 9);
    vmk_gc_free(gc, roots[0]);
    roots[0] = NULL;
    ck_assert_uint_eq(stats_of(gc).ephemerons, 5);
    for (size_t i = 2; i < 12; i++)
        if (roots[i] != NULL)
            ck_assert_ptr_eq(vmk_gc_ephemeron_key(gc, roots[i]), i % 2 != 0 ? roots[1] : NULL);
    roots[0] = node_new(gc, 2); /* perhaps in the same place */
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).ephemerons, 5);
    ck_assert_ptr_null(vmk_gc_ephemeron_key(gc, roots[2]));
    vmk_gc_destroy(gc);
}
END_TEST

/* --- by a model --------------------------------------------------------------------------------------------------- */

enum { NODE_MAX = 12, PAIR_MAX = 10, ALL_MAX = NODE_MAX + PAIR_MAX };

/* Objects by number: nodes, then pairs. */
typedef struct model {
    vmk_gc *gc;
    size_t nodes, all;
    void *roots[ALL_MAX];
    uintptr_t links[ALL_MAX]; /* long */
    bool alive[ALL_MAX];
    bool edges[NODE_MAX][ALL_MAX];
    size_t key[ALL_MAX]; /* of pairs; ALL_MAX: cleared */
    size_t value[ALL_MAX];
    char kinds[ALL_MAX]; /* finalizers of nodes: '-', 'u', 'o' */
    bool ran[ALL_MAX];
} model;

static void model_run(void *context, void *object)
{
    model *m = context;
    const node *n = object;
    MUST(whole(n) && !m->ran[n->number]);
    m->ran[n->number] = true;
}

/* All that is marked once these are: naively. */
static void model_close(const model *m, bool marked[ALL_MAX])
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < m->all; i++) {
            if (!marked[i])
                continue;
            for (size_t k = 0; k < m->all; k++) {
                bool leads =
                    i < m->nodes ? m->edges[i][k] : m->key[i] != ALL_MAX && marked[m->key[i]] && m->value[i] == k;
                more |= leads && !marked[k];
                marked[k] |= leads;
            }
        }
    }
}

static void model_clear(model *m, const bool marked[ALL_MAX])
{
    for (size_t i = m->nodes; i < m->all; i++)
        if (marked[i] && m->key[i] != ALL_MAX && !marked[m->key[i]])
            m->key[i] = ALL_MAX;
}

static void model_cycle(model *m, bool runs[ALL_MAX])
{
    bool marked[ALL_MAX], waits[ALL_MAX] = {false};
    for (size_t i = 0; i < m->all; i++)
        marked[i] = m->roots[i] != NULL;
    model_close(m, marked);
    model_clear(m, marked);
    for (size_t i = 0; i < m->nodes; i++)
        waits[i] = m->alive[i] && m->kinds[i] != '-' && !marked[i];
    for (size_t i = 0; i < m->nodes; i++)
        for (size_t k = 0; waits[i] && k < m->all; k++)
            marked[k] |= m->edges[i][k];
    model_close(m, marked);
    for (size_t i = 0; i < m->nodes; i++)
        runs[i] = waits[i] && (m->kinds[i] == 'u' || !marked[i]);
    for (size_t i = 0; i < m->nodes; i++)
        marked[i] |= waits[i];
    model_close(m, marked);
    model_clear(m, marked);
    memcpy(m->alive, marked, sizeof marked);
}

static void model_compare(const model *m)
{
    size_t live = 0;
    for (size_t i = 0; i < m->all; i++) {
        void *object = vmk_gc_link_get(m->gc, &m->links[i]);
        MUST((object != NULL) == m->alive[i]);
        if (i < m->nodes || object == NULL)
            continue;
        bool cleared = m->key[i] == ALL_MAX;
        live += !cleared;
        MUST(vmk_gc_ephemeron_key(m->gc, object) == (cleared ? NULL : vmk_gc_link_get(m->gc, &m->links[m->key[i]])));
        MUST(vmk_gc_ephemeron_value(m->gc, object) ==
             (cleared ? NULL : vmk_gc_link_get(m->gc, &m->links[m->value[i]])));
    }
    MUST(stats_of(m->gc).ephemerons == live);
}

/* Some of the pairs have another pair as key or value. */
static void model_build(model *m, support_random *random)
{
    for (size_t i = 0; i < m->all; i++) {
        size_t key = support_random_below(random, i < m->nodes || i % 3 != 0 ? m->nodes : i);
        size_t value = support_random_below(random, i < m->nodes ? 1 : i);
        m->key[i] = key;
        m->value[i] = value;
        m->roots[i] = i < m->nodes ? (void *)node_new(m->gc, i)
                                   : (void *)vmk_gc_ephemeron_new(m->gc, m->roots[key], m->roots[value]);
        MUST(m->roots[i] != NULL);
        MUST(vmk_gc_link_add(m->gc, &m->links[i], m->roots[i], VMK_GC_LONG) == VMK_OK);
        m->alive[i] = true;
        m->kinds[i] = i < m->nodes ? "---uo"[support_random_below(random, 5)] : '-';
        if (m->kinds[i] != '-')
            MUST(vmk_gc_finalizer_set(m->gc, m->roots[i], model_run, m, m->kinds[i] == 'o' ? VMK_GC_ORDERED : 0) ==
                 VMK_OK);
    }
    for (size_t i = 0; i < m->nodes; i++) {
        for (size_t k = support_random_below(random, 4); k > 0; k--) {
            size_t to = support_random_below(random, m->all);
            ((node *)m->roots[i])->to[k] = m->roots[to];
            m->edges[i][to] = true;
        }
    }
    for (size_t i = 0; i < m->all; i++)
        if (support_random_below(random, 4) != 0)
            m->roots[i] = NULL;
}

static void model_story(vmk_gc *gc, support_random *random)
{
    model m = {.gc = gc, .nodes = 1 + support_random_below(random, NODE_MAX)};
    m.all = m.nodes + support_random_below(random, PAIR_MAX + 1);
    MUST(vmk_gc_slots_add(gc, m.roots, ALL_MAX) == VMK_OK);
    model_build(&m, random);
    for (int cycle = 0; cycle < 4; cycle++) {
        bool runs[ALL_MAX] = {false};
        memset(m.ran, 0, sizeof m.ran);
        model_cycle(&m, runs);
        vmk_gc_collect(gc);
        model_compare(&m);
        (void)vmk_gc_finalize(gc, SIZE_MAX);
        for (size_t i = 0; i < m.all; i++) {
            MUST(m.ran[i] == runs[i]);
            m.kinds[i] = runs[i] ? '-' : m.kinds[i];
        }
        m.roots[support_random_below(random, m.all)] = NULL;
    }
    for (size_t i = 0; i < m.all; i++) {
        if (m.links[i] != 0)
            MUST(vmk_gc_finalizer_set(gc, vmk_gc_link_get(gc, &m.links[i]), NULL, NULL, 0) == VMK_OK);
        (void)vmk_gc_link_remove(gc, &m.links[i]);
    }
    vmk_gc_roots_remove(gc, m.roots);
    vmk_gc_collect(gc);
    MUST(stats_of(gc).ephemerons == 0 && stats_of(gc).finalizers == 0);
}

START_TEST(random_against_a_model)
{
    support_random random = support_random_start(2);
    vmk_gc *gc = exact_heap(0);
    for (size_t i = support_rounds(1000); i > 0; i--)
        model_story(gc, &random);
    vmk_gc_destroy(gc);
}
END_TEST

/* --- long chains -------------------------------------------------------------------------------------------------- */

enum { LENGTH = 100000 };

typedef enum order { FORWARD, BACKWARD, INSIDE_OUT, ORDERS } order;

/* Which link of the chain is made i-th. */
static size_t in_order(order o, size_t i)
{
    if (o == FORWARD)
        return i;
    if (o == BACKWARD)
        return LENGTH - 1 - i;
    return i % 2 == 0 ? (LENGTH - 1 - i) / 2 : (LENGTH + i) / 2; /* from the middle, to both sides */
}

/* Keys, and pairs i -> i + 1, all in two large objects; the last one's value is the first key, if it is a ring. */
static void chain_make(vmk_gc *gc, void **keys, void **pairs, order o, bool ring)
{
    for (size_t i = 0; i < LENGTH; i++) {
        keys[i] = vmk_gc_alloc_leaf(gc, 16);
        MUST(keys[i] != NULL);
    }
    for (size_t i = 0; i < LENGTH; i++) {
        size_t at = in_order(o, i);
        MUST(pairs[at] == NULL);
        pairs[at] = vmk_gc_ephemeron_new(gc, keys[at], at + 1 < LENGTH || ring ? keys[(at + 1) % LENGTH] : NULL);
        MUST(pairs[at] != NULL);
    }
}

/* One key is reached, then none. Each cycle looks at each pair a few times, whatever the order. */
static void chain_collect(vmk_gc *gc, void **keys, void **pairs, size_t start, size_t left)
{
    void *one[1] = {keys[start]};
    MUST(vmk_gc_slots_add(gc, one, 1) == VMK_OK);
    memset(keys, 0, LENGTH * sizeof *keys);
    for (size_t expected = left;; expected = 0) {
        size_t before = gc->ephemerons.steps;
        vmk_gc_collect(gc);
        MUST(gc->ephemerons.steps - before <= 16 * (size_t)LENGTH);
        MUST(stats_of(gc).ephemerons == expected);
        for (size_t i = start; i < LENGTH && expected != 0; i++)
            MUST(vmk_gc_ephemeron_key(gc, pairs[i]) != NULL);
        if (expected == 0)
            break;
        one[0] = NULL;
    }
    for (size_t i = 0; i < LENGTH; i++)
        MUST(vmk_gc_ephemeron_value(gc, pairs[i]) == NULL);
    vmk_gc_roots_remove(gc, one);
}

START_TEST(long_chains_cost_what_is_in_them)
{
    order o = (order)(_i / 2);
    bool ring = _i % 2 != 0;
    vmk_gc *gc = exact_heap(0);
    void *roots[2] = {NULL};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
    void **keys = roots[0] = vmk_gc_alloc(gc, LENGTH * sizeof *keys);
    void **pairs = roots[1] = vmk_gc_alloc(gc, LENGTH * sizeof *pairs);
    ck_assert(keys != NULL && pairs != NULL);
    chain_make(gc, keys, pairs, o, ring);
    ck_assert_uint_eq(stats_of(gc).ephemerons, LENGTH);
    chain_collect(gc, keys, pairs, LENGTH / 3, ring ? LENGTH : LENGTH - LENGTH / 3);
    vmk_gc_destroy(gc);
}
END_TEST

/* All keys are reached, but each pair is found by the value of the one before alone. */
START_TEST(a_chain_of_pairs)
{
    vmk_gc *gc = exact_heap(0);
    void *roots[3] = {NULL};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 3), VMK_OK);
    void **keys = roots[0] = vmk_gc_alloc(gc, LENGTH * sizeof *keys);
    ck_assert_ptr_nonnull(keys);
    for (size_t i = 0; i < LENGTH; i++) {
        keys[i] = vmk_gc_alloc_leaf(gc, 16);
        roots[1] = vmk_gc_ephemeron_new(gc, keys[i], roots[1]);
        MUST(roots[1] != NULL);
    }
    size_t before = gc->ephemerons.steps;
    vmk_gc_collect(gc);
    ck_assert_uint_le(gc->ephemerons.steps - before, 16 * (size_t)LENGTH);
    ck_assert_uint_eq(stats_of(gc).ephemerons, LENGTH);
    keys[LENGTH / 2] = NULL; /* the half behind it goes */
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).ephemerons, LENGTH - LENGTH / 2 - 1);
    vmk_gc_destroy(gc);
}
END_TEST

/* All have one key. */
START_TEST(many_with_one_key)
{
    enum { COUNT = 20000 };
    vmk_gc *gc = exact_heap(0);
    void *roots[2] = {NULL};
    ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
    roots[0] = vmk_gc_alloc_leaf(gc, 16);
    void **pairs = roots[1] = vmk_gc_alloc(gc, COUNT * sizeof *pairs);
    for (size_t i = 0; i < COUNT; i++) {
        void *value = vmk_gc_alloc_leaf(gc, 16);
        pairs[i] = vmk_gc_ephemeron_new(gc, roots[0], value);
        MUST(pairs[i] != NULL);
    }
    for (size_t i = 0; i < COUNT; i += 2) {
        if (i % 4 == 0)
            vmk_gc_free(gc, pairs[i]);
        pairs[i] = NULL;
    }
    size_t before = gc->ephemerons.steps;
    vmk_gc_collect(gc);
    ck_assert_uint_le(gc->ephemerons.steps - before, 16 * (size_t)COUNT);
    ck_assert_uint_eq(stats_of(gc).ephemerons, COUNT / 2);
    ck_assert_uint_eq(stats_of(gc).live_objects, COUNT + 2);
    vmk_gc_free(gc, roots[0]);
    roots[0] = NULL;
    ck_assert_uint_eq(stats_of(gc).ephemerons, 0);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(stats_of(gc).live_objects, COUNT / 2 + 1);
    vmk_gc_destroy(gc);
}
END_TEST

/* --- threads ------------------------------------------------------------------------------------------------------ */

enum { PLACES = 64 };

typedef struct storm {
    vmk_gc *gc;
    void *keys[PLACES];
    vmk_gc_ephemeron **pairs;
    size_t got; /* atomic, as the next ones */
    size_t gone;
    size_t broken;
    size_t steps;
} storm;

static uintptr_t *storm_object(const storm *s, uintptr_t what)
{
    uintptr_t *object = vmk_gc_alloc_leaf(s->gc, 48);
    if (object != NULL) {
        VMKI_STORE_RELAXED(&object[0], what);
        VMKI_STORE_RELAXED(&object[5], ~what);
    }
    return object;
}

static bool storm_whole(const uintptr_t *object)
{
    return VMKI_LOAD_RELAXED(&object[0]) == ~VMKI_LOAD_RELAXED(&object[5]);
}

static void storm_make(storm *s, support_random *random, size_t place)
{
    uintptr_t what = (uintptr_t)support_random_next(random);
    uintptr_t *key = storm_object(s, what), *value = storm_object(s, what);
    if (key == NULL || value == NULL)
        return;
    vmk_gc_ephemeron *pair = vmk_gc_ephemeron_new(s->gc, key, value);
    if (pair == NULL)
        return;
    VMKI_STORE_RELEASE(&s->keys[place], (void *)key);
    VMKI_STORE_RELEASE(&s->pairs[place], pair);
}

static void storm_look(storm *s, support_random *random, size_t place)
{
    vmk_gc_ephemeron *pair = VMKI_LOAD_ACQUIRE(&s->pairs[place]);
    if (pair == NULL)
        return;
    const uintptr_t *key = vmk_gc_ephemeron_key(s->gc, pair);
    if (key == NULL) {
        VMKI_FETCH_ADD(&s->gone, 1);
        return;
    }
    uintptr_t what = VMKI_LOAD_RELAXED(&key[0]);
    const uintptr_t *value = vmk_gc_ephemeron_value(s->gc, pair); /* there, since the key is held */
    for (size_t i = support_random_below(random, 10); i > 0; i--)
        (void)storm_object(s, i);
    bool good = value != NULL && storm_whole(value) && VMKI_LOAD_RELAXED(&value[0]) == what && storm_whole(key);
    VMKI_FETCH_ADD(good ? &s->got : &s->broken, 1);
    if (support_random_below(random, 4) == 0) {
        uintptr_t *other = storm_object(s, what);
        if (other != NULL)
            vmk_gc_ephemeron_set(s->gc, pair, other);
    }
    VMKI_FETCH_ADD(&s->broken, !storm_whole(key)); /* which has been held all the time */
}

static void storm_thread(void *argument, unsigned number)
{
    storm *s = argument;
    support_random random = support_random_start(200 + number);
    if (vmk_gc_thread_register() != VMK_OK) {
        VMKI_FETCH_ADD(&s->broken, 1);
        return;
    }
    for (size_t step = 0; step < s->steps; step++) {
        size_t place = support_random_below(&random, PLACES), choice = support_random_below(&random, 100);
        if (choice < 20)
            storm_make(s, &random, place);
        else if (choice < 50)
            VMKI_STORE_RELEASE(&s->keys[place], NULL);
        else if (choice < 95)
            storm_look(s, &random, place);
        else if (choice < 97)
            vmk_gc_collect(s->gc);
    }
    vmk_gc_thread_unregister();
}

START_TEST(a_storm_of_threads)
{
    static storm s;
    vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = VMK_GC_NO_STATIC, .heap = &below};
    memset(&s, 0, sizeof s);
    s.steps = support_rounds(8000);
    ck_assert_int_eq(vmk_gc_create(&s.gc, &options), VMK_OK);
    ck_assert_int_eq(vmk_gc_roots_add(s.gc, &s, sizeof s), VMK_OK);
    s.pairs = vmk_gc_alloc(s.gc, PLACES * sizeof *s.pairs);
    vmk_gc_blocking_enter();
    support_threads(4, storm_thread, &s);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(s.broken, 0);
    ck_assert_uint_gt(s.got, 0);
    ck_assert_uint_gt(s.gone, 0);
    ck_assert(vmki_gc_check(s.gc));
    vmk_gc_destroy(s.gc);
}
END_TEST

/* --- without memory ----------------------------------------------------------------------------------------------- */

#ifdef VMKIT_MODEL
START_TEST(a_refusal_changes_nothing)
{
    enum { COUNT = 3000 };
    for (uint64_t nth = 1; nth < 30; nth++) {
        vmk_gc *gc = exact_heap(0);
        void *roots[2] = {NULL};
        size_t refused = 0;
        ck_assert_int_eq(vmk_gc_slots_add(gc, roots, 2), VMK_OK);
        roots[0] = node_new(gc, 1);
        void **pairs = roots[1] = vmk_gc_alloc(gc, COUNT * sizeof *pairs);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (size_t i = 0; i < COUNT; i++) {
            pairs[i] = vmk_gc_ephemeron_new(gc, roots[0], roots[0]);
            refused += pairs[i] == NULL;
            MUST(stats_of(gc).ephemerons == i + 1 - refused);
            MUST(pairs[i] == NULL || vmk_gc_ephemeron_value(gc, pairs[i]) == roots[0]);
        }
        ck_assert_uint_le(refused, 1);
        model_fail_nth(0, VMK_OK, false);
        vmk_gc_collect(gc);
        ck_assert_uint_eq(stats_of(gc).live_objects, COUNT + 2 - refused);
        roots[0] = NULL;
        vmk_gc_collect(gc);
        ck_assert_uint_eq(stats_of(gc).ephemerons, 0);
        vmk_gc_destroy(gc);
        ck_assert_ptr_null(model_violation());
    }
}
END_TEST
#endif

enum { ROWS = sizeof rows / sizeof rows[0] };

int main(int argc, char **argv)
{
    Suite *s = suite_create("gc_ephemeron");
    TCase *t = tcase_create("gc_ephemeron");
    tcase_set_timeout(t, 0);
    tcase_add_loop_test(t, as_the_table_says, 0, ROWS);
    tcase_add_test(t, the_value_can_be_changed);
    tcase_add_test(t, pairs_are_objects_themselves);
    tcase_add_test(t, freed_by_hand);
    tcase_add_test(t, random_against_a_model);
    tcase_add_loop_test(t, long_chains_cost_what_is_in_them, 0, 2 * ORDERS);
    tcase_add_test(t, a_chain_of_pairs);
    tcase_add_test(t, many_with_one_key);
    tcase_add_test(t, a_storm_of_threads);
#ifdef VMKIT_MODEL
    tcase_add_test(t, a_refusal_changes_nothing);
#endif
    suite_add_tcase(s, t);
    return support_main(argc, argv, s, NULL);
}
