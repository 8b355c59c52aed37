/* SPDX-License-Identifier: MIT
 *
 * The figures of a heap as text, at most 100 columns and 30 lines.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

/* --- parts -------------------------------------------------------------------------------------------------------- */

void parts_in_order(const report *r, part_order *order)
{
    static heap_map map; /* knows the lowest address */
    heap_map_draw(r->heap, 1, 2, &map);
    unsigned count = 0;
    for (int part = 0; part < VMK_HEAP_PARTS; part++) {
        bool none = r->stats.part[part].reserved == 0;
        uintptr_t base = r->stats.part[part].base;
        if (base == 0 && part == VMK_HEAP_ARENA)
            base = map.lowest;
        unsigned at = count++;
        for (; at > 0 && (none ? UINTPTR_MAX : base) < order->key[at - 1]; at--) {
            order->part[at] = order->part[at - 1];
            order->base[at] = order->base[at - 1];
            order->key[at] = order->key[at - 1];
        }
        order->part[at] = (vmk_heap_part)part;
        order->base[at] = base;
        order->key[at] = none ? UINTPTR_MAX : base;
    }
}

unsigned bar_length(uint64_t bytes)
{
    unsigned length = bytes != 0;
    for (uint64_t left = bytes / 8192; left > 0 && length < BAR_MAX; left /= 2)
        length++;
    return length;
}

static void print_parts(const report *r)
{
    part_order order;
    parts_in_order(r, &order);
    printf("\n%-12s %-14s %10s %10s   4K      1M        1G        1T\n", "part", "base", "reserved", "committed");
    for (unsigned i = 0; i < VMK_HEAP_PARTS; i++) {
        char bar[BAR_MAX + 1];
        size_t reserved = r->stats.part[order.part[i]].reserved;
        size_t committed = r->stats.part[order.part[i]].committed;
        unsigned length = bar_length(reserved);
        memset(bar, '-', length);
        memset(bar, '#', bar_length(committed) < length ? bar_length(committed) : length);
        bar[length] = '\0';
        printf("%-12s %-14s %10s %10s%s%s\n", vmk_heap_part_name(order.part[i]), address_text(order.base[i]).s,
               size_text(reserved).s, size_text(committed).s, length > 0 ? "   " : "", bar);
    }
    printf("%-49s   # committed, - reserved; each column doubles\n", "");
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

static void print_limits(const report *r)
{
    const struct {
        const char *name;
        uint64_t limit;
    } all[] = {{"address space", r->limits.address_space},
               {"data", r->limits.data},
               {"memory", r->limits.memory},
               {"commit", r->limits.commit}};
    const char *between = "";
    printf("limits       ");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].limit == VMK_UNLIMITED)
            continue;
        printf("%s%s %s", between, all[i].name, size_text(all[i].limit).s);
        between = ", ";
    }
    if (*between == '\0')
        printf("none");
    if (r->limit != 0 && r->limits.LIMIT_FIELD > r->limit + vmk_page_size())
        printf("; --limit %s was accepted, and is ignored by this system", size_text(r->limit).s);
    printf("\n");
}

static void print_head(const report *r)
{
    const vmk_heap_stats *s = &r->stats;
    printf("layout       %s, %s\n", vmk_layout_name(s->layout),
           r->asked_for == VMK_LAYOUT_AUTO ? "chosen by the library" : "as asked for");
    printf("window       %s at %s; %zu region%s\n", size_text(s->window_size).s, address_text(s->window).s, s->regions,
           s->regions == 1 ? "" : "s");
    print_limits(r);
}

/* A bar of what the heap has grown to, linear. */
static void print_grown_bar(const vmk_heap_stats *s)
{
    enum { WIDTH = 52 };
    char bar[WIDTH + 1];
    uint64_t grown = (uint64_t)s->in_use + s->idle + s->released;
    for (unsigned i = 0; i < WIDTH; i++) {
        uint64_t middle = grown / WIDTH * i + grown / WIDTH / 2;
        bar[i] = middle < s->in_use ? '#' : middle < (uint64_t)s->in_use + s->idle ? '.' : '-';
    }
    bar[WIDTH] = '\0';
    printf("%-12s %10s", "grown to", size_text(grown).s);
    if (grown != 0)
        printf("   |%s|", bar);
    printf("\n");
}

static void print_totals(const report *r)
{
    const vmk_heap_stats *s = &r->stats;
    printf("\n%-12s %10s\n", "reserved", size_text(s->reserved).s);
    printf("%-12s %10s\n", "committed", size_text(s->committed).s);
    if (r->usage_told)
        printf("%-12s %10s   the process: %s, %s by making the heap, %s since\n", "resident",
               size_text(r->now.resident).s, size_text(r->before.resident).s,
               change_text(r->before.resident, r->made.resident).s, change_text(r->made.resident, r->now.resident).s);
    else
        printf("%-12s %10s   the system does not tell\n", "resident", "?");
    print_grown_bar(s);
    printf("%-12s %10s   in %zu span%s; %s at the peak\n", "# in use", size_text(s->in_use).s, s->spans,
           s->spans == 1 ? "" : "s", size_text(s->in_use_peak).s);
    printf("%-12s %10s   grew %" PRIu64 " time%s\n", ". idle", size_text(s->idle).s, s->grow_count,
           s->grow_count == 1 ? "" : "s");
    printf("%-12s %10s   %s returned to the system since the start\n", "- released", size_text(s->released).s,
           size_text(s->released_total).s);
}

static void print_work(const work_counts *work)
{
    printf("\nwork         %" PRIu64 " operations in %" PRIu64 " ms, seed %" PRIu64 "; %s scavenged in the end\n",
           work->operations, work->milliseconds, work->seed, size_text(work->scavenged).s);
    printf("             %" PRIu64 " allocated, %" PRIu64 " freed, %" PRIu64 " split, %" PRIu64 " grown, %" PRIu64
           " blocked, %" PRIu64 " shrunk\n",
           work->allocs, work->frees, work->splits, work->grown, work->blocked, work->shrunk);
    printf("             %" PRIu64 " bytes checked, none wrong; %" PRIu64 " refused", work->bytes_checked,
           work_refused(work));
    for (int status = 0; status < VMK_STATUS_COUNT; status++) {
        if (work->refused[status] != 0)
            printf(", %s %" PRIu64, vmk_status_name((vmk_status)status), work->refused[status]);
    }
    printf("\n");
}

void picture_print(const report *r)
{
    print_head(r);
    print_parts(r);
    print_totals(r);
    if (r->work != NULL)
        print_work(r->work);
}
