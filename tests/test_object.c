/* SPDX-License-Identifier: MIT
 *
 * Objects: each promise about a single one, or a few. What concerns whole heaps is in test_object_heaps.c; random
 * operations are in test_object_random.c, crimes in test_object_deaths.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/heap/object.h"
#include "object_kinds.h"
#include "support.h"

static size_t good_size_at_first; /* asked before the library was used for anything */

/* --- heaps ------------------------------------------------------------------------------------------------------ */

static vmk_stats before;

static vmk_heap *heap_make(vmk_layout layout, unsigned flags)
{
    vmk_heap *heap = NULL;
    vmk_stats_now(&before);
    vmk_heap_options options = {.layout = layout, .flags = flags, .window = WINDOW};
    ck_assert_int_eq(heap_create(&heap, &options), VMK_OK);
    return heap;
}

static vmk_heap *heap_of_kind(int kind)
{
    return heap_make(layouts[kind % LAYOUTS], kind < LAYOUTS ? 0 : VMK_HEAP_HARDENED);
}

static bool hardened(vmk_heap *heap)
{
    return (vmki_heap_of(heap)->options.flags & VMK_HEAP_HARDENED) != 0;
}

/* Destroy it: nothing is left. */
static void heap_end(vmk_heap *heap)
{
    vmk_stats after;
    ck_assert(vmki_objects_check(heap));
    vmk_heap_destroy(heap);
    vmk_stats_now(&after);
    ck_assert_uint_eq(after.regions, before.regions);
    ck_assert_uint_eq(after.reserved, before.reserved);
    ck_assert_uint_eq(after.committed, before.committed);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

/* The library keeps memory for threads for good: have it taken before anything is counted. */
static void prepare(void)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0);
    ck_assert_ptr_nonnull(vmk_heap_alloc(heap, 1));
    vmk_heap_destroy(heap);
}

/* --- contents --------------------------------------------------------------------------------------------------- */

static unsigned char pattern_at(uintptr_t salt, size_t i)
{
    return (unsigned char)(salt * 31 + i * 7 + (i >> 8)) | 1;
}

static void fill(void *object, size_t size, uintptr_t salt)
{
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)object)[i] = pattern_at(salt, i);
}

static bool filled(const void *object, size_t size, uintptr_t salt)
{
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)object)[i] != pattern_at(salt, i))
            return false;
    return true;
}

static bool all_zero(const unsigned char *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* --- sizes ------------------------------------------------------------------------------------------------------ */

static void must_be_an_object(vmk_heap *heap, const void *object, size_t size)
{
    MUST(object != NULL && (uintptr_t)object % VMK_OBJECT_ALIGN == 0);
    size_t usable = vmk_heap_usable_size(heap, object);
    MUST(usable >= size && usable != 0);
    MUST(hardened(heap) || usable == vmk_heap_good_size(size));
    MUST(vmk_heap_owns(heap, object));
}

/* Some of each size at once, filled to the last byte that may be used. */
static void sizes_live_side_by_side(vmk_heap *heap, size_t from, size_t to, size_t step)
{
    enum { EACH = 3, MOST = 1100 };
    static void *objects[MOST][EACH];
    size_t count = 0;
    for (size_t size = from; size <= to; size += step, count++)
        for (int i = 0; i < EACH; i++) {
            objects[count][i] = vmk_heap_alloc(heap, size);
            must_be_an_object(heap, objects[count][i], size);
            fill(objects[count][i], vmk_heap_usable_size(heap, objects[count][i]), count * EACH + (size_t)i);
        }
    ck_assert(vmki_objects_check(heap));
    for (size_t n = 0; n < count; n++)
        for (int i = 0; i < EACH; i++) {
            void *object = objects[n][i];
            MUST(filled(object, vmk_heap_usable_size(heap, object), n * EACH + (size_t)i));
            vmk_heap_free(heap, object);
        }
    ck_assert(vmki_objects_check(heap));
}

START_TEST(every_size_up_to_a_thousand)
{
    vmk_heap *heap = heap_of_kind(_i);
    sizes_live_side_by_side(heap, 0, 1024, 1);
    heap_end(heap);
}
END_TEST

START_TEST(sizes_around_the_classes)
{
    vmk_heap *heap = heap_of_kind(_i);
    for (unsigned c = 1; c < VMK_CLASSES; c++)
        sizes_live_side_by_side(heap, vmki_class_size(c) - 9, vmki_class_size(c) + 1, 1);
    heap_end(heap);
}
END_TEST

START_TEST(large_sizes)
{
    vmk_heap *heap = heap_of_kind(_i);
    sizes_live_side_by_side(heap, SMALL_MAX - 8, SMALL_MAX + 8, 1);
    for (size_t size = 40 * KIB; size < 3 * MIB; size += size / 2)
        sizes_live_side_by_side(heap, size - 1, size + 1, 1);
    heap_end(heap);
}
END_TEST

/* With a reservation of their own; in a window too small for them as well. */
START_TEST(huge_sizes)
{
    vmk_heap *heap = heap_of_kind(_i);
    for (size_t size = 32 * MIB - 1; size <= 32 * MIB + 1; size++) {
        unsigned char *object = vmk_heap_alloc(heap, size);
        must_be_an_object(heap, object, size);
        object[0] = object[vmk_heap_usable_size(heap, object) - 1] = 1;
        MUST(!vmk_heap_owns(heap, object + 16) && !vmk_heap_owns(heap, object - 16));
        ck_assert(vmki_objects_check(heap));
        vmk_heap_free(heap, object);
        MUST(!vmk_heap_owns(heap, object));
        object = vmk_heap_alloc_zeroed(heap, size);
        must_be_an_object(heap, object, size);
        MUST(object[0] == 0 && object[size / 2] == 0 && object[size - 1] == 0);
        vmk_heap_free(heap, object);
    }
    heap_end(heap);
}
END_TEST

START_TEST(sizes_that_no_heap_has)
{
    static const size_t sizes[] = {
        SIZE_MAX,           SIZE_MAX - 1,        SIZE_MAX - PAGE,          SIZE_MAX - 4 * MIB,
        SIZE_MAX / 2 + 1,   (size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX - 16, SIZE_MAX / 2 - PAGE,
        SIZE_MAX - 2 * PAGE};
    vmk_heap *heap = heap_of_kind(_i);
    void *object = vmk_heap_alloc(heap, 100);
    fill(object, 100, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ck_assert_ptr_null(vmk_heap_alloc(heap, sizes[i]));
        ck_assert_ptr_null(vmk_heap_alloc_zeroed(heap, sizes[i]));
        ck_assert_ptr_null(vmk_heap_realloc(heap, object, sizes[i]));
        for (size_t align = 1; align != 0; align <<= 1)
            ck_assert_ptr_null(vmk_heap_alloc_aligned(heap, sizes[i], align));
    }
    ck_assert(filled(object, 100, 1));
    ck_assert_uint_eq(vmk_heap_good_size(SIZE_MAX), SIZE_MAX);
    ck_assert_uint_eq(vmk_heap_good_size(SIZE_MAX - PAGE + 2), SIZE_MAX);
    heap_end(heap);
}
END_TEST

START_TEST(good_sizes_are_good_at_once)
{
    ck_assert_uint_eq(good_size_at_first, 112);
    for (size_t size = 0; size < 200 * KIB; size += 1 + size / 500) {
        size_t good = vmk_heap_good_size(size);
        MUST(good >= size && good != 0 && vmk_heap_good_size(good) == good);
    }
}
END_TEST

/* A slab is filled to its last slot, and the slots are where they should be. */
START_TEST(slabs_are_filled_whole)
{
    vmk_heap *heap = heap_make(layouts[_i], 0);
    for (unsigned i = 1; i < VMK_CLASSES; i += 5) {
        const vmki_class *c = &vmki_classes[i];
        vmk_object_stats stats;
        size_t capacity = c->pages * PAGE / c->size; /* of the first */
        for (size_t n = 0; n < capacity; n++) {
            unsigned char *object = vmk_heap_alloc(heap, c->size);
            vmk_span *span = vmk_span_find(heap, (uintptr_t)object);
            MUST(span != NULL && (size_t)(object - span->base) == n * c->size); /* one after the other, while fresh */
        }
        vmk_object_stats_now(heap, NULL, &stats);
        ck_assert_uint_eq(stats.by_class[i].spans, 1);
        ck_assert_uint_eq(stats.by_class[i].objects, capacity);
        ck_assert_ptr_nonnull(vmk_heap_alloc(heap, c->size));
        vmk_object_stats_now(heap, NULL, &stats);
        ck_assert_uint_eq(stats.by_class[i].spans, 2);
        ck_assert(vmki_objects_check(heap));
    }
    heap_end(heap);
}
END_TEST

/* What was freed last is allocated next: by the short way of freeing, which there is where tables have no holes. */
START_TEST(freed_last_is_allocated_first)
{
    vmk_heap *heap = heap_make(VMK_LAYOUT_64, 0);
    void *objects[8];
    for (int i = 0; i < 8; i++)
        objects[i] = vmk_heap_alloc(heap, 48);
    for (int i = 0; i < 8; i++)
        vmk_heap_free(heap, objects[i]);
    for (int i = 7; i >= 0; i--)
        ck_assert_ptr_eq(vmk_heap_alloc(heap, 48), objects[i]);
    heap_end(heap);
}
END_TEST

/* --- alignment -------------------------------------------------------------------------------------------------- */

static void aligned_to(vmk_heap *heap, size_t align)
{
    const size_t sizes[] = {0,   1,    align - 1, align,        align + 1, align + align / 2,
                            100, 1000, 16 * KIB,  16 * KIB + 1, 40000};
    enum { SIZES = sizeof sizes / sizeof sizes[0], EACH = 2 };
    void *objects[SIZES * EACH];
    for (size_t i = 0; i < SIZES * EACH; i++) {
        size_t size = sizes[i / EACH];
        objects[i] = vmk_heap_alloc_aligned(heap, size, align);
        if (objects[i] == NULL)
            ck_abort_msg("%zu bytes aligned to %zu", size, align);
        MUST((uintptr_t)objects[i] % align == 0 && (uintptr_t)objects[i] % VMK_OBJECT_ALIGN == 0);
        MUST(vmk_heap_usable_size(heap, objects[i]) >= size && vmk_heap_owns(heap, objects[i]));
        fill(objects[i], size, i);
    }
    ck_assert(vmki_objects_check(heap));
    for (size_t i = 0; i < SIZES * EACH; i++) {
        MUST(filled(objects[i], sizes[i / EACH], i));
        if (i % 3 == 0) {
            objects[i] = vmk_heap_realloc(heap, objects[i], sizes[i / EACH] + 5000);
            MUST(objects[i] != NULL && filled(objects[i], sizes[i / EACH], i));
        }
        vmk_heap_free(heap, objects[i]);
    }
}

START_TEST(alignments)
{
    vmk_heap *heap = heap_of_kind(_i);
#ifdef VMKIT_MODEL
    size_t most = 512 * KIB;
#else
    size_t most = 4 * MIB;
#endif
    for (size_t align = 1; align <= most; align *= 2)
        aligned_to(heap, align);
    for (size_t align = 0; align < 100; align++)
        if ((align & (align - 1)) != 0 || align == 0)
            ck_assert_ptr_null(vmk_heap_alloc_aligned(heap, 10, align));
    ck_assert_ptr_null(vmk_heap_alloc_aligned(heap, 10, SIZE_MAX));
    heap_end(heap);
}
END_TEST

/* 4 MiB where the window is narrow, too. */
START_TEST(large_alignment)
{
    vmk_heap *heap = heap_make(layouts[_i], 0);
    unsigned char *object = vmk_heap_alloc_aligned(heap, 5, 4 * MIB);
    ck_assert_ptr_nonnull(object);
    ck_assert_uint_eq((uintptr_t)object % (4 * MIB), 0);
    heap_end(heap);
}
END_TEST

/* --- zeroed ----------------------------------------------------------------------------------------------------- */

START_TEST(zeroed_memory_is_zero_however_dirty_it_was)
{
    static const size_t sizes[] = {0,         1,       16,     100, 1000, 5000, SMALL_MAX - 8, SMALL_MAX, SMALL_MAX + 1,
                                   100 * KIB, 1 * MIB, 3 * MIB};
    vmk_heap *heap = heap_of_kind(_i);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int round = 0; round < 3; round++) {
            enum { EACH = 10 };
            unsigned char *objects[EACH];
            int each = sizes[s] > 64 * KIB ? 2 : EACH;
            for (int i = 0; i < each; i++) {
                objects[i] = vmk_heap_alloc_zeroed(heap, sizes[s]);
                MUST(objects[i] != NULL && all_zero(objects[i], sizes[s]));
                memset(objects[i], 0xff, vmk_heap_usable_size(heap, objects[i]));
            }
            for (int i = 0; i < each; i++)
                vmk_heap_free(heap, objects[i]);
            if (round == 1)
                (void)vmk_heap_trim(heap);
        }
    heap_end(heap);
}
END_TEST

/* --- realloc ---------------------------------------------------------------------------------------------------- */

START_TEST(realloc_keeps_contents)
{
    static const size_t sizes[] = {10,        11,       100,      3000,          1000,      600,
                                   90,        0,        5,        20000,         32760,     SMALL_MAX,
                                   32769,     50 * KIB, 60 * KIB, 500 * KIB,     400 * KIB, 30 * KIB,
                                   40 * KIB,  2 * MIB,  3 * MIB,  5 * MIB,       4 * MIB,   1 * MIB,
                                   100 * KIB, 33 * KIB, 1,        SMALL_MAX + 1, 16 * KIB,  100};
    vmk_heap *heap = heap_of_kind(_i);
    void *neighbours[sizeof sizes / sizeof sizes[0]], *object = NULL;
    size_t size = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        object = vmk_heap_realloc(heap, object, sizes[i]);
        MUST(object != NULL && (uintptr_t)object % VMK_OBJECT_ALIGN == 0 && vmk_heap_owns(heap, object));
        MUST(vmk_heap_usable_size(heap, object) >= sizes[i]);
        MUST(filled(object, vmki_min(size, sizes[i]), 3));
        size = sizes[i];
        fill(object, size, 3);
        neighbours[i] = vmk_heap_alloc(heap, i % 3 == 0 ? 40 * KIB : size % 5000); /* in the way of growing */
        MUST(neighbours[i] != NULL);
        fill(neighbours[i], 1, 0);
    }
    ck_assert(vmki_objects_check(heap));
    vmk_heap_free(heap, object);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        vmk_heap_free(heap, neighbours[i]);
    heap_end(heap);
}
END_TEST

START_TEST(large_objects_are_resized_in_place)
{
    vmk_heap *heap = heap_make(layouts[_i], 0);
    void *object = vmk_heap_alloc(heap, 100 * KIB);
    fill(object, 100 * KIB, 5);
    ck_assert_ptr_eq(vmk_heap_realloc(heap, object, 104 * KIB), object);
    ck_assert_uint_eq(vmk_heap_usable_size(heap, object), 104 * KIB);
    ck_assert_ptr_eq(vmk_heap_realloc(heap, object, 50 * KIB), object);
    ck_assert_uint_eq(vmk_heap_usable_size(heap, object), 56 * KIB);
    void *behind = vmk_heap_alloc(heap, 48 * KIB);
    ck_assert_ptr_eq(behind, (unsigned char *)object + 56 * KIB); /* what the shorter one gave back */
    void *moved = vmk_heap_realloc(heap, object, 64 * KIB);
    ck_assert_ptr_ne(moved, object);
    ck_assert(filled(moved, 50 * KIB, 5));
    ck_assert(!vmk_heap_owns(heap, object));
    heap_end(heap);
}
END_TEST

/* Above 4 MiB there is a guard behind an object: none may be left behind where it was, or lie within what is usable. */
START_TEST(the_guard_moves_along)
{
    static const size_t sizes[] = {4 * MIB,    4 * MIB + 1, 4200 * KIB, 5500 * KIB,
                                   8100 * KIB, 5000 * KIB,  600 * KIB,  6 * MIB};
    vmk_heap *heap = heap_make(layouts[_i], 0);
    unsigned char *object = vmk_heap_alloc(heap, 900 * KIB), *place = object;
    size_t size = 900 * KIB;
    fill(object, size, 5);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        object = vmk_heap_realloc(heap, object, sizes[i]);
        MUST(object != NULL && vmk_heap_usable_size(heap, object) >= sizes[i]);
        MUST(vmk_heap_usable_size(heap, object) <= sizes[i] + sizes[i] / 8 + 64 * KIB);
        MUST(filled(object, vmki_min(size, sizes[i]), 5));
        size = vmk_heap_usable_size(heap, object);
        fill(object, size, 5);
    }
    /* Elsewhere memory comes in pieces, or a guard wants an alignment that the object had no need of. */
    bool stays = layouts[_i] == VMK_LAYOUT_64 && vmk_page_size() <= VMK_HEAP_PAGE_SIZE;
    ck_assert(!stays || object == place);
    vmk_heap_free(heap, object);
    object = vmk_heap_alloc(heap, 10 * MIB);
    ck_assert(object != NULL && (!stays || object == place));
    fill(object, vmk_heap_usable_size(heap, object), 5);
    vmk_heap_free(heap, object);
    heap_end(heap);
}
END_TEST

START_TEST(small_objects_stay_where_they_fit)
{
    vmk_heap *heap = heap_make(layouts[_i], 0);
    void *object = vmk_heap_alloc(heap, 1000);
    ck_assert_ptr_eq(vmk_heap_realloc(heap, object, 1024), object);
    ck_assert_ptr_eq(vmk_heap_realloc(heap, object, 600), object);
    void *smaller = vmk_heap_realloc(heap, object, 100); /* not to waste most of it */
    ck_assert_ptr_ne(smaller, object);
    ck_assert_uint_eq(vmk_heap_usable_size(heap, smaller), 112);
    heap_end(heap);
}
END_TEST

/* Grown step by step past what spans are for, and back. */
START_TEST(huge_objects_grow_and_shrink)
{
    vmk_heap *heap = heap_of_kind(_i);
    unsigned char *object = vmk_heap_alloc(heap, 700 * KIB);
    size_t size = 700 * KIB;
    fill(object, size, 9);
    void *wall = vmk_heap_alloc(heap, 40 * KIB);
#ifdef VMKIT_MODEL /* moving is copying there, so both must fit */
    const size_t sizes[] = {1500 * KIB, 9 * MIB, 20 * MIB, 9 * MIB, 5 * MIB, 100 * KIB, 1000};
#else
    const size_t sizes[] = {1500 * KIB, 9 * MIB, 40 * MIB, 64 * MIB + 1, 33 * MIB, 20 * MIB, 5 * MIB, 100 * KIB, 1000};
#endif
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        object = vmk_heap_realloc(heap, object, sizes[i]);
        MUST(object != NULL && (uintptr_t)object % VMK_OBJECT_ALIGN == 0 && vmk_heap_owns(heap, object));
        MUST(vmk_heap_usable_size(heap, object) >= sizes[i]);
        MUST(filled(object, vmki_min(size, sizes[i]), 9));
        size = sizes[i];
        fill(object, size, 9);
        ck_assert(vmki_objects_check(heap));
    }
    vmk_heap_free(heap, object);
    vmk_heap_free(heap, wall);
    heap_end(heap);
}
END_TEST

/* --- freeing ---------------------------------------------------------------------------------------------------- */

START_TEST(sized_frees)
{
    vmk_heap *heap = heap_of_kind(_i);
    for (size_t size = 0; size < 300 * KIB; size += 1 + size / 7) {
        vmk_heap_free_sized(heap, vmk_heap_alloc(heap, size), size);
        void *object = vmk_heap_alloc(heap, size);
        vmk_heap_free_sized(heap, object, vmk_heap_usable_size(heap, object));
    }
    vmk_heap_free_sized(heap, NULL, 7);
    vmk_heap_free(heap, NULL);
    ck_assert_uint_eq(vmk_heap_usable_size(heap, NULL), 0);
    ck_assert(!vmk_heap_owns(heap, NULL));
    heap_end(heap);
}
END_TEST

START_TEST(errno_stays)
{
    vmk_heap *heap = heap_of_kind(_i);
    for (size_t size = 1; size < 64 * MIB; size *= 8) {
        errno = 4711;
        void *object = vmk_heap_alloc(heap, size);
        ck_assert_int_eq(errno, 4711);
        ck_assert_ptr_nonnull(object);
        vmk_heap_free(heap, object);
        ck_assert_int_eq(errno, 4711);
    }
    (void)vmk_heap_trim(heap);
    ck_assert_int_eq(errno, 4711);
    heap_end(heap);
}
END_TEST

/* --- owning ----------------------------------------------------------------------------------------------------- */

START_TEST(any_bits_may_be_asked_about)
{
    enum { COUNT = 300 };
    vmk_heap *heap = heap_of_kind(_i);
    support_random random = support_random_start((uint64_t)_i);
    void *objects[COUNT];
    for (int i = 0; i < COUNT; i++)
        objects[i] = vmk_heap_alloc(heap, support_random_below(&random, i % 10 == 0 ? 100000 : 500));
    for (int i = 0; i < COUNT; i++) {
        const unsigned char *object = objects[i];
        MUST(vmk_heap_owns(heap, object));
        for (size_t k = 1; k < vmki_min(64, vmk_heap_usable_size(heap, object)); k++)
            MUST(!vmk_heap_owns(heap, object + k));
        if (i % 2 == 0) {
            vmk_heap_free(heap, objects[i]);
            MUST(!vmk_heap_owns(heap, object));
        }
    }
    for (size_t i = support_rounds(200000); i > 0; i--) {
        uintptr_t bits = (uintptr_t)support_random_next(&random);
        const void *near = (const void *)((uintptr_t)objects[bits % COUNT] + (bits >> 8) % (4 * PAGE) - 2 * PAGE);
        const void *any = (const void *)(bits & (UINTPTR_MAX >> support_random_below(&random, sizeof bits * 8)));
        bool expected = false;
        for (int k = 1; k < COUNT; k += 2)
            expected |= near == objects[k];
        MUST(vmk_heap_owns(heap, near) == expected);
        (void)vmk_heap_owns(heap, any);
    }
    MUST(!vmk_heap_owns(heap, &random) && !vmk_heap_owns(heap, heap) &&
         !vmk_heap_owns(heap, (const void *)UINTPTR_MAX));
    heap_end(heap);
}
END_TEST

/* --- beside spans ----------------------------------------------------------------------------------------------- */

START_TEST(spans_and_objects_share_a_heap)
{
    vmk_heap *heap = heap_of_kind(_i);
    vmk_span *spans[10];
    void *objects[10];
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(vmk_span_alloc(heap, 1 + (size_t)i, 0, VMK_SPAN_MARKS, &spans[i]), VMK_OK);
        memset(spans[i]->base, 0xee, spans[i]->pages * PAGE);
        memset(vmk_span_marks(heap, spans[i]), 0xee, spans[i]->pages * PAGE / 128);
        objects[i] = vmk_heap_alloc(heap, (size_t)i * 5000);
        fill(objects[i], (size_t)i * 5000, (uintptr_t)i);
        MUST(!vmk_heap_owns(heap, spans[i]->base));
    }
    ck_assert(vmki_objects_check(heap));
    for (int i = 0; i < 10; i += 2) {
        vmk_span_free(heap, spans[i]);
        vmk_heap_free(heap, objects[i + 1]);
    }
    for (int i = 0; i < 10; i += 2) {
        MUST(filled(objects[i], (size_t)i * 5000, (uintptr_t)i));
        MUST(spans[i + 1]->base[0] == 0xee && vmk_span_marks(heap, spans[i + 1])[0] == 0xee);
        MUST(vmk_heap_alloc(heap, 100 * KIB) != NULL && vmk_heap_alloc(heap, 10) != NULL);
    }
    heap_end(heap);
}
END_TEST

int main(int argc, char **argv)
{
    good_size_at_first = vmk_heap_good_size(100);
    Suite *suite = suite_create("object");
    TCase *tests = tcase_create("object");
    tcase_set_timeout(tests, 300);
    tcase_add_unchecked_fixture(tests, prepare, NULL);
    tcase_add_loop_test(tests, every_size_up_to_a_thousand, 0, KINDS);
    tcase_add_loop_test(tests, sizes_around_the_classes, 0, KINDS);
    tcase_add_loop_test(tests, large_sizes, 0, KINDS);
    tcase_add_loop_test(tests, huge_sizes, 0, KINDS);
    tcase_add_loop_test(tests, sizes_that_no_heap_has, 0, KINDS);
    tcase_add_test(tests, good_sizes_are_good_at_once);
    tcase_add_loop_test(tests, slabs_are_filled_whole, 0, LAYOUTS);
    tcase_add_test(tests, freed_last_is_allocated_first);
    tcase_add_loop_test(tests, alignments, 0, KINDS);
    tcase_add_loop_test(tests, large_alignment, 0, LAYOUTS);
    tcase_add_loop_test(tests, zeroed_memory_is_zero_however_dirty_it_was, 0, KINDS);
    tcase_add_loop_test(tests, realloc_keeps_contents, 0, KINDS);
    tcase_add_loop_test(tests, large_objects_are_resized_in_place, 0, LAYOUTS);
    tcase_add_loop_test(tests, the_guard_moves_along, 0, LAYOUTS);
    tcase_add_loop_test(tests, small_objects_stay_where_they_fit, 0, LAYOUTS);
    tcase_add_loop_test(tests, huge_objects_grow_and_shrink, 0, KINDS);
    tcase_add_loop_test(tests, sized_frees, 0, KINDS);
    tcase_add_loop_test(tests, errno_stays, 0, KINDS);
    tcase_add_loop_test(tests, any_bits_may_be_asked_about, 0, KINDS);
    tcase_add_loop_test(tests, spans_and_objects_share_a_heap, 0, KINDS);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
