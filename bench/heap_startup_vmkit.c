/* SPDX-License-Identifier: MIT
 *
 * A heap, and spans of one page until the objects fit.
 */
#include "heap_startup.h"
#include "vmkit.h"

void *startup_object(size_t i)
{
    static vmk_heap *heap;
    static vmk_span *span;
    if (heap == NULL && vmk_heap_create(&heap, NULL) != VMK_OK)
        return NULL;
    size_t offset = i * STARTUP_SIZE % VMK_HEAP_PAGE_SIZE;
    if (offset == 0 && vmk_span_alloc(heap, 1, 0, 0, &span) != VMK_OK)
        return NULL;
    return span->base + offset;
}
