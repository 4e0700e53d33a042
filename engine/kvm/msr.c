/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which MSRs leave the guest, and what becomes of them there.
 *
 * KVM has registers that no move carries: machine checks, counters, its own clocks. So a filter
 * lets through only those that one does carry or that follow from the state (vcpu/msr.h); all else
 * exits, and gets that header's answer. Without an in-kernel irqchip KVM refuses the x2APIC
 * registers, which no filter sees, and what it refuses exits as well (KVM_CAP_X86_USER_SPACE_MSR).
 * On some Intel hosts writes of the TSC deadline do not exit even so: probe.c looks.
 *
 * Of those let through, most are never written once a kernel runs. Their writes exit, too, and are
 * done from here, so that the engine knows their values and asks KVM for the others alone: `cold`
 * and `hot` below. Tested by tests/engine/cases_msr.c.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vcpu/msr.h"

#define WINDOW_BITS 4096u

/* The guest writes these without an exit; all others are cold. */
static bool is_hot(int msr)
{
	switch (msr) {
	case MSR_STAR:
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_SFMASK:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_CS:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
	case MSR_TSC_AUX:
	case MSR_MISC_ENABLE:
	case MSR_SPEC_CTRL:
	case MSR_TSC_ADJUST:
	case MSR_VIRT_SPEC_CTRL:
		return true;
	default:
		return false;
	}
}

static bool passes(uint32_t index, bool write)
{
	int msr = vcpu_msr_find(index);

	if (msr >= 0)
		return !write || is_hot(msr);
	return vcpu_msr_is_derived(index) || (write && index == MSR_INDEX_PRED_CMD);
}

int kvm_msr_exits_enable(int vm_fd)
{
	static const uint32_t windows[] = { 0, 0xc0000000, 0xc0010000 };
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = { KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
			  KVM_MSR_EXIT_REASON_FILTER },
	};
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_DENY };
	uint8_t bitmap[6][WINDOW_BITS / 8] = { 0 };

	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap))
		return -errno;
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t base = windows[i / 2];
		bool write = i % 2;

		for (uint32_t bit = 0; bit < WINDOW_BITS; bit++)
			if (passes(base + bit, write))
				bitmap[i][bit / 8] |= (uint8_t)(1u << bit % 8);
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ,
			.nmsrs = WINDOW_BITS,
			.base = base,
			.bitmap = bitmap[i],
		};
	}
	return ioctl(vm_fd, KVM_X86_SET_MSR_FILTER, &filter) ? -errno : 0;
}

/* ---- what KVM has ---------------------------------------------------------------------------- */

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[VCPU_MSR_COUNT];
};

static bool is_known(const struct engine_vcpu *vcpu, uint32_t msr)
{
	return vcpu->msr_known >> msr & 1;
}

static int get_one(struct engine_vcpu *vcpu, uint32_t msr)
{
	struct msr_list list = { .head = { .nmsrs = 1 },
				 .entry = { { .index = vcpu_msr_index[msr] } } };
	int got = ioctl(vcpu->fd, KVM_GET_MSRS, &list);

	if (got < 0)
		return -errno;
	if (got == 0)
		return -ENOENT;
	vcpu->msr[msr] = list.entry[0].data;
	return 0;
}

void kvm_msr_find(struct engine_vcpu *vcpu)
{
	_Static_assert(VCPU_MSR_COUNT <= 64, "msr_known has a bit for each");
	vcpu->msr_known = 0;
	vcpu_msr_reset(vcpu->msr);
	for (uint32_t i = 0; i < VCPU_MSR_COUNT; i++)
		if (!get_one(vcpu, i))
			vcpu->msr_known |= 1ull << i;
	vcpu->msr_hot_known = true;
}

static int get_hot(struct engine_vcpu *vcpu)
{
	uint32_t which[VCPU_MSR_COUNT];
	struct msr_list list;

	if (vcpu->msr_hot_known)
		return 0;
	memset(&list, 0, sizeof(list));
	for (uint32_t i = 0; i < VCPU_MSR_COUNT; i++) {
		if (!is_known(vcpu, i) || !is_hot((int)i))
			continue;
		which[list.head.nmsrs] = i;
		list.entry[list.head.nmsrs++].index = vcpu_msr_index[i];
	}
	if (ioctl(vcpu->fd, KVM_GET_MSRS, &list) != (int)list.head.nmsrs)
		return -EIO;
	for (uint32_t i = 0; i < list.head.nmsrs; i++)
		vcpu->msr[which[i]] = list.entry[i].data;
	vcpu->msr_hot_known = true;
	return 0;
}

int kvm_msr_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	int err = get_hot(vcpu);

	for (uint32_t i = 0; !err && i < VCPU_MSR_COUNT; i++)
		state->msr[i] = vcpu_msr_narrow((enum vcpu_msr)i, vcpu->msr[i]);
	return err;
}

/* Writes only what differs: some hosts complain in their log about every access to certain MSRs. */
int kvm_msr_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	uint32_t which[VCPU_MSR_COUNT], changed = 0;
	struct msr_list list = { 0 };
	uint64_t reset[VCPU_MSR_COUNT];
	int done, err = get_hot(vcpu);

	if (err)
		return err;
	vcpu_msr_reset(reset);
	for (uint32_t i = 0; i < VCPU_MSR_COUNT; i++) {
		if (!is_known(vcpu, i) && state->msr[i] != reset[i])
			return -EINVAL;
		if (!is_known(vcpu, i) || vcpu->msr[i] == state->msr[i])
			continue;
		which[changed] = i;
		list.entry[changed++] =
			(struct kvm_msr_entry){ .index = vcpu_msr_index[i], .data = state->msr[i] };
	}
	/* KVM stops at a value that it refuses. That is fine if the value is as after reset. */
	for (uint32_t first = 0; first < changed; first += (uint32_t)done + 1) {
		list.head.nmsrs = changed - first;
		done = ioctl(vcpu->fd, KVM_SET_MSRS, &list);
		if (done < 0)
			return -errno;
		for (uint32_t i = 0; i < (uint32_t)done; i++)
			vcpu->msr[which[first + i]] = list.entry[i].data;
		if ((uint32_t)done == list.head.nmsrs)
			break;
		if (list.entry[done].data != reset[which[first + (uint32_t)done]])
			return -EINVAL;
		memmove(list.entry, list.entry + done + 1,
			(list.head.nmsrs - (uint32_t)done - 1) * sizeof(list.entry[0]));
	}
	return 0;
}

int kvm_msr_tsc_adjust(struct engine_vcpu *vcpu, uint64_t *ret_adjust)
{
	int err = 0;

	*ret_adjust = 0;
	if (!is_known(vcpu, MSR_TSC_ADJUST))
		return 0;
	if (!vcpu->msr_hot_known)
		err = get_one(vcpu, MSR_TSC_ADJUST);
	*ret_adjust = vcpu->msr[MSR_TSC_ADJUST];
	return err;
}

/* ---- exits ----------------------------------------------------------------------------------- */

static bool write_cold(struct engine_vcpu *vcpu, uint32_t msr, uint64_t value)
{
	struct msr_list list = { .head = { .nmsrs = 1 } };
	uint64_t reset[VCPU_MSR_COUNT];

	if (!is_known(vcpu, msr) ||
	    !vcpu_msr_accept((enum vcpu_msr)msr, &vcpu->engine->cpuid, &value))
		return false;
	if (value == vcpu->msr[msr])
		return true;
	list.entry[0] = (struct kvm_msr_entry){ .index = vcpu_msr_index[msr], .data = value };
	if (ioctl(vcpu->fd, KVM_SET_MSRS, &list) == 1) {
		vcpu->msr[msr] = value;
		return true;
	}
	/* As in a load: a host may lack what a register has after reset (HWCR's before Linux 6.7). */
	vcpu_msr_reset(reset);
	return value == reset[msr];
}

bool kvm_msr_faults(struct engine_vcpu *vcpu, uint32_t index, bool write, uint64_t *value)
{
	int msr = vcpu_msr_find(index);

	if (msr >= 0 && write && !is_hot(msr))
		return !write_cold(vcpu, (uint32_t)msr, *value);
	return !vcpu_msr_constant(index, write, value);
}
