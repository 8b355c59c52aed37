/* SPDX-License-Identifier: MIT
 *
 * Threads that are stopped: suspended by the system, at whatever instruction they were. No signal is sent and nothing
 * is called in them, so of what vmki_os_world_init is given only `at_end` is used.
 *
 * A suspended thread may own any lock of the C library, of a heap, of the loader. What is called while one stands still
 * goes to the kernel and takes none of those: SuspendThread, ResumeThread, GetThreadContext, WaitForSingleObject,
 * GetExitCodeThread, Sleep, SwitchToThread, VirtualQuery.
 */
#include "os_world_private.h"

#include <string.h>

#include "os_self.h"

unsigned long vmki_win32_mutator_slot = TLS_OUT_OF_INDEXES;

static DWORD mutator_watch = FLS_OUT_OF_INDEXES; /* the kind of slot whose callback is called when a thread ends */
static void (*mutator_at_end)(vmki_os_mutator *mutator);
static bool in_wow64;

/* --- init, describe, forget ------------------------------------------------------------------------------------- */

/* Called on a thread's way out. By DeleteFiber too, in whatever thread that is: what a thread that runs on fibers set
 * while on another than the one that it began with is told too early. */
static VOID WINAPI mutator_end(PVOID mutator)
{
    if (mutator == NULL)
        return;
    TlsSetValue(vmki_win32_mutator_slot, NULL);
    mutator_at_end(mutator);
}

vmk_status vmki_os_world_init(void (*here)(vmki_os_mutator *mutator, void *sp),
                              void (*at_end)(vmki_os_mutator *mutator))
{
    (void)here;
    mutator_at_end = at_end;
    BOOL emulated = FALSE;
    in_wow64 = sizeof(void *) == 4 && IsWow64Process(GetCurrentProcess(), &emulated) && emulated;
    return vmki_win32_slot_make(&vmki_win32_mutator_slot, &mutator_watch, mutator_end);
}

/* The address of the thread's environment block, which it has itself. What MinGW's headers have for it makes gcc 12
 * warn of an array of no elements. */
static void *own_block(void)
{
#if defined(__GNUC__) && defined(__x86_64__)
    void *block;
    __asm__("movq %%gs:0x30, %0" : "=r"(block));
    return block;
#elif defined(__GNUC__) && defined(__i386__)
    void *block;
    __asm__("movl %%fs:0x18, %0" : "=r"(block));
    return block;
#else
    return NtCurrentTeb();
#endif
}

/* The bounds are those of the stack that the thread is on. A thread that switches to a fiber gets the fiber's bounds in
 * its environment block, and the stack that it left is nobody's until it is switched to again: that of a fiber must be
 * made known by whoever makes fibers. */
vmk_status vmki_os_mutator_describe(vmki_os_mutator *mutator)
{
    const DWORD access = THREAD_SUSPEND_RESUME | THREAD_GET_CONTEXT | THREAD_QUERY_INFORMATION | SYNCHRONIZE;
    HANDLE process = GetCurrentProcess();
    HANDLE thread = NULL;
    if (!DuplicateHandle(process, GetCurrentThread(), process, &thread, access, FALSE, 0))
        return VMK_ERR_COMMIT;
    void *block = own_block();
    memset(mutator, 0, sizeof *mutator);
    mutator->system[VMKI_WIN32_THREAD_HANDLE] = (uintptr_t)thread;
    mutator->system[VMKI_WIN32_THREAD_BLOCK] = (uintptr_t)block;
    mutator->stack_low = vmki_win32_teb_word(block, VMKI_TEB_STACK_LOW);
    mutator->stack_high = vmki_win32_teb_word(block, VMKI_TEB_STACK_HIGH);
    uintptr_t here = (uintptr_t)&thread;
    if (here < (uintptr_t)mutator->stack_low ||
        here >= (uintptr_t)mutator->stack_high) { /* a stack of somebody's own */
        vmki_os_mutator_forget(mutator);
        return VMK_ERR_UNSUPPORTED;
    }
    return VMK_OK;
}

void vmki_os_mutator_forget(vmki_os_mutator *mutator)
{
    CloseHandle((HANDLE)mutator->system[VMKI_WIN32_THREAD_HANDLE]);
    memset(mutator->system, 0, sizeof mutator->system);
}

/* Without memory for it the thread's end is not told; then it is found out at the next interrupt. */
void vmki_os_mutator_set(vmki_os_mutator *mutator)
{
    TlsSetValue(vmki_win32_mutator_slot, mutator);
    FlsSetValue(mutator_watch, mutator);
}

vmki_os_mutator *vmki_win32_mutator_ask(void)
{
    return vmki_win32_slot_ask(&vmki_win32_mutator_slot);
}

/* --- interrupt and resume --------------------------------------------------------------------------------------- */

/* 32-bit Windows' headers lack these. */
#define EXCEPTION_IS_ACTIVE 0x08000000u
#define SERVICE_IS_ACTIVE 0x10000000u
#define REPORT_WANTED 0x40000000u
#define REPORT_GIVEN 0x80000000u

/* All registers that can hold a pointer. Not the upper halves of AVX's and AVX-512's vector registers, which take a
 * CONTEXT of a size to be asked for: a pointer that is in one of those and nowhere else, in the midst of a copy by such
 * instructions, is not seen. */
#if defined(_M_IX86) || defined(__i386__)
#define ALL_REGISTERS (CONTEXT_FULL | CONTEXT_FLOATING_POINT | CONTEXT_EXTENDED_REGISTERS)
#define STACK_POINTER Esp
#elif defined(_M_X64) || defined(__x86_64__)
#define ALL_REGISTERS (CONTEXT_FULL | CONTEXT_FLOATING_POINT)
#define STACK_POINTER Rsp
#else
#define ALL_REGISTERS (CONTEXT_FULL | CONTEXT_FLOATING_POINT)
#define STACK_POINTER Sp
#endif

_Static_assert(sizeof(CONTEXT) <= VMKI_OS_REGISTERS, "a CONTEXT has room");

/* SuspendThread only asks for it, and may return before the thread stands; GetThreadContext waits until it does. */
static bool suspend(HANDLE thread, CONTEXT *context)
{
    if (SuspendThread(thread) == (DWORD)-1)
        return false;
    context->ContextFlags = ALL_REGISTERS | (in_wow64 ? REPORT_WANTED : 0);
    if (GetThreadContext(thread, context))
        return true;
    ResumeThread(thread);
    return false;
}

/* Asked when it could not be suspended. The exit code is there when the kernel has begun to end it, and never runs its
 * code again; the handle is signalled when it is done. A thread may end with the code that says that it hasn't. */
static bool ended(HANDLE thread)
{
    DWORD code = STILL_ACTIVE;
    return (GetExitCodeThread(thread, &code) && code != STILL_ACTIVE) || WaitForSingleObject(thread, 0) != WAIT_TIMEOUT;
}

/* WOW64, 32-bit programs on 64-bit Windows. A system call leaves 32-bit code by 64-bit code in the process, which saves
 * the 32-bit registers for GetThreadContext to read. A thread that stands in that code, before it has saved all, has
 * the registers of an earlier call there (bdwgc #262, DynamoRIO #1141). Windows 7 and later tell, when asked to,
 * whether the thread is in a system call or an exception; then nothing tells whether it is done with saving. One that
 * was about to has soon done so, and is let go on for a moment. One that waits in the kernel stays as it is: its
 * registers are right, but that can't be known; so all of its stack that may be in use is taken for used. A register is
 * lost only if the thread got no time of a processor in all attempts, and if none of the functions between the
 * program's own and the system call has saved it on the stack. */
enum { WOW64_ATTEMPTS = 4 };

static bool trustworthy(const CONTEXT *context)
{
    return (context->ContextFlags & REPORT_GIVEN) != 0 &&
           (context->ContextFlags & (EXCEPTION_IS_ACTIVE | SERVICE_IS_ACTIVE)) == 0;
}

static void *stack_used(const vmki_os_mutator *mutator)
{
    void *limit = vmki_win32_teb_word((void *)mutator->system[VMKI_WIN32_THREAD_BLOCK], VMKI_TEB_STACK_LIMIT);
    bool inside =
        (uintptr_t)limit >= (uintptr_t)mutator->stack_low && (uintptr_t)limit < (uintptr_t)mutator->stack_high;
    return inside ? limit : NULL;
}

/* An attempt that failed is repeated for as long as the thread lives: it may be at its end, or be suspended by so many
 * that the count is full. */
vmki_os_interrupted vmki_os_interrupt(vmki_os_mutator *mutator)
{
    HANDLE thread = (HANDLE)mutator->system[VMKI_WIN32_THREAD_HANDLE];
    CONTEXT context;
    memset(&context, 0, sizeof context);
    unsigned failures = 0;
    unsigned attempts = 0;
    for (;;) {
        if (!suspend(thread, &context)) {
            if (ended(thread))
                return VMKI_OS_GONE;
            Sleep(++failures < 16 ? 0 : 1);
            continue;
        }
        bool tells = (context.ContextFlags & REPORT_GIVEN) != 0;
        if (!in_wow64 || trustworthy(&context) || !tells || ++attempts == WOW64_ATTEMPTS)
            break;
        ResumeThread(thread);
        SwitchToThread();
    }
    mutator->sp = (void *)(uintptr_t)context.STACK_POINTER;
    void *used = in_wow64 && !trustworthy(&context) ? stack_used(mutator) : NULL;
    if (used != NULL)
        mutator->sp = used;
    memcpy(mutator->registers, &context, sizeof context);
    return VMKI_OS_SUSPENDED;
}

void vmki_os_resume(vmki_os_mutator *mutator)
{
    ResumeThread((HANDLE)mutator->system[VMKI_WIN32_THREAD_HANDLE]);
}

/* --- the calling thread ----------------------------------------------------------------------------------------- */

/* Without a frame of its own: a prologue could have changed a register before it is stored. */
#if defined(__GNUC__) && defined(__x86_64__)
__attribute__((naked)) void vmki_os_registers_save(unsigned char registers[VMKI_OS_REGISTERS] __attribute__((unused)))
{
    __asm__("movq %rbx, (%rcx)\n\t"
            "movq %rbp, 8(%rcx)\n\t"
            "movq %rdi, 16(%rcx)\n\t"
            "movq %rsi, 24(%rcx)\n\t"
            "movq %r12, 32(%rcx)\n\t"
            "movq %r13, 40(%rcx)\n\t"
            "movq %r14, 48(%rcx)\n\t"
            "movq %r15, 56(%rcx)\n\t"
            "movups %xmm6, 64(%rcx)\n\t"
            "movups %xmm7, 80(%rcx)\n\t"
            "movups %xmm8, 96(%rcx)\n\t"
            "movups %xmm9, 112(%rcx)\n\t"
            "movups %xmm10, 128(%rcx)\n\t"
            "movups %xmm11, 144(%rcx)\n\t"
            "movups %xmm12, 160(%rcx)\n\t"
            "movups %xmm13, 176(%rcx)\n\t"
            "movups %xmm14, 192(%rcx)\n\t"
            "movups %xmm15, 208(%rcx)\n\t"
            "ret");
}
#elif defined(__GNUC__) && defined(__i386__)
__attribute__((naked)) void vmki_os_registers_save(unsigned char registers[VMKI_OS_REGISTERS] __attribute__((unused)))
{
    __asm__("movl 4(%esp), %eax\n\t"
            "movl %ebx, (%eax)\n\t"
            "movl %ebp, 4(%eax)\n\t"
            "movl %esi, 8(%eax)\n\t"
            "movl %edi, 12(%eax)\n\t"
            "ret");
}
#else
/* Nothing here that a register would have to be freed for. */
void vmki_os_registers_save(unsigned char registers[VMKI_OS_REGISTERS])
{
    RtlCaptureContext((CONTEXT *)(void *)registers);
}
#endif

/* There are none. Exceptions are handled on the stack where they were raised. */
bool vmki_os_alternate_stack(void **low, void **high)
{
    (void)low;
    (void)high;
    return false;
}

void vmki_os_stack_touched(void *low, void *high, vmki_os_range_visitor *visit, void *context)
{
    vmki_win32_visit_readable((uintptr_t)low, (uintptr_t)high, visit, context);
}

/* A process runs on the processors of one group, 64 at most, unless it asks for more itself (Windows 11: by default on
 * all; the mask is that of the first). Of a process in several groups the mask is 0. */
unsigned vmki_os_processors(void)
{
    DWORD_PTR process = 0;
    DWORD_PTR machine = 0;
    unsigned count = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &process, &machine))
        for (; process != 0; process &= process - 1)
            count++;
    if (count == 0)
        count = (unsigned)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    return count > 0 ? count : 1;
}
