# SPDX-License-Identifier: MIT
"""Programs of the benchmarks, started in other ways than plainly: with a peer's malloc, under a limit, being traced.

Functions named as a workload's "measure" in run.py take (bindir, workload, variant, number) and answer {metric: value}.
"""
import math
import os
import random
import subprocess
import sys
import tempfile

# Who takes the place of malloc, by variant. These run the program's own variant "malloc".
MALLOCS = {
    "glibc": None,
    "jemalloc": "libjemalloc.so.2",
    "mimalloc": "libmimalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
}

MOST = 64 << 20  # KiB: no program of ours or a peer's needs 64 GiB of address space to start
REPEATS = 5  # a limit counts as enough when the program starts this often: addresses are random, and padding with them
STEPS = 100
STEPS_END = 16 << 20  # KiB
SECONDS_MOST = 600  # for one measurement: whatever takes longer hangs


def environment(variant):
    """What to start a variant with; a library that isn't there would only be a warning of the loader's."""
    library = MALLOCS.get(variant)
    return {**os.environ, "LD_PRELOAD": library} if library else None


def run(command, variant):
    """Run a measurement and answer the figures that it prints."""
    try:
        done = subprocess.run(command, env=environment(variant), capture_output=True, text=True, check=False, timeout=SECONDS_MOST)
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(command)} ({variant}): still running after {SECONDS_MOST} s")
    if done.returncode != 0 or "cannot be preloaded" in done.stderr:
        sys.exit(f"{' '.join(command)} ({variant}): exit code {done.returncode}\n{done.stderr}")
    return {metric: float(value) for metric, value in (line.split() for line in done.stdout.splitlines())}


def exit_code(program, variant, kib):
    """How the program ends under a limit on address space, or None; negative: by a signal. prlimit and not a function to
    be called before exec: after the limit is set, nothing may need memory, and python might."""
    command = ["prlimit", f"--as={'unlimited' if kib is None else kib * 1024}", program]
    return subprocess.run(command, env=environment(variant), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode


def startup_program(bindir, workload, variant):
    return os.path.join(bindir, workload["program"] + "_" + ("malloc" if variant in MALLOCS else variant))


def smallest_limit(bindir, workload, variant, _):
    """The smallest limit on address space, in KiB, under which the program starts and ends well."""
    program = startup_program(bindir, workload, variant)

    def starts(kib):
        return all(exit_code(program, variant, kib) == 0 for _ in range(REPEATS))

    high = 1024
    while not starts(high):
        high *= 2
        if high > MOST:
            sys.exit(f"{program} ({variant}) does not even start under a limit of {MOST} KiB")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if starts(middle) else (middle, high)
    return {"limit": high}


def random_limits(bindir, workload, variant, number):
    """Limits from the smallest to 16 GiB, at random, evenly by their logarithm, and none: how many the program fails under.
    VMKIT_SEED repeats a run."""
    program = startup_program(bindir, workload, variant)
    seed = int(os.environ.get("VMKIT_SEED") or random.randrange(1 << 32))
    numbers = random.Random(seed)
    least = smallest_limit(bindir, workload, variant, number)["limit"]
    steps = [round(math.exp(numbers.uniform(math.log(least), math.log(STEPS_END)))) for _ in range(STEPS)]
    failures = 0
    for kib in steps + [None]:
        code = exit_code(program, variant, kib)
        if code != 0:
            print(f"{program} under {kib} KiB: exit code {code} (seed {seed})", file=sys.stderr)
            failures += 1
    return {"failures": failures, "steps": STEPS + 1, "from": least, "seed": seed}


def system_calls(program, variant, number):
    """How many system calls the program makes between its two marks: see calls in heap.c."""
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        subprocess.run(["strace", "-f", "-o", trace, program, "calls", variant, str(number)], check=True)
        with open(trace, encoding="utf-8") as file:
            lines = file.readlines()
    begin, end = (next(i for i, line in enumerate(lines) if f'write(-1, "{mark}"' in line) for mark in ("begin", "end"))
    return end - begin - 1


def init(bindir, workload, variant, number):
    program = os.path.join(bindir, workload["program"])
    figures = run([program, "init", variant, str(number)], variant)
    return {**figures, "calls": system_calls(program, variant, number)}
