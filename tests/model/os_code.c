/* SPDX-License-Identifier: MIT
 *
 * Executable memory of the model OS: the real system's, since code must run, with failures as planned and with the
 * contract checked: whole pages of one live piece, and only such changes as there may be.
 */
/* What the real file needs of files that the model does without. */
#define vmki_os_release model_code_release
#define vmki_posix_mappings_exhausted model_code_mappings_exhausted
#define vmki_os_code_map real_code_map
#define vmki_os_code_access_set real_code_access_set
#define vmki_os_code_unmap real_code_unmap
#include <os_code.c> /* src/posix's or src/win32's */
#undef vmki_os_release
#undef vmki_os_code_map
#undef vmki_os_code_access_set
#undef vmki_os_code_unmap

#include "model/model_private.h"

#if !defined(_WIN32)
void model_code_release(void *base, size_t size)
{
    (void)munmap(base, size);
}

bool model_code_mappings_exhausted(void)
{
    return false;
}
#endif

vmk_status vmki_os_code_map(size_t size, bool twice, void **run, void **write);
vmk_status vmki_os_code_access_set(void *base, size_t size, vmki_os_code_access access);
void vmki_os_code_unmap(size_t size, bool twice, void *run, void *write);

enum { PIECES = 64 };

static struct piece {
    unsigned char *run, *write; /* NULL: none */
    size_t size;
} pieces[PIECES];

static size_t mapped;
static bool forbidden_twice;

/* The piece whose writable side the range lies in. */
static struct piece *piece_of(const void *base, size_t size)
{
    for (size_t i = 0; i < PIECES; i++)
        if (pieces[i].run != NULL && vmki_is_aligned((uintptr_t)base, MODEL_MIN_PAGE) &&
            vmki_is_aligned(size, model.page_size) && size != 0 && (uintptr_t)base >= (uintptr_t)pieces[i].write &&
            vmki_range_within((uintptr_t)base - (uintptr_t)pieces[i].write, size, pieces[i].size))
            return &pieces[i];
    return NULL;
}

static bool enter(void *run, void *write, size_t size)
{
    for (size_t i = 0; i < PIECES; i++)
        if (pieces[i].run == NULL) {
            pieces[i] = (struct piece){run, write, size};
            mapped += size;
            return true;
        }
    return false;
}

vmk_status vmki_os_code_map(size_t size, bool twice, void **run, void **write)
{
    vmk_status status = VMK_OK;
    model_lock();
    if (size == 0 || !vmki_is_aligned(size, model.page_size))
        model_violate("code_map", "no size of whole pages", size);
    if (!model_planned(&status))
        status = twice && forbidden_twice ? VMK_ERR_UNSUPPORTED : real_code_map(size, twice, run, write);
    if (status == VMK_OK && !enter(*run, *write, size))
        model_violate("code_map", "more pieces than the model can keep", size);
    model_unlock();
    return status;
}

vmk_status vmki_os_code_access_set(void *base, size_t size, vmki_os_code_access access)
{
    vmk_status status = VMK_ERR_ARGUMENT;
    model_lock();
    const struct piece *of = piece_of(base, size);
    if (of == NULL)
        model_violate("code_access_set", "no whole pages of one piece", size);
    else if (of->run != of->write && access == VMKI_OS_CODE_EXECUTE)
        model_violate("code_access_set", "executable where it is written", size);
    else if (!model_planned(&status))
        status = real_code_access_set(base, size, access);
    model_unlock();
    return status;
}

void vmki_os_code_unmap(size_t size, bool twice, void *run, void *write)
{
    model_lock();
    struct piece *of = piece_of(write, size);
    if (of == NULL || of->run != run || of->write != write || of->size != size || twice != (run != write)) {
        model_violate("code_unmap", "not a piece that is mapped", size);
    } else {
        mapped -= size;
        of->run = NULL;
        real_code_unmap(size, twice, run, write);
    }
    model_unlock();
}

size_t model_code_mapped(void)
{
    model_lock();
    size_t bytes = mapped;
    model_unlock();
    return bytes;
}

void model_code_forbid_twice(bool forbid)
{
    model_lock();
    forbidden_twice = forbid;
    model_unlock();
}
