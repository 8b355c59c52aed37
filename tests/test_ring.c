/* SPDX-License-Identifier: MIT
 *
 * Rings: both halves are the same memory, wherever they are and whoever else maps memory meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "common/base/align.h"
#include "common/base/os.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

/* Rings are multiples of this on any system, whatever granularity a model claims. */
#define UNIT ((size_t)65536)

static vmk_ring ring_of(size_t size)
{
    vmk_ring ring;
    ck_assert_int_eq(vmk_ring_init(&ring, size), VMK_OK);
    ck_assert_uint_ge(ring.size, size);
    ck_assert(vmki_is_aligned(ring.size, vmk_granularity()));
    return ring;
}

static uint64_t load(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* --- one byte, two places --------------------------------------------------------------------------------------- */

/* A value written across the end, at every offset, from either half. */
START_TEST(whatever_fits_lies_in_one_piece)
{
    vmk_ring ring = ring_of(UNIT);
    for (size_t i = 0; i < 2 * ring.size; i++)
        ck_assert_uint_eq(ring.base[i], 0);
    for (size_t i = 0; i < 2 * ring.size - sizeof(uint64_t); i++) {
        uint64_t value = i * UINT64_C(0x9e3779b97f4a7c15);
        memcpy(ring.base + i, &value, sizeof value);
        size_t there = i % ring.size;
        ck_assert_uint_eq(load(ring.base + there), value);
        if (there + sizeof value <= ring.size)
            ck_assert_uint_eq(load(ring.base + there + ring.size), value);
        for (size_t k = 0; k < sizeof value; k++)
            ck_assert_uint_eq(ring.base[(i + k) % ring.size], ring.base[i + k]);
    }
    vmk_ring_fini(&ring);
}
END_TEST

/* Against plain memory with the remainder taken at each byte. */
START_TEST(random_writes_of_any_length)
{
    support_random random = support_random_start(1);
    vmk_ring ring = ring_of(3 * UNIT); /* no power of two */
    static unsigned char plain[3 * UNIT];
    ck_assert_uint_eq(ring.size, sizeof plain);
    for (size_t round = support_rounds(300); round > 0; round--) {
        size_t at = support_random_below(&random, ring.size), length = support_random_below(&random, ring.size + 1);
        unsigned char value = (unsigned char)support_random_next(&random);
        memset(ring.base + at, value, length);
        for (size_t i = 0; i < length; i++)
            plain[(at + i) % sizeof plain] = value;
        ck_assert_int_eq(memcmp(ring.base, plain, sizeof plain), 0);
        ck_assert_int_eq(memcmp(ring.base + sizeof plain, plain, sizeof plain), 0);
    }
    vmk_ring_fini(&ring);
}
END_TEST

START_TEST(rings_are_apart_and_may_be_moved)
{
    enum { COUNT = 20 };
    vmk_ring rings[COUNT], moved[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        rings[i] = ring_of((1 + i % 3) * UNIT);
        memset(rings[i].base, (int)i + 1, rings[i].size);
    }
    memcpy(moved, rings, sizeof moved);
    memset(rings, 0, sizeof rings);
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < 2 * moved[i].size; k++)
            ck_assert_uint_eq(moved[i].base[k], i + 1);
        vmk_ring_fini(&moved[i]);
    }
}
END_TEST

/* --- arguments, leaks ------------------------------------------------------------------------------------------- */

START_TEST(wrong_sizes)
{
    vmk_ring ring, before;
    memset(&ring, 0x5a, sizeof ring);
    before = ring;
    const size_t wrong[] = {0, SIZE_MAX, SIZE_MAX - vmk_granularity(), SIZE_MAX / 2 + 1, SIZE_MAX / 4 + 1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ck_assert_int_eq(vmk_ring_init(&ring, wrong[i]), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(memcmp(&ring, &before, sizeof ring), 0);
    vmk_ring rings[2]; /* twice half of what there is, and more of 64 bits: that doesn't fit */
    vmk_status status = vmk_ring_init(&rings[0], SIZE_MAX / 4 - 2 * UNIT);
    if (status == VMK_OK) {
        status = vmk_ring_init(&rings[1], SIZE_MAX / 4 - 2 * UNIT);
        vmk_ring_fini(&rings[0]);
    }
    ck_assert_msg(status == VMK_ERR_ADDRESS_SPACE || status == VMK_ERR_COMMIT, "%s", vmk_status_name(status));
#if !defined(VMKIT_MODEL) /* which has its own ideas of a granule */
    ring = ring_of(1);
    ck_assert_uint_eq(ring.size, vmk_granularity());
    ck_assert(vmki_is_aligned((uintptr_t)ring.base, vmk_granularity()));
    vmk_ring_fini(&ring);
#endif
}
END_TEST

/* Enough rounds to use up a 32-bit address space and any limit on handles. */
START_TEST(nothing_is_left_behind)
{
    vmk_ring ring = ring_of(UNIT);
    vmk_ring_fini(&ring);
    size_t handles = support_handles();
    for (size_t i = 0; i < 2000; i++) {
        ring = ring_of(16 * UNIT);
        ring.base[ring.size + i] = 1;
        ck_assert_uint_eq(ring.base[i], 1);
        ck_assert(i != 1000 || support_handles() == handles); /* a ring keeps none */
        vmk_ring_fini(&ring);
    }
    ck_assert_uint_eq(support_handles(), handles);
}
END_TEST

START_TEST(errors_of_the_system_survive)
{
    vmki_os_error error = {.library = 77}, after;
    vmki_os_error_set(error);
    vmk_ring ring;
    vmk_status status = vmk_ring_init(&ring, UNIT);
    after = vmki_os_error_get();
    ck_assert_int_eq(status, VMK_OK);
    ck_assert_int_eq(after.library, 77);
    vmki_os_error_set(error);
    vmk_ring_fini(&ring);
    after = vmki_os_error_get();
    ck_assert_int_eq(after.library, 77);
}
END_TEST

#if defined(VMKIT_MODEL)

START_TEST(each_call_may_fail)
{
    const vmk_status statuses[] = {VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS, VMK_ERR_UNSUPPORTED};
    size_t handles = support_handles();
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        vmk_status status = VMK_OK;
        for (uint64_t n = 1; n == 1 || status != VMK_OK; n++) {
            vmk_ring ring = {.size = 7};
            model_fail_nth(n, statuses[i], false);
            status = vmk_ring_init(&ring, UNIT);
            ck_assert_int_eq(status, model_failed() ? statuses[i] : VMK_OK);
            if (status == VMK_OK)
                vmk_ring_fini(&ring);
            else
                ck_assert_uint_eq(ring.size, 7);
        }
    }
    model_fail_nth(0, VMK_OK, false);
    ck_assert_uint_eq(support_handles(), handles);
}
END_TEST

/* Somebody else is faster: once, or always. */
START_TEST(a_taken_place_is_tried_again)
{
    vmk_ring ring = {.size = 7};
    model_fail_nth(2, VMK_ERR_TAKEN, false);
    ck_assert_int_eq(vmk_ring_init(&ring, UNIT), VMK_OK);
    ck_assert(model_failed());
    vmk_ring_fini(&ring);
    model_fail_nth(2, VMK_ERR_TAKEN, true);
    ring.size = 7;
    ck_assert_int_eq(vmk_ring_init(&ring, UNIT), VMK_ERR_TAKEN);
    ck_assert_uint_eq(ring.size, 7);
    ck_assert_uint_eq(model_fallible_calls(), 1 + 64);
    model_fail_nth(0, VMK_OK, false);
}
END_TEST

#else

/* --- beside others that map memory ------------------------------------------------------------------------------ */

enum { THREADS = 4, CHURNERS = 3 };

typedef struct contest {
    size_t rounds;
    uint32_t over;                         /* set by the one that makes rings */
    unsigned rings, taken, broken, spoilt; /* rings made, refused, that are none; memory of others that was changed */
    vmk_status failed;
} contest;

static void make_rings(contest *all)
{
    for (size_t i = 0; i < all->rounds; i++) {
        vmk_ring ring;
        vmk_status status = vmk_ring_init(&ring, UNIT);
        if (status != VMK_OK) {
            all->taken += status == VMK_ERR_TAKEN;
            all->failed = status != VMK_ERR_TAKEN ? status : all->failed;
            continue;
        }
        memset(ring.base, (int)i, ring.size);
        ring.base[ring.size + 5] = 99;
        all->broken += ring.base[5] != 99 || ring.base[2 * ring.size - 1] != (unsigned char)i;
        all->rings++;
        vmk_ring_fini(&ring);
    }
}

/* Memory of the sizes that a ring and its halves have, so that it fits where one of them was a moment ago. */
static void churn(contest *all, unsigned number)
{
    enum { HELD = 8 };
    vmk_region held[HELD] = {{0}};
    unsigned spoilt = 0;
    for (size_t i = 0; vmki_cas_32(&all->over, 0, 0); i++) {
        vmk_region *region = &held[i % HELD];
        if (region->size != 0) {
            for (size_t k = 0; k < region->size; k += 512)
                spoilt += region->base[k] != number;
            vmk_release(region);
            region->size = 0;
        }
        if (vmk_reserve(region, (1 + i % 2) * UNIT, NULL) != VMK_OK)
            continue;
        if (vmk_commit(region, 0, region->size) == VMK_OK) {
            memset(region->base, (int)number, region->size);
        } else {
            vmk_release(region);
            region->size = 0;
        }
    }
    for (size_t i = 0; i < HELD; i++)
        if (held[i].size != 0)
            vmk_release(&held[i]);
    if (spoilt != 0)
        (void)vmki_cas_32(&all->spoilt, 0, spoilt);
}

static void compete(void *argument, unsigned number)
{
    contest *all = argument;
    if (number == 0) {
        make_rings(all);
        (void)vmki_cas_32(&all->over, 0, 1);
    } else {
        churn(all, number);
    }
}

START_TEST(others_map_memory_meanwhile)
{
    contest all = {.rounds = support_rounds(300)};
    support_threads(1 + CHURNERS, compete, &all);
    ck_assert_int_eq(all.failed, VMK_OK);
    ck_assert_uint_eq(all.broken, 0);
    ck_assert_uint_eq(all.spoilt, 0);
    ck_assert_uint_gt(all.rings, all.rounds / 2);
    if ((vmk_capabilities()->features & VMK_CAP_RING) != 0)
        ck_assert_uint_eq(all.taken, 0);
}
END_TEST

#if defined(_WIN32)
void vmki_win32_placeholders_forbid(bool forbidden);

/* As on systems that have none. */
START_TEST(others_map_memory_where_places_are_found_by_trying)
{
    contest all = {.rounds = support_rounds(100)};
    vmki_win32_placeholders_forbid(true);
    support_threads(1 + CHURNERS, compete, &all);
    vmki_win32_placeholders_forbid(false);
    ck_assert_int_eq(all.failed, VMK_OK);
    ck_assert_uint_eq(all.broken + all.spoilt, 0);
    ck_assert_uint_gt(all.rings, 0);
}
END_TEST
#endif

static void make_and_check(void *argument, unsigned number)
{
    contest *all = argument;
    contest own = {.rounds = all->rounds};
    make_rings(&own);
    (void)number;
    if (own.broken != 0)
        (void)vmki_cas_32(&all->broken, 0, own.broken);
    if (own.failed != VMK_OK)
        (void)vmki_cas_32(&all->spoilt, 0, (uint32_t)own.failed);
}

START_TEST(threads_make_rings_at_once)
{
    contest all = {.rounds = support_rounds(200)};
    support_threads(THREADS, make_and_check, &all);
    ck_assert_uint_eq(all.broken, 0);
    ck_assert_uint_eq(all.spoilt, 0);
}
END_TEST

#endif

static void set_up(void)
{
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
    ck_assert((vmk_capabilities()->features & VMK_CAP_MEMORY) != 0);
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("ring");
    TCase *tests = tcase_create("ring");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, whatever_fits_lies_in_one_piece);
    tcase_add_test(tests, random_writes_of_any_length);
    tcase_add_test(tests, rings_are_apart_and_may_be_moved);
    tcase_add_test(tests, wrong_sizes);
    tcase_add_test(tests, nothing_is_left_behind);
    tcase_add_test(tests, errors_of_the_system_survive);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, each_call_may_fail);
    tcase_add_test(tests, a_taken_place_is_tried_again);
#else
    tcase_add_test(tests, others_map_memory_meanwhile);
#if defined(_WIN32)
    tcase_add_test(tests, others_map_memory_where_places_are_found_by_trying);
#endif
    tcase_add_test(tests, threads_make_rings_at_once);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
