/* SPDX-License-Identifier: MIT
 *
 * Dense tables: each column has a committed prefix, and `ready` is what all of them can hold, less the tail.
 *
 * Growth goes ahead of the need, since a system call a page would cost more than the memory; but a speculation that is
 * refused must not fail a call that could be satisfied, so the exact need is tried after it. Committed memory that is
 * ahead of `ready` (because one column was granted more than another, or a decommit was refused) is slack: accessible,
 * zero, and used by the next growth. It always reads as zero, since nobody may have written to it.
 */
#include "common/table/table.h"

#include <string.h>

#include "common/vm/vm.h"

/* How far ahead at most, in bytes of the widest column: at a page fault each, the pages of one such step cost many
 * times what the call does. */
#define AHEAD_MAX ((size_t)64 << 20)

/* The bytes of a column that `count` elements and the tail need, in whole steps, up to its end. */
static size_t column_target(const vmk_table *table, unsigned column, size_t count)
{
    size_t page_size = vmk_page_size();
    size_t size = table->column_size[column];
    size_t bytes = vmki_ceil(vmki_column_bytes(table->bits[column], count + table->tail), page_size);
    size_t step = table->step, rounded;
    if (step == 0 && (table->flags & VMK_TABLE_EXACT) == 0 &&
        (bytes >= VMKI_BIG_COMMITTED || (table->flags & VMK_TABLE_HUGE) != 0))
        step = VMKI_BIG_STEP; /* a huge page can only back what is committed whole */
    if (step <= page_size)
        return bytes;
    size_t beyond = bytes % step; /* a step of the caller's need not be a power of two */
    if (beyond != 0 && vmki_add_overflow(bytes, step - beyond, &rounded))
        return size;
    return beyond == 0 ? bytes : vmki_min(rounded, size);
}

/* Commit every column for `count` elements, or none. */
static vmk_status dense_commit(vmk_table *table, size_t count)
{
    size_t target[VMK_TABLE_MAX_COLUMNS];
    vmk_status status = VMK_OK;
    unsigned done = 0;
    for (; done < table->columns; done++) {
        size_t committed = table->column_committed[done];
        target[done] = vmki_max(column_target(table, done, count), committed);
        status = vmki_vm_commit(table->region, table->column_offset[done] + committed, target[done] - committed);
        if (status != VMK_OK)
            break;
    }
    if (status == VMK_OK) {
        for (unsigned i = 0; i < table->columns; i++)
            table->column_committed[i] = target[i];
        return VMK_OK;
    }
    vmki_os_error why = vmki_os_error_get();
    for (unsigned i = 0; i < done; i++) {
        size_t committed = table->column_committed[i];
        if (vmki_vm_decommit(table->region, table->column_offset[i] + committed, target[i] - committed) != VMK_OK)
            table->column_committed[i] = target[i]; /* slack */
    }
    vmki_os_error_set(why);
    return status;
}

/* Elements that every column can hold now, with the tail behind them. */
static size_t dense_extent(const vmk_table *table)
{
    size_t least = SIZE_MAX;
    for (unsigned i = 0; i < table->columns; i++)
        least = vmki_min(least, vmki_column_elements(table->bits[i], table->column_committed[i]));
    return least <= table->tail ? 0 : vmki_min(least - table->tail, table->capacity);
}

/* How many elements to make ready when `count` are asked for: twice what there is, with the addition bounded. */
static size_t dense_goal(const vmk_table *table, size_t count)
{
    if ((table->flags & VMK_TABLE_EXACT) != 0)
        return count;
    size_t widest = 1;
    for (unsigned i = 0; i < table->columns; i++)
        widest = vmki_max(widest, table->bits[i]);
    size_t ahead = vmki_min(table->ready, vmki_column_elements(widest, AHEAD_MAX));
    size_t goal = ahead > table->capacity - table->ready ? table->capacity : table->ready + ahead;
    return vmki_max(goal, count);
}

vmk_status vmki_dense_ensure(vmk_table *table, size_t count)
{
    vmk_status status = VMK_OK;
    vmki_vm_lock();
    if (count > table->ready) { /* else another thread was faster */
        size_t goal = dense_goal(table, count);
        status = dense_commit(table, goal);
        if (status != VMK_OK && goal > count)
            status = dense_commit(table, count);
        if (status == VMK_OK) {
            table->commit_count++;
            VMKI_STORE_RELEASE(&table->ready, dense_extent(table));
        }
    }
    vmki_vm_unlock();
    return status;
}

void vmki_dense_trim(vmk_table *table, size_t count)
{
    size_t page_size = vmk_page_size();
    vmki_vm_lock();
    if (count >= table->ready) {
        vmki_vm_unlock();
        return;
    }
    VMKI_STORE_RELEASE(&table->ready, count);
    for (unsigned i = 0; i < table->columns; i++) {
        size_t bits = table->bits[i], committed = table->column_committed[i];
        /* Nothing is past nothing: an empty table has no tail. */
        size_t kept = count == 0 ? 0 : vmki_ceil(vmki_column_bytes(bits, count + table->tail), page_size);
        kept = vmki_min(kept, committed);
        vmki_table_clear(table, i, count, vmki_column_elements(bits, SIZE_MAX), 0, kept);
        if (vmki_vm_decommit(table->region, table->column_offset[i] + kept, committed - kept) == VMK_OK)
            table->column_committed[i] = kept;
        else
            memset(table->column[i] + kept, 0, committed - kept); /* slack */
    }
    vmki_vm_unlock();
}
