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

static bool readable(uintptr_t word)
{
    return !readable_works || vmki_posix_readable((const void *)word);
}

/* Visit what of [low, high) can be read. */
static void visit_readable(uintptr_t low, uintptr_t high, vmki_os_range_visitor *visit, void *context)
{
    int error = errno;
    low = vmki_ceil(low, WORD);
    high = vmki_floor(high, WORD);
    for (uintptr_t at = low; at < high;) {
        uintptr_t next = vmki_floor(at, page_size) + page_size;
        bool can = readable(at);
        if (next > high || next < at)
            next = high;
        if (!can && low < at)
            visit(context, (const void *)low, at - low);
        at = next;
        if (!can)
            low = at;
    }
    if (low < high)
        visit(context, (const void *)low, high - low);
    errno = error;
}

/* --- libraries -------------------------------------------------------------------------------------------------- */

#if VMKI_POSIX_DYLD

/* Nothing is held: a library that another thread unloads meanwhile is not safe here. */
void vmki_os_with_libraries(void (*body)(void *argument), void *argument)
{
    body(argument);
}

static void visit_image(const struct mach_header_64 *image, intptr_t slide, vmki_os_range_visitor *visit, void *context)
{
    const struct load_command *command = (const struct load_command *)(image + 1);
    for (uint32_t i = 0; i < image->ncmds; i++) {
        const struct segment_command_64 *part = (const struct segment_command_64 *)command;
        if (command->cmd == LC_SEGMENT_64 && (part->initprot & 2 /* VM_PROT_WRITE */) != 0) {
            uintptr_t low = (uintptr_t)part->vmaddr + (uintptr_t)slide;
            visit_readable(low, low + (uintptr_t)part->vmsize, visit, context);
        }
        command = (const struct load_command *)((const char *)command + command->cmdsize);
    }
}

void vmki_os_static_data(vmki_os_range_visitor *visit, void *context)
{
    for (uint32_t i = 0; i < _dyld_image_count(); i++)
        visit_image((const struct mach_header_64 *)_dyld_get_image_header(i), _dyld_get_image_vmaddr_slide(i), visit,
                    context);
}

void vmki_posix_roots_init(pthread_key_t key)
{
    (void)key;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
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

typedef struct visitor {
    vmki_os_range_visitor *visit;
    void *context;
    uintptr_t pointer; /* the thread's */
} visitor;

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
    const visitor *to = argument;
    uintptr_t relro_low, relro_high;
    (void)size;
    relro_of(info, &relro_low, &relro_high);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const program_part *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || (part->p_flags & PF_W) == 0)
            continue;
        uintptr_t low = info->dlpi_addr + part->p_vaddr, high = low + part->p_memsz;
        uintptr_t from = vmki_max(low, vmki_min(high, relro_low)), until = vmki_max(low, vmki_min(high, relro_high));
        visit_readable(low, from, to->visit, to->context);
        visit_readable(until, high, to->visit, to->context);
    }
    return 0;
}

/* Of libraries in other name spaces (dlmopen) the loader says nothing. */
void vmki_os_static_data(vmki_os_range_visitor *visit, void *context)
{
    visitor to = {visit, context, 0};
    (void)dl_iterate_phdr(visit_library, &to);
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
    for (uintptr_t at = pointer - reach; at < pointer + reach; at += WORD) {
        if (!readable(at))
            at = vmki_floor(at, page_size) + page_size - WORD;
        else if (keys_fit(at, pointer, key, hidden))
            break;
    }
    (void)pthread_setspecific(key, NULL);
}

void vmki_posix_roots_init(pthread_key_t key)
{
    int error = errno;
    uintptr_t pointer = (uintptr_t)vmki_posix_thread_pointer();
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    readable_works = vmki_posix_readable(&pointer) && !vmki_posix_readable((const void *)(uintptr_t)WORD);
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
    const visitor *to = argument;
    uintptr_t from = to->pointer + (uintptr_t)vector.at * WORD;
    if (size < offsetof(struct dl_phdr_info, dlpi_tls_data) || info->dlpi_tls_modid == 0 || !readable(from))
        return 0;
    uintptr_t table = word_at(from), entry = table + info->dlpi_tls_modid * (size_t)vector.words * WORD;
    /* The vector may be shorter. glibc's says how long it is before its first entry, musl's in it. */
    uintptr_t length_at = vector.words == 2 ? table - 2 * WORD : table;
    if (table == 0 || table % WORD != 0 || !readable(length_at) || word_at(length_at) < info->dlpi_tls_modid ||
        !readable(entry))
        return 0;
    uintptr_t data = word_at(entry);
    if (data != 0 && data != UINTPTR_MAX) /* glibc: allocated at the first use */
        visit_readable(data, data + module_size(info), to->visit, to->context);
    return 0;
}

static void visit_block(const vmki_os_mutator *mutator, const visitor *to)
{
    bool on_stack = to->pointer >= (uintptr_t)mutator->stack_low && to->pointer < (uintptr_t)mutator->stack_high;
    uintptr_t spare = on_stack ? 0 : SPARE;
    uintptr_t low = to->pointer + (uintptr_t)block_low, high = to->pointer + (uintptr_t)block_high;
    visit_readable(low - (block_low < 0 ? spare : 0), high + (block_high > 0 ? spare : 0), to->visit, to->context);
}

static void visit_keys(const visitor *to)
{
    uintptr_t place = to->pointer + (uintptr_t)keys.at;
    for (size_t i = 0; i < keys.count; i++, place += WORD) {
        uintptr_t block = readable(place) ? word_at(place) : 0;
        if (block != 0 && block % WORD == 0)
            visit_readable(block, block + keys.words * WORD, to->visit, to->context);
    }
}

void vmki_os_thread_data(const vmki_os_mutator *mutator, vmki_os_range_visitor *visit, void *context)
{
    int error = errno;
    visitor to = {visit, context, mutator->system[VMKI_POSIX_POINTER]};
    if (to.pointer == 0)
        return;
    visit_block(mutator, &to);
    if (vector.words != 0)
        (void)dl_iterate_phdr(visit_module, &to);
    visit_keys(&to);
    errno = error;
}

#endif

/* --- a stack's pages -------------------------------------------------------------------------------------------- */

/* What the system says of each page: is it in memory, or on disk? */
#define IN_MEMORY (UINT64_C(1) << 63)
#define ON_DISK (UINT64_C(1) << 62)

enum { PAGES_AT_ONCE = 64 };

static bool pages_ask(int pagemap, uintptr_t low, size_t count, uint64_t *entries)
{
    off_t at = (off_t)(low / page_size * sizeof *entries);
    return pread(pagemap, entries, count * sizeof *entries, at) == (ssize_t)(count * sizeof *entries);
}

/* Not what an emulator's own page table says: the page that this is on is in memory. */
static int pagemap_open(void)
{
    uint64_t own = 0;
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file >= 0 && (!pages_ask(file, (uintptr_t)&own, 1, &own) || (own & IN_MEMORY) == 0)) {
        (void)close(file);
        file = -1;
    }
    return file;
}

/* Pages that were never touched read as zero: where the system does not tell of them, they are visited too. */
void vmki_os_stack_touched(void *low, void *high, vmki_os_range_visitor *visit, void *context)
{
    int error = errno, pagemap = pagemap_open();
    uint64_t entries[PAGES_AT_ONCE];
    for (uintptr_t at = (uintptr_t)low, next; at < (uintptr_t)high; at = next) {
        uintptr_t first = vmki_floor(at, page_size);
        size_t count = vmki_min((size_t)PAGES_AT_ONCE, vmki_ceil((uintptr_t)high - first, page_size) / page_size);
        bool told = pagemap >= 0 && pages_ask(pagemap, first, count, entries);
        next = vmki_min(first + count * page_size, (uintptr_t)high);
        for (size_t i = 0; i < count; i++) {
            uintptr_t page = first + i * page_size;
            if (!told || (entries[i] & (IN_MEMORY | ON_DISK)) != 0)
                visit_readable(vmki_max(at, page), vmki_min(next, page + page_size), visit, context);
        }
    }
    if (pagemap >= 0)
        (void)close(pagemap);
    errno = error;
}
