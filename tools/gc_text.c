/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

static short_text hex(uint64_t address)
{
    short_text text;
    snprintf(text.s, sizeof text.s, "0x%" PRIx64, address);
    return text;
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    if (whole < 100)
        return whole != 0 ? (unsigned)(part * 100 / whole) : 0;
    return whole < UINT64_MAX / 100 ? (unsigned)(part * 100 / whole) : (unsigned)(part / (whole / 100));
}

static void print_head(const heap_graph *g)
{
    const heap_dump *d = g->dump;
    uint64_t lost = d->bytes - g->reached_bytes;
    printf("heap         %10s   in %" PRIu32 " spans with objects; %" PRIu64 "-bit, after %" PRIu64 " cycles\n",
           size_text(d->heap).s, d->span_count, d->word * 8, d->cycles);
    printf("objects      %10s   %" PRIu32 ", %u%% of the heap; %" PRIu32 " references\n", size_text(d->bytes).s,
           d->object_count, percent(d->bytes, d->heap), d->reference_count);
    printf("reachable    %10s   %" PRIu32 " objects, from %" PRIu32 " words of roots\n", size_text(g->reached_bytes).s,
           g->reached, d->root_count);
    printf("unreachable  %10s   %" PRIu32 " objects\n", size_text(lost).s, d->object_count - g->reached);
}

/* Names may be longer than their column. */
static void print_sum(const char *name, const heap_sum *sum, bool retained)
{
    printf("%-28.40s %12" PRIu64 " %12s %12s", name, sum->objects, size_text(sum->bytes).s, size_text(sum->reached).s);
    if (retained)
        printf(" %12s", size_text(sum->retained).s);
    printf("\n");
}

static void print_kinds(const heap_sums *s)
{
    static const char *const names[DUMP_KINDS] = {"leaf", "conservative", "typed"};
    printf("\n%-28s %12s %12s %12s\n", "by kind", "objects", "bytes", "reachable");
    for (unsigned kind = 0; kind < DUMP_KINDS; kind++)
        if (s->kind[kind].objects != 0)
            print_sum(names[kind], &s->kind[kind], false);
}

static void print_types(const heap_dump *d, const heap_sums *s)
{
    uint32_t shown = 0, left = 0;
    printf("\n%-28s %12s %12s %12s %12s\n", "by type", "objects", "bytes", "reachable", "retained");
    for (uint32_t i = 0; i < s->groups; i++) {
        uint32_t group = s->group_order[i];
        if (s->group[group].objects == 0)
            continue;
        if (shown < s->top) {
            print_sum(group_label(d, group), &s->group[group], true);
            shown++;
        } else {
            left++;
        }
    }
    if (left != 0)
        printf("and %" PRIu32 " more\n", left);
}

/* The sizes with the most bytes, in the order of sizes. */
static void print_sizes(const heap_sums *s)
{
    static bool shown[SUM_SIZES];
    printf("\n%-28s %12s %12s %12s\n", "by size", "objects", "bytes", "reachable");
    for (unsigned n = 0; n < s->top; n++) {
        unsigned best = 0;
        for (unsigned i = 1; i < SUM_SIZES; i++)
            if (!shown[i] && s->size[i].bytes > s->size[best].bytes) /* of 0 there are none */
                best = i;
        shown[best] = true;
    }
    for (unsigned i = 1; i < SUM_SIZES; i++) {
        char name[32];
        if (!shown[i] || s->size[i].objects == 0)
            continue;
        if (i == SUM_SIZES - 1)
            snprintf(name, sizeof name, "larger");
        else
            snprintf(name, sizeof name, "%u", i * SUM_UNIT);
        print_sum(name, &s->size[i], false);
    }
}

static void print_roots(const heap_sums *s)
{
    printf("\n%-28s %12s %12s %12s %12s\n", "by root", "words", "objects", "bytes", "only there");
    for (unsigned kind = 0; kind < VMK_GC_ROOT_COUNT; kind++) {
        const root_sum *r = &s->root[kind];
        if (r->words != 0)
            printf("%-28s %12" PRIu64 " %12" PRIu64 " %12s %12s\n", root_text(kind), r->words, r->objects,
                   size_text(r->bytes).s, size_text(r->only).s);
    }
}

static void print_sites(const heap_sums *s)
{
    if (s->site_count == 0)
        return;
    printf("\n%-28s %12s %12s %12s\n", "by site", "objects", "bytes", "reachable");
    for (uint32_t i = 0; i < s->site_count && i < s->top; i++)
        print_sum(s->sites[i].site != 0 ? hex(s->sites[i].site).s : "others", &s->sites[i].sum, false);
    if (s->site_count > s->top)
        printf("and %" PRIu32 " more\n", s->site_count - s->top);
}

static void print_object(const heap_dump *d, uint32_t object)
{
    char label[DUMP_LABEL];
    const dump_object *o = &d->objects[object];
    printf("%-18s %10s  %s", hex(o->address).s, size_text(o->size).s, dump_label(d, o, label));
    if (o->site != 0)
        printf(", from %s", hex(o->site).s);
}

static void print_tops(const heap_graph *g, const heap_sums *s)
{
    if (s->top_retained_count != 0)
        printf("\nthose that retain most\n");
    for (uint32_t i = 0; i < s->top_retained_count; i++) {
        print_object(g->dump, s->top_retained[i]);
        printf("; retains %s\n", size_text(g->retained[NODE_OBJECT + s->top_retained[i]]).s);
    }
    if (s->top_lost_count != 0)
        printf("\nthe largest that can't be reached\n");
    for (uint32_t i = 0; i < s->top_lost_count; i++) {
        print_object(g->dump, s->top_lost[i]);
        printf("\n");
    }
}

void gc_text_print(const heap_graph *g, const heap_sums *s)
{
    print_head(g);
    if (g->dump->object_count == 0)
        return;
    print_kinds(s);
    print_types(g->dump, s);
    print_sizes(s);
    print_roots(s);
    print_sites(s);
    print_tops(g, s);
}

/* --- why ---------------------------------------------------------------------------------------------------------- */

static void print_step(const heap_graph *g, uint32_t before, uint32_t node)
{
    uint64_t thread = 0, at = gc_path_at(g, before, node, &thread);
    if (before < NODE_OBJECT) {
        printf("%s", root_text(before - NODE_KIND));
        if (at != DUMP_NOWHERE)
            printf(" at %s", hex(at).s);
        if (thread != 0)
            printf(", thread %s", hex(thread).s);
        printf("\n");
    }
    printf("  -> ");
    print_object(g->dump, node - NODE_OBJECT);
    if (before >= NODE_OBJECT && at != DUMP_NOWHERE)
        printf("; by its owner's byte %s", hex(at).s);
    printf("\n");
}

/* A long way is shown by its ends. */
void gc_why_print(const heap_graph *g, uint32_t object, uint64_t address)
{
    enum { ENDS = 20 };
    uint32_t steps;
    if (object == DUMP_NONE || !graph_reached(g, object)) {
        printf("%s %s\n", hex(address).s, object == DUMP_NONE ? "is in no object" : "can't be reached");
        return;
    }
    const uint32_t *path = gc_path(g, object, &steps);
    if (path == NULL)
        return;
    for (uint32_t i = 1; i < steps; i++) {
        if (steps > 2 * ENDS + 2 && i == ENDS + 1) {
            printf("  ... %" PRIu32 " more ...\n", steps - 1 - 2 * ENDS);
            i = steps - ENDS;
        }
        print_step(g, path[i - 1], path[i]);
    }
    if (address != g->dump->objects[object].address)
        printf("     %s is byte %" PRIu64 " of it\n", hex(address).s, address - g->dump->objects[object].address);
}
