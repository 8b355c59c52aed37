/* SPDX-License-Identifier: MIT
 *
 * Executable memory on POSIX systems: what the list of mappings shows at every step, each way to get memory that can be
 * mapped twice, a kernel that forbids one way or all, and fork.
 */
#include "posix/os_service_private.h"

#include <stdio.h>
#include <sys/wait.h>

#include "common/vm/vm.h"
#include "support.h"

static size_t page;

/* What the list of mappings says of the page at an address, as "rwxp"; "" where there is no such list. */
static void access_of(const void *address, char access[5])
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[512];
    access[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long long from, to;
        char shown[5];
        if (sscanf(line, "%llx-%llx %4s", &from, &to, shown) == 3 && from <= (uintptr_t)address &&
            (uintptr_t)address < to)
            memcpy(access, shown, sizeof shown);
    }
    if (file != NULL)
        (void)fclose(file);
}

static void assert_access(const void *address, const char *expected)
{
    char access[5];
    access_of(address, access);
    ck_assert_msg(access[0] == '\0' || strcmp(access, expected) == 0, "%s, not %s", access, expected);
}

START_TEST(no_page_is_writable_and_executable)
{
    vmk_code code;
    ck_assert_int_eq(vmk_code_init(&code, 2 * page, VMK_CODE_FLIP), VMK_OK);
    assert_access(code.base, "---p");
    ck_assert_int_eq(vmk_code_begin(&code, 0, 1), VMK_OK);
    assert_access(code.base, "rw-p");
    assert_access(code.base + page, "---p");
    ck_assert_int_eq(vmk_code_end(&code, 0, 1), VMK_OK);
    assert_access(code.base, "r-xp");
    vmk_code_fini(&code);
    ck_assert_int_eq(vmk_code_init(&code, 2 * page, VMK_CODE_TWICE), VMK_OK);
    assert_access(code.base, "r-xs");
    assert_access(code.write, "---s");
    ck_assert_int_eq(vmk_code_begin(&code, 0, 1), VMK_OK);
    assert_access(code.base, "r-xs");
    assert_access(code.write, "rw-s");
    assert_access(code.write + page, "---s");
    ck_assert_int_eq(vmk_code_end(&code, 0, 1), VMK_OK);
    assert_access(code.base, "r-xs");
    vmk_code_fini(&code);
}
END_TEST

/* --- ways to get memory that can be mapped twice ---------------------------------------------------------------- */

START_TEST(each_way_does)
{
    static const unsigned forbidden[] = {VMKI_POSIX_CODE_SHM, VMKI_POSIX_CODE_MEMFD};
    vmk_code code;
    vmki_posix_code_forbid(forbidden[_i]);
    vmk_status status = vmk_code_init(&code, 3 * page, VMK_CODE_TWICE);
    vmki_posix_code_forbid(0);
    if (_i == 1 && status == VMK_ERR_UNSUPPORTED) /* where /dev/shm is missing or mounted with noexec */
        return;
    ck_assert_int_eq(status, VMK_OK);
    ck_assert_int_eq(vmk_code_begin(&code, page, page), VMK_OK);
    memset(code.write + page, 7, page);
    ck_assert_int_eq(vmk_code_end(&code, page, page), VMK_OK);
    ck_assert_int_eq(code.base[page] + code.base[2 * page - 1] + code.base[2 * page], 14);
    vmk_code_fini(&code);
}
END_TEST

START_TEST(without_a_way_it_is_flipped)
{
    vmk_code code;
    vmki_posix_code_forbid(VMKI_POSIX_CODE_MEMFD | VMKI_POSIX_CODE_SHM);
    ck_assert_int_eq(vmk_code_init(&code, page, VMK_CODE_TWICE), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_code_init(&code, page, 0), VMK_OK);
    vmki_posix_code_forbid(0);
    ck_assert(!code.twice);
    vmk_code_fini(&code);
}
END_TEST

static unsigned descriptors(void)
{
    unsigned count = 0;
    for (int i = 0; i < 1000; i++)
        count += fcntl(i, F_GETFD) != -1;
    return count;
}

START_TEST(no_descriptor_is_kept)
{
    vmk_code code;
    unsigned before = descriptors();
    ck_assert_int_eq(vmk_code_init(&code, page, VMK_CODE_TWICE), VMK_OK);
    ck_assert_uint_eq(descriptors(), before);
    vmk_code_fini(&code);
}
END_TEST

/* --- in a child ------------------------------------------------------------------------------------------------- */

static int in_child(int (*body)(vmk_code *code), vmk_code *code)
{
    int status;
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0)
        _exit(body(code));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int out_of_descriptors(vmk_code *code)
{
    struct rlimit none = {3, 3};
    if (setrlimit(RLIMIT_NOFILE, &none) != 0)
        return 9;
    while (dup(0) >= 0)
        continue;
    if (vmk_code_init(code, page, 0) != VMK_ERR_COMMIT || errno != EMFILE)
        return 1;
    return vmk_code_init(code, page, VMK_CODE_FLIP) == VMK_OK ? 0 : 2;
}

START_TEST(without_descriptors)
{
    vmk_code code;
    ck_assert_int_eq(in_child(out_of_descriptors, &code), 0);
}
END_TEST

#if defined(__linux__)

enum { SET_MDWE = 65, REFUSE_EXEC_GAIN = 1, NOT_HERE = 55 };

/* Linux 6.3 and systemd's MemoryDenyWriteExecute: what was not executable never will be, but new mappings may. */
static int flipping_forbidden(vmk_code *code)
{
    vmk_code live;
    if (vmk_code_init(&live, page, VMK_CODE_FLIP) != VMK_OK || vmk_code_begin(&live, 0, page) != VMK_OK)
        return 1;
    live.write[0] = 5;
    if (prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0)
        return NOT_HERE;
    /* Forbidden by now: still open. */
    if (vmk_code_end(&live, 0, page) != VMK_ERR_UNSUPPORTED || live.write[0]++ != 5)
        return 2;
    vmk_code_fini(&live);
    code->size = 12345;
    size_t mapped_before = support_mappings(NULL, SIZE_MAX);
    for (int i = 0; i < 10; i++)
        if (vmk_code_init(code, page, VMK_CODE_FLIP) != VMK_ERR_UNSUPPORTED || code->size != 12345)
            return 3;
    if (support_mappings(NULL, SIZE_MAX) != mapped_before)
        return 4;
    if (vmk_code_init(code, page, 0) != VMK_OK || !code->twice)
        return 5;
    if (vmk_code_begin(code, 0, page) != VMK_OK)
        return 6;
    code->write[0] = 0xC3;
    if (vmk_code_end(code, 0, page) != VMK_OK || code->base[0] != 0xC3)
        return 7;
    vmk_code_fini(code);
    vmki_posix_code_forbid(VMKI_POSIX_CODE_MEMFD | VMKI_POSIX_CODE_SHM);
    if (vmk_code_init(code, page, 0) != VMK_ERR_UNSUPPORTED)
        return 8;
    vmk_caps caps = {.page_size = page};
    vmki_code_probe(&caps);
    if (caps.features != 0)
        return 9;
    vmki_posix_code_forbid(0);
    vmki_code_probe(&caps);
    return caps.features == VMK_CAP_CODE_TWICE ? 0 : 10;
}

START_TEST(a_kernel_that_forbids_flipping)
{
    vmk_code code;
    int result = in_child(flipping_forbidden, &code);
    ck_assert_msg(result == 0 || result == NOT_HERE, "%d", result);
}
END_TEST

#endif

static int write_in_child(vmk_code *code)
{
    if (vmk_code_begin(code, 0, 1) != VMK_OK)
        return 1;
    code->write[0] = 9;
    return vmk_code_end(code, 0, 1) == VMK_OK && code->base[0] == 9 ? 0 : 2;
}

START_TEST(after_a_fork)
{
    vmk_code code;
    unsigned flags = _i == 0 ? VMK_CODE_FLIP : VMK_CODE_TWICE;
    ck_assert_int_eq(vmk_code_init(&code, page, flags), VMK_OK);
    ck_assert_int_eq(vmk_code_begin(&code, 0, 1), VMK_OK);
    code.write[0] = 5;
    ck_assert_int_eq(vmk_code_end(&code, 0, 1), VMK_OK);
    ck_assert_int_eq(in_child(write_in_child, &code), 0);
    ck_assert_uint_eq(code.base[0], code.twice ? 9 : 5);
    vmk_code_fini(&code);
}
END_TEST

static void set_up(void)
{
    page = vmk_page_size();
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("code_posix");
    TCase *tests = tcase_create("code_posix");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, no_page_is_writable_and_executable);
    tcase_add_loop_test(tests, each_way_does, 0, 2);
    tcase_add_test(tests, without_a_way_it_is_flipped);
    tcase_add_test(tests, no_descriptor_is_kept);
    tcase_add_test(tests, without_descriptors);
#if defined(__linux__)
    tcase_add_test(tests, a_kernel_that_forbids_flipping);
#endif
    tcase_add_loop_test(tests, after_a_fork, 0, 2);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
