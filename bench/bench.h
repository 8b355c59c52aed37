/* SPDX-License-Identifier: MIT
 *
 * What programs that measure have in common.
 */
#ifndef VMKIT_BENCH_H
#define VMKIT_BENCH_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "vmkit.h"

#define BENCH_KIB ((size_t)1 << 10)
#define BENCH_MIB ((size_t)1 << 20)
#define BENCH_GIB ((size_t)1 << 30)

/* Seconds of processor time. Our programs have one thread and never wait, so this is the time that they take, but for
 * what others on the machine take meanwhile. */
static inline double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

__attribute__((noreturn)) static inline void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static inline void bench_must(vmk_status status)
{
    if (status != VMK_OK)
        bench_fail(vmk_status_text(status));
}

#define BENCH_SEED 88172645463325252u

static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void *bench_map(size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        bench_fail("mmap failed");
    return base;
}

/* Write one byte in every page of the system's. */
static inline void bench_touch(void *base, size_t size)
{
    size_t page = vmk_page_size();
    for (size_t offset = 0; offset < size; offset += page)
        ((volatile unsigned char *)base)[offset] = 1;
}

/* Entries in the process's list of mappings. */
typedef struct bench_mappings {
    size_t all;
    size_t inside; /* of the range asked about */
} bench_mappings;

static inline bench_mappings bench_count_mappings(uintptr_t low, uintptr_t high)
{
    bench_mappings count = {0, 0};
    uintptr_t start, end;
    char line[1024];
    FILE *file = fopen("/proc/self/maps", "r");
    if (file == NULL)
        bench_fail("can't read /proc/self/maps");
    while (fgets(line, sizeof line, file) != NULL) {
        count.all++;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) == 2 && start < high && end > low)
            count.inside++;
    }
    fclose(file);
    return count;
}

#endif
