/* SPDX-License-Identifier: Apache-2.0 */
/* How long a vCPU was stalled: one page after another, kicked out of one into another, out of order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pager/stall_time.h"

static void test_one_after_another(void **state)
{
	struct stall_time time = { 0 };

	(void)state;
	assert_int_equal(stall_time_ns(&time, 50), 0);
	stall_time_begin(&time, 100);
	assert_int_equal(stall_time_ns(&time, 130), 30); /* the present one counts */
	stall_time_end(&time, 100, 150);
	assert_int_equal(stall_time_ns(&time, 1000), 50);
	stall_time_begin(&time, 1000);
	stall_time_end(&time, 1000, 1001);
	assert_int_equal(stall_time_ns(&time, 2000), 51);
}

/* Kicked out of a stall, and stalled elsewhere or on the same page again; the first page comes later. */
static void test_replaced(void **state)
{
	struct stall_time time = { 0 };

	(void)state;
	stall_time_begin(&time, 100);
	stall_time_begin(&time, 140);
	stall_time_end(&time, 100, 160); /* nobody waits for it any more */
	assert_int_equal(stall_time_ns(&time, 170), 70);
	stall_time_end(&time, 140, 180);
	assert_int_equal(stall_time_ns(&time, 500), 80);
	stall_time_end(&time, 140, 600); /* once only */
	assert_int_equal(stall_time_ns(&time, 700), 80);
}

static void test_clock_back(void **state)
{
	struct stall_time time = { 0 };

	(void)state;
	stall_time_begin(&time, 100);
	assert_int_equal(stall_time_ns(&time, 90), 0);
	stall_time_end(&time, 100, 90);
	assert_int_equal(stall_time_ns(&time, 200), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_after_another),
		cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_clock_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
