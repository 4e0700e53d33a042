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

/* Stalled for 50 ms so far, and 20 ms on a core. */
#define STALLED (50 * MS)
#define CORE	(20 * MS)

static struct timer_pace make(void)
{
	struct timer_pace pace;
	struct timer_pace_times times = { START, STALLED, CORE };

	timer_pace_restart(&pace, &times);
	return pace;
}

/* With a core for all the time that it was not stalled. */
static uint64_t wait_at(const struct timer_pace *pace, uint64_t deadline_ns, uint64_t now_ns,
			uint64_t stalled_ns)
{
	struct timer_pace_times times = { now_ns, stalled_ns, CORE + now_ns - START };

	return timer_pace_wait(pace, deadline_ns, &times);
}

static void test_no_stall_no_wait(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	assert_int_equal(wait_at(&pace, START, START, STALLED), 0);
	assert_int_equal(wait_at(&pace, START + 4 * MS, START + 4 * MS, STALLED), 0);
	/* Half and half is still in time. */
	assert_int_equal(wait_at(&pace, START + 4 * MS, START + 4 * MS, STALLED + 2 * MS), 0);
}

/* A vCPU that gets a quarter of a core and has no stalls: its tick comes in time, every time. */
static void test_busy_core(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	for (uint64_t tick = 1; tick <= 100; tick++) {
		struct timer_pace_times times = { START + 4 * MS * tick + 3 * MS, STALLED,
						  CORE + MS * tick };

		assert_int_equal(timer_pace_wait(&pace, START + 4 * MS * tick, &times), 0);
		timer_pace_restart(&pace, &times);
	}
}

/*
 * Behind each stall it waits for a core of a busy host, for longer than it was stalled: that is not to
 * run, or a tick that stalls is over when the next one is due, for ever.
 */
static void test_no_core_is_not_to_run(void **state)
{
	struct timer_pace pace = make();
	struct timer_pace_times times = { START + 30 * MS, STALLED + 10 * MS, CORE + MS };

	(void)state;
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, &times), 9 * MS);
	times.core_ns = CORE + 10 * MS;
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, &times), 0);
	/* Never for long. */
	times = (struct timer_pace_times){ START + 4 * MS + TIMER_PACE_LATE_NS, STALLED + 10 * MS,
					   CORE };
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, &times), 0);
}

static void test_stalled_runs_first(void **state)
{
	struct timer_pace pace = make();

	(void)state;
	/* 1 ms of 4 ran: 3 were stalls, so 2 more to run. */
	assert_int_equal(wait_at(&pace, START + 4 * MS, START + 4 * MS, STALLED + 3 * MS), 2 * MS);
	assert_int_equal(wait_at(&pace, START + 4 * MS, START + 6 * MS, STALLED + 3 * MS), 0);
	/* The bound of what it has to run. */
	assert_int_equal(wait_at(&pace, START + 200 * MS, START + 200 * MS, STALLED + 199 * MS),
			 TIMER_PACE_RUN_NS - MS);
	assert_int_equal(wait_at(&pace, START + 200 * MS, START + 200 * MS,
				 STALLED + 200 * MS - TIMER_PACE_RUN_NS),
			 0);
}

static void test_never_too_late(void **state)
{
	struct timer_pace pace = make();
	uint64_t deadline = START + 4 * MS, late = deadline + TIMER_PACE_LATE_NS;
	uint64_t stalled = STALLED + late - START;

	(void)state;
	assert_int_equal(wait_at(&pace, deadline, late, stalled), 0);
	assert_int_equal(wait_at(&pace, deadline, late - MS, stalled), MS);
}

static void test_clocks_that_step_back(void **state)
{
	struct timer_pace pace = make();
	struct timer_pace_times times = { START + 4 * MS, STALLED + MS, CORE - MS };

	(void)state;
	assert_int_equal(wait_at(&pace, START - MS, START - MS, STALLED - MS), 0);
	assert_int_equal(wait_at(&pace, START + MS, START - MS, STALLED - 10 * MS), 0);
	assert_int_equal(timer_pace_wait(&pace, START + 4 * MS, &times), MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_stall_no_wait),
		cmocka_unit_test(test_busy_core),
		cmocka_unit_test(test_no_core_is_not_to_run),
		cmocka_unit_test(test_stalled_runs_first),
		cmocka_unit_test(test_never_too_late),
		cmocka_unit_test(test_clocks_that_step_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
