/* SPDX-License-Identifier: MIT
 *
 * Where a program keeps data for as long as it runs: what the loader knows, and what the C library has of each thread.
 *
 * Of threads the following is covered, each as far as the sentence says:
 *
 * - Thread-local storage of the program and of the libraries that were there at its start, and of those that were
 * loaded late with the model "initial-exec": it lies in one block at a fixed distance from the thread pointer. On every
 * system whose loader tells where the calling thread has it, and whose thread pointer is known how to read.
 * - That of libraries that were loaded late, and which threads allocate when they first use it: through the vector that
 *   the block above leads to. Two forms of vectors are known, glibc's and musl's; which one it is, is not taken from a
 *   version, but tried: the vector of the calling thread must lead to where the loader says that its variables are.
 * - What is kept by key: a value is set under a key of our own, and looked for in what the thread pointer leads to.
 *
 * What does not fit the forms that are known is not covered, but does no harm. All of a thread that stands still is
 * looked at, whatever it was just doing: so nothing is read before the system has said that it can be, for it may have
 * freed what it had no time to forget.
 */
#include "posix/os_world_private.h"

#if VMKI_POSIX_DYLD
#include <mach-o/dyld.h>
#include <mach-o/loader.h>
#else
#include <link.h>
#endif

#include "posix/os_self.h"
#include "posix/os_service_private.h"

/* Of a function that reads what AddressSanitizer may think free. */
#if defined(__SANITIZE_ADDRESS__)
#define VMKI_UNWATCHED __attribute__((no_sanitize("address")))
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VMKI_UNWATCHED __attribute__((no_sanitize("address")))
#endif
#endif
#if !defined(VMKI_UNWATCHED)
#define VMKI_UNWATCHED
#endif

#define WORD sizeof(uintptr_t)

/* Tried once: see vmki_posix_readable. */
static bool readable_works;
static uintptr_t page_size;

/* What else the system can be asked: VMKI_POSIX_BY_SCAN, and so on. */
static uint8_t able, forbidden;

static bool can_ask(unsigned what)
{
    return (VMKI_LOAD_RELAXED(&able) & ~VMKI_LOAD_RELAXED(&forbidden) & what) != 0;
}

unsigned vmki_posix_roots_forbid(unsigned what)
{
    VMKI_STORE_RELAXED(&forbidden, (uint8_t)what);
    return VMKI_LOAD_RELAXED(&able) & ~what;
}

/* --- visiting --------------------------------------------------------------------------------------------------- */

enum { NOT_TRIED = -1, NOT_THERE = -2 };

enum { KNOWN = 4 };

typedef struct visitor {
    vmki_os_range_visitor *visit;
    void *context;
    uintptr_t pointer;      /* the thread's */
    uintptr_t low, high;    /* to be visited yet, with what follows it: empty if equal */
    uintptr_t known[KNOWN]; /* pages that can be read */
    unsigned known_next;
    int pagemap; /* a descriptor, or one of the above */
    int cancel, error;
} visitor;

/* Who stops the world must not be cancelled in it, which the C library does in calls that have to do with files. */
static void visits_begin(visitor *to, vmki_os_range_visitor *visit, void *context)
{
    *to = (visitor){.visit = visit, .context = context, .pagemap = NOT_TRIED, .error = errno};
    to->cancel = vmki_posix_cancel_forbid();
}

static void visit_now(visitor *to)
{
    if (to->low < to->high)
        to->visit(to->context, (const void *)to->low, to->high - to->low);
    to->low = to->high;
}

static void visits_end(visitor *to)
{
    visit_now(to);
    if (to->pagemap >= 0)
        (void)close(to->pagemap);
    vmki_posix_cancel_allow(to->cancel);
    errno = to->error;
}

static void add(visitor *to, uintptr_t low, uintptr_t high)
{
    if (to->high != low) {
        visit_now(to);
        to->low = low;
    }
    to->high = high;
}

/* --- what can be read ------------------------------------------------------------------------------------------- */

enum { PAGES_AT_ONCE = 128, WORTH_A_BATCH = 4 };

static bool readable(uintptr_t word)
{
    return !readable_works || vmki_posix_readable((const void *)word);
}

/* As above, for words that lie in the same few pages. */
static bool readable_again(visitor *to, uintptr_t word)
{
    uintptr_t page = vmki_floor(word, page_size);
    for (unsigned i = 0; i < KNOWN; i++)
        if (to->known[i] == page && page != 0)
            return true;
    if (!readable(word))
        return false;
    to->known[to->known_next++ % KNOWN] = page;
    return true;
}

/* How many of the pages from `first` on can be read, up to the first one that can't. The kernel takes a byte of each in
 * one call; it does so with the thread's own rights, and says how many it got. */
static size_t readable_pages(uintptr_t first, size_t count)
{
    unsigned char bytes[PAGES_AT_ONCE];
    struct iovec from[PAGES_AT_ONCE];
    if (count >= WORTH_A_BATCH && can_ask(VMKI_POSIX_IN_BATCHES)) {
        for (size_t i = 0; i < count; i++)
            from[i] = (struct iovec){(void *)(first + i * page_size), 1};
        long got = vmki_posix_gather(from, count, bytes);
        if (got > 0 && (size_t)got <= count)
            return (size_t)got;
        if (got < 0 && (errno == EPERM || errno == ENOSYS)) /* forbidden since it was tried */
            VMKI_STORE_RELAXED(&able, (uint8_t)(able & ~VMKI_POSIX_IN_BATCHES));
    }
    return readable(first) ? 1 : 0;
}

/* Visit what of [low, high) can be read. */
static void visit_readable(visitor *to, uintptr_t low, uintptr_t high)
{
    low = vmki_ceil(low, WORD);
    high = vmki_floor(high, WORD);
    if (!readable_works && low < high) {
        add(to, low, high);
        return;
    }
    for (uintptr_t at = low, next; at < high; at = next) {
        uintptr_t first = vmki_floor(at, page_size);
        size_t count = vmki_min((size_t)PAGES_AT_ONCE, vmki_ceil(high - first, page_size) / page_size);
        size_t can = readable_pages(first, count);
        next = first + vmki_max(can, (size_t)1) * page_size;
        if (next > high || next < at)
            next = high;
        if (can != 0)
            add(to, at, next);
    }
}

/* --- what was touched ------------------------------------------------------------------------------------------- */

/* A page that the page table has nothing of, neither memory nor a place on disk, was never written to, or given back.
 * Read, it would show what it was mapped from: zeroes, or in the first part of a library's variables what the linker
 * wrote into the file, long before there was any object to point to. Addresses that the loader had to fill in are
 * written. What only moves about (migration, memory that is being poisoned or balanced) has an entry. A child has all
 * of its parent's entries for memory that is private, as static data, stacks and thread-local storage are.
 *
 * So it need not be visited; and had better not be, since every first look at a page is a fault, and leaves a page in
 * memory.
 *
 * That does not hold for memory that is shared: its contents may be elsewhere than in this page table. A program that
 * maps some over its own variables names it to the collector as a root. Nor for memory whose contents another process
 * provides at the first touch (userfaultfd).
 *
 * The file is opened each time: one that is kept would, in the child of a fork, tell of the parent, and the program
 * might close it and get the number for another. The thread's own, because the process's tells nothing (and early
 * kernels with PAGEMAP_SCAN crash) when the main thread has ended before the others. Without a descriptor, or /proc,
 * all is visited. */

/* Ranges below this aren't worth it. */
enum { WORTH_ASKING = 65536 };

/* What the system says of each page: is it in memory, or on disk? */
#define IN_MEMORY (UINT64_C(1) << 63)
#define ON_DISK (UINT64_C(1) << 62)

static bool pagemap_there(visitor *to)
{
    if (to->pagemap == NOT_TRIED) {
        to->pagemap = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
        if (to->pagemap < 0 && errno == ENOENT) /* before Linux 3.17 */
            to->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        if (to->pagemap < 0)
            to->pagemap = NOT_THERE;
    }
    return to->pagemap >= 0;
}

/* Both return how far they came. */
static uintptr_t touched_by_scan(visitor *to, uintptr_t low, uintptr_t high)
{
    enum { AT_ONCE = 64 };
    vmki_posix_scanned runs[AT_ONCE] = {{0}}; /* valgrind doesn't know what fills it */
    uint64_t from = vmki_floor(low, page_size), limit = vmki_ceil(high, page_size);
    while (from < limit) {
        vmki_posix_scan scan = {.size = sizeof scan,
                                .start = from,
                                .end = limit,
                                .vec = (uintptr_t)runs,
                                .vec_len = AT_ONCE,
                                .category_anyof_mask = VMKI_POSIX_PAGE_IS_PRESENT | VMKI_POSIX_PAGE_IS_SWAPPED,
                                .return_mask = VMKI_POSIX_PAGE_IS_PRESENT | VMKI_POSIX_PAGE_IS_SWAPPED};
        int count = vmki_posix_pagemap_scan(to->pagemap, &scan);
        if (count < 0)
            return vmki_max(low, (uintptr_t)from);
        for (int i = 0; i < count; i++)
            visit_readable(to, vmki_max(low, (uintptr_t)runs[i].start), vmki_min(high, (uintptr_t)runs[i].end));
        from = count == AT_ONCE ? runs[AT_ONCE - 1].end : limit; /* walk_end may stop short of a hole */
    }
    return high;
}

static bool pages_ask(int pagemap, uintptr_t low, size_t count, uint64_t *entries)
{
    off_t at = (off_t)(low / page_size * sizeof *entries);
    return pread(pagemap, entries, count * sizeof *entries, at) == (ssize_t)(count * sizeof *entries);
}

/* Any file could be read: the page that this is on is in memory. */
static uintptr_t touched_by_entries(visitor *to, uintptr_t low, uintptr_t high)
{
    uint64_t entries[PAGES_AT_ONCE] = {0};
    if (!pages_ask(to->pagemap, (uintptr_t)entries, 1, entries) || (entries[0] & IN_MEMORY) == 0)
        return low;
    for (uintptr_t at = low, next; at < high; at = next) {
        uintptr_t first = vmki_floor(at, page_size);
        size_t count = vmki_min((size_t)PAGES_AT_ONCE, vmki_ceil(high - first, page_size) / page_size);
        if (!pages_ask(to->pagemap, first, count, entries))
            return at;
        next = vmki_min(first + count * page_size, high);
        for (size_t i = 0, end; i < count; i = end + 1) {
            for (end = i; end < count && (entries[end] & (IN_MEMORY | ON_DISK)) != 0;)
                end++;
            if (end > i)
                visit_readable(to, vmki_max(at, first + i * page_size), vmki_min(next, first + end * page_size));
        }
    }
    return high;
}

static void visit_touched(visitor *to, uintptr_t low, uintptr_t high)
{
    if (can_ask(VMKI_POSIX_BY_SCAN | VMKI_POSIX_BY_ENTRIES) && pagemap_there(to)) {
        if (can_ask(VMKI_POSIX_BY_SCAN))
            low = touched_by_scan(to, low, high);
        if (can_ask(VMKI_POSIX_BY_ENTRIES) && low < high)
            low = touched_by_entries(to, low, high);
    }
    visit_readable(to, low, high);
}

/* Of memory that the loader or the C library has mapped: private to the process. */
static void visit_mapped(visitor *to, uintptr_t low, uintptr_t high)
{
    if (low < high && high - low >= WORTH_ASKING)
        visit_touched(to, low, high);
    else
        visit_readable(to, low, high);
}

void vmki_os_stack_touched(void *low, void *high, vmki_os_range_visitor *visit, void *context)
{
    visitor to;
    visits_begin(&to, visit, context);
    visit_touched(&to, (uintptr_t)low, (uintptr_t)high);
    visits_end(&to);
}

/* --- what of this works ----------------------------------------------------------------------------------------- */

/* Tried on some pages of which one knows everything. An emulator of processes may pass on what the kernel says of its
 * own page table, where the program's pages lie elsewhere or have another size: a pattern that chance has made, found
 * exactly, is not that. */
enum { PAGES_TRIED = 12, PAGE_UNREADABLE = PAGES_TRIED - 1 };

typedef struct pattern {
    uintptr_t pages;
    unsigned found;
} pattern;

static void pattern_found(void *context, const void *base, size_t size)
{
    pattern *tried = context;
    for (uintptr_t at = (uintptr_t)base; at < (uintptr_t)base + size; at += page_size)
        tried->found |= 1u << (at - tried->pages) / page_size;
}

static unsigned try_touched(uintptr_t pages, unsigned touched)
{
    unsigned result = 0;
    for (unsigned what = VMKI_POSIX_BY_SCAN; what <= VMKI_POSIX_BY_ENTRIES; what <<= 1) {
        pattern tried = {pages, 0};
        visitor to;
        uintptr_t limit = pages + PAGES_TRIED * page_size, until = pages;
        visits_begin(&to, pattern_found, &tried);
        if (pagemap_there(&to))
            until =
                what == VMKI_POSIX_BY_SCAN ? touched_by_scan(&to, pages, limit) : touched_by_entries(&to, pages, limit);
        visits_end(&to);
        if (until == limit && tried.found == touched)
            result |= what;
    }
    return result;
}

/* All bits but those of the last pages are chance's; one is set and one is not for certain. */
static void try_means(void)
{
    unsigned touched = ((unsigned)vmki_os_random() & ((1u << PAGE_UNREADABLE) - 1) & ~2u) | 1;
    size_t size = PAGES_TRIED * page_size;
    void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t pages = (uintptr_t)place;
    able = 0;
    if (place == MAP_FAILED || !readable_works)
        return;
    vmki_posix_huge_forbid(place, size);
    for (unsigned i = 0; i < PAGES_TRIED; i++)
        if ((touched >> i & 1) != 0)
            *(volatile unsigned char *)(pages + i * page_size) = 1;
    unsigned found = try_touched(pages, touched);
    if (mprotect((void *)(pages + PAGE_UNREADABLE * page_size), page_size, PROT_NONE) == 0) {
        able = VMKI_POSIX_IN_BATCHES;
        if (readable_pages(pages, PAGES_TRIED) == PAGE_UNREADABLE)
            found |= VMKI_POSIX_IN_BATCHES;
    }
    able = (uint8_t)found;
    (void)munmap(place, size);
}

/* --- libraries -------------------------------------------------------------------------------------------------- */

#if VMKI_POSIX_DYLD

/* Nothing is held: a library that another thread unloads meanwhile is not safe here. */
void vmki_os_with_libraries(void (*body)(void *argument), void *argument)
{
    body(argument);
}

static void visit_image(const struct mach_header_64 *image, intptr_t slide, visitor *to)
{
    const struct load_command *command = (const struct load_command *)(image + 1);
    for (uint32_t i = 0; i < image->ncmds; i++) {
        const struct segment_command_64 *part = (const struct segment_command_64 *)command;
        if (command->cmd == LC_SEGMENT_64 && (part->initprot & 2 /* VM_PROT_WRITE */) != 0) {
            uintptr_t low = (uintptr_t)part->vmaddr + (uintptr_t)slide;
            visit_mapped(to, low, low + (uintptr_t)part->vmsize);
        }
        command = (const struct load_command *)((const char *)command + command->cmdsize);
    }
}

void vmki_os_static_data(vmki_os_range_visitor *visit, void *context)
{
    visitor to;
    visits_begin(&to, visit, context);
    for (uint32_t i = 0; i < _dyld_image_count(); i++)
        visit_image((const struct mach_header_64 *)_dyld_get_image_header(i), _dyld_get_image_vmaddr_slide(i), &to);
    visits_end(&to);
}

void vmki_posix_roots_init(pthread_key_t key)
{
    (void)key;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    try_means();
}

/* What macOS keeps of each thread is not known here. */
void vmki_os_thread_data(const vmki_os_mutator *mutator, vmki_os_range_visitor *visit, void *context)
{
    (void)mutator, (void)visit, (void)context;
}

#else

typedef __typeof__(*((struct dl_phdr_info *)NULL)->dlpi_phdr) program_part;

/* glibc holds a lock while it enumerates, which whoever holds it may take again, and which is needed to add a library
 * or to unmap one. musl lets go of its own, but never unmaps any. Others of the loader's locks may be held by threads
 * that are stopped within dlopen: nothing here takes them. */
typedef struct within {
    void (*body)(void *argument);
    void *argument;
} within;

static int run_within(struct dl_phdr_info *info, size_t size, void *argument)
{
    const within *what = argument;
    (void)info, (void)size;
    what->body(what->argument);
    return 1;
}

void vmki_os_with_libraries(void (*body)(void *argument), void *argument)
{
    within what = {body, argument};
    (void)dl_iterate_phdr(run_within, &what);
}

/* The range that is read-only after relocation: [low, high), empty if there is none. Whole pages are: what of the last
 * one is not protected is left in. */
static void relro_of(const struct dl_phdr_info *info, uintptr_t *low, uintptr_t *high)
{
    *low = *high = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const program_part *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_GNU_RELRO) {
            *low = vmki_floor(info->dlpi_addr + part->p_vaddr, page_size);
            *high = vmki_floor(info->dlpi_addr + part->p_vaddr + part->p_memsz, page_size);
        }
    }
}

static int visit_library(struct dl_phdr_info *info, size_t size, void *argument)
{
    visitor *to = argument;
    uintptr_t relro_low, relro_high;
    (void)size;
    relro_of(info, &relro_low, &relro_high);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const program_part *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || (part->p_flags & PF_W) == 0)
            continue;
        uintptr_t low = info->dlpi_addr + part->p_vaddr, high = low + part->p_memsz;
        uintptr_t from = vmki_max(low, vmki_min(high, relro_low)), until = vmki_max(low, vmki_min(high, relro_high));
        visit_mapped(to, low, from);
        visit_mapped(to, until, high);
    }
    return 0;
}

/* Of libraries in other name spaces (dlmopen) the loader says nothing. */
void vmki_os_static_data(vmki_os_range_visitor *visit, void *context)
{
    visitor to;
    visits_begin(&to, visit, context);
    (void)dl_iterate_phdr(visit_library, &to);
    visits_end(&to);
}

/* --- thread-local storage: how it is kept ----------------------------------------------------------------------- */

/* Where the vector is found: a word so many words from the thread pointer; and how many words an entry has, the entry
 * of a module being that of its number. 0 words: not known. */
static struct {
    int at, words;
} vector;

/* The block at a fixed distance from the thread pointer: [pointer + low, pointer + high). */
static intptr_t block_low, block_high;

/* Libraries that are loaded late get their place in it behind those that were there before. glibc has about 1.7 KiB for
 * them unless told otherwise. Where the block is on the thread's own stack, as glibc has it for all but the main
 * thread, the live part of the stack has it anyway, and what lies behind it may be dead. */
#define SPARE 4096
#define FAR ((uintptr_t)1 << 20) /* no such block is as large */

/* The memory of modules that the calling thread has none of yet is not told. */
static bool module_told(const struct dl_phdr_info *info, size_t size)
{
    return size >= offsetof(struct dl_phdr_info, dlpi_tls_data) + sizeof info->dlpi_tls_data &&
           info->dlpi_tls_modid != 0 && info->dlpi_tls_data != NULL;
}

static size_t module_size(const struct dl_phdr_info *info)
{
    size_t size = 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_TLS)
            size = info->dlpi_phdr[i].p_memsz;
    return size;
}

/* Of memory that whoever has it may have freed. */
VMKI_UNWATCHED VMKI_IN_HANDLER static uintptr_t word_at(uintptr_t address)
{
    return *(const volatile uintptr_t *)address;
}

typedef struct trial {
    uintptr_t table;
    int words;
    bool right;
    unsigned count; /* modules that it was compared for */
} trial;

static int compare_module(struct dl_phdr_info *info, size_t size, void *argument)
{
    trial *tried = argument;
    if (!module_told(info, size))
        return 0;
    uintptr_t entry = tried->table + info->dlpi_tls_modid * (size_t)tried->words * WORD;
    tried->count++;
    tried->right = tried->right && readable(entry) && word_at(entry) == (uintptr_t)info->dlpi_tls_data;
    return 0;
}

static void vector_find(uintptr_t pointer)
{
    static const int places[] = {1, 0, -1, -2};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        uintptr_t from = pointer + (uintptr_t)places[i] * WORD;
        for (int words = 2; words >= 1; words--) {
            trial tried = {readable(from) ? word_at(from) : 0, words, true, 0};
            if (tried.table == 0 || tried.table % WORD != 0)
                continue;
            (void)dl_iterate_phdr(compare_module, &tried);
            if (tried.right && tried.count != 0) {
                vector.at = places[i];
                vector.words = words;
                return;
            }
        }
    }
}

static int widen_block(struct dl_phdr_info *info, size_t size, void *argument)
{
    uintptr_t pointer = *(const uintptr_t *)argument;
    if (!module_told(info, size))
        return 0;
    uintptr_t low = (uintptr_t)info->dlpi_tls_data, high = low + module_size(info);
    if (low + FAR > pointer && low < pointer)
        block_low = (intptr_t)(low - pointer) < block_low ? (intptr_t)(low - pointer) : block_low;
    if (high > pointer && high < pointer + FAR)
        block_high = (intptr_t)(high - pointer) > block_high ? (intptr_t)(high - pointer) : block_high;
    return 0;
}

static void block_find(uintptr_t pointer)
{
    (void)dl_iterate_phdr(widen_block, &pointer);
}

/* --- values by key: how they are kept --------------------------------------------------------------------------- */

/* So many pointers, at this distance from the thread pointer, each to a block of so many words. */
static struct {
    intptr_t at;
    size_t count, words;
} keys;

/* Forms that are known: glibc's pairs of a number and a value, 32 to a block, 32 blocks, the first of which is part of
 * the thread's descriptor; musl's array of values, of which it has 128. */
enum { GLIBC_KEYS = 32, MUSL_KEYS = 128 };

static bool keys_fit(uintptr_t place, uintptr_t pointer, pthread_key_t key, uintptr_t hidden)
{
    uintptr_t block = word_at(place);
    uintptr_t pair = block + ((uintptr_t)key % GLIBC_KEYS * 2 + 1) * WORD, single = block + (uintptr_t)key * WORD;
    if (block < page_size || block % WORD != 0)
        return false;
    if (readable(pair) && word_at(pair) == ~hidden) {
        keys.at = (intptr_t)(place - pointer) - (intptr_t)(key / GLIBC_KEYS * WORD);
        keys.count = GLIBC_KEYS;
        keys.words = (size_t)2 * GLIBC_KEYS;
        return true;
    }
    if (key < MUSL_KEYS && readable(single) && word_at(single) == ~hidden) {
        keys.at = (intptr_t)(place - pointer);
        keys.count = 1;
        keys.words = MUSL_KEYS;
        return true;
    }
    return false;
}

/* Descriptors lie behind the thread pointer or before it, and have less than a page. */
static void keys_find(uintptr_t pointer, pthread_key_t key)
{
    const uintptr_t reach = 4096;
    uintptr_t hidden = (uintptr_t)vmki_os_random();
    if (pthread_setspecific(key, (void *)~hidden) != 0)
        return;
    for (uintptr_t at = pointer - reach, known = 0; at < pointer + reach; at += WORD) {
        if (vmki_floor(at, page_size) != known && !readable(at))
            at = vmki_floor(at, page_size) + page_size - WORD;
        else if (keys_fit(at, pointer, key, hidden))
            break;
        else
            known = vmki_floor(at, page_size);
    }
    (void)pthread_setspecific(key, NULL);
}

void vmki_posix_roots_init(pthread_key_t key)
{
    int error = errno;
    uintptr_t pointer = (uintptr_t)vmki_posix_thread_pointer();
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    readable_works = vmki_posix_readable(&pointer) && !vmki_posix_readable((const void *)(uintptr_t)WORD);
    try_means();
    if (readable_works && pointer != 0) {
        block_find(pointer);
        vector_find(pointer);
        keys_find(pointer, key);
    }
    errno = error;
}

/* --- a thread's data -------------------------------------------------------------------------------------------- */

static int visit_module(struct dl_phdr_info *info, size_t size, void *argument)
{
    visitor *to = argument;
    uintptr_t from = to->pointer + (uintptr_t)vector.at * WORD;
    if (size < offsetof(struct dl_phdr_info, dlpi_tls_data) || info->dlpi_tls_modid == 0 || !readable_again(to, from))
        return 0;
    uintptr_t table = word_at(from), entry = table + info->dlpi_tls_modid * (size_t)vector.words * WORD;
    /* The vector may be shorter. glibc's says how long it is before its first entry, musl's in it. */
    uintptr_t length_at = vector.words == 2 ? table - 2 * WORD : table;
    if (table == 0 || table % WORD != 0 || !readable_again(to, length_at) ||
        word_at(length_at) < info->dlpi_tls_modid || !readable_again(to, entry))
        return 0;
    uintptr_t data = word_at(entry);
    /* glibc: allocated at the first use. By malloc, which may be anybody's, and in shared memory: so all is visited. */
    if (data != 0 && data != UINTPTR_MAX)
        visit_readable(to, data, data + module_size(info));
    return 0;
}

static void visit_block(const vmki_os_mutator *mutator, visitor *to)
{
    bool on_stack = to->pointer >= (uintptr_t)mutator->stack_low && to->pointer < (uintptr_t)mutator->stack_high;
    uintptr_t spare = on_stack ? 0 : SPARE;
    uintptr_t low = to->pointer + (uintptr_t)block_low, high = to->pointer + (uintptr_t)block_high;
    visit_mapped(to, low - (block_low < 0 ? spare : 0), high + (block_high > 0 ? spare : 0));
}

static void visit_keys(visitor *to)
{
    uintptr_t place = to->pointer + (uintptr_t)keys.at;
    for (size_t i = 0; i < keys.count; i++, place += WORD) {
        uintptr_t block = readable_again(to, place) ? word_at(place) : 0;
        if (block != 0 && block % WORD == 0)
            visit_readable(to, block, block + keys.words * WORD);
    }
}

void vmki_os_thread_data(const vmki_os_mutator *mutator, vmki_os_range_visitor *visit, void *context)
{
    visitor to;
    if (mutator->system[VMKI_POSIX_POINTER] == 0)
        return;
    visits_begin(&to, visit, context);
    to.pointer = mutator->system[VMKI_POSIX_POINTER];
    visit_block(mutator, &to);
    if (vector.words != 0)
        (void)dl_iterate_phdr(visit_module, &to);
    visit_keys(&to);
    visits_end(&to);
}

#endif
