/* SPDX-License-Identifier: MIT
 *
 * Limits as they are found in files: trees of /proc and /sys made up in a temporary directory, in all the shapes that
 * systems have (cgroups v1, v2, both; containers with and without namespaces of their own; files missing or nonsense),
 * and read by the same code that reads the real ones. At the end, the real ones.
 */
#include "posix/os_private.h"

#include <stdio.h>

#include "made_up_tree.h"
#include "support.h"

#define MIB (UINT64_C(1) << 20)

/* --- looking ---------------------------------------------------------------------------------------------------- */

static vmk_limits look(void)
{
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_posix_limits_under(top, &limits);
    ck_assert(limits.address_space == VMK_UNLIMITED && limits.data == VMK_UNLIMITED); /* are in no file */
    return limits;
}

static void assert_memory(uint64_t expected)
{
    ck_assert_uint_eq(look().memory, expected);
}

/* Lines of mountinfo as they come before and after those that matter. */
#define OTHER_MOUNTS                                                                                                   \
    "22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n"                                                         \
    "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"

#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
#define V1_CPU "31 24 0:27 / /sys/fs/cgroup/cpu rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_MOUNT "32 24 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory\n"

/* --- nothing, and nonsense -------------------------------------------------------------------------------------- */

START_TEST(nothing_there)
{
    vmk_limits limits = look();
    ck_assert_uint_eq(limits.memory, VMK_UNLIMITED);
    ck_assert_uint_eq(limits.commit, VMK_UNLIMITED);
}
END_TEST

START_TEST(files_missing)
{
    put("/proc/self/cgroup", "0::/a\n");
    assert_memory(VMK_UNLIMITED); /* no mountinfo */
    put("/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT);
    assert_memory(VMK_UNLIMITED); /* no controller */
    put("/sys/fs/cgroup/memory.max", "1048576\n");
    assert_memory(MIB); /* no directory of our own, but one above */
    put("/proc/self/cgroup", "");
    assert_memory(VMK_UNLIMITED); /* in no cgroup */
}
END_TEST

START_TEST(nonsense)
{
    static const char *const values[] = {"", "\n", "max\n", "-1\n", "12x\n", "x12\n", " 12\n", "0x1000\n", "1.5\n"};
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        put("/sys/fs/cgroup/a/memory.max", values[i]);
        assert_memory(VMK_UNLIMITED);
    }
    put("/sys/fs/cgroup/a/memory.max", "99999999999999999999999999\n"); /* more than a number holds is no limit */
    assert_memory(VMK_UNLIMITED);
    put("/sys/fs/cgroup/a/memory.max", "4096"); /* no end of line */
    assert_memory(4096);
    put("/proc/self/cgroup", "garbage\n:\n::\n0:\n0::\n0::relative\n9:memory\n");
    assert_memory(VMK_UNLIMITED);
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo",
        "\n \n30\n30 23 0:26 /\n30 23 0:26 / /sys/fs/cgroup rw -\n"
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2\n30 23 0:26 / /sys/fs/cgroup rw cgroup2 x rw\n"
        "30 23 0:26 x y rw - cgroup2 cgroup2 rw\n");
    assert_memory(VMK_UNLIMITED);
}
END_TEST

/* Random bytes between pieces that mean something: must end, and touch nothing that it should not (see ASan). */
START_TEST(random_nonsense)
{
    static const char *const pieces[] = {"0::/",   "/..",          "memory",     ":", "/",
                                         " - ",    "cgroup2 c rw", "\n",         " ", "\\040\\1",
                                         V2_MOUNT, "\\",           "4:memory:/", "a", "cgroup c rw,memory"};
    support_random random = support_random_start(20);
    char text[4096];
    put("/sys/fs/cgroup/memory.max", "12345\n");
    for (size_t round = support_rounds(300); round > 0; round--) {
        for (size_t file = 0; file < 2; file++) {
            size_t length = 0, limit = support_random_below(&random, sizeof text - 256);
            while (length < limit) {
                const char *piece = pieces[support_random_below(&random, sizeof pieces / sizeof pieces[0])];
                length += (size_t)snprintf(text + length, sizeof text - length, "%s", piece);
                if (support_random_below(&random, 8) == 0)
                    text[length++] = (char)(1 + support_random_below(&random, 255));
            }
            text[length] = '\0';
            put(file == 0 ? "/proc/self/cgroup" : "/proc/self/mountinfo", text);
        }
        uint64_t memory = look().memory;
        ck_assert(memory == VMK_UNLIMITED || memory == 12345);
    }
}
END_TEST

/* --- version 2 -------------------------------------------------------------------------------------------------- */

START_TEST(v2_own)
{
    put("/proc/self/cgroup", "0::/user.slice/session.scope\n");
    put("/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT);
    put("/sys/fs/cgroup/user.slice/session.scope/memory.max", "268435456\n");
    put("/sys/fs/cgroup/user.slice/memory.max", "max\n");
    assert_memory(256 * MIB);
}
END_TEST

START_TEST(v2_least_of_the_ancestors)
{
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", V2_MOUNT OTHER_MOUNTS);
    put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.max", "3145728\n");
    put("/sys/fs/cgroup/a/memory.max", "2097152\n");
    put("/sys/fs/cgroup/a/other/memory.max", "4096\n"); /* not ours */
    put("/sys/fs/memory.max", "4096\n");                /* above the mount */
    assert_memory(2 * MIB);
    put("/sys/fs/cgroup/a/b/c/memory.max", "1048576\n");
    assert_memory(MIB);
}
END_TEST

START_TEST(v2_root_and_trailing_slashes)
{
    put("/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT);
    put("/sys/fs/cgroup/memory.max", "7340032\n");
    put("/proc/self/cgroup", "0::/\n");
    assert_memory(7 * MIB);
    put("/proc/self/cgroup", "0::/a//b/\n");
    put("/sys/fs/cgroup/a/b/memory.max", "2097152\n");
    assert_memory(2 * MIB);
    put("/proc/self/cgroup", "0::/gone (deleted)"); /* of a cgroup that is no more; no end of line */
    assert_memory(7 * MIB);
}
END_TEST

START_TEST(v2_zero_is_a_limit)
{
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    put("/sys/fs/cgroup/a/memory.max", "0\n");
    assert_memory(0);
}
END_TEST

/* --- version 1, and both ---------------------------------------------------------------------------------------- */

START_TEST(v1_own_and_ancestors)
{
    put("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/a/b\n1:name=systemd:/y\n");
    put("/proc/self/mountinfo", OTHER_MOUNTS V1_CPU V1_MOUNT);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4194304\n");
    put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/cpu/x/memory.limit_in_bytes", "4096\n"); /* not a memory hierarchy */
    assert_memory(4 * MIB);
}
END_TEST

START_TEST(v1_no_limit_is_a_large_number)
{
    static const char *const values[] = {"9223372036854771712\n", "9223372036854710272\n", "9223372036854775807\n"};
    put("/proc/self/cgroup", "4:memory:/a\n");
    put("/proc/self/mountinfo", V1_MOUNT);
    for (size_t i = 0; i < 3; i++) { /* with pages of 4 KiB, of 64 KiB, and of old kernels */
        put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", values[i]);
        assert_memory(VMK_UNLIMITED);
    }
}
END_TEST

START_TEST(v1_controllers_mounted_together)
{
    put("/proc/self/cgroup", "3:cpuset,memory,pids:/a\n");
    put("/proc/self/mountinfo", "40 24 0:9 / /cg rw - cgroup none rw,cpuset,memory,pids\n");
    put("/cg/a/memory.limit_in_bytes", "1048576\n");
    assert_memory(MIB);
    put("/proc/self/cgroup", "3:cpuset,memoryless,pids:/a\n"); /* a name that only begins so */
    assert_memory(VMK_UNLIMITED);
}
END_TEST

/* systemd's hybrid layout: the controller is in v1, v2 is mounted beside it and has none. */
START_TEST(hybrid_with_v1_memory)
{
    put("/proc/self/cgroup", "4:memory:/a\n1:name=systemd:/u\n0::/u\n");
    put("/proc/self/mountinfo",
        OTHER_MOUNTS "38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" V1_CPU V1_MOUNT);
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2097152\n");
    put("/sys/fs/cgroup/unified/u/cgroup.procs", "1\n");
    assert_memory(2 * MIB);
}
END_TEST

START_TEST(hybrid_with_v2_memory)
{
    put("/proc/self/cgroup", "5:cpu,cpuacct:/a\n0::/u\n");
    put("/proc/self/mountinfo", V1_CPU "38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/unified/u/memory.max", "3145728\n");
    assert_memory(3 * MIB);
}
END_TEST

/* --- containers ------------------------------------------------------------------------------------------------- */

/* The host's namespace, but only the container's own cgroup is mounted: the mount's root is part of the path. */
START_TEST(container_sees_its_own_subtree)
{
    put("/proc/self/cgroup", "4:memory:/docker/0123/job\n");
    put("/proc/self/mountinfo", "32 24 0:28 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n");
    assert_memory(4 * MIB);
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1048576\n");
    assert_memory(MIB);
    put("/proc/self/cgroup", "4:memory:/docker/01234\n"); /* another one, whose name begins alike */
    assert_memory(VMK_UNLIMITED);
}
END_TEST

/* A namespace of its own: all looks as if the container were the whole machine. */
START_TEST(container_with_namespace)
{
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT);
    put("/sys/fs/cgroup/memory.max", "5242880\n");
    assert_memory(5 * MIB);
}
END_TEST

/* A mount that was made outside the namespace shows more than the namespace names. */
START_TEST(mount_from_outside_the_namespace)
{
    put("/proc/self/cgroup", "0::/in\n");
    put("/proc/self/mountinfo", "30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/memory.max", "6291456\n");
    put("/sys/fs/cgroup/in/memory.max", "4096\n"); /* has our name, but is two steps above us */
    assert_memory(6 * MIB);
    put("/proc/self/cgroup", "0::/../../side\n"); /* outside too, and there the names are known */
    put("/sys/fs/cgroup/side/memory.max", "1048576\n");
    assert_memory(MIB);
}
END_TEST

/* A process that was moved out of the namespace that it sees: nothing that it can see binds it. */
START_TEST(process_outside_the_namespace)
{
    put("/proc/self/cgroup", "0::/../other\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    put("/sys/fs/cgroup/memory.max", "4096\n");
    put("/sys/fs/other/memory.max", "4096\n");
    assert_memory(VMK_UNLIMITED);
    put("/proc/self/cgroup", "0::/..hidden\n"); /* a name that only begins so */
    assert_memory(4096);
}
END_TEST

/* --- paths and lines -------------------------------------------------------------------------------------------- */

START_TEST(escaped_mount_points)
{
    put("/proc/self/cgroup", "0::/a b\n"); /* this file escapes nothing */
    put("/proc/self/mountinfo", "30 23 0:26 / /my\\040cgroups\\134x rw - cgroup2 cgroup2 rw\n");
    put("/my cgroups\\x/a b/memory.max", "1048576\n");
    assert_memory(MIB);
    put("/proc/self/cgroup", "0::/root dir/a:b\n");
    put("/proc/self/mountinfo", "30 23 0:26 /root\\040dir /cg rw shared:1 master:2 - cgroup2 cgroup2 rw\n");
    put("/cg/a:b/memory.max", "2097152\n");
    assert_memory(2 * MIB);
}
END_TEST

/* Lines and paths of any length go past without harm; what lies behind them is found. */
START_TEST(long_lines)
{
    static char text[40000];
    char *at = text + sprintf(text, "50 27 0:50 / /merged rw - overlay overlay rw,lowerdir=");
    for (size_t i = 0; i < 3000; i++)
        at += sprintf(at, "/layer%u:", (unsigned)i);
    sprintf(at, "\n" V2_MOUNT);
    put("/proc/self/mountinfo", text);
    put("/sys/fs/cgroup/a/memory.max", "1048576\n");
    put("/proc/self/cgroup", "0::/a\n");
    assert_memory(MIB);
    at = text + sprintf(text, "0::");
    for (size_t i = 0; i < 900; i++)
        at += sprintf(at, "/deep");
    sprintf(at, "\n");
    put("/proc/self/cgroup", text);
    assert_memory(VMK_UNLIMITED);
}
END_TEST

/* Files that give what they have in pieces, and lines that end where blocks do. */
START_TEST(lines_at_block_borders)
{
    static char text[4096];
    put("/proc/self/cgroup", "0::/a\n");
    put("/sys/fs/cgroup/a/memory.max", "1048576\n");
    for (size_t before = 900; before < 1100; before++) {
        memset(text, 'x', before);
        sprintf(text + before, "\n" V2_MOUNT);
        put("/proc/self/mountinfo", text);
        assert_memory(MIB);
    }
}
END_TEST

/* --- commit ----------------------------------------------------------------------------------------------------- */

START_TEST(commit_limit_under_strict_overcommit)
{
    put("/proc/meminfo", "MemTotal:       24682416 kB\nCommitLimit:    12341208 kB\nCommitted_AS:     284708 kB\n");
    ck_assert_uint_eq(look().commit, VMK_UNLIMITED); /* mode unknown */
    put("/proc/sys/vm/overcommit_memory", "0\n");
    ck_assert_int_eq(vmki_posix_overcommit_under(top), VMK_OVERCOMMIT_HEURISTIC);
    ck_assert_uint_eq(look().commit, VMK_UNLIMITED);
    put("/proc/sys/vm/overcommit_memory", "1\n");
    ck_assert_int_eq(vmki_posix_overcommit_under(top), VMK_OVERCOMMIT_ALWAYS);
    ck_assert_uint_eq(look().commit, VMK_UNLIMITED);
    put("/proc/sys/vm/overcommit_memory", "2\n");
    ck_assert_int_eq(vmki_posix_overcommit_under(top), VMK_OVERCOMMIT_NEVER);
    ck_assert_uint_eq(look().commit, UINT64_C(12341208) * 1024);
    put("/proc/sys/vm/overcommit_memory", "3\n");
    ck_assert_int_eq(vmki_posix_overcommit_under(top), VMK_OVERCOMMIT_UNKNOWN);
    put("/proc/sys/vm/overcommit_memory", "2\n");
    put("/proc/meminfo", "CommitLimit: none\nMemTotal: 12 kB\n");
    ck_assert_uint_eq(look().commit, VMK_UNLIMITED);
}
END_TEST

START_TEST(limits_are_only_lowered)
{
    vmk_limits limits = {1, 2, 3 * MIB, VMK_UNLIMITED};
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    put("/sys/fs/cgroup/a/memory.max", "8388608\n");
    vmki_posix_limits_under(top, &limits);
    ck_assert_uint_eq(limits.memory, 3 * MIB);
    put("/sys/fs/cgroup/a/memory.max", "1048576\n");
    vmki_posix_limits_under(top, &limits);
    ck_assert_uint_eq(limits.memory, MIB);
    ck_assert(limits.address_space == 1 && limits.data == 2 && limits.commit == VMK_UNLIMITED);
}
END_TEST

/* --- the real ones ---------------------------------------------------------------------------------------------- */

START_TEST(real_limits)
{
    struct rlimit limit;
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmki_os_limits(&limits);
    ck_assert_int_eq(getrlimit(VMKI_POSIX_LIMIT_AS, &limit), 0);
    ck_assert_uint_eq(limits.address_space, limit.rlim_cur == RLIM_INFINITY ? VMK_UNLIMITED : (uint64_t)limit.rlim_cur);
    ck_assert_int_eq(getrlimit(RLIMIT_DATA, &limit), 0);
    ck_assert_uint_eq(limits.data, limit.rlim_cur == RLIM_INFINITY ? VMK_UNLIMITED : (uint64_t)limit.rlim_cur);
    ck_assert(limits.memory == VMK_UNLIMITED || limits.memory >= MIB); /* we live within it */
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {nothing_there,
                                  files_missing,
                                  nonsense,
                                  random_nonsense,
                                  v2_own,
                                  v2_least_of_the_ancestors,
                                  v2_root_and_trailing_slashes,
                                  v2_zero_is_a_limit,
                                  v1_own_and_ancestors,
                                  v1_no_limit_is_a_large_number,
                                  v1_controllers_mounted_together,
                                  hybrid_with_v1_memory,
                                  hybrid_with_v2_memory,
                                  container_sees_its_own_subtree,
                                  container_with_namespace,
                                  mount_from_outside_the_namespace,
                                  process_outside_the_namespace,
                                  escaped_mount_points,
                                  long_lines,
                                  lines_at_block_borders,
                                  commit_limit_under_strict_overcommit,
                                  limits_are_only_lowered,
                                  real_limits};
    Suite *suite = suite_create("limits_posix");
    TCase *group = tcase_create("limits");
    tcase_add_checked_fixture(group, make_top, remove_top);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(group, tests[i]);
    suite_add_tcase(suite, group);
    return support_main(argc, argv, suite, NULL);
}
