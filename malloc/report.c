/* SPDX-License-Identifier: MIT
 *
 * Figures: mallinfo and its kin, and the report of VMKIT_STATS and malloc_stats. Written without stdio, which
 * allocates.
 */
#include "posix/os_private.h"

#if defined(__linux__)
#include <malloc.h>
#endif

#include "shim.h"

/* --- lines ------------------------------------------------------------------------------------------------------ */

/* Text on its way to a file, in as few pieces as can be: others may be writing there. */
typedef struct output {
    int file;
    size_t length;
    char text[4096];
} output;

static void out_flush(output *out)
{
    for (size_t done = 0; done < out->length;) {
        ssize_t written = write(out->file, out->text + done, out->length - done);
        if (written <= 0 && errno != EINTR)
            break;
        done += written > 0 ? (size_t)written : 0;
    }
    out->length = 0;
}

static void out_text(output *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (out->length == sizeof out->text)
            out_flush(out);
        out->text[out->length++] = *text;
    }
}

/* Right-aligned. */
static void out_number(output *out, uint64_t value, size_t width)
{
    char digits[32];
    char *first = digits + sizeof digits - 1;
    *first = '\0';
    do {
        *--first = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while ((size_t)(digits + sizeof digits - 1 - first) < width && first > digits)
        *--first = ' ';
    out_text(out, first);
}

static void out_name(output *out, const char *name, size_t width)
{
    out_text(out, name);
    for (size_t length = strlen(name); length < width; length++)
        out_text(out, " ");
}

/* --- the report ------------------------------------------------------------------------------------------------- */

static void out_class(output *out, const vmk_class_stats *c)
{
    out_number(out, c->objects, 15);
    out_number(out, c->bytes, 18);
    out_number(out, c->spans, 10);
    out_number(out, c->span_bytes, 18);
    out_text(out, "\n");
}

static void out_classes(output *out, const vmk_object_stats *stats)
{
    out_text(out, "  objects of bytes         number             bytes     spans     bytes of spans\n");
    for (unsigned i = 1; i <= VMK_CLASSES; i++) {
        const vmk_class_stats *c = &stats->by_class[i % VMK_CLASSES]; /* the large ones come last */
        if (c->spans == 0)
            continue;
        out_text(out, "  ");
        if (c->size != 0)
            out_number(out, c->size, 8);
        else
            out_text(out, "   large");
        out_class(out, c);
    }
    out_text(out, "     all  ");
    out_class(out, &stats->sum);
    out_text(out, "  caches of threads ");
    out_number(out, stats->caches, 0);
    out_text(out, ", bytes of caches ");
    out_number(out, stats->cache_bytes, 0);
    out_text(out, ", slabs that no thread keeps ");
    out_number(out, stats->orphans, 0);
    out_text(out, "\n");
}

static void out_heap(output *out, const vmk_heap_stats *stats)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } sums[] = {{"in use", stats->in_use},
                {"in use, peak", stats->in_use_peak},
                {"idle", stats->idle},
                {"given back", stats->released}};
    out_text(out, "  parts of the heap        reserved         committed\n");
    for (unsigned i = 0; i <= VMK_HEAP_PARTS; i++) {
        bool is_sum = i == VMK_HEAP_PARTS;
        out_text(out, "  ");
        out_name(out, is_sum ? "all" : vmk_heap_part_name((vmk_heap_part)i), 15);
        out_number(out, is_sum ? stats->reserved : stats->part[i].reserved, 18);
        out_number(out, is_sum ? stats->committed : stats->part[i].committed, 18);
        out_text(out, "\n");
    }
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++) {
        out_text(out, "  ");
        out_name(out, sums[i].name, 15);
        out_number(out, sums[i].bytes, 18);
        out_text(out, "\n");
    }
}

void vmki_shim_report(int file)
{
    vmki_heap *heap = VMKI_LOAD_ACQUIRE(&vmki_default_heap);
    vmk_heap_stats heap_stats;
    vmk_object_stats objects;
    output out;
    if (heap == NULL)
        return;
    int error = errno;
    out.file = file;
    out.length = 0;
    vmk_object_stats_now(&heap->view, NULL, &objects);
    vmk_heap_stats_now(&heap->view, &heap_stats);
    out_text(&out, "vmkit: process ");
    out_number(&out, (uint64_t)getpid(), 0);
    out_text(&out, ", heap ");
    out_text(&out, vmk_layout_name(heap_stats.layout));
    out_text(&out, vmki_shim_hardened ? ", hardened\n" : "\n");
    out_classes(&out, &objects);
    out_heap(&out, &heap_stats);
    out_flush(&out);
    errno = error;
}

/* --- the C library's -------------------------------------------------------------------------------------------- */

VMKI_EXPORT void malloc_stats(void)
{
    vmki_shim_report(STDERR_FILENO);
}

/* 1: something was given back. */
VMKI_EXPORT int malloc_trim(size_t keep)
{
    (void)keep;
    vmki_heap *heap = vmki_shim_heap();
    size_t returned = heap != NULL ? vmk_heap_trim(&heap->view) : 0;
    return returned != 0;
}

/* All advice is taken, and none is followed. */
VMKI_EXPORT int mallopt(int parameter, int value)
{
    (void)parameter, (void)value;
    return 1;
}

#if defined(__GLIBC__)

typedef struct figures {
    vmk_heap_stats heap;
    vmk_object_stats objects;
    size_t total;
} figures;

static bool figures_now(figures *now)
{
    vmki_heap *heap = vmki_shim_heap();
    if (heap == NULL)
        return false;
    vmk_heap_stats_now(&heap->view, &now->heap);
    vmk_object_stats_now(&heap->view, NULL, &now->objects);
    now->total = vmki_max(now->heap.in_use + now->heap.idle, now->objects.sum.bytes);
    return true;
}

/* `arena` is all memory, `uordblks` what objects take of it, `fordblks` the rest; the h-s are of large objects. */
#define MALLINFO(type, number)                                                                                         \
    figures now;                                                                                                       \
    struct type info = {0};                                                                                            \
    if (figures_now(&now)) {                                                                                           \
        info.arena = (number)now.total;                                                                                \
        info.ordblks = (number)now.objects.sum.spans;                                                                  \
        info.hblks = (number)now.objects.by_class[0].objects;                                                          \
        info.hblkhd = (number)now.objects.by_class[0].bytes;                                                           \
        info.uordblks = (number)now.objects.sum.bytes;                                                                 \
        info.fordblks = (number)(now.total - now.objects.sum.bytes);                                                   \
        info.keepcost = (number)now.heap.idle;                                                                         \
    }                                                                                                                  \
    return info

VMKI_EXPORT struct mallinfo mallinfo(void)
{
    MALLINFO(mallinfo, int);
}

#if __GLIBC_PREREQ(2, 33)
VMKI_EXPORT struct mallinfo2 mallinfo2(void)
{
    MALLINFO(mallinfo2, size_t);
}
#endif

#endif
