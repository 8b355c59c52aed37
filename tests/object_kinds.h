/* SPDX-License-Identifier: MIT
 *
 * What the suites of objects that run in every kind of heap have in common: all layouts, plain and hardened.
 */
#ifndef VMKIT_TESTS_OBJECT_KINDS_H
#define VMKIT_TESTS_OBJECT_KINDS_H

#include "heap_create.h"

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

#define PAGE VMK_HEAP_PAGE_SIZE
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SMALL_MAX VMK_OBJECT_SMALL_MAX

/* The model OS has little address space. */
#ifdef VMKIT_MODEL
#define WINDOW (32 * MIB)
#else
#define WINDOW (256 * MIB)
#endif

static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0], KINDS = 2 * LAYOUTS };

#endif
