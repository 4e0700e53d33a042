/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that do not end a block: copied, with their operand looked up; LEA, PUSH, POP,
 * LEAVE.
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"

static bool is_nothing(const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1:
		return true;
	default:
		return false;
	}
}

static bool is_general(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->size == 64 &&
	       soft_register_number(op->reg.value) >= 0;
}

static enum tr_kind push_kind(const struct soft_insn *insn)
{
	const ZydisDecodedOperand *op = &insn->op[0];

	if (insn->z.operand_width != 64)
		return KIND_STEP;
	if (is_general(op) || op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return KIND_PUSH;
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && insn->memory == 0 ? KIND_PUSH : KIND_STEP;
}

static enum tr_kind plain_kind(const struct soft_insn *insn, uint8_t mode)
{
	bool avx = insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;

	if (!soft_insn_is_plain(insn) || soft_insn_has_pointers(insn))
		return KIND_STEP;
	if ((mode & (MODE_NO_VECTOR | MODE_NO_AVX)) && soft_insn_is_vector(insn) &&
	    (avx || (mode & MODE_NO_VECTOR)))
		return KIND_STEP;
	if (soft_insn_is_bit_string(insn) && insn->z.address_width != 64)
		return KIND_STEP;
	/* Its operand's address takes one of the two. */
	if (insn->memory >= 0 && tr_names(insn->operand_registers, R14) &&
	    tr_names(insn->operand_registers, R15))
		return KIND_STEP;
	return KIND_PLAIN;
}

/*
 * In VIEW_KERNEL SMAP is on and AC is 0. VIEW_KERNEL_USER may be for want of SMAP: CLAC has to look
 * at that, and STAC there is rare.
 */
static enum tr_kind ac_kind(const struct soft_insn *insn, uint8_t mode)
{
	bool set = insn->z.mnemonic == ZYDIS_MNEMONIC_STAC;

	if (insn->length != 3) /* no prefixes */
		return KIND_STEP;
	if ((mode & MODE_VIEW) == VIEW_KERNEL)
		return set ? KIND_AC : KIND_NOTHING;
	return (mode & MODE_VIEW) == VIEW_KERNEL_USER && !set ? KIND_AC : KIND_STEP;
}

enum tr_kind tr_kind(const struct soft_insn *insn, uint8_t mode)
{
	if (tr_is_jump(insn))
		return KIND_JUMP;
	if (is_nothing(insn))
		return KIND_NOTHING;
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_PAUSE: /* with REX.B it is XCHG with r8 */
		return insn->z.raw.rex.B ? plain_kind(insn, mode) : KIND_STEP;
	case ZYDIS_MNEMONIC_LEA:
		return insn->z.operand_width >= 32 ? KIND_LEA : KIND_STEP;
	case ZYDIS_MNEMONIC_PUSH:
		return push_kind(insn);
	case ZYDIS_MNEMONIC_POP:
		return insn->z.operand_width == 64 && is_general(&insn->op[0]) ? KIND_POP
									       : KIND_STEP;
	case ZYDIS_MNEMONIC_CLI:
		return (mode & MODE_VIEW) != VIEW_USER ? KIND_CLI : KIND_STEP;
	case ZYDIS_MNEMONIC_STI:
		return (mode & MODE_VIEW) != VIEW_USER ? KIND_STI : KIND_STEP;
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_CLAC:
		return ac_kind(insn, mode);
	case ZYDIS_MNEMONIC_PUSHFQ:
		return KIND_PUSHF;
	case ZYDIS_MNEMONIC_SWAPGS:
		return (mode & MODE_VIEW) != VIEW_USER ? KIND_SWAPGS : KIND_STEP;
	case ZYDIS_MNEMONIC_LEAVE:
		return insn->z.operand_width == 64 ? KIND_LEAVE : KIND_STEP;
	default:
		return plain_kind(insn, mode);
	}
}

/* Flags that this one reads, or leaves as they are for a later one, are needed in the register. */
static void need_flags(struct tr *tr, const struct soft_insn *insn)
{
	uint32_t kept = tr->live_after & ~insn->flags_write;

	if (tr->flags != FLAGS_IN_SLOT || !(insn->flags_read || (insn->flags_change && kept)))
		return;
	tr_record(tr, tr->rip);
	tr_restore_flags(tr, tr_scratch(tr));
	tr->flags = FLAGS_IN_HOST;
}

static void load_high(struct tr *tr, uint16_t registers)
{
	for (int reg = R14; reg <= R15; reg++) {
		if (!tr_names(registers, reg))
			continue;
		tr_forget(tr, reg);
		emit_load(&tr->e, reg, VCPU_GPR + 8 * (uint32_t)reg);
	}
}

static void store_high(struct tr *tr, uint16_t registers)
{
	if (tr_names(registers, R14))
		emit_store(&tr->e, R14, VCPU_GPR + 8 * R14);
	if (tr_names(registers, R15))
		emit_store(&tr->e, R15, VCPU_GPR + 8 * R15);
}

static void translate_registers(struct tr *tr, const struct soft_insn *insn)
{
	need_flags(tr, insn);
	tr_record(tr, tr->rip);
	load_high(tr, insn->registers);
	tr_clean(tr);
	emit_bytes(&tr->e, insn->bytes, insn->length);
	store_high(tr, insn->registers_write);
	if (insn->flags_change)
		tr->flags = FLAGS_IN_HOST;
}

/* The operand's address in a register without REX prefix; that register's value waits in r15. */
static int swap_in(struct tr *tr, const struct soft_insn *insn)
{
	static const uint8_t candidates[] = { RSI, RDI, RBX, RCX, RDX, RAX };
	int base = RSI;

	for (size_t i = 0; i < sizeof(candidates); i++) {
		if (!tr_names(insn->operand_registers, candidates[i])) {
			base = candidates[i];
			break;
		}
	}
	emit_move(&tr->e, R15, base);
	tr_clean(tr);
	emit_move(&tr->e, base, R14);
	tr_record(tr, tr->rip)->swapped = (uint8_t)base;
	return base;
}

static void emit_host_form(struct tr *tr, const struct soft_insn *insn, struct host_operand at)
{
	uint8_t bytes[HOST_INSN_MAX];

	tr_clean(tr);
	emit_bytes(&tr->e, bytes, soft_encode(insn, at, bytes));
	if (insn->flags_change)
		tr->flags = FLAGS_IN_HOST;
}

static void translate_memory(struct tr *tr, const struct soft_insn *insn)
{
	struct host_operand at;
	int base = R14;

	if (tr_shared_operand(tr, insn, &at)) {
		load_high(tr, insn->operand_registers);
		emit_host_form(tr, insn, at);
		store_high(tr, insn->registers_write);
		return;
	}
	tr_operand(tr, insn, insn->memory_write);
	if (insn->high_byte) {
		base = swap_in(tr, insn);
	} else if (tr_names(insn->operand_registers, R14)) {
		emit_move(&tr->e, R15, R14);
		emit_load(&tr->e, R14, VCPU_GPR + 8 * R14);
		base = R15;
	} else if (tr_names(insn->operand_registers, R15)) {
		emit_load(&tr->e, R15, VCPU_GPR + 8 * R15);
	}
	emit_host_form(tr, insn, (struct host_operand){ base, -1, 0, 0 });
	if (insn->high_byte)
		emit_move(&tr->e, base, R15);
	else
		store_high(tr, insn->registers_write);
}

static void translate_lea(struct tr *tr, const struct soft_insn *insn)
{
	const ZydisDecodedOperandMem *mem = &insn->op[1].mem;
	int to = soft_register_number(insn->op[0].reg.value);
	bool constant = soft_register_number(mem->base) < 0 && soft_register_number(mem->index) < 0;

	if (to >= R14)
		tr_forget(tr, to);
	tr_record(tr, tr->rip);
	if (constant && insn->z.operand_width == 64) {
		tr_effective(tr, insn, to);
	} else if (constant) {
		tr_forget(tr, R14);
		tr_effective(tr, insn, R14);
		tr_clean(tr);
		/* mov to32, r14d */
		emit8(&tr->e, to >= 8 ? 0x45 : 0x44);
		emit8(&tr->e, 0x89);
		emit8(&tr->e, 0xf0u | ((uint32_t)to & 7));
	} else {
		load_high(tr, insn->registers);
		tr_clean(tr);
		emit_bytes(&tr->e, insn->bytes, insn->length);
	}
	if (to >= R14)
		emit_store(&tr->e, to, VCPU_GPR + 8 * (uint32_t)to);
}

/* lea rsp, [rsp + 8] or [rsp - 8] */
static void emit_move_stack(struct tr *tr, int bytes)
{
	emit8(&tr->e, 0x48);
	emit8(&tr->e, 0x8d);
	emit8(&tr->e, 0x64);
	emit8(&tr->e, 0x24);
	emit8(&tr->e, (uint32_t)bytes & 0xff);
}

/* mov [r14], reg or mov reg, [r14] */
static void emit_at_r14(struct tr *tr, uint8_t opcode, int reg)
{
	tr_emit_at(tr, opcode, reg, (struct host_operand){ R14, -1, 0, 0 });
}

/* The operand to be pushed: its address is looked up as any, and its value waits in memory. */
static void push_memory(struct tr *tr, const struct soft_insn *insn)
{
	tr_operand(tr, insn, false);
	emit_at_r14(tr, 0x8b, R15);
	emit_store(&tr->e, R15, VCPU_SCRATCH);
	tr_stack(tr, RSP, -8, true);
	emit_load(&tr->e, R15, VCPU_SCRATCH);
	tr_clean(tr);
	emit_at_r14(tr, 0x89, R15);
	emit_move_stack(tr, -8);
}

static void translate_push(struct tr *tr, const struct soft_insn *insn)
{
	const ZydisDecodedOperand *op = &insn->op[0];
	struct host_operand at;
	int reg;

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		push_memory(tr, insn);
		return;
	}
	at = tr_stack(tr, RSP, -8, true);
	if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		reg = tr_scratch_besides(tr, at);
		emit_constant(&tr->e, reg, op->imm.value.u);
	} else {
		reg = soft_register_number(op->reg.value);
		if (reg >= R14) {
			uint32_t from = VCPU_GPR + 8 * (uint32_t)reg;

			reg = tr_scratch_besides(tr, at);
			emit_load(&tr->e, reg, from);
		}
	}
	tr_clean(tr);
	tr_emit_at(tr, 0x89, reg, at);
	emit_move_stack(tr, -8);
}

static void translate_pop(struct tr *tr, const struct soft_insn *insn)
{
	int reg = soft_register_number(insn->op[0].reg.value);
	struct host_operand at = tr_stack(tr, RSP, 0, false);

	if (reg >= R14) {
		int value = tr_scratch_besides(tr, at);

		tr_emit_at(tr, 0x8b, value, at);
		emit_store(&tr->e, value, VCPU_GPR + 8 * (uint32_t)reg);
	} else {
		tr_emit_at(tr, 0x8b, reg, at);
	}
	if (reg != RSP)
		emit_move_stack(tr, 8);
}

static void translate_leave(struct tr *tr)
{
	static const uint8_t lea_rsp_rbp_8[] = { 0x48, 0x8d, 0x65, 0x08 };

	struct host_operand at = tr_stack(tr, RBP, 0, false);

	tr_emit_at(tr, 0x8b, R14, at);
	tr_forget(tr, R14);
	tr_clean(tr);
	emit_bytes(&tr->e, lea_rsp_rbp_8, sizeof(lea_rsp_rbp_8));
	emit_move(&tr->e, RBP, R14);
}

static void translate_cli(struct tr *tr)
{
	tr_record(tr, tr->rip);
	emit_gs(&tr->e, false, 0xc7, 0, offsetof(struct engine_vcpu, interrupts_on));
	emit32(&tr->e, 0);
}

/* If an interrupt waits for this, C does it. Else: on from now, but not before the next one. */
static void translate_sti(struct tr *tr)
{
	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	/* cmp byte gs:[window_wanted], 0 ; jne */
	emit_gs(&tr->e, false, 0x80, 7, offsetof(struct engine_vcpu, window_wanted));
	emit8(&tr->e, 0);
	emit8(&tr->e, 0x0f);
	emit8(&tr->e, 0x85);
	emit32(&tr->e, 0);
	tr_cold(tr, tr->e.at - 4,
		tr->flags == FLAGS_IN_SLOT ? SOFT_REASON_STEP_SLOT : SOFT_REASON_STEP);
	tr_clean(tr);
	emit_gs(&tr->e, false, 0xc7, 0, offsetof(struct engine_vcpu, interrupts_on));
	emit32(&tr->e, (uint32_t)FLAG_IF);
	tr->shadow_rip = tr->next;
	tr_record(tr, tr->next);
}

static void emit_and_r15(struct emit *e, uint32_t mask)
{
	emit8(e, 0x41);
	emit8(e, 0x81);
	emit8(e, 0xe7);
	emit32(e, mask);
}

/* shl (/4) or shr (/5) r15d, count */
static void emit_shift_r15(struct emit *e, uint32_t extension, uint32_t count)
{
	emit8(e, 0x41);
	emit8(e, 0xc1);
	emit8(e, 0xc7 | extension << 3);
	emit8(e, count);
}

/*
 * All flags are read, so they go to the slot before the check, which may then be left at any time.
 * DF is in the host's flags alone, and comes by way of a stack of the vCPU's own; meanwhile rsp is
 * not the guest's, so a kick has to wait for the store.
 */
static void translate_pushf(struct tr *tr)
{
	struct emit *e = &tr->e;

	tr->live_before = FLAGS_ARITHMETIC;
	tr_stack(tr, RSP, -8, true);
	emit_store(e, RSP, VCPU_SCRATCH);
	emit_load(e, RSP, offsetof(struct engine_vcpu, small_stack_top));
	emit8(e, 0x9c); /* pushfq */
	emit8(e, 0x41); /* pop r15 */
	emit8(e, 0x5f);
	emit_load(e, RSP, VCPU_SCRATCH);
	emit_and_r15(e, (uint32_t)FLAG_DF);
	emit8(e, 0x41); /* or r15d, 2 */
	emit8(e, 0x83);
	emit8(e, 0xcf);
	emit8(e, 2);
	emit_gs(e, false, 0x0b, R15, offsetof(struct engine_vcpu, system_flags));
	emit_gs(e, false, 0x0b, R15, offsetof(struct engine_vcpu, interrupts_on));
	emit_store(e, R15, VCPU_SCRATCH + 8);
	/* The slot has OF in al and the others in ah. */
	emit_gs(e, false, 0x8b, R15, VCPU_SLOT);
	emit_and_r15(e, 1);
	emit_shift_r15(e, 4, 11);
	emit_gs(e, false, 0x09, R15, VCPU_SCRATCH + 8);
	emit_gs(e, false, 0x8b, R15, VCPU_SLOT);
	emit_shift_r15(e, 5, 8);
	emit_and_r15(e, FLAGS_ARITHMETIC & 0xff);
	emit_gs(e, true, 0x0b, R15, VCPU_SCRATCH + 8);
	tr_record(tr, tr->rip);
	emit_at_r14(tr, 0x89, R15);
	emit_move_stack(tr, -8);
}

static void translate_swapgs(struct tr *tr)
{
	uint32_t gs = offsetof(struct engine_vcpu, state.segment[SEG_GS].base);
	uint32_t kernel = offsetof(struct engine_vcpu, state.msr[MSR_KERNEL_GS_BASE]);

	tr_forget(tr, R14);
	tr_forget(tr, R15);
	tr_record(tr, tr->rip);
	emit_load(&tr->e, R14, kernel);
	emit_load(&tr->e, R15, gs);
	tr_clean(tr);
	emit_store(&tr->e, R14, gs);
	emit_store(&tr->e, R14, offsetof(struct engine_vcpu, gs_base));
	emit_store(&tr->e, R15, kernel);
}

void tr_insn(struct tr *tr, const struct soft_insn *insn, enum tr_kind kind)
{
	switch (kind) {
	case KIND_CLI:
		translate_cli(tr);
		break;
	case KIND_STI:
		translate_sti(tr);
		break;
	case KIND_SWAPGS:
		translate_swapgs(tr);
		break;
	case KIND_PUSHF:
		translate_pushf(tr);
		break;
	case KIND_LEA:
		translate_lea(tr, insn);
		break;
	case KIND_PUSH:
		translate_push(tr, insn);
		break;
	case KIND_POP:
		translate_pop(tr, insn);
		break;
	case KIND_LEAVE:
		translate_leave(tr);
		break;
	case KIND_PLAIN:
		if (insn->memory >= 0)
			translate_memory(tr, insn);
		else
			translate_registers(tr, insn);
		break;
	default:
		break;
	}
}
