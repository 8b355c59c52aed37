/* SPDX-License-Identifier: MIT
 *
 * Huge pages, transparent and explicit, and NUMA nodes. What this machine has of them is for its administrator to say:
 * where there is none, calls must say so and change nothing. The model OS has all of it.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/align.h"
#include "common/vm/vm.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

static size_t page;

#if defined(VMKIT_MODEL)

enum { POOL = 6 };
#define MODEL_HUGE ((size_t)1 << 20)

static const model_rules plenty = {.guards = true,
                                   .batch = true,
                                   .huge_page_size = (size_t)2 << 20,
                                   .huge_size = MODEL_HUGE,
                                   .huge_pool = POOL * MODEL_HUGE,
                                   .nodes = 3};

static void set_up(void)
{
    model_reset(&plenty);
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

static bool can(unsigned feature)
{
    return (vmk_capabilities()->features & feature) != 0;
}

/* --- the report ------------------------------------------------------------------------------------------------- */

START_TEST(small_pages_are_not_huge)
{
    vmk_region region;
    size_t huge = 77;
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 32 * page), VMK_OK);
    memset(region.base, 1, 32 * page);
    ck_assert_int_eq(vmk_huge_report(&region, page / 2, page, &huge), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_huge_report(&region, 0, 65 * page, &huge), VMK_ERR_ARGUMENT);
    ck_assert_uint_eq(huge, 77);
    vmk_status status = vmk_huge_report(&region, 0, region.size, &huge);
    if (can(VMK_CAP_HUGE_REPORT))
        ck_assert_int_eq(status, VMK_OK);
    ck_assert(status == VMK_OK || status == VMK_ERR_UNSUPPORTED);
    ck_assert_uint_eq(huge, status == VMK_OK ? 0 : 77);
    ck_assert_int_eq(vmk_huge_report(&region, page, 0, &huge), VMK_OK);
    ck_assert_uint_eq(huge, 0);
    vmk_release(&region);
}
END_TEST

/* Asked for, and touched: it is the system's to say whether there are some. */
START_TEST(transparent_huge_pages_are_reported)
{
    size_t size = vmk_capabilities()->huge_page_size, huge = 77, part = 77, none = 77;
    if (size == 0 || size > (size_t)64 << 20 || !can(VMK_CAP_HUGE_REPORT) || !can(VMK_CAP_HUGE_ADVICE))
        return;
    vmk_reserve_options options = {.align = size};
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, 3 * size, &options), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 3 * size), VMK_OK);
    ck_assert_int_eq(vmk_advise(&region, 0, 2 * size, VMK_ADVICE_HUGE), VMK_OK);
    ck_assert_int_eq(vmk_advise(&region, 2 * size, size, VMK_ADVICE_NO_HUGE), VMK_OK);
    for (size_t at = 0; at < 3 * size; at += page)
        region.base[at] = 1;
    ck_assert_int_eq(vmk_huge_report(&region, 0, 3 * size, &huge), VMK_OK);
    ck_assert_int_eq(vmk_huge_report(&region, 2 * size, size, &none), VMK_OK);
    ck_assert_int_eq(vmk_huge_report(&region, 0, size, &part), VMK_OK);
    printf("of %u huge pages that were advised, %u are\n", 2u, (unsigned)(huge / size));
    ck_assert_uint_eq(huge % size, 0);
    ck_assert_uint_le(huge, 2 * size);
    ck_assert_uint_le(part, huge);
    ck_assert_uint_eq(none, 0);
    if (huge == 2 * size) { /* a part of one, and what a decommit takes out */
        ck_assert_int_eq(vmk_huge_report(&region, size - page, 3 * page, &part), VMK_OK);
        ck_assert_uint_eq(part, 3 * page);
        ck_assert_int_eq(vmk_decommit(&region, 0, size), VMK_OK);
        ck_assert_int_eq(vmk_huge_report(&region, 0, 3 * size, &part), VMK_OK);
        ck_assert_uint_eq(part, size);
    }
    vmk_release(&region);
}
END_TEST

/* --- explicit huge pages ---------------------------------------------------------------------------------------- */

/* The smallest size that there is; 0: none. */
static size_t explicit_size(void)
{
#if defined(VMKIT_MODEL)
    return MODEL_HUGE;
#else
    return vmk_capabilities()->huge_sizes[0];
#endif
}

static void fill(unsigned char *base, size_t size, unsigned char value)
{
    for (size_t at = 0; at < size; at += page)
        base[at] = value;
}

static void check_zero(const unsigned char *base, size_t size)
{
    for (size_t at = 0; at < size; at += page)
        ck_assert_uint_eq(base[at], 0);
}

START_TEST(sizes_that_there_are_not)
{
    vmk_region region;
    const size_t wrong[] = {1, 3 * page, page, page / 2, SIZE_MAX / 2 + 1, 2 * page};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        vmk_reserve_options options = {.huge_size = wrong[i]};
        vmk_status status = vmk_reserve(&region, wrong[i], &options);
        bool there = false;
        for (size_t k = 0; k < VMK_MAX_HUGE_SIZES; k++)
            there = there || vmk_capabilities()->huge_sizes[k] == wrong[i];
        ck_assert_int_eq(status, there ? status : VMK_ERR_UNSUPPORTED);
        if (status == VMK_OK)
            vmk_release(&region);
    }
}
END_TEST

/* All that is done by pages elsewhere is done by huge pages here. */
static void use_two(vmk_region *region, size_t size)
{
    size_t huge, resident;
    unsigned char *base = region->base;
    fill(base, 2 * size, 1);
    ck_assert_int_eq(vmk_huge_report(region, 0, region->size, &huge), VMK_OK);
    ck_assert_uint_eq(huge, region->committed);
    ck_assert_int_eq(vmk_prefault(region, 0, 2 * size), VMK_OK);
    ck_assert_int_eq(vmk_residency(region, 0, 2 * size, NULL, &resident), VMK_OK);
    ck_assert_uint_eq(resident, 2 * size);
    ck_assert_int_eq(vmk_discard(region, 0, size), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_protect(region, 0, size, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmk_protect(region, 0, page, VMK_ACCESS_READ), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_protect(region, 0, size, VMK_ACCESS_READ_WRITE), VMK_OK);
    ck_assert_int_eq(vmk_guard_set(region, page, page), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_guard_set(region, size, size), VMK_OK);
#if !defined(VMKIT_MODEL)
    ck_assert(!support_readable(base + size));
#endif
    ck_assert_int_eq(vmk_guard_clear(region, size, size), VMK_OK);
    fill(base, 2 * size, 2);
}

static void decommit_some(vmk_region *region, size_t size)
{
    const vmk_run runs[2] = {{0, size}, {2 * size, size}};
    size_t done = 77, before = region->committed;
    vmk_status status = vmk_decommit(region, 0, size);
    if (status == VMK_ERR_UNSUPPORTED) { /* as on Windows: nothing has changed */
        ck_assert_uint_eq(region->committed, before);
        ck_assert_uint_eq(region->base[0], 2);
        ck_assert_int_eq(vmk_decommit_batch(region, runs, 2, &done), VMK_ERR_UNSUPPORTED);
        ck_assert_uint_eq(done, 0);
        return;
    }
    ck_assert_int_eq(status, VMK_OK);
    ck_assert_uint_eq(region->committed, size);
    ck_assert_uint_eq(region->base[size], 2);
    ck_assert_int_eq(vmk_commit(region, 0, size), VMK_OK);
    check_zero(region->base, size);
    ck_assert_int_eq(vmk_decommit_batch(region, runs, 2, &done), VMK_OK);
    ck_assert_uint_eq(done, 2);
    ck_assert_uint_eq(region->committed, size);
    ck_assert_int_eq(vmk_decommit(region, 0, region->size), VMK_OK);
    ck_assert_uint_eq(region->committed, 0);
}

/* Gives back whether there were any. */
static bool try_region(void)
{
    size_t size = explicit_size(), before, after;
    vmk_stats stats;
    vmk_reserve_options options = {.huge_size = size, .guard_size = 1, .align = 2 * size, .name = "huge"};
    vmk_region region = {0};
    vmk_stats_now(&stats);
    before = stats.committed;
    vmk_status status = vmk_reserve(&region, 3 * size - 1, &options);
    if (status != VMK_OK) {
        printf("no region of explicit huge pages: %s\n", vmk_status_name(status));
        ck_assert(status == VMK_ERR_UNSUPPORTED || status == VMK_ERR_COMMIT || status == VMK_ERR_ADDRESS_SPACE);
        ck_assert_ptr_null(region.base);
        return false;
    }
    ck_assert(vmki_is_aligned((uintptr_t)region.base, 2 * size));
    ck_assert_uint_eq(region.unit, size);
    ck_assert_uint_eq(region.size, 3 * size);
    ck_assert_uint_eq(region.guard_size, size);
    ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_commit(&region, size / 2, size), VMK_ERR_ARGUMENT);
    status = vmk_commit(&region, 0, 2 * size);
    printf("two explicit huge pages: %s\n", vmk_status_name(status));
    if (status == VMK_OK) {
        use_two(&region, size);
        decommit_some(&region, size);
    } else { /* the pool is empty */
        ck_assert_int_eq(status, VMK_ERR_COMMIT);
        ck_assert_uint_eq(region.committed, 0);
#if !defined(VMKIT_MODEL)
        ck_assert(!support_readable(region.base));
#endif
    }
    ck_assert(vmki_region_check(&region));
    vmk_release(&region);
    vmk_stats_now(&stats);
    after = stats.committed;
    ck_assert_uint_eq(after, before);
    return status == VMK_OK;
}

START_TEST(a_region_of_explicit_huge_pages)
{
    if (explicit_size() != 0)
        (void)try_region();
}
END_TEST

START_TEST(a_table_wants_small_pages)
{
    vmk_reserve_options options = {.huge_size = explicit_size()};
    vmk_region region;
    vmk_table table;
    if (options.huge_size == 0 || vmk_reserve(&region, options.huge_size, &options) != VMK_OK)
        return;
    vmk_table_config config = {
        .capacity = 10, .column_bits = {64}, .region = &region, .region_size = options.huge_size};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_ERR_ARGUMENT);
    vmk_release(&region);
}
END_TEST

START_TEST(placed_huge_pages)
{
    size_t size = explicit_size();
    vmk_reserve_options options = {.huge_size = size};
    vmk_region first, second;
    if (size == 0 || vmk_reserve(&first, size, &options) != VMK_OK)
        return;
    options.flags = VMK_RESERVE_EXACT;
    options.hint = first.base;
    ck_assert_int_eq(vmk_reserve(&second, size, &options), VMK_ERR_TAKEN);
    options.hint = first.base + size / 2;
    ck_assert_int_eq(vmk_reserve(&second, size, &options), VMK_ERR_ARGUMENT);
    unsigned char *place = first.base;
    vmk_release(&first);
    options.hint = place;
    vmk_status status = vmk_reserve(&second, size, &options);
    ck_assert(status == VMK_OK || status == VMK_ERR_TAKEN); /* another thread of the process may be faster */
    if (status == VMK_OK) {
        ck_assert_ptr_eq(second.base, place);
        vmk_release(&second);
    }
}
END_TEST

#if defined(VMKIT_MODEL)

START_TEST(the_pool_is_what_it_is)
{
    vmk_reserve_options options = {.huge_size = MODEL_HUGE};
    vmk_region region, other;
    ck_assert(try_region());
    ck_assert_int_eq(vmk_reserve(&region, 8 * MODEL_HUGE, &options), VMK_OK); /* more than there are: no crime yet */
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * MODEL_HUGE), VMK_ERR_COMMIT);
    ck_assert_uint_eq(region.committed, 0);
    ck_assert_int_eq(vmk_commit(&region, MODEL_HUGE, MODEL_HUGE), VMK_OK);
    fill(region.base + MODEL_HUGE, MODEL_HUGE, 7);
    ck_assert_int_eq(vmk_commit(&region, 0, 7 * MODEL_HUGE), VMK_ERR_COMMIT); /* the second gap is refused: so is all */
    ck_assert_uint_eq(region.committed, MODEL_HUGE);
    ck_assert_uint_eq(region.base[MODEL_HUGE], 7);
    ck_assert_int_eq(vmk_commit(&region, 0, POOL * MODEL_HUGE), VMK_OK);
    ck_assert_uint_eq(region.base[MODEL_HUGE], 7);
    ck_assert_int_eq(vmk_reserve(&other, MODEL_HUGE, &options), VMK_OK);
    ck_assert_int_eq(vmk_commit(&other, 0, MODEL_HUGE), VMK_ERR_COMMIT);
    vmk_release(&region);
    ck_assert_int_eq(vmk_commit(&other, 0, MODEL_HUGE), VMK_OK);
    vmk_release(&other);
}
END_TEST

/* As on Windows. */
START_TEST(a_region_that_comes_committed)
{
    model_rules rules = plenty;
    rules.huge_whole = true;
    model_reset(&rules);
    ck_assert(try_region());
    vmk_reserve_options options = {.huge_size = MODEL_HUGE, .guard_size = page, .min_size = 1};
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, 7 * MODEL_HUGE, &options), VMK_ERR_COMMIT); /* it isn't space that lacks */
    options.min_size = 0;
    for (uint64_t nth = 1; nth <= 2; nth++) { /* the reserve; the guard */
        size_t before = model_reserved();
        model_fail_nth(nth, VMK_ERR_COMMIT, false);
        ck_assert_int_eq(vmk_reserve(&region, MODEL_HUGE, &options), VMK_ERR_COMMIT);
        ck_assert_uint_eq(model_reserved(), before);
    }
    ck_assert_int_eq(vmk_reserve(&region, MODEL_HUGE, &options), VMK_OK);
    ck_assert_uint_eq(region.committed, MODEL_HUGE);
    ck_assert_int_eq(vmk_commit(&region, 0, MODEL_HUGE), VMK_OK);
    fill(region.base, MODEL_HUGE, 1);
    vmk_release(&region);
}
END_TEST

START_TEST(refused_huge_pages)
{
    vmk_reserve_options options = {.huge_size = MODEL_HUGE};
    vmk_region region = {0};
    model_fail_nth(1, VMK_ERR_MAPPINGS, false);
    ck_assert_int_eq(vmk_reserve(&region, MODEL_HUGE, &options), VMK_ERR_MAPPINGS);
    ck_assert_ptr_null(region.base);
    ck_assert_int_eq(vmk_reserve(&region, 4 * MODEL_HUGE, &options), VMK_OK);
    model_fail_nth(1, VMK_ERR_COMMIT, false);
    ck_assert_int_eq(vmk_commit(&region, 0, MODEL_HUGE), VMK_ERR_COMMIT);
    ck_assert_int_eq(vmk_commit(&region, 0, MODEL_HUGE), VMK_OK);
    fill(region.base, MODEL_HUGE, 5);
    model_fail_nth(1, VMK_ERR_MAPPINGS, false);
    ck_assert_int_eq(vmk_decommit(&region, 0, MODEL_HUGE), VMK_ERR_MAPPINGS);
    ck_assert_uint_eq(region.base[page], 5);
    ck_assert_uint_eq(region.committed, MODEL_HUGE);
    vmk_release(&region);
}
END_TEST

#endif

/* --- nodes ------------------------------------------------------------------------------------------------------ */

START_TEST(memory_has_a_node)
{
    vmk_region region;
    unsigned node = 77, nodes = vmk_capabilities()->nodes;
    ck_assert_uint_ge(nodes, 1);
    vmk_reserve_options options = {.node = 1, .align = 4 * vmk_granularity()}; /* node 0 */
    ck_assert_int_eq(vmk_reserve(&region, 8 * page, &options), VMK_OK);
    ck_assert_int_eq(vmk_node_of(region.base, &node), VMK_ERR_UNSUPPORTED); /* no memory yet, nor after a commit */
    ck_assert_uint_eq(node, 77);
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK);
#if !defined(VMKIT_MODEL) && !defined(_WIN32)
    ck_assert_int_eq(vmk_node_of(region.base + 3 * page, &node), VMK_ERR_UNSUPPORTED);
#endif
    region.base[0] = region.base[page] = 1;
    vmk_status status = vmk_node_of(region.base + page + 5, &node);
    ck_assert(status == VMK_OK || (status == VMK_ERR_UNSUPPORTED && !can(VMK_CAP_NODE)));
    ck_assert(status == VMK_OK ? node < 1024 : node == 77);
    ck_assert(nodes != 1 || status != VMK_OK || node == 0);
    vmk_release(&region);
    options = (vmk_reserve_options){.node = 5001}; /* there is no such one: a wish that is not met */
    ck_assert_int_eq(vmk_reserve(&region, 8 * page, &options), VMK_OK);
    vmk_release(&region);
}
END_TEST

START_TEST(a_node_is_preferred)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, 8 * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_node_prefer(&region, page / 2, page, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_node_prefer(&region, 0, 9 * page, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_node_prefer(&region, page, 0, 0), VMK_OK);
    ck_assert_int_eq(vmk_node_prefer(&region, 0, 8 * page, 1000), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_node_prefer(&region, 0, 8 * page, UINT32_MAX), VMK_ERR_UNSUPPORTED);
    vmk_status status = vmk_node_prefer(&region, 0, 4 * page, 0);
    ck_assert(status == VMK_OK || (status == VMK_ERR_UNSUPPORTED && !can(VMK_CAP_NODE)));
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK);
    memset(region.base, 1, region.size);
    vmk_release(&region);
}
END_TEST

#if defined(VMKIT_MODEL)

START_TEST(nodes_of_many)
{
    vmk_reserve_options options = {.node = 3};
    vmk_region region;
    unsigned node;
    ck_assert_int_eq(vmk_reserve(&region, 4 * page, &options), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_OK);
    ck_assert_int_eq(vmk_node_prefer(&region, 0, 2 * page, 1), VMK_OK); /* what there is stays where it is */
    ck_assert_int_eq(vmk_commit(&region, page, 3 * page), VMK_OK);
    const unsigned expected[] = {2, 1, 2, 2};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(vmk_node_of(region.base + i * page, &node), VMK_OK);
        ck_assert_uint_eq(node, expected[i]);
    }
    ck_assert_int_eq(vmk_node_prefer(&region, 0, page, 3), VMK_ERR_UNSUPPORTED);
    model_fail_nth(1, VMK_ERR_MAPPINGS, false);
    ck_assert_int_eq(vmk_node_prefer(&region, 0, page, 1), VMK_ERR_MAPPINGS);
    vmk_release(&region);
}
END_TEST

#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("huge");
    TCase *tests = tcase_create("huge");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, small_pages_are_not_huge);
    tcase_add_test(tests, transparent_huge_pages_are_reported);
    tcase_add_test(tests, sizes_that_there_are_not);
    tcase_add_test(tests, a_region_of_explicit_huge_pages);
    tcase_add_test(tests, a_table_wants_small_pages);
    tcase_add_test(tests, placed_huge_pages);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, the_pool_is_what_it_is);
    tcase_add_test(tests, a_region_that_comes_committed);
    tcase_add_test(tests, refused_huge_pages);
    tcase_add_test(tests, nodes_of_many);
#endif
    tcase_add_test(tests, memory_has_a_node);
    tcase_add_test(tests, a_node_is_preferred);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
