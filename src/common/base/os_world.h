/* SPDX-License-Identifier: MIT
 *
 * The contract with the operating system, third part: what only the collector (part 7 of vmkit.h) asks of one: threads
 * that can be interrupted, with their registers and stacks; and where a program keeps data for as long as it runs. The
 * duties are those of os.h. A mutator is a thread that the collector knows: the field's word.
 */
#ifndef VMKI_OS_WORLD_H
#define VMKI_OS_WORLD_H

#include "common/base/os.h"

/* Bytes for whatever registers a system saves: Windows' CONTEXT is the largest. */
enum { VMKI_OS_REGISTERS = 1536 };

/* Memory that may hold pointers; base and size are multiples of a pointer's size. */
typedef void vmki_os_range_visitor(void *context, const void *base, size_t size);

/* --- threads: os_world.c ---------------------------------------------------------------------------------------- */

/* A thread as the system knows it. The first member of what the collector has of each. */
typedef struct vmki_os_mutator {
    uintptr_t system[6]; /* the implementation's own: handle, thread pointer ... */
    void *stack_low;     /* the thread's own stack: [low, high), low being as far as it may ever grow */
    void *stack_high;
    void *sp; /* of a thread that was suspended: below which nothing is in use */
    _Alignas(16) unsigned char registers[VMKI_OS_REGISTERS]; /* scanned as a range; zero where not written */
} vmki_os_mutator;

/* Once, before all else here. `here` is called in a thread that vmki_os_interrupt was used on, at whatever point it
 * was, on the stack where it was: everything that it had in registers lies in memory at `sp` or above it, up to the end
 * of that stack. When `here` returns the thread goes on as if nothing had happened, errno and all. What `here` does is
 * async-signal-safe. `at_end` is called in a thread that ends with a mutator set, which is NULL again by then.
 * VMK_ERR_UNSUPPORTED: threads can't be interrupted (then they can be stopped at safe points only). */
vmk_status vmki_os_world_init(void (*here)(vmki_os_mutator *mutator, void *sp),
                              void (*at_end)(vmki_os_mutator *mutator));

/* Describe the calling thread: handle, bounds of its stack. Undone by forget, by the thread itself or, after its end,
 * by any. VMK_ERR_COMMIT, VMK_ERR_UNSUPPORTED: the system does not tell. Sees to it that the thread can be interrupted
 * (the signal is not blocked). */
vmk_status vmki_os_mutator_describe(vmki_os_mutator *mutator);
void vmki_os_mutator_forget(vmki_os_mutator *mutator);

/* The calling thread's mutator: NULL until set; vmki_os_mutator_self() in os_self.h is the inline look-up. */
void vmki_os_mutator_set(vmki_os_mutator *mutator);

typedef enum vmki_os_interrupted {
    VMKI_OS_CALLS_HERE, /* `here` will be called in it, soon; where it has the signal blocked, when it no longer has. A
                           second interrupt before that does no harm: a signal may be lost to a sigwait() */
    VMKI_OS_SUSPENDED,  /* it stands still, sp and registers are filled in; vmki_os_resume lets it go on */
    VMKI_OS_GONE        /* it has ended */
} vmki_os_interrupted;

/* Interrupt another thread, which is described. Not to be called by a thread that holds a lock which the other may need
 * to get to the point of being interrupted; after SUSPENDED, and until resume, the caller takes no lock that is not its
 * own already, and calls neither the C library nor the loader. */
vmki_os_interrupted vmki_os_interrupt(vmki_os_mutator *mutator);
void vmki_os_resume(vmki_os_mutator *mutator);

/* Store every register whose value a function must preserve for its caller into `registers` (vector registers too where
 * they are such: Win64). The frame pointer too, and none of them disguised, as setjmp's are. */
void vmki_os_registers_save(unsigned char registers[VMKI_OS_REGISTERS]);

/* Called by `here`: is the thread on an alternate signal stack? Then its bounds. Async-signal-safe. */
bool vmki_os_alternate_stack(void **low, void **high);

/* Of [low, high), part of a stack, in which there may be pages that were never touched: visit what may hold something.
 * Used where no stack pointer is known. */
void vmki_os_stack_touched(void *low, void *high, vmki_os_range_visitor *visit, void *context);

/* How many threads can run at once: at least 1. */
unsigned vmki_os_processors(void);

/* --- data of the program and its libraries: os_roots.c ------------------------------------------------------------ */

/* Run `body` while no library can come or go. The functions below are called in it. A thread that is stopped within
 * it does not hold the loader's lock, for the caller does. Nothing is loaded, nor allocated, by them. */
void vmki_os_with_libraries(void (*body)(void *argument), void *argument);

/* Visit all writable static data of the executable and of all libraries that are loaded now. What is read-only after
 * relocation may be left out. Every visited byte can be read. */
void vmki_os_static_data(vmki_os_range_visitor *visit, void *context);

/* Visit the thread-local storage of a thread that stands still (or of the calling one): of the program and of
 * libraries, those loaded late too, by whatever means the system's compilers use; and the values that it keeps by key
 * (POSIX), in TLS and FLS slots (Windows). May visit the same twice, or what the stack's range has too. */
void vmki_os_thread_data(const vmki_os_mutator *mutator, vmki_os_range_visitor *visit, void *context);

#endif
