/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

const char layout_help[] =
    "usage: vmkit layout [OPTION ...]\n"
    "makes a heap and shows what it consists of, what it costs, and how it is used\n\n"
    "  --layout NAME    auto (default), 64, limited, 32\n"
    "  --window SIZE    of the range of addresses that the heap can use; SIZE is a number, with K, M, G, T for units\n"
    "  --random-base    at a random address\n"
    "  --limit SIZE     before all else, limit this process: its " LIMIT_KIND "\n"
    "  --work N         allocate a handful of spans, do N random operations on them, scavenge half of what is idle\n"
    "  --seed S         of the random operations; 1 if it isn't given\n"
    "  --map            draw the heap as rows of characters too\n"
    "  --svg FILE       write a picture with a map\n"
    "  --json           print one JSON object, and nothing else\n"
    "  --help\n\n"
    "exit code: 0; 1 if the heap, its first spans or a file can't be had; 2 if called wrongly; 3 if the heap did "
    "wrong\n";

typedef struct layout_options {
    vmk_heap_options heap;
    uint64_t limit; /* 0: none */
    uint64_t operations;
    uint64_t seed;
    const char *svg;
    bool work;
    bool map;
    bool json;
    bool help;
} layout_options;

/* --- options ------------------------------------------------------------------------------------------------------ */

static bool read_layout(const char *word, vmk_layout *layout)
{
    static const struct {
        const char *word;
        vmk_layout layout;
    } all[] = {
        {"auto", VMK_LAYOUT_AUTO}, {"64", VMK_LAYOUT_64}, {"limited", VMK_LAYOUT_LIMITED}, {"32", VMK_LAYOUT_32}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(word, all[i].word) == 0) {
            *layout = all[i].layout;
            return true;
        }
    }
    complain("--layout %s: auto, 64, limited or 32 is meant", word);
    return false;
}

/* A size of 1 to `most`, which is what such a number can hold here. */
static bool read_size(const char *option, const char *word, uint64_t most, uint64_t *size)
{
    if (!parse_size(word, size))
        complain("%s %s: not a size; that is a number, with K, M, G or T behind it if wanted", option, word);
    else if (*size == 0 || *size > most)
        complain("%s %s: %s for this system", option, word, *size == 0 ? "too small" : "too large");
    else
        return true;
    return false;
}

static bool read_number(const char *option, const char *word, uint64_t *number)
{
    if (parse_number(word, number))
        return true;
    complain("%s %s: not a number", option, word);
    return false;
}

enum { LAYOUT, WINDOW, RANDOM_BASE, LIMIT, WORK, SEED, MAP, SVG, JSON, HELP };

static bool read_option(int option, const char *word, layout_options *options)
{
    uint64_t size;
    switch (option) {
    case LAYOUT:
        return read_layout(word, &options->heap.layout);
    case WINDOW:
        if (!read_size("--window", word, SIZE_MAX, &size))
            return false;
        options->heap.window = (size_t)size;
        return true;
    case LIMIT:
        return read_size("--limit", word, INT64_MAX, &options->limit);
    case WORK:
        options->work = true;
        return read_number("--work", word, &options->operations);
    case SEED:
        return read_number("--seed", word, &options->seed);
    case RANDOM_BASE:
        options->heap.flags |= VMK_HEAP_RANDOM_BASE;
        return true;
    case MAP:
        options->map = true;
        return true;
    case SVG:
        options->svg = word;
        return true;
    case JSON:
        options->json = true;
        return true;
    default:
        options->help = true;
        return true;
    }
}

/* False if they are wrong, having complained. */
static bool read_options(int argc, char **argv, layout_options *options)
{
    static const struct option known[] = {{"layout", required_argument, NULL, LAYOUT},
                                          {"window", required_argument, NULL, WINDOW},
                                          {"random-base", no_argument, NULL, RANDOM_BASE},
                                          {"limit", required_argument, NULL, LIMIT},
                                          {"work", required_argument, NULL, WORK},
                                          {"seed", required_argument, NULL, SEED},
                                          {"map", no_argument, NULL, MAP},
                                          {"svg", required_argument, NULL, SVG},
                                          {"json", no_argument, NULL, JSON},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
    for (int option; (option = next_option(argc, argv, known)) != -1;)
        if (option == '?' || !read_option(option, optarg, options))
            return false;
    if (optind < argc) {
        complain("%s: an option is meant; see vmkit layout --help", argv[optind]);
        return false;
    }
    if (options->json && options->map) {
        complain("--json and --map don't go together: one is for programs, the other is for people");
        return false;
    }
    return true;
}

/* --- what it does ------------------------------------------------------------------------------------------------- */

static int show(const layout_options *options, report *r, FILE *svg)
{
    static work_counts counts;
    if (options->work) {
        int code = work_run(r->heap, options->operations, options->seed, &counts);
        if (code != TOOL_DONE)
            return code;
        r->work = &counts;
    }
    r->usage_told = vmk_usage_now(&r->now) == VMK_OK && r->usage_told;
    vmk_limits_now(&r->limits);
    vmk_heap_stats_now(r->heap, &r->stats);
    if (options->json)
        json_print(r);
    else
        picture_print(r);
    if (options->map)
        heap_map_print(r->heap);
    if (svg != NULL)
        svg_print(r, svg);
    return TOOL_DONE;
}

static int make_and_show(const layout_options *options, FILE *svg)
{
    static report r;
    r.asked_for = options->heap.layout;
    r.limit = options->limit;
    r.usage_told = vmk_usage_now(&r.before) == VMK_OK;
    vmk_status status = vmk_heap_create(&r.heap, &options->heap);
    if (status != VMK_OK) {
        complain("no heap can be made: %s (%s)", vmk_status_name(status), vmk_status_text(status));
        return TOOL_FAILED;
    }
    r.usage_told = vmk_usage_now(&r.made) == VMK_OK && r.usage_told;
    int code = show(options, &r, svg);
    vmk_heap_destroy(r.heap);
    return code;
}

int layout_command(int argc, char **argv)
{
    static char buffer[16 * 1024];
    layout_options options = {.seed = 1};
    if (!read_options(argc, argv, &options))
        return TOOL_USAGE;
    if (options.help) {
        fputs(layout_help, stdout);
        return TOOL_DONE;
    }
    FILE *svg = NULL;
    if (options.svg != NULL) { /* opened first, for that takes memory */
        svg = fopen(options.svg, "wb");
        if (svg == NULL) {
            complain("%s can't be written", options.svg);
            return TOOL_FAILED;
        }
        setvbuf(svg, buffer, _IOFBF, sizeof buffer);
    }
    int code = TOOL_DONE;
    unsigned long refused = options.limit != 0 ? limit_process(options.limit) : 0;
    if (refused != 0) {
        complain("the system does not set --limit: error %lu", refused);
        code = TOOL_FAILED;
    }
    if (code == TOOL_DONE)
        code = make_and_show(&options, svg);
    if (svg != NULL && (fclose(svg) != 0) && code == TOOL_DONE) {
        complain("%s can't be written", options.svg);
        code = TOOL_FAILED;
    }
    if (svg != NULL && code != TOOL_DONE)
        remove(options.svg); /* nothing that looks like a picture */
    return code;
}
