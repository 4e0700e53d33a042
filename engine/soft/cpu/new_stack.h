/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack that gets a frame before it is the vCPU's: of the level that a gate leads to, or the
 * present one. Nothing of the vCPU changes until soft_new_stack_enter(), so that all before it may
 * fault, or be broken off and start anew.
 */
#ifndef ENGINE_SOFT_NEW_STACK_H
#define ENGINE_SOFT_NEW_STACK_H

#include "engine/soft/vcpu.h"

struct soft_new_stack {
	struct vcpu_segment_state segment; /* SS */
	uint64_t top;			   /* RSP */
	uint8_t cpl;
};

void soft_new_stack_present(const struct engine_vcpu *vcpu, struct soft_new_stack *ret_stack);
/* What the TSS has for an inner level. Faults with #TS or #SS. */
int soft_new_stack_inner(struct engine_vcpu *vcpu, uint8_t cpl, struct soft_new_stack *ret_stack);
/* Pushes, the first word first. No room: #SS. */
int soft_new_stack_push(struct engine_vcpu *vcpu, struct soft_new_stack *stack,
			const uint64_t *words, uint32_t count, uint32_t bytes);
/* From here on it is the vCPU's, and the level as well. */
void soft_new_stack_enter(struct engine_vcpu *vcpu, const struct soft_new_stack *stack);

/* RSP that the 64-bit TSS has for this level (0..2) or interrupt stack (1..7). */
int soft_tss_rsp(struct engine_vcpu *vcpu, uint8_t ist, uint8_t cpl, uint64_t *ret_rsp);

#endif
