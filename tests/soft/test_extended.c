/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run leaves in the host's registers: the control words that C expects, and no upper half in
 * use, or every SSE instruction of the C library pays.
 */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/soft/cpu/extended.h"
#include "engine/soft/cpu/host.h"

#define IN_USE_AVX 4u

/* XGETBV(1): the parts of XCR0 in use (SDM vol. 1, 13.1). */
static bool tells_use(void)
{
	uint32_t eax, ebx, ecx, edx;

	return soft_host_has_avx() && __get_cpuid_count(0xd, 1, &eax, &ebx, &ecx, &edx) &&
	       (eax & 4);
}

static uint32_t in_use(void)
{
	uint32_t eax, edx;

	__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(1));
	return eax;
}

static void test_reset(void **state)
{
	static const uint32_t guest_mxcsr = 0x7fbf;
	static const uint16_t guest_fcw = 0x0c00;
	uint32_t mxcsr, before = IN_USE_AVX, after = 0;
	uint16_t fcw;
	bool tells = tells_use();

	(void)state;
	__asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(guest_mxcsr), "m"(guest_fcw));
	if (tells) {
		__asm__ volatile("vcmptrueps %%ymm0, %%ymm0, %%ymm0" : : : "xmm0");
		before = in_use();
	}
	soft_fpu_reset();
	if (tells)
		after = in_use();
	__asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(fcw));
	assert_int_equal(mxcsr, 0x1f80);
	assert_int_equal(fcw, 0x37f);
	assert_true(before & IN_USE_AVX);
	assert_false(after & IN_USE_AVX);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_reset) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
