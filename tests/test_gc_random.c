/* SPDX-License-Identifier: MIT
 *
 * Graphs of objects of every kind, built at random, mutated and collected, against an oracle: a table in memory that no
 * collector looks at, which knows the same edges and finds out by itself what can be reached. Where all roots are exact
 * the two must agree on every object; where stacks are roots the collector may keep more.
 */
#include <stdlib.h>
#include <string.h>

#include "object_kinds.h"
#include "support.h"

#include "common/gc/gc.h"

enum { OBJECTS = 1500, ROOTS = 24, STEPS = 500, NOBODY = -1 };

/* What the words of an object mean. In all of them one word is the object's number. */
typedef enum shape { LEAF, CONSERVATIVE, SHORT_MAP, LONG_MAP, TRACED, SHAPES } shape;

enum {
    SHORT_WORDS = 4, /* of an element: 0 and 2 are pointers, 1 the number, 3 looks like one */
    LONG_WORDS = 70, /* every third one is a pointer, but for the last, which is the number */
    LONG_SLOTS = 23,
    TRACED_HEAD = 2 /* how many pointers follow, and the number */
};

typedef struct thing {
    bool used;
    bool reached;
    shape kind;
    size_t slots;
    int *to; /* by slot: a thing, or NOBODY */
    uintptr_t link;
    uintptr_t address; /* as it was when it was made */
} thing;

typedef struct world {
    vmk_gc *gc;
    support_random random;
    vmk_gc_type *short_map, *long_map, *traced, *leaf;
    uintptr_t *roots; /* memory that is a root */
    int root_of[ROOTS];
    thing things[OBJECTS];
    bool exact;
} world;

static void show(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    uintptr_t *words = object;
    (void)context;
    (void)size;
    if (words[0] % 2 == 0)
        vmk_gc_visit_range(visitor, words + TRACED_HEAD, words[0] * sizeof(void *));
    else
        for (size_t i = 0; i < words[0]; i++)
            vmk_gc_visit(visitor, (void *)words[TRACED_HEAD + i]);
}

static size_t number_word(shape kind)
{
    switch (kind) {
    case SHORT_MAP:
    case TRACED:
        return 1;
    case LONG_MAP:
        return LONG_WORDS - 1;
    default:
        return 0;
    }
}

static size_t slot_word(shape kind, size_t slot)
{
    switch (kind) {
    case SHORT_MAP:
        return slot / 2 * SHORT_WORDS + slot % 2 * 2;
    case LONG_MAP:
        return slot / LONG_SLOTS * LONG_WORDS + slot % LONG_SLOTS * 3;
    case TRACED:
        return TRACED_HEAD + slot;
    default:
        return 1 + slot;
    }
}

static uintptr_t *words_of(const world *w, int id)
{
    return vmk_gc_link_get(w->gc, &w->things[id].link);
}

/* Mostly small ones; some of many pages, whose scanning is cut in pieces. */
static size_t some_slots(world *w)
{
    size_t kind = support_random_below(&w->random, 200);
    if (kind == 0)
        return 17000 + support_random_below(&w->random, 40000);
    if (kind < 8)
        return 100 + support_random_below(&w->random, 3000);
    return 1 + support_random_below(&w->random, kind < 60 ? 30 : 5);
}

static void *allocate(world *w, thing *t)
{
    switch (t->kind) {
    case LEAF:
        return support_random_below(&w->random, 2) != 0 ? vmk_gc_alloc_leaf(w->gc, 8 * sizeof(void *))
                                                        : vmk_gc_alloc_typed(w->gc, w->leaf, 8);
    case CONSERVATIVE:
        return vmk_gc_alloc(w->gc, (1 + t->slots) * sizeof(void *));
    case SHORT_MAP:
        return vmk_gc_alloc_typed(w->gc, w->short_map, (t->slots + 1) / 2);
    case LONG_MAP:
        return vmk_gc_alloc_typed(w->gc, w->long_map, (t->slots + LONG_SLOTS - 1) / LONG_SLOTS);
    default:
        return vmk_gc_alloc_typed(w->gc, w->traced, TRACED_HEAD + t->slots);
    }
}

/* Words that are no pointers, though they look like some. */
static void mislead(world *w, thing *t, uintptr_t *words)
{
    int other = (int)support_random_below(&w->random, OBJECTS);
    if (!w->things[other].used)
        return;
    if (t->kind == LEAF)
        words[1 + support_random_below(&w->random, 7)] = w->things[other].address;
    if (t->kind == SHORT_MAP)
        words[support_random_below(&w->random, (t->slots + 1) / 2) * SHORT_WORDS + 3] = w->things[other].address;
    if (t->kind == LONG_MAP)
        words[support_random_below(&w->random, 20) * 3 + 1] = w->things[other].address;
}

static void root_set(world *w, size_t root, int id)
{
    w->root_of[root] = id;
    w->roots[root] = id == NOBODY ? 0 : (uintptr_t)words_of(w, id);
}

/* A pointer to an object or, now and then, to its inside. */
static uintptr_t some_pointer(world *w, int id)
{
    uintptr_t *words = words_of(w, id);
    size_t size = vmk_gc_usable_size(w->gc, words);
    return (uintptr_t)words + (support_random_below(&w->random, 4) == 0 ? support_random_below(&w->random, size) : 0);
}

static void edge_set(world *w, int from, size_t slot, int to)
{
    thing *t = &w->things[from];
    t->to[slot] = to;
    words_of(w, from)[slot_word(t->kind, slot)] = to == NOBODY ? 0 : some_pointer(w, to);
}

/* --- the oracle --------------------------------------------------------------------------------------------------- */

static size_t oracle_mark(world *w)
{
    static int todo[OBJECTS];
    size_t count = 0, reached = 0;
    for (size_t i = 0; i < OBJECTS; i++)
        w->things[i].reached = false;
    for (size_t i = 0; i < ROOTS; i++) {
        int id = w->root_of[i];
        if (id != NOBODY && !w->things[id].reached) {
            w->things[id].reached = true;
            todo[count++] = id;
        }
    }
    while (count > 0) {
        thing *t = &w->things[todo[--count]];
        reached++;
        for (size_t i = 0; i < t->slots; i++) {
            int id = t->to[i];
            if (id != NOBODY && !w->things[id].reached) {
                w->things[id].reached = true;
                todo[count++] = id;
            }
        }
    }
    return reached;
}

static void forget(world *w, int id)
{
    thing *t = &w->things[id];
    (void)vmk_gc_link_remove(w->gc, &t->link);
    free(t->to);
    memset(t, 0, sizeof *t);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static int some_reached(world *w)
{
    for (size_t tries = 0; tries < 50; tries++) {
        int id = (int)support_random_below(&w->random, OBJECTS);
        if (w->things[id].used && w->things[id].reached && words_of(w, id) != NULL)
            return id; /* a cycle for lack of memory may have come before the oracle knew */
    }
    return NOBODY;
}

/* A new object hangs on a root, or where it can be had, on an object too. `reached` is what the last collection has
 * left, and what was made since. */
static void step_new(world *w)
{
    int id = 0;
    while (id < OBJECTS && w->things[id].used)
        id++;
    if (id == OBJECTS)
        return;
    thing *t = &w->things[id];
    t->kind = (shape)support_random_below(&w->random, SHAPES);
    t->slots = t->kind == LEAF ? 0 : some_slots(w);
    t->to = malloc((t->slots + 1) * sizeof *t->to);
    MUST(t->to != NULL);
    for (size_t i = 0; i < t->slots; i++)
        t->to[i] = NOBODY;
    uintptr_t *words = allocate(w, t);
    if (words == NULL) { /* the model has little memory */
        free(t->to);
        t->to = NULL;
        return;
    }
    for (size_t i = 0; i < t->slots; i += 1 + t->slots / 50)
        MUST(words[slot_word(t->kind, i)] == 0);
    words[number_word(t->kind)] = (uintptr_t)id;
    if (t->kind == TRACED)
        words[0] = t->slots;
    MUST(vmk_gc_link_add(w->gc, &t->link, words, VMK_GC_LONG) == VMK_OK);
    t->used = t->reached = true;
    t->address = (uintptr_t)words;
    mislead(w, t, words);
    int parent = some_reached(w);
    if (parent != NOBODY && w->things[parent].slots > 0 && support_random_below(&w->random, 8) != 0)
        edge_set(w, parent, support_random_below(&w->random, w->things[parent].slots), id);
    else
        root_set(w, support_random_below(&w->random, ROOTS), id);
}

static void step_edge(world *w, bool cut)
{
    int from = some_reached(w), to = cut ? NOBODY : some_reached(w);
    if (from != NOBODY && w->things[from].slots > 0)
        edge_set(w, from, support_random_below(&w->random, w->things[from].slots), to);
}

/* By hand, if nobody refers to it. */
static void step_free(world *w)
{
    int id = some_reached(w);
    if (id == NOBODY)
        return;
    for (size_t i = 0; i < ROOTS; i++)
        if (w->root_of[i] == id)
            return;
    for (size_t i = 0; i < OBJECTS; i++)
        for (size_t k = 0; w->things[i].used && k < w->things[i].slots; k++)
            if (w->things[i].to[k] == id)
                return;
    vmk_gc_free(w->gc, words_of(w, id));
    MUST(w->things[id].link == 0);
    forget(w, id);
}

typedef struct walk {
    size_t seen;
} walk;

static bool walk_object(void *context, const vmk_gc_object *object)
{
    walk *k = context;
    k->seen++;
    return object->base != NULL;
}

static void collect_and_compare(world *w)
{
    size_t reached = oracle_mark(w);
    vmk_gc_collect(w->gc);
    for (int id = 0; id < OBJECTS; id++) {
        thing *t = &w->things[id];
        if (!t->used)
            continue;
        uintptr_t *words = words_of(w, id);
        MUST(words != NULL || !t->reached);
        if (w->exact)
            MUST((words != NULL) == t->reached);
        if (words != NULL) {
            MUST((uintptr_t)words == t->address);
            MUST(words[number_word(t->kind)] == (uintptr_t)id);
        }
        if (!t->reached)
            forget(w, id);
    }
    walk k = {0};
    vmk_gc_stats stats;
    vmk_gc_walk(w->gc, walk_object, &k);
    vmk_gc_stats_now(w->gc, &stats);
    MUST(stats.live_objects == k.seen);
    MUST(w->exact ? k.seen == reached : k.seen >= reached);
}

static void step(world *w)
{
    size_t what = support_random_below(&w->random, 100);
    if (what < 50)
        step_new(w);
    else if (what < 75)
        step_edge(w, false);
    else if (what < 85)
        step_edge(w, true);
    else if (what < 92)
        root_set(w, support_random_below(&w->random, ROOTS), NOBODY);
    else if (what < 96)
        root_set(w, support_random_below(&w->random, ROOTS), some_reached(w));
    else
        step_free(w);
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static void types_make(world *w)
{
    size_t short_map[1] = {5};
    size_t long_map[(LONG_WORDS + VMKI_WORD_BITS - 1) / VMKI_WORD_BITS] = {0};
    for (size_t i = 0; i < LONG_SLOTS; i++)
        long_map[i * 3 / VMKI_WORD_BITS] |= (size_t)1 << (i * 3 % VMKI_WORD_BITS);
    vmk_gc_layout layout = {.name = "short", .size = SHORT_WORDS * sizeof(void *), .pointers = short_map};
    MUST(vmk_gc_type_create(w->gc, &layout, &w->short_map) == VMK_OK);
    layout = (vmk_gc_layout){.name = "long", .size = LONG_WORDS * sizeof(void *), .pointers = long_map};
    MUST(vmk_gc_type_create(w->gc, &layout, &w->long_map) == VMK_OK);
    layout = (vmk_gc_layout){.name = "traced", .size = sizeof(void *), .trace = show};
    MUST(vmk_gc_type_create(w->gc, &layout, &w->traced) == VMK_OK);
    layout = (vmk_gc_layout){.name = "leaf", .size = sizeof(void *)};
    MUST(vmk_gc_type_create(w->gc, &layout, &w->leaf) == VMK_OK);
}

/* In the model a heap of VMK_LAYOUT_32 would begin with as much as there is: see heap_create.h. */
static vmk_status gc_create(vmk_gc **gc, const vmk_gc_options *options)
{
#ifdef VMKIT_MODEL
    vmki_heap_plan plan;
    model_rules narrow = {.address_space = 0};
    if (options->heap->layout == VMK_LAYOUT_32 &&
        vmki_heap_plan_make(&plan, VMK_LAYOUT_32, (uint64_t)1 << (32 - VMK_HEAP_PAGE_SHIFT), SIZE_MAX))
        narrow.address_space = model_reserved() + plan.total + 240 * MIB; /* half of it for the collector's tables */
    model_reset(&narrow);
    vmk_status status = vmk_gc_create(gc, options);
    model_reset(NULL);
    return status;
#else
    return vmk_gc_create(gc, options);
#endif
}

static void run(vmk_layout layout, unsigned markers, bool exact, uint64_t salt)
{
    vmk_heap_options below = {.layout = layout, .window = WINDOW};
    vmk_gc_options options = {.flags = VMK_GC_VERIFY | (exact ? VMK_GC_NO_STACKS | VMK_GC_NO_STATIC : 0u),
                              .markers = markers,
                              .heap = &below,
                              .pace = {.hard_limit = WINDOW / 2}};
    world *w = calloc(1, sizeof *w);
    MUST(w != NULL);
    w->random = support_random_start(salt);
    w->exact = exact;
    w->roots = calloc(ROOTS, sizeof *w->roots);
    MUST(gc_create(&w->gc, &options) == VMK_OK);
    types_make(w);
    for (size_t i = 0; i < ROOTS; i++)
        w->root_of[i] = NOBODY;
    MUST(exact ? vmk_gc_slots_add(w->gc, (void *const *)(void *)w->roots, ROOTS) == VMK_OK
               : vmk_gc_roots_add(w->gc, w->roots, ROOTS * sizeof *w->roots) == VMK_OK);
    vmk_gc_disable(w->gc); /* cycles come where the oracle looks; what fails for lack of memory collects all the same */
    size_t rounds = support_rounds(12);
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < STEPS; i++)
            step(w);
        collect_and_compare(w);
    }
    for (size_t i = 0; i < ROOTS; i++)
        root_set(w, i, NOBODY);
    collect_and_compare(w);
    vmk_gc_roots_remove(w->gc, w->roots);
    for (int id = 0; id < OBJECTS; id++)
        if (w->things[id].used)
            forget(w, id);
    MUST(vmki_gc_check(w->gc));
    vmk_gc_destroy(w->gc);
    free(w->roots);
    free(w);
}

START_TEST(exact_roots_agree_with_the_oracle)
{
    for (unsigned i = 0; i < LAYOUTS; i++)
        for (unsigned markers = 1; markers <= 4; markers *= 2)
            run(layouts[i], markers, true, 100 + i * 10 + markers);
}
END_TEST

START_TEST(conservative_roots_keep_what_the_oracle_has)
{
    for (unsigned i = 0; i < LAYOUTS; i++)
        for (unsigned markers = 1; markers <= 4; markers *= 2)
            run(layouts[i], markers, false, 200 + i * 10 + markers);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("gc_random");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, exact_roots_agree_with_the_oracle);
    tcase_add_test(tcase, conservative_roots_keep_what_the_oracle_has);
    suite_add_tcase(suite, tcase);
    return support_main(argc, argv, suite, NULL);
}
