/* SPDX-License-Identifier: MIT
 *
 * The part of os_private.h that only os_world.c, os_roots.c and their tests need.
 */
#ifndef VMKI_WIN32_OS_WORLD_PRIVATE_H
#define VMKI_WIN32_OS_WORLD_PRIVATE_H

#include "win32/os_private.h"

#include "common/base/os_world.h"

/* The words of vmki_os_mutator.system. */
enum { VMKI_WIN32_THREAD_HANDLE, VMKI_WIN32_THREAD_BLOCK };

/* Where a thread's environment block (TEB) has what is read of it. The places are the same from Windows NT or 2000 to
 * 11, programs depend on all of them, and Wine has them there too. ARM64 has the 64-bit ones. */
#ifdef _WIN64
enum {
    VMKI_TEB_STACK_HIGH = 0x8,
    VMKI_TEB_STACK_LIMIT = 0x10, /* as far down as it is committed; the guard page is below */
    VMKI_TEB_TLS_BLOCKS = 0x58,  /* an array of the modules' blocks, by their index */
    VMKI_TEB_STACK_LOW = 0x1478, /* as far down as it is reserved */
    VMKI_TEB_TLS_SLOTS = 0x1480,
    VMKI_TEB_TLS_MORE = 0x1780, /* the address of the slots from 64 on, or NULL */
    VMKI_TEB_FLS = 0x17c8
};
#else
enum {
    VMKI_TEB_STACK_HIGH = 0x4,
    VMKI_TEB_STACK_LIMIT = 0x8,
    VMKI_TEB_TLS_BLOCKS = 0x2c,
    VMKI_TEB_STACK_LOW = 0xe0c,
    VMKI_TEB_TLS_SLOTS = 0xe10,
    VMKI_TEB_TLS_MORE = 0xf94,
    VMKI_TEB_FLS = 0xfb4
};
#endif
enum { VMKI_TEB_SLOTS = 64, VMKI_TEB_MORE_SLOTS = 1024 };

static inline void *vmki_win32_teb_word(const void *teb, size_t at)
{
    return *(void *const *)(const void *)((const char *)teb + at);
}

/* Visit those parts of [low, high) that can be read, without raising an exception in any: of pages that were never
 * committed, or that guard, nothing. os_roots.c */
void vmki_win32_visit_readable(uintptr_t low, uintptr_t high, vmki_os_range_visitor *visit, void *context);

/* Have heaps not be asked for their blocks: for tests of what is done instead. os_roots.c */
void vmki_win32_heaps_forbid(bool forbidden);

#endif
