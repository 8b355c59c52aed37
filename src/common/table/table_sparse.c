/* SPDX-License-Identifier: MIT
 *
 * Sparse tables: the set of ready elements is exact (index_set.h), and each column has committed just the units that
 * those elements, and the tails behind them, touch. A unit is a page, or the caller's step.
 *
 * A unit is live while some ready element lies on it or reads it as tail; it is decommitted when the last of them is
 * dropped, however many ranges have shared it. Dropped elements on a unit that stays are cleared at once, so an element
 * that becomes ready always reads as zero and ensure has nothing to clear.
 */
#include "common/table/table.h"

#include <string.h>

#include "common/vm/vm.h"

static size_t unit_size(const vmk_table *table)
{
    return vmki_max(table->step, vmk_page_size());
}

/* A range of a column's bytes. */
typedef struct bytes {
    size_t from;
    size_t to;
} bytes;

/* The units that [first, first + count) and its tail touch. */
static bytes units_of(const vmk_table *table, unsigned column, size_t first, size_t count)
{
    size_t bits = table->bits[column], unit = unit_size(table), size = table->column_size[column];
    size_t from = bits >= 8 ? first * (bits >> 3) : first / (8 / bits);
    size_t to = vmki_column_bytes(bits, first + count + table->tail);
    size_t beyond = to % unit;
    if (beyond != 0)
        to = unit - beyond < size - to ? to + (unit - beyond) : size;
    return (bytes){from - from % unit, to};
}

/* Is any ready element on these bytes, or has it its tail there? */
static bool unit_live(const vmk_table *table, unsigned column, bytes unit)
{
    size_t bits = table->bits[column];
    size_t first = vmki_column_elements(bits, unit.from);
    size_t limit = vmki_column_elements(bits, unit.to);
    if (bits > 8 && unit.to % (bits >> 3) != 0)
        limit++; /* starts here and goes on behind */
    first = first > table->tail ? first - table->tail : 0;
    limit = vmki_min(limit, table->capacity);
    return first < limit && vmki_index_set_any(&table->set, first, limit - first);
}

/* The elements that are dropped, and are to be cleared where their unit stays. */
typedef struct indices {
    size_t first;
    size_t limit;
} indices;

/* Decommit the dead units of one committed run of a column, and clear the dropped elements on the live ones. */
static void run_release(vmk_table *table, unsigned column, bytes run, indices dropped)
{
    size_t unit = unit_size(table), dead_from = run.from;
    for (size_t at = run.from; at < run.to;) {
        size_t next = vmki_min(at - at % unit + unit, run.to);
        bool live = unit_live(table, column, (bytes){at - at % unit, next});
        if (live)
            vmki_table_clear(table, column, dropped.first, dropped.limit, at, next);
        size_t dead_to = live ? at : next;
        at = next;
        if (!live && at < run.to)
            continue; /* the row of dead units goes on */
        if (dead_to > dead_from &&
            vmki_vm_decommit(table->region, table->column_offset[column] + dead_from, dead_to - dead_from) != VMK_OK)
            memset(table->column[column] + dead_from, 0, dead_to - dead_from); /* kept, and zero for the next ensure */
        dead_from = next;
    }
}

/* The next committed run in *range, which loses it and what is before it; false if there is none. */
static bool next_run(const vmk_table *table, unsigned column, bytes *range, bytes *run)
{
    while (range->from < range->to) {
        size_t size, from = range->from;
        vmk_state state = vmki_vm_query(table->region, table->column_offset[column] + from, &size);
        range->from = size < range->to - from ? from + size : range->to;
        if (state == VMK_STATE_COMMITTED) {
            *run = (bytes){from, range->from};
            return true;
        }
    }
    return false;
}

/* Decommit whatever in the range is committed and not live. Time follows what is committed there, not the range. */
static void units_release(vmk_table *table, unsigned column, bytes range, indices dropped)
{
    bytes run;
    while (next_run(table, column, &range, &run))
        run_release(table, column, run, dropped);
}

vmk_status vmki_sparse_ensure(vmk_table *table, size_t first, size_t count)
{
    vmki_vm_lock();
    size_t committed = table->region->committed;
    vmk_status status = vmki_index_set_prepare_add(&table->set, first, count);
    size_t for_the_set = table->region->committed - committed;
    unsigned done = 0;
    while (status == VMK_OK && done < table->columns) {
        bytes range = units_of(table, done, first, count);
        status = vmki_vm_commit(table->region, table->column_offset[done] + range.from, range.to - range.from);
        done += status == VMK_OK;
    }
    if (status == VMK_OK) {
        vmki_index_set_add(&table->set, first, count);
        table->commit_count += table->region->committed - committed > for_the_set;
    } else {
        vmki_os_error why = vmki_os_error_get();
        for (unsigned i = 0; i < done; i++) /* what it has just committed is live for nobody */
            units_release(table, i, units_of(table, i, first, count), (indices){0, 0});
        vmki_os_error_set(why);
    }
    vmki_vm_unlock();
    return status;
}

/* Take the elements out of the set and give back what only they used. After prepare; under the lock. */
static void sparse_take_out(vmk_table *table, size_t first, size_t count)
{
    vmki_index_set_remove(&table->set, first, count);
    for (unsigned i = 0; i < table->columns; i++)
        units_release(table, i, units_of(table, i, first, count), (indices){first, first + count});
}

vmk_status vmki_sparse_drop(vmk_table *table, size_t first, size_t count)
{
    vmki_vm_lock();
    vmk_status status = vmki_index_set_prepare_remove(&table->set, first, count);
    if (status == VMK_OK)
        sparse_take_out(table, first, count);
    vmki_vm_unlock();
    return status;
}

void vmki_sparse_trim(vmk_table *table, size_t count)
{
    vmki_vm_lock();
    if (vmki_index_set_prepare_remove(&table->set, count, table->capacity - count) != VMK_OK) {
        /* No memory to note that a chunk ends in its middle: what is left of the chunk stays ready, cleared. */
        size_t chunk = (size_t)1 << table->set.chunk_shift, limit;
        if (vmki_ceil_overflow(count, chunk, &limit) || limit > table->capacity)
            limit = table->capacity;
        for (unsigned i = 0; i < table->columns; i++) {
            bytes range = units_of(table, i, count, limit - count), run;
            while (next_run(table, i, &range, &run))
                vmki_table_clear(table, i, count, limit, run.from, run.to);
        }
        count = limit;
    }
    if (count < table->capacity)
        sparse_take_out(table, count, table->capacity - count);
    vmki_vm_unlock();
}

bool vmki_table_sparse_ready(const vmk_table *table, unsigned column, size_t index)
{
    (void)column; /* an element is ready in all columns or in none */
    return vmki_index_set_contains(&table->set, index);
}
