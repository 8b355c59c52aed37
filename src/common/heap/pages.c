/* SPDX-License-Identifier: MIT
 *
 * Which pages are free: the bits, and the summaries over them. The way of both into memory and back, and all that reads
 * the bits; looking for a run by the summaries is in pages_find.c.
 *
 * What may be read. A node's summary is other than zero only if some page under it is free, so all sixteen children of
 * such a node, and a chunk whose own summary is not zero, were ensured. Whatever else is to be read must lie below what
 * its table says is ready.
 */
#include "common/heap/pages.h"

#include <string.h>

#include "common/base/check.h"
#include "common/table/index_set.h"
#include "common/vm/vm.h"

enum { WORD_BITS = 64, FAN_OUT = 1 << VMKI_FAN_OUT_SHIFT };

static vmki_chunk *chunk_at(const vmki_pages *pages, size_t chunk)
{
    return (vmki_chunk *)(void *)pages->chunks.column[0] + chunk;
}

static vmki_summary *nodes_of(const vmki_pages *pages, unsigned level)
{
    return (vmki_summary *)(void *)pages->levels[level].column[0];
}

static bool is_sparse(const vmki_pages *pages)
{
    return (pages->chunks.flags & VMK_TABLE_SPARSE) != 0;
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* The nodes of a level that must be there for so many chunks: siblings are read together. */
static size_t nodes_for(size_t chunks, unsigned level)
{
    unsigned shift = VMKI_FAN_OUT_SHIFT * level;
    return vmki_ceil((chunks + (((size_t)1 << shift) - 1)) >> shift, FAN_OUT);
}

static unsigned levels_for(size_t chunk_count)
{
    unsigned levels = 1;
    while ((chunk_count - 1) >> (VMKI_FAN_OUT_SHIFT * (levels - 1)) >= VMKI_TOP_NODES_MAX)
        levels++;
    return levels;
}

static vmk_table_config chunks_config(size_t chunk_count, bool sparse)
{
    return (vmk_table_config){.capacity = chunk_count,
                              .column_bits = {sizeof(vmki_chunk) * 8, sizeof(uint64_t) * 8},
                              .flags = sparse ? VMK_TABLE_SPARSE : VMK_TABLE_EXACT};
}

static vmk_table_config level_config(size_t chunk_count, unsigned level)
{
    return (vmk_table_config){
        .capacity = nodes_for(chunk_count, level), .column_bits = {sizeof(vmki_summary) * 8}, .flags = VMK_TABLE_EXACT};
}

static size_t table_space(vmk_table_config config)
{
    size_t size = 0;
    vmk_status status = vmk_table_space(&config, &size);
    VMKI_ASSERT(status == VMK_OK); /* no window is so large that this overflows */
    return size;
}

size_t vmki_pages_space(size_t chunk_count, bool sparse)
{
    VMKI_ASSERT(chunk_count != 0 && chunk_count <= VMKI_CHUNKS_MAX);
    size_t size = table_space(chunks_config(chunk_count, sparse));
    for (unsigned level = 0; level < levels_for(chunk_count); level++)
        size += table_space(level_config(chunk_count, level));
    return size;
}

/* A table at *offset, which moves behind it. */
static vmk_status table_at(vmk_table *table, vmk_table_config config, vmk_region *region, size_t *offset)
{
    config.region = region;
    config.region_offset = *offset;
    config.region_size = table_space(config);
    *offset += config.region_size;
    return vmk_table_init(table, &config);
}

vmk_status vmki_pages_init(vmki_pages *pages, vmk_region *region, size_t offset, size_t chunk_count, bool sparse,
                           size_t bias)
{
    VMKI_ASSERT(chunk_count != 0 && chunk_count <= VMKI_CHUNKS_MAX);
    *pages = (vmki_pages){.level_count = levels_for(chunk_count),
                          .chunk_count = chunk_count,
                          .bias = bias,
                          .lowest = chunk_count << VMKI_CHUNK_SHIFT};
    vmk_status status = table_at(&pages->chunks, chunks_config(chunk_count, sparse), region, &offset);
    if (status != VMK_OK)
        return status;
    for (unsigned level = 0; level < pages->level_count; level++) {
        status = table_at(&pages->levels[level], level_config(chunk_count, level), region, &offset);
        if (status == VMK_OK)
            continue;
        while (level-- > 0)
            vmk_table_fini(&pages->levels[level]);
        vmk_table_fini(&pages->chunks);
        return status;
    }
    return VMK_OK;
}

vmk_status vmki_pages_ensure(vmki_pages *pages, size_t first, size_t count)
{
    VMKI_DCHECK(vmki_range_within(first, count, pages->chunk_count << VMKI_CHUNK_SHIFT));
    if (count == 0)
        return VMK_OK;
    size_t first_chunk = first >> VMKI_CHUNK_SHIFT, limit = ((first + count - 1) >> VMKI_CHUNK_SHIFT) + 1;
    size_t before[VMKI_LEVELS_MAX];
    vmk_status status = VMK_OK;
    unsigned done = 0;
    while (status == VMK_OK && done < pages->level_count) {
        before[done] = vmk_table_ready(&pages->levels[done]);
        status = vmk_table_ensure(&pages->levels[done], nodes_for(limit, done));
        done += status == VMK_OK;
    }
    if (status == VMK_OK)
        status = vmk_table_ensure_range(&pages->chunks, first_chunk, limit - first_chunk);
    if (status == VMK_OK) {
        pages->chunk_limit = vmki_max(pages->chunk_limit, limit);
        return VMK_OK;
    }
    while (done-- > 0)
        vmk_table_trim(&pages->levels[done], before[done]);
    return status;
}

/* Sparse: where the chunks that are ready end, which is at `limit` at the latest. */
static size_t ready_limit(const vmki_pages *pages, size_t limit)
{
    size_t least = 0;
    vmki_vm_lock();
    while (least < limit) {
        size_t middle = least + (limit - least) / 2;
        if (vmki_index_set_any(&pages->chunks.set, middle, limit - middle))
            least = middle + 1;
        else
            limit = middle;
    }
    vmki_vm_unlock();
    return limit;
}

void vmki_pages_drop(vmki_pages *pages, size_t first_chunk, size_t count)
{
    size_t limit = first_chunk + count;
    if (count == 0 || (!is_sparse(pages) && limit < pages->chunk_limit))
        return;
    size_t first = first_chunk << VMKI_CHUNK_SHIFT, size = count << VMKI_CHUNK_SHIFT;
    for (vmki_page_bit bit = 0; bit < VMKI_PAGE_BITS; bit++)
        VMKI_DCHECK(vmki_pages_all(pages, bit, false, first, size));
    if (!is_sparse(pages))
        vmk_table_trim(&pages->chunks, first_chunk);
    else if (vmk_table_drop_range(&pages->chunks, first_chunk, count) != VMK_OK)
        return; /* no memory to note the hole: they stay, empty */
    if (limit < pages->chunk_limit)
        return;
    pages->chunk_limit = is_sparse(pages) ? ready_limit(pages, first_chunk) : first_chunk;
    for (unsigned level = 0; level < pages->level_count; level++)
        vmk_table_trim(&pages->levels[level], nodes_for(pages->chunk_limit, level));
}

static size_t table_committed(const vmk_table *table)
{
    vmk_table_stats stats;
    vmk_table_stats_now(table, &stats);
    return stats.committed + stats.overhead;
}

size_t vmki_pages_committed(const vmki_pages *pages)
{
    size_t committed = table_committed(&pages->chunks);
    for (unsigned level = 0; level < pages->level_count; level++)
        committed += table_committed(&pages->levels[level]);
    return committed;
}

/* --- bits of one chunk ------------------------------------------------------------------------------------------ */

/* The `high - low` bits from `low` on; 0 <= low < high <= 64. */
static uint64_t mask_of(size_t low, size_t high)
{
    return (UINT64_MAX >> (WORD_BITS - (high - low))) << low;
}

static void words_assign(uint64_t *words, size_t low, size_t high, bool value)
{
    if (high - low == VMKI_CHUNK_PAGES) {
        memset(words, value ? 0xff : 0, sizeof(uint64_t) * VMKI_CHUNK_WORDS);
        return;
    }
    for (size_t at = low, next; at < high; at = next) {
        next = vmki_min(vmki_floor(at, WORD_BITS) + WORD_BITS, high);
        uint64_t mask = mask_of(at % WORD_BITS, (next - 1) % WORD_BITS + 1);
        uint64_t *word = &words[at / WORD_BITS];
        *word = value ? *word | mask : *word & ~mask;
    }
}

/* How many bits are set right below `at`. */
static size_t run_before(const uint64_t *words, size_t at)
{
    size_t i = at / WORD_BITS;
    if (at % WORD_BITS != 0) {
        uint64_t holes = ~words[i] & mask_of(0, at % WORD_BITS);
        if (holes != 0)
            return at % WORD_BITS - 1 - vmki_highest_bit_64(holes);
    }
    while (i-- > 0)
        if (~words[i] != 0)
            return at - (i * WORD_BITS + vmki_highest_bit_64(~words[i])) - 1;
    return at;
}

/* How many bits are set from `at` on. */
static size_t run_from(const uint64_t *words, size_t at)
{
    if (at == VMKI_CHUNK_PAGES)
        return 0;
    size_t i = at / WORD_BITS;
    uint64_t holes = ~words[i] >> at % WORD_BITS;
    if (holes != 0)
        return vmki_lowest_bit_64(holes);
    while (++i < VMKI_CHUNK_WORDS)
        if (~words[i] != 0)
            return i * WORD_BITS + vmki_lowest_bit_64(~words[i]) - at;
    return VMKI_CHUNK_PAGES - at;
}

/* The longest run of set bits, known to be at least so long. */
static uint32_t longest_run(const uint64_t *words, uint32_t longest)
{
    uint32_t run = 0;
    for (size_t i = 0; i < VMKI_CHUNK_WORDS; i++) {
        uint64_t word = words[i];
        if (~word == 0) {
            run += WORD_BITS;
            continue;
        }
        run += vmki_lowest_bit_64(~word);
        longest = run > longest ? run : longest;
        if (longest < WORD_BITS - 2) { /* else none that has a hole on either side can be longer */
            for (uint64_t starts = vmki_runs_of(word, longest + 1); starts != 0; starts &= starts >> 1)
                longest++; /* a bit is left for each run that is longer still */
        }
        run = WORD_BITS - 1 - vmki_highest_bit_64(~word);
    }
    return run > longest ? run : longest;
}

/* --- summaries -------------------------------------------------------------------------------------------------- */

/* The bits [low, high) have just been set or cleared, and were all the other way: what the chunk's summary is now. Only
 * the run that they are in has changed, so the others need not be looked at; but if it was the longest, and is cut. */
static vmki_summary leaf_after(const uint64_t *words, vmki_summary old, size_t low, size_t high, bool value)
{
    size_t left = run_before(words, low), right = run_from(words, high);
    uint32_t run = (uint32_t)(left + (high - low) + right);
    if (left == low)
        old.start = value ? run : (uint32_t)left;
    if (high + right == VMKI_CHUNK_PAGES)
        old.end = value ? run : (uint32_t)right;
    if (value)
        old.max = run > old.max ? run : old.max;
    else if (run == old.max)
        old.max = longest_run(words, (uint32_t)vmki_max(left, right));
    return old;
}

/* The summary over sixteen, each of so many pages. */
static vmki_summary node_over(const vmki_summary *child, uint32_t size)
{
    uint32_t run = 0, max = 0;
    unsigned i = 0;
    for (; i < FAN_OUT && child[i].start == size; i++)
        run += size;
    if (i == FAN_OUT)
        return (vmki_summary){run, run, run};
    uint32_t start = run + child[i].start;
    for (; i < FAN_OUT; i++) {
        run += child[i].start;
        max = child[i].max > max ? child[i].max : max;
        max = run > max ? run : max;
        run = child[i].start == size ? run : child[i].end;
    }
    return (vmki_summary){start, max, run};
}

/* The longest run that is in a child or begins or ends there, with so many free pages on both sides of it. */
static uint32_t longest_through(vmki_summary child, uint32_t size, uint32_t left, uint32_t right)
{
    if (child.start == size)
        return left + size + right;
    uint32_t one = left + child.start, other = child.end + right, longer = one > other ? one : other;
    return child.max > longer ? child.max : longer;
}

/* What a node is now that one of its children, at `at`, is another than it was. As with leaves: the other children need
 * to be looked at only if the longest run was there, and is cut. */
static vmki_summary node_after(vmki_summary node, const vmki_summary *child, unsigned at, vmki_summary was,
                               uint32_t size)
{
    vmki_summary is = child[at];
    uint32_t left = 0, right = 0, whole = is.start == size;
    unsigned i = at;
    for (; i > 0 && child[i - 1].start == size; i--)
        left += size;
    left += i > 0 ? child[i - 1].end : 0;
    unsigned j = at;
    for (; j < FAN_OUT - 1 && child[j + 1].start == size; j++)
        right += size;
    right += j < FAN_OUT - 1 ? child[j + 1].start : 0;
    if (i == 0)
        node.start = left + is.start + whole * right;
    if (j == FAN_OUT - 1)
        node.end = right + is.end + whole * left;
    uint32_t longest = longest_through(is, size, left, right);
    if (longest >= node.max)
        node.max = longest;
    else if (longest_through(was, size, left, right) == node.max)
        node.max = node_over(child, size).max;
    return node;
}

static bool equal(const vmki_summary *a, const vmki_summary *b)
{
    return a->start == b->start && a->max == b->max && a->end == b->end;
}

/* A chunk's summary has changed: summarise what is above it, up to where nothing changes. */
static void parents_follow(vmki_pages *pages, size_t node, vmki_summary was)
{
    uint32_t size = VMKI_CHUNK_PAGES;
    for (unsigned level = 1; level < pages->level_count; level++, size <<= VMKI_FAN_OUT_SHIFT) {
        unsigned at = node % FAN_OUT;
        const vmki_summary *children = nodes_of(pages, level - 1) + (node - at);
        node >>= VMKI_FAN_OUT_SHIFT;
        vmki_summary *parent = nodes_of(pages, level) + node, old = *parent;
        *parent = node_after(old, children, at, was, size);
        if (equal(parent, &old))
            return;
        was = old;
    }
}

/* The same where all chunks in [first, last] have become free or used, but for parts of the first and the last. */
static void all_parents_follow(vmki_pages *pages, size_t first, size_t last, bool value)
{
    for (unsigned level = 1; level < pages->level_count; level++) {
        unsigned shift = VMKI_FAN_OUT_SHIFT * level;
        uint32_t child_size = (uint32_t)VMKI_CHUNK_PAGES << (shift - VMKI_FAN_OUT_SHIFT);
        uint32_t all = value ? child_size << VMKI_FAN_OUT_SHIFT : 0;
        vmki_summary *nodes = nodes_of(pages, level), *children = nodes_of(pages, level - 1);
        bool changed = false;
        for (size_t node = first >> shift; node <= last >> shift; node++) {
            bool inside = node << shift > first && (node + 1) << shift <= last;
            vmki_summary old = nodes[node];
            nodes[node] =
                inside ? (vmki_summary){all, all, all} : node_over(&children[node << VMKI_FAN_OUT_SHIFT], child_size);
            changed |= !equal(&nodes[node], &old);
        }
        if (!changed)
            return;
    }
}

/* The part of [at, limit) that is in the chunk where it begins. */
typedef struct piece {
    size_t chunk;
    size_t low;
    size_t high;
} piece;

static piece piece_at(size_t at, size_t limit)
{
    size_t chunk = at >> VMKI_CHUNK_SHIFT, base = chunk << VMKI_CHUNK_SHIFT;
    return (piece){chunk, at - base, vmki_min(limit - base, VMKI_CHUNK_PAGES)};
}

/* Set or clear the FREE bits of a piece; the summary of its chunk as it was. */
static vmki_summary set_piece(vmki_pages *pages, piece p, bool value)
{
    uint64_t *words = chunk_at(pages, p.chunk)->bits[VMKI_PAGE_FREE];
    vmki_summary *leaf = nodes_of(pages, 0) + p.chunk, old = *leaf;
    uint32_t all = value ? VMKI_CHUNK_PAGES : 0;
    words_assign(words, p.low, p.high, value);
    if (p.high - p.low == VMKI_CHUNK_PAGES)
        *leaf = (vmki_summary){all, all, all};
    else
        *leaf = leaf_after(words, old, p.low, p.high, value);
    return old;
}

static void set_range(vmki_pages *pages, size_t first, size_t count, bool value)
{
    size_t limit = first + count;
    piece p = piece_at(first, limit);
    vmki_summary old = set_piece(pages, p, value);
    if (p.high - p.low == count) {
        if (!equal(nodes_of(pages, 0) + p.chunk, &old))
            parents_follow(pages, p.chunk, old);
        return;
    }
    for (size_t at = first + (p.high - p.low); at < limit; at += p.high - p.low) {
        p = piece_at(at, limit);
        (void)set_piece(pages, p, value);
    }
    all_parents_follow(pages, first >> VMKI_CHUNK_SHIFT, p.chunk, value);
}

void vmki_pages_set_free(vmki_pages *pages, size_t first, size_t count)
{
    VMKI_DCHECK(vmki_pages_ready(pages, first, count) && vmki_pages_all(pages, VMKI_PAGE_FREE, false, first, count));
    set_range(pages, first, count, true);
    pages->free_count += count;
    pages->lowest = vmki_min(pages->lowest, first);
}

void vmki_pages_set_used(vmki_pages *pages, size_t first, size_t count)
{
    VMKI_DCHECK(vmki_pages_ready(pages, first, count) && vmki_pages_all(pages, VMKI_PAGE_FREE, true, first, count));
    set_range(pages, first, count, false);
    pages->free_count -= count;
    if (pages->free_count == 0)
        pages->lowest = pages->chunk_count << VMKI_CHUNK_SHIFT;
    else if (pages->lowest >= first && pages->lowest < first + count)
        pages->lowest = first + count;
}

/* --- reading and writing bits ----------------------------------------------------------------------------------- */

void vmki_pages_assign(vmki_pages *pages, vmki_page_bit bit, size_t first, size_t count, bool value)
{
    VMKI_DCHECK(bit > VMKI_PAGE_FREE && bit < VMKI_PAGE_BITS && vmki_pages_ready(pages, first, count));
    size_t limit = first + count;
    for (size_t at = first; at < limit;) {
        piece p = piece_at(at, limit);
        words_assign(chunk_at(pages, p.chunk)->bits[bit], p.low, p.high, value);
        at += p.high - p.low;
    }
}

static uint64_t word_of(const vmki_chunk *chunk, vmki_page_bit bit, size_t word)
{
    if (bit < VMKI_PAGE_BITS)
        return chunk->bits[bit][word];
    uint64_t held = chunk->bits[VMKI_PAGE_HELD][word];
    return chunk->bits[VMKI_PAGE_FREE][word] & (bit == VMKI_PAGE_IDLE ? held : ~held);
}

/* The first page of [at, limit) whose bit has the value; limit if there is none. */
static size_t next_with(const vmki_pages *pages, vmki_page_bit bit, bool value, size_t at, size_t limit)
{
    bool only_free = value && (bit == VMKI_PAGE_FREE || bit > VMKI_PAGE_BITS);
    while (at < limit) {
        size_t chunk = at >> VMKI_CHUNK_SHIFT;
        if (only_free && nodes_of(pages, 0)[chunk].max == 0) {
            at = (chunk + 1) << VMKI_CHUNK_SHIFT;
            continue;
        }
        uint64_t word = word_of(chunk_at(pages, chunk), bit, at / WORD_BITS % VMKI_CHUNK_WORDS);
        word = (value ? word : ~word) >> at % WORD_BITS;
        if (word != 0)
            return vmki_min(at + vmki_lowest_bit_64(word), limit);
        at = vmki_floor(at, WORD_BITS) + WORD_BITS;
    }
    return limit;
}

bool vmki_pages_next(const vmki_pages *pages, vmki_page_bit bit, bool value, size_t *first, size_t limit,
                     size_t *length)
{
    VMKI_DCHECK(*first >= limit || vmki_pages_ready(pages, *first, limit - *first));
    size_t start = next_with(pages, bit, value, *first, limit);
    if (start >= limit)
        return false;
    *first = start;
    *length = next_with(pages, bit, !value, start, limit) - start;
    return true;
}

/* Behind the last page of [least, at) whose bit has the value; least if there is none. */
static size_t previous_with(const vmki_pages *pages, vmki_page_bit bit, bool value, size_t least, size_t at)
{
    while (at > least) {
        size_t low = vmki_floor(at - 1, WORD_BITS);
        uint64_t word = word_of(chunk_at(pages, low >> VMKI_CHUNK_SHIFT), bit, low / WORD_BITS % VMKI_CHUNK_WORDS);
        word = (value ? word : ~word) & mask_of(0, at - low);
        if (word != 0)
            return vmki_max(low + vmki_highest_bit_64(word) + 1, least);
        at = low;
    }
    return least;
}

bool vmki_pages_previous(const vmki_pages *pages, vmki_page_bit bit, size_t first, size_t *limit, size_t *length)
{
    VMKI_DCHECK(first >= *limit || vmki_pages_ready(pages, first, *limit - first));
    size_t end = previous_with(pages, bit, true, first, *limit);
    if (end <= first)
        return false;
    *limit = previous_with(pages, bit, false, first, end);
    *length = end - *limit;
    return true;
}

bool vmki_pages_all(const vmki_pages *pages, vmki_page_bit bit, bool value, size_t first, size_t count)
{
    VMKI_DCHECK(count == 0 || vmki_pages_ready(pages, first, count));
    return next_with(pages, bit, !value, first, first + count) == first + count;
}

size_t vmki_pages_count(const vmki_pages *pages, vmki_page_bit bit, size_t first, size_t count)
{
    VMKI_DCHECK(count == 0 || vmki_pages_ready(pages, first, count));
    size_t limit = first + count, sum = 0;
    for (size_t at = first, next; at < limit; at = next) {
        next = vmki_min(vmki_floor(at, WORD_BITS) + WORD_BITS, limit);
        uint64_t word = word_of(chunk_at(pages, at >> VMKI_CHUNK_SHIFT), bit, at / WORD_BITS % VMKI_CHUNK_WORDS);
        sum += vmki_ones_in(word & mask_of(at % WORD_BITS, (next - 1) % WORD_BITS + 1));
    }
    return sum;
}

/* The size of the largest node that ends at this page and is free as a whole; 0 if not even a chunk is. */
static size_t whole_before(const vmki_pages *pages, size_t at)
{
    size_t largest = 0;
    for (unsigned level = 0; level < pages->level_count; level++) {
        unsigned shift = VMKI_CHUNK_SHIFT + VMKI_FAN_OUT_SHIFT * level;
        size_t size = (size_t)1 << shift;
        if (at == 0 || at % size != 0 || nodes_of(pages, level)[(at >> shift) - 1].start != size)
            break;
        largest = size;
    }
    return largest;
}

size_t vmki_pages_free_before(const vmki_pages *pages, size_t least, size_t limit)
{
    VMKI_DCHECK(least >= limit || vmki_pages_ready(pages, least, limit - least));
    size_t at = limit;
    if (at <= least)
        return 0;
    size_t whole, inside = at % VMKI_CHUNK_PAGES;
    if (inside != 0) {
        size_t run = run_before(chunk_at(pages, at >> VMKI_CHUNK_SHIFT)->bits[VMKI_PAGE_FREE], inside);
        at -= run;
        if (run < inside)
            return limit - vmki_max(at, least);
    }
    while (at > least && (whole = whole_before(pages, at)) != 0)
        at -= whole;
    if (at > least)
        at -= nodes_of(pages, 0)[(at >> VMKI_CHUNK_SHIFT) - 1].end;
    return limit - vmki_max(at, least);
}

uint64_t *vmki_pages_time(const vmki_pages *pages, size_t chunk)
{
    return (uint64_t *)(void *)pages->chunks.column[1] + chunk;
}
