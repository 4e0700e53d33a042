/* SPDX-License-Identifier: Apache-2.0 */
/* State in and out of an engine: round trips, refusals, and vCPUs that move between two VMs. */
#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "tests/engine/cases.h"
#include "wire/vcpu_image.h"

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
	state->dr6 = 0xffff4ff1;
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

#define HYGON_EBX 0x6f677948u /* AMD's CPUs under another name */

/* The host's own, whatever the guest is told. */
static bool host_is_amd(void)
{
	uint32_t eax, ebx, ecx, edx;

	return __get_cpuid(0, &eax, &ebx, &ecx, &edx) &&
	       (ebx == signature_AMD_ebx || ebx == HYGON_EBX);
}

static int load_and_save(struct rig *rig, const struct vcpu_state *state)
{
	struct vcpu_state saved;

	memset(&saved, 0xee, sizeof(saved));
	saved.lapic = state->lapic;
	saved.run_state = state->run_state;
	saved.reserved = 0;
	CHECK(rig_ops->vcpu_load(rig->vcpu[2], state) == 0, "load");
	CHECK(rig_ops->vcpu_save(rig->vcpu[2], &saved) == 0, "save");
	/* AMD's CPUs have one bit for both kinds. */
	if (rig_ops == &engine_kvm && host_is_amd() && state->interrupt_shadow &&
	    saved.interrupt_shadow)
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

	CHECK(rig_ops->vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[2]) == 0, "bind");
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
	CHECK(!rig_ops->vcpu_can_interrupt(rig->vcpu[2]), "shadow");
	state.interrupt_shadow = 2;
	CHECK(load_and_save(rig, &state) == 0, "shadow by MOV SS");
	CHECK(!rig_ops->vcpu_can_interrupt(rig->vcpu[2]), "shadow");
	state.interrupt_shadow = 0;
	state.nmi_masked = 1;
	CHECK(load_and_save(rig, &state) == 0, "masked NMI");
	CHECK(rig_ops->vcpu_can_interrupt(rig->vcpu[2]), "interrupts are another matter");
	state.nmi_pending = 1;
	CHECK(load_and_save(rig, &state) == 0, "an NMI that waits");
	state.nmi_masked = state.nmi_pending = 0;
	state.exception_pending = state.exception_has_payload = 1;
	state.exception_vector = 1;
	state.exception_payload = 0x4000;
	CHECK(load_and_save(rig, &state) == 0, "pending trap");
	CHECK(!rig_ops->vcpu_can_interrupt(rig->vcpu[2]), "the trap goes first");
	state.exception_pending = state.exception_has_payload = 0;
	state.exception_payload = 0;
	state.exception_injected = 1;
	state.exception_vector = 14;
	state.exception_has_error_code = 1;
	state.exception_error_code = 2;
	CHECK(load_and_save(rig, &state) == 0, "injected exception");
	return 0;
}

/* x87's pointers: hosts' kernels have no place for CS, and on CPUs of AMD's forget all of it. */
static int test_x87_round_trip(struct rig *rig)
{
	static const uint8_t x87[32] = {
		0x7f, 0x02, 0x00, 0x38, 0x80, 0, 0xd9, 0x05, /* FCW .. FOP */
		1,    2,    3,	  4,	0,    0, 0,    0,    /* rip */
		5,    6,    7,	  8,	9,    0, 0,    0,    /* operand */
		0x80, 0x1f
	};
	struct vcpu_state state;

	if (rig_ops == &engine_kvm)
		return 0;
	CHECK(rig_ops->vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[2]) == 0, "bind");
	fill_state(rig, &state);
	memcpy(state.xsave, x87, sizeof(x87));
	memset(state.xsave + 32, 0x3f, 10);
	state.xsave[512] |= 1;
	state.x87_cs = 0x1b;
	CHECK(load_and_save(rig, &state) == 0, "64-bit code");
	state.segment[SEG_CS].attributes = 0xc09b;
	CHECK(load_and_save(rig, &state) == 0, "compatibility mode");
	state.efer = 0;
	CHECK(load_and_save(rig, &state) == 0, "protected mode");
	return 0;
}

/*
 * A vCPU that is loaded while a question of its last guest is open, and one that is made anew on the
 * seat of one that was destroyed so: the answer must not end in what is loaded.
 */
static int test_load_while_asked(struct rig *rig)
{
	static const uint8_t asks[] = { 0x0f, 0x32, 0xf4 }; /* rdmsr; hlt */
	static const uint8_t nops[] = { 0x90, 0x90, 0xf4 };
	struct vcpu_state state;

	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	for (int destroyed = 0; destroyed <= 1; destroyed++) {
		rig_state(rig, 0, RIG_LONG, &state);
		memcpy(rig->memory + RIG_LOAD, asks, sizeof(asks));
		state.gpr[GPR_RCX] = 0x802;
		CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
		CHECK(rig_expect(rig, 0, EXIT_MSR_READ) == 0, "rdmsr");
		if (destroyed) {
			rig_ops->vcpu_destroy(rig->vcpu[0]);
			CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "again");
			CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
		}
		memcpy(rig->memory + RIG_LOAD, nops, sizeof(nops));
		state.gpr[GPR_RAX] = 0x123456789abcdef0;
		CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
		CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0, "save");
		CHECK(state.gpr[GPR_RAX] == 0x123456789abcdef0 && state.rip == RIG_LOAD,
		      "rax %lx, rip %lx", (unsigned long)state.gpr[GPR_RAX],
		      (unsigned long)state.rip);
	}
	return 0;
}

#define HELD_HANDLER  0x100
#define OTHER_HANDLER 0x180
#define DR6_B0	      0xffff0ff1u

/*
 * A trap that a load of SS has led to comes behind the instruction that follows. KVM has no place
 * for one that it is given, and says so: then the vCPU stays where it is.
 */
static int test_debug_held(struct rig *rig)
{
	static const uint8_t code[] = { 0x90, 0xf4 }; /* nop; hlt */
	/* mov %db6, %rax; out %eax, $PORT_OUT; pop %rax; out %eax, $PORT_OUT; hlt */
	static const uint8_t handler[] = { 0x0f, 0x21, 0xf0, 0xe7, 0x10, 0x58, 0xe7, 0x10, 0xf4 };
	static const uint8_t iretq[] = { 0x48, 0xcf };
	struct vcpu_state state;

	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	rig_state(rig, 0, RIG_LONG, &state);
	state.interrupt_shadow = 2;
	state.debug_held = 1;
	if (rig_ops == &engine_kvm) {
		CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == -ENOTSUP, "loaded");
		return 0;
	}
	memcpy(rig->memory + RIG_LOAD, code, sizeof(code));
	memcpy(rig->memory + RIG_LOAD + HELD_HANDLER, handler, sizeof(handler));
	rig_set_handler(rig, 1, RIG_LOAD + HELD_HANDLER);
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
	CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0 && state.debug_held == 1, "save");
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load again");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, DR6_B0, RIG_LOAD + 1);
	/* An interrupt or NMI that has been injected before waits for both. */
	memcpy(rig->memory + RIG_LOAD + OTHER_HANDLER, iretq, sizeof(iretq));
	rig_set_handler(rig, 2, RIG_LOAD + OTHER_HANDLER);
	rig_set_handler(rig, 0x40, RIG_LOAD + OTHER_HANDLER);
	for (uint8_t nmi = 0; nmi <= 1; nmi++) {
		state.nmi_injected = nmi;
		state.interrupt_injected = !nmi;
		state.interrupt_vector = nmi ? 0 : 0x40;
		rig->out_count = 0;
		CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
		CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
		SAID(rig, DR6_B0, RIG_LOAD + 1);
	}
	return 0;
}

/* Loaded with a shadow of either kind: the window opens behind the instruction that it covers. */
static int test_shadow_loaded(struct rig *rig)
{
	static const uint8_t code[] = { 0x90, 0x90, 0x90, 0xf4 };
	struct vcpu_state state;

	if (rig_host == RIG_HOST_QEMU)
		return 0; /* its VMRUN forgets the shadow: docs/testing.md */
	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	for (uint8_t shadow = 0; shadow <= 2; shadow++) {
		rig_state(rig, 0, RIG_LONG, &state);
		memcpy(rig->memory + RIG_LOAD, code, sizeof(code));
		state.rflags |= 0x200;
		state.interrupt_shadow = shadow;
		CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
		CHECK(rig_ops->vcpu_can_interrupt(rig->vcpu[0]) == !shadow, "shadow %u", shadow);
		rig_ops->vcpu_want_window(rig->vcpu[0], true);
		CHECK(rig_expect(rig, 0, EXIT_WINDOW) == 0, "window");
		CHECK(rig_ops->vcpu_rip(rig->vcpu[0]) == RIG_LOAD + (shadow != 0),
		      "shadow %u: rip %lx", shadow, (unsigned long)rig_ops->vcpu_rip(rig->vcpu[0]));
		CHECK(rig_ops->vcpu_cr3(rig->vcpu[0]) == state.cr3, "shadow %u: cr3 %lx", shadow,
		      (unsigned long)rig_ops->vcpu_cr3(rig->vcpu[0]));
	}
	return 0;
}

/* AMD's way to have SSBD on CPUs that need a call for it (CPUID 8000_0008h). */
static bool has_virt_spec_ctrl(const struct cpuid_set *cpuid)
{
	const struct cpuid_leaf *leaf = cpuid_find(cpuid, 0x80000008, 0);

	return leaf && leaf->ebx >> 25 & 1;
}

/* Of each register that a move carries, a value that it can have. */
static int test_msr_round_trip(struct rig *rig)
{
	const struct {
		enum vcpu_msr msr;
		uint32_t count;
		uint64_t value;
	} values[] = {
		{ MSR_STAR, 1, 0x0023001000001234 },
		{ MSR_LSTAR, 1, 0xffffffff82000080 },
		{ MSR_CSTAR, 1, 0xffffffff82000100 },
		{ MSR_SFMASK, 1, 0x47700 },
		{ MSR_KERNEL_GS_BASE, 1, 0x7ffff7d8a740 },
		{ MSR_SYSENTER_CS, 1, 0x18 },
		{ MSR_SYSENTER_ESP, 1, 0x76543210 },
		{ MSR_SYSENTER_EIP, 1, 0x65432100 },
		{ MSR_PAT, 1, 0x0407050600070106 },
		{ MSR_TSC_AUX, 1, 0x4321 },
		{ MSR_MISC_ENABLE, 1, 0x1800 },
		{ MSR_MTRR_DEF_TYPE, 1, 0xc06 },
		{ MSR_TSC_ADJUST, 1, 0x10000000000 },
		{ MSR_MTRR_FIXED, 11, 0x0606060604040404 },
		{ MSR_MTRR_VARIABLE, 16, 0xfff000000 }, /* base or mask */
		{ MSR_SPEC_CTRL, 1, cpuid_spec_ctrl(&rig->cpuid) },
		{ MSR_VIRT_SPEC_CTRL, 1, has_virt_spec_ctrl(&rig->cpuid) ? 4 : 0 },
		{ MSR_XSS, 1, 0 }, /* nothing else is offered to anybody */
		{ MSR_MISC_FEATURES, 1, 0 },
	};
	struct vcpu_state state;

	CHECK(rig_ops->vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[2]) == 0, "bind");
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		for (uint32_t n = 0; n < values[i].count; n++) {
			uint32_t msr = (uint32_t)values[i].msr + n;

			rig_state(rig, 2, RIG_LONG, &state);
			state.msr[msr] = values[i].value;
			CHECK(load_and_save(rig, &state) == 0, "MSR %x", vcpu_msr_index[msr]);
		}
	return 0;
}

#define XSAVE_MXCSR 24
#define MXCSR_MM    (1u << 17) /* AMD's alone: misaligned operands do not fault */

/* An image from a CPU of AMD's: one that has not got the bit refuses it, and does not die of it. */
static int test_foreign_mxcsr(struct rig *rig)
{
	_Alignas(16) uint8_t own[512] = { 0 };
	const uint32_t mxcsr = 0x1f80 | MXCSR_MM;
	uint32_t mask;
	struct vcpu_state state;

	__asm__ volatile("fxsave64 %0" : "=m"(own));
	memcpy(&mask, own + XSAVE_MXCSR + 4, sizeof(mask));
	CHECK(rig_ops->vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[2]) == 0, "bind");
	fill_state(rig, &state);
	memcpy(state.xsave + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
	if (mask & MXCSR_MM)
		return load_and_save(rig, &state);
	CHECK(rig_ops->vcpu_load(rig->vcpu[2], &state) != 0, "loaded, with a mask of %x", mask);
	return 0;
}

static int test_load_refuses(struct rig *rig)
{
	struct vcpu_state state;

	CHECK(rig_ops->vcpu_create(rig->engine, 2, &rig->vcpu[2]) == 0, "create");
	fill_state(rig, &state);
	state.rflags = 0;
	CHECK(rig_ops->vcpu_load(rig->vcpu[2], &state) == -EINVAL, "no x86 state");
	fill_state(rig, &state);
	state.xcr0 = CPUID_XCR0_OFFERED;
	CHECK(cpuid_xcr0(&rig->cpuid) == CPUID_XCR0_OFFERED ||
		      rig_ops->vcpu_load(rig->vcpu[2], &state) == -EINVAL,
	      "XCR0 beyond the pod's");
	fill_state(rig, &state);
	CHECK(rig_ops->vcpu_load(rig->vcpu[2], &state) == 0, "as it was");
	state.cr4 |= 1 << 12; /* 57-bit addresses: offered to nobody */
	CHECK(rig_ops->vcpu_load(rig->vcpu[2], &state) != 0, "CR4 beyond the pod's");
	fill_state(rig, &state);
	state.efer |= 1 << 15; /* TCE */
	CHECK(strcmp(rig_ops->name, "soft") != 0 || rig_ops->vcpu_load(rig->vcpu[2], &state) != 0,
	      "EFER beyond the pod's");
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
	err = rig_ops->vcpu_save(from->vcpu[0], &state);
	CHECK(err == 0, "save: %d", err);
	CHECK(vcpu_image_encode(&state, image, sizeof(image), &size) == 0, "encode");
	CHECK(vcpu_image_decode(image, size, &arrived) == 0, "decode");
	if (name)
		printf("  image of a vCPU that uses %s: %zu bytes\n", name, size);
	rig_ops->vcpu_destroy(from->vcpu[0]);
	from->vcpu[0] = NULL;
	CHECK(rig_ops->vcpu_create(to->engine, 0, &to->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(to->vcpu[0]) == 0, "bind");
	err = rig_ops->vcpu_load(to->vcpu[0], &arrived);
	CHECK(err == 0, "load: %d", err);
	return 0;
}

/* Runs vCPU 0 until it has said `count` values, or halts. */
static int run_until_said(struct rig *rig, uint32_t count)
{
	while (rig->out_count < count) {
		CHECK(rig_ops->vcpu_run(rig->vcpu[0], &rig->exit[0]) == 0, "run");
		if (rig->exit[0].kind == EXIT_HLT)
			break;
		CHECK(rig->exit[0].kind == EXIT_IO && rig->exit[0].io.port == PORT_OUT, "%s",
		      rig_kind_name(rig->exit[0].kind));
		memcpy(&rig->out[rig->out_count++], rig->exit[0].io.data, 4);
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

#define PAE_TABLES 0x30000u /* four entries, which lead to the page after them */
#define PAE_VALUE  0x5000u

static void put64(struct rig *rig, uint32_t gpa, uint64_t value)
{
	memcpy(rig->memory + gpa, &value, sizeof(value));
}

/* The first and the third GiB lead to the same memory. */
static void pae_state(struct rig *rig, struct vcpu_state *state)
{
	const struct guest guest = GUEST(pae);

	memcpy(rig->memory + RIG_LOAD, guest.start, (size_t)(guest.end - guest.start));
	rig_state(rig, 0, RIG_LONG, state);
	state->segment[SEG_CS].attributes = 0xc09b;
	state->efer = 0;
	state->cr0 = 0x80000033;
	state->cr3 = PAE_TABLES;
	put64(rig, PAE_TABLES, (PAE_TABLES + 0x1000) | 1);
	put64(rig, PAE_TABLES + 16, (PAE_TABLES + 0x1000) | 1);
	put64(rig, PAE_TABLES + 0x1000, 0x83);
	put64(rig, PAE_VALUE, 0x12345678);
}

static int pae_says(struct rig *rig, uint32_t count)
{
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "ask");
	CHECK(rig->out_count == count && rig->out[count - 1] == 0x12345678, "%u words, %x",
	      rig->out_count, rig->out[count - 1]);
	return 0;
}

/*
 * PAE's four entries: KVM keeps copies, soft reads them at each walk. Neither is to take the
 * other's word for it, copies that are old or none.
 */
static int test_move_pae(struct rig *rig)
{
	struct vcpu_state state;

	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	pae_state(rig, &state);
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load without copies");
	CHECK(pae_says(rig, 1) == 0, "without copies");
	CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0, "save");
	CHECK(state.pdptr_valid == (rig_ops == &engine_kvm), "%u", state.pdptr_valid);
	state.pdptr[0] = state.pdptr[2] = (PAE_TABLES + 0x1000) | 1;
	state.pdptr[1] = state.pdptr[3] = 0;
	state.pdptr_valid = 1; /* as KVM has saved it */
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load with copies");
	CHECK(pae_says(rig, 2) == 0, "with copies");
	CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0, "save");
	CHECK(state.pdptr_valid == (rig_ops == &engine_kvm), "%u", state.pdptr_valid);
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
		return skip(rig, "this host offers no AVX2");
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
	rig_ops->vcpu_want_window(rig->vcpu[0], true);
	CHECK(rig_expect(rig, 0, EXIT_WINDOW) == 0, "window");
	CHECK(rig_ops->vcpu_interrupt(rig->vcpu[0], 0x40) == 0, "interrupt");
	CHECK(move(rig, other, NULL) == 0, "move");
	CHECK(!rig_ops->vcpu_can_interrupt(other->vcpu[0]), "one is on its way");
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

/* The linker's --wrap: all calls into the kernel of this program's own code. */
int __wrap_ioctl(int fd, unsigned long request, void *arg);
int __real_ioctl(int fd, unsigned long request, void *arg);
static uint32_t ioctl_count;

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	ioctl_count++;
	return __real_ioctl(fd, request, arg);
}

#define SAVE_CALLS_MAX 5 /* the last exit's end, XSAVE, XCR0, MSRs, debug registers */
#define LOAD_CALLS_MAX 6 /* XSAVE, XCR0, MSRs if any differ, debug registers, an entry; the TSC */

/* What a move costs in calls into the kernel, with a guest that has changed what guests change. */
static int test_calls(struct rig *rig)
{
	static const struct tsc_line line = { .ratio = TSC_RATIO_ONE };
	struct vcpu_state state;
	uint32_t save, load;

	CHECK(rig_start(rig, 0, GUEST(work), RIG_LONG) == 0, "start");
	for (int i = 0; i < 3; i++) {
		CHECK(rig_ops->vcpu_run(rig->vcpu[0], &rig->exit[0]) == 0, "run");
		vcpu_state_reset(&state, 0);
		ioctl_count = 0;
		CHECK(rig_ops->vcpu_save(rig->vcpu[0], &state) == 0, "save");
		save = ioctl_count;
		state.msr[MSR_KERNEL_GS_BASE]++;
		ioctl_count = 0;
		CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
		CHECK(rig_ops->vcpu_set_tsc(rig->vcpu[0], &line) == 0, "TSC");
		load = ioctl_count;
	}
	printf("  calls into the kernel: %u for a save, %u for a load\n", save, load);
	CHECK(save <= SAVE_CALLS_MAX && load <= LOAD_CALLS_MAX, "more than it takes");
	return 0;
}

const struct test_case cases_state[] = {
	{ "state-round-trip", test_state_round_trip, NULL },
	{ "msr-round-trip", test_msr_round_trip, NULL },
	{ "x87-round-trip", test_x87_round_trip, NULL },
	{ "load-while-asked", test_load_while_asked, NULL },
	{ "debug-held", test_debug_held, NULL },
	{ "shadow-loaded", test_shadow_loaded, "it never opens an interrupt window" },
	{ "calls", test_calls, NULL },
	{ "load-refuses", test_load_refuses, NULL },
	{ "foreign-mxcsr", test_foreign_mxcsr, NULL },
	{ "move-pae", test_move_pae, "it does not know PAE" },
	{ "move-integer", test_move_integer, NULL },
	{ "move-sse", test_move_sse, "it does not emulate SSE" },
	{ "move-avx", test_move_avx, "it does not emulate AVX" },
	{ "move-in-the-middle", test_move_in_the_middle, NULL },
	{ "move-with-interrupt", test_move_with_interrupt, "it never opens an interrupt window" },
	{ 0 },
};
