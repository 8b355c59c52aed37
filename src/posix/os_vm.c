/* SPDX-License-Identifier: MIT
 *
 * Memory, by mmap and its relatives.
 *
 * States as the kernel sees them
 *   reserved    private, anonymous, PROT_NONE, MAP_NORESERVE: never charged, under no overcommit mode
 *   committed   the same mapping made writable by mprotect; under strict overcommit that is where the charge is taken
 *
 * Commit is mprotect and nothing else: it can't lose the reservation as mmap(MAP_FIXED) can when it fails half-way, it
 * is idempotent, and it never clears what is live. Growing one committed run moves the border between two mappings and
 * makes no new one.
 *
 * Decommit protects first, so that whatever fails, fails while the contents are still there; then it drops the pages.
 * Where that would keep the charge (under strict overcommit the kernel returns it only when the mapping goes), would
 * not clear (emulators), or is refused (locked memory), reserved pages are mapped over the old ones. That is one atomic
 * step, and the one place with MAP_FIXED: the kernel unmaps before it maps, but what could fail in between for a
 * mapping without access is only the kernel's own allocation of a small object. Advice given to those pages, and their
 * name, are lost with them.
 *
 * Mappings that lie side by side and agree in their flags are merged by the kernel, ours with each other and with a
 * stranger's. So giving back a reservation can mean cutting a hole into a mapping, which makes one more of them and
 * fails at the limit on their number: see `owed`.
 */
#include "posix/os_service_private.h"

/* --- giving back ------------------------------------------------------------------------------------------------ */

/* Address space that the kernel would not take back for want of mappings. Each later release tries again. When even
 * these slots are full, the address space, and no memory, is lost to the process. */
#define OWED_SLOTS 32

enum { OWED_FREE, OWED_BUSY, OWED_HELD };

static struct {
    void *base; /* valid when held */
    size_t size;
    uint8_t state; /* only who has made it busy touches the rest */
} owed[OWED_SLOTS];

static bool owed_claim(size_t slot, uint8_t from)
{
    uint8_t expected = from;
    return VMKI_LOAD_RELAXED(&owed[slot].state) == from &&
           __atomic_compare_exchange_n(&owed[slot].state, &expected, OWED_BUSY, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static void owed_settle(size_t slot, uint8_t to)
{
    VMKI_STORE_RELEASE(&owed[slot].state, to);
}

static VMKI_COLD void owed_add(void *base, size_t size)
{
    if (VMKI_POSIX_ZAP != VMKI_POSIX_NO_ADVICE)
        (void)madvise(base, size, VMKI_POSIX_ZAP);
    for (size_t slot = 0; slot < OWED_SLOTS; slot++) {
        if (owed_claim(slot, OWED_FREE)) {
            owed[slot].base = base;
            owed[slot].size = size;
            owed_settle(slot, OWED_HELD);
            return;
        }
    }
}

static void owed_retry(void)
{
    for (size_t slot = 0; slot < OWED_SLOTS; slot++)
        if (owed_claim(slot, OWED_HELD))
            owed_settle(slot, munmap(owed[slot].base, owed[slot].size) == 0 ? OWED_FREE : OWED_HELD);
}

static void give_back(void *base, size_t size)
{
    static const char crime[] = "vmkit: a live reservation can't be unmapped\n";
    if (size == 0)
        return;
    if (munmap(base, size) != 0) {
        if (errno != ENOMEM) {
            vmki_os_write_error(crime, sizeof crime - 1);
            vmki_os_abort();
        }
        owed_add(base, size);
    }
}

void vmki_os_release(void *base, size_t size)
{
    give_back(base, size);
    owed_retry();
}

/* --- from errno to status --------------------------------------------------------------------------------------- */

static void *map_reserved(uintptr_t where, size_t size, int flags)
{
    return mmap((void *)where, size, VMKI_POSIX_RESERVED, MAP_PRIVATE | MAP_ANONYMOUS | VMKI_POSIX_NORESERVE | flags,
                -1, 0);
}

/* Was it the limit on mappings that made a call fail? Counting them means reading a line of /proc for each, and who
 * lacks address space or memory asks again and again. So try first whether two more can be made, as many as the most
 * demanding of our calls needs (a hole in the middle of one): that takes three pages. If it fails where address space
 * ran out to the last page, that was it, except for calls that need none. */
static bool mappings_exhausted(vmk_status shortage)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages = map_reserved(0, 3 * page_size, 0);
    bool room = pages != MAP_FAILED && mprotect(pages + page_size, page_size, PROT_READ) == 0;
    if (pages != MAP_FAILED)
        give_back(pages, 3 * page_size);
    else if (shortage == VMK_ERR_ADDRESS_SPACE && vmki_posix_address_space_exhausted(3 * page_size))
        return false;
    return !room && vmki_posix_mappings_exhausted();
}

/* What an error of the system means; `shortage` is what lack of memory means for this call. Leaves errno as it was.
 * Both shortages can be the limit on mappings: mmap and mprotect say ENOMEM then, madvise says EAGAIN (mm/madvise.c
 * turns the one into the other). */
VMKI_COLD vmk_status vmki_posix_status_of_error(vmk_status shortage)
{
    int error = errno;
    switch (error) {
    case ENOMEM:
    case EAGAIN: {
        bool mappings = mappings_exhausted(shortage);
        errno = error;
        return mappings ? VMK_ERR_MAPPINGS : error == EAGAIN ? VMK_ERR_COMMIT : shortage;
    }
    case EOVERFLOW:
        return shortage;
    case EEXIST:
        return VMK_ERR_TAKEN;
    default:
        return VMK_ERR_UNSUPPORTED;
    }
}

/* --- reserving -------------------------------------------------------------------------------------------------- */

static bool is_aligned(const void *got, size_t align)
{
    return vmki_is_aligned((uintptr_t)got, align);
}

/* Linux before 4.17 takes the flag for nothing, so the address is a hint; qemu-user does so too. Linux 4.17 and 4.18
 * look at the first page alone and replace what lies further up (fixed in 4.19 by "mm/mmap.c: don't clobber partially
 * overlapping VMA with MAP_FIXED_NOREPLACE"). So ask for two pages of which only the second is taken: a refusal is
 * right, anything else is one of the two. */
static bool try_noreplace(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pair = map_reserved(0, 2 * page_size, 0);
    if (pair == MAP_FAILED)
        return false;
    (void)munmap(pair, page_size);
    void *got = map_reserved((uintptr_t)pair, 2 * page_size, VMKI_POSIX_NOREPLACE);
    bool refused = got == MAP_FAILED;
    if (!refused && got != (void *)pair)
        give_back(got, 2 * page_size);
    if (got == (void *)pair) /* then our second page went into it */
        give_back(pair, 2 * page_size);
    else
        give_back(pair + page_size, page_size);
    return refused;
}

bool vmki_posix_noreplace_works(void)
{
    enum { UNKNOWN, WORKS, FAILS };
    static uint8_t known;
    if (VMKI_POSIX_NOREPLACE == 0)
        return false;
    uint8_t state = VMKI_LOAD_RELAXED(&known);
    if (state == UNKNOWN) {
        state = try_noreplace() ? WORKS : FAILS; /* who else is here finds the same */
        VMKI_STORE_RELAXED(&known, state);
    }
    return state == WORKS;
}

static bool map_exact(uintptr_t where, size_t size, int flags)
{
    void *got = map_reserved(where, size, flags | (vmki_posix_noreplace_works() ? VMKI_POSIX_NOREPLACE : 0));
    if (got == (void *)where)
        return true;
    if (got != MAP_FAILED) { /* a hint that was not followed: the answer that NOREPLACE would have given */
        give_back(got, size);
        errno = EEXIST;
    }
    return false;
}

bool vmki_posix_map_exact(uintptr_t where, size_t size)
{
    return map_exact(where, size, 0);
}

/* `flags`: of what kind of pages, as for mmap; 0: the usual. */
static vmk_status reserve_exact(const vmki_os_request *request, int flags, void **base)
{
    if (map_exact(request->hint, request->size, flags)) {
        *base = (void *)request->hint;
        return VMK_OK;
    }
    int error = errno;
    if (error == EAGAIN)
        return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    if (error != ENOMEM)
        return VMK_ERR_TAKEN; /* EEXIST; EPERM below vm.mmap_min_addr; EINVAL */
    /* Either there is no address space, or this address is beyond what there is. */
    void *elsewhere = map_reserved(0, request->size, flags);
    if (elsewhere != MAP_FAILED)
        give_back(elsewhere, request->size);
    errno = error;
    return elsewhere != MAP_FAILED ? VMK_ERR_TAKEN : vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
}

/* Reserve so much that an aligned piece must be inside, and give back both ends. */
static vmk_status reserve_trimmed(size_t size, size_t align, size_t unit, int flags, void **base)
{
    size_t whole_size;
    if (vmki_add_overflow(size, align - unit, &whole_size)) {
        errno = ENOMEM;
        return VMK_ERR_ADDRESS_SPACE;
    }
    unsigned char *whole = map_reserved(0, whole_size, flags);
    if (whole == MAP_FAILED)
        return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    size_t head = vmki_ceil((uintptr_t)whole, align) - (uintptr_t)whole;
    give_back(whole, head);
    give_back(whole + head + size, whole_size - head - size);
    *base = whole + head;
    return VMK_OK;
}

static vmk_status reserve_anywhere(const vmki_os_request *request, size_t unit, int flags, void **base)
{
    size_t size = request->size, align = request->align;
    uintptr_t hint = vmki_floor(request->hint, align);
    void *got = map_reserved(hint, size, flags);
    if (got == MAP_FAILED && hint != 0)
        got = map_reserved(0, size, flags);
    if (got == MAP_FAILED)
        return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    if (!is_aligned(got, align)) {
        /* Kernels fill the address space from the top: below what they have chosen there is room as a rule. That costs
         * less than trimming, and no more address space than was asked for, which a limit may not have to spare. */
        give_back(got, size);
        hint = vmki_floor((uintptr_t)got, align);
        got = map_reserved(hint, size, flags);
        if (got != MAP_FAILED && !is_aligned(got, align)) {
            give_back(got, size);
            got = MAP_FAILED;
        }
        if (got == MAP_FAILED)
            return reserve_trimmed(size, align, unit, flags, base);
    }
    *base = got;
    return VMK_OK;
}

static vmk_status reserve(const vmki_os_request *request, size_t unit, int flags, void **base)
{
    vmk_status status =
        request->exact ? reserve_exact(request, flags, base) : reserve_anywhere(request, unit, flags, base);
    if (status == VMK_OK && request->node != 0)
        (void)vmki_posix_node_prefer(*base, request->size, request->node - 1);
    return status;
}

vmk_status vmki_os_reserve(const vmki_os_request *request, void **base)
{
    return reserve(request, (size_t)sysconf(_SC_PAGESIZE), 0, base);
}

/* --- committing and decommitting -------------------------------------------------------------------------------- */

vmk_status vmki_os_commit(void *base, size_t size)
{
    return mprotect(base, size, PROT_READ | PROT_WRITE) == 0 ? VMK_OK : vmki_posix_status_of_error(VMK_ERR_COMMIT);
}

/* User-mode emulators have treated MADV_DONTNEED as a no-op. */
static bool zap_clears(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    volatile unsigned char *page = map_reserved(0, page_size, 0);
    if (page == MAP_FAILED)
        return false;
    bool clears = false;
    if (mprotect((void *)page, page_size, PROT_READ | PROT_WRITE) == 0) {
        *page = 1;
        clears = madvise((void *)page, page_size, VMKI_POSIX_ZAP) == 0 && *page == 0;
    }
    give_back((void *)page, page_size);
    return clears;
}

static uint8_t decommit_method; /* vmki_posix_decommit */

static VMKI_COLD vmki_posix_decommit decommit_choose(void)
{
    if (VMKI_POSIX_ZAP == VMKI_POSIX_NO_ADVICE || vmki_posix_overcommit_under("") == VMK_OVERCOMMIT_NEVER)
        return VMKI_POSIX_DECOMMIT_REMAP;
    return zap_clears() ? VMKI_POSIX_DECOMMIT_ZAP : VMKI_POSIX_DECOMMIT_REMAP;
}

vmki_posix_decommit vmki_posix_decommit_method(void)
{
    vmki_posix_decommit method = (vmki_posix_decommit)VMKI_LOAD_RELAXED(&decommit_method);
    if (VMKI_UNLIKELY(method == VMKI_POSIX_DECOMMIT_UNDECIDED)) {
        method = decommit_choose();
        vmki_posix_decommit_force(method);
    }
    return method;
}

void vmki_posix_decommit_force(vmki_posix_decommit method)
{
    VMKI_STORE_RELAXED(&decommit_method, (uint8_t)method);
}

/* Remapping is also what helps when zapping is refused: for locked memory (EINVAL), and where mprotect has got through
 * some mappings of the range and stands before one that it may not split; mapping over the whole needs fewer. */
vmk_status vmki_os_decommit(void *base, size_t size)
{
    bool zap = vmki_posix_decommit_method() == VMKI_POSIX_DECOMMIT_ZAP;
    if (zap && mprotect(base, size, PROT_NONE) == 0 && madvise(base, size, VMKI_POSIX_ZAP) == 0)
        return VMK_OK;
    if (map_reserved((uintptr_t)base, size, MAP_FIXED) == base)
        return VMK_OK;
    int error = errno;
    if (zap) /* what was accessible shall be so again; which pages were only reserved is not known any more */
        (void)mprotect(base, size, PROT_READ | PROT_WRITE);
    errno = error;
    return vmki_posix_status_of_error(VMK_ERR_COMMIT);
}

/* --- explicit huge pages ---------------------------------------------------------------------------------------- */

/* They come from a pool. Nothing of it is set aside for the reservation (MAP_NORESERVE), and a touch that finds it
 * empty ends the program (SIGBUS): so a commit has all of them put in place by the one call that answers instead, and
 * without that call (before Linux 5.14) there are none. */
static int huge_flags(size_t huge)
{
    return vmki_posix_huge_flags(vmki_highest_bit(huge));
}

vmk_status vmki_os_reserve_huge(const vmki_os_request *request, size_t huge, void **base, bool *committed)
{
    int flags = huge_flags(huge);
    if (flags == 0 || !vmki_posix_prefault_works())
        return VMK_ERR_UNSUPPORTED;
    if (request->exact) { /* so that what is refused for its kind is not taken for a place that is taken */
        void *elsewhere = map_reserved(0, huge, flags);
        if (elsewhere == MAP_FAILED)
            return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
        give_back(elsewhere, huge);
    }
    *committed = false;
    return reserve(request, huge, flags, base);
}

/* Before Linux 5.18 their pages can't be dropped: then the mapping is made anew. */
vmk_status vmki_os_decommit_huge(void *base, size_t size, size_t huge)
{
    if (mprotect(base, size, PROT_NONE) == 0 && madvise(base, size, VMKI_POSIX_ZAP) == 0)
        return VMK_OK;
    if (map_reserved((uintptr_t)base, size, MAP_FIXED | huge_flags(huge)) == base)
        return VMK_OK;
    int error = errno;
    (void)mprotect(base, size, PROT_READ | PROT_WRITE);
    errno = error;
    return vmki_posix_status_of_error(VMK_ERR_COMMIT);
}

vmk_status vmki_os_commit_huge(void *base, size_t size, size_t huge)
{
    if (mprotect(base, size, PROT_READ | PROT_WRITE) == 0) {
        if (vmki_os_prefault(base, size) == VMK_OK)
            return VMK_OK;
        errno = ENOMEM; /* the kernel's own word is EFAULT, for what a touch would end in */
    }
    int error = errno;
    (void)vmki_os_decommit_huge(base, size, huge);
    errno = error;
    return vmki_posix_status_of_error(VMK_ERR_COMMIT);
}

/* --- pages that stay committed ---------------------------------------------------------------------------------- */

static vmk_status advise(void *base, size_t size, int advice)
{
    if (advice == VMKI_POSIX_NO_ADVICE)
        return VMK_ERR_UNSUPPORTED;
    return madvise(base, size, advice) == 0 ? VMK_OK : vmki_posix_status_of_error(VMK_ERR_COMMIT);
}

vmk_status vmki_os_discard(void *base, size_t size)
{
    vmk_status status = advise(base, size, VMKI_POSIX_DISCARD);
    if (status != VMK_OK && VMKI_POSIX_DISCARD_ELSE != VMKI_POSIX_NO_ADVICE)
        status = advise(base, size, VMKI_POSIX_DISCARD_ELSE);
    return status;
}

void vmki_os_reuse(void *base, size_t size)
{
    if (VMKI_POSIX_REUSE != VMKI_POSIX_NO_ADVICE)
        (void)madvise(base, size, VMKI_POSIX_REUSE);
}

vmk_status vmki_os_protect(void *base, size_t size, vmk_access access)
{
    int protection = access == VMK_ACCESS_NONE   ? PROT_NONE
                     : access == VMK_ACCESS_READ ? PROT_READ
                                                 : PROT_READ | PROT_WRITE;
    return mprotect(base, size, protection) == 0 ? VMK_OK : vmki_posix_status_of_error(VMK_ERR_COMMIT);
}

static const int advices[VMK_ADVICES] = {
    [VMK_ADVICE_HUGE] = VMKI_POSIX_HUGE,
    [VMK_ADVICE_NO_HUGE] = VMKI_POSIX_NO_HUGE,
    [VMK_ADVICE_COLLAPSE] = VMKI_POSIX_COLLAPSE,
    [VMK_ADVICE_COLD] = VMKI_POSIX_COLD,
    [VMK_ADVICE_PAGE_OUT] = VMKI_POSIX_PAGE_OUT,
    [VMK_ADVICE_NO_DUMP] = VMKI_POSIX_NO_DUMP,
    [VMK_ADVICE_DUMP] = VMKI_POSIX_DUMP,
    [VMK_ADVICE_NO_FORK] = VMKI_POSIX_NO_FORK,
    [VMK_ADVICE_FORK] = VMKI_POSIX_FORK,
    [VMK_ADVICE_WIPE_ON_FORK] = VMKI_POSIX_WIPE_ON_FORK,
    [VMK_ADVICE_KEEP_ON_FORK] = VMKI_POSIX_KEEP_ON_FORK,
    [VMK_ADVICE_SEQUENTIAL] = MADV_SEQUENTIAL,
    [VMK_ADVICE_RANDOM] = MADV_RANDOM,
    [VMK_ADVICE_NORMAL] = MADV_NORMAL,
    [VMK_ADVICE_WILL_NEED] = MADV_WILLNEED,
};

vmk_status vmki_os_advise(void *base, size_t size, vmk_advice advice)
{
    return advise(base, size, advices[advice]);
}

/* Of no bytes: Linux looks at the advice first, and then has nothing to do. */
bool vmki_posix_advice_known(vmk_advice advice)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    return advices[advice] != VMKI_POSIX_NO_ADVICE &&
           madvise((void *)vmki_floor((uintptr_t)&advices, page_size), 0, advices[advice]) == 0;
}

void vmki_os_name(void *base, size_t size, const char *name)
{
    vmki_posix_name(base, size, name);
}

/* Without MREMAP_FIXED: with it the kernel first unmaps what is there, and may then fail. The guard behind keeps the
 * mapping from growing in place into it, so what is got is another place, with room for a guard of its own; if that
 * can't be made one for lack of a mapping, it stays memory that nobody uses. */
vmk_status vmki_os_move(void **base, size_t size, size_t new_size, size_t guard)
{
#if defined(MREMAP_MAYMOVE)
    unsigned char *old = *base;
    unsigned char *moved = mremap(old, size, new_size + guard, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED)
        return vmki_posix_status_of_error(VMK_ERR_COMMIT);
    give_back(old + size, guard);
    if (guard != 0)
        (void)mprotect(moved + new_size, guard, PROT_NONE);
    *base = moved;
    return VMK_OK;
#else
    (void)base, (void)size, (void)new_size, (void)guard;
    return VMK_ERR_UNSUPPORTED;
#endif
}
