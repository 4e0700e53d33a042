/* SPDX-License-Identifier: Apache-2.0 */
/* Breakpoints. See debug.c. */
#ifndef ENGINE_SOFT_DEBUG_H
#define ENGINE_SOFT_DEBUG_H

#include "engine/soft/vcpu.h"

/* Those of this access go into vcpu->debug_hits; those at this code. */
void soft_watch_data(struct engine_vcpu *vcpu, uint64_t linear, uint32_t bytes, bool write);
uint32_t soft_break_code(const struct engine_vcpu *vcpu, uint64_t linear);

/* Single steps and breakpoints want repeated instructions item by item. */
static inline bool soft_traced(const struct engine_vcpu *vcpu)
{
	return (vcpu->system_flags & FLAG_TF) || (vcpu->state.dr7 & 0xff);
}

#endif
