/* SPDX-License-Identifier: MIT
 *
 * What can be reached in a dump, on what shortest ways, and what keeps what alive: dominators.
 *
 * T. Lengauer, R. E. Tarjan, "A fast algorithm for finding dominators in a flowgraph", 1979: the simple version, whose
 * time is in proportion to the references times a logarithm whatever the graph. Nothing recurses: a list may be as long
 * as memory allows.
 *
 * An ephemeron's value is reached from it once its key is reached too; to dominators that is a reference of the
 * ephemeron's.
 */
#include "tool.h"

/* --- who refers to whom ------------------------------------------------------------------------------------------- */

/* The references of a node one after the other. */
typedef struct walk {
    uint32_t node;
    uint32_t next; /* of its references */
} walk;

static uint32_t pair_value(const heap_graph *g, uint32_t object)
{
    if (g->pair_of == NULL || g->pair_of[object] == 0)
        return DUMP_NONE;
    const dump_pair *p = &g->dump->pairs[g->pair_of[object] - 1];
    return g->from[NODE_OBJECT + p->key] != DUMP_NONE ? NODE_OBJECT + p->value : DUMP_NONE;
}

/* The next node that it refers to, or DUMP_NONE. */
static uint32_t walk_next(const heap_graph *g, walk *w)
{
    if (w->node == NODE_ROOTS)
        return w->next < VMK_GC_ROOT_COUNT ? NODE_KIND + w->next++ : DUMP_NONE;
    if (w->node < NODE_OBJECT) {
        uint32_t kind = w->node - NODE_KIND, at = g->root_first[kind] + w->next;
        if (at == g->root_first[kind + 1])
            return DUMP_NONE;
        w->next++;
        return NODE_OBJECT + g->dump->roots[g->root_order[at]].object;
    }
    const dump_object *o = &g->dump->objects[w->node - NODE_OBJECT];
    uint32_t count = o[1].first - o->first;
    if (w->next < count)
        return NODE_OBJECT + g->dump->references[o->first + w->next++].to;
    return w->next++ == count ? pair_value(g, w->node - NODE_OBJECT) : DUMP_NONE;
}

static bool order_roots(heap_graph *g)
{
    const heap_dump *d = g->dump;
    uint32_t at[VMK_GC_ROOT_COUNT];
    g->root_order = dump_memory(d->root_count, sizeof *g->root_order);
    if (g->root_order == NULL)
        return false;
    for (uint32_t i = 0; i < d->root_count; i++)
        g->root_first[d->roots[i].kind + 1]++;
    for (unsigned kind = 0; kind < VMK_GC_ROOT_COUNT; kind++) {
        at[kind] = g->root_first[kind];
        g->root_first[kind + 1] += g->root_first[kind];
    }
    for (uint32_t i = 0; i < d->root_count; i++)
        g->root_order[at[d->roots[i].kind]++] = i;
    return true;
}

/* An ephemeron has one pair: of several, in a dump that was made up, the last counts. */
static bool order_pairs(heap_graph *g)
{
    const heap_dump *d = g->dump;
    if (d->pair_count == 0)
        return true;
    g->pair_of = dump_memory(d->object_count, sizeof *g->pair_of);
    g->pair_by_key = dump_memory(d->object_count, sizeof *g->pair_by_key);
    if (g->pair_of == NULL || g->pair_by_key == NULL)
        return false;
    for (uint32_t i = 0; i < d->pair_count; i++) {
        dump_pair *p = &d->pairs[i];
        g->pair_of[p->ephemeron] = i + 1;
        p->next = g->pair_by_key[p->key];
        g->pair_by_key[p->key] = i + 1;
    }
    return true;
}

/* --- what can be reached, breadth first --------------------------------------------------------------------------- */

static void reach(heap_graph *g, uint32_t node, uint32_t from, uint32_t *queue, uint32_t *count)
{
    if (node == DUMP_NONE || g->from[node] != DUMP_NONE)
        return;
    g->from[node] = from;
    queue[(*count)++] = node;
}

/* The node has been reached: so are values of which it is the key. */
static void reach_values(heap_graph *g, uint32_t node, uint32_t *queue, uint32_t *count)
{
    if (g->pair_by_key == NULL || node < NODE_OBJECT)
        return;
    for (uint32_t i = g->pair_by_key[node - NODE_OBJECT]; i != 0; i = g->dump->pairs[i - 1].next) {
        const dump_pair *p = &g->dump->pairs[i - 1];
        if (g->from[NODE_OBJECT + p->ephemeron] != DUMP_NONE && g->pair_of[p->ephemeron] == i)
            reach(g, NODE_OBJECT + p->value, NODE_OBJECT + p->ephemeron, queue, count);
    }
}

static bool reach_all(heap_graph *g)
{
    const heap_dump *d = g->dump;
    uint32_t *queue = dump_memory(g->nodes, sizeof *queue), count = 0;
    g->from = dump_memory(g->nodes, sizeof *g->from);
    if (queue == NULL || g->from == NULL)
        return false;
    for (uint32_t i = 0; i < g->nodes; i++)
        g->from[i] = DUMP_NONE;
    reach(g, NODE_ROOTS, NODE_ROOTS, queue, &count);
    for (uint32_t done = 0; done < count; done++) {
        walk w = {queue[done], 0};
        for (uint32_t to; (to = walk_next(g, &w)) != DUMP_NONE;)
            reach(g, to, w.node, queue, &count);
        reach_values(g, w.node, queue, &count);
        if (w.node >= NODE_OBJECT) {
            g->reached++;
            g->reached_bytes += d->objects[w.node - NODE_OBJECT].size;
        }
    }
    return true;
}

/* --- dominators --------------------------------------------------------------------------------------------------- */

/* Everything here goes by the numbers in which a search depth first meets nodes, from 1. */
typedef struct domination {
    heap_graph *g;
    uint32_t count;
    uint32_t *node;     /* by number */
    uint32_t *number;   /* by node; 0: not met */
    uint32_t *parent;   /* in the tree of the search, as all that follows */
    uint32_t *semi;     /* the lowest number from which a way leads here through higher ones alone */
    uint32_t *label;    /* of what was linked on the way up: who has the least semi */
    uint32_t *ancestor; /* in the forest of what was linked */
    uint32_t *idom;
    uint32_t *first;  /* of those whose semi it is, and of those that refer to it */
    uint32_t *beside; /* in that list */
    uint32_t *stack;
    uint32_t *referrers;
    uint32_t *referrers_first;
} domination;

static bool domination_memory(domination *d)
{
    uint32_t **all[] = {&d->node, &d->number, &d->parent, &d->semi,  &d->label,          &d->ancestor,
                        &d->idom, &d->first,  &d->beside, &d->stack, &d->referrers_first};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i] = dump_memory((uint64_t)d->g->nodes + 2, sizeof **all[i]);
        if (*all[i] == NULL)
            return false;
    }
    return true;
}

static void meet(domination *d, uint32_t node, uint32_t parent)
{
    uint32_t number = ++d->count;
    d->node[number] = node;
    d->number[node] = number;
    d->parent[number] = parent;
    d->semi[number] = number;
    d->label[number] = number;
}

/* Depth first. Where a node's references go on is kept in `stack`, by number. Counts who is referred to. */
static uint64_t search(domination *d)
{
    uint64_t edges = 0;
    meet(d, NODE_ROOTS, 0);
    for (uint32_t at = 1; at != 0;) {
        walk w = {d->node[at], d->stack[at]};
        uint32_t to = walk_next(d->g, &w);
        d->stack[at] = w.next;
        if (to == DUMP_NONE) {
            at = d->parent[at];
            continue;
        }
        edges++;
        if (d->number[to] == 0) {
            meet(d, to, at);
            at = d->count;
            d->referrers_first[at]++;
        } else {
            d->referrers_first[d->number[to]]++;
        }
    }
    return edges;
}

/* Who refers to each, as lists in one array. */
static bool list_referrers(domination *d, uint64_t edges)
{
    uint32_t sum = 0;
    if (edges >= DUMP_MOST) {
        complain("there are more references in it than this program can keep");
        return false;
    }
    d->referrers = dump_memory(edges, sizeof *d->referrers);
    if (d->referrers == NULL)
        return false;
    for (uint32_t i = 1; i <= d->count + 1; i++) { /* where each list ends; filled from there, it is where it begins */
        sum += d->referrers_first[i];
        d->referrers_first[i] = sum;
    }
    for (uint32_t i = 1; i <= d->count; i++) {
        walk w = {d->node[i], 0};
        for (uint32_t to; (to = walk_next(d->g, &w)) != DUMP_NONE;)
            d->referrers[--d->referrers_first[d->number[to]]] = i;
    }
    return true;
}

/* Make the way up shorter, from its upper end, and see to it that labels hold for all that is left out. */
static void compress(domination *d, uint32_t v)
{
    uint32_t depth = 0;
    for (uint32_t at = v; d->ancestor[d->ancestor[at]] != 0; at = d->ancestor[at])
        d->stack[depth++] = at;
    while (depth != 0) {
        uint32_t at = d->stack[--depth], above = d->ancestor[at];
        if (d->semi[d->label[above]] < d->semi[d->label[at]])
            d->label[at] = d->label[above];
        d->ancestor[at] = d->ancestor[above];
    }
}

static uint32_t least_above(domination *d, uint32_t v)
{
    if (d->ancestor[v] == 0)
        return v;
    compress(d, v);
    return d->label[v];
}

static void dominate(domination *d)
{
    for (uint32_t w = d->count; w >= 2; w--) {
        uint32_t parent = d->parent[w];
        for (uint32_t i = d->referrers_first[w]; i < d->referrers_first[w + 1]; i++) {
            uint32_t u = least_above(d, d->referrers[i]);
            if (d->semi[u] < d->semi[w])
                d->semi[w] = d->semi[u];
        }
        d->beside[w] = d->first[d->semi[w]];
        d->first[d->semi[w]] = w;
        d->ancestor[w] = parent;
        for (uint32_t v = d->first[parent]; v != 0; v = d->beside[v]) {
            uint32_t u = least_above(d, v);
            d->idom[v] = d->semi[u] < d->semi[v] ? u : parent;
        }
        d->first[parent] = 0;
    }
    for (uint32_t w = 2; w <= d->count; w++)
        if (d->idom[w] != d->semi[w])
            d->idom[w] = d->idom[d->idom[w]];
}

/* From numbers to nodes: idom, what is retained, and the tree. */
static bool take_over(domination *d)
{
    heap_graph *g = d->g;
    g->idom = dump_memory(g->nodes, sizeof *g->idom);
    g->child = dump_memory(g->nodes, sizeof *g->child);
    g->beside = dump_memory(g->nodes, sizeof *g->beside);
    g->retained = dump_memory(g->nodes, sizeof *g->retained);
    if (g->idom == NULL || g->child == NULL || g->beside == NULL || g->retained == NULL)
        return false;
    for (uint32_t i = d->count; i >= 2; i--) { /* what is dominated has a higher number */
        uint32_t node = d->node[i], above = d->node[d->idom[i]];
        if (node >= NODE_OBJECT)
            g->retained[node] += g->dump->objects[node - NODE_OBJECT].size;
        g->retained[above] += g->retained[node];
        g->idom[node] = above;
        g->beside[node] = g->child[above];
        g->child[above] = node;
    }
    return true;
}

bool graph_make(heap_graph *graph, const heap_dump *dump)
{
    domination d = {.g = graph};
    *graph = (heap_graph){.dump = dump, .nodes = NODE_OBJECT + dump->object_count};
    if (!order_roots(graph) || !order_pairs(graph) || !reach_all(graph) || !domination_memory(&d))
        return false;
    uint64_t edges = search(&d);
    if (!list_referrers(&d, edges))
        return false;
    dominate(&d);
    return take_over(&d);
}

/* --- a way -------------------------------------------------------------------------------------------------------- */

const uint32_t *gc_path(const heap_graph *g, uint32_t object, uint32_t *steps)
{
    uint32_t count = 0;
    for (uint32_t node = NODE_OBJECT + object; node != NODE_ROOTS; node = g->from[node])
        count++;
    uint32_t *path = dump_memory(count, sizeof *path);
    *steps = count;
    for (uint32_t node = NODE_OBJECT + object; path != NULL && node != NODE_ROOTS; node = g->from[node])
        path[--count] = node;
    return path;
}

uint64_t gc_path_at(const heap_graph *g, uint32_t node, uint32_t next, uint64_t *thread)
{
    walk w = {node, 0};
    for (uint32_t to; (to = walk_next(g, &w)) != DUMP_NONE;) {
        if (to != next)
            continue;
        if (node < NODE_OBJECT) {
            const dump_root *root = &g->dump->roots[g->root_order[g->root_first[node - NODE_KIND] + w.next - 1]];
            *thread = root->thread;
            return root->at;
        }
        const dump_object *o = &g->dump->objects[node - NODE_OBJECT];
        return w.next <= o[1].first - o->first ? g->dump->references[o->first + w.next - 1].at : DUMP_NOWHERE;
    }
    return DUMP_NOWHERE;
}
