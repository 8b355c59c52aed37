/* SPDX-License-Identifier: MIT
 *
 * Memory that can be mapped more than once: files, and what has no name; its views and rings.
 *
 * Memory without a name is a section of the paging file: its size is charged at once and stays as it is. A file's
 * handle is the file's own, and each view makes itself a section of the size that the file has by then; so a file may
 * grow, and views that are there already neither hinder that nor know of it. Sections of the same file show the same
 * memory.
 *
 * A ring's place is reserved as placeholders (Windows 10, version 1803), which the halves replace: nobody can get in
 * between. Without them it is found by reserving, given back, and mapped with the hope that nobody was faster.
 *
 * There are no snapshots that share pages. A view can be mapped copy-on-write, but not in the place of another in one
 * step where placeholders are missing, and which of its pages are copies QueryWorkingSetEx tells of resident pages
 * alone.
 */
#include "win32/os_service_private.h"

#include "common/base/os_service.h"

static HANDLE as_handle(uintptr_t handle)
{
    return (HANDLE)handle;
}

static DWORD high_half(uint64_t value)
{
    return (DWORD)(value >> 32);
}

static DWORD low_half(uint64_t value)
{
    return (DWORD)(value & 0xffffffffu);
}

static void close_quietly(HANDLE handle)
{
    DWORD error = GetLastError();
    CloseHandle(handle);
    SetLastError(error);
}

/* Out of handles or memory, not out of luck with this way. */
static bool is_shortage(DWORD error)
{
    return error == ERROR_TOO_MANY_OPEN_FILES || error == ERROR_NOT_ENOUGH_MEMORY || error == ERROR_OUTOFMEMORY ||
           error == ERROR_NO_SYSTEM_RESOURCES || error == ERROR_NOT_ENOUGH_QUOTA || error == ERROR_COMMITMENT_LIMIT ||
           error == ERROR_COMMITMENT_MINIMUM || error == ERROR_PAGEFILE_QUOTA;
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* Refused for lack of memory, whatever the code; Wine says that a disk is full. */
vmk_status vmki_os_memory_create(uint64_t size, uintptr_t *handle)
{
    HANDLE section =
        CreateFileMappingW(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, high_half(size), low_half(size), NULL);
    if (section == NULL)
        return VMK_ERR_COMMIT;
    *handle = (uintptr_t)section;
    return VMK_OK;
}

/* On the process's own heap, for it may be 32 Ki characters. NULL where it is no UTF-8, or there is no memory. */
static wchar_t *wide_path(const char *path)
{
    int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *wide = length > 0 ? HeapAlloc(GetProcessHeap(), 0, (size_t)length * sizeof *wide) : NULL;
    if (wide != NULL)
        (void)MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, length);
    else if (length > 0)
        SetLastError(ERROR_NOT_ENOUGH_MEMORY);
    return wide;
}

static HANDLE open_file(const char *path, unsigned flags)
{
    wchar_t *wide = wide_path(path);
    if (wide == NULL)
        return INVALID_HANDLE_VALUE;
    DWORD access = GENERIC_READ | ((flags & VMK_MEMORY_WRITE) != 0 ? GENERIC_WRITE : 0);
    HANDLE file =
        CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                    (flags & VMK_MEMORY_CREATE) != 0 ? OPEN_ALWAYS : OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    DWORD error = GetLastError();
    HeapFree(GetProcessHeap(), 0, wide);
    SetLastError(error);
    return file;
}

vmk_status vmki_os_memory_open(const char *path, unsigned flags, uintptr_t *handle, uint64_t *size)
{
    HANDLE file = open_file(path, flags);
    LARGE_INTEGER length;
    if (file == INVALID_HANDLE_VALUE)
        return is_shortage(GetLastError()) ? VMK_ERR_COMMIT : VMK_ERR_TAKEN;
    if (GetFileType(file) != FILE_TYPE_DISK || !GetFileSizeEx(file, &length)) {
        CloseHandle(file);
        SetLastError(ERROR_NOT_SUPPORTED);
        return VMK_ERR_TAKEN;
    }
    *handle = (uintptr_t)file;
    *size = (uint64_t)length.QuadPart;
    return VMK_OK;
}

/* That it is a section, may be used so, and how large it is, is seen by mapping all of it once. */
vmk_status vmki_os_memory_import(uintptr_t handle, unsigned *flags, uint64_t *size)
{
    MEMORY_BASIC_INFORMATION info;
    DWORD access = (*flags & VMK_MEMORY_WRITE) != 0 ? FILE_MAP_WRITE : FILE_MAP_READ;
    if (as_handle(handle) == INVALID_HANDLE_VALUE) {
        SetLastError(ERROR_INVALID_HANDLE);
        return VMK_ERR_ARGUMENT;
    }
    void *all = MapViewOfFile(as_handle(handle), access, 0, 0, 0);
    if (all == NULL)
        return is_shortage(GetLastError()) ? VMK_ERR_COMMIT : VMK_ERR_ARGUMENT;
    bool told = VirtualQuery(all, &info, sizeof info) != 0;
    UnmapViewOfFile(all);
    if (!told || !SetHandleInformation(as_handle(handle), HANDLE_FLAG_INHERIT, 0))
        return VMK_ERR_ARGUMENT;
    *size = info.RegionSize;
    return VMK_OK;
}

vmk_status vmki_os_memory_resize(uintptr_t handle, unsigned flags, uint64_t *size)
{
    LARGE_INTEGER length;
    if ((flags & VMK_MEMORY_FILE) == 0) {
        SetLastError(ERROR_NOT_SUPPORTED);
        return VMK_ERR_UNSUPPORTED;
    }
    if (!GetFileSizeEx(as_handle(handle), &length))
        return VMK_ERR_COMMIT;
    if ((uint64_t)length.QuadPart >= *size) { /* somebody else has done it */
        *size = (uint64_t)length.QuadPart;
        return VMK_OK;
    }
    FILE_END_OF_FILE_INFO end = {.EndOfFile.QuadPart = (LONGLONG)*size};
    return SetFileInformationByHandle(as_handle(handle), FileEndOfFileInfo, &end, sizeof end) ? VMK_OK : VMK_ERR_COMMIT;
}

vmk_status vmki_os_memory_duplicate(uintptr_t handle, bool inherited, uintptr_t *copy)
{
    HANDLE made, self = GetCurrentProcess();
    if (!DuplicateHandle(self, as_handle(handle), self, &made, 0, inherited, DUPLICATE_SAME_ACCESS))
        return VMK_ERR_COMMIT;
    *copy = (uintptr_t)made;
    return VMK_OK;
}

void vmki_os_memory_close(uintptr_t handle)
{
    CloseHandle(as_handle(handle));
}

/* --- views ------------------------------------------------------------------------------------------------------ */

/* ERROR_NOT_ENOUGH_MEMORY is about address space here; the charge of a copy-on-write view has codes of its own. */
static vmk_status refused_view(void)
{
    DWORD error = GetLastError();
    if (error == ERROR_NOT_ENOUGH_MEMORY || error == ERROR_INVALID_ADDRESS)
        return VMK_ERR_ADDRESS_SPACE;
    return is_shortage(error) ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
}

static vmk_status map_section(HANDLE section, uint64_t offset, size_t size, vmk_view_kind kind, void **base)
{
    static const DWORD accesses[] = {FILE_MAP_READ, FILE_MAP_WRITE, FILE_MAP_COPY};
    void *got = MapViewOfFile(section, accesses[kind], high_half(offset), low_half(offset), size);
    if (got == NULL)
        return refused_view();
    *base = got;
    return VMK_OK;
}

/* A section of what the file is now; asking for more would make it larger. */
static vmk_status map_file(HANDLE file, uint64_t offset, size_t size, vmk_view_kind kind, void **base)
{
    static const DWORD protections[] = {PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY};
    LARGE_INTEGER length;
    if (!GetFileSizeEx(file, &length))
        return VMK_ERR_UNSUPPORTED;
    if (offset + size > (uint64_t)length.QuadPart) { /* somebody has made it shorter */
        SetLastError(ERROR_HANDLE_EOF);
        return VMK_ERR_ARGUMENT;
    }
    HANDLE section = CreateFileMappingW(file, NULL, protections[kind], 0, 0, NULL);
    if (section == NULL)
        return is_shortage(GetLastError()) ? VMK_ERR_COMMIT : VMK_ERR_UNSUPPORTED;
    vmk_status status = map_section(section, offset, size, kind, base);
    close_quietly(section);
    return status;
}

vmk_status vmki_os_view_map(uintptr_t handle, unsigned flags, uint64_t offset, size_t size, vmk_view_kind kind,
                            void **base)
{
    if ((flags & VMK_MEMORY_FILE) != 0)
        return map_file(as_handle(handle), offset, size, kind, base);
    return map_section(as_handle(handle), offset, size, kind, base);
}

void vmki_os_view_unmap(void *base, size_t size)
{
    (void)size;
    UnmapViewOfFile(base);
}

vmk_status vmki_os_view_remap(void **base, size_t size, size_t new_size)
{
    (void)base;
    (void)size;
    (void)new_size;
    SetLastError(ERROR_NOT_SUPPORTED);
    return VMK_ERR_UNSUPPORTED;
}

/* The first hands the pages to the file system, the second waits for the disk. */
vmk_status vmki_os_view_flush(void *base, size_t size, uintptr_t handle, unsigned flags)
{
    (void)flags;
    return FlushViewOfFile(base, size) && FlushFileBuffers(as_handle(handle)) ? VMK_OK : VMK_ERR_COMMIT;
}

/* --- rings ------------------------------------------------------------------------------------------------------ */

/* Flags of Windows 10, which older headers lack. */
#define RESERVE_PLACEHOLDER 0x00040000u  /* MEM_RESERVE_PLACEHOLDER */
#define REPLACE_PLACEHOLDER 0x00004000u  /* MEM_REPLACE_PLACEHOLDER */
#define PRESERVE_PLACEHOLDER 0x00000002u /* MEM_PRESERVE_PLACEHOLDER */

typedef void *(WINAPI *virtual_alloc2)(HANDLE, void *, size_t, ULONG, ULONG, void *, ULONG);
typedef void *(WINAPI *map_view_of_file3)(HANDLE, HANDLE, void *, ULONG64, size_t, ULONG, ULONG, void *, ULONG);

static bool placeholders_forbidden;

void vmki_win32_placeholders_forbid(bool forbidden)
{
    VMKI_STORE_RELAXED(&placeholders_forbidden, forbidden);
}

/* One reservation, split in two: each half is given back by itself from now on. NULL: there are no placeholders, or no
 * room. */
static unsigned char *reserve_halves(virtual_alloc2 alloc2, size_t size)
{
    unsigned char *place =
        alloc2(GetCurrentProcess(), NULL, 2 * size, MEM_RESERVE | RESERVE_PLACEHOLDER, PAGE_NOACCESS, NULL, 0);
    if (place != NULL && !VirtualFree(place, size, MEM_RELEASE | PRESERVE_PLACEHOLDER)) {
        DWORD error = GetLastError();
        VirtualFree(place, 0, MEM_RELEASE);
        SetLastError(error);
        return NULL;
    }
    return place;
}

/* VMK_ERR_UNSUPPORTED: without placeholders. Wine knows the functions, and calls the flags an invalid parameter. */
static vmk_status map_in_placeholders(HANDLE section, size_t size, void **base)
{
    static vmki_win32_lookup alloc2_lookup, map3_lookup;
    virtual_alloc2 alloc2 = (virtual_alloc2)vmki_win32_look_up(&alloc2_lookup, "VirtualAlloc2");
    map_view_of_file3 map3 = (map_view_of_file3)vmki_win32_look_up(&map3_lookup, "MapViewOfFile3");
    if (alloc2 == NULL || map3 == NULL || VMKI_LOAD_RELAXED(&placeholders_forbidden))
        return VMK_ERR_UNSUPPORTED;
    unsigned char *place = reserve_halves(alloc2, size);
    if (place == NULL)
        return GetLastError() == ERROR_INVALID_PARAMETER ? VMK_ERR_UNSUPPORTED : refused_view();
    HANDLE self = GetCurrentProcess();
    if (map3(section, self, place, 0, size, REPLACE_PLACEHOLDER, PAGE_READWRITE, NULL, 0) == NULL) {
        vmk_status status = refused_view();
        DWORD error = GetLastError();
        VirtualFree(place, 0, MEM_RELEASE);
        VirtualFree(place + size, 0, MEM_RELEASE);
        SetLastError(error);
        return status;
    }
    if (map3(section, self, place + size, 0, size, REPLACE_PLACEHOLDER, PAGE_READWRITE, NULL, 0) == NULL) {
        vmk_status status = refused_view();
        DWORD error = GetLastError();
        UnmapViewOfFile(place);
        VirtualFree(place + size, 0, MEM_RELEASE);
        SetLastError(error);
        return status;
    }
    *base = place;
    return VMK_OK;
}

/* Error 487 says that somebody has taken the place. */
static vmk_status map_by_luck(HANDLE section, size_t size, void **base)
{
    unsigned char *place = VirtualAlloc(NULL, 2 * size, MEM_RESERVE, PAGE_NOACCESS);
    if (place == NULL)
        return VMK_ERR_ADDRESS_SPACE;
    VirtualFree(place, 0, MEM_RELEASE);
    void *low = MapViewOfFileEx(section, FILE_MAP_WRITE, 0, 0, size, place);
    void *high = low != NULL ? MapViewOfFileEx(section, FILE_MAP_WRITE, 0, 0, size, place + size) : NULL;
    if (high == NULL) {
        DWORD error = GetLastError();
        vmk_status status = error == ERROR_INVALID_ADDRESS ? VMK_ERR_TAKEN : refused_view();
        if (low != NULL)
            UnmapViewOfFile(low);
        SetLastError(error);
        return status;
    }
    *base = place;
    return VMK_OK;
}

vmk_status vmki_os_ring_map(uintptr_t handle, size_t size, void **base)
{
    vmk_status status = map_in_placeholders(as_handle(handle), size, base);
    return status == VMK_ERR_UNSUPPORTED ? map_by_luck(as_handle(handle), size, base) : status;
}

void vmki_os_ring_unmap(void *base, size_t size)
{
    UnmapViewOfFile(base);
    UnmapViewOfFile((unsigned char *)base + size);
}

/* --- snapshots -------------------------------------------------------------------------------------------------- */

vmk_status vmki_os_snapshot_take(uintptr_t handle, void *view, uint64_t offset, size_t size, void **frozen)
{
    (void)handle;
    (void)view;
    (void)offset;
    (void)size;
    (void)frozen;
    SetLastError(ERROR_NOT_SUPPORTED);
    return VMK_ERR_UNSUPPORTED;
}

vmk_status vmki_os_snapshot_drop(uintptr_t handle, void *view, uint64_t offset, size_t size, void *frozen)
{
    (void)handle;
    (void)view;
    (void)offset;
    (void)size;
    (void)frozen;
    SetLastError(ERROR_NOT_SUPPORTED);
    return VMK_ERR_UNSUPPORTED;
}

/* --- the record of capabilities --------------------------------------------------------------------------------- */

static bool try_ring(HANDLE section, size_t size, vmk_status (*map)(HANDLE, size_t, void **))
{
    void *base;
    if (map(section, size, &base) != VMK_OK)
        return false;
    volatile unsigned char *ring = base;
    ring[0]++;
    bool works = ring[size] == ring[0];
    vmki_os_ring_unmap(base, size);
    return works;
}

void vmki_os_probe_memory(vmk_caps *caps)
{
    uintptr_t section;
    size_t size = vmki_max(caps->granularity, 65536); /* the system's own, whatever a test says it is */
    if (vmki_os_memory_create(size, &section) != VMK_OK)
        return;
    caps->features |= VMK_CAP_MEMORY;
    if (try_ring(as_handle(section), size, map_in_placeholders))
        caps->features |= VMK_CAP_RING;
    vmki_os_memory_close(section);
}
