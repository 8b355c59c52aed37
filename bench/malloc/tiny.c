/* SPDX-License-Identifier: MIT
 *
 * Tiny objects that live shortly, as programs make them that compute with long numbers or with sets of bits: two
 * operands are picked among a few hundred, the result is a new object, temporaries die at once, and the oldest values
 * are dropped. SIZE: thousands of operations.
 */
#include <string.h>

#include "work.h"

enum { VALUES = 512, WORDS_MAX = 6, TEMPORARIES = 3 };

typedef struct value {
    uint32_t references;
    uint32_t words;
    uint32_t word[]; /* as many as that */
} value;

static value *value_new(size_t words)
{
    value *result = malloc(sizeof *result + words * sizeof result->word[0]);
    if (result == NULL)
        work_fail("no memory");
    result->references = 1;
    result->words = (uint32_t)words;
    return work_escape(result);
}

static void value_release(value *v)
{
    if (v != NULL && --v->references == 0)
        free(v);
}

static value *value_add(const value *a, const value *b)
{
    size_t words = a->words > b->words ? a->words : b->words;
    value *result = value_new(words);
    for (size_t i = 0; i < words; i++)
        result->word[i] = (i < a->words ? a->word[i] : 0) + (i < b->words ? b->word[i] : 0);
    return result;
}

/* With a temporary for each step, all of them dropped when the result is there. */
static value *value_mix(value *a, value *b, size_t words)
{
    value *temporary[TEMPORARIES];
    temporary[0] = value_add(a, b);
    for (size_t i = 1; i < TEMPORARIES; i++)
        temporary[i] = value_add(temporary[i - 1], i % 2 == 0 ? a : b);
    value *result = value_new(words);
    const value *last = temporary[TEMPORARIES - 1];
    for (size_t i = 0; i < words; i++) { /* the shift, or all values would soon be zero: the sums are even */
        uint32_t word = last->word[i % last->words];
        result->word[i] = (word ^ word >> 15) * 2654435761u + (uint32_t)i;
    }
    for (size_t i = 0; i < TEMPORARIES; i++)
        value_release(temporary[i]);
    return result;
}

int main(int argc, char **argv)
{
    static value *values[VALUES];
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = value_new(1);
        values[i]->word[0] = (uint32_t)i;
    }
    for (size_t i = 0; i < arguments.size * 1000; i++) {
        value *a = values[work_below(&random, VALUES)], *b = values[work_below(&random, VALUES)];
        value *result = value_mix(a, b, work_between(&random, 1, WORDS_MAX));
        value_release(values[i % VALUES]);
        values[i % VALUES] = result;
        sum += result->word[0];
        if (i % 8 == 0) { /* the same object in two places, as values that are shared */
            size_t other = work_below(&random, VALUES);
            result->references++;
            value_release(values[other]);
            values[other] = result;
        }
    }
    for (size_t i = 0; i < VALUES; i++)
        value_release(values[i]);
    return work_end(sum);
}
