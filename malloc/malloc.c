/* SPDX-License-Identifier: MIT
 *
 * The C library's family. Where standards leave a choice it is glibc's: programs were tested with that.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* reallocarray, memalign */
#endif
#include <stdlib.h>
#include <string.h>

#include "shim.h"

/* --- what the inline parts are without -------------------------------------------------------------------------- */

__attribute__((noinline)) void *vmki_shim_alloc_long(size_t size)
{
    vmki_heap *heap = vmki_shim_heap();
    return vmki_shim_done(heap != NULL ? vmk_heap_alloc(&heap->view, size) : NULL);
}

__attribute__((noinline)) void *vmki_shim_zeroed_long(size_t size)
{
    vmki_heap *heap = vmki_shim_heap();
    return vmki_shim_done(heap != NULL ? vmk_heap_alloc_zeroed(&heap->view, size) : NULL);
}

void *vmki_shim_alloc_aligned(size_t size, size_t align)
{
    vmki_heap *heap = vmki_shim_heap();
    return vmki_shim_done(heap != NULL ? vmk_heap_alloc_aligned(&heap->view, size, align) : NULL);
}

/* A thread that has no cache frees; or there is no heap, and so no object. */
VMKI_COLD void vmki_shim_free_long(void *object)
{
    vmki_heap *heap = vmki_shim_heap();
    if (heap == NULL)
        vmki_object_crime("vmk_heap_free: not an object of this heap", object);
    vmki_object_free(heap, vmki_shim_cache(), object);
}

/* --- C ---------------------------------------------------------------------------------------------------------- */

VMKI_EXPORT void *malloc(size_t size)
{
    return vmki_shim_alloc(size);
}

VMKI_EXPORT void free(void *object)
{
    vmki_shim_free(object);
}

VMKI_EXPORT void *calloc(size_t count, size_t size)
{
    size_t whole;
    return vmki_mul_overflow(count, size, &whole) ? vmki_shim_done(NULL) : vmki_shim_zeroed(whole);
}

/* No bytes: C17 leaves it open, C23 forbids it, and glibc frees. */
static void *reallocate(void *object, size_t size)
{
    if (object == NULL)
        return vmki_shim_alloc(size);
    if (size == 0) {
        vmki_shim_free(object);
        return NULL;
    }
    vmki_heap *heap = vmki_shim_heap();
    if (heap == NULL)
        vmki_object_crime("vmk_heap_realloc: not an object of this heap", object);
    return vmki_shim_done(vmk_heap_realloc(&heap->view, object, size));
}

VMKI_EXPORT void *realloc(void *object, size_t size)
{
    return reallocate(object, size);
}

VMKI_EXPORT void *reallocarray(void *object, size_t count, size_t size)
{
    size_t whole;
    return vmki_mul_overflow(count, size, &whole) ? vmki_shim_done(NULL) : reallocate(object, whole);
}

VMKI_EXPORT void free_sized(void *object, size_t size)
{
    vmki_shim_free_sized(object, size);
}

VMKI_EXPORT void free_aligned_sized(void *object, size_t align, size_t size)
{
    (void)align;
    vmki_shim_free_sized(object, size);
}

VMKI_EXPORT size_t malloc_usable_size(void *object)
{
    vmki_heap *heap = vmki_shim_heap();
    return vmk_heap_usable_size(heap != NULL ? &heap->view : NULL, object);
}

/* Old programs call it; glibc has it for them alone, musl has not. */
#if defined(__GLIBC__)
VMKI_EXPORT void cfree(void *object)
{
    vmki_shim_free(object);
}
#endif

/* --- alignment -------------------------------------------------------------------------------------------------- */

VMKI_EXPORT void *aligned_alloc(size_t align, size_t size)
{
    if (!vmki_is_power_of_two(align)) {
        errno = EINVAL;
        return NULL;
    }
    return vmki_shim_alloc_aligned(size, align);
}

/* It tells by what it returns, and not by errno. */
VMKI_EXPORT int posix_memalign(void **object, size_t align, size_t size)
{
    if (!vmki_is_power_of_two(align) || align % sizeof(void *) != 0)
        return EINVAL;
    int error = errno;
    void *made = vmki_shim_alloc_aligned(size, align);
    errno = error;
    if (made == NULL)
        return ENOMEM;
    *object = made;
    return 0;
}

/* It takes any alignment, and means the next power of two. */
VMKI_EXPORT void *memalign(size_t align, size_t size)
{
    if (align > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = VMKI_GRANULE;
    while (power < align)
        power *= 2;
    return vmki_shim_alloc_aligned(size, power);
}

VMKI_EXPORT void *valloc(size_t size)
{
    return vmki_shim_alloc_aligned(size, vmk_page_size());
}

VMKI_EXPORT void *pvalloc(size_t size)
{
    size_t whole;
    if (vmki_ceil_overflow(vmki_max(size, 1), vmk_page_size(), &whole))
        return vmki_shim_done(NULL);
    return vmki_shim_alloc_aligned(whole, vmk_page_size());
}
