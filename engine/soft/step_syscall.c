/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: how a system call enters and leaves the kernel, SYSCALL and SYSRET (APM vol. 3), and
 * what it does first: SWAPGS and its kin, the bases of FS and GS.
 *
 * Left out: SYSENTER and SYSEXIT (#UD, as on AMD in long mode).
 */
#include "engine/soft/step_system.h"

#include "engine/soft/segment.h"

static void flat_segment(struct vcpu_segment_state *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct vcpu_segment_state){ .limit = 0xffffffff,
						.selector = selector,
						.attributes = attributes };
}

int soft_step_syscall(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_state *state = &vcpu->state;
	uint16_t selector = (uint16_t)(state->msr[MSR_STAR] >> 32 & 0xfffc);
	uint64_t flags = soft_rflags(vcpu);

	if (!(state->efer & EFER_SCE) || !soft_long_mode(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	vcpu->gpr[GPR_RCX] = step->next;
	vcpu->gpr[11] = flags & ~FLAG_RF;
	vcpu->rip = soft_code64(vcpu) ? state->msr[MSR_LSTAR] : state->msr[MSR_CSTAR];
	flat_segment(&state->segment[SEG_CS], selector, 0xa09b);
	flat_segment(&state->segment[SEG_SS], (uint16_t)(selector + 8), 0xc093);
	vcpu->cpl = 0;
	soft_set_rflags(vcpu, flags & ~state->msr[MSR_SFMASK] & ~FLAG_RF);
	step->trap = vcpu->system_flags & FLAG_TF; /* as it is now, not as it was */
	step->jumped = true;
	return SOFT_OK;
}

int soft_step_sysret(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct vcpu_state *state = &vcpu->state;
	uint16_t selector = (uint16_t)(state->msr[MSR_STAR] >> 48 | 3);
	bool wide = step->insn->z.raw.rex.W;
	uint64_t mask = 0x3c7fd7 & ~(FLAG_RF | FLAG_VM | 2);

	if (!(state->efer & EFER_SCE) || !soft_long_mode(vcpu))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	if (wide && !soft_is_canonical(vcpu->gpr[GPR_RCX]))
		return soft_not_privileged(vcpu);
	vcpu->rip = wide ? vcpu->gpr[GPR_RCX] : (uint32_t)vcpu->gpr[GPR_RCX];
	flat_segment(&state->segment[SEG_CS], (uint16_t)(selector + (wide ? 16 : 0)),
		     wide ? 0xa0fb : 0xc0fb);
	flat_segment(&state->segment[SEG_SS], (uint16_t)(selector + 8), 0xc0f3);
	vcpu->cpl = 3;
	soft_set_rflags(vcpu, vcpu->gpr[11] & mask);
	step->trap = vcpu->system_flags & FLAG_TF;
	step->jumped = true;
	return SOFT_OK;
}

/* Privilege counts first, as AMD's CPUs have it. */
int soft_step_sysexit(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	return vcpu->cpl ? soft_not_privileged(vcpu) : soft_raise(vcpu, VECTOR_UD);
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
