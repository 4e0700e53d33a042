/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation: page walks (SDM vol. 3, 4.5) and the TLB that translated code looks into.
 *
 * The TLB is direct-mapped, one table per view (who accesses). An entry has a tag per kind of
 * access; a tag that must not match is the page address of the neighbouring index, which can never
 * be looked up here. So "not present", "must set the dirty bit first", "the page holds translated
 * code" are all the same to translated code: it does not match, C looks.
 *
 * Accessed and dirty bits are set by compare-and-exchange, and only where they are clear: page
 * tables of a pod stay shared read-only between nodes.
 *
 * Process-context identifiers are accepted and every switch forgets: an address translation may
 * always be forgotten (SDM vol. 3, 4.10.4.2).
 *
 * Paging without long mode is in mmu_legacy.c. Left out: protection keys, 5-level paging.
 */
#include "engine/soft/cpu/mmu.h"

#include <string.h>

#define LEVELS	    4
#define LARGE_SHIFT 21

uint8_t *soft_memory_host(const struct engine *engine, uint64_t gpa)
{
	for (uint32_t i = 0; i < engine->memory_count; i++) {
		const struct soft_memory *memory = &engine->memory[i];

		if (gpa - memory->gpa < memory->bytes)
			return memory->host + (gpa - memory->gpa);
	}
	return NULL;
}

uint64_t soft_memory_gpa(const struct engine *engine, const uint8_t *host)
{
	for (uint32_t i = 0; i < engine->memory_count; i++) {
		const struct soft_memory *memory = &engine->memory[i];
		uint64_t offset = (uintptr_t)host - (uintptr_t)memory->host;

		if (offset < memory->bytes)
			return memory->gpa + offset;
	}
	return UINT64_MAX;
}

uint32_t soft_walk_fault(const struct engine_vcpu *vcpu, enum soft_view view,
			 enum soft_access access, uint32_t code)
{
	if (access == ACCESS_WRITE)
		code |= PF_WRITE;
	if (access == ACCESS_FETCH &&
	    (((vcpu->state.efer & EFER_NXE) && (vcpu->state.cr4 & CR4_PAE)) ||
	     (vcpu->state.cr4 & CR4_SMEP)))
		code |= PF_FETCH;
	if (view == VIEW_USER)
		code |= PF_USER;
	return code;
}

static uint64_t reserved_bits(const struct engine_vcpu *vcpu, int level, uint64_t pte)
{
	uint64_t reserved = PTE_ADDRESS & ~vcpu->physical_mask;

	if (!(vcpu->state.efer & EFER_NXE))
		reserved |= PTE_NX;
	if (pte & PTE_LARGE) {
		if (level == 3)
			reserved |= PTE_LARGE;
		else if (level > 0)
			reserved |= (BIT64(12 + 9 * level) - 1) & ~0x1fffull;
	}
	return reserved;
}

/* Sets bits in an entry at `host`. False: it has changed meanwhile, walk again. */
static bool set_bits(uint8_t *host, uint64_t pte, uint64_t bits)
{
	return (pte & bits) == bits || soft_exchange64(host, pte, pte | bits);
}

uint32_t soft_walk_rights(const struct engine_vcpu *vcpu, enum soft_view view,
			  enum soft_access access, const struct soft_walk *walk)
{
	bool bad = false;

	if (access == ACCESS_FETCH)
		bad = walk->nx;
	if (view == VIEW_USER) {
		bad = bad || !walk->user || (access == ACCESS_WRITE && !walk->write);
	} else {
		if (access == ACCESS_WRITE && !walk->write && (vcpu->state.cr0 & CR0_WP))
			bad = true;
		if (walk->user && access == ACCESS_FETCH && (vcpu->state.cr4 & CR4_SMEP))
			bad = true;
		if (walk->user && access != ACCESS_FETCH && view == VIEW_KERNEL &&
		    (vcpu->state.cr4 & CR4_SMAP))
			bad = true;
	}
	return bad ? PF_PRESENT : 0;
}

/* One level down. False with *ret_code: the page fault's code. */
static bool walk_level(struct engine_vcpu *vcpu, uint64_t table, uint64_t linear, int level,
		       struct soft_walk *walk, uint8_t **ret_host, uint32_t *ret_code)
{
	uint64_t gpa = table + ((linear >> (12 + 9 * level)) & 511) * 8, pte;
	uint8_t *host = soft_memory_host(vcpu->engine, gpa);

	*ret_host = host;
	*ret_code = 0;
	if (!host)
		return false;
	pte = soft_load64(host);
	walk->leaf = pte;
	if (!(pte & PTE_PRESENT))
		return false;
	if (pte & reserved_bits(vcpu, level, pte)) {
		*ret_code = PF_PRESENT | PF_RSVD;
		return false;
	}
	walk->write = walk->write && (pte & PTE_WRITE);
	walk->user = walk->user && (pte & PTE_USER);
	walk->nx = walk->nx || (pte & PTE_NX);
	return true;
}

/* SOFT_AGAIN here: an entry changed under us. */
static int walk_once(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		     enum soft_access access, struct soft_walk *ret_walk)
{
	struct soft_walk walk = { .write = true, .user = true };
	uint64_t table = vcpu->state.cr3 & PTE_ADDRESS & vcpu->physical_mask;
	uint8_t *host[LEVELS];
	uint64_t pte[LEVELS];
	uint32_t code;
	int level = LEVELS - 1;

	for (;; level--) {
		if (!walk_level(vcpu, table, linear, level, &walk, &host[level], &code))
			return soft_raise_page_fault(vcpu, linear,
						     soft_walk_fault(vcpu, view, access, code));
		pte[level] = walk.leaf;
		if (level == 0 || (level < 3 && (walk.leaf & PTE_LARGE)))
			break;
		table = walk.leaf & PTE_ADDRESS;
	}
	code = soft_walk_rights(vcpu, view, access, &walk);
	if (code)
		return soft_raise_page_fault(vcpu, linear,
					     soft_walk_fault(vcpu, view, access, code));
	for (int i = LEVELS - 1; i > level; i--)
		if (!set_bits(host[i], pte[i], PTE_ACCESSED))
			return SOFT_AGAIN;
	if (!set_bits(host[level], pte[level],
		      PTE_ACCESSED | (access == ACCESS_WRITE ? PTE_DIRTY : 0)))
		return SOFT_AGAIN;
	walk.level = (uint8_t)level;
	walk.dirty = access == ACCESS_WRITE || (walk.leaf & PTE_DIRTY);
	walk.global = (walk.leaf & PTE_GLOBAL) && (vcpu->state.cr4 & CR4_PGE);
	walk.gpa = (walk.leaf & PTE_ADDRESS & ~(BIT64(12 + 9 * level) - 1)) |
		   (linear & (BIT64(12 + 9 * level) - 1));
	*ret_walk = walk;
	return SOFT_OK;
}

static int walk_page(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		     enum soft_access access, struct soft_walk *ret_walk)
{
	int err;

	vcpu->walk_count++;
	if (!(vcpu->state.cr0 & CR0_PG)) {
		*ret_walk = (struct soft_walk){ .gpa = linear & vcpu->physical_mask,
						.write = true,
						.user = true,
						.dirty = true };
		return SOFT_OK;
	}
	if (soft_long_mode(vcpu) && !soft_is_canonical(linear))
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	do {
		err = soft_long_mode(vcpu) ? walk_once(vcpu, view, linear, access, ret_walk)
					   : soft_walk_legacy(vcpu, view, linear, access, ret_walk);
	} while (err == SOFT_AGAIN);
	return err;
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

static uint64_t fetched_hash(uint64_t linear);

static void fill_entry(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       enum soft_access access, const struct soft_walk *walk, uint8_t *host)
{
	struct soft_tlb_entry *entry = entry_of(vcpu, view, linear);
	uint64_t page = linear & ~(uint64_t)(PAGE_BYTES - 1), none = no_tag(linear >> PAGE_SHIFT);

	vcpu->fill_count++;
	vcpu->tlb_used[view] |= BIT64(index_of(linear) / TLB_GROUP);
	if (access == ACCESS_FETCH)
		vcpu->fetched[fetched_hash(linear) / 64] |= BIT64(fetched_hash(linear) % 64);
	note_large(vcpu, linear, walk->level);
	if (entry->tag_read != page && *fetch_tag(vcpu, view, linear) != page)
		clear_entry(vcpu, view, index_of(linear));
	entry->host = (uintptr_t)host & ~(uint64_t)(PAGE_BYTES - 1);
	entry->addend = entry->host - page;
	if (!soft_walk_rights(vcpu, view, ACCESS_READ, walk))
		entry->tag_read = page;
	if (access == ACCESS_FETCH)
		*fetch_tag(vcpu, view, linear) = page;
	entry->tag_write = none;
	if (walk->dirty && !soft_walk_rights(vcpu, view, ACCESS_WRITE, walk) &&
	    soft_code_allow_write(vcpu, walk->gpa))
		entry->tag_write = page;
	if (!walk->global && view == VIEW_KERNEL)
		vcpu->kernel_not_global = true;
}

int soft_translate(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		   enum soft_access access, struct soft_page *ret_page)
{
	struct soft_tlb_entry *entry = entry_of(vcpu, view, linear);
	uint64_t page = linear & ~(uint64_t)(PAGE_BYTES - 1);
	uint64_t tag = access == ACCESS_READ	? entry->tag_read
		       : access == ACCESS_WRITE ? entry->tag_write
						: *fetch_tag(vcpu, view, linear);
	struct soft_walk walk = { 0 };
	int err;

	if (tag == page) {
		ret_page->host = (uint8_t *)(uintptr_t)(linear + entry->addend);
		ret_page->gpa = UINT64_MAX;
		ret_page->code = false;
		return SOFT_OK;
	}
	err = walk_page(vcpu, view, linear, access, &walk);
	if (err)
		return err;
	ret_page->gpa = walk.gpa;
	ret_page->host = soft_memory_host(vcpu->engine, walk.gpa);
	if (ret_page->host)
		fill_entry(vcpu, view, linear, access, &walk, ret_page->host);
	ret_page->code = ret_page->host && access == ACCESS_WRITE && entry->tag_write != page;
	return SOFT_OK;
}

bool soft_tlb_has(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access)
{
	const struct soft_tlb_entry *entry = entry_of(vcpu, vcpu->view, linear);

	return (access == ACCESS_WRITE ? entry->tag_write : entry->tag_read) ==
	       (linear & ~(uint64_t)(PAGE_BYTES - 1));
}

int soft_tlb_fill(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access)
{
	struct soft_page found;
	int err;

	if (soft_tlb_has(vcpu, linear, access))
		return SOFT_AGAIN; /* so it crosses into the next page */
	err = soft_translate(vcpu, vcpu->view, linear, access, &found);
	if (err)
		return err;
	return soft_tlb_has(vcpu, linear, access) ? SOFT_OK : SOFT_AGAIN;
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

static uint64_t fetched_hash(uint64_t linear)
{
	return (linear >> PAGE_SHIFT ^ linear >> (PAGE_SHIFT + 10)) & (FETCHED_BITS - 1);
}

static bool was_fetched(const struct engine_vcpu *vcpu, uint64_t linear)
{
	uint64_t hash = fetched_hash(linear);

	return vcpu->fetched[hash / 64] & BIT64(hash % 64);
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
