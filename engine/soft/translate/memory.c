/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands: the address, and the look into the TLB.
 *
 *      lea   r10, [operand]            (and the base of FS or GS)
 *      mov   r11d, r10d
 *      shr   r11d, 12                  2^20 entries: the bits that there are
 *      sub   r10, gs:[r11 * 8 + tag]   offset in the page, if it is the page
 *      cmp   r10, 4096 - size          so an access across pages goes to C as well
 *      ja    miss
 *      add   r10, gs:[r11 * 8 + host]
 *
 * Where the address is a register and a constant, translate/share.c does it with less.
 *
 * r10 and r11 are the guest's own only in memory; an address that names them loads them first.
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/tlb/doors.h"

/* A near jump and a far one, and as far as the former reaches, less what prefixes may add. */
#define JCC_NEAR_BYTES 2
#define JCC_BYTES      6
#define NEAR_BYTES     120
#define FRONT_BYTES    100

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
	for (int reg = R10; reg <= R11; reg++)
		if ((base == reg || index == reg) && tr->held[reg - R10] != GROUP_OWN)
			emit_load(&tr->e, reg, VCPU_GPR + 8 * (uint32_t)reg);
	if (base != to || index >= 0 || constant || !wide)
		emit_bytes(&tr->e, bytes, soft_encode_lea(insn, to, bytes));
}

/* Which of r10 and r11, a bit each, the operand's address takes from the host's registers. */
static uint8_t own_registers(const struct tr *tr, const struct soft_insn *insn)
{
	const ZydisDecodedOperandMem *mem = mem_of(insn);
	uint8_t own = 0;

	for (int reg = R10; reg <= R11; reg++)
		if ((soft_register_number(mem->base) == reg ||
		     soft_register_number(mem->index) == reg) &&
		    tr->held[reg - R10] == GROUP_OWN)
			own |= (uint8_t)(1u << (reg - R10));
	return own;
}

void tr_address(struct tr *tr, const struct soft_insn *insn)
{
	ZydisRegister segment = mem_of(insn)->segment;

	tr_effective(tr, insn, R10);
	if (segment == ZYDIS_REGISTER_FS)
		emit_add_gs(&tr->e, R10, offsetof(struct engine_vcpu, fs_base));
	if (segment == ZYDIS_REGISTER_GS)
		emit_add_gs(&tr->e, R10, offsetof(struct engine_vcpu, gs_base));
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

/* A near jump back to one of the bridges in front of the block. Where that one's distance is. */
static uint8_t *miss_in_front(struct tr *tr, enum host_condition condition)
{
	uint8_t *bridge = tr->start + BRIDGES_OFFSET + tr->misses * BRIDGE_BYTES;
	uint8_t *behind = emit_jcc_short(&tr->e, condition);

	if (behind - bridge > -INT8_MIN)
		tr->near_failed = true;
	else if (!tr->e.full)
		behind[tr->e.alias - 1] = (uint8_t)(bridge - behind);
	return bridge + 1;
}

struct cold *tr_miss_jump(struct tr *tr, enum host_condition condition)
{
	bool near = tr->cold_count >= tr->near_from;
	struct cold *cold;
	uint8_t *site;

	if (tr->misses < tr->front)
		site = miss_in_front(tr, condition);
	else
		site = near ? emit_jcc_short(&tr->e, condition) : emit_jcc_open(&tr->e, condition);
	tr->misses++;
	cold = tr_cold(tr, site, SOFT_REASON_READ);
	cold->can_be_near = true;
	cold->near = near;
	return cold;
}

void tr_entry(struct tr *tr, bool write)
{
	struct emit *e = &tr->e;

	_Static_assert(TLB_ENTRIES == 1u << (32 - PAGE_SHIFT), "the shift below");
	emit_mov32(e, R11, R10);
	emit_shr32_imm(e, R11, PAGE_SHIFT);
	emit_sub_table(e, R10, R11, tag_table(tr, write));
}

struct cold *tr_look(struct tr *tr, uint32_t bytes, bool write)
{
	struct emit *e = &tr->e;

	tr_forget(tr, R10);
	tr_forget(tr, R11);
	tr_entry(tr, write);
	emit_cmp_imm(e, R10, PAGE_BYTES - bytes);
	return tr_miss_jump(tr, CC_A);
}

void tr_addend(struct tr *tr)
{
	emit_load_table(&tr->e, R11, R11, table(tr, offsetof(struct soft_tlb, addend)));
}

struct cold *tr_look_constant(struct tr *tr, uint64_t page, bool write)
{
	uint32_t entry = (uint32_t)(page / PAGE_BYTES & (TLB_ENTRIES - 1)) * 8;
	struct cold *cold;

	tr_forget(tr, R10);
	tr_forget(tr, R11); /* who comes back from a miss has lost it */
	emit_mov_imm(&tr->e, R10, page);
	emit_cmp_gs(&tr->e, R10, tag_table(tr, write) + entry);
	cold = tr_miss_jump(tr, CC_NE);
	emit_load(&tr->e, R10, host_table(tr) + entry);
	return cold;
}

struct cold *tr_check(struct tr *tr, uint32_t bytes, bool write, const struct soft_insn *insn,
		      uint8_t *retry)
{
	struct cold *cold = tr_look(tr, bytes, write);

	tr_miss(cold, insn, write, retry);
	emit_add_table(&tr->e, R10, R11, host_table(tr));
	return cold;
}

struct host_operand tr_stack(struct tr *tr, int base, int32_t offset, bool write)
{
	struct host_operand at = { R10, -1, 0, 0 };
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
	emit_lea(&tr->e, R10, base, offset);
	cold = tr_check(tr, 8, write, NULL, retry);
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

/* bt [memory], register: the operand is the word that has the bit. r10 += its distance. */
static void add_bit_distance(struct tr *tr, const struct soft_insn *insn, bool subtract)
{
	int reg = soft_register_number(insn->op[1].reg.value);
	uint32_t bytes = insn->memory_bytes, shift = bytes == 8 ? 6 : bytes == 4 ? 5 : 4;
	struct emit *e = &tr->e;

	if (reg == R10 || reg == R11)
		emit_load(e, R11, VCPU_GPR + 8 * (uint32_t)reg);
	else
		emit_mov(e, R11, reg);
	if (bytes == 4)
		emit_movsx32(e, R11, R11);
	else if (bytes == 2)
		emit_movsx16(e, R11, R11);
	emit_sar_imm(e, R11, shift);
	emit_shl_imm(e, R11, shift - 3); /* log2(bytes) */
	if (subtract)
		emit_sub(e, R10, R11);
	else
		emit_add(e, R10, R11);
}

/* Where a miss is tried again for which r10 or r11 were the guest's. */
static void emit_retry(struct tr *tr, struct cold *cold)
{
	uint8_t *at = tr->e.at;

	for (int reg = R10; reg <= R11; reg++)
		if (cold->own >> (reg - R10) & 1)
			emit_load(&tr->e, reg, VCPU_GPR + 8 * (uint32_t)reg);
	emit_jmp(&tr->e, cold->retry);
	cold->retry = at;
}

/* Where who has read over an edge goes on: with a copy. Of the miss's reason, what says so. */
static uint32_t emit_behind(struct tr *tr, const struct cold *cold)
{
	uint8_t *at = tr->e.at;

	emit_load(&tr->e, cold->addend ? R11 : R10, VCPU_SCRATCH);
	emit_jmp(&tr->e, cold->behind);
	return SOFT_REASON_BYTES(cold->bytes) | SOFT_REASON_JUMP(at - cold->retry) |
	       (cold->addend ? SOFT_REASON_ADDEND : 0);
}

/* also: for its reason */
static void emit_miss(struct tr *tr, const struct cold *cold, uint32_t also)
{
	struct emit *e = &tr->e;

	if (cold->access)
		also = tr_split(tr, cold, &tr->group[cold->access->group], cold->retry);
	tr->next = cold->rip + (cold->insn ? cold->insn->length : 0);
	if (cold->insn)
		tr_address(tr, cold->insn);
	else
		emit_lea(e, R10, cold->stack_base, cold->stack_offset);
	if (cold->insn && soft_insn_is_bit_string(cold->insn))
		add_bit_distance(tr, cold->insn, false);
	emit_store(e, R10, VCPU_ARGUMENT);
	emit_lea_rip(e, R10, cold->retry);
	emit_store(e, R10, VCPU_TARGET);
	if (cold->access)
		emit_store_imm(e, tr_reach(tr, cold->access), VCPU_REACH);
	emit_store_imm(e, cold->reason | also, VCPU_REASON);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* r11 := the jump, for soft_undo_jump(); r10 stays. */
static void emit_lookup(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	emit_lea_rip(e, R11, cold->site);
	emit_store(e, R11, VCPU_ARGUMENT);
	emit_jmp(e, soft_cache_lookup(tr->t->vcpu->engine));
}

static void emit_unlinked(struct tr *tr, const struct cold *cold)
{
	struct emit *e = &tr->e;

	if (cold->reason == SOFT_REASON_LOOKUP) {
		emit_lookup(tr, cold);
		return;
	}

	emit_mov_imm(e, R10, cold->rip);
	emit_store(e, R10, VCPU_RIP);
	if (cold->reason == SOFT_REASON_STEP || cold->reason == SOFT_REASON_STEP_SLOT) {
		/* As in tr_exit_step(): a kick may break off the step. */
		if (cold->shadow)
			emit_store8_imm(e, SHADOW_STI, offsetof(struct engine_vcpu, shadow));
		emit_store_imm(e, 0, VCPU_ARGUMENT);
	} else if (cold->door) {
		emit_store_imm(e, cold->door, VCPU_ARGUMENT);
	} else {
		emit_lea_rip(e, R10, cold->site - 1);
		emit_store(e, R10, VCPU_ARGUMENT);
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
	emit_mov_imm(e, R10, tr->t->rip);
	emit_store(e, R10, VCPU_RIP);
	emit_lea_rip(e, R10, tr->t->head);
	emit_store(e, R10, VCPU_ARGUMENT);
	emit_store_imm(e, slot ? SOFT_REASON_STALE_SLOT : SOFT_REASON_STALE, VCPU_REASON);
	tr_clean(tr);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* Which misses, the last ones of the block, a near jump would reach if those behind were near. */
static void find_near(struct tr *tr)
{
	int64_t saved = 0;

	tr->near_next = tr->cold_count;
	for (uint32_t i = tr->cold_count; i-- > 0;) {
		const struct cold *cold = &tr->cold[i];

		if (!cold->can_be_near)
			continue;
		if (tr->e.at - cold->site - saved > NEAR_BYTES)
			break;
		saved += JCC_BYTES - JCC_NEAR_BYTES;
		tr->near_next = i;
	}
	saved = 0;
	tr->front_next = 0;
	for (uint32_t i = 0; i < tr->near_next && !tr->loops; i++) {
		const struct cold *cold = &tr->cold[i];

		if (!cold->can_be_near)
			continue;
		saved += JCC_BYTES - JCC_NEAR_BYTES;
		if (cold->site - tr->start - saved > FRONT_BYTES)
			break;
		tr->front_next++;
	}
}

/*
 * Where near jumps lead: jumps to the ways out, in a row. The host's CPU goes on to what comes then
 * before the guest's state can be taken.
 */
static void emit_bridges(struct tr *tr)
{
	struct emit *e = &tr->e;
	struct soft_record *record;

	if (tr->near_from >= tr->cold_count)
		return;
	record = tr_record(tr, tr->t->rip);
	record->clean = (uint16_t)(record->start - 1);
	for (uint32_t i = tr->near_from; i < tr->cold_count; i++) {
		struct cold *cold = &tr->cold[i];

		if (!cold->near)
			continue;
		if (e->at - cold->site > INT8_MAX)
			tr->near_failed = true;
		emit_land(e, cold->site);
		cold->site = emit_jmp_open(e);
	}
}

void tr_emit_cold(struct tr *tr)
{
	if (tr->near_from == COLD_MAX)
		find_near(tr);
	emit_bridges(tr);
	tr->near_from = COLD_MAX; /* what follows has looks as well */
	tr->front = 0;
	tr->held[0] = tr->held[1] = GROUP_NONE;
	for (uint32_t i = 0; i < tr->cold_count; i++) {
		struct cold *cold = &tr->cold[i];
		struct soft_record *record;
		uint32_t behind = 0;

		tr->flags = cold->slot ? FLAGS_IN_SLOT : FLAGS_IN_HOST;
		tr->shadow_rip = cold->shadow ? cold->rip : 0;
		record = tr_record(tr, cold->rip);
		if (cold->reason == SOFT_REASON_LOOKUP)
			record->computed = cold->computed;
		/* The head may have become another instruction: who comes back comes to all of it. */
		if (tr->head_prefixes && cold->retry == tr->t->head + tr->head_prefixes)
			cold->retry = tr->t->head;
		if (cold->own)
			emit_retry(tr, cold);
		if (cold->behind)
			behind = emit_behind(tr, cold);
		if (cold->site)
			emit_patch32(cold->site, tr->e.alias, tr->e.at);
		if (cold->site && cold->door)
			emit_jmp_gs(&tr->e, soft_door_offset(cold->door));
		if (cold->door)
			tr->t->door_way_out[cold->door - tr->t->first_door] = tr->e.at;
		if (cold->stack)
			record = tr_stack_look(tr, cold);
		else if (cold->resume)
			tr_share_look(tr, cold);
		if (cold->retry)
			emit_miss(tr, cold, behind);
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

void tr_behind(struct tr *tr, struct cold *cold, const struct soft_insn *insn)
{
	/* x87 remembers where its operand was; and what has to be aligned crosses nothing. */
	if (!insn || !insn->memory_read || insn->memory_write || insn->alignment > 1 ||
	    insn->memory_bytes > 64 || soft_insn_is_bit_string(insn) ||
	    insn->z.meta.isa_set == ZYDIS_ISA_SET_X87)
		return;
	cold->behind = tr->e.at;
	cold->bytes = (uint8_t)insn->memory_bytes;
}

/* r10: host address. A locked access across two lines goes to C, if the host is one that traps it. */
static void look_for_line(struct tr *tr, const struct soft_insn *insn)
{
	if (!tr->t->vcpu->engine->split_locks_looked_for || !soft_insn_is_locked(insn) ||
	    insn->memory_bytes == 1)
		return;
	emit_mov32(&tr->e, R11, R10);
	emit_and32_imm(&tr->e, R11, LINE_BYTES - 1);
	emit_cmp_imm(&tr->e, R11, LINE_BYTES - insn->memory_bytes);
	tr_cold(tr, emit_jcc_open(&tr->e, CC_A),
		tr->flags == FLAGS_IN_SLOT ? SOFT_REASON_STEP_SLOT : SOFT_REASON_STEP);
}

void tr_operand(struct tr *tr, const struct soft_insn *insn, bool write)
{
	uint8_t *retry, own;
	struct cold *cold;

	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	own = own_registers(tr, insn);
	retry = tr->e.at;
	tr_address(tr, insn);
	if (soft_insn_is_bit_string(insn))
		add_bit_distance(tr, insn, false);
	cold = tr_check(tr, insn->memory_bytes, write, insn, retry);
	cold->own = own;
	tr_behind(tr, cold, insn);
	look_for_line(tr, insn);
	if (soft_insn_is_bit_string(insn))
		add_bit_distance(tr, insn, true);
	tr_clean(tr);
	if (needs_flags(tr, insn)) {
		tr_restore_flags(tr, R11);
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
