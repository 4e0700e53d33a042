/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from control registers, CS, SS and RFLAGS: the view, the jump table, whether
 * translated code may run, what it may contain.
 */
#include "engine/soft/cpu/mode.h"

#include "engine/soft/tlb/jumps.h"

enum soft_code_size soft_code_size(const struct engine_vcpu *vcpu)
{
	uint16_t attributes = vcpu->state.segment[SEG_CS].attributes;

	if (soft_real_mode(vcpu))
		return CODE_16_REAL;
	if (!soft_long_mode(vcpu))
		return attributes & ATTRIBUTE_BIG ? CODE_32 : CODE_16;
	if (attributes & ATTRIBUTE_LONG)
		return CODE_64;
	return attributes & ATTRIBUTE_BIG ? CODE_32_COMPAT : CODE_16;
}

/* Blocks are translated for these; the jump tables only know the view. */
static void set_vector_modes(struct engine_vcpu *vcpu)
{
	const struct vcpu_state *state = &vcpu->state;
	bool no_vector = (state->cr0 & (CR0_TS | CR0_EM)) || !(state->cr4 & CR4_OSFXSR);
	bool no_avx = !(state->cr4 & CR4_OSXSAVE) || (state->xcr0 & 6) != 6;

	if (no_vector == vcpu->no_vector && no_avx == vcpu->no_avx)
		return;
	vcpu->no_vector = no_vector;
	vcpu->no_avx = no_avx;
	for (int view = 0; view < VIEW_COUNT; view++)
		soft_jump_flush(vcpu, (enum soft_view)view);
}

void soft_update_mode(struct engine_vcpu *vcpu)
{
	const struct vcpu_state *state = &vcpu->state;

	if (soft_real_mode(vcpu))
		vcpu->cpl = 0;
	else if (soft_virtual_8086(vcpu))
		vcpu->cpl = 3;
	if (vcpu->cpl == 3)
		vcpu->view = VIEW_USER;
	else if ((state->cr4 & CR4_SMAP) && !(vcpu->system_flags & FLAG_AC))
		vcpu->view = VIEW_KERNEL;
	else
		vcpu->view = VIEW_KERNEL_USER;
	vcpu->jumps = offsetof(struct engine_vcpu, jump[vcpu->view]);
	set_vector_modes(vcpu);
	vcpu->slow = !soft_code64(vcpu) || (vcpu->system_flags & FLAG_TF) || (state->dr7 & 0xff) ||
		     vcpu->cpl == 1 || vcpu->cpl == 2 ||
		     (vcpu->cpl == 3 && soft_checks_alignment(vcpu));
}

void soft_set_rflags(struct engine_vcpu *vcpu, uint64_t rflags)
{
	vcpu->flags = rflags & FLAGS_HOST;
	vcpu->system_flags = (uint32_t)(rflags & FLAGS_SYSTEM);
	vcpu->interrupts_on = (uint32_t)(rflags & FLAG_IF);
	soft_update_mode(vcpu);
}
