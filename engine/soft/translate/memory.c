/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands: the address, and the look into the TLB.
 *
 *      lea   r14, [operand]            (and the base of FS or GS)
 *      mov   r15d, r14d
 *      shr   r15d, 12                  2^20 entries: the bits that there are
 *      sub   r14, gs:[r15 * 8 + tag]   offset in the page, if it is the page
 *      cmp   r14, 4096 - size          so an access across pages goes to C as well
 *      ja    miss
 *      add   r14, gs:[r15 * 8 + host]
 *
 * Where the address is a register and a constant, translate/share.c does it with less.
 *
 * r14 and r15 are the guest's own only in memory; an address that names them loads them first.
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/tlb/doors.h"

/* The view's tables, from the vCPU. */
static uint32_t table(const struct tr *tr, size_t which)
{
	return (uint32_t)(offsetof(struct engine_vcpu, tlb) +
			  (tr->t->mode & MODE_VIEW) * sizeof(struct soft_tlb) + which);
}

static uint32_t tag_table(const struct tr *tr, bool write)
{
	return table(tr, write ? offsetof(struct soft_tlb, tag_write)
			       : offsetof(struct soft_tlb, tag_read));
}

static uint32_t host_table(const struct tr *tr)
{
	return table(tr, offsetof(struct soft_tlb, host));
}

static const ZydisDecodedOperandMem *mem_of(const struct soft_insn *insn)
{
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &insn->op[i].mem;
	return NULL;
}

void tr_effective(struct tr *tr, const struct soft_insn *insn, int to)
{
	const ZydisDecodedOperandMem *mem = mem_of(insn);
	bool wide = insn->z.address_width == 64;
	uint8_t bytes[HOST_INSN_MAX];
	int base = soft_register_number(mem->base), index = soft_register_number(mem->index);
	uint64_t constant = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
		constant += tr->next;
	if (base < 0 && index < 0) {
		emit_mov_imm(&tr->e, to, wide ? constant : (uint32_t)constant);
		return;
	}
	if (base == R14 || index == R14)
		emit_load(&tr->e, R14, VCPU_GPR + 8 * R14);
	if (base == R15 || index == R15)
		emit_load(&tr->e, R15, VCPU_GPR + 8 * R15);
	emit_bytes(&tr->e, bytes, soft_encode_lea(insn, to, bytes));
}

void tr_address(struct tr *tr, const struct soft_insn *insn)
{
	ZydisRegister segment = mem_of(insn)->segment;

	tr_effective(tr, insn, R14);
	if (segment == ZYDIS_REGISTER_FS)
		emit_add_gs(&tr->e, R14, offsetof(struct engine_vcpu, fs_base));
	if (segment == ZYDIS_REGISTER_GS)
		emit_add_gs(&tr->e, R14, offsetof(struct engine_vcpu, gs_base));
}

/* The stepper knows what comes before such an operand's page fault (alignment, masks). */
static bool is_odd(const struct soft_insn *insn)
{
	return insn && (insn->memory_bytes > 8 || insn->alignment > 1 || soft_insn_is_vector(insn));
}

void tr_miss(struct cold *cold, const struct soft_insn *insn, bool write, uint8_t *retry)
{
	if (is_odd(insn))
		cold->reason = write ? SOFT_REASON_WRITE_ODD : SOFT_REASON_READ_ODD;
	else
		cold->reason = write ? SOFT_REASON_WRITE : SOFT_REASON_READ;
	cold->insn = insn;
	cold->retry = retry;
}

struct cold *tr_miss_jump(struct tr *tr, enum host_condition condition)
{
	return tr_cold(tr, emit_jcc_open(&tr->e, condition), SOFT_REASON_READ);
}

struct cold *tr_look(struct tr *tr, uint32_t bytes, bool write)
{
	struct emit *e = &tr->e;

	_Static_assert(TLB_ENTRIES == 1u << (32 - PAGE_SHIFT), "the shift below");
	tr_forget(tr, R14);
	tr_forget(tr, R15);
	emit_mov32(e, R15, R14);
	emit_shr32_imm(e, R15, PAGE_SHIFT);
	emit_sub_table(e, R14, R15, tag_table(tr, write));
	emit_cmp_imm(e, R14, PAGE_BYTES - bytes);
	return tr_miss_jump(tr, CC_A);
}

void tr_addend(struct tr *tr)
{
	emit_load_table(&tr->e, R15, R15, table(tr, offsetof(struct soft_tlb, addend)));
}

struct cold *tr_look_constant(struct tr *tr, uint64_t page, bool write)
{
	uint32_t entry = (uint32_t)(page / PAGE_BYTES & (TLB_ENTRIES - 1)) * 8;
	struct cold *cold;

	tr_forget(tr, R14);
	tr_forget(tr, R15); /* who comes back from a miss has lost it */
	emit_mov_imm(&tr->e, R14, page);
	emit_cmp_gs(&tr->e, R14, tag_table(tr, write) + entry);
	cold = tr_miss_jump(tr, CC_NE);
	emit_load(&tr->e, R14, host_table(tr) + entry);
	return cold;
}

void tr_check(struct tr *tr, uint32_t bytes, bool write, const struct soft_insn *insn,
	      uint8_t *retry)
{
	tr_miss(tr_look(tr, bytes, write), insn, write, retry);
	emit_add_table(&tr->e, R14, R15, host_table(tr));
}

struct host_operand tr_stack(struct tr *tr, int base, int32_t offset, bool write)
{
	struct host_operand at = { R14, -1, 0, 0 };
	struct cold *cold;
	uint8_t *retry;

	if (tr_shared(tr, NULL, &at)) {
		tr_clean(tr);
		return at;
	}
	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	retry = tr->e.at;
	emit_lea(&tr->e, R14, base, offset);
	tr_check(tr, 8, write, NULL, retry);
	cold = &tr->cold[tr->cold_count ? tr->cold_count - 1 : 0];
	cold->stack_base = base;
	cold->stack_offset = offset;
	tr_clean(tr);
	return at;
}

void tr_load_at(struct tr *tr, int reg, struct host_operand at)
{
	uint8_t bytes[HOST_INSN_MAX];

	emit_bytes(&tr->e, bytes, soft_encode_load(reg, at, bytes));
}

void tr_store_at(struct tr *tr, int reg, struct host_operand at)
{
	uint8_t bytes[HOST_INSN_MAX];

	emit_bytes(&tr->e, bytes, soft_encode_store(reg, at, bytes));
}

void tr_store_value(struct tr *tr, uint64_t value, struct host_operand at)
{
	uint8_t bytes[HOST_INSN_MAX];
	int reg;

	if (value == (uint64_t)(int64_t)(int32_t)value) {
		tr_clean(tr);
		emit_bytes(&tr->e, bytes, soft_encode_store_imm((int32_t)value, at, bytes));
		return;
	}
	reg = tr_scratch_besides(tr, at);
	emit_mov_imm(&tr->e, reg, value);
	tr_clean(tr);
	tr_store_at(tr, reg, at);
}

/* bt [memory], register: the operand is the word that has the bit. r14 += its distance. */
static void add_bit_distance(struct tr *tr, const struct soft_insn *insn, bool subtract)
{
	int reg = soft_register_number(insn->op[1].reg.value);
	uint32_t bytes = insn->memory_bytes, shift = bytes == 8 ? 6 : bytes == 4 ? 5 : 4;
	struct emit *e = &tr->e;

	if (reg == R14 || reg == R15)
		emit_load(e, R15, VCPU_GPR + 8 * (uint32_t)reg);
	else
		emit_mov(e, R15, reg);
	if (bytes == 4)
		emit_movsx32(e, R15, R15);
	else if (bytes == 2)
		emit_movsx16(e, R15, R15);
	emit_sar_imm(e, R15, shift);
	emit_shl_imm(e, R15, shift - 3); /* log2(bytes) */
	if (subtract)
		emit_sub(e, R14, R15);
	else
		emit_add(e, R14, R15);
}

static void emit_miss(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	tr->next = cold->rip + (cold->insn ? cold->insn->length : 0);
	if (cold->insn)
		tr_address(tr, cold->insn);
	else
		emit_lea(e, R14, cold->stack_base, cold->stack_offset);
	if (cold->insn && soft_insn_is_bit_string(cold->insn))
		add_bit_distance(tr, cold->insn, false);
	emit_store(e, R14, VCPU_ARGUMENT);
	emit_lea_rip(e, R14, cold->retry);
	emit_store(e, R14, VCPU_TARGET);
	if (cold->access)
		emit_store_imm(e, tr_reach(tr, cold->access), VCPU_REACH);
	emit_store_imm(e, cold->reason | (cold->access ? SOFT_REASON_SHARED : 0u), VCPU_REASON);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* r15 := the jump, for soft_undo_jump(); r14 stays. */
static void emit_lookup(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	emit_lea_rip(e, R15, cold->site);
	emit_store(e, R15, VCPU_ARGUMENT);
	emit_jmp(e, soft_cache_lookup(tr->t->vcpu->engine));
}

static void emit_unlinked(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	if (cold->reason == SOFT_REASON_LOOKUP) {
		emit_lookup(tr, cold);
		return;
	}

	emit_mov_imm(e, R14, cold->rip);
	emit_store(e, R14, VCPU_RIP);
	if (cold->reason == SOFT_REASON_STEP || cold->reason == SOFT_REASON_STEP_SLOT) {
		emit_store_imm(e, 0, VCPU_ARGUMENT);
	} else if (cold->door) {
		emit_store_imm(e, cold->door, VCPU_ARGUMENT);
	} else {
		emit_lea_rip(e, R14, cold->site - 1);
		emit_store(e, R14, VCPU_ARGUMENT);
	}
	emit_store_imm(e, cold->reason, VCPU_REASON);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* The block's own way out once it is invalid. */
static void emit_stale(struct tr *tr)
{
	struct emit *e = &tr->e;
	bool slot = tr->t->mode & MODE_SLOT;

	tr->flags = slot ? FLAGS_IN_SLOT : FLAGS_IN_HOST;
	tr_record(tr, tr->t->rip);
	tr->t->stale = e->at;
	emit_mov_imm(e, R14, tr->t->rip);
	emit_store(e, R14, VCPU_RIP);
	emit_lea_rip(e, R14, tr->t->head);
	emit_store(e, R14, VCPU_ARGUMENT);
	emit_store_imm(e, slot ? SOFT_REASON_STALE_SLOT : SOFT_REASON_STALE, VCPU_REASON);
	tr_clean(tr);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

void tr_emit_cold(struct tr *tr)
{
	for (uint32_t i = 0; i < tr->cold_count; i++) {
		struct cold *cold = &tr->cold[i];
		struct soft_record *record;

		tr->flags = cold->slot ? FLAGS_IN_SLOT : FLAGS_IN_HOST;
		record = tr_record(tr, cold->rip);
		if (cold->reason == SOFT_REASON_LOOKUP)
			record->computed = cold->computed;
		if (cold->site)
			emit_patch32(cold->site, tr->e.at);
		if (cold->site && cold->door)
			emit_jmp_gs(&tr->e, soft_door_offset(cold->door));
		if (cold->door)
			tr->t->door_way_out[cold->door - tr->t->first_door] = tr->e.at;
		if (cold->resume)
			tr_share_look(tr, cold);
		if (cold->retry)
			emit_miss(tr, cold);
		else
			emit_unlinked(tr, cold);
		record->clean = (uint16_t)(tr->e.at - 1 - tr->start);
	}
	emit_stale(tr);
}

/* Does the operation need the flags as they were before the look? */
static bool needs_flags(const struct tr *tr, const struct soft_insn *insn)
{
	uint32_t kept = tr->live_after & ~insn->flags_write;

	return tr->flags == FLAGS_IN_SLOT && (insn->flags_read || (insn->flags_change && kept));
}

void tr_operand(struct tr *tr, const struct soft_insn *insn, bool write)
{
	uint8_t *retry;

	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	retry = tr->e.at;
	tr_address(tr, insn);
	if (soft_insn_is_bit_string(insn))
		add_bit_distance(tr, insn, false);
	tr_check(tr, insn->memory_bytes, write, insn, retry);
	if (soft_insn_is_bit_string(insn))
		add_bit_distance(tr, insn, true);
	tr_clean(tr);
	if (needs_flags(tr, insn)) {
		tr_restore_flags(tr, R15);
		tr_record(tr, tr->rip);
	}
}

bool tr_shared_operand(struct tr *tr, const struct soft_insn *insn, struct host_operand *ret_at)
{
	const struct tr_access *access = &tr->access[tr->index];

	if (access->group == GROUP_NONE)
		return false;
	/* The look destroys flags; without one they are put in place first, which needs a register.
	 */
	if (!access->leader && needs_flags(tr, insn)) {
		tr_record(tr, tr->rip);
		tr_restore_flags(tr, tr_scratch(tr));
	}
	tr_shared(tr, insn, ret_at);
	tr_clean(tr);
	if (access->leader && needs_flags(tr, insn)) {
		tr_restore_flags(tr, tr_scratch_besides(tr, *ret_at));
		tr_record(tr, tr->rip);
	}
	return true;
}
