/* SPDX-License-Identifier: MIT
 *
 * The part of the suites' support that is the same everywhere: the main function, random numbers, rounds. The rest asks
 * the system: support_posix.c, support_win32.c.
 *
 * A child is known by an environment variable, not by its arguments, so that those are all its own.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support_private.h"

static uint64_t seed;

static uint64_t mix(uint64_t value) /* splitmix64's output function: every bit of the input moves every bit of it */
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static uint64_t splitmix(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(*state);
}

/* What the time alone gives is the same for all suites that ctest starts within a second. */
static uint64_t fresh_seed(void)
{
    uint64_t state = (uint64_t)time(NULL) ^ ((uint64_t)clock() << 32) ^ (uint64_t)(uintptr_t)&state;
    return splitmix(&state) >> 32; /* short enough to be typed */
}

static void seed_start(void)
{
    const char *text = getenv("VMKIT_SEED");
    seed = text != NULL && *text != '\0' ? strtoull(text, NULL, 0) : fresh_seed();
}

bool support_system_tells(void)
{
#ifdef VMKIT_EMULATED
    return false;
#else
    return true;
#endif
}

support_random support_random_start(uint64_t salt)
{
    uint64_t state = seed ^ mix(salt + 1);
    support_random random;
    random.state[0] = splitmix(&state);
    random.state[1] = splitmix(&state) | 1; /* xorshift stays at all zeroes for ever */
    return random;
}

uint64_t support_random_next(support_random *random) /* xorshift128+ */
{
    uint64_t a = random->state[0], b = random->state[1];
    random->state[0] = b;
    a ^= a << 23;
    random->state[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
    return random->state[1] + b;
}

size_t support_random_below(support_random *random, size_t limit)
{
    return (size_t)(support_random_next(random) >> 1) % limit; /* limits are small: the bias does not show */
}

size_t support_rounds(size_t usual)
{
    const char *text = getenv("VMKIT_ROUNDS");
    double factor = text != NULL ? strtod(text, NULL) : 1;
    double rounds = factor > 0 ? (double)usual * factor : (double)usual;
    return rounds < 1 ? 1 : (size_t)rounds;
}

void support_crime(const char *name, const char *message)
{
    char output[4096];
    const char *arguments[] = {name, NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(end.crashed || (end.code != 0 && end.code != SUPPORT_SURVIVED && end.code != SUPPORT_UNREADY),
                  "%s: code %d, %s", name, end.code, output);
    ck_assert_msg(message == NULL || strstr(output, message) != NULL, "%s: %s", name, output);
}

int support_commit(int argc, char **argv, const support_crimes *crimes, size_t count)
{
    for (size_t i = 0; argc >= 1 && i < count; i++)
        if (strcmp(argv[0], crimes[i].name) == 0)
            crimes[i].commit();
    return SUPPORT_SURVIVED;
}

int support_main(int argc, char **argv, Suite *suite, support_child *child)
{
    SRunner *runner = srunner_create(suite);
    support_prepare(argv[0]);
    seed_start();
    if (getenv(SUPPORT_CHILD_MARK) != NULL) {
        srunner_free(runner);
        return child != NULL ? child(argc - 1, argv + 1) : SUPPORT_NO_CHILD;
    }
    printf("seed: %llu (VMKIT_SEED)\n", (unsigned long long)seed);
    fflush(stdout);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* --- suites of crimes --------------------------------------------------------------------------------------------- */

static const support_crimes *all_crimes;
static size_t crime_count;

static int commit_one(int argc, char **argv)
{
    return support_commit(argc, argv, all_crimes, crime_count);
}

START_TEST(misuse_ends_the_program_and_says_why)
{
    support_crime(all_crimes[_i].name, all_crimes[_i].message);
}
END_TEST

int support_deaths(int argc, char **argv, const char *name, const support_crimes *crimes, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create(name);
    all_crimes = crimes;
    crime_count = count;
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, misuse_ends_the_program_and_says_why, 0, (int)count);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, commit_one);
}
