/* SPDX-License-Identifier: MIT
 *
 * What the suites of finalizers and of weak references have in common: a heap in which only what the test names is a
 * root, so that what lives is known exactly; and graphs of small objects in it that have a letter or a number each.
 */
#ifndef VMKIT_TESTS_GC_GRAPH_H
#define VMKIT_TESTS_GC_GRAPH_H

#include <string.h>

#include "common/gc/gc.h"
#include "support.h"

#include "object_kinds.h"

enum { NODES = 26, EDGES = 8 };

typedef struct node {
    struct node *to[EDGES];
    size_t number;
    size_t check; /* tells whether it is whole */
} node;

static inline size_t check_of(size_t number)
{
    return ~(number * 40503u);
}

static inline bool whole(const node *n)
{
    return n->check == check_of(n->number);
}

typedef struct graph {
    vmk_gc *gc;
    size_t count;
    void *roots[NODES];     /* the only ones */
    uintptr_t links[NODES]; /* long ones: so that it is known what is there */
    bool edges[NODES][NODES];
} graph;

static inline vmk_gc *exact_heap(unsigned flags)
{
    vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {
        .flags = flags | VMK_GC_NO_STACKS | VMK_GC_NO_STATIC | VMK_GC_VERIFY, .markers = 1, .heap = &below};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    return gc;
}

static inline node *node_new(vmk_gc *gc, size_t number)
{
    node *n = vmk_gc_alloc(gc, sizeof *n);
    MUST(n != NULL);
    n->number = number;
    n->check = check_of(number);
    return n;
}

/* `count` objects, all of them roots. */
static inline void graph_start(graph *g, vmk_gc *gc, size_t count)
{
    memset(g, 0, sizeof *g);
    g->gc = gc;
    g->count = count;
    ck_assert_int_eq(vmk_gc_slots_add(gc, g->roots, NODES), VMK_OK);
    for (size_t i = 0; i < count; i++) {
        g->roots[i] = node_new(gc, i);
        MUST(vmk_gc_link_add(gc, &g->links[i], g->roots[i], VMK_GC_LONG) == VMK_OK);
    }
}

static inline void graph_end(graph *g)
{
    for (size_t i = 0; i < g->count; i++)
        (void)vmk_gc_link_remove(g->gc, &g->links[i]);
    vmk_gc_roots_remove(g->gc, g->roots);
    vmk_gc_collect(g->gc);
}

static inline node *graph_node(const graph *g, size_t i)
{
    return vmk_gc_link_get(g->gc, &g->links[i]);
}

static inline void graph_edge(graph *g, size_t from, size_t to)
{
    node *n = graph_node(g, from);
    size_t at = 0;
    while (n->to[at] != NULL && n->to[at] != graph_node(g, to))
        at++;
    MUST(at < EDGES);
    n->to[at] = graph_node(g, to);
    g->edges[from][to] = true;
}

/* What can be reached from the objects in `from`, by one edge at least. */
static inline void graph_beyond(const graph *g, const bool from[NODES], bool beyond[NODES])
{
    memset(beyond, 0, NODES * sizeof *beyond);
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < g->count; i++) {
            if (!from[i] && !beyond[i])
                continue;
            for (size_t k = 0; k < g->count; k++) {
                if (g->edges[i][k] && !beyond[k])
                    beyond[k] = more = true;
            }
        }
    }
}

#endif
