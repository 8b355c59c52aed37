/* SPDX-License-Identifier: MIT
 *
 * The table of classes. A slab has at least four slots, and so many pages more as it takes to leave no more than a
 * sixteenth of it over.
 */
#include "common/heap/class.h"

#include "common/base/check.h"

enum { SLOTS_LEAST = 4, LEFT_OVER_DIVISOR = 16 };

vmki_class vmki_classes[VMK_CLASSES];
uint8_t vmki_class_by_granules[VMKI_CLASS_TABLED / VMKI_GRANULE + 1];

static uint32_t pages_for(size_t size)
{
    size_t pages = (size * SLOTS_LEAST + VMK_HEAP_PAGE_SIZE - 1) >> VMK_HEAP_PAGE_SHIFT;
    while ((pages << VMK_HEAP_PAGE_SHIFT) % size > (pages << VMK_HEAP_PAGE_SHIFT) / LEFT_OVER_DIVISOR)
        pages++;
    return (uint32_t)pages;
}

static uint32_t depth_for(size_t size)
{
    return (uint32_t)vmki_min(vmki_max(VMKI_STACK_BYTES / size, VMKI_STACK_LEAST), VMKI_STACK_MOST);
}

static vmki_class class_make(unsigned size_class)
{
    size_t size = vmki_class_size(size_class), granules = size >> VMKI_GRANULE_SHIFT;
    vmki_class c = {
        .size = (uint32_t)size, .granules = (uint32_t)granules, .pages = pages_for(size), .depth = depth_for(size)};
    c.back = granules <= VMKI_WORD_BITS ? (uint32_t)(VMKI_WORD_BITS % granules) : VMKI_WORD_BITS;
    for (size_t bit = 0; bit < VMKI_WORD_BITS; bit += granules)
        c.pattern |= (size_t)1 << bit;
    return c;
}

void vmki_classes_init(void)
{
    for (unsigned i = 1; i < VMK_CLASSES; i++)
        vmki_classes[i] = class_make(i);
    for (size_t size = 0; size <= VMKI_CLASS_TABLED; size += VMKI_GRANULE)
        vmki_class_by_granules[size >> VMKI_GRANULE_SHIFT] = (uint8_t)vmki_class_computed(size);
    VMKI_ASSERT(vmki_classes[VMK_CLASSES - 1].size == VMK_OBJECT_SMALL_MAX);
}
