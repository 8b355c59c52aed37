# SPDX-License-Identifier: MIT
"""Programs of the suite "malloc" that are not ours: as Debian has them, at work on what is made here.

A program is a function of (scale, folder): scale is 1, or 0.25 for --quick; folder is its own and is there as long as the
suite runs. It answers what to run: a command, its environment and the folder to run it in. What the command prints must
not depend on the allocator. That of redis is a server, and "client" is what to do with it.
"""
import glob
import os
import random
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
FILES_OF_GCC = 10


def script(name):
    return os.path.join(HERE, "malloc", name)


def python(scale, folder):
    return {"command": ["/usr/bin/python3", "-S", "-E", script("script.py"), str(int(48 * scale))], "folder": folder,
            "environment": {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}}


def perl(scale, folder):
    return {"command": ["perl", script("script.pl"), str(int(48 * scale))], "folder": folder,
            "environment": {"PERL_HASH_SEED": "0"}}


def sqlite(scale, folder):
    path = os.path.join(folder, "script.sql")
    with open(script("script.sql"), encoding="utf-8") as source, open(path, "w", encoding="utf-8") as made:
        made.write(source.read().replace("$ROWS", str(int(300000 * scale))))
    return {"command": ["sqlite3", "-batch", ":memory:", f".read {path}"], "folder": folder, "environment": {}}


def gcc(scale, folder):
    files = sorted(glob.glob(os.path.join(TOP, "src/common/*/*.c")), key=os.path.getsize)[-FILES_OF_GCC:]
    flags = f"-O2 -S -w -I{TOP} -I{TOP}/src -I{TOP}/src/posix"
    return {"command": ["sh", "-c", f"gcc {flags} \"$@\" && cat *.s | cksum", "sh"] + files[:max(2, int(len(files) * scale))],
            "folder": folder, "environment": {}}


def repository(folder, commits):
    """A repository of 300 files, as a stream for git fast-import: the same bytes, and so the same names, every time."""
    numbers = random.Random(1)
    words = [f"word{n}" for n in range(2000)]
    files = {f"folder{n % 17}/file{n}.txt": [] for n in range(300)}
    stream = []
    for commit in range(commits):
        stream.append(f"commit refs/heads/main\ncommitter A <a@example.org> {1600000000 + commit * 60} +0000\n"
                      f"data 8\nchange\n\n")
        for name in numbers.sample(sorted(files), 300 if commit == 0 else 6):
            lines = files[name]
            for _ in range(60 if commit == 0 else 5):
                lines.insert(numbers.randrange(len(lines) + 1), " ".join(numbers.choices(words, k=8)))
            text = "\n".join(lines) + "\n"
            stream.append(f"M 100644 inline {name}\ndata {len(text)}\n{text}\n")
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    subprocess.run(["git", "-C", folder, "fast-import", "--quiet"], input="".join(stream), text=True, check=True)


def git(scale, folder):
    repository(folder, int(400 * scale))
    work = "git log -p --stat | cksum && git repack -a -d -f -q && git gc -q --prune=now && git rev-list --objects --all | cksum"
    return {"command": ["sh", "-c", work], "folder": folder,
            "environment": {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}}


def redis(scale, folder):
    """Debian's redis-tools has the server too, under another name; redis-server would be started as a service."""
    server, socket = os.path.join(folder, "redis-server"), os.path.join(folder, "socket")
    os.symlink("/usr/bin/redis-check-rdb", server)
    requests = int(40000 * scale)

    def wait(running):
        end = time.monotonic() + 60
        while subprocess.run(["redis-cli", "-s", socket, "ping"], capture_output=True, check=False).returncode != 0:
            if running.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the server of redis does not answer")
            time.sleep(0.05)

    def client(running):
        """Answers the seconds that the requests took, and what is the same each time: how many kinds were answered."""
        wait(running)
        start = time.monotonic()
        done = subprocess.run(["redis-benchmark", "-s", socket, "-n", str(requests), "-r", "100000", "-d", "200", "-P", "16",
                               "-c", "20", "-q", "-t", "set,get,lpush,lpop,sadd,hset,zadd,mset"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=True)
        seconds = time.monotonic() - start
        subprocess.run(["redis-cli", "-s", socket, "shutdown", "nosave"], capture_output=True, check=False)
        return seconds, f"{done.stdout.count('requests per second')} kinds"

    return {"command": [server, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--logfile",
                        os.path.join(folder, "log")], "folder": folder, "environment": {}, "client": client}


PROGRAMS = {
    "python": (python, "python3: dicts, lists, strings, JSON (PYTHONMALLOC=malloc)"),
    "perl": (perl, "perl: hashes, regular expressions, strings"),
    "sqlite": (sqlite, "sqlite3: a database in memory"),
    "gcc": (gcc, "gcc -O2 compiles sources of ours"),
    "redis": (redis, "redis-server under redis-benchmark, through a socket"),
    "git": (git, "git log -p, repack, gc"),
}
