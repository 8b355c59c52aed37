/* SPDX-License-Identifier: MIT
 *
 * Objects: what concerns whole heaps. Figures and walks against what the test has allocated; limits, and who is asked
 * when memory is out; ends of heaps; many heaps; caches; giving back.
 */
#include <stdlib.h>
#include <string.h>

#include "common/heap/object.h"
#include "object_kinds.h"
#include "support.h"

/* --- heaps ------------------------------------------------------------------------------------------------------ */

static vmk_stats before;

static vmk_heap *heap_make(const vmk_heap_options *options)
{
    vmk_heap *heap = NULL;
    vmk_stats_now(&before);
    ck_assert_int_eq(heap_create(&heap, options), VMK_OK);
    return heap;
}

static vmk_heap_options options_of_kind(int kind)
{
    return (vmk_heap_options){
        .layout = layouts[kind % LAYOUTS], .flags = kind < LAYOUTS ? 0 : VMK_HEAP_HARDENED, .window = WINDOW};
}

static vmk_heap *heap_of_kind(int kind)
{
    vmk_heap_options options = options_of_kind(kind);
    return heap_make(&options);
}

static bool hardened(vmk_heap *heap)
{
    return (vmki_heap_of(heap)->options.flags & VMK_HEAP_HARDENED) != 0;
}

static void nothing_is_left(void)
{
    vmk_stats after;
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.regions, before.regions);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.committed, before.committed);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

static void heap_end(vmk_heap *heap)
{
    ck_assert(vmki_objects_check(heap));
    vmk_heap_destroy(heap);
    nothing_is_left();
}

/* The library keeps memory for threads for good: have it taken before anything is counted. */
static void prepare(void)
{
    vmk_heap *heap = heap_of_kind(0);
    ck_assert_ptr_nonnull(vmk_heap_alloc(heap, 1));
    vmk_heap_destroy(heap);
}

static vmk_object_stats objects_of(vmk_heap *heap)
{
    vmk_object_stats stats;
    vmk_object_stats_now(heap, NULL, &stats);
    return stats;
}

static vmk_heap_stats figures_of(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats;
}

/* --- figures and walks ------------------------------------------------------------------------------------------ */

enum { LIVE_MOST = 3000 };

typedef struct live {
    unsigned char *object;
    size_t usable;
    unsigned size_class;
} live;

static struct population {
    vmk_heap *heap;
    live objects[LIVE_MOST];
    size_t count;
    size_t visited;
    size_t stop_at;
    bool agrees;
} population;

static int by_address(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)((const live *)a)->object, right = (uintptr_t)((const live *)b)->object;
    return left < right ? -1 : left > right;
}

static bool visited(void *context, void *object, size_t usable)
{
    struct population *p = context;
    const live *expected = &p->objects[p->visited];
    p->agrees &= p->visited < p->count && expected->object == object && expected->usable == usable;
    p->visited++;
    return p->visited != p->stop_at;
}

static void walk_agrees(struct population *p)
{
    qsort(p->objects, p->count, sizeof(live), by_address);
    p->stop_at = 0;
    p->visited = 0;
    p->agrees = true;
    vmk_object_walk(p->heap, visited, p);
    ck_assert(p->agrees);
    ck_assert_uint_eq(p->visited, p->count);
    p->stop_at = 1 + p->count / 2;
    p->visited = 0;
    vmk_object_walk(p->heap, visited, p);
    ck_assert_uint_eq(p->visited, vmki_min(p->stop_at, p->count));
}

static void stats_agree(const struct population *p)
{
    size_t objects[VMK_CLASSES] = {0}, bytes[VMK_CLASSES] = {0}, all = 0;
    vmk_object_stats stats = objects_of(p->heap);
    for (size_t i = 0; i < p->count; i++) {
        const live *l = &p->objects[i];
        objects[l->size_class]++;
        bytes[l->size_class] += l->size_class == 0 ? l->usable : vmki_class_size(l->size_class);
    }
    for (unsigned c = 0; c < VMK_CLASSES; c++) {
        MUST(stats.by_class[c].objects == objects[c] && stats.by_class[c].bytes == bytes[c]);
        MUST(stats.by_class[c].size == (c == 0 ? 0 : vmki_class_size(c)));
        MUST(stats.by_class[c].span_bytes >= bytes[c] && (objects[c] == 0 || stats.by_class[c].spans != 0));
        all += bytes[c];
    }
    ck_assert_uint_eq(stats.sum.objects, p->count);
    ck_assert_uint_eq(stats.sum.bytes, all);
}

static void populate(struct population *p, size_t count, size_t most, support_random *random)
{
    for (size_t i = 0; i < count; i++) {
        size_t size = support_random_below(random, most);
        live l = {.object = vmk_heap_alloc(p->heap, size)};
        MUST(l.object != NULL && p->count < LIVE_MOST);
        l.usable = vmk_heap_usable_size(p->heap, l.object);
        size_t slot = l.usable + (hardened(p->heap) ? VMKI_CANARY_SIZE : 0);
        l.size_class = slot <= SMALL_MAX && l.usable % PAGE != 0 ? vmki_class_of(slot) : 0;
        if (slot <= SMALL_MAX && !hardened(p->heap)) /* of 8 KiB's multiples the size tells nothing */
            l.size_class = vmki_class_of(slot);
        p->objects[p->count++] = l;
    }
}

static void depopulate(struct population *p, size_t rest, support_random *random)
{
    while (p->count > rest) {
        size_t i = support_random_below(random, p->count);
        vmk_heap_free(p->heap, p->objects[i].object);
        p->objects[i] = p->objects[--p->count];
    }
}

START_TEST(figures_and_walks_agree_with_what_was_allocated)
{
    struct population *p = &population;
    support_random random = support_random_start((uint64_t)_i);
    *p = (struct population){.heap = heap_of_kind(_i)};
    stats_agree(p);
    walk_agrees(p);
    static const size_t most[] = {100, 3000, SMALL_MAX, 300 * KIB};
    static const size_t counts[] = {1500, 600, 100, 20};
    for (size_t i = 0; i < 4; i++) {
        populate(p, counts[i], most[i], &random);
        stats_agree(p);
        walk_agrees(p);
        depopulate(p, p->count / 2, &random);
        stats_agree(p);
        walk_agrees(p);
    }
    vmk_object_stats own;
    vmk_object_stats_now(p->heap, vmk_cache_attach(p->heap), &own); /* there is no other cache */
    ck_assert_uint_eq(own.sum.objects + objects_of(p->heap).by_class[0].objects, p->count);
    depopulate(p, 0, &random);
    stats_agree(p);
    walk_agrees(p);
    heap_end(p->heap);
}
END_TEST

/* Large objects alone, with no cache in the heap; and huge ones, which may lie between a heap's regions. */
START_TEST(large_objects_alone_are_seen)
{
    struct population *p = &population;
    vmk_heap_options options = options_of_kind(_i);
    options.hint = (uintptr_t)p & ~(uintptr_t)(4 * MIB - 1); /* taken */
    *p = (struct population){.heap = heap_make(&options)};
    support_random random = support_random_start(1);
#ifndef VMKIT_MODEL
    size_t sizes[] = {100 * KIB, 32 * MIB, 33 * MIB, SMALL_MAX + 1, 40 * MIB, 500 * KIB};
#else
    size_t sizes[] = {100 * KIB, 32 * MIB, SMALL_MAX + 1, 500 * KIB};
#endif
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        live l = {.object = vmk_heap_alloc(p->heap, sizes[i])};
        ck_assert_ptr_nonnull(l.object);
        l.usable = vmk_heap_usable_size(p->heap, l.object);
        p->objects[p->count++] = l;
        stats_agree(p);
        walk_agrees(p);
    }
    ck_assert_uint_eq(objects_of(p->heap).caches, 0);
    depopulate(p, 2, &random);
    stats_agree(p);
    walk_agrees(p);
    heap_end(p->heap);
}
END_TEST

/* --- ends ------------------------------------------------------------------------------------------------------- */

START_TEST(a_heap_ends_with_all_its_objects)
{
    static const size_t sizes[] = {10, 5000, 100 * KIB, 33 * MIB};
    for (unsigned which = 0; which < 16; which++) {
        vmk_heap *heap = heap_of_kind(_i);
        for (unsigned i = 0; i < 4; i++)
            for (unsigned n = 0; n < (i < 3 ? 100u : 2u) && (which >> i & 1) != 0; n++)
                MUST(vmk_heap_alloc(heap, sizes[i]) != NULL);
        heap_end(heap);
    }
}
END_TEST

START_TEST(heaps_do_not_know_each_other)
{
    vmk_heap_options options = options_of_kind(_i);
    options.layout = VMK_LAYOUT_64;
    vmk_heap *two = heap_make(&options); /* first, lest it lie in the other's window */
    vmk_stats at_first = before;
    vmk_heap *one = heap_of_kind(_i);
    before = at_first;
    for (size_t size = 1; size < MIB; size *= 3) {
        void *mine = vmk_heap_alloc(one, size), *other = vmk_heap_alloc(two, size);
        MUST(mine != NULL && other != NULL && vmk_heap_owns(one, mine) && vmk_heap_owns(two, other));
        MUST(!vmk_heap_owns(one, other) && !vmk_heap_owns(two, mine));
        memset(mine, 1, size);
        memset(other, 2, size);
    }
    ck_assert_uint_eq(objects_of(one).sum.objects, objects_of(two).sum.objects);
    ck_assert(vmki_objects_check(one) && vmki_objects_check(two));
    vmk_heap_destroy(two);
    ck_assert_ptr_nonnull(vmk_heap_alloc(one, 10));
    heap_end(one);
}
END_TEST

/* Those beyond the limit have no small objects, until another heap ends. (The model has no room for so many.) */
START_TEST(more_heaps_than_have_numbers)
{
#ifndef VMKIT_MODEL
    enum { COUNT = VMKI_OBJECT_HEAPS + 4 };
    static vmk_heap *heaps[COUNT];
    size_t served = 0;
    vmk_heap_options options = {.layout = VMK_LAYOUT_LIMITED, .window = 4 * MIB};
    vmk_stats at_first;
    vmk_stats_now(&at_first);
    for (size_t i = 0; i < COUNT; i++) {
        heaps[i] = heap_make(&options);
        served += vmk_heap_alloc(heaps[i], 10) != NULL;
        MUST(vmk_heap_alloc(heaps[i], 40 * KIB) != NULL);
    }
    ck_assert_uint_ge(served, VMKI_OBJECT_HEAPS - 2);
    ck_assert_uint_lt(served, COUNT);
    ck_assert_ptr_null(vmk_cache_attach(heaps[COUNT - 1]));
    ck_assert_ptr_null(vmk_heap_alloc(heaps[COUNT - 1], 10));
    ck_assert_uint_eq(objects_of(heaps[COUNT - 1]).sum.objects, 1);
    vmk_heap_destroy(heaps[5]);
    ck_assert_ptr_nonnull(vmk_heap_alloc(heaps[COUNT - 1], 10));
    ck_assert_uint_eq(objects_of(heaps[COUNT - 1]).sum.objects, 2);
    before = at_first;
    for (size_t i = 0; i < COUNT; i++) {
        if (i == 5)
            continue;
        MUST(vmki_objects_check(heaps[i]));
        vmk_heap_destroy(heaps[i]);
    }
    nothing_is_left();
#endif
}
END_TEST

/* The last test of all: there is no end to the default heap. (It is none that the model has room for.) */
START_TEST(the_default_heap)
{
#ifndef VMKIT_MODEL
    vmk_heap *heap = vmk_heap_default();
    ck_assert_ptr_nonnull(heap);
    ck_assert_ptr_eq(vmk_heap_default(), heap);
    void *object = vmk_heap_alloc(NULL, 100), *large = vmk_heap_alloc_zeroed(NULL, 100 * KIB);
    ck_assert(vmk_heap_owns(heap, object) && vmk_heap_owns(NULL, large));
    ck_assert_uint_eq(vmki_heap_of(heap)->objects.number, VMKI_NUMBER_DEFAULT);
    ck_assert_ptr_eq(vmk_cache_attach(NULL), vmk_cache_attach(heap));
    object = vmk_heap_realloc(NULL, object, 5000);
    ck_assert_uint_ge(vmk_heap_usable_size(NULL, object), 5000);
    ck_assert_uint_eq(objects_of(NULL).sum.objects, 2);
    vmk_heap_free_sized(NULL, object, 5000);
    vmk_heap_free(NULL, large);
    void *aligned = vmk_heap_alloc_aligned(NULL, 5, 4096);
    ck_assert_uint_eq((uintptr_t)aligned % 4096, 0);
    vmk_heap_free(heap, aligned);
    ck_assert_uint_gt(vmk_heap_trim(NULL), 0);
    vmk_cache_detach(NULL);
    ck_assert(vmki_objects_check(heap));
#endif
}
END_TEST

/* --- out of memory ---------------------------------------------------------------------------------------------- */

enum { HOARD_MOST = 100000 };

static struct hoard {
    void *objects[HOARD_MOST];
    size_t count;
    size_t size;   /* of one */
    size_t frees;  /* at a time, when asked */
    size_t grants; /* that many more times it answers true */
    size_t asked;
    size_t asked_for;
    vmk_status why;
    bool trims;
} hoard;

static bool make_room(void *context, vmk_heap *heap, size_t size, vmk_status why)
{
    struct hoard *h = context;
    h->asked++;
    h->asked_for = size;
    h->why = why;
    for (size_t i = 0; i < h->frees && h->count > 0; i++)
        vmk_heap_free(heap, h->objects[--h->count]);
    if (h->trims)
        (void)vmk_heap_trim(heap);
    return h->grants != 0 && h->grants-- != 0;
}

/* Until there is no more. */
static size_t fill_up(vmk_heap *heap, struct hoard *h, size_t size)
{
    h->count = 0;
    h->size = size;
    while (h->count < HOARD_MOST) {
        void *object = vmk_heap_alloc(heap, size);
        if (object == NULL)
            break;
        memset(object, 0x55, vmki_min(size, 100));
        h->objects[h->count++] = object;
    }
    return h->count;
}

static void free_all(vmk_heap *heap, struct hoard *h)
{
    while (h->count > 0)
        vmk_heap_free(heap, h->objects[--h->count]);
}

/* Nobody is asked: NULL, what is there is unharmed, and when it is freed as much can be had again. */
static void is_full_again(vmk_heap *heap, size_t size, size_t limit, size_t too_large)
{
    size_t count = fill_up(heap, &hoard, size);
    ck_assert_uint_gt(count, 0);
    ck_assert_uint_lt(count, HOARD_MOST);
    ck_assert(vmki_objects_check(heap));
    vmk_heap_stats stats = figures_of(heap);
    ck_assert_uint_le(stats.in_use, limit);
    ck_assert_ptr_null(vmk_heap_alloc_zeroed(heap, size));
    ck_assert_ptr_null(vmk_heap_realloc(heap, hoard.objects[0], too_large));
    ck_assert(vmk_heap_owns(heap, hoard.objects[0]));
    free_all(heap, &hoard);
    (void)vmk_heap_trim(heap);
    ck_assert_uint_ge(fill_up(heap, &hoard, size) + 200, count); /* what a hardened heap keeps back */
    free_all(heap, &hoard);
    (void)vmk_heap_trim(heap);
    ck_assert(vmki_objects_check(heap));
}

START_TEST(a_limit_holds)
{
    vmk_heap_options options = options_of_kind(_i);
    options.limit = 4 * MIB;
    vmk_heap *heap = heap_make(&options);
    is_full_again(heap, 1000, options.limit, options.limit);
    is_full_again(heap, 30000, options.limit, options.limit);
    is_full_again(heap, 100 * KIB, options.limit, options.limit);
    ck_assert_ptr_null(vmk_heap_alloc(heap, 4 * MIB)); /* the cache has some of it */
    ck_assert_ptr_null(vmk_heap_alloc(heap, 40 * MIB));
    ck_assert_ptr_null(vmk_heap_alloc_aligned(heap, 4 * MIB, 1 * MIB));
    ck_assert_ptr_nonnull(vmk_heap_alloc(heap, 3 * MIB));
    heap_end(heap);
}
END_TEST

START_TEST(a_window_may_be_full)
{
    vmk_heap_options options = {.layout = _i % 2 == 0 ? VMK_LAYOUT_64 : VMK_LAYOUT_LIMITED,
                                .flags = _i < 2 ? 0 : VMK_HEAP_HARDENED,
                                .window = 4 * MIB};
    size_t too_large = sizeof too_large == 8 ? SIZE_MAX / 4 : SIZE_MAX / 2 + 1; /* for its own reservation, too */
    vmk_heap *heap = heap_make(&options);
    is_full_again(heap, 1000, options.window, too_large);
    is_full_again(heap, 30000, options.window, too_large);
    ck_assert_ptr_nonnull(vmk_heap_alloc(heap, 5 * MIB)); /* then outside it */
    heap_end(heap);
}
END_TEST

static vmk_heap *heap_that_asks(int kind, size_t limit)
{
    vmk_heap_options options = options_of_kind(kind);
    options.limit = limit;
    options.on_exhausted = make_room;
    options.on_exhausted_context = &hoard;
    hoard = (struct hoard){0};
    return heap_make(&options);
}

START_TEST(who_gives_up_gets_nothing)
{
    static const size_t sizes[] = {100, 20000, 100 * KIB};
    for (size_t s = 0; s < 3; s++) {
        vmk_heap *heap = heap_that_asks(_i, 3 * MIB);
        fill_up(heap, &hoard, sizes[s]);
        ck_assert_uint_ge(hoard.asked, 1);
        ck_assert_int_eq(hoard.why, VMK_ERR_LIMIT);
        ck_assert_uint_ge(hoard.asked_for, sizes[s]);
        hoard.asked = 0;
        hoard.grants = 3; /* and tries again in vain */
        ck_assert_ptr_null(vmk_heap_alloc(heap, sizes[s]));
        ck_assert_uint_ge(hoard.asked, 4);
        ck_assert(vmki_objects_check(heap));
        heap_end(heap);
    }
}
END_TEST

/* Whatever is freed meanwhile: nothing, as much as fits where it is wanted, or more than that. */
START_TEST(who_makes_room_gets_it)
{
    static const size_t sizes[] = {16, 100, 2000, 20000, 100 * KIB};
    for (size_t s = 0; s < 5; s++) {
        vmk_heap *heap = heap_that_asks(_i, s < 2 ? 1 * MIB : 3 * MIB);
        for (size_t frees = 1; frees < 3000; frees = frees * 2 + 1) {
            hoard.frees = hoard.grants = 0;
            fill_up(heap, &hoard, sizes[s]);
            hoard.frees = frees;
            hoard.grants = 1;
            hoard.trims = frees % 3 == 0;
            void *object = vmk_heap_alloc(heap, sizes[s]);
            MUST(frees < 2999 && hoard.count > 0 ? true : object != NULL);
            hoard.grants = 100000; /* as often as it takes */
            hoard.asked = 0;
            for (int i = 0; i < 100; i++) {
                void *other = vmk_heap_alloc(heap, sizes[s]);
                MUST(other != NULL);
                memset(other, 0xaa, vmki_min(sizes[s], 2000));
                MUST(i % 16 != 0 || vmki_objects_check(heap));
                if (hoard.count + 1 < HOARD_MOST)
                    hoard.objects[hoard.count++] = other;
            }
            if (object != NULL)
                vmk_heap_free(heap, object);
            free_all(heap, &hoard);
            (void)vmk_heap_trim(heap);
            ck_assert(vmki_objects_check(heap));
        }
        heap_end(heap);
    }
}
END_TEST

/* A huge object, and one larger than the window, where room comes from an object like it. */
START_TEST(room_is_made_for_huge_objects)
{
    vmk_heap_options options = {.layout = VMK_LAYOUT_LIMITED, .window = 8 * MIB, .limit = 50 * MIB};
    size_t size = _i == 0 ? 33 * MIB : 9 * MIB;
    options.on_exhausted = make_room;
    options.on_exhausted_context = &hoard;
    hoard = (struct hoard){0};
    vmk_heap *heap = heap_make(&options);
    fill_up(heap, &hoard, size);
    ck_assert_uint_eq(hoard.count, 50 * MIB / (size + PAGE));
    ck_assert_uint_ge(hoard.asked, 1);
    hoard.asked = 0;
    hoard.frees = hoard.grants = 1;
    ck_assert_ptr_nonnull(vmk_heap_alloc(heap, size));
    ck_assert_uint_eq(hoard.asked, 1);
    heap_end(heap);
}
END_TEST

/* --- caches ----------------------------------------------------------------------------------------------------- */

START_TEST(caches_by_handle)
{
    vmk_heap *heap = heap_of_kind(_i);
    vmk_cache *cache = vmk_cache_attach(heap);
    ck_assert_ptr_nonnull(cache);
    ck_assert_ptr_eq(vmk_cache_attach(heap), cache);
    ck_assert_uint_eq(objects_of(heap).caches, 1);
    for (size_t size = 0; size < 40 * MIB; size += 1 + size / 2) {
        void *object = vmk_cache_alloc(cache, size);
        MUST(object != NULL && vmk_heap_owns(heap, object) && vmk_heap_usable_size(heap, object) >= size);
        if (size % 2 == 0)
            vmk_cache_free(cache, object);
        else
            vmk_heap_free(heap, object);
    }
    vmk_cache_free(cache, NULL);
    ck_assert_uint_eq(objects_of(heap).sum.objects, 0);
    vmk_cache_detach(heap);
    ck_assert_uint_eq(objects_of(heap).caches, 0);
    vmk_cache_detach(heap);
    heap_end(heap);
}
END_TEST

/* Attaching and detaching over and over takes no more than once: with objects alive, too. */
START_TEST(detaching_leaves_orphans_that_live_on)
{
    enum { COUNT = 400 };
    vmk_heap *heap = heap_of_kind(_i);
    void *objects[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        objects[i] = vmk_heap_alloc(heap, i * 13 % 2000);
        MUST(objects[i] != NULL);
        memset(objects[i], (int)i | 1, i * 13 % 2000);
    }
    size_t cache_bytes = objects_of(heap).cache_bytes, spans = objects_of(heap).sum.spans;
    for (size_t i = 0; i < COUNT; i++) {
        vmk_cache_detach(heap);
        vmk_object_stats stats = objects_of(heap);
        MUST(stats.sum.objects == COUNT && stats.caches == 0 && stats.orphans != 0);
        if (i % 50 == 0)
            ck_assert(vmki_objects_check(heap));
        vmk_heap_free(heap, objects[i]); /* by a thread without a cache */
        objects[i] = vmk_heap_alloc(heap, i * 13 % 2000);
        memset(objects[i], (int)i | 1, i * 13 % 2000);
    }
    vmk_object_stats stats = objects_of(heap);
    ck_assert_uint_eq(stats.cache_bytes, cache_bytes);
    ck_assert_uint_le(stats.sum.spans, 2 * spans);
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < i * 13 % 2000; k++)
            MUST(((unsigned char *)objects[i])[k] == (unsigned char)(i | 1));
        vmk_heap_free(heap, objects[i]);
    }
    ck_assert_uint_eq(objects_of(heap).sum.objects, 0);
    heap_end(heap);
}
END_TEST

/* --- giving back ------------------------------------------------------------------------------------------------ */

/* As the system sees it; 0: it does not say. The model's pages are always there. */
static size_t resident(vmk_heap *heap)
{
#ifdef VMKIT_MODEL
    (void)heap;
    return 0;
#else
    support_figures figures;
    vmk_heap_stats stats = figures_of(heap);
    if (stats.part[VMK_HEAP_ARENA].base == 0 || !support_system_figures((const void *)stats.part[VMK_HEAP_ARENA].base,
                                                                        stats.part[VMK_HEAP_ARENA].reserved, &figures))
        return 0;
    return figures.resident;
#endif
}

START_TEST(trim_returns_what_is_free)
{
    vmk_heap *heap = heap_of_kind(_i);
    size_t count = 0, most = hardened(heap) ? 6000 : 20000; /* a guard may be eight times as large as a slab */
    while (count < most) {
        size_t size = 1 + count * 7 % 900;
        void *object = vmk_heap_alloc(heap, size);
        MUST(object != NULL);
        memset(object, 0xdd, size);
        hoard.objects[count++] = object;
    }
    size_t held = figures_of(heap).in_use, resident_before = resident(heap);
    ck_assert_uint_gt(held, most * 400);
    hoard.count = count;
    free_all(heap, &hoard);
    ck_assert_uint_gt(vmk_heap_trim(heap), held / 2);
    vmk_heap_stats stats = figures_of(heap);
    ck_assert_uint_le(stats.idle, VMK_HEAP_PAGE_SIZE * 8); /* less than a page of the system */
    vmk_object_stats objects = objects_of(heap);
    ck_assert_uint_eq(objects.sum.objects, 0);
    if (!hardened(heap)) {
        ck_assert_uint_eq(objects.sum.spans, 0);
        ck_assert_uint_eq(stats.in_use, objects.cache_bytes);
    }
    size_t resident_after = resident(heap);
    ck_assert(resident_before == 0 || resident_after < resident_before / 2);
    heap_end(heap);
}
END_TEST

static void allocate_and_end(void *argument, unsigned number)
{
    (void)number;
    for (size_t i = 0; i < 1000; i++)
        hoard.objects[i] = vmk_heap_alloc(argument, 500);
}

/* A thread that has no cache gives back what those have left that have ended, and has none afterwards. */
START_TEST(trim_knows_of_orphans)
{
    vmk_heap *heap = heap_of_kind(_i);
    support_threads(1, allocate_and_end, heap);
    ck_assert_uint_gt(objects_of(heap).orphans, 0);
    for (size_t i = 0; i < 1000; i++) {
        MUST(hoard.objects[i] != NULL);
        vmk_heap_free(heap, hoard.objects[i]);
    }
    ck_assert_uint_eq(objects_of(heap).sum.objects, 0);
    ck_assert_uint_gt(vmk_heap_trim(heap), 500000);
    vmk_object_stats stats = objects_of(heap);
    ck_assert_uint_eq(stats.sum.spans, 0);
    ck_assert_uint_eq(stats.orphans, 0);
    ck_assert_uint_eq(stats.caches, 0);
    heap_end(heap);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_heaps");
    TCase *tests = tcase_create("object_heaps");
    tcase_set_timeout(tests, 300);
    tcase_add_unchecked_fixture(tests, prepare, NULL);
    tcase_add_loop_test(tests, figures_and_walks_agree_with_what_was_allocated, 0, KINDS);
    tcase_add_loop_test(tests, large_objects_alone_are_seen, 0, KINDS);
    tcase_add_loop_test(tests, a_heap_ends_with_all_its_objects, 0, KINDS);
    tcase_add_loop_test(tests, heaps_do_not_know_each_other, 0, KINDS);
    tcase_add_test(tests, more_heaps_than_have_numbers);
    tcase_add_loop_test(tests, a_limit_holds, 0, KINDS);
    tcase_add_loop_test(tests, a_window_may_be_full, 0, 4);
    tcase_add_loop_test(tests, who_gives_up_gets_nothing, 0, KINDS);
    tcase_add_loop_test(tests, who_makes_room_gets_it, 0, KINDS);
    tcase_add_loop_test(tests, room_is_made_for_huge_objects, 0, 2);
    tcase_add_loop_test(tests, caches_by_handle, 0, KINDS);
    tcase_add_loop_test(tests, detaching_leaves_orphans_that_live_on, 0, KINDS);
    tcase_add_loop_test(tests, trim_returns_what_is_free, 0, KINDS);
    tcase_add_loop_test(tests, trim_knows_of_orphans, 0, KINDS);
    tcase_add_test(tests, the_default_heap);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
