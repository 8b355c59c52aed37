/* SPDX-License-Identifier: MIT
 *
 * Random numbers for workloads: the same for all peers, in all runs.
 */
#ifndef VMKIT_BENCH_RANDOM_H
#define VMKIT_BENCH_RANDOM_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t work_seed(size_t index)
{
    return 88172645463325252u ^ ((uint64_t)(index + 1) * 0x9e3779b97f4a7c15u);
}

static inline uint64_t work_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* From 0 to limit - 1; by the upper bits, which are the better ones. */
static inline size_t work_below(uint64_t *state, size_t limit)
{
    return (size_t)((work_random(state) >> 32) * (uint64_t)limit >> 32);
}

#endif
