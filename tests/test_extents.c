/* SPDX-License-Identifier: MIT
 *
 * The set of extents against an array of bytes, one for each unit of a small address range.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/os.h"
#include "common/vm/extents.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

enum { UNITS = 512 };
static const uintptr_t origin = 0x10000;

static bool agrees(vmki_extent *root, const unsigned char *expected)
{
    size_t size = 0;
    for (size_t i = 0; i < UNITS; i++) {
        const vmki_extent *found = vmki_extents_above(root, origin + i);
        bool in = found != NULL && found->base <= origin + i;
        if (in != (expected[i] != 0))
            return false;
        size += in;
    }
    return size == vmki_extents_size(root) && vmki_extents_check(root, origin, origin + UNITS);
}

START_TEST(random_against_an_array)
{
    support_random random = support_random_start(2);
    vmki_extent *root = NULL;
    unsigned char expected[UNITS] = {0};
    for (size_t round = 0; round < support_rounds(50000); round++) {
        size_t from = support_random_below(&random, UNITS);
        size_t longest = support_random_below(&random, 8) == 0 ? UNITS - from : vmki_min(UNITS - from, 9);
        size_t size = 1 + support_random_below(&random, longest);
        bool add = support_random_below(&random, 2) != 0;
        ck_assert_int_eq(vmki_extents_prepare(1), VMK_OK);
        if (add)
            vmki_extents_insert(&root, origin + from, origin + from + size);
        else
            vmki_extents_remove(&root, origin + from, origin + from + size);
        memset(expected + from, add, size);
        ck_assert_msg(agrees(root, expected), "round %zu", round);
    }
    vmki_extents_clear(&root);
    ck_assert_ptr_null(root);
}
END_TEST

START_TEST(touching_extents_are_one)
{
    vmki_extent *root = NULL;
    ck_assert_int_eq(vmki_extents_prepare(1), VMK_OK);
    vmki_extents_insert(&root, 0x1000, 0x2000);
    ck_assert_int_eq(vmki_extents_prepare(1), VMK_OK);
    vmki_extents_insert(&root, 0x3000, 0x4000);
    vmki_extents_insert(&root, 0x2000, 0x3000);
    ck_assert_uint_eq(root->base, 0x1000);
    ck_assert_uint_eq(root->limit, 0x4000);
    ck_assert(root->left == NULL && root->right == NULL);
    vmki_extents_clear(&root);
}
END_TEST

/* Many extents at once: slabs are made, the tree stays shallow, and what is freed is used again. */
START_TEST(many_extents_in_little_memory)
{
    enum { MANY = 20000 };
    vmki_extent *root = NULL;
    size_t overhead = 0;
    for (int pass = 0; pass < 3; pass++) {
        for (uintptr_t i = 0; i < MANY; i++) {
            uintptr_t at = origin + i * 7919 % MANY * 2;
            ck_assert_int_eq(vmki_extents_prepare(1), VMK_OK);
            vmki_extents_insert(&root, at, at + 1);
        }
        ck_assert_uint_eq(vmki_extents_size(root), MANY);
        ck_assert(vmki_extents_check(root, origin, origin + 2 * MANY));
        if (pass == 0)
            overhead = vmki_extents_overhead();
        ck_assert_uint_eq(vmki_extents_overhead(), overhead);
        vmki_extents_clear(&root);
    }
    ck_assert_uint_le(overhead, MANY * sizeof(vmki_extent) + 2 * 65536);
}
END_TEST

/* As many nodes as were prepared are there, whatever is free and whatever fresh. */
START_TEST(nodes_for_many)
{
    vmki_extent *root = NULL;
    for (size_t count = 1; count <= 1000; count += 111) {
        ck_assert_int_eq(vmki_extents_prepare(1), VMK_OK);
        vmki_extents_insert(&root, origin, origin + 2 * count + 1);
        ck_assert_int_eq(vmki_extents_prepare(count), VMK_OK);
        for (size_t i = 0; i < count; i++) /* each splits one in two */
            vmki_extents_remove(&root, origin + 2 * i + 1, origin + 2 * i + 2);
        ck_assert_uint_eq(vmki_extents_size(root), count + 1);
        ck_assert(vmki_extents_check(root, origin, origin + 2 * count + 1));
        vmki_extents_clear(&root);
    }
}
END_TEST

#ifdef VMKIT_MODEL
START_TEST(no_memory_for_nodes_is_an_error_that_passes)
{
    vmki_extent *root = NULL;
    uintptr_t at = origin;
    for (uint64_t nth = 1; nth <= 2; nth++) { /* the reserve of a slab, then its commit */
        model_reset(NULL);
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        size_t before = model_reserved();
        for (;; at += 2) {
            vmk_status status = vmki_extents_prepare(1);
            if (status != VMK_OK)
                break;
            vmki_extents_insert(&root, at, at + 1);
            ck_assert_uint_lt(at, origin + 1000000);
        }
        ck_assert(model_failed());
        ck_assert_uint_eq(model_reserved(), before);
        ck_assert_int_eq(vmki_extents_prepare(1), VMK_OK);
        vmki_extents_insert(&root, at, at + 1);
        at += 2;
    }
    ck_assert(vmki_extents_check(root, origin, at));
    ck_assert_ptr_null(model_violation());
    vmki_extents_clear(&root);
}
END_TEST
#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("extents");
    TCase *tests = tcase_create("extents");
    tcase_add_test(tests, random_against_an_array);
    tcase_add_test(tests, touching_extents_are_one);
#ifdef VMKIT_MODEL
    tcase_add_test(tests, no_memory_for_nodes_is_an_error_that_passes); /* before slabs are plenty */
#endif
    tcase_add_test(tests, many_extents_in_little_memory);
    tcase_add_test(tests, nodes_for_many);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
