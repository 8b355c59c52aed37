/* SPDX-License-Identifier: MIT
 *
 * Chunk k has room for 64 x 2^k records. It is a reservation of its own, whose description lies at its beginning.
 */
#include "common/gc/records.h"

#include <string.h>

#include "common/base/check.h"
#include "common/vm/vm.h"

enum { HEAD_SIZE = (sizeof(vmk_region) + 63) / 64 * 64 };

static vmk_status chunk_make(vmki_records *records, unsigned chunk)
{
    size_t size;
    vmk_region region;
    if (chunk >= VMKI_RECORD_CHUNKS || chunk + VMKI_RECORDS_FIRST_SHIFT >= sizeof size * 8 ||
        vmki_mul_overflow(records->size, (size_t)1 << (chunk + VMKI_RECORDS_FIRST_SHIFT), &size) ||
        vmki_add_overflow(size, HEAD_SIZE, &size))
        return VMK_ERR_ADDRESS_SPACE;
    vmk_status status = vmki_region_get(&region, size);
    if (status == VMK_ERR_ARGUMENT)
        return VMK_ERR_ADDRESS_SPACE; /* rounded up it is too large */
    if (status != VMK_OK)
        return status;
    memcpy(region.base, &region, sizeof region);
    VMKI_STORE_RELEASE(&records->chunks[chunk], region.base + HEAD_SIZE);
    return VMK_OK;
}

vmk_status vmki_records_reserve(vmki_records *records, size_t size)
{
    VMKI_STORE_RELAXED(&records->size, size);
    if (records->free_first != 0)
        return VMK_OK;
    unsigned top = vmki_highest_bit(records->made + ((size_t)1 << VMKI_RECORDS_FIRST_SHIFT));
    unsigned chunk = top - VMKI_RECORDS_FIRST_SHIFT;
    if (chunk < VMKI_RECORD_CHUNKS && records->chunks[chunk] != NULL)
        return VMK_OK;
    return chunk_make(records, chunk);
}

size_t vmki_records_take(vmki_records *records, uintptr_t object)
{
    size_t number = records->free_first;
    if (number != 0)
        records->free_first = ((vmki_record *)vmki_record_at(records, number))->chain.next;
    else
        VMKI_STORE_RELEASE(&records->made, number = records->made + 1);
    vmki_record *record = vmki_record_at(records, number);
    memset(record, 0, records->size);
    record->object = object;
    VMKI_STORE_RELAXED(&records->count, records->count + 1);
    return number;
}

void vmki_records_give(vmki_records *records, size_t number)
{
    vmki_record *record = vmki_record_at(records, number);
    VMKI_ASSERT(record->object != 0);
    *record = (vmki_record){.chain.next = records->free_first};
    records->free_first = number;
    VMKI_STORE_RELAXED(&records->count, records->count - 1);
}

void vmki_records_fini(vmki_records *records)
{
    for (unsigned i = 0; i < VMKI_RECORD_CHUNKS && records->chunks[i] != NULL; i++) {
        vmk_region region;
        memcpy(&region, records->chunks[i] - HEAD_SIZE, sizeof region);
        vmk_release(&region);
    }
    *records = (vmki_records){.made = 0};
}

size_t vmki_records_bytes(const vmki_records *records)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < VMKI_RECORD_CHUNKS && records->chunks[i] != NULL; i++)
        bytes += HEAD_SIZE + (records->size << (i + VMKI_RECORDS_FIRST_SHIFT));
    return bytes;
}

/* --- chains ------------------------------------------------------------------------------------------------------- */

static inline vmki_chain *chain_of(vmki_records *records, size_t offset, size_t number)
{
    return (vmki_chain *)(void *)((unsigned char *)vmki_record_at(records, number) + offset);
}

void vmki_chain_add(vmki_map *map, uintptr_t key, vmki_records *records, size_t offset, size_t number)
{
    uintptr_t *first = NULL;
    vmk_status status = vmki_map_add(map, key, &first);
    VMKI_ASSERT(status == VMK_OK); /* room was made for it */
    *chain_of(records, offset, number) = (vmki_chain){.next = *first};
    if (*first != 0)
        chain_of(records, offset, *first)->previous = number;
    *first = number;
}

void vmki_chain_remove(vmki_map *map, uintptr_t key, vmki_records *records, size_t offset, size_t number)
{
    vmki_chain *chain = chain_of(records, offset, number);
    if (chain->next != 0)
        chain_of(records, offset, chain->next)->previous = chain->previous;
    if (chain->previous != 0)
        chain_of(records, offset, chain->previous)->next = chain->next;
    else if (chain->next != 0)
        *vmki_map_find(map, key) = chain->next;
    else
        (void)vmki_map_remove(map, key);
    *chain = (vmki_chain){.next = 0};
}
