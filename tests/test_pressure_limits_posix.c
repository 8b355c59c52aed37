/* SPDX-License-Identifier: MIT
 *
 * Memory pressure against limits that are set on a process: in a child, memory is committed and touched until the
 * callback says low, then given back until it says enough.
 */
#include "posix/os_service_private.h"

#include <sys/wait.h>

#include "support.h"

#define MIB ((size_t)1 << 20)

enum { STEPS = 64, ROOM = 48, MARK = 16 }; /* MiB: of a region, below the limit, and to be left */

typedef struct record {
    vmk_bound bound;
    uintptr_t low, enough, wrong;
} record;

static void note(const vmk_pressure_event *event, void *context)
{
    record *r = context;
    if (event->bound != r->bound)
        return;
    if (event->low ? event->left >= MARK * MIB : event->left < 2 * MARK * MIB)
        VMKI_STORE_RELEASE(&r->wrong, 1);
    (void)__atomic_fetch_add(event->low ? &r->low : &r->enough, 1, __ATOMIC_SEQ_CST);
}

/* Give the looks that are due time to come: each takes some, whatever the interval. */
static void let_it_look(void)
{
    for (int i = 0; i < 20; i++) {
        struct timespec pause = {0, 1000000};
        (void)nanosleep(&pause, NULL);
    }
}

/* 0, or how far it came. */
static int run_into(vmk_bound bound)
{
    record r = {.bound = bound};
    vmk_pressure pressure;
    vmk_pressure_options options = {.callback = note, .context = &r, .low = MARK * MIB, .milliseconds = 1};
    vmk_region regions[STEPS];
    vmk_usage usage;
    size_t made = 0;
    alarm(60);
    if (vmk_usage_now(&usage) != VMK_OK)
        return 1;
    uint64_t used = bound == VMK_BOUND_DATA ? usage.data : usage.address_space;
    struct rlimit limit = {(rlim_t)(used + ROOM * MIB), (rlim_t)(used + ROOM * MIB)};
    if ((bound == VMK_BOUND_DATA ? setrlimit(RLIMIT_DATA, &limit) : setrlimit(VMKI_POSIX_LIMIT_AS, &limit)) != 0 ||
        vmk_pressure_start(&pressure, &options) != VMK_OK)
        return 2;
    let_it_look();
    if (VMKI_LOAD_ACQUIRE(&r.low) != 0)
        return 3;
    while (VMKI_LOAD_ACQUIRE(&r.low) == 0 && made < STEPS) {
        if (vmk_reserve(&regions[made], MIB, NULL) != VMK_OK || vmk_commit(&regions[made], 0, MIB) != VMK_OK)
            break; /* at the limit before the next look */
        memset(regions[made++].base, 1, MIB);
    }
    while (VMKI_LOAD_ACQUIRE(&r.low) == 0)
        support_yield();
    if (made < ROOM - MARK - 12) /* the thread's own stack, and what the C library has got meanwhile, are not much */
        return 4;
    let_it_look();
    if (VMKI_LOAD_ACQUIRE(&r.enough) != 0)
        return 5;
    while (made > 0)
        vmk_release(&regions[--made]);
    while (VMKI_LOAD_ACQUIRE(&r.enough) == 0)
        support_yield();
    vmk_pressure_stop(&pressure);
    return r.low == 1 && r.enough == 1 && r.wrong == 0 ? 0 : 6;
}

START_TEST(limits_on_the_process)
{
    int status;
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0)
        _exit(_i == 0 ? run_into(VMK_BOUND_DATA) : run_into(VMK_BOUND_ADDRESS_SPACE));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("pressure_limits_posix");
    TCase *tests = tcase_create("limits");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, limits_on_the_process, 0, 2);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
