/* SPDX-License-Identifier: MIT
 *
 * The suites' support on Windows, and under Wine.
 *
 * Under Wine a crash has been seen to end a process with code 0, when Wine's debugger was started for it; so a process
 * that crashes ends itself here, with a code of its own. Exit codes of a process that Wine ran arrive as their low 8
 * bits at whoever started it outside.
 */
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0601
#endif
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#define PSAPI_VERSION 2 /* QueryWorkingSetEx as kernel32 has it since Windows 7: no psapi.dll */
#include <psapi.h>

#include <process.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "support_private.h"

#define MAX_THREADS 64
#define CODE_CRASH 99
#define CODE_ABORT 3 /* the C library's, for abort() */

static void require(BOOL condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s: error %lu\n", what, GetLastError());
        fflush(stderr);
        TerminateProcess(GetCurrentProcess(), CODE_CRASH);
    }
}

/* --- ending ----------------------------------------------------------------------------------------------------- */

static LONG WINAPI crash(EXCEPTION_POINTERS *what)
{
    fprintf(stderr, "crash: exception %08lx at %p\n", what->ExceptionRecord->ExceptionCode,
            what->ExceptionRecord->ExceptionAddress);
    fflush(stderr);
    TerminateProcess(GetCurrentProcess(), CODE_CRASH);
    return EXCEPTION_EXECUTE_HANDLER;
}

/* abort() raises this first, and only then, if anybody comes back, tells the user in a box. */
static void __cdecl aborted(int signal_number)
{
    (void)signal_number;
    TerminateProcess(GetCurrentProcess(), CODE_ABORT);
}

void support_prepare(const char *program)
{
    (void)program;
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX);
    SetUnhandledExceptionFilter(crash);
    signal(SIGABRT, aborted);
}

/* --- bytes ------------------------------------------------------------------------------------------------------ */

static DWORD protection_at(const void *address)
{
    MEMORY_BASIC_INFORMATION info;
    if (VirtualQuery(address, &info, sizeof info) == 0 || info.State != MEM_COMMIT || (info.Protect & PAGE_GUARD) != 0)
        return PAGE_NOACCESS;
    return info.Protect & 0xffu; /* without the bits on caching */
}

bool support_readable(const void *address)
{
    DWORD protection = protection_at(address);
    return protection != PAGE_NOACCESS && protection != PAGE_EXECUTE;
}

bool support_writable(void *address)
{
    DWORD writable = PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
    return (protection_at(address) & writable) != 0;
}

/* --- ranges ----------------------------------------------------------------------------------------------------- */

static size_t resident_in(uintptr_t low, uintptr_t high)
{
    PSAPI_WORKING_SET_EX_INFORMATION pages[256];
    SYSTEM_INFO system;
    size_t resident = 0;
    GetSystemInfo(&system);
    while (low < high) {
        size_t count = 0;
        for (; count < 256 && low < high; count++, low += system.dwPageSize)
            pages[count].VirtualAddress = (void *)low;
        if (!QueryWorkingSetEx(GetCurrentProcess(), pages, (DWORD)(count * sizeof *pages)))
            continue;
        for (size_t i = 0; i < count; i++)
            resident += pages[i].VirtualAttributes.Valid ? system.dwPageSize : 0;
    }
    return resident;
}

/* Walk through the runs of equal pages that have something of the range. The end of the address space ends it, too. */
static size_t walk(const void *base, size_t size, support_figures *figures)
{
    uintptr_t at = (uintptr_t)base, limit = size > UINTPTR_MAX - at ? UINTPTR_MAX : at + size;
    size_t runs = 0;
    DWORD last = MEM_FREE; /* Wine tells what was decommitted apart from what was never committed: the same to us */
    while (at < limit) {
        MEMORY_BASIC_INFORMATION info;
        if (VirtualQuery((void *)at, &info, sizeof info) == 0)
            break;
        uintptr_t end = (uintptr_t)info.BaseAddress + info.RegionSize;
        if (end <= at)
            break;
        uintptr_t high = end < limit ? end : limit;
        DWORD kind = info.State == MEM_COMMIT ? MEM_COMMIT | info.Protect : info.State;
        runs += kind != MEM_FREE && kind != last;
        last = kind;
        figures->reserved += info.State != MEM_FREE ? high - at : 0;
        figures->committed += info.State == MEM_COMMIT ? high - at : 0;
        figures->resident += info.State == MEM_COMMIT ? resident_in(at, high) : 0;
        at = end;
    }
    return runs;
}

bool support_system_figures(const void *base, size_t size, support_figures *figures)
{
    support_figures sum = {0};
    (void)walk(base, size, &sum);
    *figures = sum;
    return true;
}

size_t support_mappings(const void *base, size_t size)
{
    support_figures sum = {0};
    return walk(base, size, &sum);
}

bool support_named(const void *address, const char *name)
{
    (void)address, (void)name;
    return true;
}

/* --- files ------------------------------------------------------------------------------------------------------ */

size_t support_handles(void)
{
    DWORD count = 0;
    return GetProcessHandleCount(GetCurrentProcess(), &count) && count != 0 ? count : SIZE_MAX;
}

void support_path(char path[SUPPORT_PATH])
{
    static unsigned count;
    snprintf(path, SUPPORT_PATH, "support-%lu-%u.tmp", GetCurrentProcessId(), count++);
}

void support_remove(const char *path)
{
    wchar_t wide[SUPPORT_PATH];
    if (MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, SUPPORT_PATH) > 0)
        DeleteFileW(wide);
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

typedef struct team {
    void (*body)(void *argument, unsigned number);
    void *argument;
    HANDLE gate; /* an event, set when all are there, so that they start together */
} team;

typedef struct member {
    HANDLE thread;
    team *team;
    unsigned number;
} member;

static unsigned __stdcall member_run(void *argument)
{
    member *self = argument;
    WaitForSingleObject(self->team->gate, INFINITE);
    self->team->body(self->team->argument, self->number);
    return 0;
}

void support_threads(unsigned count, void (*body)(void *argument, unsigned number), void *argument)
{
    member members[MAX_THREADS];
    team all = {body, argument, CreateEventA(NULL, TRUE, FALSE, NULL)};
    require(count <= MAX_THREADS, "more threads than this support has room for");
    require(all.gate != NULL, "CreateEvent");
    for (unsigned i = 0; i < count; i++) {
        members[i].team = &all;
        members[i].number = i;
        members[i].thread = (HANDLE)_beginthreadex(NULL, 0, member_run, &members[i], 0, NULL);
        require(members[i].thread != NULL, "_beginthreadex");
    }
    SetEvent(all.gate);
    for (unsigned i = 0; i < count; i++) {
        WaitForSingleObject(members[i].thread, INFINITE);
        CloseHandle(members[i].thread);
    }
    CloseHandle(all.gate);
}

void support_yield(void)
{
    SwitchToThread();
}

/* --- children --------------------------------------------------------------------------------------------------- */

typedef struct text {
    char *at;
    size_t length, size;
} text;

static void text_add(text *to, char c)
{
    require(to->length + 1 < to->size, "the child's command line is too long for this support");
    to->at[to->length++] = c;
    to->at[to->length] = '\0';
}

/* In quotes, by the rules that the C library's start-up code takes command lines apart with: a quote takes a backslash
 * before it, and backslashes are doubled where a quote follows them. */
static void text_add_argument(text *to, const char *argument)
{
    size_t backslashes = 0;
    text_add(to, '"');
    for (; *argument != '\0'; argument++) {
        for (size_t i = 0; *argument == '"' && i <= backslashes; i++)
            text_add(to, '\\');
        backslashes = *argument == '\\' ? backslashes + 1 : 0;
        text_add(to, *argument);
    }
    for (size_t i = 0; i < backslashes; i++)
        text_add(to, '\\');
    text_add(to, '"');
}

/* Under load the wineserver has been seen to lose a process before it had started, which Windows would call an internal
 * error. That says nothing about the test, so it is tried again. */
static HANDLE create_process(const char *program, char *line, STARTUPINFOA *start)
{
    PROCESS_INFORMATION child;
    bool created;
    int attempts = 0;
    do {
        if (attempts > 0)
            Sleep(1000);
        created = CreateProcessA(program, line, NULL, NULL, TRUE, 0, NULL, NULL, start, &child);
    } while (!created && GetLastError() == ERROR_INTERNAL_ERROR && ++attempts < 5);
    require(created, "CreateProcess");
    CloseHandle(child.hThread);
    return child.hProcess;
}

static HANDLE start_child(const char *const *arguments, HANDLE output)
{
    char program[MAX_PATH], line[4096] = "";
    text command = {line, 0, sizeof line};
    DWORD length = GetModuleFileNameA(NULL, program, sizeof program);
    require(length != 0 && length < sizeof program, "GetModuleFileName");
    text_add_argument(&command, program);
    for (; *arguments != NULL; arguments++) {
        text_add(&command, ' ');
        text_add_argument(&command, *arguments);
    }
    STARTUPINFOA start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    start.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    start.hStdOutput = start.hStdError = output;
    require(SetEnvironmentVariableA(SUPPORT_CHILD_MARK, "1"), "SetEnvironmentVariable");
    HANDLE child = create_process(program, line, &start);
    require(SetEnvironmentVariableA(SUPPORT_CHILD_MARK, NULL), "SetEnvironmentVariable");
    return child;
}

/* All that comes until the other end is closed; what does not fit is read too, lest the child wait. */
static void collect(HANDLE from, char *output, size_t size)
{
    char rest[256];
    size_t length = 0;
    for (;;) {
        bool room = length + 1 < size;
        DWORD got;
        if (!ReadFile(from, room ? output + length : rest, room ? (DWORD)(size - 1 - length) : (DWORD)sizeof rest, &got,
                      NULL) ||
            got == 0)
            break;
        length += room ? got : 0;
    }
    if (size != 0)
        output[length] = '\0';
}

support_end support_run_self(const char *const *arguments, char *output, size_t size)
{
    SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
    HANDLE from, to;
    DWORD code;
    fflush(NULL);
    require(CreatePipe(&from, &to, &inherited, 0), "CreatePipe");
    require(SetHandleInformation(from, HANDLE_FLAG_INHERIT, 0), "SetHandleInformation");
    HANDLE child = start_child(arguments, to);
    CloseHandle(to);
    collect(from, output, size);
    CloseHandle(from);
    WaitForSingleObject(child, INFINITE);
    require(GetExitCodeProcess(child, &code), "GetExitCodeProcess");
    CloseHandle(child);
    bool crashed = code == CODE_CRASH || code == CODE_ABORT || code >= 0x80000000u;
    support_end end = {.crashed = crashed, .code = crashed ? 0 : (int)code};
    return end;
}

void *support_library_open(const char *path)
{
    return LoadLibraryA(path);
}

support_symbol *support_library_symbol(void *library, const char *name)
{
    return (support_symbol *)(uintptr_t)GetProcAddress(library, name);
}

void support_library_close(void *library)
{
    require(FreeLibrary(library), "FreeLibrary");
}
