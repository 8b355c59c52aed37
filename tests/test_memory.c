/* SPDX-License-Identifier: MIT
 *
 * Memory and its views: files and what has no name, against what stdio reads in the same files, against plain memory,
 * and between processes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/align.h"
#include "common/base/os.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

static size_t page;

static vmk_memory nameless(size_t size)
{
    vmk_memory memory;
    ck_assert_int_eq(vmk_memory_init(&memory, size), VMK_OK);
    ck_assert_uint_eq(memory.size, vmk_page_ceil(size));
    return memory;
}

static vmk_view view_of(const vmk_memory *memory, uint64_t offset, size_t size, vmk_view_kind kind)
{
    vmk_view view;
    vmk_status status = vmk_view_map(&view, memory, offset, size, kind);
    ck_assert_msg(status == VMK_OK, "%s", vmk_status_name(status));
    ck_assert(view.kind == kind && view.offset == offset);
    return view;
}

static void fill(unsigned char *bytes, size_t size, uint64_t salt)
{
    support_random random = support_random_start(salt);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)support_random_next(&random);
}

/* --- views ------------------------------------------------------------------------------------------------------ */

START_TEST(views_share_the_memory)
{
    vmk_memory memory = nameless(5 * page - 3);
    vmk_view all = view_of(&memory, 0, 0, VMK_VIEW_SHARED), reader = view_of(&memory, 0, 0, VMK_VIEW_READ);
    vmk_view part = view_of(&memory, page + 5, 2 * page, VMK_VIEW_SHARED);
    ck_assert_uint_eq(all.size, memory.size);
    for (size_t i = 0; i < all.size; i++)
        ck_assert_uint_eq(all.base[i], 0);
    fill(all.base, all.size, 1);
    ck_assert_int_eq(memcmp(all.base, reader.base, all.size), 0);
    ck_assert_int_eq(memcmp(all.base + page + 5, part.base, part.size), 0);
    part.base[part.size - 1]++;
    ck_assert_uint_eq(reader.base[page + 5 + part.size - 1], part.base[part.size - 1]);
    ck_assert(support_writable(all.base) && support_writable(part.base));
    ck_assert(support_readable(reader.base) && !support_writable((void *)(uintptr_t)reader.base));
    vmk_view_unmap(&part);
    vmk_memory_fini(&memory); /* a view needs it no longer */
    unsigned char copy = all.base[3];
    vmk_view_unmap(&all);
    ck_assert_uint_eq(reader.base[3], copy);
    vmk_view_unmap(&reader);
}
END_TEST

START_TEST(private_views_keep_their_writes)
{
    vmk_memory memory = nameless(4 * page);
    vmk_view shared = view_of(&memory, 0, 0, VMK_VIEW_SHARED);
    memset(shared.base, 1, shared.size);
    vmk_view one = view_of(&memory, 0, 0, VMK_VIEW_PRIVATE), two = view_of(&memory, page, page, VMK_VIEW_PRIVATE);
    one.base[page] = 2;
    two.base[1] = 3;
    ck_assert(shared.base[page] == 1 && shared.base[page + 1] == 1);
    ck_assert(one.base[page] == 2 && one.base[page + 1] == 1);
    ck_assert(two.base[0] == 1 && two.base[1] == 3);
    shared.base[page + 2] = 4; /* in a page that both have copied */
    ck_assert(one.base[page + 2] == 1 && two.base[2] == 1);
    vmk_view_unmap(&one);
    vmk_view_unmap(&two);
    one = view_of(&memory, 0, 0, VMK_VIEW_PRIVATE);
    ck_assert(one.base[page] == 1 && one.base[page + 1] == 1 && one.base[page + 2] == 4);
    vmk_view_unmap(&one);
    vmk_view_unmap(&shared);
    vmk_memory_fini(&memory);
}
END_TEST

/* Views of all kinds at any place, and plain memory that says what they must hold. */
START_TEST(random_views)
{
    enum { SIZE = 300001 };
    static unsigned char plain[SIZE], mine[SIZE];
    support_random random = support_random_start(2);
    char path[SUPPORT_PATH];
    vmk_memory memory;
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&memory, SIZE), VMK_OK);
    for (size_t round = support_rounds(300); round > 0; round--) {
        size_t offset = support_random_below(&random, SIZE), size = 1 + support_random_below(&random, SIZE - offset);
        if (round % 3 == 0)
            offset = vmki_floor(offset, vmk_granularity());
        vmk_view_kind kind = (vmk_view_kind)support_random_below(&random, 3);
        vmk_view view = view_of(&memory, offset, size, kind);
        ck_assert_uint_eq(view.size, size);
        ck_assert_int_eq(memcmp(view.base, plain + offset, size), 0);
        size_t at = support_random_below(&random, size), length = 1 + support_random_below(&random, size - at);
        unsigned char value = (unsigned char)support_random_next(&random);
        if (kind != VMK_VIEW_READ)
            memset(view.base + at, value, length);
        memcpy(mine, plain + offset, size);
        memset(mine + at, value, length);
        ck_assert(kind == VMK_VIEW_READ || memcmp(view.base, mine, size) == 0);
        if (kind == VMK_VIEW_SHARED)
            memset(plain + offset + at, value, length);
        vmk_view_unmap(&view);
    }
    vmk_memory_fini(&memory);
    support_remove(path);
}
END_TEST

/* --- files ------------------------------------------------------------------------------------------------------ */

static void check_file(const char *path, const unsigned char *expected, size_t size)
{
    unsigned char *got = malloc(size + 1);
    FILE *file = fopen(path, "rb");
    ck_assert(file != NULL && got != NULL);
    ck_assert_uint_eq(fread(got, 1, size + 1, file), size);
    ck_assert_int_eq(memcmp(got, expected, size), 0);
    fclose(file);
    free(got);
}

START_TEST(a_file_holds_what_was_written)
{
    char path[SUPPORT_PATH];
    static unsigned char expected[200000];
    vmk_memory memory;
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE), VMK_ERR_TAKEN); /* it isn't there */
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert(memory.size == 0 && memory.flags == (VMK_MEMORY_WRITE | VMK_MEMORY_FILE));
    vmk_view view;
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED), VMK_ERR_ARGUMENT); /* nothing is in it */
    ck_assert_int_eq(vmk_memory_resize(&memory, sizeof expected), VMK_OK);
    ck_assert_uint_eq(memory.size, sizeof expected);
    view = view_of(&memory, 0, 0, VMK_VIEW_SHARED);
    fill(expected, sizeof expected, 3);
    memcpy(view.base, expected, sizeof expected);
    ck_assert_int_eq(vmk_view_flush(&view, 0, 0), VMK_OK);
    check_file(path, expected, sizeof expected);
    view.base[77777] = ++expected[77777];
    ck_assert_int_eq(vmk_view_flush(&view, 77777, 1), VMK_OK);
    ck_assert_int_eq(vmk_view_flush(&view, view.size, 0), VMK_OK); /* nothing */
    ck_assert_int_eq(vmk_view_flush(&view, 1, view.size), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_view_flush(&view, view.size + 1, 0), VMK_ERR_ARGUMENT);
    vmk_memory_fini(&memory);
    ck_assert_int_eq(vmk_view_flush(&view, 5, 0), VMK_OK);
    vmk_view_unmap(&view);
    check_file(path, expected, sizeof expected);

    ck_assert_int_eq(vmk_memory_open(&memory, path, 0), VMK_OK);
    ck_assert(memory.size == sizeof expected && memory.flags == VMK_MEMORY_FILE);
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_resize(&memory, 2 * sizeof expected), VMK_ERR_ARGUMENT);
    view = view_of(&memory, 12345, 0, VMK_VIEW_PRIVATE); /* which needs no right to write */
    ck_assert_int_eq(memcmp(view.base, expected + 12345, view.size), 0);
    memset(view.base, 0, view.size);
    ck_assert_int_eq(vmk_view_flush(&view, 0, 0), VMK_OK); /* nothing to do */
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
    check_file(path, expected, sizeof expected);
    support_remove(path);
}
END_TEST

/* A name in letters of several scripts. */
START_TEST(paths_are_utf8)
{
    char path[SUPPORT_PATH];
    vmk_memory memory;
    support_path(path);
    strcat(path, "-\xc3\xa9\xd0\xb6\xe6\xbc\xa2");
    ck_assert_int_eq(vmk_memory_open(&memory, path, 0), VMK_ERR_TAKEN);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    vmk_memory_fini(&memory);
    ck_assert_int_eq(vmk_memory_open(&memory, path, 0), VMK_OK);
    vmk_memory_fini(&memory);
    support_remove(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, 0), VMK_ERR_TAKEN);
    ck_assert_int_eq(vmk_memory_open(&memory, ".", 0), VMK_ERR_TAKEN);
}
END_TEST

/* --- growing ---------------------------------------------------------------------------------------------------- */

/* Step by step, from nothing; each view is made larger with it, and keeps what it holds. */
START_TEST(files_and_views_grow)
{
    enum { STEPS = 40 };
    char path[SUPPORT_PATH];
    support_random random = support_random_start(4);
    vmk_memory memory;
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&memory, 100), VMK_OK);
    vmk_view writer = view_of(&memory, 0, 0, VMK_VIEW_SHARED), reader = view_of(&memory, 50, 0, VMK_VIEW_READ);
    vmk_view own = view_of(&memory, 0, 0, VMK_VIEW_PRIVATE);
    memset(writer.base, 1, 100);
    own.base[99] = 2;
    for (size_t i = 0; i < STEPS; i++) {
        size_t before = (size_t)memory.size, size = before + 1 + support_random_below(&random, 50000);
        ck_assert_int_eq(vmk_memory_resize(&memory, size), VMK_OK);
        ck_assert_int_eq(vmk_view_grow(&writer, &memory, size), VMK_OK);
        ck_assert_int_eq(vmk_view_grow(&reader, &memory, size - 50), VMK_OK);
        ck_assert(writer.size == size && reader.size == size - 50);
        for (size_t k = before; k < size; k++)
            ck_assert_uint_eq(writer.base[k], 0);
        ck_assert(writer.base[0] == 1 && writer.base[99] == 1 && writer.base[before - 1] != 0);
        memset(writer.base + before, (int)i + 1, size - before);
        ck_assert_int_eq(memcmp(writer.base + 50, reader.base, reader.size), 0);
        vmk_status status = vmk_view_grow(&own, &memory, size);
        ck_assert(status == VMK_OK || status == VMK_ERR_UNSUPPORTED);
        ck_assert_uint_eq(own.size, status == VMK_OK ? size : 100);
        ck_assert(own.base[99] == 2 && own.base[98] == 1);
        if (own.size > page) /* beyond the page that it has copied */
            ck_assert_uint_eq(own.base[own.size - 1], i + 1);
    }
    ck_assert_int_eq(vmk_view_grow(&writer, &memory, writer.size), VMK_OK);
    ck_assert_int_eq(vmk_view_grow(&writer, &memory, writer.size - 1), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_view_grow(&writer, &memory, writer.size + 1), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_resize(&memory, memory.size - 1), VMK_ERR_ARGUMENT);
    vmk_view_unmap(&writer);
    vmk_view_unmap(&reader);
    vmk_view_unmap(&own);
    vmk_memory_fini(&memory);
    support_remove(path);
}
END_TEST

START_TEST(memory_without_a_name_grows_or_says_no)
{
    vmk_memory memory = nameless(page);
    vmk_view view = view_of(&memory, 0, 0, VMK_VIEW_SHARED);
    memset(view.base, 1, page);
    ck_assert_int_eq(vmk_memory_resize(&memory, page - 5), VMK_OK); /* so many it has */
    vmk_status status = vmk_memory_resize(&memory, 20 * page - 1);
    ck_assert(status == VMK_OK || status == VMK_ERR_UNSUPPORTED);
    ck_assert_uint_eq(memory.size, status == VMK_OK ? 20 * page : page);
    if (status == VMK_OK) {
        ck_assert_int_eq(vmk_view_grow(&view, &memory, 20 * page), VMK_OK);
        ck_assert(view.base[page - 1] == 1 && view.base[page] == 0 && view.base[20 * page - 1] == 0);
        view.base[20 * page - 1] = 1;
    }
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
}
END_TEST

/* Each thread asks for its own size; it never gets smaller. */
enum { GROWERS = 4, GROWTH = 50 };

typedef struct growth {
    vmk_memory memory;
    uint32_t wrong;
} growth;

static void grow(void *argument, unsigned number)
{
    growth *all = argument;
    for (size_t i = 1; i <= GROWTH; i++) {
        vmk_view view;
        size_t size = (i * GROWERS + number) * 1000;
        vmk_status status = vmk_memory_resize(&all->memory, size);
        if (status == VMK_ERR_ARGUMENT) /* another was faster and asked for more */
            continue;
        if (status != VMK_OK || vmk_view_map(&view, &all->memory, 0, size, VMK_VIEW_SHARED) != VMK_OK) {
            (void)vmki_cas_32(&all->wrong, 0, 1);
            continue;
        }
        view.base[size - 1 - number] = (unsigned char)(number + 1); /* it is there */
        vmk_view_unmap(&view);
    }
}

START_TEST(threads_make_a_file_larger)
{
    char path[SUPPORT_PATH];
    growth all = {.wrong = 0};
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&all.memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    support_threads(GROWERS, grow, &all);
    ck_assert_uint_eq(all.wrong, 0);
    ck_assert_uint_eq(all.memory.size, (GROWTH * GROWERS + GROWERS - 1) * 1000);
    vmk_memory_fini(&all.memory);
    support_remove(path);
}
END_TEST

/* Who looks later sees that it is larger by now, and does not cut it. */
START_TEST(others_make_a_file_larger)
{
    char path[SUPPORT_PATH];
    vmk_memory one, two;
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&one, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert_int_eq(vmk_memory_open(&two, path, VMK_MEMORY_WRITE), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&one, 1000), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&two, 500), VMK_OK);
    ck_assert_uint_eq(two.size, 1000);
    ck_assert_int_eq(vmk_memory_resize(&two, 2000), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&one, one.size), VMK_OK);
    ck_assert_uint_eq(one.size, 2000);
    vmk_memory_fini(&one);
    vmk_memory_fini(&two);
    support_remove(path);
}
END_TEST

/* --- arguments -------------------------------------------------------------------------------------------------- */

START_TEST(wrong_arguments)
{
    vmk_memory memory = nameless(4 * page), untouched, other;
    vmk_view view, before;
    uintptr_t handle = 77;
    memset(&untouched, 0x5a, sizeof untouched);
    other = untouched;
    ck_assert_int_eq(vmk_memory_init(&other, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_init(&other, UINT64_MAX), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_init(&other, INT64_MAX), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_open(&other, NULL, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_open(&other, "x", VMK_MEMORY_CREATE), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_open(&other, "x", VMK_MEMORY_FILE), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_open(&other, "", 0), VMK_ERR_TAKEN);
    ck_assert_int_eq(vmk_memory_import(&other, memory.handle, VMK_MEMORY_FILE), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_import(&other, (uintptr_t)-1, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_import(&other, 123456, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(memcmp(&other, &untouched, sizeof other), 0);

    memset(&view, 0x5a, sizeof view);
    before = view;
    const struct {
        uint64_t offset;
        size_t size;
    } wrong[] = {
        {0, 4 * page + 1},    {1, 4 * page},        {4 * page, 0}, {4 * page, 1}, {4 * page + 1, 0},
        {UINT64_MAX, 1},      {UINT64_MAX, 0},      {1, SIZE_MAX}, {0, SIZE_MAX}, {UINT64_MAX - page + 1, page},
        {page, SIZE_MAX - 5}, {2, SIZE_MAX / 2 + 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ck_assert_int_eq(vmk_view_map(&view, &memory, wrong[i].offset, wrong[i].size, VMK_VIEW_READ), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 1, (vmk_view_kind)3), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(memcmp(&view, &before, sizeof view), 0);
    ck_assert_int_eq(vmk_memory_resize(&memory, UINT64_MAX), VMK_ERR_ARGUMENT);
    vmk_memory_fini(&memory);

    char path[SUPPORT_PATH];
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert_int_eq(vmk_memory_handle(&memory, &handle), VMK_ERR_UNSUPPORTED);
    ck_assert_uint_eq(handle, 77);
    vmk_memory_fini(&memory);
    support_remove(path);
}
END_TEST

/* More than an address space has room for, which costs nothing but where it is charged. */
START_TEST(views_of_huge_memory)
{
    const uint64_t size = UINT64_C(1) << 40;
    vmk_memory memory;
    vmk_status status = vmk_memory_init(&memory, size);
    if (status != VMK_OK) {
        ck_assert_int_eq(status, VMK_ERR_COMMIT);
        return;
    }
    vmk_view view = view_of(&memory, size - 100, 0, VMK_VIEW_SHARED);
    ck_assert_uint_eq(view.size, 100);
    view.base[99] = 1;
    vmk_view again = view_of(&memory, size - 1, 1, VMK_VIEW_READ), none;
    ck_assert_uint_eq(again.base[0], 1);
#if SIZE_MAX == UINT32_MAX
    ck_assert_int_eq(vmk_view_map(&none, &memory, 0, 0, VMK_VIEW_READ), VMK_ERR_ARGUMENT);
    vmk_view halves[2]; /* one may fit, never both */
    status = vmk_view_map(&halves[0], &memory, 0, SIZE_MAX / 2 - page, VMK_VIEW_READ);
    if (status == VMK_OK) {
        status = vmk_view_map(&halves[1], &memory, 0, SIZE_MAX / 2 - page, VMK_VIEW_READ);
        vmk_view_unmap(&halves[0]);
    }
    ck_assert_int_eq(status, VMK_ERR_ADDRESS_SPACE);
#else
    (void)none;
#endif
    vmk_view_unmap(&again);
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
}
END_TEST

/* --- handles ---------------------------------------------------------------------------------------------------- */

START_TEST(a_handle_is_the_memory)
{
    vmk_memory memory = nameless(3 * page), again;
    uintptr_t handle;
    ck_assert_int_eq(vmk_memory_handle(&memory, &handle), VMK_OK);
    ck_assert_uint_ne(handle, memory.handle);
    vmk_view view = view_of(&memory, 0, 0, VMK_VIEW_SHARED);
    vmk_memory_fini(&memory);
    ck_assert_int_eq(vmk_memory_import(&again, handle, VMK_MEMORY_WRITE), VMK_OK);
    ck_assert(again.size == 3 * page && again.flags == VMK_MEMORY_WRITE && again.handle == handle);
    vmk_view other = view_of(&again, page, page, VMK_VIEW_SHARED);
    other.base[5] = 1;
    ck_assert_uint_eq(view.base[page + 5], 1);
    vmk_view_unmap(&view);
    vmk_view_unmap(&other);
    vmk_memory_fini(&again);
}
END_TEST

/* Another program: it finds what is there, and leaves an answer. */
static int child(int argc, char **argv)
{
    vmk_memory memory;
    vmk_view view;
    if (argc < 1)
        return 2;
    uintptr_t handle = (uintptr_t)strtoull(argv[0], NULL, 10);
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
    if (vmk_memory_import(&memory, handle, VMK_MEMORY_WRITE) != VMK_OK)
        return 3;
    if (vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED) != VMK_OK)
        return 4;
    for (size_t i = 0; i < view.size - 1; i++)
        if (view.base[i] != (unsigned char)(i * 7))
            return 5;
    view.base[view.size - 1] = 123;
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
    return 42;
}

START_TEST(a_handle_goes_to_another_program)
{
    char text[24], output[512];
    uintptr_t handle;
    vmk_memory memory = nameless(8 * page), again;
    vmk_view view = view_of(&memory, 0, 0, VMK_VIEW_SHARED);
    for (size_t i = 0; i < view.size; i++)
        view.base[i] = (unsigned char)(i * 7);
    ck_assert_int_eq(vmk_memory_handle(&memory, &handle), VMK_OK);
    snprintf(text, sizeof text, "%llu", (unsigned long long)handle);
    const char *arguments[] = {text, NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(!end.crashed && end.code == 42, "code %d: %s", end.code, output);
    ck_assert_uint_eq(view.base[view.size - 1], 123);
    /* A handle that isn't made for it is not there in the other program, or is something else. */
    view.base[view.size - 1] = 1;
    snprintf(text, sizeof text, "%llu", (unsigned long long)memory.handle);
    end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(end.crashed || end.code != 42, "%s", output);
    ck_assert_uint_eq(view.base[view.size - 1], 1);
    ck_assert_int_eq(vmk_memory_import(&again, handle, 0), VMK_OK); /* closes it */
    vmk_memory_fini(&again);
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
}
END_TEST

/* --- leaks and failures ----------------------------------------------------------------------------------------- */

/* All that there is, in one go; stops at the first failure, and gives back what it has got. */
static vmk_status all_operations(const char *path)
{
    vmk_memory memory, file, again = {.seal = 0};
    vmk_view view, other;
    uintptr_t handle;
    vmk_status status = vmk_memory_init(&memory, 3 * page);
    if (status != VMK_OK)
        return status;
    status = vmk_memory_open(&file, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE);
    if (status == VMK_OK) {
        status = vmk_memory_resize(&file, file.size > page ? file.size : page + 1);
        if (status == VMK_OK)
            status = vmk_view_map(&view, &file, 1, page, VMK_VIEW_SHARED);
        if (status == VMK_OK) {
            view.base[0] = 5;
            status = vmk_view_flush(&view, 0, 0);
            if (status == VMK_OK)
                status = vmk_memory_resize(&file, 5 * page);
            if (status == VMK_OK) {
                unsigned char *base = view.base;
                status = vmk_view_grow(&view, &file, 5 * page - 1);
                ck_assert(status == VMK_OK || (view.base == base && view.size == page));
            }
            ck_assert_uint_eq(view.base[0], 5);
            vmk_view_unmap(&view);
        }
        vmk_memory_fini(&file);
    }
    if (status == VMK_OK)
        status = vmk_view_map(&other, &memory, page, page, VMK_VIEW_PRIVATE);
    if (status == VMK_OK) {
        other.base[0] = 1;
        vmk_view_unmap(&other);
        status = vmk_memory_handle(&memory, &handle);
    }
    if (status == VMK_OK) {
        status = vmk_memory_import(&again, handle, VMK_MEMORY_WRITE);
#if defined(VMKIT_MODEL)
        if (status != VMK_OK) { /* it is the caller's still */
            model_fail_nth(0, VMK_OK, false);
            ck_assert_int_eq(vmk_memory_import(&again, handle, 0), VMK_OK);
        }
#endif
        if (again.seal != 0)
            vmk_memory_fini(&again);
    }
    vmk_memory_fini(&memory);
    return status;
}

START_TEST(nothing_is_left_behind)
{
    char path[SUPPORT_PATH];
    support_path(path);
    ck_assert_int_eq(all_operations(path), VMK_OK);
    size_t handles = support_handles(), rounds = support_rounds(500);
    for (size_t i = 0; i < rounds; i++) {
        vmk_memory memory;
        ck_assert_int_eq(all_operations(path), VMK_OK);
        ck_assert_int_eq(vmk_memory_open(&memory, ".", 0), VMK_ERR_TAKEN);
        ck_assert_int_eq(vmk_memory_import(&memory, 123456, 0), VMK_ERR_ARGUMENT);
    }
    ck_assert_uint_eq(support_handles(), handles);
    support_remove(path);
}
END_TEST

/* Views of half a GiB, over and over: a 32-bit address space has room for few at once. */
START_TEST(no_address_space_is_left_behind)
{
    const size_t size = (size_t)256 << 20;
    vmk_memory memory;
    if (vmk_memory_init(&memory, size) != VMK_OK)
        return;
    for (int i = 0; i < 50; i++) {
        vmk_view view = view_of(&memory, 12345, size / 2 - 12345, VMK_VIEW_SHARED);
        view.base[i] = 1;
        ck_assert_int_eq(vmk_view_grow(&view, &memory, size - 12345), VMK_OK);
        ck_assert_uint_eq(view.base[i], 1);
        vmk_view_unmap(&view);
    }
    vmk_memory_fini(&memory);
}
END_TEST

START_TEST(errors_of_the_system_survive)
{
    char path[SUPPORT_PATH];
    vmki_os_error error = {.library = 77}, after;
    support_path(path);
    vmki_os_error_set(error);
    vmk_status status = all_operations(path);
    after = vmki_os_error_get();
    ck_assert_int_eq(status, VMK_OK);
    ck_assert_int_eq(after.library, 77);
    errno = 0;
    vmk_memory memory;
    ck_assert_int_eq(vmk_memory_open(&memory, "no/such/file", 0), VMK_ERR_TAKEN);
    after = vmki_os_error_get();
    ck_assert(after.library != 0 || after.system != 0);
    support_remove(path);
}
END_TEST

#if defined(VMKIT_MODEL)

START_TEST(each_call_may_fail)
{
    const vmk_status statuses[] = {VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS};
    char path[SUPPORT_PATH];
    support_path(path);
    ck_assert_int_eq(all_operations(path), VMK_OK);
    size_t handles = support_handles();
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        vmk_status status = VMK_OK;
        for (uint64_t n = 1; n == 1 || status != VMK_OK; n++) {
            support_remove(path);
            model_fail_nth(n, statuses[i], false);
            status = all_operations(path);
            ck_assert_msg(status == VMK_OK || status == statuses[i], "%s", vmk_status_name(status));
            ck_assert_uint_lt(n, 100);
            ck_assert(status != VMK_OK || n > 10); /* it has failed that often */
        }
    }
    model_fail_nth(0, VMK_OK, false);
    ck_assert_uint_eq(support_handles(), handles);
    support_remove(path);
}
END_TEST

/* As where the system can't make a mapping larger. */
START_TEST(views_grow_by_mapping_anew)
{
    char path[SUPPORT_PATH];
    vmk_memory memory;
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&memory, 10 * page), VMK_OK);
    vmk_view shared = view_of(&memory, 5, page, VMK_VIEW_SHARED), own = view_of(&memory, 5, page, VMK_VIEW_PRIVATE);
    shared.base[page - 1] = 1;
    model_fail_nth(1, VMK_ERR_UNSUPPORTED, false);
    ck_assert_int_eq(vmk_view_grow(&shared, &memory, 9 * page), VMK_OK);
    ck_assert(model_failed() && shared.size == 9 * page);
    ck_assert(shared.base[page - 1] == 1 && shared.base[9 * page - 1] == 0);
    model_fail_nth(1, VMK_ERR_UNSUPPORTED, false);
    ck_assert_int_eq(vmk_view_grow(&own, &memory, 9 * page), VMK_ERR_UNSUPPORTED);
    ck_assert_uint_eq(own.size, page);
    model_fail_nth(0, VMK_OK, false);
    vmk_view_unmap(&shared);
    vmk_view_unmap(&own);
    vmk_memory_fini(&memory);
    support_remove(path);
}
END_TEST

#endif

static void set_up(void)
{
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
    page = vmk_page_size();
    ck_assert((vmk_capabilities()->features & VMK_CAP_MEMORY) != 0);
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, views_share_the_memory);
    tcase_add_test(tests, private_views_keep_their_writes);
    tcase_add_test(tests, random_views);
    tcase_add_test(tests, a_file_holds_what_was_written);
    tcase_add_test(tests, paths_are_utf8);
    tcase_add_test(tests, files_and_views_grow);
    tcase_add_test(tests, memory_without_a_name_grows_or_says_no);
    tcase_add_test(tests, threads_make_a_file_larger);
    tcase_add_test(tests, others_make_a_file_larger);
    tcase_add_test(tests, wrong_arguments);
    tcase_add_test(tests, views_of_huge_memory);
    tcase_add_test(tests, a_handle_is_the_memory);
    tcase_add_test(tests, a_handle_goes_to_another_program);
    tcase_add_test(tests, nothing_is_left_behind);
    tcase_add_test(tests, no_address_space_is_left_behind);
    tcase_add_test(tests, errors_of_the_system_survive);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, each_call_may_fail);
    tcase_add_test(tests, views_grow_by_mapping_anew);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
