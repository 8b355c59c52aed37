/* SPDX-License-Identifier: MIT */
#ifndef VMKIT_BENCH_HEAP_STARTUP_H
#define VMKIT_BENCH_HEAP_STARTUP_H

#include <stddef.h>

enum { STARTUP_OBJECTS = 1000, STARTUP_SIZE = 64 };

/* The memory of object i = 0, 1 ..., asked for in this order; NULL if there is none. */
void *startup_object(size_t i);

#endif
