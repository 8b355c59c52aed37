/* SPDX-License-Identifier: MIT
 *
 * Regions under a fuzzer: an input is a list of calls on up to four regions, each of which has a shadow that says, page
 * by page, what must be true: committed or not, what may be done, what is in it. After each call all is compared.
 */
#include "common/vm/vm.h"
#include "fuzz.h"

enum { REGIONS = 4, MAX_PAGES = 64 };

typedef struct shadow_page {
    bool committed;
    bool guard;   /* not to be touched, even where it is none any more */
    bool unknown; /* discarded: what is in it is nobody's business */
    vmk_access access;
    unsigned char value; /* at its first and its last byte */
} shadow_page;

typedef struct shadow {
    bool live;
    vmk_region region;
    size_t count;
    shadow_page pages[MAX_PAGES];
} shadow;

typedef struct world {
    fuzz_input in;
    size_t page;
    shadow regions[REGIONS];
} world;

static const shadow_page reserved_page = {.access = VMK_ACCESS_READ_WRITE};

/* --- comparing -------------------------------------------------------------------------------------------------- */

static void check_contents(const shadow *s, size_t page_size)
{
    for (size_t i = 0; i < s->count; i++) {
        const shadow_page *p = &s->pages[i];
        const volatile unsigned char *bytes = s->region.base + i * page_size;
        if (p->committed && !p->unknown && !p->guard && p->access != VMK_ACCESS_NONE)
            FUZZ_CHECK(bytes[0] == p->value && bytes[page_size - 1] == p->value);
    }
}

static void check_states(const shadow *s, size_t page_size)
{
    size_t committed = 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t run, same = 1;
        vmk_state state = vmk_region_query(&s->region, i * page_size, &run);
        while (i + same < s->count && s->pages[i + same].committed == s->pages[i].committed)
            same++;
        FUZZ_CHECK((state == VMK_STATE_COMMITTED) == s->pages[i].committed);
        FUZZ_CHECK(run == same * page_size);
        committed += s->pages[i].committed;
    }
    FUZZ_CHECK(s->region.committed == committed * page_size);
    FUZZ_CHECK(vmki_region_check(&s->region));
}

static void check_all(const world *w)
{
    vmk_stats stats;
    size_t regions = 0, reserved = 0, committed = 0;
    for (size_t i = 0; i < REGIONS; i++) {
        const shadow *s = &w->regions[i];
        if (!s->live)
            continue;
        check_states(s, w->page);
        check_contents(s, w->page);
        regions++;
        reserved += s->region.size + s->region.guard_size;
        committed += s->region.committed;
    }
    vmk_stats_now(&stats);
    FUZZ_CHECK(stats.regions == regions && stats.reserved == reserved && stats.committed == committed);
    FUZZ_CHECK(stats.reserved_peak >= reserved && stats.committed_peak >= committed);
#ifdef VMKIT_MODEL
    FUZZ_CHECK(model_reserved() == reserved + stats.overhead);
    FUZZ_CHECK(model_committed() == committed + stats.overhead || fuzz_undoing_may_fail(&w->in));
    FUZZ_CHECK_NONE(model_violation());
#endif
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

/* A range of pages inside the region; may be empty. */
static void take_range(world *w, const shadow *s, size_t *first, size_t *count)
{
    *first = fuzz_below(&w->in, s->count + 1);
    *count = fuzz_below(&w->in, s->count - *first + 1);
}

/* Is no page of the range different: committed, and with that access at least? */
static bool all_committed(const shadow *s, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        if (!s->pages[i].committed)
            return false;
    return true;
}

/* For calls that answer wrong ranges with an error: every sixteenth is one. */
static bool take_wrong_range(world *w, const shadow *s, size_t *offset, size_t *size)
{
    static const size_t units[] = {0, 1};
    unsigned choice = fuzz_byte(&w->in);
    if (choice % 16 != 0)
        return false;
    *offset = units[choice >> 4 & 1] * (w->page / 2) + (choice >> 5 & 1) * (s->region.size + w->page);
    *size = units[choice >> 6 & 1] + w->page / 2;
    if ((choice & 128) != 0) { /* aligned, but far too long */
        *offset = w->page;
        *size = vmki_floor(SIZE_MAX, w->page);
    }
    return true;
}

static void do_reserve(world *w, shadow *s)
{
    size_t pages = 1 + fuzz_below(&w->in, MAX_PAGES);
    unsigned how = fuzz_byte(&w->in);
    const shadow *other = &w->regions[how & 3];
    size_t granularity = vmk_granularity();
    vmk_reserve_options options = {0};
    if ((how & 4) != 0)
        options.guard_size = 1 + fuzz_below(&w->in, 2 * w->page);
    if ((how & 8) != 0)
        options.align = granularity << fuzz_below(&w->in, 5);
    if ((how & 16) != 0)
        options.min_size = 1 + pages * w->page / 2;
    if ((how & 32) != 0 && other->live) /* behind another region, or right in it */
        options.hint = (const void *)((uintptr_t)other->region.base +
                                      ((how & 64) != 0 ? 0 : vmki_ceil(other->region.size, granularity)));
    options.flags = (how & 128) != 0 ? VMK_RESERVE_EXACT : 0;
    size_t size = pages * w->page - (how & 1);
    vmk_region made = {0};
    vmk_status status = vmk_reserve(&made, size, &options);
    bool exact = options.flags != 0;
    if (exact &&
        (options.hint == NULL || !vmki_is_aligned((uintptr_t)options.hint, vmki_max(options.align, granularity)))) {
        FUZZ_CHECK(status == VMK_ERR_ARGUMENT);
        return;
    }
    if (exact && status == VMK_ERR_TAKEN)
        return;
    FUZZ_CHECK(!exact || (how & 64) == 0 || status != VMK_OK); /* it would lie in the other */
    if (!fuzz_settle(&w->in, status))
        return;
    FUZZ_CHECK(!exact || made.base == options.hint);
    FUZZ_CHECK(vmki_is_aligned((uintptr_t)made.base, vmki_max(granularity, options.align)));
    FUZZ_CHECK(made.size <= pages * w->page && made.size >= vmki_ceil(options.min_size, w->page));
    FUZZ_CHECK(options.min_size != 0 || made.size == pages * w->page);
    FUZZ_CHECK(made.guard_size == vmki_ceil(options.guard_size, w->page) && made.committed == 0);
    s->live = true;
    s->region = made;
    s->count = made.size / w->page;
    for (size_t i = 0; i < s->count; i++)
        s->pages[i] = reserved_page;
}

static void do_release(world *w, shadow *s)
{
    (void)w;
    vmk_release(&s->region);
    s->live = false;
}

/* Writes to what a commit has made: the shadow is nothing without contents. */
static void write_page(const world *w, shadow *s, size_t page, unsigned char value)
{
    shadow_page *p = &s->pages[page];
    if (!p->committed || p->guard || p->access != VMK_ACCESS_READ_WRITE)
        return;
    s->region.base[page * w->page] = value;
    s->region.base[(page + 1) * w->page - 1] = value;
    p->value = value;
    p->unknown = false;
}

static void do_commit(world *w, shadow *s)
{
    size_t first, count, offset, size;
    if (take_wrong_range(w, s, &offset, &size)) {
        FUZZ_CHECK(vmk_commit(&s->region, offset, size) == VMK_ERR_ARGUMENT);
        return;
    }
    take_range(w, s, &first, &count);
    if (!fuzz_settle(&w->in, vmk_commit(&s->region, first * w->page, count * w->page)))
        return;
    for (size_t i = first; i < first + count; i++)
        if (!s->pages[i].committed)
            s->pages[i] = (shadow_page){.committed = true, .access = VMK_ACCESS_READ_WRITE};
}

static void do_write(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    unsigned value = fuzz_byte(&w->in);
    for (size_t i = first; i < first + count; i++)
        write_page(w, s, i, (unsigned char)(value + i));
}

static void do_decommit(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    if (!fuzz_settle(&w->in, vmk_decommit(&s->region, first * w->page, count * w->page)))
        return;
    for (size_t i = first; i < first + count; i++)
        s->pages[i] = reserved_page;
}

/* May all that is committed of it be written? */
static bool all_writable(const shadow *s, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        if (s->pages[i].committed && (s->pages[i].guard || s->pages[i].access != VMK_ACCESS_READ_WRITE))
            return false;
    return true;
}

static bool any_guard(const shadow *s, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        if (s->pages[i].guard)
            return true;
    return false;
}

static void do_discard(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    if (!all_writable(s, first, count))
        return;
    (void)fuzz_settle(&w->in, vmk_discard(&s->region, first * w->page, count * w->page));
    for (size_t i = first; i < first + count; i++)
        s->pages[i].unknown = true; /* after a failure too: of several runs the first may be gone */
    vmk_reuse(&s->region, first * w->page, count * w->page);
}

static void do_protect(world *w, shadow *s)
{
    size_t first, count, offset, size;
    if (take_wrong_range(w, s, &offset, &size)) {
        FUZZ_CHECK(vmk_protect(&s->region, offset, size, VMK_ACCESS_READ) == VMK_ERR_ARGUMENT);
        return;
    }
    take_range(w, s, &first, &count);
    vmk_access access = (vmk_access)fuzz_below(&w->in, 3);
    if (any_guard(s, first, count))
        return;
    vmk_status status = vmk_protect(&s->region, first * w->page, count * w->page, access);
    if (!all_committed(s, first, count)) {
        FUZZ_CHECK(status == VMK_ERR_ARGUMENT);
        return;
    }
    if (!fuzz_settle(&w->in, status))
        return;
    for (size_t i = first; i < first + count; i++)
        s->pages[i].access = access;
}

static void do_guard_set(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    vmk_status status = vmk_guard_set(&s->region, first * w->page, count * w->page);
    if (!all_committed(s, first, count)) {
        FUZZ_CHECK(status == VMK_ERR_ARGUMENT);
        return;
    }
    if (status == VMK_ERR_MAPPINGS || !fuzz_settle(&w->in, status)) /* by protection there may be but so many */
        return;
    for (size_t i = first; i < first + count; i++)
        s->pages[i].guard = true;
}

/* Of pages that may be written, or are guards. */
static void do_guard_clear(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    for (size_t i = first; i < first + count; i++)
        if (s->pages[i].access != VMK_ACCESS_READ_WRITE)
            return;
    vmk_status status = vmk_guard_clear(&s->region, first * w->page, count * w->page);
    if (!all_committed(s, first, count)) {
        FUZZ_CHECK(status == VMK_ERR_ARGUMENT);
        return;
    }
    if (!fuzz_settle(&w->in, status))
        return;
    for (size_t i = first; i < first + count; i++) {
        s->pages[i].unknown = s->pages[i].unknown || s->pages[i].guard;
        s->pages[i].guard = false;
    }
}

/* --- batches ---------------------------------------------------------------------------------------------------- */

enum { MAX_RANGES = 8 };

typedef struct batch {
    vmk_run runs[MAX_RANGES];
    size_t count;
} batch;

/* Some ranges, in pages: ascending, some of them empty, some touching. */
static void take_batch(world *w, const shadow *s, batch *b)
{
    size_t at = 0, most = 1 + fuzz_below(&w->in, MAX_RANGES);
    for (b->count = 0; b->count < most && at < s->count; b->count++) {
        size_t first = vmki_min(at + fuzz_below(&w->in, 5), s->count);
        size_t size = fuzz_below(&w->in, vmki_min(s->count - first, 9) + 1);
        b->runs[b->count] = (vmk_run){first * w->page, size * w->page};
        at = first + size;
    }
}

static bool batch_is(const world *w, const shadow *s, const batch *b, bool (*what)(const shadow *, size_t, size_t))
{
    for (size_t i = 0; i < b->count; i++)
        if (!what(s, b->runs[i].offset / w->page, b->runs[i].size / w->page))
            return false;
    return true;
}

/* The pages of the ranges [from, to) are like this one from now on; or their contents are not known. */
static void batch_note(const world *w, shadow *s, const batch *b, size_t from, size_t to, const shadow_page *page)
{
    for (size_t i = from; i < to; i++)
        for (size_t at = 0; at < b->runs[i].size; at += w->page) {
            shadow_page *p = &s->pages[(b->runs[i].offset + at) / w->page];
            if (page != NULL)
                *p = *page;
            else
                p->unknown = true;
        }
}

static void do_decommit_batch(world *w, shadow *s)
{
    batch b;
    size_t done = SIZE_MAX;
    take_batch(w, s, &b);
    bool all = fuzz_settle(&w->in, vmk_decommit_batch(&s->region, b.runs, b.count, &done));
    FUZZ_CHECK(all ? done == b.count : done < b.count);
    batch_note(w, s, &b, 0, done, &reserved_page);
    batch_note(w, s, &b, done, b.count, NULL);
}

static void do_discard_batch(world *w, shadow *s)
{
    batch b;
    size_t done = SIZE_MAX;
    take_batch(w, s, &b);
    if (!batch_is(w, s, &b, all_writable))
        return;
    bool all = fuzz_settle(&w->in, vmk_discard_batch(&s->region, b.runs, b.count, &done));
    FUZZ_CHECK(all ? done == b.count : done < b.count);
    batch_note(w, s, &b, 0, b.count, NULL);
}

static void do_protect_batch(world *w, shadow *s)
{
    batch b;
    size_t done = SIZE_MAX;
    take_batch(w, s, &b);
    vmk_access access = (vmk_access)fuzz_below(&w->in, 3);
    for (size_t i = 0; i < b.count; i++)
        if (any_guard(s, b.runs[i].offset / w->page, b.runs[i].size / w->page))
            return;
    bool sound = batch_is(w, s, &b, all_committed);
    vmk_status status = vmk_protect_batch(&s->region, b.runs, b.count, access, &done);
    if (!sound) {
        FUZZ_CHECK(status == VMK_ERR_ARGUMENT && done == SIZE_MAX);
        return;
    }
    bool all = fuzz_settle(&w->in, status);
    FUZZ_CHECK(all ? done == b.count : done < b.count);
    for (size_t i = 0; i < done; i++)
        for (size_t at = 0; at < b.runs[i].size; at += w->page)
            s->pages[(b.runs[i].offset + at) / w->page].access = access;
}

static void do_advise(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    vmk_advice advice = fuzz_below(&w->in, 2) != 0 ? VMK_ADVICE_HUGE : VMK_ADVICE_NO_HUGE;
    vmk_status status = vmk_advise(&s->region, first * w->page, count * w->page, advice);
    if (status != VMK_ERR_UNSUPPORTED)
        (void)fuzz_settle(&w->in, status);
}

static void step(world *w)
{
    static void (*const calls[])(world *, shadow *) = {
        do_commit,         do_commit,  do_write,  do_decommit,      do_commit,       do_discard,     do_write,
        do_protect,        do_protect, do_advise, do_release,       do_guard_set,    do_guard_clear, do_decommit_batch,
        do_decommit_batch, do_commit,  do_write,  do_discard_batch, do_protect_batch};
    unsigned choice = fuzz_byte(&w->in);
    shadow *s = &w->regions[choice % REGIONS];
    if (!s->live)
        do_reserve(w, s);
    else
        calls[choice / REGIONS % (sizeof calls / sizeof calls[0])](w, s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    world w = {.in = fuzz_start(data, size), .page = vmk_page_size()};
    while (w.in.size != 0) {
        step(&w);
        check_all(&w);
    }
    for (size_t i = 0; i < REGIONS; i++)
        if (w.regions[i].live)
            vmk_release(&w.regions[i].region);
    fuzz_end(&w.in);
    return 0;
}
