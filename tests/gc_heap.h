/* SPDX-License-Identifier: MIT
 *
 * Collected heaps as they are by default, for suites of threads and roots.
 */
#ifndef VMKIT_TESTS_GC_HEAP_H
#define VMKIT_TESTS_GC_HEAP_H

#include "common/gc/gc.h"
#include "support.h"

static inline vmk_gc *make(unsigned flags)
{
    vmk_gc_options options = {.flags = flags};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    return gc;
}

/* When no thread is left but the suite's. */
static inline void end(vmk_gc *gc)
{
    ck_assert(vmki_gc_check(gc));
    ck_assert_uint_eq(vmki_world_count(), 1);
    vmk_gc_destroy(gc);
}

static inline void sleep_for(uint64_t nanoseconds)
{
    vmki_os_event never = {{0}};
    (void)vmki_os_event_wait(&never, nanoseconds);
}

#endif
