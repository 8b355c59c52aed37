/* SPDX-License-Identifier: MIT
 *
 * What the suites of common/base/os_world.h share: agents, which are threads that are stopped and searched. To be
 * included once, by the suite's only file.
 */
#ifndef VMKIT_TESTS_WORLD_H
#define VMKIT_TESTS_WORLD_H

#include <string.h>

#include "common/base/os_world.h"
#include "os_self.h"
#include "support.h"

#if defined(__GNUC__)
#define WORLD_NOINLINE __attribute__((noinline))
#else
#define WORLD_NOINLINE __declspec(noinline)
#endif

/* ThreadSanitizer lets a thread stop where it likes. */
#if defined(__SANITIZE_THREAD__)
#define WORLD_LATE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WORLD_LATE 1
#endif
#endif
#if !defined(WORLD_LATE)
#define WORLD_LATE 0
#endif

/* Of a function that reads what isn't its own: stacks and the like. */
#if defined(__GNUC__)
#define WORLD_UNWATCHED __attribute__((no_sanitize_address)) __attribute__((no_sanitize_thread))
#else
#define WORLD_UNWATCHED
#endif

typedef struct agent {
    vmki_os_mutator mutator; /* first */
    void *sp;
    void *alternate_low, *alternate_high; /* NULL: it is not on such a stack */
    uintptr_t wanted;                     /* to stand still */
    uintptr_t standing;
    uintptr_t suspended;
    uintptr_t here, on; /* the agent has come to this point; it may go on from there */
    uintptr_t count;
    void (*at_end)(struct agent *self);
} agent;

/* --- stopping ----------------------------------------------------------------------------------------------------- */

static inline void pause_processor(void)
{
    vmki_os_yield();
}

/* One signal may come twice: then the second finds that nobody wants it. */
static inline void world_here(vmki_os_mutator *mutator, void *sp)
{
    agent *self = (agent *)mutator;
    if (VMKI_LOAD(&self->wanted) == 0)
        return;
    self->sp = sp;
    if (!vmki_os_alternate_stack(&self->alternate_low, &self->alternate_high))
        self->alternate_low = self->alternate_high = NULL;
    (void)VMKI_EXCHANGE(&self->standing, (uintptr_t)1);
    while (VMKI_LOAD(&self->wanted) != 0)
        pause_processor();
    (void)VMKI_EXCHANGE(&self->standing, (uintptr_t)0);
}

static inline void world_at_end(vmki_os_mutator *mutator)
{
    agent *self = (agent *)mutator;
    if (self->at_end != NULL)
        self->at_end(self);
}

/* False: it has ended. A signal that got lost is sent again, after a tenth of a second. */
static inline bool agent_stop(agent *a)
{
    uint64_t since = 0;
    (void)VMKI_EXCHANGE(&a->wanted, (uintptr_t)1);
    while (VMKI_LOAD(&a->standing) == 0) {
        if (since == 0 || vmki_os_clock() - since > 100000000) {
            vmki_os_interrupted how = vmki_os_interrupt(&a->mutator);
            if (how == VMKI_OS_GONE)
                return false;
            if (how == VMKI_OS_SUSPENDED) {
                a->sp = a->mutator.sp;
                a->suspended = 1;
                return true;
            }
            since = vmki_os_clock();
        }
        pause_processor();
    }
    return true;
}

static inline void agent_resume(agent *a)
{
    (void)VMKI_EXCHANGE(&a->wanted, (uintptr_t)0);
    if (a->suspended) {
        a->suspended = 0;
        vmki_os_resume(&a->mutator);
        return;
    }
    while (VMKI_LOAD(&a->standing) != 0)
        pause_processor();
}

static inline unsigned char *agent_sp(const agent *a)
{
    return a->sp;
}

static inline bool agent_enter(agent *self)
{
    bool done = vmki_os_mutator_describe(&self->mutator) == VMK_OK;
    vmki_os_mutator_set(&self->mutator);
    return done;
}

static inline void agent_leave(agent *self)
{
    vmki_os_mutator_set(NULL);
    vmki_os_mutator_forget(&self->mutator);
}

/* The agent: here I am, at `point`; and wait until somebody lets it go on. */
static inline void agent_meet(agent *self, uintptr_t point)
{
    (void)VMKI_EXCHANGE(&self->here, point);
    while (VMKI_LOAD(&self->on) < point)
        vmki_os_yield();
}

static inline void agent_await(agent *a, uintptr_t point)
{
    while (VMKI_LOAD(&a->here) < point)
        vmki_os_yield();
}

static inline void agent_go_on(agent *a, uintptr_t point)
{
    (void)VMKI_EXCHANGE(&a->on, point);
}

/* --- searching ---------------------------------------------------------------------------------------------------- */

enum { WORLD_STACK = 1, WORLD_REGISTERS_SAVED = 2, WORLD_STATIC = 4, WORLD_THREAD = 8, WORLD_TOUCHED = 16 };

typedef struct search {
    uintptr_t hidden;
    unsigned count;
} search;

WORLD_UNWATCHED static void search_range(void *context, const void *base, size_t size)
{
    search *s = context;
    const volatile uintptr_t *words = base;
    for (size_t i = 0; i < size / sizeof *words; i++)
        s->count += ~words[i] == s->hidden;
}

static inline bool world_has(const void *base, size_t size, uintptr_t hidden)
{
    search s = {hidden, 0};
    search_range(&s, base, size);
    return s.count != 0;
}

/* How often it is in the static data, in a thread's. */
static inline unsigned world_search_static(uintptr_t hidden)
{
    search s = {hidden, 0};
    vmki_os_static_data(search_range, &s);
    return s.count;
}

static inline unsigned world_search_thread(const vmki_os_mutator *mutator, uintptr_t hidden)
{
    search s = {hidden, 0};
    vmki_os_thread_data(mutator, search_range, &s);
    return s.count;
}

static inline void search_own_stack(const agent *a, search *s)
{
    const unsigned char *low = a->sp, *high = a->mutator.stack_high;
    if (a->alternate_low != NULL) {
        high = a->alternate_high;
        vmki_os_stack_touched(a->mutator.stack_low, a->mutator.stack_high, search_range, s);
    }
    low = (const unsigned char *)((uintptr_t)low & ~(uintptr_t)(sizeof(void *) - 1));
    search_range(s, low, (size_t)(high - low));
}

/* Where an agent that stands still has it: a set of the places above. */
typedef struct whole_search {
    const agent *a;
    uintptr_t hidden;
    unsigned found;
} whole_search;

static inline void search_within(void *argument)
{
    whole_search *w = argument;
    const vmki_os_mutator *mutator = &w->a->mutator;
    search stack = {w->hidden, 0}, touched = {w->hidden, 0};
    search_own_stack(w->a, &stack);
    vmki_os_stack_touched(mutator->stack_low, mutator->stack_high, search_range, &touched);
    w->found |= stack.count != 0 ? WORLD_STACK : 0u;
    w->found |= touched.count != 0 ? WORLD_TOUCHED : 0u;
    w->found |= world_has(mutator->registers, VMKI_OS_REGISTERS, w->hidden) ? WORLD_REGISTERS_SAVED : 0u;
    w->found |= world_search_static(w->hidden) != 0 ? WORLD_STATIC : 0u;
    w->found |= world_search_thread(mutator, w->hidden) != 0 ? WORLD_THREAD : 0u;
}

static inline unsigned agent_search(const agent *a, uintptr_t hidden)
{
    whole_search w = {a, hidden, 0};
    vmki_os_with_libraries(search_within, &w);
    return w.found;
}

/* --- registers ------------------------------------------------------------------------------------------------------
 */

/* The complement comes in one register and becomes the secret in another, which has it until `on` says so. What was in
 * it before is on the stack meanwhile, below what the compiler may have there. */
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define WORLD_HAS_REGISTERS 1

#if defined(__x86_64__)
#define WORLD_SKIP "leaq -128(%%rsp), %%rsp\n\t"
#define WORLD_UNSKIP "leaq 128(%%rsp), %%rsp\n\t"
#define WORLD_MOVE "movq "
#define WORLD_REGISTERS(m) m(rbx) m(rsi) m(rdi) m(rbp) m(r8) m(r9) m(r10) m(r11) m(r12) m(r13) m(r14) m(r15)
#define WORLD_VECTORS(m) m(xmm0) m(xmm6) m(xmm15)
#else
#define WORLD_SKIP ""
#define WORLD_UNSKIP ""
#define WORLD_MOVE "movd "
#define WORLD_REGISTERS(m) m(ebx) m(esi) m(edi) m(ebp)
#define WORLD_VECTORS(m) m(xmm0) m(xmm7)
#endif

/* Nobody is bound to clear a register that is not used any more. */
#if defined(__x86_64__)
#define WORLD_CLEAR_REGISTERS()                                                                                        \
    __asm__ volatile("xor %%eax, %%eax\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"                \
                     "xor %%edi, %%edi\n\txor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\txor %%r10d, %%r10d\n\t"              \
                     "xor %%r11d, %%r11d\n\tpxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2"         \
                     :                                                                                                 \
                     :                                                                                                 \
                     : "memory", "cc", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1",    \
                       "xmm2")
#else
#define WORLD_CLEAR_REGISTERS()                                                                                        \
    __asm__ volatile("xor %%eax, %%eax\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx"                                        \
                     :                                                                                                 \
                     :                                                                                                 \
                     : "memory", "cc", "eax", "ecx", "edx")
#endif

#define WORLD_WAIT                                                                                                     \
    "movl $1, (%1)\n\t"                                                                                                \
    "1: pause\n\t"                                                                                                     \
    "cmpl $0, (%2)\n\t"                                                                                                \
    "je 1b\n\t"

#define WORLD_HIDE_IN_REGISTER(name)                                                                                   \
    {                                                                                                                  \
        __asm__ volatile(WORLD_SKIP "push %%" #name "\n\t"                                                             \
                                    "mov %0, %%" #name "\n\t"                                                          \
                                    "not %%" #name "\n\t" WORLD_WAIT "pop %%" #name "\n\t" WORLD_UNSKIP                \
                         :                                                                                             \
                         : "a"(hidden), "c"(&self->here), "d"(&self->on)                                               \
                         : "memory", "cc");                                                                            \
    }

/* No compiler for the 386 lets one name these; it does not use them either, but the C library does. */
#define WORLD_HIDE_IN_VECTOR(name)                                                                                     \
    {                                                                                                                  \
        unsigned char before[16];                                                                                      \
        __asm__ volatile("movups %%" #name ", (%3)\n\t"                                                                \
                         "not %0\n\t" WORLD_MOVE "%0, %%" #name "\n\t"                                                 \
                         "not %0\n\t" WORLD_WAIT "movups (%3), %%" #name "\n\t"                                        \
                         : "+a"(hidden)                                                                                \
                         : "c"(&self->here), "d"(&self->on), "S"(before)                                               \
                         : "memory", "cc");                                                                            \
    }

/* Call vmki_os_registers_save with the secret in one of those that a call preserves. */
static void (*volatile world_save)(unsigned char registers[VMKI_OS_REGISTERS]) = vmki_os_registers_save;

#define WORLD_SAVE_WITH_NAME(name)                                                                                     \
    static WORLD_NOINLINE void save_with_##name(uintptr_t hidden, unsigned char *registers)                            \
    {                                                                                                                  \
        WORLD_SAVE(name);                                                                                              \
    }

#if defined(_WIN64)
#define WORLD_PRESERVED_LIST(m) m(rbx) m(rbp) m(rdi) m(rsi) m(r12) m(r13) m(r14) m(r15)
#elif defined(__x86_64__)
#define WORLD_PRESERVED_LIST(m) m(rbx) m(rbp) m(r12) m(r13) m(r14) m(r15)
#else
#define WORLD_PRESERVED_LIST(m) m(ebx) m(ebp) m(esi) m(edi)
#endif

/* The stack is aligned by hand, and was before in a register that the call preserves: on the stack, for the one that is
 * tried may be it. */
#if defined(_WIN64)
#define WORLD_SAVE(name)                                                                                               \
    __asm__ volatile("push %%" #name "\n\t"                                                                            \
                     "movq %%rsp, %%r10\n\t"                                                                           \
                     "subq $64, %%rsp\n\t"                                                                             \
                     "andq $-16, %%rsp\n\t"                                                                            \
                     "movq %%r10, 40(%%rsp)\n\t"                                                                       \
                     "movq %0, %%" #name "\n\t"                                                                        \
                     "notq %%" #name "\n\t"                                                                            \
                     "callq *%%rdx\n\t"                                                                                \
                     "movq 40(%%rsp), %%rsp\n\t"                                                                       \
                     "pop %%" #name "\n\t"                                                                             \
                     : "+a"(hidden), "+c"(registers)                                                                   \
                     : "d"(world_save)                                                                                 \
                     : "memory", "cc", "r8", "r9", "r10", "r11")
#elif defined(__x86_64__)
#define WORLD_SAVE(name)                                                                                               \
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n\t"                                                                     \
                     "push %%" #name "\n\t"                                                                            \
                     "movq %%rsp, %%r10\n\t"                                                                           \
                     "subq $64, %%rsp\n\t"                                                                             \
                     "andq $-16, %%rsp\n\t"                                                                            \
                     "movq %%r10, 40(%%rsp)\n\t"                                                                       \
                     "movq %0, %%" #name "\n\t"                                                                        \
                     "notq %%" #name "\n\t"                                                                            \
                     "callq *%%rdx\n\t"                                                                                \
                     "movq 40(%%rsp), %%rsp\n\t"                                                                       \
                     "pop %%" #name "\n\t"                                                                             \
                     "leaq 128(%%rsp), %%rsp\n\t"                                                                      \
                     : "+a"(hidden), "+D"(registers)                                                                   \
                     : "d"(world_save)                                                                                 \
                     : "memory", "cc", "rcx", "rsi", "r8", "r9", "r10", "r11")
#else
#define WORLD_SAVE(name)                                                                                               \
    __asm__ volatile("push %%" #name "\n\t"                                                                            \
                     "subl $12, %%esp\n\t"                                                                             \
                     "push %1\n\t"                                                                                     \
                     "movl %0, %%" #name "\n\t"                                                                        \
                     "notl %%" #name "\n\t"                                                                            \
                     "call *%%edx\n\t"                                                                                 \
                     "addl $16, %%esp\n\t"                                                                             \
                     "pop %%" #name "\n\t"                                                                             \
                     : "+a"(hidden), "+c"(registers)                                                                   \
                     : "d"(world_save)                                                                                 \
                     : "memory", "cc")
#endif

WORLD_PRESERVED_LIST(WORLD_SAVE_WITH_NAME)

#define WORLD_SAVE_WITH_POINTER(name) save_with_##name,
static void (*const world_savers[])(uintptr_t, unsigned char *) = {WORLD_PRESERVED_LIST(WORLD_SAVE_WITH_POINTER)};
enum { WORLD_PRESERVED = (int)(sizeof world_savers / sizeof *world_savers) };

static inline void world_save_with(int which, uintptr_t hidden, unsigned char *registers)
{
    world_savers[which](hidden, registers);
}

#endif

#if !defined(WORLD_CLEAR_REGISTERS)
#define WORLD_CLEAR_REGISTERS() ((void)0)
#endif

#endif
