/* SPDX-License-Identifier: MIT
 *
 * From what a table is to be like to where its parts lie.
 */
#include "common/table/table.h"
#include "common/vm/vm.h"

static bool column_width_valid(size_t bits)
{
    return bits == 1 || bits == 2 || bits == 4 || (bits != 0 && bits % 8 == 0);
}

bool vmki_table_config_valid(const vmk_table_config *config)
{
    const unsigned known = VMK_TABLE_SPARSE | VMK_TABLE_EXACT | VMK_TABLE_HUGE;
    if (config->capacity == 0 || config->min_capacity > config->capacity || (config->flags & ~known) != 0 ||
        config->shift >= sizeof(uintptr_t) * 8 || config->column_bits[0] == 0)
        return false;
    for (unsigned i = 0; i < VMK_TABLE_MAX_COLUMNS && config->column_bits[i] != 0; i++)
        if (!column_width_valid(config->column_bits[i]))
            return false;
    /* A key below the origin wraps to a huge index, which must not be one of the table's: the least capacity that would
     * do must end before the addresses do. */
    size_t least = config->min_capacity != 0 ? config->min_capacity : config->capacity;
    return config->origin == 0 || least - 1 <= (UINTPTR_MAX - config->origin) >> config->shift;
}

/* Chunks of about a page of the widest column: then both a lone element and a long range cost the set little. */
static size_t chunk_shift_for(const vmk_table_config *config, unsigned columns, size_t page_size)
{
    size_t widest = 1;
    for (unsigned i = 0; i < columns; i++)
        widest = vmki_max(widest, config->column_bits[i]);
    size_t per_page = vmki_max(page_size / vmki_max(widest / 8, 1) * (widest < 8 ? 8 / widest : 1), 1);
    return vmki_min(vmki_max(vmki_highest_bit(per_page), VMKI_CHUNK_SHIFT_MIN), VMKI_CHUNK_SHIFT_MAX);
}

/* Put one column, and its guard page, at the end of the layout. */
static bool lay_out_column(vmki_table_layout *layout, size_t bits, size_t elements, size_t page_size)
{
    size_t bytes, size, offset, end;
    if (vmki_column_bytes_overflow(bits, elements, &bytes) || vmki_ceil_overflow(bytes, page_size, &size))
        return false;
    size_t align = size >= VMKI_BIG_COLUMN ? vmki_max(VMKI_BIG_STEP, page_size) : page_size;
    if (vmki_ceil_overflow(layout->size, align, &offset) || vmki_add_overflow(offset, size, &end) ||
        vmki_add_overflow(end, page_size, &layout->size))
        return false;
    layout->column_offset[layout->columns] = offset;
    layout->column_size[layout->columns] = size;
    layout->columns++;
    layout->align = vmki_max(layout->align, align);
    return true;
}

bool vmki_table_lay_out(const vmk_table_config *config, size_t capacity, vmki_table_layout *layout)
{
    size_t page_size = vmk_page_size(), elements;
    *layout = (vmki_table_layout){.align = page_size};
    if (vmki_add_overflow(capacity, config->tail, &elements))
        return false;
    for (unsigned i = 0; i < VMK_TABLE_MAX_COLUMNS && config->column_bits[i] != 0; i++)
        if (!lay_out_column(layout, config->column_bits[i], elements, page_size))
            return false;
    if ((config->flags & VMK_TABLE_SPARSE) == 0)
        return true;
    size_t set_size;
    layout->chunk_shift = chunk_shift_for(config, layout->columns, page_size);
    layout->set_offset = layout->size;
    return !vmki_index_set_space_overflow(capacity, layout->chunk_shift, &set_size) &&
           !vmki_add_overflow(layout->size, set_size, &layout->size);
}

vmk_status vmk_table_space(const vmk_table_config *config, size_t *size)
{
    vmki_table_layout layout;
    if (!vmki_table_config_valid(config) || !vmki_table_lay_out(config, config->capacity, &layout))
        return VMK_ERR_ARGUMENT;
    *size = layout.size;
    return VMK_OK;
}
