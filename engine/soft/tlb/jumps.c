/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where indirect jumps go: guest rip -> host code, a table for each view. Translated code looks for
 * a target at its first place, a stub (cache/stubs.S) at its second; both are in cache/layout.h.
 */
#include "engine/soft/tlb/jumps.h"

/* An address that is never looked for at this place. */
static uint64_t jump_nobody(uint64_t index)
{
	return index % (JUMP_INDEX_SECOND / 16) ? 0 : 8;
}

void soft_jump_flush(struct engine_vcpu *vcpu, enum soft_view view)
{
	uint32_t count = vcpu->jump_count[view];
	bool listed = count < JUMP_LIST;

	for (uint32_t i = 0; i < (listed ? count : JUMP_ENTRIES); i++) {
		uint32_t index = listed ? vcpu->jump_list[view][i] : i;

		vcpu->jump[view][index].rip = jump_nobody(index);
	}
	vcpu->jump_count[view] = 0;
}

static void set_jump(struct engine_vcpu *vcpu, uint32_t index, struct soft_jump_entry with)
{
	struct soft_jump_entry *entry = &vcpu->jump[vcpu->view][index];
	uint32_t *count = &vcpu->jump_count[vcpu->view];

	if (entry->rip == jump_nobody(index) && *count < JUMP_LIST)
		vcpu->jump_list[vcpu->view][(*count)++] = (uint16_t)index;
	*entry = with;
}

void soft_jump_remember(struct engine_vcpu *vcpu, uint64_t rip, const uint8_t *code)
{
	uint32_t index = soft_jump_index(rip);
	struct soft_jump_entry old = vcpu->jump[vcpu->view][index];

	/* Who has its first place here goes to its second. */
	if (old.rip != rip && soft_jump_index(old.rip) == index)
		set_jump(vcpu, index ^ JUMP_INDEX_SECOND / 16, old);
	set_jump(vcpu, index, (struct soft_jump_entry){ .rip = rip, .code = (uintptr_t)code });
}

const uint8_t *soft_jump_find(const struct engine_vcpu *vcpu, uint64_t rip)
{
	const struct soft_jump_entry *table = vcpu->jump[vcpu->view];
	uint32_t index = soft_jump_index(rip);

	if (table[index].rip != rip)
		index ^= JUMP_INDEX_SECOND / 16;
	return table[index].rip == rip ? (const uint8_t *)(uintptr_t)table[index].code : NULL;
}
