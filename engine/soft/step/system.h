/* SPDX-License-Identifier: Apache-2.0 */
/* The handlers of system instructions, which step/system.c has the table of, and what they share.
 */
#ifndef ENGINE_SOFT_STEP_SYSTEM_H
#define ENGINE_SOFT_STEP_SYSTEM_H

#include "engine/soft/step/step.h"

static inline int soft_not_privileged(struct engine_vcpu *vcpu)
{
	return soft_raise_error(vcpu, VECTOR_GP, 0);
}

/* UMIP: where its tables are is not for user code to know. */
static inline bool soft_hides_tables(const struct engine_vcpu *vcpu)
{
	return vcpu->cpl && (vcpu->state.cr4 & CR4_UMIP);
}

static inline void soft_set_pair(struct engine_vcpu *vcpu, uint64_t value)
{
	vcpu->gpr[GPR_RAX] = (uint32_t)value;
	vcpu->gpr[GPR_RDX] = value >> 32;
}

/* step/registers.c: control and debug registers */
soft_handler soft_step_mov;
soft_handler soft_step_clts;
soft_handler soft_step_smsw;
soft_handler soft_step_lmsw;

/* step/descriptor.c: descriptor tables and selectors */
soft_handler soft_step_load_table;
soft_handler soft_step_store_table;
soft_handler soft_step_load_selector;
soft_handler soft_step_store_selector;
soft_handler soft_step_load_far;
soft_handler soft_step_look_at_selector;

/* step/msr.c: MSRs, CPUID, time */
soft_handler soft_step_rdmsr;
soft_handler soft_step_wrmsr;
soft_handler soft_step_cpuid;
soft_handler soft_step_rdtsc;
soft_handler soft_step_rdpid;

/* step/xsave.c: XSAVE and its family */
soft_handler soft_step_xgetbv;
soft_handler soft_step_xsetbv;
soft_handler soft_step_xsave;
/* Of an XSAVE area with these parts. */
uint32_t soft_xsave_bytes(const struct engine_vcpu *vcpu, uint64_t parts, bool compacted);

/* step/syscall.c: into the kernel and back */
soft_handler soft_step_swapgs;
soft_handler soft_step_base;
soft_handler soft_step_syscall;
soft_handler soft_step_sysret;
soft_handler soft_step_sysenter;
soft_handler soft_step_sysexit;

/* step/port.c: ports, HLT */
soft_handler soft_step_port;
soft_handler soft_step_hlt;

#endif
