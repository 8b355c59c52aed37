/* SPDX-License-Identifier: MIT
 *
 * The state of a program at one moment: in memory, by a snapshot or a copy; in a file, all of it or what has changed,
 * by the code of examples/checkpoint.
 */
#include <string.h>

#include "../examples/checkpoint/checkpoint.h"
#include "bench.h"
#include "vm.h"

static double wall(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A write in one page of a hundred, at random. */
static void change(unsigned char *base, size_t size)
{
    uint64_t random = BENCH_SEED;
    for (size_t i = 0; i < size / vmk_page_size() / 100; i++)
        ((volatile unsigned char *)base)[bench_random(&random) % size]++;
}

/* Take it, go on and change one page in a hundred, have done with it. */
void bench_vm_snapshot(const char *variant, size_t size)
{
    vmk_memory memory;
    vmk_view view;
    vmk_snapshot snapshot = {0};
    bool copying = strcmp(variant, "memcpy") == 0;
    unsigned char *copy = NULL;
    bench_must(vmk_memory_init(&memory, size));
    bench_must(vmk_view_map(&view, &memory, 0, size, VMK_VIEW_SHARED));
    bench_touch(view.base, size);
    double start = bench_now();
    if (copying)
        memcpy(copy = bench_map(size), view.base, size);
    else
        bench_must(vmk_snapshot_take(&snapshot, &view));
    double taken = bench_now();
    change(view.base, size);
    double changed = bench_now();
    if (copying)
        munmap(copy, size);
    else
        bench_must(vmk_snapshot_drop(&snapshot));
    double dropped = bench_now();
    printf("take %.4f\nchange %.4f\ndrop %.4f\n", (taken - start) * 1e3, (changed - taken) * 1e3,
           (dropped - changed) * 1e3);
}

/* A checkpoint when one page in a hundred has changed since the last; "all": as if all had. To the disk and back. */
void bench_vm_checkpoint(const char *variant, size_t size)
{
    const char *path = "bench-checkpoint.tmp";
    vmk_region region;
    checkpoint c;
    uint64_t bytes;
    vmk_reserve_options options = {.flags = VMK_RESERVE_WATCH};
    bench_must(vmk_reserve(&region, size, &options));
    bench_must(vmk_commit(&region, 0, size));
    bench_touch(region.base, size);
    (void)remove(path);
    if (!checkpoint_open(&c, &region, path) || !checkpoint_write(&c, &bytes))
        bench_fail("no checkpoint");
    change(region.base, size);
    if (strcmp(variant, "all") == 0)
        memset(c.pending, 0xff, size / vmk_page_size() / 8);
    double start = wall();
    bool good = checkpoint_write(&c, &bytes);
    double end = wall();
    checkpoint_close(&c);
    (void)remove(path);
    if (!good)
        bench_fail("no checkpoint");
    printf("ms %.3f\nMiB %.2f\n", (end - start) * 1e3, (double)bytes / (double)BENCH_MIB);
}
