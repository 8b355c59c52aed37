/* SPDX-License-Identifier: MIT
 *
 * Write-watch as Windows keeps account of it: of reservations that were made with MEM_WRITE_WATCH.
 *
 * GetWriteWatch tells the addresses of written pages, not runs, as many as there is room for, and cleans what it tells
 * of in the same step. It is asked for no more pages than there is room for runs; where that is little, it is asked
 * without cleaning first, and then for the runs that it has told of, lest a long run come in many pieces. It is
 * documented to return 0 for success, and has been seen to fail on ranges with large pages and on views of sections.
 */
#include "win32/os_private.h"

#include "common/base/os_service.h"

enum { PAGES_AT_ONCE = 256, MUCH_ROOM = 32 };

static size_t page_size_now(void)
{
    size_t page_size, granularity;
    vmki_os_page_facts(&page_size, &granularity);
    return page_size;
}

static bool written(DWORD flags, void *base, size_t size, void **pages, size_t most, size_t *count)
{
    ULONG_PTR room = most;
    DWORD unit;
    if (GetWriteWatch(flags, base, size, pages, &room, &unit) != 0)
        return false;
    *count = room;
    return true;
}

vmk_status vmki_os_watch_open(vmki_os_watch *watch, vmk_watch_kind kind, void *base, size_t size, bool region)
{
    void *pages[1];
    ULONG_PTR room = 1;
    DWORD unit;
    (void)size;
    watch->state[0] = 0;
    if (kind != VMK_WATCH_WRITE_WATCH || !region)
        return VMK_ERR_UNSUPPORTED;
    return GetWriteWatch(0, base, page_size_now(), pages, &room, &unit) == 0 ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

/* The pages from `from` on that lie in a row. */
static size_t run_of(void *const *pages, size_t from, size_t count, size_t page_size)
{
    size_t limit = from + 1;
    while (limit < count && (unsigned char *)pages[limit - 1] + page_size == (unsigned char *)pages[limit])
        limit++;
    return limit - from;
}

vmk_status vmki_os_watch_collect(vmki_os_watch *watch, void *base, size_t size, vmki_os_range *runs, size_t capacity,
                                 size_t *count, void **until)
{
    void *pages[PAGES_AT_ONCE], *again[PAGES_AT_ONCE];
    size_t page_size = page_size_now(), found, step, done = 0;
    unsigned char *limit = (unsigned char *)base + size;
    (void)watch;
    bool roomy = capacity >= MUCH_ROOM;
    size_t most = roomy ? vmki_min(capacity, PAGES_AT_ONCE) : PAGES_AT_ONCE;
    if (!written(roomy ? WRITE_WATCH_FLAG_RESET : 0, base, size, pages, most, &found))
        return VMK_ERR_UNSUPPORTED;
    *until = found < most ? limit : (unsigned char *)pages[found - 1] + page_size;
    for (size_t at = 0; at < found; at += step) {
        size_t same;
        step = run_of(pages, at, found, page_size);
        if (done == capacity ||
            (!roomy && !written(WRITE_WATCH_FLAG_RESET, pages[at], step * page_size, again, PAGES_AT_ONCE, &same))) {
            *until = pages[at];
            break;
        }
        runs[done++] = (vmki_os_range){pages[at], step * page_size};
    }
    *count = done;
    return done != 0 || *until == limit ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_watch_arm(vmki_os_watch *watch, void *base, size_t size)
{
    (void)watch;
    return ResetWriteWatch(base, size) == 0 ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

void vmki_os_watch_close(vmki_os_watch *watch, void *base, size_t size)
{
    (void)watch;
    (void)base;
    (void)size;
}

void vmki_os_watch_forget(vmki_os_watch *watch)
{
    (void)watch;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

/* On three pages, of which the second one is written. */
static bool write_watch_works(size_t page_size)
{
    vmki_os_request request = {.size = 3 * page_size, .align = page_size, .watch = true};
    vmki_os_watch watch;
    vmki_os_range run = {0};
    size_t count = 0;
    void *base, *until;
    if (vmki_os_reserve(&request, &base) != VMK_OK)
        return false;
    bool works = vmki_os_commit(base, request.size) == VMK_OK &&
                 vmki_os_watch_open(&watch, VMK_WATCH_WRITE_WATCH, base, request.size, true) == VMK_OK &&
                 vmki_os_watch_arm(&watch, base, request.size) == VMK_OK;
    if (works) {
        *((volatile unsigned char *)base + page_size) = 1;
        works = vmki_os_watch_collect(&watch, base, request.size, &run, 1, &count, &until) == VMK_OK && count == 1 &&
                run.base == (unsigned char *)base + page_size && run.size == page_size;
    }
    vmki_os_release(base, request.size);
    return works;
}

void vmki_os_probe_watch(vmk_caps *caps)
{
    caps->watch |= 1u << VMK_WATCH_PROTECT; /* to be tried only by installing the handler */
    if (write_watch_works(caps->page_size))
        caps->watch |= 1u << VMK_WATCH_WRITE_WATCH;
}
