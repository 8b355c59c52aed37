/* SPDX-License-Identifier: MIT
 *
 * C++'s operators: all of them, new_handler, bad_alloc, exceptions in threads. With arguments it is a program of its
 * own for check_malloc_programs.sh, which says the same with any malloc.
 */
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "test.h"

namespace
{

/* A compiler may leave out a pair of new and delete. */
template <typename T> T *kept(T *pointer)
{
    return static_cast<T *>(hidden(pointer));
}

struct alignas(256) wide {
    char text[300];
};

void test_operators()
{
    int *one = kept(new int(3));
    int *many = kept(new int[1000]);
    CHECK(*one == 3 && malloc_usable_size(many) >= 4000);
    delete one;
    delete[] many;
    ::operator delete(kept(::operator new(24)));
    ::operator delete[](kept(::operator new[](0)));
    ::operator delete(kept(::operator new(24, std::nothrow)), std::nothrow);
    ::operator delete[](kept(::operator new[](24, std::nothrow)), std::nothrow);
    ::operator delete(nullptr);
#if __cpp_sized_deallocation
    ::operator delete(kept(::operator new(24)), static_cast<std::size_t>(24));
    ::operator delete[](kept(::operator new[](24)), static_cast<std::size_t>(24));
#endif
#if __cpp_aligned_new
    wide *w = kept(new wide);
    CHECK(reinterpret_cast<std::uintptr_t>(w) % 256 == 0);
    delete w;
    wide *ws = kept(new wide[3]);
    CHECK(reinterpret_cast<std::uintptr_t>(ws) % 256 == 0);
    delete[] ws;
    w = kept(new (std::nothrow) wide);
    delete w;
    const std::align_val_t align = static_cast<std::align_val_t>(4096);
    void *page = kept(::operator new(10, align));
    CHECK(reinterpret_cast<std::uintptr_t>(page) % 4096 == 0);
    ::operator delete(page, align);
    page = kept(::operator new[](10, align, std::nothrow));
    ::operator delete[](page, align, std::nothrow);
    page = kept(::operator new[](10, align));
    ::operator delete[](page, align);
    page = kept(::operator new(10, align, std::nothrow));
    ::operator delete(page, align);
#if __cpp_sized_deallocation
    ::operator delete(kept(::operator new(10, align)), static_cast<std::size_t>(10), align);
    ::operator delete[](kept(::operator new[](10, align)), static_cast<std::size_t>(10), align);
#endif
#endif
    free(kept(::operator new(100))); /* one heap for both */
}

const std::size_t too_much = static_cast<std::size_t>(PTRDIFF_MAX) + 1;
int handled;

void handler_that_gives_up()
{
    if (++handled == 3)
        std::set_new_handler(nullptr);
}

struct own_failure : std::bad_alloc {
};

void handler_that_throws()
{
    ++handled;
    throw own_failure();
}

template <typename F> bool throws_bad_alloc(F call)
{
    try {
        call();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

void test_failure()
{
    const std::size_t size = hidden_size(too_much);
    CHECK(throws_bad_alloc([=] { kept(::operator new(size)); }));
    CHECK(throws_bad_alloc([=] { kept(::operator new[](size)); }));
    CHECK(kept(::operator new(size, std::nothrow)) == nullptr);
    CHECK(kept(::operator new[](size, std::nothrow)) == nullptr);
    handled = 0;
    std::set_new_handler(handler_that_gives_up);
    CHECK(throws_bad_alloc([=] { kept(::operator new(size)); }) && handled == 3);
    handled = 0;
    std::set_new_handler(handler_that_gives_up);
    CHECK(kept(::operator new(size, std::nothrow)) == nullptr && handled == 3);
    std::set_new_handler(handler_that_throws);
    handled = 0;
    try {
        kept(::operator new(size));
        CHECK(false);
    } catch (const own_failure &) {
    }
    CHECK(handled == 1 && kept(::operator new[](size, std::nothrow)) == nullptr && handled >= 2);
#if __cpp_aligned_new
    handled = 0;
    CHECK(throws_bad_alloc([=] { kept(::operator new(size, std::align_val_t(64))); }) && handled == 1);
    CHECK(kept(::operator new(size, std::align_val_t(64), std::nothrow)) == nullptr && handled >= 2);
#endif
    std::set_new_handler(nullptr);
}

/* --- threads and exceptions ------------------------------------------------------------------------------------- */

struct noted {
    std::string text;
    explicit noted(std::size_t n) : text(n, 'n')
    {
    }
    ~noted()
    {
        text += std::string(100, 'x'); /* allocates while it goes */
    }
};

thread_local noted of_thread(500);

unsigned thread_work(unsigned seed, unsigned rounds)
{
    std::map<std::string, std::vector<std::shared_ptr<noted>>> all;
    unsigned sum = static_cast<unsigned>(of_thread.text.size());
    for (unsigned i = 0; i < rounds; i++) {
        seed = seed * 1664525u + 1013904223u;
        std::string key = "key " + std::to_string(seed % 500);
        try {
            all[key].push_back(std::make_shared<noted>(seed >> 20));
            if (seed % 7 == 0)
                throw std::runtime_error(key);
            if (seed % 11 == 0)
                all.at("no such key");
        } catch (const std::runtime_error &e) {
            sum += static_cast<unsigned>(std::strlen(e.what()));
            all.erase(key);
        } catch (const std::out_of_range &) {
            sum += 1;
        }
    }
    for (const auto &entry : all)
        for (const auto &one : entry.second)
            sum = sum * 31 + static_cast<unsigned>(one->text.size());
    return sum;
}

void test_threads(unsigned threads, unsigned rounds)
{
    std::vector<unsigned> sums(threads);
    std::vector<std::thread> running;
    for (unsigned t = 0; t < threads; t++)
        running.emplace_back([&sums, t, rounds] { sums[t] = thread_work(t, rounds); });
    for (auto &thread : running)
        thread.join();
    for (unsigned sum : sums)
        std::printf("%u\n", sum);
}

} // namespace

int main(int count, char **arguments)
{
    if (count == 3) {
        test_threads(static_cast<unsigned>(std::atoi(arguments[1])), static_cast<unsigned>(std::atoi(arguments[2])));
        return 0;
    }
    check_that_it_is_ours();
    test_operators();
    test_failure();
    test_threads(8, 5000);
    return 0;
}
