/* SPDX-License-Identifier: Apache-2.0 */
/* Reset, INIT, SIPI and the check of foreign states (SDM vol. 3, 9.1 and 9.4). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/msr.h"
#include "vcpu/vcpu_state.h"

static struct vcpu_state state, other;

static void test_reset(void **unused)
{
	const char *why = NULL;

	(void)unused;
	for (uint32_t number = 0; number < 3; number++) {
		memset(&state, 0xaa, sizeof(state));
		vcpu_state_reset(&state, number);
		assert_int_equal(vcpu_state_check(&state, &why), 0);
		assert_int_equal(state.segment[SEG_CS].base + state.rip, 0xfffffff0);
		assert_int_equal(state.lapic.id, number);
		assert_int_equal(state.lapic.bsp, number == 0);
		assert_int_equal(state.run_state, number == 0 ? VCPU_RUNNABLE : VCPU_WAIT_FOR_SIPI);
		assert_int_equal(state.msr[MSR_PAT], 0x0007040600070406ull);
	}
}

/* What a CPU with 57 bits of address lets a guest put there, one with 48 does not. */
static void test_narrow(void **unused)
{
	static const enum vcpu_msr addresses[] = { MSR_LSTAR, MSR_CSTAR, MSR_KERNEL_GS_BASE,
						   MSR_SYSENTER_ESP, MSR_SYSENTER_EIP };
	static const uint64_t values[][2] = {
		{ 0x00ff900000001000, 0xffff900000001000 },
		{ 0xff00000000001000, 0x0000000000001000 },
		{ 0xffffffff81000000, 0xffffffff81000000 },
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		for (size_t n = 0; n < sizeof(values) / sizeof(values[0]); n++)
			assert_int_equal(vcpu_msr_narrow(addresses[i], values[n][0]), values[n][1]);
	assert_int_equal(vcpu_msr_narrow(MSR_PAT, values[0][0]), values[0][0]);
}

static void test_init_keeps_msrs(void **unused)
{
	(void)unused;
	vcpu_state_reset(&state, 3);
	assert_true(vcpu_state_sipi(&state, 0x9a));
	state.cr0 = 0x80050033;
	state.cr3 = 0x1000;
	state.cr4 = 0x20;
	state.efer = 0xd01;
	state.gpr[GPR_RSP] = 1;
	state.msr[MSR_LSTAR] = 0xffffffff81000000ull;
	state.xsave[600] = 7;
	state.interrupt_injected = 1;
	vcpu_state_init(&state);
	assert_int_equal(state.cr0, 0x10);
	assert_int_equal(state.efer, 0);
	assert_int_equal(state.gpr[GPR_RSP], 0);
	assert_int_equal(state.interrupt_injected, 0);
	assert_int_equal(state.msr[MSR_LSTAR], 0xffffffff81000000ull);
	assert_int_equal(state.xsave[600], 7);
	assert_int_equal(state.run_state, VCPU_WAIT_FOR_SIPI);
	assert_int_equal(state.lapic.id, 3);
}

static void test_sipi(void **unused)
{
	(void)unused;
	vcpu_state_reset(&state, 1);
	assert_true(vcpu_state_sipi(&state, 0x9a));
	assert_int_equal(state.segment[SEG_CS].base, 0x9a000);
	assert_int_equal(state.segment[SEG_CS].selector, 0x9a00);
	assert_int_equal(state.rip, 0);
	assert_int_equal(state.run_state, VCPU_RUNNABLE);
	other = state;
	assert_false(vcpu_state_sipi(&state, 0x10)); /* the second SIPI is ignored */
	assert_memory_equal(&state, &other, sizeof(state));
}

#define REFUSED(change)                                                                            \
	do {                                                                                       \
		const char *why = NULL;                                                            \
		vcpu_state_reset(&state, 0);                                                       \
		change;                                                                            \
		assert_int_equal(vcpu_state_check(&state, &why), -EINVAL);                         \
		assert_non_null(why);                                                              \
	} while (0)

static void test_check_refuses(void **unused)
{
	(void)unused;
	REFUSED(state.rflags = 0);
	REFUSED(state.rflags |= 1u << 3);
	REFUSED(state.cr0 = 1ull << 31);
	REFUSED(state.cr0 = 1ull << 29);
	REFUSED(state.cr0 |= 1ull << 40);
	REFUSED(state.efer = 1 << 10);
	REFUSED((state.cr0 = 0x80000011, state.efer = 1 << 8));
	REFUSED((state.cr0 = 0x80000011, state.efer = 0x500));
	REFUSED(state.rflags |= 1u << 17);
	REFUSED((state.cr0 = 0x80000011, state.cr4 = 0x20, state.efer = 0x500,
		 state.rflags |= 1u << 17));
	REFUSED(state.cr8 = 16);
	REFUSED(state.dr7 = 1ull << 32);
	REFUSED(state.xcr0 = 2);
	REFUSED(state.xcr0 = 5);
	REFUSED(state.xcr0 = 0x27);
	REFUSED(state.xcr0 = 1 << 18 | 7);
	REFUSED(state.xsave[512] = 8);
	REFUSED(state.xsave[520] = 1);
	REFUSED(state.xsave[26] = 1);
	REFUSED(state.exception_vector = 32);
	REFUSED(state.exception_pending = 2);
	REFUSED((state.exception_pending = 1, state.exception_injected = 1));
	REFUSED(state.run_state = 3);
	REFUSED(state.nmi_pending = 3);
	REFUSED(state.interrupt_shadow = 4);
	REFUSED(state.debug_held = 1);
	REFUSED((state.debug_held = 1, state.interrupt_shadow = 1));
	REFUSED((state.debug_held = 0x10, state.interrupt_shadow = 2));
	REFUSED(state.segment[SEG_TR].attributes |= 0x100);
	REFUSED(state.lapic.enabled = 0);
}

/* The parts lie one after the other, inside the area, and the MSR list has no hole and no double.
 */
static void test_tables(void **unused)
{
	uint32_t end = 0;

	(void)unused;
	for (uint32_t i = 0; i < VCPU_XSAVE_PARTS; i++) {
		if (!vcpu_xsave_parts[i].size)
			continue;
		assert_true(vcpu_xsave_parts[i].offset >= end);
		end = vcpu_xsave_parts[i].offset + vcpu_xsave_parts[i].size;
	}
	assert_true(end <= VCPU_XSAVE_BYTES);
	for (uint32_t i = 0; i < VCPU_MSR_COUNT; i++) {
		assert_int_not_equal(vcpu_msr_index[i], 0);
		for (uint32_t j = 0; j < i; j++)
			assert_int_not_equal(vcpu_msr_index[i], vcpu_msr_index[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset),  cmocka_unit_test(test_init_keeps_msrs),
		cmocka_unit_test(test_sipi),   cmocka_unit_test(test_check_refuses),
		cmocka_unit_test(test_tables), cmocka_unit_test(test_narrow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
