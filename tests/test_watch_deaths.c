/* SPDX-License-Identifier: MIT
 *
 * Misuse of a watch ends the program with a message that names it; and while pages are watched by protection, a write
 * that is not the watch's is still the crash that it was. Each is done in a child process, which is this program again.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/compiler.h"
#include "support.h"

static size_t page;
static vmk_region region;
static vmk_watch watch;

/* --- crashes and crimes ----------------------------------------------------------------------------------------- */

static void begin(void)
{
    page = vmk_page_size();
    vmk_watch_options options = {.kind = VMK_WATCH_PROTECT};
    if (vmk_reserve(&region, 64 * page, NULL) != VMK_OK || vmk_commit(&region, 0, 32 * page) != VMK_OK ||
        vmk_watch_start(&watch, &region, 0, 64 * page, &options) != VMK_OK)
        exit(9);
    region.base[3 * page] = 1;
}

static void stop_twice(void)
{
    begin();
    vmk_watch_stop(&watch);
    vmk_watch_stop(&watch);
}

static void stop_none(void)
{
    vmk_watch_stop(&watch);
}

static void collect_none(void)
{
    size_t count;
    VMKI_IGNORE(vmk_watch_collect(&watch, 0, 0, NULL, 1, &count, &count));
}

static void collect_after_stop(void)
{
    begin();
    vmk_watch_stop(&watch);
    VMKI_IGNORE(vmk_watch_collect_bits(&watch, 0, 0, NULL, NULL));
}

static void start_on_none(void)
{
    VMKI_IGNORE(vmk_watch_start(&watch, &region, 0, 4096, NULL));
}

static void release_watched(void)
{
    begin();
    vmk_release(&region);
}

static void write_reserved(void)
{
    begin();
    *(volatile unsigned char *)(region.base + 33 * page) = 1;
}

static void read_reserved(void)
{
    begin();
    exit(*(volatile unsigned char *)(region.base + 33 * page) + 9);
}

static void write_decommitted(void)
{
    begin();
    VMKI_IGNORE(vmk_decommit(&region, 2 * page, page));
    *(volatile unsigned char *)(region.base + 2 * page) = 1;
}

/* The same by a batch. */
static const vmk_run *two_pages(void)
{
    static vmk_run runs[2];
    runs[0] = (vmk_run){2 * page, page};
    runs[1] = (vmk_run){5 * page, page};
    return runs;
}

static void write_decommitted_batch(void)
{
    begin();
    VMKI_IGNORE(vmk_decommit_batch(&region, two_pages(), 2, NULL));
    *(volatile unsigned char *)(region.base + 5 * page) = 1;
}

static void write_protected_batch(void)
{
    begin();
    VMKI_IGNORE(vmk_protect_batch(&region, two_pages(), 2, VMK_ACCESS_READ, NULL));
    *(volatile unsigned char *)(region.base + 5 * page) = 1;
}

static void write_protected(void)
{
    begin();
    VMKI_IGNORE(vmk_protect(&region, 5 * page, page, VMK_ACCESS_READ));
    *(volatile unsigned char *)(region.base + 5 * page) = 1;
}

static void write_elsewhere(void)
{
    begin();
    volatile unsigned char *volatile nowhere = (unsigned char *)(uintptr_t)16;
    *nowhere = 1;
}

/* Where there was a watch until a moment ago writes that fault are tried again, but not for ever. */
static void write_after_stop(void)
{
    begin();
    vmk_watch_stop(&watch);
    VMKI_IGNORE(vmk_protect(&region, 5 * page, page, VMK_ACCESS_READ));
    *(volatile unsigned char *)(region.base + 5 * page) = 1;
}

static const struct crime {
    const char *name;
    void (*commit)(void);
    const char *message; /* NULL: it crashes */
} crimes[] = {
    {"stop-twice", stop_twice, "vmkit: vmk_watch_stop: watch was stopped before"},
    {"stop-none", stop_none, "vmkit: vmk_watch_stop: not a watch"},
    {"collect-none", collect_none, "vmkit: vmk_watch_collect: not a watch"},
    {"collect-after-stop", collect_after_stop, "vmkit: vmk_watch_collect_bits: watch was stopped before"},
    {"start-on-none", start_on_none, "vmkit: vmk_watch_start: not a region"},
    {"release-watched", release_watched, "vmkit: vmk_release: region is still being watched"},
    {"write-reserved", write_reserved, NULL},
    {"read-reserved", read_reserved, NULL},
    {"write-decommitted", write_decommitted, NULL},
    {"write-protected", write_protected, NULL},
    {"write-decommitted-batch", write_decommitted_batch, NULL},
    {"write-protected-batch", write_protected_batch, NULL},
    {"write-elsewhere", write_elsewhere, NULL},
    {"write-after-stop", write_after_stop, NULL},
};
enum { CRIMES = sizeof crimes / sizeof crimes[0] };

static int child(int argc, char **argv)
{
    for (size_t i = 0; i < CRIMES && argc > 0; i++)
        if (strcmp(argv[0], crimes[i].name) == 0) {
            crimes[i].commit();
            return 77; /* survived */
        }
    return 9;
}

START_TEST(crimes_end_the_program)
{
    char output[4096];
    const char *arguments[] = {crimes[_i].name, NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(end.crashed || crimes[_i].message != NULL, "%s: code %d, %s", crimes[_i].name, end.code, output);
    ck_assert_msg(end.code != 77 && end.code != 9, "%s: code %d, %s", crimes[_i].name, end.code, output);
    if (crimes[_i].message != NULL)
        ck_assert_msg(strstr(output, crimes[_i].message) != NULL, "%s: %s", crimes[_i].name, output);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("watch_deaths");
    TCase *tests = tcase_create("watch_deaths");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, crimes_end_the_program, 0, CRIMES);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
