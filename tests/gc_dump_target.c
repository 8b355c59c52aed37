/* SPDX-License-Identifier: MIT
 *
 * gc_dump_target FILE known|small|list|usual [COUNT]: makes a collected heap, writes its dump to a file, and prints
 * what is in it, a figure a line, for check_gc_dump.sh to compare with what the program vmkit says.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmkit.h"

/* Unbuffered: what stdio would do beyond that is its own affair, while all threads stand still. */
static bool write_dump(void *context, const char *text, size_t length)
{
    return fwrite(text, 1, length, context) == length;
}

static vmk_gc *make(unsigned flags)
{
    vmk_gc_options options = {.flags = flags};
    vmk_gc *gc;
    if (vmk_gc_create(&gc, &options) != VMK_OK)
        exit(1);
    return gc;
}

static void require(bool condition)
{
    if (!condition) {
        fprintf(stderr, "gc_dump_target: it can't be made\n");
        exit(1);
    }
}

typedef struct node {
    struct node *next;
    void *owned;
    void *unused[6];
} node;

static vmk_gc_type *node_type(vmk_gc *gc)
{
    static const size_t pointers[] = {3};
    static const vmk_gc_layout layout = {.name = "list <&> \"node\"", .size = sizeof(node), .pointers = pointers};
    vmk_gc_type *type;
    require(vmk_gc_type_create(gc, &layout, &type) == VMK_OK);
    return type;
}

static void say(const char *name, uint64_t figure)
{
    printf("%s %" PRIu64 "\n", name, figure);
}

/* What is summed up here is summed up as it is made. */
typedef struct sum {
    uint64_t objects;
    uint64_t bytes;
} sum;

static void *counted(vmk_gc *gc, void *object, sum *s)
{
    require(object != NULL);
    s->objects++;
    s->bytes += vmk_gc_usable_size(gc, object);
    return object;
}

static node *make_list(vmk_gc *gc, vmk_gc_type *type, size_t count, size_t owned, sum *s)
{
    node *first = NULL;
    for (size_t i = 0; i < count; i++) {
        node *one = counted(gc, vmk_gc_alloc_typed(gc, type, 1), s);
        one->next = first;
        if (owned != 0)
            one->owned = counted(gc, vmk_gc_alloc_leaf(gc, owned), s);
        first = one;
    }
    return first;
}

/* Slots: a list whose nodes own leaves, and an ephemeron with a large value. A range: a table of leaves; one of them
 * is the list's too. A pin. And a list that is lost. */
static void make_known(vmk_gc *gc, size_t in_list, size_t in_table, size_t in_lost)
{
    static void *slots[2], *range[1];
    vmk_gc_type *type = node_type(gc);
    sum list = {0, 0}, table = {0, 0}, shared = {0, 0}, pair = {0, 0}, pinned = {0, 0}, lost = {0, 0};
    require(vmk_gc_slots_add(gc, slots, 2) == VMK_OK && vmk_gc_roots_add(gc, range, sizeof range) == VMK_OK);
    vmk_gc_disable(gc);
    node *first = make_list(gc, type, in_list, 100, &list);
    slots[0] = first;
    void **leaves = counted(gc, vmk_gc_alloc(gc, in_table * sizeof *leaves), &table);
    range[0] = leaves + in_table / 2; /* the inside of it */
    leaves[0] = counted(gc, vmk_gc_alloc_leaf(gc, 1000), &shared);
    for (size_t i = 1; i < in_table; i++)
        leaves[i] = counted(gc, vmk_gc_alloc_leaf(gc, 1000), &table);
    node *owner = counted(gc, vmk_gc_alloc_typed(gc, type, 1), &list);
    owner->next = first->next;
    owner->owned = leaves[0];
    first->next = owner;
    void *value = counted(gc, vmk_gc_alloc_leaf(gc, 300000), &pair);
    slots[1] = counted(gc, vmk_gc_ephemeron_new(gc, first, value), &pair);
    require(vmk_gc_pin(gc, counted(gc, vmk_gc_alloc(gc, 5000), &pinned)) == VMK_OK);
    (void)make_list(gc, type, in_lost, 0, &lost);
    uint64_t reachable = list.bytes + table.bytes + shared.bytes + pair.bytes + pinned.bytes;
    say("objects", list.objects + table.objects + shared.objects + pair.objects + pinned.objects + lost.objects);
    say("bytes", reachable + lost.bytes);
    say("reachable_bytes", reachable);
    say("unreachable_objects", lost.objects);
    say("unreachable_bytes", lost.bytes);
    say("ephemerons", 1);
    say("references", in_list + (in_list + 1) + in_table + (in_lost - 1));
    say("root_words", 4);
    say("node_objects", in_list + 1 + in_lost);
    say("node_retained", list.bytes);
    say("pair_retained", pair.bytes);
    say("slot_only", list.bytes + pair.bytes);
    say("range_only", table.bytes);
    say("pin_only", pinned.bytes);
    node *last = first;
    size_t steps = 1;
    for (; last->next != NULL; last = last->next)
        steps++;
    say("steps", steps + 1);
    printf("address %" PRIxPTR "\n", (uintptr_t)last->owned + 50);
    printf("lost %" PRIxPTR "\n", (uintptr_t)leaves + 1000000000);
}

/* One long list. */
static void make_long(vmk_gc *gc, size_t count)
{
    static void *slot;
    sum s = {0, 0};
    require(vmk_gc_slots_add(gc, &slot, 1) == VMK_OK);
    vmk_gc_disable(gc);
    slot = make_list(gc, node_type(gc), count, 0, &s);
    say("objects", s.objects);
    say("reachable_bytes", s.bytes);
    say("node_retained", s.bytes);
}

int main(int argc, char **argv)
{
    bool usual = argc > 2 && strcmp(argv[2], "usual") == 0;
    bool small = argc > 2 && strcmp(argv[2], "small") == 0;
    size_t count = argc > 3 ? (size_t)strtoul(argv[3], NULL, 10) : 0;
    if (argc < 3)
        return 2;
    vmk_gc *gc = make(usual ? VMK_GC_SITES : VMK_GC_NO_STACKS | VMK_GC_NO_STATIC | VMK_GC_SITES);
    if (strcmp(argv[2], "list") == 0)
        make_long(gc, count);
    else
        make_known(gc, small ? 5 : 100, small ? 9 : 500, small ? 3 : 50);
    FILE *file = fopen(argv[1], "wb");
    require(file != NULL);
    setvbuf(file, NULL, _IONBF, 0);
    bool written = vmk_gc_dump(gc, write_dump, file);
    require(fclose(file) == 0 && written);
    vmk_gc_destroy(gc);
    return 0;
}
