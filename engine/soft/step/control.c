/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: near jumps, calls and returns, and the table of all that has to do with control flow
 * and the stack.
 */
#include "engine/soft/step/control.h"

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
	uint32_t bytes = soft_operand_bytes(step);

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

static bool is_far(const struct soft_step *step)
{
	return step->insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static int step_jmp(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t target;
	int err;

	if (is_far(step))
		return soft_jump_far(vcpu, step, false);
	if (step->insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return jump_relative(vcpu, step);
	err = soft_get_operand(vcpu, step, 0, &target);
	return err ? err : soft_jump(vcpu, step, target, soft_operand_bytes(step));
}

/* Pushed first: a fault of the stack's comes before one of the target's. */
static int step_call(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t target, rsp = vcpu->gpr[GPR_RSP];
	int err;

	if (is_far(step))
		return soft_jump_far(vcpu, step, true);
	if (step->insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		target = step->next + step->insn->op[0].imm.value.u;
	} else {
		err = soft_get_operand(vcpu, step, 0, &target);
		if (err)
			return err;
	}
	err = soft_stack_push(vcpu, bytes, step->next);
	if (err)
		return err;
	err = soft_jump(vcpu, step, target, bytes);
	if (err)
		vcpu->gpr[GPR_RSP] = rsp;
	return err;
}

static int step_ret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = soft_operand_bytes(step);
	uint64_t release = 0, target;
	int err;

	if (step->insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		release = step->insn->op[0].imm.value.u;
	if (is_far(step))
		return soft_return_far(vcpu, step, release);
	err = soft_stack_read(vcpu, 0, bytes, &target);
	if (!err)
		err = soft_jump(vcpu, step, target, bytes);
	if (!err)
		soft_stack_move(vcpu, (int64_t)(bytes + release));
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
		return soft_step_push;
	case ZYDIS_MNEMONIC_POP:
		return soft_step_pop;
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return soft_step_pusha;
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		return soft_step_popa;
	case ZYDIS_MNEMONIC_ENTER:
		return soft_step_enter;
	case ZYDIS_MNEMONIC_LEAVE:
		return soft_step_leave;
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return soft_step_pushf;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		return soft_step_popf;
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_INTO:
		return soft_step_int;
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
		return soft_step_iret;
	default:
		return NULL;
	}
}
