// SPDX-License-Identifier: Apache-2.0
/*
 * Placement: gathering and spreading.
 */
#include "tests/test.h"

#include "tests/core/placement_made.h"

static void gathers(void **state)
{
	struct placement *p = make(1, 3, PLACEMENT_BASE, 0);
	struct placement_time idle = { .halted_ns = PLACEMENT_TICK_NS };
	struct placement_advice advice[4];
	uint32_t count = 0;
	uint64_t now_ns = 0;

	placement_placed(p, 0, 1, 0);
	placement_placed(p, 1, 1, 0);
	/* As long as somebody works here, who sleeps stays with him. */
	for (; now_ns < 300 * MS; now_ns += PLACEMENT_TICK_NS) {
		placement_time(p, 0, &idle);
		assert_int_equal(placement_tick(p, now_ns, advice, 4), 0);
	}
	while (count == 0 && now_ns < 600 * MS) {
		now_ns += PLACEMENT_TICK_NS;
		placement_time(p, 0, &idle);
		placement_time(p, 1, &idle);
		count = placement_tick(p, now_ns, advice, 4);
	}
	/* The one that has slept for long, not yet the other. */
	assert_int_equal(count, 1);
	assert_int_equal(advice[0].vcpu, 0);
	assert_int_equal(advice[0].to, 0);
	assert_int_equal(advice[0].why, PLACEMENT_WHY_GATHER);
	assert_in_range(now_ns, 320 * MS, 400 * MS);
	placement_destroy(p);
}

/* The same where the node looks seldom, since nobody there is awake. */
static void gathers_from_a_quiet_node(void **state)
{
	struct placement *p = make(1, 3, PLACEMENT_BASE, 0);
	struct placement_advice advice[4];
	uint32_t count = 0;
	uint64_t now_ns = 0;

	placement_placed(p, 0, 1, 0);
	for (uint32_t i = 0; count == 0 && now_ns < 1000 * MS; i++) {
		struct placement_time idle = { .halted_ns = (i < 8 ? 1 : 12) * PLACEMENT_TICK_NS };

		now_ns += idle.halted_ns;
		idle.now_ns = now_ns;
		placement_time(p, 0, &idle);
		count = placement_tick(p, now_ns, advice, 4);
	}
	assert_int_equal(count, 1);
	assert_int_equal(advice[0].why, PLACEMENT_WHY_GATHER);
	assert_in_range(now_ns, 60 * MS, 250 * MS);
	placement_destroy(p);
}

/*
 * Two work on two cores, and a third wakes up for a moment: nobody is sent away for that. Nor for one
 * that has come asleep. But if he stays awake somebody is, within 100 ms.
 */
static void spreads_for_what_lasts(void **state)
{
	for (int came = 0; came < 2; came++) {
		struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
		struct placement_load load = { .cores = 2, .awake = 2 }, empty = { .cores = 2 };
		struct placement_time idle = { .halted_ns = PLACEMENT_TICK_NS };
		struct placement_advice advice[4];
		uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3, [35] = 240 };
		uint64_t now_ns = 0, awake_ns;
		uint32_t count = 0;

		placement_load(p, 1, &empty);
		placement_placed(p, 1, 0, 0);
		placement_placed(p, 2, 0, 0);
		if (!came)
			placement_placed(p, 0, 0, 0);
		for (; now_ns < 200 * MS; now_ns += PLACEMENT_TICK_NS) {
			placement_load(p, 0, &load);
			if (!came)
				placement_time(p, 0, &idle);
			assert_int_equal(placement_tick(p, now_ns, advice, 4), 0);
		}
		if (came)
			assert_int_equal(placement_arrived(p, 0, 1, now_ns, now_ns, carry), 0);
		load.awake = 3;
		for (awake_ns = now_ns; count == 0 && now_ns < awake_ns + 200 * MS;) {
			now_ns += PLACEMENT_TICK_NS;
			placement_load(p, 0, &load);
			count = placement_tick(p, now_ns, advice, 4);
		}
		assert_int_equal(count, 1);
		assert_int_equal(advice[0].why, PLACEMENT_WHY_SPREAD);
		assert_in_range(now_ns - awake_ns, 20 * MS, 100 * MS);
		placement_destroy(p);
	}
}

static void spreads(void **state)
{
	struct placement *p = make(0, 3, PLACEMENT_BASE, 0);
	struct placement_load crowded = { .cores = 1, .awake = 4 }, empty = { .cores = 2 };
	struct placement_advice advice[8];
	uint32_t moved = 0, to[3] = { 0 };
	uint64_t now_ns = 200 * MS, begin_ns = now_ns;

	for (uint32_t i = 0; i < 4; i++)
		placement_placed(p, i, 0, 0);
	placement_load(p, 1, &empty);
	placement_load(p, 2, &empty);
	while (moved < 3 && now_ns < begin_ns + 200 * MS) {
		uint8_t carry[PLACEMENT_CARRY_BYTES];
		uint32_t count;

		now_ns += PLACEMENT_TICK_NS;
		crowded.awake = (uint16_t)(4 - moved);
		placement_load(p, 0, &crowded);
		count = placement_tick(p, now_ns, advice, 8);
		for (uint32_t i = 0; i < count; i++) {
			assert_int_equal(advice[i].why, PLACEMENT_WHY_SPREAD);
			to[advice[i].to]++;
			assert_int_equal(
				placement_left(p, advice[i].vcpu, advice[i].to, now_ns, carry), 0);
		}
		moved += count;
	}
	/* Three cores elsewhere are for three, and not two for one of them. */
	assert_int_equal(moved, 3);
	assert_true(now_ns - begin_ns <= 100 * MS);
	assert_true(to[1] >= 1 && to[2] >= 1 && to[1] <= 2 && to[2] <= 2);
	placement_destroy(p);
}

/*
 * Of two on one core the one that wants most elsewhere goes, and if he has only just come from there and
 * fetches what he left: it may be known how much that is, but not whether somebody writes it there. Who
 * is at home here stays, but if he wants more.
 */
static void sends_back_who_has_come(void **state)
{
	static const struct {
		uint32_t debt_us, stalls, others, goes;
	} cases[] = {
		{ 20000, 39, 0, 0 }, { 20000, 39, 2, 0 }, { 0, 1, 2, 0 }, { 20000, 1, 15, 1 }
	};

	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
		struct placement_load crowded = { .cores = 1, .awake = 2 }, empty = { .cores = 1 };
		struct placement_advice advice;
		uint64_t now_ns = 200 * MS, tick_ns = now_ns;
		uint32_t count = 0;

		placement_load(p, 1, &empty);
		placement_placed(p, 1, 0, 199 * MS);
		arrive(p, 1, now_ns, 0, cases[c].debt_us);
		for (int i = 0; i < 10 && count == 0; i++) {
			for (uint32_t k = 0; k < cases[c].stalls; k++)
				stall(p, 0, 1, &now_ns, 100000);
			for (uint32_t k = 0; k < cases[c].others; k++)
				stall(p, 1, 1, &now_ns, 10000);
			now_ns = tick_ns += PLACEMENT_TICK_NS;
			placement_load(p, 0, &crowded);
			count = placement_tick(p, now_ns, &advice, 1);
		}
		assert_int_equal(count, 1);
		assert_int_equal(advice.why, PLACEMENT_WHY_SPREAD);
		assert_int_equal(advice.vcpu, cases[c].goes);
		placement_destroy(p);
	}
}

/* Whatever is told, nobody sleeps for more than all of the time: who did counts as awake soon enough. */
static void spreads_after_much_sleep(void **state)
{
	struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
	struct placement_load load = { .cores = 2 }, empty = { .cores = 2 };
	struct placement_advice advice;
	uint64_t now_ns = 0, awake_ns;
	uint32_t count = 0;

	placement_load(p, 1, &empty);
	for (uint32_t i = 0; i < 3; i++)
		placement_placed(p, i, 0, 0);
	for (int turn = 0; turn < 20; turn++) {
		struct placement_time idle = { .halted_ns = 48ull * MS };

		now_ns += idle.halted_ns;
		idle.now_ns = now_ns;
		for (uint32_t i = 0; i < 6; i++)
			placement_time(p, i / 2, &idle);
		placement_load(p, 0, &load);
		assert_int_equal(placement_tick(p, now_ns, &advice, 1), 0);
	}
	load.awake = 3;
	for (awake_ns = now_ns; count == 0 && now_ns < awake_ns + 200ull * MS;) {
		now_ns += PLACEMENT_TICK_NS;
		placement_load(p, 0, &load);
		count = placement_tick(p, now_ns, &advice, 1);
	}
	assert_int_equal(count, 1);
	assert_in_range(now_ns - awake_ns, 20 * MS, 60 * MS);
	placement_destroy(p);
}

/* What has been spread by 1 and comes back, in ms since then: how often that has failed. */
static uint8_t failed_after(uint32_t worked_ms, uint32_t slept_ms)
{
	struct placement *p = make(1, 2, PLACEMENT_BASE, 0);
	struct placement_load load = { .cores = 4 };
	struct placement_advice advice;
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3, [34] = 1 };
	uint64_t now_ns = 1000ull * MS, begin_ns = now_ns, work_ns = worked_ms * (uint64_t)MS;
	uint32_t count = 0;

	assert_int_equal(placement_arrived(p, 0, 0, now_ns - MOVE_NS, now_ns, carry), 0);
	while (count == 0 && now_ns < begin_ns + work_ns + slept_ms * (uint64_t)MS) {
		struct placement_time time = { .halted_ns = now_ns < begin_ns + work_ns
								    ? 0
								    : PLACEMENT_TICK_NS };

		now_ns += PLACEMENT_TICK_NS;
		load.awake = time.halted_ns == 0;
		placement_time(p, 0, &time);
		placement_load(p, 1, &load);
		count = placement_tick(p, now_ns, &advice, 1);
	}
	assert_int_equal(count, slept_ms > 0);
	/* Not so long ago that it would not count. */
	assert_true(now_ns - begin_ns < 200ull * MS);
	assert_int_equal(placement_left(p, 0, 0, now_ns, carry), 0);
	placement_destroy(p);
	return carry[2];
}

/* Who has worked where he was sent was not sent away too soon, why ever he comes back. */
static void who_worked_was_right_to_go(void **state)
{
	assert_int_equal(failed_after(0, 0), 1);
	assert_int_equal(failed_after(40, 0), 0);
	assert_int_equal(failed_after(20, 178), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spreads_for_what_lasts),
		cmocka_unit_test(gathers),
		cmocka_unit_test(spreads),
		cmocka_unit_test(spreads_after_much_sleep),
		cmocka_unit_test(who_worked_was_right_to_go),
		cmocka_unit_test(sends_back_who_has_come),
		cmocka_unit_test(gathers_from_a_quiet_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
