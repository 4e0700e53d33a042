/* SPDX-License-Identifier: Apache-2.0 */
/* The table of jumps of each view. Threads: as the TLB (tlb.h). */
#ifndef ENGINE_SOFT_JUMPS_H
#define ENGINE_SOFT_JUMPS_H

#include "engine/soft/vcpu.h"

static inline uint32_t soft_jump_index(uint64_t rip)
{
	return ((uint32_t)rip << 1 & JUMP_INDEX_MASK) / 16;
}

/* The vCPU's tables are emptied, or were never written. */
void soft_jump_create(struct engine_vcpu *vcpu);
/* Jumps to rip in the present view go to this code, which takes its flags from the slot. */
void soft_jump_remember(struct engine_vcpu *vcpu, uint64_t rip, const uint8_t *code);
/* That code, or NULL. */
const uint8_t *soft_jump_find(const struct engine_vcpu *vcpu, uint64_t rip);
/* Jumps of this view forget where they went: the code is no more, or not for this mode. */
void soft_jump_flush(struct engine_vcpu *vcpu, enum soft_view view);
/* The code is still right, but it is not known any more what page each address is of. */
void soft_jump_sleep(struct engine_vcpu *vcpu, enum soft_view view);
/* The same for jumps that lead there, or to an instruction that may reach there. */
void soft_jump_sleep_some(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
			  uint64_t bytes);
/* Now it is known of this page, for instructions in this view. */
void soft_jump_fetched(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       const uint8_t *host);

#endif
