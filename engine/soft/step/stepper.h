/* SPDX-License-Identifier: Apache-2.0 */
/* What the other rooms ask of the stepper. */
#ifndef ENGINE_SOFT_STEPPER_H
#define ENGINE_SOFT_STEPPER_H

#include "engine/soft/insn/decode.h"
#include "engine/soft/vcpu.h"

/* One instruction at vcpu->rip. */
int soft_step(struct engine_vcpu *vcpu);
/* The same, decoded before, in 64-bit code that is not slow (see `slow`). */
int soft_step_known(struct engine_vcpu *vcpu, const struct soft_insn *insn);
/* A signal has broken it off: registers as before, if it was at an instruction. */
void soft_step_abandoned(struct engine_vcpu *vcpu);

/* After SOFT_REASON_FAULT. */
int soft_fault_from_host(struct engine_vcpu *vcpu);

/* fault.c */
#define SOFT_FAULT_PAGES 5u
bool soft_in_fault_pages(const struct engine_vcpu *vcpu, const void *host);
void soft_fault_pages_free(struct engine_vcpu *vcpu);

#endif
