/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery of exceptions and interrupts in protected mode without long mode: 8-byte gates of 16 or
 * 32 bits, and stacks from the TSS of protected mode (SDM vol. 3, 6.11 and 6.12). As in
 * exception.c, registers change last.
 *
 * Left out: task gates, virtual-8086 mode.
 */
#include "engine/soft/cpu/new_stack.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/cpu/segment.h"

#define GATE_TASK      5u
#define GATE_32_BIT    8u /* of the type; without it: 16 bits */
#define GATE_INTERRUPT 6u /* 16 bits */
#define GATE_TRAP      7u
#define GATE_PRESENT   BIT64(47)
#define FRAME_WORDS    6

struct gate {
	uint64_t offset;
	uint16_t selector;
	uint8_t bytes; /* of a word of the frame */
	bool masks;    /* interrupts are off behind it */
};

int soft_no_task_switch(struct engine_vcpu *vcpu, uint16_t selector)
{
	if (vcpu->cpl) /* a user may ask for one, and may not end the guest by it */
		return soft_raise_error(vcpu, VECTOR_TS, selector & 0xfffcu);
	vcpu->pending.kind = EXIT_FAILED;
	vcpu->pending.fail.reason = "task switches are not there (detail: the selector)";
	vcpu->pending.fail.detail = selector;
	return SOFT_EXIT;
}

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
	if (type == GATE_TASK)
		return soft_no_task_switch(vcpu, (uint16_t)(entry >> 16));
	*ret_gate = (struct gate){
		.offset = (entry & 0xffff) | (type & GATE_32_BIT ? entry >> 48 << 16 : 0),
		.selector = (uint16_t)(entry >> 16),
		.bytes = type & GATE_32_BIT ? 4 : 2,
		.masks = (type & ~GATE_32_BIT) == GATE_INTERRUPT,
	};
	return SOFT_OK;
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
		err = soft_segment_code(vcpu, gate.selector, SEGMENT_BY_GATE, &code, &cpl);
	if (err)
		return err;
	soft_new_stack_present(vcpu, &stack);
	if (cpl != vcpu->cpl) {
		err = soft_new_stack_inner(vcpu, cpl, &stack);
		frame[count++] = vcpu->state.segment[SEG_SS].selector;
		frame[count++] = vcpu->gpr[GPR_RSP];
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
	vcpu->state.segment[SEG_CS] = code;
	vcpu->rip = gate.offset;
	flags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (gate.masks ? FLAG_IF : 0));
	soft_set_rflags(vcpu, flags);
	return SOFT_OK;
}
