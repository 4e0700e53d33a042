/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: system instructions. Privilege first, then operands, then the effect.
 *
 * Left out: SYSENTER and SYSEXIT (#UD, as on AMD in long mode), VMX and SVM (not offered), MONITOR
 * and MWAIT (not offered), TSX (not offered), performance counters.
 */
#include "engine/soft/step.h"

#include <immintrin.h>
#include <string.h>

#include "engine/soft/block.h"
#include "engine/soft/segment.h"

#define CR4_KNOWN                                                                                  \
	(0x7ffull | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)
#define CR0_KNOWN 0xe005003full
#define XCR0_SOFT 7ull

static int not_privileged(struct engine_vcpu *vcpu)
{
	return soft_raise_error(vcpu, VECTOR_GP, 0);
}

static bool is_canonical(uint64_t value)
{
	return (uint64_t)((int64_t)(value << 16) >> 16) == value;
}

static int step_undefined(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	return soft_raise(vcpu, VECTOR_UD);
}

/* Privilege counts first, as AMD's CPUs have it. */
static int step_sysexit(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return vcpu->cpl ? not_privileged(vcpu) : step_undefined(vcpu, step);
}

static int step_nothing(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)vcpu;
	(void)step;
	return SOFT_OK;
}

/* Nothing is cached that a flush would matter to, but the address has to be there. */
static int step_flush_line(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct soft_page page;
	uint64_t linear;
	int err = soft_operand_linear(vcpu, step, &step->insn->op[0], false, &linear);

	return err ? err : soft_translate(vcpu, vcpu->view, linear, ACCESS_READ, &page);
}

static int step_privileged_nothing(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	return vcpu->cpl ? not_privileged(vcpu) : SOFT_OK;
}

static int step_lea(struct engine_vcpu *vcpu, struct soft_step *step)
{
	soft_set_register(vcpu, step->insn->op[0].reg.value,
			  soft_effective_address(vcpu, step, &step->insn->op[1].mem));
	return SOFT_OK;
}

static int step_xlat(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t width = step->insn->z.address_width / 8u;
	enum vcpu_segment segment = SEG_DS;
	uint64_t linear, value = 0;
	int err;

	for (int i = 0; i < step->insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (step->insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			segment = soft_segment_of(step->insn->op[i].mem.segment);
	err = soft_linear(vcpu, segment,
			  (vcpu->gpr[GPR_RBX] + (vcpu->gpr[GPR_RAX] & 0xff)) & soft_mask(width), 1,
			  false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &value, 1);
	if (!err)
		soft_set_gpr(vcpu, GPR_RAX, 1, value);
	return err;
}

/* ---- flags --------------------------------------------------------------------------------------
 */

static bool may_change_if(const struct engine_vcpu *vcpu)
{
	return vcpu->cpl <= (vcpu->system_flags & FLAG_IOPL) >> 12;
}

static int step_cli(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (!may_change_if(vcpu))
		return not_privileged(vcpu);
	vcpu->interrupts_on = 0;
	return SOFT_OK;
}

static int step_sti(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (!may_change_if(vcpu))
		return not_privileged(vcpu);
	if (!vcpu->interrupts_on)
		vcpu->shadow = true;
	vcpu->interrupts_on = (uint32_t)FLAG_IF;
	return SOFT_OK;
}

static int step_ac(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (vcpu->cpl || !(vcpu->state.cr4 & CR4_SMAP))
		return soft_raise(vcpu, VECTOR_UD);
	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_STAC)
		vcpu->system_flags |= FLAG_AC;
	else
		vcpu->system_flags &= (uint32_t)~FLAG_AC;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

/* ---- control and debug registers
 * ------------------------------------------------------------------ */

static int set_cr0(struct engine_vcpu *vcpu, uint64_t value)
{
	struct vcpu_state *state = &vcpu->state;
	uint64_t changed;

	if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) ||
	    ((value & CR0_NW) && !(value & CR0_CD)))
		return not_privileged(vcpu);
	if (!(value & CR0_PG) && soft_code64(vcpu))
		return not_privileged(vcpu);
	if ((value & CR0_PG) && (state->efer & EFER_LME) && !(state->cr4 & CR4_PAE))
		return not_privileged(vcpu);
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
		return not_privileged(vcpu);
	vcpu->state.cr3 = value;
	soft_tlb_flush(vcpu, false);
	return SOFT_OK;
}

static int set_cr4(struct engine_vcpu *vcpu, uint64_t value)
{
	uint64_t changed = value ^ vcpu->state.cr4;

	if ((value & ~CR4_KNOWN) || (soft_long_mode(vcpu) && !(value & CR4_PAE)))
		return not_privileged(vcpu);
	if ((changed & value & CR4_PCIDE) && (!soft_long_mode(vcpu) || (vcpu->state.cr3 & 0xfff)))
		return not_privileged(vcpu);
	vcpu->state.cr4 = value;
	if (changed & (CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		soft_tlb_flush(vcpu, true);
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static int set_cr8(struct engine_vcpu *vcpu, uint64_t value)
{
	if (value > 15)
		return not_privileged(vcpu);
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
		return not_privileged(vcpu);
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
		vcpu->shadow = true;
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

static int step_mov(struct engine_vcpu *vcpu, struct soft_step *step)
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
		return not_privileged(vcpu);
	if (is_debug(to) || is_debug(from))
		return step_debug(vcpu, step, is_debug(to));
	if (is_control(to))
		return set_control(vcpu, to, soft_get_register(vcpu, from));
	err = get_control(vcpu, from, &value);
	if (!err)
		soft_set_register(vcpu, to, value);
	return err;
}

static int step_clts(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (vcpu->cpl)
		return not_privileged(vcpu);
	vcpu->state.cr0 &= ~CR0_TS;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static bool umip(const struct engine_vcpu *vcpu)
{
	return vcpu->cpl && (vcpu->state.cr4 & CR4_UMIP);
}

static int step_smsw(struct engine_vcpu *vcpu, struct soft_step *step)
{
	return umip(vcpu) ? not_privileged(vcpu) : soft_set_operand(vcpu, step, 0, vcpu->state.cr0);
}

static int step_lmsw(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value;
	int err;

	if (vcpu->cpl)
		return not_privileged(vcpu);
	err = soft_get_operand(vcpu, step, 0, &value);
	if (err)
		return err;
	return set_cr0(vcpu, (vcpu->state.cr0 & ~0xeull) | (value & 0xf));
}

/* ---- descriptor tables
 * ------------------------------------------------------------------------------ */

static int step_load_table(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_table_state table = { 0 };
	uint32_t base_bytes = soft_code64(vcpu) ? 8 : 4;
	uint64_t linear, limit = 0;
	int err;

	if (vcpu->cpl)
		return not_privileged(vcpu);
	err = soft_operand_linear(vcpu, step, &step->insn->op[0], false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &limit, 2);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear + 2, &table.base, base_bytes);
	if (err)
		return err;
	table.limit = (uint16_t)limit;
	if (soft_code64(vcpu) && !is_canonical(table.base))
		return not_privileged(vcpu);
	if (!soft_code64(vcpu) && step->insn->z.operand_width == 16)
		table.base &= 0xffffff;
	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_LGDT)
		vcpu->state.gdt = table;
	else
		vcpu->state.idt = table;
	return SOFT_OK;
}

static int step_store_table(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const struct vcpu_table_state *table =
		step->insn->z.mnemonic == ZYDIS_MNEMONIC_SGDT ? &vcpu->state.gdt : &vcpu->state.idt;
	uint8_t image[10];
	uint64_t linear;
	int err;

	if (umip(vcpu))
		return not_privileged(vcpu);
	memcpy(image, &table->limit, 2);
	memcpy(image + 2, &table->base, 8);
	err = soft_operand_linear(vcpu, step, &step->insn->op[0], true, &linear);
	if (!err)
		err = soft_write(vcpu, vcpu->view, linear, image, soft_code64(vcpu) ? 10 : 6);
	return err;
}

static int step_load_selector(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value;
	int err;

	if (soft_real_mode(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return not_privileged(vcpu);
	err = soft_get_operand(vcpu, step, 0, &value);
	if (err)
		return err;
	return soft_segment_system(vcpu,
				   step->insn->z.mnemonic == ZYDIS_MNEMONIC_LTR ? SEG_TR : SEG_LDTR,
				   (uint16_t)value);
}

static int step_store_selector(struct engine_vcpu *vcpu, struct soft_step *step)
{
	enum vcpu_segment which = step->insn->z.mnemonic == ZYDIS_MNEMONIC_STR ? SEG_TR : SEG_LDTR;

	if (soft_real_mode(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (umip(vcpu))
		return not_privileged(vcpu);
	return soft_set_operand(vcpu, step, 0, vcpu->state.segment[which].selector);
}

/* LDS, LES, LFS, LGS, LSS */
static int step_load_far(struct engine_vcpu *vcpu, struct soft_step *step)
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

/* Can this level see the descriptor for what the instruction asks? */
static bool descriptor_visible(const struct engine_vcpu *vcpu, ZydisMnemonic mnemonic,
			       uint16_t selector, const struct vcpu_segment_state *segment)
{
	uint16_t a = segment->attributes;
	bool code = (a & ATTRIBUTE_S) && (a & 8), conforming = code && (a & 4);
	uint8_t dpl = ATTRIBUTE_DPL(a), type = a & 0xf;

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
	return type == 2 || type == 9 || type == 11 ||
	       (mnemonic == ZYDIS_MNEMONIC_LAR && type == 12);
}

/* LAR, LSL, VERR, VERW: ZF says whether there is an answer. */
static int step_look_at_selector(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	bool verify = mnemonic == ZYDIS_MNEMONIC_VERR || mnemonic == ZYDIS_MNEMONIC_VERW, found;
	struct vcpu_segment_state segment;
	uint64_t selector, descriptor = 0;
	int err;

	if (soft_real_mode(vcpu))
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

/* ---- TLB
 * -------------------------------------------------------------------------------------------- */

static int step_invlpg(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = &step->insn->op[0];

	if (vcpu->cpl)
		return not_privileged(vcpu);
	soft_tlb_flush_page(vcpu,
			    soft_effective_address(vcpu, step, &op->mem) +
				    (soft_code64(vcpu) ? 0 : vcpu->state.segment[SEG_DS].base));
	return SOFT_OK;
}

static int step_invpcid(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t descriptor[2] = { 0 }, linear, type;
	int err;

	if (vcpu->cpl)
		return not_privileged(vcpu);
	type = soft_get_register(vcpu, step->insn->op[0].reg.value);
	err = soft_operand_linear(vcpu, step, &step->insn->op[1], false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, descriptor, 16);
	if (err)
		return err;
	if (type > 3 || (type < 2 && descriptor[0] >> 12) ||
	    (type == 0 && !is_canonical(descriptor[1])))
		return not_privileged(vcpu);
	if (type == 0)
		soft_tlb_flush_page(vcpu, descriptor[1]);
	else
		soft_tlb_flush(vcpu, type == 2);
	return SOFT_OK;
}

/* ---- MSRs, CPUID, time
 * -------------------------------------------------------------------------------- */

static void set_pair(struct engine_vcpu *vcpu, uint64_t value)
{
	vcpu->gpr[GPR_RAX] = (uint32_t)value;
	vcpu->gpr[GPR_RDX] = value >> 32;
}

static int step_rdmsr(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value = 0;
	int err;

	(void)step;
	if (vcpu->cpl)
		return not_privileged(vcpu);
	err = soft_msr_read(vcpu, (uint32_t)vcpu->gpr[GPR_RCX], &value);
	if (!err)
		set_pair(vcpu, value);
	return err;
}

static int step_wrmsr(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (vcpu->cpl)
		return not_privileged(vcpu);
	return soft_msr_write(vcpu, (uint32_t)vcpu->gpr[GPR_RCX],
			      (uint32_t)vcpu->gpr[GPR_RAX] | vcpu->gpr[GPR_RDX] << 32);
}

static uint32_t xsave_bytes(const struct engine_vcpu *vcpu, uint64_t parts, bool compacted)
{
	uint32_t bytes = 576;

	for (uint32_t i = 2; i < 32; i++) {
		const struct cpuid_leaf *leaf = cpuid_find(&vcpu->cpuid, 0xd, i);

		if (!(parts >> i & 1) || !leaf)
			continue;
		if (compacted)
			bytes += leaf->eax;
		else if (leaf->ebx + leaf->eax > bytes)
			bytes = leaf->ebx + leaf->eax;
	}
	return bytes;
}

/* The bits that follow from the present state. */
static void patch_leaf(const struct engine_vcpu *vcpu, struct cpuid_leaf *leaf)
{
	if (leaf->function == 1) {
		leaf->ecx &= ~(1u << 27);
		if (vcpu->state.cr4 & CR4_OSXSAVE)
			leaf->ecx |= 1u << 27;
	}
	if (leaf->function == 0xd && leaf->index == 0)
		leaf->ebx = xsave_bytes(vcpu, vcpu->state.xcr0, false);
	if (leaf->function == 0xd && leaf->index == 1)
		leaf->ebx = xsave_bytes(vcpu, vcpu->state.xcr0, true);
}

static int step_cpuid(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t function = (uint32_t)vcpu->gpr[GPR_RAX];
	const struct cpuid_leaf *found =
		cpuid_find(&vcpu->cpuid, function, (uint32_t)vcpu->gpr[GPR_RCX]);
	struct cpuid_leaf leaf = { 0 };

	(void)step;
	if (found)
		leaf = *found;
	patch_leaf(vcpu, &leaf);
	vcpu->gpr[GPR_RAX] = leaf.eax;
	vcpu->gpr[GPR_RBX] = leaf.ebx;
	vcpu->gpr[GPR_RCX] = leaf.ecx;
	vcpu->gpr[GPR_RDX] = leaf.edx;
	return SOFT_OK;
}

static int step_rdtsc(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (vcpu->cpl && (vcpu->state.cr4 & CR4_TSD))
		return not_privileged(vcpu);
	set_pair(vcpu, soft_tsc(vcpu));
	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
		vcpu->gpr[GPR_RCX] = (uint32_t)vcpu->state.msr[MSR_TSC_AUX];
	return SOFT_OK;
}

static int step_rdpid(struct engine_vcpu *vcpu, struct soft_step *step)
{
	soft_set_register(vcpu, step->insn->op[0].reg.value,
			  (uint32_t)vcpu->state.msr[MSR_TSC_AUX]);
	return SOFT_OK;
}

static int step_xgetbv(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	switch ((uint32_t)vcpu->gpr[GPR_RCX]) {
	case 0:
		set_pair(vcpu, vcpu->state.xcr0);
		return SOFT_OK;
	case 1:
		soft_fpu_release(vcpu);
		set_pair(vcpu, vcpu->xsave[512] & vcpu->state.xcr0);
		return SOFT_OK;
	default:
		return not_privileged(vcpu);
	}
}

static int step_xsetbv(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value = (uint32_t)vcpu->gpr[GPR_RAX] | vcpu->gpr[GPR_RDX] << 32;

	(void)step;
	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl || (uint32_t)vcpu->gpr[GPR_RCX] || !(value & 1) ||
	    (value & ~(cpuid_xcr0(&vcpu->cpuid) & XCR0_SOFT)) || (value & 6) == 4)
		return not_privileged(vcpu);
	vcpu->state.xcr0 = value;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

/* ---- bases of FS and GS
 * ------------------------------------------------------------------------------- */

static int step_swapgs(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t base = vcpu->state.segment[SEG_GS].base;

	(void)step;
	if (!soft_code64(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return not_privileged(vcpu);
	soft_segment_set_base(vcpu, SEG_GS, vcpu->state.msr[MSR_KERNEL_GS_BASE]);
	vcpu->state.msr[MSR_KERNEL_GS_BASE] = base;
	return SOFT_OK;
}

static int step_base(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	ZydisRegister reg = step->insn->op[0].reg.value;
	enum vcpu_segment which =
		mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE ? SEG_FS
											   : SEG_GS;
	uint64_t value;

	if (!soft_code64(vcpu) || !(vcpu->state.cr4 & CR4_FSGSBASE))
		return soft_raise(vcpu, VECTOR_UD);
	if (mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_RDGSBASE) {
		soft_set_register(vcpu, reg, vcpu->state.segment[which].base);
		return SOFT_OK;
	}
	value = soft_get_register(vcpu, reg);
	if ((uint64_t)((int64_t)(value << 16) >> 16) != value)
		return not_privileged(vcpu);
	soft_segment_set_base(vcpu, which, value);
	return SOFT_OK;
}

/* ---- SYSCALL and SYSRET (APM vol. 3)
 * -------------------------------------------------------------------- */

static void flat_segment(struct vcpu_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct vcpu_segment_state){ .limit = 0xffffffff,
						.selector = selector,
						.attributes = attributes };
}

static int step_syscall(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_state *state = &vcpu->state;
	uint16_t selector = (uint16_t)(state->msr[MSR_STAR] >> 32 & 0xfffc);
	uint64_t flags = soft_rflags(vcpu);

	if (!(state->efer & EFER_SCE) || !soft_long_mode(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	vcpu->gpr[GPR_RCX] = step->next;
	vcpu->gpr[11] = flags & ~FLAG_RF;
	vcpu->rip = soft_code64(vcpu) ? state->msr[MSR_LSTAR] : state->msr[MSR_CSTAR];
	flat_segment(&state->segment[SEG_CS], selector, 0xa09b);
	flat_segment(&state->segment[SEG_SS], (uint16_t)(selector + 8), 0xc093);
	vcpu->cpl = 0;
	soft_set_rflags(vcpu, flags & ~state->msr[MSR_SFMASK] & ~FLAG_RF);
	step->trap = vcpu->system_flags & FLAG_TF; /* as it is now, not as it was */
	step->jumped = true;
	return SOFT_OK;
}

static int step_sysret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_state *state = &vcpu->state;
	uint16_t selector = (uint16_t)(state->msr[MSR_STAR] >> 48 | 3);
	bool wide = step->insn->z.raw.rex.W;
	uint64_t mask = 0x3c7fd7 & ~(FLAG_RF | FLAG_VM | 2);

	if (!(state->efer & EFER_SCE) || !soft_long_mode(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return not_privileged(vcpu);
	if (wide && (uint64_t)((int64_t)(vcpu->gpr[GPR_RCX] << 16) >> 16) != vcpu->gpr[GPR_RCX])
		return not_privileged(vcpu);
	vcpu->rip = wide ? vcpu->gpr[GPR_RCX] : (uint32_t)vcpu->gpr[GPR_RCX];
	flat_segment(&state->segment[SEG_CS], (uint16_t)(selector + (wide ? 16 : 0)),
		     wide ? 0xa0fb : 0xc0fb);
	flat_segment(&state->segment[SEG_SS], (uint16_t)(selector + 8), 0xc0f3);
	vcpu->cpl = 3;
	soft_set_rflags(vcpu, vcpu->gpr[11] & mask);
	step->trap = vcpu->system_flags & FLAG_TF;
	step->jumped = true;
	return SOFT_OK;
}

/* ---- ports, HLT
 * --------------------------------------------------------------------------------------------- */

int soft_check_port(struct engine_vcpu *vcpu, uint16_t port, uint32_t bytes)
{
	const struct vcpu_segment_state *tr = &vcpu->state.segment[SEG_TR];
	uint64_t offset = 0, bits = 0;
	int err;

	if (vcpu->cpl <= (vcpu->system_flags & FLAG_IOPL) >> 12)
		return SOFT_OK;
	if (tr->limit < 103)
		return not_privileged(vcpu);
	err = soft_read(vcpu, VIEW_KERNEL, tr->base + 102, &offset, 2);
	if (err)
		return err;
	offset += port / 8u;
	if (offset + 1 > tr->limit)
		return not_privileged(vcpu);
	err = soft_read(vcpu, VIEW_KERNEL, tr->base + offset, &bits, 2);
	if (err)
		return err;
	return bits >> (port % 8u) & ((1u << bytes) - 1) ? not_privileged(vcpu) : SOFT_OK;
}

static int step_port(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperand *op = step->insn->op;
	bool write = step->insn->z.mnemonic == ZYDIS_MNEMONIC_OUT;
	const ZydisDecodedOperand *data = &op[write ? 1 : 0], *port = &op[write ? 0 : 1];
	uint32_t bytes = data->size / 8u;
	uint64_t value = 0;
	uint16_t number;
	int err;

	number = port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint16_t)port->imm.value.u
							    : (uint16_t)vcpu->gpr[GPR_RDX];
	if (vcpu->answered) {
		memcpy(&value, vcpu->io_data, 4);
		if (!write)
			soft_set_gpr(vcpu, GPR_RAX, bytes, value);
		return SOFT_OK;
	}
	err = soft_check_port(vcpu, number, bytes);
	if (err)
		return err;
	memset(vcpu->io_data, 0, 8);
	if (write)
		memcpy(vcpu->io_data, &vcpu->gpr[GPR_RAX], 4);
	vcpu->open = OPEN_IO;
	vcpu->pending.kind = EXIT_IO;
	vcpu->pending.io.port = number;
	vcpu->pending.io.size = (uint8_t)bytes;
	vcpu->pending.io.write = write;
	vcpu->pending.io.count = 1;
	vcpu->pending.io.data = vcpu->io_data;
	return SOFT_EXIT;
}

static int step_hlt(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (vcpu->cpl)
		return not_privileged(vcpu);
	vcpu->rip = step->next;
	vcpu->pending.kind = EXIT_HLT;
	return SOFT_EXIT;
}

/* ---- XSAVE and its family (SDM vol. 1, 13)
 * ------------------------------------------------------------------- */

/*
 * Executed on a copy, so that pages may be crossed. XSAVEOPT and XSAVES become XSAVEC and XSAVE,
 * which write the same or more: what the host remembers of its last XRSTOR is not about the guest.
 */
static int step_xsave(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	bool restore = mnemonic == ZYDIS_MNEMONIC_XRSTOR || mnemonic == ZYDIS_MNEMONIC_XRSTOR64;
	bool compacted = mnemonic == ZYDIS_MNEMONIC_XSAVEC || mnemonic == ZYDIS_MNEMONIC_XSAVEC64;
	bool wide = step->insn->z.raw.rex.W;
	uint64_t rdx = vcpu->gpr[GPR_RDX], rax = vcpu->gpr[GPR_RAX], linear;
	uint64_t parts = ((uint32_t)rax | rdx << 32) & vcpu->state.xcr0;
	uint32_t bytes = xsave_bytes(vcpu, vcpu->state.xcr0, false);
	struct soft_insn insn = { 0 };
	int err;

	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->state.cr0 & CR0_TS)
		return soft_raise(vcpu, VECTOR_NM);
	err = soft_linear(vcpu, soft_segment_of(step->insn->op[0].mem.segment),
			  soft_effective_address(vcpu, step, &step->insn->op[0].mem), bytes,
			  !restore, &linear);
	if (!err && (linear & 63))
		err = not_privileged(vcpu);
	if (!err && !restore)
		err = soft_probe_write(vcpu, vcpu->view, linear, bytes);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, vcpu->bounce, bytes);
	if (err)
		return err;
	insn.z.machine_mode = ZYDIS_MACHINE_MODE_LONG_64;
	insn.z.encoding = ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	insn.z.attributes = ZYDIS_ATTRIB_HAS_MODRM | ZYDIS_ATTRIB_HAS_REX;
	insn.z.opcode_map = ZYDIS_OPCODE_MAP_0F;
	insn.z.opcode = compacted ? 0xc7 : 0xae;
	insn.z.raw.modrm.reg = restore ? 5 : 4;
	insn.z.raw.rex.W = wide;
	insn.operand_registers = 1u << GPR_RAX | 1u << GPR_RDX;
	vcpu->gpr[GPR_RAX] = (uint32_t)parts;
	vcpu->gpr[GPR_RDX] = parts >> 32;
	err = soft_execute_copy(vcpu, &insn);
	vcpu->gpr[GPR_RAX] = rax;
	vcpu->gpr[GPR_RDX] = rdx;
	if (!err && !restore)
		err = soft_write(vcpu, vcpu->view, linear, vcpu->bounce, bytes);
	return err;
}

/* ---- the table
 * ---------------------------------------------------------------------------------------------- */

static const struct {
	ZydisMnemonic mnemonic;
	soft_handler *handler;
} handlers[] = {
	{ ZYDIS_MNEMONIC_MOV, step_mov },
	{ ZYDIS_MNEMONIC_LEA, step_lea },
	{ ZYDIS_MNEMONIC_XLAT, step_xlat },
	{ ZYDIS_MNEMONIC_CLI, step_cli },
	{ ZYDIS_MNEMONIC_STI, step_sti },
	{ ZYDIS_MNEMONIC_STAC, step_ac },
	{ ZYDIS_MNEMONIC_CLAC, step_ac },
	{ ZYDIS_MNEMONIC_CLTS, step_clts },
	{ ZYDIS_MNEMONIC_SMSW, step_smsw },
	{ ZYDIS_MNEMONIC_LMSW, step_lmsw },
	{ ZYDIS_MNEMONIC_LGDT, step_load_table },
	{ ZYDIS_MNEMONIC_LIDT, step_load_table },
	{ ZYDIS_MNEMONIC_SGDT, step_store_table },
	{ ZYDIS_MNEMONIC_SIDT, step_store_table },
	{ ZYDIS_MNEMONIC_LLDT, step_load_selector },
	{ ZYDIS_MNEMONIC_LTR, step_load_selector },
	{ ZYDIS_MNEMONIC_SLDT, step_store_selector },
	{ ZYDIS_MNEMONIC_STR, step_store_selector },
	{ ZYDIS_MNEMONIC_LDS, step_load_far },
	{ ZYDIS_MNEMONIC_LES, step_load_far },
	{ ZYDIS_MNEMONIC_LFS, step_load_far },
	{ ZYDIS_MNEMONIC_LGS, step_load_far },
	{ ZYDIS_MNEMONIC_LSS, step_load_far },
	{ ZYDIS_MNEMONIC_LAR, step_look_at_selector },
	{ ZYDIS_MNEMONIC_LSL, step_look_at_selector },
	{ ZYDIS_MNEMONIC_VERR, step_look_at_selector },
	{ ZYDIS_MNEMONIC_VERW, step_look_at_selector },
	{ ZYDIS_MNEMONIC_INVLPG, step_invlpg },
	{ ZYDIS_MNEMONIC_INVPCID, step_invpcid },
	{ ZYDIS_MNEMONIC_RDMSR, step_rdmsr },
	{ ZYDIS_MNEMONIC_WRMSR, step_wrmsr },
	{ ZYDIS_MNEMONIC_CPUID, step_cpuid },
	{ ZYDIS_MNEMONIC_RDTSC, step_rdtsc },
	{ ZYDIS_MNEMONIC_RDTSCP, step_rdtsc },
	{ ZYDIS_MNEMONIC_RDPID, step_rdpid },
	{ ZYDIS_MNEMONIC_XGETBV, step_xgetbv },
	{ ZYDIS_MNEMONIC_XSETBV, step_xsetbv },
	{ ZYDIS_MNEMONIC_SWAPGS, step_swapgs },
	{ ZYDIS_MNEMONIC_RDFSBASE, step_base },
	{ ZYDIS_MNEMONIC_RDGSBASE, step_base },
	{ ZYDIS_MNEMONIC_WRFSBASE, step_base },
	{ ZYDIS_MNEMONIC_WRGSBASE, step_base },
	{ ZYDIS_MNEMONIC_SYSCALL, step_syscall },
	{ ZYDIS_MNEMONIC_SYSRET, step_sysret },
	{ ZYDIS_MNEMONIC_IN, step_port },
	{ ZYDIS_MNEMONIC_OUT, step_port },
	{ ZYDIS_MNEMONIC_HLT, step_hlt },
	{ ZYDIS_MNEMONIC_XSAVE, step_xsave },
	{ ZYDIS_MNEMONIC_XSAVE64, step_xsave },
	{ ZYDIS_MNEMONIC_XSAVEOPT, step_xsave },
	{ ZYDIS_MNEMONIC_XSAVEOPT64, step_xsave },
	{ ZYDIS_MNEMONIC_XSAVEC, step_xsave },
	{ ZYDIS_MNEMONIC_XSAVEC64, step_xsave },
	{ ZYDIS_MNEMONIC_XRSTOR, step_xsave },
	{ ZYDIS_MNEMONIC_XRSTOR64, step_xsave },
	{ ZYDIS_MNEMONIC_WBINVD, step_privileged_nothing },
	{ ZYDIS_MNEMONIC_INVD, step_privileged_nothing },
	{ ZYDIS_MNEMONIC_CLFLUSH, step_flush_line },
	{ ZYDIS_MNEMONIC_CLFLUSHOPT, step_flush_line },
	{ ZYDIS_MNEMONIC_CLWB, step_flush_line },
	{ ZYDIS_MNEMONIC_CLDEMOTE, step_nothing },
	{ ZYDIS_MNEMONIC_RDSSPD, step_nothing }, /* no shadow stacks: a hint */
	{ ZYDIS_MNEMONIC_RDSSPQ, step_nothing },
	{ ZYDIS_MNEMONIC_SERIALIZE, step_nothing },
	{ ZYDIS_MNEMONIC_NOP, step_nothing },
	{ ZYDIS_MNEMONIC_ENDBR32, step_nothing },
	{ ZYDIS_MNEMONIC_ENDBR64, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCH, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCHNTA, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCHT0, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCHT1, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCHT2, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCHW, step_nothing },
	{ ZYDIS_MNEMONIC_PREFETCHWT1, step_nothing },
	{ ZYDIS_MNEMONIC_UD0, step_undefined },
	{ ZYDIS_MNEMONIC_UD1, step_undefined },
	{ ZYDIS_MNEMONIC_UD2, step_undefined },
	{ ZYDIS_MNEMONIC_MONITOR, step_undefined },
	{ ZYDIS_MNEMONIC_MWAIT, step_undefined },
	{ ZYDIS_MNEMONIC_MONITORX, step_undefined },
	{ ZYDIS_MNEMONIC_MWAITX, step_undefined },
	{ ZYDIS_MNEMONIC_SYSENTER, step_undefined },
	{ ZYDIS_MNEMONIC_SYSEXIT, step_sysexit },
	{ ZYDIS_MNEMONIC_RSM, step_undefined },
	{ ZYDIS_MNEMONIC_GETSEC, step_undefined },
	{ ZYDIS_MNEMONIC_RDPMC, step_undefined },
	{ ZYDIS_MNEMONIC_RDPKRU, step_undefined },
	{ ZYDIS_MNEMONIC_WRPKRU, step_undefined },
	{ ZYDIS_MNEMONIC_XSAVES, step_undefined },
	{ ZYDIS_MNEMONIC_XSAVES64, step_undefined },
	{ ZYDIS_MNEMONIC_XRSTORS, step_undefined },
	{ ZYDIS_MNEMONIC_XRSTORS64, step_undefined },
	{ ZYDIS_MNEMONIC_VMCALL, step_undefined },
	{ ZYDIS_MNEMONIC_VMMCALL, step_undefined },
	{ ZYDIS_MNEMONIC_VMRUN, step_undefined },
	{ ZYDIS_MNEMONIC_XBEGIN, step_undefined },
	{ ZYDIS_MNEMONIC_XEND, step_undefined },
	{ ZYDIS_MNEMONIC_XTEST, step_undefined },
	{ ZYDIS_MNEMONIC_XABORT, step_undefined },
	{ ZYDIS_MNEMONIC_UMONITOR, step_undefined },
	{ ZYDIS_MNEMONIC_UMWAIT, step_undefined },
	{ ZYDIS_MNEMONIC_TPAUSE, step_undefined },
	{ ZYDIS_MNEMONIC_CLZERO, step_undefined },
	{ ZYDIS_MNEMONIC_MOVDIRI, step_undefined },
	{ ZYDIS_MNEMONIC_MOVDIR64B, step_undefined },
};

soft_handler *soft_system_handler(ZydisMnemonic mnemonic)
{
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
		if (handlers[i].mnemonic == mnemonic)
			return handlers[i].handler;
	return NULL;
}
