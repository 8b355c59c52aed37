/* SPDX-License-Identifier: MIT
 *
 * The process: a lock, the error codes, and the way out. There is no fork here, so nothing to do about it.
 */
#include "os_private.h"

#include <errno.h>

/* A slim lock is one word, and SRWLOCK_INIT is all zero; neither needs an end. It spins a little and then sleeps. */
_Static_assert(sizeof(SRWLOCK) == sizeof(vmki_os_lock), "the word is the lock");
_Static_assert(_Alignof(SRWLOCK) <= _Alignof(vmki_os_lock), "the word is the lock");

void vmki_os_lock_acquire(vmki_os_lock *lock)
{
    AcquireSRWLockExclusive((PSRWLOCK)(void *)&lock->word);
}

void vmki_os_lock_release(vmki_os_lock *lock)
{
    ReleaseSRWLockExclusive((PSRWLOCK)(void *)&lock->word);
}

void vmki_os_at_fork(void (*before)(void), void (*after)(void))
{
    (void)before;
    (void)after;
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
