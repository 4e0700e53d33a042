/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery of exceptions and interrupts in protected mode without long mode: 8-byte gates of 16 or
 * 32 bits, and stacks from the TSS of protected mode (SDM vol. 3, 6.11 and 6.12). As in
 * exception.c, registers change last.
 *
 * From virtual-8086 mode they lead to level 0 only, with the data segments on the stack as well
 * (SDM vol. 3, 20.3.1). Task gates: task_switch.c.
 */
#include "engine/soft/cpu/new_stack.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/cpu/segment.h"
#include "engine/soft/cpu/task_switch.h"

#define GATE_TASK      5u
#define GATE_32_BIT    8u /* of the type; without it: 16 bits */
#define GATE_INTERRUPT 6u /* 16 bits */
#define GATE_TRAP      7u
#define GATE_PRESENT   BIT64(47)
#define FRAME_WORDS    10

struct gate {
	uint64_t offset;
	uint16_t selector;
	uint8_t bytes; /* of a word of the frame */
	bool masks;    /* interrupts are off behind it */
	bool task;     /* the selector is a TSS's */
};

static int read_gate(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
		     struct gate *ret_gate)
{
	const struct vcpu_table_state *idt = &vcpu->state.idt;
	uint32_t error = vector * 8u + ERROR_IDT;
	uint64_t entry = 0;
	uint8_t type;
	int err;

	if (vector * 8u + 7 > idt->limit)
		return soft_raise_error(vcpu, VECTOR_GP, error);
	err = soft_read(vcpu, VIEW_KERNEL, idt->base + vector * 8u, &entry, 8);
	if (err)
		return err;
	type = entry >> 40 & 0x1f;
	if (((type & ~GATE_32_BIT) != GATE_INTERRUPT && (type & ~GATE_32_BIT) != GATE_TRAP &&
	     type != GATE_TASK) ||
	    (event == EVENT_SOFT && (entry >> 45 & 3) < vcpu->cpl))
		return soft_raise_error(vcpu, VECTOR_GP, error);
	if (!(entry & GATE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, error);
	*ret_gate = (struct gate){
		.offset = (entry & 0xffff) | (type & GATE_32_BIT ? entry >> 48 << 16 : 0),
		.selector = (uint16_t)(entry >> 16),
		.bytes = type & GATE_32_BIT ? 4 : 2,
		.masks = (type & ~GATE_32_BIT) == GATE_INTERRUPT,
		.task = type == GATE_TASK,
	};
	return SOFT_OK;
}

/* Into a task; what is raised there goes on as it does behind any gate. */
static int deliver_task(struct engine_vcpu *vcpu, const struct gate *gate, enum soft_event event,
			bool has_error, uint32_t error, uint64_t return_rip)
{
	const struct soft_task_switch how = {
		.way = TASK_BY_CALL,
		.selector = gate->selector,
		.return_rip = return_rip,
		.flags = soft_rflags(vcpu) | (event == EVENT_EXCEPTION ? vcpu->resume_flag : 0),
		.external = event != EVENT_SOFT,
		.has_error = has_error,
		.error = error,
	};

	return soft_task_switch(vcpu, &how);
}

/* What comes above the flags on an inner stack. The number of words. */
static uint32_t outer_frame(const struct engine_vcpu *vcpu, uint64_t *frame)
{
	static const enum vcpu_segment data[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	uint32_t count = 0;

	for (int i = 0; i < 4 && soft_virtual_8086(vcpu); i++)
		frame[count++] = vcpu->state.segment[data[i]].selector;
	frame[count++] = vcpu->state.segment[SEG_SS].selector;
	frame[count++] = vcpu->gpr[GPR_RSP];
	return count;
}

static void leave_virtual_8086(struct engine_vcpu *vcpu)
{
	static const enum vcpu_segment data[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };

	for (int i = 0; i < 4; i++)
		soft_segment_null(&vcpu->state.segment[data[i]], 0);
}

int soft_deliver_protected(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
			   bool has_error, uint32_t error, uint64_t return_rip)
{
	uint64_t frame[FRAME_WORDS], flags = soft_rflags(vcpu);
	struct vcpu_segment_state code;
	struct soft_new_stack stack;
	uint32_t count = 0;
	struct gate gate = { 0 };
	uint8_t cpl;
	int err = read_gate(vcpu, vector, event, &gate);

	if (!err)
		err = gate.task ? deliver_task(vcpu, &gate, event, has_error, error, return_rip)
				: soft_segment_code(vcpu, gate.selector, SEGMENT_BY_GATE, &code,
						    &cpl);
	if (err || gate.task)
		return err;
	if (soft_virtual_8086(vcpu) && cpl)
		return soft_raise_error(vcpu, VECTOR_GP, gate.selector & 0xfffcu);
	soft_new_stack_present(vcpu, &stack);
	if (cpl != vcpu->cpl) {
		err = soft_new_stack_inner(vcpu, cpl, &stack);
		count = outer_frame(vcpu, frame);
	}
	frame[count++] = flags | (event == EVENT_EXCEPTION ? vcpu->resume_flag : 0);
	frame[count++] = vcpu->state.segment[SEG_CS].selector;
	frame[count++] = return_rip;
	if (has_error)
		frame[count++] = error;
	if (!err)
		err = soft_segment_reaches(vcpu, &code, gate.offset);
	if (!err)
		err = soft_new_stack_push(vcpu, &stack, frame, count, gate.bytes);
	if (err)
		return err;
	soft_new_stack_enter(vcpu, &stack);
	if (soft_virtual_8086(vcpu))
		leave_virtual_8086(vcpu);
	vcpu->state.segment[SEG_CS] = code;
	vcpu->rip = gate.offset;
	flags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (gate.masks ? FLAG_IF : 0));
	soft_set_rflags(vcpu, flags);
	return SOFT_OK;
}
