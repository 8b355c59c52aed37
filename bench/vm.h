/* SPDX-License-Identifier: MIT
 *
 * The workloads of bench_vm. Each is one measurement: it gets a variant and a number whose meaning is its own, and
 * prints "metric value" lines.
 */
#ifndef VMKIT_BENCH_VM_H
#define VMKIT_BENCH_VM_H

#include <stddef.h>

void bench_vm_watch(const char *variant, size_t size);
void bench_vm_snapshot(const char *variant, size_t size);
void bench_vm_checkpoint(const char *variant, size_t size);

#endif
