/* SPDX-License-Identifier: MIT
 *
 * See index_set.h.
 *
 * Words
 *   entry      two words of the hash table: key (chunk number + 1; 0: free) and reference
 *   reference  0: nothing of the chunk is in the set. FULL, 1 << chunk_shift: all of it. Else (mask << chunk_shift) +
 *              population: some is. A population of 1 .. 2^chunk_shift - 1 is what tells the third from the others, and
 *              what finds a chunk full or empty without looking through its mask.
 *   current    where the hash table is, in one word so that readers get half and size together: (log2 of its number of
 *              entries << 1) + half; 0: nowhere yet
 *
 * Invariants
 *   - In the current half a key, once stored, stays until the table moves, so probing needs no tombstones; an entry is
 *     dead when its reference is 0, alive otherwise. `used` counts both, and at least a quarter of the entries is free.
 *   - A mask belongs to one live entry of the current half or to the free list. Its link is in its first word, number
 * + 1.
 *   - Bits of indices at or past the capacity are never set; so the last chunk, if the capacity cuts it, is never full.
 *
 * Readers, and what saves them from writers. A change to what a reader can reach is one of
 *   publishing   a store with release of a key, a reference or `current`, after all that it refers to is written; or
 *   a bit        in a mask in use; or
 *   recycling    giving memory another meaning: a half that the table left, a mask that its chunk gave up. The writer
 * first makes it unreachable, then raises the version, then writes to it. A reader that loads the version after that
 * does not get there any more. One that has loaded it before may get there and read nonsense, but loading the nonsense
 * with acquire makes it see the new version at the end, and it starts anew. Memory is never decommitted while the set
 * lives, references are mask numbers at any time, and probing is bounded: so nonsense does no harm meanwhile. A reader
 * starts anew only if a writer has got on: no thread ever waits. The order of loads and stores is that of Boehm, "Can
 * seqlocks get along with programming language memory models?", 2012, with acquire and release on the data instead of
 * fences, which ThreadSanitizer does not understand.
 */
#include "common/table/index_set.h"

#include "common/base/check.h"
#include "common/vm/vm.h"

#define WORD_BITS (sizeof(size_t) * 8)
#define ENTRY_WORDS ((size_t)2)
#define ENTRY_SIZE (ENTRY_WORDS * sizeof(size_t))

/* --- sizes ------------------------------------------------------------------------------------------------------ */

static size_t chunk_size(const vmki_index_set *set)
{
    return (size_t)1 << set->chunk_shift;
}

static size_t full_reference(const vmki_index_set *set)
{
    return (size_t)1 << set->chunk_shift;
}

/* Of a reference; 0 unless the chunk has a mask. */
static size_t population(const vmki_index_set *set, size_t reference)
{
    return reference & (chunk_size(set) - 1);
}

static size_t mask_words(const vmki_index_set *set)
{
    return chunk_size(set) / WORD_BITS;
}

static size_t chunks_for(size_t capacity, size_t chunk_shift)
{
    return (capacity >> chunk_shift) + ((capacity & (((size_t)1 << chunk_shift) - 1)) != 0);
}

/* How many of 2^log2 entries may be used. */
static size_t most_used(size_t log2)
{
    return ((size_t)1 << log2) / 4 * 3;
}

/* A page of entries: the least there is. */
static size_t least_log2(void)
{
    return vmki_highest_bit(vmk_page_size() / ENTRY_SIZE);
}

/* Enough for all chunks at once; no entry can be missing then, dead or alive. */
static size_t most_log2(size_t chunks)
{
    size_t log2 = least_log2();
    while (most_used(log2) < chunks)
        log2++;
    return log2;
}

/* The sizes of a half and of the pool of masks, in whole pages. */
static bool areas_overflow(size_t capacity, size_t chunk_shift, size_t *half_size, size_t *masks_size)
{
    size_t chunks = chunks_for(capacity, chunk_shift);
    return vmki_mul_overflow((size_t)1 << most_log2(chunks), ENTRY_SIZE, half_size) ||
           vmki_mul_overflow(chunks, (size_t)1 << (chunk_shift - 3), masks_size) ||
           vmki_ceil_overflow(*masks_size, vmk_page_size(), masks_size);
}

bool vmki_index_set_space_overflow(size_t capacity, size_t chunk_shift, size_t *size)
{
    size_t half_size, masks_size, halves_size;
    return areas_overflow(capacity, chunk_shift, &half_size, &masks_size) ||
           vmki_mul_overflow(half_size, 2, &halves_size) || vmki_add_overflow(halves_size, masks_size, size);
}

void vmki_index_set_init(vmki_index_set *set, vmk_region *region, size_t offset, size_t capacity, size_t chunk_shift)
{
    VMKI_ASSERT(chunk_shift >= VMKI_CHUNK_SHIFT_MIN && chunk_shift <= VMKI_CHUNK_SHIFT_MAX);
    *set = (vmki_index_set){.base = region->base + offset,
                            .capacity = capacity,
                            .chunk_shift = chunk_shift,
                            .region = region,
                            .offset = offset};
    VMKI_ASSERT(!areas_overflow(capacity, chunk_shift, &set->half_size, &set->masks_size));
}

size_t vmki_index_set_committed(const vmki_index_set *set)
{
    return set->half_committed[0] + set->half_committed[1] + set->masks_committed;
}

/* --- the parts of a range --------------------------------------------------------------------------------------- */

/* The part of a range of indices that lies in one chunk. */
typedef struct piece {
    size_t chunk;
    size_t first; /* in the chunk */
    size_t count;
} piece;

static piece piece_of(const vmki_index_set *set, size_t chunk, size_t first, size_t count)
{
    size_t low = chunk << set->chunk_shift;
    size_t high = low + (chunk_size(set) - 1); /* the last index: the one after it may be too large for a word */
    size_t from = vmki_max(first, low);
    size_t to = vmki_min(first + (count - 1), high);
    return (piece){chunk, from - low, to - from + 1};
}

static bool is_whole(const vmki_index_set *set, piece p)
{
    return p.count == chunk_size(set);
}

static size_t first_chunk(const vmki_index_set *set, size_t first)
{
    return first >> set->chunk_shift;
}

static size_t last_chunk(const vmki_index_set *set, size_t first, size_t count)
{
    return (first + (count - 1)) >> set->chunk_shift;
}

static void require_within(const vmki_index_set *set, size_t first, size_t count)
{
    VMKI_DCHECK(vmki_range_within(first, count, set->capacity));
    (void)set, (void)first, (void)count;
}

/* --- the hash table --------------------------------------------------------------------------------------------- */

static size_t *half_entries(const vmki_index_set *set, size_t half)
{
    return (size_t *)(void *)(set->base + half * set->half_size);
}

/* `current` taken apart. */
typedef struct view {
    size_t *entries; /* NULL: no table yet */
    size_t log2;
} view;

static view view_of(const vmki_index_set *set, size_t current)
{
    return (view){current == 0 ? NULL : half_entries(set, current & 1), current >> 1};
}

static view current_view(const vmki_index_set *set)
{
    return view_of(set, VMKI_LOAD_RELAXED(&set->current));
}

static size_t view_size(view v)
{
    return v.entries == NULL ? 0 : (size_t)1 << v.log2;
}

/* Where to begin to look for a key: Fibonacci hashing (Knuth, vol. 3, 6.4), which spreads neighbours and strides alike.
 */
static size_t hash(size_t key, size_t log2)
{
    size_t golden = (size_t)(sizeof(size_t) == 8 ? 0x9e3779b97f4a7c15u : 0x9e3779b9u);
    return (key * golden) >> (WORD_BITS - log2);
}

/* The entry of a key, or the free one where it belongs; NULL if there is neither, for want of a table. */
static size_t *find_place(view v, size_t key)
{
    size_t size = view_size(v);
    for (size_t i = 0, at = size == 0 ? 0 : hash(key, v.log2); i < size; i++, at = (at + 1) & (size - 1)) {
        size_t there = VMK_LOAD_ACQUIRE(&v.entries[at * ENTRY_WORDS]);
        if (there == key || there == 0)
            return v.entries + at * ENTRY_WORDS;
    }
    return NULL;
}

/* The chunk's entry, or NULL. */
static size_t *find_entry(const vmki_index_set *set, size_t chunk)
{
    size_t *entry = find_place(current_view(set), chunk + 1);
    return entry != NULL && entry[0] != 0 ? entry : NULL;
}

static size_t reference_of(const vmki_index_set *set, size_t chunk)
{
    const size_t *entry = find_entry(set, chunk);
    return entry != NULL ? entry[1] : 0;
}

/* Store a reference, and the key if the entry was free. What it refers to is written already. */
static void publish(vmki_index_set *set, size_t *entry, size_t chunk, size_t reference)
{
    VMKI_STORE_RELEASE(&entry[1], reference);
    if (entry[0] == 0) {
        set->used++;
        VMKI_STORE_RELEASE(&entry[0], chunk + 1);
    }
}

/* A walk over the entries, dead ones too, of the chunks [first, last]: by chunk, or by entry if that is shorter. */
typedef struct walk {
    size_t first;
    size_t last;
    size_t at;
    view table;
    bool by_entry;
} walk;

static walk walk_start(const vmki_index_set *set, size_t first, size_t last)
{
    view table = current_view(set);
    bool by_entry = last - first >= view_size(table);
    return (walk){first, last, by_entry ? 0 : first, table, by_entry};
}

/* The next entry; NULL at the end. */
static size_t *walk_next(walk *w)
{
    while (w->by_entry && w->at < view_size(w->table)) {
        size_t *entry = w->table.entries + w->at++ * ENTRY_WORDS;
        if (entry[0] != 0 && entry[0] - 1 >= w->first && entry[0] - 1 <= w->last)
            return entry;
    }
    while (!w->by_entry && w->at <= w->last) {
        size_t *entry = find_place(w->table, w->at++ + 1);
        if (entry != NULL && entry[0] != 0)
            return entry;
    }
    return NULL;
}

static size_t count_entries(const vmki_index_set *set, size_t first, size_t last, bool dead_too)
{
    size_t count = 0;
    walk w = walk_start(set, first, last);
    for (const size_t *entry; (entry = walk_next(&w)) != NULL;)
        count += dead_too || entry[1] != 0;
    return count;
}

/* --- masks ------------------------------------------------------------------------------------------------------ */

static size_t *mask_at(const vmki_index_set *set, size_t mask)
{
    return (size_t *)(void *)(set->base + 2 * set->half_size) + mask * mask_words(set);
}

/* Call it between making memory unreachable and giving it another meaning. */
static void raise_version(vmki_index_set *set)
{
    VMKI_STORE_RELEASE(&set->version, set->version + 1);
}

/* Take a mask that prepare has made sure of, with all its bits 0 or 1. */
static size_t mask_take(vmki_index_set *set, bool bits)
{
    size_t mask = set->masks_free - 1;
    if (set->masks_free != 0)
        set->masks_free = mask_at(set, mask)[0];
    else
        mask = set->masks_made++;
    size_t *words = mask_at(set, mask);
    VMKI_ASSERT((mask + 1) * mask_words(set) * sizeof(size_t) <= set->masks_committed);
    for (size_t i = 0; i < mask_words(set); i++)
        VMKI_STORE_RELEASE(&words[i], bits ? SIZE_MAX : 0);
    return mask;
}

/* No entry refers to it any more. */
static void mask_give_back(vmki_index_set *set, size_t mask)
{
    raise_version(set);
    VMKI_STORE_RELEASE(&mask_at(set, mask)[0], set->masks_free);
    set->masks_free = mask + 1;
}

static size_t count_bits(size_t word)
{
    const size_t ones = SIZE_MAX / 255;
    word -= (word >> 1) & (ones * 0x55);
    word = (word & (ones * 0x33)) + ((word >> 2) & (ones * 0x33));
    word = (word + (word >> 4)) & (ones * 0x0f);
    return (word * ones) >> (WORD_BITS - 8);
}

/* Cuts the part that lies in one word off the front of a piece: the word's number, and a word with those bits set. */
static size_t piece_word(piece *p, size_t *bits)
{
    size_t word = p->first / WORD_BITS;
    size_t low = p->first % WORD_BITS;
    size_t count = vmki_min(p->count, WORD_BITS - low);
    *bits = (SIZE_MAX >> (WORD_BITS - count)) << low;
    p->first += count;
    p->count -= count;
    return word;
}

/* Set or clear the bits of a piece; how many have changed? */
static size_t mask_change(vmki_index_set *set, size_t mask, piece p, bool add)
{
    size_t changed = 0;
    size_t *words = mask_at(set, mask);
    while (p.count != 0) {
        size_t bits;
        size_t *word = words + piece_word(&p, &bits);
        size_t old = *word;
        size_t now = add ? old | bits : old & ~bits;
        if (now != old)
            VMKI_STORE_RELEASE(word, now);
        changed += count_bits(now ^ old);
    }
    return changed;
}

static bool mask_any(const vmki_index_set *set, size_t mask, piece p)
{
    const size_t *words = mask_at(set, mask);
    while (p.count != 0) {
        size_t bits;
        size_t word = piece_word(&p, &bits);
        if ((words[word] & bits) != 0)
            return true;
    }
    return false;
}

/* --- preparing -------------------------------------------------------------------------------------------------- */

/* Commit an area, which begins at `start` in the set's space, up to `size` bytes. */
static vmk_status commit_area(vmki_index_set *set, size_t start, size_t size, size_t *committed)
{
    size_t whole = vmki_ceil(size, vmk_page_size());
    if (whole <= *committed)
        return VMK_OK;
    vmk_status status = vmki_vm_commit(set->region, set->offset + start + *committed, whole - *committed);
    if (status == VMK_OK)
        *committed = whole;
    return status;
}

/* Have `need` masks, no more than two, ready to be taken. */
static vmk_status prepare_masks(vmki_index_set *set, size_t need)
{
    for (size_t free = set->masks_free; free != 0 && need != 0; free = mask_at(set, free - 1)[0])
        need--;
    size_t size = (set->masks_made + need) * mask_words(set) * sizeof(size_t);
    VMKI_ASSERT(need == 0 || size <= set->masks_size);
    return need == 0 ? VMK_OK : commit_area(set, 2 * set->half_size, size, &set->masks_committed);
}

/* Move the live entries to the half that is not in use, whose first `dirty` bytes have been in use before. */
static void move(vmki_index_set *set, size_t half, size_t log2, size_t dirty)
{
    view from = current_view(set);
    view to = view_of(set, (log2 << 1) + half);
    raise_version(set);
    for (size_t i = 0; i < vmki_min(dirty / sizeof(size_t), view_size(to) * ENTRY_WORDS); i++)
        VMKI_STORE_RELEASE(&to.entries[i], 0);
    set->used = 0;
    for (size_t i = 0; i < view_size(from); i++) {
        const size_t *entry = from.entries + i * ENTRY_WORDS;
        if (entry[0] == 0 || entry[1] == 0)
            continue;
        size_t *place = find_place(to, entry[0]);
        VMKI_ASSERT(place != NULL); /* the new table has room for all */
        publish(set, place, entry[0] - 1, entry[1]);
    }
    VMKI_STORE_RELEASE(&set->current, (log2 << 1) + half);
}

/* Where to move to so that `entries` will be alive: half full at most, if the capacity allows it, so that moving again
 * is as far off as its cost. */
static size_t choose_log2(const vmki_index_set *set, size_t entries)
{
    size_t most = most_log2(chunks_for(set->capacity, set->chunk_shift));
    size_t log2 = least_log2();
    while (log2 < most && ((size_t)1 << log2) / 2 < entries)
        log2++;
    return log2;
}

/* Have free entries for all of the chunks [first, last] that have none. */
static vmk_status prepare_entries(vmki_index_set *set, size_t first, size_t last)
{
    size_t chunks = last - first + 1;
    if (set->current != 0) {
        size_t most = most_used(current_view(set).log2);
        if (set->used + chunks <= most || set->used + chunks - count_entries(set, first, last, true) <= most)
            return VMK_OK;
    }
    size_t alive = count_entries(set, 0, SIZE_MAX >> set->chunk_shift, false);
    size_t log2 = choose_log2(set, alive + chunks - count_entries(set, first, last, false));
    size_t half = set->current == 0 ? 0 : (set->current & 1) ^ 1;
    size_t dirty = set->half_committed[half];
    vmk_status status = commit_area(set, half * set->half_size, ENTRY_SIZE << log2, &set->half_committed[half]);
    if (status == VMK_OK)
        move(set, half, log2, dirty);
    return status;
}

/* How many of the chunks at the edges of a range, which it covers in part, have this reference? Those between are
 * whole. */
static size_t count_edges(const vmki_index_set *set, size_t first, size_t count, size_t reference)
{
    size_t low = first_chunk(set, first);
    size_t high = last_chunk(set, first, count);
    size_t edges = !is_whole(set, piece_of(set, low, first, count)) && reference_of(set, low) == reference;
    if (high != low)
        edges += !is_whole(set, piece_of(set, high, first, count)) && reference_of(set, high) == reference;
    return edges;
}

vmk_status vmki_index_set_prepare_add(vmki_index_set *set, size_t first, size_t count)
{
    require_within(set, first, count);
    if (count == 0)
        return VMK_OK;
    vmk_status status = prepare_masks(set, count_edges(set, first, count, 0));
    if (status != VMK_OK)
        return status;
    return prepare_entries(set, first_chunk(set, first), last_chunk(set, first, count));
}

vmk_status vmki_index_set_prepare_remove(vmki_index_set *set, size_t first, size_t count)
{
    require_within(set, first, count);
    return count == 0 ? VMK_OK : prepare_masks(set, count_edges(set, first, count, full_reference(set)));
}

/* --- adding and removing ---------------------------------------------------------------------------------------- */

static void fill_chunk(vmki_index_set *set, size_t *entry, size_t chunk)
{
    size_t old = entry[1];
    size_t had = population(set, old);
    if (old == full_reference(set))
        return;
    publish(set, entry, chunk, full_reference(set));
    set->count += chunk_size(set) - had;
    if (had != 0)
        mask_give_back(set, old >> set->chunk_shift);
}

static void clear_chunk(vmki_index_set *set, size_t *entry)
{
    size_t old = entry[1];
    size_t had = population(set, old);
    VMKI_STORE_RELEASE(&entry[1], 0);
    set->count -= had != 0 ? had : old; /* `old` is FULL, which is the size of a chunk, or nothing */
    if (had != 0)
        mask_give_back(set, old >> set->chunk_shift);
}

static void add_piece(vmki_index_set *set, size_t *entry, piece p)
{
    size_t old = entry[1];
    if (old == full_reference(set))
        return;
    size_t mask = old != 0 ? old >> set->chunk_shift : mask_take(set, false);
    size_t added = mask_change(set, mask, p, true);
    size_t has = population(set, old) + added;
    set->count += added;
    if (has == chunk_size(set)) {
        publish(set, entry, p.chunk, full_reference(set));
        mask_give_back(set, mask);
    } else {
        publish(set, entry, p.chunk, (mask << set->chunk_shift) + has);
    }
}

static void remove_piece(vmki_index_set *set, size_t *entry, piece p)
{
    size_t old = entry[1];
    if (old == 0)
        return;
    bool was_full = old == full_reference(set);
    size_t mask = was_full ? mask_take(set, true) : old >> set->chunk_shift;
    size_t removed = mask_change(set, mask, p, false);
    size_t left = (was_full ? chunk_size(set) : population(set, old)) - removed;
    set->count -= removed;
    if (left != 0) {
        VMKI_STORE_RELEASE(&entry[1], (mask << set->chunk_shift) + left);
    } else {
        VMKI_STORE_RELEASE(&entry[1], 0);
        mask_give_back(set, mask);
    }
}

void vmki_index_set_add(vmki_index_set *set, size_t first, size_t count)
{
    require_within(set, first, count);
    if (count == 0)
        return;
    size_t last = last_chunk(set, first, count);
    for (size_t chunk = first_chunk(set, first); chunk <= last; chunk++) {
        piece p = piece_of(set, chunk, first, count);
        size_t *entry = find_place(current_view(set), chunk + 1);
        VMKI_ASSERT(entry != NULL);
        if (is_whole(set, p))
            fill_chunk(set, entry, chunk);
        else
            add_piece(set, entry, p);
    }
}

void vmki_index_set_remove(vmki_index_set *set, size_t first, size_t count)
{
    require_within(set, first, count);
    if (count == 0)
        return;
    walk w = walk_start(set, first_chunk(set, first), last_chunk(set, first, count));
    for (size_t *entry; (entry = walk_next(&w)) != NULL;) {
        piece p = piece_of(set, entry[0] - 1, first, count);
        if (is_whole(set, p))
            clear_chunk(set, entry);
        else
            remove_piece(set, entry, p);
    }
}

/* --- asking ----------------------------------------------------------------------------------------------------- */

/* What there is to see for a reader that nobody disturbs. Every load is an acquire: see the top of the file. */
static bool look_up(const vmki_index_set *set, size_t index)
{
    size_t key = (index >> set->chunk_shift) + 1;
    const size_t *entry = find_place(view_of(set, VMK_LOAD_ACQUIRE(&set->current)), key);
    if (entry == NULL || VMK_LOAD_ACQUIRE(&entry[0]) != key)
        return false;
    size_t reference = VMK_LOAD_ACQUIRE(&entry[1]);
    if (population(set, reference) == 0)
        return reference != 0;
    size_t bit = index & (chunk_size(set) - 1);
    const size_t *words = mask_at(set, reference >> set->chunk_shift);
    return ((VMK_LOAD_ACQUIRE(&words[bit / WORD_BITS]) >> (bit % WORD_BITS)) & 1) != 0;
}

bool vmki_index_set_contains(const vmki_index_set *set, size_t index)
{
    for (;;) {
        size_t version = VMK_LOAD_ACQUIRE(&set->version);
        bool found = look_up(set, index);
        if (VMKI_LIKELY(VMK_LOAD_ACQUIRE(&set->version) == version))
            return found;
    }
}

bool vmki_index_set_any(const vmki_index_set *set, size_t first, size_t count)
{
    require_within(set, first, count);
    if (count == 0)
        return false;
    walk w = walk_start(set, first_chunk(set, first), last_chunk(set, first, count));
    for (const size_t *entry; (entry = walk_next(&w)) != NULL;) {
        size_t reference = entry[1];
        if (reference == 0)
            continue;
        piece p = piece_of(set, entry[0] - 1, first, count);
        if (population(set, reference) == 0 || mask_any(set, reference >> set->chunk_shift, p))
            return true;
    }
    return false;
}

/* --- checking --------------------------------------------------------------------------------------------------- */

/* Adds up to the same for each set of different masks, and hardly ever for a list with one of them twice. */
static size_t mask_signature(size_t mask)
{
    size_t mixed = (mask + 1) * (size_t)2654435761u;
    return mixed * mixed ^ mixed >> 7;
}

/* What a check has added up. */
typedef struct sums {
    size_t used;
    size_t count;
    size_t masks;
    size_t signature;
} sums;

static bool check_mask(const vmki_index_set *set, size_t chunk, size_t reference, sums *s)
{
    size_t mask = reference >> set->chunk_shift;
    size_t low = chunk << set->chunk_shift;
    size_t bits = 0;
    if (mask >= set->masks_made)
        return false;
    for (size_t i = 0; i < mask_words(set); i++)
        bits += count_bits(mask_at(set, mask)[i]);
    s->count += bits;
    s->masks++;
    s->signature += mask_signature(mask);
    if (set->capacity - low < chunk_size(set)) {
        size_t inside = set->capacity - low;
        if (mask_any(set, mask, (piece){chunk, inside, chunk_size(set) - inside}))
            return false;
    }
    return bits == population(set, reference);
}

static bool check_entry(const vmki_index_set *set, const size_t *entry, sums *s)
{
    size_t chunk = entry[0] - 1;
    s->used++;
    if (chunk >= chunks_for(set->capacity, set->chunk_shift) || find_entry(set, chunk) != entry)
        return false; /* a key that is there twice is not found where it is the second time */
    if (population(set, entry[1]) != 0)
        return check_mask(set, chunk, entry[1], s);
    s->count += entry[1];
    return entry[1] == 0 ||
           (entry[1] == full_reference(set) && set->capacity - (chunk << set->chunk_shift) >= chunk_size(set));
}

static bool check_masks(const vmki_index_set *set, sums *s)
{
    size_t all = 0;
    for (size_t free = set->masks_free; free != 0; free = mask_at(set, free - 1)[0]) {
        s->signature += mask_signature(free - 1);
        if (free > set->masks_made || ++s->masks > set->masks_made)
            return false;
    }
    for (size_t i = 0; i < set->masks_made; i++)
        all += mask_signature(i);
    return s->masks == set->masks_made && s->signature == all &&
           set->masks_made * mask_words(set) * sizeof(size_t) <= set->masks_committed;
}

bool vmki_index_set_check(const vmki_index_set *set)
{
    sums s = {0};
    view v = current_view(set);
    if (view_size(v) != 0 && set->used > most_used(v.log2))
        return false;
    if (view_size(v) * ENTRY_SIZE > set->half_committed[set->current & 1] || set->masks_committed > set->masks_size)
        return false;
    for (size_t i = 0; i < view_size(v); i++)
        if (v.entries[i * ENTRY_WORDS] != 0 && !check_entry(set, v.entries + i * ENTRY_WORDS, &s))
            return false;
    return check_masks(set, &s) && s.used == set->used && s.count == set->count;
}
