/* SPDX-License-Identifier: MIT
 *
 * What this system is and can do, found by asking and by trying: some forty system calls on Linux, sixty at worst.
 * (What services can do is found in their own files.)
 *
 * The range of addresses is the one thing that must be searched for. Headers and processors do not tell it: page tables
 * of 3, 4 or 5 levels, a 32-bit process under a 64-bit kernel, a split of 3 : 1 or 2 : 2, emulators. An address is
 * tried by reserving its page; a refusal because something is there already proves just as well that something can be
 * there. Where the system can't be asked that way (no mapping without replacing) what is occupied looks like what is
 * impossible, and the range may come out somewhat too small, never too large.
 */
#include "posix/os_service_private.h"

#define LOWEST ((uintptr_t)1 << 16)      /* where looking for the first address begins */
#define SEARCH_UNIT ((uintptr_t)1 << 20) /* as exact as the last one is where it lies at no power of two */

/* A process gets addresses above these bits only if it asks for one there (x86-64 and arm64 with larger page tables),
 * and then must expect trouble from whoever keeps tags in pointers. So they don't count, unless given without asking.
 */
#define USUAL_BITS 47

void vmki_os_page_facts(size_t *page_size, size_t *granularity)
{
    *page_size = *granularity =
        (size_t)sysconf(_SC_PAGESIZE); /* no system call: the kernel has passed it to the program */
}

uint64_t vmki_os_physical_memory(void)
{
    return vmki_posix_physical_memory();
}

/* --- addresses -------------------------------------------------------------------------------------------------- */

static bool reachable(uintptr_t address, size_t page_size)
{
    if (vmki_posix_map_exact(address, page_size)) {
        vmki_os_release((void *)address, page_size);
        return true;
    }
    return vmki_posix_noreplace_works() && errno == EEXIST;
}

/* The last byte that can be had of the 2^bits bytes from 0 on, if it lies in their last three pages; else 0. x86 keeps
 * a page free below the end for the sake of a processor's defect, and 32-bit processes two. */
static uintptr_t last_below(unsigned bits, size_t page_size)
{
    uintptr_t last = UINTPTR_MAX >> (sizeof(uintptr_t) * 8 - bits);
    for (unsigned i = 0; i < 3; i++, last -= page_size)
        if (reachable(last - (page_size - 1), page_size))
            return last;
    return 0;
}

static uintptr_t search_last(uintptr_t low, unsigned bits, size_t page_size)
{
    uintptr_t high = vmki_floor(UINTPTR_MAX >> (sizeof(uintptr_t) * 8 - bits), page_size);
    while (high - low > vmki_max(SEARCH_UNIT, page_size)) {
        uintptr_t middle = vmki_floor(low + (high - low) / 2, page_size);
        if (reachable(middle, page_size))
            low = middle;
        else
            high = middle;
    }
    return low + (page_size - 1);
}

/* From an address that the system gives of itself up to the end of the power of two that it is in; and on from there,
 * for kernels that fill the space from the bottom. */
static uintptr_t find_last(uintptr_t given, size_t page_size)
{
    const unsigned own_bits = vmki_highest_bit(given) + 1;
    uintptr_t last = last_below(own_bits, page_size);
    if (last == 0)
        return search_last(given, own_bits, page_size);
    for (unsigned bits = own_bits + 1; bits <= USUAL_BITS && bits <= sizeof(uintptr_t) * 8; bits++) {
        uintptr_t further = last_below(bits, page_size);
        if (further == 0)
            break;
        last = further;
    }
    return last;
}

/* The first of 64 KiB, 128 KiB, ... Addresses below the first are kept free nearly everywhere (vm.mmap_min_addr), for
 * null pointers' sake, and we want none even where we could; macOS keeps 4 GiB. */
static uintptr_t find_first(uintptr_t given, size_t page_size)
{
    uintptr_t first = vmki_max(LOWEST, page_size);
    while (first < given && !reachable(first, page_size))
        first *= 2;
    return first < given ? first : given;
}

static void probe_addresses(vmk_caps *caps)
{
    vmki_os_request request = {.size = caps->page_size, .align = caps->page_size};
    void *page;
    if (vmki_os_reserve(&request, &page) != VMK_OK)
        return;
    vmki_os_release(page, caps->page_size);
    caps->address_min = find_first((uintptr_t)page, caps->page_size);
    caps->address_max = find_last((uintptr_t)page, caps->page_size);
}

/* --- features --------------------------------------------------------------------------------------------------- */

/* A page is written, and discarded. */
static unsigned try_discard(volatile unsigned char *page, size_t page_size)
{
    unsigned features = 0;
    *page = 1;
    bool shown = vmki_posix_resident((void *)page, page_size);
    if (vmki_os_discard((void *)page, page_size) != VMK_OK)
        return 0;
    if (shown && !vmki_posix_resident((void *)page, page_size))
        features |= VMK_CAP_DISCARD_PROMPT;
    if (*page == 0)
        features |= VMK_CAP_DISCARD_ZERO;
    return features;
}

static unsigned try_page(size_t page_size)
{
    vmki_os_request request = {.size = page_size, .align = page_size};
    unsigned features = 0;
    void *page;
    if (vmki_os_reserve(&request, &page) != VMK_OK)
        return 0;
    if (vmki_os_commit(page, page_size) == VMK_OK)
        features |= try_discard(page, page_size);
    vmki_os_release(page, page_size);
    return features;
}

static void probe_features(vmk_caps *caps)
{
    caps->features |= VMK_CAP_ALIGNED | VMK_CAP_FORK | try_page(caps->page_size);
    if (vmki_posix_noreplace_works())
        caps->features |= VMK_CAP_EXACT;
    if (caps->overcommit == VMK_OVERCOMMIT_NEVER)
        caps->features |= VMK_CAP_COMMIT_CHARGED;
    /* Only strict overcommit charges what is committed here (it alone ignores MAP_NORESERVE), and it gives a charge
     * back only with the mapping. */
    if (vmki_posix_decommit_method() == VMKI_POSIX_DECOMMIT_REMAP || caps->overcommit != VMK_OVERCOMMIT_NEVER)
        caps->features |= VMK_CAP_DECOMMIT_CHARGE;
}

/* --- huge pages ------------------------------------------------------------------------------------------------- */

#define TRANSPARENT "/sys/kernel/mm/transparent_hugepage/"

/* The file "enabled" reads "always [madvise] never", what is selected being in brackets. */
static size_t transparent_size(void)
{
    char text[64];
    uint64_t size;
    if (!vmki_posix_read_text(TRANSPARENT "enabled", text, sizeof text) || strstr(text, "[never]") != NULL ||
        !vmki_posix_read_number(TRANSPARENT "hpage_pmd_size", &size) || size > SIZE_MAX || vmki_posix_huge_disabled())
        return 0;
    return (size_t)size;
}

/* Keep the list ascending, and of too many the smallest. */
static void add_size(size_t *sizes, size_t size)
{
    for (size_t i = 0; i < VMK_MAX_HUGE_SIZES && size != 0; i++) {
        if (sizes[i] == 0 || sizes[i] > size) {
            size_t next = sizes[i];
            sizes[i] = size;
            size = next;
        }
    }
}

/* "hugepages-2048kB", in bytes; 0: another name, or too large for this process. */
static size_t size_of_name(const char *name)
{
    static const char before[] = "hugepages-", after[] = "kB";
    size_t kib = 0;
    if (strncmp(name, before, sizeof before - 1) != 0)
        return 0;
    for (name += sizeof before - 1; *name >= '0' && *name <= '9'; name++) {
        if (kib > SIZE_MAX >> 14)
            return 0;
        kib = kib * 10 + (size_t)(*name - '0');
    }
    return strcmp(name, after) == 0 && kib <= SIZE_MAX >> 10 ? kib << 10 : 0;
}

/* struct linux_dirent64 of getdents64(2): inode and offset of 8 bytes each, the record's length in 2, the type in 1,
 * and the name. */
enum { RECORD_LENGTH_AT = 16, RECORD_NAME_AT = 19 };

static void probe_explicit_sizes(size_t *sizes)
{
    char records[1024];
    long got;
    int directory = open("/sys/kernel/mm/hugepages", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return;
    while ((got = vmki_posix_entries(directory, records, sizeof records)) > 0) {
        uint16_t length;
        for (long at = 0; at < got; at += length) {
            memcpy(&length, records + at + RECORD_LENGTH_AT, sizeof length);
            add_size(sizes, size_of_name(records + at + RECORD_NAME_AT));
        }
    }
    (void)close(directory);
}

/* --- all of it -------------------------------------------------------------------------------------------------- */

void vmki_os_probe(vmk_caps *caps)
{
    caps->overcommit = vmki_posix_overcommit_under("");
    caps->physical_memory = vmki_os_physical_memory();
    uint64_t mappings;
    if (vmki_posix_read_number("/proc/sys/vm/max_map_count", &mappings))
        caps->max_mappings = mappings;
    caps->huge_page_size = transparent_size();
    probe_explicit_sizes(caps->huge_sizes);
    probe_features(caps);
    probe_addresses(caps);
}
