/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

const char gc_help[] =
    "usage: vmkit gc [OPTION ...] DUMP\n"
    "reads a file that vmk_gc_dump has written, and shows what is in that heap, and why\n\n"
    "  --top N          show so many types, sizes, sites and objects of each list; 10 if it isn't given\n"
    "  --why ADDRESS    show a shortest way from a root to the object that an address is in\n"
    "  --svg FILE       write a picture with a map\n"
    "  --json           print one JSON object, and nothing else\n"
    "  --help\n\n"
    "exit code: 0; 1 if a file can't be had, is no dump, or there is no memory; 2 if called wrongly\n";

typedef struct gc_options {
    const char *path;
    const char *svg;
    uint64_t top;
    uint64_t why;
    bool asks_why;
    bool json;
    bool help;
} gc_options;

/* Hexadecimal, as the program prints addresses, with 0x or without. */
static bool read_address(const char *word, uint64_t *address)
{
    uint64_t sum = 0;
    const char *at = strncmp(word, "0x", 2) == 0 ? word + 2 : word;
    size_t digits = strlen(at);
    for (; *at != '\0'; at++) {
        const char *all = "0123456789abcdef0123456789ABCDEF", *digit = strchr(all, *at);
        if (digit == NULL)
            break;
        sum = sum << 4 | (uint64_t)((digit - all) & 15);
    }
    *address = sum;
    if (digits != 0 && digits <= 16 && *at == '\0')
        return true;
    complain("--why %s: a hexadecimal address is meant", word);
    return false;
}

enum { TOP, WHY, SVG, JSON, HELP };

static bool read_option(int option, const char *word, gc_options *options)
{
    switch (option) {
    case TOP:
        if (parse_number(word, &options->top) && options->top <= SUM_TOP_MAX)
            return true;
        complain("--top %s: a number is meant, %d at most", word, SUM_TOP_MAX);
        return false;
    case WHY:
        options->asks_why = true;
        return read_address(word, &options->why);
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
static bool read_options(int argc, char **argv, gc_options *options)
{
    static const struct option known[] = {{"top", required_argument, NULL, TOP}, {"why", required_argument, NULL, WHY},
                                          {"svg", required_argument, NULL, SVG}, {"json", no_argument, NULL, JSON},
                                          {"help", no_argument, NULL, HELP},     {NULL, 0, NULL, 0}};
    for (int option; (option = next_option(argc, argv, known)) != -1;)
        if (option == '?' || !read_option(option, optarg, options))
            return false;
    if (options->help)
        return true;
    if (optind + 1 != argc) {
        complain("one file is meant; see vmkit gc --help");
        return false;
    }
    options->path = argv[optind];
    return true;
}

static int write_svg(const heap_graph *graph, const heap_sums *sums, const char *path)
{
    static char buffer[16 * 1024];
    FILE *file = fopen(path, "wb");
    bool well = file != NULL;
    if (well) {
        setvbuf(file, buffer, _IOFBF, sizeof buffer);
        gc_svg_print(graph, sums, file);
        well = ferror(file) == 0;
        well = fclose(file) == 0 && well;
    }
    if (well)
        return TOOL_DONE;
    complain("%s can't be written", path);
    if (file != NULL)
        remove(path);
    return TOOL_FAILED;
}

int gc_command(int argc, char **argv)
{
    static heap_dump dump;
    static heap_graph graph;
    static heap_sums sums;
    gc_options options = {.top = 10};
    if (!read_options(argc, argv, &options))
        return TOOL_USAGE;
    if (options.help) {
        fputs(gc_help, stdout);
        return TOOL_DONE;
    }
    int code = dump_read(&dump, options.path);
    if (code != TOOL_DONE)
        return code;
    if (!graph_make(&graph, &dump) || !sums_make(&sums, &graph, (unsigned)options.top))
        return TOOL_FAILED;
    uint32_t object = options.asks_why ? dump_find(&dump, options.why) : DUMP_NONE;
    if (options.json)
        gc_json_print(&graph, &sums, object, options.asks_why);
    else if (options.asks_why)
        gc_why_print(&graph, object, options.why);
    else
        gc_text_print(&graph, &sums);
    return options.svg != NULL ? write_svg(&graph, &sums, options.svg) : TOOL_DONE;
}
