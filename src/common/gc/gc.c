/* SPDX-License-Identifier: MIT
 *
 * The life of a collected heap; its types and bins; the caches of threads; what fork needs.
 *
 * The record of a heap lies in a span of the heap below, which ends with it. A cache is a record in a table, and a
 * table of runs by bin: what is committed of it are the bins that exist, a page for the usual ones.
 */
#include "common/gc/gc.h"

#include <string.h>

#include "common/vm/vm.h"

#define BLOCK_SIZE ((size_t)16 << 10)

#define FLAGS_ALL ((VMK_GC_VERIFY << 1) - 1)

static vmki_gc *list; /* under the world's lock, as the next */
static bool numbers[VMKI_GCS_MAX];
static bool codes_ready;

VMKI_COLD vmki_gc *vmki_gc_require(vmk_gc *gc, const char *crime)
{
    vmki_misuse(crime, gc);
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static vmk_status table_make(vmk_table *table, size_t capacity, size_t size, unsigned flags)
{
    vmk_table_config config = {.capacity = capacity, .column_bits = {size * 8}, .flags = flags, .name = "vmkit gc"};
    return vmk_table_init(table, &config);
}

static void table_end(vmk_table *table)
{
    if (table->capacity != 0)
        vmk_table_fini(table);
}

static vmk_status tables_make(vmki_gc *gc)
{
    size_t pages = vmki_heap_of(gc->heap)->plan.window_pages;
    vmk_status status = table_make(&gc->taken_table, pages, VMK_HEAP_PAGE_SIZE / VMKI_GRANULE / 8, VMK_TABLE_SPARSE);
    if (status == VMK_OK) /* as many as there may be spans; id 0 is nobody's */
        status = table_make(&gc->slab_table, pages < UINT32_MAX ? pages + 1 : UINT32_MAX, sizeof(vmki_gc_slab), 0);
    if (status == VMK_OK)
        status = table_make(&gc->bin_table, VMKI_GC_BINS_MAX, sizeof(vmki_gc_bin), 0);
    if (status == VMK_OK)
        status = table_make(&gc->type_table, VMKI_GC_TYPES_MAX + 1, sizeof(vmk_gc_type), 0);
    return status;
}

static void tables_end(vmki_gc *gc)
{
    table_end(&gc->taken_table);
    table_end(&gc->slab_table);
    table_end(&gc->bin_table);
    table_end(&gc->type_table);
}

static vmk_status bins_fixed(vmki_gc *gc)
{
    vmk_status status = vmk_table_ensure(&gc->bin_table, VMKI_GC_BINS_FIXED);
    if (status != VMK_OK)
        return status;
    gc->bins = vmk_table_at(&gc->bin_table, 0, 0);
    gc->bin_count = VMKI_GC_BINS_FIXED;
    for (unsigned bin = 0; bin < VMKI_GC_BINS_FIXED; bin++)
        gc->bins[bin].code = vmki_gc_code_of(bin / VMK_CLASSES, bin % VMK_CLASSES);
    return VMK_OK;
}

/* --- create and destroy ------------------------------------------------------------------------------------------- */

static vmk_status number_take(vmki_gc *gc)
{
    for (uint32_t number = 0; number < VMKI_GCS_MAX; number++) {
        if (!numbers[number]) {
            numbers[number] = true;
            gc->number = number;
            return VMK_OK;
        }
    }
    return VMK_ERR_LIMIT;
}

/* From now on the world knows it. */
static vmk_status list_add(vmki_gc *gc)
{
    vmki_world_lock();
    vmk_status status = number_take(gc);
    if (status == VMK_OK) {
        if (!codes_ready)
            vmki_gc_codes_init();
        codes_ready = true;
        gc->next = list;
        list = gc;
    }
    vmki_world_unlock();
    return status;
}

static void list_remove(vmki_gc *gc)
{
    vmki_world_lock();
    vmki_gc **link = &list;
    while (*link != gc)
        link = &(*link)->next;
    *link = gc->next;
    numbers[gc->number] = false;
    for (vmki_mutator *mutator = vmki_world_mutators(); mutator != NULL; mutator = mutator->next)
        mutator->caches[gc->number] = NULL;
    vmki_world_unlock();
}

static void caches_end(vmki_gc *gc)
{
    for (vmki_gc_block *block = gc->blocks, *next; block != NULL; block = next) {
        next = block->next;
        for (size_t i = 0; i < block->count; i++)
            table_end(&block->caches[i].table);
        vmk_region region = block->region;
        vmk_release(&region);
    }
}

static void gc_end(vmki_gc *gc)
{
    vmk_heap *heap = gc->heap;
    gc->seal = 0;
    vmki_markers_end(gc);
    vmki_roots_fini(gc);
    vmki_links_fini(gc);
    vmki_ephemerons_fini(gc);
    vmki_leaks_fini(gc);
    caches_end(gc);
    tables_end(gc);
    vmk_heap_destroy(heap); /* and gc with it */
}

/* The record, in a heap that was just made. */
static vmk_status gc_make(vmk_heap *heap, const vmk_gc_options *options, vmki_gc **result)
{
    size_t pages = (sizeof(vmki_gc) + VMK_HEAP_PAGE_SIZE - 1) >> VMK_HEAP_PAGE_SHIFT;
    vmk_span *span;
    vmk_status status = vmk_span_alloc(heap, pages, 0, VMK_SPAN_ZERO, &span);
    if (status != VMK_OK)
        return status;
    vmki_gc *gc = (vmki_gc *)(void *)span->base;
    *result = gc;
    gc->heap = heap;
    gc->origin = heap->origin;
    gc->options = *options;
    gc->options.heap = NULL;
    gc->flags = options->flags;
    if ((gc->flags & VMK_GC_NO_STACKS) != 0)
        gc->flags |= VMK_GC_COOPERATIVE;
    gc->slow = (gc->flags & (VMK_GC_STRESS | VMK_GC_SITES)) != 0;
    gc->epoch = 1;
    status = tables_make(gc);
    if (status == VMK_OK)
        status = bins_fixed(gc);
    if (status != VMK_OK) {
        tables_end(gc);
        return status;
    }
    gc->taken = vmk_table_at(&gc->taken_table, 0, 0);
    gc->slabs = vmk_table_at(&gc->slab_table, 0, 0);
    gc->marks = (size_t *)(void *)heap->marks;
    vmki_pace_init(gc, &options->pace);
    return VMK_OK;
}

static vmk_status gc_create(const vmk_gc_options *options, vmki_gc **result)
{
    vmk_heap_options below = options->heap != NULL ? *options->heap : (vmk_heap_options){0};
    vmk_heap *heap;
    below.limit = options->pace.hard_limit;
    below.on_exhausted = NULL;
    vmk_status status = vmk_heap_create(&heap, &below);
    if (status != VMK_OK)
        return status;
    status = gc_make(heap, options, result);
    if (status != VMK_OK) {
        vmk_heap_destroy(heap);
        return status;
    }
    status = list_add(*result);
    if (status != VMK_OK)
        gc_end(*result);
    return status;
}

vmk_status vmk_gc_create(vmk_gc **result, const vmk_gc_options *given)
{
    static const vmk_gc_options usual;
    const vmk_gc_options *options = given != NULL ? given : &usual;
    static const vmk_gc_layout leaf = {.name = "(collector)", .size = sizeof(void *)};
    vmki_os_error before = vmki_os_error_get();
    vmki_gc *gc;
    if ((options->flags & ~(unsigned)FLAGS_ALL) != 0)
        return VMK_ERR_ARGUMENT;
    vmk_status status = vmki_world_prepare();
    if (status == VMK_ERR_UNSUPPORTED && (options->flags & (VMK_GC_COOPERATIVE | VMK_GC_NO_STACKS)) != 0)
        status = VMK_OK;
    bool registered = vmki_mutator_self() != NULL;
    if (status == VMK_OK && !registered)
        status = vmk_gc_thread_register();
    if (status != VMK_OK)
        return status;
    status = gc_create(options, &gc);
    if (status == VMK_OK) {
        gc->seal = VMKI_GC_SEAL;
        status = vmk_gc_type_create(gc, &leaf, &gc->own);
        if (status != VMK_OK) {
            list_remove(gc);
            gc_end(gc);
        }
    }
    if (status != VMK_OK) {
        if (!registered)
            vmk_gc_thread_unregister();
        return status;
    }
    *result = gc;
    vmki_os_error_set(before);
    return VMK_OK;
}

/* Without looking into it: its memory may be gone. */
static bool is_live(const vmk_gc *view)
{
    vmki_world_lock();
    const vmki_gc *gc = list;
    while (gc != NULL && gc != view)
        gc = gc->next;
    vmki_world_unlock();
    return gc != NULL;
}

void vmk_gc_destroy(vmk_gc *gc)
{
    if (!is_live(gc))
        vmki_misuse("vmk_gc_destroy: not a collected heap", gc);
    vmki_finalizers_fini(gc); /* its thread may still be using the heap */
    list_remove(gc);
    gc_end(gc);
}

vmk_heap *vmk_gc_heap(vmk_gc *view)
{
    return VMKI_GC_REQUIRE(view, "vmk_gc_heap")->heap;
}

/* --- types -------------------------------------------------------------------------------------------------------- */

/* A map longer than a word is copied to a span of its own. */
static vmk_status map_copy(vmki_gc *gc, vmk_gc_type *type, const size_t *pointers)
{
    size_t words = (type->words + VMKI_WORD_BITS - 1) / VMKI_WORD_BITS, size = words * sizeof(size_t);
    size_t last = SIZE_MAX >> (words * VMKI_WORD_BITS - type->words);
    if (words == 1) {
        type->map_word = pointers[0] & last;
        type->map = &type->map_word;
        return VMK_OK;
    }
    vmk_span *span;
    vmk_status status = vmk_span_alloc(gc->heap, (size + VMK_HEAP_PAGE_SIZE - 1) >> VMK_HEAP_PAGE_SHIFT, 0, 0, &span);
    if (status != VMK_OK)
        return status;
    size_t *map = (size_t *)(void *)span->base;
    memcpy(map, pointers, size);
    map[words - 1] &= last;
    type->map = map;
    return VMK_OK;
}

static vmk_status type_fill(vmki_gc *gc, vmk_gc_type *type, const vmk_gc_layout *layout)
{
    *type = (vmk_gc_type){.words = layout->size / sizeof(void *),
                          .trace = layout->trace,
                          .trace_context = layout->trace_context,
                          .leaf = layout->pointers == NULL && layout->trace == NULL};
    for (size_t i = 0; layout->name != NULL && layout->name[i] != '\0' && i < sizeof type->name - 1; i++)
        type->name[i] = layout->name[i];
    return layout->pointers != NULL ? map_copy(gc, type, layout->pointers) : VMK_OK;
}

static vmk_status type_make(vmki_gc *gc, const vmk_gc_layout *layout, vmk_gc_type **result)
{
    if (gc->type_count == VMKI_GC_TYPES_MAX + 1)
        return VMK_ERR_LIMIT;
    vmk_status status = vmk_table_ensure(&gc->type_table, gc->type_count + 1);
    if (status != VMK_OK)
        return status;
    vmk_gc_type *type = vmk_table_at(&gc->type_table, 0, gc->type_count);
    status = type_fill(gc, type, layout);
    if (status == VMK_OK) {
        gc->type_count++;
        *result = type;
    }
    return status;
}

vmk_status vmk_gc_type_create(vmk_gc *view, const vmk_gc_layout *layout, vmk_gc_type **type)
{
    vmki_gc *gc = VMKI_GC_REQUIRE(view, "vmk_gc_type_create");
    if (layout->size == 0 || layout->size % sizeof(void *) != 0 || layout->size > (size_t)1 << 20 ||
        (layout->pointers != NULL && layout->trace != NULL))
        return VMK_ERR_ARGUMENT;
    vmki_gc_lock(gc);
    vmk_status status = type_make(gc, layout, type);
    vmki_gc_unlock(gc);
    return status;
}

unsigned vmki_gc_bin_of_type(vmki_gc *gc, vmk_gc_type *type, unsigned size_class)
{
    vmki_gc_lock(gc);
    unsigned bin = type->bins[size_class];
    if (bin == 0 && gc->bin_count < VMKI_GC_BINS_MAX && vmk_table_ensure(&gc->bin_table, gc->bin_count + 1) == VMK_OK) {
        bin = (unsigned)gc->bin_count++;
        gc->bins[bin] =
            (vmki_gc_bin){.type = type, .code = vmki_gc_code_of(type->leaf ? VMKI_LEAF : VMKI_TYPED, size_class)};
        VMKI_STORE_RELEASE(&type->bins[size_class], (uint16_t)bin);
    }
    vmki_gc_unlock(gc);
    return bin;
}

/* --- caches ------------------------------------------------------------------------------------------------------- */

static bool block_make(vmki_gc *gc)
{
    vmk_region region;
    if (vmki_region_get(&region, BLOCK_SIZE) != VMK_OK)
        return false;
    vmki_gc_block *block = (vmki_gc_block *)(void *)region.base;
    block->region = region;
    block->next = gc->blocks;
    gc->blocks = block;
    return true;
}

/* Memory for one more, zero. It counts when it is made. */
static vmki_gc_cache *cache_room(vmki_gc *gc)
{
    const vmki_gc_block *block = gc->blocks;
    if (block == NULL ||
        block->count == (block->region.size - offsetof(vmki_gc_block, caches)) / sizeof(vmki_gc_cache)) {
        if (!block_make(gc))
            return NULL;
    }
    return &gc->blocks->caches[gc->blocks->count];
}

/* Under the lock. */
static vmki_gc_cache *cache_make(vmki_gc *gc)
{
    vmki_gc_cache *cache = gc->spare;
    if (cache != NULL) {
        gc->spare = cache->next;
        return cache;
    }
    cache = cache_room(gc);
    if (cache == NULL || table_make(&cache->table, VMKI_GC_BINS_MAX, sizeof(vmki_gc_run), 0) != VMK_OK)
        return NULL;
    cache->runs = vmk_table_at(&cache->table, 0, 0);
    gc->blocks->count++;
    return cache;
}

static void cache_link(vmki_gc *gc, vmki_gc_cache *cache, vmki_mutator *mutator)
{
    cache->mutator = mutator;
    cache->previous = NULL;
    cache->next = gc->caches;
    if (cache->next != NULL)
        cache->next->previous = cache;
    gc->caches = cache;
    mutator->caches[gc->number] = cache;
}

vmki_gc_cache *vmki_gc_cache_of(vmki_gc *gc, vmki_mutator *mutator, unsigned bin)
{
    vmki_gc_cache *cache = mutator->caches[gc->number];
    if (VMKI_LIKELY(cache != NULL && bin < cache->bins))
        return cache;
    vmki_gc_lock(gc);
    if (cache == NULL)
        cache = cache_make(gc);
    if (cache != NULL && mutator->caches[gc->number] == NULL)
        cache_link(gc, cache, mutator);
    bool ready = cache != NULL && vmk_table_ensure(&cache->table, bin + 1) == VMK_OK;
    if (ready)
        cache->bins = (uint32_t)vmk_table_ready(&cache->table);
    vmki_gc_unlock(gc);
    return ready ? cache : NULL;
}

static void cache_flush(vmki_gc *gc, vmki_gc_cache *cache)
{
    while (cache->active != 0) {
        unsigned bin = cache->active - 1;
        cache->active = cache->runs[bin].next;
        vmki_gc_slab_put(gc, cache, &cache->runs[bin], bin);
    }
    VMKI_FETCH_ADD(&gc->allocated, cache->allocated);
    cache->allocated = 0;
}

void vmki_gc_flush(vmki_gc *gc)
{
    for (vmki_gc_cache *cache = gc->caches; cache != NULL; cache = cache->next)
        cache_flush(gc, cache);
}

static void cache_end(vmki_gc *gc, vmki_mutator *mutator)
{
    vmki_gc_cache *cache = mutator->caches[gc->number];
    if (cache == NULL)
        return;
    vmki_os_lock_acquire(&gc->lock);
    cache_flush(gc, cache);
    if (cache->previous != NULL)
        cache->previous->next = cache->next;
    else
        gc->caches = cache->next;
    if (cache->next != NULL)
        cache->next->previous = cache->previous;
    cache->next = gc->spare;
    gc->spare = cache;
    mutator->caches[gc->number] = NULL;
    vmki_os_lock_release(&gc->lock);
}

void vmki_gc_thread_ends(vmki_mutator *mutator)
{
    for (vmki_gc *gc = list; gc != NULL; gc = gc->next)
        cache_end(gc, mutator);
}

/* --- fork --------------------------------------------------------------------------------------------------------- */

void vmki_gc_before_fork(void)
{
    for (vmki_gc *gc = list; gc != NULL; gc = gc->next) {
        vmki_os_lock_acquire(&gc->finalizers.lock);
        vmki_os_lock_acquire(&gc->ephemerons.lock);
        vmki_os_lock_acquire(&gc->links.lock);
        vmki_os_lock_acquire(&gc->leaks.lock);
        vmki_os_lock_acquire(&gc->roots.lock);
        vmki_os_lock_acquire(&gc->lock);
    }
}

void vmki_gc_after_fork(bool in_child)
{
    for (vmki_gc *gc = list; gc != NULL; gc = gc->next) {
        vmki_os_lock_release(&gc->lock);
        vmki_os_lock_release(&gc->roots.lock);
        vmki_os_lock_release(&gc->leaks.lock);
        vmki_os_lock_release(&gc->links.lock);
        vmki_os_lock_release(&gc->ephemerons.lock);
        vmki_os_lock_release(&gc->finalizers.lock);
        if (in_child) {
            vmki_markers_forget(gc);
            vmki_finalizers_forget(gc);
        }
    }
}
