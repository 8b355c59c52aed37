/* SPDX-License-Identifier: MIT
 *
 * Seeing collected heaps: figures and events, walks, dumps. Why an object lives is in test_gc_why.c, leaks are in
 * test_gc_leak.c, and what the program vmkit makes of a dump in check_gc_dump.sh.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gc_seen.h"

/* --- names -------------------------------------------------------------------------------------------------------- */

START_TEST(names)
{
    ck_assert_str_eq(vmk_gc_cause_name(VMK_GC_CAUSE_ASKED), "asked for");
    ck_assert_str_eq(vmk_gc_cause_name(VMK_GC_CAUSE_STRESS), "every allocation");
    ck_assert_str_eq(vmk_gc_cause_name(VMK_GC_CAUSE_COUNT), "unknown");
    ck_assert_str_eq(vmk_gc_cause_name((vmk_gc_cause)77), "unknown");
    ck_assert_str_eq(vmk_gc_root_name(VMK_GC_ROOT_STACK), "stack");
    ck_assert_str_eq(vmk_gc_root_name(VMK_GC_ROOT_EPHEMERON), "ephemeron");
    ck_assert_str_eq(vmk_gc_root_name(VMK_GC_ROOT_COUNT), "unknown");
    ck_assert_str_eq(vmk_gc_root_name((vmk_gc_root)77), "unknown");
}
END_TEST

/* --- figures ------------------------------------------------------------------------------------------------------ */

typedef struct sums {
    uint64_t cycles, pause, pause_max, stop_max, mark, sweep, by_cause[VMK_GC_CAUSE_COUNT];
    vmk_gc_event last;
} sums;

static void sums_add(void *context, const vmk_gc_event *event)
{
    sums *s = context;
    s->cycles++;
    s->pause += event->pause;
    s->mark += event->mark_time;
    s->sweep += event->sweep_time;
    s->pause_max = event->pause > s->pause_max ? event->pause : s->pause_max;
    s->stop_max = event->stop_time > s->stop_max ? event->stop_time : s->stop_max;
    s->by_cause[event->cause]++;
    s->last = *event;
}

START_TEST(figures_are_the_sums_of_events)
{
    sums s = {0};
    static vmk_heap_options below = {.window = WINDOW};
    vmk_gc_options options = {
        .flags = EXACT, .heap = &below, .pace = {.min_heap = 64 * 1024}, .on_event = sums_add, .on_event_context = &s};
    vmk_gc *gc;
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_create(&gc, &options), VMK_OK);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.cycles, 0);
    ck_assert_uint_eq(stats.last.number, 0);
    ck_assert_uint_ge(stats.threads, 1);
    size_t rounds = support_rounds(20000);
    for (size_t i = 0; i < rounds; i++) {
        MUST(vmk_gc_alloc_leaf(gc, 100) != NULL);
        if (i % 1000 == 0)
            vmk_gc_collect(gc);
    }
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.cycles, s.cycles);
    ck_assert_uint_eq(stats.last.number, s.cycles);
    ck_assert_uint_eq(stats.pause_total, s.pause);
    ck_assert_uint_eq(stats.pause_max, s.pause_max);
    ck_assert_uint_eq(stats.stop_max, s.stop_max);
    ck_assert_uint_eq(stats.mark_total, s.mark);
    ck_assert_uint_eq(stats.sweep_total, s.sweep);
    ck_assert(memcmp(&stats.last, &s.last, sizeof s.last) == 0);
    uint64_t causes = 0;
    for (int cause = 0; cause < VMK_GC_CAUSE_COUNT; cause++) {
        ck_assert_uint_eq(stats.by_cause[cause], s.by_cause[cause]);
        causes += s.by_cause[cause];
    }
    ck_assert_uint_eq(causes, s.cycles);
    ck_assert_uint_eq(stats.by_cause[VMK_GC_CAUSE_ASKED], (rounds + 999) / 1000);
    ck_assert_uint_ge(stats.allocated_total, rounds * 100);
    end(gc);
}
END_TEST

START_TEST(figures_agree_with_what_was_done)
{
    enum { KEPT = 300 };
    vmk_gc *gc = make(EXACT);
    static void *kept[KEPT];
    vmk_gc_stats stats, later;
    ck_assert_int_eq(vmk_gc_slots_add(gc, kept, KEPT), VMK_OK);
    for (size_t i = 0; i < KEPT; i++) {
        kept[i] = vmk_gc_alloc(gc, 64);
        MUST(kept[i] != NULL && vmk_gc_alloc_leaf(gc, 48) != NULL);
    }
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.live_objects, KEPT);
    ck_assert_uint_eq(stats.live_bytes, KEPT * 64);
    ck_assert_uint_eq(stats.last.live_bytes, stats.live_bytes);
    ck_assert_uint_ge(stats.allocated_total, KEPT * (64 + 48));
    ck_assert_uint_eq(stats.freed_total, 0);
    ck_assert_uint_ge(stats.heap_size, KEPT * 64);
    ck_assert_uint_gt(stats.metadata, 0);
    ck_assert_uint_gt(stats.next, 0);
    size_t freed = vmk_gc_usable_size(gc, kept[0]);
    vmk_gc_free(gc, kept[0]);
    kept[0] = NULL;
    vmk_gc_stats_now(gc, &later);
    ck_assert_uint_eq(later.freed_total, freed);
    void *large = vmk_gc_alloc_leaf(gc, 1 << 20);
    ck_assert_ptr_nonnull(large);
    vmk_gc_stats_now(gc, &later);
    ck_assert_uint_ge(later.allocated, 1 << 20);
    ck_assert_uint_ge(later.heap_size, KEPT * 64 + (1 << 20));
    ck_assert_uint_eq(later.allocated_total, stats.allocated_total - stats.allocated + later.allocated);
    ck_assert_uint_le(later.next, stats.next - (1 << 20));
    kept[0] = large;
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &later);
    ck_assert_uint_eq(later.live_objects, KEPT);
    ck_assert_uint_eq(later.live_bytes, (KEPT - 1) * 64 + (1 << 20));
    memset(kept, 0, sizeof kept);
    end(gc);
}
END_TEST

static void finalize_nothing(void *context, void *object)
{
    (void)context;
    (void)object;
}

START_TEST(figures_of_weak_things)
{
    vmk_gc *gc = make(EXACT);
    void *slots[3] = {NULL};
    vmk_gc_stats stats;
    ck_assert_int_eq(vmk_gc_slots_add(gc, slots, 3), VMK_OK);
    slots[0] = vmk_gc_alloc(gc, 32);
    ck_assert_int_eq(vmk_gc_finalizer_set(gc, slots[0], finalize_nothing, NULL, 0), VMK_OK);
    slots[1] = vmk_gc_weak_new(gc, slots[0], VMK_GC_LONG);
    slots[2] = vmk_gc_ephemeron_new(gc, slots[0], slots[0]);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.finalizers, 1);
    ck_assert_uint_eq(stats.finalizable, 0);
    ck_assert_uint_eq(stats.links, 1);
    ck_assert_uint_eq(stats.ephemerons, 1);
    slots[0] = slots[2] = NULL;
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.finalizers, 0);
    ck_assert_uint_eq(stats.finalizable, 1);
    ck_assert_uint_eq(stats.ephemerons, 0);
    ck_assert_uint_eq(stats.last.finalizable, 1);
    ck_assert_uint_eq(vmk_gc_finalize(gc, 10), 1);
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.finalizable, 0);
    end(gc);
}
END_TEST

/* --- walks -------------------------------------------------------------------------------------------------------- */

enum { WALKED_MOST = 4000 };

typedef struct walked {
    size_t count;
    size_t most;
    bool wrong; /* not in order */
    vmk_gc_object object[WALKED_MOST];
} walked;

static bool walked_add(void *context, const vmk_gc_object *object)
{
    walked *w = context;
    if (w->count != 0 &&
        (uintptr_t)w->object[w->count - 1].base + w->object[w->count - 1].size > (uintptr_t)object->base)
        w->wrong = true;
    w->object[w->count++] = *object;
    return w->count < w->most;
}

static int by_base(const void *a, const void *b)
{
    uintptr_t one = (uintptr_t)((const vmk_gc_object *)a)->base, other = (uintptr_t)((const vmk_gc_object *)b)->base;
    return one < other ? -1 : one > other;
}

static void walk(vmk_gc *gc, walked *w)
{
    w->count = 0;
    w->most = WALKED_MOST;
    w->wrong = false;
    vmk_gc_walk(gc, walked_add, w);
    ck_assert(!w->wrong);
}

/* Objects of every kind and of many sizes, some freed: the walk shows the others, and all that is known of them. */
START_TEST(a_walk_shows_what_there_is)
{
    enum { COUNT = 2000 };
    static vmk_gc_object mine[COUNT];
    static walked w;
    vmk_gc *gc = make(EXACT);
    vmk_gc_type *node_of = node_type(gc), *nameless;
    const vmk_gc_layout layout = {.size = 2 * sizeof(void *)};
    support_random random = support_random_start(1);
    size_t count = 0;
    ck_assert_int_eq(vmk_gc_type_create(gc, &layout, &nameless), VMK_OK);
    vmk_gc_disable(gc);
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = support_random_below(&random, i % 100 == 0 ? 200000 : 2000) + 1;
        vmk_gc_object *o = &mine[count];
        *o = (vmk_gc_object){0};
        switch (i % 4) {
        case 0:
            o->base = vmk_gc_alloc(gc, size);
            break;
        case 1:
            o->base = vmk_gc_alloc_leaf(gc, size);
            o->leaf = true;
            break;
        case 2:
            o->base = vmk_gc_alloc_typed(gc, node_of, size / sizeof(node));
            o->type = "node";
            break;
        default:
            o->base = vmk_gc_alloc_typed(gc, nameless, size / layout.size);
            o->type = "";
            o->leaf = true;
        }
        MUST(o->base != NULL);
        o->size = vmk_gc_usable_size(gc, o->base);
        if (support_random_below(&random, 3) == 0)
            vmk_gc_free(gc, o->base);
        else
            count++;
    }
    qsort(mine, count, sizeof mine[0], by_base);
    walk(gc, &w);
    ck_assert_uint_eq(w.count, count);
    for (size_t i = 0; i < count; i++) {
        MUST(w.object[i].base == mine[i].base && w.object[i].size == mine[i].size);
        MUST(w.object[i].leaf == mine[i].leaf && w.object[i].site == NULL);
        MUST((w.object[i].type == NULL) == (mine[i].type == NULL));
        MUST(mine[i].type == NULL || strcmp(w.object[i].type, mine[i].type) == 0);
    }
    w.count = 0;
    w.most = 5;
    vmk_gc_walk(gc, walked_add, &w);
    ck_assert_uint_eq(w.count, 5); /* it asked for no more */
    ck_assert_ptr_eq(w.object[4].base, mine[4].base);
    vmk_gc_collect(gc);
    walk(gc, &w);
    ck_assert_uint_eq(w.count, 0);
    vmk_gc_enable(gc);
    memset(&w, 0, sizeof w); /* static data, that a heap made later may take for pointers */
    memset(mine, 0, sizeof mine);
    end(gc);
}
END_TEST

/* --- dumps -------------------------------------------------------------------------------------------------------- */

typedef struct text {
    size_t length;
    size_t room; /* after so many bytes it gives up */
    char bytes[1 << 16];
} text;

static bool text_add(void *context, const char *bytes, size_t length)
{
    text *t = context;
    if (length > t->room - t->length)
        return false;
    memcpy(t->bytes + t->length, bytes, length);
    t->length += length;
    t->bytes[t->length] = '\0';
    return true;
}

static bool has_line(const text *t, const char *format, ...)
{
    char line[200];
    va_list arguments;
    va_start(arguments, format);
    line[0] = '\n';
    vsnprintf(line + 1, sizeof line - 2, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    return strstr(t->bytes, line) != NULL;
}

START_TEST(a_dump_says_all)
{
    static text t = {.room = sizeof t.bytes - 1};
    vmk_gc *gc = make(EXACT);
    const vmk_gc_layout odd = {.name = "two\nlines \\", .size = sizeof(void *)};
    vmk_gc_type *type = node_type(gc), *odd_type;
    void *slot = NULL;
    ck_assert_int_eq(vmk_gc_type_create(gc, &odd, &odd_type), VMK_OK);
    ck_assert_int_eq(vmk_gc_slots_add(gc, &slot, 1), VMK_OK);
    node *first = node_new(gc, type);
    slot = first;
    first->right = (node *)(void *)((char *)vmk_gc_alloc_leaf(gc, 40000) + 5);
    void *lost = vmk_gc_alloc(gc, 16);
    ck_assert_int_eq(vmk_gc_pin(gc, lost), VMK_OK);
    void *pair = vmk_gc_ephemeron_new(gc, first, lost);
    ck_assert(vmk_gc_dump(gc, text_add, &t));
    ck_assert_int_eq(strncmp(t.bytes, "vmkit-gc-dump 1\n", 16), 0);
    uintptr_t large = (uintptr_t)first->right - 5;
    unsigned long long usable = vmk_gc_usable_size(gc, first);
    ck_assert(has_line(&t, "word %x", (unsigned)sizeof(void *)));
    ck_assert(has_line(&t, "type 2 %x map node", (unsigned)sizeof(node)));
    ck_assert(has_line(&t, "type 3 %x leaf two\\x0alines \\x5c", (unsigned)sizeof(void *)));
    ck_assert(has_line(&t, "root SLOT 0 %llx %llx", (unsigned long long)(uintptr_t)&slot,
                       (unsigned long long)(uintptr_t)first));
    ck_assert(has_line(&t, "root PIN 0 - %llx", (unsigned long long)(uintptr_t)lost));
    ck_assert(has_line(&t, "o %llx %llx typed 2 0\nr %x %llx", (unsigned long long)(uintptr_t)first, usable,
                       (unsigned)sizeof(void *), (unsigned long long)large));
    ck_assert(has_line(&t, "span %llx %x\no %llx %x leaf 0 0", (unsigned long long)large, 5 * 8192,
                       (unsigned long long)large, 5 * 8192));
    ck_assert(has_line(&t, "ephemeron %llx %llx %llx", (unsigned long long)(uintptr_t)pair,
                       (unsigned long long)(uintptr_t)first, (unsigned long long)(uintptr_t)lost));
    ck_assert(
        has_line(&t, "end 4 %llx 2 1", usable + 5 * 8192 + 16 + (unsigned long long)vmk_gc_usable_size(gc, pair)));
    size_t whole = t.length;
    t.length = 0;
    t.room = whole - 1;
    ck_assert(!vmk_gc_dump(gc, text_add, &t)); /* it gave up */
    t.room = 0;
    t.length = 0;
    ck_assert(!vmk_gc_dump(gc, text_add, &t));
    vmk_gc_unpin(gc, lost);
    end(gc);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gc_see");
    TCase *c = tcase_create("seeing");
    tcase_add_test(c, names);
    tcase_add_test(c, figures_are_the_sums_of_events);
    tcase_add_test(c, figures_agree_with_what_was_done);
    tcase_add_test(c, figures_of_weak_things);
    tcase_add_test(c, a_walk_shows_what_there_is);
    tcase_add_test(c, a_dump_says_all);
    tcase_set_timeout(c, 0);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
