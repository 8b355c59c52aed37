/* SPDX-License-Identifier: MIT
 *
 * Faults by writes to protected memory, and the protection of memory that is no reservation.
 *
 * A vectored handler is asked before the program's own, structured ones, and what it doesn't take goes on to those by
 * itself.
 *
 * The data of a module is mapped from its file for copying when written. What such a page had before it was protected
 * is PAGE_WRITECOPY, until it has been written and is private (Wine shows WRITECOPY even then), and that is what it
 * must get back: for a view of a file PAGE_READWRITE would be refused.
 */
#include "win32/os_private.h"

#include <errno.h>

#include "common/base/os_service.h"

static bool (*asked)(void *address);
static vmki_os_lock lock;
static bool installed; /* under the lock */

static LONG CALLBACK on_exception(EXCEPTION_POINTERS *exception)
{
    const EXCEPTION_RECORD *record = exception->ExceptionRecord;
    const ULONG_PTR write = 1;
    if (record->ExceptionCode != EXCEPTION_ACCESS_VIOLATION || record->NumberParameters < 2 ||
        record->ExceptionInformation[0] != write)
        return EXCEPTION_CONTINUE_SEARCH;
    DWORD error = GetLastError();
    bool again = asked((void *)record->ExceptionInformation[1]);
    SetLastError(error);
    return again ? EXCEPTION_CONTINUE_EXECUTION : EXCEPTION_CONTINUE_SEARCH;
}

vmk_status vmki_os_fault_handler(bool (*handler)(void *address))
{
    vmki_os_lock_acquire(&lock);
    if (!installed) {
        asked = handler;
        installed = AddVectoredExceptionHandler(1, on_exception) != NULL;
    }
    bool done = installed;
    vmki_os_lock_release(&lock);
    return done ? VMK_OK : VMK_ERR_COMMIT;
}

/* --- static data ------------------------------------------------------------------------------------------------ */

static bool copied_on_write(const MEMORY_BASIC_INFORMATION *info)
{
    return info->Type == MEM_IMAGE || (info->Type == MEM_MAPPED && info->Protect == PAGE_WRITECOPY);
}

/* All of it in one allocation, as protecting demands; a view that is not copied when written may be shared. */
bool vmki_os_static_writable(const void *base, size_t size)
{
    MEMORY_BASIC_INFORMATION info;
    const unsigned char *at = base, *limit = at + size;
    const void *allocation = NULL;
    while (at < limit) {
        if (VirtualQuery(at, &info, sizeof info) == 0 || info.State != MEM_COMMIT ||
            (info.Protect != PAGE_READWRITE && info.Protect != PAGE_WRITECOPY) ||
            (info.Type != MEM_PRIVATE && !copied_on_write(&info)))
            return false;
        if (allocation != NULL && allocation != info.AllocationBase)
            return false;
        allocation = info.AllocationBase;
        at = (const unsigned char *)info.BaseAddress + info.RegionSize;
    }
    return true;
}

vmk_status vmki_os_static_protect(void *base, size_t size, vmk_access access)
{
    MEMORY_BASIC_INFORMATION info;
    DWORD before;
    bool to_write = access == VMK_ACCESS_READ_WRITE && VirtualQuery(base, &info, sizeof info) != 0;
    if (to_write && info.Type != MEM_PRIVATE && VirtualProtect(base, size, PAGE_WRITECOPY, &before))
        return VMK_OK;
    return vmki_os_protect(base, size, access);
}
