/* SPDX-License-Identifier: Apache-2.0 */
/* Segment registers and descriptors (SDM vol. 3, 3.4 and 5). Faults are raised in the vCPU. */
#ifndef ENGINE_SOFT_SEGMENT_H
#define ENGINE_SOFT_SEGMENT_H

#include "engine/soft/vcpu.h"

enum soft_segment_use {
	SEGMENT_BY_JUMP, /* or call */
	SEGMENT_BY_RETURN,
	SEGMENT_BY_GATE, /* of an interrupt or a call */
	SEGMENT_BY_GATE_JUMP,
	SEGMENT_BY_TASK, /* what is wrong is #TS */
};

/* May so many bytes at the offset be accessed? By limit and type; not in 64-bit code. */
bool soft_segment_allows(const struct vcpu_segment_state *segment, uint64_t offset, uint32_t bytes,
			 bool write);
/* Can code go on at this offset of it? Else #GP(0). */
int soft_segment_reaches(struct engine_vcpu *vcpu, const struct vcpu_segment_state *code,
			 uint64_t offset);

/* Loads DS, ES, FS, GS or SS as MOV does. */
int soft_segment_load(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector);
/* SS with the privilege level that a return goes to. */
int soft_segment_stack(struct engine_vcpu *vcpu, uint16_t selector, uint8_t cpl,
		       struct vcpu_segment_state *ret_segment);
/* SS of an inner level, from the TSS: what is wrong with it is #TS. */
int soft_segment_inner_stack(struct engine_vcpu *vcpu, uint16_t selector, uint8_t cpl,
			     struct vcpu_segment_state *ret_segment);
/* A code segment to go to, with the privilege level that it gives. Nothing is changed. */
int soft_segment_code(struct engine_vcpu *vcpu, uint16_t selector, enum soft_segment_use use,
		      struct vcpu_segment_state *ret_segment, uint8_t *ret_cpl);
/* What a null selector leaves in long mode. */
void soft_segment_null(struct vcpu_segment_state *segment, uint16_t selector);
/* A return to `cpl`, an outer level, empties the data segments that it may not have. */
void soft_segment_leave(struct engine_vcpu *vcpu, uint8_t cpl);
/* Of a task that begins: LDTR, CS, SS, or another; what is wrong is #TS, #NP or #SS. */
int soft_segment_of_task(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector);
/* As virtual-8086 mode has them all. */
void soft_segment_8086(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector);
/* LLDT, LTR. */
int soft_segment_system(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector);
/* Of a selector; false: there is none (LAR, LSL, VERR, VERW then say so). May fault by a page. */
int soft_segment_descriptor(struct engine_vcpu *vcpu, uint16_t selector, uint64_t *ret_descriptor,
			    bool *ret_found);
/* The upper half of a 16-byte one, in long mode. #GP(selector): the table ends before it. */
int soft_segment_descriptor_high(struct engine_vcpu *vcpu, uint16_t selector, uint64_t *ret_high);
void soft_segment_decode(uint16_t selector, uint64_t descriptor,
			 struct vcpu_segment_state *ret_segment);
/* Sets the base alone (WRFSBASE, MSRs). */
void soft_segment_set_base(struct engine_vcpu *vcpu, enum vcpu_segment which, uint64_t base);

#endif
