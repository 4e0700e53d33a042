/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's extended state, in the host's registers or in the vCPU. */
#ifndef ENGINE_SOFT_EXTENDED_H
#define ENGINE_SOFT_EXTENDED_H

#include "engine/soft/vcpu.h"

/* The extended state goes to memory (idempotent): before anything that may use vector registers. */
void soft_fpu_release(struct engine_vcpu *vcpu);
/*
 * Of what the guest is shown (state released): x87's last opcode and pointers, in an image of
 * FXSAVE's layout, with 64-bit pointers or 32-bit ones. CPUs of AMD have zeroes there unless an
 * exception waits.
 */
void soft_x87_show(struct engine_vcpu *vcpu, uint8_t *image, bool wide);
/* What counted before does no more. */
void soft_x87_forget(struct engine_vcpu *vcpu);
/*
 * An image has been loaded: its pointers are taken at once, as the guest's. Later they could be
 * taken for ours, by who looks like one of them: so a guest would find out where we are.
 */
void soft_x87_load(struct engine_vcpu *vcpu);
/*
 * Around executing it: where C uses vectors itself (sanitizers), the state is released before that
 * can be called.
 */
void soft_x87_expect_load(struct engine_vcpu *vcpu, bool expected);
/* The last operand's address. */
uint64_t soft_x87_data(struct engine_vcpu *vcpu);
/* Behind that: the C library expects its own control words. */
void soft_fpu_reset(void);
/* Enters host code; the reason of leaving it. */
uint64_t soft_enter(struct engine_vcpu *vcpu, const void *code);

#endif
