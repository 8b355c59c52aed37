#!/bin/sh
# SPDX-License-Identifier: MIT
# check_lisp.sh full|brief SOURCES -- PROGRAM [ARGUMENT ...]
# Do the programs of examples/lisp print what they should, whichever way the collector finds the roots, and however often
# it collects? SOURCES is the folder of the project. brief: less under stress, for where it is slow.
set -eu

usage() { echo "usage: check_lisp.sh full|brief SOURCES -- PROGRAM [ARGUMENT ...]" >&2; exit 2; }
if [ $# -lt 4 ] || [ "$3" != -- ]; then usage; fi
extent=$1
sources=$2
shift 3

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
runs=0

# Files have relative names, which Wine takes too, and which come back in messages. PROGRAM must have an absolute one.
cp "$sources"/examples/lisp/programs/* "$sources/CMakePresets.json" "$tmp"
cd "$tmp"

bad() { echo "$*" >&2; exit 1; }

# same EXPECTED ARGUMENT...: the output is that file's.
same() {
    expected=$1
    shift
    "$@" >got 2>errors || { cat errors; bad "failed: $*"; }
    cmp got "$expected" || { diff got "$expected" | head -20; bad "another output: $*"; }
    runs=$((runs + 1))
}

# refused TEXT ARGUMENT...: it ends with 1, not with a signal, and says this.
refused() {
    text=$1
    shift
    status=0
    "$@" >got 2>errors || status=$?
    tr -d '\r' <errors >words # Windows ends lines its own way
    if [ "$status" -ne 1 ] || ! grep -q -- "$text" words; then
        cat errors
        bad "status $status, and not this message: $text"
    fi
    runs=$((runs + 1))
}

# What the programs print for less work, to be run under stress.
printf '{"a": [1, true, null, "\\u00e9\\n"], "b": -2.5}\n' >small.json
printf 'object: 1\narray: 1\nstring: 1\nnumber: 2\nboolean: 1\nnull: 1\ndepth: 3\n' >small.expected
printf '{\n  "a": [\n    1,\n    true,\n    null,\n    "\303\251\\n"\n  ],\n  "b": -2.5\n}\n' >>small.expected
head -n 1 queens.expected >queens4.expected
head -n 15 derive.expected >derive1.expected
sed 's/^fibonacci.*/fibonacci: (1 1 2)/' metacircular.expected >metacircular3.expected

for roots in conservative precise; do
    set -- "$@" --verify
    [ $roots = conservative ] || set -- "$@" --precise
    same queens.expected "$@" queens.scm
    same derive.expected "$@" derive.scm
    same metacircular.expected "$@" metacircular.scm
    same json.expected "$@" json.scm -- sample.json
    same queens4.expected "$@" --stress queens.scm -- 4
    if [ "$extent" = full ]; then
        same derive1.expected "$@" --stress derive.scm -- 1
        same small.expected "$@" --stress json.scm -- small.json
        same metacircular3.expected "$@" --stress metacircular.scm -- 3
    fi

    # A recursion that C's stack would not bear, and one that no memory does; a list that grows without end.
    printf '(define (count n) (if (= n 0) 0 (+ 1 (count (- n 1)))))\n(print (count 100000))\n' >deep.scm
    echo 100000 >deep.expected
    same deep.expected "$@" deep.scm
    printf '(define (count n)\n  (+ 1\n     (count n)))\n(count 1)\n' >endless.scm
    refused '^endless.scm:[123]: \(recursion is too deep\|out of memory\)$' "$@" endless.scm
    printf '(define (fill x)\n  (fill (cons 1 x)))\n(print "first")\n(fill (list))\n' >full.scm
    refused '^full.scm:2: out of memory$' "$@" --heap-limit 8 full.scm
    [ "$(cat got)" = first ] || bad "what was printed before an error is lost"
done

refused '^standard input:2: not a pair: 5$' sh -c 'printf "(print 1)\n(print (car 5))\n" | "$@"' sh "$@"
refused '^lines.scm:3: not defined: nonsense$' sh -c 'printf "\n\n(list 1 nonsense)\n" >lines.scm; "$@" lines.scm' sh "$@"
refused 'a list has no end' sh -c 'printf "(list (list 1" | "$@"' sh "$@"
refused 'nested too deeply' sh -c 'printf "%02000d" 0 | tr 0 "(" | "$@"' sh "$@"
refused '^no such file: nowhere.scm$' "$@" nowhere.scm
printf '(define k #f)\n(define n 0)\n(print "at " (call/cc (lambda (c) (set! k c) 0)))\n(set! n (+ n 1))\n' >again.scm
printf '(when (< n 3) (k n))\n(print (apply + 1 (list 2 3)))\n' >>again.scm
printf 'at 0\nat 1\n6\n' >again.expected
same again.expected "$@" again.scm

# The table of cycles has a line for each.
"$@" --stats metacircular.scm >got 2>cycles
cmp got metacircular.expected
count=$(sed -n 's/^\([0-9]*\) cycles, .*/\1/p' cycles)
if [ "${count:-0}" -lt 2 ] || [ "$(grep -c '^ *[0-9]*  [a-z]' cycles)" -ne "$count" ]; then
    cat cycles
    bad "the table of cycles is not right"
fi

checked=
if command -v python3 >/dev/null 2>&1; then
    for file in sample.json CMakePresets.json; do
        python3 "$sources/tests/check_lisp.py" json "$file" >by_python
        same by_python "$@" json.scm -- "$file"
    done
    python3 "$sources/tests/check_lisp.py" derive <derive.expected
    checked=", and by Python"
fi
echo "$runs runs, as expected$checked"
