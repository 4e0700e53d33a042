/* SPDX-License-Identifier: Apache-2.0 */
/* What translated code was left for: TLB misses, the next block, instructions that C steps. */
#include "engine/soft/run/run.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/mmu.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/run/block.h"
#include "engine/soft/step/stepper.h"
#include "engine/soft/tlb/doors.h"
#include "engine/soft/tlb/jumps.h"
#include "engine/soft/tlb/tlb.h"
#include "engine/soft/translate/translator.h"

/* A TLB miss. SOFT_OK: try again at vcpu->target. */
static int fill(struct engine_vcpu *vcpu, enum soft_access access, bool odd)
{
	int err;

	vcpu->unsettled = vcpu->target;
	err = soft_tlb_fill(vcpu, vcpu->argument, access);
	if (err)
		soft_settle(vcpu, vcpu->target);
	vcpu->unsettled = 0;
	/* Faults that the stepper judges: odd operands, #SS or #GP. */
	if (err == SOFT_FAULT && (odd || vcpu->fault.vector != VECTOR_PF))
		err = SOFT_AGAIN;
	return err == SOFT_AGAIN ? soft_step(vcpu) : err;
}

/* An operand across two pages that is only read: the instruction has a copy of it. Both are known. */
static bool read_across(struct engine_vcpu *vcpu, uint64_t reason)
{
	uint32_t bytes = SOFT_REASON_BYTES_OF(reason);
	uint32_t first = PAGE_BYTES - (uint32_t)(vcpu->argument & (PAGE_BYTES - 1));
	enum soft_view view = (enum soft_view)vcpu->view;
	const uint8_t *low, *high;

	if (first >= bytes)
		return false;
	low = soft_tlb_find(vcpu, view, vcpu->argument, ACCESS_READ);
	high = soft_tlb_find(vcpu, view, vcpu->argument + first, ACCESS_READ);
	if (!low || !high)
		return false;
	vcpu->unsettled = vcpu->target;
	soft_copy(vcpu->bounce, low, first);
	soft_copy(vcpu->bounce + first, high, bytes - first);
	vcpu->unsettled = 0;
	vcpu->scratch[0] = (uintptr_t)vcpu->bounce;
	if (reason & SOFT_REASON_ADDEND)
		vcpu->scratch[0] -= vcpu->argument;
	return true;
}

/* What a loop's look found missing for a later access: that one's faults are not due yet. */
static int fill_other(struct engine_vcpu *vcpu)
{
	int err;

	if (soft_tlb_has(vcpu, vcpu->argument, ACCESS_READ))
		return SOFT_OK;
	vcpu->unsettled = vcpu->target;
	err = soft_tlb_fill(vcpu, vcpu->argument, ACCESS_READ);
	vcpu->unsettled = 0;
	if (err == SOFT_FAULT || err == SOFT_AGAIN)
		return SOFT_OK;
	if (err)
		soft_settle(vcpu, vcpu->target);
	return err;
}

/*
 * The same for one that looked for others, too (translate/share.c). If they cannot be served
 * together the guest goes on in a block where each looks for itself.
 */
static int fill_shared(struct engine_vcpu *vcpu, enum soft_access access, bool odd)
{
	uint32_t reach = (uint32_t)vcpu->reach;
	uint64_t low = vcpu->argument - SOFT_REACH_BELOW(reach);
	uint64_t high = vcpu->argument + SOFT_REACH_ABOVE(reach) - 1;
	int err = SOFT_OK;
	bool crosses;

	if (reach & SOFT_REACH_OTHER)
		err = fill_other(vcpu);
	else if (!soft_tlb_has(vcpu, vcpu->argument, access))
		err = fill(vcpu, access, odd);
	if (err || vcpu->stepped)
		return err;
	if ((low ^ high) < PAGE_BYTES &&
	    soft_tlb_has(vcpu, low, reach & SOFT_REACH_WRITE ? ACCESS_WRITE : access))
		return SOFT_OK;
	soft_settle(vcpu, vcpu->target);
	crosses = (low ^ high) >= PAGE_BYTES;
	/* A page's first write is no reason to give up. */
	if (crosses || vcpu->split_page == low / PAGE_BYTES)
		soft_block_split(vcpu, vcpu->target, reach, crosses);
	vcpu->split_page = low / PAGE_BYTES;
	vcpu->alone = true;
	return SOFT_OK;
}

/*
 * Where to go on after code was left for another block. *ret_code stays NULL if there is nothing to
 * enter: then the result says what is next.
 */
static int next_block(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code)
{
	bool stale = reason == SOFT_REASON_STALE || reason == SOFT_REASON_STALE_SLOT;
	bool link = reason == SOFT_REASON_LINK || reason == SOFT_REASON_LINK_SLOT;
	bool door = reason == SOFT_REASON_DOOR || reason == SOFT_REASON_DOOR_SLOT;
	bool split = reason == SOFT_REASON_SPLIT || reason == SOFT_REASON_SPLIT_SLOT;
	bool slot = reason == SOFT_REASON_LOOKUP || reason == SOFT_REASON_LINK_SLOT ||
		    reason == SOFT_REASON_DOOR_SLOT || reason == SOFT_REASON_STALE_SLOT ||
		    reason == SOFT_REASON_SPLIT_SLOT;
	uint8_t *site = (uint8_t *)(uintptr_t)vcpu->argument;
	uint32_t door_number = (uint32_t)vcpu->argument;
	uint64_t generation = soft_cache_generation(vcpu->engine);
	struct soft_block *block;
	bool alone;
	int err;

	if (reason == SOFT_REASON_LOOKUP && soft_undo_jump(vcpu, vcpu->argument)) {
		soft_flags_from_slot(vcpu);
		return soft_step(vcpu);
	}
	alone = vcpu->alone;
	vcpu->alone = false;
	vcpu->slot_pending = slot;
	err = soft_block_get(vcpu, (uint8_t)((slot ? MODE_SLOT : 0) | (alone ? MODE_ALONE : 0)),
			     &block);
	if (err && slot)
		soft_flags_from_slot(vcpu);
	vcpu->slot_pending = false;
	if (err)
		return err == SOFT_AGAIN ? soft_step(vcpu) : err;
	if (alone && !split)
		; /* for this once */
	else if ((link || split) && !block->gpa_behind)
		soft_block_link(vcpu, site, block, generation);
	else if (door && generation == soft_cache_generation(vcpu->engine))
		soft_door_open(vcpu, door_number, block->rip, block->entry);
	else if (slot && !link && !door && !split)
		soft_jump_remember(vcpu, block->rip, block->entry);
	if (stale)
		soft_door_shut(vcpu, block->rip);
	if (stale)
		soft_block_forward(vcpu, site, block, generation);
	*ret_code = block->entry;
	return SOFT_OK;
}

static int serve_miss(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code)
{
	uint64_t kind = SOFT_REASON_KIND(reason), jump = SOFT_REASON_JUMP_OF(reason);
	bool odd = kind == SOFT_REASON_READ_ODD || kind == SOFT_REASON_WRITE_ODD;
	enum soft_access access = kind == SOFT_REASON_WRITE || kind == SOFT_REASON_WRITE_ODD
					  ? ACCESS_WRITE
					  : ACCESS_READ;
	int err;

	if (SOFT_REASON_BYTES_OF(reason) && read_across(vcpu, reason)) {
		*ret_code = (const uint8_t *)(uintptr_t)vcpu->target + jump;
		return SOFT_OK;
	}
	err = reason & SOFT_REASON_SHARED ? fill_shared(vcpu, access, odd)
					  : fill(vcpu, access, odd);
	if (err || vcpu->stepped)
		return err;
	if (!vcpu->alone) {
		*ret_code = (const uint8_t *)(uintptr_t)vcpu->target;
		return SOFT_OK;
	}
	if (!jump)
		return SOFT_OK;
	/* From now on it goes there without C. */
	vcpu->argument = vcpu->target + jump - 1;
	return next_block(vcpu,
			  reason & SOFT_REASON_IN_SLOT ? SOFT_REASON_SPLIT_SLOT : SOFT_REASON_SPLIT,
			  ret_code);
}

/* The instruction at a block's end, which has been decoded if there was room to keep that. */
static int step_known(struct engine_vcpu *vcpu)
{
	const struct soft_insn *insn = (const struct soft_insn *)(uintptr_t)vcpu->argument;

	return insn ? soft_step_known(vcpu, insn) : soft_step(vcpu);
}

/* What guest code was left for. *ret_code: where to enter it again, or NULL. */
int soft_serve(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code)
{
	*ret_code = NULL;
	if (reason & SOFT_REASON_SHARED)
		return serve_miss(vcpu, reason, ret_code);
	switch (SOFT_REASON_KIND(reason)) {
	case SOFT_REASON_READ:
	case SOFT_REASON_WRITE:
	case SOFT_REASON_READ_ODD:
	case SOFT_REASON_WRITE_ODD:
		return serve_miss(vcpu, reason, ret_code);
	case SOFT_REASON_LOOKUP:
	case SOFT_REASON_LINK:
	case SOFT_REASON_LINK_SLOT:
	case SOFT_REASON_DOOR:
	case SOFT_REASON_DOOR_SLOT:
	case SOFT_REASON_STALE:
	case SOFT_REASON_STALE_SLOT:
		return next_block(vcpu, reason, ret_code);
	case SOFT_REASON_STEP_SLOT:
		soft_flags_from_slot(vcpu);
		return step_known(vcpu);
	case SOFT_REASON_STEP:
		return step_known(vcpu);
	case SOFT_REASON_STOP:
		soft_settle(vcpu, vcpu->target);
		return SOFT_OK;
	case SOFT_REASON_FAULT:
		return soft_fault_from_host(vcpu);
	default:
		return SOFT_OK;
	}
}

/* From C into translated code at vcpu->rip, with the flags in the slot. */
int soft_find_code(struct engine_vcpu *vcpu, const uint8_t **ret_code)
{
	const uint8_t *code = vcpu->alone ? NULL : soft_jump_find(vcpu, vcpu->rip);

	vcpu->argument = 0;
	soft_flags_to_slot(vcpu);
	if (!code)
		return next_block(vcpu, SOFT_REASON_LOOKUP, ret_code);
	*ret_code = code;
	return SOFT_OK;
}
