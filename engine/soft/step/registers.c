/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: control and debug registers, by MOV and by the instructions that know one of them,
 * and the MOV of segment registers, which has the same mnemonic.
 */
#include "engine/soft/step/system.h"

#include "engine/soft/cpu/segment.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/tlb/tlb.h"

#define CR0_KNOWN 0xe005003full

static int set_cr0(struct engine_vcpu *vcpu, uint64_t value)
{
	struct vcpu_state *state = &vcpu->state;
	uint64_t changed;

	if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) ||
	    ((value & CR0_NW) && !(value & CR0_CD)))
		return soft_not_privileged(vcpu);
	if (!(value & CR0_PG) && (soft_code64(vcpu) || (state->cr4 & CR4_PCIDE)))
		return soft_not_privileged(vcpu);
	if ((value & ~state->cr0 & CR0_PG) && (state->efer & EFER_LME) &&
	    (!(state->cr4 & CR4_PAE) || (state->segment[SEG_CS].attributes & ATTRIBUTE_LONG)))
		return soft_not_privileged(vcpu);
	value = (value & CR0_KNOWN) | CR0_ET;
	changed = value ^ state->cr0;
	state->cr0 = value;
	if (changed & CR0_PG) {
		state->efer &= ~EFER_LMA;
		if ((value & CR0_PG) && (state->efer & EFER_LME))
			state->efer |= EFER_LMA;
	}
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		soft_tlb_flush(vcpu, true);
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static int set_cr3(struct engine_vcpu *vcpu, uint64_t value)
{
	if (vcpu->state.cr4 & CR4_PCIDE)
		value &= ~BIT64(63);
	if (soft_long_mode(vcpu) && (value & ~(vcpu->physical_mask | 0xfff)))
		return soft_not_privileged(vcpu);
	vcpu->state.cr3 = value;
	soft_tlb_flush(vcpu, false);
	return SOFT_OK;
}

static int set_cr4(struct engine_vcpu *vcpu, uint64_t value)
{
	uint64_t changed = value ^ vcpu->state.cr4;

	if ((value & ~vcpu->engine->offer->cr4) || (soft_long_mode(vcpu) && !(value & CR4_PAE)))
		return soft_not_privileged(vcpu);
	if ((changed & value & CR4_PCIDE) && (!soft_long_mode(vcpu) || (vcpu->state.cr3 & 0xfff)))
		return soft_not_privileged(vcpu);
	vcpu->state.cr4 = value;
	if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		soft_tlb_flush(vcpu, true);
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static int set_cr8(struct engine_vcpu *vcpu, uint64_t value)
{
	if (value > 15)
		return soft_not_privileged(vcpu);
	vcpu->kick_after = value < vcpu->state.cr8;
	vcpu->state.cr8 = value;
	return SOFT_OK;
}

static int set_control(struct engine_vcpu *vcpu, ZydisRegister reg, uint64_t value)
{
	switch (reg) {
	case ZYDIS_REGISTER_CR0:
		return set_cr0(vcpu, value);
	case ZYDIS_REGISTER_CR2:
		vcpu->state.cr2 = value;
		return SOFT_OK;
	case ZYDIS_REGISTER_CR3:
		return set_cr3(vcpu, value);
	case ZYDIS_REGISTER_CR4:
		return set_cr4(vcpu, value);
	case ZYDIS_REGISTER_CR8:
		return set_cr8(vcpu, value);
	default:
		return soft_raise(vcpu, VECTOR_UD);
	}
}

static int get_control(struct engine_vcpu *vcpu, ZydisRegister reg, uint64_t *ret_value)
{
	switch (reg) {
	case ZYDIS_REGISTER_CR0:
		*ret_value = vcpu->state.cr0;
		return SOFT_OK;
	case ZYDIS_REGISTER_CR2:
		*ret_value = vcpu->state.cr2;
		return SOFT_OK;
	case ZYDIS_REGISTER_CR3:
		*ret_value = vcpu->state.cr3;
		return SOFT_OK;
	case ZYDIS_REGISTER_CR4:
		*ret_value = vcpu->state.cr4;
		return SOFT_OK;
	case ZYDIS_REGISTER_CR8:
		*ret_value = vcpu->state.cr8;
		return SOFT_OK;
	default:
		return soft_raise(vcpu, VECTOR_UD);
	}
}

/* Number of a debug register, 4 and 5 being 6 and 7; -1: there is none. */
static int debug_number(const struct engine_vcpu *vcpu, ZydisRegister reg)
{
	int number = (int)(reg - ZYDIS_REGISTER_DR0);

	if (number > 7 || (number >= 4 && number <= 5 && (vcpu->state.cr4 & CR4_DE)))
		return -1;
	return number >= 4 && number <= 5 ? number + 2 : number;
}

static int step_debug(struct engine_vcpu *vcpu, struct soft_step *step, bool write)
{
	const ZydisDecodedOperand *op = step->insn->op;
	int number = debug_number(vcpu, op[write ? 0 : 1].reg.value);
	struct vcpu_state *state = &vcpu->state;
	uint64_t value;

	if (number < 0)
		return soft_raise(vcpu, VECTOR_UD);
	if (state->dr7 & BIT64(13)) {
		vcpu->fault = (struct soft_fault){ .vector = VECTOR_DB, .dr6 = BIT64(13) };
		return SOFT_FAULT;
	}
	if (!write) {
		value = number < 4 ? state->dr[number] : number == 6 ? state->dr6 : state->dr7;
		soft_set_register(vcpu, op[0].reg.value, value);
		return SOFT_OK;
	}
	value = soft_get_register(vcpu, op[1].reg.value);
	if (number >= 6 && value >> 32)
		return soft_not_privileged(vcpu);
	if (number < 4)
		state->dr[number] = value;
	else if (number == 6)
		state->dr6 = (value & 0xe00f) | 0xffff0ff0;
	else
		state->dr7 = (value & ~0xd000ull) | 0x400;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static int move_segment(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = step->insn->op;
	enum vcpu_segment which;
	uint64_t value;
	int err;

	if (op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && op[1].reg.value >= ZYDIS_REGISTER_ES &&
	    op[1].reg.value <= ZYDIS_REGISTER_GS)
		return soft_set_operand(vcpu, step, 0, soft_get_register(vcpu, op[1].reg.value));
	which = soft_segment_of(op[0].reg.value);
	if (op[0].reg.value == ZYDIS_REGISTER_CS)
		return soft_raise(vcpu, VECTOR_UD);
	err = soft_get_operand(vcpu, step, 1, &value);
	if (!err)
		err = soft_segment_load(vcpu, which, (uint16_t)value);
	if (!err && which == SEG_SS) {
		vcpu->shadow = SHADOW_MOV_SS;
		step->trap = false;
	}
	return err;
}

static bool is_control(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_CR0 && reg <= ZYDIS_REGISTER_CR15;
}

static bool is_debug(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_DR0 && reg <= ZYDIS_REGISTER_DR15;
}

static bool is_segment(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS;
}

int soft_step_mov(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = step->insn->op;
	ZydisRegister to = op[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? op[0].reg.value : 0;
	ZydisRegister from = op[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? op[1].reg.value : 0;
	uint64_t value = 0;
	int err;

	if (is_segment(to) || is_segment(from))
		return move_segment(vcpu, step);
	if (!is_control(to) && !is_control(from) && !is_debug(to) && !is_debug(from))
		return soft_step_plain(vcpu, step);
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	if (is_debug(to) || is_debug(from))
		return step_debug(vcpu, step, is_debug(to));
	if (is_control(to))
		return set_control(vcpu, to, soft_get_register(vcpu, from));
	err = get_control(vcpu, from, &value);
	if (!err)
		soft_set_register(vcpu, to, value);
	return err;
}

int soft_step_clts(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	vcpu->state.cr0 &= ~CR0_TS;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

int soft_step_smsw(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return soft_hides_tables(vcpu) ? soft_not_privileged(vcpu)
				       : soft_set_operand(vcpu, step, 0, vcpu->state.cr0);
}

int soft_step_lmsw(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value;
	int err;

	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	err = soft_get_operand(vcpu, step, 0, &value);
	if (err)
		return err;
	return set_cr0(vcpu, (vcpu->state.cr0 & ~0xeull) | (value & 0xf));
}
