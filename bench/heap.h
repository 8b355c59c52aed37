/* SPDX-License-Identifier: MIT
 *
 * The workloads of bench_heap. Each is one measurement: it gets a variant and a number whose meaning is its own, and
 * prints "metric value" lines.
 */
#ifndef VMKIT_BENCH_HEAP_H
#define VMKIT_BENCH_HEAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void bench_heap_lookup(const char *variant, size_t spans);
void bench_heap_pages(const char *variant, size_t free_runs);
void bench_heap_ladder(const char *variant, size_t rung);
void bench_heap_growth(const char *variant, size_t size);
void bench_heap_mappings(const char *variant, size_t size);

/* The peer of heap_pages.c: an allocator of pages as a balanced tree of free runs. Takes the address of the first page
 * for a handle. */
uintptr_t bench_tree_take(size_t pages);
void bench_tree_give(uintptr_t first, size_t pages);
size_t bench_tree_runs(void);

#ifdef __cplusplus
}
#endif

#endif
