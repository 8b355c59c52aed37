/* SPDX-License-Identifier: MIT */
#include "checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _WIN32
#include <io.h>
#include <windows.h>
#define seek_to(file, at) _fseeki64((file), (long long)(at), SEEK_SET)
#define to_disk(file) _commit(_fileno(file))
#define take_place(from, to) (MoveFileExA((from), (to), MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) ? 0 : -1)
#else
#include <unistd.h>
#define seek_to(file, at) fseeko((file), (off_t)(at), SEEK_SET)
#define to_disk(file) fsync(fileno(file))
#define take_place(from, to) rename((from), (to))
#endif

#define FILE_MAGIC 0x3154504b43564d56u   /* "VMVCKPT1" */
#define RECORD_MAGIC 0x44524f4345524b43u /* "CKRECORD" */

enum { COMPACT_AT = 3 }; /* times the size of the region */

typedef struct file_header {
    uint64_t magic, id, size, page_size, number; /* of the checkpoint before its first record */
} file_header;

/* Then its runs, their pages' contents, and the checksum of all of it. */
typedef struct record_header {
    uint64_t magic, number, runs, pages;
} record_header;

typedef struct page_run {
    uint64_t first, count;
} page_run;

/* --- a stream with a checksum ----------------------------------------------------------------------------------- */

typedef struct stream {
    checkpoint *c;
    uint64_t sum;
    uint64_t bytes;
    bool good;
} stream;

/* All that is written and read is whole words. This finds what was torn or never written; it is no defence. */
static void add(stream *s, const void *data, size_t size)
{
    const unsigned char *at = data;
    for (uint64_t word; size >= sizeof word; at += sizeof word, size -= sizeof word) {
        memcpy(&word, at, sizeof word);
        s->sum = (s->sum ^ word) * 0x9e3779b97f4a7c15u;
        s->sum ^= s->sum >> 29;
    }
    s->bytes += (uint64_t)(at - (const unsigned char *)data);
}

static void put(stream *s, const void *data, size_t size)
{
    uint64_t limit = s->c->limit;
    if (limit != 0 && size >= limit) { /* the test's crash: part of it is written, and that is that */
        (void)fwrite(data, 1, (size_t)limit, s->c->file);
        (void)fflush(s->c->file);
        _Exit(3);
    }
    s->c->limit -= limit != 0 ? size : 0;
    s->good = s->good && fwrite(data, 1, size, s->c->file) == size;
    add(s, data, size);
}

static void get(stream *s, void *data, size_t size)
{
    s->good = s->good && fread(data, 1, size, s->c->file) == size;
    if (s->good)
        add(s, data, size);
}

static stream stream_at(checkpoint *c, uint64_t at)
{
    return (stream){.c = c, .sum = c->id, .good = seek_to(c->file, at) == 0};
}

static bool fail(const char *what, const char *path)
{
    fprintf(stderr, "checkpoint: %s: %s: %s\n", path, what, strerror(errno));
    return false;
}

/* --- pages that are pending -------------------------------------------------------------------------------------- */

static size_t page_count(const checkpoint *c)
{
    return c->region->size / vmk_page_size();
}

static bool is_pending(const checkpoint *c, size_t page)
{
    return (c->pending[page / 64] >> page % 64 & 1) != 0;
}

/* The first run of pending pages from `from` on; false: there is none. */
static bool next_run(const checkpoint *c, size_t from, page_run *run)
{
    size_t count = page_count(c), first = from;
    while (first < count && !is_pending(c, first))
        first += c->pending[first / 64] == 0 ? 64 - first % 64 : 1;
    if (first >= count)
        return false;
    size_t end = first + 1;
    while (end < count && is_pending(c, end))
        end++;
    *run = (page_run){first, end - first};
    return true;
}

static void set_all(checkpoint *c, unsigned char value)
{
    memset(c->pending, value, (page_count(c) + 63) / 64 * sizeof *c->pending);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

static record_header count_pending(const checkpoint *c)
{
    record_header header = {RECORD_MAGIC, c->number + 1, 0, 0};
    page_run run;
    for (size_t at = 0; next_run(c, at, &run); at = (size_t)(run.first + run.count)) {
        header.runs++;
        header.pages += run.count;
    }
    return header;
}

static bool record_write(checkpoint *c, uint64_t at, stream *s)
{
    record_header header = count_pending(c);
    size_t page_size = vmk_page_size();
    page_run run;
    *s = stream_at(c, at);
    put(s, &header, sizeof header);
    for (size_t from = 0; next_run(c, from, &run); from = (size_t)(run.first + run.count))
        put(s, &run, sizeof run);
    for (size_t from = 0; next_run(c, from, &run); from = (size_t)(run.first + run.count))
        put(s, c->region->base + run.first * page_size, (size_t)run.count * page_size);
    uint64_t sum = s->sum;
    put(s, &sum, sizeof sum);
    return s->good && fflush(c->file) == 0 && to_disk(c->file) == 0;
}

/* Read the record at the end. Twice, since contents go into the region only if all of them are there: `apply`. */
static bool record_read(checkpoint *c, bool apply, stream *s)
{
    record_header header;
    size_t page_size = vmk_page_size();
    *s = stream_at(c, c->end);
    get(s, &header, sizeof header);
    if (!s->good || header.magic != RECORD_MAGIC || header.number != c->number + 1 || header.runs > page_count(c))
        return false;
    page_run *runs = malloc((size_t)(header.runs + 1) * sizeof *runs);
    unsigned char *page = malloc(page_size);
    s->good = runs != NULL && page != NULL;
    for (uint64_t i = 0; s->good && i < header.runs; i++) {
        get(s, &runs[i], sizeof runs[i]);
        s->good = s->good && runs[i].count <= page_count(c) && runs[i].first <= page_count(c) - runs[i].count;
    }
    for (uint64_t i = 0; s->good && i < header.runs; i++)
        for (uint64_t j = 0; s->good && j < runs[i].count; j++)
            get(s, apply ? c->region->base + (runs[i].first + j) * page_size : page, page_size);
    uint64_t sum = s->sum, stored = 0;
    get(s, &stored, sizeof stored);
    free(runs);
    free(page);
    return s->good && stored == sum;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

/* A new file with nothing but its header. */
static bool start_file(checkpoint *c, const char *path)
{
    c->file = fopen(path, "w+b");
    if (c->file == NULL)
        return fail("can't be made", path);
    c->id = ((uint64_t)time(NULL) * 0x9e3779b97f4a7c15u) ^ (uint64_t)clock() ^ (uint64_t)(uintptr_t)c;
    c->end = sizeof(file_header);
    file_header header = {FILE_MAGIC, c->id, c->region->size, vmk_page_size(), c->number};
    if (fwrite(&header, sizeof header, 1, c->file) == 1 && fflush(c->file) == 0)
        return true;
    (void)fclose(c->file);
    return fail("can't be written", path);
}

static bool read_file(checkpoint *c, const char *path)
{
    file_header header;
    if (fread(&header, sizeof header, 1, c->file) != 1 || header.magic != FILE_MAGIC ||
        header.size != c->region->size || header.page_size != vmk_page_size()) {
        fprintf(stderr, "checkpoint: %s: not the checkpoints of a region of %zu bytes\n", path, c->region->size);
        return false;
    }
    c->id = header.id;
    c->number = header.number;
    c->end = sizeof header;
    for (stream s; record_read(c, false, &s) && record_read(c, true, &s); c->number++)
        c->end += s.bytes;
    return true;
}

/* All pages into another file, and that into the place of this one: at every moment there is one that is whole. */
static bool compact(checkpoint *c, stream *s)
{
    checkpoint fresh = *c;
    char *path = malloc(strlen(c->path) + sizeof ".new");
    if (path == NULL)
        return fail("can't be compacted", c->path);
    (void)strcat(strcpy(path, c->path), ".new");
    set_all(c, 0xff);
    bool good = start_file(&fresh, path);
    if (good) {
        good = record_write(&fresh, fresh.end, s);
        c->limit = fresh.limit;
        good = fclose(fresh.file) == 0 && good;
    }
    if (good) {
        (void)fclose(c->file); /* Windows replaces no file that is open */
        good = take_place(path, c->path) == 0;
        c->file = fopen(c->path, "r+b"); /* either of the two */
        c->id = good ? fresh.id : c->id;
        c->end = good ? fresh.end : c->end;
    }
    if (!good)
        (void)remove(path);
    free(path);
    return (good && c->file != NULL) || fail("can't be compacted", c->path);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

bool checkpoint_open(checkpoint *c, vmk_region *region, const char *path)
{
    size_t words = (region->size / vmk_page_size() + 63) / 64;
    *c = (checkpoint){.region = region, .pending = calloc(words, sizeof *c->pending), .path = malloc(strlen(path) + 1)};
    bool good = c->pending != NULL && c->path != NULL;
    if (good) {
        (void)strcpy(c->path, path);
        c->file = fopen(path, "r+b");
        good = c->file != NULL ? read_file(c, path) : start_file(c, path);
    }
    if (good && c->number == 0)
        set_all(c, 0xff);
    if (good) {
        vmk_status status = vmk_watch_start(&c->watch, region, 0, region->size, NULL);
        if (status == VMK_OK)
            return true;
        fprintf(stderr, "checkpoint: writes can't be watched: %s\n", vmk_status_text(status));
    }
    if (c->file != NULL)
        (void)fclose(c->file);
    free(c->pending);
    free(c->path);
    return false;
}

bool checkpoint_write(checkpoint *c, uint64_t *bytes)
{
    stream s = {0};
    vmk_status status = vmk_watch_collect_bits(&c->watch, 0, c->region->size, c->pending, NULL);
    if (status != VMK_OK) { /* what was collected is pending, the rest will be collected next time */
        fprintf(stderr, "checkpoint: %s\n", vmk_status_text(status));
        return false;
    }
    if (c->file == NULL)
        return fail("is lost", c->path);
    bool large = c->end > COMPACT_AT * (uint64_t)c->region->size;
    if (!(large ? compact(c, &s) : record_write(c, c->end, &s)))
        return large ? false : fail("can't be written", c->path);
    c->end += s.bytes;
    c->number++;
    set_all(c, 0);
    *bytes = s.bytes;
    return true;
}

void checkpoint_close(checkpoint *c)
{
    vmk_watch_stop(&c->watch);
    if (c->file != NULL)
        (void)fclose(c->file);
    free(c->pending);
    free(c->path);
}
