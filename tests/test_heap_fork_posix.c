/* SPDX-License-Identifier: MIT
 *
 * fork in the middle of everything: while threads allocate, free and give back, and heaps come and go, children are
 * made. Each must find every heap whole and every lock free, be able to do all that its parent could, and end the heaps
 * that it has inherited; the parent goes on as if nothing had been.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/heap/heap.h"
#include "support.h"

enum { THREADS = 4, CHILDREN = 50, HEAPS = 3, SLOTS = 16, PAGES_MAX = 20, DEADLINE = 60 };

typedef struct storm {
    vmk_heap *heap[HEAPS];
    size_t stop;
    int line[THREADS]; /* where a thread first saw something wrong; 0: nowhere */
    int children;
    int failed_children;
    int last_failure; /* exit code, or 1000 + signal */
} storm;

/* --- what threads and children alike do ------------------------------------------------------------------------- */

/* A few spans of one heap: 0, or the line where something was wrong. */
static int use_heap(vmk_heap *heap, support_random *random)
{
    static const unsigned flags[] = {0, VMK_SPAN_ZERO, VMK_SPAN_MARKS};
    vmk_span *spans[SLOTS];
    for (size_t i = 0; i < SLOTS; i++) {
        size_t pages = 1 + support_random_below(random, PAGES_MAX);
        if (vmk_span_alloc(heap, pages, 0, flags[support_random_below(random, 3)], &spans[i]) != VMK_OK)
            return __LINE__;
        if ((spans[i]->flags & VMK_SPAN_ZERO) != 0 &&
            (spans[i]->base[0] != 0 || spans[i]->base[pages * VMK_HEAP_PAGE_SIZE - 1] != 0))
            return __LINE__;
        memset(spans[i]->base, (int)(i + 1), 100);
        spans[i]->base[pages * VMK_HEAP_PAGE_SIZE - 1] = (unsigned char)(i + 1);
        vmk_span_set_class(heap, spans[i], (uint8_t)(i + 1));
    }
    for (size_t i = 0; i < SLOTS; i++) {
        if (vmk_span_find(heap, (uintptr_t)spans[i]->base) != spans[i] || spans[i]->base[99] != i + 1 ||
            spans[i]->base[spans[i]->pages * VMK_HEAP_PAGE_SIZE - 1] != i + 1)
            return __LINE__;
        vmk_status status = vmk_span_resize(heap, spans[i], 1 + support_random_below(random, PAGES_MAX));
        if (status != VMK_OK && status != VMK_ERR_TAKEN)
            return __LINE__;
        vmk_span_free(heap, spans[i]);
    }
    (void)vmk_heap_scavenge(heap, support_random_below(random, (size_t)1 << 20));
    return 0;
}

/* A heap of one's own. No limited one: what other threads map beside it may lie in its window. */
static int use_own(support_random *random, size_t window)
{
    vmk_heap *heap;
    vmk_heap_options options = {.layout = VMK_LAYOUT_64, .window = window, .scavenge_interval = 1000};
    if (vmk_heap_create(&heap, &options) != VMK_OK)
        return __LINE__;
    int line = use_heap(heap, random);
    vmk_heap_destroy(heap);
    return line;
}

/* --- the child -------------------------------------------------------------------------------------------------- */

static bool adds_up(vmk_heap *heap)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(heap, &stats);
    return stats.in_use + stats.idle + stats.released <= stats.part[VMK_HEAP_ARENA].reserved &&
           stats.in_use + stats.idle <= stats.part[VMK_HEAP_ARENA].committed &&
           stats.spans * VMK_HEAP_PAGE_SIZE <= stats.in_use;
}

static int use_inherited(vmk_heap *heap, support_random *random)
{
    int line;
    /* First of all: as it was at the fork, and nobody's thread runs. */
    if (!vmki_heap_check(heap) || vmki_heap_of(heap)->scavenger_runs)
        return 2;
    vmk_heap_scavenger_stop(heap); /* there is none, and nobody waits for it */
    for (int i = 0; i < 5; i++)
        if ((line = use_heap(heap, random)) != 0)
            return 3;
    (void)vmk_heap_scavenge(heap, SIZE_MAX);
    (void)vmk_heap_scavenge_tick(heap);
    if (!adds_up(heap) || !vmki_heap_check(heap))
        return 4;
    if (SUPPORT_CHILD_HAS_THREADS) {
        if (vmk_heap_scavenger_start(heap) != VMK_OK || use_heap(heap, random) != 0)
            return 5;
        vmk_heap_scavenger_stop(heap);
        if (!vmki_heap_check(heap) || vmk_heap_scavenger_start(heap) != VMK_OK)
            return 6; /* and destroying it ends it once more */
    }
    return 0;
}

static int child(storm *s)
{
    support_random random = support_random_start(99);
    alarm(DEADLINE); /* a deadlock ends here */
    vmk_stats before, after;
    vmk_stats_now(&before);
    if (use_own(&random, (size_t)8 << 20) != 0)
        return 7;
    vmk_stats_now(&after);
    if (after.reserved != before.reserved || after.committed != before.committed || after.regions != before.regions)
        return 8;
    int code;
    for (size_t i = 0; i < HEAPS; i++)
        if ((code = use_inherited(s->heap[i], &random)) != 0)
            return code;
    for (size_t i = 0; i < HEAPS; i++)
        vmk_heap_destroy(s->heap[i]);
    return 0;
}

/* --- the parent ------------------------------------------------------------------------------------------------- */

static void fork_children(storm *s)
{
    for (int i = 0; i < s->children; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(child(s));
        int status = 0;
        bool ended = pid > 0 && waitpid(pid, &status, 0) == pid;
        if (ended && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        s->failed_children++;
        s->last_failure = WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

static void body(void *argument, unsigned number)
{
    storm *s = argument;
    support_random random = support_random_start(50 + number);
    if (number == THREADS - 1) {
        fork_children(s);
        VMKI_STORE_RELEASE(&s->stop, 1);
        return;
    }
    for (size_t i = number; VMK_LOAD_ACQUIRE(&s->stop) == 0 && s->line[number] == 0; i++) {
        vmk_heap *heap = s->heap[i % HEAPS];
        s->line[number] = use_heap(heap, &random);
        if (s->line[number] == 0 && i % 8 == 0)
            s->line[number] = use_own(&random, (size_t)4 << 20);
        if (i % 8 == 1)
            vmk_heap_scavenger_stop(heap);
        if (i % 8 == 2 && vmk_heap_scavenger_start(heap) != VMK_OK)
            s->line[number] = __LINE__;
    }
}

START_TEST(children_find_every_heap_whole)
{
    static storm s;
    memset(&s, 0, sizeof s);
    s.children = (int)vmki_min(support_rounds(CHILDREN), 1000);
    for (size_t i = 0; i < HEAPS; i++) {
        static const vmk_layout layouts[HEAPS] = {VMK_LAYOUT_64, VMK_LAYOUT_32, VMK_LAYOUT_64};
        vmk_heap_options options = {.layout = layouts[i],
                                    .flags = i == 1 ? VMK_HEAP_DECOMMIT : 0,
                                    .window = (size_t)32 << 20,
                                    .step = (size_t)64 << 10,
                                    .scavenge_interval = 20000,
                                    .keep_percent = 1};
        ck_assert_int_eq(vmk_heap_create(&s.heap[i], &options), VMK_OK);
        ck_assert_int_eq(vmk_heap_scavenger_start(s.heap[i]), VMK_OK);
    }
    support_threads(THREADS, body, &s);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(s.line[i] == 0, "thread %d, line %d", i, s.line[i]);
    ck_assert_msg(s.failed_children == 0, "%d of %d, the last with %d", s.failed_children, s.children, s.last_failure);
    for (size_t i = 0; i < HEAPS; i++) {
        vmk_heap_scavenger_stop(s.heap[i]);
        ck_assert(vmki_heap_check(s.heap[i]));
        vmk_heap_destroy(s.heap[i]);
    }
}
END_TEST

/* In quiet too: the parent's thread runs on, the child has none. */
START_TEST(the_scavenger_stays_with_the_parent)
{
    vmk_heap *heap;
    vmk_heap_options options = {.window = (size_t)16 << 20, .scavenge_interval = 20000};
    ck_assert_int_eq(vmk_heap_create(&heap, &options), VMK_OK);
    ck_assert_int_eq(vmk_heap_scavenger_start(heap), VMK_OK);
    pid_t pid = fork();
    if (pid == 0) {
        support_random random = support_random_start(7);
        alarm(DEADLINE);
        int code = use_inherited(heap, &random);
        if (code == 0)
            vmk_heap_destroy(heap);
        _exit(code);
    }
    int status;
    ck_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    ck_assert(vmki_heap_of(heap)->scavenger_runs);
    vmk_span *span;
    vmk_heap_stats stats;
    ck_assert_int_eq(vmk_span_alloc(heap, 512, 0, 0, &span), VMK_OK);
    vmk_span_free(heap, span);
    do { /* by the thread alone: waited for as long as it takes */
        support_yield();
        vmk_heap_stats_now(heap, &stats);
    } while (stats.idle != 0);
    vmk_heap_destroy(heap);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("heap, fork");
    TCase *tests = tcase_create("fork");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, the_scavenger_stays_with_the_parent);
    tcase_add_test(tests, children_find_every_heap_whole);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
