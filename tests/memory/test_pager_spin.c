/* SPDX-License-Identifier: Apache-2.0 */
/* The adaptive spin: it comes on when gaps are short, goes off when they are long or others need
 * the core. */
#include "tests/test.h"

#include "pager/spin.h"

#define BOUND 50000u

static struct pager_spinner warm(void)
{
	struct pager_spinner spinner;

	spinner_init(&spinner, PAGER_SPIN_AUTO, BOUND, 4);
	assert_int_equal(spinner_budget_ns(&spinner), 0);
	for (int i = 0; i < 32; i++)
		spinner_gap(&spinner, 70000, true); /* 10 us and a wake-up */
	assert_int_equal(spinner_budget_ns(&spinner), BOUND);
	return spinner;
}

static void short_gaps_turn_it_on_while_asleep(void **state)
{
	warm();
}

static void long_gaps_turn_it_off(void **state)
{
	struct pager_spinner spinner = warm();

	for (int i = 0; i < 64; i++)
		spinner_gap(&spinner, 1000000, true);
	assert_int_equal(spinner_budget_ns(&spinner), 0);
}

static void a_gap_is_judged_by_how_it_ended(void **state)
{
	struct pager_spinner spinner = warm();

	for (int i = 0; i < 64; i++)
		spinner_gap(&spinner, 70000, false);
	assert_int_equal(spinner_budget_ns(&spinner), 0);
}

static void jumps_turn_it_off_fast(void **state)
{
	struct pager_spinner spinner = warm();
	int jumps = 0;

	assert_false(spinner_jump(&spinner, 2000));
	while (spinner_budget_ns(&spinner) > 0) {
		assert_true(spinner_jump(&spinner, 3000000));
		assert_true(++jumps <= 3);
	}
}

static void the_user_decides(void **state)
{
	struct pager_spinner spinner;

	spinner_init(&spinner, PAGER_SPIN_OFF, BOUND, 4);
	for (int i = 0; i < 64; i++)
		spinner_gap(&spinner, 1000, false);
	assert_int_equal(spinner_budget_ns(&spinner), 0);
	spinner_init(&spinner, PAGER_SPIN_ON, BOUND, 1);
	assert_false(spinner_jump(&spinner, 3000000));
	assert_true(spinner_budget_ns(&spinner) == UINT64_MAX);
	spinner_init(&spinner, PAGER_SPIN_AUTO, BOUND, 1);
	for (int i = 0; i < 64; i++)
		spinner_gap(&spinner, 1000, false);
	assert_int_equal(spinner_budget_ns(&spinner), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_gaps_turn_it_on_while_asleep),
		cmocka_unit_test(long_gaps_turn_it_off),
		cmocka_unit_test(a_gap_is_judged_by_how_it_ended),
		cmocka_unit_test(jumps_turn_it_off_fast),
		cmocka_unit_test(the_user_decides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
