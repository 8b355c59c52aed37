/* SPDX-License-Identifier: MIT
 *
 * Random calls of the contract with the system, held against an independent model: what every page of a few
 * reservations must be and must hold. For test_os.c and test_os_posix.c, which run it under different circumstances.
 *
 * The model is deliberately simple: a page is reserved or committed, has an access, and holds zero, a stamp, or (once
 * discarded) either what it held or zero. What a page holds is checked at its ends and its middle, and as a whole where
 * it has just become zero. Reservations are looked at from outside, without faults.
 */
#ifndef VMKIT_TESTS_OS_PAGES_H
#define VMKIT_TESTS_OS_PAGES_H

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "common/vm/vm.h"
#include "support.h"

#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#elif __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

enum { PAGES_REGIONS = 3, PAGES_COUNT = 48 };

typedef struct pages_page {
    bool committed;
    bool discarded; /* holds zero or what it held */
    vmk_access access;
    uint64_t stamp; /* 0: zero */
} pages_page;

typedef struct pages_region {
    unsigned char *base;
    pages_page page[PAGES_COUNT];
} pages_region;

typedef struct pages_machine {
    size_t page_size;
    size_t align;
    bool looks; /* can be asked what is accessible: a real system */
    uint64_t stamps;
    support_random random;
    pages_region region[PAGES_REGIONS];
} pages_machine;

typedef struct pages_range {
    pages_region *region;
    size_t first, count;
    unsigned char *base;
    size_t size;
} pages_range;

/* --- what a page holds ------------------------------------------------------------------------------------------ */

static uint64_t *pages_word(const pages_machine *m, unsigned char *page, unsigned which)
{
    const size_t at[] = {0, m->page_size / 2, m->page_size - sizeof(uint64_t)};
    return (uint64_t *)(void *)(page + at[which]);
}

static void pages_write(pages_machine *m, pages_page *page, unsigned char *base)
{
    page->stamp = ++m->stamps;
    page->discarded = false;
    for (unsigned i = 0; i < 3; i++)
        *pages_word(m, base, i) = page->stamp + i;
}

static bool pages_holds(const pages_machine *m, const pages_page *page, unsigned char *base)
{
    for (unsigned i = 0; i < 3; i++) {
        uint64_t expected = page->stamp == 0 ? 0 : page->stamp + i, found = *pages_word(m, base, i);
        if (found != expected && !(page->discarded && found == 0))
            return false;
    }
    return true;
}

static bool pages_all_zero(const unsigned char *base, size_t size)
{
    const uint64_t *word = (const uint64_t *)(const void *)base;
    for (size_t i = 0; i < size / sizeof *word; i++)
        if (word[i] != 0)
            return false;
    return true;
}

/* --- checking --------------------------------------------------------------------------------------------------- */

/* In words what is wrong with a page; NULL if nothing is. */
static const char *pages_crime(const pages_machine *m, const pages_page *page, unsigned char *base)
{
    bool readable = page->committed && page->access != VMK_ACCESS_NONE;
    bool writable = page->committed && page->access == VMK_ACCESS_READ_WRITE;
    if (m->looks && support_readable(base) != readable)
        return readable ? "not readable" : "readable";
    if (m->looks && support_writable(base + m->page_size - 1) != writable)
        return writable ? "not writable" : "writable";
    if (readable && !pages_holds(m, page, base))
        return "does not hold what it should";
    return NULL;
}

static void pages_check_some(const pages_machine *m, pages_region *region, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        const char *crime = pages_crime(m, &region->page[i], region->base + i * m->page_size);
        ck_assert_msg(crime == NULL, "region %d page %d of %d..%d: %s", (int)(region - m->region), (int)i, (int)first,
                      (int)(first + count), crime);
    }
}

static void pages_check_all(pages_machine *m)
{
    for (size_t r = 0; r < PAGES_REGIONS; r++)
        pages_check_some(m, &m->region[r], 0, PAGES_COUNT);
}

/* --- steps ------------------------------------------------------------------------------------------------------ */

static void pages_reserve(pages_machine *m, pages_region *region)
{
    vmki_os_request request = {.size = PAGES_COUNT * m->page_size, .align = m->align};
    void *base;
    ck_assert_int_eq(vmki_os_reserve(&request, &base), VMK_OK);
    *region = (pages_region){.base = base};
}

static pages_range pages_pick(pages_machine *m)
{
    pages_range range;
    range.region = &m->region[support_random_below(&m->random, PAGES_REGIONS)];
    range.first = support_random_below(&m->random, PAGES_COUNT);
    size_t most = support_random_below(&m->random, 4) == 0 ? PAGES_COUNT : 6; /* short ranges make more pieces */
    range.count = 1 + support_random_below(&m->random, vmki_min(most, PAGES_COUNT - range.first));
    range.base = range.region->base + range.first * m->page_size;
    range.size = range.count * m->page_size;
    return range;
}

/* Cut the range to the committed pages that it begins with, also writable ones if asked for; false if there are none.
 */
static bool pages_cut(const pages_machine *m, pages_range *range, bool writable)
{
    size_t count = 0;
    for (; count < range->count; count++) {
        const pages_page *page = &range->region->page[range->first + count];
        if (!page->committed || (writable && page->access != VMK_ACCESS_READ_WRITE))
            break;
    }
    range->count = count;
    range->size = count * m->page_size;
    return count != 0;
}

static void pages_protect(const pages_range *range, vmk_access access)
{
    ck_assert_int_eq(vmki_os_protect(range->base, range->size, access), VMK_OK);
    for (size_t i = 0; i < range->count; i++)
        range->region->page[range->first + i].access = access;
}

/* Committing says nothing of the access of what was committed before, so that is set again. */
static void pages_commit(const pages_machine *m, const pages_range *range)
{
    bool again = false;
    ck_assert_int_eq(vmki_os_commit(range->base, range->size), VMK_OK);
    for (size_t i = 0; i < range->count; i++) {
        pages_page *page = &range->region->page[range->first + i];
        again = again || (page->committed && page->access != VMK_ACCESS_READ_WRITE);
        if (!page->committed) {
            *page = (pages_page){.committed = true, .access = VMK_ACCESS_READ_WRITE};
            ck_assert_msg(pages_all_zero(range->base + i * m->page_size, m->page_size), "committed, but not zero");
        }
    }
    if (again)
        pages_protect(range, VMK_ACCESS_READ_WRITE);
}

static void pages_decommit(const pages_range *range)
{
    ck_assert_int_eq(vmki_os_decommit(range->base, range->size), VMK_OK);
    for (size_t i = 0; i < range->count; i++)
        range->region->page[range->first + i] = (pages_page){0};
}

static void pages_discard(pages_machine *m, pages_range *range)
{
    if (!pages_cut(m, range, true))
        return;
    ck_assert_int_eq(vmki_os_discard(range->base, range->size), VMK_OK);
    for (size_t i = 0; i < range->count; i++)
        range->region->page[range->first + i].discarded = true;
    if (support_random_below(&m->random, 2) == 0)
        vmki_os_reuse(range->base, range->size);
}

static void pages_fill(pages_machine *m, pages_range *range)
{
    if (!pages_cut(m, range, true))
        return;
    for (size_t i = 0; i < range->count; i++)
        pages_write(m, &range->region->page[range->first + i], range->base + i * m->page_size);
}

static void pages_renew(pages_machine *m, pages_region *region)
{
    vmki_os_release(region->base, PAGES_COUNT * m->page_size);
    pages_reserve(m, region);
}

static void pages_step(pages_machine *m)
{
    pages_range range = pages_pick(m);
    size_t choice = support_random_below(&m->random, 100);
    if (choice < 30)
        pages_commit(m, &range);
    else if (choice < 50)
        pages_decommit(&range);
    else if (choice < 75)
        pages_fill(m, &range);
    else if (choice < 85)
        pages_discard(m, &range);
    else if (choice < 98 && pages_cut(m, &range, false))
        pages_protect(&range, (vmk_access)support_random_below(&m->random, 3));
    else if (choice == 98)
        (void)vmki_os_advise(range.base, range.size,
                             support_random_below(&m->random, 2) == 0 ? VMK_ADVICE_HUGE : VMK_ADVICE_NO_HUGE);
    else if (choice == 99)
        pages_renew(m, range.region);
    pages_check_some(m, range.region, range.first, range.count);
}

/* The whole test. */
static void pages_run(uint64_t salt, size_t steps, bool looks)
{
    pages_machine m = {.looks = looks, .random = support_random_start(salt)};
    vmki_os_page_facts(&m.page_size, &m.align);
    for (size_t r = 0; r < PAGES_REGIONS; r++)
        pages_reserve(&m, &m.region[r]);
    for (size_t step = 0; step < steps; step++) {
        pages_step(&m);
        if (step % 64 == 0)
            pages_check_all(&m);
    }
    pages_check_all(&m);
    for (size_t r = 0; r < PAGES_REGIONS; r++)
        vmki_os_release(m.region[r].base, PAGES_COUNT * m.page_size);
}

/* The whole record of capabilities. */
static inline void probe_all(vmk_caps *caps)
{
    vmki_os_probe(caps);
    vmki_os_probe_service(caps);
    vmki_os_probe_memory(caps);
    vmki_code_probe(caps);
    vmki_os_probe_pressure(caps);
    vmki_os_probe_watch(caps);
}

#endif
