/* SPDX-License-Identifier: MIT
 *
 * The model OS, write-watch: what the system keeps account of. Pages that are armed have a copy, and have been written
 * if they differ from it; pages that are not armed (committed anew, or never armed) count as written. Writes of what
 * was there already are not seen.
 *
 * There are no faults, so the kind PROTECT can't be had.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "model/model_private.h"

static bool armed[MODEL_MAX_PAGES];
static unsigned char *copies; /* as large as the address space, and touched where pages are armed */

enum { STATE_BASE, STATE_LIMIT };

void model_watch_forget(size_t first, size_t count)
{
    memset(armed + first, 0, count * sizeof *armed);
}

static size_t index_of(const void *address)
{
    return (size_t)((uintptr_t)address - (uintptr_t)model.base) / model.page_size;
}

static void arm(size_t index)
{
    size_t at = index * model.page_size;
    memcpy(copies + at, model.base + at, model.page_size);
    armed[index] = true;
}

static bool is_written(size_t index)
{
    size_t at = index * model.page_size;
    return !armed[index] || memcmp(copies + at, model.base + at, model.page_size) != 0;
}

/* Inside what was opened, and committed? */
static bool check(const vmki_os_watch *watch, const void *base, size_t size)
{
    uintptr_t from = (uintptr_t)base;
    bool sound =
        from >= watch->state[STATE_BASE] && from + size <= watch->state[STATE_LIMIT] && model_all_committed(base, size);
    if (!sound)
        model_violate("watch", "not committed pages of what is watched", from - (uintptr_t)model.base);
    return sound;
}

vmk_status vmki_os_watch_open(vmki_os_watch *watch, vmk_watch_kind kind, void *base, size_t size, bool region)
{
    vmk_status status = VMK_ERR_UNSUPPORTED;
    model_lock();
    if (kind == VMK_WATCH_USERFAULT && region && model.rules.watch && !model_planned(&status)) {
        if (copies == NULL)
            copies = calloc(1, MODEL_MAX_ADDRESS_SPACE);
        status = copies != NULL ? VMK_OK : VMK_ERR_COMMIT;
        watch->state[STATE_BASE] = (uintptr_t)base;
        watch->state[STATE_LIMIT] = (uintptr_t)base + size;
        model_watch_forget(index_of(base), size / model.page_size);
    }
    model_unlock();
    return status;
}

vmk_status vmki_os_watch_collect(vmki_os_watch *watch, void *base, size_t size, vmki_os_range *runs, size_t capacity,
                                 size_t *count, void **until)
{
    vmk_status status = VMK_ERR_ARGUMENT;
    model_lock();
    if (check(watch, base, size) && !model_planned(&status)) {
        size_t at = index_of(base), limit = at + size / model.page_size, found = 0;
        bool in_run = false;
        for (; at < limit; at++) {
            bool written = is_written(at);
            if (written && !in_run && found == capacity)
                break;
            if (written && !in_run)
                runs[found++] = (vmki_os_range){model.base + at * model.page_size, 0};
            if (written) {
                runs[found - 1].size += model.page_size;
                arm(at);
            }
            in_run = written;
        }
        *count = found;
        *until = model.base + at * model.page_size;
        status = VMK_OK;
    }
    model_unlock();
    return status;
}

vmk_status vmki_os_watch_arm(vmki_os_watch *watch, void *base, size_t size)
{
    vmk_status status = VMK_ERR_ARGUMENT;
    model_lock();
    if (check(watch, base, size) && !model_planned(&status)) {
        for (size_t i = 0; i < size / model.page_size; i++)
            arm(index_of(base) + i);
        status = VMK_OK;
    }
    model_unlock();
    return status;
}

void vmki_os_watch_close(vmki_os_watch *watch, void *base, size_t size)
{
    model_lock();
    if (watch->state[STATE_BASE] != (uintptr_t)base || watch->state[STATE_LIMIT] != (uintptr_t)base + size)
        model_violate("watch", "closed with another range than it was opened with", 0);
    model_watch_forget(index_of(base), size / model.page_size);
    model_unlock();
}

void vmki_os_watch_forget(vmki_os_watch *watch)
{
    (void)watch;
}

vmk_status vmki_os_fault_handler(bool (*handler)(void *address))
{
    (void)handler;
    return VMK_ERR_UNSUPPORTED;
}

bool vmki_os_static_writable(const void *base, size_t size)
{
    (void)base;
    (void)size;
    return false;
}

vmk_status vmki_os_static_protect(void *base, size_t size, vmk_access access)
{
    (void)base;
    (void)size;
    (void)access;
    return VMK_ERR_UNSUPPORTED;
}

void vmki_os_probe_watch(vmk_caps *caps)
{
    model_lock();
    if (model.rules.watch)
        caps->watch |= 1u << VMK_WATCH_USERFAULT;
    model_unlock();
}
