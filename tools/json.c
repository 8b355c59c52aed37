/* SPDX-License-Identifier: MIT
 *
 * The figures of a heap as one JSON object; one member a line, so that line tools can read it too. Addresses are
 * strings, sizes are bytes; null is what is unlimited or not told.
 */
#include <inttypes.h>

#include "tool.h"

static void print_size(const char *indent, const char *name, uint64_t size, bool known, bool last)
{
    if (known)
        printf("%s\"%s\": %" PRIu64 "%s\n", indent, name, size, last ? "" : ",");
    else
        printf("%s\"%s\": null%s\n", indent, name, last ? "" : ",");
}

static void print_limits(const vmk_limits *limits)
{
    printf("  \"limits\": {\n");
    print_size("    ", "address_space", limits->address_space, limits->address_space != VMK_UNLIMITED, false);
    print_size("    ", "data", limits->data, limits->data != VMK_UNLIMITED, false);
    print_size("    ", "memory", limits->memory, limits->memory != VMK_UNLIMITED, false);
    print_size("    ", "commit", limits->commit, limits->commit != VMK_UNLIMITED, true);
    printf("  },\n");
}

static void print_parts(const report *r)
{
    part_order order;
    parts_in_order(r, &order);
    printf("  \"parts\": [\n");
    for (unsigned i = 0; i < VMK_HEAP_PARTS; i++) {
        vmk_heap_part part = order.part[i];
        printf("    {\"name\": \"%s\", \"base\": \"%s\", \"reserved\": %zu, \"committed\": %zu}%s\n",
               vmk_heap_part_name(part), address_text(order.base[i]).s, r->stats.part[part].reserved,
               r->stats.part[part].committed, i + 1 < VMK_HEAP_PARTS ? "," : "");
    }
    printf("  ],\n");
}

static void print_work(const work_counts *work)
{
    printf("  \"work\": {\n");
#define PRINT_COUNT(name) print_size("    ", #name, work->name, true, false);
    WORK_COUNT_TABLE(PRINT_COUNT)
#undef PRINT_COUNT
    print_size("    ", "refused", work_refused(work), true, false);
    print_size("    ", "scavenged", work->scavenged, true, false);
    print_size("    ", "milliseconds", work->milliseconds, true, false);
    print_size("    ", "seed", work->seed, true, true);
    printf("  },\n");
}

void json_print(const report *r)
{
    const vmk_heap_stats *s = &r->stats;
    printf("{\n  \"layout\": \"%s\",\n  \"window\": \"%s\",\n", vmk_layout_name(s->layout), address_text(s->window).s);
    print_size("  ", "window_size", s->window_size, true, false);
    print_size("  ", "page_size", vmk_page_size(), true, false);
    print_limits(&r->limits);
    print_parts(r);
    if (r->work != NULL)
        print_work(r->work);
    print_size("  ", "reserved", s->reserved, true, false);
    print_size("  ", "committed", s->committed, true, false);
    print_size("  ", "in_use", s->in_use, true, false);
    print_size("  ", "idle", s->idle, true, false);
    print_size("  ", "released", s->released, true, false);
    print_size("  ", "in_use_peak", s->in_use_peak, true, false);
    print_size("  ", "spans", s->spans, true, false);
    print_size("  ", "regions", s->regions, true, false);
    print_size("  ", "grow_count", s->grow_count, true, false);
    print_size("  ", "released_total", s->released_total, true, false);
    print_size("  ", "address_space_before", r->before.address_space, r->usage_told, false);
    print_size("  ", "address_space_made", r->made.address_space, r->usage_told, false);
    print_size("  ", "address_space", r->now.address_space, r->usage_told, false);
    print_size("  ", "resident_before", r->before.resident, r->usage_told, false);
    print_size("  ", "resident_made", r->made.resident, r->usage_told, false);
    print_size("  ", "resident", r->now.resident, r->usage_told, true);
    printf("}\n");
}
