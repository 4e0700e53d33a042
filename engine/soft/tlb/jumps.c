/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where indirect jumps go: guest rip -> host code, a table for each view. Translated code looks for
 * a target at its first place, a stub (cache/stubs.S) at its second; both are in cache/layout.h.
 *
 * When the TLB is emptied, it is not known any more what page a jump leads to; nearly always it is
 * the same as before. So its entries are put to sleep: translated code does not find them, since
 * they have an address of the neighbouring place. When the first instruction is fetched from a page
 * again, all that lead there wake up, if it is the page that they were made for; else they go.
 *
 * The places of a guest page's addresses are one word of groups (JUMP_GROUP entries each), and
 * another one for their second places.
 */
#include "engine/soft/tlb/jumps.h"

#define SECOND	  (JUMP_INDEX_SECOND / 16)
#define ASLEEP	  8u /* the bit of rip that makes it the neighbour's */
#define WORD_PAGE (64u * JUMP_GROUP)

_Static_assert(WORD_PAGE * 8 == PAGE_BYTES, "places of a page");

static uint64_t page_of(uint64_t linear)
{
	return linear & ~(uint64_t)(PAGE_BYTES - 1);
}

/* An address that is never looked for at this place. A table that was never written has 0. */
static uint64_t jump_nobody(uint32_t index)
{
	return index % SECOND ? 0 : 8;
}

/* Is there something, awake (or asleep), at this place? */
static bool is_at(const struct soft_jump_entry *entry, uint32_t index, uint64_t asleep)
{
	return entry->code && soft_jump_index(entry->rip ^ asleep) % SECOND == index % SECOND;
}

static void kill_entry(struct soft_jump_entry *entry, uint32_t index)
{
	*entry = (struct soft_jump_entry){ .rip = jump_nobody(index) };
}

/* An instruction that may reach into the next page depends on that one as well. */
static bool may_cross(uint64_t rip)
{
	return (rip & (PAGE_BYTES - 1)) > PAGE_BYTES - INSN_BYTES_MAX;
}

static void sleep_entry(struct soft_jump_entry *entry, uint32_t index)
{
	if (!is_at(entry, index, 0))
		return;
	if (may_cross(entry->rip))
		kill_entry(entry, index);
	else
		entry->rip ^= ASLEEP;
}

void soft_jump_create(struct engine_vcpu *vcpu)
{
	for (int view = 0; view < VIEW_COUNT; view++) {
		kill_entry(&vcpu->jump[view][0], 0);
		kill_entry(&vcpu->jump[view][SECOND], SECOND);
	}
}

void soft_jump_flush(struct engine_vcpu *vcpu, enum soft_view view)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];

	for (uint32_t w = 0; w < JUMP_WORDS; w++) {
		for (uint64_t bits = used->awake[w] | used->asleep[w]; bits; bits &= bits - 1) {
			uint32_t first =
				w * WORD_PAGE + (uint32_t)__builtin_ctzll(bits) * JUMP_GROUP;

			for (uint32_t i = first; i < first + JUMP_GROUP; i++)
				kill_entry(&vcpu->jump[view][i], i);
		}
		used->awake[w] = used->asleep[w] = 0;
	}
}

void soft_jump_sleep(struct engine_vcpu *vcpu, enum soft_view view)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];

	for (uint32_t w = 0; w < JUMP_WORDS; w++) {
		for (uint64_t bits = used->awake[w]; bits; bits &= bits - 1) {
			uint32_t first =
				w * WORD_PAGE + (uint32_t)__builtin_ctzll(bits) * JUMP_GROUP;

			for (uint32_t i = first; i < first + JUMP_GROUP; i++)
				sleep_entry(&vcpu->jump[view][i], i);
		}
		used->asleep[w] |= used->awake[w];
		used->awake[w] = 0;
	}
}

/* Those of one page and one word. A group of which none is asleep any more is not looked at again.
 */
static void wake_word(struct engine_vcpu *vcpu, enum soft_view view, uint64_t page, uint32_t w,
		      bool same)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];
	uint64_t asleep = 0;

	for (uint64_t bits = used->asleep[w] | (same ? 0 : used->awake[w]); bits;
	     bits &= bits - 1) {
		uint32_t first = w * WORD_PAGE + (uint32_t)__builtin_ctzll(bits) * JUMP_GROUP;
		bool still = false;

		for (uint32_t i = first; i < first + JUMP_GROUP; i++) {
			struct soft_jump_entry *entry = &vcpu->jump[view][i];
			bool sleeps = is_at(entry, i, ASLEEP);

			if (page_of(entry->rip) != page)
				still = still || sleeps;
			else if (same && sleeps)
				entry->rip ^= ASLEEP;
			else if (!same)
				kill_entry(entry, i);
		}
		used->awake[w] |= bits & -bits;
		if (still)
			asleep |= bits & -bits;
	}
	used->asleep[w] = asleep;
}

void soft_jump_fetched(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       const uint8_t *host)
{
	uint64_t page = page_of(linear), at = page_of((uintptr_t)host);
	struct soft_jump_page *known = &vcpu->jump_page[view][page / PAGE_BYTES % JUMP_PAGES];
	uint32_t w = soft_jump_index(page) / WORD_PAGE;
	bool same = known->page == page && known->host == at;

	*known = (struct soft_jump_page){ .page = page, .host = at };
	wake_word(vcpu, view, page, w, same);
	wake_word(vcpu, view, page, w ^ SECOND / WORD_PAGE, same);
}

static void set_jump(struct engine_vcpu *vcpu, uint32_t index, struct soft_jump_entry with)
{
	uint32_t group = index / JUMP_GROUP;

	vcpu->jump_used[vcpu->view].awake[group / 64] |= BIT64(group % 64);
	vcpu->jump[vcpu->view][index] = with;
}

void soft_jump_remember(struct engine_vcpu *vcpu, uint64_t rip, const uint8_t *code)
{
	uint32_t index = soft_jump_index(rip);
	struct soft_jump_entry old = vcpu->jump[vcpu->view][index];

	/* Who has its first place here goes to its second. */
	if (old.code && old.rip != rip && soft_jump_index(old.rip) == index)
		set_jump(vcpu, index ^ SECOND, old);
	set_jump(vcpu, index, (struct soft_jump_entry){ .rip = rip, .code = (uintptr_t)code });
}

const uint8_t *soft_jump_find(const struct engine_vcpu *vcpu, uint64_t rip)
{
	const struct soft_jump_entry *table = vcpu->jump[vcpu->view];
	uint32_t index = soft_jump_index(rip);

	if (table[index].rip != rip)
		index ^= SECOND;
	return table[index].rip == rip ? (const uint8_t *)(uintptr_t)table[index].code : NULL;
}
