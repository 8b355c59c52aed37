/* SPDX-License-Identifier: MIT
 *
 * What the files of the Windows implementation share: the system's headers, fixed to Windows 7, and the few functions
 * of one that another needs.
 *
 * Nothing newer than Windows 7 and nothing outside KERNEL32 is imported, so that one binary starts on everything from
 * Windows 7 on; Wine 8 refuses to load a program that imports a function it lacks. What is newer is looked up when
 * first needed, and each use has a fallback.
 *
 * "Windows" in the comments of these files is what Microsoft documents; "Wine" is what Wine 8.0 was seen to do where
 * that differs. The documentation is followed, and Wine is made to work too.
 */
#ifndef VMKI_WIN32_OS_PRIVATE_H
#define VMKI_WIN32_OS_PRIVATE_H

#ifndef _WIN32
#error "src/win32 is for Windows; elsewhere build src/posix"
#endif

/* Whatever the build asks for: with a higher version the headers would let us import what Windows 7 lacks. */
#undef _WIN32_WINNT
#undef NTDDI_VERSION
#define _WIN32_WINNT 0x0601
/* The K32 names of psapi.h, which are in KERNEL32; version 1 would import PSAPI.DLL. */
#undef PSAPI_VERSION
#define PSAPI_VERSION 2
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif

#include <windows.h>
#include <psapi.h>

#include "common/base/align.h"
#include "common/base/os.h"

/* A function that may be missing: 0 before the first look, then its address or what says that it isn't there. Threads
 * that look at the same time find the same. */
typedef volatile uintptr_t vmki_win32_lookup;

/* Its address, or 0. os_process.c */
uintptr_t vmki_win32_look_up(vmki_win32_lookup *known, const char *name);

/* A slot of TlsAlloc's, for os_self.h to read, and one of FlsAlloc's, whose callback is called when a thread ends with
 * a value that isn't NULL. What vmki_win32_slot_ask answers is what is in the first, whatever its number; NULL before
 * there is one; GetLastError() stays. os_thread.c */
vmk_status vmki_win32_slot_make(unsigned long *slot, DWORD *watch, PFLS_CALLBACK_FUNCTION at_end);
void *vmki_win32_slot_ask(const unsigned long *slot);

/* Memory ends: what was kept out of reports of it is forgotten. Costs a load where nothing ever was. os_service.c */
void vmki_win32_reports_forget(void *base, size_t size);

/* An aligned reservation as one request: VirtualAlloc2, Windows 10. NULL where the system lacks it, or refuses:
 * *refused then tells which, and GetLastError() why. `align` is above the granularity. os_vm.c */
void *vmki_os_reserve_by_requirement(size_t size, size_t align, bool *refused);

/* What the system counts for this process. False where it tells nothing. os_limits.c */
bool vmki_os_counters(PROCESS_MEMORY_COUNTERS_EX *counters);

#endif
