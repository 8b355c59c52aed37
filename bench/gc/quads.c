/* SPDX-License-Identifier: MIT
 *
 * A tree of nodes with four children, SIZE levels below the root, that lives long: again and again a random subtree of
 * four levels below its root is dropped and built anew, four times the nodes of the tree in all.
 */
#include "work.h"

enum { CHURN = 4, TIMES = 4 };

typedef struct node {
    struct node *child[4];
} node;

static node *root;

static node *grow(size_t depth)
{
    node *self = (node *)work_alloc(sizeof *self);
    for (size_t i = 0; i < 4 && depth > 0; i++)
        self->child[i] = grow(depth - 1);
    return self;
}

static uint64_t count(const node *self)
{
    uint64_t sum = 1;
    for (size_t i = 0; i < 4 && self->child[0] != NULL; i++)
        sum += count(self->child[i]);
    return sum;
}

static void drop(node *self)
{
    if (!WORK_FREES)
        return;
    for (size_t i = 0; i < 4 && self->child[0] != NULL; i++)
        drop(self->child[i]);
    work_free(self);
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0);
    if (arguments.size <= CHURN)
        work_fail("SIZE is too small");
    root = grow(arguments.size);
    size_t subtrees = (size_t)1 << 2 * (arguments.size - CHURN);
    for (size_t i = 0; i < TIMES * subtrees; i++) {
        node *at = root;
        size_t path = work_below(&random, subtrees), down = arguments.size - CHURN;
        for (; down > 1; down--, path >>= 2)
            at = at->child[path & 3];
        drop(at->child[path & 3]);
        at->child[path & 3] = NULL;
        at->child[path & 3] = grow(CHURN);
    }
    work_checksum(count(root));
    work_report(&arguments);
    return 0;
}
