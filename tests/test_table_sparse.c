/* SPDX-License-Identifier: MIT
 *
 * Sparse tables, on the real system and on the model, held against an array of what is ready and what it holds.
 */
#include <stdlib.h>
#include <string.h>

#include "common/table/table.h"
#include "common/vm/vm.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

static size_t page;

VMK_TABLE_DEFINE(words, uint64_t);

static void start(words *t, size_t capacity)
{
    vmk_table_config config = {.capacity = capacity, .flags = VMK_TABLE_SPARSE};
    ck_assert_int_eq(words_init_as(t, &config), VMK_OK);
}

static vmk_table_stats figures(const words *t)
{
    vmk_table_stats stats;
    vmk_table_stats_now(&t->table, &stats);
    return stats;
}

#ifdef VMKIT_MODEL
static size_t committed_now(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    return stats.committed;
}

static size_t overhead_now(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    return stats.overhead;
}
#endif

START_TEST(a_range_costs_the_pages_it_touches)
{
    size_t per = page / 8;
    words t;
    start(&t, 1000 * per);
    ck_assert_uint_eq(figures(&t).committed, 0);
    ck_assert_int_eq(words_ensure_range(&t, 10 * per + 1, 1), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, page);
    ck_assert_uint_eq(figures(&t).ready, 1);
    ck_assert_ptr_nonnull(words_get(&t, 10 * per + 1));
    ck_assert_ptr_null(words_get(&t, 10 * per)); /* exact to the element */
    ck_assert_ptr_null(words_get(&t, 10 * per + 2));
    ck_assert_ptr_null(words_get(&t, 0));
    ck_assert_ptr_null(words_get(&t, SIZE_MAX));
    ck_assert_int_eq(words_ensure_range(&t, 20 * per - 1, 2), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, 3 * page);
    ck_assert_int_eq(words_ensure_range(&t, 20 * per - 1, 2), VMK_OK); /* again: nothing */
    ck_assert_uint_eq(figures(&t).committed, 3 * page);
    ck_assert_uint_eq(figures(&t).commit_count, 2);
    ck_assert(vmki_table_check(&t.table));
    ck_assert_int_eq(words_ensure_range(&t, 1000 * per - 1, 2), VMK_ERR_LIMIT);
    ck_assert_int_eq(words_ensure_range(&t, 5, SIZE_MAX), VMK_ERR_LIMIT);
    ck_assert_int_eq(words_ensure_range(&t, 5, 0), VMK_OK);
    words_fini(&t);
}
END_TEST

START_TEST(shared_pages_survive_until_the_last_is_dropped)
{
    size_t per = page / 8;
    words t;
    start(&t, 100 * per);
    ck_assert_int_eq(words_ensure_range(&t, per, 3 * per), VMK_OK);         /* pages 1, 2, 3 */
    ck_assert_int_eq(words_ensure_range(&t, 4 * per, per / 2), VMK_OK);     /* half of page 4 */
    ck_assert_int_eq(words_ensure_range(&t, 4 * per + per / 2, 1), VMK_OK); /* one more on it */
    memset(words_at(&t, per), 0xff, 4 * page);
    ck_assert_int_eq(words_drop_range(&t, per, 3 * per + per / 2), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, page);
    ck_assert_uint_eq(*words_at(&t, 4 * per + per / 2), UINT64_MAX);
    ck_assert_int_eq(words_ensure_range(&t, 4 * per, 1), VMK_OK);
    ck_assert_uint_eq(*words_at(&t, 4 * per), 0); /* dropped and back: zero, though the page stayed */
    ck_assert_int_eq(words_drop_range(&t, 4 * per + per / 2, 1), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, page);
    ck_assert_int_eq(words_drop_range(&t, 0, 100 * per), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, 0);
    ck_assert_uint_eq(figures(&t).ready, 0);
    ck_assert_int_eq(words_drop_range(&t, 7, SIZE_MAX), VMK_OK); /* of nothing */
    ck_assert(vmki_table_check(&t.table));
    words_fini(&t);
}
END_TEST

START_TEST(ensure_and_trim_of_a_sparse_table)
{
    size_t per = page / 8;
    words t;
    start(&t, 100 * per);
    ck_assert_int_eq(words_ensure(&t, 2 * per), VMK_OK);
    ck_assert_int_eq(words_ensure(&t, per), VMK_OK);
    ck_assert_int_eq(words_ensure(&t, 0), VMK_OK);
    ck_assert_uint_eq(words_ready(&t), 0); /* a sparse table has no prefix to tell of */
    ck_assert_int_eq(words_ensure_range(&t, 50 * per, 10), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, 3 * page);
    *words_at(&t, per - 1) = 1;
    words_trim(&t, per + 5);
    ck_assert_uint_eq(figures(&t).committed, 2 * page);
    ck_assert_uint_eq(figures(&t).ready, per + 5);
    ck_assert_uint_eq(*words_at(&t, per - 1), 1);
    words_trim(&t, SIZE_MAX);
    words_trim(&t, 0);
    ck_assert_uint_eq(figures(&t).committed, 0);
    words_fini(&t);
}
END_TEST

START_TEST(the_tail_of_a_range_is_readable)
{
    size_t per = page / 8;
    vmk_table_config config = {.capacity = 8 * per, .tail = 2, .flags = VMK_TABLE_SPARSE};
    words t;
    ck_assert_int_eq(words_init_as(&t, &config), VMK_OK);
    ck_assert_int_eq(words_ensure_range(&t, 2 * per, per), VMK_OK); /* exactly page 2 */
    ck_assert_uint_eq(figures(&t).committed, 2 * page);
    ck_assert_uint_eq(*words_at(&t, 3 * per), 0);
    ck_assert_uint_eq(*words_at(&t, 3 * per + 1), 0);
    ck_assert_int_eq(words_ensure_range(&t, 3 * per + 5, 1), VMK_OK); /* on the page of the tail */
    ck_assert_int_eq(words_drop_range(&t, 3 * per + 5, 1), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, 2 * page);
    ck_assert_int_eq(words_ensure_range(&t, 8 * per - 1, 1), VMK_OK); /* full: the tail lies past the capacity */
    ck_assert_uint_eq(*words_at(&t, 8 * per + 1), 0);
    ck_assert(vmki_table_check(&t.table));
    ck_assert_int_eq(words_drop_range(&t, 3 * per - 2, 2), VMK_OK);
    ck_assert_uint_eq(figures(&t).committed, 3 * page);
    words_fini(&t);
}
END_TEST

START_TEST(neighbours_in_a_byte_survive_a_drop)
{
    vmk_table_config config = {.capacity = 64 * page, .column_bits = {1, 4}, .flags = VMK_TABLE_SPARSE};
    vmk_table t;
    ck_assert_int_eq(vmk_table_init(&t, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure_range(&t, 100, 100), VMK_OK);
    for (size_t i = 100; i < 200; i++) {
        vmk_table_store_bits(&t, 0, i, 1);
        vmk_table_store_bits(&t, 1, i, 0xf);
    }
    ck_assert_int_eq(vmk_table_drop_range(&t, 115, 2), VMK_OK);
    ck_assert_int_eq(vmk_table_drop_range(&t, 131, 30), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure_range(&t, 100, 100), VMK_OK);
    for (size_t i = 100; i < 200; i++) {
        bool gone = (i >= 115 && i < 117) || (i >= 131 && i < 161);
        ck_assert_uint_eq(vmk_table_load_bits(&t, 0, i), gone ? 0 : 1);
        ck_assert_uint_eq(vmk_table_load_bits(&t, 1, i), gone ? 0 : 0xf);
    }
    vmk_table_fini(&t);
}
END_TEST

#ifndef VMKIT_MODEL
/* One element in every GiB of an index of 64 GiB: a page each, and next to nothing else. */
START_TEST(far_apart_elements_cost_a_page_each)
{
    size_t elements = sizeof(size_t) == 8 ? 64 : 16;
    size_t apart = (sizeof(size_t) == 8 ? (size_t)1 << 30 : (size_t)1 << 24) / 8;
    words t;
    start(&t, elements * apart);
    for (size_t i = 0; i < elements; i++) {
        ck_assert_int_eq(words_ensure_range(&t, i * apart + i, 1), VMK_OK);
        *words_at(&t, i * apart + i) = i;
    }
    vmk_table_stats stats = figures(&t);
    ck_assert_uint_eq(stats.committed, elements * page);
    ck_assert_uint_le(stats.overhead, 4 * page);
    ck_assert_uint_eq(stats.ready, elements);
    words_trim(&t, 1); /* its cost follows what is committed, not the 64 GiB */
    ck_assert_uint_eq(figures(&t).committed, page);
    words_fini(&t);
}
END_TEST
#endif

/* Ranges ensured ahead and dropped behind: what is committed, and the record of it, stay bounded. */
START_TEST(a_sliding_window_stays_small)
{
    size_t per = page / 8, width = 3 * per;
    words t;
    start(&t, 2000 * per);
    size_t overhead = 0;
    for (size_t at = 0; at + width < 2000 * per; at += per / 3) {
        ck_assert_int_eq(words_ensure_range(&t, at, width), VMK_OK);
        if (at >= per / 3)
            ck_assert_int_eq(words_drop_range(&t, at - per / 3, per / 3), VMK_OK);
        ck_assert_uint_le(figures(&t).committed, 4 * page);
        if (at / (per / 3) == 100)
            overhead = figures(&t).overhead;
    }
    ck_assert_uint_le(figures(&t).overhead, vmki_max(overhead, 3 * page));
    ck_assert(vmki_table_check(&t.table));
    words_fini(&t);
}
END_TEST

START_TEST(a_sparse_table_in_a_part_of_a_region)
{
    vmk_table_config config = {.capacity = 64 * page, .column_bits = {64, 2}, .flags = VMK_TABLE_SPARSE};
    vmk_region region;
    vmk_table t;
    size_t space, run;
    ck_assert_int_eq(vmk_table_space(&config, &space), VMK_OK);
    ck_assert_int_eq(vmk_reserve(&region, space + 2 * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_OK);
    config.region = &region;
    config.region_offset = page;
    config.region_size = space;
    ck_assert_int_eq(vmk_table_init(&t, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure_range(&t, 64 * page - 5, 5), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure_range(&t, 0, 5), VMK_OK);
    ck_assert(vmki_table_check(&t));
    ck_assert_int_eq(vmk_region_query(&region, space + page, &run), VMK_STATE_RESERVED);
    vmk_table_fini(&t);
    ck_assert_uint_eq(region.committed, page);
    vmk_release(&region);
}
END_TEST

/* --- random operations ------------------------------------------------------------------------------------------- */

enum { CAPACITY = 6000 };

typedef struct sparse_shadow {
    vmk_table table;
    bool ready[CAPACITY];
    uint8_t value[CAPACITY];
} sparse_shadow;

static void shadow_set(sparse_shadow *s, size_t i, uint8_t value)
{
    memset(vmk_table_at(&s->table, 0, i), value, 24);
    vmk_table_store_bits(&s->table, 1, i, value);
    *(uint8_t *)vmk_table_at(&s->table, 2, i) = value;
    s->value[i] = value;
}

static bool shadow_same(const sparse_shadow *s, size_t i)
{
    unsigned char all[24];
    memset(all, s->value[i], sizeof all);
    return memcmp(vmk_table_at(&s->table, 0, i), all, 24) == 0 &&
           vmk_table_load_bits(&s->table, 1, i) == (s->value[i] & 1) &&
           *(uint8_t *)vmk_table_at(&s->table, 2, i) == s->value[i];
}

static bool sparse_agrees(const sparse_shadow *s)
{
    for (size_t i = 0; i < CAPACITY; i++) {
        bool ready = vmk_table_is_ready(&s->table, 0, i);
        if (ready != s->ready[i] || (ready && !shadow_same(s, i)))
            return false;
    }
    return vmki_table_check(&s->table);
}

/* One random step. A trim whose record of a chunk fails may leave up to a chunk ready, cleared: the shadow follows. */
static vmk_status sparse_step(sparse_shadow *s, support_random *random)
{
    size_t first = support_random_below(random, CAPACITY);
    size_t count = support_random_below(random, CAPACITY - first + 1) >> support_random_below(random, 10);
    vmk_status status = VMK_OK;
    switch (support_random_below(random, 7)) {
    case 0:
    case 1:
        status = vmk_table_ensure_range(&s->table, first, count);
        for (size_t i = first; status == VMK_OK && i < first + count; i++) {
            s->value[i] = s->ready[i] ? s->value[i] : 0;
            s->ready[i] = true;
        }
        break;
    case 2:
    case 3:
        status = vmk_table_drop_range(&s->table, first, count);
        for (size_t i = first; status == VMK_OK && i < first + count; i++)
            s->ready[i] = false;
        break;
    case 4:
        if (support_random_below(random, 4) != 0)
            break;
        vmk_table_trim(&s->table, first);
        for (size_t i = first; i < CAPACITY; i++) {
            s->ready[i] = s->ready[i] && vmk_table_is_ready(&s->table, 0, i);
            s->value[i] = 0;
        }
        break;
    default:
        for (size_t i = first; i < first + count; i++)
            if (s->ready[i])
                shadow_set(s, i, (uint8_t)support_random_next(random));
        break;
    }
    return status;
}

static void sparse_start(sparse_shadow *s, support_random *random)
{
    vmk_table_config config = {.capacity = CAPACITY,
                               .column_bits = {24 * 8, 1, 8},
                               .tail = support_random_below(random, 3),
                               .step = support_random_below(random, 2) * support_random_below(random, 4 * page),
                               .flags = VMK_TABLE_SPARSE};
    memset(s, 0, sizeof *s);
    ck_assert_int_eq(vmk_table_init(&s->table, &config), VMK_OK);
}

START_TEST(random_against_an_array)
{
    static sparse_shadow s;
    support_random random = support_random_start(20);
    for (size_t round = 0; round < support_rounds(12); round++) {
        sparse_start(&s, &random);
        for (int i = 0; i < 100; i++) {
            ck_assert_int_eq(sparse_step(&s, &random), VMK_OK);
            ck_assert_msg(sparse_agrees(&s), "round %zu, step %d", round, i);
        }
        ck_assert_int_eq(vmk_table_drop_range(&s.table, 0, SIZE_MAX), VMK_OK);
        vmk_table_stats stats;
        vmk_table_stats_now(&s.table, &stats);
        ck_assert_uint_eq(stats.committed, 0);
        vmk_table_fini(&s.table);
    }
}
END_TEST

#ifdef VMKIT_MODEL
START_TEST(every_call_fails_once)
{
    static sparse_shadow s;
    for (uint64_t nth = 1;; nth++) {
        support_random random = support_random_start(21);
        model_reset(NULL);
        sparse_start(&s, &random);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (int i = 0; i < 50; i++) {
            support_random again = random;
            if (sparse_step(&s, &random) != VMK_OK) {
                ck_assert_msg(sparse_agrees(&s), "call %u, step %d", (unsigned)nth, i);
                random = again;
                ck_assert_int_eq(sparse_step(&s, &random), VMK_OK);
            }
            if (i % 5 == 0 || model_failed())
                ck_assert_msg(sparse_agrees(&s), "call %u, step %d", (unsigned)nth, i);
        }
        bool reached = model_failed();
        vmk_table_fini(&s.table);
        ck_assert_msg(model_violation() == NULL, "%s", model_violation());
        if (!reached)
            break;
    }
}
END_TEST

/* A failing ensure leaves no page committed that was not before; the index set may keep memory of its own. */
START_TEST(a_failed_ensure_commits_nothing)
{
    for (uint64_t nth = 1;; nth++) {
        vmk_table_config config = {.capacity = 50 * page, .column_bits = {64, 8, 1}, .flags = VMK_TABLE_SPARSE};
        vmk_table t;
        vmk_table_stats before, after;
        model_reset(NULL);
        ck_assert_int_eq(vmk_table_init(&t, &config), VMK_OK);
        ck_assert_int_eq(vmk_table_ensure_range(&t, 3 * page, 10), VMK_OK);
        vmk_table_stats_now(&t, &before);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        vmk_status status = vmk_table_ensure_range(&t, 2 * page, 7 * page);
        vmk_table_stats_now(&t, &after);
        ck_assert_int_eq(status, model_failed() ? VMK_ERR_COMMIT : VMK_OK);
        if (status != VMK_OK) {
            ck_assert_uint_eq(after.committed, before.committed);
            ck_assert_uint_eq(after.ready, before.ready);
            ck_assert_uint_eq(model_committed(), committed_now() + overhead_now());
            ck_assert(vmki_table_check(&t));
            ck_assert_int_eq(vmk_table_ensure_range(&t, 2 * page, 7 * page), VMK_OK);
        }
        vmk_table_fini(&t);
        if (status == VMK_OK)
            break;
    }
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}
END_TEST
#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("table, sparse");
    TCase *tests = tcase_create("sparse");
    page = vmk_page_size();
    tcase_add_test(tests, a_range_costs_the_pages_it_touches);
    tcase_add_test(tests, shared_pages_survive_until_the_last_is_dropped);
    tcase_add_test(tests, ensure_and_trim_of_a_sparse_table);
    tcase_add_test(tests, the_tail_of_a_range_is_readable);
    tcase_add_test(tests, neighbours_in_a_byte_survive_a_drop);
    tcase_add_test(tests, a_sliding_window_stays_small);
    tcase_add_test(tests, a_sparse_table_in_a_part_of_a_region);
    tcase_add_test(tests, random_against_an_array);
#ifdef VMKIT_MODEL
    tcase_add_test(tests, every_call_fails_once);
    tcase_add_test(tests, a_failed_ensure_commits_nothing);
#else
    tcase_add_test(tests, far_apart_elements_cost_a_page_each);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
