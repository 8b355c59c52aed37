# SPDX-License-Identifier: MIT
"""What a malloc and a free of a small block cost in instructions, as valgrind's callgrind counts them: the same whatever
else the machine does. Counted for two numbers of pairs, of which the difference is told, so that starting does not count."""
import os
import re
import subprocess
import tempfile

FEW, MANY = 10_000, 110_000


def count(bindir, library, environment, pairs):
    """Answers the instructions of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
                               os.path.join(os.path.abspath(bindir), "malloc_pair"), str(pairs)],
                              env={**os.environ, **environment, "LD_PRELOAD": library},
                              capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(done.stderr.strip()[-300:])
    return int(found[1])


def measure(bindir, allocators, environments):
    """allocator -> instructions of a pair, the loop's own four and the jumps through the linker's table included."""
    counts = {}
    for name, library in allocators.items():
        environment = environments.get(name, {})
        try:
            counts[name] = (count(bindir, library, environment, MANY) - count(bindir, library, environment, FEW)) / (MANY - FEW)
        except (OSError, RuntimeError) as problem:
            print(f"no instructions of {name}: {problem}")
    return counts
