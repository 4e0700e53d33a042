/* SPDX-License-Identifier: Apache-2.0 */
/* Faults, interrupts, and their delivery through the IDT. */
#ifndef ENGINE_SOFT_EXCEPTION_H
#define ENGINE_SOFT_EXCEPTION_H

#include "engine/soft/vcpu.h"

int soft_raise(struct engine_vcpu *vcpu, uint8_t vector);
int soft_raise_error(struct engine_vcpu *vcpu, uint8_t vector, uint32_t error);
int soft_raise_page_fault(struct engine_vcpu *vcpu, uint64_t linear, uint32_t error);
enum soft_event { EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_SOFT };
/* Goes through the IDT. SOFT_FAULT: the delivery itself faulted. */
int soft_deliver(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event, bool has_error,
		 uint32_t error, uint64_t return_rip);
/* exception_protected.c: the same, without long mode. */
int soft_deliver_protected(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
			   bool has_error, uint32_t error, uint64_t return_rip);
/* Delivers vcpu->fault, and what comes of it. SOFT_EXIT: triple fault. */
int soft_deliver_fault(struct engine_vcpu *vcpu);
/*
 * vcpu->fault is delivered as one that the caller of run has asked for: broken off, it starts anew,
 * and it is in a saved state. external: its cause is not the instruction.
 */
void soft_keep_fault(struct engine_vcpu *vcpu, bool external);

#endif
