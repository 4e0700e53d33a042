/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: the guest's own state, the caller's (APIC, TSC deadline: they exit),
 * and those that are the same on all nodes (vcpu/msr.h, for both engines); the others are #GP.
 */
#include "engine/soft/cpu/segment.h"

#include "engine/host_clock.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/cpu/msr.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/tlb/tlb.h"
#include "vcpu/msr.h"

uint64_t soft_tsc(const struct engine_vcpu *vcpu)
{
	uint64_t tsc = host_clock_tsc();

	tsc = (uint64_t)((unsigned __int128)tsc * vcpu->tsc_ratio >> TSC_RATIO_BITS);
	return tsc + vcpu->tsc_offset;
}

/* Of those that CPUID offers. */
static int own_index(const struct engine_vcpu *vcpu, uint32_t index)
{
	const struct soft_offer *offer = vcpu->engine->offer;

	int own = vcpu_msr_find(index);

	return (own == MSR_SPEC_CTRL && !offer->spec_ctrl) ||
			       (own == MSR_VIRT_SPEC_CTRL && !offer->virt_spec_ctrl)
		       ? -1
		       : own;
}

static int ask(struct engine_vcpu *vcpu, uint32_t index, bool write, uint64_t value)
{
	vcpu->open = write ? OPEN_MSR_WRITE : OPEN_MSR_READ;
	vcpu->pending.kind = write ? EXIT_MSR_WRITE : EXIT_MSR_READ;
	vcpu->pending.msr.index = index;
	vcpu->pending.msr.fault = 0;
	vcpu->pending.msr.value = value;
	vcpu->pending.msr.tsc_adjust = vcpu->state.msr[MSR_TSC_ADJUST];
	return SOFT_EXIT;
}

int soft_msr_read(struct engine_vcpu *vcpu, uint32_t index, uint64_t *ret_value)
{
	int own;

	if (vcpu_msr_is_callers(index)) {
		if (!vcpu->answered)
			return ask(vcpu, index, false, 0);
		*ret_value = vcpu->pending.msr.value;
		return vcpu->pending.msr.fault ? soft_raise_error(vcpu, VECTOR_GP, 0) : SOFT_OK;
	}
	switch (index) {
	case MSR_INDEX_TSC:
		*ret_value = soft_tsc(vcpu);
		return SOFT_OK;
	case MSR_INDEX_EFER:
		*ret_value = vcpu->state.efer;
		return SOFT_OK;
	case MSR_INDEX_FS_BASE:
		*ret_value = vcpu->state.segment[SEG_FS].base;
		return SOFT_OK;
	case MSR_INDEX_GS_BASE:
		*ret_value = vcpu->state.segment[SEG_GS].base;
		return SOFT_OK;
	default:
		break;
	}
	own = own_index(vcpu, index);
	if (own >= 0) {
		*ret_value = vcpu->state.msr[own];
		return SOFT_OK;
	}
	return vcpu_msr_constant(index, false, ret_value) ? SOFT_OK
							  : soft_raise_error(vcpu, VECTOR_GP, 0);
}

static int write_efer(struct engine_vcpu *vcpu, uint64_t value)
{
	uint64_t old = vcpu->state.efer;

	if ((value & ~(EFER_WRITABLE | EFER_LMA)) ||
	    (((value ^ old) & EFER_LME) && (vcpu->state.cr0 & CR0_PG)))
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	vcpu->state.efer = (value & EFER_WRITABLE) | (old & EFER_LMA);
	if ((value ^ old) & EFER_NXE)
		soft_tlb_flush(vcpu, true);
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static int write_own(struct engine_vcpu *vcpu, int own, uint64_t value)
{
	if (!vcpu_msr_accept((enum vcpu_msr)own, &vcpu->cpuid, &value))
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	if (own == MSR_TSC_ADJUST)
		vcpu->tsc_offset += value - vcpu->state.msr[MSR_TSC_ADJUST];
	vcpu->state.msr[own] = value;
	return SOFT_OK;
}

int soft_msr_write(struct engine_vcpu *vcpu, uint32_t index, uint64_t value)
{
	uint64_t now;
	int own;

	if (vcpu_msr_is_callers(index)) {
		if (!vcpu->answered)
			return ask(vcpu, index, true, value);
		return vcpu->pending.msr.fault ? soft_raise_error(vcpu, VECTOR_GP, 0) : SOFT_OK;
	}
	switch (index) {
	case MSR_INDEX_TSC:
		now = soft_tsc(vcpu);
		vcpu->tsc_offset += value - now;
		vcpu->state.msr[MSR_TSC_ADJUST] += value - now;
		return SOFT_OK;
	case MSR_INDEX_EFER:
		return write_efer(vcpu, value);
	case MSR_INDEX_FS_BASE:
	case MSR_INDEX_GS_BASE:
		if (!soft_is_canonical(value))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		soft_segment_set_base(vcpu, index == MSR_INDEX_FS_BASE ? SEG_FS : SEG_GS, value);
		return SOFT_OK;
	case MSR_INDEX_PRED_CMD: /* a barrier; it cannot be read */
		return vcpu->engine->offer->pred_cmd && !(value & ~1ull)
			       ? SOFT_OK
			       : soft_raise_error(vcpu, VECTOR_GP, 0);
	default:
		break;
	}
	own = own_index(vcpu, index);
	if (own >= 0)
		return write_own(vcpu, own, value);
	return vcpu_msr_constant(index, true, &value) ? SOFT_OK
						      : soft_raise_error(vcpu, VECTOR_GP, 0);
}
