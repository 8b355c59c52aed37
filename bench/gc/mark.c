/* SPDX-License-Identifier: MIT
 *
 * The cost of a whole collection, as the program that asks for it sees it, of SIZE live objects of 32 bytes and nothing
 * dead. MODE: a graph of graph.h.
 *
 * ns, cpu, mark: for each object, of the whole call by the clock and of processors, and of marking as the collector
 * tells it. floor: what the machine needs
 * for a load that misses the cache, of which 16 are under way at a time; floors: ns by that. space: resident memory by
 * the size of the objects; told: the same as the collector tells it. peak: MiB.
 */
#include "graph.h"

enum { TIMES = 3, CHAINS = 16 };

static graph_node *volatile root;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, TIMES, sizeof *values, compare);
    return values[TIMES / 2];
}

/* One cycle through all lines of 128 MiB in random order, followed from 16 places at once. */
static double floor_ns(void)
{
    typedef struct line {
        size_t next;
        size_t rest[7];
    } line;
    size_t count = 128 * WORK_MIB / sizeof(line), at[CHAINS], steps = count / CHAINS;
    line *lines = (line *)work_map(count * sizeof(line));
    (void)madvise(lines, count * sizeof(line), MADV_HUGEPAGE); /* as our arena: the floor is lower so */
    uint64_t random = work_seed(1);
    for (size_t i = 0; i < count; i++)
        lines[i].next = i;
    for (size_t i = count - 1; i > 0; i--) { /* Sattolo's shuffle: a single cycle */
        size_t j = work_below(&random, i), other = lines[j].next;
        lines[j].next = lines[i].next;
        lines[i].next = other;
    }
    for (size_t k = 0; k < CHAINS; k++)
        at[k] = work_below(&random, count);
    double began = work_now();
    for (size_t i = 0; i < steps; i++)
        for (size_t k = 0; k < CHAINS; k++)
            at[k] = lines[at[k]].next;
    double seconds = work_now() - began;
    size_t sum = 0;
    for (size_t k = 0; k < CHAINS; k++)
        sum += at[k];
    if (sum > CHAINS * count)
        work_fail("a chain left its lines");
    work_unmap(lines, count * sizeof(line));
    return seconds / (double)(steps * CHAINS) * 1e9;
}

/* What the collector says that it has taken for the objects; and that it has kept them all. */
static void told(size_t count)
{
#ifdef PEER_VMKIT
    vmk_gc_stats stats;
    vmk_heap_stats heap;
    vmk_gc_stats_now(work_gc, &stats);
    vmk_heap_stats_now(vmk_gc_heap(work_gc), &heap);
    if (stats.live_objects < count)
        work_fail("objects were lost");
    size_t parts = 0; /* without the arena, whose spans heap_size counts */
    for (size_t i = 0; i < VMK_HEAP_PARTS; i++)
        parts += i == VMK_HEAP_ARENA ? 0 : heap.part[i].committed;
    work_result("told", (double)(stats.heap_size + stats.metadata + parts) / (double)(count * sizeof(graph_node)));
#else
    if (GC_get_heap_size() - GC_get_free_bytes() < count * sizeof(graph_node))
        work_fail("objects were lost");
    work_result("told", (double)GC_get_heap_size() / (double)(count * sizeof(graph_node)));
#endif
}

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    double whole[TIMES], cpu[TIMES], mark[TIMES], count = (double)arguments.size;
    double before = work_status_kib("VmRSS:");
    root = graph_build(arguments.size, arguments.mode);
    work_scrub();
    work_peak_reset();
    work_collect();
    for (size_t i = 0; i < TIMES; i++) {
        double began = work_now(), began_cpu = work_now_cpu();
        work_collect();
        cpu[i] = (work_now_cpu() - began_cpu) * 1e9 / count;
        whole[i] = (work_now() - began) * 1e9 / count;
        mark[i] = work_mark_time() * 1e9 / count;
    }
    work_result("space", (work_status_kib("VmRSS:") - before) * 1024 / (count * sizeof(graph_node)));
    work_result("peak", work_status_kib("VmHWM:") / 1024);
    told(arguments.size);
    double ns = median(whole), floor = floor_ns();
    work_result("ns", ns);
    work_result("cpu", median(cpu));
    work_result("mark", median(mark));
    work_result("floor", floor);
    work_result("floors", ns / floor);
    return 0;
}
