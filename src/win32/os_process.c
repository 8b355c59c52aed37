/* SPDX-License-Identifier: MIT
 *
 * The process: the error codes, random bits, the way out, and functions that the system may have. There is no fork
 * here, so nothing to do about it.
 */
#include "os_private.h"

#include <errno.h>

void vmki_os_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
    (void)before;
    (void)in_parent;
    (void)in_child;
}

/* GetLastError() is read first and set last: finding a thread's errno may set it on the way, at the first use in a
 * thread that the C library did not start. */
vmki_os_error vmki_os_error_get(void)
{
    vmki_os_error error;
    error.system = GetLastError();
    error.library = errno;
    return error;
}

void vmki_os_error_set(vmki_os_error error)
{
    errno = error.library;
    SetLastError(error.system);
}

/* RtlGenRandom by the name that it is exported under: Windows XP to this day, documented, Wine too. Its library is not
 * imported: few programs ask for random bits, and each would load it. */
typedef BOOLEAN(WINAPI *generate_function)(PVOID buffer, ULONG length);

static bool system_random(uint64_t *bits)
{
    HMODULE library = GetModuleHandleW(L"advapi32.dll");
    if (library == NULL)
        library = LoadLibraryW(L"advapi32.dll"); /* one of the "known" DLLs: never looked for beside the program */
    uintptr_t address = library != NULL ? (uintptr_t)GetProcAddress(library, "SystemFunction036") : 0;
    return address != 0 && ((generate_function)address)(bits, sizeof(*bits)) != FALSE;
}

/* splitmix64's output function: every bit of the input moves every bit of it. */
static uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint64_t vmki_os_random(void)
{
    uint64_t bits = 0;
    if (system_random(&bits))
        return bits;
    LARGE_INTEGER ticks;
    FILETIME time;
    QueryPerformanceCounter(&ticks);
    GetSystemTimeAsFileTime(&time);
    bits = mixed((uint64_t)ticks.QuadPart);
    bits = mixed(bits ^ ((uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime));
    bits = mixed(bits ^ ((uint64_t)GetCurrentProcessId() << 32 | GetCurrentThreadId()));
    bits = mixed(bits ^ (uintptr_t)&bits);
    return mixed(bits ^ (uintptr_t)&vmki_os_random);
}

/* Past the C library's buffers, which may be what is broken. A program without a console has no such handle. */
void vmki_os_write_error(const char *text, size_t length)
{
    HANDLE output = GetStdHandle(STD_ERROR_HANDLE);
    if (output == NULL || output == INVALID_HANDLE_VALUE)
        return;
    while (length > 0) {
        DWORD written = 0;
        DWORD piece = length < 0x10000 ? (DWORD)length : 0x10000;
        if (!WriteFile(output, text, piece, &written, NULL) || written == 0)
            return;
        text += written;
        length -= written;
    }
}

/* With abort()'s exit code, but not by abort() (a dialog box of the C library, and a report to Microsoft), not by
 * exit() or ExitProcess() (other people's handlers, with a heap that may be broken and vmkit's lock as it is), and not
 * by an exception: Wine's debugger takes seconds and may make the exit code 0. */
VMKI_NORETURN void vmki_os_abort(void)
{
    TerminateProcess(GetCurrentProcess(), 3);
    for (;;) /* doesn't return for the own process, but isn't declared so */
        Sleep(INFINITE);
}

/* --- functions that are newer than Windows 7 -------------------------------------------------------------------- */

#define NOT_THERE ((uintptr_t)1)

/* KERNELBASE first: KERNEL32 doesn't export VirtualAlloc2, though the documentation names it as the DLL. NTDLL has what
 * only drivers' documentation has, or headers. All are loaded in every process, so no library is loaded here. */
uintptr_t vmki_win32_look_up(vmki_win32_lookup *known, const char *name)
{
    uintptr_t address = VMKI_LOAD_RELAXED(known);
    if (address == 0) {
        HMODULE base = GetModuleHandleW(L"kernelbase.dll");
        HMODULE kernel = GetModuleHandleW(L"kernel32.dll");
        HMODULE native = GetModuleHandleW(L"ntdll.dll");
        address = base != NULL ? (uintptr_t)GetProcAddress(base, name) : 0;
        if (address == 0 && kernel != NULL)
            address = (uintptr_t)GetProcAddress(kernel, name);
        if (address == 0 && native != NULL)
            address = (uintptr_t)GetProcAddress(native, name);
        if (address == 0)
            address = NOT_THERE;
        VMKI_STORE_RELAXED(known, address);
    }
    return address == NOT_THERE ? 0 : address;
}
