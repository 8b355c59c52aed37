/* SPDX-License-Identifier: MIT
 *
 * Services that POSIX systems alone have, and what is done where the best means of one is missing: it is forbidden
 * here.
 */
#include "posix/os_service_private.h"

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

/* --- batches ---------------------------------------------------------------------------------------------------- */

enum { RANGES = 300 };

/* Every second page, of a region whose pages are all written. */
static vmk_region every_second(vmk_run *runs)
{
    vmk_region region = committed(2 * RANGES);
    memset(region.base, 1, region.size);
    for (size_t i = 0; i < RANGES; i++)
        runs[i] = (vmk_run){2 * i * page, page};
    return region;
}

/* By whatever means: memory is given back, what was decommitted faults, and comes back as zero. */
static void batches_work(void)
{
    vmk_run runs[RANGES];
    vmk_region region = every_second(runs);
    size_t resident, done;
    ck_assert_int_eq(vmk_discard_batch(&region, runs, RANGES, &done), VMK_OK);
    ck_assert_uint_eq(done, RANGES);
    if ((vmk_capabilities()->features & VMK_CAP_RESIDENCY) != 0) {
        ck_assert_int_eq(vmk_residency(&region, 0, region.size, NULL, &resident), VMK_OK);
        ck_assert_uint_eq(resident, RANGES * page);
    }
    memset(region.base, 2, region.size);
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, RANGES, &done), VMK_OK);
    ck_assert_uint_eq(done, RANGES);
    support_figures figures;
    ck_assert(!support_system_figures(region.base, region.size, &figures) || figures.resident == region.committed);
    for (size_t i = 0; i < 2 * RANGES; i++)
        ck_assert_int_eq(support_readable(region.base + i * page), i % 2);
    ck_assert_int_eq(vmk_commit(&region, 0, region.size), VMK_OK);
    for (size_t i = 0; i < 2 * RANGES; i++) {
        ck_assert_uint_eq(region.base[i * page], i % 2 != 0 ? 2 : 0);
        region.base[i * page] = 3;
    }
    vmk_release(&region);
}

START_TEST(batches_by_each_means)
{
    static const vmki_posix_batch methods[] = {VMKI_POSIX_BATCH_UNDECIDED, VMKI_POSIX_BATCH_PIDFD,
                                               VMKI_POSIX_BATCH_NONE};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        vmki_posix_batch_force(methods[i]);
        batches_work();
        vmki_posix_guards_forbid(true);
        batches_work();
        vmki_posix_guards_forbid(false);
        vmki_posix_decommit_force(VMKI_POSIX_DECOMMIT_REMAP);
        batches_work();
        vmki_posix_decommit_force(VMKI_POSIX_DECOMMIT_UNDECIDED);
    }
    vmki_posix_batch_force(VMKI_POSIX_BATCH_UNDECIDED);
}
END_TEST

/* Then a page that is only marked would still be counted: it is decommitted as one alone is. */
START_TEST(a_limit_on_data_gets_its_room_back)
{
    struct rlimit before, limited;
    vmk_run runs[RANGES];
    support_figures figures;
    ck_assert_int_eq(getrlimit(RLIMIT_DATA, &before), 0);
    limited = before;
    if (before.rlim_cur == RLIM_INFINITY)
        limited.rlim_cur = RLIM_INFINITY / 2;
    if (setrlimit(RLIMIT_DATA, &limited) != 0)
        return;
    vmk_region region = every_second(runs);
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, RANGES, NULL), VMK_OK);
    ck_assert(!support_system_figures(region.base, region.size, &figures) || figures.committed == region.committed);
    ck_assert_uint_eq(region.marked, 0);
    vmk_release(&region);
    ck_assert_int_eq(setrlimit(RLIMIT_DATA, &before), 0);
}
END_TEST

/* The kernel drops no locked pages: a discard says so, a decommit takes the mapping away instead. */
START_TEST(a_batch_with_a_locked_page)
{
    vmk_run runs[RANGES];
    vmk_region region = every_second(runs);
    size_t done = 77;
    if (syscall(SYS_mlock, region.base + 20 * page, page) == 0) { /* sanitizers' mlock does nothing */
        ck_assert_int_eq(vmk_discard_batch(&region, runs, RANGES, &done), VMK_ERR_UNSUPPORTED);
        ck_assert_uint_eq(done, 10);
        ck_assert_uint_eq(region.base[20 * page], 1);
        ck_assert_int_eq(vmk_decommit_batch(&region, runs, RANGES, &done), VMK_OK);
        ck_assert_uint_eq(done, RANGES);
        ck_assert(!support_readable(region.base + 20 * page) && !support_readable(region.base + 22 * page));
    }
    vmk_release(&region);
}
END_TEST

START_TEST(a_child_finds_batches_done)
{
    vmk_run runs[RANGES];
    vmk_region region = every_second(runs);
    int status;
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, RANGES, NULL), VMK_OK);
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0) { /* and can do its own: a descriptor of its parent would not do */
        bool sound = !support_readable(region.base) && region.base[page] == 1 &&
                     vmk_commit(&region, 0, region.size) == VMK_OK && region.base[0] == 0 &&
                     vmk_decommit_batch(&region, runs, RANGES, NULL) == VMK_OK && !support_readable(region.base);
        _exit(sound ? 7 : 8);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    ck_assert(!support_readable(region.base) && region.base[page] == 1);
    vmk_release(&region);
}
END_TEST

/* --- huge pages ------------------------------------------------------------------------------------------------- */

/* A kernel without PAGEMAP_SCAN tells as much of a region that is a mapping of its own. */
START_TEST(the_report_without_a_scan)
{
    size_t size = vmk_capabilities()->huge_page_size, scanned, read;
    if (size == 0 || size > (size_t)64 << 20 || (vmk_capabilities()->features & VMK_CAP_HUGE_REPORT) == 0)
        return;
    vmk_reserve_options options = {.align = size};
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, 4 * size, &options), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, size, 2 * size), VMK_OK);
    ck_assert_int_eq(vmk_advise(&region, 0, 4 * size, VMK_ADVICE_HUGE), VMK_OK);
    memset(region.base + size, 1, 2 * size);
    ck_assert_int_eq(vmk_huge_report(&region, 0, region.size, &scanned), VMK_OK);
    vmki_posix_huge_scan_forbid(true);
    vmk_status status = vmk_huge_report(&region, 0, region.size, &read);
    if (status == VMK_OK)
        ck_assert_uint_eq(read, scanned);
    else
        ck_assert_int_eq(status, VMK_ERR_UNSUPPORTED);
    vmk_status part = vmk_huge_report(&region, size, size, &read);
    ck_assert_int_eq(part, scanned != 0 || status != VMK_OK ? VMK_ERR_UNSUPPORTED : VMK_OK);
    vmki_posix_huge_scan_forbid(false);
    vmk_release(&region);
}
END_TEST

static vmk_status report_from(const char *text, uintptr_t base, size_t size, size_t *huge)
{
    char name[] = "/tmp/vmkit-smaps-XXXXXX";
    int file = mkstemp(name);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(file);
    vmk_status status = vmki_posix_huge_report_from(name, (const void *)base, size, huge);
    (void)unlink(name);
    return status;
}

START_TEST(reports_of_other_kernels)
{
    static const char text[] = "00400000-00800000 rw-p 00000000 00:00 0 [anon:x]\nSize: 4096 kB\n"
                               "AnonHugePages:      2048 kB\nShmemPmdMapped:        0 kB\nVmFlags: rd wr\n"
                               "00800000-00a00000 rw-p 00000000 00:00 0 \nPrivate_Hugetlb:     2048 kB\n"
                               "00c00000-00d00000 ---p 00000000 00:00 0 \nAnonHugePages:         0 kB\n";
    size_t huge = 77;
    ck_assert_int_eq(report_from(text, 0x400000, 0x600000, &huge), VMK_OK);
    ck_assert_uint_eq(huge, 0x400000);
    ck_assert_int_eq(report_from(text, 0x800000, 0x200000, &huge), VMK_OK);
    ck_assert_uint_eq(huge, 0x200000);
    ck_assert_int_eq(report_from(text, 0xc80000, 0x80000, &huge), VMK_OK); /* in part, but of none */
    ck_assert_uint_eq(huge, 0);
    huge = 77;
    ck_assert_int_eq(report_from(text, 0x600000, 0x400000, &huge), VMK_ERR_UNSUPPORTED); /* in part, of some */
    ck_assert_int_eq(report_from(text, 0x800000, 0x500000, &huge), VMK_ERR_UNSUPPORTED); /* a hole */
    ck_assert_int_eq(report_from("", 0x800000, 0x200000, &huge), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmki_posix_huge_report_from("/nonexistent", &huge, page, &huge), VMK_ERR_UNSUPPORTED);
    ck_assert_uint_eq(huge, 77);
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
    tcase_add_test(tests, batches_by_each_means);
    tcase_add_test(tests, a_limit_on_data_gets_its_room_back);
    tcase_add_test(tests, a_batch_with_a_locked_page);
    tcase_add_test(tests, a_child_finds_batches_done);
    tcase_add_test(tests, the_report_without_a_scan);
    tcase_add_test(tests, reports_of_other_kernels);
    tcase_add_test(tests, the_kernel_shows_advice);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
