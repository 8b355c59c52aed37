/* SPDX-License-Identifier: MIT
 *
 * What it costs to watch writes: of a range whose pages all have memory, and which is watched by one kind or another.
 */
#include <string.h>

#include "bench.h"
#include "vm.h"

enum { THOUSAND = 1000, BLOCK = 64 << 10 };

static vmk_watch_kind kind_of(const char *variant)
{
    if (strcmp(variant, "userfault") == 0)
        return VMK_WATCH_USERFAULT;
    if (strcmp(variant, "protect") == 0)
        return VMK_WATCH_PROTECT;
    bench_fail("no such variant");
}

/* Milliseconds of a collect of it all, which must report so many pages or more. */
static double collect(vmk_watch *watch, uint64_t *bits, size_t least)
{
    size_t written = 0;
    memset(bits, 0, watch->size / vmk_page_size() / 8);
    double start = bench_now();
    bench_must(vmk_watch_collect_bits(watch, 0, watch->size, bits, &written));
    double end = bench_now();
    if (written < least)
        bench_fail("written pages were not reported");
    return (end - start) * 1e3;
}

/* A write to each block of 64 KiB, the blocks in random order: nanoseconds for one. No write has another one's fault to
 * profit from. */
static double first_writes(unsigned char *base, size_t size)
{
    size_t blocks = size / BLOCK;
    uint32_t *order = bench_map(blocks * sizeof *order);
    uint64_t random = BENCH_SEED;
    for (size_t i = 0; i < blocks; i++) {
        size_t j = (size_t)(bench_random(&random) % (i + 1));
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    double start = bench_now();
    for (size_t i = 0; i < blocks; i++)
        ((volatile unsigned char *)base)[(size_t)order[i] * BLOCK] = 1;
    return (bench_now() - start) * 1e9 / (double)blocks;
}

static void write_thousand(unsigned char *base, size_t size)
{
    uint64_t random = BENCH_SEED;
    for (size_t i = 0; i < THOUSAND; i++)
        ((volatile unsigned char *)base)[bench_random(&random) % size] = 1;
}

void bench_vm_watch(const char *variant, size_t size)
{
    vmk_region region;
    vmk_watch watch;
    vmk_watch_options options = {.kind = kind_of(variant)};
    size_t pages = size / vmk_page_size();
    uint64_t *bits = bench_map(pages / 8);
    bench_touch(bits, pages / 8);
    bench_must(vmk_reserve(&region, size, NULL));
    bench_must(vmk_commit(&region, 0, size));
    double start = bench_now();
    bench_touch(region.base, size);
    double touch = (bench_now() - start) * 1e9 / (double)pages;

    start = bench_now();
    bench_must(vmk_watch_start(&watch, &region, 0, size, &options));
    double arm = (bench_now() - start) * 1e3;
    double clean = collect(&watch, bits, 0);
    double write = first_writes(region.base, size);
    (void)collect(&watch, bits, size / BLOCK);
    write_thousand(region.base, size);
    double thousand = collect(&watch, bits, THOUSAND * 9 / 10);
    start = bench_now();
    bench_touch(region.base, size);
    double each = (bench_now() - start) * 1e9 / (double)pages;
    double all = collect(&watch, bits, pages);
    printf("touch %.1f\nwrite %.1f\neach %.1f\narm %.3f\nclean %.4f\nthousand %.4f\nall %.3f\n", touch, write, each,
           arm, clean, thousand, all);
    vmk_watch_stop(&watch);
}
