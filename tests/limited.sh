#!/bin/sh
# SPDX-License-Identifier: MIT
# limited.sh KIB PROGRAM [ARGUMENT ...]: run it within so much address space.
# shellcheck disable=SC3045 # dash has it, bash has it
ulimit -v "$1" || exit 1
shift
exec "$@"
