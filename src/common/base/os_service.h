/* SPDX-License-Identifier: MIT
 *
 * The contract with the operating system, second part: what part 6 of vmkit.h asks of one. The duties are those of
 * os.h. A system that has none of this answers VMK_ERR_UNSUPPORTED everywhere, and the library does what it can
 * without.
 */
#ifndef VMKI_OS_SERVICE_H
#define VMKI_OS_SERVICE_H

#include "common/base/os.h"

/* --- the record of capabilities ---------------------------------------------------------------------------------- */

/* Of vmki_os_probe's duty the part of each file below: bits of features, advice, watch, and nodes. */
void vmki_os_probe_service(vmk_caps *caps);
void vmki_os_probe_memory(vmk_caps *caps);
void vmki_os_probe_pressure(vmk_caps *caps);
void vmki_os_probe_watch(vmk_caps *caps);

/* --- pages: os_service.c ---------------------------------------------------------------------------------------- */

/* Committed pages: mark them in the page table as guards, which fault and take no mapping; contents go. Unlike a
 * protection the marks survive everything but guard_clear and release, and may be cleared of any pages.
 * VMK_ERR_UNSUPPORTED: there are no such marks. */
vmk_status vmki_os_guard_set(void *base, size_t size);
void vmki_os_guard_clear(void *base, size_t size);

/* Committed, writable pages: have memory behind each, contents as they are. VMK_ERR_UNSUPPORTED: not by one call. */
vmk_status vmki_os_prefault(void *base, size_t size);

/* Committed pages: pages[i] = 1 if the i-th is in memory, else 0. */
vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *pages);

/* Committed pages: how many bytes of them are in huge pages. */
vmk_status vmki_os_huge_report(const void *base, size_t size, size_t *huge);

/* Any pages: take memory for them from this NUMA node first. The node of the page at an address. */
vmk_status vmki_os_node_prefer(void *base, size_t size, unsigned node);
vmk_status vmki_os_node_of(const void *address, unsigned *node);

/* A reservation of explicit huge pages of `huge` bytes each (any power of two above the page size: VMK_ERR_UNSUPPORTED
 * if there are none of these): size, align and hint are multiples of it. *committed tells whether the system gives it
 * committed as a whole. Commit: only what is not committed, and it gets the memory at once; both leave everything as it
 * was on failure. vmki_os_release ends it; discard must not be used. */
vmk_status vmki_os_reserve_huge(const vmki_os_request *request, size_t huge, void **base, bool *committed);
vmk_status vmki_os_commit_huge(void *base, size_t size, size_t huge);
vmk_status vmki_os_decommit_huge(void *base, size_t size, size_t huge);

/* A range of addresses. */
typedef struct vmki_os_range {
    void *base;
    size_t size;
} vmki_os_range;

/* Several ranges of committed pages at once, ascending, not touching. Discard: writable ones. Decommit: memory and
 * charge go, touching faults; that may be done by marks, so vmki_os_guard_clear must come before the next commit.
 * *done: how many of the first are done, whatever the status; of the others, too, contents may be gone, and pages of
 * the next may be marked. VMK_ERR_UNSUPPORTED with none done: not by one call, and nothing has changed. */
vmk_status vmki_os_discard_batch(const vmki_os_range *ranges, size_t count, size_t *done);
vmk_status vmki_os_decommit_batch(const vmki_os_range *ranges, size_t count, size_t *done);

/* --- memory and its views: os_memory.c --------------------------------------------------------------------------- */

/* Handles are file descriptors, or HANDLEs. `size`: whole pages. A handle isn't inherited by new programs. */
vmk_status vmki_os_memory_create(uint64_t size, uintptr_t *handle);
vmk_status vmki_os_memory_open(const char *path, unsigned flags, uintptr_t *handle, uint64_t *size);
vmk_status vmki_os_memory_import(uintptr_t handle, unsigned *flags, uint64_t *size);
/* Make it at least *size bytes; *size is then what it is. */
vmk_status vmki_os_memory_resize(uintptr_t handle, unsigned flags, uint64_t *size);
/* Another handle of the same; `inherited`: by programs that this one starts. */
vmk_status vmki_os_memory_duplicate(uintptr_t handle, bool inherited, uintptr_t *copy);
void vmki_os_memory_close(uintptr_t handle);

/* Map: offset is a multiple of the granularity, size any. `flags` as in vmk_memory. Unmap: what was mapped, whole. */
vmk_status vmki_os_view_map(uintptr_t handle, unsigned flags, uint64_t offset, size_t size, vmk_view_kind kind,
                            void **base);
void vmki_os_view_unmap(void *base, size_t size);
/* Larger, perhaps elsewhere, contents and all; VMK_ERR_UNSUPPORTED: map it anew instead, where that loses nothing. */
vmk_status vmki_os_view_remap(void **base, size_t size, size_t new_size);
vmk_status vmki_os_view_flush(void *base, size_t size, uintptr_t handle, unsigned flags);

/* Map [0, size) of memory twice in a row; size is a multiple of the granularity. VMK_ERR_TAKEN: somebody else was
 * faster; try again. */
vmk_status vmki_os_ring_map(uintptr_t handle, size_t size, void **base);
void vmki_os_ring_unmap(void *base, size_t size);

/* Snapshots. `view` is a SHARED mapping of [offset, offset + size) of memory without a name. Take: from now on its
 * writes are its own, contents and address as before, and *frozen is a mapping of the same that stays as it is. Drop:
 * what the view has written goes to the memory, and so does what it writes from now on; frozen is gone. If that fails
 * the view is as it was, but frozen may show some of its writes. VMK_ERR_UNSUPPORTED (of take): copy instead. */
vmk_status vmki_os_snapshot_take(uintptr_t handle, void *view, uint64_t offset, size_t size, void **frozen);
vmk_status vmki_os_snapshot_drop(uintptr_t handle, void *view, uint64_t offset, size_t size, void *frozen);

/* --- executable memory: os_code.c -------------------------------------------------------------------------------- */

typedef enum vmki_os_code_access { VMKI_OS_CODE_NONE, VMKI_OS_CODE_WRITE, VMKI_OS_CODE_EXECUTE } vmki_os_code_access;

/* Whole pages. Flipped: *write is *run, and nothing can be done there yet. Twice: *run can be read and executed, for
 * good, and nothing can be done at *write yet. */
vmk_status vmki_os_code_map(size_t size, bool twice, void **run, void **write);
/* Whole pages of what was flipped; of `write` of what was mapped twice, NONE and WRITE alone. On failure some pages may
 * have it already; then what they had before can be given them again. */
vmk_status vmki_os_code_access_set(void *base, size_t size, vmki_os_code_access access);
void vmki_os_code_unmap(size_t size, bool twice, void *run, void *write);
/* What was written is seen by whoever executes it at `run`. Any range. */
void vmki_os_code_flush(void *run, size_t size);

/* --- memory pressure: os_pressure.c ------------------------------------------------------------------------------ */

/* See vmk_room_now; the bounds MEMORY, COMMIT and PHYSICAL alone: the others follow from vmki_os_own_limits and
 * vmki_os_usage. `room` arrives filled with VMK_UNLIMITED. */
void vmki_os_room(vmk_room *room);

/* The system's own events. Wait returns at the first, or after so many milliseconds, or when woken (before it began,
 * too), or a little earlier; bit i of the result: it told of bound i. It is called by one thread. Open makes do with
 * what it finds, so that wait and wake work in any case; VMK_ERR_COMMIT: not even these can be had. Close also in a
 * child of a fork, whose parent goes on. */
typedef struct vmki_os_pressure {
    uintptr_t state[10];
} vmki_os_pressure;

vmk_status vmki_os_pressure_open(vmki_os_pressure *pressure);
unsigned vmki_os_pressure_wait(vmki_os_pressure *pressure, unsigned milliseconds);
void vmki_os_pressure_wake(vmki_os_pressure *pressure);
void vmki_os_pressure_close(vmki_os_pressure *pressure);

/* --- write-watch: os_watch.c ------------------------------------------------------------------------------------- */

/* What the system itself keeps account of, by one of its ways: USERFAULT, WRITE_WATCH, SOFT_DIRTY. Open says nothing of
 * what was written so far: arm does. The ranges of collect and arm are committed pages of what was opened. What is no
 * part of a `region` is static data, which some ways don't bear. */
typedef struct vmki_os_watch {
    uintptr_t state[4];
} vmki_os_watch;

vmk_status vmki_os_watch_open(vmki_os_watch *watch, vmk_watch_kind kind, void *base, size_t size, bool region);
/* What was written in the range, and clean again, in the same moment: at most `capacity` runs, ascending; *until: the
 * first address that was not looked at. SOFT_DIRTY cleans nothing here. If it fails, nothing has become clean. */
vmk_status vmki_os_watch_collect(vmki_os_watch *watch, void *base, size_t size, vmki_os_range *runs, size_t capacity,
                                 size_t *count, void **until);
/* Clean from now on, whatever was written. With SOFT_DIRTY it is the whole process that becomes clean. */
vmk_status vmki_os_watch_arm(vmki_os_watch *watch, void *base, size_t size);
void vmki_os_watch_close(vmki_os_watch *watch, void *base, size_t size);
/* In the child of a fork, instead of close: the watch is its parent's. Then it may be opened anew. Nothing to do where
 * an open has failed. */
void vmki_os_watch_forget(vmki_os_watch *watch);

/* Have `handler` asked of every fault of this process by a write to memory that is there and protected, before whoever
 * is asked now; true: try the write again. It runs in the thread that faults, in a signal handler. `handler` stays for
 * the life of the process; idempotent. */
vmk_status vmki_os_fault_handler(bool (*handler)(void *address));

/* Writable, private pages outside of regions: can they be watched by protection? And their protection, to READ or back
 * to READ_WRITE: what vmki_os_protect does to pages of a reservation. */
bool vmki_os_static_writable(const void *base, size_t size);
vmk_status vmki_os_static_protect(void *base, size_t size, vmk_access access);

#endif
