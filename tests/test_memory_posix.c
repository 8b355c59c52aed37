/* SPDX-License-Identifier: MIT
 *
 * Memory, rings and snapshots on POSIX systems: by each means that there may be, in a child of a fork, and where
 * descriptors, mappings or a limit on files are used up.
 */
#include "posix/os_service_private.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "support.h"

static size_t page;

static vmk_memory nameless(size_t size)
{
    vmk_memory memory;
    ck_assert_int_eq(vmk_memory_init(&memory, size), VMK_OK);
    return memory;
}

static vmk_view alone(size_t size)
{
    vmk_view view;
    vmk_memory memory = nameless(size);
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED), VMK_OK);
    vmk_memory_fini(&memory);
    return view;
}

/* --- what memory is made of ------------------------------------------------------------------------------------- */

static void check_is(uintptr_t handle, const char *expected)
{
    char link[64], target[256] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", (int)handle);
    if (readlink(link, target, sizeof target - 1) < 0)
        return; /* no such folder */
    ck_assert_msg(strncmp(target, expected, strlen(expected)) == 0 && strstr(target, "deleted") != NULL, "%s", target);
}

START_TEST(each_kind_of_memory)
{
    static const char *const names[VMKI_POSIX_MEMORIES] = {"/memfd:vmkit", VMKI_POSIX_SHM_FOLDER "/vmkit.",
                                                           "/tmp/vmkit."};
    vmki_posix_memory_force((vmki_posix_memory)_i);
    vmk_memory memory = nameless(10 * page);
    check_is(memory.handle, names[_i]);
    vmk_view one, two;
    vmk_ring ring;
    vmk_snapshot snapshot;
    ck_assert_int_eq(vmk_view_map(&one, &memory, 0, 0, VMK_VIEW_SHARED), VMK_OK);
    ck_assert_int_eq(vmk_view_map(&two, &memory, 7, 9 * page, VMK_VIEW_READ), VMK_OK);
    ck_assert_uint_eq(one.base[10 * page - 1], 0);
    one.base[7] = 1;
    ck_assert_uint_eq(two.base[0], 1);
    ck_assert_int_eq(vmk_view_flush(&one, 0, 0), VMK_OK);
    vmk_view_unmap(&two);
    ck_assert_int_eq(vmk_snapshot_take(&snapshot, &one), VMK_OK);
    one.base[7] = 2;
    ck_assert_uint_eq(snapshot.base[7], 1);
    ck_assert_int_eq(vmk_snapshot_drop(&snapshot), VMK_OK);
    ck_assert_uint_eq(one.base[7], 2);
    vmk_view_unmap(&one);
    vmk_memory_fini(&memory);
    ck_assert_int_eq(vmk_ring_init(&ring, page), VMK_OK);
    ring.base[page] = 1;
    ck_assert_uint_eq(ring.base[0], 1);
    vmk_ring_fini(&ring);
    vmki_posix_memory_force(VMKI_POSIX_MEMORY_MEMFD);
}
END_TEST

START_TEST(who_gets_the_handles)
{
    vmk_memory memory = nameless(page), again;
    vmk_view view;
    uintptr_t handle;
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED), VMK_OK);
    ck_assert_int_eq(vmk_memory_handle(&memory, &handle), VMK_OK);
    ck_assert_int_eq(fcntl((int)memory.handle, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fcntl((int)view.handle, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fcntl((int)handle, F_GETFD), 0);
    ck_assert_int_eq(vmk_memory_import(&again, handle, 0), VMK_OK);
    ck_assert_int_eq(fcntl((int)handle, F_GETFD), FD_CLOEXEC);
    ck_assert_uint_eq(again.flags, 0);
    vmk_memory_fini(&again);
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
}
END_TEST

/* --- what is none ----------------------------------------------------------------------------------------------- */

START_TEST(what_is_no_memory)
{
    char path[SUPPORT_PATH];
    int ends[2];
    vmk_memory memory;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(vmk_memory_import(&memory, (uintptr_t)ends[0], 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(fcntl(ends[0], F_GETFD), 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
    ck_assert_int_eq(vmk_memory_open(&memory, "/dev/zero", VMK_MEMORY_WRITE), VMK_ERR_TAKEN);
    ck_assert_int_eq(vmk_memory_open(&memory, "/", 0), VMK_ERR_TAKEN);
    support_path(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(vmk_memory_open(&memory, path, 0), VMK_ERR_TAKEN); /* and doesn't wait for a writer */
    support_remove(path);
    int file = open(path, O_WRONLY | O_CREAT, 0600), reader = open(path, O_RDONLY);
    ck_assert_int_eq(vmk_memory_import(&memory, (uintptr_t)file, VMK_MEMORY_WRITE), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_import(&memory, (uintptr_t)reader, VMK_MEMORY_WRITE), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_memory_import(&memory, (uintptr_t)reader, 0), VMK_OK);
    ck_assert_uint_eq(memory.flags, VMK_MEMORY_FILE);
    vmk_memory_fini(&memory);
    (void)close(file);
    support_remove(path);
}
END_TEST

/* --- fork ------------------------------------------------------------------------------------------------------- */

START_TEST(a_child_shares)
{
    vmk_ring ring;
    vmk_memory memory = nameless(3 * page);
    vmk_view view, other;
    int how;
    ck_assert_int_eq(vmk_ring_init(&ring, page), VMK_OK);
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED), VMK_OK);
    ck_assert_int_eq(vmk_view_map(&other, &memory, 0, 0, VMK_VIEW_PRIVATE), VMK_OK);
    ring.base[0] = view.base[0] = 1;
    pid_t child = fork();
    if (child == 0) {
        vmk_view own;
        bool right = ring.base[page] == 1 && view.base[0] == 1 && other.base[0] == 1;
        ring.base[2 * page - 1] = view.base[1] = 2;
        other.base[2] = 2;
        right = right && vmk_view_map(&own, &memory, page, 0, VMK_VIEW_SHARED) == VMK_OK;
        right = right && vmk_memory_resize(&memory, 5 * page) == VMK_OK;
        if (right)
            own.base[0] = 3;
        vmk_ring_fini(&ring); /* its own mapping alone */
        vmk_view_unmap(&view);
        _exit(right ? 42 : 1);
    }
    ck_assert(child > 0 && waitpid(child, &how, 0) == child);
    ck_assert(WIFEXITED(how) && WEXITSTATUS(how) == 42);
    ck_assert(ring.base[page - 1] == 2 && view.base[1] == 2 && view.base[page] == 3 && other.base[2] == 0);
    ck_assert_int_eq(vmk_memory_resize(&memory, 4 * page), VMK_OK);
    ck_assert_uint_eq(memory.size, 5 * page);
    vmk_ring_fini(&ring);
    vmk_view_unmap(&view);
    vmk_view_unmap(&other);
    vmk_memory_fini(&memory);
}
END_TEST

/* --- snapshots by each method ----------------------------------------------------------------------------------- */

START_TEST(each_way_to_find_copies)
{
    enum { PAGES = 1300 };
    vmki_posix_copied usual = vmki_posix_copied_method(), method = (vmki_posix_copied)_i;
    if (usual == VMKI_POSIX_COPIED_UNKNOWN || method < usual) /* the system can't */
        return;
    support_random random = support_random_start((uint64_t)_i);
    static unsigned char expected[PAGES];
    vmk_view view = alone(PAGES * page);
    vmki_posix_copied_force(method);
    for (size_t i = 0; i < PAGES; i++)
        view.base[i * page] = expected[i] = (unsigned char)i;
    for (int round = 0; round < 10; round++) {
        static unsigned char before[PAGES];
        vmk_snapshot snapshot;
        ck_assert_int_eq(vmk_snapshot_take(&snapshot, &view), VMK_OK);
        ck_assert_int_eq(snapshot.shared, method != VMKI_POSIX_COPIED_UNKNOWN);
        memcpy(before, expected, PAGES);
        for (size_t i = 0; i < PAGES; i++) {
            size_t what = support_random_below(&random, (size_t)round + 2);
            if (what == 0)
                view.base[i * page] = ++expected[i];
            else if (what == 1)
                ck_assert_uint_eq(view.base[i * page], expected[i]);
        }
        for (size_t i = 0; i < PAGES; i++)
            ck_assert_uint_eq(snapshot.base[i * page], before[i]);
        ck_assert_int_eq(vmk_snapshot_drop(&snapshot), VMK_OK);
        for (size_t i = 0; i < PAGES; i++)
            ck_assert_uint_eq(view.base[i * page], expected[i]);
    }
    vmk_view_unmap(&view);
    vmki_posix_copied_force(VMKI_POSIX_COPIED_UNDECIDED);
    ck_assert_int_eq(vmki_posix_copied_method(), usual);
}
END_TEST

/* What isn't written isn't copied. */
START_TEST(pages_are_shared)
{
    enum { PAGES = 5000, WRITTEN = 10 };
    if (vmki_posix_copied_method() != VMKI_POSIX_COPIED_SCAN)
        return;
    vmk_view view = alone(PAGES * page);
    memset(view.base, 1, view.size);
    vmk_snapshot snapshot;
    ck_assert_int_eq(vmk_snapshot_take(&snapshot, &view), VMK_OK);
    for (size_t i = 0; i < WRITTEN; i++)
        view.base[i * 7 * page] = 2;
    vmki_posix_scanned runs[64];
    uint64_t copied = 0;
    vmki_posix_scan scan = {.size = sizeof scan,
                            .start = (uintptr_t)view.base,
                            .end = (uintptr_t)view.base + view.size,
                            .vec = (uintptr_t)runs,
                            .vec_len = 64,
                            .category_inverted = VMKI_POSIX_PAGE_IS_FILE,
                            .category_mask = VMKI_POSIX_PAGE_IS_FILE | VMKI_POSIX_PAGE_IS_PRESENT,
                            .return_mask = VMKI_POSIX_PAGE_IS_FILE};
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int count = vmki_posix_pagemap_scan(pagemap, &scan);
    for (int i = 0; i < count; i++)
        copied += (runs[i].end - runs[i].start) / page;
    (void)close(pagemap);
    ck_assert(count == WRITTEN && copied == WRITTEN);
    ck_assert_int_eq(vmk_snapshot_drop(&snapshot), VMK_OK);
    vmk_view_unmap(&view);
}
END_TEST

/* --- shortages -------------------------------------------------------------------------------------------------- */

static struct rlimit lowered(struct rlimit limit, rlim_t value)
{
    limit.rlim_cur = value;
    return limit;
}

/* A limit on files is no reason to die of a signal. */
START_TEST(a_limit_on_files)
{
    vmk_memory memory, small = nameless(page);
    vmk_ring ring;
    struct rlimit before, low;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = lowered(before, 10 * page);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
    vmk_status made = vmk_memory_init(&memory, 11 * page), grown = vmk_memory_resize(&small, 11 * page);
    vmk_status ringed = vmk_ring_init(&ring, 11 * page);
    int error = errno;
    vmk_status fits = vmk_memory_resize(&small, 10 * page);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    ck_assert(made == VMK_ERR_COMMIT && grown == VMK_ERR_COMMIT && ringed == VMK_ERR_COMMIT && error == EFBIG);
    ck_assert(fits == VMK_OK && small.size == 10 * page);
    vmk_memory_fini(&small);
}
END_TEST

/* Also when a snapshot ends: then there is no other way than to compare. */
START_TEST(no_descriptor_is_left)
{
    vmk_memory memory = nameless(20 * page), other;
    vmk_view view = alone(20 * page), second;
    vmk_snapshot snapshot;
    vmk_ring ring;
    uintptr_t handle;
    memset(view.base, 1, view.size);
    ck_assert_int_eq(vmk_snapshot_take(&snapshot, &view), VMK_OK);
    memset(view.base + 3 * page, 2, 5 * page);
    int next = open("/dev/null", O_RDONLY);
    ck_assert(next >= 0 && close(next) == 0);
    struct rlimit before, low;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = lowered(before, (rlim_t)next);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    vmk_status statuses[] = {vmk_memory_init(&other, page), vmk_memory_open(&other, "/proc/self/exe", 0),
                             vmk_view_map(&second, &memory, 0, 0, VMK_VIEW_READ), vmk_memory_handle(&memory, &handle),
                             vmk_ring_init(&ring, page)};
    vmk_status dropped = vmk_snapshot_drop(&snapshot);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        ck_assert_int_eq(statuses[i], VMK_ERR_COMMIT);
    ck_assert_int_eq(dropped, VMK_OK);
    for (size_t i = 0; i < 20; i++)
        ck_assert_uint_eq(view.base[i * page], i >= 3 && i < 8 ? 2 : 1);
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
}
END_TEST

/* Rings keep no descriptors, so there may be as many as there can be mappings. Not under sanitizers, which map memory
 * too. */
START_TEST(no_mapping_is_left)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return;
#endif
#endif
    enum { MOST = 40000 };
    static vmk_ring rings[MOST];
    uint64_t mappings = vmk_capabilities()->max_mappings;
    if (mappings == 0 || mappings > 2 * (MOST - 100))
        return;
    vmk_view view = alone(20 * page), later = alone(20 * page);
    vmk_snapshot snapshot, other;
    memset(view.base, 1, view.size);
    ck_assert_int_eq(vmk_snapshot_take(&snapshot, &view), VMK_OK);
    memset(view.base + page, 2, 7 * page);
    later.base[0] = 3;
    size_t count = 0;
    vmk_status status;
    while ((status = vmk_ring_init(&rings[count], page)) == VMK_OK)
        count++;
    vmk_status taken = vmk_snapshot_take(&other, &later);
    unsigned char kept = later.base[0];
    vmk_status dropped = vmk_snapshot_drop(&snapshot);
    unsigned char written = view.base[page], unwritten = view.base[0];
    for (size_t i = 0; i < count; i++)
        vmk_ring_fini(&rings[i]);
    ck_assert_int_eq(status, VMK_ERR_MAPPINGS);
    ck_assert_uint_gt(count, mappings / 2 - 2000);
    ck_assert(taken == VMK_ERR_MAPPINGS || taken == VMK_OK);
    ck_assert_uint_eq(kept, 3);
    ck_assert(dropped == VMK_OK || dropped == VMK_ERR_MAPPINGS);
    ck_assert(written == 2 && unwritten == 1);
    if (taken == VMK_OK)
        ck_assert_int_eq(vmk_snapshot_drop(&other), VMK_OK);
    if (dropped != VMK_OK)
        ck_assert_int_eq(vmk_snapshot_drop(&snapshot), VMK_OK);
    ck_assert(view.base[page] == 2 && view.base[8 * page] == 1 && later.base[0] == 3);
    vmk_view_unmap(&view);
    vmk_view_unmap(&later);
}
END_TEST

static void set_up(void)
{
    page = vmk_page_size();
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("memory_posix");
    TCase *tests = tcase_create("memory_posix");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_loop_test(tests, each_kind_of_memory, 0, VMKI_POSIX_MEMORIES);
    tcase_add_test(tests, who_gets_the_handles);
    tcase_add_test(tests, what_is_no_memory);
    tcase_add_test(tests, a_child_shares);
    tcase_add_loop_test(tests, each_way_to_find_copies, VMKI_POSIX_COPIED_SCAN, VMKI_POSIX_COPIED_UNKNOWN + 1);
    tcase_add_test(tests, pages_are_shared);
    tcase_add_test(tests, a_limit_on_files);
    tcase_add_test(tests, no_descriptor_is_left);
    tcase_add_test(tests, no_mapping_is_left);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
