/* SPDX-License-Identifier: MIT
 *
 * The part of os_private.h that only services need: where POSIX systems differ in what part 6 of vmkit.h asks of them,
 * and what the tests of these files may force.
 */
#ifndef VMKI_POSIX_OS_SERVICE_PRIVATE_H
#define VMKI_POSIX_OS_SERVICE_PRIVATE_H

#include "posix/os_private.h"

#if defined(__linux__)
#include <sys/inotify.h>
#include <sys/ioctl.h>
#endif

#include "common/base/os_service.h"

/* --- what the page table knows --------------------------------------------------------------------------------------
 */

/* PAGEMAP_SCAN of linux/fs.h: Linux 6.7, in headers since later. */
typedef struct vmki_posix_scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
} vmki_posix_scan;

typedef struct vmki_posix_scanned {
    uint64_t start, end, categories;
} vmki_posix_scanned;

#define VMKI_POSIX_SCAN_PROTECT 1u    /* PM_SCAN_WP_MATCHING: write-protect what is reported, in the same moment */
#define VMKI_POSIX_SCAN_CHECK 2u      /* PM_SCAN_CHECK_WPASYNC: EPERM where that is not prepared */
#define VMKI_POSIX_PAGE_IS_WRITTEN 2u /* PAGE_IS_WRITTEN, and so on */
#define VMKI_POSIX_PAGE_IS_FILE 4u
#define VMKI_POSIX_PAGE_IS_PRESENT 8u
#define VMKI_POSIX_PAGE_IS_SWAPPED 16u
#define VMKI_POSIX_PAGE_IS_HUGE 64u
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

/* --- memory that is mapped twice -------------------------------------------------------------------------------- */

/* May its pages be executed? MFD_NOEXEC_SEAL and MFD_EXEC: Linux 6.3 wants to be told (vm.memfd_noexec), older ones
 * don't know the flags. */
typedef enum vmki_posix_memfd_use { VMKI_POSIX_MEMFD_DATA = 8, VMKI_POSIX_MEMFD_CODE = 16 } vmki_posix_memfd_use;

/* A file in memory alone, closed by exec, or -1. Linux 3.17. */
static inline int vmki_posix_memfd(const char *name, vmki_posix_memfd_use use)
{
#if defined(SYS_memfd_create)
    const unsigned close_on_exec = 1; /* MFD_CLOEXEC */
    long file = syscall(SYS_memfd_create, name, close_on_exec | (unsigned)use);
    if (file < 0 && errno == EINVAL)
        file = syscall(SYS_memfd_create, name, close_on_exec);
    return (int)file;
#else
    (void)name, (void)use;
    errno = ENOSYS;
    return -1;
#endif
}

/* shm_open and shm_unlink of a new object "/NAME". On Linux, where they are no more than this, older C libraries have
 * them in a library of their own, and some not at all. */
#if defined(__linux__)
#define VMKI_POSIX_SHM_FOLDER "/dev/shm"
#else
#define VMKI_POSIX_SHM_FOLDER ""
#endif

static inline int vmki_posix_shm_make(const char *path)
{
#if defined(__linux__)
    return open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
#else
    return shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600); /* closed by exec */
#endif
}

static inline void vmki_posix_shm_forget(const char *path)
{
#if defined(__linux__)
    (void)unlink(path);
#else
    (void)shm_unlink(path);
#endif
}

/* A mapping made larger, at another place if need be. MAP_FAILED, with errno 0, where there is no such call. */
static inline void *vmki_posix_remap(void *base, size_t size, size_t new_size)
{
#if defined(MREMAP_MAYMOVE)
    return mremap(base, size, new_size, MREMAP_MAYMOVE);
#else
    (void)base, (void)size, (void)new_size;
    errno = 0;
    return MAP_FAILED;
#endif
}

/* Have a mapping take the place of another of the same size, in one step. Where it fails the other may be gone. */
static inline bool vmki_posix_move_over(void *from, void *to, size_t size)
{
#if defined(MREMAP_FIXED)
    return mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
#else
    (void)from, (void)to, (void)size;
    return false;
#endif
}

/* --- executable memory ------------------------------------------------------------------------------------------ */

/* Of pages that will be flipped: the same two systems want to know that they will be executable. */
#if defined(PROT_MPROTECT)
#define VMKI_POSIX_CODE (PROT_NONE | PROT_MPROTECT(PROT_READ | PROT_WRITE | PROT_EXEC))
#elif defined(PROT_MAX)
#define VMKI_POSIX_CODE (PROT_NONE | PROT_MAX(PROT_READ | PROT_WRITE | PROT_EXEC))
#else
#define VMKI_POSIX_CODE PROT_NONE
#endif

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

/* --- write-watch ------------------------------------------------------------------------------------------------ */

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

/* --- what tests may force, and what files share
 * ------------------------------------------------------------------------------------- */

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

/* os_pressure.c: room as it is found in files, and who tells of a shortage; `prefix` as above. */
void vmki_posix_room_under(const char *prefix, vmk_room *room);
vmk_status vmki_posix_pressure_open_under(const char *prefix, vmki_os_pressure *pressure);

/* os_memory.c: what memory without a name is made of: the first of these that works, from the one named here on. */
typedef enum vmki_posix_memory {
    VMKI_POSIX_MEMORY_MEMFD,
    VMKI_POSIX_MEMORY_SHM,  /* shm_open, and the name taken away at once */
    VMKI_POSIX_MEMORY_FILE, /* a temporary file, likewise */
    VMKI_POSIX_MEMORIES
} vmki_posix_memory;

void vmki_posix_memory_force(vmki_posix_memory first);

/* os_memory.c: a file in memory alone that has had a name for a moment, or -1. */
int vmki_posix_shm(void);

/* os_memory.c: how it is found out which pages a view has copied since a snapshot was taken. What the system can do is
 * decided once; the tests force one, and undecided lets it be chosen anew. */
typedef enum vmki_posix_copied {
    VMKI_POSIX_COPIED_UNDECIDED,
    VMKI_POSIX_COPIED_SCAN,    /* PAGEMAP_SCAN */
    VMKI_POSIX_COPIED_ENTRIES, /* the entries of /proc/self/pagemap */
    VMKI_POSIX_COPIED_COMPARE, /* by their contents: chosen only when the others fail after all */
    VMKI_POSIX_COPIED_UNKNOWN  /* not at all: snapshots are copies */
} vmki_posix_copied;

vmki_posix_copied vmki_posix_copied_method(void);
void vmki_posix_copied_force(vmki_posix_copied method);

#endif
