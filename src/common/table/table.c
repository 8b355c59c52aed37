/* SPDX-License-Identifier: MIT
 *
 * The life of a table, and the public calls, which check, keep errno, and leave the work to table_dense.c and
 * table_sparse.c.
 *
 * Invariants
 *   - What is immutable after init (bases, widths, capacity, origin) is read without synchronisation.
 *   - `ready` is raised with release after every column has been committed, and lowered before any is decommitted; a
 * reader that loads it with acquire may touch what lies below.
 *   - All that writers change is under the vm lock. Readers of a sparse table have the index set's own way.
 *   - No pointer outside the reservation is formed: keys become indices by integer arithmetic.
 */
#include "common/table/table.h"

#include <string.h>

#include "common/base/check.h"
#include "common/base/os.h"
#include "common/vm/vm.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b54u) /* "vmkT" */
#define SEAL_ENDED ((uintptr_t)0x656e6465u)

void vmki_table_require(const vmk_table *table, const char *crime)
{
    if (VMKI_UNLIKELY(table->seal != SEAL_LIVE))
        vmki_misuse(crime, table);
}

/* --- init and fini ---------------------------------------------------------------------------------------------- */

/* The most elements, of `most` at the most, whose layout takes no more than `room`; 0 if not even `least` do. */
static size_t capacity_within(const vmk_table_config *config, size_t least, size_t most, size_t room)
{
    vmki_table_layout layout;
    if (vmki_table_lay_out(config, most, &layout) && layout.size <= room)
        return most;
    if (!vmki_table_lay_out(config, least, &layout) || layout.size > room)
        return 0;
    while (most - least > 1) { /* `least` fits, `most` does not */
        size_t middle = least + (most - least) / 2;
        if (vmki_table_lay_out(config, middle, &layout) && layout.size <= room)
            least = middle;
        else
            most = middle;
    }
    return least;
}

/* Never more elements than there are keys: see vmki_table_config_valid. */
static size_t capacity_of_keys(const vmk_table_config *config)
{
    size_t keys = (UINTPTR_MAX - config->origin) >> config->shift; /* less one, so that it can't overflow */
    return config->origin != 0 && config->capacity - 1 > keys ? keys + 1 : config->capacity;
}

static vmk_status reserve_own(const vmk_table_config *config, size_t *capacity, vmki_table_layout *layout,
                              vmk_region *region)
{
    bool sparse = (config->flags & VMK_TABLE_SPARSE) != 0;
    size_t least = config->min_capacity != 0 ? config->min_capacity : config->capacity;
    size_t attempt = capacity_of_keys(config);
    if (attempt > least) {
        size_t room = vmki_vm_budget(SIZE_MAX, sparse ? VMK_RESERVE_SPARSE : 0);
        attempt = vmki_max(least, capacity_within(config, least, attempt, room));
    }
    for (;;) {
        if (!vmki_table_lay_out(config, attempt, layout))
            return VMK_ERR_ARGUMENT;
        vmk_reserve_options options = {.align = vmki_max(layout->align, vmk_granularity()), .name = config->name};
        vmk_status status = vmk_reserve(region, layout->size, &options);
        if (status == VMK_OK)
            *capacity = attempt;
        if (status != VMK_ERR_ADDRESS_SPACE || attempt == least)
            return status;
        attempt = vmki_max(least, attempt / 2);
    }
}

static vmk_status take_part(const vmk_table_config *config, size_t *capacity, vmki_table_layout *layout)
{
    const vmk_region *region = config->region;
    size_t run;
    if (vmki_region_is_huge(region) || /* a table commits by pages */
        !vmki_is_aligned(config->region_offset | config->region_size, vmk_page_size()) || config->region_size == 0 ||
        !vmki_range_within(config->region_offset, config->region_size, region->size))
        return VMK_ERR_ARGUMENT;
    if (vmk_region_query(region, config->region_offset, &run) != VMK_STATE_RESERVED || run < config->region_size)
        return VMK_ERR_ARGUMENT;
    size_t least = config->min_capacity != 0 ? config->min_capacity : config->capacity;
    if (!vmki_table_lay_out(config, least, layout))
        return VMK_ERR_ARGUMENT;
    *capacity = capacity_within(config, least, capacity_of_keys(config), config->region_size);
    return *capacity != 0 && vmki_table_lay_out(config, *capacity, layout) ? VMK_OK : VMK_ERR_LIMIT;
}

static void table_fill(vmk_table *table, const vmk_table_config *config, size_t capacity,
                       const vmki_table_layout *layout)
{
    table->capacity = capacity;
    table->origin = config->origin;
    table->shift = config->shift;
    table->flags = config->flags;
    table->tail = config->tail;
    table->step = config->step == 0 ? 0 : vmki_ceil(config->step, vmk_page_size());
    table->columns = layout->columns;
    table->part_size = layout->size;
    for (unsigned i = 0; i < layout->columns; i++) {
        table->bits[i] = config->column_bits[i];
        table->column_offset[i] = table->part_offset + layout->column_offset[i];
        table->column_size[i] = layout->column_size[i];
        table->column[i] = table->region->base + table->column_offset[i];
    }
    if ((table->flags & VMK_TABLE_SPARSE) != 0)
        vmki_index_set_init(&table->set, table->region, table->part_offset + layout->set_offset, capacity,
                            layout->chunk_shift);
    else if ((table->flags & VMK_TABLE_HUGE) != 0)
        VMKI_IGNORE(vmk_advise(table->region, table->part_offset, table->part_size, VMK_ADVICE_HUGE)); /* a wish */
    table->seal = SEAL_LIVE;
}

vmk_status vmk_table_init(vmk_table *table, const vmk_table_config *config)
{
    vmki_table_layout layout;
    vmk_region own = {0};
    size_t capacity = 0, ignored;
    if (!vmki_table_config_valid(config) || vmki_ceil_overflow(config->step, vmk_page_size(), &ignored))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status =
        config->region != NULL ? take_part(config, &capacity, &layout) : reserve_own(config, &capacity, &layout, &own);
    if (status != VMK_OK)
        return status;
    *table = (vmk_table){.own_region = own, .part_offset = config->region != NULL ? config->region_offset : 0};
    table->region = config->region != NULL ? config->region : &table->own_region;
    table_fill(table, config, capacity, &layout);
    vmki_os_error_set(before);
    return VMK_OK;
}

void vmk_table_fini(vmk_table *table)
{
    vmki_table_require(table, table->seal == SEAL_ENDED ? "vmk_table_fini: table was ended before"
                                                        : "vmk_table_fini: not a table");
    table->seal = SEAL_ENDED;
    if (table->region == &table->own_region) {
        vmk_release(&table->own_region);
        return;
    }
    /* Refused only where the system can't split a mapping; the owner's release of the region takes it all the same. */
    if (vmk_decommit(table->region, table->part_offset, table->part_size) != VMK_OK)
        VMKI_IGNORE(vmk_discard(table->region, table->part_offset, table->part_size));
}

/* --- growing and shrinking -------------------------------------------------------------------------------------- */

static vmk_status table_ensure(vmk_table *table, size_t first, size_t count)
{
    if (count == 0)
        return VMK_OK;
    if (!vmki_range_within(first, count, table->capacity))
        return VMK_ERR_LIMIT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = (table->flags & VMK_TABLE_SPARSE) != 0 ? vmki_sparse_ensure(table, first, count)
                                                               : vmki_dense_ensure(table, first + count);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmki_table_ensure_slow(vmk_table *table, size_t count)
{
    vmki_table_require(table, "vmk_table_ensure: not a table");
    return table_ensure(table, 0, count);
}

vmk_status vmk_table_ensure_range(vmk_table *table, size_t first, size_t count)
{
    vmki_table_require(table, "vmk_table_ensure_range: not a table");
    return table_ensure(table, first, count);
}

void vmk_table_trim(vmk_table *table, size_t count)
{
    vmki_table_require(table, "vmk_table_trim: not a table");
    vmki_os_error before = vmki_os_error_get();
    if ((table->flags & VMK_TABLE_SPARSE) == 0)
        vmki_dense_trim(table, count);
    else if (count < table->capacity)
        vmki_sparse_trim(table, count);
    vmki_os_error_set(before);
}

vmk_status vmk_table_drop_range(vmk_table *table, size_t first, size_t count)
{
    vmki_table_require(table, "vmk_table_drop_range: not a table");
    if (count == 0 || first >= table->capacity)
        return VMK_OK;
    count = vmki_min(count, table->capacity - first);
    if ((table->flags & VMK_TABLE_SPARSE) == 0) {
        if (first + count < vmk_table_ready(table))
            return VMK_ERR_UNSUPPORTED;
        vmk_table_trim(table, first);
        return VMK_OK;
    }
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_sparse_drop(table, first, count);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

/* --- clearing --------------------------------------------------------------------------------------------------- */

/* Clear the bits of one byte that the mask has not, leaving its other bits to whoever writes them meanwhile. */
static void byte_keep(uint8_t *byte, unsigned mask)
{
    uint8_t seen = VMKI_LOAD_RELAXED(byte);
    while (!vmki_cas_byte(byte, &seen, (uint8_t)(seen & mask))) {
    }
}

void vmki_table_clear(const vmk_table *table, unsigned column, size_t first, size_t limit, size_t from, size_t to)
{
    uint8_t *base = table->column[column];
    size_t bits = table->bits[column];
    if (bits >= 8) {
        size_t low = vmki_max(first * (bits >> 3), from), high = vmki_min(limit * (bits >> 3), to);
        if (low < high)
            memset(base + low, 0, high - low);
        return;
    }
    size_t per = 8 / bits;
    first = vmki_max(first, vmki_column_elements(bits, from));
    limit = vmki_min(limit, vmki_column_elements(bits, to));
    if (first >= limit)
        return;
    unsigned keep_low = (1u << (first % per * bits)) - 1;     /* elements before `first` in its byte */
    unsigned keep_high = ~((1u << (limit % per * bits)) - 1); /* elements from `limit` on in its byte */
    size_t low = first / per, high = limit / per;
    if (low == high) {
        byte_keep(base + low, keep_low | keep_high);
        return;
    }
    if (first % per != 0)
        byte_keep(base + low++, keep_low);
    if (limit % per != 0)
        byte_keep(base + high, keep_high);
    memset(base + low, 0, high - low);
}

/* --- looking ---------------------------------------------------------------------------------------------------- */

void vmk_table_stats_now(const vmk_table *table, vmk_table_stats *stats)
{
    vmki_table_require(table, "vmk_table_stats_now: not a table");
    bool sparse = (table->flags & VMK_TABLE_SPARSE) != 0;
    vmki_vm_lock();
    *stats = (vmk_table_stats){.ready = sparse ? table->set.count : table->ready,
                               .reserved = table->part_size,
                               .overhead = sparse ? vmki_index_set_committed(&table->set) : 0,
                               .commit_count = table->commit_count};
    stats->committed = vmki_vm_committed(table->region, table->part_offset, table->part_size) - stats->overhead;
    vmki_vm_unlock();
}
