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

#include "engine/soft/tlb/jumps.h"

#define LARGE_SHIFT 21

static uint64_t page_of(uint64_t linear)
{
	return linear & ~(uint64_t)(PAGE_BYTES - 1);
}

static uint64_t index_of(uint64_t linear)
{
	return linear >> PAGE_SHIFT & (TLB_ENTRIES - 1);
}

static struct soft_tlb_entry *entry_of(struct engine_vcpu *vcpu, enum soft_view view,
				       uint64_t linear)
{
	return &vcpu->tlb[view][index_of(linear)];
}

static uint64_t *fetch_tag(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear)
{
	return &vcpu->tlb_fetch[view][index_of(linear)];
}

/* A tag that no address of this index matches. */
static uint64_t no_tag(uint64_t index)
{
	return (index & (TLB_ENTRIES - 1)) << PAGE_SHIFT ^ PAGE_BYTES;
}

static void clear_entry(struct engine_vcpu *vcpu, int view, uint64_t index)
{
	struct soft_tlb_entry *entry = &vcpu->tlb[view][index];

	entry->tag_read = entry->tag_write = vcpu->tlb_fetch[view][index] = no_tag(index);
}

/*
 * INVLPG of one address forgets the whole page, whatever its size, and the TLB knows 4 KiB pieces
 * only. So it remembers where pieces of large pages may be.
 */
static void note_large(struct engine_vcpu *vcpu, uint64_t linear, uint8_t level)
{
	uint64_t hash = linear >> LARGE_SHIFT & (LARGE_HASH - 1);

	if (level == 2)
		vcpu->huge_seen = true;
	else if (level == 1)
		vcpu->large_seen[hash / 64] |= BIT64(hash % 64);
}

static bool may_be_large(const struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t hash = linear >> LARGE_SHIFT & (LARGE_HASH - 1);

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

uint8_t *soft_tlb_find(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       enum soft_access access)
{
	const struct soft_tlb_entry *entry = entry_of(vcpu, view, linear);
	uint64_t tag = access == ACCESS_READ	? entry->tag_read
		       : access == ACCESS_WRITE ? entry->tag_write
						: *fetch_tag(vcpu, view, linear);

	return tag == page_of(linear) ? (uint8_t *)(uintptr_t)(linear + entry->addend) : NULL;
}

bool soft_tlb_has(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access)
{
	const struct soft_tlb_entry *entry = entry_of(vcpu, vcpu->view, linear);

	return (access == ACCESS_WRITE ? entry->tag_write : entry->tag_read) ==
	       (linear & ~(uint64_t)(PAGE_BYTES - 1));
}

void soft_tlb_enter(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		    enum soft_access access, const struct soft_tlb_page *page)
{
	struct soft_tlb_entry *entry = entry_of(vcpu, view, linear);
	uint64_t tag = page_of(linear);

	vcpu->fill_count++;
	vcpu->tlb_used[view] |= BIT64(index_of(linear) / TLB_GROUP);
	if (access == ACCESS_FETCH)
		vcpu->fetched[fetched_hash(linear) / 64] |= BIT64(fetched_hash(linear) % 64);
	note_large(vcpu, linear, page->level);
	if (entry->tag_read != tag && *fetch_tag(vcpu, view, linear) != tag)
		clear_entry(vcpu, view, index_of(linear));
	entry->host = (uintptr_t)page->host & ~(uint64_t)(PAGE_BYTES - 1);
	entry->addend = entry->host - tag;
	if (page->readable)
		entry->tag_read = tag;
	if (access == ACCESS_FETCH)
		*fetch_tag(vcpu, view, linear) = tag;
	entry->tag_write = page->writable ? tag : no_tag(linear >> PAGE_SHIFT);
	if (!page->global && view == VIEW_KERNEL)
		vcpu->kernel_not_global = true;
}

static void clear_view(struct engine_vcpu *vcpu, enum soft_view view)
{
	for (uint64_t used = vcpu->tlb_used[view]; used; used &= used - 1)
		for (uint64_t i = 0; i < TLB_GROUP; i++)
			clear_entry(vcpu, view, (uint64_t)__builtin_ctzll(used) * TLB_GROUP + i);
	vcpu->tlb_used[view] = 0;
}

void soft_tlb_create(struct engine_vcpu *vcpu)
{
	for (int view = 0; view < VIEW_COUNT; view++) {
		vcpu->tlb_used[view] = UINT64_MAX;
		vcpu->jump_count[view] = JUMP_LIST;
	}
	soft_tlb_flush(vcpu, true);
	vcpu->kernel_not_global = true;
	soft_tlb_flush(vcpu, true);
}

/* A kernel's own table mostly has global pages only, and then survives a switch of CR3. */
void soft_tlb_flush(struct engine_vcpu *vcpu, bool global_too)
{
	clear_view(vcpu, VIEW_USER);
	clear_view(vcpu, VIEW_KERNEL_USER);
	soft_jump_flush(vcpu, VIEW_USER);
	soft_jump_flush(vcpu, VIEW_KERNEL_USER);
	if (!global_too && !vcpu->kernel_not_global)
		return;
	clear_view(vcpu, VIEW_KERNEL);
	soft_jump_flush(vcpu, VIEW_KERNEL);
	vcpu->kernel_not_global = vcpu->huge_seen = false;
	memset(vcpu->fetched, 0, sizeof(vcpu->fetched));
	memset(vcpu->large_seen, 0, sizeof(vcpu->large_seen));
}

static void flush_large_page(struct engine_vcpu *vcpu, uint64_t linear)
{
	for (int view = 0; view < VIEW_COUNT; view++) {
		for (uint64_t i = 0; i < TLB_ENTRIES; i++) {
			struct soft_tlb_entry *entry = &vcpu->tlb[view][i];

			if (i % TLB_GROUP == 0 && !(vcpu->tlb_used[view] >> i / TLB_GROUP & 1)) {
				i += TLB_GROUP - 1;
				continue;
			}

			if ((entry->tag_read ^ linear) >> LARGE_SHIFT == 0 ||
			    (vcpu->tlb_fetch[view][i] ^ linear) >> LARGE_SHIFT == 0)
				clear_entry(vcpu, view, i);
		}
	}
}

void soft_tlb_flush_page(struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t page = linear & ~(uint64_t)(PAGE_BYTES - 1);

	if (vcpu->huge_seen) {
		soft_tlb_flush(vcpu, true);
		return;
	}
	if (may_be_large(vcpu, linear))
		flush_large_page(vcpu, linear);
	for (int view = 0; view < VIEW_COUNT; view++) {
		if (entry_of(vcpu, (enum soft_view)view, linear)->tag_read == page ||
		    *fetch_tag(vcpu, (enum soft_view)view, linear) == page)
			clear_entry(vcpu, view, index_of(linear));
	}
	/* Its entry may have been replaced while the jumps into the page are still known. */
	for (int view = 0; was_fetched(vcpu, linear) && view < VIEW_COUNT; view++)
		soft_jump_flush(vcpu, (enum soft_view)view);
}

void soft_tlb_forget_write(struct engine_vcpu *vcpu, const uint8_t *host)
{
	uint64_t page = (uintptr_t)host & ~(uint64_t)(PAGE_BYTES - 1);

	for (int view = 0; view < VIEW_COUNT; view++) {
		for (uint64_t i = 0; i < TLB_ENTRIES; i++) {
			struct soft_tlb_entry *entry = &vcpu->tlb[view][i];

			if (i % TLB_GROUP == 0 && !(vcpu->tlb_used[view] >> i / TLB_GROUP & 1)) {
				i += TLB_GROUP - 1;
				continue;
			}

			if (entry->host == page)
				entry->tag_write = no_tag(i);
		}
	}
}
