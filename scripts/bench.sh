#!/bin/sh
# SPDX-License-Identifier: MIT
# bench.sh [SUITE] [--quick] [--json]: measure (suites: table), each variant in turn with its peers, round after round, and
# print the ratios. Plots are written to build/bench/plots. What was found is kept in docs/benchmarks.md.
set -eu
. "$(dirname "$0")/common.sh"

suite=table
flags=
for argument; do
    case $argument in
    table) suite=$argument ;;
    --quick | --json) flags="$flags $argument" ;;
    *) die "usage: bench.sh [table] [--quick] [--json]" ;;
    esac
done

apt_need "echo '#include <cstdio>' | c++ -xc++ -E - " "gcc g++ libc6-dev"
apt_need "command -v cmake" cmake
apt_need "command -v ninja" ninja-build
apt_need "command -v python3" python3
apt_need "command -v gnuplot" gnuplot-nox
apt_install || exit 1
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
exec python3 "$top/bench/run.py" "$suite" "$top/build/bench/bench" "$top/build/bench/plots" $flags
