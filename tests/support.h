/* SPDX-License-Identifier: MIT
 *
 * What the suites share. A suite is one source file whose main() is one line: return support_main(argc, argv, suite,
 * child). Everything runs in this process: Check's fork mode does not exist on Windows.
 */
#ifndef VMKIT_TESTS_SUPPORT_H
#define VMKIT_TESTS_SUPPORT_H

#include <check.h>

#include "vmkit.h"

/* Check notes every assertion that holds in a file, to say where a test that crashes was last. That is most of the time
 * of a suite with millions of them, and of no use where no fork mode outlives a crash. All ck_assert macros come down
 * to this. */
#undef ck_assert_msg
#define ck_assert_msg(expression, ...)                                                                                 \
    ((expression) ? (void)0                                                                                            \
                  : _ck_assert_failed(__FILE__, __LINE__, "Assertion '" #expression "' failed", ##__VA_ARGS__))

/* What a child process does: called with the arguments after the program's name; the result is its exit code. */
typedef int support_child(int argc, char **argv);

/* Print the seed, run the suite, and give main's result: 0, or 1 if anything failed. In a process that support_run_self
 * started: call `child` instead (NULL for a suite that starts none). A crash ends the process with a code that no
 * runner can take for success, under Wine too. */
int support_main(int argc, char **argv, Suite *suite, support_child *child);

/* Random numbers: VMKIT_SEED in the environment, else the time; main prints it. Each support_random_start gives a
 * stream that depends on the seed and the salt alone. */
typedef struct support_random {
    uint64_t state[2];
} support_random;

support_random support_random_start(uint64_t salt);
uint64_t support_random_next(support_random *random);
/* In [0, limit); limit > 0. */
size_t support_random_below(support_random *random, size_t limit);

/* How many rounds a random test should do: `usual`, times VMKIT_ROUNDS (a factor, 1 by default) from the environment.
 */
size_t support_rounds(size_t usual);

/* Can the byte at this address be read, written, right now? By asking the system, without a fault. */
bool support_readable(const void *address);
bool support_writable(void *address);

/* Are the system's figures of this process, and limits on it, the program's? Not where an emulator runs the program as
 * a part of itself (VMKIT_EMULATED): it has the figures, and the limits have no effect. Then nothing is compared with
 * them.
 */
bool support_system_tells(void);

/* What the system shows for an address range: bytes reserved (mapped, accessible or not), bytes committed (accessible
 * or charged), bytes resident. False where the system doesn't tell. */
typedef struct support_figures {
    size_t reserved;
    size_t committed;
    size_t resident;
} support_figures;
bool support_system_figures(const void *base, size_t size, support_figures *figures);

/* Entries in the process's list of mappings that lie in the range; SIZE_MAX where the system doesn't tell. */
size_t support_mappings(const void *base, size_t size);

/* Does the system show the page at the address under this name (NULL: under none)? Always true where it has no names:
 * whether it has is found out with a mapping of support's own. */
bool support_named(const void *address, const char *name);

/* Handles that this process has open (file descriptors); SIZE_MAX where the system doesn't tell. */
size_t support_handles(void);

/* The path of a file of this process's own, which isn't there yet, in the current directory; remove it (UTF-8). */
#define SUPPORT_PATH 64
void support_path(char path[SUPPORT_PATH]);
void support_remove(const char *path);

/* Threads: run body(argument, number) in `count` threads at once and wait for all. Check's assertions must not be used
 * in them: record, and assert afterwards. */
void support_threads(unsigned count, void (*body)(void *argument, unsigned number), void *argument);
void support_yield(void);

/* A library, loaded by its path; a function of it. NULL: there is none. */
typedef void support_symbol(void);
void *support_library_open(const char *path);
support_symbol *support_library_symbol(void *library, const char *name);
void support_library_close(void *library);

/* ThreadSanitizer lets no forked child of a process with threads start any. */
#if defined(__SANITIZE_THREAD__)
#define SUPPORT_CHILD_HAS_THREADS false
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SUPPORT_CHILD_HAS_THREADS false
#endif
#endif
#if !defined(SUPPORT_CHILD_HAS_THREADS)
#define SUPPORT_CHILD_HAS_THREADS true
#endif

/* Run this test executable again with these arguments (NULL-terminated), as a child process: what it printed to both
 * streams (cut to size - 1 bytes), and how it ended. */
typedef struct support_end {
    bool crashed; /* by a signal, an abort, an exception */
    int code;     /* exit code where it did not crash */
} support_end;
support_end support_run_self(const char *const *arguments, char *output, size_t size);

/* Commit a crime in a child process, whose support_child is told its name: it must be the end of that process, with
 * this message among its words (NULL: with any). A child that survives it returns SUPPORT_SURVIVED, one that never got
 * that far SUPPORT_UNREADY. */
enum { SUPPORT_SURVIVED = 77, SUPPORT_UNREADY = 9 };
void support_crime(const char *name, const char *message);

/* A table of them. support_commit is what a support_child does with it; support_deaths is main() of a suite that is
 * nothing but such a table. */
typedef struct support_crimes {
    const char *name;
    void (*commit)(void);
    const char *message;
} support_crimes;

int support_commit(int argc, char **argv, const support_crimes *crimes, size_t count);
int support_deaths(int argc, char **argv, const char *suite, const support_crimes *crimes, size_t count);

#endif
