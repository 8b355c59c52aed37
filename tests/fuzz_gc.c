/* SPDX-License-Identifier: MIT
 *
 * A collected heap under a fuzzer: an input is a list of calls. A shadow knows each object, what
 * it holds and to which one it refers; now and then the heap is collected, and what can be reached compared.
 */
#include <string.h>

#include "common/gc/gc.h"
#include "fuzz.h"

enum { NODES = 160, ROOTS = 12, NOBODY = NODES };

typedef struct shadow {
    void **object; /* NULL: none */
    size_t usable;
    size_t to; /* the first word refers to that one */
    unsigned char salt;
    bool leaf;
    bool reached;
} shadow;

typedef struct world {
    fuzz_input in;
    vmk_gc *gc;
    vmk_gc_type *type;
    void *roots[ROOTS];
    size_t root_of[ROOTS];
    shadow nodes[NODES];
} world;

/* --- the shadow ------------------------------------------------------------------------------------------------- */

/* No word of it looks like an address. */
static void fill(const shadow *s)
{
    size_t head = s->leaf ? 0 : sizeof(void *);
    memset((unsigned char *)s->object + head, s->salt | 1, s->usable - head);
}

static bool whole(const world *w, const shadow *s)
{
    const unsigned char *bytes = (const unsigned char *)s->object;
    size_t head = s->leaf ? 0 : sizeof(void *);
    if (!s->leaf && s->object[0] != (s->to == NOBODY ? NULL : (void *)w->nodes[s->to].object))
        return false;
    for (size_t i = head; i < s->usable; i += 1 + s->usable / 64)
        if (bytes[i] != (s->salt | 1))
            return false;
    return true;
}

static size_t reach(world *w)
{
    size_t count = 0;
    for (size_t i = 0; i < NODES; i++)
        w->nodes[i].reached = false;
    for (size_t i = 0; i < ROOTS; i++)
        for (size_t at = w->root_of[i]; at != NOBODY && !w->nodes[at].reached; at = w->nodes[at].to) {
            w->nodes[at].reached = true;
            count++;
        }
    return count;
}

/* Collect, and what can't be reached is gone from the shadow too. */
static void collect(world *w)
{
    vmk_gc_stats stats;
    size_t reached = reach(w);
    vmk_gc_collect(w->gc);
    (void)fuzz_settle(&w->in, VMK_OK);
    vmk_gc_stats_now(w->gc, &stats);
    FUZZ_CHECK(stats.live_objects == reached);
    for (size_t i = 0; i < NODES; i++) {
        shadow *s = &w->nodes[i];
        if (s->object == NULL)
            continue;
        if (s->reached) {
            FUZZ_CHECK(vmk_gc_base(w->gc, (char *)s->object + s->usable - 1) == (void *)s->object);
            FUZZ_CHECK(whole(w, s));
        } else {
            *s = (shadow){.to = NOBODY};
        }
    }
    FUZZ_CHECK(vmki_gc_check(w->gc));
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

static size_t any_size(world *w)
{
    size_t size = fuzz_below(&w->in, 1024);
    switch (fuzz_byte(&w->in) % 16) {
    case 0:
        return size * 100;
    case 1:
        return size * 32;
    default:
        return size;
    }
}

/* In the place of whatever was there: that is a root no longer, and nobody's. */
static void allocate(world *w)
{
    size_t at = fuzz_below(&w->in, NODES), size = any_size(w) + sizeof(void *);
    unsigned how = fuzz_byte(&w->in);
    if (w->nodes[at].object != NULL)
        return;
    void *object = how % 3 == 0   ? vmk_gc_alloc_leaf(w->gc, size)
                   : how % 3 == 1 ? vmk_gc_alloc(w->gc, size)
                                  : vmk_gc_alloc_typed(w->gc, w->type, size / (4 * sizeof(void *)));
    /* A cycle may have come before: nodes that were reached by nobody are gone, and their memory may be this one's. */
    if (!fuzz_settle(&w->in, object != NULL ? VMK_OK : VMK_ERR_COMMIT))
        return;
    shadow made = {object, vmk_gc_usable_size(w->gc, object), NOBODY, (unsigned char)fuzz_byte(&w->in), how % 3 == 0,
                   false};
    for (size_t i = 0; i < made.usable; i++)
        FUZZ_CHECK(((unsigned char *)object)[i] == 0);
    fill(&made);
    w->nodes[at] = made;
    size_t root = fuzz_below(&w->in, ROOTS);
    w->root_of[root] = at;
    w->roots[root] = object;
}

static void refer(world *w)
{
    size_t from = fuzz_below(&w->in, NODES), to = fuzz_below(&w->in, NODES + 1);
    shadow *s = &w->nodes[from];
    (void)reach(w);
    if (s->object == NULL || s->leaf || !s->reached || (to != NOBODY && !w->nodes[to].reached))
        return;
    s->to = to;
    s->object[0] = to == NOBODY ? NULL : (void *)w->nodes[to].object;
}

static void drop_root(world *w)
{
    size_t root = fuzz_below(&w->in, ROOTS);
    w->root_of[root] = NOBODY;
    w->roots[root] = NULL;
}

/* By hand: one that nobody refers to but a root. */
static void free_one(world *w)
{
    size_t root = fuzz_below(&w->in, ROOTS), at = w->root_of[root];
    if (at == NOBODY)
        return;
    for (size_t i = 0; i < NODES; i++)
        if (w->nodes[i].to == at)
            return;
    for (size_t i = 0; i < ROOTS; i++)
        if (w->root_of[i] == at) {
            w->root_of[i] = NOBODY;
            w->roots[i] = NULL;
        }
    vmk_gc_free(w->gc, w->nodes[at].object);
    w->nodes[at] = (shadow){.to = NOBODY};
}

static void run(world *w)
{
    for (unsigned steps = 0; w->in.size > 0 && steps < 4000; steps++) {
        switch (fuzz_byte(&w->in) % 16) {
        case 0:
            collect(w);
            break;
        case 1:
            drop_root(w);
            break;
        case 2:
            free_one(w);
            break;
        case 3:
        case 4:
        case 5:
            refer(w);
            break;
        default:
            allocate(w);
            break;
        }
    }
    collect(w);
}

static bool begin(world *w)
{
    static const size_t pointers[] = {1};
    const vmk_gc_layout layout = {.size = 4 * sizeof(void *), .pointers = pointers};
    vmk_heap_options below = {.window = (size_t)32 << 20, .layout = VMK_LAYOUT_64};
    vmk_gc_options options = {.flags = VMK_GC_NO_STACKS | VMK_GC_NO_STATIC,
                              .markers = 1,
                              .heap = &below,
                              .pace = {.min_heap = (size_t)1 << 30}}; /* the shadow says when */
    if (!fuzz_settle(&w->in, vmk_gc_create(&w->gc, &options)))
        return false;
    if (fuzz_settle(&w->in, vmk_gc_type_create(w->gc, &layout, &w->type)) &&
        fuzz_settle(&w->in, vmk_gc_slots_add(w->gc, w->roots, ROOTS)))
        return true;
    vmk_gc_destroy(w->gc);
    return false;
}

/* What the process has for good, its first thread above all. */
static void prepare(void)
{
    static bool prepared;
    vmk_gc *gc;
    if (prepared)
        return;
    prepared = true;
    FUZZ_CHECK(vmk_gc_create(&gc, NULL) == VMK_OK);
    vmk_gc_destroy(gc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static world w;
    prepare();
    memset(&w, 0, sizeof w);
    w.in = fuzz_start(data, size);
    for (size_t i = 0; i < ROOTS; i++)
        w.root_of[i] = NOBODY;
    for (size_t i = 0; i < NODES; i++)
        w.nodes[i].to = NOBODY;
    if (begin(&w)) {
        run(&w);
        vmk_gc_destroy(w.gc);
    }
    fuzz_end(&w.in);
    return 0;
}
