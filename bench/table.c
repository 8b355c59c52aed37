/* SPDX-License-Identifier: MIT
 *
 * bench_table WORKLOAD VARIANT COUNT: one measurement in a process of its own, so that peak memory is the
 * measurement's. Prints "key value" lines. bench/run.py runs the variants in turn and compares them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "table.h"

VMK_TABLE_DEFINE(numbers, uint64_t);

double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void bench_fail(const char *what)
{
    fprintf(stderr, "bench_table: %s\n", what);
    exit(1);
}

static void must(vmk_status status)
{
    if (status != VMK_OK)
        bench_fail(vmk_status_text(status));
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A plain private mapping, as a program would make it that knows its final size. */
static uint64_t *map_plain(size_t count, int advice)
{
    void *base = mmap(NULL, count * sizeof(uint64_t) + (2 << 20), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        bench_fail("mmap failed");
    /* Where a table of this size would start, too: the same alignment for both. */
    base = (void *)(((uintptr_t)base + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
    if (advice != 0 && madvise(base, count * sizeof(uint64_t), advice) != 0)
        bench_fail("madvise failed");
    return base;
}

/* --- append ----------------------------------------------------------------------------------------------------- */

static void append_table(size_t count, unsigned flags)
{
    numbers t;
    vmk_table_config config = {.capacity = count, .flags = flags};
    must(numbers_init_as(&t, &config));
    for (size_t i = 0; i < count; i++) {
        must(numbers_ensure(&t, i + 1));
        *numbers_at(&t, i) = i;
    }
}

/* The same for who knows that ready only rises: the check is on a number in a register. */
static void append_known(size_t count)
{
    numbers t;
    vmk_table_config config = {.capacity = count};
    must(numbers_init_as(&t, &config));
    uint64_t *base = numbers_base(&t);
    for (size_t i = 0, ready = 0; i < count; i++) {
        if (i == ready) {
            must(numbers_ensure(&t, i + 1));
            ready = numbers_ready(&t);
        }
        ((volatile uint64_t *)base)[i] = i;
    }
}

static void append_plain(size_t count, int advice)
{
    uint64_t *base = map_plain(count, advice);
    for (size_t i = 0; i < count; i++)
        ((volatile uint64_t *)base)[i] = i;
}

static void append_realloc(size_t count)
{
    uint64_t *base = NULL;
    for (size_t i = 0, room = 0; i < count; i++) {
        if (i == room) {
            room = room == 0 ? 512 : 2 * room;
            base = realloc(base, room * sizeof *base);
            if (base == NULL)
                bench_fail("realloc failed");
        }
        ((volatile uint64_t *)base)[i] = i;
    }
}

static void append(const char *variant, size_t count)
{
    double start = bench_now();
    if (strcmp(variant, "table") == 0)
        append_table(count, 0);
    else if (strcmp(variant, "table-known") == 0)
        append_known(count);
    else if (strcmp(variant, "table-huge") == 0)
        append_table(count, VMK_TABLE_HUGE);
    else if (strcmp(variant, "mapping") == 0)
        append_plain(count, 0);
    else if (strcmp(variant, "mapping-huge") == 0)
        append_plain(count, MADV_HUGEPAGE);
    else if (strcmp(variant, "realloc") == 0)
        append_realloc(count);
    else if (strcmp(variant, "vector") == 0)
        bench_append_vector(count);
    else
        bench_fail("no such variant of append");
    double end = bench_now();
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("ns %.4f\n", (end - start) * 1e9 / (double)count);
    printf("peak %.6f\n", (double)usage.ru_maxrss * 1024 / (double)(count * sizeof(uint64_t)));
}

/* Touch and give back as much memory as any variant will need. Hypervisors take memory that a guest does not use, and
 * the next to touch it pays for getting it back, many times the cost of a page fault: without this each variant would
 * be measured by what ran before it. */
static void warm(size_t count)
{
    size_t words = 3 * count;
    uint64_t *base = map_plain(words, MADV_HUGEPAGE);
    for (size_t i = 0; i < words; i += 512)
        base[i] = 1;
}

/* --- lookup ----------------------------------------------------------------------------------------------------- */

enum { LOOKUPS = 1 << 26 };

/* Both in functions of their own, which docs/benchmarks.md shows disassembled. */
__attribute__((noinline)) uint64_t probe_table(const numbers *t, size_t index)
{
    return *numbers_at(t, index);
}

__attribute__((noinline)) uint64_t probe_array(uint64_t *const *array, size_t index)
{
    return (*array)[index];
}

__attribute__((noinline)) vmk_status probe_ensure(numbers *t, size_t count)
{
    return numbers_ensure(t, count);
}

__attribute__((noinline)) static uint64_t sum_table(const numbers *t, size_t mask)
{
    uint64_t random = 88172645463325252u, sum = 0;
    for (size_t i = 0; i < LOOKUPS; i++)
        sum += *numbers_at(t, next_random(&random) & mask);
    return sum;
}

__attribute__((noinline)) static uint64_t sum_array(uint64_t *const *array, size_t mask)
{
    uint64_t random = 88172645463325252u, sum = 0;
    for (size_t i = 0; i < LOOKUPS; i++)
        sum += (*array)[next_random(&random) & mask];
    return sum;
}

static void lookup(const char *variant, size_t count)
{
    numbers t;
    uint64_t *array = NULL, sum;
    bool table = strcmp(variant, "table") == 0;
    if (table) {
        must(numbers_init(&t, count));
        must(numbers_ensure(&t, count));
        for (size_t i = 0; i < count; i++)
            *numbers_at(&t, i) = i;
    } else {
        array = map_plain(count, 0);
        for (size_t i = 0; i < count; i++)
            array[i] = i;
    }
    double start = bench_now();
    sum = table ? sum_table(&t, count - 1) : sum_array(&array, count - 1);
    double end = bench_now();
    printf("ns %.4f\nsum %" PRIu64 "\n", (end - start) * 1e9 / LOOKUPS, sum);
}

/* --- ensure ----------------------------------------------------------------------------------------------------- */

/* A store into a table that is ready, with and without the check. */
static void ensured_store(const char *variant, size_t count)
{
    numbers t;
    must(numbers_init(&t, count));
    must(numbers_ensure(&t, count));
    memset(numbers_base(&t), 1, count * sizeof(uint64_t));
    bool check = strcmp(variant, "checked") == 0;
    double start = bench_now();
    for (int round = 0; round < 64; round++) {
        if (check) {
            for (size_t i = 0; i < count; i++) {
                if (numbers_ensure(&t, i + 1) != VMK_OK)
                    bench_fail("not ready");
                *(volatile uint64_t *)numbers_at(&t, i) = i;
            }
        } else {
            for (size_t i = 0; i < count; i++)
                *(volatile uint64_t *)numbers_at(&t, i) = i;
        }
    }
    double end = bench_now();
    printf("ns %.4f\n", (end - start) * 1e9 / 64 / (double)count);
}

/* --- sparse ----------------------------------------------------------------------------------------------------- */

/* One element in every GiB of an index of 64 GiB. */
static void sparse(void)
{
    numbers t;
    vmk_table_config config = {.capacity = (size_t)1 << 33, .flags = VMK_TABLE_SPARSE};
    vmk_table_stats stats;
    must(numbers_init_as(&t, &config));
    for (size_t i = 0; i < 64; i++) {
        must(numbers_ensure_range(&t, i << 27, 1));
        *numbers_at(&t, i << 27) = i;
    }
    vmk_table_stats_now(&t.table, &stats);
    printf("committed %zu\noverhead %zu\n", stats.committed, stats.overhead);
}

int main(int argc, char **argv)
{
    size_t count = argc == 4 ? (size_t)strtoull(argv[3], NULL, 10) : 0;
    if (count == 0)
        bench_fail("usage: bench_table WORKLOAD VARIANT COUNT");
    if (strcmp(argv[1], "append") == 0)
        append(argv[2], count);
    else if (strcmp(argv[1], "lookup") == 0)
        lookup(argv[2], count);
    else if (strcmp(argv[1], "ensure") == 0)
        ensured_store(argv[2], count);
    else if (strcmp(argv[1], "sparse") == 0)
        sparse();
    else if (strcmp(argv[1], "warm") == 0)
        warm(count);
    else
        bench_fail("no such workload");
    return 0;
}
