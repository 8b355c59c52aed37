/* SPDX-License-Identifier: MIT
 *
 * Written after the description of Ellis, Kovac and Boehm's GCBench: a tree that is two deeper than SIZE stretches the
 * heap; a tree of depth SIZE and an array of 500,000 numbers live to the end; meanwhile each of THREADS threads builds
 * trees of every second depth from 4 to SIZE, from the root down and from the leaves up, of the stretching tree's nodes
 * twice over for each depth.
 */
#include "work.h"

enum { SMALLEST = 4, STEP = 2, ARRAY = 500000 };

typedef struct node {
    struct node *left;
    struct node *right;
    int32_t i, j;
} node;

static node *large;
static double *array;

static node *node_new(node *left, node *right)
{
    node *self = (node *)work_alloc(sizeof *self);
    self->left = left;
    self->right = right;
    return self;
}

static void populate(node *self, size_t depth)
{
    if (depth == 0)
        return;
    self->left = node_new(NULL, NULL);
    self->right = node_new(NULL, NULL);
    populate(self->left, depth - 1);
    populate(self->right, depth - 1);
}

static node *grow(size_t depth)
{
    if (depth == 0)
        return node_new(NULL, NULL);
    node *left = grow(depth - 1);
    return node_new(left, grow(depth - 1));
}

static uint64_t count(const node *self)
{
    return self == NULL ? 0 : 1 + count(self->left) + count(self->right);
}

static void drop(node *self)
{
    if (!WORK_FREES || self == NULL)
        return;
    drop(self->left);
    drop(self->right);
    work_free(self);
}

static size_t nodes_of(size_t depth)
{
    return ((size_t)2 << depth) - 1;
}

static uint64_t build(void *context, size_t index)
{
    size_t size = *(const size_t *)context, made = 0;
    (void)index;
    for (size_t depth = SMALLEST; depth <= size; depth += STEP) {
        for (size_t i = 0; i < 2 * nodes_of(size + 2) / nodes_of(depth); i++) {
            node *top = node_new(NULL, NULL);
            populate(top, depth);
            drop(top);
            drop(grow(depth));
            made++;
        }
    }
    return made;
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    drop(grow(arguments.size + 2));
    large = node_new(NULL, NULL);
    populate(large, arguments.size);
    array = (double *)work_leaf(ARRAY * sizeof *array);
    for (size_t i = 0; i < ARRAY; i++)
        array[i] = 1.0 / (double)(i + 1);
    uint64_t sum = work_parallel(arguments.threads, build, &arguments.size);
    if (array[1000] != 1.0 / 1001)
        work_fail("the array was overwritten");
    work_checksum(sum + count(large));
    work_report(&arguments);
    return 0;
}
