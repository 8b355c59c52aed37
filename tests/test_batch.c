/* SPDX-License-Identifier: MIT
 *
 * Batches: many ranges decommitted, discarded, protected by one call, on systems that take many at once and on others,
 * against a model of each page; every call of the system refused in turn.
 */
#include <errno.h>
#include <string.h>

#include "common/base/align.h"
#include "common/vm/vm.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

static size_t page;

static vmk_region committed(size_t pages)
{
    vmk_region region;
    ck_assert_int_eq(vmk_reserve(&region, pages * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, pages * page), VMK_OK);
    for (size_t i = 0; i < pages; i++)
        region.base[i * page] = (unsigned char)(1 + i % 100);
    return region;
}

/* Can't be asked of the model, whose pages are all there. */
static bool faults(const void *address)
{
#if defined(VMKIT_MODEL)
    (void)address;
    return true;
#else
    return !support_readable(address);
#endif
}

static bool is_committed(const vmk_region *region, size_t index)
{
    return vmk_region_query(region, index * page, NULL) == VMK_STATE_COMMITTED;
}

static void range(vmk_run *run, size_t first, size_t count)
{
    *run = (vmk_run){first * page, count * page};
}

/* --- by example ------------------------------------------------------------------------------------------------- */

START_TEST(decommit_of_some)
{
    vmk_region region = committed(20);
    vmk_run runs[6];
    size_t done = 77;
    range(&runs[0], 0, 0);
    range(&runs[1], 1, 2);
    range(&runs[2], 3, 1); /* touches */
    range(&runs[3], 8, 4);
    range(&runs[4], 12, 0);
    range(&runs[5], 19, 1);
    errno = 42;
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, 6, &done), VMK_OK);
    ck_assert_int_eq(errno, 42);
    ck_assert_uint_eq(done, 6);
    ck_assert_uint_eq(region.committed, 12 * page);
    ck_assert(vmki_region_check(&region));
    for (size_t i = 0; i < 20; i++) {
        bool gone = (i >= 1 && i < 4) || (i >= 8 && i < 12) || i == 19;
        ck_assert_int_eq(is_committed(&region, i), !gone);
        ck_assert(gone ? faults(region.base + i * page) : region.base[i * page] == 1 + i);
    }
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, 6, NULL), VMK_OK); /* nothing left */
    ck_assert_int_eq(vmk_commit(&region, 2 * page, 8 * page), VMK_OK);
    for (size_t i = 2; i < 10; i++) {
        ck_assert_uint_eq(region.base[i * page], i >= 4 && i < 8 ? 1 + i : 0);
        memset(region.base + i * page, 9, page);
    }
    ck_assert(faults(region.base + page) && faults(region.base + 10 * page));
    vmk_release(&region);
}
END_TEST

/* What a batch has left is like any reserved page to the calls for one range. */
START_TEST(a_batch_and_other_calls)
{
    vmk_region region = committed(12);
    vmk_run runs[3];
    range(&runs[0], 0, 2);
    range(&runs[1], 4, 2);
    range(&runs[2], 8, 2);
    ck_assert_int_eq(vmk_guard_set(&region, 4 * page, page), VMK_OK);
    ck_assert_int_eq(vmk_protect(&region, 8 * page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, 3, NULL), VMK_OK);
    ck_assert_int_eq(vmk_guard_set(&region, 4 * page, page), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_discard(&region, 0, 12 * page), VMK_OK);
    ck_assert_int_eq(vmk_decommit(&region, page, 6 * page), VMK_OK); /* of both kinds */
    ck_assert_uint_eq(region.committed, 3 * page);
    for (size_t i = 0; i < 12; i++)
        ck_assert(is_committed(&region, i) || faults(region.base + i * page));
    ck_assert_int_eq(vmk_commit(&region, 0, 12 * page), VMK_OK);
    for (size_t i = 0; i < 10; i++) {
        ck_assert(i == 7 || region.base[i * page] == 0);
        memset(region.base + i * page, 5, page); /* neither guards nor protections are left */
    }
    vmk_release(&region);
    region = committed(12); /* and in what comes there, none */
    memset(region.base, 1, region.size);
    vmk_release(&region);
}
END_TEST

START_TEST(many_ranges)
{
    enum { RANGES = 1500 };
    static vmk_run runs[RANGES];
    vmk_region region = committed(2 * RANGES);
    size_t done, mappings = support_mappings(region.base, region.size);
    for (size_t i = 0; i < RANGES; i++)
        range(&runs[i], 2 * i, 1);
    ck_assert_int_eq(vmk_discard_batch(&region, runs, RANGES, &done), VMK_OK);
    ck_assert_uint_eq(done, RANGES);
    ck_assert_uint_eq(region.committed, region.size);
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, RANGES, &done), VMK_OK);
    ck_assert_uint_eq(done, RANGES);
    ck_assert_uint_eq(region.committed, region.size / 2);
#if !defined(VMKIT_MODEL)
    unsigned needed = VMK_CAP_BATCH | VMK_CAP_GUARDS;
    if ((vmk_capabilities()->features & needed) == needed && vmk_capabilities()->overcommit != VMK_OVERCOMMIT_NEVER)
        ck_assert_uint_eq(support_mappings(region.base, region.size), mappings);
#endif
    (void)mappings;
    for (size_t i = 0; i < RANGES; i += 97) {
        ck_assert(faults(region.base + 2 * i * page));
        ck_assert_uint_eq(region.base[(2 * i + 1) * page], 1 + (2 * i + 1) % 100);
    }
    range(&runs[0], 0, 2 * RANGES); /* one range of more runs than a request has room for */
    ck_assert_int_eq(vmk_decommit_batch(&region, runs, 1, &done), VMK_OK);
    ck_assert_uint_eq(region.committed, 0);
    ck_assert_int_eq(vmk_commit(&region, 0, region.size), VMK_OK);
    for (size_t i = 0; i < 2 * RANGES; i++)
        ck_assert_uint_eq(region.base[i * page], 0);
    vmk_release(&region);
}
END_TEST

START_TEST(protect_of_some)
{
    vmk_region region = committed(10);
    vmk_run runs[3];
    size_t done = 77;
    range(&runs[0], 1, 1);
    range(&runs[1], 2, 2);
    range(&runs[2], 7, 1);
    errno = 42;
    ck_assert_int_eq(vmk_protect_batch(&region, runs, 3, VMK_ACCESS_NONE, &done), VMK_OK);
    ck_assert_int_eq(errno, 42);
    ck_assert_uint_eq(done, 3);
    for (size_t i = 0; i < 10; i++) {
        bool closed = (i >= 1 && i < 4) || i == 7;
        ck_assert(closed ? faults(region.base + i * page) : region.base[i * page] == 1 + i);
    }
    ck_assert_int_eq(vmk_protect_batch(&region, runs, 3, VMK_ACCESS_READ_WRITE, NULL), VMK_OK);
    for (size_t i = 0; i < 10; i++)
        ck_assert_uint_eq(region.base[i * page]++, 1 + i);
    vmk_release(&region);
}
END_TEST

START_TEST(wrong_lists)
{
    vmk_region region = committed(6);
    size_t done = 77;
    const vmk_run lists[][2] = {{{0, page}, {1, page}},        {{0, page}, {page, page / 2}},
                                {{0, page}, {6 * page, page}}, {{0, page}, {page, SIZE_MAX - page + 1}},
                                {{2 * page, page}, {0, page}}, {{0, 2 * page}, {page, page}},
                                {{2 * page, 0}, {page, 0}},    {{0, page}, {4 * page, 2 * page}}};
    ck_assert_int_eq(vmk_decommit(&region, 5 * page, page), VMK_OK);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        ck_assert_int_eq(vmk_protect_batch(&region, lists[i], 2, VMK_ACCESS_NONE, &done), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_protect_batch(&region, lists[0], 1, (vmk_access)3, &done), VMK_ERR_ARGUMENT);
    ck_assert_uint_eq(done, 77);
    region.base[0] = 2; /* nothing was done of any */
    ck_assert_int_eq(vmk_protect_batch(&region, NULL, 0, VMK_ACCESS_NONE, &done), VMK_OK);
    ck_assert_int_eq(vmk_discard_batch(&region, NULL, 0, NULL), VMK_OK);
    ck_assert_int_eq(vmk_decommit_batch(&region, NULL, 0, &done), VMK_OK);
    ck_assert_uint_eq(done, 0);
    vmk_release(&region);
}
END_TEST

/* --- at random -------------------------------------------------------------------------------------------------- */

enum { PAGES = 120, RUNS = 12 };

typedef struct shadow {
    bool committed, known;
    unsigned char value;
} shadow;

static size_t random_list(support_random *random, vmk_run *runs)
{
    size_t count = 0;
    for (size_t at = 0; count < RUNS && at < PAGES; count++) {
        size_t first = vmki_min(at + support_random_below(random, 12), PAGES);
        size_t size = support_random_below(random, vmki_min(PAGES - first, 12) + 1);
        range(&runs[count], first, size);
        at = first + size;
    }
    return count;
}

static void check(const vmk_region *region, const shadow *pages)
{
    size_t count = 0;
    for (size_t i = 0; i < PAGES; i++) {
        ck_assert_int_eq(is_committed(region, i), pages[i].committed);
        if (pages[i].committed && pages[i].known)
            ck_assert_uint_eq(region->base[i * page], pages[i].value);
        count += pages[i].committed;
    }
    ck_assert_uint_eq(region->committed, count * page);
    ck_assert(vmki_region_check(region));
}

static void random_call(support_random *random, vmk_region *region, shadow *pages)
{
    vmk_run runs[RUNS];
    size_t count = random_list(random, runs), kind = support_random_below(random, 6), done = 0;
    if (kind == 0)
        ck_assert_int_eq(vmk_decommit_batch(region, runs, count, &done), VMK_OK);
    else if (kind == 1)
        ck_assert_int_eq(vmk_discard_batch(region, runs, count, &done), VMK_OK);
    ck_assert_uint_eq(done, kind < 2 ? count : 0);
    for (size_t k = 0; k < count; k++) {
        if (kind == 2)
            ck_assert_int_eq(vmk_decommit(region, runs[k].offset, runs[k].size), VMK_OK);
        else if (kind == 3 || kind == 4)
            ck_assert_int_eq(vmk_commit(region, runs[k].offset, runs[k].size), VMK_OK);
        for (size_t i = runs[k].offset / page; i < (runs[k].offset + runs[k].size) / page; i++) {
            bool was = pages[i].committed;
            if (kind == 0 || kind == 2)
                pages[i].committed = false;
            else if (kind == 1)
                pages[i].known = false;
            else if ((kind == 3 || kind == 4) && !was)
                pages[i] = (shadow){true, true, 0};
            else if (kind == 5 && was) {
                pages[i].known = true;
                region->base[i * page] = pages[i].value = (unsigned char)support_random_next(random);
            }
        }
    }
}

START_TEST(random_calls)
{
    support_random random = support_random_start(3);
    for (size_t round = 0; round < support_rounds(20); round++) {
        shadow pages[PAGES] = {{0}};
        vmk_reserve_options options = {.name = round % 2 != 0 ? "batch" : NULL};
        vmk_region region;
        ck_assert_int_eq(vmk_reserve(&region, PAGES * page, &options), VMK_OK);
        for (int step = 0; step < 100; step++) {
            random_call(&random, &region, pages);
            check(&region, pages);
        }
#if !defined(VMKIT_MODEL)
        for (size_t i = 0; i < PAGES; i++)
            ck_assert_int_eq(support_readable(region.base + i * page), pages[i].committed);
        if (round % 2 != 0)
            ck_assert(support_named(region.base, "batch"));
#endif
        vmk_release(&region);
    }
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, OWN_PAGES = 64, THREAD_ROUNDS = 40 };

typedef struct team {
    vmk_region region;
    size_t failures[THREADS];
} team;

/* Each has every fourth page. */
static void batch_on_own_pages(void *argument, unsigned number)
{
    team *t = argument;
    vmk_run runs[OWN_PAGES];
    for (size_t i = 0; i < OWN_PAGES; i++)
        range(&runs[i], i * THREADS + number, 1);
    for (int round = 0; round < THREAD_ROUNDS; round++) {
        for (size_t i = 0; i < OWN_PAGES; i++) {
            t->failures[number] += vmk_commit(&t->region, runs[i].offset, page) != VMK_OK;
            t->failures[number] += t->region.base[runs[i].offset] != 0;
            t->region.base[runs[i].offset] = 1;
        }
        t->failures[number] += vmk_discard_batch(&t->region, runs, OWN_PAGES / 2, NULL) != VMK_OK;
        t->failures[number] += vmk_decommit_batch(&t->region, runs, OWN_PAGES, NULL) != VMK_OK;
    }
}

START_TEST(threads_with_pages_of_their_own)
{
    team t = {.failures = {0}};
    ck_assert_int_eq(vmk_reserve(&t.region, (size_t)THREADS * OWN_PAGES * page, NULL), VMK_OK);
    support_threads(THREADS, batch_on_own_pages, &t);
    for (int i = 0; i < THREADS; i++)
        ck_assert_uint_eq(t.failures[i], 0);
    ck_assert_uint_eq(t.region.committed, 0);
    vmk_release(&t.region);
}
END_TEST

/* --- refusals --------------------------------------------------------------------------------------------------- */

#if defined(VMKIT_MODEL)

static const model_rules many_at_once = {.guards = true, .batch = true, .junk_on_discard = true};
static const model_rules one_at_a_time = {.junk_on_discard = true};

enum { EIGHT = 8 };

static void eight_runs(vmk_run *runs)
{
    for (size_t i = 0; i < EIGHT; i++)
        range(&runs[i], 3 * i, 2);
}

/* The first ranges are done and no others, however far it came; and a second try ends it. */
static void check_progress(const vmk_region *region, vmk_status status, size_t done)
{
    ck_assert_uint_le(done, EIGHT);
    ck_assert_int_eq(status == VMK_OK, done == EIGHT);
    for (size_t i = 0; i < 3 * EIGHT; i++)
        ck_assert_int_eq(is_committed(region, i), i % 3 == 2 || i / 3 >= done);
    for (size_t i = 0; i < 3 * EIGHT; i++)
        if (is_committed(region, i))
            region->base[i * page] = 3; /* no mark is left on it */
    ck_assert(vmki_region_check(region));
}

static void refuse_each(const model_rules *rules, bool lasting)
{
    vmk_run runs[EIGHT];
    eight_runs(runs);
    for (uint64_t nth = 1;; nth++) {
        vmk_region region = committed(3 * EIGHT);
        size_t done = 77;
        model_reset(rules);
        model_fail_nth(nth, VMK_ERR_MAPPINGS, lasting);
        vmk_status status = vmk_decommit_batch(&region, runs, EIGHT, &done);
        bool failed = model_failed();
        ck_assert(failed || status == VMK_OK);
        ck_assert(status == VMK_OK || status == VMK_ERR_MAPPINGS);
        check_progress(&region, status, done);
        model_fail_nth(0, VMK_OK, false);
        ck_assert_int_eq(vmk_decommit_batch(&region, runs, EIGHT, &done), VMK_OK);
        ck_assert_uint_eq(done, EIGHT);
        ck_assert_int_eq(vmk_commit(&region, 0, region.size), VMK_OK);
        memset(region.base, 1, region.size);
        vmk_release(&region);
        ck_assert_msg(model_violation() == NULL, "%s", model_violation());
        if (!failed)
            break;
        ck_assert_uint_lt(nth, 100);
    }
}

START_TEST(each_call_refused)
{
    refuse_each(&many_at_once, false);
    refuse_each(&many_at_once, true);
    refuse_each(&one_at_a_time, false);
    refuse_each(&one_at_a_time, true);
}
END_TEST

/* A discard that is refused in the middle, and a protect. */
START_TEST(other_calls_refused)
{
    vmk_run runs[EIGHT];
    eight_runs(runs);
    for (int kind = 0; kind < 3; kind++) {
        for (uint64_t nth = 1; nth <= EIGHT + 1; nth++) {
            vmk_region region = committed(3 * EIGHT);
            size_t done = 77;
            model_reset(kind == 0 ? &many_at_once : &one_at_a_time);
            model_fail_nth(nth, VMK_ERR_COMMIT, true);
            vmk_status status = kind == 2 ? vmk_protect_batch(&region, runs, EIGHT, VMK_ACCESS_READ, &done)
                                          : vmk_discard_batch(&region, runs, EIGHT, &done);
            ck_assert_int_eq(status, nth > EIGHT ? VMK_OK : VMK_ERR_COMMIT);
            ck_assert_uint_eq(done, nth - 1);
            ck_assert_uint_eq(region.committed, region.size);
            model_fail_nth(0, VMK_OK, false);
            vmk_release(&region);
        }
    }
}
END_TEST

/* The mappings that decommits one by one would make are not there to be made. */
START_TEST(a_batch_needs_no_mappings)
{
    vmk_run runs[EIGHT];
    size_t done;
    eight_runs(runs);
    for (int batch = 0; batch < 2; batch++) {
        vmk_region region = committed(3 * EIGHT);
        model_rules rules = batch != 0 ? many_at_once : one_at_a_time;
        rules.max_mappings = model_mappings() + 3;
        model_reset(&rules);
        vmk_status status = vmk_decommit_batch(&region, runs, EIGHT, &done);
        ck_assert_int_eq(status, batch != 0 ? VMK_OK : VMK_ERR_MAPPINGS);
        check_progress(&region, status, done);
        ck_assert(batch != 0 ? done == EIGHT : done != 0 && done < EIGHT);
        vmk_release(&region);
    }
}
END_TEST

/* Marks that were left are cleared by the commit, and only by those that can have some. */
START_TEST(marks_are_cleared_where_there_may_be_some)
{
    vmk_run run = {0, page};
    const model_record *records;
    vmk_region region = committed(4);
    for (int pass = 0; pass < 2; pass++) {
        size_t clears = 0;
        model_reset(&many_at_once);
        if (pass == 0)
            ck_assert_int_eq(vmk_decommit(&region, 0, page), VMK_OK);
        else
            ck_assert_int_eq(vmk_decommit_batch(&region, &run, 1, NULL), VMK_OK);
        ck_assert_int_eq(vmk_commit(&region, 0, page), VMK_OK);
        size_t count = model_records(&records);
        for (size_t i = 0; i < count; i++)
            clears += records[i].call == MODEL_GUARD_CLEAR;
        ck_assert_uint_eq(clears, (size_t)pass);
    }
    vmk_release(&region);
}
END_TEST

static void set_up(void)
{
    model_reset(&many_at_once);
    page = vmk_page_size();
}

static void set_up_one(void)
{
    model_reset(&one_at_a_time);
    page = vmk_page_size();
}

static void tear_down(void)
{
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}

#else

static void set_up(void)
{
    page = vmk_page_size();
}

static void tear_down(void)
{
}

#endif

#if !defined(VMKIT_MODEL)

/* --- misuse ----------------------------------------------------------------------------------------------------- */

static int crime(int argc, char **argv)
{
    vmk_region region;
    size_t unit = vmk_page_size();
    const vmk_run lists[][2] = {{{0, unit}, {unit, 1}}, {{0, unit}, {4 * unit, unit}}, {{unit, unit}, {0, unit}}};
    if (argc != 2 || vmk_reserve(&region, 4 * unit, NULL) != VMK_OK)
        return 9;
    const vmk_run *list = lists[argv[1][0] - '0'];
    if (argv[0][0] == 'd')
        VMKI_IGNORE(vmk_decommit_batch(&region, list, 2, NULL));
    else
        VMKI_IGNORE(vmk_discard_batch(&region, list, 2, NULL));
    return 0;
}

START_TEST(wrong_lists_end_the_program)
{
    static const char *const which[] = {"0", "1", "2"};
    static const char *const words[] = {"range is misaligned or leaves the region",
                                        "range is misaligned or leaves the region",
                                        "ranges overlap, or are not in ascending order"};
    char output[512];
    for (size_t i = 0; i < 6; i++) {
        const char *arguments[] = {i < 3 ? "d" : "r", which[i % 3], NULL};
        support_end end = support_run_self(arguments, output, sizeof output);
        ck_assert_msg(end.crashed || end.code == 3, "%zu: %d", i, end.code);
        ck_assert_msg(strstr(output, words[i % 3]) != NULL, "%s", output);
        ck_assert(strstr(output, i < 3 ? "vmk_decommit_batch: " : "vmk_discard_batch: ") != NULL);
    }
}
END_TEST

#endif

static void add_tests(TCase *tests)
{
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, decommit_of_some);
    tcase_add_test(tests, a_batch_and_other_calls);
    tcase_add_test(tests, many_ranges);
    tcase_add_test(tests, protect_of_some);
    tcase_add_test(tests, wrong_lists);
    tcase_add_test(tests, random_calls);
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("batch");
    TCase *tests = tcase_create("batch");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    add_tests(tests);
    tcase_add_test(tests, threads_with_pages_of_their_own);
#if !defined(VMKIT_MODEL)
    tcase_add_test(tests, wrong_lists_end_the_program);
#else
    tcase_add_test(tests, each_call_refused);
    tcase_add_test(tests, other_calls_refused);
    tcase_add_test(tests, a_batch_needs_no_mappings);
    tcase_add_test(tests, marks_are_cleared_where_there_may_be_some);
    TCase *single = tcase_create("one at a time");
    tcase_add_checked_fixture(single, set_up_one, tear_down);
    add_tests(single);
    suite_add_tcase(suite, single);
#endif
    suite_add_tcase(suite, tests);
#if defined(VMKIT_MODEL)
    return support_main(argc, argv, suite, NULL);
#else
    return support_main(argc, argv, suite, crime);
#endif
}
