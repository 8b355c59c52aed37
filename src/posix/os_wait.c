/* SPDX-License-Identifier: MIT
 *
 * What threads wait with: locks and events, on futexes, and by asking again and again where there are none.
 *
 * A lock is the three-state mutex of U. Drepper, "Futexes Are Tricky": free, held, held and perhaps waited for. A mutex
 * of the C library would not do: the contract wants a word that is unlocked when zero and may be released by the child
 * of a fork. Nobody sleeps on a lock of the child, for it has but one thread; waking nobody is harmless.
 *
 * An event is of three values as well: not signalled, signalled, and not signalled but waited for. Only the last costs
 * whoever signals a system call.
 */
#include "posix/os_private.h"

/* --- locks ------------------------------------------------------------------------------------------------------ */

enum { LOCK_FREE, LOCK_HELD, LOCK_WAITED_FOR };

/* Holds are as short as a system call or shorter: about as long as going to sleep. */
#define SPINS 100

static bool lock_take_free(uintptr_t *word)
{
    uintptr_t expected = LOCK_FREE;
    return __atomic_compare_exchange_n(word, &expected, LOCK_HELD, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static VMKI_COLD void lock_wait(uintptr_t *word)
{
    int error = errno; /* waiting that ends otherwise than by a wake sets it, and taking a lock is no failure */
    for (unsigned spin = 0; spin < SPINS; spin++) {
        if (VMKI_LOAD_RELAXED(word) == LOCK_FREE && lock_take_free(word))
            return;
    }
    /* From here on whoever releases must wake one, even if this one gets the lock without having slept. */
    for (unsigned round = 0; __atomic_exchange_n(word, LOCK_WAITED_FOR, __ATOMIC_ACQUIRE) != LOCK_FREE; round++)
        vmki_posix_sleep(word, LOCK_WAITED_FOR, VMKI_POSIX_FOREVER, round);
    errno = error;
}

void vmki_os_lock_acquire(vmki_os_lock *lock)
{
    if (VMKI_UNLIKELY(!lock_take_free(&lock->word)))
        lock_wait(&lock->word);
}

bool vmki_os_lock_try(vmki_os_lock *lock)
{
    return lock_take_free(&lock->word);
}

void vmki_os_lock_release(vmki_os_lock *lock)
{
    if (VMKI_UNLIKELY(__atomic_exchange_n(&lock->word, LOCK_FREE, __ATOMIC_RELEASE) == LOCK_WAITED_FOR)) {
        int error = errno;
        vmki_posix_wake(&lock->word, 1);
        errno = error;
    }
}

/* --- events ----------------------------------------------------------------------------------------------------- */

enum { EVENT_QUIET, EVENT_SIGNALLED, EVENT_WAITED_FOR };

/* Is it signalled? If not, who signals it from now on must wake. */
static bool event_watch(uintptr_t *word)
{
    uintptr_t expected = EVENT_QUIET;
    (void)__atomic_compare_exchange_n(word, &expected, EVENT_WAITED_FOR, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE);
    return expected == EVENT_SIGNALLED;
}

static VMKI_COLD bool event_sleep(uintptr_t *word, uint64_t nanoseconds)
{
    uint64_t start = vmki_os_clock(), passed = 0;
    bool signalled = false;
    for (unsigned round = 0; passed < nanoseconds; round++) {
        signalled = event_watch(word);
        if (signalled)
            break;
        uint64_t rest = nanoseconds == VMKI_POSIX_FOREVER ? VMKI_POSIX_FOREVER : nanoseconds - passed;
        vmki_posix_sleep(word, EVENT_WAITED_FOR, rest, round);
        passed = vmki_os_clock() - start;
    }
    return signalled || __atomic_load_n(word, __ATOMIC_ACQUIRE) == EVENT_SIGNALLED;
}

bool vmki_os_event_wait(vmki_os_event *event, uint64_t nanoseconds)
{
    uintptr_t *word = &event->word[0];
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == EVENT_SIGNALLED)
        return true;
    int error = errno; /* not to be signalled is no failure */
    bool signalled = event_sleep(word, nanoseconds);
    errno = error;
    return signalled;
}

void vmki_os_event_signal(vmki_os_event *event)
{
    uintptr_t *word = &event->word[0];
    if (__atomic_exchange_n(word, EVENT_SIGNALLED, __ATOMIC_SEQ_CST) == EVENT_WAITED_FOR) {
        int error = errno;
        vmki_posix_wake(word, INT_MAX);
        errno = error;
    }
}

/* Whoever waits stays noted as waiting. */
void vmki_os_event_reset(vmki_os_event *event)
{
    uintptr_t expected = EVENT_SIGNALLED;
    (void)__atomic_compare_exchange_n(&event->word[0], &expected, EVENT_QUIET, false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST);
}
