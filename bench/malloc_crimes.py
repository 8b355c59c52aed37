# SPDX-License-Identifier: MIT
"""Which crimes against malloc each allocator finds out: bench/malloc/crimes.c commits them, one in a process."""
import os
import signal
import subprocess


def run(bindir, library, environment, arguments):
    return subprocess.run([os.path.join(os.path.abspath(bindir), "malloc_crimes")] + arguments, check=False, timeout=60,
                          env={**os.environ, **environment, "LD_PRELOAD": library}, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)


def commit(bindir, library, environment, number):
    """Answers "found" where the allocator ended the program, "fault" where the processor did, sooner or later, "WILD" where
    the program has taken over the allocator, "-" where it went on."""
    try:
        done = run(bindir, library, environment, [str(number)])
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode in (-signal.SIGSEGV, -signal.SIGBUS):
        return "fault"
    if done.returncode != 0:
        return "found"
    return "WILD" if "choice" in done.stdout else "-"


def measure(bindir, allocators, environments):
    """crime -> allocator -> what came of it."""
    names = [n for n in run(bindir, "", {}, []).stdout.splitlines() if n]
    return {name: {a: commit(bindir, library, environments.get(a, {}), i) for a, library in allocators.items()}
            for i, name in enumerate(names)}


def show(crimes, allocators):
    print("\nCrimes that were found out")
    print("  " + "".ljust(36) + "".join(a.rjust(16) for a in allocators))
    for name, found in crimes.items():
        print("  " + name.ljust(36) + "".join(found[a].rjust(16) for a in allocators))
    sums = {a: sum(found[a] == "found" for found in crimes.values()) for a in allocators}
    print("  " + f"of {len(crimes)}".ljust(36) + "".join(str(sums[a]).rjust(16) for a in allocators))
