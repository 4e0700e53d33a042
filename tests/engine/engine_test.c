/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kvm engine against a real KVM: small guests (guests.S), each test in a VM of its own.
 *
 *   engine-test [--require-all] [--without NAME] [NAME...]
 *
 * Prints a line for each test and ends with "N passed, N failed, N skipped". A test that the KVM at
 * hand cannot run is skipped with its reason; --require-all, which the rack and the emulated Intel
 * host use, makes that a failure. Exit status 0 if nothing failed.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "tests/engine/rig.h"
#include "wire/vcpu_image.h"

#define TEST_SECONDS 60
#define KICKS	     1000
#define KICK_TEST_NS 4000000000ull
#define SKIPPED	     1
#define ops	     engine_kvm

static const char *skip_reason;
static const char *volatile running = "nothing";

static int skip(const char *reason)
{
	skip_reason = reason;
	return SKIPPED;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_ms(unsigned int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

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

/* As a vCPU thread does it: interrupt when it can be taken, else ask for the window. */
static int inject_when_possible(struct rig *rig, bool *pending, uint8_t vector)
{
	if (*pending && ops.vcpu_can_interrupt(rig->vcpu[0])) {
		CHECK(ops.vcpu_interrupt(rig->vcpu[0], vector) == 0, "interrupt");
		CHECK(!ops.vcpu_can_interrupt(rig->vcpu[0]), "one a run");
		*pending = false;
	}
	ops.vcpu_want_window(rig->vcpu[0], *pending);
	return 0;
}

static int test_interrupts(struct rig *rig)
{
	bool pending = false;
	int windows = 0;

	CHECK(rig_start(rig, 0, GUEST(irq), RIG_LONG) == 0, "start");
	rig_set_handler(rig, 0x40, RIG_LOAD + 0x10);
	rig_set_handler(rig, 0x41, RIG_LOAD + 0x20);
	for (;;) {
		CHECK(inject_when_possible(rig, &pending, 0x40) == 0, "inject");
		CHECK(rig_run(rig, 0) == 0, "run");
		if (rig->exit[0].kind == EXIT_HLT)
			break;
		if (rig->exit[0].kind == EXIT_IO && rig->exit[0].io.port == PORT_ASK) {
			CHECK(!ops.vcpu_can_interrupt(rig->vcpu[0]), "IF is clear");
			pending = true;
		}
		windows += rig->exit[0].kind == EXIT_WINDOW;
		CHECK(rig->exit[0].kind == EXIT_IO || rig->exit[0].kind == EXIT_WINDOW, "%s",
		      rig_kind_name(rig->exit[0].kind));
	}
	CHECK(!pending && windows == 100, "%d windows", windows);
	CHECK(rig->out_count == 300, "%u", rig->out_count);
	for (uint32_t i = 0; i < 300; i += 3)
		CHECK(rig->out[i] == 1 && rig->out[i + 1] == 0x40 && rig->out[i + 2] == 2,
		      "round %u: %x %x %x", i / 3, rig->out[i], rig->out[i + 1], rig->out[i + 2]);
	/* Halted with IF set: the interrupt wakes it. */
	pending = true;
	CHECK(inject_when_possible(rig, &pending, 0x41) == 0 && !pending, "inject in HLT");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	CHECK(rig->out_count == 302 && rig->out[300] == 0x41 && rig->out[301] == 3, "woken by it");
	CHECK(!ops.vcpu_can_interrupt(rig->vcpu[0]), "IF is clear");
	CHECK(ops.vcpu_interrupt(rig->vcpu[0], 0x41) == -EBUSY, "refused");
	return 0;
}

static int test_nmi(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(nmi), RIG_LONG) == 0, "start");
	rig_set_handler(rig, 2, RIG_LOAD + 0x10);
	for (int i = 0; i < 2; i++) {
		CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "ask");
		CHECK(ops.vcpu_nmi(rig->vcpu[0]) == 0, "nmi");
	}
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 0xe, 0xf, 0xe, 0xf, 1);
	return 0;
}

static int test_sipi(struct rig *rig)
{
	struct guest guest = GUEST(sipi);
	struct vcpu_state state;

	memcpy(rig->memory + 0x9a000, guest.start, (size_t)(guest.end - guest.start));
	for (uint32_t round = 0; round < 2; round++) {
		CHECK(ops.vcpu_create(rig->engine, 1, &rig->vcpu[1]) == 0, "create");
		CHECK(ops.vcpu_bind(rig->vcpu[1]) == 0, "bind");
		vcpu_state_reset(&state, 1);
		if (round) { /* as an INIT finds it: saved, then initialised */
			CHECK(ops.vcpu_load(rig->vcpu[1], &state) == 0, "load");
			CHECK(ops.vcpu_save(rig->vcpu[1], &state) == 0, "save");
			vcpu_state_init(&state);
		}
		CHECK(vcpu_state_sipi(&state, 0x9a), "waits for SIPI");
		CHECK(ops.vcpu_load(rig->vcpu[1], &state) == 0, "load");
		CHECK(rig_expect(rig, 1, EXIT_HLT) == 0, "hlt");
		CHECK(rig->out_count == round + 1 && rig->out[round] == 0x9a00, "cs");
		/* Parked and taken again. */
		ops.vcpu_destroy(rig->vcpu[1]);
		rig->vcpu[1] = NULL;
	}
	return 0;
}

static int test_triple_fault(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(triple), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_SHUTDOWN) == 0, "shutdown");
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

static int test_cr8(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(cr8), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "ask");
	CHECK(ops.vcpu_tpr(rig->vcpu[0]) == 5, "%u", ops.vcpu_tpr(rig->vcpu[0]));
	ops.vcpu_set_tpr(rig->vcpu[0], 9);
	CHECK(rig_expect(rig, 0, EXIT_KICKED) == 0, "TPR lowered");
	CHECK(ops.vcpu_tpr(rig->vcpu[0]) == 2, "%u", ops.vcpu_tpr(rig->vcpu[0]));
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 9, 0x33);
	return 0;
}

/* Field by field, so that a difference is named. Bytes of unused extended state do not count. */
static int same_state(const struct vcpu_state *a, const struct vcpu_state *b)
{
	uint8_t image[2][VCPU_IMAGE_BYTES_MAX];
	size_t size[2];

	for (int i = 0; i < GPR_COUNT; i++)
		CHECK(a->gpr[i] == b->gpr[i], "gpr %d", i);
	CHECK(a->rip == b->rip && a->rflags == b->rflags, "rip %lx %lx, rflags",
	      (unsigned long)a->rip, (unsigned long)b->rip);
	CHECK(a->cr0 == b->cr0 && a->cr2 == b->cr2 && a->cr3 == b->cr3 && a->cr4 == b->cr4 &&
		      a->cr8 == b->cr8 && a->efer == b->efer && a->xcr0 == b->xcr0,
	      "control registers: %lx %lx %lx %lx, %lx %lx %lx", (unsigned long)b->cr0,
	      (unsigned long)b->cr2, (unsigned long)b->cr3, (unsigned long)b->cr4,
	      (unsigned long)b->cr8, (unsigned long)b->efer, (unsigned long)b->xcr0);
	for (int i = 0; i < 4; i++)
		CHECK(a->dr[i] == b->dr[i], "dr%d", i);
	CHECK(a->dr6 == b->dr6 && a->dr7 == b->dr7, "dr6 %lx, dr7 %lx", (unsigned long)b->dr6,
	      (unsigned long)b->dr7);
	for (int i = 0; i < SEG_COUNT; i++)
		CHECK(!memcmp(&a->segment[i], &b->segment[i], sizeof(a->segment[i])),
		      "segment %d: base %lx limit %x selector %x attributes %x unusable %u", i,
		      (unsigned long)b->segment[i].base, b->segment[i].limit,
		      b->segment[i].selector, b->segment[i].attributes, b->segment[i].unusable);
	for (int i = 0; i < VCPU_MSR_COUNT; i++)
		CHECK(a->msr[i] == b->msr[i], "msr %x: %lx %lx", vcpu_msr_index[i],
		      (unsigned long)a->msr[i], (unsigned long)b->msr[i]);
	CHECK(!memcmp(a->xsave + 512, b->xsave + 512, 8), "XSTATE_BV: %x %x", a->xsave[512],
	      b->xsave[512]);
	for (uint32_t i = 0; i < VCPU_XSAVE_PARTS; i++)
		for (uint32_t k = 0;
		     k < vcpu_xsave_parts[i].size && (a->xsave[512 + i / 8] >> i % 8 & 1); k++) {
			uint32_t at = vcpu_xsave_parts[i].offset + k;

			CHECK(a->xsave[at] == b->xsave[at] || (at >= 28 && at < 32),
			      "xsave part %u, byte %u: %x %x", i, at, a->xsave[at], b->xsave[at]);
		}
	CHECK(vcpu_image_encode(a, image[0], sizeof(image[0]), &size[0]) == 0 &&
		      vcpu_image_encode(b, image[1], sizeof(image[1]), &size[1]) == 0,
	      "encode");
	CHECK(size[0] == size[1] && !memcmp(image[0], image[1], size[0]), "the images differ");
	return 0;
}

/* A state with a distinct value in everything that KVM lets be anything. */
static void fill_state(struct rig *rig, struct vcpu_state *state)
{
	rig_state(rig, 2, RIG_LONG, state);
	for (int i = 0; i < GPR_COUNT; i++)
		state->gpr[i] = 0x1111111111111111ull * (uint64_t)(i + 1) ^ 0xabcdef;
	state->rip = 0xffffffff81000123;
	state->rflags = 0x246;
	state->cr2 = 0xffff888000001000;
	state->cr8 = 3;
	state->cr4 |= 0x80;
	for (int i = 0; i < 4; i++)
		state->dr[i] = 0x1000u + (unsigned int)i;
	state->dr7 = 0x455;
	state->segment[SEG_GS].base = 0xffff88803e000000;
	state->segment[SEG_TR].base = 0xfffffe0000003000;
	state->segment[SEG_TR].limit = 0x206f;
	state->segment[SEG_TR].selector = 0x40;
	state->segment[SEG_TR].attributes = 0x8b;
	state->segment[SEG_LDTR].unusable = 0;
	state->gdt.base = 0xfffffe0000001000;
	state->idt.base = 0xfffffe0000000000;
	state->msr[MSR_STAR] = 0x0023001000000000;
	state->msr[MSR_LSTAR] = 0xffffffff82000080;
	state->msr[MSR_CSTAR] = 0xffffffff82000100;
	state->msr[MSR_SFMASK] = 0x257fd5;
	state->msr[MSR_KERNEL_GS_BASE] = 0x7ffff7d8a740;
	state->msr[MSR_SYSENTER_CS] = 0x10;
	state->msr[MSR_SYSENTER_ESP] = 0xfe003000; /* AMD keeps 32 bits of these two */
	state->msr[MSR_SYSENTER_EIP] = 0x82000200;
	state->msr[MSR_PAT] = 0x0407050600070106;
	state->msr[MSR_MTRR_FIXED] = 0x0606060606060606;
	state->msr[MSR_MTRR_VARIABLE] = 0x80000006;
	state->msr[MSR_MTRR_VARIABLE + 1] = 0xff80000800;
	for (int i = 0; i < 16; i++)
		memset(state->xsave + 160 + 16 * i, 0x10 + i, 16);
	state->xsave[512] = 2;
	if (state->xcr0 & 4) {
		state->xsave[512] = 6;
		for (int i = 0; i < 16; i++)
			memset(state->xsave + 576 + 16 * i, 0x30 + i, 16);
	}
}

static int load_and_save(struct rig *rig, const struct vcpu_state *state)
{
	struct vcpu_state saved;

	memset(&saved, 0xee, sizeof(saved));
	saved.lapic = state->lapic;
	saved.run_state = state->run_state;
	saved.reserved = 0;
	CHECK(ops.vcpu_load(rig->vcpu[2], state) == 0, "load");
	CHECK(ops.vcpu_save(rig->vcpu[2], &saved) == 0, "save");
	if (state->interrupt_shadow && saved.interrupt_shadow) /* AMD has one bit for both kinds */
		saved.interrupt_shadow = state->interrupt_shadow;
	return same_state(state, &saved);
}

static size_t image_size(const struct vcpu_state *state)
{
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	size_t size;

	return vcpu_image_encode(state, image, sizeof(image), &size) ? 0 : size;
}

static int test_state_round_trip(struct rig *rig)
{
	struct vcpu_state state;

	CHECK(ops.vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	CHECK(ops.vcpu_bind(rig->vcpu[2]) == 0, "bind");
	vcpu_state_reset(&state, 2);
	CHECK(load_and_save(rig, &state) == 0, "reset state");
	state.xsave[25] = 0x3f; /* MXCSR alone: rounding */
	CHECK(load_and_save(rig, &state) == 0, "MXCSR");
	fill_state(rig, &state);
	CHECK(load_and_save(rig, &state) == 0, "full state");
	printf("  image with a kernel's values in all registers: %zu bytes\n", image_size(&state));
	state.xsave[512] = state.xsave[513] = 0;
	vcpu_state_trim_extended(&state);
	printf("  the same with integers only: %zu bytes\n", image_size(&state));
	CHECK(image_size(&state) < 700, "two of them do not fit a frame");
	state.interrupt_injected = 1;
	state.interrupt_vector = 0x66;
	CHECK(load_and_save(rig, &state) == 0, "injected interrupt");
	state.interrupt_injected = state.interrupt_vector = 0;
	state.interrupt_shadow = 1;
	CHECK(load_and_save(rig, &state) == 0, "shadow by STI");
	CHECK(!ops.vcpu_can_interrupt(rig->vcpu[2]), "shadow");
	state.interrupt_shadow = 0;
	state.nmi_masked = 1;
	CHECK(load_and_save(rig, &state) == 0, "masked NMI");
	CHECK(ops.vcpu_can_interrupt(rig->vcpu[2]), "interrupts are another matter");
	state.nmi_masked = 0;
	state.exception_injected = 1;
	state.exception_vector = 14;
	state.exception_has_error_code = 1;
	state.exception_error_code = 2;
	CHECK(load_and_save(rig, &state) == 0, "injected exception");
	return 0;
}

static int test_load_refuses(struct rig *rig)
{
	struct vcpu_state state;

	CHECK(ops.vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	fill_state(rig, &state);
	state.rflags = 0;
	CHECK(ops.vcpu_load(rig->vcpu[2], &state) == -EINVAL, "no x86 state");
	fill_state(rig, &state);
	state.xcr0 = CPUID_XCR0_OFFERED;
	CHECK(cpuid_xcr0(&rig->cpuid) == CPUID_XCR0_OFFERED ||
		      ops.vcpu_load(rig->vcpu[2], &state) == -EINVAL,
	      "XCR0 beyond the pod's");
	return 0;
}

/* Moves vCPU 0 of *from into *to by way of its image, and prints the image's size if it has a name.
 */
static int move(struct rig *from, struct rig *to, const char *name)
{
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	struct vcpu_state state, arrived;
	size_t size;
	int err;

	vcpu_state_reset(&state, 0);
	err = ops.vcpu_save(from->vcpu[0], &state);
	CHECK(err == 0, "save: %d", err);
	CHECK(vcpu_image_encode(&state, image, sizeof(image), &size) == 0, "encode");
	CHECK(vcpu_image_decode(image, size, &arrived) == 0, "decode");
	if (name)
		printf("  image of a vCPU that uses %s: %zu bytes\n", name, size);
	ops.vcpu_destroy(from->vcpu[0]);
	from->vcpu[0] = NULL;
	CHECK(ops.vcpu_create(to->engine, 0, &to->vcpu[0]) == 0, "create");
	CHECK(ops.vcpu_bind(to->vcpu[0]) == 0, "bind");
	err = ops.vcpu_load(to->vcpu[0], &arrived);
	CHECK(err == 0, "load: %d", err);
	return 0;
}

/* Runs vCPU 0 until it has said `count` values, or halts. */
static int run_until_said(struct rig *rig, uint32_t count)
{
	while (rig->out_count < count) {
		CHECK(ops.vcpu_run(rig->vcpu[0], &rig->exit[0]) == 0, "run");
		if (rig->exit[0].kind == EXIT_HLT)
			break;
		CHECK(rig->exit[0].kind == EXIT_IO && rig->exit[0].io.port == PORT_OUT, "%s",
		      rig_kind_name(rig->exit[0].kind));
		rig->out[rig->out_count++] = *(const uint32_t *)(const void *)rig->exit[0].io.data;
	}
	return 0;
}

/* The same work undisturbed, and moved between two VMs at every third word it says. */
static int compare_moved(struct rig *rig, struct rig *other, struct guest guest, const char *name)
{
	static uint32_t undisturbed[RIG_OUT_MAX];
	uint32_t count, moves = 0;

	CHECK(rig_start(rig, 0, guest, RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	count = rig->out_count;
	CHECK(count >= 40, "%u", count);
	memcpy(undisturbed, rig->out, sizeof(undisturbed));
	memset(rig->memory, 0, 0x100000);
	rig->out_count = 0;
	CHECK(rig_start(rig, 0, guest, RIG_LONG) == 0, "start");
	for (; rig->exit[0].kind != EXIT_HLT || !moves; moves++) {
		struct rig *here = moves % 2 ? other : rig, *there = moves % 2 ? rig : other;

		here->exit[0].kind = EXIT_KICKED;
		CHECK(run_until_said(here, here->out_count + 3) == 0, "run");
		memcpy(there->out, here->out, sizeof(there->out));
		there->out_count = here->out_count;
		if (here->exit[0].kind == EXIT_HLT)
			break;
		CHECK(move(here, there, moves == 5 ? name : NULL) == 0, "move %u", moves);
	}
	CHECK(moves >= 13, "%u moves", moves);
	CHECK(rig->out_count == count && !memcmp(rig->out, undisturbed, count * sizeof(uint32_t)),
	      "after %u moves it says something else", moves);
	return 0;
}

static int move_test(struct rig *rig, struct guest guest, const char *name)
{
	struct rig other;
	int err = rig_open(&other, rig->memory);

	if (!err)
		err = compare_moved(rig, &other, guest, name);
	rig_close(&other);
	return err;
}

static int test_move_integer(struct rig *rig)
{
	return move_test(rig, GUEST(work), "integers only");
}

static int test_move_sse(struct rig *rig)
{
	return move_test(rig, GUEST(work_sse), "x87 and SSE");
}

static int test_move_avx(struct rig *rig)
{
	if (!(cpuid_xcr0(&rig->cpuid) & 4) || !(cpuid_find(&rig->cpuid, 7, 0)->ebx & (1u << 5)))
		return skip("this host offers no AVX2");
	return move_test(rig, GUEST(work_avx), "AVX");
}

/* Saved with an answered IN that KVM has not finished, and with an interrupt that was not yet
 * delivered. */
static int test_move_in_the_middle(struct rig *rig)
{
	struct rig other;
	int err;

	CHECK(rig_start(rig, 0, GUEST(real), RIG_REAL) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "in");
	rig->exit[0].io.data[0] = 0x41;
	err = rig_open(&other, rig->memory);
	if (!err)
		err = move(rig, &other, NULL);
	if (!err)
		err = rig_expect(&other, 0, EXIT_IO);
	if (!err && (other.out_count != 1 || other.out[0] != 0x42)) {
		printf("  the answer was lost: %u %x\n", other.out_count, other.out[0]);
		err = -1;
	}
	rig_close(&other);
	return err;
}

static int move_with_interrupt(struct rig *rig, struct rig *other)
{
	CHECK(rig_start(rig, 0, GUEST(irq), RIG_LONG) == 0, "start");
	rig_set_handler(rig, 0x40, RIG_LOAD + 0x10);
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "ask");
	ops.vcpu_want_window(rig->vcpu[0], true);
	CHECK(rig_expect(rig, 0, EXIT_WINDOW) == 0, "window");
	CHECK(ops.vcpu_interrupt(rig->vcpu[0], 0x40) == 0, "interrupt");
	CHECK(move(rig, other, NULL) == 0, "move");
	CHECK(!ops.vcpu_can_interrupt(other->vcpu[0]), "one is on its way");
	CHECK(rig_expect(other, 0, EXIT_IO) == 0, "next ask");
	SAID(other, 0x40, 2);
	return 0;
}

static int test_move_with_interrupt(struct rig *rig)
{
	struct rig other;
	int err = rig_open(&other, rig->memory);

	if (!err)
		err = move_with_interrupt(rig, &other);
	rig_close(&other);
	return err;
}

/* A thread that runs a vCPU and counts its EXIT_KICKED. */
struct runner {
	struct rig *rig;
	pthread_t thread;
	_Atomic uint32_t kicks, exits;
	_Atomic int ready, stop;
	enum engine_exit_kind last;
};

static void *run_thread(void *arg)
{
	struct runner *runner = arg;
	struct rig *rig = runner->rig;

	ops.vcpu_bind(rig->vcpu[0]);
	atomic_store(&runner->ready, 1);
	while (!atomic_load(&runner->stop)) {
		if (ops.vcpu_run(rig->vcpu[0], &rig->exit[0]))
			break;
		runner->last = rig->exit[0].kind;
		if (runner->last == EXIT_KICKED)
			atomic_fetch_add(&runner->kicks, 1);
		else if (runner->last != EXIT_IO)
			break;
		atomic_fetch_add(&runner->exits, 1);
	}
	return NULL;
}

static int runner_start(struct runner *runner, struct rig *rig)
{
	memset(runner, 0, sizeof(*runner));
	runner->rig = rig;
	CHECK(pthread_create(&runner->thread, NULL, run_thread, runner) == 0, "thread");
	while (!atomic_load(&runner->ready))
		sched_yield();
	return 0;
}

static void runner_end(struct runner *runner)
{
	atomic_store(&runner->stop, 1);
	ops.vcpu_kick(runner->rig->vcpu[0]);
	pthread_join(runner->thread, NULL);
}

static int wait_for_kick(struct runner *runner, uint32_t before, uint64_t *ret_ns)
{
	uint64_t start = now_ns();

	while (atomic_load(&runner->kicks) == before)
		CHECK(now_ns() - start < 5000000000ull && !sched_yield(), "kick %u was lost",
		      before);
	*ret_ns = now_ns() - start;
	return 0;
}

/* Every kick is followed by an EXIT_KICKED, wherever the runner is: in the guest, leaving, or
 * entering. */
static int kick_guest(struct rig *rig, struct guest guest)
{
	struct runner runner;
	uint64_t ns, worst = 0, sum = 0, end = now_ns() + KICK_TEST_NS;
	int err = 0;
	uint32_t rounds = 0;

	CHECK(rig_start(rig, 0, guest, RIG_LONG) == 0, "start");
	ops.vcpu_kick(rig->vcpu[0]); /* before it ever ran */
	CHECK(rig_expect(rig, 0, EXIT_KICKED) == 0, "kicked before the run");
	CHECK(runner_start(&runner, rig) == 0, "runner");
	for (; !err && rounds < KICKS && now_ns() < end; rounds++) {
		uint32_t before = atomic_load(&runner.kicks);

		for (uint32_t spin = 0; spin < rounds % 97 * 20; spin++)
			_mm_pause();
		ops.vcpu_kick(rig->vcpu[0]);
		err = wait_for_kick(&runner, before, &ns);
		sum += ns;
		worst = ns > worst ? ns : worst;
	}
	runner_end(&runner);
	CHECK(err == 0 && runner.last == EXIT_KICKED, "%s", rig_kind_name(runner.last));
	printf("  kick to exit: mean %lu us, worst %lu us of %u\n",
	       (unsigned long)(sum / rounds / 1000), (unsigned long)(worst / 1000), rounds);
	return 0;
}

static int test_kicks(struct rig *rig)
{
	return kick_guest(rig, GUEST(spin));
}

static int test_kicks_masked(struct rig *rig)
{
	return kick_guest(rig, GUEST(spin_masked));
}

/* Kicks while the guest makes exits of its own: none of those is lost or doubled by a kick. */
static int test_kicks_between_exits(struct rig *rig)
{
	static uint32_t undisturbed[RIG_OUT_MAX];
	uint32_t count, seen = 0;

	CHECK(rig_start(rig, 0, GUEST(work), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	count = rig->out_count;
	memcpy(undisturbed, rig->out, sizeof(undisturbed));
	memset(rig->memory, 0, 0x100000);
	rig->out_count = 0;
	CHECK(rig_start(rig, 0, GUEST(work), RIG_LONG) == 0, "start");
	for (uint32_t i = 0;; i++) {
		if (i % 2)
			ops.vcpu_kick(rig->vcpu[0]);
		CHECK(ops.vcpu_run(rig->vcpu[0], &rig->exit[0]) == 0, "run");
		if (rig->exit[0].kind == EXIT_HLT)
			break;
		if (rig->exit[0].kind == EXIT_KICKED) {
			seen++;
			continue;
		}
		CHECK(rig->exit[0].kind == EXIT_IO, "%s", rig_kind_name(rig->exit[0].kind));
		rig->out[rig->out_count++] = *(const uint32_t *)(const void *)rig->exit[0].io.data;
	}
	CHECK(seen >= count / 2, "%u kicks", seen);
	CHECK(rig->out_count == count && !memcmp(rig->out, undisturbed, count * sizeof(uint32_t)),
	      "work");
	return 0;
}

/* userfaultfd over the page at 2 MiB, or -1. */
static int watch_page(struct rig *rig)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { .start = (uintptr_t)rig->memory + 0x200000,
						    .len = 0x1000 },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int wait_for_fault(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct uffd_msg message;

	CHECK(poll(&poll_fd, 1, 20000) == 1, "no fault");
	CHECK(read(fd, &message, sizeof(message)) == sizeof(message), "read");
	CHECK(message.event == UFFD_EVENT_PAGEFAULT, "event %u", message.event);
	return 0;
}

static int kick_out_of_fault(struct rig *rig, struct runner *runner, int fd)
{
	static uint8_t page[4096] __attribute__((aligned(4096))) = { 0xef, 0xbe, 0xad, 0xde };
	struct uffdio_copy copy = { .dst = (uintptr_t)rig->memory + 0x200000,
				    .src = (uintptr_t)page,
				    .len = 4096 };
	uint64_t ns;

	for (int i = 0; i < 3; i++) {
		uint32_t before = atomic_load(&runner->kicks);

		CHECK(wait_for_fault(fd) == 0, "fault %d", i);
		sleep_ms(20); /* so that it sleeps in the fault */
		CHECK(atomic_load(&runner->kicks) == before, "left by itself");
		ops.vcpu_kick(rig->vcpu[0]);
		CHECK(wait_for_kick(runner, before, &ns) == 0, "kick %d", i);
		printf("  kick out of a fault: %lu us\n", (unsigned long)(ns / 1000));
	}
	CHECK(wait_for_fault(fd) == 0, "the last fault");
	CHECK(ioctl(fd, UFFDIO_COPY, &copy) == 0, "copy: %s", strerrordesc_np(errno));
	return 0;
}

/* A vCPU that waits for a page leaves on a kick (Linux 6.2), waits again when run, and goes on with
 * the page. */
static int test_kick_in_fault(struct rig *rig)
{
	struct runner runner;
	int fd, err;

	if (rig_emulated)
		return skip(
			"this /dev/kvm reads guest memory itself, and such a wait takes no signal");
	CHECK(rig_start(rig, 0, GUEST(touch), RIG_LONG) == 0, "start");
	CHECK(madvise(rig->memory + 0x200000, 4096, MADV_DONTNEED) == 0, "madvise");
	fd = watch_page(rig);
	CHECK(fd >= 0, "userfaultfd: %s", strerrordesc_np(errno));
	err = runner_start(&runner, rig);
	if (!err)
		err = kick_out_of_fault(rig, &runner, fd);
	if (err) { /* whatever happens, let the thread go */
		close(fd);
		runner_end(&runner);
		return err;
	}
	pthread_join(runner.thread, NULL);
	close(fd);
	CHECK(runner.last == EXIT_HLT, "%s", rig_kind_name(runner.last));
	return 0;
}

static int read_guest_tsc(struct rig *rig, uint32_t number, uint64_t *ret_tsc)
{
	struct engine_exit *exit = &rig->exit[number];
	uint32_t half[2] = { 0 };

	for (int i = 0; i < 2; i++) {
		CHECK(ops.vcpu_run(rig->vcpu[number], exit) == 0, "run");
		CHECK(exit->kind == EXIT_IO && exit->io.port == PORT_OUT, "%s",
		      rig_kind_name(exit->kind));
		memcpy(&half[i], exit->io.data, 4);
	}
	*ret_tsc = (uint64_t)half[0] << 32 | half[1];
	return 0;
}

/* The guest's TSC lies between what the host's was before and after, moved by the offset. */
static int check_tsc(struct rig *rig, uint32_t number, uint64_t offset, uint64_t *last)
{
	uint64_t before = __rdtsc(), guest, after;

	CHECK(read_guest_tsc(rig, number, &guest) == 0, "rdtsc");
	after = __rdtsc();
	CHECK(guest - offset >= before && guest - offset <= after, "TSC is %ld off",
	      (long)(guest - offset - before));
	CHECK(guest > *last, "TSC went back by %lu", (unsigned long)(*last - guest));
	*last = guest;
	return 0;
}

static int test_tsc(struct rig *rig)
{
	uint64_t host = __rdtsc(), offset = 1000000 - host, last = 0;
	struct engine_tsc tsc = { .host_tsc = host, .guest_tsc = 1000000 };

	for (uint32_t i = 0; i < 2; i++) {
		CHECK(rig_start(rig, i, GUEST(tsc), RIG_LONG) == 0, "start");
		CHECK(ops.vcpu_set_tsc(rig->vcpu[i], &tsc) == 0, "set");
		sleep_ms(i * 5); /* set later, for the same pair: no matter */
	}
	for (int i = 0; i < 200; i++)
		CHECK(check_tsc(rig, i % 2, offset, &last) == 0, "reading %d", i);
	for (int i = 0; i < 100; i++) { /* corrected forward a little, again and again */
		offset += 1000;
		tsc = (struct engine_tsc){ .host_tsc = 0, .guest_tsc = offset };
		for (uint32_t k = 0; k < 2; k++)
			CHECK(ops.vcpu_set_tsc(rig->vcpu[k], &tsc) == 0, "set");
		CHECK(check_tsc(rig, 0, offset, &last) == 0 &&
			      check_tsc(rig, 1, offset, &last) == 0,
		      "correction %d", i);
	}
	return 0;
}

/* What the guest adds to its TSC stays added when the pod clock is set again. */
static int test_tsc_adjust(struct rig *rig)
{
	struct engine_tsc tsc = { .host_tsc = 0, .guest_tsc = 0 };
	uint64_t last = 0;

	CHECK(rig_start(rig, 0, GUEST(tsc_adjust), RIG_LONG) == 0, "start");
	CHECK(ops.vcpu_set_tsc(rig->vcpu[0], &tsc) == 0, "set");
	CHECK(check_tsc(rig, 0, 1ull << 40, &last) == 0, "adjusted");
	tsc.guest_tsc = 5000;
	CHECK(ops.vcpu_set_tsc(rig->vcpu[0], &tsc) == 0, "set");
	CHECK(check_tsc(rig, 0, (1ull << 40) + 5000, &last) == 0, "adjusted and set");
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

/* What an emulating /dev/kvm cannot do, where a test needs it; such tests run in the rack. */
static const struct {
	const char *name;
	int (*run)(struct rig *rig);
	const char *emulated;
} tests[] = {
	{ "features", test_features, NULL },
	{ "real-mode", test_real_mode, NULL },
	{ "string-io", test_string_io, NULL },
	{ "protected-mode", test_protected_mode, NULL },
	{ "long-mode", test_long_mode, NULL },
	{ "mmio", test_mmio, NULL },
	{ "msr-exits", test_msr_exits, NULL },
	{ "interrupts", test_interrupts, "it never opens an interrupt window" },
	{ "nmi", test_nmi, "it delivers NMIs late" },
	{ "sipi", test_sipi, NULL },
	{ "triple-fault", test_triple_fault, NULL },
	{ "cpuid", test_cpuid, "guests run CPUID on the host's CPU" },
	{ "cr8", test_cr8, "lowering CR8 does not exit" },
	{ "state-round-trip", test_state_round_trip, NULL },
	{ "load-refuses", test_load_refuses, NULL },
	{ "move-integer", test_move_integer, NULL },
	{ "move-sse", test_move_sse, "it does not emulate SSE" },
	{ "move-avx", test_move_avx, "it does not emulate AVX" },
	{ "move-in-the-middle", test_move_in_the_middle, NULL },
	{ "move-with-interrupt", test_move_with_interrupt, "it never opens an interrupt window" },
	{ "kicks", test_kicks, NULL },
	{ "kicks-masked", test_kicks_masked, NULL },
	{ "kicks-between-exits", test_kicks_between_exits, NULL },
	{ "kick-in-fault", test_kick_in_fault,
	  "it reads guest memory itself, and such a wait takes no signal" },
	{ "tsc", test_tsc, "guests see the host's TSC" },
	{ "tsc-adjust", test_tsc_adjust, "guests see the host's TSC" },
};
#define TEST_COUNT (sizeof(tests) / sizeof(tests[0]))

static void on_alarm(int signal_number)
{
	static const char text[] = "FAILED: timed out in ";

	(void)signal_number;
	(void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
	(void)!write(STDOUT_FILENO, running, strlen(running));
	(void)!write(STDOUT_FILENO, "\n", 1);
	_exit(1);
}

static int run_test(size_t i)
{
	static struct rig rig;
	uint64_t start = now_ns();
	int result;

	running = tests[i].name;
	alarm(TEST_SECONDS);
	result = rig_emulated && tests[i].emulated ? SKIPPED : rig_open(&rig, NULL);
	skip_reason = tests[i].emulated;
	if (!result)
		result = tests[i].run(&rig);
	rig_close(&rig);
	alarm(0);
	if (result == SKIPPED)
		printf("skip    %s: %s%s\n", tests[i].name,
		       rig_emulated ? "this /dev/kvm only emulates: " : "", skip_reason);
	else
		printf("%s %s (%lu ms)\n", result ? "FAILED " : "ok     ", tests[i].name,
		       (unsigned long)((now_ns() - start) / 1000000));
	return result;
}

/* By the CPU's flags, as in the engine: svm or vmx. */
static bool cpu_virtualizes(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 2)))
		return true;
	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 5));
}

struct options {
	bool require_all;
	const char *without; /* or NULL */
	char **names;
	int name_count; /* 0: all */
};

static struct options parse_options(int argc, char **argv)
{
	struct options options = { 0 };
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--require-all")) {
			options.require_all = true;
		} else if (!strcmp(argv[i], "--without") && i + 1 < argc) {
			options.without = argv[++i];
		} else {
			printf("usage: engine-test [--require-all] [--without NAME] [NAME...]\n");
			exit(2);
		}
	}
	options.names = argv + i;
	options.name_count = argc - i;
	return options;
}

static bool wanted(const struct options *options, const char *name)
{
	if (options->without && !strcmp(options->without, name))
		return false;
	for (int i = 0; i < options->name_count; i++)
		if (!strcmp(options->names[i], name))
			return true;
	return options->name_count == 0;
}

int main(int argc, char **argv)
{
	struct options options = parse_options(argc, argv);
	int passed = 0, failed = 0, skipped = 0;
	char why[256] = "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, on_alarm);
	running = "probe";
	alarm(TEST_SECONDS);
	if (ops.probe(&rig_features, why, sizeof(why))) {
		printf("FAILED  probe: %s\n0 passed, 1 failed, 0 skipped\n", why);
		return 1;
	}
	rig_emulated = !cpu_virtualizes();
	for (size_t i = 0; i < TEST_COUNT; i++) {
		int result;

		if (!wanted(&options, tests[i].name))
			continue;
		result = run_test(i);
		passed += result == 0;
		skipped += result == SKIPPED;
		failed += result < 0 || (result == SKIPPED && options.require_all);
	}
	printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
	return failed || passed == 0;
}
