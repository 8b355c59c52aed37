/* SPDX-License-Identifier: MIT
 *
 * Dense tables and what all tables share, on the real system and on the model.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/table/table.h"
#include "common/vm/vm.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

static size_t page;

VMK_TABLE_DEFINE(ints, int);

struct triple { /* 12 bytes: straddles every page */
    uint32_t a, b, c;
};
VMK_TABLE_DEFINE(triples, struct triple);

static size_t committed_now(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    return stats.committed;
}

static size_t reserved_now(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    return stats.reserved;
}

#ifdef VMKIT_MODEL
static size_t overhead_now(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    return stats.overhead;
}
#endif

/* --- init ------------------------------------------------------------------------------------------------------- */

START_TEST(a_table_commits_nothing_until_it_is_used)
{
    size_t committed = committed_now(), reserved = reserved_now();
    ints t;
    ck_assert_int_eq(ints_init(&t, 1000000), VMK_OK);
    ck_assert_uint_eq(committed_now(), committed);
    ck_assert_uint_ge(reserved_now(), reserved + 4000000);
    ck_assert_uint_eq(ints_ready(&t), 0);
    ck_assert_ptr_null(ints_get(&t, 0));
    ck_assert(vmki_table_check(&t.table));
    ck_assert_int_eq(ints_ensure(&t, 1), VMK_OK);
    ck_assert_uint_eq(committed_now(), committed + page);
    ck_assert_uint_eq(ints_ready(&t), page / sizeof(int));
    *ints_at(&t, 0) = 1;
    ints_fini(&t);
    ck_assert_uint_eq(committed_now(), committed);
    ck_assert_uint_eq(reserved_now(), reserved);
}
END_TEST

START_TEST(configs_that_make_no_sense)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 60 * page, page), VMK_OK);
    const vmk_table_config wrong[] = {
        {.capacity = 0, .column_bits = {8}},
        {.capacity = 10},
        {.capacity = 10, .column_bits = {3}},
        {.capacity = 10, .column_bits = {8, 12}},
        {.capacity = 10, .min_capacity = 11, .column_bits = {8}},
        {.capacity = 10, .column_bits = {8}, .flags = 1u << 20},
        {.capacity = 10, .column_bits = {8}, .shift = sizeof(void *) * 8},
        {.capacity = 10, .column_bits = {8}, .tail = SIZE_MAX},
        {.capacity = 10, .column_bits = {8}, .step = SIZE_MAX},
        {.capacity = SIZE_MAX, .column_bits = {8}},
        {.capacity = SIZE_MAX / 8 + 1, .column_bits = {64}},
        {.capacity = SIZE_MAX / 4, .column_bits = {32, 8}},
        {.capacity = 11, .column_bits = {8}, .origin = UINTPTR_MAX - 9},
        {.capacity = 10, .column_bits = {8}, .region = &region, .region_offset = 1, .region_size = 8 * page},
        {.capacity = 10, .column_bits = {8}, .region = &region, .region_offset = 0, .region_size = 65 * page},
        {.capacity = 10, .column_bits = {8}, .region = &region, .region_offset = page, .region_size = 64 * page},
        {.capacity = 10, .column_bits = {8}, .region = &region, .region_offset = 56 * page, .region_size = 8 * page},
        {.capacity = 10, .column_bits = {8}, .region = &region, .region_offset = 0, .region_size = 0},
    };
    vmk_table table, untouched;
    memset(&table, 0x3c, sizeof table);
    memset(&untouched, 0x3c, sizeof untouched);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ck_assert_msg(vmk_table_init(&table, &wrong[i]) == VMK_ERR_ARGUMENT, "case %zu", i);
        ck_assert_mem_eq(&table, &untouched, sizeof table);
    }
    vmk_release(&region);
}
END_TEST

START_TEST(too_big_a_table_is_no_address_space)
{
    vmk_table table;
    vmk_table_config config = {.capacity = SIZE_MAX / 9, .column_bits = {64}};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_ERR_ADDRESS_SPACE);
}
END_TEST

START_TEST(min_capacity_takes_what_there_is)
{
    vmk_table table;
    size_t committed = committed_now();
    vmk_table_config config = {.capacity = SIZE_MAX / 10, .min_capacity = 1000, .column_bits = {64, 8}};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_uint_ge(table.capacity, 1000);
    ck_assert_uint_lt(table.capacity, SIZE_MAX / 10);
    ck_assert_int_eq(vmk_table_ensure(&table, 1000), VMK_OK);
    *(uint64_t *)vmk_table_at(&table, 0, 999) = 1;
    vmk_table_fini(&table);
    ck_assert_uint_eq(committed_now(), committed);
}
END_TEST

START_TEST(keys_below_the_origin_are_never_ready)
{
    vmk_table table;
    uintptr_t origin = UINTPTR_MAX - 0xffffff; /* the last 16 MiB of the address space, by pages of 4 KiB */
    vmk_table_config config = {.capacity = 4096, .column_bits = {32}, .origin = origin, .shift = 12};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&table, 4096), VMK_OK);
    for (uint32_t i = 0; i < 4096; i++)
        *(uint32_t *)vmk_table_at(&table, 0, i) = i + 1;
    ck_assert_uint_eq(*(uint32_t *)vmk_table_find(&table, 0, origin), 1);
    ck_assert_uint_eq(*(uint32_t *)vmk_table_find(&table, 0, origin + 4095), 1);
    ck_assert_uint_eq(*(uint32_t *)vmk_table_find(&table, 0, origin + 4096), 2);
    ck_assert_uint_eq(*(uint32_t *)vmk_table_find(&table, 0, UINTPTR_MAX), 4096);
    ck_assert_ptr_null(vmk_table_find(&table, 0, origin - 1));
    ck_assert_ptr_null(vmk_table_find(&table, 0, 0));
    ck_assert_ptr_null(vmk_table_find(&table, 0, UINTPTR_MAX / 2));
    vmk_table_fini(&table);
}
END_TEST

START_TEST(a_wish_for_more_keys_than_there_are_is_cut)
{
    vmk_table table;
    vmk_table_config config = {.capacity = 1000, .min_capacity = 5, .column_bits = {8}, .origin = UINTPTR_MAX - 9};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_uint_eq(table.capacity, 10);
    vmk_table_fini(&table);
}
END_TEST

/* --- growing ---------------------------------------------------------------------------------------------------- */

START_TEST(elements_never_move_and_read_as_zero)
{
    ints t;
    ck_assert_int_eq(ints_init(&t, 1 << 21), VMK_OK);
    int *first = ints_base(&t);
    for (size_t i = 0; i < 1 << 21; i++) {
        ck_assert_int_eq(ints_ensure(&t, i + 1), VMK_OK);
        if (*ints_at(&t, i) != 0)
            ck_abort_msg("element %zu is not zero", i);
        *ints_at(&t, i) = (int)i;
    }
    ck_assert_ptr_eq(ints_base(&t), first);
    for (size_t i = 0; i < 1 << 21; i++)
        if (first[i] != (int)i)
            ck_abort_msg("element %zu has changed", i);
    ck_assert_int_eq(ints_ensure(&t, (1 << 21) + 1), VMK_ERR_LIMIT);
    ck_assert_uint_eq(ints_ready(&t), 1 << 21);
    ck_assert(vmki_table_check(&t.table));
    vmk_table_stats stats;
    vmk_table_stats_now(&t.table, &stats);
    ck_assert_uint_le(stats.commit_count, 40); /* doubling, not a call a page */
    ints_fini(&t);
}
END_TEST

/* The seed's formula: exact growth with one entry past the end costs ceil((n + 1) x width / page) pages, never less,
 * never more, whatever n was before. */
START_TEST(exact_growth_follows_the_formula)
{
    vmk_table table;
    vmk_table_config config = {
        .capacity = 1 << 18, .column_bits = {sizeof(void *) * 8}, .tail = 1, .flags = VMK_TABLE_EXACT};
    size_t committed = committed_now(), most = 0;
    support_random random = support_random_start(6);
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    for (int i = 0; i < 2000; i++) {
        size_t count = 1 + support_random_below(&random, (size_t)1 << (1 + i % 18));
        most = vmki_max(most, count);
        vmk_stats before, after;
        vmk_stats_now(&before);
        ck_assert_int_eq(vmk_table_ensure(&table, count), VMK_OK);
        vmk_stats_now(&after);
        ck_assert_uint_eq(after.committed - committed, vmk_page_ceil((most + 1) * sizeof(void *)));
        ck_assert_uint_eq(after.commit_count - before.commit_count, after.committed != before.committed);
        ck_assert_ptr_null(*(void **)vmk_table_at(&table, 0, most)); /* one past: readable */
    }
    vmk_table_fini(&table);
}
END_TEST

START_TEST(the_tail_is_readable_up_to_a_full_table)
{
    for (size_t tail = 0; tail < 3; tail++) {
        /* Exactly full pages, so that the tail needs one of its own. */
        size_t capacity = 8 * page / 8;
        vmk_table table;
        vmk_table_config config = {
            .capacity = capacity, .column_bits = {64, 8}, .tail = tail, .flags = VMK_TABLE_EXACT};
        ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
        for (size_t count = 1; count <= capacity; count++) {
            ck_assert_int_eq(vmk_table_ensure(&table, count), VMK_OK);
            size_t ready = vmk_table_ready(&table);
            for (size_t i = ready; i < ready + tail; i++) {
                ck_assert_uint_eq(*(uint64_t *)vmk_table_at(&table, 0, i), 0);
                ck_assert_uint_eq(*(uint8_t *)vmk_table_at(&table, 1, i), 0);
            }
        }
        ck_assert_uint_eq(vmk_table_ready(&table), capacity);
        ck_assert(vmki_table_check(&table));
#ifndef VMKIT_MODEL
        /* Behind it the guard: what lies past the last page faults, in the column before the neighbour starts. */
        unsigned char *past = table.column[0] + vmk_page_ceil((capacity + tail) * 8);
        ck_assert(support_readable(past - 1) && !support_readable(past));
        ck_assert(past + page <= table.column[1] && !support_readable(past + page - 1));
#endif
        memset(vmk_table_at(&table, 0, 0), 0xff, capacity * 8);
        for (size_t count = capacity - page / 8; count != 0; count -= page / 8) { /* after a trim, too */
            vmk_table_trim(&table, count);
            ck_assert(vmki_table_check(&table));
            for (size_t i = count; i < count + tail; i++)
                ck_assert_uint_eq(*(uint64_t *)vmk_table_at(&table, 0, i), 0);
        }
        vmk_table_fini(&table);
    }
}
END_TEST

START_TEST(columns_of_every_width)
{
    const size_t capacity = 100000;
    vmk_table table;
    vmk_table_config config = {.capacity = capacity, .column_bits = {64, 1, 2, 4, 8, 96, 16, 24}};
    support_random random = support_random_start(7);
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&table, capacity), VMK_OK);
    for (unsigned c = 0; c < 8; c++)
        ck_assert_uint_eq((uintptr_t)table.column[c] % page, 0);
    unsigned char *small[3];
    for (int c = 0; c < 3; c++)
        small[c] = calloc(capacity, 1);
    for (size_t i = 0; i < 3 * capacity; i++) {
        size_t at = support_random_below(&random, capacity);
        unsigned c = (unsigned)support_random_below(&random, 3);
        unsigned value = (unsigned)support_random_below(&random, (size_t)1 << (1u << c));
        vmk_table_store_bits(&table, 1 + c, at, value | (unsigned)((size_t)~0u << (1u << c)));
        small[c][at] = (unsigned char)value;
        *(uint64_t *)vmk_table_at(&table, 0, at) = at;
        memset(vmk_table_at(&table, 5, at), (int)(at & 0xff), 12);
    }
    for (size_t at = 0; at < capacity; at++)
        for (unsigned c = 0; c < 3; c++)
            if (vmk_table_load_bits(&table, 1 + c, at) != small[c][at])
                ck_abort_msg("column %u, element %zu", 1 + c, at);
    for (int c = 0; c < 3; c++)
        free(small[c]);
    ck_assert(vmki_table_check(&table));
    vmk_table_fini(&table);
}
END_TEST

START_TEST(the_first_bit_column_packs_low_bits_first)
{
    vmk_table table;
    vmk_table_config config = {.capacity = 64, .column_bits = {1, 4}};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&table, 64), VMK_OK);
    vmk_table_store_bits(&table, 0, 0, 1);
    vmk_table_store_bits(&table, 0, 9, 1);
    vmk_table_store_bits(&table, 1, 3, 0xa);
    ck_assert_uint_eq(table.column[0][0], 1);
    ck_assert_uint_eq(table.column[0][1], 2);
    ck_assert_uint_eq(table.column[1][1], 0xa0);
    ck_assert_ptr_eq(vmk_table_at(&table, 0, 9), table.column[0] + 1);
    ck_assert_ptr_eq(vmk_table_at(&table, 1, 3), table.column[1] + 1);
    vmk_table_fini(&table);
}
END_TEST

START_TEST(steps_never_cross_the_end)
{
    support_random random = support_random_start(8);
    for (size_t round = 0; round < support_rounds(300); round++) {
        size_t capacity = 1 + support_random_below(&random, 30 * page / 12);
        vmk_table table;
        vmk_table_config config = {.capacity = capacity,
                                   .column_bits = {96, 1},
                                   .tail = support_random_below(&random, 3),
                                   .step = support_random_below(&random, 12 * page)};
        ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
        for (size_t count = 0; count < capacity;) {
            count += 1 + support_random_below(&random, capacity - count);
            ck_assert_int_eq(vmk_table_ensure(&table, count), VMK_OK);
            ck_assert(vmki_table_check(&table));
        }
        ck_assert_uint_eq(vmk_table_ready(&table), capacity);
        vmk_table_fini(&table);
    }
}
END_TEST

START_TEST(ensure_range_of_a_dense_table_is_a_prefix)
{
    ints t;
    ck_assert_int_eq(ints_init(&t, 100000), VMK_OK);
    ck_assert_int_eq(ints_ensure_range(&t, 50000, 0), VMK_OK);
    ck_assert_uint_eq(ints_ready(&t), 0);
    ck_assert_int_eq(ints_ensure_range(&t, 50000, 10), VMK_OK);
    ck_assert_uint_ge(ints_ready(&t), 50010);
    ck_assert_int_eq(ints_ensure_range(&t, 99999, 2), VMK_ERR_LIMIT);
    ck_assert_int_eq(ints_ensure_range(&t, SIZE_MAX, 2), VMK_ERR_LIMIT);
    ck_assert_int_eq(ints_ensure_range(&t, 2, SIZE_MAX), VMK_ERR_LIMIT);
    ints_fini(&t);
}
END_TEST

/* --- trim ------------------------------------------------------------------------------------------------------- */

START_TEST(trim_gives_back_and_zeroes)
{
    triples t;
    size_t committed = committed_now(), count = 20 * page / 12;
    ck_assert_int_eq(triples_init(&t, count), VMK_OK);
    ck_assert_int_eq(triples_ensure(&t, count), VMK_OK);
    memset(triples_base(&t), 0xff, count * 12);
    size_t keep = 5 * page / 12 + 1;
    triples_trim(&t, count);
    ck_assert_uint_eq(triples_ready(&t), count);
    triples_trim(&t, keep);
    ck_assert_uint_eq(triples_ready(&t), keep);
    ck_assert_ptr_null(triples_get(&t, keep));
    ck_assert_uint_eq(committed_now(), committed + vmk_page_ceil(keep * 12));
    ck_assert(vmki_table_check(&t.table));
    ck_assert_int_eq(triples_ensure(&t, count), VMK_OK);
    const struct triple *e = triples_base(&t);
    for (size_t i = 0; i < count; i++) {
        uint32_t expected = i < keep ? UINT32_MAX : 0;
        if (e[i].a != expected || e[i].b != expected || e[i].c != expected)
            ck_abort_msg("element %zu", i);
    }
    triples_trim(&t, 0);
    ck_assert_uint_eq(committed_now(), committed);
    ck_assert_uint_eq(triples_ready(&t), 0);
    triples_fini(&t);
}
END_TEST

START_TEST(drop_range_of_a_dense_table_is_a_trim_at_its_end)
{
    ints t;
    ck_assert_int_eq(ints_init(&t, 4 * page), VMK_OK);
    ck_assert_int_eq(ints_ensure(&t, 4 * page), VMK_OK);
    ck_assert_int_eq(ints_drop_range(&t, 10, 10), VMK_ERR_UNSUPPORTED);
    ck_assert_uint_eq(ints_ready(&t), 4 * page);
    ck_assert_int_eq(ints_drop_range(&t, 10, 0), VMK_OK);
    ck_assert_int_eq(ints_drop_range(&t, page, SIZE_MAX), VMK_OK);
    ck_assert_uint_eq(ints_ready(&t), page);
    ck_assert_int_eq(ints_drop_range(&t, SIZE_MAX, 1), VMK_OK);
    ints_fini(&t);
}
END_TEST

/* --- a part of a region ------------------------------------------------------------------------------------------ */

START_TEST(tables_live_in_parts_of_a_region)
{
    vmk_table_config config = {.capacity = 10 * page, .column_bits = {8, 1}, .tail = 1};
    size_t space;
    vmk_region region;
    vmk_table a, b;
    ck_assert_int_eq(vmk_table_space(&config, &space), VMK_OK);
    ck_assert_uint_eq(space % page, 0);
    ck_assert_int_eq(vmk_reserve(&region, 2 * space + page, NULL), VMK_OK);
    config.region = &region;
    config.region_size = space;
    ck_assert_int_eq(vmk_table_init(&a, &config), VMK_OK);
    config.region_offset = space + page;
    ck_assert_int_eq(vmk_table_init(&b, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&a, 10 * page), VMK_OK);
    memset(vmk_table_at(&a, 0, 0), 1, 10 * page);
    ck_assert_int_eq(vmk_table_ensure(&b, 10 * page), VMK_OK);
    for (size_t i = 0; i < 10 * page; i++)
        ck_assert_uint_eq(*(uint8_t *)vmk_table_at(&b, 0, i), 0);
    ck_assert_int_eq(vmk_region_query(&region, space, NULL), VMK_STATE_RESERVED);
    vmk_table_fini(&a);
    ck_assert(vmki_table_check(&b));
    size_t run;
    ck_assert_int_eq(vmk_region_query(&region, 0, &run), VMK_STATE_RESERVED);
    ck_assert_uint_ge(run, space);
    vmk_table_fini(&b);
    ck_assert_uint_eq(region.committed, 0);
    config.region_size = space - page;
    ck_assert_int_eq(vmk_table_init(&b, &config), VMK_ERR_LIMIT);
    config.min_capacity = page;
    ck_assert_int_eq(vmk_table_init(&b, &config), VMK_OK);
    ck_assert_uint_lt(b.capacity, 10 * page);
    ck_assert_uint_ge(b.capacity, 8 * page);
    ck_assert_int_eq(vmk_table_ensure(&b, b.capacity), VMK_OK);
    ck_assert(vmki_table_check(&b));
    vmk_table_fini(&b);
    vmk_release(&region);
}
END_TEST

/* --- big and many ------------------------------------------------------------------------------------------------ */

START_TEST(many_tables_at_once)
{
#ifdef VMKIT_MODEL
    enum { TABLES = 300 };
#else
    enum { TABLES = 10000 };
#endif
    ints *t = calloc(TABLES, sizeof *t);
    size_t reserved = reserved_now();
    for (int i = 0; i < TABLES; i++) {
        ck_assert_int_eq(ints_init(&t[i], 4000), VMK_OK);
        ck_assert_int_eq(ints_ensure(&t[i], 1), VMK_OK);
        *ints_at(&t[i], 0) = i;
    }
    for (int i = 0; i < TABLES; i++) {
        ck_assert_int_eq(*ints_at(&t[i], 0), i);
        ints_fini(&t[i]);
    }
    ck_assert_uint_eq(reserved_now(), reserved);
    free(t);
}
END_TEST

#ifndef VMKIT_MODEL
START_TEST(a_table_of_2_to_40_bits)
{
    if (sizeof(size_t) < 8)
        return; /* more than the address space holds: too_big_a_table covers the refusal */
    vmk_table table;
    vmk_table_config config = {.capacity = (size_t)1 << (sizeof(size_t) * 8 >= 64 ? 40 : 20), .column_bits = {1}};
    size_t committed = committed_now();
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&table, 1), VMK_OK);
    ck_assert_uint_eq(committed_now(), committed + page);
    vmk_table_store_bits(&table, 0, 0, 1);
    ck_assert_uint_eq(vmk_table_load_bits(&table, 0, 0), 1);
    vmk_table_fini(&table);
}
END_TEST

START_TEST(growth_adds_no_mappings)
{
    ints t;
    ck_assert_int_eq(ints_init(&t, 64 << 20), VMK_OK);
    ck_assert_int_eq(ints_ensure(&t, 1), VMK_OK);
    size_t size = t.table.part_size, first = support_mappings(t.table.column[0], size), last = first;
    for (size_t count = 1; count <= 64 << 20; count += page) {
        ck_assert_int_eq(ints_ensure(&t, count), VMK_OK);
        if (count % (1024 * page) == 1 && first != SIZE_MAX) {
            *ints_at(&t, count - 1) = 1;
            last = support_mappings(t.table.column[0], size);
            ck_assert_uint_le(last, first);
        }
    }
    ints_trim(&t, 10);
    if (first != SIZE_MAX)
        ck_assert_uint_le(support_mappings(t.table.column[0], size), first);
    ints_fini(&t);
}
END_TEST

START_TEST(touching_what_is_not_ready_faults)
{
    ints t;
    ck_assert_int_eq(ints_init(&t, 100 * page), VMK_OK);
    ck_assert(!support_readable(ints_at(&t, 0)));
    ck_assert_int_eq(ints_ensure(&t, 1), VMK_OK);
    ck_assert(support_writable(ints_at(&t, ints_ready(&t) - 1)));
    ck_assert(!support_readable(ints_at(&t, ints_ready(&t))));
    ck_assert(!support_readable(ints_at(&t, 100 * page - 1)));
    ints_fini(&t);
}
END_TEST

START_TEST(huge_pages_are_a_wish)
{
    ints t;
    vmk_table_config config = {.capacity = 32 << 20, .flags = VMK_TABLE_HUGE};
    ck_assert_int_eq(ints_init_as(&t, &config), VMK_OK);
    ck_assert_uint_eq((uintptr_t)ints_base(&t) % VMKI_BIG_STEP, 0);
    for (size_t i = 0; i < 4 << 20; i++) {
        ck_assert_int_eq(ints_ensure(&t, i + 1), VMK_OK);
        *ints_at(&t, i) = 1;
    }
    ck_assert_uint_eq(t.table.column_committed[0] % VMKI_BIG_STEP, 0);
    ck_assert(vmki_table_check(&t.table));
    ints_fini(&t);
}
END_TEST
#endif

/* --- random operations ------------------------------------------------------------------------------------------- */

enum { RANDOM_CAPACITY = 20000 };

typedef struct dense_shadow {
    vmk_table table;
    uint32_t value[RANDOM_CAPACITY]; /* what every column's element was last set to */
    size_t ready;                    /* at least this many */
} dense_shadow;

static void shadow_set(dense_shadow *s, size_t i, uint32_t value)
{
    *(uint32_t *)vmk_table_at(&s->table, 0, i) = value;
    vmk_table_store_bits(&s->table, 1, i, value);
    memset(vmk_table_at(&s->table, 2, i), (int)(value & 0xff), 5);
    s->value[i] = value;
}

static bool shadow_same(const dense_shadow *s, size_t i)
{
    unsigned char five[5];
    memset(five, (int)(s->value[i] & 0xff), 5);
    return *(uint32_t *)vmk_table_at(&s->table, 0, i) == s->value[i] &&
           vmk_table_load_bits(&s->table, 1, i) == (s->value[i] & 3) &&
           memcmp(vmk_table_at(&s->table, 2, i), five, 5) == 0;
}

/* The elements that have become ready since must be zero. */
static bool shadow_take(dense_shadow *s)
{
    size_t ready = vmk_table_ready(&s->table);
    for (; s->ready < ready; s->ready++) {
        s->value[s->ready] = 0;
        if (!shadow_same(s, s->ready))
            return false;
    }
    return ready == s->ready;
}

static vmk_status dense_step(dense_shadow *s, support_random *random)
{
    vmk_status status = VMK_OK;
    size_t count = support_random_below(random, RANDOM_CAPACITY + 1) >> support_random_below(random, 12);
    switch (support_random_below(random, 3)) {
    case 0:
        status = vmk_table_ensure(&s->table, count);
        if (status == VMK_OK)
            ck_assert_uint_ge(vmk_table_ready(&s->table), count);
        break;
    case 1:
        vmk_table_trim(&s->table, count);
        s->ready = vmki_min(s->ready, count);
        break;
    default:
        for (size_t i = support_random_below(random, 200); i < s->ready; i += 1 + support_random_below(random, 400))
            shadow_set(s, i, (uint32_t)support_random_next(random));
        break;
    }
    return status;
}

static void dense_agrees(dense_shadow *s)
{
    ck_assert(shadow_take(s));
    for (size_t i = 0; i < s->ready; i++)
        if (!shadow_same(s, i))
            ck_abort_msg("element %zu", i);
    ck_assert(vmki_table_check(&s->table));
}

static void dense_start(dense_shadow *s, support_random *random)
{
    vmk_table_config config = {.capacity = RANDOM_CAPACITY,
                               .column_bits = {32, 2, 40},
                               .tail = support_random_below(random, 3),
                               .step = support_random_below(random, 2) * support_random_below(random, 3 * page),
                               .flags = support_random_below(random, 2) != 0 ? VMK_TABLE_EXACT : 0};
    s->ready = 0;
    ck_assert_int_eq(vmk_table_init(&s->table, &config), VMK_OK);
}

START_TEST(random_against_an_array)
{
    static dense_shadow s;
    support_random random = support_random_start(9);
    for (size_t round = 0; round < support_rounds(10); round++) {
        dense_start(&s, &random);
        for (int i = 0; i < 100; i++) {
            ck_assert_int_eq(dense_step(&s, &random), VMK_OK);
            dense_agrees(&s);
        }
        vmk_table_fini(&s.table);
    }
}
END_TEST

START_TEST(errno_survives_growth)
{
    ints t;
    errno = 4711;
    ck_assert_int_eq(ints_init(&t, 100000), VMK_OK);
    ck_assert_int_eq(ints_ensure(&t, 50000), VMK_OK);
    ints_trim(&t, 10);
    ck_assert_int_eq(ints_drop_range(&t, 5, 100000), VMK_OK);
    ints_fini(&t);
    ck_assert_int_eq(errno, 4711);
}
END_TEST

#ifdef VMKIT_MODEL
/* Every call of the system fails once, at every position: nothing is published, nothing lost, and the call succeeds
 * when repeated. A trim has no status: what can't be decommitted is cleared. */
START_TEST(every_call_fails_once)
{
    static dense_shadow s;
    for (uint64_t nth = 1;; nth++) {
        support_random random = support_random_start(10);
        model_reset(NULL);
        dense_start(&s, &random);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (int i = 0; i < 40; i++) {
            support_random again = random;
            size_t ready = vmk_table_ready(&s.table), committed = s.table.region->committed;
            if (dense_step(&s, &random) != VMK_OK) {
                ck_assert_uint_eq(vmk_table_ready(&s.table), ready);
                ck_assert_uint_eq(s.table.region->committed, committed);
                ck_assert_uint_eq(model_committed(), committed_now() + overhead_now());
                random = again;
                ck_assert_int_eq(dense_step(&s, &random), VMK_OK);
            }
            dense_agrees(&s);
        }
        bool reached = model_failed();
        vmk_table_fini(&s.table);
        ck_assert_msg(model_violation() == NULL, "%s", model_violation());
        if (!reached)
            break;
    }
}
END_TEST

START_TEST(when_every_decommit_fails_trim_still_zeroes)
{
    ints t;
    model_reset(NULL);
    ck_assert_int_eq(ints_init(&t, 10 * page), VMK_OK);
    ck_assert_int_eq(ints_ensure(&t, 10 * page), VMK_OK);
    memset(ints_base(&t), 1, 10 * page * sizeof(int));
    model_fail_nth(1, VMK_ERR_MAPPINGS, true);
    ints_trim(&t, 7);
    model_fail_nth(0, VMK_OK, false);
    ck_assert_uint_eq(ints_ready(&t), 7);
    ck_assert_uint_eq(t.table.region->committed, 10 * page * sizeof(int)); /* slack */
    ck_assert(vmki_table_check(&t.table));
    ck_assert_int_eq(ints_ensure(&t, 10 * page), VMK_OK);
    for (size_t i = 7; i < 10 * page; i++)
        if (*ints_at(&t, i) != 0)
            ck_abort_msg("element %zu", i);
    ints_fini(&t);
}
END_TEST

START_TEST(a_refused_speculation_falls_back_to_the_need)
{
    ints t;
    model_reset(NULL);
    ck_assert_int_eq(ints_init(&t, 100 * page), VMK_OK);
    ck_assert_int_eq(ints_ensure(&t, 8 * page), VMK_OK); /* 32 pages: the next would be 64 */
    model_reset(&(model_rules){.commit_quota = model_committed() + page});
    ck_assert_int_eq(ints_ensure(&t, 8 * page + 1), VMK_OK);
    ck_assert_uint_eq(t.table.region->committed, 33 * page);
    ck_assert_int_eq(ints_ensure(&t, 9 * page), VMK_ERR_COMMIT);
    ck_assert_uint_eq(t.table.region->committed, 33 * page);
    model_reset(NULL);
    ck_assert_int_eq(ints_ensure(&t, 9 * page), VMK_OK);
    ints_fini(&t);
}
END_TEST

START_TEST(a_table_shrinks_to_the_address_space)
{
    model_reset(&(model_rules){.address_space = model_reserved() + (1 << 20)});
    ints t;
    vmk_table_config config = {.capacity = 1 << 24, .min_capacity = 1000};
    ck_assert_int_eq(ints_init_as(&t, &config), VMK_OK);
    ck_assert_uint_ge(t.table.capacity, 1000);
    ck_assert_uint_le(t.table.capacity, 1 << 18);
    ints_fini(&t);
    config.min_capacity = 1 << 19;
    ck_assert_int_eq(ints_init_as(&t, &config), VMK_ERR_ADDRESS_SPACE);
    model_reset(&(model_rules){.limits = {.address_space = 8 << 20}});
    config.min_capacity = 1000;
    ck_assert_int_eq(ints_init_as(&t, &config), VMK_OK);
    ck_assert_uint_le(t.table.part_size, 4 << 20);
    ck_assert_uint_ge(t.table.part_size, 3 << 20);
    ints_fini(&t);
    model_reset(NULL);
}
END_TEST
#endif

static void add_tests(TCase *tests)
{
    tcase_add_test(tests, a_table_commits_nothing_until_it_is_used);
    tcase_add_test(tests, configs_that_make_no_sense);
    tcase_add_test(tests, too_big_a_table_is_no_address_space);
    tcase_add_test(tests, min_capacity_takes_what_there_is);
    tcase_add_test(tests, keys_below_the_origin_are_never_ready);
    tcase_add_test(tests, a_wish_for_more_keys_than_there_are_is_cut);
    tcase_add_test(tests, elements_never_move_and_read_as_zero);
    tcase_add_test(tests, exact_growth_follows_the_formula);
    tcase_add_test(tests, the_tail_is_readable_up_to_a_full_table);
    tcase_add_test(tests, columns_of_every_width);
    tcase_add_test(tests, the_first_bit_column_packs_low_bits_first);
    tcase_add_test(tests, steps_never_cross_the_end);
    tcase_add_test(tests, ensure_range_of_a_dense_table_is_a_prefix);
    tcase_add_test(tests, trim_gives_back_and_zeroes);
    tcase_add_test(tests, drop_range_of_a_dense_table_is_a_trim_at_its_end);
    tcase_add_test(tests, tables_live_in_parts_of_a_region);
    tcase_add_test(tests, many_tables_at_once);
    tcase_add_test(tests, random_against_an_array);
    tcase_add_test(tests, errno_survives_growth);
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("table");
    TCase *tests = tcase_create("table");
    page = vmk_page_size();
    add_tests(tests);
#ifdef VMKIT_MODEL
    tcase_add_test(tests, every_call_fails_once);
    tcase_add_test(tests, when_every_decommit_fails_trim_still_zeroes);
    tcase_add_test(tests, a_refused_speculation_falls_back_to_the_need);
    tcase_add_test(tests, a_table_shrinks_to_the_address_space);
#else
    tcase_add_test(tests, a_table_of_2_to_40_bits);
    tcase_add_test(tests, growth_adds_no_mappings);
    tcase_add_test(tests, touching_what_is_not_ready_faults);
    tcase_add_test(tests, huge_pages_are_a_wish);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
