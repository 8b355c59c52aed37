/* SPDX-License-Identifier: MIT
 *
 * Executable memory. Flipped: VirtualProtect, between writable and executable; committed from the start, for a change
 * of protection should not fail for want of memory. Twice: a section of the paging file with two views, which keep it
 * when its handle is closed. Neither is allowed to a process whose mitigation policy prohibits dynamic code
 * (ERROR_DYNAMIC_CODE_BLOCKED).
 */
#include "win32/os_private.h"

#include "common/base/os_service.h"

static vmk_status refused(vmk_status shortage)
{
    switch (GetLastError()) {
    case ERROR_COMMITMENT_LIMIT:
    case ERROR_COMMITMENT_MINIMUM:
    case ERROR_NOT_ENOUGH_QUOTA:
    case ERROR_PAGEFILE_QUOTA:
    case ERROR_NO_SYSTEM_RESOURCES:
        return VMK_ERR_COMMIT;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_INVALID_ADDRESS:
    case ERROR_INVALID_PARAMETER: /* a size beyond the address space */
        return shortage;
    default:
        return VMK_ERR_UNSUPPORTED;
    }
}

static vmk_status map_views(HANDLE section, size_t size, void **run, void **write)
{
    DWORD before;
    vmk_status status = VMK_OK;
    void *first = MapViewOfFile(section, FILE_MAP_READ | FILE_MAP_EXECUTE, 0, 0, size);
    void *second = first != NULL ? MapViewOfFile(section, FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, size) : NULL;
    if (first == NULL || second == NULL)
        status = refused(VMK_ERR_ADDRESS_SPACE);
    else if (!VirtualProtect(second, size, PAGE_NOACCESS, &before))
        status = refused(VMK_ERR_COMMIT);
    if (status == VMK_OK) {
        *run = first;
        *write = second;
        return VMK_OK;
    }
    DWORD error = GetLastError();
    if (second != NULL)
        UnmapViewOfFile(second);
    if (first != NULL)
        UnmapViewOfFile(first);
    SetLastError(error);
    return status;
}

vmk_status vmki_os_code_map(size_t size, bool twice, void **run, void **write)
{
    if (!twice) {
        void *base = VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_NOACCESS);
        if (base == NULL)
            return refused(VMK_ERR_ADDRESS_SPACE);
        *run = *write = base;
        return VMK_OK;
    }
    HANDLE section = CreateFileMappingW(INVALID_HANDLE_VALUE, NULL, PAGE_EXECUTE_READWRITE,
                                        (DWORD)((uint64_t)size >> 32), (DWORD)size, NULL);
    if (section == NULL)
        return refused(VMK_ERR_COMMIT);
    vmk_status status = map_views(section, size, run, write);
    DWORD error = GetLastError();
    CloseHandle(section);
    SetLastError(error);
    return status;
}

vmk_status vmki_os_code_access_set(void *base, size_t size, vmki_os_code_access access)
{
    static const DWORD protections[] = {PAGE_NOACCESS, PAGE_READWRITE, PAGE_EXECUTE_READ};
    DWORD before;
    return VirtualProtect(base, size, protections[access], &before) ? VMK_OK : refused(VMK_ERR_COMMIT);
}

void vmki_os_code_unmap(size_t size, bool twice, void *run, void *write)
{
    (void)size;
    if (!twice) {
        VirtualFree(run, 0, MEM_RELEASE);
        return;
    }
    UnmapViewOfFile(run);
    UnmapViewOfFile(write);
}

void vmki_os_code_flush(void *run, size_t size)
{
    FlushInstructionCache(GetCurrentProcess(), run, size);
}
