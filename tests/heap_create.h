/* SPDX-License-Identifier: MIT
 *
 * Making heaps for suites of objects. In the model one of VMK_LAYOUT_32 would begin with as much as there is, and leave
 * no room for what objects take: there it is made while there is little.
 */
#ifndef VMKIT_TESTS_HEAP_CREATE_H
#define VMKIT_TESTS_HEAP_CREATE_H

#include "common/heap/heap.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

static inline vmk_status heap_create(vmk_heap **heap, const vmk_heap_options *options)
{
#ifdef VMKIT_MODEL
    vmki_heap_plan plan;
    model_rules narrow = {.address_space = 0};
    if (options->layout == VMK_LAYOUT_32 &&
        vmki_heap_plan_make(&plan, VMK_LAYOUT_32, (uint64_t)1 << (32 - VMK_HEAP_PAGE_SHIFT), SIZE_MAX))
        narrow.address_space = model_reserved() + plan.total + ((size_t)4 << 20);
    model_reset(&narrow);
    vmk_status status = vmk_heap_create(heap, options);
    model_reset(NULL);
    return status;
#else
    return vmk_heap_create(heap, options);
#endif
}

#endif
