/* SPDX-License-Identifier: MIT
 *
 * What threads have: for each heap that they allocate objects in, a cache. It comes at the first allocation, and goes
 * when the thread ends, detaches, or the heap is destroyed. A cache lies in a span of its heap; what a thread has lies
 * in memory that belongs to no heap, and is used again by later threads.
 *
 * The registry knows which heaps have objects, by number, and all threads that have caches. Its lock is taken before
 * those of heaps. An ending thread holds it, so that a heap that is destroyed meanwhile either finds the thread's cache
 * gone, or takes it away.
 */
#include "common/heap/object.h"

#include <string.h>

#include "common/base/check.h"
#include "common/vm/vm.h"

#define BLOCK_SIZE ((size_t)64 << 10)
#define CACHE_PAGES ((sizeof(vmk_cache) + VMK_HEAP_PAGE_SIZE - 1) >> VMK_HEAP_PAGE_SHIFT)

static struct registry {
    vmki_os_lock lock; /* all below */
    bool prepared;
    bool ready;
    vmki_heap *heaps[VMKI_OBJECT_HEAPS]; /* by number */
    vmki_thread *live;
    vmki_thread *spare;
    vmki_thread *fresh; /* so many that were never used */
    size_t fresh_count;
} registry;

/* --- threads ---------------------------------------------------------------------------------------------------- */

/* More memory for threads, from the system: never given back, since threads come again. */
static vmk_status threads_more(void)
{
    vmk_region region; /* forgotten */
    vmk_status status = vmki_region_get(&region, BLOCK_SIZE);
    if (status != VMK_OK)
        return status;
    registry.fresh = (vmki_thread *)(void *)region.base;
    registry.fresh_count = region.size / sizeof(vmki_thread);
    return VMK_OK;
}

/* Under the registry's lock. */
static vmki_thread *thread_make(void)
{
    vmki_thread *thread = registry.spare;
    if (thread != NULL) {
        registry.spare = thread->next;
    } else {
        if (registry.fresh_count == 0 && threads_more() != VMK_OK)
            return NULL;
        registry.fresh_count--;
        thread = registry.fresh++;
    }
    thread->previous = NULL;
    thread->next = registry.live;
    if (registry.live != NULL)
        registry.live->previous = thread;
    registry.live = thread;
    return thread;
}

static void thread_end(vmki_thread *thread)
{
    if (thread->previous != NULL)
        thread->previous->next = thread->next;
    else
        registry.live = thread->next;
    if (thread->next != NULL)
        thread->next->previous = thread->previous;
    thread->next = registry.spare;
    registry.spare = thread;
}

/* --- caches ----------------------------------------------------------------------------------------------------- */

/* Memory for a cache: one that was one before, or a span. */
static vmk_cache *cache_memory(vmki_heap *heap, vmk_span **span)
{
    vmki_heap_lock(heap);
    vmk_cache *cache = heap->objects.spare;
    if (cache != NULL) {
        heap->objects.spare = cache->next;
        heap->objects.spare_count--;
    }
    vmki_heap_unlock(heap);
    if (cache != NULL) {
        *span = cache->span;
        return cache;
    }
    if (vmk_span_alloc(&heap->view, CACHE_PAGES, 0, 0, span) != VMK_OK)
        return NULL;
    return (vmk_cache *)(void *)(*span)->base;
}

static void cache_clear(vmk_cache *cache)
{
    memset(cache, 0, offsetof(vmk_cache, slots));
    for (unsigned c = 0; c < VMK_CLASSES; c++)
        cache->stack[c].top = cache->stack[c].last = &cache->nothing;
}

static void cache_link(vmki_heap *heap, vmk_cache *cache)
{
    vmki_heap_lock(heap);
    cache->next = heap->objects.caches;
    if (cache->next != NULL)
        cache->next->previous = cache;
    heap->objects.caches = cache;
    heap->objects.cache_count++;
    vmki_heap_unlock(heap);
}

/* It is kept for the next thread. */
static void cache_unlink(vmki_heap *heap, vmk_cache *cache)
{
    vmki_heap_lock(heap);
    if (cache->previous != NULL)
        cache->previous->next = cache->next;
    else
        heap->objects.caches = cache->next;
    if (cache->next != NULL)
        cache->next->previous = cache->previous;
    heap->objects.cache_count--;
    cache->next = heap->objects.spare;
    heap->objects.spare = cache;
    heap->objects.spare_count++;
    vmki_heap_unlock(heap);
}

static void cache_end(vmk_cache *cache)
{
    vmki_heap *heap = cache->heap;
    cache->thread->cache[heap->objects.number] = NULL;
    vmki_hardened_flush(cache);
    vmki_cache_abandon(cache);
    cache_unlink(heap, cache);
}

/* --- the registry ----------------------------------------------------------------------------------------------- */

/* A thread ends. */
static void at_thread_end(void *self)
{
    vmki_thread *thread = self;
    vmki_os_lock_acquire(&registry.lock);
    for (unsigned i = 0; i < VMKI_NUMBER_NONE; i++)
        if (thread->cache[i] != NULL)
            cache_end(thread->cache[i]);
    thread_end(thread);
    vmki_os_lock_release(&registry.lock);
}

void vmki_thread_end_now(void)
{
    void *self = vmki_os_self();
    if (self == NULL)
        return;
    vmki_os_error before = vmki_os_error_get();
    vmki_os_self_set(NULL);
    at_thread_end(self);
    vmki_os_error_set(before);
}

static void before_fork(void)
{
    vmki_os_lock_acquire(&registry.lock);
}

static void after_fork(void)
{
    vmki_os_lock_release(&registry.lock);
}

/* Of all threads this one alone is here. What the others kept is made orphans now, while nobody else can be about. The
 * heaps' locks are free again: their layer registered earlier, so it is called earlier. */
static void after_fork_in_child(void)
{
    vmki_thread *self = vmki_os_self();
    for (unsigned i = 0; i < VMKI_NUMBER_NONE; i++) {
        vmki_heap *heap = registry.heaps[i];
        for (vmk_cache *cache = heap != NULL ? heap->objects.caches : NULL, *next; cache != NULL; cache = next) {
            next = cache->next;
            if (cache->thread == self) {
                vmki_cache_survive(heap, cache);
                continue;
            }
            cache->thread->cache[i] = NULL;
            vmki_cache_bury(heap, cache);
            cache_unlink(heap, cache);
        }
    }
    for (vmki_thread *thread = registry.live, *next; thread != NULL; thread = next) {
        next = thread->next;
        if (thread != self)
            thread_end(thread);
    }
    vmki_os_lock_release(&registry.lock);
}

void vmki_objects_end(vmki_heap *heap)
{
    unsigned number = heap->objects.number;
    vmki_os_lock_acquire(&registry.lock);
    for (vmki_thread *thread = registry.live; thread != NULL; thread = thread->next)
        thread->cache[number] = NULL;
    registry.heaps[number] = NULL;
    vmki_os_lock_release(&registry.lock);
    vmki_huge_end(heap);
    if (!heap->objects.begun)
        return;
    vmk_table_fini(&heap->objects.bits);
    vmk_table_fini(&heap->objects.slabs);
}

/* The first time, have it free after forks. Registering for that may itself wait for a fork, which waits for the lock.
 */
void vmki_registry_lock(void)
{
    vmki_os_lock_acquire(&registry.lock);
    if (registry.prepared)
        return;
    registry.prepared = true;
    vmki_os_lock_release(&registry.lock);
    vmki_os_at_fork(before_fork, after_fork, after_fork_in_child);
    vmki_os_lock_acquire(&registry.lock);
}

void vmki_registry_unlock(void)
{
    vmki_os_lock_release(&registry.lock);
}

/* Once for the process. Under the lock. */
static vmk_status registry_prepare(void)
{
    if (registry.ready)
        return VMK_OK;
    vmki_classes_init();
    vmk_status status = vmki_os_self_init(at_thread_end);
    registry.ready = status == VMK_OK;
    return status;
}

/* Under the registry's lock. */
static vmk_status tables_begin(vmki_heap *heap)
{
    if (heap->objects.begun)
        return VMK_OK;
    vmk_table_config bits = {.capacity = heap->plan.window_pages,
                             .column_bits = {VMK_HEAP_PAGE_SIZE / VMKI_GRANULE, VMK_HEAP_PAGE_SIZE / VMKI_GRANULE},
                             .flags = VMK_TABLE_SPARSE};
    vmk_table_config slabs = {.capacity = heap->records.capacity, .column_bits = {sizeof(vmki_slab) * 8}};
    bits.name = slabs.name = vmki_heap_name(heap, VMKI_NAME_OBJECTS);
    vmk_status status = vmk_table_init(&heap->objects.bits, &bits);
    if (status != VMK_OK)
        return status;
    status = vmk_table_init(&heap->objects.slabs, &slabs);
    if (status != VMK_OK) {
        vmk_table_fini(&heap->objects.bits);
        return status;
    }
    vmki_heap_lock(heap); /* whoever counts looks at them under it */
    heap->taken = vmk_table_at(&heap->objects.bits, 0, 0);
    heap->remote = vmk_table_at(&heap->objects.bits, 1, 0);
    VMKI_STORE_RELEASE(&heap->objects.begun, true);
    heap->objects.end = vmki_objects_end;
    vmki_heap_unlock(heap);
    return VMK_OK;
}

vmk_status vmki_objects_begin(vmki_heap *heap)
{
    vmki_registry_lock();
    vmk_status status = tables_begin(heap);
    vmki_registry_unlock();
    return status;
}

vmk_status vmki_slab_ready(vmki_heap *heap, const vmk_span *span, vmki_slab **slab)
{
    vmk_status status = vmk_table_ensure(&heap->objects.slabs, (size_t)span->id + 1);
    if (status != VMK_OK)
        return status;
    *slab = vmki_slab_at(heap, span->id);
    VMKI_STORE_RELAXED(&(*slab)->base, span->base);
    VMKI_STORE_RELAXED(&(*slab)->pages, span->pages);
    (*slab)->id = span->id;
    return VMK_OK;
}

/* Give a heap a number. Under the registry's lock. */
static vmk_status heap_begin(vmki_heap *heap)
{
    if (heap->objects.number != VMKI_NUMBER_NONE)
        return VMK_OK;
    unsigned number = vmki_heap_is_default(heap) ? VMKI_NUMBER_DEFAULT : VMKI_NUMBER_DEFAULT + 1;
    while (number < VMKI_NUMBER_NONE && registry.heaps[number] != NULL)
        number++;
    if (number == VMKI_NUMBER_NONE)
        return VMK_ERR_LIMIT;
    vmk_status status = tables_begin(heap);
    if (status != VMK_OK)
        return status;
    registry.heaps[number] = heap;
    heap->objects.secret = (heap->options.flags & VMK_HEAP_HARDENED) != 0 ? vmki_os_random() : 0;
    VMKI_STORE_RELEASE(&heap->objects.number, number);
    return VMK_OK;
}

/* What the calling thread has; NULL: no memory. */
static vmki_thread *thread_for(vmki_heap *heap)
{
    vmki_thread *self = NULL;
    vmki_registry_lock();
    if (registry_prepare() == VMK_OK && heap_begin(heap) == VMK_OK) {
        self = vmki_os_self();
        if (self == NULL)
            self = thread_make();
    }
    vmki_registry_unlock();
    if (self != NULL && vmki_os_self() == NULL)
        vmki_os_self_set(self); /* may allocate, and come back here */
    return self;
}

vmk_cache *vmki_cache_attach(vmki_heap *heap)
{
    vmki_thread *self = thread_for(heap);
    vmk_span *span;
    if (self == NULL)
        return NULL;
    vmk_cache *cache = self->cache[heap->objects.number];
    if (cache != NULL)
        return cache;
    cache = cache_memory(heap, &span);
    if (cache == NULL)
        return NULL;
    cache_clear(cache);
    cache->origin = heap->view.origin;
    cache->objects = (size_t *)(void *)heap->view.marks;
    cache->owners = heap->owners;
    cache->heap = heap;
    cache->thread = self;
    cache->span = span;
    cache->hardened = (heap->options.flags & VMK_HEAP_HARDENED) != 0;
    if (cache->hardened) {
        memset(cache->quarantine, 0, sizeof cache->quarantine);
        cache->random = vmki_os_random();
    }
    cache_link(heap, cache);
    self->cache[heap->objects.number] = cache;
    return cache;
}

vmk_cache *vmk_cache_attach(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_meant(view);
    if (heap == NULL)
        return NULL;
    vmk_cache *cache = vmki_cache_of(heap);
    return cache != NULL ? cache : vmki_cache_attach(heap);
}

void vmk_cache_detach(vmk_heap *view)
{
    vmki_heap *heap = vmki_heap_meant(view);
    vmk_cache *cache = heap != NULL ? vmki_cache_of(heap) : NULL;
    if (cache == NULL)
        return;
    vmki_os_error before = vmki_os_error_get();
    cache_end(cache);
    vmki_os_error_set(before);
}
