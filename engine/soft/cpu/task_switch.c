/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Task switches by hardware, between TSSs of 32 and of 16 bits (SDM vol. 3, 7.2 and 7.3; APM vol.
 * 2, 12.2 and 12.3). Long mode has none: there whatever asks for one faults.
 *
 *   checks    the TSS that is gone to: in the GDT, busy or not, present, long enough. Faults are
 *             the old task's
 *   touch     everything that will be written, so that it is writable and on this node
 *   save      the old task's registers into its TSS, the link into the new one's; what the new one
 *             has is read. All of it can be done twice
 *   commit    busy bits, then the registers. Nothing faults, nothing waits
 *   settle    LDT and segments, an error code onto the new stack. Faults are the new task's
 *
 * The first four are one step; a signal that breaks it off before it commits lets it start anew. The
 * last one may wait for pages, too, and cannot go back any more: so vcpu->task says that it is due,
 * and each turn of the loop, and saving the vCPU, begins with it until it is through.
 *
 * Where the manuals leave it open: segments are loaded in the order LDTR, CS, SS, ES, DS, FS, GS;
 * until SS is loaded the level is 3, so that an exception gets a stack from the new TSS; general
 * registers out of a 16-bit TSS have ones in their upper halves; exceptions behind the commit are
 * no part of what was delivered, so they make no double fault with it.
 *
 * Left out: a TSS or a descriptor table in a device's memory (the vCPU fails).
 *
 * Tested by tests/engine/system_tasks.S.
 */
#include "engine/soft/cpu/task_switch.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mmu.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/cpu/new_stack.h"
#include "engine/soft/cpu/segment.h"
#include "engine/soft/tlb/tlb.h"

#define TYPE_32_BIT	   8u
#define TYPE_TSS	   1u /* of 16 bits */
#define TYPE_BUSY	   2u
#define SELECTOR_LDT	   4u
#define DESCRIPTOR_PRESENT BIT64(47)
#define DESCRIPTOR_BUSY	   BIT64(41)
#define TASK_GPRS	   8
#define TASK_SEGMENTS	   6
#define TSS_BYTES	   104
#define DR7_LOCAL	   0x155ull /* L0 to L3, LE */
#define DR6_TASK	   BIT64(15)

/* Where things are in a TSS. */
struct layout {
	uint8_t word; /* bytes of a register, and from one selector to the next */
	uint8_t rip, flags, gpr, segment, ldt;
	uint8_t segments; /* selectors that it has */
	uint8_t limit;	  /* at least */
};
static const struct layout layout_32 = { 4, 0x20, 0x24, 0x28, 0x48, 0x60, 6, 0x67 };
static const struct layout layout_16 = { 2, 0x0e, 0x10, 0x12, 0x22, 0x2a, 4, 0x2b };
#define LINK_AT 0
#define CR3_AT	0x1c
#define TRAP_AT 0x64

struct task {
	const struct layout *layout;
	struct vcpu_segment_state tss;
	uint64_t descriptor; /* its address */
	uint8_t image[TSS_BYTES];
};

static const struct layout *layout_of(const struct vcpu_segment_state *tss)
{
	return tss->attributes & TYPE_32_BIT ? &layout_32 : &layout_16;
}

static uint64_t field(const struct task *task, uint32_t at, uint32_t bytes)
{
	uint64_t value = 0;

	for (uint32_t i = bytes; i-- > 0;)
		value = value << 8 | task->image[at + i];
	return value;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static int find_task(struct engine_vcpu *vcpu, const struct soft_task_switch *how,
		     struct task *ret_task)
{
	uint8_t bad = how->way == TASK_BY_RETURN ? VECTOR_TS : VECTOR_GP;
	uint8_t wanted = TYPE_TSS | (how->way == TASK_BY_RETURN ? TYPE_BUSY : 0);
	uint32_t error = how->selector & 0xfffcu;
	uint64_t descriptor = 0;
	bool found;
	int err;

	if (how->selector & SELECTOR_LDT)
		return soft_raise_error(vcpu, bad, error);
	err = soft_segment_descriptor(vcpu, how->selector, &descriptor, &found);
	if (err)
		return err;
	if (!found || (descriptor >> 40 & 0x1f & ~TYPE_32_BIT) != wanted)
		return soft_raise_error(vcpu, bad, error);
	if (!(descriptor & DESCRIPTOR_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, error);
	soft_segment_decode(how->selector, descriptor, &ret_task->tss);
	ret_task->layout = layout_of(&ret_task->tss);
	ret_task->descriptor = vcpu->state.gdt.base + (how->selector & ~7u);
	if (ret_task->tss.limit < ret_task->layout->limit)
		return soft_raise_error(vcpu, VECTOR_TS, error);
	return SOFT_OK;
}

/* ---- touch ----------------------------------------------------------------------------------- */

static int fail_device(struct engine_vcpu *vcpu, uint64_t detail)
{
	vcpu->open = OPEN_NONE;
	vcpu->pending.kind = EXIT_FAILED;
	vcpu->pending.fail.reason = "a task switch by a device's memory (detail: where)";
	vcpu->pending.fail.detail = detail;
	return SOFT_EXIT;
}

/* Two pages at most; those that are written are writable and here. */
static int touch(struct engine_vcpu *vcpu, uint64_t linear, uint32_t bytes, bool write)
{
	const uint64_t at[] = { linear, linear + bytes - 1 };

	for (int i = 0; i < 2; i++) {
		struct soft_page page;
		int err = soft_translate(vcpu, VIEW_KERNEL, at[i],
					 write ? ACCESS_WRITE : ACCESS_READ, &page);

		if (err)
			return err;
		if (!page.host)
			return fail_device(vcpu, page.gpa);
		if (write)
			soft_touch(page.host);
	}
	return SOFT_OK;
}

static int touch_all(struct engine_vcpu *vcpu, const struct soft_task_switch *how,
		     const struct task *old, const struct task *task)
{
	uint32_t from = old->layout->rip;
	int err = touch(vcpu, task->tss.base, task->layout->limit + 1u, false);

	if (!err && how->way == TASK_BY_CALL)
		err = touch(vcpu, task->tss.base + LINK_AT, 2, true);
	if (!err)
		err = touch(vcpu, old->tss.base + from, old->layout->ldt - from, true);
	if (!err && how->way != TASK_BY_CALL)
		err = touch(vcpu, old->descriptor, 8, true);
	if (!err && how->way != TASK_BY_RETURN)
		err = touch(vcpu, task->descriptor, 8, true);
	return err;
}

/* ---- save ------------------------------------------------------------------------------------ */

static int put(struct engine_vcpu *vcpu, const struct task *task, uint32_t at, uint64_t value,
	       uint32_t bytes)
{
	return soft_write(vcpu, VIEW_KERNEL, task->tss.base + at, &value, bytes);
}

static int save_old(struct engine_vcpu *vcpu, const struct soft_task_switch *how,
		    const struct task *old)
{
	const struct layout *layout = old->layout;
	int err = put(vcpu, old, layout->rip, how->return_rip, layout->word);

	if (!err)
		err = put(vcpu, old, layout->flags, how->flags, layout->word);
	for (uint32_t i = 0; i < TASK_GPRS && !err; i++)
		err = put(vcpu, old, layout->gpr + i * layout->word, vcpu->gpr[i], layout->word);
	for (uint32_t i = 0; i < layout->segments && !err; i++)
		err = put(vcpu, old, layout->segment + i * layout->word,
			  vcpu->state.segment[i].selector, 2);
	return err;
}

/* ---- commit ---------------------------------------------------------------------------------- */

static int set_busy(struct engine_vcpu *vcpu, const struct task *task, bool busy)
{
	uint64_t descriptor = 0;
	int err = soft_read(vcpu, VIEW_KERNEL, task->descriptor, &descriptor, 8);

	descriptor = (descriptor & ~DESCRIPTOR_BUSY) | (busy ? DESCRIPTOR_BUSY : 0);
	return err ? err : soft_write(vcpu, VIEW_KERNEL, task->descriptor, &descriptor, 8);
}

/* Not to be done twice: the second time the one is not busy, or the other is. */
static int pass_on(struct engine_vcpu *vcpu, const struct soft_task_switch *how,
		   const struct task *old, const struct task *task)
{
	int err = SOFT_OK;

	vcpu->committing = true;
	if (how->way != TASK_BY_CALL)
		err = set_busy(vcpu, old, false);
	if (!err && how->way != TASK_BY_RETURN)
		err = set_busy(vcpu, task, true);
	vcpu->committing = false;
	return err;
}

static void enter_registers(struct engine_vcpu *vcpu, const struct soft_task_switch *how,
			    const struct task *task)
{
	const struct layout *layout = task->layout;
	uint64_t flags = field(task, layout->flags, layout->word);

	for (uint32_t i = 0; i < TASK_GPRS; i++)
		vcpu->gpr[i] = field(task, layout->gpr + i * layout->word, layout->word) |
			       (layout->word == 2 ? 0xffff0000 : 0);
	vcpu->rip = field(task, layout->rip, layout->word);
	if (how->way == TASK_BY_CALL)
		flags |= FLAG_NT;
	vcpu->shadow = 0;
	if (vcpu->stepping)
		vcpu->iret_done = true; /* RF is as the TSS has it */
	soft_set_rflags(vcpu, flags);
}

/* Selectors alone: there is no segment behind them until they are loaded. */
static void enter_selectors(struct engine_vcpu *vcpu, const struct task *task)
{
	const struct layout *layout = task->layout;

	for (uint32_t i = 0; i < TASK_SEGMENTS; i++) {
		uint64_t selector = 0;

		if (i < layout->segments)
			selector = field(task, layout->segment + i * layout->word, 2);
		soft_segment_set_base(vcpu, (enum vcpu_segment)i, 0);
		soft_segment_null(&vcpu->state.segment[i], (uint16_t)selector);
	}
	vcpu->state.segment[SEG_SS].attributes = 3 << 5; /* the level, for who saves this */
	soft_segment_null(&vcpu->state.segment[SEG_LDTR], (uint16_t)field(task, layout->ldt, 2));
}

static void enter(struct engine_vcpu *vcpu, const struct soft_task_switch *how,
		  const struct task *task)
{
	struct vcpu_state *state = &vcpu->state;
	bool wide = task->layout == &layout_32;

	state->segment[SEG_TR] = task->tss;
	state->segment[SEG_TR].attributes |= TYPE_BUSY;
	state->cr0 |= CR0_TS;
	state->dr7 &= ~DR7_LOCAL;
	if (wide && (state->cr0 & CR0_PG)) {
		state->cr3 = field(task, CR3_AT, 4);
		soft_tlb_flush(vcpu, false);
	}
	enter_selectors(vcpu, task);
	vcpu->cpl = 3;
	enter_registers(vcpu, how, task);
	vcpu->task.due = true;
	vcpu->task.trap = wide && (field(task, TRAP_AT, 2) & 1);
	vcpu->task.external = how->external;
	vcpu->task.error_bytes = how->has_error ? task->layout->word : 0;
	vcpu->task.error = how->error;
}

int soft_task_switch(struct engine_vcpu *vcpu, const struct soft_task_switch *how)
{
	const struct vcpu_segment_state *tr = &vcpu->state.segment[SEG_TR];
	struct task old = { .tss = *tr, .layout = layout_of(tr) }, task = { 0 };
	uint64_t link = tr->selector;
	int err = find_task(vcpu, how, &task);

	if (err)
		return err;
	old.descriptor = vcpu->state.gdt.base + (tr->selector & ~7u);
	if (tr->limit < old.layout->ldt - 1u)
		return soft_raise_error(vcpu, VECTOR_TS, tr->selector & 0xfffcu);
	err = touch_all(vcpu, how, &old, &task);
	if (!err)
		err = save_old(vcpu, how, &old);
	if (!err && how->way == TASK_BY_CALL)
		err = put(vcpu, &task, LINK_AT, link, 2);
	if (!err) /* behind the save: it may be the same TSS */
		err = soft_read(vcpu, VIEW_KERNEL, task.tss.base, task.image,
				task.layout->limit + 1u);
	if (!err)
		err = pass_on(vcpu, how, &old, &task);
	if (!err)
		enter(vcpu, how, &task);
	return err;
}

int soft_task_return(struct engine_vcpu *vcpu, uint64_t return_rip)
{
	struct soft_task_switch how = {
		.way = TASK_BY_RETURN,
		.return_rip = return_rip,
		.flags = soft_rflags(vcpu) & ~FLAG_NT,
	};
	uint64_t link = 0;
	int err =
		soft_read(vcpu, VIEW_KERNEL, vcpu->state.segment[SEG_TR].base + LINK_AT, &link, 2);

	how.selector = (uint16_t)link;
	return err ? err : soft_task_switch(vcpu, &how);
}

/* ---- settle ---------------------------------------------------------------------------------- */

static int load_segments(struct engine_vcpu *vcpu)
{
	static const enum vcpu_segment order[] = { SEG_CS, SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	struct vcpu_segment_state *segment = vcpu->state.segment;
	int err = soft_segment_of_task(vcpu, SEG_LDTR, segment[SEG_LDTR].selector);

	for (int i = 0; i < TASK_SEGMENTS && !err; i++) {
		enum vcpu_segment which = order[i];
		uint16_t selector = segment[which].selector;

		if (soft_virtual_8086(vcpu))
			soft_segment_8086(vcpu, which, selector);
		else
			err = soft_segment_of_task(vcpu, which, selector);
		if (!err && which == SEG_SS && !soft_virtual_8086(vcpu)) {
			vcpu->cpl = segment[SEG_CS].selector & 3;
			soft_update_mode(vcpu);
		}
	}
	return err;
}

static int push_error(struct engine_vcpu *vcpu)
{
	uint64_t error = vcpu->task.error;
	struct soft_new_stack stack;
	int err;

	soft_new_stack_present(vcpu, &stack);
	err = soft_new_stack_push(vcpu, &stack, &error, 1, vcpu->task.error_bytes);
	if (!err)
		soft_new_stack_enter(vcpu, &stack);
	return err;
}

int soft_task_settle(struct engine_vcpu *vcpu)
{
	int err = load_segments(vcpu);

	if (!err && vcpu->task.error_bytes)
		err = push_error(vcpu);
	if (err == SOFT_EXIT)
		return fail_device(vcpu, vcpu->rip);
	vcpu->task.due = false;
	if (err) {
		soft_keep_fault(vcpu, vcpu->task.external);
	} else if (vcpu->task.trap) {
		vcpu->debug_hits = (uint32_t)DR6_TASK;
		vcpu->debug_pending = true;
	}
	return SOFT_OK;
}
