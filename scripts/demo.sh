#!/bin/sh
# SPDX-License-Identifier: MIT
# demo.sh [PATH...]: install a compiler and CMake if they are missing, build, and count the words of some source text
# (/usr/include) with nothing but lazy tables: once as the machine allows, once in 64 MB of address space.
set -eu
. "$(dirname "$0")/common.sh"

apt_need "echo '#include <stdio.h>' | cc -E -x c - " "gcc libc6-dev"
apt_need "command -v cmake" cmake
apt_need "command -v ninja" ninja-build
apt_install || exit 1
cmake_check

words=$top/build/release/examples/words
say "building, in build/release"
mkdir -p "$top/build/release"
log=$top/build/release/demo.log
(cd "$top" && cmake --preset release && cmake --build --preset release) >"$log" 2>&1 || {
    tail -n 40 "$log"
    die "the build failed; all that it said is in $log"
}

[ $# -gt 0 ] || set -- /usr/include
"$words" "$@"

printf '\nThe same, side by side with a run in 64 MB of address space (ulimit -v 65536):\n\n'
figures=$(mktemp -d)
trap 'rm -rf "$figures"' EXIT
trap 'exit 1' INT TERM
"$words" --figures "$@" >"$figures/free"
# shellcheck disable=SC3045 # dash has it, bash has it
(ulimit -v 65536 && exec "$words" --figures "$@") >"$figures/limited" ||
    die "words should have found its way with 64 MB, and did not"
awk -F= '
    function show(key, value) {
        if (key !~ /^(reserved|committed|resident)$/) return value
        if (value >= 2^30) return sprintf("%.1f GiB", value / 2^30)
        return sprintf("%.1f MiB", value / 2^20)
    }
    NR == 1 { printf "%-12s %16s %16s\n", "", "no limit", "64 MB" }
    NR == FNR { free[$1] = $2; next }
    { printf "%-12s %16s %16s\n", $1, show($1, free[$1]), show($1, $2) }
' "$figures/free" "$figures/limited"
