/* SPDX-License-Identifier: MIT
 *
 * A table under a fuzzer: an input is a config and a list of calls. A shadow says which elements are ready and what was
 * stored in them; after each call the whole of it is compared, with the tails behind what is ready, which must read as
 * zero.
 *
 * A sparse table may be huge: only the elements of a window are ever used, which lies at its beginning, in its middle
 * or at its end. A dense one is all window.
 */
#include <string.h>

#include "common/table/table.h"
#include "common/vm/vm.h"
#include "fuzz.h"

enum { MAX_WINDOW = 1200, MAX_TAIL = 70 };

/* Bytes that the largest tables may take. The model has 256 MiB of addresses, and 32 bits not much more; Wine keeps a
 * byte for each page that is reserved. */
#if defined(VMKIT_MODEL) || SIZE_MAX <= UINT32_MAX
static const size_t huge_size = (size_t)64 << 20;
#else
static const size_t huge_size = (size_t)16 << 30;
#endif

typedef struct world {
    fuzz_input in;
    vmk_table_config config;
    vmk_table table;
    vmk_region part; /* where the table is to live; size 0: in one of its own */
    bool sparse;
    size_t window; /* first element of it, */
    size_t count;  /* and how many they are */
    bool ready[MAX_WINDOW];
    unsigned char value[MAX_WINDOW]; /* 0: nothing was stored */
} world;

/* --- elements --------------------------------------------------------------------------------------------------- */

static size_t width_of(const world *w, unsigned column)
{
    return w->table.bits[column] / 8; /* 0 for columns of bits */
}

/* What is stored in a column for a value. 0 stays 0, and nothing else becomes 0 in columns of whole bytes. */
static unsigned char byte_for(unsigned value, unsigned column)
{
    return value == 0 ? 0 : (unsigned char)(1 + (value + 37 * column) % 255);
}

static void store(world *w, size_t i, unsigned value)
{
    w->value[i] = (unsigned char)value;
    for (unsigned c = 0; c < w->table.columns; c++) {
        size_t index = w->window + i;
        unsigned char byte = byte_for(value, c);
        if (width_of(w, c) != 0)
            memset(vmk_table_at(&w->table, c, index), byte, width_of(w, c));
        else
            vmk_table_store_bits(&w->table, c, index, byte);
    }
}

/* Long elements are looked at in a few places. */
static bool holds(const world *w, unsigned column, size_t index, unsigned value)
{
    size_t width = width_of(w, column);
    unsigned char byte = byte_for(value, column);
    if (width == 0)
        return vmk_table_load_bits(&w->table, column, index) == (byte & ((1u << w->table.bits[column]) - 1));
    const unsigned char *bytes = vmk_table_at(&w->table, column, index);
    for (size_t i = 0; i < width; i += i < 16 || i + 1 == width ? 1 : vmki_min(97, width - 1 - i))
        if (bytes[i] != byte)
            return false;
    return true;
}

static bool holds_everywhere(const world *w, size_t index, unsigned value)
{
    for (unsigned c = 0; c < w->table.columns; c++)
        if (!holds(w, c, index, value))
            return false;
    return true;
}

/* --- comparing -------------------------------------------------------------------------------------------------- */

static void check_element(const world *w, size_t i)
{
    size_t index = w->window + i;
    uintptr_t key = w->config.origin + ((uintptr_t)index << w->config.shift);
    for (unsigned c = 0; c < w->table.columns; c++) {
        void *address = w->ready[i] ? vmk_table_at(&w->table, c, index) : NULL;
        FUZZ_CHECK(vmk_table_get(&w->table, c, index) == address);
        FUZZ_CHECK(vmk_table_find(&w->table, c, key) == address);
    }
    if (w->ready[i])
        FUZZ_CHECK(holds_everywhere(w, index, w->value[i]));
}

/* The elements behind a ready one, as far as the tail goes and they are not ready themselves. */
static void check_tail(const world *w, size_t i)
{
    for (size_t t = i + 1; t <= i + w->config.tail && (t >= w->count || !w->ready[t]); t++)
        FUZZ_CHECK(holds_everywhere(w, w->window + t, 0));
}

static size_t committed_now(const world *w)
{
    vmk_table_stats stats;
    vmk_table_stats_now(&w->table, &stats);
    return stats.committed;
}

static void check_all(const world *w)
{
    size_t ready = 0;
    for (size_t i = 0; i < w->count; i++) {
        check_element(w, i);
        ready += w->ready[i];
        if (w->ready[i] && (i + 1 == w->count || !w->ready[i + 1]))
            check_tail(w, i);
    }
    FUZZ_CHECK(!vmk_table_is_ready(&w->table, 0, w->window + w->count) && !vmk_table_is_ready(&w->table, 0, SIZE_MAX));
    FUZZ_CHECK(w->window == 0 || !vmk_table_is_ready(&w->table, 0, w->window - 1));
    FUZZ_CHECK(vmki_region_check(w->table.region));
    vmk_table_stats stats;
    vmk_table_stats_now(&w->table, &stats);
    FUZZ_CHECK(stats.ready == ready && stats.committed + stats.overhead == w->table.region->committed);
    FUZZ_CHECK(stats.committed >= vmki_column_bytes(w->table.bits[0], ready));
#ifdef VMKIT_MODEL
    FUZZ_CHECK(model_violation() == NULL);
#endif
}

/* A dense table may make more elements ready than it was asked for. */
static void learn_ready(world *w)
{
    size_t ready = vmk_table_ready(&w->table);
    FUZZ_CHECK(ready <= w->table.capacity);
    for (size_t i = 0; i < w->count && !w->sparse; i++) {
        FUZZ_CHECK(!w->ready[i] || i < ready);
        w->ready[i] = i < ready;
    }
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

static void forget(world *w, size_t first, size_t count)
{
    memset(w->ready + first, false, count);
    memset(w->value + first, 0, count);
}

static void do_ensure(world *w)
{
    size_t first = fuzz_below(&w->in, w->count);
    size_t count = fuzz_below(&w->in, w->count - first + 1);
    size_t behind = w->table.capacity - w->window - first;
    if (count == 0 && behind < SIZE_MAX) {
        FUZZ_CHECK(vmk_table_ensure_range(&w->table, w->window + first, behind + 1) == VMK_ERR_LIMIT);
        return;
    }
    size_t committed = committed_now(w);
    vmk_status status = !w->sparse && first % 2 == 0 ? vmk_table_ensure(&w->table, first + count)
                                                     : vmk_table_ensure_range(&w->table, w->window + first, count);
    bool done = fuzz_settle(&w->in, status);
    FUZZ_CHECK(done || committed_now(w) == committed || fuzz_undoing_may_fail(&w->in));
    if (done && w->sparse)
        memset(w->ready + first, true, count);
    if (done)
        learn_ready(w);
    FUZZ_CHECK(!done || w->sparse || vmk_table_ready(&w->table) >= first + count);
}

/* Trimming never fails. Where the system refuses its part, the elements are cleared all the same, and in a sparse table
 * a few of them may stay ready. */
static void do_trim(world *w)
{
    size_t first = fuzz_below(&w->in, w->count + 1);
    vmk_table_trim(&w->table, w->window + first);
    bool refused = false;
#ifdef VMKIT_MODEL
    refused = w->in.tight || (model_failed() && (w->in.lasting || !w->in.seen));
    FUZZ_CHECK(fuzz_settle(&w->in, VMK_OK));
#endif
    for (size_t i = first; i < w->count; i++) {
        w->ready[i] = refused && w->ready[i] && vmk_table_is_ready(&w->table, 0, w->window + i);
        w->value[i] = 0;
    }
    FUZZ_CHECK(w->sparse || vmk_table_ready(&w->table) <= first);
    learn_ready(w);
}

static void do_drop(world *w)
{
    size_t first = fuzz_below(&w->in, w->count);
    size_t count = fuzz_below(&w->in, w->count - first + 1);
    bool to_the_end = fuzz_below(&w->in, 8) == 0;
    if (to_the_end)
        count = w->count - first;
    vmk_status status = vmk_table_drop_range(&w->table, w->window + first, to_the_end ? SIZE_MAX : count);
    if (!w->sparse && count != 0 && first + count < vmk_table_ready(&w->table)) {
        FUZZ_CHECK(status == VMK_ERR_UNSUPPORTED);
        return;
    }
    if (fuzz_settle(&w->in, status))
        forget(w, first, count);
}

static void do_store(world *w)
{
    size_t first = fuzz_below(&w->in, w->count);
    size_t count = fuzz_below(&w->in, 20);
    unsigned value = fuzz_byte(&w->in);
    for (size_t i = first; i < vmki_min(first + count, w->count); i++)
        if (w->ready[i])
            store(w, i, (value + (unsigned)(i - first)) & 255);
}

/* --- making a table --------------------------------------------------------------------------------------------- */

static void choose_columns(world *w)
{
    static const size_t bits[] = {1, 2, 4, 8, 16, 24, 32, 64, 8 * 12, 8 * 100, 8 * 5000, 8 * 4096};
    size_t columns = 1 + fuzz_below(&w->in, 4);
    for (size_t i = 0; i < columns; i++)
        w->config.column_bits[i] = bits[fuzz_below(&w->in, sizeof bits / sizeof bits[0])];
}

/* How many elements a table may have so as not to be larger than that. */
static size_t huge_capacity(const world *w)
{
    size_t bits = 0;
    for (size_t i = 0; i < VMK_TABLE_MAX_COLUMNS; i++)
        bits += w->config.column_bits[i];
    return vmki_max(huge_size / bits * 8, 2 * MAX_WINDOW);
}

static void choose_window(world *w)
{
    unsigned where = fuzz_byte(&w->in);
    w->count = 1 + fuzz_below(&w->in, MAX_WINDOW);
    w->config.capacity = w->count;
    w->sparse = (where & 1) != 0;
    if (w->sparse && (where & 2) != 0) {
        w->config.capacity = huge_capacity(w);
        if ((where & 4) != 0)
            w->window = w->config.capacity - w->count;
        else if ((where & 8) != 0)
            w->window = w->config.capacity / 2 - 100;
    }
}

static void choose_config(world *w)
{
    unsigned how = fuzz_byte(&w->in);
    choose_columns(w);
    choose_window(w);
    w->config.flags = (w->sparse ? VMK_TABLE_SPARSE : 0) | ((how & 1) != 0 ? VMK_TABLE_EXACT : 0) |
                      ((how & 2) != 0 ? VMK_TABLE_HUGE : 0);
    if ((how & 4) != 0)
        w->config.tail = fuzz_below(&w->in, MAX_TAIL);
    if ((how & 8) != 0)
        w->config.step = 1 + fuzz_below(&w->in, 40000);
    if ((how & 16) != 0) {
        w->config.origin = (uintptr_t)1 << (16 + fuzz_below(&w->in, 8));
        w->config.shift = (unsigned)fuzz_below(&w->in, 8);
        if (w->config.capacity - 1 > (UINTPTR_MAX - w->config.origin) >> w->config.shift) /* more keys than addresses */
            w->config.shift = 0;
        if (w->config.capacity - 1 > UINTPTR_MAX - w->config.origin)
            w->config.origin = 0;
    }
    if ((how & 32) != 0 && w->window == 0)
        w->config.min_capacity = 1 + w->config.capacity / 2;
}

/* A region for the table, with a page before it, and some that may be missing from it. */
static bool choose_part(world *w)
{
    size_t size, page = vmk_page_size();
    unsigned how = fuzz_byte(&w->in);
    FUZZ_CHECK(vmk_table_space(&w->config, &size) == VMK_OK);
    if (how % 4 != 0)
        return true;
    vmk_region region;
    vmk_status status = vmk_reserve(&region, size + 2 * page, NULL);
    if (status == VMK_ERR_ADDRESS_SPACE || !fuzz_settle(&w->in, status))
        return false;
    w->part = region;
    w->config.region = &w->part;
    w->config.region_offset = page;
    w->config.region_size = how % 8 == 0 ? size : size - page;
    return true;
}

static bool make_table(world *w)
{
    choose_config(w);
    if (!choose_part(w))
        return false;
    vmk_status status = vmk_table_init(&w->table, &w->config);
    size_t size;
    FUZZ_CHECK(vmk_table_space(&w->config, &size) == VMK_OK);
    if (status == VMK_ERR_LIMIT || (w->config.min_capacity == 0 && w->config.region_size != 0)) {
        bool fits = w->config.region_size >= size;
        FUZZ_CHECK(status == (fits ? VMK_OK : VMK_ERR_LIMIT));
    }
    if (status == VMK_ERR_LIMIT || status == VMK_ERR_ADDRESS_SPACE || !fuzz_settle(&w->in, status))
        return false; /* of address space, the model has no more than 256 MiB */
    FUZZ_CHECK(w->table.capacity <= w->config.capacity && w->table.region->committed == 0);
    FUZZ_CHECK(w->table.capacity >= (w->config.min_capacity != 0 ? w->config.min_capacity : w->config.capacity));
    w->count = vmki_min(w->count, w->table.capacity);
    return true;
}

/* Has the system refused anything, so that something may have been left as it was? */
static bool was_refused(const fuzz_input *in)
{
#ifdef VMKIT_MODEL
    return in->tight || model_failed();
#else
    (void)in;
    return false;
#endif
}

static void end_table(world *w)
{
    vmk_table_trim(&w->table, 0);
    if (w->sparse)
        FUZZ_CHECK(vmk_table_drop_range(&w->table, 0, SIZE_MAX) == VMK_OK); /* whole chunks: no memory is needed */
    FUZZ_CHECK(vmki_table_check(&w->table));
    FUZZ_CHECK(committed_now(w) == 0 || was_refused(&w->in));
    vmk_table_fini(&w->table);
    FUZZ_CHECK(w->part.committed == 0 || was_refused(&w->in));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const calls[])(world *) = {do_ensure, do_store, do_ensure, do_drop,
                                             do_store,  do_store, do_trim,   do_drop};
    static world w;
    memset(&w, 0, sizeof w);
    w.in = fuzz_start(data, size);
    if (make_table(&w)) {
        check_all(&w);
        for (size_t step = 1; w.in.size != 0; step++) {
            calls[fuzz_byte(&w.in) % (sizeof calls / sizeof calls[0])](&w);
            check_all(&w);
            FUZZ_CHECK(step % 16 != 0 || vmki_table_check(&w.table)); /* now and then: it is slow */
        }
        end_table(&w);
    }
    if (w.part.size != 0)
        vmk_release(&w.part);
    fuzz_end(&w.in);
    return 0;
}
