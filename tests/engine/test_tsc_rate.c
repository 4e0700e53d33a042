/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measuring the TSC's rate, on clocks that are made up: a thread that loses its CPU between any two
 * readings, a clock that takes long to read, a TSC that does not go with it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/host_clock.h"
#include "engine/tsc_rate.h"

static struct {
	uint64_t ns; /* true time */
	uint64_t khz;
	uint64_t read_ns; /* what reading CLOCK_MONOTONIC_RAW takes */
	unsigned int preempted_percent;
	bool tsc_back; /* the TSC runs backwards */
} world;

static uint64_t random_state = 1, start_ns;

static uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545f4914f6cdd1dull >> 11) % limit;
}

static void pass(uint64_t ns)
{
	world.ns += ns;
	if (random_below(100) < world.preempted_percent)
		world.ns += random_below(20000000);
}

uint64_t host_clock_tsc(void)
{
	uint64_t tsc;

	pass(10 + random_below(10));
	tsc = (uint64_t)((unsigned __int128)world.ns * world.khz / 1000000);
	pass(5);
	return world.tsc_back ? ~tsc : tsc;
}

uint64_t host_clock_raw_ns(void)
{
	uint64_t now;

	pass(world.read_ns / 2);
	now = world.ns;
	pass(world.read_ns / 2);
	return now;
}

void host_clock_pause(uint64_t ns)
{
	pass(ns + random_below(200000));
}

bool host_clock_tsc_is_real(void)
{
	return false;
}

static void make_world(uint64_t khz)
{
	memset(&world, 0, sizeof(world));
	world.ns = 1000000000ull + random_below(1ull << 50);
	world.khz = khz;
	start_ns = world.ns;
	world.read_ns = 20 + random_below(200);
}

/* 100 of 100 starts within 200 ppm: here, 300 within what the bounds say, and those are close. */
static void test_preempted(void **state)
{
	uint64_t worst_ppm = 0;
	char why[300];

	(void)state;
	for (int i = 0; i < 300; i++) {
		struct tsc_rate rate;
		uint64_t khz = 200000 + random_below(5000000), off;

		make_world(khz);
		world.preempted_percent = (unsigned int)random_below(40);
		assert_int_equal(tsc_rate_measure(0, &rate, why, sizeof(why)), 0);
		assert_true(rate.low_khz <= khz && khz <= rate.high_khz);
		off = rate.khz > khz ? rate.khz - khz : khz - rate.khz;
		if (off * 1000000 / khz > worst_ppm)
			worst_ppm = off * 1000000 / khz;
	}
	fprintf(stderr, "worst: %llu ppm\n", (unsigned long long)worst_ppm);
	assert_true(worst_ppm <= 50);
}

/* An emulated CPU of some million instructions a second. */
static void test_slow_cpu(void **state)
{
	struct tsc_rate rate;
	char why[300];

	(void)state;
	make_world(90001);
	assert_int_equal(tsc_rate_measure(0, &rate, why, sizeof(why)), 0);
	assert_in_range(rate.khz, 90000, 90002);
	assert_true(world.ns - start_ns < 200000000);
}

static void test_claims(void **state)
{
	const struct tsc_claim claims[] = {
		{ "nothing", 0 }, { "a lie", 3000000 }, { "truth", 2500009 }, { "more", 2500010 }
	};
	struct tsc_rate rate = { .low_khz = 2500000, .high_khz = 2500016 };

	(void)state;
	tsc_rate_choose(&rate, claims, 4);
	assert_int_equal(rate.khz, 2500009);
	assert_string_equal(rate.source, "truth");
	tsc_rate_choose(&rate, claims, 2);
	assert_int_equal(rate.khz, 2500008);
	assert_string_equal(rate.source, "measured");
}

static void test_engine_first(void **state)
{
	struct tsc_rate rate;
	char why[300];

	(void)state;
	make_world(2100000);
	assert_int_equal(tsc_rate_measure(2100001, &rate, why, sizeof(why)), 0);
	assert_int_equal(rate.khz, 2100001);
	assert_string_equal(rate.source, "KVM");
	make_world(2100000);
	assert_int_equal(tsc_rate_measure(700000, &rate, why, sizeof(why)), 0);
	assert_string_not_equal(rate.source, "KVM");
	assert_in_range(rate.khz, 2100000 - 100, 2100000 + 100);
}

static void test_slow_clock(void **state)
{
	struct tsc_rate rate = { .khz = 7 };
	char why[300] = "";

	(void)state;
	/* An emulated HPET, say: known well enough after a while. */
	make_world(2100000);
	world.read_ns = 20000;
	assert_int_equal(tsc_rate_measure(0, &rate, why, sizeof(why)), 0);
	assert_in_range(rate.khz, 2100000 - 420, 2100000 + 420);
	make_world(2100000);
	world.read_ns = 3000000;
	rate.khz = 7;
	assert_int_equal(tsc_rate_measure(0, &rate, why, sizeof(why)), -ENOTSUP);
	assert_non_null(strstr(why, "clocksource is tsc"));
	assert_int_equal(rate.khz, 7);
}

static void test_nonsense(void **state)
{
	struct tsc_rate rate;
	char why[300] = "";
	const struct tsc_bracket first = { .before = 1000, .after = 1100, .ns = 1000 };
	struct tsc_bracket last = { .before = 1050, .after = 1200, .ns = 2000 };

	(void)state;
	assert_false(tsc_rate_bounds(&first, &last, &rate)); /* they overlap */
	last = (struct tsc_bracket){ .before = 9000000, .after = 9000100, .ns = 1000 };
	assert_false(tsc_rate_bounds(&first, &last, &rate)); /* no time between them */
	last.ns = 900;
	assert_false(tsc_rate_bounds(&first, &last, &rate)); /* less than none */
	last.ns = 1001000;
	assert_true(tsc_rate_bounds(&first, &last, &rate));
	last.ns = 10001000000;
	assert_false(tsc_rate_bounds(&first, &last, &rate)); /* 0.9 MHz */
	make_world(2100000);
	world.tsc_back = true;
	assert_int_equal(tsc_rate_measure(0, &rate, why, sizeof(why)), -ENOTSUP);
	assert_non_null(strstr(why, "invariant TSC"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_preempted),  cmocka_unit_test(test_claims),
		cmocka_unit_test(test_slow_cpu),   cmocka_unit_test(test_engine_first),
		cmocka_unit_test(test_slow_clock), cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
