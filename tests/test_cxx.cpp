/* SPDX-License-Identifier: MIT
 *
 * vmkit.h read by a C++ compiler, and all that is inline in it used from C++. No Check here: what is tested is that it
 * compiles, links, and does the same.
 */
#include "vmkit.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace
{

struct point {
    double x, y;
};

VMK_TABLE_DEFINE(points, point);

void require(bool condition, const char *what)
{
    if (!condition) {
        std::fprintf(stderr, "test_cxx: not so: %s\n", what);
        std::exit(1);
    }
}
#define REQUIRE(condition) require(condition, #condition)

void use_region()
{
    const size_t page = vmk_page_size();
    vmk_reserve_options options = vmk_reserve_options();
    options.guard_size = page;
    vmk_region region;
    REQUIRE(vmk_reserve(&region, 16 * page, &options) == VMK_OK);
    REQUIRE(vmk_commit(&region, page, page) == VMK_OK);
    REQUIRE(region.base[page] == 0);
    std::memset(region.base + page, 1, page);
    REQUIRE(vmk_region_query(&region, page, NULL) == VMK_STATE_COMMITTED);
    REQUIRE(vmk_decommit(&region, page, page) == VMK_OK);
    vmk_release(&region);
}

void use_typed_table()
{
    points table;
    REQUIRE(points_init(&table, 100000) == VMK_OK);
    REQUIRE(points_get(&table, 0) == NULL);
    REQUIRE(points_ensure(&table, 1000) == VMK_OK);
    REQUIRE(points_ready(&table) >= 1000);
    point *last = points_at(&table, 999);
    REQUIRE(last->x == 0 && last == points_get(&table, 999) && last == points_base(&table) + 999);
    last->x = 1;
    REQUIRE(points_ensure_range(&table, 0, 50000) == VMK_OK);
    REQUIRE(points_at(&table, 999) == last && last->x == 1);
    points_trim(&table, 10);
    REQUIRE(points_ready(&table) == 10);
    REQUIRE(points_drop_range(&table, 5, 100000 - 5) == VMK_OK);
    points_fini(&table);
}

void use_table()
{
    vmk_table_config config = VMK_TABLE_CONFIG_DEFAULT;
    config.capacity = 1 << 16;
    config.column_bits[0] = 8 * sizeof(point);
    config.column_bits[1] = 1;
    config.origin = 0x10000;
    config.shift = 4;
    vmk_table table;
    REQUIRE(vmk_table_init(&table, &config) == VMK_OK);
    REQUIRE(vmk_table_find(&table, 0, 0x10000) == NULL);
    REQUIRE(vmk_table_ensure(&table, 100) == VMK_OK);
    REQUIRE(vmk_table_find(&table, 0, 0x10000 + 99 * 16) == vmk_table_at(&table, 0, 99));
    vmk_table_store_bits(&table, 1, 7, 1);
    REQUIRE(vmk_table_load_bits(&table, 1, 7) == 1 && vmk_table_load_bits(&table, 1, 6) == 0);
    vmk_table_fini(&table);
}

} // namespace

int main()
{
    use_region();
    use_typed_table();
    use_table();
    REQUIRE(std::strcmp(vmk_status_name(VMK_ERR_COMMIT), "VMK_ERR_COMMIT") == 0);
    std::puts("all well");
    return 0;
}
