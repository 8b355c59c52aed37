/* SPDX-License-Identifier: MIT
 *
 * The references of an object or a root, one by one, in the order in which they lie there. What counts as one is what
 * marking takes for one; how fast they are found does not matter here.
 */
#include <string.h>

#include "common/gc/refs.h"

/* Given to functions of the program's. */
typedef struct ref_visitor {
    vmk_gc_visitor base; /* must be first */
    vmki_gc *gc;
    vmki_ref_visitor *visit;
    void *context;
} ref_visitor;

static void ref_word(ref_visitor *v, const void *at, uintptr_t word, bool ends)
{
    uint8_t code;
    uintptr_t object = vmki_gc_object(v->gc, word, &code);
    if (object != 0)
        v->visit(v->context, at, object);
    if (!ends || !vmki_is_aligned(word, VMKI_GRANULE) || word == 0)
        return;
    object = vmki_gc_object(v->gc, word - 1, &code); /* inside what ends here, or at the end of nothing */
    if (object != 0 && object + vmki_gc_size(v->gc, object, code) == word)
        v->visit(v->context, at, object);
}

static void ref_shown(vmk_gc_visitor *visitor, uintptr_t word)
{
    ref_word((ref_visitor *)(void *)visitor, NULL, word, false);
}

/* Stacks hold what tools put there; static data may be written by threads that nobody knows. */
VMKI_READS_ANYTHING static uintptr_t word_at(const uintptr_t *at)
{
    return *(const volatile uintptr_t *)at;
}

static void refs_of_range(ref_visitor *v, const void *base, size_t size, bool ends)
{
    const uintptr_t *words = base;
    for (size_t i = 0; i < size / sizeof *words; i++)
        ref_word(v, words + i, word_at(words + i), ends);
}

/* An array of whole elements; what can be used behind the last is none. */
static void refs_by_map(ref_visitor *v, const vmk_gc_type *type, const uintptr_t *words, size_t count)
{
    for (; count >= type->words; count -= type->words, words += type->words)
        for (size_t i = 0; i < type->words; i++)
            if ((type->map[i / VMKI_WORD_BITS] >> (i % VMKI_WORD_BITS) & 1) != 0)
                ref_word(v, words + i, word_at(words + i), false);
}

void vmki_refs_of_object(vmki_gc *gc, uintptr_t base, vmki_ref_visitor *visit, void *context)
{
    bool ends = (gc->flags & VMK_GC_PAST_END) != 0;
    ref_visitor v = {.base = {.visit = ref_shown, .ends = ends}, .gc = gc, .visit = visit, .context = context};
    uint8_t code = vmki_gc_page_code(gc, base);
    size_t size = vmki_gc_size(gc, base, code);
    if (vmki_gc_codes[code].kind == VMKI_CONSERVATIVE) {
        refs_of_range(&v, (const void *)base, size, ends);
    } else if (vmki_gc_codes[code].kind == VMKI_TYPED) {
        const vmk_gc_type *type = vmki_gc_type_of(gc, base);
        if (type->trace != NULL)
            type->trace(type->trace_context, (void *)base, size, &v.base);
        else if (type->map != NULL)
            refs_by_map(&v, type, (const uintptr_t *)base, size / sizeof(uintptr_t));
    }
}

void vmki_refs_of_root(vmki_gc *gc, const vmki_root *root, vmki_ref_visitor *visit, void *context)
{
    ref_visitor v = {.base = {.visit = ref_shown, .ends = true}, .gc = gc, .visit = visit, .context = context};
    if (root->trace != NULL)
        root->trace(root->context, NULL, 0, &v.base);
    else
        refs_of_range(&v, root->base, root->size, vmki_root_ends(gc, root));
}

/* --- roots, as who asks wants them -------------------------------------------------------------------------------- */

typedef struct asking {
    const vmki_asker *asker;
    vmki_asker_visitor *visit;
    void *context;
} asking;

/* Where the caller's part of a stack begins, if this is the stack. Stacks grow to lower addresses. */
static bool caller_begins(const vmki_asker *asker, const vmki_root *root, uintptr_t *at)
{
    uintptr_t base = (uintptr_t)root->base, own = (uintptr_t)(asker + 1);
    if (own - base >= root->size)
        own = (uintptr_t)asker->frame;
    *at = vmki_ceil(own, sizeof(uintptr_t));
    return own - base < root->size;
}

static void visit_as_asked(void *context, const vmki_root *given)
{
    const asking *a = context;
    vmki_root root = *given;
    uintptr_t at;
    bool own = false;
    if (a->asker->mutator != NULL && root.mutator == a->asker->mutator) {
        if (root.kind == VMK_GC_ROOT_REGISTERS && root.base == (const void *)root.mutator->left.words)
            return; /* this library's */
        if (root.kind == VMK_GC_ROOT_STACK && caller_begins(a->asker, &root, &at)) {
            own = true;
            root.size -= at - (uintptr_t)root.base;
            root.base = (const void *)at;
        }
    }
    a->visit(a->context, &root, own);
}

void vmki_asker_roots(vmki_gc *gc, const vmki_asker *asker, vmki_asker_visitor *visit, void *context)
{
    asking a = {asker, visit, context};
    vmki_root root = {.kind = VMK_GC_ROOT_REGISTERS,
                      .mutator = asker->mutator,
                      .base = asker->registers,
                      .size = sizeof asker->registers};
    if (asker->mutator != NULL && (gc->flags & VMK_GC_NO_STACKS) == 0)
        visit(context, &root, true);
    vmki_roots_visit(gc, visit_as_asked, &a);
}
