/* SPDX-License-Identifier: MIT
 *
 * Memory pressure: how much room is left within each limit, and a thread that says when it gets short. What the thread
 * shares with start and stop is in the caller's record; all else is on its stack, so that a child of a fork, which has
 * the record but no thread, has nothing to put right.
 */
#include "common/vm/pressure.h"

#include "common/base/check.h"
#include "common/base/os_service.h"
#include "common/vm/vm.h"

/* --- room ------------------------------------------------------------------------------------------------------- */

static void bound_by(vmk_room *room, vmk_bound bound, uint64_t limit, uint64_t used)
{
    room->bound[bound] = limit;
    room->left[bound] = limit > used ? limit - used : 0;
}

/* The whole address space, where a program can come near its end. */
static uint64_t address_space_limit(uint64_t limit)
{
    if (sizeof(void *) > 4)
        return limit;
    const vmk_caps *caps = vmki_vm_basics();
    return caps->address_max == 0 ? limit : vmki_min64(limit, (uint64_t)caps->address_max - caps->address_min + 1);
}

static void find_own_room(vmk_room *room)
{
    vmk_limits limits = {VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED, VMK_UNLIMITED};
    vmk_usage usage = {0};
    vmki_os_own_limits(&limits);
    limits.address_space = address_space_limit(limits.address_space);
    if ((limits.address_space == VMK_UNLIMITED && limits.data == VMK_UNLIMITED) || vmki_os_usage(&usage) != VMK_OK)
        return;
    if (limits.address_space != VMK_UNLIMITED)
        bound_by(room, VMK_BOUND_ADDRESS_SPACE, limits.address_space, usage.address_space);
    if (limits.data != VMK_UNLIMITED)
        bound_by(room, VMK_BOUND_DATA, limits.data, usage.data);
}

void vmk_room_now(vmk_room *room)
{
    vmk_room found;
    vmki_os_error before = vmki_os_error_get();
    for (size_t i = 0; i < VMK_BOUNDS; i++)
        found.left[i] = found.bound[i] = VMK_UNLIMITED;
    vmki_os_room(&found);
    find_own_room(&found);
    vmki_os_error_set(before);
    *room = found;
}

/* --- decisions -------------------------------------------------------------------------------------------------- */

enum { DEFAULT_MILLISECONDS = 1000, DEFAULT_SHARE = 16 };

static unsigned interval_of(const vmk_pressure_options *options)
{
    return options->milliseconds != 0 ? options->milliseconds : DEFAULT_MILLISECONDS;
}

static uint64_t mark_of(const vmk_pressure_options *options, uint64_t bound)
{
    if (options->low != 0)
        return options->low;
    return bound == VMK_UNLIMITED ? 0 : bound / DEFAULT_SHARE;
}

/* Twice the mark may be more than there can ever be. */
static uint64_t enough_of(uint64_t mark, uint64_t bound)
{
    uint64_t half_way = mark < bound ? mark + (bound - mark) / 2 : bound;
    return mark > half_way / 2 ? half_way : 2 * mark;
}

unsigned vmki_pressure_decide(vmki_pressure_view *view, const vmk_room *room, unsigned told, uint64_t now,
                              const vmk_pressure_options *options, vmk_pressure_event events[VMK_BOUNDS])
{
    uint64_t silence = (uint64_t)interval_of(options) * 1000000;
    unsigned count = 0;
    for (unsigned i = 0; i < VMK_BOUNDS; i++) {
        unsigned bit = 1u << i;
        uint64_t left = room->left[i], mark = mark_of(options, room->bound[i]);
        if ((told & bit) != 0) {
            view->told |= bit;
            view->told_at[i] = now;
        } else if ((view->told & bit) != 0 && now - view->told_at[i] >= silence) {
            view->told &= ~bit;
        }
        bool was_low = (view->low & bit) != 0;
        bool short_of = left < mark || (view->told & bit) != 0;
        if (was_low ? short_of || left < enough_of(mark, room->bound[i]) : !short_of)
            continue;
        view->low ^= bit;
        events[count++] = (vmk_pressure_event){
            .bound = (vmk_bound)i, .low = !was_low, .told = !was_low && (told & bit) != 0, .left = left};
    }
    return count;
}

/* --- the thread ------------------------------------------------------------------------------------------------- */

#define SEAL_LIVE ((uintptr_t)0x766d6b50u) /* "vmkP" */
#define SEAL_DONE ((uintptr_t)0x73746f70u) /* "stop" */

/* In vmk_pressure.state: words all. */
typedef struct worker {
    vmki_os_thread thread;
    uintptr_t id;       /* the thread's own, once it runs */
    uintptr_t stopping; /* 1: it shall */
    uintptr_t forks;    /* at the start */
    vmki_os_pressure events;
} worker;

_Static_assert(sizeof(worker) <= sizeof((vmk_pressure *)0)->state, "the record has room for it");

static worker *worker_of(vmk_pressure *pressure)
{
    return (worker *)(void *)pressure->state;
}

/* False: it is over. After each call of the callback this may be a child that was made in it, where the record belongs
 * to whoever goes on there. */
static bool call_back(const worker *of, const vmk_pressure_options *options, const vmk_pressure_event *events,
                      unsigned count)
{
    uintptr_t forks = of->forks;
    for (unsigned i = 0; i < count; i++) {
        if (VMKI_LOAD_ACQUIRE(&of->stopping) != 0)
            return false;
        options->callback(&events[i], options->context);
        if (vmki_vm_forks() != forks)
            return false;
    }
    return true;
}

static void watch(void *argument)
{
    vmk_pressure *pressure = argument;
    worker *self = worker_of(pressure);
    vmk_pressure_options options = pressure->options;
    vmk_pressure_event events[VMK_BOUNDS];
    vmki_pressure_view view = {0};
    unsigned told = 0;
    VMKI_STORE_RELEASE(&self->id, vmki_os_thread_id());
    while (VMKI_LOAD_ACQUIRE(&self->stopping) == 0) {
        vmk_room room;
        vmk_room_now(&room);
        unsigned count = vmki_pressure_decide(&view, &room, told, vmki_os_clock(), &options, events);
        if (!call_back(self, &options, events, count))
            return;
        told = vmki_os_pressure_wait(&self->events, interval_of(&options));
    }
}

vmk_status vmk_pressure_start(vmk_pressure *pressure, const vmk_pressure_options *options)
{
    vmki_os_pressure events;
    if (options == NULL || options->callback == NULL)
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = vmki_os_pressure_open(&events);
    if (status != VMK_OK)
        return status;
    vmk_pressure made = {.options = *options};
    *worker_of(&made) = (worker){.forks = vmki_vm_forks(), .events = events};
    vmk_pressure kept = *pressure;
    *pressure = made; /* the thread works on it in place */
    pressure->seal = SEAL_LIVE;
    status = vmki_os_thread_start(&worker_of(pressure)->thread, watch, pressure);
    if (status != VMK_OK) {
        vmki_os_error reason = vmki_os_error_get();
        vmki_os_pressure_close(&events);
        *pressure = kept;
        vmki_os_error_set(reason);
        return status;
    }
    vmki_os_error_set(before);
    return VMK_OK;
}

void vmk_pressure_stop(vmk_pressure *pressure)
{
    if (VMKI_UNLIKELY(pressure->seal != SEAL_LIVE))
        vmki_misuse(pressure->seal == SEAL_DONE ? "vmk_pressure_stop: stopped before"
                                                : "vmk_pressure_stop: not started",
                    pressure);
    worker *of = worker_of(pressure);
    vmki_os_error before = vmki_os_error_get();
    if (of->forks == vmki_vm_forks()) {
        if (VMKI_UNLIKELY(VMKI_LOAD_ACQUIRE(&of->id) == vmki_os_thread_id()))
            vmki_misuse("vmk_pressure_stop: called by its own callback", pressure);
        VMKI_STORE_RELEASE(&of->stopping, 1);
        vmki_os_pressure_wake(&of->events);
        vmki_os_thread_join(&of->thread);
    }
    vmki_os_pressure_close(&of->events);
    pressure->seal = SEAL_DONE;
    vmki_os_error_set(before);
}
