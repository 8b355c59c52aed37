/* SPDX-License-Identifier: MIT
 *
 * What check_valgrind.sh runs under memcheck, with a library that was built for it: valgrind_target CASE. Each case is
 * one mistake that memcheck shall find, or, `clean` and `hardened`, none. All but the mistake is done right.
 */
#include <stdlib.h>
#include <string.h>

#include "vmkit.h"

#define MIB ((size_t)1 << 20)

static vmk_heap *heap;
static char *volatile kept; /* so that what is kept is found */

static char *take(size_t size)
{
    char *object = vmk_heap_alloc(heap, size);
    if (object == NULL)
        exit(9);
    return object;
}

/* --- mistakes --------------------------------------------------------------------------------------------------- */

static void lose(size_t size)
{
    kept = take(size);
    kept = NULL;
}

/* Objects before it, so that none of this is about the first. */
static void leak(void)
{
    char *before = take(1234), *same_slab = take(1240);
    lose(1235);
    vmk_heap_free(heap, before);
    vmk_heap_free(heap, same_slab);
}

static void leak_first(void)
{
    lose(77);
}

static void leak_large(void)
{
    lose(123456);
}

static void leak_huge(void)
{
    lose(40 * MIB + 1);
}

static void leak_reallocated(void)
{
    kept = take(100);
    for (size_t size = 110; size <= 300010; size = size < 1000 ? size + 100 : size * 2)
        kept = vmk_heap_realloc(heap, kept, size);
    kept = vmk_heap_realloc(heap, kept, 300001);
    kept = NULL;
}

static void leak_aligned(void)
{
    kept = vmk_heap_alloc_aligned(heap, 777, 256);
    kept = NULL;
}

static void read_freed(size_t size)
{
    char *object = take(size);
    memset(object, 1, size);
    vmk_heap_free(heap, object);
    kept = object + *(volatile char *)(object + size - 1);
    kept = NULL;
}

static void freed_small(void)
{
    read_freed(50);
}

static void freed_large(void)
{
    read_freed(100000);
}

static void past_the_end(void)
{
    char *object = take(50);
    *(volatile char *)(object + 50) = 1; /* of its 64 bytes, for which nobody has asked */
    vmk_heap_free(heap, object);
}

static void branch_on(const char *byte)
{
    if (*(const volatile char *)byte == 1)
        kept = NULL;
}

static void uninitialised(void)
{
    char *object = take(50);
    memset(object, 1, 50);
    vmk_heap_free(heap, object);
    object = take(50); /* the same, and what is in it is not defined any more */
    branch_on(object + 10);
    vmk_heap_free(heap, object);
}

static void uninitialised_tail(void)
{
    char *object = take(200000);
    memset(object, 1, 200000);
    object = vmk_heap_realloc(heap, object, 300000);
    branch_on(object + 250000);
    vmk_heap_free(heap, object);
}

/* --- none ------------------------------------------------------------------------------------------------------- */

static void use(char *object, size_t size)
{
    memset(object, 1, size);
    branch_on(object + size - 1);
}

/* All that a program may do, many times over; at the end some objects stay, which go with their heap. */
static void clean(void)
{
    enum { OBJECTS = 64 };
    static char *objects[OBJECTS];
    static size_t sizes[OBJECTS];
    uint32_t random = 1;
    for (int i = 0; i < 4000; i++) {
        random = random * 1664525u + 1013904223u;
        size_t n = random >> 26, size = 1 + (random >> 8) % (i % 32 == 0 ? 200000 : 700);
        if (i % 3 == 0 && objects[n] != NULL) {
            size_t had = sizes[n];
            objects[n] = vmk_heap_realloc(heap, objects[n], size);
            branch_on(objects[n] + (had < size ? had : size) - 1);
        } else {
            vmk_heap_free_sized(heap, objects[n], sizes[n]);
            objects[n] = i % 5 == 0   ? vmk_heap_alloc_aligned(heap, size, 64)
                         : i % 5 == 1 ? vmk_heap_alloc_zeroed(heap, size)
                                      : vmk_heap_alloc(heap, size);
            if (i % 5 == 1)
                branch_on(objects[n] + size - 1);
        }
        if (objects[n] == NULL)
            exit(9);
        sizes[n] = i % 7 == 0 ? vmk_heap_usable_size(heap, objects[n]) : size; /* who has asked may use it */
        use(objects[n], sizes[n]);
        if (i % 500 == 0)
            (void)vmk_heap_trim(heap);
    }
    char *huge = vmk_heap_alloc_zeroed(heap, 33 * MIB);
    branch_on(huge + 32 * MIB);
    huge[0] = 1;
    huge = vmk_heap_realloc(heap, huge, 50 * MIB);
    branch_on(huge);
    branch_on(huge + 32 * MIB);
    vmk_heap_free(heap, huge);
    vmk_object_stats stats;
    vmk_object_stats_now(heap, NULL, &stats);
    if (stats.sum.objects != OBJECTS)
        exit(8);
}

static const struct {
    const char *name;
    void (*run)(void);
    unsigned flags;
} cases[] = {{"leak", leak, 0},
             {"leak-first", leak_first, 0},
             {"leak-large", leak_large, 0},
             {"leak-huge", leak_huge, 0},
             {"leak-reallocated", leak_reallocated, 0},
             {"leak-aligned", leak_aligned, 0},
             {"leak-hardened", leak, VMK_HEAP_HARDENED},
             {"freed-small", freed_small, 0},
             {"freed-large", freed_large, 0},
             {"freed-hardened", freed_small, VMK_HEAP_HARDENED},
             {"past-the-end", past_the_end, 0},
             {"uninitialised", uninitialised, 0},
             {"uninitialised-tail", uninitialised_tail, 0},
             {"clean", clean, 0},
             {"clean-decommit", clean, VMK_HEAP_DECOMMIT},
             {"hardened", clean, VMK_HEAP_HARDENED}};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof cases[0]; i++) {
        vmk_heap_options options = {.flags = cases[i].flags, .window = 64 * MIB};
        if (strcmp(argv[1], cases[i].name) != 0)
            continue;
        if (vmk_heap_create(&heap, &options) != VMK_OK)
            return 9;
        cases[i].run();
        if (cases[i].run == clean)
            vmk_heap_destroy(heap);
        return 0;
    }
    return 2;
}
