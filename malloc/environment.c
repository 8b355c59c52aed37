/* SPDX-License-Identifier: MIT
 *
 * The first call, and what the environment asks for: VMKIT_HARDENED, VMKIT_STATS, VMKIT_NAMES. It may come from the
 * dynamic linker, when the C library has not yet been told of the environment; and it is not listened to in a program
 * that has more rights than who started it.
 */
#include "posix/os_private.h"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include "shim.h"

enum { REPORT_FILE_LEAST = 100 }; /* programs count on the lowest numbers */

extern char **environ;

bool vmki_shim_hardened;
static bool names;
static bool reports;
static int report_file = -1; /* standard error, as it was at the start: programs close it before they end (ls does) */

static bool has_more_rights(void)
{
#if defined(__linux__)
    return getauxval(AT_SECURE) != 0; /* the kernel's word, which is there from the start */
#else
    return issetugid() != 0;
#endif
}

/* "NAME=value", or the beginning of it. */
static void look_at(const char *text)
{
    static const struct {
        const char *name;
        bool *is_on;
    } known[] = {{"VMKIT_HARDENED=", &vmki_shim_hardened}, {"VMKIT_NAMES=", &names}, {"VMKIT_STATS=", &reports}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const char *value = text + strlen(known[i].name);
        if (strncmp(text, known[i].name, strlen(known[i].name)) == 0)
            VMKI_STORE_RELAXED(known[i].is_on, *value != '\0' && strcmp(value, "0") != 0);
    }
}

/* What the program was started with. Of each variable the beginning is enough. */
static void look_at_file(void)
{
    char chunk[1024], start[32];
    size_t length = 0;
    ssize_t got;
    int file = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
    while (file >= 0 && (got = read(file, chunk, sizeof chunk)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (length < sizeof start - 1 || chunk[i] == '\0')
                start[length++] = chunk[i];
            if (chunk[i] == '\0') {
                look_at(start);
                length = 0;
            }
        }
    }
    if (file >= 0)
        (void)close(file);
}

static void look_at_environment(void)
{
    if (has_more_rights())
        return;
    if (environ == NULL)
        look_at_file();
    for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
        look_at(*variable);
}

VMKI_COLD vmki_heap *vmki_shim_begin(void)
{
    int error = errno;
    look_at_environment(); /* by whoever comes first: all see the same */
    vmk_heap_options options = {.flags = (vmki_shim_hardened ? VMK_HEAP_HARDENED : 0u) | (names ? VMK_HEAP_NAMED : 0u)};
    vmki_heap *heap = vmki_heap_default_make(&options);
    if (reports && VMKI_LOAD_RELAXED(&report_file) < 0)
        VMKI_STORE_RELAXED(&report_file, fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, REPORT_FILE_LEAST));
    if (heap != NULL)
        errno = error;
    return heap;
}

/* Before the program has threads, and registers what is to be called at a fork: ours is to be called last then. */
__attribute__((constructor)) static void at_start(void)
{
    (void)vmki_shim_heap();
}

__attribute__((destructor)) static void at_exit(void)
{
    if (report_file >= 0)
        vmki_shim_report(report_file);
}
