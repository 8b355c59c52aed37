/* SPDX-License-Identifier: MIT
 *
 * See extents.h. Nodes come from a handful of static ones, so that a program with few regions makes no system call for
 * them, then from slabs that are reserved and committed whole: their pages cost memory only when they are touched.
 */
#include "common/vm/extents.h"

#include "common/base/check.h"
#include "common/base/os.h"

enum { FIRST_NODES = 16, SLAB_SIZE = 64 * 1024 };

static struct {
    vmki_extent *free;  /* linked by `left`, */
    size_t free_count;  /* and how many they are */
    vmki_extent *fresh; /* never used yet: [fresh, fresh_limit) */
    vmki_extent *fresh_limit;
    size_t overhead;
    size_t random;
    vmki_extent first[FIRST_NODES];
} pool = {.fresh = pool.first, .fresh_limit = pool.first + FIRST_NODES, .random = (size_t)0x9e3779b97f4a7c15u};

static bool pool_has(size_t count)
{
    return pool.free_count + (size_t)(pool.fresh_limit - pool.fresh) >= count;
}

static void extent_free(vmki_extent *extent)
{
    extent->left = pool.free;
    pool.free = extent;
    pool.free_count++;
}

vmk_status vmki_extents_prepare(size_t count)
{
    VMKI_DCHECK(count <= SLAB_SIZE / sizeof(vmki_extent));
    if (VMKI_LIKELY(pool_has(count)))
        return VMK_OK;
    size_t page_size, granularity;
    vmki_os_page_facts(&page_size, &granularity);
    vmki_os_request request = {.size = vmki_max(SLAB_SIZE, granularity), .align = granularity};
    void *slab;
    vmk_status status = vmki_os_reserve(&request, &slab);
    if (status != VMK_OK)
        return status;
    status = vmki_os_commit(slab, request.size);
    if (status != VMK_OK) {
        vmki_os_error why = vmki_os_error_get();
        vmki_os_release(slab, request.size);
        vmki_os_error_set(why);
        return status;
    }
    while (pool.fresh != pool.fresh_limit)
        extent_free(pool.fresh++);
    pool.fresh = slab;
    pool.fresh_limit = pool.fresh + request.size / sizeof(vmki_extent);
    pool.overhead += request.size;
    return VMK_OK;
}

size_t vmki_extents_overhead(void)
{
    return pool.overhead;
}

/* The paper's ranks are geometric, to save bits; whole random words make ties rare instead. Marsaglia's xorshift. */
static size_t pool_random(void)
{
    size_t x = pool.random;
    x ^= x << 13;
    x ^= x >> (sizeof x == 8 ? 7 : 17);
    x ^= x << (sizeof x == 8 ? 17 : 5);
    pool.random = x;
    return x;
}

static vmki_extent *extent_make(uintptr_t base, uintptr_t limit)
{
    VMKI_ASSERT(pool_has(1));
    vmki_extent *made = pool.free;
    if (made != NULL) {
        pool.free = made->left;
        pool.free_count--;
    } else {
        made = pool.fresh++;
    }
    *made = (vmki_extent){.base = base, .limit = limit, .rank = pool_random()};
    return made;
}

vmki_extent *vmki_extents_above(vmki_extent *root, uintptr_t address)
{
    vmki_extent *found = NULL;
    while (root != NULL) {
        if (root->limit > address) {
            found = root;
            root = root->left;
        } else {
            root = root->right;
        }
    }
    return found;
}

/* Link a new node in: walk down while the ranks there are higher, then unzip the subtree met into what is below and
 * above. */
static void extent_link(vmki_extent **root, vmki_extent *added)
{
    vmki_extent **link = root;
    while (*link != NULL && (*link)->rank >= added->rank)
        link = added->base < (*link)->base ? &(*link)->left : &(*link)->right;
    vmki_extent *below = *link;
    *link = added;
    vmki_extent **less = &added->left;
    vmki_extent **more = &added->right;
    while (below != NULL) {
        if (below->base < added->base) {
            *less = below;
            less = &below->right;
            below = below->right;
        } else {
            *more = below;
            more = &below->left;
            below = below->left;
        }
    }
    *less = NULL;
    *more = NULL;
}

/* Take a member out: zip its two subtrees into one in its place. */
static void extent_unlink(vmki_extent **root, vmki_extent *removed)
{
    vmki_extent **link = root;
    while (*link != removed)
        link = removed->base < (*link)->base ? &(*link)->left : &(*link)->right;
    vmki_extent *less = removed->left;
    vmki_extent *more = removed->right;
    while (less != NULL && more != NULL) {
        if (less->rank >= more->rank) {
            *link = less;
            link = &less->right;
            less = less->right;
        } else {
            *link = more;
            link = &more->left;
            more = more->left;
        }
    }
    *link = less != NULL ? less : more;
}

void vmki_extents_insert(vmki_extent **root, uintptr_t base, uintptr_t limit)
{
    vmki_extent *first = vmki_extents_above(*root, base - 1); /* the first that ends at `base` or later */
    if (first == NULL || first->base > limit) {
        extent_link(root, extent_make(base, limit));
        return;
    }
    if (first->base > base)
        first->base = base; /* keeps the order: what is before it ends before `base` */
    for (;;) {
        vmki_extent *next = vmki_extents_above(*root, first->limit);
        if (next == NULL || next->base > limit)
            break;
        extent_unlink(root, next);
        first->limit = next->limit;
        extent_free(next);
    }
    if (first->limit < limit)
        first->limit = limit;
}

void vmki_extents_remove(vmki_extent **root, uintptr_t base, uintptr_t limit)
{
    for (;;) {
        vmki_extent *next = vmki_extents_above(*root, base);
        if (next == NULL || next->base >= limit)
            return;
        if (next->base < base) {
            uintptr_t rest = next->limit;
            next->limit = base;
            if (rest > limit) {
                extent_link(root, extent_make(limit, rest));
                return;
            }
        } else if (next->limit > limit) {
            next->base = limit;
            return;
        } else {
            extent_unlink(root, next);
            extent_free(next);
        }
    }
}

void vmki_extents_clear(vmki_extent **root)
{
    /* Always the root, whose subtrees zip in time proportional to their common depth: no stack is needed. */
    while (*root != NULL) {
        vmki_extent *removed = *root;
        extent_unlink(root, removed);
        extent_free(removed);
    }
}

size_t vmki_extents_size(const vmki_extent *root)
{
    return root == NULL ? 0 : root->limit - root->base + vmki_extents_size(root->left) + vmki_extents_size(root->right);
}

/* [base, limit) is where the subtree's members may lie; neighbours above it must leave a gap, hence the +1 and -1. */
bool vmki_extents_check(const vmki_extent *root, uintptr_t base, uintptr_t limit)
{
    if (root == NULL)
        return true;
    if (root->base >= root->limit || root->base < base || root->limit > limit)
        return false;
    if ((root->left != NULL && root->left->rank > root->rank) ||
        (root->right != NULL && root->right->rank > root->rank))
        return false;
    return vmki_extents_check(root->left, base, root->base - 1) &&
           vmki_extents_check(root->right, root->limit + 1, limit);
}
