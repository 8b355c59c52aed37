/* SPDX-License-Identifier: MIT
 *
 * The baseline: no allocator.
 */
#include "heap_startup.h"

void *startup_object(size_t i)
{
    static unsigned char memory[STARTUP_OBJECTS * STARTUP_SIZE];
    return memory + i * STARTUP_SIZE;
}
