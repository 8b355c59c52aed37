#!/bin/sh
# SPDX-License-Identifier: MIT
# bench.sh [SUITE] [--quick] [--json]: measure (suites: table, vm, heap, gc), each variant in turn with its peers, round after round,
# and print the ratios. Plots are written to build/bench/plots. What was found is kept in docs/benchmarks.md.
# bench.sh malloc [--quick] [--json] [--only=NAME,...] [--allocators=NAME,...] [--rounds=N]: the same for allocators, which
# are preloaded.
set -eu
. "$(dirname "$0")/common.sh"

suite=table
flags=
for argument; do
    case $argument in
    table | vm | heap | gc | malloc) suite=$argument ;;
    --quick | --json) flags="$flags $argument" ;;
    --only=* | --allocators=* | --rounds=*) flags="$flags $argument" ;;
    *) die "usage: bench.sh [table | vm | heap | gc | malloc] [--quick] [--json]; malloc: [--only=NAME,...] [--allocators=NAME,...] [--rounds=N]" ;;
    esac
done

apt_need "echo '#include <cstdio>' | c++ -xc++ -E - " "gcc g++ libc6-dev"
apt_need "command -v cmake" cmake
apt_need "command -v ninja" ninja-build
apt_need "command -v python3" python3
apt_need "command -v gnuplot" gnuplot-nox
if [ "$suite" = malloc ]; then
    apt_need "! LD_PRELOAD=libtbbmalloc_proxy.so.2 /bin/true 2>&1 | grep -q preloaded" libtbbmalloc2
    apt_need "ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-*.so" libclang-rt-dev
    # Programs that are run. redis-server is a part of redis-tools; the package of that name would start it.
    apt_need "test -x /usr/bin/python3" python3
    apt_need "command -v perl" perl
    apt_need "command -v sqlite3" sqlite3
    apt_need "command -v git" git
    apt_need "command -v redis-benchmark" redis-tools
    apt_need "command -v valgrind" valgrind
fi
if [ "$suite" = heap ]; then
    apt_need "command -v strace" strace
    apt_need "command -v prlimit" util-linux
fi
if [ "$suite" = heap ] || [ "$suite" = gc ]; then
    apt_need "echo '#include <gc.h>' | cc -E -" libgc-dev # and libgc1 with it
fi
if [ "$suite" = heap ] || [ "$suite" = malloc ]; then
    # Peers. The loader says so on standard error where there is none, and that alone.
    apt_need "! LD_PRELOAD=libjemalloc.so.2 /bin/true 2>&1 | grep -q preloaded" libjemalloc2
    apt_need "! LD_PRELOAD=libmimalloc.so.2 /bin/true 2>&1 | grep -q preloaded" libmimalloc2.0
    apt_need "! LD_PRELOAD=libtcmalloc_minimal.so.4 /bin/true 2>&1 | grep -q preloaded" libtcmalloc-minimal4
fi
apt_install || exit 1
if [ "$suite" = gc ]; then # Go is a peer that is nice to have
    apt_need "command -v go" golang-go
    apt_install || say "there is no Go; measuring without"
fi
cmake_check

say "building, in build/bench"
mkdir -p "$top/build/bench"
log=$top/build/bench/build.log
(cd "$top" && cmake --preset release -B build/bench -DVMKIT_BENCH=ON -DVMKIT_EXAMPLES=OFF &&
    cmake --build build/bench) >"$log" 2>&1 || {
    tail -n 40 "$log"
    die "the build failed; all that it said is in $log"
}
# shellcheck disable=SC2086 # words on purpose
exec python3 -B "$top/bench/run.py" "$suite" "$top/build/bench/bench" "$top/build/bench/plots" $flags
