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

/* lea `to`, [base + index * scale + displacement], as the instruction has it. */
static void emit_lea(struct tr *tr, const struct soft_insn *insn, int to, bool wide)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	uint32_t rex = 0x40u | (wide ? 8u : 0) | (to >= 8 ? 4u : 0), x, b;

	if (insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		x = !raw->vex.X;
		b = !raw->vex.B;
	} else {
		x = raw->rex.X;
		b = raw->rex.B;
	}
	emit8(&tr->e, rex | x << 1 | b);
	emit8(&tr->e, 0x8d);
	emit8(&tr->e,
	      (uint32_t)raw->modrm.mod << 6 | ((uint32_t)to & 7) << 3 | (raw->modrm.rm & 7));
	if (raw->modrm.mod != 3 && (raw->modrm.rm & 7) == 4)
		emit8(&tr->e, insn->bytes[raw->sib.offset]);
	for (uint32_t i = 0; i < raw->disp.size / 8u; i++)
		emit8(&tr->e, insn->bytes[raw->disp.offset + i]);
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
	int base = soft_register_number(mem->base), index = soft_register_number(mem->index);
	uint64_t constant = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
		constant += tr->next;
	if (base < 0 && index < 0) {
		emit_constant(&tr->e, to, wide ? constant : (uint32_t)constant);
		return;
	}
	if (base == R14 || index == R14)
		emit_load(&tr->e, R14, VCPU_GPR + 8 * R14);
	if (base == R15 || index == R15)
		emit_load(&tr->e, R15, VCPU_GPR + 8 * R15);
	emit_lea(tr, insn, to, wide);
}

void tr_address(struct tr *tr, const struct soft_insn *insn)
{
	ZydisRegister segment = mem_of(insn)->segment;

	tr_effective(tr, insn, R14);
	if (segment == ZYDIS_REGISTER_FS)
		emit_gs(&tr->e, true, 0x03, R14, offsetof(struct engine_vcpu, fs_base));
	if (segment == ZYDIS_REGISTER_GS)
		emit_gs(&tr->e, true, 0x03, R14, offsetof(struct engine_vcpu, gs_base));
}

/* op reg, gs:[r15 * 8 + table]; reg: r8 to r15 */
static void emit_indexed(struct emit *e, uint8_t opcode, int reg, uint32_t table)
{
	emit8(e, 0x65);
	emit8(e, 0x4e);
	emit8(e, opcode);
	emit8(e, 0x04u | ((uint32_t)reg & 7) << 3);
	emit8(e, 0xfd);
	emit32(e, table);
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

struct cold *tr_miss_jump(struct tr *tr, uint8_t condition)
{
	emit8(&tr->e, 0x0f);
	emit8(&tr->e, condition);
	emit32(&tr->e, 0);
	return tr_cold(tr, tr->e.at - 4, SOFT_REASON_READ);
}

struct cold *tr_look(struct tr *tr, uint32_t bytes, bool write)
{
	/* mov r15d, r14d; shr r15d, 12 */
	static const uint8_t move_shift[] = { 0x45, 0x89, 0xf7, 0x41, 0xc1, 0xef, 0x0c };
	struct emit *e = &tr->e;

	_Static_assert(TLB_ENTRIES == 1u << (32 - PAGE_SHIFT), "the shift above");
	tr_forget(tr, R14);
	tr_forget(tr, R15);
	emit_bytes(e, move_shift, sizeof(move_shift));
	emit_indexed(e, 0x2b, R14, tag_table(tr, write));
	emit_compare(e, R14, PAGE_BYTES - bytes);
	return tr_miss_jump(tr, 0x87);
}

void tr_addend(struct tr *tr)
{
	emit_indexed(&tr->e, 0x8b, R15, table(tr, offsetof(struct soft_tlb, addend)));
}

struct cold *tr_look_constant(struct tr *tr, uint64_t page, bool write)
{
	uint32_t entry = (uint32_t)(page / PAGE_BYTES & (TLB_ENTRIES - 1)) * 8;
	struct cold *cold;

	tr_forget(tr, R14);
	tr_forget(tr, R15); /* who comes back from a miss has lost it */
	emit_constant(&tr->e, R14, page);
	emit_gs(&tr->e, true, 0x3b, R14, tag_table(tr, write) + entry);
	cold = tr_miss_jump(tr, 0x85);
	emit_load(&tr->e, R14, host_table(tr) + entry);
	return cold;
}

void tr_check(struct tr *tr, uint32_t bytes, bool write, const struct soft_insn *insn,
	      uint8_t *retry)
{
	tr_miss(tr_look(tr, bytes, write), insn, write, retry);
	emit_indexed(&tr->e, 0x03, R14, host_table(tr));
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
	emit_lea_base(&tr->e, R14, base, offset);
	tr_check(tr, 8, write, NULL, retry);
	cold = &tr->cold[tr->cold_count ? tr->cold_count - 1 : 0];
	cold->stack_base = base;
	cold->stack_offset = offset;
	tr_clean(tr);
	return at;
}

void tr_emit_at(struct tr *tr, uint8_t opcode, int reg, struct host_operand at)
{
	uint8_t bytes[HOST_INSN_MAX];

	emit_bytes(&tr->e, bytes, soft_encode_move(opcode, reg, at, bytes));
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
		emit_move(e, R15, reg);
	if (bytes == 4) { /* movsxd r15, r15d */
		emit8(e, 0x4d);
		emit8(e, 0x63);
		emit8(e, 0xff);
	} else if (bytes == 2) { /* movsx r15, r15w */
		emit8(e, 0x4d);
		emit8(e, 0x0f);
		emit8(e, 0xbf);
		emit8(e, 0xff);
	}
	emit8(e, 0x49); /* sar r15, shift */
	emit8(e, 0xc1);
	emit8(e, 0xff);
	emit8(e, shift);
	emit8(e, 0x49); /* shl r15, log2(bytes) */
	emit8(e, 0xc1);
	emit8(e, 0xe7);
	emit8(e, shift - 3);
	emit8(e, 0x4d); /* add or sub r14, r15 */
	emit8(e, subtract ? 0x29 : 0x01);
	emit8(e, 0xfe);
}

static void emit_miss(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	tr->next = cold->rip + (cold->insn ? cold->insn->length : 0);
	if (cold->insn)
		tr_address(tr, cold->insn);
	else
		emit_lea_base(e, R14, cold->stack_base, cold->stack_offset);
	if (cold->insn && soft_insn_is_bit_string(cold->insn))
		add_bit_distance(tr, cold->insn, false);
	emit_store(e, R14, VCPU_ARGUMENT);
	emit_rip_relative(e, R14, cold->retry);
	emit_store(e, R14, VCPU_TARGET);
	if (cold->access)
		emit_store_constant(e, tr_reach(tr, cold->access), VCPU_REACH);
	emit_store_constant(e, cold->reason | (cold->access ? SOFT_REASON_SHARED : 0u),
			    VCPU_REASON);
	emit_jump(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* r15 := the jump, for soft_undo_jump(); r14 stays. */
static void emit_lookup(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	emit_rip_relative(e, R15, cold->site);
	emit_store(e, R15, VCPU_ARGUMENT);
	emit_jump(e, soft_cache_lookup(tr->t->vcpu->engine));
}

static void emit_unlinked(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	if (cold->reason == SOFT_REASON_LOOKUP) {
		emit_lookup(tr, cold);
		return;
	}

	emit_constant(e, R14, cold->rip);
	emit_store(e, R14, VCPU_RIP);
	if (cold->reason == SOFT_REASON_STEP || cold->reason == SOFT_REASON_STEP_SLOT) {
		emit_store_constant(e, 0, VCPU_ARGUMENT);
	} else {
		emit_rip_relative(e, R14, cold->site - 1);
		emit_store(e, R14, VCPU_ARGUMENT);
	}
	emit_store_constant(e, cold->reason, VCPU_REASON);
	emit_jump(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* The block's own way out once it is invalid. */
static void emit_stale(struct tr *tr)
{
	struct emit *e = &tr->e;
	bool slot = tr->t->mode & MODE_SLOT;

	tr->flags = slot ? FLAGS_IN_SLOT : FLAGS_IN_HOST;
	tr_record(tr, tr->t->rip);
	tr->t->stale = e->at;
	emit_constant(e, R14, tr->t->rip);
	emit_store(e, R14, VCPU_RIP);
	emit_rip_relative(e, R14, tr->t->head);
	emit_store(e, R14, VCPU_ARGUMENT);
	emit_store_constant(e, slot ? SOFT_REASON_STALE_SLOT : SOFT_REASON_STALE, VCPU_REASON);
	tr_clean(tr);
	emit_jump(e, soft_cache_exit(tr->t->vcpu->engine));
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
		emit_patch32(cold->site, tr->e.at);
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
