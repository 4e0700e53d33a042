/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: MSRs (their values are in msr.c), CPUID, and what the time stamp counter says.
 */
#include "engine/soft/step/system.h"

#include "engine/soft/cpu/msr.h"

int soft_step_rdmsr(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value = 0;
	int err;

	(void)step;
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	err = soft_msr_read(vcpu, (uint32_t)vcpu->gpr[GPR_RCX], &value);
	if (!err)
		soft_set_pair(vcpu, value);
	return err;
}

int soft_step_wrmsr(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	return soft_msr_write(vcpu, (uint32_t)vcpu->gpr[GPR_RCX],
			      (uint32_t)vcpu->gpr[GPR_RAX] | vcpu->gpr[GPR_RDX] << 32);
}

/* The bits that follow from the present state. */
static void patch_leaf(const struct engine_vcpu *vcpu, struct cpuid_leaf *leaf)
{
	if (leaf->function == 1) {
		leaf->ecx &= ~(1u << 27);
		if (vcpu->state.cr4 & CR4_OSXSAVE)
			leaf->ecx |= 1u << 27;
	}
	if (leaf->function == 0xd && leaf->index == 0)
		leaf->ebx = soft_xsave_bytes(vcpu, vcpu->state.xcr0, false);
	if (leaf->function == 0xd && leaf->index == 1)
		leaf->ebx = soft_xsave_bytes(vcpu, vcpu->state.xcr0, true);
}

int soft_step_cpuid(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t function = (uint32_t)vcpu->gpr[GPR_RAX];
	const struct cpuid_leaf *found =
		cpuid_find(&vcpu->cpuid, function, (uint32_t)vcpu->gpr[GPR_RCX]);
	struct cpuid_leaf leaf = { 0 };

	(void)step;
	if (found)
		leaf = *found;
	patch_leaf(vcpu, &leaf);
	vcpu->gpr[GPR_RAX] = leaf.eax;
	vcpu->gpr[GPR_RBX] = leaf.ebx;
	vcpu->gpr[GPR_RCX] = leaf.ecx;
	vcpu->gpr[GPR_RDX] = leaf.edx;
	return SOFT_OK;
}

int soft_step_rdtsc(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (vcpu->cpl && (vcpu->state.cr4 & CR4_TSD))
		return soft_not_privileged(vcpu);
	soft_set_pair(vcpu, soft_tsc(vcpu));
	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
		vcpu->gpr[GPR_RCX] = (uint32_t)vcpu->state.msr[MSR_TSC_AUX];
	return SOFT_OK;
}

int soft_step_rdpid(struct engine_vcpu *vcpu, struct soft_step *step)
{
	soft_set_register(vcpu, step->insn->op[0].reg.value,
			  (uint32_t)vcpu->state.msr[MSR_TSC_AUX]);
	return SOFT_OK;
}
