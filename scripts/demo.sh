#!/bin/sh
# SPDX-License-Identifier: MIT
# demo.sh [PATH...]: install a compiler and CMake if they are missing, build, and count the words of some source text
# (/usr/include) with nothing but lazy tables: once as the machine allows, once in 64 MB of address space. Then make a heap
# as the machine allows, in 1 GB, in 64 MB and in the least that does, and have it work. Then some services: checkpoints of a
# state in memory, a file through a ring buffer, machine code. Last a Lisp on a collected heap, in 64 MB.
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

# --- a heap -----------------------------------------------------------------------------------------------------------

vmkit=$top/build/release/tools/vmkit

# limited KIB COMMAND...: run it within so much address space; without a limit for "unlimited".
limited() {
    # shellcheck disable=SC3045
    (ulimit -v "$1" && shift && exec "$@")
}

# least COMMAND...: the least address space, in KiB, in which it works. A program that can't even start is no error here.
least() {
    enough=65536
    little=0
    while [ $((enough - little)) -gt 4 ]; do
        try=$(((enough + little) / 2))
        if limited $try "$@" >/dev/null 2>&1; then enough=$try; else little=$try; fi
    done
    echo $enough
}

to_start=$(least "$vmkit" --version)
with_heap=$(least "$vmkit" layout --work 0 --json)
printf '\nA heap with a handful of spans in it, side by side within limits on address space (ulimit -v):\n\n'
for limit in "unlimited:no limit" "1048576:1 GB" "65536:64 MB" "$with_heap:$with_heap KB"; do
    name=${limit#*:}
    limit=${limit%:*}
    limited "$limit" "$vmkit" layout --work 0 --json >"$figures/heap" || die "no heap could be made with ulimit -v $limit"
    printf 'limit %s\n' "$name"
    sed -n 's/^  "\([a-z_]*\)": "*\([^",]*\)"*,*$/\1 \2/p' "$figures/heap"
done | awk '
    function show(key, value) {
        if (key ~ /^(limit|layout|regions)$/) return value
        value += 0
        if (value >= 2^30) return sprintf("%.1f GiB", value / 2^30)
        if (value >= 2^20) return sprintf("%.1f MiB", value / 2^20)
        return sprintf("%d KiB", value / 2^10)
    }
    $1 == "limit" { runs++ }
    { value[$1, runs] = $2 ($3 != "" ? " " $3 : "") }
    END {
        count = split("limit layout window_size regions reserved committed resident", rows, " ")
        for (i = 1; i <= count; i++) {
            printf "%-12s", rows[i] == "limit" ? "" : rows[i] == "window_size" ? "window" : rows[i]
            for (run = 1; run <= runs; run++) printf " %16s", show(rows[i], value[rows[i], run])
            printf "\n"
        }
    }'
printf '\nThe program needs %d KiB to start at all, and %d KiB with that heap: its price is %d KiB.\n' \
    "$to_start" "$with_heap" $((with_heap - to_start))

printf '\nThe same heap at work:\n\n'
picture=$top/build/release/heap.svg
"$vmkit" layout --work 200000 --map --svg "$picture" || die "the heap should have done this, and did not"
printf '\nThe same as a picture, for a browser: %s\n' "$picture"

# --- services ---------------------------------------------------------------------------------------------------------

examples=$top/build/release/examples
printf '\nA state of 256 MiB, of which each checkpoint writes what has changed (one page in a hundred):\n\n'
"$examples/checkpoint" "$figures/state" --size 256 --rounds 4 || die "the checkpoints should have been written, and were not"
"$examples/checkpoint" "$figures/state" --size 256 --verify || die "the state should have been restored, and was not"
printf '\nThe demo itself through gzip, a ring buffer between two threads, and gunzip: '
gzip -c "$0" | "$examples/stream" | gunzip | cmp - "$0" || die "the file should have come through whole, and did not"
printf 'the same\n\n'
"$examples/jit"

# --- a collected heap -------------------------------------------------------------------------------------------------

programs=$top/examples/lisp/programs
printf '\nA Lisp whose every object lives in a collected heap, in 64 MB of address space (ulimit -v 65536), and each cycle of\n'
printf 'the collector: first an evaluator of itself, with roots that are found, then derivatives, with roots that are told.\n'
# lisp ARGUMENT...: the end of what it prints, and the cycles.
lisp() {
    limited 65536 "$examples/lisp" --stats "$@" 2>"$figures/cycles" >"$figures/printed" ||
        die "the Lisp should have done this with 64 MB, and did not: $(cat "$figures/cycles")"
    printf '\n%s\n' "$(tail -n 1 "$figures/printed")"
    cat "$figures/cycles"
}
lisp "$programs/metacircular.scm" -- 16
lisp --precise "$programs/derive.scm" -- 7
printf '\nAnd a file read as JSON: '
limited 65536 "$examples/lisp" "$programs/json.scm" -- "$top/CMakePresets.json" | sed -n '1,7H;7{x;s/\n/, /g;s/^, //p;}'
