/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: a run of guest instructions becomes host code.
 *
 * Most instructions are copied as they are: guest and host are the same architecture, and guest
 * registers are in the host registers of the same name (layout.h). Memory operands get a look into
 * the TLB in front and are replaced by [r10]; jumps go to other blocks; system instructions and
 * what else is rare leave to C (the stepper).
 *
 * Flags. Looking into the TLB destroys the arithmetic flags, so it is done with them saved, unless
 * a backward pass over the block shows that they are set again before anyone reads them. At a
 * block's end everyone might. Blocks can be entered with the flags in the host's register or in the
 * slot (MODE_SLOT), so that a block that has saved them once need not restore them to leave.
 *
 * Side exits. A block goes on behind a conditional jump forwards: who does not take it has what was
 * found before, flags that are set anew behind it need not be saved, and there is one jump less.
 * Who takes it leaves to a block that knows nothing of this one, so all flags count as read there.
 *
 * Followed jumps. A block goes on where a JMP or a CALL to a constant address leads within its page:
 * there is no jump, what was found is known there, and so are the flags that are set anew.
 *
 * Exactness. An instruction changes the guest's state in its last host instruction, or can be
 * repeated from its start; records say for every host address which it is. So a fault, a wait for a
 * page, or a kick at any host instruction finds the guest's exact state. The one liberty: flags
 * that will be set again before they are read may be wrong meanwhile.
 */
#include "engine/soft/translate/translate.h"

#include <assert.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/tlb/doors.h"
#include "engine/soft/translate/translator.h"

#define HEAD_BYTES 5 /* of the first instruction, at least: a jump can replace it */

struct soft_record *tr_record(struct tr *tr, uint64_t rip)
{
	struct soft_translation *t = tr->t;
	struct soft_record *record = &t->record[t->record_count];
	const uint8_t *at = tr->e.at;
	uint16_t offset;

	/* The first instruction begins with its prefixes. */
	if (t->head && tr->head_prefixes && at == t->head + tr->head_prefixes)
		at = t->head;
	offset = (uint16_t)(at - tr->start);
	if (t->record_count == t->record_max - 1) {
		tr->failed = true;
		return record;
	}
	/* Nothing was emitted since the last one: it is replaced. */
	if (t->record_count && record[-1].start == offset)
		record--;
	else
		t->record_count++;
	*record = (struct soft_record){ .rip = rip,
					.start = offset,
					.clean = offset,
					.slot = tr->flags == FLAGS_IN_SLOT,
					.lag = (int8_t)(tr->lag / 8),
					.shadow = rip == tr->shadow_rip ? SHADOW_STI : 0,
					.swapped = NOT_SWAPPED };
	return record;
}

void tr_settle_stack(struct tr *tr, uint64_t rip)
{
	if (!tr->lag)
		return;
	tr_record(tr, rip);
	emit_lea(&tr->e, RSP, RSP, tr->lag);
	tr->lag = 0;
	tr_record(tr, rip);
}

void tr_clean(struct tr *tr)
{
	if (tr->t->record_count)
		tr->t->record[tr->t->record_count - 1].clean = (uint16_t)(tr->e.at - tr->start);
}

struct cold *tr_cold(struct tr *tr, uint8_t *site, uint8_t reason)
{
	struct cold *cold = &tr->cold[tr->cold_count];

	if (tr->cold_count == COLD_MAX - 1)
		tr->failed = true;
	else
		tr->cold_count++;
	*cold = (struct cold){ .site = site,
			       .reason = reason,
			       .rip = tr->rip,
			       .slot = tr->flags == FLAGS_IN_SLOT,
			       .shadow = tr->rip == tr->shadow_rip };
	return cold;
}

bool soft_insn_is_stepped(const struct soft_insn *insn, uint8_t mode)
{
	return tr_kind(insn, mode) == KIND_STEP;
}

bool soft_insn_ends_block(const struct soft_insn *insn, uint8_t mode)
{
	return tr_kind(insn, mode) <= KIND_JUMP;
}

bool soft_insn_may_be_followed(const struct soft_insn *insn)
{
	return tr_is_jump(insn) && insn->z.meta.category != ZYDIS_CATEGORY_COND_BR &&
	       insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

bool soft_insn_may_be_passed(const struct soft_insn *insn, uint64_t rip, int32_t behind)
{
	uint64_t next = rip + (uint64_t)behind, target;

	if (insn->z.meta.category != ZYDIS_CATEGORY_COND_BR || !tr_is_jump(insn) ||
	    !tr_is_jcc(insn))
		return false;
	target = next + insn->op[0].imm.value.u;
	if (target < next || (next ^ rip) >= PAGE_BYTES)
		return false;
	return (target ^ rip) < PAGE_BYTES ||
	       (soft_door_can_lead_to(target) && soft_is_canonical(target));
}

bool tr_is_followed(const struct soft_translation *t, uint32_t i)
{
	return i + 1 < t->count && soft_insn_may_be_followed(&t->insn[i]);
}

/* What is read behind each instruction, from the block's end upwards. C may look at all flags. */
static void find_live(const struct soft_translation *t, uint32_t *live)
{
	uint32_t now = FLAGS_ARITHMETIC;

	for (uint32_t i = t->count; i-- > 0;) {
		const struct soft_insn *insn = &t->insn[i];

		live[i] = now;
		/* Where a jump leads they may all be read, unless it leads to the next one here. */
		if (t->vcpu->engine->exact_flags ||
		    (tr_kind(insn, t->mode) <= KIND_JUMP && !tr_is_followed(t, i)))
			now = FLAGS_ARITHMETIC;
		else
			now = (now & ~insn->flags_write) | insn->flags_read;
	}
}

/*
 * Does the instruction do without the guest's rsp in the host's? Who pushes and pops, and who
 * accesses what is next to that and needs no look: so a row of them changes rsp once.
 */
static bool may_lag(const struct tr *tr, const struct soft_insn *insn, enum tr_kind kind)
{
	const struct tr_access *access = &tr->access[tr->index];

	switch (kind) {
	case KIND_NOTHING:
		return true;
	case KIND_PUSH:
	case KIND_POP:
		return access->group != GROUP_NONE &&
		       (insn->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
			soft_register_number(insn->op[0].reg.value) != RSP);
	case KIND_JUMP:
		return access->group != GROUP_NONE ||
		       (tr_is_followed(tr->t, tr->index) &&
			insn->z.meta.category != ZYDIS_CATEGORY_CALL);
	case KIND_LEA:
		return !tr_names(insn->registers, RSP);
	case KIND_PLAIN:
		if (insn->memory < 0)
			return !tr_names(insn->registers, RSP);
		return access->group != GROUP_NONE && !tr_names(insn->operand_registers, RSP) &&
		       !tr_names(insn->registers_write, RSP);
	default:
		return false;
	}
}

static void translate_one(struct tr *tr, const struct soft_insn *insn, bool last)
{
	enum tr_kind kind = tr_kind(insn, tr->t->mode);

	if (!may_lag(tr, insn, kind))
		tr_settle_stack(tr, tr->rip);
	if (kind == KIND_STEP || (kind == KIND_STI && last)) {
		tr->known_offered = kind == KIND_STEP;
		tr_exit_step(tr, tr->rip);
	} else if (kind == KIND_AC) {
		tr_switch_view(tr, insn->z.mnemonic == ZYDIS_MNEMONIC_STAC);
	} else if (kind == KIND_SYSCALL) {
		tr_syscall(tr, insn);
	} else if (kind == KIND_JUMP) {
		tr_jump(tr, insn);
	} else {
		tr_insn(tr, insn, kind);
		if (last) {
			tr_settle_stack(tr, tr->next);
			tr_exit(tr, tr->next);
		}
	}
}

/*
 * Where the first misses jump to, as near jumps: bridges to the ways out. The guest's state is not
 * taken there; the host's CPU goes on to what comes then.
 */
static void emit_front(struct tr *tr)
{
	if (!tr->front)
		return;
	emit_nops(&tr->e, BRIDGES_OFFSET); /* at which the record above is clean */
	for (uint32_t i = 0; i < tr->front; i++)
		emit_jmp_open(&tr->e);
	emit_nops(&tr->e, -(uint32_t)(uintptr_t)tr->e.at % 8);
}

/* Writes the block, with `tr` as it is after the plan. */
static void emit_block(struct tr *tr, const uint32_t *live)
{
	struct soft_translation *t = tr->t;

	tr->e = (struct emit){ .at = t->at, .end = t->end, .alias = t->alias };
	t->head = NULL;
	tr->next = t->rip;
	tr->flags = t->mode & MODE_SLOT ? FLAGS_IN_SLOT : FLAGS_IN_HOST;
	tr->cold_count = 0;
	tr->near_failed = false;
	tr->misses = 0;
	tr->held[0] = tr->held[1] = GROUP_NONE;
	tr->shadow_rip = 0;
	tr->known_offered = false;
	tr->lag = 0;
	tr->slots_loaded = 0;
	t->record_count = 0;
	t->door_count = 0;
	tr_record(tr, t->rip);
	emit_front(tr);
	t->entry = tr->e.at;
	tr_record(tr, t->rip);
	if (tr->loops)
		tr_share_begin(tr);
	/* A short loop then is in one line of the host's cache of decoded code. */
	emit_nops(&tr->e, -(uint32_t)(uintptr_t)tr->e.at % (tr->loops ? 64 : 8));
	t->head = tr->e.at;
	if (tr->head_nop)
		emit_nops(&tr->e, HEAD_BYTES);
	for (uint32_t i = 0; i < tr->head_prefixes; i++)
		emit_prefix(&tr->e);
	tr_clean(tr);
	for (uint32_t i = 0; i < t->count; i++) {
		const struct soft_insn *insn = &t->insn[i];

		tr->index = i;
		tr->rip = t->rip + (uint64_t)t->offset[i];
		tr->next = tr->rip + insn->length;
		tr->live_after = live[i];
		tr->live_before = (live[i] & ~insn->flags_write) | insn->flags_read;
		if (t->vcpu->engine->exact_flags)
			tr->live_before = FLAGS_ARITHMETIC;
		translate_one(tr, insn, i == t->count - 1);
	}
	tr_emit_cold(tr);
}

/*
 * When the block becomes invalid its first instruction becomes a jump, while others may execute it:
 * that takes one of five bytes, or more. A shorter one gets prefixes that mean nothing to it; what
 * is a jump itself, and may be linked anew at any time, a NOP in front. True: the block has to be
 * written anew for that.
 */
static bool needs_longer_head(struct tr *tr)
{
	uint32_t length =
		tr->e.full ? HEAD_BYTES : soft_host_length(tr->t->vcpu->engine->offer, tr->t->head);

	if (length >= HEAD_BYTES)
		return false;
	tr->head_nop = !length || tr->head_prefixes;
	tr->head_prefixes = tr->head_nop ? 0 : HEAD_BYTES - length;
	return true;
}

/* Nor does anybody come back, who was in C meanwhile, to the middle of what the jump replaces. */
static void check_retries(const struct tr *tr)
{
	for (uint32_t i = 0; i < tr->cold_count; i++) {
		const uint8_t *retry = tr->cold[i].retry;

		assert(!retry || retry <= tr->t->head || retry >= tr->t->head + HEAD_BYTES);
	}
}

bool soft_translate_block(struct soft_translation *t)
{
	uint32_t live[BLOCK_INSNS_MAX];
	struct tr tr = {
		.t = t, .start = t->at, .slots_wanted = UINT32_MAX, .near_from = COLD_MAX
	};

	find_live(t, live);
	tr_share_plan(&tr);
	emit_block(&tr, live);
	/*
	 * What nobody loads need not be stored, and misses may be near enough for a jump of two
	 * bytes; that is known now, and changes nothing else.
	 */
	if (needs_longer_head(&tr) || tr.slots_stored & ~tr.slots_loaded || tr.front_next ||
	    tr.near_next < tr.cold_count) {
		tr.slots_wanted = tr.slots_loaded;
		tr.near_from = tr.near_next;
		tr.front = tr.front_next;
		emit_block(&tr, live);
	}
	if (tr.near_failed)
		emit_block(&tr, live);
	while (needs_longer_head(&tr))
		emit_block(&tr, live);
	t->code_bytes = (uint32_t)(tr.e.at - tr.start);
	if (tr.failed || tr.e.full || t->code_bytes >= UINT16_MAX)
		return false;
	check_retries(&tr);
	return true;
}
