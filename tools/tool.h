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
 *   words.c        sizes and numbers, read and written
 *   limit_*.c      a limit on the process itself
 *
 * The program is to work where next to nothing can be allocated: nothing here calls malloc or prints a floating-point
 * number, streams have static buffers, and a file is opened before the limit is set.
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

/* --- the subcommands ---------------------------------------------------------------------------------------------- */

/* argv[0] is the subcommand's name. Answers the exit code. */
int layout_command(int argc, char **argv);
extern const char layout_help[];

#endif
