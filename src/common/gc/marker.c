/* SPDX-License-Identifier: MIT
 *
 * The threads that mark: their stacks, how work gets from one to another, and when all is marked.
 *
 * A cycle begins with the collecting thread alone; small heaps never need another. When it has marked for a while it
 * opens a round, which the others join. Each has a stack of its own that nobody else looks into, so that neither
 * pushing nor popping costs an atomic operation. Who has no work says so, and who has plenty sees that now and then,
 * and puts the older half of its stack, the roots of the larger subgraphs, into its mailbox, from which the hungry
 * fetch it: stealing that the receiver begins (U. Acar, A. Charguéraud, M. Rainey, "Scheduling parallel programs by
 * work stealing with private deques", 2013).
 *
 * No overflow. Where a stack can't grow, what should go there is forgotten: it is marked, and its page lies in a range
 * that the marker remembers. When nothing else is left, the marked objects of these pages are scanned again, until no
 * page is remembered. Each time there are more marks than before, so that ends.
 */
#include "common/gc/marker.h"

#include <string.h>

#include "common/base/os_world.h"
#include "common/heap/heap.h"
#include "common/vm/vm.h"

enum {
    STACK_FIRST = 64 << 10, /* bytes that a stack begins with, */
    STACK_KEPT = 256 << 10, /* and that it keeps from cycle to cycle at most */
    STACK_SHORT = 8 << 20,  /* address space of it where that is short */
    PATIENCE = 8192,        /* objects, when nobody has said how many shall mark */
    PATIENCE_ASKED = 256,   /* when somebody has */
    MARKERS_USUAL = 8,      /* at most, when nobody has said */
    PAGES_JUDGED = 64,      /* pages, from whose objects it is told whether they are dense, */
    DENSE = 8,              /* which so many objects to a page are, */
    POLLS_WAITED = 256,     /* and if not, how long it takes until that is tried again */
    YIELDS = 100            /* that somebody hungry waits with before it sleeps, */
};

static const size_t threads_heap = (size_t)1 << 20; /* bytes in use from which on threads are worth it */
static const uint64_t nap = 100000;                 /* nanoseconds, for so long */
static const uint64_t long_time = (uint64_t)3600 * 1000000000;

/* For a heap that has no memory for its own. One cycle at a time is under way in the process. Static data is scanned,
 * so it is cleared when the cycle ends. */
static vmki_marker lone_marker;
static vmki_crew lone_crew = {.markers = &lone_marker, .count = 1};

/* --- stacks ------------------------------------------------------------------------------------------------------- */

/* What a stack may take at most: what an object in each 64 bytes needs, which only graphs come to that are as wide as
 * the heap; and where address space is short little of that, since it is only speed that depends on it. */
static size_t stack_most(const vmki_gc *gc)
{
    const vmki_heap_plan *plan = &vmki_heap_of(gc->heap)->plan;
    size_t window = plan->window_pages << (VMK_HEAP_PAGE_SHIFT - 5); /* a 32nd of it: 4 GiB may be more than a size */
    if (plan->layout != VMK_LAYOUT_64)
        return vmki_max(vmki_min(window, STACK_SHORT), STACK_KEPT);
    return vmki_max(window * (32 * sizeof(uintptr_t) / 64), STACK_KEPT);
}

static bool stack_reserve(vmki_marker *m)
{
    size_t most = vmki_ceil(stack_most(m->gc), vmk_page_size());
    vmk_reserve_options options = {.min_size = vmki_ceil(STACK_FIRST, vmk_page_size()), .flags = VMK_RESERVE_SPARSE};
    if (vmk_reserve(&m->region, most, &options) != VMK_OK) {
        m->region.base = NULL;
        return false;
    }
    m->stack = (uintptr_t *)(void *)m->region.base;
    return true;
}

bool vmki_marker_grow(vmki_marker *m)
{
    if (m->bottom > m->top - m->bottom) { /* given away below: move down */
        memcpy(m->stack, m->stack + m->bottom, (m->top - m->bottom) * sizeof *m->stack);
        m->top -= m->bottom;
        m->bottom = 0;
        return true;
    }
    vmki_os_error error = vmki_os_error_get();
    bool grown = m->region.base != NULL || stack_reserve(m);
    if (grown) {
        size_t size = m->region.committed;
        size_t more = vmki_min(vmki_max(size, vmki_ceil(STACK_FIRST, vmk_page_size())), m->region.size - size);
        while (more != 0 && vmk_commit(&m->region, size, more) != VMK_OK)
            more = vmki_floor(more / 2, vmk_page_size());
        m->room = (size + more) / sizeof *m->stack;
        grown = more != 0;
    }
    vmki_os_error_set(error);
    return grown;
}

/* A stack that was large once gives its memory back. */
static void stack_trim(vmki_marker *m)
{
    m->bottom = m->top = 0;
    size_t kept = vmki_ceil(STACK_KEPT, vmk_page_size());
    if (m->region.base == NULL || m->region.committed <= kept)
        return;
    if (vmk_decommit(&m->region, kept, m->region.committed - kept) == VMK_OK)
        m->room = kept / sizeof *m->stack;
}

/* A work that is a piece is one that nobody forgets: see mark.c. */
void vmki_marker_overflow(vmki_marker *m, uintptr_t base)
{
    size_t page = (base - m->origin) >> VMK_HEAP_PAGE_SHIFT;
    if (m->again != NULL)
        VMKI_STORE_RELAXED(&m->again[page], 1);
    m->overflow_low = vmki_min(m->overflow_low, page);
    m->overflow_high = vmki_max(m->overflow_high, page);
}

/* --- from one to another ------------------------------------------------------------------------------------------ */

/* Half of the queue of pages. */
static size_t mail_pages(vmki_marker *m)
{
    size_t count = vmki_min(m->queued / 2, VMKI_MAIL);
    for (size_t i = 0; i < count; i++) {
        size_t page = m->first - 1;
        m->mail[i] = m->origin + (page << VMK_HEAP_PAGE_SHIFT) + VMKI_WORK_PAGE;
        m->first = m->next[page];
    }
    m->queued -= (uint32_t)count;
    return count;
}

static void mail_give(vmki_marker *m)
{
    if (VMKI_LOAD_ACQUIRE(&m->mail_state) != VMKI_MAIL_EMPTY)
        return;
    size_t count = vmki_min((m->top - m->bottom) / 2, VMKI_MAIL);
    if (count != 0) {
        memcpy(m->mail, m->stack + m->bottom, count * sizeof *m->mail);
        m->bottom += count;
    } else {
        count = mail_pages(m);
    }
    m->mail_count = (uint32_t)count;
    if (count != 0)
        VMKI_STORE_RELEASE(&m->mail_state, VMKI_MAIL_FULL);
}

/* Does it pay to leave objects to their pages? It does where many are found in a page before its turn comes. While
 * objects go through the ring, that is guessed from how many of those in it lie in the same pages; while they don't, it
 * is known. */
static bool paged_best(vmki_marker *m)
{
    if (m->states == NULL)
        return false;
    if (m->paged) {
        if (m->pages_seen < PAGES_JUDGED)
            return true;
        bool dense = m->pages_objects >= m->pages_seen * DENSE;
        m->pages_seen = m->pages_objects = 0;
        m->wait = dense ? 0 : POLLS_WAITED;
        return dense;
    }
    if (m->wait != 0 || m->ring_count < VMKI_RING - 1) {
        m->wait -= m->wait != 0;
        return false;
    }
    unsigned near = 0;
    for (unsigned i = 1; i < VMKI_RING; i++)
        near += ((m->ring[i] ^ m->ring[i - 1]) >> VMK_HEAP_PAGE_SHIFT) == 0;
    m->pages_seen = m->pages_objects = 0;
    return near >= VMKI_RING / 2;
}

bool vmki_marker_poll(vmki_marker *m)
{
    vmki_crew *crew = m->crew;
    bool paged = paged_best(m), change = paged != m->paged;
    m->paged = paged;
    if (m->mode == VMKI_MARK_SHARED) {
        if (VMKI_LOAD_RELAXED(&crew->hungry) != 0)
            mail_give(m);
    } else if (m->mode == VMKI_MARK_ALONE && crew->started != 0) {
        crew->patience -= vmki_min(crew->patience, VMKI_POLL);
        m->helped = crew->patience == 0;
    }
    return change || m->helped;
}

/* The contents of a mailbox that is ours now. There is room: a stack begins with more than a mailbox holds, and where
 * there are several markers, each has one. */
static void mail_open(vmki_marker *m, vmki_marker *from)
{
    size_t count = from->mail_count;
    m->bottom = m->top = 0;
    for (size_t i = 0; i < count; i++)
        vmki_marker_push(m, from->mail[i]);
    VMKI_STORE_RELEASE(&from->mail_state, VMKI_MAIL_EMPTY);
}

bool vmki_marker_take_back(vmki_marker *m)
{
    if (VMKI_LOAD_RELAXED(&m->mail_state) == VMKI_MAIL_EMPTY ||
        !vmki_cas_32(&m->mail_state, VMKI_MAIL_FULL, VMKI_MAIL_TAKEN))
        return false; /* if it is being taken, who takes it is counted as busy */
    mail_open(m, m);
    return true;
}

/* Before a word is taken, the taker is busy: so busy is never 0 while there is work. */
static bool mail_steal(vmki_marker *m)
{
    vmki_crew *crew = m->crew;
    for (unsigned i = 1; i <= crew->started; i++) {
        vmki_marker *from = &crew->markers[(m->number + i) % (crew->started + 1)];
        if (VMKI_LOAD_ACQUIRE(&from->mail_state) != VMKI_MAIL_FULL)
            continue;
        VMKI_FETCH_ADD(&crew->busy, 1);
        if (vmki_cas_32(&from->mail_state, VMKI_MAIL_FULL, VMKI_MAIL_TAKEN)) {
            mail_open(m, from);
            return true;
        }
        VMKI_FETCH_ADD(&crew->busy, (size_t)-1);
    }
    return false;
}

/* --- a round ------------------------------------------------------------------------------------------------------ */

/* Wait for work; false: nobody has any. */
static bool round_wait(vmki_marker *m)
{
    vmki_crew *crew = m->crew;
    bool found = false;
    VMKI_FETCH_ADD(&crew->hungry, 1);
    for (unsigned waited = 0; !found && VMKI_LOAD(&crew->busy) != 0; waited++) {
        found = mail_steal(m);
        if (!found && waited < YIELDS)
            vmki_os_yield();
        else if (!found)
            vmki_os_event_wait(&crew->idle, nap);
    }
    VMKI_FETCH_ADD(&crew->hungry, (size_t)-1);
    return found;
}

/* Mark until there is no work anywhere. `busy`: this marker has some, and is counted. */
static void round_work(vmki_marker *m, bool busy)
{
    vmki_crew *crew = m->crew;
    vmki_marker_mode(m, VMKI_MARK_SHARED);
    while (busy || round_wait(m)) {
        m->worked = true;
        vmki_marker_drain(m);
        busy = false;
        if (VMKI_FETCH_ADD(&crew->busy, (size_t)-1) == 1)
            vmki_os_event_signal(&crew->idle);
    }
}

static void thread_run(void *argument)
{
    vmki_marker *m = argument;
    vmki_crew *crew = m->crew;
    /* Windows' C library allocates a thread's errno when it is first asked for, and the heap that it comes from is
     * locked while the world is stopped. */
    (void)vmki_os_error_get();
    for (;;) {
        vmki_os_event_wait(&crew->wake, long_time);
        if (VMKI_LOAD(&crew->stop) != 0)
            return;
        VMKI_FETCH_ADD(&crew->inside, 1); /* now who closes the round waits; unless it is closed already */
        if (VMKI_LOAD(&crew->open) != 0)
            round_work(m, false);
        VMKI_FETCH_ADD(&crew->inside, (size_t)-1);
        vmki_os_yield();
    }
}

/* All markers, from what the first one has. */
static void round_run(vmki_marker *m)
{
    vmki_crew *crew = m->crew;
    vmki_os_event_reset(&crew->idle);
    VMKI_FETCH_ADD(&crew->busy, 1);
    VMKI_FETCH_ADD(&crew->open, 1);
    vmki_os_event_signal(&crew->wake);
    round_work(m, true);
    VMKI_FETCH_ADD(&crew->open, (size_t)-1);
    vmki_os_event_reset(&crew->wake);
    while (VMKI_LOAD(&crew->inside) != 0)
        vmki_os_yield();
    vmki_marker_mode(m, VMKI_MARK_ALONE);
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

static bool crew_make(vmki_gc *gc)
{
    unsigned count = gc->options.markers;
    if (count == 0)
        count = (unsigned)vmki_min(vmki_os_processors(), MARKERS_USUAL);
    count = (unsigned)vmki_min(count, VMKI_MARKERS_MAX);
    size_t head = vmki_ceil(sizeof(vmki_crew), VMKI_LINE);
    vmki_marking *marking = &gc->marking;
    if (vmki_region_get(&marking->region, head + count * sizeof(vmki_marker)) != VMK_OK)
        return false;
    vmki_crew *crew = marking->crew = (vmki_crew *)(void *)marking->region.base;
    crew->markers = (vmki_marker *)(void *)(marking->region.base + head);
    crew->count = count;
    for (unsigned i = 0; i < count; i++) {
        crew->markers[i].gc = gc;
        crew->markers[i].crew = crew;
        crew->markers[i].number = i;
    }
    return true;
}

/* A stack to begin with. While the world is stopped the loader's lock is the collecting thread's, and another one that
 * reserves might look up a function of the system's first. */
static bool stack_ready(vmki_marker *m)
{
    return m->room != 0 || vmki_marker_grow(m);
}

static void threads_start(vmki_crew *crew)
{
    while (crew->started + 1 < crew->count) {
        vmki_marker *m = &crew->markers[crew->started + 1];
        if (!stack_ready(m) || vmki_os_thread_start(&m->thread, thread_run, m) != VMK_OK)
            return; /* then there are fewer; the next cycle tries again */
        crew->started++;
    }
}

static bool threads_worth(vmki_gc *gc)
{
    vmki_heap *heap = vmki_heap_of(gc->heap);
    vmki_heap_lock(heap);
    size_t pages = heap->in_use;
    vmki_heap_unlock(heap);
    return gc->options.markers != 0 || pages >= threads_heap >> VMK_HEAP_PAGE_SHIFT;
}

void vmki_markers_prepare(vmki_gc *gc)
{
    vmki_os_error error = vmki_os_error_get();
    if (gc->marking.crew != NULL || crew_make(gc)) {
        vmki_crew *crew = gc->marking.crew;
        if (stack_ready(&crew->markers[0]) && threads_worth(gc)) /* who takes work of others needs room for it */
            threads_start(crew);
    }
    vmki_os_error_set(error);
}

size_t vmki_mark_bytes(const vmki_gc *gc)
{
    const vmki_crew *crew = gc->marking.crew;
    vmk_table_stats pages = {0};
    if (gc->marking.ready)
        vmk_table_stats_now(&gc->marking.pages, &pages);
    size_t bytes = pages.committed + pages.overhead;
    if (crew == NULL)
        return bytes;
    bytes += gc->marking.region.committed;
    for (unsigned i = 0; i < crew->count; i++)
        bytes += crew->markers[i].region.committed;
    return bytes;
}

void vmki_markers_end(vmki_gc *gc)
{
    vmki_crew *crew = gc->marking.crew;
    if (gc->marking.ready)
        vmk_table_fini(&gc->marking.pages);
    gc->marking.ready = false;
    if (crew == NULL)
        return;
    VMKI_FETCH_ADD(&crew->stop, 1);
    vmki_os_event_signal(&crew->wake);
    for (unsigned i = 1; i <= crew->started; i++)
        vmki_os_thread_join(&crew->markers[i].thread);
    for (unsigned i = 0; i < crew->count; i++)
        if (crew->markers[i].region.base != NULL)
            vmk_release(&crew->markers[i].region);
    gc->marking.crew = NULL;
    vmk_release(&gc->marking.region);
}

/* No cycle was under way: nobody was inside. */
void vmki_markers_forget(vmki_gc *gc)
{
    vmki_crew *crew = gc->marking.crew;
    if (crew == NULL)
        return;
    crew->started = 0;
    crew->hungry = crew->inside = 0;
    memset(&crew->wake, 0, sizeof crew->wake);
    memset(&crew->idle, 0, sizeof crew->idle);
}

/* --- the cycle ---------------------------------------------------------------------------------------------------- */

static bool pages_prepare(vmki_gc *gc, size_t first, size_t count)
{
    vmk_table *pages = &gc->marking.pages;
    if (vmk_table_ensure_range(pages, first, count) != VMK_OK)
        return false;
    memset(vmk_table_at(pages, VMKI_PAGES_STATE, first), VMKI_SCAN_OBJECTS, count);
    memset(vmk_table_at(pages, VMKI_PAGES_AGAIN, first), 0, count);
    return true;
}

/* The table of pages, if there can be one. It is as sparse as the heap's own. */
static bool pages_begin(vmki_gc *gc)
{
    const vmk_heap *heap = gc->heap;
    vmki_marking *marking = &gc->marking;
    vmk_table_config config = {.capacity = vmki_heap_of(gc->heap)->plan.window_pages,
                               .column_bits = {8, 8, 32, VMK_HEAP_PAGE_SIZE / VMKI_GRANULE},
                               .flags = heap->present != NULL ? VMK_TABLE_SPARSE : VMK_TABLE_EXACT};
    if (!marking->ready)
        marking->ready = config.capacity < UINT32_MAX && vmk_table_init(&marking->pages, &config) == VMK_OK;
    if (!marking->ready)
        return false;
    if (heap->present == NULL)
        return pages_prepare(gc, 0, heap->limit);
    for (size_t page = 0; page < heap->limit; page += VMKI_CHUNK_PAGES)
        if ((heap->present[page >> 14] >> (page >> 9 & 31) & 1) != 0 &&
            !pages_prepare(gc, page, vmki_min(VMKI_CHUNK_PAGES, heap->limit - page)))
            return false;
    return true;
}

static vmki_shape shape_of(const vmki_gc_code *code, bool past_end)
{
    vmki_shape shape = {.leaf = code->kind == VMKI_LEAF};
    if (code->size_class == 0)
        return shape;
    shape.magic = code->magic;
    shape.mask = (1u << (code->shift - VMKI_GRANULE_SHIFT)) - 1;
    shape.granules = (uint16_t)code->granules;
    if (code->kind == VMKI_CONSERVATIVE && code->granules < VMKI_WORK_PAGE && !past_end) {
        shape.work = (uint8_t)code->granules;
        shape.paged = true;
    }
    return shape;
}

static void marker_begin(vmki_marker *m, vmki_gc *gc)
{
    const vmk_heap *heap = gc->heap;
    m->gc = gc;
    m->origin = gc->origin;
    m->limit = heap->limit;
    m->present = heap->present;
    m->classes = heap->classes;
    m->taken = gc->taken;
    m->marks = gc->marks;
    m->past_end = (gc->flags & VMK_GC_PAST_END) != 0;
    m->worked = m->paged = m->helped = false;
    m->wait = 0;
    bool pages = gc->marking.paged;
    m->states = pages ? vmk_table_at(&gc->marking.pages, VMKI_PAGES_STATE, 0) : NULL;
    m->again = pages ? vmk_table_at(&gc->marking.pages, VMKI_PAGES_AGAIN, 0) : NULL;
    m->next = pages ? vmk_table_at(&gc->marking.pages, VMKI_PAGES_NEXT, 0) : NULL;
    m->scanned = pages ? vmk_table_at(&gc->marking.pages, VMKI_PAGES_SCANNED, 0) : NULL;
    m->overflow_low = SIZE_MAX;
    m->overflow_high = 0;
    m->large_bytes = 0;
    for (unsigned code = 0; code < 256; code++)
        m->shapes[code] = shape_of(&vmki_gc_codes[code], m->past_end);
    vmki_marker_mode(m, VMKI_MARK_ALONE);
}

vmki_marker *vmki_mark_begin(vmki_gc *gc)
{
    vmki_crew *crew = gc->marking.crew;
    if (crew == NULL) {
        crew = gc->marking.crew = &lone_crew;
        lone_marker.crew = crew;
    }
    vmki_os_error error = vmki_os_error_get();
    gc->marking.paged = pages_begin(gc);
    vmki_os_error_set(error);
    for (unsigned i = 0; i <= crew->started; i++)
        marker_begin(&crew->markers[i], gc);
    crew->rescans = 0;
    crew->patience = gc->options.markers != 0 ? PATIENCE_ASKED : PATIENCE;
    crew->markers[0].worked = true;
    return &crew->markers[0];
}

/* Scan again what was forgotten; false: nothing was. */
static bool rescan(vmki_crew *crew)
{
    size_t low = SIZE_MAX, high = 0;
    for (unsigned i = 0; i <= crew->started; i++) {
        vmki_marker *m = &crew->markers[i];
        low = vmki_min(low, m->overflow_low);
        high = vmki_max(high, m->overflow_high);
        m->overflow_low = SIZE_MAX;
        m->overflow_high = 0;
    }
    if (low > high)
        return false;
    crew->rescans++;
    vmki_marker *m = &crew->markers[0];
    for (size_t page = low; page <= high; page++)
        if (vmki_gc_page_code(m->gc, m->origin + (page << VMK_HEAP_PAGE_SHIFT)) != 0 &&
            (m->again == NULL || m->again[page] != 0)) {
            if (m->again != NULL)
                m->again[page] = 0;
            vmki_marker_rescan(m, page);
        }
    return true;
}

void vmki_mark_drain(vmki_gc *gc)
{
    vmki_crew *crew = gc->marking.crew;
    vmki_marker *m = &crew->markers[0];
    do {
        if (!vmki_marker_drain(m))
            round_run(m);
    } while (rescan(crew));
}

void vmki_mark_watch(vmki_gc *gc, void (*reached)(vmki_gc *gc, uintptr_t base))
{
    gc->marking.reached = reached;
    vmki_marker_mode(&gc->marking.crew->markers[0], reached != NULL ? VMKI_MARK_WATCHED : VMKI_MARK_ALONE);
}

void vmki_mark_end(vmki_gc *gc, vmk_gc_event *event)
{
    vmki_crew *crew = gc->marking.crew;
    event->markers = 0;
    event->live_bytes = event->live_objects = 0;
    event->rescans = crew->rescans;
    for (unsigned i = 0; i <= crew->started; i++) {
        vmki_marker *m = &crew->markers[i];
        event->markers += m->worked;
        event->live_bytes += m->large_bytes;
        for (unsigned code = 1; code < 256; code++) {
            event->live_objects += m->shapes[code].count;
            event->live_bytes += m->shapes[code].count * vmki_gc_codes[code].size;
        }
        stack_trim(m);
    }
    if (crew == &lone_crew) {
        if (lone_marker.region.base != NULL)
            vmk_release(&lone_marker.region);
        memset(&lone_marker, 0, sizeof lone_marker);
        gc->marking.crew = NULL;
    }
}
