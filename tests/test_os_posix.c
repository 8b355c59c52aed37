/* SPDX-License-Identifier: MIT
 *
 * The contract of common/base/os.h, as far as only a POSIX system can be asked: both ways to decommit, refusals by real
 * limits, what threads inherit, fork. Limits are set in children, which report in words and by their exit code. What
 * Linux alone has (/proc to know where a limit lies) is skipped elsewhere.
 */
#include "posix/os_private.h"

#include <stdio.h>
#include <sys/wait.h>

#include "os_pages.h"

static size_t page;

#define MIB ((size_t)1 << 20)

static vmk_status try_reserve(uintptr_t hint, size_t size, bool exact, void **base)
{
    vmki_os_request request = {.hint = hint, .size = size, .align = page, .exact = exact};
    return vmki_os_reserve(&request, base);
}

/* --- both ways to decommit -------------------------------------------------------------------------------------- */

static void decommit_by(vmki_posix_decommit method)
{
    support_figures figures;
    void *base;
    vmki_posix_decommit_force(method);
    ck_assert_int_eq(vmki_posix_decommit_method(), method);
    ck_assert_int_eq(try_reserve(0, 8 * page, false, &base), VMK_OK);
    unsigned char *bytes = base;
    ck_assert_int_eq(vmki_os_commit(bytes, 8 * page), VMK_OK);
    memset(bytes, 7, 8 * page);
    ck_assert_int_eq(vmki_os_decommit(bytes + page, 6 * page), VMK_OK);
    ck_assert(!support_readable(bytes + page) && !support_readable(bytes + 7 * page - 1));
    ck_assert(bytes[page - 1] == 7 && bytes[7 * page] == 7);
    if (support_system_figures(base, 8 * page, &figures)) {
        ck_assert_uint_eq(figures.reserved, 8 * page);
        ck_assert_uint_eq(figures.committed, 2 * page);
        ck_assert_uint_eq(figures.resident, 2 * page);
    }
    ck_assert_int_eq(vmki_os_commit(bytes, 8 * page), VMK_OK);
    ck_assert(pages_all_zero(bytes + page, 6 * page));
    vmki_os_release(base, 8 * page);
    pages_run(10 + method, support_rounds(10000), true);
    vmki_posix_decommit_force(VMKI_POSIX_DECOMMIT_UNDECIDED);
}

START_TEST(decommit_by_zapping)
{
    if (VMKI_POSIX_ZAP != VMKI_POSIX_NO_ADVICE)
        decommit_by(VMKI_POSIX_DECOMMIT_ZAP);
}
END_TEST

START_TEST(decommit_by_mapping_anew)
{
    decommit_by(VMKI_POSIX_DECOMMIT_REMAP);
}
END_TEST

START_TEST(decommit_is_chosen_by_the_system)
{
    vmki_posix_decommit method = vmki_posix_decommit_method();
    ck_assert(method == VMKI_POSIX_DECOMMIT_ZAP || method == VMKI_POSIX_DECOMMIT_REMAP);
    if (vmki_posix_overcommit_under("") == VMK_OVERCOMMIT_NEVER)
        ck_assert_int_eq(method, VMKI_POSIX_DECOMMIT_REMAP);
}
END_TEST

/* Several threads come to the choice at once. */
static void decommit_first(void *argument, unsigned number)
{
    bool *sound = argument;
    void *base;
    sound[number] = try_reserve(0, page, false, &base) == VMK_OK && vmki_os_commit(base, page) == VMK_OK;
    *(unsigned char *)base = 1;
    sound[number] = sound[number] && vmki_os_decommit(base, page) == VMK_OK && vmki_os_commit(base, page) == VMK_OK &&
                    *(unsigned char *)base == 0;
    vmki_os_release(base, page);
}

START_TEST(decommit_is_chosen_by_several_at_once)
{
    bool sound[4] = {false};
    for (unsigned round = 0; round < 20; round++) {
        vmki_posix_decommit_force(VMKI_POSIX_DECOMMIT_UNDECIDED);
        support_threads(4, decommit_first, sound);
        ck_assert(sound[0] && sound[1] && sound[2] && sound[3]);
    }
}
END_TEST

/* Locked memory can't be dropped by advice. Discard says so, decommit finds another way. */
START_TEST(locked_memory)
{
    void *base;
    ck_assert_int_eq(try_reserve(0, 4 * page, false, &base), VMK_OK);
    unsigned char *bytes = base;
    ck_assert_int_eq(vmki_os_commit(bytes, 4 * page), VMK_OK);
    memset(bytes, 7, 4 * page);
    if (VMKI_POSIX_ZAP != VMKI_POSIX_NO_ADVICE && mlock(bytes, 4 * page) == 0) {
        vmk_status status = vmki_os_discard(bytes, 4 * page);
        ck_assert(status == VMK_ERR_UNSUPPORTED || status == VMK_OK);
        ck_assert(status == VMK_OK || (bytes[0] == 7 && bytes[4 * page - 1] == 7));
        ck_assert_int_eq(vmki_os_decommit(bytes + page, 2 * page), VMK_OK);
        ck_assert(!support_readable(bytes + page));
        ck_assert_int_eq(vmki_os_commit(bytes + page, 2 * page), VMK_OK);
        ck_assert(pages_all_zero(bytes + page, 2 * page));
    }
    vmki_os_release(base, 4 * page);
}
END_TEST

/* --- what the kernel can do, tried here as well ----------------------------------------------------------------- */

START_TEST(noreplace_is_known_rightly)
{
    void *base;
    ck_assert_int_eq(try_reserve(0, 2 * page, false, &base), VMK_OK);
    void *got = mmap(base, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | VMKI_POSIX_NOREPLACE, -1, 0);
    if (vmki_posix_noreplace_works())
        ck_assert(got == MAP_FAILED);
    else if (got != MAP_FAILED)
        ck_assert_int_eq(munmap(got, page), 0);
    vmki_os_release(base, 2 * page);
}
END_TEST

/* In a dense run of commits the mappings stay two: the committed one and the reserved one. */
START_TEST(growing_makes_no_mappings)
{
    enum { STEPS = 200 };
    void *base;
    ck_assert_int_eq(try_reserve(0, 2 * STEPS * page, false, &base), VMK_OK);
    size_t mappings = support_mappings(base, 2 * STEPS * page);
    for (size_t i = 0; i < STEPS; i++) {
        unsigned char *next = (unsigned char *)base + i * page;
        ck_assert_int_eq(vmki_os_commit(next, page), VMK_OK);
        *next = 1; /* kernels attach their records at the touch, and merge only what agrees in them */
    }
    if (mappings != SIZE_MAX)
        ck_assert_uint_le(support_mappings(base, 2 * STEPS * page), mappings + 1);
    vmki_os_release(base, 2 * STEPS * page);
}
END_TEST

START_TEST(usage_is_what_limits_count)
{
    vmk_usage usage;
    if (vmki_os_usage(&usage) != VMK_OK)
        return;
    support_figures figures;
    ck_assert(support_system_figures(NULL, SIZE_MAX, &figures));
    ck_assert_uint_gt(usage.address_space, 0);
    ck_assert_uint_gt(usage.resident, 0);
    ck_assert_uint_lt(usage.data, usage.address_space);
    ck_assert_uint_lt(usage.resident, usage.address_space);
}
END_TEST

/* --- refusals, in children -------------------------------------------------------------------------------------- */

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            static const char text[] = "not so: " #condition "\n";                                                     \
            vmki_os_write_error(text, sizeof text - 1);                                                                \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

#define NOTHING_SEEN 3 /* the exit code of a child that could not find out */

/* Let the process have this much more than it has, of data or of address space. */
static bool limit_to(bool data, uint64_t used, size_t more)
{
    struct rlimit limit;
    if ((data ? getrlimit(RLIMIT_DATA, &limit) : getrlimit(VMKI_POSIX_LIMIT_AS, &limit)) != 0)
        return false;
    limit.rlim_cur = (rlim_t)(used + more);
    return (data ? setrlimit(RLIMIT_DATA, &limit) : setrlimit(VMKI_POSIX_LIMIT_AS, &limit)) == 0;
}

static vmk_limits own_limits(void)
{
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_own_limits(&limits);
    return limits;
}

static int child_data_limit(void)
{
    vmk_usage usage;
    void *base;
    EXPECT(vmki_os_usage(&usage) == VMK_OK);
    EXPECT(limit_to(true, usage.data, 16 * MIB));
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_limits(&limits);
    EXPECT(limits.data == usage.data + 16 * MIB);
    EXPECT(own_limits().data == limits.data && own_limits().address_space == limits.address_space);
    EXPECT(try_reserve(0, 256 * MIB, false, &base) == VMK_OK); /* is no data */
    errno = 0;
    EXPECT(vmki_os_commit(base, 128 * MIB) == VMK_ERR_COMMIT);
    EXPECT(errno == ENOMEM);
    EXPECT(vmki_os_commit(base, 8 * MIB) == VMK_OK);
    memset(base, 1, 8 * MIB);
    EXPECT(vmki_os_commit((char *)base + 8 * MIB, 12 * MIB) == VMK_ERR_COMMIT);
    EXPECT(vmki_os_decommit(base, 8 * MIB) == VMK_OK); /* what is given back can be had again */
    EXPECT(vmki_os_commit((char *)base + 8 * MIB, 12 * MIB) == VMK_OK);
    vmki_os_release(base, 256 * MIB);
    return 0;
}

/* The sanitizers end the program when they get no mapping for themselves. */
#if defined(WITH_TSAN) || defined(WITH_ASAN)
enum { NEEDS_MAPPINGS_ITSELF = 1 };
#else
enum { NEEDS_MAPPINGS_ITSELF = 0 };
#endif

static int child_address_limit(void)
{
    vmk_usage usage;
    void *base, *aligned;
    EXPECT(vmki_os_usage(&usage) == VMK_OK);
    EXPECT(limit_to(false, usage.address_space, 64 * MIB));
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_limits(&limits);
    EXPECT(limits.address_space == usage.address_space + 64 * MIB);
    EXPECT(own_limits().data == limits.data && own_limits().address_space == limits.address_space);
    errno = 0;
    EXPECT(try_reserve(0, 128 * MIB, false, &base) == VMK_ERR_ADDRESS_SPACE);
    EXPECT(errno == ENOMEM);
    EXPECT(try_reserve(0, 40 * MIB, false, &base) == VMK_OK);
    vmki_os_release(base, 40 * MIB);
    /* An exact request for a free place: it is the limit that refuses, not somebody who is there. */
    EXPECT(try_reserve((uintptr_t)base - 256 * MIB, 128 * MIB, true, &base) == VMK_ERR_ADDRESS_SPACE);
    /* Aligned, where reserving more and trimming would be over the limit. */
    vmki_os_request request = {.size = 40 * MIB, .align = 32 * MIB};
    EXPECT(vmki_os_reserve(&request, &aligned) == VMK_OK);
    vmki_os_release(aligned, 40 * MIB);
    vmk_caps caps = {.page_size = page, .granularity = page};
    vmki_os_probe(&caps);
    EXPECT(caps.address_max > caps.address_min);
    /* To the last page, where there is no room to try anything in: still it is no lack of mappings. */
    for (size_t size = 64 * MIB; size >= page && !NEEDS_MAPPINGS_ITSELF; size /= 2)
        while (vmki_os_reserve(&(vmki_os_request){.size = size, .align = page}, &base) == VMK_OK) {
        }
    EXPECT(NEEDS_MAPPINGS_ITSELF || (try_reserve(0, page, false, &base) == VMK_ERR_ADDRESS_SPACE && errno == ENOMEM));
    return 0;
}

/* Commit every other page until the system has enough of it. */
static size_t exhaust_mappings(unsigned char *base, size_t pages, vmk_status *status)
{
    size_t done = 0;
    *status = VMK_OK;
    while (done < pages / 2 && (*status = vmki_os_commit(base + done * 2 * page, page)) == VMK_OK)
        done++;
    return done;
}

static int child_mapping_limit(void)
{
    uint64_t limit;
    vmk_status status;
    void *comb, *row;
    if (!vmki_posix_read_number("/proc/sys/vm/max_map_count", &limit) || limit > 1000000)
        return 0;
    size_t pages = 2 * (size_t)limit;
    EXPECT(try_reserve(0, pages * page, false, &comb) == VMK_OK);
    EXPECT(try_reserve(0, 6 * page, false, &row) == VMK_OK);
    vmki_os_release(row, 6 * page);
    for (uintptr_t i = 0; i < 3; i++) { /* three neighbours, which the kernel makes one mapping */
        void *part;
        EXPECT(try_reserve((uintptr_t)row + 2 * i * page, 2 * page, true, &part) == VMK_OK);
    }
    size_t done = exhaust_mappings(comb, pages, &status);
    EXPECT(status == VMK_ERR_MAPPINGS && errno == ENOMEM);
    EXPECT(done > limit / 4);
    unsigned char *last = (unsigned char *)comb + (done - 1) * 2 * page;
    *last = 1; /* all that was committed is so */
    EXPECT(support_mappings(comb, pages * page) >= 2 * done - 2);
    EXPECT(vmki_os_protect(last + 2 * page * 2, page, VMK_ACCESS_READ) == VMK_ERR_MAPPINGS);
    EXPECT(vmki_os_advise(last + 2 * page * 2, page, VMK_ADVICE_HUGE) != VMK_OK);
    /* Giving back the middle one takes a mapping more, which can't be had; it is given back all the same, later. */
    vmki_os_release((char *)row + 2 * page, 2 * page);
    vmki_os_release(comb, pages * page);
    void *again;
    EXPECT(try_reserve((uintptr_t)row + 2 * page, 2 * page, true, &again) == VMK_OK);
    vmki_os_release(row, 2 * page);
    vmki_os_release(again, 2 * page);
    vmki_os_release((char *)row + 4 * page, 2 * page);
    return 0;
}

/* At the limit on mappings a decommit in the middle of a committed run can't be had: contents are kept. */
static int child_decommit_refused(void)
{
    uint64_t limit;
    vmk_status status;
    void *comb, *run;
    if (!vmki_posix_read_number("/proc/sys/vm/max_map_count", &limit) || limit > 1000000)
        return 0;
    size_t pages = 2 * (size_t)limit;
    EXPECT(try_reserve(0, 9 * page, false, &run) == VMK_OK);
    EXPECT(vmki_os_commit(run, 9 * page) == VMK_OK);
    memset(run, 7, 9 * page);
    EXPECT(try_reserve(0, pages * page, false, &comb) == VMK_OK);
    (void)exhaust_mappings(comb, pages, &status);
    EXPECT(status == VMK_ERR_MAPPINGS);
    for (int method = VMKI_POSIX_DECOMMIT_ZAP; method <= VMKI_POSIX_DECOMMIT_REMAP; method++) {
        vmki_posix_decommit_force((vmki_posix_decommit)method);
        status = vmki_os_decommit((char *)run + 3 * page, 3 * page);
        EXPECT(status == VMK_ERR_MAPPINGS);
        EXPECT(errno == ENOMEM);
        for (size_t i = 0; i < 9 * page; i++)
            EXPECT(((volatile char *)run)[i] == 7);
        ((volatile char *)run)[4 * page] = 7; /* still writable */
    }
    vmki_os_release(comb, pages * page);
    EXPECT(vmki_os_decommit((char *)run + 3 * page, 3 * page) == VMK_OK);
    vmki_os_release(run, 9 * page);
    return 0;
}

/* Locked memory, and no more may be locked: neither way to decommit is open. Takes a process without privileges. */
static int child_locked(void)
{
    void *base;
    EXPECT(try_reserve(0, 4 * page, false, &base) == VMK_OK && vmki_os_commit(base, 4 * page) == VMK_OK);
    memset(base, 7, 4 * page);
    if (mlock(base, 4 * page) != 0)
        return 0;
    struct rlimit limit = {(rlim_t)(5 * page), (rlim_t)(5 * page)};
    EXPECT(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    if ((geteuid() == 0 && setuid(65534) != 0) || mlockall(MCL_FUTURE) != 0)
        return 0;
    vmki_posix_decommit_force(VMKI_POSIX_DECOMMIT_ZAP);
    errno = 0;
    vmk_status status = vmki_os_decommit(base, 4 * page);
    EXPECT(status == VMK_ERR_COMMIT || status == VMK_OK); /* done all the same, where the kernel could */
    EXPECT(status == VMK_OK || errno == EAGAIN);
    for (size_t i = 0; status != VMK_OK && i < 4 * page; i++) {
        EXPECT(((volatile unsigned char *)base)[i] == 7);
        ((volatile unsigned char *)base)[i] = 8;
    }
    return 0;
}

static bool same_set(const sigset_t *a, const sigset_t *b)
{
    int differences = 0;
    for (int signal = 1; signal < NSIG; signal++)
        if (signal != SIGKILL && signal != SIGSTOP) /* in no mask, whatever one asks for */
            differences += sigismember(a, signal) != sigismember(b, signal);
    return differences == 0;
}

static void add_one(void *argument)
{
    ++*(int *)argument;
}

/* No room for a stack: refused, with nothing changed, and not for good. */
static int child_thread_limit(void)
{
    vmk_usage usage;
    sigset_t before, after;
    int runs = 0;
    vmki_os_thread thread = {77};
    EXPECT(vmki_os_usage(&usage) == VMK_OK);
    EXPECT(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    EXPECT(limit_to(false, usage.address_space, 4 * page));
    errno = 0;
    EXPECT(vmki_os_thread_start(&thread, add_one, &runs) == VMK_ERR_COMMIT);
    EXPECT(errno == EAGAIN || errno == ENOMEM);
    EXPECT(thread.handle == 77 && runs == 0);
    EXPECT(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0 && same_set(&before, &after));
    EXPECT(limit_to(false, usage.address_space, 64 * MIB));
    EXPECT(vmki_os_thread_start(&thread, add_one, &runs) == VMK_OK);
    vmki_os_thread_join(&thread);
    EXPECT(runs == 1);
    return 0;
}

static void *do_nothing(void *argument)
{
    return argument;
}

/* glibc has been told to give every thread more variables of its own than a small stack has room for. */
static int child_thread_variables(void)
{
    pthread_attr_t small;
    pthread_t refused;
    int runs = 0;
    vmki_os_thread thread;
    EXPECT(pthread_attr_init(&small) == 0);
    EXPECT(pthread_attr_setstacksize(&small, vmki_ceil(vmki_max(65536, vmki_posix_stack_min()), page)) == 0);
    int error = pthread_create(&refused, &small, do_nothing, NULL);
    EXPECT(error == 0 || error == EINVAL);
    if (error == 0) /* another C library, or a sanitizer: nothing to see here */
        EXPECT(pthread_join(refused, NULL) == 0);
    EXPECT(vmki_os_thread_start(&thread, add_one, &runs) == VMK_OK);
    vmki_os_thread_join(&thread);
    EXPECT(runs == 1);
    return error == EINVAL ? 0 : NOTHING_SEEN;
}

static int child(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*body)(void);
    } cases[] = {
        {"data", child_data_limit},           {"address", child_address_limit}, {"mappings", child_mapping_limit},
        {"decommit", child_decommit_refused}, {"locked", child_locked},         {"thread", child_thread_limit},
        {"variables", child_thread_variables}};
    size_t granularity;
    vmki_os_page_facts(&page, &granularity);
    for (size_t i = 0; argc > 0 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[0], cases[i].name) == 0)
            return cases[i].body();
    return 2;
}

static void run_child(const char *what)
{
    char output[1024];
    const char *const arguments[] = {what, NULL};
    vmk_usage usage;
    if (vmki_os_usage(&usage) != VMK_OK) /* where a limit lies is not known: not Linux */
        return;
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(!end.crashed && end.code == 0, "%s: crashed %d, code %d: %s", what, end.crashed, end.code, output);
}

START_TEST(data_limit_refuses_commit)
{
    run_child("data");
}
END_TEST

START_TEST(address_limit_refuses_reserve)
{
    run_child("address");
}
END_TEST

START_TEST(mapping_limit_is_told_apart)
{
    if (!NEEDS_MAPPINGS_ITSELF)
        run_child("mappings");
}
END_TEST

START_TEST(refused_decommit_keeps_contents)
{
    if (!NEEDS_MAPPINGS_ITSELF)
        run_child("decommit");
}
END_TEST

START_TEST(refused_decommit_of_locked_memory)
{
    if (!NEEDS_MAPPINGS_ITSELF)
        run_child("locked");
}
END_TEST

START_TEST(refused_thread_changes_nothing)
{
    if (!NEEDS_MAPPINGS_ITSELF)
        run_child("thread");
}
END_TEST

START_TEST(thread_with_many_variables_of_its_own)
{
    char output[1024];
    const char *const arguments[] = {"variables", NULL};
    ck_assert_int_eq(setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=200000", 1), 0);
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_int_eq(unsetenv("GLIBC_TUNABLES"), 0);
    ck_assert_msg(!end.crashed && (end.code == 0 || end.code == NOTHING_SEEN), "%d: %s", end.code, output);
}
END_TEST

/* --- threads and random bits ------------------------------------------------------------------------------------ */

typedef struct inheritance {
    sigset_t mask;
    size_t stack; /* 0: not told */
} inheritance;

static void look_around(void *argument)
{
    inheritance *own = argument;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &own->mask);
    own->stack = 0;
#if defined(__linux__)
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        (void)pthread_attr_getstacksize(&attributes, &own->stack);
        (void)pthread_attr_destroy(&attributes);
    }
#endif
}

START_TEST(thread_has_signals_blocked_and_a_small_stack)
{
    sigset_t all, some, before, after;
    inheritance own;
    vmki_os_thread thread;
    ck_assert_int_eq(sigfillset(&all), 0);
    ck_assert_int_eq(sigemptyset(&some), 0);
    ck_assert_int_eq(sigaddset(&some, SIGUSR2), 0);
    ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &some, &before), 0);
    ck_assert_int_eq(vmki_os_thread_start(&thread, look_around, &own), VMK_OK);
    ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &before, &after), 0);
    vmki_os_thread_join(&thread);
    ck_assert(same_set(&own.mask, &all));
    ck_assert(same_set(&after, &some)); /* the starter's are as they were */
    ck_assert(NEEDS_MAPPINGS_ITSELF || own.stack <= vmki_max(65536, vmki_posix_stack_min()) + page);
}
END_TEST

/* What stands in for the system's random bits where there are none by a call. */
START_TEST(random_bits_by_other_ways)
{
    uint64_t bits = 7, more = 7, mixed[64];
    ck_assert(!vmki_posix_random_file("/nonexistent/file", &bits) && bits == 7);
    ck_assert(!vmki_posix_random_file("/dev/null", &bits) && bits == 7); /* ends too early */
    ck_assert(vmki_posix_random_file("/dev/urandom", &bits) && vmki_posix_random_file("/dev/urandom", &more));
    ck_assert(bits != more && bits != 7);
    for (size_t i = 0; i < 64; i++) {
        mixed[i] = vmki_posix_random_mix();
        for (size_t j = 0; j < i; j++)
            ck_assert(mixed[i] != mixed[j] && mixed[i] >> 32 != mixed[j] >> 32);
    }
}
END_TEST

/* --- fork ------------------------------------------------------------------------------------------------------- */

static vmki_os_lock lock;
static uint8_t stop; /* what the threads look at */
static unsigned before_count, after_count;
static uint64_t counter; /* under the lock */

static void before_fork(void)
{
    vmki_os_lock_acquire(&lock);
    before_count++;
}

static void after_fork(void)
{
    after_count++;
    vmki_os_lock_release(&lock);
}

/* In the child of a fork: the handlers have run, the lock can be had, memory can be reserved and what was there is. */
static int child_of_fork(unsigned rounds, const unsigned char *shared)
{
    void *base;
    EXPECT(before_count == rounds && after_count == rounds);
    vmki_os_lock_acquire(&lock);
    vmki_os_lock_release(&lock);
    EXPECT(shared[0] == 7);
    EXPECT(try_reserve(0, 4 * page, false, &base) == VMK_OK && vmki_os_commit(base, 4 * page) == VMK_OK);
    EXPECT(vmki_os_decommit(base, 4 * page) == VMK_OK);
    vmki_os_release(base, 4 * page);
    return 0;
}

static void fork_often(unsigned rounds)
{
    void *shared;
    ck_assert_int_eq(try_reserve(0, page, false, &shared), VMK_OK);
    ck_assert_int_eq(vmki_os_commit(shared, page), VMK_OK);
    *(unsigned char *)shared = 7;
    for (unsigned i = 1; i <= rounds; i++) {
        int how;
        pid_t pid = fork();
        if (pid == 0)
            _exit(child_of_fork(i, shared));
        ck_assert_int_gt(pid, 0);
        ck_assert_int_eq(waitpid(pid, &how, 0), pid);
        ck_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
    ck_assert_uint_eq(before_count, rounds);
    ck_assert_uint_eq(after_count, rounds);
    vmki_os_release(shared, page);
}

static void *hammer(void *argument)
{
    (void)argument;
    while (VMKI_LOAD_RELAXED(&stop) == 0) {
        vmki_os_lock_acquire(&lock);
        counter++;
        vmki_os_lock_release(&lock);
    }
    return NULL;
}

/* While two threads do nothing but take the lock. */
START_TEST(fork_keeps_locks_usable)
{
    pthread_t threads[2];
    vmki_os_at_fork(before_fork, after_fork, after_fork);
    for (size_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    fork_often(50);
    VMKI_STORE_RELAXED(&stop, 1);
    for (size_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}
END_TEST

static char fork_calls[16];
static bool fork_notes;

static void note_call(char name)
{
    size_t length = strlen(fork_calls);
    if (fork_notes && length + 1 < sizeof fork_calls)
        fork_calls[length] = name;
}

static void first_before(void)
{
    note_call('b');
}

static void first_in_parent(void)
{
    note_call('p');
}

static void first_in_child(void)
{
    note_call('c');
}

static void second_before(void)
{
    note_call('B');
}

static void second_in_parent(void)
{
    note_call('P');
}

static void second_in_child(void)
{
    note_call('C');
}

/* As layers register, the lower first: the upper takes its locks first, and has them back last. */
START_TEST(fork_calls_each_in_its_order)
{
    int how;
    vmki_os_at_fork(first_before, first_in_parent, first_in_child);
    vmki_os_at_fork(second_before, second_in_parent, second_in_child);
    fork_notes = true;
    pid_t pid = fork();
    if (pid == 0)
        _exit(strcmp(fork_calls, "BbcC") == 0 ? 0 : 1);
    fork_notes = false;
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &how, 0), pid);
    ck_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    ck_assert_str_eq(fork_calls, "BbpP");
}
END_TEST

static void wait_long(void *argument)
{
    vmki_os_event *events = argument;
    vmki_os_event_signal(&events[1]);
    (void)vmki_os_event_wait(&events[0], UINT64_C(20000000000));
}

/* An event that a thread of the parent waits for, which the child has not. */
static int child_of_waiter(vmki_os_event *events)
{
    int runs = 0;
    vmki_os_thread thread;
    EXPECT(!vmki_os_event_wait(&events[0], 1000000));
    vmki_os_event_signal(&events[0]);
    EXPECT(vmki_os_event_wait(&events[0], 0));
    vmki_os_event_reset(&events[0]);
    EXPECT(!vmki_os_event_wait(&events[0], 0));
#if !defined(WITH_TSAN) /* allows no new thread here */
    EXPECT(vmki_os_thread_start(&thread, add_one, &runs) == VMK_OK);
    vmki_os_thread_join(&thread);
    EXPECT(runs == 1);
#else
    (void)thread, (void)runs;
#endif
    return 0;
}

START_TEST(events_and_threads_after_fork)
{
    vmki_os_event events[2] = {{{0}}, {{0}}};
    vmki_os_thread thread;
    int how;
    ck_assert_int_eq(vmki_os_thread_start(&thread, wait_long, events), VMK_OK);
    ck_assert(vmki_os_event_wait(&events[1], UINT64_C(20000000000)));
    pid_t pid = fork();
    if (pid == 0)
        _exit(child_of_waiter(events));
    vmki_os_event_signal(&events[0]);
    vmki_os_thread_join(&thread);
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &how, 0), pid);
    ck_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}
END_TEST

/* --- the suite -------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    const TTest *const tests[] = {decommit_by_zapping,
                                  decommit_by_mapping_anew,
                                  decommit_is_chosen_by_the_system,
                                  decommit_is_chosen_by_several_at_once,
                                  locked_memory,
                                  noreplace_is_known_rightly,
                                  growing_makes_no_mappings,
                                  usage_is_what_limits_count,
                                  data_limit_refuses_commit,
                                  address_limit_refuses_reserve,
                                  mapping_limit_is_told_apart,
                                  refused_decommit_keeps_contents,
                                  refused_decommit_of_locked_memory,
                                  refused_thread_changes_nothing,
                                  thread_with_many_variables_of_its_own,
                                  thread_has_signals_blocked_and_a_small_stack,
                                  random_bits_by_other_ways,
                                  fork_keeps_locks_usable,
                                  fork_calls_each_in_its_order,
                                  events_and_threads_after_fork};
    size_t granularity;
    vmki_os_page_facts(&page, &granularity);
    Suite *suite = suite_create("os_posix");
    TCase *group = tcase_create("posix");
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(group, tests[i]);
    suite_add_tcase(suite, group);
    return support_main(argc, argv, suite, child);
}
