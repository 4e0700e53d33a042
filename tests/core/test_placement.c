// SPDX-License-Identifier: Apache-2.0
/*
 * Placement: the base rule and the policies, whose stalls count for whom, and inputs of every kind.
 * What else there is: test_placement_guards.c, test_placement_moves.c, test_placement_tick.c.
 */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "tests/core/placement_made.h"
#include "tests/rng.h"

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
		cmocka_unit_test(one_stall_moves_nobody),
		cmocka_unit_test(company),
		cmocka_unit_test(eager_alone),
		cmocka_unit_test(crowds_last),
		cmocka_unit_test(what_they_left),
		cmocka_unit_test(any_inputs),
		cmocka_unit_test(what_runs),
		cmocka_unit_test(members),
		cmocka_unit_test(nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
