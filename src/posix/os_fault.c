/* SPDX-License-Identifier: MIT
 *
 * Faults by writes to protected memory, and the protection of memory that is no reservation.
 *
 * The handler of signals is installed once. What is not a write that somebody here wants goes to the handler that was
 * there before, as the kernel would have called it, with two differences. SIGSEGV is not blocked while that one runs:
 * it may itself write to memory that is protected, and the kernel ends a process whose fault is blocked. And where
 * there was none, the default is put back, and the fault happens again.
 */
#include "posix/os_service_private.h"

static bool (*asked)(void *address);
static struct sigaction before[VMKI_POSIX_FAULT_SIGNALS];
static vmki_os_lock lock;
static bool installed; /* under the lock */

static const struct sigaction *action_before(int signal)
{
    size_t which = 0;
    while (which + 1 < VMKI_POSIX_FAULT_SIGNALS && vmki_posix_fault_signals[which] != signal)
        which++;
    return &before[which];
}

/* The signals that are blocked while the handler before runs: those that were, and those that it wants to be. */
static void block_as_before(const struct sigaction *action, const void *context)
{
    sigset_t mask = *vmki_posix_interrupted_mask(context);
    for (int signal = 1; signal < 65; signal++)
        if (sigismember(&action->sa_mask, signal) == 1)
            (void)sigaddset(&mask, signal);
    for (size_t i = 0; i < VMKI_POSIX_FAULT_SIGNALS; i++)
        (void)sigdelset(&mask, vmki_posix_fault_signals[i]);
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* Nobody wants it: let the system do what it does by default. A signal that was sent, and is no fault, doesn't happen
 * again by itself. */
static void by_default(int signal, const siginfo_t *info)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(signal, &action, NULL);
    if (info->si_code <= 0)
        (void)raise(signal);
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
    const struct sigaction *action = action_before(signal);
    if ((action->sa_flags & SA_SIGINFO) != 0) {
        block_as_before(action, context);
        action->sa_sigaction(signal, info, context);
    } else if (action->sa_handler == SIG_DFL || (action->sa_handler == SIG_IGN && info->si_code > 0)) {
        by_default(signal, info);
    } else if (action->sa_handler != SIG_IGN) {
        block_as_before(action, context);
        action->sa_handler(signal);
    }
}

VMKI_IN_HANDLER static void on_signal(int signal, siginfo_t *info, void *context)
{
    int error = errno;
    if (!vmki_posix_fault_writes(info, context) || !asked(info->si_addr))
        pass_on(signal, info, context);
    errno = error;
}

/* All other signals wait while it runs: who stops threads by one shall find none inside. */
vmk_status vmki_os_fault_handler(bool (*handler)(void *address))
{
    struct sigaction action;
    bool done = true;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    (void)sigfillset(&action.sa_mask);
    vmki_os_lock_acquire(&lock);
    if (!installed) {
        asked = handler;
        for (size_t i = 0; i < VMKI_POSIX_FAULT_SIGNALS; i++) /* before: for a fault between the two */
            done = sigaction(vmki_posix_fault_signals[i], NULL, &before[i]) == 0 && done;
        for (size_t i = 0; i < VMKI_POSIX_FAULT_SIGNALS && done; i++)
            done = sigaction(vmki_posix_fault_signals[i], &action, NULL) == 0;
        installed = done;
    }
    vmki_os_lock_release(&lock);
    return done ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

/* --- static data ------------------------------------------------------------------------------------------------ */

/* Where the system doesn't tell (no such file), the caller is believed. */
bool vmki_os_static_writable(const void *base, size_t size)
{
    static const char wanted[] = " rw-p ";
    uint64_t at = (uintptr_t)base, limit = at + size, low, high;
    vmki_posix_lines in;
    char line[128];
    if (!vmki_posix_lines_open(&in, "/proc/self/maps"))
        return true;
    while (at < limit && vmki_posix_lines_next(&in, line, sizeof line)) { /* in ascending order */
        const char *access = vmki_posix_range_in(line, &low, &high);
        if (low <= at && at < high) {
            if (strncmp(access, wanted, sizeof wanted - 1) != 0)
                break;
            at = high;
        }
    }
    vmki_posix_lines_close(&in);
    return at >= limit;
}

vmk_status vmki_os_static_protect(void *base, size_t size, vmk_access access)
{
    return vmki_os_protect(base, size, access);
}
