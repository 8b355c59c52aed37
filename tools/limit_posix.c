/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sys/resource.h>

#include "tool.h"

unsigned long limit_process(uint64_t bytes)
{
    rlim_t most = (rlim_t)bytes;
    if (most != bytes || most == RLIM_INFINITY)
        return EINVAL;
    struct rlimit limit = {.rlim_cur = most, .rlim_max = most}; /* both, as ulimit does */
    return setrlimit(RLIMIT_AS, &limit) == 0 ? 0 : (unsigned long)errno;
}
