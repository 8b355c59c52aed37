/* SPDX-License-Identifier: MIT
 *
 * bench_vm WORKLOAD VARIANT NUMBER: one measurement of a service of the vm layer, in a process of its own. Prints
 * "metric value" lines. bench/run.py runs the variants in turn and compares them.
 */
#include <string.h>

#include "bench.h"
#include "vm.h"

static vmk_region committed(size_t size)
{
    vmk_region region;
    bench_must(vmk_reserve(&region, size, NULL));
    bench_must(vmk_commit(&region, 0, size));
    return region;
}

/* --- guards ----------------------------------------------------------------------------------------------------- */

/* Every other page a guard, until so many are set or the system has had enough. */
static void guards(const char *variant, size_t number)
{
    size_t page = vmk_page_size(), set = 0, before = bench_count_mappings(0, 0).all;
    bool by_protection = strcmp(variant, "mprotect") == 0;
    vmk_region region = committed(2 * number * page);
    double start = bench_now();
    while (set < number && (by_protection ? mprotect(region.base + 2 * set * page, page, PROT_NONE) == 0
                                          : vmk_guard_set(&region, 2 * set * page, page) == VMK_OK))
        set++;
    double end = bench_now();
    size_t more = bench_count_mappings(0, 0).all - before;
    printf("ns %.1f\nmappings %zu\nset %zu\n", (end - start) * 1e9 / (double)set, more, set);
}

/* --- batches ---------------------------------------------------------------------------------------------------- */

enum { RANGE = 64 << 10, MOST_RANGES = 1 << 16 };

/* Ranges of 64 KiB, as much apart, all touched: back to the system. */
static void batch(const char *variant, size_t number)
{
    static vmk_run ranges[MOST_RANGES];
    vmk_region region = committed(2 * number * RANGE);
    bench_touch(region.base, region.size);
    for (size_t i = 0; i < number; i++)
        ranges[i] = (vmk_run){2 * i * RANGE, RANGE};
    size_t before = bench_count_mappings(0, 0).all;
    double start = bench_now();
    if (strcmp(variant, "decommit-batch") == 0) {
        bench_must(vmk_decommit_batch(&region, ranges, number, NULL));
    } else if (strcmp(variant, "discard-batch") == 0) {
        bench_must(vmk_discard_batch(&region, ranges, number, NULL));
    } else if (strcmp(variant, "decommit") == 0) {
        for (size_t i = 0; i < number; i++)
            bench_must(vmk_decommit(&region, ranges[i].offset, ranges[i].size));
    } else if (strcmp(variant, "discard") == 0) {
        for (size_t i = 0; i < number; i++)
            bench_must(vmk_discard(&region, ranges[i].offset, ranges[i].size));
    } else {
        bench_fail("no such variant");
    }
    double end = bench_now();
    printf("us %.2f\nmappings %zu\n", (end - start) * 1e6, bench_count_mappings(0, 0).all - before);
}

/* --- prefault --------------------------------------------------------------------------------------------------- */

static void prefault(const char *variant, size_t size)
{
    vmk_region region = committed(size);
    double start = bench_now();
    if (strcmp(variant, "prefault") == 0)
        bench_must(vmk_prefault(&region, 0, size));
    else
        bench_touch(region.base, size);
    printf("ns %.2f\n", (bench_now() - start) * 1e9 / (double)(size / vmk_page_size()));
}

/* --- warm ------------------------------------------------------------------------------------------------------- */

/* Touch and give back as much memory as any variant will need: see warm in bench/table.c. */
static void warm(const char *variant, size_t size)
{
    (void)variant;
    void *base = bench_map(size);
    bench_touch(base, size);
}

/* --- all -------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(const char *variant, size_t number);
} workloads[] = {{"guards", guards},
                 {"batch", batch},
                 {"prefault", prefault},
                 {"watch", bench_vm_watch},
                 {"snapshot", bench_vm_snapshot},
                 {"checkpoint", bench_vm_checkpoint},
                 {"warm", warm}};

int main(int argc, char **argv)
{
    size_t number = argc == 4 ? (size_t)strtoull(argv[3], NULL, 10) : 0;
    if (number == 0)
        bench_fail("usage: bench_vm WORKLOAD VARIANT NUMBER");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(argv[1], workloads[i].name) == 0) {
            workloads[i].run(argv[2], number);
            return 0;
        }
    }
    bench_fail("no such workload");
}
