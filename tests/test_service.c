/* SPDX-License-Identifier: MIT
 *
 * Guards, prefault, residency and advice, on whatever system there is: by its best means or by what every system has,
 * the promises are the same.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/vm/vm.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

static size_t page;

static vmk_region committed(size_t pages)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, pages * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, pages * page), VMK_OK);
    return region;
}

/* --- guards ----------------------------------------------------------------------------------------------------- */

START_TEST(guards_fault_until_they_are_cleared)
{
    vmk_region region = committed(8);
    memset(region.base, 1, region.size);
    ck_assert_int_eq(vmk_guard_set(&region, 2 * page, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_guard_set(&region, 3 * page, 2 * page), VMK_OK); /* of which one is one */
#if !defined(VMKIT_MODEL)
    for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(support_readable(region.base + i * page), i < 2 || i > 4);
#endif
    ck_assert_uint_eq(region.base[2 * page - 1] + region.base[5 * page], 2);
    ck_assert_uint_eq(region.committed, 8 * page);
    ck_assert_int_eq(vmk_guard_clear(&region, 2 * page, 3 * page), VMK_OK);
    for (size_t i = 2; i < 5; i++) {
        ck_assert_uint_le(region.base[i * page], 1);
        memset(region.base + i * page, 2, page);
    }
    ck_assert_int_eq(vmk_guard_clear(&region, 0, 8 * page), VMK_OK); /* none is left */
    ck_assert_uint_eq(region.base[0] + region.base[4 * page + 1], 3);
    ck_assert(vmki_region_check(&region));
    vmk_release(&region);
}
END_TEST

/* A commit promises memory, whatever has been there. */
START_TEST(a_decommit_ends_guards)
{
    vmk_region region = committed(8);
    ck_assert_int_eq(vmk_guard_set(&region, page, page), VMK_OK);
    ck_assert_int_eq(vmk_guard_set(&region, 5 * page, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_decommit(&region, 0, 6 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 6 * page), VMK_OK);
    for (size_t i = 0; i < 6 * page; i++)
        ck_assert_uint_eq(region.base[i], 0);
    memset(region.base, 1, 6 * page);
#if !defined(VMKIT_MODEL)
    ck_assert(!support_readable(region.base + 6 * page));
#endif
    ck_assert_int_eq(vmk_guard_clear(&region, 6 * page, page), VMK_OK);
    region.base[6 * page] = 1;
    vmk_release(&region);
}
END_TEST

/* None is left behind, in whatever pieces and however often they are cleared. */
static void clear_in_pieces(void)
{
    vmk_region region = committed(12);
    ck_assert_int_eq(vmk_guard_set(&region, page, page), VMK_OK);
    ck_assert_int_eq(vmk_guard_set(&region, 4 * page, 3 * page), VMK_OK);
    ck_assert_int_eq(vmk_guard_clear(&region, 9 * page, page), VMK_OK); /* there is none */
    for (size_t i = 0; i < 12; i++)
        ck_assert_int_eq(vmk_guard_clear(&region, i * page, page), VMK_OK);
    ck_assert_int_eq(vmk_discard(&region, 0, region.size), VMK_OK); /* which wants pages that can be written */
    memset(region.base, 1, region.size);
    vmk_release(&region);
}

START_TEST(guards_cleared_in_pieces)
{
    clear_in_pieces();
}
END_TEST

/* What comes where they were has none. */
START_TEST(a_release_ends_guards)
{
    for (int i = 0; i < 50; i++) {
        vmk_region region = committed(64);
        for (size_t at = 0; at < 64; at += 2)
            ck_assert_int_eq(vmk_guard_set(&region, at * page, page), VMK_OK);
        vmk_release(&region);
        region = committed(64);
        memset(region.base, 1, region.size);
        vmk_release(&region);
    }
}
END_TEST

START_TEST(wrong_ranges)
{
    vmk_region region = committed(4);
    size_t resident = 77;
    ck_assert_int_eq(vmk_decommit(&region, 3 * page, page), VMK_OK);
    const size_t wrong[][2] = {{1, page}, {0, page - 1}, {0, 5 * page}, {4 * page, page}, {page, SIZE_MAX - page + 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ck_assert_int_eq(vmk_guard_set(&region, wrong[i][0], wrong[i][1]), VMK_ERR_ARGUMENT);
        ck_assert_int_eq(vmk_guard_clear(&region, wrong[i][0], wrong[i][1]), VMK_ERR_ARGUMENT);
        ck_assert_int_eq(vmk_prefault(&region, wrong[i][0], wrong[i][1]), VMK_ERR_ARGUMENT);
        ck_assert_int_eq(vmk_residency(&region, wrong[i][0], wrong[i][1], NULL, &resident), VMK_ERR_ARGUMENT);
    }
    /* Not committed as a whole. */
    ck_assert_int_eq(vmk_guard_set(&region, 2 * page, 2 * page), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_guard_clear(&region, 3 * page, page), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_prefault(&region, 0, 4 * page), VMK_ERR_ARGUMENT);
    ck_assert_uint_eq(resident, 77);
    /* Nothing to do. */
    ck_assert_int_eq(vmk_guard_set(&region, page, 0), VMK_OK);
    ck_assert_int_eq(vmk_guard_clear(&region, 4 * page, 0), VMK_OK);
    ck_assert_int_eq(vmk_prefault(&region, 0, 0), VMK_OK);
    region.base[page] = 1;
    vmk_release(&region);
}
END_TEST

#if defined(VMKIT_MODEL)

static const model_rules with_marks = {
    .max_mappings = 128, .guards = true, .advice = 1u << VMK_ADVICE_NO_DUMP | 1u << VMK_ADVICE_DUMP};
static const model_rules without_marks = {.max_mappings = 128};

/* Without marks they are protected pages, no more of them than leave the program its mappings. */
START_TEST(guards_by_protection_leave_mappings)
{
    vmk_region region = committed(64), other = committed(64);
    uint64_t most = vmk_capabilities()->max_mappings / 8;
    size_t done = 0;
    model_reset(&without_marks);
    while (vmk_guard_set(&region, done * 2 * page, page) == VMK_OK)
        done++;
    ck_assert_uint_eq(done, most);
    ck_assert_int_eq(vmk_guard_set(&other, 0, page), VMK_ERR_MAPPINGS);
    ck_assert_int_eq(vmk_guard_clear(&region, 0, page), VMK_OK);
    region.base[0] = 1;
    ck_assert_int_eq(vmk_guard_set(&other, 0, page), VMK_OK);
    ck_assert_int_eq(vmk_guard_set(&other, 2 * page, page), VMK_ERR_MAPPINGS);
    vmk_release(&region); /* with all of its */
    ck_assert_int_eq(vmk_guard_set(&other, 2 * page, page), VMK_OK);
    vmk_release(&other);
}
END_TEST

START_TEST(a_refused_guard_is_none)
{
    vmk_region region = committed(4);
    model_reset(&without_marks);
    memset(region.base, 1, region.size);
    model_fail_nth(1, VMK_ERR_COMMIT, false);
    ck_assert_int_eq(vmk_guard_set(&region, page, page), VMK_ERR_COMMIT);
    ck_assert_uint_eq(region.base[page], 1);
    ck_assert_uint_eq(region.guards_held, 0);
    ck_assert_int_eq(vmk_guard_set(&region, page, page), VMK_OK);
    model_fail_nth(1, VMK_ERR_MAPPINGS, false);
    ck_assert_int_eq(vmk_guard_clear(&region, page, page), VMK_ERR_MAPPINGS);
    ck_assert_uint_eq(region.guards_held, 1);
    ck_assert_int_eq(vmk_guard_clear(&region, page, page), VMK_OK);
    region.base[page] = 1;
    vmk_release(&region);
}
END_TEST

START_TEST(guards_by_protection_cleared_in_pieces)
{
    model_reset(&without_marks);
    clear_in_pieces();
}
END_TEST

static void set_up(void)
{
    model_reset(&with_marks);
    page = vmk_page_size();
}

static void tear_down(void)
{
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}

#else

static void set_up(void)
{
    page = vmk_page_size();
}

static void tear_down(void)
{
}

#endif

/* --- prefault and residency ------------------------------------------------------------------------------------- */

START_TEST(prefault_brings_pages_in)
{
    enum { PAGES = 2500 }; /* more than one call of the system */
    static unsigned char pages[PAGES];
    vmk_region region = committed(PAGES);
    size_t resident;
    region.base[0] = 7;
    region.base[10 * page - 1] = 8;
    ck_assert_int_eq(vmk_prefault(&region, 0, region.size), VMK_OK);
    ck_assert_uint_eq(region.base[0] + region.base[10 * page - 1], 15);
    ck_assert_uint_eq(region.base[11 * page], 0);
    bool tells = (vmk_capabilities()->features & VMK_CAP_RESIDENCY) != 0;
    memset(pages, 9, sizeof pages);
    vmk_status status = vmk_residency(&region, 0, region.size, pages, &resident);
    ck_assert_int_eq(status, tells ? VMK_OK : VMK_ERR_UNSUPPORTED);
    for (size_t i = 0; tells && i < PAGES; i++)
        ck_assert_uint_eq(pages[i], 1);
    ck_assert(!tells || resident == region.size);
    vmk_release(&region);
}
END_TEST

START_TEST(residency_is_of_single_pages)
{
    if ((vmk_capabilities()->features & VMK_CAP_RESIDENCY) == 0)
        return;
    support_random random = support_random_start(1);
    unsigned char pages[64], touched[64] = {0};
    vmk_region region = committed(64);
    size_t resident, sum = 0, some;
#if defined(VMKIT_MODEL) /* there what is committed is in memory */
    ck_assert_int_eq(vmk_decommit(&region, 0, region.size), VMK_OK);
#endif
    for (size_t i = 0; i < 64; i++) {
        if (support_random_below(&random, 2) == 0)
            continue;
        ck_assert_int_eq(vmk_commit(&region, i * page, page), VMK_OK);
        region.base[i * page] = 1;
        touched[i] = 1;
        sum += page;
    }
    ck_assert_int_eq(vmk_residency(&region, 0, region.size, pages, &resident), VMK_OK);
    ck_assert_int_eq(vmk_residency(&region, 0, region.size, NULL, &some), VMK_OK);
    ck_assert_int_eq(memcmp(pages, touched, sizeof pages), 0);
    ck_assert_uint_eq(resident, sum);
    ck_assert_uint_eq(some, sum);
    ck_assert_int_eq(vmk_residency(&region, 0, 0, pages, &resident), VMK_OK);
    ck_assert_uint_eq(resident, 0);
    ck_assert_int_eq(vmk_decommit(&region, 0, region.size), VMK_OK);
    ck_assert_int_eq(vmk_residency(&region, 0, region.size, pages, &resident), VMK_OK);
    ck_assert_uint_eq(resident, 0);
    vmk_release(&region);
}
END_TEST

/* Other threads use the pages meanwhile. */
enum { SHARED_PAGES = 200, SHARED_ROUNDS = 20 };

static void count_or_prefault(void *argument, unsigned number)
{
    vmk_region *region = argument;
    for (int round = 0; round < SHARED_ROUNDS; round++) {
        if (number == 0)
            VMKI_IGNORE(vmk_prefault(region, 0, region->size));
        for (size_t i = 0; number != 0 && i < SHARED_PAGES; i++) {
            uint32_t *counter = (uint32_t *)(void *)(region->base + i * page);
            uint32_t before;
            do
                before = VMKI_LOAD_RELAXED(counter);
            while (!vmki_cas_32(counter, before, before + 1));
        }
    }
}

START_TEST(prefault_disturbs_nobody)
{
    vmk_region region = committed(SHARED_PAGES);
    support_threads(4, count_or_prefault, &region);
    for (size_t i = 0; i < SHARED_PAGES; i++)
        ck_assert_uint_eq(*(uint32_t *)(void *)(region.base + i * page), 3 * SHARED_ROUNDS);
    vmk_release(&region);
}
END_TEST

/* --- advice ----------------------------------------------------------------------------------------------------- */

START_TEST(advice_is_as_the_record_says)
{
    vmk_region region = committed(8);
    memset(region.base, 5, region.size);
    for (unsigned advice = 0; advice < VMK_ADVICES; advice++) {
        bool known = (vmk_capabilities()->advice & 1u << advice) != 0;
        vmk_status status = vmk_advise(&region, 0, region.size, (vmk_advice)advice);
        if (advice == VMK_ADVICE_COLLAPSE) /* eight pages are no huge page */
            ck_assert(status == VMK_OK || status == VMK_ERR_UNSUPPORTED || status == VMK_ERR_COMMIT);
        else
            ck_assert_msg(status == (known ? VMK_OK : VMK_ERR_UNSUPPORTED), "%u: %s", advice, vmk_status_name(status));
    }
    for (size_t i = 0; i < region.size; i++)
        ck_assert_uint_eq(region.base[i], 5);
    vmk_release(&region);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("service");
    TCase *tests = tcase_create("service");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, guards_fault_until_they_are_cleared);
    tcase_add_test(tests, a_decommit_ends_guards);
    tcase_add_test(tests, guards_cleared_in_pieces);
    tcase_add_test(tests, a_release_ends_guards);
    tcase_add_test(tests, wrong_ranges);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, guards_by_protection_leave_mappings);
    tcase_add_test(tests, a_refused_guard_is_none);
    tcase_add_test(tests, guards_by_protection_cleared_in_pieces);
#endif
    tcase_add_test(tests, prefault_brings_pages_in);
    tcase_add_test(tests, residency_is_of_single_pages);
    tcase_add_test(tests, prefault_disturbs_nobody);
    tcase_add_test(tests, advice_is_as_the_record_says);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
