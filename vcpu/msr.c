/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers that a guest finds: see msr.h. Tested on each engine by tests/engine/cases_msr.c.
 */
#include "vcpu/msr.h"

#include <stddef.h>

#define MTRR_CAP_VALUE	  0x508ull /* 8 variable ranges, fixed ones, write-combining */
#define MTRR_DEF_TYPE_SET 0xcffull
#define MTRR_VALID	  (1ull << 11)
#define HWCR_SET	  (1ull << 24) /* what a guest can have there; KVM has it so, too */
#define SPEC_CTRL_SSBD	  (1ull << 2)

struct constant {
	uint32_t index;
	bool write_ignored;
	uint64_t value;
};

/* Kernels access these without asking whether they are there. */
static const struct constant constants[] = {
	{ 0x17, false, 0 }, /* platform id */
	{ 0x34, false, 0 }, /* SMI count: no SMIs */
	{ 0x8b, true, 0 },  /* microcode */
	{ MSR_INDEX_XAPIC_DISABLE_STATUS, false, XAPIC_DISABLE_STATUS_VALUE },
	{ 0xfe, false, MTRR_CAP_VALUE },
	{ MSR_INDEX_ARCH_CAPABILITIES, false, ARCH_CAPABILITIES_VALUE },
	{ 0xc0000104, true, 1ull << 32 }, /* TSC ratio */
	{ 0xc0010010, true, 0 },	  /* SYSCFG */
	{ 0xc001001f, true, 0 },	  /* NB_CFG */
	{ 0xc0010114, false, 1 << 4 },	  /* VM_CR: SVM is disabled */
	{ 0xc0011020, true, 0 },	  /* LS_CFG: errata of bare metal */
	{ 0xc0011029, true, 1 << 1 },	  /* DE_CFG: LFENCE serialises */
};

int vcpu_msr_find(uint32_t index)
{
	for (int i = 0; i < VCPU_MSR_COUNT; i++)
		if (vcpu_msr_index[i] == index)
			return i;
	return -1;
}

bool vcpu_msr_is_callers(uint32_t index)
{
	return index == MSR_INDEX_APIC_BASE || index == MSR_INDEX_TSC_DEADLINE ||
	       (index >= MSR_INDEX_X2APIC_FIRST && index <= MSR_INDEX_X2APIC_LAST);
}

bool vcpu_msr_is_derived(uint32_t index)
{
	return index == MSR_INDEX_TSC || index == MSR_INDEX_EFER || index == MSR_INDEX_FS_BASE ||
	       index == MSR_INDEX_GS_BASE;
}

bool vcpu_msr_constant(uint32_t index, bool write, uint64_t *value)
{
	for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
		if (constants[i].index != index)
			continue;
		if (!write)
			*value = constants[i].value;
		return !write || constants[i].write_ignored;
	}
	return false;
}

static bool is_canonical(uint64_t address)
{
	return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

uint64_t vcpu_msr_narrow(enum vcpu_msr msr, uint64_t value)
{
	switch (msr) {
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
		return (uint64_t)((int64_t)(value << 16) >> 16);
	default:
		return value;
	}
}

/* Eight memory types, of which 2 and 3 do not exist (SDM vol. 3, 11.12.2). */
static bool is_pat(uint64_t value)
{
	for (int i = 0; i < 8; i++, value >>= 8)
		if ((value & 0xff) > 7 || (value & 0xfe) == 2)
			return false;
	return true;
}

/* UC, WC, WT, WP, WB (SDM vol. 3, 11.11.2). */
static bool is_memory_type(uint8_t type)
{
	return type < 7 && (1u << type & 0x73);
}

static bool is_fixed_mtrr(uint64_t value)
{
	for (int i = 0; i < 8; i++)
		if (!is_memory_type((uint8_t)(value >> 8 * i)))
			return false;
	return true;
}

/* Even ones are a base and its type, odd ones a mask. */
static bool is_variable_mtrr(uint32_t number, uint32_t physical_bits, uint64_t value)
{
	if (physical_bits < 64 && value >> physical_bits)
		return false;
	if (number % 2)
		return !(value & (MTRR_VALID - 1));
	return !(value & 0xf00) && is_memory_type((uint8_t)value);
}

bool vcpu_msr_accept(enum vcpu_msr msr, const struct cpuid_set *cpuid, uint64_t *value)
{
	if (msr >= MSR_MTRR_VARIABLE)
		return is_variable_mtrr((uint32_t)msr - MSR_MTRR_VARIABLE,
					cpuid_physical_bits(cpuid), *value);
	if (msr >= MSR_MTRR_FIXED)
		return is_fixed_mtrr(*value);
	switch (msr) {
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
		return is_canonical(*value);
	case MSR_PAT:
		return is_pat(*value);
	case MSR_MTRR_DEF_TYPE:
		return !(*value & ~MTRR_DEF_TYPE_SET) && is_memory_type((uint8_t)*value);
	case MSR_SFMASK: /* flags have 32 bits */
	case MSR_TSC_AUX:
		return !(*value >> 32);
	case MSR_SPEC_CTRL:
		return !(*value & ~cpuid_spec_ctrl(cpuid));
	case MSR_VIRT_SPEC_CTRL:
		return !(*value & ~SPEC_CTRL_SSBD);
	case MSR_XSS:
	case MSR_MISC_FEATURES:
		return !*value;
	case MSR_DEBUGCTL:
		*value = 0; /* no branch records; AMD's CPUs without them ignore it as well */
		return true;
	case MSR_HWCR:
		*value = HWCR_SET;
		return true;
	default:
		return true;
	}
}
