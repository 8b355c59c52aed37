/* SPDX-License-Identifier: MIT
 *
 * Collected heaps on a system that refuses: whichever call fails, the call of the library's says so, or does without;
 * nothing is lost, and once the system grants again all goes on. On the model OS.
 */
#include <string.h>

#include "common/gc/gc.h"
#include "object_kinds.h"
#include "support.h"

typedef struct node {
    struct node *next;
    uintptr_t number;
} node;

typedef struct scene {
    vmk_gc *gc;
    node *list; /* all objects that must live */
    size_t count;
    size_t finalized;
} scene;

static void note_finalized(void *context, void *object)
{
    scene *s = context;
    (void)object;
    s->finalized++;
}

static bool excused(vmk_status status)
{
    return status == VMK_OK || status == VMK_ERR_COMMIT || status == VMK_ERR_ADDRESS_SPACE ||
           status == VMK_ERR_MAPPINGS;
}

static void add(scene *s, size_t size, bool large)
{
    node *one = vmk_gc_alloc(s->gc, large ? size + 100 * KIB : size);
    if (one == NULL) {
        MUST(model_failed());
        return;
    }
    MUST(one->next == NULL && one->number == 0);
    one->next = s->list;
    one->number = s->count++;
    s->list = one;
}

/* What a program does, with whatever fails in the middle of it. */
static void act(scene *s)
{
    static const size_t pointers[] = {1};
    const vmk_gc_layout layout = {.name = "node", .size = sizeof(node), .pointers = pointers};
    vmk_gc_type *type = NULL;
    MUST(excused(vmk_gc_type_create(s->gc, &layout, &type)));
    if (type != NULL)
        (void)vmk_gc_alloc_typed(s->gc, type, 10);
    for (size_t i = 0; i < 200; i++) {
        add(s, 16 + i * 40, i % 50 == 49);
        (void)vmk_gc_alloc_leaf(s->gc, 100 + i * 10);
        if (i % 60 == 59)
            vmk_gc_collect(s->gc);
    }
    void *dead = vmk_gc_alloc(s->gc, 64);
    if (dead != NULL)
        MUST(excused(vmk_gc_finalizer_set(s->gc, dead, note_finalized, s, 0)));
    if (s->list != NULL) {
        (void)vmk_gc_weak_new(s->gc, s->list, VMK_GC_SHORT);
        (void)vmk_gc_ephemeron_new(s->gc, s->list, s->list);
        if (vmk_gc_pin(s->gc, s->list) == VMK_OK)
            vmk_gc_unpin(s->gc, s->list);
    }
    void *moved = vmk_gc_realloc(s->gc, NULL, 10);
    if (moved != NULL)
        (void)vmk_gc_realloc(s->gc, moved, 50 * KIB);
    vmk_gc_collect(s->gc);
    (void)vmk_gc_finalize(s->gc, SIZE_MAX);
}

static void whole(const scene *s)
{
    size_t left = s->count;
    for (const node *one = s->list; one != NULL; one = one->next)
        MUST(one->number == --left);
    MUST(left == 0);
    MUST(vmki_gc_check(s->gc));
}

/* True: the planned failure was met. */
static bool play(uint64_t n, vmk_status status, bool lasting)
{
    vmk_heap_options below = {.window = WINDOW, .layout = VMK_LAYOUT_64}; /* others find no room to grow in the model */
    vmk_gc_options options = {.flags = VMK_GC_NO_STACKS | VMK_GC_NO_STATIC, .markers = 2, .heap = &below};
    scene s = {.count = 0};
    model_fail_nth(n, status, lasting);
    vmk_status made = vmk_gc_create(&s.gc, &options);
    MUST(excused(made));
    if (made != VMK_OK) {
        MUST(model_failed());
        model_fail_nth(0, VMK_OK, false);
        return true;
    }
    if (vmk_gc_slots_add(s.gc, (void **)(void *)&s.list, 1) == VMK_OK) {
        act(&s);
        bool failed = model_failed();
        model_fail_nth(0, VMK_OK, false);
        whole(&s);
        act(&s);
        whole(&s);
        vmk_gc_destroy(s.gc);
        return failed;
    }
    MUST(model_failed());
    model_fail_nth(0, VMK_OK, false);
    vmk_gc_destroy(s.gc);
    return true;
}

START_TEST(any_call_may_fail)
{
    static const vmk_status why[] = {VMK_ERR_COMMIT, VMK_ERR_ADDRESS_SPACE, VMK_ERR_MAPPINGS};
    bool lasting = _i != 0;
    uint64_t n = 1;
    while (play(n, why[n % 3], lasting))
        n += support_rounds(100) < 100 ? 7 : 1;
    ck_assert_uint_gt(n, 20);
    ck_assert_ptr_null(model_violation());
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("gc_faults");
    TCase *tests = tcase_create("gc_faults");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, any_call_may_fail, 0, 2);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
