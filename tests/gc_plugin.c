/* SPDX-License-Identifier: MIT
 *
 * A library that is loaded late: what it has keeps objects alive.
 */
#include "gc_plugin.h"

#if defined(_WIN32)
#define PLUGIN_API __declspec(dllexport)
#else
#define PLUGIN_API __attribute__((visibility("default")))
#endif

PLUGIN_API gc_plugin_place gc_plugin_zero;
PLUGIN_API gc_plugin_place gc_plugin_data;
PLUGIN_API gc_plugin_place gc_plugin_thread_zero;
PLUGIN_API gc_plugin_place gc_plugin_thread_data;

static void *volatile zero[GC_PLUGIN_PLACES];
static void *volatile data[GC_PLUGIN_PLACES] = {(void *)1};
static _Thread_local void *volatile thread_zero[GC_PLUGIN_PLACES];
static _Thread_local void *volatile thread_data[GC_PLUGIN_PLACES] = {(void *)1};

void *volatile *gc_plugin_zero(void)
{
    return zero;
}

void *volatile *gc_plugin_data(void)
{
    return data;
}

void *volatile *gc_plugin_thread_zero(void)
{
    return thread_zero;
}

void *volatile *gc_plugin_thread_data(void)
{
    return thread_data;
}
