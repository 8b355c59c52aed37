/* SPDX-License-Identifier: MIT
 *
 * The figures of a dump as one JSON object; one member a line. Addresses are strings, sizes are bytes.
 */
#include <inttypes.h>

#include "tool.h"

static void put_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) { /* printable, as it was read */
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void put_number(const char *name, uint64_t number)
{
    printf("  \"%s\": %" PRIu64 ",\n", name, number);
}

/* Between the members of a list: the first has none before it. */
static const char *separator(bool *first)
{
    const char *text = *first ? "\n    " : ",\n    ";
    *first = false;
    return text;
}

static void put_sum(const heap_sum *sum, bool retained)
{
    printf("\"objects\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"reachable\": %" PRIu64, sum->objects, sum->bytes,
           sum->reached);
    if (retained)
        printf(", \"retained\": %" PRIu64, sum->retained);
    printf("}");
}

static void put_kinds(const heap_sums *s)
{
    static const char *const names[DUMP_KINDS] = {"leaf", "conservative", "typed"};
    bool first = true;
    printf("  \"kinds\": [");
    for (unsigned kind = 0; kind < DUMP_KINDS; kind++) {
        printf("%s{\"name\": \"%s\", ", separator(&first), names[kind]);
        put_sum(&s->kind[kind], false);
    }
    printf("\n  ],\n");
}

static void put_types(const heap_dump *d, const heap_sums *s)
{
    bool first = true;
    printf("  \"types\": [");
    for (uint32_t i = 0; i < s->groups; i++) {
        const heap_sum *sum = &s->group[s->group_order[i]];
        if (sum->objects == 0)
            continue;
        printf("%s{\"name\": ", separator(&first));
        put_string(group_label(d, s->group_order[i]));
        printf(", ");
        put_sum(sum, true);
    }
    printf("\n  ],\n");
}

static void put_sizes(const heap_sums *s)
{
    bool first = true;
    printf("  \"sizes\": [");
    for (unsigned i = 1; i < SUM_SIZES; i++) {
        if (s->size[i].objects == 0)
            continue;
        if (i == SUM_SIZES - 1)
            printf("%s{\"size\": null, ", separator(&first)); /* larger than any class */
        else
            printf("%s{\"size\": %u, ", separator(&first), i * SUM_UNIT);
        put_sum(&s->size[i], false);
    }
    printf("\n  ],\n");
}

static void put_roots(const heap_sums *s)
{
    bool first = true;
    printf("  \"roots\": [");
    for (unsigned kind = 0; kind < VMK_GC_ROOT_COUNT; kind++) {
        const root_sum *r = &s->root[kind];
        if (r->words != 0)
            printf("%s{\"name\": \"%s\", \"words\": %" PRIu64 ", \"objects\": %" PRIu64 ", \"bytes\": %" PRIu64
                   ", \"only_there\": %" PRIu64 "}",
                   separator(&first), root_text(kind), r->words, r->objects, r->bytes, r->only);
    }
    printf("\n  ],\n");
}

static void put_sites(const heap_sums *s)
{
    bool first = true;
    printf("  \"sites\": [");
    for (uint32_t i = 0; i < s->site_count; i++) {
        printf("%s{\"site\": \"0x%" PRIx64 "\", ", separator(&first), s->sites[i].site);
        put_sum(&s->sites[i].sum, false);
    }
    printf("\n  ],\n");
}

static void put_object(const heap_dump *d, uint32_t object)
{
    char label[DUMP_LABEL];
    const dump_object *o = &d->objects[object];
    printf("{\"address\": \"0x%" PRIx64 "\", \"size\": %" PRIu64 ", \"site\": \"0x%" PRIx64 "\", \"type\": ",
           o->address, o->size, o->site);
    put_string(dump_label(d, o, label));
}

static void put_tops(const heap_graph *g, const heap_sums *s)
{
    bool first = true;
    printf("  \"retain_most\": [");
    for (uint32_t i = 0; i < s->top_retained_count; i++) {
        printf("%s", separator(&first));
        put_object(g->dump, s->top_retained[i]);
        printf(", \"retained\": %" PRIu64 "}", g->retained[NODE_OBJECT + s->top_retained[i]]);
    }
    printf("\n  ],\n  \"largest_unreachable\": [");
    first = true;
    for (uint32_t i = 0; i < s->top_lost_count; i++) {
        printf("%s", separator(&first));
        put_object(g->dump, s->top_lost[i]);
        printf("}");
    }
    printf("\n  ],\n");
}

static void put_place(uint64_t at)
{
    if (at != DUMP_NOWHERE)
        printf("\"0x%" PRIx64 "\"", at);
    else
        printf("null");
}

/* Null: it can't be reached, or is in no object. */
static void put_why(const heap_graph *g, uint32_t object)
{
    uint32_t steps = 0;
    bool first = true, reached = object != DUMP_NONE && graph_reached(g, object);
    const uint32_t *path = reached ? gc_path(g, object, &steps) : NULL;
    printf("  \"why\": ");
    if (path == NULL) {
        printf("null,\n");
        return;
    }
    printf("[");
    for (uint32_t i = 1; i < steps; i++) {
        uint64_t thread = 0, at = gc_path_at(g, path[i - 1], path[i], &thread);
        printf("%s{\"root\": ", separator(&first));
        if (i == 1)
            printf("\"%s\"", root_text(path[0] - NODE_KIND));
        else
            printf("null");
        printf(", \"thread\": \"0x%" PRIx64 "\", \"at\": ", thread);
        put_place(at);
        printf(", \"object\": ");
        put_object(g->dump, path[i] - NODE_OBJECT);
        printf("}}");
    }
    printf("\n  ],\n");
}

void gc_json_print(const heap_graph *g, const heap_sums *s, uint32_t why, bool asked)
{
    const heap_dump *d = g->dump;
    printf("{\n");
    put_number("word_bits", d->word * 8);
    put_number("cycles", d->cycles);
    put_number("heap", d->heap);
    put_number("spans", d->span_count);
    put_number("objects", d->object_count);
    put_number("bytes", d->bytes);
    put_number("references", d->reference_count);
    put_number("root_words", d->root_count);
    put_number("ephemerons", d->pair_count);
    put_kinds(s);
    put_types(d, s);
    put_sizes(s);
    put_roots(s);
    put_sites(s);
    put_tops(g, s);
    if (asked)
        put_why(g, why);
    put_number("reachable_objects", g->reached);
    put_number("reachable_bytes", g->reached_bytes);
    put_number("unreachable_objects", d->object_count - g->reached);
    printf("  \"unreachable_bytes\": %" PRIu64 "\n}\n", d->bytes - g->reached_bytes);
}
