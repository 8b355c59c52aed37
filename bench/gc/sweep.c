/* SPDX-License-Identifier: MIT
 *
 * SIZE objects of 32 bytes, of which none is alive (MODE dead), or one in 64, so that no page of them is free (MODE
 * sparse), while collectors keep the memory that they have; returned: as dead, and vmkit gives memory back as it does
 * by default after a big drop.
 *
 * before: milliseconds of the call that are not marking: what must be done before the caller runs on; still: of the
 * pause, before other threads do. again: ns
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

static void run_on(size_t count, bool sparse)
{
    work_collecting(false);
    fill(count, sparse);
    work_collecting(true);
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
#ifdef PEER_VMKIT /* else it gives back at once what so much less live data does not need */
    if (strcmp(arguments.mode, "returned") != 0) {
        vmk_gc_pace pace = {.min_heap = 2 * arguments.size * sizeof(object)};
        vmk_gc_pace_set(work_gc, &pace);
    }
#endif
    run_on((size_t)1 << 17, false);
    work_collect(); /* the first one that has something to do starts threads */
    run_on(arguments.size, strcmp(arguments.mode, "sparse") == 0);
    work_scrub();
    double paused_before = work_pauses_now().seconds, began = work_now();
    work_collect();
    double call = work_now() - began, paused = work_pauses_now().seconds - paused_before;
    work_result("before", (call - work_mark_time()) * 1e3);
    work_result("still", (paused - work_mark_time()) * 1e3);
    work_result("call", call * 1e3);
    began = work_now();
    run_on(arguments.size, false);
    work_result("again", (work_now() - began) * 1e9 / (double)arguments.size);
#ifdef PEER_VMKIT
    vmk_gc_stats stats;
    work_collect();
    vmk_gc_stats_now(work_gc, &stats);
    work_result("swept", (double)stats.last.sweep_time * 1e-6);
#endif
    work_report(&arguments);
    return 0;
}
