/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation: page walks (SDM vol. 3, 4.5), which fill the TLB (tlb/tlb.c).
 *
 * Accessed and dirty bits are set by compare-and-exchange, and only where they are clear: page
 * tables of a pod stay shared read-only between nodes.
 *
 * Paging without long mode is in mmu_legacy.c. Left out: protection keys, 5-level paging.
 */
#include "engine/soft/cpu/mmu.h"

#include "engine/soft/cache/code_page.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"

#define LEVELS 4

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

int soft_translate(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		   enum soft_access access, struct soft_page *ret_page)
{
	struct soft_walk walk = { 0 };
	struct soft_tlb_page found;
	int err;

	if (!soft_long_mode(vcpu))
		linear &= 0xffffffff; /* of an access across 4 GiB the rest is at 0 */
	ret_page->host = soft_tlb_find(vcpu, view, linear, access);
	if (ret_page->host) {
		ret_page->gpa = UINT64_MAX;
		ret_page->code = false;
		return SOFT_OK;
	}
	err = walk_page(vcpu, view, linear, access, &walk);
	if (err)
		return err;
	ret_page->gpa = walk.gpa;
	ret_page->host = soft_memory_host(vcpu->engine, walk.gpa);
	ret_page->code = false;
	if (!ret_page->host)
		return SOFT_OK;
	found = (struct soft_tlb_page){
		.host = ret_page->host,
		.readable = !soft_walk_rights(vcpu, view, ACCESS_READ, &walk),
		.writable = walk.dirty && !soft_walk_rights(vcpu, view, ACCESS_WRITE, &walk) &&
			    soft_code_allow_write(vcpu, walk.gpa),
		.global = walk.global,
		.level = walk.level,
	};
	soft_tlb_enter(vcpu, view, linear, access, &found);
	ret_page->code = access == ACCESS_WRITE && !found.writable;
	return SOFT_OK;
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
