/* SPDX-License-Identifier: MIT */
/* What is there from the beginning; more is in prelude.scm. Arguments are on the stack, so they outlive what a function
 * allocates. */
#include "lisp.h"

#include <string.h>

#define truth(is) ((is) ? TRUE : FALSE)

static value need(lisp *l, value x, enum kind kind)
{
    if (kind_of(x) != kind)
        fail(l, kind == PAIR ? "not a pair" : kind == INTEGER ? "not an integer" : "of the wrong kind", x);
    return x;
}

static int64_t number(lisp *l, value x)
{
    return integer_of(need(l, x, INTEGER));
}

static unsigned char letter(lisp *l, value x)
{
    if (kind_of(x) != CONSTANT || x < CHARACTER(0))
        fail(l, "not a character", x);
    return (unsigned char)(x >> 8);
}

/* One below `end`. */
static size_t index_in(lisp *l, value x, size_t end)
{
    if (number(l, x) < 0 || (uint64_t)number(l, x) >= end)
        fail(l, "out of range", x);
    return (size_t)number(l, x);
}

static value *item(lisp *l, value *a)
{
    return &items(need(l, a[0], VECTOR))[index_in(l, a[1], number_of(a[0]))];
}

static bool is_same(value x, value y)
{
    return x == y || (kind_of(x) == INTEGER && kind_of(y) == INTEGER && integer_of(x) == integer_of(y));
}

static value assq(value x, value list)
{
    for (; is_pair(list); list = rest(list))
        if (is_pair(first(list)) && is_same(first(first(list)), x))
            return first(list);
    return FALSE;
}

static bool is_same_string(lisp *l, value x, value y)
{
    size_t length = number_of(need(l, x, STRING));
    return number_of(need(l, y, STRING)) == length && memcmp(text_of(x), text_of(y), length) == 0;
}

/* Integers have 63 bits, so that sums, and products where they are right, are in range of int64_t. */
static value calculate(lisp *l, value *a, size_t count, char what)
{
    int64_t x = count > 1 ? number(l, a[0]) : what == '*';
    for (size_t i = count > 1; i < count; i++) {
        int64_t y = number(l, a[i]), product = (int64_t)((uint64_t)x * (uint64_t)y);
        if ((what == '/' || what == '%') && y == 0)
            fail(l, "division by zero", a[0]);
        if (what == '*' && x != 0 && product / x != y)
            product = INT64_MAX;
        product = what == '+' ? x + y : what == '-' ? x - y : product;
        x = in_range(l, what == '/' ? x / y : what == '%' ? x % y : product);
    }
    return new_integer(l, x);
}

/* Is the order of all neighbours, which is -1, 0 or 1, within these? */
static value in_order(lisp *l, value *a, size_t count, int low, int high)
{
    for (size_t i = 1; i < count; i++) {
        int64_t x = number(l, a[i - 1]), y = number(l, a[i]);
        if ((x > y) - (x < y) < low || (x > y) - (x < y) > high)
            return FALSE;
    }
    return TRUE;
}

static value substring(lisp *l, value *a)
{
    size_t end = index_in(l, a[2], number_of(need(l, a[0], STRING)) + 1), start = index_in(l, a[1], end + 1);
    return new_string(l, text_of(a[0]) + start, end - start);
}

static value string_append(lisp *l, value *a, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += number_of(need(l, a[i], STRING));
    value x = new_string(l, NULL, size);
    char *to = text_of(x);
    for (size_t i = 0; i < count; to += number_of(a[i++]))
        memcpy(to, text_of(a[i]), number_of(a[i]));
    return x;
}

static value list_to_string(lisp *l, value *a)
{
    size_t length = 0;
    for (value at = a[0]; is_pair(at); at = rest(at))
        length++;
    value x = new_string(l, NULL, length), at = a[0];
    for (size_t i = 0; i < length; i++, at = rest(at))
        text_of(x)[i] = (char)letter(l, first(at));
    return x;
}

static value make_vector(lisp *l, value *a)
{
    size_t size = index_in(l, a[0], SIZE_MAX);
    value x = new_object(l, VECTOR, size, size);
    for (size_t i = 0; i < size; i++)
        items(x)[i] = a[1];
    return x;
}

/* X(a name for C, the name, how many arguments at least and at most, the value) */
#define PRIMITIVES(X)                                                                                                  \
    X(cons, "cons", 2, 2, new_pair(l, a[0], a[1]))                                                                     \
    X(car, "car", 1, 1, first(need(l, a[0], PAIR)))                                                                    \
    X(cdr, "cdr", 1, 1, rest(need(l, a[0], PAIR)))                                                                     \
    X(set_car, "set-car!", 2, 2, (first(need(l, a[0], PAIR)) = a[1], NOTHING))                                         \
    X(set_cdr, "set-cdr!", 2, 2, (rest(need(l, a[0], PAIR)) = a[1], NOTHING))                                          \
    X(eq, "eq?", 2, 2, truth(is_same(a[0], a[1])))                                                                     \
    X(assq, "assq", 2, 2, assq(a[0], a[1]))                                                                            \
    X(not, "not", 1, 1, truth(a[0] == FALSE))                                                                          \
    X(null, "null?", 1, 1, truth(a[0] == NIL))                                                                         \
    X(char, "char?", 1, 1, truth(kind_of(a[0]) == CONSTANT && a[0] >= CHARACTER(0)))                                   \
    X(pair, "pair?", 1, 1, truth(is_pair(a[0])))                                                                       \
    X(symbol, "symbol?", 1, 1, truth(kind_of(a[0]) == SYMBOL))                                                         \
    X(string, "string?", 1, 1, truth(kind_of(a[0]) == STRING))                                                         \
    X(number, "number?", 1, 1, truth(kind_of(a[0]) == INTEGER))                                                        \
    X(vector, "vector?", 1, 1, truth(kind_of(a[0]) == VECTOR))                                                         \
    X(procedure, "procedure?", 1, 1,                                                                                   \
      truth(kind_of(a[0]) == CLOSURE || kind_of(a[0]) == PRIMITIVE || kind_of(a[0]) == CONTINUATION))                  \
    X(plus, "+", 0, ANY, calculate(l, a, count, '+'))                                                                  \
    X(minus, "-", 1, ANY, calculate(l, a, count, '-'))                                                                 \
    X(times, "*", 0, ANY, calculate(l, a, count, '*'))                                                                 \
    X(quotient, "quotient", 2, 2, calculate(l, a, count, '/'))                                                         \
    X(remainder, "remainder", 2, 2, calculate(l, a, count, '%'))                                                       \
    X(equal, "=", 1, ANY, in_order(l, a, count, 0, 0))                                                                 \
    X(less, "<", 1, ANY, in_order(l, a, count, -1, -1))                                                                \
    X(greater, ">", 1, ANY, in_order(l, a, count, 1, 1))                                                               \
    X(at_most, "<=", 1, ANY, in_order(l, a, count, -1, 0))                                                             \
    X(at_least, ">=", 1, ANY, in_order(l, a, count, 0, 1))                                                             \
    X(char_to_integer, "char->integer", 1, 1, small(letter(l, a[0])))                                                  \
    X(integer_to_char, "integer->char", 1, 1, CHARACTER(index_in(l, a[0], 256)))                                       \
    X(string_length, "string-length", 1, 1, small((intptr_t)number_of(need(l, a[0], STRING))))                         \
    X(string_ref, "string-ref", 2, 2, CHARACTER(text_of(need(l, a[0], STRING))[index_in(l, a[1], number_of(a[0]))]))   \
    X(string_equal, "string=?", 2, 2, truth(is_same_string(l, a[0], a[1])))                                            \
    X(substring, "substring", 3, 3, substring(l, a))                                                                   \
    X(string_append, "string-append", 0, ANY, string_append(l, a, count))                                              \
    X(list_to_string, "list->string", 1, 1, list_to_string(l, a))                                                      \
    X(string_to_number, "string->number", 1, 1, parse_integer(l, text_of(need(l, a[0], STRING)), number_of(a[0])))     \
    X(string_to_symbol, "string->symbol", 1, 1, intern(l, text_of(need(l, a[0], STRING)), number_of(a[0])))            \
    X(symbol_to_string, "symbol->string", 1, 1, items(need(l, a[0], SYMBOL))[NAME])                                    \
    X(make_vector, "make-vector", 2, 2, make_vector(l, a))                                                             \
    X(vector_length, "vector-length", 1, 1, small((intptr_t)number_of(need(l, a[0], VECTOR))))                         \
    X(vector_ref, "vector-ref", 2, 2, *item(l, a))                                                                     \
    X(vector_set, "vector-set!", 3, 3, (*item(l, a) = a[2], NOTHING))                                                  \
    X(display, "display-atom", 1, 1, (print(stdout, a[0]), NOTHING))                                                   \
    X(read_file, "read-file", 1, 1, read_file(l, text_of(need(l, a[0], STRING))))                                      \
    X(arguments, "arguments", 0, 0, l->arguments)                                                                      \
    X(collect, "collect", 0, 0, (vmk_gc_collect(l->gc), NOTHING))                                                      \
    X(error, "error", 1, 2, (fail(l, text_of(need(l, a[0], STRING)), count > 1 ? a[1] : NOTHING), NOTHING))

#define FUNCTION(id, name, least, most, result)                                                                        \
    static value primitive_##id(lisp *l, value *a, size_t count)                                                       \
    {                                                                                                                  \
        (void)l, (void)a, (void)count;                                                                                 \
        return result;                                                                                                 \
    }
PRIMITIVES(FUNCTION)

#define ROW(id, name, least, most, result) {name, least, most, primitive_##id},
const primitive primitives[] = {
    [PRIMITIVE_APPLY] = {"apply", 2, ANY, NULL}, [PRIMITIVE_CALLCC] = {"call/cc", 1, 1, NULL}, PRIMITIVES(ROW)};

static const char prelude[] = {
#include "lisp_prelude.h" /* made of prelude.scm when this is built: see examples/CMakeLists.txt */
};

void define_builtins(lisp *l)
{
    for (size_t i = 0; i < sizeof primitives / sizeof primitives[0]; i++) {
        value name = intern(l, primitives[i].name, strlen(primitives[i].name));
        items(name)[VALUE] = new_object(l, PRIMITIVE, i, 0);
    }
    load(l, "prelude.scm", new_string(l, prelude, sizeof prelude));
}
