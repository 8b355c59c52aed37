/* SPDX-License-Identifier: MIT
 *
 * A library that test_world_posix loads late: data of its own, and thread-local storage, which each thread gets when it
 * first uses it.
 */
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))

static volatile uintptr_t word;
static volatile uintptr_t padding[1000];
static _Thread_local volatile uintptr_t thread_word;
static _Thread_local volatile uintptr_t thread_padding[100];

/* At a fixed distance from the thread pointer, in room that the loader has spare. */
static __attribute__((tls_model("initial-exec"))) _Thread_local volatile uintptr_t fixed_word;

PUBLIC void world_library_put(uintptr_t secret);
PUBLIC void world_library_put_fixed(uintptr_t secret);
PUBLIC void world_library_put_thread(uintptr_t secret);

void world_library_put(uintptr_t secret)
{
    word = secret;
    padding[999] = 1;
}

void world_library_put_fixed(uintptr_t secret)
{
    fixed_word = secret;
}

void world_library_put_thread(uintptr_t secret)
{
    thread_word = secret;
    thread_padding[99] = 1;
}
