/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: far jumps, calls and returns, between code segments and between levels, and the call
 * gates (SDM vol. 3, 5.8; APM vol. 2, 4.11); and to a TSS or through a task gate into another task
 * (task_switch.c).
 */
#include "engine/soft/step/control.h"

#include "engine/soft/cpu/new_stack.h"
#include "engine/soft/cpu/segment.h"
#include "engine/soft/cpu/task_switch.h"

#define DESCRIPTOR_S	   BIT64(44)
#define DESCRIPTOR_PRESENT BIT64(47)
#define TYPE_TSS_16	   1u
#define TYPE_CALL_GATE_16  4u
#define TYPE_TASK_GATE	   5u
#define TYPE_TSS	   9u
#define TYPE_CALL_GATE	   12u	     /* of 32 bits; in long mode of 64 */
#define GATE_HIGH_TYPE	   0x1f00ull /* of the upper half; must be 0 */
#define PARAMETERS_MAX	   31u

/* Selector and offset of a far pointer operand. */
static int far_operand(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t *ret_selector,
		       uint64_t *ret_offset)
{
	const ZydisDecodedOperand *op = &step->insn->op[0];
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t linear, selector = 0;
	int err;

	if (op->type == ZYDIS_OPERAND_TYPE_POINTER) {
		*ret_selector = op->ptr.segment;
		*ret_offset = op->ptr.offset;
		return SOFT_OK;
	}
	*ret_offset = 0;
	err = soft_operand_linear(vcpu, step, op, false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, ret_offset, bytes);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear + bytes, &selector, 2);
	*ret_selector = (uint16_t)selector;
	return err;
}

struct call_gate {
	uint64_t offset;
	uint16_t selector;
	uint8_t parameters; /* words that move to the new stack */
	uint8_t bytes;	    /* of a word */
};

static int read_gate(struct engine_vcpu *vcpu, uint16_t selector, uint64_t low,
		     struct call_gate *ret_gate)
{
	bool wide = soft_long_mode(vcpu), small = (low >> 40 & 15) == TYPE_CALL_GATE_16;
	uint8_t dpl = low >> 45 & 3;
	uint64_t high = 0;
	int err;

	if (dpl < vcpu->cpl || dpl < (selector & 3))
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	if (!(low & DESCRIPTOR_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, selector & 0xfffcu);
	if (wide) {
		err = soft_segment_descriptor_high(vcpu, selector, &high);
		if (err)
			return err;
		if (high >> 32 & GATE_HIGH_TYPE)
			return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	}
	*ret_gate = (struct call_gate){
		.offset = (low & 0xffff) | (small ? 0 : low >> 48 << 16) | high << 32,
		.selector = (uint16_t)(low >> 16),
		.parameters = wide ? 0 : low >> 32 & PARAMETERS_MAX,
		.bytes = wide	 ? 8
			 : small ? 2
				 : 4,
	};
	return SOFT_OK;
}

/* The return address on the stack of this level; of an inner one, with the way back to ours. */
static int push_return(struct engine_vcpu *vcpu, const struct soft_step *step,
		       const struct call_gate *gate, uint8_t cpl, struct soft_new_stack *ret_stack)
{
	uint64_t word[PARAMETERS_MAX + 4];
	uint32_t count = 0, bytes = gate->bytes;
	int err = SOFT_OK;

	soft_new_stack_present(vcpu, ret_stack);
	if (cpl != vcpu->cpl) {
		err = soft_new_stack_inner(vcpu, cpl, ret_stack);
		word[count++] = vcpu->state.segment[SEG_SS].selector;
		word[count++] = vcpu->gpr[GPR_RSP];
		for (uint32_t i = gate->parameters; i-- > 0 && !err;)
			err = soft_stack_read(vcpu, i * bytes, bytes, &word[count++]);
	}
	word[count++] = vcpu->state.segment[SEG_CS].selector;
	word[count++] = step->next;
	return err ? err : soft_new_stack_push(vcpu, ret_stack, word, count, bytes);
}

static int go_through_gate(struct engine_vcpu *vcpu, struct soft_step *step,
			   const struct call_gate *gate, bool call)
{
	struct vcpu_segment_state code;
	struct soft_new_stack stack;
	uint8_t cpl;
	int err = soft_segment_code(vcpu, gate->selector,
				    call ? SEGMENT_BY_GATE : SEGMENT_BY_GATE_JUMP, &code, &cpl);

	if (!err)
		err = soft_segment_reaches(vcpu, &code, gate->offset);
	if (!err && call)
		err = push_return(vcpu, step, gate, cpl, &stack);
	if (err)
		return err;
	if (call)
		soft_new_stack_enter(vcpu, &stack);
	vcpu->state.segment[SEG_CS] = code;
	soft_update_mode(vcpu);
	vcpu->rip = gate->offset;
	step->jumped = true;
	return SOFT_OK;
}

/* By the descriptor of a TSS, or of a task gate. */
static int go_to_task(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t selector,
		      uint64_t descriptor, bool call)
{
	bool gate = (descriptor >> 40 & 15) == TYPE_TASK_GATE;
	const struct soft_task_switch how = {
		.way = call ? TASK_BY_CALL : TASK_BY_JUMP,
		.selector = gate ? (uint16_t)(descriptor >> 16) : selector,
		.return_rip = step->next,
		.flags = soft_rflags(vcpu) & ~FLAG_RF,
	};
	uint8_t dpl = descriptor >> 45 & 3;

	if (dpl < vcpu->cpl || dpl < (selector & 3))
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	if (gate && !(descriptor & DESCRIPTOR_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, selector & 0xfffcu);
	step->jumped = true;
	step->trap = false;
	return soft_task_switch(vcpu, &how);
}

/* The selector is of something else than a segment. */
static int go_by_system(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t selector,
			uint64_t descriptor, bool call)
{
	uint8_t type = descriptor >> 40 & 15;
	struct call_gate gate = { 0 };
	bool wide = soft_long_mode(vcpu);
	int err;

	if (type == TYPE_CALL_GATE || (type == TYPE_CALL_GATE_16 && !wide)) {
		err = read_gate(vcpu, selector, descriptor, &gate);
		return err ? err : go_through_gate(vcpu, step, &gate, call);
	}
	if (!wide && (type == TYPE_TASK_GATE || type == TYPE_TSS || type == TYPE_TSS_16))
		return go_to_task(vcpu, step, selector, descriptor, call);
	return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
}

/* To a code segment, at the same level. */
static int go_direct(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t selector,
		     uint64_t offset, bool call)
{
	uint32_t bytes = soft_operand_bytes(step);
	struct vcpu_segment_state code = vcpu->state.segment[SEG_CS];
	uint8_t cpl = vcpu->cpl;
	int err = SOFT_OK;

	if (soft_8086(vcpu)) {
		code.selector = selector;
		code.base = (uint64_t)selector << 4;
	} else {
		err = soft_segment_code(vcpu, selector, SEGMENT_BY_JUMP, &code, &cpl);
	}
	if (!err)
		err = soft_segment_reaches(vcpu, &code, offset);
	if (!err && call) {
		uint64_t rsp = vcpu->gpr[GPR_RSP];

		err = soft_stack_push(vcpu, bytes, vcpu->state.segment[SEG_CS].selector);
		if (!err)
			err = soft_stack_push(vcpu, bytes, step->next);
		if (err)
			vcpu->gpr[GPR_RSP] = rsp;
	}
	if (err)
		return err;
	vcpu->state.segment[SEG_CS] = code;
	soft_update_mode(vcpu);
	vcpu->rip = offset;
	step->jumped = true;
	return SOFT_OK;
}

int soft_jump_far(struct engine_vcpu *vcpu, struct soft_step *step, bool call)
{
	uint64_t offset, descriptor = 0;
	uint16_t selector;
	bool found = false;
	int err = far_operand(vcpu, step, &selector, &offset);

	if (!err && !soft_8086(vcpu))
		err = soft_segment_descriptor(vcpu, selector, &descriptor, &found);
	if (err)
		return err;
	if (found && !(descriptor & DESCRIPTOR_S))
		return go_by_system(vcpu, step, selector, descriptor, call);
	return go_direct(vcpu, step, selector, offset & soft_mask(soft_operand_bytes(step)), call);
}

int soft_return_far(struct engine_vcpu *vcpu, struct soft_step *step, uint64_t release)
{
	uint32_t bytes = soft_operand_bytes(step);
	struct vcpu_segment_state code = vcpu->state.segment[SEG_CS], stack;
	uint64_t offset, selector, rsp = 0, ss = 0;
	uint8_t cpl = vcpu->cpl;
	int err = soft_stack_read(vcpu, 0, bytes, &offset);

	if (!err)
		err = soft_stack_read(vcpu, bytes, bytes, &selector);
	if (err)
		return err;
	if (soft_8086(vcpu)) {
		code.selector = (uint16_t)selector;
		code.base = (selector & 0xffff) << 4;
	} else {
		err = soft_segment_code(vcpu, (uint16_t)selector, SEGMENT_BY_RETURN, &code, &cpl);
	}
	if (!err)
		err = soft_segment_reaches(vcpu, &code, offset);
	if (!err && cpl != vcpu->cpl) {
		err = soft_stack_read(vcpu, 2 * bytes + (uint32_t)release, bytes, &rsp);
		if (!err)
			err = soft_stack_read(vcpu, 3 * bytes + (uint32_t)release, bytes, &ss);
		if (!err)
			err = soft_segment_stack(vcpu, (uint16_t)ss, cpl, &stack);
	}
	if (err)
		return err;
	if (cpl != vcpu->cpl) {
		soft_stack_outer(vcpu, &stack, rsp + release);
		soft_segment_leave(vcpu, cpl);
	} else {
		soft_stack_move(vcpu, 2 * (int64_t)bytes + (int64_t)release);
	}
	vcpu->state.segment[SEG_CS] = code;
	vcpu->cpl = cpl;
	soft_update_mode(vcpu);
	vcpu->rip = offset;
	step->jumped = true;
	return SOFT_OK;
}
