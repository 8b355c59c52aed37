/* SPDX-License-Identifier: MIT
 *
 * Proven misuse ends the program with a message that names it, or goes to the hook that the program has set. Each crime
 * is committed in a child process, which is this program again with the crime's name.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "support.h"

static vmk_region region;
static vmk_table table;
static vmk_heap *heap;
static vmk_span *span;

static void make_region(void)
{
    if (vmk_reserve(&region, 4 * vmk_page_size(), NULL) != VMK_OK || vmk_commit(&region, 0, vmk_page_size()) != VMK_OK)
        exit(9);
}

static void make_table(void)
{
    vmk_table_config config = {.capacity = 1000, .column_bits = {64}};
    if (vmk_table_init(&table, &config) != VMK_OK || vmk_table_ensure(&table, 1) != VMK_OK)
        exit(9);
}

static void release_twice(void)
{
    make_region();
    vmk_release(&region);
    vmk_release(&region);
}

static void release_what_is_no_region(void)
{
    vmk_release(&region);
}

static void commit_after_release(void)
{
    make_region();
    vmk_release(&region);
    VMKI_IGNORE(vmk_commit(&region, 0, vmk_page_size()));
}

static void decommit_misaligned(void)
{
    make_region();
    VMKI_IGNORE(vmk_decommit(&region, 1, vmk_page_size()));
}

static void decommit_outside(void)
{
    make_region();
    VMKI_IGNORE(vmk_decommit(&region, 0, 5 * vmk_page_size()));
}

static void discard_misaligned(void)
{
    make_region();
    VMKI_IGNORE(vmk_discard(&region, 0, vmk_page_size() / 2));
}

static void reuse_outside(void)
{
    make_region();
    vmk_reuse(&region, 4 * vmk_page_size(), vmk_page_size());
}

static void query_outside(void)
{
    make_region();
    (void)vmk_region_query(&region, 4 * vmk_page_size(), NULL);
}

static void end_a_table_twice(void)
{
    make_table();
    vmk_table_fini(&table);
    vmk_table_fini(&table);
}

static void end_what_is_no_table(void)
{
    vmk_table_fini(&table);
}

static void grow_what_is_no_table(void)
{
    VMKI_IGNORE(vmk_table_ensure(&table, 1));
}

/* --- heaps ------------------------------------------------------------------------------------------------------ */

static vmk_heap *new_heap(void)
{
    vmk_heap *made;
    if (vmk_heap_create(&made, NULL) != VMK_OK)
        exit(9);
    return made;
}

static vmk_span *new_span(vmk_heap *of)
{
    vmk_span *made;
    if (vmk_span_alloc(of, 4, 0, 0, &made) != VMK_OK)
        exit(9);
    return made;
}

static void make_span(void)
{
    heap = new_heap();
    span = new_span(heap);
}

static void make_freed_span(void)
{
    make_span();
    vmk_span_free(heap, span);
}

static void destroy_null(void)
{
    vmk_heap_destroy(NULL);
}

/* Whoever has a heap's view by value, or a pointer to something else. */
static void destroy_on_the_stack(void)
{
    unsigned char bytes[4096] = {0};
    make_span();
    memcpy(bytes, heap, sizeof *heap);
    vmk_heap_destroy((vmk_heap *)(void *)bytes);
}

static void destroy_what_is_no_heap(void)
{
    make_span();
    memset(span->base, 0xff, VMK_HEAP_PAGE_SIZE);
    vmk_heap_destroy((vmk_heap *)(void *)span->base);
}

/* A heap's own memory is gone with it. Where it has been reserved since, by others, that is found out. */
static void destroy_twice(void)
{
    make_span();
    vmk_heap *old = heap;
    vmk_reserve_options how = {.hint = old, .flags = VMK_RESERVE_EXACT};
    vmk_heap_destroy(old);
    if (vmk_reserve(&region, vmk_granularity(), &how) != VMK_OK || vmk_commit(&region, 0, region.size) != VMK_OK)
        exit(9);
    vmk_heap_destroy(old);
}

static void alloc_without_a_heap(void)
{
    VMKI_IGNORE(vmk_span_alloc(NULL, 1, 0, 0, &span));
}

static void free_without_a_heap(void)
{
    make_span();
    vmk_span_free(NULL, span);
}

static void resize_without_a_heap(void)
{
    make_span();
    VMKI_IGNORE(vmk_span_resize(NULL, span, 2));
}

static void split_without_a_heap(void)
{
    make_span();
    VMKI_IGNORE(vmk_span_split(NULL, span, 2, &span));
}

static void classify_without_a_heap(void)
{
    make_span();
    vmk_span_set_class(NULL, span, 2);
}

static void scavenge_without_a_heap(void)
{
    (void)vmk_heap_scavenge(NULL, SIZE_MAX);
}

static void tick_without_a_heap(void)
{
    (void)vmk_heap_scavenge_tick(NULL);
}

static void start_without_a_heap(void)
{
    VMKI_IGNORE(vmk_heap_scavenger_start(NULL));
}

static void stop_without_a_heap(void)
{
    vmk_heap_scavenger_stop(NULL);
}

static void look_without_a_heap(void)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(NULL, &stats);
}

static void walk_without_a_heap(void)
{
    vmk_heap_walk(NULL, NULL, NULL);
}

static void free_twice(void)
{
    make_freed_span();
    vmk_span_free(heap, span);
}

static void free_null(void)
{
    make_span();
    vmk_span_free(heap, NULL);
}

static void free_another_heaps(void)
{
    make_span();
    vmk_span_free(heap, new_span(new_heap()));
}

static void free_misaligned(void)
{
    make_span();
    vmk_span_free(heap, (vmk_span *)(void *)((unsigned char *)span + sizeof(void *)));
}

/* The record of nobody, with the id 0, and the one after the last that was handed out. */
static void free_the_first_record(void)
{
    make_span();
    vmk_span_free(heap, heap->records);
}

static void free_what_was_never_made(void)
{
    make_span();
    vmk_span_free(heap, span + 1);
}

static void free_what_a_span_holds(void)
{
    make_span();
    vmk_span_free(heap, (vmk_span *)(void *)span->base);
}

static void resize_freed(void)
{
    make_freed_span();
    VMKI_IGNORE(vmk_span_resize(heap, span, 2));
}

static void resize_another_heaps(void)
{
    make_span();
    VMKI_IGNORE(vmk_span_resize(heap, new_span(new_heap()), 2));
}

static void split_freed(void)
{
    make_freed_span();
    VMKI_IGNORE(vmk_span_split(heap, span, 2, &span));
}

static void split_null(void)
{
    make_span();
    VMKI_IGNORE(vmk_span_split(heap, NULL, 2, &span));
}

static void classify_freed(void)
{
    make_freed_span();
    vmk_span_set_class(heap, span, 2);
}

static void classify_null(void)
{
    make_span();
    vmk_span_set_class(heap, NULL, 2);
}

/* --- others ----------------------------------------------------------------------------------------------------- */

static void fail_an_assertion(void)
{
    VMKI_ASSERT(1 + 1 == 3);
}

static void touch_past_what_is_ready(void)
{
    make_table();
    size_t guard = vmk_page_ceil(1000 * 8) / 8; /* the first element that would lie on the guard page */
    *(volatile uint64_t *)vmk_table_at(&table, 0, guard) = 1;
}

static const support_crimes crimes[] = {
    {"release-twice", release_twice, "vmkit: vmk_release: region was released before: 0x"},
    {"release-none", release_what_is_no_region, "vmkit: vmk_release: not a region: 0x"},
    {"commit-released", commit_after_release, "vmkit: vmk_commit: region was released before: 0x"},
    {"decommit-misaligned", decommit_misaligned, "vmkit: vmk_decommit: range is misaligned or leaves the region: 0x"},
    {"decommit-outside", decommit_outside, "vmkit: vmk_decommit: range is misaligned or leaves the region: 0x"},
    {"discard-misaligned", discard_misaligned, "vmkit: vmk_discard: range is misaligned or leaves the region: 0x"},
    {"reuse-outside", reuse_outside, "vmkit: vmk_reuse: range is misaligned or leaves the region: 0x"},
    {"query-outside", query_outside, "vmkit: vmk_region_query: offset is outside the region: 0x"},
    {"fini-twice", end_a_table_twice, "vmkit: vmk_table_fini: table was ended before: 0x"},
    {"fini-none", end_what_is_no_table, "vmkit: vmk_table_fini: not a table: 0x"},
    {"ensure-none", grow_what_is_no_table, "vmkit: vmk_table_ensure: not a table: 0x"},
    {"destroy-null", destroy_null, "vmkit: vmk_heap_destroy: not a heap: 0x0"},
    {"destroy-stack", destroy_on_the_stack, "vmkit: vmk_heap_destroy: not a heap: 0x"},
    {"destroy-none", destroy_what_is_no_heap, "vmkit: vmk_heap_destroy: not a heap: 0x"},
    {"destroy-twice", destroy_twice, "vmkit: vmk_heap_destroy: not a heap: 0x"},
    {"alloc-no-heap", alloc_without_a_heap, "vmkit: vmk_span_alloc: not a heap: 0x"},
    {"free-no-heap", free_without_a_heap, "vmkit: vmk_span_free: not a heap: 0x"},
    {"resize-no-heap", resize_without_a_heap, "vmkit: vmk_span_resize: not a heap: 0x"},
    {"split-no-heap", split_without_a_heap, "vmkit: vmk_span_split: not a heap: 0x"},
    {"class-no-heap", classify_without_a_heap, "vmkit: vmk_span_set_class: not a heap: 0x"},
    {"scavenge-no-heap", scavenge_without_a_heap, "vmkit: vmk_heap_scavenge: not a heap: 0x"},
    {"tick-no-heap", tick_without_a_heap, "vmkit: vmk_heap_scavenge_tick: not a heap: 0x"},
    {"start-no-heap", start_without_a_heap, "vmkit: vmk_heap_scavenger_start: not a heap: 0x"},
    {"stop-no-heap", stop_without_a_heap, "vmkit: vmk_heap_scavenger_stop: not a heap: 0x"},
    {"stats-no-heap", look_without_a_heap, "vmkit: vmk_heap_stats_now: not a heap: 0x"},
    {"walk-no-heap", walk_without_a_heap, "vmkit: vmk_heap_walk: not a heap: 0x"},
    {"free-twice", free_twice, "vmkit: vmk_span_free: span was freed before: 0x"},
    {"free-null", free_null, "vmkit: vmk_span_free: not a span of this heap: 0x"},
    {"free-foreign", free_another_heaps, "vmkit: vmk_span_free: not a span of this heap: 0x"},
    {"free-misaligned", free_misaligned, "vmkit: vmk_span_free: not a span of this heap: 0x"},
    {"free-first", free_the_first_record, "vmkit: vmk_span_free: not a span of this heap: 0x"},
    {"free-unmade", free_what_was_never_made, "vmkit: vmk_span_free: not a span of this heap: 0x"},
    {"free-contents", free_what_a_span_holds, "vmkit: vmk_span_free: not a span of this heap: 0x"},
    {"resize-freed", resize_freed, "vmkit: vmk_span_resize: span was freed before: 0x"},
    {"resize-foreign", resize_another_heaps, "vmkit: vmk_span_resize: not a span of this heap: 0x"},
    {"split-freed", split_freed, "vmkit: vmk_span_split: span was freed before: 0x"},
    {"split-null", split_null, "vmkit: vmk_span_split: not a span of this heap: 0x"},
    {"class-freed", classify_freed, "vmkit: vmk_span_set_class: span was freed before: 0x"},
    {"class-null", classify_null, "vmkit: vmk_span_set_class: not a span of this heap: 0x"},
    {"assertion", fail_an_assertion, "vmkit: assertion failed: 1 + 1 == 3 ("},
    {"touch-guard", touch_past_what_is_ready, NULL},
};
enum { CRIMES = sizeof crimes / sizeof crimes[0] };

/* --- the hook --------------------------------------------------------------------------------------------------- */

static void print_and_return(const char *crime, const void *address, void *context)
{
    printf("hook %s, %s, %s\n", crime, address == &region ? "the region" : "elsewhere", (const char *)context);
    fflush(stdout);
}

static jmp_buf escape;

static void leave(const char *crime, const void *address, void *context)
{
    (void)crime;
    (void)address;
    (void)context;
    longjmp(escape, 1);
}

/* A hook may leave by longjmp, and the library goes on working. */
static int escape_and_go_on(void)
{
    vmk_set_misuse_hook(leave, NULL);
    make_region();
    if (setjmp(escape) == 0) {
        VMKI_IGNORE(vmk_decommit(&region, 1, 1));
        return 1;
    }
    if (region.committed != vmk_page_size())
        return 2;
    if (vmk_commit(&region, vmk_page_size(), vmk_page_size()) != VMK_OK)
        return 3;
    vmk_release(&region);
    return 42;
}

static int child(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "hook") == 0)
        vmk_set_misuse_hook(print_and_return, (void *)(uintptr_t) "context");
    if (argc >= 1 && strcmp(argv[0], "escape") == 0)
        return escape_and_go_on();
    return support_commit(argc, argv, crimes, CRIMES);
}

START_TEST(misuse_ends_the_program_and_says_why)
{
    support_crime(crimes[_i].name, crimes[_i].message);
}
END_TEST

START_TEST(the_hook_hears_of_it_first)
{
    char output[4096];
    const char *arguments[] = {"release-none", "hook", NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert(end.crashed || end.code != 0);
    const char *heard = strstr(output, "hook vmk_release: not a region, the region, context");
    const char *said = strstr(output, "vmkit: vmk_release: not a region: 0x");
    ck_assert_msg(heard != NULL && said != NULL && heard < said, "%s", output);
}
END_TEST

START_TEST(the_hook_may_leave)
{
    char output[4096];
    const char *arguments[] = {"escape", NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(!end.crashed && end.code == 42, "code %d, %s", end.code, output);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("deaths");
    TCase *tests = tcase_create("deaths");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, misuse_ends_the_program_and_says_why, 0, CRIMES);
    tcase_add_test(tests, the_hook_hears_of_it_first);
    tcase_add_test(tests, the_hook_may_leave);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
