/* SPDX-License-Identifier: MIT
 *
 * What the files of the program `vmkit` share. They use the library through vmkit.h alone, like any other program.
 *
 *   vmkit.c        the subcommands
 *   layout.c       vmkit layout: its options, and what it does in which order
 *   work.c         random operations on spans, checked
 *   picture.c      figures as text
 *   json.c         figures as JSON
 *   heap_map.c     which part of the heap is drawn where; the map as text
 *   svg.c          the picture and the map as SVG
 *   gc.c           vmkit gc: its options, and what it does in which order
 *   gc_read.c      a dump of a collected heap, read and checked
 *   gc_graph.c     what can be reached in it, and what keeps what alive
 *   gc_sums.c      sums by kind, type, size, root and site
 *   gc_text.c      figures of a dump as text
 *   gc_json.c      as JSON
 *   gc_svg.c       as a picture
 *   words.c        sizes and numbers, read and written
 *   limit_*.c      a limit on the process itself
 *
 * The program is to work where next to nothing can be allocated: nothing here calls malloc or prints a floating-point
 * number, streams have static buffers, and a file is opened before the limit is set. What vmkit gc needs for a dump
 * comes from vmk_reserve.
 */
#ifndef VMKIT_TOOL_H
#define VMKIT_TOOL_H

#include <stdio.h>

#include "vmkit.h"

#if defined(__MINGW_PRINTF_FORMAT)
#define TOOL_PRINTF(string, first) __attribute__((format(__MINGW_PRINTF_FORMAT, string, first)))
#elif defined(__GNUC__)
#define TOOL_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define TOOL_PRINTF(string, first)
#endif

/* What the program exits with. */
enum {
    TOOL_DONE = 0,
    TOOL_FAILED = 1, /* the system, or a limit, does not allow it */
    TOOL_USAGE = 2,  /* it was called wrongly */
    TOOL_WRONG = 3   /* the library did not do what it promises: a bug */
};

/* --- vmkit.c ------------------------------------------------------------------------------------------------------ */

/* "vmkit layout: ..." and a line's end, to standard error. */
void complain(const char *format, ...) TOOL_PRINTF(1, 2);

/* The next option of a subcommand, as getopt_long tells it; -1: no more; '?': it is wrong, and that was said. In the
 * same words everywhere. */
struct option;
int next_option(int argc, char **argv, const struct option *known);

/* --- words.c ------------------------------------------------------------------------------------------------------ */

/* Short texts, returned by value: to be used at once, as in puts(size_text(n).s). */
typedef struct short_text {
    char s[24];
} short_text;

short_text size_text(uint64_t bytes);                    /* "12 KiB", "1.5 GiB", "0"; "none" for VMK_UNLIMITED */
short_text address_text(uintptr_t address);              /* of the width that addresses have here */
short_text change_text(uint64_t before, uint64_t after); /* "+12 KiB" */

/* The whole word must be a number, of `size` with K, M, G or T behind it if wanted. */
bool parse_number(const char *word, uint64_t *number);
bool parse_size(const char *word, uint64_t *size);

/* --- limit_posix.c, limit_win32.c --------------------------------------------------------------------------------- */

#ifdef _WIN32
#define LIMIT_KIND "memory (job object)"
#define LIMIT_FIELD memory /* of vmk_limits: where it should show */
#else
#define LIMIT_KIND "address space (RLIMIT_AS)"
#define LIMIT_FIELD address_space
#endif

/* Let this process have no more than so many bytes, in all and from now on: of address space where that can be limited
 * (POSIX, as `ulimit -v` does), of committed memory elsewhere (Windows). Answers the system's error, 0 if it is done.
 */
unsigned long limit_process(uint64_t bytes);

/* --- work.c ------------------------------------------------------------------------------------------------------- */

#define WORK_COUNT_TABLE(X)                                                                                            \
    X(operations)                                                                                                      \
    X(allocs)                                                                                                          \
    X(frees)                                                                                                           \
    X(splits)                                                                                                          \
    X(grown)                                                                                                           \
    X(blocked) /* there was something behind what was to grow */                                                       \
    X(shrunk)                                                                                                          \
    X(bytes_checked)

typedef struct work_counts {
#define WORK_COUNT_FIELD(name) uint64_t name;
    WORK_COUNT_TABLE(WORK_COUNT_FIELD)
#undef WORK_COUNT_FIELD
    uint64_t refused[VMK_STATUS_COUNT]; /* by the answer; after each, some spans were freed */
    uint64_t scavenged;                 /* bytes, at the end */
    uint64_t milliseconds;              /* of the processor, scavenging included */
    uint64_t seed;
} work_counts;

/* Allocate a handful of spans, then do so many random operations, then scavenge half of what is idle. The spans are in
 * use when it returns. Answers an exit code, having complained. */
int work_run(vmk_heap *heap, uint64_t operations, uint64_t seed, work_counts *counts);

uint64_t work_refused(const work_counts *counts);

/* --- what is shown ------------------------------------------------------------------------------------------------ */

typedef struct report {
    vmk_heap *heap;
    vmk_heap_stats stats;
    vmk_layout asked_for;
    uint64_t limit; /* that was set by --limit; 0: none */
    vmk_limits limits;
    bool usage_told;         /* does the system tell what a process uses? */
    vmk_usage before;        /* the heap was made, */
    vmk_usage made;          /* when it was just made, */
    vmk_usage now;           /* and now */
    const work_counts *work; /* NULL: none was done */
} report;

void picture_print(const report *r);
void json_print(const report *r);

/* --- heap_map.c --------------------------------------------------------------------------------------------------- */

enum { MAP_COLUMNS_MAX = 96, MAP_ROWS_MAX = 40 };

/* What fills a cell: a vmk_range_use, or this. */
enum { MAP_FOREIGN = VMK_RANGE_RESERVED + 1, MAP_USES };

typedef struct map_row {
    uintptr_t base;
    unsigned cells;
    uint64_t reserved_after; /* not drawn, between this row and the next */
    uint64_t foreign_after;  /* the same, of what is not the arena's: others' memory, the heap's tables */
    unsigned char use[MAP_COLUMNS_MAX];
} map_row;

/* Rows of cells, each for the same number of bytes: all that the heap has grown into. What is only reserved, or lies
 * between regions, is drawn where it is less than a row, and left out where it is more. */
typedef struct heap_map {
    unsigned columns;
    unsigned lines; /* rows and the gaps between them: what is bounded */
    unsigned rows;
    uint64_t cell;            /* bytes */
    uint64_t reserved_before; /* not drawn, before the first row */
    uintptr_t lowest;         /* address of the heap's first region; 0: it has none */
    bool has[MAP_USES];       /* is there a cell of this use? */
    map_row row[MAP_ROWS_MAX];
} heap_map;

/* Draw the heap in so many columns and lines, with cells as small as that allows. */
void heap_map_draw(vmk_heap *heap, unsigned columns, unsigned lines, heap_map *map);

const char *map_use_text(unsigned use);
void heap_map_print(vmk_heap *heap);

/* --- picture.c, for svg.c too ------------------------------------------------------------------------------------- */

/* The parts in the order of their addresses; those without address space come last. */
typedef struct part_order {
    vmk_heap_part part[VMK_HEAP_PARTS];
    uintptr_t base[VMK_HEAP_PARTS]; /* of part[i]; for an arena of several regions that of the first */
    uintptr_t key[VMK_HEAP_PARTS];  /* what they are ordered by */
} part_order;

void parts_in_order(const report *r, part_order *order);

/* The length of a bar on a scale where each step doubles: 0 for nothing, 1 for what is less than 8 KiB, ... */
enum { BAR_MAX = 31 };
unsigned bar_length(uint64_t bytes);

/* --- svg.c -------------------------------------------------------------------------------------------------------- */

void svg_print(const report *r, FILE *file);

/* For gc_svg.c too. What is printed must have no character that XML takes for its own. */
void svg_rectangle(FILE *f, unsigned x, unsigned y, unsigned width, unsigned height, const char *colour);
void svg_text(FILE *f, unsigned x, unsigned y, const char *format, ...) TOOL_PRINTF(4, 5);

/* --- gc_read.c ---------------------------------------------------------------------------------------------------- */

/* What is in a dump (docs/tools.md): addresses are of the program that wrote it, whatever its word. Objects are in the
 * order of addresses. What a line says is kept with the line's number where it can only be checked later. */
enum { DUMP_LEAF, DUMP_CONSERVATIVE, DUMP_TYPED, DUMP_KINDS };
enum { DUMP_NAME = 160, DUMP_LINE = 512, DUMP_TYPES_MAX = 60000 };
#define DUMP_NONE UINT32_MAX        /* no object */
#define DUMP_NOWHERE UINT64_MAX     /* no address: of pins, of what a function showed */
#define DUMP_MOST (UINT32_MAX - 64) /* objects, or references */

typedef struct dump_object {
    uint64_t address;
    uint64_t size;
    uint64_t site; /* 0: not known */
    uint64_t line;
    uint32_t first; /* of its references */
    uint16_t type;  /* 0: none */
    uint8_t kind;
} dump_object;

typedef struct dump_reference {
    uint64_t at; /* offset in the object */
    union {
        uint64_t address; /* while it is read, */
        uint32_t to;      /* and when all is known */
    };
} dump_reference;

typedef struct dump_root {
    uint64_t thread;
    uint64_t at;
    uint64_t line;
    uint64_t address;
    uint32_t object;
    vmk_gc_root kind;
} dump_root;

typedef struct dump_type {
    uint64_t size;
    char name[DUMP_NAME];
} dump_type;

typedef struct dump_span {
    uint64_t base;
    uint64_t size;
    uint32_t first; /* of its objects */
} dump_span;

typedef struct dump_pair { /* an ephemeron */
    uint64_t line;
    uint64_t address[3];
    uint32_t ephemeron;
    uint32_t key;
    uint32_t value;
    uint32_t next; /* pair of the same key: index + 1 */
} dump_pair;

typedef struct heap_dump {
    const char *path;
    uint64_t word; /* bytes of a pointer there */
    uint64_t page;
    uint64_t flags;
    uint64_t heap; /* bytes of spans in use */
    uint64_t cycles;
    uint64_t bytes; /* of all objects */
    dump_object *objects;
    dump_reference *references;
    dump_root *roots;
    dump_type *types; /* type n is [n - 1] */
    dump_span *spans;
    dump_pair *pairs;
    uint32_t object_count;
    uint32_t reference_count;
    uint32_t root_count;
    uint32_t type_count;
    uint32_t span_count;
    uint32_t pair_count;
} heap_dump;

/* Answers an exit code, having complained. */
int dump_read(heap_dump *dump, const char *path);

/* The object that an address is in, or DUMP_NONE. */
uint32_t dump_find(const heap_dump *dump, uint64_t address);

/* Zeroed memory until the program ends, for `count` elements (any number); NULL, having complained: there is none. */
void *dump_memory(uint64_t count, size_t size);

/* "leaf", "conservative", or the type's name in quotes; at least this many bytes. */
enum { DUMP_LABEL = DUMP_NAME + 16 };
const char *dump_label(const heap_dump *dump, const dump_object *object, char text[DUMP_LABEL]);

/* --- gc_graph.c --------------------------------------------------------------------------------------------------- */

/* Nodes: all roots together, the kinds of roots, the objects. Node n is dominated by d if each way from the roots to n
 * leads through d; the next such d is the only one kept. What n retains are the bytes of all that it dominates: those
 * that would be free if it was. */
enum { NODE_ROOTS, NODE_KIND, NODE_OBJECT = NODE_KIND + VMK_GC_ROOT_COUNT };

typedef struct heap_graph {
    const heap_dump *dump;
    uint32_t nodes;
    uint32_t *from;     /* by node: who leads to it on a shortest way; DUMP_NONE: it can't be reached */
    uint32_t *idom;     /* by node that can be reached */
    uint64_t *retained; /* by node */
    uint32_t *child;    /* the tree of dominators: the first below a node, and the next beside it; 0: none */
    uint32_t *beside;
    uint32_t reached; /* objects */
    uint64_t reached_bytes;
    /* private */
    uint32_t *root_order; /* roots by kind */
    uint32_t root_first[VMK_GC_ROOT_COUNT + 1];
    uint32_t *pair_of; /* by object: index of an ephemeron + 1; NULL: there are none */
    uint32_t *pair_by_key;
} heap_graph;

/* False: no memory, having complained. */
bool graph_make(heap_graph *graph, const heap_dump *dump);

static inline bool graph_reached(const heap_graph *graph, uint32_t object)
{
    return graph->from[NODE_OBJECT + object] != DUMP_NONE;
}

/* --- gc_sums.c ---------------------------------------------------------------------------------------------------- */

typedef struct heap_sum {
    uint64_t objects;
    uint64_t bytes;
    uint64_t reached; /* bytes, of them */
    uint64_t retained;
} heap_sum;

typedef struct root_sum {
    uint64_t words;
    uint64_t objects; /* that they point to, each counted once */
    uint64_t bytes;
    uint64_t only; /* bytes that can be reached from nowhere else */
} root_sum;

typedef struct site_sum {
    uint64_t site; /* 0: all for which there was no room */
    heap_sum sum;
} site_sum;

enum {
    SUM_UNIT = 16,
    SUM_SIZES = VMK_OBJECT_SMALL_MAX / SUM_UNIT + 2, /* by size in units, rounded up; the last: larger */
    SUM_TOP_MAX = 1000
};

typedef struct heap_sums {
    heap_sum kind[DUMP_KINDS];
    heap_sum size[SUM_SIZES];
    root_sum root[VMK_GC_ROOT_COUNT];
    uint32_t groups; /* types, but before them leaves and conservative objects without one: type + 1 */
    heap_sum *group;
    uint32_t *group_order; /* by what they retain */
    uint32_t site_count;
    site_sum *sites; /* by bytes */
    uint32_t top_retained[SUM_TOP_MAX];
    uint32_t top_retained_count;
    uint32_t top_lost[SUM_TOP_MAX]; /* the largest that can't be reached */
    uint32_t top_lost_count;
    unsigned top;
} heap_sums;

bool sums_make(heap_sums *sums, const heap_graph *graph, unsigned top);
const char *group_label(const heap_dump *dump, uint32_t group);

/* As vmk_gc_root_name, without the collector, which this program has no use for. */
const char *root_text(unsigned kind);

/* --- gc_text.c, gc_json.c, gc_svg.c ------------------------------------------------------------------------------- */

void gc_text_print(const heap_graph *graph, const heap_sums *sums);
void gc_why_print(const heap_graph *graph, uint32_t object, uint64_t address);
void gc_json_print(const heap_graph *graph, const heap_sums *sums, uint32_t why, bool asked);
void gc_svg_print(const heap_graph *graph, const heap_sums *sums, FILE *file);

/* The way to an object that can be reached: nodes from the roots' kind to it; *steps of them. NULL: no memory. */
const uint32_t *gc_path(const heap_graph *graph, uint32_t object, uint32_t *steps);

/* The first reference, or root, by which one node of a way leads to the next: where it is, DUMP_NOWHERE if nowhere. */
uint64_t gc_path_at(const heap_graph *graph, uint32_t node, uint32_t next, uint64_t *thread);

/* --- the subcommands ---------------------------------------------------------------------------------------------- */

/* argv[0] is the subcommand's name. Answers the exit code. */
int layout_command(int argc, char **argv);
extern const char layout_help[];
int gc_command(int argc, char **argv);
extern const char gc_help[];

#endif
