#!/bin/sh
# SPDX-License-Identifier: MIT
# check_layout.sh layouts|limits PROGRAM [ARGUMENT ...]
# Does the program of tools/ (PROGRAM, or an emulator with its arguments) show what is so, and answer what it should?
# "layouts" works everywhere; "limits" wants a system that enforces --limit. VMKIT_SEED=N: the same limits again.
set -eu
LC_ALL=C
export LC_ALL

what=${1:-}
case $what:$# in
*:0 | *:1) what=usage ;;
*) shift ;;
esac
case $what in
layouts | limits) ;;
*) echo "usage: check_layout.sh layouts|limits PROGRAM [ARGUMENT ...]" >&2 && exit 2 ;;
esac

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
count=0

fail() {
    printf 'check_layout: %s\n' "$*" >&2
    sed 's/^/  out: /' "$tmp/out" >&2
    sed 's/^/  err: /' "$tmp/err" >&2
    exit 1
}

# run ARGUMENT ...: sets status; what it said is in out and err.
run() {
    asked=$*
    status=0
    run_program "$@" >"$tmp/raw" 2>"$tmp/raw_err" || status=$?
    tr -d '\r' <"$tmp/raw" >"$tmp/out"
    tr -d '\r' <"$tmp/raw_err" >"$tmp/err"
    count=$((count + 1))
}
says() { grep -q -e "$2" "$tmp/$1" || fail "'$asked' does not say '$2' ($1)"; }
well() { [ "$status" = 0 ] || fail "'$asked' exits with $status"; }

# bad WORDS ARGUMENT ...: called wrongly, and told so.
bad() {
    words=$1
    shift
    run "$@"
    [ "$status" = 2 ] || fail "'$asked' exits with $status, not 2"
    says err "$words"
    [ ! -s "$tmp/out" ] || fail "'$asked' is wrong, and goes on"
}

# The sums of the parts are the totals, and what the heap has grown to is committed, but for what was decommitted.
check_sums() {
    awk -F'[:,}]' '
        function number(text) { gsub(/[^0-9]/, "", text); return text + 0 }
        /"name":/ {
            parts++
            for (i = 1; i < NF; i++) {
                if ($i ~ /"reserved"/) reserved += number($(i + 1))
                if ($i ~ /"committed"/) committed += number($(i + 1))
                if ($i ~ /"committed"/ && /"arena"/) arena = number($(i + 1))
            }
        }
        /^  "[a-z_]*":/ { key = $1; gsub(/[^a-z_]/, "", key); total[key] = number($2) }
        END {
            grown = total["in_use"] + total["idle"] + total["released"]
            if (parts != 7 || reserved != total["reserved"] || committed != total["committed"] ||
                grown < arena || grown - total["released"] > arena || reserved < committed || reserved == 0) {
                printf "parts: %d, reserved: %.0f of %.0f, committed: %.0f of %.0f, grown %.0f, arena: %.0f\n", parts,
                    reserved, total["reserved"], committed, total["committed"], grown, arena
                exit 1
            }
        }' "$tmp/out" >&2 || fail "'$asked': the sums of the parts are not the totals"
}

# Open and closed, every tag too, no stray characters; an XML parser is not everywhere.
check_svg() {
    awk '
        NR == 1 && !/^<\?xml version="1.0"/ { bad = "no XML at the start" }
        /&/ { bad = "an entity" }
        { text = text $0 " " }
        END {
            sub(/^<\?[^?]*\?>/, "", text)
            while (match(text, /<[^>]*>/)) {
                if (index(substr(text, 1, RSTART - 1), ">") > 0) bad = "a stray >"
                tag = substr(text, RSTART + 1, RLENGTH - 2)
                text = substr(text, RSTART + RLENGTH)
                quotes = gsub(/"/, "\"", tag)
                name = tag
                sub(/^\//, "", name)
                sub(/[ \/].*/, "", name)
                if (quotes % 2 || index(tag, "<")) bad = "a broken tag: " tag
                if (tag ~ /^\//) {
                    if (depth == 0 || open[depth--] != name) bad = "not opened: " tag
                } else if (tag !~ /\/$/) {
                    open[++depth] = name
                }
                tags++
            }
            if (text ~ /[<>]/) bad = "a stray < or >"
            if (depth != 0) bad = "not closed: " open[depth]
            if (tags < 20 || name != "svg") bad = "not a picture"
            if (bad != "") { print bad; exit 1 }
        }' "$1" >&2 || fail "'$asked': the SVG is not well-formed"
    [ "$(wc -c <"$1")" -lt 204800 ] || fail "'$asked': the SVG is larger than 200 KB"
}

# A text picture fits on a page and in a log.
check_page() {
    awk 'length > 100 || /[^ -~]/ { print; bad = 1 } END { exit bad || NR > 30 }' "$tmp/out" >&2 ||
        fail "'$asked': wider than 100 columns, or longer than 30 lines"
}

check_layouts() {
    for name in 64:64-bit limited:limited 32:32-bit auto:; do
        run layout --layout "${name%:*}"
        well
        says out "^layout  *${name#*:}"
        check_page
        run layout --layout "${name%:*}" --json
        well
        check_sums
        run layout --layout "${name%:*}" --work 3000 --json --svg heap.svg
        well
        check_sums
        check_svg heap.svg
    done
    run layout --svg heap.svg # nothing in it yet
    well
    check_svg heap.svg
    run layout --layout limited --window 64M --random-base --work 0 --json
    well
    says out '"window_size": \(67108864\|134217728\),' # twice where the first region could be anywhere
    says out '"spans": 8,'
    check_sums
}

check_work() {
    run layout --work 4000 --seed 7
    well
    says out "^work  *4000 operations"
    check_page
    grep ' allocated, ' "$tmp/out" >first || fail "'$asked' does not say what it did"
    run layout --work 4000 --seed 7 --map
    well
    grep ' allocated, ' "$tmp/out" >second || :
    cmp -s first second || fail "the same seed, and not the same work"
    rows=$(grep -c '^ *0x[0-9a-f]* |[-#.: ]\{64\}|$' "$tmp/out") || rows=0
    if [ "$rows" -lt 1 ] || [ "$rows" -gt 20 ]; then fail "'$asked': a map of $rows rows"; fi
}

check_arguments() {
    bad "usage: vmkit"
    bad "no such subcommand" lay
    bad "no such option" layout --nonsense
    bad "an option is meant" layout heap
    bad "value is missing" layout --window
    bad "auto, 64, limited or 32" layout --layout 65
    for size in "" 12Q K -1 0 1.5G 99999999999999999999 99999999999T; do
        bad "^vmkit layout: --window $size: " layout --window "$size"
        bad "^vmkit layout: --limit $size: " layout --limit "$size"
    done
    bad "not a number" layout --work 1K
    bad "not a number" layout --seed -1
    bad "don't go together" layout --json --map
    run layout --svg "$tmp/no such folder/heap.svg"
    [ "$status" = 1 ] || fail "'$asked' exits with $status, not 1"
    says err "can't be written"
    case $program in
    *.exe) # Wine sets it and does not enforce it
        run layout --limit 1G
        well
        ;;
    esac
    run --version
    well
    run layout --help
    well
    says out "^usage: vmkit layout"
}

check_limits() {
    run layout --limit 512K --svg heap.svg
    [ "$status" = 1 ] || fail "'$asked' exits with $status, not 1"
    says err "^vmkit layout: no heap can be made: VMK_ERR_"
    [ ! -e heap.svg ] || fail "'$asked' leaves a picture of nothing"
    run layout --limit 64M --work 5000
    well
    says out "^layout  *limited"
    says out "address space 64.0 MiB"
    seed=${VMKIT_SEED:-$(date +%s)}
    echo "the limits are those of VMKIT_SEED=$seed"
    # Magnitudes alike, 64 KiB to 2 GiB.
    awk -v seed="$seed" 'BEGIN { srand(seed); for (i = 0; i < 40; i++) printf "%.0f\n", 65536 * exp(rand() * log(32768)) }' |
        sort -n >limits
    worked=0
    least=0
    while read -r limit; do
        run layout --limit "$limit" --work 1000 --json --svg heap.svg
        case $status in
        0)
            worked=$((worked + 1))
            [ "$least" != 0 ] || least=$limit
            check_sums
            check_svg heap.svg
            ;;
        1)
            says err "^vmkit layout: .*VMK_ERR_\|^vmkit layout: no room for"
            [ "$worked" = 0 ] || [ "$limit" -lt $((2 * least)) ] || fail "'$asked' fails, and $least was enough"
            ;;
        *) fail "'$asked' exits with $status" ;;
        esac
    done <limits
    [ $worked -gt 0 ] || fail "no limit up to 2 GiB lets a heap be made"
    echo "$worked of 40 limits leave room for a heap"
}

# The program and its arguments, to be called from functions, which have arguments of their own.
program=$*
for word; do printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"; done >"$tmp/words"
printf 'exec %s "$@"\n' "$(cat "$tmp/words")" >"$tmp/program"
run_program() { sh "$tmp/program" "$@"; }

cd "$tmp" # a name without a folder is the same for what Wine runs
if [ "$what" = layouts ]; then
    check_layouts
    check_work
    check_arguments
else
    check_limits
fi
echo "$count runs, all as they should be"
