/* SPDX-License-Identifier: MIT
 *
 * What the vm layer offers to the layers above it, beyond vmkit.h.
 *
 * One lock guards all records of address space: every region's set of extents, the statistics, and the growth of
 * tables. A lock for each region would buy nothing, for every operation under it takes the kernel's own lock on the
 * process's address space; and with one lock alone fork needs no list of regions. Discarding, which the kernel does in
 * parallel, is done outside it.
 */
#ifndef VMKI_VM_H
#define VMKI_VM_H

#include "common/base/align.h"
#include "common/base/os.h"

/* Reserve and commit a region as a whole, for what the library keeps for itself: `size` is rounded up as vmk_reserve
 * does, and *region is written on success alone. Errors as of those two. */
vmk_status vmki_region_get(vmk_region *region, size_t size);

/* Take and release the vm lock. Prepares the module, and its part in fork, at first use. */
void vmki_vm_lock(void);
void vmki_vm_unlock(void);

/* Take it if it is free; after the first use. */
bool vmki_vm_trylock(void);

/* How many forks lie between the first program and this process, since the module was prepared (by this, if need be):
 * who remembers another number has been copied by one. */
size_t vmki_vm_forks(void);

/* The arguments of every call on a region. Misuse unless it is live; both texts begin with the function's name. */
void vmki_region_require(const vmk_region *region, const char *not_live, const char *released);
#define VMKI_REQUIRE_LIVE(region, function)                                                                            \
    vmki_region_require(region, function ": not a region", function ": region was released before")

/* Whole units inside it: pages, or its explicit huge pages? */
bool vmki_region_has(const vmk_region *region, size_t offset, size_t size);

/* The same, and all of them committed? */
bool vmki_region_committed(const vmk_region *region, size_t offset, size_t size);

/* Is it made of explicit huge pages? */
static inline bool vmki_region_is_huge(const vmk_region *region)
{
    return region->unit != vmk_page_size();
}

/* vmk_commit and vmk_decommit under the lock, for ranges known to be whole units inside a live region. */
vmk_status vmki_vm_commit(vmk_region *region, size_t offset, size_t size);
vmk_status vmki_vm_decommit(vmk_region *region, size_t offset, size_t size);

/* The system has given back what is committed of the range, and may have left marks on it: make the records say so.
 * After vmki_extents_prepare, with region->marked set before the system was asked. Under the lock. */
void vmki_vm_decommitted(vmk_region *region, size_t offset, size_t size);

/* vmk_protect of a checked range. Without the lock. */
vmk_status vmki_vm_protect(vmk_region *region, size_t offset, size_t size, vmk_access access);

/* vmk_region_query under the lock, and the committed bytes of a range. */
vmk_state vmki_vm_query(const vmk_region *region, size_t offset, size_t *run);
size_t vmki_vm_committed(const vmk_region *region, size_t offset, size_t size);

/* vmk_capabilities without what services can do: in `features`, `advice`, `watch`, `nodes` only what part 2 is about.
 */
const vmk_caps *vmki_vm_basics(void);

/* code.c: its part of the record of capabilities. */
void vmki_code_probe(vmk_caps *caps);

/* How much a reservation of up to `wanted` bytes should take, with the limits of this moment: see vmk_reserve. Makes
 * system calls; without the lock. */
size_t vmki_vm_budget(size_t wanted, unsigned flags);

/* Make a region that is committed as a whole larger or smaller, with its guard, by moving its pages to another place:
 * region->base changes. On failure all is as it was. VMK_ERR_UNSUPPORTED: the system can't. Under the lock. */
vmk_status vmki_vm_move(vmk_region *region, size_t new_size);

/* guard.c: a region ends, with all guards in it. */
void vmki_guards_forget(vmk_region *region);

/* --- watched regions: watch.c, if the program has it --- */

/* What happens to pages of a region that somebody may be watching. */
typedef enum vmki_change {
    VMKI_CHANGE_COMMIT, /* they have just become committed and writable, */
    VMKI_CHANGE_LOSE,   /* are about to be committed no more, or protected by the program, */
    VMKI_CHANGE_WRITE,  /* or to be written or dropped by the system */
    VMKI_CHANGE_END     /* of the region */
} vmki_change;

/* Called under the vm lock; true: some of it is being watched. NULL until something is: so who watches nothing links
 * nothing. */
typedef bool vmki_watcher(const vmk_region *region, uintptr_t base, size_t size, vmki_change change);
extern vmki_watcher *vmki_vm_watcher;

static inline bool vmki_vm_tell(const vmk_region *region, uintptr_t base, size_t size, vmki_change change)
{
    return vmki_vm_watcher != NULL && vmki_vm_watcher(region, base, size, change);
}

/* The same without the lock, of a change by the program's own call. */
void vmki_vm_tell_unlocked(const vmk_region *region, uintptr_t base, size_t size, vmki_change change);

/* Is this a live region whose set of extents is well-formed, inside it, and adds up to region->committed? Under the
 * lock or where nobody else uses the region. */
bool vmki_region_check(const vmk_region *region);

#endif
