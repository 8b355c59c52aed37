/* SPDX-License-Identifier: MIT
 *
 * A set of words that counts them, in nothing but lazily committed tables: one holds the words' letters end to end, one
 * an entry for each word, one the hash index. None of them is ever copied or moved, whatever it grows to.
 */
#ifndef WORDS_H
#define WORDS_H

#include "vmkit.h"

typedef struct entry {
    uint64_t count;
    size_t letters; /* where they start in the table of letters */
    uint32_t length;
    uint32_t hash;
    uint32_t next; /* in its chain: a number of an entry; 0 ends it */
} entry;

VMK_TABLE_DEFINE(letter_table, char);
VMK_TABLE_DEFINE(entry_table, entry);
VMK_TABLE_DEFINE(chain_table, uint32_t); /* number of the first entry in the chain; fresh ones are 0, so empty */

typedef struct words {
    letter_table letters;
    entry_table entries; /* from 1 on */
    chain_table chains;
    size_t letters_used;
    size_t entries_used;
    size_t chains_used;
    uint64_t total;
} words;

/* Reserve room for as much as the system lets us, 64 GiB for the index where there is address space for it. */
VMK_MUST_CHECK vmk_status words_init(words *set);
void words_fini(words *set);

/* Count one more of this word. VMK_ERR_LIMIT, VMK_ERR_COMMIT: there is no room for a new one. */
VMK_MUST_CHECK vmk_status words_add(words *set, const char *letters, size_t length);

#endif
