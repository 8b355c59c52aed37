#!/bin/sh
# SPDX-License-Identifier: MIT
# check_stream.sh FILE -- PROGRAM [ARGUMENT ...]
# Does what goes through the program of examples/stream come out as it went in, through rings that it fills many times?
set -eu

usage() { echo "usage: check_stream.sh FILE -- PROGRAM [ARGUMENT ...]" >&2; exit 2; }
if [ $# -lt 3 ] || [ "$2" != -- ]; then usage; fi
file=$1
shift 2

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

# The status of a pipe's end is all that a shell tells, so the program leaves its own in a file.
through() {
    rm -f "$tmp/failed"
    gzip -c "$file" | { "$@" || touch "$tmp/failed"; } | gunzip | cmp - "$file"
    if [ -e "$tmp/failed" ]; then
        echo "$*: failed" >&2
        exit 1
    fi
}

through "$@"
through "$@" --ring 1
through "$@" --ring 200000 --piece 4097
through "$@" --ring 65536 --piece 65521 --figures 2>"$tmp/figures"
grep -q '^[0-9]* bytes through a ring of 65536 in ' "$tmp/figures" || { cat "$tmp/figures"; exit 1; }
if [ "$(sed 's/ .*//' "$tmp/figures")" -ne "$(gzip -c "$file" | wc -c)" ]; then
    echo "the figures are wrong: $(cat "$tmp/figures")" >&2
    exit 1
fi

# Nothing, a byte, and bytes that a text mode would change.
: >"$tmp/empty"
printf 'x' >"$tmp/one"
printf 'a\r\nb\n\r\032\000\377c' >"$tmp/odd"
for name in empty one odd; do
    "$@" <"$tmp/$name" >"$tmp/got"
    cmp "$tmp/got" "$tmp/$name"
done
if "$@" --ring x </dev/null >/dev/null 2>&1; then echo "a ring of x bytes was made" >&2; exit 1; fi
echo "$(wc -c <"$file") bytes, four times"
