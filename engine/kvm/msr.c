/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which MSRs leave the guest, and the answer for those that nobody has.
 *
 * Without an in-kernel irqchip KVM refuses the x2APIC registers (0x800..0x8ff), and what it refuses
 * exits (KVM_CAP_X86_USER_SPACE_MSR, reasons INVAL and UNKNOWN). Some MSRs that it would handle
 * itself are taken from it by a filter: those whose values are the pod's (vcpu/cpuid.h), the TSC
 * deadline, which it would swallow (on some Intel hosts it does so even then, so probe.c looks),
 * and the APIC base, so that the machine alone decides about APIC modes.
 *
 * What else exits is unknown to KVM. The answer is #GP, as on a CPU without it: kernels read
 * model-specific registers with a safe access. The table has the exceptions. Tested by
 * tests/engine/cases_*.c.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <sys/ioctl.h>

#define MSR_APIC_BASE	 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST	 0x8ffu

struct msr_answer {
	uint32_t index;
	bool write_ignored;
	uint64_t value;
};

/* Kernels access these without asking whether they are there. */
static const struct msr_answer msr_answers[] = {
	{ 0x34, false, 0 }, /* SMI count: no SMIs */
	{ MSR_INDEX_ARCH_CAPABILITIES, false, ARCH_CAPABILITIES_VALUE },
	{ MSR_INDEX_XAPIC_DISABLE_STATUS, false, XAPIC_DISABLE_STATUS_VALUE },
	{ 0xc0010015, true, 0 },       /* HWCR: bits that KVM refuses */
	{ 0xc0010114, false, 1 << 4 }, /* VM_CR: SVM is disabled */
	{ 0xc0011020, true, 0 },       /* LS_CFG: errata of bare metal */
	{ 0xc0011029, true, 1 << 1 },  /* DE_CFG: LFENCE serialises */
};

int kvm_msr_exits_enable(int vm_fd)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = { KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
			  KVM_MSR_EXIT_REASON_FILTER },
	};
	static const uint32_t filtered[] = { MSR_APIC_BASE, MSR_TSC_DEADLINE,
					     MSR_INDEX_ARCH_CAPABILITIES,
					     MSR_INDEX_XAPIC_DISABLE_STATUS };
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	uint8_t denied[1] = { 0 };

	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap))
		return -errno;
	for (size_t i = 0; i < sizeof(filtered) / sizeof(filtered[0]); i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.nmsrs = 1,
			.base = filtered[i],
			.bitmap = denied,
		};
	return ioctl(vm_fd, KVM_X86_SET_MSR_FILTER, &filter) ? -errno : 0;
}

bool kvm_msr_is_callers(uint32_t index)
{
	return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
	       (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
}

bool kvm_msr_faults(uint32_t index, bool write, uint64_t *value)
{
	for (size_t i = 0; i < sizeof(msr_answers) / sizeof(msr_answers[0]); i++) {
		const struct msr_answer *answer = &msr_answers[i];

		if (answer->index != index)
			continue;
		if (!write)
			*value = answer->value;
		return write && !answer->write_ignored;
	}
	return true;
}
