/* SPDX-License-Identifier: MIT
 *
 * For programs that know nothing of vmkit: they are run with libvmkit-malloc.so in malloc's place.
 */
#ifndef TEST_H
#define TEST_H

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                  \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* What the compiler can't see through: it knows too much about malloc. */
static inline void *hidden(void *pointer)
{
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static inline size_t hidden_size(size_t size)
{
    __asm__ volatile("" : "+r"(size));
    return size;
}

/* Is it vmkit's malloc at all? */
static inline void check_that_it_is_ours(void)
{
    Dl_info info;
    CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0);
    CHECK(strstr(info.dli_fname, "vmkit-malloc") != NULL);
}

static inline bool is_hardened(void)
{
    const char *value = getenv("VMKIT_HARDENED");
    return value != NULL && strcmp(value, "1") == 0;
}

#endif
