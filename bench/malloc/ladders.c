/* SPDX-License-Identifier: MIT
 *
 * Strings and vectors that grow by realloc, many at once, in turn at random: some double their size when they are full,
 * some grow by half, some by as little as they need. One that has reached its length is freed and begun again.
 * SIZE: thousands of pieces that are appended.
 */
#include <string.h>

#include "work.h"

enum { LADDERS = 256, KINDS = 4, PIECE_MIN = 8, PIECE_MAX = 120 };

typedef struct ladder {
    unsigned char *bytes;
    size_t length;
    size_t capacity;
    size_t end; /* it is begun again at this length */
} ladder;

static size_t grown(size_t kind, size_t capacity, size_t needed)
{
    size_t wanted = kind == 0   ? needed
                    : kind == 1 ? capacity + capacity / 2
                    : kind == 2 ? capacity + 256
                                : capacity * 2;
    return wanted > needed ? wanted : needed;
}

/* Lengths to which they grow: short strings mostly, few vectors of up to 4 MiB, and no vector that grows by bytes. */
static size_t end_of(size_t kind, uint64_t *random)
{
    size_t most = (size_t)1 << work_between(random, 7, kind == 0 ? 14 : kind == 2 ? 16 : 22);
    return work_between(random, most / 2, most);
}

static uint64_t restart(ladder *self, size_t kind, uint64_t *random)
{
    uint64_t sum = self->length;
    for (size_t i = 0; i < self->length; i += 1024)
        sum += self->bytes[i];
    free(self->bytes);
    memset(self, 0, sizeof *self);
    self->end = end_of(kind, random);
    return sum;
}

static void append(ladder *self, size_t kind, size_t piece, int byte)
{
    if (self->length + piece > self->capacity) {
        self->capacity = grown(kind, self->capacity, self->length + piece);
        self->bytes = work_escape(realloc(self->bytes, self->capacity));
        if (self->bytes == NULL)
            work_fail("no memory");
    }
    memset(self->bytes + self->length, byte, piece);
    self->length += piece;
}

int main(int argc, char **argv)
{
    static ladder ladders[LADDERS];
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    for (size_t i = 0; i < LADDERS; i++)
        ladders[i].end = end_of(i % KINDS, &random);
    for (size_t i = 0; i < arguments.size * 1000; i++) {
        size_t index = work_below(&random, LADDERS), kind = index % KINDS;
        size_t piece = work_between(&random, PIECE_MIN, PIECE_MAX);
        /* Larger pieces for what becomes larger, or the large ones would never be ready. */
        piece *= kind == 1 || kind == 3 ? ladders[index].end / 4096 + 1 : 1;
        append(&ladders[index], kind, piece, (int)(i & 0xff));
        if (ladders[index].length >= ladders[index].end)
            sum += restart(&ladders[index], kind, &random);
    }
    for (size_t i = 0; i < LADDERS; i++)
        sum += restart(&ladders[i], i % KINDS, &random);
    return work_end(sum);
}
