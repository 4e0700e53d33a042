// SPDX-License-Identifier: Apache-2.0
/*
 * Placement: the base rule, each guard (with it left out the same test must fail), gathering and
 * spreading, what a move carries, and inputs of every kind.
 */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "core/placement.h"
#include "tests/rng.h"

#define MOVE_NS 100000u
#define MS	1000000u

static struct placement *make(uint16_t self, uint16_t nodes, enum placement_policy policy,
			      uint32_t broken)
{
	struct placement_config config = { .self = self,
					   .node_count = nodes,
					   .vcpu_count = 8,
					   .policy = policy,
					   .move_ns = MOVE_NS,
					   .seed = 1,
					   .broken = broken };
	struct placement_load load = { .cores = 4, .awake = 1 };
	struct placement *p;

	assert_int_equal(placement_create(&config, &p), 0);
	for (uint16_t i = 0; i < nodes; i++)
		assert_int_equal(placement_load(p, i, &load), 0);
	return p;
}

static struct placement_advice stall(struct placement *p, uint32_t vcpu, uint16_t owner,
				     uint64_t *now_ns, uint64_t took_ns)
{
	struct placement_stall stall = { .vcpu = vcpu,
					 .kind = COH_STALL_WRITE,
					 .owner = owner,
					 .gpn = 7,
					 .begin_ns = *now_ns,
					 .end_ns = *now_ns + took_ns };
	struct placement_advice advice;

	assert_int_equal(placement_stall(p, &stall, &advice), 0);
	*now_ns += took_ns;
	return advice;
}

/* How many stalls of 10 us on `owner` until it should go there; 0: not within `most`. */
static uint32_t stalls_until(struct placement *p, uint16_t owner, uint64_t *now_ns, uint32_t most)
{
	for (uint32_t i = 1; i <= most; i++) {
		if (stall(p, 0, owner, now_ns, 10000).to == owner)
			return i;
	}
	return 0;
}

static void arrive(struct placement *p, uint16_t from, uint64_t now_ns, uint8_t wasted,
		   uint32_t debt_us)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3, wasted };

	memcpy(carry + 8, &debt_us, 4);
	assert_int_equal(placement_arrived(p, 0, from, now_ns - MOVE_NS, now_ns, carry), 0);
}

/* Twice a move's cost; four times for who goes to the higher number: it yields. */
static void base_rule(void **state)
{
	struct placement *p = make(1, 3, PLACEMENT_BASE, 0);
	uint64_t now_ns = MS;

	placement_placed(p, 0, 1, MS);
	assert_int_equal(placement_move_ns(p, 0), MOVE_NS);
	assert_int_equal(stalls_until(p, 0, &now_ns, 1000), 20);
	placement_destroy(p);
	p = make(1, 3, PLACEMENT_BASE, 0);
	placement_placed(p, 0, 1, MS);
	now_ns = MS;
	assert_int_equal(stalls_until(p, 2, &now_ns, 1000), 40);
	placement_destroy(p);
}

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

static void policies(void **state)
{
	for (int i = 0; i < PLACEMENT_POLICIES; i++) {
		enum placement_policy policy;
		struct placement *p = make(1, 3, (enum placement_policy)i, 0);
		uint64_t now_ns = MS;
		uint32_t until;

		assert_int_equal(placement_policy_parse(
					 placement_policy_name((enum placement_policy)i), &policy),
				 0);
		assert_int_equal(policy, i);
		assert_int_equal(placement_policy_gathers(policy),
				 i == PLACEMENT_BASE || i == PLACEMENT_LEARNED);
		placement_placed(p, 0, 1, MS);
		until = stalls_until(p, 0, &now_ns, 1000);
		if (i == PLACEMENT_PAGES || i == PLACEMENT_PINNED)
			assert_int_equal(until, 0);
		else if (i == PLACEMENT_VCPUS)
			assert_int_equal(until, 1);
		else
			assert_in_range(until, 1, 20);
		/* Whatever the policy, who is pinned stays. */
		placement_pin(p, 0, true);
		assert_int_equal(stalls_until(p, 0, &now_ns, 1000), 0);
		placement_destroy(p);
	}
	assert_int_equal(placement_policy_parse("best", &(enum placement_policy){ 0 }), -EINVAL);
}

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

/* One stall, however long, says that one page is there: nobody goes for it. */
static void one_stall_moves_nobody(void **state)
{
	struct placement *p = make(1, 2, PLACEMENT_BASE, 0);
	uint64_t now_ns = MS;

	placement_placed(p, 0, 1, MS);
	for (int i = 0; i < 3; i++)
		assert_int_equal(stall(p, 0, 0, &now_ns, 3 * MS).to, NODE_NONE);
	stall(p, 0, 0, &now_ns, 3 * MS);
	assert_int_equal(stall(p, 0, 0, &now_ns, 3 * MS).to, 0);
	placement_destroy(p);
}

/* Two work here and one there: who is with the other needs twice as much, whatever the numbers. */
static void company(void **state)
{
	struct placement_load two = { .cores = 4, .awake = 2 }, one = { .cores = 4, .awake = 1 },
			      none = { .cores = 4 };
	uint64_t now_ns = MS;
	struct placement *p = make(1, 2, PLACEMENT_BASE, 0);

	placement_placed(p, 0, 1, MS);
	placement_load(p, 1, &two);
	placement_load(p, 0, &one);
	assert_int_equal(stalls_until(p, 0, &now_ns, 1000), 40);
	placement_destroy(p);
	/* Nobody is there: it leaves the other for pages that nobody uses. */
	p = make(1, 2, PLACEMENT_BASE, 0);
	now_ns = MS;
	placement_placed(p, 0, 1, MS);
	placement_load(p, 1, &two);
	placement_load(p, 0, &none);
	assert_int_equal(stalls_until(p, 0, &now_ns, 1000), 40);
	placement_destroy(p);
	/* From where it is alone it goes to the two, and to nobody's pages. */
	p = make(0, 2, PLACEMENT_BASE, 0);
	now_ns = MS;
	placement_placed(p, 0, 0, MS);
	placement_load(p, 0, &one);
	placement_load(p, 1, &two);
	assert_int_equal(stalls_until(p, 1, &now_ns, 1000), 20);
	placement_destroy(p);
	p = make(0, 2, PLACEMENT_BASE, 0);
	now_ns = MS;
	placement_placed(p, 0, 0, MS);
	placement_load(p, 0, &one);
	placement_load(p, 1, &none);
	assert_int_equal(stalls_until(p, 1, &now_ns, 1000), 20);
	placement_destroy(p);
}

/* A low threshold is for who is alone: what his going costs the others no outcome of his tells. */
static void eager_alone(void **state)
{
	for (uint16_t awake = 1; awake <= 2; awake++) {
		struct placement_load load = { .cores = 4, .awake = awake };
		uint32_t eager = 0;

		for (uint32_t i = 0; i < 40; i++) {
			struct placement *p = make(1, 2, PLACEMENT_LEARNED, 0);
			struct placement_advice advice = { .to = NODE_NONE };
			uint64_t now_ns = MS + i * 1000;

			placement_load(p, 1, &load);
			placement_placed(p, 0, 1, now_ns);
			for (int k = 0; k < 100 && advice.to == NODE_NONE; k++)
				advice = stall(p, 0, 0, &now_ns, 10000);
			assert_int_equal(advice.to, 0);
			eager += advice.why == PLACEMENT_WHY_EAGER;
			placement_destroy(p);
		}
		assert_true(awake == 1 ? eager > 5 : eager == 0);
	}
}

/* A burst of stalls is no reason to go where there is no core: what it stalls for longer is. */
static void crowds_last(void **state)
{
	struct placement *p = make(1, 2, PLACEMENT_BASE, 0);
	struct placement_load full = { .cores = 1, .awake = 1 };
	struct placement_advice advice = { .to = NODE_NONE };
	uint64_t now_ns = MS, begin_ns = MS;

	placement_placed(p, 0, 1, MS);
	placement_load(p, 0, &full);
	while (advice.to == NODE_NONE && now_ns < begin_ns + 500 * MS)
		advice = stall(p, 0, 0, &now_ns, 100000);
	assert_int_equal(advice.to, 0);
	assert_in_range(now_ns - begin_ns, 20 * MS, 200 * MS);
	placement_destroy(p);
}

/* Somebody has come from node 1, and has left there what they may share: that is no reason to go. */
static void what_they_left(void **state)
{
	struct placement *p = make(0, 2, PLACEMENT_BASE, 0);
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3 };
	uint64_t now_ns = 10 * MS;

	carry[13] = 2000 >> 8; /* he is believed to leave some 2 ms */
	placement_placed(p, 1, 0, MS);
	assert_int_equal(placement_arrived(p, 0, 1, now_ns - MOVE_NS, now_ns, carry), 0);
	for (int i = 0; i < 150; i++) {
		struct placement_stall left = { .vcpu = 1,
						.kind = COH_STALL_WRITE,
						.owner = 1,
						.begin_ns = now_ns,
						.end_ns = now_ns + 10000 };
		struct placement_advice advice;

		assert_int_equal(placement_stall(p, &left, &advice), 0);
		assert_int_equal(placement_credit(p, 1, 1), 0);
		now_ns += 10000;
	}
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

/* One input of any kind, sensible or not. Returns what came of it, as a number. */
static uint64_t any_input(struct placement *p, struct rng *rng, uint64_t *now_ns)
{
	struct placement_advice advice = { 0 }, many[3];
	uint32_t vcpu = rng_below(rng, 9);
	uint16_t node = (uint16_t)(rng_chance(rng, 90) ? rng_below(rng, 5) : rng_next(rng));
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 0 };
	uint64_t result = 0;

	*now_ns +=
		rng_chance(rng, 95) ? rng_below(rng, 200000) : rng_next(rng) >> rng_below(rng, 64);
	switch (rng_below(rng, 12)) {
	case 0: {
		struct placement_load load = { (uint16_t)rng_next(rng) % 8,
					       (uint16_t)(rng_next(rng) >> rng_below(rng, 64)) };

		return (uint64_t)placement_load(p, node, &load);
	}
	case 1: {
		struct placement_time time = { rng_next(rng) >> rng_below(rng, 64),
					       rng_next(rng) >> rng_below(rng, 64),
					       rng_next(rng) >> rng_below(rng, 64) };

		return (uint64_t)placement_time(p, vcpu, &time);
	}
	case 2:
		return placement_tick(p, *now_ns, many, 3);
	case 3:
		result = (uint64_t)placement_left(p, vcpu, node, *now_ns, carry);
		return result ^ carry[1];
	case 4:
	case 5:
		return (uint64_t)placement_arrived(p, vcpu, node, rng_next(rng) >> 1, *now_ns,
						   NULL);
	case 6:
		return (uint64_t)placement_placed(p, vcpu, node, *now_ns);
	default: {
		struct placement_stall stall = {
			.vcpu = vcpu,
			.kind = (enum coh_stall_kind)rng_below(rng, COH_STALL_KINDS + 1),
			.owner = node,
			.sharers = (uint16_t)rng_next(rng),
			.gpn = rng_next(rng),
			.begin_ns = *now_ns - rng_below(rng, 300000),
			.end_ns = rng_chance(rng, 99) ? *now_ns : rng_next(rng),
			.program = (uint32_t)rng_next(rng),
		};

		result = (uint64_t)placement_stall(p, &stall, &advice);
		return result ^ advice.to ^ (uint64_t)advice.why << 20;
	}
	}
}

static void any_inputs(void **state)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct rng rng[2] = { { seed }, { seed } };
		uint64_t now_ns[2] = { MS, MS };
		struct placement *p[2];

		for (int i = 0; i < 2; i++)
			p[i] = make(0, 4, (enum placement_policy)(seed % PLACEMENT_POLICIES), 0);
		for (int i = 0; i < 5000; i++) {
			uint64_t sum = 0, a = any_input(p[0], &rng[0], &now_ns[0]);

			/* The same inputs, the same advice. */
			assert_int_equal(a, any_input(p[1], &rng[1], &now_ns[1]));
			for (uint16_t k = 0; k < 4; k++)
				sum += placement_credit(p[0], (uint32_t)(i % 8), k);
			assert_true(sum == 0 || sum == PLACEMENT_WHOLE);
		}
		assert_int_equal(placement_record_newest(p[0]), placement_record_newest(p[1]));
		for (uint64_t k = 1; k <= placement_record_newest(p[0]); k++) {
			struct placement_record record[2];

			memset(record, 0, sizeof(record));
			assert_int_equal(placement_record_get(p[0], k, &record[0]),
					 placement_record_get(p[1], k, &record[1]));
			assert_int_equal(record[0].lost_ns, record[1].lost_ns);
			assert_int_equal(record[0].arm_ns[0], record[1].arm_ns[0]);
		}
		placement_destroy(p[0]);
		placement_destroy(p[1]);
	}
}

/* One program's page of code is one, on every vCPU and node; others are others. */
static void what_runs(void **state)
{
	uint32_t slots[64] = { 0 }, most = 0;
	uint32_t one = placement_program(0x12346000, 0xffffffff81234567);

	assert_int_equal(placement_program(0x8000000012347fff, 0xffffffff81234000), one);
	assert_int_not_equal(placement_program(0x12348000, 0xffffffff81234567), one);
	assert_int_not_equal(placement_program(0x12346000, 0xffffffff81235567), one);
	assert_int_not_equal(placement_program(0, 0), 0);
	for (uint64_t page = 0; page < 6400; page++) {
		uint32_t *slot = &slots[placement_program(0x12346000, page << 12) % 64];

		most = ++*slot > most ? *slot : most;
	}
	assert_in_range(most, 100, 150);
}

static void nonsense(void **state)
{
	struct placement_config config = { .node_count = 3, .vcpu_count = 8 }, bad;
	struct placement *p;

	for (int i = 0; i < 6; i++) {
		bad = config;
		if (i == 0)
			bad.node_count = 0;
		else if (i == 1)
			bad.node_count = NODES_MAX + 1;
		else if (i == 2)
			bad.self = 3;
		else if (i == 3)
			bad.vcpu_count = VCPUS_MAX + 1;
		else if (i == 4)
			bad.policy = PLACEMENT_POLICIES;
		else
			bad.gather_node = 3;
		assert_int_equal(placement_create(&bad, &p), -EINVAL);
	}
	/* A move costs nothing, or for ever: neither is believed. */
	config.move_ns = 0;
	assert_int_equal(placement_create(&config, &p), 0);
	assert_int_equal(placement_move_ns(p, 1), PLACEMENT_MOVE_NS_MIN);
	placement_destroy(p);
	config.move_ns = UINT64_MAX;
	assert_int_equal(placement_create(&config, &p), 0);
	assert_int_equal(placement_move_ns(p, 1), PLACEMENT_MOVE_NS_MAX);
	assert_int_equal(placement_set_policy(p, PLACEMENT_POLICIES, 0), -EINVAL);
	assert_int_equal(placement_pin(p, 8, true), -EINVAL);
	assert_int_equal(placement_outcome_learn(p, &(struct placement_outcome){ .arm = 2 }),
			 -EPROTO);
	assert_int_equal(
		placement_outcome_learn(p, &(struct placement_outcome){ .lost_us = 1000001 }),
		-EPROTO);
	placement_destroy(p);
	placement_destroy(NULL);
}

/* Who is no member takes no vCPU, whatever it has said; who comes has a core until it says. */
static void members(void **state)
{
	struct placement *p = make(0, 4, PLACEMENT_BASE, 0);
	struct placement_load load = { .cores = 4, .awake = 1 };
	struct member_set set = { 0 };
	uint64_t now_ns = MS * 100ull;

	member_set_add(&set, 0);
	member_set_add(&set, 2);
	assert_int_equal(placement_members(p, &set, 1), -EINVAL);
	assert_int_equal(placement_members(p, &set, 2), 0);
	assert_int_equal(placement_load(p, 3, &load), 0);
	assert_int_equal(placement_placed(p, 0, 0, now_ns), 0);
	now_ns += 1000u * MS;
	assert_int_equal(stalls_until(p, 3, &now_ns, 200), 0);
	member_set_add(&set, 3);
	assert_int_equal(placement_members(p, &set, 2), 0);
	assert_int_not_equal(stalls_until(p, 3, &now_ns, 200), 0);
	placement_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base_rule),
		cmocka_unit_test(policies),
		cmocka_unit_test(guards),
		cmocka_unit_test(ping_pong),
		cmocka_unit_test(one_stall_moves_nobody),
		cmocka_unit_test(company),
		cmocka_unit_test(eager_alone),
		cmocka_unit_test(crowds_last),
		cmocka_unit_test(what_they_left),
		cmocka_unit_test(sleep_is_no_work),
		cmocka_unit_test(spreads_for_what_lasts),
		cmocka_unit_test(gathers),
		cmocka_unit_test(spreads),
		cmocka_unit_test(sends_back_who_has_come),
		cmocka_unit_test(refused),
		cmocka_unit_test(bucket_is_full),
		cmocka_unit_test(choice_ends),
		cmocka_unit_test(carries),
		cmocka_unit_test(refaults_are_seen),
		cmocka_unit_test(late_moves_pass),
		cmocka_unit_test(slow_links_are_seen),
		cmocka_unit_test(any_inputs),
		cmocka_unit_test(what_runs),
		cmocka_unit_test(gathers_from_a_quiet_node),
		cmocka_unit_test(members),
		cmocka_unit_test(nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
