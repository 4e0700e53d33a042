/* SPDX-License-Identifier: Apache-2.0 */
/* The table of jumps of each view. Threads: as the TLB (tlb.h). */
#ifndef ENGINE_SOFT_JUMPS_H
#define ENGINE_SOFT_JUMPS_H

#include "engine/soft/vcpu.h"

static inline uint32_t soft_jump_index(uint64_t rip)
{
	return ((uint32_t)rip << 1 & JUMP_INDEX_MASK) / 16;
}

/* Jumps to rip in the present view go to this code, which takes its flags from the slot. */
void soft_jump_remember(struct engine_vcpu *vcpu, uint64_t rip, const uint8_t *code);
/* That code, or NULL. */
const uint8_t *soft_jump_find(const struct engine_vcpu *vcpu, uint64_t rip);
/* Indirect jumps of this view forget where they went. */
void soft_jump_flush(struct engine_vcpu *vcpu, enum soft_view view);

#endif
