/* SPDX-License-Identifier: MIT
 *
 * lisp [OPTION ...] [FILE ...] [-- ARGUMENT ...]: runs the programs in the files, one after the other, or the one on
 * standard input. */
#include "lisp.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#endif

static void usage_and_exit(void)
{
    fprintf(stderr, "usage: lisp [OPTION ...] [FILE ...] [-- ARGUMENT ...]\n"
                    "  --precise         tell the collector where all values are; else it scans the C stack for them\n"
                    "  --stats           a line on standard error for each cycle, and a summary\n"
                    "  --heap-limit MIB  let the heap become no larger\n"
                    "  --stress          collect at every allocation\n"
                    "  --verify          check the heap after every cycle\n");
    exit(2);
}

static void print_cycle(void *context, const vmk_gc_event *event)
{
    (void)context;
    fprintf(stderr, "%6" PRIu64 "  %-16s %10.0f %10zu %10zu\n", event->number, vmk_gc_cause_name(event->cause),
            (double)event->pause / 1000, event->live_bytes >> 10, event->heap_size >> 10);
}

static int read_options(int argc, char **argv, vmk_gc_options *options)
{
    int at = 1;
    for (; at < argc && argv[at][0] == '-' && strcmp(argv[at], "--") != 0; at++) {
        if (strcmp(argv[at], "--precise") == 0)
            options->flags |= VMK_GC_NO_STACKS | VMK_GC_NO_STATIC;
        else if (strcmp(argv[at], "--stress") == 0)
            options->flags |= VMK_GC_STRESS;
        else if (strcmp(argv[at], "--verify") == 0)
            options->flags |= VMK_GC_VERIFY;
        else if (strcmp(argv[at], "--stats") == 0)
            options->on_event = print_cycle;
        else if (strcmp(argv[at], "--heap-limit") == 0 && at + 1 < argc && atoi(argv[at + 1]) > 0)
            options->pace.hard_limit = (size_t)atoi(argv[++at]) << 20;
        else
            usage_and_exit();
    }
    return at;
}

int main(int argc, char **argv)
{
    lisp l;
    vmk_gc_options options = {0};
    int at = read_options(argc, argv, &options), end = at;
    while (end < argc && strcmp(argv[end], "--") != 0)
        end++;
#if defined(_WIN32) /* a line ends alike everywhere */
    (void)_setmode(0, _O_BINARY);
    (void)_setmode(1, _O_BINARY);
#endif
    if (options.on_event != NULL)
        fprintf(stderr, "%6s  %-16s %10s %10s %10s\n", "cycle", "because", "pause, us", "live, KiB", "heap, KiB");
    lisp_init(&l, &options);
    for (int i = argc; --i > end;)
        l.arguments = new_pair(&l, new_string(&l, argv[i], strlen(argv[i])), l.arguments);
    if (at == end)
        load(&l, "standard input", read_file(&l, NULL));
    for (; at < end; at++)
        load(&l, argv[at], read_file(&l, argv[at]));
    vmk_gc_stats stats;
    vmk_gc_stats_now(l.gc, &stats);
    if (options.on_event != NULL)
        fprintf(stderr, "%" PRIu64 " cycles, %.1f ms of pauses, the longest %.0f us; %.1f MiB allocated\n",
                stats.cycles, (double)stats.pause_total / 1e6, (double)stats.pause_max / 1e3,
                (double)stats.allocated_total / (1 << 20));
    vmk_gc_destroy(l.gc);
    return fflush(stdout) != 0;
}
