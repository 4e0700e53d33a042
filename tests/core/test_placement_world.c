// SPDX-License-Identifier: Apache-2.0
/*
 * The policies in the simulated pod of bench/: what moves vCPUs is worth it where it should be, and
 * does no harm where it should not be; with the guards left out it is not so; the same seed gives
 * the same run.
 */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "bench/placement_world.h"
#include "core/placement_trace.h"

static struct world_result result[2];

#define QUARTET_STALLS 5.5

static struct world_config config_of(enum world_load load, enum placement_policy policy)
{
	return (struct world_config){ .node_count = 3,
				      .core_count = 2,
				      .node_pages = 16384,
				      .load = load,
				      .policy = policy,
				      .seed = 1,
				      .duration_ns = 1000000000,
				      .costs = world_costs_default };
}

static double work(enum world_load load, enum placement_policy policy, uint32_t broken)
{
	struct world_config config = config_of(load, policy);

	config.broken = broken;
	assert_int_equal(world_run(&config, &result[0]), 0);
	return (double)result[0].work_ns;
}

/* Of a hundred: the least that base and learned do against pages. */
static const struct {
	enum world_load load;
	uint32_t least;
} expected[] = {
	{ LOAD_SCAN, 500 },   { LOAD_REGIONS, 200 },  { LOAD_RANDOM, 85 },
	{ LOAD_PAIR, 1000 },  { LOAD_CROSSED, 1000 }, { LOAD_INDEPENDENT, 99 },
	{ LOAD_APART, 97 },   { LOAD_TABLE, 95 },     { LOAD_PIPE, 1000 },
	{ LOAD_RELAY, 1000 }, { LOAD_QUARTET, 1000 }, { LOAD_TURNS, 300 },
};

static void worth_it(void **state)
{
	static const enum placement_policy policy[] = { PLACEMENT_BASE, PLACEMENT_LEARNED };

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		double pages = work(expected[i].load, PLACEMENT_PAGES, 0);

		for (int k = 0; k < 2; k++) {
			double got = work(expected[i].load, policy[k], 0);

			print_message("%s, %s: %.2f\n", world_load_name(expected[i].load),
				      placement_policy_name(policy[k]), got / pages);
			if (got * 100 < pages * expected[i].least)
				fail_msg("%s, %s: %.2f of pages", world_load_name(expected[i].load),
					 placement_policy_name(policy[k]), got / pages);
		}
	}
}

/* Of several seeds: where pages are scattered once, much depends on that. */
static double mean(enum world_load load, enum placement_policy policy, uint32_t broken)
{
	double sum = 0;

	for (uint32_t seed = 1; seed <= 8; seed++) {
		struct world_config config = config_of(load, policy);

		config.seed = seed;
		config.broken = broken;
		assert_int_equal(world_run(&config, &result[0]), 0);
		sum += (double)result[0].work_ns;
	}
	return sum;
}

/* What each guard is for. */
static void guards_help(void **state)
{
	static const struct {
		enum world_load load;
		enum placement_policy policy;
		enum placement_broken guard;
		double gain;
	} row[] = {
		{ LOAD_REGIONS, PLACEMENT_BASE, PLACEMENT_BROKEN_DEBT, 1.2 },
		{ LOAD_REGIONS, PLACEMENT_BASE, PLACEMENT_BROKEN_LEAVES, 1.1 },
		{ LOAD_CROSSED, PLACEMENT_BASE, PLACEMENT_BROKEN_YIELD, 1.03 },
		{ LOAD_TABLE, PLACEMENT_BASE, PLACEMENT_BROKEN_CROWD, 1.02 },
		{ LOAD_REGIONS, PLACEMENT_LEARNED, PLACEMENT_BROKEN_NEAR, 1.04 },
		{ LOAD_RANDOM, PLACEMENT_LEARNED, PLACEMENT_BROKEN_NEAR, 1.02 },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		double gain = mean(row[i].load, row[i].policy, 0) /
			      mean(row[i].load, row[i].policy, row[i].guard);

		print_message("%s, guard %d: %.3f\n", world_load_name(row[i].load), row[i].guard,
			      gain);
		assert_true(gain > row[i].gain);
	}
	/* It meets the other. What comes after may be what moves have been seen to leave behind. */
	work(LOAD_PAIR, PLACEMENT_BASE, 0);
	assert_in_range(result[0].move_count, 1, 4);
}

/*
 * Two that take turns, one that wakes up now and then, and a busy host: they come together and stay
 * so, whatever the third does. And if somebody is sent away by hand now and then, it takes little more
 * than one move until all is well again, not a hunt from node to node.
 */
static void stay_together(void **state)
{
	static const enum placement_policy policy[] = { PLACEMENT_BASE, PLACEMENT_LEARNED };
	static const uint32_t busy[] = { 0, 20 };

	for (int i = 0; i < 4; i++) {
		uint64_t moves = 0, by_hand = 0, alone = 0;

		for (uint32_t seed = 1; seed <= 4; seed++) {
			struct world_config config = config_of(LOAD_RELAY, policy[i % 2]);

			config.seed = seed;
			config.busy = busy[i / 2];
			config.duration_ns = 4000000000;
			assert_int_equal(world_run(&config, &result[0]), 0);
			alone += result[0].move_count;
			config.stir_ns = 200000000;
			assert_int_equal(world_run(&config, &result[0]), 0);
			moves += result[0].move_count;
			by_hand += result[0].stir_count;
		}
		print_message("relay, busy %u, %s: %u moves in all; of %u by hand %u\n",
			      busy[i / 2], placement_policy_name(policy[i % 2]), (unsigned)alone,
			      (unsigned)by_hand, (unsigned)moves);
		assert_true(by_hand > 30);
		assert_true(alone <= 32);
		assert_true(moves <= 3 * by_hand);
	}
}

/*
 * Two pairs on two nodes, crossed, with cores for two each: of three on a node the one is sent away
 * whose partner is elsewhere, and neither pair is torn apart again and again. Of many seeds.
 */
static void pairs_part(void **state)
{
	uint64_t moves = 0, work_ns = 0, stalls = 0;

	for (uint32_t seed = 1; seed <= 16; seed++) {
		struct world_config config = config_of(LOAD_QUARTET, PLACEMENT_BASE);

		config.node_count = 2;
		config.seed = seed;
		assert_int_equal(world_run(&config, &result[0]), 0);
		moves += result[0].move_count;
		stalls += result[0].stall_count;
		work_ns += result[0].work_ns;
	}
	print_message("quartet: %u moves, %.2f stalls a ms of work\n", (unsigned)moves,
		      (double)stalls * 1e6 / (double)work_ns);
	assert_true((double)stalls * 1e6 < QUARTET_STALLS * (double)work_ns);
}

/*
 * What is idle gathers, and spreads within 100 ms when there is work for more cores: also where there
 * has been some before, again and again, for so short that all had gathered soon after they were spread.
 */
static void spreads_in_time(void **state)
{
	static const struct {
		uint32_t nodes, cores, bursts, seeds;
	} pod[] = {
		{ 3, 1, 16, 3 }, { 3, 2, 50, 4 }, { 4, 4, 16, 2 }, { 16, 2, 4, 2 }, { 63, 2, 2, 1 }
	};
	static const enum placement_policy policy[] = { PLACEMENT_BASE, PLACEMENT_LEARNED };

	for (size_t i = 0; i < 2 * sizeof(pod) / sizeof(pod[0]); i++) {
		for (uint32_t seed = 1; seed <= pod[i / 2].seeds; seed++) {
			struct world_config config = config_of(LOAD_BURSTS, policy[i % 2]);

			config.node_count = pod[i / 2].nodes;
			config.core_count = pod[i / 2].cores;
			config.node_pages = 4096;
			config.duration_ns = pod[i / 2].bursts * 600000000ull;
			config.seed = seed;
			assert_int_equal(world_run(&config, &result[0]), 0);
			print_message(
				"bursts, %u nodes of %u, %s, seed %u: %u crowds, of %.0f ms at most; %u moves\n",
				config.node_count, config.core_count,
				placement_policy_name(config.policy), seed, result[0].crowd_count,
				(double)result[0].crowded_ns / 1e6, (unsigned)result[0].move_count);
			/* They have gathered before nearly each. */
			assert_true(result[0].crowd_count + 2 >= pod[i / 2].bursts);
			assert_true(result[0].crowd_count > 0);
			assert_in_range(result[0].crowded_ns, 1, 100 * 1000000);
		}
	}
}

static uint64_t moves_of_busy(uint32_t broken, uint64_t *ret_hasty)
{
	uint64_t moves = 0;

	*ret_hasty = 0;
	for (uint32_t seed = 1; seed <= 30; seed++) {
		struct world_config config = config_of(LOAD_QUARTET, PLACEMENT_LEARNED);

		config.node_count = 2;
		config.core_count = 4;
		config.busy = 100;
		config.duration_ns = 2000000000;
		config.seed = seed;
		config.broken = broken;
		assert_int_equal(world_run(&config, &result[0]), 0);
		moves += result[0].move_count;
		*ret_hasty += result[0].hasty_count;
		/* Whoever wants to run gets on, wherever he is. */
		assert_in_range(result[0].hasty_row, 0, 24);
	}
	return moves;
}

/*
 * Where others take the hosts' cores vCPUs do not go from node to node without having worked: a stay
 * in which they waited for a core is none that was worth it.
 */
static void busy_hosts_settle(void **state)
{
	uint64_t hasty, hasty_without;
	uint64_t moves = moves_of_busy(0, &hasty);
	uint64_t without = moves_of_busy(PLACEMENT_BROKEN_WAITED, &hasty_without);

	print_message("quartet, busy: %u moves, %u of them hasty; without what waits cost %u, %u\n",
		      (unsigned)moves, (unsigned)hasty, (unsigned)without, (unsigned)hasty_without);
	assert_true(moves * 5 < without * 4);
	assert_true(hasty * 4 < hasty_without * 3);
}

/* A move that takes along what will be touched costs less. */
static void hints_help(void **state)
{
	double with = mean(LOAD_SCAN, PLACEMENT_BASE, 0), without = 0;

	for (uint32_t seed = 1; seed <= 8; seed++) {
		struct world_config config = config_of(LOAD_SCAN, PLACEMENT_BASE);

		config.seed = seed;
		config.no_hints = true;
		assert_int_equal(world_run(&config, &result[0]), 0);
		without += (double)result[0].work_ns;
	}
	print_message("scan, hints: %.3f\n", with / without);
	assert_true(with > 1.02 * without);
}

static void same_again(void **state)
{
	struct world_config config = config_of(LOAD_TURNS, PLACEMENT_LEARNED);

	for (int i = 0; i < 2; i++)
		assert_int_equal(world_run(&config, &result[i]), 0);
	assert_memory_equal(&result[0], &result[1], sizeof(result[0]));
	config.seed = 2;
	assert_int_equal(world_run(&config, &result[1]), 0);
	assert_memory_not_equal(&result[0], &result[1], sizeof(result[0]));
}

/* Of one vCPU a replay under the policy that was recorded makes the same decisions: so its figures
 * for others are about decisions, and about nothing else. */
static void replayed(void **state)
{
	static const enum world_load load[] = { LOAD_SCAN, LOAD_REGIONS, LOAD_RANDOM };

	for (int i = 0; i < 3; i++) {
		struct world_config config = config_of(load[i], PLACEMENT_BASE);
		struct placement_replay_result replayed;
		struct placement_replay *replay;
		char line[PLACEMENT_TRACE_LINE];
		const char *reason;

		config.trace = tmpfile();
		assert_non_null(config.trace);
		assert_int_equal(world_run(&config, &result[0]), 0);
		rewind(config.trace);
		assert_int_equal(placement_replay_create(PLACEMENT_BASE, 0, &replay), 0);
		while (fgets(line, sizeof(line), config.trace))
			assert_int_equal(
				placement_replay_line(replay, line, strlen(line) - 1, &reason), 0);
		assert_int_equal(placement_replay_finish(replay, &replayed, &reason), 0);
		assert_int_equal(replayed.policy_ns / 1000000, replayed.recorded_ns / 1000000);
		/* One may have begun as the run ended. */
		assert_in_range(replayed.move_count, replayed.recorded_moves,
				replayed.recorded_moves + 1);
		assert_true(replayed.move_count > 1);
		placement_replay_destroy(replay);
		fclose(config.trace);
	}
}

/* All that the learner has decided is in a trace, follows from its figures, and has its outcome. */
static void decisions_recorded(void **state)
{
	struct world_config config = config_of(LOAD_SCAN, PLACEMENT_LEARNED);
	struct placement_replay_result replayed;
	struct placement_replay *replay;
	char line[PLACEMENT_TRACE_LINE];
	const char *reason;

	config.trace = tmpfile();
	assert_non_null(config.trace);
	assert_int_equal(world_run(&config, &result[0]), 0);
	rewind(config.trace);
	assert_int_equal(placement_replay_create(PLACEMENT_LEARNED, 0, &replay), 0);
	while (fgets(line, sizeof(line), config.trace))
		if (placement_replay_line(replay, line, strlen(line) - 1, &reason) != 0)
			fail_msg("%s: %s", reason, line);
	assert_int_equal(placement_replay_finish(replay, &replayed, &reason), 0);
	assert_int_equal(replayed.choice_count,
			 result[0].stats.arm_count[PLACEMENT_ARM_BASE] +
				 result[0].stats.arm_count[PLACEMENT_ARM_EAGER]);
	assert_true(result[0].stats.arm_count[PLACEMENT_ARM_EAGER] > 5);
	assert_int_equal(replayed.outcome_count, result[0].stats.learned_count);
	/* One may be open as the run ends. */
	assert_in_range(replayed.outcome_count, replayed.choice_count - 1, replayed.choice_count);
	assert_int_equal(replayed.go_count, result[0].stats.move_count);
	assert_int_equal(replayed.odd_count, 0);
	placement_replay_destroy(replay);
	fclose(config.trace);
}

static double messages_a_stall(enum world_load load, uint16_t nodes)
{
	struct world_config config = config_of(load, PLACEMENT_PAGES);

	config.node_count = nodes;
	config.duration_ns = 200000000;
	assert_int_equal(world_run(&config, &result[0]), 0);
	return result[0].stall_count == 0
		       ? 0
		       : (double)result[0].message_count / (double)result[0].stall_count;
}

/*
 * By docs/protocol.md: three or four for a page from another node, one or two less where the home is
 * one of both; two more for each further copy that has to go, and for a page that is pushed away as
 * many as for one that is fetched. The bounds are so narrow that each message that is not counted
 * leaves them.
 */
static void messages(void **state)
{
	struct world_config config = config_of(LOAD_INDEPENDENT, PLACEMENT_PAGES);
	double a_stall;
	uint64_t of_stalls;

	assert_int_equal(world_run(&config, &result[0]), 0);
	assert_int_equal(result[0].message_count, 0);
	/* One of the two is at the pages' home: 2 for what it fetches, 3 for the other's; of rights
	 * alone 2 and 4. */
	a_stall = messages_a_stall(LOAD_PAIR, 3);
	print_message("pair: %.3f messages a stall\n", a_stall);
	assert_true(a_stall > 2.6 && a_stall < 2.75);
	/* Reads, read ahead of which nothing comes, and writes that take back 15 copies. */
	a_stall = messages_a_stall(LOAD_TABLE, 16);
	print_message("table of 16: %.3f messages a stall\n", a_stall);
	assert_true(a_stall > 3 && a_stall < 3.6);
	/* Of what comes to a full node each pushes one away. */
	a_stall = messages_a_stall(LOAD_RANDOM, 3);
	print_message("random: %.3f messages a stall\n", a_stall);
	assert_true(a_stall > 5.03 && a_stall < 5.07);
	/* MOVE and 15 PLACE. */
	config = config_of(LOAD_PAIR, PLACEMENT_BASE);
	config.node_count = 16;
	config.duration_ns = 4000000;
	assert_int_equal(world_run(&config, &result[0]), 0);
	of_stalls = result[0].message_count - 16 * result[0].move_count;
	a_stall = (double)of_stalls / (double)result[0].stall_count;
	print_message("pairs of 16: %.3f messages a stall\n", a_stall);
	assert_true(a_stall > 2.65 && a_stall < 2.76);
	assert_true(result[0].move_count > 0);
}

/* What one run has learned the next begins with. */
static void goes_on(void **state)
{
	struct world_config config = config_of(LOAD_SCAN, PLACEMENT_LEARNED);

	assert_int_equal(world_run(&config, &result[0]), 0);
	assert_true(result[0].stats.learned_count > 10);
	config.state = result[0].state;
	assert_int_equal(world_run(&config, &result[1]), 0);
	assert_string_not_equal(result[0].state, result[1].state);
	config.state = "eagre placement state 9\n";
	assert_true(world_run(&config, &result[1]) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worth_it),	   cmocka_unit_test(guards_help),
		cmocka_unit_test(stay_together),   cmocka_unit_test(pairs_part),
		cmocka_unit_test(spreads_in_time), cmocka_unit_test(busy_hosts_settle),
		cmocka_unit_test(hints_help),	   cmocka_unit_test(same_again),
		cmocka_unit_test(replayed),	   cmocka_unit_test(decisions_recorded),
		cmocka_unit_test(messages),	   cmocka_unit_test(goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
