# SPDX-License-Identifier: MIT
"""bench.sh malloc [--quick] [--json] [--only NAME,...] [--allocators NAME,...] [--rounds N]: compare allocators by preloading them.

Every workload (bench/malloc: programs of ours; malloc_programs.py: others) runs under each allocator in turn, round after
round in a rotating order, after one round that is not counted but in which the loader tells whose malloc each program got.
Times are by the clock; what is compared is the ratio to glibc within a round, of which the median is told. Memory is the
largest resident set of any one process of the run. An allocator may also be given as NAME=PATH of a library.
"""
import glob
import hashlib
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile

import malloc_crimes
import malloc_instructions
import malloc_programs

BASELINE = "glibc"
OURS, HARDENED = "vmkit", "vmkit-hardened"
ENVIRONMENTS = {HARDENED: {"VMKIT_HARDENED": "1"}}  # by allocator
ROUNDS, ROUNDS_QUICK = 5, 3
SECONDS_MOST = 300  # for one run: whoever takes longer hangs
CORES = max(2, len(os.sched_getaffinity(0)))
MANY = 4 * CORES
METRICS = {"time": "s", "cpu": "s", "rss": "MiB"}
# What must hold for ours: geometric means over all workloads, and the ratio to the best peer of each workload.
TIME_GLIBC, RSS_GLIBC, WORST = 0.75, 1.10, 1.3

# What to preload. glibc too, since a program may have been linked with another allocator: Debian's redis is.
LIBRARIES = {
    "glibc": "libc.so.6",
    "jemalloc": "libjemalloc.so.2",
    "mimalloc": "libmimalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "tbbmalloc": "libtbbmalloc_proxy.so.2",
    "scudo": "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-x86_64.so",
}

# name, program, size, size for --quick, threads and mode, for people. Sizes are for half a second to two with glibc.
WORKLOADS = [
    ("churn", "churn", 6000, 1500, [1], "small blocks of mixed sizes in random slots"),
    ("pairs", "pairs", 2000, 500, [1], "what was allocated last is freed first"),
    ("tiny", "tiny", 8000, 2000, [1], "tiny objects that die soon"),
    ("trees", "trees", 20, 18, [1], "binary trees, by calloc"),
    ("containers", "containers", 280, 70, [1], "C++: maps, strings, vectors, lists, shared pointers"),
    ("ladders", "ladders", 240, 60, [1], "strings and vectors that grow by realloc"),
    ("large", "large", 480, 120, [1], "64 KiB to 8 MiB, touched"),
    ("zeroed", "zeroed", 200, 50, [1], "calloc, 16 bytes to 1 MiB"),
    ("phases", "phases", 20, 10, [1], "sizes change from phase to phase, some blocks survive"),
    ("batches", "batches", 800, 200, [CORES], "many of one size, freed in other orders"),
    ("server", "server", 3200, 800, [CORES], "objects handed from thread to thread, threads that succeed each other"),
    ("server-many", "server", 800, 200, [MANY], "the same with more threads than cores"),
    ("pipe", "pipe", 40000, 10000, [CORES // 2 * 2], "one side allocates, the other frees"),
    ("pipe-many", "pipe", 10000, 2500, [MANY // 2 * 2], "the same with more threads than cores"),
    ("threads", "threads", 8000, 2000, [CORES], "many threads that live shortly"),
    ("sharing-active", "sharing", 500, 125, [CORES, "active"], "threads write to small objects of their own"),
    ("sharing-passive", "sharing", 500, 125, [CORES, "passive"], "the same, the first objects by one thread"),
    ("stress", "stress", 500, 125, [CORES], "mixed sizes and lives, some exchanged between threads"),
    ("stress-many", "stress", 125, 30, [MANY], "the same with more threads than cores"),
]


class Failure(Exception):
    """A run that does not count: what is wrong with it."""


def progress(text):
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + text)
    elif text:
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


# --- what there is ------------------------------------------------------------------------------------------------------


def preloads(library):
    """The loader warns about a library that it can't preload, and goes on without."""
    done = subprocess.run(["/bin/true"], env={**os.environ, "LD_PRELOAD": library}, stderr=subprocess.PIPE, text=True,
                          check=False)
    return done.returncode == 0 and "cannot be preloaded" not in done.stderr


def allocators_of(wanted, bindir):
    """name -> library, of those that are there."""
    ours = os.path.join(os.path.dirname(os.path.abspath(bindir)), "libvmkit-malloc.so")
    known = {**LIBRARIES, OURS: ours, HARDENED: ours}
    found = {}
    for item in [BASELINE] + [w for w in wanted or known if w != BASELINE]:
        name, _, path = item.partition("=")
        library = os.path.abspath(path) if path else known.get(name)
        if library is None:
            sys.exit(f"no such allocator: {name}; there are {', '.join(known)}, and NAME=PATH of a library")
        library = max(glob.glob(library), default=library)
        if preloads(library):
            found[name] = library
        else:
            print(f"{name}: {library} is not there or can't be preloaded; measuring without", file=sys.stderr)
    return found


def workloads_of(only, bindir, folder, quick):
    """name -> what to run, see malloc_programs.py. Only what is wanted is prepared."""
    names = [w[0] for w in WORKLOADS] + list(malloc_programs.PROGRAMS)
    if set(only or names) - set(names):
        sys.exit(f"no such workload: {', '.join(set(only) - set(names))}; there are {', '.join(names)}")
    found = {}
    for name, program, size, quick_size, rest, text in WORKLOADS:
        command = [os.path.join(os.path.abspath(bindir), "malloc_" + program), str(quick_size if quick else size)]
        found[name] = {"command": command + [str(r) for r in rest], "environment": {}, "folder": folder, "text": text,
                       "threads": rest[0]}
    for name, (make, text) in malloc_programs.PROGRAMS.items():
        if name in (only or names):
            own = os.path.join(folder, name)
            os.mkdir(own)
            found[name] = {**make(0.25 if quick else 1, own), "text": text, "foreign": True}
    return {name: found[name] for name in names if name in (only or names)}


# --- one run ------------------------------------------------------------------------------------------------------------


def check_bindings(files, library):
    """Every process of the run must have got malloc and its like from the library. But the library itself may want others;
    and "free" may be bound to a program that takes its address, and has got it from the library in its turn."""
    own = os.path.basename(library)
    family = re.split("[._]", own)[0]
    pattern = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: normal symbol `(malloc|calloc|realloc|free)'")
    bound = False
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as lines:
            bindings = {m.groups() for m in map(pattern.search, lines) if m}
        rightly = {(user, symbol) for user, giver, symbol in bindings if os.path.basename(giver) == own}
        for user, giver, symbol in bindings:
            from_own = os.path.basename(giver) == own or (giver, symbol) in rightly
            if not from_own and re.split("[._]", os.path.basename(user))[0] != family:
                raise Failure(f"{user} got {symbol} of {giver}, not of {library}")
        bound = bound or bool(rightly)
    if not bound:
        raise Failure(f"nobody got malloc of {library}")


def wait_for(running, workload):
    """Answers what is to be the same for all allocators, and the client's seconds where there is a client."""
    seconds = None
    try:
        if "client" in workload:
            seconds, text = workload["client"](running)
            running.communicate(timeout=SECONDS_MOST)
            return text, seconds
        return running.communicate(timeout=SECONDS_MOST)[0], seconds
    except (subprocess.SubprocessError, RuntimeError) as problem:
        raise Failure(str(problem)) from problem
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)  # its own group: see start_new_session
            running.wait()


def run_once(bindir, workload, library, extra, checked):
    """Answers {metric: value} and "checksum". checked: let the loader tell whose malloc it was, which takes time."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report")
        told = ["LD_DEBUG=bindings", f"LD_DEBUG_OUTPUT={folder}/bindings"] if checked else []
        command = [os.path.join(os.path.abspath(bindir), "malloc_run"), report, library] + (["env"] + told if checked else [])
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "MALLOC_", "GIT_"))}
        with open(os.path.join(folder, "errors"), "w+", encoding="utf-8", errors="replace") as errors:
            running = subprocess.Popen(command + workload["command"], cwd=workload["folder"], text=True, errors="replace",
                                       env={**environment, **workload["environment"], **extra}, start_new_session=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            output, seconds = wait_for(running, workload)
            errors.seek(0)
            complaints = errors.read()
        if running.returncode != 0 or "cannot be preloaded" in complaints:
            raise Failure(f"could not be run: {complaints.strip()}")
        with open(report, encoding="utf-8") as file:
            time, cpu, kib, status = file.read().split()
        if int(status) != 0:
            raise Failure(f"ended with {status}: {complaints.strip()[-500:]}")
        if checked:
            check_bindings(glob.glob(os.path.join(folder, "bindings.*")), library)
    given = re.search(r"^malloc (.*)\n", output, re.MULTILINE)
    if given and os.path.basename(given[1]) != os.path.basename(library):
        raise Failure(f"ran with the malloc of {given[1]}")
    return {"time": seconds or float(time), "cpu": float(cpu), "rss": int(kib) / 1024,
            "checksum": hashlib.sha256(re.sub(r"(?m)^malloc .*\n", "", output).encode()).hexdigest()[:16]}


# --- all of them --------------------------------------------------------------------------------------------------------


def measure(bindir, name, workload, allocators, rounds):
    """allocator -> metric -> values, one a round; allocators that failed are not in it but in the second: name -> why."""
    results = {a: {metric: [] for metric in METRICS} for a in allocators}
    failures, checksum = {}, None
    for number in range(rounds + 1):
        order = list(allocators)
        start = number % len(order)  # nobody always follows the same other
        for allocator in order[start:] + order[:start]:
            if allocator in failures:
                continue
            progress(f"{name}: round {number} of {rounds}, {allocator}")
            try:
                figures = run_once(bindir, workload, allocators[allocator], ENVIRONMENTS.get(allocator, {}), number == 0)
                checksum = checksum or figures["checksum"]
                if figures["checksum"] != checksum:
                    raise Failure(f"the checksum is {figures['checksum']}, not {checksum} as for others before")
            except Failure as failure:
                failures[allocator] = str(failure)
                continue
            for metric in METRICS if number > 0 else []:
                results[allocator][metric].append(figures[metric])
    progress("")
    return {a: r for a, r in results.items() if a not in failures}, failures


def ratio(results, metric, allocator, peer):
    """Within each round, of which the median."""
    return statistics.median(a / b for a, b in zip(results[allocator][metric], results[peer][metric]))


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else float("nan")


def summary_of(outcomes, allocators):
    """Over the workloads that nobody failed: kind -> metric -> allocator -> geometric mean of the ratios to glibc."""
    good = [o for o in outcomes.values() if not o["failures"]]
    kinds = {"all": good, "workloads": [o for o in good if not o["foreign"]], "programs": [o for o in good if o["foreign"]]}
    return {kind: {metric: {a: geometric_mean([o["ratios"][metric][a] for o in chosen]) for a in allocators}
                   for metric in METRICS} for kind, chosen in kinds.items() if chosen}


def standing_of(outcomes, allocators):
    """Where ours stands: workload -> metric -> its best peer, and the ratio to that."""
    peers = [a for a in allocators if a in LIBRARIES]
    return {name: {metric: max((ratio(o["results"], metric, OURS, p), p) for p in peers if p in o["results"])
                   for metric in ("time", "rss")}
            for name, o in outcomes.items() if OURS in o["results"] and BASELINE in o["results"]}


def bars_of(summary, standing):
    means = summary["all"]
    fastest = min((v, a) for a, v in means["time"].items() if a in LIBRARIES)
    worst = max((s["time"][0], name) for name, s in standing.items())
    bars = [("geometric mean of time / glibc", means["time"][OURS], TIME_GLIBC),
            (f"geometric mean of time, that of {fastest[1]}", means["time"][OURS], fastest[0]),
            ("geometric mean of peak resident memory / glibc", means["rss"][OURS], RSS_GLIBC),
            (f"time / best peer at worst ({worst[1]})", worst[0], WORST)]
    return [{"text": f"{text} <= {limit:.3f}", "got": got, "met": got <= limit} for text, got, limit in bars]


# --- for people ---------------------------------------------------------------------------------------------------------


def print_workload(name, outcome):
    threads = f", {outcome['threads']} threads" if outcome["threads"] > 1 else ""
    print(f"\n{name}: {outcome['text']}{threads} (s and MiB, median of {outcome['rounds']})")
    heads = [h for metric in METRICS for h in ([metric, "min", "max"] if metric != "cpu" else [metric]) + ["x glibc"]]
    print("  " + "allocator".ljust(12) + "".join(h.rjust(9) for h in heads))
    for allocator, figures in outcome["results"].items():
        cells = []
        for metric in METRICS:
            values = figures[metric]
            cells += [statistics.median(values)] + ([min(values), max(values)] if metric != "cpu" else [])
            cells.append(outcome["ratios"][metric].get(allocator, float("nan")))
        print("  " + allocator.ljust(12) + "".join(f"{c:9.3f}" for c in cells))
    for allocator, why in outcome["failures"].items():
        print(f"  {allocator} FAILED: {why}")
    sys.stdout.flush()


def print_matrix(outcomes, summary, allocators, metric, title):
    print(f"\n{title}, x glibc")
    print("  " + "".ljust(18) + "".join(a.rjust(15) for a in allocators))
    rows = [(name, o["ratios"][metric]) for name, o in outcomes.items()]
    rows += [(f"mean of {kind}", means[metric]) for kind, means in summary.items()]
    for name, ratios in rows:
        print("  " + name.ljust(18) + "".join((f"{ratios[a]:.3f}" if a in ratios else "failed").rjust(15) for a in allocators))


def print_instructions(instructions):
    print("\nInstructions of malloc(32) and free")
    for allocator, count in instructions.items():
        print("  " + allocator.ljust(18) + f"{count:8.1f}")


def print_standing(standing, bars):
    print(f"\nWhere {OURS} stands: its ratio to the best peer of each workload")
    print("  " + "".ljust(18) + "time".rjust(8) + "  best peer".ljust(16) + "memory".rjust(8) + "  best peer")
    for name, stand in standing.items():
        (time, peer), (rss, peer_rss) = stand["time"], stand["rss"]
        flag = f"   over {WORST}" if time > WORST else ""
        print("  " + name.ljust(18) + f"{time:8.3f}  {peer:14}{rss:8.3f}  {peer_rss:14}{flag}")
    for bar in bars:
        print(f"  bar: {bar['text']}: {bar['got']:.3f} {'met' if bar['met'] else 'MISSED'}")


def gnuplot(path, title, data, boxes, width):
    commands = f"""set terminal svg size {width},420 font "sans,12" background "white"
set output "{path}"
set title "{title}"
set ylabel "x glibc (logarithmic)"
set logscale y 2
set yrange [0.25:*]
set style data histogram
set style histogram errorbars gap 1
set style fill solid 0.7
set key outside right
set xtics rotate by -40
set grid ytics
$data << EOD
{data}
EOD
plot {boxes}, 1 notitle with lines linecolor rgb "black"
"""
    try:
        subprocess.run(["gnuplot"], input=commands, text=True, check=True)
        return path
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"no plot: {problem}", file=sys.stderr)
        return None


def plots_of(outdir, outcomes, summary, allocators):
    """Two for each metric: all workloads, with the spread between rounds, and the geometric means."""
    shown = [a for a in allocators if a != BASELINE]
    boxes = ", ".join(f'$data using {3 * i + 2}:{3 * i + 3}:{3 * i + 4}:xtic(1) title "{a}"'
                      for i, a in enumerate(shown))
    paths = []
    for metric, title in (("time", "Time"), ("rss", "Peak resident memory")):
        lines, means = [], []
        for name, o in outcomes.items():
            cells = []
            for a in shown:
                rounds = [x / y for x, y in zip(o["results"].get(a, {}).get(metric, []), o["results"][BASELINE][metric])] \
                    if BASELINE in o["results"] else []
                cells.append(f"{statistics.median(rounds)} {min(rounds)} {max(rounds)}" if rounds else "NaN NaN NaN")
            lines.append(f'"{name}" ' + " ".join(cells))
        for kind, figures in summary.items():
            means.append(f'"{kind}" ' + " ".join(f"{figures[metric][a]} " * 3 for a in shown))
        mean = "geometric means"
        paths.append(gnuplot(os.path.join(outdir, f"malloc-{metric}.svg"), title, "\n".join(lines), boxes, 1600))
        paths.append(gnuplot(os.path.join(outdir, f"malloc-{metric}-means.svg"), f"{title}, {mean}", "\n".join(means), boxes, 640))
    return [p for p in paths if p]


# --- main ---------------------------------------------------------------------------------------------------------------


def options_of(arguments):
    """Answers flags, and lists by option."""
    flags, lists, rest = set(), {}, list(arguments)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if name in ("--only", "--allocators", "--rounds"):
            lists[name] = (value or (rest.pop(0) if rest else "")).split(",")
        elif word in ("--quick", "--json"):
            flags.add(word)
        else:
            sys.exit(__doc__)
    return flags, lists


def outcome_of(bindir, name, workload, allocators, rounds):
    results, failures = measure(bindir, name, workload, allocators, rounds)
    ratios = {m: {a: ratio(results, m, a, BASELINE) for a in results if BASELINE in results} for m in METRICS}
    return {"text": workload["text"], "threads": workload.get("threads", 1), "foreign": workload.get("foreign", False),
            "rounds": rounds, "results": results, "ratios": ratios, "failures": failures}


def main(arguments):
    """Answers the exit code: 1 if a run failed. Bars that are missed are told, and that is all."""
    bindir, outdir = arguments[:2]
    flags, lists = options_of(arguments[2:])
    os.makedirs(outdir, exist_ok=True)
    allocators = allocators_of(lists.get("--allocators"), bindir)
    quiet, outcomes = "--json" in flags, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, workload in workloads_of(lists.get("--only"), bindir, folder, "--quick" in flags).items():
            rounds = int(lists.get("--rounds", [ROUNDS_QUICK if "--quick" in flags else ROUNDS])[0])
            outcomes[name] = outcome_of(bindir, name, workload, allocators, rounds)
            if not quiet:
                print_workload(name, outcomes[name])
    summary = summary_of(outcomes, allocators)
    standing = standing_of(outcomes, allocators) if OURS in allocators else {}
    bars = bars_of(summary, standing) if standing and summary else []
    plots = plots_of(outdir, outcomes, summary, allocators)
    instructions = malloc_instructions.measure(bindir, allocators, ENVIRONMENTS)
    crimes = malloc_crimes.measure(bindir, allocators, ENVIRONMENTS)
    if quiet:
        print(json.dumps({"workloads": outcomes, "means": summary, "standing": standing, "bars": bars,
                          "instructions": instructions, "crimes": crimes}, indent=2))
    else:
        for metric, title in (("time", "Time"), ("cpu", "Processor time"), ("rss", "Peak resident memory")):
            print_matrix(outcomes, summary, allocators, metric, title)
        print_instructions(instructions)
        malloc_crimes.show(crimes, allocators)
        if standing:
            print_standing(standing, bars)
        print("\nplots: " + ", ".join(plots))
    failed = [f"{name}, {a}: {why}" for name, o in outcomes.items() for a, why in o["failures"].items()]
    for text in failed:
        print(f"FAILED: {text}", file=sys.stderr)
    return 1 if failed else 0
