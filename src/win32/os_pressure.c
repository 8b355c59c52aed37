/* SPDX-License-Identifier: MIT
 *
 * Memory pressure: what is left, and who tells.
 *
 * GlobalMemoryStatusEx tells of the commit limit ("of the system or the process, whichever is smaller") and of memory.
 * A job object limits what its processes commit, each by itself and all together. What all together have now is told
 * from Windows 10 on; before, what this process has is counted, so that there may be less than is said.
 *
 * Of a shortage the system tells by an object that is signalled for as long as it lasts: it is waited for while it is
 * not, and asked when the time is over while it is. Wine has the object, and never signals it.
 */
#include "win32/os_private.h"

#include "common/base/os_service.h"

/* --- room ------------------------------------------------------------------------------------------------------- */

static void bound_memory(vmk_room *room, uint64_t limit, uint64_t used)
{
    uint64_t left = limit > used ? limit - used : 0;
    if (left < room->left[VMK_BOUND_MEMORY]) {
        room->left[VMK_BOUND_MEMORY] = left;
        room->bound[VMK_BOUND_MEMORY] = limit;
    }
}

/* What all processes of the job have committed, or `least`. JobObjectMemoryUsageInformation, which headers lack. */
static uint64_t job_usage(uint64_t least)
{
    const int memory_usage = 28;
    struct {
        uint64_t now, peak;
    } usage;
    DWORD length = 0;
    if (!QueryInformationJobObject(NULL, (JOBOBJECTINFOCLASS)memory_usage, &usage, sizeof(usage), &length) ||
        length != sizeof(usage))
        return least;
    return usage.now > least ? usage.now : least;
}

static void find_job_room(vmk_room *room)
{
    PROCESS_MEMORY_COUNTERS_EX counters;
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION job = {.BasicLimitInformation = {.LimitFlags = 0}};
    if (!QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &job, sizeof(job), NULL))
        return;
    DWORD set = job.BasicLimitInformation.LimitFlags;
    if ((set & (JOB_OBJECT_LIMIT_PROCESS_MEMORY | JOB_OBJECT_LIMIT_JOB_MEMORY)) == 0 || !vmki_os_counters(&counters))
        return;
    if ((set & JOB_OBJECT_LIMIT_PROCESS_MEMORY) != 0)
        bound_memory(room, job.ProcessMemoryLimit, counters.PrivateUsage);
    if ((set & JOB_OBJECT_LIMIT_JOB_MEMORY) != 0)
        bound_memory(room, job.JobMemoryLimit, job_usage(counters.PrivateUsage));
}

void vmki_os_room(vmk_room *room)
{
    MEMORYSTATUSEX status = {.dwLength = sizeof(status)};
    find_job_room(room);
    if (!GlobalMemoryStatusEx(&status))
        return;
    if (status.ullTotalPageFile != 0) {
        room->left[VMK_BOUND_COMMIT] = status.ullAvailPageFile;
        room->bound[VMK_BOUND_COMMIT] = status.ullTotalPageFile;
    }
    if (status.ullTotalPhys != 0) {
        room->left[VMK_BOUND_PHYSICAL] = status.ullAvailPhys;
        room->bound[VMK_BOUND_PHYSICAL] = status.ullTotalPhys;
    }
}

/* --- who tells -------------------------------------------------------------------------------------------------- */

/* The words of vmki_os_pressure: two handles, 0 for none, and whether memory was short when last looked. */
enum { WAKE, LOW, IS_LOW };

vmk_status vmki_os_pressure_open(vmki_os_pressure *pressure)
{
    HANDLE wake = CreateEventW(NULL, FALSE, FALSE, NULL); /* reset by the wait that it ends */
    if (wake == NULL)
        return VMK_ERR_COMMIT;
    *pressure = (vmki_os_pressure){{(uintptr_t)wake}};
    pressure->state[LOW] = (uintptr_t)CreateMemoryResourceNotification(LowMemoryResourceNotification);
    return VMK_OK;
}

unsigned vmki_os_pressure_wait(vmki_os_pressure *pressure, unsigned milliseconds)
{
    HANDLE handles[] = {(HANDLE)pressure->state[WAKE], (HANDLE)pressure->state[LOW]};
    bool waits_for_both = pressure->state[LOW] != 0 && pressure->state[IS_LOW] == 0;
    BOOL low = FALSE;
    (void)WaitForMultipleObjects(waits_for_both ? 2 : 1, handles, FALSE,
                                 milliseconds < INFINITE ? milliseconds : INFINITE - 1);
    if (pressure->state[LOW] != 0 && !QueryMemoryResourceNotification(handles[1], &low))
        low = FALSE;
    pressure->state[IS_LOW] = low != FALSE;
    return low ? 1u << VMK_BOUND_PHYSICAL : 0;
}

void vmki_os_pressure_wake(vmki_os_pressure *pressure)
{
    SetEvent((HANDLE)pressure->state[WAKE]);
}

void vmki_os_pressure_close(vmki_os_pressure *pressure)
{
    CloseHandle((HANDLE)pressure->state[WAKE]);
    if (pressure->state[LOW] != 0)
        CloseHandle((HANDLE)pressure->state[LOW]);
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_pressure(vmk_caps *caps)
{
    vmki_os_pressure pressure;
    if (vmki_os_pressure_open(&pressure) != VMK_OK)
        return;
    if (pressure.state[LOW] != 0)
        caps->features |= VMK_CAP_PRESSURE;
    vmki_os_pressure_close(&pressure);
}
