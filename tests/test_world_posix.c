/* SPDX-License-Identifier: MIT
 *
 * What POSIX alone has: system calls that a signal interrupts, alternate stacks, keys, libraries that are loaded late.
 */
#include "posix/os_world_private.h"

#include <dlfcn.h>
#include <sys/wait.h>

#include "world.h"

enum { ROUNDS = 10 };

/* One agent does something, `examine` looks at it. */
typedef struct scene {
    agent a;
    void (*act)(agent *self);
    bool (*examine)(agent *a);
    bool entered, good;
} scene;

static scene the_scene;
static uintptr_t the_hidden; /* the complement of the secret */

static void scene_body(void *argument, unsigned number)
{
    scene *s = argument;
    if (number == 0) {
        s->good = s->examine(&s->a);
        return;
    }
    s->entered = agent_enter(&s->a);
    s->act(&s->a);
    agent_leave(&s->a);
}

static void play(void (*act)(agent *self), bool (*examine)(agent *a))
{
    memset(&the_scene, 0, sizeof the_scene);
    the_scene.act = act;
    the_scene.examine = examine;
    the_hidden = (uintptr_t)vmki_os_random();
    support_threads(2, scene_body, &the_scene);
    ck_assert(the_scene.entered);
    ck_assert(the_scene.good);
}

static bool found_at(agent *a, uintptr_t point, unsigned where, bool there)
{
    agent_await(a, point);
    if (!agent_stop(a))
        return false;
    unsigned found = agent_search(a, the_hidden);
    agent_resume(a);
    agent_go_on(a, point);
    return there ? (found & where) != 0 : (found & where) == 0;
}

/* --- in system calls ------------------------------------------------------------------------------------------------
 */

static int ends[2]; /* of a pipe */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t wrong;

static void nap(long milliseconds)
{
    struct timespec time = {0, milliseconds * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

/* Stopped several times within something that lasts until `let` lets it end. */
static bool stops(agent *a)
{
    agent_await(a, 1);
    for (int i = 0; i < 5; i++) {
        nap(2);
        if (!agent_stop(a))
            return false;
        if (VMKI_LOAD(&a->here) != 1)
            return false; /* what it waits in has ended */
        agent_resume(a);
    }
    return true;
}

static void act_read(agent *self)
{
    char byte = 0;
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    wrong += read(ends[0], &byte, 1) != 1 || byte != 'x';
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)2);
}

static bool examine_read(agent *a)
{
    bool good = stops(a);
    return write(ends[1], "x", 1) == 1 && good;
}

static void act_mutex(agent *self)
{
    while (VMKI_LOAD(&self->on) == 0) /* it is held */
        vmki_os_yield();
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    wrong += pthread_mutex_lock(&mutex) != 0;
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)2);
    wrong += pthread_mutex_unlock(&mutex) != 0;
}

static bool examine_mutex(agent *a)
{
    if (pthread_mutex_lock(&mutex) != 0)
        return false;
    agent_go_on(a, 1);
    bool good = stops(a);
    return pthread_mutex_unlock(&mutex) == 0 && good;
}

/* All signals but one are waited for: this one is not among them. */
static void act_sigwait(agent *self)
{
    sigset_t set;
    int got = 0;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    while (sigwait(&set, &got) == EINTR)
        ;
    wrong += got != SIGUSR1;
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)2);
}

static bool examine_sigwait(agent *a)
{
    bool good = stops(a);
    return pthread_kill((pthread_t)a->mutator.system[VMKI_POSIX_THREAD], SIGUSR1) == 0 && good;
}

/* Interrupted, it says how much is left: no less than that has passed in all. */
static void act_nanosleep(agent *self)
{
    uint64_t start = vmki_os_clock();
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    nap(500);
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)2);
    wrong += vmki_os_clock() - start < 490000000;
}

static bool examine_nanosleep(agent *a)
{
    agent_await(a, 1);
    for (int i = 0; i < 3; i++) {
        if (!agent_stop(a))
            return false;
        agent_resume(a);
    }
    return true;
}

START_TEST(stops_in_system_calls)
{
    wrong = 0;
    ck_assert_int_eq(pipe(ends), 0);
    play(act_read, examine_read);
    play(act_mutex, examine_mutex);
    play(act_sigwait, examine_sigwait);
    play(act_nanosleep, examine_nanosleep);
    ck_assert_uint_eq(wrong, 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
}
END_TEST

/* It is stopped when it has unblocked the signal, and not before. */
static void act_blocked(agent *self)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    nap(250);
    wrong += VMKI_LOAD(&self->standing) != 0;
    self->count = 1;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    agent_meet(self, 2);
}

static bool examine_blocked(agent *a)
{
    agent_await(a, 1);
    bool stopped = agent_stop(a), late = a->count == 1;
    agent_resume(a);
    agent_go_on(a, 2);
    return stopped && late;
}

START_TEST(stops_when_unblocked)
{
    wrong = 0;
    play(act_blocked, examine_blocked);
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* Nothing of what it uses is changed by a stop: errno, numbers, flags. */
static void act_careful(agent *self)
{
    volatile double x = 1.5;
    errno = 4711;
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    while (VMKI_LOAD(&self->on) == 0) {
        double before = x, product = 1;
        for (int i = 1; i < 20; i++)
            product *= before;
        wrong += !(product > 2216.8 && product < 2216.9); /* 1.5^19 */
        self->count++;
        wrong += errno != 4711;
    }
}

static bool examine_careful(agent *a)
{
    bool good = true;
    agent_await(a, 1);
    for (size_t i = 0; i < 2 * support_rounds(ROUNDS); i++) {
        good = agent_stop(a) && good;
        agent_resume(a);
    }
    agent_go_on(a, 1);
    return good;
}

START_TEST(changes_nothing)
{
    wrong = 0;
    play(act_careful, examine_careful);
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* --- alternate stacks -----------------------------------------------------------------------------------------------
 */

static agent *on_alternate;

static void on_user_signal(int signal)
{
    volatile uintptr_t secret = ~the_hidden;
    (void)signal;
    agent_meet(on_alternate, 1);
    secret = 0;
    if (secret != 0)
        wrong++;
}

static WORLD_NOINLINE void raise_below(void)
{
    volatile uintptr_t secret = ~the_hidden - 1; /* on the thread's own stack */
    (void)raise(SIGUSR2);
    secret = 0;
    if (secret != 0)
        wrong++;
}

static void act_alternate(agent *self)
{
    static unsigned char room[100000];
    stack_t stack = {.ss_sp = room, .ss_size = sizeof room}, none = {.ss_flags = SS_DISABLE};
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_user_signal;
    action.sa_flags = SA_ONSTACK;
    on_alternate = self;
    wrong += sigaltstack(&stack, NULL) != 0 || sigaction(SIGUSR2, &action, &before) != 0;
    raise_below();
    (void)sigaction(SIGUSR2, &before, NULL);
    (void)sigaltstack(&none, NULL);
    agent_meet(self, 2);
}

/* The thread's own stack is searched too, from whichever point. */
static bool examine_alternate(agent *a)
{
    agent_await(a, 1);
    if (!agent_stop(a))
        return false;
    bool on_it = a->alternate_low != NULL && a->sp >= a->alternate_low && a->sp < a->alternate_high;
    bool there = (agent_search(a, the_hidden) & WORLD_STACK) != 0;
    bool own = (agent_search(a, the_hidden + 1) & WORLD_TOUCHED) != 0;
    agent_resume(a);
    agent_go_on(a, 1);
    agent_await(a, 2);
    bool off_it = agent_stop(a) && a->alternate_low == NULL;
    agent_resume(a);
    agent_go_on(a, 2);
    return on_it && there && own && off_it;
}

START_TEST(alternate_stack)
{
    wrong = 0;
    play(act_alternate, examine_alternate);
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* --- registers ------------------------------------------------------------------------------------------------------
 */

#if defined(__x86_64__)

static void act_upper_half(agent *self)
{
    uintptr_t hidden = the_hidden;
    __asm__ volatile("notq %0\n\t"
                     "vmovq %0, %%xmm3\n\t"
                     "vinsertf128 $1, %%xmm3, %%ymm3, %%ymm3\n\t"
                     "vxorps %%xmm4, %%xmm4, %%xmm4\n\t"
                     "vinsertf128 $0, %%xmm4, %%ymm3, %%ymm3\n\t"
                     "notq %0\n\t"
                     "movl $1, (%1)\n\t"
                     "1: pause\n\t"
                     "cmpl $0, (%2)\n\t"
                     "je 1b\n\t"
                     "vzeroupper"
                     : "+a"(hidden)
                     : "c"(&self->here), "d"(&self->on)
                     : "memory", "cc", "xmm3", "xmm4");
    agent_meet(self, 2);
}

static bool examine_upper_half(agent *a)
{
    bool there = found_at(a, 1, WORLD_STACK, true);
    return found_at(a, 2, 0, false) && there;
}

START_TEST(upper_half_of_a_vector)
{
    if (!__builtin_cpu_supports("avx") || WORLD_LATE)
        return;
    play(act_upper_half, examine_upper_half);
}
END_TEST

#endif

/* --- keys -----------------------------------------------------------------------------------------------------------
 */

static pthread_key_t key_now;

static void act_key(agent *self)
{
    wrong += pthread_setspecific(key_now, (void *)~the_hidden) != 0;
    agent_meet(self, 1);
    wrong += pthread_setspecific(key_now, NULL) != 0;
    agent_meet(self, 2);
}

static bool examine_key(agent *a)
{
    bool there = found_at(a, 1, WORLD_THREAD, true);
    return found_at(a, 2, WORLD_THREAD, false) && there;
}

/* glibc keeps the first 32 elsewhere than the others. */
START_TEST(values_by_key)
{
    pthread_key_t keys[100];
    size_t count = 0;
    wrong = 0;
    while (count < sizeof keys / sizeof *keys && pthread_key_create(&keys[count], NULL) == 0)
        count++;
    ck_assert_uint_gt(count, 50);
    for (size_t i = 0; i < count; i += i == 0 || i == count - 2 ? 1 : count - 2) {
        static agent self;
        key_now = keys[i];
        play(act_key, examine_key);
        memset(&self, 0, sizeof self); /* the main thread too */
        ck_assert(agent_enter(&self));
        ck_assert_int_eq(pthread_setspecific(key_now, (void *)~the_hidden), 0);
        ck_assert_uint_ne(world_search_thread(&self.mutator, the_hidden), 0);
        ck_assert_int_eq(pthread_setspecific(key_now, NULL), 0);
        ck_assert_uint_eq(world_search_thread(&self.mutator, the_hidden), 0);
        agent_leave(&self);
    }
    ck_assert_uint_eq(wrong, 0);
    while (count > 0)
        (void)pthread_key_delete(keys[--count]);
}
END_TEST

/* --- libraries ------------------------------------------------------------------------------------------------------
 */

typedef struct library {
    void *handle;
    void (*put)(uintptr_t secret);
    void (*put_thread)(uintptr_t secret);
} library;

static library the_library;

static bool library_open(library *l, const char *path)
{
    l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (l->handle == NULL)
        return false;
    *(void **)(void *)&l->put = dlsym(l->handle, "world_library_put");
    *(void **)(void *)&l->put_thread = dlsym(l->handle, "world_library_put_thread");
    return l->put != NULL && l->put_thread != NULL;
}

static unsigned own_place; /* where else threads may have their storage */

static void act_library(agent *self)
{
    the_library.put(~the_hidden);
    agent_meet(self, 1);
    the_library.put(0);
    agent_meet(self, 2);
    the_library.put_thread(~the_hidden);
    agent_meet(self, 3);
    the_library.put_thread(0);
    agent_meet(self, 4);
}

static bool examine_library(agent *a)
{
    bool good = found_at(a, 1, WORLD_STATIC, true);
    good = found_at(a, 2, WORLD_STATIC, false) && good;
    good = found_at(a, 3, WORLD_THREAD | own_place, true) && good;
    return found_at(a, 4, WORLD_THREAD, false) && good;
}

START_TEST(library_loaded_late)
{
    static const char *const paths[] = {WORLD_LIBRARY, WORLD_LIBRARY_FIXED};
    static agent self;
    own_place = _i == 0 ? 0 : WORLD_STACK;
    ck_assert(library_open(&the_library, paths[_i]));
    play(act_library, examine_library);
    memset(&self, 0, sizeof self);
    ck_assert(agent_enter(&self));
    the_library.put_thread(~the_hidden);
    ck_assert_uint_ne(world_search_thread(&self.mutator, the_hidden), 0);
    the_library.put_thread(0);
    ck_assert_uint_eq(world_search_thread(&self.mutator, the_hidden), 0);
    agent_leave(&self);
    ck_assert_int_eq(dlclose(the_library.handle), 0);
}
END_TEST

/* It comes and goes while all is searched, with a thread's storage in it. */
static void act_coming_and_going(agent *self)
{
    library l;
    while (VMKI_LOAD(&self->on) == 0) {
        if (!library_open(&l, WORLD_LIBRARY)) {
            wrong++;
            break;
        }
        l.put(~the_hidden);
        l.put_thread(~the_hidden);
        wrong += dlclose(l.handle) != 0;
        self->count++;
        (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
    }
    (void)VMKI_EXCHANGE(&self->here, (uintptr_t)1);
}

/* The loader's lock is held before the thread is stopped. */
static void stop_and_search(void *argument)
{
    agent *a = argument;
    if (!agent_stop(a)) {
        wrong++;
        return;
    }
    (void)world_search_static(the_hidden);
    (void)world_search_thread(&a->mutator, the_hidden);
    agent_resume(a);
}

static bool examine_coming_and_going(agent *a)
{
    agent_await(a, 1);
    for (size_t i = 0; i < 3 * support_rounds(ROUNDS); i++)
        vmki_os_with_libraries(stop_and_search, a);
    agent_go_on(a, 1);
    return true;
}

START_TEST(libraries_come_and_go)
{
    wrong = 0;
    play(act_coming_and_going, examine_coming_and_going);
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* --- pages that can't be read ---------------------------------------------------------------------------------------
 */

static _Alignas(65536) volatile unsigned char guarded[3 * 65536];

START_TEST(guard_in_static_data)
{
    size_t page = vmk_capabilities()->page_size;
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    volatile uintptr_t *last = (volatile uintptr_t *)(uintptr_t)&guarded[2 * 65536];
    ck_assert_int_eq(mprotect((void *)(uintptr_t)&guarded[65536], page, PROT_NONE), 0);
    *last = ~hidden;
    ck_assert_uint_eq(world_search_static(hidden), 1);
    *last = 0;
    ck_assert_uint_eq(world_search_static(hidden), 0);
    ck_assert_int_eq(mprotect((void *)(uintptr_t)&guarded[65536], page, PROT_READ | PROT_WRITE), 0);
}
END_TEST

/* --- fork -----------------------------------------------------------------------------------------------------------
 */

static agent forked;

/* In the child: the thread that forked is stopped by another. */
static void stop_forked(void *argument)
{
    *(bool *)argument = agent_stop(&forked);
    agent_resume(&forked);
}

START_TEST(child_of_a_fork)
{
    int how = 0;
    memset(&forked, 0, sizeof forked);
    ck_assert(agent_enter(&forked));
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        bool stopped = false;
        vmki_os_thread thread;
        if (vmki_os_thread_start(&thread, stop_forked, &stopped) != VMK_OK)
            _exit(2);
        vmki_os_thread_join(&thread);
        _exit(stopped ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert(WIFEXITED(how));
    ck_assert_int_eq(WEXITSTATUS(how), 0);
    agent_leave(&forked);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("world_posix");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0);
    tcase_add_test(all, stops_in_system_calls);
    tcase_add_test(all, stops_when_unblocked);
    tcase_add_test(all, changes_nothing);
    if (!WORLD_LATE) /* which runs the program's handlers with all signals blocked */
        tcase_add_test(all, alternate_stack);
#if defined(__x86_64__)
    tcase_add_test(all, upper_half_of_a_vector);
#endif
    tcase_add_test(all, values_by_key);
    tcase_add_loop_test(all, library_loaded_late, 0, 2);
    tcase_add_test(all, libraries_come_and_go);
    tcase_add_test(all, guard_in_static_data);
    if (!WORLD_LATE) /* which allows no threads in the child of a process that has had some */
        tcase_add_test(all, child_of_a_fork);
    suite_add_tcase(s, all);
    return s;
}

int main(int argc, char **argv)
{
    if (vmki_os_world_init(world_here, world_at_end) != VMK_OK)
        return 1;
    return support_main(argc, argv, suite(), NULL);
}
