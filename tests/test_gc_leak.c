/* SPDX-License-Identifier: MIT
 *
 * Sites, and finding what is collected without having been freed.
 */
#include <stdlib.h>
#include <string.h>

#include "common/gc/gc.h"
#include "object_kinds.h"
#include "support.h"
#ifdef VMKIT_MODEL
#include "model/model.h"
#endif

#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __declspec(noinline)
#endif

enum { LEAKS_MOST = 20000 };

typedef struct leaks {
    vmk_gc *gc;
    size_t count;
    size_t bytes;
    size_t untold;
    bool allocates;
    struct {
        uintptr_t object;
        size_t size;
        const void *site;
    } leak[LEAKS_MOST];
} leaks;

static leaks told;

static void leak_add(void *context, const void *object, size_t size, const void *site)
{
    leaks *l = context;
    if (object == NULL) {
        l->untold += size;
        return;
    }
    if (l->count < LEAKS_MOST) {
        l->leak[l->count].object = (uintptr_t)object;
        l->leak[l->count].size = size;
        l->leak[l->count].site = site;
    }
    l->count++;
    l->bytes += size;
    if (l->allocates) {
        void *more = vmk_gc_alloc(l->gc, 64);
        ck_assert_ptr_nonnull(more);
        vmk_gc_free(l->gc, more);
    }
}

static bool has_leak(uintptr_t object)
{
    for (size_t i = 0; i < told.count && i < LEAKS_MOST; i++)
        if (told.leak[i].object == object)
            return true;
    return false;
}

static vmk_gc *make(unsigned flags)
{
    static vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {.flags = flags | VMK_GC_NO_STACKS | VMK_GC_NO_STATIC,
                              .heap = &below,
                              .on_leak = leak_add,
                              .on_leak_context = &told};
    vmk_gc *gc;
    memset(&told, 0, sizeof told);
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    told.gc = gc;
    return gc;
}

static void end(vmk_gc *gc)
{
    ck_assert(vmki_gc_check(gc));
    vmk_gc_destroy(gc);
#ifdef VMKIT_MODEL
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
#endif
}

/* --- leaks -------------------------------------------------------------------------------------------------------- */

START_TEST(what_is_lost_is_told_once)
{
    vmk_gc *gc = make(VMK_GC_LEAKS);
    void *slot = vmk_gc_alloc(gc, 32);
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    void *freed = vmk_gc_alloc(gc, 48);
    uintptr_t lost = (uintptr_t)vmk_gc_alloc_leaf(gc, 48), large = (uintptr_t)vmk_gc_alloc(gc, 100000);
    vmk_gc_free(gc, freed);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 2);
    ck_assert(has_leak(lost) && has_leak(large));
    ck_assert_uint_eq(told.bytes, 48 + 13 * 8192);
    ck_assert_ptr_null(told.leak[0].site);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 2);
    uintptr_t last = (uintptr_t)slot;
    slot = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 3);
    ck_assert(has_leak(last));
    ck_assert_uint_eq(told.untold, 0);
    end(gc);
}
END_TEST

START_TEST(without_the_flag_nothing_is_told)
{
    vmk_gc *gc = make(0);
    ck_assert_ptr_nonnull(vmk_gc_alloc(gc, 100));
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 0);
    end(gc);
}
END_TEST

static void finalize_nothing(void *context, void *object)
{
    (void)context;
    (void)object;
}

/* What the collector makes for itself nobody is to free. What waits for its finalizer is not lost, until that ran. */
START_TEST(what_is_the_collectors_is_no_leak)
{
    vmk_gc *gc = make(VMK_GC_LEAKS);
    void *object = vmk_gc_alloc(gc, 16);
    ck_assert_ptr_nonnull(vmk_gc_weak_new(gc, object, VMK_GC_SHORT));
    ck_assert_ptr_nonnull(vmk_gc_ephemeron_new(gc, object, object));
    ck_assert_int_eq(vmk_gc_finalizer_set(gc, object, finalize_nothing, NULL, 0), VMK_OK);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 0);
    ck_assert_uint_eq(vmk_gc_finalize(gc, 1), 1);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 1);
    ck_assert_uint_eq(told.leak[0].object, (uintptr_t)object);
    end(gc);
}
END_TEST

START_TEST(who_is_told_may_allocate)
{
    vmk_gc *gc = make(VMK_GC_LEAKS | VMK_GC_SITES);
    told.allocates = true;
    for (int i = 0; i < 1000; i++)
        MUST(vmk_gc_alloc(gc, 64) != NULL);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 1000);
    end(gc);
}
END_TEST

/* Random allocations, some kept, some freed, the others lost: exactly these are told, in the order of addresses. */
START_TEST(leaks_are_told_exactly)
{
    enum { COUNT = 3000 };
    static void *kept[COUNT];
    static uintptr_t lost[COUNT];
    vmk_gc *gc = make(VMK_GC_LEAKS);
    support_random random = support_random_start(1);
    ck_assert_int_eq(vmk_gc_slots_add(gc, kept, COUNT), VMK_OK);
    vmk_gc_disable(gc);
    size_t rounds = support_rounds(10);
    for (size_t round = 0; round < rounds; round++) {
        size_t count = 0, bytes = 0;
        told.count = told.bytes = 0;
        for (size_t i = 0; i < COUNT; i++) {
            if (kept[i] != NULL && support_random_below(&random, 3) != 0)
                continue;
            void *old = kept[i];
            if (old != NULL && support_random_below(&random, 2) == 0) {
                vmk_gc_free(gc, old);
            } else if (old != NULL) {
                lost[count++] = (uintptr_t)old;
                bytes += vmk_gc_usable_size(gc, old);
            }
            size_t size = support_random_below(&random, i % 50 == 0 ? 50000 : 500);
            kept[i] = i % 2 == 0 ? vmk_gc_alloc(gc, size) : vmk_gc_alloc_leaf(gc, size);
            MUST(kept[i] != NULL);
        }
        vmk_gc_collect(gc);
        ck_assert_uint_eq(told.count, count);
        ck_assert_uint_eq(told.bytes, bytes);
        for (size_t i = 1; i < count; i++)
            MUST(told.leak[i - 1].object < told.leak[i].object);
        for (size_t i = 0; i < count; i += 1 + count / 50)
            MUST(has_leak(lost[i]));
    }
    memset(kept, 0, sizeof kept);
    vmk_gc_enable(gc);
    end(gc);
}
END_TEST

/* --- sites -------------------------------------------------------------------------------------------------------- */

static NOINLINE void *allocate_here(vmk_gc *gc, size_t size)
{
    void *object = vmk_gc_alloc(gc, size);
    *(size_t *)object = size; /* so that it is no tail call */
    return object;
}

static NOINLINE void *allocate_there(vmk_gc *gc, size_t size)
{
    void *object = vmk_gc_alloc_leaf(gc, size);
    *(size_t *)object = size + 1;
    return object;
}

typedef struct site_search {
    const void *object;
    const void *site;
    size_t with; /* objects that have one */
} site_search;

static bool site_look(void *context, const vmk_gc_object *object)
{
    site_search *s = context;
    if (object->base == s->object)
        s->site = object->site;
    s->with += object->site != NULL;
    return true;
}

static const void *site_of(vmk_gc *gc, const void *object)
{
    site_search s = {.object = object};
    vmk_gc_walk(gc, site_look, &s);
    return s.site;
}

static size_t with_site(vmk_gc *gc)
{
    site_search s = {.object = NULL};
    vmk_gc_walk(gc, site_look, &s);
    return s.with;
}

/* Is it in the function, as far as one can tell? */
static bool lies_in(const void *site, void *(*function)(vmk_gc *gc, size_t size))
{
    uintptr_t begin = (uintptr_t)function;
    return (uintptr_t)site > begin && (uintptr_t)site < begin + 1000;
}

START_TEST(sites_are_those_of_the_calls)
{
    vmk_gc *gc = make(VMK_GC_SITES | VMK_GC_LEAKS);
    void *slots[4];
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, 4), VMK_OK);
    slots[0] = allocate_here(gc, 32);
    slots[1] = allocate_here(gc, 60000);
    slots[2] = allocate_there(gc, 32);
    slots[3] = vmk_gc_weak_new(gc, slots[0], VMK_GC_SHORT);
    const void *here = site_of(gc, slots[0]), *there = site_of(gc, slots[2]);
    ck_assert(lies_in(here, allocate_here));
    ck_assert(lies_in(there, allocate_there));
    ck_assert_ptr_eq(site_of(gc, slots[1]), here);
    ck_assert_ptr_null(site_of(gc, slots[3]));
    ck_assert_uint_eq(with_site(gc), 3);
    vmk_gc_collect(gc);
    ck_assert_uint_eq(with_site(gc), 3);
    ck_assert_ptr_eq(site_of(gc, slots[1]), here);
    slots[1] = slots[2] = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(told.count, 2);
    ck_assert(told.leak[0].site == here || told.leak[1].site == here);
    ck_assert(told.leak[0].site == there || told.leak[1].site == there);
    ck_assert_uint_eq(with_site(gc), 1);
    vmk_gc_free(gc, slots[0]);
    slots[0] = NULL;
    ck_assert_uint_eq(with_site(gc), 0);
    ck_assert_uint_eq(gc->leaks.sites.count, 0);
    end(gc);
}
END_TEST

/* An address that is used again has the site of its present object. */
START_TEST(sites_do_not_outlive_their_objects)
{
    vmk_gc *gc = make(VMK_GC_SITES);
    size_t rounds = support_rounds(3000);
    void *slot = NULL;
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    for (size_t i = 0; i < rounds; i++) {
        bool here = (i / 3) % 2 == 0;
        slot = here ? allocate_here(gc, 4000) : allocate_there(gc, 4000);
        if (i % 500 == 0)
            vmk_gc_collect(gc);
        if (i % 37 == 0)
            MUST(lies_in(site_of(gc, slot), here ? allocate_here : allocate_there));
        if (i % 5 == 0)
            vmk_gc_free(gc, slot);
        slot = i % 5 == 0 ? NULL : slot;
    }
    slot = NULL;
    vmk_gc_collect(gc);
    ck_assert_uint_eq(gc->leaks.sites.count, 0);
    end(gc);
}
END_TEST

#ifdef VMKIT_MODEL
/* Whatever memory is refused in a cycle: all that was lost is told, one by one or as a sum. */
START_TEST(leaks_without_memory)
{
    enum { COUNT = 3000 };
    size_t least = SIZE_MAX;
    for (uint64_t n = 1;; n++) {
        vmk_gc *gc = make(VMK_GC_LEAKS);
        for (size_t i = 0; i < COUNT; i++)
            MUST(vmk_gc_alloc_leaf(gc, 32) != NULL);
        model_fail_nth(n, VMK_ERR_COMMIT, true);
        vmk_gc_collect(gc);
        bool failed = model_failed();
        model_fail_nth(0, VMK_OK, false);
        ck_assert_uint_eq(told.bytes, told.count * 32);
        ck_assert_uint_eq(told.bytes + told.untold, COUNT * 32);
        least = told.count < least ? told.count : least;
        end(gc);
        if (!failed)
            break;
    }
    ck_assert_uint_eq(told.count, COUNT);
    ck_assert_uint_eq(least, 0);
}
END_TEST

/* Objects are made, only without a site. */
START_TEST(sites_without_memory)
{
    vmk_gc *gc = make(VMK_GC_SITES);
    void *slot = allocate_here(gc, 16);
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    size_t made = 0;
    model_fail_nth(1, VMK_ERR_COMMIT, true);
    while (made < 2000) {
        if (vmk_gc_alloc_leaf(gc, 16) == NULL)
            break;
        made++;
    }
    model_fail_nth(0, VMK_OK, false);
    ck_assert(lies_in(site_of(gc, slot), allocate_here));
    ck_assert_uint_ge(made, 100);
    end(gc);
}
END_TEST
#endif

static Suite *suite(void)
{
    Suite *s = suite_create("gc_leak");
    TCase *c = tcase_create("leaks");
    tcase_add_test(c, what_is_lost_is_told_once);
    tcase_add_test(c, without_the_flag_nothing_is_told);
    tcase_add_test(c, what_is_the_collectors_is_no_leak);
    tcase_add_test(c, who_is_told_may_allocate);
    tcase_add_test(c, leaks_are_told_exactly);
    tcase_add_test(c, sites_are_those_of_the_calls);
    tcase_add_test(c, sites_do_not_outlive_their_objects);
#ifdef VMKIT_MODEL
    tcase_add_test(c, leaks_without_memory);
    tcase_add_test(c, sites_without_memory);
#endif
    tcase_set_timeout(c, 0);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
