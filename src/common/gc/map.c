/* SPDX-License-Identifier: MIT
 *
 * Open addressing, linear probing. Invariant: from the place where a key would like to be (its home) to the place where
 * it is, all places are taken; so a search ends at the first that is free. At least a quarter is free at any time.
 */
#include "common/gc/map.h"

#include "common/base/check.h"
#include "common/vm/vm.h"

/* Addresses have their differences in the lower middle: a multiplication carries them up to the bits that are used.
 * D. Knuth, The Art of Computer Programming, volume 3, 6.4. */
#if UINTPTR_MAX > UINT32_MAX
#define SPREAD ((uintptr_t)0x9e3779b97f4a7c15u)
#else
#define SPREAD ((uintptr_t)0x9e3779b9u)
#endif

static inline size_t home_of(const vmki_map *map, uintptr_t key)
{
    return (key * SPREAD) >> (sizeof key * 8 - vmki_highest_bit(map->capacity));
}

/* Where the key is, or the free place where the search for it ends. The map has places. */
static inline size_t place_of(const vmki_map *map, uintptr_t key)
{
    size_t at = home_of(map, key);
    while (map->entries[at].key != 0 && map->entries[at].key != key)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

static inline size_t most_of(size_t capacity)
{
    return capacity - capacity / 4;
}

void vmki_map_fini(vmki_map *map)
{
    if (map->capacity != 0)
        vmk_release(&map->region);
    *map = (vmki_map){.entries = NULL};
}

uintptr_t *vmki_map_find(const vmki_map *map, uintptr_t key)
{
    if (map->count == 0 || key == 0)
        return NULL;
    vmki_map_entry *entry = &map->entries[place_of(map, key)];
    return entry->key != 0 ? &entry->value : NULL;
}

/* Become one of so many places, a power of two. */
static vmk_status map_grow(vmki_map *map, size_t capacity)
{
    vmki_map grown = {.capacity = capacity, .count = map->count};
    vmk_status status = vmki_region_get(&grown.region, capacity * sizeof(vmki_map_entry));
    if (status != VMK_OK)
        return status;
    grown.entries = (vmki_map_entry *)(void *)grown.region.base;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->entries[i].key != 0)
            grown.entries[place_of(&grown, map->entries[i].key)] = map->entries[i];
    if (map->capacity != 0)
        vmk_release(&map->region);
    *map = grown;
    return VMK_OK;
}

vmk_status vmki_map_reserve(vmki_map *map, size_t count)
{
    size_t capacity = map->capacity;
    if (count <= most_of(capacity))
        return VMK_OK;
    if (capacity == 0)
        capacity = vmk_page_size() / sizeof(vmki_map_entry);
    while (most_of(capacity) < count) {
        if (capacity > SIZE_MAX / 2 / sizeof(vmki_map_entry))
            return VMK_ERR_ADDRESS_SPACE;
        capacity *= 2;
    }
    return map_grow(map, capacity);
}

vmk_status vmki_map_add(vmki_map *map, uintptr_t key, uintptr_t **value)
{
    VMKI_DCHECK(key != 0);
    size_t at = 0;
    if (map->capacity != 0) {
        at = place_of(map, key);
        if (map->entries[at].key != 0) {
            *value = &map->entries[at].value;
            return VMK_OK;
        }
    }
    if (map->count >= most_of(map->capacity)) {
        vmk_status status = vmki_map_reserve(map, map->count + 1);
        if (status != VMK_OK)
            return status;
        at = place_of(map, key);
    }
    map->entries[at] = (vmki_map_entry){.key = key};
    map->count++;
    *value = &map->entries[at].value;
    return VMK_OK;
}

bool vmki_map_remove(vmki_map *map, uintptr_t key)
{
    if (map->count == 0 || key == 0)
        return false;
    size_t mask = map->capacity - 1, hole = place_of(map, key);
    if (map->entries[hole].key == 0)
        return false;
    /* What comes behind the hole moves into it where its home is not between the two. */
    for (size_t at = (hole + 1) & mask; map->entries[at].key != 0; at = (at + 1) & mask) {
        if (((at - home_of(map, map->entries[at].key)) & mask) >= ((at - hole) & mask)) {
            map->entries[hole] = map->entries[at];
            hole = at;
        }
    }
    map->entries[hole] = (vmki_map_entry){.key = 0};
    map->count--;
    return true;
}

/* From a free place all the way round, each entry is taken out and put in again: behind that place, and before the
 * current one, everything is in order by then, so it never comes to lie further from its home than it was. */
void vmki_map_filter(vmki_map *map, bool (*keep)(void *context, uintptr_t key, uintptr_t *value), void *context)
{
    size_t start = 0;
    if (map->count == 0)
        return;
    while (map->entries[start].key != 0)
        start++;
    for (size_t i = 1; i < map->capacity; i++) {
        size_t at = (start + i) & (map->capacity - 1);
        vmki_map_entry entry = map->entries[at];
        if (entry.key == 0)
            continue;
        map->entries[at] = (vmki_map_entry){.key = 0};
        if (keep(context, entry.key, &entry.value))
            map->entries[place_of(map, entry.key)] = entry;
        else
            map->count--;
    }
}

bool vmki_map_check(const vmki_map *map)
{
    size_t count = 0;
    if (map->capacity == 0)
        return map->count == 0 && map->entries == NULL;
    if (!vmki_is_power_of_two(map->capacity) || map->count > most_of(map->capacity) ||
        (void *)map->entries != (void *)map->region.base ||
        map->region.size != vmki_ceil(map->capacity * sizeof(vmki_map_entry), vmk_page_size()))
        return false;
    for (size_t i = 0; i < map->capacity; i++) {
        const vmki_map_entry *entry = &map->entries[i];
        if (entry->key == 0 && entry->value != 0)
            return false;
        if (entry->key != 0 && place_of(map, entry->key) != i)
            return false;
        count += entry->key != 0;
    }
    return count == map->count;
}
