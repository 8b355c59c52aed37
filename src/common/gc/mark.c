/* SPDX-License-Identifier: MIT
 *
 * Marking: what a word points to, and scanning objects.
 *
 * A word is looked up in the heap's classes by page, its slot's number is a product, and then its bits are asked. What
 * becomes marked, and is no leaf, goes on the marker's stack. What comes off the stack is not scanned at once: it is
 * prefetched and passes through a ring first, so that a dozen objects are on their way from memory at any time (Cher,
 * Hosking and Vijaykumar, 2004).
 *
 * The hot functions are compiled once for each mode, see marker.h.
 */
#include "common/gc/marker.h"

/* --- discovering -------------------------------------------------------------------------------------------------- */

/* A marker's push is plain code, but part of what no tool looks into. */
VMKI_UNCHECKED_INLINE void note(vmki_marker *m, uintptr_t work)
{
    if (VMKI_UNLIKELY(m->top == m->room) && !vmki_marker_grow(m))
        vmki_marker_overflow(m, work);
    else
        m->stack[m->top++] = work;
}

/* Set an object's mark; true: it was not set before, and there is such an object. */
VMKI_UNCHECKED_INLINE bool mark(vmki_marker *m, uintptr_t base, const unsigned mode)
{
    size_t granule = (base - m->origin) >> VMKI_GRANULE_SHIFT, at = granule / VMKI_WORD_BITS;
    size_t bit = (size_t)1 << (granule % VMKI_WORD_BITS);
    if ((VMKI_LOAD_RELAXED(&m->marks[at]) & bit) != 0 || (m->taken[at] & bit) == 0)
        return false;
    if (mode == VMKI_MARK_SHARED)
        return (VMKI_FETCH_OR(&m->marks[at], bit) & bit) == 0;
    m->marks[at] |= bit;
    return true;
}

VMKI_UNCHECKED static void discover_large(vmki_marker *m, uintptr_t word, unsigned code, const unsigned mode)
{
    const vmk_heap *heap = m->gc->heap;
    const vmk_span *span = &heap->records[heap->spans[(word - m->origin) >> VMK_HEAP_PAGE_SHIFT]];
    uintptr_t base = (uintptr_t)span->base;
    if (!(mode == VMKI_MARK_SHARED ? mark(m, base, VMKI_MARK_SHARED) : mark(m, base, VMKI_MARK_ALONE)))
        return;
    m->counts[code]++;
    m->large_bytes += span->pages << VMK_HEAP_PAGE_SHIFT;
    if (vmki_gc_codes[code].kind != VMKI_LEAF || mode == VMKI_MARK_WATCHED)
        note(m, base);
}

VMKI_UNCHECKED_INLINE void discover(vmki_marker *m, uintptr_t word, const unsigned mode)
{
    size_t page = (word - m->origin) >> VMK_HEAP_PAGE_SHIFT;
    if (page >= m->limit)
        return;
    if (m->present != NULL && (m->present[page >> 14] >> (page >> 9 & 31) & 1) == 0)
        return;
    unsigned code = m->classes[page];
    if (code == 0)
        return;
    const vmki_gc_code *c = &vmki_gc_codes[code];
    if (VMKI_UNLIKELY(c->size_class == 0)) {
        discover_large(m, word, code, mode);
        return;
    }
    uintptr_t slab = word & ~(((uintptr_t)1 << c->shift) - 1);
    uint32_t slot = (uint32_t)((((uint64_t)(word - slab) >> VMKI_GRANULE_SHIFT) * c->magic) >> VMKI_GC_MAGIC_SHIFT);
    if (slot >= c->capacity)
        return;
    uintptr_t base = slab + (uintptr_t)slot * c->size;
    if (!mark(m, base, mode))
        return;
    m->counts[code]++;
    if (c->kind != VMKI_LEAF || mode == VMKI_MARK_WATCHED)
        note(m, base);
}

/* A word that may also be the end of an object. */
VMKI_UNCHECKED_INLINE void discover_end(vmki_marker *m, uintptr_t word, const unsigned mode)
{
    discover(m, word, mode);
    if (word % VMKI_GRANULE == 0) /* as the end of every slot is; within one, both are the same object */
        discover(m, word - 1, mode);
}

VMKI_UNCHECKED_INLINE void discover_words(vmki_marker *m, uintptr_t base, uintptr_t end, bool ends, const unsigned mode)
{
    if (VMKI_UNLIKELY(ends)) {
        for (; base < end; base += sizeof(uintptr_t))
            discover_end(m, VMKI_LOAD_RELAXED((const uintptr_t *)base), mode);
        return;
    }
    for (; base < end; base += sizeof(uintptr_t))
        discover(m, VMKI_LOAD_RELAXED((const uintptr_t *)base), mode);
}

/* --- scanning ----------------------------------------------------------------------------------------------------- */

/* The elements of a typed object that begin in [from, to), as far as they are whole. */
VMKI_UNCHECKED_INLINE void scan_elements(vmki_marker *m, const vmk_gc_type *type, uintptr_t base, size_t from,
                                         size_t to, size_t size, const unsigned mode)
{
    size_t element = type->words * sizeof(uintptr_t);
    for (size_t at = (from + element - 1) / element * element; at < to && element <= size - at; at += element)
        for (size_t word = 0; word * VMKI_WORD_BITS < type->words; word++) {
            const uintptr_t *words = (const uintptr_t *)(base + at) + word * VMKI_WORD_BITS;
            size_t bits = type->words <= VMKI_WORD_BITS ? type->map_word : type->map[word];
            for (; bits != 0; bits &= bits - 1)
                discover(m, VMKI_LOAD_RELAXED(&words[vmki_lowest_bit(bits)]), mode);
        }
}

/* Part of an object: what begins in [from, to). `type` is NULL: it is conservative. */
VMKI_UNCHECKED_INLINE void scan_part(vmki_marker *m, const vmk_gc_type *type, uintptr_t base, size_t from, size_t to,
                                     size_t size, const unsigned mode)
{
    if (type == NULL)
        discover_words(m, base + from, base + to, m->past_end, mode);
    else if (type->map != NULL)
        scan_elements(m, type, base, from, to, size, mode);
}

/* A large object, from an offset on: a piece is scanned, the rest is work for later, perhaps another's. */
VMKI_UNCHECKED_INLINE void scan_large(vmki_marker *m, uintptr_t at, const unsigned mode)
{
    const vmk_heap *heap = m->gc->heap;
    const vmk_span *span = &heap->records[heap->spans[(at - m->origin) >> VMK_HEAP_PAGE_SHIFT]];
    uintptr_t base = (uintptr_t)span->base;
    size_t size = span->pages << VMK_HEAP_PAGE_SHIFT, from = at - base;
    const vmk_gc_type *type = m->gc->bins[m->gc->slabs[span->id].bin].type;
    if (type != NULL && type->trace != NULL) {
        type->trace(type->trace_context, (void *)base, size, &m->visitor);
        return;
    }
    while (size - from > VMKI_PIECE) {
        size_t next = from + VMKI_PIECE;
        bool later = m->top != m->room || vmki_marker_grow(m);
        if (later)
            m->stack[m->top++] = (base + next) | VMKI_WORK_PIECE;
        scan_part(m, type, base, from, next, size, mode);
        if (later)
            return;
        from = next;
    }
    scan_part(m, type, base, from, size, size, mode);
}

/* Whatever is not a small conservative object. */
VMKI_UNCHECKED_INLINE void scan_other(vmki_marker *m, uintptr_t base, const vmki_gc_code *c, const unsigned mode)
{
    if (c->kind == VMKI_LEAF)
        return;
    if (c->size_class == 0) {
        scan_large(m, base, mode);
        return;
    }
    const vmk_heap *heap = m->gc->heap;
    uint32_t id = heap->spans[(base - m->origin) >> VMK_HEAP_PAGE_SHIFT];
    const vmk_gc_type *type = m->gc->bins[m->gc->slabs[id].bin].type;
    if (type->trace != NULL)
        type->trace(type->trace_context, (void *)base, c->size, &m->visitor);
    else
        scan_part(m, type, base, 0, c->size, c->size, mode);
}

VMKI_READS_ANYTHING static void scan_other_alone(vmki_marker *m, uintptr_t base, const vmki_gc_code *c)
{
    scan_other(m, base, c, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void scan_other_shared(vmki_marker *m, uintptr_t base, const vmki_gc_code *c)
{
    scan_other(m, base, c, VMKI_MARK_SHARED);
}

VMKI_READS_ANYTHING static void scan_other_watched(vmki_marker *m, uintptr_t base, const vmki_gc_code *c)
{
    scan_other(m, base, c, VMKI_MARK_WATCHED);
}

VMKI_UNCHECKED_INLINE void scan(vmki_marker *m, uintptr_t work, const unsigned mode)
{
    const vmki_gc_code *c = &vmki_gc_codes[m->classes[(work - m->origin) >> VMK_HEAP_PAGE_SHIFT]];
    if (mode == VMKI_MARK_WATCHED && work % 2 == 0)
        m->gc->marking.reached(m->gc, work);
    if (VMKI_LIKELY(c->kind == VMKI_CONSERVATIVE && c->size_class != 0))
        discover_words(m, work, work + c->size, m->past_end, mode);
    else if (mode == VMKI_MARK_ALONE)
        scan_other_alone(m, work & ~(uintptr_t)VMKI_WORK_PIECE, c);
    else if (mode == VMKI_MARK_SHARED)
        scan_other_shared(m, work & ~(uintptr_t)VMKI_WORK_PIECE, c);
    else
        scan_other_watched(m, work & ~(uintptr_t)VMKI_WORK_PIECE, c);
}

/* --- the ring ----------------------------------------------------------------------------------------------------- */

VMKI_UNCHECKED_INLINE bool drain(vmki_marker *m, const unsigned mode)
{
    unsigned poll = VMKI_POLL;
    for (;;) {
        while (m->ring_count < VMKI_RING && m->top != m->bottom) {
            uintptr_t work = m->stack[--m->top];
            VMKI_PREFETCH(work);
            m->ring[(m->ring_first + m->ring_count++) % VMKI_RING] = work;
        }
        if (m->ring_count == 0)
            return true;
        uintptr_t work = m->ring[m->ring_first];
        m->ring_first = (m->ring_first + 1) % VMKI_RING;
        m->ring_count--;
        scan(m, work, mode);
        if (mode != VMKI_MARK_WATCHED && --poll == 0) {
            poll = VMKI_POLL;
            if (vmki_marker_poll(m))
                return false;
        }
    }
}

VMKI_READS_ANYTHING static bool drain_alone(vmki_marker *m)
{
    return drain(m, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void drain_shared(vmki_marker *m)
{
    drain(m, VMKI_MARK_SHARED);
}

VMKI_READS_ANYTHING static void drain_watched(vmki_marker *m)
{
    drain(m, VMKI_MARK_WATCHED);
}

bool vmki_marker_drain(vmki_marker *m)
{
    if (m->mode == VMKI_MARK_ALONE)
        return drain_alone(m);
    if (m->mode == VMKI_MARK_WATCHED)
        drain_watched(m);
    else
        do
            drain_shared(m);
        while (vmki_marker_take_back(m));
    return true;
}

/* --- one by one ----------------------------------------------------------------------------------------------------
 */

VMKI_READS_ANYTHING static void visit_alone(vmk_gc_visitor *visitor, uintptr_t word)
{
    discover((vmki_marker *)visitor, word, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void visit_shared(vmk_gc_visitor *visitor, uintptr_t word)
{
    discover((vmki_marker *)visitor, word, VMKI_MARK_SHARED);
}

VMKI_READS_ANYTHING static void visit_watched(vmk_gc_visitor *visitor, uintptr_t word)
{
    discover((vmki_marker *)visitor, word, VMKI_MARK_WATCHED);
}

void vmki_marker_mode(vmki_marker *m, enum vmki_mark_mode mode)
{
    static void (*const visits[])(vmk_gc_visitor * visitor, uintptr_t word) = {visit_alone, visit_shared,
                                                                               visit_watched};
    m->mode = (uint8_t)mode;
    m->visitor.visit = visits[mode];
}

vmk_gc_visitor *vmki_mark_visitor(vmki_marker *m)
{
    return &m->visitor;
}

void vmki_mark_word(vmki_marker *m, uintptr_t word, bool exact)
{
    m->visitor.visit(&m->visitor, word);
    if (!exact && word % VMKI_GRANULE == 0)
        m->visitor.visit(&m->visitor, word - 1);
}

/* The aligned words that lie in a range as a whole. */
static inline uintptr_t first_word(const void *base)
{
    return ((uintptr_t)base + sizeof(uintptr_t) - 1) & ~(uintptr_t)(sizeof(uintptr_t) - 1);
}

static inline uintptr_t last_word(const void *base, size_t size)
{
    return ((uintptr_t)base + size) & ~(uintptr_t)(sizeof(uintptr_t) - 1);
}

VMKI_READS_ANYTHING static void range_alone(vmki_marker *m, uintptr_t base, uintptr_t end, bool exact)
{
    discover_words(m, base, end, !exact, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void range_watched(vmki_marker *m, uintptr_t base, uintptr_t end, bool exact)
{
    discover_words(m, base, end, !exact, VMKI_MARK_WATCHED);
}

/* Roots are noted by the collecting thread alone, while the others rest. */
void vmki_mark_range(vmki_marker *m, const void *base, size_t size, bool exact)
{
    if (m->mode == VMKI_MARK_WATCHED)
        range_watched(m, first_word(base), last_word(base, size), exact);
    else
        range_alone(m, first_word(base), last_word(base, size), exact);
}

VMKI_READS_ANYTHING static void inside_alone(vmki_marker *m, uintptr_t base)
{
    const vmki_gc_code *c = &vmki_gc_codes[m->classes[(base - m->origin) >> VMK_HEAP_PAGE_SHIFT]];
    if (c->kind == VMKI_CONSERVATIVE && c->size_class != 0)
        discover_words(m, base, base + c->size, m->past_end, VMKI_MARK_ALONE);
    else
        scan_other(m, base, c, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void inside_watched(vmki_marker *m, uintptr_t base)
{
    const vmki_gc_code *c = &vmki_gc_codes[m->classes[(base - m->origin) >> VMK_HEAP_PAGE_SHIFT]];
    if (c->kind == VMKI_CONSERVATIVE && c->size_class != 0)
        discover_words(m, base, base + c->size, m->past_end, VMKI_MARK_WATCHED);
    else
        scan_other(m, base, c, VMKI_MARK_WATCHED);
}

void vmki_mark_inside(vmki_marker *m, uintptr_t base)
{
    if (m->mode == VMKI_MARK_WATCHED)
        inside_watched(m, base);
    else
        inside_alone(m, base);
}

void vmki_marker_rescan(vmki_marker *m, size_t page)
{
    enum { WORDS = (int)(VMK_HEAP_PAGE_SIZE / VMKI_GRANULE / VMKI_WORD_BITS) };
    size_t first = page * WORDS;
    for (size_t at = first; at < first + WORDS; at++)
        for (size_t bits = VMKI_LOAD_RELAXED(&m->marks[at]); bits != 0; bits &= bits - 1) {
            size_t granule = at * VMKI_WORD_BITS + vmki_lowest_bit(bits);
            uintptr_t base = m->origin + (granule << VMKI_GRANULE_SHIFT);
            if (m->mode == VMKI_MARK_WATCHED)
                m->gc->marking.reached(m->gc, base);
            vmki_mark_inside(m, base);
            while (!vmki_marker_drain(m)) /* it needs no help */
                ;
        }
}

/* --- what the program's functions call ------------------------------------------------------------------------------
 */

void vmk_gc_visit(vmk_gc_visitor *visitor, const void *pointer)
{
    visitor->visit(visitor, (uintptr_t)pointer);
}

VMKI_READS_ANYTHING static uintptr_t word_at(uintptr_t address)
{
    return VMKI_LOAD_RELAXED((const uintptr_t *)address);
}

void vmk_gc_visit_range(vmk_gc_visitor *visitor, const void *base, size_t size)
{
    uintptr_t end = last_word(base, size);
    for (uintptr_t at = first_word(base); at < end; at += sizeof(uintptr_t)) {
        uintptr_t word = word_at(at);
        visitor->visit(visitor, word);
        if (word != 0 && word % VMKI_GRANULE == 0)
            visitor->visit(visitor, word - 1);
    }
}
