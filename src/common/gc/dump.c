/* SPDX-License-Identifier: MIT
 *
 * A heap as text: docs/tools.md says what each line means. All is written as it is met, so a dump needs no memory.
 */
#include <string.h>

#include "common/gc/refs.h"

enum { FORMAT = 1, BUFFER = 4096, LINE = 256 /* no line is longer */ };

typedef struct dump {
    vmki_gc *gc;
    vmk_gc_writer *write;
    void *context;
    uintptr_t object; /* whose references are being written */
    const vmk_span *span;
    vmk_gc_root root;
    uintptr_t thread;
    bool failed;
    size_t objects;
    size_t bytes;
    size_t roots;
    size_t references;
    size_t used;
    char buffer[BUFFER];
    vmki_asker asker; /* must be last */
} dump;

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void flush(dump *d)
{
    if (d->used != 0 && !d->failed)
        d->failed = !d->write(d->context, d->buffer, d->used);
    d->used = 0;
}

static void put_char(dump *d, char c)
{
    d->buffer[d->used++] = c;
}

static void put_text(dump *d, const char *text)
{
    while (*text != '\0')
        put_char(d, *text++);
}

static void put_hex(dump *d, uint64_t number)
{
    unsigned digits = 1;
    while (digits < 16 && number >> (4 * digits) != 0)
        digits++;
    while (digits-- > 0)
        put_char(d, "0123456789abcdef"[number >> (4 * digits) & 15]);
}

/* A line begins with a word; there is room for it. */
static void line(dump *d, const char *word)
{
    if (d->used > BUFFER - LINE)
        flush(d);
    put_text(d, word);
}

static void field(dump *d, uint64_t number)
{
    put_char(d, ' ');
    put_hex(d, number);
}

/* No address. */
static void field_at(dump *d, const void *base, const void *at)
{
    if (at != NULL) {
        field(d, (uintptr_t)at - (uintptr_t)base);
        return;
    }
    put_text(d, " -");
}

static void line_end(dump *d)
{
    put_char(d, '\n');
}

static void figure(dump *d, const char *name, uint64_t number)
{
    line(d, name);
    field(d, number);
    line_end(d);
}

/* Printable characters as they are. */
static void put_name(dump *d, const char *name)
{
    for (; *name != '\0'; name++) {
        unsigned char c = (unsigned char)*name;
        if (c >= ' ' && c < 0x7f && c != '\\') {
            put_char(d, *name);
        } else {
            put_text(d, "\\x");
            put_char(d, "0123456789abcdef"[c >> 4]);
            put_char(d, "0123456789abcdef"[c & 15]);
        }
    }
}

/* --- what there is ------------------------------------------------------------------------------------------------ */

static void put_head(dump *d)
{
    const vmki_gc *gc = d->gc;
    figure(d, "vmkit-gc-dump", FORMAT);
    figure(d, "word", sizeof(uintptr_t));
    figure(d, "page", VMK_HEAP_PAGE_SIZE);
    figure(d, "flags", gc->flags);
    figure(d, "heap", (uint64_t)vmki_heap_of(gc->heap)->in_use << VMK_HEAP_PAGE_SHIFT);
    figure(d, "cycles", gc->stats.cycles);
}

static uint64_t type_number(const dump *d, const vmk_gc_type *type)
{
    return type != NULL ? (uint64_t)(type - (const vmk_gc_type *)vmk_table_at(&d->gc->type_table, 0, 0)) + 1 : 0;
}

static void put_types(dump *d)
{
    for (size_t i = 0; i < d->gc->type_count && !d->failed; i++) {
        const vmk_gc_type *type = vmk_table_at(&d->gc->type_table, 0, i);
        line(d, "type");
        field(d, i + 1);
        field(d, type->words * sizeof(uintptr_t));
        put_text(d, type->trace != NULL ? " traced " : type->leaf ? " leaf " : " map ");
        put_name(d, type->name);
        line_end(d);
    }
}

/* One word: the name of the enumerator. */
static const char *root_word(vmk_gc_root root)
{
    static const char *const words[] = {
#define WORD(name, text) [VMK_GC_ROOT_##name] = #name,
        VMK_GC_ROOT_TABLE(WORD)
#undef WORD
    };
    return words[root];
}

static void put_root(void *context, const void *at, uintptr_t object)
{
    dump *d = context;
    bool has_address = d->root != VMK_GC_ROOT_PIN && d->root != VMK_GC_ROOT_FINALIZABLE;
    if (d->failed)
        return;
    line(d, "root ");
    put_text(d, root_word(d->root));
    field(d, d->thread);
    field_at(d, NULL, has_address ? at : NULL);
    field(d, object);
    line_end(d);
    d->roots++;
}

static void put_roots_of(void *context, const vmki_root *root, bool own)
{
    dump *d = context;
    (void)own;
    d->root = root->kind;
    d->thread = root->mutator != NULL ? root->mutator->id : 0;
    vmki_refs_of_root(d->gc, root, put_root, d);
}

static const char *kind_word(uint8_t code)
{
    static const char *const words[VMKI_KINDS] = {
        [VMKI_LEAF] = " leaf", [VMKI_CONSERVATIVE] = " conservative", [VMKI_TYPED] = " typed"};
    return words[vmki_gc_codes[code].kind];
}

static void put_reference(void *context, const void *at, uintptr_t object)
{
    dump *d = context;
    if (d->failed)
        return;
    line(d, "r");
    field_at(d, (const void *)d->object, at);
    field(d, object);
    line_end(d);
    d->references++;
}

static bool put_object(void *context, uintptr_t base, uint8_t code)
{
    dump *d = context;
    const vmk_span *span = vmk_span_of(d->gc->heap, (const void *)base);
    const vmk_gc_type *type = vmki_gc_type_of(d->gc, base);
    size_t size = vmki_gc_size(d->gc, base, code);
    if (span != d->span) {
        line(d, "span");
        field(d, (uintptr_t)span->base);
        field(d, (uint64_t)span->pages << VMK_HEAP_PAGE_SHIFT);
        line_end(d);
        d->span = span;
    }
    line(d, "o");
    field(d, base);
    field(d, size);
    put_text(d, kind_word(code));
    field(d, type_number(d, type));
    field(d, (uintptr_t)vmki_site_of(d->gc, base));
    line_end(d);
    d->objects++;
    d->bytes += size;
    d->object = base;
    vmki_refs_of_object(d->gc, base, put_reference, d);
    return !d->failed;
}

/* References to objects, whatever the pair holds. */
static void put_ephemeron(void *context, uintptr_t ephemeron, uintptr_t key, uintptr_t value)
{
    dump *d = context;
    uint8_t code;
    key = vmki_gc_object(d->gc, key, &code);
    value = vmki_gc_object(d->gc, value, &code);
    if (d->failed || key == 0 || value == 0)
        return;
    line(d, "ephemeron");
    field(d, ephemeron);
    field(d, key);
    field(d, value);
    line_end(d);
}

static void put_all(vmki_gc *gc, void *argument)
{
    dump *d = argument;
    put_head(d);
    put_types(d);
    vmki_asker_roots(gc, &d->asker, put_roots_of, d);
    if (!d->failed)
        vmki_gc_each(gc, put_object, d);
    if (!d->failed)
        vmki_ephemerons_visit(gc, put_ephemeron, d);
    line(d, "end");
    field(d, d->objects);
    field(d, d->bytes);
    field(d, d->roots);
    field(d, d->references);
    line_end(d);
    flush(d);
}

bool vmk_gc_dump(vmk_gc *given, vmk_gc_writer *write, void *context)
{
    dump d = {.gc = VMKI_GC_REQUIRE(given, "vmk_gc_dump"), .write = write, .context = context};
    vmki_asker_begin(&d.asker);
    vmki_gc_stopped(d.gc, put_all, &d);
    return !d.failed;
}
