/* SPDX-License-Identifier: MIT
 *
 * From an address to its span, at random among many spans, and the same reads from plain arrays. The addresses, or the
 * array's indices, are made before; they are read in order, so what is measured is the look-up.
 */
#include <string.h>

#include "bench.h"
#include "heap.h"

enum { PAGES_OF_SPAN = 4, SMALL = 1 << 16 };

/* As large as a span's record. */
typedef struct plain_record {
    uint64_t word[4];
} plain_record;
_Static_assert(sizeof(plain_record) == sizeof(vmk_span), "the peer's records must be as large as ours");

typedef struct plain_arrays {
    const uint32_t *ids; /* by page */
    size_t limit;
    const plain_record *records;
} plain_arrays;

typedef struct lookup {
    vmk_heap *heap;
    const plain_arrays *arrays;
    uintptr_t *targets; /* addresses, or indices of pages */
    size_t target_count;
    size_t passes; /* over the targets */
} lookup;

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

static void fill_heap(lookup *l, size_t spans)
{
    size_t size = spans * PAGES_OF_SPAN * VMK_HEAP_PAGE_SIZE;
    vmk_heap_options options = {.layout = VMK_LAYOUT_64, .window = 2 * size + BENCH_GIB};
    vmk_span *span;
    uintptr_t *bases = bench_map(spans * sizeof *bases);
    uint64_t random = BENCH_SEED;
    bench_must(vmk_heap_create(&l->heap, &options));
    for (size_t i = 0; i < spans; i++) {
        bench_must(vmk_span_alloc(l->heap, PAGES_OF_SPAN, 0, 0, &span));
        bases[i] = (uintptr_t)span->base;
    }
    for (size_t i = 0; i < l->target_count; i++) {
        uint64_t r = bench_random(&random);
        l->targets[i] = bases[r % spans] + (r >> 32) % (PAGES_OF_SPAN * VMK_HEAP_PAGE_SIZE);
    }
    munmap(bases, spans * sizeof *bases);
}

static void fill_arrays(lookup *l, size_t spans)
{
    size_t pages = spans * PAGES_OF_SPAN;
    uint32_t *ids = bench_map(round_up(pages * sizeof *ids, BENCH_MIB));
    plain_record *records = bench_map(round_up((spans + 1) * sizeof *records, BENCH_MIB));
    uint64_t random = BENCH_SEED;
    for (size_t i = 0; i < pages; i++)
        ids[i] = (uint32_t)(i / PAGES_OF_SPAN + 1);
    for (size_t i = 0; i <= spans; i++)
        records[i].word[1] = PAGES_OF_SPAN;
    for (size_t i = 0; i < l->target_count; i++) {
        uint64_t r = bench_random(&random);
        l->targets[i] =
            r % spans * PAGES_OF_SPAN + (r >> 32) % (PAGES_OF_SPAN * VMK_HEAP_PAGE_SIZE) / VMK_HEAP_PAGE_SIZE;
    }
    static plain_arrays arrays;
    arrays = (plain_arrays){ids, pages, records};
    l->arrays = &arrays;
}

/* One function a variant: each is given the same loop, and answers a sum, so that nothing can be left out. What the
 * loop itself needs is in variables, since after a load with acquire the compiler reads again what is in memory. */
#define LOOKUP_LOOP(name, type, field, found)                                                                          \
    __attribute__((noinline)) static uint64_t name(const lookup *l)                                                    \
    {                                                                                                                  \
        const type *field = l->field;                                                                                  \
        const uintptr_t *targets = l->targets;                                                                         \
        size_t count = l->target_count;                                                                                \
        uint64_t sum = 0;                                                                                              \
        for (size_t pass = l->passes; pass > 0; pass--) {                                                              \
            for (size_t i = 0; i < count; i++) {                                                                       \
                uintptr_t target = targets[i];                                                                         \
                sum += (found);                                                                                        \
            }                                                                                                          \
        }                                                                                                              \
        return sum;                                                                                                    \
    }

static inline size_t pages_or_none(const vmk_span *span)
{
    return span != NULL ? span->pages : 0;
}

/* What vmk_span_find does, as one would write it for arrays that never change. */
static inline const plain_record *find_plain(const plain_arrays *arrays, size_t page)
{
    if (page >= arrays->limit)
        return NULL;
    uint32_t id = arrays->ids[page];
    return id != 0 ? &arrays->records[id] : NULL;
}

static inline uint64_t word_or_none(const plain_record *record)
{
    return record != NULL ? record->word[1] : 0;
}

LOOKUP_LOOP(sum_of, vmk_heap, heap, (uintptr_t)vmk_span_of(heap, (const void *)target))
LOOKUP_LOOP(sum_find, vmk_heap, heap, (uintptr_t)vmk_span_find(heap, target))
LOOKUP_LOOP(sum_array, plain_arrays, arrays, (uintptr_t)&arrays->records[arrays->ids[target]])
LOOKUP_LOOP(sum_checked, plain_arrays, arrays, (uintptr_t)find_plain(arrays, target))
LOOKUP_LOOP(read_of, vmk_heap, heap, vmk_span_of(heap, (const void *)target)->pages)
LOOKUP_LOOP(read_find, vmk_heap, heap, pages_or_none(vmk_span_find(heap, target)))
LOOKUP_LOOP(read_array, plain_arrays, arrays, arrays->records[arrays->ids[target]].word[1])
LOOKUP_LOOP(read_checked, plain_arrays, arrays, word_or_none(find_plain(arrays, target)))

static const struct {
    const char *name;
    uint64_t (*run)(const lookup *l);
} variants[] = {
    {"of", sum_of},       {"find", sum_find},       {"array", sum_array},       {"array-checked", sum_checked},
    {"of+read", read_of}, {"find+read", read_find}, {"array+read", read_array}, {"array-checked+read", read_checked}};

void bench_heap_lookup(const char *variant, size_t spans)
{
    size_t which = 0, count = sizeof variants / sizeof *variants;
    while (which < count && strcmp(variant, variants[which].name) != 0)
        which++;
    if (which == count)
        bench_fail("no such variant of lookup");
    /* As many targets as spans: few enough to stay in the nearest cache with a small table, enough to reach most lines
     * of a large one. */
    lookup l = {.target_count = spans, .passes = (spans <= SMALL ? (size_t)1 << 27 : (size_t)1 << 25) / spans};
    l.targets = bench_map(l.target_count * sizeof *l.targets);
    if (strncmp(variant, "array", 5) == 0)
        fill_arrays(&l, spans);
    else
        fill_heap(&l, spans);
    double start = bench_now();
    uint64_t sum = variants[which].run(&l);
    double end = bench_now();
    printf("ns %.4f\nsum %llu\n", (end - start) * 1e9 / (double)(l.passes * l.target_count), (unsigned long long)sum);
}
