/* SPDX-License-Identifier: Apache-2.0 */
/* The handlers of control flow and the stack, which step/control.c chooses from. */
#ifndef ENGINE_SOFT_STEP_CONTROL_H
#define ENGINE_SOFT_STEP_CONTROL_H

#include "engine/soft/step/step.h"

static inline uint32_t soft_operand_bytes(const struct soft_step *step)
{
	return step->insn->z.operand_width / 8u;
}

/* step/far.c: JMP and CALL to another segment, and RET that takes `release` bytes more. */
int soft_jump_far(struct engine_vcpu *vcpu, struct soft_step *step, bool call);
int soft_return_far(struct engine_vcpu *vcpu, struct soft_step *step, uint64_t release);

/* step/stack.c */
soft_handler soft_step_push;
soft_handler soft_step_pop;
soft_handler soft_step_pusha;
soft_handler soft_step_popa;
soft_handler soft_step_enter;
soft_handler soft_step_leave;
soft_handler soft_step_pushf;
soft_handler soft_step_popf;
/* The flags that POPF and IRET may change at this level. */
uint64_t soft_writable_flags(const struct engine_vcpu *vcpu, uint32_t bytes);

/* SS and RSP of the outer level that a return goes to. */
void soft_stack_outer(struct engine_vcpu *vcpu, const struct vcpu_segment_state *segment,
		      uint64_t rsp);

/* Virtual-8086 mode with IOPL below 3: INT n, IRET, PUSHF and POPF are the monitor's to do. */
static inline bool soft_is_sensitive(const struct engine_vcpu *vcpu)
{
	return soft_virtual_8086(vcpu) && (vcpu->system_flags & FLAG_IOPL) != FLAG_IOPL;
}

/* step/interrupt.c */
soft_handler soft_step_int;
soft_handler soft_step_iret;

#endif
