/* SPDX-License-Identifier: MIT
 *
 * Tables that threads share: readers without locks while one grows, several that grow at once, a trim beside readers,
 * and a child that goes on after fork. Run under ThreadSanitizer.
 */
#include <string.h>

#include "common/table/table.h"
#include "support.h"

VMK_TABLE_DEFINE(words, uint64_t);

enum { THREADS = 4 };

typedef struct shared {
    words table;
    size_t written; /* elements that the grower has written, published by it */
    size_t stop;
    bool wrong[THREADS + 1];
    size_t seen[THREADS + 1];
} shared;

/* --- one grows, others read ------------------------------------------------------------------------------------- */

enum { GROWN = 1 << 20 };

static void grow(shared *s)
{
    for (size_t i = 0; i < GROWN && !s->wrong[0]; i++) {
        if (words_ensure(&s->table, i + 1) != VMK_OK || *words_at(&s->table, i) != 0) {
            s->wrong[0] = true;
            break;
        }
        *words_at(&s->table, i) = i * 3;
        VMKI_STORE_RELEASE(&s->written, i + 1);
    }
    VMKI_STORE_RELEASE(&s->stop, 1);
}

/* Everything below `ready` can be read at once; everything published as written has its value. */
static void read_all(shared *s, unsigned number)
{
    support_random random = support_random_start(30 + number);
    while (VMK_LOAD_ACQUIRE(&s->stop) == 0) {
        size_t written = VMK_LOAD_ACQUIRE(&s->written);
        size_t ready = words_ready(&s->table);
        if (ready < written)
            s->wrong[number] = true;
        if (written > 0) {
            size_t i = support_random_below(&random, written);
            s->wrong[number] |= *words_at(&s->table, i) != i * 3;
        }
        size_t any = support_random_below(&random, 2 * GROWN);
        const uint64_t *element = words_get(&s->table, any);
        /* What is ready but not yet published by the writer is being written: only its address may be used here. */
        s->wrong[number] |= element == NULL && any < ready;
        s->seen[number]++;
    }
}

static void grower_and_readers(void *argument, unsigned number)
{
    if (number == 0)
        grow(argument);
    else
        read_all(argument, number);
}

START_TEST(readers_need_no_lock_while_one_grows)
{
    static shared s;
    memset(&s, 0, sizeof s);
    ck_assert_int_eq(words_init(&s.table, GROWN), VMK_OK);
    support_threads(THREADS, grower_and_readers, &s);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(!s.wrong[i], "thread %d", i);
    words_fini(&s.table);
}
END_TEST

/* --- all grow --------------------------------------------------------------------------------------------------- */

static void grow_own_elements(void *argument, unsigned number)
{
    shared *s = argument;
    for (size_t i = number; i < GROWN / 4; i += THREADS) {
        if (words_ensure(&s->table, i + 1) != VMK_OK) {
            s->wrong[number] = true;
            return;
        }
        *words_at(&s->table, i) = i + 1;
    }
}

START_TEST(many_may_grow_at_once)
{
    static shared s;
    memset(&s, 0, sizeof s);
    ck_assert_int_eq(words_init(&s.table, GROWN / 4), VMK_OK);
    support_threads(THREADS, grow_own_elements, &s);
    for (size_t i = 0; i < GROWN / 4; i++)
        if (*words_at(&s.table, i) != i + 1)
            ck_abort_msg("element %zu", i);
    ck_assert(vmki_table_check(&s.table.table));
    words_fini(&s.table);
}
END_TEST

/* --- trim beside readers ---------------------------------------------------------------------------------------- */

enum { STAYS = 1000, COMES_AND_GOES = 200000 };

static void trim_and_read(void *argument, unsigned number)
{
    shared *s = argument;
    if (number == 0) {
        for (int i = 0; i < 200; i++) {
            s->wrong[0] |= words_ensure(&s->table, COMES_AND_GOES) != VMK_OK;
            *words_at(&s->table, COMES_AND_GOES - 1) = 1;
            words_trim(&s->table, STAYS);
        }
        VMKI_STORE_RELEASE(&s->stop, 1);
        return;
    }
    while (VMK_LOAD_ACQUIRE(&s->stop) == 0)
        for (size_t i = 0; i < STAYS; i += 7) {
            const uint64_t *element = words_get(&s->table, i);
            s->wrong[number] |= element == NULL || *element != i;
        }
}

START_TEST(trim_leaves_readers_of_the_rest_alone)
{
    static shared s;
    memset(&s, 0, sizeof s);
    ck_assert_int_eq(words_init(&s.table, COMES_AND_GOES), VMK_OK);
    ck_assert_int_eq(words_ensure(&s.table, STAYS), VMK_OK);
    for (size_t i = 0; i < STAYS; i++)
        *words_at(&s.table, i) = i;
    support_threads(THREADS, trim_and_read, &s);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(!s.wrong[i], "thread %d", i);
    words_fini(&s.table);
}
END_TEST

/* --- sparse ----------------------------------------------------------------------------------------------------- */

enum { RANGES = 64, APART = 5000 };

/* Thread 0 ensures and drops the odd ranges; the others read the even ones, which stay, and ask for what was never
 * there. */
static void drop_and_read(void *argument, unsigned number)
{
    shared *s = argument;
    support_random random = support_random_start(40 + number);
    if (number == 0) {
        for (int i = 0; i < 3000; i++) {
            size_t at = (2 * support_random_below(&random, RANGES / 2) + 1) * APART;
            s->wrong[0] |= words_ensure_range(&s->table, at, 700) != VMK_OK;
            s->wrong[0] |= *words_at(&s->table, at + 699) != 0;
            *words_at(&s->table, at + 699) = 1;
            s->wrong[0] |= words_drop_range(&s->table, at, 700) != VMK_OK;
        }
        VMKI_STORE_RELEASE(&s->stop, 1);
        return;
    }
    while (VMK_LOAD_ACQUIRE(&s->stop) == 0) {
        size_t at = 2 * support_random_below(&random, RANGES / 2) * APART + support_random_below(&random, 500);
        const uint64_t *element = words_get(&s->table, at);
        s->wrong[number] |= element == NULL || *element != at;
        s->wrong[number] |= words_get(&s->table, at + 1000) != NULL;
    }
}

START_TEST(drops_leave_readers_of_other_ranges_alone)
{
    static shared s;
    memset(&s, 0, sizeof s);
    vmk_table_config config = {.capacity = RANGES * APART, .flags = VMK_TABLE_SPARSE};
    ck_assert_int_eq(words_init_as(&s.table, &config), VMK_OK);
    for (size_t range = 0; range < RANGES; range += 2) {
        ck_assert_int_eq(words_ensure_range(&s.table, range * APART, 500), VMK_OK);
        for (size_t i = range * APART; i < range * APART + 500; i++)
            *words_at(&s.table, i) = i;
    }
    support_threads(THREADS, drop_and_read, &s);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(!s.wrong[i], "thread %d", i);
    ck_assert(vmki_table_check(&s.table.table));
    words_fini(&s.table);
}
END_TEST

/* --- bits in one byte ------------------------------------------------------------------------------------------- */

static void store_own_bits(void *argument, unsigned number)
{
    vmk_table *table = argument;
    for (int round = 0; round < 20; round++)
        for (size_t i = number; i < 4000; i += THREADS)
            vmk_table_store_bits(table, 0, i, (unsigned)((i + (size_t)round) % 4));
}

START_TEST(neighbours_in_a_byte_belong_to_different_threads)
{
    vmk_table table;
    vmk_table_config config = {.capacity = 4000, .column_bits = {2}};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&table, 4000), VMK_OK);
    support_threads(THREADS, store_own_bits, &table);
    for (size_t i = 0; i < 4000; i++)
        ck_assert_uint_eq(vmk_table_load_bits(&table, 0, i), (i + 19) % 4);
    vmk_table_fini(&table);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("table, threads");
    TCase *tests = tcase_create("threads");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, readers_need_no_lock_while_one_grows);
    tcase_add_test(tests, many_may_grow_at_once);
    tcase_add_test(tests, trim_leaves_readers_of_the_rest_alone);
    tcase_add_test(tests, drops_leave_readers_of_other_ranges_alone);
    tcase_add_test(tests, neighbours_in_a_byte_belong_to_different_threads);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
