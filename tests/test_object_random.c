/* SPDX-License-Identifier: MIT
 *
 * Objects, in heaps of all kinds: a million random operations against an ordered map of what is alive, which knows
 * where each lies, what it holds, and what it may use.
 */
#include <string.h>

#include "common/heap/object.h"
#include "heap_create.h"
#include "support.h"

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* The model OS has 256 MiB of address space. */
#ifdef VMKIT_MODEL
#define WINDOW (32 * MIB)
#define BYTES_MOST (10 * MIB)
enum { STEPS = 20000 };
#else
#define WINDOW (256 * MIB)
#define BYTES_MOST (64 * MIB)
enum { STEPS = 200000 };
#endif

enum { LIVE_MOST = 4000, SHOWN = 64 };

static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0], KINDS = 2 * LAYOUTS };

/* --- the ordered map -------------------------------------------------------------------------------------------- */

typedef struct live {
    unsigned char *object;
    size_t size;
    size_t usable;
    uint8_t salt;
} live;

static struct world {
    vmk_heap *heap;
    bool hardened;
    live objects[LIVE_MOST];
    size_t count;
    size_t count_most;
    size_t bytes;
    size_t size_bits; /* sizes are below 1 << this */
    uintptr_t stale[64];
    size_t walked;
    bool walk_agrees;
    support_random random;
} w;

static size_t below(size_t limit)
{
    return support_random_below(&w.random, limit);
}

/* The first that ends behind the address. */
static size_t live_above(uintptr_t address)
{
    size_t low = 0, high = w.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uintptr_t)w.objects[middle].object + w.objects[middle].usable > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void live_insert(live l)
{
    size_t at = live_above((uintptr_t)l.object);
    MUST(at == w.count || l.object + l.usable <= w.objects[at].object); /* no overlap */
    memmove(&w.objects[at + 1], &w.objects[at], (w.count++ - at) * sizeof(live));
    w.objects[at] = l;
    w.bytes += l.usable;
}

static live live_remove(size_t at)
{
    live l = w.objects[at];
    memmove(&w.objects[at], &w.objects[at + 1], (--w.count - at) * sizeof(live));
    w.bytes -= l.usable;
    w.stale[below(64)] = (uintptr_t)l.object;
    return l;
}

/* --- contents: the first bytes, and the last ones that may be used -------------------------------------------------
 */

static unsigned char pattern(uint8_t salt, size_t i)
{
    return (unsigned char)(salt + i * 13) | 1;
}

static void fill(const live *l)
{
    size_t shown = vmki_min(l->usable, SHOWN);
    for (size_t i = 0; i < shown; i++) {
        l->object[l->usable - 1 - i] = pattern(l->salt, l->usable - 1 - i);
    }
    for (size_t i = 0; i < shown; i++)
        l->object[i] = pattern(l->salt, i);
}

/* Of the first `limit` bytes, those that were filled. */
static bool filled(const unsigned char *object, const live *l, size_t limit)
{
    size_t shown = vmki_min(l->usable, SHOWN);
    for (size_t i = 0; i < vmki_min(shown, limit); i++)
        if (object[i] != pattern(l->salt, i))
            return false;
    for (size_t i = l->usable - shown; i < vmki_min(l->usable, limit); i++)
        if (object[i] != pattern(l->salt, i))
            return false;
    return true;
}

static bool all_zero(const unsigned char *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* --- steps ------------------------------------------------------------------------------------------------------ */

static void adopt(unsigned char *object, size_t size, size_t align)
{
    MUST(object != NULL && (uintptr_t)object % align == 0 && (uintptr_t)object % VMK_OBJECT_ALIGN == 0);
    live l = {object, size, vmk_heap_usable_size(w.heap, object), (uint8_t)below(256)};
    MUST(l.usable >= size && l.usable >= 8);
    live_insert(l);
    fill(&l);
}

static size_t any_size(void)
{
#ifndef VMKIT_MODEL
    if (w.size_bits > 16 && below(10000) == 0)
        return 32 * MIB + below(2 * MIB);
#endif
    return below((size_t)1 << (1 + below(w.size_bits)));
}

static void step_alloc(void)
{
    size_t size = any_size(), align = VMK_OBJECT_ALIGN;
    unsigned char *object;
    switch (below(8)) {
    case 0:
    case 1:
        object = vmk_heap_alloc_zeroed(w.heap, size);
        MUST(object != NULL && all_zero(object, size));
        break;
    case 2:
        align = (size_t)1 << below(w.size_bits > 16 && below(16) == 0 ? 19 : 14);
        object = vmk_heap_alloc_aligned(w.heap, size, align);
        break;
    case 3:
        object = vmk_cache_alloc(vmk_cache_attach(w.heap), size);
        break;
    case 4:
        object = vmk_heap_realloc(w.heap, NULL, size);
        break;
    default:
        object = vmk_heap_alloc(w.heap, size);
        MUST(object == NULL || w.hardened || vmk_heap_usable_size(w.heap, object) == vmk_heap_good_size(size));
    }
    adopt(object, size, align);
}

static void step_free(size_t at)
{
    live l = live_remove(at);
    MUST(filled(l.object, &l, l.usable));
    if (below(4) == 0)
        vmk_heap_free_sized(w.heap, l.object, l.size + below(l.usable - l.size + 1));
    else if (below(4) == 0)
        vmk_cache_free(vmk_cache_attach(w.heap), l.object);
    else
        vmk_heap_free(w.heap, l.object);
}

static void step_realloc(size_t at)
{
    live l = live_remove(at);
    size_t size = below(3) == 0 ? any_size() : below(2 * l.size + 2);
    MUST(filled(l.object, &l, l.usable));
    unsigned char *object = vmk_heap_realloc(w.heap, l.object, size);
    MUST(object != NULL && filled(object, &l, vmki_min(size, l.size)));
    adopt(object, size, 1);
}

static void step_rare(void)
{
    switch (below(40)) {
    case 0:
        vmk_cache_detach(w.heap);
        break;
    case 1:
        (void)vmk_heap_trim(w.heap);
        break;
    case 2:
        (void)vmk_heap_scavenge(w.heap, below(4 * MIB));
        break;
    default:
        break;
    }
}

static void step(void)
{
    size_t kind = below(100), at = w.count == 0 ? 0 : below(w.count);
    bool full = w.count >= w.count_most || w.bytes > BYTES_MOST;
    if (w.count != 0 && (full || kind < 38 || (kind < 45 && w.count > w.count_most / 2)))
        step_free(at);
    else if (kind < 80 || w.count == 0)
        step_alloc();
    else if (kind < 97)
        step_realloc(at);
    else
        step_rare();
}

/* --- asking ----------------------------------------------------------------------------------------------------- */

static bool visited(void *context, void *object, size_t usable)
{
    (void)context;
    w.walk_agrees &= w.walked < w.count && w.objects[w.walked].object == object && w.objects[w.walked].usable == usable;
    w.walked++;
    return true;
}

static void must_be_sound(void)
{
    vmk_object_stats stats;
    ck_assert(vmki_objects_check(w.heap));
    vmk_object_stats_now(w.heap, NULL, &stats);
    ck_assert_uint_eq(stats.sum.objects, w.count);
    w.walked = 0;
    w.walk_agrees = true;
    vmk_object_walk(w.heap, visited, NULL);
    ck_assert(w.walk_agrees);
    ck_assert_uint_eq(w.walked, w.count);
}

static void ask(void)
{
    uintptr_t word = w.stale[below(64)];
    if (w.count != 0 && below(2) == 0) {
        const live *l = &w.objects[below(w.count)];
        MUST(vmk_heap_owns(w.heap, l->object) && vmk_heap_usable_size(w.heap, l->object) == l->usable);
        word = (uintptr_t)l->object + below(l->usable + 32) - 16;
    }
    size_t at = live_above(word);
    MUST(vmk_heap_owns(w.heap, (const void *)word) == (at < w.count && (uintptr_t)w.objects[at].object == word));
}

/* --- worlds ----------------------------------------------------------------------------------------------------- */

static void world_start(int kind, size_t count_most, size_t size_bits)
{
    w = (struct world){.hardened = kind >= LAYOUTS, .count_most = count_most, .size_bits = size_bits};
    w.random = support_random_start((uint64_t)kind * 16 + size_bits);
    vmk_heap_options options = {
        .layout = layouts[kind % LAYOUTS], .flags = w.hardened ? VMK_HEAP_HARDENED : 0, .window = WINDOW};
    ck_assert_int_eq(heap_create(&w.heap, &options), VMK_OK);
#ifdef VMKIT_MODEL
    model_reset(&(model_rules){.junk_on_discard = true});
#endif
}

static void world_end(void)
{
    must_be_sound();
    while (w.count > 0)
        step_free(below(w.count));
    must_be_sound();
    (void)vmk_heap_trim(w.heap);
    vmk_object_stats stats;
    vmk_object_stats_now(w.heap, NULL, &stats);
    ck_assert_uint_eq(stats.sum.spans, 0);
    must_be_sound();
    vmk_heap_destroy(w.heap);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

START_TEST(random_operations_against_an_ordered_map)
{
    size_t steps = support_rounds(STEPS);
    world_start(_i, LIVE_MOST, 20);
    for (size_t i = 0; i < steps; i++) {
        step();
        ask();
        if (i % 8192 == 8191)
            must_be_sound();
    }
    world_end();
}
END_TEST

/* Of few classes, so that slabs fill up and empty again. */
START_TEST(small_objects_alone)
{
    size_t steps = support_rounds(STEPS);
    world_start(_i, LIVE_MOST, 9);
    for (size_t i = 0; i < steps; i++) {
        w.count_most = i / 8000 % 2 == 0 ? LIVE_MOST : 20;
        step();
        ask();
        if (i % 4096 == 4095)
            must_be_sound();
    }
    world_end();
}
END_TEST

START_TEST(every_step_of_a_small_heap_is_sound)
{
    size_t steps = support_rounds(3000);
    world_start(_i, 200, 14);
    for (size_t i = 0; i < steps; i++) {
        step();
        ask();
        must_be_sound();
    }
    world_end();
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_random");
    TCase *tests = tcase_create("object_random");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, random_operations_against_an_ordered_map, 0, KINDS);
    tcase_add_loop_test(tests, small_objects_alone, 0, KINDS);
    tcase_add_loop_test(tests, every_step_of_a_small_heap_is_sound, 0, KINDS);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
