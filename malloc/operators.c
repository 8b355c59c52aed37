/* SPDX-License-Identifier: MIT
 *
 * C++'s operators new and delete, by their names in the Itanium ABI, without C++: a program in C shall not have to load
 * libstdc++. What is needed of it when memory has run out is looked for in the program then, which has it if it has
 * C++.
 *
 * Compiled with -fexceptions, for exceptions pass through: of std::__throw_bad_alloc, and of the program's new_handler.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* RTLD_NEXT */
#endif
#include <dlfcn.h>
#include <string.h>

#include "shim.h"

#if SIZE_MAX > 0xffffffff
#define OPERATOR(before, after) before##m##after /* size_t is unsigned long */
#define NAME(before, after) #before "m" #after
#else
#define OPERATOR(before, after) before##j##after /* unsigned int */
#define NAME(before, after) #before "j" #after
#endif

/* --- no memory -------------------------------------------------------------------------------------------------- */

typedef void new_handler(void);
typedef new_handler *get_new_handler(void);
typedef void throw_bad_alloc(void);

/* std::get_new_handler, std::__throw_bad_alloc */
extern get_new_handler _ZSt15get_new_handlerv __attribute__((weak));
extern throw_bad_alloc _ZSt17__throw_bad_allocv __attribute__((weak));

/* Of a C++ library that came later than this one, and perhaps for a plugin alone. */
static void *find_late(const char *name)
{
    static const char *const libraries[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};
    void *found = dlsym(RTLD_DEFAULT, name);
    for (size_t i = 0; found == NULL && i < sizeof libraries / sizeof libraries[0]; i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
        found = library != NULL ? dlsym(library, name) : NULL;
    }
    return found;
}

static new_handler *handler_now(void)
{
    get_new_handler *get = _ZSt15get_new_handlerv;
    if (get == NULL)
        get = (get_new_handler *)find_late("_ZSt15get_new_handlerv");
    return get != NULL ? get() : NULL;
}

static VMKI_NORETURN void no_memory(void)
{
    static const char nobody[] = "vmkit: operator new: no memory, and nothing to throw\n";
    throw_bad_alloc *throw_it = _ZSt17__throw_bad_allocv;
    if (throw_it == NULL)
        throw_it = (throw_bad_alloc *)find_late("_ZSt17__throw_bad_allocv");
    if (throw_it != NULL)
        throw_it();
    vmki_os_write_error(nobody, sizeof nobody - 1);
    vmki_os_abort();
}

/* Whatever the short way had not. `align` 0: the usual one. What is no alignment can't be satisfied either. */
static VMKI_COLD void *new_again(size_t size, size_t align)
{
    for (;;) {
        new_handler *handler = handler_now();
        if (handler == NULL)
            no_memory();
        handler();
        void *object = align != 0 ? vmki_shim_alloc_aligned(size, align) : vmki_shim_alloc(size);
        if (object != NULL)
            return object;
    }
}

/* A handler may throw, and nothrow has to catch: which C can't. So it is left to the definition that is there but for
 * this one, the C++ library's. It ends at the same heap, and keeps to the same rules. */
static VMKI_COLD void *nothrow_again(const char *name, size_t size, size_t align)
{
    static const char nothrow; /* std::nothrow is of an empty type */
    if (handler_now() == NULL)
        return NULL;
    void *next = dlsym(RTLD_NEXT, name);
    if (next == NULL)
        return NULL;
    return align != 0 ? ((void *(*)(size_t, size_t, const void *))next)(size, align, &nothrow)
                      : ((void *(*)(size_t, const void *))next)(size, &nothrow);
}

/* --- new -------------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void *new_long(size_t size)
{
    void *object = vmki_shim_alloc_long(size);
    return VMKI_LIKELY(object != NULL) ? object : new_again(size, 0);
}

static inline void *new_plain(size_t size)
{
    void *object = vmki_shim_take(size);
    return VMKI_LIKELY(object != NULL) ? object : new_long(size);
}

static inline void *new_aligned(size_t size, size_t align)
{
    void *object = vmki_shim_alloc_aligned(size, align);
    return VMKI_LIKELY(object != NULL) ? object : new_again(size, align);
}

#define DEFINE_NEW(prefix)                                                                                             \
    VMKI_EXPORT void *OPERATOR(prefix, )(size_t size)                                                                  \
    {                                                                                                                  \
        return new_plain(size);                                                                                        \
    }                                                                                                                  \
    VMKI_EXPORT void *OPERATOR(prefix, St11align_val_t)(size_t size, size_t align)                                     \
    {                                                                                                                  \
        return new_aligned(size, align);                                                                               \
    }                                                                                                                  \
    VMKI_EXPORT void *OPERATOR(prefix, RKSt9nothrow_t)(size_t size, const void *nothrow)                               \
    {                                                                                                                  \
        void *object = vmki_shim_alloc(size);                                                                          \
        (void)nothrow;                                                                                                 \
        return VMKI_LIKELY(object != NULL) ? object : nothrow_again(NAME(prefix, RKSt9nothrow_t), size, 0);            \
    }                                                                                                                  \
    VMKI_EXPORT void *OPERATOR(prefix, St11align_val_tRKSt9nothrow_t)(size_t size, size_t align, const void *nothrow)  \
    {                                                                                                                  \
        static const char name[] = NAME(prefix, St11align_val_tRKSt9nothrow_t);                                        \
        void *object = vmki_shim_alloc_aligned(size, align);                                                           \
        (void)nothrow;                                                                                                 \
        return VMKI_LIKELY(object != NULL) ? object : nothrow_again(name, size, align);                                \
    }

DEFINE_NEW(_Znw)
DEFINE_NEW(_Zna)

/* --- delete ----------------------------------------------------------------------------------------------------- */

#define DEFINE_DELETE(prefix)                                                                                          \
    VMKI_EXPORT void prefix##Pv(void *object)                                                                          \
    {                                                                                                                  \
        vmki_shim_free(object);                                                                                        \
    }                                                                                                                  \
    VMKI_EXPORT void prefix##PvRKSt9nothrow_t(void *object, const void *nothrow)                                       \
    {                                                                                                                  \
        (void)nothrow;                                                                                                 \
        prefix##Pv(object);                                                                                            \
    }                                                                                                                  \
    VMKI_EXPORT void prefix##PvSt11align_val_t(void *object, size_t align)                                             \
    {                                                                                                                  \
        (void)align;                                                                                                   \
        prefix##Pv(object);                                                                                            \
    }                                                                                                                  \
    VMKI_EXPORT void prefix##PvSt11align_val_tRKSt9nothrow_t(void *object, size_t align, const void *nothrow)          \
    {                                                                                                                  \
        (void)align, (void)nothrow;                                                                                    \
        prefix##Pv(object);                                                                                            \
    }                                                                                                                  \
    VMKI_EXPORT void OPERATOR(prefix##Pv, )(void *object, size_t size)                                                 \
    {                                                                                                                  \
        vmki_shim_free_sized(object, size);                                                                            \
    }                                                                                                                  \
    VMKI_EXPORT void OPERATOR(prefix##Pv, St11align_val_t)(void *object, size_t size, size_t align)                    \
    {                                                                                                                  \
        (void)align;                                                                                                   \
        vmki_shim_free_sized(object, size);                                                                            \
    }

DEFINE_DELETE(_Zdl)
DEFINE_DELETE(_Zda)
