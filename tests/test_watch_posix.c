/* SPDX-License-Identifier: MIT
 *
 * Write-watch on POSIX systems: fork, the program's own handlers of signals, the program's own static data as a whole,
 * and what is done where the best means is missing: it is forbidden here, or a file stands in for the kernel's.
 */
#include "posix/os_service_private.h"

#include <setjmp.h>
#include <stdio.h>
#include <sys/wait.h>

#include "common/vm/watch.h"
#include "support.h"

/* A sanitizer's static data is the program's, and its handler of signals writes there before ours is asked; and it
 * can't live without mappings. */
#if defined(__SANITIZE_ADDRESS__) || defined(VMKI_POSIX_TSAN)
#define WITH_SANITIZER true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_SANITIZER true
#endif
#endif
#if !defined(WITH_SANITIZER)
#define WITH_SANITIZER false
#endif

enum { PAGES = 64, KINDS = VMK_WATCH_KINDS };

static size_t page;
static vmk_region region;
static vmk_watch watch;

static bool able(int kind)
{
    return (kind == VMK_WATCH_USERFAULT || kind == VMK_WATCH_PROTECT) && (vmk_capabilities()->watch & 1u << kind) != 0;
}

static void start(int kind)
{
    vmk_watch_options options = {.kind = (vmk_watch_kind)kind};
    ck_assert_int_eq(vmk_reserve(&region, PAGES * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, PAGES * page), VMK_OK);
    memset(region.base, 1, region.size);
    ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, region.size, &options), VMK_OK);
}

static void end(void)
{
    vmk_watch_stop(&watch);
    memset(region.base, 2, region.size);
    vmk_release(&region);
}

/* Pages that are reported, of PAGES; SIZE_MAX: it failed. *bits: which. */
static size_t collected(uint64_t *bits)
{
    size_t written;
    *bits = 0;
    return vmk_watch_collect_bits(&watch, 0, PAGES * page, bits, &written) == VMK_OK ? written : SIZE_MAX;
}

/* --- fork ------------------------------------------------------------------------------------------------------- */

static int in_child(int (*body)(void))
{
    int status;
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0)
        _exit(body());
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* A little room, so that it takes more calls until all is reported once. */
static int child_collects(void)
{
    vmk_run runs[1];
    size_t count, done, pages = 0;
    uint64_t bits;
    region.base[7 * page] = 9;
    for (size_t at = 0; at < PAGES * page; at += done) {
        if (vmk_watch_collect(&watch, at, PAGES * page - at, runs, 1, &count, &done) != VMK_OK)
            return 1;
        pages += count != 0 ? runs[0].size / page : 0;
        region.base[0] = 3; /* while the rest has not been reported yet */
    }
    if (pages != PAGES || collected(&bits) == SIZE_MAX || (bits & 1) == 0)
        return 2;
    if (collected(&bits) != 0)
        return 3;
    region.base[20 * page] = region.base[59 * page] = 4;
    if (collected(&bits) > 2 * watch.unit / page || (bits >> 20 & 1) == 0 || (bits >> 59 & 1) == 0)
        return 4;
    vmk_watch_stop(&watch);
    memset(region.base, 5, region.size);
    return 0;
}

static int child_stops(void)
{
    region.base[0] = 1;
    vmk_watch_stop(&watch);
    memset(region.base, 5, region.size);
    vmk_release(&region);
    return 0;
}

static int grandchild(void)
{
    uint64_t bits;
    return collected(&bits) == PAGES && collected(&bits) == 0 ? in_child(child_collects) : 5;
}

START_TEST(a_child_is_told_of_all_once)
{
    int (*const bodies[])(void) = {child_collects, child_stops, grandchild};
    uint64_t bits;
    if (!able(_i))
        return;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        start(_i);
        region.base[10 * page] = 2;
        ck_assert_int_eq(in_child(bodies[i]), 0);
        region.base[50 * page] = 2;
        ck_assert_uint_le(collected(&bits), 2 * watch.unit / page); /* the parent's own writes, and no others */
        ck_assert((bits >> 10 & 1) == 1 && (bits >> 50 & 1) == 1);
        ck_assert_uint_eq(collected(&bits), 0);
        region.base[30 * page] = 2;
        ck_assert(collected(&bits) != 0 && (bits >> 30 & 1) == 1);
        end();
    }
}
END_TEST

/* The parent stops while a child has its descriptors: its memory is not watched any more, and can be watched anew. */
START_TEST(a_parent_stops_while_a_child_lives)
{
    int ends[2], status;
    char byte = 0;
    uint64_t bits;
    if (!able(_i))
        return;
    start(_i);
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0) {
        (void)close(ends[1]);
        _exit(read(ends[0], &byte, 1) == 0 && collected(&bits) == PAGES ? 0 : 1);
    }
    (void)close(ends[0]);
    vmk_watch_stop(&watch);
    vmk_watch_options options = {.kind = (vmk_watch_kind)_i};
    ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, region.size, &options), VMK_OK);
    region.base[3 * page] = 2;
    ck_assert(collected(&bits) != 0 && (bits >> 3 & 1) == 1);
    end();
    (void)close(ends[1]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

/* --- writes by the kernel ---------------------------------------------------------------------------------------- */

START_TEST(read_into_what_is_watched)
{
    int ends[2];
    uint64_t bits;
    if (!able(_i))
        return;
    start(_i);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "abc", 3), 3);
    long got = syscall(SYS_read, ends[0], region.base + 33 * page, (size_t)3); /* past the sanitizers */
    if (_i == VMK_WATCH_USERFAULT) {
        ck_assert_int_eq(got, 3);
        ck_assert(collected(&bits) == 1 && bits == (uint64_t)1 << 33);
    } else {
        ck_assert(got == -1 && errno == EFAULT);
        region.base[33 * page] = 1; /* as its documentation says: touch it first */
        ck_assert_int_eq(syscall(SYS_read, ends[0], region.base + 33 * page, (size_t)3), 3);
        ck_assert(collected(&bits) != 0 && (bits >> 33 & 1) == 1);
    }
    ck_assert_int_eq(memcmp(region.base + 33 * page, "abc", 3), 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
    end();
}
END_TEST

/* --- the program's own handlers, in children ---------------------------------------------------------------------- */

static volatile sig_atomic_t heard;
static sigjmp_buf after;

static void leave(int signal)
{
    (void)signal;
    heard++;
    siglongjmp(after, 1);
}

static void leave_with_info(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (signal == SIGSEGV && info->si_addr == (void *)region.base)
        heard++;
    siglongjmp(after, 1);
}

/* Writes to what is watched itself. */
static void write_and_leave(int signal)
{
    (void)signal;
    region.base[40 * page] = 77;
    heard++;
    siglongjmp(after, 1);
}

static void ask_first(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (vmk_watch_fault(info->si_addr))
        return;
    leave(signal);
}

static void install(void (*plain)(int), void (*with_info)(int, siginfo_t *, void *))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    if (with_info != NULL)
        action.sa_sigaction = with_info;
    else
        action.sa_handler = plain;
    action.sa_flags = with_info != NULL ? SA_SIGINFO : 0;
    (void)sigaction(SIGSEGV, &action, NULL);
}

/* Faults that aren't the watch's arrive, as often as they happen, and writes to what is watched still work. */
static int faults_arrive(void)
{
    uint64_t bits;
    if (vmk_protect(&region, 0, page, VMK_ACCESS_NONE) != VMK_OK)
        return 3;
    for (int i = 1; i <= 3; i++) {
        if (sigsetjmp(after, 1) == 0)
            *(volatile unsigned char *)region.base = 1;
        if (heard != i)
            return 4;
        region.base[20 * page] = 1;
        if (collected(&bits) == 0 || (bits >> 20 & 1) == 0)
            return 5;
    }
    return 0;
}

static int one_before(void)
{
    install(leave, NULL);
    start(VMK_WATCH_PROTECT);
    return faults_arrive();
}

static int one_with_info_before(void)
{
    install(NULL, leave_with_info);
    start(VMK_WATCH_PROTECT);
    return faults_arrive();
}

static int one_that_writes(void)
{
    install(write_and_leave, NULL);
    start(VMK_WATCH_PROTECT);
    int result = faults_arrive();
    return result != 0 || region.base[40 * page] == 77 ? result : 6;
}

static int one_after(void)
{
    start(VMK_WATCH_PROTECT);
    install(NULL, ask_first);
    return faults_arrive();
}

static int none(void)
{
    install(SIG_DFL, NULL);
    start(VMK_WATCH_PROTECT);
    return faults_arrive();
}

static int ignored(void)
{
    install(SIG_IGN, NULL);
    start(VMK_WATCH_PROTECT);
    (void)raise(SIGSEGV); /* nothing happens; a fault can't be ignored */
    return faults_arrive();
}

static int sent(void)
{
    install(SIG_DFL, NULL);
    start(VMK_WATCH_PROTECT);
    region.base[0] = 1;
    (void)raise(SIGSEGV);
    return 7;
}

static int read_of_nothing(void)
{
    install(SIG_DFL, NULL);
    start(VMK_WATCH_PROTECT);
    volatile unsigned char *volatile nowhere = (unsigned char *)(uintptr_t)64;
    return *nowhere + 8;
}

/* --- no mappings left, in a child --------------------------------------------------------------------------------- */

enum { MORE_THAN_ALLOWED = 200000 };

static unsigned char *filler;

/* Take all mappings that there are; 0: that is more than we can. */
static size_t use_up(void)
{
    size_t taken = 0;
    filler = mmap(NULL, MORE_THAN_ALLOWED * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (filler == MAP_FAILED)
        return 0;
    while (2 * taken + 1 < MORE_THAN_ALLOWED && mprotect(filler + (2 * taken + 1) * page, page, PROT_READ) == 0)
        taken++;
    return 2 * taken + 1 < MORE_THAN_ALLOWED ? taken : 0;
}

/* The handler, which can't open a piece then, opens all; a collect that can't protect a piece says so, and what it was
 * to report is reported by the next. */
static int no_mappings(void)
{
    uint64_t mappings = vmk_capabilities()->max_mappings, bits = 0;
    size_t written, unit = 65536;
    if (mappings == 0 || mappings > MORE_THAN_ALLOWED / 2 || WITH_SANITIZER)
        return 0;
    if (vmk_reserve(&region, PAGES * unit, NULL) != VMK_OK || vmk_commit(&region, 0, region.size) != VMK_OK)
        return 1;
    vmk_watch_options options = {.kind = VMK_WATCH_PROTECT};
    if (vmk_watch_start(&watch, &region, 0, region.size, &options) != VMK_OK)
        return 2;
    if (use_up() == 0)
        return 0;
    region.base[10 * unit] = 1;
    if (vmk_watch_collect_bits(&watch, 20 * unit, page, &bits, &written) != VMK_ERR_MAPPINGS || written != 0)
        return 3;
    if (munmap(filler, MORE_THAN_ALLOWED * page) != 0)
        return 4;
    if (vmk_watch_collect_bits(&watch, 20 * unit, page, &bits, &written) != VMK_OK || written != 1 || bits != 1)
        return 5;
    bits = 0;
    if (vmk_watch_collect_bits(&watch, 10 * unit, page, &bits, &written) != VMK_OK || written != 1 || bits != 1)
        return 6;
    vmk_watch_stop(&watch);
    vmk_release(&region);
    return 0;
}

static const struct {
    const char *name;
    int (*body)(void);
    bool dies;
} programs[] = {
    {"one-before", one_before, false},
    {"one-with-info-before", one_with_info_before, false},
    {"one-that-writes", one_that_writes, false},
    {"one-after", one_after, false},
    {"none", none, true},
    {"ignored", ignored, true},
    {"sent", sent, true},
    {"read-of-nothing", read_of_nothing, true},
    {"no-mappings", no_mappings, false},
};
enum { PROGRAMS = sizeof programs / sizeof programs[0] };

static int child(int argc, char **argv)
{
    page = vmk_page_size();
    for (size_t i = 0; i < PROGRAMS && argc > 0; i++)
        if (strcmp(argv[0], programs[i].name) == 0)
            return programs[i].body();
    return 70;
}

START_TEST(own_handlers)
{
    char output[4096];
    const char *arguments[] = {programs[_i].name, NULL};
    support_end ended = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(ended.crashed == programs[_i].dies && ended.code == 0, "%s: crashed %d, code %d, %s",
                  programs[_i].name, ended.crashed, ended.code, output);
}
END_TEST

/* --- other means -------------------------------------------------------------------------------------------------- */

START_TEST(the_best_without_userfault)
{
    uint64_t bits;
    vmki_posix_userfault_forbid(true);
    start(VMK_WATCH_BEST);
    ck_assert_int_eq(watch.kind, VMK_WATCH_PROTECT);
    region.base[5 * page] = 2;
    ck_assert(collected(&bits) != 0 && (bits >> 5 & 1) == 1);
    end();
    vmki_posix_userfault_forbid(false);
}
END_TEST

/* Where decommit maps anew the registration is lost with the old mapping. */
START_TEST(decommit_by_mapping)
{
    vmki_posix_decommit before = vmki_posix_decommit_method();
    uint64_t bits;
    if (!able(_i))
        return;
    vmki_posix_decommit_force(VMKI_POSIX_DECOMMIT_REMAP);
    start(_i);
    for (int round = 0; round < 3; round++) {
        ck_assert_int_eq(vmk_decommit(&region, 8 * page, 8 * page), VMK_OK);
        region.base[40 * page] = 2;
        size_t first = collected(&bits);
        ck_assert(first != SIZE_MAX && (bits >> 40 & 1) == 1 && (bits >> 8 & 0xff) == 0);
        ck_assert_int_eq(vmk_commit(&region, 8 * page, 8 * page), VMK_OK);
        ck_assert(collected(&bits) == 8 && bits == (uint64_t)0xff << 8);
        ck_assert_uint_eq(collected(&bits), 0);
        region.base[9 * page] = 2;
        ck_assert(collected(&bits) != 0 && (bits >> 9 & 1) == 1);
    }
    end();
    vmki_posix_decommit_force(before);
}
END_TEST

/* --- soft-dirty bits, from a file of our own -----------------------------------------------------------------------
 */

static const char fake_pagemap[] = "vmkit-test-pagemap.tmp", fake_clear[] = "vmkit-test-clear.tmp";

static void fake_entry(size_t i, bool dirty)
{
    uint64_t entry = (uint64_t)1 << 63 | (dirty ? (uint64_t)1 << 55 : 0) | i;
    int file = open(fake_pagemap, O_WRONLY);
    off_t at = (off_t)(((uintptr_t)region.base / page + i) * sizeof entry);
    ck_assert(file >= 0 && pwrite(file, &entry, sizeof entry, at) == sizeof entry);
    (void)close(file);
}

static void fake_file(const char *name)
{
    FILE *file = fopen(name, "wb");
    ck_assert_ptr_nonnull(file);
    fclose(file);
}

static void fake_clean(void)
{
    for (size_t i = 0; i < PAGES; i++)
        fake_entry(i, false);
}

START_TEST(soft_dirty_bits)
{
    vmk_watch other;
    vmk_watch_options options = {.kind = VMK_WATCH_SOFT_DIRTY};
    vmk_run runs[2];
    size_t count, done;
    uint64_t bits = 0;
    char text[8] = "";
    fake_file(fake_pagemap);
    fake_file(fake_clear);
    ck_assert((vmk_capabilities()->watch & 1u << VMK_WATCH_SOFT_DIRTY) != 0); /* see main */
    ck_assert_int_eq(vmk_reserve(&region, PAGES * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, PAGES * page), VMK_OK);
    fake_clean();
    for (size_t i = 0; i < PAGES; i++)
        fake_entry(i, true);
    ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, 40 * page, &options), VMK_OK);
    ck_assert_int_eq(vmk_watch_start(&other, &region, 40 * page, 24 * page, &options), VMK_OK);
    fake_clean();
    /* What the start of the second has found in the first is the first's to report. */
    ck_assert_int_eq(vmk_watch_collect(&watch, 0, 40 * page, runs, 2, &count, &done), VMK_OK);
    ck_assert(count == 1 && runs[0].offset == 0 && runs[0].size == 40 * page);
    ck_assert(vmki_posix_read_text(fake_clear, text, sizeof text) && strcmp(text, "4") == 0);
    fake_entry(3, true);
    fake_entry(4, true);
    fake_entry(20, true);
    fake_entry(39, true);
    fake_entry(41, true);
    ck_assert_int_eq(vmk_watch_collect(&watch, 0, 40 * page, runs, 2, &count, &done), VMK_OK);
    fake_clean();
    ck_assert(count == 2 && done == 39 * page);
    ck_assert(runs[0].offset == 3 * page && runs[0].size == 2 * page);
    ck_assert(runs[1].offset == 20 * page && runs[1].size == page);
    ck_assert_int_eq(vmk_watch_collect(&watch, done, 40 * page - done, runs, 2, &count, &done), VMK_OK);
    ck_assert(count == 1 && runs[0].offset == 39 * page);
    ck_assert_int_eq(vmk_watch_collect_bits(&other, 0, 24 * page, &bits, &count), VMK_OK);
    ck_assert(count == 1 && bits == 2);
    ck_assert_int_eq(vmk_watch_collect_bits(&other, 0, 24 * page, &bits, &count), VMK_OK);
    ck_assert_uint_eq(count, 0);
    /* A file that ends too soon, or is gone. */
    ck_assert_int_eq(truncate(fake_pagemap, 0), 0);
    ck_assert_int_eq(vmk_watch_collect_bits(&other, 0, 24 * page, &bits, &count), VMK_ERR_UNSUPPORTED);
    fake_clean();
    ck_assert_int_eq(remove(fake_clear), 0);
    fake_entry(50, true);
    ck_assert_int_eq(vmk_watch_collect_bits(&other, 0, 24 * page, &bits, &count), VMK_ERR_UNSUPPORTED);
    fake_file(fake_clear);
    bits = 0;
    ck_assert_int_eq(vmk_watch_collect_bits(&other, 0, 24 * page, &bits, &count), VMK_OK);
    ck_assert(count == 1 && bits == 1 << 10);
    vmk_watch_stop(&other);
    vmk_watch_stop(&watch);
    vmk_release(&region);
    ck_assert(remove(fake_pagemap) == 0 && remove(fake_clear) == 0);
}
END_TEST

/* --- all static data of the program --------------------------------------------------------------------------------
 */

extern char __data_start[], _end[]; /* the linker's */
static int in_data = 5;
static int in_bss;

START_TEST(all_static_data)
{
    static uint64_t bits[4096]; /* is itself among it */
    uintptr_t low = vmki_floor((uintptr_t)__data_start, page), high = vmki_ceil((uintptr_t)_end, page);
    vmk_watch_options options = {.kind = (vmk_watch_kind)_i};
    size_t written;
    vmk_watch all; /* on the stack, which isn't watched */
    if (!able(_i) || WITH_SANITIZER || (high - low) / page > sizeof bits * 8)
        return;
    ck_assert_int_eq(vmk_watch_start_static(&all, (void *)low, high - low, &options), VMK_OK);
    for (int round = 1; round < 5; round++) {
        in_data++;
        in_bss++;
        start(VMK_WATCH_PROTECT);
        region.base[0] = 1;
        uint64_t inner;
        ck_assert_uint_ne(collected(&inner), 0);
        ck_assert_int_eq(vmk_watch_collect_bits(&all, 0, high - low, bits, &written), VMK_OK);
        size_t data = ((uintptr_t)&in_data - low) / page, bss = ((uintptr_t)&in_bss - low) / page;
        ck_assert((bits[data / 64] >> data % 64 & 1) == 1 && (bits[bss / 64] >> bss % 64 & 1) == 1);
        end();
    }
    vmk_watch_stop(&all);
    ck_assert(in_data == 9 && in_bss == 4);
    in_data = 5;
    in_bss = 0;
}
END_TEST

static void set_up(void)
{
    page = vmk_page_size();
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("watch_posix");
    TCase *tests = tcase_create("watch_posix");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    /* What the system can do is found once, so this comes before. */
    vmki_posix_soft_dirty_files(fake_pagemap, fake_clear);
    tcase_add_loop_test(tests, a_child_is_told_of_all_once, 0, KINDS);
    tcase_add_loop_test(tests, a_parent_stops_while_a_child_lives, 0, KINDS);
    tcase_add_loop_test(tests, read_into_what_is_watched, 0, KINDS);
    tcase_add_loop_test(tests, own_handlers, 0, PROGRAMS);
    tcase_add_test(tests, the_best_without_userfault);
    tcase_add_loop_test(tests, decommit_by_mapping, 0, KINDS);
    tcase_add_test(tests, soft_dirty_bits);
    tcase_add_loop_test(tests, all_static_data, 0, KINDS);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
