/* SPDX-License-Identifier: MIT
 *
 * Many blocks of one size are allocated in a row, then freed in another order: the last first, the first first, every
 * second, or at random; a part of each batch lives until a few batches later. Each thread does so for itself.
 * SIZE: batches of each thread.
 */
#include "work.h"

enum { BATCH = 4000, KEEP = 8, KEPT = 5, ORDERS = 4 };

typedef struct batches {
    size_t count;
} batches;

static void swap(work_block **a, work_block **b)
{
    work_block *other = *a;
    *a = *b;
    *b = other;
}

/* Put the blocks into the order in which they will be freed. */
static void order(work_block **blocks, size_t count, size_t how, uint64_t *random)
{
    if (how == 1) {
        for (size_t i = 0; i < count / 2; i++)
            swap(&blocks[i], &blocks[count - 1 - i]);
    } else if (how == 2) {
        for (size_t i = 0; i < count / 2; i += 2)
            swap(&blocks[i], &blocks[i + count / 2]);
    } else if (how == 3) {
        for (size_t i = count; i > 1; i--)
            swap(&blocks[i - 1], &blocks[work_below(random, i)]);
    }
}

static uint64_t give_all(work_block **blocks, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += work_give(blocks[i]);
        blocks[i] = NULL;
    }
    return sum;
}

static uint64_t run(void *context, size_t index)
{
    const batches *shared = context;
    work_block *blocks[BATCH], *kept[KEPT][BATCH / KEEP] = {{NULL}};
    uint64_t random = work_seed(index), sum = 0;
    for (size_t i = 0; i < shared->count; i++) {
        size_t size = work_size(&random);
        for (size_t j = 0; j < BATCH; j++)
            blocks[j] = work_take(size, i + j);
        sum += give_all(kept[i % KEPT], BATCH / KEEP);
        for (size_t j = 0; j < BATCH / KEEP; j++) {
            kept[i % KEPT][j] = blocks[j * KEEP];
            blocks[j * KEEP] = NULL;
        }
        order(blocks, BATCH, i % ORDERS, &random);
        sum += give_all(blocks, BATCH);
    }
    for (size_t i = 0; i < KEPT; i++)
        sum += give_all(kept[i], BATCH / KEEP);
    return sum;
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    batches shared = {arguments.size};
    return work_end(work_parallel(arguments.threads, run, &shared));
}
