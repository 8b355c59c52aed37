#!/bin/sh
# SPDX-License-Identifier: MIT
# run-wine.sh 32|64 PROGRAM.exe [ARGUMENT...]    run a Windows program (CMake's emulator for the Windows targets)
# run-wine.sh 32|64 --server [OPTION...]         talk to the wineserver of the same prefix
#
# Each bitness has a prefix of its own, made at the first use: see wine-session.sh. To be set where the defaults don't fit:
# VMKIT_WINE64, VMKIT_WINE32 (loaders), VMKIT_WINEPREFIX64, VMKIT_WINEPREFIX32.
set -eu
. "$(dirname "$0")/common.sh"

bits=${1:-}
case $bits:$# in
*:0 | *:1) die "usage: run-wine.sh 32|64 program.exe [argument...]" ;;
32:* | 64:*) shift ;;
*) die "$bits: 32 or 64 is meant" ;;
esac
unset DISPLAY WAYLAND_DISPLAY WINELOADER WINESERVER WINEDLLPATH
export WINEDEBUG="${WINEDEBUG--all}"
# winedbg off is no cosmetics: with Wine's crash debugger on, a program that crashes can end with exit code 0.
export WINEDLLOVERRIDES="${WINEDLLOVERRIDES-mscoree,mshtml=;winemenubuilder.exe=d;winedbg.exe=d}"

lib=/usr/lib/wine
if [ "$bits" = 64 ]; then
    export WINEARCH=win64 WINEPREFIX="${VMKIT_WINEPREFIX64:-$cache/prefix64}"
    wine=${VMKIT_WINE64:-$lib/wine64}
    [ -x "$wine" ] || wine=wine
else
    export WINEARCH=win32 WINEPREFIX="${VMKIT_WINEPREFIX32:-$cache/prefix32}"
    wine=${VMKIT_WINE32:-$lib/wine}
    if [ ! -x "$wine" ]; then
        lib=$cache/wine32$lib
        wine=$lib/wine
        export WINESERVER="$lib/wineserver32"
        [ -x "$wine" ] || die "no 32-bit Wine here: run scripts/get-wine32.sh, or install wine32:i386"
    fi
fi
mkdir -p "$(dirname "$WINEPREFIX")"
if [ "$1" = --server ]; then
    shift
    for server in "$lib/wineserver$bits" "$lib/wineserver64" "$lib/wineserver" wineserver; do
        [ ! -x "$server" ] || break
    done
    exec "$server" "$@"
fi

# Under load the wineserver has been seen to drop a program's connection before the program had started. That says nothing
# about the program, so it is started again; whatever else goes wrong is the program's answer.
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
tie= # ctest kills this shell when time is up: the program must go with it
if setpriv --pdeathsig KILL true 2>/dev/null; then tie="setpriv --pdeathsig KILL"; fi
for attempt in 1 2 3; do
    status=0
    $tie "$wine" "$@" 2>"$errors" || status=$?
    cat "$errors" >&2
    if [ "$status" = 0 ] || ! grep -q '^wine client error' "$errors"; then break; fi
    say "Wine lost the program at its start (attempt $attempt)"
done
exit "$status"
