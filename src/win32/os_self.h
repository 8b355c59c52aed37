/* SPDX-License-Identifier: MIT
 *
 * The thread's own pointer, inline: it is read at every allocation. See common/base/os.h.
 *
 * MinGW's _Thread_local is a call that may allocate. A slot of TlsAlloc's is an array element in the thread's
 * environment block, at an offset that has not changed since Windows NT; Wine has it there too. Slots from 64 on lie
 * elsewhere, and are asked for.
 */
#ifndef VMKI_OS_SELF_H
#define VMKI_OS_SELF_H

extern unsigned long vmki_win32_self_slot;

/* Leaves GetLastError() alone. NULL before the slot is there. */
void *vmki_win32_self_ask(void);

static inline void *vmki_os_self(void)
{
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    unsigned long slot = __atomic_load_n(&vmki_win32_self_slot, __ATOMIC_RELAXED);
    void *self;
    if (__builtin_expect(slot >= 64, 0))
        return vmki_win32_self_ask();
#if defined(__x86_64__)
    __asm__("movq %%gs:0x1480(,%1,8), %0" : "=r"(self) : "r"((unsigned long long)slot));
#else
    __asm__("movl %%fs:0xe10(,%1,4), %0" : "=r"(self) : "r"(slot));
#endif
    return self;
#else
    return vmki_win32_self_ask();
#endif
}

#endif
