/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: the guest's own state, the caller's (APIC, TSC deadline: they exit),
 * and the answer for those that nobody has: #GP, as on a CPU without them. The same tables as the
 * kvm engine's.
 */
#include "engine/soft/cpu/segment.h"

#include "engine/host_clock.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/cpu/msr.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/tlb/tlb.h"

#define INDEX_TSC	   0x10u
#define INDEX_PRED_CMD	   0x49u
#define INDEX_APIC_BASE	   0x1bu
#define INDEX_TSC_DEADLINE 0x6e0u
#define INDEX_X2APIC_FIRST 0x800u
#define INDEX_X2APIC_LAST  0x8ffu
#define INDEX_EFER	   0xc0000080u
#define INDEX_FS_BASE	   0xc0000100u
#define INDEX_GS_BASE	   0xc0000101u
#define MTRR_CAP_VALUE	   0x508ull /* 8 variable ranges, fixed ones, write-combining */

struct msr_answer {
	uint32_t index;
	bool write_ignored;
	uint64_t value;
};

static const struct msr_answer msr_answers[] = {
	{ 0x34, false, 0 }, /* SMI count: no SMIs */
	{ MSR_INDEX_ARCH_CAPABILITIES, false, ARCH_CAPABILITIES_VALUE },
	{ MSR_INDEX_XAPIC_DISABLE_STATUS, false, XAPIC_DISABLE_STATUS_VALUE },
	{ 0x8b, true, 0 }, /* microcode */
	{ 0xfe, false, MTRR_CAP_VALUE },
	{ 0xc0010114, false, 1 << 4 },	  /* VM_CR: SVM is disabled */
	{ 0xc0011020, true, 0 },	  /* LS_CFG: errata of bare metal */
	{ 0xc0011029, true, 1 << 1 },	  /* DE_CFG: LFENCE serialises */
	{ 0xc0010010, true, 0 },	  /* SYSCFG */
	{ 0xc001001f, true, 0 },	  /* NB_CFG */
	{ 0xc0000104, true, 1ull << 32 }, /* TSC ratio */
};

uint64_t soft_tsc(const struct engine_vcpu *vcpu)
{
	uint64_t tsc = host_clock_tsc();

	if (vcpu->tsc_ratio)
		tsc = (uint64_t)((unsigned __int128)tsc * vcpu->tsc_ratio >> TSC_RATIO_BITS);
	return tsc + vcpu->tsc_offset;
}

static bool is_callers(uint32_t index)
{
	return index == INDEX_APIC_BASE || index == INDEX_TSC_DEADLINE ||
	       (index >= INDEX_X2APIC_FIRST && index <= INDEX_X2APIC_LAST);
}

/* Of those that CPUID offers. */
static int own_index(const struct engine_vcpu *vcpu, uint32_t index)
{
	const struct soft_offer *offer = vcpu->engine->offer;

	for (int i = 0; i < VCPU_MSR_COUNT; i++) {
		if (vcpu_msr_index[i] != index)
			continue;
		if ((i == MSR_SPEC_CTRL && !offer->spec_ctrl) ||
		    (i == MSR_VIRT_SPEC_CTRL && !offer->virt_spec_ctrl))
			return -1;
		return i;
	}
	return -1;
}

static int ask(struct engine_vcpu *vcpu, uint32_t index, bool write, uint64_t value)
{
	vcpu->open = write ? OPEN_MSR_WRITE : OPEN_MSR_READ;
	vcpu->pending.kind = write ? EXIT_MSR_WRITE : EXIT_MSR_READ;
	vcpu->pending.msr.index = index;
	vcpu->pending.msr.fault = 0;
	vcpu->pending.msr.value = value;
	return SOFT_EXIT;
}

int soft_msr_read(struct engine_vcpu *vcpu, uint32_t index, uint64_t *ret_value)
{
	int own;

	if (is_callers(index)) {
		if (!vcpu->answered)
			return ask(vcpu, index, false, 0);
		*ret_value = vcpu->pending.msr.value;
		return vcpu->pending.msr.fault ? soft_raise_error(vcpu, VECTOR_GP, 0) : SOFT_OK;
	}
	switch (index) {
	case INDEX_TSC:
		*ret_value = soft_tsc(vcpu);
		return SOFT_OK;
	case INDEX_EFER:
		*ret_value = vcpu->state.efer;
		return SOFT_OK;
	case INDEX_FS_BASE:
		*ret_value = vcpu->state.segment[SEG_FS].base;
		return SOFT_OK;
	case INDEX_GS_BASE:
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
	for (size_t i = 0; i < sizeof(msr_answers) / sizeof(msr_answers[0]); i++) {
		if (msr_answers[i].index == index) {
			*ret_value = msr_answers[i].value;
			return SOFT_OK;
		}
	}
	return soft_raise_error(vcpu, VECTOR_GP, 0);
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

/* Eight memory types, of which 2 and 3 do not exist (SDM vol. 3, 11.12.2). */
static bool is_pat(uint64_t value)
{
	for (int i = 0; i < 8; i++, value >>= 8)
		if ((value & 0xff) > 7 || (value & 0xfe) == 2)
			return false;
	return true;
}

static int write_own(struct engine_vcpu *vcpu, int own, uint64_t value)
{
	switch (own) {
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
		if (!soft_is_canonical(value))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		break;
	case MSR_PAT:
		if (!is_pat(value))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		break;
	case MSR_XSS:
		if (value)
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		break;
	case MSR_TSC_ADJUST:
		vcpu->tsc_offset += value - vcpu->state.msr[MSR_TSC_ADJUST];
		break;
	default:
		break;
	}
	vcpu->state.msr[own] = value;
	return SOFT_OK;
}

int soft_msr_write(struct engine_vcpu *vcpu, uint32_t index, uint64_t value)
{
	uint64_t now;
	int own;

	if (is_callers(index)) {
		if (!vcpu->answered)
			return ask(vcpu, index, true, value);
		return vcpu->pending.msr.fault ? soft_raise_error(vcpu, VECTOR_GP, 0) : SOFT_OK;
	}
	switch (index) {
	case INDEX_TSC:
		now = soft_tsc(vcpu);
		vcpu->tsc_offset += value - now;
		vcpu->state.msr[MSR_TSC_ADJUST] += value - now;
		return SOFT_OK;
	case INDEX_EFER:
		return write_efer(vcpu, value);
	case INDEX_FS_BASE:
	case INDEX_GS_BASE:
		if (!soft_is_canonical(value))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		soft_segment_set_base(vcpu, index == INDEX_FS_BASE ? SEG_FS : SEG_GS, value);
		return SOFT_OK;
	case INDEX_PRED_CMD: /* a barrier; it cannot be read */
		return vcpu->engine->offer->pred_cmd && !(value & ~1ull)
			       ? SOFT_OK
			       : soft_raise_error(vcpu, VECTOR_GP, 0);
	default:
		break;
	}
	own = own_index(vcpu, index);
	if (own >= 0)
		return write_own(vcpu, own, value);
	for (size_t i = 0; i < sizeof(msr_answers) / sizeof(msr_answers[0]); i++)
		if (msr_answers[i].index == index && msr_answers[i].write_ignored)
			return SOFT_OK;
	return soft_raise_error(vcpu, VECTOR_GP, 0);
}
