/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory and the TLB, as data: who fills it is the MMU (cpu/mmu.h). A TLB belongs to its
 * vCPU's thread; others change it only while that vCPU is paused.
 */
#ifndef ENGINE_SOFT_TLB_H
#define ENGINE_SOFT_TLB_H

#include "engine/soft/vcpu.h"

/*
 * What TLBs may keep of the host's memory: each vCPU's TLB_WORDS_OWN words, and all together so much
 * besides, by the guest's memory. A vCPU that wants more begins anew with an empty view. So a few busy
 * ones may have tables for all that they work with, and many idle ones do not add up.
 */
#define TLB_WORDS_OWN 204u /* 4 MiB */
#define TLB_BYTES_ALL (64ull << 20)
#define TLB_BYTES_OF  32u /* and a 32nd of guest memory */

/* NULL: the address is not memory's. */
uint8_t *soft_memory_host(const struct engine *engine, uint64_t gpa);
/* Of a host address inside guest memory; UINT64_MAX otherwise. */
uint64_t soft_memory_gpa(const struct engine *engine, const uint8_t *host);

/* What a page walk found, for soft_tlb_enter(). */
struct soft_tlb_page {
	uint8_t *host;
	bool readable, writable; /* without asking C first */
	bool global;
	uint8_t level; /* 0: 4 KiB, 1: 2 MiB, 2: more */
};

void soft_tlb_create(struct engine_vcpu *vcpu);
/* Where the byte is in host memory, if the access needs no C; or NULL. */
uint8_t *soft_tlb_find(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       enum soft_access access);
/* Is the page open to translated code for this access, in the present view? */
bool soft_tlb_has(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access);
void soft_tlb_enter(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		    enum soft_access access, const struct soft_tlb_page *page);
void soft_tlb_flush(struct engine_vcpu *vcpu, bool global_too);
/* Likewise, and what the tables had of the host's memory goes back. */
void soft_tlb_release(struct engine_vcpu *vcpu);
void soft_tlb_flush_page(struct engine_vcpu *vcpu, uint64_t linear);
/* This vCPU does not write that page any more without asking. */
void soft_tlb_forget_write(struct engine_vcpu *vcpu, const uint8_t *host);

#endif
