/* SPDX-License-Identifier: MIT
 *
 * Size classes: 16, 32 ... 128 bytes, then eight steps to each doubling, up to 32 KiB. So a slot is larger than what it
 * holds by an eighth at most, or by what alignment to 16 takes.
 *
 * A slab's slots are told apart by bits, one for each 16 bytes (a granule); a slot is meant by the bit of its first
 * granule. Which bits begin slots repeats from word to word but for a phase, so that a word's can be had from the word
 * before by a compare and an addition.
 */
#ifndef VMKI_CLASS_H
#define VMKI_CLASS_H

#include "common/base/align.h"

enum {
    VMKI_GRANULE_SHIFT = 4,
    VMKI_GRANULE = 1 << VMKI_GRANULE_SHIFT,
    VMKI_CLASS_LINEAR = 8, /* classes 1 ... 8 are multiples of 16 */
    VMKI_CLASS_LINEAR_SHIFT = 7,
    VMKI_WORD_BITS = sizeof(size_t) * 8
};

/* What there is to know of a class; filled in once, by vmki_classes_init. */
typedef struct vmki_class {
    size_t pattern;    /* of a word in whose first granule a slot begins: where slots begin */
    uint32_t size;     /* bytes */
    uint32_t granules; /* of a slot */
    uint32_t back;     /* by how much the phase goes back from word to word, modulo granules */
    uint32_t pages;    /* of a slab, at least; all have this number of pages times a power of two */
    uint32_t depth;    /* of the stack, see object.h */
} vmki_class;

extern vmki_class vmki_classes[VMK_CLASSES];

/* A stack holds so many slots at most, or what makes so many bytes, but some in any case. */
enum { VMKI_STACK_MOST = 64, VMKI_STACK_LEAST = 4, VMKI_STACK_BYTES = 8192 };

/* A slab of more pages than that is one of the least number of pages for its class. */
enum { VMKI_SLAB_PAGES = 8 };

/* Of a slab with so many slots: words up to the last slot's end; and, of the last of them, granules before that end. */
static inline uint32_t vmki_slab_words(const vmki_class *c, size_t capacity)
{
    return (uint32_t)((capacity * c->granules + VMKI_WORD_BITS - 1) / VMKI_WORD_BITS);
}

static inline size_t vmki_slab_last_mask(const vmki_class *c, size_t capacity)
{
    return SIZE_MAX >> ((size_t)vmki_slab_words(c, capacity) * VMKI_WORD_BITS - capacity * c->granules);
}

/* By size in granules, up to VMKI_CLASS_TABLED bytes: sizes of objects are hard to foresee, so no branch shall depend
 * on those that are frequent. */
enum { VMKI_CLASS_TABLED = 1024 };
extern uint8_t vmki_class_by_granules[VMKI_CLASS_TABLED / VMKI_GRANULE + 1];

/* Any number of times, but not by two threads at once. Before it, classes have no numbers. */
void vmki_classes_init(void);

/* The class for so many bytes, at most VMK_OBJECT_SMALL_MAX: by arithmetic, and by the table where that is enough. */
static inline unsigned vmki_class_computed(size_t size)
{
    if (size <= (size_t)1 << VMKI_CLASS_LINEAR_SHIFT)
        return (unsigned)((size + (size == 0) + VMKI_GRANULE - 1) >> VMKI_GRANULE_SHIFT);
    unsigned shift = vmki_highest_bit(size - 1) - 3; /* of the step here: an eighth */
    return ((shift - VMKI_GRANULE_SHIFT) << 3) + (unsigned)((size - 1) >> shift) + 1;
}

static inline unsigned vmki_class_of(size_t size)
{
    if (VMKI_LIKELY(size <= VMKI_CLASS_TABLED))
        return vmki_class_by_granules[(size + VMKI_GRANULE - 1) >> VMKI_GRANULE_SHIFT];
    return vmki_class_computed(size);
}

static inline size_t vmki_class_size(unsigned size_class)
{
    if (size_class <= VMKI_CLASS_LINEAR)
        return (size_t)size_class << VMKI_GRANULE_SHIFT;
    unsigned above = size_class - VMKI_CLASS_LINEAR - 1, step = (above >> 3) + VMKI_GRANULE_SHIFT;
    return (size_t)((above & 7) + 9) << step;
}

#endif
