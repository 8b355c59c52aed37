/* SPDX-License-Identifier: MIT
 *
 * The heap is walked once for each size of cell that is tried, from a page on, until one makes a drawing of few enough
 * lines. Nothing is kept of the ranges but the cells, so a heap of any size can be drawn in static memory.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

/* A drawing under way. */
typedef struct drawing {
    heap_map *map;
    unsigned lines;             /* that it may have */
    uintptr_t at;               /* up to here it is drawn or skipped */
    bool started;               /* there was a range */
    bool row_open;              /* the last row takes more cells */
    bool full;                  /* more lines than are wanted */
    uint64_t filled;            /* bytes in the cell under way, */
    uint64_t in_cell[MAP_USES]; /* and by use */
    uint64_t reserved;          /* seen since `at`, and not yet known whether to be drawn */
    uint64_t foreign;
} drawing;

static void close_cell(drawing *d)
{
    if (d->filled == 0)
        return;
    unsigned most = 0; /* of equals the first, which is the one in use */
    for (unsigned use = 1; use < MAP_USES; use++)
        most = d->in_cell[use] > d->in_cell[most] ? use : most;
    map_row *row = &d->map->row[d->map->rows - 1];
    row->use[row->cells++] = (unsigned char)most;
    d->map->has[most] = true;
    d->row_open = row->cells < d->map->columns;
    d->filled = 0;
    memset(d->in_cell, 0, sizeof d->in_cell);
}

/* One more line, if there may be one. */
static bool take_line(drawing *d)
{
    if (d->map->lines == d->lines)
        d->full = true;
    else
        d->map->lines++;
    return !d->full;
}

static void paint(drawing *d, uint64_t size, unsigned use)
{
    while (size > 0) {
        if (!d->row_open) {
            if (!take_line(d))
                return;
            d->map->row[d->map->rows++] = (map_row){.base = d->at};
            d->row_open = true;
        }
        uint64_t room = d->map->cell - d->filled;
        uint64_t part = size < room ? size : room;
        d->in_cell[use] += part;
        d->filled += part;
        d->at += (uintptr_t)part;
        size -= part;
        if (d->filled == d->map->cell)
            close_cell(d);
    }
}

/* What was seen without knowing: it is left out. */
static void skip(drawing *d)
{
    close_cell(d);
    d->row_open = false;
    if (d->map->rows == 0) {
        d->map->reserved_before = d->reserved;
    } else if (d->reserved + d->foreign > 0 && take_line(d)) {
        d->map->row[d->map->rows - 1].reserved_after = d->reserved;
        d->map->row[d->map->rows - 1].foreign_after = d->foreign;
    }
    d->at += (uintptr_t)(d->reserved + d->foreign);
    d->reserved = d->foreign = 0;
}

static bool draw_range(void *context, const vmk_range *range)
{
    drawing *d = context;
    uintptr_t base = (uintptr_t)range->base;
    if (!d->started) {
        d->started = true;
        d->at = base;
        d->map->lowest = base;
    }
    d->foreign += base - (d->at + (uintptr_t)(d->reserved + d->foreign));
    if (range->use == VMK_RANGE_RESERVED) {
        d->reserved += range->size;
        return true;
    }
    if (d->map->rows == 0 || d->reserved + d->foreign >= d->map->cell * d->map->columns) {
        skip(d);
    } else { /* in which order they came makes no difference in so few cells, nearly always */
        paint(d, d->reserved, VMK_RANGE_RESERVED);
        paint(d, d->foreign, MAP_FOREIGN);
        d->reserved = d->foreign = 0;
    }
    if (!d->full)
        paint(d, range->size, range->use);
    return !d->full;
}

void heap_map_draw(vmk_heap *heap, unsigned columns, unsigned lines, heap_map *map)
{
    for (uint64_t cell = VMK_HEAP_PAGE_SIZE;; cell *= 2) {
        drawing d = {.map = map, .lines = lines};
        memset(map, 0, sizeof *map);
        map->columns = columns;
        map->cell = cell;
        vmk_heap_walk(heap, draw_range, &d);
        if (!d.full)
            skip(&d);
        if (!d.full)
            return;
    }
}

/* --- as text ------------------------------------------------------------------------------------------------------ */

static const struct {
    char letter;
    const char *text;
} uses[MAP_USES] = {
    [VMK_RANGE_IN_USE] = {'#', "in use"},     [VMK_RANGE_IDLE] = {'.', "idle"},
    [VMK_RANGE_RELEASED] = {'-', "released"}, [VMK_RANGE_RESERVED] = {' ', "reserved"},
    [MAP_FOREIGN] = {':', "not the arena's"},
};

const char *map_use_text(unsigned use)
{
    return uses[use].text;
}

void heap_map_print(vmk_heap *heap)
{
    enum { COLUMNS = 64, LINES = 20 };
    static heap_map map;
    heap_map_draw(heap, COLUMNS, LINES, &map);
    printf("\nmap        one character is %s:", size_text(map.cell).s);
    for (unsigned use = 0; use < MAP_USES; use++) {
        if (use != MAP_FOREIGN || map.has[use])
            printf("%s '%c' %s", use == 0 ? "" : ",", uses[use].letter, uses[use].text);
    }
    printf("\n");
    if (map.reserved_before != 0 || map.rows == 0)
        printf("%16s %s reserved, never grown into\n", "", size_text(map.reserved_before).s);
    for (unsigned i = 0; i < map.rows; i++) {
        const map_row *row = &map.row[i];
        char line[COLUMNS + 1];
        for (unsigned cell = 0; cell < row->cells; cell++)
            line[cell] = uses[row->use[cell]].letter;
        line[row->cells] = '\0';
        printf("  %14s |%-*s|\n", address_text(row->base).s, COLUMNS, line);
        if (row->reserved_after + row->foreign_after == 0)
            continue;
        printf("%16s", "...");
        if (row->reserved_after != 0)
            printf(" %s reserved, never grown into", size_text(row->reserved_after).s);
        if (row->foreign_after != 0)
            printf("%s %s not the arena's", row->reserved_after != 0 ? "," : "", size_text(row->foreign_after).s);
        printf("\n");
    }
}
