/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: descriptor tables and selectors. LGDT and its kind, LTR, LLDT, far pointers into
 * data segments, and LAR, LSL, VERR, VERW, which only look.
 */
#include "engine/soft/step/system.h"

#include <string.h>

#include "engine/soft/cpu/segment.h"

int soft_step_load_table(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_table_state table = { 0 };
	uint32_t base_bytes = soft_code64(vcpu) ? 8 : 4;
	uint64_t linear, limit = 0;
	int err;

	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	err = soft_operand_linear(vcpu, step, &step->insn->op[0], false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &limit, 2);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear + 2, &table.base, base_bytes);
	if (err)
		return err;
	table.limit = (uint16_t)limit;
	if (soft_code64(vcpu) && !soft_is_canonical(table.base))
		return soft_not_privileged(vcpu);
	if (!soft_code64(vcpu) && step->insn->z.operand_width == 16)
		table.base &= 0xffffff;
	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_LGDT)
		vcpu->state.gdt = table;
	else
		vcpu->state.idt = table;
	return SOFT_OK;
}

int soft_step_store_table(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const struct vcpu_table_state *table =
		step->insn->z.mnemonic == ZYDIS_MNEMONIC_SGDT ? &vcpu->state.gdt : &vcpu->state.idt;
	uint8_t image[10];
	uint64_t linear;
	int err;

	if (soft_hides_tables(vcpu))
		return soft_not_privileged(vcpu);
	memcpy(image, &table->limit, 2);
	memcpy(image + 2, &table->base, 8);
	err = soft_operand_linear(vcpu, step, &step->insn->op[0], true, &linear);
	if (!err)
		err = soft_write(vcpu, vcpu->view, linear, image, soft_code64(vcpu) ? 10 : 6);
	return err;
}

int soft_step_load_selector(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value;
	int err;

	if (soft_8086(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	err = soft_get_operand(vcpu, step, 0, &value);
	if (err)
		return err;
	return soft_segment_system(vcpu,
				   step->insn->z.mnemonic == ZYDIS_MNEMONIC_LTR ? SEG_TR : SEG_LDTR,
				   (uint16_t)value);
}

int soft_step_store_selector(struct engine_vcpu *vcpu, struct soft_step *step)
{
	enum vcpu_segment which = step->insn->z.mnemonic == ZYDIS_MNEMONIC_STR ? SEG_TR : SEG_LDTR;

	if (soft_8086(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (soft_hides_tables(vcpu))
		return soft_not_privileged(vcpu);
	return soft_set_operand(vcpu, step, 0, vcpu->state.segment[which].selector);
}

/* LDS, LES, LFS, LGS, LSS */
int soft_step_load_far(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t bytes = step->insn->z.operand_width / 8u;
	enum vcpu_segment which = SEG_DS;
	uint64_t linear, offset = 0, selector = 0;
	int err;

	switch (step->insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_LES:
		which = SEG_ES;
		break;
	case ZYDIS_MNEMONIC_LFS:
		which = SEG_FS;
		break;
	case ZYDIS_MNEMONIC_LGS:
		which = SEG_GS;
		break;
	case ZYDIS_MNEMONIC_LSS:
		which = SEG_SS;
		break;
	default:
		break;
	}
	err = soft_operand_linear(vcpu, step, &step->insn->op[1], false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &offset, bytes);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear + bytes, &selector, 2);
	if (!err)
		err = soft_segment_load(vcpu, which, (uint16_t)selector);
	if (!err)
		soft_set_register(vcpu, step->insn->op[0].reg.value, offset);
	return err;
}

/* System descriptors that LAR, or LSL, knows: a bit for each type. */
static uint32_t system_types(const struct engine_vcpu *vcpu, bool lar)
{
	uint32_t types = 1u << 2 | 1u << 9 | 1u << 11 | (lar ? 1u << 12 : 0);

	if (!soft_long_mode(vcpu)) /* 16-bit TSSs and gates, task gates */
		types |= 1u << 1 | 1u << 3 | (lar ? 1u << 4 | 1u << 5 : 0);
	return types;
}

/* Can this level see the descriptor for what the instruction asks? */
static bool descriptor_visible(const struct engine_vcpu *vcpu, ZydisMnemonic mnemonic,
			       uint16_t selector, const struct vcpu_segment_state *segment)
{
	uint16_t a = segment->attributes;
	bool code = (a & ATTRIBUTE_S) && (a & 8), conforming = code && (a & 4);
	uint8_t dpl = ATTRIBUTE_DPL(a), type = a & 0xf;
	uint32_t types = system_types(vcpu, mnemonic == ZYDIS_MNEMONIC_LAR);

	if (!conforming && (dpl < vcpu->cpl || dpl < (selector & 3)))
		return false;
	if (a & ATTRIBUTE_S) {
		if (mnemonic == ZYDIS_MNEMONIC_VERR)
			return !code || (a & 2);
		if (mnemonic == ZYDIS_MNEMONIC_VERW)
			return !code && (a & 2);
		return true;
	}
	if (mnemonic == ZYDIS_MNEMONIC_VERR || mnemonic == ZYDIS_MNEMONIC_VERW)
		return false;
	return types >> type & 1;
}

/* LAR, LSL, VERR, VERW: ZF says whether there is an answer. */
int soft_step_look_at_selector(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	bool verify = mnemonic == ZYDIS_MNEMONIC_VERR || mnemonic == ZYDIS_MNEMONIC_VERW, found;
	struct vcpu_segment_state segment;
	uint64_t selector, descriptor = 0;
	int err;

	if (soft_8086(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	err = soft_get_operand(vcpu, step, verify ? 0 : 1, &selector);
	if (!err)
		err = soft_segment_descriptor(vcpu, (uint16_t)selector, &descriptor, &found);
	if (err)
		return err;
	soft_segment_decode((uint16_t)selector, descriptor, &segment);
	found = found && descriptor_visible(vcpu, mnemonic, (uint16_t)selector, &segment);
	vcpu->flags = (vcpu->flags & ~FLAG_ZF) | (found ? FLAG_ZF : 0);
	if (found && mnemonic == ZYDIS_MNEMONIC_LAR)
		soft_set_register(vcpu, step->insn->op[0].reg.value, descriptor >> 32 & 0x00ffff00);
	if (found && mnemonic == ZYDIS_MNEMONIC_LSL)
		soft_set_register(vcpu, step->insn->op[0].reg.value, segment.limit);
	return SOFT_OK;
}
