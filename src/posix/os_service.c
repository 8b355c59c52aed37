/* SPDX-License-Identifier: MIT
 *
 * Guards in the page table, prefault, residency, many ranges at once, huge pages, nodes; and which advice there is.
 *
 * Nothing is taken from headers or from a success alone: emulators have been seen to say yes to any advice, and to do
 * nothing. So what gives back or takes memory is tried out, once, on pages of its own.
 */
#include "posix/os_service_private.h"

#include <stddef.h>
#include <sys/uio.h>

typedef enum ability { UNKNOWN, ABLE, UNABLE } ability;

/* Two committed pages to try things on, or NULL. */
static unsigned char *pair_make(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    vmki_os_request request = {.size = 2 * page_size, .align = page_size};
    void *pair;
    if (vmki_os_reserve(&request, &pair) != VMK_OK)
        return NULL;
    if (vmki_os_commit(pair, request.size) == VMK_OK)
        return pair;
    vmki_os_release(pair, request.size);
    return NULL;
}

static void pair_end(unsigned char *pair)
{
    vmki_os_release(pair, 2 * (size_t)sysconf(_SC_PAGESIZE));
}

/* --- guards ----------------------------------------------------------------------------------------------------- */

/* Can this page be read? Asked without an address that a system call would read: valgrind reads it first, and breaks
 * off at a guard. Kernels that have guards have this advice. */
static bool readable(unsigned char *page)
{
    return madvise(page, (size_t)sysconf(_SC_PAGESIZE), VMKI_POSIX_POPULATE_READ) == 0;
}

static ability try_guards(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pair = pair_make();
    if (pair == NULL)
        return UNKNOWN; /* for want of memory */
    bool able = madvise(pair, page_size, VMKI_POSIX_GUARD_INSTALL) == 0 && !readable(pair) &&
                readable(pair + page_size) && madvise(pair, page_size, VMKI_POSIX_GUARD_REMOVE) == 0 && readable(pair);
    pair_end(pair);
    return able ? ABLE : UNABLE;
}

static uint8_t guards;

static bool guards_work(void)
{
    uint8_t state = VMKI_LOAD_RELAXED(&guards);
    if (state == UNKNOWN) {
        state = VMKI_POSIX_GUARD_INSTALL != VMKI_POSIX_NO_ADVICE ? (uint8_t)try_guards() : UNABLE;
        VMKI_STORE_RELAXED(&guards, state); /* who else is here finds the same */
    }
    return state == ABLE;
}

void vmki_posix_guards_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&guards, forbidden ? UNABLE : UNKNOWN);
}

static int guard_advise(void *base, size_t size, int advice)
{
    int result;
    do
        result = madvise(base, size, advice);
    while (result != 0 && (errno == EINTR || errno == EAGAIN)); /* a race with who faults, or with a signal */
    return result;
}

/* Refused where pages are locked, by older kernels. */
vmk_status vmki_os_guard_set(void *base, size_t size)
{
    if (!guards_work() || guard_advise(base, size, VMKI_POSIX_GUARD_INSTALL) != 0)
        return VMK_ERR_UNSUPPORTED;
    return VMK_OK;
}

void vmki_os_guard_clear(void *base, size_t size)
{
    int error = errno;
    if (guards_work())
        (void)guard_advise(base, size, VMKI_POSIX_GUARD_REMOVE);
    errno = error;
}

/* --- prefault --------------------------------------------------------------------------------------------------- */

static ability try_prefault(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pair = pair_make();
    if (pair == NULL)
        return UNKNOWN;
    bool able = madvise(pair, 2 * page_size, VMKI_POSIX_POPULATE) == 0 && vmki_posix_resident(pair, page_size) &&
                vmki_posix_resident(pair + page_size, page_size);
    pair_end(pair);
    return able ? ABLE : UNABLE;
}

static uint8_t prefault;

bool vmki_posix_prefault_works(void)
{
    uint8_t state = VMKI_LOAD_RELAXED(&prefault);
    if (state == UNKNOWN) {
        state = VMKI_POSIX_POPULATE != VMKI_POSIX_NO_ADVICE ? (uint8_t)try_prefault() : UNABLE;
        VMKI_STORE_RELAXED(&prefault, state);
    }
    return state == ABLE;
}

void vmki_posix_prefault_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&prefault, forbidden ? UNABLE : UNKNOWN);
}

vmk_status vmki_os_prefault(void *base, size_t size)
{
    if (!vmki_posix_prefault_works())
        return VMK_ERR_UNSUPPORTED;
    int result;
    do
        result = madvise(base, size, VMKI_POSIX_POPULATE);
    while (result != 0 && (errno == EINTR || errno == EAGAIN));
    if (result == 0)
        return VMK_OK;
    return errno == ENOMEM ? VMK_ERR_COMMIT : VMK_ERR_ARGUMENT; /* EFAULT: somebody may not write there */
}

/* --- residency -------------------------------------------------------------------------------------------------- */

vmk_status vmki_os_residency(const void *base, size_t size, unsigned char *pages)
{
    size_t count = size / (size_t)sysconf(_SC_PAGESIZE);
    if (!vmki_posix_mincore(base, size, pages))
        return VMK_ERR_UNSUPPORTED;
    for (size_t i = 0; i < count; i++)
        pages[i] &= 1; /* other bits say other things, or nothing */
    return VMK_OK;
}

/* --- many ranges at once ---------------------------------------------------------------------------------------- */

/* Ranges are given to the kernel as they are. */
_Static_assert(sizeof(vmki_os_range) == sizeof(struct iovec) &&
                   offsetof(vmki_os_range, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(vmki_os_range, size) == offsetof(struct iovec, iov_len),
               "a range is a struct iovec");

enum { MOST_RANGES = 1024 }; /* UIO_MAXIOV */

/* Advise on the first ranges; how many of them are done. The kernel tells the bytes. */
static size_t advise_many(int self, const vmki_os_range *ranges, size_t count, int advice)
{
    size_t done = 0;
    while (done < count) {
        size_t some = vmki_min(count - done, MOST_RANGES), first = done;
        long bytes;
        do
            bytes = vmki_posix_advise_many(self, ranges + done, some, advice);
        while (bytes < 0 && (errno == EINTR || errno == EAGAIN));
        for (size_t left = bytes > 0 ? (size_t)bytes : 0; done < first + some && left >= ranges[done].size; done++)
            left -= ranges[done].size;
        if (done == first)
            break;
    }
    return done;
}

static bool try_batch(int self)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pair = pair_make();
    if (pair == NULL)
        return false;
    const vmki_os_range pages[2] = {{pair, page_size}, {pair + page_size, page_size}};
    volatile unsigned char *bytes = pair;
    bytes[0] = bytes[page_size] = 1;
    bool able = advise_many(self, pages, 2, VMKI_POSIX_ZAP) == 2 && bytes[0] == 0 && bytes[page_size] == 0;
    pair_end(pair);
    return able;
}

static uint8_t batch_method; /* vmki_posix_batch */

static VMKI_COLD vmki_posix_batch batch_choose(void)
{
    if (VMKI_POSIX_ZAP == VMKI_POSIX_NO_ADVICE)
        return VMKI_POSIX_BATCH_NONE;
    if (try_batch(VMKI_POSIX_SELF))
        return VMKI_POSIX_BATCH_SELF;
    int self = vmki_posix_self_open();
    bool able = self >= 0 && try_batch(self);
    if (self >= 0)
        (void)close(self);
    return able ? VMKI_POSIX_BATCH_PIDFD : VMKI_POSIX_BATCH_NONE;
}

vmki_posix_batch vmki_posix_batch_method(void)
{
    vmki_posix_batch method = (vmki_posix_batch)VMKI_LOAD_RELAXED(&batch_method);
    if (VMKI_UNLIKELY(method == VMKI_POSIX_BATCH_UNDECIDED)) {
        method = batch_choose();
        vmki_posix_batch_force(method);
    }
    return method;
}

void vmki_posix_batch_force(vmki_posix_batch method)
{
    VMKI_STORE_RELAXED(&batch_method, (uint8_t)method);
}

/* Drop the pages of the ranges, and `mark` them then if asked to. */
static vmk_status zap_many(const vmki_os_range *ranges, size_t count, bool mark, size_t *done)
{
    vmki_posix_batch method = vmki_posix_batch_method();
    int self = VMKI_POSIX_SELF;
    *done = 0;
    if (method == VMKI_POSIX_BATCH_PIDFD)
        self = vmki_posix_self_open();
    if (method == VMKI_POSIX_BATCH_NONE || (method == VMKI_POSIX_BATCH_PIDFD && self < 0))
        return VMK_ERR_UNSUPPORTED;
    *done = advise_many(self, ranges, count, VMKI_POSIX_ZAP);
    vmk_status status = *done != 0 ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
    if (mark && *done != 0)
        *done = advise_many(self, ranges, *done, VMKI_POSIX_GUARD_INSTALL);
    if (method == VMKI_POSIX_BATCH_PIDFD)
        (void)close(self);
    return *done == count ? VMK_OK : status;
}

vmk_status vmki_os_discard_batch(const vmki_os_range *ranges, size_t count, size_t *done)
{
    if (VMKI_POSIX_DISCARD == VMKI_POSIX_ZAP)
        return zap_many(ranges, count, false, done);
    *done = 0;
    return VMK_ERR_UNSUPPORTED;
}

/* A mark in the page table takes no mapping, but leaves the one that there is writable: then the charge goes only where
 * none is made for that, which is under all but strict overcommit (see os_vm.c), and with no limit on such memory.
 * Dropping the pages first is for the kernel's sake: for that it flushes the processors' caches of the page table once,
 * for marks over pages that are there once a range. */
vmk_status vmki_os_decommit_batch(const vmki_os_range *ranges, size_t count, size_t *done)
{
    struct rlimit data;
    *done = 0;
    if (!guards_work() || vmki_posix_decommit_method() != VMKI_POSIX_DECOMMIT_ZAP ||
        getrlimit(RLIMIT_DATA, &data) != 0 || data.rlim_cur != RLIM_INFINITY)
        return VMK_ERR_UNSUPPORTED;
    return zap_many(ranges, count, true, done);
}

/* --- huge pages ------------------------------------------------------------------------------------------------- */

static uint8_t huge_scan; /* UNABLE only if a test forbids it: what it costs to find out is what it costs to use it */

void vmki_posix_huge_scan_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&huge_scan, forbidden ? UNABLE : UNKNOWN);
}

static bool scan_huge(const void *base, size_t size, size_t *huge)
{
    uint64_t from = (uintptr_t)base, limit = from + size, sum = 0;
    int pagemap = VMKI_LOAD_RELAXED(&huge_scan) != UNABLE ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
    if (pagemap < 0)
        return false;
    int found = 0;
    while (found >= 0 && from < limit) {
        enum { AT_ONCE = 64 };
        vmki_posix_scanned runs[AT_ONCE] = {{0}}; /* valgrind doesn't know what fills it */
        vmki_posix_scan scan = {.size = sizeof scan,
                                .start = from,
                                .end = limit,
                                .vec = (uintptr_t)runs,
                                .vec_len = AT_ONCE,
                                .category_mask = VMKI_POSIX_PAGE_IS_HUGE,
                                .return_mask = VMKI_POSIX_PAGE_IS_HUGE};
        found = vmki_posix_pagemap_scan(pagemap, &scan);
        for (int i = 0; i < found; i++)
            sum += runs[i].end - runs[i].start;
        from = found == AT_ONCE ? runs[AT_ONCE - 1].end : limit; /* walk_end may stop short of a hole */
    }
    (void)close(pagemap);
    *huge = (size_t)sum;
    return found >= 0;
}

/* "AnonHugePages:      2048 kB", in bytes; 0: another line. */
static uint64_t huge_in_line(const char *line)
{
    static const char *const names[] = {"AnonHugePages:", "ShmemPmdMapped:", "Shared_Hugetlb:", "Private_Hugetlb:"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t length = strlen(names[i]);
        uint64_t kib = 0;
        if (strncmp(line, names[i], length) != 0)
            continue;
        for (line += length; *line == ' '; line++)
            continue;
        for (; *line >= '0' && *line <= '9'; line++)
            kib = kib * 10 + (uint64_t)(*line - '0');
        return kib << 10;
    }
    return 0;
}

/* A mapping's figures are of all of it: of one that the range has only in part, 0 alone tells something. */
vmk_status vmki_posix_huge_report_from(const char *smaps, const void *base, size_t size, size_t *huge)
{
    uint64_t low = (uintptr_t)base, limit = low + size, sum = 0, from = 0, to = 0, covered = 0;
    vmki_posix_lines in;
    char line[128];
    bool told = true;
    if (!vmki_posix_lines_open(&in, smaps))
        return VMK_ERR_UNSUPPORTED;
    while (told && vmki_posix_lines_next(&in, line, sizeof line)) {
        if (line[0] < 'A' || line[0] > 'Z') {
            (void)vmki_posix_range_in(line, &from, &to);
            covered += from < limit && to > low ? vmki_min64(to, limit) - (from > low ? from : low) : 0;
        } else if (from < limit && to > low) {
            uint64_t found = huge_in_line(line);
            sum += found;
            told = found == 0 || (from >= low && to <= limit);
        }
    }
    vmki_posix_lines_close(&in);
    if (!told || covered != size)
        return VMK_ERR_UNSUPPORTED;
    *huge = (size_t)sum;
    return VMK_OK;
}

vmk_status vmki_os_huge_report(const void *base, size_t size, size_t *huge)
{
    return scan_huge(base, size, huge) ? VMK_OK : vmki_posix_huge_report_from("/proc/self/smaps", base, size, huge);
}

/* --- nodes ------------------------------------------------------------------------------------------------------ */

/* Refused as misuse of the call's own (EINVAL: no such node), as not allowed, or not there: all unsupported. */
vmk_status vmki_os_node_prefer(void *base, size_t size, unsigned node)
{
    if (vmki_posix_node_prefer(base, size, node))
        return VMK_OK;
    return errno == ENOMEM ? vmki_posix_mappings_exhausted() ? VMK_ERR_MAPPINGS : VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_node_of(const void *address, unsigned *node)
{
    int found;
    if (!vmki_posix_node_of((const void *)vmki_floor((uintptr_t)address, (size_t)sysconf(_SC_PAGESIZE)), &found))
        return VMK_ERR_UNSUPPORTED;
    *node = (unsigned)found;
    return VMK_OK;
}

/* A list like "0-3,8": how many numbers it has; and the first. */
static unsigned count_list(const char *text, unsigned *first)
{
    unsigned count = 0;
    while (*text >= '0' && *text <= '9') {
        unsigned ends[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
            for (; *text >= '0' && *text <= '9'; text++)
                ends[i] = ends[i] * 10 + (unsigned)(*text - '0');
            if (i == 0 && *text != '-')
                ends[1] = ends[0];
            else if (i == 0)
                text++;
        }
        *first = count == 0 ? ends[0] : *first;
        count += ends[1] - ends[0] + 1;
        text += *text == ',';
    }
    return count;
}

/* How many nodes have memory, and the first of them. */
static unsigned find_nodes(unsigned *first)
{
    char text[256];
    unsigned count = 0;
    *first = 0;
    if (vmki_posix_read_text("/sys/devices/system/node/has_memory", text, sizeof text) ||
        vmki_posix_read_text("/sys/devices/system/node/online", text, sizeof text))
        count = count_list(text, first);
    return count != 0 ? count : 1;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_service(vmk_caps *caps)
{
    unsigned char *pair = pair_make();
    unsigned char known[2];
    if (guards_work())
        caps->features |= VMK_CAP_GUARDS;
    if (vmki_posix_prefault_works())
        caps->features |= VMK_CAP_PREFAULT;
    if (vmki_posix_batch_method() != VMKI_POSIX_BATCH_NONE)
        caps->features |= VMK_CAP_BATCH;
    unsigned first_node;
    caps->nodes = find_nodes(&first_node);
    if (pair == NULL)
        return;
    *pair = 1;
    if (vmki_os_residency(pair, 2 * caps->page_size, known) == VMK_OK && known[0] == 1 && known[1] == 0)
        caps->features |= VMK_CAP_RESIDENCY;
    size_t huge;
    if (scan_huge(pair, 2 * caps->page_size, &huge))
        caps->features |= VMK_CAP_HUGE_REPORT;
    if (caps->nodes > 1 && vmki_os_node_prefer(pair, 2 * caps->page_size, first_node) == VMK_OK)
        caps->features |= VMK_CAP_NODE;
    for (unsigned advice = VMK_ADVICE_NO_HUGE + 1; advice < VMK_ADVICES; advice++)
        if (vmki_posix_advice_known((vmk_advice)advice))
            caps->advice |= 1u << advice;
    if (vmki_os_advise(pair, 2 * caps->page_size, VMK_ADVICE_HUGE) == VMK_OK) {
        caps->features |= VMK_CAP_HUGE_ADVICE;
        caps->advice |= 1u << VMK_ADVICE_HUGE | 1u << VMK_ADVICE_NO_HUGE;
    }
    pair_end(pair);
}
