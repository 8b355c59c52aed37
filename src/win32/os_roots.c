/* SPDX-License-Identifier: MIT
 *
 * Where a program keeps data for as long as it runs: static data, and what belongs to a thread.
 *
 * No address that is found here is trusted: a library may have been taken out behind the lock, a slot holds whatever
 * the program put there. What is read was asked for with VirtualQuery first, which goes to the kernel.
 *
 * MinGW's _Thread_local is none of the system's: libgcc keeps, in a slot of TlsAlloc's, the address of an array from
 * malloc, whose elements are addresses of the variables. Each variable is in a block from malloc of its own, aligned
 * within it, with the address of the block in the word before. Clang's is the same. In MinGW's POSIX threads, the slot
 * has the address of a record from malloc, which has that of an array of the values of keys, one of which is the
 * address of the array of variables. So the blocks of heaps are followed from the slots on, as deep as that. The
 * variables are found by no other way: the program's code asks libgcc for each.
 */
#include "os_world_private.h"

#include <winternl.h>

#include <string.h>

enum { WORD_SIZE = sizeof(uintptr_t) };

/* --- memory that can be read ------------------------------------------------------------------------------------ */

static bool readable(const MEMORY_BASIC_INFORMATION *info)
{
    const DWORD for_reading = PAGE_READONLY | PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READ |
                              PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
    return info->State == MEM_COMMIT && (info->Protect & for_reading) != 0 && (info->Protect & PAGE_GUARD) == 0;
}

/* The end of the run of equal pages that has `address`. The last of the address space has none that can be told. */
static uintptr_t end_of(const MEMORY_BASIC_INFORMATION *info)
{
    uintptr_t base = (uintptr_t)info->BaseAddress;
    return info->RegionSize > UINTPTR_MAX - base ? UINTPTR_MAX : base + info->RegionSize;
}

void vmki_win32_visit_readable(uintptr_t low, uintptr_t high, vmki_os_range_visitor *visit, void *context)
{
    low = (low + WORD_SIZE - 1) & ~(uintptr_t)(WORD_SIZE - 1);
    high &= ~(uintptr_t)(WORD_SIZE - 1);
    while (low < high) {
        MEMORY_BASIC_INFORMATION info;
        if (VirtualQuery((void *)low, &info, sizeof info) == 0)
            return;
        uintptr_t end = end_of(&info) < high ? end_of(&info) : high;
        if (end <= low)
            return;
        if (readable(&info))
            visit(context, (void *)low, end - low);
        low = end;
    }
}

/* The run that was asked about last. Most of what is asked is in the same few. */
typedef struct run {
    uintptr_t low; /* [low, high) can be read */
    uintptr_t high;
    bool private; /* to the process: no file's, no library's */
} run;

static bool in_run(run *last, uintptr_t low, size_t size)
{
    if (low < last->low || low >= last->high) {
        MEMORY_BASIC_INFORMATION info;
        if (low < 0x10000 || VirtualQuery((void *)low, &info, sizeof info) == 0 || !readable(&info))
            return false;
        last->low = (uintptr_t)info.BaseAddress;
        last->high = end_of(&info);
        last->private = info.Type == MEM_PRIVATE;
    }
    return last->high - low >= size;
}

/* --- libraries -------------------------------------------------------------------------------------------------- */

typedef struct library {
    uintptr_t base;
    size_t tls_size; /* of each thread's block; 0: the library has none */
    DWORD tls_index; /* of the block's address among those of the thread's */
} library;

/* What is loaded, as vmki_os_with_libraries found it. Its list, in the loader, has a lock of its own since Windows 8,
 * which a thread that stands still may own, so it is not asked again. A program with more would be a sight. */
enum { MOST_LIBRARIES = 1024 };
static library libraries[MOST_LIBRARIES];
static size_t library_count;

static void library_add(void *base)
{
    if (base != NULL && library_count < MOST_LIBRARIES)
        libraries[library_count++] = (library){.base = (uintptr_t)base};
}

typedef VOID(NTAPI *each_library)(PLDR_DATA_TABLE_ENTRY entry, PVOID context, BOOLEAN *stop);
typedef NTSTATUS(NTAPI *enumerate_function)(ULONG zero, each_library each, PVOID context);

static VOID NTAPI library_listed(PLDR_DATA_TABLE_ENTRY entry, PVOID context, BOOLEAN *stop)
{
    (void)context;
    (void)stop;
    library_add(entry->DllBase);
}

/* The second reads the list without its lock. */
static void libraries_list(void)
{
    static vmki_win32_lookup known;
    uintptr_t enumerate = vmki_win32_look_up(&known, "LdrEnumerateLoadedModules");
    library_count = 0;
    if (enumerate != 0 && ((enumerate_function)enumerate)(0, library_listed, NULL) >= 0 && library_count > 0)
        return;
    static HMODULE modules[MOST_LIBRARIES];
    DWORD size = 0;
    library_count = 0;
    for (int attempt = 0; attempt < 16; attempt++) /* it fails where the list changed meanwhile */
        if (EnumProcessModules(GetCurrentProcess(), modules, sizeof modules, &size))
            break;
    for (size_t i = 0; i < MOST_LIBRARIES && i < size / sizeof *modules; i++)
        library_add(modules[i]);
}

/* NULL: there are none, or they can't be read; some programs wipe theirs out. */
static const IMAGE_NT_HEADERS *headers_of(uintptr_t base)
{
    run first = {0};
    if (!in_run(&first, base, sizeof(IMAGE_DOS_HEADER)))
        return NULL;
    const IMAGE_DOS_HEADER *dos = (const IMAGE_DOS_HEADER *)base;
    if (dos->e_magic != IMAGE_DOS_SIGNATURE || dos->e_lfanew < 0)
        return NULL;
    size_t at = (size_t)dos->e_lfanew;
    size_t room = first.high - base;
    if (at % 4 != 0 || at > room || sizeof(IMAGE_NT_HEADERS) > room - at)
        return NULL;
    const IMAGE_NT_HEADERS *headers = (const IMAGE_NT_HEADERS *)(base + at);
    if (headers->Signature != IMAGE_NT_SIGNATURE || headers->OptionalHeader.Magic != IMAGE_NT_OPTIONAL_HDR_MAGIC)
        return NULL;
    const char *sections = (const char *)IMAGE_FIRST_SECTION(headers);
    size_t size = headers->FileHeader.NumberOfSections * sizeof(IMAGE_SECTION_HEADER);
    return size <= room - (size_t)((uintptr_t)sections - base) ? headers : NULL;
}

/* The directory has addresses, not offsets, and in a library that is just being loaded they may be those of the file.
 */
static void library_find_tls(library *one)
{
    const IMAGE_NT_HEADERS *headers = headers_of(one->base);
    if (headers == NULL || headers->OptionalHeader.NumberOfRvaAndSizes <= IMAGE_DIRECTORY_ENTRY_TLS)
        return;
    uintptr_t image = headers->OptionalHeader.SizeOfImage;
    uintptr_t at = headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_TLS].VirtualAddress;
    run last = {0};
    if (at == 0 || at >= image || !in_run(&last, one->base + at, sizeof(IMAGE_TLS_DIRECTORY)))
        return;
    const IMAGE_TLS_DIRECTORY *directory = (const IMAGE_TLS_DIRECTORY *)(one->base + at);
    uintptr_t index = directory->AddressOfIndex;
    if (index - one->base >= image || !in_run(&last, index, sizeof(DWORD)))
        return;
    size_t from_file = directory->EndAddressOfRawData - directory->StartAddressOfRawData;
    one->tls_index = *(const DWORD *)index;
    one->tls_size = (from_file < image ? from_file : 0) + directory->SizeOfZeroFill;
}

/* --- heaps ------------------------------------------------------------------------------------------------------ */

/* Those that malloc's blocks may be in. The process's own comes last. */
enum { MOST_HEAPS = 8 };
static HANDLE heaps[MOST_HEAPS];
static size_t heap_count;
static bool heaps_forbidden;

void vmki_win32_heaps_forbid(bool forbidden)
{
    heaps_forbidden = forbidden;
}

/* HeapValidate is what can be asked about any address; the C library of debug builds asks it about every one that is
 * passed to free(). But with a debugger attached it stops the program where the answer is no. And what it locks is
 * known of the heaps that there have always been alone, which have this mark: they have one lock, and taking it twice
 * is allowed. The segment heap, of programs that wish for it, has another mark, and more locks. */
static bool heap_can_be_asked(HANDLE heap)
{
    run last = {0};
    const uintptr_t mark = (uintptr_t)heap + 2 * WORD_SIZE;
    return in_run(&last, mark, sizeof(DWORD)) && *(const DWORD *)mark == 0xffeeffee;
}

static void heap_add(HANDLE heap)
{
    for (size_t i = 0; i < heap_count; i++)
        if (heaps[i] == heap)
            return;
    if (heap != NULL && heap_count < MOST_HEAPS && heap_can_be_asked(heap))
        heaps[heap_count++] = heap;
}

/* The C libraries that MinGW links programs with. Others' heaps are not needed: their compilers have _Thread_local from
 * the system. */
static void heaps_find(void)
{
    static const wchar_t *const names[] = {L"msvcrt.dll",   L"ucrtbase.dll", L"msvcr120.dll",
                                           L"msvcr110.dll", L"msvcr100.dll", L"msvcr90.dll"};
    heap_count = 0;
    if (heaps_forbidden || IsDebuggerPresent())
        return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        HMODULE module = GetModuleHandleW(names[i]);
        uintptr_t ask = module != NULL ? (uintptr_t)GetProcAddress(module, "_get_heap_handle") : 0;
        if (ask != 0 && heap_count < MOST_HEAPS - 1)
            heap_add((HANDLE)((intptr_t(__cdecl *)(void))ask)());
    }
    heap_add(GetProcessHeap());
}

/* --- with all of these held ------------------------------------------------------------------------------------- */

typedef NTSTATUS(NTAPI *lock_function)(ULONG flags, ULONG *state, ULONG_PTR *cookie);
typedef NTSTATUS(NTAPI *unlock_function)(ULONG flags, ULONG_PTR cookie);

/* The loader's lock, which a thread may take again; then ours, for what is kept in this file; then heaps, the process's
 * last: the loader allocates with its lock held, and a heap's code asks for no lock but the process's heap's. All are
 * there before any thread is stopped within. LdrLockLoaderLock is there since Windows XP; should it be missing, nothing
 * keeps libraries, and what has gone meanwhile is passed over. */
void vmki_os_with_libraries(void (*body)(void *argument), void *argument)
{
    static vmki_win32_lookup lock_known;
    static vmki_win32_lookup unlock_known;
    static vmki_os_lock ours;
    uintptr_t lock = vmki_win32_look_up(&lock_known, "LdrLockLoaderLock");
    uintptr_t unlock = vmki_win32_look_up(&unlock_known, "LdrUnlockLoaderLock");
    ULONG_PTR cookie = 0;
    bool locked = lock != 0 && unlock != 0 && ((lock_function)lock)(0, NULL, &cookie) >= 0;
    vmki_os_lock_acquire(&ours);
    libraries_list();
    for (size_t i = 0; i < library_count; i++)
        library_find_tls(&libraries[i]);
    heaps_find();
    for (size_t i = 0; i < heap_count; i++)
        HeapLock(heaps[i]);
    body(argument);
    for (size_t i = heap_count; i-- > 0;)
        HeapUnlock(heaps[i]);
    vmki_os_lock_release(&ours);
    if (locked)
        ((unlock_function)unlock)(0, cookie);
}

/* --- static data ------------------------------------------------------------------------------------------------ */

/* Without headers: what the process may write to, in the run of pages that were mapped as one. */
static void visit_writable(uintptr_t base, vmki_os_range_visitor *visit, void *context)
{
    const DWORD for_writing = PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
    MEMORY_BASIC_INFORMATION info;
    for (uintptr_t at = base; VirtualQuery((void *)at, &info, sizeof info) != 0; at = end_of(&info)) {
        if ((uintptr_t)info.AllocationBase != base || end_of(&info) <= at)
            return;
        if (readable(&info) && (info.Protect & for_writing) != 0)
            visit(context, (void *)at, end_of(&info) - at);
    }
}

/* By section, not by what may be written now: a program may protect its variables for a while. */
static void visit_library(uintptr_t base, vmki_os_range_visitor *visit, void *context)
{
    const IMAGE_NT_HEADERS *headers = headers_of(base);
    if (headers == NULL) {
        visit_writable(base, visit, context);
        return;
    }
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(headers);
    size_t image = headers->OptionalHeader.SizeOfImage;
    for (size_t i = 0; i < headers->FileHeader.NumberOfSections; i++, section++) {
        size_t at = section->VirtualAddress;
        size_t size = section->Misc.VirtualSize != 0 ? section->Misc.VirtualSize : section->SizeOfRawData;
        if ((section->Characteristics & IMAGE_SCN_MEM_WRITE) == 0 || at >= image)
            continue;
        size = size < image - at ? size : image - at;
        vmki_win32_visit_readable(base + at, base + at + size, visit, context);
    }
}

void vmki_os_static_data(vmki_os_range_visitor *visit, void *context)
{
    for (size_t i = 0; i < library_count; i++)
        visit_library(libraries[i].base, visit, context);
}

/* --- blocks, from slots on -------------------------------------------------------------------------------------- */

/* Where heaps can't be asked how large a block is, this much of it is visited. */
enum { WINDOW = 4096 };

/* How much further addresses in the first block are followed: from the record of a thread of MinGW's POSIX threads to
 * its keys' values, to the array of variables, to the variables. The record has no mark that would tell it from other
 * blocks: of threads that others started, the main thread too, it begins with 0. From FLS it is one less. What else is
 * found on the way is visited as well, which holds on to more than need be, and to what a program keeps in blocks of
 * its own. */
enum { DEPTH = 3 };

enum { MOST_SEEN = 1024, MOST_WAITING = 256, LARGEST_FOLLOWED = 0x10000, LARGEST_ALIGNMENT = 4096 };

typedef struct block {
    uintptr_t base;
    size_t size;
    unsigned depth;
} block;

/* One at a time: see vmki_os_with_libraries. It is not on the stack, which may be small. */
static struct search {
    vmki_os_range_visitor *visit;
    void *context;
    run last;
    size_t seen_count;
    size_t waiting_count;
    block waiting[MOST_WAITING];
    struct {
        uintptr_t base;
        unsigned depth;
    } seen[MOST_SEEN]; /* by hash; base 0: free */
} search;

/* A block whose address this is. */
static bool block_at(uintptr_t address, block *found)
{
    if (address % (2 * WORD_SIZE) != 0 || !in_run(&search.last, address - 2 * WORD_SIZE, 3 * WORD_SIZE) ||
        !search.last.private)
        return false;
    found->base = address;
    for (size_t i = 0; i < heap_count; i++) {
        if (!HeapValidate(heaps[i], 0, (void *)address))
            continue;
        found->size = HeapSize(heaps[i], 0, (void *)address);
        return found->size != (SIZE_T)-1;
    }
    size_t room = search.last.high - address;
    found->size = room < WINDOW ? room : WINDOW;
    return heap_count == 0;
}

/* A block that the address is of, or that a variable with this address is in. */
static bool block_of(uintptr_t address, block *found)
{
    if (address % WORD_SIZE != 0 || !in_run(&search.last, address - WORD_SIZE, 2 * WORD_SIZE))
        return false;
    uintptr_t before = *(const uintptr_t *)(address - WORD_SIZE);
    if (address - before - WORD_SIZE < LARGEST_ALIGNMENT && block_at(before, found)) {
        if (heap_count == 0) {
            found->size += address - before;
            return true;
        }
        if (address - before <= found->size)
            return true;
    }
    return block_at(address, found);
}

/* False where it was followed as deeply before. */
static bool note(uintptr_t base, unsigned depth)
{
    size_t at = (base >> 4) % MOST_SEEN;
    while (search.seen[at].base != 0 && search.seen[at].base != base)
        at = (at + 1) % MOST_SEEN;
    if (search.seen[at].base == base && search.seen[at].depth >= depth)
        return false;
    search.seen_count += search.seen[at].base == 0;
    search.seen[at].base = base;
    search.seen[at].depth = depth;
    return true;
}

static void follow(uintptr_t address, unsigned depth)
{
    block found;
    if (!block_of(address, &found))
        return;
    bool room = search.seen_count < MOST_SEEN / 4 * 3 && search.waiting_count < MOST_WAITING;
    if (room && !note(found.base, depth))
        return;
    vmki_win32_visit_readable(found.base, found.base + found.size, search.visit, search.context);
    if (room && depth > 0 && found.size <= LARGEST_FOLLOWED) {
        found.depth = depth - 1;
        search.waiting[search.waiting_count++] = found;
    }
}

static void follow_words(void *context, const void *base, size_t size)
{
    const uintptr_t *words = base;
    for (size_t i = 0; i < size / WORD_SIZE; i++)
        if (words[i] != 0)
            follow(words[i], *(const unsigned *)context);
}

static void follow_waiting(void)
{
    while (search.waiting_count > 0) {
        block next = search.waiting[--search.waiting_count];
        vmki_win32_visit_readable(next.base, next.base + next.size, follow_words, &next.depth);
    }
}

/* --- a thread's ------------------------------------------------------------------------------------------------- */

static void visit_slots(uintptr_t base, size_t count, vmki_os_range_visitor *visit, void *context)
{
    unsigned depth = DEPTH;
    vmki_win32_visit_readable(base, base + count * WORD_SIZE, visit, context);
    vmki_win32_visit_readable(base, base + count * WORD_SIZE, follow_words, &depth);
    follow_waiting();
}

/* What compilers and the system do together: MSVC's, and clang's in its manner. */
static void visit_native(uintptr_t blocks, vmki_os_range_visitor *visit, void *context)
{
    run last = {0};
    for (size_t i = 0; blocks != 0 && i < library_count; i++) {
        uintptr_t at = blocks + libraries[i].tls_index * (uintptr_t)WORD_SIZE;
        if (libraries[i].tls_size == 0 || !in_run(&last, at, WORD_SIZE))
            continue;
        uintptr_t base = *(const uintptr_t *)at;
        if (base != 0 && libraries[i].tls_size < UINTPTR_MAX - base)
            vmki_win32_visit_readable(base, base + libraries[i].tls_size, visit, context);
    }
}

/* FLS: the environment block has the address of what has the values (until Windows 10 2004), or what has the addresses
 * of arrays of them (since, and Wine); both in the process's heap. A thread on a fiber has the fiber's there. */
void vmki_os_thread_data(const vmki_os_mutator *mutator, vmki_os_range_visitor *visit, void *context)
{
    const void *teb = (const void *)mutator->system[VMKI_WIN32_THREAD_BLOCK];
    if (teb == NULL)
        return;
    memset(&search, 0, sizeof search);
    search.visit = visit;
    search.context = context;
    visit_slots((uintptr_t)teb + VMKI_TEB_TLS_SLOTS, VMKI_TEB_SLOTS, visit, context);
    uintptr_t more = (uintptr_t)vmki_win32_teb_word(teb, VMKI_TEB_TLS_MORE);
    if (more != 0)
        visit_slots(more, VMKI_TEB_MORE_SLOTS, visit, context);
    follow((uintptr_t)vmki_win32_teb_word(teb, VMKI_TEB_FLS), DEPTH);
    follow_waiting();
    visit_native((uintptr_t)vmki_win32_teb_word(teb, VMKI_TEB_TLS_BLOCKS), visit, context);
}
