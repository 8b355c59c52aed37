/* SPDX-License-Identifier: MIT
 *
 * fork in the middle of everything: while threads commit, decommit and grow tables, children are made, and each of them
 * must find the records whole and the lock free, and be able to do all that its parent could.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "common/table/table.h"
#include "common/vm/vm.h"
#include "support.h"

VMK_TABLE_DEFINE(words, uint64_t);

enum { THREADS = 4, CHILDREN = 60, CAPACITY = 1 << 20 };

typedef struct storm {
    words dense;
    words sparse;
    vmk_region region;
    size_t stop;
    bool wrong[THREADS];
    int failed_children;
} storm;

/* What threads and children alike do: nothing here may wait for a thread that the child does not have. */
static bool work(storm *s, unsigned number, support_random *random)
{
    size_t page = vmk_page_size(), at = (number + THREADS * support_random_below(random, 16)) * page;
    size_t first = (number * 64 + support_random_below(random, 32)) * 1024;
    words own;
    if (vmk_commit(&s->region, at, page) != VMK_OK || s->region.base[at] != 0)
        return false;
    s->region.base[at] = 1;
    if (vmk_decommit(&s->region, at, page) != VMK_OK ||
        words_ensure(&s->dense, support_random_below(random, CAPACITY)) != VMK_OK ||
        words_ensure_range(&s->sparse, first, 700) != VMK_OK || words_drop_range(&s->sparse, first, 700) != VMK_OK)
        return false;
    if (words_init(&own, 10000) != VMK_OK || words_ensure(&own, 5000) != VMK_OK)
        return false;
    *words_at(&own, 4999) = number;
    words_trim(&own, 10);
    words_fini(&own);
    return true;
}

static int child(storm *s)
{
    support_random random = support_random_start(99);
    alarm(60); /* a deadlock ends here */
    for (int i = 0; i < 20; i++)
        for (unsigned number = 0; number < THREADS; number++) {
            /* The thread that was here may have left its page committed and its range ensured: start from nothing. */
            for (size_t page = number; page < 16 * THREADS; page += THREADS)
                if (vmk_decommit(&s->region, page * vmk_page_size(), vmk_page_size()) != VMK_OK)
                    return 2;
            if (!work(s, number, &random))
                return 3;
        }
    return vmki_region_check(&s->region) && vmki_table_check(&s->dense.table) && vmki_table_check(&s->sparse.table) ? 0
                                                                                                                    : 4;
}

static void fork_children(storm *s)
{
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(child(s));
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            s->failed_children++;
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
    while (VMK_LOAD_ACQUIRE(&s->stop) == 0 && !s->wrong[number])
        s->wrong[number] = !work(s, number, &random);
}

START_TEST(children_find_everything_whole)
{
    static storm s;
    vmk_table_config config = {.capacity = CAPACITY, .flags = VMK_TABLE_SPARSE};
    ck_assert_int_eq(words_init(&s.dense, CAPACITY), VMK_OK);
    ck_assert_int_eq(words_init_as(&s.sparse, &config), VMK_OK);
    ck_assert_int_eq(vmk_reserve(&s.region, 16 * THREADS * vmk_page_size(), NULL), VMK_OK);
    support_threads(THREADS, body, &s);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(!s.wrong[i], "thread %d", i);
    ck_assert_int_eq(s.failed_children, 0);
    ck_assert(vmki_region_check(&s.region));
    words_fini(&s.dense);
    words_fini(&s.sparse);
    vmk_release(&s.region);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("fork");
    TCase *tests = tcase_create("fork");
    tcase_add_test(tests, children_find_everything_whole);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
