/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that do not end a block: copied, with their operand looked up; LEA, PUSH, POP,
 * LEAVE.
 */
#include "engine/soft/translate/translate.h"

#include "core/tsc_line.h"
#include "engine/host_clock.h"
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
	if (insn->memory >= 0 && tr_names(insn->operand_registers, R10) &&
	    tr_names(insn->operand_registers, R11))
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

void tr_step_if(struct tr *tr, enum host_condition condition)
{
	tr_cold(tr, emit_jcc_open(&tr->e, condition),
		tr->flags == FLAGS_IN_SLOT ? SOFT_REASON_STEP_SLOT : SOFT_REASON_STEP);
}

enum tr_kind tr_kind(const struct soft_insn *insn, uint8_t mode)
{
	if (tr_is_jump(insn))
		return KIND_JUMP;
	if (is_nothing(insn))
		return KIND_NOTHING;
	if (tr_is_segment(insn))
		return KIND_SEGMENT;
	if (tr_is_string(insn))
		return KIND_STRING;
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
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
		return host_clock_tsc_is_real() ? KIND_TSC : KIND_STEP;
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSRET:
		return tr_syscall_kind(insn, mode);
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

/* Does it set the register without having read it? */
static bool overwrites(const struct soft_insn *insn, int reg)
{
	const ZydisDecodedOperand *to = &insn->op[0], *from = &insn->op[1];

	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_LEA:
		break;
	default:
		return false;
	}
	if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || to->size < 32 ||
	    soft_register_number(to->reg.value) != reg)
		return false;
	if (from->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return soft_register_number(from->mem.base) != reg &&
		       soft_register_number(from->mem.index) != reg;
	return from->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	       soft_register_number(from->reg.value) != reg;
}

/* Those of the guest's r10 and r11 that are named come into the host's, and are there from then on. */
static void load_high(struct tr *tr, const struct soft_insn *insn, uint16_t registers)
{
	for (int reg = R10; reg <= R11; reg++) {
		if (!tr_names(registers, reg))
			continue;
		if (tr->held[reg - R10] != GROUP_OWN && !overwrites(insn, reg))
			emit_load(&tr->e, reg, VCPU_GPR + 8 * (uint32_t)reg);
		tr->held[reg - R10] = GROUP_OWN;
	}
}

static void store_high(struct tr *tr, uint16_t registers)
{
	if (tr_names(registers, R10))
		emit_store(&tr->e, R10, VCPU_GPR + 8 * R10);
	if (tr_names(registers, R11))
		emit_store(&tr->e, R11, VCPU_GPR + 8 * R11);
}

static void translate_registers(struct tr *tr, const struct soft_insn *insn)
{
	need_flags(tr, insn);
	tr_record(tr, tr->rip);
	load_high(tr, insn, insn->registers);
	tr_clean(tr);
	emit_bytes(&tr->e, insn->bytes, insn->length);
	store_high(tr, insn->registers_write);
	if (insn->flags_change)
		tr->flags = FLAGS_IN_HOST;
}

/* The operand's address in a register without REX prefix; that register's value waits in r11. */
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
	emit_mov(&tr->e, R11, base);
	tr_clean(tr);
	emit_mov(&tr->e, base, R10);
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
	int base = R10;

	if (tr_shared_operand(tr, insn, &at)) {
		load_high(tr, insn, insn->operand_registers);
		emit_host_form(tr, insn, at);
		store_high(tr, insn->registers_write);
		return;
	}
	tr_operand(tr, insn, insn->memory_write);
	if (insn->high_byte) {
		base = swap_in(tr, insn);
	} else if (tr_names(insn->operand_registers, R10)) {
		emit_mov(&tr->e, R11, R10);
		emit_load(&tr->e, R10, VCPU_GPR + 8 * R10);
		base = R11;
	} else if (tr_names(insn->operand_registers, R11)) {
		emit_load(&tr->e, R11, VCPU_GPR + 8 * R11);
	}
	emit_host_form(tr, insn, (struct host_operand){ base, -1, 0, 0 });
	if (insn->high_byte)
		emit_mov(&tr->e, base, R11);
	else
		store_high(tr, insn->registers_write);
}

static void translate_lea(struct tr *tr, const struct soft_insn *insn)
{
	const ZydisDecodedOperandMem *mem = &insn->op[1].mem;
	int to = soft_register_number(insn->op[0].reg.value);
	bool constant = soft_register_number(mem->base) < 0 && soft_register_number(mem->index) < 0;

	if (tr_is_high(to) && constant)
		tr_forget(tr, to);
	tr_record(tr, tr->rip);
	if (constant && insn->z.operand_width == 64) {
		tr_effective(tr, insn, to);
	} else if (constant) {
		tr_forget(tr, R10);
		tr_effective(tr, insn, R10);
		tr_clean(tr);
		emit_mov32(&tr->e, to, R10);
	} else {
		load_high(tr, insn, insn->registers);
		tr_clean(tr);
		emit_bytes(&tr->e, insn->bytes, insn->length);
	}
	if (tr_is_high(to))
		emit_store(&tr->e, to, VCPU_GPR + 8 * (uint32_t)to);
}

static const struct host_operand at_r10 = { R10, -1, 0, 0 };

/* The operand to be pushed: its address is looked up as any, and its value waits in memory. */
static void push_memory(struct tr *tr, const struct soft_insn *insn)
{
	tr_operand(tr, insn, false);
	tr_load_at(tr, R11, at_r10);
	emit_store(&tr->e, R11, VCPU_SCRATCH);
	tr_stack(tr, RSP, -8, true);
	emit_load(&tr->e, R11, VCPU_SCRATCH);
	tr_clean(tr);
	tr_store_at(tr, R11, at_r10);
	emit_lea(&tr->e, RSP, RSP, -8);
}

/* A push or pop is through. */
static void move_stack(struct tr *tr, int32_t by)
{
	if (tr->access[tr->index].group == GROUP_NONE) {
		emit_lea(&tr->e, RSP, RSP, by);
		return;
	}
	tr->lag += by;
	tr_record(tr, tr->next);
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
		tr_store_value(tr, op->imm.value.u, at);
		move_stack(tr, -8);
		return;
	}
	reg = soft_register_number(op->reg.value);
	if (tr_is_high(reg)) {
		uint32_t from = VCPU_GPR + 8 * (uint32_t)reg;

		reg = tr_scratch_besides(tr, at);
		emit_load(&tr->e, reg, from);
	}
	tr_clean(tr);
	tr_store_at(tr, reg, at);
	move_stack(tr, -8);
}

static void translate_pop(struct tr *tr, const struct soft_insn *insn)
{
	int reg = soft_register_number(insn->op[0].reg.value);
	struct host_operand at = tr_stack(tr, RSP, 0, false);

	if (tr_is_high(reg)) {
		int value = tr_scratch_besides(tr, at);

		tr_forget(tr, reg); /* the guest's, if that was there */
		tr_load_at(tr, value, at);
		emit_store(&tr->e, value, VCPU_GPR + 8 * (uint32_t)reg);
	} else {
		tr_load_at(tr, reg, at);
	}
	if (reg != RSP)
		move_stack(tr, 8);
}

static void translate_leave(struct tr *tr)
{
	struct host_operand at = tr_stack(tr, RBP, 0, false);

	tr_load_at(tr, R10, at);
	tr_forget(tr, R10);
	tr_clean(tr);
	emit_lea(&tr->e, RSP, RBP, 8);
	emit_mov(&tr->e, RBP, R10);
}

static void translate_cli(struct tr *tr)
{
	tr_record(tr, tr->rip);
	emit_store32_imm(&tr->e, 0, offsetof(struct engine_vcpu, interrupts_on));
}

/* If an interrupt waits for this, C does it. Else: on from now, but not before the next one. */
static void translate_sti(struct tr *tr)
{
	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	emit_cmp8_gs_imm(&tr->e, offsetof(struct engine_vcpu, window_wanted), 0);
	tr_step_if(tr, CC_NE);
	tr_clean(tr);
	emit_store32_imm(&tr->e, (uint32_t)FLAG_IF, offsetof(struct engine_vcpu, interrupts_on));
	tr->shadow_rip = tr->next;
	tr_record(tr, tr->next);
}

/* It is in the host's flags alone, and comes by way of a stack of the vCPU's own. */
void tr_direction(struct tr *tr)
{
	struct emit *e = &tr->e;

	emit_store(e, RSP, VCPU_SCRATCH);
	emit_load(e, RSP, offsetof(struct engine_vcpu, small_stack_top));
	emit_pushfq(e);
	emit_pop(e, R11);
	emit_load(e, RSP, VCPU_SCRATCH);
}

void tr_rflags(struct tr *tr)
{
	struct emit *e = &tr->e;

	tr_direction(tr);
	emit_and32_imm(e, R11, (uint32_t)FLAG_DF);
	emit_or32_imm8(e, R11, 2); /* the bit that is always set */
	emit_or32_gs(e, R11, offsetof(struct engine_vcpu, system_flags));
	emit_or32_gs(e, R11, offsetof(struct engine_vcpu, interrupts_on));
	emit_store(e, R11, VCPU_SCRATCH + 8);
	/* The slot has OF in al and the others in ah. */
	emit_load32(e, R11, VCPU_SLOT);
	emit_and32_imm(e, R11, 1);
	emit_shl32_imm(e, R11, 11);
	emit_or32_to_gs(e, R11, VCPU_SCRATCH + 8);
	emit_load32(e, R11, VCPU_SLOT);
	emit_shr32_imm(e, R11, 8);
	emit_and32_imm(e, R11, FLAGS_ARITHMETIC & 0xff);
	emit_or_gs(e, R11, VCPU_SCRATCH + 8);
}

/* All flags are read, so they go to the slot before the check, which may then be left at any time. */
static void translate_pushf(struct tr *tr)
{
	tr->live_before = FLAGS_ARITHMETIC;
	tr_stack(tr, RSP, -8, true);
	tr_rflags(tr);
	tr_record(tr, tr->rip);
	tr_store_at(tr, R11, at_r10);
	emit_lea(&tr->e, RSP, RSP, -8);
}

static void translate_swapgs(struct tr *tr)
{
	uint32_t gs = offsetof(struct engine_vcpu, state.segment[SEG_GS].base);
	uint32_t kernel = offsetof(struct engine_vcpu, state.msr[MSR_KERNEL_GS_BASE]);

	tr_forget(tr, R10);
	tr_forget(tr, R11);
	tr_record(tr, tr->rip);
	emit_load(&tr->e, R10, kernel);
	emit_load(&tr->e, R11, gs);
	tr_clean(tr);
	emit_store(&tr->e, R10, gs);
	emit_store(&tr->e, R10, offsetof(struct engine_vcpu, gs_base));
	emit_store(&tr->e, R11, kernel);
}

/*
 * The pod clock's line by the host's own instruction, which waits for what this one waits for. Only the
 * vCPU's thread changes the line, outside of here; and who is kicked in the middle goes on to the end,
 * so both parts are of one line and one host.
 */
static void translate_tsc(struct tr *tr, const struct soft_insn *insn)
{
	const uint32_t aux = offsetof(struct engine_vcpu, state.msr[MSR_TSC_AUX]);
	bool with_aux = insn->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP;
	struct emit *e = &tr->e;

	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_forget(tr, R10);
	tr_record(tr, tr->rip);
	if ((tr->t->mode & MODE_VIEW) == VIEW_USER) {
		emit_test8_gs_imm(e, offsetof(struct engine_vcpu, state.cr4), CR4_TSD);
		tr_step_if(tr, CC_NE);
	}
	emit_load(e, R10, offsetof(struct engine_vcpu, tsc_ratio));
	tr_clean(tr);
	if (with_aux)
		emit_rdtscp(e);
	else
		emit_rdtsc(e);
	emit_shl_imm(e, RDX, 32);
	emit_add(e, RAX, RDX);
	emit_mul(e, R10);
	emit_shrd_imm(e, RAX, RDX, TSC_RATIO_BITS);
	emit_add_gs(e, RAX, offsetof(struct engine_vcpu, tsc_offset));
	emit_mov(e, RDX, RAX);
	emit_shr_imm(e, RDX, 32);
	emit_mov32(e, RAX, RAX);
	if (with_aux)
		emit_load32(e, RCX, aux);
	tr_record(tr, tr->next);
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
	case KIND_SEGMENT:
		tr_segment(tr, insn);
		break;
	case KIND_STRING:
		tr_string(tr, insn);
		break;
	case KIND_TSC:
		translate_tsc(tr, insn);
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
