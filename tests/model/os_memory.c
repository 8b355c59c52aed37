/* SPDX-License-Identifier: MIT
 *
 * The model OS: memory that is mapped more than once, which takes a page table. So this is the real system's file, with
 * failures when they are planned. The model's pages may be larger than the real ones, which suits the real system, and
 * on Windows its granularity smaller, which does not: views are mapped from further below there, where nobody looks.
 */
#if defined(_WIN32)
#include "win32/os_service_private.h"
#else
#include "posix/os_service_private.h"
#endif

#include "common/base/os_service.h"
#include "model/model_private.h"

/* Of os_vm.c, which the model stands for. */
#define vmki_posix_status_of_error(shortage) (errno == ENOMEM ? (shortage) : VMK_ERR_UNSUPPORTED)

#define vmki_os_memory_create real_create
#define vmki_os_memory_open real_open
#define vmki_os_memory_import real_import
#define vmki_os_memory_resize real_resize
#define vmki_os_memory_duplicate real_duplicate
#define vmki_os_memory_close real_close
#define vmki_os_view_map real_map
#define vmki_os_view_unmap real_unmap
#define vmki_os_view_remap real_remap
#define vmki_os_view_flush real_flush
#define vmki_os_ring_map real_ring_map
#define vmki_os_ring_unmap real_ring_unmap
#define vmki_os_snapshot_take real_take
#define vmki_os_snapshot_drop real_drop

#if defined(_WIN32)
#include "win32/os_memory.c"
#define REAL_GRANULARITY ((size_t)65536)
#else
#include "posix/os_memory.c"
#define REAL_GRANULARITY MODEL_MIN_PAGE
#endif

#undef vmki_os_memory_create
#undef vmki_os_memory_open
#undef vmki_os_memory_import
#undef vmki_os_memory_resize
#undef vmki_os_memory_duplicate
#undef vmki_os_memory_close
#undef vmki_os_view_map
#undef vmki_os_view_unmap
#undef vmki_os_view_remap
#undef vmki_os_view_flush
#undef vmki_os_ring_map
#undef vmki_os_ring_unmap
#undef vmki_os_snapshot_take
#undef vmki_os_snapshot_drop

/* Is this call to fail, and how? */
static bool planned(vmk_status *status)
{
    model_lock();
    bool fails = model_planned(status);
    model_unlock();
    return fails;
}

vmk_status vmki_os_memory_create(uint64_t size, uintptr_t *handle)
{
    vmk_status status;
    return planned(&status) ? status : real_create(size, handle);
}

vmk_status vmki_os_memory_open(const char *path, unsigned flags, uintptr_t *handle, uint64_t *size)
{
    vmk_status status;
    return planned(&status) ? status : real_open(path, flags, handle, size);
}

vmk_status vmki_os_memory_import(uintptr_t handle, unsigned *flags, uint64_t *size)
{
    vmk_status status;
    return planned(&status) ? status : real_import(handle, flags, size);
}

vmk_status vmki_os_memory_resize(uintptr_t handle, unsigned flags, uint64_t *size)
{
    vmk_status status;
    return planned(&status) ? status : real_resize(handle, flags, size);
}

vmk_status vmki_os_memory_duplicate(uintptr_t handle, bool inherited, uintptr_t *copy)
{
    vmk_status status;
    return planned(&status) ? status : real_duplicate(handle, inherited, copy);
}

void vmki_os_memory_close(uintptr_t handle)
{
    real_close(handle);
}

vmk_status vmki_os_view_map(uintptr_t handle, unsigned flags, uint64_t offset, size_t size, vmk_view_kind kind,
                            void **base)
{
    vmk_status status;
    size_t below = (size_t)(offset & (REAL_GRANULARITY - 1));
    if (planned(&status))
        return status;
    status = real_map(handle, flags, offset - below, size + below, kind, base);
    if (status == VMK_OK)
        *base = (unsigned char *)*base + below;
    return status;
}

void vmki_os_view_unmap(void *base, size_t size)
{
    uintptr_t real = vmki_floor((uintptr_t)base, REAL_GRANULARITY);
    real_unmap((void *)real, (uintptr_t)base + size - real);
}

vmk_status vmki_os_view_remap(void **base, size_t size, size_t new_size)
{
    vmk_status status;
    return planned(&status) ? status : real_remap(base, size, new_size);
}

vmk_status vmki_os_view_flush(void *base, size_t size, uintptr_t handle, unsigned flags)
{
    vmk_status status;
    return planned(&status) ? status : real_flush(base, size, handle, flags);
}

vmk_status vmki_os_ring_map(uintptr_t handle, size_t size, void **base)
{
    vmk_status status;
    return planned(&status) ? status : real_ring_map(handle, size, base);
}

void vmki_os_ring_unmap(void *base, size_t size)
{
    real_ring_unmap(base, size);
}

vmk_status vmki_os_snapshot_take(uintptr_t handle, void *view, uint64_t offset, size_t size, void **frozen)
{
    vmk_status status;
    return planned(&status) ? status : real_take(handle, view, offset, size, frozen);
}

vmk_status vmki_os_snapshot_drop(uintptr_t handle, void *view, uint64_t offset, size_t size, void *frozen)
{
    vmk_status status;
    return planned(&status) ? status : real_drop(handle, view, offset, size, frozen);
}
