# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2034 # variables are for those who source this
# Sourced by the other scripts: where things are kept, how to complain, how to ask apt.

top=$(cd "$(dirname "$0")/.." && pwd) # scripts/ and .ci/ are both one below
cache=${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/vmkit
me=$(basename "$0" .sh)

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: by sudo, unless it is root that runs this.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# apt_need TEST PACKAGE: note that PACKAGE is missing if the shell command TEST fails. Asking for the thing itself and
# not for the package lets a compiler or a CMake of the user's own count.
apt_missing=
apt_need() {
    sh -c "$1" >/dev/null 2>&1 </dev/null || apt_missing="$apt_missing $2"
}

# Install what was noted, if anything was: with everything there, a run needs neither network nor sudo. 1 if that can't be.
apt_install() {
    [ -n "$apt_missing" ] || return 0
    packages=$apt_missing
    apt_missing=
    sudo=
    if ! have apt-get; then
        say "please install:$packages (or their like: there is no apt-get here to do it)"
        return 1
    elif [ "$(id -u)" != 0 ]; then
        if ! have sudo; then
            say "please install, as root (there is no sudo here):$packages"
            return 1
        fi
        sudo=sudo
    fi
    say "installing$packages"
    # One index that can't be read must not matter: the packages may come from another.
    $sudo apt-get -qq update || say "apt-get update failed; trying with what is known already"
    # shellcheck disable=SC2086 # words on purpose
    apt_get_install $packages && return 0
    missing=
    for package in $packages; do # one that this system does not have must not cost the others
        apt_get_install "$package" 2>/dev/null || missing="$missing $package"
    done
    [ -z "$missing" ] || say "apt-get could not install:$missing. Is the network there? On Ubuntu, is 'universe' enabled?"
    [ -z "$missing" ]
}
apt_get_install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2; }

cmake_minimum=3.25
cmake_is_new_enough() {
    have cmake && [ "$(printf '%s\n' $cmake_minimum "$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')" |
        sort -V | head -n 1)" = $cmake_minimum ]
}
cmake_check() {
    cmake_is_new_enough ||
        die "CMake $cmake_minimum or newer is needed, and this system offers an older one (Ubuntu 22.04 does)." \
            "Get one with 'pip install cmake' or 'snap install cmake --classic', or use Debian 12, Ubuntu 24.04 or newer."
}

# private_apt DIR TYPE ARCH: from now on, in this shell, apt-get works in DIR, as any user, on the machine's own mirrors,
# for TYPE (deb or deb-src) and ARCH. The machine's apt state is neither used nor changed. Entries of others than the
# distribution are left out: they are of no use here and make it slow.
private_apt() {
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/sources.d"
    : >"$1/status"
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        grep -Eqsi 'debian|ubuntu' "$list" || continue
        case $list in
        *.sources) sed -E "s/^Types:.*/Types: $2/; /^Architectures:/d" "$list" ;;
        *) sed -nE "/(main|universe)/s/^deb +(\[[^]]*\])?/$2 \1/p" "$list" | sed -E 's/(\[|[ ,])arch=[^] ]*/\1/' ;;
        esac >"$1/sources.d/$(basename "$list")"
    done
    cat >"$1/apt.conf" <<END
APT::Architecture "$3"; APT::Architectures { "$3"; };
Dir::State "$1"; Dir::State::status "$1/status"; Dir::State::lists "$1/lists"; Dir::Cache "$1/cache";
Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "$1/sources.d";
Acquire::Languages "none"; Acquire::Retries "3"; APT::Sandbox::User "root"; pkgCacheGen::Essential "none";
END
    APT_CONFIG=$1/apt.conf
    export APT_CONFIG
    apt-get -qq update >"$1/update.log" 2>&1 || : # one bad index must not matter
}
