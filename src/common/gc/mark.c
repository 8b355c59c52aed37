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

/* What a marker needs all the time, in registers as far as they go: writing marks could change its record, as far as
 * the compiler knows. */
typedef struct hot {
    uintptr_t origin;
    size_t limit;
    const uint32_t *present;
    const uint8_t *classes;
    const size_t *taken;
    size_t *marks;
    vmki_shape *shapes;
    uint8_t *states;
    uintptr_t *top; /* of the stack */
    uintptr_t *end;
} hot;

/* The stack is the record's again, and back. Around every call that may use it. */
VMKI_UNCHECKED_INLINE void stack_leave(vmki_marker *m, const hot *h)
{
    m->top = (size_t)(h->top - m->stack);
}

VMKI_UNCHECKED_INLINE void stack_enter(const vmki_marker *m, hot *h)
{
    h->top = m->stack + m->top;
    h->end = m->stack + m->room;
}

VMKI_UNCHECKED_INLINE hot hot_enter(vmki_marker *m)
{
    hot h = {m->origin, m->limit, m->present, m->classes, m->taken, m->marks, m->shapes, m->states, NULL, NULL};
    stack_enter(m, &h);
    return h;
}

VMKI_UNCHECKED_INLINE void note(vmki_marker *m, hot *h, uintptr_t work)
{
    if (VMKI_LIKELY(h->top != h->end)) {
        *h->top++ = work;
    } else {
        stack_leave(m, h);
        vmki_marker_push(m, work);
        stack_enter(m, h);
    }
}

/* Is there an object that begins with a granule, and is not marked? */
VMKI_UNCHECKED_INLINE bool unmarked(const hot *h, size_t granule)
{
    size_t marks = VMKI_LOAD_RELAXED(&h->marks[granule / VMKI_WORD_BITS]);
    size_t taken = h->taken[granule / VMKI_WORD_BITS];
    return (marks >> granule % VMKI_WORD_BITS & 1) == 0 && (taken >> granule % VMKI_WORD_BITS & 1) != 0;
}

/* Mark it; false: somebody else was faster. */
VMKI_UNCHECKED_INLINE bool mark(const hot *h, size_t granule, const unsigned mode)
{
    size_t *word = &h->marks[granule / VMKI_WORD_BITS], bit = (size_t)1 << granule % VMKI_WORD_BITS;
    if (mode == VMKI_MARK_SHARED)
        return (VMKI_FETCH_OR(word, bit) & bit) == 0;
    *word |= bit;
    return true;
}

/* --- pages -------------------------------------------------------------------------------------------------------- */

enum { PAGE_GRANULES = (int)(VMK_HEAP_PAGE_SIZE / VMKI_GRANULE) };

/* From now on its objects are scanned together: but for those that are marked already, who has marked them sees to it.
 * False: somebody else is at it. */
VMKI_UNCHECKED_INLINE bool page_switch(const hot *h, const vmki_marker *m, size_t page, const unsigned mode)
{
    uint8_t before = VMKI_SCAN_OBJECTS;
    if (mode == VMKI_MARK_SHARED && !vmki_cas_byte(&h->states[page], &before, VMKI_SCAN_SWITCHING))
        return before >= VMKI_SCAN_IDLE;
    for (size_t i = page * VMKI_PAGE_WORDS; i < (page + 1) * VMKI_PAGE_WORDS; i++)
        VMKI_STORE_RELAXED(&m->scanned[i], VMKI_LOAD_RELAXED(&h->marks[i]));
    VMKI_STORE_RELEASE(&h->states[page], VMKI_SCAN_IDLE);
    return true;
}

/* May an object of the page be left to it? To be asked before it is marked: a mark that is older than the page's state
 * may be taken for one that somebody else sees to. */
VMKI_UNCHECKED_INLINE bool page_ready(const hot *h, const vmki_marker *m, size_t page, const unsigned mode)
{
    uint8_t state = VMKI_LOAD_ACQUIRE(&h->states[page]);
    return VMKI_LIKELY(state >= VMKI_SCAN_IDLE) || (state == VMKI_SCAN_OBJECTS && page_switch(h, m, page, mode));
}

/* After an object was marked: who finds the page QUEUED may rely on its being looked at after that. */
VMKI_UNCHECKED_INLINE bool page_claim(const hot *h, size_t page, const unsigned mode)
{
    if (mode == VMKI_MARK_SHARED)
        return VMKI_LOAD_BYTE(&h->states[page]) != VMKI_SCAN_QUEUED &&
               VMKI_EXCHANGE_BYTE(&h->states[page], VMKI_SCAN_QUEUED) != VMKI_SCAN_QUEUED;
    bool claimed = h->states[page] != VMKI_SCAN_QUEUED;
    h->states[page] = VMKI_SCAN_QUEUED;
    return claimed;
}

VMKI_UNCHECKED_INLINE void page_append(vmki_marker *m, size_t page)
{
    uint32_t entry = (uint32_t)page + 1;
    m->next[page] = 0;
    if (m->first == 0)
        m->first = entry;
    else
        m->next[m->last - 1] = entry;
    m->last = entry;
    m->queued++;
}

VMKI_UNCHECKED_INLINE void page_queue(const hot *h, vmki_marker *m, size_t page, const unsigned mode)
{
    if (page_claim(h, page, mode))
        page_append(m, page);
}

/* Its page has no slots. */
VMKI_UNCHECKED_INLINE void discover_large(vmki_marker *m, hot *h, size_t page, unsigned code, const unsigned mode)
{
    if (code == 0)
        return;
    const vmk_heap *heap = m->gc->heap;
    const vmk_span *span = &heap->records[heap->spans[page]];
    uintptr_t base = (uintptr_t)span->base;
    size_t granule = (base - h->origin) >> VMKI_GRANULE_SHIFT;
    if (!unmarked(h, granule) || !mark(h, granule, mode))
        return;
    h->shapes[code].count++;
    m->large_bytes += span->pages << VMK_HEAP_PAGE_SHIFT;
    if (!h->shapes[code].leaf || mode == VMKI_MARK_WATCHED)
        note(m, h, base);
}

/* What is left over at a slab's end counts as slots too, which are never taken. */
VMKI_UNCHECKED_INLINE void discover(vmki_marker *m, hot *h, uintptr_t word, const unsigned mode, const bool paged)
{
    size_t offset = word - h->origin, page = offset >> VMK_HEAP_PAGE_SHIFT;
    if (page >= h->limit)
        return;
    if (h->present != NULL && (h->present[page >> 14] >> (page >> 9 & 31) & 1) == 0)
        return;
    unsigned code = h->classes[page];
    vmki_shape *shape = &h->shapes[code];
    if (VMKI_UNLIKELY(shape->granules == 0)) {
        discover_large(m, h, page, code, mode);
        return;
    }
    size_t granule = offset >> VMKI_GRANULE_SHIFT, within = granule & shape->mask;
    uint32_t slot = (uint32_t)(((uint64_t)within * shape->magic) >> VMKI_GC_MAGIC_SHIFT);
    granule = granule - within + (size_t)slot * shape->granules;
    if (!unmarked(h, granule))
        return;
    page = granule / PAGE_GRANULES;
    bool left = paged && shape->paged && page_ready(h, m, page, mode);
    if (!mark(h, granule, mode))
        return;
    shape->count++;
    if (left)
        page_queue(h, m, page, mode);
    else if (!shape->leaf || mode == VMKI_MARK_WATCHED)
        note(m, h, h->origin + (granule << VMKI_GRANULE_SHIFT) + shape->work);
}

/* `ends`: words may also be ends of objects. */
VMKI_UNCHECKED_INLINE void discover_words(vmki_marker *m, hot *h, uintptr_t base, uintptr_t end, bool ends,
                                          const unsigned mode, const bool paged)
{
    for (; base < end; base += sizeof(uintptr_t)) {
        /* Volatile, where an atomic load would be what ThreadSanitizer looks at all the same. */
        uintptr_t word = *(const volatile uintptr_t *)base;
        discover(m, h, word, mode, paged);
        if (ends && word % VMKI_GRANULE == 0) /* as the end of every slot is; within one, both are the same object */
            discover(m, h, word - 1, mode, paged);
    }
}

/* --- scanning ----------------------------------------------------------------------------------------------------- */

/* The elements of a typed object that begin in [from, to), as far as they are whole. */
VMKI_UNCHECKED_INLINE void scan_elements(vmki_marker *m, hot *h, const vmk_gc_type *type, uintptr_t base, size_t from,
                                         size_t to, size_t size, const unsigned mode)
{
    size_t element = type->words * sizeof(uintptr_t);
    for (size_t at = (from + element - 1) / element * element; at < to && element <= size - at; at += element)
        for (size_t word = 0; word * VMKI_WORD_BITS < type->words; word++) {
            const uintptr_t *words = (const uintptr_t *)(base + at) + word * VMKI_WORD_BITS;
            for (size_t bits = type->map[word]; bits != 0; bits &= bits - 1)
                discover(m, h, *(const volatile uintptr_t *)&words[vmki_lowest_bit(bits)], mode, false);
        }
}

/* Part of an object: what begins in [from, to). `type` is NULL: it is conservative. */
VMKI_UNCHECKED_INLINE void scan_part(vmki_marker *m, const vmk_gc_type *type, uintptr_t base, size_t from, size_t to,
                                     size_t size, const unsigned mode)
{
    hot h = hot_enter(m);
    if (type == NULL)
        discover_words(m, &h, base + from, base + to, m->past_end, mode, false);
    else
        scan_elements(m, &h, type, base, from, to, size, mode);
    stack_leave(m, &h);
}

/* A large object, from an offset on: a piece is scanned, the rest is work for later, perhaps another's. */
VMKI_UNCHECKED_INLINE void scan_large(vmki_marker *m, const vmk_gc_type *type, const vmk_span *span, uintptr_t at,
                                      const unsigned mode)
{
    uintptr_t base = (uintptr_t)span->base;
    size_t size = span->pages << VMK_HEAP_PAGE_SHIFT, from = at - base, next = from;
    bool later = false;
    for (; next < size && !later; from = next) {
        next = vmki_min(from + VMKI_PIECE, size);
        later = next < size && (m->top != m->room || vmki_marker_grow(m));
        if (later)
            m->stack[m->top++] = base + next + VMKI_WORK_PIECE;
        scan_part(m, type, base, from, next, size, mode);
    }
}

/* An object, or the rest of a large one. */
VMKI_UNCHECKED_INLINE void scan_any(vmki_marker *m, uintptr_t at, const unsigned mode)
{
    const vmk_heap *heap = m->gc->heap;
    size_t page = (at - m->origin) >> VMK_HEAP_PAGE_SHIFT;
    const vmki_gc_code *c = &vmki_gc_codes[m->classes[page]];
    uint32_t id = heap->spans[page];
    const vmk_gc_type *type = m->gc->bins[m->gc->slabs[id].bin].type;
    if (c->kind == VMKI_LEAF)
        return;
    m->visitor.ends = m->past_end;
    if (type != NULL && type->trace != NULL)
        type->trace(type->trace_context, (void *)at, vmki_gc_size(m->gc, at, m->classes[page]), &m->visitor);
    else if (c->size_class == 0)
        scan_large(m, type, &heap->records[id], at, mode);
    else
        scan_part(m, type, at, 0, c->size, c->size, mode);
}

VMKI_READS_ANYTHING static void scan_alone(vmki_marker *m, uintptr_t at)
{
    scan_any(m, at, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void scan_shared(vmki_marker *m, uintptr_t at)
{
    scan_any(m, at, VMKI_MARK_SHARED);
}

VMKI_READS_ANYTHING static void scan_watched(vmki_marker *m, uintptr_t at)
{
    scan_any(m, at, VMKI_MARK_WATCHED);
}

/* The smaller conservative objects here, all others there. */
VMKI_UNCHECKED_INLINE void scan(vmki_marker *m, hot *h, uintptr_t work, const unsigned mode, const bool paged)
{
    size_t kind = work & VMKI_WORK_BITS;
    uintptr_t at = work - kind;
    if (VMKI_LIKELY(kind - 1 < VMKI_WORK_PAGE - 1) && mode != VMKI_MARK_WATCHED) {
        discover_words(m, h, at, at + (kind << VMKI_GRANULE_SHIFT), false, mode, paged);
        return;
    }
    if (kind == VMKI_WORK_PAGE) {
        page_append(m, (at - h->origin) >> VMK_HEAP_PAGE_SHIFT);
        return;
    }
    stack_leave(m, h);
    if (mode == VMKI_MARK_WATCHED && kind != VMKI_WORK_PIECE)
        m->gc->marking.reached(m->gc, at);
    if (mode == VMKI_MARK_ALONE)
        scan_alone(m, at);
    else if (mode == VMKI_MARK_SHARED)
        scan_shared(m, at);
    else
        scan_watched(m, at);
    stack_enter(m, h);
}

VMKI_UNCHECKED_INLINE size_t page_pending(const vmki_marker *m, const hot *h, size_t word)
{
    return VMKI_LOAD_RELAXED(&h->marks[word]) & ~VMKI_LOAD_RELAXED(&m->scanned[word]);
}

/* The first line of each object that is pending in a word's granules; of several in a line, once. */
VMKI_UNCHECKED_INLINE void page_prefetch(const vmki_marker *m, const hot *h, size_t word)
{
    size_t bits = page_pending(m, h, word);
    bits |= bits >> 1;
    bits |= bits >> 2;
    uintptr_t base = h->origin + word * VMKI_WORD_BITS * VMKI_GRANULE;
    for (bits &= SIZE_MAX / 15; bits != 0; bits &= bits - 1)
        VMKI_PREFETCH(base + ((size_t)vmki_lowest_bit(bits) << VMKI_GRANULE_SHIFT));
}

/* What is pending in a page, in the order of addresses; what becomes so meanwhile, too. */
VMKI_UNCHECKED_INLINE void page_pass(vmki_marker *m, hot *h, size_t page, size_t size, const unsigned mode,
                                     const bool paged)
{
    size_t word = page * VMKI_PAGE_WORDS, end = word + VMKI_PAGE_WORDS, pending;
    for (; word < end; word++) {
        if (word + 1 < end)
            page_prefetch(m, h, word + 1);
        else if (m->first != 0)
            page_prefetch(m, h, (size_t)(m->first - 1) * VMKI_PAGE_WORDS);
        uintptr_t base = h->origin + word * VMKI_WORD_BITS * VMKI_GRANULE;
        while ((pending = page_pending(m, h, word)) != 0) {
            VMKI_STORE_RELAXED(&m->scanned[word], VMKI_LOAD_RELAXED(&m->scanned[word]) | pending);
            for (; pending != 0; pending &= pending - 1) {
                uintptr_t at = base + ((size_t)vmki_lowest_bit(pending) << VMKI_GRANULE_SHIFT);
                m->pages_objects++;
                discover_words(m, h, at, at + size, false, mode, paged);
            }
        }
    }
}

/* The first page of the queue. It is QUEUED while it is scanned, so that what is found in it itself does not put it
 * there once more; then it must be looked at again after it has become IDLE. */
VMKI_UNCHECKED_INLINE void page_scan(vmki_marker *m, hot *h, const unsigned mode, const bool paged)
{
    size_t page = m->first - 1, pending, size = (size_t)h->shapes[h->classes[page]].granules << VMKI_GRANULE_SHIFT;
    m->first = m->next[page];
    m->queued--;
    m->pages_seen++;
    do {
        page_pass(m, h, page, size, mode, paged);
        if (mode == VMKI_MARK_SHARED)
            (void)VMKI_EXCHANGE_BYTE(&h->states[page], VMKI_SCAN_IDLE);
        else
            h->states[page] = VMKI_SCAN_IDLE;
        pending = 0;
        for (size_t word = page * VMKI_PAGE_WORDS; word < (page + 1) * VMKI_PAGE_WORDS; word++)
            pending |= page_pending(m, h, word);
    } while (pending != 0 && page_claim(h, page, mode));
}

/* --- the ring ----------------------------------------------------------------------------------------------------- */

VMKI_UNCHECKED_INLINE bool poll(vmki_marker *m, hot *h)
{
    stack_leave(m, h);
    bool leave = vmki_marker_poll(m);
    stack_enter(m, h);
    return leave;
}

/* True: there is no work left. */
VMKI_UNCHECKED_INLINE bool drain(vmki_marker *m, const unsigned mode, const bool paged)
{
    hot h = hot_enter(m);
    unsigned left = VMKI_POLL;
    bool leave = false;
    while (!leave) {
        uintptr_t *bottom = m->stack + m->bottom;
        while (m->ring_count < VMKI_RING && h.top != bottom) {
            uintptr_t work = *--h.top;
            VMKI_PREFETCH(work);
            m->ring[(m->ring_first + m->ring_count++) % VMKI_RING] = work;
        }
        if (m->ring_count != 0) {
            uintptr_t work = m->ring[m->ring_first];
            m->ring_first = (m->ring_first + 1) % VMKI_RING;
            m->ring_count--;
            scan(m, &h, work, mode, paged);
            left--;
        } else if (m->first != 0 && mode != VMKI_MARK_WATCHED) {
            page_scan(m, &h, mode, paged);
            left = 0;
        } else {
            break;
        }
        if (left == 0) {
            left = VMKI_POLL;
            leave = poll(m, &h);
        }
    }
    stack_leave(m, &h);
    return !leave;
}

VMKI_READS_ANYTHING static bool drain_alone(vmki_marker *m)
{
    return drain(m, VMKI_MARK_ALONE, false);
}

VMKI_READS_ANYTHING static bool drain_alone_paged(vmki_marker *m)
{
    return drain(m, VMKI_MARK_ALONE, true);
}

VMKI_READS_ANYTHING static bool drain_shared(vmki_marker *m)
{
    return drain(m, VMKI_MARK_SHARED, false);
}

VMKI_READS_ANYTHING static bool drain_shared_paged(vmki_marker *m)
{
    return drain(m, VMKI_MARK_SHARED, true);
}

VMKI_READS_ANYTHING static bool drain_watched(vmki_marker *m)
{
    return drain(m, VMKI_MARK_WATCHED, false);
}

bool vmki_marker_drain(vmki_marker *m)
{
    static bool (*const drains[][2])(vmki_marker * m) = {
        {drain_alone, drain_alone_paged}, {drain_shared, drain_shared_paged}, {drain_watched, drain_watched}};
    m->helped = false;
    for (;;) {
        bool done = drains[m->mode][m->paged](m);
        if (m->helped)
            return false;
        if (done && (m->mode != VMKI_MARK_SHARED || !vmki_marker_take_back(m)))
            return true;
    }
}

/* --- one by one ----------------------------------------------------------------------------------------------------
 */

VMKI_UNCHECKED_INLINE void visit(vmki_marker *m, uintptr_t word, const unsigned mode)
{
    hot h = hot_enter(m);
    discover(m, &h, word, mode, false);
    stack_leave(m, &h);
}

VMKI_READS_ANYTHING static void visit_alone(vmk_gc_visitor *visitor, uintptr_t word)
{
    visit((vmki_marker *)visitor, word, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void visit_shared(vmk_gc_visitor *visitor, uintptr_t word)
{
    visit((vmki_marker *)visitor, word, VMKI_MARK_SHARED);
}

VMKI_READS_ANYTHING static void visit_watched(vmk_gc_visitor *visitor, uintptr_t word)
{
    visit((vmki_marker *)visitor, word, VMKI_MARK_WATCHED);
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
    m->visitor.ends = true;
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

VMKI_UNCHECKED_INLINE void range(vmki_marker *m, uintptr_t base, uintptr_t end, bool exact, const unsigned mode)
{
    hot h = hot_enter(m);
    discover_words(m, &h, base, end, !exact, mode, false);
    stack_leave(m, &h);
}

VMKI_READS_ANYTHING static void range_alone(vmki_marker *m, uintptr_t base, uintptr_t end, bool exact)
{
    range(m, base, end, exact, VMKI_MARK_ALONE);
}

VMKI_READS_ANYTHING static void range_watched(vmki_marker *m, uintptr_t base, uintptr_t end, bool exact)
{
    range(m, base, end, exact, VMKI_MARK_WATCHED);
}

/* Roots are noted by the collecting thread alone, while the others rest. */
void vmki_mark_range(vmki_marker *m, const void *base, size_t size, bool exact)
{
    if (m->mode == VMKI_MARK_WATCHED)
        range_watched(m, first_word(base), last_word(base, size), exact);
    else
        range_alone(m, first_word(base), last_word(base, size), exact);
}

void vmki_mark_inside(vmki_marker *m, uintptr_t base)
{
    if (m->mode == VMKI_MARK_WATCHED)
        scan_watched(m, base);
    else
        scan_alone(m, base);
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
    return *(const volatile uintptr_t *)address;
}

void vmk_gc_visit_range(vmk_gc_visitor *visitor, const void *base, size_t size)
{
    uintptr_t end = last_word(base, size);
    for (uintptr_t at = first_word(base); at < end; at += sizeof(uintptr_t)) {
        uintptr_t word = word_at(at);
        visitor->visit(visitor, word);
        if (visitor->ends && word != 0 && word % VMKI_GRANULE == 0)
            visitor->visit(visitor, word - 1);
    }
}
