/* SPDX-License-Identifier: MIT
 *
 * The contract of common/base/os.h as a test: every duty of every function. The same source runs on each system and on
 * the model OS (VMKIT_MODEL), so it says "the system" where it means whichever stands behind the contract. What only
 * one kind of system can be asked is in suites of its own, as test_os_posix.c.
 *
 * Whether memory is accessible is found out by asking the system. The model's memory is the C library's and always
 * accessible; it keeps watch itself, and is asked at the end of each test whether something was amiss.
 */
#include "os_pages.h"

#include <stdlib.h>
#include <string.h>

#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

static size_t page, granule; /* from the first test on */

#define MIB ((size_t)1 << 20)
#define IS_64_BIT (SIZE_MAX > UINT32_MAX)

/* --- the system and the model ----------------------------------------------------------------------------------- */

#if defined(VMKIT_MODEL)

enum { ON_MODEL = 1 };

/* All address space that is taken; SIZE_MAX where the system doesn't tell. */
static size_t taken_now(void)
{
    return model_reserved();
}

static size_t committed_now(void *base, size_t size)
{
    (void)base, (void)size;
    return model_committed();
}

static void before_each(void)
{
    model_rules rules = {.huge_page_size = 2 * MIB, .limits = {UINT64_MAX - 1, UINT64_MAX - 2, 1000, 1001}};
    model_reset(&rules);
}

static void after_each(void)
{
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
    ck_assert_uint_eq(model_reserved(), 0);
}

static void *plant(size_t size, unsigned char fill)
{
    unsigned char *place = (unsigned char *)model_base() + 8 * granule;
    ck_assert(model_plant(place, size, fill));
    return place;
}

static void unplant(void *place, size_t size, unsigned char fill)
{
    ck_assert(model_planted_intact(place, size, fill));
    model_unplant(place, size);
}

#else

enum { ON_MODEL = 0 };

#if defined(WITH_TSAN)
enum { TAKES_ITSELF = 1 }; /* the sanitizer maps memory for its records at any moment */
#else
enum { TAKES_ITSELF = 0 };
#endif

static size_t taken_now(void)
{
    support_figures figures;
    return !TAKES_ITSELF && support_system_figures(NULL, SIZE_MAX, &figures) ? figures.reserved : SIZE_MAX;
}

static size_t committed_now(void *base, size_t size)
{
    support_figures figures;
    return support_system_figures(base, size, &figures) ? figures.committed : SIZE_MAX;
}

static void before_each(void)
{
}

static void after_each(void)
{
}

/* A stranger's mapping is as good as one of ours that the next request doesn't know of. */
static void *plant(size_t size, unsigned char fill)
{
    vmki_os_request request = {.size = size, .align = granule};
    void *place;
    ck_assert_int_eq(vmki_os_reserve(&request, &place), VMK_OK);
    ck_assert_int_eq(vmki_os_commit(place, size), VMK_OK);
    memset(place, fill, size);
    return place;
}

static void unplant(void *place, size_t size, unsigned char fill)
{
    size_t same = 0;
    while (same < size && ((unsigned char *)place)[same] == fill)
        same++;
    ck_assert_uint_eq(same, size);
    vmki_os_release(place, size);
}

#endif

/* --- small words for the tests ---------------------------------------------------------------------------------- */

static vmk_status try_reserve(uintptr_t hint, size_t size, size_t align, bool exact, void **base)
{
    vmki_os_request request = {.hint = hint, .size = size, .align = align, .exact = exact};
    return vmki_os_reserve(&request, base);
}

static unsigned char *reserve(size_t size)
{
    void *base = NULL;
    ck_assert_int_eq(try_reserve(0, size, granule, false, &base), VMK_OK);
    ck_assert_ptr_nonnull(base);
    ck_assert(vmki_is_aligned((uintptr_t)base, granule));
    return base;
}

static unsigned char *reserve_committed(size_t size)
{
    unsigned char *base = reserve(size);
    ck_assert_int_eq(vmki_os_commit(base, size), VMK_OK);
    return base;
}

/* The request must fail so, leave the out-parameter alone, and leave the system's reason behind. */
static void assert_reserve_fails(uintptr_t hint, size_t size, size_t align, bool exact, vmk_status expected)
{
    static char marker;
    void *base = &marker;
    vmki_os_error_set((vmki_os_error){0, 0});
    vmk_status status = try_reserve(hint, size, align, exact, &base);
    vmki_os_error error = vmki_os_error_get();
    ck_assert_int_eq(status, expected);
    ck_assert_ptr_eq(base, &marker);
    ck_assert(ON_MODEL || error.library != 0 || error.system != 0);
}

static void assert_reserved(unsigned char *base, size_t size)
{
    size_t open_pages = 0;
    for (size_t at = 0; !ON_MODEL && at < size; at += page) {
        open_pages += support_readable(base + at) || support_readable(base + at + page - 1);
        open_pages += support_writable(base + at) || support_writable(base + at + page - 1);
    }
    ck_assert_uint_eq(open_pages, 0);
}

static void assert_accessible(unsigned char *base, size_t size)
{
    size_t closed_pages = 0;
    for (size_t at = 0; !ON_MODEL && at < size; at += page)
        closed_pages += !support_writable(base + at) || !support_writable(base + at + page - 1);
    ck_assert_uint_eq(closed_pages, 0);
}

static void assert_filled(const unsigned char *base, size_t size, unsigned char value)
{
    size_t same = 0;
    while (same < size && base[same] == value)
        same++;
    ck_assert_uint_eq(same, size);
}

static void assert_taken_by(size_t size, size_t before)
{
    size_t now = taken_now();
    if (before != SIZE_MAX)
        ck_assert_uint_eq(now - before, size);
}

/* --- facts ------------------------------------------------------------------------------------------------------ */

START_TEST(facts)
{
    size_t page_again, granule_again;
    ck_assert(vmki_is_power_of_two(page) && page >= 4096);
    ck_assert(vmki_is_power_of_two(granule) && granule >= page);
    vmki_os_page_facts(&page_again, &granule_again);
    ck_assert_uint_eq(page, page_again);
    ck_assert_uint_eq(granule, granule_again);
}
END_TEST

START_TEST(probe_leaves_nothing)
{
    vmk_caps caps = {.page_size = page, .granularity = granule};
    probe_all(&caps); /* once before counting: what it calls may set itself up */
    vmk_caps again = {.page_size = page, .granularity = granule};
    size_t before = taken_now();
    probe_all(&again);
    assert_taken_by(0, before);
    ck_assert_uint_eq(again.page_size, page);
    ck_assert_uint_eq(again.granularity, granule);
    ck_assert_uint_eq(again.features, caps.features);
    ck_assert_uint_eq(again.address_min, caps.address_min);
    ck_assert_uint_eq(again.max_mappings, caps.max_mappings);
}
END_TEST

START_TEST(probe_agrees_with_trying)
{
    vmk_caps caps = {.page_size = page, .granularity = granule};
    probe_all(&caps);
    ck_assert_uint_lt(caps.address_min, caps.address_max);
    ck_assert(vmki_is_aligned(caps.address_max + 1, page));
    for (size_t size = granule; size <= 64 * MIB; size *= 4) {
        unsigned char *base = reserve(size);
        ck_assert_uint_ge((uintptr_t)base, caps.address_min);
        if (ON_MODEL || support_system_tells()) /* an emulator's own memory comes and goes in between */
            ck_assert_uint_le((uintptr_t)base + (size - 1), caps.address_max);
        vmki_os_release(base, size);
    }
    unsigned char *base = reserve_committed(granule);
    bool huge = vmki_os_advise(base, granule, VMK_ADVICE_HUGE) == VMK_OK;
    ck_assert_int_eq(huge, (caps.features & VMK_CAP_HUGE_ADVICE) != 0);
    ck_assert(huge || caps.huge_page_size == 0);
    memset(base, 1, granule);
    ck_assert_int_eq(vmki_os_discard(base, granule), VMK_OK);
    if ((caps.features & VMK_CAP_DISCARD_ZERO) != 0)
        assert_filled(base, granule, 0);
    vmki_os_release(base, granule);
    ck_assert(caps.huge_page_size == 0 || (vmki_is_power_of_two(caps.huge_page_size) && caps.huge_page_size > page));
    for (size_t i = 1; i < VMK_MAX_HUGE_SIZES && caps.huge_sizes[i] != 0; i++)
        ck_assert_uint_gt(caps.huge_sizes[i], caps.huge_sizes[i - 1]);
}
END_TEST

START_TEST(limits_are_kept)
{
    vmk_limits now = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_limits(&now);
    vmk_usage usage = {0};
    if (vmki_os_usage(&usage) == VMK_OK) { /* or we should not have come so far */
        ck_assert_uint_le(usage.address_space, now.address_space);
        ck_assert_uint_le(usage.data, now.data);
    }
}
END_TEST

START_TEST(what_is_asked_alone_is_as_in_the_whole)
{
    const vmk_limits none = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmk_limits all = none, own = none;
    vmki_os_limits(&all);
    vmki_os_own_limits(&own);
    ck_assert(own.address_space == all.address_space && own.data == all.data);
    ck_assert(own.memory >= all.memory && own.commit == VMK_UNLIMITED); /* the others are in files, or the machine's */
    vmk_caps caps = {.page_size = page, .granularity = granule};
    probe_all(&caps);
    ck_assert(caps.physical_memory != 0 && vmki_os_physical_memory() == caps.physical_memory);
}
END_TEST

START_TEST(usage_grows)
{
    const size_t size = 32 * MIB, slack = 2 * MIB; /* kernels count per processor and settle accounts now and then */
    vmk_usage reserved, committed, touched, start;
    if (vmki_os_usage(&start) != VMK_OK || (!ON_MODEL && !support_system_tells()))
        return;
    ck_assert(ON_MODEL || start.address_space > 0);
    unsigned char *base = reserve(size);
    ck_assert_int_eq(vmki_os_usage(&reserved), VMK_OK);
    ck_assert_uint_ge(reserved.address_space, start.address_space + size);
    ck_assert_uint_lt(reserved.data, start.data + slack);
    ck_assert_uint_lt(reserved.resident, start.resident + slack);
    ck_assert_int_eq(vmki_os_commit(base, size), VMK_OK);
    ck_assert_int_eq(vmki_os_usage(&committed), VMK_OK);
    if (start.data != 0) /* Wine counts no private memory */
        ck_assert_uint_ge(committed.data, start.data + size);
    memset(base, 1, size);
    ck_assert_int_eq(vmki_os_usage(&touched), VMK_OK);
    ck_assert(ON_MODEL || touched.resident + slack >= start.resident + size);
    vmki_os_release(base, size);
    ck_assert_int_eq(vmki_os_usage(&touched), VMK_OK);
    ck_assert_uint_lt(touched.address_space, start.address_space + slack);
}
END_TEST

/* --- reserving -------------------------------------------------------------------------------------------------- */

START_TEST(reserve_is_inaccessible)
{
    const size_t sizes[] = {page, granule, 3 * granule + page, 64 * granule};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t before = taken_now();
        unsigned char *base = reserve(sizes[i]);
        assert_taken_by(sizes[i], before);
        assert_reserved(base, sizes[i]);
        vmki_os_release(base, sizes[i]);
        assert_taken_by(0, before);
    }
}
END_TEST

START_TEST(reserve_follows_hint)
{
    void *first, *second, *third;
    unsigned char *free_place = reserve(4 * granule);
    vmki_os_release(free_place, 4 * granule);
    ck_assert_int_eq(try_reserve((uintptr_t)free_place + granule, granule, granule, false, &first), VMK_OK);
    ck_assert_ptr_eq(first, free_place + granule);
    ck_assert_int_eq(try_reserve((uintptr_t)first, granule, granule, false, &second), VMK_OK); /* taken: elsewhere */
    ck_assert_ptr_ne(second, first);
    ck_assert_int_eq(try_reserve(UINTPTR_MAX - (granule - 1), granule, granule, false, &third), VMK_OK); /* nowhere */
    vmki_os_release(first, granule);
    vmki_os_release(second, granule);
    vmki_os_release(third, granule);
}
END_TEST

START_TEST(reserve_exact)
{
    void *base;
    unsigned char *place = reserve(4 * granule);
    vmki_os_release(place, 4 * granule);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(try_reserve((uintptr_t)place + i * granule, granule, granule, true, &base), VMK_OK);
        ck_assert_ptr_eq(base, place + i * granule);
        assert_reserved(base, granule);
    }
    for (size_t i = 0; i < 3; i++)
        vmki_os_release(place + i * granule, granule);
}
END_TEST

/* The middle two of six granules are taken: every request that touches them fails and changes nothing. */
START_TEST(reserve_exact_replaces_nothing)
{
    unsigned char *place = plant(2 * granule, 0xA5);
    uintptr_t low = (uintptr_t)place - 2 * granule;
    size_t before = taken_now();
    for (size_t first = 0; first < 4; first++)
        for (size_t count = 1; first + count <= 6; count++)
            if (first + count > 2)
                assert_reserve_fails(low + first * granule, count * granule, granule, true, VMK_ERR_TAKEN);
    assert_taken_by(0, before);
    unplant(place, 2 * granule, 0xA5);
}
END_TEST

static char own_variable = 42;

START_TEST(reserve_exact_where_nothing_can_be)
{
    char on_stack = 43;
    assert_reserve_fails(UINTPTR_MAX - (granule - 1), granule, granule, true, VMK_ERR_TAKEN);
    if (IS_64_BIT)
        assert_reserve_fails(((uintptr_t)1 << (IS_64_BIT ? 63 : 0)), granule, granule, true, VMK_ERR_TAKEN);
    if (!ON_MODEL) { /* the program's own data and stack */
        assert_reserve_fails(vmki_floor((uintptr_t)&own_variable, granule), granule, granule, true, VMK_ERR_TAKEN);
        assert_reserve_fails(vmki_floor((uintptr_t)&on_stack, granule), granule, granule, true, VMK_ERR_TAKEN);
    }
    ck_assert(own_variable == 42 && on_stack == 43);
}
END_TEST

/* At every size and alignment: aligned, and nothing beyond the size stays taken. */
START_TEST(reserve_aligned)
{
    size_t largest = ON_MODEL ? 2 * MIB : 64 * MIB;
    const size_t sizes[] = {page, granule, 5 * granule, 2 * MIB + page};
    for (size_t align = granule; align <= largest; align *= 2) {
        void *base[4];
        size_t before = taken_now(), sum = 0;
        for (size_t i = 0; i < 4; i++) {
            ck_assert_int_eq(try_reserve(0, sizes[i], align, false, &base[i]), VMK_OK);
            ck_assert_msg(vmki_is_aligned((uintptr_t)base[i], align), "%p is not aligned to %#llx", base[i],
                          (unsigned long long)align);
            sum += sizes[i];
        }
        assert_taken_by(sum, before);
        for (size_t i = 0; i < 4; i++)
            vmki_os_release(base[i], sizes[i]);
        assert_taken_by(0, before);
    }
}
END_TEST

/* Where what lies just below an aligned place is taken, and hints that are not aligned. */
START_TEST(reserve_aligned_among_others)
{
    enum { COUNT = 40 };
    void *base[COUNT];
    size_t align = ON_MODEL ? MIB : 16 * MIB;
    support_random random = support_random_start(1);
    for (size_t i = 0; i < COUNT; i++) {
        bool small = support_random_below(&random, 2) == 0;
        uintptr_t hint = i == 0 ? 0 : (uintptr_t)base[support_random_below(&random, i)] + granule;
        ck_assert_int_eq(try_reserve(hint, granule, small ? granule : align, false, &base[i]), VMK_OK);
        ck_assert(vmki_is_aligned((uintptr_t)base[i], small ? granule : align));
    }
    for (size_t i = 0; i < COUNT; i++)
        vmki_os_release(base[i], granule);
}
END_TEST

START_TEST(reserve_too_much)
{
    size_t before = taken_now();
    const size_t half = SIZE_MAX / 2 + 1, all = vmki_floor(SIZE_MAX, granule);
    assert_reserve_fails(0, all, granule, false, VMK_ERR_ADDRESS_SPACE);
    assert_reserve_fails(0, all, half, false, VMK_ERR_ADDRESS_SPACE);
    if (IS_64_BIT) { /* a 32-bit process may well get these */
        assert_reserve_fails(0, half, granule, false, VMK_ERR_ADDRESS_SPACE);
        assert_reserve_fails(0, granule, half, false, VMK_ERR_ADDRESS_SPACE);
    }
    assert_taken_by(0, before);
}
END_TEST

/* Address space is not memory: a reservation that nobody could commit costs nothing. 64 GiB, and not more, because Wine
 * pays a byte for every page. */
START_TEST(reserve_hugely)
{
    size_t size = ON_MODEL ? 128 * MIB : IS_64_BIT ? (size_t)64 << (IS_64_BIT ? 30 : 0) : 512 * MIB;
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_limits(&limits);
    if (limits.address_space / 2 < size) /* somebody has set a limit: then it is not for us to say */
        return;
    unsigned char *base = reserve(size);
    ck_assert(committed_now(base, size) == 0 || committed_now(base, size) == SIZE_MAX);
    assert_reserved(base, page);
    assert_reserved(base + size - page, page);
    ck_assert_int_eq(vmki_os_commit(base, page), VMK_OK);
    ck_assert_int_eq(vmki_os_commit(base + size - page, page), VMK_OK);
    base[0] = base[size - 1] = 1;
    ck_assert(committed_now(base, size) == 2 * page || committed_now(base, size) == SIZE_MAX);
    vmki_os_release(base, size);
}
END_TEST

START_TEST(release_in_any_state)
{
    size_t before = taken_now();
    for (unsigned round = 0; round < 8; round++) {
        unsigned char *base = reserve(8 * granule);
        if ((round & 1) != 0)
            ck_assert_int_eq(vmki_os_commit(base + granule, 3 * granule), VMK_OK);
        if ((round & 2) != 0)
            ck_assert_int_eq(vmki_os_decommit(base + 2 * granule, granule), VMK_OK);
        if (round == 5)
            ck_assert_int_eq(vmki_os_protect(base + granule, page, VMK_ACCESS_NONE), VMK_OK);
        if (round == 7)
            ck_assert_int_eq(vmki_os_discard(base + granule, page), VMK_OK);
        vmki_os_release(base, 8 * granule);
    }
    assert_taken_by(0, before);
}
END_TEST

/* --- committing ------------------------------------------------------------------------------------------------- */

START_TEST(commit_is_zero_and_no_more)
{
    unsigned char *base = reserve(16 * page);
    ck_assert_int_eq(vmki_os_commit(base + 4 * page, 3 * page), VMK_OK);
    assert_reserved(base, 4 * page);
    assert_reserved(base + 7 * page, 9 * page);
    assert_accessible(base + 4 * page, 3 * page);
    assert_filled(base + 4 * page, 3 * page, 0);
    ck_assert(committed_now(base, 16 * page) == 3 * page || committed_now(base, 16 * page) == SIZE_MAX);
    vmki_os_release(base, 16 * page);
}
END_TEST

START_TEST(commit_again_keeps)
{
    unsigned char *base = reserve(8 * page);
    ck_assert_int_eq(vmki_os_commit(base + 2 * page, 2 * page), VMK_OK);
    memset(base + 2 * page, 7, 2 * page);
    ck_assert_int_eq(vmki_os_commit(base + 2 * page, 2 * page), VMK_OK);
    assert_filled(base + 2 * page, 2 * page, 7);
    ck_assert_int_eq(vmki_os_commit(base, 8 * page), VMK_OK); /* and over both kinds */
    assert_filled(base, 2 * page, 0);
    assert_filled(base + 2 * page, 2 * page, 7);
    assert_filled(base + 4 * page, 4 * page, 0);
    ck_assert_int_eq(vmki_os_protect(base + 2 * page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmki_os_commit(base, 8 * page), VMK_OK);
    assert_filled(base + 2 * page, 2 * page, 7);
    vmki_os_release(base, 8 * page);
}
END_TEST

START_TEST(decommit_gives_back)
{
    const size_t size = 64 * page;
    support_figures figures;
    unsigned char *base = reserve_committed(size);
    memset(base, 7, size);
    ck_assert_int_eq(vmki_os_decommit(base + page, size - 2 * page), VMK_OK);
    assert_reserved(base + page, size - 2 * page);
    assert_filled(base, page, 7);
    assert_filled(base + size - page, page, 7);
    ck_assert(committed_now(base, size) == 2 * page || committed_now(base, size) == SIZE_MAX);
    if (!ON_MODEL && support_system_figures(base, size, &figures))
        ck_assert_uint_le(figures.resident, 2 * page);
    ck_assert_int_eq(vmki_os_commit(base + page, size - 2 * page), VMK_OK);
    assert_filled(base + page, size - 2 * page, 0);
    vmki_os_release(base, size);
}
END_TEST

START_TEST(decommit_of_reserved_is_harmless)
{
    unsigned char *base = reserve(8 * page);
    ck_assert_int_eq(vmki_os_decommit(base, 8 * page), VMK_OK);
    assert_reserved(base, 8 * page);
    ck_assert_int_eq(vmki_os_commit(base + 2 * page, page), VMK_OK);
    ck_assert_int_eq(vmki_os_commit(base + 5 * page, page), VMK_OK);
    base[2 * page] = base[5 * page] = 1;
    ck_assert_int_eq(vmki_os_protect(base + 5 * page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmki_os_decommit(base, 8 * page), VMK_OK); /* over both kinds, and a protected one */
    assert_reserved(base, 8 * page);
    ck_assert_int_eq(vmki_os_commit(base, 8 * page), VMK_OK);
    assert_filled(base, 8 * page, 0);
    assert_accessible(base, 8 * page);
    vmki_os_release(base, 8 * page);
}
END_TEST

/* --- what leaves pages committed -------------------------------------------------------------------------------- */

START_TEST(discard_stays_committed)
{
    const size_t size = 16 * page;
    unsigned char *base = reserve_committed(size);
    memset(base, 7, size);
    ck_assert_int_eq(vmki_os_discard(base + page, size - 2 * page), VMK_OK);
    assert_accessible(base, size);
    ck_assert(committed_now(base, size) == size || committed_now(base, size) == SIZE_MAX);
    assert_filled(base, page, 7);
    assert_filled(base + size - page, page, 7);
    size_t others = 0;
    for (size_t at = page; at < size - page; at++)
        others += base[at] != 0 && base[at] != 7;
    ck_assert_uint_eq(others, 0);
    vmki_os_reuse(base + page, size - 2 * page);
    memset(base + page, 8, size - 2 * page);
    assert_filled(base + page, size - 2 * page, 8);
    vmki_os_release(base, size);
}
END_TEST

START_TEST(protect_keeps_contents)
{
    unsigned char *base = reserve_committed(4 * page);
    memset(base, 7, 4 * page);
    ck_assert_int_eq(vmki_os_protect(base + page, page, VMK_ACCESS_READ), VMK_OK);
    ck_assert_int_eq(vmki_os_protect(base + 2 * page, page, VMK_ACCESS_NONE), VMK_OK);
    ck_assert(ON_MODEL || (support_readable(base + page) && !support_writable(base + page)));
    assert_reserved(base + 2 * page, page); /* looks the same, but: */
    assert_accessible(base, page);
    assert_accessible(base + 3 * page, page);
    assert_filled(base + page, page, 7);
    ck_assert_int_eq(vmki_os_protect(base, 4 * page, VMK_ACCESS_READ_WRITE), VMK_OK);
    assert_accessible(base, 4 * page);
    assert_filled(base, 4 * page, 7);
    vmki_os_release(base, 4 * page);
}
END_TEST

START_TEST(advise_changes_nothing)
{
    unsigned char *base = reserve(8 * page);
    ck_assert_int_eq(vmki_os_commit(base, 4 * page), VMK_OK);
    memset(base, 7, 4 * page);
    vmk_status status = vmki_os_advise(base, 8 * page, VMK_ADVICE_HUGE);
    ck_assert(status == VMK_OK || status == VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmki_os_advise(base, 8 * page, VMK_ADVICE_NO_HUGE), status);
    assert_filled(base, 4 * page, 7);
    assert_reserved(base + 4 * page, 4 * page);
    ck_assert_int_eq(vmki_os_commit(base, 8 * page), VMK_OK);
    assert_filled(base, 4 * page, 7);
    assert_filled(base + 4 * page, 4 * page, 0);
    vmki_os_release(base, 8 * page);
}
END_TEST

START_TEST(random_calls)
{
    pages_run(2, support_rounds(ON_MODEL ? 40000 * 4096 / page : 30000), !ON_MODEL);
}
END_TEST

/* --- the process ------------------------------------------------------------------------------------------------ */

enum { THREADS = 4 };

typedef struct contest {
    vmki_os_lock lock;
    size_t rounds;
    uint64_t counter[2]; /* under the lock; kept equal */
    size_t torn[THREADS];
    int errors[THREADS]; /* left by locking */
} contest;

static void contend(void *argument, unsigned number)
{
    contest *c = argument;
    vmki_os_error_set((vmki_os_error){77, 78});
    for (size_t i = 0; i < c->rounds; i++) {
        vmki_os_lock_acquire(&c->lock);
        c->torn[number] += c->counter[0] != c->counter[1];
        c->counter[0]++;
        if (i % 64 == number) /* let the others run into a lock that is held by one who sleeps */
            support_yield();
        c->counter[1]++;
        vmki_os_lock_release(&c->lock);
    }
    c->errors[number] = vmki_os_error_get().library != 77;
}

START_TEST(lock_excludes)
{
    contest c = {.rounds = support_rounds(20000)};
    support_threads(THREADS, contend, &c);
    ck_assert_uint_eq(c.counter[0], (uint64_t)THREADS * c.rounds);
    ck_assert_uint_eq(c.counter[1], (uint64_t)THREADS * c.rounds);
    for (unsigned i = 0; i < THREADS; i++) {
        ck_assert_uint_eq(c.torn[i], 0);
        ck_assert_int_eq(c.errors[i], 0);
    }
    ck_assert_uint_eq(c.lock.word, 0); /* as all zero is an unlocked one */
}
END_TEST

/* Threads that reserve, commit and release at once do not disturb each other. */
static void churn(void *argument, unsigned number)
{
    const size_t size = 4 * granule;
    size_t *failures = argument;
    for (unsigned i = 0; i < 300; i++) {
        vmki_os_request request = {.size = size, .align = i % 3 == 0 ? 16 * granule : granule};
        void *base;
        if (vmki_os_reserve(&request, &base) != VMK_OK || vmki_os_commit(base, size) != VMK_OK) {
            failures[number]++;
            continue;
        }
        unsigned char *bytes = base;
        failures[number] += bytes[0] != 0 || bytes[size - 1] != 0;
        memset(base, (int)number + 1, size);
        support_yield();
        failures[number] += bytes[0] != number + 1 || bytes[size - 1] != number + 1;
        failures[number] += vmki_os_decommit(base, size) != VMK_OK || vmki_os_commit(base, size) != VMK_OK;
        failures[number] += bytes[0] != 0 || bytes[size - 1] != 0;
        vmki_os_release(base, size);
    }
}

START_TEST(threads_at_once)
{
    size_t failures[THREADS] = {0};
    size_t before = ON_MODEL ? taken_now() : SIZE_MAX; /* threads leave stacks behind on a real system */
    support_threads(THREADS, churn, failures);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_uint_eq(failures[i], 0);
    assert_taken_by(0, before);
}
END_TEST

START_TEST(error_codes_come_back)
{
    vmki_os_error_set((vmki_os_error){33, 44});
    vmki_os_error error = vmki_os_error_get();
    ck_assert_int_eq(error.library, 33);
    ck_assert(error.system == 44 || error.system == 0);
    vmki_os_error_set((vmki_os_error){0, 0});
    error = vmki_os_error_get();
    ck_assert(error.library == 0 && error.system == 0);
}
END_TEST

/* --- children --------------------------------------------------------------------------------------------------- */

/* What dies, dies in a child, where Check's assertions can't be used. */
static int child(int argc, char **argv)
{
    const char *what = argc > 0 ? argv[0] : "";
    void *base;
    vmki_os_page_facts(&page, &granule);
    if (try_reserve(0, granule, granule, false, &base) != VMK_OK)
        return 19;
    volatile unsigned char *bytes = base;
    if (strcmp(what, "abort") == 0) {
        vmki_os_write_error("last words\n", 11);
        vmki_os_abort();
    }
    if (strcmp(what, "read") == 0)
        return bytes[0];
    if (strcmp(what, "write") == 0)
        bytes[0] = 1;
    if (strcmp(what, "decommitted") == 0 && vmki_os_commit(base, granule) == VMK_OK) {
        bytes[0] = 1;
        if (vmki_os_decommit(base, granule) == VMK_OK)
            bytes[0] = 2;
    }
    return strcmp(what, "live") == 0 ? 17 : 18;
}

static support_end run(const char *what, char *output, size_t size)
{
    const char *const arguments[] = {what, NULL};
    return support_run_self(arguments, output, size);
}

START_TEST(children_end_as_they_should)
{
    char output[1024];
    support_end end = run("live", output, sizeof output);
    ck_assert_msg(!end.crashed && end.code == 17, "%d %d: %s", end.crashed, end.code, output);
    end = run("abort", output, sizeof output);
    ck_assert_msg(end.crashed, "abort: %s", output);
    ck_assert_ptr_nonnull(strstr(output, "last words"));
}
END_TEST

START_TEST(touching_what_is_reserved_faults)
{
    const char *const what[] = {"read", "write", "decommitted"};
    char output[1024];
    for (size_t i = 0; !ON_MODEL && i < 3; i++)
        ck_assert_msg(run(what[i], output, sizeof output).crashed, "%s: %s", what[i], output);
}
END_TEST

/* --- the suite -------------------------------------------------------------------------------------------------- */

static void add(Suite *suite, const char *name, const TTest *const *tests)
{
    TCase *group = tcase_create(name);
    tcase_add_checked_fixture(group, before_each, after_each);
    for (; *tests != NULL; tests++)
        tcase_add_test(group, *tests);
    suite_add_tcase(suite, group);
}

int main(int argc, char **argv)
{
    const TTest *const system[] = {facts,
                                   probe_leaves_nothing,
                                   probe_agrees_with_trying,
                                   limits_are_kept,
                                   what_is_asked_alone_is_as_in_the_whole,
                                   usage_grows,
                                   NULL};
    const TTest *const reserving[] = {reserve_is_inaccessible,
                                      reserve_follows_hint,
                                      reserve_exact,
                                      reserve_exact_replaces_nothing,
                                      reserve_exact_where_nothing_can_be,
                                      reserve_aligned,
                                      reserve_aligned_among_others,
                                      reserve_too_much,
                                      reserve_hugely,
                                      release_in_any_state,
                                      NULL};
    const TTest *const pages[] = {commit_is_zero_and_no_more,
                                  commit_again_keeps,
                                  decommit_gives_back,
                                  decommit_of_reserved_is_harmless,
                                  discard_stays_committed,
                                  protect_keeps_contents,
                                  advise_changes_nothing,
                                  random_calls,
                                  NULL};
    const TTest *const process[] = {lock_excludes,
                                    threads_at_once,
                                    error_codes_come_back,
                                    children_end_as_they_should,
                                    touching_what_is_reserved_faults,
                                    NULL};
    Suite *suite = suite_create("os");
    vmki_os_page_facts(&page, &granule);
    add(suite, "system", system);
    add(suite, "reserving", reserving);
    add(suite, "pages", pages);
    add(suite, "process", process);
    return support_main(argc, argv, suite, child);
}
