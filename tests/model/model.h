/* SPDX-License-Identifier: MIT
 *
 * The model OS: a third implementation of the memory and the facts of common/base/os.h, for tests. A machine of page
 * states over a block from the C library: it checks what every call is allowed to do, obeys the rules of whichever
 * system it is told to be, fails on demand, and keeps a record.
 *
 * Memory that is reserved holds a pattern, which commit checks: whoever wrote to memory that was not committed is found
 * out. (Reads are not: that takes a real page table.)
 */
#ifndef VMKIT_TESTS_MODEL_H
#define VMKIT_TESTS_MODEL_H

#include "common/base/os.h"

/* The page size and the granularity are the process's, as on a real system: the environment says them before the first
 * call, VMKIT_MODEL_PAGE and VMKIT_MODEL_GRANULARITY in KiB; 4 and the page size by default. tests/CMakeLists.txt runs
 * each suite with 4/4, 4/64 (Windows), 16/16 and 64/64. The other rules can be changed between tests. */
typedef struct model_rules {
    size_t address_space;  /* bytes that may be reserved at once; 0: MODEL_MAX_ADDRESS_SPACE */
    size_t commit_quota;   /* bytes that may be committed at once; 0: no limit */
    size_t max_mappings;   /* runs of pages in equal state that there may be; 0: no limit */
    bool junk_on_discard;  /* discarded memory becomes junk at once, as it may anywhere; else it stays */
    vmk_limits limits;     /* what vmki_os_limits tells; 0 in a field: VMK_UNLIMITED */
    size_t huge_page_size; /* 0: no huge pages, and advice on them is unsupported */
    unsigned advice;       /* 1u << VMK_ADVICE_...: other advice that there is */
    bool guards;           /* marks in the page table */
    bool watch;            /* writes are accounted for, as the kind USERFAULT */
    bool batch;            /* many ranges at once; a decommit of such needs marks too */
    unsigned nodes;        /* NUMA nodes; 0: it doesn't tell */
    size_t huge_size;      /* of explicit huge pages; 0: there are none, */
    size_t huge_pool;      /* so many bytes in all, */
    bool huge_whole;       /* which come committed as a whole */
} model_rules;

#define MODEL_MAX_ADDRESS_SPACE ((size_t)3 << 27)

typedef enum model_call {
    MODEL_RESERVE,
    MODEL_RELEASE,
    MODEL_COMMIT,
    MODEL_DECOMMIT,
    MODEL_DISCARD,
    MODEL_REUSE,
    MODEL_PROTECT,
    MODEL_ADVISE,
    MODEL_NAME,
    MODEL_GUARD_SET,
    MODEL_GUARD_CLEAR,
    MODEL_DECOMMIT_BATCH, /* each range is a call in the record, and one that can fail */
    MODEL_DISCARD_BATCH,
    MODEL_COMMIT_HUGE,
    MODEL_DECOMMIT_HUGE,
    MODEL_NODE_PREFER,
    MODEL_CALLS
} model_call;

typedef struct model_record {
    model_call call;
    size_t address; /* offset in the model's address space */
    size_t size;
    vmk_status status;
} model_record;

/* New rules (NULL: the defaults), no failure planned, an empty record, no violations. What is reserved stays as it is:
 * the vm layer keeps memory for its own records for good (vmk_stats.overhead), which counts against the rules as
 * anything does. The address space is one block, whose base is aligned to 2 MiB, for the life of the process. */
void model_reset(const model_rules *rules);

/* Fail the n-th call from now on (1: the next) of those that can fail, and if `from_then_on` all later ones too, with
 * this status. n = 0: fail none. */
void model_fail_nth(uint64_t n, vmk_status status, bool from_then_on);

/* Calls that could have failed since the last model_fail_nth or reset; whether the planned failure has happened. */
uint64_t model_fallible_calls(void);
bool model_failed(void);

/* Occupy address space as a foreign mapping would, filled with `fill`; free it; is it still whole and unchanged? The
 * address is a multiple of the granularity inside the model's address space. */
bool model_plant(void *address, size_t size, unsigned char fill);
bool model_planted_intact(void *address, size_t size, unsigned char fill);
void model_unplant(void *address, size_t size);

/* What the model counts itself, page by page: in live reservations that vmkit made. */
size_t model_reserved(void);
size_t model_committed(void);
size_t model_mappings(void);
void *model_base(void);

/* The name of the page at an address; NULL: it has none. Decommit loses it, as Linux may. */
const char *model_name_of(const void *address);

/* Executable memory: bytes of it that are mapped; let it be had in one mapping alone. */
size_t model_code_mapped(void);
void model_code_forbid_twice(bool forbid);

/* Memory pressure: what is left within the bounds MEMORY, COMMIT or PHYSICAL (0: no such bound); tell of bounds, as
 * bits; sources of events that are open; how often the room was looked at. */
void model_room_set(vmk_bound bound, uint64_t left, uint64_t limit);
void model_pressure_tell(unsigned bounds);
size_t model_pressure_opened(void);
size_t model_pressure_looks(void);

/* The record of calls since reset, oldest first; only the last MODEL_RECORDS are kept. */
#define MODEL_RECORDS 4096
size_t model_records(const model_record **records);

/* Violations of the contract so far: unaligned or empty ranges, ranges outside one reservation, discard or protect of
 * pages that are not committed, writes to memory that was not committed or is a guard, commits of pages that are still
 * marked as guards, calls on explicit huge pages that are for others. NULL: none; else the first, in words. */
const char *model_violation(void);

#endif
