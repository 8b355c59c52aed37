#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py SUITE BINDIR OUTDIR [--quick] [--json]: run a suite of benchmarks and compare.

Every measurement is a process of its own. The variants of a workload run in turn, round after round, after one round that is
not counted; what is compared is the ratio to the baseline within each round, so a machine that changes its speed between
rounds does not change the ratios. Medians are quoted. Plots are made by gnuplot.
"""
import json
import os
import statistics
import subprocess
import sys

# A workload: title, unit, baseline, variants (name -> arguments), metrics. The first metric is the one that is plotted.
# Bars are (variant, metric, peer, relation, factor): the variant's ratio to the peer must be <= or >= the factor.
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
}


def progress(text):
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + text)
    elif text:
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


def measure(bindir, workload, variant, count):
    program = os.path.join(bindir, workload["program"])
    if workload.get("warm"):  # so that every variant finds the machine's memory in the same state: see bench/table.c
        subprocess.run([program, "warm", "-", str(1 << count)], check=True)
    command = [program, workload["workload"], variant, str(1 << count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(line.split() for line in done.stdout.splitlines())


def run(bindir, workload, quick):
    count = workload["quick" if quick else "count"]
    rounds = 3 if quick and workload["rounds"] > 3 else workload["rounds"]
    results = {variant: {metric: [] for metric in workload["metrics"]} for variant in workload["variants"]}
    for number in range(rounds + 1):
        start = number % len(workload["variants"])  # no variant is always the one that follows the same other
        for variant in workload["variants"][start:] + workload["variants"][:start]:
            progress(f"{workload['name']}: round {number} of {rounds}, {variant}")
            figures = measure(bindir, workload, variant, count)
            for metric in workload["metrics"] if number > 0 else []:
                results[variant][metric].append(float(figures[metric]))
    progress("")
    return {"title": workload["title"].format(n=count), "unit": workload["unit"], "rounds": rounds, "results": results}


def ratio(results, variant, peer, metric):
    """The median over the rounds of variant / peer within a round."""
    pairs = zip(results[variant][metric], results[peer][metric])
    return statistics.median(a / b if b else float("inf") for a, b in pairs)


def print_table(workload, outcome):
    results = outcome["results"]
    print(f"\n{outcome['title']} ({outcome['unit']}, median of {outcome['rounds']})")
    head = ["variant"]
    for metric in workload["metrics"]:
        head += [metric, "min", "max", "x " + workload["baseline"]]
    print("  " + head[0].ljust(14) + "".join(h.rjust(max(12, len(h) + 2)) for h in head[1:]))
    for variant in workload["variants"]:
        cells = []
        for metric in workload["metrics"]:
            values = results[variant][metric]
            cells += [f"{statistics.median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}",
                      f"{ratio(results, variant, workload['baseline'], metric):.3f}"]
        print("  " + variant.ljust(14) + "".join(c.rjust(max(12, len(h) + 2)) for c, h in zip(cells, head[1:])))
    for variant, metric, peer, relation, factor in workload["bars"]:
        got = ratio(results, variant, peer, metric)
        met = got <= factor if relation == "<=" else got >= factor
        print(f"  bar: {metric} of {variant} / {peer} {relation} {factor}: {got:.3f} {'met' if met else 'MISSED'}")


def plot(outdir, suite, workload, outcome):
    metric = workload["metrics"][0]
    data = "\n".join(f'"{v}" {statistics.median(outcome["results"][v][metric])} {min(outcome["results"][v][metric])} '
                     f'{max(outcome["results"][v][metric])}' for v in workload["variants"])
    path = os.path.join(outdir, f"{suite}-{workload['name']}.svg")
    title = outcome["title"].replace("^", "\\\\^")
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
plot $data using 0:2:xtic(1) with boxes notitle linecolor rgb "#4477aa", \\
     $data using 0:2:3:4 with yerrorbars notitle pointtype 0 linecolor rgb "black"
"""
    try:
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
        return path
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"no plot: {problem}", file=sys.stderr)
        return None


def main(arguments):
    flags = [a for a in arguments if a.startswith("--")]
    names = [a for a in arguments if not a.startswith("--")]
    if len(names) != 3 or names[0] not in SUITES or set(flags) - {"--quick", "--json"}:
        sys.exit(__doc__)
    suite, bindir, outdir = names
    os.makedirs(outdir, exist_ok=True)
    outcomes, plots = {}, []
    for workload in SUITES[suite]:
        outcome = run(bindir, workload, "--quick" in flags)
        outcomes[workload["name"]] = outcome
        if "--json" not in flags:
            print_table(workload, outcome)
        if len(workload["variants"]) > 1:
            plots.append(plot(outdir, suite, workload, outcome))
    if "--json" in flags:
        print(json.dumps(outcomes, indent=2))
    else:
        print("\nplots: " + ", ".join(p for p in plots if p))


if __name__ == "__main__":
    main(sys.argv[1:])
