/* SPDX-License-Identifier: MIT
 *
 * Objects that threads share: allocated here, freed there, through mailboxes, beside whoever counts, walks and trims;
 * threads that end while others free what they left; caches that come and go; heaps too. Run under ThreadSanitizer.
 */
#include <string.h>

#include "common/heap/object.h"
#include "support.h"

enum { THREADS = 4 };
#define MIB ((size_t)1 << 20)

/* In all layouts, plain and hardened. */
static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0], KINDS = 2 * LAYOUTS };

/* What went wrong first in each thread, and where: Check's assertions must not be used there. */
typedef struct verdict {
    int line[THREADS]; /* 0: all well */
} verdict;

#define RECORD(v, number, condition)                                                                                   \
    do {                                                                                                               \
        if (!(condition) && (v)->line[number] == 0)                                                                    \
            (v)->line[number] = __LINE__;                                                                              \
    } while (0)

static void assert_all_well(const verdict *v)
{
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_msg(v->line[i] == 0, "thread %u, line %d", i, v->line[i]);
}

static vmk_heap *heap_of_kind(int kind)
{
    vmk_heap *heap;
    vmk_heap_options options = {
        .layout = layouts[kind % LAYOUTS], .flags = kind < LAYOUTS ? 0 : VMK_HEAP_HARDENED, .window = 256 * MIB};
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
    return heap;
}

static vmk_object_stats objects_of(vmk_heap *heap)
{
    vmk_object_stats stats;
    vmk_object_stats_now(heap, NULL, &stats);
    return stats;
}

/* All is free, and can be given back to the last slab. */
static void heap_end(vmk_heap *heap)
{
    ck_assert(vmki_objects_check(heap));
    ck_assert_uint_eq(objects_of(heap).sum.objects, 0);
    (void)vmk_heap_trim(heap);
    vmk_object_stats stats = objects_of(heap);
    ck_assert_uint_eq(stats.sum.spans, 0);
    ck_assert_uint_eq(stats.orphans, 0);
    ck_assert(vmki_objects_check(heap));
    vmk_heap_destroy(heap);
}

/* --- an object that says whether it is whole -------------------------------------------------------------------- */

typedef struct parcel {
    size_t size;
    uintptr_t self;
} parcel;

static parcel *parcel_make(vmk_heap *heap, support_random *random)
{
    size_t kind = support_random_below(random, 64);
    size_t size = sizeof(parcel) + support_random_below(random, kind < 50 ? 200 : kind < 63 ? 3000 : 100000);
    parcel *p = kind % 2 == 0 ? vmk_heap_alloc(heap, size) : vmk_heap_alloc_zeroed(heap, size);
    if (p == NULL)
        return NULL;
    *p = (parcel){size, (uintptr_t)p};
    memset(p + 1, (int)(size & 255), vmki_min(size - sizeof *p, 100));
    if (size > sizeof *p)
        ((unsigned char *)p)[size - 1] = (unsigned char)size;
    return p;
}

static bool parcel_whole(const parcel *p)
{
    const unsigned char *bytes = (const unsigned char *)p;
    size_t shown = vmki_min(p->size - sizeof *p, 100);
    bool whole = p->self == (uintptr_t)p && (p->size == sizeof *p || bytes[p->size - 1] == (unsigned char)p->size);
    for (size_t i = 0; i < shown; i++)
        whole &= bytes[sizeof *p + i] == (unsigned char)p->size;
    return whole;
}

/* --- mailboxes -------------------------------------------------------------------------------------------------- */

enum { BOXES = 600 };

typedef struct office {
    vmk_heap *heap;
    size_t boxes[BOXES]; /* addresses of parcels, by atomic exchange */
    size_t done[THREADS];
    size_t rounds;
    size_t snapshots;
    bool observed;
    verdict verdict;
} office;

static office o;

static void office_open(int kind, size_t rounds)
{
    o = (office){.heap = heap_of_kind(kind), .rounds = support_rounds(rounds)};
}

static parcel *swap(size_t box, parcel *p)
{
    return (parcel *)VMKI_EXCHANGE(&o.boxes[box], (uintptr_t)p);
}

static void accept(parcel *p, unsigned number)
{
    if (p == NULL)
        return;
    RECORD(&o.verdict, number, parcel_whole(p));
    RECORD(&o.verdict, number, vmk_heap_owns(o.heap, p) && vmk_heap_usable_size(o.heap, p) >= p->size);
    vmk_heap_free(o.heap, p);
}

static void office_close(void)
{
    assert_all_well(&o.verdict);
    ck_assert(vmki_objects_check(o.heap));
    for (size_t i = 0; i < BOXES; i++)
        accept(swap(i, NULL), 0);
    assert_all_well(&o.verdict);
    heap_end(o.heap);
}

static void send_and_receive(unsigned number, support_random *random)
{
    parcel *p = parcel_make(o.heap, random);
    RECORD(&o.verdict, number, p != NULL);
    p = swap(support_random_below(random, BOXES), p);
    if (p != NULL && support_random_below(random, 8) == 0) {
        size_t size = p->size;
        RECORD(&o.verdict, number, parcel_whole(p));
        parcel *moved = vmk_heap_realloc(o.heap, p, size + support_random_below(random, 500));
        RECORD(&o.verdict, number, moved != NULL && moved->size == size);
        moved->self = (uintptr_t)moved;
        p = moved;
    }
    accept(p, number);
}

static bool everybody_is_done(void)
{
    for (unsigned i = 1; i < THREADS; i++)
        if (VMK_LOAD_ACQUIRE(&o.done[i]) == 0)
            return false;
    return true;
}

static bool count_object(void *context, void *object, size_t usable)
{
    size_t *count = context;
    if ((uintptr_t)object % VMK_OBJECT_ALIGN == 0 && usable >= 8)
        ++*count;
    return true;
}

/* Count, walk, ask and trim, as the others go on. */
static void observe(support_random *random)
{
    vmk_object_stats stats;
    vmk_heap_stats figures;
    size_t walked = 0;
    vmk_object_stats_now(o.heap, NULL, &stats);
    RECORD(&o.verdict, 0, stats.sum.bytes <= stats.sum.span_bytes && stats.caches <= THREADS);
    vmk_object_walk(o.heap, count_object, &walked);
    vmk_heap_stats_now(o.heap, &figures);
    RECORD(&o.verdict, 0, figures.spans <= 10000);
    (void)vmk_heap_owns(o.heap, (void *)(uintptr_t)VMK_LOAD_ACQUIRE(&o.boxes[support_random_below(random, BOXES)]));
    if (support_random_below(random, 4) == 0)
        (void)vmk_heap_trim(o.heap);
    if (support_random_below(random, 4) == 0)
        vmk_object_stats_now(o.heap, vmk_cache_attach(o.heap), &stats);
    o.snapshots++;
}

static void mail(void *argument, unsigned number)
{
    support_random random = support_random_start(100 + number);
    (void)argument;
    if (number == 0 && o.observed) {
        do /* once at least, even if the others were quicker than this thread's start */
            observe(&random);
        while (!everybody_is_done());
        return;
    }
    for (size_t i = 0; i < o.rounds; i++) {
        send_and_receive(number, &random);
        if (i % 1024 == number)
            (void)vmk_heap_trim(o.heap);
    }
    VMKI_STORE_RELEASE(&o.done[number], 1);
}

START_TEST(what_one_allocates_another_frees)
{
    office_open(_i, 40000);
    support_threads(THREADS, mail, NULL);
    office_close();
}
END_TEST

START_TEST(who_counts_and_trims_disturbs_nobody)
{
    office_open(_i, 20000);
    o.observed = true;
    support_threads(THREADS, mail, NULL);
    ck_assert_uint_gt(o.snapshots, 0);
    office_close();
}
END_TEST

/* --- caches that come and go ------------------------------------------------------------------------------------ */

static void come_and_go(void *argument, unsigned number)
{
    support_random random = support_random_start(200 + number);
    (void)argument;
    for (size_t i = 0; i < o.rounds; i++) {
        for (size_t k = support_random_below(&random, 40); k > 0; k--)
            send_and_receive(number, &random);
        if (support_random_below(&random, 4) == 0)
            RECORD(&o.verdict, number, vmk_cache_attach(o.heap) != NULL);
        if (support_random_below(&random, 2) == 0)
            vmk_cache_detach(o.heap);
        for (size_t k = support_random_below(&random, 10); k > 0; k--) /* now and then without a cache */
            accept(swap(support_random_below(&random, BOXES), NULL), number);
    }
}

START_TEST(caches_come_and_go)
{
    office_open(_i, 2000);
    support_threads(THREADS, come_and_go, NULL);
    office_close();
}
END_TEST

/* Half of the threads fill slabs to the brim and leave, as the others, who never have a cache, free all that. */
static void leave_in_a_hurry(void *argument, unsigned number)
{
    support_random random = support_random_start(300 + number);
    (void)argument;
    for (size_t i = 0; i < o.rounds; i++) {
        if (number % 2 == 0) {
            for (size_t box = number / 2; box < BOXES; box += THREADS / 2) {
                parcel *p = vmk_heap_alloc(o.heap, 8000);
                RECORD(&o.verdict, number, p != NULL);
                *p = (parcel){sizeof *p, (uintptr_t)p};
                p = swap(box, p);
                accept(p, number);
            }
            vmk_cache_detach(o.heap);
        } else {
            for (size_t box = 0; box < BOXES; box++)
                accept(swap((box + number) % BOXES, NULL), number);
            if (support_random_below(&random, 8) == 0)
                support_yield();
        }
    }
}

START_TEST(slabs_are_left_while_others_free_them)
{
    office_open(_i, 60);
    support_threads(THREADS, leave_in_a_hurry, NULL);
    office_close();
}
END_TEST

/* --- producers and consumers ------------------------------------------------------------------------------------ */

/* Consumers have no cache. What is on the way is bounded, so memory is. */
static void produce_or_consume(void *argument, unsigned number)
{
    size_t lane = number / 2 * (BOXES / 2);
    (void)argument;
    for (size_t i = 0; i < o.rounds;) {
        size_t box = lane + i % (BOXES / 2);
        bool there = VMK_LOAD_ACQUIRE(&o.boxes[box]) != 0;
        if (there == (number % 2 == 0)) {
            support_yield();
            continue;
        }
        parcel *p = NULL;
        if (number % 2 == 0) {
            p = vmk_heap_alloc(o.heap, 300);
            RECORD(&o.verdict, number, p != NULL);
            *p = (parcel){sizeof *p, (uintptr_t)p};
        }
        accept(swap(box, p), number);
        i++;
    }
}

START_TEST(producers_and_consumers_take_no_more_and_more)
{
    vmk_heap_stats figures;
    office_open(_i, 60000);
    support_threads(THREADS, produce_or_consume, NULL);
    vmk_heap_stats_now(o.heap, &figures);
    ck_assert_uint_lt(figures.in_use_peak, 3 * MIB); /* 600 of 300 bytes */
    office_close();
}
END_TEST

/* --- succession ------------------------------------------------------------------------------------------------- */

/* Each generation frees what the one before has left, in another order, and leaves as much. */
static void live_and_die(void *argument, unsigned number)
{
    size_t generation = *(size_t *)argument;
    support_random random = support_random_start(400 + number + 16 * generation);
    for (size_t i = number; i < BOXES; i += THREADS) {
        parcel *p = parcel_make(o.heap, &random);
        RECORD(&o.verdict, number, p != NULL);
        accept(swap((i + generation) % BOXES, p), number);
    }
}

START_TEST(threads_follow_each_other)
{
    vmk_heap_stats figures;
    size_t early = 0;
    office_open(_i, 150);
    for (size_t generation = 0; generation < o.rounds; generation++) {
        support_threads(THREADS, live_and_die, &generation);
        assert_all_well(&o.verdict);
        ck_assert_uint_eq(objects_of(o.heap).sum.objects, BOXES);
        ck_assert_uint_eq(objects_of(o.heap).caches, 0);
        if (generation % 32 == 0)
            ck_assert(vmki_objects_check(o.heap));
        vmk_heap_stats_now(o.heap, &figures);
        if (generation == 10)
            early = figures.in_use;
    }
    ck_assert_uint_lt(figures.in_use, early * 2 + 4 * MIB);
    office_close();
}
END_TEST

/* Thousands of threads that do little: spans and caches are as many as after a few. */
static void be_short(void *argument, unsigned number)
{
    size_t round = *(size_t *)argument;
    for (size_t i = 0; i < 5; i++) {
        size_t box = (round * 5 + i) * THREADS % BOXES + number;
        parcel *p = vmk_heap_alloc(o.heap, sizeof(parcel) + (round + i) % 20 * 100);
        RECORD(&o.verdict, number, p != NULL);
        *p = (parcel){sizeof *p, (uintptr_t)p};
        accept(swap(box % BOXES, p), number);
    }
}

START_TEST(thousands_of_threads_leave_no_more_than_a_few)
{
    vmk_object_stats early = {0}, late;
    office_open(_i, 1000);
    for (size_t round = 0; round < o.rounds; round++) {
        support_threads(THREADS, be_short, &round);
        if (round == 200)
            early = objects_of(o.heap);
    }
    late = objects_of(o.heap);
    ck_assert_uint_eq(late.caches, 0);
    if (early.sum.spans != 0) {
        ck_assert_uint_le(late.sum.spans, 2 * early.sum.spans);
        /* As many as there were threads at once, which early on may have been but one. */
        ck_assert_uint_le(late.cache_bytes, THREADS * early.cache_bytes);
    }
    office_close();
}
END_TEST

/* --- heaps that come and go ------------------------------------------------------------------------------------- */

/* Numbers are used again, in threads that had caches of the heaps before. No limited heaps: what others map beside one
 * may lie in its window. */
static void heaps_of_ones_own(void *argument, unsigned number)
{
    support_random random = support_random_start(500 + number);
    (void)argument;
    for (size_t i = 0; i < o.rounds; i++) {
        vmk_heap *heap;
        vmk_heap_options options = {.layout = VMK_LAYOUT_64, .window = 8 * MIB, .flags = i % 2 ? VMK_HEAP_HARDENED : 0};
        if (vmk_heap_create(&heap, &options) != VMK_OK) {
            RECORD(&o.verdict, number, false);
            return;
        }
        for (int k = 0; k < 50; k++) {
            parcel *p = parcel_make(heap, &random);
            RECORD(&o.verdict, number, p != NULL && vmk_heap_owns(heap, p) && !vmk_heap_owns(o.heap, p));
            if (p != NULL && k % 3 == 0)
                vmk_heap_free(heap, p);
            send_and_receive(number, &random); /* in the heap that all share */
        }
        RECORD(&o.verdict, number, vmki_objects_check(heap));
        vmk_heap_destroy(heap);
    }
}

START_TEST(heaps_come_and_go)
{
    office_open(_i, 100);
    support_threads(THREADS, heaps_of_ones_own, NULL);
    office_close();
}
END_TEST

static void make_default(void *argument, unsigned number)
{
    void **made = argument;
    made[number] = vmk_heap_alloc(NULL, 100);
    made[THREADS + number] = vmk_heap_default();
}

/* The first test of all. */
START_TEST(the_default_heap_is_made_once)
{
    void *made[2 * THREADS];
    support_threads(THREADS, make_default, made);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_ptr_nonnull(made[i]);
        ck_assert_ptr_eq(made[THREADS + i], made[THREADS]);
        vmk_heap_free(NULL, made[i]);
    }
    vmk_stats stats;
    vmk_stats_now(&stats);
    /* No second heap is left: one, that of 32 bits in two regions, two tables of objects, and threads. */
    ck_assert_uint_le(stats.regions, 5);
    ck_assert(vmki_objects_check(vmk_heap_default()));
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_threads");
    TCase *tests = tcase_create("object_threads");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, the_default_heap_is_made_once);
    tcase_add_loop_test(tests, what_one_allocates_another_frees, 0, KINDS);
    tcase_add_loop_test(tests, who_counts_and_trims_disturbs_nobody, 0, KINDS);
    tcase_add_loop_test(tests, caches_come_and_go, 0, KINDS);
    tcase_add_loop_test(tests, slabs_are_left_while_others_free_them, 0, KINDS);
    tcase_add_loop_test(tests, producers_and_consumers_take_no_more_and_more, 0, KINDS);
    tcase_add_loop_test(tests, threads_follow_each_other, 0, KINDS);
    tcase_add_loop_test(tests, thousands_of_threads_leave_no_more_than_a_few, 0, KINDS);
    tcase_add_loop_test(tests, heaps_come_and_go, 0, KINDS);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
