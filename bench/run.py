#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py SUITE BINDIR OUTDIR [--quick] [--json]: run a suite of benchmarks and compare.

Every measurement is a process of its own. The variants of a workload run in turn, round after round, after one round that is
not counted; what is compared is the ratio to the baseline within each round, so a machine that changes its speed between
rounds does not change the ratios. Medians are quoted. Plots are made by gnuplot.
"""
import json
import os
import re
import statistics
import subprocess
import sys
import time

import launch
import suite_gc
import suite_malloc

# A workload:
#   title, unit      for people; {n} is the number's logarithm
#   count, quick     log2 of the number that programs are given, and of the one for --quick; or, for a series,
#   points, quick    label -> number: each variant is measured at each point, as a row named "variant label"; and the labels
#                    that --quick makes do with, all if it is not there. Without any of these the number is of no use
#   rounds           that are counted; --quick makes do with 3
#   warm             touch and free as much memory as is needed before each round
#   warmed           the program does by itself what the round that is not counted is for: without that round
#   program          is run as PROGRAM WORKLOAD VARIANT NUMBER and prints "metric value" lines;
#   measure          or a function of launch.py, which knows how to run it
#   baseline         a variant, to which the others are compared; or a point, to which a variant's other points are
#   compare          "x": by ratio, unless it says "-": by difference
#   metrics          the first one is plotted
#   facts            metrics that are told without being compared; where a variant doesn't tell one, "-" is printed
#   brief            facts are told by their medians alone
#   kept             metrics that are in the results for JSON and for plots, but not in the table
#   plots            a function that makes more plots: of the folder, the workload and what came out; answers their paths
#   bars             (row, metric, peer, relation, limit). The peer is a row, with which the first is compared; or None: the
#                    figure itself; or SPREAD: the largest over the smallest of a variant's points. Relation None: a ratio
#                    that is told and not judged
SPREAD = "spread"
SUITES = {
    "table": [
        {
            "name": "append",
            "title": "Appending 2^{n} 8-byte elements",
            "unit": "ns an element",
            "count": 27, "quick": 23, "rounds": 5, "warm": True,
            "program": "bench_table", "workload": "append",
            "variants": ["table", "table-known", "mapping", "table-huge", "mapping-huge", "realloc", "vector"],
            "baseline": "mapping",
            "metrics": ["ns", "peak"],
            "bars": [("table", "ns", "mapping", "<=", 1.0), ("vector", "ns", "table", ">=", 2.0),
                     ("realloc", "ns", "table", ">=", 1.0), ("mapping", "ns", "table-huge", ">=", 2.0),
                     ("table", "peak", "mapping", "<=", 1.01)],
        },
        {
            "name": "lookup",
            "title": "Random look-up among 2^{n} elements",
            "unit": "ns a look-up",
            "count": 24, "quick": 20, "rounds": 9,
            "program": "bench_table", "workload": "lookup",
            "variants": ["table", "array"], "baseline": "array", "metrics": ["ns"],
            "bars": [("table", "ns", "array", "<=", 1.0)],
        },
        {
            "name": "ensure",
            "title": "Storing into 2^{n} elements that are ready",
            "unit": "ns a store",
            "count": 15, "quick": 15, "rounds": 9,
            "program": "bench_table", "workload": "ensure",
            "variants": ["checked", "unchecked"], "baseline": "unchecked", "metrics": ["ns"], "bars": [],
        },
        {
            "name": "sparse",
            "title": "One element in every GiB of an index of 64 GiB",
            "unit": "bytes",
            "count": 33, "quick": 33, "rounds": 1,
            "program": "bench_table", "workload": "sparse",
            "variants": ["table"], "baseline": "table", "metrics": ["committed", "overhead"], "bars": [],
        },
    ],
    "vm": [
        {
            "name": "watch",
            "title": "Watching the writes to 2^{n} bytes, all touched before",
            "unit": "ns a first write",
            "count": 30, "quick": 26, "rounds": 5, "warm": True,
            "program": "bench_vm", "workload": "watch",
            "variants": ["protect", "userfault"], "baseline": "protect",
            "metrics": ["write", "each", "arm", "clean", "thousand", "all"], "facts": ["touch"],
            "bars": [("userfault", "clean", None, "<=", 1.0), ("userfault", "write", "protect", "<=", 0.25)],
        },
        {
            "name": "checkpoint",
            "title": "Checkpoint of 2^{n} bytes, one page in a hundred changed",
            "unit": "ms, to the disk",
            "count": 30, "quick": 27, "rounds": 5,
            "program": "bench_vm", "workload": "checkpoint",
            "variants": ["all", "changed"], "baseline": "changed", "metrics": ["ms", "MiB"],
            "bars": [("all", "ms", "changed", ">=", 20)],
        },
        {
            "name": "guards",
            "title": "100,000 guards, every other page one",
            "unit": "ns a guard",
            "points": {"": 100000}, "rounds": 5,
            "program": "bench_vm", "workload": "guards",
            "variants": ["guard_set", "mprotect"], "baseline": "mprotect", "metrics": ["ns", "mappings"], "facts": ["set"],
            "bars": [("guard_set", "mappings", None, "<=", 10), ("guard_set", "set", None, ">=", 100000)],
        },
        {
            "name": "batch",
            "title": "Giving back 1,000 touched ranges of 64 KiB",
            "unit": "us",
            "points": {"": 1000}, "rounds": 9, "warm": False,
            "program": "bench_vm", "workload": "batch",
            "variants": ["decommit", "decommit-batch", "discard", "discard-batch"], "baseline": "decommit",
            "metrics": ["us", "mappings"],
            "bars": [("decommit-batch", "us", "decommit", "<=", 1.0), ("discard-batch", "us", "discard", "<=", 1.0)],
        },
        {
            "name": "prefault",
            "title": "The first use of 2^{n} bytes",
            "unit": "ns a page",
            "count": 28, "quick": 26, "rounds": 5, "warm": True,
            "program": "bench_vm", "workload": "prefault",
            "variants": ["touch", "prefault"], "baseline": "touch", "metrics": ["ns"],
            "bars": [("prefault", "ns", "touch", "<=", 1.0)],
        },
        {
            "name": "snapshot",
            "title": "The state of so much memory at one moment",
            "unit": "ms to take",
            "points": {"64 MiB": 1 << 26, "256 MiB": 1 << 28, "1 GiB": 1 << 30}, "quick": ["64 MiB"], "rounds": 5,
            "program": "bench_vm", "workload": "snapshot",
            "variants": ["memcpy", "snapshot"], "baseline": "memcpy", "metrics": ["take", "change", "drop"], "bars": [],
        },
    ],
    "heap": [
        {
            "name": "startup",
            "title": "Smallest RLIMIT_AS under which 1,000 objects of 64 bytes can be had",
            "unit": "KiB",
            "rounds": 3,
            "program": "bench_startup", "measure": launch.smallest_limit,
            "variants": ["static", "vmkit", "glibc", "jemalloc", "mimalloc", "tcmalloc", "gc"],
            "baseline": "static", "compare": "-", "metrics": ["limit"],
            "bars": [("vmkit", "limit", "static", "<=", 1024)],
        },
        {
            "name": "limits",
            "title": "The same program under 100 random limits from the smallest one to 16 GiB, and none",
            "unit": "runs",
            "rounds": 1,
            "program": "bench_startup", "measure": launch.random_limits,
            "variants": ["vmkit"], "baseline": None, "metrics": ["failures"],
            "facts": ["steps", "from", "seed"],
            "bars": [("vmkit", "failures", None, "<=", 0)],
        },
        {
            "name": "init",
            "title": "Making a heap, by its window",
            "unit": "us to create",
            "points": {"1 GiB": 1 << 30, "128 GiB": 1 << 37, "16 TiB": 1 << 44}, "rounds": 9,
            "program": "bench_heap", "workload": "init", "measure": launch.init,
            "variants": ["heap"], "baseline": "1 GiB", "metrics": ["create", "destroy", "calls", "committed"],
            "bars": [("heap 16 TiB", "calls", None, "<=", 10), ("heap 16 TiB", "committed", None, "<=", 65536),
                     ("heap", "calls", SPREAD, "<=", 1.2), ("heap", "committed", SPREAD, "<=", 1.2),
                     ("heap", "create", SPREAD, "<=", 1.2)],
        },
        {
            "name": "lookup",
            "title": "From a random address to its span, by the number of spans",
            "unit": "ns a look-up",
            "points": {"2^12": 1 << 12, "2^22": 1 << 22}, "quick": ["2^12"], "rounds": 5,
            "program": "bench_heap", "workload": "lookup",
            "variants": ["of", "find", "array", "array-checked"], "baseline": "array", "metrics": ["ns"], "bars": [],
        },
        {
            "name": "lookup-read",
            "title": "The same, and reading the span's record",
            "unit": "ns a look-up",
            "points": {"2^12": 1 << 12, "2^22": 1 << 22}, "quick": ["2^12"], "rounds": 5,
            "program": "bench_heap", "workload": "lookup",
            "variants": ["of+read", "find+read", "array+read", "array-checked+read"],
            "baseline": "array+read", "metrics": ["ns"], "bars": [],
        },
        {
            "name": "pages",
            "title": "Freeing and allocating 1 to 256 pages, by the number of free runs",
            "unit": "ns for both",
            "points": {f"10^{n}": 10 ** n for n in range(2, 7)}, "quick": ["10^2", "10^6"], "rounds": 5,
            "program": "bench_heap", "workload": "pages",
            "variants": ["heap", "heap-spread", "tree", "tree-spread"], "baseline": "10^2", "metrics": ["ns"],
            "facts": ["runs"],
            "bars": [("heap 10^6", "ns", "heap 10^2", "<=", 5.0), ("heap-spread 10^6", "ns", "heap-spread 10^2", "<=", 5.0)],
        },
        {
            "name": "ladder",
            "title": "128 MiB in blocks of 1, 2 ... 64 MiB, then small churn, then 100 MiB",
            "unit": "MiB of private writable memory at most",
            "count": 27, "quick": 27, "rounds": 3,
            "program": "bench_heap", "workload": "ladder",
            "variants": ["heap", "glibc", "jemalloc", "mimalloc", "tcmalloc"], "baseline": "heap",
            "metrics": ["data", "resident", "waste"], "facts": ["arena"],
            "bars": [("heap", "arena", None, "<", 361)],
        },
        {
            "name": "growth",
            "title": "Growing to 2^{n} bytes by 1 MiB at a time, touching every page",
            "unit": "ms a GiB",
            "count": 27, "quick": 26, "rounds": 7, "warm": True,
            "program": "bench_heap", "workload": "growth",
            "variants": ["heap", "heap-page", "mmap", "mmap-steps", "heap-huge", "mmap-huge"],
            "baseline": "mmap", "metrics": ["ms"], "bars": [],
        },
        {
            "name": "mappings",
            "title": "Mappings of a heap, by its size, while spans are freed at random and returned",
            "unit": "lines of /proc/self/maps",
            "points": {"16 MiB": 1 << 24, "64 MiB": 1 << 26, "256 MiB": 1 << 28}, "quick": ["16 MiB", "64 MiB"], "rounds": 1,
            "program": "bench_heap", "workload": "mappings",
            "variants": ["heap", "decommit"], "baseline": "16 MiB", "metrics": ["inside", "more"],
            "facts": ["returned"],
            # Two for each of the nine columns of tables, for header and regions together, and for the arena.
            "bars": [("heap", "inside", SPREAD, "<=", 1), ("heap 64 MiB", "inside", None, "<=", 22),
                     ("heap 64 MiB", "more", None, "<=", 22)],
        },
    ],
}


def progress(text, *details):
    """Say what is going on: a line that changes, or, where it can't, one for each new text."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + ", ".join((text, *details)))
    elif text not in ("", progress.text):
        sys.stderr.write(text + "\n")
    progress.text = text
    sys.stderr.flush()


progress.text = ""


def measure(bindir, workload, variant, number):
    command = [os.path.join(bindir, workload["program"]), workload["workload"]]
    if workload.get("warm"):  # so that every variant finds the machine's memory in the same state: see bench/table.c
        subprocess.run([command[0], "warm", "-", str(number)], check=True)
    return launch.run(command + ["malloc" if variant in launch.MALLOCS else variant, str(number)], variant)


def row_name(variant, label):
    return f"{variant} {label}" if label else variant


def all_metrics(workload):
    return workload["metrics"] + workload.get("facts", [])


def scaled(workload, quick):
    """The workload with the numbers and rounds that are to be used. A count is a series of one point without a label."""
    rounds, points = workload["rounds"], workload.get("points")
    if points and quick:
        points = {label: points[label] for label in workload.get("quick", points)}
    exponent = None if points else workload.get("quick" if quick else "count", 0)
    return {**workload, "rounds": min(rounds, 3) if quick else rounds, "points": points or {"": 1 << exponent},
            "title": workload["title"].format(n=exponent)}


def run(bindir, workload):
    rows = [(variant, label) for variant in workload["variants"] for label in workload["points"]]
    rounds, started = workload["rounds"], time.monotonic()
    metrics = all_metrics(workload) + workload.get("kept", [])
    results = {row_name(*row): {metric: [] for metric in metrics} for row in rows}
    for number in range(1 if rounds == 1 or workload.get("warmed") else 0, rounds + 1):
        start = number % len(rows)  # no variant is always the one that follows the same other
        for variant, label in rows[start:] + rows[:start]:
            row = row_name(variant, label)
            progress(f"{workload['name']}: round {number} of {rounds}", row)
            figures = workload.get("measure", measure)(bindir, workload, variant, workload["points"][label])
            for metric in metrics if number > 0 else []:
                results[row][metric] += [figures[metric]] if metric in figures else []
    progress("")
    return {"title": workload["title"], "unit": workload["unit"], "rounds": rounds, "seconds": time.monotonic() - started,
            "results": results, "bars": [judge(workload, results, bar) for bar in workload["bars"]]}


def compared(workload, results, row, peer, metric):
    """The median over the rounds of row / peer within a round, or of the difference."""
    pairs = list(zip(results[row][metric], results[peer][metric]))
    if workload.get("compare") == "-":
        return statistics.median(a - b for a, b in pairs)
    return statistics.median(a / b if b else float("inf") for a, b in pairs)


def peer_of(workload, row):
    """The row that this one is compared to in the table."""
    variant, _, label = row.partition(" ")
    baseline = workload["baseline"]
    return row_name(variant, baseline) if baseline in workload["points"] else row_name(baseline, label)


def judge(workload, results, bar):
    row, metric, peer, relation, limit = bar
    if peer is None:
        text, got = f"{metric} of {row}", statistics.median(results[row][metric])
    elif peer is SPREAD:
        series = zip(*(results[row_name(row, label)][metric] for label in workload["points"]))
        text, got = f"{metric} of {row}, largest / smallest", statistics.median(max(v) / min(v) for v in series)
    else:
        sign = "-" if workload.get("compare") == "-" else "/"
        text, got = f"{metric} of {row} {sign} {peer}", compared(workload, results, row, peer, metric)
    if relation is None:
        return {"text": text, "got": got, "met": None}
    met = {"<": got < limit, "<=": got <= limit, ">=": got >= limit}[relation]
    return {"text": f"{text} {relation} {limit}", "got": got, "met": met}


def show(value):
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"


def columns_of(workload, results, metric):
    """What is printed of a metric: heads, each with the rows' cells."""
    told = {row: figures[metric] for row, figures in results.items() if figures[metric]}
    columns = [(metric, {row: show(statistics.median(values)) for row, values in told.items()})]
    brief = workload.get("brief") and metric in workload.get("facts", [])
    if not brief and any(min(values) != max(values) for values in told.values()):
        columns += [(f.__name__, {row: show(f(values)) for row, values in told.items()}) for f in (min, max)]
    if workload["baseline"] and metric in workload["metrics"]:
        cells = {row: f"{compared(workload, results, row, peer_of(workload, row), metric):.3f}" for row in told}
        columns.append((f"{workload.get('compare', 'x')} {workload['baseline']}", cells))
    return columns


def print_table(workload, outcome):
    results = outcome["results"]
    columns = [column for metric in all_metrics(workload) for column in columns_of(workload, results, metric)]
    width = max(14, max(len(row) for row in results) + 1)
    print(f"\n{outcome['title']} ({outcome['unit']}, median of {outcome['rounds']}, {outcome['seconds']:.0f} s)")
    print("  " + "variant".ljust(width) + "".join(head.rjust(max(12, len(head) + 2)) for head, _ in columns))
    for row in results:
        cells = (cells.get(row, "-").rjust(max(12, len(head) + 2)) for head, cells in columns)
        print("  " + row.ljust(width) + "".join(cells))
    for bar in outcome["bars"]:
        if bar["met"] is None:
            print(f"  {bar['text']}: {show(bar['got'])}")
        else:
            print(f"  bar: {bar['text']}: {show(bar['got'])} {'met' if bar['met'] else 'MISSED'}")


def three(values):
    return f"{statistics.median(values)} {min(values)} {max(values)}"


def plot_series(workload, results):
    """gnuplot's data and commands for a series: groups of boxes, one group a point."""
    metric, variants = workload["metrics"][0], workload["variants"]
    data = ""
    for label in workload["points"]:
        superscript = re.sub(r"\^(\d+)", r"^{\1}", label)
        data += f'"{superscript}" ' + " ".join(three(results[row_name(v, label)][metric]) for v in variants) + "\n"
    boxes = ", ".join(f'$data using {3 * i + 2}:{3 * i + 3}:{3 * i + 4}:xtic(1) title "{v}"' for i, v in enumerate(variants))
    return data, "set style data histogram\nset style histogram errorbars gap 1\nset key left top\nplot " + boxes


def plot_variants(workload, results):
    metric = workload["metrics"][0]
    data = "\n".join(f'"{v}" {three(results[v][metric])}' for v in workload["variants"])
    return data, """set xtics rotate by -20
plot $data using 0:2:xtic(1) with boxes notitle linecolor rgb "#4477aa", \\
     $data using 0:2:3:4 with yerrorbars notitle pointtype 0 linecolor rgb "black\""""


def plot(outdir, suite, workload, outcome):
    path = os.path.join(outdir, f"{suite}-{workload['name']}.svg")
    title = outcome["title"].replace("^", "\\\\^").replace("_", "\\\\_")
    data, commands = (plot_variants if "" in workload["points"] else plot_series)(workload, outcome["results"])
    script = f"""set terminal svg size 640,360 font "sans,12" background "white"
set output "{path}"
set title "{title}"
set ylabel "{outcome['unit']}"
set yrange [0:*]
set style fill solid 0.6
set boxwidth 0.6
set grid ytics
$data << EOD
{data}
EOD
{commands}
"""
    try:
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
        return path
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"no plot: {problem}", file=sys.stderr)
        return None


def main(arguments):
    if arguments[:1] == ["malloc"]:  # which compares programs as they are, and has options of its own
        sys.exit(suite_malloc.main(arguments[1:]))
    flags = [a for a in arguments if a.startswith("--")]
    names = [a for a in arguments if not a.startswith("--")]
    if len(names) != 3 or names[0] not in [*SUITES, "gc"] or set(flags) - {"--quick", "--json"}:
        sys.exit(__doc__)
    suite, bindir, outdir = names[0], os.path.abspath(names[1]), os.path.abspath(names[2])
    os.makedirs(outdir, exist_ok=True)
    os.chdir(bindir)  # where programs may leave files, on a disk
    outcomes, plots = {}, []
    for workload in suite_gc.prepared(bindir, "--quick" in flags) if suite == "gc" else SUITES[suite]:
        workload = scaled(workload, "--quick" in flags)
        outcome = run(bindir, workload)
        outcomes[workload["name"]] = outcome
        if "--json" not in flags:
            print_table(workload, outcome)
            sys.stdout.flush()
        if len(outcome["results"]) > 1:
            plots.append(plot(outdir, suite, workload, outcome))
            plots += workload["plots"](outdir, workload, outcome) if "plots" in workload else []
    if "--json" in flags:
        print(json.dumps(outcomes, indent=2))
    else:
        print("\nplots: " + ", ".join(p for p in plots if p))


if __name__ == "__main__":
    main(sys.argv[1:])
