/* SPDX-License-Identifier: MIT
 *
 * The contract with the operating system: all that vmkit ever asks of one. src/posix and src/win32 fulfil it with the
 * same file names; tests/model fulfils the first half (facts, memory, services) in simulation. Which one stands behind
 * the library is decided when it is linked. tests/test_os.c is this contract as a test; docs/porting.md says how to
 * write another. Its second part, os_service.h, is what only the services (part 6 of vmkit.h) need.
 *
 * Duties of every implementation
 *   - Addresses and sizes arrive checked: base and size are multiples of the page size, size is not 0, the range lies
 * in one live reservation. No call spans two reservations.
 *   - Fail with a vmk_status and no change (the exceptions are written below), never by ending the program.
 * Out-parameters are written on success alone. errno or GetLastError() is left as the failing call of the system set
 * it; saving and restoring it around success is the caller's part.
 *   - Call nothing of vmkit's above this header but align.h and compiler.h; allocate nothing from the C library; write
 * no log; hold no lock during a system call.
 *   - All functions may be called from any thread. Calls on overlapping ranges are serialised by the caller.
 *   - What a system can't do is VMK_ERR_UNSUPPORTED; what it refuses is told apart as vmk_status does.
 */
#ifndef VMKI_OS_H
#define VMKI_OS_H

#include "common/base/compiler.h"

/* --- facts: os_probe.c, os_limits.c ----------------------------------------------------------------------------- */

/* Powers of two, page_size <= granularity. Cheap enough for the first reserve: no more than a few system calls. */
void vmki_os_page_facts(size_t *page_size, size_t *granularity);

/* Fill the whole record by trying things out: what the headers say is no proof. `caps` arrives zeroed but for page_size
 * and granularity; what can't be found stays zero. Leaves nothing reserved. Called once. */
void vmki_os_probe(vmk_caps *caps);

/* See vmk_limits_now, vmk_usage_now. `limits` arrives filled with VMK_UNLIMITED. The second fills only what the process
 * carries itself and can be had in a system call or two: RLIMIT_AS, RLIMIT_DATA, the job object; no files. */
void vmki_os_limits(vmk_limits *limits);
void vmki_os_own_limits(vmk_limits *limits);
vmk_status vmki_os_usage(vmk_usage *usage);

/* Bytes of memory in the machine, 0: unknown. One system call. */
uint64_t vmki_os_physical_memory(void);

/* --- memory: os_vm.c -------------------------------------------------------------------------------------------- */

typedef struct vmki_os_request {
    uintptr_t hint; /* 0: none. A multiple of align if exact, else of the granularity */
    size_t size;    /* whole pages */
    size_t align;   /* a power of two, at least the granularity */
    bool exact;    /* at the hint, replacing nothing, or VMK_ERR_TAKEN: the address got is compared, whatever the system
                      says */
    bool watch;    /* writes to it shall be countable by the system, where it must know that beforehand */
    unsigned node; /* n + 1: memory from NUMA node n first, where possible; 0: from anywhere */
} vmki_os_request;

/* Reserve without charge: all of it faults when touched. Answers with a base that is aligned as asked; a hint that is
 * not exact is tried and then forgotten. *base is written only on success. Nothing beyond [base, base + size) stays
 * taken. */
vmk_status vmki_os_reserve(const vmki_os_request *request, void **base);

/* Give back a whole reservation, in whatever state its pages are. Never fails for a live one (asserted): where the
 * system can't take address space back at once (Linux at its limit on mappings), its memory goes back, and the rest
 * later. */
void vmki_os_release(void *base, size_t size);

/* Make pages accessible for reading and writing; those that were reserved read as zero. Idempotent; contents of pages
 * that are committed already survive (their protection need not). Never able to lose the reservation. On failure some
 * pages may have become accessible: the caller decommits what it had not committed before. */
vmk_status vmki_os_commit(void *base, size_t size);

/* The reverse: inaccessible, contents gone, memory and charge returned; the next commit gives zeroes. Harmless on pages
 * that are reserved only. On failure contents and accessibility are as before, but protections may be lost. */
vmk_status vmki_os_decommit(void *base, size_t size);

/* Committed, writable pages: the system may drop the contents; they stay committed. */
vmk_status vmki_os_discard(void *base, size_t size);
void vmki_os_reuse(void *base, size_t size);

/* Committed pages: change the protection. */
vmk_status vmki_os_protect(void *base, size_t size, vmk_access access);

/* A whole reservation whose first `size` bytes are committed, the other `guard` never: make it one of `new_size` and
 * `guard` bytes, in another place if need be, by moving pages instead of their contents. *base is the new place. On
 * failure nothing has changed. VMK_ERR_UNSUPPORTED: not to be had here. */
vmk_status vmki_os_move(void **base, size_t size, size_t new_size, size_t guard);

/* Have the system show pages of a reservation under a name, which stays readable until they are released: a wish that
 * may come to nothing. It survives commit and protect, and moves along; decommit may lose it. */
void vmki_os_name(void *base, size_t size, const char *name);

/* Any pages of a reservation. */
vmk_status vmki_os_advise(void *base, size_t size, vmk_advice advice);

/* --- the process: os_process.c ---------------------------------------------------------------------------------- */

/* Have `before` called in a thread about to fork, and when it has, `in_parent` and `in_child` where they name. Called
 * once by each layer that has locks: what was registered later is called earlier before, and later after. Where nothing
 * forks: do nothing. A failure to register can't be reported and leaves the child of a fork without protection. */
void vmki_os_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void));

/* The thread's error codes of the C library and of the system. */
typedef struct vmki_os_error {
    int library;          /* errno */
    unsigned long system; /* GetLastError(); 0 where there is none */
} vmki_os_error;

vmki_os_error vmki_os_error_get(void);
void vmki_os_error_set(vmki_os_error error);

/* Bits that nobody can guess, from the system; where it has none to give, from what differs between runs. */
uint64_t vmki_os_random(void);

/* Write to standard error by the shortest way, and end the program abnormally (SIGABRT, or exit code 3). */
void vmki_os_write_error(const char *text, size_t length);
VMKI_NORETURN void vmki_os_abort(void);

/* --- threads and time: os_thread.c ------------------------------------------------------------------------------ */

/* Nanoseconds of a clock that never goes back. */
uint64_t vmki_os_clock(void);

/* A thread with a small stack, in which the program's signals are blocked. The body must return; then join gives back
 * all that the thread had. VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE: no room for one. */
typedef struct vmki_os_thread {
    uintptr_t handle;
} vmki_os_thread;

vmk_status vmki_os_thread_start(vmki_os_thread *thread, void (*body)(void *argument), void *argument);
void vmki_os_thread_join(vmki_os_thread *thread);

/* What tells the calling thread from all others that live; not 0. */
uintptr_t vmki_os_thread_id(void);

/* Let other threads run, for a moment. */
void vmki_os_yield(void);

/* A pointer of each thread's own, NULL until it is set. It is read by vmki_os_self(), which os_self.h in the system's
 * folder has inline: a load or two. `at_end` is called in a thread that ends with a pointer that isn't NULL, which is
 * NULL again by then, and may be set anew (then it is called once more, unless the system has had enough). Init is
 * called once, before the first set. */
vmk_status vmki_os_self_init(void (*at_end)(void *self));
void vmki_os_self_set(void *self);

/* --- waiting: os_wait.c ----------------------------------------------------------------------------------------- */

/* A lock for short holds that may sleep under contention. All zero is an unlocked one, it needs no end, and it may be
 * released by the child of a fork whose parent took it. Not recursive. Releasing it, and signalling an event, never
 * waits for one of those that wait, who may be suspended. */
typedef struct vmki_os_lock {
    uintptr_t word;
} vmki_os_lock;

void vmki_os_lock_acquire(vmki_os_lock *lock);
bool vmki_os_lock_try(vmki_os_lock *lock); /* true: it was free, and is held now */
void vmki_os_lock_release(vmki_os_lock *lock);

/* Something that threads wait for: all zero is not signalled, and needs no end. A signal stays until it is reset,
 * and wakes who waits. Wait returns whether it was signalled; false after at most `nanoseconds`, or a little earlier.
 */
typedef struct vmki_os_event {
    uintptr_t word[3];
} vmki_os_event;

bool vmki_os_event_wait(vmki_os_event *event, uint64_t nanoseconds);
void vmki_os_event_signal(vmki_os_event *event);
void vmki_os_event_reset(vmki_os_event *event);

#endif
