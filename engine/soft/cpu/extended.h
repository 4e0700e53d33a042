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
/* The same in FNSTENV's: seven words, of 32 bits if it is wide. */
void soft_x87_show_environment(struct engine_vcpu *vcpu, uint8_t *image, bool wide);
/*
 * Such an image has been loaded, or (NULL) the initial state: its pointers are the guest's. Those
 * in the host's registers do not count: the guest could choose them so that they look like ours,
 * and find out where we are; and an AMD host has zeroes there after any signal or switch of threads.
 */
void soft_x87_load(struct engine_vcpu *vcpu, const uint8_t *image, bool wide);
void soft_x87_load_environment(struct engine_vcpu *vcpu, const uint8_t *image, bool wide);
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
