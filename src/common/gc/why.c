/* SPDX-License-Identifier: MIT
 *
 * Why is an object alive? From all roots, breadth first, until it is met.
 *
 * The queue is never shortened: its entries, an object and who led to it, are what the path is read from. Which objects
 * are in it is told by the mark bits, which are zero while the world is stopped outside a cycle, and are so again in
 * the end. An entry does not say which word led to it: for the few on the path that is looked for again.
 *
 * Who asks has the address somewhere, mostly on its stack, and an answer that says so would be of no use: so its stack
 * and registers are looked at last, when nothing else reaches the object. Since the roots before have been followed to
 * their ends by then, a path from there is a shortest one nevertheless. The frames of this module do not count at all,
 * and in the meantime the address is kept as a number of granules.
 */
#include "common/gc/refs.h"
#include "common/vm/vm.h"

typedef struct entry {
    uintptr_t object;
    size_t parent; /* index + 1; 0: a root */
} entry;

/* An ephemeron. It is found by its own address and by its key's, so that its value is met with the second of both. */
typedef struct pair {
    uintptr_t key;
    uintptr_t value;
    size_t next;  /* of the same key, index + 1 */
    size_t entry; /* of the ephemeron, index + 1; 0: it has not been met */
} pair;

typedef struct search {
    vmki_gc *gc;
    uintptr_t hidden; /* the address */
    size_t wanted;    /* the granule of its object */
    size_t count;     /* of the queue */
    size_t done;
    size_t objects; /* in the heap */
    bool own;       /* now the asker's roots */
    bool found;
    vmk_status status;
    vmk_table queue;
    vmk_table pairs;
    size_t pair_count;
    vmki_map by_key;       /* index + 1 of the first */
    vmki_map by_ephemeron; /* index + 1 */
    vmk_table steps;
    size_t step_count;
    vmki_asker asker; /* must be last */
} search;

static entry *entry_at(const search *s, size_t index)
{
    return vmk_table_at(&s->queue, 0, index);
}

/* --- the queue ---------------------------------------------------------------------------------------------------- */

static void reach(search *s, uintptr_t object, size_t parent)
{
    vmki_gc *gc = s->gc;
    size_t granule = vmki_gc_granule(gc, object), bit = (size_t)1 << (granule % VMKI_WORD_BITS);
    if (s->found || s->status != VMK_OK || (gc->marks[granule / VMKI_WORD_BITS] & bit) != 0)
        return;
    if (vmk_table_ensure(&s->queue, s->count + 1) != VMK_OK) {
        s->status = VMK_ERR_COMMIT;
        return;
    }
    gc->marks[granule / VMKI_WORD_BITS] |= bit;
    *entry_at(s, s->count++) = (entry){object, parent};
    s->found = granule == s->wanted;
}

static void reach_from(void *context, const void *at, uintptr_t object)
{
    search *s = context;
    (void)at;
    reach(s, object, s->done + 1);
}

static void reach_from_root(void *context, const void *at, uintptr_t object)
{
    (void)at;
    reach(context, object, 0);
}

static void root_visit(void *context, const vmki_root *root, bool own)
{
    search *s = context;
    if (own == s->own)
        vmki_refs_of_root(s->gc, root, reach_from_root, s);
}

static void reach_value(search *s, const pair *p)
{
    if (p->entry != 0 && vmki_gc_marked(s->gc, p->key))
        reach(s, p->value, p->entry);
}

/* The object of the entry may be a key, and may be an ephemeron. */
static void reach_values(search *s, size_t index)
{
    uintptr_t object = entry_at(s, index)->object;
    const uintptr_t *found = vmki_map_find(&s->by_key, object);
    for (size_t i = found != NULL ? *found : 0; i != 0;) {
        const pair *p = vmk_table_at(&s->pairs, 0, i - 1);
        reach_value(s, p);
        i = p->next;
    }
    found = vmki_map_find(&s->by_ephemeron, object);
    if (found != NULL) {
        pair *p = vmk_table_at(&s->pairs, 0, *found - 1);
        p->entry = index + 1;
        reach_value(s, p);
    }
}

static void search_from_roots(search *s, bool own)
{
    s->own = own;
    vmki_asker_roots(s->gc, &s->asker, root_visit, s);
    for (; s->done < s->count && !s->found && s->status == VMK_OK; s->done++) {
        vmki_refs_of_object(s->gc, entry_at(s, s->done)->object, reach_from, s);
        if (s->pair_count != 0)
            reach_values(s, s->done);
    }
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static bool count_object(void *context, uintptr_t base, uint8_t code)
{
    search *s = context;
    (void)base;
    (void)code;
    s->objects++;
    return true;
}

static bool table_make(search *s, vmk_table *table, size_t capacity, size_t size)
{
    vmk_table_config config = {.capacity = capacity, .column_bits = {size * 8}};
    if (vmk_table_init(table, &config) == VMK_OK)
        return true;
    s->status = VMK_ERR_COMMIT;
    return false;
}

static void count_pair(void *context, uintptr_t ephemeron, uintptr_t key, uintptr_t value)
{
    (void)ephemeron;
    (void)key;
    (void)value;
    ++*(size_t *)context;
}

static void note_pair(void *context, uintptr_t ephemeron, uintptr_t key, uintptr_t value)
{
    search *s = context;
    uint8_t code;
    key = vmki_gc_object(s->gc, key, &code);
    value = vmki_gc_object(s->gc, value, &code);
    if (key == 0 || value == 0 || s->status != VMK_OK)
        return;
    uintptr_t *by_key, *by_ephemeron;
    if (vmk_table_ensure(&s->pairs, s->pair_count + 1) != VMK_OK ||
        vmki_map_add(&s->by_ephemeron, ephemeron, &by_ephemeron) != VMK_OK ||
        vmki_map_add(&s->by_key, key, &by_key) != VMK_OK) {
        s->status = VMK_ERR_COMMIT;
        return;
    }
    *(pair *)vmk_table_at(&s->pairs, 0, s->pair_count++) = (pair){.key = key, .value = value, .next = *by_key};
    *by_key = s->pair_count;
    *by_ephemeron = s->pair_count;
}

static bool begin(search *s)
{
    vmki_gc_each(s->gc, count_object, s);
    if (s->objects == 0 || !table_make(s, &s->queue, s->objects, sizeof(entry)))
        return false;
    size_t pairs = 0;
    vmki_ephemerons_visit(s->gc, count_pair, &pairs);
    if (pairs != 0 && table_make(s, &s->pairs, pairs, sizeof(pair)))
        vmki_ephemerons_visit(s->gc, note_pair, s);
    return s->status == VMK_OK;
}

static void table_end(vmk_table *table)
{
    if (table->seal != 0)
        vmk_table_fini(table);
}

/* All but the steps. */
static void end(search *s)
{
    for (size_t i = 0; i < s->count; i++) /* words as a whole: no bit is anybody else's */
        s->gc->marks[vmki_gc_granule(s->gc, entry_at(s, i)->object) / VMKI_WORD_BITS] = 0;
    table_end(&s->queue);
    table_end(&s->pairs);
    vmki_map_fini(&s->by_key);
    vmki_map_fini(&s->by_ephemeron);
}

/* --- the path ----------------------------------------------------------------------------------------------------- */

/* The first word that refers to an object. */
typedef struct word_search {
    const search *s;
    uintptr_t object;
    bool found;
    const void *at;
    vmk_gc_root root;
    const vmki_mutator *mutator;
} word_search;

static void word_visit(void *context, const void *at, uintptr_t object)
{
    word_search *w = context;
    if (!w->found && object == w->object) {
        w->found = true;
        w->at = at;
    }
}

static void word_in_root(void *context, const vmki_root *root, bool own)
{
    word_search *w = context;
    if (w->found || own != w->s->own)
        return;
    vmki_refs_of_root(w->s->gc, root, word_visit, w);
    if (w->found) {
        w->root = root->kind;
        w->mutator = root->mutator;
        if (root->kind == VMK_GC_ROOT_PIN || root->kind == VMK_GC_ROOT_FINALIZABLE)
            w->at = NULL; /* a copy's address */
    }
}

static vmk_gc_object describe(const vmki_gc *gc, uintptr_t object)
{
    return vmki_gc_describe(gc, object, vmki_gc_page_code(gc, object));
}

/* What is not found again was changed meanwhile by a thread that nobody knows; the step is true of a moment ago. */
static vmk_gc_step step_make(const search *s, const entry *e)
{
    word_search w = {.s = s, .object = e->object};
    vmk_gc_step step = {.object = describe(s->gc, e->object)};
    if (e->parent == 0) {
        vmki_asker_roots(s->gc, &s->asker, word_in_root, &w);
        step.root = w.root;
        step.thread = w.mutator != NULL ? w.mutator->id : 0;
    } else {
        uintptr_t from = entry_at(s, e->parent - 1)->object;
        vmki_refs_of_object(s->gc, from, word_visit, &w);
        step.from = (const void *)from;
        step.root = vmki_map_find(&s->by_ephemeron, from) != NULL ? VMK_GC_ROOT_EPHEMERON : VMK_GC_ROOT_COUNT;
    }
    step.at = w.at;
    return step;
}

static void steps_make(search *s)
{
    size_t count = 0;
    for (size_t i = s->count; i != 0; i = entry_at(s, i - 1)->parent)
        count++;
    if (!table_make(s, &s->steps, count, sizeof(vmk_gc_step)))
        return;
    if (vmk_table_ensure(&s->steps, count) != VMK_OK) {
        s->status = VMK_ERR_COMMIT;
        return;
    }
    vmk_gc_step *steps = vmk_table_at(&s->steps, 0, 0);
    s->step_count = count;
    for (size_t i = s->count; i != 0; i = entry_at(s, i - 1)->parent)
        steps[--count] = step_make(s, entry_at(s, i - 1));
    for (size_t i = 1; i < s->step_count; i++)
        if (steps[i].root != VMK_GC_ROOT_EPHEMERON)
            steps[i].root = steps[0].root;
}

static void find_path(vmki_gc *gc, void *argument)
{
    search *s = argument;
    uint8_t code;
    uintptr_t object = vmki_gc_object(gc, ~s->hidden, &code);
    if (object == 0)
        return;
    s->wanted = vmki_gc_granule(gc, object);
    if (begin(s))
        search_from_roots(s, false);
    if (!s->found && s->status == VMK_OK)
        search_from_roots(s, true);
    if (s->found && s->status == VMK_OK)
        steps_make(s);
    end(s);
}

bool vmk_gc_why(vmk_gc *given, const void *address, vmk_gc_step_visitor *visit, void *context, vmk_status *status)
{
    search s = {.gc = VMKI_GC_REQUIRE(given, "vmk_gc_why"), .hidden = ~(uintptr_t)address};
    vmki_asker_begin(&s.asker);
    vmki_gc_stopped(s.gc, find_path, &s);
    for (size_t i = 0; i < s.step_count; i++)
        visit(context, vmk_table_at(&s.steps, 0, i));
    table_end(&s.steps);
    if (status != NULL)
        *status = s.status;
    return s.step_count != 0;
}
