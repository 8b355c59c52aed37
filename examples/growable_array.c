/* SPDX-License-Identifier: MIT */
/* A growable array whose elements never move: pointers into it stay good, and no element is ever copied. */
#include <stdio.h>

#include "vmkit.h"

VMK_TABLE_DEFINE(numbers, long);

int main(void)
{
    numbers squares;
    if (numbers_init(&squares, (size_t)1 << 28) != VMK_OK) /* room for 268 million; costs nothing yet */
        return 1;
    long *first = numbers_at(&squares, 0);
    for (size_t i = 0; i < 1000000; i++) {
        if (numbers_ensure(&squares, i + 1) != VMK_OK) /* a compare, nearly always */
            return 1;
        *numbers_at(&squares, i) = (long)(i % 1000 * (i % 1000));
    }
    vmk_stats stats;
    vmk_stats_now(&stats);
    printf("%ld; the first is still where it was: %s\n", numbers_base(&squares)[999999],
           first == numbers_at(&squares, 0) ? "yes" : "no");
    printf("%zu MiB reserved, %zu MiB committed\n", stats.reserved >> 20, stats.committed >> 20);
    numbers_fini(&squares);
    return 0;
}
