/* SPDX-License-Identifier: MIT
 *
 * Memory pressure of the model OS: bounds as the tests set them, and events as they tell them. Who waits yields until
 * it is told, woken, or out of patience.
 */
#include "common/base/os_service.h"
#include "model/model_private.h"

enum { IS_OPEN, WOKEN };

static vmk_room set_room; /* 0 in a bound: there is none */
static unsigned told;
static size_t opened, looks;

void model_room_set(vmk_bound bound, uint64_t left, uint64_t limit)
{
    model_lock();
    set_room.left[bound] = left;
    set_room.bound[bound] = limit;
    model_unlock();
}

void model_pressure_tell(unsigned bounds)
{
    model_lock();
    told |= bounds;
    model_unlock();
}

size_t model_pressure_opened(void)
{
    model_lock();
    size_t count = opened;
    model_unlock();
    return count;
}

size_t model_pressure_looks(void)
{
    model_lock();
    size_t count = looks;
    model_unlock();
    return count;
}

void vmki_os_room(vmk_room *room)
{
    model_lock();
    looks++;
    for (size_t i = VMK_BOUND_MEMORY; i < VMK_BOUNDS; i++)
        if (set_room.bound[i] != 0) {
            room->left[i] = set_room.left[i];
            room->bound[i] = set_room.bound[i];
        }
    model_unlock();
}

vmk_status vmki_os_pressure_open(vmki_os_pressure *pressure)
{
    vmk_status status = VMK_OK;
    model_lock();
    if (!model_planned(&status)) {
        *pressure = (vmki_os_pressure){.state = {[IS_OPEN] = 1}};
        opened++;
    }
    model_unlock();
    return status;
}

unsigned vmki_os_pressure_wait(vmki_os_pressure *pressure, unsigned milliseconds)
{
    uint64_t until = vmki_os_clock() + (uint64_t)milliseconds * 1000000;
    for (;;) {
        model_lock();
        unsigned bounds = told;
        bool over = pressure->state[WOKEN] != 0 || bounds != 0 || vmki_os_clock() >= until;
        if (over)
            told = 0;
        if (pressure->state[IS_OPEN] == 0)
            model_violate("pressure_wait", "not open", 0);
        pressure->state[WOKEN] = 0;
        model_unlock();
        if (over)
            return bounds;
        vmki_os_yield();
    }
}

void vmki_os_pressure_wake(vmki_os_pressure *pressure)
{
    model_lock();
    pressure->state[WOKEN] = 1;
    model_unlock();
}

void vmki_os_pressure_close(vmki_os_pressure *pressure)
{
    model_lock();
    if (pressure->state[IS_OPEN] == 0)
        model_violate("pressure_close", "not open", 0);
    else
        opened--;
    pressure->state[IS_OPEN] = 0;
    model_unlock();
}

void vmki_os_probe_pressure(vmk_caps *caps)
{
    caps->features |= VMK_CAP_PRESSURE;
}
