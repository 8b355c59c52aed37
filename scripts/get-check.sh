#!/bin/sh
# SPDX-License-Identifier: MIT
# get-check.sh [DIR]: put the source of Check, the unit test framework, in DIR (third_party/check), and print where that is.
#
# From its source, since it is needed for four targets and distributions have it for one. Check is LGPL-2.1+: only the
# tests use it, so neither the library nor this repository holds any of it. Works as any user and changes nothing else.
# CHECK_TARBALL=check-0.15.2.tar.gz, where set, is used instead of the distribution's mirror.
set -eu
. "$(dirname "$0")/common.sh"

dest=${1:-$top/third_party/check}
if [ ! -f "$dest/CMakeLists.txt" ]; then
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 1' INT TERM
    tarball=${CHECK_TARBALL:-}
    if [ -z "$tarball" ]; then
        have apt-get || die "no apt-get here: get the release tarball of Check 0.15.2 and set CHECK_TARBALL to its path"
        private_apt "$tmp/apt" deb-src "$(dpkg --print-architecture)"
        mkdir "$tmp/download"
        (cd "$tmp/download" && apt-get -qq source --download-only check) >&2 ||
            die "can't fetch the source of Check. Is the network there? If the mirror has no sources, get the release" \
                "tarball of Check 0.15.2 by other means and set CHECK_TARBALL to its path"
        tarball=$(ls "$tmp"/download/check_*.orig.tar.gz)
    fi
    # In place by one rename: an interrupted run leaves nothing that looks complete.
    mkdir -p "$tmp/source" "$(dirname "$dest")"
    tar -C "$tmp/source" --strip-components=1 -xzf "$tarball"
    [ -f "$tmp/source/CMakeLists.txt" ] || die "there is no CMakeLists.txt in $tarball"
    rm -rf "$dest" "$dest.new"
    cp -R "$tmp/source" "$dest.new"
    mv "$dest.new" "$dest"
fi
echo "$dest"
