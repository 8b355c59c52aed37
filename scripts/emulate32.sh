#!/bin/sh
# SPDX-License-Identifier: MIT
# emulate32.sh: have 32-bit x86 programs run on a kernel that can't run them itself (built without, or under a hypervisor
# without that mode), by qemu and the kernel's binfmt_misc. Prints "native" or "emulated"; fails, saying why, if neither is to
# be had. What is registered holds for the whole machine until it is started again.
set -eu
. "$(dirname "$0")/common.sh"

# The C library's loader for 32 bits is a program too.
loader=/lib/ld-linux.so.2
runs() { "$loader" --version >/dev/null 2>&1; }

[ -e "$loader" ] || die "$loader is missing: libc6-i386 has it"
binfmt=/proc/sys/fs/binfmt_misc
name=vmkit-i386
if runs; then
    if [ -e $binfmt/$name ]; then echo emulated; else echo native; fi
    exit 0
fi
say "this kernel can't run 32-bit programs; setting qemu up to do it"
apt_need "command -v qemu-i386-static" qemu-user-static
apt_install || exit 1
qemu=$(command -v qemu-i386-static)
# An ELF file of 32 bits, little-endian, for the 386, a program or a shared object. P: tell it the name it was called by.
# F: open the emulator now, so that it is found in any folder that is made the root.
line=":$name:M::\\x7fELF\\x01\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x03\\x00"
line="$line:\\xff\\xff\\xff\\xff\\xff\\xfe\\xfe\\xfc\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:$qemu:PF"
as_root sh -c "[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt" ||
    die "binfmt_misc can't be mounted: this kernel lacks it, or that is forbidden here"
printf '%s' "$line" | as_root tee $binfmt/register >/dev/null || die "registering qemu with binfmt_misc is forbidden here"
runs || die "qemu is registered, and still $loader can't be run"
echo emulated
