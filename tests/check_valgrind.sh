#!/bin/sh
# SPDX-License-Identifier: MIT
# check_valgrind.sh PROGRAM
# Does memcheck see the mistakes of valgrind_target as it sees those with malloc's memory, and none where there is none?
set -eu
LC_ALL=C
export LC_ALL
[ $# = 1 ] || { echo "usage: check_valgrind.sh PROGRAM" >&2 && exit 2; }
program=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
failed=0

# memcheck CASE: what it says, and 44 if it has found an error.
memcheck() { valgrind --leak-check=full --error-exitcode=44 "$program" "$1" >"$tmp/out" 2>&1; }

# finds CASE PATTERN...: an error, and lines that match each pattern.
finds() {
    name=$1
    shift
    status=0
    memcheck "$name" || status=$?
    [ $status = 44 ] || { wrong "exit code $status" && return; }
    for pattern; do
        grep -Eq "$pattern" "$tmp/out" || wrong "nothing like: $pattern"
    done
}

clean() {
    name=$1
    memcheck "$name" || wrong "exit code $?"
    grep -q "ERROR SUMMARY: 0 errors" "$tmp/out" || wrong "errors where there are none"
}

wrong() {
    echo "check_valgrind: $name: $*" >&2
    cat "$tmp/out" >&2
    failed=1
}

finds leak '1,235 bytes in 1 blocks are definitely lost' 'vmk_heap_alloc \(object.c' 'by .*: leak '
finds leak-first '77 bytes in 1 blocks are definitely lost'
finds leak-large '123,456 bytes in 1 blocks are definitely lost'
# There are numbers that look like addresses in it, since valgrind has a program's mappings begin where sizes end.
finds leak-huge '41,943,041 bytes in 1 blocks are (definitely|possibly) lost'
finds leak-reallocated '300,001 bytes in 1 blocks are definitely lost'
finds leak-aligned '777 bytes in 1 blocks are definitely lost'
finds leak-hardened '1,235 bytes in 1 blocks are definitely lost'
finds freed-small 'Invalid read of size 1' 'is 49 bytes inside a block of size 50 free' "Block was alloc'd at"
finds freed-large 'Invalid read of size 1' 'is 99,999 bytes inside a block of size 100,000 free'
finds freed-hardened 'Invalid read of size 1' 'is 49 bytes inside a block of size 50 free'
finds past-the-end 'Invalid write of size 1'
finds uninitialised 'Conditional jump or move depends on uninitialised value'
finds uninitialised-tail 'Conditional jump or move depends on uninitialised value'
clean clean
clean clean-decommit
clean hardened
exit $failed
