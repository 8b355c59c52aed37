/* SPDX-License-Identifier: MIT
 *
 * Static data of which pages were never touched, or can't be read.
 */
#include "posix/os_world_private.h"

#include <sys/wait.h>

#include "world.h"

/* In steps that are a multiple of every page size. */
enum { STEP = 65536, STEPS = 64 };
enum { AT_ONE = 3, AT_THREE = 10, AT_BEFORE = 40, AT_GUARD, AT_BEHIND, AT_UNTOUCHED = 50 };

static _Alignas(STEP) volatile unsigned char sparse[STEPS * STEP];

/* What was visited of each step, in how many calls that had some of it. */
typedef struct sparse_visit {
    uintptr_t hidden;
    unsigned found, calls[STEPS];
    size_t visited[STEPS];
} sparse_visit;

static uintptr_t step_at(size_t i)
{
    return (uintptr_t)&sparse[i * STEP];
}

WORLD_UNWATCHED static void note_sparse(void *context, const void *base, size_t size)
{
    sparse_visit *v = context;
    uintptr_t low = (uintptr_t)base, high = low + size;
    for (size_t i = 0; i < STEPS; i++) {
        uintptr_t from = vmki_max(low, step_at(i)), until = vmki_min(high, step_at(i) + STEP);
        if (from >= until)
            continue;
        v->calls[i]++;
        v->visited[i] += until - from;
        for (uintptr_t at = from; at < until; at += sizeof(uintptr_t))
            v->found += ~*(const volatile uintptr_t *)at == v->hidden;
    }
}

static void sparse_search(sparse_visit *v, uintptr_t hidden)
{
    *v = (sparse_visit){.hidden = hidden};
    vmki_os_static_data(note_sparse, v);
}

static void sparse_put(size_t i, uintptr_t word)
{
    *(volatile uintptr_t *)(step_at(i) + 512) = word;
}

static bool sparse_protect(size_t i, int protection)
{
    return mprotect((void *)step_at(i), STEP, protection) == 0;
}

/* As if none had ever been touched. */
static void sparse_reset(void)
{
#if defined(MADV_NOHUGEPAGE)
    (void)madvise((void *)step_at(0), sizeof sparse, MADV_NOHUGEPAGE);
#endif
#if defined(MADV_DONTNEED)
    (void)madvise((void *)step_at(0), sizeof sparse, MADV_DONTNEED);
#endif
}

/* Does the system tell, with so much forbidden? */
static bool told(unsigned forbidden)
{
    return (vmki_posix_roots_forbid(forbidden) & (VMKI_POSIX_BY_SCAN | VMKI_POSIX_BY_ENTRIES)) != 0;
}

/* By whichever means it is found out. */
START_TEST(untouched_pages)
{
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    size_t page = vmk_capabilities()->page_size;
    bool known = told((unsigned)_i);
    sparse_visit v;
    sparse_reset();
    sparse_put(AT_ONE, ~hidden);
    memset((void *)step_at(AT_THREE), 1, (size_t)3 * STEP);
    for (size_t i = AT_BEFORE; i <= AT_BEHIND; i++)
        sparse_put(i, ~hidden);
    ck_assert(sparse_protect(AT_GUARD, PROT_NONE));
    sparse_search(&v, hidden);
    ck_assert(sparse_protect(AT_GUARD, PROT_READ | PROT_WRITE));
    ck_assert_uint_eq(v.found, 3);
    ck_assert_uint_eq(v.calls[AT_GUARD], 0);
    ck_assert_uint_eq(v.visited[AT_UNTOUCHED], known ? 0 : STEP);
    ck_assert_uint_eq(v.visited[AT_ONE], known ? page : STEP);
    for (size_t i = AT_THREE; i < AT_THREE + 3; i++)
        ck_assert(v.visited[i] == STEP && v.calls[i] == 1);
    sparse_search(&v, hidden);
    ck_assert_uint_eq(v.found, 4);
    (void)vmki_posix_roots_forbid(0);
    sparse_reset();
}
END_TEST

/* That what the system tells is made use of. */
START_TEST(means_are_found)
{
    unsigned means = vmki_posix_roots_forbid(0);
    unsigned char one = 1, other = 0;
    struct iovec from = {&one, 1};
    if (vmki_posix_gather(&from, 1, &other) == 1) {
        ck_assert_uint_eq(other, 1);
        ck_assert_uint_ne(means & VMKI_POSIX_IN_BATCHES, 0);
    }
    size_t page = vmk_capabilities()->page_size;
    uint64_t entries[2] = {0};
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    sparse_reset();
    sparse[0] = 1;
    if (file >= 0 && pread(file, entries, sizeof entries, (off_t)(step_at(0) / page * 8)) == sizeof entries &&
        entries[0] >> 63 == 1 && entries[1] >> 62 == 0)
        ck_assert_uint_ne(means & VMKI_POSIX_BY_ENTRIES, 0);
    if (file >= 0)
        (void)close(file);
    sparse_reset();
}
END_TEST

/* Where there is disk space for it. */
START_TEST(pages_on_disk)
{
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    sparse_visit v;
    (void)told((unsigned)_i);
    sparse_reset();
    sparse_put(AT_ONE, ~hidden);
#if defined(MADV_PAGEOUT)
    (void)madvise((void *)step_at(0), sizeof sparse, MADV_PAGEOUT);
#endif
    sparse_search(&v, hidden);
    ck_assert_uint_eq(v.found, 1);
    (void)vmki_posix_roots_forbid(0);
    sparse_reset();
}
END_TEST

START_TEST(no_descriptor_left)
{
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    struct rlimit before, none;
    sparse_visit v;
    sparse_reset();
    sparse_put(AT_ONE, ~hidden);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    errno = 4711;
    sparse_search(&v, hidden);
    int error = errno;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(error, 4711);
    ck_assert_uint_eq(v.found, 1);
    ck_assert_uint_eq(v.visited[AT_UNTOUCHED], STEP);
    sparse_reset();
}
END_TEST

/* In a child: what it inherits, and what it touches itself, which its parent has not. */
static int search_in_child(uintptr_t hidden)
{
    sparse_visit v;
    sparse_search(&v, hidden);
    if (v.found != 1)
        return 3;
    sparse_put(AT_BEHIND, ~hidden);
    sparse_put(AT_GUARD, ~hidden);
    if (!sparse_protect(AT_GUARD, PROT_NONE))
        return 4;
    sparse_search(&v, hidden);
    if (v.found != 2 || v.calls[AT_GUARD] != 0)
        return 5;
    return told(0) && v.visited[AT_UNTOUCHED] != 0 ? 6 : 0;
}

static int wait_for(pid_t child)
{
    int how = 0;
    return waitpid(child, &how, 0) == child && WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

START_TEST(untouched_pages_in_child)
{
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    sparse_visit v;
    sparse_reset();
    sparse_put(AT_ONE, ~hidden);
    sparse_search(&v, hidden);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(search_in_child(hidden));
    ck_assert_int_eq(wait_for(child), 0);
    sparse_search(&v, hidden);
    ck_assert_uint_eq(v.found, 1);
    ck_assert_uint_eq(v.visited[AT_BEHIND], told(0) ? 0 : STEP);
    sparse_reset();
}
END_TEST

/* Of a process whose main thread has ended /proc/self tells nothing. */
static void *search_without_main(void *hidden)
{
    for (int i = 0; i < 1000; i++) {
        uint64_t entry;
        int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        ssize_t got = file >= 0 ? pread(file, &entry, sizeof entry, (off_t)(step_at(0) / 65536 * 8)) : 0;
        if (file >= 0)
            (void)close(file);
        if (got <= 0)
            break;
        (void)usleep(1000);
    }
    _exit(search_in_child(*(uintptr_t *)hidden));
}

START_TEST(main_thread_has_ended)
{
    static uintptr_t hidden;
    hidden = (uintptr_t)vmki_os_random();
    sparse_reset();
    sparse_put(AT_ONE, ~hidden);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        pthread_t other;
        if (pthread_create(&other, NULL, search_without_main, &hidden) != 0)
            _exit(2);
        pthread_exit(NULL);
    }
    ck_assert_int_eq(wait_for(child), 0);
    sparse_reset();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("world_pages_posix");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0);
    tcase_add_loop_test(all, untouched_pages, 0, 8); /* each set of means */
    tcase_add_test(all, means_are_found);
    tcase_add_loop_test(all, pages_on_disk, 0, 8);
    tcase_add_test(all, no_descriptor_left);
    tcase_add_test(all, untouched_pages_in_child);
    if (!WORLD_LATE) /* ThreadSanitizer: threads in a child */
        tcase_add_test(all, main_thread_has_ended);
    suite_add_tcase(s, all);
    return s;
}

int main(int argc, char **argv)
{
    if (vmki_os_world_init(world_here, world_at_end) != VMK_OK)
        return 1;
    return support_main(argc, argv, suite(), NULL);
}
