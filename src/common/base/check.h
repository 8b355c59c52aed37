/* SPDX-License-Identifier: MIT
 *
 * The grades of checking.
 *
 *   vmki_misuse    the caller has done what no caller may: report it (vmk_set_misuse_hook) and end the program
 *   VMKI_ASSERT    vmkit itself is wrong: always compiled, for checks of constant cost off the hot paths
 *   VMKI_DCHECK    the same for hot paths: compiled where VMKIT_CHECKS is on (all presets but "release")
 *   vmki_..._check whole structures, walked by the tests after every step
 */
#ifndef VMKI_CHECK_H
#define VMKI_CHECK_H

#include "common/base/compiler.h"

/* Never to be called with a lock of vmkit's held: the hook may leave by longjmp. */
VMKI_NORETURN VMKI_COLD void vmki_misuse(const char *crime, const void *address);

VMKI_NORETURN VMKI_COLD void vmki_assert_failed(const char *condition, const char *file, unsigned line);

#define VMKI_ASSERT(condition)                                                                                         \
    (VMKI_LIKELY(condition) ? (void)0 : vmki_assert_failed(#condition, __FILE__, (unsigned)__LINE__))

#ifdef VMKIT_CHECKS
#define VMKI_DCHECK(condition) VMKI_ASSERT(condition)
#else
#define VMKI_DCHECK(condition) ((void)sizeof(condition))
#endif

#endif
