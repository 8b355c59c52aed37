/* SPDX-License-Identifier: MIT
 *
 * Elements of less than a byte, each loaded and stored in one atomic access, so that neighbours need no agreement.
 */
#include "common/base/check.h"
#include "common/table/table.h"

/* Where element `index` is in its byte: the distance of its lowest bit from the byte's. */
static unsigned bit_shift(size_t bits, size_t index)
{
    return (unsigned)(index % (8 / bits) * bits);
}

unsigned vmk_table_load_bits(const vmk_table *table, unsigned column, size_t index)
{
    size_t bits = table->bits[column];
    VMKI_DCHECK(column < table->columns && bits < 8);
    const uint8_t *byte = (const uint8_t *)vmk_table_at(table, column, index);
    return (unsigned)VMKI_LOAD_RELAXED(byte) >> bit_shift(bits, index) & ((1u << bits) - 1);
}

void vmk_table_store_bits(vmk_table *table, unsigned column, size_t index, unsigned value)
{
    size_t bits = table->bits[column];
    VMKI_DCHECK(column < table->columns && bits < 8);
    uint8_t *byte = (uint8_t *)vmk_table_at(table, column, index);
    unsigned mask = ((1u << bits) - 1) << bit_shift(bits, index);
    unsigned placed = value << bit_shift(bits, index) & mask;
    uint8_t seen = VMKI_LOAD_RELAXED(byte);
    while (!vmki_cas_byte(byte, &seen, (uint8_t)((seen & ~mask) | placed))) {
    }
}
