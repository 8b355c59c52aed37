/* SPDX-License-Identifier: MIT
 *
 * A dump as a picture: what there is most of, by type, size and root, and a map of the pages. Its size has a bound
 * whatever the heap's. The colours are those of svg.c.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

enum {
    WIDTH = 960,
    MARGIN = 24,
    LINE = 22,
    BAR_X = 250,
    BAR_WIDTH = 430,
    BAR_HEIGHT = 14,
    FIGURES_X = 692,
    TOP = 106 /* below the title */
};
enum { BARS_MOST = 12, MAP_X = 170, CELL = 8, GAP = 16 };

enum { USE_LEAF, USE_CONSERVATIVE, USE_TYPED, USE_LOST, USE_FREE, USES };

static const struct {
    const char *colour;
    const char *text;
} uses[USES] = {{"#56b4e9", "leaves"},
                {"#0072b2", "conservative"},
                {"#009e73", "typed"},
                {"#e69f00", "unreachable"},
                {"#dcdcdc", "free in spans"}};

#define NOTHING "#f8f8f8"
#define RETAINED "#b0b0b0"

/* A label as XML wants it, cut to a length. */
static const char *escaped(const char *label)
{
    enum { MOST = 30 };
    static char text[MOST * 6 + 1];
    size_t used = 0;
    for (unsigned i = 0; label[i] != '\0' && i < MOST; i++) {
        const char *as = label[i] == '&' ? "&amp;" : label[i] == '<' ? "&lt;" : label[i] == '>' ? "&gt;" : NULL;
        if (as == NULL) {
            text[used++] = label[i];
            continue;
        }
        memcpy(text + used, as, strlen(as));
        used += strlen(as);
    }
    text[used] = '\0';
    return text;
}

/* --- bars --------------------------------------------------------------------------------------------------------- */

static unsigned width_of(uint64_t bytes, uint64_t most)
{
    if (most < UINT64_MAX / BAR_WIDTH)
        return most != 0 ? (unsigned)(bytes * BAR_WIDTH / most) : 0;
    return (unsigned)(bytes / (most / BAR_WIDTH + 1));
}

/* What is retained behind it, what can be reached and what can't side by side. */
static void put_bar(FILE *f, unsigned y, const char *label, const heap_sum *sum, uint64_t most)
{
    unsigned reached = width_of(sum->reached, most), retained = width_of(sum->retained, most);
    svg_text(f, MARGIN, y + 12, "%s", escaped(label));
    if (retained > reached)
        svg_rectangle(f, BAR_X, y + 5, retained, 4, RETAINED);
    if (reached != 0)
        svg_rectangle(f, BAR_X, y, reached, BAR_HEIGHT, uses[USE_CONSERVATIVE].colour);
    if (sum->bytes > sum->reached)
        svg_rectangle(f, BAR_X + reached, y, width_of(sum->bytes - sum->reached, most) + 1, BAR_HEIGHT,
                      uses[USE_LOST].colour);
    svg_text(f, FIGURES_X, y + 12, "%s in %" PRIu64, size_text(sum->bytes).s, sum->objects);
}

static void put_heading(FILE *f, unsigned y, const char *text)
{
    fputs("<g font-weight=\"bold\">\n", f);
    svg_text(f, MARGIN, y + 12, "%s", text);
    fputs("</g>\n", f);
}

static unsigned put_types(const heap_graph *g, const heap_sums *s, FILE *f, unsigned y)
{
    uint64_t most = 1;
    unsigned shown = 0;
    for (uint32_t i = 0; i < s->groups; i++) {
        most = s->group[i].bytes > most ? s->group[i].bytes : most;
        most = s->group[i].retained > most ? s->group[i].retained : most;
    }
    put_heading(f, y, "By type, those first that retain most");
    y += LINE;
    for (uint32_t i = 0; i < s->groups && shown < BARS_MOST; i++) {
        uint32_t group = s->group_order[i];
        if (s->group[group].objects == 0)
            continue;
        put_bar(f, y, group_label(g->dump, group), &s->group[group], most);
        y += LINE;
        shown++;
    }
    return y + LINE / 2;
}

static unsigned put_sizes(const heap_sums *s, FILE *f, unsigned y)
{
    bool shown[SUM_SIZES] = {false};
    uint64_t most = 1;
    put_heading(f, y, "By size, those with most bytes");
    y += LINE;
    for (unsigned n = 0; n < BARS_MOST; n++) {
        unsigned best = 0;
        for (unsigned i = 1; i < SUM_SIZES; i++)
            if (!shown[i] && s->size[i].bytes > s->size[best].bytes)
                best = i;
        shown[best] = true;
        most = s->size[best].bytes > most ? s->size[best].bytes : most;
    }
    for (unsigned i = 1; i < SUM_SIZES; i++) {
        if (!shown[i])
            continue;
        put_bar(f, y, i == SUM_SIZES - 1 ? "larger" : size_text((uint64_t)i * SUM_UNIT).s, &s->size[i], most);
        y += LINE;
    }
    return y + LINE / 2;
}

static unsigned put_roots(const heap_graph *g, const heap_sums *s, FILE *f, unsigned y)
{
    put_heading(f, y, "By root: what only it reaches");
    y += LINE;
    for (unsigned kind = 0; kind < VMK_GC_ROOT_COUNT; kind++) {
        const root_sum *r = &s->root[kind];
        if (r->words == 0)
            continue;
        svg_text(f, MARGIN, y + 12, "%s", root_text(kind));
        svg_rectangle(f, BAR_X, y, width_of(r->only, g->reached_bytes) + 1, BAR_HEIGHT, "#444444");
        svg_text(f, FIGURES_X, y + 12, "%s; %" PRIu64 " words", size_text(r->only).s, r->words);
        y += LINE;
    }
    return y + LINE / 2;
}

/* --- the map ------------------------------------------------------------------------------------------------------ */

typedef struct page_row {
    uint64_t number; /* of the row, from address 0 on */
    uint64_t bytes[MAP_COLUMNS_MAX][USES];
} page_row;

typedef struct page_map {
    uint64_t cell; /* bytes, a power of two */
    unsigned rows;
    unsigned last; /* row that was looked up */
    page_row row[MAP_ROWS_MAX];
} page_map;

static uint64_t row_of(const page_map *m, uint64_t address)
{
    return address / m->cell / MAP_COLUMNS_MAX;
}

/* How many rows there are with cells of this size; too many are not counted to the end. */
static bool rows_fit(page_map *m, const heap_dump *d)
{
    m->rows = 0;
    for (uint32_t i = 0; i < d->span_count; i++) {
        uint64_t first = row_of(m, d->spans[i].base), last = row_of(m, d->spans[i].base + d->spans[i].size - 1);
        if (m->rows != 0 && m->row[m->rows - 1].number == first) {
            if (first == last)
                continue;
            first++;
        }
        if (last - first >= MAP_ROWS_MAX - m->rows)
            return false;
        while (first <= last)
            m->row[m->rows++].number = first++;
    }
    return true;
}

/* Count bytes of a range in the cells that it touches. Ranges come in the order of addresses, mostly. */
static void fill(page_map *m, uint64_t address, uint64_t size, unsigned use, bool take)
{
    for (uint64_t end = address + size, next; address < end; address = next) {
        uint64_t row = row_of(m, address);
        next = (address / m->cell + 1) * m->cell;
        next = next > end || next == 0 ? end : next;
        while (m->row[m->last].number > row)
            m->last--;
        while (m->row[m->last].number < row)
            m->last++;
        uint64_t *bytes = m->row[m->last].bytes[address / m->cell % MAP_COLUMNS_MAX];
        bytes[use] += next - address;
        if (take) /* it isn't free */
            bytes[USE_FREE] -= next - address;
    }
}

static void map_make(page_map *m, const heap_graph *g)
{
    const heap_dump *d = g->dump;
    m->cell = 8192;
    while (!rows_fit(m, d))
        m->cell *= 2;
    for (uint32_t i = 0; i < d->span_count; i++)
        fill(m, d->spans[i].base, d->spans[i].size, USE_FREE, false);
    for (uint32_t i = 0; i < d->object_count; i++) {
        const dump_object *o = &d->objects[i];
        fill(m, o->address, o->size, graph_reached(g, i) ? USE_LEAF + o->kind : USE_LOST, true);
    }
}

/* What fills most of a cell; USES: there is no span. */
static unsigned use_of(const uint64_t bytes[USES])
{
    unsigned best = USES;
    for (unsigned use = 0; use < USES; use++)
        if (bytes[use] > (best == USES ? 0 : bytes[best]))
            best = use;
    return best;
}

static void put_cells(const page_map *m, FILE *f, unsigned y, unsigned use)
{
    fprintf(f, "<path fill=\"%s\" d=\"", use == USES ? NOTHING : uses[use].colour);
    for (unsigned i = 0; i < m->rows; i++) {
        if (i != 0 && m->row[i].number != m->row[i - 1].number + 1)
            y += GAP;
        for (unsigned column = 0; column < MAP_COLUMNS_MAX; column++)
            if (use_of(m->row[i].bytes[column]) == use)
                fprintf(f, "M%u %uh%dv%dh-%dz\n", MAP_X + column * CELL, y, CELL - 1, CELL - 1, CELL - 1);
        y += CELL + 1;
    }
    fputs("\"/>\n", f);
}

static void put_map_labels(const page_map *m, FILE *f, unsigned y)
{
    fputs("<g font-size=\"10\" font-family=\"monospace\">\n", f);
    for (unsigned i = 0; i < m->rows; i++) {
        if (i != 0 && m->row[i].number != m->row[i - 1].number + 1) {
            svg_text(f, MAP_X, y + GAP - 6, "...");
            y += GAP;
        }
        svg_text(f, MARGIN, y + CELL - 1, "0x%" PRIx64, m->row[i].number * MAP_COLUMNS_MAX * m->cell);
        y += CELL + 1;
    }
    fputs("</g>\n", f);
}

static void put_map(const page_map *m, FILE *f, unsigned y)
{
    put_heading(f, y, "The pages of spans");
    svg_text(f, BAR_X, y + 12, "by addresses: a square is %s, and has the colour of what fills most of it",
             size_text(m->cell).s);
    y += LINE;
    for (unsigned use = 0, x = MARGIN; use < USES; use++, x += 150) {
        svg_rectangle(f, x, y + 2, 12, 12, uses[use].colour);
        svg_text(f, x + 18, y + 12, "%s", uses[use].text);
    }
    y += LINE + 4;
    for (unsigned use = 0; use <= USES; use++)
        put_cells(m, f, y, use);
    put_map_labels(m, f, y);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

/* As the functions above go on by lines. */
static unsigned height_of(const heap_graph *g, const heap_sums *s, const page_map *m)
{
    unsigned types = 0, sizes = 0, roots = 0, map = 4 * LINE;
    for (uint32_t i = 0; i < s->groups; i++)
        types += s->group[i].objects != 0;
    for (unsigned i = 0; i < SUM_SIZES; i++)
        sizes += s->size[i].objects != 0;
    for (unsigned kind = 0; kind < VMK_GC_ROOT_COUNT; kind++)
        roots += s->root[kind].words != 0;
    types = types < BARS_MOST ? types : BARS_MOST;
    sizes = sizes < BARS_MOST ? sizes : BARS_MOST;
    for (unsigned i = 0; i < m->rows; i++)
        map += CELL + 1 + (i != 0 && m->row[i].number != m->row[i - 1].number + 1 ? GAP : 0u);
    return TOP + map + (g->dump->object_count != 0 ? (types + sizes + roots + 3) * LINE + 3 * (LINE / 2) : 0);
}

static void put_title(const heap_graph *g, FILE *f)
{
    const heap_dump *d = g->dump;
    fputs("<g font-size=\"20\" font-weight=\"bold\">\n", f);
    svg_text(f, MARGIN, 38, "vmkit gc: a collected heap after %" PRIu64 " cycles", d->cycles);
    fputs("</g>\n", f);
    svg_text(f, MARGIN, 64, "%s in spans: %" PRIu32 " objects of %s, %" PRIu32 " of %s can be reached",
             size_text(d->heap).s, d->object_count, size_text(d->bytes).s, g->reached, size_text(g->reached_bytes).s);
    svg_rectangle(f, MARGIN, 76, 12, 12, uses[USE_CONSERVATIVE].colour);
    svg_text(f, MARGIN + 18, 86, "reachable");
    svg_rectangle(f, MARGIN + 150, 76, 12, 12, uses[USE_LOST].colour);
    svg_text(f, MARGIN + 168, 86, "unreachable");
    svg_rectangle(f, MARGIN + 300, 80, 12, 4, RETAINED);
    svg_text(f, MARGIN + 318, 86, "retained: would be free without it");
}

void gc_svg_print(const heap_graph *g, const heap_sums *s, FILE *f)
{
    static page_map map;
    map_make(&map, g);
    unsigned height = height_of(g, s, &map), y = TOP;
    fprintf(f,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
            "height=\"%u\" viewBox=\"0 0 %d %u\" role=\"img\">\n",
            WIDTH, height, WIDTH, height);
    fprintf(f, "<title>vmkit gc</title>\n<rect width=\"%d\" height=\"%u\" fill=\"#ffffff\"/>\n", WIDTH, height);
    fputs("<g font-family=\"sans-serif\" font-size=\"13\" fill=\"#1a1a1a\">\n", f);
    put_title(g, f);
    if (g->dump->object_count != 0) {
        y = put_types(g, s, f, y);
        y = put_sizes(s, f, y);
        y = put_roots(g, s, f, y);
    }
    put_map(&map, f, y);
    fputs("</g>\n</svg>\n", f);
}
