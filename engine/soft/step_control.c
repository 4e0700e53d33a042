/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: jumps, calls, the stack, flags, interrupts and returns from them.
 *
 * Left out: call gates, task switches, INT through a task gate, virtual-8086 mode.
 */
#include "engine/soft/step.h"

#include "engine/soft/segment.h"

#define FLAGS_USER_WRITES (FLAGS_HOST | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID)

static uint32_t operand_bytes(const struct soft_step *step)
{
	return step->insn->z.operand_width / 8u;
}

static bool condition(const struct engine_vcpu *vcpu, uint8_t code)
{
	uint64_t f = vcpu->flags;
	bool sign = !!(f & FLAG_SF) != !!(f & FLAG_OF), value;

	switch (code >> 1 & 7) {
	case 0:
		value = f & FLAG_OF;
		break;
	case 1:
		value = f & FLAG_CF;
		break;
	case 2:
		value = f & FLAG_ZF;
		break;
	case 3:
		value = f & (FLAG_CF | FLAG_ZF);
		break;
	case 4:
		value = f & FLAG_SF;
		break;
	case 5:
		value = f & FLAG_PF;
		break;
	case 6:
		value = sign;
		break;
	default:
		value = sign || (f & FLAG_ZF);
		break;
	}
	return value != (code & 1);
}

static int jump_relative(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_code64(vcpu) ? 8 : operand_bytes(step);

	return soft_jump(vcpu, step, step->next + step->insn->op[0].imm.value.u, bytes);
}

static int step_jcc(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return condition(vcpu, step->insn->z.opcode) ? jump_relative(vcpu, step) : SOFT_OK;
}

static int step_loop(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = step->insn->z.address_width / 8u;
	uint64_t count = vcpu->gpr[GPR_RCX] & soft_mask(bytes);
	bool zero = vcpu->flags & FLAG_ZF, taken;
	int err = SOFT_OK;

	switch (step->insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_LOOP:
		taken = --count & soft_mask(bytes);
		break;
	case ZYDIS_MNEMONIC_LOOPE:
		taken = (--count & soft_mask(bytes)) && zero;
		break;
	case ZYDIS_MNEMONIC_LOOPNE:
		taken = (--count & soft_mask(bytes)) && !zero;
		break;
	default: /* JCXZ and its wider forms count nothing */
		return count ? SOFT_OK : jump_relative(vcpu, step);
	}
	if (taken)
		err = jump_relative(vcpu, step);
	if (!err)
		soft_set_gpr(vcpu, GPR_RCX, bytes, count);
	return err;
}

/* Selector and offset of a far pointer operand. */
static int far_operand(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t *ret_selector,
		       uint64_t *ret_offset)
{
	const ZydisDecodedOperand *op = &step->insn->op[0];
	uint32_t bytes = operand_bytes(step);
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
	uint32_t bytes = operand_bytes(step);
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

static bool is_far(const struct soft_step *step)
{
	return step->insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static int step_jmp(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t target;
	uint16_t selector;
	int err;

	if (is_far(step)) {
		err = far_operand(vcpu, step, &selector, &target);
		return err ? err : go_far(vcpu, step, selector, target, false);
	}
	if (step->insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return jump_relative(vcpu, step);
	err = soft_get_operand(vcpu, step, 0, &target);
	return err ? err : soft_jump(vcpu, step, target, operand_bytes(step));
}

static int step_call(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_code64(vcpu) ? 8 : operand_bytes(step);
	uint64_t target, rip = vcpu->rip;
	uint16_t selector;
	int err;

	if (is_far(step)) {
		err = far_operand(vcpu, step, &selector, &target);
		return err ? err : go_far(vcpu, step, selector, target, true);
	}
	if (step->insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		target = step->next + step->insn->op[0].imm.value.u;
	} else {
		err = soft_get_operand(vcpu, step, 0, &target);
		if (err)
			return err;
	}
	err = soft_jump(vcpu, step, target, bytes);
	if (!err)
		err = soft_stack_push(vcpu, bytes, step->next);
	if (err)
		vcpu->rip = rip;
	return err;
}

static int return_far(struct engine_vcpu *vcpu, struct soft_step *step, uint64_t release)
{
	uint32_t bytes = operand_bytes(step);
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

static int step_ret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_code64(vcpu) ? 8 : operand_bytes(step);
	uint64_t release = 0, target;
	int err;

	if (step->insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		release = step->insn->op[0].imm.value.u;
	if (is_far(step))
		return return_far(vcpu, step, release);
	err = soft_stack_read(vcpu, 0, bytes, &target);
	if (!err)
		err = soft_jump(vcpu, step, target, bytes);
	if (!err)
		soft_stack_move(vcpu, (int64_t)(bytes + release));
	return err;
}

/* ---- the stack --------------------------------------------------------------------------------
 */

static bool is_segment(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_ES &&
	       op->reg.value <= ZYDIS_REGISTER_GS;
}

static int step_push(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value;
	int err = soft_get_operand(vcpu, step, 0, &value);

	return err ? err : soft_stack_push(vcpu, operand_bytes(step), value);
}

static int step_pop(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
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
			vcpu->shadow = true;
			step->trap = false;
		}
	} else {
		err = soft_set_operand(vcpu, step, 0, value);
	}
	if (err)
		vcpu->gpr[GPR_RSP] = rsp;
	return err;
}

static int step_pusha(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
	uint64_t rsp = vcpu->gpr[GPR_RSP];
	int err = SOFT_OK;

	for (int i = 0; i < 8 && !err; i++)
		err = soft_stack_push(vcpu, bytes, i == GPR_RSP ? rsp : vcpu->gpr[i]);
	if (err)
		vcpu->gpr[GPR_RSP] = rsp;
	return err;
}

static int step_popa(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
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

static int step_enter(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
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

static int step_leave(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
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

static int step_pushf(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return soft_stack_push(vcpu, operand_bytes(step), soft_rflags(vcpu) & ~(FLAG_VM | FLAG_RF));
}

/* The flags that POPF and IRET may change at this level. */
static uint64_t writable_flags(const struct engine_vcpu *vcpu, uint32_t bytes)
{
	uint64_t mask = FLAGS_USER_WRITES;

	if (vcpu->cpl == 0)
		mask |= FLAG_IOPL;
	if (vcpu->cpl <= (vcpu->system_flags & FLAG_IOPL) >> 12)
		mask |= FLAG_IF;
	return mask & soft_mask(bytes);
}

static int step_popf(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
	uint64_t mask = writable_flags(vcpu, bytes), value;
	int err = soft_stack_read(vcpu, 0, bytes, &value);

	if (err)
		return err;
	soft_stack_move(vcpu, bytes);
	soft_set_rflags(vcpu, (soft_rflags(vcpu) & ~mask & ~FLAG_RF) | (value & mask));
	return SOFT_OK;
}

/* ---- interrupts -------------------------------------------------------------------------------
 */

static int step_int(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint8_t vector = VECTOR_BP;
	enum soft_event event = EVENT_SOFT;
	int err;

	switch (step->insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_INT:
		vector = (uint8_t)step->insn->op[0].imm.value.u;
		break;
	case ZYDIS_MNEMONIC_INT1:
		vector = VECTOR_DB;
		event = EVENT_EXCEPTION;
		vcpu->resume_flag = 0;
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

static int iret_long(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
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
	if (code.attributes & ATTRIBUTE_LONG) {
		if (!soft_is_canonical(value[0]))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
	}
	mask = writable_flags(vcpu, bytes) | (bytes > 2 ? FLAG_RF : 0);
	if (cpl != vcpu->cpl)
		soft_segment_leave(vcpu, cpl);
	vcpu->state.segment[SEG_CS] = code;
	vcpu->state.segment[SEG_SS] = stack;
	vcpu->gpr[GPR_RSP] = value[3];
	vcpu->rip = value[0];
	vcpu->cpl = cpl;
	vcpu->iret_done = true;
	soft_set_rflags(vcpu, (soft_rflags(vcpu) & ~mask) | (value[2] & mask));
	step->jumped = true;
	return SOFT_OK;
}

static int iret_real(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = operand_bytes(step);
	uint64_t value[3], mask = (writable_flags(vcpu, bytes) & ~FLAG_VM);
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

static int step_iret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	int err;

	if (soft_long_mode(vcpu)) {
		err = iret_long(vcpu, step);
	} else if (soft_real_mode(vcpu)) {
		err = iret_real(vcpu, step);
	} else {
		vcpu->pending.kind = EXIT_FAILED;
		vcpu->pending.fail.reason = "IRET in protected mode without long mode";
		vcpu->pending.fail.detail = 0;
		return SOFT_EXIT;
	}
	if (!err)
		vcpu->state.nmi_masked = 0;
	return err;
}

soft_handler *soft_control_handler(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_JB:
	case ZYDIS_MNEMONIC_JBE:
	case ZYDIS_MNEMONIC_JL:
	case ZYDIS_MNEMONIC_JLE:
	case ZYDIS_MNEMONIC_JNB:
	case ZYDIS_MNEMONIC_JNBE:
	case ZYDIS_MNEMONIC_JNL:
	case ZYDIS_MNEMONIC_JNLE:
	case ZYDIS_MNEMONIC_JNO:
	case ZYDIS_MNEMONIC_JNP:
	case ZYDIS_MNEMONIC_JNS:
	case ZYDIS_MNEMONIC_JNZ:
	case ZYDIS_MNEMONIC_JO:
	case ZYDIS_MNEMONIC_JP:
	case ZYDIS_MNEMONIC_JS:
	case ZYDIS_MNEMONIC_JZ:
		return step_jcc;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
		return step_loop;
	case ZYDIS_MNEMONIC_JMP:
		return step_jmp;
	case ZYDIS_MNEMONIC_CALL:
		return step_call;
	case ZYDIS_MNEMONIC_RET:
		return step_ret;
	case ZYDIS_MNEMONIC_PUSH:
		return step_push;
	case ZYDIS_MNEMONIC_POP:
		return step_pop;
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return step_pusha;
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		return step_popa;
	case ZYDIS_MNEMONIC_ENTER:
		return step_enter;
	case ZYDIS_MNEMONIC_LEAVE:
		return step_leave;
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return step_pushf;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		return step_popf;
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_INTO:
		return step_int;
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
		return step_iret;
	default:
		return NULL;
	}
}
