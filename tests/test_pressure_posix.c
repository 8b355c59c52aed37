/* SPDX-License-Identifier: MIT
 *
 * Memory pressure on POSIX systems: what is left and who tells as it is found in trees of /proc and /sys made up in a
 * temporary directory; descriptors; fork. The shapes that cgroups come in are test_limits_posix.c's.
 */
#include "posix/os_service_private.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "made_up_tree.h"
#include "support.h"

#define MIB (UINT64_C(1) << 20)
#define SHORT_OF(bound) (1u << (bound))

/* --- made-up trees ---------------------------------------------------------------------------------------------- */

static const char *get(const char *path)
{
    static char text[256];
    char whole[512];
    path_of(path, whole, sizeof whole);
    FILE *file = fopen(whole, "r");
    ck_assert_ptr_nonnull(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    ck_assert_int_eq(fclose(file), 0);
    return text;
}

static vmk_room look(void)
{
    vmk_room room;
    for (size_t i = 0; i < VMK_BOUNDS; i++)
        room.left[i] = room.bound[i] = VMK_UNLIMITED;
    vmki_posix_room_under(top, &room);
    ck_assert(room.left[VMK_BOUND_ADDRESS_SPACE] == VMK_UNLIMITED && room.left[VMK_BOUND_DATA] == VMK_UNLIMITED);
    return room;
}

static void assert_room(vmk_bound of, uint64_t left, uint64_t bound)
{
    vmk_room room = look();
    ck_assert_uint_eq(room.left[of], left);
    ck_assert_uint_eq(room.bound[of], bound);
}

static void make_v2(void)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", "30 23 0:26 / /cg rw shared:9 - cgroup2 cgroup2 rw\n");
}

static void make_v1(void)
{
    put("/proc/self/cgroup", "4:memory:/a/b\n");
    put("/proc/self/mountinfo", "32 24 0:28 / /cg rw shared:11 - cgroup cgroup rw,memory\n");
}

/* --- what is left ----------------------------------------------------------------------------------------------- */

START_TEST(nothing_there)
{
    for (unsigned i = 0; i < VMK_BOUNDS; i++)
        assert_room((vmk_bound)i, VMK_UNLIMITED, VMK_UNLIMITED);
}
END_TEST

START_TEST(v2_room)
{
    make_v2();
    put("/cg/a/b/memory.max", "8388608\n");
    assert_room(VMK_BOUND_MEMORY, VMK_UNLIMITED, VMK_UNLIMITED); /* what is used is not told */
    put("/cg/a/b/memory.current", "3145728\n");
    assert_room(VMK_BOUND_MEMORY, 5 * MIB, 8 * MIB);
    put("/cg/a/b/memory.stat", "anon 1\ninactive_file_x 7\ninactive_file 1048576\ntotal_inactive_file 5\n");
    assert_room(VMK_BOUND_MEMORY, 6 * MIB, 8 * MIB);
    put("/cg/a/b/memory.current", "9437184\n"); /* above the limit for a moment */
    assert_room(VMK_BOUND_MEMORY, 0, 8 * MIB);
    put("/cg/a/b/memory.stat", "inactive_file 99999999999\n"); /* read at another moment */
    assert_room(VMK_BOUND_MEMORY, 8 * MIB, 8 * MIB);
    put("/cg/a/b/memory.max", "max\n");
    assert_room(VMK_BOUND_MEMORY, VMK_UNLIMITED, VMK_UNLIMITED);
}
END_TEST

START_TEST(v2_room_of_the_ancestors)
{
    make_v2();
    put("/cg/a/b/memory.max", "8388608\n");
    put("/cg/a/b/memory.current", "1048576\n");
    put("/cg/a/memory.max", "16777216\n"); /* more, but neighbours use it */
    put("/cg/a/memory.current", "15728640\n");
    assert_room(VMK_BOUND_MEMORY, MIB, 16 * MIB);
    put("/cg/a/memory.stat", "inactive_file 12582912\n");
    assert_room(VMK_BOUND_MEMORY, 7 * MIB, 8 * MIB);
}
END_TEST

START_TEST(v1_room)
{
    make_v1();
    put("/cg/memory.limit_in_bytes", "9223372036854771712\n");
    put("/cg/memory.usage_in_bytes", "999999999\n");
    put("/cg/a/memory.limit_in_bytes", "4194304\n");
    put("/cg/a/memory.usage_in_bytes", "3145728\n");
    put("/cg/a/memory.stat", "inactive_file 1\ntotal_inactive_file 2097152\n");
    assert_room(VMK_BOUND_MEMORY, 3 * MIB, 4 * MIB);
    put("/cg/a/b/memory.limit_in_bytes", "2097152\n");
    put("/cg/a/b/memory.usage_in_bytes", "1048576\n");
    assert_room(VMK_BOUND_MEMORY, MIB, 2 * MIB);
}
END_TEST

START_TEST(room_of_the_machine)
{
    put("/proc/meminfo", "MemTotal:       4096 kB\nMemFree:  1 kB\nMemAvailable:    1024 kB\nCommitLimit:  2048 kB\n"
                         "Committed_AS:     512 kB\n");
    assert_room(VMK_BOUND_PHYSICAL, MIB, 4 * MIB);
    assert_room(VMK_BOUND_COMMIT, VMK_UNLIMITED, VMK_UNLIMITED);
    put("/proc/sys/vm/overcommit_memory", "0\n");
    assert_room(VMK_BOUND_COMMIT, VMK_UNLIMITED, VMK_UNLIMITED);
    put("/proc/sys/vm/overcommit_memory", "2\n");
    assert_room(VMK_BOUND_COMMIT, MIB + MIB / 2, 2 * MIB);
    put("/proc/meminfo", "MemTotal: 4096 kB\nCommitLimit:  2048 kB\nCommitted_AS:     4096 kB\n");
    assert_room(VMK_BOUND_COMMIT, 0, 2 * MIB);
    assert_room(VMK_BOUND_PHYSICAL, VMK_UNLIMITED, VMK_UNLIMITED);
}
END_TEST

/* --- who tells -------------------------------------------------------------------------------------------------- */

static vmki_os_pressure opened(void)
{
    vmki_os_pressure pressure;
    ck_assert_int_eq(vmki_posix_pressure_open_under(top, &pressure), VMK_OK);
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 0), 0);
    return pressure;
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    for (int i = 0; i < 1000; i++)
        count += fcntl(i, F_GETFD) != -1;
    return count;
}

START_TEST(nobody_tells)
{
    unsigned before = descriptors();
    vmki_os_pressure pressure = opened();
    ck_assert_uint_eq(descriptors(), before + 2);
    vmki_os_pressure_wake(&pressure); /* before the wait, and more than once */
    vmki_os_pressure_wake(&pressure);
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 3600000), 0);
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 1), 0);
    for (int i = 0; i < 100000; i++) /* a pipe that is full */
        vmki_os_pressure_wake(&pressure);
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, UINT_MAX), 0);
    vmki_os_pressure_close(&pressure);
    ck_assert_uint_eq(descriptors(), before);
}
END_TEST

#if defined(__linux__)

START_TEST(v2_events)
{
    unsigned before = descriptors();
    make_v2();
    put("/cg/a/b/memory.events", "low 0\nhigh 0\nmax 0\n");
    put("/cg/a/memory.events", "low 0\nhigh 0\nmax 0\n");
    put("/cg/a/b/memory.pressure", "");
    put("/proc/pressure/memory", "untouched");
    vmki_os_pressure pressure = opened();
    ck_assert_str_eq(get("/cg/a/b/memory.pressure"), "some 300000 2000000\n");
    ck_assert_str_eq(get("/proc/pressure/memory"), "untouched");
    put("/cg/a/b/memory.events", "low 0\nhigh 0\nmax 1\n");
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 3600000), SHORT_OF(VMK_BOUND_MEMORY));
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 0), 0);
    for (int i = 0; i < 100; i++) /* of a limit further up, and more than fits into one reading */
        put("/cg/a/memory.events", "low 0\nhigh 0\nmax 1\n"), put("/cg/a/b/memory.events", "");
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 3600000), SHORT_OF(VMK_BOUND_MEMORY));
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 0), 0);
    remove_top(); /* the cgroup is gone: that says nothing, and ends no wait */
    make_top();
    while (vmki_os_pressure_wait(&pressure, 0) != 0)
        continue;
    vmki_os_pressure_close(&pressure);
    ck_assert_uint_eq(descriptors(), before);
}
END_TEST

/* Without the memory controller in the own cgroup its stalls are not looked for there. */
START_TEST(stalls_of_the_system)
{
    make_v2();
    put("/cg/a/b/memory.pressure", "untouched");
    put("/proc/pressure/memory", "");
    vmki_os_pressure pressure = opened();
    ck_assert_str_eq(get("/cg/a/b/memory.pressure"), "untouched");
    ck_assert_str_eq(get("/proc/pressure/memory"), "some 300000 2000000\n");
    vmki_os_pressure_close(&pressure);
}
END_TEST

START_TEST(v1_events)
{
    unsigned before = descriptors();
    make_v1();
    put("/cg/memory.limit_in_bytes", "9223372036854771712\n");
    put("/cg/cgroup.event_control", "untouched");
    put("/cg/memory.pressure_level", "");
    put("/cg/a/memory.limit_in_bytes", "4194304\n");
    put("/cg/a/cgroup.event_control", "");
    put("/cg/a/memory.pressure_level", "");
    vmki_os_pressure pressure = opened();
    int eventfd, level;
    ck_assert_str_eq(get("/cg/cgroup.event_control"), "untouched");
    ck_assert_int_eq(sscanf(get("/cg/a/cgroup.event_control"), "%d %d medium", &eventfd, &level), 2);
    uint64_t one = 1;
    ck_assert_int_eq(write(eventfd, &one, sizeof one), sizeof one);
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 3600000), SHORT_OF(VMK_BOUND_MEMORY));
    ck_assert_uint_eq(vmki_os_pressure_wait(&pressure, 0), 0);
    vmki_os_pressure_close(&pressure);
    ck_assert_uint_eq(descriptors(), before);
}
END_TEST

/* The kernel takes the order for stalls, from whoever may write the file. */
START_TEST(real_stalls)
{
    if (access("/proc/pressure/memory", W_OK) != 0)
        return;
    vmki_os_pressure pressure;
    unsigned before = descriptors();
    int file = open("/proc/pressure/memory", O_RDWR | O_CLOEXEC);
    bool taken = file >= 0 && write(file, "some 300000 2000000", 20) == 20;
    ck_assert_int_eq(vmki_posix_pressure_open_under("", &pressure), VMK_OK);
    ck_assert_uint_ge(descriptors(), before + 2 + (file >= 0) + taken);
    vmki_os_pressure_close(&pressure);
    if (file >= 0)
        (void)close(file);
    ck_assert_uint_eq(descriptors(), before);
}
END_TEST

/* What is there and can't be used: an order that is refused, files that can't be opened. */
START_TEST(nothing_that_can_be_used)
{
    unsigned before = descriptors();
    make_v1();
    put("/cg/a/memory.limit_in_bytes", "4194304\n");
    put("/cg/a/memory.pressure_level/directory", "");
    put("/cg/a/cgroup.event_control/directory", "");
    put("/proc/pressure/memory/directory", "");
    vmki_os_pressure pressure = opened();
    ck_assert_uint_eq(descriptors(), before + 2);
    vmki_os_pressure_close(&pressure);
    ck_assert_uint_eq(descriptors(), before);
}
END_TEST

#endif

/* --- the thread: descriptors and fork --------------------------------------------------------------------------- */

typedef struct record {
    uintptr_t count;
    vmk_pressure *pressure;
    int child_status;
} record;

static void count(const vmk_pressure_event *event, void *context)
{
    record *r = context;
    (void)event;
    (void)__atomic_fetch_add(&r->count, 1, __ATOMIC_SEQ_CST);
}

static vmk_pressure_options all_is_low(record *r, vmk_pressure_callback *callback)
{
    return (vmk_pressure_options){.callback = callback, .context = r, .low = UINT64_MAX - 1, .milliseconds = 1};
}

static void wait_for_events(const record *r)
{
    while (VMKI_LOAD_ACQUIRE(&r->count) == 0)
        support_yield();
}

static bool knows_any_bound(void)
{
    vmk_room room;
    vmk_room_now(&room);
    for (size_t i = 0; i < VMK_BOUNDS; i++)
        if (room.bound[i] != VMK_UNLIMITED)
            return true;
    return false;
}

START_TEST(rounds_keep_no_descriptors)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_pressure_options options = all_is_low(&r, count);
    unsigned before = descriptors();
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
        vmk_pressure_stop(&pressure);
        ck_assert_uint_eq(descriptors(), before);
    }
}
END_TEST

/* In a child: end what the parent has, which has no thread here, and have one of its own (ThreadSanitizer allows none
 * in a child of a program with threads). 0: all is well. */
static int stop_and_start_anew(vmk_pressure *pressure)
{
    record r = {.count = 0};
    vmk_pressure_options options = all_is_low(&r, count);
    alarm(60);
    unsigned before = descriptors();
    vmk_pressure_stop(pressure);
    if (descriptors() >= before)
        return 1;
#if defined(VMKI_POSIX_TSAN)
    return 0;
#endif
    if (vmk_pressure_start(pressure, &options) != VMK_OK)
        return 2;
    wait_for_events(&r);
    vmk_pressure_stop(pressure);
    return descriptors() < before ? 0 : 3;
}

static int status_of(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

START_TEST(a_child_stops_and_starts_anew)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_pressure_options options = all_is_low(&r, count);
    if (!knows_any_bound())
        return;
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0)
        _exit(stop_and_start_anew(&pressure));
    ck_assert_int_eq(status_of(child), 0);
    wait_for_events(&r); /* the parent's goes on */
    vmk_pressure_stop(&pressure);
}
END_TEST

/* A child that is made in the callback, and one whose callback returns: its only thread ends, and so does it (with what
 * exit code is up to the sanitizers). */
static void fork_in_it(const vmk_pressure_event *event, void *context)
{
    record *r = context;
    (void)event;
    if (VMKI_LOAD_ACQUIRE(&r->count) != 0)
        return;
    pid_t child = fork();
    if (child == 0)
        _exit(stop_and_start_anew(r->pressure));
    r->child_status = child > 0 ? status_of(child) : -1;
    if (r->child_status == 0) {
        child = fork();
        if (child == 0) {
            alarm(60);
            return;
        }
        r->child_status = child > 0 && status_of(child) < 1000 ? 0 : -1;
    }
    (void)__atomic_fetch_add(&r->count, 1, __ATOMIC_SEQ_CST);
}

START_TEST(a_child_of_the_callback)
{
    vmk_pressure pressure;
    record r = {.pressure = &pressure};
    vmk_pressure_options options = all_is_low(&r, fork_in_it);
    if (!knows_any_bound())
        return;
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
    wait_for_events(&r);
    vmk_pressure_stop(&pressure);
    ck_assert_int_eq(r.child_status, 0);
}
END_TEST

static int start_without_descriptors(void)
{
    record r = {.count = 0};
    vmk_pressure pressure = {.seal = 5};
    vmk_pressure_options options = all_is_low(&r, count);
    struct rlimit few = {3, 3};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0)
        return 9;
    while (dup(0) >= 0)
        continue;
    return vmk_pressure_start(&pressure, &options) == VMK_ERR_COMMIT && errno == EMFILE && pressure.seal == 5 ? 0 : 1;
}

START_TEST(without_descriptors)
{
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0)
        _exit(start_without_descriptors());
    ck_assert_int_eq(status_of(child), 0);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("pressure_posix");
    TCase *files = tcase_create("files"), *threads = tcase_create("threads");
    tcase_add_checked_fixture(files, make_top, remove_top);
    tcase_set_timeout(files, 120);
    tcase_add_test(files, nothing_there);
    tcase_add_test(files, v2_room);
    tcase_add_test(files, v2_room_of_the_ancestors);
    tcase_add_test(files, v1_room);
    tcase_add_test(files, room_of_the_machine);
    tcase_add_test(files, nobody_tells);
#if defined(__linux__)
    tcase_add_test(files, v2_events);
    tcase_add_test(files, stalls_of_the_system);
    tcase_add_test(files, v1_events);
    tcase_add_test(files, real_stalls);
    tcase_add_test(files, nothing_that_can_be_used);
#endif
    tcase_set_timeout(threads, 120);
    tcase_add_test(threads, rounds_keep_no_descriptors);
    tcase_add_test(threads, a_child_stops_and_starts_anew);
    tcase_add_test(threads, a_child_of_the_callback);
    tcase_add_test(threads, without_descriptors);
    suite_add_tcase(suite, files);
    suite_add_tcase(suite, threads);
    return support_main(argc, argv, suite, NULL);
}
