/* SPDX-License-Identifier: MIT
 *
 * A heap under a fuzzer: an input is options and a list of calls, and after the heap has been ended, others. A list of
 * what is live says where spans are and what was written to both ends of their pages; the ranges that the growth hook
 * was told say where others may be. After each call the edges of all spans are compared, and the figures; all pages of
 * a span whenever it is changed or freed; the walk, and the heap's own check, every few calls.
 *
 * Windows are small, so that they get full. Other regions are planted where the heap would like to grow.
 */
#include <string.h>

#include "common/heap/heap.h"
#include "fuzz.h"

#define PAGE VMK_HEAP_PAGE_SIZE
#define MARKS (PAGE / 128) /* bytes of mark bits for a page */
#define NOWHERE UINTPTR_MAX

/* A page of the records holds no more than 127, so the table of them grows too. */
enum { SPANS_MOST = 150, PAGES_MOST = 3000, GROWN_MOST = 256, PLANTS = 3, WINDOW_CHUNKS = 6, CHECK_EVERY = 4 };

/* No call of the system answers with this one. */
static const vmk_status refusal = VMK_ERR_UNSUPPORTED;

typedef struct live {
    vmk_span *span;
    uintptr_t base;
    size_t pages;
    unsigned flags;
    unsigned char fill;
    uint8_t size_class;
} live;

typedef struct range {
    uintptr_t low, high;
} range;

typedef struct world {
    fuzz_input in;
    vmk_heap_options options;
    vmk_heap *heap;
    vmk_layout layout;
    vmk_region plants[PLANTS];
    live spans[SPANS_MOST];
    size_t count;
    size_t pages; /* in use */
    size_t pages_peak;
    range grown[GROWN_MOST]; /* those that touch are one */
    size_t ranges;
    uint64_t growths;
    unsigned refusals; /* growths that the hook is still to refuse */
    bool refused;      /* it has, in this call */
    uint64_t now;
    uint64_t last_tick;
    uint64_t interval;
    uintptr_t last_origin; /* of the heap before */
    uintptr_t walked;      /* the end of the last range that the walk has shown */
    size_t walk_sums[VMK_RANGE_RESERVED + 1];
} world;

static world w;

/* --- ranges ----------------------------------------------------------------------------------------------------- */

static uintptr_t end_of(const live *s)
{
    return s->base + s->pages * PAGE;
}

static bool overlaps(uintptr_t low, uintptr_t high, uintptr_t other_low, uintptr_t other_high)
{
    return low < other_high && other_low < high;
}

static const live *live_in(uintptr_t low, uintptr_t high)
{
    for (size_t i = 0; i < w.count; i++)
        if (overlaps(low, high, w.spans[i].base, end_of(&w.spans[i])))
            return &w.spans[i];
    return NULL;
}

static const live *live_at(uintptr_t word)
{
    for (size_t i = 0; i < w.count; i++)
        if (word - w.spans[i].base < w.spans[i].pages * PAGE)
            return &w.spans[i];
    return NULL;
}

/* The range of what has grown that all of this lies in. */
static const range *grown_around(uintptr_t low, uintptr_t high)
{
    for (size_t i = 0; i < w.ranges; i++)
        if (w.grown[i].low <= low && high <= w.grown[i].high)
            return &w.grown[i];
    return NULL;
}

static size_t grown_size(void)
{
    size_t sum = 0;
    for (size_t i = 0; i < w.ranges; i++)
        sum += w.grown[i].high - w.grown[i].low;
    return sum;
}

static void grown_add(uintptr_t low, uintptr_t high)
{
    for (size_t i = 0; i < w.ranges;) {
        FUZZ_CHECK(!overlaps(low, high, w.grown[i].low, w.grown[i].high));
        if (w.grown[i].high != low && w.grown[i].low != high) {
            i++;
            continue;
        }
        low = vmki_min(low, w.grown[i].low);
        high = vmki_max(high, w.grown[i].high);
        w.grown[i] = w.grown[--w.ranges];
        i = 0;
    }
    FUZZ_CHECK(w.ranges < GROWN_MOST);
    w.grown[w.ranges++] = (range){low, high};
}

/* The lowest place for a span in a range: at its start, or behind some other span. */
static uintptr_t lowest_in(range r, size_t size, size_t align)
{
    uintptr_t lowest = NOWHERE;
    for (size_t i = 0; i <= w.count; i++) {
        uintptr_t at = vmki_ceil(i == w.count ? r.low : end_of(&w.spans[i]), align);
        if (at >= r.low && at < vmki_min(r.high, lowest) && size <= r.high - at && live_in(at, at + size) == NULL)
            lowest = at;
    }
    return lowest;
}

static uintptr_t lowest_in_grown(size_t size, size_t align)
{
    uintptr_t lowest = NOWHERE;
    for (size_t i = 0; i < w.ranges; i++)
        lowest = vmki_min(lowest, lowest_in(w.grown[i], size, align));
    return lowest;
}

/* --- contents --------------------------------------------------------------------------------------------------- */

static unsigned char *byte_at(uintptr_t address)
{
    return (unsigned char *)address;
}

static unsigned char pattern(const live *s, size_t page)
{
    return (unsigned char)((s->base / PAGE + page) * 37 + s->fill) | 1;
}

static bool all_zero(const unsigned char *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static unsigned char *marks_at(const live *s, size_t page)
{
    return vmk_span_marks(w.heap, s->span) + page * MARKS;
}

static bool page_kept(const live *s, size_t page)
{
    unsigned char value = pattern(s, page);
    const unsigned char *bytes = byte_at(s->base + page * PAGE), *marks = marks_at(s, page);
    return bytes[0] == value && bytes[PAGE - 1] == value &&
           ((s->flags & VMK_SPAN_MARKS) == 0 || (marks[0] == value && marks[MARKS - 1] == value));
}

static void check_kept(const live *s)
{
    for (size_t i = 0; i < s->pages; i++)
        FUZZ_CHECK(page_kept(s, i));
}

/* The first of new pages is looked at as a whole, and the others where something is ever written. */
static void check_new(const live *s, size_t from)
{
    for (size_t i = from; i < s->pages; i++) {
        const unsigned char *bytes = byte_at(s->base + i * PAGE);
        if ((s->flags & VMK_SPAN_ZERO) != 0)
            FUZZ_CHECK(i == from ? all_zero(bytes, PAGE) : bytes[0] == 0 && bytes[PAGE - 1] == 0);
        if ((s->flags & VMK_SPAN_MARKS) != 0)
            FUZZ_CHECK(all_zero(marks_at(s, i), MARKS));
        FUZZ_CHECK(vmk_heap_class(w.heap, bytes) == s->size_class);
    }
}

static void fill(const live *s, size_t from)
{
    for (size_t i = from; i < s->pages; i++) {
        unsigned char *bytes = byte_at(s->base + i * PAGE), *marks = marks_at(s, i);
        bytes[0] = bytes[PAGE - 1] = pattern(s, i);
        if ((s->flags & VMK_SPAN_MARKS) != 0)
            marks[0] = marks[MARKS - 1] = pattern(s, i);
    }
}

/* --- comparing -------------------------------------------------------------------------------------------------- */

static void check_word(uintptr_t word)
{
    const live *s = live_at(word);
    FUZZ_CHECK(vmk_span_find(w.heap, word) == (s != NULL ? s->span : NULL));
    if (s != NULL) {
        FUZZ_CHECK(vmk_span_of(w.heap, byte_at(word)) == s->span);
        FUZZ_CHECK(vmk_heap_class(w.heap, byte_at(word)) == s->size_class);
    }
}

static void check_span(const live *s)
{
    const vmk_span *span = s->span;
    FUZZ_CHECK((uintptr_t)span->base == s->base && span->pages == s->pages && span->flags == s->flags);
    FUZZ_CHECK(span->owner == byte_at(s->base));
    FUZZ_CHECK(vmk_span_find(w.heap, s->base) == span && vmk_span_find(w.heap, end_of(s) - 1) == span);
    FUZZ_CHECK(vmk_heap_class(w.heap, byte_at(end_of(s) - 1)) == s->size_class);
    FUZZ_CHECK(page_kept(s, 0) && page_kept(s, s->pages - 1));
}

static vmk_heap_stats figures(void)
{
    vmk_heap_stats stats;
    vmk_heap_stats_now(w.heap, &stats);
    return stats;
}

static void check_figures(void)
{
    vmk_heap_stats stats = figures();
    vmk_stats all;
    size_t reserved = 0, committed = 0, regions = 0, planted = 0;
    for (unsigned part = 0; part < VMK_HEAP_PARTS; part++) {
        reserved += stats.part[part].reserved;
        committed += stats.part[part].committed;
    }
    for (size_t i = 0; i < PLANTS; i++) {
        regions += w.plants[i].size != 0;
        planted += w.plants[i].size;
    }
    vmk_stats_now(&all);
    FUZZ_CHECK(stats.reserved == reserved && stats.committed == committed);
    FUZZ_CHECK(all.reserved == reserved + planted && all.committed == committed);
    FUZZ_CHECK(all.regions == stats.regions + regions);
    FUZZ_CHECK(stats.in_use == w.pages * PAGE && stats.in_use_peak == w.pages_peak * PAGE && stats.spans == w.count);
    FUZZ_CHECK(stats.in_use + stats.idle + stats.released == grown_size() && stats.grow_count == w.growths);
    FUZZ_CHECK(stats.in_use + stats.idle <= stats.part[VMK_HEAP_ARENA].committed);
    FUZZ_CHECK(stats.layout == w.layout);
}

/* A span over two regions is two ranges. */
static bool walk(void *context, const vmk_range *part)
{
    uintptr_t low = (uintptr_t)part->base, high = low + part->size;
    (void)context;
    FUZZ_CHECK(low >= w.walked && part->size != 0);
    w.walked = high;
    w.walk_sums[part->use] += part->size;
    if (part->use == VMK_RANGE_IN_USE) {
        const live *s = live_at(low);
        FUZZ_CHECK(s != NULL && part->span == s->span && high <= end_of(s));
    } else {
        FUZZ_CHECK(part->span == NULL && live_in(low, high) == NULL);
    }
    FUZZ_CHECK((grown_around(low, high) != NULL) == (part->use != VMK_RANGE_RESERVED));
    return true;
}

static void check_walk(void)
{
    vmk_heap_stats stats = figures();
    w.walked = 0;
    memset(w.walk_sums, 0, sizeof w.walk_sums);
    vmk_heap_walk(w.heap, walk, NULL);
    FUZZ_CHECK(w.walk_sums[VMK_RANGE_IN_USE] == stats.in_use && w.walk_sums[VMK_RANGE_IDLE] == stats.idle);
    FUZZ_CHECK(w.walk_sums[VMK_RANGE_RELEASED] == stats.released);
    FUZZ_CHECK(grown_size() + w.walk_sums[VMK_RANGE_RESERVED] == stats.part[VMK_HEAP_ARENA].reserved);
}

static void check_all(size_t step)
{
    for (size_t i = 0; i < w.count; i++)
        check_span(&w.spans[i]);
    check_figures();
    if (step % CHECK_EVERY == 0) {
        check_walk();
        FUZZ_CHECK(vmki_heap_check(w.heap));
    }
#ifdef VMKIT_MODEL
    FUZZ_CHECK(model_violation() == NULL);
#endif
}

/* --- spans ------------------------------------------------------------------------------------------------------ */

/* What is about to grow is inside the window, nobody's yet, and zero. */
static vmk_status on_grow(void *context, void *base, size_t size)
{
    uintptr_t low = (uintptr_t)base;
    FUZZ_CHECK(context == &w && size % PAGE == 0 && size != 0);
    if (w.heap != NULL)
        FUZZ_CHECK(vmk_span_find(w.heap, low) == NULL && vmk_span_find(w.heap, low + size - 1) == NULL);
    FUZZ_CHECK(all_zero(byte_at(low), PAGE) && all_zero(byte_at(low + size - PAGE), PAGE)); /* to touch all is slow */
    if (w.refusals > 0) {
        w.refusals--;
        w.refused = true;
        return refusal;
    }
    grown_add(low, low + size);
    w.growths++;
    return VMK_OK;
}

/* Has a call succeeded? If not: has the hook refused, the system, or is it one of the answers that are `expected`? */
static bool settle(vmk_status status, bool expected)
{
    bool excused = expected || w.refused;
    FUZZ_CHECK(status != refusal || w.refused);
    w.refused = false;
    return fuzz_settle(&w.in, excused ? VMK_OK : status) && status == VMK_OK;
}

static void add(const live *s)
{
    FUZZ_CHECK(live_in(s->base, end_of(s)) == NULL && grown_around(s->base, end_of(s)) != NULL);
    w.spans[w.count++] = *s;
}

static void count_pages(size_t more)
{
    w.pages += more;
    w.pages_peak = vmki_max(w.pages_peak, w.pages);
}

/* May the heap say that there is no room, if what has grown has none? */
static bool may_be_full(vmk_status status, size_t size, size_t align)
{
    vmk_heap_stats stats = figures();
    range window = {stats.window, stats.window + (uintptr_t)(stats.window_size - 1)};
    if (w.layout != VMK_LAYOUT_64) /* others may be in the window, too */
        return status == VMK_ERR_LIMIT || status == VMK_ERR_ADDRESS_SPACE;
    window.high++;
    return status == VMK_ERR_LIMIT && lowest_in(window, size, align) == NOWHERE;
}

static void do_wrong_alloc(void)
{
    static const struct {
        size_t pages, align;
        unsigned flags;
        vmk_status status;
    } wrong[] = {{0, 0, 0, VMK_ERR_ARGUMENT},
                 {1, 3, 0, VMK_ERR_ARGUMENT},
                 {1, PAGE + 1, 0, VMK_ERR_ARGUMENT},
                 {1, 0, 4, VMK_ERR_ARGUMENT},
                 {SIZE_MAX, 0, 0, VMK_ERR_ARGUMENT},
                 {SIZE_MAX / PAGE + 1, 0, 0, VMK_ERR_ARGUMENT},
                 {SIZE_MAX / PAGE, 0, 0, VMK_ERR_LIMIT},
                 {SIZE_MAX / PAGE, SIZE_MAX / 2 + 1, 0, VMK_ERR_LIMIT}};
    size_t i = fuzz_below(&w.in, sizeof wrong / sizeof wrong[0]);
    vmk_span *span = NULL;
    FUZZ_CHECK(vmk_span_alloc(w.heap, wrong[i].pages, wrong[i].align, wrong[i].flags, &span) == wrong[i].status);
    FUZZ_CHECK(span == NULL);
}

static void do_alloc(void)
{
    unsigned shape = fuzz_byte(&w.in), how = fuzz_byte(&w.in);
    size_t pages = 1 + (shape < 240 ? shape % 16 : fuzz_below(&w.in, 900));
    size_t align = how < 128 ? 0 : (PAGE / 2) << (how / 4 % 12), unit = vmki_max(align, PAGE);
    unsigned flags = how % 4;
    if (w.count == SPANS_MOST || w.pages + pages > PAGES_MOST)
        return;
    live s = {.pages = pages, .fill = (unsigned char)shape};
    uintptr_t lowest = lowest_in_grown(pages * PAGE, unit);
    uint64_t growths = w.growths;
    vmk_status status = vmk_span_alloc(w.heap, pages, align, flags, &s.span);
    if (!settle(status, lowest == NOWHERE && may_be_full(status, pages * PAGE, unit))) {
        FUZZ_CHECK(s.span == NULL);
        return;
    }
    s.base = (uintptr_t)s.span->base;
    s.flags = s.span->flags;
    FUZZ_CHECK((lowest == NOWHERE) == (w.growths != growths));
    /* With many free runs, the lowest that is aligned is not always found: see vmki_pages_find. */
    FUZZ_CHECK(lowest == NOWHERE || s.base == lowest || (align > PAGE && w.count + w.ranges >= 16));
    FUZZ_CHECK(s.span->pages == pages && s.span->owner == NULL && s.base % unit == 0);
    FUZZ_CHECK((s.flags & VMK_SPAN_MARKS) == (flags & VMK_SPAN_MARKS) && (flags & ~s.flags) == 0);
    check_new(&s, 0);
    fill(&s, 0);
    s.span->owner = s.span->base;
    add(&s);
    count_pages(pages);
}

/* A span that is live, or NULL. */
static live *choose(void)
{
    size_t i = fuzz_byte(&w.in);
    return w.count != 0 ? &w.spans[i % w.count] : NULL;
}

static void do_free(void)
{
    live *s = choose();
    if (s == NULL)
        return;
    check_kept(s);
    vmk_span_free(w.heap, s->span);
    FUZZ_CHECK(vmk_span_find(w.heap, s->base) == NULL && vmk_span_find(w.heap, end_of(s) - 1) == NULL);
    w.pages -= s->pages;
    *s = w.spans[--w.count];
}

/* Can a span go on up to there, in what has grown? *taken: another stands in the way. */
static bool has_room(const live *s, size_t pages, bool *taken)
{
    uintptr_t high = grown_around(s->base, end_of(s))->high, end = s->base + pages * PAGE;
    *taken = pages > s->pages && live_in(end_of(s), vmki_min(high, end)) != NULL && end_of(s) < high;
    return !*taken && end <= high;
}

static void do_resize(void)
{
    live *s = choose();
    size_t pages = fuzz_byte(&w.in);
    if (s == NULL || w.pages + pages > PAGES_MOST)
        return;
    pages = pages < 128 ? pages : s->pages + (pages - 128) % 48;
    if (pages == 0) {
        FUZZ_CHECK(vmk_span_resize(w.heap, s->span, 0) == VMK_ERR_ARGUMENT);
        FUZZ_CHECK(vmk_span_resize(w.heap, s->span, SIZE_MAX / PAGE + 1) == VMK_ERR_ARGUMENT);
        FUZZ_CHECK(vmk_span_resize(w.heap, s->span, SIZE_MAX / PAGE) == VMK_ERR_TAKEN);
        return;
    }
    bool taken;
    size_t old = s->pages;
    bool room = has_room(s, pages, &taken);
    uint64_t growths = w.growths;
    vmk_status status = vmk_span_resize(w.heap, s->span, pages);
    FUZZ_CHECK(!taken || status == VMK_ERR_TAKEN);
    if (settle(status, !room && status == VMK_ERR_TAKEN)) {
        FUZZ_CHECK(room == (w.growths == growths));
        s->pages = pages;
        w.pages -= old;
        count_pages(pages);
        if (pages > old) {
            check_new(s, old);
            fill(s, old);
        } else if (pages < old) {
            FUZZ_CHECK(vmk_span_find(w.heap, end_of(s)) == NULL);
        }
        FUZZ_CHECK(grown_around(s->base, end_of(s)) != NULL);
    }
    check_kept(s);
}

static void do_split(void)
{
    live *s = choose();
    size_t pages = fuzz_byte(&w.in);
    if (s == NULL || w.count == SPANS_MOST)
        return;
    live rest = *s;
    pages %= s->pages + 1;
    vmk_span *const none = rest.span;
    vmk_status status = vmk_span_split(w.heap, s->span, pages, &rest.span);
    if (pages == 0 || pages == s->pages) {
        FUZZ_CHECK(status == VMK_ERR_ARGUMENT && rest.span == none);
        return;
    }
    if (!settle(status, false)) {
        FUZZ_CHECK(rest.span == none);
        return;
    }
    rest.base += pages * PAGE;
    rest.pages -= pages;
    s->pages = pages;
    FUZZ_CHECK(rest.span != s->span && rest.span->owner == s->span->owner);
    rest.span->owner = rest.span->base;
    check_kept(s);
    check_kept(&rest);
    add(&rest);
}

static void do_set_class(void)
{
    live *s = choose();
    uint8_t size_class = (uint8_t)fuzz_byte(&w.in);
    if (s == NULL)
        return;
    vmk_span_set_class(w.heap, s->span, size_class);
    s->size_class = size_class;
    FUZZ_CHECK(vmk_heap_class(w.heap, s->span->base) == size_class);
}

/* --- giving back ------------------------------------------------------------------------------------------------ */

/* What it says that it has returned is what the figures say, and no more than was asked for. */
static void check_returned(const vmk_heap_stats *before, size_t returned, size_t most)
{
    vmk_heap_stats now = figures();
    size_t unit = vmki_max(vmk_page_size(), PAGE);
    FUZZ_CHECK(settle(VMK_OK, false));
    FUZZ_CHECK(before->idle - now.idle == returned && now.released - before->released == returned);
    FUZZ_CHECK(now.released_total - before->released_total == returned);
    FUZZ_CHECK(returned == 0 || returned - 1 < vmki_ceil(vmki_min(most, before->idle), unit));
}

static void do_scavenge(void)
{
    unsigned how = fuzz_byte(&w.in);
    size_t most = how < 64 ? SIZE_MAX : how * (size_t)5000;
    vmk_heap_stats before = figures();
    check_returned(&before, vmk_heap_scavenge(w.heap, most), most);
}

static void do_ticks(void)
{
    unsigned how = fuzz_byte(&w.in);
    uint64_t step = w.interval * (how % 4) / 2; /* none, a half, one, one and a half intervals */
    for (unsigned i = 0; i <= how / 4 % 32; i++) {
        vmk_heap_stats before = figures();
        unsigned keep = w.options.keep_percent != 0 ? w.options.keep_percent : 10;
        size_t kept = (size_t)((uint64_t)before.in_use / PAGE * keep / 100) * PAGE;
        w.now += step;
        bool due = w.now - w.last_tick >= w.interval;
        size_t returned = vmk_heap_scavenge_tick(w.heap);
        w.last_tick = due ? w.now : w.last_tick;
        check_returned(&before, returned, due && before.idle > kept ? before.idle - kept : 0);
    }
}

/* --- others ----------------------------------------------------------------------------------------------------- */

static void do_find(void)
{
    unsigned how = fuzz_byte(&w.in);
    const live *s = choose();
    vmk_heap_stats stats = figures();
    uintptr_t word = 0, some = fuzz_below(&w.in, 1 << 16);
    if (how % 4 == 0 && s != NULL)
        word = (how % 8 == 0 ? s->base : end_of(s)) + (how / 8 % 2 == 0 ? some : -some);
    else if (how % 4 == 1)
        word = stats.window + (how % 8 == 1 ? 0 : (uintptr_t)stats.window_size) + (how / 8 % 2 == 0 ? some : -some);
    else if (how % 4 == 2)
        word = stats.window + some * PAGE + how;
    else
        for (size_t i = 0; i < sizeof word; i++)
            word = word << 4 << 4 | fuzz_byte(&w.in);
    check_word(word);
}

static void do_refuse(void)
{
    w.refusals = (unsigned)fuzz_below(&w.in, 4);
}

/* Take what lies behind the region that the heap got last, or give it back. */
static void do_plant(void)
{
    vmk_region *plant = &w.plants[fuzz_below(&w.in, PLANTS)];
    const vmki_heap *heap = vmki_heap_of(w.heap);
    const vmki_arena *last = vmki_heap_arenas(heap) + heap->recent_arena;
    if (plant->size != 0) {
        vmk_release(plant);
        *plant = (vmk_region){0};
        return;
    }
    uintptr_t end = w.heap->origin + (last->first + last->pages) * PAGE;
    vmk_reserve_options how = {.hint = byte_at(end), .flags = VMK_RESERVE_EXACT};
    vmk_status status = vmk_reserve(plant, VMKI_QUANTUM, &how);
    bool had = status != VMK_ERR_TAKEN && status != VMK_ERR_ADDRESS_SPACE && status != VMK_ERR_UNSUPPORTED;
    (void)fuzz_settle(&w.in, had ? status : VMK_OK);
}

/* --- the life of a heap ----------------------------------------------------------------------------------------- */

static uint64_t clock_now(void *context)
{
    FUZZ_CHECK(context == &w);
    return w.now;
}

static void choose_options(void)
{
    static const unsigned keep[] = {0, 1, 100, 300};
    unsigned how = fuzz_byte(&w.in), more = fuzz_byte(&w.in);
    w.options = (vmk_heap_options){.layout = (vmk_layout)(how % 4),
                                   .flags = how / 4 % 4,
                                   .window = (1 + more % WINDOW_CHUNKS) * VMKI_CHUNK_SIZE - more / 64,
                                   .on_grow = on_grow,
                                   .on_grow_context = &w,
                                   .clock = clock_now,
                                   .clock_context = &w,
                                   .keep_percent = keep[how / 16 % 4]};
    if ((how & 64) != 0)
        w.options.step = 1 + fuzz_below(&w.in, 1 << 16) * 16;
    if ((how & 128) != 0) {
        size_t chunk = fuzz_below(&w.in, 16);
        w.options.scavenge_interval = 1 + fuzz_byte(&w.in);
        w.options.hint = w.last_origin;
#ifdef VMKIT_MODEL
        w.options.hint = (uintptr_t)model_base() + chunk * VMKI_CHUNK_SIZE; /* all its addresses lie there */
#endif
        (void)chunk;
    }
    w.interval = w.options.scavenge_interval != 0 ? w.options.scavenge_interval : 1000000000;
}

/* Most of the model's addresses, so that a heap of 32 bits begins with a small region and must get others. At the end
 * of them: the model looks for a place from the start, and takes its time for a large one. */
static void take_addresses(vmk_region *ballast)
{
    size_t spare = (1 + fuzz_below(&w.in, 64)) * VMKI_QUANTUM;
#ifdef VMKIT_MODEL
    vmki_heap_plan plan;
    if (w.options.layout != VMK_LAYOUT_32 || !vmki_heap_plan_make(&plan, VMK_LAYOUT_32, 1 << 19, SIZE_MAX))
        return;
    size_t size = vmki_floor(MODEL_MAX_ADDRESS_SPACE - model_reserved() - plan.total - spare, VMKI_CHUNK_SIZE);
    vmk_reserve_options how = {.flags = VMK_RESERVE_EXACT};
    how.hint = (unsigned char *)model_base() + (MODEL_MAX_ADDRESS_SPACE - size);
    vmk_status status = vmk_reserve(ballast, size, &how);
    (void)fuzz_settle(&w.in, status == VMK_ERR_TAKEN ? VMK_OK : status);
#else
    (void)spare;
    (void)ballast;
#endif
}

/* There may be nowhere to put a heap of 32 bits, which are large: then there is none. */
static void make_heap(void)
{
    vmk_region ballast = {0};
    choose_options();
    take_addresses(&ballast);
    w.last_tick = w.now;
    vmk_status status = vmk_heap_create(&w.heap, &w.options);
    if (ballast.size != 0)
        vmk_release(&ballast);
    if (!settle(status, status == VMK_ERR_ADDRESS_SPACE && w.options.layout == VMK_LAYOUT_32)) {
        FUZZ_CHECK(w.heap == NULL);
        return;
    }
    w.layout = figures().layout;
    FUZZ_CHECK(w.options.layout == VMK_LAYOUT_AUTO || w.layout == w.options.layout);
    FUZZ_CHECK(w.heap->origin % VMKI_CHUNK_SIZE == 0 && w.growths == 0);
}

static void do_end(void)
{
    for (size_t i = 0; i < w.count; i++)
        check_kept(&w.spans[i]);
    check_all(0);
    w.last_origin = w.heap->origin;
    vmk_heap_destroy(w.heap);
    w.heap = NULL;
    w.count = w.pages = w.pages_peak = w.ranges = w.refusals = 0;
    w.growths = 0;
}

static void step(size_t number)
{
    static void (*const calls[])(void) = {
        do_alloc,  do_alloc,  do_alloc,  do_alloc, do_alloc, do_free, do_free,  do_free,      do_free,      do_resize,
        do_resize, do_resize, do_split,  do_split, do_find,  do_find, do_find,  do_set_class, do_set_class, do_scavenge,
        do_ticks,  do_ticks,  do_refuse, do_plant, do_plant, do_end,  do_alloc, do_scavenge};
    unsigned choice = fuzz_byte(&w.in);
    if (w.heap == NULL)
        make_heap();
    else if (choice >= 250)
        do_wrong_alloc();
    else
        calls[choice % (sizeof calls / sizeof calls[0])]();
    if (w.heap != NULL)
        check_all(number);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&w, 0, sizeof w);
    w.in = fuzz_start(data, size);
    for (size_t number = 1; w.in.size != 0; number++)
        step(number);
    if (w.heap != NULL)
        do_end();
    for (size_t i = 0; i < PLANTS; i++)
        if (w.plants[i].size != 0)
            vmk_release(&w.plants[i]);
    fuzz_end(&w.in);
    return 0;
}
