/* SPDX-License-Identifier: MIT */
/* All that concerns the collector: the kinds of objects, and what is a root.
 *
 * Conservative, nothing of it is needed: the struct lisp is on the stack of main, and the collector takes what it finds
 * there, and in all objects but leaves, for addresses where it can. Precise, it is told where values are, and the rule
 * for the rest of the program is: whenever something is allocated, all that is still needed can be reached from the
 * struct lisp. Mostly it is on the Lisp's own stack. */
#include "lisp.h"

#include <string.h>

enum { ROWS = 509, STACK_FIRST = 4096, STACK_MAX = 4 << 20 };

static void visit(vmk_gc_visitor *visitor, const value *at, size_t count)
{
    for (; count > 0; at++, count--)
        if (is_object(*at))
            vmk_gc_visit(visitor, (void *)*at);
}

static void trace_vector(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    (void)context, (void)size;
    visit(visitor, items(object), number_of(object));
}

static void trace_roots(void *context, void *object, size_t size, vmk_gc_visitor *visitor)
{
    const lisp *l = context;
    const value roots[] = {l->environment, l->cell,    l->result,  l->symbols,
                           l->arguments,   l->hold[0], l->hold[1], l->hold[2]};
    (void)object, (void)size;
    vmk_gc_visit(visitor, l->stack);
    visit(visitor, l->stack, (size_t)(l->top - l->stack));
    visit(visitor, roots, sizeof roots / sizeof roots[0]);
}

static void be_precise(lisp *l)
{
    static const size_t map = 7u << 1; /* the head is no pointer, three items are */
    const vmk_gc_layout node = {.name = "node", .size = 4 * sizeof(value), .pointers = &map};
    const vmk_gc_layout vector = {.name = "vector", .size = sizeof(value), .trace = trace_vector};
    if (vmk_gc_tracer_add(l->gc, trace_roots, l) != VMK_OK || vmk_gc_type_create(l->gc, &node, &l->node) != VMK_OK ||
        vmk_gc_type_create(l->gc, &vector, &l->vector) != VMK_OK)
        fail(l, "out of memory", NOTHING);
}

static void *check(lisp *l, void *memory)
{
    if (memory == NULL)
        fail(l, "out of memory", NOTHING);
    return memory;
}

/* So many words, all zero: to be filled before the next allocation. */
value new_object(lisp *l, enum kind kind, size_t number, size_t count)
{
    size_t size = count < SIZE_MAX / 64 ? (count + 1) * sizeof(value) : SIZE_MAX;
    void *x = kind >= PRIMITIVE ? vmk_gc_alloc_leaf(l->gc, size)
              : !l->precise     ? vmk_gc_alloc(l->gc, size)
              : kind < VECTOR   ? vmk_gc_alloc_typed(l->gc, l->node, 1)
                                : vmk_gc_alloc_typed(l->gc, l->vector, size / sizeof(value));
    head(check(l, x)) = (uintptr_t)number << KIND_BITS | (uintptr_t)kind;
    return (value)x;
}

value new_node(lisp *l, enum kind kind, value a, value b, value c)
{
    l->hold[0] = a, l->hold[1] = b, l->hold[2] = c;
    value x = new_object(l, kind, 0, 3);
    items(x)[0] = a, items(x)[1] = b, items(x)[2] = c;
    return x;
}

value new_string(lisp *l, const char *text, size_t length)
{
    value x = new_object(l, STRING, length, length / sizeof(value) + 1); /* there is a zero behind it */
    if (text != NULL)
        memcpy(text_of(x), text, length);
    return x;
}

int64_t in_range(lisp *l, int64_t number)
{
    if (number >= INT64_C(1) << 62 || number < -(INT64_C(1) << 62))
        fail(l, "an integer is too large", NOTHING);
    return number;
}

value new_integer(lisp *l, int64_t number)
{
    if (small_of(small(in_range(l, number))) == number)
        return small(number);
    value x = new_object(l, INTEGER, 0, 3);
    *(int64_t *)((uintptr_t *)x + 2) = number; /* aligned */
    return x;
}

value intern(lisp *l, const char *name, size_t length)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    value *row = &items(l->symbols)[hash % ROWS];
    for (value x = *row; x != NIL; x = items(x)[NEXT])
        if (number_of(items(x)[NAME]) == length && memcmp(text_of(items(x)[NAME]), name, length) == 0)
            return x;
    return *row = new_node(l, SYMBOL, new_string(l, name, length), UNDEFINED, *row);
}

/* Precise, the stack is a leaf: trace_roots knows how much of it is used. */
void push(lisp *l, value x)
{
    if (l->top == l->limit) {
        size_t used = (size_t)(l->top - l->stack);
        l->hold[0] = x;
        if (used > STACK_MAX / 2)
            fail(l, "recursion is too deep", NOTHING);
        l->stack = check(l, vmk_gc_realloc(l->gc, l->stack, used * 2 * sizeof(value)));
        l->top = l->stack + used;
        l->limit = l->top + used;
    }
    *l->top++ = x;
}

void lisp_init(lisp *l, const vmk_gc_options *options)
{
    *l = (lisp){.precise = (options->flags & VMK_GC_NO_STACKS) != 0, .environment = NIL, .arguments = NIL};
    vmk_status status = vmk_gc_create(&l->gc, options);
    if (status != VMK_OK)
        fail(l, vmk_status_text(status), NOTHING);
    if (l->precise)
        be_precise(l);
    size_t size = STACK_FIRST * sizeof(value);
    l->stack = l->top = check(l, l->precise ? vmk_gc_alloc_leaf(l->gc, size) : vmk_gc_alloc(l->gc, size));
    l->limit = l->stack + STACK_FIRST;
    l->symbols = new_object(l, VECTOR, ROWS, ROWS);
    for (size_t i = 0; i < ROWS; i++)
        items(l->symbols)[i] = NIL;
    define_forms(l);
    define_builtins(l);
}
