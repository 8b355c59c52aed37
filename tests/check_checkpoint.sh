#!/bin/sh
# SPDX-License-Identifier: MIT
# check_checkpoint.sh PROGRAM [ARGUMENT ...]
# Does the program of examples/checkpoint keep its state across runs, write only what has changed, and survive an end in the
# middle of a checkpoint, wherever that is?
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
file=$tmp/state
sizes="--size 4 --changed 1"
fail() { echo "check_checkpoint: $*" >&2; exit 1; }
# PROGRAM may be an emulator with its arguments.
checkpoint() {
    # shellcheck disable=SC2086 # words on purpose
    "$program" $arguments "$file" $sizes "$@" | tr -d '\r'
}
program=$1
shift
arguments=$*
number() { checkpoint --verify | sed -n 's/^checkpoint \([0-9]*\) is whole$/\1/p'; }
bytes() { wc -c <"$file" | tr -d ' '; }

checkpoint --rounds 3 >"$tmp/out"
[ "$(number)" = 3 ] || fail "three checkpoints, and not the third is there"
full=$(sed -n 's/^checkpoint 1: \([0-9]*\)[.].*/\1/p' "$tmp/out")
[ "$full" = 4 ] || fail "the first checkpoint should hold 4 MiB, not $full"
# At most 1 % of the pages, or blocks of 16, and their runs.
before=$(bytes)
checkpoint --rounds 1 >"$tmp/out"
[ $(($(bytes) - before)) -lt 800000 ] || fail "a checkpoint of 1 % took $(($(bytes) - before)) bytes"
[ "$(number)" = 4 ] || fail "the state did not go on in a second run"

# It ends after so many bytes: of the record's head, of its runs, of contents, of the checksum. What was finished is there, and
# the next run goes on with it.
cp "$file" "$tmp/saved"
checkpoint --rounds 1 >"$tmp/out"
record=$(($(bytes) - $(wc -c <"$tmp/saved")))
for crash in 1 24 40 100 5000 $((record / 2)) $((record - 9)) $((record - 8)) $((record - 1)); do
    cp "$tmp/saved" "$file"
    checkpoint --rounds 1 --crash "$crash" >"$tmp/out"
    [ "$(number)" = 4 ] || fail "after a crash at byte $crash of $record checkpoint 4 is not there"
    checkpoint --rounds 2 >"$tmp/out"
    [ "$(number)" = 6 ] || fail "after a crash at byte $crash of $record it does not go on"
done

# It begins a new file when the old one is three times as large as the region; there too it may end at any time.
sizes="--size 4 --changed 60"
rm -f "$file"
rounds=0
while [ $rounds = 0 ] || [ "$(bytes)" -le $((3 * 4194304)) ]; do
    checkpoint --rounds 1 >"$tmp/out"
    rounds=$((rounds + 1))
    [ $rounds -lt 20 ] || fail "the file does not grow"
done
cp "$file" "$tmp/saved"
large=$(bytes)
for crash in 1 40 3000000 4194352; do
    cp "$tmp/saved" "$file"
    checkpoint --rounds 1 --crash "$crash" >"$tmp/out"
    [ "$(bytes)" = "$large" ] || fail "it does not begin a new file"
    [ "$(number)" = $rounds ] || fail "after a crash at byte $crash of a new file checkpoint $rounds is not there"
done
checkpoint --rounds 1 >"$tmp/out"
[ "$(bytes)" -lt 4300000 ] || fail "the new file has $(bytes) bytes"
[ "$(number)" = $((rounds + 1)) ] || fail "the state is damaged by beginning a new file"

# Another file than a checkpoint's, and one of another size, are refused and left alone.
cp "$file" "$tmp/saved"
sizes="--size 8"
if checkpoint --rounds 1 2>"$tmp/err" | grep -q '^checkpoint'; then fail "the file of a smaller region was taken"; fi
grep -q "not the checkpoints of a region" "$tmp/err" || fail "no reason is given"
cmp -s "$file" "$tmp/saved" || fail "a file that does not belong was changed"
echo "state kept across runs and crashes"
