/* SPDX-License-Identifier: MIT
 *
 * Memory that can be mapped more than once: files, and what has no name; its views, rings, snapshots.
 *
 * Memory without a name is a memfd. Where there is none it is an object of shm_open or a file, whose name nobody can
 * foresee and which loses it at once; so all of them live as long as somebody has them open or mapped.
 *
 * A ring's place is reserved as a whole before its halves are mapped over the reservation, so that at no moment anybody
 * else can get it.
 *
 * A snapshot makes the view a private mapping of the same memory: the kernel then copies each page that is written, and
 * what is in the memory stays as it was. Dropping it means to find these copies: of a private mapping of a file the
 * page table tells pages of the file from others. The mappings trade places by mremap, which is one step for all other
 * threads, and can't leave a hole as mapping anew can where the kernel unmaps first and then has no memory to promise.
 */
#include "posix/os_service_private.h"

#include <sys/stat.h>

/* Out of descriptors or memory, not out of luck with this way. */
static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOSPC;
}

static void close_quietly(int file)
{
    int error = errno;
    (void)close(file);
    errno = error;
}

static void unmap_quietly(void *base, size_t size)
{
    int error = errno;
    (void)munmap(base, size);
    errno = error;
}

/* --- memory without a name -------------------------------------------------------------------------------------- */

static int make_memfd(void)
{
    return vmki_posix_memfd("vmkit", VMKI_POSIX_MEMFD_DATA);
}

enum { NAME_SIZE = 48, NAME_TRIES = 16 };

/* "FOLDER/vmkit." and 16 digits that nobody can guess, lest somebody else open it before it has lost its name. */
static void make_name(char *name, const char *folder)
{
    uint64_t bits = vmki_os_random();
    size_t length = strlen(folder);
    memcpy(name, folder, length);
    memcpy(name + length, "/vmkit.", 7);
    length += 7;
    for (int i = 0; i < 16; i++, bits >>= 4)
        name[length++] = "0123456789abcdef"[bits & 15];
    name[length] = '\0';
}

int vmki_posix_shm(void)
{
    char name[NAME_SIZE];
    int file = -1;
    for (int i = 0; i < NAME_TRIES && file < 0 && (i == 0 || errno == EEXIST); i++) {
        make_name(name, VMKI_POSIX_SHM_FOLDER);
        file = vmki_posix_shm_make(name);
    }
    if (file >= 0)
        vmki_posix_shm_forget(name);
    return file;
}

static int make_file(void)
{
    char name[NAME_SIZE];
    int file = -1;
    for (int i = 0; i < NAME_TRIES && file < 0 && (i == 0 || errno == EEXIST); i++) {
        make_name(name, "/tmp");
        file = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    if (file >= 0)
        (void)unlink(name);
    return file;
}

static uint8_t first_memory; /* vmki_posix_memory: those before it are known to be missing */

void vmki_posix_memory_force(vmki_posix_memory first)
{
    VMKI_STORE_RELAXED(&first_memory, (uint8_t)first);
}

static int make_nameless(void)
{
    static int (*const makers[VMKI_POSIX_MEMORIES])(void) = {make_memfd, vmki_posix_shm, make_file};
    uint8_t first = VMKI_LOAD_RELAXED(&first_memory), kind = first;
    int file = makers[kind]();
    while (file < 0 && !is_shortage(errno) && kind + 1 < VMKI_POSIX_MEMORIES)
        file = makers[++kind]();
    if (file >= 0 && kind != first)
        vmki_posix_memory_force((vmki_posix_memory)kind); /* who else is here finds the same */
    return file;
}

/* Over RLIMIT_FSIZE the system would answer with a signal that ends the program, and a file counts, be it one in memory
 * alone. */
static vmk_status set_size(int file, uint64_t size)
{
    struct rlimit limit;
    int result;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur) {
        errno = EFBIG;
        return VMK_ERR_COMMIT;
    }
    do
        result = ftruncate(file, (off_t)size);
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return VMK_OK;
    /* EPERM: it is sealed. EINVAL: it can't be changed (macOS gives memory without a name a size but once). */
    return errno == EPERM || errno == EINVAL ? VMK_ERR_UNSUPPORTED : VMK_ERR_COMMIT;
}

vmk_status vmki_os_memory_create(uint64_t size, uintptr_t *handle)
{
    int file = make_nameless();
    if (file < 0)
        return is_shortage(errno) ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
    vmk_status status = set_size(file, size);
    if (status != VMK_OK) {
        close_quietly(file);
        return status;
    }
    *handle = (uintptr_t)file;
    return VMK_OK;
}

/* --- files, and what comes from others -------------------------------------------------------------------------- */

vmk_status vmki_os_memory_open(const char *path, unsigned flags, uintptr_t *handle, uint64_t *size)
{
    int how = (flags & VMK_MEMORY_WRITE) != 0 ? O_RDWR : O_RDONLY, file;
    struct stat about;
    how |= (flags & VMK_MEMORY_CREATE) != 0 ? O_CREAT : 0;
    how |= O_CLOEXEC | O_NOCTTY | O_NONBLOCK; /* a pipe or a terminal is none, but is not waited for to say so */
    do
        file = open(path, how, 0666);
    while (file < 0 && errno == EINTR);
    if (file < 0)
        return is_shortage(errno) ? VMK_ERR_COMMIT : VMK_ERR_TAKEN;
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        (void)close(file);
        errno = ENODEV;
        return VMK_ERR_TAKEN;
    }
    *handle = (uintptr_t)file;
    *size = (uint64_t)about.st_size;
    return VMK_OK;
}

/* What has a name is a file, also if it is one of shm_open. (Some systems give the latter no type at all.) */
vmk_status vmki_os_memory_import(uintptr_t handle, unsigned *flags, uint64_t *size)
{
    int file = (int)handle;
    struct stat about;
    if (handle > INT_MAX) {
        errno = EBADF;
        return VMK_ERR_ARGUMENT;
    }
    int how = fcntl(file, F_GETFL), on_exec = fcntl(file, F_GETFD);
    if (how < 0 || on_exec < 0 || fstat(file, &about) != 0)
        return VMK_ERR_ARGUMENT;
    how &= O_ACCMODE;
    if ((!S_ISREG(about.st_mode) && (about.st_mode & S_IFMT) != 0) || how == O_WRONLY ||
        ((*flags & VMK_MEMORY_WRITE) != 0 && how != O_RDWR)) {
        errno = EACCES;
        return VMK_ERR_ARGUMENT;
    }
    if (fcntl(file, F_SETFD, on_exec | FD_CLOEXEC) != 0)
        return VMK_ERR_ARGUMENT;
    if (about.st_nlink != 0)
        *flags |= VMK_MEMORY_FILE;
    *size = (uint64_t)about.st_size;
    return VMK_OK;
}

vmk_status vmki_os_memory_resize(uintptr_t handle, unsigned flags, uint64_t *size)
{
    struct stat about;
    (void)flags;
    if (fstat((int)handle, &about) != 0)
        return VMK_ERR_COMMIT;
    if ((uint64_t)about.st_size >= *size) { /* somebody else has done it */
        *size = (uint64_t)about.st_size;
        return VMK_OK;
    }
    return set_size((int)handle, *size);
}

vmk_status vmki_os_memory_duplicate(uintptr_t handle, bool inherited, uintptr_t *copy)
{
    const int beyond_standard = 3;
    int file = fcntl((int)handle, inherited ? F_DUPFD : F_DUPFD_CLOEXEC, beyond_standard);
    if (file < 0)
        return VMK_ERR_COMMIT;
    *copy = (uintptr_t)file;
    return VMK_OK;
}

void vmki_os_memory_close(uintptr_t handle)
{
    (void)close((int)handle);
}

/* --- views ------------------------------------------------------------------------------------------------------ */

vmk_status vmki_os_view_map(uintptr_t handle, unsigned flags, uint64_t offset, size_t size, vmk_view_kind kind,
                            void **base)
{
    int access = kind == VMK_VIEW_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    (void)flags;
    void *got =
        mmap(NULL, size, access, kind == VMK_VIEW_PRIVATE ? MAP_PRIVATE : MAP_SHARED, (int)handle, (off_t)offset);
    if (got == MAP_FAILED)
        return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    *base = got;
    return VMK_OK;
}

void vmki_os_view_unmap(void *base, size_t size)
{
    (void)munmap(base, size);
}

vmk_status vmki_os_view_remap(void **base, size_t size, size_t new_size)
{
    void *moved = vmki_posix_remap(*base, size, new_size);
    if (moved == MAP_FAILED)
        return errno == 0 ? VMK_ERR_UNSUPPORTED : vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    *base = moved;
    return VMK_OK;
}

vmk_status vmki_os_view_flush(void *base, size_t size, uintptr_t handle, unsigned flags)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = vmki_floor((uintptr_t)base, page_size);
    (void)handle, (void)flags;
    return msync((void *)first, (uintptr_t)base + size - first, MS_SYNC) == 0 ? VMK_OK : VMK_ERR_COMMIT;
}

/* --- rings ------------------------------------------------------------------------------------------------------ */

static bool map_half(int file, unsigned char *where, size_t size)
{
    return mmap(where, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == where;
}

vmk_status vmki_os_ring_map(uintptr_t handle, size_t size, void **base)
{
    unsigned char *place =
        mmap(NULL, 2 * size, VMKI_POSIX_RESERVED, MAP_PRIVATE | MAP_ANONYMOUS | VMKI_POSIX_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    if (!map_half((int)handle, place, size) || !map_half((int)handle, place + size, size)) {
        vmk_status status = vmki_posix_status_of_error(VMK_ERR_COMMIT);
        unmap_quietly(place, 2 * size);
        return status;
    }
    *base = place;
    return VMK_OK;
}

void vmki_os_ring_unmap(void *base, size_t size)
{
    (void)munmap(base, 2 * size);
}

/* --- snapshots: which pages has a view copied? ------------------------------------------------------------------ */

/* Told of a run of pages at an offset into the view. False: it failed. */
typedef bool found_run(void *context, size_t at, size_t length);

typedef struct search {
    unsigned char *view;
    const unsigned char *frozen;
    size_t size;
    found_run *found;
    void *context;
} search;

/* How a search has ended. */
typedef enum outcome { SEARCHED, GAVE_UP, IMPOSSIBLE } outcome;

static outcome search_by_scan(const search *what, int pagemap)
{
    enum { AT_ONCE = 64 };
    vmki_posix_scanned runs[AT_ONCE] = {{0}}; /* valgrind doesn't know what fills it */
    uint64_t base = (uintptr_t)what->view, from = base;
    uint64_t limit = base + vmki_ceil(what->size, (size_t)sysconf(_SC_PAGESIZE));
    while (from < limit) {
        vmki_posix_scan scan = {.size = sizeof scan,
                                .start = from,
                                .end = limit,
                                .vec = (uintptr_t)runs,
                                .vec_len = AT_ONCE,
                                .category_inverted = VMKI_POSIX_PAGE_IS_FILE,
                                .category_mask = VMKI_POSIX_PAGE_IS_FILE,
                                .category_anyof_mask = VMKI_POSIX_PAGE_IS_PRESENT | VMKI_POSIX_PAGE_IS_SWAPPED,
                                .return_mask = VMKI_POSIX_PAGE_IS_FILE};
        int count = vmki_posix_pagemap_scan(pagemap, &scan);
        if (count < 0)
            return IMPOSSIBLE;
        for (int i = 0; i < count; i++)
            if (!what->found(what->context, (size_t)(runs[i].start - base), (size_t)(runs[i].end - runs[i].start)))
                return GAVE_UP;
        from = count == AT_ONCE ? runs[AT_ONCE - 1].end : limit; /* walk_end may stop short of a hole */
    }
    return SEARCHED;
}

/* An entry of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst): bit 63, there is a page; 62, it is
 * swapped; 61, it is a file's, or shared. */
static bool entry_is_copy(uint64_t entry)
{
    return entry >> 62 != 0 && (entry >> 61 & 1) == 0;
}

static outcome search_by_entries(const search *what, int pagemap)
{
    uint64_t entries[512];
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)what->view / page_size;
    size_t pages = vmki_ceil(what->size, page_size) / page_size, run = 0;
    for (size_t at = 0; at < pages;) {
        size_t count = vmki_min(pages - at, sizeof entries / sizeof entries[0]);
        ssize_t got = pread(pagemap, entries, count * sizeof entries[0], (off_t)((first + at) * sizeof entries[0]));
        if (got < (ssize_t)sizeof entries[0])
            return IMPOSSIBLE;
        count = (size_t)got / sizeof entries[0];
        for (size_t i = 0; i < count; i++, at++) {
            if (entry_is_copy(entries[i])) {
                run++;
            } else if (run != 0) {
                if (!what->found(what->context, (at - run) * page_size, run * page_size))
                    return GAVE_UP;
                run = 0;
            }
        }
    }
    return run == 0 || what->found(what->context, (pages - run) * page_size, run * page_size) ? SEARCHED : GAVE_UP;
}

/* Reads all of it: for the case that there is no descriptor left to ask with, and the contents must be saved. */
static outcome search_by_contents(const search *what)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE), length;
    for (size_t at = 0; at < what->size; at += length) {
        length = vmki_min(page_size, what->size - at);
        if (memcmp(what->view + at, what->frozen + at, length) != 0 && !what->found(what->context, at, length))
            return GAVE_UP;
    }
    return SEARCHED;
}

static outcome search_by(vmki_posix_copied method, const search *what)
{
    if (method == VMKI_POSIX_COPIED_COMPARE)
        return search_by_contents(what);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return IMPOSSIBLE;
    outcome how = method == VMKI_POSIX_COPIED_SCAN ? search_by_scan(what, pagemap) : search_by_entries(what, pagemap);
    close_quietly(pagemap);
    return how;
}

/* --- snapshots: taking and dropping ----------------------------------------------------------------------------- */

/* The mapping `from` takes the view's place. If the kernel refuses after it has unmapped the view, it is mapped as it
 * is without a snapshot; false only where nothing has changed, or that is what it is now. */
static bool take_place(int file, void *from, void *view, uint64_t offset, size_t size)
{
    static const char crime[] = "vmkit: a view can't be mapped again\n";
    if (vmki_posix_move_over(from, view, size))
        return true;
    int error = errno;
    if (mmap(view, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, (off_t)offset) != view) {
        vmki_os_write_error(crime, sizeof crime - 1);
        vmki_os_abort();
    }
    unmap_quietly(from, size);
    errno = error;
    return false;
}

/* A reservation, as it were, of what will be written: not charged but under strict overcommit, as committed pages are
 * not. */
static vmk_status freeze(int file, void *view, uint64_t offset, size_t size, void **frozen)
{
    void *kept = mmap(NULL, size, PROT_READ, MAP_SHARED, file, (off_t)offset);
    if (kept == MAP_FAILED)
        return vmki_posix_status_of_error(VMK_ERR_ADDRESS_SPACE);
    void *own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | VMKI_POSIX_NORESERVE, file, (off_t)offset);
    if (own == MAP_FAILED || !take_place(file, own, view, offset, size)) {
        vmk_status status = vmki_posix_status_of_error(VMK_ERR_COMMIT);
        unmap_quietly(kept, size);
        return status;
    }
    *frozen = kept;
    return VMK_OK;
}

typedef struct destination {
    int file;
    const unsigned char *view;
    uint64_t offset;
    size_t size;
} destination;

/* The last page may lie beyond the end of the memory, which must not grow. */
static bool write_back(void *context, size_t at, size_t length)
{
    const destination *to = context;
    length = vmki_min(length, to->size - at);
    while (length != 0) {
        ssize_t written = pwrite(to->file, to->view + at, length, (off_t)(to->offset + at));
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        at += (size_t)written;
        length -= (size_t)written;
    }
    return true;
}

static vmk_status thaw(vmki_posix_copied method, destination to, void *frozen)
{
    void *view = (void *)(uintptr_t)to.view;
    search copies = {view, frozen, to.size, write_back, &to};
    outcome how = search_by(method, &copies);
    if (how == IMPOSSIBLE)
        how = search_by_contents(&copies);
    if (how != SEARCHED)
        return VMK_ERR_COMMIT;
    if (mprotect(frozen, to.size, PROT_READ | PROT_WRITE) != 0)
        return vmki_posix_status_of_error(VMK_ERR_COMMIT);
    int error = errno;
    (void)take_place(to.file, frozen, view, to.offset, to.size); /* either way it is mapped shared */
    errno = error;
    return VMK_OK;
}

/* --- snapshots: what works here? -------------------------------------------------------------------------------- */

enum { TRIED_PAGES = 4, TRIED_WRITES = 1u << 1 | 1u << 3 };

static bool note_pages(void *context, size_t at, size_t length)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    unsigned *pages = context;
    for (size_t page = at / page_size; page < (at + length) / page_size; page++)
        *pages |= 1u << page;
    return true;
}

/* Some pages are written, some are read, and of one neither. */
static bool try_pages(vmki_posix_copied method, int file, volatile unsigned char *view, size_t page_size)
{
    void *frozen;
    unsigned copied = 0;
    size_t size = TRIED_PAGES * page_size;
    for (size_t i = 0; i < TRIED_PAGES; i++)
        view[i * page_size] = 1;
    if (freeze(file, (void *)view, 0, size, &frozen) != VMK_OK)
        return false;
    for (size_t i = 0; i < TRIED_PAGES; i++)
        if ((TRIED_WRITES >> i & 1) != 0)
            view[i * page_size] = 2;
    bool right = view[0] == 1;
    for (size_t i = 0; i < TRIED_PAGES; i++)
        right = right && ((volatile unsigned char *)frozen)[i * page_size] == 1;
    search copies = {(unsigned char *)(uintptr_t)view, frozen, size, note_pages, &copied};
    right = right && search_by(method, &copies) == SEARCHED && copied == TRIED_WRITES;
    destination to = {file, (unsigned char *)(uintptr_t)view, 0, size};
    if (!right || thaw(method, to, frozen) != VMK_OK) {
        (void)munmap(frozen, size);
        return false;
    }
    return view[page_size] == 2 && view[2 * page_size] == 1;
}

static bool try_method(vmki_posix_copied method)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE), size = TRIED_PAGES * page_size;
    uintptr_t handle;
    void *view;
    bool works = false;
    if (vmki_os_memory_create(size, &handle) != VMK_OK)
        return false;
    if (vmki_os_view_map(handle, 0, 0, size, VMK_VIEW_SHARED, &view) == VMK_OK) {
        works = try_pages(method, (int)handle, view, page_size);
        (void)munmap(view, size);
    }
    (void)close((int)handle);
    return works;
}

static uint8_t copied_method; /* vmki_posix_copied */

vmki_posix_copied vmki_posix_copied_method(void)
{
    uint8_t method = VMKI_LOAD_RELAXED(&copied_method);
    if (method != VMKI_POSIX_COPIED_UNDECIDED)
        return (vmki_posix_copied)method;
    method = try_method(VMKI_POSIX_COPIED_SCAN)      ? VMKI_POSIX_COPIED_SCAN
             : try_method(VMKI_POSIX_COPIED_ENTRIES) ? VMKI_POSIX_COPIED_ENTRIES
                                                     : VMKI_POSIX_COPIED_UNKNOWN;
    VMKI_STORE_RELAXED(&copied_method, method); /* who else is here finds the same */
    return (vmki_posix_copied)method;
}

void vmki_posix_copied_force(vmki_posix_copied method)
{
    VMKI_STORE_RELAXED(&copied_method, (uint8_t)method);
}

vmk_status vmki_os_snapshot_take(uintptr_t handle, void *view, uint64_t offset, size_t size, void **frozen)
{
    if (vmki_posix_copied_method() == VMKI_POSIX_COPIED_UNKNOWN)
        return VMK_ERR_UNSUPPORTED;
    return freeze((int)handle, view, offset, size, frozen);
}

vmk_status vmki_os_snapshot_drop(uintptr_t handle, void *view, uint64_t offset, size_t size, void *frozen)
{
    destination to = {(int)handle, view, offset, size};
    return thaw(vmki_posix_copied_method(), to, frozen);
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

void vmki_os_probe_memory(vmk_caps *caps)
{
    uintptr_t handle;
    void *base;
    if (vmki_os_memory_create(caps->granularity, &handle) != VMK_OK)
        return;
    if (vmki_os_ring_map(handle, caps->granularity, &base) == VMK_OK) {
        volatile unsigned char *ring = base;
        ring[0] = 1;
        if (ring[caps->granularity] == 1)
            caps->features |= VMK_CAP_MEMORY | VMK_CAP_RING;
        vmki_os_ring_unmap(base, caps->granularity);
    }
    (void)close((int)handle);
    if (vmki_posix_copied_method() != VMKI_POSIX_COPIED_UNKNOWN)
        caps->features |= VMK_CAP_SNAPSHOT;
}
