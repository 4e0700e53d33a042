/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel does with segments at each switch of threads, in line: selectors into a register, and
 * FS's and GS's bases from and to one.
 */
#include "engine/soft/translate/translate.h"

static bool is_selector(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_ES &&
	       op->reg.value <= ZYDIS_REGISTER_GS;
}

/* 32 or 64 bits, and not the stack pointer. */
static bool is_wide(const ZydisDecodedOperand *op)
{
	int reg =
		op->type == ZYDIS_OPERAND_TYPE_REGISTER ? soft_register_number(op->reg.value) : -1;

	return op->size >= 32 && reg >= 0 && reg != RSP;
}

static bool is_base(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		return true;
	default:
		return false;
	}
}

bool tr_is_segment(const struct soft_insn *insn)
{
	if (!is_wide(&insn->op[0]))
		return false;
	return is_base(insn->z.mnemonic) ||
	       (insn->z.mnemonic == ZYDIS_MNEMONIC_MOV && is_selector(&insn->op[1]));
}

static uint32_t segment_at(enum vcpu_segment which, size_t field)
{
	return (uint32_t)(offsetof(struct engine_vcpu, state.segment) +
			  (size_t)which * sizeof(struct vcpu_segment_state) + field);
}

/* The guest's register := what has been loaded into the host's of the same name. */
static void store_high(struct tr *tr, int reg)
{
	if (tr_is_high(reg))
		emit_store(&tr->e, reg, VCPU_GPR + 8 * (uint32_t)reg);
}

static void load_selector(struct tr *tr, const struct soft_insn *insn)
{
	int reg = soft_register_number(insn->op[0].reg.value);
	uint32_t from = segment_at(soft_segment_of(insn->op[1].reg.value),
				   offsetof(struct vcpu_segment_state, selector));

	if (tr_is_high(reg))
		tr_forget(tr, reg);
	tr_record(tr, tr->rip);
	tr_clean(tr);
	emit_load16(&tr->e, reg, from);
	store_high(tr, reg);
}

static void read_base(struct tr *tr, int reg, bool wide, uint32_t base)
{
	if (tr_is_high(reg))
		tr_forget(tr, reg);
	tr_clean(tr);
	if (wide)
		emit_load(&tr->e, reg, base);
	else
		emit_load32(&tr->e, reg, base);
	store_high(tr, reg);
}

static void write_base(struct tr *tr, int reg, bool wide, uint32_t base, uint32_t copy)
{
	struct emit *e = &tr->e;

	tr_forget(tr, R10);
	tr_forget(tr, R11);
	if (tr_is_high(reg)) {
		emit_load(e, R10, VCPU_GPR + 8 * (uint32_t)reg);
		reg = R10;
	}
	if (wide) {
		emit_mov(e, R11, reg);
		emit_shl_imm(e, R11, 16);
		emit_sar_imm(e, R11, 16);
		emit_cmp(e, R11, reg);
		tr_step_if(tr, CC_NE);
	}
	if (wide)
		emit_mov(e, R10, reg);
	else
		emit_mov32(e, R10, reg);
	tr_clean(tr);
	emit_store(e, R10, base);
	emit_store(e, R10, copy);
}

void tr_segment(struct tr *tr, const struct soft_insn *insn)
{
	ZydisMnemonic mnemonic = insn->z.mnemonic;
	bool fs = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
	uint32_t base = segment_at(fs ? SEG_FS : SEG_GS, offsetof(struct vcpu_segment_state, base));
	int reg = soft_register_number(insn->op[0].reg.value);
	bool wide = insn->op[0].size == 64;

	if (!is_base(mnemonic)) {
		load_selector(tr, insn);
		return;
	}
	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	emit_test8_gs_imm(&tr->e, offsetof(struct engine_vcpu, state.cr4) + 2, CR4_FSGSBASE >> 16);
	tr_step_if(tr, CC_E);
	if (mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_RDGSBASE)
		read_base(tr, reg, wide, base);
	else
		write_base(tr, reg, wide, base,
			   fs ? offsetof(struct engine_vcpu, fs_base)
			      : offsetof(struct engine_vcpu, gs_base));
	tr_record(tr, tr->next);
}
