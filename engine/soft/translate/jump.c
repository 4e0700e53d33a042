/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a block: jumps, calls, returns, and leaving to C.
 *
 * Within the page: a jump that is linked to the target's block once that is known; it takes the
 * flags along where they are. To another page (whose translation may change) or to a computed
 * address: the vCPU's jump table, rip in r14, flags in the slot:
 *
 *      lea r15d, [r14 * 2] ; and ; cmp r14, gs:[r15 + rip] ; jne lookup
 *      jmp gs:[r15 + code]
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/tlb/jumps.h"

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

static uint32_t jump_table(uint32_t view)
{
	return (uint32_t)(offsetof(struct engine_vcpu, jump) +
			  view * JUMP_ENTRIES * sizeof(struct soft_jump_entry));
}

/* jne lookup */
static void emit_unknown(struct tr *tr)
{
	struct emit *e = &tr->e;

	emit8(e, 0x0f);
	emit8(e, 0x85);
	emit32(e, (uint32_t)(int32_t)(soft_cache_lookup(tr->t->vcpu->engine) - (e->at + 4)));
}

void tr_exit_computed(struct tr *tr)
{
	static const uint8_t lea_and[] = { 0x46, 0x8d, 0x3c, 0x75, 0, 0, 0, 0, 0x41, 0x81, 0xe7 };
	uint32_t table = jump_table(tr->t->mode & MODE_VIEW);
	struct emit *e = &tr->e;

	_Static_assert(JUMP_INDEX_MASK == (JUMP_ENTRIES - 1) * sizeof(struct soft_jump_entry), "");
	emit_bytes(e, lea_and, sizeof(lea_and));
	emit32(e, JUMP_INDEX_MASK);
	emit8(e, 0x65); /* cmp r14, gs:[r15 + rip] */
	emit8(e, 0x4d);
	emit8(e, 0x3b);
	emit8(e, 0xb7);
	emit32(e, table);
	emit_unknown(tr);
	tr_cold(tr, e->at - 4, SOFT_REASON_LOOKUP)->computed =
		tr->t->record[tr->t->record_count - 1].computed;
	tr_clean(tr);
	emit8(e, 0x65); /* jmp gs:[r15 + code] */
	emit8(e, 0x41);
	emit8(e, 0xff);
	emit8(e, 0xa7);
	emit32(e, table + 8);
}

/* To another page, or view: its place in the table is known. */
static void exit_constant(struct tr *tr, uint32_t view, uint64_t rip)
{
	uint32_t entry =
		jump_table(view) + soft_jump_index(rip) * (uint32_t)sizeof(struct soft_jump_entry);
	struct emit *e = &tr->e;

	emit_constant(e, R14, rip);
	emit_gs(e, true, 0x3b, R14, entry);
	emit_unknown(tr);
	tr_clean(tr);
	emit_gs(e, false, 0xff, 4, entry + 8); /* jmp gs:[code] */
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
	if (!ac) { /* test byte gs:[cr4], smap; je: C knows what it is then */
		emit_gs(e, false, 0xf6, 0, offsetof(struct engine_vcpu, state.cr4) + 2);
		emit8(e, CR4_SMAP >> 16);
		emit8(e, 0x0f);
		emit8(e, 0x84);
		emit32(e, 0);
		tr_cold(tr, e->at - 4, SOFT_REASON_STEP_SLOT);
	}
	tr_clean(tr);
	emit_gs(e, false, 0x81, ac ? 1 : 4, flags); /* or, and */
	emit32(e, ac ? (uint32_t)FLAG_AC : ~(uint32_t)FLAG_AC);
	emit_store8_constant(e, (uint8_t)view, offsetof(struct engine_vcpu, view));
	emit_store_constant(e, jump_table(view), VCPU_JUMPS);
	tr_record(tr, tr->next);
	exit_constant(tr, view, tr->next);
}

/* The jump whose distance is at `site` will be linked to the block at rip. */
static void link_to(struct tr *tr, uint8_t *site, uint64_t rip)
{
	bool slot = tr->flags == FLAGS_IN_SLOT;

	tr_cold(tr, site, slot ? SOFT_REASON_LINK_SLOT : SOFT_REASON_LINK)->rip = rip;
}

void tr_exit(struct tr *tr, uint64_t rip)
{
	struct emit *e = &tr->e;

	if (!soft_is_canonical(rip)) { /* only a computed one can be undone */
		tr_exit_step(tr, rip);
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
	emit8(e, 0xe9);
	emit32(e, 0);
	link_to(tr, e->at - 4, rip);
}

void tr_exit_step(struct tr *tr, uint64_t rip)
{
	struct emit *e = &tr->e;

	tr_record(tr, rip);
	/* A kick may break off the step: then no interrupt may come before it. */
	if (rip == tr->shadow_rip)
		emit_store8_constant(e, SHADOW_STI, offsetof(struct engine_vcpu, shadow));
	emit_constant(e, R14, rip);
	emit_store(e, R14, VCPU_RIP);
	emit_constant(e, R14, tr->known_offered ? (uintptr_t)tr->t->known : 0);
	emit_store(e, R14, VCPU_ARGUMENT);
	emit_store_constant(e,
			    tr->flags == FLAGS_IN_SLOT ? SOFT_REASON_STEP_SLOT : SOFT_REASON_STEP,
			    VCPU_REASON);
	tr_clean(tr);
	emit_jump(e, soft_cache_exit(tr->t->vcpu->engine));
}

/* LOOP and JRCXZ: loop +2; jmp +5; jmp taken. Where the last one's distance is. */
static uint8_t *emit_loop(struct tr *tr, const struct soft_insn *insn, uint64_t target)
{
	struct emit *e = &tr->e;

	tr_record(tr, tr->rip);
	emit8(e, insn->z.opcode);
	emit8(e, 2);
	tr_record(tr, tr->next);
	emit8(e, 0xeb);
	emit8(e, 5);
	tr_record(tr, target);
	emit8(e, 0xe9);
	emit32(e, 0);
	return e->at - 4;
}

/* jcc, its distance being one that can be changed at any time. Where that is. */
static uint8_t *emit_condition(struct tr *tr, const struct soft_insn *insn)
{
	struct emit *e = &tr->e;

	tr_record(tr, tr->rip);
	emit_align_field(e, 2);
	emit8(e, 0x0f);
	emit8(e, 0x80u | (insn->z.opcode & 15));
	emit32(e, 0);
	return e->at - 4;
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
		link_to(tr, emit_condition(tr, insn), target);
		return;
	}
	again = tr_is_jcc(insn) && tr->loops && !(tr->t->mode & MODE_SLOT);
	if (again)
		tr_share_again(tr);
	site = tr_is_jcc(insn) ? emit_condition(tr, insn) : emit_loop(tr, insn, target);
	flags = tr->flags;
	if (again) {
		emit_patch32(site, tr->t->head);
	} else if (tr_is_jcc(insn) && in_same_page(tr, target)) {
		link_to(tr, site, target);
	} else {
		tr_exit(tr, tr->next);
		tr->flags = flags;
		emit_patch32(site, tr->e.at);
		tr_exit(tr, target);
		return;
	}
	tr_exit(tr, tr->next);
}

/* The return address; lea rsp, [rsp - 8] */
static void emit_push_return(struct tr *tr)
{
	static const uint8_t lea_rsp[] = { 0x48, 0x8d, 0x64, 0x24, 0xf8 };
	struct host_operand at = tr_stack(tr, RSP, -8, true);
	int value = tr_scratch_besides(tr, at);

	emit_constant(&tr->e, value, tr->next);
	tr_clean(tr);
	tr_emit_at(tr, 0x89, value, at);
	emit_bytes(&tr->e, lea_rsp, sizeof(lea_rsp));
}

/* r14 := the target; only r14, r15 and flags are used, the record is open. */
static void load_target(struct tr *tr, const struct soft_insn *insn)
{
	const ZydisDecodedOperand *op = &insn->op[0];
	int reg;

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		tr_operand(tr, insn, false);
		emit8(&tr->e, 0x4d); /* mov r14, [r14] */
		emit8(&tr->e, 0x8b);
		emit8(&tr->e, 0x36);
		return;
	}
	tr_record(tr, tr->rip);
	reg = soft_register_number(op->reg.value);
	if (reg >= R14)
		emit_load(&tr->e, R14, VCPU_GPR + 8 * (uint32_t)reg);
	else
		emit_move(&tr->e, R14, reg);
}

static void end_computed(struct tr *tr, enum soft_computed computed)
{
	tr_record(tr, tr->rip)->computed = (uint8_t)computed;
	tr_exit_computed(tr);
}

static void translate_call(struct tr *tr, const struct soft_insn *insn)
{
	if (insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		emit_push_return(tr);
		tr_exit(tr, tr->next + insn->op[0].imm.value.u);
		return;
	}
	save_flags_for_exit(tr, tr->rip);
	load_target(tr, insn);
	emit_store(&tr->e, R14, VCPU_SCRATCH);
	tr_clean(tr);
	emit_push_return(tr);
	emit_load(&tr->e, R14, VCPU_SCRATCH);
	end_computed(tr, COMPUTED_CALL);
}

static void translate_jmp(struct tr *tr, const struct soft_insn *insn)
{
	if (insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		tr_exit(tr, tr->next + insn->op[0].imm.value.u);
		return;
	}
	save_flags_for_exit(tr, tr->rip);
	load_target(tr, insn);
	end_computed(tr, COMPUTED_JUMP);
}

static void translate_ret(struct tr *tr)
{
	save_flags_for_exit(tr, tr->rip);
	tr_emit_at(tr, 0x8b, R14, tr_stack(tr, RSP, 0, false));
	tr_clean(tr);
	emit8(&tr->e, 0x48); /* lea rsp, [rsp + 8] */
	emit8(&tr->e, 0x8d);
	emit8(&tr->e, 0x64);
	emit8(&tr->e, 0x24);
	emit8(&tr->e, 8);
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
