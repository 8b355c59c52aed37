/* SPDX-License-Identifier: MIT
 *
 * vmkit SUBCOMMAND [OPTION ...]: see with the eyes what the library does on this machine. docs/tools.md is its manual.
 */
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef struct subcommand {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
} subcommand;

static const subcommand subcommands[] = {
    {"layout", "make a heap, work on it if wanted, and draw it", layout_command},
    {"gc", "show what is in a dump of a collected heap, and why", gc_command},
};

enum { SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

static const char *running = NULL; /* subcommand */

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "vmkit%s%s: ", running != NULL ? " " : "", running != NULL ? running : "");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

int next_option(int argc, char **argv, const struct option *known)
{
    opterr = 0;
    int option = getopt_long(argc, argv, ":h", known, NULL);
    if (option == ':')
        complain("%s: its value is missing", argv[optind - 1]);
    if (option == '?')
        complain("%s: no such option, or not like this; see vmkit %s --help", argv[optind - 1], running);
    return option == ':' ? '?' : option;
}

static void print_help(FILE *to)
{
    fputs("usage: vmkit SUBCOMMAND [OPTION ...]\n       vmkit --version\n\n", to);
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        fprintf(to, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
    fputs("\nvmkit SUBCOMMAND --help tells its options.\n", to);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return TOOL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return TOOL_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("vmkit %d.%d.%d\n", VMK_VERSION_MAJOR, VMK_VERSION_MINOR, VMK_VERSION_PATCH);
        return TOOL_DONE;
    }
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            running = subcommands[i].name;
            return subcommands[i].run(argc - 1, argv + 1);
        }
    }
    complain("%s: no such subcommand; see vmkit --help", argv[1]);
    return TOOL_USAGE;
}

int main(int argc, char **argv)
{
    static char buffer[16 * 1024]; /* stdio's own would come from malloc, which may have nothing left */
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        complain("standard output can't be written");
        return code != TOOL_DONE ? code : TOOL_FAILED;
    }
    return code;
}
