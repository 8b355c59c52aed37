/* SPDX-License-Identifier: MIT
 *
 * Records that the collector keeps of single objects (finalizers, links, ephemerons), by number, 1 and up. They never
 * move, and need no room for more than twice as many as there ever were: each chunk is as large as all before it. And
 * chains of records with the same key, whose first one a map knows.
 */
#ifndef VMKI_RECORDS_H
#define VMKI_RECORDS_H

#include "common/gc/map.h"

enum { VMKI_RECORD_CHUNKS = 40, VMKI_RECORDS_FIRST_SHIFT = 6 };

typedef struct vmki_chain {
    size_t next; /* 0: the last; also of free records */
    size_t previous;
} vmki_chain;

/* What every record begins with. */
typedef struct vmki_record {
    uintptr_t object; /* 0: free */
    vmki_chain chain;
} vmki_record;

typedef struct vmki_records {
    unsigned char *chunks[VMKI_RECORD_CHUNKS];
    size_t size; /* of a record */
    size_t made; /* the highest number ever used; atomic */
    size_t free_first;
    size_t count; /* in use; atomic: may be read without the lock */
} vmki_records;   /* all zero: none */

/* A record that was made. Without the lock too. */
static inline void *vmki_record_at(const vmki_records *records, size_t number)
{
    size_t at = number - 1 + ((size_t)1 << VMKI_RECORDS_FIRST_SHIFT);
    unsigned top = vmki_highest_bit(at);
    const unsigned char *chunk = VMKI_LOAD_ACQUIRE(&records->chunks[top - VMKI_RECORDS_FIRST_SHIFT]);
    return (void *)(uintptr_t)(chunk + (at - ((size_t)1 << top)) * VMKI_LOAD_RELAXED(&records->size));
}

/* See to it that one more can be taken. `size` is the same in all calls. VMK_ERR_ADDRESS_SPACE, VMK_ERR_COMMIT,
 * VMK_ERR_MAPPINGS. */
vmk_status vmki_records_reserve(vmki_records *records, size_t size);

/* After that: a record, all zero but for its object. Answers its number. */
size_t vmki_records_take(vmki_records *records, uintptr_t object);
void vmki_records_give(vmki_records *records, size_t number);
void vmki_records_fini(vmki_records *records);

static inline size_t vmki_records_count(const vmki_records *records)
{
    return VMKI_LOAD_RELAXED(&records->count);
}

/* Put a record into the chain of a key, or take it out; `offset`: where in the record that chain is. The map has room
 * for one more entry. */
void vmki_chain_add(vmki_map *map, uintptr_t key, vmki_records *records, size_t offset, size_t number);
void vmki_chain_remove(vmki_map *map, uintptr_t key, vmki_records *records, size_t offset, size_t number);

/* The first of a chain, 0: none. */
static inline size_t vmki_chain_first(const vmki_map *map, uintptr_t key)
{
    const uintptr_t *first = vmki_map_find(map, key);
    return first != NULL ? *first : 0;
}

/* Bytes of memory that all this takes. */
size_t vmki_records_bytes(const vmki_records *records);

#endif
