/* SPDX-License-Identifier: MIT
 *
 * What AddressSanitizer finds in programs whose memory is a heap's: each crime below is a read or a write of one byte
 * of what was freed, and must be its last act. Each is committed in a child process, which is this program again. And
 * what it must not find: anything in addresses that have gone to other uses since.
 */
#include <stdlib.h>
#include <string.h>

#include "common/heap/object.h"
#include "support.h"

#define MIB ((size_t)1 << 20)
#define LARGE ((size_t)100 << 10)

static vmk_heap *heap;

static vmk_heap *heap_make(unsigned flags)
{
    vmk_heap *made;
    vmk_heap_options options = {.flags = flags, .window = 64 * MIB};
    if (vmk_heap_create(&made, &options) != VMK_OK)
        exit(9);
    return made;
}

static char *take(size_t size)
{
    char *object = vmk_heap_alloc(heap, size);
    if (object == NULL)
        exit(9);
    memset(object, 1, size);
    return object;
}

static void touch(const char *byte)
{
    (void)*(const volatile char *)byte;
}

static void free_here(void *argument, unsigned number)
{
    (void)number;
    vmk_heap_free(heap, argument);
}

/* --- crimes ----------------------------------------------------------------------------------------------------- */

static void small(void)
{
    char *object = take(50);
    vmk_heap_free(heap, object);
    touch(object + 49);
}

static void small_write(void)
{
    char *object = take(5000);
    vmk_heap_free(heap, object);
    *(volatile char *)object = 1;
}

static void small_by_handle(void)
{
    vmk_cache *cache = vmk_cache_attach(heap);
    char *object = vmk_cache_alloc(cache, 16);
    vmk_cache_free(cache, object);
    touch(object);
}

static void small_by_another(void)
{
    char *object = take(50);
    support_threads(1, free_here, object);
    touch(object);
}

/* More of them than a stack has room for, and none left. */
static void small_among_many(void)
{
    enum { MANY = 2000 };
    static char *objects[MANY];
    for (int i = 0; i < MANY; i++)
        objects[i] = take(100);
    for (int i = 0; i < MANY; i++)
        vmk_heap_free(heap, objects[i]);
    touch(objects[MANY / 2]);
}

static void small_given_back(void)
{
    char *object = take(50);
    vmk_heap_free(heap, object);
    (void)vmk_heap_trim(heap);
    touch(object);
}

static void never_allocated(void)
{
    touch(take(1000) + 7 * vmk_heap_good_size(1000));
}

static void large(void)
{
    char *object = take(LARGE);
    vmk_heap_free(heap, object);
    touch(object + LARGE - 1);
}

static void large_write(void)
{
    char *object = take(LARGE);
    vmk_heap_free(heap, object);
    *(volatile char *)object = 1;
}

static void large_made_shorter(void)
{
    char *object = take(4 * LARGE), *shorter = vmk_heap_realloc(heap, object, LARGE);
    touch(shorter + 2 * LARGE);
}

static void realloc_moved(void)
{
    char *object = take(100);
    if (vmk_heap_realloc(heap, object, 2000) == object)
        exit(9);
    touch(object);
}

static void span_freed(void)
{
    vmk_span *span;
    if (vmk_span_alloc(heap, 3, 0, 0, &span) != VMK_OK)
        exit(9);
    unsigned char *base = span->base;
    vmk_span_free(heap, span);
    touch((char *)base);
}

static void hardened_small(void)
{
    heap = heap_make(VMK_HEAP_HARDENED);
    small();
}

static void hardened_past_the_end(void)
{
    heap = heap_make(VMK_HEAP_HARDENED);
    char *object = take(100);
    touch(object + vmk_heap_usable_size(heap, object));
}

static void hardened_large(void)
{
    heap = heap_make(VMK_HEAP_HARDENED);
    large_write();
}

static const struct crime {
    const char *name;
    void (*commit)(void);
} crimes[] = {{"small", small},
              {"small-write", small_write},
              {"small-by-handle", small_by_handle},
              {"small-by-another", small_by_another},
              {"small-among-many", small_among_many},
              {"small-given-back", small_given_back},
              {"never-allocated", never_allocated},
              {"large", large},
              {"large-write", large_write},
              {"large-made-shorter", large_made_shorter},
              {"realloc-moved", realloc_moved},
              {"span", span_freed},
              {"hardened-small", hardened_small},
              {"hardened-past-the-end", hardened_past_the_end},
              {"hardened-large", hardened_large}};
enum { CRIMES = sizeof crimes / sizeof crimes[0] };

static int child(int argc, char **argv)
{
    heap = heap_make(0);
    for (int i = 0; argc > 0 && i < CRIMES; i++)
        if (strcmp(argv[0], crimes[i].name) == 0)
            crimes[i].commit();
    return 77; /* survived it */
}

START_TEST(crimes_are_found)
{
    char output[4096];
    const char *arguments[] = {crimes[_i].name, NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(end.crashed || (end.code != 0 && end.code != 77 && end.code != 9), "%s: code %d", crimes[_i].name,
                  end.code);
    ck_assert_msg(strstr(output, "AddressSanitizer: use-after-poison") != NULL, "%s: %s", crimes[_i].name, output);
}
END_TEST

/* --- no crimes -------------------------------------------------------------------------------------------------- */

/* All of an object may be used, as much as it is said to have. */
static void use_whole(void *object)
{
    memset(object, 1, vmk_heap_usable_size(heap, object));
}

static void work(support_random *random)
{
    enum { OBJECTS = 200 };
    void *objects[OBJECTS] = {NULL};
    for (size_t i = 0; i < support_rounds(20000); i++) {
        void **object = &objects[support_random_below(random, OBJECTS)];
        size_t size = support_random_below(random, i % 50 == 0 ? MIB / 2 : i % 5 == 0 ? 40000 : 600);
        switch (support_random_below(random, 4)) {
        case 0:
            vmk_heap_free(heap, *object);
            *object = vmk_heap_alloc_zeroed(heap, size);
            break;
        case 1:
            vmk_heap_free(heap, *object);
            *object = vmk_heap_alloc_aligned(heap, size, (size_t)16 << support_random_below(random, 9));
            break;
        case 2:
            vmk_heap_free(heap, *object);
            *object = NULL;
            break;
        default: {
            void *moved = vmk_heap_realloc(heap, *object, size);
            *object = moved != NULL ? moved : *object;
        }
        }
        if (*object != NULL)
            use_whole(*object);
        if (i % 500 == 0)
            (void)vmk_heap_trim(heap);
    }
}

START_TEST(no_crime_is_found_where_there_is_none)
{
    const unsigned flags[] = {0, VMK_HEAP_HARDENED, VMK_HEAP_DECOMMIT, 0};
    support_random random = support_random_start((uint64_t)_i);
    heap = heap_make(flags[_i]);
    work(&random);
    vmk_heap_destroy(heap);
}
END_TEST

/* What was a heap's is another's: where it was mapped, all may be touched. */
START_TEST(addresses_are_free_after_the_end)
{
    vmk_region region;
    heap = heap_make(0);
    unsigned char *object = vmk_heap_alloc(heap, 4 * MIB), *base = (unsigned char *)heap->origin;
    ck_assert_ptr_nonnull(object);
    vmk_heap_free(heap, take(50));
    vmk_heap_free(heap, object);
    vmk_heap_destroy(heap);
    vmk_reserve_options options = {.hint = base, .flags = VMK_RESERVE_EXACT};
    ck_assert_int_eq(vmk_reserve(&region, 8 * MIB, &options), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, region.size), VMK_OK);
    memset(region.base, 1, region.size);
    vmk_release(&region);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_asan");
    TCase *tests = tcase_create("object_asan");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, crimes_are_found, 0, CRIMES);
    tcase_add_loop_test(tests, no_crime_is_found_where_there_is_none, 0, 4);
    tcase_add_test(tests, addresses_are_free_after_the_end);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
