/* SPDX-License-Identifier: MIT
 *
 * Executable memory, flipped and mapped twice. What it promises of pages is asked of the system; that code runs is seen
 * by running some, on the processors for which there is some here.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#define HAS_CODE 1
#endif

static size_t page;

static vmk_code made(size_t pages, unsigned flags)
{
    vmk_code code;
    ck_assert_int_eq(vmk_code_init(&code, pages * page, flags), VMK_OK);
    ck_assert_ptr_nonnull(code.base);
    ck_assert_uint_eq(code.size, pages * page);
    ck_assert_int_eq(code.twice, flags != VMK_CODE_FLIP);
    ck_assert_int_eq(code.write == code.base, !code.twice);
    return code;
}

/* --- code that answers with a number ---------------------------------------------------------------------------- */

enum { ANSWER_SIZE = 6 };

static void put_answer(unsigned char *at, uint32_t value)
{
    unsigned char bytes[ANSWER_SIZE] = {0xB8, 0, 0, 0, 0, 0xC3}; /* mov eax, value; ret */
    for (unsigned i = 0; i < 4; i++)
        bytes[1 + i] = (unsigned char)(value >> 8 * i);
    memcpy(at, bytes, sizeof bytes);
}

#if defined(HAS_CODE)
static uint32_t ask(const unsigned char *at)
{
    uint32_t (*function)(void);
    memcpy(&function, &at, sizeof function);
    return function();
}
#else
static uint32_t ask(const unsigned char *at)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)at[1 + i] << 8 * i;
    return value;
}
#endif

static void write_answer(vmk_code *code, size_t offset, uint32_t value)
{
    ck_assert_int_eq(vmk_code_begin(code, offset, ANSWER_SIZE), VMK_OK);
    put_answer(code->write + offset, value);
    ck_assert_int_eq(vmk_code_end(code, offset, ANSWER_SIZE), VMK_OK);
}

/* --- pages ------------------------------------------------------------------------------------------------------ */

START_TEST(pages_are_writable_or_executable)
{
    unsigned flags = _i == 0 ? VMK_CODE_FLIP : VMK_CODE_TWICE;
    vmk_code code = made(8, flags);
    ck_assert(!support_writable(code.write) && !support_writable(code.write + 7 * page));
    ck_assert_int_eq(vmk_code_begin(&code, 2 * page - 1, 2), VMK_OK); /* two bytes, two pages */
    for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(support_writable(code.write + i * page), i == 1 || i == 2);
    memset(code.write + page, 0x90, 2 * page);
    ck_assert_int_eq(vmk_code_end(&code, 2 * page - 1, 2), VMK_OK);
    for (size_t i = 0; i < 8; i++) {
        bool open = code.twice && (i == 1 || i == 2);
        ck_assert_int_eq(support_writable(code.write + i * page), open);
        ck_assert(!support_writable((void *)(uintptr_t)(code.base + i * page)) || !code.twice);
    }
    ck_assert_uint_eq(code.base[page], 0x90);
    ck_assert_uint_eq(code.base[3 * page - 1], 0x90);
    vmk_code_fini(&code);
}
END_TEST

START_TEST(what_was_written_runs)
{
    static const unsigned ways[] = {0, VMK_CODE_FLIP, VMK_CODE_TWICE};
    vmk_code code;
    ck_assert_int_eq(vmk_code_init(&code, 3 * page + 1, ways[_i]), VMK_OK);
    ck_assert_uint_eq(code.size, 4 * page);
    ck_assert(vmki_is_aligned((uintptr_t)code.base, 4096));
    ck_assert_int_eq(vmk_code_begin(&code, 0, code.size), VMK_OK);
    for (uint32_t i = 0; i < 4 * page / 16; i++)
        put_answer(code.write + 16 * (size_t)i, i * 3);
    ck_assert_int_eq(vmk_code_end(&code, 0, code.size), VMK_OK);
    for (uint32_t i = 0; i < 4 * page / 16; i++)
        ck_assert_uint_eq(ask(code.base + 16 * (size_t)i), i * 3);
#if !defined(VMKIT_EMULATED) /* which doesn't see that code changed if it was written elsewhere */
    write_answer(&code, 2 * page - 3, 77);
    ck_assert_uint_eq(ask(code.base + 2 * page - 3), 77);
    write_answer(&code, 2 * page - 3, 78);
    ck_assert_uint_eq(ask(code.base + 2 * page - 3), 78);
#endif
    ck_assert_uint_eq(ask(code.base + 3 * page), 3 * (uint32_t)page / 16 * 3);
    vmk_code copy = code; /* may be moved */
    ck_assert_uint_eq(ask(copy.base + 3 * page), 3 * (uint32_t)page / 16 * 3);
    vmk_code_fini(&copy);
}
END_TEST

/* --- arguments -------------------------------------------------------------------------------------------------- */

START_TEST(wrong_arguments)
{
    vmk_code code, untouched;
    memset(&code, 0x5a, sizeof code);
    memcpy(&untouched, &code, sizeof code);
    ck_assert_int_eq(vmk_code_init(&code, 0, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_code_init(&code, SIZE_MAX, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_code_init(&code, page, VMK_CODE_FLIP | VMK_CODE_TWICE), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_code_init(&code, page, 4), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(memcmp(&code, &untouched, sizeof code), 0);
    for (unsigned flags = VMK_CODE_FLIP; flags <= VMK_CODE_TWICE; flags++) {
        code = made(2, flags);
        const size_t wrong[][2] = {{0, 2 * page + 1}, {2 * page, 1}, {2 * page + 1, 0}, {1, SIZE_MAX}, {SIZE_MAX, 2}};
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            ck_assert_int_eq(vmk_code_begin(&code, wrong[i][0], wrong[i][1]), VMK_ERR_ARGUMENT);
            ck_assert_int_eq(vmk_code_end(&code, wrong[i][0], wrong[i][1]), VMK_ERR_ARGUMENT);
        }
        ck_assert_int_eq(vmk_code_begin(&code, 2 * page, 0), VMK_OK);
        ck_assert_int_eq(vmk_code_begin(&code, 7, 0), VMK_OK);
        ck_assert_int_eq(vmk_code_end(&code, 7, 0), VMK_OK);
        ck_assert(!support_writable(code.write));
        vmk_code_fini(&code);
    }
}
END_TEST

#if !defined(VMKIT_MODEL)
START_TEST(too_much)
{
    vmk_code code;
    size_t size = SIZE_MAX - 16 * page;
    for (unsigned flags = 0; flags <= VMK_CODE_TWICE; flags++) {
        vmk_status status = vmk_code_init(&code, size, flags);
        ck_assert_msg(status == VMK_ERR_ADDRESS_SPACE || status == VMK_ERR_COMMIT, "%s", vmk_status_name(status));
    }
}
END_TEST
#endif

START_TEST(error_codes_stay)
{
    vmki_os_error before = {.library = 77, .system = 88}, now;
    vmki_os_error_set(before);
    vmk_code code;
    vmk_status status = vmk_code_init(&code, page, 0);
    if (status == VMK_OK)
        status = vmk_code_begin(&code, 0, page);
    if (status == VMK_OK)
        status = vmk_code_end(&code, 0, page);
    if (status == VMK_OK)
        vmk_code_fini(&code);
    now = vmki_os_error_get();
    ck_assert_int_eq(status, VMK_OK);
    ck_assert_int_eq(now.library, 77);
    ck_assert(now.system == 88 || now.system == 0);
}
END_TEST

/* Many rounds leave nothing behind: handles and address space would run out. */
START_TEST(many_rounds)
{
    for (size_t round = 0; round < support_rounds(600); round++) {
        vmk_code code = made(1 + round % 3, round % 2 == 0 ? VMK_CODE_FLIP : VMK_CODE_TWICE);
        if (round % 10 == 0)
            write_answer(&code, round % page / 2, (uint32_t)round);
        vmk_code_fini(&code);
    }
}
END_TEST

START_TEST(the_record_says_what_can_be_had)
{
    vmk_code code;
    unsigned features = vmk_capabilities()->features;
    for (unsigned flags = VMK_CODE_FLIP; flags <= VMK_CODE_TWICE; flags++) {
        bool said = (features & (flags == VMK_CODE_FLIP ? VMK_CAP_CODE : VMK_CAP_CODE_TWICE)) != 0;
        vmk_status status = vmk_code_init(&code, page, flags);
        ck_assert_int_eq(status, said ? VMK_OK : VMK_ERR_UNSUPPORTED);
        if (status == VMK_OK)
            vmk_code_fini(&code);
    }
}
END_TEST

/* --- random writes against a plain copy ------------------------------------------------------------------------- */

enum { RANDOM_PAGES = 6 };

START_TEST(random_writes)
{
    static unsigned char copy[RANDOM_PAGES << 16];
    support_random random = support_random_start(31 + (uint64_t)_i);
    vmk_code code = made(RANDOM_PAGES, _i == 0 ? VMK_CODE_FLIP : VMK_CODE_TWICE);
    bool ended[RANDOM_PAGES] = {false}; /* else a flipped page can't be read */
    memset(copy, 0, sizeof copy);
    for (size_t round = support_rounds(400); round > 0; round--) {
        size_t offset = support_random_below(&random, code.size);
        size_t size = support_random_below(&random, vmki_min(code.size - offset, 2 * page) + 1);
        ck_assert_int_eq(vmk_code_begin(&code, offset, size), VMK_OK);
        for (size_t i = 0; i < size; i += 1 + support_random_below(&random, 64))
            code.write[offset + i] = copy[offset + i] = (unsigned char)support_random_next(&random);
        ck_assert_int_eq(vmk_code_end(&code, offset, size), VMK_OK);
        for (size_t i = offset / page; size != 0 && i <= (offset + size - 1) / page; i++)
            ended[i] = true;
        size_t at = support_random_below(&random, RANDOM_PAGES);
        if (ended[at] || code.twice)
            ck_assert_int_eq(memcmp(code.base + at * page, copy + at * page, page), 0);
        ck_assert_int_eq(support_writable(code.write + at * page), code.twice && ended[at]);
    }
    vmk_code_fini(&code);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------------------------- */

#if defined(HAS_CODE) && !defined(VMKIT_EMULATED)

enum { THREADS = 3, REWRITES = 3000, NEIGHBOUR = 2048 };

typedef struct race {
    vmk_code code;
    size_t over;
    bool wrong[THREADS];
} race;

/* The first thread rewrites a function, the others run its neighbour in the same page all the while. */
static void rewrite_or_run(void *argument, unsigned number)
{
    race *r = argument;
    if (number == 0) {
        for (uint32_t i = 0; i < REWRITES; i++) {
            if (vmk_code_begin(&r->code, NEIGHBOUR, ANSWER_SIZE) != VMK_OK) {
                r->wrong[0] = true;
                break;
            }
            put_answer(r->code.write + NEIGHBOUR, i);
            r->wrong[0] |= vmk_code_end(&r->code, NEIGHBOUR, ANSWER_SIZE) != VMK_OK;
            r->wrong[0] |= ask(r->code.base + NEIGHBOUR) != i;
        }
        VMKI_STORE_RELEASE(&r->over, 1);
        return;
    }
    do
        r->wrong[number] |= ask(r->code.base) != 4711;
    while (VMKI_LOAD_ACQUIRE(&r->over) == 0);
}

START_TEST(neighbours_run_while_code_is_written)
{
    race r = {.code = made(1, VMK_CODE_TWICE)};
    write_answer(&r.code, 0, 4711);
    support_threads(THREADS, rewrite_or_run, &r);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert(!r.wrong[i]);
    vmk_code_fini(&r.code);
}
END_TEST

/* Each thread has pages of its own, flipped while the others run theirs. */
static void flip_own_pages(void *argument, unsigned number)
{
    race *r = argument;
    size_t at = number * page;
    for (uint32_t i = 0; i < REWRITES / 3; i++) {
        if (vmk_code_begin(&r->code, at, page) != VMK_OK) {
            r->wrong[number] = true;
            break;
        }
        put_answer(r->code.write + at + i % 1024, i + number);
        r->wrong[number] |= vmk_code_end(&r->code, at, page) != VMK_OK;
        r->wrong[number] |= ask(r->code.base + at + i % 1024) != i + number;
    }
}

START_TEST(threads_flip_pages_of_their_own)
{
    race r = {.code = made(THREADS, VMK_CODE_FLIP)};
    support_threads(THREADS, flip_own_pages, &r);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert(!r.wrong[i]);
    vmk_code_fini(&r.code);
}
END_TEST

#endif

/* --- what is refused -------------------------------------------------------------------------------------------- */

#if defined(VMKIT_MODEL)

/* Every call of the system fails once, the first, the second, and so on until all succeed. */
START_TEST(every_call_may_fail)
{
    static const unsigned ways[] = {0, VMK_CODE_FLIP, VMK_CODE_TWICE};
    static const vmk_status reasons[] = {VMK_ERR_UNSUPPORTED, VMK_ERR_COMMIT, VMK_ERR_MAPPINGS, VMK_ERR_ADDRESS_SPACE};
    vmk_status reason = reasons[_i % 4];
    unsigned flags = ways[_i / 4];
    size_t failures = 0;
    for (uint64_t n = 1;; n++) {
        vmk_code code = {.size = 12345};
        model_fail_nth(n, reason, false);
        vmk_status status = vmk_code_init(&code, 2 * page, flags);
        if (!model_failed()) {
            model_fail_nth(0, VMK_OK, false);
            ck_assert_int_eq(status, VMK_OK);
            vmk_code_fini(&code);
            break;
        }
        failures++;
        bool other_way = flags == 0 && reason == VMK_ERR_UNSUPPORTED;
        ck_assert_int_eq(status, other_way ? VMK_OK : reason);
        if (status == VMK_OK)
            ck_assert(!code.twice);
        else
            ck_assert(code.size == 12345 && code.base == NULL && code.seal == 0);
        if (status == VMK_OK)
            vmk_code_fini(&code);
        ck_assert_uint_eq(model_code_mapped(), 0);
    }
    ck_assert_uint_eq(failures, flags == VMK_CODE_FLIP ? 4 : 1); /* mapping, and three changes of protection */
}
END_TEST

START_TEST(not_to_be_had_twice)
{
    vmk_code code;
    model_code_forbid_twice(true);
    ck_assert_int_eq(vmk_code_init(&code, page, VMK_CODE_TWICE), VMK_ERR_UNSUPPORTED);
    ck_assert_int_eq(vmk_code_init(&code, page, 0), VMK_OK);
    ck_assert(!code.twice);
    model_fail_nth(1, VMK_ERR_UNSUPPORTED, true); /* nor in any other way */
    vmk_code other;
    ck_assert_int_eq(vmk_code_init(&other, page, 0), VMK_ERR_UNSUPPORTED);
    model_fail_nth(0, VMK_OK, false);
    vmk_code_fini(&code);
    model_code_forbid_twice(false);
}
END_TEST

START_TEST(a_refused_begin_or_end_changes_nothing)
{
    for (unsigned flags = VMK_CODE_FLIP; flags <= VMK_CODE_TWICE; flags++) {
        vmk_code code = made(3, flags);
        write_answer(&code, page, 5);
        model_fail_nth(1, VMK_ERR_MAPPINGS, false);
        ck_assert_int_eq(vmk_code_begin(&code, page, 2 * page), VMK_ERR_MAPPINGS);
        ck_assert_uint_eq(ask(code.base + page), 5);
        ck_assert_int_eq(support_writable(code.write + page), code.twice);
        ck_assert(!support_writable(code.write));
        ck_assert_int_eq(vmk_code_begin(&code, page, 2 * page), VMK_OK);
        model_fail_nth(1, VMK_ERR_COMMIT, false);
        ck_assert_int_eq(vmk_code_end(&code, page, 2 * page), code.twice ? VMK_OK : VMK_ERR_COMMIT);
        put_answer(code.write + page + 16, 6); /* still open */
        model_fail_nth(0, VMK_OK, false);
        ck_assert_int_eq(vmk_code_end(&code, page, 2 * page), VMK_OK);
        ck_assert_uint_eq(ask(code.base + page + 16), 6);
        vmk_code_fini(&code);
    }
}
END_TEST

#endif

/* --- misuse ----------------------------------------------------------------------------------------------------- */

static void begin_none(vmk_code *code)
{
    code->seal = 0;
    VMKI_IGNORE(vmk_code_begin(code, 0, 1));
}

static void end_none(vmk_code *code)
{
    code->seal = 0;
    VMKI_IGNORE(vmk_code_end(code, 0, 1));
}

static void fini_none(vmk_code *code)
{
    code->seal = 0;
    vmk_code_fini(code);
}

static void begin_after(vmk_code *code)
{
    vmk_code_fini(code);
    VMKI_IGNORE(vmk_code_begin(code, 0, 0));
}

static void end_after(vmk_code *code)
{
    vmk_code_fini(code);
    VMKI_IGNORE(vmk_code_end(code, 0, 0));
}

static void fini_twice(vmk_code *code)
{
    vmk_code_fini(code);
    vmk_code_fini(code);
}

#if !defined(VMKIT_EMULATED) && !defined(VMKIT_MODEL)
#define WITH_FAULTS 1
#endif

#if defined(WITH_FAULTS)
static void write_closed(vmk_code *code)
{
    *(volatile unsigned char *)code->write = 1;
}

static void write_where_it_runs(vmk_code *code)
{
    VMKI_IGNORE(vmk_code_begin(code, 0, 1));
    *(volatile unsigned char *)(uintptr_t)code->base = 1;
}

static void run_open(vmk_code *code)
{
    if (vmk_code_begin(code, 0, ANSWER_SIZE) != VMK_OK)
        return;
    put_answer(code->write, 1);
    (void)ask(code->base);
}
#endif

static const struct crime {
    const char *name;
    void (*commit)(vmk_code *code);
    const char *message; /* NULL: a fault */
    unsigned flags;
} crimes[] = {
    {"begin-none", begin_none, "vmk_code_begin: not code memory", 0},
    {"end-none", end_none, "vmk_code_end: not code memory", 0},
    {"fini-none", fini_none, "vmk_code_fini: not code memory", 0},
    {"begin-after", begin_after, "vmk_code_begin: code memory was done with before", 0},
    {"end-after", end_after, "vmk_code_end: code memory was done with before", 0},
    {"fini-twice", fini_twice, "vmk_code_fini: code memory was done with before", 0},
#if defined(WITH_FAULTS)
    {"write-closed", write_closed, NULL, VMK_CODE_FLIP},
    {"write-closed-twice", write_closed, NULL, VMK_CODE_TWICE},
    {"write-where-it-runs", write_where_it_runs, NULL, VMK_CODE_TWICE},
#if defined(HAS_CODE)
    {"run-open", run_open, NULL, VMK_CODE_FLIP},
#endif
#endif
};

enum { CRIMES = sizeof crimes / sizeof crimes[0] };

static int child(int argc, char **argv)
{
    vmk_code code;
    for (int i = 0; argc >= 1 && i < CRIMES; i++)
        if (strcmp(argv[0], crimes[i].name) == 0) {
            if (vmk_code_init(&code, vmk_page_size(), crimes[i].flags) != VMK_OK)
                return SUPPORT_UNREADY;
            crimes[i].commit(&code);
        }
    return SUPPORT_SURVIVED;
}

START_TEST(misuse_ends_the_program)
{
    support_crime(crimes[_i].name, crimes[_i].message);
}
END_TEST

static void set_up(void)
{
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
    page = vmk_page_size();
}

static void tear_down(void)
{
#if defined(VMKIT_MODEL)
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
    ck_assert_uint_eq(model_code_mapped(), 0);
#endif
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("code");
    TCase *tests = tcase_create("code");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, pages_are_writable_or_executable, 0, 2);
    tcase_add_loop_test(tests, what_was_written_runs, 0, 3);
    tcase_add_test(tests, wrong_arguments);
    tcase_add_test(tests, error_codes_stay);
    tcase_add_test(tests, many_rounds);
    tcase_add_test(tests, the_record_says_what_can_be_had);
    tcase_add_loop_test(tests, random_writes, 0, 2);
#if defined(HAS_CODE) && !defined(VMKIT_EMULATED)
    tcase_add_test(tests, neighbours_run_while_code_is_written);
    tcase_add_test(tests, threads_flip_pages_of_their_own);
#endif
#if defined(VMKIT_MODEL)
    tcase_add_loop_test(tests, every_call_may_fail, 0, 12);
    tcase_add_test(tests, not_to_be_had_twice);
    tcase_add_test(tests, a_refused_begin_or_end_changes_nothing);
#else
    tcase_add_test(tests, too_much);
#endif
    tcase_add_loop_test(tests, misuse_ends_the_program, 0, CRIMES);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
