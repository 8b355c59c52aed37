/* SPDX-License-Identifier: MIT
 *
 * What the files of libvmkit-malloc share: the C library's allocating functions and C++'s operators, on the default
 * heap.
 *
 *   malloc.c       the functions of C
 *   operators.c    those of C++
 *   environment.c  the first call: what the environment asks for
 *   report.c       figures
 *
 * They are called before constructors, after destructors, in the middle of the dynamic linker and of a thread's end. So
 * nothing here uses stdio, locks of its own, or anything else that would allocate; what may, stands where memory has
 * run out.
 */
#ifndef VMKI_SHIM_H
#define VMKI_SHIM_H

#include <errno.h>

#include "common/base/check.h"

#pragma GCC visibility push(hidden) /* so that what is of the core's is reached without a detour */
#include "common/heap/object.h"

/* environment.c: make the heap. NULL: it can't be had. */
vmki_heap *vmki_shim_begin(void);
extern bool vmki_shim_hardened; /* as it was asked for */

/* report.c */
void vmki_shim_report(int file);

/* malloc.c */
void *vmki_shim_alloc_long(size_t size);
void *vmki_shim_zeroed_long(size_t size);
void *vmki_shim_alloc_aligned(size_t size, size_t align);
void vmki_shim_free_long(void *object);

#pragma GCC visibility pop

#define VMKI_EXPORT __attribute__((visibility("default")))

static inline vmki_heap *vmki_shim_heap(void)
{
    vmki_heap *heap = VMKI_LOAD_ACQUIRE(&vmki_default_heap);
    return VMKI_LIKELY(heap != NULL) ? heap : vmki_shim_begin();
}

/* The calling thread's cache, or NULL. If there is one there is the heap. */
static inline vmk_cache *vmki_shim_cache(void)
{
    const vmki_thread *self = vmki_os_self();
    return VMKI_LIKELY(self != NULL) ? self->cache[VMKI_NUMBER_DEFAULT] : NULL;
}

/* The end of a call that may have allocated. A thread that is past its end must not keep what nobody will take away. */
static inline void *vmki_shim_done(void *object)
{
    if (VMKI_UNLIKELY(vmki_posix_ends != 0))
        vmki_thread_end_now();
    if (VMKI_UNLIKELY(object == NULL))
        errno = ENOMEM;
    return object;
}

/* The short way of malloc; NULL: it is not to be had by that. */
static inline void *vmki_shim_take(size_t size)
{
    vmk_cache *cache = vmki_shim_cache();
    if (VMKI_LIKELY(cache != NULL && size <= VMKI_CLASS_TABLED)) {
        unsigned size_class = vmki_class_by_granules[(size + VMKI_GRANULE - 1) >> VMKI_GRANULE_SHIFT];
        void *object = vmki_cache_take(cache, size_class);
        if (VMKI_LIKELY(object != NULL))
            return vmki_tools_alloc(vmki_default_heap, object, size, vmki_class_size(size_class), false);
    }
    return NULL;
}

/* malloc itself. */
static inline void *vmki_shim_alloc(size_t size)
{
    void *object = vmki_shim_take(size);
    return VMKI_LIKELY(object != NULL) ? object : vmki_shim_alloc_long(size);
}

/* calloc itself. */
static inline void *vmki_shim_zeroed(size_t size)
{
    void *object = vmki_shim_take(size);
    if (VMKI_UNLIKELY(object == NULL))
        return vmki_shim_zeroed_long(size);
    vmki_object_clear(object, size);
    return object;
}

/* free itself. */
static inline void vmki_shim_free(void *object)
{
    vmk_cache *cache = vmki_shim_cache();
    if (object == NULL)
        return;
    if (VMKI_LIKELY(cache != NULL))
        vmki_cache_free(cache, object);
    else
        vmki_shim_free_long(object);
}

static inline void vmki_shim_free_sized(void *object, size_t size)
{
    if (VMKI_UNLIKELY(vmki_shim_hardened) && object != NULL)
        vmk_heap_free_sized(&vmki_shim_heap()->view, object, size);
    else
        vmki_shim_free(object);
}

#endif
