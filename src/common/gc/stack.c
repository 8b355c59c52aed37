/* SPDX-License-Identifier: MIT
 *
 * Stacks: what was in registers when they were left; those of coroutines; visiting all that threads have.
 *
 * Where a thread is, its stack pointer tells, not what it has said last. Between vmk_gc_stack_switch and the change of
 * stacks itself it says that it is on the one and is on the other. Wherever it is, that stack is visited from its stack
 * pointer on; all others from where they were left, with the registers that were noted then. Since a change of stacks
 * may restore registers last of all, from memory that nobody scans (a ucontext_t, Windows' fibers), the note is good
 * until the thread proves to be on the stack again, by calling a function of this library there.
 */
#include <string.h>

#include "common/base/check.h"
#include "common/base/align.h"
#include "common/gc/mutator.h"

enum { ROOM = 512 }; /* what functions between a switch and the change of stacks may put there */

static size_t saved_words; /* that vmki_os_registers_save writes */

/* --- notes -------------------------------------------------------------------------------------------------------- */

VMKI_READS_ANYTHING static void *frame_below(void)
{
    return VMKI_FRAME_ADDRESS();
}

/* With room below the caller's frame that can be read. */
VMKI_READS_ANYTHING static void *frame_far_below(void)
{
    volatile unsigned char room[ROOM];
    room[0] = 0;
    void *frame = frame_below();
    room[ROOM - 1] = room[0];
    return frame;
}

static bool stack_has(const vmk_gc_stack *stack, const void *address)
{
    return (uintptr_t)address >= (uintptr_t)stack->low && (uintptr_t)address < (uintptr_t)stack->high;
}

/* Which of its bytes does it write? Those that change, whatever was there. */
void vmki_left_prepare(void)
{
    _Alignas(16) unsigned char registers[VMKI_OS_REGISTERS];
    size_t most = 0;
    for (int pattern = 0; pattern <= 0xff; pattern += 0xff) {
        memset(registers, pattern, sizeof registers);
        vmki_os_registers_save(registers);
        for (size_t i = most; i < sizeof registers; i++)
            if (registers[i] != pattern)
                most = i + 1;
    }
    saved_words = (most + sizeof(uintptr_t) - 1) / sizeof(uintptr_t);
    VMKI_ASSERT(saved_words < VMKI_LEFT_WORDS);
}

/* A register is where it was, or a function between the caller's and this one has put it into its frame. */
VMKI_READS_ANYTHING void *vmki_left_note(vmki_mutator *mutator, vmki_left *left, void *frame)
{
    vmki_os_registers_save(mutator->os.registers);
    uintptr_t low = (uintptr_t)frame_below(), high = (uintptr_t)frame + VMKI_FRAME_SAVES * sizeof(uintptr_t);
    if (stack_has(mutator->stack, frame) && high > (uintptr_t)mutator->stack->high)
        high = (uintptr_t)mutator->stack->high;
    const volatile uintptr_t *words = (const volatile uintptr_t *)vmki_floor(low, sizeof(uintptr_t));
    size_t count = (high - (uintptr_t)words) / sizeof(uintptr_t);
    VMKI_ASSERT(low < (uintptr_t)frame && count <= VMKI_LEFT_WORDS - saved_words);
    memcpy(left->words, mutator->os.registers, saved_words * sizeof(uintptr_t));
    for (size_t i = 0; i < count; i++)
        left->words[saved_words + i] = words[i];
    left->count = saved_words + count;
    if (left == &mutator->left && stack_has(mutator->stack, frame))
        mutator->stack->left.count = 0;
    return (void *)words;
}

/* --- stacks of coroutines ----------------------------------------------------------------------------------------- */

void vmki_stack_leave(vmki_mutator *mutator, void *frame)
{
    vmk_gc_stack *stack = mutator->stack;
    (void)vmki_left_note(mutator, &stack->left, frame);
    void *sp = frame_far_below();
    stack->sp = stack_has(stack, sp) ? sp : stack_has(stack, frame) ? stack->low : stack->sp;
    VMKI_STORE_RELAXED(&stack->mutator, NULL);
}

void vmki_stack_clear(vmk_gc_stack *stack)
{
    stack->sp = stack->high;
    stack->left.count = 0;
    VMKI_STORE_RELAXED(&stack->mutator, NULL);
}

vmk_status vmk_gc_stack_register(vmk_gc_stack **result, void *low, size_t size)
{
    size_t unused;
    if (low == NULL || size == 0 || !vmki_is_aligned((uintptr_t)low | size, sizeof(void *)) ||
        vmki_add_overflow((uintptr_t)low, size, &unused))
        return VMK_ERR_ARGUMENT;
    vmki_os_error before = vmki_os_error_get();
    vmk_status status = VMK_OK;
    vmki_world *world = &vmki_the_world;
    vmki_world_lock();
    vmk_gc_stack *stack = world->spare_stacks;
    if (stack != NULL)
        world->spare_stacks = stack->next;
    else
        stack = vmki_pool_take(&world->pool_of_stacks, sizeof *stack, &status);
    if (stack != NULL) {
        memset(stack, 0, offsetof(vmk_gc_stack, left) + offsetof(vmki_left, words));
        stack->low = low;
        stack->high = stack->sp = (unsigned char *)low + size;
        stack->next = world->stacks;
        if (stack->next != NULL)
            stack->next->previous = stack;
        world->stacks = stack;
    }
    vmki_world_unlock();
    if (stack == NULL)
        return status;
    vmki_os_error_set(before);
    *result = stack;
    return VMK_OK;
}

/* Under the lock. */
static void stack_unlink(vmk_gc_stack *stack)
{
    if (stack->previous != NULL)
        stack->previous->next = stack->next;
    else
        vmki_the_world.stacks = stack->next;
    if (stack->next != NULL)
        stack->next->previous = stack->previous;
    stack->low = stack->high = NULL;
    stack->next = vmki_the_world.spare_stacks;
    vmki_the_world.spare_stacks = stack;
}

void vmk_gc_stack_unregister(vmk_gc_stack *stack)
{
    if (stack == NULL)
        vmki_misuse("vmk_gc_stack_unregister: not a registered stack", NULL);
    vmki_world_lock();
    bool live = stack->low != NULL, used = live && VMKI_LOAD_RELAXED(&stack->mutator) != NULL;
    if (live && !used)
        stack_unlink(stack);
    vmki_world_unlock();
    if (!live || used)
        vmki_misuse(live ? "vmk_gc_stack_unregister: a thread runs on the stack"
                         : "vmk_gc_stack_unregister: not a registered stack",
                    stack);
}

/* A thread that isn't registered has nothing on its stacks that anybody would look for. */
void vmk_gc_stack_switch(vmk_gc_stack *to)
{
    vmki_mutator *self = vmki_mutator_self();
    if (self == NULL)
        return;
    if (to == NULL)
        to = &self->own;
    if (to->low == NULL)
        vmki_misuse("vmk_gc_stack_switch: not a registered stack", to);
    if (to == self->stack)
        return;
    if (VMKI_LOAD_RELAXED(&to->mutator) != NULL)
        vmki_misuse("vmk_gc_stack_switch: a thread runs on the stack", to);
    vmki_mutator_enter(self);
    vmki_stack_leave(self, VMKI_FRAME_ADDRESS());
    VMKI_STORE_RELAXED(&to->mutator, self);
    self->stack = to;
    vmki_mutator_leave(self);
}

/* --- visiting ----------------------------------------------------------------------------------------------------- */

typedef struct visit {
    vmki_thread_visitor *visit;
    void *context;
    vmk_gc_root kind;
    const vmki_mutator *mutator;
} visit;

static void visit_range(void *context, const void *base, size_t size)
{
    visit *v = context;
    v->visit(v->context, v->kind, v->mutator, base, size);
}

static void visit_from(visit *v, const void *from, const void *to)
{
    uintptr_t low = vmki_ceil((uintptr_t)from, sizeof(uintptr_t)), high = vmki_floor((uintptr_t)to, sizeof(uintptr_t));
    if (low >= high)
        return;
    v->kind = VMK_GC_ROOT_STACK;
    visit_range(v, (const void *)low, high - low);
}

static void visit_left(visit *v, const vmki_left *left)
{
    if (left->count == 0)
        return;
    v->kind = VMK_GC_ROOT_REGISTERS;
    visit_range(v, left->words, left->count * sizeof(uintptr_t));
}

/* Where on it something may be isn't known. */
static void visit_whole(visit *v, vmk_gc_stack *stack)
{
    stack->seen = true;
    visit_left(v, &stack->left);
    v->kind = VMK_GC_ROOT_STACK;
    vmki_os_stack_touched(stack->low, stack->high, visit_range, v);
}

static vmk_gc_stack *stack_at(vmki_mutator *mutator, const void *sp)
{
    if (stack_has(mutator->stack, sp))
        return mutator->stack;
    if (stack_has(&mutator->own, sp))
        return &mutator->own;
    for (vmk_gc_stack *stack = vmki_the_world.stacks; stack != NULL; stack = stack->next)
        if (stack_has(stack, sp))
            return stack;
    return NULL;
}

/* On an alternate signal stack, or one that nobody has registered, where it was before isn't known; of the latter its
 * end isn't either, so no more than the page is visited. */
static void visit_stacks(visit *v, vmki_mutator *mutator)
{
    const void *sp = mutator->sp;
    bool alternate = mutator->stands == VMKI_STANDS_HERE && mutator->alternate &&
                     (uintptr_t)sp >= (uintptr_t)mutator->alternate_low &&
                     (uintptr_t)sp < (uintptr_t)mutator->alternate_high;
    vmk_gc_stack *stack = alternate ? NULL : stack_at(mutator, sp);
    mutator->own.seen = false;
    if (stack != NULL) {
        stack->seen = true;
        visit_left(v, &stack->left);
        visit_from(v, sp, stack->high);
    } else {
        visit_from(v, sp,
                   alternate ? mutator->alternate_high : (const void *)vmki_ceil((uintptr_t)sp + 1, vmk_page_size()));
        visit_whole(v, mutator->stack);
    }
    if (!mutator->own.seen) {
        visit_left(v, &mutator->own.left);
        visit_from(v, mutator->own.sp, mutator->own.high);
    }
}

static void visit_mutator(visit *v, vmki_mutator *mutator)
{
    v->mutator = mutator;
    if (!vmki_mutator_is_there(mutator))
        return;
    if (mutator->stands == VMKI_STANDS_NOTED)
        visit_left(v, &mutator->left);
    if (mutator->stands == VMKI_STANDS_SUSPENDED) {
        v->kind = VMK_GC_ROOT_REGISTERS;
        visit_range(v, mutator->os.registers, sizeof mutator->os.registers);
    }
    visit_stacks(v, mutator);
    v->kind = VMK_GC_ROOT_THREAD_DATA;
    vmki_os_thread_data(&mutator->os, visit_range, v);
}

void vmki_world_visit(vmki_thread_visitor *visitor, void *context)
{
    visit v = {.visit = visitor, .context = context};
    for (vmk_gc_stack *stack = vmki_the_world.stacks; stack != NULL; stack = stack->next)
        stack->seen = false;
    for (vmki_mutator *mutator = vmki_the_world.first; mutator != NULL; mutator = mutator->next)
        visit_mutator(&v, mutator);
    v.mutator = NULL;
    for (vmk_gc_stack *stack = vmki_the_world.stacks; stack != NULL; stack = stack->next) {
        if (stack->seen)
            continue;
        visit_left(&v, &stack->left);
        visit_from(&v, stack->sp, stack->high);
    }
}
