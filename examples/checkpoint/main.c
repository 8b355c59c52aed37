/* SPDX-License-Identifier: MIT
 *
 * checkpoint FILE [--size MIB] [--rounds N] [--changed PERCENT] [--crash BYTES] [--verify]
 *
 * A program with a large state in memory that survives: N rounds, each of which changes some pages at random and then
 * writes a checkpoint. Run again, it goes on with the state that it finds in the file. Each round's changes follow from
 * the round's number, so --verify can make the state of the last checkpoint anew and compare. --crash ends the program
 * in the middle of a checkpoint, after so many bytes of the file; see tests/check_checkpoint.sh.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint.h"

typedef struct settings {
    const char *path;
    size_t size;
    uint64_t rounds;
    double changed; /* a part of all pages */
    uint64_t crash;
    bool verify;
} settings;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* What round `number` does to the state. The first one writes all of it. */
static void work(unsigned char *base, const settings *set, uint64_t number)
{
    size_t page_size = vmk_page_size(), pages = set->size / page_size;
    uint64_t random = number * 0x9e3779b97f4a7c15u + 1;
    size_t changes = number == 1 ? pages : (size_t)((double)pages * set->changed);
    for (size_t i = 0; i < changes; i++) {
        size_t page = number == 1 ? i : (size_t)(next_random(&random) % pages);
        uint64_t value = next_random(&random);
        memcpy(base + page * page_size + (size_t)(value % (page_size / sizeof value)) * sizeof value, &value,
               sizeof value);
    }
}

static int run(checkpoint *c, const settings *set)
{
    for (uint64_t i = 0; i < set->rounds; i++) {
        uint64_t bytes;
        work(c->region->base, set, c->number + 1);
        clock_t start = clock();
        if (!checkpoint_write(c, &bytes))
            return 1;
        printf("checkpoint %" PRIu64 ": %.1f MiB in %.1f ms of processor time\n", c->number, (double)bytes / (1 << 20),
               (double)(clock() - start) * 1e3 / CLOCKS_PER_SEC);
    }
    return 0;
}

static int verify(const checkpoint *c, const settings *set)
{
    unsigned char *expected = calloc(set->size, 1);
    if (expected == NULL)
        return 1;
    for (uint64_t number = 1; number <= c->number; number++)
        work(expected, set, number);
    bool same = memcmp(expected, c->region->base, set->size) == 0;
    free(expected);
    printf("checkpoint %" PRIu64 " is %s\n", c->number, same ? "whole" : "DAMAGED");
    return same ? 0 : 1;
}

static bool parse(int argc, char **argv, settings *set)
{
    double percent = 1, mib = 64;
    *set = (settings){.rounds = 5};
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--verify") == 0)
            set->verify = true;
        else if (strcmp(argv[i], "--size") == 0 && more)
            mib = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--rounds") == 0 && more)
            set->rounds = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--changed") == 0 && more)
            percent = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--crash") == 0 && more)
            set->crash = strtoull(argv[++i], NULL, 10);
        else if (argv[i][0] != '-' && set->path == NULL)
            set->path = argv[i];
        else
            return false;
    }
    if (!(mib > 0 && mib <= 1 << 20 && percent >= 0 && percent <= 100))
        return false;
    set->size = vmk_page_ceil((size_t)(mib * (1 << 20)));
    set->changed = percent / 100;
    return set->path != NULL;
}

int main(int argc, char **argv)
{
    settings set;
    checkpoint c;
    vmk_region region;
    vmk_reserve_options options = {.flags = VMK_RESERVE_WATCH};
    if (!parse(argc, argv, &set)) {
        fprintf(stderr,
                "usage: checkpoint FILE [--size MIB] [--rounds N] [--changed PERCENT] [--crash BYTES] [--verify]\n");
        return 2;
    }
    if (vmk_reserve(&region, set.size, &options) != VMK_OK || vmk_commit(&region, 0, region.size) != VMK_OK) {
        fprintf(stderr, "checkpoint: no memory for %zu bytes\n", set.size);
        return 1;
    }
    if (!checkpoint_open(&c, &region, set.path))
        return 1;
    c.limit = set.crash;
    int result = set.verify ? verify(&c, &set) : run(&c, &set);
    checkpoint_close(&c);
    vmk_release(&region);
    return result;
}
