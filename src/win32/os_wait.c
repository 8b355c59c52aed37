/* SPDX-License-Identifier: MIT
 *
 * What threads wait with: locks and events.
 *
 * The system has both, and they can't be used here. A thread may be suspended anywhere (os_world.c), and Wine keeps who
 * waits for a slim lock or a condition in lists with spin locks, a few for all addresses: if one is suspended in there,
 * whoever releases such a lock spins for ever. So who waits here stands in a list of the lock's own, which needs no
 * lock, and sleeps on an object of the kernel's; what a releaser does is a few atomic instructions and a call of the
 * kernel, whatever has become of those that wait.
 */
#include "os_private.h"

/* One thread that waits, on its own stack until it is woken. */
typedef struct waiter {
    struct waiter *next;
    HANDLE event; /* reset by the system when one has been woken by it */
    bool told;
} waiter;

/* --- objects of the kernel's to sleep on ------------------------------------------------------------------------ */

enum { KEPT = 32, SPINS = 100 };

static HANDLE kept[KEPT]; /* for whoever waits next */

/* NULL: there is no more of them. */
static HANDLE sleeper_take(void)
{
    for (int i = 0; i < KEPT; i++)
        if (__atomic_load_n(&kept[i], __ATOMIC_RELAXED) != NULL) {
            HANDLE event = __atomic_exchange_n(&kept[i], NULL, __ATOMIC_ACQUIRE);
            if (event != NULL)
                return event;
        }
    return CreateEventW(NULL, FALSE, FALSE, NULL);
}

/* It isn't signalled. */
static void sleeper_give(HANDLE event)
{
    for (int i = 0; i < KEPT; i++) {
        HANDLE none = NULL;
        if (__atomic_compare_exchange_n(&kept[i], &none, event, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
    }
    CloseHandle(event);
}

/* --- locks ------------------------------------------------------------------------------------------------------ */

/* The lowest bit of the word: it is held. The rest: the youngest of those that wait, who put themselves there. Only who
 * holds the lock takes them out, the oldest first. */
#define HELD ((uintptr_t)1)

static waiter *youngest_of(uintptr_t word)
{
    return (waiter *)(word & ~HELD);
}

static bool lock_take(vmki_os_lock *lock, uintptr_t word)
{
    return (word & HELD) == 0 &&
           __atomic_compare_exchange_n(&lock->word, &word, word | HELD, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

bool vmki_os_lock_try(vmki_os_lock *lock)
{
    uintptr_t word = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
    while ((word & HELD) == 0) { /* it may have failed for one who came to wait */
        if (lock_take(lock, word))
            return true;
        word = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
    }
    return false;
}

/* Get in line, and sleep until woken. */
static void lock_await(vmki_os_lock *lock, HANDLE event)
{
    waiter self = {.event = event};
    uintptr_t word = __atomic_load_n(&lock->word, __ATOMIC_RELAXED);
    do {
        if ((word & HELD) == 0)
            return;
        self.next = youngest_of(word);
    } while (!__atomic_compare_exchange_n(&lock->word, &word, (uintptr_t)&self | HELD, false, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    WaitForSingleObject(event, INFINITE);
}

static VMKI_COLD void lock_acquire_slowly(vmki_os_lock *lock)
{
    for (int i = 0; i < SPINS; i++) {
        YieldProcessor();
        if (vmki_os_lock_try(lock))
            return;
    }
    DWORD error = GetLastError(); /* to wait is no failure */
    HANDLE event = sleeper_take();
    while (!vmki_os_lock_try(lock)) {
        if (event != NULL)
            lock_await(lock, event);
        else
            Sleep(1);
    }
    if (event != NULL)
        sleeper_give(event);
    SetLastError(error);
}

void vmki_os_lock_acquire(vmki_os_lock *lock)
{
    if (!lock_take(lock, 0))
        lock_acquire_slowly(lock);
}

/* Whoever is woken is out of the list, so each release wakes another one. */
void vmki_os_lock_release(vmki_os_lock *lock)
{
    for (;;) {
        uintptr_t word = __atomic_load_n(&lock->word, __ATOMIC_ACQUIRE);
        waiter *before = NULL, *oldest = youngest_of(word);
        while (oldest != NULL && oldest->next != NULL) {
            before = oldest;
            oldest = oldest->next;
        }
        if (before != NULL) {
            before->next = NULL;
            __atomic_fetch_and(&lock->word, ~HELD, __ATOMIC_RELEASE);
        } else if (!__atomic_compare_exchange_n(&lock->word, &word, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
            continue; /* one has come to wait */
        }
        if (oldest != NULL)
            SetEvent(oldest->event);
        return;
    }
}

/* --- events ----------------------------------------------------------------------------------------------------- */

/* The words of an event: a vmki_os_lock, is it signalled, and who waits, both under the lock. */
enum { EVENT_LOCK, EVENT_SIGNALLED, EVENT_WAITERS };

_Static_assert(sizeof(vmki_os_lock) == sizeof(uintptr_t), "the first word is the lock");

static vmki_os_lock *lock_of(vmki_os_event *event)
{
    return (vmki_os_lock *)(void *)&event->word[EVENT_LOCK];
}

static waiter *first_of(const vmki_os_event *event)
{
    return (waiter *)event->word[EVENT_WAITERS];
}

/* Rounded up, and less than INFINITE, which is the largest. */
static DWORD milliseconds(uint64_t nanoseconds)
{
    uint64_t ms = nanoseconds / 1000000 + (nanoseconds % 1000000 != 0);
    return ms < INFINITE ? (DWORD)ms : INFINITE - 1;
}

/* Under the lock, here and everywhere: whoever has seen the signal can give the event's memory back, since who
 * signalled is done with it. */
static bool signalled(vmki_os_event *event)
{
    vmki_os_lock_acquire(lock_of(event));
    bool is = event->word[EVENT_SIGNALLED] != 0;
    vmki_os_lock_release(lock_of(event));
    return is;
}

/* False: it is signalled. */
static bool waiter_add(vmki_os_event *event, waiter *self)
{
    vmki_os_lock_acquire(lock_of(event));
    bool waits = event->word[EVENT_SIGNALLED] == 0;
    if (waits) {
        self->next = first_of(event);
        event->word[EVENT_WAITERS] = (uintptr_t)self;
    }
    vmki_os_lock_release(lock_of(event));
    return waits;
}

/* Has it been told? Then it is out of the list already. */
static bool waiter_drop(vmki_os_event *event, waiter *self)
{
    vmki_os_lock_acquire(lock_of(event));
    if (!self->told) {
        waiter *before = NULL;
        for (waiter *w = first_of(event); w != self; w = w->next)
            before = w;
        if (before != NULL)
            before->next = self->next;
        else
            event->word[EVENT_WAITERS] = (uintptr_t)self->next;
    }
    vmki_os_lock_release(lock_of(event));
    return self->told;
}

/* There is nothing to sleep on. */
static bool wait_by_asking(vmki_os_event *event, uint64_t nanoseconds)
{
    for (uint64_t start = vmki_os_clock(); !signalled(event);) {
        if (vmki_os_clock() - start >= nanoseconds)
            return false;
        Sleep(1);
    }
    return true;
}

bool vmki_os_event_wait(vmki_os_event *event, uint64_t nanoseconds)
{
    if (signalled(event))
        return true;
    if (nanoseconds == 0)
        return false;
    DWORD error = GetLastError(); /* not to be signalled is no failure */
    waiter self = {.event = sleeper_take()};
    bool woken = true;
    if (self.event == NULL) {
        woken = wait_by_asking(event, nanoseconds);
    } else {
        if (waiter_add(event, &self)) {
            WaitForSingleObject(self.event, milliseconds(nanoseconds));
            woken = waiter_drop(event, &self);
            ResetEvent(self.event); /* told when time was up */
        }
        sleeper_give(self.event);
    }
    SetLastError(error);
    return woken;
}

void vmki_os_event_signal(vmki_os_event *event)
{
    vmki_os_lock_acquire(lock_of(event));
    event->word[EVENT_SIGNALLED] = 1;
    for (waiter *w = first_of(event); w != NULL; w = w->next) {
        w->told = true; /* it can't go before the lock is released */
        SetEvent(w->event);
    }
    event->word[EVENT_WAITERS] = 0;
    vmki_os_lock_release(lock_of(event));
}

void vmki_os_event_reset(vmki_os_event *event)
{
    vmki_os_lock_acquire(lock_of(event));
    event->word[EVENT_SIGNALLED] = 0;
    vmki_os_lock_release(lock_of(event));
}
