/* SPDX-License-Identifier: MIT
 *
 * Objects under a fuzzer: an input is the kind of a heap and a list of calls. A shadow says where each object lies and
 * what it holds; every few calls all of it is compared, and the heap checked.
 */
#include <string.h>

#include "common/heap/object.h"
#include "fuzz.h"

enum { SLOTS = 96, SHOWN = 24, CHECK_EVERY = 16 };

static const size_t bytes_most = (size_t)8 << 20;

typedef struct slot {
    unsigned char *object; /* NULL: none */
    size_t size;
    size_t usable;
    unsigned char salt;
} slot;

typedef struct world {
    fuzz_input in;
    vmk_heap *heap;
    bool hardened;
    slot slots[SLOTS];
    size_t count;
    size_t bytes;
    size_t walked;
} world;

/* --- the shadow ------------------------------------------------------------------------------------------------- */

static bool holds(const unsigned char *object, const slot *s, size_t limit)
{
    for (size_t i = 0; i < vmki_min(limit, SHOWN); i++)
        if (object[i] != (unsigned char)(s->salt + i))
            return false;
    return true;
}

/* Enter an object that was got; NULL: the system has refused. */
static void got(world *w, size_t at, unsigned char *object, size_t size, size_t align)
{
    slot *s = &w->slots[at];
    if (object == NULL)
        return;
    *s = (slot){object, size, vmk_heap_usable_size(w->heap, object), (unsigned char)fuzz_byte(&w->in)};
    FUZZ_CHECK((uintptr_t)object % vmki_max(align, VMK_OBJECT_ALIGN) == 0 && s->usable >= size);
    FUZZ_CHECK(vmk_heap_owns(w->heap, object) && !vmk_heap_owns(w->heap, object + 1));
    for (size_t i = 0; i < SLOTS; i++) {
        const slot *other = &w->slots[i];
        bool apart = other->object == NULL || other == s || other->object + other->usable <= object ||
                     object + s->usable <= other->object;
        FUZZ_CHECK(apart);
    }
    object[s->usable - 1] = 0xee;
    for (size_t i = 0; i < vmki_min(s->usable, SHOWN); i++)
        object[i] = (unsigned char)(s->salt + i);
    w->count++;
    w->bytes += s->usable;
}

static void gone(world *w, slot *s)
{
    w->count--;
    w->bytes -= s->usable;
    s->object = NULL;
}

static bool visited(void *context, void *object, size_t usable)
{
    world *w = context;
    bool known = false;
    for (size_t i = 0; i < SLOTS; i++)
        known |= w->slots[i].object == object && w->slots[i].usable == usable;
    w->walked += known ? 1 : SLOTS;
    return true;
}

static void check_all(world *w)
{
    vmk_object_stats stats;
    FUZZ_CHECK(vmki_objects_check(w->heap));
    vmk_object_stats_now(w->heap, NULL, &stats);
    FUZZ_CHECK(stats.sum.objects == w->count);
    w->walked = 0;
    vmk_object_walk(w->heap, visited, w);
    FUZZ_CHECK(w->walked == w->count);
    for (size_t i = 0; i < SLOTS; i++)
        if (w->slots[i].object != NULL)
            FUZZ_CHECK(holds(w->slots[i].object, &w->slots[i], w->slots[i].usable));
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

/* Was it excused if there is no object? */
static void settle(world *w, const void *object)
{
    (void)fuzz_settle(&w->in, object != NULL ? VMK_OK : VMK_ERR_COMMIT);
}

/* Small ones mostly; near classes' borders as well as anywhere. */
static size_t any_size(world *w)
{
    unsigned how = fuzz_byte(&w->in);
    size_t size = fuzz_below(&w->in, 65536);
    switch (how % 8) {
    case 0:
        return size;
    case 1:
        return size * 16;
    case 2:
        return vmki_class_size(1 + (unsigned)size % (VMK_CLASSES - 1)) + how / 8 % 3 - 1;
    case 3:
        return size % 5000;
    default:
        return size % 300;
    }
}

static void do_alloc(world *w, size_t at, unsigned how)
{
    size_t size = any_size(w), align = 1;
    unsigned char *object;
    switch (how % 4) {
    case 0:
        object = vmk_heap_alloc_zeroed(w->heap, size);
        FUZZ_CHECK(object == NULL || size == 0 || (object[0] == 0 && memcmp(object, object + 1, size - 1) == 0));
        break;
    case 1:
        align = (size_t)1 << fuzz_below(&w->in, 17);
        object = vmk_heap_alloc_aligned(w->heap, size, align);
        break;
    default:
        object = vmk_heap_alloc(w->heap, size);
    }
    settle(w, object);
    got(w, at, object, size, align);
}

static void do_free(world *w, slot *s, bool sized)
{
    FUZZ_CHECK(holds(s->object, s, s->usable) && (s->usable <= SHOWN || s->object[s->usable - 1] == 0xee));
    if (sized)
        vmk_heap_free_sized(w->heap, s->object, s->size);
    else
        vmk_heap_free(w->heap, s->object);
    gone(w, s);
}

static void do_realloc(world *w, size_t at)
{
    slot *s = &w->slots[at], before = *s;
    size_t size = any_size(w);
    unsigned char *object = vmk_heap_realloc(w->heap, s->object, size);
    settle(w, object);
    if (object == NULL) {
        FUZZ_CHECK(holds(s->object, s, s->usable) && vmk_heap_usable_size(w->heap, s->object) == s->usable);
        return;
    }
    FUZZ_CHECK(holds(object, &before, vmki_min(size, before.usable)));
    gone(w, s);
    got(w, at, object, size, 1);
}

static void do_call(world *w)
{
    unsigned what = fuzz_byte(&w->in);
    size_t at = fuzz_below(&w->in, SLOTS);
    slot *s = &w->slots[at];
    if (what >= 250)
        vmk_cache_detach(w->heap);
    else if (what >= 240)
        (void)vmk_heap_trim(w->heap);
    else if (s->object == NULL && w->bytes < bytes_most)
        do_alloc(w, at, what);
    else if (s->object != NULL && what % 4 == 0)
        do_realloc(w, at);
    else if (s->object != NULL)
        do_free(w, s, what % 4 == 1);
    (void)fuzz_settle(&w->in, VMK_OK);
}

/* --- an input --------------------------------------------------------------------------------------------------- */

static vmk_status make(vmk_heap **heap, unsigned kind)
{
    vmk_heap_options options = {.layout = (kind & 1) != 0 ? VMK_LAYOUT_64 : VMK_LAYOUT_LIMITED,
                                .flags = (kind & 2) != 0 ? VMK_HEAP_HARDENED : 0,
                                .window = (size_t)16 << 20,
                                .step = (kind & 4) != 0 ? (size_t)64 << 10 : 0};
    return vmk_heap_create(heap, &options);
}

/* The library keeps memory for threads for good, and what it is needs no input. */
static void prepare(void)
{
    static bool prepared;
    vmk_heap *heap;
    if (prepared)
        return;
    prepared = true;
    FUZZ_CHECK(make(&heap, 0) == VMK_OK && vmk_heap_alloc(heap, 1) != NULL);
    vmk_heap_destroy(heap);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static world w;
    prepare();
    memset(&w, 0, sizeof w);
    w.in = fuzz_start(data, size);
    unsigned kind = fuzz_byte(&w.in);
    if (fuzz_settle(&w.in, make(&w.heap, kind))) {
        for (size_t i = 1; w.in.size != 0; i++) {
            do_call(&w);
            if (i % CHECK_EVERY == 0)
                check_all(&w);
        }
        check_all(&w);
        for (size_t i = 0; i < SLOTS && (kind & 8) != 0; i++)
            if (w.slots[i].object != NULL)
                do_free(&w, &w.slots[i], false);
        check_all(&w);
        vmk_heap_destroy(w.heap);
    }
    fuzz_end(&w.in);
    return 0;
}
