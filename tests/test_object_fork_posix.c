/* SPDX-License-Identifier: MIT
 *
 * fork while threads allocate, free each other's objects, come and go: each child must find its heaps whole, be able to
 * allocate, free what any thread had allocated, have threads of its own, and end; the parent goes on as if nothing had
 * been.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/heap/object.h"
#include "support.h"

enum { THREADS = 4, CHILDREN = 60, HEAPS = 3, BOXES = 300, KEPT = 500, DEADLINE = 60 };

static struct storm {
    vmk_heap *heap[HEAPS];
    size_t boxes[HEAPS][BOXES]; /* objects on their way from thread to thread, by atomic exchange */
    void *kept[HEAPS][KEPT];    /* of a thread that goes on, and of one that has ended: nobody frees them */
    size_t stop;
    int line[THREADS]; /* where a thread first saw something wrong; 0: nowhere */
    int children;
    int failed_children;
    int last_failure; /* exit code, or 1000 + signal */
} s;

/* --- what threads and children alike do ------------------------------------------------------------------------- */

static bool exchange(size_t heap, support_random *random)
{
    size_t size = 16 + support_random_below(random, support_random_below(random, 32) == 0 ? 100000 : 2000);
    unsigned char *object = vmk_heap_alloc(s.heap[heap], size);
    if (object == NULL)
        return false;
    memset(object, 0x5a, vmki_min(size, 100));
    size_t *box = &s.boxes[heap][support_random_below(random, BOXES)];
    object = (unsigned char *)VMKI_EXCHANGE(box, (uintptr_t)object);
    if (object == NULL)
        return true;
    bool whole = object[0] == 0x5a && object[15] == 0x5a;
    vmk_heap_free(s.heap[heap], object);
    return whole;
}

static int use_heaps(support_random *random, size_t rounds)
{
    for (size_t i = 0; i < rounds; i++)
        for (size_t h = 0; h < HEAPS; h++)
            if (!exchange(h, random))
                return __LINE__;
    size_t which = support_random_below(random, 8 * HEAPS);
    if (which < HEAPS)
        vmk_cache_detach(s.heap[which]);
    else if (which < 2 * HEAPS)
        (void)vmk_heap_trim(s.heap[which - HEAPS]);
    return 0;
}

/* --- the child -------------------------------------------------------------------------------------------------- */

static void work_and_end(void *argument, unsigned number)
{
    support_random random = support_random_start(1000 + number);
    *(int *)argument |= use_heaps(&random, 200);
}

/* All that was allocated by whomever, but for what was just on its way. */
static int free_all(void)
{
    for (size_t h = 0; h < HEAPS; h++) {
        for (size_t i = 0; i < BOXES; i++)
            vmk_heap_free(s.heap[h], (void *)VMKI_EXCHANGE(&s.boxes[h][i], 0));
        for (size_t i = 0; i < KEPT; i++) {
            if (!vmk_heap_owns(s.heap[h], s.kept[h][i]))
                return 5;
            vmk_heap_free(s.heap[h], s.kept[h][i]);
        }
        if (!vmki_objects_check(s.heap[h]))
            return 6;
    }
    return 0;
}

/* What lost threads were about to do with a few objects is not done any more: so many may be left. */
static int count_rest(void)
{
    for (size_t h = 0; h < HEAPS; h++) {
        vmk_object_stats stats;
        (void)vmk_heap_trim(s.heap[h]);
        vmk_object_stats_now(s.heap[h], NULL, &stats);
        size_t kept_back = (size_t)THREADS * VMKI_QUARANTINE;
        if (stats.sum.objects > 8 * THREADS + kept_back || stats.caches > 1 || !vmki_objects_check(s.heap[h]))
            return 7;
    }
    return 0;
}

static int child(void)
{
    support_random random = support_random_start(99);
    int code = 0, line = 0;
    alarm(DEADLINE); /* a deadlock ends here */
    for (size_t h = 0; h < HEAPS; h++)
        if (!vmki_objects_check(s.heap[h]))
            return 2;
    if (use_heaps(&random, 300) != 0)
        return 3;
    if (SUPPORT_CHILD_HAS_THREADS)
        support_threads(2, work_and_end, &line);
    if (line != 0)
        return 4;
    for (size_t h = 0; h < HEAPS; h++)
        vmk_cache_detach(s.heap[h]);
    if (support_random_below(&random, 2) == 0)
        (void)use_heaps(&random, 1);
    void *object = vmk_heap_alloc(NULL, 100); /* of the default heap, which may be new */
    if (object == NULL)
        return 8;
    vmk_heap_free(NULL, object);
    if ((code = free_all()) != 0 || (code = count_rest()) != 0)
        return code;
    for (size_t h = 0; h < HEAPS; h++)
        vmk_heap_destroy(s.heap[h]);
    return 0;
}

/* --- the parent ------------------------------------------------------------------------------------------------- */

static void fork_children(support_random *random)
{
    for (int i = 0; i < s.children; i++) {
        if (use_heaps(random, 5) != 0)
            s.line[THREADS - 1] = __LINE__; /* with caches of its own, most times */
        pid_t pid = fork();
        if (pid == 0)
            _exit(child());
        int status = 0;
        bool ended = pid > 0 && waitpid(pid, &status, 0) == pid;
        if (ended && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        s.failed_children++;
        s.last_failure = WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

static void body(void *argument, unsigned number)
{
    support_random random = support_random_start(50 + number);
    (void)argument;
    if (number == THREADS - 1) {
        fork_children(&random);
        VMKI_STORE_RELEASE(&s.stop, 1);
        return;
    }
    while (VMK_LOAD_ACQUIRE(&s.stop) == 0 && s.line[number] == 0)
        s.line[number] = use_heaps(&random, 20);
}

static void keep(void *argument, unsigned number)
{
    (void)number;
    for (size_t h = 0; h < HEAPS; h++)
        for (size_t i = argument == NULL ? 0 : 1; i < KEPT; i += 2)
            s.kept[h][i] = vmk_heap_alloc(s.heap[h], i * 7 % 1000);
}

START_TEST(children_find_every_object)
{
    memset(&s, 0, sizeof s);
    s.children = (int)vmki_min(support_rounds(CHILDREN), 1000);
    for (size_t i = 0; i < HEAPS; i++) {
        /* No limited one: what others map beside it may lie in its window. */
        static const vmk_layout places[HEAPS] = {VMK_LAYOUT_64, VMK_LAYOUT_32, VMK_LAYOUT_64};
        vmk_heap_options options = {
            .layout = places[i], .flags = i == 2 ? VMK_HEAP_HARDENED : 0, .window = (size_t)64 << 20};
        ck_assert_int_eq(vmk_heap_create(&s.heap[i], &options), VMK_OK);
    }
    keep(NULL, 0);
    support_threads(1, keep, &s);
    support_threads(THREADS, body, NULL);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(s.line[i] == 0, "thread %d, line %d", i, s.line[i]);
    ck_assert_msg(s.failed_children == 0, "%d of %d, the last with %d", s.failed_children, s.children, s.last_failure);
    ck_assert_int_eq(free_all(), 0);
    for (size_t i = 0; i < HEAPS; i++) {
        vmk_object_stats stats;
        vmk_object_stats_now(s.heap[i], NULL, &stats);
        ck_assert_uint_eq(stats.sum.objects, 0);
        vmk_heap_destroy(s.heap[i]);
    }
}
END_TEST

/* A slab of the thread that forks, which another was about to put on its stack of those that wait: the child's thread
 * must be able to end its cache. */
START_TEST(a_slab_that_was_being_queued_is_found)
{
    vmk_heap *heap;
    ck_assert_int_eq(vmk_heap_create(&heap, NULL), VMK_OK);
    void *object = vmk_heap_alloc(heap, 8000);
    vmki_slab *slab = vmki_slab_find(vmki_heap_of(heap), (uintptr_t)object);
    while (slab->list != VMKI_LIST_FULL)
        ck_assert_ptr_nonnull(vmk_heap_alloc(heap, 8000));
    ck_assert_uint_eq(slab->watch, VMKI_WATCHED);
    slab->watch = VMKI_QUEUED; /* as if another thread had come so far */
    pid_t pid = fork();
    if (pid == 0) {
        alarm(DEADLINE);
        vmk_cache_detach(heap);
        _exit(vmki_objects_check(heap) ? 0 : 2);
    }
    int status;
    ck_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    slab->watch = VMKI_WATCHED;
    ck_assert(vmki_objects_check(heap));
    vmk_heap_destroy(heap);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object, fork");
    TCase *tests = tcase_create("fork");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_slab_that_was_being_queued_is_found);
    tcase_add_test(tests, children_find_every_object);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
