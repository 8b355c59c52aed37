/* SPDX-License-Identifier: MIT
 *
 * Binary trees: one that lives long, and beside it many small ones that are built, counted and taken down.
 * SIZE: the depth of the large one; the small ones together have four times its nodes, for each depth from 4 on.
 */
#include "work.h"

enum { SMALLEST = 4, STEP = 3, TIMES = 4 };

typedef struct node {
    struct node *left;
    struct node *right;
    uint64_t value;
} node;

static node *grow(size_t depth, uint64_t value)
{
    node *self = work_escape(calloc(1, sizeof *self));
    if (self == NULL)
        work_fail("no memory");
    if (self->left != NULL || self->right != NULL || self->value != 0)
        work_fail("calloc's memory is not zero");
    self->value = value;
    if (depth > 0) {
        self->left = grow(depth - 1, value * 2);
        self->right = grow(depth - 1, value * 2 + 1);
    }
    return self;
}

static uint64_t count(const node *self)
{
    return self == NULL ? 0 : self->value + count(self->left) + count(self->right);
}

static void fell(node *self)
{
    if (self == NULL)
        return;
    fell(self->left);
    fell(self->right);
    free(self);
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    node *large = grow(arguments.size, 1);
    uint64_t sum = 0;
    for (size_t depth = SMALLEST; depth < arguments.size; depth += STEP) {
        for (size_t i = 0; i < (size_t)TIMES << (arguments.size - depth); i++) {
            node *small = grow(depth, i);
            sum += count(small);
            fell(small);
        }
    }
    sum += count(large);
    fell(large);
    return work_end(sum);
}
