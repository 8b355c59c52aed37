/* SPDX-License-Identifier: MIT
 *
 * Crimes against objects end the program with a message that names them, in heaps of every kind; those that are found
 * in hardened heaps alone; writes past the end that fault. Each is committed in a child process, which is this program
 * again with the crime's name and the kind of heap.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/heap/object.h"
#include "support.h"

#define MIB ((size_t)1 << 20)
#define LARGE ((size_t)100 << 10)
#define HUGE_SIZE (33 * MIB)

enum { KINDS = 4 }; /* the tables whole, or with holes; plain, hardened */

static vmk_heap *heap;

static vmk_heap *heap_make(int kind)
{
    vmk_heap *made;
    vmk_heap_options options = {.layout = kind % 2 == 0 ? VMK_LAYOUT_64 : VMK_LAYOUT_LIMITED,
                                .flags = kind < 2 ? 0 : VMK_HEAP_HARDENED,
                                .window = 64 * MIB};
    if (vmk_heap_create(&made, &options) != VMK_OK)
        exit(9);
    return made;
}

static void *take(size_t size)
{
    void *object = vmk_heap_alloc(heap, size);
    if (object == NULL)
        exit(9);
    return object;
}

static void free_here(void *argument, unsigned number)
{
    (void)number;
    vmk_heap_free(heap, argument);
}

/* By a thread that has a cache, after a moment. */
static void free_with_cache(void *argument, unsigned number)
{
    vmk_heap_free(heap, take(200));
    free_here(argument, number);
}

/* --- freed before ----------------------------------------------------------------------------------------------- */

static void twice_at_once(size_t size)
{
    void *object = take(size);
    vmk_heap_free(heap, object);
    vmk_heap_free(heap, object);
}

static void twice_small(void)
{
    twice_at_once(50);
}

static void twice_medium(void)
{
    twice_at_once(20000);
}

static void twice_large(void)
{
    twice_at_once(LARGE);
}

static void twice_huge(void)
{
    twice_at_once(HUGE_SIZE);
}

static void twice_by_handle(void)
{
    vmk_cache *cache = vmk_cache_attach(heap);
    void *object = vmk_cache_alloc(cache, 50);
    vmk_cache_free(cache, object);
    vmk_cache_free(cache, object);
}

/* More than any stack, or what is kept back, has room for. */
static void twice_after_others(void)
{
    void *others[1000], *object = take(50);
    for (int i = 0; i < 1000; i++)
        others[i] = take(50);
    vmk_heap_free(heap, object);
    for (int i = 0; i < 1000; i++)
        vmk_heap_free(heap, others[i]);
    vmk_heap_free(heap, object);
}

static void twice_after_a_hundred(void)
{
    void *others[100], *object = take(50);
    for (int i = 0; i < 100; i++)
        others[i] = take(50);
    vmk_heap_free(heap, object);
    for (int i = 0; i < 100; i++)
        vmk_heap_free(heap, others[i]);
    vmk_heap_free(heap, object);
}

/* The second time by another thread, when the first has been seen by the slab's keeper. */
static void twice_by_another(void)
{
    void *object = take(50);
    vmk_heap_free(heap, object);
    support_threads(1, free_here, object);
}

static void twice_by_another_with_cache(void)
{
    void *object = take(50);
    vmk_heap_free(heap, object);
    support_threads(1, free_with_cache, object);
}

/* The first time by another thread, which is not seen by the keeper yet. */
static void twice_after_another(void)
{
    void *object = take(50);
    support_threads(1, free_here, object);
    vmk_heap_free(heap, object);
    vmk_heap_free(heap, take(50)); /* found out at the latest when the keeper looks */
    (void)vmk_heap_trim(heap);
}

static void twice_by_others(void)
{
    void *object = take(50);
    support_threads(1, free_here, object);
    support_threads(1, free_with_cache, object);
}

/* What a thread has left behind, by two that have no cache, and by one that takes over what it left. */
static void take_into(void *argument, unsigned number)
{
    (void)number;
    *(void **)argument = take(50);
}

static void twice_what_was_left(void)
{
    void *object;
    support_threads(1, take_into, &object);
    support_threads(1, free_here, object);
    support_threads(1, free_here, object);
}

static void twice_what_was_left_and_adopted(void)
{
    void *object;
    support_threads(1, take_into, &object);
    support_threads(1, free_here, object);
    support_threads(1, free_with_cache, object);
}

static void twice_after_trim(void)
{
    void *object = take(50);
    vmk_heap_free(heap, object);
    (void)vmk_heap_trim(heap);
    vmk_heap_free(heap, object);
}

/* --- no objects ------------------------------------------------------------------------------------------------- */

static void free_interior(void)
{
    vmk_heap_free(heap, (char *)take(5000) + 16);
}

static void free_interior_far(void)
{
    vmk_heap_free(heap, (char *)take(5000) + 4992);
}

static void free_interior_by_another(void)
{
    support_threads(1, free_with_cache, (char *)take(5000) + 2048);
}

static void free_unaligned(void)
{
    vmk_heap_free(heap, (char *)take(5000) + 1);
}

static void free_unaligned_by_another(void)
{
    support_threads(1, free_here, (char *)take(5000) + 8);
}

static void free_interior_large(void)
{
    vmk_heap_free(heap, (char *)take(LARGE) + VMK_HEAP_PAGE_SIZE);
}

static void free_interior_huge(void)
{
    vmk_heap_free(heap, (char *)take(HUGE_SIZE) + MIB);
}

static void free_of_the_stack(void)
{
    int variable = 0;
    void *volatile address = &variable; /* a compiler may know better than to free it */
    (void)take(10);
    vmk_heap_free(heap, address);
}

static int variable;

static void free_static(void)
{
    void *volatile address = &variable;
    vmk_heap_free(heap, address);
}

static void free_of_malloc(void)
{
    void *volatile address = malloc(100);
    (void)take(10);
    vmk_heap_free(heap, address);
}

static void free_foreign(void)
{
    vmk_heap *other = heap_make(0);
    vmk_heap_free(heap, take(10));
    vmk_heap_free(heap, vmk_heap_alloc(other, 10));
}

static void free_foreign_large(void)
{
    vmk_heap *other = heap_make(1);
    vmk_heap_free(heap, vmk_heap_alloc(other, LARGE));
}

/* A slot of a slab that was never handed out. */
static void free_never_allocated(void)
{
    vmk_heap_free(heap, (char *)take(1000) + 7 * vmk_heap_good_size(1000));
}

static void free_plain_span(void)
{
    vmk_span *span;
    if (vmk_span_alloc(heap, 3, 0, 0, &span) == VMK_OK)
        vmk_heap_free(heap, span->base);
}

static void free_cache(void)
{
    vmk_heap_free(heap, vmk_cache_attach(heap));
}

static void free_behind_the_window(void)
{
    vmk_heap_free(heap, (void *)(UINTPTR_MAX - 15));
}

static void free_low_address(void)
{
    vmk_heap_free(heap, (void *)(uintptr_t)16);
}

/* --- sizes and reallocation ------------------------------------------------------------------------------------- */

static void sized_too_large(void)
{
    vmk_heap_free_sized(heap, take(100), 113);
}

static void sized_too_large_large(void)
{
    vmk_heap_free_sized(heap, take(LARGE), 2 * LARGE);
}

static void sized_freed(void)
{
    void *object = take(100);
    vmk_heap_free(heap, object);
    vmk_heap_free_sized(heap, object, 100);
}

static void realloc_freed(void)
{
    void *object = take(100);
    vmk_heap_free(heap, object);
    (void)vmk_heap_realloc(heap, object, 100);
}

static void realloc_freed_by_another(void)
{
    void *object = take(100);
    support_threads(1, free_with_cache, object);
    (void)vmk_heap_realloc(heap, object, 101);
}

static void realloc_freed_large(void)
{
    void *object = take(LARGE);
    vmk_heap_free(heap, object);
    (void)vmk_heap_realloc(heap, object, 2 * LARGE);
}

static void realloc_freed_huge(void)
{
    void *object = take(HUGE_SIZE);
    vmk_heap_free(heap, object);
    (void)vmk_heap_realloc(heap, object, 2 * HUGE_SIZE);
}

static void realloc_interior(void)
{
    (void)vmk_heap_realloc(heap, (char *)take(1000) + 16, 2000);
}

static void realloc_unaligned(void)
{
    (void)vmk_heap_realloc(heap, (char *)take(1000) + 3, 10);
}

static void realloc_interior_large(void)
{
    (void)vmk_heap_realloc(heap, (char *)take(LARGE) + 16, 2000);
}

static void realloc_static(void)
{
    (void)vmk_heap_realloc(heap, &variable, 100);
}

static void usable_freed(void)
{
    void *object = take(100);
    vmk_heap_free(heap, object);
    (void)vmk_heap_usable_size(heap, object);
}

static void usable_freed_large(void)
{
    void *object = take(LARGE);
    vmk_heap_free(heap, object);
    (void)vmk_heap_usable_size(heap, object);
}

static void usable_interior(void)
{
    (void)vmk_heap_usable_size(heap, (char *)take(100) + 16);
}

static void usable_static(void)
{
    (void)vmk_heap_usable_size(heap, &variable);
}

/* --- in hardened heaps ------------------------------------------------------------------------------------------ */

static void write_past_small(void)
{
    char *object = take(100);
    object[vmk_heap_usable_size(heap, object)] ^= 1;
    vmk_heap_free(heap, object);
}

static void write_past_small_by_another(void)
{
    char *object = take(100);
    object[vmk_heap_usable_size(heap, object) + 7] ^= 1;
    support_threads(1, free_here, object);
}

static void write_past_large(void)
{
    char *object = take(LARGE);
    *(volatile char *)&object[vmk_heap_usable_size(heap, object)] = 1;
}

static void read_past_large(void)
{
    const char *object = take(40000);
    (void)*(volatile const char *)&object[vmk_heap_usable_size(heap, (void *)(uintptr_t)object)];
}

/* Above 4 MiB in every heap. */
static void write_past_guarded(void)
{
    char *object = take(4 * MIB + 1);
    *(volatile char *)&object[vmk_heap_usable_size(heap, object)] = 1;
}

static void write_past_grown(void)
{
    char *object = vmk_heap_realloc(heap, take(600 << 10), 5 * MIB);
    *(volatile char *)&object[vmk_heap_usable_size(heap, object)] = 1;
}

static void write_past_shrunk(void)
{
    char *object = vmk_heap_realloc(heap, take(9 * MIB), 5 * MIB);
    *(volatile char *)&object[vmk_heap_usable_size(heap, object)] = 1;
}

static void write_past_huge(void)
{
    char *object = take(HUGE_SIZE);
    *(volatile char *)&object[HUGE_SIZE + ((size_t)64 << 10)] = 1;
}

/* Behind a slab there is a guard as well. */
static void write_past_slab(void)
{
    char *object = take(1000);
    const vmk_span *span = vmk_span_find(heap, (uintptr_t)object);
    memset(object, 1, (size_t)(span->base + span->pages * VMK_HEAP_PAGE_SIZE - (unsigned char *)object));
}

static void churn(void)
{
    for (int i = 0; i < 100000; i++)
        vmk_heap_free(heap, take(100));
}

static void write_after_free(void)
{
    char *object = take(100);
    vmk_heap_free(heap, object);
    *(volatile char *)&object[99] = 1;
    churn();
}

static void write_long_after_free(void)
{
    char *object = take(100);
    vmk_heap_free(heap, object);
    for (int i = 0; i < 200; i++) /* it is kept back no more */
        vmk_heap_free(heap, take(30));
    *(volatile char *)object = 1;
    churn();
}

static void write_over_the_freed_end(void)
{
    char *object = take(100);
    size_t usable = vmk_heap_usable_size(heap, object);
    vmk_heap_free(heap, object);
    *(volatile char *)&object[usable] ^= 1;
    churn();
}

static void write_after_free_found_at_detach(void)
{
    char *object = take(100);
    vmk_heap_free(heap, object);
    *(volatile char *)object = 1;
    vmk_cache_detach(heap);
}

/* --- the list --------------------------------------------------------------------------------------------------- */

#define FREE "vmkit: vmk_heap_free: "
#define TWICE FREE "object was freed before"
#define NONE FREE "not an object of this heap: 0x"
#define START FREE "not the start of an object: 0x"
#define REALLOC "vmkit: vmk_heap_realloc: not an object of this heap: 0x"
#define USABLE "vmkit: vmk_heap_usable_size: not an object of this heap: 0x"
#define SIZED "vmkit: vmk_heap_free_sized: object is smaller than that: 0x"
#define POISONED "AddressSanitizer: use-after-poison" /* it sees the crime itself, not only what comes of it */
#define WRITTEN "memory was written to after it was freed: 0x"

static const struct crime {
    const char *name;
    void (*commit)(void);
    const char *message; /* NULL: a fault, which leaves none */
    const char *or_else; /* another that may come instead */
    bool hardened;       /* found there alone */
} crimes[] = {
    {"twice-small", twice_small, TWICE, NULL, false},
    {"twice-medium", twice_medium, TWICE, NULL, false},
    {"twice-large", twice_large, NONE, TWICE, false},
    {"twice-huge", twice_huge, NONE, NULL, false},
    {"twice-handle", twice_by_handle, TWICE, NULL, false},
    {"twice-after-others", twice_after_others, TWICE, NONE, false},
    {"twice-after-100", twice_after_a_hundred, TWICE, NONE, false},
    {"twice-by-another", twice_by_another, TWICE, NULL, false},
    {"twice-by-another-2", twice_by_another_with_cache, TWICE, NULL, false},
    {"twice-after-another", twice_after_another, TWICE, NULL, false},
    {"twice-by-others", twice_by_others, TWICE, NULL, false},
    {"twice-left", twice_what_was_left, TWICE, NONE, false},
    {"twice-left-adopted", twice_what_was_left_and_adopted, TWICE, NONE, false},
    {"twice-after-trim", twice_after_trim, NONE, NULL, false},
    {"interior", free_interior, TWICE, START, false},
    {"interior-far", free_interior_far, TWICE, START, false},
    {"interior-by-another", free_interior_by_another, TWICE, START, false},
    {"unaligned", free_unaligned, START, TWICE, false},
    {"unaligned-by-another", free_unaligned_by_another, START, TWICE, false},
    {"interior-large", free_interior_large, START, NULL, false},
    {"interior-huge", free_interior_huge, NONE, NULL, false},
    {"stack", free_of_the_stack, NONE, NULL, false},
    {"static", free_static, NONE, NULL, false},
    {"malloc", free_of_malloc, NONE, NULL, false},
    {"foreign", free_foreign, NONE, NULL, false},
    {"foreign-large", free_foreign_large, NONE, NULL, false},
    {"never", free_never_allocated, TWICE, NULL, false},
    {"span", free_plain_span, NONE, NULL, false},
    {"cache", free_cache, NONE, NULL, false},
    {"behind", free_behind_the_window, NONE, NULL, false},
    {"low", free_low_address, NONE, NULL, false},
    {"sized", sized_too_large, SIZED, NULL, false},
    {"sized-large", sized_too_large_large, SIZED, NULL, false},
    {"sized-freed", sized_freed, USABLE, NULL, false},
    {"realloc-freed", realloc_freed, REALLOC, NULL, false},
    {"realloc-another", realloc_freed_by_another, REALLOC, NULL, false},
    {"realloc-freed-large", realloc_freed_large, REALLOC, NULL, false},
    {"realloc-freed-huge", realloc_freed_huge, REALLOC, NULL, false},
    {"realloc-interior", realloc_interior, REALLOC, NULL, false},
    {"realloc-unaligned", realloc_unaligned, REALLOC, NULL, false},
    {"realloc-interior-large", realloc_interior_large, REALLOC, NULL, false},
    {"realloc-static", realloc_static, REALLOC, NULL, false},
    {"usable-freed", usable_freed, USABLE, NULL, false},
    {"usable-freed-large", usable_freed_large, USABLE, NULL, false},
    {"usable-interior", usable_interior, USABLE, NULL, false},
    {"usable-static", usable_static, USABLE, NULL, false},
    {"past-guarded", write_past_guarded, NULL, NULL, false},
    {"past-grown", write_past_grown, NULL, NULL, false},
    {"past-shrunk", write_past_shrunk, NULL, NULL, false},
    {"past-huge", write_past_huge, NULL, NULL, false},
    {"past-small", write_past_small, FREE "object was written past its end: 0x", NULL, true},
    {"past-small-another", write_past_small_by_another, FREE "object was written past its end: 0x", NULL, true},
    {"past-large", write_past_large, NULL, NULL, true},
    {"read-past-large", read_past_large, NULL, NULL, true},
    {"past-slab", write_past_slab, NULL, NULL, true},
    {"after-free", write_after_free, WRITTEN, NULL, true},
    {"long-after-free", write_long_after_free, WRITTEN, NULL, true},
    {"freed-end", write_over_the_freed_end, WRITTEN, TWICE, true},
    {"after-free-detach", write_after_free_found_at_detach, WRITTEN, NULL, true},
};
enum { CRIMES = sizeof crimes / sizeof crimes[0] };

static int child(int argc, char **argv)
{
    if (argc < 2)
        return 9;
    heap = heap_make(atoi(argv[1]));
    for (int i = 0; i < CRIMES; i++)
        if (strcmp(argv[0], crimes[i].name) == 0)
            crimes[i].commit();
    return 77; /* survived it */
}

START_TEST(crimes_end_the_program_and_are_named)
{
    const struct crime *crime = &crimes[_i / KINDS];
    char output[4096], kind[2] = {(char)('0' + _i % KINDS), '\0'};
    const char *arguments[] = {crime->name, kind, NULL};
    if (crime->hardened && _i % KINDS < 2)
        return;
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(end.crashed || (end.code != 0 && end.code != 77 && end.code != 9), "%s in %s: code %d, %s",
                  crime->name, kind, end.code, output);
    bool named = crime->message == NULL || strstr(output, crime->message) != NULL ||
                 (crime->or_else != NULL && strstr(output, crime->or_else) != NULL) ||
                 (crime->hardened && strstr(output, POISONED) != NULL);
    ck_assert_msg(named, "%s in %s: %s", crime->name, kind, output);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_deaths");
    TCase *tests = tcase_create("object_deaths");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, crimes_end_the_program_and_are_named, 0, CRIMES * KINDS);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
