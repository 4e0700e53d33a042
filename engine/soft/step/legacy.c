/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: instructions that 64-bit mode has no more, so that the host cannot execute them
 * either. Flags that the manual leaves undefined stay as they are.
 */
#include "engine/soft/step/step.h"

static void set_flag(struct engine_vcpu *vcpu, uint64_t flag, bool value)
{
	vcpu->flags = (vcpu->flags & ~flag) | (value ? flag : 0);
}

static void set_al(struct engine_vcpu *vcpu, uint8_t al)
{
	soft_set_gpr(vcpu, GPR_RAX, 1, al);
	set_flag(vcpu, FLAG_SF, al & 0x80);
	set_flag(vcpu, FLAG_ZF, al == 0);
	set_flag(vcpu, FLAG_PF, !(__builtin_popcount(al) & 1));
}

/* DAA, DAS */
static int step_decimal(struct engine_vcpu *vcpu, struct soft_step *step)
{
	bool add = step->insn->z.mnemonic == ZYDIS_MNEMONIC_DAA;
	uint8_t old = (uint8_t)vcpu->gpr[GPR_RAX], al = old;
	bool carry = vcpu->flags & FLAG_CF, low = (old & 15) > 9 || (vcpu->flags & FLAG_AF);
	bool high = old > 0x99 || carry;

	carry = high;
	if (low) {
		carry = carry || (!add && old < 6);
		al = (uint8_t)(add ? al + 6 : al - 6);
	}
	if (high)
		al = (uint8_t)(add ? al + 0x60 : al - 0x60);
	set_al(vcpu, al);
	set_flag(vcpu, FLAG_AF, low);
	set_flag(vcpu, FLAG_CF, carry);
	return SOFT_OK;
}

/* AAA, AAS */
static int step_ascii(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint16_t ax = (uint16_t)vcpu->gpr[GPR_RAX];
	bool adjust = (ax & 15) > 9 || (vcpu->flags & FLAG_AF);

	if (adjust && step->insn->z.mnemonic == ZYDIS_MNEMONIC_AAA)
		ax = (uint16_t)(ax + 0x106);
	else if (adjust)
		ax = (uint16_t)(ax - 0x106);
	soft_set_gpr(vcpu, GPR_RAX, 2, ax & 0xff0f);
	set_flag(vcpu, FLAG_AF | FLAG_CF, adjust);
	return SOFT_OK;
}

/* AAM, AAD */
static int step_ascii_base(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint8_t base = (uint8_t)step->insn->op[0].imm.value.u;
	uint8_t al = (uint8_t)vcpu->gpr[GPR_RAX], ah = (uint8_t)(vcpu->gpr[GPR_RAX] >> 8);

	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_AAD) {
		al = (uint8_t)(al + ah * base);
		ah = 0;
	} else {
		if (!base)
			return soft_raise(vcpu, VECTOR_DE);
		ah = al / base;
		al = al % base;
	}
	soft_set_gpr(vcpu, GPR_RAX, 2, (uint64_t)ah << 8);
	set_al(vcpu, al);
	return SOFT_OK;
}

static int step_salc(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	soft_set_gpr(vcpu, GPR_RAX, 1, vcpu->flags & FLAG_CF ? 0xff : 0);
	return SOFT_OK;
}

static int64_t sign_extend(uint64_t value, uint32_t bytes)
{
	return (int64_t)(value << (64 - 8 * bytes)) >> (64 - 8 * bytes);
}

static int step_bound(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = step->insn->op;
	uint32_t bytes = step->insn->z.operand_width / 8u;
	uint64_t linear, lower = 0, upper = 0;
	int64_t index = sign_extend(soft_get_register(vcpu, op[0].reg.value), bytes);
	int err = soft_linear_aligned(vcpu, soft_segment_of(op[1].mem.segment),
				      soft_effective_address(vcpu, step, &op[1].mem), 2 * bytes,
				      bytes, false, &linear);

	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &lower, bytes);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear + bytes, &upper, bytes);
	if (err)
		return err;
	if (index < sign_extend(lower, bytes) || index > sign_extend(upper, bytes))
		return soft_raise(vcpu, VECTOR_BR);
	return SOFT_OK;
}

static int step_arpl(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t to, from;
	int err;

	if (soft_8086(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	err = soft_get_operand(vcpu, step, 0, &to);
	if (!err)
		err = soft_get_operand(vcpu, step, 1, &from);
	if (!err && (to & 3) < (from & 3))
		err = soft_set_operand(vcpu, step, 0, (to & ~3ull) | (from & 3));
	if (!err)
		set_flag(vcpu, FLAG_ZF, (to & 3) < (from & 3));
	return err;
}

soft_handler *soft_legacy_handler(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		return step_decimal;
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
		return step_ascii;
	case ZYDIS_MNEMONIC_AAM:
	case ZYDIS_MNEMONIC_AAD:
		return step_ascii_base;
	case ZYDIS_MNEMONIC_SALC:
		return step_salc;
	case ZYDIS_MNEMONIC_BOUND:
		return step_bound;
	case ZYDIS_MNEMONIC_ARPL:
		return step_arpl;
	default:
		return NULL;
	}
}
