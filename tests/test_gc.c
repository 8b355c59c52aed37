/* SPDX-License-Identifier: MIT
 *
 * Collected heaps from the outside: making and ending, allocating every size and kind, freeing by hand, pace and
 * limits, exhaustion, collecting at every allocation, many heaps.
 */
#include <string.h>

#include "object_kinds.h"
#include "support.h"

#include "common/gc/gc.h"

/* A heap whose roots are what the test names: so that what lives is known exactly. */
static vmk_gc *make_exact(const vmk_gc_options *options)
{
    vmk_gc_options given = options != NULL ? *options : (vmk_gc_options){0};
    vmk_heap_options below = given.heap != NULL ? *given.heap : (vmk_heap_options){0};
    vmk_gc *gc;
    if (below.window == 0)
        below.window = WINDOW;
    given.heap = &below;
    given.flags |= VMK_GC_NO_STACKS | VMK_GC_NO_STATIC;
    ck_assert_int_eq(vmk_gc_create(&gc, &given), VMK_OK);
    return gc;
}

static void end(vmk_gc *gc)
{
    ck_assert(vmki_gc_check(gc));
    vmk_gc_destroy(gc);
}

static size_t live_objects(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(gc, &stats);
    return stats.live_objects;
}

static bool zero(const void *object, size_t size)
{
    const unsigned char *bytes = object;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

START_TEST(ends_as_it_began)
{
#ifdef VMKIT_MODEL
    enum { MOST = LAYOUTS - 1 }; /* VMK_LAYOUT_32 begins with as much as there is, and leaves no room for tables */
#else
    enum { MOST = LAYOUTS };
#endif
    for (unsigned layout = 0; layout < MOST; layout++) {
        vmk_heap_options below = {.layout = layouts[layout], .window = WINDOW};
        vmk_gc_options options = {.heap = &below};
        vmk_gc *gc;
        ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
        ck_assert_ptr_nonnull(vmk_gc_heap(gc));
        ck_assert_ptr_nonnull(vmk_gc_alloc(gc, 100));
        vmk_gc_collect(gc);
        end(gc);
    }
}
END_TEST

START_TEST(wrong_options_are_refused)
{
    vmk_gc_options options = {.flags = 1u << 31};
    vmk_gc *gc = NULL;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_ERR_ARGUMENT);
    vmk_heap_options below = {.flags = 1u << 31};
    options = (vmk_gc_options){.heap = &below};
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_ERR_ARGUMENT);
    ck_assert_ptr_null(gc);
    gc = make_exact(NULL);
    vmk_gc_type *type = NULL;
    size_t map[1] = {1};
    vmk_gc_layout layout = {.size = 0};
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_ERR_ARGUMENT);
    layout.size = sizeof(void *) + 1;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_ERR_ARGUMENT);
    layout.size = 2 * MIB;
    layout.pointers = map;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_ERR_ARGUMENT);
    ck_assert_ptr_null(type);
    end(gc);
}
END_TEST

START_TEST(as_many_heaps_as_are_promised)
{
    enum { MOST = 64 };
    vmk_heap_options below = {.window = 4 * MIB, .layout = VMK_LAYOUT_LIMITED};
    vmk_gc_options options = {.heap = &below};
    vmk_gc *heaps[MOST], *more = NULL;
#ifdef VMKIT_MODEL
    size_t most = 4; /* which has little address space */
#else
    size_t most = MOST;
#endif
    for (size_t i = 0; i < most; i++) {
        ck_assert_int_eq(vmk_gc_create(&heaps[i], &options), VMK_OK);
        ck_assert_ptr_nonnull(vmk_gc_alloc(heaps[i], 100));
    }
    if (most == MOST)
        ck_assert_int_eq(vmk_gc_create(&more, &options), VMK_ERR_LIMIT);
    ck_assert_ptr_null(more);
    for (size_t i = 0; i < most; i++)
        vmk_gc_collect(heaps[i]);
    for (size_t i = 0; i < most; i++)
        end(heaps[i]);
    ck_assert_int_eq(vmk_gc_create(&more, &options), VMK_OK);
    end(more);
}
END_TEST

/* Every class, its ends, and large ones: aligned, zero also when used again, the object of each of its bytes. */
static void size_works(vmk_gc *gc, size_t size, bool leaf)
{
    void *object = leaf ? vmk_gc_alloc_leaf(gc, size) : vmk_gc_alloc(gc, size);
    MUST(object != NULL);
    size_t usable = vmk_gc_usable_size(gc, object);
    MUST(usable >= size && usable > 0);
    MUST((uintptr_t)object % 16 == 0);
    MUST(zero(object, usable));
    MUST(vmk_gc_base(gc, (char *)object + usable - 1) == object);
    MUST(vmk_gc_base(gc, (char *)object + usable / 2) == object);
    memset(object, 0xee, usable);
}

START_TEST(every_size_is_whole_and_zero)
{
    vmk_gc *gc = make_exact(NULL);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned size_class = 1; size_class < VMK_CLASSES; size_class++) {
            size_t size = vmki_class_size(size_class);
            size_works(gc, size, size_class % 2 != 0);
            size_works(gc, size - 1, size_class % 2 == 0);
            size_works(gc, size, false);
        }
        size_works(gc, 0, false);
        size_works(gc, SMALL_MAX + 1, false);
        size_works(gc, 100 * KIB, true);
        size_works(gc, 1 * MIB, false);
        vmk_gc_collect(gc);
        ck_assert_uint_eq(live_objects(gc), 0);
    }
    end(gc);
}
END_TEST

START_TEST(what_is_no_object_is_none)
{
    vmk_gc *gc = make_exact(NULL);
    char *object = vmk_gc_alloc(gc, 48), local;
    ck_assert_ptr_null(vmk_gc_base(gc, NULL));
    ck_assert_ptr_null(vmk_gc_base(gc, &local));
    ck_assert_ptr_null(vmk_gc_base(gc, (void *)UINTPTR_MAX));
    ck_assert_ptr_null(vmk_gc_base(gc, gc)); /* a span of the heap's, but no object */
    ck_assert_ptr_eq(vmk_gc_base(gc, object + 47), object);
    ck_assert_uint_eq(vmk_gc_usable_size(gc, NULL), 0);
    ck_assert_ptr_null(vmk_gc_alloc(gc, SIZE_MAX));
    ck_assert_ptr_null(vmk_gc_alloc(gc, SIZE_MAX / 2));
    ck_assert_ptr_null(vmk_gc_alloc_leaf(gc, SIZE_MAX - 4096));
    vmk_gc_type *type;
    ck_assert_int_eq(vmk_gc_type_create(gc, &(vmk_gc_layout){.size = 1024}, &type), VMK_OK);
    ck_assert_ptr_null(vmk_gc_alloc_typed(gc, type, SIZE_MAX / 512));
    end(gc);
}
END_TEST

START_TEST(a_chain_lives_as_long_as_its_root)
{
    vmk_gc *gc = make_exact(NULL);
    void **root = NULL;
    ck_assert_int_eq(vmk_gc_slots_add(gc, (void **)(void *)&root, 1), VMK_OK);
    for (unsigned i = 0; i < 1000; i++) {
        void **next = vmk_gc_alloc(gc, (size_t)8 << (i % 12));
        MUST(next != NULL);
        next[0] = root;
        root = next;
        MUST(vmk_gc_alloc_leaf(gc, 64) != NULL); /* garbage between them */
    }
    vmk_gc_collect(gc);
    ck_assert_uint_eq(live_objects(gc), 1000);
    void **node = root;
    for (unsigned i = 0; i < 1000; i++)
        node = node[0];
    ck_assert_ptr_null(node);
    root = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(live_objects(gc), 0);
    vmk_gc_roots_remove(gc, &root);
    end(gc);
}
END_TEST

START_TEST(what_is_freed_by_hand_is_used_again)
{
    vmk_gc *gc = make_exact(NULL);
    vmk_gc_stats stats;
    vmk_gc_disable(gc);
    for (unsigned round = 0; round < 200; round++) {
        void *objects[500];
        for (unsigned i = 0; i < 500; i++) {
            objects[i] = vmk_gc_alloc(gc, 100);
            MUST(objects[i] != NULL && zero(objects[i], 100));
            memset(objects[i], 1, 100);
        }
        for (unsigned i = 0; i < 500; i++)
            vmk_gc_free(gc, objects[i]);
        void *large = vmk_gc_alloc(gc, 300 * KIB);
        MUST(large != NULL && zero(large, 300 * KIB));
        memset(large, 1, 300 * KIB);
        vmk_gc_free(gc, large);
    }
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.cycles, 0);
    ck_assert_uint_lt(stats.heap_size, 2 * MIB);
    ck_assert_uint_ge(stats.freed_total, (uint64_t)200 * (500 * 100 + 300 * KIB));
    vmk_gc_enable(gc);
    end(gc);
}
END_TEST

START_TEST(reallocating_keeps_contents)
{
    vmk_gc *gc = make_exact(NULL);
    unsigned char *object = vmk_gc_realloc(gc, NULL, 10);
    for (size_t size = 10; size < 300 * KIB; size += size / 2) {
        for (size_t i = 0; i < size; i++)
            object[i] = (unsigned char)(i * 7 + 1);
        object = vmk_gc_realloc(gc, object, size + size / 2);
        MUST(object != NULL);
        for (size_t i = 0; i < size; i++)
            MUST(object[i] == (unsigned char)(i * 7 + 1));
        MUST(zero(object + size, vmk_gc_usable_size(gc, object) - size));
    }
    object = vmk_gc_realloc(gc, object, 100);
    ck_assert_uint_ge(vmk_gc_usable_size(gc, object), 100);
    object = vmk_gc_realloc(gc, object, 97); /* where it is */
    ck_assert(zero(object + 97, vmk_gc_usable_size(gc, object) - 97));
    end(gc);
}
END_TEST

/* A cycle at each allocation, and nobody but the call has the old object. */
START_TEST(reallocating_holds_what_it_copies)
{
    vmk_gc_options options = {.flags = VMK_GC_STRESS};
    vmk_gc *gc = make_exact(&options);
    unsigned char *object = vmk_gc_alloc(gc, 16);
    object[0] = 7;
    for (size_t size = 17; size < 100 * KIB; size += size) {
        object = vmk_gc_realloc(gc, object, size);
        MUST(object != NULL && object[0] == 7);
        MUST(vmk_gc_usable_size(gc, object) >= size);
    }
    vmk_gc_collect(gc);
    ck_assert_uint_eq(live_objects(gc), 0); /* nothing was left pinned */
    end(gc);
}
END_TEST

/* --- pace and limits ---------------------------------------------------------------------------------------------- */

START_TEST(garbage_is_collected_by_itself)
{
    vmk_gc_options options = {.pace = {.min_heap = 1 * MIB}};
    vmk_gc *gc = make_exact(&options);
    vmk_gc_stats stats;
    for (size_t i = 0; i < 100000; i++)
        MUST(vmk_gc_alloc(gc, 128) != NULL);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_ge(stats.cycles, 10);
    ck_assert_uint_eq(stats.by_cause[VMK_GC_CAUSE_GOAL], stats.cycles);
    ck_assert_uint_lt(stats.heap_size, 3 * MIB);
    ck_assert_uint_eq(stats.allocated_total - stats.allocated_total % 128, stats.allocated_total);
    ck_assert_uint_ge(stats.allocated_total, (uint64_t)99000 * 128);
    end(gc);
}
END_TEST

START_TEST(disabled_means_never)
{
    vmk_gc_options options = {.pace = {.min_heap = 256 * KIB}};
    vmk_gc *gc = make_exact(&options);
    vmk_gc_stats stats;
    vmk_gc_disable(gc);
    vmk_gc_disable(gc);
    vmk_gc_enable(gc);
    for (size_t i = 0; i < 20000; i++)
        MUST(vmk_gc_alloc(gc, 128) != NULL);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.cycles, 0);
    vmk_gc_enable(gc);
    for (size_t i = 0; i < 20000; i++)
        MUST(vmk_gc_alloc(gc, 128) != NULL);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_gt(stats.cycles, 0);
    end(gc);
}
END_TEST

typedef struct exhaustion {
    void **keep;
    unsigned calls;
    bool give_up;
} exhaustion;

static bool let_go(void *context, vmk_gc *gc, size_t size, vmk_status why)
{
    exhaustion *e = context;
    (void)gc;
    MUST(size > 0 && why == VMK_ERR_LIMIT);
    e->calls++;
    if (e->give_up)
        return false;
    *e->keep = NULL;
    return true;
}

START_TEST(the_hard_limit_holds)
{
    void **root = NULL;
    exhaustion e = {.keep = (void **)(void *)&root};
    vmk_gc_options options = {
        .pace = {.min_heap = 512 * KIB, .hard_limit = 2 * MIB}, .on_exhausted = let_go, .on_exhausted_context = &e};
    vmk_gc *gc = make_exact(&options);
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_slots_add(gc, (void **)(void *)&root, 1), VMK_OK);
    for (size_t i = 0; i < 60000; i++) { /* a list that is too long, three times over */
        void **node = vmk_gc_alloc(gc, 112);
        MUST(node != NULL);
        node[0] = root;
        root = node;
        if (i % 1000 == 0) {
            vmk_gc_stats_now(gc, &stats);
            MUST(stats.heap_size <= 2 * MIB);
        }
    }
    ck_assert_uint_ge(e.calls, 2);
    e.give_up = true;
    size_t made = 0;
    for (void **node; (node = vmk_gc_alloc(gc, 112)) != NULL; made++) {
        node[0] = root;
        root = node;
    }
    ck_assert_uint_lt(made, 20000);
    ck_assert_ptr_null(vmk_gc_alloc(gc, 8 * MIB));
    vmk_gc_stats_now(gc, &stats);
    uint64_t cycles = stats.cycles;
    for (unsigned i = 0; i < 50; i++) /* no more than a cycle for each that fails */
        ck_assert_ptr_null(vmk_gc_alloc(gc, 112));
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_le(stats.cycles - cycles, 50);
    root = NULL;
    ck_assert_ptr_nonnull(vmk_gc_alloc(gc, 112));
    end(gc);
}
END_TEST

START_TEST(the_soft_limit_bends_where_it_must)
{
    void **root = NULL;
    vmk_gc_options options = {.pace = {.min_heap = 4 * MIB, .soft_limit = 1 * MIB}};
    vmk_gc *gc = make_exact(&options);
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_slots_add(gc, (void **)(void *)&root, 1), VMK_OK);
    for (size_t i = 0; i < 20000; i++)
        MUST(vmk_gc_alloc(gc, 128) != NULL);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_gt(stats.by_cause[VMK_GC_CAUSE_SOFT_LIMIT], 0);
    for (size_t i = 0; i < 40000; i++) { /* 5 MB that live */
        void **node = vmk_gc_alloc(gc, 128);
        MUST(node != NULL);
        node[0] = root;
        root = node;
    }
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_lt(stats.cycles, 60);
    end(gc);
}
END_TEST

START_TEST(memory_goes_back_after_a_drop)
{
    void **root = NULL;
    vmk_gc *gc = make_exact(NULL);
    vmk_gc_stats stats;
    vmk_heap_stats heap;
    ck_assert_int_eq(vmk_gc_slots_add(gc, (void **)(void *)&root, 1), VMK_OK);
    for (size_t i = 0; i < 12000; i++) {
        void **node = vmk_gc_alloc(gc, 1024);
        MUST(node != NULL);
        node[0] = root;
        root = node;
    }
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_ge(stats.heap_size, 11 * MIB);
    root = NULL;
    vmk_gc_collect(gc);
    vmk_heap_stats_now(vmk_gc_heap(gc), &heap);
    ck_assert_uint_le(heap.in_use + heap.idle, 5 * MIB);
    (void)vmk_gc_trim(gc);
    vmk_heap_stats_now(vmk_gc_heap(gc), &heap);
    ck_assert_uint_le(heap.in_use + heap.idle, 1 * MIB);
    end(gc);
}
END_TEST

typedef struct events {
    vmk_gc *gc;
    unsigned count;
    vmk_gc_event last;
} events;

static void note_event(void *context, const vmk_gc_event *event)
{
    events *e = context;
    e->count++;
    e->last = *event;
    if (e->gc != NULL) {
        for (unsigned i = 0; i < 100; i++) /* what it allocates doesn't collect */
            MUST(vmk_gc_alloc(e->gc, 64) != NULL);
    }
}

START_TEST(events_tell_of_cycles)
{
    events e = {0};
    vmk_gc_options options = {.on_event = note_event, .on_event_context = &e};
    vmk_gc *gc = make_exact(&options);
    void *root = NULL;
    ck_assert_int_eq(vmk_gc_slots_add(gc, &root, 1), VMK_OK);
    e.gc = gc;
    root = vmk_gc_alloc(gc, 1000);
    for (unsigned i = 0; i < 1000; i++)
        MUST(vmk_gc_alloc(gc, 64) != NULL);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(e.count, 1);
    ck_assert_uint_eq(e.last.number, 1);
    ck_assert_int_eq(e.last.cause, VMK_GC_CAUSE_ASKED);
    ck_assert_uint_eq(e.last.live_objects, 1);
    ck_assert_uint_eq(e.last.live_bytes, vmk_gc_usable_size(gc, root));
    ck_assert_uint_eq(e.last.before, 1000 * 64 + e.last.live_bytes);
    ck_assert_uint_ge(e.last.pause, e.last.mark_time);
    ck_assert_uint_ge(e.last.next, 4 * MIB);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(e.count, 2);
    ck_assert_uint_eq(e.last.before, 100 * 64 + e.last.live_bytes);
    end(gc);
}
END_TEST

/* --- switches for tests ------------------------------------------------------------------------------------------- */

START_TEST(collecting_at_every_allocation)
{
    vmk_gc_options options = {.flags = VMK_GC_STRESS | VMK_GC_VERIFY};
    vmk_gc *gc = make_exact(&options);
    vmk_gc_stats stats;
    void **root = NULL;
    ck_assert_int_eq(vmk_gc_slots_add(gc, (void **)(void *)&root, 1), VMK_OK);
    size_t count = support_rounds(300);
    for (size_t i = 0; i < count; i++) {
        void **node = vmk_gc_alloc(gc, 32 + i % 3 * 1000);
        MUST(node != NULL);
        node[0] = root;
        root = node;
    }
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.by_cause[VMK_GC_CAUSE_STRESS], count);
    ck_assert_uint_eq(stats.live_objects, count - 1); /* before the last one was made */
    end(gc);
}
END_TEST

START_TEST(a_heap_that_fills_and_empties)
{
    vmk_gc_options options = {.flags = VMK_GC_VERIFY, .pace = {.min_heap = 512 * KIB}};
    vmk_gc *gc = make_exact(&options);
    enum { SLOTS = 1000 };
    static void *slots[SLOTS];
    static unsigned char stamps[SLOTS];
    support_random random = support_random_start(51);
    memset(slots, 0, sizeof slots);
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, SLOTS), VMK_OK);
    size_t rounds = support_rounds(60000);
    for (size_t i = 0; i < rounds; i++) {
        size_t at = support_random_below(&random, SLOTS), size = support_random_below(&random, 600);
        if (support_random_below(&random, 200) == 0)
            size = support_random_below(&random, 100 * KIB);
        if (slots[at] != NULL) { /* it is whole */
            unsigned char *bytes = slots[at];
            size_t usable = vmk_gc_usable_size(gc, bytes);
            MUST(bytes[0] == stamps[at] && bytes[usable / 2] == stamps[at] && bytes[usable - 1] == stamps[at]);
        }
        if (slots[at] != NULL && support_random_below(&random, 4) == 0)
            vmk_gc_free(gc, slots[at]);
        slots[at] = support_random_below(&random, 2) == 0 ? vmk_gc_alloc(gc, size) : vmk_gc_alloc_leaf(gc, size);
        MUST(slots[at] != NULL);
        size_t usable = vmk_gc_usable_size(gc, slots[at]);
        MUST(zero(slots[at], usable));
        stamps[at] = (unsigned char)(support_random_below(&random, 127) * 2 + 1); /* odd: no aligned pointers */
        memset(slots[at], stamps[at], usable);
    }
    memset(slots, 0, sizeof slots);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(live_objects(gc), 0);
    end(gc);
}
END_TEST

static Suite *gc_suite(void)
{
    Suite *suite = suite_create("gc");
    TCase *tcase = tcase_create("outside");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, ends_as_it_began);
    tcase_add_test(tcase, wrong_options_are_refused);
    tcase_add_test(tcase, as_many_heaps_as_are_promised);
    tcase_add_test(tcase, every_size_is_whole_and_zero);
    tcase_add_test(tcase, what_is_no_object_is_none);
    tcase_add_test(tcase, a_chain_lives_as_long_as_its_root);
    tcase_add_test(tcase, what_is_freed_by_hand_is_used_again);
    tcase_add_test(tcase, reallocating_keeps_contents);
    tcase_add_test(tcase, reallocating_holds_what_it_copies);
    tcase_add_test(tcase, garbage_is_collected_by_itself);
    tcase_add_test(tcase, disabled_means_never);
    tcase_add_test(tcase, the_hard_limit_holds);
    tcase_add_test(tcase, the_soft_limit_bends_where_it_must);
    tcase_add_test(tcase, memory_goes_back_after_a_drop);
    tcase_add_test(tcase, events_tell_of_cycles);
    tcase_add_test(tcase, collecting_at_every_allocation);
    tcase_add_test(tcase, a_heap_that_fills_and_empties);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, gc_suite(), NULL);
}
