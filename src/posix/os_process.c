/* SPDX-License-Identifier: MIT
 *
 * The process: fork, error codes, random bits, dying.
 */
#include "posix/os_private.h"

/* --- fork ------------------------------------------------------------------------------------------------------- */

void vmki_os_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
    (void)pthread_atfork(before, in_parent, in_child);
}

/* --- errors ----------------------------------------------------------------------------------------------------- */

vmki_os_error vmki_os_error_get(void)
{
    return (vmki_os_error){.library = errno, .system = 0};
}

void vmki_os_error_set(vmki_os_error error)
{
    errno = error.library;
}

/* --- random bits ------------------------------------------------------------------------------------------------ */

bool vmki_posix_random_file(const char *path, uint64_t *bits)
{
    uint64_t got;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool whole = read(file, &got, sizeof got) == (ssize_t)sizeof got;
    (void)close(file);
    if (whole)
        *bits = got;
    return whole;
}

/* splitmix64's output function: every bit of the input moves every bit of it. */
static uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* The addresses of a function and of the stack move where the system loads programs at random places. */
uint64_t vmki_posix_random_mix(void)
{
    static uintptr_t calls;
    uint64_t bits = mixed(__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED));
    bits = mixed(bits ^ vmki_os_clock());
    bits = mixed(bits ^ (uint64_t)getpid());
    bits = mixed(bits ^ (uintptr_t)&bits);
    return mixed(bits ^ (uintptr_t)&vmki_os_random);
}

uint64_t vmki_os_random(void)
{
    uint64_t bits = 0;
    if (vmki_posix_random(&bits) || vmki_posix_random_file("/dev/urandom", &bits))
        return bits;
    return vmki_posix_random_mix();
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

void vmki_os_write_error(const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

void vmki_os_abort(void)
{
    abort();
}
