/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's extended state, in the host's registers or in the vCPU. */
#ifndef ENGINE_SOFT_EXTENDED_H
#define ENGINE_SOFT_EXTENDED_H

#include "engine/soft/vcpu.h"

/* The extended state goes to memory (idempotent): before anything that may use vector registers. */
void soft_fpu_release(struct engine_vcpu *vcpu);
/* Behind that: the C library expects its own control words. */
void soft_fpu_reset(void);
/* Enters host code; the reason of leaving it. */
uint64_t soft_enter(struct engine_vcpu *vcpu, const void *code);

#endif
