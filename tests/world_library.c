/* SPDX-License-Identifier: MIT
 *
 * A library that test_world_posix loads late: data of its own, and thread-local storage, which each thread gets when it
 * first uses it; or, where WORLD_FIXED is defined, which is at a fixed distance from the thread pointer, in room that
 * the loader has spare.
 */
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))

#if defined(WORLD_FIXED)
#define OWN __attribute__((tls_model("initial-exec"))) _Thread_local
#define PADDING 10
#else
#define OWN _Thread_local
#define PADDING 1000
#endif

static volatile uintptr_t word;
static volatile uintptr_t padding[1000];
static OWN volatile uintptr_t thread_word;
static OWN volatile uintptr_t thread_padding[PADDING];

PUBLIC void world_library_put(uintptr_t secret);
PUBLIC void world_library_put_thread(uintptr_t secret);

void world_library_put(uintptr_t secret)
{
    word = secret;
    padding[999] = 1;
}

void world_library_put_thread(uintptr_t secret)
{
    thread_word = secret;
    thread_padding[PADDING - 1] = 1;
}
