/* SPDX-License-Identifier: MIT
 *
 * Threads are interrupted by a signal. Its handler runs on the stack where the thread is, so the frame that the kernel
 * makes for it, with all registers, lies between the thread's data and the handler's own frame: whoever scans the stack
 * from the handler's frame on has the registers too, those of vectors as well.
 *
 * The handler finds the mutator by a variable of its own, which stays when the one of the contract is NULL already: a
 * thread that ends waits for the collector's locks in at_end, and must be stopped there like anywhere.
 */
#include "posix/os_world_private.h"

#include "posix/os_self.h"

VMKI_POSIX_OWN vmki_os_mutator *vmki_posix_mutator;
static __attribute__((tls_model("initial-exec"))) _Thread_local vmki_os_mutator *described;

static void (*called_here)(vmki_os_mutator *mutator, void *sp);
static void (*called_at_end)(vmki_os_mutator *mutator);
static pthread_key_t key;
static int the_signal; /* 0: none that can be had */

/* --- in the handler --------------------------------------------------------------------------------------------- */

static uintptr_t tries; /* how often the handler has run for one that is no mutator */

/* Below all frames of the callers. */
static __attribute__((noinline)) void call_here(vmki_os_mutator *mutator)
{
    called_here(mutator, __builtin_frame_address(0));
}

/* A handler that is called late by a function of ThreadSanitizer's finds in the registers what they had when that was
 * called, and not in a frame of the kernel's. */
static __attribute__((noinline)) void call_here_late(vmki_os_mutator *mutator)
{
    _Alignas(16) unsigned char registers[VMKI_OS_REGISTERS];
    vmki_os_registers_save(registers);
    call_here(mutator);
    __asm__ volatile("" : : "r"(registers) : "memory");
}

static void answer(void)
{
    int error = errno;
    if (described == NULL)
        (void)__atomic_add_fetch(&tries, 1, __ATOMIC_RELAXED);
    else if (VMKI_POSIX_LATE_HANDLERS)
        call_here_late(described);
    else
        call_here(described);
    errno = error;
}

/* --- ThreadSanitizer -------------------------------------------------------------------------------------------- */

/* It puts a handler of its own before ours, which runs ours when the thread comes to one of its functions the next
 * time: never, where it sleeps in one that is not known to sleep (a system call by syscall(), pthread_mutex_lock before
 * LLVM 16). To run ours at once would not do either: the thread may have been interrupted within ThreadSanitizer's own
 * code, with a lock held that whoever goes on while this thread stands still will need. So it is asked where the thread
 * is: outside the program's code, which is what ThreadSanitizer is linked into (or has a library of its own: gcc), our
 * handler runs at once, else late. */
typedef struct code_range {
    uintptr_t low, high;
} code_range;

static code_range watched[2];
static vmki_posix_handler *late;

VMKI_IN_HANDLER static bool in_watched(uintptr_t at)
{
    return (at >= watched[0].low && at < watched[0].high) || (at >= watched[1].low && at < watched[1].high);
}

/* --- emulators -------------------------------------------------------------------------------------------------- */

#if defined(__linux__) && defined(__i386__)

#include <cpuid.h>

/* qemu-i386 (7.2, and as far as its sources tell all before and some after) has one table of segments for all threads.
 * The return from a signal loads %gs from it anew, and the thread goes on with the thread pointer of whoever was
 * started last. There the handler returns without the kernel: mask, floating point and registers are put back from the
 * frame by the program itself, and %gs stays as it is. That is right on any kernel. */
static bool emulated(void)
{
    unsigned a, b, c, d;
    __cpuid(0x40000000, a, b, c, d);
    return b == 0x54474354 && c == 0x43544743 && d == 0x47435447; /* "TCGTCGTCGTCG" */
}

typedef struct float_state {
    _Alignas(16) unsigned char bytes[512];
} float_state;

/* The state of floating point comes twice: in the old form, and 112 bytes behind it in the new one, which has vectors
 * too. qemu has the old part of the new one empty, so both are put back.
 *
 * The words for the last instructions are laid below the interrupted stack, over the frame's far end, which nobody
 * needs any more. In the order of popa: eax, ecx, edx, ebx, esp, ebp, esi, edi.
 *
 * The mask comes when the stack is back, or each stop that follows while this one ends would take a frame more of it.
 */
enum { MASK_OFFSET = offsetof(ucontext_t, uc_sigmask) - offsetof(ucontext_t, uc_mcontext.gregs) };

static VMKI_NORETURN void go_back(const greg_t *registers, const void *floats, const void *vectors, bool extended)
{
    __asm__ volatile("testl %3, %3\n\t"
                     "jz 1f\n\t"
                     "movl 464+8(%2), %%eax\n\t" /* which parts there are: struct _fpx_sw_bytes */
                     "movl 464+12(%2), %%edx\n\t"
                     "xrstor (%2)\n\t"
                     "jmp 2f\n"
                     "1:\tfxrstor (%2)\n"
                     "2:\tfrstor (%1)\n\t"
                     "movl 28(%0), %%ebx\n\t" /* REG_ESP, then REG_EIP, REG_EFL */
                     "movl 56(%0), %%eax\n\tmovl %%eax, -4(%%ebx)\n\t"
                     "movl 64(%0), %%eax\n\tmovl %%eax, -8(%%ebx)\n\t"
                     "movl 44(%0), %%eax\n\tmovl %%eax, -12(%%ebx)\n\t"
                     "movl 40(%0), %%eax\n\tmovl %%eax, -16(%%ebx)\n\t"
                     "movl 36(%0), %%eax\n\tmovl %%eax, -20(%%ebx)\n\t"
                     "movl 32(%0), %%eax\n\tmovl %%eax, -24(%%ebx)\n\t"
                     "movl 24(%0), %%eax\n\tmovl %%eax, -32(%%ebx)\n\t"
                     "movl 20(%0), %%eax\n\tmovl %%eax, -36(%%ebx)\n\t"
                     "movl 16(%0), %%eax\n\tmovl %%eax, -40(%%ebx)\n\t"
                     "leal -40(%%ebx), %%esp\n\t"
                     "leal %c4(%0), %%ecx\n\t"
                     "movl %5, %%ebx\n\t"
                     "xorl %%edx, %%edx\n\t"
                     "movl $8, %%esi\n\t"
                     "movl %6, %%eax\n\t"
                     "int $0x80\n\t"
                     "popal\n\t"
                     "popfl\n\t"
                     "ret"
                     :
                     : "S"(registers), "b"(floats), "D"(vectors), "c"((int)extended), "i"(MASK_OFFSET),
                       "i"(SIG_SETMASK), "i"(SYS_rt_sigprocmask)
                     : "memory", "eax", "edx");
    __builtin_unreachable();
}

/* A mark says that the new form has more parts than it used to; then it is aligned for the instruction. */
static void return_by_hand(ucontext_t *context)
{
    const uint32_t extended_mark = 0x46505853;
    const unsigned char *floats = (const unsigned char *)context->uc_mcontext.fpregs, *vectors = floats + 112;
    float_state copy;
    uint32_t mark;
    memcpy(&copy, vectors, sizeof copy);
    memcpy(&mark, vectors + 464, sizeof mark);
    bool extended = mark == extended_mark;
    go_back(context->uc_mcontext.gregs, floats, extended ? vectors : copy.bytes, extended);
}

#else

static bool emulated(void)
{
    return false;
}

static void return_by_hand(ucontext_t *context)
{
    (void)context;
}

#endif

static bool by_hand;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    answer();
    if (by_hand)
        return_by_hand(context);
}

VMKI_IN_HANDLER static void on_signal_watched(int signal, siginfo_t *info, void *context)
{
    if (in_watched(vmki_posix_interrupted_at(context)))
        late(signal, info, context);
    else
        on_signal(signal, info, context);
}

/* --- the signal ------------------------------------------------------------------------------------------------- */

#if defined(__linux__) && defined(VMKI_POSIX_TSAN)

#include <link.h>

static int find_watched(struct dl_phdr_info *info, size_t size, void *first)
{
    code_range *range = *(bool *)first ? &watched[0] : &watched[1];
    bool wanted = *(bool *)first || strstr(info->dlpi_name, "libtsan") != NULL;
    (void)size;
    *(bool *)first = false;
    for (int i = 0; wanted && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0) {
            range->low = info->dlpi_addr + part->p_vaddr;
            range->high = range->low + part->p_memsz;
        }
    }
    return 0;
}

static void watch(int signal)
{
    bool first = true;
    (void)dl_iterate_phdr(find_watched, &first);
    late = vmki_posix_handler_replace(signal, on_signal);
    if (late != NULL)
        (void)vmki_posix_handler_replace(signal, on_signal_watched);
}

#else

static void watch(int signal)
{
    (void)signal, (void)on_signal_watched;
}

#endif

/* Sent to oneself: does it come? An emulator that needs some of the highest for itself doesn't say so when a handler is
 * set. */
static bool arrives(int signal)
{
    sigset_t one, before;
    uintptr_t tried = __atomic_load_n(&tries, __ATOMIC_RELAXED);
    (void)sigemptyset(&one);
    (void)sigaddset(&one, signal);
    (void)pthread_sigmask(SIG_UNBLOCK, &one, &before);
    int error = vmki_posix_thread_signal((uintptr_t)pthread_self(), vmki_posix_thread_number(), signal);
    for (unsigned i = 0; error == 0 && i < 100 && __atomic_load_n(&tries, __ATOMIC_RELAXED) == tried; i++)
        vmki_os_yield();
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 && __atomic_load_n(&tries, __ATOMIC_RELAXED) != tried;
}

/* Interrupted calls go on by themselves, as far as the system does that; nothing else is handled meanwhile. */
static bool signal_take(int signal)
{
    struct sigaction action, before;
    if (sigaction(signal, NULL, &before) != 0 || (before.sa_flags & SA_SIGINFO) != 0 || before.sa_handler != SIG_DFL)
        return false;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    (void)sigfillset(&action.sa_mask);
    if (sigaction(signal, &action, NULL) != 0)
        return false;
    watch(signal);
    if (arrives(signal))
        return true;
    (void)sigaction(signal, &before, NULL);
    return false;
}

/* One that nobody uses: programs and libraries count from SIGRTMIN up, and some take the last ones. */
static int signal_find(void)
{
#if defined(SIGRTMIN) && defined(SIGRTMAX)
    for (int signal = SIGRTMAX - 3; signal > SIGRTMIN; signal--)
        if (signal_take(signal))
            return signal;
#endif
    static const int others[] = {SIGXCPU, SIGXFSZ, SIGUSR2, SIGUSR1};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (signal_take(others[i]))
            return others[i];
    return 0;
}

/* --- the life of a mutator -------------------------------------------------------------------------------------- */

static void key_end(void *mutator)
{
    vmki_posix_mutator = NULL;
    called_at_end(mutator);
}

/* The thread that forked has another number in the child. */
static void in_child(void)
{
    if (described != NULL)
        described->system[VMKI_POSIX_NUMBER] = vmki_posix_thread_number();
}

vmk_status vmki_os_world_init(void (*here)(vmki_os_mutator *mutator, void *sp),
                              void (*at_end)(vmki_os_mutator *mutator))
{
    int error = pthread_key_create(&key, key_end);
    if (error != 0) {
        errno = error;
        return VMK_ERR_COMMIT; /* EAGAIN: all keys are taken; without one nothing here can work */
    }
    called_here = here;
    called_at_end = at_end;
    by_hand = emulated();
    vmki_posix_roots_init(key);
    the_signal = signal_find();
    (void)pthread_atfork(NULL, NULL, in_child);
    return the_signal != 0 ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

/* The main thread's stack grows, as far as the limit allows. */
static void *stack_low_of_main(void *low, void *high)
{
    struct rlimit limit;
    if (VMKI_POSIX_GROWTH_TOLD || vmki_posix_thread_number() != (uintptr_t)getpid() ||
        getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= (uintptr_t)high)
        return low;
    void *lowest = (char *)high - (size_t)limit.rlim_cur;
    return (uintptr_t)lowest < (uintptr_t)low ? lowest : low;
}

vmk_status vmki_os_mutator_describe(vmki_os_mutator *mutator)
{
    sigset_t one;
    void *low = NULL, *high = NULL;
    int error = vmki_posix_stack(&low, &high);
    if (error != 0) {
        errno = error;
        return error == ENOMEM ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
    }
    memset(mutator, 0, sizeof *mutator);
    mutator->stack_low = stack_low_of_main(low, high);
    mutator->stack_high = high;
    mutator->system[VMKI_POSIX_THREAD] = (uintptr_t)pthread_self();
    mutator->system[VMKI_POSIX_NUMBER] = vmki_posix_thread_number();
    mutator->system[VMKI_POSIX_POINTER] = (uintptr_t)vmki_posix_thread_pointer();
    described = mutator;
    if (the_signal != 0) {
        (void)sigemptyset(&one);
        (void)sigaddset(&one, the_signal);
        (void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    }
    return VMK_OK;
}

void vmki_os_mutator_forget(vmki_os_mutator *mutator)
{
    if (described == mutator)
        described = NULL;
}

/* As vmki_os_self_set: without memory the thread's end is not told. */
void vmki_os_mutator_set(vmki_os_mutator *mutator)
{
    vmki_posix_mutator = mutator;
    (void)pthread_setspecific(key, mutator);
}

/* --- interrupting ----------------------------------------------------------------------------------------------- */

/* EAGAIN: the system has as many signals under way as it may. Then, in the end, this one is lost: who has sent it will
 * send it again. A thread at the very end of its life can still be sent one, and then has ended. */
vmki_os_interrupted vmki_os_interrupt(vmki_os_mutator *mutator)
{
    int error = errno, result = EAGAIN;
    for (unsigned i = 0; i < 100 && result == EAGAIN; i++) {
        result = vmki_posix_thread_signal(mutator->system[VMKI_POSIX_THREAD], mutator->system[VMKI_POSIX_NUMBER],
                                          the_signal);
        if (result == EAGAIN)
            vmki_os_yield();
    }
    errno = error;
    return result == ESRCH ? VMKI_OS_GONE : VMKI_OS_CALLS_HERE;
}

void vmki_os_resume(vmki_os_mutator *mutator)
{
    (void)mutator; /* no thread is ever suspended */
}

/* A stack that is to be disarmed while it is in use (SS_AUTODISARM) is not told of. */
bool vmki_os_alternate_stack(void **low, void **high)
{
    stack_t stack;
    if (sigaltstack(NULL, &stack) != 0 || (stack.ss_flags & SS_ONSTACK) == 0)
        return false;
    *low = stack.ss_sp;
    *high = (char *)stack.ss_sp + stack.ss_size;
    return true;
}

unsigned vmki_os_processors(void)
{
#if defined(SYS_sched_getaffinity)
    unsigned long set[1024 / sizeof(unsigned long)]; /* for 8192 processors */
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof set, set);
    unsigned count = 0;
    for (long i = 0; i < bytes / (long)sizeof *set; i++)
        count += (unsigned)__builtin_popcountl(set[i]);
    if (count != 0)
        return count;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

/* --- registers -------------------------------------------------------------------------------------------------- */

/* Not within a C function, whose beginning may have moved some of them to its own frame. */
#if defined(__ELF__) && defined(__x86_64__)
#define SAVE                                                                                                           \
    "movq %rbx, (%rdi)\n\tmovq %rbp, 8(%rdi)\n\tmovq %r12, 16(%rdi)\n\tmovq %r13, 24(%rdi)\n\tmovq %r14, 32(%rdi)\n\t" \
    "movq %r15, 40(%rdi)\n\tret\n\t"
#elif defined(__ELF__) && defined(__i386__)
#define SAVE                                                                                                           \
    "movl 4(%esp), %eax\n\tmovl %ebx, (%eax)\n\tmovl %ebp, 4(%eax)\n\tmovl %esi, 8(%eax)\n\tmovl %edi, 12(%eax)\n\t"   \
    "ret\n\t"
#elif defined(__ELF__) && defined(__aarch64__)
#define SAVE                                                                                                           \
    "stp x19, x20, [x0]\n\tstp x21, x22, [x0, 16]\n\tstp x23, x24, [x0, 32]\n\tstp x25, x26, [x0, 48]\n\t"             \
    "stp x27, x28, [x0, 64]\n\tstr x29, [x0, 80]\n\tstp d8, d9, [x0, 96]\n\tstp d10, d11, [x0, 112]\n\t"               \
    "stp d12, d13, [x0, 128]\n\tstp d14, d15, [x0, 144]\n\tret\n\t"
#elif defined(__ELF__) && defined(__riscv) && __riscv_xlen == 64
#define SAVE                                                                                                           \
    "sd s0, 0(a0)\n\tsd s1, 8(a0)\n\tsd s2, 16(a0)\n\tsd s3, 24(a0)\n\tsd s4, 32(a0)\n\tsd s5, 40(a0)\n\t"             \
    "sd s6, 48(a0)\n\tsd s7, 56(a0)\n\tsd s8, 64(a0)\n\tsd s9, 72(a0)\n\tsd s10, 80(a0)\n\tsd s11, 88(a0)\n\tret\n\t"
#endif

#if defined(SAVE)

__asm__(".text\n\t"
        ".globl vmki_os_registers_save\n\t"
        ".hidden vmki_os_registers_save\n\t"
        ".type vmki_os_registers_save, %function\n"
        "vmki_os_registers_save:\n\t" SAVE ".size vmki_os_registers_save, .-vmki_os_registers_save");

#else

/* The compiler has to save all of them in this function's frame, which is copied: from its lowest variable up to the
 * words that the caller's frame begins with. */
__attribute__((noinline)) void vmki_os_registers_save(unsigned char registers[VMKI_OS_REGISTERS])
{
    volatile uintptr_t lowest[1] = {0};
    __builtin_unwind_init();
    const unsigned char *from = (const unsigned char *)(uintptr_t)lowest;
    const unsigned char *to = (const unsigned char *)__builtin_frame_address(0) + 32 * sizeof(uintptr_t);
    for (size_t i = 0; i < VMKI_OS_REGISTERS && from + i < to; i++)
        registers[i] = from[i];
}

#endif
