/* SPDX-License-Identifier: MIT
 *
 * Which pages of a heap's window are free, and what is known of each page: bitmaps, under a radix tree of summaries.
 *
 * Structure. The window is cut into chunks of 512 pages (4 MiB), each with a record of bitmaps; the chunks are a lazy
 * table. Over them lies a tree of summaries, sixteen children to a node, each level a lazy table of its own: a node
 * says how many free pages its range begins with, ends with, and has at most in one run. So the lowest run of n free
 * pages is found by one way down the tree, merging with neighbours is nothing but setting bits, and a free run costs no
 * memory, however many there are.
 *
 * A page outside every region is not free, and neither is one that nobody has ever set free: zero is "in use or hole".
 *
 * The idea of summaries {start, max, end} over page bitmaps: A. Clements and M. Knyszek, the page allocator of Go 1.14.
 *
 * Everything here is under the heap's lock. Indices are of heap pages, from the start of the window. Ranges passed to
 * anything but ensure and find must lie in chunks that were ensured.
 */
#ifndef VMKI_PAGES_H
#define VMKI_PAGES_H

#include "common/base/align.h"

enum {
    VMKI_CHUNK_SHIFT = 9, /* log2 of pages in a chunk */
    VMKI_CHUNK_PAGES = 1 << VMKI_CHUNK_SHIFT,
    VMKI_CHUNK_WORDS = VMKI_CHUNK_PAGES / 64,
    VMKI_FAN_OUT_SHIFT = 4,
    VMKI_CHUNKS_MAX = 1 << 25, /* 128 TiB */
    VMKI_TOP_NODES_MAX = 32,
    VMKI_LEVELS_MAX = 6 /* for that many chunks, with that many nodes on top */
};

/* What is known of a page. The last two follow from the others: they can be asked for, not set. */
typedef enum vmki_page_bit {
    VMKI_PAGE_FREE,     /* can be handed out; set and cleared by set_free and set_used, since the summaries follow */
    VMKI_PAGE_HELD,     /* committed, and not given back since */
    VMKI_PAGE_DIRTY,    /* may be other than zero */
    VMKI_PAGE_MARKS,    /* its part of the mark bitmap is ready */
    VMKI_PAGE_BITS,     /* the number of bitmaps */
    VMKI_PAGE_IDLE,     /* FREE and HELD */
    VMKI_PAGE_RELEASED, /* FREE and not HELD */
} vmki_page_bit;

typedef struct vmki_chunk {
    uint64_t bits[VMKI_PAGE_BITS][VMKI_CHUNK_WORDS]; /* one cache line each */
} vmki_chunk;

typedef struct vmki_summary {
    uint32_t start;
    uint32_t max;
    uint32_t end;
} vmki_summary;

typedef struct vmki_pages {
    vmk_table chunks; /* column 0: vmki_chunk; column 1: uint64_t, the heap's to use (time of the last free) */
    vmk_table levels[VMKI_LEVELS_MAX]; /* dense, of vmki_summary; level 0 has one for each chunk */
    unsigned level_count;
    size_t chunk_count;
    size_t chunk_limit; /* no chunk from there on was ensured (dense: all below were) */
    size_t bias;        /* page 0 is this many pages above an address of 0: for alignment */
    size_t lowest;      /* no page below is free */
    size_t free_count;
} vmki_pages;

/* Address space for the pages of a window of that many chunks (1 .. 2^25): whole OS pages. */
size_t vmki_pages_space(size_t chunk_count, bool sparse);

/* An empty set in region at offset, in the space that the function above gives. Commits nothing. bias: see above.
 * `sparse` says whether chunks are a sparse table or a dense one. Fails only as vmk_table_init does. */
vmk_status vmki_pages_init(vmki_pages *pages, vmk_region *region, size_t offset, size_t chunk_count, bool sparse,
                           size_t bias);

/* Make the chunks that [first, first + count) touches ready, all pages in them neither free nor anything. Chunks that
 * are ready already stay as they are. All or nothing. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS. */
vmk_status vmki_pages_ensure(vmki_pages *pages, size_t first, size_t count);

/* Undo an ensure of the whole chunks [first_chunk, first_chunk + count), in which no page is anything: memory goes back
 * where that is possible. A dense set can only drop what is at its end; otherwise nothing happens. */
void vmki_pages_drop(vmki_pages *pages, size_t first_chunk, size_t count);

/* Bytes committed for all of it, the records of sparse tables included. */
size_t vmki_pages_committed(const vmki_pages *pages);

/* The lowest page with `count` free ones from it on, whose index + bias is a multiple of `align` (a power of two, in
 * pages); SIZE_MAX if there is none. Cost: a way down the tree for each run that is long enough and misaligned. After
 * 16 of them the answer is in the lowest run so long that alignment can't matter, and only if there is none of that
 * kind are all others tried too. */
size_t vmki_pages_find(const vmki_pages *pages, size_t count, size_t align);

/* Make a range free that is not, or the reverse; summaries and `lowest` follow. Asserted in builds with checks. */
void vmki_pages_set_free(vmki_pages *pages, size_t first, size_t count);
void vmki_pages_set_used(vmki_pages *pages, size_t first, size_t count);

/* Set or clear HELD, DIRTY or MARKS of a range. */
void vmki_pages_assign(vmki_pages *pages, vmki_page_bit bit, size_t first, size_t count, bool value);

/* The next run of pages in [*first, limit) whose bit has this value: false if there is none, else its first page in
 * *first and its length in *length, up to limit. All chunks of the range must be ready. */
bool vmki_pages_next(const vmki_pages *pages, vmki_page_bit bit, bool value, size_t *first, size_t limit,
                     size_t *length);

/* The last run of pages in [first, *limit) that have the bit: false if there is none, else its first page in *limit and
 * its length in *length, down to first. All chunks of the range must be ready. */
bool vmki_pages_previous(const vmki_pages *pages, vmki_page_bit bit, size_t first, size_t *limit, size_t *length);

/* Does every page of a range have the bit with this value? */
bool vmki_pages_all(const vmki_pages *pages, vmki_page_bit bit, bool value, size_t first, size_t count);

/* How many pages of a range have the bit. */
size_t vmki_pages_count(const vmki_pages *pages, vmki_page_bit bit, size_t first, size_t count);

/* How many free pages there are right before `limit`, not looking below `least`. */
size_t vmki_pages_free_before(const vmki_pages *pages, size_t least, size_t limit);

/* The heap's number of a chunk that is ready. */
uint64_t *vmki_pages_time(const vmki_pages *pages, size_t chunk);

/* Does every summary agree with the bits under it, `lowest` and `free_count` too? Slow; for tests. */
bool vmki_pages_check(const vmki_pages *pages);

/* Are the chunks ready where a range begins and where it ends? Of constant cost, for checks. */
static inline bool vmki_pages_ready(const vmki_pages *pages, size_t first, size_t count)
{
    return count != 0 && vmki_range_within(first, count, pages->chunk_count << VMKI_CHUNK_SHIFT) &&
           vmk_table_is_ready(&pages->chunks, 0, first >> VMKI_CHUNK_SHIFT) &&
           vmk_table_is_ready(&pages->chunks, 0, (first + count - 1) >> VMKI_CHUNK_SHIFT);
}

/* Where in a word runs of at least `count` set bits, 1 .. 64, begin: all their bits but the last `count` - 1. */
static inline uint64_t vmki_runs_of(uint64_t word, unsigned count)
{
    for (unsigned have = 1, step; have < count && word != 0; have += step) {
        step = have < count - have ? have : count - have;
        word &= word >> step;
    }
    return word;
}

#endif
