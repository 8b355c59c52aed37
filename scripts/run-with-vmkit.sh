#!/bin/sh
# SPDX-License-Identifier: MIT
# run-with-vmkit.sh PROGRAM [ARGUMENT ...]: run a program with vmkit's malloc in place of the C library's.
#
# VMKIT_STATS=1 and VMKIT_HARDENED=1 are for the library, see docs/malloc.md. VMKIT_MALLOC: another libvmkit-malloc.so than
# build/release's, which is built if it isn't there.
set -eu
. "$(dirname "$0")/common.sh"
[ $# -gt 0 ] || die "usage: run-with-vmkit.sh PROGRAM [ARGUMENT ...]"

library=${VMKIT_MALLOC:-$top/build/release/libvmkit-malloc.so}
if [ ! -e "$library" ] && [ -z "${VMKIT_MALLOC:-}" ]; then
    cmake_check
    mkdir -p "$top/build"
    log=$top/build/run-with-vmkit.log
    (cd "$top" && cmake --preset release && cmake --build --preset release --target vmkit_malloc) >"$log" 2>&1 ||
        die "the library could not be built; why is in $log"
fi
[ -e "$library" ] || die "there is no $library"
# The dynamic linker only complains, and runs the program without it; and it takes no spaces in a path.
case $library in
*[\ :]*) die "$library: the dynamic linker takes no spaces and no colons in the path of a library to be preloaded" ;;
esac
LD_PRELOAD=$library${LD_PRELOAD:+:$LD_PRELOAD}
export LD_PRELOAD
exec "$@"
