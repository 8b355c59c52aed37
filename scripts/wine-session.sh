#!/bin/sh
# SPDX-License-Identifier: MIT
# wine-session.sh 32|64 start    have the wineserver run from before the first test to half a minute after the last
# wine-session.sh 32|64 stop     end it at once; to be done before a prefix is deleted, or the server is orphaned
#
# Without it each program boots Wine anew (1 s), and Wine's own services keep ctest's pipe open for 3 s after every test.
# The server ends by itself and no test stops it: another run may be using it.
set -eu
. "$(dirname "$0")/common.sh"

bits=${1:-}
run=$top/scripts/run-wine.sh
case ${2:-} in
start)
    # The server may be running already (then it says so and fails), which is as good.
    "$run" "$bits" --server -p30 </dev/null >/dev/null 2>&1 || :
    # Makes the prefix (5 s) or boots it (1 s); detached, or the services would inherit ctest's pipe.
    "$run" "$bits" wineboot -i </dev/null >/dev/null 2>&1 ||
        die "Wine ($bits-bit) can't start. See what it says: WINEDEBUG= scripts/run-wine.sh $bits wineboot -i"
    ;;
stop) "$run" "$bits" --server -k 2>/dev/null || : ;;
*) die "usage: wine-session.sh 32|64 start|stop" ;;
esac
