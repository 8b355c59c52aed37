/* SPDX-License-Identifier: MIT
 *
 * Write-watch while threads write: nothing is lost. Writers count up in pages at random; a reader collects, and copies
 * the counters of what is reported. In the end, when all have stopped and it has collected once more, it has them all.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/base/os.h"
#include "support.h"

enum { PAGES = 256, WRITERS = 4, KINDS = VMK_WATCH_KINDS, ROUNDS = 3000 };

static size_t page;

static bool able(int kind)
{
    return kind != VMK_WATCH_BEST && kind != VMK_WATCH_SOFT_DIRTY && (vmk_capabilities()->watch & 1u << kind) != 0;
}

typedef struct shared {
    vmk_region region;
    vmk_watch watch;
    vmk_watch_kind kind;
    size_t rounds;
    size_t copies[PAGES];
    size_t collects;
    size_t wrong;   /* what failed in a thread */
    size_t running; /* writers */
} shared;

static size_t *counter(const shared *s, size_t i)
{
    return (size_t *)(void *)(s->region.base + i * page);
}

static void start(shared *s, int kind)
{
    vmk_reserve_options reserve = {.flags = VMK_RESERVE_WATCH};
    vmk_watch_options options = {.kind = (vmk_watch_kind)kind};
    memset(s, 0, sizeof *s);
    s->rounds = support_rounds(ROUNDS);
    s->running = WRITERS;
    s->kind = options.kind;
    ck_assert_int_eq(vmk_reserve(&s->region, PAGES * page, &reserve), VMK_OK);
    ck_assert_int_eq(vmk_commit(&s->region, 0, PAGES * page), VMK_OK);
    memset(s->region.base, 0, s->region.size);
    ck_assert_int_eq(vmk_watch_start(&s->watch, &s->region, 0, PAGES * page, &options), VMK_OK);
}

static void end(shared *s)
{
    ck_assert_uint_eq(s->wrong, 0);
    vmk_watch_stop(&s->watch);
    vmk_release(&s->region);
}

static void collect(shared *s)
{
    vmk_run runs[5];
    size_t count, done;
    for (size_t at = 0; at < PAGES * page; at += done) {
        if (vmk_watch_collect(&s->watch, at, PAGES * page - at, runs, 5, &count, &done) != VMK_OK) {
            (void)VMKI_FETCH_ADD(&s->wrong, 1);
            return;
        }
        for (size_t i = 0; i < count; i++)
            for (size_t p = runs[i].offset / page; p < (runs[i].offset + runs[i].size) / page; p++)
                s->copies[p] = VMKI_LOAD(counter(s, p));
    }
    s->collects++;
}

static void write_some(shared *s, unsigned number, size_t limit)
{
    support_random random = support_random_start(number);
    for (size_t i = 0; i < s->rounds; i++) {
        (void)VMKI_FETCH_ADD(counter(s, support_random_below(&random, limit)), 1);
        if (i % 8 == 0)
            support_yield();
    }
    (void)VMKI_FETCH_ADD(&s->running, (size_t)-1);
}

static void write_or_collect(void *argument, unsigned number)
{
    shared *s = argument;
    if (number != 0)
        write_some(s, number, PAGES);
    while (number == 0 && VMKI_LOAD(&s->running) != 0)
        collect(s);
}

START_TEST(nothing_is_lost)
{
    static shared s;
    size_t sum = 0;
    if (!able(_i))
        return;
    start(&s, _i);
    support_threads(WRITERS + 1, write_or_collect, &s);
    ck_assert_uint_ne(s.collects, 0);
    collect(&s);
    for (size_t i = 0; i < PAGES; i++) {
        ck_assert_msg(s.copies[i] == *counter(&s, i), "page %lu: %lu written, %lu seen", (unsigned long)i,
                      (unsigned long)*counter(&s, i), (unsigned long)s.copies[i]);
        sum += s.copies[i];
    }
    ck_assert_uint_eq(sum, WRITERS * s.rounds);
    end(&s);
}
END_TEST

/* All of them on the same few pages, so that several threads fault on one at once. */
static void write_or_collect_few(void *argument, unsigned number)
{
    shared *s = argument;
    if (number != 0)
        write_some(s, number, 2);
    while (number == 0 && VMKI_LOAD(&s->running) != 0) {
        collect(s);
        support_yield();
    }
}

START_TEST(threads_fault_on_one_page)
{
    static shared s;
    if (!able(_i))
        return;
    start(&s, _i);
    support_threads(WRITERS + 1, write_or_collect_few, &s);
    collect(&s);
    ck_assert_uint_eq(s.copies[0] + s.copies[1], WRITERS * s.rounds);
    ck_assert(s.copies[0] == *counter(&s, 0) && s.copies[1] == *counter(&s, 1));
    end(&s);
}
END_TEST

/* One thread decommits and commits every other page, in the blocks that the others write in: what it has decommitted
 * stays inaccessible, and what it has committed can be written and is seen. */
static void write_or_decommit(void *argument, unsigned number)
{
    shared *s = argument;
    support_random random = support_random_start(number);
    uint64_t bits[PAGES / 64] = {0};
    if (number == 0) {
        while (VMKI_LOAD(&s->running) != 0)
            (void)VMKI_FETCH_ADD(&s->wrong, vmk_watch_collect_bits(&s->watch, 0, PAGES * page, bits, NULL) != VMK_OK);
    } else if (number == 1) {
        for (size_t i = 0; i < s->rounds / 4; i++) {
            size_t p = support_random_below(&random, PAGES / 2) * 2 + 1;
            bool fine = vmk_decommit(&s->region, p * page, page) == VMK_OK && !support_readable(counter(s, p)) &&
                        vmk_commit(&s->region, p * page, page) == VMK_OK && VMKI_LOAD(counter(s, p)) == 0;
            (void)VMKI_FETCH_ADD(counter(s, p), 1);
            (void)VMKI_FETCH_ADD(&s->wrong, !fine);
        }
        (void)VMKI_FETCH_ADD(&s->running, (size_t)-1);
    } else {
        for (size_t i = 0; i < s->rounds; i++)
            (void)VMKI_FETCH_ADD(counter(s, support_random_below(&random, PAGES / 2) * 2), 1);
        (void)VMKI_FETCH_ADD(&s->running, (size_t)-1);
    }
}

START_TEST(pages_come_and_go)
{
    static shared s;
    uint64_t bits[PAGES / 64] = {0};
    if (!able(_i))
        return;
    start(&s, _i);
    support_threads(WRITERS + 1, write_or_decommit, &s);
    ck_assert_int_eq(vmk_watch_collect_bits(&s.watch, 0, PAGES * page, bits, NULL), VMK_OK);
    memset(bits, 0, sizeof bits);
    for (size_t i = 0; i < PAGES; i += 16)
        (*counter(&s, i + 1))++;
    ck_assert_int_eq(vmk_watch_collect_bits(&s.watch, 0, PAGES * page, bits, NULL), VMK_OK);
    for (size_t i = 0; i < PAGES; i += 16)
        ck_assert(bits[(i + 1) / 64] >> (i + 1) % 64 & 1);
    end(&s);
}
END_TEST

/* Watches begin and end while threads write; a write that faults in that moment is no crash. */
static void write_or_restart(void *argument, unsigned number)
{
    shared *s = argument;
    vmk_watch_options options = {.kind = s->kind};
    if (number != 0)
        write_some(s, number, PAGES);
    while (number == 0 && VMKI_LOAD(&s->running) != 0) {
        vmk_watch_stop(&s->watch);
        bool fine = vmk_watch_start(&s->watch, &s->region, 0, PAGES * page, &options) == VMK_OK;
        (void)VMKI_FETCH_ADD(&s->wrong, !fine);
        if (!fine)
            return;
    }
}

START_TEST(watches_begin_and_end)
{
    static shared s;
    size_t sum = 0;
    if (!able(_i))
        return;
    start(&s, _i);
    support_threads(WRITERS + 1, write_or_restart, &s);
    for (size_t i = 0; i < PAGES; i++)
        sum += *counter(&s, i);
    ck_assert_uint_eq(sum, WRITERS * s.rounds);
    end(&s);
}
END_TEST

static void set_up(void)
{
    page = vmk_page_size();
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("watch_threads");
    TCase *tests = tcase_create("watch_threads");
    tcase_set_timeout(tests, 200);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_loop_test(tests, nothing_is_lost, 0, KINDS);
    tcase_add_loop_test(tests, threads_fault_on_one_page, 0, KINDS);
    tcase_add_loop_test(tests, pages_come_and_go, 0, KINDS);
    tcase_add_loop_test(tests, watches_begin_and_end, 0, KINDS);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
