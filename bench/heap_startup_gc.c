/* SPDX-License-Identifier: MIT
 *
 * The Boehm-Demers-Weiser collector, as its manual says to start it.
 */
#include <gc.h>

#include "heap_startup.h"

void *startup_object(size_t i)
{
    if (i == 0)
        GC_INIT();
    return GC_MALLOC(STARTUP_SIZE);
}
