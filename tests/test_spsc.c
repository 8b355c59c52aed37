/* SPDX-License-Identifier: MIT
 *
 * The queue of examples/stream: against a plain count of bytes by one thread, and with the two threads that it is for.
 */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#endif
#include "stream/spsc.h"

#include "support.h"

/* The i-th byte of a stream. */
static unsigned char byte_at(uint64_t i)
{
    return (unsigned char)((i * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

static void put(spsc *queue, uint64_t *written, size_t count)
{
    size_t room;
    unsigned char *to = spsc_room(queue, count, &room);
    ck_assert_uint_ge(room, count);
    for (size_t i = 0; i < count; i++)
        to[i] = byte_at(*written + i);
    spsc_publish(queue, count);
    *written += count;
}

static void take(spsc *queue, uint64_t *read, size_t count)
{
    size_t bytes;
    const unsigned char *from = spsc_bytes(queue, count, &bytes);
    ck_assert_uint_ge(bytes, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_uint_eq(from[i], byte_at(*read + i));
    spsc_consume(queue, count);
    *read += count;
}

START_TEST(it_holds_what_is_in_it)
{
    support_random random = support_random_start(1);
    spsc queue;
    uint64_t written = 0, read = 0;
    ck_assert_int_eq(spsc_init(&queue, 3 * vmk_granularity()), VMK_OK); /* no power of two */
    size_t size = queue.ring.size;
    for (size_t round = support_rounds(2000); round > 0 || written <= 10 * size;
         round -= round > 0) { /* it goes around */
        size_t inside = (size_t)(written - read), room, bytes;
        put(&queue, &written,
            support_random_below(&random, 16) == 0 ? size - inside
                                                   : support_random_below(&random, size - inside + 1) / 4);
        (void)spsc_room(&queue, SIZE_MAX, &room);
        (void)spsc_bytes(&queue, SIZE_MAX, &bytes);
        ck_assert(bytes == written - read && room == size - bytes);
        take(&queue, &read, support_random_below(&random, 16) == 0 ? bytes : support_random_below(&random, bytes + 1));
    }
    take(&queue, &read, (size_t)(written - read));
    spsc_fini(&queue);
}
END_TEST

/* Full and empty, with the border at every place near the ends of both rounds. */
START_TEST(full_and_empty_everywhere)
{
    spsc queue;
    uint64_t written = 0, read = 0;
    size_t bytes, room;
    ck_assert_int_eq(spsc_init(&queue, 1), VMK_OK);
    size_t size = queue.ring.size, steps = 2 * size + 3;
    for (size_t at = 0; at < steps; at += at % size < 3 || at % size > size - 3 ? 1 : size / 7) {
        while (written % (2 * size) != at % (2 * size)) {
            size_t step = (size_t)((at + 2 * size - written % (2 * size)) % (2 * size));
            step = step < size ? step : size;
            put(&queue, &written, step);
            take(&queue, &read, step);
        }
        (void)spsc_bytes(&queue, 1, &bytes);
        ck_assert_uint_eq(bytes, 0);
        put(&queue, &written, size);
        (void)spsc_room(&queue, 1, &room);
        ck_assert_uint_eq(room, 0);
        take(&queue, &read, size);
    }
    spsc_fini(&queue);
}
END_TEST

START_TEST(closed_it_gives_what_is_left)
{
    spsc queue;
    size_t bytes;
    unsigned char some[8];
    ck_assert_int_eq(spsc_init(&queue, 1), VMK_OK);
    ck_assert(spsc_write(&queue, "abcde", 5));
    spsc_close(&queue);
    ck_assert(!spsc_write(&queue, "f", 1));
    ck_assert_uint_eq(spsc_read(&queue, some, 2), 2);
    const unsigned char *rest = spsc_wait_bytes(&queue, 100, &bytes); /* as many as there will never be */
    ck_assert(rest != NULL && bytes == 3 && memcmp(rest, "cde", 3) == 0 && memcmp(some, "ab", 2) == 0);
    spsc_consume(&queue, 3);
    ck_assert_ptr_null(spsc_wait_bytes(&queue, 1, &bytes));
    ck_assert_uint_eq(spsc_read(&queue, some, sizeof some), 0);
    spsc_fini(&queue);
}
END_TEST

/* --- two threads ------------------------------------------------------------------------------------------------ */

typedef struct pair {
    spsc queue;
    uint64_t total, wrong, seen;
    bool by_copy;
    uint64_t salt;
} pair;

static void produce(pair *all)
{
    support_random random = support_random_start(all->salt);
    static unsigned char some[10000];
    for (uint64_t at = 0; at < all->total;) {
        size_t count = 1 + support_random_below(&random, sizeof some), room;
        count = all->total - at < count ? (size_t)(all->total - at) : count;
        if (all->by_copy) {
            for (size_t i = 0; i < count; i++)
                some[i] = byte_at(at + i);
            (void)spsc_write(&all->queue, some, count);
        } else {
            count = count < all->queue.ring.size ? count : all->queue.ring.size;
            unsigned char *to = spsc_wait_room(&all->queue, count, &room);
            for (size_t i = 0; i < count; i++)
                to[i] = byte_at(at + i);
            spsc_publish(&all->queue, count);
        }
        at += count;
    }
    spsc_close(&all->queue);
}

static void consume(pair *all)
{
    support_random random = support_random_start(all->salt + 1);
    static unsigned char some[7777];
    for (;;) {
        size_t count = 1 + support_random_below(&random, sizeof some), bytes;
        const unsigned char *from = some;
        if (all->by_copy)
            count = spsc_read(&all->queue, some, count);
        else if ((from = spsc_wait_bytes(&all->queue, 1, &bytes)) != NULL)
            count = bytes < count ? bytes : count;
        if (from == NULL || count == 0)
            break;
        for (size_t i = 0; i < count; i++)
            all->wrong += from[i] != byte_at(all->seen + i);
        all->seen += count;
        if (!all->by_copy)
            spsc_consume(&all->queue, count);
    }
}

static void one_of_two(void *argument, unsigned which)
{
    if (which == 0)
        produce(argument);
    else
        consume(argument);
}

START_TEST(a_producer_and_a_consumer)
{
    static pair all;
    for (unsigned i = 0; i < 4; i++) {
        all = (pair){.total = support_rounds(4000000), .by_copy = i % 2 != 0, .salt = 2 * i};
        ck_assert_int_eq(spsc_init(&all.queue, i < 2 ? 1 : 5 * vmk_granularity()), VMK_OK);
        support_threads(2, one_of_two, &all);
        ck_assert_uint_eq(all.wrong, 0);
        ck_assert_uint_eq(all.seen, all.total);
        spsc_fini(&all.queue);
    }
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("spsc");
    TCase *tests = tcase_create("spsc");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, it_holds_what_is_in_it);
    tcase_add_test(tests, full_and_empty_everywhere);
    tcase_add_test(tests, closed_it_gives_what_is_left);
    tcase_add_test(tests, a_producer_and_a_consumer);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
