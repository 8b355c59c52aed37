/* SPDX-License-Identifier: MIT
 *
 * The heap on a system that refuses: every call failing once at every position, and all from there on; quotas; a full
 * window; what lies where the heap would like to grow. On the model.
 */
#include <string.h>

#include "common/heap/heap.h"
#include "common/vm/vm.h"
#include "model.h"
#include "support.h"

#define MIB ((size_t)1 << 20)
#define QUANTUM_PAGES (VMKI_QUANTUM >> VMK_HEAP_PAGE_SHIFT)

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

static vmk_heap_stats figures(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats;
}

/* --- nothing is left -------------------------------------------------------------------------------------------- */

typedef struct ledger {
    vmk_stats stats;
    size_t mappings;
} ledger;

static ledger ledger_open(void)
{
    ledger book;
    vmk_stats_now(&book.stats);
    book.mappings = model_mappings();
    return book;
}

/* All that was taken since the ledger was opened has been given back, but for what the vm layer keeps for itself. */
static void ledger_close(const ledger *book)
{
    vmk_stats now;
    vmk_stats_now(&now);
    ck_assert_uint_eq(now.regions, book->stats.regions);
    ck_assert_uint_eq(now.reserved, book->stats.reserved);
    ck_assert_uint_eq(now.committed, book->stats.committed);
    ck_assert_uint_eq(model_reserved(), now.reserved + now.overhead);
    ck_assert_uint_eq(model_committed(), now.committed + now.overhead);
    if (now.overhead == book->stats.overhead)
        ck_assert_uint_eq(model_mappings(), book->mappings);
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}

/* --- a scenario ------------------------------------------------------------------------------------------------- */

enum { SLOTS = 10 };

typedef enum op_kind { ALLOC, FREE, RESIZE, SPLIT, SCAVENGE } op_kind;

typedef struct op {
    op_kind kind;
    unsigned slot;
    size_t pages; /* SCAVENGE: of how many to give back */
    size_t align; /* pages. SPLIT: the slot of the rest */
    unsigned flags;
} op;

/* What grows, in small steps and in large ones; what needs records, marks, tables; memory given back and taken again,
 * of one region and of several in a row. */
static const op script[] = {
    {ALLOC, 0, 1, 1, 0},
    {ALLOC, 1, 40, 1, VMK_SPAN_ZERO},
    {ALLOC, 2, 3, 1, VMK_SPAN_MARKS},
    {ALLOC, 3, 100, 64, VMK_SPAN_MARKS | VMK_SPAN_ZERO},
    {ALLOC, 4, 300, 1, 0},
    {RESIZE, 4, 360, 0, 0},
    {SPLIT, 4, 150, 5, 0},
    {FREE, 1, 0, 0, 0},
    {FREE, 3, 0, 0, 0},
    {RESIZE, 4, 50, 0, 0},
    {SCAVENGE, 0, SIZE_MAX >> VMK_HEAP_PAGE_SHIFT, 0, 0},
    {ALLOC, 1, 30, 1, VMK_SPAN_ZERO},
    {ALLOC, 3, 90, 8, VMK_SPAN_MARKS | VMK_SPAN_ZERO},
    {RESIZE, 4, 60, 0, 0},
    {ALLOC, 6, 520, 1, VMK_SPAN_ZERO},
    {ALLOC, 7, 9, 1, VMK_SPAN_MARKS},
    {FREE, 6, 0, 0, 0},
    {FREE, 5, 0, 0, 0},
    {SCAVENGE, 0, 100, 0, 0},
    {SCAVENGE, 0, SIZE_MAX >> VMK_HEAP_PAGE_SHIFT, 0, 0},
    {ALLOC, 5, 700, 1, VMK_SPAN_MARKS | VMK_SPAN_ZERO},
    {ALLOC, 8, 1, 512, 0},
    {FREE, 0, 0, 0, 0},
};

typedef struct world {
    vmk_heap *heap;
    vmk_span *spans[SLOTS];
    bool discards;
    bool stubborn; /* once a call has failed all others do, until the operation has ended */
    vmk_status injected;
    bool hit; /* a call has failed */
} world;

/* What a span holds: at both ends of each page. Discarding may leave it there (the model does), where the heap takes
 * the memory for zero: then it is zero. */
static unsigned char fill_of(const world *w, unsigned slot)
{
    return w->discards ? 0 : (unsigned char)(slot + 1);
}

static void span_fill(const world *w, unsigned slot)
{
    const vmk_span *span = w->spans[slot];
    for (size_t i = 0; i < span->pages; i++) {
        span->base[i * VMK_HEAP_PAGE_SIZE] = fill_of(w, slot);
        span->base[(i + 1) * VMK_HEAP_PAGE_SIZE - 1] = fill_of(w, slot);
    }
}

static void span_verify(const world *w, unsigned slot)
{
    const vmk_span *span = w->spans[slot];
    for (size_t i = 0; i < span->pages; i++) {
        MUST(span->base[i * VMK_HEAP_PAGE_SIZE] == fill_of(w, slot));
        MUST(span->base[(i + 1) * VMK_HEAP_PAGE_SIZE - 1] == fill_of(w, slot));
        MUST(vmk_span_find(w->heap, (uintptr_t)span->base + i * VMK_HEAP_PAGE_SIZE) == span);
    }
}

static bool all_zero(const unsigned char *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static vmk_status alloc_into(world *w, const op *o)
{
    vmk_span *span = NULL;
    vmk_status status = vmk_span_alloc(w->heap, o->pages, o->align << VMK_HEAP_PAGE_SHIFT, o->flags, &span);
    if (status != VMK_OK) {
        MUST(span == NULL);
        return status;
    }
    w->spans[o->slot] = span;
    MUST(span->pages == o->pages && ((uintptr_t)span->base >> VMK_HEAP_PAGE_SHIFT) % o->align == 0);
    MUST((o->flags & VMK_SPAN_ZERO) == 0 || all_zero(span->base, span->pages << VMK_HEAP_PAGE_SHIFT));
    if ((o->flags & VMK_SPAN_MARKS) != 0) {
        unsigned char *marks = vmk_span_marks(w->heap, span);
        MUST(all_zero(marks, span->pages * VMK_HEAP_PAGE_SIZE / 128));
        memset(marks, 0xff, span->pages * VMK_HEAP_PAGE_SIZE / 128);
    }
    span_fill(w, o->slot);
    return VMK_OK;
}

static vmk_status op_run(world *w, const op *o)
{
    vmk_span **slot = &w->spans[o->slot];
    vmk_status status = VMK_OK;
    switch (o->kind) {
    case ALLOC:
        return alloc_into(w, o);
    case FREE:
        span_verify(w, o->slot);
        vmk_span_free(w->heap, *slot);
        *slot = NULL;
        break;
    case RESIZE:
        status = vmk_span_resize(w->heap, *slot, o->pages);
        if (status == VMK_OK)
            span_fill(w, o->slot);
        break;
    case SPLIT:
        status = vmk_span_split(w->heap, *slot, o->pages, &w->spans[o->align]);
        if (status == VMK_OK)
            span_fill(w, (unsigned)o->align);
        break;
    default:
        (void)vmk_heap_scavenge(w->heap, o->pages << VMK_HEAP_PAGE_SHIFT);
        break;
    }
    return status;
}

/* An operation has failed: what there was is there, what there is more is idle. */
static void failure_check(const world *w, const vmk_heap_stats *before)
{
    vmk_heap_stats now = figures(w->heap);
    MUST(now.in_use == before->in_use && now.spans == before->spans && now.in_use_peak == before->in_use_peak);
    MUST(now.idle + now.released >= before->idle + before->released);
    MUST(now.released <= before->released && now.released_total == before->released_total);
    if (now.grow_count != before->grow_count)
        return;
    MUST(now.idle + now.released == before->idle + before->released && now.reserved == before->reserved &&
         now.regions == before->regions);
    if (w->stubborn) /* then not even undoing has worked */
        return;
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        bool may_stay = part == VMK_HEAP_BITMAP || part == VMK_HEAP_RECORDS ||
                        (part == VMK_HEAP_ARENA && now.released != before->released);
        MUST(may_stay || now.part[part].committed == before->part[part].committed);
    }
}

/* One operation, and once more if it fails; that it does only when a call failed in it. */
static void op_insist(world *w, const op *o)
{
    vmk_heap_stats before = figures(w->heap);
    bool hit_before = w->hit;
    vmk_status status = op_run(w, o);
    w->hit = w->hit || model_failed();
    if (w->stubborn && w->hit)
        model_fail_nth(0, VMK_OK, false);
    if (status != VMK_OK) {
        bool taken = o->kind == RESIZE && status == VMK_ERR_TAKEN; /* a region ends there: for good */
        ck_assert(taken || (w->hit && !hit_before));
        ck_assert(taken || status == w->injected);
        ck_assert(vmki_heap_check(w->heap));
        failure_check(w, &before);
        ck_assert_int_eq(op_run(w, o), taken ? VMK_ERR_TAKEN : VMK_OK);
    }
    ck_assert(vmki_heap_check(w->heap));
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}

/* Make the heap, while there is no more address space than this. */
static void world_start(world *w, const vmk_heap_options *options, size_t space, uint64_t nth)
{
    ledger book = ledger_open();
    model_reset(&(model_rules){.address_space = space});
    model_fail_nth(nth, w->injected, w->stubborn);
    vmk_status status = vmk_heap_create(&w->heap, options);
    uint64_t calls = model_fallible_calls();
    w->hit = model_failed();
    if (w->stubborn && w->hit)
        model_fail_nth(0, VMK_OK, false);
    if (status != VMK_OK) {
        ck_assert(w->hit);
        ck_assert_int_eq(status, w->injected);
        ledger_close(&book);
        ck_assert_int_eq(vmk_heap_create(&w->heap, options), VMK_OK);
    }
    ck_assert(vmki_heap_check(w->heap));
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
    model_reset(NULL);
    model_fail_nth(w->hit ? 0 : nth - calls, w->injected, w->stubborn);
    if (w->discards) {
        vmki_heap_of(w->heap)->decided = true; /* the model's capabilities would have it decommit */
        vmki_heap_of(w->heap)->discards = true;
    }
}

/* By layout: small enough for the model. */
static vmk_heap_options options_of(vmk_layout layout)
{
    uintptr_t base = vmki_ceil((uintptr_t)model_base() + 64 * MIB, VMKI_CHUNK_SIZE);
    return (vmk_heap_options){.layout = layout, .window = 32 * MIB, .hint = base};
}

/* The address space that must not be exceeded when the heap is made: what lets it begin with a region that it will have
 * to extend. */
static size_t space_of(vmk_layout layout)
{
    vmki_heap_plan plan;
    if (layout != VMK_LAYOUT_32)
        return 0;
    ck_assert(vmki_heap_plan_make(&plan, layout, (uint64_t)1 << (32 - VMK_HEAP_PAGE_SHIFT), SIZE_MAX));
    return model_reserved() + plan.total + 4 * MIB;
}

/* The whole scenario, with a failure at the n-th call (that lasts, if stubborn, as long as the operation does); false
 * once there are fewer calls than that. */
static bool scenario(vmk_layout layout, world *w, uint64_t nth)
{
    vmk_heap_options options = options_of(layout);
    ledger book = ledger_open();
    world_start(w, &options, space_of(layout), nth);
    for (size_t i = 0; i < sizeof script / sizeof script[0]; i++)
        op_insist(w, &script[i]);
    for (unsigned i = 0; i < SLOTS; i++)
        if (w->spans[i] != NULL)
            span_verify(w, i);
    vmk_heap_destroy(w->heap);
    ledger_close(&book);
    return w->hit;
}

/* At every position; where fewer rounds are asked for (VMKIT_ROUNDS, for sanitizers), at every second or fourth, from a
 * random one on. */
static void fail_everywhere(int layout, bool discards, bool stubborn, vmk_status injected)
{
    size_t stride = 16 / vmki_min(support_rounds(16), 16);
    support_random random = support_random_start((uint64_t)layout);
    for (uint64_t nth = 1 + support_random_below(&random, stride);; nth += stride) {
        world w = {.discards = discards, .stubborn = stubborn, .injected = injected};
        if (!scenario((vmk_layout)layout, &w, nth)) {
            ck_assert_uint_gt(nth, 25); /* it was a scenario */
            return;
        }
    }
}

START_TEST(every_call_fails_once)
{
    static const vmk_status statuses[] = {VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS};
    fail_everywhere(1 + _i / 3, false, false, statuses[_i % 3]);
}
END_TEST

START_TEST(every_call_fails_from_one_on)
{
    fail_everywhere(_i + 1, false, true, VMK_ERR_COMMIT);
}
END_TEST

START_TEST(every_call_fails_where_memory_is_discarded)
{
    fail_everywhere(_i + 1, true, false, VMK_ERR_COMMIT);
}
END_TEST

/* --- a growth that can't be undone ------------------------------------------------------------------------------ */

/* Refuse as long as a failure is to come, of the n-th call from then on. */
static vmk_status refuse_and_fail(void *context, void *base, size_t size)
{
    uint64_t nth = *(uint64_t *)context;
    (void)base;
    (void)size;
    if (nth == 0)
        return VMK_OK;
    model_fail_nth(nth, VMK_ERR_COMMIT, false);
    return VMK_ERR_LIMIT;
}

/* The hook refuses, and the system refuses to take back what was committed: then it is still known to be zero, so it
 * must not have become anything else. */
START_TEST(what_is_not_taken_back_is_zero)
{
    for (uint64_t last = 1; last < 10; last++) {
        uint64_t nth = last;
        vmk_heap *heap;
        vmk_span *span;
        vmk_heap_options options = options_of((vmk_layout)(_i + 1));
        options.on_grow = refuse_and_fail;
        options.on_grow_context = &nth;
        model_reset(&(model_rules){.junk_on_discard = true});
        ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
        ck_assert_int_ne(vmk_span_alloc(heap, 1, 0, 0, &span), VMK_OK);
        nth = 0;
        model_fail_nth(0, VMK_OK, false);
        ck_assert_int_eq(vmk_span_alloc(heap, 8, 0, VMK_SPAN_ZERO, &span), VMK_OK);
        MUST(all_zero(span->base, span->pages << VMK_HEAP_PAGE_SHIFT));
        ck_assert(vmki_heap_check(heap));
        vmk_heap_destroy(heap);
        ck_assert_msg(model_violation() == NULL, "%s", model_violation());
    }
    model_reset(NULL);
}
END_TEST

/* --- a growth that is refused now and then ---------------------------------------------------------------------- */

typedef struct refuser {
    unsigned pattern; /* a bit for each call, the lowest for the next: refuse it */
    bool empty;       /* was asked about nothing at all */
} refuser;

static vmk_status refuse_by_pattern(void *context, void *base, size_t size)
{
    refuser *r = context;
    bool refuse = (r->pattern & 1) != 0;
    (void)base;
    r->empty |= size == 0;
    r->pattern >>= 1;
    return refuse ? VMK_ERR_UNSUPPORTED : VMK_OK;
}

/* An arena that has just the room that is wanted is not allowed to grow into it: then one behind it is no help. */
START_TEST(nothing_grows_by_nothing)
{
    for (unsigned pattern = 0; pattern < 64; pattern++)
        for (size_t spare = 0; spare <= 2 * QUANTUM_PAGES; spare += QUANTUM_PAGES / 2) {
            refuser r = {.empty = false};
            vmk_heap *heap;
            vmk_span *span = NULL;
            vmk_heap_options options = options_of(VMK_LAYOUT_LIMITED);
            options.on_grow = refuse_by_pattern;
            options.on_grow_context = &r;
            model_reset(NULL);
            ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
            size_t room = vmki_heap_arenas(vmki_heap_of(heap))->pages;
            ck_assert_int_eq(vmk_span_alloc(heap, room - 4 * QUANTUM_PAGES, 0, 0, &span), VMK_OK);
            r.pattern = pattern;
            vmk_status status = vmk_span_alloc(heap, 4 * QUANTUM_PAGES - spare, 0, 0, &span);
            MUST(!r.empty && (status == VMK_OK || status == VMK_ERR_UNSUPPORTED));
            MUST(vmki_heap_check(heap));
            vmk_heap_destroy(heap);
        }
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
}
END_TEST

/* --- huge pages ------------------------------------------------------------------------------------------------- */

/* Are asked for from 32 MiB on, once, for all that is to come; that the system has none is no failure. */
START_TEST(large_heaps_ask_for_huge_pages)
{
    const model_record *records;
    vmk_heap_options options = {
        .layout = VMK_LAYOUT_64, .flags = _i == 0 ? 0 : VMK_HEAP_SMALL_PAGES, .window = (size_t)128 << 20};
    vmk_heap *heap;
    vmk_span *span;
    size_t calls = 0;
    model_reset(NULL);
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
    for (int i = 0; i < 64; i++)
        ck_assert_int_eq(vmk_span_alloc(heap, (1 << 20) / VMK_HEAP_PAGE_SIZE, 0, 0, &span), VMK_OK);
    for (size_t i = model_records(&records); i-- > 0;)
        if (records[i].call == MODEL_ADVISE) {
            uintptr_t address = (uintptr_t)model_base() + records[i].address;
            ck_assert(address % VMKI_CHUNK_SIZE == 0 && address >= heap->origin + ((size_t)32 << 20) && calls++ == 0);
        }
    ck_assert_uint_eq(calls, _i == 0 ? 1 : 0);
    vmk_heap_destroy(heap);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap_faults");
    TCase *cases = tcase_create("heap_faults");
    tcase_add_loop_test(cases, every_call_fails_once, 0, 9);
    tcase_add_loop_test(cases, every_call_fails_from_one_on, 0, 3);
    tcase_add_loop_test(cases, every_call_fails_where_memory_is_discarded, 0, 3);
    tcase_add_loop_test(cases, what_is_not_taken_back_is_zero, 0, 3);
    tcase_add_test(cases, nothing_grows_by_nothing);
    tcase_add_loop_test(cases, large_heaps_ask_for_huge_pages, 0, 2);
    suite_add_tcase(suite, cases);
    return support_main(argc, argv, suite, NULL);
}
