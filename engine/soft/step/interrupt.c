/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: INT and its kin, and IRET.
 *
 * In virtual-8086 mode INT n and IRET are for IOPL 3 alone (SDM vol. 3, 20.2.7 and 20.3).
 */
#include "engine/soft/step/control.h"

#include "engine/soft/cpu/segment.h"
#include "engine/soft/cpu/task_switch.h"

int soft_step_int(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint8_t vector = VECTOR_BP;
	enum soft_event event = EVENT_SOFT;
	int err;

	switch (step->insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_INT:
		if (soft_is_sensitive(vcpu))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		vector = (uint8_t)step->insn->op[0].imm.value.u;
		break;
	case ZYDIS_MNEMONIC_INT1:
		vector = VECTOR_DB;
		event = EVENT_EXCEPTION;
		vcpu->resume_flag = 0;
		/* One #DB for it and for what a load of SS has held back. */
		vcpu->state.dr6 |= vcpu->debug_hits & 0xf;
		vcpu->debug_hits = 0;
		break;
	case ZYDIS_MNEMONIC_INTO:
		if (!(vcpu->flags & FLAG_OF))
			return SOFT_OK;
		vector = VECTOR_OF;
		break;
	default:
		break;
	}
	err = soft_deliver(vcpu, vector, event, false, 0, step->next);
	step->jumped = true;
	step->trap = false; /* the gate has cleared TF */
	return err;
}

/* The end of every IRET: CS and the stack are in place, rip, cs and flags are value[0] to [2]. */
static int returned(struct engine_vcpu *vcpu, struct soft_step *step, const uint64_t *value,
		    uint8_t cpl, uint64_t mask)
{
	vcpu->rip = value[0];
	vcpu->cpl = cpl;
	vcpu->iret_done = true;
	soft_set_rflags(vcpu, (soft_rflags(vcpu) & ~mask) | (value[2] & mask));
	step->jumped = true;
	return SOFT_OK;
}

static int iret_long(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	struct vcpu_segment_state code, stack = { 0 };
	uint64_t value[5], mask;
	uint8_t cpl;
	int err = SOFT_OK;

	if (vcpu->system_flags & FLAG_NT)
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	for (uint32_t i = 0; i < 5 && !err; i++)
		err = soft_stack_read(vcpu, i * bytes, bytes, &value[i]);
	if (!err)
		err = soft_segment_code(vcpu, (uint16_t)value[1], SEGMENT_BY_RETURN, &code, &cpl);
	if (err)
		return err;
	if ((value[4] & ~3ull & 0xffff) == 0) {
		if (!(code.attributes & ATTRIBUTE_LONG) || cpl == 3)
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		soft_segment_null(&stack, (uint16_t)value[4]);
	} else {
		err = soft_segment_stack(vcpu, (uint16_t)value[4], cpl, &stack);
		if (err)
			return err;
	}
	err = soft_segment_reaches(vcpu, &code, value[0]);
	if (err)
		return err;
	mask = soft_writable_flags(vcpu, bytes) | (bytes > 2 ? FLAG_RF : 0);
	if (cpl != vcpu->cpl)
		soft_segment_leave(vcpu, cpl);
	vcpu->state.segment[SEG_CS] = code;
	vcpu->state.segment[SEG_SS] = stack;
	vcpu->gpr[GPR_RSP] = value[3];
	return returned(vcpu, step, value, cpl, mask);
}

/* CS and flags are read; all registers that the frame has come with them. */
static int enter_virtual_8086(struct engine_vcpu *vcpu, struct soft_step *step,
			      const uint64_t *value)
{
	/* Behind eip, cs, eflags and esp. */
	static const enum vcpu_segment segments[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint64_t rsp, selector[5];
	int err = soft_stack_read(vcpu, 12, 4, &rsp);

	for (uint32_t i = 0; i < 5 && !err; i++)
		err = soft_stack_read(vcpu, 16 + 4 * i, 4, &selector[i]);
	if (err)
		return err;
	soft_set_rflags(vcpu, value[2]);
	soft_segment_8086(vcpu, SEG_CS, (uint16_t)value[1]);
	for (uint32_t i = 0; i < 5; i++)
		soft_segment_8086(vcpu, segments[i], (uint16_t)selector[i]);
	vcpu->gpr[GPR_RSP] = rsp;
	vcpu->rip = value[0] & 0xffff;
	vcpu->iret_done = true;
	step->jumped = true;
	return SOFT_OK;
}

/* From an interrupt that real mode has delivered, or that virtual-8086 mode pretends. */
static int iret_8086(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t value[3], mask = soft_writable_flags(vcpu, bytes) | (bytes > 2 ? FLAG_RF : 0);
	int err = SOFT_OK;

	for (uint32_t i = 0; i < 3 && !err; i++)
		err = soft_stack_read(vcpu, i * bytes, bytes, &value[i]);
	if (err)
		return err;
	soft_stack_move(vcpu, 3 * (int64_t)bytes);
	vcpu->state.segment[SEG_CS].selector = (uint16_t)value[1];
	vcpu->state.segment[SEG_CS].base = (value[1] & 0xffff) << 4;
	vcpu->rip = value[0];
	vcpu->iret_done = true;
	soft_set_rflags(vcpu, (soft_rflags(vcpu) & ~mask) | (value[2] & mask));
	step->jumped = true;
	return SOFT_OK;
}

static int iret_protected(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t value[5], mask = soft_writable_flags(vcpu, bytes) | (bytes > 2 ? FLAG_RF : 0);
	struct vcpu_segment_state code, stack;
	uint8_t cpl;
	int err = SOFT_OK;

	if (vcpu->system_flags & FLAG_NT) {
		step->jumped = true;
		step->trap = false;
		return soft_task_return(vcpu, step->next);
	}
	for (uint32_t i = 0; i < 3 && !err; i++)
		err = soft_stack_read(vcpu, i * bytes, bytes, &value[i]);
	if (!err && (value[2] & FLAG_VM) && !vcpu->cpl)
		return enter_virtual_8086(vcpu, step, value);
	if (!err)
		err = soft_segment_code(vcpu, (uint16_t)value[1], SEGMENT_BY_RETURN, &code, &cpl);
	if (!err)
		err = soft_segment_reaches(vcpu, &code, value[0]);
	if (err)
		return err;
	for (uint32_t i = 3; i < 5 && !err && cpl != vcpu->cpl; i++)
		err = soft_stack_read(vcpu, i * bytes, bytes, &value[i]);
	if (!err && cpl != vcpu->cpl)
		err = soft_segment_stack(vcpu, (uint16_t)value[4], cpl, &stack);
	if (err)
		return err;
	if (cpl != vcpu->cpl) {
		soft_stack_outer(vcpu, &stack, value[3]);
		soft_segment_leave(vcpu, cpl);
	} else {
		soft_stack_move(vcpu, 3 * (int64_t)bytes);
	}
	vcpu->state.segment[SEG_CS] = code;
	return returned(vcpu, step, value, cpl, mask);
}

int soft_step_iret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	int err;

	if (soft_long_mode(vcpu))
		err = iret_long(vcpu, step);
	else if (soft_is_sensitive(vcpu))
		err = soft_raise_error(vcpu, VECTOR_GP, 0);
	else if (soft_8086(vcpu))
		err = iret_8086(vcpu, step);
	else
		err = iret_protected(vcpu, step);
	if (!err)
		vcpu->state.nmi_masked = 0;
	return err;
}
