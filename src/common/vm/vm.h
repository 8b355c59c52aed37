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

/* Take and release the vm lock. Prepares the module, and its part in fork, at first use. */
void vmki_vm_lock(void);
void vmki_vm_unlock(void);

/* How many forks lie between the first program and this process, since the module was prepared (by this, if need be):
 * who remembers another number has been copied by one. */
size_t vmki_vm_forks(void);

/* The arguments of every call on a region. Misuse unless it is live; both texts begin with the function's name. */
void vmki_region_require(const vmk_region *region, const char *not_live, const char *released);
#define VMKI_REQUIRE_LIVE(region, function)                                                                            \
    vmki_region_require(region, function ": not a region", function ": region was released before")

/* Whole pages inside it? */
bool vmki_region_has(const vmk_region *region, size_t offset, size_t size);

/* vmk_commit and vmk_decommit under the lock, for ranges known to be whole pages inside a live region. */
vmk_status vmki_vm_commit(vmk_region *region, size_t offset, size_t size);
vmk_status vmki_vm_decommit(vmk_region *region, size_t offset, size_t size);

/* vmk_region_query under the lock, and the committed bytes of a range. */
vmk_state vmki_vm_query(const vmk_region *region, size_t offset, size_t *run);
size_t vmki_vm_committed(const vmk_region *region, size_t offset, size_t size);

/* How much a reservation of up to `wanted` bytes should take, with the limits of this moment: see vmk_reserve. Makes
 * system calls; without the lock. */
size_t vmki_vm_budget(size_t wanted, unsigned flags);

/* Make a region that is committed as a whole larger or smaller, with its guard, by moving its pages to another place:
 * region->base changes. On failure all is as it was. VMK_ERR_UNSUPPORTED: the system can't. Under the lock. */
vmk_status vmki_vm_move(vmk_region *region, size_t new_size);

/* service.c: a region ends, with all guards in it. */
void vmki_guards_forget(vmk_region *region);

/* Is this a live region whose set of extents is well-formed, inside it, and adds up to region->committed? Under the
 * lock or where nobody else uses the region. */
bool vmki_region_check(const vmk_region *region);

#endif
