/* SPDX-License-Identifier: MIT
 *
 * Memory pressure: what is left, and who tells.
 *
 * What is left is in files of Linux: of each cgroup up the tree its limit less what is charged to it, where pages of
 * files that are not in use count as left, for the kernel drops them before it refuses; CommitLimit less Committed_AS
 * under strict overcommit; MemAvailable. Elsewhere these bounds are not known.
 *
 * Linux has three ways to tell of a shortage, and all that can be had are waited for: changes of memory.events of each
 * cgroup of v2 up the tree (a limit's event shows at the level that has it, and above), by inotify; stalls, by a
 * trigger in memory.pressure (PSI) of the own cgroup if it has the memory controller, else of the system; and
 * memory.pressure_level of v1, by an eventfd. Triggers without privileges are for windows of whole two seconds alone
 * (Linux 6.5), so it is two seconds. Wherever nothing tells, there is a pipe to be woken by, and time.
 */
#include "posix/os_service_private.h"

#include <poll.h>

/* --- room ------------------------------------------------------------------------------------------------------- */

static void find_level_room(const char *directory, bool unified, bool own, void *context)
{
    vmk_room *room = context;
    char path[VMKI_POSIX_PATH];
    vmki_posix_field unused = {unified ? "inactive_file " : "total_inactive_file ", 0};
    uint64_t used, limit = vmki_posix_cgroup_limit(directory, unified);
    (void)own;
    if (limit == VMK_UNLIMITED ||
        !vmki_posix_join(path, directory, unified ? "/memory.current" : "/memory.usage_in_bytes") ||
        !vmki_posix_read_number(path, &used))
        return;
    if (vmki_posix_join(path, directory, "/memory.stat"))
        (void)vmki_posix_read_fields(path, &unused, 1, 0);
    used -= vmki_min64(used, unused.bytes);
    uint64_t left = limit > used ? limit - used : 0;
    if (left < room->left[VMK_BOUND_MEMORY]) {
        room->left[VMK_BOUND_MEMORY] = left;
        room->bound[VMK_BOUND_MEMORY] = limit;
    }
}

void vmki_posix_room_under(const char *prefix, vmk_room *room)
{
    enum { LIMIT, PROMISED, AVAILABLE, TOTAL, FIELDS };
    vmki_posix_field of[FIELDS] = {{"CommitLimit:", VMK_UNLIMITED},
                                   {"Committed_AS:", VMK_UNLIMITED},
                                   {"MemAvailable:", VMK_UNLIMITED},
                                   {"MemTotal:", VMK_UNLIMITED}};
    char path[VMKI_POSIX_PATH];
    vmki_posix_cgroups_under(prefix, find_level_room, room);
    if (!vmki_posix_join(path, prefix, "/proc/meminfo") || !vmki_posix_read_fields(path, of, FIELDS, 10))
        return;
    if (of[AVAILABLE].bytes != VMK_UNLIMITED && of[TOTAL].bytes != VMK_UNLIMITED) {
        room->left[VMK_BOUND_PHYSICAL] = of[AVAILABLE].bytes;
        room->bound[VMK_BOUND_PHYSICAL] = of[TOTAL].bytes;
    }
    if (of[LIMIT].bytes != VMK_UNLIMITED && of[PROMISED].bytes != VMK_UNLIMITED &&
        vmki_posix_overcommit_under(prefix) == VMK_OVERCOMMIT_NEVER) {
        room->left[VMK_BOUND_COMMIT] = of[LIMIT].bytes - vmki_min64(of[LIMIT].bytes, of[PROMISED].bytes);
        room->bound[VMK_BOUND_COMMIT] = of[LIMIT].bytes;
    }
}

void vmki_os_room(vmk_room *room)
{
    vmki_posix_room_under("", room);
}

/* --- who tells: opening ----------------------------------------------------------------------------------------- */

/* The words of vmki_os_pressure: descriptors, NONE where there is none; of which bound STALL tells; whether EVENTS and
 * LEVEL are of any cgroup; and whether this is for the record of capabilities alone. */
enum {
    WAKE_READ,
    WAKE_WRITE,
    EVENTS,
    STALL,
    LEVEL,
    DESCRIPTORS,
    STALL_BOUND = DESCRIPTORS,
    EVENTS_USED,
    LEVEL_USED,
    PROBING
};

#define NONE UINTPTR_MAX

static int descriptor(const vmki_os_pressure *pressure, unsigned which)
{
    return pressure->state[which] == NONE ? -1 : (int)pressure->state[which];
}

static void set_descriptor(vmki_os_pressure *pressure, unsigned which, int file)
{
    pressure->state[which] = file < 0 ? NONE : (uintptr_t)file;
}

static void close_one(vmki_os_pressure *pressure, unsigned which)
{
    if (pressure->state[which] != NONE)
        (void)close(descriptor(pressure, which));
    pressure->state[which] = NONE;
}

static bool write_text(int file, const char *text)
{
    ssize_t length = (ssize_t)strlen(text);
    return write(file, text, (size_t)length) == length;
}

/* Have it told when some thread was stalled for want of memory for 15 % of two seconds. The kernel starts a thread for
 * such an order, which takes milliseconds: who only wants to know whether it could be given leaves it at opening. */
static void open_stall(vmki_os_pressure *pressure, const char *directory, const char *name, vmk_bound bound)
{
    char path[VMKI_POSIX_PATH];
    bool give_order = pressure->state[PROBING] == 0;
    if (pressure->state[STALL] != NONE || !vmki_posix_join(path, directory, name))
        return;
    int file = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return;
    set_descriptor(pressure, STALL, file);
    pressure->state[STALL_BOUND] = bound;
    if (give_order && !write_text(file, "some 300000 2000000\n")) /* whose last character the kernel overwrites */
        close_one(pressure, STALL);
}

/* Decimal digits and a space, of which the end is the answer. */
static char *put_number(char *to, unsigned number)
{
    char digits[16];
    unsigned count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0)
        *to++ = digits[--count];
    *to++ = ' ';
    return to;
}

/* v1: "EVENTFD FILE medium" has the eventfd count when reclaim begins to be hard. The file need not stay open. */
static void open_level(vmki_os_pressure *pressure, const char *directory)
{
    char path[VMKI_POSIX_PATH], order[64];
    if (pressure->state[LEVEL] == NONE)
        set_descriptor(pressure, LEVEL, vmki_posix_eventfd());
    if (pressure->state[LEVEL] == NONE || !vmki_posix_join(path, directory, "/memory.pressure_level"))
        return;
    int level = open(path, O_RDONLY | O_CLOEXEC);
    int control = vmki_posix_join(path, directory, "/cgroup.event_control") ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (level >= 0 && control >= 0) {
        char *end = put_number(put_number(order, (unsigned)descriptor(pressure, LEVEL)), (unsigned)level);
        memcpy(end, "medium", sizeof "medium");
        if (write_text(control, order))
            pressure->state[LEVEL_USED] = 1;
    }
    if (level >= 0)
        (void)close(level);
    if (control >= 0)
        (void)close(control);
}

/* The root of v1 has no limit, and what it tells is of the whole machine; so do levels without one. */
static void open_at_level(const char *directory, bool unified, bool own, void *context)
{
    vmki_os_pressure *pressure = context;
    char path[VMKI_POSIX_PATH];
    if (!unified) {
        if (vmki_posix_cgroup_limit(directory, false) != VMK_UNLIMITED)
            open_level(pressure, directory);
        return;
    }
    if (!vmki_posix_join(path, directory, "/memory.events") ||
        !vmki_posix_changes_add(descriptor(pressure, EVENTS), path))
        return;
    pressure->state[EVENTS_USED] = 1;
    if (own)
        open_stall(pressure, directory, "/memory.pressure", VMK_BOUND_MEMORY);
}

static vmk_status open_all(const char *prefix, bool probing, vmki_os_pressure *pressure)
{
    int wake[2];
    if (!vmki_posix_pipe(wake))
        return VMK_ERR_COMMIT;
    for (unsigned i = 0; i < DESCRIPTORS; i++)
        pressure->state[i] = NONE;
    for (unsigned i = DESCRIPTORS; i < sizeof pressure->state / sizeof pressure->state[0]; i++)
        pressure->state[i] = 0;
    pressure->state[PROBING] = probing;
    set_descriptor(pressure, WAKE_READ, wake[0]);
    set_descriptor(pressure, WAKE_WRITE, wake[1]);
    set_descriptor(pressure, EVENTS, vmki_posix_changes_open());
    vmki_posix_cgroups_under(prefix, open_at_level, pressure);
    open_stall(pressure, prefix, "/proc/pressure/memory", VMK_BOUND_PHYSICAL);
    if (pressure->state[LEVEL_USED] == 0)
        close_one(pressure, LEVEL);
    if (pressure->state[EVENTS_USED] == 0)
        close_one(pressure, EVENTS);
    return VMK_OK;
}

vmk_status vmki_posix_pressure_open_under(const char *prefix, vmki_os_pressure *pressure)
{
    return open_all(prefix, false, pressure);
}

vmk_status vmki_os_pressure_open(vmki_os_pressure *pressure)
{
    return open_all("", false, pressure);
}

void vmki_os_pressure_close(vmki_os_pressure *pressure)
{
    for (unsigned i = 0; i < DESCRIPTORS; i++)
        close_one(pressure, i);
}

/* --- who tells: waiting ----------------------------------------------------------------------------------------- */

/* Take all that there is to be read, so that the next wait waits. */
static void drain(int file)
{
    char some[64];
    while (read(file, some, sizeof some) > 0)
        continue;
}

/* What one of them has to say; its cgroup may be gone, and then it is not asked again. */
static unsigned take(vmki_os_pressure *pressure, unsigned which, short said)
{
    const unsigned of_memory = 1u << VMK_BOUND_MEMORY;
    int file = descriptor(pressure, which);
    if (said == 0)
        return 0;
    if ((said & (POLLIN | POLLPRI)) == 0 || (which == STALL && (said & POLLERR) != 0)) {
        if (which != WAKE_READ)
            close_one(pressure, which);
        return 0;
    }
    if (which == STALL)
        return 1u << pressure->state[STALL_BOUND];
    if (which == EVENTS)
        return vmki_posix_changes_take(file) ? of_memory : 0;
    drain(file);
    return which == LEVEL ? of_memory : 0;
}

unsigned vmki_os_pressure_wait(vmki_os_pressure *pressure, unsigned milliseconds)
{
    struct pollfd set[DESCRIPTORS];
    unsigned told = 0;
    for (unsigned i = 0; i < DESCRIPTORS; i++) /* poll passes over what is negative */
        set[i] = (struct pollfd){.fd = i == WAKE_WRITE ? -1 : descriptor(pressure, i),
                                 .events = i == STALL ? POLLPRI : POLLIN};
    if (poll(set, DESCRIPTORS, milliseconds < INT_MAX ? (int)milliseconds : INT_MAX) <= 0)
        return 0;
    for (unsigned i = 0; i < DESCRIPTORS; i++)
        told |= take(pressure, i, set[i].revents);
    return told;
}

void vmki_os_pressure_wake(vmki_os_pressure *pressure)
{
    (void)write_text(descriptor(pressure, WAKE_WRITE), "w"); /* a pipe that is full wakes too */
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_pressure(vmk_caps *caps)
{
    vmki_os_pressure pressure;
    if (open_all("", true, &pressure) != VMK_OK)
        return;
    if (pressure.state[EVENTS] != NONE || pressure.state[STALL] != NONE || pressure.state[LEVEL] != NONE)
        caps->features |= VMK_CAP_PRESSURE;
    vmki_os_pressure_close(&pressure);
}
