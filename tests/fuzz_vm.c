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

static const shadow_page reserved_page = {false, false, VMK_ACCESS_READ_WRITE, 0};

/* --- comparing -------------------------------------------------------------------------------------------------- */

static void check_contents(const shadow *s, size_t page_size)
{
    for (size_t i = 0; i < s->count; i++) {
        const shadow_page *p = &s->pages[i];
        const volatile unsigned char *bytes = s->region.base + i * page_size;
        if (p->committed && !p->unknown && p->access != VMK_ACCESS_NONE)
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
    FUZZ_CHECK(model_violation() == NULL);
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
    if (!p->committed || p->access != VMK_ACCESS_READ_WRITE)
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

static void do_discard(world *w, shadow *s)
{
    size_t first, count;
    take_range(w, s, &first, &count);
    for (size_t i = first; i < first + count; i++)
        if (s->pages[i].committed && s->pages[i].access != VMK_ACCESS_READ_WRITE)
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
    static void (*const calls[])(world *, shadow *) = {do_commit,  do_commit,  do_write,  do_decommit,
                                                       do_commit,  do_discard, do_write,  do_protect,
                                                       do_protect, do_advise,  do_release};
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
