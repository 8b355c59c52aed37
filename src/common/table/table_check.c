/* SPDX-License-Identifier: MIT
 *
 * The check of a whole table. A file of its own, so that programs do not link it.
 */
#include "common/base/check.h"
#include "common/table/table.h"
#include "common/vm/vm.h"

/* The column is committed up to `prefix` and nowhere else, its guard page included. */
static bool column_is_prefix(const vmk_table *table, unsigned column, size_t prefix)
{
    size_t offset = table->column_offset[column], size = table->column_size[column];
    return prefix <= size && vmki_is_aligned(prefix, vmk_page_size()) &&
           vmki_vm_committed(table->region, offset, prefix) == prefix &&
           vmki_vm_committed(table->region, offset, size + vmk_page_size()) == prefix;
}

static bool dense_check(const vmk_table *table)
{
    if (table->ready > table->capacity)
        return false;
    for (unsigned i = 0; i < table->columns; i++) {
        size_t needed = table->ready == 0 ? 0 : vmki_column_bytes(table->bits[i], table->ready + table->tail);
        if (!column_is_prefix(table, i, table->column_committed[i]) || needed > table->column_committed[i])
            return false;
    }
    return true;
}

/* Every page that a ready element or its tail touches is committed. */
static bool sparse_element_check(const vmk_table *table, size_t index)
{
    size_t page_size = vmk_page_size();
    for (unsigned i = 0; i < table->columns; i++) {
        size_t bits = table->bits[i];
        size_t from = vmki_floor(bits >= 8 ? index * (bits >> 3) : index / (8 / bits), page_size);
        size_t to = vmki_ceil(vmki_column_bytes(bits, index + 1 + table->tail), page_size);
        if (vmki_vm_committed(table->region, table->column_offset[i] + from, to - from) != to - from)
            return false;
    }
    return true;
}

/* Walks the indices whose first column is committed: a ready element is among them. */
static bool sparse_check(const vmk_table *table)
{
    size_t found = 0, run;
    if (!vmki_index_set_check(&table->set))
        return false;
    for (size_t at = 0; at < table->column_size[0]; at += run) {
        vmk_state state = vmki_vm_query(table->region, table->column_offset[0] + at, &run);
        run = vmki_min(run, table->column_size[0] - at);
        if (state == VMK_STATE_RESERVED)
            continue;
        size_t bits = table->bits[0], limit = vmki_column_elements(bits, at + run);
        size_t first = bits > 8 ? (at + (bits >> 3) - 1) / (bits >> 3) : vmki_column_elements(bits, at);
        for (size_t i = first; i < limit && i < table->capacity; i++) {
            if (!vmki_index_set_contains(&table->set, i))
                continue;
            found++;
            if (!sparse_element_check(table, i))
                return false;
        }
    }
    return found == table->set.count;
}

bool vmki_table_check(const vmk_table *table)
{
    vmki_vm_lock();
    bool good = vmki_region_check(table->region) &&
                ((table->flags & VMK_TABLE_SPARSE) != 0 ? sparse_check(table) : dense_check(table));
    vmki_vm_unlock();
    return good;
}
