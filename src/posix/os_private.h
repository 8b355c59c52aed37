/* SPDX-License-Identifier: MIT
 *
 * What the files of src/posix share, and where POSIX systems differ: every conditional on a system stands here, as a
 * constant or as a small inline function, so that the other files read alike for all of them. A conditional says no
 * more than that something exists in the headers; whether it works is found out at run time.
 *
 * Linux comes first. Elsewhere there is no advice that gives pages back and promises zeroes (macOS's and FreeBSD's
 * MADV_DONTNEED keep the contents; posix_madvise's is a no-op in glibc and musl), so decommit maps anew.
 *
 * To be included before any other header: it says which functions the system's headers shall declare.
 */
#ifndef VMKI_POSIX_OS_PRIVATE_H
#define VMKI_POSIX_OS_PRIVATE_H

#if defined(_WIN32)
#error "src/posix is for POSIX systems: on Windows compile src/win32"
#endif

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* glibc, musl: madvise, MAP_ANONYMOUS, syscall */
#endif
#if !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64 /* a 32-bit process can have limits of more than 4 GiB: rlim_t shall hold them */
#endif
#if !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif
#if !defined(_NETBSD_SOURCE)
#define _NETBSD_SOURCE 1
#endif
#if !defined(__EXTENSIONS__)
#define __EXTENSIONS__ 1 /* illumos */
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#endif

#include "common/base/align.h"
#include "common/base/os.h"

/* --- mapping ---------------------------------------------------------------------------------------------------- */

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

/* Not to be charged. FreeBSD has dropped the flag; Linux ignores it under strict overcommit, where PROT_NONE alone
 * keeps a reservation from being charged (Documentation/mm/overcommit-accounting). */
#if defined(MAP_NORESERVE)
#define VMKI_POSIX_NORESERVE MAP_NORESERVE
#else
#define VMKI_POSIX_NORESERVE 0
#endif

/* The protection of what is reserved. Two systems want to be told now what mprotect will be allowed later: NetBSD with
 * PaX MPROTECT, FreeBSD with kern.elf64.imply_prot_max. */
#if defined(PROT_MPROTECT)
#define VMKI_POSIX_RESERVED (PROT_NONE | PROT_MPROTECT(PROT_READ | PROT_WRITE))
#elif defined(PROT_MAX)
#define VMKI_POSIX_RESERVED (PROT_NONE | PROT_MAX(PROT_READ | PROT_WRITE))
#else
#define VMKI_POSIX_RESERVED PROT_NONE
#endif

#if defined(__SANITIZE_THREAD__)
#define VMKI_POSIX_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VMKI_POSIX_TSAN 1
#endif
#endif

/* Flags to map at an address without replacing what is there; 0: there are none, a plain hint must do. Linux has had
 * MAP_FIXED_NOREPLACE since 4.17, C libraries since later. ThreadSanitizer takes every fixed mapping outside the ranges
 * of its own for an attack and ends the program, but lets a hint be. */
#if defined(VMKI_POSIX_TSAN)
#define VMKI_POSIX_NOREPLACE 0
#elif defined(MAP_FIXED_NOREPLACE)
#define VMKI_POSIX_NOREPLACE MAP_FIXED_NOREPLACE
#elif defined(__linux__) && defined(__alpha__)
#define VMKI_POSIX_NOREPLACE 0x200000
#elif defined(__linux__)
#define VMKI_POSIX_NOREPLACE 0x100000
#elif defined(MAP_EXCL)
#define VMKI_POSIX_NOREPLACE (MAP_FIXED | MAP_EXCL) /* FreeBSD; EINVAL, not EEXIST, where something is there */
#else
#define VMKI_POSIX_NOREPLACE 0
#endif

/* --- names ------------------------------------------------------------------------------------------------------ */

/* Of anonymous mappings: Linux 5.17, if configured; in headers of C libraries since later. */
#if defined(__linux__) && !defined(PR_SET_VMA)
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static inline void vmki_posix_name(void *base, size_t size, const char *name)
{
#if defined(__linux__)
    (void)prctl(PR_SET_VMA, (unsigned long)PR_SET_VMA_ANON_NAME, (unsigned long)(uintptr_t)base, (unsigned long)size,
                (unsigned long)(uintptr_t)name);
#else
    (void)base, (void)size, (void)name;
#endif
}

/* --- advice ----------------------------------------------------------------------------------------------------- */

#define VMKI_POSIX_NO_ADVICE (-1)

/* Drops the pages at once, and they read as zero afterwards. Linux alone promises both. */
#if defined(__linux__)
#define VMKI_POSIX_ZAP MADV_DONTNEED
#else
#define VMKI_POSIX_ZAP VMKI_POSIX_NO_ADVICE
#endif

/* Discard; what to try when that is refused; and what to say when the pages are used again. macOS's MADV_FREE leaves
 * the memory on the process's account, FREE_REUSABLE takes it off at once but is refused at times, and FREE_REUSE puts
 * it back. */
#if defined(__linux__)
#define VMKI_POSIX_DISCARD MADV_DONTNEED
#define VMKI_POSIX_DISCARD_ELSE VMKI_POSIX_NO_ADVICE
#elif defined(MADV_FREE_REUSABLE)
#define VMKI_POSIX_DISCARD MADV_FREE_REUSABLE
#define VMKI_POSIX_DISCARD_ELSE MADV_FREE
#elif defined(MADV_FREE)
#define VMKI_POSIX_DISCARD MADV_FREE
#define VMKI_POSIX_DISCARD_ELSE VMKI_POSIX_NO_ADVICE
#else
#define VMKI_POSIX_DISCARD VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_DISCARD_ELSE VMKI_POSIX_NO_ADVICE
#endif
#if defined(MADV_FREE_REUSE)
#define VMKI_POSIX_REUSE MADV_FREE_REUSE
#else
#define VMKI_POSIX_REUSE VMKI_POSIX_NO_ADVICE
#endif

#if defined(MADV_HUGEPAGE) && defined(MADV_NOHUGEPAGE)
#define VMKI_POSIX_HUGE MADV_HUGEPAGE
#define VMKI_POSIX_NO_HUGE MADV_NOHUGEPAGE
#else
#define VMKI_POSIX_HUGE VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_NO_HUGE VMKI_POSIX_NO_ADVICE
#endif

/* Numbers of the kernel's own: headers of C libraries have them since later, and say nothing of the kernel that runs.
 * Guards in the page table came with Linux 6.13, POPULATE_WRITE and its sibling with 5.14, COLLAPSE with 6.1, COLD and
 * PAGEOUT with 5.4. */
#if defined(__linux__)
#define VMKI_POSIX_GUARD_INSTALL 102
#define VMKI_POSIX_GUARD_REMOVE 103
#define VMKI_POSIX_POPULATE 23
#define VMKI_POSIX_POPULATE_READ 22
#define VMKI_POSIX_COLLAPSE 25
#define VMKI_POSIX_COLD 20
#define VMKI_POSIX_PAGE_OUT 21
#define VMKI_POSIX_NO_DUMP 16
#define VMKI_POSIX_DUMP 17
#define VMKI_POSIX_NO_FORK 10
#define VMKI_POSIX_FORK 11
#define VMKI_POSIX_WIPE_ON_FORK 18
#define VMKI_POSIX_KEEP_ON_FORK 19
#else
#define VMKI_POSIX_GUARD_INSTALL VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_GUARD_REMOVE VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_POPULATE VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_POPULATE_READ VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_COLLAPSE VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_COLD VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_PAGE_OUT VMKI_POSIX_NO_ADVICE
#if defined(MADV_NOCORE) && defined(MADV_CORE) /* FreeBSD */
#define VMKI_POSIX_NO_DUMP MADV_NOCORE
#define VMKI_POSIX_DUMP MADV_CORE
#else
#define VMKI_POSIX_NO_DUMP VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_DUMP VMKI_POSIX_NO_ADVICE
#endif
#define VMKI_POSIX_NO_FORK VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_FORK VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_WIPE_ON_FORK VMKI_POSIX_NO_ADVICE
#define VMKI_POSIX_KEEP_ON_FORK VMKI_POSIX_NO_ADVICE
#endif

/* Which pages are in memory, in bit 0 of a byte each? mincore's first and last parameter are of different types among
 * systems; these suit all. False also where the system can't tell. */
static inline bool vmki_posix_mincore(const void *base, size_t size, unsigned char *pages)
{
#if defined(__linux__) || defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__)
    return mincore((void *)(uintptr_t)base, size, (void *)pages) == 0;
#else
    (void)base, (void)size, (void)pages;
    return false;
#endif
}

static inline bool vmki_posix_resident(const void *page, size_t page_size)
{
    unsigned char answer = 0;
    return vmki_posix_mincore(page, page_size, &answer) && (answer & 1) != 0;
}

/* --- the limits ------------------------------------------------------------------------------------------------- */

/* What bounds reservations. OpenBSD has no RLIMIT_AS and counts them as data. */
#if defined(RLIMIT_AS)
#define VMKI_POSIX_LIMIT_AS RLIMIT_AS
#else
#define VMKI_POSIX_LIMIT_AS RLIMIT_DATA
#endif

/* --- the machine ------------------------------------------------------------------------------------------------ */

/* glibc's sysconf(_SC_PHYS_PAGES) has been seen to allocate and to read files; sysinfo is a plain system call. */
static inline uint64_t vmki_posix_physical_memory(void)
{
#if defined(__linux__)
    struct sysinfo info;
    return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : 0;
#elif defined(_SC_PHYS_PAGES)
    long pages = sysconf(_SC_PHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_size > 0 ? (uint64_t)pages * (uint64_t)page_size : 0;
#else
    return 0;
#endif
}

/* Has somebody switched transparent huge pages off for this process and its children? */
static inline bool vmki_posix_huge_disabled(void)
{
#if defined(PR_GET_THP_DISABLE)
    return prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0;
#else
    return false;
#endif
}

/* Fill the buffer with records of the directory (struct linux_dirent64), 0 at its end: opendir would allocate. */
static inline long vmki_posix_entries(int directory, void *buffer, size_t size)
{
#if defined(SYS_getdents64)
    return syscall(SYS_getdents64, directory, buffer, size);
#else
    (void)directory, (void)buffer, (void)size;
    return -1;
#endif
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

#define VMKI_POSIX_FOREVER UINT64_MAX

/* Instead of sleeping until woken, for at most so long: where there is no futex, or a sandbox refuses it. Yielding
 * alone would starve a holder of lower priority. */
static inline void vmki_posix_pause(uint64_t nanoseconds, unsigned round)
{
    if (round < 16) {
        (void)sched_yield();
    } else {
        uint64_t most = round < 64 ? 50000 : 1000000;
        struct timespec pause = {0, (long)(nanoseconds < most ? nanoseconds : most)};
        (void)nanosleep(&pause, NULL);
    }
}

#if defined(SYS_futex) || defined(SYS_futex_time64)

#define VMKI_POSIX_FUTEX_WAIT 128 /* FUTEX_WAIT_PRIVATE of linux/futex.h, which musl does without */
#define VMKI_POSIX_FUTEX_WAKE 129

/* Half of the timespec of the old call: the kernel's own long, which x32 has wider than the program. libc's timespec is
 * not it where a 32-bit program has been given 64 bits of time. */
#if LONG_MAX > 0x7fffffff || defined(__x86_64__)
typedef int64_t vmki_posix_old_time;
#else
typedef int32_t vmki_posix_old_time;
#endif

/* A futex is 32 bits wide: the half of the word that holds its value. */
static inline void *vmki_posix_futex_of(uintptr_t *word)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (char *)word + (sizeof *word - 4);
#else
    return word;
#endif
}

/* 32-bit systems have two calls: the old one, which kernels may be built without, and one with a longer time, which
 * came with Linux 5.1; new ones have no old call. False: neither is there, or allowed. */
static inline bool vmki_posix_futex(uintptr_t *word, int operation, unsigned value, uint64_t nanoseconds)
{
    void *at = vmki_posix_futex_of(word);
    const uint64_t second = 1000000000;
    long result = -1;
    errno = ENOSYS;
#if defined(SYS_futex)
    uint64_t seconds = nanoseconds / second;
    vmki_posix_old_time old[2] = {(vmki_posix_old_time)(seconds < INT32_MAX ? seconds : INT32_MAX),
                                  (vmki_posix_old_time)(nanoseconds % second)};
    result = syscall(SYS_futex, at, operation, value, nanoseconds != VMKI_POSIX_FOREVER ? old : NULL, NULL, 0);
#endif
#if defined(SYS_futex_time64)
    if (result < 0 && errno == ENOSYS) {
        int64_t time[2] = {(int64_t)(nanoseconds / second), (int64_t)(nanoseconds % second)};
        result =
            syscall(SYS_futex_time64, at, operation, value, nanoseconds != VMKI_POSIX_FOREVER ? time : NULL, NULL, 0);
    }
#endif
    return result >= 0 || errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT;
}

#else

#define VMKI_POSIX_FUTEX_WAIT 0
#define VMKI_POSIX_FUTEX_WAKE 1

static inline bool vmki_posix_futex(uintptr_t *word, int operation, unsigned value, uint64_t nanoseconds)
{
    (void)word, (void)operation, (void)value, (void)nanoseconds;
    return false;
}

#endif

/* Sleep while *word is `expected`, until woken, for at most so long or VMKI_POSIX_FOREVER; or for a shorter while.
 * `round` counts the attempts so far. Sets errno. */
static inline void vmki_posix_sleep(uintptr_t *word, uintptr_t expected, uint64_t nanoseconds, unsigned round)
{
    if (!vmki_posix_futex(word, VMKI_POSIX_FUTEX_WAIT, (unsigned)expected, nanoseconds))
        vmki_posix_pause(nanoseconds, round);
}

/* Wake so many of those that sleep. Sets errno. */
static inline void vmki_posix_wake(uintptr_t *word, unsigned count)
{
    (void)vmki_posix_futex(word, VMKI_POSIX_FUTEX_WAKE, count, VMKI_POSIX_FOREVER);
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

/* The least that a thread's stack may have; glibc's depends on what the processor saves for a signal. */
static inline size_t vmki_posix_stack_min(void)
{
#if defined(PTHREAD_STACK_MIN)
    long least = (long)PTHREAD_STACK_MIN;
    return least > 0 ? (size_t)least : 0;
#else
    return 0;
#endif
}

/* --- random numbers --------------------------------------------------------------------------------------------- */

/* Without a file. Linux before 3.17 has no such call, and early at its start none to give; it is not waited for. */
static inline bool vmki_posix_random(uint64_t *bits)
{
#if defined(SYS_getrandom)
    const unsigned dont_block = 1; /* GRND_NONBLOCK */
    return syscall(SYS_getrandom, bits, sizeof *bits, dont_block) == (long)sizeof *bits;
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || defined(__sun)
    arc4random_buf(bits, sizeof *bits);
    return true;
#else
    (void)bits;
    return false;
#endif
}

/* --- shared among the files ------------------------------------------------------------------------------------- */

/* os_vm.c: how pages are decommitted; chosen at the first need. The tests force one, and undecided lets it be chosen
 * anew. */
typedef enum vmki_posix_decommit {
    VMKI_POSIX_DECOMMIT_UNDECIDED,
    VMKI_POSIX_DECOMMIT_ZAP,  /* protect, then drop the pages */
    VMKI_POSIX_DECOMMIT_REMAP /* map reserved pages over them */
} vmki_posix_decommit;

vmki_posix_decommit vmki_posix_decommit_method(void);
void vmki_posix_decommit_force(vmki_posix_decommit method);

/* os_vm.c: does mapping with VMKI_POSIX_NOREPLACE do what it says? Tried once. */
bool vmki_posix_noreplace_works(void);

/* os_vm.c: reserve at this address, replacing nothing. False, with EEXIST, where something is there or (if the above
 * does not work) where the system would rather have it elsewhere; or with the system's reason. */
bool vmki_posix_map_exact(uintptr_t where, size_t size);

/* os_vm.c: does the system know such an advice? It need not suit any pages. */
bool vmki_posix_advice_known(vmk_advice advice);

/* os_limits.c: small files of /proc and /sys, of one line. The text, cut to size - 1 bytes and terminated; the decimal
 * number that is all of it. */
bool vmki_posix_read_text(const char *path, char *text, size_t size);
bool vmki_posix_read_number(const char *path, uint64_t *value);

/* os_limits.c: the lines of a longer one. Next: without its end, cut to size - 1 bytes; false after the last. */
typedef struct vmki_posix_lines {
    int file;
    size_t at, limit; /* what of the block is not given out yet */
    char block[1024];
} vmki_posix_lines;

bool vmki_posix_lines_open(vmki_posix_lines *in, const char *path);
bool vmki_posix_lines_next(vmki_posix_lines *in, char *line, size_t size);
void vmki_posix_lines_close(vmki_posix_lines *in);

/* os_limits.c: the two addresses that a line of /proc/PID/maps begins with; answers with the rest of it. */
const char *vmki_posix_range_in(const char *line, uint64_t *from, uint64_t *to);

/* os_limits.c: a path with another before it; false if the two are too long. */
#define VMKI_POSIX_PATH 1024
bool vmki_posix_join(char *path, const char *prefix, const char *rest);

/* os_limits.c: files with a figure in each line, behind its name. The names are whole, with the colon or the space that
 * ends them; the figures are shifted left to become bytes; what the file does not have is left as it was. */
typedef struct vmki_posix_field {
    const char *name;
    uint64_t bytes;
} vmki_posix_field;

bool vmki_posix_read_fields(const char *path, vmki_posix_field *fields, size_t count, unsigned shift);

/* os_limits.c: visit the directories of the process's cgroups that may limit its memory: its `own`, then each above it
 * up to the mount; v2 is `unified`. And the limit of one. */
typedef void vmki_posix_level(const char *directory, bool unified, bool own, void *context);

void vmki_posix_cgroups_under(const char *prefix, vmki_posix_level *visit, void *context);
uint64_t vmki_posix_cgroup_limit(const char *directory, bool unified);

vmk_overcommit vmki_posix_overcommit_under(const char *prefix);

/* os_limits.c: the limits that are found in files, `memory` and `commit`, each lowered to what is found. `prefix` is
 * put before every path, also before those of mounts: "" for the real ones. */
void vmki_posix_limits_under(const char *prefix, vmk_limits *limits);

/* os_limits.c: is the limit on this process's address space too low for so many bytes more? False where that is
 * unknown. Leaves errno as it was. */
bool vmki_posix_address_space_exhausted(size_t size);

/* os_limits.c: has this process as many mappings as it may have? False where that is unknown. Leaves errno as it was.
 */
bool vmki_posix_mappings_exhausted(void);

/* os_process.c: what stands in for random bits where the system gives none by a call: a file's, and what differs
 * between runs. */
bool vmki_posix_random_file(const char *path, uint64_t *bits);
uint64_t vmki_posix_random_mix(void);

/* os_vm.c: what an error of a call that maps means; `shortage` is what lack of memory means for it. Leaves errno. */
vmk_status vmki_posix_status_of_error(vmk_status shortage);

#endif
