/* SPDX-License-Identifier: MIT
 *
 * The collector's map against an array of what should be in it; and its records and chains by number. On the model OS
 * with memory that can't be had.
 */
#include <stdlib.h>
#include <string.h>

#include "common/gc/records.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model/model.h"
#endif

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

/* --- a map and what should be in it ------------------------------------------------------------------------------- */

typedef struct expected {
    uintptr_t key;
    uintptr_t value;
    bool in;
} expected;

typedef struct world {
    vmki_map map;
    expected *all;
    size_t keys;
    size_t count;
    support_random random;
} world;

enum keys { KEYS_OBJECTS, KEYS_WORDS, KEYS_PAGES, KEYS_HUGE, KEYS_ANY, KEYS_KINDS };

/* Keys as they come in life: objects in a row, words in a row, far apart by powers of two; and any. */
static uintptr_t key_make(world *w, enum keys kind, size_t i)
{
    switch (kind) {
    case KEYS_OBJECTS:
        return (uintptr_t)0x10000000u + i * 16;
    case KEYS_WORDS:
        return (uintptr_t)0x20000000u + i * sizeof(uintptr_t);
    case KEYS_PAGES:
        return (i + 1) << 12;
    case KEYS_HUGE:
        return (uintptr_t)(i + 1) << (sizeof(uintptr_t) * 8 - 13);
    default: /* every one another, by its lowest bits */
        return (uintptr_t)(support_random_next(&w->random) << 16) | (i + 1);
    }
}

static void world_start(world *w, enum keys kind, size_t keys)
{
    memset(w, 0, sizeof *w);
    w->random = support_random_start(kind * 100 + keys);
    w->keys = keys;
    w->all = calloc(keys, sizeof *w->all);
    ck_assert_ptr_nonnull(w->all);
    for (size_t i = 0; i < keys; i++)
        w->all[i].key = key_make(w, kind, i);
}

static void world_end(world *w)
{
    vmki_map_fini(&w->map);
    ck_assert(vmki_map_check(&w->map));
    free(w->all);
}

static size_t below(world *w, size_t limit)
{
    return support_random_below(&w->random, limit);
}

static void compare_one(const world *w, const expected *e)
{
    const uintptr_t *value = vmki_map_find(&w->map, e->key);
    MUST((value != NULL) == e->in);
    MUST(value == NULL || *value == e->value);
}

static void compare_all(const world *w)
{
    for (size_t i = 0; i < w->keys; i++)
        compare_one(w, &w->all[i]);
    MUST(w->map.count == w->count);
    MUST(vmki_map_check(&w->map));
}

/* False: there was no memory for it, and nothing has changed. */
static bool put(world *w, expected *e)
{
    uintptr_t *value = NULL;
    vmk_status status = vmki_map_add(&w->map, e->key, &value);
    if (status != VMK_OK) {
        MUST(!e->in && value == NULL);
        return false;
    }
    MUST(*value == (e->in ? e->value : 0));
    e->value = *value = (uintptr_t)support_random_next(&w->random) | 1;
    w->count += !e->in;
    e->in = true;
    return true;
}

static void take(world *w, expected *e)
{
    MUST(vmki_map_remove(&w->map, e->key) == e->in);
    w->count -= e->in;
    e->in = false;
}

/* --- random ------------------------------------------------------------------------------------------------------- */

typedef struct sieve {
    world *w;
    unsigned keep; /* of 8 */
    size_t seen;
} sieve;

/* Of what is kept the value changes, so that it shows that it was asked for each exactly once. */
static bool sieve_keep(void *context, uintptr_t key, uintptr_t *value)
{
    sieve *s = context;
    expected *e = NULL;
    for (size_t i = 0; i < s->w->keys && e == NULL; i++)
        if (s->w->all[i].key == key)
            e = &s->w->all[i];
    MUST(e != NULL && e->in && e->value == *value);
    s->seen++;
    e->in = below(s->w, 8) < s->keep;
    s->w->count -= !e->in;
    e->value = *value += 2;
    return e->in;
}

static void filter(world *w)
{
    sieve s = {.w = w, .keep = (unsigned)below(w, 9)};
    size_t before = w->count;
    vmki_map_filter(&w->map, sieve_keep, &s);
    MUST(s.seen == before);
}

/* Adding comes in waves, so that the map fills and empties. */
static void random_steps(world *w, size_t steps)
{
    for (size_t step = 0; step < steps; step++) {
        expected *e = &w->all[below(w, w->keys)];
        size_t choice = below(w, 100), adds = step / (2 * w->keys) % 2 == 0 ? 70 : 30;
        if (choice < adds)
            (void)put(w, e);
        else
            take(w, e);
        if (below(w, 4 * w->keys) == 0)
            filter(w);
        compare_one(w, e);
        compare_one(w, &w->all[below(w, w->keys)]);
        if (step % w->keys == 0)
            compare_all(w);
    }
    compare_all(w);
}

START_TEST(random_against_an_array)
{
    static const size_t sizes[] = {1, 7, 200, 1000, 5000};
    for (enum keys kind = 0; kind < KEYS_KINDS; kind++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            world w;
            world_start(&w, kind, sizes[i]);
            random_steps(&w, support_rounds(20000));
            world_end(&w);
        }
    }
}
END_TEST

static bool keep_all(void *context, uintptr_t key, uintptr_t *value)
{
    (void)value;
    *(size_t *)context += key != 0;
    return true;
}

static bool keep_none(void *context, uintptr_t key, uintptr_t *value)
{
    (void)value;
    *(size_t *)context += key != 0;
    return false;
}

/* As full as it gets, where chains of taken places are long and run past the end. */
START_TEST(full_to_the_brim)
{
    for (enum keys kind = 0; kind < KEYS_KINDS; kind++) {
        world w;
        size_t seen = 0;
        world_start(&w, kind, 3000);
        ck_assert_int_eq(vmki_map_reserve(&w.map, 1000), VMK_OK);
        size_t capacity = w.map.capacity, most = capacity - capacity / 4;
        for (size_t i = 0; i < most && i < w.keys; i++)
            MUST(put(&w, &w.all[i]));
        ck_assert_uint_eq(w.map.capacity, capacity);
        compare_all(&w);
        vmki_map_filter(&w.map, keep_all, &seen);
        ck_assert_uint_eq(seen, w.count);
        compare_all(&w);
        for (size_t i = 0; i < most && i < w.keys; i += 2)
            take(&w, &w.all[i]);
        compare_all(&w);
        filter(&w);
        compare_all(&w);
        seen = 0;
        vmki_map_filter(&w.map, keep_none, &seen);
        ck_assert_uint_eq(seen, w.count);
        ck_assert_uint_eq(w.map.count, 0);
        ck_assert(vmki_map_check(&w.map));
        world_end(&w);
    }
}
END_TEST

START_TEST(an_empty_one_costs_nothing)
{
    vmki_map map = {.count = 0};
    size_t seen = 0;
    ck_assert(vmki_map_check(&map));
    ck_assert_ptr_null(vmki_map_find(&map, 16));
    ck_assert_ptr_null(vmki_map_find(&map, 0));
    ck_assert(!vmki_map_remove(&map, 16));
    ck_assert(!vmki_map_remove(&map, 0));
    vmki_map_filter(&map, keep_all, &seen);
    ck_assert_uint_eq(seen, 0);
    ck_assert_int_eq(vmki_map_reserve(&map, 0), VMK_OK);
    ck_assert_uint_eq(map.capacity, 0);
    vmki_map_fini(&map);
    ck_assert_int_eq(vmki_map_reserve(&map, SIZE_MAX), VMK_ERR_ADDRESS_SPACE);
    ck_assert_int_eq(vmki_map_reserve(&map, SIZE_MAX / 2), VMK_ERR_ADDRESS_SPACE);
    ck_assert(vmki_map_check(&map));
    ck_assert_uint_eq(map.capacity, 0);
}
END_TEST

/* Room that was asked for is there: nothing moves while it is used up. */
START_TEST(room_is_kept)
{
    vmki_map map = {.count = 0};
    for (size_t count = 1; count < 5000; count += 1 + count / 3) {
        ck_assert_int_eq(vmki_map_reserve(&map, count), VMK_OK);
        const vmki_map_entry *entries = map.entries;
        for (uintptr_t key = 1; key <= count; key++) {
            uintptr_t *value;
            MUST(vmki_map_add(&map, key, &value) == VMK_OK);
            MUST(*value == 0 || *value == key);
            *value = key;
        }
        ck_assert_ptr_eq(map.entries, entries);
        ck_assert(vmki_map_check(&map));
    }
    vmki_map_fini(&map);
}
END_TEST

/* --- records and chains ------------------------------------------------------------------------------------------- */

typedef struct thing {
    vmki_record record;
    uintptr_t own;
    vmki_chain other;
} thing;

START_TEST(records_stay_where_they_are)
{
    enum { COUNT = 10000 };
    static thing *places[COUNT + 1];
    vmki_records records = {.made = 0};
    ck_assert_uint_eq(vmki_records_bytes(&records), 0);
    for (size_t i = 1; i <= COUNT; i++) {
        MUST(vmki_records_reserve(&records, sizeof(thing)) == VMK_OK);
        MUST(vmki_records_take(&records, i * 16) == i);
        places[i] = vmki_record_at(&records, i);
        MUST(places[i]->own == 0);
        places[i]->own = i;
    }
    ck_assert_uint_eq(vmki_records_count(&records), COUNT);
    ck_assert_uint_ge(vmki_records_bytes(&records), COUNT * sizeof(thing));
    ck_assert_uint_le(vmki_records_bytes(&records), 2 * COUNT * sizeof(thing) + 16384);
    for (size_t i = 1; i <= COUNT; i++) {
        MUST(vmki_record_at(&records, i) == (void *)places[i]);
        MUST(places[i]->own == i && places[i]->record.object == i * 16);
    }
    for (size_t i = 3; i <= COUNT; i += 3)
        vmki_records_give(&records, i);
    ck_assert_uint_eq(vmki_records_count(&records), COUNT - COUNT / 3);
    for (size_t i = 3; i <= COUNT; i += 3) {
        MUST(vmki_records_reserve(&records, sizeof(thing)) == VMK_OK);
        size_t number = vmki_records_take(&records, 16);
        MUST(number % 3 == 0 && number <= COUNT && places[number]->own == 0);
    }
    ck_assert_uint_eq(records.made, COUNT);
    vmki_records_fini(&records);
    ck_assert_uint_eq(vmki_records_bytes(&records), 0);
    ck_assert_uint_eq(vmki_records_count(&records), 0);
}
END_TEST

/* Two chains through the same records, of few keys, from which members are taken anywhere. */
START_TEST(chains_hold_together)
{
    enum { COUNT = 300, KEYS = 7 };
    vmki_records records = {.made = 0};
    vmki_map first = {.count = 0}, second = {.count = 0};
    uintptr_t keys[COUNT + 1] = {0};
    support_random random = support_random_start(5);
    ck_assert_int_eq(vmki_map_reserve(&first, KEYS), VMK_OK);
    ck_assert_int_eq(vmki_map_reserve(&second, KEYS), VMK_OK);
    for (size_t i = 1; i <= COUNT; i++) {
        MUST(vmki_records_reserve(&records, sizeof(thing)) == VMK_OK);
        MUST(vmki_records_take(&records, 16) == i);
    }
    for (size_t step = support_rounds(20000); step > 0; step--) {
        size_t number = 1 + support_random_below(&random, COUNT);
        if (keys[number] != 0) {
            vmki_chain_remove(&first, keys[number], &records, offsetof(thing, record.chain), number);
            vmki_chain_remove(&second, keys[number] % 3 + 1, &records, offsetof(thing, other), number);
            keys[number] = 0;
        } else {
            keys[number] = 1 + support_random_below(&random, KEYS);
            vmki_chain_add(&first, keys[number], &records, offsetof(thing, record.chain), number);
            vmki_chain_add(&second, keys[number] % 3 + 1, &records, offsetof(thing, other), number);
        }
        uintptr_t key = 1 + support_random_below(&random, KEYS);
        size_t members = 0, found = 0;
        for (size_t i = 1; i <= COUNT; i++)
            members += keys[i] == key;
        for (size_t i = vmki_chain_first(&first, key); i != 0; found++) {
            MUST(keys[i] == key && found < members);
            i = ((thing *)vmki_record_at(&records, i))->record.chain.next;
        }
        MUST(found == members);
        members = found = 0;
        for (size_t i = 1; i <= COUNT; i++)
            members += keys[i] != 0 && keys[i] % 3 == 1;
        for (size_t i = vmki_chain_first(&second, 2); i != 0; found++) {
            MUST(keys[i] % 3 == 1 && found < members);
            i = ((thing *)vmki_record_at(&records, i))->other.next;
        }
        MUST(found == members);
    }
    ck_assert(vmki_map_check(&first));
    ck_assert(vmki_map_check(&second));
    vmki_map_fini(&first);
    vmki_map_fini(&second);
    vmki_records_fini(&records);
}
END_TEST

/* --- without memory ----------------------------------------------------------------------------------------------- */

#ifdef VMKIT_MODEL

static const vmk_status refusals[] = {VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS};

/* Whatever call fails, all is as before, and works when it is tried again. */
START_TEST(a_refusal_changes_nothing)
{
    for (uint64_t nth = 1; nth < 12; nth++) {
        for (size_t kind = 0; kind < 3; kind++) {
            world w;
            size_t refused = 0;
            model_reset(NULL);
            size_t reserved = model_reserved(), committed = model_committed();
            world_start(&w, KEYS_OBJECTS, 40000);
            model_fail_nth(nth, refusals[kind], false);
            for (size_t i = 0; i < w.keys; i++) {
                if (put(&w, &w.all[i]))
                    continue;
                refused++;
                if (i > 0)
                    compare_one(&w, &w.all[i - 1]);
                compare_one(&w, &w.all[i]);
                MUST(vmki_map_check(&w.map));
                MUST(put(&w, &w.all[i]));
            }
            ck_assert_uint_eq(refused, model_failed());
            compare_all(&w);
            world_end(&w);
            model_fail_nth(0, VMK_OK, false);
            ck_assert_uint_eq(model_reserved(), reserved);
            ck_assert_uint_eq(model_committed(), committed);
            ck_assert_ptr_null(model_violation());
        }
    }
}
END_TEST

START_TEST(records_survive_a_refusal)
{
    for (uint64_t nth = 1; nth < 12; nth++) {
        vmki_records records = {.made = 0};
        size_t refused = 0;
        model_reset(NULL);
        size_t reserved = model_reserved(), committed = model_committed();
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (size_t i = 1; i <= 5000; i++) {
            if (vmki_records_reserve(&records, sizeof(thing)) != VMK_OK) {
                refused++;
                MUST(vmki_records_count(&records) == i - 1);
                MUST(vmki_records_reserve(&records, sizeof(thing)) == VMK_OK);
            }
            MUST(vmki_records_take(&records, i) == i);
        }
        ck_assert_uint_eq(refused, model_failed());
        vmki_records_fini(&records);
        model_fail_nth(0, VMK_OK, false);
        ck_assert_uint_eq(model_reserved(), reserved);
        ck_assert_uint_eq(model_committed(), committed);
        ck_assert_ptr_null(model_violation());
    }
}
END_TEST

#endif

static Suite *suite(void)
{
    Suite *s = suite_create("map");
    TCase *t = tcase_create("map");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, random_against_an_array);
    tcase_add_test(t, full_to_the_brim);
    tcase_add_test(t, an_empty_one_costs_nothing);
    tcase_add_test(t, room_is_kept);
    tcase_add_test(t, records_stay_where_they_are);
    tcase_add_test(t, chains_hold_together);
#ifdef VMKIT_MODEL
    tcase_add_test(t, a_refusal_changes_nothing);
    tcase_add_test(t, records_survive_a_refusal);
#endif
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
