/* SPDX-License-Identifier: MIT
 *
 * Blocks of mixed small sizes come and go at random: a slot of 50,000 is picked, its block freed, another put there.
 * SIZE: thousands of such replacements.
 */
#include "work.h"

enum { SLOTS = 50000 };

int main(int argc, char **argv)
{
    static work_block *slots[SLOTS];
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    for (size_t i = 0; i < arguments.size * 1000; i++) {
        size_t slot = work_below(&random, SLOTS);
        sum += work_give(slots[slot]);
        slots[slot] = work_take(work_size(&random), i);
    }
    for (size_t slot = 0; slot < SLOTS; slot++)
        sum += work_give(slots[slot]);
    return work_end(sum);
}
