/* SPDX-License-Identifier: Apache-2.0 */
/* Running a vCPU: the engine's operations, and what the files of this room ask of each other. */
#ifndef ENGINE_SOFT_RUN_H
#define ENGINE_SOFT_RUN_H

#include "engine/soft/vcpu.h"

/* vcpu.c */
int soft_vcpu_bind(struct engine_vcpu *vcpu);
int soft_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *exit);
int soft_vcpu_finish_exit(struct engine_vcpu *vcpu);
void soft_vcpu_kick(struct engine_vcpu *vcpu);
uint64_t soft_vcpu_work(const struct engine_vcpu *vcpu);

/* state.c */
int soft_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *state);
int soft_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *state);

/* events.c */
bool soft_vcpu_can_interrupt(struct engine_vcpu *vcpu);
int soft_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector);
int soft_vcpu_nmi(struct engine_vcpu *vcpu);
void soft_vcpu_want_window(struct engine_vcpu *vcpu, bool want);
/* Would an interrupt be taken now? */
bool soft_takes_interrupts(const struct engine_vcpu *vcpu);
/* What is due before the next instruction. SOFT_EXIT: triple fault. */
int soft_deliver_events(struct engine_vcpu *vcpu);

/* serve.c */
/* From C into translated code at vcpu->rip, with the flags in the slot; *ret_code as below. */
int soft_find_code(struct engine_vcpu *vcpu, const uint8_t **ret_code);
/* What guest code was left for. *ret_code: where to enter it again, or NULL. */
int soft_serve(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code);

/* signal.c */
int soft_signals_install(void);
void soft_signals_thread(struct engine_vcpu *vcpu); /* the calling thread uses its signal stack */
void soft_signals_forget(struct engine_vcpu *vcpu);
#define SIGNAL_STACK_BYTES 65536u

#endif
