/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: far jumps, calls and returns, between code segments and between levels.
 *
 * Left out: call gates, task switches.
 */
#include "engine/soft/step_control.h"

#include "engine/soft/segment.h"

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

static int go_far(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t selector,
		  uint64_t offset, bool call)
{
	uint32_t bytes = soft_operand_bytes(step);
	struct vcpu_segment_state code = vcpu->state.segment[SEG_CS];
	uint8_t cpl = vcpu->cpl;
	int err = SOFT_OK;

	if (soft_real_mode(vcpu)) {
		code.selector = selector;
		code.base = (uint64_t)selector << 4;
	} else {
		err = soft_segment_code(vcpu, selector, SEGMENT_BY_JUMP, &code, &cpl);
	}
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
	vcpu->rip = offset & soft_mask(bytes);
	step->jumped = true;
	return SOFT_OK;
}

int soft_jump_far(struct engine_vcpu *vcpu, struct soft_step *step, bool call)
{
	uint64_t offset;
	uint16_t selector;
	int err = far_operand(vcpu, step, &selector, &offset);

	return err ? err : go_far(vcpu, step, selector, offset, call);
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
	if (soft_real_mode(vcpu)) {
		code.selector = (uint16_t)selector;
		code.base = (selector & 0xffff) << 4;
	} else {
		err = soft_segment_code(vcpu, (uint16_t)selector, SEGMENT_BY_RETURN, &code, &cpl);
	}
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
		vcpu->state.segment[SEG_SS] = stack;
		vcpu->gpr[GPR_RSP] = rsp + release;
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
