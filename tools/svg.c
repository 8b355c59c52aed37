/* SPDX-License-Identifier: MIT
 *
 * The picture of a heap as SVG, on a background of its own, so it can be read wherever it is shown. Its size has a
 * bound whatever the heap's size: the map has 96 x 40 cells at most, and those of a kind are one path. The colours are
 * told apart by their lightness too; they are M. Okabe's and K. Ito's, "Color universal design", 2008.
 */
#include <inttypes.h>
#include <stdarg.h>

#include "tool.h"

enum {
    WIDTH = 960,
    TOP = 100, /* below the title */
    MARGIN = 24,
    LINE = 22,
    BAR_X = 132,
    BAR_UNIT = 16, /* the width of a doubling */
    BAR_HEIGHT = 14,
    FIGURES_X = BAR_X + BAR_MAX * BAR_UNIT + 16,
    MAP_X = 156,
    CELL = 8, /* pitch; a cell is one less */
    GAP = 16  /* the line where something is left out */
};

#define DARK "#1a1a1a"
#define GREY "#c8c8c8"

static const char *const colours[MAP_USES] = {
    [VMK_RANGE_IN_USE] = "#0072b2",   [VMK_RANGE_IDLE] = "#e69f00", [VMK_RANGE_RELEASED] = "#9fd4f2",
    [VMK_RANGE_RESERVED] = "#ececec", [MAP_FOREIGN] = "#8c8c8c",
};

void svg_rectangle(FILE *f, unsigned x, unsigned y, unsigned width, unsigned height, const char *colour)
{
    fprintf(f, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"/>\n", x, y, width, height, colour);
}

void svg_text(FILE *f, unsigned x, unsigned y, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(f, "<text x=\"%u\" y=\"%u\">", x, y);
    vfprintf(f, format, arguments);
    fputs("</text>\n", f);
    va_end(arguments);
}

/* --- the parts of the drawing; each answers where the next begins ------------------------------------------------- */

static unsigned put_title(const report *r, FILE *f)
{
    const vmk_heap_stats *s = &r->stats;
    fputs("<g font-size=\"20\" font-weight=\"bold\">\n", f);
    svg_text(f, MARGIN, 38, "vmkit heap, %s layout", vmk_layout_name(s->layout));
    fputs("</g>\n", f);
    svg_text(f, MARGIN, 64, "window of %s at %s, %zu region%s: %s reserved, %s committed", size_text(s->window_size).s,
             address_text(s->window).s, s->regions, s->regions == 1 ? "" : "s", size_text(s->reserved).s,
             size_text(s->committed).s);
    if (r->usage_told)
        svg_text(f, MARGIN, 84, "resident %s; %s before the heap was made, %s by making it",
                 size_text(r->now.resident).s, size_text(r->before.resident).s,
                 change_text(r->before.resident, r->made.resident).s);
    return TOP;
}

static unsigned put_scale(FILE *f, unsigned y, unsigned lines)
{
    static const struct {
        const char *name;
        unsigned doublings;
    } marks[] = {{"4 KiB", 0}, {"1 MiB", 8}, {"1 GiB", 18}, {"1 TiB", 28}};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        unsigned x = BAR_X + (marks[i].doublings + 1) * BAR_UNIT;
        fprintf(f, "<path d=\"M%u %uv%u\" stroke=\"" GREY "\"/>\n", x, y + 6, lines * LINE);
        svg_text(f, x - 16, y, "%s", marks[i].name);
    }
    return y + 6;
}

static unsigned put_parts(const report *r, FILE *f, unsigned y)
{
    part_order order;
    parts_in_order(r, &order);
    y = put_scale(f, y + LINE, VMK_HEAP_PARTS);
    for (unsigned i = 0; i < VMK_HEAP_PARTS; i++, y += LINE) {
        size_t reserved = r->stats.part[order.part[i]].reserved;
        size_t committed = r->stats.part[order.part[i]].committed;
        svg_text(f, MARGIN, y + 15, "%s", vmk_heap_part_name(order.part[i]));
        if (reserved != 0)
            svg_rectangle(f, BAR_X, y + 4, bar_length(reserved) * BAR_UNIT, BAR_HEIGHT, GREY);
        if (committed != 0)
            svg_rectangle(f, BAR_X, y + 4, bar_length(committed) * BAR_UNIT, BAR_HEIGHT, "#444444");
        svg_text(f, FIGURES_X, y + 15, "%s reserved, %s committed", size_text(reserved).s, size_text(committed).s);
    }
    svg_rectangle(f, BAR_X, y + 6, CELL, CELL, "#444444");
    svg_text(f, BAR_X + 14, y + 15, "committed");
    svg_rectangle(f, BAR_X + 100, y + 6, CELL, CELL, GREY);
    svg_text(f, BAR_X + 114, y + 15, "reserved (each step doubles)");
    return y + LINE + 10;
}

/* What the heap has grown to, in one bar, which is the map's legend too. */
static unsigned put_grown(const report *r, const heap_map *map, FILE *f, unsigned y)
{
    enum { BAR_WIDTH = WIDTH - 2 * MARGIN };
    const vmk_heap_stats *s = &r->stats;
    const uint64_t sizes[] = {
        [VMK_RANGE_IN_USE] = s->in_use, [VMK_RANGE_IDLE] = s->idle, [VMK_RANGE_RELEASED] = s->released};
    uint64_t grown = sizes[VMK_RANGE_IN_USE] + sizes[VMK_RANGE_IDLE] + sizes[VMK_RANGE_RELEASED];
    unsigned x = MARGIN;
    svg_text(f, MARGIN, y + 12, "Grown to %s, %s in use at the peak; %zu span%s in use", size_text(grown).s,
             size_text(s->in_use_peak).s, s->spans, s->spans == 1 ? "" : "s");
    y += 20;
    for (unsigned use = 0; use < VMK_RANGE_RESERVED && grown != 0; use++) {
        unsigned width = (unsigned)(sizes[use] / (grown / BAR_WIDTH + 1));
        svg_rectangle(f, x, y, width, BAR_HEIGHT, colours[use]);
        x += width;
    }
    y += BAR_HEIGHT + 8;
    x = MARGIN;
    for (unsigned use = 0; use < MAP_USES; use++) {
        if (use == MAP_FOREIGN && !map->has[use])
            continue;
        svg_rectangle(f, x, y + 2, 12, 12, colours[use]);
        if (use < VMK_RANGE_RESERVED)
            svg_text(f, x + 18, y + 12, "%s %s", map_use_text(use), size_text(sizes[use]).s);
        else
            svg_text(f, x + 18, y + 12, "%s", map_use_text(use));
        x += 170;
    }
    return y + LINE + 10;
}

/* All cells of one use: runs of equal ones in a row, as a path of rectangles. */
static void put_cells(const heap_map *map, const unsigned *row_y, FILE *f, unsigned use)
{
    fprintf(f, "<path fill=\"%s\" d=\"", colours[use]);
    for (unsigned i = 0; i < map->rows; i++) {
        const map_row *row = &map->row[i];
        for (unsigned from = 0, to; from < row->cells; from = to) {
            for (to = from + 1; to < row->cells && row->use[to] == row->use[from];)
                to++;
            unsigned width = (to - from) * CELL - 1;
            if (row->use[from] == use)
                fprintf(f, "M%u %uh%uv%dh-%uz\n", MAP_X + from * CELL, row_y[i], width, CELL - 1, width);
        }
    }
    fputs("\"/>\n", f);
}

/* Where the rows are to be; answers where the map ends. */
static unsigned place_rows(const heap_map *map, unsigned *row_y, unsigned y)
{
    for (unsigned i = 0; i < map->rows; i++) {
        bool gap = map->row[i].reserved_after + map->row[i].foreign_after != 0;
        row_y[i] = y;
        y += gap ? CELL + 1 + GAP : CELL + 1;
    }
    return y;
}

static void put_map_labels(const heap_map *map, const unsigned *row_y, FILE *f)
{
    fputs("<g font-size=\"10\" font-family=\"monospace\">\n", f);
    for (unsigned i = 0; i < map->rows; i++) {
        const map_row *row = &map->row[i];
        unsigned below = row_y[i] + CELL + GAP - 4;
        svg_text(f, MARGIN, row_y[i] + CELL - 1, "%s", address_text(row->base).s);
        if (row->reserved_after != 0)
            svg_text(f, MAP_X, below, "... %s reserved, never grown into", size_text(row->reserved_after).s);
        if (row->foreign_after != 0)
            svg_text(f, WIDTH / 2, below, "... %s not the arena's", size_text(row->foreign_after).s);
    }
    fputs("</g>\n", f);
}

static void put_map(const heap_map *map, FILE *f, unsigned y)
{
    unsigned row_y[MAP_ROWS_MAX];
    svg_text(f, MARGIN, y + 12, "The arena, by addresses: a square is %s, and has the colour of what fills most of it",
             size_text(map->cell).s);
    y += LINE + 2;
    if (map->rows == 0)
        svg_text(f, MARGIN, y + 12, "%s reserved, never grown into", size_text(map->reserved_before).s);
    unsigned end = place_rows(map, row_y, y);
    for (unsigned use = 0; use < MAP_USES; use++) {
        if (map->has[use])
            put_cells(map, row_y, f, use);
    }
    fputs("<path stroke=\"#ffffff\" d=\"", f); /* so that squares of a kind are told apart */
    for (unsigned column = 1; column < map->columns; column++)
        fprintf(f, "M%u.5 %uv%u\n", MAP_X + column * CELL - 1, y, end - y);
    fputs("\"/>\n", f);
    put_map_labels(map, row_y, f);
}

void svg_print(const report *r, FILE *f)
{
    static heap_map map;
    heap_map_draw(r->heap, MAP_COLUMNS_MAX, MAP_ROWS_MAX, &map);
    unsigned gaps = map.lines - map.rows;
    unsigned height = TOP + (VMK_HEAP_PARTS + 8) * LINE + map.rows * (CELL + 1) + gaps * GAP;
    fprintf(f,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
            "height=\"%u\" viewBox=\"0 0 %d %u\" role=\"img\">\n",
            WIDTH, height, WIDTH, height);
    fprintf(f, "<title>vmkit heap, %s layout</title>\n", vmk_layout_name(r->stats.layout));
    fprintf(f, "<rect width=\"%d\" height=\"%u\" fill=\"#ffffff\"/>\n", WIDTH, height);
    fputs("<g font-family=\"sans-serif\" font-size=\"13\" fill=\"" DARK "\">\n", f);
    unsigned y = put_title(r, f);
    y = put_parts(r, f, y);
    y = put_grown(r, &map, f, y);
    put_map(&map, f, y);
    fputs("</g>\n</svg>\n", f);
}
