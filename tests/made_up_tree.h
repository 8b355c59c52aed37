/* SPDX-License-Identifier: MIT
 *
 * A made-up tree of files in a temporary folder, for what reads /proc and /sys below a prefix.
 */
#ifndef VMKIT_TESTS_MADE_UP_TREE_H
#define VMKIT_TESTS_MADE_UP_TREE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support.h"

static char top[64]; /* where the tree of the running test is */

static inline void make_top(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(top, sizeof top, "%s/vmkit-tree-XXXXXX", base != NULL && strlen(base) < 32 ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(top));
}

static inline void remove_top(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    ck_assert_int_eq(system(command), 0);
}

static inline void path_of(const char *path, char *whole, size_t size)
{
    snprintf(whole, size, "%s%s", top, path);
}

/* A file in the tree, with all directories above it. */
static inline void put(const char *path, const char *content)
{
    char whole[2048];
    path_of(path, whole, sizeof whole);
    for (char *slash = strchr(whole + strlen(top) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ck_assert(mkdir(whole, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    ck_assert_msg(file != NULL, "%s", whole);
    fputs(content, file);
    ck_assert_int_eq(fclose(file), 0);
}

#endif
