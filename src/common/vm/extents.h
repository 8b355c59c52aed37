/* SPDX-License-Identifier: MIT
 *
 * The committed runs of a region: an ordered set of disjoint address ranges, no two of which touch. It makes commit and
 * decommit count transitions instead of calls, lets a failing call be undone exactly, and keeps commit away from pages
 * that are live already. It never has more members than the kernel itself must keep for the same pages, so it adds a
 * few per cent to what a mapping costs anyway.
 *
 * A zip tree (Tarjan, Levy, Timmel, "Zip Trees", 2019): a binary search tree that is a heap by random ranks, with
 * insertion and deletion by one walk down. Expected depth 1.5 log2 of the number of runs. All functions run under the
 * vm lock.
 */
#ifndef VMKI_EXTENTS_H
#define VMKI_EXTENTS_H

#include "common/base/align.h"

typedef struct vmki_extent {
    uintptr_t base;
    uintptr_t limit;
    struct vmki_extent *left;
    struct vmki_extent *right;
    size_t rank;
} vmki_extent;

/* Make sure that so many inserts or removes can't fail for lack of a node. VMK_ERR_COMMIT and the errors of a reserve:
 * no memory for it. Nodes come from slabs that are kept and used again. */
vmk_status vmki_extents_prepare(size_t count);

/* The lowest extent whose limit is above the address; NULL if there is none. */
vmki_extent *vmki_extents_above(vmki_extent *root, uintptr_t address);

/* Add [base, limit), joining it with what it overlaps or touches. After prepare. */
void vmki_extents_insert(vmki_extent **root, uintptr_t base, uintptr_t limit);

/* Take [base, limit) out, whatever of it is in the set. After prepare. */
void vmki_extents_remove(vmki_extent **root, uintptr_t base, uintptr_t limit);

void vmki_extents_clear(vmki_extent **root);

/* Bytes in the set. */
size_t vmki_extents_size(const vmki_extent *root);

/* Ordered, disjoint, not touching, heap-ordered, and inside [base, limit)? */
bool vmki_extents_check(const vmki_extent *root, uintptr_t base, uintptr_t limit);

/* Bytes that the slabs take. */
size_t vmki_extents_overhead(void);

#endif
