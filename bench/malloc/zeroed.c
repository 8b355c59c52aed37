/* SPDX-License-Identifier: MIT
 *
 * calloc, mostly: blocks of 16 bytes to 64 KiB, evenly by the logarithm of their size, one in 512 of 128 KiB to 1 MiB.
 * Every block is written all over, so what is recycled must be cleared, and a sample of words is looked at.
 * SIZE: thousands of blocks.
 */
#include <string.h>

#include "work.h"

enum { SLOTS = 2000 };

static size_t size_of(uint64_t *random)
{
    size_t size =
        (size_t)1 << (work_below(random, 512) == 0 ? work_between(random, 17, 19) : work_between(random, 4, 15));
    return size + work_below(random, size);
}

static work_block *take(size_t size, size_t tag)
{
    unsigned char *bytes = work_escape(calloc(1, size));
    if (bytes == NULL)
        work_fail("no memory");
    for (size_t i = 0; i < size; i += 509)
        if (bytes[i] != 0)
            work_fail("calloc's memory is not zero");
    if (bytes[size - 1] != 0)
        work_fail("calloc's memory is not zero at its end");
    memset(bytes, 0xa5, size);
    return work_mark(bytes, size, tag);
}

int main(int argc, char **argv)
{
    static work_block *slots[SLOTS];
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    for (size_t i = 0; i < arguments.size * 1000; i++) {
        size_t slot = work_below(&random, SLOTS);
        sum += work_give(slots[slot]);
        slots[slot] = take(size_of(&random), i);
    }
    for (size_t slot = 0; slot < SLOTS; slot++)
        sum += work_give(slots[slot]);
    return work_end(sum);
}
