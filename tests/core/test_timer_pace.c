// SPDX-License-Identifier: Apache-2.0
/* Timer interrupts wait for a vCPU that was stalled, and never for long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/timer_pace.h"

#define MS    1000000ull
#define START (1000 * MS)

/* Stalled for 50 ms so far. */
static struct timer_pace make(void)
{
	struct timer_pace pace;

	timer_pace_restart(&pace, START, 50 * MS);
	return pace;
}

static void test_no_stall_no_wait(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	assert_int_equal(timer_pace_wait(&pace, START, START, 50 * MS), 0);
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, START + 4 * MS, 50 * MS), 0);
	/* Half and half is still in time. */
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, START + 4 * MS, 52 * MS), 0);
}

/* A vCPU that gets a quarter of a core and has no stalls: its tick comes in time, every time. */
static void test_busy_core(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	for (uint64_t tick = 1; tick <= 100; tick++) {
		uint64_t deadline = START + 4 * MS * tick, now = deadline + 3 * MS;

		assert_int_equal(timer_pace_wait(&pace, deadline, now, 50 * MS), 0);
		timer_pace_restart(&pace, now, 50 * MS);
	}
}

static void test_stalled_runs_first(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	/* 1 ms of 4 ran: 3 were stalls, so 2 more to run. */
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, START + 4 * MS, 53 * MS), 2 * MS);
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, START + 6 * MS, 53 * MS), 0);
	/* The bound of what it has to run. */
	assert_int_equal(timer_pace_wait(&pace, START + 200 * MS, START + 200 * MS, 249 * MS),
			 TIMER_PACE_RUN_NS - MS);
	assert_int_equal(timer_pace_wait(&pace, START + 200 * MS, START + 200 * MS,
					 250 * MS - TIMER_PACE_RUN_NS),
			 0);
}

static void test_never_too_late(void **state)
{
	struct timer_pace pace = make();
	uint64_t deadline = START + 4 * MS, late = deadline + TIMER_PACE_LATE_NS;

	(void)state;
	assert_int_equal(timer_pace_wait(&pace, deadline, late, 50 * MS + (late - START)), 0);
	assert_int_equal(timer_pace_wait(&pace, deadline, late - MS, 50 * MS + (late - START)), MS);
}

static void test_clocks_that_step_back(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	assert_int_equal(timer_pace_wait(&pace, START - MS, START - MS, 49 * MS), 0);
	assert_int_equal(timer_pace_wait(&pace, START + MS, START - MS, 40 * MS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_stall_no_wait),      cmocka_unit_test(test_busy_core),
		cmocka_unit_test(test_stalled_runs_first),    cmocka_unit_test(test_never_too_late),
		cmocka_unit_test(test_clocks_that_step_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
