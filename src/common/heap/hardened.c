/* SPDX-License-Identifier: MIT
 *
 * VMK_HEAP_HARDENED. Small objects: a slot is chosen at random among those at hand, and must be zero, since all that is
 * free is. Behind what may be used stands a canary that depends on the address and on a secret. A free looks at it,
 * clears the slot, puts another canary there, by which a second free is known, and keeps the slot back for as long as
 * it takes to free some more. When it is used again it must still be as it was left.
 *
 * All of it is in the long ways of allocating and freeing: stacks are empty, and no page has an owner, so that the
 * short ways are never taken, and need not ask.
 */
#include "common/heap/object.h"

#include <string.h>

#include "common/base/check.h"

/* splitmix64's output function: every bit of the input moves every bit of it. */
static uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static uint64_t canary_of(const vmki_heap *heap, uintptr_t address, bool live)
{
    return mixed(heap->objects.secret + address + (live ? 1 : 0)) | 1; /* never 0, which is what free slots hold */
}

static unsigned char *canary_at(unsigned size_class, void *object)
{
    return (unsigned char *)object + vmki_class_size(size_class) - VMKI_CANARY_SIZE;
}

/* In halves that are atomic: whoever counts objects looks at those of others. To tools all of a slot that is not to be
 * used is closed, canaries always. */
VMKI_UNWATCHED static void canary_set(unsigned size_class, void *object, uint64_t value)
{
    uint32_t *halves = (uint32_t *)(void *)canary_at(size_class, object);
    vmki_tools_quiet();
    VMKI_STORE_RELAXED(&halves[0], (uint32_t)value);
    VMKI_STORE_RELAXED(&halves[1], (uint32_t)(value >> 32));
    vmki_tools_loud();
}

VMKI_UNWATCHED static uint64_t canary_get(unsigned size_class, void *object)
{
    const uint32_t *halves = (const uint32_t *)(const void *)canary_at(size_class, object);
    vmki_tools_quiet();
    uint64_t canary = VMKI_LOAD_RELAXED(&halves[0]) | (uint64_t)VMKI_LOAD_RELAXED(&halves[1]) << 32;
    vmki_tools_loud();
    return canary;
}

/* Of memory that is free, or kept back. */
static bool is_zero(const unsigned char *bytes, size_t size)
{
    vmki_tools_open(bytes, size);
    bool zero = bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
    vmki_tools_close(bytes, size);
    return zero;
}

static void clear(void *bytes, size_t size)
{
    vmki_tools_open(bytes, size);
    memset(bytes, 0, size);
    vmki_tools_close(bytes, size);
}

bool vmki_hardened_kept_back(const vmki_heap *heap, const vmki_slab *span, uintptr_t address)
{
    return canary_get(span->size_class, (void *)address) == canary_of(heap, address, false);
}

bool vmki_hardened_in_use(vmki_heap *heap, uintptr_t address)
{
    vmki_heap_lock(heap);
    const vmki_slab *span = vmki_slab_find(heap, address);
    uintptr_t keeper = span != NULL ? vmki_keeper(span) : 0;
    bool in_use = keeper != 0 && keeper != VMKI_KEEPER_LARGE && vmki_object_begins(heap, address) &&
                  !vmki_hardened_kept_back(heap, span, address);
    vmki_heap_unlock(heap);
    return in_use;
}

/* A slot of the class. Those that were at hand go back, but for one, chosen at random; the stack is empty again. */
static void *random_slot(vmk_cache *cache, unsigned size_class)
{
    vmki_stack *stack = &cache->stack[size_class];
    void *slots[VMKI_STACK_MOST];
    unsigned count = 0;
    if (vmki_cache_refill(cache, size_class) != VMK_OK)
        return NULL;
    while (*stack->top != NULL) {
        slots[count++] = *stack->top;
        vmki_tools_forget(stack->top--);
    }
    unsigned chosen = (unsigned)(mixed(cache->random++) % count);
    for (unsigned i = 0; i < count; i++)
        if (i != chosen)
            vmki_slab_put(cache, slots[i]);
    return slots[chosen];
}

void *vmki_hardened_alloc(vmk_cache *cache, size_t size)
{
    unsigned size_class = vmki_class_of(size + VMKI_CANARY_SIZE);
    unsigned char *object = random_slot(cache, size_class);
    if (object == NULL)
        return NULL;
    if (!is_zero(object, vmki_class_size(size_class)))
        vmki_object_crime("vmk_heap_alloc: memory was written to after it was freed", object);
    size_t *word = vmki_objects_word(cache->heap, (uintptr_t)object);
    VMKI_STORE_RELAXED(word, VMKI_LOAD_RELAXED(word) | vmki_bit_of((uintptr_t)object));
    canary_set(size_class, object, canary_of(cache->heap, (uintptr_t)object, true));
    return vmki_tools_alloc(cache->heap, object, size, vmki_class_size(size_class) - VMKI_CANARY_SIZE, false);
}

/* Now it is free. */
static void let_go(vmki_heap *heap, vmk_cache *cache, uintptr_t address)
{
    vmki_slab *span = vmki_slab_of(heap, address);
    unsigned char *object = (unsigned char *)address;
    if (!is_zero(object, vmki_class_size(span->size_class) - VMKI_CANARY_SIZE) ||
        canary_get(span->size_class, object) != canary_of(heap, address, false))
        vmki_object_crime("vmk_heap_free: memory was written to after it was freed", object);
    canary_set(span->size_class, object, 0);
    vmki_slab_free(heap, cache, span, address);
}

void vmki_hardened_free(vmki_heap *heap, vmk_cache *cache, vmki_slab *span, void *object)
{
    uintptr_t address = (uintptr_t)object;
    if (!vmki_object_begins(heap, address))
        vmki_object_crime("vmk_heap_free: object was freed before, or is none", object);
    uint64_t canary = canary_get(span->size_class, object);
    bool freed = (VMKI_LOAD_RELAXED(vmki_remote_word(heap, address)) & vmki_bit_of(address)) != 0; /* for good */
    if (freed || canary == canary_of(heap, address, false))
        vmki_object_crime("vmk_heap_free: object was freed before", object);
    if (canary != canary_of(heap, address, true))
        vmki_object_crime("vmk_heap_free: object was written past its end", object);
    vmki_tools_free(heap, object, vmki_class_size(span->size_class));
    clear(object, vmki_class_size(span->size_class) - VMKI_CANARY_SIZE);
    canary_set(span->size_class, object, canary_of(heap, address, false));
    if (cache != NULL) {
        uintptr_t *place = &cache->quarantine[cache->quarantine_next++ % VMKI_QUARANTINE];
        uintptr_t oldest = *place;
        *place = address;
        address = oldest;
    }
    if (address != 0)
        let_go(heap, cache, address);
}

void vmki_hardened_flush(vmk_cache *cache)
{
    for (unsigned i = 0; i < VMKI_QUARANTINE && cache->hardened; i++) {
        uintptr_t address = cache->quarantine[i];
        cache->quarantine[i] = 0;
        if (address != 0)
            let_go(cache->heap, cache, address);
    }
}
