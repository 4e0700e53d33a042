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
 * A switch of CR3 costs what is in use: a bit for each entry says so. The places of a guest page's
 * addresses are 512 neighbours, 8 words of bits, and as many for their second places.
 */
#include "engine/soft/tlb/jumps.h"

#include "engine/soft/tlb/doors.h"

#define SECOND	   (JUMP_INDEX_SECOND / 16)
#define ASLEEP	   8u /* the bit of rip that makes it the neighbour's */
#define PAGE_WORDS (PAGE_BYTES / 8 / 64)

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

/* Calls `each` for what may be in use of a table; awake or asleep, or both. */
typedef void each_jump(struct soft_jump_entry *entry, uint32_t index);

static void for_word(struct soft_jump_entry *table, uint64_t bits, uint32_t w, each_jump *each)
{
	for (; bits; bits &= bits - 1) {
		uint32_t index = w * 64 + (uint32_t)__builtin_ctzll(bits);

		each(&table[index], index);
	}
}

void soft_jump_flush(struct engine_vcpu *vcpu, enum soft_view view)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];

	soft_door_flush(vcpu, view);
	for (uint32_t s = 0; s < JUMP_WORDS / 64; s++) {
		for (uint64_t words = used->summary[s] | used->summary_asleep[s]; words;
		     words &= words - 1) {
			uint32_t w = s * 64 + (uint32_t)__builtin_ctzll(words);

			for_word(vcpu->jump[view], used->awake[w] | used->asleep[w], w, kill_entry);
			used->awake[w] = used->asleep[w] = 0;
		}
		used->summary[s] = used->summary_asleep[s] = 0;
	}
}

void soft_jump_sleep(struct engine_vcpu *vcpu, enum soft_view view)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];

	soft_door_sleep(vcpu, view);
	for (uint32_t s = 0; s < JUMP_WORDS / 64; s++) {
		for (uint64_t words = used->summary[s]; words; words &= words - 1) {
			uint32_t w = s * 64 + (uint32_t)__builtin_ctzll(words);

			for_word(vcpu->jump[view], used->awake[w], w, sleep_entry);
			used->asleep[w] |= used->awake[w];
			used->awake[w] = 0;
		}
		used->summary_asleep[s] |= used->summary[s];
		used->summary[s] = 0;
	}
}

static void note_awake(struct soft_jump_used *used, uint32_t index)
{
	used->awake[index / 64] |= BIT64(index % 64);
	used->summary[index / 64 / 64] |= BIT64(index / 64 % 64);
}

void soft_jump_sleep_some(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
			  uint64_t bytes)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];

	soft_door_sleep_some(vcpu, view, linear, bytes);
	for (uint32_t s = 0; s < JUMP_WORDS / 64; s++) {
		for (uint64_t words = used->summary[s]; words; words &= words - 1) {
			uint32_t w = s * 64 + (uint32_t)__builtin_ctzll(words);
			uint64_t some = 0;

			for (uint64_t bits = used->awake[w]; bits; bits &= bits - 1) {
				uint32_t index = w * 64 + (uint32_t)__builtin_ctzll(bits);
				struct soft_jump_entry *entry = &vcpu->jump[view][index];

				if (entry->rip + INSN_BYTES_MAX - linear >= bytes + INSN_BYTES_MAX)
					continue;
				sleep_entry(entry, index);
				some |= bits & -bits;
			}
			used->awake[w] &= ~some;
			used->asleep[w] |= some;
			if (some)
				used->summary_asleep[s] |= BIT64(w % 64);
		}
	}
}

/* Those of one page and one word. */
static void wake_word(struct engine_vcpu *vcpu, enum soft_view view, uint64_t page, uint32_t w,
		      bool same)
{
	struct soft_jump_used *used = &vcpu->jump_used[view];

	for (uint64_t bits = used->asleep[w] | (same ? 0 : used->awake[w]); bits;
	     bits &= bits - 1) {
		uint32_t index = w * 64 + (uint32_t)__builtin_ctzll(bits);
		struct soft_jump_entry *entry = &vcpu->jump[view][index];
		bool sleeps = is_at(entry, index, ASLEEP);

		if (page_of(entry->rip) == page && !same) {
			kill_entry(entry, index);
		} else if (page_of(entry->rip) == page && sleeps) {
			entry->rip ^= ASLEEP;
			note_awake(used, index);
		} else if (sleeps) {
			continue;
		}
		used->asleep[w] &= ~(bits & -bits);
	}
}

void soft_jump_fetched(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       const uint8_t *host)
{
	uint64_t page = page_of(linear), at = page_of((uintptr_t)host);
	struct soft_jump_page *known = &vcpu->jump_page[view][page / PAGE_BYTES % JUMP_PAGES];
	uint32_t first = soft_jump_index(page) / 64;
	bool same = known->page == page && known->host == at;

	*known = (struct soft_jump_page){ .page = page, .host = at };
	soft_door_fetched(vcpu, view, page, same);
	for (uint32_t w = first; w < first + PAGE_WORDS; w++) {
		wake_word(vcpu, view, page, w, same);
		wake_word(vcpu, view, page, w ^ SECOND / 64, same);
	}
}

static void set_jump(struct engine_vcpu *vcpu, uint32_t index, struct soft_jump_entry with)
{
	note_awake(&vcpu->jump_used[vcpu->view], index);
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
