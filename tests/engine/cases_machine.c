/* SPDX-License-Identifier: Apache-2.0 */
/* Modes, port and memory-mapped I/O, MSR exits and CPUID: what every guest needs first. */
#include <string.h>

#include "tests/engine/cases.h"

static int test_real_mode(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(real), RIG_REAL) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "in");
	CHECK(rig->exit[0].io.port == PORT_IN && rig->exit[0].io.size == 1 &&
		      !rig->exit[0].io.write && rig->exit[0].io.count == 1,
	      "in %%al");
	rig->exit[0].io.data[0] = 0x41;
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "in");
	CHECK(rig->exit[0].io.size == 4, "in %%eax");
	memcpy(rig->exit[0].io.data, "\x01\x02\x03\x04", 4);
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 0x2345, 0x42, ~0x04030201u);
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "goes on after hlt");
	SAID(rig, 0x2345, 0x42, ~0x04030201u, 0x77);
	return 0;
}

static int test_string_io(struct rig *rig)
{
	static const uint16_t input[] = { 0x1111, 0x2222, 0x3333 };
	uint32_t given = 0;

	CHECK(rig_start(rig, 0, GUEST(strings), RIG_REAL) == 0, "start");
	for (;;) {
		CHECK(rig_run(rig, 0) == 0, "run");
		if (rig->exit[0].kind != EXIT_IO)
			break;
		CHECK(!rig->exit[0].io.write && rig->exit[0].io.size == 2, "insw");
		CHECK(given + rig->exit[0].io.count <= 3, "too many");
		memcpy(rig->exit[0].io.data, &input[given], rig->exit[0].io.count * 2);
		given += rig->exit[0].io.count;
	}
	CHECK(rig->exit[0].kind == EXIT_HLT, "%s", rig_kind_name(rig->exit[0].kind));
	SAID(rig, 'e', 'a', 'g', 'r', 'e', 0x1111, 0x2222, 0x3333);
	return 0;
}

/* QEMU's x87 has no pointers. */
static int test_x87_real_mode(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(x87_real), RIG_REAL) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	if (rig_host == RIG_HOST_QEMU)
		return 0;
	SAID(rig, 0x1234, 0x4321, 0x1234, 0x9567, 0x4321, 0xa000, 0x9567, 0xa000, 0x10123);
	return 0;
}

static int test_protected_mode(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(protected), RIG_REAL) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 0x12345678, 0x80000);
	return 0;
}

static int test_long_mode(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(long), RIG_REAL) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 0x9abcdef0, 0x12345678);
	return 0;
}

static int expect_mmio(struct rig *rig, uint64_t gpa, uint8_t size, bool write, uint64_t value)
{
	struct engine_exit *exit = &rig->exit[0];
	uint64_t got = 0;

	CHECK(rig_expect(rig, 0, EXIT_MMIO) == 0, "mmio");
	CHECK(exit->mmio.gpa == gpa && exit->mmio.size == size && exit->mmio.write == write,
	      "%s of %u bytes at %lx", exit->mmio.write ? "write" : "read", exit->mmio.size,
	      (unsigned long)exit->mmio.gpa);
	if (write) {
		memcpy(&got, exit->mmio.data, size);
		CHECK(got == value, "%lx", (unsigned long)got);
	} else {
		memcpy(exit->mmio.data, &value, size);
	}
	return 0;
}

static int test_mmio(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(mmio), RIG_LONG) == 0, "start");
	CHECK(expect_mmio(rig, 0xfed00000, 4, true, 0x11223344) == 0, "movl");
	CHECK(expect_mmio(rig, 0xfed00008, 8, false, 0x8877665544332211) == 0, "mov");
	CHECK(expect_mmio(rig, 0xfed00003, 1, true, 0x55) == 0, "movb");
	CHECK(expect_mmio(rig, 0xfed00006, 2, false, 0xbeef) == 0, "movzwl");
	CHECK(expect_mmio(rig, 0xfed00010, 8, true, 0x0102030405060708) == 0, "mov");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 0x44332211, 0x88776655, 0xbeef);
	return 0;
}

static int expect_msr(struct rig *rig, enum engine_exit_kind kind, uint32_t index)
{
	CHECK(rig_expect(rig, 0, kind) == 0, "msr %x", index);
	CHECK(rig->exit[0].msr.index == index, "msr %x, not %x", rig->exit[0].msr.index, index);
	return 0;
}

static int test_msr_exits(struct rig *rig)
{
	struct engine_exit *exit = &rig->exit[0];

	CHECK(rig_start(rig, 0, GUEST(msr), RIG_LONG) == 0, "start");
	rig_set_handler(rig, 13, RIG_LOAD + 0x10);
	CHECK(expect_msr(rig, EXIT_MSR_READ, 0x802) == 0, "id");
	exit->msr.value = 0x700000005;
	CHECK(expect_msr(rig, EXIT_MSR_WRITE, 0x830) == 0, "icr");
	CHECK(exit->msr.value == 0x7000c4500, "%lx", (unsigned long)exit->msr.value);
	CHECK(expect_msr(rig, EXIT_MSR_READ, 0x1b) == 0, "base");
	exit->msr.value = 0xfee00d00;
	CHECK(expect_msr(rig, EXIT_MSR_WRITE, 0x1b) == 0, "base");
	CHECK(expect_msr(rig, EXIT_MSR_WRITE, 0x8fe) == 0, "no such register");
	exit->msr.fault = 1;
	CHECK(expect_msr(rig, EXIT_MSR_READ, 0x8ff) == 0, "no such register");
	exit->msr.fault = 1;
	CHECK(rig_run(rig, 0) == 0, "deadline");
	if (rig_features.tsc_deadline) {
		CHECK(exit->kind == EXIT_MSR_WRITE && exit->msr.index == 0x6e0 &&
			      exit->msr.value == 0x100001234,
		      "deadline: %s", rig_kind_name(exit->kind));
		CHECK(rig_run(rig, 0) == 0, "hlt");
	}
	CHECK(exit->kind == EXIT_HLT, "%s", rig_kind_name(exit->kind));
	/* 0xdead is nobody's, then two that the test refused. */
	SAID(rig, 5, 7, 0xfee00d00, 0xbad, 0xbad, 0xbad);
	return 0;
}

static int test_cpuid(struct rig *rig)
{
	static const uint32_t leaves[][2] = { { 0, 0 },		 { 1, 0 },
					      { 7, 0 },		 { 0xb, 0 },
					      { 0xb, 1 },	 { 0x40000000, 0 },
					      { 0x40000001, 0 }, { 0x80000001, 0 },
					      { 0x80000008, 0 } };
	struct cpuid_set meant;

	CHECK(rig_start(rig, 3, GUEST(cpuid), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 3, EXIT_IO) == 0, "leaf");
	cpuid_for_vcpu(&rig->cpuid, 3, &meant);
	for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		const struct cpuid_leaf *leaf = cpuid_find(&meant, leaves[i][0], leaves[i][1]);
		uint32_t dynamic = leaves[i][0] == 1 ? 1u << 27 : leaves[i][0] == 7 ? 1u << 4 : 0;

		rig->out_count = 0;
		memcpy(rig->exit[3].io.data, &leaves[i][0], 4);
		CHECK(rig_expect(rig, 3, EXIT_IO) == 0, "index");
		memcpy(rig->exit[3].io.data, &leaves[i][1], 4);
		CHECK(rig_expect(rig, 3, EXIT_IO) == 0, "next leaf");
		CHECK(leaf, "leaf %x", leaves[i][0]);
		CHECK(rig->out_count == 4 && rig->out[0] == leaf->eax && rig->out[1] == leaf->ebx &&
			      ((rig->out[2] ^ leaf->ecx) & ~dynamic) == 0 &&
			      rig->out[3] == leaf->edx,
		      "leaf %x: %x %x %x %x", leaves[i][0], rig->out[0], rig->out[1], rig->out[2],
		      rig->out[3]);
	}
	return 0;
}

static int test_features(struct rig *rig)
{
	CHECK(rig_features.tsc_khz > 1000, "%u kHz", rig_features.tsc_khz);
	CHECK(cpuid_has_tsc_deadline(&rig_features.offer) == rig_features.tsc_deadline, "deadline");
	printf("  TSC deadline exits: %s, TSC scaling: %s, %u kHz, page walks write: %s%s%s\n",
	       rig_features.tsc_deadline ? "yes" : "no", rig_features.tsc_scaling ? "yes" : "no",
	       rig_features.tsc_khz, rig_features.walks_write ? "yes" : "no",
	       rig_features.advice ? "; " : "", rig_features.advice ? rig_features.advice : "");
	(void)rig;
	return 0;
}

const struct test_case cases_machine[] = {
	{ "features", test_features, NULL },
	{ "real-mode", test_real_mode, NULL },
	{ "string-io", test_string_io, NULL },
	{ "x87-real-mode", test_x87_real_mode, "it does not emulate x87" },
	{ "protected-mode", test_protected_mode, NULL },
	{ "long-mode", test_long_mode, NULL },
	{ "mmio", test_mmio, NULL },
	{ "msr-exits", test_msr_exits, NULL },
	{ "cpuid", test_cpuid, "guests run CPUID on the host's CPU" },
	{ 0 },
};
