/* SPDX-License-Identifier: MIT
 *
 * The index grows by linear hashing (W. Litwin, "Linear hashing: a new tool for file and table addressing", 1980): one
 * chain at a time is split in two, the new half going to the end of the table. That needs a table that can grow by an
 * element without moving, which is just what a lazily committed one is; no rehash ever stops the world.
 */
#include "words.h"

#include <string.h>

vmk_status words_init(words *set)
{
    /* The limits are heeded at each init, and half of the address space that is left is taken at the most; so the
     * largest need goes first. min_capacity says that less will do. */
    vmk_table_config config = {.capacity = (size_t)1 << (sizeof(size_t) == 8 ? 31 : 24), .min_capacity = 1024};
    vmk_status status = entry_table_init_as(&set->entries, &config);
    if (status != VMK_OK)
        return status;
    config.capacity = (size_t)1 << (sizeof(size_t) == 8 ? 36 : 28);
    status = letter_table_init_as(&set->letters, &config);
    if (status != VMK_OK) {
        entry_table_fini(&set->entries);
        return status;
    }
    config.capacity = (size_t)1 << (sizeof(size_t) == 8 ? 34 : 26); /* x 4 bytes: 64 GiB, or 256 MiB */
    status = chain_table_init_as(&set->chains, &config);
    if (status != VMK_OK) {
        letter_table_fini(&set->letters);
        entry_table_fini(&set->entries);
        return status;
    }
    set->letters_used = 0;
    set->entries_used = 1;
    set->chains_used = 0;
    set->total = 0;
    return VMK_OK;
}

void words_fini(words *set)
{
    chain_table_fini(&set->chains);
    letter_table_fini(&set->letters);
    entry_table_fini(&set->entries);
}

/* FNV-1a, and a last stir, since chains are chosen by the low bits. */
static uint32_t hash_of(const char *letters, size_t length)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)letters[i]) * 16777619u;
    return (hash ^ hash >> 15) * 2246822519u;
}

/* The largest power of two that is not above n; n > 0. */
static size_t power_below(size_t n)
{
    size_t power = 1;
    while (power <= n / 2)
        power *= 2;
    return power;
}

/* The chain of a hash among `chains`: those not yet split by the doubling under way go by one bit less. */
static size_t chain_of(uint32_t hash, size_t chains)
{
    size_t power = power_below(chains);
    size_t chain = hash & (2 * power - 1);
    return chain < chains ? chain : hash & (power - 1);
}

/* Add a chain at the end, with what of the chain it splits off now belongs there. */
static vmk_status add_chain(words *set)
{
    size_t fresh = set->chains_used;
    vmk_status status = chain_table_ensure(&set->chains, fresh + 1);
    if (status != VMK_OK)
        return status;
    set->chains_used = fresh + 1;
    if (fresh == 0)
        return VMK_OK;
    uint32_t *link = chain_table_at(&set->chains, fresh - power_below(fresh));
    uint32_t *moved = chain_table_at(&set->chains, fresh);
    while (*link != 0) {
        entry *e = entry_table_at(&set->entries, *link);
        if (chain_of(e->hash, fresh + 1) == fresh) {
            *moved = *link;
            moved = &e->next;
            *link = e->next;
        } else {
            link = &e->next;
        }
    }
    *moved = 0;
    return VMK_OK;
}

static entry *find(const words *set, const char *letters, size_t length, uint32_t hash)
{
    if (set->chains_used == 0)
        return NULL;
    uint32_t number = *chain_table_at(&set->chains, chain_of(hash, set->chains_used));
    while (number != 0) {
        entry *e = entry_table_at(&set->entries, number);
        if (e->hash == hash && e->length == length &&
            memcmp(letter_table_at(&set->letters, e->letters), letters, length) == 0)
            return e;
        number = e->next;
    }
    return NULL;
}

vmk_status words_add(words *set, const char *letters, size_t length)
{
    uint32_t hash = hash_of(letters, length);
    entry *known = find(set, letters, length, hash);
    if (known != NULL) {
        known->count++;
        set->total++;
        return VMK_OK;
    }
    vmk_status status = VMK_OK;
    if (set->entries_used > set->chains_used) /* one chain a word */
        status = add_chain(set);
    if (status == VMK_OK)
        status = letter_table_ensure(&set->letters, set->letters_used + length);
    if (status == VMK_OK)
        status = entry_table_ensure(&set->entries, set->entries_used + 1);
    if (status != VMK_OK || set->entries_used > UINT32_MAX || length > UINT32_MAX)
        return status != VMK_OK ? status : VMK_ERR_LIMIT;
    uint32_t *chain = chain_table_at(&set->chains, chain_of(hash, set->chains_used));
    *entry_table_at(&set->entries, set->entries_used) =
        (entry){.count = 1, .letters = set->letters_used, .length = (uint32_t)length, .hash = hash, .next = *chain};
    memcpy(letter_table_at(&set->letters, set->letters_used), letters, length);
    *chain = (uint32_t)set->entries_used;
    set->letters_used += length;
    set->entries_used++;
    set->total++;
    return VMK_OK;
}
