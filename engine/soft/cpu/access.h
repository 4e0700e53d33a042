/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory for the engine's own C code. See access.c. */
#ifndef ENGINE_SOFT_ACCESS_H
#define ENGINE_SOFT_ACCESS_H

#include "engine/soft/vcpu.h"

/* All of them may be left by a signal, see SOFT_AGAIN. */
int soft_read(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, void *data,
	      uint32_t size);
int soft_write(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, const void *data,
	       uint32_t size);
/* Could soft_write() be done? Faults as it would. */
int soft_probe_write(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, uint32_t size);
/* Bytes of code at the linear address, as many as are there; at least one. */
int soft_fetch(struct engine_vcpu *vcpu, uint64_t linear, uint8_t *bytes, uint32_t *size);
/* Plain accesses to host memory that may wait for a page. */
uint64_t soft_load64(const void *host);
uint8_t soft_load8(const void *host);
bool soft_exchange64(void *host, uint64_t expected, uint64_t value);
void soft_copy(void *to, const void *from, size_t bytes);
void soft_fill(void *to, uint64_t value, size_t words);
void soft_touch(void *host);	  /* a write that changes nothing */
bool soft_in_access(uint64_t pc); /* is this pc in one of them? */
/* Leaves C for where run goes on after that. Not for code that is committing. */
__attribute__((noreturn)) void soft_access_break_off(struct engine_vcpu *vcpu);

/* The vCPU of the calling thread while it is inside run, or NULL. */
extern _Thread_local struct engine_vcpu *volatile soft_this_vcpu;

#endif
