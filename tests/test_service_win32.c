/* SPDX-License-Identifier: MIT
 *
 * Services that Windows alone has: what is kept out of its error reports. The functions that do it are newer than Wine,
 * so others stand in for them here, which keep a list of blocks as the documentation says that the system does.
 */
#include "win32/os_service_private.h"

#include "common/base/os_service.h"
#include "support.h"

enum { MOST = 512, PAGES = 64 };

static size_t page;
static const unsigned char *bases[MOST];
static size_t sizes[MOST];
static size_t count;
static bool misused;

static HRESULT WINAPI exclude(const void *address, DWORD size)
{
    for (size_t i = 0; i < count; i++)
        misused = misused || bases[i] == address;
    if (count == MOST)
        return E_OUTOFMEMORY;
    bases[count] = address;
    sizes[count++] = size;
    misused = misused || size == 0;
    return S_OK;
}

static HRESULT WINAPI include(const void *address)
{
    for (size_t i = 0; i < count; i++)
        if (bases[i] == address) {
            bases[i] = bases[--count];
            sizes[i] = sizes[count];
            return S_OK;
        }
    misused = true;
    return E_INVALIDARG;
}

/* How many blocks have the byte. */
static size_t excluded(const unsigned char *address)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += (uintptr_t)address - (uintptr_t)bases[i] < sizes[i];
    return found;
}

static void set_up(void)
{
    page = vmk_page_size();
    count = 0;
    misused = false;
    vmki_win32_reports_force(exclude, include);
}

static void tear_down(void)
{
    ck_assert(!misused);
    vmki_win32_reports_find();
}

START_TEST(out_and_in_at_random)
{
    support_random random = support_random_start(9);
    for (size_t round = 0; round < support_rounds(50); round++) {
        vmk_region region;
        bool out[PAGES] = {false};
        ck_assert_int_eq(vmk_reserve(&region, PAGES * page, NULL), VMK_OK);
        for (int step = 0; step < 60; step++) {
            size_t first = support_random_below(&random, PAGES);
            size_t size = 1 + support_random_below(&random, PAGES - first);
            bool away = support_random_below(&random, 2) != 0;
            ck_assert_int_eq(
                vmk_advise(&region, first * page, size * page, away ? VMK_ADVICE_NO_DUMP : VMK_ADVICE_DUMP), VMK_OK);
            for (size_t i = first; i < first + size; i++)
                out[i] = away;
            for (size_t i = 0; i < PAGES; i++)
                ck_assert_uint_eq(excluded(region.base + i * page), out[i]);
        }
        vmk_release(&region);
        ck_assert_uint_eq(count, 0);
    }
}
END_TEST

/* What can't be all is nothing. */
START_TEST(there_are_only_so_many)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, 4 * MOST * page, NULL), VMK_OK);
    for (size_t i = 1; i < MOST; i++)
        ck_assert_int_eq(vmk_advise(&region, 4 * i * page, 3 * page, VMK_ADVICE_NO_DUMP), VMK_OK);
    ck_assert_uint_eq(count, MOST - 1);
    ck_assert_int_eq(vmk_advise(&region, 0, 12 * page, VMK_ADVICE_NO_DUMP), VMK_ERR_UNSUPPORTED); /* three gaps */
    ck_assert_uint_eq(count, MOST - 1);
    ck_assert_int_eq(vmk_advise(&region, 0, 3 * page, VMK_ADVICE_NO_DUMP), VMK_OK);
    ck_assert_int_eq(vmk_advise(&region, page, page, VMK_ADVICE_DUMP), VMK_ERR_UNSUPPORTED); /* would make two of one */
    ck_assert_uint_eq(excluded(region.base + page), 1);
    ck_assert_int_eq(vmk_advise(&region, 0, page, VMK_ADVICE_DUMP), VMK_OK);
    ck_assert_uint_eq(excluded(region.base) + excluded(region.base + page), 1);
    vmk_release(&region);
    ck_assert_uint_eq(count, 0);
}
END_TEST

/* A block is of less than 4 GiB. */
START_TEST(long_ranges)
{
    vmk_region region;
    size_t size = sizeof(void *) == 8 ? (size_t)9 << 29 : (size_t)1 << 28;
    if (vmk_reserve(&region, size, NULL) != VMK_OK)
        return;
    ck_assert_int_eq(vmk_advise(&region, 0, size, VMK_ADVICE_NO_DUMP), VMK_OK);
    for (size_t at = 0; at < size; at += size / 64)
        ck_assert_uint_eq(excluded(region.base + at), 1);
    ck_assert_uint_eq(excluded(region.base + size - 1), 1);
    vmk_release(&region);
    ck_assert_uint_eq(count, 0);
}
END_TEST

/* Or the system has none of it. */
START_TEST(without_such_functions)
{
    vmk_region region;
    vmki_win32_reports_force(NULL, NULL);
    ck_assert_int_eq(vmk_reserve(&region, page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_advise(&region, 0, page, VMK_ADVICE_NO_DUMP), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_advise(&region, 0, page, VMK_ADVICE_DUMP), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_advise(&region, 0, page, VMK_ADVICE_NO_FORK), VMK_ERR_UNSUPPORTED);
    vmk_release(&region);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("service_win32");
    TCase *tests = tcase_create("service_win32");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, out_and_in_at_random);
    tcase_add_test(tests, there_are_only_so_many);
    tcase_add_test(tests, long_ranges);
    tcase_add_test(tests, without_such_functions);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
