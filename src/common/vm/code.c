/* SPDX-License-Identifier: MIT
 *
 * Executable memory. No page is ever writable and executable at one address: either its protection is flipped between
 * the two, or it is mapped twice, at one address for each.
 *
 * What state a page is in is not kept. It is not needed for undoing: a change of protection goes from the lowest page
 * to the highest, so changing back goes over all that was changed before it can fail in the same place.
 */
#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/vm.h"

#define SEAL_LIVE ((uintptr_t)0x766d6b43u) /* "vmkC" */
#define SEAL_DONE ((uintptr_t)0x646f6e65u) /* "done" */

static void require_live(const vmk_code *code, const char *not_live, const char *done)
{
    if (VMKI_UNLIKELY(code->seal != SEAL_LIVE))
        vmki_misuse(code->seal == SEAL_DONE ? done : not_live, code);
}

#define REQUIRE_LIVE(code, function)                                                                                   \
    require_live(code, function ": not code memory", function ": code memory was done with before")

/* --- making ----------------------------------------------------------------------------------------------------- */

/* May pages that were written become executable here? Systems that forbid it say so at that very step, so it is done
 * with the first page, and undone. */
static vmk_status try_flipping(void *page)
{
    static const vmki_os_code_access steps[] = {VMKI_OS_CODE_WRITE, VMKI_OS_CODE_EXECUTE, VMKI_OS_CODE_NONE};
    vmk_status status = VMK_OK;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == VMK_OK; i++)
        status = vmki_os_code_access_set(page, vmk_page_size(), steps[i]);
    return status;
}

static vmk_status make(vmk_code *code, size_t size, bool twice)
{
    void *run, *write;
    vmk_status status = vmki_os_code_map(size, twice, &run, &write);
    if (status != VMK_OK)
        return status;
    if (!twice)
        status = try_flipping(run);
    if (status != VMK_OK) {
        vmki_os_error reason = vmki_os_error_get();
        vmki_os_code_unmap(size, twice, run, write);
        vmki_os_error_set(reason);
        return status;
    }
    *code = (vmk_code){.base = run, .write = write, .size = size, .twice = twice, .seal = SEAL_LIVE};
    return VMK_OK;
}

vmk_status vmk_code_init(vmk_code *code, size_t size, unsigned flags)
{
    size_t rounded = vmk_page_ceil(size);
    if (rounded == 0 || (flags != 0 && flags != VMK_CODE_FLIP && flags != VMK_CODE_TWICE))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = make(code, rounded, flags != VMK_CODE_FLIP);
    if (status == VMK_ERR_UNSUPPORTED && flags == 0)
        status = make(code, rounded, false);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

void vmk_code_fini(vmk_code *code)
{
    REQUIRE_LIVE(code, "vmk_code_fini");
    vmki_os_error before = vmki_os_error_get();
    vmki_os_code_unmap(code->size, code->twice, (void *)(uintptr_t)code->base, code->write);
    code->seal = SEAL_DONE;
    vmki_os_error_set(before);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

/* Set the access of all pages that the range touches, or leave them with the one that they had; mapped twice, pages
 * that others have open must stay so, and nothing is taken back. */
static vmk_status change(const vmk_code *code, size_t offset, size_t size, vmki_os_code_access access,
                         vmki_os_code_access back)
{
    size_t from = vmki_floor(offset, vmk_page_size());
    size_t length = vmki_ceil(offset + size, vmk_page_size()) - from;
    vmk_status status = vmki_os_code_access_set(code->write + from, length, access);
    if (status != VMK_OK && !code->twice) {
        vmki_os_error reason = vmki_os_error_get();
        VMKI_IGNORE(vmki_os_code_access_set(code->write + from, length, back)); /* fails where the other has */
        vmki_os_error_set(reason);
    }
    return status;
}

vmk_status vmk_code_begin(vmk_code *code, size_t offset, size_t size)
{
    REQUIRE_LIVE(code, "vmk_code_begin");
    if (!vmki_range_within(offset, size, code->size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = change(code, offset, size, VMKI_OS_CODE_WRITE, VMKI_OS_CODE_EXECUTE);
    if (status == VMK_OK)
        vmki_os_error_set(before);
    return status;
}

vmk_status vmk_code_end(vmk_code *code, size_t offset, size_t size)
{
    REQUIRE_LIVE(code, "vmk_code_end");
    if (!vmki_range_within(offset, size, code->size))
        return VMK_ERR_ARGUMENT;
    if (size == 0)
        return VMK_OK;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = VMK_OK;
    if (!code->twice)
        status = change(code, offset, size, VMKI_OS_CODE_EXECUTE, VMKI_OS_CODE_WRITE);
    if (status != VMK_OK)
        return status;
    vmki_os_code_flush((void *)((uintptr_t)code->base + offset), size);
    vmki_os_error_set(before);
    return VMK_OK;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_code_probe(vmk_caps *caps)
{
    void *run, *write;
    if (vmki_os_code_map(caps->page_size, false, &run, &write) == VMK_OK) {
        if (try_flipping(run) == VMK_OK)
            caps->features |= VMK_CAP_CODE;
        vmki_os_code_unmap(caps->page_size, false, run, write);
    }
    if (vmki_os_code_map(caps->page_size, true, &run, &write) == VMK_OK) {
        caps->features |= VMK_CAP_CODE_TWICE;
        vmki_os_code_unmap(caps->page_size, true, run, write);
    }
}
