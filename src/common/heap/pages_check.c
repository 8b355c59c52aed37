/* SPDX-License-Identifier: MIT
 *
 * Is a set of pages as it should be? For tests, so it shares nothing with what it checks: page by page, and node by
 * node from the left.
 */
#include "common/heap/pages.h"

#include "common/table/table.h"

/* A run of free pages, or of used ones, comes next in what is summarised. */
static void append(vmki_summary *sum, size_t *so_far, const vmki_summary *next, size_t size)
{
    if (sum->start == *so_far)
        sum->start += next->start;
    if (sum->end + next->start > sum->max)
        sum->max = sum->end + next->start;
    if (next->max > sum->max)
        sum->max = next->max;
    sum->end = next->end == size ? sum->end + next->end : next->end;
    *so_far += size;
}

static bool equal(const vmki_summary *a, const vmki_summary *b)
{
    return a->start == b->start && a->max == b->max && a->end == b->end;
}

static const vmki_summary *node_at(const vmki_pages *pages, unsigned level, size_t index)
{
    static const vmki_summary nothing;
    const vmki_summary *nodes = (const vmki_summary *)(const void *)pages->levels[level].column[0];
    return index < vmk_table_ready(&pages->levels[level]) ? &nodes[index] : &nothing;
}

/* The summary of a chunk by its bits; adds to *free_count, and sees that nothing is free below `lowest`. */
static bool chunk_check(const vmki_pages *pages, size_t chunk, size_t *free_count)
{
    static const vmki_summary used = {0, 0, 0}, free_page = {1, 1, 1};
    vmki_summary sum = used;
    const vmki_chunk *bits = vmk_table_get(&pages->chunks, 0, chunk);
    if (bits == NULL)
        return equal(node_at(pages, 0, chunk), &used);
    for (size_t page = 0; page < VMKI_CHUNK_PAGES;) {
        bool is_free = (bits->bits[VMKI_PAGE_FREE][page / 64] >> page % 64 & 1) != 0;
        if (is_free && (chunk << VMKI_CHUNK_SHIFT) + page < pages->lowest)
            return false;
        *free_count += is_free;
        append(&sum, &page, is_free ? &free_page : &used, 1);
    }
    /* A dense table may have more than was ensured, up to the end of an OS page. */
    bool slack = (pages->chunks.flags & VMK_TABLE_SPARSE) == 0 && sum.max == 0;
    return (chunk < pages->chunk_limit || slack) && equal(node_at(pages, 0, chunk), &sum);
}

/* Does every node of a level that is ready agree with the sixteen under it, and are they ready if they must be? */
static bool level_check(const vmki_pages *pages, unsigned level)
{
    size_t size = (size_t)VMKI_CHUNK_PAGES << VMKI_FAN_OUT_SHIFT * (level - 1), fan_out = 1u << VMKI_FAN_OUT_SHIFT;
    for (size_t node = 0; node < vmk_table_ready(&pages->levels[level]); node++) {
        vmki_summary sum = {0, 0, 0};
        size_t so_far = 0, child = node * fan_out;
        for (size_t i = 0; i < fan_out; i++)
            append(&sum, &so_far, node_at(pages, level - 1, child + i), size);
        if (!equal(node_at(pages, level, node), &sum))
            return false;
        if (sum.max != 0 && child + fan_out > vmk_table_ready(&pages->levels[level - 1]))
            return false;
    }
    return true;
}

bool vmki_pages_check(const vmki_pages *pages)
{
    size_t free_count = 0;
    bool dense = (pages->chunks.flags & VMK_TABLE_SPARSE) == 0;
    if (!vmki_table_check(&pages->chunks) || pages->chunk_limit > pages->chunk_count)
        return false;
    if (dense && pages->chunk_limit > vmk_table_ready(&pages->chunks))
        return false;
    for (unsigned level = 0; level < pages->level_count; level++) {
        size_t shift = VMKI_FAN_OUT_SHIFT * level, nodes = (pages->chunk_limit + ((size_t)1 << shift) - 1) >> shift;
        if (!vmki_table_check(&pages->levels[level]) || vmk_table_ready(&pages->levels[level]) < nodes)
            return false;
    }
    size_t limit = vmki_max(dense ? pages->chunk_limit : pages->chunk_count, vmk_table_ready(&pages->levels[0]));
    for (size_t chunk = 0; chunk < vmki_min(limit, pages->chunk_count); chunk++)
        if (!chunk_check(pages, chunk, &free_count))
            return false;
    for (unsigned level = 1; level < pages->level_count; level++)
        if (!level_check(pages, level))
            return false;
    return free_count == pages->free_count;
}
