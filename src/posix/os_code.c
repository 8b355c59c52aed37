/* SPDX-License-Identifier: MIT
 *
 * Executable memory. Flipped: mprotect, between writable and executable. Twice: memory without a name, mapped at two
 * addresses; its descriptor is closed at once, for the mappings keep it.
 *
 * Who forbids what. SELinux (execmem) and PaX refuse PROT_EXEC for anonymous memory; PR_SET_MDWE and systemd's
 * MemoryDenyWriteExecute refuse it to pages that lacked it, but not to a new mapping of a file, so the second mapping
 * is made executable when it is made. vm.memfd_noexec can refuse files that could be executed, and a mount with noexec
 * the mapping. Each says EACCES or EPERM. macOS's MAP_JIT is not used: its switch is of a thread, for all such memory
 * at once, and not of pages; a program that needs it, as its hardened run-time does, is told "unsupported".
 */
#include "posix/os_service_private.h"

/* What an error means; `shortage` is what lack of memory means. Leaves errno as it was. */
static vmk_status status_of(vmk_status shortage)
{
    switch (errno) {
    case ENOMEM:
        return vmki_posix_mappings_exhausted() ? VMK_ERR_MAPPINGS : shortage;
    case EAGAIN: /* too much is locked */
    case EMFILE:
    case ENFILE:
    case ENOSPC:
    case EFBIG:
        return VMK_ERR_COMMIT;
    default:
        return VMK_ERR_UNSUPPORTED;
    }
}

/* --- memory that can be mapped twice ---------------------------------------------------------------------------- */

static unsigned forbidden;

void vmki_posix_code_forbid(unsigned ways)
{
    VMKI_STORE_RELAXED(&forbidden, ways);
}

static bool allowed(unsigned way)
{
    return (VMKI_LOAD_RELAXED(&forbidden) & way) == 0;
}

/* A descriptor of so many bytes of it, or -1. Out of descriptors is not a reason to try another way. */
static int open_memory(size_t size)
{
    int file = -1;
    errno = ENOSYS;
    if (allowed(VMKI_POSIX_CODE_MEMFD))
        file = vmki_posix_memfd("vmkit code", VMKI_POSIX_MEMFD_CODE);
    if (file < 0 && errno != EMFILE && errno != ENFILE && allowed(VMKI_POSIX_CODE_SHM))
        file = vmki_posix_shm();
    if (file >= 0 && ftruncate(file, (off_t)size) != 0) {
        int error = errno;
        (void)close(file);
        errno = error;
        file = -1;
    }
    return file;
}

static vmk_status map_twice(int file, size_t size, void **run, void **write)
{
    void *first = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    if (first == MAP_FAILED)
        return status_of(VMK_ERR_ADDRESS_SPACE);
    void *second = mmap(NULL, size, VMKI_POSIX_RESERVED, MAP_SHARED, file, 0);
    if (second == MAP_FAILED) {
        int error = errno;
        vmki_os_release(first, size);
        errno = error;
        return status_of(VMK_ERR_ADDRESS_SPACE);
    }
    *run = first;
    *write = second;
    return VMK_OK;
}

/* --- the contract ----------------------------------------------------------------------------------------------- */

vmk_status vmki_os_code_map(size_t size, bool twice, void **run, void **write)
{
    if (!twice) {
        void *base = mmap(NULL, size, VMKI_POSIX_CODE, MAP_PRIVATE | MAP_ANONYMOUS | VMKI_POSIX_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            return status_of(VMK_ERR_ADDRESS_SPACE);
        *run = *write = base;
        return VMK_OK;
    }
    if (size > PTRDIFF_MAX) { /* no file is so long */
        errno = ENOMEM;
        return VMK_ERR_ADDRESS_SPACE;
    }
    int file = open_memory(size);
    if (file < 0)
        return status_of(VMK_ERR_COMMIT);
    vmk_status status = map_twice(file, size, run, write);
    int error = errno;
    (void)close(file);
    errno = error;
    return status;
}

vmk_status vmki_os_code_access_set(void *base, size_t size, vmki_os_code_access access)
{
    static const int protections[] = {PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC};
    return mprotect(base, size, protections[access]) == 0 ? VMK_OK : status_of(VMK_ERR_COMMIT);
}

void vmki_os_code_unmap(size_t size, bool twice, void *run, void *write)
{
    vmki_os_release(run, size);
    if (twice)
        vmki_os_release(write, size);
}

void vmki_os_code_flush(void *run, size_t size)
{
    __builtin___clear_cache((char *)run, (char *)run + size);
}
