/* SPDX-License-Identifier: MIT
 *
 * Large blocks, 64 KiB to 8 MiB, evenly by the logarithm of their size, each touched page by page; 24 live at a time.
 * SIZE: blocks.
 */
#include "work.h"

enum { SLOTS = 24, SMALLEST = 16, LARGEST = 22, PAGE = 4096 };

int main(int argc, char **argv)
{
    static work_block *slots[SLOTS];
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    for (size_t i = 0; i < arguments.size; i++) {
        size_t slot = work_below(&random, SLOTS);
        size_t size = (size_t)1 << work_between(&random, SMALLEST, LARGEST);
        size += work_below(&random, size);
        sum += work_give(slots[slot]);
        slots[slot] = work_take(size, i);
        for (size_t offset = PAGE; offset < size - 1; offset += PAGE)
            ((volatile unsigned char *)slots[slot])[offset] = (unsigned char)i;
    }
    for (size_t slot = 0; slot < SLOTS; slot++)
        sum += work_give(slots[slot]);
    return work_end(sum);
}
