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
#include <stdio.h>

#include "engine/tsc_rate.h"

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
#define X1_ECX_NOT     (BIT(11) | BIT(16) | BIT(21)) /* XOP, FMA4, TBM: encodings of their own */
#define X1_EDX_NOT     BIT(25)			     /* FFXSR: the host executes FXSAVE in ring 3 */
#define X8_EBX_KEPT    BIT(2)
#define XCR0_SOFT      7u

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
			leaf->eax &= BIT(4) | BIT(10) | BIT(11) | BIT(12); /* AVX-VNNI */
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
	case 0x80000001:
		leaf->ecx &= ~X1_ECX_NOT;
		leaf->edx &= ~X1_EDX_NOT;
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

int soft_probe(struct engine_features *ret_features, char *why, size_t why_size)
{
	uint32_t eax, ebx, ecx = 0, edx;
	struct tsc_rate rate;
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
	err = tsc_rate_measure(0, &rate, why, why_size);
	if (err)
		return err;
	*ret_features = (struct engine_features){ .tsc_deadline = true,
						  .tsc_scaling = true,
						  .tsc_khz = rate.khz,
						  .tsc_source = rate.source };
	err = read_offer(&ret_features->offer);
	if (err)
		snprintf(why, why_size, "soft: the CPU lacks what every x86-64 guest needs");
	return err;
}
