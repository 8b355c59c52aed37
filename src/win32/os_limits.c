/* SPDX-License-Identifier: MIT
 *
 * What limits this process, and what it uses. Windows has one real limit, the commit charge: the system's as a whole,
 * and what a job object sets for the process and for the job. There is no limit on address space but its width, and
 * none on the number of mappings.
 */
#include "os_private.h"

void vmki_os_own_limits(vmk_limits *limits)
{
    /* NULL asks for the job that this process runs in, the innermost if they are nested; without one the call fails. Of
     * the outer jobs the system tells a process nothing here; they may show in the commit limit, which is "for the
     * system or the current process, whichever is smaller". Wine answers that nothing is limited, and enforces
     * nothing. */
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION job = {.BasicLimitInformation = {.LimitFlags = 0}};
    if (QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &job, sizeof(job), NULL)) {
        DWORD set = job.BasicLimitInformation.LimitFlags;
        if ((set & JOB_OBJECT_LIMIT_PROCESS_MEMORY) != 0 && job.ProcessMemoryLimit < limits->memory)
            limits->memory = job.ProcessMemoryLimit;
        if ((set & JOB_OBJECT_LIMIT_JOB_MEMORY) != 0 && job.JobMemoryLimit < limits->memory)
            limits->memory = job.JobMemoryLimit;
    }
}

void vmki_os_limits(vmk_limits *limits)
{
    vmki_os_own_limits(limits);
    /* Memory and paging files. Under Wine that of the host, where nobody holds a commit against it. */
    MEMORYSTATUSEX status = {.dwLength = sizeof(status)};
    if (GlobalMemoryStatusEx(&status) && status.ullTotalPageFile != 0)
        limits->commit = status.ullTotalPageFile;
}

bool vmki_os_counters(PROCESS_MEMORY_COUNTERS_EX *counters)
{
    *counters = (PROCESS_MEMORY_COUNTERS_EX){.cb = sizeof(*counters)};
    return GetProcessMemoryInfo(GetCurrentProcess(), (PPROCESS_MEMORY_COUNTERS)(void *)counters, sizeof(*counters)) !=
           FALSE;
}

static bool virtual_used(uint64_t *used)
{
    MEMORYSTATUSEX status = {.dwLength = sizeof(status)};
    if (!GlobalMemoryStatusEx(&status))
        return false;
    *used = status.ullTotalVirtual - status.ullAvailVirtual;
    return true;
}

/* Does "used virtual memory" follow reservations? Wine puts the working set there. Tried once, with a reservation
 * larger than what other threads are likely to give back meanwhile; should they, the slower way is taken, which is
 * right too. */
static bool virtual_is_told(void)
{
    enum { TRIAL = 64 << 20 };
    static volatile uintptr_t known; /* 0: not tried, 1: no, 2: yes */
    if (VMKI_LOAD_RELAXED(&known) == 0) {
        uint64_t before;
        uint64_t after;
        bool told = virtual_used(&before);
        void *trial = VirtualAlloc(NULL, TRIAL, MEM_RESERVE, PAGE_NOACCESS);
        if (trial == NULL)
            return false; /* another time */
        told = virtual_used(&after) && told && after >= before + TRIAL / 2;
        VirtualFree(trial, 0, MEM_RELEASE);
        VMKI_STORE_RELAXED(&known, told ? 2 : 1);
    }
    return VMKI_LOAD_RELAXED(&known) == 2;
}

/* Count by asking about all ranges, one after the other: some hundreds of calls. 32-bit Wine shows what lies outside
 * its own part of the address space as reserved, so that programs keep away; that has a protection, which real
 * reservations lack. */
static void walk_address_space(uint64_t *taken, uint64_t *committed)
{
    *taken = 0;
    *committed = 0;
    MEMORY_BASIC_INFORMATION range;
    uintptr_t next = 0;
    while (VirtualQuery((void *)next, &range, sizeof(range)) == sizeof(range)) {
        bool pretended = range.State == MEM_RESERVE && range.Protect == PAGE_NOACCESS;
        if (range.State != MEM_FREE && !pretended)
            *taken += range.RegionSize;
        if (range.State == MEM_COMMIT && range.Type == MEM_PRIVATE)
            *committed += range.RegionSize;
        if (vmki_add_overflow((uintptr_t)range.BaseAddress, range.RegionSize, &next))
            return;
    }
}

vmk_status vmki_os_usage(vmk_usage *usage)
{
    PROCESS_MEMORY_COUNTERS_EX counters;
    uint64_t taken;
    if (!vmki_os_counters(&counters) || !virtual_used(&taken))
        return VMK_ERR_UNSUPPORTED;
    uint64_t committed = counters.PrivateUsage; /* the commit charge of the process */
    if (committed == 0 || !virtual_is_told()) { /* Wine charges nothing: what is committed stands in for it */
        uint64_t counted;
        walk_address_space(&taken, &counted);
        if (committed == 0)
            committed = counted;
    }
    usage->address_space = taken;
    usage->data = committed;
    usage->resident = counters.WorkingSetSize;
    usage->mappings = 0; /* only by walking, and nothing limits them */
    return VMK_OK;
}
