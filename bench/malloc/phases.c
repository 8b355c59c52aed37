/* SPDX-License-Identifier: MIT
 *
 * A long run, to see memory fall into pieces: every phase has sizes of its own. What is allocated at a time is kept
 * between 8 and 16 MiB, and about 1 MiB of a phase's blocks, picked by chance, survive it by six phases.
 * SIZE: phases.
 */
#include "work.h"

enum { SLOTS = 1 << 19, LIVE_MIB = 16, ROUNDS = 3, KEPT = 6, KEPT_SLOTS = 1 << 16 };

typedef struct state {
    uint64_t random;
    uint64_t sum;
    size_t used; /* slots: the first ones */
    size_t bytes;
    size_t kept_used[KEPT];
} state;

static work_block *slots[SLOTS];
static work_block *kept[KEPT][KEPT_SLOTS];

static work_block *remove_one(state *self)
{
    size_t slot = work_below(&self->random, self->used);
    work_block *block = slots[slot];
    self->bytes -= block->size;
    slots[slot] = slots[--self->used];
    return block;
}

static void fill(state *self, size_t least, size_t most)
{
    while (self->bytes < LIVE_MIB * WORK_MIB && self->used < SLOTS) {
        size_t size = work_between(&self->random, least, most);
        slots[self->used] = work_take(size, self->used);
        self->used++;
        self->bytes += size;
    }
}

/* Free blocks at random until no more than this many bytes are left. */
static void thin(state *self, size_t bytes)
{
    while (self->bytes > bytes)
        self->sum += work_give(remove_one(self));
}

/* What is left of the phase takes the place of what was left of one long ago. */
static void keep(state *self, size_t place)
{
    while (self->kept_used[place] > 0)
        self->sum += work_give(kept[place][--self->kept_used[place]]);
    while (self->used > 0 && self->kept_used[place] < KEPT_SLOTS)
        kept[place][self->kept_used[place]++] = remove_one(self);
}

int main(int argc, char **argv)
{
    static const size_t sizes[][2] = {{16, 128},   {200, 400},   {64, 64},      {1000, 5000}, {16, 1024},
                                      {400, 1200}, {4096, 4096}, {8000, 70000}, {32, 96},     {100, 20000}};
    work_arguments arguments = work_begin(argc, argv);
    static state self;
    self.random = work_seed(0);
    for (size_t phase = 0; phase < arguments.size; phase++) {
        const size_t *range = sizes[phase % (sizeof sizes / sizeof sizes[0])];
        for (size_t round = 0; round < ROUNDS; round++) {
            fill(&self, range[0], range[1]);
            thin(&self, LIVE_MIB * WORK_MIB / 2);
        }
        thin(&self, LIVE_MIB * WORK_MIB / 16);
        keep(&self, phase % KEPT);
    }
    for (size_t place = 0; place < KEPT; place++)
        keep(&self, place);
    for (size_t place = 0; place < KEPT; place++)
        keep(&self, place);
    return work_end(self.sum);
}
