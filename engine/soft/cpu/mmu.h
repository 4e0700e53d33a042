/* SPDX-License-Identifier: Apache-2.0 */
/* Address translation; and what walks of long mode (mmu.c) and those without it (mmu_legacy.c)
 * share. */
#ifndef ENGINE_SOFT_MMU_H
#define ENGINE_SOFT_MMU_H

#include "engine/soft/tlb/tlb.h"

struct soft_page {
	uint8_t *host; /* NULL: not memory */
	uint64_t gpa;
	bool code; /* holds translated code: tell soft_code_written() */
};
/* Where is this byte? SOFT_FAULT: #PF or (not canonical) #GP / #SS is in vcpu->fault. */
int soft_translate(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		   enum soft_access access, struct soft_page *ret_page);
/* Makes the access possible in translated code. SOFT_AGAIN: this access has to be stepped. */
int soft_tlb_fill(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access);

#define PTE_PRESENT  BIT64(0)
#define PTE_WRITE    BIT64(1)
#define PTE_USER     BIT64(2)
#define PTE_ACCESSED BIT64(5)
#define PTE_DIRTY    BIT64(6)
#define PTE_LARGE    BIT64(7)
#define PTE_GLOBAL   BIT64(8)
#define PTE_NX	     BIT64(63)
#define PTE_ADDRESS  0x000ffffffffff000ull

#define PF_PRESENT 1u
#define PF_WRITE   2u
#define PF_USER	   4u
#define PF_RSVD	   8u
#define PF_FETCH   16u

/* What a walk found: rights are those of all levels together. */
struct soft_walk {
	uint64_t gpa;
	uint64_t leaf;
	bool write, user, nx, global, dirty;
	uint8_t level; /* 0: 4 KiB, 1: 2 MiB, 2: more */
};

/* May this access be? 0, or the page fault's code without the access's own bits. */
uint32_t soft_walk_rights(const struct engine_vcpu *vcpu, enum soft_view view,
			  enum soft_access access, const struct soft_walk *walk);
/* With them. */
uint32_t soft_walk_fault(const struct engine_vcpu *vcpu, enum soft_view view,
			 enum soft_access access, uint32_t code);
/* 32-bit or PAE paging, as CR4 has it. SOFT_AGAIN: an entry changed meanwhile, walk again. */
int soft_walk_legacy(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		     enum soft_access access, struct soft_walk *ret_walk);

#endif
