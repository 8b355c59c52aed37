/* SPDX-License-Identifier: MIT
 *
 * A map from addresses to words: what the collector notes of single objects and places (finalizers, links, pins,
 * sites). Open addressing with linear probing in memory of its own; removal shifts back, so that there are no
 * tombstones. It holds addresses, but nobody scans it.
 */
#ifndef VMKI_MAP_H
#define VMKI_MAP_H

#include "common/base/align.h"

typedef struct vmki_map_entry {
    uintptr_t key; /* 0: none */
    uintptr_t value;
} vmki_map_entry;

typedef struct vmki_map {
    vmk_region region; /* none while there was never an entry */
    vmki_map_entry *entries;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
} vmki_map; /* all zero is an empty one */

void vmki_map_fini(vmki_map *map);

/* The value of a key, or NULL. The pointer is good until the next add or remove. */
uintptr_t *vmki_map_find(const vmki_map *map, uintptr_t key);

/* Have an entry for the key (not 0): *value points to its value, 0 if it is new. VMK_ERR_ADDRESS_SPACE, VMK_ERR_COMMIT,
 * VMK_ERR_MAPPINGS: no memory; nothing has changed. At most three quarters full, doubles. */
vmk_status vmki_map_add(vmki_map *map, uintptr_t key, uintptr_t **value);

/* Have room for so many entries: as long as there are no more, adding does not fail. Errors as for add. */
vmk_status vmki_map_reserve(vmki_map *map, size_t count);

/* True if there was such an entry. */
bool vmki_map_remove(vmki_map *map, uintptr_t key);

/* Keep the entries that `keep` wants, in one pass, without needing memory; the values of those may be changed by it. */
void vmki_map_filter(vmki_map *map, bool (*keep)(void *context, uintptr_t key, uintptr_t *value), void *context);

/* Is all as it should be? For tests. */
bool vmki_map_check(const vmki_map *map);

#endif
