/* SPDX-License-Identifier: MIT
 *
 * The smallest program that uses the table, and nothing but the table. check_size.cmake looks at what it is made of.
 */
#include "vmkit.h"

int main(void)
{
    vmk_table_config config = VMK_TABLE_CONFIG_DEFAULT;
    config.capacity = 1000;
    config.column_bits[0] = 32;
    vmk_table table;
    if (vmk_table_init(&table, &config) != VMK_OK)
        return 1;
    if (vmk_table_ensure(&table, 500) != VMK_OK)
        return 1;
    int *element = vmk_table_at(&table, 0, 499);
    *element += 1;
    vmk_table_trim(&table, 100);
    vmk_table_fini(&table);
    return 0;
}
