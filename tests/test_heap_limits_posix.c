/* SPDX-License-Identifier: MIT
 *
 * Heaps under limits on the process: children that set a limit on themselves, from nothing at all to 4 GiB, and then
 * make a heap, use it, and end it. Whatever is refused must be refused by a status.
 *
 * A child is told how much more than it has it shall be able to take; what its C library needs for itself was taken
 * before. Not to be run under sanitizers, whose shadows bear no limits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/heap/heap.h"
#include "support.h"

#define MIB (UINT64_C(1) << 20)

enum { SPANS = 1000, WRONG = 100 };

/* Exit codes of a child: how far it came. */
enum { NO_HEAP = 1, SOME_SPANS = 2, ALL_SPANS = 3 };

static int wrong(int line)
{
    printf("line %d", line);
    fflush(stdout);
    return WRONG;
}

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return wrong(__LINE__);                                                                                    \
    } while (0)

static bool is_refusal(vmk_status status)
{
    return status == VMK_ERR_ADDRESS_SPACE || status == VMK_ERR_COMMIT || status == VMK_ERR_MAPPINGS ||
           status == VMK_ERR_LIMIT;
}

/* As many spans as there may be; all given back. -1, or an exit code where something is wrong. */
static int use_spans(vmk_heap *heap, size_t *count)
{
    static vmk_span *spans[SPANS];
    vmk_status status = VMK_OK;
    size_t n = 0;
    while (n < SPANS && (status = vmk_span_alloc(heap, 1, 0, 0, &spans[n])) == VMK_OK) {
        memset(spans[n]->base, (int)n & 255, VMK_HEAP_PAGE_SIZE);
        n++;
    }
    REQUIRE(status == VMK_OK || is_refusal(status));
    for (size_t i = 0; i < n; i++) {
        REQUIRE(spans[i]->base[0] == (i & 255) && spans[i]->base[VMK_HEAP_PAGE_SIZE - 1] == (i & 255));
        REQUIRE(vmk_span_find(heap, (uintptr_t)spans[i]->base) == spans[i]);
    }
    *count = n;
    for (size_t i = 0; i < n; i++)
        vmk_span_free(heap, spans[i]);
    REQUIRE(vmki_heap_check(heap));
    return -1;
}

static int use_heap(uint64_t more, bool on_data)
{
    vmk_heap *heap;
    vmk_heap_stats figures;
    vmk_stats all;
    size_t count = 0;
    vmk_status status = vmk_heap_create(&heap, NULL);
    vmk_stats_now(&all);
    if (status != VMK_OK) {
        REQUIRE(is_refusal(status) && all.reserved == 0 && all.regions == 0);
        return NO_HEAP;
    }
    vmk_heap_stats_now(heap, &figures);
    /* Where not even the least of tables fits into what may be written, the reservations of another layout may. */
    REQUIRE(figures.layout == VMK_LAYOUT_LIMITED || (on_data && more < MIB && figures.layout == VMK_LAYOUT_32));
    REQUIRE(figures.reserved == all.reserved && (on_data || all.reserved + all.overhead <= more));
    int code = use_spans(heap, &count);
    if (code >= 0)
        return code;
    vmk_heap_stats_now(heap, &figures);
    vmk_stats_now(&all);
    REQUIRE(figures.in_use == 0 && figures.idle + figures.released >= count * VMK_HEAP_PAGE_SIZE);
    REQUIRE(figures.reserved == all.reserved && figures.committed == all.committed);
    REQUIRE(on_data ? all.committed <= more : all.reserved + all.overhead <= more);
    (void)vmk_heap_scavenge(heap, SIZE_MAX);
    REQUIRE(vmki_heap_check(heap));
    vmk_heap_destroy(heap);
    vmk_stats_now(&all);
    REQUIRE(all.reserved == 0 && all.committed == 0 && all.regions == 0);
    return count == SPANS ? ALL_SPANS : SOME_SPANS;
}

/* arguments: "as" or "data", and bytes: the limit itself, or after a '+' what it is above what the process has. */
static int child(int argc, char **argv)
{
    static char buffer[4096];
    vmk_usage usage;
    if (argc != 2 || setvbuf(stdout, buffer, _IOFBF, sizeof buffer) != 0 || vmk_usage_now(&usage) != VMK_OK)
        return wrong(__LINE__);
    bool on_data = strcmp(argv[0], "data") == 0;
    uint64_t bytes = strtoull(argv[1], NULL, 10), has = on_data ? usage.data : usage.address_space;
    uint64_t limit = argv[1][0] == '+' ? has + bytes : bytes;
    struct rlimit rule = {(rlim_t)limit, (rlim_t)limit};
    if (setrlimit(on_data ? RLIMIT_DATA : RLIMIT_AS, &rule) != 0)
        return wrong(__LINE__);
    return use_heap(limit > has ? limit - has : 0, on_data);
}

/* Run a child, and give its exit code. */
static int run(const char *kind, const char *form, uint64_t bytes)
{
    char number[32], output[256];
    snprintf(number, sizeof number, form, (unsigned long long)bytes);
    const char *const arguments[] = {kind, number, NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(!end.crashed && end.code >= NO_HEAP && end.code <= ALL_SPANS, "%s %s: %s %d, %s", kind, number,
                  end.crashed ? "crashed," : "code", end.code, output);
    return end.code;
}

/* As many below each power of two as above it. */
static uint64_t random_bytes(support_random *random, unsigned least_bits, unsigned most_bits)
{
    unsigned bits = least_bits + (unsigned)support_random_below(random, most_bits - least_bits);
    return (UINT64_C(1) << bits) + support_random_next(random) % (UINT64_C(1) << bits);
}

START_TEST(address_space)
{
    support_random random = support_random_start(60);
    for (size_t round = support_rounds(120); round > 0; round--) {
        uint64_t bytes = random_bytes(&random, 12, 32);
        int code = run("as", round % 4 == 0 ? "%llu" : "+%llu", bytes);
        /* 1,000 spans are 8 MiB. */
        ck_assert_msg(bytes < 32 * MIB || code == ALL_SPANS, "%llu: %d", (unsigned long long)bytes, code);
    }
}
END_TEST

START_TEST(data)
{
    support_random random = support_random_start(61);
    for (size_t round = support_rounds(60); round > 0; round--) {
        uint64_t bytes = random_bytes(&random, 12, 32);
        int code = run("data", round % 4 == 0 ? "%llu" : "+%llu", bytes);
        ck_assert_msg(bytes < 32 * MIB || code == ALL_SPANS, "%llu: %d", (unsigned long long)bytes, code);
    }
}
END_TEST

/* The least that does, and the most that does not: every step between, that of a page, is one or the other. */
START_TEST(the_edge)
{
    uint64_t low = 0, high = 64 * MIB, page = vmk_page_size();
    ck_assert_int_eq(run("as", "+%llu", high), ALL_SPANS);
    while (high - low > page) {
        uint64_t middle = (low + (high - low) / 2) / page * page;
        if (run("as", "+%llu", middle) == ALL_SPANS)
            high = middle;
        else
            low = middle;
    }
    printf("1,000 spans of a page (8,000 KiB) need %llu KiB of address space\n", (unsigned long long)high / 1024);
    ck_assert_uint_lt(high, 16 * MIB);
    uint64_t from = high > 16 * page ? high - 16 * page : 0;
    for (uint64_t more = from; more < high + 16 * page; more += page)
        (void)run("as", "+%llu", more);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap, limits");
    TCase *tests = tcase_create("limits");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, address_space);
    tcase_add_test(tests, data);
    tcase_add_test(tests, the_edge);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
