/* SPDX-License-Identifier: MIT
 *
 * The first program of a user: a table of squares that is as large as the machine can address, and costs what is used.
 */
#include <stdio.h>
#include <vmkit.h>

VMK_TABLE_DEFINE(squares, unsigned);

int main(void)
{
    enum { USED = 100000 };
    squares t;
    vmk_table_config config = VMK_TABLE_CONFIG_DEFAULT;
    config.capacity = (size_t)1 << (sizeof(void *) == 8 ? 32 : 26);
    config.min_capacity = USED;
    vmk_status status = squares_init_as(&t, &config);
    if (status == VMK_OK)
        status = squares_ensure(&t, USED);
    if (status != VMK_OK) {
        fprintf(stderr, "%s: %s\n", vmk_status_name(status), vmk_status_text(status));
        return 1;
    }
    for (unsigned i = 0; i < USED; i++)
        *squares_at(&t, i) = i * i;
    bool right = *squares_at(&t, 300) == 90000;
    squares_fini(&t);
    puts(right ? "right" : "wrong");
    return right ? 0 : 1;
}
