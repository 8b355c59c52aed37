/* SPDX-License-Identifier: MIT
 *
 * What the files of the table layer share.
 *
 * A table's address space, its "part", is: each column, page-aligned and followed by a guard page that is never
 * committed; then, if sparse, the areas of its index set. All offsets here are from the start of the part.
 */
#ifndef VMKI_TABLE_H
#define VMKI_TABLE_H

#include "common/base/align.h"
#include "common/table/index_set.h"

/* Columns of at least this size start on a huge page and, from BIG_COMMITTED on, grow by whole ones. On systems whose
 * huge pages are of another size this is a step like any other. */
#define VMKI_BIG_COLUMN ((size_t)64 << 20)
#define VMKI_BIG_COMMITTED ((size_t)8 << 20)
#define VMKI_BIG_STEP ((size_t)2 << 20)

typedef struct vmki_table_layout {
    unsigned columns;
    size_t column_offset[VMK_TABLE_MAX_COLUMNS];
    size_t column_size[VMK_TABLE_MAX_COLUMNS];
    size_t set_offset;
    size_t chunk_shift;
    size_t align; /* that the start of the part wants */
    size_t size;
} vmki_table_layout;

/* Is the config one that some capacity could satisfy? */
bool vmki_table_config_valid(const vmk_table_config *config);

/* Lay out a table of this many elements; false where a size overflows. The config must be valid. */
bool vmki_table_lay_out(const vmk_table_config *config, size_t capacity, vmki_table_layout *layout);

/* Bytes that the first `count` elements take in a column, rounded up to bytes; true where that overflows. */
static inline bool vmki_column_bytes_overflow(size_t bits, size_t count, size_t *bytes)
{
    if (bits >= 8)
        return vmki_mul_overflow(count, bits >> 3, bytes);
    size_t per = 8 / bits;
    *bytes = count / per + (count % per != 0);
    return false;
}

/* The same for counts that are known to fit: up to capacity + tail. */
static inline size_t vmki_column_bytes(size_t bits, size_t count)
{
    size_t bytes;
    (void)vmki_column_bytes_overflow(bits, count, &bytes);
    return bytes;
}

/* Whole elements in that many bytes of a column; saturates. */
static inline size_t vmki_column_elements(size_t bits, size_t bytes)
{
    if (bits >= 8)
        return bytes / (bits >> 3);
    size_t elements;
    return vmki_mul_overflow(bytes, 8 / bits, &elements) ? SIZE_MAX : elements;
}

/* Misuse unless the table is live. */
void vmki_table_require(const vmk_table *table, const char *crime);

/* Clear the elements [first, limit) of a column, as far as they lie in its bytes [from, to). Bytes shared with elements
 * outside are changed atomically. */
void vmki_table_clear(const vmk_table *table, unsigned column, size_t first, size_t limit, size_t from, size_t to);

/* The two kinds, behind the public calls, errno and argument checks done. */
vmk_status vmki_dense_ensure(vmk_table *table, size_t count);
void vmki_dense_trim(vmk_table *table, size_t count);
vmk_status vmki_sparse_ensure(vmk_table *table, size_t first, size_t count);
vmk_status vmki_sparse_drop(vmk_table *table, size_t first, size_t count);
void vmki_sparse_trim(vmk_table *table, size_t count);

/* Is the whole table as it should be: its region, its extents against what is ready, its set? Slow; for tests, where
 * nobody else uses the table. */
bool vmki_table_check(const vmk_table *table);

#endif
