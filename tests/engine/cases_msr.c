/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which model-specific registers a guest finds, against what vcpu/msr.h says, on every engine: what
 * a guest can put somewhere and a move does not carry would be lost.
 */
#include <string.h>

#include "tests/engine/cases.h"
#include "vcpu/msr.h"

#define HANDLER 0x100 /* guests.S, rdmsrs and wrmsr */

struct answers {
	uint32_t count, moved, derived, constant, callers;
};

/* One that was read. */
static int judge(uint32_t index, uint64_t value, struct answers *answers)
{
	uint64_t constant;

	answers->count++;
	if (vcpu_msr_find(index) >= 0) {
		answers->moved++;
	} else if (vcpu_msr_is_derived(index)) {
		answers->derived++;
	} else {
		CHECK(vcpu_msr_constant(index, false, &constant),
		      "MSR %x can be read (%lx), and is in no list", index, (unsigned long)value);
		CHECK(value == constant, "MSR %x is %lx, not %lx", index, (unsigned long)value,
		      (unsigned long)constant);
		answers->constant++;
	}
	return 0;
}

static int load(struct rig *rig, struct guest guest, uint32_t first, uint32_t count)
{
	struct vcpu_state state;

	memcpy(rig->memory + RIG_LOAD, guest.start, (size_t)(guest.end - guest.start));
	rig_state(rig, 0, RIG_LONG, &state);
	rig_set_handler(rig, 13, RIG_LOAD + HANDLER);
	state.gpr[GPR_RCX] = first;
	state.gpr[GPR_RBX] = count;
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
	return 0;
}

/* The guest says index, low and high half of each that does not fault. */
static int read_range(struct rig *rig, uint32_t first, uint32_t count, struct answers *answers)
{
	struct engine_exit *exit = &rig->exit[0];
	uint32_t word[3], words = 0;

	CHECK(load(rig, GUEST(rdmsrs), first, count) == 0, "load");
	for (;;) {
		CHECK(rig_ops->vcpu_run(rig->vcpu[0], exit) == 0, "run");
		if (exit->kind == EXIT_HLT)
			return 0;
		if (exit->kind == EXIT_MSR_READ) {
			CHECK(vcpu_msr_is_callers(exit->msr.index), "MSR %x", exit->msr.index);
			exit->msr.fault = 1;
			answers->callers++;
			continue;
		}
		CHECK(exit->kind == EXIT_IO && exit->io.port == PORT_OUT, "%s",
		      rig_kind_name(exit->kind));
		memcpy(&word[words++], exit->io.data, 4);
		if (words < 3)
			continue;
		words = 0;
		if (judge(word[0], (uint64_t)word[2] << 32 | word[1], answers))
			return -1;
	}
}

static int test_msrs(struct rig *rig)
{
	/* The architecture's, KVM's and Hyper-V's for guests, AMD's. */
	static const struct {
		uint32_t first, count;
	} ranges[] = {
		{ 0, 0x1000 },	       { 0x40000000, 0x120 }, { 0x4b564d00, 0x10 },
		{ 0xc0000000, 0x320 }, { 0xc0010000, 0x300 }, { 0xc0011000, 0x100 },
	};
	struct answers answers = { 0 };

	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (read_range(rig, ranges[i].first, ranges[i].count, &answers))
			return -1;
	printf("  %u can be read: %u are moved, %u follow, %u are constant; %u are the caller's\n",
	       answers.count, answers.moved, answers.derived, answers.constant, answers.callers);
	CHECK(answers.derived == 4 && answers.constant >= 10 && answers.moved >= 40, "too few");
	return 0;
}

/* The guest writes what is wanted into the one, unless that faults, and says what is in it then. */
static int write_one(struct rig *rig, uint32_t index, uint64_t value, uint64_t *ret_value)
{
	struct vcpu_state state;

	CHECK(load(rig, GUEST(wrmsr), index, 0) == 0, "load");
	rig_state(rig, 0, RIG_LONG, &state);
	CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0, "save");
	state.gpr[GPR_RSI] = (uint32_t)value;
	state.gpr[GPR_RDI] = value >> 32;
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
	rig->out_count = 0;
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	CHECK(rig->out_count == 2, "MSR %x: it said %u words", index, rig->out_count);
	*ret_value = (uint64_t)rig->out[1] << 32 | rig->out[0];
	return 0;
}

/*
 * KVM on AMD's CPUs has no limit for SFMASK. QEMU's WRMSR, which KVM lets a guest use on the others,
 * takes any address, and 64 bits where CPUs of AMD's have 32.
 */
static bool host_takes_it(int msr, uint64_t value)
{
	bool canonical = (uint64_t)((int64_t)(value << 16) >> 16) == value;

	if (msr == MSR_SFMASK && rig_ops == &engine_kvm)
		return value >> 32;
	if (rig_host != RIG_HOST_QEMU)
		return false;
	if (msr == MSR_SYSENTER_ESP || msr == MSR_SYSENTER_EIP)
		return value >> 32;
	return (msr == MSR_LSTAR || msr == MSR_CSTAR || msr == MSR_KERNEL_GS_BASE) && !canonical;
}

/* Can the guest read it, with this CPUID? Of those that not all of the hosts have. */
static bool is_found(const struct rig *rig, int msr)
{
	const struct cpuid_leaf *ssbd = cpuid_find(&rig->cpuid, 0x80000008, 0);
	const struct cpuid_leaf *xsaves = cpuid_find(&rig->cpuid, 0xd, 1);

	switch (msr) {
	case MSR_SPEC_CTRL:
		return cpuid_spec_ctrl(&rig->cpuid);
	case MSR_VIRT_SPEC_CTRL:
		return ssbd && ssbd->ebx >> 25 & 1;
	case MSR_XSS: /* soft has one, which has nothing in it */
		return rig_ops == &engine_soft || (xsaves && xsaves->eax >> 3 & 1);
	default:
		return true;
	}
}

/*
 * Whatever a guest writes to one that moves, what is in it then can be saved and loaded, in any
 * engine; and a constant is one.
 */
static int test_msr_writes(struct rig *rig)
{
	static const uint64_t values[] = {
		0,
		1,
		0x06,
		0x800,
		0xc06,
		0xfff,
		1ull << 24,
		0xfff000800,
		0x0606060606060606,
		0x0101010103010101,
		UINT64_MAX,
		1ull << 45,
	};
	static const uint32_t constant[] = { 0x8b, 0xfe, 0xc0010010, 0xc0011029 };
	struct vcpu_state state;
	uint64_t value, fixed;

	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	for (int i = 0; i < VCPU_MSR_COUNT; i++) {
		/* The TSC's, and those that the host has not got: a write faults. */
		if (i == MSR_TSC_AUX || i == MSR_TSC_ADJUST || i == MSR_MISC_ENABLE ||
		    !is_found(rig, i))
			continue;
		for (size_t n = 0; n < sizeof(values) / sizeof(values[0]); n++) {
			if (host_takes_it(i, values[n]))
				continue;
			CHECK(write_one(rig, vcpu_msr_index[i], values[n], &value) == 0, "MSR %x",
			      vcpu_msr_index[i]);
			rig_state(rig, 0, RIG_LONG, &state);
			CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0, "save");
			if (rig_ops == &engine_kvm) /* on a CPU with 57 bits of address */
				value = vcpu_msr_narrow((enum vcpu_msr)i, value);
			CHECK(state.msr[i] == value, "MSR %x: %lx is saved as %lx",
			      vcpu_msr_index[i], (unsigned long)value, (unsigned long)state.msr[i]);
			fixed = value;
			CHECK(vcpu_msr_accept((enum vcpu_msr)i, &rig->cpuid, &fixed) &&
				      fixed == value,
			      "MSR %x: no engine may have %lx in it", vcpu_msr_index[i],
			      (unsigned long)value);
			CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "MSR %x: load of %lx",
			      vcpu_msr_index[i], (unsigned long)value);
		}
	}
	for (size_t i = 0; i < sizeof(constant) / sizeof(constant[0]); i++) {
		CHECK(vcpu_msr_constant(constant[i], false, &fixed), "MSR %x", constant[i]);
		CHECK(write_one(rig, constant[i], ~fixed, &value) == 0, "MSR %x", constant[i]);
		CHECK(value == fixed, "MSR %x: %lx", constant[i], (unsigned long)value);
	}
	return 0;
}

/*
 * What some CPU refuses, soft refuses as well: a vCPU that had it could never go to a node on kvm.
 * SPEC_CTRL is offered here with IBRS and SSBD and without STIBP, whatever the host has.
 */
static int test_msr_refused(struct rig *rig)
{
	static const struct {
		enum vcpu_msr msr;
		uint64_t taken, refused;
	} cases[] = {
		{ MSR_SFMASK, 0x47700, 0x100047700 }, { MSR_SFMASK, 0xffffffff, UINT64_MAX },
		{ MSR_SPEC_CTRL, 0x1, 0x2 },	      { MSR_SPEC_CTRL, 0x5, 0x7 },
		{ MSR_SPEC_CTRL, 0x4, 0x80 },	      { MSR_SPEC_CTRL, 0x5, 1ull << 45 },
		{ MSR_VIRT_SPEC_CTRL, 0x4, 0x1 },     { MSR_VIRT_SPEC_CTRL, 0x4, 1ull << 32 },
	};
	const struct cpuid_set offer = rig_features.offer;
	struct vcpu_state state;
	uint64_t value;

	if (rig_ops != &engine_soft)
		return 0;
	for (uint32_t i = 0; i < rig_features.offer.count; i++) {
		struct cpuid_leaf *leaf = &rig_features.offer.leaf[i];

		if (leaf->function == 7 && leaf->index == 0)
			leaf->edx = (leaf->edx & ~(1u << 27)) | 1u << 26 | 1u << 31;
		if (leaf->function == 0x80000008)
			leaf->ebx = (leaf->ebx & ~(1u << 15)) | 1u << 25;
	}
	rig_close(rig);
	CHECK(rig_open(rig, NULL) == 0, "open");
	rig_features.offer = offer;
	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t index = vcpu_msr_index[cases[i].msr];

		CHECK(write_one(rig, index, cases[i].taken, &value) == 0, "MSR %x", index);
		CHECK(value == cases[i].taken, "MSR %x: %lx is not taken", index,
		      (unsigned long)cases[i].taken);
		rig_state(rig, 0, RIG_LONG, &state);
		CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0 &&
			      state.msr[cases[i].msr] == value &&
			      rig_ops->vcpu_load(rig->vcpu[0], &state) == 0,
		      "MSR %x: %lx does not move", index, (unsigned long)value);
		CHECK(write_one(rig, index, cases[i].refused, &value) == 0, "MSR %x", index);
		CHECK(value != cases[i].refused, "MSR %x takes %lx", index, (unsigned long)value);
	}
	return 0;
}

const struct test_case cases_msr[] = {
	{ "msrs", test_msrs, NULL },
	{ "msr-writes", test_msr_writes, NULL },
	{ "msr-refused", test_msr_refused, NULL },
	{ 0 },
};
