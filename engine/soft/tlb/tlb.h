/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory and the TLB, as data: who fills it is the MMU (cpu/mmu.h). A TLB belongs to its
 * vCPU's thread; others change it only while that vCPU is paused.
 */
#ifndef ENGINE_SOFT_TLB_H
#define ENGINE_SOFT_TLB_H

#include "engine/soft/vcpu.h"

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
void soft_tlb_flush_page(struct engine_vcpu *vcpu, uint64_t linear);
/* This vCPU does not write that page any more without asking. */
void soft_tlb_forget_write(struct engine_vcpu *vcpu, const uint8_t *host);

#endif
