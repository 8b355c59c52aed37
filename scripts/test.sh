#!/bin/sh
# SPDX-License-Identifier: MIT
# test.sh [TARGET...]: install what is missing, build, and run every suite, for each target; linux64 linux32 win64 win32 if
# none is named. The presets clang, asan and tsan are targets too.
#
# The last line is "N passed, N failed", over all targets, and the exit code is 0 only if something passed and nothing
# failed. A target that can't be built or tested counts as a failure: none is ever skipped.
#
# Where the kernel can't run 32-bit programs qemu does it (scripts/emulate32.sh). It bears linux32 with some exceptions, but
# not Wine: most suites of win32 crash it. So win32 fails there; with VMKIT_UNTESTED=win32, for machines that nobody can
# change, it is built, the few suites that do run are run, and the summary says so.
set -eu
. "$(dirname "$0")/common.sh"
cd "$top"

[ $# -gt 0 ] || set -- linux64 linux32 win64 win32
for target; do
    case $target in
    linux64 | linux32 | win64 | win32 | clang | asan | tsan) ;;
    *) die "$target is no target; there are linux64 linux32 win64 win32, clang asan tsan" ;;
    esac
done
wanted() { case " $targets " in *" $1 "*) ;; *) return 1 ;; esac; }
targets=$*

# --- what is missing --------------------------------------------------------------------------------------------------

# A compiler is there if it makes a program, in C++ that includes the library: a bare command is not enough for -m32.
try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
trap 'exit 1' INT TERM
printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$try/c.c"
printf '#include <cstdio>\nint main() { return std::puts("") < 0; }\n' >"$try/c.cpp"
compiles() { echo "$1 $try/c.c -o $try/out && $2 $try/c.cpp -o $try/out"; }

apt_need "command -v cmake" cmake
apt_need "command -v ninja" ninja-build
apt_need "command -v pkg-config" pkg-config
apt_need "$(compiles cc c++)" "gcc g++ libc6-dev"
if wanted linux64; then # what tests/check_malloc_programs.sh, check_gdb.sh and check_valgrind.sh run
    apt_need "python3 -c 'import json, pickle, zlib'" python3
    apt_need "command -v perl" perl
    apt_need "command -v git" git
    apt_need "command -v sqlite3" sqlite3
    apt_need "command -v gdb" gdb
    apt_need "command -v valgrind && test -e /usr/include/valgrind/memcheck.h" valgrind
    apt_need "command -v redis-check-rdb && command -v redis-benchmark" redis-tools
fi
if wanted linux32; then
    apt_need "$(compiles 'cc -m32' 'c++ -m32')" "gcc-multilib g++-multilib"
fi
for bits in 64:x86-64 32:i686; do
    if wanted "win${bits%:*}"; then
        triplet=$(echo "${bits#*:}" | tr - _)-w64-mingw32
        apt_need "$(compiles "$triplet-gcc" "$triplet-g++")" \
            "gcc-mingw-w64-${bits#*:}-win32 g++-mingw-w64-${bits#*:}-win32"
    fi
done
if wanted win64; then
    apt_need "test -x /usr/lib/wine/wine64 || command -v wine64" "wine64 wine"
fi
if wanted win32 && [ ! -x /usr/lib/wine/wine ] && [ -z "${VMKIT_WINE32:-}" ]; then # for get-wine32.sh
    apt_need "test -e /lib/ld-linux.so.2" libc6-i386
    apt_need "test -e /usr/i686-w64-mingw32/lib/zlib1.dll" libz-mingw-w64
fi
if wanted clang || wanted asan || wanted tsan; then
    apt_need "$(compiles clang clang++)" clang
fi
hint=
install_missing() { apt_install || hint=" What could not be installed, see above, may be the reason."; }
install_missing
if wanted linux64; then # named after the version of the system's own Python
    version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=3
    apt_need "/usr/bin/python3 -c 'import test.test_dict, test.test_threading'" "libpython$version-testsuite"
    install_missing
fi
if wanted asan || wanted tsan; then # a package of its own in some releases, named after clang's version
    apt_need "$(compiles 'clang -fsanitize=thread' 'clang++ -fsanitize=address')" \
        "libclang-rt-$(clang -dumpversion 2>/dev/null | cut -d. -f1)-dev"
    install_missing
fi
cmake_check
# If one of these fails, it has said why; the targets that can't do without fail then.
scripts/get-check.sh >/dev/null || hint=" Check is missing, see above."
if wanted win32 && [ -z "${VMKIT_WINE32:-}" ]; then
    scripts/get-wine32.sh >/dev/null || hint=" The 32-bit Wine is missing, see above."
fi

emulated=no
if wanted linux32 || wanted win32; then
    case $(scripts/emulate32.sh) in
    native) ;;
    emulated) emulated=yes ;;
    *) hint="$hint 32-bit programs can't be run, see above." ;;
    esac
fi

# --- the targets ------------------------------------------------------------------------------------------------------

# step WHAT COMMAND...: run it, its output in a log; on failure the end of that, and 1.
step() {
    what=$1
    shift
    printf '%s: %s\n' "$target" "$what"
    log=build/$target/$what.log
    mkdir -p "build/$target"
    "$@" >"$log" 2>&1 && return 0
    tail -n 40 "$log"
    say "$target: $what failed; all that it said is in $log.$hint"
    return 1
}

# Run a target's tests: sets passed and failed, from the report that ctest writes. Only "run" is a pass there.
run_tests() {
    report=$top/build/$target/junit.xml
    rm -f "$report"
    aslr=
    # The shadow of older ThreadSanitizers doesn't bear the randomness of newer kernels.
    if [ "$target" = tsan ] && setarch -R true 2>/dev/null; then aslr="setarch -R"; fi
    log=$top/build/$target/ctest.log
    # shellcheck disable=SC2086 # words on purpose
    {
        status=0
        $aslr env $rounds ctest --preset "$target" $only -j "$(nproc)" --output-junit "$report" || status=$?
        echo "$status" >"$log.status"
    } | tee "$log"
    status=$(cat "$log.status")
    all=$(grep -c '<testcase ' "$report") || all=0
    passed=$(grep -c '<testcase .*status="run"' "$report") || passed=0
    failed=$((all - passed))
    if [ "$status" != 0 ] && [ $failed = 0 ]; then failed=1; fi
    if [ "$all" = 0 ]; then failed=1; fi
}

# What failed tests said, once more: in a long log, of which one may be shown the end, they are hard to find.
failures() {
    awk '/\*\*\*/ { left = 40 } /^ +Start |^ *[0-9]+\/[0-9]+ Test .*Passed/ { left = 0 } left-- > 0' "$top/build/$target/ctest.log"
}

passed_sum=0
failed_sum=0
summary=
said=
for target; do
    passed=0
    failed=1
    emulation=OFF
    rounds=
    only=
    note=
    case $target-$emulated in
    linux32-yes | win32-yes)
        emulation=ON
        rounds=VMKIT_ROUNDS=${VMKIT_ROUNDS:-0.03}
        say "$target: qemu runs its programs, slowly: random tests are far shorter, and what the kernel itself would" \
            "have to show for them (limits on the process, its figures) and the use by other projects are not tested here"
        note=" (by qemu, without limits and the kernel's figures: see above)"
        ;;
    esac
    if [ "$target-$emulation-${VMKIT_UNTESTED:-}" = win32-ON-win32 ]; then
        say "win32: NOT TESTED here but for a few suites: this kernel runs no 32-bit programs, and qemu no Wine to speak of"
        only="-R ^(wine_start|test_cxx|test_base|test_extents.*)\$"
        note=" (NOT TESTED but for these: no 32-bit programs here, and qemu does not bear Wine)"
    fi
    if [ "$target" = tsan ]; then # what the model's page is changes nothing that threads share
        only="-E _model_(4_64|16_16|64_64)\$"
        note=" (of the suites on the model, those with pages of 4 KiB)"
    fi
    if step configure cmake --preset "$target" -DVMKIT_EMULATED=$emulation && step build cmake --build --preset "$target"; then
        run_tests
        if [ $failed != 0 ]; then
            said="$said
$target:
$(failures)
"
        fi
    fi
    summary="$summary$(printf '%-8s %4d passed, %d failed%s' "$target" "$passed" "$failed" "$note")
"
    passed_sum=$((passed_sum + passed))
    failed_sum=$((failed_sum + failed))
done
printf '%s\n%s%d passed, %d failed\n' "$said" "$summary" $passed_sum $failed_sum
[ $failed_sum = 0 ] && [ $passed_sum -gt 0 ]
