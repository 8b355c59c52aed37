#!/bin/sh
# SPDX-License-Identifier: MIT
# check_words.sh PATH ... -- PROGRAM [ARGUMENT ...]
# Does the program of examples/words count what tr, sort and uniq count?
set -eu
# A sorted list is compared byte for byte, so the order must be the bytes' own.
LC_ALL=C
export LC_ALL

usage() { echo "usage: check_words.sh PATH ... -- PROGRAM [ARGUMENT ...]" >&2; exit 2; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

while [ $# -gt 0 ] && [ "$1" != -- ]; do
    printf '%s\n' "$1" >>"$tmp/paths"
    shift
done
if [ $# -lt 2 ] || [ ! -s "$tmp/paths" ]; then usage; fi
shift # the --

# PROGRAM may be an emulator with its arguments; --all and the paths come last.
set -- "$@" --all
while IFS= read -r path; do set -- "$@" "$path"; done <"$tmp/paths"
"$@" | tr -d '\r' | sort >"$tmp/got"

# sed ends every file with a line's end, so that no word goes on in the next file.
while IFS= read -r path; do
    find "$path" -type f -print0 | xargs -0 sh -c 'sed "" "$@"; echo' sh
done <"$tmp/paths" | tr -cs 'A-Za-z0-9_' '\n' | grep '^[A-Za-z_]' | sort | uniq -c | sort >"$tmp/expected"

if cmp -s "$tmp/got" "$tmp/expected" && [ -s "$tmp/got" ]; then
    echo "$(wc -l <"$tmp/got") distinct words, counted alike by both"
    exit 0
fi
echo "the counts differ (< the program's, > those of tr, sort and uniq):" >&2
diff "$tmp/got" "$tmp/expected" | head -20 >&2
exit 1
