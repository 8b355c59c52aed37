/* SPDX-License-Identifier: MIT
 *
 * Memory, by VirtualAlloc. Windows has the states of vmkit.h by itself: MEM_RESERVE, MEM_COMMIT and MEM_DECOMMIT are
 * its transitions, a commit of what is committed keeps the contents, and what is decommitted comes back as zero. So
 * most of this file is about the answers: what an aligned reservation takes, and what the error codes mean.
 *
 * The rules behind the shape of the contract: a call can't span two reservations (error 487); a reservation is released
 * whole, by its base; and size 0 with MEM_DECOMMIT at a base means all of the reservation, which is why the contract
 * never passes 0.
 */
#include "os_private.h"

#include "common/base/os_service.h"

/* --- functions that are newer than Windows 7 -------------------------------------------------------------------- */

/* What VirtualAlloc2 takes, named anew because headers before MinGW-w64 8 and the SDK of Windows 10 lack it.
 * MEM_ADDRESS_REQUIREMENTS and MEM_EXTENDED_PARAMETER in winnt.h */
typedef struct address_requirements {
    void *lowest;
    void *highest;
    size_t alignment;
} address_requirements;

typedef struct extended_parameter {
    uint64_t type; /* 8 bits of it, the others 0 */
    union {
        uint64_t number; /* as wide in a 32-bit program too */
        void *pointer;
    } value;
} extended_parameter;

_Static_assert(sizeof(extended_parameter) == 16, "the system's layout, 32-bit too");

enum { PARAMETER_ADDRESS_REQUIREMENTS = 1 }; /* MemExtendedParameterAddressRequirements */

typedef void *(WINAPI *virtual_alloc2)(HANDLE, void *, size_t, ULONG, ULONG, extended_parameter *, ULONG);
typedef DWORD(WINAPI *discard_virtual_memory)(void *, size_t);

static vmki_win32_lookup alloc2_lookup;
static vmki_win32_lookup discard_lookup;

/* --- what a refusal means --------------------------------------------------------------------------------------- */

/* Windows knows no limit on the number of mappings. Wine's are the host's, and Linux limits them (vm.max_map_count):
 * Wine then answers 5 to a commit or a change of protection, 8 to a decommit and 87 to any reservation, however small.
 * None of these tells it from a lack of memory: 5 is also Wine's answer to a commit over RLIMIT_DATA. So try what needs
 * mappings but no memory: in a granule of its own, one page between two others, for reading only, which RLIMIT_DATA
 * doesn't count. (A host's RLIMIT_AS that is used up to the last granule is taken for this limit too.) */
static bool mappings_are_used_up(void)
{
    size_t page;
    size_t unit;
    vmki_os_page_facts(&page, &unit);
    unsigned char *scratch = VirtualAlloc(NULL, unit, MEM_RESERVE, PAGE_NOACCESS);
    if (scratch == NULL)
        return GetLastError() == ERROR_INVALID_PARAMETER;
    bool refused =
        VirtualAlloc(scratch + page, page, MEM_COMMIT, PAGE_READONLY) == NULL && GetLastError() == ERROR_ACCESS_DENIED;
    VirtualFree(scratch, 0, MEM_RELEASE);
    return refused;
}

/* The status for a commit, a decommit or a change of protection that was just refused. On Windows all of them mean that
 * the system can't promise the memory, or the memory for its own tables:
 *
 *   ERROR_COMMITMENT_LIMIT     1455   the system's commit limit, or a job's
 *   ERROR_COMMITMENT_MINIMUM    635   the same, while the paging file is about to grow
 *   ERROR_NOT_ENOUGH_QUOTA     1816   the process's quota
 *   ERROR_PAGEFILE_QUOTA       1454   the same, older
 *   ERROR_NO_SYSTEM_RESOURCES  1450   the system's own pools
 *   ERROR_NOT_ENOUGH_MEMORY       8   likewise; from Wine, to a decommit: too many mappings
 *   ERROR_ACCESS_DENIED           5   Wine, where the host's mprotect fails, for either reason
 */
static vmk_status refused_memory(void)
{
    DWORD code = GetLastError();
    vmk_status status = VMK_ERR_COMMIT;
    if ((code == ERROR_ACCESS_DENIED || code == ERROR_NOT_ENOUGH_MEMORY) && mappings_are_used_up())
        status = VMK_ERR_MAPPINGS;
    SetLastError(code);
    return status;
}

/* The status for a reservation that was just refused:
 *
 *   ERROR_INVALID_ADDRESS      487   something else is there
 *   ERROR_INVALID_PARAMETER     87   larger than the address space, or the address lies outside it; from Wine, to
 *                                    everything when there are too many mappings
 *   ERROR_NOT_ENOUGH_MEMORY      8   no gap is large enough
 *   ERROR_COMMITMENT_LIMIT    1455   before Windows 8.1, the page tables of a huge reservation are charged
 *                                    (PartitionAlloc's comments on its pools)
 */
static vmk_status refused_space(bool exact)
{
    DWORD code = GetLastError();
    vmk_status status = VMK_ERR_ADDRESS_SPACE;
    if (exact && (code == ERROR_INVALID_ADDRESS || code == ERROR_INVALID_PARAMETER))
        status = VMK_ERR_TAKEN;
    if (code == ERROR_INVALID_PARAMETER && mappings_are_used_up())
        status = VMK_ERR_MAPPINGS;
    SetLastError(code);
    return status;
}

/* --- reserve, release ------------------------------------------------------------------------------------------- */

/* What is asked for: the usual, with or without MEM_WRITE_WATCH, which no later call can add, or large pages; and from
 * which node. */
typedef struct kind {
    DWORD type;
    DWORD protection;
    unsigned node; /* n + 1; 0: any */
} kind;

/* A node is a wish: one that isn't there is forgotten. It can't be had later, with the commit. */
static void *reserve_at_hint(void *hint, size_t size, const kind *how)
{
    void *base = NULL;
    if (how->node != 0)
        base = VirtualAllocExNuma(GetCurrentProcess(), hint, size, how->type, how->protection, how->node - 1);
    if (base == NULL && (how->node == 0 || GetLastError() == ERROR_INVALID_PARAMETER))
        base = VirtualAlloc(hint, size, how->type, how->protection);
    return base;
}

static void *reserve_anywhere(size_t size, const kind *how)
{
    return reserve_at_hint(NULL, size, how);
}

/* At the address or not at all. Windows rounds an address down to the granularity without a word: to be compared. */
static void *reserve_at(uintptr_t address, size_t size, const kind *how)
{
    void *base = reserve_at_hint((void *)address, size, how);
    if (base != NULL && (uintptr_t)base != address) {
        VirtualFree(base, 0, MEM_RELEASE);
        SetLastError(ERROR_INVALID_ADDRESS);
        base = NULL;
    }
    return base;
}

void *vmki_os_reserve_by_requirement(size_t size, size_t align, bool *refused)
{
    *refused = false;
    virtual_alloc2 alloc2 = (virtual_alloc2)vmki_win32_look_up(&alloc2_lookup, "VirtualAlloc2");
    if (alloc2 == NULL)
        return NULL;
    address_requirements requirements = {.alignment = align};
    extended_parameter parameter = {.type = PARAMETER_ADDRESS_REQUIREMENTS};
    parameter.value.pointer = &requirements;
    void *base = alloc2(GetCurrentProcess(), NULL, size, MEM_RESERVE, PAGE_NOACCESS, &parameter, 1);
    if (base == NULL) {
        /* 87 may be about the size or about the alignment: let plain requests find out. */
        *refused = GetLastError() != ERROR_INVALID_PARAMETER;
    } else if (!vmki_is_aligned((uintptr_t)base, align)) {
        VirtualFree(base, 0, MEM_RELEASE); /* early Wine took requirements and did as it liked */
        base = NULL;
    }
    return base;
}

/* Since a reservation can't be trimmed: reserve enough to have an aligned place in it, give all of that back, and
 * reserve the place. Another thread may take it between the two, hence the tries, which are bounded because there are
 * patterns of two threads that chase each other. */
static void *reserve_by_search(size_t size, size_t align, size_t unit, const kind *how)
{
    enum { TRIES = 64 };
    static const kind usual = {MEM_RESERVE, PAGE_NOACCESS, 0};
    size_t wide;
    if (vmki_add_overflow(size, align - unit, &wide)) {
        SetLastError(ERROR_NOT_ENOUGH_MEMORY);
        return NULL;
    }
    void *base = NULL;
    for (unsigned i = 0; i < TRIES && base == NULL; i++) {
        void *found = reserve_anywhere(wide, &usual);
        if (found == NULL)
            return NULL;
        VirtualFree(found, 0, MEM_RELEASE);
        base = reserve_at(vmki_ceil((uintptr_t)found, align), size, how);
        if (base == NULL && GetLastError() != ERROR_INVALID_ADDRESS)
            return NULL;
    }
    return base;
}

static void *reserve_aligned(size_t size, size_t align, const kind *how)
{
    size_t page;
    size_t unit;
    vmki_os_page_facts(&page, &unit);
    if (align <= unit)
        return reserve_anywhere(size, how);
    bool refused = false;
    void *base =
        how->node == 0 && how->type == MEM_RESERVE ? vmki_os_reserve_by_requirement(size, align, &refused) : NULL;
    if (base == NULL && !refused)
        base = reserve_by_search(size, align, unit, how);
    return base;
}

vmk_status vmki_os_reserve(const vmki_os_request *request, void **base)
{
    const kind how = {MEM_RESERVE | (request->watch ? MEM_WRITE_WATCH : 0), PAGE_NOACCESS, request->node};
    void *got = NULL;
    uintptr_t hint = vmki_floor(request->hint, request->align);
    if (hint != 0)
        got = reserve_at(hint, request->size, &how);
    if (got == NULL && !request->exact)
        got = reserve_aligned(request->size, request->align, &how);
    if (got == NULL)
        return refused_space(request->exact);
    *base = got;
    return VMK_OK;
}

void vmki_os_release(void *base, size_t size)
{
    static const char message[] = "vmkit: VirtualFree refuses to release a live reservation\n";
    vmki_win32_reports_forget(base, size);
    if (!VirtualFree(base, 0, MEM_RELEASE)) { /* 0: whole or not at all */
        vmki_os_write_error(message, sizeof(message) - 1);
        vmki_os_abort();
    }
}

/* --- within a reservation --------------------------------------------------------------------------------------- */

vmk_status vmki_os_commit(void *base, size_t size)
{
    return VirtualAlloc(base, size, MEM_COMMIT, PAGE_READWRITE) != NULL ? VMK_OK : refused_memory();
}

/* Fails where a piece is to be cut out of a mapping and the system lacks what that takes; contents then stay. (Wine on
 * a host whose pages are larger than 4 KiB keeps the contents of host pages that the range covers in part, and they
 * come back with the next commit. No remedy here: Wine's page size says nothing of it.) */
vmk_status vmki_os_decommit(void *base, size_t size)
{
    return VirtualFree(base, size, MEM_DECOMMIT) ? VMK_OK : refused_memory();
}

/* DiscardVirtualMemory (Windows 8.1) takes the pages out of the working set at once, MEM_RESET leaves that to the day
 * when memory is short (jemalloc #255: Firefox never shrank). The former is broken in the first release of Windows 10
 * (PartitionAlloc falls back likewise) and missing from Wine, whose MEM_RESET drops the contents at once. Either leaves
 * the contents alone where it fails: for locked memory, for example. */
vmk_status vmki_os_discard(void *base, size_t size)
{
    discard_virtual_memory discard =
        (discard_virtual_memory)vmki_win32_look_up(&discard_lookup, "DiscardVirtualMemory");
    if (discard != NULL && discard(base, size) == ERROR_SUCCESS)
        return VMK_OK;
    /* The protection must be a valid one and is ignored. */
    return VirtualAlloc(base, size, MEM_RESET, PAGE_READWRITE) != NULL ? VMK_OK : VMK_ERR_UNSUPPORTED;
}

/* Discarded pages are the process's again when it touches them. (MEM_RESET_UNDO asks for contents back, which nobody
 * wants here; Wine has no such thing.) */
void vmki_os_reuse(void *base, size_t size)
{
    (void)base;
    (void)size;
}

vmk_status vmki_os_protect(void *base, size_t size, vmk_access access)
{
    DWORD protection = PAGE_NOACCESS;
    if (access == VMK_ACCESS_READ)
        protection = PAGE_READONLY;
    else if (access == VMK_ACCESS_READ_WRITE)
        protection = PAGE_READWRITE;
    DWORD before;
    return VirtualProtect(base, size, protection, &before) ? VMK_OK : refused_memory();
}

/* --- large pages ------------------------------------------------------------------------------------------------ */

/* They exist only as memory that is committed when it is reserved, locked, and a privilege to have, which the program
 * must hold and have enabled (1314 otherwise); Wine refuses them as an invalid parameter. All other refusals are of
 * so much memory in one piece: physical memory gets scattered with time. */
static vmk_status refused_large(bool exact)
{
    DWORD code = GetLastError();
    if (code == ERROR_PRIVILEGE_NOT_HELD || code == ERROR_INVALID_PARAMETER)
        return VMK_ERR_UNSUPPORTED;
    return exact && code == ERROR_INVALID_ADDRESS ? VMK_ERR_TAKEN : VMK_ERR_COMMIT;
}

vmk_status vmki_os_reserve_huge(const vmki_os_request *request, size_t huge, void **base, bool *committed)
{
    const kind how = {MEM_RESERVE | MEM_COMMIT | MEM_LARGE_PAGES, PAGE_READWRITE, request->node};
    uintptr_t hint = vmki_floor(request->hint, request->align);
    void *got = NULL;
    size_t page, granularity;
    vmki_os_page_facts(&page, &granularity);
    if (huge != GetLargePageMinimum()) {
        SetLastError(ERROR_NOT_SUPPORTED);
        return VMK_ERR_UNSUPPORTED;
    }
    if (hint != 0)
        got = reserve_at(hint, request->size, &how);
    if (got == NULL && !request->exact)
        got = request->align == huge ? reserve_anywhere(request->size, &how)
                                     : reserve_by_search(request->size, request->align, granularity, &how);
    if (got == NULL)
        return refused_large(request->exact);
    *base = got;
    *committed = true;
    return VMK_OK;
}

/* It is committed as a whole, and stays so. */
vmk_status vmki_os_commit_huge(void *base, size_t size, size_t huge)
{
    (void)base;
    (void)size;
    (void)huge;
    return VMK_OK;
}

vmk_status vmki_os_decommit_huge(void *base, size_t size, size_t huge)
{
    (void)base;
    (void)size;
    (void)huge;
    SetLastError(ERROR_NOT_SUPPORTED);
    return VMK_ERR_UNSUPPORTED;
}

/* --- names, moves ----------------------------------------------------------------------------------------------- */

/* Nothing here has names but sections. */
void vmki_os_name(void *base, size_t size, const char *name)
{
    (void)base;
    (void)size;
    (void)name;
}

/* Pages stay where they are. */
vmk_status vmki_os_move(void **base, size_t size, size_t new_size, size_t guard)
{
    (void)base;
    (void)size;
    (void)new_size;
    (void)guard;
    SetLastError(ERROR_NOT_SUPPORTED);
    return VMK_ERR_UNSUPPORTED;
}
