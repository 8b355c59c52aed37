/* SPDX-License-Identifier: MIT
 *
 * Objects on a system that refuses: every call failing once at every position, and all from there on; quotas. On the
 * model.
 */
#include <string.h>

#include "common/heap/object.h"
#include "heap_create.h"
#include "model.h"
#include "support.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

static const vmk_layout layouts[] = {VMK_LAYOUT_64, VMK_LAYOUT_LIMITED, VMK_LAYOUT_32};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0], KINDS = 2 * LAYOUTS };

static void check_model(void)
{
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}

static vmk_heap *heap_of_kind(int kind)
{
    vmk_heap *heap;
    uintptr_t base = vmki_ceil((uintptr_t)model_base() + 64 * MIB, VMKI_CHUNK_SIZE);
    vmk_heap_options options = {.layout = layouts[kind % LAYOUTS],
                                .flags = kind < LAYOUTS ? 0 : VMK_HEAP_HARDENED,
                                .window = 32 * MIB,
                                .step = VMKI_QUANTUM, /* to grow often */
                                .hint = base};
    ck_assert_int_eq(heap_create(&heap, &options), VMK_OK);
    return heap;
}

/* The library keeps memory for threads for good: have it taken before anything is counted. */
static void prepare(void)
{
    model_reset(NULL);
    vmk_heap *heap = heap_of_kind(0);
    ck_assert_ptr_nonnull(vmk_heap_alloc(heap, 1));
    vmk_heap_destroy(heap);
}

static void nothing_is_left(const vmk_stats *before)
{
    vmk_stats now;
    vmk_stats_now(&now);
    ck_assert_uint_eq(now.regions, before->regions);
    ck_assert_uint_eq(now.reserved, before->reserved);
    ck_assert_uint_eq(now.committed, before->committed);
    ck_assert_uint_eq(model_reserved(), now.reserved + now.overhead);
    ck_assert_uint_eq(model_committed(), now.committed + now.overhead);
    check_model();
}

/* --- a scenario ------------------------------------------------------------------------------------------------- */

enum { SLOTS = 10 };

typedef enum op_kind { ALLOC, ZEROED, ALIGNED, REALLOC, FREE, TRIM, DETACH } op_kind;

typedef struct op {
    op_kind kind;
    unsigned slot; /* and its neighbours, as many as `count` says */
    size_t size;
    size_t count; /* ALIGNED: the alignment */
} op;

/* What attaches, makes slabs of several classes, fills them, grows the heap, makes large and huge objects and moves
 * them, gives back and takes again. */
static const op script[] = {
    {ALLOC, 0, 100, 100},      {ZEROED, 1, 3000, 30},     {ALLOC, 2, 40 * KIB, 1},
    {ALLOC, 3, 20000, 12},     {ALIGNED, 4, 5000, 4096},  {ALIGNED, 5, 100, 64 * KIB},
    {REALLOC, 2, 90 * KIB, 1}, {REALLOC, 4, 30000, 1},    {FREE, 0, 0, 0},
    {DETACH, 0, 0, 0},         {ALLOC, 0, 500, 60},       {REALLOC, 2, 1 * MIB, 1},
    {ZEROED, 6, 32 * MIB, 1},  {FREE, 3, 0, 0},           {TRIM, 0, 0, 0},
    {ZEROED, 3, 20000, 12},    {REALLOC, 6, 12 * MIB, 1}, {FREE, 1, 0, 0},
    {FREE, 0, 0, 0},           {TRIM, 0, 0, 0},           {DETACH, 0, 0, 0},
    {TRIM, 0, 0, 0},           {ALLOC, 0, 1000, 40},      {REALLOC, 6, 100, 1},
    {ZEROED, 7, 200 * KIB, 1}, {FREE, 5, 0, 0},
};

enum { EACH_MOST = 100 };

typedef struct slot {
    unsigned char *objects[EACH_MOST];
    size_t count;
    size_t size;
} slot;

typedef struct world {
    vmk_heap *heap;
    slot slots[SLOTS];
    bool stubborn; /* once a call has failed all others do, until the operation has ended */
    vmk_status injected;
    bool hit; /* a call has failed */
} world;

static void fill(unsigned char *object, size_t size, unsigned salt)
{
    memset(object, (int)(salt + 1), vmki_min(size, 200));
    object[size - 1] = (unsigned char)(salt + 1);
}

static bool filled(const unsigned char *object, size_t size, unsigned salt)
{
    for (size_t i = 0; i < vmki_min(size, 200); i++)
        if (object[i] != salt + 1)
            return false;
    return true;
}

static void slots_verify(const world *w)
{
    for (unsigned s = 0; s < SLOTS; s++)
        for (size_t i = 0; i < w->slots[s].count; i++) {
            const unsigned char *object = w->slots[s].objects[i];
            MUST(filled(object, w->slots[s].size, s) && vmk_heap_owns(w->heap, object));
            MUST(vmk_heap_usable_size(w->heap, object) >= w->slots[s].size);
        }
}

static size_t live_count(const world *w)
{
    size_t count = 0;
    for (unsigned s = 0; s < SLOTS; s++)
        count += w->slots[s].count;
    return count;
}

static bool all_zero(const unsigned char *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* What can fail, of one object: `object` is the one to be changed, if any. */
static unsigned char *get(vmk_heap *heap, const op *o, unsigned char *object)
{
    switch (o->kind) {
    case ALLOC:
        return vmk_heap_alloc(heap, o->size);
    case ZEROED:
        return vmk_heap_alloc_zeroed(heap, o->size);
    case ALIGNED:
        return vmk_heap_alloc_aligned(heap, o->size, o->count);
    default:
        return vmk_heap_realloc(heap, object, o->size);
    }
}

/* One call, and once more if it fails; that it does only when a call of the system failed in it. */
static unsigned char *get_insisting(world *w, const op *o, unsigned char *object)
{
    vmk_object_stats stats;
    bool hit_before = w->hit;
    unsigned char *got = get(w->heap, o, object);
    w->hit = w->hit || model_failed();
    if (w->stubborn && w->hit)
        model_fail_nth(0, VMK_OK, false);
    if (got == NULL) {
        if (!w->hit || hit_before)
            ck_abort_msg("%u, %zu: fails for no reason", o->slot, o->size);
        vmk_object_stats_now(w->heap, NULL, &stats);
        MUST(stats.sum.objects == live_count(w));
        ck_assert(vmki_objects_check(w->heap));
        slots_verify(w);
        got = get(w->heap, o, object);
        MUST(got != NULL);
    }
    if (!hit_before && w->hit)
        ck_assert(vmki_objects_check(w->heap));
    return got;
}

static void slot_fill(world *w, const op *o)
{
    slot *s = &w->slots[o->slot];
    size_t count = o->kind == ALIGNED ? 1 : o->count;
    s->count = 0;
    s->size = o->size;
    while (s->count < count) {
        unsigned char *object = get_insisting(w, o, NULL);
        MUST(o->kind != ZEROED || all_zero(object, o->size));
        MUST(o->kind != ALIGNED || (uintptr_t)object % o->count == 0);
        fill(object, o->size, o->slot);
        s->objects[s->count++] = object;
    }
}

static void slot_realloc(world *w, const op *o)
{
    slot *s = &w->slots[o->slot];
    s->objects[0] = get_insisting(w, o, s->objects[0]);
    MUST(filled(s->objects[0], vmki_min(s->size, o->size), o->slot));
    s->size = o->size;
    fill(s->objects[0], s->size, o->slot);
}

static void op_run(world *w, const op *o)
{
    slot *s = &w->slots[o->slot];
    switch (o->kind) {
    case FREE:
        while (s->count > 0)
            vmk_heap_free(w->heap, s->objects[--s->count]);
        break;
    case TRIM:
        (void)vmk_heap_trim(w->heap);
        break;
    case DETACH:
        vmk_cache_detach(w->heap);
        break;
    case REALLOC:
        slot_realloc(w, o);
        break;
    default:
        slot_fill(w, o);
        break;
    }
    w->hit = w->hit || model_failed();
    if (w->stubborn && w->hit)
        model_fail_nth(0, VMK_OK, false);
    check_model();
}

/* The whole scenario, with a failure at the n-th call (that lasts, if stubborn, as long as the operation does); false
 * once there are fewer calls than that. */
static bool scenario(int kind, world *w, uint64_t nth)
{
    vmk_stats before;
    model_reset(NULL);
    vmk_stats_now(&before);
    w->heap = heap_of_kind(kind);
    model_fail_nth(nth, w->injected, w->stubborn);
    for (size_t i = 0; i < sizeof script / sizeof script[0]; i++)
        op_run(w, &script[i]);
    model_fail_nth(0, VMK_OK, false);
    slots_verify(w);
    ck_assert(vmki_objects_check(w->heap));
    vmk_heap_destroy(w->heap);
    nothing_is_left(&before);
    return w->hit;
}

static void fail_everywhere(int kind, bool stubborn, vmk_status injected)
{
    static world w;
    support_random random = support_random_start((uint64_t)kind);
    size_t stride = 8 / vmki_min(support_rounds(8), 8); /* where little time is: not each, but others each time */
    for (uint64_t nth = 1 + support_random_below(&random, stride);; nth += stride) {
        memset(&w, 0, sizeof w);
        w.stubborn = stubborn;
        w.injected = injected;
        if (!scenario(kind, &w, nth)) {
            ck_assert_uint_gt(nth, 25); /* it was a scenario */
            return;
        }
    }
}

/* In heaps of every kind; and what else the system may answer, in two of them. */
START_TEST(every_call_fails_once)
{
    static const vmk_status others[] = {VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS};
    int kind = _i < KINDS ? _i : _i % 2 == 0 ? 0 : LAYOUTS + 1;
    fail_everywhere(kind, false, _i < KINDS ? VMK_ERR_COMMIT : others[(_i - KINDS) / 2]);
}
END_TEST

START_TEST(every_call_fails_from_one_on)
{
    fail_everywhere(_i, true, VMK_ERR_COMMIT);
}
END_TEST

/* --- a quota ---------------------------------------------------------------------------------------------------- */

enum { MOST = 20000 };

static size_t fill_up(vmk_heap *heap, void **objects, size_t size)
{
    size_t count = 0;
    while (count < MOST && (objects[count] = vmk_heap_alloc(heap, size)) != NULL)
        memset(objects[count++], 0x77, size);
    return count;
}

START_TEST(memory_runs_out_and_comes_back)
{
    static const size_t sizes[] = {1000, 20000, 60 * KIB, 1 * MIB};
    static void *objects[MOST];
    vmk_stats before;
    model_reset(NULL);
    vmk_stats_now(&before);
    vmk_heap *heap = heap_of_kind(_i);
    model_reset(&(model_rules){.commit_quota = model_committed() + 6 * MIB});
    for (size_t s = 0; s < 4; s++)
        for (int round = 0; round < 2; round++) {
            size_t count = fill_up(heap, objects, sizes[s]);
            ck_assert_uint_gt(count * sizes[s], MIB);
            ck_assert_uint_lt(count, MOST);
            ck_assert(vmki_objects_check(heap));
            ck_assert_ptr_null(vmk_heap_realloc(heap, objects[0], 8 * MIB));
            ck_assert(vmk_heap_owns(heap, objects[0]));
            vmk_heap_free(heap, objects[count - 1]);
            objects[count - 1] = vmk_heap_alloc(heap, sizes[s]);
            ck_assert(objects[count - 1] != NULL || _i >= LAYOUTS); /* hardened: it is kept back */
            while (count > 0)
                vmk_heap_free(heap, objects[--count]);
            (void)vmk_heap_trim(heap);
            ck_assert(vmki_objects_check(heap));
            check_model();
        }
    model_reset(NULL);
    vmk_heap_destroy(heap);
    nothing_is_left(&before);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_faults");
    TCase *cases = tcase_create("object_faults");
    tcase_add_unchecked_fixture(cases, prepare, NULL);
    tcase_add_loop_test(cases, every_call_fails_once, 0, KINDS + 4);
    tcase_add_loop_test(cases, every_call_fails_from_one_on, 0, KINDS);
    suite_add_tcase(suite, cases);
    TCase *quota = tcase_create("quota");
    tcase_add_unchecked_fixture(quota, prepare, NULL);
    tcase_add_loop_test(quota, memory_runs_out_and_comes_back, 0, KINDS);
    suite_add_tcase(suite, quota);
    return support_main(argc, argv, suite, NULL);
}
