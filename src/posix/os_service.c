/* SPDX-License-Identifier: MIT
 *
 * Guards in the page table, prefault, residency; and which advice there is.
 *
 * Nothing is taken from headers or from a success alone: emulators have been seen to say yes to any advice, and to do
 * nothing. So guards and prefault are tried out, once, on pages of their own.
 */
#include "posix/os_private.h"

#include "common/base/os_service.h"

typedef enum ability { UNKNOWN, ABLE, UNABLE } ability;

/* Two committed pages to try things on, or NULL. */
static unsigned char *pair_make(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    vmki_os_request request = {.size = 2 * page_size, .align = page_size};
    void *pair;
    if (vmki_os_reserve(&request, &pair) != VMK_OK)
        return NULL;
    if (vmki_os_commit(pair, request.size) == VMK_OK)
        return pair;
    vmki_os_release(pair, request.size);
    return NULL;
}

static void pair_end(unsigned char *pair)
{
    vmki_os_release(pair, 2 * (size_t)sysconf(_SC_PAGESIZE));
}

/* --- guards ----------------------------------------------------------------------------------------------------- */

/* Can the kernel read what is here? Asked with a path, which is looked at before it is looked up. */
static bool readable(const unsigned char *address)
{
    return access((const char *)address, F_OK) == 0 || errno != EFAULT;
}

static ability try_guards(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pair = pair_make();
    if (pair == NULL)
        return UNKNOWN; /* for want of memory */
    bool able = madvise(pair, page_size, VMKI_POSIX_GUARD_INSTALL) == 0 && !readable(pair) &&
                readable(pair + page_size) && madvise(pair, page_size, VMKI_POSIX_GUARD_REMOVE) == 0 && readable(pair);
    pair_end(pair);
    return able ? ABLE : UNABLE;
}

static uint8_t guards;

static bool guards_work(void)
{
    uint8_t state = VMKI_LOAD_RELAXED(&guards);
    if (state == UNKNOWN) {
        state = VMKI_POSIX_GUARD_INSTALL != VMKI_POSIX_NO_ADVICE ? (uint8_t)try_guards() : UNABLE;
        VMKI_STORE_RELAXED(&guards, state); /* who else is here finds the same */
    }
    return state == ABLE;
}

void vmki_posix_guards_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&guards, forbidden ? UNABLE : UNKNOWN);
}

static int guard_advise(void *base, size_t size, int advice)
{
    int result;
    do
        result = madvise(base, size, advice);
    while (result != 0 && (errno == EINTR || errno == EAGAIN)); /* a race with who faults, or with a signal */
    return result;
}

/* Refused where pages are locked, by older kernels. */
vmk_status vmki_os_guard_set(void *base, size_t size)
{
    if (!guards_work() || guard_advise(base, size, VMKI_POSIX_GUARD_INSTALL) != 0)
        return VMK_ERR_UNSUPPORTED;
    return VMK_OK;
}

void vmki_os_guard_clear(void *base, size_t size)
{
    int error = errno;
    if (guards_work())
        (void)guard_advise(base, size, VMKI_POSIX_GUARD_REMOVE);
    errno = error;
}

/* --- prefault --------------------------------------------------------------------------------------------------- */

static ability try_prefault(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pair = pair_make();
    if (pair == NULL)
        return UNKNOWN;
    bool able = madvise(pair, 2 * page_size, VMKI_POSIX_POPULATE) == 0 && vmki_posix_resident(pair, page_size) &&
                vmki_posix_resident(pair + page_size, page_size);
    pair_end(pair);
    return able ? ABLE : UNABLE;
}

static uint8_t prefault;

static bool prefault_works(void)
{
    uint8_t state = VMKI_LOAD_RELAXED(&prefault);
    if (state == UNKNOWN) {
        state = VMKI_POSIX_POPULATE != VMKI_POSIX_NO_ADVICE ? (uint8_t)try_prefault() : UNABLE;
        VMKI_STORE_RELAXED(&prefault, state);
    }
    return state == ABLE;
}

void vmki_posix_prefault_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&prefault, forbidden ? UNABLE : UNKNOWN);
}

vmk_status vmki_os_prefault(void *base, size_t size)
{
    if (!prefault_works())
        return VMK_ERR_UNSUPPORTED;
    int result;
    do
        result = madvise(base, size, VMKI_POSIX_POPULATE);
    while (result != 0 && (errno == EINTR || errno == EAGAIN));
    if (result == 0)
        return VMK_OK;
    return errno == ENOMEM ? VMK_ERR_COMMIT : VMK_ERR_ARGUMENT; /* EFAULT: somebody may not write there */
}

/* --- residency -------------------------------------------------------------------------------------------------- */

vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *pages)
{
    size_t count = size / (size_t)sysconf(_SC_PAGESIZE);
    if (!vmki_posix_mincore(base, size, pages))
        return VMK_ERR_UNSUPPORTED;
    for (size_t i = 0; i < count; i++)
        pages[i] &= 1; /* other bits say other things, or nothing */
    return VMK_OK;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_service(vmk_caps *caps)
{
    unsigned char *pair = pair_make();
    unsigned char known[2];
    if (guards_work())
        caps->features |= VMK_CAP_GUARDS;
    if (prefault_works())
        caps->features |= VMK_CAP_PREFAULT;
    if (pair == NULL)
        return;
    *pair = 1;
    if (vmki_os_residency(pair, 2 * caps->page_size, known) == VMK_OK && known[0] == 1 && known[1] == 0)
        caps->features |= VMK_CAP_RESIDENCY;
    for (unsigned advice = VMK_ADVICE_NO_HUGE + 1; advice < VMK_ADVICES; advice++)
        if (vmki_posix_advice_known((vmk_advice)advice))
            caps->advice |= 1u << advice;
    if (vmki_os_advise(pair, 2 * caps->page_size, VMK_ADVICE_HUGE) == VMK_OK) {
        caps->features |= VMK_CAP_HUGE_ADVICE;
        caps->advice |= 1u << VMK_ADVICE_HUGE | 1u << VMK_ADVICE_NO_HUGE;
    }
    pair_end(pair);
}
