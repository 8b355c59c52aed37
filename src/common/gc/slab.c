/* SPDX-License-Identifier: MIT
 *
 * Slabs. A cache takes the free slots of a slab one word of bits at a time: it sets all their bits at once, clears
 * their memory, and then hands them out without telling anybody. So the bits are touched once for each 1 KiB of memory,
 * and objects are cleared shortly before they are used, in one go where they lie side by side.
 *
 * A slab is swept when somebody wants to use it: by a cache that needs slots of its bin, or by whoever is about to ask
 * the heap for a new span and looks first whether slabs have become empty. What nobody wanted is swept before the next
 * cycle. Dead objects are never touched.
 */
#include "common/gc/gc.h"

#include <string.h>

vmki_gc_code vmki_gc_codes[256];

enum {
    SHIFT_LEAST =
        15, /* of a slab's bytes: how often a thread needs another one, against what lies unused in the last */
    SHIFT_MOST = 20,
    SLOTS_LEAST = 8,
    LEFT_OVER_DIVISOR = 16,
    SWEEP_BATCH = 64, /* slabs in one hold of the lock */
    SWEEP_AHEAD = 32, /* slabs to look at before a new span is asked for */
    TIMED_ONE_IN = 16 /* of the slabs that are swept one by one */
};

static vmki_gc_code code_make(unsigned kind, unsigned size_class)
{
    vmki_gc_code code = {.kind = (uint8_t)kind, .size_class = (uint8_t)size_class};
    if (size_class == 0)
        return code;
    size_t size = vmki_class_size(size_class), slab;
    code.shift = SHIFT_LEAST;
    for (;; code.shift++) {
        slab = (size_t)1 << code.shift;
        if (code.shift == SHIFT_MOST || (slab / size >= SLOTS_LEAST && slab % size <= slab / LEFT_OVER_DIVISOR))
            break;
    }
    code.size = (uint32_t)size;
    code.granules = (uint32_t)(size >> VMKI_GRANULE_SHIFT);
    code.capacity = (uint32_t)(slab / size);
    /* Rounded up: exact as long as granules of a slab x granules of a slot < 2^31, and they are 2^16 x 2^11 at most. */
    code.magic = (uint32_t)((((uint64_t)1 << VMKI_GC_MAGIC_SHIFT) + code.granules - 1) / code.granules);
    return code;
}

void vmki_gc_codes_init(void)
{
    vmki_classes_init();
    for (unsigned kind = 0; kind < VMKI_KINDS; kind++) {
        for (unsigned size_class = 0; size_class < VMK_CLASSES; size_class++)
            vmki_gc_codes[vmki_gc_code_of(kind, size_class)] = code_make(kind, size_class);
    }
}

/* --- lists -------------------------------------------------------------------------------------------------------- */

static void list_remove(vmki_gc *gc, uint32_t id)
{
    vmki_gc_slab *slab = &gc->slabs[id];
    vmki_gc_bin *bin = &gc->bins[slab->bin];
    if (bin->cursor == id)
        bin->cursor = slab->next;
    if (slab->previous != 0)
        gc->slabs[slab->previous].next = slab->next;
    else
        bin->first = slab->next;
    if (slab->next != 0)
        gc->slabs[slab->next].previous = slab->previous;
    else
        bin->last = slab->previous;
}

/* Before `where`; 0: at the end. */
static void list_insert(vmki_gc *gc, uint32_t id, uint32_t where)
{
    vmki_gc_slab *slab = &gc->slabs[id];
    vmki_gc_bin *bin = &gc->bins[slab->bin];
    slab->next = where;
    slab->previous = where != 0 ? gc->slabs[where].previous : bin->last;
    if (slab->previous != 0)
        gc->slabs[slab->previous].next = id;
    else
        bin->first = id;
    if (where != 0)
        gc->slabs[where].previous = id;
    else
        bin->last = id;
}

/* To where the bin looks next. */
static void list_requeue(vmki_gc *gc, uint32_t id)
{
    vmki_gc_bin *bin = &gc->bins[gc->slabs[id].bin];
    list_remove(gc, id);
    list_insert(gc, id, bin->cursor);
    bin->cursor = id;
}

/* --- words of bits ------------------------------------------------------------------------------------------------ */

typedef struct slab_view {
    const vmki_gc_code *code;
    const vmki_class *shape;
    unsigned char *base;
    size_t *taken;
    size_t *marks;
    uint32_t words;
    size_t last_mask;
} slab_view;

static inline slab_view view_of(const vmki_gc *gc, uint32_t id)
{
    const vmki_gc_code *code = &vmki_gc_codes[gc->bins[gc->slabs[id].bin].code];
    slab_view view = {.code = code, .base = gc->heap->records[id].base};
    size_t word = vmki_gc_granule(gc, (uintptr_t)view.base) / VMKI_WORD_BITS;
    view.taken = gc->taken + word;
    view.marks = gc->marks + word;
    view.words = 1; /* of a large object only the first bit is used */
    view.last_mask = 1;
    if (code->size_class != 0) {
        view.shape = &vmki_classes[code->size_class];
        view.words = vmki_slab_words(view.shape, code->capacity);
        view.last_mask = vmki_slab_last_mask(view.shape, code->capacity);
    }
    return view;
}

/* The bits that begin slots in a word where the first one does so at `phase`; *phase: of the next word. */
static inline size_t word_slots(const vmki_class *shape, uint32_t *phase)
{
    size_t slots = *phase < VMKI_WORD_BITS ? shape->pattern << *phase : 0;
    *phase = *phase >= shape->back ? *phase - shape->back : *phase + shape->granules - shape->back;
    return slots;
}

/* --- sweeping ----------------------------------------------------------------------------------------------------- */

/* Under the lock. Answers whether an object is left. A bit may be cleared by hand at the same time. */
static bool slab_sweep(vmki_gc *gc, uint32_t id)
{
    slab_view view = view_of(gc, id);
    size_t any = 0;
    for (uint32_t i = 0; i < view.words; i++) {
        size_t taken = VMKI_LOAD_RELAXED(&view.taken[i]), marks = view.marks[i];
        if ((taken & ~marks) != 0)
            VMKI_FETCH_AND(&view.taken[i], marks);
        if (marks != 0)
            view.marks[i] = 0;
        any |= taken & marks;
    }
    vmki_gc_slab *slab = &gc->slabs[id];
    VMKI_STORE_RELAXED(&slab->freed, 0);
    VMKI_STORE_RELEASE(&slab->epoch, gc->epoch);
    return any != 0;
}

/* The same of a single slab, some of which are timed. */
static void slab_sweep_one(vmki_gc *gc, uint32_t id)
{
    if (gc->sweep_count++ % TIMED_ONE_IN != 0) {
        (void)slab_sweep(gc, id);
        return;
    }
    uint64_t start = vmki_os_clock();
    (void)slab_sweep(gc, id);
    gc->sweep_time += (vmki_os_clock() - start) * TIMED_ONE_IN;
}

/* Up to `most` slabs of those that are left; *pages: heap pages that became free. False: none is left. */
static bool sweep_some(vmki_gc *gc, size_t most, size_t *pages)
{
    uint64_t start = vmki_os_clock();
    uint32_t id = gc->sweep_next;
    for (; id < gc->sweep_limit && most > 0; id++) {
        vmki_gc_slab *slab = &gc->slabs[id];
        if (slab->state != VMKI_SLAB_IDLE || slab->epoch == gc->epoch)
            continue;
        most--;
        if (!slab_sweep(gc, id)) {
            vmk_span *span = &gc->heap->records[id];
            *pages += span->pages;
            vmki_gc_slab_end(gc, span);
        }
    }
    VMKI_STORE_RELAXED(&gc->sweep_next, id);
    gc->sweep_time += vmki_os_clock() - start;
    return id < gc->sweep_limit;
}

size_t vmki_gc_slabs_sweep(vmki_gc *gc, size_t pages)
{
    size_t found = 0;
    bool more = VMKI_LOAD_RELAXED(&gc->sweep_next) < VMKI_LOAD_RELAXED(&gc->sweep_limit);
    while (more && found < pages) {
        vmki_gc_lock(gc);
        more = sweep_some(gc, SWEEP_BATCH, &found);
        vmki_gc_unlock(gc);
    }
    return found;
}

uint64_t vmki_gc_sweep_time_take(vmki_gc *gc)
{
    vmki_os_lock_acquire(&gc->lock);
    uint64_t time = gc->sweep_time;
    gc->sweep_time = 0;
    vmki_os_lock_release(&gc->lock);
    return time;
}

void vmki_gc_slab_settle(vmki_gc *gc, vmki_gc_slab *slab, uintptr_t base)
{
    if (VMKI_LIKELY(VMKI_LOAD_ACQUIRE(&slab->epoch) == gc->epoch))
        return;
    vmki_os_lock_acquire(&gc->lock);
    if (slab->epoch != gc->epoch && slab->state == VMKI_SLAB_IDLE)
        slab_sweep_one(gc, vmk_span_of(gc->heap, (const void *)base)->id);
    vmki_os_lock_release(&gc->lock);
}

void vmki_gc_slabs_turn(vmki_gc *gc)
{
    gc->epoch++;
    gc->sweep_next = 1;
    gc->sweep_limit = gc->slab_limit;
    for (size_t i = 0; i < gc->bin_count; i++)
        gc->bins[i].cursor = gc->bins[i].first;
}

/* --- making and ending -------------------------------------------------------------------------------------------- */

/* The bits of a range of pages: by groups, so that neighbours find them ready. */
static vmk_status taken_ready(vmki_gc *gc, size_t first, size_t pages)
{
    size_t low = vmki_floor(first, VMKI_MARKS_GROUP);
    size_t high = vmki_min(vmki_ceil(first + pages, VMKI_MARKS_GROUP), gc->taken_table.capacity);
    return vmk_table_ensure_range(&gc->taken_table, low, high - low);
}

vmk_span *vmki_gc_slab_make(vmki_gc *gc, unsigned bin, size_t pages, size_t align, unsigned flags, vmk_status *status)
{
    vmk_span *span;
    *status = vmki_span_alloc(vmki_heap_of(gc->heap), pages, align, flags | VMK_SPAN_MARKS, false, &span);
    if (*status != VMK_OK)
        return NULL;
    size_t first = ((uintptr_t)span->base - gc->origin) >> VMK_HEAP_PAGE_SHIFT;
    /* Of a large object only the first granule has a bit. */
    *status = taken_ready(gc, first, vmki_gc_codes[gc->bins[bin].code].size_class != 0 ? pages : 1);
    if (*status == VMK_OK)
        *status = vmk_table_ensure(&gc->slab_table, (size_t)span->id + 1);
    if (*status != VMK_OK) {
        vmk_span_free(gc->heap, span);
        return NULL;
    }
    vmki_gc_slab *slab = &gc->slabs[span->id];
    VMKI_STORE_RELAXED(&slab->epoch, gc->epoch);
    VMKI_STORE_RELAXED(&slab->freed, 0);
    slab->bin = (uint16_t)bin;
    slab->fresh = (span->flags & VMK_SPAN_ZERO) != 0;
    VMKI_STORE_RELEASE(&slab->state, VMKI_SLAB_OWNED);
    list_insert(gc, span->id, gc->bins[bin].first); /* looked at: before the cursor, or it is the first of all */
    if (gc->slab_limit <= span->id)
        gc->slab_limit = span->id + 1;
    vmk_span_set_class(gc->heap, span, gc->bins[bin].code);
    return span;
}

void vmki_gc_slab_end(vmki_gc *gc, vmk_span *span)
{
    list_remove(gc, span->id);
    VMKI_STORE_RELEASE(&gc->slabs[span->id].state, VMKI_SLAB_NONE);
    vmk_span_free(gc->heap, span);
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

static bool slab_has_room(const slab_view *view)
{
    uint32_t phase = 0;
    for (uint32_t i = 0; i < view->words; i++) {
        size_t slots = word_slots(view->shape, &phase);
        if (i == view->words - 1)
            slots &= view->last_mask;
        if ((slots & ~VMKI_LOAD_RELAXED(&view->taken[i])) != 0)
            return true;
    }
    return false;
}

/* A slab of the bin that has free slots, from the cursor on; 0: none. */
static uint32_t slab_swept(vmki_gc *gc, vmki_gc_bin *bin)
{
    while (bin->cursor != 0) {
        uint32_t id = bin->cursor;
        vmki_gc_slab *slab = &gc->slabs[id];
        bin->cursor = slab->next;
        if (slab->state != VMKI_SLAB_IDLE)
            continue;
        if (slab->epoch != gc->epoch)
            slab_sweep_one(gc, id);
        slab_view view = view_of(gc, id);
        if (slab_has_room(&view)) {
            slab->fresh = false;
            return id;
        }
    }
    return 0;
}

/* A new one, after a look whether others are empty. */
static uint32_t slab_new(vmki_gc *gc, unsigned bin, vmk_status *status)
{
    const vmki_gc_code *code = &vmki_gc_codes[gc->bins[bin].code];
    size_t size = (size_t)1 << code->shift, swept = 0;
    (void)sweep_some(gc, SWEEP_AHEAD, &swept);
    vmk_span *span = vmki_gc_slab_make(gc, bin, size >> VMK_HEAP_PAGE_SHIFT, size, 0, status);
    while (span == NULL && sweep_some(gc, SWEEP_BATCH, &swept))
        ;
    if (span == NULL && swept != 0)
        span = vmki_gc_slab_make(gc, bin, size >> VMK_HEAP_PAGE_SHIFT, size, 0, status);
    return span != NULL ? span->id : 0;
}

static bool run_begin(vmki_gc *gc, vmki_gc_cache *cache, unsigned bin, vmk_status *status)
{
    vmk_gc_cause cause;
    VMKI_FETCH_ADD(&gc->allocated, cache->allocated);
    cache->allocated = 0;
    *status = VMK_OK;
    if (vmki_pace_due(gc, &cause))
        return false;
    vmki_os_lock_acquire(&gc->lock);
    uint32_t id = slab_swept(gc, &gc->bins[bin]);
    if (id == 0)
        id = slab_new(gc, bin, status);
    if (id != 0) {
        vmki_gc_run *run = &cache->runs[bin];
        /* Whoever asks what an object is looks without the lock. */
        VMKI_STORE_RELEASE(&gc->slabs[id].state, VMKI_SLAB_OWNED);
        run->slab = id;
        run->word = 0;
        run->phase = 0;
        run->next = cache->active;
        cache->active = bin + 1;
    }
    vmki_os_lock_release(&gc->lock);
    return id != 0;
}

/* Clear the slots whose bits are set. */
static void slots_clear(unsigned char *base, size_t bits, const vmki_class *shape)
{
    while (bits != 0) {
        unsigned first = vmki_lowest_bit(bits), end = first;
        do {
            bits &= bits - 1;
            end += shape->granules;
        } while (end < VMKI_WORD_BITS && (bits >> end & 1) != 0);
        memset(base + ((size_t)first << VMKI_GRANULE_SHIFT), 0, (size_t)(end - first) << VMKI_GRANULE_SHIFT);
    }
}

/* The next word of the run's slab with free slots is the run's. */
static bool run_next(vmki_gc *gc, vmki_gc_cache *cache, vmki_gc_run *run)
{
    slab_view view = view_of(gc, run->slab);
    while (run->word < view.words) {
        uint32_t word = run->word++;
        size_t slots = word_slots(view.shape, &run->phase);
        if (word == view.words - 1)
            slots &= view.last_mask;
        size_t free = slots & ~VMKI_LOAD_RELAXED(&view.taken[word]);
        if (free == 0)
            continue;
        VMKI_FETCH_OR(&view.taken[word], free);
        unsigned char *base = view.base + (size_t)word * VMKI_WORD_BITS * VMKI_GRANULE;
        if (!gc->slabs[run->slab].fresh)
            slots_clear(base, free, view.shape);
        cache->allocated += (size_t)vmki_ones_in(free) * view.code->size;
        run->base = base;
        VMKI_STORE_RELEASE(&run->free, free); /* last: a fork may find the run at any point of this */
        return true;
    }
    return false;
}

void vmki_gc_slab_put(vmki_gc *gc, vmki_gc_cache *cache, vmki_gc_run *run, unsigned bin)
{
    uint32_t id = run->slab;
    vmki_gc_slab *slab = &gc->slabs[id];
    if (run->free != 0) {
        size_t word = vmki_gc_granule(gc, (uintptr_t)run->base) / VMKI_WORD_BITS;
        VMKI_FETCH_AND(&gc->taken[word], ~run->free);
        size_t bytes = (size_t)vmki_ones_in(run->free) * vmki_gc_codes[gc->bins[bin].code].size;
        VMKI_FETCH_ADD(&gc->allocated, cache->allocated - bytes); /* what was told of it before may be more: it wraps */
        cache->allocated = 0;
        run->free = 0;
    }
    run->slab = 0;
    slab->fresh = false;
    VMKI_STORE_RELEASE(&slab->state, VMKI_SLAB_IDLE);
    if (VMKI_LOAD_RELAXED(&slab->freed) != 0) {
        VMKI_STORE_RELAXED(&slab->freed, 0);
        list_requeue(gc, id);
    }
}

/* The run that has used up its slab is no longer one of the active. */
static void run_end(vmki_gc *gc, vmki_gc_cache *cache, unsigned bin)
{
    vmki_gc_run *run = &cache->runs[bin];
    vmki_os_lock_acquire(&gc->lock);
    uint32_t *link = &cache->active;
    while (*link != bin + 1)
        link = &cache->runs[*link - 1].next;
    *link = run->next;
    vmki_gc_slab_put(gc, cache, run, bin);
    vmki_os_lock_release(&gc->lock);
}

void *vmki_gc_slab_take(vmki_gc *gc, vmki_gc_cache *cache, unsigned bin, vmk_status *status)
{
    vmki_gc_run *run = &cache->runs[bin];
    for (;;) {
        if (run->slab != 0 && (run->free != 0 || run_next(gc, cache, run))) { /* who comes slowly may have some left */
            size_t free = run->free;
            run->free = free & (free - 1);
            return run->base + ((size_t)vmki_lowest_bit(free) << VMKI_GRANULE_SHIFT);
        }
        if (run->slab != 0)
            run_end(gc, cache, bin);
        if (!run_begin(gc, cache, bin, status))
            return NULL;
    }
}

/* Enough of a slab that it is worth to look at it again. */
void vmki_gc_slab_freed(vmki_gc *gc, uint32_t id)
{
    vmki_gc_slab *slab = &gc->slabs[id];
    const vmki_gc_code *code = &vmki_gc_codes[gc->bins[slab->bin].code];
    uint32_t freed = VMKI_FETCH_ADD_32(&slab->freed, 1) + 1;
    if (freed * 8 < code->capacity || VMKI_LOAD_RELAXED(&slab->state) != VMKI_SLAB_IDLE)
        return;
    vmki_os_lock_acquire(&gc->lock);
    if (slab->state == VMKI_SLAB_IDLE && slab->epoch == gc->epoch && VMKI_LOAD_RELAXED(&slab->freed) != 0) {
        VMKI_STORE_RELAXED(&slab->freed, 0);
        list_requeue(gc, id);
    }
    vmki_os_lock_release(&gc->lock);
}
