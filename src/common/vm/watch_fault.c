/* SPDX-License-Identifier: MIT
 *
 * Write-watch by protection: pages are made read-only, a handler of faults makes the written ones writable again and
 * notes them.
 *
 * State of a page, in two bits
 *   ours, not dirty   protected by us, or about to be
 *   ours, dirty       writable, as a rule; to be reported and protected by the next collect
 *   not ours          not committed, or protected by the program: its faults are not ours
 *
 * Nothing is lost. The handler makes a page writable first and sets its bit then; a collect takes the bit first and
 * protects then. So a page is writable only if its bit is set, or was taken by a collect that is about to protect it
 * and to report it, or is about to be set by a handler that still runs; each is reported, by this collect or the next.
 * A handler that is overtaken by a collect (it has made the page writable, the collect protects it, then it sets the
 * bit) leaves a page that is dirty and protected. Hence a fault on a dirty page is answered by making it writable once
 * more: whoever can't tell why a page faults must not give up, and must not wait for another thread either, which may
 * be suspended.
 *
 * Locks. The handler (what is VMKI_IN_HANDLER) takes none. All else runs under the vm lock, so that no page is
 * protected that is being decommitted. A decommit in turn must not have a page made accessible again by a handler that
 * has looked at its bit before: handlers count themselves in while they work on a block, and who takes pages away
 * clears their bits and then waits for the blocks' handlers to be gone. The wait is bounded, for a debugger may have
 * stopped one: then the page may stay accessible although it isn't committed.
 *
 * Mappings. Each piece that is opened splits one mapping into three. As they become more, larger pieces are opened, and
 * in the end all that is committed around the page, which takes none.
 */
#include "common/vm/watch.h"

#define BLOCK ((size_t)1 << 16)

enum {
    SHARE_OF_MAPPINGS = 4, /* a quarter of what the process may have */
    MAPPINGS_OF_PIECE = 2,
    CALLS_AT_ONCE = 64, /* of the system, under one hold of the lock */
    PAGES_AT_ONCE = 1 << 16,
    WAITS = 100000, /* for handlers in other threads */
    FAULTS_IN_A_ROW = 1000,
    SLOTS = 32,
    SMALLEST_PAGE_BITS = 12,
    GHOSTS = 16,
    FAULTS_OF_A_GHOST = 16
};

/* What the handler writes to beside the records: in pages of its own as they are. */
typedef struct hub {
    size_t inside; /* handlers that may be reading records */
    size_t mappings;
    size_t budget;
    /* Faults on a page that was open already, or watched until a moment ago: how many in a row. */
    struct {
        uintptr_t at;
        size_t count;
    } repeated[SLOTS]; /* by the page's number */
    struct {
        uintptr_t base;
        uintptr_t limit;
    } ghosts[GHOSTS]; /* the last ranges that have ceased to be watched */
    size_t ghosts_count;
} hub;

static hub *shared; /* NULL until the first watch; then for good */
static size_t budget_forced;

/* --- pieces ----------------------------------------------------------------------------------------------------- */

VMKI_IN_HANDLER static vmk_status access_set(const vmki_watch *watch, size_t from, size_t limit, vmk_access access)
{
    void *base = (void *)vmki_watch_address(watch, from);
    size_t size = (limit - from) << watch->page_bits;
    return watch->region != NULL ? vmki_os_protect(base, size, access) : vmki_os_static_protect(base, size, access);
}

/* How large a piece to open: more as mappings are used up; SIZE_MAX: all that there is. */
VMKI_IN_HANDLER static size_t piece_size(void)
{
    size_t used = VMKI_LOAD(&shared->mappings), budget = VMKI_LOAD(&shared->budget);
    if (used >= budget || budget - used < MAPPINGS_OF_PIECE)
        return SIZE_MAX;
    if (used < budget / 2)
        return BLOCK;
    return used < budget / 4 * 3 ? BLOCK << 4 : BLOCK << 8;
}

/* The pages around `page` that are ours, without a gap, in the piece that it is in. */
VMKI_IN_HANDLER static void piece_around(const vmki_watch *watch, size_t page, size_t size, size_t *from, size_t *limit)
{
    size_t low = 0, high = vmki_watch_page(watch, watch->limit);
    if (size != SIZE_MAX) {
        size = vmki_max(size, (size_t)1 << watch->page_bits);
        uintptr_t start = vmki_floor(vmki_watch_address(watch, page), size);
        low = start > watch->base ? vmki_watch_page(watch, start) : 0;
        if (start < watch->limit && watch->limit - start > size)
            high = vmki_watch_page(watch, start + size);
    }
    *limit = vmki_bits_find(watch->ours, watch->ours, VMKI_BITS_NOT, page, high);
    while (page > low && vmki_bit(watch->ours, page - 1))
        page--;
    *from = page;
}

VMKI_IN_HANDLER static size_t *counter_of(vmki_watch *watch, size_t page)
{
    return &watch->busy[vmki_watch_address(watch, page) / BLOCK % VMKI_WATCH_COUNTERS];
}

/* A handler's work, counted in. False: not ours, or not to be had. */
VMKI_IN_HANDLER static bool piece_open(vmki_watch *watch, size_t page, size_t size)
{
    size_t *counter = size == BLOCK ? counter_of(watch, page) : &watch->busy_large;
    size_t from, limit;
    (void)VMKI_FETCH_ADD(counter, 1);
    bool opened = vmki_bit(watch->ours, page);
    if (opened) {
        bool fresh = !vmki_bit(watch->dirty, page);
        piece_around(watch, page, size, &from, &limit);
        opened = access_set(watch, from, limit, VMK_ACCESS_READ_WRITE) == VMK_OK;
        if (opened)
            vmki_bits_set(watch->dirty, from, limit);
        if (opened && fresh && size != SIZE_MAX) {
            (void)VMKI_FETCH_ADD(&watch->pieces, MAPPINGS_OF_PIECE);
            (void)VMKI_FETCH_ADD(&shared->mappings, MAPPINGS_OF_PIECE);
        }
    }
    (void)VMKI_FETCH_ADD(counter, (size_t)-1);
    return opened;
}

/* --- the handler ------------------------------------------------------------------------------------------------ */

/* May the write be tried again, as so many times in a row before? Who else has protected the page, or why it faults,
 * can't be known: but not for ever. */
VMKI_IN_HANDLER static bool try_again(uintptr_t address, size_t most)
{
    size_t slot = (address >> SMALLEST_PAGE_BITS) % SLOTS;
    if (VMKI_LOAD(&shared->repeated[slot].at) != address) {
        (void)VMKI_EXCHANGE(&shared->repeated[slot].at, address);
        (void)VMKI_EXCHANGE(&shared->repeated[slot].count, (size_t)0);
    }
    return VMKI_FETCH_ADD(&shared->repeated[slot].count, 1) < most;
}

/* A write that has faulted while its page was watched, and is heard of only now. */
VMKI_IN_HANDLER static bool is_ghost(uintptr_t address)
{
    for (size_t i = 0; i < GHOSTS; i++) {
        uintptr_t base = VMKI_LOAD(&shared->ghosts[i].base), limit = VMKI_LOAD(&shared->ghosts[i].limit);
        if (base <= address && address < limit)
            return try_again(address, FAULTS_OF_A_GHOST);
    }
    return false;
}

VMKI_IN_HANDLER static bool open_at(vmki_watch *watch, uintptr_t address)
{
    size_t page = vmki_watch_page(watch, address);
    if (!vmki_bit(watch->ours, page))
        return false; /* or not any more: see is_ghost */
    if (!vmki_bit(watch->dirty, page))
        (void)VMKI_EXCHANGE(&shared->repeated[(address >> SMALLEST_PAGE_BITS) % SLOTS].at, (uintptr_t)0);
    else if (!try_again(address, FAULTS_IN_A_ROW))
        return false;
    /* All that is committed around it is a mapping of its own already, or nearly: that needs none. */
    return piece_open(watch, page, piece_size()) || piece_open(watch, page, SIZE_MAX);
}

VMKI_IN_HANDLER static bool on_fault(void *where)
{
    uintptr_t address = (uintptr_t)where;
    if (VMKI_LOAD_ACQUIRE(&shared) == NULL)
        return false;
    (void)VMKI_FETCH_ADD(&shared->inside, 1);
    vmki_watch *watch = VMKI_LOAD_ACQUIRE(&vmki_watches);
    while (watch != NULL && (watch->kind != VMK_WATCH_PROTECT || address < watch->base || address >= watch->limit))
        watch = VMKI_LOAD_ACQUIRE(&watch->next);
    bool ours = (watch != NULL && open_at(watch, address)) || is_ghost(address);
    (void)VMKI_FETCH_ADD(&shared->inside, (size_t)-1);
    return ours;
}

VMKI_IN_HANDLER bool vmk_watch_fault(const void *address)
{
    vmki_os_error before = vmki_os_error_get();
    bool ours = on_fault((void *)(uintptr_t)address);
    vmki_os_error_set(before);
    return ours;
}

/* --- preparing -------------------------------------------------------------------------------------------------- */

static void budget_find(void)
{
    uint64_t most = vmki_vm_basics()->max_mappings;
    size_t budget = most == 0 ? SIZE_MAX : (size_t)vmki_min64(most / SHARE_OF_MAPPINGS, SIZE_MAX);
    (void)VMKI_EXCHANGE(&shared->budget, budget_forced != 0 ? budget_forced : budget);
}

void vmki_protect_budget_force(size_t mappings)
{
    budget_forced = mappings;
    if (shared != NULL)
        budget_find();
}

vmk_status vmki_protect_prepare(void)
{
    (void)vmki_vm_basics(); /* takes the lock */
    if (VMKI_LOAD_ACQUIRE(&shared) == NULL) {
        vmki_os_request request = {.size = vmki_ceil(sizeof(hub), vmk_page_size()), .align = vmk_granularity()};
        void *made;
        vmk_status status = vmki_os_reserve(&request, &made);
        if (status != VMK_OK)
            return status;
        status = vmki_os_commit(made, request.size);
        vmki_vm_lock();
        bool used = status == VMK_OK && shared == NULL;
        if (used) {
            VMKI_STORE_RELEASE(&shared, made);
            budget_find();
        }
        vmki_vm_unlock();
        if (!used)
            vmki_os_release(made, request.size);
        if (status != VMK_OK)
            return status;
    }
    return vmki_os_fault_handler(on_fault);
}

bool vmki_protect_reading(void)
{
    return shared != NULL && VMKI_LOAD(&shared->inside) != 0;
}

static void pieces_count(vmki_watch *watch, size_t pieces)
{
    size_t before = (size_t)VMKI_EXCHANGE(&watch->pieces, pieces);
    (void)VMKI_FETCH_ADD(&shared->mappings, pieces - before);
}

/* Make all of its pages writable; false if one can't be. */
static bool open_all(vmki_watch *watch)
{
    bool all = true;
    uintptr_t at = watch->base, run, run_limit;
    size_t to;
    for (; vmki_watch_run(watch, at, watch->limit, &run, &run_limit); at = run_limit) {
        size_t end = vmki_watch_page(watch, run_limit);
        for (size_t from = vmki_watch_page(watch, run); from < end; from = to) {
            from = vmki_bits_find(watch->ours, watch->ours, 0, from, end);
            to = vmki_bits_find(watch->ours, watch->ours, VMKI_BITS_NOT, from, end);
            if (from < end) {
                all = access_set(watch, from, to, VMK_ACCESS_READ_WRITE) == VMK_OK && all;
                vmki_bits_set(watch->dirty, from, to);
            }
        }
    }
    pieces_count(watch, 0);
    return all;
}

/* --- what happens to the pages ---------------------------------------------------------------------------------- */

static void wait_for(const size_t *counter, unsigned *patience)
{
    while (VMKI_LOAD(counter) != 0 && *patience != 0) {
        --*patience;
        vmki_os_yield();
    }
}

static void lose(vmki_watch *watch, size_t from, size_t limit)
{
    size_t blocks = vmki_min(((limit - from) << watch->page_bits) / BLOCK + 2, VMKI_WATCH_COUNTERS);
    size_t first = vmki_watch_address(watch, from) / BLOCK;
    unsigned patience = WAITS;
    vmki_bits_clear(watch->ours, from, limit);
    for (size_t i = 0; i < blocks; i++)
        wait_for(&watch->busy[(first + i) % VMKI_WATCH_COUNTERS], &patience);
    wait_for(&watch->busy_large, &patience);
    vmki_bits_clear(watch->dirty, from, limit);
}

/* If a page can't be made writable here, the handler will try it again. */
static void give_free(vmki_watch *watch, size_t from, size_t limit)
{
    size_t to;
    for (; from < limit; from = to) {
        from = vmki_bits_find(watch->ours, watch->ours, 0, from, limit);
        to = vmki_bits_find(watch->ours, watch->ours, VMKI_BITS_NOT, from, limit);
        if (from < limit)
            VMKI_IGNORE(access_set(watch, from, to, VMK_ACCESS_READ_WRITE));
        vmki_bits_set(watch->dirty, from, to);
    }
}

void vmki_protect_change(vmki_watch *watch, uintptr_t from, uintptr_t limit, vmki_change change)
{
    size_t first = vmki_watch_page(watch, from), end = vmki_watch_page(watch, limit);
    if (change == VMKI_CHANGE_COMMIT) {
        vmki_bits_set(watch->dirty, first, end);
        vmki_bits_set(watch->ours, first, end);
    } else if (change == VMKI_CHANGE_LOSE) {
        lose(watch, first, end);
    } else if (change == VMKI_CHANGE_WRITE) {
        give_free(watch, first, end);
    }
}

void vmki_protect_taint(vmki_watch *watch)
{
    size_t limit = vmki_watch_page(watch, watch->limit);
    for (size_t at = 0; at < limit; at += VMKI_WORD_BITS)
        if (VMKI_LOAD(&watch->ours[at / VMKI_WORD_BITS]) != 0)
            (void)VMKI_FETCH_OR(&watch->dirty[at / VMKI_WORD_BITS], VMKI_LOAD(&watch->ours[at / VMKI_WORD_BITS]));
}

void vmki_protect_child(void)
{
    if (shared != NULL)
        (void)VMKI_EXCHANGE(&shared->inside, (size_t)0);
    for (vmki_watch *watch = vmki_watches; watch != NULL; watch = watch->next) {
        for (size_t i = 0; i < VMKI_WATCH_COUNTERS; i++)
            watch->busy[i] = 0;
        watch->busy_large = 0;
    }
}

/* --- start and end ---------------------------------------------------------------------------------------------- */

static void ghost_add(const vmki_watch *watch)
{
    size_t slot = shared->ghosts_count++ % GHOSTS;
    (void)VMKI_EXCHANGE(&shared->ghosts[slot].limit, (uintptr_t)0);
    (void)VMKI_EXCHANGE(&shared->ghosts[slot].base, watch->base);
    (void)VMKI_EXCHANGE(&shared->ghosts[slot].limit, watch->limit);
}

/* Writes that have faulted before all was writable are heard of later: hence the ghost, before the bits go. */
bool vmki_protect_end(vmki_watch *watch)
{
    uintptr_t at = watch->base, run, limit;
    if (!open_all(watch))
        return false;
    ghost_add(watch);
    for (; vmki_watch_run(watch, at, watch->limit, &run, &limit); at = limit)
        lose(watch, vmki_watch_page(watch, run), vmki_watch_page(watch, limit));
    return true;
}

vmk_status vmki_protect_begin(vmki_watch *watch)
{
    uintptr_t at = watch->base, run, limit;
    for (; vmki_watch_run(watch, at, watch->limit, &run, &limit); at = limit) {
        size_t from = vmki_watch_page(watch, run), to = vmki_watch_page(watch, limit);
        vmki_bits_set(watch->ours, from, to);
        vmk_status status = access_set(watch, from, to, VMK_ACCESS_READ);
        if (status != VMK_OK) {
            vmki_os_error why = vmki_os_error_get();
            (void)vmki_protect_end(watch);
            vmki_os_error_set(why);
            return status;
        }
    }
    return VMK_OK;
}

/* --- collecting ------------------------------------------------------------------------------------------------- */

/* The borders between what is protected and what is not, now. Walks over all bits, so only when it matters. */
static void recount(vmki_watch *watch)
{
    size_t borders = 0, to;
    uintptr_t at = watch->base, run, run_limit;
    if (VMKI_LOAD(&shared->mappings) < VMKI_LOAD(&shared->budget) / 2)
        return;
    for (; vmki_watch_run(watch, at, watch->limit, &run, &run_limit); at = run_limit) {
        size_t end = vmki_watch_page(watch, run_limit);
        for (size_t from = vmki_watch_page(watch, run); from < end; from = to) {
            from = vmki_bits_find(watch->dirty, watch->ours, 0, from, end);
            to = vmki_bits_find(watch->dirty, watch->ours, VMKI_BITS_NOT, from, end);
            borders += from < end ? MAPPINGS_OF_PIECE : 0;
        }
    }
    pieces_count(watch, borders);
}

vmk_status vmki_protect_collect(vmki_watch *watch, vmki_watch_sink *sink, uintptr_t *at, uintptr_t limit, bool *full)
{
    uintptr_t run, run_limit;
    if (!vmki_watch_run(watch, *at, limit, &run, &run_limit)) {
        *at = limit;
        recount(watch);
        return VMK_OK;
    }
    size_t from = vmki_watch_page(watch, run);
    size_t end = vmki_min(vmki_watch_page(watch, run_limit), from + PAGES_AT_ONCE);
    for (unsigned calls = 0; calls < CALLS_AT_ONCE && from < end; calls++) {
        from = vmki_bits_find(watch->dirty, watch->ours, 0, from, end);
        size_t to = vmki_bits_find(watch->dirty, watch->ours, VMKI_BITS_NOT, from, end);
        uintptr_t address = vmki_watch_address(watch, from);
        *at = address;
        if (from == end)
            break;
        if (sink->count == sink->capacity && !vmki_watch_adjoins(sink, address)) {
            *full = true;
            return VMK_OK;
        }
        vmki_bits_clear(watch->dirty, from, to);
        vmk_status status = access_set(watch, from, to, VMK_ACCESS_READ);
        if (status != VMK_OK) {
            vmki_bits_set(watch->dirty, from, to);
            return status;
        }
        *at = vmki_watch_address(watch, to);
        vmki_watch_add(sink, address, *at);
        from = to;
    }
    if (*at == limit)
        recount(watch);
    return VMK_OK;
}
