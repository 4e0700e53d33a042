// SPDX-License-Identifier: Apache-2.0
/*
 * Placement: what a move costs, what it carries, and what is made of one that was refused.
 */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "tests/core/placement_made.h"
#include "tests/rng.h"

/*
 * What moves cost all vCPUs on average is what they were seen to cost: one that is still believed to
 * leave much, by what it left before, does not count again and again.
 */
static void refaults_are_seen(void **state)
{
	struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3 };
	uint64_t now_ns = 10 * MS;

	carry[13] = 7000 >> 8; /* it is believed to leave some 7 ms */
	for (int i = 0; i < 30; i++) {
		struct placement_advice advice;

		assert_int_equal(placement_arrived(p, 0, 1, now_ns - MOVE_NS, now_ns, carry), 0);
		now_ns += 5 * MS;
		placement_tick(p, now_ns, &advice, 1);
		assert_int_equal(placement_left(p, 0, 1, now_ns, carry), 0);
		carry[13] = 7000 >> 8;
	}
	assert_int_equal(placement_move_ns(p, 1), MOVE_NS);
	placement_destroy(p);
}

/* Moves that wait for a core of a busy host, from node 1 to 0 and back, in turn with others. */
static void late_moves(struct placement *p, uint64_t *now_ns, uint32_t count, uint32_t one_in)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3 };

	for (uint32_t i = 0; i < count; i++) {
		uint64_t took_ns = i % one_in == 0 ? 300 * MS : MOVE_NS;

		*now_ns += took_ns + MS;
		assert_int_equal(placement_arrived(p, 0, 1, *now_ns - took_ns, *now_ns, carry), 0);
		*now_ns += MS;
		assert_int_equal(placement_left(p, 0, 1, *now_ns, carry), 0);
		memset(carry, 0, sizeof(carry));
		carry[0] = 3;
	}
}

/*
 * A few moves that took a thousand times as long are no reason not to move any more: or nobody would
 * ever see how long they take now. One that always takes long is seen to.
 */
static void late_moves_pass(void **state)
{
	for (uint32_t seed = 0; seed < 16; seed++) {
		struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
		uint64_t now_ns = MS;

		late_moves(p, &now_ns, 3 + seed, 1);
		late_moves(p, &now_ns, 3 * (3 + seed), 4);
		assert_in_range(placement_move_ns(p, 1), MOVE_NS, 30 * MOVE_NS);
		placement_destroy(p);
	}
}

static void slow_links_are_seen(void **state)
{
	struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
	uint64_t now_ns = MS;

	late_moves(p, &now_ns, 100, 1);
	assert_in_range(placement_move_ns(p, 1), PLACEMENT_MOVE_NS_MAX / 10 * 9,
			PLACEMENT_MOVE_NS_MAX);
	placement_destroy(p);
}

/* It did nothing at node 0 but fetch, and sleep in between: all of that it had left behind. */
static void sleep_is_no_work(void **state)
{
	struct placement *p[2] = { make(0, 2, PLACEMENT_BASE, 0), make(1, 2, PLACEMENT_BASE, 0) };
	struct placement_advice advice;
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	uint64_t now_ns = 10 * MS;

	arrive(p[0], 1, now_ns, 0, 0);
	for (int i = 0; i < 40; i++) {
		struct placement_stall stall = { .kind = COH_STALL_WRITE,
						 .owner = 1,
						 .begin_ns = now_ns + 100000,
						 .end_ns = now_ns + 200000,
						 .slept_ns = 100000 };

		assert_int_equal(placement_stall(p[0], &stall, &advice), 0);
		now_ns = stall.end_ns;
	}
	for (int i = 0; i < 10; i++, now_ns += MS)
		placement_tick(p[0], now_ns, &advice, 1);
	assert_int_equal(placement_left(p[0], 0, 1, now_ns, carry), 0);
	/* 4 ms, and what is added for the lag. */
	assert_in_range(carry[12] | carry[13] << 8, 3500, 6500);
	placement_destroy(p[0]);
	placement_destroy(p[1]);
}

static void refused(void **state)
{
	struct placement *p = make(1, 3, PLACEMENT_BASE, 0);
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	uint64_t now_ns = MS;

	placement_placed(p, 0, 1, MS);
	assert_int_equal(stalls_until(p, 0, &now_ns, 1000), 20);
	assert_int_equal(placement_left(p, 0, 0, now_ns, carry), 0);
	assert_int_equal(placement_refused(p, 0, 0, now_ns), 0);
	/* Not at once again; but in the end. */
	/* (A little of the credit fades meanwhile.) */
	assert_in_range(stalls_until(p, 0, &now_ns, 3000), 2000, 2001);
	placement_destroy(p);
}

/* Moves that nobody advised, or of which a node has lied, do not keep it for longer than a burst. */
static void bucket_is_full(void **state)
{
	struct placement *p = make(1, 3, PLACEMENT_BASE, 0);
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3 };
	uint64_t now_ns = 1000 * MS;

	placement_placed(p, 0, 1, now_ns);
	for (int i = 0; i < 1000; i++) {
		now_ns += MS / 100;
		assert_int_equal(placement_left(p, 0, 0, now_ns, carry), 0);
		assert_int_equal(placement_arrived(p, 0, 0, now_ns, now_ns, carry), 0);
	}
	now_ns += 2 * MS;
	assert_in_range(stalls_until(p, 0, &now_ns, 1000), 1, 1000);
	memset(carry, 0, sizeof(carry));
	carry[0] = 3;
	memset(carry + 24, 0xff, 8);
	assert_int_equal(placement_left(p, 0, 2, now_ns, carry), 0);
	memset(carry + 24, 0xff, 8);
	assert_int_equal(placement_arrived(p, 0, 2, now_ns, now_ns, carry), 0);
	now_ns += 2 * MS;
	assert_in_range(stalls_until(p, 0, &now_ns, 1000), 1, 1000);
	placement_destroy(p);
}

/* A choice that is said to have begun in the far future ends as soon as one that begins now. */
static void choice_ends(void **state)
{
	struct placement *p = make(1, 3, PLACEMENT_LEARNED, 0);
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3, [3] = 1 };
	struct placement_advice advice[4];
	struct placement_stats stats;

	memset(carry + 40, 0xff, 8);
	assert_int_equal(placement_arrived(p, 0, 0, MS, MS, carry), 0);
	for (int i = 0; i < 10; i++) {
		placement_stats_get(p, &stats);
		assert_int_equal(stats.learned_count, 0);
		placement_tick(p, (uint64_t)(1 + i) * MS, advice, 4);
	}
	placement_tick(p, 11 * MS, advice, 4);
	placement_stats_get(p, &stats);
	assert_int_equal(stats.learned_count, 1);
	placement_destroy(p);
}

/* Spoilt bytes are refused, or harmless; and a refusal changes nothing. */
static void carries(void **state)
{
	struct placement *p = make(0, 3, PLACEMENT_LEARNED, 0);
	struct rng rng = { 5 };
	uint8_t carry[PLACEMENT_CARRY_BYTES], random[PLACEMENT_CARRY_BYTES];
	uint64_t now_ns = MS;
	uint32_t refused_count = 0;

	placement_placed(p, 0, 0, 0);
	for (int i = 0; i < 3; i++)
		stall(p, 0, 1, &now_ns, 50000);
	assert_int_equal(placement_left(p, 0, 1, now_ns, carry), 0);
	for (int i = 0; i < 20000; i++) {
		int error;

		memcpy(random, carry, sizeof(carry));
		for (uint32_t k = 1 + rng_below(&rng, 4); k > 0; k--)
			random[rng_below(&rng, sizeof(random))] = (uint8_t)rng_next(&rng);
		error = placement_arrived(p, 0, 1, now_ns, now_ns + 1000, random);
		if (error) {
			assert_int_equal(error, -EPROTO);
			assert_int_equal(placement_credit(p, 0, 0), 0);
			refused_count++;
			continue;
		}
		for (int k = 0; k < 4; k++)
			stall(p, 0, (uint16_t)(1 + rng_below(&rng, 2)), &now_ns, 100000);
		assert_int_equal(placement_left(p, 0, 1, now_ns, random), 0);
	}
	assert_in_range(refused_count, 1000, 19000);
	assert_int_equal(placement_arrived(p, 0, 1, now_ns, now_ns, NULL), 0);
	placement_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sleep_is_no_work), cmocka_unit_test(refused),
		cmocka_unit_test(bucket_is_full),   cmocka_unit_test(choice_ends),
		cmocka_unit_test(carries),	    cmocka_unit_test(refaults_are_seen),
		cmocka_unit_test(late_moves_pass),  cmocka_unit_test(slow_links_are_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
