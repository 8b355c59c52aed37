/* SPDX-License-Identifier: MIT
 *
 * The thread's own pointer, inline: it is read at every allocation. See common/base/os.h.
 *
 * The model of thread-local storage is the one whose reads are a load without a call, also in a shared library: a
 * word or two fit in what every system keeps free for libraries that are loaded late.
 */
#ifndef VMKI_OS_SELF_H
#define VMKI_OS_SELF_H

#define VMKI_POSIX_OWN __attribute__((tls_model("initial-exec"), visibility("hidden"))) _Thread_local

extern VMKI_POSIX_OWN void *vmki_posix_self;

/* How often at_end has been called in this thread. */
extern VMKI_POSIX_OWN unsigned vmki_posix_ends;

/* The collector's, see common/base/os_world.h. */
struct vmki_os_mutator;
extern VMKI_POSIX_OWN struct vmki_os_mutator *vmki_posix_mutator;

static inline void *vmki_os_self(void)
{
    return vmki_posix_self;
}

static inline struct vmki_os_mutator *vmki_os_mutator_self(void)
{
    return vmki_posix_mutator;
}

#endif
