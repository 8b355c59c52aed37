/* SPDX-License-Identifier: MIT
 *
 * Slabs: from the page heap and back, between a cache's lists, from thread to thread. object.h says what the states
 * mean. Whoever changes a list of a cache is its thread; the lists of orphans are under the heap's lock.
 */
#include "common/heap/object.h"

#include <string.h>

#include "common/base/check.h"

/* Of orphans that are full, so many are taken over in search of one that is not. */
enum { ADOPTIONS = 4 };

/* Of a slab's slots, one in so many must be free for it to be gone through again. */
enum { ENOUGH_DIVISOR = 16 };

/* --- lists ------------------------------------------------------------------------------------------------------ */

static void list_push(vmki_heap *heap, uint32_t *head, vmki_slab *span, uint8_t list)
{
    span->list = list;
    span->previous = 0;
    span->next = *head;
    if (*head != 0)
        vmki_slab_at(heap, *head)->previous = span->id;
    *head = span->id;
}

static void list_remove(vmki_heap *heap, uint32_t *head, vmki_slab *span)
{
    if (span->previous != 0)
        vmki_slab_at(heap, span->previous)->next = span->next;
    else
        *head = span->next;
    if (span->next != 0)
        vmki_slab_at(heap, span->next)->previous = span->previous;
    span->next = span->previous = 0;
    span->list = VMKI_LIST_NONE;
}

static vmki_source *source_of(vmk_cache *cache, const vmki_slab *span)
{
    return &cache->source[span->size_class];
}

/* Whose the slab is from now on, NULL: nobody's; `keeper` is what the span shall say. */
static void slab_own(vmki_heap *heap, vmki_slab *span, const vmk_cache *cache, uintptr_t keeper)
{
    size_t first = ((uintptr_t)span->base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
    uintptr_t owner = cache == NULL || cache->hardened ? 0 : vmki_owner(cache, span->size_class);
    for (size_t i = 0; i < span->pages; i++)
        VMKI_STORE_RELAXED(&heap->owners[first + i], owner);
    VMKI_STORE_RELEASE(&span->keeper, keeper);
}

static void keep(vmk_cache *cache, vmki_slab *span)
{
    slab_own(cache->heap, span, cache, (uintptr_t)cache);
    cache->dense_limit = VMKI_LOAD_RELAXED(&cache->heap->dense_limit);
}

/* --- bits ------------------------------------------------------------------------------------------------------- */

static unsigned room_of(const vmki_slab *span)
{
    return span->capacity - span->used;
}

/* Free slots that make it worth going through a slab again. */
static bool has_enough(const vmki_slab *span)
{
    return room_of(span) * ENOUGH_DIVISOR >= span->capacity;
}

static uint32_t words_of(const vmki_slab *span)
{
    return vmki_slab_words(&vmki_classes[span->size_class], span->capacity);
}

static VMKI_COLD void remote_crime(const vmki_heap *heap, const size_t *word, size_t bits)
{
    size_t granule = (size_t)(word - heap->remote) * VMKI_WORD_BITS + vmki_lowest_bit(bits);
    vmki_object_crime("vmk_heap_free: object was freed before, or is none (by another thread, some time ago)",
                      (const void *)(heap->view.origin + (granule << VMKI_GRANULE_SHIFT)));
}

/* Take what others have freed. For the keeper. */
static void slab_collect(vmki_heap *heap, vmki_slab *span)
{
    size_t *remote = vmki_remote_word(heap, (uintptr_t)span->base);
    size_t *objects = vmki_objects_word(heap, (uintptr_t)span->base);
    size_t *taken = vmki_taken_word(heap, (uintptr_t)span->base);
    uint32_t words = words_of(span);
    for (uint32_t i = 0; i < words; i++) {
        if (VMKI_LIKELY(VMKI_LOAD_RELAXED(&remote[i]) == 0))
            continue;
        size_t bits = (size_t)VMKI_EXCHANGE(&remote[i], 0), old = VMKI_LOAD_RELAXED(&objects[i]);
        if (VMKI_UNLIKELY((bits & ~old) != 0))
            remote_crime(heap, &remote[i], bits & ~old);
        VMKI_STORE_RELAXED(&objects[i], old & ~bits);
        taken[i] &= ~bits;
        span->used -= vmki_ones_in(bits);
    }
}

static bool remote_any(const vmki_heap *heap, const vmki_slab *span)
{
    const size_t *remote = vmki_remote_word(heap, (uintptr_t)span->base);
    uint32_t words = words_of(span);
    for (uint32_t i = 0; i < words; i++)
        if (VMKI_LOAD(&remote[i]) != 0)
            return true;
    return false;
}

/* --- making and giving back ------------------------------------------------------------------------------------- */

/* The first slabs of a class are small, lest a program that needs few objects of each size pay for many; and then they
 * grow with what there is. */
static size_t slab_pages(const vmki_source *e, const vmki_class *c)
{
    size_t pages = c->pages;
    for (uint32_t slabs = e->slabs; slabs > 1 && 2 * pages <= VMKI_SLAB_PAGES; slabs /= 2)
        pages *= 2;
    return pages;
}

/* Have the bits of a range of pages ready, by groups, so that neighbours find them so. They are zero, since slabs that
 * are given back leave them so. */
static vmk_status bits_ready(vmki_heap *heap, const vmk_span *span)
{
    size_t first = ((uintptr_t)span->base - heap->view.origin) >> VMK_HEAP_PAGE_SHIFT;
    size_t low = vmki_floor(first, VMKI_MARKS_GROUP), high = vmki_ceil(first + span->pages, VMKI_MARKS_GROUP);
    return vmk_table_ensure_range(&heap->objects.bits, low, vmki_min(high, heap->plan.window_pages) - low);
}

static vmk_status slab_make(vmk_cache *cache, unsigned size_class, vmki_slab **result)
{
    vmki_heap *heap = cache->heap;
    vmki_source *e = &cache->source[size_class];
    const vmki_class *c = &vmki_classes[size_class];
    vmk_span *span;
    vmki_slab *slab = NULL;
    size_t pages = slab_pages(e, c);
    unsigned flags = VMK_SPAN_MARKS | (cache->hardened ? VMK_SPAN_ZERO : 0);
    vmk_status status = vmki_guarded_alloc(heap, pages, 0, flags, true, &span);
    if (status != VMK_OK)
        return status;
    status = bits_ready(heap, span);
    if (status == VMK_OK)
        status = vmki_slab_ready(heap, span, &slab);
    if (status != VMK_OK) {
        vmki_guarded_free(heap, span);
        return status;
    }
    slab->used = 0;
    slab->capacity = (uint16_t)((pages << VMK_HEAP_PAGE_SHIFT) / c->size);
    VMKI_STORE_RELAXED(&slab->size_class, (uint8_t)size_class);
    slab->list = VMKI_LIST_NONE;
    vmki_tools_close(slab->base, pages << VMK_HEAP_PAGE_SHIFT);
    keep(cache, slab);
    e->slabs++;
    *result = slab;
    return VMK_OK;
}

/* An empty slab, in no list. */
static void slab_release(vmki_heap *heap, vmki_slab *span)
{
    VMKI_DCHECK(span->used == 0 && span->watch == VMKI_QUIET);
    slab_own(heap, span, NULL, 0);
    vmki_guarded_free(heap, &heap->view.records[span->id]);
}

/* --- full slabs ------------------------------------------------------------------------------------------------- */

static void full_to_available(vmk_cache *cache, vmki_slab *span)
{
    vmki_source *e = source_of(cache, span);
    list_remove(cache->heap, &e->full, span);
    list_push(cache->heap, &e->available, span, VMKI_LIST_AVAILABLE);
}

/* An available slab is empty: it goes back, unless it is the only one; nor while it stands in the stack. */
static void available_empty(vmk_cache *cache, vmki_slab *span)
{
    vmki_source *e = source_of(cache, span);
    if ((span->next == 0 && span->previous == 0) || VMKI_LOAD_32(&span->watch) != VMKI_QUIET)
        return;
    list_remove(cache->heap, &e->available, span);
    e->slabs--;
    slab_release(cache->heap, span);
}

/* A full slab has got free slots, and is not watched. Is it still one that counts as full? If not, it may be gone. */
static bool full_stays(vmk_cache *cache, vmki_slab *span)
{
    if (!has_enough(span))
        return true;
    full_to_available(cache, span);
    if (span->used == 0)
        available_empty(cache, span);
    return false;
}

/* From now on be told of what others free in a full slab, and look at what they have freed before that. */
static void full_watch(vmk_cache *cache, vmki_slab *span)
{
    while (vmki_cas_32(&span->watch, VMKI_QUIET, VMKI_WATCHED)) {
        if (!remote_any(cache->heap, span) || !vmki_cas_32(&span->watch, VMKI_WATCHED, VMKI_QUIET))
            return; /* nothing, or somebody has put it on the stack */
        slab_collect(cache->heap, span);
        if (!full_stays(cache, span))
            return;
    }
}

static void full_add(vmk_cache *cache, vmki_slab *span)
{
    list_push(cache->heap, &source_of(cache, span)->full, span, VMKI_LIST_FULL);
    full_watch(cache, span);
}

/* Take the stack of pending slabs. Those that are full are watched again, unless the cache is at its end. */
static void pending_take(vmk_cache *cache, bool watch)
{
    vmki_heap *heap = cache->heap;
    uint32_t id = (uint32_t)VMKI_EXCHANGE(&cache->pending, 0);
    while (id != 0) {
        vmki_slab *span = vmki_slab_at(heap, id);
        id = span->next_pending;
        (void)VMKI_EXCHANGE(&span->watch, VMKI_QUIET);
        slab_collect(heap, span);
        if (span->list == VMKI_LIST_FULL && watch) {
            if (full_stays(cache, span))
                full_watch(cache, span);
        } else if (span->list == VMKI_LIST_AVAILABLE && span->used == 0) {
            available_empty(cache, span);
        }
    }
}

static VMKI_COLD void full_has_enough(vmk_cache *cache, vmki_slab *span)
{
    (void)vmki_cas_32(&span->watch, VMKI_WATCHED, VMKI_QUIET); /* if it is QUEUED, it is found so later */
    (void)full_stays(cache, span);
}

static inline void slab_put(vmk_cache *cache, const void *slot)
{
    vmki_slab *span = vmki_slab_of(cache->heap, (uintptr_t)slot);
    *vmki_taken_word(cache->heap, (uintptr_t)slot) &= ~vmki_bit_of((uintptr_t)slot);
    span->used--;
    if (VMKI_LIKELY(span->list == VMKI_LIST_AVAILABLE)) {
        if (VMKI_UNLIKELY(span->used == 0))
            available_empty(cache, span);
    } else if (span->list == VMKI_LIST_FULL && has_enough(span)) {
        full_has_enough(cache, span);
    }
}

void vmki_slab_put(vmk_cache *cache, const void *slot)
{
    slab_put(cache, slot);
}

/* --- other threads ---------------------------------------------------------------------------------------------- */

static void pending_push(vmk_cache *cache, vmki_slab *span)
{
    uint32_t head;
    do {
        head = VMKI_LOAD_RELAXED(&cache->pending);
        VMKI_STORE_RELAXED(&span->next_pending, head);
    } while (!vmki_cas_32(&cache->pending, head, span->id));
}

void vmki_slab_free_remote(vmki_heap *heap, vmki_slab *span, uintptr_t address)
{
    size_t bit = vmki_bit_of(address);
    if (VMKI_UNLIKELY(!vmki_object_begins(heap, address) || /* else the mark would meet the slot's next owner */
                      (VMKI_FETCH_OR(vmki_remote_word(heap, address), bit) & bit) != 0))
        vmki_object_crime("vmk_heap_free: object was freed before, or is none", (const void *)address);
    if (VMKI_LIKELY(VMKI_LOAD_32(&span->watch) != VMKI_WATCHED) ||
        !vmki_cas_32(&span->watch, VMKI_WATCHED, VMKI_QUEUED))
        return;
    pending_push((vmk_cache *)VMKI_LOAD(&span->keeper), span); /* only now can it not change any more */
}

bool vmki_slab_adopt(vmk_cache *cache, vmki_slab *span)
{
    vmki_heap *heap = cache->heap;
    vmki_heap_lock(heap);
    bool orphan = vmki_keeper(span) == VMKI_KEEPER_ORPHAN; /* else its list is another's */
    if (orphan) {
        list_remove(heap, &heap->objects.orphans[span->size_class], span);
        VMKI_STORE_RELAXED(&heap->objects.orphan_count, heap->objects.orphan_count - 1);
        keep(cache, span);
    }
    vmki_heap_unlock(heap);
    if (!orphan)
        return false;
    source_of(cache, span)->slabs++;
    list_push(heap, &source_of(cache, span)->full, span, VMKI_LIST_FULL);
    slab_collect(heap, span);
    if (full_stays(cache, span))
        full_watch(cache, span);
    return true;
}

/* The first orphan of a class, if there is one: it is adopted, and in one of the cache's lists. */
static bool adopt_any(vmk_cache *cache, unsigned size_class)
{
    vmki_heap *heap = cache->heap;
    if (VMKI_LOAD_RELAXED(&heap->objects.orphan_count) == 0)
        return false;
    vmki_heap_lock(heap);
    uint32_t id = heap->objects.orphans[size_class];
    vmki_heap_unlock(heap);
    return id != 0 && vmki_slab_adopt(cache, vmki_slab_at(heap, id));
}

/* --- the next slab, and its words ------------------------------------------------------------------------------- */

static vmki_slab *available_take(vmk_cache *cache, vmki_source *e)
{
    if (e->available == 0)
        return NULL;
    vmki_slab *span = vmki_slab_at(cache->heap, e->available);
    list_remove(cache->heap, &e->available, span);
    return span;
}

/* Where there is no memory: a slab that counts as full, and has a free slot all the same. */
static vmki_slab *full_take(vmk_cache *cache, vmki_source *e)
{
    for (uint32_t id = e->full; id != 0; id = vmki_slab_at(cache->heap, id)->next) {
        vmki_slab *span = vmki_slab_at(cache->heap, id);
        if (room_of(span) == 0)
            continue;
        (void)vmki_cas_32(&span->watch, VMKI_WATCHED, VMKI_QUIET);
        list_remove(cache->heap, &e->full, span);
        return span;
    }
    return NULL;
}

/* A slab with a free slot out of what is at hand where memory is lacking: what is kept back, slabs kept for other
 * classes, slabs that count as full. */
static vmki_slab *slab_scrape(vmk_cache *cache, vmki_source *e)
{
    vmki_hardened_flush(cache);
    vmki_cache_collect(cache);
    vmki_slab *slab = available_take(cache, e);
    return slab != NULL ? slab : full_take(cache, e);
}

/* Another slab of the class, with a free slot: taken from the lists, adopted, or made. A system that has refused once
 * is not asked again, at several calls each time, before all that there is has been used up. */
static vmk_status slab_next(vmk_cache *cache, unsigned size_class, vmki_slab **slab)
{
    vmki_source *e = &cache->source[size_class];
    *slab = available_take(cache, e);
    if (*slab == NULL && VMKI_LOAD_RELAXED(&cache->pending) != 0) {
        pending_take(cache, true);
        *slab = available_take(cache, e);
    }
    for (int i = 0; *slab == NULL && i < ADOPTIONS && adopt_any(cache, size_class); i++)
        *slab = available_take(cache, e);
    if (*slab == NULL && cache->scarce)
        *slab = slab_scrape(cache, e);
    if (*slab != NULL)
        return VMK_OK;
    cache->scarce = slab_make(cache, size_class, slab) != VMK_OK;
    if (!cache->scarce)
        return VMK_OK;
    *slab = slab_scrape(cache, e); /* the program may have been asked, too, and have freed objects */
    return *slab != NULL ? VMK_OK : slab_make(cache, size_class, slab);
}

static void starts_set(vmki_source *e, const vmki_class *c)
{
    e->starts = e->phase < VMKI_WORD_BITS ? c->pattern << e->phase : 0;
    if (e->words_left == 0)
        e->starts &= vmki_slab_last_mask(c, e->slab->capacity);
}

/* Begin to go through a slab. */
static void slab_enter(vmk_cache *cache, vmki_source *e, vmki_slab *span)
{
    const vmki_class *c = &vmki_classes[span->size_class];
    span->list = VMKI_LIST_CURRENT;
    e->slab = span;
    e->word = vmki_taken_word(cache->heap, (uintptr_t)span->base);
    e->base = span->base;
    e->phase = 0;
    e->words_left = words_of(span) - 1;
    starts_set(e, c);
}

/* Go on to the slab's next word; false at its end. */
static bool slab_advance(vmki_source *e, const vmki_class *c)
{
    if (e->words_left == 0)
        return false;
    e->words_left--;
    e->word++;
    e->base += VMKI_WORD_BITS << VMKI_GRANULE_SHIFT;
    e->phase = e->phase >= c->back ? e->phase - c->back : e->phase + c->granules - c->back;
    starts_set(e, c);
    return true;
}

/* Nothing more at the current slab's end: again from its beginning, if that is worth it, or it is full. */
static void slab_leave(vmk_cache *cache, vmki_source *e)
{
    vmki_slab *span = e->slab;
    slab_collect(cache->heap, span);
    if (has_enough(span) || (cache->scarce && room_of(span) != 0)) {
        slab_enter(cache, e, span);
        return;
    }
    e->slab = NULL;
    full_add(cache, span);
}

/* Take free slots of the current word, at most so many, the lowest ones, and store them downwards from **place. */
static unsigned word_take(vmki_source *e, unsigned most, void ***place)
{
    size_t free_slots = ~*e->word & e->starts, rest = free_slots;
    unsigned count = 0;
    for (; rest != 0 && count < most; rest &= rest - 1, count++)
        *(*place)-- = e->base + ((size_t)vmki_lowest_bit(rest) << VMKI_GRANULE_SHIFT);
    *e->word |= free_slots & ~rest;
    e->slab->used += count;
    return count;
}

/* Fill an empty stack with so many slots of the current slab, or what it has up to its end: how many. What is to be
 * allocated first lies on top, so they are stored from the top down, and moved if they are fewer. */
static unsigned slab_take(vmki_source *e, const vmki_class *c, unsigned wanted, vmki_stack *stack)
{
    void **bottom = stack->top + 1, **place = stack->top + wanted;
    unsigned count = 0;
    do
        count += word_take(e, wanted - count, &place);
    while (count < wanted && slab_advance(e, c));
    if (count < wanted) {
        memmove(bottom, place + 1, count * sizeof *bottom);
        for (unsigned i = count; i < wanted; i++)
            vmki_tools_forget(bottom + i);
    }
    stack->top += count;
    return count;
}

static void stack_begin(vmk_cache *cache, unsigned size_class)
{
    vmki_stack *stack = &cache->stack[size_class];
    stack->top = &cache->slots[cache->slots_used];
    *stack->top = NULL;
    cache->slots_used += vmki_classes[size_class].depth + 1;
    VMKI_DCHECK(cache->slots_used <= VMKI_STACKS);
}

/* To have memory made the program may be asked, which may free objects: then the stack is not empty any more. */
vmk_status vmki_cache_refill(vmk_cache *cache, unsigned size_class)
{
    vmki_source *e = &cache->source[size_class];
    vmki_stack *stack = &cache->stack[size_class];
    if (stack->last == &cache->nothing)
        stack_begin(cache, size_class);
    stack->last = stack->top + vmki_classes[size_class].depth;
    e->overflows = 0;
    unsigned wanted = (unsigned)(stack->last - stack->top + 1) / 2;
    while (*stack->top == NULL) {
        if (e->slab != NULL) {
            stack->last = stack->top + vmki_classes[size_class].depth; /* there may have been an overflow since */
            e->overflows = 0;
            if (slab_take(e, &vmki_classes[size_class], wanted, stack) == 0)
                slab_leave(cache, e);
            continue;
        }
        vmki_slab *span;
        vmk_status status = slab_next(cache, size_class, &span);
        if (status != VMK_OK)
            return status;
        if (e->slab == NULL)
            slab_enter(cache, e, span);
        else /* it has even allocated */
            list_push(cache->heap, &e->available, span, VMKI_LIST_AVAILABLE);
    }
    return VMK_OK;
}

/* --- giving back ------------------------------------------------------------------------------------------------ */

/* What is in the stack is free in its slabs. */
static void stack_return(vmk_cache *cache, unsigned size_class)
{
    vmki_stack *stack = &cache->stack[size_class];
    for (; *stack->top != NULL; vmki_tools_forget(stack->top--))
        slab_put(cache, *stack->top);
}

/* So many went past a full stack that the program is doing away with what it has: the rest shall not wait here either.
 */
static VMKI_COLD void stack_give_up(vmk_cache *cache, vmki_stack *stack, const void *slot)
{
    vmki_slab_put(cache, slot);
    stack_return(cache, (unsigned)(stack - cache->stack));
    stack->last = stack->top;
}

/* No call but at its ends: where much is freed at once, this is the way of all. */
void vmki_stack_overflow(vmk_cache *cache, vmki_stack *stack, const void *slot)
{
    unsigned size_class = (unsigned)(stack - cache->stack);
    if (VMKI_UNLIKELY(++cache->source[size_class].overflows == vmki_classes[size_class].depth))
        stack_give_up(cache, stack, slot);
    else
        slab_put(cache, slot);
}

/* And the current slab is current no more. */
static void source_return(vmk_cache *cache, unsigned size_class)
{
    vmki_source *e = &cache->source[size_class];
    vmki_slab *span = e->slab;
    stack_return(cache, size_class);
    e->slab = NULL;
    if (span != NULL)
        list_push(cache->heap, &e->available, span, VMKI_LIST_AVAILABLE);
}

void vmki_cache_collect(vmk_cache *cache)
{
    pending_take(cache, true);
    for (unsigned c = 1; c < VMK_CLASSES; c++) {
        vmki_source *e = &cache->source[c];
        source_return(cache, c);
        for (uint32_t id = e->available, next; id != 0; id = next) {
            vmki_slab *span = vmki_slab_at(cache->heap, id);
            next = span->next;
            slab_collect(cache->heap, span);
            if (span->used != 0 || VMKI_LOAD_32(&span->watch) != VMKI_QUIET)
                continue;
            list_remove(cache->heap, &e->available, span);
            e->slabs--;
            slab_release(cache->heap, span);
        }
    }
}

/* No slab of the list is watched, nor in the stack. */
static bool list_quiet(vmki_heap *heap, uint32_t id)
{
    bool quiet = true;
    for (; id != 0; id = vmki_slab_at(heap, id)->next) {
        vmki_slab *span = vmki_slab_at(heap, id);
        (void)vmki_cas_32(&span->watch, VMKI_WATCHED, VMKI_QUIET);
        quiet &= VMKI_LOAD_32(&span->watch) == VMKI_QUIET;
    }
    return quiet;
}

/* Under the heap's lock. */
static void orphan_add(vmki_heap *heap, vmki_slab *span)
{
    list_push(heap, &heap->objects.orphans[span->size_class], span, VMKI_LIST_ORPHAN);
    VMKI_STORE_RELAXED(&heap->objects.orphan_count, heap->objects.orphan_count + 1);
    slab_own(heap, span, NULL, VMKI_KEEPER_ORPHAN);
}

static void list_abandon(vmki_heap *heap, uint32_t *head)
{
    while (*head != 0) {
        vmki_slab *span = vmki_slab_at(heap, *head);
        list_remove(heap, head, span);
        slab_collect(heap, span);
        if (span->used == 0) {
            slab_release(heap, span);
            continue;
        }
        vmki_heap_lock(heap);
        orphan_add(heap, span);
        vmki_heap_unlock(heap);
    }
}

void vmki_cache_abandon(vmk_cache *cache)
{
    vmki_heap *heap = cache->heap;
    for (unsigned c = 1; c < VMK_CLASSES; c++) {
        vmki_source *e = &cache->source[c];
        source_return(cache, c);
        /* Who has just made one QUEUED is about to put it on the stack: a few instructions, if it is running. */
        while (!list_quiet(heap, e->full) || !list_quiet(heap, e->available)) {
            pending_take(cache, false);
            vmki_os_yield();
        }
        list_abandon(heap, &e->full); /* first, so that what is adopted next is a slab with room */
        list_abandon(heap, &e->available);
        e->slabs = 0;
    }
}

void vmki_orphans_adopt(vmk_cache *cache)
{
    for (unsigned c = 1; c < VMK_CLASSES; c++)
        while (adopt_any(cache, c))
            ;
}

/* --- after a fork ----------------------------------------------------------------------------------------------- */

void vmki_cache_survive(vmki_heap *heap, vmk_cache *cache)
{
    cache->pending = 0;
    for (uint32_t id = 1; id < vmki_slabs_made(heap); id++) {
        vmki_slab *span = vmki_slab_at(heap, id);
        if (vmki_keeper(span) != (uintptr_t)cache || span->watch != VMKI_QUEUED)
            continue;
        span->next_pending = cache->pending;
        cache->pending = id;
    }
}

/* Whatever its keeper was interrupted in: the slots that are taken are those of objects. */
static void slab_recount(const vmki_heap *heap, vmki_slab *span)
{
    const size_t *objects = vmki_objects_word(heap, (uintptr_t)span->base);
    size_t *taken = vmki_taken_word(heap, (uintptr_t)span->base);
    uint32_t words = words_of(span);
    span->used = 0;
    for (uint32_t i = 0; i < words; i++) {
        taken[i] = VMKI_LOAD_RELAXED(&objects[i]);
        span->used += vmki_ones_in(taken[i]);
    }
}

void vmki_cache_bury(vmki_heap *heap, const vmk_cache *cache)
{
    for (uint32_t id = 1; id < vmki_slabs_made(heap); id++) {
        vmki_slab *span = vmki_slab_at(heap, id);
        if (vmki_keeper(span) != (uintptr_t)cache)
            continue;
        span->watch = VMKI_QUIET;
        slab_recount(heap, span);
        slab_collect(heap, span);
        vmki_heap_lock(heap);
        orphan_add(heap, span);
        vmki_heap_unlock(heap);
    }
}
