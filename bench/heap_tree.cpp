/* SPDX-License-Identifier: MIT
 *
 * The peer of heap_pages.c: free runs of pages in balanced trees, as allocators of pages had them before bitmaps. One
 * is ordered by address, to merge neighbours; one by size and then address, to find the best fit. Nothing else is kept:
 * no table that finds a span by an address in it, no record of one, no lock.
 */
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "heap.h"

namespace
{

std::map<size_t, size_t> by_address; /* first page -> number of pages */
std::set<std::pair<size_t, size_t>> by_size;
size_t top; /* no page from here on was ever taken */

void insert(size_t first, size_t pages)
{
    by_address.emplace(first, pages);
    by_size.emplace(pages, first);
}

std::map<size_t, size_t>::iterator erase(std::map<size_t, size_t>::iterator run)
{
    by_size.erase(std::make_pair(run->second, run->first));
    return by_address.erase(run);
}

} // namespace

uintptr_t bench_tree_take(size_t pages)
{
    auto best = by_size.lower_bound(std::make_pair(pages, static_cast<size_t>(0)));
    if (best == by_size.end()) {
        size_t first = top;
        top += pages;
        return first;
    }
    size_t first = best->second, rest = best->first - pages;
    erase(by_address.find(first));
    if (rest != 0)
        insert(first + pages, rest);
    return first;
}

void bench_tree_give(uintptr_t first, size_t pages)
{
    auto next = by_address.lower_bound(first);
    if (next != by_address.end() && next->first == first + pages) {
        pages += next->second;
        next = erase(next);
    }
    if (next != by_address.begin()) {
        auto previous = std::prev(next);
        if (previous->first + previous->second == first) {
            first = previous->first;
            pages += previous->second;
            erase(previous);
        }
    }
    insert(first, pages);
}

size_t bench_tree_runs(void)
{
    return by_address.size();
}
