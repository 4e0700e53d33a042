// SPDX-License-Identifier: Apache-2.0
/*
 * Placement: each guard. With it left out the same test must fail.
 */
#include "tests/test.h"

#include "tests/core/placement_made.h"

/* Each guard: true if it does what it should. */

static bool dwells(uint32_t broken)
{
	struct placement *p = make(0, 2, PLACEMENT_BASE, broken);
	uint64_t now_ns = 10 * MS;
	struct placement_advice early, later;

	arrive(p, 1, now_ns, 0, 0);
	/* All of the credit by stalls that began long ago. */
	struct placement_stall long_ago = {
		.kind = COH_STALL_WRITE, .owner = 1, .begin_ns = MS, .end_ns = now_ns + MOVE_NS / 2
	};

	for (int i = 0; i < 4; i++)
		assert_int_equal(placement_stall(p, &long_ago, &early), 0);
	now_ns += 2 * MOVE_NS;
	later = stall(p, 0, 1, &now_ns, 1000);
	placement_destroy(p);
	return early.to == NODE_NONE && early.why == PLACEMENT_WHY_DWELL && later.to == 1;
}

static bool rate_is_bounded(uint32_t broken)
{
	struct placement *p = make(0, 2, PLACEMENT_VCPUS, broken);
	uint64_t now_ns = MS;
	uint32_t moves = 0;
	uint8_t carry[PLACEMENT_CARRY_BYTES];

	placement_placed(p, 0, 0, 0);
	while (now_ns < MS + 1000000000ull) {
		if (stall(p, 0, 1, &now_ns, 10000).to == NODE_NONE)
			continue;
		moves++;
		assert_int_equal(placement_left(p, 0, 1, now_ns, carry), 0);
		assert_int_equal(placement_arrived(p, 0, 1, now_ns, now_ns, carry), 0);
	}
	placement_destroy(p);
	return moves <= PLACEMENT_MOVES_SECOND + PLACEMENT_MOVES_BURST + 1;
}

static bool wasted_counts(uint32_t broken)
{
	struct placement *p = make(0, 3, PLACEMENT_BASE, broken);
	uint64_t now_ns = 10 * MS;
	uint32_t once, twice;

	arrive(p, 1, now_ns, 0, 0);
	once = stalls_until(p, 2, &now_ns, 1000);
	placement_destroy(p);
	p = make(0, 3, PLACEMENT_BASE, broken);
	now_ns = 10 * MS;
	arrive(p, 1, now_ns, 2, 0);
	twice = stalls_until(p, 2, &now_ns, 1000);
	placement_destroy(p);
	return once >= 20 && twice >= 4 * once - 4;
}

/* Back and forth without use, by what each stay says of itself: it comes to moves of ever more
 * stalls, to four times as many. */
static void ping_pong(void **state)
{
	struct placement *p[2] = { make(0, 2, PLACEMENT_BASE, 0), make(1, 2, PLACEMENT_BASE, 0) };
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	uint64_t now_ns = MS;
	uint32_t first = 0, last = 0, at = 1;
	struct placement_stats stats;

	placement_placed(p[0], 0, 1, 0);
	placement_placed(p[1], 0, 1, 0);
	for (int i = 0; i < 9; i++) {
		uint16_t to = (uint16_t)(1 - at);

		last = stalls_until(p[at], to, &now_ns, 10000);
		assert_int_not_equal(last, 0);
		first = i == 0 ? last : first;
		assert_int_equal(placement_left(p[at], 0, to, now_ns, carry), 0);
		now_ns += MOVE_NS;
		assert_int_equal(
			placement_arrived(p[to], 0, (uint16_t)at, now_ns - MOVE_NS, now_ns, carry),
			0);
		at = to;
	}
	assert_true(last >= 4 * first);
	placement_stats_get(p[0], &stats);
	assert_true(stats.wasted_count > 0 && stats.return_count > 0);
	placement_destroy(p[0]);
	placement_destroy(p[1]);
}

static bool debt_is_paid(uint32_t broken)
{
	struct placement *p = make(0, 2, PLACEMENT_BASE, broken);
	uint64_t now_ns = 10 * MS;
	uint32_t with;

	/* It has brought 0.15 ms worth of pages to node 1 before it came here. */
	arrive(p, 1, now_ns, 0, 150);
	with = stalls_until(p, 1, &now_ns, 1000);
	placement_destroy(p);
	return with >= 40 + 15; /* the other node is empty now: who goes leaves company */
}

/* Where it came it did nothing but fetch what it had left: so much does it not do again for less. */
static bool leaves_count(uint32_t broken)
{
	struct placement *p[2] = { make(0, 2, PLACEMENT_BASE, broken),
				   make(1, 2, PLACEMENT_BASE, broken) };
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	uint64_t now_ns = 10 * MS;
	uint32_t first, next;

	arrive(p[0], 1, now_ns, 0, 0);
	first = stalls_until(p[0], 1, &now_ns, 1000);
	for (int i = 0; i < 200; i++)
		stall(p[0], 0, 1, &now_ns, 10000);
	assert_int_equal(placement_left(p[0], 0, 1, now_ns, carry), 0);
	assert_int_equal(placement_arrived(p[1], 0, 0, now_ns, now_ns + MOVE_NS, carry), 0);
	now_ns += MOVE_NS;
	/* What it has just fetched apart. */
	for (int i = 0; i < 250; i++)
		stall(p[1], 0, 0, &now_ns, 10000);
	next = stalls_until(p[1], 0, &now_ns, 4000);
	placement_destroy(p[0]);
	placement_destroy(p[1]);
	return next > 20 * first;
}

/* Half on node 1, half on node 2: there is no better place. */
static bool rivals_take(uint32_t broken)
{
	struct placement *p = make(0, 3, PLACEMENT_BASE, broken);
	uint64_t now_ns = MS;
	bool went = false;

	placement_placed(p, 0, 0, 0);
	for (int i = 0; i < 1000 && !went; i++)
		went = stall(p, 0, (uint16_t)(1 + i % 2), &now_ns, 10000).to != NODE_NONE;
	placement_destroy(p);
	return !went;
}

/* Two that stall on each other's nodes, at the same time: one goes, and the other then stays. */
static bool one_goes(uint32_t broken)
{
	struct placement *p[2] = { make(0, 2, PLACEMENT_BASE, broken),
				   make(1, 2, PLACEMENT_BASE, broken) };
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	uint64_t now_ns = MS, left_ns = 0;
	uint32_t moves = 0;

	for (int i = 0; i < 2; i++) {
		placement_placed(p[i], 0, 0, 0);
		placement_placed(p[i], 1, 1, 0);
	}
	for (int i = 0; i < 60; i++) {
		uint64_t same_ns = now_ns;
		struct placement_advice a = stall(p[0], 0, 1, &same_ns, 10000), b = { 0 };

		if (left_ns == 0)
			b = stall(p[1], 1, 0, &now_ns, 10000);
		else
			now_ns = same_ns;
		moves += a.to == 1;
		if (left_ns == 0 && b.to == 0) {
			left_ns = now_ns;
			assert_int_equal(placement_left(p[1], 1, 0, now_ns, carry), 0);
		} else if (left_ns && now_ns >= left_ns + MOVE_NS / 2) {
			assert_int_equal(placement_arrived(p[0], 1, 1, left_ns, now_ns, carry), 0);
			moves++;
			break;
		}
	}
	/* They are together: the credit that was about the other is gone. */
	moves += placement_credit(p[0], 0, 1) != 0;
	placement_destroy(p[0]);
	placement_destroy(p[1]);
	return moves == 1;
}

static bool cores_count(uint32_t broken)
{
	struct placement *p = make(1, 2, PLACEMENT_BASE, broken);
	struct placement_load full = { .cores = 1, .awake = 3 };
	struct placement_advice advice = { .to = NODE_NONE };
	uint64_t now_ns = MS;

	placement_placed(p, 0, 1, MS);
	placement_load(p, 0, &full);
	/* A tenth of its time it stalls there; it would wait for three quarters of it. */
	for (int i = 0; i < 500 && advice.to == NODE_NONE; i++) {
		advice = stall(p, 0, 0, &now_ns, 10000);
		now_ns += 90000;
	}
	placement_destroy(p);
	return advice.to == NODE_NONE && advice.why == PLACEMENT_WHY_CROWDED;
}

/* A learner that loses to the base rule. */
static bool loser_goes(uint32_t broken)
{
	struct placement *p = make(1, 2, PLACEMENT_LEARNED, broken);
	struct placement_stats stats;
	struct placement_record record;
	uint64_t now_ns = MS;

	placement_placed(p, 0, 1, MS);
	placement_pin(p, 0, true);
	for (int i = 0; i < 20000; i++) {
		uint64_t newest;

		stall(p, 0, 0, &now_ns, 30000);
		newest = placement_record_newest(p);
		if (newest && placement_record_get(p, newest, &record) == 0 && record.lost_ns < 0 &&
		    (!record.drawn || record.arm != PLACEMENT_ARM_BASE))
			stall(p, 0, 0, &now_ns, 400000);
		now_ns += 700000;
	}
	placement_stats_get(p, &stats);
	bool goes = stats.learner_off && stats.learner_off_count == 1 &&
		    stats.learner_off_ns > MS && stats.learner_off_ns < now_ns &&
		    stats.learner_loss > stats.control_loss && stats.learner_back_ns == 0;
	/* It may try again when the user says so, and not before. */
	assert_int_equal(placement_set_policy(p, PLACEMENT_LEARNED, now_ns), 0);
	placement_stats_get(p, &stats);
	goes &= !stats.learner_off && stats.learner_off_count == 1 &&
		stats.learner_back_ns == now_ns;
	placement_destroy(p);
	return goes;
}

/* Choices that were not simply the base rule's, of a vCPU whose stalls are so many pages apart. */
static uint32_t choices_of_learner(uint32_t broken, uint64_t apart)
{
	struct placement *p = make(1, 2, PLACEMENT_LEARNED, broken);
	struct placement_record record;
	uint64_t now_ns = MS, seen = 0;
	uint32_t count = 0;

	placement_placed(p, 0, 1, MS);
	placement_pin(p, 0, true);
	for (uint64_t i = 1; i < 4000; i++) {
		struct placement_stall stall = { .kind = COH_STALL_WRITE,
						 .gpn = i * apart % 65536,
						 .begin_ns = now_ns,
						 .end_ns = now_ns + 60000 };
		struct placement_advice advice;

		assert_int_equal(placement_stall(p, &stall, &advice), 0);
		now_ns += 70000;
		if (placement_record_newest(p) == seen)
			continue;
		seen = placement_record_newest(p);
		assert_int_equal(placement_record_get(p, seen, &record), 0);
		count += record.how != PLACEMENT_HOW_BASE;
	}
	placement_destroy(p);
	return count;
}

static bool far_is_not_eager(uint32_t broken)
{
	assert_true(choices_of_learner(broken, 1) > 10);
	return choices_of_learner(broken, 4099) == 0;
}

/* A busy host, where each stall takes as long as credit takes to fade: it goes all the same, and soon. */
static bool long_stalls_add_up(uint32_t broken)
{
	struct placement *p = make(1, 2, PLACEMENT_BASE, broken);
	struct placement_advice advice[4], last = { .to = NODE_NONE };
	uint64_t now_ns = MS;
	uint32_t count = 0;

	placement_placed(p, 0, 1, MS);
	while (last.to == NODE_NONE && count < 100) {
		uint64_t end_ns = now_ns + 100 * MS;

		for (uint64_t tick_ns = now_ns; tick_ns < end_ns; tick_ns += PLACEMENT_TICK_NS)
			placement_tick(p, tick_ns, advice, 4);
		last = stall(p, 0, 0, &now_ns, 100 * MS);
		now_ns += 2 * MS;
		count++;
	}
	placement_destroy(p);
	return last.to == 0 && count >= 4 && count <= 6;
}

/* It waited for a core all the time that it was here: that stay was not worth its move. */
static bool waits_are_no_work(uint32_t broken)
{
	struct placement *p = make(0, 3, PLACEMENT_BASE, broken);
	struct placement_time time = { .waited_ns = PLACEMENT_TICK_NS };
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	struct placement_stats stats;
	uint64_t now_ns = 10 * MS;

	arrive(p, 1, now_ns, 0, 0);
	for (int i = 0; i < 5; i++) {
		now_ns += PLACEMENT_TICK_NS;
		placement_time(p, 0, &time);
	}
	stall(p, 0, 2, &now_ns, 10000);
	assert_int_equal(placement_left(p, 0, 2, now_ns, carry), 0);
	placement_stats_get(p, &stats);
	placement_destroy(p);
	return stats.wasted_count == 1;
}

static const struct {
	const char *name;
	bool (*works)(uint32_t broken);
	enum placement_broken broken;
} guard[] = {
	{ "dwell", dwells, PLACEMENT_BROKEN_DWELL },
	{ "rate", rate_is_bounded, PLACEMENT_BROKEN_RATE },
	{ "wasted", wasted_counts, PLACEMENT_BROKEN_WASTED },
	{ "debt", debt_is_paid, PLACEMENT_BROKEN_DEBT },
	{ "leaves", leaves_count, PLACEMENT_BROKEN_LEAVES },
	{ "rivals", rivals_take, PLACEMENT_BROKEN_RIVALS },
	{ "yield", one_goes, PLACEMENT_BROKEN_YIELD },
	{ "crowd", cores_count, PLACEMENT_BROKEN_CROWD },
	{ "control", loser_goes, PLACEMENT_BROKEN_CONTROL },
	{ "near", far_is_not_eager, PLACEMENT_BROKEN_NEAR },
	{ "long", long_stalls_add_up, PLACEMENT_BROKEN_LONG },
	{ "waited", waits_are_no_work, PLACEMENT_BROKEN_WAITED },
};

static void guards(void **state)
{
	for (size_t i = 0; i < sizeof(guard) / sizeof(guard[0]); i++) {
		if (!guard[i].works(PLACEMENT_BROKEN_NOTHING))
			fail_msg("%s does not work", guard[i].name);
		if (guard[i].works(guard[i].broken))
			fail_msg("%s: left out, and nobody saw it", guard[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(guards),
		cmocka_unit_test(ping_pong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
