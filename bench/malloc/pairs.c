/* SPDX-License-Identifier: MIT
 *
 * What was allocated last is freed first, as in recursion: stacks of 1 to 32 blocks of like sizes are built and taken
 * down. SIZE: thousands of stacks.
 */
#include "work.h"

enum { DEEPEST = 32 };

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    for (size_t i = 0; i < arguments.size * 1000; i++) {
        work_block *stack[DEEPEST];
        size_t depth = work_between(&random, 1, DEEPEST), size = work_size(&random);
        for (size_t j = 0; j < depth; j++)
            stack[j] = work_take(size + j, i + j);
        for (size_t j = depth; j > 0; j--)
            sum += work_give(stack[j - 1]);
    }
    return work_end(sum);
}
