/* SPDX-License-Identifier: MIT
 *
 * Graphs of nodes of four words, of the same shape and placed differently:
 *
 *     order   a tree, allocated breadth-first: each level lies behind the one before
 *     depth   a tree, allocated depth-first: each subtree lies together
 *     tree    a tree, its nodes placed at random
 *     graph   placed at random, each node refers to two others; those of a random tree, so that all can be reached, and
 *             in what is left of the words any others
 */
#ifndef VMKIT_BENCH_GC_GRAPH_H
#define VMKIT_BENCH_GC_GRAPH_H

#include "work.h"

typedef struct graph_node {
    struct graph_node *child[2];
    uintptr_t payload[2];
} graph_node;

typedef struct graph_builder {
    size_t count;
    uint32_t *place;    /* of the i-th node, in order of allocation */
    graph_node **nodes; /* in order of allocation */
} graph_builder;

/* Children of i are 2i + 1 and 2i + 2. Answers the next number. */
static uint32_t graph_number(graph_builder *builder, size_t i, uint32_t next)
{
    if (i >= builder->count)
        return next;
    builder->place[i] = next;
    next = graph_number(builder, 2 * i + 1, next + 1);
    return graph_number(builder, 2 * i + 2, next);
}

static void graph_shuffle(graph_builder *builder, uint64_t *random)
{
    for (size_t i = builder->count - 1; i > 0; i--) {
        size_t j = work_below(random, i + 1);
        uint32_t other = builder->place[j];
        builder->place[j] = builder->place[i];
        builder->place[i] = other;
    }
}

static graph_node *graph_at(const graph_builder *builder, size_t i)
{
    return i < builder->count ? builder->nodes[builder->place[i]] : NULL;
}

static void graph_link_tree(const graph_builder *builder)
{
    for (size_t i = 0; i < builder->count; i++) {
        graph_at(builder, i)->child[0] = graph_at(builder, 2 * i + 1);
        graph_at(builder, i)->child[1] = graph_at(builder, 2 * i + 2);
    }
}

static void graph_link_any(const graph_builder *builder, uint64_t *random)
{
    for (size_t i = 1; i < builder->count; i++) {
        graph_node *parent;
        do
            parent = graph_at(builder, work_below(random, i));
        while (parent->child[1] != NULL);
        parent->child[parent->child[0] != NULL] = graph_at(builder, i);
    }
    for (size_t i = 0; i < builder->count; i++)
        for (size_t k = 0; k < 2; k++)
            if (graph_at(builder, i)->child[k] == NULL)
                graph_at(builder, i)->child[k] = graph_at(builder, work_below(random, builder->count));
}

/* The root. Nothing is collected meanwhile, since the builder's arrays are where no collector looks. */
static graph_node *graph_build(size_t count, const char *kind)
{
    uint64_t random = work_seed(0);
    graph_builder builder = {count, (uint32_t *)work_map(count * sizeof(uint32_t)),
                             (graph_node **)work_map(count * sizeof(graph_node *))};
    work_collecting(false);
    for (size_t i = 0; i < count; i++) {
        builder.nodes[i] = (graph_node *)work_alloc(sizeof(graph_node));
        builder.nodes[i]->payload[0] = i;
        builder.place[i] = (uint32_t)i;
    }
    if (strcmp(kind, "depth") == 0)
        graph_number(&builder, 0, 0);
    else if (strcmp(kind, "order") != 0)
        graph_shuffle(&builder, &random);
    if (strcmp(kind, "graph") == 0)
        graph_link_any(&builder, &random);
    else
        graph_link_tree(&builder);
    graph_node *root = graph_at(&builder, 0);
    work_unmap(builder.nodes, count * sizeof(graph_node *));
    work_unmap(builder.place, count * sizeof(uint32_t));
    work_collecting(true);
    return root;
}

#endif
