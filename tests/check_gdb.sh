#!/bin/sh
# SPDX-License-Identifier: MIT
# check_gdb.sh SCRIPT PROGRAM PRELOADED LIBRARY
# Do the commands of tools/gdb/vmkit.py (SCRIPT) answer as they should? In PROGRAM, which is linked with vmkit, in a core
# file of it, and in PRELOADED, which has LIBRARY, libvmkit-malloc.so, preloaded.
set -eu
LC_ALL=C
export LC_ALL
[ $# = 4 ] || { echo "usage: check_gdb.sh SCRIPT PROGRAM PRELOADED LIBRARY" >&2 && exit 2; }
script=$1
program=$2
preloaded=$3
library=$4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
failed=0

# Each command's answer goes to a file of its own. A command that fails ends a gdb script: so each is run by Python.
cat >"$tmp/ask.py" <<'END'
import gdb

def ask(name, command):
    try:
        answer = gdb.execute(command, to_string=True)
    except gdb.error as error:
        answer = str(error) + "\n"
    with open(gdb.parse_and_eval("$answers").string() + "/" + name, "w") as file:
        file.write(answer)

for name in ("small", "small_freed", "remote", "orphan", "large", "large_freed", "huge", "hardened", "hardened_freed"):
    if int(gdb.parse_and_eval("(long)" + name)) != 0:
        ask(name, "vmkit object " + name)
ask("interior", "vmkit object small + 10")
ask("interior_large", "vmkit object large + 5000")
ask("interior_huge", "vmkit object huge + 12345678")
ask("stack", "vmkit object $sp")
ask("null", "vmkit object 0")
ask("huge_address", "vmkit object 0xffffffffffffffff")
ask("nonsense", "vmkit object nothing_of_the_kind")
ask("no_argument", "vmkit object")
ask("span", "vmkit span small")
ask("span_large", "vmkit span large + 8192")
ask("span_freed", "vmkit span large_freed")
ask("heaps", "vmkit heaps")
ask("heap", "vmkit heap")
ask("no_heap", "vmkit heap 12345")
END

# run DIRECTORY ARGUMENTS...: gdb with these; the answers are in DIRECTORY.
run() {
    answers=$tmp/$1
    mkdir "$answers"
    shift
    gdb -nx -batch -iex "set debuginfod enabled off" -ex "set \$answers = \"$answers\"" "$@" \
        >"$tmp/gdb" 2>&1 </dev/null || {
        cat "$tmp/gdb" >&2
        wrong "gdb failed"
    }
    [ -e "$answers/heap" ] || { cat "$tmp/gdb" >&2 && wrong "gdb did not come to an end"; }
}

wrong() {
    echo "check_gdb: $*" >&2
    failed=1
}

# says NAME PATTERN...: the answer has a line like each.
says() {
    name=$1
    shift
    for pattern; do
        grep -Eq "$pattern" "$answers/$name" || {
            wrong "${answers##*/}: $name: nothing like \"$pattern\" in:"
            cat "$answers/$name" >&2
        }
    done
}

# What is the same in all. $1: the size that can be used of an object of 100 bytes, $2: how the keeper's thread is called.
says_all() {
    says small "is the start of an object" "^state +in use" "^size +112 bytes" "^class +7, of 112 bytes; slot" \
        "^keeper +the cache 0x.* of $1" "the default heap"
    says small_freed "is the start of a slot" "^state +free(, at hand in its keeper's cache)?$" "^keeper +the cache"
    says remote "^state +freed by another thread" "^size +1024 bytes"
    says orphan "^state +in use" "^keeper +nobody, it is an orphan"
    says large "is the start of a large object" "^state +in use" "^size +106496 bytes" "^keeper +nobody, it is a large"
    says large_freed "is in a free page of the heap"
    says huge "is the start of a huge object" "^size +41943040 bytes" "a reservation of its own"
    says interior "is 10 bytes into an object at 0x" "^state +in use" "^class +7"
    says interior_large "is 5000 bytes into a large object at 0x" "^state +in use"
    says interior_huge "is 12345678 bytes into a huge object at 0x"
    says stack "^vmkit: 0x[0-9a-f]* is in no heap of vmkit"
    says null "^vmkit: 0 is in no heap|^vmkit: 0x0 is in no heap"
    says huge_address "^vmkit: 0xffffffffffffffff is in no heap"
    says nonsense "No symbol"
    says no_argument "^vmkit: usage: vmkit object ADDRESS"
    says span "^is +a slab of class 7: [0-9]+ slots of 112 bytes" "^slots +[0-9]+ in use" "^slots +[0-9]+ free$" \
        "^keeper +the cache"
    says span_large "^span .*: 13 pages" "^is +a large object of 106496 bytes"
    says span_freed "^vmkit: 0x.* is in a free page"
    says heaps "^heap 0x[0-9a-f]+ \(the default heap\): layout .*, [0-9]+ objects"
    says heap "^layout " "^window " "^arena " "^pages +[0-9]+ in use" "^ +7 +112 +[1-9]" "^ +large +[1-9]" \
        "^ +huge +1 +41943040" "^ +all +[1-9]"
    says no_heap "^vmkit: 0x3039 is no heap"
}

# A program that stands still, then its core file. It is limited, since gdb writes all that is reserved into that.
run live -ex "set exec-wrapper sh -c 'ulimit -v 500000 && exec \"\$@\"' sh" -ex "break stop_here" -ex run \
    -ex "source $script" -ex "source $tmp/ask.py" -ex "generate-core-file $tmp/core-file" "$program"
says_all "thread 1"
says hardened "^state +in use" "^size +104 bytes" "hardened"
says hardened_freed "^state +freed, and kept back"
says heaps "hardened\): layout limited, .* 1 object$"
run core -ex "core-file $tmp/core-file" -ex "source $script" -ex "source $tmp/ask.py" "$program"
says_all "(thread|a thread)"
says hardened_freed "^state +freed, and kept back"

run preloaded -ex "set exec-wrapper env LD_PRELOAD=$library" -ex "break stop_here" -ex run -ex "source $script" \
    -ex "source $tmp/ask.py" "$preloaded"
says_all "thread 1"

# Where there is nothing to look at.
gdb -nx -batch -ex "source $script" -ex "vmkit heaps" "$program" >"$tmp/early" 2>&1 </dev/null || true
grep -q "neither a running program nor a core file" "$tmp/early" || wrong "before the start: $(cat "$tmp/early")"
gdb -nx -batch -ex "break stop_here" -ex run -ex "source $script" -ex "vmkit heaps" "$preloaded" \
    >"$tmp/without" 2>&1 </dev/null || true
grep -q "has no vmkit with debug information" "$tmp/without" || wrong "without the library: $(cat "$tmp/without")"
exit $failed
