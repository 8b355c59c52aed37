/* SPDX-License-Identifier: MIT
 *
 * What gc_plugin.c has: places for pointers, of the library and of each thread.
 */
#ifndef VMKIT_TESTS_GC_PLUGIN_H
#define VMKIT_TESTS_GC_PLUGIN_H

enum { GC_PLUGIN_PLACES = 64 };

typedef void *volatile *gc_plugin_place(void);

#endif
