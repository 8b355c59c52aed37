/* SPDX-License-Identifier: MIT
 *
 * Windows limits what a process commits, not its address space. The job lives as long as its handle, which is never
 * closed. Wine makes the job and enforces nothing; that shows in what vmk_limits_now tells.
 */
#include <windows.h>

#include "tool.h"

unsigned long limit_process(uint64_t bytes)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION job = {
        .BasicLimitInformation = {.LimitFlags = JOB_OBJECT_LIMIT_PROCESS_MEMORY}};
    if (bytes > SIZE_MAX)
        return ERROR_INVALID_PARAMETER;
    job.ProcessMemoryLimit = (SIZE_T)bytes;
    HANDLE handle = CreateJobObjectW(NULL, NULL);
    if (handle == NULL || !SetInformationJobObject(handle, JobObjectExtendedLimitInformation, &job, sizeof job) ||
        !AssignProcessToJobObject(handle, GetCurrentProcess()))
        return GetLastError();
    return 0;
}
