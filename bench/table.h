/* SPDX-License-Identifier: MIT */
#ifndef VMKIT_BENCH_TABLE_H
#define VMKIT_BENCH_TABLE_H

#include "vmkit.h"

#ifdef __cplusplus
extern "C" {
#endif

double bench_now(void);
void bench_fail(const char *what);
void bench_append_vector(size_t count);

#ifdef __cplusplus
}
#endif

#endif
