/* SPDX-License-Identifier: MIT
 *
 * Memory that can be mapped: files, and what has no name. The system keeps it; here are a handle, a size, and the rules
 * of who may do what.
 *
 * One lock guards the sizes of all memory and is held while one of them is changed: two threads that make the same file
 * larger would otherwise cut off what the other has added. It is not the lock of the vm layer, for a file may lie at
 * the far end of a network.
 */
#include "common/vm/memory.h"

#include "common/base/check.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b4du)  /* "vmkM" */
#define SEAL_ENDED ((uintptr_t)0x64656164u) /* "dead" */

/* --- the lock --------------------------------------------------------------------------------------------------- */

static vmki_os_lock lock;
static bool prepared; /* under the lock */

static void lock_before_fork(void)
{
    vmki_os_lock_acquire(&lock);
}

static void lock_after_fork(void)
{
    vmki_os_lock_release(&lock);
}

static void sizes_lock(void)
{
    vmki_os_lock_acquire(&lock);
    if (VMKI_UNLIKELY(!prepared)) {
        prepared = true;
        vmki_os_lock_release(&lock); /* registering may itself wait for a fork, which waits for this lock */
        vmki_os_at_fork(lock_before_fork, lock_after_fork, lock_after_fork);
        vmki_os_lock_acquire(&lock);
    }
}

static void sizes_unlock(void)
{
    vmki_os_lock_release(&lock);
}

uint64_t vmki_memory_size(const vmk_memory *memory)
{
    sizes_lock();
    uint64_t size = memory->size;
    sizes_unlock();
    return size;
}

void vmki_memory_require(const vmk_memory *memory, const char *not_live, const char *ended)
{
    if (VMKI_LIKELY(memory->seal == SEAL_LIVE))
        return;
    vmki_misuse(memory->seal == SEAL_ENDED ? ended : not_live, memory);
}

/* --- getting some ----------------------------------------------------------------------------------------------- */

/* Rounded up to whole pages; systems count the bytes of a file in 63 bits. */
static bool whole_pages(uint64_t size, uint64_t *rounded)
{
    uint64_t page_size = vmk_page_size();
    if (size > (uint64_t)INT64_MAX - (page_size - 1))
        return false;
    *rounded = (size + (page_size - 1)) & ~(page_size - 1);
    return true;
}

vmk_status vmk_memory_init(vmk_memory *memory, uint64_t size)
{
    uintptr_t handle;
    if (size == 0 || !whole_pages(size, &size))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_memory_create(size, &handle);
    if (status != VMK_OK)
        return status;
    *memory = (vmk_memory){.size = size, .handle = handle, .flags = VMK_MEMORY_WRITE, .seal = SEAL_LIVE};
    vmki_os_error_set(before);
    return VMK_OK;
}

vmk_status vmk_memory_open(vmk_memory *memory, const char *path, unsigned flags)
{
    const unsigned known = VMK_MEMORY_WRITE | VMK_MEMORY_CREATE;
    uintptr_t handle;
    uint64_t size;
    if (path == NULL || (flags & ~known) != 0 || (flags & known) == VMK_MEMORY_CREATE)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_memory_open(path, flags, &handle, &size);
    if (status != VMK_OK)
        return status;
    flags = (flags & VMK_MEMORY_WRITE) | VMK_MEMORY_FILE;
    *memory = (vmk_memory){.size = size, .handle = handle, .flags = flags, .seal = SEAL_LIVE};
    vmki_os_error_set(before);
    return VMK_OK;
}

vmk_status vmk_memory_import(vmk_memory *memory, uintptr_t handle, unsigned flags)
{
    uint64_t size;
    if ((flags & ~(unsigned)VMK_MEMORY_WRITE) != 0)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_memory_import(handle, &flags, &size);
    if (status != VMK_OK)
        return status;
    *memory = (vmk_memory){.size = size, .handle = handle, .flags = flags, .seal = SEAL_LIVE};
    vmki_os_error_set(before);
    return VMK_OK;
}

/* --- what may be done with it ----------------------------------------------------------------------------------- */

vmk_status vmk_memory_handle(const vmk_memory *memory, uintptr_t *handle)
{
    uintptr_t copy;
    VMKI_REQUIRE_MEMORY(memory, "vmk_memory_handle");
    if ((memory->flags & VMK_MEMORY_FILE) != 0)
        return VMK_ERR_UNSUPPORTED;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_memory_duplicate(memory->handle, true, &copy);
    if (status != VMK_OK)
        return status;
    *handle = copy;
    vmki_os_error_set(before);
    return VMK_OK;
}

vmk_status vmk_memory_resize(vmk_memory *memory, uint64_t size)
{
    VMKI_REQUIRE_MEMORY(memory, "vmk_memory_resize");
    bool file = (memory->flags & VMK_MEMORY_FILE) != 0;
    if ((memory->flags & VMK_MEMORY_WRITE) == 0 || size > INT64_MAX || (!file && !whole_pages(size, &size)))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    sizes_lock();
    vmk_status status = size < memory->size ? VMK_ERR_ARGUMENT : VMK_OK;
    if (status == VMK_OK && (file || size != memory->size))
        status = vmki_os_memory_resize(memory->handle, memory->flags, &size);
    if (status == VMK_OK)
        memory->size = size;
    sizes_unlock();
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmk_memory_fini(vmk_memory *memory)
{
    VMKI_REQUIRE_MEMORY(memory, "vmk_memory_fini");
    vmki_os_error before = vmki_os_error_get();
    vmki_os_memory_close(memory->handle);
    memory->seal = SEAL_ENDED;
    vmki_os_error_set(before);
}
