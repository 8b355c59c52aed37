/* SPDX-License-Identifier: MIT */
/* A cache of "files" of any size in spans of a heap: each is found again by any address in it, what is dropped merges,
 * and idle memory goes back to the system on demand. */
#include <stdio.h>

#include "vmkit.h"

enum { FILES = 200 };

int main(void)
{
    vmk_heap *heap;
    vmk_span *files[FILES];
    if (vmk_heap_create(&heap, NULL) != VMK_OK)
        return 1;
    for (size_t i = 0; i < FILES; i++) {
        if (vmk_span_alloc(heap, 1 + i % 50, 0, VMK_SPAN_ZERO, &files[i]) != VMK_OK)
            return 1;
        files[i]->owner = &files[i]; /* whatever is to be found again */
        files[i]->base[0] = (unsigned char)i;
    }
    unsigned char *somewhere = files[123]->base + 5000;
    vmk_span **found = vmk_span_of(heap, somewhere)->owner;
    printf("that address is in file %d, whose first byte is %d\n", (int)(found - files), (*found)->base[0]);
    printf("and this one in none: %p\n", (void *)vmk_span_find(heap, (uintptr_t)&heap));

    for (size_t i = 0; i < FILES; i += 2)
        vmk_span_free(heap, files[i]);
    size_t returned = vmk_heap_scavenge(heap, SIZE_MAX);
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    printf("%s layout: %zu KiB in use, %zu KiB idle, %zu KiB given back\n", vmk_layout_name(stats.layout),
           stats.in_use >> 10, stats.idle >> 10, returned >> 10);
    vmk_heap_destroy(heap); /* with all that is still in it */
    return 0;
}
