/* SPDX-License-Identifier: MIT
 *
 * What the fuzz targets share: taking an input apart, and telling which failures of the library's are excused.
 *
 * An input is a program: each byte or two is a choice, and at its end all choices are 0. Its first two bytes set up the
 * model OS: which call of the system is to fail, and by what rules. On a real system they are read and mean nothing, so
 * inputs are worth the same on both. A target checks that calls succeed unless that failure, or a rule, is to blame.
 */
#ifndef VMKIT_TESTS_FUZZ_H
#define VMKIT_TESTS_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "vmkit.h"
#ifdef VMKIT_MODEL
#include "model/model.h"
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_failed(#condition, __FILE__, __LINE__))

static inline void fuzz_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    abort();
}

/* A violation of the model's contract; NULL: none. */
static inline void fuzz_violation(const char *words, const char *file, int line)
{
    if (words != NULL)
        fuzz_failed(words, file, line);
}

#define FUZZ_CHECK_NONE(violation) fuzz_violation((violation), __FILE__, __LINE__)

typedef struct fuzz_input {
    const uint8_t *data;
    size_t size;
    vmk_stats before; /* what the library keeps for good is there from the first input on */
    /* Of the model: */
    bool tight;   /* the rules may refuse what is asked for */
    bool lasting; /* all calls fail once one has */
    bool seen;    /* the planned failure was met */
} fuzz_input;

static inline unsigned fuzz_byte(fuzz_input *in)
{
    if (in->size == 0)
        return 0;
    in->size--;
    return *in->data++;
}

/* In [0, limit), limit > 0: of one byte if that will do, of two otherwise. */
static inline size_t fuzz_below(fuzz_input *in, size_t limit)
{
    size_t value = fuzz_byte(in);
    if (limit > 256)
        value = value << 8 | fuzz_byte(in);
    return value % limit;
}

#ifdef VMKIT_MODEL

enum { FUZZ_QUOTA_PAGES = 40, FUZZ_MAPPINGS = 12 };

static inline fuzz_input fuzz_start(const uint8_t *data, size_t size)
{
    static const vmk_status statuses[] = {VMK_ERR_COMMIT, VMK_ERR_MAPPINGS, VMK_ERR_ADDRESS_SPACE, VMK_ERR_COMMIT};
    fuzz_input in = {.data = data, .size = size};
    vmk_stats_now(&in.before);
    unsigned plan = fuzz_byte(&in);
    unsigned kind = fuzz_byte(&in);
    model_rules rules = {.junk_on_discard = (kind & 1) != 0, .guards = (kind & 2) != 0, .batch = (kind & 10) != 0};
    if ((kind & 6) == 6)
        rules.commit_quota = model_committed() + FUZZ_QUOTA_PAGES * vmk_page_size();
    if ((kind & 24) == 24)
        rules.max_mappings = model_mappings() + FUZZ_MAPPINGS;
    if ((kind & 32) != 0)
        rules.huge_page_size = (size_t)2 << 20;
    in.tight = rules.commit_quota != 0 || rules.max_mappings != 0;
    in.lasting = plan >= 128;
    model_reset(&rules);
    model_fail_nth(plan % 128, statuses[kind >> 6], in.lasting);
    return in;
}

/* After each call that can fail: was it excused? Gives back whether it has succeeded. */
static inline bool fuzz_settle(fuzz_input *in, vmk_status status)
{
    bool failed = model_failed();
    FUZZ_CHECK(status == VMK_OK || in->tight || (failed && (in->lasting || !in->seen)));
    FUZZ_CHECK_NONE(model_violation());
    in->seen = failed;
    return status == VMK_OK;
}

/* Can what the library undoes fail too, so that the model has more pages committed than the library knows of? */
static inline bool fuzz_undoing_may_fail(const fuzz_input *in)
{
    return in->tight || in->lasting;
}

#else

static inline fuzz_input fuzz_start(const uint8_t *data, size_t size)
{
    fuzz_input in = {.data = data, .size = size};
    vmk_stats_now(&in.before);
    (void)fuzz_byte(&in);
    (void)fuzz_byte(&in);
    return in;
}

static inline bool fuzz_settle(fuzz_input *in, vmk_status status)
{
    (void)in;
    FUZZ_CHECK(status == VMK_OK);
    return true;
}

static inline bool fuzz_undoing_may_fail(const fuzz_input *in)
{
    (void)in;
    return false;
}

#endif

/* At the end of an input, when the target has given all back. */
static inline void fuzz_end(fuzz_input *in)
{
    vmk_stats stats;
    vmk_stats_now(&stats);
    FUZZ_CHECK(stats.regions == in->before.regions && stats.reserved == in->before.reserved);
    FUZZ_CHECK(stats.committed == in->before.committed);
#ifdef VMKIT_MODEL
    FUZZ_CHECK(model_reserved() == stats.reserved + stats.overhead);
    FUZZ_CHECK(model_committed() == stats.committed + stats.overhead);
    FUZZ_CHECK_NONE(model_violation());
    model_reset(NULL);
#endif
}

#endif
