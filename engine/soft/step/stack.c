/* SPDX-License-Identifier: Apache-2.0 */
/* The stepper: what works on the present stack. */
#include "engine/soft/step/control.h"

#include "engine/soft/cpu/segment.h"

#define FLAGS_USER_WRITES (FLAGS_HOST | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID)

static bool is_segment(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_ES &&
	       op->reg.value <= ZYDIS_REGISTER_GS;
}

/* Of a selector in 32 bits Intel's CPUs write only the selector (SDM vol. 2, PUSH); AMD's zero, too. */
static uint32_t written_bytes(const struct engine_vcpu *vcpu, const struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);

	if (bytes == 4 && is_segment(&step->insn->op[0]) && !vcpu->engine->offer->amd)
		return 2;
	return bytes;
}

int soft_step_push(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value;
	int err = soft_get_operand(vcpu, step, 0, &value);

	return err ? err
		   : soft_stack_push_low(vcpu, soft_operand_bytes(step), written_bytes(vcpu, step),
					 value);
}

int soft_step_pop(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t value, rsp = vcpu->gpr[GPR_RSP];
	int err = soft_stack_read(vcpu, 0, bytes, &value);

	if (err)
		return err;
	/* The stack pointer moves first: an operand that is addressed by it, or is it, sees that.
	 */
	soft_stack_move(vcpu, bytes);
	if (is_segment(&step->insn->op[0])) {
		enum vcpu_segment which = soft_segment_of(step->insn->op[0].reg.value);

		err = soft_segment_load(vcpu, which, (uint16_t)value);
		if (!err && which == SEG_SS) {
			vcpu->shadow = SHADOW_MOV_SS;
			step->trap = false;
		}
	} else {
		err = soft_set_operand(vcpu, step, 0, value);
	}
	if (err)
		vcpu->gpr[GPR_RSP] = rsp;
	return err;
}

int soft_step_pusha(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t rsp = vcpu->gpr[GPR_RSP];
	int err = SOFT_OK;

	for (int i = 0; i < 8 && !err; i++)
		err = soft_stack_push(vcpu, bytes, i == GPR_RSP ? rsp : vcpu->gpr[i]);
	if (err)
		vcpu->gpr[GPR_RSP] = rsp;
	return err;
}

int soft_step_popa(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t value[8];
	int err = SOFT_OK;

	for (uint32_t i = 0; i < 8 && !err; i++)
		err = soft_stack_read(vcpu, i * bytes, bytes, &value[7 - i]);
	if (err)
		return err;
	for (int i = 0; i < 8; i++)
		if (i != GPR_RSP)
			soft_set_gpr(vcpu, i, bytes, value[i]);
	soft_stack_move(vcpu, 8 * (int64_t)bytes);
	return SOFT_OK;
}

/* Will it read what it has written, and so something else if it were broken off and begun anew? */
static bool enter_overlaps(const struct engine_vcpu *vcpu, uint64_t level, uint32_t bytes)
{
	uint64_t written = (level + 1) * bytes, read = level ? (level - 1) * bytes : 0;
	uint64_t lowest = vcpu->gpr[GPR_RSP] - written;
	uint64_t above = (vcpu->gpr[GPR_RBP] - lowest) & soft_mask(soft_stack_width(vcpu));

	return read && above && above < written + read;
}

static int enter(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t size = step->insn->op[0].imm.value.u, level = step->insn->op[1].imm.value.u & 31;
	uint64_t rsp = vcpu->gpr[GPR_RSP], frame, value, linear;
	int err = soft_stack_push(vcpu, bytes, vcpu->gpr[GPR_RBP]);

	frame = vcpu->gpr[GPR_RSP];
	for (uint64_t i = 1; i < level && !err; i++) {
		uint64_t at = (vcpu->gpr[GPR_RBP] - i * bytes) & soft_mask(soft_stack_width(vcpu));

		value = 0;
		err = soft_linear(vcpu, SEG_SS, at, bytes, false, &linear);
		if (!err)
			err = soft_read(vcpu, vcpu->view, linear, &value, bytes);
		if (!err)
			err = soft_stack_push(vcpu, bytes, value);
	}
	if (!err && level)
		err = soft_stack_push(vcpu, bytes, frame);
	/* The new top of the stack has to be writable as well (SDM vol. 2, ENTER). */
	if (!err)
		err = soft_linear(vcpu, SEG_SS,
				  (vcpu->gpr[GPR_RSP] - size) & soft_mask(soft_stack_width(vcpu)),
				  bytes, true, &linear);
	if (!err)
		err = soft_probe_write(vcpu, vcpu->view, linear, bytes);
	if (err) {
		vcpu->gpr[GPR_RSP] = rsp;
		return err;
	}
	soft_stack_move(vcpu, -(int64_t)size);
	soft_set_gpr(vcpu, GPR_RBP, soft_stack_width(vcpu) < bytes ? soft_stack_width(vcpu) : bytes,
		     frame);
	return SOFT_OK;
}

int soft_step_enter(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t level = step->insn->op[1].imm.value.u & 31;
	int err;

	vcpu->committing = enter_overlaps(vcpu, level, soft_operand_bytes(step));
	err = enter(vcpu, step);
	vcpu->committing = false;
	return err;
}

int soft_step_leave(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t rsp = vcpu->gpr[GPR_RSP], value;
	int err;

	soft_set_gpr(vcpu, GPR_RSP, soft_stack_width(vcpu), vcpu->gpr[GPR_RBP]);
	err = soft_stack_read(vcpu, 0, bytes, &value);
	if (err) {
		vcpu->gpr[GPR_RSP] = rsp;
		return err;
	}
	soft_stack_move(vcpu, bytes);
	soft_set_gpr(vcpu, GPR_RBP, bytes, value);
	return SOFT_OK;
}

int soft_step_pushf(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (soft_is_sensitive(vcpu))
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	return soft_stack_push(vcpu, soft_operand_bytes(step),
			       soft_rflags(vcpu) & ~(FLAG_VM | FLAG_RF));
}

/* The flags that POPF and IRET may change at this level. */
uint64_t soft_writable_flags(const struct engine_vcpu *vcpu, uint32_t bytes)
{
	uint64_t mask = FLAGS_USER_WRITES;

	if (vcpu->cpl == 0)
		mask |= FLAG_IOPL;
	if (vcpu->cpl <= (vcpu->system_flags & FLAG_IOPL) >> 12)
		mask |= FLAG_IF;
	return mask & soft_mask(bytes);
}

int soft_step_popf(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t mask = soft_writable_flags(vcpu, bytes), value;
	int err;

	if (soft_is_sensitive(vcpu))
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	err = soft_stack_read(vcpu, 0, bytes, &value);
	if (err)
		return err;
	soft_stack_move(vcpu, bytes);
	soft_set_rflags(vcpu, (soft_rflags(vcpu) & ~mask & ~FLAG_RF) | (value & mask));
	return SOFT_OK;
}

/* A 16-bit stack leaves what is above SP as it was (CPUs show the kernel's bits there). */
void soft_stack_outer(struct engine_vcpu *vcpu, const struct vcpu_segment_state *segment,
		      uint64_t rsp)
{
	bool small = !soft_long_mode(vcpu) && !(segment->attributes & ATTRIBUTE_BIG);

	vcpu->state.segment[SEG_SS] = *segment;
	soft_set_gpr(vcpu, GPR_RSP, soft_long_mode(vcpu) ? 8 : small ? 2 : 4, rsp);
}
