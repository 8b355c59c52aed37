/* SPDX-License-Identifier: MIT
 *
 * What the common part of the suites' support asks of the system's.
 */
#ifndef VMKIT_TESTS_SUPPORT_PRIVATE_H
#define VMKIT_TESTS_SUPPORT_PRIVATE_H

#include <stdio.h>

#include "support.h"

/* In the environment of every process that support_run_self started. */
#define SUPPORT_CHILD_MARK "VMKIT_TEST_CHILD"

/* The exit code of a child whose suite has no child function. */
#define SUPPORT_NO_CHILD 70

/* At the very start of main: remember the program's name, see to it that a crash ends the process at once. */
void support_prepare(const char *program);

#endif
