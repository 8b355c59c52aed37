/* SPDX-License-Identifier: MIT
 *
 * Every interleaving of a reader of the index set with a writer, as far as one pause of each makes them: the reader
 * stops before its k-th load, the writer starts, and stops before its j-th store; the reader goes on to its end, then
 * the writer. For all k and all j that there are. Chance hardly ever finds these: the windows are a few nanoseconds
 * wide, and the writer's work that must fall into them is long.
 *
 * The code under test is compiled into this file, with loads and stores that stop. Two threads pass a baton, so only
 * one runs at a time, and what runs is known. What compilers and processors may reorder besides is not seen here;
 * ThreadSanitizer, in test_index_set.c, sees that.
 */
#include "common/base/check.h"
#include "common/base/os.h"
#include "common/table/index_set.h"
#include "common/vm/vm.h"
#include "support.h"

/* --- the baton -------------------------------------------------------------------------------------------------- */

typedef enum runner { READER, WRITER } runner;

static struct {
    size_t baton;         /* runner */
    bool armed;           /* are loads and stores counted? */
    runner counted;       /* whose are: the running one's */
    size_t loads, stores; /* so far */
    size_t stop_load;     /* the loads and stores to stop before; 0: none */
    size_t stop_store;
    bool writer_done;
    bool over;
} steps;

static size_t plain_load(const size_t *pointer)
{
    return VMK_LOAD_ACQUIRE(pointer);
}

static void plain_store(size_t *pointer, size_t value)
{
    VMKI_STORE_RELEASE(pointer, value);
}

/* Let the other one run until it passes the baton back. */
static void pass_baton(runner to)
{
    steps.counted = to;
    plain_store(&steps.baton, to);
    while (plain_load(&steps.baton) == (size_t)to)
        support_yield();
}

static size_t stepping_load(const size_t *pointer)
{
    if (steps.armed && steps.counted == READER && ++steps.loads == steps.stop_load)
        pass_baton(WRITER);
    return plain_load(pointer);
}

static void stepping_store(size_t *pointer, size_t value)
{
    if (steps.armed && steps.counted == WRITER && ++steps.stores == steps.stop_store)
        pass_baton(READER);
    plain_store(pointer, value);
}

#undef VMK_LOAD_ACQUIRE
#undef VMKI_STORE_RELEASE
#define VMK_LOAD_ACQUIRE(pointer) stepping_load(pointer)
#define VMKI_STORE_RELEASE(pointer, value) stepping_store((pointer), (value))
#define vmki_index_set_space_overflow stepping_space_overflow
#define vmki_index_set_init stepping_init
#define vmki_index_set_prepare_add stepping_prepare_add
#define vmki_index_set_prepare_remove stepping_prepare_remove
#define vmki_index_set_add stepping_add
#define vmki_index_set_remove stepping_remove
#define vmki_index_set_contains stepping_contains
#define vmki_index_set_any stepping_any
#define vmki_index_set_committed stepping_committed
#define vmki_index_set_check stepping_check
bool stepping_space_overflow(size_t capacity, size_t chunk_shift, size_t *size);
void stepping_init(vmki_index_set *set, vmk_region *region, size_t offset, size_t capacity, size_t chunk_shift);
vmk_status stepping_prepare_add(vmki_index_set *set, size_t first, size_t count);
vmk_status stepping_prepare_remove(vmki_index_set *set, size_t first, size_t count);
void stepping_add(vmki_index_set *set, size_t first, size_t count);
void stepping_remove(vmki_index_set *set, size_t first, size_t count);
bool stepping_contains(const vmki_index_set *set, size_t index);
bool stepping_any(const vmki_index_set *set, size_t first, size_t count);
size_t stepping_committed(const vmki_index_set *set);
bool stepping_check(const vmki_index_set *set);
#include "../src/common/table/index_set.c"

/* --- scenes ----------------------------------------------------------------------------------------------------- */

enum { SHIFT = 6, CHUNK = 1 << SHIFT };

static vmk_region region;
static vmki_index_set set;
static size_t refused;

static void add(size_t first, size_t count)
{
    vmki_vm_lock();
    if (vmki_index_set_prepare_add(&set, first, count) == VMK_OK)
        vmki_index_set_add(&set, first, count);
    else
        refused++;
    vmki_vm_unlock();
}

static void take_out(size_t first, size_t count)
{
    vmki_vm_lock();
    if (vmki_index_set_prepare_remove(&set, first, count) == VMK_OK)
        vmki_index_set_remove(&set, first, count);
    else
        refused++;
    vmki_vm_unlock();
}

/* What is there before, what the writer does meanwhile, and what a reader must see throughout. */
typedef struct scene {
    void (*before)(void);
    void (*meanwhile)(void);
    size_t index;
    bool in;
    size_t stride; /* of the stores to stop at, which begin anywhere in it */
} scene;

static void nothing(void)
{
}

/* Chunk 0 has its even indices. */
static void before_even(void)
{
    for (size_t i = 0; i < CHUNK; i += 2)
        add(i, 1);
}

/* It becomes full; its mask becomes chunk 1's, with a few bits, then nobody's. */
static void fill_and_use_mask(void)
{
    add(0, CHUNK);
    add(CHUNK + 1, 3);
    take_out(CHUNK, CHUNK);
}

/* It becomes full, then has its even indices again, in the mask that it had; or, the other way, chunk 1 has got that.
 */
static void fill_and_empty_again(void)
{
    add(0, CHUNK);
    add(CHUNK + 7, 1);
    for (size_t i = 1; i < CHUNK; i += 2)
        take_out(i, 1);
}

/* It becomes empty but for index 3; its mask becomes chunk 1's, with all bits but one. Index 9 is never in. */
static void before_few(void)
{
    add(3, 2);
}

static void empty_and_use_mask(void)
{
    take_out(0, CHUNK);
    add(CHUNK, CHUNK - 1);
    add(5, 1);
}

static void before_full(void)
{
    add(0, CHUNK);
    add(CHUNK, CHUNK / 2);
}

/* Index 2 stays; chunk 1 gives masks and takes them. */
static void cut_and_fill(void)
{
    take_out(10, 20);
    take_out(CHUNK, CHUNK);
    add(10, 20);
    add(CHUNK + 1, 1);
    take_out(40, 1);
}

/* A page of entries, nearly all it may hold, most of them dead; chunks 0 and 2 stay, the one by mask, the other whole.
 */
static size_t page_of_entries(void)
{
    return vmk_page_size() / (2 * sizeof(size_t));
}

static void before_moving(void)
{
    add(7, 1);
    add(2 * CHUNK, CHUNK);
    for (size_t chunk = 4; chunk < page_of_entries() / 4 * 3; chunk++) {
        add(chunk * CHUNK, CHUNK);
        take_out(chunk * CHUNK, CHUNK);
    }
}

/* The table moves to the other half, and back again: of the same size, for the dead are left behind. */
static void move_twice(void)
{
    size_t most = page_of_entries() * 2;
    for (size_t chunk = page_of_entries(), version = set.version; set.version < version + 2 && chunk < most; chunk++) {
        add(chunk * CHUNK, CHUNK);
        if (set.version < version + 2)
            take_out(chunk * CHUNK, CHUNK);
    }
}

/* The same, to larger sizes. */
static void move_and_grow(void)
{
    add(page_of_entries() * CHUNK, page_of_entries() / 2 * CHUNK);
    add(2 * page_of_entries() * CHUNK, page_of_entries() * CHUNK);
}

/* The first half comes to be used again while its mask-holder has become full and its mask another's. */
static void move_and_use_mask(void)
{
    add(0, CHUNK);
    move_twice();
    add(CHUNK + 1, 1);
}

/* --- playing them ----------------------------------------------------------------------------------------------- */

typedef struct outcome {
    size_t wrong;
    size_t plays;
    bool sound;
} outcome;

static outcome result;

/* One pause each. False if the reader has not so many loads. */
static bool play(const scene *s, size_t load, size_t store)
{
    size_t size = region.size;
    vmki_index_set_init(&set, &region, 0, 6 * page_of_entries() * CHUNK, SHIFT);
    s->before();
    steps.loads = steps.stores = 0;
    steps.stop_load = load;
    steps.stop_store = store;
    steps.writer_done = false;
    steps.counted = READER;
    steps.armed = true;
    bool found = vmki_index_set_contains(&set, s->index);
    size_t loads = steps.loads;
    if (loads >= load && !steps.writer_done)
        pass_baton(WRITER);
    steps.armed = false;
    result.plays++;
    result.wrong += found != s->in;
    result.sound = result.sound && vmki_index_set_check(&set) && vmk_decommit(&region, 0, size) == VMK_OK;
    return loads >= load;
}

static void play_all(const scene *s)
{
    support_random random = support_random_start(s->index);
    bool loads_left = true;
    for (size_t load = 1; loads_left; load++) {
        bool stores_left = true;
        size_t first = 1 + support_random_below(&random, s->stride);
        for (size_t store = first; loads_left && stores_left; store += s->stride) {
            loads_left = play(s, load, store);
            stores_left = steps.stores >= store;
        }
    }
    steps.over = true;
    steps.counted = WRITER;
    plain_store(&steps.baton, WRITER);
}

static void body(void *argument, unsigned number)
{
    const scene *s = argument;
    if (number == READER) {
        play_all(s);
        return;
    }
    for (;;) {
        while (plain_load(&steps.baton) == READER)
            support_yield();
        if (steps.over)
            return;
        s->meanwhile();
        steps.writer_done = true;
        steps.counted = READER;
        plain_store(&steps.baton, READER);
    }
}

static void stage(void (*before)(void), void (*meanwhile)(void), size_t index, bool in, size_t stride)
{
    scene s = {before, meanwhile, index, in, stride};
    size_t size = 0;
    steps.over = false;
    steps.baton = READER;
    refused = 0;
    result = (outcome){.sound = true};
    ck_assert(!vmki_index_set_space_overflow(6 * page_of_entries() * CHUNK, SHIFT, &size));
    ck_assert_int_eq(vmk_reserve(&region, size, NULL), VMK_OK);
    support_threads(2, body, &s);
    vmk_release(&region);
    ck_assert_uint_eq(refused, 0);
    ck_assert(result.sound);
    ck_assert_uint_gt(result.plays, 5);
    ck_assert_msg(result.wrong == 0, "%zu wrong answers of %zu", result.wrong, result.plays);
}

START_TEST(a_mask_is_used_again)
{
    stage(before_even, fill_and_use_mask, 2, true, 1);
    stage(before_even, fill_and_use_mask, CHUNK - 2, true, 1);
    stage(before_even, fill_and_use_mask, CHUNK, false, 1);
    stage(before_even, fill_and_empty_again, 4, true, 1);
    stage(before_even, fill_and_empty_again, CHUNK + 6, false, 1);
    stage(before_few, empty_and_use_mask, 9, false, 1);
    stage(before_few, empty_and_use_mask, 2 * CHUNK - 1, false, 1);
}
END_TEST

START_TEST(a_full_chunk_is_cut)
{
    stage(before_full, cut_and_fill, 2, true, 1);
    stage(before_full, cut_and_fill, CHUNK - 1, true, 1);
    stage(before_full, cut_and_fill, 2 * CHUNK - 1, false, 1);
}
END_TEST

START_TEST(the_first_use)
{
    stage(nothing, fill_and_use_mask, CHUNK, false, 1);
    stage(nothing, before_even, 5, false, 1);
}
END_TEST

/* The halves are pages: the larger they are, the fewer of the stores are tried. */
START_TEST(the_table_moves)
{
    size_t stride = 11 * (vmk_page_size() / 4096) * (vmk_page_size() / 4096);
    stage(before_moving, move_twice, 7, true, stride);
    stage(before_moving, move_twice, 8, false, stride);
    stage(before_moving, move_twice, 2 * CHUNK + 5, true, stride);
    stage(before_moving, move_twice, 3 * CHUNK, false, stride);
    stage(before_moving, move_and_grow, 7, true, 3 * stride);
    stage(before_moving, move_and_grow, 2 * CHUNK + 5, true, 3 * stride);
    stage(before_moving, move_and_grow, 3 * CHUNK, false, 3 * stride);
    stage(before_moving, move_and_use_mask, 7, true, stride);
    stage(before_moving, move_and_use_mask, CHUNK + 7, false, stride);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("index_set_steps");
    TCase *c = tcase_create("index_set_steps");
    tcase_set_timeout(c, 0);
    tcase_add_test(c, a_mask_is_used_again);
    tcase_add_test(c, a_full_chunk_is_cut);
    tcase_add_test(c, the_first_use);
    tcase_add_test(c, the_table_moves);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
