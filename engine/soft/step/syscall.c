/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: how a system call enters and leaves the kernel, SYSCALL and SYSRET, SYSENTER and
 * SYSEXIT, and what it does first: SWAPGS and its kin, the bases of FS and GS.
 *
 * The vendors differ (SDM vol. 2 and APM vol. 3 at each instruction), and CPUID says whose CPU this
 * is:
 *
 *                                          AMD                 Intel
 *     SYSCALL from compatibility mode      goes to CSTAR       #UD
 *     SYSRET to what is not canonical      #GP there           #GP here
 *     SYSENTER, SYSEXIT in long mode       #UD                 work
 *
 * Left out: AMD's SYSCALL without long mode (#UD, as Intel has it).
 */
#include "engine/soft/step/system.h"

#include "engine/soft/cpu/segment.h"

#define VENDOR_INTEL_ECX 0x6c65746eu /* "ntel" */

static bool is_intel(const struct engine_vcpu *vcpu)
{
	const struct cpuid_leaf *leaf = cpuid_find(&vcpu->cpuid, 0, 0);

	return leaf && leaf->ecx == VENDOR_INTEL_ECX;
}

static void flat_segment(struct vcpu_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct vcpu_segment_state){ .limit = 0xffffffff,
						.selector = selector,
						.attributes = attributes };
}

/* Flat code and stack segments of a level, whatever the descriptors say; their selectors follow. */
static void go_flat(struct engine_vcpu *vcpu, struct soft_step *step, uint16_t selector, bool wide)
{
	struct vcpu_segment_state *segment = vcpu->state.segment;
	uint8_t cpl = selector & 3;

	flat_segment(&segment[SEG_CS], selector, (uint16_t)((wide ? 0xa09b : 0xc09b) | cpl << 5));
	flat_segment(&segment[SEG_SS], (uint16_t)(selector + 8), (uint16_t)(0xc093 | cpl << 5));
	vcpu->cpl = cpl;
	step->jumped = true;
}

int soft_step_syscall(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_state *state = &vcpu->state;
	uint16_t selector = (uint16_t)(state->msr[MSR_STAR] >> 32 & 0xfffc);
	uint64_t flags = soft_rflags(vcpu);

	if (!(state->efer & EFER_SCE) || !soft_long_mode(vcpu) ||
	    (!soft_code64(vcpu) && is_intel(vcpu)))
		return soft_raise(vcpu, VECTOR_UD);
	vcpu->gpr[GPR_RCX] = step->next;
	vcpu->gpr[11] = flags & ~FLAG_RF;
	vcpu->rip = soft_code64(vcpu) ? state->msr[MSR_LSTAR] : state->msr[MSR_CSTAR];
	go_flat(vcpu, step, selector, true);
	soft_set_rflags(vcpu, flags & ~state->msr[MSR_SFMASK] & ~FLAG_RF);
	step->trap = vcpu->system_flags & FLAG_TF; /* as it is now, not as it was */
	return SOFT_OK;
}

int soft_step_sysret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_state *state = &vcpu->state;
	uint16_t selector = (uint16_t)(state->msr[MSR_STAR] >> 48 | 3);
	bool wide = step->insn->z.raw.rex.W;
	uint64_t mask = 0x3c7fd7 & ~(FLAG_RF | FLAG_VM | 2);

	if (!(state->efer & EFER_SCE) || !soft_long_mode(vcpu) ||
	    (!soft_code64(vcpu) && is_intel(vcpu)))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	if (wide && !soft_is_canonical(vcpu->gpr[GPR_RCX]) && is_intel(vcpu))
		return soft_not_privileged(vcpu);
	vcpu->rip = wide ? vcpu->gpr[GPR_RCX] : (uint32_t)vcpu->gpr[GPR_RCX];
	go_flat(vcpu, step, (uint16_t)(selector + (wide ? 16 : 0)), wide);
	flat_segment(&state->segment[SEG_SS], (uint16_t)(selector + 8), 0xc0f3);
	soft_set_rflags(vcpu, vcpu->gpr[11] & mask);
	step->trap = vcpu->system_flags & FLAG_TF;
	return SOFT_OK;
}

int soft_step_sysenter(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const uint64_t *msr = vcpu->state.msr;
	uint16_t selector = msr[MSR_SYSENTER_CS] & 0xfffc;
	uint64_t mask = soft_mask(soft_long_mode(vcpu) ? 8 : 4);

	if (soft_long_mode(vcpu) && !is_intel(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (soft_real_mode(vcpu) || !selector)
		return soft_not_privileged(vcpu);
	vcpu->rip = msr[MSR_SYSENTER_EIP] & mask;
	vcpu->gpr[GPR_RSP] = msr[MSR_SYSENTER_ESP] & mask;
	go_flat(vcpu, step, selector, soft_long_mode(vcpu));
	soft_set_rflags(vcpu, soft_rflags(vcpu) & ~(FLAG_IF | FLAG_VM | FLAG_RF));
	return SOFT_OK;
}

/* On AMD's CPUs privilege counts first. */
int soft_step_sysexit(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint16_t selector = vcpu->state.msr[MSR_SYSENTER_CS] & 0xfffc;
	bool wide = soft_code64(vcpu) && step->insn->z.raw.rex.W;
	uint64_t rip = vcpu->gpr[GPR_RDX], rsp = vcpu->gpr[GPR_RCX];

	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	if (soft_long_mode(vcpu) && !is_intel(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (soft_real_mode(vcpu) || !selector ||
	    (wide && (!soft_is_canonical(rip) || !soft_is_canonical(rsp))))
		return soft_not_privileged(vcpu);
	vcpu->rip = wide ? rip : (uint32_t)rip;
	vcpu->gpr[GPR_RSP] = wide ? rsp : (uint32_t)rsp;
	go_flat(vcpu, step, (uint16_t)((selector + (wide ? 32 : 16)) | 3), wide);
	soft_update_mode(vcpu);
	return SOFT_OK;
}

int soft_step_swapgs(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t base = vcpu->state.segment[SEG_GS].base;

	(void)step;
	if (!soft_code64(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	soft_segment_set_base(vcpu, SEG_GS, vcpu->state.msr[MSR_KERNEL_GS_BASE]);
	vcpu->state.msr[MSR_KERNEL_GS_BASE] = base;
	return SOFT_OK;
}

int soft_step_base(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	ZydisRegister reg = step->insn->op[0].reg.value;
	enum vcpu_segment which =
		mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE ? SEG_FS
											   : SEG_GS;
	uint64_t value;

	if (!soft_code64(vcpu) || !(vcpu->state.cr4 & CR4_FSGSBASE))
		return soft_raise(vcpu, VECTOR_UD);
	if (mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_RDGSBASE) {
		soft_set_register(vcpu, reg, vcpu->state.segment[which].base);
		return SOFT_OK;
	}
	value = soft_get_register(vcpu, reg);
	if (!soft_is_canonical(value))
		return soft_not_privileged(vcpu);
	soft_segment_set_base(vcpu, which, value);
	return SOFT_OK;
}
