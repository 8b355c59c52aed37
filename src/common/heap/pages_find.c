/* SPDX-License-Identifier: MIT
 *
 * Looking for free pages: one walk over the tree of summaries, from left to right. It goes up wherever a group of
 * siblings begins, down where a node has a long enough run inside it, and carries along how many free pages end where
 * it has come to, for a run may lie across nodes of any level.
 */
#include "common/heap/pages.h"

#include "common/base/check.h"

enum {
    WORD_BITS = 64,
    FAN_OUT = 1 << VMKI_FAN_OUT_SHIFT,
    MISALIGNED_MAX = 16 /* so many misaligned places are looked at before settling for a run that is longer by align */
};

#define NONE SIZE_MAX

/* Where the lowest run of `count` set bits from `from` on begins; NONE if there is none in the chunk. */
static size_t find_in_chunk(const uint64_t *words, size_t from, size_t count)
{
    size_t carry = 0, i = from / WORD_BITS;
    uint64_t word = words[i] & UINT64_MAX << from % WORD_BITS;
    for (;;) {
        size_t start = ~word == 0 ? WORD_BITS : vmki_lowest_bit_64(~word);
        if (carry + start >= count)
            return i * WORD_BITS - carry;
        if (start == WORD_BITS) {
            carry += WORD_BITS;
        } else {
            uint64_t starts = count < WORD_BITS ? vmki_runs_of(word, (unsigned)count) : 0;
            if (starts != 0)
                return i * WORD_BITS + vmki_lowest_bit_64(starts);
            carry = WORD_BITS - 1 - vmki_highest_bit_64(~word);
        }
        if (++i == VMKI_CHUNK_WORDS)
            return NONE;
        word = words[i];
    }
}

static size_t find_in_leaf(const vmki_pages *pages, size_t chunk, size_t from, size_t count)
{
    const vmki_chunk *bits = (const vmki_chunk *)(const void *)pages->chunks.column[0] + chunk;
    size_t found = find_in_chunk(bits->bits[VMKI_PAGE_FREE], from, count);
    return found == NONE ? NONE : (chunk << VMKI_CHUNK_SHIFT) + found;
}

static const vmki_summary *nodes_of(const vmki_pages *pages, unsigned level)
{
    return (const vmki_summary *)(const void *)pages->levels[level].column[0];
}

static unsigned shift_of(unsigned level)
{
    return VMKI_CHUNK_SHIFT + VMKI_FAN_OUT_SHIFT * level;
}

/* How many free pages end where a node does, if so many end where it begins. */
static size_t carry_over(const vmki_summary *node, size_t carry, unsigned level)
{
    size_t size = (size_t)1 << shift_of(level);
    return node->start == size ? carry + size : node->end;
}

/* The lowest run is below this node, which holds one, or before which `carry` pages begin one. */
static size_t find_below(const vmki_pages *pages, unsigned level, size_t index, size_t carry, size_t count)
{
    while (level > 0) {
        level--;
        index <<= VMKI_FAN_OUT_SHIFT;
        for (const vmki_summary *node = nodes_of(pages, level) + index;; node++, index++) {
            if (carry + node->start >= count)
                return (index << shift_of(level)) - carry;
            if (node->max >= count)
                break;
            carry = carry_over(node, carry, level);
            VMKI_DCHECK(index % FAN_OUT != FAN_OUT - 1); /* the parent has promised that there is one */
        }
    }
    size_t found = find_in_leaf(pages, index, 0, count);
    VMKI_DCHECK(found != NONE);
    return found;
}

/* The lowest page from `from` on that has `count` free ones from it on. */
static size_t find_from(const vmki_pages *pages, size_t from, size_t count)
{
    size_t carry = 0, index = from >> VMKI_CHUNK_SHIFT, inside = from % VMKI_CHUNK_PAGES;
    unsigned level = 0;
    if (inside != 0) {
        if (index >= vmk_table_ready(&pages->levels[0]))
            return NONE;
        const vmki_summary *leaf = nodes_of(pages, 0) + index;
        size_t found = leaf->max >= count ? find_in_leaf(pages, index, inside, count) : NONE;
        if (found != NONE)
            return found;
        carry = vmki_min(leaf->end, VMKI_CHUNK_PAGES - inside);
        index++;
    }
    for (;; index++) {
        for (; index % FAN_OUT == 0 && level + 1 < pages->level_count; level++)
            index >>= VMKI_FAN_OUT_SHIFT;
        if (index >= vmk_table_ready(&pages->levels[level]))
            return NONE; /* nothing from here on was ever ensured */
        const vmki_summary *node = nodes_of(pages, level) + index;
        if (carry + node->start >= count)
            return (index << shift_of(level)) - carry;
        if (node->max >= count)
            return find_below(pages, level, index, carry, count);
        carry = carry_over(node, carry, level);
    }
}

/* The first page from `page` on that is aligned; NONE if no index can say it. */
static size_t aligned_from(const vmki_pages *pages, size_t page, size_t align)
{
    size_t address;
    if (vmki_add_overflow(page, pages->bias, &address) || vmki_ceil_overflow(address, align, &address))
        return NONE;
    return address - pages->bias;
}

size_t vmki_pages_find(const vmki_pages *pages, size_t count, size_t align)
{
    VMKI_DCHECK(count != 0 && vmki_is_power_of_two(align));
    if (count > pages->free_count)
        return NONE;
    size_t from = aligned_from(pages, pages->lowest, align);
    for (unsigned misaligned = 0; from != NONE; misaligned++) {
        size_t found = find_from(pages, from, count), enough;
        if (found == NONE)
            return NONE;
        from = aligned_from(pages, found, align);
        if (from == found)
            return found;
        if (misaligned != MISALIGNED_MAX - 1 || from == NONE || vmki_add_overflow(count, align - 1, &enough))
            continue;
        size_t roomy = find_from(pages, found, enough);
        if (roomy != NONE)
            return aligned_from(pages, roomy, align);
    }
    return NONE;
}
