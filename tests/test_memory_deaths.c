/* SPDX-License-Identifier: MIT
 *
 * Misuse of memory, views, snapshots and rings: each ends the program and says why. See test_deaths.c.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/compiler.h"
#include "support.h"

static vmk_memory memory;
static vmk_view view;
static vmk_snapshot snapshot;
static vmk_ring ring;

static void must(vmk_status status)
{
    if (status != VMK_OK)
        exit(9);
}

static void make_view(void)
{
    must(vmk_memory_init(&memory, 1));
    must(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_SHARED));
}

static void end_memory_twice(void)
{
    must(vmk_memory_init(&memory, 1));
    vmk_memory_fini(&memory);
    vmk_memory_fini(&memory);
}

static void end_no_memory(void)
{
    vmk_memory_fini(&memory);
}

static void map_ended(void)
{
    make_view();
    vmk_memory_fini(&memory);
    VMKI_IGNORE(vmk_view_map(&view, &memory, 0, 0, VMK_VIEW_READ));
}

static void resize_none(void)
{
    VMKI_IGNORE(vmk_memory_resize(&memory, 1));
}

static void handle_none(void)
{
    uintptr_t handle;
    VMKI_IGNORE(vmk_memory_handle(&memory, &handle));
}

static void unmap_twice(void)
{
    make_view();
    vmk_view_unmap(&view);
    vmk_view_unmap(&view);
}

static void unmap_none(void)
{
    vmk_view_unmap(&view);
}

static void grow_unmapped(void)
{
    make_view();
    vmk_view_unmap(&view);
    VMKI_IGNORE(vmk_view_grow(&view, &memory, 1));
}

static void flush_none(void)
{
    VMKI_IGNORE(vmk_view_flush(&view, 0, 0));
}

static void unmap_with_snapshot(void)
{
    make_view();
    must(vmk_snapshot_take(&snapshot, &view));
    vmk_view_unmap(&view);
}

static void take_of_none(void)
{
    VMKI_IGNORE(vmk_snapshot_take(&snapshot, &view));
}

static void drop_none(void)
{
    VMKI_IGNORE(vmk_snapshot_drop(&snapshot));
}

static void drop_twice(void)
{
    make_view();
    must(vmk_snapshot_take(&snapshot, &view));
    must(vmk_snapshot_drop(&snapshot));
    VMKI_IGNORE(vmk_snapshot_drop(&snapshot));
}

static void drop_with_view_moved(void)
{
    make_view();
    must(vmk_snapshot_take(&snapshot, &view));
    memset(&view, 0, sizeof view);
    VMKI_IGNORE(vmk_snapshot_drop(&snapshot));
}

static void end_ring_twice(void)
{
    must(vmk_ring_init(&ring, 1));
    vmk_ring_fini(&ring);
    vmk_ring_fini(&ring);
}

static void end_no_ring(void)
{
    vmk_ring_fini(&ring);
}

static const support_crimes crimes[] = {
    {"memory-twice", end_memory_twice, "vmkit: vmk_memory_fini: memory was done with before: 0x"},
    {"memory-none", end_no_memory, "vmkit: vmk_memory_fini: not memory: 0x"},
    {"map-ended", map_ended, "vmkit: vmk_view_map: memory was done with before: 0x"},
    {"resize-none", resize_none, "vmkit: vmk_memory_resize: not memory: 0x"},
    {"handle-none", handle_none, "vmkit: vmk_memory_handle: not memory: 0x"},
    {"unmap-twice", unmap_twice, "vmkit: vmk_view_unmap: view was unmapped before: 0x"},
    {"unmap-none", unmap_none, "vmkit: vmk_view_unmap: not a view: 0x"},
    {"grow-unmapped", grow_unmapped, "vmkit: vmk_view_grow: view was unmapped before: 0x"},
    {"flush-none", flush_none, "vmkit: vmk_view_flush: not a view: 0x"},
    {"unmap-snapshot", unmap_with_snapshot, "vmkit: vmk_view_unmap: view has snapshots: 0x"},
    {"take-none", take_of_none, "vmkit: vmk_snapshot_take: not a view: 0x"},
    {"drop-none", drop_none, "vmkit: vmk_snapshot_drop: not a snapshot: 0x"},
    {"drop-twice", drop_twice, "vmkit: vmk_snapshot_drop: snapshot was dropped before: 0x"},
    {"drop-moved", drop_with_view_moved, "vmkit: vmk_snapshot_drop: its view: not a view: 0x"},
    {"ring-twice", end_ring_twice, "vmkit: vmk_ring_fini: ring was done with before: 0x"},
    {"ring-none", end_no_ring, "vmkit: vmk_ring_fini: not a ring: 0x"},
};

int main(int argc, char **argv)
{
    return support_deaths(argc, argv, "memory_deaths", crimes, sizeof crimes / sizeof crimes[0]);
}
