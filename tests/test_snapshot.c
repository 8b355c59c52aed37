/* SPDX-License-Identifier: MIT
 *
 * Snapshots: what a view held at one moment, whatever is written to it since, and whether the pages are shared or
 * copied. Plain memory says what must be there.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/align.h"
#include "common/base/os.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

static size_t page;

static bool can_share(void)
{
    return (vmk_capabilities()->features & VMK_CAP_SNAPSHOT) != 0;
}

/* A view of part of memory that nobody else has. */
static vmk_view alone(uint64_t memory_size, uint64_t offset, size_t size)
{
    vmk_memory memory;
    vmk_view view;
    ck_assert_int_eq(vmk_memory_init(&memory, memory_size), VMK_OK);
    ck_assert_int_eq(vmk_view_map(&view, &memory, offset, size, VMK_VIEW_SHARED), VMK_OK);
    vmk_memory_fini(&memory);
    return view;
}

static vmk_snapshot taken(vmk_view *view)
{
    vmk_snapshot snapshot;
    vmk_status status = vmk_snapshot_take(&snapshot, view);
    ck_assert_msg(status == VMK_OK, "%s", vmk_status_name(status));
    ck_assert(snapshot.size == view->size && snapshot.of == view);
    return snapshot;
}

static void drop(vmk_snapshot *snapshot)
{
    vmk_status status = vmk_snapshot_drop(snapshot);
    ck_assert_msg(status == VMK_OK, "%s", vmk_status_name(status));
}

/* --- contents --------------------------------------------------------------------------------------------------- */

START_TEST(it_stays_as_it_was)
{
    vmk_view view = alone(10 * page, 0, 0);
    unsigned char *base = view.base;
    memset(base, 1, 5 * page); /* the other half has never been touched */
    vmk_snapshot snapshot = taken(&view);
    ck_assert_int_eq(snapshot.shared, can_share());
    ck_assert(view.base == base && view.snapshots == 1);
    base[0] = base[5 * page - 1] = base[9 * page] = 2;
    ck_assert(snapshot.base[0] == 1 && snapshot.base[5 * page - 1] == 1 && snapshot.base[9 * page] == 0);
    ck_assert(base[1] == 1 && base[9 * page + 1] == 0);
    drop(&snapshot);
    ck_assert(view.base == base && view.snapshots == 0);
    ck_assert(base[0] == 2 && base[5 * page - 1] == 2 && base[9 * page] == 2 && base[1] == 1 && base[8 * page] == 0);
    vmk_view_unmap(&view);
}
END_TEST

/* Writes, snapshots and drops in any order, of views at any offset. */
enum { MOST = 5, LARGEST = 200000 };

typedef struct history {
    vmk_view view;
    vmk_snapshot snapshots[MOST];
    unsigned char *then[MOST]; /* NULL: no such snapshot */
    unsigned char *now;
    size_t shared; /* snapshots that share */
} history;

static void one_step(history *all, support_random *random)
{
    size_t which = support_random_below(random, MOST), size = all->view.size;
    if (support_random_below(random, 3) != 0) {
        size_t at = support_random_below(random, size), left = size - at;
        size_t length = 1 + support_random_below(random, left < 9000 ? left : 9000);
        int value = (int)(support_random_next(random) & 255);
        memset(all->view.base + at, value, length);
        memset(all->now + at, value, length);
    } else if (all->then[which] == NULL) {
        all->snapshots[which] = taken(&all->view);
        all->then[which] = malloc(size);
        ck_assert(all->then[which] != NULL);
        memcpy(all->then[which], all->now, size);
        ck_assert_int_eq(all->snapshots[which].shared, can_share() && all->shared == 0);
        all->shared += all->snapshots[which].shared;
    } else {
        ck_assert_int_eq(memcmp(all->snapshots[which].base, all->then[which], size), 0);
        all->shared -= all->snapshots[which].shared;
        drop(&all->snapshots[which]);
        free(all->then[which]);
        all->then[which] = NULL;
    }
}

static void check_history(const history *all)
{
    ck_assert_int_eq(memcmp(all->view.base, all->now, all->view.size), 0);
    for (size_t i = 0; i < MOST; i++)
        if (all->then[i] != NULL)
            ck_assert_int_eq(memcmp(all->snapshots[i].base, all->then[i], all->view.size), 0);
}

START_TEST(any_order_of_writes_and_snapshots)
{
    support_random random = support_random_start(1);
    for (size_t round = support_rounds(20); round > 0; round--) {
        static unsigned char now[LARGEST];
        history all = {.now = now};
        vmk_memory memory;
        size_t size = 1 + support_random_below(&random, LARGEST), before = support_random_below(&random, LARGEST);
        ck_assert_int_eq(vmk_memory_init(&memory, size + before + support_random_below(&random, LARGEST)), VMK_OK);
        ck_assert_int_eq(vmk_view_map(&all.view, &memory, before, size, VMK_VIEW_SHARED), VMK_OK);
        memset(now, 0, sizeof now);
        for (int step = 0; step < 60; step++) {
            one_step(&all, &random);
            check_history(&all);
        }
        for (size_t i = 0; i < MOST; i++) {
            if (all.then[i] == NULL)
                continue;
            drop(&all.snapshots[i]);
            free(all.then[i]);
            all.then[i] = NULL;
            check_history(&all);
        }
        vmk_view view; /* what another would see */
        ck_assert_int_eq(vmk_view_map(&view, &memory, before, size, VMK_VIEW_READ), VMK_OK);
        ck_assert_int_eq(memcmp(view.base, now, size), 0);
        all.view.base[0]++;
        ck_assert_uint_eq(view.base[0], all.view.base[0]); /* and goes on seeing */
        vmk_view_unmap(&view);
        vmk_view_unmap(&all.view);
        vmk_memory_fini(&memory);
    }
}
END_TEST

/* More runs of written pages than are asked for at once. */
START_TEST(every_other_page)
{
    enum { PAGES = 1500, UNIT = 4096 };
    vmk_view view = alone(PAGES * UNIT, 0, 0);
    for (size_t i = 0; i < PAGES; i++)
        view.base[i * UNIT] = 1;
    for (size_t first = 0; first < 2; first++) {
        vmk_snapshot snapshot = taken(&view);
        for (size_t i = first; i < PAGES; i += 2)
            view.base[i * UNIT + 1] = (unsigned char)(i % 255);
        for (size_t i = 0; i < PAGES; i++)
            ck_assert_uint_eq(snapshot.base[i * UNIT + 1], first == 1 && i % 2 == 0 ? i % 255 : 0);
        drop(&snapshot);
    }
    for (size_t i = 0; i < PAGES; i++)
        ck_assert(view.base[i * UNIT] == 1 && view.base[i * UNIT + 1] == i % 255);
    vmk_view_unmap(&view);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------------------------- */

enum { TAKERS = 4, THREAD_ROUNDS = 30 };

typedef struct crowd {
    vmk_view view;
    vmk_snapshot snapshots[TAKERS];
    uint32_t failed, wrong;
} crowd;

static void take_or_read(void *argument, unsigned number)
{
    crowd *all = argument;
    if (number < TAKERS) {
        if (vmk_snapshot_take(&all->snapshots[number], &all->view) != VMK_OK)
            (void)vmki_cas_32(&all->failed, 0, 1);
    } else {
        for (size_t i = 0; i < all->view.size; i++)
            if (all->view.base[i] != 3)
                (void)vmki_cas_32(&all->wrong, 0, 1);
    }
}

START_TEST(threads_take_and_read_at_once)
{
    for (size_t round = support_rounds(THREAD_ROUNDS); round > 0; round--) {
        crowd all = {.view = alone(50 * page, 0, 0)};
        size_t shared = 0;
        memset(all.view.base, 3, all.view.size);
        support_threads(TAKERS + 2, take_or_read, &all);
        ck_assert_uint_eq(all.failed + all.wrong, 0);
        ck_assert_uint_eq(all.view.snapshots, TAKERS);
        memset(all.view.base, 4, all.view.size);
        for (size_t i = 0; i < TAKERS; i++) {
            for (size_t k = 0; k < all.view.size; k += 100)
                ck_assert_uint_eq(all.snapshots[i].base[k], 3);
            shared += all.snapshots[i].shared;
        }
        ck_assert_uint_eq(shared, can_share());
        for (size_t i = 0; i < TAKERS; i++)
            drop(&all.snapshots[i]);
        ck_assert(all.view.base[0] == 4 && all.view.snapshots == 0);
        vmk_view_unmap(&all.view);
    }
}
END_TEST

/* --- arguments, leaks, failures --------------------------------------------------------------------------------- */

START_TEST(other_kinds_of_views)
{
    char path[SUPPORT_PATH];
    vmk_memory memory;
    vmk_view view;
    vmk_snapshot snapshot = {.size = 7};
    ck_assert_int_eq(vmk_memory_init(&memory, page), VMK_OK);
    for (int kind = VMK_VIEW_READ; kind <= VMK_VIEW_PRIVATE; kind += VMK_VIEW_PRIVATE) {
        ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, (vmk_view_kind)kind), VMK_OK);
        ck_assert_int_eq(vmk_snapshot_take(&snapshot, &view), VMK_ERR_ARGUMENT);
        vmk_view_unmap(&view);
    }
    vmk_memory_fini(&memory);
    support_path(path);
    ck_assert_int_eq(vmk_memory_open(&memory, path, VMK_MEMORY_WRITE | VMK_MEMORY_CREATE), VMK_OK);
    ck_assert_int_eq(vmk_memory_resize(&memory, page), VMK_OK);
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED), VMK_OK);
    ck_assert_int_eq(vmk_snapshot_take(&snapshot, &view), VMK_ERR_ARGUMENT);
    ck_assert(snapshot.size == 7 && view.snapshots == 0);
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
    support_remove(path);
}
END_TEST

START_TEST(a_view_with_snapshots_stays_as_large_as_it_is)
{
    vmk_memory memory;
    vmk_view view;
    ck_assert_int_eq(vmk_memory_init(&memory, 4 * page), VMK_OK);
    ck_assert_int_eq(vmk_view_map(&view, &memory, 0, page, VMK_VIEW_SHARED), VMK_OK);
    vmk_snapshot snapshot = taken(&view);
    ck_assert_int_eq(vmk_view_grow(&view, &memory, 2 * page), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_view_grow(&view, &memory, page), VMK_OK);
    ck_assert_uint_eq(view.size, page);
    drop(&snapshot);
    ck_assert_int_eq(vmk_view_grow(&view, &memory, 2 * page), VMK_OK);
    vmk_view_unmap(&view);
    vmk_memory_fini(&memory);
}
END_TEST

START_TEST(nothing_is_left_behind)
{
    vmk_view view = alone(64 << 20, 0, 0);
    size_t handles = support_handles();
    vmki_os_error error = {.library = 77};
    for (size_t i = support_rounds(can_share() ? 500 : 20); i > 0; i--) {
        vmki_os_error_set(error);
        vmk_snapshot snapshot = taken(&view);
        view.base[i * 1000] = 1;
        drop(&snapshot);
        ck_assert_int_eq(vmki_os_error_get().library, 77);
        ck_assert_uint_eq(view.base[i * 1000], 1);
    }
    ck_assert_uint_eq(support_handles(), handles);
    vmk_view_unmap(&view);
}
END_TEST

#if defined(VMKIT_MODEL)

START_TEST(each_call_may_fail)
{
    const vmk_status statuses[] = {VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS};
    vmk_view view = alone(4 * page, 0, 0);
    size_t shared = 0, failures = 0;
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        vmk_status status = VMK_OK;
        for (uint64_t n = 1; n == 1 || status != VMK_OK; n++) {
            vmk_snapshot snapshots[2] = {{.size = 7}, {.size = 7}};
            memset(view.base, 1, view.size);
            model_fail_nth(n, statuses[i], false);
            status = vmk_snapshot_take(&snapshots[0], &view);
            view.base[0] = 2;
            if (status == VMK_OK) {
                status = vmk_snapshot_take(&snapshots[1], &view);
                view.base[page] = 3;
                if (status == VMK_OK)
                    drop(&snapshots[1]);
                else
                    ck_assert(snapshots[1].size == 7 && view.snapshots == 1);
                ck_assert(snapshots[0].base[0] == 1 && snapshots[0].base[page] == 1);
                shared += snapshots[0].shared;
                vmk_status dropped = vmk_snapshot_drop(&snapshots[0]);
                if (dropped != VMK_OK) {
                    ck_assert(status == VMK_OK && view.snapshots == 1);
                    drop(&snapshots[0]);
                    status = dropped;
                }
                ck_assert_uint_eq(view.base[page], 3);
            } else {
                ck_assert(snapshots[0].size == 7 && view.snapshots == 0);
            }
            ck_assert_int_eq(status, model_failed() ? statuses[i] : VMK_OK);
            failures += status != VMK_OK;
            ck_assert(view.base[0] == 2 && view.base[1] == 1);
        }
    }
    model_fail_nth(0, VMK_OK, false);
    ck_assert_int_eq(shared != 0, can_share());
    ck_assert_uint_ge(failures, 9);
    vmk_view_unmap(&view);
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}
END_TEST

/* Where pages can't be shared all are copies, whichever way the system says so. */
START_TEST(a_refusal_to_share_is_a_copy)
{
    vmk_view view = alone(4 * page, 5, 2 * page);
    memset(view.base, 1, view.size);
    model_fail_nth(1, VMK_ERR_UNSUPPORTED, false);
    vmk_snapshot first = taken(&view);
    ck_assert(model_failed() && !first.shared);
    model_fail_nth(0, VMK_OK, false);
    vmk_snapshot second = taken(&view);
    ck_assert_int_eq(second.shared, can_share());
    memset(view.base, 2, view.size);
    ck_assert(first.base[0] == 1 && second.base[2 * page - 1] == 1);
    drop(&first);
    drop(&second);
    ck_assert_uint_eq(view.base[2 * page - 1], 2);
    vmk_view_unmap(&view);
}
END_TEST

#endif

static void set_up(void)
{
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
    page = vmk_page_size();
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("snapshot");
    TCase *tests = tcase_create("snapshot");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, it_stays_as_it_was);
    tcase_add_test(tests, any_order_of_writes_and_snapshots);
    tcase_add_test(tests, every_other_page);
    tcase_add_test(tests, threads_take_and_read_at_once);
    tcase_add_test(tests, other_kinds_of_views);
    tcase_add_test(tests, a_view_with_snapshots_stays_as_large_as_it_is);
    tcase_add_test(tests, nothing_is_left_behind);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, each_call_may_fail);
    tcase_add_test(tests, a_refusal_to_share_is_a_copy);
#endif
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
