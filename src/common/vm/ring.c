/* SPDX-License-Identifier: MIT
 *
 * Rings: memory mapped twice in a row. The mappings keep it alive, so its handle is closed at once.
 */
#include "common/base/align.h"
#include "common/base/check.h"
#include "common/base/os_service.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b42u)  /* "vmkB" */
#define SEAL_ENDED ((uintptr_t)0x64656164u) /* "dead" */

/* Whoever maps memory all the time may be faster once and again; always is out of the question. */
enum { TRIES = 64 };

vmk_status vmk_ring_init(vmk_ring *ring, size_t size)
{
    uintptr_t handle;
    void *base;
    if (size == 0 || vmki_ceil_overflow(size, vmk_granularity(), &size) || size > SIZE_MAX / 4)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_memory_create(size, &handle);
    if (status != VMK_OK)
        return status;
    status = VMK_ERR_TAKEN;
    for (int i = 0; i < TRIES && status == VMK_ERR_TAKEN; i++)
        status = vmki_os_ring_map(handle, size, &base);
    vmki_os_error why = vmki_os_error_get();
    vmki_os_memory_close(handle);
    vmki_os_error_set(status == VMK_OK ? before : why);
    if (status == VMK_OK)
        *ring = (vmk_ring){.base = base, .size = size, .seal = SEAL_LIVE};
    return status;
}

void vmk_ring_fini(vmk_ring *ring)
{
    if (ring->seal != SEAL_LIVE)
        vmki_misuse(ring->seal == SEAL_ENDED ? "vmk_ring_fini: ring was done with before" : "vmk_ring_fini: not a ring",
                    ring);
    vmki_os_error before = vmki_os_error_get();
    vmki_os_ring_unmap(ring->base, ring->size);
    ring->seal = SEAL_ENDED;
    vmki_os_error_set(before);
}
