/* SPDX-License-Identifier: MIT
 *
 * SIZE objects of 32 bytes, of which none is alive (MODE dead), or one in 64, so that no page of them is free (MODE
 * sparse).
 *
 * before: milliseconds of a collection that are not marking: what must be done before the program runs on. again: ns
 * for each of SIZE objects that are allocated afterwards, which is when the rest is swept; swept: the milliseconds of
 * it that the collector calls sweeping, where it tells.
 */
#include "work.h"

enum { APART = 64 };

typedef struct object {
    struct object *next;
    uintptr_t payload[3];
} object;

static object *kept;

__attribute__((noinline)) static void fill(size_t count, bool sparse)
{
    for (size_t i = 0; i < count; i++) {
        object *made = (object *)work_alloc(sizeof(object));
        made->payload[0] = i;
        if (sparse && i % APART == 0) {
            made->next = kept;
            kept = made;
        }
    }
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    work_collecting(false);
    fill(arguments.size, strcmp(arguments.mode, "sparse") == 0);
    work_collecting(true);
    work_scrub();
    double began = work_now();
    work_collect();
    double call = work_now() - began;
    work_result("before", (call - work_mark_time()) * 1e3);
    work_result("call", call * 1e3);
    work_collecting(false);
    began = work_now();
    fill(arguments.size, false);
    work_result("again", (work_now() - began) * 1e9 / (double)arguments.size);
    work_collecting(true);
#ifdef PEER_VMKIT
    vmk_gc_stats stats;
    work_collect();
    vmk_gc_stats_now(work_gc, &stats);
    work_result("swept", (double)stats.last.sweep_time * 1e-6);
#endif
    work_report(&arguments);
    return 0;
}
