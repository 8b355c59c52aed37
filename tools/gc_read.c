/* SPDX-License-Identifier: MIT
 *
 * A dump, line by line. It is read twice: to count its lines, for which there is memory then, and to keep them. It may
 * be cut off, or made up: nothing is taken for granted, and what is wrong is told with its line.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

enum { LINE_OBJECT, LINE_REFERENCE, LINE_ROOT, LINE_TYPE, LINE_SPAN, LINE_EPHEMERON, LINES };

typedef struct reader {
    FILE *file;
    heap_dump *dump;
    uint64_t line; /* number, from 1 */
    bool counts;   /* the first time */
    bool ended;
    bool wrong;     /* having complained */
    bool in_object; /* the line before was an object, or a reference of one */
    char text[DUMP_LINE];
    uint32_t counted[LINES]; /* by kind */
    uint32_t kept[LINES];
} reader;

static bool fail(reader *r, uint64_t line, const char *what)
{
    if (!r->wrong)
        complain("%s, line %" PRIu64 ": %s", r->dump->path, line, what);
    r->wrong = true;
    return false;
}

void *dump_memory(uint64_t count, size_t size)
{
    vmk_region region;
    uint64_t bytes = (count + 1) * size;
    if (count < SIZE_MAX / size / 2 && vmk_reserve(&region, (size_t)bytes, NULL) == VMK_OK) {
        if (vmk_commit(&region, 0, region.size) == VMK_OK)
            return region.base;
        vmk_release(&region);
    }
    complain("there is no memory for so large a dump");
    return NULL;
}

/* --- fields ------------------------------------------------------------------------------------------------------- */

/* The next word, cut off from what follows; NULL: the line has ended. */
static char *next_word(char **at)
{
    char *word = *at;
    if (*word == '\0')
        return NULL;
    char *end = strchr(word, ' ');
    *at = end != NULL ? end + 1 : word + strlen(word);
    if (end != NULL)
        *end = '\0';
    return *word != '\0' ? word : NULL;
}

static bool parse_hex(const char *word, uint64_t *number)
{
    uint64_t sum = 0;
    size_t digits = word != NULL ? strlen(word) : 0;
    if (digits == 0 || digits > 16)
        return false;
    for (; *word != '\0'; word++) {
        unsigned digit;
        if (*word >= '0' && *word <= '9')
            digit = (unsigned)(*word - '0');
        else if (*word >= 'a' && *word <= 'f')
            digit = (unsigned)(*word - 'a') + 10;
        else
            return false;
        sum = sum << 4 | digit;
    }
    *number = sum;
    return true;
}

static bool number(reader *r, char **at, uint64_t *result)
{
    return parse_hex(next_word(at), result) || fail(r, r->line, "a hexadecimal number is meant");
}

/* A number, or "-" for DUMP_NOWHERE. */
static bool place(reader *r, char **at, uint64_t *result)
{
    if (strncmp(*at, "- ", 2) != 0)
        return number(r, at, result);
    *at += 2;
    *result = DUMP_NOWHERE;
    return true;
}

static bool at_end(reader *r, const char *at)
{
    return *at == '\0' || fail(r, r->line, "there is more than is meant");
}

/* --- lines -------------------------------------------------------------------------------------------------------- */

static bool read_span(reader *r, char *at)
{
    heap_dump *d = r->dump;
    dump_span s = {.first = d->object_count};
    if (!number(r, &at, &s.base) || !number(r, &at, &s.size) || !at_end(r, at))
        return false;
    const dump_span *last = d->span_count != 0 ? &d->spans[d->span_count - 1] : NULL;
    if (s.size == 0 || s.base + s.size < s.base)
        return fail(r, r->line, "a span of an impossible size");
    if (last != NULL && s.base < last->base + last->size)
        return fail(r, r->line, "a span that does not lie behind the one before");
    d->spans[d->span_count++] = s;
    return true;
}

static bool read_object(reader *r, char *at)
{
    static const char *const kinds[DUMP_KINDS] = {"leaf", "conservative", "typed"};
    heap_dump *d = r->dump;
    uint64_t type;
    dump_object o = {.line = r->line, .first = d->reference_count, .kind = DUMP_KINDS};
    if (!number(r, &at, &o.address) || !number(r, &at, &o.size))
        return false;
    const char *kind = next_word(&at);
    for (uint8_t k = 0; kind != NULL && k < DUMP_KINDS; k++)
        if (strcmp(kind, kinds[k]) == 0)
            o.kind = k;
    if (o.kind == DUMP_KINDS)
        return fail(r, r->line, "leaf, conservative or typed is meant");
    if (!number(r, &at, &type) || !number(r, &at, &o.site) || !at_end(r, at))
        return false;
    if (type > d->type_count || (type == 0 && o.kind == DUMP_TYPED) || (type != 0 && o.kind == DUMP_CONSERVATIVE))
        return fail(r, r->line, "an object of no such type");
    const dump_span *span = d->span_count != 0 ? &d->spans[d->span_count - 1] : NULL;
    if (span == NULL || o.address < span->base || o.size == 0 || o.size > span->size ||
        o.address - span->base > span->size - o.size)
        return fail(r, r->line, "an object that does not lie in the span before it");
    const dump_object *last = d->object_count != 0 ? &d->objects[d->object_count - 1] : NULL;
    if (last != NULL && o.address < last->address + last->size)
        return fail(r, r->line, "an object that does not lie behind the one before");
    o.type = (uint16_t)type;
    d->bytes += o.size;
    d->objects[d->object_count++] = o;
    return true;
}

/* What it refers to may come later: an address that is looked up when all is known. */
static bool read_reference(reader *r, char *at)
{
    heap_dump *d = r->dump;
    uint64_t offset, to;
    if (!r->in_object || d->objects[d->object_count - 1].kind == DUMP_LEAF)
        return fail(r, r->line, "a reference of no object that could have one");
    if (!place(r, &at, &offset) || !number(r, &at, &to) || !at_end(r, at))
        return false;
    const dump_object *from = &d->objects[d->object_count - 1];
    if (offset != DUMP_NOWHERE && offset >= from->size)
        return fail(r, r->line, "a reference outside its object");
    d->references[d->reference_count++] = (dump_reference){.at = offset, .address = to};
    return true;
}

static bool read_root(reader *r, char *at)
{
    static const char *const words[] = {
#define WORD(name, text) [VMK_GC_ROOT_##name] = #name,
        VMK_GC_ROOT_TABLE(WORD)
#undef WORD
    };
    heap_dump *d = r->dump;
    dump_root root = {.line = r->line, .kind = VMK_GC_ROOT_COUNT};
    const char *word = next_word(&at);
    for (unsigned kind = 0; word != NULL && kind < VMK_GC_ROOT_COUNT; kind++)
        if (strcmp(word, words[kind]) == 0)
            root.kind = (vmk_gc_root)kind;
    if (root.kind == VMK_GC_ROOT_COUNT)
        return fail(r, r->line, "no such kind of root");
    if (!number(r, &at, &root.thread) || !place(r, &at, &root.at) || !number(r, &at, &root.address) || !at_end(r, at))
        return false;
    d->roots[d->root_count++] = root;
    return true;
}

static bool read_type(reader *r, char *at)
{
    heap_dump *d = r->dump;
    uint64_t index;
    dump_type *type = &d->types[d->type_count];
    if (!number(r, &at, &index) || !number(r, &at, &type->size))
        return false;
    if (index != (uint64_t)d->type_count + 1 || index > DUMP_TYPES_MAX)
        return fail(r, r->line, "types are numbered from 1, without gaps");
    if (next_word(&at) == NULL)
        return fail(r, r->line, "map, traced or leaf is meant");
    if (strlen(at) >= sizeof type->name)
        return fail(r, r->line, "the name is too long");
    memcpy(type->name, at, strlen(at) + 1);
    d->type_count++;
    return true;
}

static bool read_ephemeron(reader *r, char *at)
{
    heap_dump *d = r->dump;
    dump_pair pair = {.line = r->line};
    if (!number(r, &at, &pair.address[0]) || !number(r, &at, &pair.address[1]) || !number(r, &at, &pair.address[2]) ||
        !at_end(r, at))
        return false;
    d->pairs[d->pair_count++] = pair;
    return true;
}

static bool read_end(reader *r, char *at)
{
    const heap_dump *d = r->dump;
    uint64_t objects, bytes, roots, references;
    if (!number(r, &at, &objects) || !number(r, &at, &bytes) || !number(r, &at, &roots) ||
        !number(r, &at, &references) || !at_end(r, at))
        return false;
    if (objects != d->object_count || bytes != d->bytes || roots != d->root_count || references != d->reference_count)
        return fail(r, r->line, "these are not the sums of the lines before");
    if (d->word != 4 && d->word != 8)
        return fail(r, r->line, "nothing says what a word is: 4 or 8 bytes");
    r->ended = true;
    return true;
}

static bool read_figure(reader *r, const char *word, char *at)
{
    heap_dump *d = r->dump;
    const struct {
        const char *word;
        uint64_t *figure;
    } all[] = {
        {"word", &d->word}, {"page", &d->page}, {"flags", &d->flags}, {"heap", &d->heap}, {"cycles", &d->cycles}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(word, all[i].word) == 0)
            return number(r, &at, all[i].figure) && at_end(r, at);
    return fail(r, r->line, "no line of a dump begins like this");
}

static bool read_first(reader *r, const char *word, char *at)
{
    uint64_t version;
    if (word == NULL || strcmp(word, "vmkit-gc-dump") != 0)
        return fail(r, r->line, "this is not a dump of a collected heap: it begins with vmkit-gc-dump");
    if (!parse_hex(next_word(&at), &version) || version != 1)
        return fail(r, r->line, "a dump of another version of vmkit; this one reads version 1");
    return at_end(r, at);
}

static const struct {
    const char *word;
    bool (*read)(reader *r, char *at);
} lines[LINES] = {
    [LINE_OBJECT] = {"o", read_object}, [LINE_REFERENCE] = {"r", read_reference},
    [LINE_ROOT] = {"root", read_root},  [LINE_TYPE] = {"type", read_type},
    [LINE_SPAN] = {"span", read_span},  [LINE_EPHEMERON] = {"ephemeron", read_ephemeron},
};

static bool count_line(reader *r, size_t kind)
{
    return ++r->counted[kind] < DUMP_MOST || fail(r, r->line, "more lines of this kind than this program can keep");
}

static bool keep_line(reader *r, size_t kind, char *at)
{
    if (r->kept[kind]++ >= r->counted[kind])
        return fail(r, r->line, "the file has become longer while it was read");
    bool well = lines[kind].read(r, at);
    r->in_object = kind == LINE_OBJECT || kind == LINE_REFERENCE;
    return well;
}

static bool read_line(reader *r)
{
    char *at = r->text;
    const char *word = next_word(&at);
    if (r->line == 1)
        return read_first(r, word, at);
    if (r->ended)
        return fail(r, r->line, "there is more behind the end");
    if (word == NULL)
        return fail(r, r->line, "no line of a dump begins like this");
    for (size_t i = 0; i < LINES; i++) {
        if (strcmp(word, lines[i].word) == 0)
            return r->counts ? count_line(r, i) : keep_line(r, i, at);
    }
    r->in_object = false;
    if (strcmp(word, "end") == 0)
        return r->counts || read_end(r, at);
    return r->counts || read_figure(r, word, at);
}

/* The next line, without its end, as text of printable characters. False: there is none, or it is wrong. */
static bool next_line(reader *r)
{
    if (fgets(r->text, sizeof r->text, r->file) == NULL)
        return false;
    r->line++;
    size_t length = strlen(r->text);
    if (length == 0 || r->text[length - 1] != '\n')
        return fail(r, r->line, feof(r->file) ? "the dump is cut off here" : "not a line of a dump");
    r->text[--length] = '\0';
    if (length != 0 && r->text[length - 1] == '\r')
        r->text[--length] = '\0';
    for (size_t i = 0; i < length; i++)
        if (r->text[i] < ' ' || r->text[i] > '~')
            return fail(r, r->line, "not a line of text");
    return true;
}

static bool read_all(reader *r)
{
    r->line = 0;
    if (fseek(r->file, 0, SEEK_SET) != 0) {
        complain("%s can't be read twice: a file is meant", r->dump->path);
        return false;
    }
    while (next_line(r))
        if (!read_line(r))
            return false;
    if (r->wrong)
        return false;
    if (ferror(r->file)) {
        complain("%s can't be read", r->dump->path);
        r->wrong = true;
        return false;
    }
    if (r->line == 0)
        return fail(r, 1, "this is not a dump of a collected heap: it is empty");
    return r->counts || r->ended || fail(r, r->line, "the dump is cut off here: it has no end");
}

/* --- addresses become objects ------------------------------------------------------------------------------------- */

uint32_t dump_find(const heap_dump *d, uint64_t address)
{
    uint32_t low = 0, high = d->object_count; /* the last that does not lie behind it */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (d->objects[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low != 0 && address - d->objects[low - 1].address < d->objects[low - 1].size ? low - 1 : DUMP_NONE;
}

static bool resolve(reader *r, uint64_t address, uint64_t line, uint32_t *object)
{
    *object = dump_find(r->dump, address);
    if (*object != DUMP_NONE && r->dump->objects[*object].address == address)
        return true;
    return fail(r, line, "it refers to what is no object");
}

static bool resolve_all(reader *r)
{
    heap_dump *d = r->dump;
    for (uint32_t i = 0; i < d->object_count; i++) {
        const dump_object *o = &d->objects[i];
        for (uint32_t k = o->first; k < o[1].first; k++)
            if (!resolve(r, d->references[k].address, o->line + 1 + (k - o->first), &d->references[k].to))
                return false;
    }
    for (uint32_t i = 0; i < d->root_count; i++)
        if (!resolve(r, d->roots[i].address, d->roots[i].line, &d->roots[i].object))
            return false;
    for (uint32_t i = 0; i < d->pair_count; i++) {
        dump_pair *p = &d->pairs[i];
        if (!resolve(r, p->address[0], p->line, &p->ephemeron) || !resolve(r, p->address[1], p->line, &p->key) ||
            !resolve(r, p->address[2], p->line, &p->value))
            return false;
    }
    return true;
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

static bool memory_take(reader *r)
{
    heap_dump *d = r->dump;
    d->objects = dump_memory((uint64_t)r->counted[LINE_OBJECT] + 1, sizeof *d->objects);
    d->references = dump_memory(r->counted[LINE_REFERENCE], sizeof *d->references);
    d->roots = dump_memory(r->counted[LINE_ROOT], sizeof *d->roots);
    d->types = dump_memory(r->counted[LINE_TYPE], sizeof *d->types);
    d->spans = dump_memory(r->counted[LINE_SPAN], sizeof *d->spans);
    d->pairs = dump_memory(r->counted[LINE_EPHEMERON], sizeof *d->pairs);
    return d->objects != NULL && d->references != NULL && d->roots != NULL && d->types != NULL && d->spans != NULL &&
           d->pairs != NULL;
}

int dump_read(heap_dump *dump, const char *path)
{
    static char buffer[64 * 1024];
    static reader r;
    dump->path = path;
    r.dump = dump;
    r.file = fopen(path, "rb");
    if (r.file == NULL) {
        complain("%s can't be read", path);
        return TOOL_FAILED;
    }
    setvbuf(r.file, buffer, _IOFBF, sizeof buffer);
    r.counts = true;
    bool well = read_all(&r) && memory_take(&r);
    r.counts = false;
    well = well && read_all(&r);
    fclose(r.file);
    if (!well)
        return TOOL_FAILED;
    dump->objects[dump->object_count].first = dump->reference_count; /* where those of the last end */
    return resolve_all(&r) ? TOOL_DONE : TOOL_FAILED;
}

const char *dump_label(const heap_dump *d, const dump_object *object, char text[DUMP_LABEL])
{
    if (object->type == 0)
        snprintf(text, DUMP_LABEL, "%s", object->kind == DUMP_LEAF ? "leaf" : "conservative");
    else if (d->types[object->type - 1].name[0] == '\0')
        snprintf(text, DUMP_LABEL, "type %u", (unsigned)object->type);
    else
        snprintf(text, DUMP_LABEL, "%s", d->types[object->type - 1].name);
    return text;
}
