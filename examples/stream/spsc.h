/* SPDX-License-Identifier: MIT */
/* A queue of bytes between two threads, one that writes and one that reads, without locks: on a vmk_ring, so that what
 * is free and what is filled are each one piece of memory, to read into and write from directly.
 *
 * Positions count from 0 up to twice the ring's size and begin anew; so they differ by the size where it is full, and
 * by nothing where it is empty. Each is written by one thread alone. They lie on lines of the cache of their own,
 * beside what the same thread has seen last of the other's position: as long as that suffices, it doesn't ask again,
 * and the other's line stays where it is. (They are outside the ring also because tools that look for data races don't
 * know that two addresses can be the same memory.) */
#ifndef SPSC_H
#define SPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sched.h>
#include <time.h>
#endif

#include "vmkit.h"

#define SPSC_LINE 64

typedef struct spsc {
    vmk_ring ring;
    atomic_bool closed;
    _Alignas(SPSC_LINE) atomic_size_t written;
    size_t read_seen; /* the producer's */
    _Alignas(SPSC_LINE) atomic_size_t read;
    size_t written_seen; /* the consumer's */
    _Alignas(SPSC_LINE) unsigned char end;
} spsc;

/* Room for at least `size` bytes. In the caller's storage, which must stay where it is. */
static inline vmk_status spsc_init(spsc *queue, size_t size)
{
    vmk_status status = vmk_ring_init(&queue->ring, size);
    if (status != VMK_OK)
        return status;
    queue->read_seen = queue->written_seen = 0;
    atomic_init(&queue->closed, false);
    atomic_init(&queue->written, 0);
    atomic_init(&queue->read, 0);
    return VMK_OK;
}

static inline void spsc_fini(spsc *queue)
{
    vmk_ring_fini(&queue->ring);
}

static inline size_t spsc_distance(const spsc *queue, size_t from, size_t to)
{
    return to >= from ? to - from : to + 2 * queue->ring.size - from;
}

static inline size_t spsc_advance(const spsc *queue, size_t position, size_t count)
{
    size_t left = 2 * queue->ring.size - position;
    return count < left ? position + count : count - left;
}

static inline unsigned char *spsc_address(const spsc *queue, size_t position)
{
    return queue->ring.base + (position < queue->ring.size ? position : position - queue->ring.size);
}

/* --- the producer ----------------------------------------------------------------------------------------------- */

/* Where to write, and how many bytes at most: all that is free if fewer than `wanted` were known to be. */
static inline unsigned char *spsc_room(spsc *queue, size_t wanted, size_t *room)
{
    size_t at = atomic_load_explicit(&queue->written, memory_order_relaxed);
    *room = queue->ring.size - spsc_distance(queue, queue->read_seen, at);
    if (*room < wanted) {
        queue->read_seen = atomic_load_explicit(&queue->read, memory_order_acquire); /* it is done reading there */
        *room = queue->ring.size - spsc_distance(queue, queue->read_seen, at);
    }
    return spsc_address(queue, at);
}

/* The next `count` bytes, which have been written there, are the consumer's. */
static inline void spsc_publish(spsc *queue, size_t count)
{
    size_t at = atomic_load_explicit(&queue->written, memory_order_relaxed);
    atomic_store_explicit(&queue->written, spsc_advance(queue, at, count), memory_order_release);
}

/* --- the consumer ----------------------------------------------------------------------------------------------- */

static inline const unsigned char *spsc_bytes(spsc *queue, size_t wanted, size_t *bytes)
{
    size_t at = atomic_load_explicit(&queue->read, memory_order_relaxed);
    *bytes = spsc_distance(queue, at, queue->written_seen);
    if (*bytes < wanted) {
        queue->written_seen = atomic_load_explicit(&queue->written, memory_order_acquire);
        *bytes = spsc_distance(queue, at, queue->written_seen);
    }
    return spsc_address(queue, at);
}

/* The next `count` bytes have been read: there is room again. */
static inline void spsc_consume(spsc *queue, size_t count)
{
    size_t at = atomic_load_explicit(&queue->read, memory_order_relaxed);
    atomic_store_explicit(&queue->read, spsc_advance(queue, at, count), memory_order_release);
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

/* Nobody writes any more; or, from the consumer, nobody reads. */
static inline void spsc_close(spsc *queue)
{
    atomic_store_explicit(&queue->closed, true, memory_order_release);
}

/* For a moment, the longer the more often it has been in vain: the other may be about to be done, may need this
 * processor, or may itself be waiting for a disk. */
static inline void spsc_pause(unsigned round)
{
    enum { SPINS = 200, YIELDS = 400 };
    if (round < SPINS)
        return;
#if defined(_WIN32)
    Sleep(round < YIELDS ? 0 : 1);
#else
    struct timespec moment = {0, 50000};
    if (round < YIELDS)
        (void)sched_yield();
    else
        (void)nanosleep(&moment, NULL);
#endif
}

/* As spsc_room, but waits until there are at least `least` bytes (no more than the ring has). NULL: closed. */
static inline unsigned char *spsc_wait_room(spsc *queue, size_t least, size_t *room)
{
    for (unsigned round = 0;; round++) {
        if (atomic_load_explicit(&queue->closed, memory_order_acquire))
            return NULL;
        unsigned char *at = spsc_room(queue, least, room);
        if (*room >= least)
            return at;
        spsc_pause(round);
    }
}

/* As spsc_bytes, but waits until there are at least `least`; fewer once it is closed. NULL: closed, and all is read. */
static inline const unsigned char *spsc_wait_bytes(spsc *queue, size_t least, size_t *bytes)
{
    for (unsigned round = 0;; round++) {
        bool closed = atomic_load_explicit(&queue->closed, memory_order_acquire); /* before what was written last */
        const unsigned char *at = spsc_bytes(queue, closed ? queue->ring.size : least, bytes);
        if (*bytes >= least || (closed && *bytes != 0))
            return at;
        if (closed)
            return NULL;
        spsc_pause(round);
    }
}

/* --- with a copy ------------------------------------------------------------------------------------------------ */

/* All of it, waiting for room; false: closed. */
static inline bool spsc_write(spsc *queue, const void *data, size_t size)
{
    const unsigned char *from = data;
    while (size != 0) {
        size_t room;
        unsigned char *to = spsc_wait_room(queue, 1, &room);
        if (to == NULL)
            return false;
        room = room < size ? room : size;
        memcpy(to, from, room);
        spsc_publish(queue, room);
        from += room;
        size -= room;
    }
    return true;
}

/* Some bytes, at most `size`, waiting for the first; 0: closed. */
static inline size_t spsc_read(spsc *queue, void *data, size_t size)
{
    size_t bytes;
    const unsigned char *from = spsc_wait_bytes(queue, 1, &bytes);
    if (from == NULL)
        return 0;
    bytes = bytes < size ? bytes : size;
    memcpy(data, from, bytes);
    spsc_consume(queue, bytes);
    return bytes;
}

#endif
