/* SPDX-License-Identifier: MIT
 *
 * Write-watch, by each kind that there is: what was written is reported, what was not is not (but for its neighbours in
 * a block, and pages that are new). What the program writes is noted here page by page, and compared.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/align.h"
#include "common/base/os.h"
#include "common/vm/watch.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

enum { PAGES = 600, KINDS = VMK_WATCH_KINDS };

static size_t page;

/* What this program knows of each page of the range that is watched. */
typedef struct note {
    bool committed;
    bool must; /* written since it was last reported */
    bool may;  /* new, or dropped: may be reported */
} note;

typedef struct range {
    vmk_region region;
    vmk_watch watch;
    note notes[PAGES];
} range;

static bool able(int kind)
{
    return kind != VMK_WATCH_BEST && kind != VMK_WATCH_SOFT_DIRTY && (vmk_capabilities()->watch & 1u << kind) != 0;
}

static vmk_watch_options by(int kind)
{
    return (vmk_watch_options){.kind = (vmk_watch_kind)kind};
}

/* PAGES pages, of which the first `commit` are committed and written, watched from then on. */
static void range_start(range *r, int kind, size_t commit)
{
    vmk_reserve_options reserve = {.flags = VMK_RESERVE_WATCH};
    vmk_watch_options options = by(kind);
    memset(r, 0, sizeof *r);
    ck_assert_int_eq(vmk_reserve(&r->region, PAGES * page, &reserve), VMK_OK);
    ck_assert_int_eq(vmk_commit(&r->region, 0, commit * page), VMK_OK);
    memset(r->region.base, 1, commit * page);
    for (size_t i = 0; i < commit; i++)
        r->notes[i].committed = true;
    ck_assert_int_eq(vmk_watch_start(&r->watch, &r->region, 0, PAGES * page, &options), VMK_OK);
    ck_assert_int_eq(r->watch.kind, kind);
    ck_assert_ptr_eq(r->watch.base, r->region.base);
    ck_assert_uint_eq(r->watch.unit, kind == VMK_WATCH_PROTECT ? vmki_max(page, 65536) : page);
}

static void range_end(range *r)
{
    vmk_watch_stop(&r->watch);
    for (size_t i = 0; i < PAGES; i++)
        if (r->notes[i].committed)
            r->region.base[i * page]++;
    ck_assert(vmki_region_check(&r->region));
    vmk_release(&r->region);
}

/* What lies in one block with it may be reported too, now or when it is collected later. */
static void range_write(range *r, size_t i)
{
    uintptr_t base = (uintptr_t)r->region.base, unit = r->watch.unit;
    r->region.base[i * page + (i * 37) % page]++;
    r->notes[i].must = true;
    for (size_t other = i < unit / page ? 0 : i - unit / page; other < vmki_min(i + unit / page, PAGES); other++)
        if (vmki_floor(base + other * page, unit) == vmki_floor(base + i * page, unit) && unit != page)
            r->notes[other].may = true;
}

/* Of pages [from, to): these were reported. */
static void range_compare(range *r, size_t from, size_t to, const bool *reported)
{
    bool fine[PAGES];
    for (size_t i = from; i < to; i++)
        fine[i] = reported[i] ? r->notes[i].committed && (r->notes[i].must || r->notes[i].may) : !r->notes[i].must;
    for (size_t i = from; i < to; i++) {
        ck_assert_msg(fine[i], "page %lu is %sreported (committed %d, must %d, may %d)", (unsigned long)i,
                      reported[i] ? "" : "not ", r->notes[i].committed, r->notes[i].must, r->notes[i].may);
        r->notes[i].must = r->notes[i].may = false;
    }
}

/* Collect pages [from, to) with room for so many runs, going on until all is done. Gives the number of calls. */
static size_t range_collect(range *r, size_t from, size_t to, size_t capacity)
{
    vmk_run *runs = malloc(capacity * sizeof *runs);
    bool reported[PAGES] = {false};
    size_t calls = 0, at = from * page, count, done;
    for (; at < to * page; at += done, calls++) {
        size_t end = at;
        ck_assert_int_eq(vmk_watch_collect(&r->watch, at, to * page - at, runs, capacity, &count, &done), VMK_OK);
        ck_assert_uint_le(count, capacity);
        ck_assert_uint_le(done, to * page - at);
        ck_assert(done != 0 && (at + done == to * page || count == capacity));
        for (size_t i = 0; i < count; i++) {
            ck_assert(vmki_is_aligned(runs[i].offset | runs[i].size, page) && runs[i].size != 0);
            ck_assert_uint_ge(runs[i].offset, end + (i != 0)); /* ascending, and neighbours are one */
            end = runs[i].offset + runs[i].size;
            ck_assert_uint_le(end, at + done);
            for (size_t p = runs[i].offset / page; p < end / page; p++)
                reported[p] = true;
        }
    }
    free(runs);
    range_compare(r, from, to, reported);
    return calls;
}

static void range_collect_bits(range *r, size_t from, size_t to)
{
    uint64_t bits[PAGES / 64 + 2] = {0}, before = (uint64_t)1 << 63;
    bool reported[PAGES] = {false};
    size_t written = 77, sum = 0;
    bits[(to - from) / 64 + 1] = before; /* behind the last: not touched */
    ck_assert_int_eq(vmk_watch_collect_bits(&r->watch, from * page, (to - from) * page, bits, &written), VMK_OK);
    for (size_t i = 0; i < to - from; i++) {
        reported[from + i] = (bits[i / 64] >> i % 64 & 1) != 0;
        sum += reported[from + i];
    }
    ck_assert_uint_eq(sum, written);
    ck_assert(bits[(to - from) / 64 + 1] == before);
    range_compare(r, from, to, reported);
}

/* --- what is reported ------------------------------------------------------------------------------------------- */

START_TEST(single_writes_are_reported_once)
{
    static range r;
    support_random random = support_random_start(1);
    if (!able(_i))
        return;
    range_start(&r, _i, PAGES);
    (void)range_collect(&r, 0, PAGES, 10); /* what was written before isn't news */
    for (int round = 0; round < 10; round++) {
        unsigned sum = 0;
        for (int i = 0; i < 30; i++)
            range_write(&r, support_random_below(&random, PAGES));
        (void)range_collect(&r, 0, PAGES, 1000);
        for (size_t i = 0; i < PAGES; i++) /* reading is no writing */
            sum += r.region.base[i * page];
        ck_assert_uint_ne(sum, 0);
        vmk_run run;
        size_t count = 7, done = 7;
        ck_assert_int_eq(vmk_watch_collect(&r.watch, 0, PAGES * page, &run, 1, &count, &done), VMK_OK);
        ck_assert(count == 0 && done == PAGES * page);
    }
    range_end(&r);
}
END_TEST

START_TEST(a_little_room_takes_more_calls)
{
    static range r;
    if (!able(_i))
        return;
    range_start(&r, _i, PAGES);
    for (size_t capacity = 1; capacity < 50; capacity = capacity * 3) {
        size_t apart = 2 * r.watch.unit / page, runs = 0;
        for (size_t i = 0; i < PAGES; i += apart, runs++)
            range_write(&r, i);
        size_t calls = range_collect(&r, 0, PAGES, capacity);
        ck_assert_uint_ge(calls, runs / capacity);
        ck_assert_uint_le(calls, runs / capacity + 1);
    }
    for (size_t i = 0; i < PAGES; i++)
        range_write(&r, i);
    size_t calls = range_collect(&r, 0, PAGES, 1); /* it is one run, in as many pieces as the system may tell */
    ck_assert_uint_le(calls, PAGES / 128);
    range_end(&r);
}
END_TEST

enum { MOST_PIECES = 40 };

/* A batch of every other piece of [from, to), of `length` pages each. */
static size_t pieces_of(size_t from, size_t to, size_t length, vmk_run *runs)
{
    size_t count = 0;
    for (; from < to && count < MOST_PIECES; from += 2 * length)
        runs[count++] = (vmk_run){from * page, vmki_min(length, to - from) * page};
    return count;
}

/* What a call has done to the pages of a batch: gone, or perhaps written, and then what was written may be gone. */
static void note_pieces(range *r, const vmk_run *runs, size_t count, bool gone)
{
    for (size_t at = 0; at < count; at++)
        for (size_t i = runs[at].offset / page; i < (runs[at].offset + runs[at].size) / page; i++)
            r->notes[i] = (note){.committed = r->notes[i].committed && !gone, .may = r->notes[i].committed && !gone};
}

/* Everything that can be done to a region, at random. */
static void random_step(range *r, support_random *random)
{
    size_t from = support_random_below(random, PAGES), count = 1 + support_random_below(random, 40);
    size_t to = vmki_min(from + count, PAGES);
    vmk_run runs[MOST_PIECES];
    size_t pieces = pieces_of(from, to, 1 + count % 5, runs);
    switch (support_random_below(random, 16)) {
    case 0:
        ck_assert_int_eq(vmk_commit(&r->region, from * page, (to - from) * page), VMK_OK);
        for (size_t i = from; i < to; i++)
            if (!r->notes[i].committed)
                r->notes[i] = (note){.committed = true, .may = true};
        break;
    case 1:
        ck_assert_int_eq(vmk_decommit(&r->region, from * page, (to - from) * page), VMK_OK);
        for (size_t i = from; i < to; i++)
            r->notes[i] = (note){.committed = false};
        break;
    case 2:
        ck_assert_int_eq(vmk_discard(&r->region, from * page, (to - from) * page), VMK_OK);
        for (size_t i = from; i < to; i++) {
            r->notes[i].may = r->notes[i].committed;
            r->notes[i].must = false; /* what was written is gone */
        }
        break;
    case 3:
        (void)range_collect(r, from, to, 1 + support_random_below(random, 8));
        break;
    case 4:
        range_collect_bits(r, from, to);
        break;
    case 5:
        (void)range_collect(r, 0, PAGES, 300);
        break;
    case 6:
        ck_assert_int_eq(vmk_decommit_batch(&r->region, runs, pieces, NULL), VMK_OK);
        note_pieces(r, runs, pieces, true);
        break;
    case 7:
        ck_assert_int_eq(vmk_discard_batch(&r->region, runs, pieces, NULL), VMK_OK);
        note_pieces(r, runs, pieces, false);
        break;
    default:
        for (size_t i = from; i < to; i += 1 + support_random_below(random, 20))
            if (r->notes[i].committed)
                range_write(r, i);
    }
}

START_TEST(random_operations)
{
    static range r;
    support_random random = support_random_start(100 + (uint64_t)_i);
    if (!able(_i))
        return;
    range_start(&r, _i, PAGES / 2);
    for (size_t step = support_rounds(600); step-- > 0;)
        random_step(&r, &random);
    (void)range_collect(&r, 0, PAGES, 5);
    for (size_t i = 0; i < PAGES; i++)
        if (r.notes[i].committed)
            range_write(&r, i);
    range_collect_bits(&r, 0, PAGES);
    range_end(&r);
}
END_TEST

START_TEST(what_is_new_is_watched)
{
    static range r;
    if (!able(_i))
        return;
    range_start(&r, _i, 0);
    (void)range_collect(&r, 0, PAGES, 3); /* nothing is committed, and nothing reported */
    ck_assert_int_eq(vmk_commit(&r.region, 10 * page, 100 * page), VMK_OK);
    for (size_t i = 10; i < 110; i++)
        r.notes[i] = (note){.committed = true, .may = true};
    for (size_t i = 10; i < 110; i += 10)
        range_write(&r, i);
    (void)range_collect(&r, 0, PAGES, 3);
    range_write(&r, 50);
    ck_assert_int_eq(vmk_decommit(&r.region, 50 * page, page), VMK_OK);
    r.notes[50] = (note){.committed = false};
    (void)range_collect(&r, 0, PAGES, 3);
    ck_assert_int_eq(vmk_commit(&r.region, 0, PAGES * page), VMK_OK);
    for (size_t i = 0; i < PAGES; i++)
        if (!r.notes[i].committed)
            r.notes[i] = (note){.committed = true, .may = true};
    ck_assert_uint_eq(r.region.base[50 * page], 0);
    for (size_t i = 0; i < PAGES; i += 7)
        range_write(&r, i);
    (void)range_collect(&r, 0, PAGES, 300);
    range_end(&r);
}
END_TEST

/* Two in one region, with the border inside a block, and some pages watched by none. */
START_TEST(watches_side_by_side)
{
    vmk_region region;
    vmk_watch low, high;
    vmk_watch_options options = by(_i);
    vmk_reserve_options reserve = {.flags = VMK_RESERVE_WATCH};
    vmk_run runs[8];
    size_t count, done;
    if (!able(_i))
        return;
    ck_assert_int_eq(vmk_reserve(&region, 200 * page, &reserve), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 200 * page), VMK_OK);
    memset(region.base, 1, region.size);
    ck_assert_int_eq(vmk_watch_start(&low, &region, 3 * page, 50 * page, &options), VMK_OK);
    ck_assert_int_eq(vmk_watch_start(&high, &region, 53 * page, 50 * page, &options), VMK_OK);
    region.base[2 * page] = region.base[103 * page] = 2;
    ck_assert_int_eq(vmk_watch_collect(&low, 0, low.size, runs, 8, &count, &done), VMK_OK);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(vmk_watch_collect(&high, 0, high.size, runs, 8, &count, &done), VMK_OK);
    ck_assert_uint_eq(count, 0);
    region.base[52 * page] = region.base[53 * page] = 2;
    ck_assert_int_eq(vmk_watch_collect(&high, 0, high.size, runs, 8, &count, &done), VMK_OK);
    ck_assert(count == 1 && runs[0].offset == 0); /* from the watch's beginning, not the region's */
    ck_assert_int_eq(vmk_watch_collect(&low, 0, low.size, runs, 8, &count, &done), VMK_OK);
    ck_assert(count == 1 && runs[0].offset + runs[0].size == 50 * page);
    vmk_watch_stop(&low);
    region.base[10 * page] = region.base[60 * page] = 3;
    ck_assert_int_eq(vmk_watch_collect(&high, 0, high.size, runs, 8, &count, &done), VMK_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(vmk_watch_start(&low, &region, 3 * page, 50 * page, &options), VMK_OK);
    vmk_watch_stop(&high);
    vmk_watch_stop(&low);
    memset(region.base, 5, region.size);
    vmk_release(&region);
}
END_TEST

/* --- what the library does to pages by itself ------------------------------------------------------------------- */

START_TEST(prefault_and_protection)
{
    static range r;
    if (!able(_i))
        return;
    range_start(&r, _i, 100);
    ck_assert_int_eq(vmk_prefault(&r.region, 0, 100 * page), VMK_OK);
    for (size_t i = 0; i < 100; i++)
        r.notes[i].may = true;
    (void)range_collect(&r, 0, PAGES, 10);
    ck_assert_int_eq(vmk_protect(&r.region, 40 * page, 5 * page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmk_protect(&r.region, 40 * page, 5 * page, VMK_ACCESS_READ_WRITE), VMK_OK);
    for (size_t i = 40; i < 45; i++)
        r.notes[i].may = true;
    range_write(&r, 41);
    range_write(&r, 43);
    (void)range_collect(&r, 0, PAGES, 10);
    ck_assert_int_eq(vmk_guard_set(&r.region, 60 * page, page), VMK_OK);
    r.notes[60].committed = false;
    range_write(&r, 59);
    (void)range_collect(&r, 0, 60, 10);
    ck_assert_int_eq(vmk_guard_clear(&r.region, 60 * page, page), VMK_OK);
    r.notes[60].committed = r.notes[60].may = true;
    range_write(&r, 60);
    (void)range_collect(&r, 60, PAGES, 10);
    range_end(&r);
}
END_TEST

START_TEST(error_codes_are_left_alone)
{
    static range r;
    vmki_os_error mark = {.library = ERANGE, .system = 0}, now;
    if (!able(_i))
        return;
    vmki_os_error_set(mark);
    range_start(&r, _i, 100);
    mark = vmki_os_error_get();
    mark.library = EDOM;
    vmki_os_error_set(mark);
    range_write(&r, 5);
    now = vmki_os_error_get();
    ck_assert(now.library == EDOM && now.system == mark.system);
    (void)range_collect(&r, 0, PAGES, 10);
    now = vmki_os_error_get();
    ck_assert(now.library == EDOM && now.system == mark.system);
    vmk_watch_stop(&r.watch);
    now = vmki_os_error_get();
    ck_assert(now.library == EDOM && now.system == mark.system);
    vmk_release(&r.region);
}
END_TEST

/* --- errors ----------------------------------------------------------------------------------------------------- */

START_TEST(what_is_refused)
{
    vmk_region region;
    vmk_watch watch, other;
    memset(&watch, 0x55, sizeof watch);
    vmk_watch untouched = watch;
    vmk_watch_options options = by(_i);
    vmk_reserve_options reserve = {.flags = VMK_RESERVE_WATCH};
    vmk_run runs[4];
    size_t count = 77, done = 77;
    if (!able(_i))
        return;
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, &reserve), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 32 * page), VMK_OK);
    const size_t wrong[][2] = {{1, page}, {0, page - 1}, {0, 0}, {0, 65 * page}, {64 * page, page}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ck_assert_int_eq(vmk_watch_start(&watch, &region, wrong[i][0], wrong[i][1], &options), VMK_ERR_ARGUMENT);
    vmk_watch_options odd = {.kind = VMK_WATCH_KINDS};
    ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, page, &odd), VMK_ERR_ARGUMENT);
    odd = (vmk_watch_options){.kind = (vmk_watch_kind)_i, .flags = 2};
    ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, page, &odd), VMK_ERR_ARGUMENT);
    odd.flags = VMK_WATCH_SYSTEM;
    if (_i == VMK_WATCH_PROTECT)
        ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, page, &odd), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_watch_start_static(&watch, (void *)(uintptr_t)(page + 1), page, &options), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_watch_start_static(&watch, (void *)(uintptr_t)page, 0, &options), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_watch_start_static(&watch, NULL, page, &options), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(memcmp(&watch, &untouched, sizeof watch), 0);

    ck_assert_int_eq(vmk_watch_start(&watch, &region, 8 * page, 16 * page, &options), VMK_OK);
    const size_t overlap[][2] = {{8, 16}, {0, 9}, {23, 1}, {0, 64}, {10, 2}};
    for (size_t i = 0; i < sizeof overlap / sizeof overlap[0]; i++)
        ck_assert_int_eq(vmk_watch_start(&other, &region, overlap[i][0] * page, overlap[i][1] * page, &options),
                         VMK_ERR_ARGUMENT);
    region.base[9 * page] = 1; /* which the refusals have not stopped */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (wrong[i][1] == 0)
            continue;
        ck_assert_int_eq(vmk_watch_collect(&watch, wrong[i][0], wrong[i][1], runs, 4, &count, &done), VMK_ERR_ARGUMENT);
        ck_assert_int_eq(vmk_watch_collect_bits(&watch, wrong[i][0], wrong[i][1], NULL, &done), VMK_ERR_ARGUMENT);
    }
    ck_assert_int_eq(vmk_watch_collect(&watch, 0, 16 * page, runs, 0, &count, &done), VMK_ERR_ARGUMENT);
    ck_assert(count == 77 && done == 77);
    ck_assert_int_eq(vmk_watch_collect(&watch, 16 * page, 0, runs, 4, &count, &done), VMK_OK);
    ck_assert(count == 0 && done == 0);
    ck_assert_int_eq(vmk_watch_collect_bits(&watch, 0, 0, NULL, NULL), VMK_OK);
    ck_assert_int_eq(vmk_watch_collect(&watch, 0, 16 * page, runs, 4, &count, &done), VMK_OK);
    ck_assert_uint_eq(count, 1);
    vmk_watch_stop(&watch);
    vmk_release(&region);
}
END_TEST

START_TEST(without_options)
{
    vmk_region region;
    vmk_watch watch;
    vmk_reserve_options reserve = {.flags = VMK_RESERVE_WATCH};
    uint64_t bits = 0;
    vmk_watch_kind best = VMK_WATCH_BEST;
    for (int kind = VMK_WATCH_PROTECT; kind > VMK_WATCH_BEST; kind--)
        if (able(kind))
            best = (vmk_watch_kind)kind;
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, &reserve), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 64 * page), VMK_OK);
    vmk_status status = vmk_watch_start(&watch, &region, 0, 64 * page, NULL);
    ck_assert_int_eq(status, best != VMK_WATCH_BEST ? VMK_OK : VMK_ERR_UNSUPPORTED);
    if (status == VMK_OK) {
        ck_assert_int_eq(watch.kind, best);
        region.base[5 * page] = 1;
        ck_assert_int_eq(vmk_watch_collect_bits(&watch, 0, 64 * page, &bits, NULL), VMK_OK);
        ck_assert_uint_eq(bits >> 5 & 1, 1);
        vmk_watch_stop(&watch);
    }
    for (int kind = VMK_WATCH_BEST + 1; kind < KINDS; kind++) {
        vmk_watch_options options = by(kind);
        if ((vmk_capabilities()->watch & 1u << kind) == 0)
            ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, page, &options), VMK_ERR_UNSUPPORTED);
    }
    vmk_release(&region);
}
END_TEST

#if defined(VMKIT_MODEL)

static const model_rules rules = {.watch = true};

/* Whichever call of the system fails: a start that fails has changed nothing, a collect loses nothing. */
START_TEST(each_call_may_fail)
{
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        static range r;
        vmk_watch watch;
        uint64_t bits[PAGES / 64 + 1] = {0};
        vmk_run runs[2];
        size_t count, done;
        vmk_region region;
        ck_assert_int_eq(vmk_reserve(&region, 64 * page, NULL), VMK_OK);
        ck_assert_int_eq(vmk_commit(&region, 0, 8 * page), VMK_OK);
        ck_assert_int_eq(vmk_commit(&region, 16 * page, 8 * page), VMK_OK);
        size_t reserved = model_reserved();
        model_fail_nth(n, VMK_ERR_COMMIT, false);
        vmk_status status = vmk_watch_start(&watch, &region, 0, 64 * page, NULL);
        failed = model_failed();
        model_fail_nth(0, VMK_OK, false);
        ck_assert_int_eq(status, failed ? VMK_ERR_COMMIT : VMK_OK);
        ck_assert(!failed || model_reserved() == reserved);
        if (status != VMK_OK)
            ck_assert_int_eq(vmk_watch_start(&watch, &region, 0, 64 * page, NULL), VMK_OK);
        region.base[0]++;
        region.base[17 * page]++;
        region.base[19 * page]++;
        model_fail_nth(n, VMK_ERR_MAPPINGS, false);
        status = vmk_watch_collect(&watch, 0, 64 * page, runs, 2, &count, &done);
        if (model_failed()) {
            failed = true;
            ck_assert_int_eq(status, VMK_ERR_MAPPINGS);
            ck_assert(n == 1 ? count == 0 && done == 0 : count == 1 && done == 16 * page);
        } else {
            ck_assert(status == VMK_OK && count == 2 && done == 19 * page);
        }
        model_fail_nth(n, VMK_ERR_MAPPINGS, false);
        status = vmk_watch_collect_bits(&watch, done, 64 * page - done, bits, NULL);
        ck_assert_int_eq(status, model_failed() ? VMK_ERR_MAPPINGS : VMK_OK);
        model_fail_nth(0, VMK_OK, false);
        ck_assert_int_eq(vmk_watch_collect_bits(&watch, done, 64 * page - done, bits, NULL), VMK_OK);
        size_t at = (19 * page - done) / page;
        ck_assert_uint_eq(bits[at / 64] >> at % 64 & 1, 1);
        vmk_watch_stop(&watch);
        ck_assert_uint_eq(model_reserved(), reserved);
        vmk_release(&region);
        (void)r;
    }
}
END_TEST

/* A decommit that is refused leaves the pages watched. */
START_TEST(a_refused_decommit)
{
    static range r;
    range_start(&r, VMK_WATCH_USERFAULT, 100);
    range_write(&r, 10);
    model_fail_nth(1, VMK_ERR_MAPPINGS, false);
    ck_assert_int_eq(vmk_decommit(&r.region, 0, 50 * page), VMK_ERR_MAPPINGS);
    model_fail_nth(0, VMK_OK, false);
    range_write(&r, 20);
    (void)range_collect(&r, 0, PAGES, 10);
    range_end(&r);
}
END_TEST

static void set_up(void)
{
    model_reset(&rules);
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

/* --- mappings --------------------------------------------------------------------------------------------------- */

START_TEST(a_stop_gives_mappings_back)
{
    static range r;
    if (!able(_i))
        return;
    range_start(&r, _i, PAGES);
    for (size_t i = 0; i < PAGES; i += 32)
        range_write(&r, i);
    vmk_watch_stop(&r.watch);
    size_t mappings = support_mappings(r.region.base, r.region.size);
    ck_assert(mappings == SIZE_MAX || mappings <= 1);
    memset(r.region.base, 7, r.region.size);
    vmk_release(&r.region);
}
END_TEST

/* Beyond what it may take, the handler opens larger pieces, until no more mappings are made; nothing is lost. */
START_TEST(mappings_are_bounded)
{
    static range r;
    if (!able(VMK_WATCH_PROTECT))
        return;
    for (size_t budget = 4; budget <= 64; budget *= 4) {
        vmki_protect_budget_force(budget);
        range_start(&r, VMK_WATCH_PROTECT, PAGES);
        for (int round = 0; round < 3; round++) {
            bool reported[PAGES] = {false};
            uint64_t bits[PAGES / 64 + 1] = {0};
            for (size_t i = 0; i < PAGES; i += 32)
                range_write(&r, i);
            size_t mappings = support_mappings(r.region.base, r.region.size);
            ck_assert(mappings == SIZE_MAX || mappings <= budget + 4);
            ck_assert_int_eq(vmk_watch_collect_bits(&r.watch, 0, PAGES * page, bits, NULL), VMK_OK);
            for (size_t i = 0; i < PAGES; i++) {
                reported[i] = (bits[i / 64] >> i % 64 & 1) != 0;
                ck_assert(reported[i] || !r.notes[i].must);
                r.notes[i].must = false;
            }
        }
        range_end(&r);
    }
    vmki_protect_budget_force(0);
}
END_TEST

/* A collect gives back what it may take: many rounds, and pieces stay small. */
START_TEST(mappings_are_counted_anew)
{
    static range r;
    if (!able(VMK_WATCH_PROTECT))
        return;
    vmki_protect_budget_force(40);
    range_start(&r, VMK_WATCH_PROTECT, PAGES);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < 160; i += 32)
            range_write(&r, i);
        (void)range_collect(&r, 0, PAGES, 100); /* finds no more than the blocks of these */
    }
    range_end(&r);
    vmki_protect_budget_force(0);
}
END_TEST

/* --- static data ------------------------------------------------------------------------------------------------ */

enum { STATIC_SIZE = 1 << 18, STATIC_ALIGN = 1 << 16 };

/* Larger by what aligning may take: object files have limits on alignment. */
static unsigned char of_data[STATIC_SIZE + STATIC_ALIGN] = {1, 2, 3};
static unsigned char of_bss[STATIC_SIZE + STATIC_ALIGN];

static void check_static(unsigned char *array, int kind)
{
    unsigned char *base = array + (vmki_ceil((uintptr_t)array, STATIC_ALIGN) - (uintptr_t)array);
    vmk_watch watch;
    vmk_watch_options options = by(kind);
    vmk_run runs[8];
    size_t count, done, unit = vmki_max(page, kind == VMK_WATCH_PROTECT ? STATIC_ALIGN : 0);
    vmk_status status = vmk_watch_start_static(&watch, base, STATIC_SIZE, &options);
    if (kind == VMK_WATCH_WRITE_WATCH) {
        ck_assert_int_eq(status, VMK_ERR_UNSUPPORTED);
        return;
    }
    ck_assert_int_eq(status, VMK_OK);
    ck_assert_ptr_null(watch.region);
    for (int round = 1; round < 4; round++) {
        base[0]++;
        base[2 * STATIC_ALIGN + 5]++;
        ck_assert_int_eq(vmk_watch_collect(&watch, 0, STATIC_SIZE, runs, 8, &count, &done), VMK_OK);
        ck_assert_uint_eq(count, 2);
        ck_assert(runs[0].offset == 0 && runs[0].size == unit);
        ck_assert(runs[1].offset == 2 * STATIC_ALIGN && runs[1].size == unit);
    }
    ck_assert_uint_eq(base[2 * STATIC_ALIGN + 5], 3);
    vmk_watch_stop(&watch);
    memset(base, 0, STATIC_SIZE);
}

START_TEST(static_data)
{
    if (!able(_i))
        return;
    check_static(of_data, _i);
    check_static(of_bss, _i);
}
END_TEST

/* vmkit's own: the list of watches, the lock that a collect takes. */
START_TEST(static_data_of_the_library)
{
    vmk_watch watches[2];
    uintptr_t first = vmki_floor((uintptr_t)&vmki_watches, page),
              second = vmki_floor((uintptr_t)&vmki_vm_watcher, page);
    vmk_watch_options options = by(_i);
    vmk_run runs[8];
    size_t count, done;
    if (!able(_i) || _i == VMK_WATCH_WRITE_WATCH)
        return;
    ck_assert_int_eq(vmk_watch_start_static(&watches[0], (void *)first, page, &options), VMK_OK);
    bool two = first != second;
    if (two)
        ck_assert_int_eq(vmk_watch_start_static(&watches[1], (void *)second, page, &options), VMK_OK);
    for (int round = 0; round < 5; round++) {
        static range r;
        range_start(&r, _i, 50);
        range_write(&r, 7);
        (void)range_collect(&r, 0, PAGES, 10);
        range_end(&r);
        ck_assert_int_eq(vmk_watch_collect(&watches[0], 0, page, runs, 8, &count, &done), VMK_OK);
        ck_assert_uint_eq(count, 1);
    }
    vmk_watch_stop(&watches[0]);
    if (two)
        vmk_watch_stop(&watches[1]);
}
END_TEST

static const unsigned char constants[1 << 16] = {1};

START_TEST(what_is_not_writable_is_refused)
{
    vmk_watch watch;
    vmk_region region;
    uintptr_t base = vmki_ceil((uintptr_t)constants, page);
    ck_assert_int_eq(vmk_watch_start_static(&watch, (void *)base, page, NULL), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_reserve(&region, 4 * page, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(&region, 0, 2 * page), VMK_OK);
    ck_assert_int_eq(vmk_watch_start_static(&watch, region.base, 4 * page, NULL), VMK_ERR_UNSUPPORTED);
    vmk_release(&region);
}
END_TEST

/* --- writes by the system --------------------------------------------------------------------------------------- */

START_TEST(what_the_system_writes)
{
    static range r;
    static const char name[] = "vmkit-test-watch.tmp";
    if (!able(_i) || _i == VMK_WATCH_PROTECT)
        return;
    FILE *file = fopen(name, "w+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(setvbuf(file, NULL, _IONBF, 0), 0);
    static unsigned char contents[1 << 14];
    memset(contents, 9, sizeof contents);
    ck_assert_uint_eq(fwrite(contents, 1, sizeof contents, file), sizeof contents);
    rewind(file);
    range_start(&r, _i, PAGES);
    vmk_watch_stop(&r.watch);
    vmk_watch_options options = {.kind = (vmk_watch_kind)_i, .flags = VMK_WATCH_SYSTEM};
    ck_assert_int_eq(vmk_watch_start(&r.watch, &r.region, 0, PAGES * page, &options), VMK_OK);
    ck_assert_uint_eq(fread(r.region.base + 20 * page, 1, sizeof contents, file), sizeof contents);
    ck_assert_uint_eq(r.region.base[20 * page + sizeof contents - 1], 9);
    for (size_t i = 0; i < sizeof contents; i += page)
        r.notes[20 + i / page].must = true;
    (void)range_collect(&r, 0, PAGES, 10);
    range_end(&r);
    fclose(file);
    ck_assert_int_eq(remove(name), 0);
}
END_TEST

#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("watch");
    TCase *tests = tcase_create("watch");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, single_writes_are_reported_once, 0, KINDS);
    tcase_add_loop_test(tests, a_little_room_takes_more_calls, 0, KINDS);
    tcase_add_loop_test(tests, random_operations, 0, KINDS);
    tcase_add_loop_test(tests, what_is_new_is_watched, 0, KINDS);
    tcase_add_loop_test(tests, watches_side_by_side, 0, KINDS);
    tcase_add_loop_test(tests, prefault_and_protection, 0, KINDS);
    tcase_add_loop_test(tests, error_codes_are_left_alone, 0, KINDS);
    tcase_add_loop_test(tests, what_is_refused, 0, KINDS);
    tcase_add_test(tests, without_options);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, each_call_may_fail);
    tcase_add_test(tests, a_refused_decommit);
#else
    tcase_add_loop_test(tests, a_stop_gives_mappings_back, 0, KINDS);
    tcase_add_test(tests, mappings_are_bounded);
    tcase_add_test(tests, mappings_are_counted_anew);
    tcase_add_loop_test(tests, static_data, 0, KINDS);
    tcase_add_loop_test(tests, static_data_of_the_library, 0, KINDS);
    tcase_add_test(tests, what_is_not_writable_is_refused);
    tcase_add_loop_test(tests, what_the_system_writes, 0, KINDS);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
