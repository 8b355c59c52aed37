/* SPDX-License-Identifier: MIT
 *
 * Chains of objects that say themselves whether they are what they were.
 */
#ifndef VMKIT_TESTS_GC_CHAIN_H
#define VMKIT_TESTS_GC_CHAIN_H

#include <string.h>

#include "vmkit.h"

typedef struct chain_link {
    struct chain_link *next;
    uintptr_t number;
    uintptr_t check;
} chain_link;

static inline uintptr_t check_of(uintptr_t number)
{
    return (number + 1) * (uintptr_t)0x9e3779b1u;
}

static inline chain_link *chain_add(vmk_gc *gc, chain_link *rest, uintptr_t number)
{
    chain_link *one = vmk_gc_alloc(gc, sizeof *one);
    if (one == NULL)
        return NULL;
    one->number = number;
    one->check = check_of(number);
    one->next = rest;
    return one;
}

/* Are they there, with descending numbers from `number`? */
static inline bool chain_whole(const chain_link *chain, uintptr_t number)
{
    for (; chain != NULL; chain = chain->next, number--)
        if (chain->number != number || chain->check != check_of(number))
            return false;
    return number == 0;
}

static inline chain_link *chain_make(vmk_gc *gc, uintptr_t count)
{
    chain_link *chain = NULL;
    for (uintptr_t i = 1; i <= count; i++)
        chain = chain_add(gc, chain, i);
    return chain;
}

/* Take the slots of what was lost, and write all over them. */
static inline void overwrite(vmk_gc *gc, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        unsigned char *object = vmk_gc_alloc(gc, sizeof(chain_link));
        if (object != NULL)
            memset(object, 0xa5, sizeof(chain_link));
    }
}

#endif
