#!/bin/sh
# SPDX-License-Identifier: MIT
# get-wine32.sh: see to it that run-wine.sh can run 32-bit Windows programs, and print where the Wine for it is.
#
# If the distribution's wine32 is installed, that is it. Else its i386 packages are unpacked into a directory of the cache,
# and not installed: that needs no root, no foreign architecture in dpkg, no mount, and no i386 libraries but libc
# (ntdll.so and its like need no other). Takes 15 s and 175 MB, once.
# Needs libc6-i386, libz-mingw-w64 (comes with wine64), and uses MinGW's strip if that is there.
set -eu
. "$(dirname "$0")/common.sh"

dir=$cache/wine32
if [ -x /usr/lib/wine/wine ] && [ -z "${VMKIT_PRIVATE_WINE32:-}" ]; then
    echo /usr/lib/wine/wine
    exit
fi
if [ ! -x "$dir/usr/lib/wine/wine" ]; then
    zlib=/usr/i686-w64-mingw32/lib/zlib1.dll
    [ -e /lib/ld-linux.so.2 ] || die "32-bit programs can't run here: please install libc6-i386"
    [ -e $zlib ] || die "please install libz-mingw-w64"
    have apt-get || die "no apt-get here: please install your system's 32-bit Wine and set VMKIT_WINE32 to its loader"

    mkdir -p "$cache"
    tmp=$(mktemp -d "$cache/wine32.XXXXXX") # beside its final place, so that one rename brings it there
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 1' INT TERM
    private_apt "$tmp/apt" deb i386
    mkdir "$tmp/deb" "$tmp/root"
    # The preloader is not in every release; with it the address space is laid out as programs expect.
    (cd "$tmp/deb" && apt-get -qq download wine32 libwine && { apt-get -qq download wine32-preloader || :; }) >&2 ||
        die "can't fetch wine32 for i386. Is the network there? Or: dpkg --add-architecture i386 && apt-get update &&" \
            "apt-get install wine32:i386"
    for deb in "$tmp"/deb/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -C "$tmp/root" -xf - --wildcards './usr/lib*' './usr/share/wine*' \
            2>/dev/null || : # no such folder in this one
    done
    dlls=$tmp/root/usr/lib/i386-linux-gnu/wine/i386-windows
    if [ ! -x "$tmp/root/usr/lib/wine/wine" ] || [ ! -d "$dlls" ]; then
        die "the wine32 package is not laid out as expected; please install wine32:i386"
    fi
    if have i686-w64-mingw32-strip; then # 550 MB -> 160 MB, and half the time to make a prefix
        i686-w64-mingw32-strip "$dlls"/*.dll "$dlls"/*.exe "$dlls"/*.drv "$dlls"/*.sys 2>/dev/null || :
    fi
    # What libwine's postinst would do: a zlib1.dll that is marked as Wine's own.
    { head -c 64 $zlib && printf 'Wine builtin DLL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' && tail -c +97 $zlib; } >"$dlls/zlib1.dll"
    rm -rf "$dir"
    mv "$tmp/root" "$dir"
fi
echo "$dir/usr/lib/wine/wine"
