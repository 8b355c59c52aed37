/* SPDX-License-Identifier: MIT
 *
 * The thread's own pointers, inline: they are read at every allocation. See common/base/os.h and os_world.h.
 *
 * MinGW's _Thread_local is a call that may allocate. A slot of TlsAlloc's is an array element in the thread's
 * environment block, at an offset that has not changed since Windows NT; Wine has it there too. Slots from 64 on lie
 * elsewhere, and are asked for.
 */
#ifndef VMKI_OS_SELF_H
#define VMKI_OS_SELF_H

extern unsigned long vmki_win32_self_slot;
extern unsigned long vmki_win32_mutator_slot;

/* Leave GetLastError() alone. NULL before the slot is there. */
void *vmki_win32_self_ask(void);
struct vmki_os_mutator *vmki_win32_mutator_ask(void);

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
static inline void *vmki_win32_slot_read(unsigned long slot)
{
    void *value;
#if defined(__x86_64__)
    __asm__("movq %%gs:0x1480(,%1,8), %0" : "=r"(value) : "r"((unsigned long long)slot));
#else
    __asm__("movl %%fs:0xe10(,%1,4), %0" : "=r"(value) : "r"(slot));
#endif
    return value;
}
#endif

static inline void *vmki_os_self(void)
{
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    unsigned long slot = __atomic_load_n(&vmki_win32_self_slot, __ATOMIC_RELAXED);
    return __builtin_expect(slot >= 64, 0) ? vmki_win32_self_ask() : vmki_win32_slot_read(slot);
#else
    return vmki_win32_self_ask();
#endif
}

static inline struct vmki_os_mutator *vmki_os_mutator_self(void)
{
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    unsigned long slot = __atomic_load_n(&vmki_win32_mutator_slot, __ATOMIC_RELAXED);
    if (__builtin_expect(slot >= 64, 0))
        return vmki_win32_mutator_ask();
    return (struct vmki_os_mutator *)vmki_win32_slot_read(slot);
#else
    return vmki_win32_mutator_ask();
#endif
}

#endif
