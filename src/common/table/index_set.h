/* SPDX-License-Identifier: MIT
 *
 * The set of ready elements of a sparse table: exact to the element, in memory that follows the number of ranges and
 * pages in use and not the size of the index space, and readable without a lock.
 *
 * Structure. The index space is cut into chunks of 2^chunk_shift indices. An open-addressed hash table (linear probing,
 * load at most 3/4) maps a chunk's number to a reference: the whole chunk is in the set, or a mask of one bit per index
 * says which are. Chunks with nothing in the set have no entry after the next rehash; until then they keep one that
 * refers to nothing. Only chunks that are partly in the set have a mask; masks are slots of equal size in a pool, free
 * ones threaded on a list.
 *
 * Memory. Three areas in a part of a region: two halves for the hash table, which moves from one to the other when it
 * is rehashed, and the pool of masks. They are reserved for the worst case and committed as they fill. The half left
 * behind stays committed until it is used again, so a reader that is still in it does not fault.
 *
 * Readers. A version number rises before memory that a reader may still be looking at gets another meaning (a half that
 * was left behind, a mask that was given back), and a reader that finds it changed looks again. All else is published
 * by one store each, so a reader never waits for a writer. Writers hold the vm lock. What readers load is loaded and
 * stored atomically.
 */
#ifndef VMKI_INDEX_SET_H
#define VMKI_INDEX_SET_H

#include "common/base/align.h"

enum { VMKI_CHUNK_SHIFT_MIN = 6, VMKI_CHUNK_SHIFT_MAX = 15 };

/* Address space that the set of indices [0, capacity) may come to need, whole pages; true where that overflows. */
bool vmki_index_set_space_overflow(size_t capacity, size_t chunk_shift, size_t *size);

/* An empty set in region, from offset (page-aligned) on, in the space that the function above gives. Commits nothing.
 */
void vmki_index_set_init(vmki_index_set *set, vmk_region *region, size_t offset, size_t capacity, size_t chunk_shift);

/* Make sure that one add of [first, first + count) can't fail: commits what it may need, rehashes. All or nothing as to
 * the contents of the set. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS. Under the vm lock. */
vmk_status vmki_index_set_prepare_add(vmki_index_set *set, size_t first, size_t count);

/* The same for one remove, which needs masks for the two chunks at its edges at most, and no entries. */
vmk_status vmki_index_set_prepare_remove(vmki_index_set *set, size_t first, size_t count);

/* After prepare for the same range, nothing in between. Idempotent. Under the vm lock. Time follows the number of
 * chunks in the range; for remove (and any, below) the number of entries in the table, where that is less: a range may
 * be huge and nearly empty. */
void vmki_index_set_add(vmki_index_set *set, size_t first, size_t count);
void vmki_index_set_remove(vmki_index_set *set, size_t first, size_t count);

/* Any thread, any index, any time; no lock. */
bool vmki_index_set_contains(const vmki_index_set *set, size_t index);

/* Is any index of [first, first + count) in the set? Under the vm lock. */
bool vmki_index_set_any(const vmki_index_set *set, size_t first, size_t count);

/* Bytes committed for the set. */
size_t vmki_index_set_committed(const vmki_index_set *set);

/* Is the whole structure well-formed, and does its count agree with its contents? Under the vm lock. */
bool vmki_index_set_check(const vmki_index_set *set);

#endif
