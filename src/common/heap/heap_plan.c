/* SPDX-License-Identifier: MIT
 *
 * From a window to sizes. Everything is computed before anything is reserved, and by the same functions that later lay
 * the tables out, so that a plan says exactly how much address space a heap will take.
 */
#include "common/heap/heap.h"

vmk_table_config vmki_heap_table_config(const vmki_heap_plan *plan, vmk_heap_part part)
{
    vmk_table_config config = {.capacity = plan->window_pages};
    switch (part) {
    case VMK_HEAP_REGIONS:
        config.capacity = plan->layout == VMK_LAYOUT_64 ? 1 : VMKI_ARENAS_MAX;
        config.column_bits[0] = sizeof(vmki_arena) * 8;
        config.flags = VMK_TABLE_EXACT;
        break;
    case VMK_HEAP_SPANS:
        config.column_bits[0] = sizeof(uint32_t) * 8;
        config.column_bits[1] = 8;
        config.column_bits[2] = sizeof(uintptr_t) * 8;
        config.tail = 1; /* whoever looks at what follows a span must not fault behind the last one */
        config.flags = plan->sparse ? VMK_TABLE_SPARSE : VMK_TABLE_EXACT;
        break;
    case VMK_HEAP_RECORDS:
        /* Id 0 is nobody's. More ids than an entry can say would need a window of 32 TiB full of spans of one page. */
        config.capacity = plan->window_pages < UINT32_MAX ? plan->window_pages + 1 : UINT32_MAX;
        config.column_bits[0] = sizeof(vmk_span) * 8;
        break;
    default:
        config.column_bits[0] = VMK_HEAP_PAGE_SIZE / 16; /* one bit for each 16 bytes */
        config.flags = VMK_TABLE_SPARSE;
        break;
    }
    return config;
}

/* The bits that say which chunks have tables. */
static size_t present_size(const vmki_heap_plan *plan)
{
    return plan->sparse ? vmki_ceil(plan->window_pages >> VMKI_CHUNK_SHIFT, 32) / 8 : 0;
}

static bool part_size(const vmki_heap_plan *plan, vmk_heap_part part, size_t *size)
{
    vmk_table_config config;
    switch (part) {
    case VMK_HEAP_HEADER:
        return !vmki_ceil_overflow(sizeof(vmki_heap) + present_size(plan), vmk_page_size(), size);
    case VMK_HEAP_PAGES:
        *size = vmki_pages_space(plan->window_pages >> VMKI_CHUNK_SHIFT, plan->sparse);
        return true;
    case VMK_HEAP_ARENA:
        *size = 0;
        return plan->layout != VMK_LAYOUT_64 || !vmki_mul_overflow(plan->window_pages, VMK_HEAP_PAGE_SIZE, size);
    default:
        config = vmki_heap_table_config(plan, part);
        return vmk_table_space(&config, size) == VMK_OK;
    }
}

bool vmki_heap_plan_make(vmki_heap_plan *plan, vmk_layout layout, uint64_t window_pages, uint64_t arena_pages)
{
    uint64_t limit = vmki_min64(VMKI_WINDOW_MAX_PAGES, ((uint64_t)UINTPTR_MAX >> VMK_HEAP_PAGE_SHIFT) + 1);
    if (window_pages == 0 || window_pages > limit)
        return false;
    *plan = (vmki_heap_plan){.layout = layout, .sparse = layout != VMK_LAYOUT_64};
    plan->window_pages = vmki_ceil((size_t)window_pages, VMKI_CHUNK_PAGES);
    plan->arena_pages = (size_t)vmki_min64(arena_pages, plan->window_pages);
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        size_t size;
        /* The arena starts on a chunk, for huge pages and for indices that agree with addresses. */
        size_t align = part == VMK_HEAP_ARENA ? VMKI_CHUNK_SIZE : vmk_page_size();
        if (!part_size(plan, (vmk_heap_part)part, &size))
            return false;
        if (part == VMK_HEAP_ARENA && size == 0)
            continue;
        if (vmki_ceil_overflow(plan->total, align, &plan->offset[part]) ||
            vmki_add_overflow(plan->offset[part], size, &plan->total))
            return false;
        plan->size[part] = size;
    }
    return true;
}

/* Tables for an arena of that many pages, and the arena: do they fit? */
static bool limited_fits(vmki_heap_plan *plan, uint64_t arena_pages, bool centred, uint64_t budget)
{
    uint64_t chunks = (arena_pages + VMKI_CHUNK_PAGES - 1) >> VMKI_CHUNK_SHIFT;
    uint64_t window = (centred ? 2 * chunks : chunks) << VMKI_CHUNK_SHIFT;
    uint64_t most = ((uint64_t)UINTPTR_MAX >> VMK_HEAP_PAGE_SHIFT) + 1;
    return vmki_heap_plan_make(plan, VMK_LAYOUT_LIMITED, vmki_min64(window, most), arena_pages) &&
           plan->total <= budget && (arena_pages << VMK_HEAP_PAGE_SHIFT) <= budget - plan->total;
}

bool vmki_heap_plan_limited(vmki_heap_plan *plan, uint64_t budget, uint64_t most, bool centred)
{
    const uint64_t quantum = VMKI_QUANTUM >> VMK_HEAP_PAGE_SHIFT;
    uint64_t pages = vmki_min64(vmki_min64(budget, most) >> VMK_HEAP_PAGE_SHIFT, VMKI_WINDOW_MAX_PAGES / 2);
    uint64_t low = 1, high = vmki_min64(pages, UINTPTR_MAX >> VMK_HEAP_PAGE_SHIFT) / quantum + 1;
    if (!limited_fits(plan, quantum, centred, budget))
        return false;
    while (high - low > 1) { /* `low` quanta fit, `high` do not, or are more than was asked for */
        uint64_t middle = low + (high - low) / 2;
        if (limited_fits(plan, middle * quantum, centred, budget))
            low = middle;
        else
            high = middle;
    }
    return limited_fits(plan, low * quantum, centred, budget);
}
