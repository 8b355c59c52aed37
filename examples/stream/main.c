/* SPDX-License-Identifier: MIT */
/* stream [--ring BYTES] [--piece BYTES] [--figures]: copies standard input to standard output, by a thread that reads
 * into a ring and one that writes from it, so that reading and writing wait for each other as little as can be. No byte
 * is copied in between: the system reads into what is free, and writes from what is filled, each one piece wherever it
 * lies. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#endif
#include "spsc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <process.h>
#else
#include <pthread.h>
#include <unistd.h>
#endif

typedef struct stream {
    spsc queue;
    size_t piece; /* at most so many bytes are read or written at once */
    int failed;   /* errno of reading */
} stream;

/* --- the system ------------------------------------------------------------------------------------------------- */

#if defined(_WIN32)

static void use_bytes(void)
{
    (void)_setmode(0, _O_BINARY);
    (void)_setmode(1, _O_BINARY);
}

static long long read_some(void *to, size_t size)
{
    return _read(0, to, size < 1u << 20 ? (unsigned)size : 1u << 20);
}

static long long write_some(const void *from, size_t size)
{
    return _write(1, from, size < 1u << 20 ? (unsigned)size : 1u << 20);
}

static double seconds(void)
{
    LARGE_INTEGER ticks, rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);
    return (double)ticks.QuadPart / (double)rate.QuadPart;
}

typedef HANDLE thread;

static bool start(thread *reader, unsigned(__stdcall *body)(void *), void *argument)
{
    *reader = (HANDLE)_beginthreadex(NULL, 0, body, argument, 0, NULL);
    return *reader != NULL;
}

static void join(thread reader)
{
    WaitForSingleObject(reader, INFINITE);
    CloseHandle(reader);
}

#define THREAD_BODY(name) static unsigned __stdcall name(void *argument)
#define THREAD_END 0

#else

static void use_bytes(void)
{
}

static long long read_some(void *to, size_t size)
{
    return read(STDIN_FILENO, to, size);
}

static long long write_some(const void *from, size_t size)
{
    return write(STDOUT_FILENO, from, size);
}

static double seconds(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

typedef pthread_t thread;

static bool start(thread *reader, void *(*body)(void *), void *argument)
{
    return pthread_create(reader, NULL, body, argument) == 0;
}

static void join(thread reader)
{
    (void)pthread_join(reader, NULL);
}

#define THREAD_BODY(name) static void *name(void *argument)
#define THREAD_END NULL

#endif

/* --- the two ends ----------------------------------------------------------------------------------------------- */

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

THREAD_BODY(read_all)
{
    stream *all = argument;
    unsigned char *to;
    size_t room;
    while ((to = spsc_wait_room(&all->queue, 1, &room)) != NULL) {
        long long got = read_some(to, least_of(room, all->piece));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            all->failed = got < 0 ? errno : 0;
            break;
        }
        spsc_publish(&all->queue, (size_t)got);
    }
    spsc_close(&all->queue);
    return THREAD_END;
}

/* Answers with how many bytes there were; whoever can't write has no use for the rest. */
static unsigned long long write_all(stream *all)
{
    unsigned long long sum = 0;
    const unsigned char *from;
    size_t bytes;
    while ((from = spsc_wait_bytes(&all->queue, 1, &bytes)) != NULL) {
        long long put = write_some(from, least_of(bytes, all->piece));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            perror("stream: standard output");
            exit(1);
        }
        spsc_consume(&all->queue, (size_t)put);
        sum += (unsigned long long)put;
    }
    return sum;
}

/* --- the program ------------------------------------------------------------------------------------------------ */

static size_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text != NULL ? text : "", &end, 10);
    if (text == NULL || end == text || *end != '\0' || value == 0 || value > SIZE_MAX) {
        fputs("usage: stream [--ring BYTES] [--piece BYTES] [--figures]\n", stderr);
        exit(2);
    }
    return (size_t)value;
}

int main(int argc, char **argv)
{
    static stream all;
    size_t size = 1 << 20;
    bool figures = false;
    all.piece = SIZE_MAX;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--figures") == 0)
            figures = true;
        else if (strcmp(argv[i], "--ring") == 0)
            size = number(argv[++i]);
        else
            all.piece = number(strcmp(argv[i], "--piece") == 0 ? argv[++i] : NULL);
    }
    use_bytes();
    vmk_status status = spsc_init(&all.queue, size);
    if (status != VMK_OK) {
        fprintf(stderr, "stream: a ring of %zu bytes: %s\n", size, vmk_status_text(status));
        return 1;
    }
    thread reader;
    double begin = seconds();
    if (!start(&reader, read_all, &all)) {
        fputs("stream: no thread can be started\n", stderr);
        return 1;
    }
    unsigned long long sum = write_all(&all);
    join(reader);
    double took = seconds() - begin;
    if (figures)
        fprintf(stderr, "%llu bytes through a ring of %zu in %.3f s: %.0f MiB/s\n", sum, all.queue.ring.size, took,
                (double)sum / 1048576 / (took > 0 ? took : 1));
    spsc_fini(&all.queue);
    if (all.failed != 0) {
        fprintf(stderr, "stream: standard input: %s\n", strerror(all.failed));
        return 1;
    }
    return 0;
}
