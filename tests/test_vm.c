/* SPDX-License-Identifier: MIT
 *
 * Regions, on the real system and on the model. Random operations are held against an array of page states; on the
 * model, every call of the system is made to fail once at every position.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/vm/vm.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

static size_t page;

static vmk_region reserved(size_t pages)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, pages * page, NULL), VMK_OK);
    return region;
}

static bool all_are(const unsigned char *bytes, size_t size, unsigned char value)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

/* --- reserve ---------------------------------------------------------------------------------------------------- */

START_TEST(reserve_rounds_up_and_commits_nothing)
{
    vmk_stats before, after;
    vmk_region region;
    vmk_stats_now(&before);
    ck_assert_int_eq(vmk_reserve(&region, 3 * page - 1, NULL), VMK_OK);
    ck_assert_ptr_nonnull(region.base);
    ck_assert_uint_eq(region.size, 3 * page);
    ck_assert_uint_eq(region.committed, 0);
    ck_assert_uint_eq((uintptr_t)region.base % vmk_granularity(), 0);
    ck_assert(vmki_region_check(&region));
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.reserved, before.reserved + 3 * page);
    ck_assert_uint_eq(after.committed, before.committed);
    ck_assert_uint_eq(after.regions, before.regions + 1);
    vmk_release(&region);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.regions, before.regions);
    ck_assert_uint_ge(after.reserved_peak, before.reserved + 3 * page);
}
END_TEST

START_TEST(reserve_refuses_what_makes_no_sense)
{
    const vmk_reserve_options bad_align = {.align = 3 * 4096};
    const vmk_reserve_options exact_nowhere = {.flags = VMK_RESERVE_EXACT};
    const vmk_reserve_options exact_odd = {.flags = VMK_RESERVE_EXACT, .hint = (void *)(uintptr_t)0x10001};
    const vmk_reserve_options too_much_at_least = {.min_size = 2 * page};
    const vmk_reserve_options unknown_flag = {.flags = 1u << 30};
    const vmk_reserve_options huge_guard = {.guard_size = SIZE_MAX};
    const vmk_reserve_options big_guard = {.guard_size = SIZE_MAX - 2 * page + 1};
    const struct {
        size_t size;
        const vmk_reserve_options *options;
    } cases[] = {
        {0, NULL},           {SIZE_MAX, NULL},       {SIZE_MAX - page + 2, NULL}, {page, &bad_align},
        {page, &exact_odd},  {page, &exact_nowhere}, {page, &too_much_at_least},  {page, &unknown_flag},
        {page, &huge_guard}, {4 * page, &big_guard},
    };
    vmk_region region, untouched;
    memset(&region, 0x5a, sizeof region);
    memset(&untouched, 0x5a, sizeof untouched);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(vmk_reserve(&region, cases[i].size, cases[i].options) == VMK_ERR_ARGUMENT, "case %zu", i);
        ck_assert_mem_eq(&region, &untouched, sizeof region);
    }
}
END_TEST

START_TEST(reserve_more_than_there_is)
{
    vmk_region region, untouched;
    memset(&region, 0x5a, sizeof region);
    memset(&untouched, 0x5a, sizeof untouched);
    ck_assert_int_eq(vmk_reserve(&region, SIZE_MAX / 16 * 15 / page * page, NULL), VMK_ERR_ADDRESS_SPACE);
    ck_assert_mem_eq(&region, &untouched, sizeof region);
}
END_TEST

START_TEST(reserve_at_most_gets_what_there_is)
{
    vmk_reserve_options options = {.min_size = page};
    vmk_region region;
    size_t most = SIZE_MAX / 16 * 15 / page * page;
    ck_assert_int_eq(vmk_reserve(&region, most, &options), VMK_OK);
    ck_assert_uint_lt(region.size, most);
    ck_assert_uint_ge(region.size, page);
    ck_assert_int_eq(vmk_commit(&region, region.size - page, page), VMK_OK);
    region.base[region.size - 1] = 1;
    vmk_release(&region);
}
END_TEST

START_TEST(reserve_at_a_place)
{
    vmk_region region = reserved(16), again;
    vmk_reserve_options options = {.hint = region.base, .flags = VMK_RESERVE_EXACT};
    ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_OK);
    region.base[0] = 77;
    ck_assert_int_eq(vmk_reserve(&again, page, &options), VMK_ERR_TAKEN);
    ck_assert_int_eq(region.base[0], 77);
    options.flags = 0; /* a mere hint goes elsewhere */
    ck_assert_int_eq(vmk_reserve(&again, page, &options), VMK_OK);
    ck_assert_ptr_ne(again.base, region.base);
    vmk_release(&again);
    void *place = region.base;
    vmk_release(&region);
    options.flags = VMK_RESERVE_EXACT;
    ck_assert_int_eq(vmk_reserve(&again, page, &options), VMK_OK);
    ck_assert_ptr_eq(again.base, place);
    vmk_release(&again);
}
END_TEST

START_TEST(reserve_aligned)
{
    size_t most = sizeof(void *) == 8 ? (size_t)1 << 26 : (size_t)1 << 24;
    for (size_t align = 1; align <= most; align <<= 1) {
        vmk_reserve_options options = {.align = align};
        vmk_region region;
        ck_assert_int_eq(vmk_reserve(&region, 3 * page, &options), VMK_OK);
        ck_assert_uint_eq((uintptr_t)region.base % align, 0);
        ck_assert_int_eq(vmk_commit(&region, 0, region.size), VMK_OK);
        memset(region.base, 1, region.size);
        vmk_release(&region);
    }
}
END_TEST

START_TEST(the_guard_faults_and_is_counted)
{
    vmk_reserve_options options = {.guard_size = 1};
    vmk_stats before, after;
    vmk_region region;
    vmk_stats_now(&before);
    ck_assert_int_eq(vmk_reserve(&region, 2 * page, &options), VMK_OK);
    ck_assert_uint_eq(region.size, 2 * page);
    ck_assert_uint_eq(region.guard_size, page);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.reserved, before.reserved + 3 * page);
    ck_assert_int_eq(vmk_commit(&region, 0, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 2 * page, page), VMK_ERR_ARGUMENT);
#ifndef VMKIT_MODEL
    ck_assert(support_writable(region.base + 2 * page - 1));
    ck_assert(!support_readable(region.base + 2 * page));
    ck_assert(!support_readable(region.base + 3 * page - 1));
#endif
    vmk_release(&region);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.committed, before.committed);
}
END_TEST

/* --- commit and decommit ---------------------------------------------------------------------------------------- */

START_TEST(commit_gives_zero_and_keeps_what_is_there)
{
    vmk_region region = reserved(16);
    ck_assert_int_eq(vmk_commit(&region, 4 * page, 4 * page), VMK_OK);
    ck_assert(all_are(region.base + 4 * page, 4 * page, 0));
    memset(region.base + 4 * page, 0xab, 4 * page);
    ck_assert_int_eq(vmk_commit(&region, 2 * page, 8 * page), VMK_OK);
    ck_assert(all_are(region.base + 2 * page, 2 * page, 0));
    ck_assert(all_are(region.base + 4 * page, 4 * page, 0xab));
    ck_assert(all_are(region.base + 8 * page, 2 * page, 0));
    ck_assert_uint_eq(region.committed, 8 * page);
    ck_assert_int_eq(vmk_decommit(&region, 5 * page, page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 5 * page, page), VMK_OK);
    ck_assert(all_are(region.base + 5 * page, page, 0));
    ck_assert(all_are(region.base + 6 * page, 2 * page, 0xab));
    ck_assert(vmki_region_check(&region));
    vmk_release(&region);
}
END_TEST

START_TEST(commit_leaves_the_protection_of_live_pages)
{
    vmk_region region = reserved(4);
    ck_assert_int_eq(vmk_commit(&region, page, page), VMK_OK);
    region.base[page] = 5;
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 4 * page), VMK_OK);
#ifndef VMKIT_MODEL
    ck_assert(!support_writable(region.base + page));
    ck_assert(support_writable(region.base));
    ck_assert(support_writable(region.base + 2 * page));
#endif
    ck_assert_int_eq(region.base[page], 5);
    vmk_release(&region);
}
END_TEST

START_TEST(decommit_takes_access_and_memory)
{
    vmk_region region = reserved(64);
    vmk_stats before, after;
    vmk_stats_now(&before);
    ck_assert_int_eq(vmk_commit(&region, 0, 64 * page), VMK_OK);
    memset(region.base, 1, region.size);
    ck_assert_int_eq(vmk_decommit(&region, 8 * page, 48 * page), VMK_OK);
    ck_assert_uint_eq(region.committed, 16 * page);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.committed, before.committed + 16 * page);
#ifndef VMKIT_MODEL
    ck_assert(!support_readable(region.base + 8 * page));
    ck_assert(!support_readable(region.base + 56 * page - 1));
    ck_assert(support_readable(region.base + 56 * page));
    support_figures figures;
    if (support_system_figures(region.base, region.size, &figures)) {
        ck_assert_uint_eq(figures.committed, 16 * page);
        ck_assert_uint_le(figures.resident, 16 * page);
    }
#endif
    ck_assert_int_eq(vmk_decommit(&region, 0, 64 * page), VMK_OK); /* of holes, too */
    ck_assert_int_eq(vmk_decommit(&region, 0, 64 * page), VMK_OK); /* of nothing */
    ck_assert_uint_eq(region.committed, 0);
    vmk_release(&region);
}
END_TEST

START_TEST(nothing_is_done_for_size_zero)
{
    vmk_region region = reserved(2);
    vmk_stats before, after;
    vmk_stats_now(&before);
    ck_assert_int_eq(vmk_commit(&region, 0, 0), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 2 * page, 0), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_OK);
    region.base[0] = 9;
    ck_assert_int_eq(vmk_decommit(&region, 0, 0), VMK_OK);
    ck_assert_int_eq(vmk_discard(&region, 0, 0), VMK_OK);
    ck_assert_int_eq(vmk_protect(&region, 0, 0, VMK_ACCESS_NONE), VMK_OK);
    ck_assert_int_eq(vmk_advise(&region, 0, 0, VMK_ADVICE_HUGE), VMK_OK);
    vmk_reuse(&region, 0, 0);
    ck_assert_int_eq(region.base[0], 9);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.commit_count, before.commit_count + 1);
    ck_assert_uint_eq(after.decommit_count, before.decommit_count);
    vmk_release(&region);
}
END_TEST

START_TEST(wrong_ranges_are_refused_by_what_takes)
{
    vmk_region region = reserved(4);
    const size_t wrong[][2] = {{1, page},
                               {0, page - 1},
                               {0, 5 * page},
                               {5 * page, 0},
                               {4 * page, page},
                               {SIZE_MAX - page + 1, page},
                               {page, SIZE_MAX - page + 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ck_assert_int_eq(vmk_commit(&region, wrong[i][0], wrong[i][1]), VMK_ERR_ARGUMENT);
        ck_assert_int_eq(vmk_protect(&region, wrong[i][0], wrong[i][1], VMK_ACCESS_READ), VMK_ERR_ARGUMENT);
        ck_assert_int_eq(vmk_advise(&region, wrong[i][0], wrong[i][1], VMK_ADVICE_HUGE), VMK_ERR_ARGUMENT);
    }
    ck_assert_int_eq(vmk_protect(&region, 0, page, VMK_ACCESS_READ), VMK_ERR_ARGUMENT); /* not committed */
    ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_OK);
    ck_assert_int_eq(vmk_protect(&region, 0, 2 * page, VMK_ACCESS_READ), VMK_ERR_ARGUMENT); /* not all of it */
    ck_assert_int_eq(vmk_protect(&region, 0, page, (vmk_access)3), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_protect(&region, 0, page, (vmk_access)-1), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_advise(&region, 0, page, VMK_ADVICES), VMK_ERR_ARGUMENT);
    ck_assert_uint_eq(region.committed, page);
    vmk_release(&region);
}
END_TEST

START_TEST(statistics_count_changes_of_state)
{
    vmk_region region = reserved(10);
    vmk_stats before, after;
    vmk_stats_now(&before);
    ck_assert_int_eq(vmk_commit(&region, 0, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 2 * page), VMK_OK); /* no change */
    ck_assert_int_eq(vmk_commit(&region, 4 * page, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK); /* two gaps, four pages */
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.commit_count, before.commit_count + 4);
    ck_assert_uint_eq(after.committed, before.committed + 8 * page);
    ck_assert_uint_eq(after.committed_total, before.committed_total + 8 * page);
    ck_assert_int_eq(vmk_decommit(&region, 6 * page, 4 * page), VMK_OK);
    ck_assert_int_eq(vmk_decommit(&region, 6 * page, 4 * page), VMK_OK);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.decommit_count, before.decommit_count + 1);
    ck_assert_uint_eq(after.committed, before.committed + 6 * page);
    vmk_release(&region); /* what is committed goes with it */
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.committed, before.committed);
    ck_assert_uint_ge(after.committed_peak, before.committed + 8 * page);
    ck_assert_uint_eq(after.committed_total, before.committed_total + 8 * page);
}
END_TEST

START_TEST(query_tells_state_and_run)
{
    vmk_region region = reserved(10);
    size_t run;
    ck_assert_int_eq(vmk_region_query(&region, 1, &run), VMK_STATE_RESERVED);
    ck_assert_uint_eq(run, 10 * page - 1);
    ck_assert_int_eq(vmk_commit(&region, 3 * page, 4 * page), VMK_OK);
    ck_assert_int_eq(vmk_region_query(&region, 0, &run), VMK_STATE_RESERVED);
    ck_assert_uint_eq(run, 3 * page);
    ck_assert_int_eq(vmk_region_query(&region, 4 * page + 5, &run), VMK_STATE_COMMITTED);
    ck_assert_uint_eq(run, 3 * page - 5);
    ck_assert_int_eq(vmk_region_query(&region, 10 * page - 1, &run), VMK_STATE_RESERVED);
    ck_assert_uint_eq(run, 1);
    ck_assert_int_eq(vmk_region_query(&region, 6 * page, NULL), VMK_STATE_COMMITTED);
    vmk_release(&region);
}
END_TEST

START_TEST(discarded_pages_stay_usable)
{
    vmk_region region = reserved(8);
    ck_assert_int_eq(vmk_commit(&region, 0, 3 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 5 * page, 3 * page), VMK_OK);
    memset(region.base, 1, 3 * page);
    memset(region.base + 5 * page, 1, 3 * page);
    ck_assert_int_eq(vmk_discard(&region, page, 6 * page), VMK_OK); /* over the hole */
    ck_assert(all_are(region.base, page, 1));
    ck_assert(all_are(region.base + 7 * page, page, 1));
    ck_assert_uint_eq(region.committed, 6 * page);
    vmk_reuse(&region, page, 6 * page);
    memset(region.base + page, 2, 2 * page);
    memset(region.base + 5 * page, 2, 2 * page);
    ck_assert(all_are(region.base + page, 2 * page, 2));
    ck_assert(vmki_region_check(&region));
    vmk_release(&region);
}
END_TEST

#ifndef VMKIT_MODEL
START_TEST(protection_does_what_it_says)
{
    vmk_region region = reserved(3);
    ck_assert_int_eq(vmk_commit(&region, 0, 3 * page), VMK_OK);
    memset(region.base, 7, 3 * page);
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert(support_readable(region.base + page) && !support_writable(region.base + page));
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_NONE), VMK_OK);
    ck_assert(!support_readable(region.base + page));
    ck_assert(support_writable(region.base) && support_writable(region.base + 2 * page));
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_READ_WRITE), VMK_OK);
    ck_assert(all_are(region.base, 3 * page, 7));
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_NONE), VMK_OK);
    ck_assert_int_eq(vmk_decommit(&region, page, page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, page, page), VMK_OK);
    ck_assert(support_writable(region.base + page) && region.base[page] == 0);
    vmk_release(&region);
}
END_TEST

START_TEST(statistics_are_the_systems)
{
    vmk_region region = reserved(1000);
    support_random random = support_random_start(3);
    for (int i = 0; i < 100; i++) {
        size_t from = support_random_below(&random, 1000), size = 1 + support_random_below(&random, 1000 - from);
        vmk_status status = support_random_below(&random, 3) != 0
                                ? vmk_commit(&region, from * page, vmki_min(size, 20) * page)
                                : vmk_decommit(&region, from * page, size / 8 * page);
        ck_assert_int_eq(status, VMK_OK);
        support_figures figures;
        if (!support_system_figures(region.base, region.size, &figures))
            continue;
        ck_assert_uint_eq(figures.reserved, region.size);
        ck_assert_uint_eq(figures.committed, region.committed);
    }
    vmk_release(&region);
}
END_TEST

START_TEST(a_huge_reservation_costs_nothing)
{
    size_t size = sizeof(void *) == 8 ? (size_t)1 << 36 : (size_t)1 << 28;
    vmk_usage before = {0}, after = {0};
    vmk_region region;
    vmk_status told = vmk_usage_now(&before);
    ck_assert_int_eq(vmk_reserve(&region, size, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, size / 2, page), VMK_OK);
    region.base[size / 2] = 1;
    if (told == VMK_OK && support_system_tells()) {
        ck_assert_int_eq(vmk_usage_now(&after), VMK_OK);
        ck_assert_uint_ge(after.address_space, before.address_space + size);
        ck_assert_uint_le(after.data, before.data + (1u << 20));
    }
    vmk_release(&region);
}
END_TEST

START_TEST(advice_is_taken_or_unsupported)
{
    vmk_region region = reserved(4096);
    bool able = (vmk_capabilities()->features & VMK_CAP_HUGE_ADVICE) != 0;
    ck_assert_int_eq(vmk_advise(&region, 0, region.size, VMK_ADVICE_HUGE), able ? VMK_OK : VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_advise(&region, 0, region.size, VMK_ADVICE_NO_HUGE), able ? VMK_OK : VMK_ERR_UNSUPPORTED);
    vmk_release(&region);
}
END_TEST
#endif

START_TEST(errno_survives_success)
{
    vmk_region region;
    vmk_limits limits;
    errno = 4711;
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK);
    ck_assert_int_eq(vmk_discard(&region, 0, page), VMK_OK);
    ck_assert_int_eq(vmk_protect(&region, 0, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmk_decommit(&region, 0, page), VMK_OK);
    vmk_limits_now(&limits);
    (void)vmk_capabilities();
    vmk_release(&region);
    vmk_reserve_options options = {.min_size = page};
    ck_assert_int_eq(vmk_reserve(&region, SIZE_MAX / 2 / page * page, &options), VMK_OK); /* after refusals */
    vmk_release(&region);
    ck_assert_int_eq(errno, 4711);
}
END_TEST

START_TEST(a_region_may_move)
{
    vmk_region first = reserved(4), second;
    ck_assert_int_eq(vmk_commit(&first, 0, page), VMK_OK);
    second = first;
    memset(&first, 0, sizeof first);
    ck_assert_int_eq(vmk_commit(&second, 2 * page, page), VMK_OK);
    ck_assert_uint_eq(second.committed, 2 * page);
    ck_assert(vmki_region_check(&second));
    vmk_release(&second);
}
END_TEST

START_TEST(capabilities_are_plausible)
{
    const vmk_caps *caps = vmk_capabilities();
    ck_assert_ptr_eq(caps, vmk_capabilities());
    ck_assert_uint_eq(caps->page_size, page);
    ck_assert_uint_eq(caps->granularity, vmk_granularity());
    ck_assert_uint_ge(caps->granularity, caps->page_size);
    ck_assert_uint_lt(caps->address_min, caps->address_max);
    ck_assert_uint_eq(vmk_page_ceil(1), page);
    ck_assert_uint_eq(vmk_page_ceil(page), page);
    ck_assert_uint_eq(vmk_page_ceil(0), 0);
    ck_assert_uint_eq(vmk_page_ceil(SIZE_MAX), 0);
    vmk_region region = reserved(1);
    ck_assert_uint_ge((uintptr_t)region.base, caps->address_min);
    ck_assert_uint_le((uintptr_t)region.base, caps->address_max);
    vmk_release(&region);
}
END_TEST

/* --- random operations ------------------------------------------------------------------------------------------ */

enum { PAGES = 96 };

typedef struct shadow {
    vmk_region region;
    bool committed[PAGES];
    unsigned char value[PAGES]; /* of the first and last byte of the page; 0 unless written */
    bool unknown[PAGES];        /* discarded and not yet written again */
} shadow;

static bool shadow_agrees(const shadow *s)
{
    size_t committed = 0;
    for (size_t i = 0; i < PAGES; i++) {
        const unsigned char *at = s->region.base + i * page;
        bool in = vmk_region_query(&s->region, i * page, NULL) == VMK_STATE_COMMITTED;
        if (in != s->committed[i])
            return false;
        committed += in ? page : 0;
        if (in && !s->unknown[i] && (at[0] != s->value[i] || at[page - 1] != s->value[i]))
            return false;
    }
    return committed == s->region.committed && vmki_region_check(&s->region);
}

static void shadow_write(shadow *s, size_t i, unsigned char value)
{
    s->region.base[i * page] = s->region.base[(i + 1) * page - 1] = s->value[i] = value;
    s->unknown[i] = false;
}

/* One random step on the region and its shadow; its status. A failure must have changed nothing. */
static vmk_status shadow_step(shadow *s, support_random *random)
{
    size_t from = support_random_below(random, PAGES), size = support_random_below(random, PAGES - from + 1);
    if (support_random_below(random, 4) != 0)
        size = vmki_min(size, 5);
    size_t what = support_random_below(random, 4);
    vmk_status status;
    switch (what) {
    case 0:
        status = vmk_commit(&s->region, from * page, size * page);
        break;
    case 1:
        status = vmk_decommit(&s->region, from * page, size * page);
        break;
    case 2:
        status = vmk_discard(&s->region, from * page, size * page);
        break;
    default:
        status = VMK_OK;
        break;
    }
    for (size_t i = from; i < from + size; i++) {
        if (what == 0 && status == VMK_OK && !s->committed[i]) {
            s->committed[i] = true;
            s->unknown[i] = false;
            s->value[i] = 0;
        } else if (what == 1 && status == VMK_OK) {
            s->committed[i] = false;
        } else if (what == 2 && s->committed[i]) {
            s->unknown[i] = true;
        } else if (what == 3 && s->committed[i]) {
            shadow_write(s, i, (unsigned char)support_random_next(random));
        }
    }
    return status;
}

START_TEST(random_against_page_states)
{
    static shadow s;
    support_random random = support_random_start(4);
    s = (shadow){.region = reserved(PAGES)};
    for (size_t round = 0; round < support_rounds(4000); round++) {
        ck_assert_int_eq(shadow_step(&s, &random), VMK_OK);
        ck_assert_msg(shadow_agrees(&s), "round %zu", round);
    }
    vmk_release(&s.region);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------------------------- */

typedef struct shared {
    vmk_region region;
    bool wrong[8];
} shared;

/* Each thread works on pages of its own, in one region, and on regions of its own. */
static void churn(void *argument, unsigned number)
{
    shared *s = argument;
    support_random random = support_random_start(100 + number);
    for (int i = 0; i < 300; i++) {
        size_t at = (number + 8 * support_random_below(&random, 16)) * page;
        vmk_region own;
        s->wrong[number] |= vmk_commit(&s->region, at, page) != VMK_OK;
        s->wrong[number] |= s->region.base[at] != 0;
        s->region.base[at] = 1;
        s->wrong[number] |= vmk_decommit(&s->region, at, page) != VMK_OK;
        if (vmk_reserve(&own, 4 * page, NULL) != VMK_OK) {
            s->wrong[number] = true;
            continue;
        }
        s->wrong[number] |= vmk_commit(&own, page, 2 * page) != VMK_OK;
        own.base[page] = 1;
        s->wrong[number] |= vmk_discard(&own, page, page) != VMK_OK;
        vmk_release(&own);
    }
}

START_TEST(threads_share_a_region)
{
    shared s = {.region = reserved(128)};
    vmk_stats before, after;
    vmk_stats_now(&before);
    support_threads(8, churn, &s);
    for (int i = 0; i < 8; i++)
        ck_assert_msg(!s.wrong[i], "thread %d", i);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.committed, before.committed);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert(vmki_region_check(&s.region));
    vmk_release(&s.region);
}
END_TEST

/* --- the model's own tests -------------------------------------------------------------------------------------- */

#ifdef VMKIT_MODEL
static void model_agrees(void)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    ck_assert_uint_eq(model_committed(), stats.committed + stats.overhead);
    ck_assert_uint_eq(model_reserved(), stats.reserved + stats.overhead);
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}

/* Every call fails once at every position of a random run: what fails has changed nothing, and goes well when repeated.
 */
START_TEST(every_call_fails_once)
{
    static shadow s;
    for (uint64_t nth = 1;; nth++) {
        support_random random = support_random_start(5);
        size_t failures = 0;
        model_reset(NULL);
        s = (shadow){.region = reserved(PAGES)};
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        for (int i = 0; i < 60; i++) {
            support_random again = random;
            if (shadow_step(&s, &random) == VMK_OK)
                continue;
            failures++;
            ck_assert(shadow_agrees(&s));
            model_agrees(); /* nothing stays accessible that is not counted */
            random = again;
            ck_assert_int_eq(shadow_step(&s, &random), VMK_OK);
        }
        ck_assert(shadow_agrees(&s));
        model_agrees();
        bool reached = model_failed();
        ck_assert_uint_eq(failures, reached);
        vmk_release(&s.region);
        if (!reached)
            break;
    }
}
END_TEST

START_TEST(a_failing_reserve_leaves_nothing)
{
    model_reset(NULL);
    const vmk_status statuses[] = {VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS, VMK_ERR_UNSUPPORTED};
    for (size_t i = 0; i < 3; i++) {
        vmk_region region;
        size_t before = model_reserved();
        model_fail_nth(1, statuses[i], false);
        ck_assert_int_eq(vmk_reserve(&region, page, NULL), statuses[i]);
        ck_assert_uint_eq(model_reserved(), before);
    }
    model_agrees();
}
END_TEST

START_TEST(the_quota_is_an_error_and_passes)
{
    model_reset(NULL);
    vmk_region region = reserved(64);
    model_reset(&(model_rules){.commit_quota = model_committed() + 10 * page});
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 20 * page, 8 * page), VMK_ERR_COMMIT);
    ck_assert_uint_eq(region.committed, 8 * page);
    ck_assert_int_eq(vmk_commit(&region, 20 * page, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_decommit(&region, 0, 8 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 40 * page, 8 * page), VMK_OK);
    model_agrees();
    vmk_release(&region);
    model_agrees();
}
END_TEST

/* At most, at least: what each limit makes of a request for 32 MiB. */
START_TEST(at_most_heeds_the_limits)
{
    const uint64_t mib = 1 << 20;
    const struct {
        vmk_limits limits;
        unsigned flags;
        size_t most;
    } cases[] = {
        {{0, 0, 0, 0}, 0, 32 << 20},
        {{16 * mib, 0, 0, 0}, 0, 8 << 20},
        {{16 * mib, 0, 0, 0}, VMK_RESERVE_SPARSE, 8 << 20},
        {{0, 8 * mib, 0, 0}, 0, 8 << 20},
        {{0, 0, 4 * mib, 0}, 0, 4 << 20},
        {{0, 0, 0, 2 * mib}, 0, 2 << 20},
        {{0, 8 * mib, 4 * mib, 2 * mib}, VMK_RESERVE_SPARSE, 32 << 20},
        {{64 * 1024, 0, 0, 0}, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vmk_reserve_options options = {.min_size = 1 << 20, .flags = cases[i].flags};
        vmk_region region;
        model_reset(&(model_rules){.limits = cases[i].limits});
        ck_assert_int_eq(vmk_reserve(&region, 32 << 20, &options), VMK_OK);
        if (cases[i].most == 0) /* the limits leave less than is needed: it is tried all the same */
            ck_assert_uint_eq(region.size, 1 << 20);
        else
            ck_assert_msg(region.size <= cases[i].most && region.size >= cases[i].most / 2, "case %zu: %zu", i,
                          region.size);
        vmk_release(&region);
    }
    model_reset(NULL);
}
END_TEST

START_TEST(at_most_halves_until_it_fits)
{
    model_reset(&(model_rules){.address_space = model_reserved() + (5 << 20)});
    vmk_region region;
    vmk_reserve_options options = {.min_size = 1 << 20};
    ck_assert_int_eq(vmk_reserve(&region, 32 << 20, &options), VMK_OK);
    ck_assert_uint_eq(region.size, 4 << 20);
    vmk_release(&region);
    options.min_size = 6 << 20;
    ck_assert_int_eq(vmk_reserve(&region, 32 << 20, &options), VMK_ERR_ADDRESS_SPACE);
    model_reset(NULL);
}
END_TEST

START_TEST(exact_never_touches_what_is_planted)
{
    model_reset(NULL);
    vmk_region region = reserved(64);
    unsigned char *place = region.base;
    vmk_release(&region);
    ck_assert(model_plant(place, vmk_granularity(), 0x77));
    vmk_reserve_options options = {.hint = place, .flags = VMK_RESERVE_EXACT};
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, &options), VMK_ERR_TAKEN);
    ck_assert(model_planted_intact(place, vmk_granularity(), 0x77));
    options.flags = 0;
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, &options), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 64 * page), VMK_OK);
    ck_assert(model_planted_intact(place, vmk_granularity(), 0x77));
    vmk_release(&region);
    model_unplant(place, vmk_granularity());
    model_agrees();
}
END_TEST
#endif

static void add_common(TCase *tests)
{
    tcase_add_test(tests, reserve_rounds_up_and_commits_nothing);
    tcase_add_test(tests, reserve_refuses_what_makes_no_sense);
    tcase_add_test(tests, reserve_more_than_there_is);
    tcase_add_test(tests, reserve_at_most_gets_what_there_is);
    tcase_add_test(tests, reserve_at_a_place);
    tcase_add_test(tests, reserve_aligned);
    tcase_add_test(tests, the_guard_faults_and_is_counted);
    tcase_add_test(tests, commit_gives_zero_and_keeps_what_is_there);
    tcase_add_test(tests, commit_leaves_the_protection_of_live_pages);
    tcase_add_test(tests, decommit_takes_access_and_memory);
    tcase_add_test(tests, nothing_is_done_for_size_zero);
    tcase_add_test(tests, wrong_ranges_are_refused_by_what_takes);
    tcase_add_test(tests, statistics_count_changes_of_state);
    tcase_add_test(tests, query_tells_state_and_run);
    tcase_add_test(tests, discarded_pages_stay_usable);
    tcase_add_test(tests, errno_survives_success);
    tcase_add_test(tests, a_region_may_move);
    tcase_add_test(tests, capabilities_are_plausible);
    tcase_add_test(tests, random_against_page_states);
    tcase_add_test(tests, threads_share_a_region);
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("vm");
    TCase *tests = tcase_create("vm");
    page = vmk_page_size();
    add_common(tests);
#ifdef VMKIT_MODEL
    tcase_add_test(tests, every_call_fails_once);
    tcase_add_test(tests, a_failing_reserve_leaves_nothing);
    tcase_add_test(tests, the_quota_is_an_error_and_passes);
    tcase_add_test(tests, at_most_heeds_the_limits);
    tcase_add_test(tests, at_most_halves_until_it_fits);
    tcase_add_test(tests, exact_never_touches_what_is_planted);
#else
    tcase_add_test(tests, protection_does_what_it_says);
    tcase_add_test(tests, statistics_are_the_systems);
    tcase_add_test(tests, a_huge_reservation_costs_nothing);
    tcase_add_test(tests, advice_is_taken_or_unsupported);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
