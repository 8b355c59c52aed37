/* SPDX-License-Identifier: MIT
 *
 * What differs between gcc, clang and MSVC, and nothing else: attributes, atomics, bit scans, checked arithmetic. The
 * atomics work on plain objects, not on _Atomic ones, since vmkit.h must also be readable by a C++ compiler.
 */
#ifndef VMKI_COMPILER_H
#define VMKI_COMPILER_H

#include "vmkit.h"

/* Drop a result that must be checked, where the reason stands beside it: a cast to void does not satisfy gcc. */
#define VMKI_IGNORE(status)                                                                                            \
    do {                                                                                                               \
        if (status) {                                                                                                  \
        }                                                                                                              \
    } while (0)

/* For what runs in a handler of faults: ThreadSanitizer does atomic operations itself, with a lock held that those of
 * the handler would wait for. */
#if defined(__has_attribute)
#if __has_attribute(disable_sanitizer_instrumentation) /* clang 14 */
#define VMKI_IN_HANDLER __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#if !defined(VMKI_IN_HANDLER) && defined(__SANITIZE_THREAD__) /* gcc */
#define VMKI_IN_HANDLER __attribute__((no_sanitize("thread")))
#elif !defined(VMKI_IN_HANDLER)
#define VMKI_IN_HANDLER
#endif

/* For what reads memory that is somebody else's: stacks of other threads, whatever tools have put there. */
#if defined(__GNUC__)
#define VMKI_READS_ANYTHING __attribute__((no_sanitize("address", "thread", "undefined"), noinline))
#else
#define VMKI_READS_ANYTHING __declspec(noinline)
#endif

/* The same for what is to become part of such a function: both must look alike, or the one is not inlined. The second
 * kind is for what is compiled several times, each for other constants. */
#if defined(__GNUC__)
#define VMKI_UNCHECKED __attribute__((no_sanitize("address", "thread", "undefined")))
#define VMKI_UNCHECKED_INLINE static inline __attribute__((always_inline)) VMKI_UNCHECKED
#else
#define VMKI_UNCHECKED
#define VMKI_UNCHECKED_INLINE static __forceinline
#endif

#if defined(__GNUC__)

#define VMKI_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define VMKI_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define VMKI_NORETURN __attribute__((noreturn))
#define VMKI_COLD __attribute__((cold, noinline))

#define VMKI_LOAD_RELAXED(pointer) __atomic_load_n((pointer), __ATOMIC_RELAXED)
#define VMKI_STORE_RELAXED(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELAXED)
#define VMKI_LOAD_ACQUIRE(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define VMKI_STORE_RELEASE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)

static inline bool vmki_cas_byte(uint8_t *pointer, uint8_t *expected, uint8_t desired)
{
    return __atomic_compare_exchange_n(pointer, expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* The address behind the call of the function in which it stands. */
#define VMKI_RETURN_ADDRESS() __builtin_return_address(0)

/* Of bytes, sequentially consistent, as what is below. */
#define VMKI_LOAD_BYTE(pointer) __atomic_load_n((pointer), __ATOMIC_SEQ_CST)
#define VMKI_EXCHANGE_BYTE(pointer, value) __atomic_exchange_n((pointer), (value), __ATOMIC_SEQ_CST)
/* An address in the frame of the function in which it stands, not above the end of its caller's frame. What the
 * function saves of its caller's registers lies below it, or in so many words from it on. */
#define VMKI_FRAME_ADDRESS() __builtin_frame_address(0)
#if defined(__x86_64__) || defined(__i386__)
#define VMKI_FRAME_SAVES 2
#else
#define VMKI_FRAME_SAVES 32
#endif

/* Order among what one thread does, as its own signal handler sees it. */
#define VMKI_SIGNAL_FENCE() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* Have a line of memory on its way that will be read; any address may be given. */
#define VMKI_PREFETCH(address) __builtin_prefetch((const void *)(address))

/* Sequentially consistent; each answers with what was there before. */
#define VMKI_FETCH_OR(pointer, bits) __atomic_fetch_or((pointer), (bits), __ATOMIC_SEQ_CST)
#define VMKI_FETCH_AND(pointer, bits) __atomic_fetch_and((pointer), (bits), __ATOMIC_SEQ_CST)
#define VMKI_FETCH_ADD(pointer, value) __atomic_fetch_add((pointer), (value), __ATOMIC_SEQ_CST)
#define VMKI_FETCH_ADD_32(pointer, value) __atomic_fetch_add((pointer), (value), __ATOMIC_SEQ_CST)
#define VMKI_EXCHANGE(pointer, value) __atomic_exchange_n((pointer), (value), __ATOMIC_SEQ_CST)
#define VMKI_LOAD(pointer) __atomic_load_n((pointer), __ATOMIC_SEQ_CST)
#define VMKI_LOAD_32(pointer) __atomic_load_n((pointer), __ATOMIC_SEQ_CST)

static inline bool vmki_cas_32(uint32_t *pointer, uint32_t expected, uint32_t desired)
{
    return __atomic_compare_exchange_n(pointer, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Positions of the lowest and highest set bit; the word must not be 0. */
static inline unsigned vmki_lowest_bit(size_t word)
{
    return (unsigned)__builtin_ctzll(word);
}

static inline unsigned vmki_highest_bit(size_t word)
{
    return 63u - (unsigned)__builtin_clzll(word);
}

/* The same for 64 bits, also where a size_t has only 32. */
static inline unsigned vmki_lowest_bit_64(uint64_t word)
{
    return (unsigned)__builtin_ctzll(word);
}

static inline unsigned vmki_highest_bit_64(uint64_t word)
{
    return 63u - (unsigned)__builtin_clzll(word);
}

/* *result = a op b; true where that overflowed. */
static inline bool vmki_add_overflow(size_t a, size_t b, size_t *result)
{
    return __builtin_add_overflow(a, b, result);
}

static inline bool vmki_mul_overflow(size_t a, size_t b, size_t *result)
{
    return __builtin_mul_overflow(a, b, result);
}

#elif defined(_MSC_VER)

#include <intrin.h>

#define VMKI_LIKELY(condition) (condition)
#define VMKI_UNLIKELY(condition) (condition)
#define VMKI_NORETURN __declspec(noreturn)
#define VMKI_COLD __declspec(noinline)

/* Accesses of up to a word are single on MSVC's targets. A relaxed load is a plain one: what is read in a loop until it
 * changes must be declared volatile, or loaded with acquire. */
#define VMKI_LOAD_RELAXED(pointer) (*(pointer))
#define VMKI_STORE_RELAXED(pointer, value) ((void)(*(pointer) = (value)))
#define VMKI_LOAD_ACQUIRE(pointer) (*(pointer)) /* x86; of pointers and words that are not polled */
#define VMKI_STORE_RELEASE(pointer, value) (vmki_release_barrier(), (void)(*(pointer) = (value)))

static __forceinline void vmki_release_barrier(void)
{
#if defined(_M_ARM64) || defined(_M_ARM)
    __dmb(0xB);
#else
    _ReadWriteBarrier();
#endif
}

static inline bool vmki_cas_byte(uint8_t *pointer, uint8_t *expected, uint8_t desired)
{
    char old = _InterlockedCompareExchange8((volatile char *)pointer, (char)desired, (char)*expected);
    bool done = old == (char)*expected;
    *expected = (uint8_t)old;
    return done;
}

#define VMKI_RETURN_ADDRESS() _ReturnAddress()
#define VMKI_LOAD_BYTE(pointer) (*(volatile const uint8_t *)(pointer))
#define VMKI_EXCHANGE_BYTE(pointer, value) ((uint8_t)_InterlockedExchange8((volatile char *)(pointer), (char)(value)))

#define VMKI_FRAME_ADDRESS() _AddressOfReturnAddress()
#define VMKI_FRAME_SAVES 1
#define VMKI_SIGNAL_FENCE() _ReadWriteBarrier()
#if defined(_M_IX86) || defined(_M_X64)
#define VMKI_PREFETCH(address) _mm_prefetch((const char *)(address), 1)
#else
#define VMKI_PREFETCH(address) __prefetch((const void *)(address))
#endif

#if defined(_WIN64)
#define VMKI_FETCH_OR(pointer, bits) ((size_t)_InterlockedOr64((volatile __int64 *)(pointer), (__int64)(bits)))
#define VMKI_FETCH_AND(pointer, bits) ((size_t)_InterlockedAnd64((volatile __int64 *)(pointer), (__int64)(bits)))
#define VMKI_FETCH_ADD(pointer, value)                                                                                 \
    ((size_t)_InterlockedExchangeAdd64((volatile __int64 *)(pointer), (__int64)(value)))
#else
#define VMKI_FETCH_OR(pointer, bits) ((size_t)_InterlockedOr((volatile long *)(pointer), (long)(bits)))
#define VMKI_FETCH_AND(pointer, bits) ((size_t)_InterlockedAnd((volatile long *)(pointer), (long)(bits)))
#define VMKI_FETCH_ADD(pointer, value) ((size_t)_InterlockedExchangeAdd((volatile long *)(pointer), (long)(value)))
#endif

#define VMKI_FETCH_ADD_32(pointer, value) ((uint32_t)_InterlockedExchangeAdd((volatile long *)(pointer), (long)(value)))

/* Of 4 or 8 bytes. */
#define VMKI_EXCHANGE(pointer, value)                                                                                  \
    (sizeof *(pointer) == 8 ? (uint64_t)_InterlockedExchange64((volatile __int64 *)(pointer), (__int64)(value))        \
                            : (uint64_t)(uint32_t)_InterlockedExchange((volatile long *)(pointer), (long)(value)))
#define VMKI_LOAD(pointer) (*(volatile const size_t *)(pointer))
#define VMKI_LOAD_32(pointer) (*(volatile const uint32_t *)(pointer))

static inline bool vmki_cas_32(uint32_t *pointer, uint32_t expected, uint32_t desired)
{
    return (uint32_t)_InterlockedCompareExchange((volatile long *)pointer, (long)desired, (long)expected) == expected;
}

static inline unsigned vmki_lowest_bit(size_t word)
{
    unsigned long at;
#if defined(_WIN64)
    _BitScanForward64(&at, word);
#else
    _BitScanForward(&at, word);
#endif
    return at;
}

static inline unsigned vmki_highest_bit(size_t word)
{
    unsigned long at;
#if defined(_WIN64)
    _BitScanReverse64(&at, word);
#else
    _BitScanReverse(&at, word);
#endif
    return at;
}

static inline unsigned vmki_lowest_bit_64(uint64_t word)
{
    unsigned long at;
#if defined(_WIN64)
    _BitScanForward64(&at, word);
#else
    if (!_BitScanForward(&at, (unsigned long)word)) {
        _BitScanForward(&at, (unsigned long)(word >> 32));
        at += 32;
    }
#endif
    return at;
}

static inline unsigned vmki_highest_bit_64(uint64_t word)
{
    unsigned long at;
#if defined(_WIN64)
    _BitScanReverse64(&at, word);
#else
    if (_BitScanReverse(&at, (unsigned long)(word >> 32)))
        at += 32;
    else
        _BitScanReverse(&at, (unsigned long)word);
#endif
    return at;
}

static inline bool vmki_add_overflow(size_t a, size_t b, size_t *result)
{
    *result = a + b;
    return *result < a;
}

static inline bool vmki_mul_overflow(size_t a, size_t b, size_t *result)
{
    *result = a * b;
    return b != 0 && a > SIZE_MAX / b;
}

#endif

#endif
