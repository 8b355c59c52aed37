/* SPDX-License-Identifier: MIT
 *
 * The part of os_private.h that only os_world.c and os_roots.c need: where POSIX systems differ in threads that are
 * stopped, and in what they and the program have.
 */
#ifndef VMKI_POSIX_OS_WORLD_PRIVATE_H
#define VMKI_POSIX_OS_WORLD_PRIVATE_H

#include "posix/os_private.h"

#include <sys/uio.h>

#include "common/base/os_world.h"

/* ThreadSanitizer runs handlers of signals late. */
#if defined(VMKI_POSIX_TSAN)
#define VMKI_POSIX_LATE_HANDLERS 1
#else
#define VMKI_POSIX_LATE_HANDLERS 0
#endif

/* What the kernel calls the calling thread; 0 where it has no names but the C library's. */
static inline uintptr_t vmki_posix_thread_number(void)
{
#if defined(SYS_gettid) && defined(SYS_tgkill)
    return (uintptr_t)syscall(SYS_gettid);
#else
    return 0;
#endif
}

/* 0, or an error; ESRCH: it has ended. pthread_kill must not be asked about a thread that may have ended: glibc before
 * 2.34 reads its memory, later ones say that all went well. */
static inline int vmki_posix_thread_signal(uintptr_t thread, uintptr_t number, int signal)
{
#if defined(SYS_gettid) && defined(SYS_tgkill)
    (void)thread;
    return syscall(SYS_tgkill, getpid(), (pid_t)number, signal) == 0 ? 0 : errno;
#else
    (void)number;
    return pthread_kill((pthread_t)thread, signal);
#endif
}

/* The stack of the calling thread: 0, or an error. */
static inline int vmki_posix_stack(void **low, void **high)
{
#if defined(__APPLE__)
    *high = pthread_get_stackaddr_np(pthread_self());
    *low = (char *)*high - pthread_get_stacksize_np(pthread_self());
    return 0;
#elif defined(__OpenBSD__)
    stack_t stack;
    int error = pthread_stackseg_np(pthread_self(), &stack);
    if (error == 0) {
        *high = stack.ss_sp;
        *low = (char *)stack.ss_sp - stack.ss_size;
    }
    return error;
#elif defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__)
    pthread_attr_t attributes;
    size_t size = 0;
#if defined(__linux__)
    int error = pthread_getattr_np(pthread_self(), &attributes);
    if (error != 0)
        return error;
#else
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    error = pthread_attr_get_np(pthread_self(), &attributes);
#endif
    if (error == 0)
        error = pthread_attr_getstack(&attributes, low, &size);
    *high = (char *)*low + size;
    (void)pthread_attr_destroy(&attributes);
    return error;
#else
    (void)low, (void)high;
    return ENOSYS;
#endif
}

/* Does the C library say how far down the main thread's stack may grow? musl says how far it has by now. */
#if defined(__GLIBC__)
#define VMKI_POSIX_GROWTH_TOLD 1
#else
#define VMKI_POSIX_GROWTH_TOLD 0
#endif

/* The register that compilers find thread-local storage by; NULL: not known how to read. */
static inline void *vmki_posix_thread_pointer(void)
{
    void *pointer = NULL;
#if defined(__linux__) && defined(__x86_64__)
    __asm__("mov %%fs:0, %0" : "=r"(pointer)); /* which points to itself */
#elif defined(__linux__) && defined(__i386__)
    __asm__("movl %%gs:0, %0" : "=r"(pointer));
#elif defined(__linux__) && defined(__aarch64__)
    __asm__("mrs %0, tpidr_el0" : "=r"(pointer));
#elif defined(__linux__) && defined(__riscv)
    __asm__("mv %0, tp" : "=r"(pointer));
#endif
    return pointer;
}

/* Can the word be read? Asked of the kernel, which reads the new mask before it finds that there is no such thing to be
 * done with it. True also where there is nobody to ask. */
static inline bool vmki_posix_readable(const void *word)
{
#if defined(SYS_rt_sigprocmask)
    const int no_such_thing = 99;
    return syscall(SYS_rt_sigprocmask, no_such_thing, word, NULL, (size_t)8) == 0 || errno != EFAULT;
#else
    (void)word;
    return true;
#endif
}

/* Have the kernel read where each of `from` says, with the rights that the calling thread has now, and write it to
 * `to`: so many bytes were done before one could not be read, or -1. It is asked to write to the memory of another
 * process, which is this one: named by the thread, as the main thread may have ended. */
static inline long vmki_posix_gather(const struct iovec *from, size_t count, void *to)
{
#if defined(SYS_process_vm_writev) && defined(SYS_gettid)
    struct iovec here = {to, 0};
    for (size_t i = 0; i < count; i++)
        here.iov_len += from[i].iov_len;
    return syscall(SYS_process_vm_writev, syscall(SYS_gettid), from, count, &here, (size_t)1, (size_t)0);
#else
    (void)from, (void)count, (void)to;
    errno = ENOSYS;
    return -1;
#endif
}

/* Android has no cancellation of threads. */
static inline int vmki_posix_cancel_forbid(void)
{
    int before = 0;
#if defined(PTHREAD_CANCEL_DISABLE)
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
#endif
    return before;
}

static inline void vmki_posix_cancel_allow(int before)
{
#if defined(PTHREAD_CANCEL_DISABLE)
    (void)pthread_setcancelstate(before, &before);
#else
    (void)before;
#endif
}

/* Each page for itself. */
static inline void vmki_posix_huge_forbid(void *base, size_t size)
{
#if defined(MADV_NOHUGEPAGE)
    (void)madvise(base, size, MADV_NOHUGEPAGE);
#else
    (void)base, (void)size;
#endif
}

/* The address of the instruction that a signal interrupted; 0: not known. */
static inline uintptr_t vmki_posix_interrupted_at(const void *context)
{
    const ucontext_t *interrupted = context;
#if defined(__linux__) && defined(__x86_64__)
    return (uintptr_t)interrupted->uc_mcontext.gregs[16]; /* REG_RIP */
#elif defined(__linux__) && defined(__aarch64__)
    return (uintptr_t)interrupted->uc_mcontext.pc;
#else
    (void)interrupted;
    return 0;
#endif
}

/* Put another function in the place of a signal's handler, behind the C library's back. */
typedef void vmki_posix_handler(int signal, siginfo_t *info, void *context);

static inline vmki_posix_handler *vmki_posix_handler_replace(int signal, vmki_posix_handler *handler)
{
    vmki_posix_handler *before = NULL;
#if defined(SYS_rt_sigaction)
    uintptr_t action[16] = {0}; /* the kernel's struct, which begins with the handler */
    if (syscall(SYS_rt_sigaction, signal, NULL, action, (size_t)8) != 0)
        return NULL;
    memcpy(&before, &action[0], sizeof before);
    memcpy(&action[0], &handler, sizeof handler);
    if (syscall(SYS_rt_sigaction, signal, action, NULL, (size_t)8) != 0)
        return NULL;
#else
    (void)signal, (void)handler;
#endif
    return before;
}

/* Who tells of libraries: dl_iterate_phdr, or macOS' loader. */
#if defined(__APPLE__)
#define VMKI_POSIX_DYLD 1
#else
#define VMKI_POSIX_DYLD 0
#endif

/* os_roots.c: find out how this C library keeps what threads have of their own. `key` has no value yet, and has none
 * afterwards. */
void vmki_posix_roots_init(pthread_key_t key);

/* What the system can be asked about pages. Have it do without some of that, for tests; returns what is left. */
enum {
    VMKI_POSIX_BY_SCAN = 1,    /* which were touched: by PAGEMAP_SCAN */
    VMKI_POSIX_BY_ENTRIES = 2, /* by the entries of pagemap */
    VMKI_POSIX_IN_BATCHES = 4  /* which can be read: many at once */
};
unsigned vmki_posix_roots_forbid(unsigned what);

/* Where in vmki_os_mutator.system what is. */
enum { VMKI_POSIX_THREAD, VMKI_POSIX_NUMBER, VMKI_POSIX_POINTER };

#endif
