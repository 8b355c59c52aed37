/* SPDX-License-Identifier: MIT
 *
 * Binary trees, as the well-known benchmark of that name is described: a tree one deeper than SIZE, dropped at once;
 * one of depth SIZE that lives to the end; and meanwhile, for every second depth from 4 on, as many trees as have about
 * the nodes of the large one sixteen times over, each built, counted and dropped.
 */
#include "work.h"

enum { SMALLEST = 4, STEP = 2 };

typedef struct node {
    struct node *left;
    struct node *right;
} node;

static node *grow(size_t depth)
{
    node *self = (node *)work_alloc(sizeof *self);
    if (depth > 0) {
        self->left = grow(depth - 1);
        self->right = grow(depth - 1);
    }
    return self;
}

static uint64_t count(const node *self)
{
    return self->left == NULL ? 1 : 1 + count(self->left) + count(self->right);
}

static void drop(node *self)
{
    if (!WORK_FREES)
        return;
    if (self->left != NULL) {
        drop(self->left);
        drop(self->right);
    }
    work_free(self);
}

static uint64_t passing(size_t depth)
{
    node *self = grow(depth);
    uint64_t nodes = count(self);
    drop(self);
    return nodes;
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    uint64_t sum = passing(arguments.size + 1);
    node *large = grow(arguments.size);
    for (size_t depth = SMALLEST; depth <= arguments.size; depth += STEP)
        for (size_t i = 0; i < (size_t)1 << (arguments.size - depth + SMALLEST); i++)
            sum += passing(depth);
    sum += count(large);
    drop(large);
    work_checksum(sum);
    work_report(&arguments);
    return 0;
}
