/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "tool.h"

enum { GROUP_LEAF, GROUP_CONSERVATIVE, GROUP_TYPE };

/* Sites are kept in a table of this size, by hash; what it has no room for is summed up together. */
enum { SITE_SLOTS = 1 << 14, SITES_MOST = SITE_SLOTS / 4 * 3 };

static uint32_t group_of(const dump_object *o)
{
    if (o->type != 0)
        return GROUP_TYPE + o->type - 1u;
    return o->kind == DUMP_LEAF ? GROUP_LEAF : GROUP_CONSERVATIVE;
}

const char *group_label(const heap_dump *dump, uint32_t group)
{
    static char text[DUMP_LABEL];
    const dump_object one = {.kind = group == GROUP_LEAF ? DUMP_LEAF : DUMP_CONSERVATIVE,
                             .type = (uint16_t)(group < GROUP_TYPE ? 0 : group - GROUP_TYPE + 1)};
    return dump_label(dump, &one, text);
}

const char *root_text(unsigned kind)
{
    static const char *const texts[] = {
#define TEXT(name, text) [VMK_GC_ROOT_##name] = text,
        VMK_GC_ROOT_TABLE(TEXT)
#undef TEXT
    };
    return texts[kind];
}

static void add(heap_sum *sum, const dump_object *o, bool reached, uint64_t retained)
{
    sum->objects++;
    sum->bytes += o->size;
    sum->reached += reached ? o->size : 0;
    sum->retained += retained;
}

/* --- the largest of many ------------------------------------------------------------------------------------------ */

typedef uint64_t weight(const heap_graph *graph, uint32_t object);

static uint64_t weight_retained(const heap_graph *graph, uint32_t object)
{
    return graph->retained[NODE_OBJECT + object];
}

static uint64_t weight_size(const heap_graph *graph, uint32_t object)
{
    return graph->dump->objects[object].size;
}

/* Into a list that is sorted, and has so many at most; among equals the lower address comes first. */
static void offer(const heap_graph *g, weight *of, uint32_t *list, uint32_t *count, uint32_t most, uint32_t object)
{
    uint64_t mine = of(g, object);
    if (most == 0 || (*count == most && of(g, list[most - 1]) >= mine))
        return;
    uint32_t at = *count < most ? (*count)++ : most - 1;
    for (; at != 0 && of(g, list[at - 1]) < mine; at--)
        list[at] = list[at - 1];
    list[at] = object;
}

/* --- sites -------------------------------------------------------------------------------------------------------- */

static site_sum *site_find(heap_sums *s, uint64_t site)
{
    uint32_t at = (uint32_t)((site * UINT64_C(0x9e3779b97f4a7c15)) >> 40) % SITE_SLOTS;
    while (s->sites[at].site != 0 && s->sites[at].site != site)
        at = (at + 1) % SITE_SLOTS;
    if (s->sites[at].site == 0) {
        if (s->site_count == SITES_MOST)
            return &s->sites[SITE_SLOTS];
        s->site_count++;
        s->sites[at].site = site;
    }
    return &s->sites[at];
}

static int by_bytes(const void *a, const void *b)
{
    const site_sum *one = a, *other = b;
    if (one->sum.bytes != other->sum.bytes)
        return one->sum.bytes > other->sum.bytes ? -1 : 1;
    return one->site < other->site ? -1 : one->site > other->site;
}

static void sites_pack(heap_sums *s)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i <= SITE_SLOTS; i++)
        if (s->sites[i].sum.objects != 0)
            s->sites[kept++] = s->sites[i];
    s->site_count = kept;
    qsort(s->sites, kept, sizeof *s->sites, by_bytes);
}

/* --- what types retain -------------------------------------------------------------------------------------------- */

/* What the objects of a group retain together: those that are not dominated by another one of the group. Down and up
 * the tree of dominators, with how many of each group are above. */
static bool sum_groups(heap_sums *s, const heap_graph *g)
{
    uint32_t *above = dump_memory(s->groups, sizeof *above), node = NODE_ROOTS;
    if (above == NULL)
        return false;
    for (bool down = true;;) {
        uint32_t group = node >= NODE_OBJECT ? group_of(&g->dump->objects[node - NODE_OBJECT]) : DUMP_NONE;
        if (down) {
            if (group != DUMP_NONE && above[group]++ == 0)
                s->group[group].retained += g->retained[node];
            if (g->child[node] != 0) {
                node = g->child[node];
                continue;
            }
        }
        if (group != DUMP_NONE)
            above[group]--;
        if (node == NODE_ROOTS)
            return true;
        down = g->beside[node] != 0;
        node = down ? g->beside[node] : g->idom[node];
    }
}

static const heap_sums *sorted;

static int by_retained(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
    const heap_sum *x = &sorted->group[one], *y = &sorted->group[other];
    if (x->retained != y->retained)
        return x->retained > y->retained ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return one < other ? -1 : one > other;
}

static bool order_groups(heap_sums *s)
{
    uint32_t count = s->groups;
    s->group_order = dump_memory(count, sizeof *s->group_order);
    if (s->group_order == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++)
        s->group_order[i] = i;
    sorted = s;
    qsort(s->group_order, count, sizeof *s->group_order, by_retained);
    return true;
}

/* --- roots -------------------------------------------------------------------------------------------------------- */

static bool sum_roots(heap_sums *s, const heap_graph *g)
{
    const heap_dump *d = g->dump;
    uint32_t *seen = dump_memory(d->object_count, sizeof *seen); /* by which kinds, as bits */
    if (seen == NULL)
        return false;
    for (uint32_t i = 0; i < d->root_count; i++) {
        const dump_root *root = &d->roots[i];
        root_sum *sum = &s->root[root->kind];
        sum->words++;
        if ((seen[root->object] >> root->kind & 1) == 0) {
            seen[root->object] |= 1u << root->kind;
            sum->objects++;
            sum->bytes += d->objects[root->object].size;
        }
    }
    for (unsigned kind = 0; kind < VMK_GC_ROOT_COUNT; kind++)
        s->root[kind].only = g->retained[NODE_KIND + kind];
    return true;
}

/* Is it more than half of what its dominator retains? So are all objects of a list: the first says enough. */
static bool says_little(const heap_graph *g, uint32_t object)
{
    uint32_t above = g->idom[NODE_OBJECT + object];
    return above >= NODE_OBJECT && g->retained[NODE_OBJECT + object] > g->retained[above] / 2;
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

static void sum_object(heap_sums *s, const heap_graph *g, uint32_t i)
{
    const dump_object *o = &g->dump->objects[i];
    bool reached = graph_reached(g, i);
    uint64_t units = (o->size + SUM_UNIT - 1) / SUM_UNIT;
    add(&s->kind[o->kind], o, reached, 0);
    add(&s->group[group_of(o)], o, reached, 0);
    add(&s->size[units < SUM_SIZES - 1 ? units : SUM_SIZES - 1], o, reached, 0);
    if (o->site != 0)
        add(&site_find(s, o->site)->sum, o, reached, 0);
    if (reached && !says_little(g, i))
        offer(g, weight_retained, s->top_retained, &s->top_retained_count, s->top, i);
    else if (!reached)
        offer(g, weight_size, s->top_lost, &s->top_lost_count, s->top, i);
}

bool sums_make(heap_sums *sums, const heap_graph *graph, unsigned top)
{
    sums->top = top < SUM_TOP_MAX ? top : SUM_TOP_MAX;
    sums->groups = GROUP_TYPE + graph->dump->type_count;
    sums->group = dump_memory(sums->groups, sizeof *sums->group);
    sums->sites = dump_memory(SITE_SLOTS + 1, sizeof *sums->sites);
    if (sums->group == NULL || sums->sites == NULL)
        return false;
    for (uint32_t i = 0; i < graph->dump->object_count; i++)
        sum_object(sums, graph, i);
    sites_pack(sums);
    return sum_groups(sums, graph) && order_groups(sums) && sum_roots(sums, graph);
}
