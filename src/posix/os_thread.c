/* SPDX-License-Identifier: MIT
 *
 * Threads and time.
 */
#include "posix/os_private.h"

#include "posix/os_self.h"

uint64_t vmki_os_clock(void)
{
    struct timespec now = {0, 0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

/* Enough for calls of the system and of vmkit. It is memory that counts against the limits on address space and data,
 * which the usual 8 MiB would do too. */
#define STACK_SIZE ((size_t)64 << 10)

_Static_assert(sizeof(pthread_t) <= sizeof(uintptr_t), "the handle is the thread");

/* What a thread is told. It lives on the stack of who starts it, and until `taken`. */
typedef struct errand {
    void (*body)(void *argument);
    void *argument;
    vmki_os_event taken;
} errand;

static void *thread_run(void *argument)
{
    errand *given = argument;
    void (*body)(void *) = given->body;
    void *body_argument = given->argument;
    vmki_os_event_signal(&given->taken);
    body(body_argument);
    return NULL;
}

/* 0, or the error. The C library takes a thread's own variables off its stack (glibc), and refuses (EINVAL) one that
 * has no room for them: then it shall have the usual stack. */
static int thread_create(pthread_t *thread, errand *given)
{
    pthread_attr_t attributes;
    size_t size = vmki_ceil(vmki_max(STACK_SIZE, vmki_posix_stack_min()), (size_t)sysconf(_SC_PAGESIZE));
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    error = pthread_attr_setstacksize(&attributes, size);
    if (error == 0)
        error = pthread_create(thread, &attributes, thread_run, given);
    (void)pthread_attr_destroy(&attributes);
    return error == EINVAL ? pthread_create(thread, NULL, thread_run, given) : error;
}

vmk_status vmki_os_thread_start(vmki_os_thread *thread, void (*body)(void *argument), void *argument)
{
    errand given = {.body = body, .argument = argument};
    sigset_t all, before;
    pthread_t started;
    /* A thread inherits the mask. Its stack has no room for the program's handlers, nor do they expect to run here. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = thread_create(&started, &given);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        errno = error;
        return error == EAGAIN || error == ENOMEM ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
    }
    while (!vmki_os_event_wait(&given.taken, VMKI_POSIX_FOREVER))
        ;
    thread->handle = (uintptr_t)started;
    return VMK_OK;
}

void vmki_os_thread_join(vmki_os_thread *thread)
{
    (void)pthread_join((pthread_t)thread->handle, NULL);
}

uintptr_t vmki_os_thread_id(void)
{
    return (uintptr_t)pthread_self();
}

void vmki_os_yield(void)
{
    (void)sched_yield();
}

/* --- a pointer of each thread's own ----------------------------------------------------------------------------- */

VMKI_POSIX_OWN void *vmki_posix_self;
VMKI_POSIX_OWN unsigned vmki_posix_ends;

static pthread_key_t self_key;
static void (*self_at_end)(void *self);

static void self_end(void *self)
{
    vmki_posix_self = NULL;
    vmki_posix_ends++;
    self_at_end(self);
}

vmk_status vmki_os_self_init(void (*at_end)(void *self))
{
    self_at_end = at_end;
    int error = pthread_key_create(&self_key, self_end);
    if (error == 0)
        return VMK_OK;
    errno = error;
    return error == ENOMEM ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
}

/* The pointer first: the C library may allocate for what it keeps by key. Without memory it keeps nothing, and the
 * thread's end is not told. */
void vmki_os_self_set(void *self)
{
    vmki_posix_self = self;
    (void)pthread_setspecific(self_key, self);
}
