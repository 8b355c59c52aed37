/* SPDX-License-Identifier: MIT
 *
 * The base: status codes and arithmetic.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/align.h"
#include "support.h"

START_TEST(every_status_has_a_name_and_a_text)
{
    for (int i = 0; i < VMK_STATUS_COUNT; i++) {
        const char *name = vmk_status_name((vmk_status)i);
        ck_assert_msg(strncmp(name, "VMK_", 4) == 0, "%d is %s", i, name);
        ck_assert_str_ne(vmk_status_text((vmk_status)i), "unknown status");
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(name, vmk_status_name((vmk_status)j));
    }
    ck_assert_str_eq(vmk_status_name(VMK_OK), "VMK_OK");
    ck_assert_str_eq(vmk_status_name(VMK_ERR_COMMIT), "VMK_ERR_COMMIT");
}
END_TEST

START_TEST(unknown_statuses_are_said_to_be_unknown)
{
    const int unknown[] = {VMK_STATUS_COUNT, -1, 1000};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        ck_assert_str_eq(vmk_status_name((vmk_status)unknown[i]), "unknown status");
        ck_assert_str_eq(vmk_status_text((vmk_status)unknown[i]), "unknown status");
    }
}
END_TEST

START_TEST(rounding_agrees_with_division)
{
    support_random random = support_random_start(1);
    for (size_t round = 0; round < support_rounds(100000); round++) {
        size_t unit = (size_t)1 << support_random_below(&random, 20);
        size_t value = (size_t)support_random_next(&random) >> support_random_below(&random, sizeof(size_t) * 8);
        size_t rounded;
        bool overflow = vmki_ceil_overflow(value, unit, &rounded);
        ck_assert_uint_eq(vmki_floor(value, unit), value / unit * unit);
        ck_assert_uint_eq(vmki_is_aligned(value, unit), value % unit == 0);
        size_t units = value / unit + (value % unit != 0);
        ck_assert_int_eq(overflow, units != 0 && units > SIZE_MAX / unit);
        ck_assert_uint_eq(rounded, overflow ? 0 : units * unit);
    }
}
END_TEST

START_TEST(overflow_is_seen)
{
    size_t result;
    ck_assert(vmki_ceil_overflow(SIZE_MAX, 4096, &result) && result == 0);
    ck_assert(!vmki_ceil_overflow(SIZE_MAX - 4095, 4096, &result) && result == SIZE_MAX - 4095);
    ck_assert(!vmki_ceil_overflow(0, 4096, &result) && result == 0);
    ck_assert(vmki_add_overflow(SIZE_MAX, 1, &result));
    ck_assert(!vmki_add_overflow(SIZE_MAX, 0, &result) && result == SIZE_MAX);
    ck_assert(vmki_mul_overflow(SIZE_MAX / 2 + 1, 2, &result));
    ck_assert(!vmki_mul_overflow(SIZE_MAX / 2, 2, &result) && result == SIZE_MAX - 1);
    ck_assert(!vmki_mul_overflow(SIZE_MAX, 0, &result) && result == 0);
}
END_TEST

START_TEST(ranges_within_never_wrap)
{
    ck_assert(vmki_range_within(0, 0, 0));
    ck_assert(vmki_range_within(10, 0, 10));
    ck_assert(vmki_range_within(4, 6, 10));
    ck_assert(!vmki_range_within(4, 7, 10));
    ck_assert(!vmki_range_within(11, 0, 10));
    ck_assert(!vmki_range_within(SIZE_MAX, 2, 10));
    ck_assert(!vmki_range_within(2, SIZE_MAX, 10));
}
END_TEST

START_TEST(bit_positions)
{
    for (unsigned i = 0; i < sizeof(size_t) * 8; i++) {
        size_t bit = (size_t)1 << i;
        ck_assert_uint_eq(vmki_lowest_bit(bit), i);
        ck_assert_uint_eq(vmki_highest_bit(bit), i);
        ck_assert_uint_eq(vmki_lowest_bit(SIZE_MAX << i), i);
        ck_assert_uint_eq(vmki_highest_bit(SIZE_MAX >> (sizeof(size_t) * 8 - 1 - i)), i);
        ck_assert(vmki_is_power_of_two(bit));
    }
    ck_assert(!vmki_is_power_of_two(0));
    ck_assert(!vmki_is_power_of_two(6));
}
END_TEST

START_TEST(the_version_is_one)
{
    ck_assert_int_ge(VMK_VERSION_MAJOR * 10000 + VMK_VERSION_MINOR * 100 + VMK_VERSION_PATCH, 100);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("base");
    TCase *tests = tcase_create("base");
    tcase_add_test(tests, every_status_has_a_name_and_a_text);
    tcase_add_test(tests, unknown_statuses_are_said_to_be_unknown);
    tcase_add_test(tests, rounding_agrees_with_division);
    tcase_add_test(tests, overflow_is_seen);
    tcase_add_test(tests, ranges_within_never_wrap);
    tcase_add_test(tests, bit_positions);
    tcase_add_test(tests, the_version_is_one);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
