/* SPDX-License-Identifier: MIT
 *
 * A small Lisp, in the manner of Scheme, all of whose objects live in a collected heap of vmkit's: pairs and numbers,
 * but also symbols and their table, variables and the stack. All that concerns the collector is in memory.c. Then come
 * text.c, which reads, eval.c, the machine, and builtins.c; what can be said in the Lisp itself is in prelude.scm.
 *
 * A value is a word, and its last bits say what it is:
 *
 *   ...1    an integer, in the rest of the word
 *   ...10   a character, or one of the constants below
 *   ...00   the address of an object; 0 where there is none
 */
#ifndef LISP_H
#define LISP_H

#include <stdio.h>

#include "vmkit.h"

typedef uintptr_t value;

enum { FALSE = 2, TRUE = 6, NIL = 10, NOTHING = 14, UNDEFINED = 18, END = 22 };
#define CHARACTER(c) ((value)(unsigned char)(c) << 8 | 34)

/* An object is a word with its kind, and above it a number, and then its items or its text. */
enum kind {
    PAIR,         /* first, rest, and where it was read: see lisp.place */
    SYMBOL,       /* name, global value, next in the table's row; the number of a special form */
    VARIABLE,     /* symbol, value, the next further out: a list of these is an environment */
    CLOSURE,      /* parameters and body, environment */
    VECTOR,       /* here and below the number is the size */
    CONTINUATION, /* the stack */
    PRIMITIVE,    /* its number; from here on there are no values in it */
    STRING,
    INTEGER, /* that does not fit into a word */
    CONSTANT /* is no object */
};
enum { KIND_BITS = 4, NAME = 0, VALUE = 1, NEXT = 2, FILES = 64, ANY = 1 << 20 };

/* The whole state: all values that are not in objects are here. */
typedef struct lisp {
    vmk_gc *gc;
    bool precise;
    vmk_gc_type *node, *vector;          /* if it is precise */
    value *stack, *top, *limit;          /* an object, too; values up to the top */
    value environment, cell, result;     /* where it evaluates what, and what came out */
    value symbols, arguments;            /* a vector of lists; those of the program, strings */
    value hold[3];                       /* what is to be put into the object that is being allocated */
    intptr_t place, text_place;          /* of the form, of the text: line * FILES + number of the file */
    const char *files[FILES], *at, *end; /* their names; the rest of the text */
    size_t file;
    int nesting; /* of lists in the text, so that C's recursion has an end */
} lisp;

typedef struct primitive {
    const char *name;
    size_t least, most;                                 /* arguments */
    value (*function)(lisp *l, value *a, size_t count); /* NULL: the machine's own affair */
} primitive;
extern const primitive primitives[];
enum { PRIMITIVE_APPLY, PRIMITIVE_CALLCC };

void lisp_init(lisp *l, const vmk_gc_options *options); /* memory.c */
value new_object(lisp *l, enum kind kind, size_t number, size_t size);
value new_node(lisp *l, enum kind kind, value a, value b, value c);
value new_string(lisp *l, const char *text, size_t length); /* without a text: zero */
value new_integer(lisp *l, int64_t number);
int64_t in_range(lisp *l, int64_t number);
value intern(lisp *l, const char *name, size_t length);
void push(lisp *l, value x);

_Noreturn void fail(lisp *l, const char *what, value with); /* text.c; with NOTHING: with nothing */
void print(FILE *to, value x);
value parse_integer(lisp *l, const char *text, size_t length); /* FALSE: it is none */
value read_file(lisp *l, const char *name);                    /* NULL: standard input */
void load(lisp *l, const char *name, value text);

void define_forms(lisp *l); /* eval.c */
void run(lisp *l, value cell);
void define_builtins(lisp *l); /* builtins.c */

#define is_object(x) (((x)&3) == 0)
#define head(x) (*(uintptr_t *)(x))
#define number_of(x) (head(x) >> KIND_BITS)
#define items(x) ((value *)(x) + 1)
#define first(x) (items(x)[0])
#define rest(x) (items(x)[1])
#define text_of(x) ((char *)items(x))
#define new_pair(l, a, b) new_node(l, PAIR, a, b, 0)
#define is_pair(x) (kind_of(x) == PAIR)
#define small(n) ((value)(intptr_t)(n) << 1 | 1)
#define small_of(x) ((intptr_t)(x) >> 1)
#define integer_of(x) (((x)&1) != 0 ? small_of(x) : *(int64_t *)((uintptr_t *)(x) + 2))

static inline enum kind kind_of(value x)
{
    return is_object(x) ? (enum kind)(head(x) & ((1u << KIND_BITS) - 1)) : (x & 1) != 0 ? INTEGER : CONSTANT;
}

#endif
