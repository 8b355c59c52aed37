/* SPDX-License-Identifier: MIT
 *
 * What only Windows has of stopped threads and roots: slots, FLS, the system's thread-local storage and MinGW's, guard
 * pages; and that nothing of it waits for a lock which a stopped thread owns. See test_world.c for what all systems
 * have.
 */
#include "win32/os_world_private.h"

#include <process.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os_self.h"
#include "support.h"

#if defined(__MINGW32__) && __has_include(<pthread.h>)
#define MINGW_THREADS 1
#include <pthread.h>
#else
#define MINGW_THREADS 0
#endif

/* --- what is looked for ----------------------------------------------------------------------------------------- */

/* A word that nothing else has. It is kept as its complement, but for where it is to be found. */
static uintptr_t hidden;

static uintptr_t needle(void)
{
    return ~*(volatile uintptr_t *)&hidden;
}

typedef struct finding {
    const void *place; /* NULL: anywhere */
    size_t found;
    size_t bytes;
    bool unreadable;
} finding;

static void look(void *context, const void *base, size_t size)
{
    finding *all = context;
    const volatile uintptr_t *words = base;
    all->bytes += size;
    all->unreadable = all->unreadable || (uintptr_t)base % sizeof *words != 0 || size % sizeof *words != 0;
    for (size_t i = 0; i < size / sizeof *words; i++)
        all->found += words[i] == needle() && (all->place == NULL || all->place == (const void *)(words + i));
}

static void static_in_libraries(void *argument)
{
    vmki_os_static_data(look, argument);
}

static finding in_static_data(const void *place)
{
    finding all = {.place = place};
    vmki_os_with_libraries(static_in_libraries, &all);
    return all;
}

/* --- a thread to stop ------------------------------------------------------------------------------------------- */

typedef struct stopped {
    vmki_os_mutator mutator;
    void (*body)(struct stopped *self); /* sets `ready`, and returns soon after `leave` is set */
    volatile bool described;
    volatile bool ready;
    volatile bool leave;
    HANDLE thread;
    finding data;
    vmki_os_interrupted state;
} stopped;

static void wait_to_leave(stopped *self)
{
    self->ready = true;
    while (!self->leave)
        Sleep(1);
}

static unsigned __stdcall stopped_run(void *argument)
{
    stopped *self = argument;
    self->described = vmki_os_mutator_describe(&self->mutator) == VMK_OK;
    if (self->described)
        self->body(self);
    self->ready = true;
    return 0;
}

static void start(stopped *one, void (*body)(stopped *self))
{
    memset(one, 0, sizeof *one);
    one->body = body;
    one->thread = (HANDLE)_beginthreadex(NULL, 0, stopped_run, one, 0, NULL);
    ck_assert(one->thread != NULL);
    while (!one->ready)
        Sleep(1);
    ck_assert(one->described);
}

static void finish(stopped *one)
{
    one->leave = true;
    ck_assert(WaitForSingleObject(one->thread, INFINITE) == WAIT_OBJECT_0);
    CloseHandle(one->thread);
    ck_assert_int_eq(vmki_os_interrupt(&one->mutator), VMKI_OS_GONE);
    vmki_os_mutator_forget(&one->mutator);
}

static void stop_and_look(void *argument)
{
    stopped *one = argument;
    one->state = vmki_os_interrupt(&one->mutator);
    if (one->state != VMKI_OS_SUSPENDED)
        return;
    vmki_os_thread_data(&one->mutator, look, &one->data);
    vmki_os_resume(&one->mutator);
}

/* How often the needle is in the data of a thread that runs `body`. */
static size_t found_in(void (*body)(stopped *self))
{
    stopped one;
    start(&one, body);
    vmki_os_with_libraries(stop_and_look, &one);
    finish(&one);
    ck_assert_int_eq(one.state, VMKI_OS_SUSPENDED);
    ck_assert(!one.data.unreadable);
    return one.data.found;
}

static size_t ended_count;
static vmki_os_mutator *ended_last;

static void here_never(vmki_os_mutator *mutator, void *sp)
{
    (void)mutator, (void)sp;
    abort();
}

static void at_end(vmki_os_mutator *mutator)
{
    ended_count++;
    ended_last = vmki_os_mutator_self() == NULL ? mutator : NULL;
}

static void prepare(void)
{
    ck_assert_int_eq(vmki_os_world_init(here_never, at_end), VMK_OK);
    support_random random = support_random_start(77);
    hidden = (uintptr_t)support_random_next(&random) | 1;
}

/* --- thread-local storage --------------------------------------------------------------------------------------- */

static _Thread_local uintptr_t local_word;
static _Thread_local uintptr_t local_many[20000];
static _Thread_local _Alignas(64) uintptr_t local_aligned;

static void has_local_word(stopped *self)
{
    local_word = needle();
    wait_to_leave(self);
}

static void has_local_many(stopped *self)
{
    local_many[3] = needle();
    wait_to_leave(self);
}

static void has_local_last(stopped *self)
{
    local_many[19999] = needle();
    wait_to_leave(self);
}

static void has_local_aligned(stopped *self)
{
    local_aligned = needle();
    wait_to_leave(self);
}

static void has_nothing(stopped *self)
{
    local_word = 0;
    wait_to_leave(self);
}

START_TEST(compilers_variables)
{
    ck_assert_uint_eq(found_in(has_nothing), 0);
    ck_assert_uint_ge(found_in(has_local_word), 1);
    ck_assert_uint_ge(found_in(has_local_many), 1);
    ck_assert_uint_ge(found_in(has_local_last), 1);
    ck_assert_uint_ge(found_in(has_local_aligned), 1);
}
END_TEST

/* The end of a large one is out of reach then. */
START_TEST(compilers_variables_without_heaps)
{
    vmki_win32_heaps_forbid(true);
    ck_assert_uint_ge(found_in(has_local_word), 1);
    ck_assert_uint_ge(found_in(has_local_many), 1);
    ck_assert_uint_ge(found_in(has_local_aligned), 1);
    vmki_win32_heaps_forbid(false);
}
END_TEST

#ifdef __GNUC__
/* What MSVC would make of a _Thread_local variable: its value at the start, in a section that each thread has a copy
 * of. MinGW's start code describes the section to the loader. */
extern ULONG _tls_index;
extern char _tls_start;
static uintptr_t native __attribute__((section(".tls$M"), used)) = 1;

static void has_native(stopped *self)
{
    char **blocks = vmki_win32_teb_word((void *)self->mutator.system[VMKI_WIN32_THREAD_BLOCK], VMKI_TEB_TLS_BLOCKS);
    size_t at = (size_t)((uintptr_t)&native - (uintptr_t)&_tls_start);
    volatile uintptr_t *mine = (volatile uintptr_t *)(void *)(blocks[_tls_index] + at);
    if (*mine == 1)
        *mine = needle();
    wait_to_leave(self);
}

START_TEST(systems_variables)
{
    ck_assert_uint_ge(found_in(has_native), 1);
}
END_TEST
#endif

/* --- slots ------------------------------------------------------------------------------------------------------ */

static DWORD slot;

static void has_slot(stopped *self)
{
    TlsSetValue(slot, (void *)needle());
    wait_to_leave(self);
    TlsSetValue(slot, NULL);
}

/* Both kinds: those in the thread's environment block, and those beyond. */
START_TEST(slots)
{
    DWORD taken[200];
    for (int i = 0; i < 200; i++)
        ck_assert((taken[i] = TlsAlloc()) != TLS_OUT_OF_INDEXES);
    slot = taken[0];
    ck_assert_uint_eq(found_in(has_slot), 1);
    slot = taken[199];
    ck_assert_uint_ge(slot, 64);
    ck_assert_uint_eq(found_in(has_slot), 1);
    for (int i = 0; i < 200; i++)
        TlsFree(taken[i]);
}
END_TEST

static void has_block(stopped *self)
{
    uintptr_t *block = calloc(1000, sizeof *block);
    if (block != NULL)
        block[999] = needle();
    TlsSetValue(slot, block);
    wait_to_leave(self);
    TlsSetValue(slot, NULL);
    if (block != NULL)
        memset(block, 0, 1000 * sizeof *block);
    free(block);
}

START_TEST(blocks_of_slots)
{
    ck_assert((slot = TlsAlloc()) != TLS_OUT_OF_INDEXES);
    ck_assert_uint_ge(found_in(has_block), 1);
    TlsFree(slot);
}
END_TEST

static void has_fls(stopped *self)
{
    FlsSetValue(slot, (void *)needle());
    wait_to_leave(self);
    FlsSetValue(slot, NULL);
}

START_TEST(fls)
{
    DWORD taken[100];
    for (int i = 0; i < 100; i++)
        ck_assert((taken[i] = FlsAlloc(NULL)) != FLS_OUT_OF_INDEXES);
    slot = taken[0];
    ck_assert_uint_ge(found_in(has_fls), 1);
    slot = taken[99];
    ck_assert_uint_ge(found_in(has_fls), 1);
    for (int i = 0; i < 100; i++)
        FlsFree(taken[i]);
}
END_TEST

#if MINGW_THREADS
/* MinGW's POSIX threads keep values by key, in an array that a record has, which a slot has. */
static pthread_key_t key;

static void has_key(stopped *self)
{
    uintptr_t *block = calloc(100, sizeof *block);
    if (block != NULL)
        block[50] = needle();
    pthread_setspecific(key, block);
    wait_to_leave(self);
    pthread_setspecific(key, NULL);
    if (block != NULL)
        memset(block, 0, 100 * sizeof *block);
    free(block);
}

START_TEST(keys)
{
    pthread_key_t taken[20];
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(pthread_key_create(&taken[i], NULL), 0);
    key = taken[19];
    ck_assert_uint_ge(found_in(has_key), 1);
    for (int i = 0; i < 20; i++)
        pthread_key_delete(taken[i]);
}
END_TEST
#endif

/* --- slots with anything ---------------------------------------------------------------------------------------- */

enum { RUBBISH = 40, CIRCLES = 50 };
static DWORD rubbish_slots[RUBBISH];
static support_random rubbish_random;
static void **circles[CIRCLES];
static unsigned char *hole; /* pages that can't be read, between others that can */

static uintptr_t rubbish(void)
{
    uintptr_t value = (uintptr_t)support_random_next(&rubbish_random);
    switch (support_random_below(&rubbish_random, 7)) {
    case 0:
        return value;
    case 1:
        return value & ~(uintptr_t)0xfff;
    case 2:
        return (uintptr_t)hole + (value & 0x7ff8);
    case 3:
        return (uintptr_t)hole + (value & 0x7000);
    case 4:
        return (uintptr_t)&value + (value & 0xff0);
    case 5:
        return (uintptr_t)circles[value % CIRCLES] + (value >> 8 & 0x1f);
    default:
        return (uintptr_t)GetProcessHeap() + (value & 0xfff8);
    }
}

static void has_rubbish(stopped *self)
{
    for (int i = 0; i < RUBBISH; i++)
        TlsSetValue(rubbish_slots[i], (void *)rubbish());
    wait_to_leave(self);
    for (int i = 0; i < RUBBISH; i++)
        TlsSetValue(rubbish_slots[i], NULL);
}

static void rubbish_make(void)
{
    rubbish_random = support_random_start(5);
    for (int i = 0; i < RUBBISH; i++)
        ck_assert((rubbish_slots[i] = TlsAlloc()) != TLS_OUT_OF_INDEXES);
    hole = VirtualAlloc(NULL, 0x8000, MEM_RESERVE, PAGE_READWRITE);
    ck_assert(hole != NULL);
    for (size_t at = 0; at < 0x8000; at += 0x2000)
        ck_assert(VirtualAlloc(hole + at, 0x1000, MEM_COMMIT, at == 0x4000 ? PAGE_NOACCESS : PAGE_READWRITE) != NULL);
    for (size_t i = 0; i < CIRCLES; i++)
        ck_assert((circles[i] = calloc(64, sizeof *circles[i])) != NULL);
    for (size_t i = 0; i < CIRCLES; i++) /* each names all */
        for (size_t k = 0; k < CIRCLES; k++)
            circles[i][k] = circles[k];
}

START_TEST(slots_with_anything)
{
    rubbish_make();
    for (size_t round = 0; round < support_rounds(40); round++) {
        vmki_win32_heaps_forbid(round % 2 != 0);
        size_t found = found_in(has_rubbish);
        ck_assert(round % 2 != 0 || found == 0); /* without heaps stacks are taken for blocks, too */
    }
    vmki_win32_heaps_forbid(false);
    for (int i = 0; i < RUBBISH; i++)
        TlsFree(rubbish_slots[i]);
    for (size_t i = 0; i < CIRCLES; i++)
        free(circles[i]);
    VirtualFree(hole, 0, MEM_RELEASE);
}
END_TEST

/* --- stacks --------------------------------------------------------------------------------------- */

/* Most of a stack was never touched, and what has been ends in a page that guards. */
START_TEST(untouched_stack)
{
    volatile uintptr_t here = needle();
    vmki_os_mutator self;
    finding all = {.place = (const void *)&here};
    ck_assert_int_eq(vmki_os_mutator_describe(&self), VMK_OK);
    vmki_os_stack_touched(self.stack_low, self.stack_high, look, &all);
    ck_assert_uint_eq(all.found, 1);
    ck_assert(!all.unreadable);
    ck_assert_uint_le(all.bytes, (size_t)((char *)self.stack_high - (char *)self.stack_low));
    vmki_os_mutator_forget(&self);
    here = 0;
}
END_TEST

START_TEST(guarded_and_missing_pages)
{
    size_t page = vmk_page_size();
    unsigned char *base = VirtualAlloc(NULL, 8 * page, MEM_RESERVE, PAGE_READWRITE);
    ck_assert(base != NULL);
    ck_assert(VirtualAlloc(base + page, 2 * page, MEM_COMMIT, PAGE_READWRITE) != NULL);
    ck_assert(VirtualAlloc(base + 4 * page, page, MEM_COMMIT, PAGE_READWRITE | PAGE_GUARD) != NULL);
    ck_assert(VirtualAlloc(base + 5 * page, page, MEM_COMMIT, PAGE_NOACCESS) != NULL);
    ck_assert(VirtualAlloc(base + 6 * page, page, MEM_COMMIT, PAGE_READONLY) != NULL);
    finding all = {0};
    vmki_win32_visit_readable((uintptr_t)base + 1, (uintptr_t)base + 8 * page - 1, look, &all);
    ck_assert_uint_eq(all.bytes, 3 * page);
    MEMORY_BASIC_INFORMATION info;
    ck_assert(VirtualQuery(base + 4 * page, &info, sizeof info) != 0);
    ck_assert((info.Protect & PAGE_GUARD) != 0); /* it guards still */
    VirtualFree(base, 0, MEM_RELEASE);
}
END_TEST

/* --- static data ------------------------------------------------------------------------------------------------ */

enum { ROOM = 0x4000 };
static uintptr_t in_data[ROOM / sizeof(uintptr_t)] = {1};
static uintptr_t in_bss[ROOM / sizeof(uintptr_t)];

START_TEST(static_data)
{
    ck_assert_uint_eq(in_static_data(NULL).found, 0);
    in_data[5] = needle();
    ck_assert_uint_eq(in_static_data(&in_data[5]).found, 1);
    in_data[5] = 0;
    in_bss[ROOM / sizeof(uintptr_t) - 1] = needle();
    ck_assert_uint_eq(in_static_data(&in_bss[ROOM / sizeof(uintptr_t) - 1]).found, 1);
    in_bss[ROOM / sizeof(uintptr_t) - 1] = 0;
    ck_assert_uint_eq(in_static_data(NULL).found, 0);
}
END_TEST

/* Some of it may be protected. */
START_TEST(static_data_protected)
{
    size_t page = vmk_page_size();
    DWORD before, ignored;
    uintptr_t *inside = &in_bss[(page - (uintptr_t)in_bss % page) % page / sizeof(uintptr_t)];
    *inside = needle();
    ck_assert(VirtualProtect(inside, page, PAGE_READONLY, &before));
    ck_assert_uint_eq(in_static_data(inside).found, 1);
    ck_assert(VirtualProtect(inside, page, PAGE_NOACCESS, &ignored));
    ck_assert_uint_eq(in_static_data(inside).found, 0);
    ck_assert(VirtualProtect(inside, page, before, &ignored));
    ck_assert_uint_eq(in_static_data(inside).found, 1);
    *inside = 0;
}
END_TEST

/* Some programs wipe out the headers of their image. */
START_TEST(static_data_without_headers)
{
    unsigned char *image = (unsigned char *)GetModuleHandleW(NULL);
    DWORD before, ignored;
    in_data[7] = needle();
    ck_assert(VirtualProtect(image, vmk_page_size(), PAGE_READWRITE, &before));
    image[0] ^= 1;
    finding all = in_static_data(&in_data[7]);
    image[0] ^= 1;
    ck_assert(VirtualProtect(image, vmk_page_size(), before, &ignored));
    ck_assert_uint_eq(all.found, 1);
    in_data[7] = 0;
}
END_TEST

/* --- locks ------------------------------------------------------------------------------------------------------ */

enum { BUSY = 6 };
static stopped busy[BUSY];

/* In heaps, the loader and the C library most of the time. */
static void is_busy(stopped *self)
{
    unsigned number = (unsigned)(self - busy);
    self->ready = true;
    for (unsigned i = 0; !self->leave; i++) {
        void *block = malloc(16 + (i * 37 + number) % 3000);
        local_word = (uintptr_t)block;
        void *other = HeapAlloc(GetProcessHeap(), 0, 1 + i % 500);
        char text[40];
        snprintf(text, sizeof text, "%u %f", i, (double)number);
        if (number % 3 == 0 && i % 8 == 0) {
            HMODULE library = LoadLibraryW(L"version.dll");
            if (library != NULL)
                FreeLibrary(library);
        }
        if (number % 3 == 1)
            (void)GetProcAddress(GetModuleHandleW(L"kernel32.dll"), "CreateFileW");
        HeapFree(GetProcessHeap(), 0, other);
        free(block);
    }
}

static void stop_all(void *argument)
{
    finding *all = argument;
    bool all_stand = true;
    for (int i = 0; i < BUSY; i++)
        all_stand = (busy[i].state = vmki_os_interrupt(&busy[i].mutator)) == VMKI_OS_SUSPENDED && all_stand;
    vmki_os_static_data(look, all);
    for (int i = 0; i < BUSY; i++) {
        if (busy[i].state != VMKI_OS_SUSPENDED)
            continue;
        vmki_os_thread_data(&busy[i].mutator, look, all);
        uintptr_t sp = (uintptr_t)busy[i].mutator.sp & ~(uintptr_t)(sizeof(void *) - 1);
        if (sp < (uintptr_t)busy[i].mutator.stack_low || sp >= (uintptr_t)busy[i].mutator.stack_high)
            all->unreadable = true;
        else
            look(all, (void *)sp, (uintptr_t)busy[i].mutator.stack_high - sp);
    }
    for (int i = 0; i < BUSY; i++)
        if (busy[i].state == VMKI_OS_SUSPENDED)
            vmki_os_resume(&busy[i].mutator);
    all->unreadable = all->unreadable || !all_stand;
}

START_TEST(stopped_with_locks)
{
    finding all = {0};
    for (int i = 0; i < BUSY; i++)
        start(&busy[i], is_busy);
    for (size_t round = 0; round < support_rounds(100); round++)
        vmki_os_with_libraries(stop_all, &all);
    for (int i = 0; i < BUSY; i++)
        finish(&busy[i]);
    ck_assert(!all.unreadable);
}
END_TEST

/* --- ends ------------------------------------------------------------------------------------------------------- */

static void sets_itself(stopped *self)
{
    vmki_os_mutator_set(&self->mutator);
    if (vmki_os_mutator_self() == &self->mutator)
        wait_to_leave(self);
}

/* While it ends it can be found at any point of that. */
START_TEST(ends_while_being_interrupted)
{
    ended_count = 0;
    size_t rounds = support_rounds(30);
    for (size_t round = 0; round < rounds; round++) {
        stopped one;
        vmki_os_interrupted state;
        start(&one, sets_itself);
        one.leave = true;
        while ((state = vmki_os_interrupt(&one.mutator)) != VMKI_OS_GONE) {
            ck_assert_int_eq(state, VMKI_OS_SUSPENDED);
            vmki_os_resume(&one.mutator);
        }
        finish(&one);
        ck_assert_uint_eq(ended_count, round + 1);
        ck_assert(ended_last == &one.mutator);
    }
    ck_assert(vmki_os_mutator_self() == NULL);
}
END_TEST

START_TEST(facts)
{
    void *low = NULL, *high = NULL;
    ck_assert(!vmki_os_alternate_stack(&low, &high));
    ck_assert_uint_ge(vmki_os_processors(), 1);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("world_win32");
    TCase *tests = tcase_create("world_win32");
    tcase_set_timeout(tests, 300);
    tcase_add_unchecked_fixture(tests, prepare, NULL);
    tcase_add_test(tests, compilers_variables);
    tcase_add_test(tests, compilers_variables_without_heaps);
    tcase_add_test(tests, slots);
    tcase_add_test(tests, blocks_of_slots);
    tcase_add_test(tests, fls);
#if MINGW_THREADS
    tcase_add_test(tests, keys);
#endif
    tcase_add_test(tests, slots_with_anything);
#ifdef __GNUC__
    tcase_add_test(tests, systems_variables);
#endif
    tcase_add_test(tests, untouched_stack);
    tcase_add_test(tests, guarded_and_missing_pages);
    tcase_add_test(tests, static_data);
    tcase_add_test(tests, static_data_protected);
    tcase_add_test(tests, static_data_without_headers);
    tcase_add_test(tests, stopped_with_locks);
    tcase_add_test(tests, ends_while_being_interrupted);
    tcase_add_test(tests, facts);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
