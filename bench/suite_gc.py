# SPDX-License-Identifier: MIT
"""The suite "gc" of run.py: collected heaps beside Debian's libgc, Go, and malloc and free where a program can free by hand.

The programs are bench/gc: one source in C for all peers (work.h says what they call), and one in Go that does the same. A
variant is PEER or PEER-N: N threads mark (Go: N processors in all); without N each peer does as it does by default.
Times are by the clock. All peers must come to the same checksum.
"""
import os
import subprocess
import sys

import launch

BUCKETS = [f"bucket{i}" for i in range(16)]  # see bench/gc/pauses.c
ONE = (1, "-")
DEFAULTS = ["vmkit", "libgc", "go"]
FREEING = ["vmkit", "libgc", "malloc", "go"]
SEEN = ["cycles", "paused", "longest"]  # by the collectors themselves


def beside(metric, *peers):
    """Ratios to others than the baseline."""
    return [("vmkit", metric, peer, None, None) for peer in peers]


def placed(variant, peer, limits):
    return [(f"{variant} {graph}", "ns", f"{peer} {graph}", "<=", limit) for graph, limit in limits.items()]


# As in run.py, but: "sizes" are SIZE of the programs, and the one for --quick; {size} in the title is what sizes have been
# called; a point is THREADS and MODE.
WORKLOADS = [
    {
        "name": "mark", "program": "mark", "warmed": True, "rounds": 5,
        "title": "A collection of {size} live objects of 32 bytes", "unit": "ns an object",
        "sizes": (1 << 22, 1 << 20), "called": ("4,194,304", "1,048,576"),
        "points": {"in order": (1, "order"), "depth-first": (1, "depth"), "random tree": (1, "tree"),
                   "random graph": (1, "graph")},
        "quick": ["in order", "random tree", "random graph"],
        "variants": ["vmkit-1", "vmkit-2", "libgc-1", "libgc-2", "go-1"], "baseline": "libgc-1",
        "metrics": ["ns", "cpu"], "facts": ["mark", "floor", "floors", "space", "told", "peak"],
        "bars": placed("vmkit-1", "libgc-1", {"in order": 1.0, "random tree": 0.35, "random graph": 0.4}) + [
            ("vmkit-1 random tree", "ns", "vmkit-2 random tree", ">=", 1.6),
            ("vmkit-1 random graph", "ns", "vmkit-2 random graph", ">=", 1.6),
            ("vmkit-1 in order", "space", None, "<=", 1.06), ("vmkit-1 in order", "told", None, "<=", 1.06),
            ("vmkit-2 random tree", "ns", "libgc-2 random tree", None, None),
            ("vmkit-1 random tree", "ns", "go-1 random tree", None, None)],
    },
    {
        "name": "sweep", "program": "sweep", "rounds": 5,
        "title": "Before the program runs on: {size} of objects of 32 bytes, dead, or one in 64 alive", "unit": "ms",
        "sizes": (1 << 22, 1 << 20), "called": ("128 MiB", "32 MiB"),
        "points": {"dead": (1, "dead"), "sparse": (1, "sparse"), "returned": (1, "returned")},
        "variants": ["vmkit", "libgc"], "baseline": "libgc",
        "metrics": ["before", "again"], "facts": ["still", "call", "swept"],
        "bars": [("vmkit dead", "before", None, "<", 1.0), ("vmkit dead", "still", None, "<", 1.0),
                 ("vmkit sparse", "before", None, "<", 1.0)],
    },
    {
        "name": "trees", "program": "trees", "rounds": 5,
        "title": "Binary trees of depth {size}", "unit": "ms",
        "sizes": (19, 15), "called": ("19", "15"), "points": {"": ONE},
        "variants": FREEING, "baseline": "libgc", "metrics": ["ms", "cpu", "peak"], "facts": SEEN,
        "bars": [("vmkit", "ms", "libgc", "<=", 0.5), ("vmkit", "ms", "malloc", "<=", 1.0)] + beside("ms", "go"),
    },
    {
        "name": "gcbench", "program": "gcbench", "rounds": 5,
        "title": "GCBench of depth {size}", "unit": "ms",
        "sizes": (16, 14), "called": ("16", "14"),
        "points": {"1 thread": ONE, "2 threads": (2, "-")}, "quick": ["2 threads"],
        "variants": FREEING, "baseline": "libgc", "metrics": ["ms", "cpu", "peak"], "facts": SEEN,
        "bars": [("vmkit 2 threads", "ms", f"{peer} 2 threads", None, None) for peer in ("malloc", "go")],
    },
    {
        "name": "quads", "program": "quads", "rounds": 5,
        "title": "A long-lived tree of four children, {size} levels, with churn", "unit": "ms",
        "sizes": (10, 8), "called": ("11", "9"), "points": {"": ONE},
        "variants": FREEING, "baseline": "libgc", "metrics": ["ms", "cpu", "peak"], "facts": SEEN,
        "bars": beside("ms", "malloc", "go"),
    },
    {
        "name": "map", "program": "map", "rounds": 5,
        "title": "A map from strings to strings of {size} entries", "unit": "ms",
        "sizes": (1 << 16, 1 << 13), "called": ("65,536", "8,192"), "points": {"": ONE},
        "variants": FREEING, "baseline": "libgc", "metrics": ["ms", "cpu", "peak"], "facts": SEEN,
        "bars": beside("ms", "malloc", "go"),
    },
    {
        "name": "allocate", "program": "allocate", "rounds": 5,
        "title": "Blocks of 16 to 143 bytes that are garbage at once", "unit": "ns an allocation of one thread",
        "sizes": (5000000, 1000000), "called": ("", ""), "points": {"1 thread": ONE, "2 threads": (2, "-")},
        "variants": ["vmkit", "libgc", "malloc"], "baseline": "libgc", "metrics": ["ns", "cpu"], "facts": ["peak"] + SEEN,
        "bars": [(f"vmkit {label}", "ns", f"malloc {label}", None, None) for label in ("1 thread", "2 threads")],
    },
    {
        "name": "pauses", "program": "pauses", "warmed": True, "rounds": 5,
        "title": "The longest gap in a program that changes a tree of {size} at random", "unit": "ms",
        "sizes": (1 << 22, 1 << 19), "called": ("128 MiB", "16 MiB"), "points": {"": ONE},
        "variants": ["vmkit-1", "vmkit-2", "libgc-1", "libgc-2", "go"], "baseline": "libgc-1",
        "metrics": ["gap", "gap_total", "ms", "cpu"], "facts": ["gap99", "gaps", "peak"] + SEEN, "kept": BUCKETS,
        "bars": [("vmkit-1", "gap", "libgc-1", "<=", 0.25), ("vmkit-2", "gap", "libgc-2", "<=", 0.25),
                 ("vmkit-2", "gap", "go", None, None)],
        "plots": lambda *arguments: histogram(*arguments),
    },
]


def program(bindir, workload, variant):
    return os.path.join(bindir, f"gc_{workload['program']}_{variant.partition('-')[0]}")


def measure(bindir, workload, variant, point):
    """See launch.py."""
    threads, mode = point
    markers = variant.partition("-")[2] or "0"
    figures = launch.run([program(bindir, workload, variant), str(workload["size"]), str(threads), markers, mode], variant)
    expected = workload["checksums"].setdefault(point, figures.get("checksum"))
    if expected != figures.get("checksum", expected):
        sys.exit(f"{workload['name']}, {variant}: the checksum is {figures['checksum']:.0f}, not {expected:.0f} as before")
    return figures


def there(bindir, workload, variants, row, quick):
    """Is the row measured?"""
    variant, _, label = row.partition(" ")
    labels = workload.get("quick", workload["points"]) if quick else workload["points"]
    return variant in variants and label in labels


def prepared(bindir, quick):
    """The workloads with what is to be used of them. Peers that could not be built are left out, with a word about it."""
    for workload in WORKLOADS:
        variants = [v for v in workload["variants"] if os.path.exists(program(bindir, workload, v))]
        for variant in [v for v in workload["variants"] if v not in variants]:
            print(f"{workload['name']}: {variant} is not there; measuring without", file=sys.stderr)
        bars = [bar for bar in workload["bars"]
                if all(there(bindir, workload, variants, row, quick) for row in (bar[0], bar[2] or bar[0]))]
        yield {**workload, "brief": True, "variants": variants, "bars": bars, "measure": measure, "checksums": {},
               "size": workload["sizes"][quick], "title": workload["title"].format(size=workload["called"][quick])}


def histogram(outdir, workload, outcome):
    """How many gaps of each length there were in a run: both axes logarithmic."""
    path = os.path.join(outdir, "gc-pauses-histogram.svg")
    variants, rounds = workload["variants"], outcome["rounds"]
    data = ""
    for i, bucket in enumerate(BUCKETS):
        start = 0.05 * 2 ** i
        label = f"{start * 1000:g} us" if start < 1 else f"{start:.3g} ms"
        counts = [sum(outcome["results"][v][bucket]) / rounds for v in variants]
        data += f'"{label}" ' + " ".join(str(c) if c else "NaN" for c in counts) + "\n"
    boxes = ", ".join(f'$data using {i + 2}:xtic(1) title "{v}"' for i, v in enumerate(variants))
    commands = f"""set terminal svg size 960,400 font "sans,12" background "white"
set output "{path}"
set title "Gaps of a run, by their length (from ... to twice that)"
set ylabel "gaps (logarithmic)"
set logscale y
set yrange [0.1:*]
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.7
set key right top
set xtics rotate by -40
set grid ytics
$data << EOD
{data}EOD
plot {boxes}
"""
    try:
        subprocess.run(["gnuplot"], input=commands, text=True, check=True)
        return [path]
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"no plot: {problem}", file=sys.stderr)
        return []
