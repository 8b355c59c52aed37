/* SPDX-License-Identifier: MIT
 *
 * A tree of SIZE - 1 nodes of 32 bytes placed at random (SIZE: a power of two) is changed at random: again and again a
 * subtree of 15 nodes is dropped and built anew, SIZE / 5 times. After each time the clock is looked at: if more than
 * 50 us have passed this was a gap, in which the program stood still: for a collection, or because the system gave the
 * processor to others.
 *
 * gaps: how many; gap, gap99, gap_total: the longest, the 99th percentile and the sum, in milliseconds. bucket0 ...:
 * how many by their length, from 50 us on, each bucket to twice the length of the one before.
 */
#include "graph.h"

enum { CHURN = 3, BUCKETS = 16, GAPS_MOST = 1 << 20 };
static const double least = 50e-6;

static graph_node *root;

static graph_node *grow(size_t depth)
{
    graph_node *self = (graph_node *)work_alloc(sizeof *self);
    self->payload[0] = depth;
    if (depth > 0) {
        self->child[0] = grow(depth - 1);
        self->child[1] = grow(depth - 1);
    }
    return self;
}

static void replace(uint64_t path, size_t down)
{
    graph_node *at = root;
    for (; down > 1; down--, path >>= 1)
        at = at->child[path & 1];
    at->child[path & 1] = grow(CHURN);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(double *gaps, size_t count)
{
    size_t buckets[BUCKETS] = {0};
    double total = 0;
    qsort(gaps, count, sizeof *gaps, compare);
    for (size_t i = 0; i < count; i++) {
        size_t bucket = 0;
        for (double limit = 2 * least; gaps[i] >= limit && bucket < BUCKETS - 1; limit *= 2)
            bucket++;
        buckets[bucket]++;
        total += gaps[i];
    }
    work_result("gaps", (double)count);
    work_result("gap", count > 0 ? gaps[count - 1] * 1e3 : 0);
    work_result("gap99", count > 0 ? gaps[count * 99 / 100] * 1e3 : 0);
    work_result("gap_total", total * 1e3);
    for (size_t i = 0; i < BUCKETS; i++) {
        char name[24];
        snprintf(name, sizeof name, "bucket%zu", i);
        work_result(name, (double)buckets[i]);
    }
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(2);
    double *gaps = (double *)work_map(GAPS_MOST * sizeof *gaps);
    size_t count = 0, levels = 0;
    while ((arguments.size >> levels) > 1)
        levels++;
    if (levels <= CHURN + 2)
        work_fail("SIZE is too small");
    root = graph_build(arguments.size - 1, "tree");
    work_scrub();
    work_peak_reset();
    arguments.began = work_now();
    arguments.began_cpu = work_now_cpu();
    double last = arguments.began;
    for (size_t i = 0; i < arguments.size / 5; i++) {
        replace(work_random(&random) >> 32, levels - 1 - CHURN);
        double now = work_now();
        if (now - last > least && count < GAPS_MOST)
            gaps[count++] = now - last;
        last = now;
    }
    work_report(&arguments);
    report(gaps, count);
    return 0;
}
