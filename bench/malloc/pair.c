/* SPDX-License-Identifier: MIT
 *
 * A block is allocated and freed at once: what malloc and free cost at the least. SIZE: how many times. For counting
 * instructions (bench/malloc_instructions.py), so nothing is done with the block.
 */
#include "work.h"

enum { BYTES = 32 };

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    for (size_t i = 0; i < arguments.size; i++)
        free(malloc(BYTES));
    return work_end(0);
}
