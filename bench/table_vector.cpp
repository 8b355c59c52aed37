/* SPDX-License-Identifier: MIT
 *
 * The C++ peer of append: std::vector, as one would write it.
 */
#include <vector>

#include "table.h"

void bench_append_vector(size_t count)
{
    std::vector<uint64_t> numbers;
    for (size_t i = 0; i < count; i++)
        numbers.push_back(i);
    volatile uint64_t last = numbers.back();
    (void)last;
}
