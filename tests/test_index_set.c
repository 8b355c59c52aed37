/* SPDX-License-Identifier: MIT
 *
 * The set of ready elements of a sparse table, against an array of bools; with commits that fail (on the model OS),
 * with readers at work, and with an eye on what it costs.
 */
#include <stdlib.h>
#include <string.h>

#include "common/table/index_set.h"
#include "common/vm/vm.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model/model.h"
#endif

/* For conditions in loops: Check writes a note to a file at each of its own, passed or not. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

/* A set and what should be in it. */
typedef struct world {
    vmk_region region;
    vmki_index_set set;
    size_t capacity;
    bool *in;
    size_t count;
    support_random random;
} world;

static void set_start(vmk_region *region, vmki_index_set *set, size_t capacity, size_t chunk_shift)
{
    size_t size;
    size_t page = vmk_page_size();
    ck_assert(!vmki_index_set_space_overflow(capacity, chunk_shift, &size));
    ck_assert_uint_eq(size % page, 0);
    ck_assert_int_eq(vmk_reserve(region, size + 3 * page, NULL), VMK_OK);
    vmki_index_set_init(set, region, page, capacity,
                        chunk_shift); /* not at the beginning of the region, nor to its end */
    ck_assert_uint_eq(region->committed, 0);
    ck_assert(vmki_index_set_check(set));
}

static void set_end(vmk_region *region, const vmki_index_set *set)
{
    ck_assert_uint_eq(vmki_index_set_committed(set), region->committed);
    ck_assert(vmki_region_check(region));
    ck_assert_int_eq(vmk_region_query(region, 0, NULL), VMK_STATE_RESERVED);
    ck_assert_int_eq(vmk_region_query(region, region->size - 1, NULL), VMK_STATE_RESERVED);
    vmk_release(region);
}

static void world_start(world *w, size_t capacity, size_t chunk_shift, uint64_t salt)
{
    memset(w, 0, sizeof *w);
    set_start(&w->region, &w->set, capacity, chunk_shift);
    w->capacity = capacity;
    w->in = calloc(capacity, sizeof *w->in);
    ck_assert_ptr_nonnull(w->in);
    w->random = support_random_start(salt);
}

static void world_end(world *w)
{
    free(w->in);
    set_end(&w->region, &w->set);
}

static size_t below(world *w, size_t limit)
{
    return support_random_below(&w->random, limit);
}

/* Only what prepare promises stands between an operation and its success. */
static vmk_status locked_prepare(vmki_index_set *set, bool add, size_t first, size_t count)
{
    vmki_vm_lock();
    vmk_status status =
        add ? vmki_index_set_prepare_add(set, first, count) : vmki_index_set_prepare_remove(set, first, count);
    vmki_vm_unlock();
    return status;
}

static void locked_apply(vmki_index_set *set, bool add, size_t first, size_t count)
{
    vmki_vm_lock();
    if (add)
        vmki_index_set_add(set, first, count);
    else
        vmki_index_set_remove(set, first, count);
    vmki_vm_unlock();
}

static void must_change(vmki_index_set *set, bool add, size_t first, size_t count)
{
    MUST(locked_prepare(set, add, first, count) == VMK_OK);
    locked_apply(set, add, first, count);
}

static bool any_expected(const world *w, size_t first, size_t count)
{
    return count != 0 && memchr(w->in + first, true, count) != NULL;
}

static void apply(world *w, bool add, size_t first, size_t count)
{
    locked_apply(&w->set, add, first, count);
    size_t had = 0;
    for (size_t i = first; i < first + count; i++)
        had += w->in[i];
    memset(w->in + first, add, count);
    w->count = w->count - had + (add ? count : 0);
}

static void compare_at(const world *w, size_t index)
{
    MUST(index >= w->capacity || vmki_index_set_contains(&w->set, index) == w->in[index]);
}

static void compare_all(const world *w)
{
    for (size_t i = 0; i < w->capacity; i++)
        compare_at(w, i);
    MUST(w->set.count == w->count);
    MUST(vmki_index_set_check(&w->set));
}

/* A range of one of the kinds that matter: one index, a few, whole chunks, nearly whole ones, anything. */
static void random_range(world *w, size_t *first, size_t *count)
{
    size_t chunk = (size_t)1 << w->set.chunk_shift;
    size_t from = below(w, w->capacity);
    size_t size = 1;
    switch (below(w, 8)) {
    case 0:
    case 1:
        break;
    case 2:
    case 3:
        size = below(w, 100);
        break;
    case 4:
    case 5:
        from = vmki_floor(from, chunk);
        size = chunk * (1 + below(w, 3));
        break;
    case 6:
        from = vmki_min(vmki_floor(from, chunk) + below(w, 3), w->capacity - 1);
        size = chunk - below(w, 4);
        break;
    default:
        size = below(w, 64) == 0 ? w->capacity : 1 + below(w, 8 * chunk);
        break;
    }
    *first = from;
    *count = vmki_min(size, w->capacity - from);
}

/* Adding comes in waves, so that the set fills and empties. */
static bool random_add(world *w, size_t step)
{
    return below(w, 8) < (step / 2000 % 2 == 0 ? 5u : 3u);
}

static void random_step(world *w, size_t step)
{
    size_t first, count;
    random_range(w, &first, &count);
    bool any = any_expected(w, first, count);
    MUST(vmki_index_set_any(&w->set, first, count) == any);
    bool add = random_add(w, step);
    MUST(locked_prepare(&w->set, add, first, count) == VMK_OK);
    apply(w, add, first, count);
    compare_at(w, first - 1); /* none if first is 0: then it is past the capacity */
    compare_at(w, first);
    compare_at(w, first + count - 1);
    compare_at(w, first + count);
    for (int i = 0; i < 4; i++)
        compare_at(w, below(w, w->capacity));
    MUST(w->set.count == w->count);
}

static void random_test(size_t capacity, size_t chunk_shift, size_t steps, size_t between_checks)
{
    world w;
    world_start(&w, capacity, chunk_shift, capacity + chunk_shift);
    for (size_t step = 0; step < steps; step++) {
        random_step(&w, step);
        if (step % between_checks == 0)
            MUST(vmki_index_set_check(&w.set));
    }
    compare_all(&w);
    world_end(&w);
}

START_TEST(random_against_an_array)
{
    random_test(64 * 90 + 17, 6, support_rounds(150000), 4);
    random_test(128 * 30, 7, support_rounds(150000), 3);
    random_test(1000, 9, support_rounds(50000), 1);
    random_test(4096 * 20 + 1, 12, support_rounds(20000), 16);
    random_test(32768 * 5 - 1, 15, support_rounds(10000), 32);
}
END_TEST

/* Enough chunks to move the hash table to larger sizes and back to smaller ones. */
START_TEST(random_with_many_chunks)
{
    random_test(64 * 5000 + 1, 6, support_rounds(50000), 2000);
    random_test((size_t)1 << 20, 6, support_rounds(30000), 10000);
}
END_TEST

START_TEST(edges)
{
    static const size_t capacities[] = {1, 63, 64, 65, 100, 4096, 40000};
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
        for (size_t shift = VMKI_CHUNK_SHIFT_MIN; shift <= VMKI_CHUNK_SHIFT_MAX; shift += 3) {
            world w;
            size_t capacity = capacities[i];
            world_start(&w, capacity, shift, 1);
            compare_all(&w);
            ck_assert(!vmki_index_set_any(&w.set, 0, capacity));
            must_change(&w.set, true, capacity, 0);
            must_change(&w.set, false, 0, 0);
            must_change(&w.set, false, 0, capacity);
            ck_assert_uint_eq(vmki_index_set_committed(&w.set), 0); /* nothing was put in so far */
            const size_t ranges[][2] = {{capacity - 1, 1}, {0, 1}, {0, capacity}, {capacity - 1, 1}, {0, capacity}};
            for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
                must_change(&w.set, true, ranges[r][0], ranges[r][1]);
                apply(&w, true, ranges[r][0], ranges[r][1]);
                compare_all(&w);
                ck_assert(vmki_index_set_any(&w.set, 0, capacity));
            }
            ck_assert(!vmki_index_set_contains(&w.set, capacity));
            ck_assert(!vmki_index_set_contains(&w.set, SIZE_MAX));
            must_change(&w.set, false, capacity - 1, 1);
            apply(&w, false, capacity - 1, 1);
            compare_all(&w);
            must_change(&w.set, false, 0, capacity);
            apply(&w, false, 0, capacity);
            compare_all(&w);
            ck_assert(!vmki_index_set_any(&w.set, 0, capacity));
            world_end(&w);
        }
    }
}
END_TEST

START_TEST(space_is_checked)
{
    size_t size = 0;
    size_t largest = 0;
    /* two halves of 2^63 bytes; words and addresses of 32 bits leave room for all chunks */
    bool overflows = vmki_index_set_space_overflow(SIZE_MAX, VMKI_CHUNK_SHIFT_MIN, &size);
    ck_assert_int_eq(overflows, SIZE_MAX > UINT32_MAX);
    for (size_t shift = VMKI_CHUNK_SHIFT_MIN; shift <= VMKI_CHUNK_SHIFT_MAX; shift++) {
        size_t before = 0;
        for (size_t log2 = 0; log2 < sizeof(size_t) * 8; log2++) {
            if (vmki_index_set_space_overflow((size_t)1 << log2, shift, &size))
                continue;
            ck_assert_uint_ge(size, before); /* once it overflows it goes on to do so, and never wraps round before */
            ck_assert_uint_ge(size, ((size_t)1 << log2) / 8);
            before = size;
            largest = vmki_max(largest, size);
        }
    }
    ck_assert_uint_gt(largest, SIZE_MAX / 32);
}
END_TEST

/* --- what it costs ---------------------------------------------------------------------------------------------- */

/* The model has no more than 256 MiB of addresses, and 32 bits not much more. */
#if defined(VMKIT_MODEL) || SIZE_MAX <= UINT32_MAX
static const size_t far_capacity = (size_t)1 << 27;
#else
static const size_t far_capacity = (size_t)1 << 33;
#endif

START_TEST(few_elements_far_apart_cost_few_pages)
{
    vmk_region region;
    vmki_index_set set;
    set_start(&region, &set, far_capacity, 10);
    size_t stride = far_capacity / 64;
    for (size_t i = 0; i < 64; i++)
        must_change(&set, true, i * stride, 1);
    ck_assert_uint_le(vmki_index_set_committed(&set), 4 * vmk_page_size());
    ck_assert(vmki_index_set_check(&set));
    for (size_t i = 0; i < 64; i++)
        ck_assert(vmki_index_set_contains(&set, i * stride) && !vmki_index_set_contains(&set, i * stride + 1));
    set_end(&region, &set);
}
END_TEST

START_TEST(removing_costs_nothing)
{
    vmk_region region;
    vmki_index_set set;
    set_start(&region, &set, far_capacity, 10);
    must_change(&set, true, far_capacity / 2, 1024);
    size_t committed = vmki_index_set_committed(&set);
    for (int i = 0; i < 1000; i++)
        must_change(&set, false, 1, far_capacity / 2 - 1); /* millions of chunks that have nothing in the set */
    ck_assert_uint_eq(vmki_index_set_committed(&set), committed);
    must_change(&set, false, 1, far_capacity - 2);
    ck_assert_uint_eq(set.count, 0);
    ck_assert_uint_eq(vmki_index_set_committed(&set), committed);
    set_end(&region, &set);
}
END_TEST

START_TEST(whole_chunks_need_no_masks)
{
    vmk_region region;
    vmki_index_set set;
    set_start(&region, &set, far_capacity, 15);
    must_change(&set, true, 0, far_capacity / 4);
    ck_assert_uint_eq(set.count, far_capacity / 4);
    ck_assert_uint_eq(set.masks_committed, 0);
    size_t entries = (far_capacity / 4) >> 15;
    ck_assert_uint_le(vmki_index_set_committed(&set), vmki_max(2 * vmk_page_size(), 4 * entries * 2 * sizeof(size_t)));
    must_change(&set, false, 1, far_capacity / 4 - 2);
    ck_assert_uint_eq(set.count, 2);
    ck_assert(vmki_index_set_contains(&set, 0) && vmki_index_set_contains(&set, far_capacity / 4 - 1));
    ck_assert(!vmki_index_set_contains(&set, 1));
    ck_assert_uint_eq(set.masks_made, 2);
    ck_assert(vmki_index_set_check(&set));
    set_end(&region, &set);
}
END_TEST

/* A range that begins and ends inside of chunks needs two masks. One is free and no other one is committed. */
START_TEST(two_masks_and_one_free)
{
    vmk_region region;
    vmki_index_set set;
    size_t chunk = (size_t)1 << VMKI_CHUNK_SHIFT_MAX;
    set_start(&region, &set, 40 * chunk, VMKI_CHUNK_SHIFT_MAX);
    size_t chunks = 0;
    do
        must_change(&set, true, chunk * chunks++, 1);
    while (set.masks_made * chunk / 8 != set.masks_committed);
    must_change(&set, false, 0, 1);
    must_change(&set, true, chunk * (chunks + 1) - 1, 2);
    ck_assert(vmki_index_set_check(&set));
    must_change(&set, false, 0, chunk * chunks);
    must_change(&set, true, chunk * 37, 3 * chunk);
    ck_assert_uint_eq(set.count, 2 + 3 * chunk);
    set_end(&region, &set);
}
END_TEST

/* A thousand elements at a time, over millions: entries of chunks left behind go, their masks are used again. */
START_TEST(sliding_window_stays_small)
{
    vmk_region region;
    vmki_index_set set;
    const size_t window = 1000;
    set_start(&region, &set, far_capacity, 6);
    size_t most = 0;
    for (size_t i = 0; i < support_rounds(400000); i++) {
        size_t at = i * 3 % (far_capacity - window);
        if (at == 0)
            must_change(&set, true, 0, window);
        must_change(&set, true, at + window, 3);
        must_change(&set, false, at, 3);
        most = vmki_max(most, vmki_index_set_committed(&set));
        if (i % 10000 == 0)
            ck_assert(vmki_index_set_check(&set));
    }
    ck_assert_uint_eq(set.count, window);
    ck_assert_uint_le(most, 3 * vmk_page_size());
    set_end(&region, &set);
}
END_TEST

/* --- readers at work -------------------------------------------------------------------------------------------- */

/* Chunks are of six kinds, by number. In A the even indices stay in while the odd ones come and go; in B the first
 * index is never in while the others come and go; C comes and goes as a whole or in parts; D and E are all in, and all
 * out, for good; F has one that stays, and nothing else. So masks and halves are used again and again around A to F. */
enum { KIND_A, KIND_B, KIND_C, KIND_D, KIND_E, KIND_F, KINDS };
enum { CROWD_SHIFT = 6, CROWD_CHUNK = 1 << CROWD_SHIFT, CROWD_CHUNKS = 6 * 1500, CROWD_READERS = 3 };

typedef struct crowd {
    vmk_region region;
    vmki_index_set set;
    size_t done;
    size_t failed; /* commits refused */
    size_t wrong[CROWD_READERS + 1];
    size_t asked[CROWD_READERS + 1];
} crowd;

static void crowd_change(crowd *c, bool add, size_t first, size_t count)
{
    vmki_vm_lock();
    if ((add ? vmki_index_set_prepare_add : vmki_index_set_prepare_remove)(&c->set, first, count) != VMK_OK)
        c->failed++;
    else
        (add ? vmki_index_set_add : vmki_index_set_remove)(&c->set, first, count);
    vmki_vm_unlock();
}

static void crowd_begin(crowd *c)
{
    set_start(&c->region, &c->set, CROWD_CHUNKS * CROWD_CHUNK, CROWD_SHIFT);
    for (size_t chunk = 0; chunk < CROWD_CHUNKS; chunk++) {
        size_t first = chunk * CROWD_CHUNK;
        if (chunk % KINDS == KIND_A)
            for (size_t i = 0; i < CROWD_CHUNK; i += 2)
                must_change(&c->set, true, first + i, 1);
        else if (chunk % KINDS == KIND_D)
            must_change(&c->set, true, first, CROWD_CHUNK);
        else if (chunk % KINDS == KIND_F)
            must_change(&c->set, true, first + CROWD_CHUNK / 2, 1);
    }
}

static void crowd_write_step(crowd *c, support_random *random, size_t chunk)
{
    size_t first = chunk * CROWD_CHUNK;
    bool add = support_random_below(random, 2) != 0;
    switch (chunk % KINDS) {
    case KIND_A:
        if (add)
            crowd_change(c, true, first, CROWD_CHUNK);
        for (size_t i = 1; i < CROWD_CHUNK && !add; i += 2)
            crowd_change(c, false, first + i, 1);
        break;
    case KIND_B:
        crowd_change(c, add, first + 1, CROWD_CHUNK - 1);
        break;
    case KIND_C:
        if (support_random_below(random, 2) != 0)
            crowd_change(c, add, first, CROWD_CHUNK);
        else
            crowd_change(c, add, first + support_random_below(random, 32), support_random_below(random, 32));
        break;
    default:
        break;
    }
}

/* Works on a few hundred neighbouring chunks at a time, so that others die and the table moves. */
static void crowd_write(crowd *c)
{
    support_random random = support_random_start(1);
    size_t steps = support_rounds(20000);
    for (size_t step = 0; step < steps; step++) {
        size_t window = step / 2000 * 200;
        crowd_write_step(c, &random, (window + support_random_below(&random, 400)) % CROWD_CHUNKS);
        if (step % 64 == 0)
            support_yield();
    }
    VMKI_STORE_RELEASE(&c->done, 1);
}

static void crowd_read(crowd *c, unsigned number)
{
    support_random random = support_random_start(100 + number);
    size_t wrong = 0;
    size_t asked = 0;
    for (; VMK_LOAD_ACQUIRE(&c->done) == 0; asked++) {
        size_t chunk = support_random_below(&random, CROWD_CHUNKS);
        size_t inside = support_random_below(&random, CROWD_CHUNK);
        size_t first = chunk * CROWD_CHUNK;
        switch (chunk % KINDS) {
        case KIND_A:
            wrong += !vmki_index_set_contains(&c->set, first + inside / 2 * 2);
            break;
        case KIND_B:
            wrong += vmki_index_set_contains(&c->set, first);
            break;
        case KIND_D:
            wrong += !vmki_index_set_contains(&c->set, first + inside);
            break;
        case KIND_E:
            wrong += vmki_index_set_contains(&c->set, first + inside);
            break;
        case KIND_F:
            wrong += vmki_index_set_contains(&c->set, first + inside) != (inside == CROWD_CHUNK / 2);
            break;
        default:
            (void)vmki_index_set_contains(&c->set, first + inside);
            break;
        }
    }
    c->wrong[number] = wrong;
    c->asked[number] = asked;
}

static void crowd_body(void *argument, unsigned number)
{
    crowd *c = argument;
    if (number == 0)
        crowd_write(c);
    else
        crowd_read(c, number);
}

START_TEST(readers_while_one_writes)
{
    crowd c = {0};
    crowd_begin(&c);
    size_t version = c.set.version;
    support_threads(CROWD_READERS + 1, crowd_body, &c);
    ck_assert_uint_eq(c.failed, 0);
    ck_assert_uint_gt(c.set.version, version);
    for (size_t i = 1; i <= CROWD_READERS; i++)
        ck_assert_msg(c.wrong[i] == 0, "%zu wrong answers of %zu", c.wrong[i], c.asked[i]);
    ck_assert(vmki_index_set_check(&c.set));
    set_end(&c.region, &c.set);
}
END_TEST

/* --- commits that fail ------------------------------------------------------------------------------------------ */

#ifdef VMKIT_MODEL

/* Every call of the system in every prepare fails once before the prepare is let through. */
static void prepare_with_failures(world *w, bool add, size_t first, size_t count)
{
    for (uint64_t n = 1;; n++) {
        size_t committed = w->region.committed;
        model_fail_nth(n, n % 2 == 0 ? VMK_ERR_COMMIT : VMK_ERR_MAPPINGS, false);
        vmk_status status = locked_prepare(&w->set, add, first, count);
        if (!model_failed()) {
            ck_assert_int_eq(status, VMK_OK);
            break;
        }
        ck_assert_int_eq(status, n % 2 == 0 ? VMK_ERR_COMMIT : VMK_ERR_MAPPINGS);
        ck_assert_uint_ge(w->region.committed, committed);
        compare_all(w);
    }
    model_fail_nth(0, VMK_OK, false);
}

START_TEST(failing_commit_at_every_point)
{
    model_reset(NULL);
    for (size_t round = 0; round < support_rounds(16); round++) {
        world w;
        size_t shift = VMKI_CHUNK_SHIFT_MIN + round % 4;
        world_start(&w, ((size_t)500 << shift) + round, shift, round);
        for (size_t step = 0; step < 2000; step++) {
            size_t first, count;
            random_range(&w, &first, &count);
            bool add = random_add(&w, step);
            prepare_with_failures(&w, add, first, count);
            apply(&w, add, first, count);
            MUST(vmki_index_set_committed(&w.set) == w.region.committed);
        }
        compare_all(&w);
        world_end(&w);
    }
    ck_assert_ptr_null(model_violation());
}
END_TEST

START_TEST(quota_too_small)
{
    model_reset(NULL);
    world w;
    size_t chunks = vmk_page_size() / 2; /* with their masks they need four pages at the least */
    world_start(&w, 64 * chunks, 6, 4);
    model_rules rules = {.commit_quota = model_committed() + 2 * vmk_page_size()};
    model_reset(&rules);
    size_t refused = 0;
    for (size_t i = 0; i < chunks; i++) {
        if (locked_prepare(&w.set, true, i * 64 + 1, 1) == VMK_OK)
            apply(&w, true, i * 64 + 1, 1);
        else
            refused++;
    }
    ck_assert_uint_gt(refused, 0);
    ck_assert_uint_gt(w.count, 64);
    compare_all(&w);
    model_reset(NULL);
    must_change(&w.set, true, 64 * (chunks - 1), 64);
    apply(&w, true, 64 * (chunks - 1), 64);
    compare_all(&w);
    world_end(&w);
    ck_assert_ptr_null(model_violation());
}
END_TEST

#endif

static Suite *suite(void)
{
    Suite *s = suite_create("index_set");
    TCase *c = tcase_create("index_set");
    tcase_set_timeout(c, 0);
    tcase_add_test(c, random_against_an_array);
    tcase_add_test(c, random_with_many_chunks);
    tcase_add_test(c, edges);
    tcase_add_test(c, space_is_checked);
    tcase_add_test(c, few_elements_far_apart_cost_few_pages);
    tcase_add_test(c, removing_costs_nothing);
    tcase_add_test(c, whole_chunks_need_no_masks);
    tcase_add_test(c, two_masks_and_one_free);
    tcase_add_test(c, sliding_window_stays_small);
    tcase_add_test(c, readers_while_one_writes);
#ifdef VMKIT_MODEL
    tcase_add_test(c, failing_commit_at_every_point);
    tcase_add_test(c, quota_too_small);
#endif
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
