/* SPDX-License-Identifier: MIT
 *
 * Each kind of root alone keeps objects alive, and no longer does when it is gone. Whether an object is alive is told
 * by a link, which is hidden. What is gone can be told of most objects only: a few may still be found in places that
 * nobody uses any more.
 */
#include <string.h>

#include "gc_heap.h"
#include "gc_plugin.h"
#include "support.h"
#include "world.h"

#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

enum { OBJECTS = GC_PLUGIN_PLACES, LEFT_OVER = OBJECTS / 4, SIZE = 48 };

static uintptr_t links[OBJECTS]; /* complements */

/* --- objects, whose addresses are in one place -------------------------------------------------------------------- */

static WORLD_NOINLINE void wipe_below(void)
{
    volatile unsigned char room[20000];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
    WORLD_CLEAR_REGISTERS();
}

static WORLD_NOINLINE bool fill(vmk_gc *gc, void *volatile *place, size_t offset)
{
    for (unsigned i = 0; i < OBJECTS; i++) {
        unsigned char *object = vmk_gc_alloc(gc, SIZE);
        if (object == NULL || vmk_gc_link_add(gc, &links[i], object, VMK_GC_SHORT) != VMK_OK)
            return false;
        place[i] = object + offset;
    }
    return true;
}

static WORLD_NOINLINE bool fill_and_wipe(vmk_gc *gc, void *volatile *place, size_t offset)
{
    bool done = fill(gc, place, offset);
    wipe_below();
    return done;
}

static WORLD_NOINLINE void empty(void *volatile *place)
{
    for (unsigned i = 0; i < OBJECTS; i++)
        place[i] = NULL;
}

static unsigned alive(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < OBJECTS; i++)
        count += links[i] != 0;
    return count;
}

static WORLD_NOINLINE unsigned collect(vmk_gc *gc)
{
    wipe_below();
    vmk_gc_collect(gc);
    return alive();
}

static void unlink_all(vmk_gc *gc)
{
    for (unsigned i = 0; i < OBJECTS; i++)
        (void)vmk_gc_link_remove(gc, &links[i]);
}

/* A place of the calling thread's. */
static void place_holds(vmk_gc *gc, void *volatile *place, const char *what)
{
    ck_assert(fill_and_wipe(gc, place, 0));
    ck_assert_msg(collect(gc) == OBJECTS, "%s", what);
    ck_assert_msg(collect(gc) == OBJECTS, "%s", what);
    empty(place);
    ck_assert_msg(collect(gc) <= LEFT_OVER, "%s: %u left", what, alive());
    unlink_all(gc);
}

/* A place that is no root, or no longer one. */
static void place_holds_nothing(vmk_gc *gc, void *volatile *place, const char *what)
{
    ck_assert(fill_and_wipe(gc, place, 0));
    ck_assert_msg(collect(gc) <= LEFT_OVER, "%s: %u left", what, alive());
    unlink_all(gc);
}

/* --- static data, stacks, thread-local storage, of the calling thread ----------------------------------------------
 */

static void *volatile in_bss[OBJECTS];
static void *volatile in_data[OBJECTS] = {(void *)1};
static _Thread_local void *volatile in_thread_bss[OBJECTS];
static _Thread_local void *volatile in_thread_data[OBJECTS] = {(void *)1};

START_TEST(static_data)
{
    vmk_gc *gc = make(0);
    place_holds(gc, in_bss, "zero");
    place_holds(gc, in_data, "data");
    end(gc);
    gc = make(VMK_GC_NO_STATIC);
    place_holds_nothing(gc, in_bss, "not wanted");
    empty(in_bss);
    end(gc);
}
END_TEST

START_TEST(own_stack)
{
    void *volatile place[OBJECTS];
    vmk_gc *gc = make(0);
    place_holds(gc, place, "stack");
    end(gc);
    gc = make(VMK_GC_NO_STACKS);
    place_holds_nothing(gc, place, "not wanted");
    end(gc);
}
END_TEST

START_TEST(own_thread_local_storage)
{
    vmk_gc *gc = make(0);
    place_holds(gc, in_thread_bss, "zero");
    place_holds(gc, in_thread_data, "data");
    end(gc);
    gc = make(VMK_GC_NO_STACKS);
    place_holds_nothing(gc, in_thread_bss, "not wanted");
    empty(in_thread_bss);
    end(gc);
}
END_TEST

/* Pointers to the inside and to the end. */
START_TEST(inside_and_end)
{
    void *volatile place[OBJECTS];
    vmk_gc *gc = make(0);
    for (size_t offset = 1; offset <= SIZE; offset++) {
        ck_assert(fill_and_wipe(gc, place, offset));
        MUST(collect(gc) == OBJECTS);
        empty(place);
        unlink_all(gc);
    }
    end(gc);
}
END_TEST

/* --- of another thread -------------------------------------------------------------------------------------------- */

typedef enum wait_kind { ASLEEP, SPINNING, BLOCKED, WAITS } wait_kind;

typedef struct holder {
    vmk_gc *gc;
    void *volatile *(*place)(void); /* NULL: its stack */
    wait_kind wait;
    uintptr_t at, on;
    vmki_os_event event;
    bool failed;
} holder;

/* Tell that it is at a point, and wait there. */
static WORLD_NOINLINE void holder_wait(holder *h, uintptr_t point)
{
    if (h->wait == BLOCKED)
        vmk_gc_blocking_enter();
    (void)VMKI_EXCHANGE(&h->at, point);
    while (VMKI_LOAD(&h->on) < point) {
        if (h->wait == SPINNING)
            vmki_os_yield();
        else
            (void)vmki_os_event_wait(&h->event, 1000000);
    }
    if (h->wait == BLOCKED)
        vmk_gc_blocking_leave();
}

static void holder_run(void *argument)
{
    holder *h = argument;
    void *volatile on_stack[OBJECTS];
    h->failed = vmk_gc_thread_register() != VMK_OK;
    void *volatile *place = h->place != NULL ? h->place() : on_stack;
    h->failed = h->failed || !fill_and_wipe(h->gc, place, 0);
    holder_wait(h, 1);
    empty(place);
    wipe_below();
    holder_wait(h, 2);
}

static void holder_await(holder *h, uintptr_t point)
{
    while (VMKI_LOAD(&h->at) < point)
        vmki_os_yield();
}

static void thread_holds(vmk_gc *gc, void *volatile *(*place)(void), const char *what)
{
    for (unsigned wait = 0; wait < WAITS; wait++) {
        holder h = {.gc = gc, .place = place, .wait = (wait_kind)wait};
        vmki_os_thread thread;
        ck_assert_int_eq(vmki_os_thread_start(&thread, holder_run, &h), VMK_OK);
        holder_await(&h, 1);
        ck_assert(!h.failed);
        unsigned first = collect(gc), second = collect(gc);
        (void)VMKI_EXCHANGE(&h.on, (uintptr_t)1);
        holder_await(&h, 2);
        unsigned third = collect(gc);
        (void)VMKI_EXCHANGE(&h.on, (uintptr_t)2);
        vmki_os_thread_join(&thread);
        ck_assert_msg(first == OBJECTS && second == OBJECTS, "%s, waiting in way %u: %u and %u of %u", what, wait,
                      first, second, (unsigned)OBJECTS);
        ck_assert_msg(third <= LEFT_OVER, "%s, waiting in way %u: %u left", what, wait, third);
        unlink_all(gc);
    }
}

static void *volatile *place_thread_bss(void)
{
    return in_thread_bss;
}

static void *volatile *place_thread_data(void)
{
    return in_thread_data;
}

START_TEST(another_thread)
{
    vmk_gc *gc = make(0);
    thread_holds(gc, NULL, "stack");
    thread_holds(gc, place_thread_bss, "thread's zero");
    thread_holds(gc, place_thread_data, "thread's data");
    end(gc);
}
END_TEST

/* What a thread had ends with it. */
static void leaver_run(void *argument)
{
    holder *h = argument;
    void *volatile on_stack[OBJECTS];
    h->failed = vmk_gc_thread_register() != VMK_OK || !fill_and_wipe(h->gc, on_stack, 0);
    h->failed = h->failed || collect(h->gc) != OBJECTS;
}

START_TEST(ended_thread)
{
    vmk_gc *gc = make(0);
    holder h = {.gc = gc};
    vmki_os_thread thread;
    ck_assert_int_eq(vmki_os_thread_start(&thread, leaver_run, &h), VMK_OK);
    vmki_os_thread_join(&thread);
    ck_assert(!h.failed);
    ck_assert_uint_le(collect(gc), LEFT_OVER);
    unlink_all(gc);
    end(gc);
}
END_TEST

/* --- registers ---------------------------------------------------------------------------------------------------- */

#if defined(WORLD_HAS_REGISTERS)

#define HIDE_IN(name)                                                                                                  \
    static WORLD_NOINLINE void hide_in_##name(agent *self, uintptr_t hidden) WORLD_HIDE_IN_REGISTER(name)
#define HIDE_IN_VECTOR(name)                                                                                           \
    static WORLD_NOINLINE void hide_in_##name(agent *self, uintptr_t hidden) WORLD_HIDE_IN_VECTOR(name)
#define HIDE(name) hide_in_##name,

WORLD_REGISTERS(HIDE_IN)
WORLD_VECTORS(HIDE_IN_VECTOR)

typedef struct secret_keeper {
    agent a; /* of which only `here` and `on` are used */
    void (*hide)(agent *self, uintptr_t hidden);
    int preserved;
    vmk_gc_stack *stack; /* to switch to; NULL: it blocks */
    uintptr_t hidden;
    uintptr_t at, on;
    vmk_gc *gc;
} secret_keeper;

static void keeper_in_register(void *argument)
{
    secret_keeper *k = argument;
    VMKI_IGNORE(vmk_gc_thread_register());
    wipe_below();
    k->hide(&k->a, k->hidden);
}

/* A new object, of which only its complement is known. */
static WORLD_NOINLINE uintptr_t object_hidden(vmk_gc *gc, unsigned number)
{
    void *object = vmk_gc_alloc(gc, SIZE);
    if (object == NULL || vmk_gc_link_add(gc, &links[number], object, VMK_GC_SHORT) != VMK_OK)
        return 0;
    return ~(uintptr_t)object;
}

START_TEST(registers)
{
    static void (*const hide[])(agent *, uintptr_t) = {WORLD_REGISTERS(HIDE) WORLD_VECTORS(HIDE)};
    enum { COUNT = sizeof hide / sizeof *hide };
    vmk_gc *gc = make(0);
    if (WORLD_LATE) /* it would never get to where ThreadSanitizer lets it be stopped */
        return;
    for (unsigned i = 0; i < COUNT; i++) {
        static secret_keeper k;
        vmki_os_thread thread;
        k = (secret_keeper){.hide = hide[i], .hidden = object_hidden(gc, i)};
        ck_assert_uint_ne(k.hidden, 0);
        ck_assert_int_eq(vmki_os_thread_start(&thread, keeper_in_register, &k), VMK_OK);
        while (VMKI_LOAD(&k.a.here) == 0)
            vmki_os_yield();
        (void)collect(gc);
        bool kept = links[i] != 0;
        (void)VMKI_EXCHANGE(&k.a.on, (uintptr_t)1);
        vmki_os_thread_join(&thread);
        ck_assert_msg(kept, "register %u", i);
    }
    ck_assert_uint_le(collect(gc), COUNT / 2); /* the last ones may still lie about */
    unlink_all(gc);
    end(gc);
}
END_TEST

/* A function that returns has given the registers back to its caller: what they had then is in its note alone. It must
 * be called directly, for one in between may have put them into its own frame. */
static union call {
    void (*save)(unsigned char *registers);
    void (*enter)(void);
    void (*change)(vmk_gc_stack *stack);
} blocking_enter = {.enter = vmk_gc_blocking_enter}, stack_switch = {.change = vmk_gc_stack_switch};

static void keeper_noted(void *argument)
{
    secret_keeper *k = argument;
    VMKI_IGNORE(vmk_gc_thread_register());
    wipe_below();
    world_save_with(k->preserved, k->hidden, (unsigned char *)k->stack);
    wipe_below();
    (void)VMKI_EXCHANGE(&k->at, (uintptr_t)1);
    while (VMKI_LOAD(&k->on) < 1)
        vmki_os_yield();
    if (k->stack == NULL)
        vmk_gc_blocking_leave();
    else
        vmk_gc_stack_switch(NULL);
    vmk_gc_collect(k->gc); /* it is on its stack, that is plain now */
    wipe_below();
    (void)VMKI_EXCHANGE(&k->at, (uintptr_t)2);
    while (VMKI_LOAD(&k->on) < 2)
        vmki_os_yield();
}

static void keep_noted(vmk_gc *gc, vmk_gc_stack *stack)
{
    unsigned left = 0;
    world_save = stack == NULL ? blocking_enter.save : stack_switch.save;
    for (int i = 0; i < WORLD_PRESERVED; i++) {
        static secret_keeper k;
        vmki_os_thread thread;
        k = (secret_keeper){.preserved = i, .stack = stack, .hidden = object_hidden(gc, (unsigned)i), .gc = gc};
        ck_assert_uint_ne(k.hidden, 0);
        ck_assert_int_eq(vmki_os_thread_start(&thread, keeper_noted, &k), VMK_OK);
        while (VMKI_LOAD(&k.at) < 1)
            vmki_os_yield();
        (void)collect(gc);
        bool kept = links[i] != 0;
        (void)VMKI_EXCHANGE(&k.on, (uintptr_t)1);
        while (VMKI_LOAD(&k.at) < 2)
            vmki_os_yield();
        left = collect(gc);
        (void)VMKI_EXCHANGE(&k.on, (uintptr_t)2);
        vmki_os_thread_join(&thread);
        ck_assert_msg(kept, "register %d, %s", i, stack == NULL ? "blocking" : "switching");
    }
    ck_assert_int_le((int)left, WORLD_PRESERVED / 2); /* of all that there were; the last ones may still lie about */
    unlink_all(gc);
}

START_TEST(registers_are_noted)
{
    static uintptr_t memory[1024];
    vmk_gc *gc = make(0);
    vmk_gc_stack *stack;
    ck_assert_int_eq(vmk_gc_stack_register(&stack, memory, sizeof memory), VMK_OK);
    keep_noted(gc, NULL);
    keep_noted(gc, stack);
    vmk_gc_stack_unregister(stack);
    end(gc);
}
END_TEST

#endif

/* --- libraries that are loaded late ------------------------------------------------------------------------------- */

static gc_plugin_place *plugin_place(void *library, const char *name)
{
    gc_plugin_place *place = (gc_plugin_place *)support_library_symbol(library, name);
    ck_assert_msg(place != NULL, "%s", name);
    return place;
}

START_TEST(libraries)
{
    static const char *const names[] = {"gc_plugin_zero", "gc_plugin_data", "gc_plugin_thread_zero",
                                        "gc_plugin_thread_data"};
    vmk_gc *gc = make(0);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        void *library = support_library_open(GC_PLUGIN);
        ck_assert_ptr_nonnull(library);
        gc_plugin_place *place = plugin_place(library, names[i]);
        place_holds(gc, place(), names[i]);
        if (i >= 2)
            thread_holds(gc, place, names[i]);
        ck_assert(fill_and_wipe(gc, place(), 0)); /* and go with it */
        ck_assert_uint_eq(collect(gc), OBJECTS);
        support_library_close(library);
        ck_assert_msg(collect(gc) <= LEFT_OVER, "%s: %u left", names[i], alive());
        unlink_all(gc);
    }
    end(gc);
}
END_TEST

typedef struct traffic {
    vmk_gc *gc;
    uintptr_t on, loads, failed;
} traffic;

static void load_and_close(traffic *t)
{
    void *library = support_library_open(GC_PLUGIN);
    gc_plugin_place *place =
        library != NULL ? (gc_plugin_place *)support_library_symbol(library, "gc_plugin_thread_data") : NULL;
    if (place != NULL) {
        place()[1] = t;
        VMKI_FETCH_ADD(&t->loads, 1);
    } else {
        VMKI_FETCH_ADD(&t->failed, 1);
    }
    if (library != NULL)
        support_library_close(library);
}

static void traffic_body(void *argument, unsigned number)
{
    traffic *t = argument;
    if (vmk_gc_thread_register() != VMK_OK)
        VMKI_FETCH_ADD(&t->failed, 1);
    while (number == 0 && VMKI_LOAD(&t->on) != 0)
        load_and_close(t);
    for (size_t i = support_rounds(100); number == 1 && i > 0; i--) {
        uintptr_t before = VMKI_LOAD(&t->loads);
        if (collect(t->gc) != OBJECTS)
            VMKI_FETCH_ADD(&t->failed, 1);
        for (unsigned yields = 0; yields < 100 && VMKI_LOAD(&t->loads) == before; yields++)
            vmki_os_yield();
    }
    if (number == 1)
        (void)VMKI_EXCHANGE(&t->on, (uintptr_t)0);
}

START_TEST(libraries_come_and_go)
{
    traffic t = {.gc = make(0), .on = 1};
    ck_assert(fill_and_wipe(t.gc, in_bss, 0));
    vmk_gc_blocking_enter();
    support_threads(2, traffic_body, &t);
    vmk_gc_blocking_leave();
    ck_assert_uint_eq(t.failed, 0);
    ck_assert_uint_gt(t.loads, 0);
    empty(in_bss);
    unlink_all(t.gc);
    end(t.gc);
}
END_TEST

/* --- what the program names --------------------------------------------------------------------------------------- */

static void *volatile *region_place(vmk_region *region)
{
    ck_assert_int_eq(vmk_reserve(region, 65536, NULL), VMK_OK);
    ck_assert_int_eq(vmk_commit(region, 0, region->size), VMK_OK);
    return (void *volatile *)(void *)region->base;
}

START_TEST(nothing_else)
{
    vmk_region region;
    vmk_gc *gc = make(0);
    place_holds_nothing(gc, region_place(&region), "a region");
    vmk_release(&region);
    end(gc);
}
END_TEST

static void trace_place(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    void *const *place = context;
    (void)size;
    if (object != NULL)
        return;
    for (unsigned i = 0; i < OBJECTS / 2; i++)
        vmk_gc_visit(visitor, place[i]);
    vmk_gc_visit_range(visitor, place + OBJECTS / 2, OBJECTS / 2 * sizeof *place);
}

typedef enum name_kind { RANGE, SLOTS, TRACER, NAMES } name_kind;

static void name_add(vmk_gc *gc, name_kind kind, void *volatile *place)
{
    void *memory = (void *)(uintptr_t)place;
    if (kind == RANGE)
        ck_assert_int_eq(vmk_gc_roots_add(gc, memory, OBJECTS * sizeof *place), VMK_OK);
    else if (kind == SLOTS)
        ck_assert_int_eq(vmk_gc_slots_add(gc, memory, OBJECTS), VMK_OK);
    else
        ck_assert_int_eq(vmk_gc_tracer_add(gc, trace_place, memory), VMK_OK);
}

static void name_remove(vmk_gc *gc, name_kind kind, void *volatile *place)
{
    void *memory = (void *)(uintptr_t)place;
    if (kind == TRACER)
        vmk_gc_tracer_remove(gc, trace_place, memory);
    else
        vmk_gc_roots_remove(gc, memory);
}

START_TEST(named)
{
    vmk_region region;
    void *volatile *place = region_place(&region);
    for (unsigned flags = 0; flags <= VMK_GC_NO_STACKS; flags += VMK_GC_NO_STACKS) {
        vmk_gc *gc = make(flags);
        for (unsigned kind = 0; kind < NAMES; kind++) {
            name_add(gc, (name_kind)kind, place);
            place_holds(gc, place, "named");
            name_add(gc, (name_kind)kind, place); /* twice, of which one goes */
            name_remove(gc, (name_kind)kind, place);
            place_holds(gc, place, "named still");
            ck_assert(fill_and_wipe(gc, place, 0));
            ck_assert_uint_eq(collect(gc), OBJECTS);
            name_remove(gc, (name_kind)kind, place);
            ck_assert_uint_le(collect(gc), LEFT_OVER);
            unlink_all(gc);
        }
        end(gc);
    }
    vmk_release(&region);
}
END_TEST

START_TEST(many_names)
{
    enum { MANY = 3000 };
    static void *places[MANY];
    vmk_region region;
    vmk_gc *gc = make(VMK_GC_NO_STACKS | VMK_GC_NO_STATIC);
    void *volatile *place = region_place(&region);
    vmk_gc_stats stats;
    for (size_t i = 0; i < MANY; i++) {
        ck_assert_int_eq(vmk_gc_slots_add(gc, &places[i], 1), VMK_OK); /* not what ends there */
        places[i] = vmk_gc_alloc(gc, SIZE);
    }
    for (size_t i = 0; i < MANY; i += 2)
        vmk_gc_roots_remove(gc, &places[i]);
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.live_objects, MANY / 2);
    name_add(gc, SLOTS, place);
    place_holds(gc, place, "slots");
    for (size_t i = 1; i < MANY; i += 2)
        vmk_gc_roots_remove(gc, &places[i]);
    vmk_gc_collect(gc);
    vmk_gc_stats_now(gc, &stats);
    ck_assert_uint_eq(stats.live_objects, 0);
    memset(places, 0, sizeof places);
    vmk_release(&region);
    end(gc);
}
END_TEST

START_TEST(names_that_cant_be)
{
    static void *places[2];
    vmk_gc *gc = make(0);
    ck_assert_int_eq(vmk_gc_roots_add(gc, NULL, 8), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_roots_add(gc, places, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_roots_add(gc, (char *)places + 1, 8), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_roots_add(gc, places, SIZE_MAX), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_slots_add(gc, NULL, 1), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_slots_add(gc, places, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_slots_add(gc, places, SIZE_MAX / 4), VMK_ERR_ARGUMENT);
    vmk_gc_stack *stack;
    ck_assert_int_eq(vmk_gc_stack_register(&stack, NULL, 64), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_stack_register(&stack, places, 0), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_gc_stack_register(&stack, places, 3), VMK_ERR_ARGUMENT);
    end(gc);
}
END_TEST

START_TEST(pins)
{
    vmk_region region;
    vmk_gc *gc = make(0);
    void *volatile *place = region_place(&region);
    ck_assert(fill_and_wipe(gc, place, 0));
    for (unsigned i = 0; i < OBJECTS; i++) {
        ck_assert_int_eq(vmk_gc_pin(gc, place[i]), VMK_OK);
        ck_assert_int_eq(vmk_gc_pin(gc, place[i]), VMK_OK);
    }
    ck_assert_uint_eq(collect(gc), OBJECTS);
    for (unsigned i = 0; i < OBJECTS; i++)
        vmk_gc_unpin(gc, place[i]);
    ck_assert_uint_eq(collect(gc), OBJECTS);
    for (unsigned i = 0; i < OBJECTS; i++)
        vmk_gc_unpin(gc, place[i]);
    ck_assert_uint_le(collect(gc), LEFT_OVER);
    unlink_all(gc);
    vmk_release(&region);
    end(gc);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gc_roots");
    TCase *own = tcase_create("own");
    tcase_add_test(own, nothing_else);
    tcase_add_test(own, static_data);
    tcase_add_test(own, own_stack);
    tcase_add_test(own, own_thread_local_storage);
    tcase_add_test(own, inside_and_end);
    suite_add_tcase(s, own);
    TCase *others = tcase_create("others");
    tcase_add_test(others, another_thread);
    tcase_add_test(others, ended_thread);
#if defined(WORLD_HAS_REGISTERS)
    tcase_add_test(others, registers);
    tcase_add_test(others, registers_are_noted);
#endif
    tcase_add_test(others, libraries);
    tcase_add_test(others, libraries_come_and_go);
    suite_add_tcase(s, others);
    TCase *names = tcase_create("names");
    tcase_add_test(names, named);
    tcase_add_test(names, many_names);
    tcase_add_test(names, names_that_cant_be);
    tcase_add_test(names, pins);
    suite_add_tcase(s, names);
    return s;
}

int main(int argc, char **argv)
{
    return support_main(argc, argv, suite(), NULL);
}
