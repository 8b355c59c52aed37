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
#include <sys/ioctl.h>
#include <sys/inotify.h>
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

/* --- executable memory ------------------------------------------------------------------------------------------ */

/* Of pages that will be flipped: the same two systems want to know that they will be executable. */
#if defined(PROT_MPROTECT)
#define VMKI_POSIX_CODE (PROT_NONE | PROT_MPROTECT(PROT_READ | PROT_WRITE | PROT_EXEC))
#elif defined(PROT_MAX)
#define VMKI_POSIX_CODE (PROT_NONE | PROT_MAX(PROT_READ | PROT_WRITE | PROT_EXEC))
#else
#define VMKI_POSIX_CODE PROT_NONE
#endif

/* A descriptor of memory without a name that may be mapped executable, or -1. Linux 6.3 wants to be told of that
 * (vm.memfd_noexec), and older ones don't know the flag. */
static inline int vmki_posix_code_memory(const char *name)
{
#if defined(SYS_memfd_create)
    const unsigned close_on_exec = 1, may_execute = 0x10; /* MFD_CLOEXEC, MFD_EXEC */
    long file = syscall(SYS_memfd_create, name, close_on_exec | may_execute);
    if (file < 0 && errno == EINVAL)
        file = syscall(SYS_memfd_create, name, close_on_exec);
    return (int)file;
#else
    (void)name;
    errno = ENOSYS;
    return -1;
#endif
}

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

/* --- many ranges at once ---------------------------------------------------------------------------------------- */

/* Numbers that newer kernels have given out to all architectures alike. */
#if defined(__linux__) && !defined(__alpha__) && !defined(__mips__) && !(defined(__x86_64__) && defined(__ILP32__))
#if !defined(SYS_pidfd_open)
#define SYS_pidfd_open 434
#endif
#if !defined(SYS_process_madvise)
#define SYS_process_madvise 440
#endif
#endif

/* Who is advised: "this thread's process" since Linux 6.15; or a descriptor, made for one call, which a fork can't turn
 * into the wrong one. */
#define VMKI_POSIX_SELF (-10000)

static inline int vmki_posix_self_open(void)
{
#if defined(SYS_pidfd_open)
    return (int)syscall(SYS_pidfd_open, getpid(), 0);
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* Advise on many ranges, as pairs of address and size: how many bytes are done, which are whole ranges; -1 and errno:
 * none. To give pages back so is allowed from Linux 6.13 on. */
static inline long vmki_posix_advise_many(int self, const void *ranges, size_t count, int advice)
{
#if defined(SYS_process_madvise)
    return syscall(SYS_process_madvise, self, ranges, count, advice, 0u);
#else
    (void)self, (void)ranges, (void)count, (void)advice;
    errno = ENOSYS;
    return -1;
#endif
}

/* --- huge pages ------------------------------------------------------------------------------------------------- */

/* Flags to map explicit huge pages of 2^shift bytes; 0: there are none. */
static inline int vmki_posix_huge_flags(unsigned shift)
{
#if defined(__linux__) && defined(MAP_HUGETLB)
    const unsigned shift_at = 26; /* MAP_HUGE_SHIFT */
    return MAP_HUGETLB | (int)(shift << shift_at);
#else
    (void)shift;
    return 0;
#endif
}

/* How many bytes of [from, limit) are in huge pages, added to *huge: PAGEMAP_SCAN (Linux 6.7) on /proc/self/pagemap,
 * whose record is struct pm_scan_arg of linux/fs.h. Moves *from to where it has come; false where it does not know. */
static inline bool vmki_posix_huge_scan(int pagemap, uint64_t *from, uint64_t limit, uint64_t *huge)
{
#if defined(__linux__)
    enum { RUNS = 64, IS_HUGE = 1 << 6 };
    struct {
        uint64_t start, end, categories;
    } runs[RUNS];
    struct {
        uint64_t size, flags, start, end, walk_end, runs, runs_count, max_pages;
        uint64_t inverted, wanted, wanted_any, told;
    } scan = {.size = sizeof scan,
              .start = *from,
              .end = limit,
              .runs = (uintptr_t)runs,
              .runs_count = RUNS,
              .wanted = IS_HUGE,
              .told = IS_HUGE};
    long found = syscall(SYS_ioctl, pagemap, (unsigned long)_IOC(_IOC_READ | _IOC_WRITE, 'f', 16, sizeof scan), &scan);
    if (found < 0)
        return false;
    for (long i = 0; i < found; i++)
        *huge += runs[i].end - runs[i].start;
    *from = found == RUNS ? runs[RUNS - 1].end : limit; /* walk_end is no use: it may stop short of a hole */
    return true;
#else
    (void)pagemap, (void)from, (void)limit, (void)huge;
    return false;
#endif
}

/* --- NUMA nodes ------------------------------------------------------------------------------------------------- */

/* Without libnuma. From now on memory for the range comes from this node first. */
static inline bool vmki_posix_node_prefer(void *base, size_t size, unsigned node)
{
#if defined(SYS_mbind)
    enum { MOST_NODES = 1024, BITS = 8 * sizeof(unsigned long), PREFERRED = 1 /* MPOL_PREFERRED */ };
    unsigned long nodes[MOST_NODES / BITS] = {0};
    if (node >= MOST_NODES) {
        errno = EINVAL;
        return false;
    }
    nodes[node / BITS] = 1ul << node % BITS;
    return syscall(SYS_mbind, base, size, PREFERRED, nodes, (unsigned long)MOST_NODES + 1, 0u) == 0;
#else
    (void)base, (void)size, (void)node;
    errno = ENOSYS;
    return false;
#endif
}

/* The node of a page that has memory: a move of pages to nowhere, which makes none fault. */
static inline bool vmki_posix_node_of(const void *page, int *node)
{
#if defined(SYS_move_pages)
    *node = -1;
    return syscall(SYS_move_pages, 0, 1ul, &page, NULL, node, 0) == 0 && *node >= 0;
#else
    (void)page, (void)node;
    return false;
#endif
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

/* --- memory pressure -------------------------------------------------------------------------------------------- */

/* Both ends closed on exec, and neither blocks. */
static inline bool vmki_posix_pipe(int ends[2])
{
#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
    return pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0;
#else
    if (pipe(ends) != 0)
        return false;
    for (unsigned i = 0; i < 2; i++) {
        (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        (void)fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return true;
#endif
}

/* Changes of files, told of by a descriptor, or -1: add one; take what has been told, and was it a change? */
static inline int vmki_posix_changes_open(void)
{
#if defined(__linux__)
    return inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
#else
    return -1;
#endif
}

static inline bool vmki_posix_changes_add(int changes, const char *path)
{
#if defined(__linux__)
    return changes >= 0 && inotify_add_watch(changes, path, IN_MODIFY) >= 0;
#else
    (void)changes, (void)path;
    return false;
#endif
}

static inline bool vmki_posix_changes_take(int changes)
{
    bool changed = false;
#if defined(__linux__)
    union {
        struct inotify_event first;
        char bytes[1024];
    } block;
    ssize_t got;
    while ((got = read(changes, &block, sizeof block)) > 0)
        for (size_t at = 0; at + sizeof block.first <= (size_t)got;) {
            struct inotify_event event;
            memcpy(&event, block.bytes + at, sizeof event);
            changed = changed || (event.mask & IN_MODIFY) != 0;
            at += sizeof event + event.len;
        }
#else
    (void)changes;
#endif
    return changed;
}

/* A descriptor that counts what it is told, or -1. */
static inline int vmki_posix_eventfd(void)
{
#if defined(SYS_eventfd2)
    return (int)syscall(SYS_eventfd2, 0, O_CLOEXEC | O_NONBLOCK);
#else
    return -1;
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

/* --- write-watch ------------------------------------------------------------------------------------------------ */

/* PAGEMAP_SCAN of linux/fs.h: Linux 6.7, in headers since later. */
typedef struct vmki_posix_scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
} vmki_posix_scan;

typedef struct vmki_posix_scanned {
    uint64_t start, end, categories;
} vmki_posix_scanned;

#define VMKI_POSIX_SCAN_PROTECT 1u     /* PM_SCAN_WP_MATCHING: write-protect what is reported, in the same moment */
#define VMKI_POSIX_SCAN_CHECK 2u       /* PM_SCAN_CHECK_WPASYNC: EPERM where that is not prepared */
#define VMKI_POSIX_PAGE_IS_WRITTEN 2u  /* PAGE_IS_WRITTEN */
#define VMKI_POSIX_PAGE_SOFT_DIRTY 55u /* bit of an entry of /proc/PID/pagemap */

static inline int vmki_posix_pagemap_scan(int pagemap, vmki_posix_scan *scan)
{
#if defined(__linux__)
    return ioctl(pagemap, _IOWR('f', 16, vmki_posix_scan), scan);
#else
    (void)pagemap, (void)scan;
    errno = ENOSYS;
    return -1;
#endif
}

/* A userfaultfd whose write-protection resolves faults by itself (UFFD_FEATURE_WP_ASYNC), of memory of any kind, also
 * where no page has been touched. For faults of the program alone: that needs no privilege. -1, and the reason. */
static inline int vmki_posix_userfault(void)
{
#if defined(__linux__) && defined(SYS_userfaultfd)
    const uint64_t hugetlbfs_shmem = 1u << 12, unpopulated = 1u << 13, async = 1u << 15;
    uint64_t api[3] = {0xaa, hugetlbfs_shmem | unpopulated | async, 0}; /* struct uffdio_api */
    int file = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */);
    if (file >= 0 && ioctl(file, _IOWR(0xaa, 0x3f, uint64_t[3]), api) != 0) {
        int error = errno;
        (void)close(file);
        errno = error;
        return -1;
    }
    return file;
#else
    errno = ENOSYS;
    return -1;
#endif
}

static inline bool vmki_posix_userfault_register(int file, const void *base, size_t size)
{
#if defined(__linux__)
    uint64_t request[4] = {(uintptr_t)base, size, 2 /* UFFDIO_REGISTER_MODE_WP */, 0}; /* struct uffdio_register */
    return ioctl(file, _IOWR(0xaa, 0, uint64_t[4]), request) == 0;
#else
    (void)file, (void)base, (void)size;
    return false;
#endif
}

static inline void vmki_posix_userfault_unregister(int file, const void *base, size_t size)
{
#if defined(__linux__)
    uint64_t range[2] = {(uintptr_t)base, size}; /* struct uffdio_range */
    (void)ioctl(file, _IOR(0xaa, 1, uint64_t[2]), range);
#else
    (void)file, (void)base, (void)size;
#endif
}

/* The signals by which a write to protected memory is told: macOS has sent either, and the BSDs. */
#if defined(__linux__)
#define VMKI_POSIX_FAULT_SIGNALS 1
#else
#define VMKI_POSIX_FAULT_SIGNALS 2
#endif
static const int vmki_posix_fault_signals[2] = {SIGSEGV, SIGBUS};

/* Is it a fault, not a signal that somebody has sent; of a page that is there; by a write? Where the processor's word
 * for it is not known: perhaps. */
VMKI_IN_HANDLER static inline bool vmki_posix_fault_writes(const siginfo_t *info, const void *context)
{
#if defined(__linux__)
    if (info->si_code != SEGV_ACCERR)
        return false;
#else
    if (info->si_code <= 0)
        return false;
#endif
#if defined(__linux__) && (defined(__x86_64__) || defined(__i386__))
    const unsigned write_bit = 2;
    return ((unsigned)((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & write_bit) != 0;
#else
    (void)context;
    return true;
#endif
}

static inline const sigset_t *vmki_posix_interrupted_mask(const void *context)
{
    return &((const ucontext_t *)context)->uc_sigmask;
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

/* os_service.c: does prefault by one call do what it says? Tried once. */
bool vmki_posix_prefault_works(void);

/* os_service.c: have it do without guards in the page table, without prefault by one call, without PAGEMAP_SCAN: for
 * tests of what is done instead. */
void vmki_posix_guards_forbid(bool forbidden);
void vmki_posix_prefault_forbid(bool forbidden);
void vmki_posix_huge_scan_forbid(bool forbidden);

/* os_service.c: how many ranges are advised on at once; chosen at the first need. The tests force one, and undecided
 * lets it be chosen anew. */
typedef enum vmki_posix_batch {
    VMKI_POSIX_BATCH_UNDECIDED,
    VMKI_POSIX_BATCH_SELF,  /* by a name for oneself */
    VMKI_POSIX_BATCH_PIDFD, /* by a descriptor */
    VMKI_POSIX_BATCH_NONE   /* not at all */
} vmki_posix_batch;

vmki_posix_batch vmki_posix_batch_method(void);
void vmki_posix_batch_force(vmki_posix_batch method);

/* os_service.c: vmki_os_huge_report from a file like /proc/self/smaps. */
vmk_status vmki_posix_huge_report_from(const char *smaps, const void *base, size_t size, size_t *huge);

/* os_watch.c: do without userfaultfd; other files for those that soft-dirty bits are read from and cleared by (NULL:
 * the real ones, which are tried anew). For tests. */
void vmki_posix_userfault_forbid(bool forbidden);
void vmki_posix_soft_dirty_files(const char *pagemap, const char *clear_refs);

/* os_code.c: ways to get memory that can be mapped twice, and have it do without these. */
enum { VMKI_POSIX_CODE_MEMFD = 1, VMKI_POSIX_CODE_SHM = 2 };

void vmki_posix_code_forbid(unsigned ways);

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

/* os_pressure.c: room as it is found in files, and who tells of a shortage; `prefix` as above. */
void vmki_posix_room_under(const char *prefix, vmk_room *room);
struct vmki_os_pressure;
vmk_status vmki_posix_pressure_open_under(const char *prefix, struct vmki_os_pressure *pressure);

/* os_process.c: what stands in for random bits where the system gives none by a call: a file's, and what differs
 * between runs. */
bool vmki_posix_random_file(const char *path, uint64_t *bits);
uint64_t vmki_posix_random_mix(void);

#endif
