/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TLB that translated code looks into: direct-mapped, one table per view (who accesses).
 *
 * An entry has a tag per kind of access; a tag that must not match is the page address of the
 * neighbouring index, which can never be looked up here. So "not present", "must set the dirty bit
 * first", "the page holds translated code" are all the same to translated code: it does not match,
 * C looks.
 *
 * Process-context identifiers are accepted and every switch forgets: an address translation may
 * always be forgotten (SDM vol. 3, 4.10.4.2).
 */
#include "engine/soft/tlb/tlb.h"

#include <string.h>
#include <sys/mman.h>

#include "engine/soft/tlb/jumps.h"

#define LARGE_SHIFT 21
#define LARGE_PAGES (1u << (LARGE_SHIFT - PAGE_SHIFT))
#define GROUPS_KEPT (TLB_ENTRIES / TLB_GROUP / 8)
#define WORDS_KEPT  (TLB_USED_WORDS / 2)

static uint64_t page_of(uint64_t linear)
{
	return linear & ~(uint64_t)(PAGE_BYTES - 1);
}

static uint64_t index_of(uint64_t linear)
{
	return linear >> PAGE_SHIFT & (TLB_ENTRIES - 1);
}

/*
 * A tag that no address of this index matches. In a table that was never written there is 0, which
 * is as good, but for the first entry.
 */
static uint64_t no_tag(uint64_t index)
{
	return (index & (TLB_ENTRIES - 1)) << PAGE_SHIFT ^ PAGE_BYTES;
}

static void clear_entry(struct engine_vcpu *vcpu, int view, uint64_t index)
{
	struct soft_tlb *tlb = &vcpu->tlb[view];

	tlb->tag_read[index] = tlb->tag_write[index] = tlb->tag_fetch[index] = no_tag(index);
}

static const struct soft_stack_page nowhere = { .page = STACK_NOWHERE, .addend = -STACK_NOWHERE };

static void forget_stack(struct engine_vcpu *vcpu)
{
	for (int write = 0; write < 2; write++)
		for (uint32_t i = 0; i < STACK_PAGES; i++)
			vcpu->stack_page[write][i] = nowhere;
}

static void forget_stack_some(struct engine_vcpu *vcpu, uint64_t first, uint64_t bytes)
{
	for (int write = 0; write < 2; write++)
		for (uint32_t i = 0; i < STACK_PAGES; i++)
			if (vcpu->stack_page[write][i].page - first < bytes)
				vcpu->stack_page[write][i] = nowhere;
}

static void forget_stack_write(struct engine_vcpu *vcpu, uint64_t host)
{
	for (uint32_t i = 0; i < STACK_PAGES; i++)
		if (vcpu->stack_page[1][i].page + vcpu->stack_page[1][i].addend == host)
			vcpu->stack_page[1][i] = nowhere;
}

static void make_room(struct engine_vcpu *vcpu);

static void note_used(struct engine_vcpu *vcpu, enum soft_view view, uint64_t index)
{
	struct soft_tlb_used *used = &vcpu->tlb_used[view];
	uint64_t group = index / TLB_GROUP, w = group / 64;

	if (!(used->resident[w / 64] >> w % 64 & 1)) {
		make_room(vcpu);
		used->resident[w / 64] |= BIT64(w % 64);
		used->resident_count++;
		atomic_fetch_add_explicit(&vcpu->engine->tlb_words, 1, memory_order_relaxed);
	}
	used->word[group / 64] |= BIT64(group % 64);
	used->summary[group / 64 / 64] |= BIT64(group / 64 % 64);
}

/* Calls `each` for every entry of the groups in use. */
typedef void each_entry(struct engine_vcpu *vcpu, int view, uint64_t index, uint64_t arg);

static void for_used(struct engine_vcpu *vcpu, int view, each_entry *each, uint64_t arg)
{
	const struct soft_tlb_used *used = &vcpu->tlb_used[view];

	for (uint64_t s = 0; s < TLB_USED_WORDS / 64; s++)
		for (uint64_t words = used->summary[s]; words; words &= words - 1) {
			uint64_t w = s * 64 + (uint64_t)__builtin_ctzll(words);

			for (uint64_t bits = used->word[w]; bits; bits &= bits - 1) {
				uint64_t group = w * 64 + (uint64_t)__builtin_ctzll(bits);

				for (uint64_t i = 0; i < TLB_GROUP; i++)
					each(vcpu, view, group * TLB_GROUP + i, arg);
			}
		}
}

/*
 * INVLPG of one address forgets the whole page, whatever its size, and the TLB knows 4 KiB pieces
 * only. So it remembers where pieces of large pages may be. The two halves of the address space are
 * apart: a kernel maps all memory with large pages, at an address that boots differ in, and programs'
 * small ones must not be taken for these.
 */
static uint64_t large_hash(uint64_t linear)
{
	return (linear >> LARGE_SHIFT & (LARGE_HASH / 2 - 1)) + (linear >> 63) * (LARGE_HASH / 2);
}

static void note_large(struct engine_vcpu *vcpu, uint64_t linear, uint8_t level)
{
	uint64_t hash = large_hash(linear);

	if (level == 2)
		vcpu->huge_seen = true;
	else if (level == 1)
		vcpu->large_seen[hash / 64] |= BIT64(hash % 64);
}

static bool may_be_large(const struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t hash = large_hash(linear);

	return vcpu->large_seen[hash / 64] & BIT64(hash % 64);
}

static uint64_t fetched_hash(uint64_t linear)
{
	return (linear >> PAGE_SHIFT ^ linear >> (PAGE_SHIFT + 10)) & (FETCHED_BITS - 1);
}

static bool was_fetched(const struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t hash = fetched_hash(linear);

	return vcpu->fetched[hash / 64] & BIT64(hash % 64);
}

static bool any_was_fetched(const struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t first = linear >> LARGE_SHIFT << LARGE_SHIFT;

	for (uint64_t i = 0; i < LARGE_PAGES; i++)
		if (was_fetched(vcpu, first + i * PAGE_BYTES))
			return true;
	return false;
}

static uint64_t tag_of(const struct soft_tlb *tlb, enum soft_access access, uint64_t index)
{
	return access == ACCESS_READ	? tlb->tag_read[index]
	       : access == ACCESS_WRITE ? tlb->tag_write[index]
					: tlb->tag_fetch[index];
}

uint8_t *soft_tlb_find(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       enum soft_access access)
{
	const struct soft_tlb *tlb = &vcpu->tlb[view];
	uint64_t index = index_of(linear);

	return tag_of(tlb, access, index) == page_of(linear)
		       ? (uint8_t *)(uintptr_t)(linear + tlb->addend[index])
		       : NULL;
}

bool soft_tlb_has(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access)
{
	return tag_of(&vcpu->tlb[vcpu->view], access, index_of(linear)) == page_of(linear);
}

void soft_tlb_enter(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		    enum soft_access access, const struct soft_tlb_page *page)
{
	struct soft_tlb *tlb = &vcpu->tlb[view];
	uint64_t tag = page_of(linear), index = index_of(linear);

	vcpu->fill_count++;
	note_used(vcpu, view, index);
	if (access == ACCESS_FETCH)
		vcpu->fetched[fetched_hash(linear) / 64] |= BIT64(fetched_hash(linear) % 64);
	note_large(vcpu, linear, page->level);
	if ((tlb->tag_read[index] != tag && tlb->tag_fetch[index] != tag) ||
	    tlb->host[index] != page_of((uintptr_t)page->host))
		clear_entry(vcpu, view, index);
	if (access == ACCESS_FETCH && tlb->tag_fetch[index] != tag)
		soft_jump_fetched(vcpu, view, linear, page->host);
	tlb->host[index] = page_of((uintptr_t)page->host);
	tlb->addend[index] = tlb->host[index] - tag;
	if (page->readable)
		tlb->tag_read[index] = tag;
	if (access == ACCESS_FETCH)
		tlb->tag_fetch[index] = tag;
	tlb->tag_write[index] = page->writable ? tag : no_tag(index);
	if (!page->global && view == VIEW_KERNEL)
		vcpu->kernel_not_global = true;
}

static void clear_one(struct engine_vcpu *vcpu, int view, uint64_t index, uint64_t arg)
{
	(void)arg;
	clear_entry(vcpu, view, index);
}

_Static_assert(64 * TLB_GROUP * sizeof(uint64_t) == PAGE_BYTES, "a word's tags are a page");

static uint64_t used_words(const struct soft_tlb_used *used)
{
	uint64_t words = 0;

	for (uint64_t s = 0; s < TLB_USED_WORDS / 64; s++)
		words += (uint64_t)__builtin_popcountll(used->summary[s]);
	return words;
}

static uint64_t used_groups(const struct soft_tlb_used *used)
{
	uint64_t groups = 0;

	for (uint64_t s = 0; s < TLB_USED_WORDS / 64; s++)
		for (uint64_t words = used->summary[s]; words; words &= words - 1)
			groups += (uint64_t)__builtin_popcountll(
				used->word[s * 64 + (uint64_t)__builtin_ctzll(words)]);
	return groups;
}

/*
 * A guest that goes over all of its address space fills the table, which then is 40 MiB of the
 * host's memory: it goes back to the host, and what comes instead was never written. So it does
 * where the guest took one page here and there: a word of groups is a page of each table.
 */
static bool is_large(const struct soft_tlb_used *used)
{
	return used_words(used) >= WORDS_KEPT || used_groups(used) >= GROUPS_KEPT;
}

/* False: the host keeps it, and the entries are what they were. */
static bool give_back(struct engine_vcpu *vcpu, enum soft_view view)
{
	struct soft_tlb_used *used = &vcpu->tlb_used[view];

	if (madvise(&vcpu->tlb[view], sizeof(vcpu->tlb[view]), MADV_DONTNEED))
		return false;
	clear_entry(vcpu, view, 0);
	atomic_fetch_sub_explicit(&vcpu->engine->tlb_words, used->resident_count,
				  memory_order_relaxed);
	memset(used->resident, 0, sizeof(used->resident));
	used->resident_count = 0;
	return true;
}

static void empty_view(struct engine_vcpu *vcpu, enum soft_view view, bool all)
{
	struct soft_tlb_used *used = &vcpu->tlb_used[view];

	if (view == VIEW_USER)
		forget_stack(vcpu);
	if (!all || !give_back(vcpu, view))
		for_used(vcpu, view, clear_one, 0);
	for (uint64_t s = 0; s < TLB_USED_WORDS / 64; s++) {
		for (uint64_t words = used->summary[s]; words; words &= words - 1)
			used->word[s * 64 + (uint64_t)__builtin_ctzll(words)] = 0;
		used->summary[s] = 0;
	}
}

static void clear_view(struct engine_vcpu *vcpu, enum soft_view view)
{
	empty_view(vcpu, view, is_large(&vcpu->tlb_used[view]));
}

/*
 * Of this vCPU's own: entries may go at any time, as they do when two pages want the same place. What is
 * known of pages that were fetched from stays, for the jumps that lead there.
 */
static void make_room(struct engine_vcpu *vcpu)
{
	const struct engine *engine = vcpu->engine;
	uint32_t own = 0, largest = VIEW_USER;

	if (atomic_load_explicit(&engine->tlb_words, memory_order_relaxed) < engine->tlb_words_max)
		return;
	for (uint32_t view = 0; view < VIEW_COUNT; view++) {
		own += vcpu->tlb_used[view].resident_count;
		if (vcpu->tlb_used[view].resident_count > vcpu->tlb_used[largest].resident_count)
			largest = view;
	}
	if (own >= TLB_WORDS_OWN)
		empty_view(vcpu, (enum soft_view)largest, true);
}

void soft_tlb_release(struct engine_vcpu *vcpu)
{
	soft_tlb_flush(vcpu, true);
	for (int view = 0; view < VIEW_COUNT; view++)
		empty_view(vcpu, (enum soft_view)view, true);
}

void soft_tlb_create(struct engine_vcpu *vcpu)
{
	for (int view = 0; view < VIEW_COUNT; view++)
		clear_entry(vcpu, view, 0);
	soft_jump_create(vcpu);
	vcpu->kernel_not_global = true;
	soft_tlb_flush(vcpu, true);
}

/* A kernel's own table mostly has global pages only, and then survives a switch of CR3. */
void soft_tlb_flush(struct engine_vcpu *vcpu, bool global_too)
{
	clear_view(vcpu, VIEW_USER);
	clear_view(vcpu, VIEW_KERNEL_USER);
	soft_jump_sleep(vcpu, VIEW_USER);
	soft_jump_sleep(vcpu, VIEW_KERNEL_USER);
	if (!global_too && !vcpu->kernel_not_global)
		return;
	clear_view(vcpu, VIEW_KERNEL);
	soft_jump_sleep(vcpu, VIEW_KERNEL);
	vcpu->kernel_not_global = vcpu->huge_seen = false;
	memset(vcpu->fetched, 0, sizeof(vcpu->fetched));
	memset(vcpu->large_seen, 0, sizeof(vcpu->large_seen));
}

/* Its pieces are neighbours in the table. */
static void flush_large_page(struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t first = index_of(linear >> LARGE_SHIFT << LARGE_SHIFT);

	for (int view = 0; view < VIEW_COUNT; view++) {
		for (uint64_t i = first; i < first + LARGE_PAGES; i++) {
			uint64_t group = i / TLB_GROUP;

			if (vcpu->tlb_used[view].word[group / 64] >> group % 64 & 1)
				clear_entry(vcpu, view, i);
		}
	}
}

void soft_tlb_flush_page(struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t page = linear & ~(uint64_t)(PAGE_BYTES - 1);
	bool fetched = was_fetched(vcpu, linear);
	uint64_t first = page, bytes = PAGE_BYTES;

	if (vcpu->huge_seen) {
		soft_tlb_flush(vcpu, true);
		return;
	}
	if (may_be_large(vcpu, linear)) {
		fetched = any_was_fetched(vcpu, linear);
		first = linear >> LARGE_SHIFT << LARGE_SHIFT;
		bytes = 1ull << LARGE_SHIFT;
		flush_large_page(vcpu, linear);
	}
	forget_stack_some(vcpu, first, bytes);
	for (int view = 0; view < VIEW_COUNT; view++) {
		const struct soft_tlb *tlb = &vcpu->tlb[view];
		uint64_t index = index_of(linear);

		if (tlb->tag_read[index] == page || tlb->tag_fetch[index] == page)
			clear_entry(vcpu, view, index);
	}
	/* Its entry may have been replaced while the jumps into the page are still known. */
	for (int view = 0; fetched && view < VIEW_COUNT; view++)
		soft_jump_sleep_some(vcpu, (enum soft_view)view, first, bytes);
}

static void forget_write(struct engine_vcpu *vcpu, int view, uint64_t index, uint64_t page)
{
	if (vcpu->tlb[view].host[index] == page)
		vcpu->tlb[view].tag_write[index] = no_tag(index);
}

void soft_tlb_forget_write(struct engine_vcpu *vcpu, const uint8_t *host)
{
	forget_stack_write(vcpu, page_of((uintptr_t)host));
	for (int view = 0; view < VIEW_COUNT; view++)
		for_used(vcpu, view, forget_write, page_of((uintptr_t)host));
}
