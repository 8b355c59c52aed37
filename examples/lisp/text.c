/* SPDX-License-Identifier: MIT */
/* Text to values; values to text, but for lists, which prelude.scm can do; what is said when something is wrong. */
#include "lisp.h"

#include <stdlib.h>
#include <string.h>

enum { NESTING_MAX = 1000, CONSTANTS = 3, CHARACTERS = 4 };
static const char *const constants[CONSTANTS] = {"#f", "#t", "()"};
static const char *const characters[CHARACTERS] = {" space", "\nnewline", "\ttab", "\rreturn"};

static bool next_is(const lisp *l, const char *set)
{
    return l->at < l->end && *l->at != '\0' && strchr(set, *l->at) != NULL;
}

static void skip(lisp *l)
{
    l->text_place += *l->at++ == '\n' ? FILES : 0;
}

static void skip_space(lisp *l)
{
    for (bool comment = false; l->at < l->end; skip(l)) {
        comment = *l->at != '\n' && (comment || *l->at == ';');
        if (!comment && !next_is(l, " \t\r\n"))
            return;
    }
}

static value read_string(lisp *l)
{
    static const char escapes[] = "n\nt\tr\r"; /* what is behind a backslash, and what it stands for */
    const char *end = l->at + 1;
    size_t length = 0;
    for (; end < l->end && *end != '"'; end++, length++)
        end += *end == '\\' && end + 1 < l->end;
    if (end == l->end)
        fail(l, "a string has no end", NOTHING);
    value x = new_string(l, NULL, length);
    skip(l);
    for (char *to = text_of(x); l->at < end; skip(l)) {
        bool escaped = *l->at == '\\';
        l->at += escaped;
        const char *escape = escaped ? strchr(escapes, *l->at) : NULL;
        *to++ = escape != NULL ? escape[1] : *l->at;
    }
    skip(l);
    return x;
}

value parse_integer(lisp *l, const char *text, size_t length)
{
    size_t sign = length > 1 && (*text == '-' || *text == '+');
    int64_t number = 0;
    for (size_t i = sign; i < length; i++)
        if (text[i] < '0' || text[i] > '9')
            return FALSE;
    for (size_t i = sign; i < length; i++)
        number = in_range(l, number > INT64_MAX / 20 ? INT64_MAX : number * 10 + (text[i] - '0'));
    return length == 0 ? FALSE : new_integer(l, *text == '-' ? -number : number);
}

static value read_atom(lisp *l)
{
    const char *start = l->at;
    bool is_character = l->end - start > 2 && memcmp(start, "#\\", 2) == 0;
    l->at += is_character ? 3 : 1; /* whatever comes there */
    while (l->at < l->end && !next_is(l, " \t\r\n()\";'"))
        l->at++;
    size_t length = (size_t)(l->at - start);
    for (value i = 0; i < CONSTANTS; i++)
        if (length == 2 && memcmp(constants[i], start, 2) == 0)
            return i << 2 | FALSE;
    for (size_t i = 0; is_character && i < CHARACTERS; i++)
        if (strlen(characters[i]) == length - 1 && memcmp(characters[i] + 1, start + 2, length - 2) == 0)
            return CHARACTER(characters[i][0]);
    if (is_character && length == 3)
        return CHARACTER(start[2]);
    if (*start == '#')
        fail(l, "unknown syntax", new_string(l, start, length));
    value number = parse_integer(l, start, length);
    return number != FALSE ? number : intern(l, start, length);
}

static value read(lisp *l);

/* The list grows at its end; its beginning is on the stack. */
static value read_list(lisp *l)
{
    value last = NIL, dot = intern(l, ".", 1);
    for (push(l, NIL), skip(l), skip_space(l); !next_is(l, ")"); skip_space(l)) {
        value place = small(l->text_place), x = read(l);
        if (x == dot && last != NIL) {
            rest(last) = x = read(l);
            skip_space(l);
            if (!next_is(l, ")"))
                fail(l, "a dot in the wrong place", NOTHING);
            break;
        }
        if (x == END)
            fail(l, "a list has no end", NOTHING);
        x = new_node(l, PAIR, x, NIL, place);
        *(last == NIL ? &l->top[-1] : &rest(last)) = x;
        last = x;
    }
    skip(l);
    return *--l->top;
}

static value read(lisp *l)
{
    skip_space(l);
    l->place = l->text_place;
    if (l->at == l->end)
        return END;
    if (next_is(l, ")"))
        fail(l, "a closing bracket too many", NOTHING);
    if (++l->nesting > NESTING_MAX)
        fail(l, "nested too deeply", NOTHING);
    bool quoted = next_is(l, "'");
    if (quoted)
        skip(l);
    value x = quoted ? read(l) : next_is(l, "(") ? read_list(l) : next_is(l, "\"") ? read_string(l) : read_atom(l);
    if (quoted && x == END)
        fail(l, "nothing is quoted", NOTHING);
    if (quoted)
        x = new_pair(l, intern(l, "quote", 5), new_pair(l, x, NIL));
    l->nesting--;
    return x;
}

value read_file(lisp *l, const char *name)
{
    FILE *file = name != NULL ? fopen(name, "rb") : stdin;
    if (file == NULL)
        fail(l, "no such file", new_string(l, name, strlen(name)));
    value x = new_string(l, NULL, 4096);
    size_t used = 0;
    while ((used += fread(text_of(x) + used, 1, number_of(x) - used, file)) == number_of(x)) {
        push(l, x); /* it is full: on with twice the size */
        x = new_string(l, NULL, used * 2);
        memcpy(text_of(x), text_of(*--l->top), used);
    }
    head(x) = (uintptr_t)used << KIND_BITS | STRING;
    fclose(file);
    return x;
}

void load(lisp *l, const char *name, value text)
{
    l->file += l->file + 1 < FILES; /* the last of too many have one name */
    l->files[l->file] = name;
    l->text_place = FILES + (intptr_t)l->file;
    l->at = text_of(text);
    l->end = l->at + number_of(text);
    push(l, text);
    for (value x; (x = read(l)) != END;)
        run(l, new_pair(l, x, NIL));
    l->top--;
    l->place = 0;
}

void print(FILE *to, value x)
{
    switch (kind_of(x)) {
    case INTEGER:
        fprintf(to, "%lld", (long long)integer_of(x));
        break;
    case SYMBOL:
    case STRING:
        x = kind_of(x) == SYMBOL ? items(x)[NAME] : x;
        fwrite(text_of(x), 1, number_of(x), to);
        break;
    case CONSTANT:
        if (x >= CHARACTER(0))
            putc((int)(x >> 8), to);
        else if (x < NOTHING)
            fputs(constants[x >> 2], to);
        break;
    default:
        fputs(is_pair(x) ? "a list" : kind_of(x) == VECTOR ? "a vector" : "a function", to);
    }
}

void fail(lisp *l, const char *what, value with)
{
    fflush(stdout);
    if (l->place != 0)
        fprintf(stderr, "%s:%ld: ", l->files[l->place % FILES], (long)(l->place / FILES));
    fprintf(stderr, "%s", what);
    if (with != NOTHING) {
        fputs(": ", stderr);
        print(stderr, with);
    }
    putc('\n', stderr);
    exit(1);
}
