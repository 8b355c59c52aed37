/* SPDX-License-Identifier: MIT
 *
 * vmkit: virtual memory for programs that want more of it than they use.
 *
 * Read in this order; a part speaks only of the parts above it, and a program that uses one part links nothing of a
 * later one.
 *
 *   Part 1  basics   version, status codes, misuse
 *   Part 2  vm       regions: reserve, commit, decommit, discard, protect, release; what the system can do
 *   Part 3  table    the lazily committed table: a huge index space that costs what is used of it
 *   Part 4  heap     spans of pages, found again by any address in them
 *   Part 5  objects  memory of any size, on spans: allocate, reallocate, free
 *   Part 6  services what else systems do with memory: guards, sharing, write-watch and more; of parts 1 and 2 alone
 *   Part 7  gc       collected heaps, on parts 1 to 4
 *
 * Words used throughout
 *
 *   size, offset     always bytes. An index counts elements. A range is half-open: [offset, offset + size).
 *   page             the unit in which the system commits; vmk_page_size(). Never assumed to be 4 KiB.
 *   granularity      the unit in which the system reserves: 64 KiB on Windows, a page elsewhere.
 *
 *              reserve               commit
 *      free ------------> reserved ------------> committed ---.
 *       ^                    ^                       |  ^      | discard, protect:
 *       |      release       |       decommit        |  `------' stays committed
 *       `--------------------+-----------------------'
 *
 *   reserved         address space alone: touching it faults; no memory, no commit charge.
 *   committed        readable and writable, zero when first touched; the system has promised the memory.
 *
 * Errors. A function that can fail returns vmk_status. Unless its own text says otherwise, a call that fails has
 * changed nothing: out-parameters are untouched, the object is as it was, and the call may be made again. Proven misuse
 * (releasing twice, giving back what was never given) has no safe continuation: it ends the program with a message, see
 * vmk_set_misuse_hook. After a call that succeeds, errno and GetLastError() are what they were before it; after one
 * that fails they hold the system's own code where the system was asked.
 *
 * Threads. Unless its own text says otherwise, every function may be called from any thread at any time, on the same
 * object too; and none is async-signal-safe. The library keeps one lock for all its bookkeeping of address space, held
 * for about as long as the kernel holds its own; vmkit's locks are taken and released around fork(), so a child can use
 * everything that the parent could.
 */
#ifndef VMKIT_H
#define VMKIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================================================================== */
/* Part 1: basics                                                                                                     */
/* ================================================================================================================== */

#define VMK_VERSION_MAJOR 0
#define VMK_VERSION_MINOR 1
#define VMK_VERSION_PATCH 0

/* VMK_SHARED is defined for whoever links the shared library (CMake's vmkit::vmkit does so), VMK_BUILDING by the
 * library's own build. */
#if defined(_WIN32) && defined(VMK_SHARED)
#ifdef VMK_BUILDING
#define VMK_API __declspec(dllexport)
#else
#define VMK_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define VMK_API __attribute__((visibility("default")))
#else
#define VMK_API
#endif

#if defined(__GNUC__)
#define VMK_MUST_CHECK __attribute__((warn_unused_result))
#define VMK_INLINE static inline __attribute__((unused)) /* clang warns of those in a source file */
#define VMK_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define VMK_LOAD_ACQUIRE(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define VMK_LOAD_ACQUIRE_32(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#elif defined(_MSC_VER)
#include <intrin.h>
#define VMK_MUST_CHECK _Check_return_
#define VMK_INLINE static __inline
#define VMK_LIKELY(condition) (condition)
static __forceinline size_t vmk_load_acquire_msvc(const size_t *pointer)
{
    size_t value = *(const volatile size_t *)pointer;
#if defined(_M_ARM64) || defined(_M_ARM)
    __dmb(0xB); /* inner shareable: later accesses stay behind the load */
#else
    _ReadWriteBarrier(); /* x86 keeps loads in order; only the compiler must be told */
#endif
    return value;
}
static __forceinline uint32_t vmk_load_acquire_32_msvc(const uint32_t *pointer)
{
    uint32_t value = *(const volatile uint32_t *)pointer;
#if defined(_M_ARM64) || defined(_M_ARM)
    __dmb(0xB);
#else
    _ReadWriteBarrier();
#endif
    return value;
}
#define VMK_LOAD_ACQUIRE(pointer) vmk_load_acquire_msvc(pointer)
#define VMK_LOAD_ACQUIRE_32(pointer) vmk_load_acquire_32_msvc(pointer)
#else
#error "vmkit needs gcc, clang or MSVC"
#endif

/* What a call can answer. Codes are kept apart only where a caller would do something different.
 * X(code, text) */
#define VMK_STATUS_TABLE(X)                                                                                            \
    X(VMK_OK, "success")                                                                                               \
    X(VMK_ERR_ADDRESS_SPACE, "no address space: ask for less, or free some")                                           \
    X(VMK_ERR_COMMIT, "no memory: the system, a limit or a quota refuses to commit more")                              \
    X(VMK_ERR_MAPPINGS, "too many mappings: the system's limit on their number is reached")                            \
    X(VMK_ERR_LIMIT, "over a limit that the caller set: a capacity, a budget")                                         \
    X(VMK_ERR_TAKEN, "the address asked for is taken or can't be had")                                                 \
    X(VMK_ERR_UNSUPPORTED, "this system can't do it, or forbids it")                                                   \
    X(VMK_ERR_ARGUMENT, "an argument is out of its range, or the size overflows")

#define VMK_STATUS_ENUM(code, text) code,
typedef enum vmk_status { VMK_STATUS_TABLE(VMK_STATUS_ENUM) VMK_STATUS_COUNT } vmk_status;
#undef VMK_STATUS_ENUM

/* The name of a code ("VMK_ERR_COMMIT") and a sentence for a person. Any value is allowed: an unknown one gives
 * "unknown status". Static strings, never NULL. Async-signal-safe. */
VMK_API const char *vmk_status_name(vmk_status status);
VMK_API const char *vmk_status_text(vmk_status status);

/* Called when misuse is proven, before the program ends: `crime` names it in words ("vmk_release: region released
 * twice"), `address` is the one it was committed with, `context` is what was given with the hook. The hook may log, or
 * leave by longjmp or by ending the thread, at its own risk: vmkit's lock is not held, the object is as it was before
 * the call. If it returns, "vmkit: CRIME: ADDRESS" is written to standard error and the program aborts. */
typedef void vmk_misuse_hook(const char *crime, const void *address, void *context);

/* Set the hook for the whole process; NULL takes it away. To be called while no other thread is inside vmkit. */
VMK_API void vmk_set_misuse_hook(vmk_misuse_hook *hook, void *context);

/* ================================================================================================================== */
/* Part 2: vm, what an operating system gives                                                                         */
/* ================================================================================================================== */

/* --- the system ------------------------------------------------------------------------------------------------- */

/* The unit of commit and the unit of reserve, powers of two. No system call after the first use. */
VMK_API size_t vmk_page_size(void);
VMK_API size_t vmk_granularity(void);

/* `size` rounded up to whole pages; 0 where that is more than a size_t can say (or size is 0). */
VMK_API size_t vmk_page_ceil(size_t size);

/* How the system promises memory that it may not have. */
typedef enum vmk_overcommit {
    VMK_OVERCOMMIT_UNKNOWN,
    VMK_OVERCOMMIT_HEURISTIC, /* Linux mode 0: single absurd requests are refused */
    VMK_OVERCOMMIT_ALWAYS,    /* Linux mode 1: nothing is refused; trouble comes at the touch */
    VMK_OVERCOMMIT_NEVER      /* Linux mode 2, Windows: what is committed is there */
} vmk_overcommit;

/* What this system can do: bits of vmk_caps.features. */
enum {
    VMK_CAP_EXACT = 1u << 0,           /* VMK_RESERVE_EXACT is one atomic request; else it is asked for and checked */
    VMK_CAP_ALIGNED = 1u << 1,         /* aligned reservations are one atomic request or trimmed; else retried */
    VMK_CAP_COMMIT_CHARGED = 1u << 2,  /* commit is refused when memory is short; else only the touch fails */
    VMK_CAP_DECOMMIT_CHARGE = 1u << 3, /* decommit gives the charge back, beyond the memory itself */
    VMK_CAP_DISCARD_PROMPT = 1u << 4,  /* discarded memory leaves the process at once, not under pressure only */
    VMK_CAP_DISCARD_ZERO = 1u << 5,    /* discarded memory reads as zero, as it happens: not a promise */
    VMK_CAP_HUGE_ADVICE = 1u << 6,     /* vmk_advise can ask for huge pages */
    VMK_CAP_FORK = 1u << 7,            /* processes fork here */
    /* Of part 6: */
    VMK_CAP_GUARDS = 1u << 8,       /* guards take no mappings: vmk_guard_set */
    VMK_CAP_PREFAULT = 1u << 9,     /* vmk_prefault is one call of the system, not a touch of each page */
    VMK_CAP_RESIDENCY = 1u << 10,   /* vmk_residency can tell */
    VMK_CAP_HUGE_REPORT = 1u << 11, /* vmk_huge_report can tell, of any range */
    VMK_CAP_NODE = 1u << 12,        /* the machine has several NUMA nodes, and vmk_node_prefer has an effect */
    VMK_CAP_BATCH = 1u << 13,       /* a batch of ranges is given back in one call of the system */
    VMK_CAP_MEMORY = 1u << 14,      /* memory that can be mapped more than once: vmk_memory_init */
    VMK_CAP_RING = 1u << 15,        /* a ring gets its place in a way that nobody can disturb; else by trying again */
    VMK_CAP_SNAPSHOT = 1u << 16,    /* a snapshot shares its pages until they are written; else they are copied */
    VMK_CAP_CODE = 1u << 17,        /* pages may become executable: VMK_CODE_FLIP */
    VMK_CAP_CODE_TWICE = 1u << 18,  /* and be writable elsewhere at the same time: VMK_CODE_TWICE */
    VMK_CAP_PRESSURE = 1u << 19     /* the system tells of a shortage by itself; else it is looked for */
};

#define VMK_MAX_HUGE_SIZES 4

typedef struct vmk_caps {
    size_t page_size;
    size_t granularity;
    size_t huge_page_size;                 /* what transparent huge pages use; 0: there are none */
    size_t huge_sizes[VMK_MAX_HUGE_SIZES]; /* of explicit huge pages, ascending, 0 after the last */
    uintptr_t address_min;                 /* lowest and highest (last byte) address that a program can reserve; */
    uintptr_t address_max;                 /* found by trying, not taken from the processor's name */
    uint64_t physical_memory;              /* bytes in the machine; 0: unknown */
    uint64_t max_mappings;                 /* mappings that one process may have; 0: no such limit, or unknown */
    vmk_overcommit overcommit;
    unsigned features; /* VMK_CAP_... */
    unsigned advice;   /* 1u << VMK_ADVICE_...: what vmk_advise can ask for */
    unsigned watch;    /* 1u << VMK_WATCH_...: how writes can be watched, see part 6 */
    unsigned nodes;    /* NUMA nodes with memory; 1 where there is no more, or where the system doesn't tell */
} vmk_caps;

/* What was found by probing this system, once, at the first call (some two hundred system calls, which take
 * milliseconds; later calls cost a load). Never NULL, never fails: what could not be found is zero. */
VMK_API const vmk_caps *vmk_capabilities(void);

#define VMK_UNLIMITED UINT64_MAX

/* The limits on this process, in bytes; VMK_UNLIMITED where there is none or it can't be read. */
typedef struct vmk_limits {
    uint64_t address_space; /* RLIMIT_AS; the job's limit on Windows is on `memory` */
    uint64_t data;          /* RLIMIT_DATA: private writable memory */
    uint64_t memory;        /* cgroup v1 and v2 (the least up the tree), or job object: process and job */
    uint64_t commit;        /* strict overcommit's CommitLimit; on Windows the system's commit limit */
} vmk_limits;

/* What the system counts for this process, in bytes. */
typedef struct vmk_usage {
    uint64_t address_space; /* all that is mapped or reserved */
    uint64_t data;          /* private writable (Linux), or private committed (Windows) */
    uint64_t resident;      /* in memory now */
    uint64_t mappings;      /* entries in the process's list of mappings; 0: not told cheaply */
} vmk_usage;

/* Read anew at each call, since limits change: a few file reads. VMK_ERR_UNSUPPORTED: the system doesn't tell. */
VMK_API void vmk_limits_now(vmk_limits *limits);
VMK_API VMK_MUST_CHECK vmk_status vmk_usage_now(vmk_usage *usage);

/* --- regions ---------------------------------------------------------------------------------------------------- */

/* One reservation. In the caller's storage; may be moved by copying while no call uses it, and then only the copy
 * counts. Every operation takes (region, offset, size), so none can span two reservations. The fields are to be read
 * only; `base` and `size` stay as they are until the release. */
typedef struct vmk_region {
    unsigned char *base; /* aligned to the granularity at least */
    size_t size;         /* usable bytes: whole pages, the guard not counted */
    size_t guard_size;   /* bytes past them that are never committed */
    size_t committed;    /* bytes committed now; exact while no other thread works on the region */
    size_t unit;         /* of commit: the page size, or that of its explicit huge pages */
    const char *name;    /* as it was asked for */
    size_t guards;       /* calls that have set guards, */
    size_t guards_by;    /* of them by protection, */
    size_t guards_held;  /* of these without a vmk_guard_clear so far */
    size_t marked;       /* not 0: batches have left marks on pages that are reserved */
    struct vmki_extent *extents;
    uintptr_t seal;
} vmk_region;

enum {
    /* At `hint` or not at all: VMK_ERR_TAKEN, and what is there is untouched. */
    VMK_RESERVE_EXACT = 1u << 0,
    /* The region will be used in few places far apart: with min_size, its size is held against the limits on address
     * space alone, not against those on memory. */
    VMK_RESERVE_SPARSE = 1u << 1,
    /* Writes to the region will be watched by vmk_watch_start: Windows wants to know it now. */
    VMK_RESERVE_WATCH = 1u << 2
};

/* How to place a reservation. All zero, or a NULL pointer, is: exactly `size`, anywhere, no guard. */
typedef struct vmk_reserve_options {
    const void *hint;  /* where to try first; rounded down to the granularity unless VMK_RESERVE_EXACT */
    size_t min_size;   /* 0: all of `size` or nothing. Else from `size` down to this; see vmk_reserve */
    size_t align;      /* a power of two; 0: the granularity */
    size_t guard_size; /* rounded up to pages: address space past the end that always faults */
    unsigned flags;    /* VMK_RESERVE_... */
    unsigned node;     /* n + 1: memory near the processors of NUMA node n, where possible; 0: wherever it is */
    size_t huge_size;  /* one of vmk_caps.huge_sizes: explicit huge pages of that size, see below; 0: none */
    const char *name;  /* what the system's list of the process's mappings shall call it; NULL: nothing. See below */
} vmk_reserve_options;

/* Reserve `size` bytes of address space, rounded up to whole pages. Costs no memory and no commit charge (on Windows
 * before 8.1, and for the page tables of a few systems, see docs/design-vm.md).
 *
 * With options->min_size less than size ("at most, at least"): the first try is `size`, or less where the limits say
 * so: at most half of the address space that RLIMIT_AS leaves, and, unless VMK_RESERVE_SPARSE, no more than
 * RLIMIT_DATA, a cgroup or a job object would let the process commit; each refusal halves it, down to min_size at last.
 *
 * A name is a wish, and shows nowhere but in that list: Linux from 5.17 on, if it was built with CONFIG_ANON_VMA_NAME,
 * has "[anon:NAME]" in /proc/PID/maps, for names of up to 79 printable characters without []\$`. Elsewhere, and if the
 * system does not like it, there is none. It must stay readable until the release; guard and all, committed or not, the
 * region keeps it. What has other names is other mappings, which matters where their number is limited.
 *
 * A region of explicit huge pages is made of those of one size, which the administrator has set apart (Linux: hugetlb)
 * or allowed (Windows: the privilege to lock pages); they are never swapped or split. `size` and the guard are rounded
 * up to them, and they are its unit: offsets and sizes of every call are multiples of it where else they are of the
 * page. A commit gets the memory at once, or is VMK_ERR_COMMIT. There is no discard (VMK_ERR_UNSUPPORTED), and no table
 * lives in such a region. On Windows it comes committed as a whole, guard and all, and stays so: a decommit is
 * VMK_ERR_UNSUPPORTED; the program must have enabled its privilege. On Linux (from 5.14 on) a child of a fork copies
 * what it writes from the same pool, and dies of a touch (SIGBUS) when that is empty: see VMK_ADVICE_NO_FORK.
 *
 * `region` is written only on success: it need not be initialised, and must not hold a live region.
 * VMK_ERR_ARGUMENT: size is 0, or overflows when rounded or with the guard; min_size > size; align is no power of two;
 *   EXACT without a hint, or with one that is not a multiple of align and granularity.
 * VMK_ERR_TAKEN: EXACT, and something else is there, or the system allows nothing there.
 * VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS: refused by the system, for lack of either.
 * VMK_ERR_UNSUPPORTED: huge_size is none that the system has, or it isn't allowed to this process. VMK_ERR_COMMIT: on
 *   Windows, there are not so many huge pages free.
 * Cost: one or two system calls where the first try succeeds, one more for a name. */
VMK_API VMK_MUST_CHECK vmk_status vmk_reserve(vmk_region *region, size_t size, const vmk_reserve_options *options);

/* Give the whole reservation back, with all that is committed in it. No other thread may be using the region.
 * Misuse: not a live region, or released before. Cost: one system call. */
VMK_API void vmk_release(vmk_region *region);

/* Commit [offset, offset + size): afterwards all of it can be read and written. What was reserved reads as zero; what
 * was committed already keeps its contents and its protection. Size 0 does nothing. All or nothing.
 * VMK_ERR_ARGUMENT: offset or size is not a multiple of the page size, or the range leaves the region.
 * VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: refused by the system.
 * Cost: one system call for each gap in the range that was not committed; none if there is none. */
VMK_API VMK_MUST_CHECK vmk_status vmk_commit(vmk_region *region, size_t offset, size_t size);

/* Back to reserved: contents lost, memory and charge returned, touching faults. What is reserved already stays so.
 * Size 0 does nothing. The caller sees to it that nobody uses the range.
 * VMK_ERR_MAPPINGS, VMK_ERR_COMMIT: the system can't split its mapping; all is as before, contents too.
 * Misuse: offset or size is not a multiple of the page size, or the range leaves the region.
 * Cost: one or two system calls, one more in a region that has a name, and the freeing of the pages. */
VMK_API VMK_MUST_CHECK vmk_status vmk_decommit(vmk_region *region, size_t offset, size_t size);

/* The contents are not needed: the committed pages of the range stay committed, with undefined contents, each page
 * being what it was or zero until it is written; the system may take the memory. Unlike after decommit, using them
 * again can't fail for lack of charge. The pages must be readable and writable. Size 0 does nothing.
 * VMK_ERR_UNSUPPORTED: the system refuses (locked memory, for one); contents are kept.
 * Misuse: as for vmk_decommit. Cost: one system call a committed run. */
VMK_API VMK_MUST_CHECK vmk_status vmk_discard(vmk_region *region, size_t offset, size_t size);

/* Say that discarded pages are in use again. Not needed before touching them, but some systems (macOS) go on counting
 * them as free otherwise. Never fails; no system call where the system needs none. Misuse: as for vmk_decommit. */
VMK_API void vmk_reuse(vmk_region *region, size_t offset, size_t size);

typedef enum vmk_access { VMK_ACCESS_NONE, VMK_ACCESS_READ, VMK_ACCESS_READ_WRITE } vmk_access;

/* Change what may be done with committed pages; contents are kept, they stay committed and charged. Size 0: nothing.
 * VMK_ERR_ARGUMENT: as for vmk_commit, or some page of the range is not committed, or no such access.
 * VMK_ERR_MAPPINGS, VMK_ERR_COMMIT: the system can't split its mapping. Cost: one system call. */
VMK_API VMK_MUST_CHECK vmk_status vmk_protect(vmk_region *region, size_t offset, size_t size, vmk_access access);

/* Of contents nothing changes by any of these but WIPE_ON_FORK, in the child. */
typedef enum vmk_advice {
    VMK_ADVICE_HUGE,         /* back the range with huge pages where possible, now and when committed later */
    VMK_ADVICE_NO_HUGE,      /* never do so: on Linux, one-way for all practical purposes */
    VMK_ADVICE_COLLAPSE,     /* put what is there into huge pages now, at the cost of copying it (Linux 6.1) */
    VMK_ADVICE_COLD,         /* not to be used soon: the first to go when memory is short (Linux 5.4) */
    VMK_ADVICE_PAGE_OUT,     /* write it to swap now, where there is some (Linux 5.4) */
    VMK_ADVICE_NO_DUMP,      /* leave it out of core dumps; and in again */
    VMK_ADVICE_DUMP,         /* */
    VMK_ADVICE_NO_FORK,      /* a child has nothing there, and must not touch it; and has it again */
    VMK_ADVICE_FORK,         /* */
    VMK_ADVICE_WIPE_ON_FORK, /* a child finds zeroes there (Linux 4.14; OpenBSD); and the contents again */
    VMK_ADVICE_KEEP_ON_FORK, /* */
    VMK_ADVICE_SEQUENTIAL,   /* will be used from one end to the other; */
    VMK_ADVICE_RANDOM,       /* here and there; */
    VMK_ADVICE_NORMAL,       /* neither: it matters for what is read from a file or from swap */
    VMK_ADVICE_WILL_NEED,    /* fetch what is in a file or in swap now */
    VMK_ADVICES
} vmk_advice;

/* Advise on a range, committed or not. Each advised range may become a mapping of its own, so advise whole regions.
 * Advice stays with the pages, also when they are committed later; a decommit may lose it. Which kinds this system has
 * is in vmk_caps.advice; a system that takes an advice may still do nothing about it.
 * VMK_ERR_ARGUMENT: as for vmk_commit, or no such advice. VMK_ERR_UNSUPPORTED: the system has no such advice, or not
 * for this range (COLLAPSE where no whole huge page fits in). VMK_ERR_COMMIT: no huge page to be had (COLLAPSE).
 * VMK_ERR_MAPPINGS. Cost: one system call. */
VMK_API VMK_MUST_CHECK vmk_status vmk_advise(vmk_region *region, size_t offset, size_t size, vmk_advice advice);

/* --- looking ------------------------------------------------------------------------------------------------------ */

typedef enum vmk_state { VMK_STATE_RESERVED, VMK_STATE_COMMITTED } vmk_state;

/* The state of the page at `offset` (any byte of it), and in *run, unless NULL, how many bytes from `offset` on are in
 * the same state. Misuse: offset is outside the region. Cost: logarithmic in the number of committed runs; no system
 * call. */
VMK_API vmk_state vmk_region_query(const vmk_region *region, size_t offset, size_t *run);

/* What this process holds through vmkit. Counted where pages change their state, never by calls or by requested sizes:
 * equal to what the system shows for the same ranges; but Linux shows what a batch has decommitted (vmk_decommit_batch)
 * as a part of the writable mapping that it was in, without memory. */
typedef struct vmk_stats {
    size_t regions;           /* live reservations */
    size_t reserved;          /* bytes of address space in them, guards and committed pages included */
    size_t committed;         /* bytes */
    size_t reserved_peak;     /* the most there has been of either */
    size_t committed_peak;    /* */
    uint64_t commit_count;    /* times that pages went from reserved to committed (system calls, not pages) */
    uint64_t decommit_count;  /* and back */
    uint64_t committed_total; /* bytes ever committed */
    size_t overhead;          /* bytes, committed, for the library's own records of regions; not in the others */
} vmk_stats;

VMK_API void vmk_stats_now(vmk_stats *stats);

/* ================================================================================================================== */
/* Part 3: table, the lazily committed table                                                                          */
/* ================================================================================================================== */

/* One index space, up to eight columns over it. All of the address space is reserved when the table is made, and
 * committed as elements are asked for, so a table can be dimensioned for the worst case and cost what is used.
 *
 *   elements never move      an address is column base + index x width, for as long as the table lives
 *   readers take no lock     what was published as ready can be read by any thread while another one grows the table
 *   zero                     an element that was never used, or was trimmed or dropped and is used again, reads as zero
 *   all or nothing           elements become ready in all columns at once, or the call fails and nothing has changed
 *
 * A dense table is a prefix: the elements [0, ready) can be used. A sparse one (VMK_TABLE_SPARSE) is a set of ranges,
 * each costing the pages that it touches.
 *
 * Which index may be touched. Whoever knows, by its own order of events, that an ensure of the element has succeeded,
 * just touches it. Whoever does not asks vmk_table_get or vmk_table_find, which never fault. Touching any other element
 * is a bug that ends in a fault, on a page that was not committed or on the guard page behind each column; it never
 * lands in a neighbour.
 *
 * The idea of a table that is reserved whole and committed as the heap behind it grows: D. Vyukov, "allocate page table
 * lazily", 2013, in the heap of the Go language. */

#define VMK_TABLE_MAX_COLUMNS 8

enum {
    VMK_TABLE_SPARSE = 1u << 0, /* ranges with holes, vmk_table_drop_range; else a prefix */
    VMK_TABLE_EXACT =
        1u << 1,             /* commit no more than is asked for, rounded to pages; else ahead, see vmk_table_ensure */
    VMK_TABLE_HUGE = 1u << 2 /* ask for huge pages where the system has them; ignored where not, and if SPARSE */
};

/* What a table is to be like. Zero means the default, and only capacity and one column are needed. */
typedef struct vmk_table_config {
    size_t capacity;     /* the number of elements that it can ever hold */
    size_t min_capacity; /* 0: all of capacity or nothing. Else as many as the system grants, halving, down to this */
    size_t column_bits[VMK_TABLE_MAX_COLUMNS]; /* bits of an element in each column: 1, 2, 4 or a multiple of 8; the
                                                  first 0 ends the list */
    size_t tail;      /* this many elements past the last ready one can be read: they are zero, or ready */
    uintptr_t origin; /* a key's index is (key - origin) >> shift: for tables that describe a range of addresses */
    unsigned shift;
    size_t step;    /* commit each column in steps of this many bytes, rounded up to pages; 0: chosen by size */
    unsigned flags; /* VMK_TABLE_... */
    vmk_region
        *region; /* NULL: a reservation of its own. Else live in this one, whose owner keeps it alive and leaves */
    size_t
        region_offset; /* this part of it alone: whole pages, all reserved; vmk_table_space says how many are needed */
    size_t region_size;
    const char *name; /* of its own reservation, see vmk_reserve; in another's region it has that one's */
} vmk_table_config;

/* Private: which elements of a sparse table are ready; see src/common/table/index_set.h. */
typedef struct vmki_index_set {
    size_t version;
    size_t current;
    unsigned char *base;
    size_t capacity;
    size_t chunk_shift;
    size_t used;
    size_t count;
    size_t masks_free;
    size_t masks_made;
    vmk_region *region;
    size_t offset;
    size_t half_size;
    size_t masks_size;
    size_t half_committed[2];
    size_t masks_committed;
} vmki_index_set;

/* In the caller's storage, not to be copied or moved. Read only; what changes while the table lives is `ready`. */
typedef struct vmk_table {
    size_t ready;                                 /* dense: elements that are ready; 0 if sparse. Loaded with acquire */
    unsigned char *column[VMK_TABLE_MAX_COLUMNS]; /* page-aligned bases, set at init and never again */
    uintptr_t origin;
    unsigned shift;
    unsigned flags;
    size_t capacity;
    size_t bits[VMK_TABLE_MAX_COLUMNS];
    /* private */
    unsigned columns;
    size_t tail;
    size_t step;
    size_t column_offset[VMK_TABLE_MAX_COLUMNS];
    size_t column_size[VMK_TABLE_MAX_COLUMNS];      /* bytes that may be committed, whole pages */
    size_t column_committed[VMK_TABLE_MAX_COLUMNS]; /* dense: of the prefix */
    vmk_region own_region;
    vmk_region *region;
    size_t part_offset;
    size_t part_size;
    uint64_t commit_count;
    vmki_index_set set;
    uintptr_t seal;
} vmk_table;

/* The address space that a table of config->capacity elements takes, in bytes, guards included: the region_size that it
 * needs when it is to live in a region of the caller's. Only *size is written. VMK_ERR_ARGUMENT: as for init. */
VMK_API VMK_MUST_CHECK vmk_status vmk_table_space(const vmk_table_config *config, size_t *size);

/* Make a table. Commits nothing. With min_capacity, table->capacity tells what was granted (see vmk_reserve for how the
 * limits are heeded; sparse tables as VMK_RESERVE_SPARSE).
 * VMK_ERR_ARGUMENT: capacity 0 or less than min_capacity; no column, or one of a width that is not allowed; a size that
 *   overflows; shift not less than the bits of an address; a part that is not whole pages, leaves its region, or is of
 *   huge ones.
 * VMK_ERR_LIMIT: the part is too small for capacity (min_capacity, where given).
 * VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS: as for vmk_reserve.
 * On failure *table holds nothing, and init may be tried again. Cost: at most two system calls where the first try
 * succeeds, three with VMK_TABLE_HUGE. */
VMK_API VMK_MUST_CHECK vmk_status vmk_table_init(vmk_table *table, const vmk_table_config *config);

/* End a table: its memory goes back, and its reservation, if that is its own; a part is left all reserved. No other
 * thread may be using it. Misuse: not a live table. */
VMK_API void vmk_table_fini(vmk_table *table);

/* Make the elements [0, count) ready (a sparse table: as vmk_table_ensure_range from 0). What is ready already costs
 * one load, one compare, one branch. Else it commits ahead of the need: doubling, from 64 MiB on by 64 MiB, in steps of
 * whole huge pages from 8 MiB on (with VMK_TABLE_HUGE from the start); if that is refused, exactly what is needed,
 * rounded to pages. So more than `count` may become ready, and vmk_table_ready tells.
 * VMK_ERR_LIMIT: count > capacity.
 * VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: refused by the system; nothing was published.
 * Threads: any number may call it at once; what it makes ready is visible to whoever sees vmk_table_ready rise. */
static inline VMK_MUST_CHECK vmk_status vmk_table_ensure(vmk_table *table, size_t count);

/* Make the elements [first, first + count) ready. A sparse table commits the pages that they touch, and no others; a
 * dense one makes all of [0, first + count) ready. Elements that are ready already stay as they are. Count 0 does
 * nothing. Errors as vmk_table_ensure.
 * Cost, sparse: a system call for each gap in each column, and time in proportion to the range (one step for each page
 * or so of the widest column). */
VMK_API VMK_MUST_CHECK vmk_status vmk_table_ensure_range(vmk_table *table, size_t first, size_t count);

/* The elements from `count` on are no longer needed: none of them is ready any more, and the pages that only they used
 * are decommitted. Nobody may be using them; those below may be in use meanwhile (in a column of less than 8 bits,
 * writes to neighbours in the same byte must be atomic: vmk_table_store_bits). Count at or past what is ready does
 * nothing. Never fails: where the system can't take pages back they are cleared and kept for the next ensure; and where
 * there is no memory to record that a sparse table's range ends here, up to a page's worth of its elements stays ready,
 * cleared. */
VMK_API void vmk_table_trim(vmk_table *table, size_t count);

/* The elements [first, first + count) are no longer needed. A page is decommitted as soon as no ready element is on it,
 * nor reads it as tail. What was not ready does not matter. Nobody may be using the elements; others may, as with trim.
 * VMK_ERR_UNSUPPORTED: the table is dense, and the range does not reach to its end (then it is vmk_table_trim).
 * VMK_ERR_COMMIT: no memory for the record of a hole in a range; nothing has changed.
 * Cost: as vmk_table_ensure_range. Where the system can't take pages back they are cleared and kept. */
VMK_API VMK_MUST_CHECK vmk_status vmk_table_drop_range(vmk_table *table, size_t first, size_t count);

typedef struct vmk_table_stats {
    size_t ready;          /* elements that are ready */
    size_t reserved;       /* bytes of address space */
    size_t committed;      /* bytes: of the columns, */
    size_t overhead;       /* and of the record of a sparse table's ranges */
    uint64_t commit_count; /* times that it grew */
} vmk_table_stats;

VMK_API void vmk_table_stats_now(const vmk_table *table, vmk_table_stats *stats);

/* Private: the slow halves of the inline functions below. */
VMK_API VMK_MUST_CHECK vmk_status vmki_table_ensure_slow(vmk_table *table, size_t count);
VMK_API bool vmki_table_sparse_ready(const vmk_table *table, unsigned column, size_t index);

static inline vmk_status vmk_table_ensure(vmk_table *table, size_t count)
{
    if (VMK_LIKELY(count <= VMK_LOAD_ACQUIRE(&table->ready)))
        return VMK_OK;
    return vmki_table_ensure_slow(table, count);
}

/* The number of elements that are ready from 0 on. What a thread writes before its ensure is not published by it: only
 * the zero elements are. 0 for a sparse table. */
static inline size_t vmk_table_ready(const vmk_table *table)
{
    return VMK_LOAD_ACQUIRE(&table->ready);
}

/* The address of an element; in a column of less than 8 bits, of the byte that holds it. No check: see "which index may
 * be touched". Index up to capacity + tail - 1. */
static inline void *vmk_table_at(const vmk_table *table, unsigned column, size_t index)
{
    size_t bits = table->bits[column];
    return table->column[column] + (bits >= 8 ? index * (bits >> 3) : index / (8 / bits));
}

/* Is the element ready (sparse: in this column)? Any index may be asked for. Lock-free; a dense table's answer costs a
 * load and a compare, a sparse one's a look-up in a hash table. */
static inline bool vmk_table_is_ready(const vmk_table *table, unsigned column, size_t index)
{
    if (VMK_LIKELY(index < VMK_LOAD_ACQUIRE(&table->ready)))
        return true;
    return (table->flags & VMK_TABLE_SPARSE) != 0 && vmki_table_sparse_ready(table, column, index);
}

/* The address of an element if it is ready, else NULL. */
static inline void *vmk_table_get(const vmk_table *table, unsigned column, size_t index)
{
    return vmk_table_is_ready(table, column, index) ? vmk_table_at(table, column, index) : NULL;
}

/* A key's index; keys below the origin get one that is never ready. */
static inline size_t vmk_table_index(const vmk_table *table, uintptr_t key)
{
    return (size_t)((key - table->origin) >> table->shift);
}

/* The address of a key's element if it is ready, else NULL. Any key may be asked for. */
static inline void *vmk_table_find(const vmk_table *table, unsigned column, uintptr_t key)
{
    return vmk_table_get(table, column, vmk_table_index(table, key));
}

/* An element of a column of 1, 2 or 4 bits: element i is in byte i / per of the column, at bit (i % per) x bits, where
 * per = 8 / bits. Each is one atomic access, so neighbours in a byte may belong to different threads; relaxed order.
 * The element must be ready; bits of `value` above the width are ignored. */
VMK_API unsigned vmk_table_load_bits(const vmk_table *table, unsigned column, size_t index);
VMK_API void vmk_table_store_bits(vmk_table *table, unsigned column, size_t index, unsigned value);

/* A table of one column of a type of yours, checked by the compiler, in C and in C++:
 *
 *     VMK_TABLE_DEFINE(points, struct point);
 *
 * defines the type `points` and, for a `points *t`,
 *
 *     points_init(t, capacity)        points_init_as(t, &config): all of the config but column_bits
 *     points_fini(t)                  points_ensure(t, count), points_ensure_range(t, first, count)
 *     points_at(t, i)                 a struct point *, unchecked: one add to a constant base
 *     points_get(t, i)                the same, NULL where not ready
 *     points_base(t)                  a struct point *, to be indexed as an array
 *     points_ready(t)                 points_trim(t, count), points_drop_range(t, first, count)
 *
 * each as its vmk_table_ namesake. The type's alignment must not be more than a page. */
#define VMK_TABLE_DEFINE(name, type)                                                                                   \
    typedef struct name {                                                                                              \
        vmk_table table;                                                                                               \
    } name;                                                                                                            \
    VMK_INLINE VMK_MUST_CHECK vmk_status name##_init_as(name *t, const vmk_table_config *config)                       \
    {                                                                                                                  \
        vmk_table_config typed = *config;                                                                              \
        typed.column_bits[0] = sizeof(type) * 8;                                                                       \
        typed.column_bits[1] = 0;                                                                                      \
        return vmk_table_init(&t->table, &typed);                                                                      \
    }                                                                                                                  \
    VMK_INLINE VMK_MUST_CHECK vmk_status name##_init(name *t, size_t capacity)                                         \
    {                                                                                                                  \
        vmk_table_config config = VMK_TABLE_CONFIG_DEFAULT;                                                            \
        config.capacity = capacity;                                                                                    \
        return name##_init_as(t, &config);                                                                             \
    }                                                                                                                  \
    VMK_INLINE void name##_fini(name *t)                                                                               \
    {                                                                                                                  \
        vmk_table_fini(&t->table);                                                                                     \
    }                                                                                                                  \
    VMK_INLINE VMK_MUST_CHECK vmk_status name##_ensure(name *t, size_t count)                                          \
    {                                                                                                                  \
        return vmk_table_ensure(&t->table, count);                                                                     \
    }                                                                                                                  \
    VMK_INLINE VMK_MUST_CHECK vmk_status name##_ensure_range(name *t, size_t first, size_t count)                      \
    {                                                                                                                  \
        return vmk_table_ensure_range(&t->table, first, count);                                                        \
    }                                                                                                                  \
    VMK_INLINE type *name##_base(const name *t)                                                                        \
    {                                                                                                                  \
        return (type *)(void *)t->table.column[0];                                                                     \
    }                                                                                                                  \
    VMK_INLINE type *name##_at(const name *t, size_t index)                                                            \
    {                                                                                                                  \
        return name##_base(t) + index;                                                                                 \
    }                                                                                                                  \
    VMK_INLINE type *name##_get(const name *t, size_t index)                                                           \
    {                                                                                                                  \
        return vmk_table_is_ready(&t->table, 0, index) ? name##_at(t, index) : NULL;                                   \
    }                                                                                                                  \
    VMK_INLINE size_t name##_ready(const name *t)                                                                      \
    {                                                                                                                  \
        return vmk_table_ready(&t->table);                                                                             \
    }                                                                                                                  \
    VMK_INLINE void name##_trim(name *t, size_t count)                                                                 \
    {                                                                                                                  \
        vmk_table_trim(&t->table, count);                                                                              \
    }                                                                                                                  \
    VMK_INLINE VMK_MUST_CHECK vmk_status name##_drop_range(name *t, size_t first, size_t count)                        \
    {                                                                                                                  \
        return vmk_table_drop_range(&t->table, first, count);                                                          \
    }                                                                                                                  \
    struct name /* takes the semicolon, if one is written */

#ifdef __cplusplus
#define VMK_TABLE_CONFIG_DEFAULT                                                                                       \
    {                                                                                                                  \
    }
#else
#define VMK_TABLE_CONFIG_DEFAULT                                                                                       \
    {                                                                                                                  \
        0                                                                                                              \
    }
#endif

/* ================================================================================================================== */
/* Part 4: heap, memory in spans of pages                                                                             */
/* ================================================================================================================== */

/* A heap hands out spans: runs of heap pages of 8 KiB. It knows for any address which span it lies in, by one load from
 * a lazy table, and gives back to the system what is free. It is whole by itself, and the ground for what allocates
 * objects.
 *
 * A heap has a window, the range of addresses that its tables can describe, and regions in it, what is really reserved.
 * A layout is a choice of window and of how regions are got:
 *
 *   VMK_LAYOUT_64       one reservation at once: the tables, and the window behind them, all of it one region
 *   VMK_LAYOUT_LIMITED  a window no larger than the limits on this process make useful, tables in proportion, regions
 *                       reserved in it step by step, so that what the heap does not need is left to the program
 *   VMK_LAYOUT_32       a window of 4 GiB (on 32-bit systems the whole address space); a first region of 512, 256, 128
 *                       ... MiB as the system grants it, then its extension at the end, then regions anywhere
 *
 * VMK_LAYOUT_AUTO tries 64, LIMITED, 32 in this order on 64-bit systems, beginning with LIMITED where RLIMIT_AS,
 * RLIMIT_DATA or a job object sets a limit that VMK_LAYOUT_64 would not fit; and 32, LIMITED on 32-bit systems, or
 * LIMITED, 32 under a limit.
 *
 * Free pages merge at once with those before and behind them, and spans are placed at the lowest address where they
 * fit. Pages that were never written are known to be zero, and are not cleared again.
 *
 * A span table that is reserved whole and committed as the heap grows: D. Vyukov, "allocate page table lazily", 2013.
 * Bitmaps of free pages under a tree of summaries: A. Clements, M. Knyszek, the page allocator of Go 1.14. */

#define VMK_HEAP_PAGE_SHIFT 13
#define VMK_HEAP_PAGE_SIZE ((size_t)1 << VMK_HEAP_PAGE_SHIFT)

typedef enum vmk_layout { VMK_LAYOUT_AUTO, VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32 } vmk_layout;

/* Called once for each exact range by which the heap is about to grow: committed, described by the tables, and not yet
 * used or found by any look-up. An answer other than VMK_OK refuses it: all is undone, and the call that wanted to grow
 * fails with that code if it can't be satisfied otherwise. Called with the heap's lock held: it must not call the heap.
 */
typedef vmk_status vmk_growth_hook(void *context, void *base, size_t size);

/* Nanoseconds from any start, never going back. */
typedef uint64_t vmk_clock(void *context);

enum {
    VMK_HEAP_RANDOM_BASE = 1u << 0, /* 64-bit systems: at a random address instead of a recognisable one */
    VMK_HEAP_DECOMMIT = 1u << 1,    /* return memory by decommit even where discarding it is prompt: costs mappings */
    VMK_HEAP_HARDENED = 1u << 2,    /* objects (part 5): find more crimes, at a price; see there */
    VMK_HEAP_NAMED = 1u << 3,       /* its mappings have names (see vmk_reserve): "vmkit heap", "vmkit spans" where
                                       these are in reservations of their own, "vmkit objects" (tables of objects),
                                       "vmkit huge object". Costs a system call for each mapping */
    VMK_HEAP_SMALL_PAGES = 1u << 4  /* ask for huge pages never, instead of for all that comes after 32 MiB */
};

/* Called when memory can't be had: `size` bytes of it, because of `why`. It may free objects and spans of the heap and
 * give memory back, and answer true to have it tried again; false lets the call fail. Called without a lock, by the
 * thread that wants the memory. */
struct vmk_heap;
typedef bool vmk_exhausted(void *context, struct vmk_heap *heap, size_t size, vmk_status why);

/* How a heap is to be. All zero, or a NULL pointer, is the default. */
typedef struct vmk_heap_options {
    vmk_layout layout;        /* AUTO, or just this one */
    unsigned flags;           /* VMK_HEAP_... */
    size_t window;            /* bytes, rounded up to 4 MiB; 0: LAYOUT_64 128 GiB or four times the memory, whichever is
                                 more (on 32-bit systems 512 MiB); LIMITED what the limits allow, 4 GiB if they are
                                 silent. LAYOUT_32 has its own and ignores it */
    size_t step;              /* grow by at least this many bytes at a time; 0: from 256 KiB, more as the heap grows */
    uintptr_t hint;           /* where to try first; 0: a list of addresses that ordinary data seldom resembles */
    vmk_growth_hook *on_grow; /* NULL: none */
    void *on_grow_context;
    vmk_clock *clock; /* NULL: the system's monotonic clock */
    void *clock_context;
    uint64_t scavenge_interval;  /* of the policy, in nanoseconds; 0: one second */
    unsigned keep_percent;       /* idle memory that the policy keeps, in per cent of what is in use; 0: 10 */
    size_t limit;                /* bytes that spans may take together, rounded down to pages; 0: no limit */
    vmk_exhausted *on_exhausted; /* NULL: none. Spans, and what is made of them, ask it before they fail */
    void *on_exhausted_context;
} vmk_heap_options;

/* A span in use. The record is the heap's, and its address is the span's identity until it is freed; its memory stays
 * readable as long as the heap lives. Read only, but for `owner`. */
typedef struct vmk_span {
    unsigned char *base;
    size_t pages; /* of VMK_HEAP_PAGE_SIZE bytes */
    void *owner;  /* for the caller to use; NULL when the span is handed out */
    uint32_t id;  /* 1 ...; what the table of spans holds */
    uint16_t flags;
    uint16_t state; /* private */
} vmk_span;

enum {
    VMK_SPAN_ZERO = 1u << 0, /* alloc: all bytes shall be zero. In span->flags: they were, when it was handed out */
    VMK_SPAN_MARKS = 1u << 1 /* alloc: with mark bits, see vmk_span_marks. In span->flags: it has them */
};

/* The part of a heap that look-ups read. In the library's storage; read only. */
typedef struct vmk_heap {
    uintptr_t origin;        /* of the window, a multiple of 4 MiB */
    size_t limit;            /* pages from there on that the tables may be asked about. Loaded with acquire */
    const uint32_t *spans;   /* by page of the window: the id of the span in use there, 0: none */
    const uint8_t *classes;  /* by page: see vmk_span_set_class */
    vmk_span *records;       /* by id */
    const uint32_t *present; /* by 4 MiB of the window, a bit: the tables are there. NULL: they are, up to limit */
    unsigned char *marks;    /* a bit for each 16 bytes of the window, see vmk_span_marks */
} vmk_heap;

/* Make a heap. Commits no more than its own record; the first span makes it grow. options may be NULL.
 * VMK_ERR_ARGUMENT: unknown layout or flags; window or step too large for this system; keep_percent above 1,000,000.
 * VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS, VMK_ERR_COMMIT: no layout (or not the one asked for) can be had.
 * Cost: without limits, at most 10 system calls, the same for any window. */
VMK_API VMK_MUST_CHECK vmk_status vmk_heap_create(vmk_heap **heap, const vmk_heap_options *options);

/* End a heap: all its memory and address space go back, spans in use too. Stops its scavenger. No other thread may be
 * using it. Misuse: not a live heap. */
VMK_API void vmk_heap_destroy(vmk_heap *heap);

/* Hand out a span of `pages` heap pages at the lowest address that has them, its base a multiple of `align` bytes (a
 * power of two; 0: VMK_HEAP_PAGE_SIZE). flags: VMK_SPAN_... Contents are undefined without VMK_SPAN_ZERO, but for what
 * span->flags says. The class of its pages is 0, its mark bits are 0.
 * VMK_ERR_ARGUMENT: pages is 0, or more than an address can say; align is no power of two; unknown flags.
 * VMK_ERR_LIMIT: the window is full: it has no such room, whatever the system would grant; or the heap's own limit is
 *   reached.
 * VMK_ERR_ADDRESS_SPACE, VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: refused by the system. Or what the growth hook answered.
 * After a failure the heap may have grown, with memory that is idle and counted as such, but nothing is lost.
 * Cost: logarithmic in the window, and an entry to write for each page; system calls where the heap grows, or released
 * memory is used again. */
VMK_API VMK_MUST_CHECK vmk_status vmk_span_alloc(vmk_heap *heap, size_t pages, size_t align, unsigned flags,
                                                 vmk_span **span);

/* Give a span back. Misuse: not a span of this heap, or free already. Never fails. Cost: as vmk_span_alloc, no system
 * call. */
VMK_API void vmk_span_free(vmk_heap *heap, vmk_span *span);

/* Make a span longer or shorter where it is. Contents of the pages that stay are kept; pages that are new have
 * undefined contents, mark bits 0 and the span's class; the VMK_SPAN_ZERO of span->flags holds for them too if it is
 * still set. Nobody else may be using the span meanwhile.
 * VMK_ERR_TAKEN: what is behind is in use, or another's; the span is as it was. VMK_ERR_ARGUMENT: pages is 0, or as
 *   above. Other errors as vmk_span_alloc. Misuse: as vmk_span_free. */
VMK_API VMK_MUST_CHECK vmk_status vmk_span_resize(vmk_heap *heap, vmk_span *span, size_t pages);

/* Cut a span in two: `span` keeps the first `pages`, *rest is a span of the others, with the same flags and owner.
 * Nobody else may be using the span meanwhile.
 * VMK_ERR_ARGUMENT: pages is 0 or not less than the span's. VMK_ERR_LIMIT, VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: no record
 * for another span. Misuse: as vmk_span_free. */
VMK_API VMK_MUST_CHECK vmk_status vmk_span_split(vmk_heap *heap, vmk_span *span, size_t pages, vmk_span **rest);

/* Give the pages of a span a class: any number, read by vmk_heap_class in one load. Misuse: as vmk_span_free. */
VMK_API void vmk_span_set_class(vmk_heap *heap, vmk_span *span, uint8_t class_of_size);

/* --- looking up: no lock, any thread, async-signal-safe ---------------------------------------------------------- */

/* The span that the address lies in, which is known to be in use: one load that depends on another, no check. */
static inline vmk_span *vmk_span_of(const vmk_heap *heap, const void *address)
{
    return &heap->records[heap->spans[((uintptr_t)address - heap->origin) >> VMK_HEAP_PAGE_SHIFT]];
}

/* The class of the page that the address lies in, which is known to be in use. */
static inline uint8_t vmk_heap_class(const vmk_heap *heap, const void *address)
{
    return heap->classes[((uintptr_t)address - heap->origin) >> VMK_HEAP_PAGE_SHIFT];
}

/* The span that a word points into, if it does: NULL for what is outside the window, in a hole, free, or no address at
 * all. Any bits may be asked about at any time. Where the span is freed or allocated at the same moment, the answer may
 * be that of before or after; it can always be read. */
static inline vmk_span *vmk_span_find(const vmk_heap *heap, uintptr_t word)
{
    size_t page = (word - heap->origin) >> VMK_HEAP_PAGE_SHIFT;
    if (page >= VMK_LOAD_ACQUIRE(&heap->limit))
        return NULL;
    if (heap->present != NULL && (VMK_LOAD_ACQUIRE_32(&heap->present[page >> 14]) >> (page >> 9 & 31) & 1) == 0)
        return NULL;
    uint32_t id = VMK_LOAD_ACQUIRE_32(&heap->spans[page]);
    return id != 0 ? &heap->records[id] : NULL;
}

/* The mark bits of a span that was allocated with VMK_SPAN_MARKS: VMK_HEAP_PAGE_SIZE / 128 bytes a page, bit i % 8 of
 * byte i / 8 for the i-th 16 bytes. They are the caller's; zero when the span is handed out. */
static inline unsigned char *vmk_span_marks(const vmk_heap *heap, const vmk_span *span)
{
    return heap->marks + (((uintptr_t)span->base - heap->origin) >> 7);
}

/* --- giving memory back ------------------------------------------------------------------------------------------ */

/* Return up to `most` bytes of idle memory to the system, now: whole huge pages first, those at the highest addresses
 * first. Answers how many bytes were returned, rounded up to a page. Never fails; what the system won't take stays
 * idle. The heap's lock is held for 4 MiB at a time. */
VMK_API size_t vmk_heap_scavenge(vmk_heap *heap, size_t most);

/* The policy: if scavenge_interval has passed since it was last applied, return idle memory that has not been touched
 * since then and is more than keep_percent of what is in use; in whole huge pages, where the system has them. Answers
 * the bytes returned. For callers that drive it themselves, now and then; cheap where there is nothing to do. */
VMK_API size_t vmk_heap_scavenge_tick(vmk_heap *heap);

/* Have a thread of the library's own apply the policy, every scavenge_interval of real time, until stopped. Starting
 * what runs, and stopping what does not, does nothing. The child of a fork has no such thread, and may start one.
 * VMK_ERR_COMMIT: no memory for a thread. VMK_ERR_UNSUPPORTED: no threads here. */
VMK_API VMK_MUST_CHECK vmk_status vmk_heap_scavenger_start(vmk_heap *heap);
VMK_API void vmk_heap_scavenger_stop(vmk_heap *heap);

/* --- seeing ------------------------------------------------------------------------------------------------------ */

/* What a heap consists of, in the order of addresses of VMK_LAYOUT_64.
 * X(name, text) */
#define VMK_HEAP_PART_TABLE(X)                                                                                         \
    X(HEADER, "header")                                                                                                \
    X(REGIONS, "regions")                                                                                              \
    X(SPANS, "spans")                                                                                                  \
    X(RECORDS, "records")                                                                                              \
    X(PAGES, "page bits")                                                                                              \
    X(BITMAP, "mark bitmap")                                                                                           \
    X(ARENA, "arena")

#define VMK_HEAP_PART_ENUM(name, text) VMK_HEAP_##name,
typedef enum vmk_heap_part { VMK_HEAP_PART_TABLE(VMK_HEAP_PART_ENUM) VMK_HEAP_PARTS } vmk_heap_part;
#undef VMK_HEAP_PART_ENUM

/* All in bytes but counts. reserved and committed are the sums of those of the parts, and what the system shows;
 * in_use + idle + released is what the heap has grown to. */
typedef struct vmk_heap_stats {
    vmk_layout layout; /* never AUTO */
    uintptr_t window;  /* its first address */
    uint64_t window_size;
    size_t reserved;
    size_t committed;
    size_t in_use;
    size_t idle;     /* free and committed */
    size_t released; /* free and given back: decommitted, or discarded and then still part of committed */
    size_t in_use_peak;
    size_t spans;        /* in use */
    size_t regions;      /* reservations */
    uint64_t grow_count; /* times that the heap grew */
    uint64_t released_total;
    struct {
        uintptr_t base; /* 0 for an arena of several regions */
        size_t reserved;
        size_t committed;
    } part[VMK_HEAP_PARTS];
} vmk_heap_stats;

VMK_API void vmk_heap_stats_now(vmk_heap *heap, vmk_heap_stats *stats);

/* The name of a part ("mark bitmap") and of a layout ("64-bit"); "unknown" for any other value. */
VMK_API const char *vmk_heap_part_name(vmk_heap_part part);
VMK_API const char *vmk_layout_name(vmk_layout layout);

typedef enum vmk_range_use {
    VMK_RANGE_IN_USE,   /* a span */
    VMK_RANGE_IDLE,     /* free, committed */
    VMK_RANGE_RELEASED, /* free, given back */
    VMK_RANGE_RESERVED  /* of a region, never grown into */
} vmk_range_use;

typedef struct vmk_range {
    unsigned char *base;
    size_t size;
    vmk_range_use use;
    vmk_span *span; /* of what is in use, else NULL */
} vmk_range;

/* Call `visit` for every range of every region, in the order of addresses, until it answers false. The heap's lock is
 * held: it must not call the heap, but for look-ups. */
typedef bool vmk_range_visitor(void *context, const vmk_range *range);
VMK_API void vmk_heap_walk(vmk_heap *heap, vmk_range_visitor *visit, void *context);

/* ================================================================================================================== */
/* Part 5: objects                                                                                                    */
/* ================================================================================================================== */

/* Memory of any size, from a heap. Small objects (up to 32 KiB) lie in slabs, spans cut into slots of one size: 72
 * sizes, each at most an eighth larger than the one before it (from 128 bytes on; below, multiples of 16). Larger ones
 * are spans of their own. Which slots are taken is told by bits beside the heap, never by anything written into free
 * memory, so that a program that writes where it must not can't mislead the allocator, and memory that is free is not
 * touched.
 *
 * A thread that allocates gets a cache: its own slabs, in which it allocates and frees without a lock or an atomic
 * operation. What another thread frees is marked by one atomic operation, and found again by the cache that keeps the
 * slab. When a thread ends, its slabs go to whoever needs such slots next. Caches come by themselves; a handle to the
 * calling thread's saves looking for it.
 *
 * Crimes that are found in every build, and end the program (see vmk_set_misuse_hook): freeing, resizing or asking for
 * the size of what is no object: freed already, or within an object, or elsewhere, or nothing the heap ever made. An
 * object freed twice by two threads at once may be found out later, by the thread whose slab it is in; one that was
 * allocated again in between is the new owner's, and can't be told. Behind objects above 4 MiB there is an inaccessible
 * page, unless the system has no mapping left for it.
 *
 * With VMK_HEAP_HARDENED slots are chosen at random, freed memory is cleared, kept back for a while and then looked at
 * for having been written to, a word behind each small object and an inaccessible page behind each span show writes
 * past their ends, and objects that another thread frees are looked at by that thread already. docs/benchmarks.md says
 * what it costs.
 *
 * Deferred frees of other threads, kept apart from a page's own: D. Leijen, B. Zorn, L. de Moura, "Mimalloc: Free List
 * Sharding in Action", 2019. Bits beside the heap instead of lists through it: the allocator of Go 1.7. */

/* What larger objects are aligned to, and small ones at least. */
#define VMK_OBJECT_ALIGN 16
#define VMK_OBJECT_SMALL_MAX ((size_t)32 << 10)

/* The heap that functions which are given NULL for a heap use: made at the first call, as vmk_heap_create makes it
 * without options, and never ended. NULL if it can't be had; the next call tries again. */
VMK_API vmk_heap *vmk_heap_default(void);

/* At least `size` bytes, aligned to 16; 0 bytes are an object too. Contents are undefined, and zero for _zeroed.
 * _aligned: the address is a multiple of `align`, a power of two (or NULL is the answer). NULL: there is no memory,
 * after on_exhausted had its chances; or the size is too large for any heap. Owned by the caller until vmk_heap_free,
 * by any thread, or the heap's end. `heap` may be NULL in all of this part: the default heap. Cost: a few nanoseconds
 * mostly; a lock where a slab is full; system calls where the heap grows. */
VMK_API void *vmk_heap_alloc(vmk_heap *heap, size_t size);
VMK_API void *vmk_heap_alloc_zeroed(vmk_heap *heap, size_t size);
VMK_API void *vmk_heap_alloc_aligned(vmk_heap *heap, size_t size, size_t align);

/* Give an object back; NULL does nothing. _sized: `size` is what was asked for; a size that the object can't have had
 * is misuse too. Never fails. errno and GetLastError() stay as they are. */
VMK_API void vmk_heap_free(vmk_heap *heap, void *object);
VMK_API void vmk_heap_free_sized(vmk_heap *heap, void *object, size_t size);

/* Change the size of an object: where it is if that can be, else by a new one, to which the contents are copied (large
 * ones are moved by moving their pages, where the system can). NULL for an object: allocate. The result is aligned to
 * 16. NULL: there is no memory; the object is as it was. Misuse: as vmk_heap_free. */
VMK_API void *vmk_heap_realloc(vmk_heap *heap, void *object, size_t size);

/* How many bytes of an object may be used: no fewer than were asked for. 0 for NULL. Misuse: as vmk_heap_free. */
VMK_API size_t vmk_heap_usable_size(vmk_heap *heap, const void *object);

/* What usable_size will be for an object allocated with so many bytes in a heap that is not hardened (one that realloc
 * has grown may have more); SIZE_MAX if none can be. */
VMK_API size_t vmk_heap_good_size(size_t size);

/* Is this the address of an object of the heap that is in use? Any value may be asked about. Where it is allocated or
 * freed at the same moment, the answer may be that of before or after. Cost: a few loads; in a hardened heap its lock,
 * and in all heaps one where there are huge objects. */
VMK_API bool vmk_heap_owns(vmk_heap *heap, const void *object);

/* Return all that is free to the system, as far as it can be known from the calling thread: empty slabs of its own and
 * of threads that have ended, then idle memory. Answers the bytes. */
VMK_API size_t vmk_heap_trim(vmk_heap *heap);

/* --- handles -------------------------------------------------------------------------------------------------------
 */

/* The calling thread's cache of a heap, made if there is none. To be used by this thread only, until it ends or
 * detaches. NULL: there is no memory. */
typedef struct vmk_cache vmk_cache;
VMK_API vmk_cache *vmk_cache_attach(vmk_heap *heap);

/* End it early; the next allocation makes another. What it kept goes to other threads. A cache is ended by its thread's
 * end as well. Does nothing if the thread has none. */
VMK_API void vmk_cache_detach(vmk_heap *heap);

/* As vmk_heap_alloc and vmk_heap_free. */
VMK_API void *vmk_cache_alloc(vmk_cache *cache, size_t size);
VMK_API void vmk_cache_free(vmk_cache *cache, void *object);

/* --- seeing --------------------------------------------------------------------------------------------------------
 */

#define VMK_CLASSES 73 /* 0: large objects; 1 ... 72: small ones by size */

typedef struct vmk_class_stats {
    size_t size;    /* of a slot; 0 for large objects */
    size_t objects; /* in use */
    size_t bytes;   /* that these take */
    size_t spans;
    size_t span_bytes;
} vmk_class_stats;

typedef struct vmk_object_stats {
    vmk_class_stats sum;
    vmk_class_stats by_class[VMK_CLASSES];
    size_t caches;      /* of threads that live */
    size_t orphans;     /* slabs that no thread keeps */
    size_t cache_bytes; /* memory of all caches */
} vmk_object_stats;

/* Counted by a walk over the heap: for each span a handful of words. Exact if no other thread uses the heap meanwhile.
 * cache: only what this thread's cache keeps; NULL: all. */
VMK_API void vmk_object_stats_now(vmk_heap *heap, const vmk_cache *cache, vmk_object_stats *stats);

/* Call `visit` for every object in use, in the order of addresses, until it answers false. The heap's lock is held:
 * it must not call the heap but for look-ups. Exact if no other thread uses the heap meanwhile. */
typedef bool vmk_object_visitor(void *context, void *object, size_t usable_size);
VMK_API void vmk_object_walk(vmk_heap *heap, vmk_object_visitor *visit, void *context);

/* ================================================================================================================== */
/* Part 6: services, what else systems do with memory                                                                 */
/* ================================================================================================================== */

/* Each of them exists in some system; here it is one interface, the best mechanism of each system behind it, found by
 * trying at run time, and what every system has where that is missing. vmk_caps says which it is. */

/* --- guards ------------------------------------------------------------------------------------------------------- */

/* Make committed pages guards: their contents are lost, and whoever touches them faults, in a child of a fork too (but
 * for pages advised WIPE_ON_FORK, which are a child's to use, guards or not). They stay committed, and charged; those
 * by protection (see below) keep their memory. Guards that are there already stay so.
 *
 * With VMK_CAP_GUARDS (Linux 6.13, MADV_GUARD_INSTALL) they are marks in the page table and there may be any number,
 * anywhere. Elsewhere they are protected pages, two mappings more each; then vmkit stops at as many as take a quarter
 * of the mappings that a process may have, so that the rest of the program goes on. A decommit ends the guards in its
 * range (those by protection count as there until vmk_guard_clear or the end of the region). vmk_protect must not be
 * used on them.
 * VMK_ERR_ARGUMENT: as for vmk_commit, or some page of the range is not committed. VMK_ERR_MAPPINGS: as said, or the
 * system's limit. Nothing has changed then. Size 0 does nothing. Cost: one system call. From any thread. */
VMK_API VMK_MUST_CHECK vmk_status vmk_guard_set(vmk_region *region, size_t offset, size_t size);

/* Make guards memory again, to be read and written; each page is zero, or what it was. Pages that are none stay as they
 * are if they can be written. VMK_ERR_ARGUMENT: as for vmk_guard_set. VMK_ERR_MAPPINGS, VMK_ERR_COMMIT: the system
 * refuses; guards are as before. Size 0 does nothing. Cost: one system call. */
VMK_API VMK_MUST_CHECK vmk_status vmk_guard_clear(vmk_region *region, size_t offset, size_t size);

/* Have memory behind all pages of the range now, as if each had been written, so that the first use of none faults.
 * Contents stay; other threads may use the pages meanwhile. They must be committed, readable and writable, and no
 * guards. The system may take pages away again when memory is short.
 * VMK_ERR_ARGUMENT: as for vmk_commit, or some page is not committed (or, where the system can tell, not writable).
 * VMK_ERR_COMMIT: there is no memory; some pages may have some. Size 0 does nothing.
 * Cost: with VMK_CAP_PREFAULT one system call, else a fault for each page. */
VMK_API VMK_MUST_CHECK vmk_status vmk_prefault(vmk_region *region, size_t offset, size_t size);

/* Which pages of the range are in memory at this moment? *resident: bytes in all. pages[i], unless `pages` is NULL: 1
 * or 0 for the i-th page. Reserved pages never are. In the next moment it may be otherwise. On failure neither has
 * sensible contents.
 * VMK_ERR_ARGUMENT: as for vmk_commit. VMK_ERR_UNSUPPORTED: without VMK_CAP_RESIDENCY. Size 0: 0 bytes.
 * Cost: a system call for every committed run, and for every 1024 pages of it. */
VMK_API VMK_MUST_CHECK vmk_status vmk_residency(const vmk_region *region, size_t offset, size_t size,
                                                unsigned char *pages, size_t *resident);

/* --- huge pages, nodes ------------------------------------------------------------------------------------------ */

/* How many bytes of the range are in huge pages at this moment, transparent or explicit? *huge is written on success
 * alone. Asking for them: VMK_ADVICE_HUGE, NO_HUGE, COLLAPSE, and vmk_reserve_options.huge_size.
 * VMK_ERR_ARGUMENT: as for vmk_commit. VMK_ERR_UNSUPPORTED: the system can't tell; without VMK_CAP_HUGE_REPORT it can
 * for some ranges, as those of regions that are a mapping of their own (Linux before 6.7). Size 0: 0 bytes.
 * Cost, for each committed run: three system calls (Linux 6.7, PAGEMAP_SCAN) and a walk over its page tables; Windows,
 * one for 64 pages. */
VMK_API VMK_MUST_CHECK vmk_status vmk_huge_report(const vmk_region *region, size_t offset, size_t size, size_t *huge);

/* Take memory for the range from NUMA node `node` (from 0 on), or from near it when that has none left. It concerns
 * pages that get memory later: those that have some keep it. Windows decides at reserve alone, see
 * vmk_reserve_options.node.
 * VMK_ERR_ARGUMENT: as for vmk_commit. VMK_ERR_UNSUPPORTED: no such node, or the system doesn't let a program choose.
 * VMK_ERR_MAPPINGS, VMK_ERR_COMMIT: the system can't split its mapping. Size 0: nothing. Cost: one system call. */
VMK_API VMK_MUST_CHECK vmk_status vmk_node_prefer(vmk_region *region, size_t offset, size_t size, unsigned node);

/* The node that the page at an address has its memory from, in *node. It must be committed; it is not made to get some.
 * VMK_ERR_UNSUPPORTED: it has no memory, or the system doesn't tell. Cost: one system call. Any address may be asked
 * for. */
VMK_API VMK_MUST_CHECK vmk_status vmk_node_of(const void *address, unsigned *node);

/* --- batches ---------------------------------------------------------------------------------------------------- */

typedef struct vmk_run {
    size_t offset;
    size_t size;
} vmk_run;

/* vmk_decommit, vmk_discard, vmk_protect of many ranges of a region, in as few system calls as can be: neighbours are
 * one range, and where the system can give back many at once (VMK_CAP_BATCH: Linux 6.13, process_madvise on oneself) it
 * is one or two calls for hundreds, and a decommit of ranges that are committed throughout needs no mappings, however
 * many there are: it marks their pages as guards are marked (see VMK_CAP_GUARDS), and the next commit clears the marks.
 * (Not under strict overcommit or a limit on data, which would go on counting them.)
 *
 * The ranges are in ascending order and don't overlap; size 0 is allowed and nothing. Their array is not changed.
 * Unlike the calls for one range these are not all or nothing: *done (unless NULL) is how many of the first ranges are
 * done, all of them on success. The others stay committed, with the protection that they had; but after a decommit or a
 * discard that failed their contents may be gone, and guards in the first of them. VMK_ERR_ARGUMENT (of protect),
 * misuse (of the others): as for the call for one range, or they are not ascending; found out before anything is done.
 * Other errors: as for the call for one range. */
VMK_API VMK_MUST_CHECK vmk_status vmk_decommit_batch(vmk_region *region, const vmk_run *ranges, size_t count,
                                                     size_t *done);
VMK_API VMK_MUST_CHECK vmk_status vmk_discard_batch(vmk_region *region, const vmk_run *ranges, size_t count,
                                                    size_t *done);
VMK_API VMK_MUST_CHECK vmk_status vmk_protect_batch(vmk_region *region, const vmk_run *ranges, size_t count,
                                                    vmk_access access, size_t *done);

/* --- memory and its views --------------------------------------------------------------------------------------- */

/* Something that can be mapped, by several processes too: a file, or memory without a name that lasts as long as
 * somebody has a handle or a view of it (memfd_create, shm_open; a section of the paging file). In the caller's
 * storage; may be moved by copying. The fields are to be read only. */
typedef struct vmk_memory {
    uint64_t size;    /* bytes; of a file, what it was when this process opened or resized it last */
    uintptr_t handle; /* a file descriptor; on Windows a HANDLE of a section, or of a file: see vmk_memory_handle */
    unsigned flags;   /* VMK_MEMORY_... */
    uintptr_t seal;
} vmk_memory;

enum {
    VMK_MEMORY_WRITE = 1u << 0,  /* open: for writing too. What vmk_memory_init makes is writable always */
    VMK_MEMORY_CREATE = 1u << 1, /* open: make the file, of size 0, if it isn't there */
    VMK_MEMORY_FILE = 1u << 2    /* in vmk_memory.flags: it is a file */
};

/* Memory of so many bytes, rounded up to whole pages, that reads as zero. On Windows its whole size is charged at once.
 * Elsewhere it costs what is used of it, and nothing is promised: where memory runs out, the touch of a page ends the
 * program (SIGBUS, or the system's choice of whom to kill).
 * VMK_ERR_ARGUMENT: size is 0 or overflows. VMK_ERR_COMMIT: refused for lack of memory, or of handles, or over
 * RLIMIT_FSIZE, which counts it as a file.
 * VMK_ERR_UNSUPPORTED: without VMK_CAP_MEMORY. Cost: two or three system calls. */
VMK_API VMK_MUST_CHECK vmk_status vmk_memory_init(vmk_memory *memory, uint64_t size);

/* A file as memory. `path` is UTF-8. flags: VMK_MEMORY_WRITE, VMK_MEMORY_CREATE (which needs WRITE).
 * VMK_ERR_ARGUMENT: path is NULL, or other flags. VMK_ERR_TAKEN: there is no such file, it can't be opened so, or is
 * none that can be mapped; errno or GetLastError() says why. VMK_ERR_COMMIT: out of handles. */
VMK_API VMK_MUST_CHECK vmk_status vmk_memory_open(vmk_memory *memory, const char *path, unsigned flags);

/* What another process passed on, or this one for itself: a file descriptor or a HANDLE that came from
 * vmk_memory_handle of the same bitness's vmkit or another program's memfd_create, shm_open, CreateFileMapping. The
 * memory owns it from now on, if this succeeds, and it isn't inheritable any more. Its size is found out; on Windows
 * all of it is mapped once for that. What has a name on POSIX systems (shm_open, or a file) is a file to us. Flags:
 * VMK_MEMORY_WRITE if it may be written. VMK_ERR_ARGUMENT: it is no handle of memory, is not to be used so, or other
 * flags. VMK_ERR_COMMIT, on Windows: no room to map it. */
VMK_API VMK_MUST_CHECK vmk_status vmk_memory_import(vmk_memory *memory, uintptr_t handle, unsigned flags);

/* A new handle of memory that isn't a file, for another process: given on by inheritance (it is inheritable, and
 * survives exec), by SCM_RIGHTS or by DuplicateHandle. It is the caller's to close. *handle is written on success
 * alone. VMK_ERR_UNSUPPORTED: it is a file (another process can open that by its name). VMK_ERR_COMMIT: out of handles.
 */
VMK_API VMK_MUST_CHECK vmk_status vmk_memory_handle(const vmk_memory *memory, uintptr_t *handle);

/* Make it larger: what is new reads as zero. Views that exist stay as they are, see vmk_view_grow. A size that it has
 * already is no error; if others have made it larger than that, it stays so, and `size` is what it is now. Memory
 * without a name is rounded up to whole pages, and grows on POSIX systems alone. Threads of one process take turns by
 * themselves, processes must agree on who does it. What a file gains is a hole: that the disk is full shows when it is
 * touched first (SIGBUS), or at the flush.
 * VMK_ERR_ARGUMENT: smaller than it is (others may have it mapped: touching what is gone would end them), not writable.
 * VMK_ERR_COMMIT: no room on the disk, or in a limit. VMK_ERR_UNSUPPORTED: as said; or it is sealed. */
VMK_API VMK_MUST_CHECK vmk_status vmk_memory_resize(vmk_memory *memory, uint64_t size);

/* Done with it here. Views of it stay. Misuse: not live, or done with before. */
VMK_API void vmk_memory_fini(vmk_memory *memory);

typedef enum vmk_view_kind {
    VMK_VIEW_READ,   /* to be read */
    VMK_VIEW_SHARED, /* writes go to the memory, and are seen in all its views and by other processes */
    VMK_VIEW_PRIVATE /* copy-on-write: writes are this view's own; whether later writes of others are seen in pages that
                        it has not written is undefined */
} vmk_view_kind;

/* A mapping of memory. In the caller's storage; may be moved by copying. The fields are to be read only. */
typedef struct vmk_view {
    unsigned char *base; /* aligned to the granularity if the offset is */
    size_t size;         /* bytes, as asked for */
    uint64_t offset;     /* in the memory */
    vmk_view_kind kind;
    size_t lead;      /* bytes from the beginning of the mapping to base: offsets need not be aligned */
    size_t snapshots; /* that live, see vmk_snapshot_take */
    bool frozen;      /* one of them shares its pages */
    uintptr_t handle; /* its own, for growing and flushing */
    unsigned flags;
    uintptr_t seal;
} vmk_view;

/* Map [offset, offset + size) of memory; any offset and size inside it; size 0: all from the offset on. The view needs
 * its memory no longer: that may be done with. Whoever makes a file shorter takes away what is mapped: touching it then
 * faults (SIGBUS).
 * VMK_ERR_ARGUMENT: the range leaves the memory, or is empty, or doesn't fit into an address space; SHARED of memory
 * that isn't writable; no such kind. VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS, VMK_ERR_COMMIT (also: out of handles).
 * VMK_ERR_UNSUPPORTED: the system forbids it (a seal, a file system without mappings). Cost: two system calls, four for
 * a file on Windows; a handle. */
VMK_API VMK_MUST_CHECK vmk_status vmk_view_map(vmk_view *view, const vmk_memory *memory, uint64_t offset, size_t size,
                                               vmk_view_kind kind);

/* Make the view larger, to `size` bytes from the same offset, after its memory has grown; a size that it has already
 * does nothing. Its base may change, and nobody may use it meanwhile. On failure it is as it was.
 * VMK_ERR_ARGUMENT: smaller, or beyond the memory, which must be the one it was mapped from. VMK_ERR_UNSUPPORTED: it is
 * PRIVATE, where that can't be done (Windows), or has a snapshot. Others as for vmk_view_map. */
VMK_API VMK_MUST_CHECK vmk_status vmk_view_grow(vmk_view *view, const vmk_memory *memory, size_t size);

/* Have what was written through a SHARED view of a file reach the disk: when it returns, pages of [offset, offset +
 * size) do (any range in the view; size 0: all from the offset on). Of memory that is no file, and of other kinds: done
 * at once.
 * VMK_ERR_ARGUMENT: the range leaves the view. VMK_ERR_COMMIT: the disk is full, or fails; errno or GetLastError().
 * Cost: that of the disk. */
VMK_API VMK_MUST_CHECK vmk_status vmk_view_flush(vmk_view *view, size_t offset, size_t size);

/* Misuse: not live, unmapped before, or it has snapshots. */
VMK_API void vmk_view_unmap(vmk_view *view);

/* --- snapshots -------------------------------------------------------------------------------------------------- */

/* The contents of a view at one moment, to be read at leisure while the program goes on writing to the view. */
typedef struct vmk_snapshot {
    const unsigned char *base; /* `size` bytes, as they were */
    size_t size;
    bool shared; /* pages are shared until they are written; else they were copied */
    struct vmk_view *of;
    uintptr_t owner;
    uintptr_t seal;
} vmk_snapshot;

/* Take a snapshot of a SHARED view of memory that is no file, of which this is the only view and this the only process
 * that uses it: from now on the pages belong to the snapshot, and the view (whose address stays) gets its own copy of
 * each that it writes. When the snapshot is dropped these are written back, in time that grows with their number.
 * While one is alive, and where the system can't (without VMK_CAP_SNAPSHOT), another is taken by copying it all.
 * Nobody may write to the view during the call, nor use it at all during vmk_snapshot_drop; the view must not be moved
 * in between, nor the process fork a child that uses it.
 * VMK_ERR_ARGUMENT: another kind of view. VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS: the view is as it
 * was. Cost: three system calls and the unmapping of the view's pages, not the copying of their contents (though each
 * page that is used again costs a small fault): docs/benchmarks.md has figures. */
VMK_API VMK_MUST_CHECK vmk_status vmk_snapshot_take(vmk_snapshot *snapshot, vmk_view *view);

/* The snapshot ends. If the pages can't be written back (VMK_ERR_COMMIT: no memory left; VMK_ERR_MAPPINGS) it stays
 * alive, and nothing that the view has written is lost: try again; but what is read in the snapshot may by then be what
 * the view has. Misuse: not live, or dropped before. */
VMK_API VMK_MUST_CHECK vmk_status vmk_snapshot_drop(vmk_snapshot *snapshot);

/* --- ring buffers ----------------------------------------------------------------------------------------------- */

/* Memory that is mapped twice in a row: base[i] and base[i + size] are the same byte, for i < size. So whatever fits in
 * the buffer lies in one piece, wherever it begins, and neither reader nor writer ever splits it. (An old trick: the
 * "magic" or "mirrored" ring buffer.) In the caller's storage; may be moved by copying. */
typedef struct vmk_ring {
    unsigned char *base; /* aligned to the granularity; 2 * size bytes */
    size_t size;         /* as rounded */
    uintptr_t seal;
} vmk_ring;

/* A ring of at least `size` bytes, rounded up to a multiple of the granularity (not to a power of two). It reads as
 * zero. Safe beside other threads that map memory: with VMK_CAP_RING the place is never free for others, else it is
 * tried again when another was faster (Windows before 10 and Wine). VMK_ERR_ARGUMENT: size is 0 or overflows.
 * VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS. VMK_ERR_TAKEN: others were faster each time of many.
 * VMK_ERR_UNSUPPORTED: without VMK_CAP_MEMORY. Cost: some six system calls; no handle is kept. After a fork the child
 * shares it with its parent. */
VMK_API VMK_MUST_CHECK vmk_status vmk_ring_init(vmk_ring *ring, size_t size);

/* Misuse: not live, or done with before. */
VMK_API void vmk_ring_fini(vmk_ring *ring);

/* --- executable memory ------------------------------------------------------------------------------------------ */

/* Memory for machine code that a program makes, of which no page can be written and executed at the same address, ever.
 * In the caller's storage; may be moved by copying. The fields are to be read only. */
typedef struct vmk_code {
    const unsigned char *base; /* where it runs; aligned to the granularity */
    unsigned char *write;      /* where it is written: the same address if it is flipped, another if mapped twice */
    size_t size;               /* whole pages */
    bool twice;
    uintptr_t seal;
} vmk_code;

enum {
    VMK_CODE_FLIP = 1u << 0, /* one mapping, whose pages are either writable or executable: while some are being written
                                nobody can run what is in them */
    VMK_CODE_TWICE = 1u << 1 /* two mappings of the same memory: code runs while other parts of its page are written */
};

/* Make room for code: `size` bytes rounded up to whole pages, which can't be written yet. flags: one of VMK_CODE_...,
 * or 0: mapped twice if the system can, else flipped. That pages may become executable has been tried when it succeeds.
 * Flipped, they can't be executed before their first end; mapped twice, they can from now on, and are zero: some
 * systems allow executable pages only to whoever asks for them at once.
 *
 * After a fork flipped code is each process's own. Code mapped twice stays one for both, and what either writes the
 * other runs: a child that writes code makes a vmk_code of its own.
 * VMK_ERR_ARGUMENT: size is 0 or overflows, other flags. VMK_ERR_UNSUPPORTED: the system forbids it (SELinux, PaX, a
 * hardened run-time without an entitlement), or can't do it that way. VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE,
 * VMK_ERR_MAPPINGS. Cost: some six system calls. */
VMK_API VMK_MUST_CHECK vmk_status vmk_code_init(vmk_code *code, size_t size, unsigned flags);

/* Begin to write in [offset, offset + size), any range: code->write can be written there, and in the rest of the pages
 * that it touches; flipped, none of these can be executed until the end. End: they can be executed, not written, and
 * all processors see what was written (the instruction caches are flushed: no barrier is needed besides the one by
 * which another thread learns of the code). Of code mapped twice all stays executable, and what has been begun once
 * stays writable, so ranges may be begun and ended in any order by any threads. Flipped, the end of a range closes all
 * pages that it touches: ranges that are open at the same time, in one thread or in several, must share no page.
 * VMK_ERR_ARGUMENT: the range leaves the code. VMK_ERR_UNSUPPORTED: forbidden by now. VMK_ERR_MAPPINGS, VMK_ERR_COMMIT.
 * Pages are as they were then: closed, or, of end, open (a begin may have left some executable that never were, and are
 * zero). Size 0: nothing. Cost: one system call each; mapped twice, an end needs none. */
VMK_API VMK_MUST_CHECK vmk_status vmk_code_begin(vmk_code *code, size_t offset, size_t size);
VMK_API VMK_MUST_CHECK vmk_status vmk_code_end(vmk_code *code, size_t offset, size_t size);

/* Nobody may be running in it. Misuse: not live, or done with before. */
VMK_API void vmk_code_fini(vmk_code *code);

/* --- memory pressure -------------------------------------------------------------------------------------------- */

/* The limits that a process can run into. */
typedef enum vmk_bound {
    VMK_BOUND_ADDRESS_SPACE, /* RLIMIT_AS, or the end of the address space of a 32-bit process */
    VMK_BOUND_DATA,          /* RLIMIT_DATA */
    VMK_BOUND_MEMORY,        /* cgroup v1 and v2: the tightest up the tree, caches that can be dropped not counted; job
                                object */
    VMK_BOUND_COMMIT,        /* strict overcommit; the commit limit of Windows */
    VMK_BOUND_PHYSICAL,      /* what the machine can give without swapping */
    VMK_BOUNDS
} vmk_bound;

/* What is left within each, in bytes, and the bound itself; VMK_UNLIMITED where there is none or it can't be read. */
typedef struct vmk_room {
    uint64_t left[VMK_BOUNDS];
    uint64_t bound[VMK_BOUNDS];
} vmk_room;

/* Read anew at each call: some ten file reads on Linux, a few calls on Windows. Never fails. */
VMK_API void vmk_room_now(vmk_room *room);

typedef struct vmk_pressure_event {
    vmk_bound bound;
    bool low;      /* less than the mark is left, or the system says so; false: enough again */
    bool told;     /* by the system (an event of the cgroup, a low-memory notification), not found by looking */
    uint64_t left; /* bytes, as in vmk_room */
} vmk_pressure_event;

/* Called in the thread of vmk_pressure_start, with no lock held; it may call all of vmkit but vmk_pressure_stop. */
typedef void vmk_pressure_callback(const vmk_pressure_event *event, void *context);

typedef struct vmk_pressure_options {
    vmk_pressure_callback *callback;
    void *context;
    uint64_t low; /* the mark, in bytes; 0: a sixteenth of each bound. Enough again is twice as much, or half way
                     from the mark to the bound where that is less */
    unsigned milliseconds; /* between looks where the system doesn't tell; 0: 1000 */
} vmk_pressure_options;

/* In the caller's storage, which must stay where it is until the stop. */
typedef struct vmk_pressure {
    vmk_pressure_options options;
    uintptr_t state[16];
    uintptr_t seal;
} vmk_pressure;

/* Call back whenever less than the mark is left within a bound, once for each time that this begins, and once when it
 * is over; bounds that are low already are told of at once. What the system tells of is low even if more than the mark
 * is left, until it has been silent for as long as between two looks. A thread of its own (64 KiB of stack, signals
 * blocked) sleeps until the system tells it (memory.events and memory.pressure of cgroup v2, or /proc/pressure/memory;
 * memory.pressure_level of v1; Windows's low-memory notification), and looks every so many milliseconds, for most
 * bounds have no events. VMK_ERR_ARGUMENT: no callback. VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE: no room for a thread, or
 * out of handles. After a fork the child has no such thread; it may call stop, and start anew. */
VMK_API VMK_MUST_CHECK vmk_status vmk_pressure_start(vmk_pressure *pressure, const vmk_pressure_options *options);

/* When it returns, the callback is not running and won't be called. Misuse: not started, or stopped before; called by
 * the callback itself, which it would wait for. */
VMK_API void vmk_pressure_stop(vmk_pressure *pressure);

/* --- write-watch ------------------------------------------------------------------------------------------------ */

/* Which pages of a range were written since last asked? What is written by any thread at any time is reported, by the
 * collect that is going on or by the next: nothing is lost, and nothing has to stop. A page may be reported that was
 * not written (its neighbours were; it was committed, decommitted or discarded; the process has forked). */
typedef enum vmk_watch_kind {
    VMK_WATCH_BEST,        /* the first of the following that can be had */
    VMK_WATCH_USERFAULT,   /* Linux 6.7: userfaultfd's asynchronous write-protection, and PAGEMAP_SCAN */
    VMK_WATCH_WRITE_WATCH, /* Windows: GetWriteWatch; of regions reserved with VMK_RESERVE_WATCH */
    VMK_WATCH_PROTECT,     /* everywhere: write-protected blocks of 64 KiB, and a handler of faults */
    VMK_WATCH_SOFT_DIRTY, /* Linux: bits of /proc/self/pagemap, which are cleared for the whole process. Never the best:
                             what is written during a collect may be lost, so the caller stops who writes */
    VMK_WATCH_KINDS
} vmk_watch_kind;

enum {
    /* start: writes by the system on the program's behalf, such as read(2) into the range, must be seen too. Not so
     * with PROTECT: the system doesn't write to what is protected (EFAULT). */
    VMK_WATCH_SYSTEM = 1u << 0
};

typedef struct vmk_watch_options {
    vmk_watch_kind kind;
    unsigned flags; /* VMK_WATCH_SYSTEM */
} vmk_watch_options;

/* In the caller's storage, which must stay where it is until the stop, and outside what is watched. The fields are to
 * be read only. */
typedef struct vmk_watch {
    unsigned char *base;
    size_t size;
    vmk_watch_kind kind; /* which it is */
    size_t unit;         /* bytes: what is written at once is reported at once; a page, or 64 KiB */
    vmk_region *region;  /* NULL: static data */
    struct vmki_watch *state;
    uintptr_t seal;
} vmk_watch;

/* Watch [offset, offset + size) of a region, committed or not; from now on: what was written before is not reported.
 * options NULL: the best. Ranges that are watched don't overlap; a region may hold several. While it lasts the region
 * must not be copied to another place, nor end (misuse).
 *
 * With VMK_WATCH_PROTECT: the program's own handler of SIGSEGV (and SIGBUS), if there is one, is called for all faults
 * that are not the watch's; one that is installed later must call vmk_watch_fault first. The signal must not be blocked
 * where a thread writes to the range, and threads whose stack is in it need an alternate one for signals. vmk_protect,
 * vmk_guard_set and other changes of protection must not be used on the range: pages for which they are all the same
 * cease to be watched until they are writable again. No more than a quarter of the mappings that a process may have are
 * taken: beyond that, ever larger pieces are given free and reported.
 *
 * In a child of a fork the watch goes on: all of it is reported once, by the first collect there.
 * VMK_ERR_ARGUMENT: as for vmk_commit, size 0, no such kind or flag, or some of it is watched already.
 * VMK_ERR_UNSUPPORTED: that kind can't be had here, or not for this region (of explicit huge pages, for one).
 * VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS: no room for its records. Cost: some 0.1 us a committed page
 * on Linux; docs/benchmarks.md. */
VMK_API VMK_MUST_CHECK vmk_status vmk_watch_start(vmk_watch *watch, vmk_region *region, size_t offset, size_t size,
                                                  const vmk_watch_options *options);

/* The same for memory that is in no region: whole pages of .data or .bss of the program or a library, or of a mapping
 * of the program's own, private and writable. VMK_ERR_ARGUMENT: not whole pages. VMK_ERR_UNSUPPORTED: also where a page
 * of it is not writable. */
VMK_API VMK_MUST_CHECK vmk_status vmk_watch_start_static(vmk_watch *watch, void *base, size_t size,
                                                         const vmk_watch_options *options);

/* What was written in [offset, offset + size) of the watched range since it was last collected, as runs of pages in
 * ascending order, at most `capacity`, their offsets from the beginning of the watched range; and watch these pages
 * anew, each in the same moment. *count: runs found. *done: bytes from `offset` on that have been looked at: less than
 * size where there were more runs, and then the rest is collected by another call that goes on there. Pages that are
 * reserved only are not reported, and not looked at. Threads: collects of one watch come one at a time; the program
 * writes as it likes.
 * VMK_ERR_ARGUMENT: not whole pages of it; capacity 0. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS, VMK_ERR_UNSUPPORTED: the
 * system refuses to watch anew (the last: in a child, or a sandbox, that may not do what its parent did); *count and
 * *done say what has been collected all the same; the rest is still to be collected. Size 0: nothing.
 * Cost: a system call for each committed run of the range, and for some hundred runs that are reported. */
VMK_API VMK_MUST_CHECK vmk_status vmk_watch_collect(vmk_watch *watch, size_t offset, size_t size, vmk_run *runs,
                                                    size_t capacity, size_t *count, size_t *done);

/* The same into a bitmap: bit i % 64 of bits[i / 64] is set if the i-th page from `offset` on was written. Bits are set
 * and never cleared, so several collects can be added up. *written (unless NULL): pages reported by this call. On
 * failure the bits of what has been collected are set. */
VMK_API VMK_MUST_CHECK vmk_status vmk_watch_collect_bits(vmk_watch *watch, size_t offset, size_t size, uint64_t *bits,
                                                         size_t *written);

/* For a program's own handler of faults that was installed after a watch of the kind PROTECT: was this a write to a
 * page that is watched? If so it may be tried again: return from the handler. Async-signal-safe. */
VMK_API bool vmk_watch_fault(const void *address);

/* All can be written again as before. Misuse: not started, or stopped before. */
VMK_API void vmk_watch_stop(vmk_watch *watch);

/* ================================================================================================================== */
/* Part 7: gc, collected heaps                                                                                        */
/* ================================================================================================================== */

/* A collected heap finds out by itself which of its objects can still be reached, and uses the memory of the others
 * again. Objects never move. What can be reached is told from roots: the stacks and registers of threads, thread-local
 * storage, static data of the program and of every library, and what the program names; and from what the objects hold.
 *
 *   leaf           an object without pointers: never looked into
 *   conservative   every aligned word that could be the address of an object is taken for one
 *   typed          a map says which words are pointers, or a function of the program's shows them
 *
 * A pointer to the inside of an object, or to the end of it, keeps the object alive as one to its start does. For the
 * end that holds where the pointer is on a stack or in a register; everywhere with VMK_GC_PAST_END. A
 * pointer that is disguised, or is kept where nobody looks (memory of malloc or of a region, files, another process),
 * keeps nothing alive.
 *
 * To collect, all threads that the collector knows are stopped, wherever they are, even with locks held; all that can
 * be reached is marked by several threads at once; then the threads go on, and the rest is swept, bit by bit, as memory
 * is needed. Memory is always zero when it is handed out.
 *
 * Threads. A thread registers itself before it touches objects (vmk_gc_thread_register), and a registered thread may
 * use any collected heap. Every function may be called by every registered thread at the same time; callbacks say what
 * they may do. On POSIX systems threads are stopped by a signal (a real-time signal that nobody uses), which a
 * registered thread must not block for long: a collection waits for it.
 *
 * H.-J. Boehm, M. Weiser, "Garbage collection in an uncooperative environment", 1988. Marks in a bitmap beside the heap
 * and lazy sweeping: Zorn, 1990, and Boehm's collector. Prefetching through a ring: C.-Y. Cher, A. Hosking,
 * T. Vijaykumar, "Software prefetching for mark-sweep garbage collection", 2004. Span-wise marking: M. Knyszek,
 * A. Clements, "Green Tea", 2025. Ephemerons: B. Hayes, 1997. */

typedef struct vmk_gc vmk_gc;

enum {
    VMK_GC_NO_STACKS = 1u << 0,    /* stacks, registers and thread-local storage are no roots: the program names all
                                      that is. It implies VMK_GC_COOPERATIVE: what a thread has just allocated is safe
                                      until its next safe point */
    VMK_GC_NO_STATIC = 1u << 1,    /* static data is no root */
    VMK_GC_COOPERATIVE = 1u << 2,  /* threads stop at safe points only: vmk_gc_safepoint, and every allocation */
    VMK_GC_AUTO_THREADS = 1u << 3, /* a thread that allocates without being registered is registered by that, until its
                                      end. It must have received no object before that from others */
    VMK_GC_PAST_END = 1u << 4, /* also words of conservative objects, of static data and of added ranges that are the
                                  end of an object keep it alive; and so do those that begin the object behind it */
    VMK_GC_FINALIZER_THREAD = 1u << 5, /* a thread of the library's runs finalizers; else vmk_gc_finalize does. It is
                                          a registered one with a stack of 64 KiB and the program's signals blocked:
                                          for more than that, call vmk_gc_finalize in a thread of the program's.
                                          Misuse: destroying the heap in a finalizer that it runs */
    VMK_GC_LEAKS = 1u << 6,  /* for programs that free by hand: what is collected without having been freed is told to
                                on_leak */
    VMK_GC_SITES = 1u << 7,  /* note for every object by which call it was allocated. Costs a table entry for each */
    VMK_GC_STRESS = 1u << 8, /* for tests: collect at every allocation */
    VMK_GC_VERIFY = 1u << 9  /* for tests: check the whole heap after every cycle; what is wrong is misuse */
};

/* When to collect, and how much memory there may be; all zero is the default. */
typedef struct vmk_gc_pace {
    unsigned goal_percent; /* collect when so much of what was live after the last cycle has been allocated; 0: 100, and
                              as much again, up to 64 MiB more */
    size_t min_heap;       /* bytes; no cycle before so many have been allocated since the last; 0: 4 MiB */
    size_t soft_limit; /* bytes in use at which to collect earlier than the goal says. Never so often that collecting
                          takes more than about half of the time: then the heap grows past it. 0: none */
    size_t hard_limit; /* bytes that spans may take; beyond it allocation collects, then fails. 0: none */
} vmk_gc_pace;

/* X(name, text) */
#define VMK_GC_CAUSE_TABLE(X)                                                                                          \
    X(ASKED, "asked for")                                                                                              \
    X(GOAL, "goal reached")                                                                                            \
    X(SOFT_LIMIT, "soft limit")                                                                                        \
    X(EXHAUSTED, "no memory")                                                                                          \
    X(STRESS, "every allocation")

#define VMK_GC_CAUSE_ENUM(name, text) VMK_GC_CAUSE_##name,
typedef enum vmk_gc_cause { VMK_GC_CAUSE_TABLE(VMK_GC_CAUSE_ENUM) VMK_GC_CAUSE_COUNT } vmk_gc_cause;
#undef VMK_GC_CAUSE_ENUM

/* A cycle, when it is over. Times are in nanoseconds. */
typedef struct vmk_gc_event {
    uint64_t number; /* 1 ... */
    vmk_gc_cause cause;
    unsigned markers;    /* threads that marked */
    unsigned threads;    /* that were stopped, without the collecting one */
    uint64_t stop_time;  /* from the first request until all stood */
    uint64_t mark_time;  /* roots and objects, */
    uint64_t end_time;   /* finalizers, weak references, ephemerons, and what else is done before threads go on */
    uint64_t pause;      /* all of it: from the first request until threads went on */
    uint64_t sweep_time; /* of the cycle before: what was swept lazily since, and at the start of this one */
    size_t before;       /* bytes of objects when it began, */
    size_t live_bytes;   /* and of those that were marked */
    size_t live_objects;
    size_t heap_size;    /* bytes of spans in use when it ended */
    size_t next;         /* bytes to be allocated until the next one */
    size_t finalizable;  /* objects that wait for their finalizers now */
    size_t weak_cleared; /* weak references, links and ephemerons, of those that were themselves reached */
    size_t rescans;      /* times that marking went over the heap again because memory for it ran out */
} vmk_gc_event;

typedef struct vmk_gc_options {
    unsigned flags;   /* VMK_GC_... */
    unsigned markers; /* threads that mark, the collecting one included; 0: one for each processor, 8 at most */
    const vmk_heap_options *heap; /* of the heap below; NULL: the default. limit, on_exhausted are not used */
    vmk_gc_pace pace;
    /* Called after each cycle, by the thread that collected, when all threads go on again. It may do anything but
     * destroy the heap; what it allocates does not collect. */
    void (*on_event)(void *context, const vmk_gc_event *event);
    void *on_event_context;
    /* Memory can't be had, though a collection was tried: `size` bytes, because of `why`. It may let go of objects and
     * free some, and answer true to have it tried again. Called without a lock; it must not allocate from this heap. */
    bool (*on_exhausted)(void *context, vmk_gc *gc, size_t size, vmk_status why);
    void *on_exhausted_context;
    /* See VMK_GC_LEAKS; `site` as in vmk_gc_object. Called after the cycle as on_event is; the object is gone by then.
     * If there was no memory to note them all, the others are told in one last call, with NULL for an object: `size` is
     * their sum. */
    void (*on_leak)(void *context, const void *object, size_t size, const void *site);
    void *on_leak_context;
} vmk_gc_options;

/* Make a collected heap; options may be NULL. The calling thread is registered if it isn't.
 * VMK_ERR_ARGUMENT: unknown flags; heap options as vmk_heap_create. VMK_ERR_LIMIT: there are 64 already.
 * VMK_ERR_UNSUPPORTED: threads can't be stopped here, and the flags don't say COOPERATIVE. Others as vmk_heap_create.
 */
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_create(vmk_gc **gc, const vmk_gc_options *options);

/* End it: all its memory goes back; finalizers that have not run don't. No other thread may be using it. Misuse: not a
 * live collected heap (in all functions of this part). */
VMK_API void vmk_gc_destroy(vmk_gc *gc);

/* The heap below, for its statistics and walks. Allocating from it is the caller's own affair: that is never scanned.
 */
VMK_API vmk_heap *vmk_gc_heap(vmk_gc *gc);

/* --- allocating --------------------------------------------------------------------------------------------------- */

/* An object of at least `size` bytes (0 is taken for 1), all zero, aligned to 16: conservative, or a leaf. NULL: no
 * memory, even after a collection and on_exhausted; or the size is larger than any heap. Misuse: the thread is not
 * registered (without AUTO_THREADS). A safe point. Cost: a few nanoseconds mostly; now and
 * then some sweeping, a span, or a collection. errno and GetLastError() are kept. */
VMK_API void *vmk_gc_alloc(vmk_gc *gc, size_t size);
VMK_API void *vmk_gc_alloc_leaf(vmk_gc *gc, size_t size);

/* What an object shows its pointers to. */
typedef struct vmk_gc_visitor vmk_gc_visitor;

/* Show all pointers of a typed object of `size` usable bytes, by vmk_gc_visit: called while threads are stopped, by any
 * thread, several at once for different objects, for objects that were allocated and never written too (all zero). It
 * must take no lock, allocate nothing (neither from here nor from the C library or the system), and change nothing; it
 * may have no more than 32 KiB of stack. */
typedef void vmk_gc_trace(void *context, void *object, size_t size, vmk_gc_visitor *visitor);

/* Keep alive what a pointer points to (start, inside; NULL and what is no object do nothing); or what the aligned words
 * of a range may point to. */
VMK_API void vmk_gc_visit(vmk_gc_visitor *visitor, const void *pointer);
VMK_API void vmk_gc_visit_range(vmk_gc_visitor *visitor, const void *base, size_t size);

/* How the elements of typed objects look. */
typedef struct vmk_gc_layout {
    const char *name; /* for dumps; copied, up to 31 bytes. May be NULL */
    size_t size;      /* bytes of an element: a multiple of a pointer's size, 1 MiB at most */
    const size_t
        *pointers; /* bit i % (8 x sizeof(size_t)) of word i / that: the element's i-th word is a pointer. Copied */
    vmk_gc_trace *trace; /* instead of `pointers`, for the whole object. Both NULL: no pointers */
    void *trace_context;
} vmk_gc_layout;

/* Make a type; it lives as long as the heap. VMK_ERR_ARGUMENT: size is 0, no multiple, or too large; both ways given.
 * VMK_ERR_LIMIT: there are 4,000 already. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: no memory for it. */
typedef struct vmk_gc_type vmk_gc_type;
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_type_create(vmk_gc *gc, const vmk_gc_layout *layout, vmk_gc_type **type);

/* `count` elements of a type (0 is taken for 1). As vmk_gc_alloc. Pointers in it are exact: NULL, or to an object's
 * start or inside; anything else is passed over. */
VMK_API void *vmk_gc_alloc_typed(vmk_gc *gc, vmk_gc_type *type, size_t count);

/* Give an object back at once: it must be known that nobody uses it any more. A finalizer, weak references and links of
 * it end as when it is collected, but the finalizer does not run. NULL does nothing. Misuse: not an object of this
 * heap, its inside, or free already. */
VMK_API void vmk_gc_free(vmk_gc *gc, void *object);

/* As vmk_gc_alloc with another size, contents kept as far as they go, the rest zero, of the same kind (typed ones: the
 * size must be of whole elements); the old object is left to be collected unless it can stay where it is. NULL for an
 * object: vmk_gc_alloc. NULL: no memory, the object is as it was. */
VMK_API void *vmk_gc_realloc(vmk_gc *gc, void *object, size_t size);

/* Keep an object alive whatever else happens, until unpinned as often. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: no memory to
 * note it. Misuse: not an object; unpin: not pinned. _alloc_pinned: a conservative object that is. */
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_pin(vmk_gc *gc, void *object);
VMK_API void vmk_gc_unpin(vmk_gc *gc, void *object);
VMK_API void *vmk_gc_alloc_pinned(vmk_gc *gc, size_t size);

/* The object that an address is in, or NULL: any value may be asked about. Its usable bytes: 0 for NULL; misuse if it
 * isn't the start of an object. */
VMK_API void *vmk_gc_base(vmk_gc *gc, const void *address);
VMK_API size_t vmk_gc_usable_size(vmk_gc *gc, const void *object);

/* --- roots -------------------------------------------------------------------------------------------------------- */

/* Memory that may hold pointers: every aligned word of it that could be one (_roots_), or exactly an array of `count`
 * pointers (_slots_). Until removed by the same base. VMK_ERR_ARGUMENT: base isn't aligned to a pointer, or NULL; no
 * size. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: no memory to note it. Misuse: removing what was not added. The memory must
 * stay readable while it is a root. */
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_roots_add(vmk_gc *gc, const void *base, size_t size);
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_slots_add(vmk_gc *gc, void *const *slots, size_t count);
VMK_API void vmk_gc_roots_remove(vmk_gc *gc, const void *base);

/* A function that shows roots when it is asked: an interpreter's own stack, say. Rules as for vmk_gc_trace, object is
 * NULL. Removed by the same two. */
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_tracer_add(vmk_gc *gc, vmk_gc_trace *trace, void *context);
VMK_API void vmk_gc_tracer_remove(vmk_gc *gc, vmk_gc_trace *trace, void *context);

/* --- threads ------------------------------------------------------------------------------------------------------ */

/* Make the calling thread known to the collector, for all collected heaps; it must be before the thread holds objects.
 * It ends with the thread, or by _unregister. Registering counts: what is registered twice must be unregistered twice.
 * Not to be called by what the loader calls (Windows' DllMain), which must not allocate here either: its lock is taken
 * after the collector's.
 * VMK_ERR_COMMIT, VMK_ERR_MAPPINGS, VMK_ERR_UNSUPPORTED: no memory, or the system does not tell where the stack is.
 * Misuse: unregistering a thread that isn't registered. */
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_thread_register(void);
VMK_API void vmk_gc_thread_unregister(void);

/* A point at which a thread may be stopped: where heaps are cooperative, threads that run long without allocating call
 * it now and then. Cost: a load and a branch. Unregistered threads may call it. */
VMK_API void vmk_gc_safepoint(void);

/* Between these two the thread touches no objects, nor anything that refers to them, and need not be stopped: for long
 * system calls, and where the signal would disturb. leave waits while a collection is going on. They don't nest.
 * Misuse: in the wrong order; an unregistered thread. */
VMK_API void vmk_gc_blocking_enter(void);
VMK_API void vmk_gc_blocking_leave(void);

/* Stacks other than the system's, of coroutines or fibers. A registered stack is a root as a whole while nobody runs on
 * it, from where it was left. A thread calls _switch immediately before it changes from the stack that it is on to
 * another, `to` (NULL: the thread's own). `low` is the lowest address. VMK_ERR_ARGUMENT: no size, or not aligned to a
 * pointer. VMK_ERR_COMMIT, VMK_ERR_MAPPINGS. Misuse: unregistering a stack that a thread runs on. The registration is
 * process-wide, and no root for heaps with NO_STACKS. */
typedef struct vmk_gc_stack vmk_gc_stack;
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_stack_register(vmk_gc_stack **stack, void *low, size_t size);
VMK_API void vmk_gc_stack_unregister(vmk_gc_stack *stack);
VMK_API void vmk_gc_stack_switch(vmk_gc_stack *to);

/* --- collecting --------------------------------------------------------------------------------------------------- */

/* A whole cycle, now: what can't be reached when it is called is free when it returns (lazily swept, but counted so;
 * what waits for a finalizer is not). Any thread, registered or not, but not a callback of a cycle (misuse). */
VMK_API void vmk_gc_collect(vmk_gc *gc);

/* No cycle of its own accord, until enabled as often; vmk_gc_collect works, and so does collecting rather than failing.
 */
VMK_API void vmk_gc_disable(vmk_gc *gc);
VMK_API void vmk_gc_enable(vmk_gc *gc);

/* Change the pace; it holds at once. */
VMK_API void vmk_gc_pace_set(vmk_gc *gc, const vmk_gc_pace *pace);

/* Sweep all that is left to be swept, and return what is free to the system; answers the bytes. (What is more than the
 * goal needs goes back by itself after each cycle.) */
VMK_API size_t vmk_gc_trim(vmk_gc *gc);

/* --- finalizers, weak references, links, ephemerons ----------------------------------------------------------------
 */

/* Have `finalizer` called some time after nothing but finalizers can reach the object any more; once. NULL takes it
 * away. It is called by vmk_gc_finalize or by the heap's thread, never within another call, without a lock held, and
 * may do anything: store the object somewhere (it lives on), and set a finalizer again. The object and what it reaches
 * are intact when it is called. Without a flag the order among unreachable objects is open. VMK_GC_ORDERED: not before
 * all finalizers of objects that reach this one have run; so objects that reach themselves never get there.
 * One that is set replaces the one before, also one that waits. The context keeps nothing alive.
 * VMK_ERR_ADDRESS_SPACE, VMK_ERR_COMMIT, VMK_ERR_MAPPINGS: no memory to note it, or for the thread. VMK_ERR_ARGUMENT:
 * unknown flags. Misuse: not the start of an object. */
typedef void vmk_gc_finalizer(void *context, void *object);
enum { VMK_GC_ORDERED = 1u << 0 };
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_finalizer_set(vmk_gc *gc, void *object, vmk_gc_finalizer *finalizer,
                                                       void *context, unsigned flags);

/* Run up to `most` finalizers that wait; answers how many. Several threads may do so at once; each runs once. */
VMK_API size_t vmk_gc_finalize(vmk_gc *gc, size_t most);

/* SHORT: cleared when the object can no longer be reached, before its finalizer runs: whoever gets it from there has an
 * object that was never given up. LONG: cleared when the object's memory is about to be used again, after its finalizer
 * has run without reviving it. */
typedef enum vmk_gc_weak_kind { VMK_GC_SHORT, VMK_GC_LONG } vmk_gc_weak_kind;

/* A reference that keeps nothing alive; itself an object, of the collector's. get: the object, or NULL once it was
 * cleared. NULL from new: no memory. Misuse: the object is none. */
typedef struct vmk_gc_weak vmk_gc_weak;
VMK_API vmk_gc_weak *vmk_gc_weak_new(vmk_gc *gc, void *object, vmk_gc_weak_kind kind);
VMK_API void *vmk_gc_weak_get(vmk_gc *gc, const vmk_gc_weak *weak);

/* The same in the program's own memory, or in any object: *link becomes the hidden address of the object (no collector
 * takes it for one), and 0 when the object is gone; then it is no link any more. It may lie in an object of this heap,
 * with which it ends, or in memory that is no collected heap's. add on what is a link already changes it. remove says
 * whether it was one, and leaves *link alone. get: the object or NULL. VMK_ERR_ADDRESS_SPACE, VMK_ERR_COMMIT,
 * VMK_ERR_MAPPINGS: no memory to note it. VMK_ERR_ARGUMENT: link isn't aligned, or NULL. Misuse: not an object. */
VMK_API VMK_MUST_CHECK vmk_status vmk_gc_link_add(vmk_gc *gc, uintptr_t *link, void *object, vmk_gc_weak_kind kind);
VMK_API bool vmk_gc_link_remove(vmk_gc *gc, uintptr_t *link);
VMK_API void *vmk_gc_link_get(vmk_gc *gc, const uintptr_t *link);

/* A pair whose value is kept alive by it only as long as the key can be reached otherwise: neither key nor value are
 * kept alive if only the value, or other such pairs, reach the key. Cleared as a SHORT reference to the key is. Itself
 * an object, of the collector's. The value may be NULL, or point inside an object. key, value: NULL once cleared; set
 * does nothing then. NULL from new: no memory; misuse: the key is not an object. All pairs together cost time linear in
 * their number and in what they keep alive. */
typedef struct vmk_gc_ephemeron vmk_gc_ephemeron;
VMK_API vmk_gc_ephemeron *vmk_gc_ephemeron_new(vmk_gc *gc, void *key, void *value);
VMK_API void *vmk_gc_ephemeron_key(vmk_gc *gc, const vmk_gc_ephemeron *ephemeron);
VMK_API void *vmk_gc_ephemeron_value(vmk_gc *gc, const vmk_gc_ephemeron *ephemeron);
VMK_API void vmk_gc_ephemeron_set(vmk_gc *gc, vmk_gc_ephemeron *ephemeron, void *value);

/* --- seeing ------------------------------------------------------------------------------------------------------- */

typedef struct vmk_gc_stats {
    uint64_t cycles;
    uint64_t by_cause[VMK_GC_CAUSE_COUNT];
    uint64_t pause_total; /* nanoseconds, as all times */
    uint64_t pause_max;
    uint64_t stop_max;
    uint64_t mark_total;
    uint64_t sweep_total;
    uint64_t allocated_total; /* bytes of objects since the heap was made, */
    uint64_t freed_total;     /* by hand */
    size_t live_bytes;        /* after the last cycle */
    size_t live_objects;
    size_t allocated;   /* bytes since then; threads tell when they need a slab, so it lags behind a little */
    size_t next;        /* bytes to be allocated until the next cycle */
    size_t heap_size;   /* bytes of spans in use */
    size_t metadata;    /* bytes committed for bits, tables and stacks of marking; without the heap's own */
    size_t threads;     /* registered, in the process */
    size_t finalizers;  /* set, */
    size_t finalizable; /* and waiting to be run */
    size_t links;       /* weak references among them */
    size_t ephemerons;
    vmk_gc_event last; /* all zero before the first */
} vmk_gc_stats;

VMK_API void vmk_gc_stats_now(vmk_gc *gc, vmk_gc_stats *stats);

/* "goal reached"; "unknown" for any other value. */
VMK_API const char *vmk_gc_cause_name(vmk_gc_cause cause);

typedef struct vmk_gc_object {
    void *base;
    size_t size; /* usable */
    bool leaf;
    const char *type; /* the layout's name, "" if it has none; NULL: not typed */
    const void *site; /* VMK_GC_SITES: the address behind the call that allocated it; else NULL */
} vmk_gc_object;

/* Call `visit` for all objects that have not been freed, dead ones too where no cycle came since, in the order of
 * addresses, until it answers false. Threads are stopped meanwhile: it must take no lock, and use nothing of this part.
 */
typedef bool vmk_gc_object_visitor(void *context, const vmk_gc_object *object);
VMK_API void vmk_gc_walk(vmk_gc *gc, vmk_gc_object_visitor *visit, void *context);

/* X(name, text) */
#define VMK_GC_ROOT_TABLE(X)                                                                                           \
    X(STACK, "stack")                                                                                                  \
    X(REGISTERS, "registers")                                                                                          \
    X(THREAD_DATA, "thread-local storage")                                                                             \
    X(STATIC, "static data")                                                                                           \
    X(RANGE, "added range")                                                                                            \
    X(SLOT, "slot")                                                                                                    \
    X(TRACER, "tracer")                                                                                                \
    X(PIN, "pin")                                                                                                      \
    X(FINALIZABLE, "waits for its finalizer")                                                                          \
    X(EPHEMERON, "ephemeron")

#define VMK_GC_ROOT_ENUM(name, text) VMK_GC_ROOT_##name,
typedef enum vmk_gc_root { VMK_GC_ROOT_TABLE(VMK_GC_ROOT_ENUM) VMK_GC_ROOT_COUNT } vmk_gc_root;
#undef VMK_GC_ROOT_ENUM

VMK_API const char *vmk_gc_root_name(vmk_gc_root root);

/* A step of a path. The first comes from a root: `from` is NULL, `at` the address of the word in it (NULL for tracers,
 * pins, finalizable objects). The others come from the object before: `at` is the word in it, NULL where a function
 * traced it. */
typedef struct vmk_gc_step {
    vmk_gc_root root; /* that the path comes from; in a step from an ephemeron to its value: VMK_GC_ROOT_EPHEMERON */
    uintptr_t thread; /* of the first: the id of the root's thread as the system has it; 0: it is no thread's */
    const void *from; /* the object that refers to this one */
    const void *at;
    vmk_gc_object object;
} vmk_gc_step;

/* Why is it alive? A shortest path from a root to the object that `address` is in, step by step. The stack and
 * registers of the thread that asks, which mostly has the address there, are looked at last: a path from them is shown
 * only where no other root reaches the object. False: it can't be reached, or is no object, or there is no memory to
 * find out (*status, which may be NULL, is then VMK_ERR_COMMIT, else VMK_OK). Cost: as a cycle that marks with one
 * thread; 16 bytes for each object that can be reached, and a step for each on the path. `visit` is called when threads
 * go on again. */
typedef void vmk_gc_step_visitor(void *context, const vmk_gc_step *step);
VMK_API bool vmk_gc_why(vmk_gc *gc, const void *address, vmk_gc_step_visitor *visit, void *context, vmk_status *status);

/* Write all objects, roots and references as text, a line each, for `vmkit gc` (docs/tools.md has the format), by
 * `write`, which answers false to give up. Threads are stopped meanwhile: it must take no lock that they may hold (a
 * buffered stdio stream has one), and use nothing of this part. False: `write` has given up. */
typedef bool vmk_gc_writer(void *context, const char *text, size_t length);
VMK_API bool vmk_gc_dump(vmk_gc *gc, vmk_gc_writer *write, void *context);

#ifdef __cplusplus
}
#endif

#endif
