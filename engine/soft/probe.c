/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this host run the soft engine, and with what? Every x86-64 host with XSAVE and LAHF can.
 *
 * The guest gets what the host's CPU has up to AVX2, since its instructions are executed by it, and
 * what the engine does itself (SMEP, SMAP, PCID, ...) whether the host has it or not. Promises that
 * only the real CPU could keep (speculation control) are not made.
 */
#include "engine/soft/probe.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define BIT(n) (1u << (n))

#define L1_ECX_PCID    BIT(17)
#define L1_ECX_XSAVE   BIT(26)
#define L1_ECX_OSXSAVE BIT(27)
#define L7_EBX_DONE    (BIT(0) | BIT(1) | BIT(7) | BIT(10) | BIT(20)) /* FSGSBASE .. SMAP */
#define L7_EBX_NOT     (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define L7_ECX_DONE    (BIT(2) | BIT(22)) /* UMIP, RDPID */
#define L7_ECX_VECTORS (BIT(8) | BIT(9) | BIT(10))
#define L7_EDX_KEPT    BIT(4) /* FSRM */
#define XSAVE_KEPT     7u     /* XSAVEOPT, XSAVEC, XGETBV with ECX 1 */
#define X1_ECX_LAHF    BIT(0)
#define X8_EBX_KEPT    BIT(2)
#define XCR0_SOFT      7u
#define MEASURE_NS     20000000ll

static const struct {
	uint32_t function, index;
	bool index_matters;
} wanted[] = {
	{ 0x0, 0, false },	  { 0x1, 0, false },	    { 0x7, 0, true },
	{ 0x7, 1, true },	  { 0xd, 0, true },	    { 0xd, 1, true },
	{ 0xd, 2, true },	  { 0x80000001, 0, false }, { 0x80000002, 0, false },
	{ 0x80000003, 0, false }, { 0x80000004, 0, false }, { 0x80000008, 0, false },
	{ 0x80000021, 0, false },
};
#define WANTED_COUNT (sizeof(wanted) / sizeof(wanted[0]))

static void read_leaf(struct cpuid_leaf *leaf)
{
	uint32_t top = __get_cpuid_max(leaf->function & 0x80000000u, NULL);

	if (leaf->function > top)
		return;
	__cpuid_count(leaf->function, leaf->index, leaf->eax, leaf->ebx, leaf->ecx, leaf->edx);
}

static void restrict_leaf(struct cpuid_leaf *leaf)
{
	switch (leaf->function) {
	case 0x1:
		leaf->ecx |= L1_ECX_PCID;
		break;
	case 0x7:
		if (leaf->index) {
			leaf->eax &= BIT(10) | BIT(11) | BIT(12);
			break;
		}
		leaf->ebx = (leaf->ebx & ~L7_EBX_NOT) | L7_EBX_DONE;
		leaf->ecx = (leaf->ecx & L7_ECX_VECTORS) | L7_ECX_DONE;
		leaf->edx &= L7_EDX_KEPT;
		break;
	case 0xd:
		if (leaf->index == 0)
			leaf->eax &= XCR0_SOFT;
		if (leaf->index == 1)
			leaf->eax &= XSAVE_KEPT;
		break;
	case 0x80000008:
		leaf->ebx &= X8_EBX_KEPT;
		break;
	default:
		break;
	}
}

static int read_offer(struct cpuid_set *ret_offer)
{
	struct cpuid_leaf raw[WANTED_COUNT] = { 0 };

	for (size_t i = 0; i < WANTED_COUNT; i++) {
		raw[i].function = wanted[i].function;
		raw[i].index = wanted[i].index;
		raw[i].index_matters = wanted[i].index_matters;
		read_leaf(&raw[i]);
		restrict_leaf(&raw[i]);
	}
	return cpuid_offer(raw, WANTED_COUNT, true, ret_offer);
}

static uint32_t khz_from_kvm(void)
{
	int khz = 0, device = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu;

	if (device < 0)
		return 0;
	vm = ioctl(device, KVM_CREATE_VM, 0);
	vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu >= 0) {
		khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
		close(vcpu);
	}
	if (vm >= 0)
		close(vm);
	close(device);
	return khz > 0 ? (uint32_t)khz : 0;
}

static int64_t now_ns(uint64_t *ret_tsc)
{
	struct timespec now;

	*ret_tsc = __rdtsc();
	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint32_t khz_measured(void)
{
	uint64_t first, last;
	int64_t start = now_ns(&first), stop;

	do {
		stop = now_ns(&last);
	} while (stop - start < MEASURE_NS);
	return (uint32_t)((last - first) * 1000000u / (uint64_t)(stop - start));
}

uint32_t soft_host_tsc_khz(void)
{
	uint32_t khz = khz_from_kvm();

	return khz ? khz : khz_measured();
}

int soft_probe(struct engine_features *ret_features, char *why, size_t why_size)
{
	uint32_t eax, ebx, ecx = 0, edx;
	int err;

	__get_cpuid(1, &eax, &ebx, &ecx, &edx);
	if (!(ecx & L1_ECX_XSAVE) || !(ecx & L1_ECX_OSXSAVE)) {
		snprintf(why, why_size, "soft: the CPU has no XSAVE: use a host made after 2011");
		return -ENOTSUP;
	}
	ecx = 0;
	__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx);
	if (!(ecx & X1_ECX_LAHF)) {
		snprintf(why, why_size,
			 "soft: the CPU has no LAHF in 64-bit mode: use another host");
		return -ENOTSUP;
	}
	*ret_features = (struct engine_features){ .tsc_deadline = true, .tsc_scaling = true };
	ret_features->tsc_khz = soft_host_tsc_khz();
	err = read_offer(&ret_features->offer);
	if (err)
		snprintf(why, why_size, "soft: the CPU lacks what every x86-64 guest needs");
	return err;
}
