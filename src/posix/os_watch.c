/* SPDX-License-Identifier: MIT
 *
 * Write-watch as Linux keeps account of it.
 *
 * USERFAULT. Pages of a range that is registered with a userfaultfd are write-protected in the page table; a write
 * removes the mark without telling anybody (WP_ASYNC), and PAGEMAP_SCAN finds the pages that have lost it, and marks
 * them again in the same step. No mapping is split, no signal is sent, and the kernel's own writes are seen. What has
 * never been touched has no mark and counts as written until it is scanned for the first time.
 *
 * A decommit that maps anew loses the registration with the mapping. A scan says so (EPERM); then the range is
 * registered again, and what has lost its marks is reported, as is right.
 *
 * SOFT_DIRTY. Bit 55 of a page's entry in /proc/self/pagemap, cleared for the whole process by /proc/self/clear_refs.
 * Kernels built without it accept the clearing and never set the bit, so a page that was just written must have it.
 */
#include "posix/os_service_private.h"

typedef enum ability { UNKNOWN, ABLE, UNABLE } ability;

enum { STATE_KIND, STATE_USERFAULT, STATE_PAGEMAP };

static const char *pagemap_file = "/proc/self/pagemap", *clear_refs_file = "/proc/self/clear_refs";

static int open_pagemap(void)
{
    return open(pagemap_file, O_RDONLY | O_CLOEXEC);
}

static size_t page_size_now(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* What a call that lacks descriptors, memory, or the facility means. */
static vmk_status status_of(int error)
{
    return error == ENOMEM || error == EMFILE || error == ENFILE ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
}

/* --- userfault -------------------------------------------------------------------------------------------------- */

static vmk_status userfault_open(vmki_os_watch *watch, void *base, size_t size)
{
    int userfault = vmki_posix_userfault();
    if (userfault < 0)
        return status_of(errno);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap >= 0 && vmki_posix_userfault_register(userfault, base, size)) {
        watch->state[STATE_KIND] = VMK_WATCH_USERFAULT;
        watch->state[STATE_USERFAULT] = (uintptr_t)userfault;
        watch->state[STATE_PAGEMAP] = (uintptr_t)pagemap;
        return VMK_OK;
    }
    int error = errno;
    (void)close(userfault);
    if (pagemap >= 0)
        (void)close(pagemap);
    errno = error;
    return status_of(error);
}

/* Scan and protect: from `base` on, until the end or until there is no room. */
static vmk_status userfault_scan(const vmki_os_watch *watch, void *base, size_t size, vmki_posix_scanned *found,
                                 size_t capacity, size_t *count, void **until)
{
    vmki_posix_scan scan = {.size = sizeof scan,
                            .flags = VMKI_POSIX_SCAN_PROTECT | VMKI_POSIX_SCAN_CHECK,
                            .start = (uintptr_t)base,
                            .end = (uintptr_t)base + size,
                            .vec = (uintptr_t)found,
                            .vec_len = capacity,
                            .category_mask = VMKI_POSIX_PAGE_IS_WRITTEN,
                            .return_mask = VMKI_POSIX_PAGE_IS_WRITTEN};
    int result;
    bool registered = false;
    for (;;) {
        scan.walk_end = scan.start;
        result = vmki_posix_pagemap_scan((int)watch->state[STATE_PAGEMAP], &scan);
        if (result >= 0)
            break;
        if (errno == EPERM && !registered) {
            registered = vmki_posix_userfault_register((int)watch->state[STATE_USERFAULT], base, size);
            if (!registered)
                return status_of(errno);
        } else if (errno != EINTR) {
            return status_of(errno);
        }
    }
    *count = (size_t)result;
    *until = (void *)(uintptr_t)scan.walk_end;
    return VMK_OK;
}

static vmk_status userfault_collect(const vmki_os_watch *watch, void *base, size_t size, vmki_os_range *runs,
                                    size_t capacity, size_t *count, void **until)
{
    enum { AT_ONCE = 128 };
    vmki_posix_scanned found[AT_ONCE] = {{0}}; /* valgrind doesn't know what fills it */
    vmk_status status = userfault_scan(watch, base, size, found, vmki_min(capacity, AT_ONCE), count, until);
    for (size_t i = 0; status == VMK_OK && i < *count; i++)
        runs[i] = (vmki_os_range){(void *)(uintptr_t)found[i].start, (size_t)(found[i].end - found[i].start)};
    return status;
}

static vmk_status userfault_arm(const vmki_os_watch *watch, unsigned char *base, size_t size)
{
    vmk_status status = VMK_OK;
    for (unsigned char *limit = base + size; base < limit && status == VMK_OK;) {
        size_t count;
        void *until;
        status = userfault_scan(watch, base, (size_t)(limit - base), NULL, 0, &count, &until);
        if (status == VMK_OK)
            base = until;
    }
    return status;
}

/* --- soft-dirty bits -------------------------------------------------------------------------------------------- */

static vmk_status soft_dirty_open(vmki_os_watch *watch)
{
    int pagemap = open_pagemap();
    if (pagemap < 0)
        return status_of(errno);
    watch->state[STATE_KIND] = VMK_WATCH_SOFT_DIRTY;
    watch->state[STATE_PAGEMAP] = (uintptr_t)pagemap;
    return VMK_OK;
}

static bool soft_dirty_clear(void)
{
    int file = open(clear_refs_file, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool done = write(file, "4", 1) == 1;
    int error = errno;
    (void)close(file);
    errno = error;
    return done;
}

/* The entries of pages from `first` on, as many as there is room for or as the kernel gives; 0: none. */
static size_t read_entries(int pagemap, uint64_t first, uint64_t *entries, size_t count)
{
    ssize_t got = pread(pagemap, entries, count * sizeof *entries, (off_t)(first * sizeof *entries));
    return got > 0 ? (size_t)got / sizeof *entries : 0;
}

static vmk_status soft_dirty_collect(const vmki_os_watch *watch, unsigned char *base, size_t size, vmki_os_range *runs,
                                     size_t capacity, size_t *count, void **until)
{
    enum { AT_ONCE = 256 };
    uint64_t entries[AT_ONCE];
    size_t page_size = page_size_now(), got;
    unsigned char *at = base, *limit = base + size;
    *count = 0;
    for (; at < limit; at += got * page_size) {
        got = read_entries((int)watch->state[STATE_PAGEMAP], (uintptr_t)at / page_size, entries,
                           vmki_min((size_t)(limit - at) / page_size, AT_ONCE));
        if (got == 0)
            return VMK_ERR_UNSUPPORTED;
        for (size_t i = 0; i < got; i++) {
            unsigned char *page = at + i * page_size;
            vmki_os_range *last = runs + *count - 1;
            if ((entries[i] >> VMKI_POSIX_PAGE_SOFT_DIRTY & 1) == 0)
                continue;
            if (*count != 0 && (unsigned char *)last->base + last->size == page) {
                last->size += page_size;
            } else if (*count == capacity) {
                *until = page;
                return VMK_OK;
            } else {
                runs[(*count)++] = (vmki_os_range){page, page_size};
            }
        }
    }
    *until = limit;
    return VMK_OK;
}

/* --- what there is ---------------------------------------------------------------------------------------------- */

static ability try_on(vmk_watch_kind kind, unsigned char *pages, size_t page_size)
{
    vmki_os_watch watch;
    vmki_os_range run = {0};
    size_t count = 0;
    void *until;
    vmk_status status = vmki_os_watch_open(&watch, kind, pages, 3 * page_size, true);
    if (status != VMK_OK)
        return status == VMK_ERR_UNSUPPORTED ? UNABLE : UNKNOWN;
    /* Clearing soft-dirty bits would disturb whoever else in the process counts on them: so without. */
    bool able = kind == VMK_WATCH_SOFT_DIRTY || vmki_os_watch_arm(&watch, pages, 3 * page_size) == VMK_OK;
    *(volatile unsigned char *)(pages + page_size) = 1;
    able = able && vmki_os_watch_collect(&watch, pages, 3 * page_size, &run, 1, &count, &until) == VMK_OK &&
           count == 1 && run.base == pages + page_size && run.size == page_size;
    vmki_os_watch_close(&watch, pages, 3 * page_size);
    return able ? ABLE : UNABLE;
}

/* On three pages, of which the second one is written. */
static ability try_kind(vmk_watch_kind kind)
{
    size_t page_size = page_size_now();
    vmki_os_request request = {.size = 3 * page_size, .align = page_size};
    void *pages;
    if (vmki_os_reserve(&request, &pages) != VMK_OK)
        return UNKNOWN;
    ability able = UNKNOWN;
    if (vmki_os_commit(pages, request.size) == VMK_OK)
        able = try_on(kind, pages, page_size);
    vmki_os_release(pages, request.size);
    return able;
}

static uint8_t abilities[VMK_WATCH_KINDS];

static bool works(vmk_watch_kind kind)
{
    uint8_t state = VMKI_LOAD_RELAXED(&abilities[kind]);
    if (state == UNKNOWN) {
        state = (uint8_t)try_kind(kind);
        VMKI_STORE_RELAXED(&abilities[kind], state); /* who else is here finds the same */
    }
    return state == ABLE;
}

void vmki_posix_userfault_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&abilities[VMK_WATCH_USERFAULT], forbidden ? UNABLE : UNKNOWN);
}

void vmki_posix_soft_dirty_files(const char *pagemap, const char *clear_refs)
{
    pagemap_file = pagemap != NULL ? pagemap : "/proc/self/pagemap";
    clear_refs_file = clear_refs != NULL ? clear_refs : "/proc/self/clear_refs";
    VMKI_STORE_RELAXED(&abilities[VMK_WATCH_SOFT_DIRTY], pagemap != NULL ? ABLE : UNKNOWN);
}

void vmki_os_probe_watch(vmk_caps *caps)
{
    caps->watch |= 1u << VMK_WATCH_PROTECT; /* to be tried only by installing the handler */
    if (works(VMK_WATCH_USERFAULT))
        caps->watch |= 1u << VMK_WATCH_USERFAULT;
    if (works(VMK_WATCH_SOFT_DIRTY))
        caps->watch |= 1u << VMK_WATCH_SOFT_DIRTY;
}

/* --- the contract ----------------------------------------------------------------------------------------------- */

vmk_status vmki_os_watch_open(vmki_os_watch *watch, vmk_watch_kind kind, void *base, size_t size, bool region)
{
    (void)region;
    *watch = (vmki_os_watch){{0}};
    if (kind == VMK_WATCH_USERFAULT && VMKI_LOAD_RELAXED(&abilities[kind]) != UNABLE)
        return userfault_open(watch, base, size);
    if (kind == VMK_WATCH_SOFT_DIRTY && VMKI_LOAD_RELAXED(&abilities[kind]) != UNABLE)
        return soft_dirty_open(watch);
    return VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_watch_collect(vmki_os_watch *watch, void *base, size_t size, vmki_os_range *runs, size_t capacity,
                                 size_t *count, void **until)
{
    if (watch->state[STATE_KIND] == VMK_WATCH_USERFAULT)
        return userfault_collect(watch, base, size, runs, capacity, count, until);
    return soft_dirty_collect(watch, base, size, runs, capacity, count, until);
}

vmk_status vmki_os_watch_arm(vmki_os_watch *watch, void *base, size_t size)
{
    if (watch->state[STATE_KIND] == VMK_WATCH_USERFAULT)
        return userfault_arm(watch, base, size);
    return soft_dirty_clear() ? VMK_OK : status_of(errno);
}

/* Closing is not enough: a child may have the descriptor too. */
void vmki_os_watch_close(vmki_os_watch *watch, void *base, size_t size)
{
    if (watch->state[STATE_KIND] == VMK_WATCH_USERFAULT)
        vmki_posix_userfault_unregister((int)watch->state[STATE_USERFAULT], base, size);
    vmki_os_watch_forget(watch);
}

void vmki_os_watch_forget(vmki_os_watch *watch)
{
    if (watch->state[STATE_KIND] != VMK_WATCH_BEST)
        (void)close((int)watch->state[STATE_PAGEMAP]);
    if (watch->state[STATE_KIND] == VMK_WATCH_USERFAULT)
        (void)close((int)watch->state[STATE_USERFAULT]);
    *watch = (vmki_os_watch){{0}};
}
