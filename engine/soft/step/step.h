/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper's parts. Each handler executes the decoded instruction and leaves rip alone unless it
 * says SOFT_OK: then rip is `next`, unless the handler has set another through soft_jump().
 */
#ifndef ENGINE_SOFT_STEP_H
#define ENGINE_SOFT_STEP_H

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/debug.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/step/stepper.h"

struct soft_step {
	const struct soft_insn *insn;
	uint64_t next; /* rip behind the instruction, already wrapped to the mode's width */
	enum soft_code_size code_size;
	bool jumped; /* rip is set */
	bool trap; /* a single step is due when it is through: TF was set; handlers may change it */
};

typedef int soft_handler(struct engine_vcpu *vcpu, struct soft_step *step);

/* NULL: not one of this file's. */
soft_handler *soft_system_handler(ZydisMnemonic mnemonic);
soft_handler *soft_control_handler(ZydisMnemonic mnemonic);
soft_handler *soft_string_handler(ZydisMnemonic mnemonic);
soft_handler *soft_legacy_handler(ZydisMnemonic mnemonic); /* not in 64-bit mode */
/* By the host's CPU, the operand translated (step/exec.c). */
int soft_step_plain(struct engine_vcpu *vcpu, struct soft_step *step);
/*
 * Executes it with gpr, flags and extended state of the vCPU, its operand (or NULL) at host; base:
 * the register that addresses it, or -1.
 */
int soft_execute_at(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint8_t *host,
		    int base);
/* Its operand is not there: is it for the host's CPU to say which fault comes (step/fault.c)? */
bool soft_fault_is_hosts(const struct soft_insn *insn);
/* Elements that a mask disables are not accessed. */
bool soft_insn_is_masked(const struct soft_insn *insn);
/* vcpu->fault is what its address gives, if it comes to that. */
int soft_step_absent(struct engine_vcpu *vcpu, const struct soft_insn *insn);
int soft_step_fault(struct engine_vcpu *vcpu, const struct soft_insn *insn, uint64_t linear);
/* maskmovq, maskmovdqu */
bool soft_insn_is_masked_store(const struct soft_insn *insn);
int soft_step_masked(struct engine_vcpu *vcpu, struct soft_step *step);
/* On vcpu->bounce, which the caller has filled. */
int soft_execute_copy(struct engine_vcpu *vcpu, const struct soft_insn *insn);
/* What shows, loads or clears x87's pointers. */
int soft_step_pointers(struct engine_vcpu *vcpu, struct soft_step *step);
int soft_step_gather(struct engine_vcpu *vcpu, struct soft_step *step);

/* What has been done of a repeated instruction stays done if an access is broken off. */
void soft_step_commit(struct engine_vcpu *vcpu);

/* Operands (step.c). Sizes in bytes. */
uint64_t soft_mask(uint32_t bytes);
uint64_t soft_get_register(const struct engine_vcpu *vcpu, ZydisRegister reg);
void soft_set_register(struct engine_vcpu *vcpu, ZydisRegister reg, uint64_t value);
/* Writes `bytes` of a register as instructions do: 4 clear the upper half, 1 and 2 keep the rest.
 */
void soft_set_gpr(struct engine_vcpu *vcpu, int number, uint32_t bytes, uint64_t value);
uint64_t soft_effective_address(const struct engine_vcpu *vcpu, const struct soft_step *step,
				const ZydisDecodedOperandMem *mem);
/* Linear address of an access there: segment base, limits, canonical form. May fault. */
int soft_linear(struct engine_vcpu *vcpu, enum vcpu_segment segment, uint64_t offset,
		uint32_t bytes, bool write, uint64_t *ret_linear);
/* The same, with the alignment that EFLAGS.AC asks for, where that does not follow from the size.
 */
int soft_linear_aligned(struct engine_vcpu *vcpu, enum vcpu_segment segment, uint64_t offset,
			uint32_t bytes, uint32_t align, bool write, uint64_t *ret_linear);
int soft_operand_linear(struct engine_vcpu *vcpu, const struct soft_step *step,
			const ZydisDecodedOperand *op, bool write, uint64_t *ret_linear);
int soft_get_operand(struct engine_vcpu *vcpu, const struct soft_step *step, int index,
		     uint64_t *ret_value);
int soft_set_operand(struct engine_vcpu *vcpu, const struct soft_step *step, int index,
		     uint64_t value);

/* The stack, in the width of the mode. `depth`: bytes below (push) the present top. */
uint32_t soft_stack_width(const struct engine_vcpu *vcpu);
int soft_stack_read(struct engine_vcpu *vcpu, uint32_t offset, uint32_t bytes, uint64_t *ret_value);
int soft_stack_push(struct engine_vcpu *vcpu, uint32_t bytes, uint64_t value);
/* Moves by `bytes`, and writes only the lowest of them. */
int soft_stack_push_low(struct engine_vcpu *vcpu, uint32_t bytes, uint32_t written, uint64_t value);
void soft_stack_move(struct engine_vcpu *vcpu, int64_t bytes);

/* Goes on at an offset of CS, cut to bytes. May fault. */
int soft_jump(struct engine_vcpu *vcpu, struct soft_step *step, uint64_t offset, uint32_t bytes);

/* May this level use the port? IOPL, or the bitmap of the TSS. */
int soft_check_port(struct engine_vcpu *vcpu, uint16_t port, uint32_t bytes);

#endif
