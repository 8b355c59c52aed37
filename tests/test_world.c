/* SPDX-License-Identifier: MIT
 *
 * The contract of common/base/os_world.h: threads that are interrupted wherever they are, and what they and the program
 * have is found. A secret, a word that nothing else has, lies in one place only; the examiner knows its complement.
 *
 * The examiner is thread 0 of each test, the agents are the others. Check's assertions are not for threads: those note
 * what went wrong.
 */
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_world.h"
#include "os_self.h"
#include "support.h"

#include "world.h"

enum { AGENTS = 4, ROUNDS = 60 };

/* --- stopping ----------------------------------------------------------------------------------------------------- */

/* Agents do what makes them hard to stop, and count, until told to end. */
typedef struct team {
    agent agents[AGENTS + 1];
    void (*work)(agent *self);
    vmki_os_lock lock;
    vmki_os_event event;
    size_t rounds, wrong, ready;
    uintptr_t end;
} team;

static team the_team;

static void work_spinning(agent *self)
{
    VMKI_STORE_RELEASE(&self->count, self->count + 1);
}

static void work_asleep(agent *self)
{
    (void)vmki_os_event_wait(&the_team.event, UINT64_MAX);
    self->count++;
}

static void work_napping(agent *self)
{
    vmki_os_event never = {{0}};
    (void)vmki_os_event_wait(&never, 1000);
    self->count++;
}

static void work_locked(agent *self)
{
    vmki_os_lock_acquire(&the_team.lock);
    self->count++;
    vmki_os_yield();
    vmki_os_lock_release(&the_team.lock);
}

static void work_mapping(agent *self)
{
    vmk_region region;
    if (vmk_reserve(&region, 1 << 20, NULL) != VMK_OK || vmk_commit(&region, 0, 1 << 20) != VMK_OK)
        (void)VMKI_FETCH_ADD(&the_team.wrong, 1);
    region.base[self->count % (1 << 20)] = 1;
    self->count++;
    vmk_release(&region);
}

static void team_agent(team *t, agent *self)
{
    if (!agent_enter(self))
        (void)VMKI_FETCH_ADD(&t->wrong, 1);
    (void)VMKI_FETCH_ADD(&t->ready, 1);
    while (VMKI_LOAD(&t->end) == 0)
        t->work(self);
    agent_leave(self);
}

/* While one stands still, its counter does. */
static void team_examine_one(team *t, agent *a)
{
    if (!agent_stop(a)) {
        t->wrong++;
        return;
    }
    uintptr_t before = VMKI_LOAD_RELAXED((volatile uintptr_t *)&a->count);
    unsigned char *sp = agent_sp(a);
    if (sp < (unsigned char *)a->mutator.stack_low || sp >= (unsigned char *)a->mutator.stack_high)
        t->wrong++;
    for (int i = 0; i < 3; i++)
        pause_processor();
    if (VMKI_LOAD_RELAXED((volatile uintptr_t *)&a->count) != before)
        t->wrong++;
    agent_resume(a);
}

static void team_examine(team *t)
{
    while (VMKI_LOAD(&t->ready) != AGENTS)
        vmki_os_yield();
    for (size_t i = 0; i < t->rounds; i++) {
        team_examine_one(t, &t->agents[1 + i % AGENTS]);
        if (i % 16 == 0) { /* all at once */
            for (unsigned j = 1; j <= AGENTS; j++)
                t->wrong += !agent_stop(&t->agents[j]);
            for (unsigned j = 1; j <= AGENTS; j++)
                agent_resume(&t->agents[j]);
        }
    }
    (void)VMKI_EXCHANGE(&t->end, (uintptr_t)1);
    vmki_os_event_signal(&t->event);
}

static void team_body(void *argument, unsigned number)
{
    team *t = argument;
    if (number == 0)
        team_examine(t);
    else
        team_agent(t, &t->agents[number]);
}

static void (*const works[])(agent *) = {work_spinning, work_asleep, work_napping, work_locked, work_mapping};

START_TEST(stops_whatever_it_does)
{
    memset(&the_team, 0, sizeof the_team);
    the_team.work = works[_i];
    the_team.rounds = support_rounds(ROUNDS);
    support_threads(AGENTS + 1, team_body, &the_team);
    ck_assert_uint_eq(the_team.wrong, 0);
    for (unsigned i = 1; i <= AGENTS; i++)
        ck_assert_uint_ne(the_team.agents[i].count, 0);
}
END_TEST

/* --- coming and going --------------------------------------------------------------------------------------------- */

enum { LIVES = 30, LIVING = 8 };

/* Those that are known, under the lock: a thread that ends takes itself off, in at_end. */
typedef struct crowd {
    vmki_os_lock lock;
    agent agents[LIVING];
    agent *known[LIVING];
    size_t lives, ended, wrong, stopped;
} crowd;

static crowd the_crowd;

static void crowd_at_end(agent *self)
{
    if (vmki_os_mutator_self() != NULL)
        (void)VMKI_FETCH_ADD(&the_crowd.wrong, 1);
    vmki_os_lock_acquire(&the_crowd.lock);
    the_crowd.known[self - the_crowd.agents] = NULL;
    vmki_os_mutator_forget(&self->mutator);
    vmki_os_lock_release(&the_crowd.lock);
    (void)VMKI_FETCH_ADD(&the_crowd.ended, 1);
}

static void crowd_member(void *argument)
{
    agent *self = argument;
    self->at_end = crowd_at_end;
    if (vmki_os_mutator_describe(&self->mutator) != VMK_OK)
        (void)VMKI_FETCH_ADD(&the_crowd.wrong, 1);
    vmki_os_lock_acquire(&the_crowd.lock);
    the_crowd.known[self - the_crowd.agents] = self;
    vmki_os_lock_release(&the_crowd.lock);
    vmki_os_mutator_set(&self->mutator);
    if (vmki_os_mutator_self() != &self->mutator)
        (void)VMKI_FETCH_ADD(&the_crowd.wrong, 1);
}

/* Each but the examiner starts threads that end at once. vmki_os_thread_start has all signals blocked in them. */
static void crowd_body(void *argument, unsigned number)
{
    crowd *c = argument;
    vmki_os_event never = {{0}};
    for (size_t i = 0; number != 0 && i < c->lives; i++) {
        vmki_os_thread thread;
        memset(&c->agents[number - 1], 0, sizeof c->agents[0]);
        if (vmki_os_thread_start(&thread, crowd_member, &c->agents[number - 1]) == VMK_OK)
            vmki_os_thread_join(&thread);
        else
            (void)VMKI_FETCH_ADD(&c->wrong, 1);
    }
    while (number == 0 && VMKI_LOAD(&c->ended) < LIVING * c->lives && VMKI_LOAD(&c->wrong) == 0) {
        vmki_os_lock_acquire(&c->lock);
        for (size_t i = 0; i < LIVING; i++) {
            if (c->known[i] != NULL && agent_stop(c->known[i])) {
                agent_resume(c->known[i]);
                c->stopped++;
            }
        }
        vmki_os_lock_release(&c->lock);
        (void)vmki_os_event_wait(&never, 1000000); /* a lock is fair to nobody: who only yields has it again at once */
    }
}

START_TEST(threads_come_and_go)
{
    memset(&the_crowd, 0, sizeof the_crowd);
    the_crowd.lives = support_rounds(LIVES);
    support_threads(LIVING + 1, crowd_body, &the_crowd);
    ck_assert_uint_eq(the_crowd.wrong, 0);
    ck_assert_uint_eq(the_crowd.ended, LIVING * the_crowd.lives);
}
END_TEST

/* All signals are blocked in it, until it is described. */
static void start_blocked(void *argument)
{
    agent *self = argument;
    self->count = agent_enter(self);
    agent_meet(self, 1);
    agent_leave(self);
}

START_TEST(describe_unblocks)
{
    static agent a;
    vmki_os_thread thread;
    memset(&a, 0, sizeof a);
    ck_assert_int_eq(vmki_os_thread_start(&thread, start_blocked, &a), VMK_OK);
    agent_await(&a, 1);
    bool stopped = agent_stop(&a);
    agent_resume(&a);
    agent_go_on(&a, 1);
    vmki_os_thread_join(&thread);
    ck_assert(stopped);
    ck_assert_uint_eq(a.count, 1);
}
END_TEST

/* One that nobody took off, as where its end is not told. */
static void end_unnoticed(void *argument)
{
    agent *self = argument;
    (void)vmki_os_mutator_describe(&self->mutator);
}

START_TEST(ended_is_gone)
{
    static agent a;
    vmki_os_thread thread;
    memset(&a, 0, sizeof a);
    ck_assert_int_eq(vmki_os_thread_start(&thread, end_unnoticed, &a), VMK_OK);
    vmki_os_thread_join(&thread);
    while (vmki_os_interrupt(&a.mutator) != VMKI_OS_GONE) /* the system may take its time */
        vmki_os_yield();
    vmki_os_mutator_forget(&a.mutator);
}
END_TEST

/* --- where a secret is found ----------------------------------------------------------------------------------------
 */

/* One agent hides it somewhere; the examiner looks, and looks again when it is gone. */
typedef struct hiding {
    agent a;
    void (*hide)(agent *self, uintptr_t hidden);
    unsigned where; /* it must be found, when it is there */
    bool gone;      /* then it must not be found there, when it is no longer */
    unsigned found[2];
    uintptr_t hidden;
    size_t wrong;
} hiding;

static hiding the_hiding;

/* What interrupts and calls have left below: some of it gets into gaps of the frames that come next. */
static WORLD_NOINLINE void wipe_below(void)
{
    volatile unsigned char room[30000];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
    if (room[1] != 0)
        the_hiding.wrong++;
    WORLD_CLEAR_REGISTERS();
}

static void hiding_body(void *argument, unsigned number)
{
    hiding *h = argument;
    if (number != 0) {
        if (!agent_enter(&h->a))
            (void)VMKI_FETCH_ADD(&h->wrong, 1);
        h->hide(&h->a, h->hidden);
        wipe_below();
        agent_meet(&h->a, 2);
        agent_leave(&h->a);
        return;
    }
    for (uintptr_t i = 0; i < 2; i++) {
        agent_await(&h->a, i + 1);
        if (agent_stop(&h->a)) {
            h->found[i] = agent_search(&h->a, h->hidden);
            agent_resume(&h->a);
        } else {
            h->wrong++;
        }
        agent_go_on(&h->a, i + 1);
    }
}

static void hide_and_seek(void (*hide)(agent *self, uintptr_t hidden), unsigned where, bool gone)
{
    memset(&the_hiding, 0, sizeof the_hiding);
    the_hiding.hide = hide;
    support_random random = support_random_start(where);
    the_hiding.hidden = (uintptr_t)support_random_next(&random);
    support_threads(2, hiding_body, &the_hiding);
    ck_assert_uint_eq(the_hiding.wrong, 0);
    ck_assert_msg((the_hiding.found[0] & where) != 0, "found in %#x, not in %#x", the_hiding.found[0], where);
    if (gone)
        ck_assert_msg((the_hiding.found[1] & where) == 0, "still found in %#x", the_hiding.found[1]);
}

static WORLD_NOINLINE void hide_on_stack(agent *self, uintptr_t hidden)
{
    volatile uintptr_t words[16];
    words[8] = ~hidden;
    agent_meet(self, 1);
    for (int i = 0; i < 16; i++)
        words[i] = 0;
    if (words[8] != 0)
        self->count++;
}

/* Deep below: pages of the stack that nobody has touched before. */
static WORLD_NOINLINE void hide_deep(agent *self, uintptr_t hidden)
{
    volatile unsigned char room[100000];
    for (size_t i = 0; i < sizeof room; i += 512)
        room[i] = 1;
    hide_on_stack(self, hidden);
    room[0] = 2;
}

static volatile uintptr_t in_bss;
static volatile uintptr_t in_data[3] = {1, 2, 3};

static void hide_in_bss(agent *self, uintptr_t hidden)
{
    in_bss = ~hidden;
    agent_meet(self, 1);
    in_bss = 0;
}

static void hide_in_data(agent *self, uintptr_t hidden)
{
    in_data[1] = ~hidden;
    agent_meet(self, 1);
    in_data[1] = 0;
}

static _Thread_local volatile uintptr_t thread_zero;
static _Thread_local volatile uintptr_t thread_data[3] = {1, 2, 3};

static void hide_in_thread_zero(agent *self, uintptr_t hidden)
{
    thread_zero = ~hidden;
    agent_meet(self, 1);
    thread_zero = 0;
}

static void hide_in_thread_data(agent *self, uintptr_t hidden)
{
    thread_data[2] = ~hidden;
    agent_meet(self, 1);
    thread_data[2] = 0;
}

START_TEST(found_on_stack)
{
    hide_and_seek(hide_on_stack, WORLD_STACK, true);
    hide_and_seek(hide_deep, WORLD_STACK, true);
    hide_and_seek(hide_on_stack, WORLD_TOUCHED, false);
    hide_and_seek(hide_deep, WORLD_TOUCHED, false);
}
END_TEST

START_TEST(found_in_static_data)
{
    hide_and_seek(hide_in_bss, WORLD_STATIC, true);
    hide_and_seek(hide_in_data, WORLD_STATIC, true);
}
END_TEST

START_TEST(found_in_thread_local_storage)
{
    hide_and_seek(hide_in_thread_zero, WORLD_THREAD, true);
    hide_and_seek(hide_in_thread_data, WORLD_THREAD, true);
}
END_TEST

/* The calling thread's own, which is the main thread. */
START_TEST(found_of_the_calling_thread)
{
    static agent self;
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    memset(&self, 0, sizeof self);
    ck_assert(agent_enter(&self));
    thread_zero = ~hidden;
    ck_assert_uint_ne(world_search_thread(&self.mutator, hidden), 0);
    thread_zero = 0;
    ck_assert_uint_eq(world_search_thread(&self.mutator, hidden), 0);
    thread_data[0] = ~hidden;
    ck_assert_uint_ne(world_search_thread(&self.mutator, hidden), 0);
    thread_data[0] = 1;
    ck_assert((void *)&hidden > self.mutator.stack_low && (void *)&hidden < self.mutator.stack_high);
    agent_leave(&self);
}
END_TEST

/* --- registers ------------------------------------------------------------------------------------------------------
 */

#if defined(WORLD_HAS_REGISTERS)

#define HIDE_IN(name) static void hide_in_##name(agent *self, uintptr_t hidden) WORLD_HIDE_IN_REGISTER(name)
#define HIDE_IN_VECTOR(name) static void hide_in_##name(agent *self, uintptr_t hidden) WORLD_HIDE_IN_VECTOR(name)
#define HIDE(name) hide_in_##name,

WORLD_REGISTERS(HIDE_IN)
WORLD_VECTORS(HIDE_IN_VECTOR)

static void (*const hide_in_register[])(agent *, uintptr_t) = {WORLD_REGISTERS(HIDE) WORLD_VECTORS(HIDE)};

/* Of a thread that spins, and calls nothing. */
START_TEST(found_in_registers)
{
    if (WORLD_LATE) /* it would never get to where ThreadSanitizer lets it be stopped */
        return;
    for (size_t i = 0; i < sizeof hide_in_register / sizeof *hide_in_register; i++)
        hide_and_seek(hide_in_register[i], WORLD_STACK | WORLD_REGISTERS_SAVED, true);
}
END_TEST

/* What the calling thread has in those that a call preserves, whatever they are. */
START_TEST(own_registers_are_saved)
{
    static unsigned char registers[VMKI_OS_REGISTERS];
    for (int i = 0; i < WORLD_PRESERVED; i++) {
        uintptr_t hidden = (uintptr_t)vmki_os_random();
        memset(registers, 0, sizeof registers);
        world_save_with(i, hidden, registers);
        ck_assert_msg(world_has(registers, sizeof registers, hidden), "register %d", i);
    }
}
END_TEST

#endif

/* --- the rest -------------------------------------------------------------------------------------------------------
 */

static void note_call(void *argument)
{
    ++*(int *)argument;
    unsigned found = world_search_static((uintptr_t)argument); /* may be called within */
    (void)found;
}

START_TEST(with_libraries)
{
    int calls = 0;
    vmki_os_with_libraries(note_call, &calls);
    ck_assert_int_eq(calls, 1);
    ck_assert_uint_ge(vmki_os_processors(), 1);
}
END_TEST

/* Every range is aligned, and can be read. */
static void check_range(void *context, const void *base, size_t size)
{
    size_t *wrong = context;
    const unsigned char *bytes = base;
    *wrong += (uintptr_t)base % sizeof(void *) != 0 || size % sizeof(void *) != 0;
    for (size_t i = 0; i < size; i += 4096)
        *wrong += !support_readable(bytes + i);
    *wrong += size != 0 && !support_readable(bytes + size - 1);
}

START_TEST(ranges_are_aligned_and_readable)
{
    static agent self;
    size_t wrong = 0;
    memset(&self, 0, sizeof self);
    ck_assert(agent_enter(&self));
    vmki_os_static_data(check_range, &wrong);
    vmki_os_thread_data(&self.mutator, check_range, &wrong);
    vmki_os_stack_touched(self.mutator.stack_low, self.mutator.stack_high, check_range, &wrong);
    ck_assert_uint_eq(wrong, 0);
    agent_leave(&self);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("world");
    TCase *stop = tcase_create("stop");
    tcase_set_timeout(stop, 0);
    tcase_add_loop_test(stop, stops_whatever_it_does, 0, (int)(sizeof works / sizeof *works));
    tcase_add_test(stop, threads_come_and_go);
    tcase_add_test(stop, describe_unblocks);
    tcase_add_test(stop, ended_is_gone);
    suite_add_tcase(s, stop);
    TCase *find = tcase_create("find");
    tcase_set_timeout(find, 0);
    tcase_add_test(find, found_on_stack);
    tcase_add_test(find, found_in_static_data);
    tcase_add_test(find, found_in_thread_local_storage);
    tcase_add_test(find, found_of_the_calling_thread);
#if defined(WORLD_HAS_REGISTERS)
    tcase_add_test(find, found_in_registers);
    tcase_add_test(find, own_registers_are_saved);
#endif
    tcase_add_test(find, with_libraries);
    tcase_add_test(find, ranges_are_aligned_and_readable);
    suite_add_tcase(s, find);
    return s;
}

int main(int argc, char **argv)
{
    if (vmki_os_world_init(world_here, world_at_end) != VMK_OK)
        return 1;
    return support_main(argc, argv, suite(), NULL);
}
