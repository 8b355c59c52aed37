#!/bin/sh
# SPDX-License-Identifier: MIT
# check_gc_dump.sh TARGET ... -- PROGRAM [ARGUMENT ...]
# Does `vmkit gc` (PROGRAM, or an emulator with its arguments) see in a dump what TARGET has made, does it draw it, and does it
# bear what is no dump? VMKIT_SEED=N: the same broken dumps again; VMKIT_ROUNDS=N: N times as many.
set -eu
LC_ALL=C
export LC_ALL

usage() { echo "usage: check_gc_dump.sh TARGET ... -- PROGRAM [ARGUMENT ...]" >&2; exit 2; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
count=0

fail() {
    printf 'check_gc_dump: %s\n' "$*" >&2
    head -40 "$tmp/out" | sed 's/^/  out: /' >&2
    head -10 "$tmp/err" | sed 's/^/  err: /' >&2
    exit 1
}

# run ARGUMENT ...: sets status; what it said is in out and err.
run() {
    asked=$*
    status=0
    run_program gc "$@" >"$tmp/raw" 2>"$tmp/raw_err" || status=$?
    tr -d '\r' <"$tmp/raw" >"$tmp/out"
    tr -d '\r' <"$tmp/raw_err" >"$tmp/err"
    count=$((count + 1))
}
says() { grep -q -e "$2" "$tmp/$1" || fail "'$asked' does not say '$2' ($1)"; }
well() { [ "$status" = 0 ] || fail "'$asked' exits with $status"; }

# make MODE [COUNT]: a dump, and what is known of it.
make() {
    run_target dump "$@" >"$tmp/raw" || fail "the target fails: $*"
    tr -d '\r' <"$tmp/raw" >known
}
known() { awk -v key="$1" '$1 == key { print $2 }' known; }

# figure KEY: of the object at the top. member NAME LIST KEY: of the element of that name in a list.
figure() { awk -F'[:,]' -v key="\"$1\"" '/^  "[a-z_]*": [0-9]/ { gsub(/ /, "", $1); if ($1 == key) print $2 + 0 }' "$tmp/out"; }
member() {
    awk -v name="\"name\": \"$1\"" -v list="  \"$2\": [" -v key="\"$3\": " '
        /^  "/ { inside = $0 == list }
        inside && (at = index($0, name)) && (at = index($0, key)) { print substr($0, at + length(key)) + 0 }' "$tmp/out"
}
same() { [ "$1" = "$2" ] || fail "'$asked': $3 is $1, and should be $2"; }

# An XML parser, where there is one; one for JSON too.
check_svg() {
    head -n 1 "$1" | grep -q '^<?xml version="1.0"' || fail "'$asked': no XML at the start of the SVG"
    tail -n 1 "$1" | tr -d '\r' | grep -q '^</svg>$' || fail "'$asked': the SVG does not end"
    [ "$(wc -c <"$1")" -lt 262144 ] || fail "'$asked': the SVG is larger than 256 KB"
    ! command -v python3 >/dev/null || python3 -c 'import sys, xml.dom.minidom as x; x.parse(sys.argv[1])' "$1" ||
        fail "'$asked': the SVG is not well-formed"
}
check_json() {
    ! command -v python3 >/dev/null || python3 -c 'import sys, json; json.load(sys.stdin)' <"$tmp/out" ||
        fail "'$asked': no JSON"
}

check_known() {
    make known
    run --json --svg dump.svg dump
    well
    check_json
    check_svg dump.svg
    for key in objects bytes reachable_bytes unreachable_objects unreachable_bytes ephemerons references root_words; do
        same "$(figure $key)" "$(known $key)" $key
    done
    name='list <&> \\"node\\"' # the quotes as in JSON, the backslashes as in awk
    same "$(member "$name" types objects)" "$(known node_objects)" "the number of nodes"
    same "$(member "$name" types retained)" "$(known node_retained)" "what nodes retain"
    same "$(member '(collector)' types retained)" "$(known pair_retained)" "what the ephemeron retains"
    same "$(member slot roots only_there)" "$(known slot_only)" "what only slots reach"
    same "$(member 'added range' roots only_there)" "$(known range_only)" "what only the range reaches"
    same "$(member pin roots only_there)" "$(known pin_only)" "what only the pin reaches"
    [ "$(grep -c '"site": "0x[1-9a-f][0-9a-f]*", "objects"' "$tmp/out")" -ge 5 ] || fail "'$asked': hardly any sites"
    run --json --why "$(known address)" dump
    well
    check_json
    same "$(grep -c '"root": ' "$tmp/out")" "$(known steps)" "the length of the way"
    run --why "0x$(known address)" dump
    well
    says out '^slot at 0x'
    says out ' more \.\.\.$'
    says out 'is byte 50 of it$'
    run --why "$(known lost)" dump
    well
    says out 'is in no object$'
}

check_text() {
    run dump
    well
    says out '^objects .* references$'
    says out '^list <&> "node" '
    awk 'length > 110 || /[^ -~]/ { print; bad = 1 } END { exit bad }' "$tmp/out" >&2 || fail "'$asked': wider than 110 columns"
    run --top 1 dump
    well
    same "$(grep -c ';  *retains' "$tmp/out")" 1 "the number of those that retain most"
    run --top 0 dump
    well
}

# Stacks, registers, static data: whatever there is, it can be read.
check_usual() {
    make usual
    run --json --svg dump.svg dump
    well
    check_json
    check_svg dump.svg
    same "$(figure objects)" "$(known objects)" objects
    make list 300000
    run --json --svg dump.svg dump
    well
    check_svg dump.svg
    same "$(figure objects)" "$(known objects)" objects
    same "$(figure reachable_bytes)" "$(known reachable_bytes)" reachable_bytes
    same "$(member "$name" types retained)" "$(known node_retained)" "what nodes retain"
}

# broken WORDS SED-SCRIPT: with that done to it, it is no dump, and the program says which line is wrong, and why.
broken() {
    sed "$2" good >bad
    ! cmp -s good bad || fail "sed '$2' has no effect"
    run bad
    [ "$status" = 1 ] || fail "'$2' exits with $status, not 1"
    says err "^vmkit gc: bad, line [0-9][0-9]*: $1"
    [ ! -s "$tmp/out" ] || fail "'$2' is no dump, and it goes on"
}

# What sed takes for itself.
# shellcheck disable=SC2016
check_broken() {
    make known
    mv dump good
    broken "this is not a dump" '1s/.*/hello/'
    broken "this is not a dump" '1d'
    broken "a dump of another version" '1s/1$/2/'
    broken "no line of a dump begins" '3s/.*/nonsense 1/'
    broken "no line of a dump begins" '3s/.*//'
    broken "a hexadecimal number is meant" '3s/ .*/ xyz/'
    broken "a hexadecimal number is meant" '3s/ .*/ 12345678901234567/'
    broken "there is more than is meant" '3s/$/ 1/'
    broken "no such kind of root" 's/^root SLOT/root SLOTH/'
    broken "leaf, conservative or typed" 's/^\(o .*\) leaf /\1 twig /'
    broken "an object of no such type" 's/^\(o .*\) typed 2 /\1 typed 99 /'
    broken "an object of no such type" 's/^\(o .*\) typed 2 /\1 typed 0 /'
    broken "types are numbered" 's/^type 2 /type 3 /'
    broken "an object that does not lie in the span" '/^span/d'
    broken "an object that does not lie in the span" 's/^\(o [0-9a-f]*\) [0-9a-f]*/\1 0/'
    broken "an object that does not lie in the span" 's/^\(o [0-9a-f]*\) [0-9a-f]*/\1 ffffffffffffffff/'
    broken "an object that does not lie behind" '/^o /{p;}'
    broken "a span that does not lie behind" '/^span/{p;}'
    broken "a reference of no object" 's/^span/r 0 0\n&/;s/^o .*leaf.*/&\nr 0 0/'
    broken "a reference outside" 's/^r [0-9a-f]* /r ffffff /'
    broken "it refers to what is no object" 's/^r \([0-9a-f]*\) .*/r \1 1/'
    broken "it refers to what is no object" 's/^\(root SLOT .*\) [0-9a-f]*$/\1 5/'
    broken "it refers to what is no object" 's/^\(ephemeron .*\) [0-9a-f]*$/\1 5/'
    broken "these are not the sums" '$s/ [0-9a-f]*$/ 1/'
    broken "the dump is cut off" '$d'
    broken "there is more behind the end" '$s/$/\nword 8/'
    broken "nothing says what a word is" '/^word/d'
    broken "not a line of text" '5s/ / \t/'
    printf 'vmkit-gc-dump 1' >bad
    run bad
    says err "^vmkit gc: bad, line 1: the dump is cut off"
    : >bad
    run bad
    says err "^vmkit gc: bad, line 1: .*it is empty"
    awk 'BEGIN { printf "vmkit-gc-dump 1\n"; for (i = 0; i < 100000; i++) printf "word"; print "" }' >bad
    run bad
    says err "^vmkit gc: bad, line 2: not a line of a dump"
    head -c 100000 /dev/zero >bad
    run bad
    [ "$status" = 1 ] || fail "a file of zeroes: it exits with $status"
}

# Random changes of lines and characters: read or refused, never worse.
check_random() {
    seed=${VMKIT_SEED:-$(date +%s)}
    rounds=$(awk -v n="$1" -v times="${VMKIT_ROUNDS:-1}" 'BEGIN { printf "%d", n * times + 1 }')
    echo "broken at random by VMKIT_SEED=$seed"
    read_well=0
    make small
    mv dump short
    round=0
    while [ $round -lt "$rounds" ]; do
        round=$((round + 1))
        awk -v seed="$seed$round" '
            function random(n) { return int(rand() * n) }
            BEGIN {
                srand(seed % 2147483647)
                changes = 1 + random(4)
                signs = "0123456789abcdef -\\xor"
            }
            { line[NR] = $0 }
            END {
                for (i = 0; i < changes; i++) {
                    at = 1 + random(NR); other = 1 + random(NR); what = random(6); text = line[at]
                    if (what == 0) line[at] = ""
                    else if (what == 1) line[at] = line[other]
                    else if (what == 2) { line[at] = line[other]; line[other] = text }
                    else if (what == 3) line[at] = text "\n" line[other]
                    else {
                        p = 1 + random(length(text))
                        line[at] = substr(text, 1, p - 1) substr(signs, 1 + random(length(signs)), 1) \
                            substr(text, p + (what == 4))
                    }
                }
                # The sums of what is left, so that the rest is looked at too.
                for (i = 1; i < NR; i++) {
                    if (line[i] == "") continue
                    print line[i]
                }
                print line[NR]
            }' short | awk '
            function number(text,   i, n) {
                n = 0
                for (i = 1; i <= length(text); i++) n = n * 16 + index("123456789abcdef", substr(text, i, 1))
                return n
            }
            /^o / { objects++; bytes += number($3) }
            /^root / { roots++ }
            /^r / { references++ }
            /^end / { printf "end %x %x %x %x\n", objects, bytes, roots, references; next }
            { print }' >bad
        run --json --top 1000 --svg bad.svg bad
        case $status in
        0)
            read_well=$((read_well + 1))
            check_svg bad.svg
            ;;
        1) says err "^vmkit gc: bad, line " ;;
        *) cp bad "${TMPDIR:-/tmp}/check_gc_dump.bad" && fail "a broken dump (round $round): it exits with $status" ;;
        esac
    done
    echo "$read_well of $rounds could be read"
}

bad() {
    words=$1
    shift
    run "$@"
    [ "$status" = 2 ] || fail "'$asked' exits with $status, not 2"
    says err "$words"
}
check_arguments() {
    bad "one file is meant"
    bad "one file is meant" dump dump
    bad "no such option" --nonsense dump
    bad "value is missing" dump --why
    bad "a hexadecimal address" --why 0x dump
    bad "a hexadecimal address" --why 12345678901234567 dump
    bad "a hexadecimal address" --why 12g dump
    bad "a number is meant" --top ten dump
    bad "a number is meant" --top 1001 dump
    run --help
    well
    says out "^usage: vmkit gc"
    run "no such file"
    [ "$status" = 1 ] || fail "'$asked' exits with $status, not 1"
    says err "can't be read"
    run --svg "no such folder/dump.svg" good
    [ "$status" = 1 ] || fail "'$asked' exits with $status, not 1"
    says err "can't be written"
}

# Programs and their arguments, to be called from functions, which have arguments of their own.
quoted() { for word; do printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"; done; }
: >"$tmp/target"
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    quoted "$1" >>"$tmp/target"
    shift
done
if [ $# -lt 2 ] || [ ! -s "$tmp/target" ]; then usage; fi
shift
# As many broken ones as take no time; starting a program by an emulator does.
rounds=100
[ $# = 1 ] || rounds=15
printf 'exec %s "$@"\n' "$(cat "$tmp/target")" >"$tmp/target_program"
printf 'exec %s "$@"\n' "$(quoted "$@")" >"$tmp/program"
run_target() { sh "$tmp/target_program" "$@"; }
run_program() { sh "$tmp/program" "$@"; }

cd "$tmp" # a name without a folder is the same for what Wine runs
check_known
check_text
check_usual
check_broken
check_arguments
check_random "$rounds"
echo "$count runs, all as they should be"
