/* SPDX-License-Identifier: MIT */
/* The machine. What is being evaluated is the first of a pair, the cell; what is to be done with the result is in a
 * frame on the stack. So no recursion of the Lisp is one of C, a call that is the last thing to be done leaves nothing
 * on the stack, and a continuation is a copy of it. Macros are expanded where they stand. */
#include "lisp.h"

#include <string.h>

/* The numbers of the symbols of special forms, and of the frames that wait for parts of them. */
enum form { CALL, MACRO, DEFINE, DEFINE_MACRO, SET, IF, BEGIN, QUOTE, LAMBDA, FORMS };
enum { FORM_BITS = 4 };

void define_forms(lisp *l)
{
    static const char *const names[] = {"define", "define-macro", "set!", "if", "begin", "quote", "lambda"};
    for (uintptr_t i = DEFINE; i < FORMS; i++)
        head(intern(l, names[i - DEFINE], strlen(names[i - DEFINE]))) |= i << KIND_BITS;
}

static enum form form_of(value x)
{
    return is_pair(x) && kind_of(first(x)) == SYMBOL ? (enum form)number_of(first(x)) : CALL;
}

/* The rest of a form from a part on, counted from 0, which must be there. */
static value from(lisp *l, value form, int part)
{
    for (value at = form; is_pair(at); at = rest(at))
        if (part-- == 0)
            return at;
    fail(l, "an incomplete form", first(form));
}

static value *find(lisp *l, value name, bool defined)
{
    value at = l->environment;
    while (at != NIL && items(at)[NAME] != name)
        at = items(at)[NEXT];
    if (at == NIL && kind_of(name) != SYMBOL)
        fail(l, "not a name", name);
    value *found = &items(at != NIL ? at : name)[VALUE];
    if (defined && *found == UNDEFINED)
        fail(l, "not defined", name);
    return found;
}

static void bind(lisp *l, value name, value x)
{
    if (kind_of(name) != SYMBOL)
        fail(l, "not a name", name);
    l->environment = new_node(l, VARIABLE, name, x, l->environment);
}

static void push_frame(lisp *l, enum form waiting, size_t count, value cell)
{
    push(l, cell);
    push(l, l->environment);
    push(l, small(l->place));
    push(l, small((intptr_t)(count << FORM_BITS | waiting)));
}

/* Functions from here on answer whether there is a result, for the frame on top; else there is a cell to evaluate. */
static bool finish(lisp *l, value x)
{
    l->result = x;
    return true;
}

static bool begin(lisp *l, value forms)
{
    if (!is_pair(forms))
        return finish(l, NOTHING);
    l->cell = forms;
    if (is_pair(rest(forms)))
        push_frame(l, BEGIN, 0, rest(forms));
    return false;
}

static bool enter(lisp *l, value closure, size_t count)
{
    value names = first(first(closure)), body = rest(first(closure));
    value *a = l->top - count, *end = l->top;
    l->environment = rest(closure);
    for (; is_pair(names) && a < end; names = rest(names))
        bind(l, first(names), *a++);
    if (kind_of(names) == SYMBOL) {
        value list = NIL;
        while (a < end)
            list = new_pair(l, *--end, list);
        bind(l, names, list);
    } else if (names != NIL || a < end) {
        fail(l, "called with a wrong number of arguments", small((intptr_t)count));
    }
    for (value at = body; is_pair(at); at = rest(at))
        if (form_of(first(at)) == DEFINE) {
            value name = first(from(l, first(at), 1));
            bind(l, is_pair(name) ? first(name) : name, UNDEFINED);
        }
    l->top -= count + 1;
    return begin(l, body);
}

/* Put the arguments of apply, the last of which is a list, where those of the function are that it calls. */
static size_t spread(lisp *l, size_t count)
{
    l->cell = *--l->top;
    memmove(l->top - count, l->top - count + 1, (count - 1) * sizeof(value));
    l->top--;
    for (count -= 2; is_pair(l->cell); l->cell = rest(l->cell), count++)
        push(l, first(l->cell));
    return count;
}

static bool resume(lisp *l, value continuation, value x)
{
    l->cell = continuation, l->result = x;
    for (l->top = l->stack; l->top < l->stack + number_of(continuation);)
        push(l, items(continuation)[l->top - l->stack]);
    return true;
}

static bool call(lisp *l, size_t count)
{
    for (;;) {
        value function = *(l->top - count - 1);
        enum kind kind = kind_of(function);
        if (kind == CLOSURE)
            return enter(l, function, count);
        if (kind == CONTINUATION && count == 1)
            return resume(l, function, l->top[-1]);
        if (kind != PRIMITIVE)
            fail(l, "not a function", function);
        const primitive *p = &primitives[number_of(function)];
        if (count < p->least || count > p->most)
            fail(l, "called with a wrong number of arguments", small((intptr_t)count));
        if (p->function != NULL) {
            value x = p->function(l, l->top - count, count);
            l->top -= count + 1;
            return finish(l, x);
        }
        if (number_of(function) == PRIMITIVE_APPLY) {
            count = spread(l, count);
        } else { /* call/cc: the continuation is the stack but for these two */
            size_t size = (size_t)(l->top - l->stack) - 2;
            value continuation = new_object(l, CONTINUATION, size, size);
            memcpy(items(continuation), l->stack, size * sizeof(value));
            l->top[-2] = l->top[-1];
            l->top[-1] = continuation;
        }
    }
}

/* What has a value at once. */
static bool is_simple(lisp *l, value x)
{
    if (kind_of(x) == SYMBOL)
        return finish(l, *find(l, x, true));
    if (!is_pair(x))
        return finish(l, x);
    if (form_of(x) == QUOTE)
        return finish(l, first(from(l, x, 1)));
    if (form_of(x) == LAMBDA && from(l, x, 2) != NIL)
        return finish(l, new_node(l, CLOSURE, rest(x), l->environment, 0));
    return false;
}

/* Function and arguments from a cell on, with so many before them on the stack. */
static bool evaluate_call(lisp *l, value cell, size_t count)
{
    for (; is_pair(cell); cell = rest(cell), count++) {
        l->cell = cell;
        if (!is_simple(l, first(cell))) {
            push_frame(l, CALL, count, cell);
            return false;
        }
        push(l, l->result);
    }
    return call(l, count - 1);
}

static bool choose(lisp *l, value test)
{
    value cell = from(l, test, 1);
    l->cell = l->result == FALSE ? rest(cell) : cell;
    return is_pair(l->cell) ? false : finish(l, NOTHING);
}

/* (define (name . parameters) . body) becomes (define name (lambda parameters . body)). */
static void simplify_definition(lisp *l, value form)
{
    value target = first(from(l, form, 1));
    value lambda = new_pair(l, rest(target), from(l, form, 2));
    lambda = new_pair(l, intern(l, "lambda", 6), lambda);
    lambda = new_pair(l, lambda, NIL);
    rest(form) = new_pair(l, first(target), lambda);
}

static bool evaluate(lisp *l)
{
    value form = first(l->cell);
    enum form which = form_of(form);
    if (is_simple(l, form))
        return true;
    if (items(form)[NEXT] != 0)
        l->place = small_of(items(form)[NEXT]);
    switch (which) {
    case IF:
        form = from(l, form, 1);
        if (is_simple(l, first(form)))
            return choose(l, form);
        push_frame(l, IF, 0, form);
        l->cell = form;
        return false;
    case BEGIN:
        return begin(l, rest(form));
    case DEFINE:
    case DEFINE_MACRO:
        if (is_pair(first(from(l, form, 1))))
            simplify_definition(l, form);
        /* fall through */
    case SET:
        push_frame(l, which, 0, rest(form));
        l->cell = from(l, form, 2);
        return false;
    case MACRO:
        push_frame(l, MACRO, 0, l->cell);
        push(l, items(first(form))[VALUE]);
        size_t count = 0;
        for (form = rest(first(l->cell)); is_pair(form); form = rest(form), count++)
            push(l, first(form));
        return call(l, count);
    default:
        return evaluate_call(l, form, 0);
    }
}

/* Give the result to the frame on top. */
static bool go_on(lisp *l)
{
    l->top -= 4;
    intptr_t frame = small_of(l->top[3]);
    value cell = l->cell = l->top[0];
    l->environment = l->top[1];
    l->place = small_of(l->top[2]);
    enum form waiting = (enum form)(frame & ((1 << FORM_BITS) - 1));
    switch (waiting) {
    case CALL:
        push(l, l->result);
        return evaluate_call(l, rest(cell), (size_t)(frame >> FORM_BITS) + 1);
    case IF:
        return choose(l, cell);
    case BEGIN:
        return begin(l, cell);
    case SET:
        *find(l, first(cell), true) = l->result;
        return finish(l, NOTHING);
    case MACRO:
        if (is_pair(l->result) && items(l->result)[NEXT] == 0)
            items(l->result)[NEXT] = small(l->place);
        first(cell) = l->result;
        return false;
    default:
        *find(l, first(cell), false) = l->result;
        if (waiting == DEFINE_MACRO)
            head(first(cell)) |= (uintptr_t)MACRO << KIND_BITS;
        return finish(l, NOTHING);
    }
}

void run(lisp *l, value cell)
{
    ptrdiff_t floor = l->top - l->stack;
    l->environment = NIL;
    l->cell = cell;
    for (bool have = false; !have || l->top - l->stack > floor;)
        have = have ? go_on(l) : evaluate(l);
}
