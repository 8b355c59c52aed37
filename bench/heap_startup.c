/* SPDX-License-Identifier: MIT
 *
 * The smallest program that has 1,000 objects of 64 bytes. bench/launch.py finds the smallest limit on address space
 * under which it starts; where the objects come from is another file for each variant. No stdio, which would allocate.
 */
#include <string.h>

#include "heap_startup.h"

static void *objects[STARTUP_OBJECTS]; /* where a collector finds them */

int main(void)
{
    for (size_t i = 0; i < STARTUP_OBJECTS; i++) {
        objects[i] = startup_object(i);
        if (objects[i] == NULL)
            return 1;
        memset(objects[i], 1, STARTUP_SIZE);
    }
    return 0;
}
