/* SPDX-License-Identifier: MIT
 *
 * What tools that watch a program's memory are told of a heap's. In ordinary builds all of this is nothing.
 *
 *   AddressSanitizer  wherever it is compiled in: memory that nobody may touch is poisoned
 *   memcheck          where VMKIT_VALGRIND is defined: valgrind knows each object, and how many bytes were asked for
 *
 * Two words are used of memory. It is `open` where whoever has it may touch it, and `closed` where nobody may: free
 * pages, once they have been in use; the free slots of slabs; what stands behind an object for the library alone, which
 * touches it `quietly`. Memory is closed by who gives it up, while it still is his, and opened by who takes it.
 *
 * Leaks. To memcheck every word of memory that can be read is a root, our tables included, where a leaked object would
 * be found and so be none. So no table has an object's address for long: those of slabs and spans are `hidden`, by
 * lying at odd places, where no pointer is looked for; and a stack of slots forgets what it has handed out.
 */
#ifndef VMKI_TOOLS_H
#define VMKI_TOOLS_H

#include "common/base/compiler.h"

#if defined(__SANITIZE_ADDRESS__)
#define VMKI_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VMKI_ASAN 1
#endif
#endif

#if defined(VMKI_ASAN)

#include <sanitizer/asan_interface.h>

enum { VMKI_TOOLS = 1, VMKI_LEAKS = 0, VMKI_SKEW = 0 };

/* Of a function that reads or writes what is closed. */
#if defined(_MSC_VER)
#define VMKI_UNWATCHED __declspec(no_sanitize_address)
#else
#define VMKI_UNWATCHED __attribute__((no_sanitize("address")))
#endif

#elif defined(VMKIT_VALGRIND)

#include <valgrind/memcheck.h>

/* VMKI_SKEW: where, from a place for one, what may hold an object's address stands. */
enum { VMKI_TOOLS = 1, VMKI_LEAKS = 1, VMKI_SKEW = 1 };
#define VMKI_UNWATCHED
#define VMKI_HIDDEN(type, name)                                                                                        \
    uint8_t name##_skew;                                                                                               \
    type name __attribute__((packed))

#else

enum { VMKI_TOOLS = 0, VMKI_LEAKS = 0, VMKI_SKEW = 0 };
#define VMKI_UNWATCHED

#endif

/* A member of a structure that may hold an object's address. */
#if !defined(VMKI_HIDDEN)
#define VMKI_HIDDEN(type, name) type name
#endif

/* --- memory ----------------------------------------------------------------------------------------------------- */

static inline void vmki_tools_open(const void *base, size_t size)
{
#if defined(VMKI_ASAN)
    __asan_unpoison_memory_region(base, size);
#elif defined(VMKIT_VALGRIND)
    (void)VALGRIND_MAKE_MEM_DEFINED(base, size);
#else
    (void)base, (void)size;
#endif
}

static inline void vmki_tools_close(const void *base, size_t size)
{
#if defined(VMKI_ASAN)
    __asan_poison_memory_region(base, size);
#elif defined(VMKIT_VALGRIND)
    (void)VALGRIND_MAKE_MEM_NOACCESS(base, size);
#else
    (void)base, (void)size;
#endif
}

/* What the calling thread does up to `loud` is the library's own, with closed memory too. */
static inline void vmki_tools_quiet(void)
{
#if defined(VMKIT_VALGRIND)
    VALGRIND_DISABLE_ERROR_REPORTING;
#endif
}

static inline void vmki_tools_loud(void)
{
#if defined(VMKIT_VALGRIND)
    VALGRIND_ENABLE_ERROR_REPORTING;
#endif
}

/* --- objects ---------------------------------------------------------------------------------------------------- */

/* A heap's beginning and end; with it all its objects are gone. Its record is to memcheck a block as one from malloc:
 * where there is none at all, memcheck (3.19) looks for no leaks. */
static inline void vmki_tools_heap_begin(const void *heap, size_t record_size)
{
#if defined(VMKIT_VALGRIND)
    VALGRIND_MALLOCLIKE_BLOCK(heap, record_size, 0, 1);
    VALGRIND_CREATE_MEMPOOL(heap, 0, 0);
#else
    (void)heap, (void)record_size;
#endif
}

static inline void vmki_tools_heap_end(const void *heap)
{
#if defined(VMKIT_VALGRIND)
    VALGRIND_DESTROY_MEMPOOL(heap);
    VALGRIND_FREELIKE_BLOCK(heap, 0);
#else
    (void)heap;
#endif
}

/* The program has an object, of which it may use all if it asks for the size; `zero`: it is, and shall be known so.
 * Answers the object. */
static inline void *vmki_tools_alloc(const void *heap, void *object, size_t size, size_t usable, bool zero)
{
#if defined(VMKI_ASAN)
    __asan_unpoison_memory_region(object, usable);
    (void)size;
#elif defined(VMKIT_VALGRIND)
    (void)VALGRIND_MAKE_MEM_NOACCESS(object, usable);
    VALGRIND_MEMPOOL_ALLOC(heap, object, size);
    if (zero)
        (void)VALGRIND_MAKE_MEM_DEFINED(object, size);
#else
    (void)size, (void)usable;
#endif
    (void)heap, (void)zero;
    return object;
}

/* And has it no more: its slot of that size is closed. 0: its memory is about to be unmapped, which closes it, and must
 * not be found closed by who gets those addresses next. */
static inline void vmki_tools_free(const void *heap, const void *object, size_t size)
{
#if defined(VMKI_ASAN)
    __asan_poison_memory_region(object, size);
#elif defined(VMKIT_VALGRIND)
    VALGRIND_MEMPOOL_FREE(heap, object);
    (void)VALGRIND_MAKE_MEM_NOACCESS(object, size);
#else
    (void)object, (void)size;
#endif
    (void)heap;
}

/* How many bytes were asked for, of an object with so many that may be used; all of these where nobody knows. */
static inline size_t vmki_tools_asked(const void *object, size_t usable)
{
#if defined(VMKIT_VALGRIND)
    VALGRIND_DISABLE_ERROR_REPORTING;
    uintptr_t end = VALGRIND_CHECK_MEM_IS_ADDRESSABLE(object, usable); /* 0: all is */
    VALGRIND_ENABLE_ERROR_REPORTING;
    return end != 0 ? end - (uintptr_t)object : usable;
#else
    (void)object;
    return usable;
#endif
}

/* An object of `had` bytes is now one of `size` bytes, in the same place or another to which it was moved whole. */
static inline void vmki_tools_resize(const void *heap, const void *from, const void *to, size_t had, size_t size,
                                     size_t usable)
{
#if defined(VMKIT_VALGRIND)
    const unsigned char *bytes = to;
    VALGRIND_MEMPOOL_CHANGE(heap, from, to, size);
    if (size > had)
        (void)VALGRIND_MAKE_MEM_UNDEFINED(bytes + had, size - had);
    (void)VALGRIND_MAKE_MEM_NOACCESS(bytes + size, usable - size);
#else
    (void)heap, (void)from, (void)to, (void)had, (void)size, (void)usable;
#endif
}

/* A place that holds an object's address, and is free. */
static inline void vmki_tools_forget(void **place)
{
#if defined(VMKIT_VALGRIND)
    *place = NULL;
#else
    (void)place;
#endif
}

#endif
