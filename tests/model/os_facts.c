/* SPDX-License-Identifier: MIT
 *
 * The model OS, first half: what it is told (environment, rules, failures to come) and what it tells (facts, limits,
 * the record, violations).
 *
 * The machine is set up at the first lock and lives until the process ends. Its address space is one zeroed block of
 * the C library's, far larger than what is used of it: a C library gets such blocks from the system page by page as
 * they are touched, so the model must not touch what it need not.
 *
 * The record holds twice what is promised and drops its older half when full: that keeps the newest MODEL_RECORDS in
 * one piece and in order, as model_records gives them out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/align.h"
#include "common/base/os_service.h"
#include "model/model_private.h"

#define BLOCK_ALIGN ((size_t)1 << 21)
#define NOMINAL_MEMORY ((uint64_t)1 << 30)

model_machine model;

static model_record records[2 * MODEL_RECORDS];
static size_t records_count;
static char violation[160];

/* --- setting up ------------------------------------------------------------------------------------------------- */

/* For a test that can't even begin. */
static VMKI_NORETURN void give_up(const char *reason)
{
    fprintf(stderr, "model: %s\n", reason);
    abort();
}

/* A size in KiB from the environment, in bytes. */
static size_t environment_size(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    if (text == NULL || *text == '\0')
        return otherwise;
    char *rest = NULL;
    unsigned long kib = strtoul(text, &rest, 10);
    if (*rest != '\0' || kib > 1024 || !vmki_is_power_of_two(kib))
        give_up("a size in the environment is not a power of two of KiB");
    return (size_t)kib << 10;
}

static void set_up(void)
{
    model.page_size = environment_size("VMKIT_MODEL_PAGE", MODEL_MIN_PAGE);
    model.granularity = environment_size("VMKIT_MODEL_GRANULARITY", model.page_size);
    if (model.page_size < MODEL_MIN_PAGE || model.page_size > MODEL_MAX_PAGE || model.granularity < model.page_size)
        give_up("VMKIT_MODEL_PAGE must be 4 to 64, and VMKIT_MODEL_GRANULARITY no less");
    model.pages = MODEL_MAX_ADDRESS_SPACE / model.page_size;
    unsigned char *block = calloc(1, MODEL_MAX_ADDRESS_SPACE + BLOCK_ALIGN);
    if (block == NULL)
        give_up("no memory for the address space");
    model.base = block + (BLOCK_ALIGN - ((uintptr_t)block & (BLOCK_ALIGN - 1)));
    model_pages_init();
}

void model_lock(void)
{
    vmki_os_lock_acquire(&model.lock);
    if (model.base == NULL)
        set_up();
}

void model_unlock(void)
{
    vmki_os_lock_release(&model.lock);
}

void model_reset(const model_rules *rules)
{
    static const model_rules defaults;
    model_lock();
    model.rules = rules != NULL ? *rules : defaults;
    model.fail_at = 0;
    model.fallible = 0;
    model.failed = false;
    records_count = 0;
    violation[0] = '\0';
    model_unlock();
}

/* --- planned failures ------------------------------------------------------------------------------------------- */

void model_fail_nth(uint64_t n, vmk_status status, bool from_then_on)
{
    model_lock();
    model.fail_at = n;
    model.fail_status = status;
    model.fail_on = from_then_on;
    model.fallible = 0;
    model.failed = false;
    model_unlock();
}

bool model_planned(vmk_status *status)
{
    model.fallible++;
    if (model.fail_at == 0 || model.fallible < model.fail_at || (model.fallible > model.fail_at && !model.fail_on))
        return false;
    model.failed = true;
    *status = model.fail_status;
    return true;
}

uint64_t model_fallible_calls(void)
{
    model_lock();
    uint64_t calls = model.fallible;
    model_unlock();
    return calls;
}

bool model_failed(void)
{
    model_lock();
    bool failed = model.failed;
    model_unlock();
    return failed;
}

/* --- record and violations -------------------------------------------------------------------------------------- */

vmk_status model_note(model_call call, size_t address, size_t size, vmk_status status)
{
    if (records_count == 2 * MODEL_RECORDS) {
        memmove(records, records + MODEL_RECORDS, MODEL_RECORDS * sizeof *records);
        records_count = MODEL_RECORDS;
    }
    records[records_count++] = (model_record){call, address, size, status};
    return status;
}

size_t model_records(const model_record **result)
{
    model_lock();
    size_t count = vmki_min(records_count, MODEL_RECORDS);
    *result = records + (records_count - count);
    model_unlock();
    return count;
}

void model_violate(const char *who, const char *what, size_t address)
{
    if (violation[0] == '\0')
        snprintf(violation, sizeof violation, "%s: %s (at %#lx)", who, what, (unsigned long)address);
}

const char *model_violation(void)
{
    model_lock();
    const char *first = violation[0] != '\0' ? violation : NULL;
    model_unlock();
    return first;
}

/* --- what the model counts -------------------------------------------------------------------------------------- */

static size_t read_locked(const size_t *value)
{
    model_lock();
    size_t result = *value;
    model_unlock();
    return result;
}

size_t model_reserved(void)
{
    return read_locked(&model.reserved) * model.page_size;
}

size_t model_committed(void)
{
    return read_locked(&model.committed) * model.page_size;
}

size_t model_mappings(void)
{
    return read_locked(&model.mappings);
}

void *model_base(void)
{
    model_lock();
    void *base = model.base;
    model_unlock();
    return base;
}

/* --- facts of the contract -------------------------------------------------------------------------------------- */

void vmki_os_page_facts(size_t *page_size, size_t *granularity)
{
    model_lock();
    *page_size = model.page_size;
    *granularity = model.granularity;
    model_unlock();
}

uint64_t vmki_os_physical_memory(void)
{
    return NOMINAL_MEMORY;
}

void vmki_os_probe(vmk_caps *caps)
{
    model_lock();
    caps->huge_page_size = model.rules.huge_page_size;
    caps->address_min = (uintptr_t)model.base;
    caps->address_max = (uintptr_t)model.base + (MODEL_MAX_ADDRESS_SPACE - 1);
    caps->physical_memory = vmki_os_physical_memory();
    caps->max_mappings = model.rules.max_mappings;
    caps->overcommit = VMK_OVERCOMMIT_NEVER;
    caps->features = VMK_CAP_EXACT | VMK_CAP_ALIGNED | VMK_CAP_COMMIT_CHARGED | VMK_CAP_DECOMMIT_CHARGE;
    if (model.rules.huge_page_size != 0)
        caps->features |= VMK_CAP_HUGE_ADVICE;
    caps->advice = model.rules.advice;
    model_unlock();
}

static uint64_t limit_or_none(uint64_t limit)
{
    return limit != 0 ? limit : VMK_UNLIMITED;
}

void vmki_os_own_limits(vmk_limits *limits)
{
    model_lock();
    limits->address_space = limit_or_none(model.rules.limits.address_space);
    limits->data = limit_or_none(model.rules.limits.data);
    model_unlock();
}

void vmki_os_limits(vmk_limits *limits)
{
    vmki_os_own_limits(limits);
    model_lock();
    limits->memory = limit_or_none(model.rules.limits.memory);
    limits->commit = limit_or_none(model.rules.limits.commit);
    model_unlock();
}

vmk_status vmki_os_usage(vmk_usage *usage)
{
    model_lock();
    usage->address_space = (uint64_t)model.reserved * model.page_size;
    usage->data = (uint64_t)model.committed * model.page_size;
    usage->resident = usage->data;
    usage->mappings = model.mappings;
    model_unlock();
    return VMK_OK;
}

/* The model's pages stay where they are, as on Windows. */
vmk_status vmki_os_move(void **base, size_t size, size_t new_size, size_t guard)
{
    (void)base;
    (void)size;
    (void)new_size;
    (void)guard;
    return VMK_ERR_UNSUPPORTED;
}
