#!/bin/sh
# SPDX-License-Identifier: MIT
# check_malloc.sh LIBRARY PROGRAM NM
# Does libvmkit-malloc.so export what it should and no more, start in little more address space than the C library's malloc,
# and report when it is asked to? PROGRAM is malloc_threads.
set -eu
LC_ALL=C
export LC_ALL
[ $# = 3 ] || { echo "usage: check_malloc.sh LIBRARY PROGRAM NM" >&2 && exit 2; }
library=$1
program=$2
nm=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
fail() {
    echo "check_malloc: $*" >&2
    exit 1
}

# --- what it exports --------------------------------------------------------------------------------------------------

cat >"$tmp/functions" <<END
malloc calloc realloc reallocarray free free_sized free_aligned_sized
aligned_alloc posix_memalign memalign valloc pvalloc malloc_usable_size malloc_trim malloc_stats mallopt
END
if "$nm" -D "$library" | grep -q GLIBC; then echo "cfree mallinfo mallinfo2" >>"$tmp/functions"; fi
for operator in w a; do
    for rest in "" RKSt9nothrow_t St11align_val_t St11align_val_tRKSt9nothrow_t; do
        echo "_Zn${operator}m$rest" >>"$tmp/functions"
    done
done
for operator in l a; do
    for rest in "" RKSt9nothrow_t St11align_val_t St11align_val_tRKSt9nothrow_t m mSt11align_val_t; do
        echo "_Zd${operator}Pv$rest" >>"$tmp/functions"
    done
done
# In 32 bits size_t is another type, and another letter.
case $(od -An -tx1 -j4 -N1 "$library") in
*01) sed -i 's/^\(_Zn.\)m/\1j/; s/^\(_Zd.Pv\)m/\1j/' "$tmp/functions" ;;
esac
tr ' ' '\n' <"$tmp/functions" | sort >"$tmp/expected"
"$nm" -D --defined-only "$library" | awk '{ print $NF }' | sort >"$tmp/got"
diff "$tmp/expected" "$tmp/got" >&2 || fail "it exports something else"
if "$nm" -D "$library" | grep -E ' U (_Z|__tls_get_addr|malloc|free|printf)' >&2; then fail "it uses what it may not"; fi

# --- the least address space ------------------------------------------------------------------------------------------

# KiB of address space in which the program starts and ends well.
# shellcheck disable=SC3045 # dash has it, bash has it
starts() { (ulimit -v "$1" && LD_PRELOAD=$preload exec "$program" start) >/dev/null 2>&1; }
least() {
    low=256
    high=262144
    while [ $((high - low)) -gt 16 ]; do
        middle=$(((low + high) / 2))
        if starts $middle; then high=$middle; else low=$middle; fi
    done
    echo $high
}
preload=
if starts 262144; then
    plain=$(least)
    preload=$library
    ours=$(least)
    echo "least address space: $plain KiB without it, $ours KiB with it"
    [ "$ours" -le $((plain + 1024)) ] || fail "more than 1 MiB more"
    for hardened in 0 1; do
        # shellcheck disable=SC3045 # as above
        (ulimit -v 131072 && VMKIT_HARDENED=$hardened LD_PRELOAD=$library exec "$program" exhaustion) ||
            fail "what runs out does not come back, with VMKIT_HARDENED=$hardened"
    done
else
    echo "not even the program alone starts in 256 MiB: it is run by an emulator, which wants it all"
fi

# --- the report -------------------------------------------------------------------------------------------------------

LD_PRELOAD="$library" VMKIT_STATS=1 ls / 2>"$tmp/report" >/dev/null # which closes standard error before it ends
case $(cat "$tmp/report") in
"vmkit: process "*all*"in use, peak"*) ;;
*)  # a program of the other kind of bits than the machine's own can't be had
    [ "$(od -An -tx1 -j4 -N1 "$library")" != "$(od -An -tx1 -j4 -N1 "$(command -v ls)")" ] || fail "no report"
    ;;
esac
[ -z "$(VMKIT_STATS=0 LD_PRELOAD=$library "$program" start 2>&1)" ] || fail "a report that nobody wants"
[ -n "$(VMKIT_STATS=1 LD_PRELOAD=$library "$program" start 2>&1)" ] || fail "no report"

# --- names of mappings ------------------------------------------------------------------------------------------------

# Where the kernel has them; elsewhere asking for them changes nothing. (A program of other bits than ours has no library.)
shown=$(VMKIT_NAMES=1 LD_PRELOAD=$library cat /proc/self/maps 2>/dev/null) || fail "no program runs with names"
case $shown in
*"[anon:vmkit heap]"*) ;;
*) echo "names of mappings are not shown here" ;;
esac
case $(LD_PRELOAD=$library cat /proc/self/maps 2>/dev/null) in
*"[anon:vmkit"*) fail "names that nobody wants" ;;
esac
