/* SPDX-License-Identifier: Apache-2.0 */
/* What comes to a vCPU from outside: interrupts and their window, NMI, SIPI, TPR; and its shutdown.
 */
#include <errno.h>
#include <string.h>

#include "tests/engine/cases.h"

/* As a vCPU thread does it: interrupt when it can be taken, else ask for the window. */
static int inject_when_possible(struct rig *rig, bool *pending, uint8_t vector)
{
	if (*pending && rig_ops->vcpu_can_interrupt(rig->vcpu[0])) {
		CHECK(rig_ops->vcpu_interrupt(rig->vcpu[0], vector) == 0, "interrupt");
		CHECK(!rig_ops->vcpu_can_interrupt(rig->vcpu[0]), "one a run");
		*pending = false;
	}
	rig_ops->vcpu_want_window(rig->vcpu[0], *pending);
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
			CHECK(!rig_ops->vcpu_can_interrupt(rig->vcpu[0]), "IF is clear");
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
	CHECK(!rig_ops->vcpu_can_interrupt(rig->vcpu[0]), "IF is clear");
	CHECK(rig_ops->vcpu_interrupt(rig->vcpu[0], 0x41) == -EBUSY, "refused");
	return 0;
}

/* An interrupt comes while a device answers, and what it answers ends with a trap: that is first. */
static int test_trap_in_mmio(struct rig *rig)
{
	static const uint32_t said[] = { 1, 2, 0x40, 3 };
	bool pending = false;

	if (!rig_ops->translates) {
		printf("  left out: KVM's emulator has its own order\n");
		return 0;
	}
	CHECK(rig_start(rig, 0, GUEST(trap_mmio), RIG_LONG) == 0, "start");
	rig_set_handler(rig, 1, RIG_LOAD + 0x20);
	rig_set_handler(rig, 0x40, RIG_LOAD + 0x50);
	do {
		CHECK(inject_when_possible(rig, &pending, 0x40) == 0, "inject");
		CHECK(rig_run(rig, 0) == 0, "run");
		if (rig->exit[0].kind == EXIT_MMIO) {
			memset(rig->exit[0].mmio.data, 0, 4);
			pending = true;
		}
	} while (rig->exit[0].kind != EXIT_HLT && rig->exit[0].kind != EXIT_FAILED);
	CHECK(rig->exit[0].kind == EXIT_HLT, "%s", rig_kind_name(rig->exit[0].kind));
	return rig_said(rig, said, 4);
}

static int test_nmi(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(nmi), RIG_LONG) == 0, "start");
	rig_set_handler(rig, 2, RIG_LOAD + 0x10);
	for (int i = 0; i < 2; i++) {
		CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "ask");
		CHECK(rig_ops->vcpu_nmi(rig->vcpu[0]) == 0, "nmi");
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
		CHECK(rig_ops->vcpu_create(rig->engine, 1, &rig->vcpu[1]) == 0, "create");
		CHECK(rig_ops->vcpu_bind(rig->vcpu[1]) == 0, "bind");
		vcpu_state_reset(&state, 1);
		if (round) { /* as an INIT finds it: saved, then initialised */
			CHECK(rig_ops->vcpu_load(rig->vcpu[1], &state) == 0, "load");
			CHECK(rig_ops->vcpu_save(rig->vcpu[1], &state) == 0, "save");
			vcpu_state_init(&state);
		}
		CHECK(vcpu_state_sipi(&state, 0x9a), "waits for SIPI");
		CHECK(rig_ops->vcpu_load(rig->vcpu[1], &state) == 0, "load");
		CHECK(rig_expect(rig, 1, EXIT_HLT) == 0, "hlt");
		CHECK(rig->out_count == round + 1 && rig->out[round] == 0x9a00, "cs");
		/* Parked and taken again. */
		rig_ops->vcpu_destroy(rig->vcpu[1]);
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

static int test_cr8(struct rig *rig)
{
	CHECK(rig_start(rig, 0, GUEST(cr8), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "ask");
	CHECK(rig_ops->vcpu_tpr(rig->vcpu[0]) == 5, "%u", rig_ops->vcpu_tpr(rig->vcpu[0]));
	rig_ops->vcpu_set_tpr(rig->vcpu[0], 9);
	CHECK(rig_expect(rig, 0, EXIT_KICKED) == 0, "TPR lowered");
	CHECK(rig_ops->vcpu_tpr(rig->vcpu[0]) == 2, "%u", rig_ops->vcpu_tpr(rig->vcpu[0]));
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	SAID(rig, 9, 0x33);
	return 0;
}

const struct test_case cases_event[] = {
	{ "interrupts", test_interrupts, "it never opens an interrupt window" },
	{ "trap-in-mmio", test_trap_in_mmio, "KVM's emulator has its own order" },
	{ "nmi", test_nmi, "it delivers NMIs late" },
	{ "sipi", test_sipi, NULL },
	{ "triple-fault", test_triple_fault, NULL },
	{ "cr8", test_cr8, "lowering CR8 does not exit" },
	{ 0 },
};
