/* SPDX-License-Identifier: MIT
 *
 * A hash map from strings to strings, of about SIZE entries: keys are chosen at random among twice as many, those that
 * are there are removed, those that are not inserted, 40 x SIZE times, each after a look-up of another. Entries are
 * chained; strings are objects without pointers.
 */
#include "work.h"

enum { TIMES = 40, KEY_MOST = 32, VALUE_LEAST = 16, VALUE_SPREAD = 85 };

typedef struct entry {
    struct entry *next;
    char *key;
    char *value;
    size_t hash;
} entry;

static entry **buckets;
static size_t mask;

static size_t hash_of(const char *key)
{
    uint64_t hash = 14695981039346656037u;
    for (; *key != 0; key++)
        hash = (hash ^ (unsigned char)*key) * 1099511628211u;
    return (size_t)(hash ^ hash >> 29);
}

static entry **find(const char *key, size_t hash)
{
    entry **at = &buckets[hash & mask];
    while (*at != NULL && ((*at)->hash != hash || strcmp((*at)->key, key) != 0))
        at = &(*at)->next;
    return at;
}

static void insert(entry **at, const char *key, size_t hash, size_t length)
{
    size_t key_size = strlen(key) + 1;
    entry *made = (entry *)work_alloc(sizeof *made);
    made->key = (char *)work_leaf(key_size);
    memcpy(made->key, key, key_size);
    made->value = (char *)work_leaf(length + 1);
    memset(made->value, 'a' + (int)(hash % 26), length);
    made->value[length] = 0;
    made->hash = hash;
    *at = made;
}

static void take_out(entry **at)
{
    entry *old = *at;
    *at = old->next;
    work_free(old->key);
    work_free(old->value);
    work_free(old);
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), found = 0;
    size_t entries = 0;
    char key[KEY_MOST];
    for (mask = 1; mask < arguments.size; mask *= 2)
        ;
    buckets = (entry **)work_alloc(mask * sizeof *buckets);
    mask--;
    for (size_t i = 0; i < TIMES * arguments.size; i++) {
        snprintf(key, sizeof key, "key number %zu", work_below(&random, 2 * arguments.size));
        entry **at = find(key, hash_of(key));
        if (*at != NULL)
            found += strlen((*at)->value);
        snprintf(key, sizeof key, "key number %zu", work_below(&random, 2 * arguments.size));
        size_t hash = hash_of(key);
        size_t length = VALUE_LEAST + work_below(&random, VALUE_SPREAD);
        at = find(key, hash);
        if (*at == NULL) {
            insert(at, key, hash, length);
            entries++;
        } else {
            take_out(at);
            entries--;
        }
    }
    work_checksum(found + entries);
    work_report(&arguments);
    return 0;
}
