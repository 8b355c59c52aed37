/* SPDX-License-Identifier: MIT
 *
 * Threads and time.
 */
#include "os_private.h"

#include "os_self.h"

/* Whole seconds and the rest apart: the product would overflow after some days. The frequency is fixed from the start
 * and well below 2^34. */
uint64_t vmki_os_clock(void)
{
    const uint64_t second = 1000000000;
    LARGE_INTEGER frequency;
    LARGE_INTEGER ticks;
    QueryPerformanceFrequency(&frequency); /* neither can fail since Windows XP */
    QueryPerformanceCounter(&ticks);
    uint64_t per_second = (uint64_t)frequency.QuadPart;
    uint64_t count = (uint64_t)ticks.QuadPart;
    return count / per_second * second + count % per_second * second / per_second;
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

/* Enough for calls of the system and of vmkit. It is a reservation; without the flag it would be committed, and the
 * reservation as large as the program's own stack. */
#define STACK_SIZE ((SIZE_T)64 << 10)

/* What a thread is told. It lives on the stack of who starts it, until `taken`. */
typedef struct errand {
    void (*body)(void *argument);
    void *argument;
    HANDLE taken;
} errand;

static DWORD WINAPI thread_run(LPVOID argument)
{
    errand given = *(errand *)argument;
    SetEvent(given.taken);
    given.body(given.argument);
    return 0;
}

vmk_status vmki_os_thread_start(vmki_os_thread *thread, void (*body)(void *argument), void *argument)
{
    errand given = {body, argument, CreateEventW(NULL, TRUE, FALSE, NULL)};
    if (given.taken == NULL)
        return VMK_ERR_COMMIT;
    HANDLE started = CreateThread(NULL, STACK_SIZE, thread_run, &given, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    DWORD error = GetLastError();
    if (started != NULL)
        WaitForSingleObject(given.taken, INFINITE);
    CloseHandle(given.taken);
    if (started == NULL) {
        SetLastError(error);
        return VMK_ERR_COMMIT;
    }
    thread->handle = (uintptr_t)started;
    return VMK_OK;
}

void vmki_os_thread_join(vmki_os_thread *thread)
{
    HANDLE handle = (HANDLE)thread->handle;
    WaitForSingleObject(handle, INFINITE);
    CloseHandle(handle);
}

uintptr_t vmki_os_thread_id(void)
{
    return GetCurrentThreadId();
}

void vmki_os_yield(void)
{
    SwitchToThread();
}

/* --- a pointer of each thread's own ----------------------------------------------------------------------------- */

unsigned long vmki_win32_self_slot = TLS_OUT_OF_INDEXES;

static DWORD self_watch = FLS_OUT_OF_INDEXES; /* the kind of slot whose callback is called when a thread ends */
static void (*self_at_end)(void *self);

static VOID WINAPI self_end(PVOID self)
{
    if (self == NULL)
        return;
    TlsSetValue(vmki_win32_self_slot, NULL);
    self_at_end(self);
}

vmk_status vmki_win32_slot_make(unsigned long *slot, DWORD *watch, PFLS_CALLBACK_FUNCTION at_end)
{
    DWORD made = TlsAlloc();
    if (made == TLS_OUT_OF_INDEXES)
        return VMK_ERR_COMMIT;
    *watch = FlsAlloc(at_end);
    if (*watch == FLS_OUT_OF_INDEXES) {
        DWORD error = GetLastError();
        TlsFree(made);
        SetLastError(error);
        return VMK_ERR_COMMIT;
    }
    __atomic_store_n(slot, made, __ATOMIC_RELEASE);
    return VMK_OK;
}

void *vmki_win32_slot_ask(const unsigned long *slot)
{
    if (*slot == TLS_OUT_OF_INDEXES)
        return NULL;
    DWORD error = GetLastError();
    void *value = TlsGetValue(*slot);
    SetLastError(error);
    return value;
}

vmk_status vmki_os_self_init(void (*at_end)(void *self))
{
    self_at_end = at_end;
    return vmki_win32_slot_make(&vmki_win32_self_slot, &self_watch, self_end);
}

/* Without memory for it the thread's end is not told. */
void vmki_os_self_set(void *self)
{
    TlsSetValue(vmki_win32_self_slot, self);
    FlsSetValue(self_watch, self);
}

void *vmki_win32_self_ask(void)
{
    return vmki_win32_slot_ask(&vmki_win32_self_slot);
}
