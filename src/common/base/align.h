/* SPDX-License-Identifier: MIT
 *
 * Arithmetic on sizes and powers of two, overflow seen.
 */
#ifndef VMKI_ALIGN_H
#define VMKI_ALIGN_H

#include "common/base/compiler.h"

static inline bool vmki_is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static inline bool vmki_is_aligned(uintptr_t value, size_t unit)
{
    return (value & (unit - 1)) == 0;
}

static inline size_t vmki_floor(size_t value, size_t unit)
{
    return value & ~(unit - 1);
}

/* Rounded up to a power-of-two unit; the caller knows that it can't overflow. */
static inline size_t vmki_ceil(size_t value, size_t unit)
{
    return (value + (unit - 1)) & ~(unit - 1);
}

/* The same, checked: true where it overflowed, *result being then 0. */
static inline bool vmki_ceil_overflow(size_t value, size_t unit, size_t *result)
{
    *result = vmki_ceil(value, unit);
    return *result < value;
}

static inline size_t vmki_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t vmki_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline uint64_t vmki_min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* By 1 ... one less than its width. */
static inline size_t vmki_rotate_right(size_t word, unsigned count)
{
    return word >> count | word << (sizeof word * 8 - count);
}

/* How many bits are set: by sums of ever more bits, side by side, for not every processor can count them. */
static inline uint32_t vmki_ones_in(uint64_t word)
{
    word -= word >> 1 & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)(word * 0x0101010101010101u >> 56);
}

/* Does [offset, offset + size) lie within [0, limit)? */
static inline bool vmki_range_within(size_t offset, size_t size, size_t limit)
{
    return offset <= limit && size <= limit - offset;
}

#endif
