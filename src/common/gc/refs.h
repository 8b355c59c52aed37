/* SPDX-License-Identifier: MIT
 *
 * The caller's own stack and registers, for who looks at a heap: what lies there because it looks is no root.
 */
#ifndef VMKI_REFS_H
#define VMKI_REFS_H

#include <string.h>

#include "common/gc/gc.h"

/* The last member of a public function's only large local, filled in at its start: the caller's registers, and by its
 * address where the caller's stack begins. */
typedef struct vmki_asker {
    const vmki_mutator *mutator; /* NULL: its stack is no root */
    const void *frame;           /* for where tools have locals elsewhere */
    _Alignas(16) unsigned char registers[VMKI_OS_REGISTERS];
} vmki_asker;

static inline void vmki_asker_begin(vmki_asker *asker)
{
    memset(asker, 0, sizeof *asker);
    vmki_os_registers_save(asker->registers);
    asker->mutator = vmki_mutator_self();
    asker->frame = VMKI_FRAME_ADDRESS();
}

/* vmki_roots_visit; `own`: it is the asker's stack or registers, as they were in the caller. */
typedef void vmki_asker_visitor(void *context, const vmki_root *root, bool own);
void vmki_asker_roots(vmki_gc *gc, const vmki_asker *asker, vmki_asker_visitor *visit, void *context);

#endif
