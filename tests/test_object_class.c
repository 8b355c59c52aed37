/* SPDX-License-Identifier: MIT
 *
 * Size classes: what they waste, the table against the arithmetic, and where a slab's slots begin, word by word,
 * against an enumeration that knows nothing of words.
 */
#include "common/heap/class.h"
#include "support.h"

enum { PAGE = 1 << VMK_HEAP_PAGE_SHIFT, SLAB_MOST = 32, GRANULES_MOST = 1 << 16 };

/* For conditions in loops. */
#define MUST(condition) ((condition) ? (void)0 : ck_abort_msg("%s", #condition))

/* Every size has the smallest class that holds it, by the table and by arithmetic; what is left over is an eighth of
 * what was asked for at most, below 128 bytes what alignment takes. */
START_TEST(every_size_has_the_smallest_class)
{
    vmki_classes_init();
    unsigned expected = 1;
    for (size_t size = 0; size <= VMK_OBJECT_SMALL_MAX; size++) {
        expected += size > vmki_class_size(expected);
        MUST(vmki_class_of(size) == expected && vmki_class_computed(size) == expected);
        size_t waste = vmki_class_size(expected) - size;
        MUST(size < 128 ? waste < VMKI_GRANULE || size == 0 : waste * 8 <= size);
    }
    ck_assert_uint_eq(expected, VMK_CLASSES - 1);
    ck_assert_uint_eq(vmki_class_size(expected), VMK_OBJECT_SMALL_MAX);
}
END_TEST

/* Eight classes to each doubling, all multiples of 16. */
START_TEST(sizes_are_steps)
{
    for (unsigned c = 1; c < VMK_CLASSES; c++) {
        size_t size = vmki_class_size(c), step = c <= 8 ? 16 : (size_t)16 << ((c - 9) / 8);
        ck_assert_uint_eq(size - (c == 1 ? 0 : vmki_class_size(c - 1)), step);
        ck_assert_uint_eq(size % VMKI_GRANULE, 0);
        ck_assert_uint_eq(vmki_classes[c].size, size);
        ck_assert_uint_eq(vmki_classes[c].granules, size / VMKI_GRANULE);
    }
}
END_TEST

/* Slots of a slab of so many pages. */
static size_t capacity_of(const vmki_class *c, size_t pages)
{
    return pages * PAGE / c->size;
}

START_TEST(slabs_leave_little_over)
{
    for (unsigned i = 1; i < VMK_CLASSES; i++) {
        const vmki_class *c = &vmki_classes[i];
        ck_assert_uint_ge(capacity_of(c, c->pages), 4);
        ck_assert_uint_le(c->pages * PAGE,
                          16 * (size_t)vmki_max(c->size, PAGE / 8)); /* nor is it large for its slots */
        for (size_t pages = c->pages; pages <= SLAB_MOST; pages *= 2) {
            size_t used = capacity_of(c, pages) * c->size;
            ck_assert_uint_le(pages * PAGE - used, pages * PAGE / 16);
            /* The words that are gone through are those up to the last slot's end. */
            ck_assert_uint_eq(vmki_slab_words(c, capacity_of(c, pages)),
                              (used / VMKI_GRANULE + VMKI_WORD_BITS - 1) / VMKI_WORD_BITS);
        }
    }
}
END_TEST

/* A slab's words as the allocator goes through them. */
static size_t starts_next(const vmki_class *c, size_t capacity, uint32_t word, uint32_t *phase)
{
    if (word != 0)
        *phase = *phase >= c->back ? *phase - c->back : *phase + c->granules - c->back;
    size_t starts = *phase < VMKI_WORD_BITS ? c->pattern << *phase : 0;
    return word + 1 == vmki_slab_words(c, capacity) ? starts & vmki_slab_last_mask(c, capacity) : starts;
}

static void words_must_fit(const vmki_class *c, size_t capacity)
{
    static bool begins[GRANULES_MOST];
    uint32_t phase = 0, words = vmki_slab_words(c, capacity);
    size_t count = 0, granules = (size_t)words * VMKI_WORD_BITS;
    MUST(granules <= GRANULES_MOST);
    for (size_t g = 0; g < granules; g++)
        begins[g] = false;
    for (size_t slot = 0; slot < capacity; slot++)
        begins[slot * c->granules] = true;
    for (uint32_t word = 0; word < words; word++) {
        size_t starts = starts_next(c, capacity, word, &phase);
        for (unsigned bit = 0; bit < VMKI_WORD_BITS; bit++) {
            bool set = (starts >> bit & 1) != 0;
            if (set != begins[(size_t)word * VMKI_WORD_BITS + bit])
                ck_abort_msg("%u bytes, word %u, bit %u", (unsigned)c->size, (unsigned)word, bit);
            count += set;
        }
    }
    ck_assert_uint_eq(count, capacity);
}

START_TEST(words_say_where_slots_begin)
{
    for (unsigned i = 1; i < VMK_CLASSES; i++)
        for (size_t pages = vmki_classes[i].pages; pages <= SLAB_MOST; pages *= 2)
            words_must_fit(&vmki_classes[i], capacity_of(&vmki_classes[i], pages));
}
END_TEST

/* What aligned allocation relies on: a multiple of the alignment has a class whose size is one too. */
START_TEST(multiples_of_an_alignment_have_aligned_classes)
{
    for (size_t align = VMKI_GRANULE; align <= PAGE; align *= 2)
        for (size_t size = align; size <= VMK_OBJECT_SMALL_MAX; size += align)
            MUST(vmki_class_size(vmki_class_of(size)) % align == 0);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("object_class");
    TCase *tests = tcase_create("object_class");
    tcase_add_test(tests, every_size_has_the_smallest_class);
    tcase_add_test(tests, sizes_are_steps);
    tcase_add_test(tests, slabs_leave_little_over);
    tcase_add_test(tests, words_say_where_slots_begin);
    tcase_add_test(tests, multiples_of_an_alignment_have_aligned_classes);
    suite_add_tcase(suite, tests);
    return support_main(argc, argv, suite, NULL);
}
