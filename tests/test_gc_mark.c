/* SPDX-License-Identifier: MIT
 *
 * Marking: what a word keeps alive (inside, ends, every kind of object), lists and arrays beyond all measure, several
 * threads that mark, objects by pages and one by one, and memory that runs out for it.
 */
#include <stdlib.h>
#include <string.h>

#include "object_kinds.h"
#include "support.h"

#include "common/gc/marker.h"

#ifdef VMKIT_MODEL
#include "model.h"
#endif

enum { WORD = sizeof(void *) };

/* What 32-bit programs get by default takes nearly all address space of the model, and pages are marked as a whole only
 * where there is room for a table of them. */
#ifdef VMKIT_MODEL
static const vmk_layout heap_layout = VMK_LAYOUT_64;
#else
static const vmk_layout heap_layout = VMK_LAYOUT_AUTO;
#endif

/* Its only roots are what the test names: so pointers may lie about everywhere in the test. */
static vmk_gc *make(unsigned markers, unsigned flags)
{
    vmk_heap_options below = {.window = WINDOW, .layout = heap_layout};
    vmk_gc_options options = {
        .markers = markers, .flags = VMK_GC_NO_STACKS | VMK_GC_NO_STATIC | VMK_GC_VERIFY | flags, .heap = &below};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    vmk_gc_disable(gc);
    return gc;
}

static size_t collect(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    MUST(stats.live_objects == stats.last.live_objects);
    return stats.live_objects;
}

static vmk_gc_event last_event(vmk_gc *gc)
{
    vmk_gc_stats stats;
    vmk_gc_stats_now(gc, &stats);
    return stats.last;
}

static bool alive(vmk_gc *gc, const void *object)
{
    return vmk_gc_base(gc, object) == object;
}

static uintptr_t word_root; /* one word, exact or not, as the test says */

static void root_add(vmk_gc *gc, bool exact)
{
    word_root = 0;
    vmk_status status = exact ? vmk_gc_slots_add(gc, (void *const *)(void *)&word_root, 1)
                              : vmk_gc_roots_add(gc, &word_root, sizeof word_root);
    ck_assert_int_eq(status, VMK_OK);
}

static void end(vmk_gc *gc)
{
    vmk_gc_roots_remove(gc, &word_root);
    vmk_gc_destroy(gc);
}

/* --- what a word keeps alive -------------------------------------------------------------------------------------- */

static size_t some_size(size_t i)
{
    static const size_t large[] = {SMALL_MAX + 1, 100 * KIB, 300 * KIB};
    return i < VMK_CLASSES ? vmki_class_size((unsigned)i) : large[i - VMK_CLASSES];
}
enum { SIZES = VMK_CLASSES + 3, MANY = 40 };

/* A few objects of each size, one of which is held by a word that points somewhere into it. */
static void word_keeps(vmk_gc *gc, bool exact, size_t size, bool leaf, size_t offset, bool lives)
{
    void *objects[MANY];
    size_t count = size > SMALL_MAX ? 2 : MANY;
    for (size_t i = 0; i < count; i++) {
        objects[i] = leaf ? vmk_gc_alloc_leaf(gc, size) : vmk_gc_alloc(gc, size);
        MUST(objects[i] != NULL);
    }
    size_t usable = vmk_gc_usable_size(gc, objects[0]);
    for (size_t i = count; i-- > 0; i -= i < 7 ? i : 7) {
        word_root = (uintptr_t)objects[i] + (offset > usable ? usable : offset);
        size_t live = collect(gc);
        MUST(alive(gc, objects[i]) == lives);
        if (offset < usable && (exact || offset % 16 != 0)) /* else it may be the end of another */
            MUST(live == 1);
        if (i == 0 || !lives)
            break;
        for (size_t k = 0; k < count; k++) /* all others are gone: what is left of this one must not disturb */
            if (k != i)
                objects[k] = leaf ? vmk_gc_alloc_leaf(gc, size) : vmk_gc_alloc(gc, size);
    }
    word_root = 0;
}

START_TEST(inside_is_as_good_as_the_start)
{
    vmk_gc *gc = make(1, 0);
    for (unsigned exact = 0; exact < 2; exact++) {
        root_add(gc, exact != 0);
        for (size_t i = 1; i < SIZES; i += 1 + i / 20) {
            size_t size = some_size(i);
            word_keeps(gc, exact != 0, size, false, 0, true);
            word_keeps(gc, exact != 0, size, true, size - 1, true);
            word_keeps(gc, exact != 0, size, false, size / 2, true);
        }
        vmk_gc_roots_remove(gc, &word_root);
    }
    root_add(gc, true);
    end(gc);
}
END_TEST

START_TEST(the_end_is_good_enough_for_what_is_not_exact)
{
    vmk_gc *gc = make(1, VMK_GC_PAST_END); /* else ends count on stacks alone */
    for (unsigned exact = 0; exact < 2; exact++) {
        root_add(gc, exact != 0);
        for (size_t i = 1; i < SIZES; i++)
            word_keeps(gc, exact != 0, some_size(i), false, SIZE_MAX, exact == 0);
        vmk_gc_roots_remove(gc, &word_root);
    }
    root_add(gc, true);
    end(gc);
}
END_TEST

/* The last object of each slab too: behind it is what is left over of the slab, or another, or nothing. */
START_TEST(the_end_of_every_object_of_a_slab)
{
    enum { MOST = 1100 };
    static void *objects[MOST];
    vmk_gc *gc = make(1, VMK_GC_PAST_END); /* else ends count on stacks alone */
    for (size_t c = 1; c < VMK_CLASSES; c += 5) {
        size_t size = vmki_class_size((unsigned)c), count = size < 2 * KIB ? MOST : 80;
        root_add(gc, false);
        for (size_t i = 0; i < count; i++) {
            objects[i] = vmk_gc_alloc_leaf(gc, size);
            MUST(objects[i] != NULL);
        }
        void **all = vmk_gc_alloc(gc, count * sizeof *all);
        for (size_t i = 0; i < count; i++)
            all[i] = (char *)objects[i] + size;
        vmk_gc_roots_remove(gc, &word_root);
        ck_assert_int_eq(vmk_gc_roots_add(gc, all, count * sizeof *all), VMK_OK);
        MUST(collect(gc) >= count); /* what an end is the start of counts too */
        for (size_t i = 0; i < count; i++)
            MUST(alive(gc, objects[i]));
        vmk_gc_roots_remove(gc, all);
    }
    root_add(gc, true);
    end(gc);
}
END_TEST

START_TEST(ends_in_objects_count_where_asked_for)
{
    for (unsigned past = 0; past < 2; past++) {
        vmk_gc *gc = make(1, past != 0 ? VMK_GC_PAST_END : 0);
        root_add(gc, true);
        for (size_t size = 16; size < 300 * KIB; size *= 3) {
            void **holder = vmk_gc_alloc(gc, 4 * WORD), *object = vmk_gc_alloc(gc, size);
            word_root = (uintptr_t)holder;
            holder[3] = (char *)object + vmk_gc_usable_size(gc, object);
            (void)collect(gc);
            MUST(alive(gc, holder));
            MUST(alive(gc, object) == (past != 0));
        }
        end(gc);
    }
}
END_TEST

START_TEST(leaves_are_not_looked_into)
{
    vmk_gc *gc = make(1, 0);
    root_add(gc, true);
    void **leaf = vmk_gc_alloc_leaf(gc, 100), **large = vmk_gc_alloc_leaf(gc, 200 * KIB), *other = vmk_gc_alloc(gc, 32);
    for (size_t i = 0; i < 100 / WORD; i++)
        leaf[i] = large[i * 100] = other;
    void **holder = vmk_gc_alloc(gc, 2 * WORD);
    holder[0] = leaf;
    holder[1] = large;
    word_root = (uintptr_t)holder;
    ck_assert_uint_eq(collect(gc), 3);
    ck_assert(!alive(gc, other));
    end(gc);
}
END_TEST

START_TEST(what_is_no_pointer_is_passed_over)
{
    vmk_gc *gc = make(1, 0);
    root_add(gc, true);
    support_random random = support_random_start(7);
    size_t count = 20000;
    uintptr_t *holder = vmk_gc_alloc(gc, count * WORD);
    word_root = (uintptr_t)holder;
    for (size_t i = 0; i < count; i++) {
        holder[i] = (uintptr_t)support_random_next(&random);
        if (i % 3 == 0) /* near the heap, and in it, where nothing is */
            holder[i] = (uintptr_t)holder + (holder[i] % (1024 * MIB) - 512 * MIB);
    }
    MUST(collect(gc) == 1);
    end(gc);
}
END_TEST

/* --- typed objects ------------------------------------------------------------------------------------------------ */

/* Each word of some elements points to an object; those that the map names live. */
static void map_works(vmk_gc *gc, support_random *random, size_t words, size_t elements)
{
    size_t map[1000 / VMKI_WORD_BITS + 1] = {0};
    for (size_t i = 0; i < words; i++)
        if (support_random_below(random, 3) == 0)
            map[i / VMKI_WORD_BITS] |= (size_t)1 << i % VMKI_WORD_BITS;
    vmk_gc_layout layout = {.size = words * WORD, .pointers = map};
    vmk_gc_type *type;
    MUST(vmk_gc_type_create(gc, &layout, &type) == VMK_OK);
    void **object = vmk_gc_alloc_typed(gc, type, elements);
    MUST(object != NULL);
    word_root = (uintptr_t)object;
    size_t total = words * elements, step = 1 + total / 2000, live = 1;
    void **copy = calloc(total, sizeof *copy);
    for (size_t i = 0; i < total; i += step) {
        object[i] = copy[i] = vmk_gc_alloc_leaf(gc, 16);
        live += map[i % words / VMKI_WORD_BITS] >> (i % words % VMKI_WORD_BITS) & 1;
    }
    MUST(collect(gc) == live);
    for (size_t i = 0; i < total; i += step)
        MUST(alive(gc, copy[i]) == ((map[i % words / VMKI_WORD_BITS] >> (i % words % VMKI_WORD_BITS) & 1) != 0));
    free(copy);
    word_root = 0;
}

START_TEST(maps_say_which_words_are_pointers)
{
    static const size_t words[] = {1, 2, 3, 31, 32, 33, 63, 64, 65, 129, 200, 999};
    support_random random = support_random_start(1);
    for (unsigned markers = 1; markers <= 2; markers++) {
        vmk_gc *gc = make(markers, 0);
        root_add(gc, true);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            map_works(gc, &random, words[i], 1);
            map_works(gc, &random, words[i], 7);
            map_works(gc, &random, words[i], 70000 / words[i]); /* of several pieces */
        }
        end(gc);
    }
}
END_TEST

/* The first word says how many words behind it are pointers; an odd number: in a range. */
static void show_some(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    uintptr_t *words = object;
    size_t count = words[0];
    (void)context;
    if (size < (count + 1) * WORD)
        return;
    if (count % 2 != 0)
        vmk_gc_visit_range(visitor, words + 1, count * WORD);
    else
        for (size_t i = 0; i < count; i++)
            vmk_gc_visit(visitor, (void *)words[1 + i]);
}

START_TEST(functions_show_pointers)
{
    for (unsigned markers = 1; markers <= 2; markers++) {
        vmk_gc *gc = make(markers, 0);
        vmk_gc_layout layout = {.size = WORD, .trace = show_some};
        vmk_gc_type *type;
        ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
        root_add(gc, true);
        for (size_t words = 2; words < 50000; words = words * 3 + 1) {
            uintptr_t *object = vmk_gc_alloc_typed(gc, type, words);
            MUST(object != NULL && vmk_gc_alloc_typed(gc, type, words) != NULL); /* one that nobody fills */
            word_root = (uintptr_t)object;
            size_t shown = (words - 1) / 2;
            for (size_t i = 1; i < words; i++)
                object[i] = (uintptr_t)vmk_gc_alloc_leaf(gc, 16);
            object[0] = shown;
            MUST(collect(gc) == shown + 1);
            MUST(collect(gc) == shown + 1);
        }
        end(gc);
    }
}
END_TEST

/* Objects that a function shows, which show others: marking goes through them without recursion. */
START_TEST(a_long_list_that_is_traced)
{
    vmk_gc *gc = make(2, 0);
    vmk_gc_layout layout = {.size = 2 * WORD, .trace = show_some};
    vmk_gc_type *type;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &type), VMK_OK);
    root_add(gc, true);
    size_t count = support_rounds(300000);
    for (size_t i = 0; i < count; i++) {
        uintptr_t *node = vmk_gc_alloc_typed(gc, type, 1);
        MUST(node != NULL);
        node[0] = 1;
        node[1] = word_root;
        word_root = (uintptr_t)node;
    }
    ck_assert_uint_eq(collect(gc), count);
    end(gc);
}
END_TEST

/* --- beyond all measure ------------------------------------------------------------------------------------------- */

static size_t stack_committed(vmk_gc *gc)
{
    const vmki_crew *crew = ((vmki_gc *)gc)->marking.crew;
    size_t most = 0;
    for (unsigned i = 0; i < crew->count; i++)
        most = vmki_max(most, crew->markers[i].region.committed);
    return most;
}

START_TEST(a_list_of_ten_million)
{
#if defined(VMKIT_MODEL)
    size_t count = 200000;
#elif defined(VMKIT_EMULATED)
    size_t count = 500000;
#else
    size_t count = sizeof(void *) == 8 ? 10000000 : 4000000;
#endif
    for (unsigned markers = 1; markers <= 2; markers++) {
        vmk_gc *gc = make(markers, 0);
        root_add(gc, true);
        for (size_t i = 0; i < count; i++) {
            uintptr_t *node = vmk_gc_alloc(gc, 16);
            MUST(node != NULL);
            node[0] = word_root;
            word_root = (uintptr_t)node;
        }
        ck_assert_uint_eq(collect(gc), count);
        ck_assert_uint_le(stack_committed(gc), 64 * KIB);
        end(gc);
    }
}
END_TEST

START_TEST(an_array_of_everything)
{
    size_t count = WINDOW / 256;
    for (unsigned markers = 1; markers <= 3; markers++) {
        vmk_gc *gc = make(markers, 0);
        root_add(gc, true);
        void **array = vmk_gc_alloc(gc, count * WORD);
        MUST(array != NULL);
        word_root = (uintptr_t)array;
        for (size_t i = 0; i < count; i++) {
            array[i] = i % 2 != 0 ? vmk_gc_alloc(gc, 16) : vmk_gc_alloc_leaf(gc, 32);
            MUST(array[i] != NULL);
        }
        for (size_t i = 0; i < count; i += 3)
            array[i] = NULL;
        ck_assert_uint_eq(collect(gc), count - (count + 2) / 3 + 1);
        end(gc);
    }
}
END_TEST

/* --- trees in and out of order ------------------------------------------------------------------------------------ */

typedef struct node {
    struct node *left, *right;
    uintptr_t more[2];
} node;

/* A complete tree of `count` nodes, whose i-th, by levels, is the i-th that was allocated, or any; and as much garbage
 * in between as is asked for. */
static void tree(vmk_gc *gc, size_t count, bool shuffled, unsigned garbage)
{
    support_random random = support_random_start(count);
    node **all = malloc(count * sizeof *all);
    MUST(all != NULL);
    for (size_t i = 0; i < count; i++) {
        all[i] = vmk_gc_alloc(gc, sizeof(node));
        MUST(all[i] != NULL);
        for (unsigned k = 0; k < garbage; k++)
            MUST(vmk_gc_alloc(gc, sizeof(node)) != NULL);
    }
    for (size_t i = count; shuffled && i-- > 1;) {
        size_t other = support_random_below(&random, i + 1);
        node *n = all[i];
        all[i] = all[other];
        all[other] = n;
    }
    for (size_t i = 0; i < count; i++) {
        all[i]->left = 2 * i + 1 < count ? all[2 * i + 1] : NULL;
        all[i]->right = 2 * i + 2 < count ? all[2 * i + 2] : NULL;
        all[i]->more[0] = (uintptr_t)all[support_random_below(&random, i + 1)]; /* somewhere back */
    }
    word_root = (uintptr_t)all[0];
    free(all);
}

static bool was_paged(vmk_gc *view)
{
    vmki_gc *gc = (vmki_gc *)view;
    size_t pages = ((vmk_heap *)gc->heap)->limit;
    for (size_t page = 0; gc->marking.paged && page < pages; page++) {
        const uint8_t *state = vmk_table_get(&gc->marking.pages, VMKI_PAGES_STATE, page);
        if (state != NULL && *state != VMKI_SCAN_OBJECTS)
            return true;
    }
    return false;
}

START_TEST(trees_in_any_order_by_any_number)
{
    size_t count = WINDOW / 512;
    static const unsigned numbers[] = {1, 2, 4, 8};
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned how = 0; how < 4; how++) {
            vmk_gc *gc = make(numbers[i], 0);
            root_add(gc, true);
            tree(gc, count, how % 2 != 0, how / 2);
            for (unsigned round = 0; round < 3; round++)
                ck_assert_uint_eq(collect(gc), count);
            ck_assert_uint_le(last_event(gc).markers, numbers[i]);
            ck_assert_uint_ge(last_event(gc).markers, 1);
            end(gc);
        }
    }
}
END_TEST

/* Where objects lie in the order in which they are found, pages are scanned as a whole; then the same heap gets objects
 * without any order, and back. */
START_TEST(the_way_of_marking_changes_with_the_graph)
{
    size_t count = WINDOW / 1024;
    vmk_gc *gc = make(1, 0);
    root_add(gc, true);
    tree(gc, count, false, 0);
    ck_assert_uint_eq(collect(gc), count);
    ck_assert(was_paged(gc));
    void **both = vmk_gc_alloc(gc, 4 * WORD);
    both[0] = (void *)word_root;
    tree(gc, count, true, 3);
    both[1] = (void *)word_root;
    tree(gc, count, false, 1);
    both[2] = (void *)word_root;
    word_root = (uintptr_t)both;
    for (unsigned round = 0; round < 5; round++)
        ck_assert_uint_eq(collect(gc), 3 * count + 1);
    end(gc);
}
END_TEST

static unsigned many_helped;

static void note_helpers(void *context, const vmk_gc_event *event)
{
    (void)context;
    many_helped = event->markers > many_helped ? event->markers : many_helped;
}

/* Threads do come, at the latest when they are asked often. */
START_TEST(others_help)
{
    vmk_heap_options below = {.window = WINDOW, .layout = heap_layout};
    vmk_gc_options options = {
        .markers = 4, .flags = VMK_GC_NO_STACKS | VMK_GC_NO_STATIC, .heap = &below, .on_event = note_helpers};
    vmk_gc *gc;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    vmk_gc_disable(gc);
    root_add(gc, true);
    size_t count = WINDOW / 512;
    tree(gc, count, true, 0);
    many_helped = 0;
    for (unsigned round = 0; round < 500 && many_helped < 2; round++)
        ck_assert_uint_eq(collect(gc), count);
    ck_assert_uint_ge(many_helped, 2);
    end(gc);
}
END_TEST

#ifdef VMKIT_MODEL

static void build_tree(vmk_gc *gc, size_t count)
{
    tree(gc, count, true, 0);
}

static void build_array(vmk_gc *gc, size_t count)
{
    void **array = vmk_gc_alloc(gc, count * WORD);
    MUST(array != NULL);
    for (size_t i = 0; i < count - 1; i++) {
        array[i] = vmk_gc_alloc(gc, 48);
        MUST(array[i] != NULL);
    }
    word_root = (uintptr_t)array;
}

/* Not a byte can be committed once the graph is there, not even for a stack. */
static void without_memory(unsigned markers, bool before, void (*build)(vmk_gc *gc, size_t count), size_t count)
{
    vmk_gc *gc = make(markers, 0);
    root_add(gc, true);
    if (before)
        MUST(collect(gc) == 0);
    build(gc, count);
    model_fail_nth(1, VMK_ERR_COMMIT, true);
    for (unsigned round = 0; round < 2; round++) {
        MUST(collect(gc) == count);
        if (build == build_array && markers == 1) /* else there is room enough in the stacks that markers begin with */
            MUST(last_event(gc).rescans > 0);
    }
    model_fail_nth(0, VMK_OK, false);
    MUST(collect(gc) == count);
    MUST(last_event(gc).rescans == 0);
    end(gc);
}

START_TEST(no_memory_for_stacks)
{
    for (unsigned markers = 1; markers <= 4; markers += 3) {
        for (unsigned before = 0; before < 2; before++) {
            without_memory(markers, before != 0, build_tree, 20000);
            without_memory(markers, before != 0, build_array, 60000);
        }
    }
    ck_assert_ptr_null(model_violation());
}
END_TEST

/* Each call of the system in a cycle fails once. */
START_TEST(any_call_of_a_cycle_may_fail)
{
    for (uint64_t n = 1;; n++) {
        vmk_gc *gc = make(2, 0);
        root_add(gc, true);
        tree(gc, 3000, n % 2 != 0, 1);
        model_fail_nth(n, n % 3 != 0 ? VMK_ERR_COMMIT : VMK_ERR_ADDRESS_SPACE, false);
        MUST(collect(gc) == 3000);
        bool failed = model_failed();
        model_fail_nth(0, VMK_OK, false);
        MUST(collect(gc) == 3000);
        end(gc);
        if (!failed)
            break;
        MUST(n < 1000);
    }
    ck_assert_ptr_null(model_violation());
}
END_TEST

#endif

int main(int argc, char **argv)
{
    Suite *suite = suite_create("gc_mark");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, inside_is_as_good_as_the_start);
    tcase_add_test(tcase, the_end_is_good_enough_for_what_is_not_exact);
    tcase_add_test(tcase, the_end_of_every_object_of_a_slab);
    tcase_add_test(tcase, ends_in_objects_count_where_asked_for);
    tcase_add_test(tcase, leaves_are_not_looked_into);
    tcase_add_test(tcase, what_is_no_pointer_is_passed_over);
    tcase_add_test(tcase, maps_say_which_words_are_pointers);
    tcase_add_test(tcase, functions_show_pointers);
    tcase_add_test(tcase, a_long_list_that_is_traced);
    tcase_add_test(tcase, a_list_of_ten_million);
    tcase_add_test(tcase, an_array_of_everything);
    tcase_add_test(tcase, trees_in_any_order_by_any_number);
    tcase_add_test(tcase, the_way_of_marking_changes_with_the_graph);
    tcase_add_test(tcase, others_help);
#ifdef VMKIT_MODEL
    tcase_add_test(tcase, no_memory_for_stacks);
    tcase_add_test(tcase, any_call_of_a_cycle_may_fail);
#endif
    suite_add_tcase(suite, tcase);
    return support_main(argc, argv, suite, NULL);
}
