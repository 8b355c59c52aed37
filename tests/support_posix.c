/* SPDX-License-Identifier: MIT
 *
 * The suites' support on POSIX systems. What the system shows of address ranges is read from Linux's /proc; elsewhere
 * those functions say that it is not told.
 */
#include "posix/os_private.h"

#include <dirent.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <sys/wait.h>

#include "support_private.h"

#define MAX_THREADS 64

static const char *program_name;

/* For what can't fail unless the machine is in ruins. */
static void require(bool condition, const char *what)
{
    if (!condition) {
        perror(what);
        abort();
    }
}

void support_prepare(const char *program)
{
    program_name = program;
    if (getenv(SUPPORT_CHILD_MARK) != NULL) { /* children crash on purpose: no dumps */
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
    }
}

/* --- bytes ------------------------------------------------------------------------------------------------------ */

/* The kernel reads for us, and answers EFAULT where we would crash. By the bare system call where there is one: the
 * sanitizers' write() looks at the memory by itself. */
static bool kernel_reads(int pipe_in, const void *address)
{
#if defined(SYS_write)
    return syscall(SYS_write, pipe_in, address, (size_t)1) == 1;
#else
    return write(pipe_in, address, 1) == 1;
#endif
}

static bool kernel_writes(int pipe_out, void *address)
{
#if defined(SYS_read)
    return syscall(SYS_read, pipe_out, address, (size_t)1) == 1;
#else
    return read(pipe_out, address, 1) == 1;
#endif
}

static pthread_mutex_t probe_lock = PTHREAD_MUTEX_INITIALIZER;
static int probe_ends[2]; /* of one pipe for all; under the lock, and empty between two probes */
static bool probe_ready;

static bool probe_byte(void *address, bool writing)
{
    char drop;
    int error = errno;
    require(pthread_mutex_lock(&probe_lock) == 0, "pthread_mutex_lock");
    require(probe_ready || pipe(probe_ends) == 0, "pipe");
    probe_ready = true;
    bool answer = kernel_reads(probe_ends[1], address);
    if (answer) { /* the byte is in the pipe now: out again, to where it came from if that is the question */
        bool back = writing && kernel_writes(probe_ends[0], address);
        if (!back)
            require(read(probe_ends[0], &drop, 1) == 1, "read");
        answer = back || !writing;
    }
    require(pthread_mutex_unlock(&probe_lock) == 0, "pthread_mutex_unlock");
    errno = error;
    return answer;
}

bool support_readable(const void *address)
{
    return probe_byte((void *)(uintptr_t)address, false);
}

bool support_writable(void *address)
{
    return probe_byte(address, true);
}

/* --- ranges ----------------------------------------------------------------------------------------------------- */

typedef struct piece {
    uint64_t low, high; /* of a mapping, cut to the range asked for */
    bool whole;         /* the range has all of the mapping */
    bool accessible;
} piece;

/* A line "LOW-HIGH rwxp ... [NAME]" that has something of [base, limit)? The heap that grows by brk does not count: the
 * C library moves its end between any two lines of a test, and no reservation can be in it. */
static bool piece_parse(const char *line, uint64_t base, uint64_t limit, piece *out)
{
    uint64_t low, high;
    char access[8];
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &low, &high, access) != 3 || low >= limit || high <= base ||
        strstr(line, "[heap]") != NULL)
        return false;
    out->low = low > base ? low : base;
    out->high = high < limit ? high : limit;
    out->whole = out->low == low && out->high == high;
    out->accessible = access[0] == 'r' || access[1] == 'w';
    return true;
}

/* Resident bytes of part of a mapping: smaps tells of whole ones alone. Bit 63 of a page's entry is "present" (Linux,
 * Documentation/admin-guide/mm/pagemap.rst). */
static uint64_t resident_in(uint64_t low, uint64_t high)
{
    uint64_t entries[512], page_size = (uint64_t)sysconf(_SC_PAGESIZE), resident = 0;
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    for (uint64_t at = low; at < high;) {
        uint64_t pages = (high - at) / page_size;
        size_t count = pages < 512 ? (size_t)pages : 512;
        ssize_t got = pread(file, entries, count * sizeof *entries, (off_t)(at / page_size * sizeof *entries));
        if (got <= 0)
            break;
        for (size_t i = 0; i < (size_t)got / sizeof *entries; i++)
            resident += (entries[i] >> 63) * page_size;
        at += (uint64_t)got / sizeof *entries * page_size;
    }
    (void)close(file);
    return resident;
}

bool support_system_figures(const void *base, size_t size, support_figures *figures)
{
    FILE *file = support_system_tells() ? fopen("/proc/self/smaps", "r") : NULL;
    if (file == NULL)
        return false;
    uint64_t low = (uintptr_t)base, limit = size > UINT64_MAX - low ? UINT64_MAX : low + size;
    uint64_t reserved = 0, committed = 0, resident = 0, kib;
    char line[512];
    bool inside = false;
    piece p = {0};
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] >= 'A' && line[0] <= 'Z') { /* a figure of the mapping above */
            if (inside && sscanf(line, "Rss: %" SCNu64 " kB", &kib) == 1 && kib != 0)
                resident += p.whole ? kib * 1024 : resident_in(p.low, p.high);
            continue;
        }
        inside = piece_parse(line, low, limit, &p);
        if (inside) {
            reserved += p.high - p.low;
            committed += p.accessible ? p.high - p.low : 0;
        }
    }
    fclose(file);
    figures->reserved = (size_t)reserved;
    figures->committed = (size_t)committed;
    figures->resident = (size_t)resident;
    return true;
}

size_t support_mappings(const void *base, size_t size)
{
    FILE *file = fopen("/proc/self/maps", "r");
    if (file == NULL)
        return SIZE_MAX;
    uint64_t low = (uintptr_t)base, limit = size > UINT64_MAX - low ? UINT64_MAX : low + size;
    size_t count = 0;
    char line[512];
    piece p;
    while (fgets(line, sizeof line, file) != NULL)
        count += piece_parse(line, low, limit, &p);
    fclose(file);
    return count;
}

#if defined(__linux__)

/* The name of the mapping, as the system shows it: "" if it has none. */
static void name_shown(const void *address, char *name, size_t size)
{
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    require(file != NULL, "/proc/self/maps");
    name[0] = '\0';
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long low, high;
        const char *start = strstr(line, "[anon:");
        if (sscanf(line, "%lx-%lx", &low, &high) != 2 || (uintptr_t)address < low || (uintptr_t)address >= high)
            continue;
        if (start != NULL)
            snprintf(name, size, "%.*s", (int)strcspn(start + 6, "]"), start + 6);
        break;
    }
    fclose(file);
}

static bool names_are_shown(void)
{
    char shown[128];
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(page != MAP_FAILED, "mmap");
    (void)prctl(0x53564d41 /* PR_SET_VMA */, 0ul, (unsigned long)page, (unsigned long)size, (unsigned long)"a probe");
    name_shown(page, shown, sizeof shown);
    (void)munmap(page, size);
    return strcmp(shown, "a probe") == 0;
}

bool support_named(const void *address, const char *name)
{
    char shown[128];
    if (!names_are_shown())
        return true;
    name_shown(address, shown, sizeof shown);
    return strcmp(shown, name != NULL ? name : "") == 0;
}

#else

bool support_named(const void *address, const char *name)
{
    (void)address, (void)name;
    return true;
}

#endif

/* --- files ------------------------------------------------------------------------------------------------------ */

size_t support_handles(void)
{
    size_t count = 0;
    DIR *folder = support_system_tells() ? opendir("/proc/self/fd") : NULL;
    if (folder == NULL)
        return SIZE_MAX;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

void support_path(char path[SUPPORT_PATH])
{
    static unsigned count;
    snprintf(path, SUPPORT_PATH, "support-%ld-%u.tmp", (long)getpid(), count++);
}

void support_remove(const char *path)
{
    (void)unlink(path);
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

typedef struct team {
    void (*body)(void *argument, unsigned number);
    void *argument;
    pthread_mutex_t gate; /* held until all are there, so that they start together */
} team;

typedef struct member {
    pthread_t thread;
    team *team;
    unsigned number;
} member;

static void *member_run(void *argument)
{
    member *self = argument;
    require(pthread_mutex_lock(&self->team->gate) == 0, "pthread_mutex_lock");
    require(pthread_mutex_unlock(&self->team->gate) == 0, "pthread_mutex_unlock");
    self->team->body(self->team->argument, self->number);
    return NULL;
}

void support_threads(unsigned count, void (*body)(void *argument, unsigned number), void *argument)
{
    member members[MAX_THREADS];
    team all = {body, argument, PTHREAD_MUTEX_INITIALIZER};
    require(count <= MAX_THREADS, "more threads than this support has room for");
    require(pthread_mutex_lock(&all.gate) == 0, "pthread_mutex_lock");
    for (unsigned i = 0; i < count; i++) {
        members[i].team = &all;
        members[i].number = i;
        require(pthread_create(&members[i].thread, NULL, member_run, &members[i]) == 0, "pthread_create");
    }
    require(pthread_mutex_unlock(&all.gate) == 0, "pthread_mutex_unlock");
    for (unsigned i = 0; i < count; i++)
        require(pthread_join(members[i].thread, NULL) == 0, "pthread_join");
}

void support_yield(void)
{
    (void)sched_yield();
}

/* --- children --------------------------------------------------------------------------------------------------- */

/* A sanitizer turns a fault into a report and an exit code: let crashes be crashes. */
static void add_option(const char *variable)
{
    char options[1024];
    const char *before = getenv(variable);
    snprintf(options, sizeof options, "%s%shandle_segv=0:handle_sigbus=0", before != NULL ? before : "",
             before != NULL ? ":" : "");
    (void)setenv(variable, options, 1);
}

static void become_child(const char *const *arguments, int output)
{
    char *argv[32] = {(char *)(uintptr_t)program_name};
    for (size_t i = 0; i < 30 && arguments[i] != NULL; i++)
        argv[i + 1] = (char *)(uintptr_t)arguments[i];
    if (dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0 || setenv(SUPPORT_CHILD_MARK, "1", 1) != 0)
        _exit(71);
    add_option("ASAN_OPTIONS");
    add_option("TSAN_OPTIONS");
    (void)execv("/proc/self/exe", argv);
    (void)execv(program_name, argv);
    _exit(72);
}

/* All that comes until the other end is closed; what does not fit is read too, lest the child wait. */
static void collect(int from, char *output, size_t size)
{
    char rest[256];
    size_t length = 0;
    for (;;) {
        bool room = length + 1 < size;
        ssize_t got = room ? read(from, output + length, size - 1 - length) : read(from, rest, sizeof rest);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += room ? (size_t)got : 0;
    }
    if (size != 0)
        output[length] = '\0';
}

support_end support_run_self(const char *const *arguments, char *output, size_t size)
{
    int ends[2], how;
    fflush(NULL);
    require(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
        (void)close(ends[0]);
        become_child(arguments, ends[1]);
    }
    (void)close(ends[1]);
    collect(ends[0], output, size);
    (void)close(ends[0]);
    while (waitpid(child, &how, 0) < 0)
        require(errno == EINTR, "waitpid");
    support_end end = {.crashed = WIFSIGNALED(how), .code = WIFEXITED(how) ? WEXITSTATUS(how) : 0};
    return end;
}

void *support_library_open(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* POSIX has a function's address go through a pointer to an object. */
support_symbol *support_library_symbol(void *library, const char *name)
{
    support_symbol *symbol = NULL;
    void *address = dlsym(library, name);
    memcpy(&symbol, &address, sizeof symbol);
    return symbol;
}

void support_library_close(void *library)
{
    require(dlclose(library) == 0, "dlclose");
}
