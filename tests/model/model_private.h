/* SPDX-License-Identifier: MIT
 *
 * What the two files of the model OS share: the machine that os_facts.c sets up and reports on, and whose pages os_vm.c
 * moves from state to state.
 *
 * Locking. One lock guards everything, pages and their contents included, for as long as a call lasts: the model has
 * the order of a kernel that does one thing at a time. Functions named model_... in this file are called with the lock
 * held, but for model_lock itself.
 */
#ifndef VMKIT_TESTS_MODEL_PRIVATE_H
#define VMKIT_TESTS_MODEL_PRIVATE_H

#include "model/model.h"

enum { MODEL_MIN_PAGE = 4096, MODEL_MAX_PAGE = 65536 };
#define MODEL_MAX_PAGES (MODEL_MAX_ADDRESS_SPACE / MODEL_MIN_PAGE)

/* What can be asked of a page. The last three but one are all committed: charged, with contents. */
typedef enum model_state {
    MODEL_FREE,
    MODEL_RESERVED,
    MODEL_COMMITTED,
    MODEL_READ_ONLY,
    MODEL_NO_ACCESS,
    MODEL_PLANTED
} model_state;

typedef struct model_page {
    uint32_t owner; /* 0: none */
    uint8_t state;  /* model_state */
    uint8_t kept;   /* reserved, but in a mapping as of this state: decommitted by a mark; 0: no */
    uint8_t node;   /* n + 1, as it was asked for; 0: any */
    bool stale;     /* holds the pattern; if not, and not committed, it is zero */
    bool huge;      /* advised so */
    bool of_pool;   /* of explicit huge pages */
    bool guard;     /* marked as one: holds the pattern, whatever its state */
    const char *name;
} model_page;

/* A range of pages. */
typedef struct model_span {
    size_t first;
    size_t count;
} model_span;

typedef struct model_machine {
    vmki_os_lock lock;
    /* Set at the first lock and never again. */
    unsigned char *base; /* NULL: not set up yet */
    size_t page_size;
    size_t granularity;
    size_t pages;
    /* What the tests have asked for. */
    model_rules rules;
    uint64_t fail_at; /* the value of `fallible` at which to fail; 0: never */
    vmk_status fail_status;
    bool fail_on;
    /* What has happened. */
    uint64_t fallible;
    bool failed;
    size_t reserved;  /* pages of live reservations, */
    size_t committed; /* of them committed, */
    size_t mappings;  /* and the runs that they form */
    size_t pooled;    /* pages of explicit huge pages in use */
} model_machine;

extern model_machine model;

/* os_facts.c */

/* Take the lock, with the machine set up. */
void model_lock(void);
void model_unlock(void);

/* Count a call that could fail. Is it the one that is to fail? Then *status says with what. */
bool model_planned(vmk_status *status);

/* Enter a call into the record. Gives the status back. */
vmk_status model_note(model_call call, size_t address, size_t size, vmk_status status);

/* Keep the first crime: who, what, and where (an offset in the model's address space). */
void model_violate(const char *who, const char *what, size_t address);

/* os_vm.c */

/* Called once, when the block is there. */
void model_pages_init(void);

/* os_vm.c: is all of it committed, inside one reservation, and are none of its pages guards? */
bool model_all_committed(const void *base, size_t size);

/* os_watch.c: pages whose writes are accounted for cease to be so. */
void model_watch_forget(size_t first, size_t count);
model_page *model_page_of(size_t index);
size_t model_offset_of(const void *address); /* in the model's address space */

/* Whole pages of the address space? The span of a call, if it is one of whole pages in one live reservation; the same
 * for calls on committed pages, which `writable` ones must not be protected: else a violation. */
bool model_find_span(const void *base, size_t size, model_span *s);
bool model_check_span(model_call call, const void *base, size_t size, model_span *s);
bool model_check_committed(model_call call, const void *base, size_t size, bool writable, model_span *s);

bool model_is_committed(const model_page *page);

/* Give all pages of the span a state and an owner, unless the mappings would be too many. Contents are not touched. */
bool model_change(model_span s, model_state state, uint32_t owner, bool may_refuse);

/* Mappings that begin in the span or right behind it: those that a change of the span can make or end. */
size_t model_mappings_beginning(model_span s);

/* A reservation without access, pages not yet told of. */
vmk_status model_reserve(const vmki_os_request *request, model_span *s);

/* Contents: has nobody written to this page, which nobody may touch; zero, of a page that nobody could touch; gone, and
 * not to be touched. Poisoned is what AddressSanitizer shall find touched. */
void model_check_untouched(model_call call, size_t index);
void model_make_zero(model_call call, size_t index);
void model_make_stale(size_t index);
void model_poison(model_span s);
void model_unpoison(model_span s);

#endif
