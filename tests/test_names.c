/* SPDX-License-Identifier: MIT
 *
 * Names of mappings: of regions, tables, and heaps with VMK_HEAP_NAMED; that they stay through all that happens to the
 * pages, and that nothing has one that was not given one. The model says what has which; the real system is asked where
 * its kernel has names at all, and shows that elsewhere nothing else is changed by them.
 */
#include <string.h>

#include "common/heap/object.h"
#include "support.h"

#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

#define MIB ((size_t)1 << 20)

static size_t page;

static void before_each(void)
{
    page = vmk_page_size();
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
}

static void after_each(void)
{
#if defined(VMKIT_MODEL)
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

static void check_name(const void *address, const char *name)
{
#if defined(VMKIT_MODEL)
    const char *got = model_name_of(address);
    ck_assert_msg(got == NULL ? name == NULL : name != NULL && strcmp(got, name) == 0, "%p: %s, not %s", address,
                  got != NULL ? got : "none", name != NULL ? name : "none");
#else
    ck_assert(support_named(address, name));
#endif
}

static void check_names(const vmk_region *region, const char *name)
{
    for (size_t offset = 0; offset < region->size + region->guard_size; offset += page)
        check_name(region->base + offset, name);
}

/* --- regions and tables ----------------------------------------------------------------------------------------- */

START_TEST(a_region_keeps_its_name)
{
    vmk_region region, plain;
    vmk_reserve_options options = {.guard_size = page, .name = "a test"};
    ck_assert_int_eq(vmk_reserve(&region, 8 * page, &options), VMK_OK);
    ck_assert_int_eq(vmk_reserve(&plain, 8 * page, NULL), VMK_OK);
    check_names(&region, "a test");
    ck_assert_int_eq(vmk_commit(&region, 0, 6 * page), VMK_OK);
    memset(region.base, 1, 6 * page);
    check_names(&region, "a test");
    ck_assert_int_eq(vmk_decommit(&region, page, 2 * page), VMK_OK);
    check_names(&region, "a test");
    ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK);
    ck_assert_uint_eq(region.base[page], 0);
    ck_assert_uint_eq(region.base[3 * page], 1);
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_READ), VMK_OK);
    check_names(&region, "a test");
    check_names(&plain, NULL);
    vmk_release(&region);
    vmk_release(&plain);
}
END_TEST

/* A wish that the system may dislike: then all is as without. */
START_TEST(any_name_will_do)
{
    static const char *const names[] = {
        "", "[brackets]",
        "a name of more than eighty characters, of which some think that it is rather too long for one", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        vmk_region region;
        vmk_reserve_options options = {.min_size = page, .name = names[i]};
        ck_assert_int_eq(vmk_reserve(&region, 4 * page, &options), VMK_OK);
        ck_assert_int_eq(vmk_commit(&region, 0, region.size), VMK_OK);
        memset(region.base, 1, region.size);
        ck_assert_int_eq(vmk_decommit(&region, 0, region.size), VMK_OK);
        vmk_release(&region);
    }
}
END_TEST

START_TEST(a_table_has_a_name)
{
    vmk_table table, plain;
    vmk_table_config config = {.capacity = 100000, .column_bits = {64, 1}, .name = "a table"};
    ck_assert_int_eq(vmk_table_init(&table, &config), VMK_OK);
    config.name = NULL;
    ck_assert_int_eq(vmk_table_init(&plain, &config), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&table, 50000), VMK_OK);
    ck_assert_int_eq(vmk_table_ensure(&plain, 50000), VMK_OK);
    vmk_table_trim(&table, 100);
    check_names(&table.own_region, "a table");
    check_names(&plain.own_region, NULL);
    vmk_table_fini(&table);
    vmk_table_fini(&plain);
}
END_TEST

/* --- heaps ------------------------------------------------------------------------------------------------------ */

/* Some of everything: small and large objects, growth, memory given back. */
static void use(vmk_heap *heap)
{
    void *objects[200];
    for (size_t i = 0; i < 200; i++) {
        objects[i] = vmk_heap_alloc(heap, i % 20 == 0 ? 100000 : i * 10);
        ck_assert_ptr_nonnull(objects[i]);
        memset(objects[i], 1, i * 10);
    }
    for (size_t i = 0; i < 200; i += 2)
        vmk_heap_free(heap, objects[i]);
    (void)vmk_heap_trim(heap);
}

static void check_heap(vmk_layout layout, unsigned flags)
{
    vmk_heap *view;
    bool named = (flags & VMK_HEAP_NAMED) != 0;
    vmk_heap_options options = {.layout = layout, .flags = flags, .window = 64 * MIB};
    ck_assert_int_eq(vmk_heap_create(&view, &options), VMK_OK);
    vmki_heap *heap = vmki_heap_of(view);
    use(view);
    unsigned char *huge = vmk_heap_alloc(view, 33 * MIB);
    ck_assert_ptr_nonnull(huge);
    check_name(view, named ? "vmkit heap" : NULL);
    check_name(view->records, named ? "vmkit heap" : NULL);
    for (size_t i = 0; i < heap->arena_count; i++) {
        const vmki_arena *arena = vmki_heap_arenas(heap) + i;
        const void *first = (const void *)(view->origin + (arena->first << VMK_HEAP_PAGE_SHIFT));
        check_name(first, !named ? NULL : arena->own.base != NULL ? "vmkit spans" : "vmkit heap");
    }
    check_name(vmk_table_at(&heap->objects.slabs, 0, 0), named ? "vmkit objects" : NULL);
    check_name(vmk_table_at(&heap->objects.bits, 1, 0), named ? "vmkit objects" : NULL);
    check_name(huge, named ? "vmkit huge object" : NULL);
    huge = vmk_heap_realloc(view, huge, 60 * MIB);
    ck_assert_ptr_nonnull(huge);
    check_name(huge, named ? "vmkit huge object" : NULL);
    vmk_heap_destroy(view);
}

START_TEST(heaps_have_names_if_they_shall)
{
    const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED};
    for (size_t i = 0; i < 2; i++) {
        check_heap(layouts[i], 0);
        check_heap(layouts[i], VMK_HEAP_NAMED);
        check_heap(layouts[i], VMK_HEAP_NAMED | VMK_HEAP_DECOMMIT);
        check_heap(layouts[i], VMK_HEAP_NAMED | VMK_HEAP_HARDENED);
    }
}
END_TEST

#if defined(VMKIT_MODEL)

/* Every page that is a heap's, by the record of calls: each reserve is followed by a name. */
START_TEST(each_mapping_is_named)
{
    vmk_heap *heap;
    vmk_heap_options options = {.layout = VMK_LAYOUT_LIMITED, .flags = VMK_HEAP_NAMED, .window = 64 * MIB};
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
    use(heap);
    const model_record *records;
    size_t count = model_records(&records), reserved = 0, named = 0;
    for (size_t i = 0; i < count; i++) {
        bool reserve = records[i].call == MODEL_RESERVE && records[i].status == VMK_OK;
        bool here = reserve && i + 1 < count && records[i + 1].call == MODEL_NAME;
        reserved += reserve;
        named += here && records[i + 1].address == records[i].address && records[i + 1].size == records[i].size;
    }
    ck_assert_uint_ge(reserved, 4);
    ck_assert_uint_ge(named + 2, reserved); /* the records of regions, and of threads, belong to no heap */
    vmk_heap_destroy(heap);
}
END_TEST

#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("names");
    TCase *tests = tcase_create("names");
    tcase_add_checked_fixture(tests, before_each, after_each);
    tcase_add_test(tests, a_region_keeps_its_name);
    tcase_add_test(tests, any_name_will_do);
    tcase_add_test(tests, a_table_has_a_name);
    tcase_add_test(tests, heaps_have_names_if_they_shall);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, each_mapping_is_named);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
