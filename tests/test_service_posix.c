/* SPDX-License-Identifier: MIT
 *
 * Services that POSIX systems alone have, and what is done where the best means of one is missing: it is forbidden
 * here.
 */
#include "posix/os_private.h"

#include <stdio.h>
#include <sys/wait.h>

#include "common/vm/vm.h"
#include "support.h"

static size_t page;

static vmk_region committed(size_t pages)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, pages * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, pages * page), VMK_OK);
    return region;
}

static bool advice(vmk_advice which)
{
    return (vmk_capabilities()->advice & 1u << which) != 0;
}

/* --- guards ----------------------------------------------------------------------------------------------------- */

START_TEST(a_hundred_thousand_guards_take_no_mappings)
{
    if ((vmk_capabilities()->features & VMK_CAP_GUARDS) == 0)
        return;
    size_t count = sizeof(void *) == 8 ? 100000 : 20000;
    vmk_region region = committed(2 * count);
    size_t mappings = support_mappings(region.base, region.size);
    for (size_t i = 0; i < count; i++)
        ck_assert_int_eq(vmk_guard_set(&region, 2 * i * page, page), VMK_OK);
    ck_assert_uint_le(support_mappings(region.base, region.size), mappings + 10);
    ck_assert_uint_eq(region.guards_held, 0);
    for (size_t i = 0; i < count; i += 997) {
        ck_assert(!support_readable(region.base + 2 * i * page));
        region.base[(2 * i + 1) * page] = 1;
    }
    ck_assert_int_eq(vmk_guard_clear(&region, 0, region.size), VMK_OK);
    region.base[0] = 1;
    vmk_release(&region);
}
END_TEST

START_TEST(guards_without_marks)
{
    vmki_posix_guards_forbid(true);
    vmk_region region = committed(6);
    memset(region.base, 1, region.size);
    ck_assert_int_eq(vmk_guard_set(&region, page, 2 * page), VMK_OK);
    ck_assert_uint_eq(region.guards_held, 1);
    ck_assert(support_readable(region.base) && !support_readable(region.base + page));
    ck_assert_int_eq(vmk_decommit(&region, 0, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 2 * page), VMK_OK);
    memset(region.base, 1, 2 * page);
    ck_assert(!support_readable(region.base + 2 * page));
    ck_assert_int_eq(vmk_guard_clear(&region, 0, region.size), VMK_OK);
    memset(region.base, 1, region.size);
    vmk_release(&region);
    vmki_posix_guards_forbid(false);
}
END_TEST

/* As protected pages they would be in the way of the rest of the program before long. */
START_TEST(guards_without_marks_are_bounded)
{
    uint64_t mappings = vmk_capabilities()->max_mappings;
    if (mappings == 0 || mappings > 100000)
        return;
    vmki_posix_guards_forbid(true);
    size_t most = (size_t)mappings / 8, done = 0;
    vmk_region region = committed(2 * most + 2);
    while (done < most + 1 && vmk_guard_set(&region, done * 2 * page, page) == VMK_OK)
        done++;
    ck_assert_uint_eq(done, most);
    vmk_release(&region);
    vmki_posix_guards_forbid(false);
}
END_TEST

START_TEST(prefault_by_touch)
{
    vmki_posix_prefault_forbid(true);
    vmk_region region = committed(100);
    size_t resident = 0;
    region.base[page] = 3;
    ck_assert_int_eq(vmk_prefault(&region, 0, region.size), VMK_OK);
    ck_assert_uint_eq(region.base[page], 3);
    if ((vmk_capabilities()->features & VMK_CAP_RESIDENCY) != 0) {
        ck_assert_int_eq(vmk_residency(&region, 0, region.size, NULL, &resident), VMK_OK);
        ck_assert_uint_eq(resident, region.size);
    }
    vmk_release(&region);
    vmki_posix_prefault_forbid(false);
}
END_TEST

/* The kernel can tell what a touch could only find out by a fault. */
START_TEST(prefault_of_what_may_not_be_written)
{
    if ((vmk_capabilities()->features & VMK_CAP_PREFAULT) == 0)
        return;
    vmk_region region = committed(4);
    ck_assert_int_eq(vmk_protect(&region, page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmk_prefault(&region, 0, region.size), VMK_ERR_ARGUMENT);
    vmk_release(&region);
}
END_TEST

/* --- fork ------------------------------------------------------------------------------------------------------- */

/* What a child finds: bit 0: the first page is 7, bit 1: it is zero, bit 2: it can't be read; and for the guard at the
 * third page, bit 3: it is still one. */
static int seen_by_child(const vmk_region *region)
{
    int status;
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0) {
        bool there = support_readable(region->base);
        _exit((there ? region->base[0] == 7   ? 1
                       : region->base[0] == 0 ? 2
                                              : 0
                     : 4) |
              (support_readable(region->base + 2 * page) ? 0 : 8));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

START_TEST(what_a_child_finds)
{
    vmk_region region = committed(4);
    region.base[0] = 7;
    ck_assert_int_eq(vmk_guard_set(&region, 2 * page, page), VMK_OK);
    ck_assert_int_eq(seen_by_child(&region), 1 | 8);
    if (advice(VMK_ADVICE_WIPE_ON_FORK)) {
        ck_assert_int_eq(vmk_advise(&region, 0, 2 * page, VMK_ADVICE_WIPE_ON_FORK), VMK_OK);
        ck_assert_int_eq(seen_by_child(&region), 2 | 8);
        ck_assert_int_eq(vmk_advise(&region, 0, 2 * page, VMK_ADVICE_KEEP_ON_FORK), VMK_OK);
        ck_assert_int_eq(seen_by_child(&region), 1 | 8);
    }
    if (advice(VMK_ADVICE_NO_FORK)) {
        ck_assert_int_eq(vmk_advise(&region, 0, 2 * page, VMK_ADVICE_NO_FORK), VMK_OK);
        ck_assert_int_eq(seen_by_child(&region), 4 | 8);
        ck_assert_int_eq(vmk_advise(&region, 0, 2 * page, VMK_ADVICE_FORK), VMK_OK);
        ck_assert_int_eq(seen_by_child(&region), 1 | 8);
    }
    ck_assert_uint_eq(region.base[0], 7);
    vmk_release(&region);
}
END_TEST

/* --- what the kernel shows -------------------------------------------------------------------------------------- */

/* Has the mapping that the address lies in this flag, of two letters, in /proc/self/smaps? */
static bool flagged(const void *address, const char *flag)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[512];
    bool ours = false, found = false;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long long from, to;
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            ours = from <= (uintptr_t)address && (uintptr_t)address < to;
        else if (ours && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    if (file != NULL)
        (void)fclose(file);
    return found;
}

START_TEST(the_kernel_shows_advice)
{
    static const struct {
        vmk_advice on, off;
        const char *flag;
    } pairs[] = {{VMK_ADVICE_NO_DUMP, VMK_ADVICE_DUMP, " dd "},
                 {VMK_ADVICE_NO_FORK, VMK_ADVICE_FORK, " dc "},
                 {VMK_ADVICE_WIPE_ON_FORK, VMK_ADVICE_KEEP_ON_FORK, " wf "}};
    vmk_region region = committed(4);
    if (!flagged(region.base, " rd ")) /* no such file, or no such line in it */
        return;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (!advice(pairs[i].on))
            continue;
        ck_assert(!flagged(region.base, pairs[i].flag));
        ck_assert_int_eq(vmk_advise(&region, 0, region.size, pairs[i].on), VMK_OK);
        ck_assert(flagged(region.base, pairs[i].flag));
        ck_assert_int_eq(vmk_advise(&region, 0, region.size, pairs[i].off), VMK_OK);
        ck_assert(!flagged(region.base, pairs[i].flag));
    }
    vmk_release(&region);
}
END_TEST

static void set_up(void)
{
    page = vmk_page_size();
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("service_posix");
    TCase *tests = tcase_create("service_posix");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, a_hundred_thousand_guards_take_no_mappings);
    tcase_add_test(tests, guards_without_marks);
    tcase_add_test(tests, guards_without_marks_are_bounded);
    tcase_add_test(tests, prefault_by_touch);
    tcase_add_test(tests, prefault_of_what_may_not_be_written);
    tcase_add_test(tests, what_a_child_finds);
    tcase_add_test(tests, the_kernel_shows_advice);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
