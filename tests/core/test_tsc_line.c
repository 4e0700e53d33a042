/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's TSC as a line: arithmetic, how it is bent, how it is stepped. Whole nodes that follow
 * a pod clock are in tests/node/test_node_clock.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/tsc_line.h"

#define KHZ	 2500000u
#define MS_TICKS (KHZ * 1ull)

static const struct tsc_steering steering = { .guest_khz = KHZ, .fine_ns = 200 };

static void test_ratio(void **state)
{
	(void)state;
	assert_int_equal(tsc_ratio(KHZ, KHZ), TSC_RATIO_ONE);
	assert_int_equal(tsc_ratio(2 * KHZ, KHZ), 2 * TSC_RATIO_ONE);
	for (int64_t ppb = -500000; ppb <= 500000; ppb += 7919) {
		uint64_t ratio = tsc_ratio_change(tsc_ratio(3400001, 2100003), ppb);

		assert_in_range(tsc_ratio_ppb(tsc_ratio(3400001, 2100003), ratio) + 1000000,
				ppb + 1000000 - 1, ppb + 1000000 + 1);
	}
}

/* A host TSC just before the line's point is just before it, not 2^64 behind. */
static void test_before_the_point(void **state)
{
	struct tsc_line line = { .host_tsc = 1ull << 40, .guest_tsc = 1000 };
	uint64_t ratios[] = { TSC_RATIO_ONE, tsc_ratio(KHZ + 1000, KHZ), tsc_ratio(KHZ, 2 * KHZ) };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		line.ratio = ratios[i];
		assert_int_equal(tsc_line_at(&line, line.host_tsc), 1000);
		assert_in_range(tsc_line_at(&line, line.host_tsc - 100), 1000 - 101, 1000 - 50);
		for (uint64_t h = line.host_tsc - 1000; h < line.host_tsc + 1000; h++)
			assert_true((int64_t)(tsc_line_at(&line, h + 1) - tsc_line_at(&line, h)) >=
				    0);
		/* A year of ticks each way. */
		assert_true((int64_t)tsc_line_at(&line, line.host_tsc - (1ull << 56)) < 0);
		assert_true((int64_t)tsc_line_at(&line, line.host_tsc + (1ull << 56)) > 0);
	}
}

static void test_fine_as_it_is(void **state)
{
	struct tsc_line line = { .ratio = TSC_RATIO_ONE }, aim = line;
	uint64_t ratio;
	int64_t ahead;

	(void)state;
	aim.host_tsc = 1000 * MS_TICKS;
	aim.guest_tsc = aim.host_tsc + KHZ * 150 / 1000000;
	assert_false(tsc_line_steer(&line, &aim, &steering, &ratio, &ahead));
	assert_in_range(ahead, 149, 150);
}

/* Bent by little, and never broken. */
static void test_bent(void **state)
{
	struct tsc_line line = { .ratio = TSC_RATIO_ONE }, aim = line;
	int64_t ahead, last = INT64_MAX;
	uint64_t ratio;

	(void)state;
	aim.ratio = tsc_ratio_change(TSC_RATIO_ONE, 200000);
	for (int i = 0; i < 1500; i++) {
		uint64_t before;

		aim.host_tsc += 20 * MS_TICKS;
		/* What it should have been all the time, 30 us further on from 200 ms on. */
		aim.guest_tsc = aim.host_tsc + aim.host_tsc / 5000 + (i > 10 ? 30 * KHZ / 1000 : 0);
		before = tsc_line_at(&line, aim.host_tsc);
		if (!tsc_line_steer(&line, &aim, &steering, &ratio, &ahead))
			continue;
		assert_true(tsc_ratio_ppb(line.ratio, ratio) <= TSC_LINE_CHANGE_PPB);
		assert_true(tsc_ratio_ppb(line.ratio, ratio) >= -TSC_LINE_CHANGE_PPB);
		tsc_line_turn(&line, &aim, &steering, ratio, ratio);
		assert_int_equal(tsc_line_at(&line, aim.host_tsc), before);
		last = ahead;
	}
	assert_in_range(last + 1000, 0, 2000);
	assert_in_range(tsc_ratio_ppb(TSC_RATIO_ONE, line.ratio), 199500, 200500);
}

/* An engine that cannot: small steps forward, as often as needed, and none back. */
static void test_stepped(void **state)
{
	struct tsc_line line = { .ratio = TSC_RATIO_ONE }, aim = line;
	uint64_t ratio, again_ns = 1000000;
	int64_t ahead = 0, worst = 0;

	(void)state;
	aim.ratio = tsc_ratio_change(TSC_RATIO_ONE, 20000);
	for (int i = 0; i < 20000; i++) {
		uint64_t before;

		aim.host_tsc += again_ns * KHZ / 1000000;
		aim.guest_tsc = aim.host_tsc + aim.host_tsc / 50000;
		before = tsc_line_at(&line, aim.host_tsc);
		again_ns = 1000000;
		if (tsc_line_steer(&line, &aim, &steering, &ratio, &ahead))
			again_ns = tsc_line_turn(&line, &aim, &steering, ratio, TSC_RATIO_ONE);
		assert_true(line.ratio == TSC_RATIO_ONE);
		assert_in_range(tsc_line_at(&line, aim.host_tsc) - before, 0, KHZ / 20000);
		worst = ahead > worst ? ahead : worst;
	}
	assert_in_range(worst, 0, 1000);
	/* Too fast a host: the line waits. */
	aim.ratio = tsc_ratio_change(TSC_RATIO_ONE, -40000);
	line.guest_tsc = tsc_line_at(&line, aim.host_tsc) + 100000;
	line.host_tsc = aim.host_tsc;
	assert_true(tsc_line_steer(&line, &aim, &steering, &ratio, &ahead));
	assert_true(ahead < 0);
	ratio = line.guest_tsc;
	tsc_line_turn(&line, &aim, &steering, 0, TSC_RATIO_ONE);
	assert_int_equal(line.guest_tsc, ratio);
}

/* Hosts without scaling, 30 ppm apart, of which one is so busy that it steps 20 times a second: it
 * stays within what node/node_clock.h calls lost, and never goes back. */
static void test_stepped_seldom(void **state)
{
	struct tsc_line line = { .ratio = TSC_RATIO_ONE }, aim = line;
	int64_t ahead = 0, worst = 0;
	uint64_t ratio;

	(void)state;
	aim.ratio = tsc_ratio_change(TSC_RATIO_ONE, 30000);
	for (int i = 0; i < 20000; i++) {
		uint64_t before;

		aim.host_tsc += 50 * MS_TICKS;
		aim.guest_tsc = aim.host_tsc + aim.host_tsc / 1000000 * 30;
		before = tsc_line_at(&line, aim.host_tsc);
		if (tsc_line_steer(&line, &aim, &steering, &ratio, &ahead))
			tsc_line_turn(&line, &aim, &steering, ratio, TSC_RATIO_ONE);
		assert_in_range(tsc_line_at(&line, aim.host_tsc) - before, 0, 2 * KHZ / 1000);
		worst = ahead > worst ? ahead : worst;
	}
	assert_in_range(worst, 0, 700000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ratio),	      cmocka_unit_test(test_before_the_point),
		cmocka_unit_test(test_fine_as_it_is), cmocka_unit_test(test_bent),
		cmocka_unit_test(test_stepped),	      cmocka_unit_test(test_stepped_seldom),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
