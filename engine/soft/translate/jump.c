/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a block: jumps, calls, returns, and leaving to C.
 *
 * Within the page: a jump that is linked to the target's block once that is known; it takes the
 * flags along where they are. To another page, whose translation may change: the same by a place of
 * its own in each vCPU, its door (tlb/doors.h). To a computed address: the vCPU's jump table, rip in
 * r10, flags in the slot:
 *
 *      lea r11d, [r10 + r10] ; and ; cmp r10, gs:[r11 + rip] ; jne lookup
 *      jmp gs:[r11 + code]
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/tlb/doors.h"
#include "engine/soft/tlb/jumps.h"

#define OFFSET_RIP  ((uint32_t)offsetof(struct soft_jump_entry, rip))
#define OFFSET_CODE ((uint32_t)offsetof(struct soft_jump_entry, code))

static bool is_near_branch(const struct soft_insn *insn)
{
	return insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT ||
	       insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
}

static bool is_register_or_memory(const struct soft_insn *insn)
{
	const ZydisDecodedOperand *op = &insn->op[0];

	if (op->size != 64)
		return false;
	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
		return op->reg.value != ZYDIS_REGISTER_RSP;
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && insn->memory == 0;
}

bool tr_is_jump(const struct soft_insn *insn)
{
	switch (insn->z.meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
		return insn->z.address_width == 64 && insn->z.operand_width == 64 &&
		       (insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT
				? insn->z.opcode >> 4 == 7 || insn->z.opcode >> 2 == 0xe0 >> 2
				: insn->z.opcode_map == ZYDIS_OPCODE_MAP_0F &&
					  insn->z.opcode >> 4 == 8);
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
		if (insn->z.mnemonic != ZYDIS_MNEMONIC_JMP &&
		    insn->z.mnemonic != ZYDIS_MNEMONIC_CALL)
			return false;
		return insn->z.operand_width == 64 && is_near_branch(insn) &&
		       (insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ||
			is_register_or_memory(insn));
	case ZYDIS_CATEGORY_RET:
		return insn->z.mnemonic == ZYDIS_MNEMONIC_RET && is_near_branch(insn) &&
		       insn->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		       insn->z.operand_width == 64;
	default:
		return false;
	}
}

static bool in_same_page(const struct tr *tr, uint64_t rip)
{
	return (rip ^ tr->t->rip) < PAGE_BYTES;
}

static void save_flags_for_exit(struct tr *tr, uint64_t rip)
{
	uint64_t here = tr->rip;

	if (tr->flags != FLAGS_IN_HOST)
		return;
	tr->rip = rip;
	tr_save_flags(tr);
	tr->rip = here;
}

uint32_t tr_jump_table(uint32_t view)
{
	return (uint32_t)(offsetof(struct engine_vcpu, jump) +
			  view * JUMP_ENTRIES * sizeof(struct soft_jump_entry));
}

/* jne lookup. Where its distance is. */
static uint8_t *emit_unknown(struct tr *tr)
{
	return emit_jcc(&tr->e, CC_NE, soft_cache_lookup(tr->t->vcpu->engine));
}

void tr_exit_computed(struct tr *tr, uint32_t view)
{
	uint32_t table = tr_jump_table(view);
	struct emit *e = &tr->e;

	_Static_assert(JUMP_INDEX_MASK == (JUMP_ENTRIES - 1) * sizeof(struct soft_jump_entry), "");
	emit_lea32_twice(e, R11, R10);
	emit_and32_imm(e, R11, JUMP_INDEX_MASK);
	emit_cmp_gs_base(e, R10, R11, table + OFFSET_RIP);
	tr_cold(tr, emit_unknown(tr), SOFT_REASON_LOOKUP)->computed =
		tr->t->record[tr->t->record_count - 1].computed;
	tr_clean(tr);
	emit_jmp_gs_base(e, R11, table + OFFSET_CODE);
}

/* To another view, or to where an instruction may lie across pages: its place in the table is known. */
static void exit_constant(struct tr *tr, uint32_t view, uint64_t rip)
{
	uint32_t entry = tr_jump_table(view) +
			 soft_jump_index(rip) * (uint32_t)sizeof(struct soft_jump_entry);
	struct emit *e = &tr->e;

	emit_mov_imm(e, R10, rip);
	emit_cmp_gs(e, R10, entry + OFFSET_RIP);
	emit_unknown(tr);
	tr_clean(tr);
	emit_jmp_gs(e, entry + OFFSET_CODE);
}

void tr_switch_view(struct tr *tr, bool ac)
{
	uint32_t view = ac ? VIEW_KERNEL_USER : VIEW_KERNEL;
	uint32_t flags = offsetof(struct engine_vcpu, system_flags);
	struct emit *e = &tr->e;

	if (!soft_is_canonical(tr->next)) {
		tr_exit_step(tr, tr->rip);
		return;
	}
	save_flags_for_exit(tr, tr->rip);
	tr_record(tr, tr->rip);
	if (!ac) { /* without SMAP C knows what it is */
		emit_test8_gs_imm(e, offsetof(struct engine_vcpu, state.cr4) + 2, CR4_SMAP >> 16);
		tr_cold(tr, emit_jcc_open(e, CC_E), SOFT_REASON_STEP_SLOT);
	}
	tr_clean(tr);
	if (ac)
		emit_or32_gs_imm(e, flags, (uint32_t)FLAG_AC);
	else
		emit_and32_gs_imm(e, flags, ~(uint32_t)FLAG_AC);
	emit_store8_imm(e, (uint8_t)view, offsetof(struct engine_vcpu, view));
	emit_store_imm(e, tr_jump_table(view), VCPU_JUMPS);
	tr_record(tr, tr->next);
	exit_constant(tr, view, tr->next);
}

/* The jump whose distance is at `site` will be linked to the block at rip. */
static void link_to(struct tr *tr, uint8_t *site, uint64_t rip)
{
	bool slot = tr->flags == FLAGS_IN_SLOT;

	tr_cold(tr, site, slot ? SOFT_REASON_LINK_SLOT : SOFT_REASON_LINK)->rip = rip;
}

/* May the jump to this address of another page have a door? */
static bool has_door(const struct tr *tr, uint64_t rip)
{
	const struct soft_translation *t = tr->t;

	return soft_door_can_lead_to(rip) && t->door_count < SOFT_BLOCK_DOORS_MAX &&
	       t->first_door + t->door_count < DOORS_MAX;
}

/* The door's jump is here, or where the jump whose distance is at `site` will lead. */
static void exit_by_door(struct tr *tr, uint8_t *site, uint64_t rip)
{
	bool slot = tr->flags == FLAGS_IN_SLOT;
	uint32_t door = tr->t->first_door + tr->t->door_count++;
	struct cold *cold;

	if (!site) {
		tr_record(tr, rip);
		emit_jmp_gs(&tr->e, soft_door_offset(door));
	}
	cold = tr_cold(tr, site, slot ? SOFT_REASON_DOOR_SLOT : SOFT_REASON_DOOR);
	cold->rip = rip;
	cold->door = door;
}

void tr_exit(struct tr *tr, uint64_t rip)
{
	struct emit *e = &tr->e;

	if (!soft_is_canonical(rip)) { /* only a computed one can be undone */
		tr_exit_step(tr, rip);
		return;
	}
	if (!in_same_page(tr, rip) && has_door(tr, rip)) {
		exit_by_door(tr, NULL, rip);
		return;
	}
	if (!in_same_page(tr, rip) || (rip == tr->next && tr->t->crossing_next)) {
		save_flags_for_exit(tr, rip);
		tr_record(tr, rip);
		exit_constant(tr, tr->t->mode & MODE_VIEW, rip);
		return;
	}
	tr_record(tr, rip);
	emit_align_field(e, 1);
	tr_clean(tr);
	link_to(tr, emit_jmp_open(e), rip);
}

void tr_exit_step(struct tr *tr, uint64_t rip)
{
	struct emit *e = &tr->e;

	tr_record(tr, rip);
	/* A kick may break off the step: then no interrupt may come before it. */
	if (rip == tr->shadow_rip)
		emit_store8_imm(e, SHADOW_STI, offsetof(struct engine_vcpu, shadow));
	emit_mov_imm(e, R10, rip);
	emit_store(e, R10, VCPU_RIP);
	emit_mov_imm(e, R10, tr->known_offered ? (uintptr_t)tr->t->known : 0);
	emit_store(e, R10, VCPU_ARGUMENT);
	emit_store_imm(e, tr->flags == FLAGS_IN_SLOT ? SOFT_REASON_STEP_SLOT : SOFT_REASON_STEP,
		       VCPU_REASON);
	tr_clean(tr);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* LOOP and JRCXZ: loop +2; jmp +5; jmp taken. Where the last one's distance is. */
static uint8_t *emit_loop(struct tr *tr, const struct soft_insn *insn, uint64_t target)
{
	struct emit *e = &tr->e;
	uint8_t *taken, *passed, *site;

	tr_record(tr, tr->rip);
	taken = emit_loop_short(e, insn->z.opcode & 3);
	tr_record(tr, tr->next);
	passed = emit_jmp_short(e);
	tr_record(tr, target);
	emit_land(e, taken);
	site = emit_jmp_open(e);
	emit_land(e, passed);
	return site;
}

/* jcc, its distance being one that can be changed at any time. Where that is. */
static uint8_t *emit_condition(struct tr *tr, const struct soft_insn *insn)
{
	struct emit *e = &tr->e;

	tr_record(tr, tr->rip);
	emit_align_field(e, 2);
	return emit_jcc_open(e, insn->z.opcode & 15);
}

/* jcc to what is emitted later. Where its distance is. */
static uint8_t *emit_plain_condition(struct tr *tr, const struct soft_insn *insn)
{
	tr_record(tr, tr->rip);
	return emit_jcc_open(&tr->e, insn->z.opcode & 15);
}

bool tr_is_jcc(const struct soft_insn *insn)
{
	return insn->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || insn->z.opcode < 0xe0;
}

static void translate_conditional(struct tr *tr, const struct soft_insn *insn)
{
	uint64_t target = tr->next + insn->op[0].imm.value.u;
	enum flags_place flags;
	uint8_t *site;
	bool again;

	if (tr->flags == FLAGS_IN_SLOT && insn->flags_read) {
		tr_record(tr, tr->rip);
		tr_restore_flags(tr, tr_scratch(tr));
		tr->flags = FLAGS_IN_HOST;
	}
	if (tr->index + 1 < tr->t->count) { /* a side exit: who does not take it goes on here */
		if (in_same_page(tr, target))
			link_to(tr, emit_condition(tr, insn), target);
		else if (has_door(tr, target))
			exit_by_door(tr, emit_plain_condition(tr, insn), target);
		else
			tr->failed = true; /* it has to be the last one */
		return;
	}
	again = tr_is_jcc(insn) && tr->loops && !(tr->t->mode & MODE_SLOT);
	if (again)
		tr_share_again(tr);
	if (tr_is_jcc(insn) && !in_same_page(tr, target) && has_door(tr, target)) {
		exit_by_door(tr, emit_plain_condition(tr, insn), target);
		tr_exit(tr, tr->next);
		return;
	}
	site = tr_is_jcc(insn) ? emit_condition(tr, insn) : emit_loop(tr, insn, target);
	flags = tr->flags;
	if (again) {
		emit_patch32(site, tr->e.alias, tr->t->head);
	} else if (tr_is_jcc(insn) && in_same_page(tr, target)) {
		link_to(tr, site, target);
	} else {
		tr_exit(tr, tr->next);
		tr->flags = flags;
		emit_patch32(site, tr->e.alias, tr->e.at);
		tr_exit(tr, target);
		return;
	}
	tr_exit(tr, tr->next);
}

/* The return address; lea rsp, [rsp - 8] */
static void emit_push_return(struct tr *tr)
{
	tr_store_value(tr, tr->next, tr_stack(tr, RSP, -8, true));
	tr->lag -= 8;
	if (tr_is_followed(tr->t, tr->index))
		return;
	emit_lea(&tr->e, RSP, RSP, tr->lag);
	tr->lag = 0;
}

/* r10 := the target; only r10, r11 and flags are used, the record is open. */
static void load_target(struct tr *tr, const struct soft_insn *insn)
{
	const ZydisDecodedOperand *op = &insn->op[0];
	int reg;

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		struct host_operand at = { R10, -1, 0, 0 };

		if (!tr_shared_operand(tr, insn, &at))
			tr_operand(tr, insn, false);
		tr_load_at(tr, R10, at);
		tr_forget(tr, R10);
		return;
	}
	tr_record(tr, tr->rip);
	tr_forget(tr, R10);
	reg = soft_register_number(op->reg.value);
	if (tr_is_high(reg))
		emit_load(&tr->e, R10, VCPU_GPR + 8 * (uint32_t)reg);
	else
		emit_mov(&tr->e, R10, reg);
}

static void end_computed(struct tr *tr, enum soft_computed computed)
{
	tr_record(tr, tr->rip)->computed = (uint8_t)computed;
	tr_exit_computed(tr, tr->t->mode & MODE_VIEW);
}

static void translate_call(struct tr *tr, const struct soft_insn *insn)
{
	if (insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		emit_push_return(tr);
		if (!tr_is_followed(tr->t, tr->index))
			tr_exit(tr, tr->next + insn->op[0].imm.value.u);
		return;
	}
	/* What the push does by itself is by an rsp that is right. */
	if (tr->access[tr->index + 1].group == GROUP_NONE)
		tr_settle_stack(tr, tr->rip);
	save_flags_for_exit(tr, tr->rip);
	load_target(tr, insn);
	emit_store(&tr->e, R10, VCPU_SCRATCH);
	tr_clean(tr);
	tr->index++; /* for its other access */
	emit_push_return(tr);
	tr->index--;
	emit_load(&tr->e, R10, VCPU_SCRATCH);
	end_computed(tr, COMPUTED_CALL);
}

static void translate_jmp(struct tr *tr, const struct soft_insn *insn)
{
	if (insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		if (!tr_is_followed(tr->t, tr->index))
			tr_exit(tr, tr->next + insn->op[0].imm.value.u);
		return;
	}
	tr_settle_stack(tr, tr->rip);
	save_flags_for_exit(tr, tr->rip);
	load_target(tr, insn);
	end_computed(tr, COMPUTED_JUMP);
}

static void translate_ret(struct tr *tr)
{
	save_flags_for_exit(tr, tr->rip);
	tr_load_at(tr, R10, tr_stack(tr, RSP, 0, false));
	tr_clean(tr);
	emit_lea(&tr->e, RSP, RSP, tr->lag + 8);
	tr->lag = 0;
	end_computed(tr, COMPUTED_RETURN);
}

/* A direct jump that cannot be: C finds its fault, if it is taken. */
static bool leads_nowhere(const struct tr *tr, const struct soft_insn *insn)
{
	return insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       !soft_is_canonical(tr->next + insn->op[0].imm.value.u);
}

void tr_jump(struct tr *tr, const struct soft_insn *insn)
{
	if (leads_nowhere(tr, insn)) {
		tr_settle_stack(tr, tr->rip);
		tr_exit_step(tr, tr->rip);
		return;
	}
	switch (insn->z.meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
		translate_conditional(tr, insn);
		break;
	case ZYDIS_CATEGORY_CALL:
		translate_call(tr, insn);
		break;
	case ZYDIS_CATEGORY_RET:
		translate_ret(tr);
		break;
	default:
		translate_jmp(tr, insn);
		break;
	}
}
