/* SPDX-License-Identifier: MIT
 *
 * The C library's malloc, or one that is preloaded.
 */
#include <stdlib.h>

#include "heap_startup.h"

void *startup_object(size_t i)
{
    (void)i;
    return malloc(STARTUP_SIZE);
}
