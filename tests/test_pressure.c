/* SPDX-License-Identifier: MIT
 *
 * Memory pressure: the decisions as a function of what is seen; what is left, as the system tells it; and the thread,
 * on the model OS with bounds that are set, on the real system with a mark that everything is below.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "common/vm/pressure.h"
#include "support.h"
#if defined(VMKIT_MODEL)
#include "model/model.h"
#endif

#define MS UINT64_C(1000000)
#define NO_BOUND VMK_UNLIMITED

/* --- decisions -------------------------------------------------------------------------------------------------- */

static vmk_room no_room(void)
{
    vmk_room room;
    for (size_t i = 0; i < VMK_BOUNDS; i++)
        room.left[i] = room.bound[i] = NO_BOUND;
    return room;
}

/* What one look at one bound says: nothing, low, low because told, enough. */
typedef enum word { QUIET, LOW, TOLD, ENOUGH } word;

typedef struct look {
    uint64_t at, left; /* milliseconds, bytes */
    bool told;
    word expected;
} look;

/* A bound of 1600 with the usual mark of 100, enough being 200; looks every 10 ms. */
static const look usual[] = {{0, 1600, false, QUIET}, {10, 100, false, QUIET}, {20, 99, false, LOW},
                             {30, 0, false, QUIET},   {40, 199, false, QUIET}, {50, 200, false, ENOUGH},
                             {60, 100, false, QUIET}, {70, 50, false, LOW},    {80, 1600, false, ENOUGH}};
static const look by_system[] = {{0, 1000, true, TOLD},   {9, 1000, false, QUIET},  {10, 1000, false, ENOUGH},
                                 {20, 1000, true, TOLD},  {25, 1000, true, QUIET},  {34, 1000, false, QUIET},
                                 {35, 150, false, QUIET}, {36, 200, false, ENOUGH}, {40, 50, true, TOLD},
                                 {45, 250, false, QUIET}, {50, 250, false, ENOUGH}, {60, 50, false, LOW},
                                 {61, 50, true, QUIET},   {65, 1000, false, QUIET}, {71, 1000, false, ENOUGH}};
/* Marks that are large for their bound: 1000 of 1600, of 1000, of 900. */
static const look large_mark[] = {
    {0, 1000, false, QUIET}, {1, 999, false, LOW}, {2, 1299, false, QUIET}, {3, 1300, false, ENOUGH}};
static const look whole_mark[] = {{0, 1000, false, QUIET}, {1, 999, false, LOW}, {2, 1000, false, ENOUGH}};
static const look beyond_mark[] = {{0, 900, false, LOW}, {1, 10, false, QUIET}, {2, 900, false, QUIET}};
/* Nothing is known but what the system tells. */
static const look unknown[] = {
    {0, NO_BOUND, false, QUIET}, {1, NO_BOUND, true, TOLD}, {2, NO_BOUND, false, QUIET}, {11, NO_BOUND, false, ENOUGH}};

#define LOOKS(table) table, sizeof table / sizeof table[0]

static const struct {
    const look *looks;
    size_t count;
    uint64_t bound, mark;
} tables[] = {{LOOKS(usual), 1600, 0},          {LOOKS(usual), 1600, 100},       {LOOKS(by_system), 1600, 0},
              {LOOKS(large_mark), 1600, 1000},  {LOOKS(whole_mark), 1000, 1000}, {LOOKS(beyond_mark), 900, 1000},
              {LOOKS(unknown), NO_BOUND, 1000}, {LOOKS(unknown), NO_BOUND, 0}};

START_TEST(decisions_of_tables)
{
    vmk_pressure_options options = {.low = tables[_i].mark, .milliseconds = 10};
    vmk_pressure_event events[VMK_BOUNDS];
    for (unsigned bound = 0; bound < VMK_BOUNDS; bound++) {
        vmki_pressure_view view = {0};
        vmk_room room = no_room();
        room.bound[bound] = tables[_i].bound;
        for (size_t i = 0; i < tables[_i].count; i++) {
            const look *at = &tables[_i].looks[i];
            room.left[bound] = at->left;
            unsigned told = at->told ? 1u << bound : 0;
            unsigned count = vmki_pressure_decide(&view, &room, told, 7777 + at->at * MS, &options, events);
            word said = count == 0 ? QUIET : !events[0].low ? ENOUGH : events[0].told ? TOLD : LOW;
            ck_assert_msg(said == at->expected && count <= 1, "bound %u, look %u: %u", bound, (unsigned)i, said);
            if (count == 1)
                ck_assert(events[0].bound == (vmk_bound)bound && events[0].left == at->left);
        }
    }
}
END_TEST

/* The same by other means: from the whole history of a bound, not from what is remembered of it. */
static bool low_by_history(const look *history, size_t count, uint64_t mark, uint64_t enough, uint64_t silence)
{
    bool low = false;
    for (size_t i = 0; i < count; i++) {
        bool told_lately = false;
        for (size_t j = 0; j <= i; j++)
            told_lately |= history[j].told && (j == i || history[i].at - history[j].at < silence);
        if (history[i].left < mark || told_lately)
            low = true;
        else if (history[i].left >= enough)
            low = false;
    }
    return low;
}

START_TEST(decisions_of_random_walks)
{
    enum { LOOKS_EACH = 60 };
    static look history[VMK_BOUNDS][LOOKS_EACH];
    support_random random = support_random_start(41);
    for (size_t round = support_rounds(200); round > 0; round--) {
        vmk_pressure_options options = {.milliseconds = 1 + (unsigned)support_random_below(&random, 20)};
        vmki_pressure_view view = {0};
        vmk_room room = no_room();
        unsigned low = 0;
        uint64_t now = support_random_next(&random) >> 8;
        for (size_t b = 0; b < VMK_BOUNDS; b++)
            room.left[b] = room.bound[b] = 1600;
        for (size_t i = 0; i < LOOKS_EACH; i++) {
            vmk_pressure_event events[VMK_BOUNDS];
            unsigned told = 0;
            now += support_random_below(&random, 12) * MS;
            for (size_t b = 0; b < VMK_BOUNDS; b++) {
                uint64_t step = support_random_below(&random, 60);
                bool down = room.left[b] > 400 || (room.left[b] >= step && support_random_below(&random, 2) == 0);
                room.left[b] = down ? room.left[b] - step : room.left[b] + step;
                bool tell = support_random_below(&random, 20) == 0;
                told |= tell ? 1u << b : 0;
                history[b][i] = (look){now, room.left[b], tell, QUIET};
            }
            unsigned count = vmki_pressure_decide(&view, &room, told, now, &options, events);
            for (unsigned e = 0; e < count; e++) {
                unsigned bit = 1u << events[e].bound;
                ck_assert_int_ne(events[e].low, (low & bit) != 0); /* told of changes alone */
                ck_assert_int_eq(events[e].told, events[e].low && (told & bit) != 0);
                low ^= bit;
            }
            for (size_t b = 0; b < VMK_BOUNDS; b++)
                ck_assert_int_eq((low >> b & 1) != 0,
                                 low_by_history(history[b], i + 1, 100, 200, options.milliseconds * MS));
        }
    }
}
END_TEST

/* --- what is left ----------------------------------------------------------------------------------------------- */

START_TEST(room_is_within_its_bounds)
{
    vmk_room room;
    vmki_os_error before = {.library = 77, .system = 88};
    vmki_os_error_set(before);
    vmk_room_now(&room);
    vmki_os_error now = vmki_os_error_get();
    ck_assert_int_eq(now.library, 77);
    ck_assert(now.system == 88 || now.system == 0);
    for (size_t i = 0; i < VMK_BOUNDS; i++) {
        ck_assert_msg(room.left[i] <= room.bound[i], "%u", (unsigned)i);
        ck_assert(room.bound[i] == NO_BOUND || room.left[i] != NO_BOUND);
    }
#if !defined(VMKIT_MODEL)
    uint64_t physical = vmk_capabilities()->physical_memory;
    if (room.bound[VMK_BOUND_PHYSICAL] != NO_BOUND && physical != 0 && support_system_tells())
        ck_assert(room.bound[VMK_BOUND_PHYSICAL] <= physical && room.bound[VMK_BOUND_PHYSICAL] > physical / 2);
#endif
    if (sizeof(void *) == 4)
        ck_assert_uint_le(room.bound[VMK_BOUND_ADDRESS_SPACE], UINT64_C(1) << 32);
}
END_TEST

/* --- the thread ------------------------------------------------------------------------------------------------- */

typedef struct record {
    vmki_os_lock lock;
    size_t count;
    vmk_pressure_event events[64];
} record;

static void note(const vmk_pressure_event *event, void *context)
{
    record *r = context;
    vmki_os_lock_acquire(&r->lock);
    if (r->count < 64)
        r->events[r->count] = *event;
    r->count++;
    vmki_os_lock_release(&r->lock);
}

static size_t noted(record *r)
{
    vmki_os_lock_acquire(&r->lock);
    size_t count = r->count;
    vmki_os_lock_release(&r->lock);
    return count;
}

START_TEST(wrong_arguments)
{
    vmk_pressure pressure, untouched;
    vmk_pressure_options options = {.low = 1};
    memset(&pressure, 0x5a, sizeof pressure);
    memcpy(&untouched, &pressure, sizeof pressure);
    ck_assert_int_eq(vmk_pressure_start(&pressure, NULL), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_ERR_ARGUMENT);
    ck_assert_int_eq(memcmp(&pressure, &untouched, sizeof pressure), 0);
}
END_TEST

/* Stop doesn't wait for the next look, which is an hour away. */
START_TEST(many_rounds)
{
    record r = {.count = 0};
    vmk_pressure_options options = {.callback = note, .context = &r, .low = 1, .milliseconds = 3600000};
    for (size_t round = support_rounds(200); round > 0; round--) {
        vmk_pressure pressure;
        vmki_os_error before = {.library = 77, .system = 88};
        vmki_os_error_set(before);
        vmk_status status = vmk_pressure_start(&pressure, &options);
        if (status == VMK_OK)
            vmk_pressure_stop(&pressure);
        vmki_os_error now = vmki_os_error_get();
        ck_assert_int_eq(status, VMK_OK);
        ck_assert_int_eq(now.library, 77);
    }
}
END_TEST

#if !defined(VMKIT_MODEL)

/* With a mark above all that there can be, each bound that is known is low at once, and once. */
START_TEST(all_is_low)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_pressure_options options = {.callback = note, .context = &r, .low = UINT64_MAX - 1, .milliseconds = 1};
    vmk_room room;
    size_t expected = 0;
    vmk_room_now(&room);
    for (size_t i = 0; i < VMK_BOUNDS; i++)
        expected += room.bound[i] != NO_BOUND;
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
    while (noted(&r) < expected)
        support_yield();
    vmk_pressure_stop(&pressure);
    size_t at_stop = noted(&r);
    unsigned seen = 0;
    for (size_t i = 0; i < at_stop && i < 64; i++) {
        if (room.bound[r.events[i].bound] == NO_BOUND) /* told by the system, as it happens */
            continue;
        ck_assert(r.events[i].low);
        ck_assert_uint_eq(seen & 1u << r.events[i].bound, 0);
        seen |= 1u << r.events[i].bound;
    }
    ck_assert_uint_ge(at_stop, expected);
    for (int i = 0; i < 1000; i++)
        support_yield();
    ck_assert_uint_eq(noted(&r), at_stop);
}
END_TEST

#else

/* Until it has looked twice more: what it saw first may have been before now. */
static void let_it_look(void)
{
    size_t looks = model_pressure_looks();
    while (model_pressure_looks() < looks + 3)
        support_yield();
}

static void assert_event(record *r, size_t index, vmk_bound bound, bool low, bool told, uint64_t left)
{
    while (noted(r) <= index)
        support_yield();
    vmki_os_lock_acquire(&r->lock);
    vmk_pressure_event event = r->events[index];
    vmki_os_lock_release(&r->lock);
    ck_assert_msg(event.bound == bound && event.low == low && event.told == told && event.left == left,
                  "bound %u, low %d, told %d, left %u", event.bound, event.low, event.told, (unsigned)event.left);
}

START_TEST(changes_are_told_once)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_pressure_options options = {.callback = note, .context = &r, .milliseconds = 1};
    model_room_set(VMK_BOUND_COMMIT, 10, 1600);
    model_room_set(VMK_BOUND_MEMORY, 1000, 1600);
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
    assert_event(&r, 0, VMK_BOUND_COMMIT, true, false, 10);
    let_it_look();
    ck_assert_uint_eq(noted(&r), 1);
    model_room_set(VMK_BOUND_MEMORY, 99, 1600);
    assert_event(&r, 1, VMK_BOUND_MEMORY, true, false, 99);
    model_room_set(VMK_BOUND_MEMORY, 199, 1600);
    let_it_look();
    ck_assert_uint_eq(noted(&r), 2);
    model_room_set(VMK_BOUND_MEMORY, 200, 1600);
    assert_event(&r, 2, VMK_BOUND_MEMORY, false, false, 200);
    model_room_set(VMK_BOUND_COMMIT, 0, 0); /* a limit that is lifted */
    assert_event(&r, 3, VMK_BOUND_COMMIT, false, false, NO_BOUND);
    let_it_look();
    vmk_pressure_stop(&pressure);
    ck_assert_uint_eq(noted(&r), 4);
    model_room_set(VMK_BOUND_MEMORY, 0, 0);
}
END_TEST

START_TEST(what_the_system_tells)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_pressure_options options = {.callback = note, .context = &r, .milliseconds = 3600000};
    model_room_set(VMK_BOUND_PHYSICAL, 1000, 1600);
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
    model_pressure_tell(1u << VMK_BOUND_PHYSICAL); /* at once, though the next look is far away */
    assert_event(&r, 0, VMK_BOUND_PHYSICAL, true, true, 1000);
    model_pressure_tell(1u << VMK_BOUND_PHYSICAL | 1u << VMK_BOUND_MEMORY);
    assert_event(&r, 1, VMK_BOUND_MEMORY, true, true, NO_BOUND);
    vmk_pressure_stop(&pressure);
    ck_assert_uint_eq(noted(&r), 2);
    options.milliseconds = 1;
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK); /* anew: all is forgotten */
    model_pressure_tell(1u << VMK_BOUND_PHYSICAL);
    assert_event(&r, 2, VMK_BOUND_PHYSICAL, true, true, 1000);
    assert_event(&r, 3, VMK_BOUND_PHYSICAL, false, false, 1000); /* it is silent */
    vmk_pressure_stop(&pressure);
    ck_assert_uint_eq(noted(&r), 4);
    model_room_set(VMK_BOUND_PHYSICAL, 0, 0);
}
END_TEST

/* The limits on the process itself, held against what it uses: by commits in a region. */
START_TEST(own_limits)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_region region;
    size_t page = vmk_page_size();
    ck_assert_int_eq(vmk_reserve(&region, 64 * page, NULL), VMK_OK);
    uint64_t used = model_committed(), reserved = model_reserved();
    model_rules rules = {.limits = {.data = used + 64 * page, .address_space = reserved + 100 * page}};
    model_reset(&rules);
    vmk_room room;
    vmk_room_now(&room);
    ck_assert_uint_eq(room.left[VMK_BOUND_DATA], 64 * page);
    ck_assert_uint_eq(room.bound[VMK_BOUND_DATA], used + 64 * page);
    ck_assert_uint_eq(room.left[VMK_BOUND_ADDRESS_SPACE], 100 * page);
    vmk_pressure_options options = {.callback = note, .context = &r, .low = 8 * page, .milliseconds = 1};
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_OK);
    for (size_t i = 0; i < 57; i++) {
        let_it_look();
        ck_assert_uint_eq(noted(&r), 0);
        ck_assert_int_eq(vmk_commit(&region, i * page, page), VMK_OK);
    }
    assert_event(&r, 0, VMK_BOUND_DATA, true, false, 7 * page);
    ck_assert_int_eq(vmk_decommit(&region, 0, 9 * page), VMK_OK);
    assert_event(&r, 1, VMK_BOUND_DATA, false, false, 16 * page);
    vmk_pressure_stop(&pressure);
    vmk_release(&region);
}
END_TEST

START_TEST(a_refused_start)
{
    record r = {.count = 0};
    vmk_pressure pressure;
    vmk_pressure_options options = {.callback = note, .context = &r};
    memset(&pressure, 0x5a, sizeof pressure);
    vmk_pressure untouched = pressure;
    model_fail_nth(1, VMK_ERR_COMMIT, false);
    ck_assert_int_eq(vmk_pressure_start(&pressure, &options), VMK_ERR_COMMIT);
    ck_assert_int_eq(memcmp(&pressure, &untouched, sizeof pressure), 0);
    ck_assert_uint_eq(model_pressure_opened(), 0);
}
END_TEST

#endif

/* Several at once, each with its own record; the callback uses vmkit. */
static void use_vmkit(const vmk_pressure_event *event, void *context)
{
    vmk_region region;
    if (vmk_reserve(&region, vmk_page_size(), NULL) == VMK_OK && vmk_commit(&region, 0, region.size) == VMK_OK) {
        region.base[0] = 1;
        vmk_release(&region);
        note(event, context);
    }
}

START_TEST(several_at_once)
{
    enum { SEVERAL = 5 };
    static record records[SEVERAL];
    vmk_pressure pressures[SEVERAL];
    vmk_room room;
#if defined(VMKIT_MODEL)
    model_room_set(VMK_BOUND_PHYSICAL, 100, 1600);
#endif
    vmk_room_now(&room);
    memset(records, 0, sizeof records);
    for (size_t i = 0; i < SEVERAL; i++) {
        vmk_pressure_options options = {.callback = use_vmkit, .context = &records[i], .low = UINT64_MAX - 1};
        ck_assert_int_eq(vmk_pressure_start(&pressures[i], &options), VMK_OK);
    }
    for (size_t i = 0; i < SEVERAL; i++) {
        while (room.bound[VMK_BOUND_PHYSICAL] != NO_BOUND && noted(&records[i]) == 0)
            support_yield();
        vmk_pressure_stop(&pressures[i]);
    }
#if defined(VMKIT_MODEL)
    model_room_set(VMK_BOUND_PHYSICAL, 0, 0);
#endif
}
END_TEST

/* --- misuse ----------------------------------------------------------------------------------------------------- */

static vmk_pressure misused;

static void ignore(const vmk_pressure_event *event, void *context)
{
    (void)event;
    (void)context;
}

static void stop_in_it(const vmk_pressure_event *event, void *context)
{
    (void)event;
    vmki_os_event_wait(context, UINT64_MAX / 2); /* until it has started */
    vmk_pressure_stop(&misused);
}

static int child(int argc, char **argv)
{
    static vmki_os_event started;
    vmk_pressure_options options = {.callback = ignore, .low = UINT64_MAX - 1};
    if (argc < 1)
        return 9;
    if (strcmp(argv[0], "stop-none") == 0)
        vmk_pressure_stop(&misused);
#if defined(VMKIT_MODEL)
    model_room_set(VMK_BOUND_PHYSICAL, 100, 1600);
#endif
    if (strcmp(argv[0], "stop-in-it") == 0)
        options = (vmk_pressure_options){.callback = stop_in_it, .context = &started, .low = UINT64_MAX - 1};
    if (vmk_pressure_start(&misused, &options) != VMK_OK)
        return 9;
    vmki_os_event_signal(&started);
    if (strcmp(argv[0], "stop-twice") == 0) {
        vmk_pressure_stop(&misused);
        vmk_pressure_stop(&misused);
    }
    for (;;)
        support_yield();
}

static const char *const crimes[][2] = {{"stop-none", "vmk_pressure_stop: not started"},
                                        {"stop-twice", "vmk_pressure_stop: stopped before"},
                                        {"stop-in-it", "vmk_pressure_stop: called by its own callback"}};

START_TEST(misuse_ends_the_program)
{
    char output[4096];
    vmk_room room;
    vmk_room_now(&room);
#if !defined(VMKIT_MODEL)
    if (_i == 2 && room.bound[VMK_BOUND_PHYSICAL] == NO_BOUND) /* it would never be called */
        return;
#endif
    const char *arguments[] = {crimes[_i][0], NULL};
    support_end end = support_run_self(arguments, output, sizeof output);
    ck_assert_msg(end.crashed || (end.code != 0 && end.code != 9), "code %d, %s", end.code, output);
    ck_assert_msg(strstr(output, crimes[_i][1]) != NULL, "%s", output);
}
END_TEST

static void set_up(void)
{
#if defined(VMKIT_MODEL)
    model_reset(NULL);
#endif
}

static void tear_down(void)
{
#if defined(VMKIT_MODEL)
    ck_assert_msg(model_violation() == NULL, "%s", model_violation());
    ck_assert_uint_eq(model_pressure_opened(), 0);
#endif
}

int main(int argc, char **argv)
{
    Suite *suite = suite_create("pressure");
    TCase *tests = tcase_create("pressure");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, decisions_of_tables, 0, sizeof tables / sizeof tables[0]);
    tcase_add_test(tests, decisions_of_random_walks);
    tcase_add_test(tests, room_is_within_its_bounds);
    tcase_add_test(tests, wrong_arguments);
    tcase_add_test(tests, many_rounds);
#if defined(VMKIT_MODEL)
    tcase_add_test(tests, changes_are_told_once);
    tcase_add_test(tests, what_the_system_tells);
    tcase_add_test(tests, own_limits);
    tcase_add_test(tests, a_refused_start);
#else
    tcase_add_test(tests, all_is_low);
#endif
    tcase_add_test(tests, several_at_once);
    tcase_add_loop_test(tests, misuse_ends_the_program, 0, 3);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, child);
}
