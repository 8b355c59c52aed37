/* SPDX-License-Identifier: MIT
 *
 * The set of free pages, dense and sparse, against a byte for each page.
 */
#include <stdlib.h>
#include <string.h>

#include "common/heap/pages.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model.h"
#endif

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

#define NONE SIZE_MAX
#define CHUNK ((size_t)VMKI_CHUNK_PAGES)
#define FREE_BIT (1u << VMKI_PAGE_FREE)
#define MISALIGNED 16 /* see vmki_pages_find */

/* A set, and what should be in it. */
typedef struct world {
    vmk_region region;
    vmki_pages pages;
    size_t chunks;
    size_t bias;
    bool sparse;
    bool focused;   /* only the ends and the middle of the window are used */
    bool *ready;    /* by chunk */
    uint8_t *bits;  /* by page: what is known of it, a bit each */
    size_t is_free; /* pages */
    support_random random;
} world;

static size_t below(world *w, size_t limit)
{
    return support_random_below(&w->random, limit);
}

static size_t all_pages(const world *w)
{
    return w->chunks * CHUNK;
}

static void world_start(world *w, size_t chunks, bool sparse, size_t bias)
{
    size_t os_page = vmk_page_size();
    *w = (world){.chunks = chunks, .bias = bias, .sparse = sparse, .random = support_random_start(chunks * 2 + sparse)};
    w->ready = calloc(chunks, sizeof *w->ready);
    w->bits = calloc(chunks, CHUNK);
    ck_assert(w->ready != NULL && w->bits != NULL);
    size_t space = vmki_pages_space(chunks, sparse);
    ck_assert_uint_eq(space % os_page, 0);
    ck_assert_int_eq(vmk_reserve(&w->region, space + 2 * os_page, NULL), VMK_OK);
    ck_assert_int_eq(vmki_pages_init(&w->pages, &w->region, os_page, chunks, sparse, bias), VMK_OK);
    ck_assert_uint_eq(w->region.committed, 0);
    ck_assert_uint_eq(vmki_pages_committed(&w->pages), 0);
    ck_assert(vmki_pages_check(&w->pages));
    ck_assert_uint_eq(vmki_pages_find(&w->pages, 1, 1), NONE);
}

static void world_end(world *w)
{
    ck_assert(vmki_pages_check(&w->pages));
    ck_assert_uint_eq(vmki_pages_committed(&w->pages), w->region.committed);
    ck_assert_int_eq(vmk_region_query(&w->region, w->region.size - 1, NULL), VMK_STATE_RESERVED); /* behind its part */
    vmk_release(&w->region);
    free(w->ready);
    free(w->bits);
}

/* --- the simple way ------------------------------------------------------------------------------------------------
 */

static bool bit_of(const world *w, vmki_page_bit bit, size_t page)
{
    unsigned bits = w->bits[page], is_free = bits >> VMKI_PAGE_FREE & 1, held = bits >> VMKI_PAGE_HELD & 1;
    if (bit == VMKI_PAGE_IDLE)
        return is_free && held;
    if (bit == VMKI_PAGE_RELEASED)
        return is_free && !held;
    return (bits >> bit & 1) != 0;
}

static bool is_free(const world *w, size_t page)
{
    return (w->bits[page] & FREE_BIT) != 0;
}

/* How many pages from `page` on are in chunks that are ready, up to `most`. */
static size_t ready_from(const world *w, size_t page, size_t most)
{
    size_t count = 0;
    while (count < most && page + count < all_pages(w) && w->ready[(page + count) / CHUNK])
        count += CHUNK - (page + count) % CHUNK;
    return count < most ? count : most;
}

/* How many pages from `page` on are free, or are not, up to `most`. */
static size_t same_from(const world *w, bool value, size_t page, size_t most)
{
    size_t count = 0;
    while (count < most && is_free(w, page + count) == value)
        count++;
    return count;
}

/* What a search may answer. */
typedef struct answers {
    size_t lowest; /* NONE: none */
    size_t roomy;  /* the first that is aligned in the lowest run where alignment can't matter */
    size_t misaligned;
} answers;

static size_t aligned(const world *w, size_t page, size_t align)
{
    return page + (align - (page + w->bias) % align) % align;
}

/* Run by run. */
static answers search(const world *w, size_t count, size_t align)
{
    answers a = {NONE, NONE, 0};
    for (size_t page = 0; page < all_pages(w) && a.roomy == NONE;) {
        if (!w->ready[page / CHUNK]) {
            page += CHUNK - page % CHUNK;
            continue;
        }
        const uint8_t *bits = w->bits;
        size_t run = 0, rest = all_pages(w) - page;
        while (run < rest && (bits[page + run] & FREE_BIT) != 0)
            run++;
        if (run >= count) {
            size_t at = aligned(w, page, align);
            if (at - page <= run - count && a.lowest == NONE)
                a.lowest = at;
            a.misaligned += a.lowest == NONE;
            if (run - count >= align - 1)
                a.roomy = at;
        }
        page += run + 1;
    }
    return a;
}

static void compare_find(const world *w, size_t count, size_t align)
{
    size_t found = vmki_pages_find(&w->pages, count, align);
    answers a = search(w, count, align);
    if (found == a.lowest)
        return;
    MUST(a.misaligned >= MISALIGNED);
    MUST(found == a.roomy);
}

/* --- changing both -------------------------------------------------------------------------------------------------
 */

static void change(world *w, bool value, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        w->bits[i] = (uint8_t)(value ? w->bits[i] | FREE_BIT : w->bits[i] & ~FREE_BIT);
    w->is_free = value ? w->is_free + count : w->is_free - count;
    if (value)
        vmki_pages_set_free(&w->pages, first, count);
    else
        vmki_pages_set_used(&w->pages, first, count);
    MUST(w->pages.free_count == w->is_free);
}

static void assign(world *w, vmki_page_bit bit, size_t first, size_t count, bool value)
{
    for (size_t i = first; i < first + count; i++)
        w->bits[i] = (uint8_t)(value ? w->bits[i] | 1u << bit : w->bits[i] & ~(1u << bit));
    vmki_pages_assign(&w->pages, bit, first, count, value);
}

static vmk_status ensure(world *w, size_t first, size_t count)
{
    vmk_status status = vmki_pages_ensure(&w->pages, first, count);
    if (status == VMK_OK && count != 0)
        for (size_t i = w->sparse ? first / CHUNK : 0; i <= (first + count - 1) / CHUNK; i++)
            w->ready[i] = true;
    return status;
}

static size_t ready_limit(const world *w)
{
    size_t limit = w->chunks;
    while (limit > 0 && !w->ready[limit - 1])
        limit--;
    return limit;
}

/* Make chunks that are ready empty, and drop them. */
static void drop(world *w, size_t first_chunk, size_t count)
{
    size_t limit = (first_chunk + count) * CHUNK;
    for (size_t page = first_chunk * CHUNK, run; page < limit; page += run) {
        bool value = is_free(w, page);
        run = same_from(w, value, page, limit - page);
        if (value)
            change(w, false, page, run);
    }
    for (vmki_page_bit bit = VMKI_PAGE_HELD; bit < VMKI_PAGE_BITS; bit++)
        assign(w, bit, first_chunk * CHUNK, count * CHUNK, false);
    bool gone = w->sparse || ready_limit(w) == first_chunk + count;
    vmki_pages_drop(&w->pages, first_chunk, count);
    for (size_t i = first_chunk; i < first_chunk + count; i++)
        w->ready[i] = !gone;
    MUST(w->pages.chunk_limit == ready_limit(w));
}

/* --- at random -----------------------------------------------------------------------------------------------------
 */

static size_t random_page(world *w)
{
    if (!w->focused || w->chunks < 16)
        return below(w, all_pages(w));
    static const unsigned spots[] = {0, 0, 1, 2, 2, 2, 3};
    size_t spot = spots[below(w, 7)], near = below(w, 8 * CHUNK);
    if (spot == 3)
        return below(w, all_pages(w));
    return spot == 0 ? near : spot == 1 ? all_pages(w) / 2 - 4 * CHUNK + near : all_pages(w) - 1 - near;
}

/* One page, a few, some hundreds, chunks. */
static size_t random_count(world *w)
{
    switch (below(w, 8)) {
    case 0:
        return 1;
    case 1:
    case 2:
        return 1 + below(w, 8);
    case 3:
        return 64 * (1 + below(w, 8)) - below(w, 3);
    case 4:
    case 5:
        return 1 + below(w, 300);
    case 6:
        return CHUNK * (1 + below(w, 3)) - below(w, 3);
    default:
        return below(w, 32) == 0 ? 1 + below(w, all_pages(w)) : 1 + below(w, 20 * CHUNK);
    }
}

/* A place that is ready; false if the one that came up isn't. */
static bool random_range(world *w, size_t *first, size_t *count)
{
    *first = random_page(w);
    if (below(w, 4) == 0)
        *first -= *first % (below(w, 2) == 0 ? CHUNK : 64);
    *count = ready_from(w, *first, random_count(w));
    return *count != 0;
}

/* Freeing comes in waves, so that the set fills and empties. */
static void random_change(world *w, size_t step)
{
    size_t first, count;
    bool value = below(w, 8) < (step / 1000 % 2 == 0 ? 5u : 3u);
    if (!random_range(w, &first, &count))
        return;
    if (!value && below(w, 2) == 0) { /* as an allocator does */
        first = vmki_pages_find(&w->pages, count, 1);
        if (first == NONE)
            return;
        MUST(same_from(w, true, first, count) == count);
    }
    for (size_t limit = first + count; first < limit; first += count) {
        bool now = is_free(w, first);
        count = same_from(w, now, first, limit - first);
        if (now != value)
            change(w, value, first, count);
    }
}

static void random_assign(world *w)
{
    size_t first, count;
    if (random_range(w, &first, &count))
        assign(w, (vmki_page_bit)(VMKI_PAGE_HELD + below(w, 3)), first, count, below(w, 2) != 0);
}

/* Everything that asks about a range. */
static void random_questions(world *w)
{
    static const vmki_page_bit bits[] = {VMKI_PAGE_FREE,  VMKI_PAGE_HELD, VMKI_PAGE_DIRTY,
                                         VMKI_PAGE_MARKS, VMKI_PAGE_IDLE, VMKI_PAGE_RELEASED};
    size_t first, count, sum = 0;
    vmki_page_bit bit = bits[below(w, 6)];
    bool value = below(w, 2) != 0;
    if (!random_range(w, &first, &count))
        return;
    size_t limit = first + count, at = first, start, length;
    for (size_t i = first; i < limit; i++)
        sum += bit_of(w, bit, i);
    MUST(vmki_pages_count(&w->pages, bit, first, count) == sum);
    MUST(vmki_pages_all(&w->pages, bit, true, first, count) == (sum == count));
    MUST(vmki_pages_all(&w->pages, bit, false, first, count) == (sum == 0));
    for (start = first; vmki_pages_next(&w->pages, bit, value, &start, limit, &length); start += length) {
        for (; at < start; at++)
            MUST(bit_of(w, bit, at) != value);
        MUST(length != 0 && length <= limit - start);
        for (; at < start + length; at++)
            MUST(bit_of(w, bit, at) == value);
        MUST(at == limit || bit_of(w, bit, at) != value);
    }
    for (; at < limit; at++)
        MUST(bit_of(w, bit, at) != value);
    for (start = limit; vmki_pages_previous(&w->pages, bit, first, &start, &length);) { /* the same, from the end */
        for (; at > start + length; at--)
            MUST(!bit_of(w, bit, at - 1));
        for (; at > start; at--)
            MUST(bit_of(w, bit, at - 1));
        MUST(length != 0 && start >= first && (at == first || !bit_of(w, bit, at - 1)));
    }
    for (; at > first; at--)
        MUST(!bit_of(w, bit, at - 1));
    size_t before = 0;
    while (before < count && is_free(w, limit - before - 1))
        before++;
    MUST(vmki_pages_free_before(&w->pages, first, limit) == before);
    MUST(vmki_pages_free_before(&w->pages, limit, limit) == 0);
}

static void random_memory(world *w)
{
    size_t page = random_page(w);
    if (below(w, 3) != 0) {
        size_t most = all_pages(w) - page, count = random_count(w);
        MUST(ensure(w, page, count < most ? count : most) == VMK_OK);
        return;
    }
    size_t chunk = page / CHUNK;
    if (!w->sparse && below(w, 2) == 0 && ready_limit(w) > 2) /* a dense one drops only its end */
        chunk = ready_limit(w) - 1 - below(w, 3) % (ready_limit(w) - 1);
    size_t count = ready_from(w, chunk * CHUNK, (1 + below(w, 3)) * CHUNK) / CHUNK;
    if (count != 0)
        drop(w, chunk, count);
}

static void random_find(world *w)
{
    size_t count = random_count(w), align = (size_t)1 << below(w, below(w, 2) == 0 ? 1 : 14);
    compare_find(w, count, align);
    if (count > 40)
        compare_find(w, 1 + below(w, 40), align);
}

static void random_test(size_t chunks, bool sparse, bool focused, size_t steps, size_t between_finds,
                        size_t between_checks)
{
    world w;
    world_start(&w, chunks, sparse, chunks % 5 * 1000 + 7);
    w.focused = focused;
    for (size_t step = 0; step < steps; step++) {
        if (below(&w, 16) == 0)
            random_memory(&w);
        else if (below(&w, 8) == 0)
            random_assign(&w);
        else
            random_change(&w, step);
        random_questions(&w);
        if (step % between_finds == 0)
            random_find(&w);
        if (step % between_checks == 0)
            MUST(vmki_pages_check(&w.pages));
    }
    world_end(&w);
}

static void random_tests(bool sparse)
{
    random_test(1, sparse, false, support_rounds(6000), 1, 1);
    random_test(2, sparse, false, support_rounds(6000), 1, 1);
    random_test(17, sparse, false, support_rounds(6000), 3, 5);
    random_test(33, sparse, false, support_rounds(6000), 5, 10);
    random_test(300, sparse, true, support_rounds(4000), 20, 50);
    random_test(4000, sparse, true, support_rounds(3000), 50, 500);
}

START_TEST(random_dense)
{
    random_tests(false);
}
END_TEST

START_TEST(random_sparse)
{
    random_tests(true);
}
END_TEST

/* --- by hand -------------------------------------------------------------------------------------------------------
 */

static const size_t sizes[] = {1, 2, 15, 16, 17, 32, 33, 256, 257, 512, 513, 1030};

START_TEST(all_of_a_window)
{
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        world w;
        world_start(&w, sizes[i / 2], i % 2 != 0, 0);
        size_t all = all_pages(&w);
        ck_assert_int_eq(ensure(&w, 0, all), VMK_OK);
        change(&w, true, 0, all);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, all, 1), 0);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, all + 1, 1), NONE);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, SIZE_MAX, 1), NONE);
        ck_assert_uint_eq(vmki_pages_free_before(&w.pages, 0, all), all);
        ck_assert_uint_eq(vmki_pages_count(&w.pages, VMKI_PAGE_RELEASED, 0, all), all);
        ck_assert(vmki_pages_check(&w.pages));
        change(&w, false, all / 2, 1);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, all / 2, 1), 0);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, all / 2 + 1, 1), NONE);
        ck_assert_uint_eq(vmki_pages_free_before(&w.pages, 0, all), all / 2 - 1);
        ck_assert(vmki_pages_check(&w.pages));
        change(&w, false, 0, all / 2);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 1), all / 2 + 1);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, all / 2 - 1, 1), all / 2 + 1);
        ck_assert_uint_ge(w.pages.lowest, all / 2); /* what was used up is not looked at again */
        change(&w, false, all / 2 + 1, all / 2 - 1);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 1), NONE);
        ck_assert_uint_eq(w.pages.lowest, all);
        ck_assert(vmki_pages_check(&w.pages));
        change(&w, true, all - 1, 1); /* the last page */
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 1), all - 1);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 2, 1), NONE);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 2), NONE);
        change(&w, true, 0, 1); /* it does not go on at the other end */
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 2, 1), NONE);
        ck_assert(vmki_pages_check(&w.pages));
        world_end(&w);
    }
}
END_TEST

/* A run over each boundary between two chunks, and so between nodes of every level, with others in its way. */
START_TEST(across_every_boundary)
{
    world w;
    world_start(&w, 600, true, 0);
    size_t all = all_pages(&w);
    ck_assert_int_eq(ensure(&w, 0, all), VMK_OK);
    for (size_t chunk = 0; chunk < w.chunks; chunk++)
        change(&w, true, chunk * CHUNK + 100, 30);
    for (size_t edge = CHUNK; edge < all; edge += CHUNK) {
        static const size_t halves[][2] = {{20, 20}, {1, 30}, {30, 1}, {64, 64}, {31, 600}, {600, 31}, {1, 1600}};
        const size_t *half = halves[edge / CHUNK % 7];
        size_t first = edge > half[0] ? edge - half[0] : 0, limit = edge + half[1] < all ? edge + half[1] : all;
        for (size_t page = first, run; page < limit; page += run) {
            bool had = is_free(&w, page);
            run = same_from(&w, had, page, limit - page);
            if (!had)
                change(&w, true, page, run);
        }
        compare_find(&w, 31, 1);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, limit - first, 1), first);
        ck_assert_uint_eq(vmki_pages_free_before(&w.pages, first, limit), limit - first);
        change(&w, false, first, limit - first);
        for (size_t chunk = first / CHUNK; chunk <= (limit - 1) / CHUNK; chunk++)
            if (!is_free(&w, chunk * CHUNK + 115))
                change(&w, true, chunk * CHUNK + 115, 1);
    }
    ck_assert(vmki_pages_check(&w.pages));
    world_end(&w);
}
END_TEST

/* Runs of eight that are all off by one, one of eight that is not, and at last one of fifteen. */
static size_t find_behind_misaligned(size_t misaligned, bool roomy)
{
    world w;
    world_start(&w, 2, false, 5);
    ck_assert_int_eq(ensure(&w, 0, all_pages(&w)), VMK_OK);
    change(&w, true, 0, 1);
    for (size_t i = 0; i < misaligned; i++)
        change(&w, true, 3 + 1 + 16 * i, 8); /* bias 5: pages 3, 11, 19 ... are aligned */
    change(&w, true, 515, 8);
    if (roomy)
        change(&w, true, 516 + 16, 15);
    size_t found = vmki_pages_find(&w.pages, 8, 8);
    world_end(&w);
    return found;
}

START_TEST(many_misaligned_runs)
{
    ck_assert_uint_eq(find_behind_misaligned(0, true), 515);
    ck_assert_uint_eq(find_behind_misaligned(MISALIGNED - 1, true), 515);
    ck_assert_uint_eq(find_behind_misaligned(MISALIGNED, true), 539);
    ck_assert_uint_eq(find_behind_misaligned(MISALIGNED, false), 515);
    ck_assert_uint_eq(find_behind_misaligned(30, true), 539);
    ck_assert_uint_eq(find_behind_misaligned(30, false), 515);
}
END_TEST

/* The last run that is looked at is itself one that is long enough for any alignment. */
START_TEST(the_last_of_many_misaligned_runs)
{
    world w;
    world_start(&w, 2, false, 5);
    ck_assert_int_eq(ensure(&w, 0, all_pages(&w)), VMK_OK);
    change(&w, true, 0, 1);
    for (size_t i = 0; i < MISALIGNED - 1; i++)
        change(&w, true, 3 + 1 + 16 * i, 8);
    change(&w, true, 516, 15);
    change(&w, true, 516 + 32, 15);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 8, 8), 523);
    world_end(&w);
}
END_TEST

/* The longest run of a chunk is cut, and the next is known from the bits alone, at each place and of each length that a
 * word can hold. */
START_TEST(the_next_longest_run)
{
    world w;
    world_start(&w, 1, false, 0);
    ck_assert_int_eq(ensure(&w, 0, CHUNK), VMK_OK);
    for (size_t length = 1; length <= 66; length++) {
        for (size_t first = 64; first < 196; first++) {
            change(&w, true, 0, length - 1 + (length == 1)); /* shorter, and seen first */
            change(&w, true, first + 10, length);
            change(&w, true, 300, 100);
            change(&w, false, 350, 50);
            change(&w, false, 300, 50);
            MUST(vmki_pages_check(&w.pages));
            change(&w, false, first + 10, length);
            change(&w, false, 0, length - 1 + (length == 1));
        }
    }
    world_end(&w);
}
END_TEST

START_TEST(alignment_larger_than_the_window)
{
    world w;
    world_start(&w, 3, false, 100);
    ck_assert_int_eq(ensure(&w, 0, all_pages(&w)), VMK_OK);
    change(&w, true, 0, all_pages(&w));
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 7, 1024), 924);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, all_pages(&w) - 924, 1024), 924);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, all_pages(&w) - 923, 1024), NONE);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 4096), NONE);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, SIZE_MAX / 2 + 1), NONE);
    world_end(&w);
    world_start(&w, 3, false, SIZE_MAX - 1000); /* an alignment that can't be rounded up to */
    ck_assert_int_eq(ensure(&w, 0, all_pages(&w)), VMK_OK);
    change(&w, true, 0, 900);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 4096), NONE);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 512), 489);
    world_end(&w);
}
END_TEST

/* --- memory --------------------------------------------------------------------------------------------------------
 */

/* Without the record of what a sparse table has, which stays for the next time. */
static size_t committed(const world *w)
{
    vmk_table_stats stats;
    vmk_table_stats_now(&w->pages.chunks, &stats);
    return vmki_pages_committed(&w->pages) - stats.overhead;
}

START_TEST(memory_follows_what_is_ensured)
{
    for (int sparse = 0; sparse < 2; sparse++) {
        world w;
        world_start(&w, 6000, sparse != 0, 0);
        ck_assert_int_eq(ensure(&w, 0, 0), VMK_OK);
        ck_assert_uint_eq(w.region.committed, 0);
        ck_assert_int_eq(ensure(&w, 10 * CHUNK + 3, 1), VMK_OK);
        size_t little = committed(&w);
        ck_assert_uint_gt(little, 0);
        ck_assert_uint_le(little, (2 + w.pages.level_count) * vmk_page_size());
        ck_assert_int_eq(ensure(&w, 10 * CHUNK, CHUNK), VMK_OK); /* again: nothing */
        ck_assert_uint_eq(committed(&w), little);
        *vmki_pages_time(&w.pages, 10) = 5;
        ck_assert_int_eq(ensure(&w, 5990 * CHUNK - 1, 2), VMK_OK);
        ck_assert_uint_eq(w.pages.chunk_limit, 5991);
        ck_assert_uint_ge(committed(&w), 5991 * sizeof(vmki_summary) + (sparse ? 0 : 5991 * sizeof(vmki_chunk)));
        change(&w, true, 5990 * CHUNK - 1, 2);
        *vmki_pages_time(&w.pages, 5990) = 1;
        ck_assert_uint_eq(*vmki_pages_time(&w.pages, 10), 5);
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 2, 1), 5990 * CHUNK - 1);
        ck_assert(vmki_pages_check(&w.pages));
        drop(&w, sparse ? 5989 : 11, sparse ? 2 : 5980);
        ck_assert_uint_eq(w.pages.chunk_limit, 11); /* a sparse one finds what is last now */
        ck_assert_uint_eq(committed(&w), little);
        ck_assert_uint_eq(*vmki_pages_time(&w.pages, 10), 5);
        ck_assert(vmki_pages_check(&w.pages));
        ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 1), NONE);
        ck_assert_int_eq(ensure(&w, 5990 * CHUNK, 1), VMK_OK);
        ck_assert_uint_eq(*vmki_pages_time(&w.pages, 5990), 0);
        ck_assert(vmki_pages_all(&w.pages, VMKI_PAGE_FREE, false, 5990 * CHUNK, CHUNK));
        size_t much = committed(&w);
        drop(&w, 10, 1); /* not at the end */
        ck_assert(w.ready[10] == !sparse);
        if (sparse)
            ck_assert_uint_lt(committed(&w), much);
        else
            ck_assert_uint_eq(committed(&w), much);
        drop(&w, sparse ? 5990 : 0, sparse ? 1 : 5991);
        ck_assert_uint_eq(committed(&w), 0);
        world_end(&w);
    }
}
END_TEST

/* A chunk that is not ready has neighbours that are: nothing is read there, and runs end where it begins. */
START_TEST(holes_of_a_sparse_set)
{
    world w;
    world_start(&w, 700, true, 0);
    for (size_t chunk = 1; chunk < 700; chunk += 2) {
        ck_assert_int_eq(ensure(&w, chunk * CHUNK, CHUNK), VMK_OK);
        change(&w, true, chunk * CHUNK, CHUNK);
    }
    ck_assert(vmki_pages_check(&w.pages));
    ck_assert_uint_eq(vmki_pages_find(&w.pages, CHUNK, 1), CHUNK);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, CHUNK + 1, 1), NONE);
    ck_assert_uint_eq(vmki_pages_free_before(&w.pages, 699 * CHUNK, 700 * CHUNK), CHUNK);
    change(&w, false, CHUNK, CHUNK);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 1), 3 * CHUNK);
    ck_assert_int_eq(ensure(&w, 0, 700 * CHUNK), VMK_OK);
    ck_assert(vmki_pages_check(&w.pages));
    change(&w, true, 400 * CHUNK, CHUNK);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, CHUNK + 1, 1), 399 * CHUNK);
    ck_assert_uint_eq(vmki_pages_find(&w.pages, 3 * CHUNK, 1), 399 * CHUNK);
    world_end(&w);
}
END_TEST

#ifndef VMKIT_MODEL
/* Six levels, counts past 32 bits, and the far end. Only where there is room for it. */
START_TEST(the_largest_window)
{
    if (sizeof(size_t) < 8)
        return;
    static vmki_pages pages;
    vmk_region region;
    size_t all = ((uint64_t)VMKI_CHUNKS_MAX << VMKI_CHUNK_SHIFT) & SIZE_MAX,
           size = vmki_pages_space(VMKI_CHUNKS_MAX, true);
    if (vmk_reserve(&region, size, NULL) != VMK_OK)
        return;
    ck_assert_int_eq(vmki_pages_init(&pages, &region, 0, VMKI_CHUNKS_MAX, true, 0), VMK_OK);
    ck_assert_uint_eq(pages.level_count, VMKI_LEVELS_MAX);
    vmk_status status = vmki_pages_ensure(&pages, all - 3 * CHUNK, 3 * CHUNK);
    if (status == VMK_OK) {
        ck_assert_int_eq(vmki_pages_ensure(&pages, 0, 1), VMK_OK);
        vmki_pages_set_free(&pages, all - 2 * CHUNK - 5, 2 * CHUNK + 5);
        ck_assert_uint_eq(vmki_pages_find(&pages, 2 * CHUNK + 5, 1), all - 2 * CHUNK - 5);
        ck_assert_uint_eq(vmki_pages_find(&pages, 2 * CHUNK + 6, 1), NONE);
        vmki_pages_set_free(&pages, 7, 3);
        ck_assert_uint_eq(vmki_pages_find(&pages, 3, 1), 7);
        ck_assert_uint_eq(vmki_pages_find(&pages, 4, 1), all - 2 * CHUNK - 5);
        ck_assert_uint_eq(vmki_pages_find(&pages, 4, CHUNK), all - 2 * CHUNK);
        ck_assert_uint_eq(vmki_pages_free_before(&pages, all - 3 * CHUNK, all), 2 * CHUNK + 5);
        vmki_pages_set_used(&pages, all - 2 * CHUNK - 5, 2 * CHUNK + 5);
        ck_assert_uint_eq(vmki_pages_find(&pages, 4, 1), NONE);
        vmki_pages_drop(&pages, VMKI_CHUNKS_MAX - 3, 3);
        ck_assert_uint_eq(pages.chunk_limit, 1);
        ck_assert_uint_lt(vmki_pages_committed(&pages), (size_t)1 << 20);
    } else {
        ck_assert_int_eq(status, VMK_ERR_COMMIT);
        ck_assert_uint_eq(vmk_table_ready(&pages.levels[0]), 0);
    }
    vmk_release(&region);
}
END_TEST
#endif

#ifdef VMKIT_MODEL
/* Every call of the system in an ensure fails once: nothing has changed, and it succeeds when it is repeated. */
static void ensure_with_failures(world *w, size_t first, size_t count)
{
    for (uint64_t n = 1;; n++) {
        size_t before = committed(w), limit = w->pages.chunk_limit, ready[VMKI_LEVELS_MAX] = {0};
        vmk_status why = n % 2 == 0 ? VMK_ERR_COMMIT : VMK_ERR_MAPPINGS;
        for (unsigned level = 0; level < w->pages.level_count; level++)
            ready[level] = vmk_table_ready(&w->pages.levels[level]);
        model_fail_nth(n, why, false);
        vmk_status status = ensure(w, first, count);
        bool failed = model_failed();
        model_fail_nth(0, VMK_OK, false);
        ck_assert_int_eq(status, failed ? why : VMK_OK);
        if (!failed)
            break;
        ck_assert_uint_eq(committed(w), before);
        ck_assert_uint_eq(w->pages.chunk_limit, limit);
        for (unsigned level = 0; level < w->pages.level_count; level++)
            ck_assert_uint_eq(vmk_table_ready(&w->pages.levels[level]), ready[level]);
        for (size_t chunk = 0; w->sparse && chunk < w->chunks; chunk++)
            MUST(vmk_table_is_ready(&w->pages.chunks, 0, chunk) == w->ready[chunk]);
        ck_assert(vmki_pages_check(&w->pages));
    }
}

START_TEST(ensure_is_all_or_nothing)
{
    for (int sparse = 0; sparse < 2; sparse++) {
        world w;
        model_reset(NULL);
        world_start(&w, 6000, sparse != 0, 0);
        size_t failing = 0;
        for (size_t step = 0; step < 40; step++) {
            size_t page = below(&w, 1 + step * step * all_pages(&w) / 1600);
            size_t count = 1 + below(&w, 3 * CHUNK);
            count = count < all_pages(&w) - page ? count : all_pages(&w) - page;
            uint64_t calls = model_fallible_calls();
            ensure_with_failures(&w, page, count);
            failing += model_fallible_calls() != calls;
            size_t run = same_from(&w, false, page, count);
            if (run != 0)
                change(&w, true, page, run);
            compare_find(&w, 1 + below(&w, CHUNK), 1);
        }
        ck_assert_uint_gt(failing, 0);
        world_end(&w);
        ck_assert_ptr_null(model_violation());
    }
}
END_TEST

/* A drop has no status: what can't be given back stays, empty, and can be used again. */
START_TEST(drop_can_fail_in_peace)
{
    for (int sparse = 0; sparse < 2; sparse++) {
        bool reached = true;
        for (uint64_t n = 1; reached; n++) {
            world w;
            model_reset(NULL);
            world_start(&w, 3000, sparse != 0, 0);
            ck_assert_int_eq(ensure(&w, 0, 20 * CHUNK), VMK_OK);
            ck_assert_int_eq(ensure(&w, 2000 * CHUNK, 1000 * CHUNK), VMK_OK);
            change(&w, true, CHUNK, CHUNK);
            model_fail_nth(n, VMK_ERR_COMMIT, n % 2 == 0);
            vmki_pages_drop(&w.pages, 2001, 999);
            reached = model_failed();
            model_fail_nth(0, VMK_OK, false);
            ck_assert(vmki_pages_check(&w.pages));
            ck_assert_uint_eq(vmki_pages_find(&w.pages, 1, 1), CHUNK);
            ck_assert_uint_eq(vmki_pages_find(&w.pages, CHUNK + 1, 1), NONE);
            ck_assert_int_eq(ensure(&w, 2000 * CHUNK, 1000 * CHUNK), VMK_OK);
            ck_assert(vmki_pages_all(&w.pages, VMKI_PAGE_FREE, false, 2000 * CHUNK, 1000 * CHUNK));
            change(&w, true, 2000 * CHUNK, 1000 * CHUNK);
            ck_assert_uint_eq(vmki_pages_find(&w.pages, CHUNK + 1, 1), 2000 * CHUNK);
            world_end(&w);
            ck_assert_ptr_null(model_violation());
            ck_assert_uint_lt(n, 100);
            ck_assert(reached || n > 1);
        }
    }
}
END_TEST
#endif

static Suite *suite(void)
{
    Suite *s = suite_create("heap_pages");
    TCase *c = tcase_create("heap_pages");
    tcase_set_timeout(c, 0);
    tcase_add_test(c, random_dense);
    tcase_add_test(c, random_sparse);
    tcase_add_test(c, all_of_a_window);
    tcase_add_test(c, across_every_boundary);
    tcase_add_test(c, many_misaligned_runs);
    tcase_add_test(c, the_last_of_many_misaligned_runs);
    tcase_add_test(c, the_next_longest_run);
    tcase_add_test(c, alignment_larger_than_the_window);
    tcase_add_test(c, memory_follows_what_is_ensured);
    tcase_add_test(c, holes_of_a_sparse_set);
#ifndef VMKIT_MODEL
    tcase_add_test(c, the_largest_window);
#else
    tcase_add_test(c, ensure_is_all_or_nothing);
    tcase_add_test(c, drop_can_fail_in_peace);
#endif
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
