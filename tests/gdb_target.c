/* SPDX-License-Identifier: MIT
 *
 * What check_gdb.sh looks at with gdb: a program that has objects of every kind and stops. With MALLOC defined it knows
 * nothing of vmkit, and has the library preloaded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#if defined(MALLOC)
#define ALLOC(size) malloc(size)
#define FREE(object) free(object)
#else
#include "vmkit.h"
#define ALLOC(size) vmk_heap_alloc(heap, size)
#define FREE(object) vmk_heap_free(heap, object)
static vmk_heap *heap; /* NULL: the default one */
#endif

char *small, *small_freed, *remote, *orphan, *large, *large_freed, *huge, *hardened, *hardened_freed;

__attribute__((noinline)) void stop_here(char *on_the_stack)
{
    memset(on_the_stack, 0, 1);
}

static void *in_thread(void *argument)
{
    (void)argument;
    FREE(remote);
    orphan = ALLOC(300);
    return NULL;
}

static void *take(size_t size)
{
    char *object = ALLOC(size);
    if (object == NULL)
        exit(9);
    memset(object, 1, size);
    return object;
}

int main(void)
{
    pthread_t thread;
    char on_the_stack[16];
    small = take(100);
    small_freed = take(100);
    FREE(small_freed);
    remote = take(1000);
    large = take(100000);
    large_freed = take(200000);
    huge = take((size_t)40 << 20);
    if (pthread_create(&thread, NULL, in_thread, NULL) != 0 || pthread_join(thread, NULL) != 0)
        return 9;
    FREE(large_freed); /* no earlier: the thread's cache would be there */
#if !defined(MALLOC)
    vmk_heap_options options = {.layout = VMK_LAYOUT_LIMITED, .flags = VMK_HEAP_HARDENED};
    if (vmk_heap_create(&heap, &options) != VMK_OK)
        return 9;
    hardened = take(100);
    hardened_freed = take(100);
    FREE(hardened_freed);
#endif
    stop_here(on_the_stack);
    return 0;
}
