/* SPDX-License-Identifier: MIT
 *
 * The part of os_private.h that only services need: what the tests of their files may force.
 */
#ifndef VMKI_WIN32_OS_SERVICE_PRIVATE_H
#define VMKI_WIN32_OS_SERVICE_PRIVATE_H

#include "win32/os_private.h"

#include "common/base/os_service.h"

/* What keeps memory out of error reports, and puts it in again: Windows 10's functions or, for tests, others. NULL for
 * either: there is none; vmki_win32_reports_find: the system's again. os_service.c */
typedef HRESULT(WINAPI *vmki_win32_exclude)(const void *address, DWORD size);
typedef HRESULT(WINAPI *vmki_win32_include)(const void *address);
void vmki_win32_reports_force(vmki_win32_exclude exclude, vmki_win32_include include);
void vmki_win32_reports_find(void);

/* Have rings do without placeholders: for tests of what is done instead. os_memory.c */
void vmki_win32_placeholders_forbid(bool forbidden);

#endif
