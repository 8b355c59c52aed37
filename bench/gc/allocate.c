/* SPDX-License-Identifier: MIT
 *
 * Each of THREADS threads allocates SIZE blocks of 16 to 143 bytes, at random, writes to them and forgets them (or
 * frees them). ns: by the clock, for each allocation of one thread.
 */
#include "work.h"

enum { LEAST = 16, SPREAD = 128 };

static uint64_t allocate(void *context, size_t index)
{
    uint64_t random = work_seed(index), sum = 0;
    for (size_t i = 0; i < *(const size_t *)context; i++) {
        size_t size = LEAST + work_below(&random, SPREAD);
        volatile unsigned char *block = (volatile unsigned char *)work_alloc(size);
        block[0] = (unsigned char)size;
        block[size - 1] = 1;
        sum += block[0];
        work_free((void *)(uintptr_t)block);
    }
    return sum;
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    double began = work_now();
    uint64_t sum = work_parallel(arguments.threads, allocate, &arguments.size);
    work_result("ns", (work_now() - began) * 1e9 / (double)arguments.size);
    work_checksum(sum);
    work_report(&arguments);
    return 0;
}
