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
	{ LOAD_SCAN, 500 },	{ LOAD_REGIONS, 200 },	  { LOAD_RANDOM, 85 }, { LOAD_PAIR, 1000 },
	{ LOAD_CROSSED, 1000 }, { LOAD_INDEPENDENT, 99 }, { LOAD_APART, 97 },  { LOAD_TABLE, 95 },
	{ LOAD_PIPE, 1000 },	{ LOAD_TURNS, 300 },
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

/* What each guard is for. */
static void guards_help(void **state)
{
	assert_true(work(LOAD_REGIONS, PLACEMENT_BASE, 0) >
		    1.05 * work(LOAD_REGIONS, PLACEMENT_BASE, PLACEMENT_BROKEN_DEBT));
	assert_true(work(LOAD_TABLE, PLACEMENT_BASE, 0) >
		    1.05 * work(LOAD_TABLE, PLACEMENT_BASE, PLACEMENT_BROKEN_CROWD));
	work(LOAD_PAIR, PLACEMENT_BASE, 0);
	assert_in_range(result[0].move_count, 1, 2);
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
		assert_true(replayed.move_count > 5);
		placement_replay_destroy(replay);
		fclose(config.trace);
	}
}

/* By docs/protocol.md: no messages where nobody stalls on another's page, three or four for a page
 * from there, two more for each further copy that has to go. */
static void messages(void **state)
{
	struct world_config config = config_of(LOAD_INDEPENDENT, PLACEMENT_PAGES);
	double a_stall;

	assert_int_equal(world_run(&config, &result[0]), 0);
	assert_int_equal(result[0].message_count, 0);
	work(LOAD_PAIR, PLACEMENT_PAGES, 0);
	a_stall = (double)result[0].message_count / (double)result[0].stall_count;
	print_message("pair: %.2f messages a stall\n", a_stall);
	assert_true(a_stall > 1.9 && a_stall < 4.1);
	config = config_of(LOAD_TABLE, PLACEMENT_PAGES);
	config.node_count = 16;
	assert_int_equal(world_run(&config, &result[0]), 0);
	a_stall = (double)result[0].message_count / (double)result[0].stall_count;
	print_message("table of 16: %.2f messages a stall\n", a_stall);
	assert_true(a_stall > 3 && a_stall < 12);
	/* MOVE and 15 PLACE. */
	config = config_of(LOAD_PAIR, PLACEMENT_BASE);
	config.node_count = 16;
	config.duration_ns = 100000000;
	assert_int_equal(world_run(&config, &result[0]), 0);
	assert_true(result[0].move_count > 0 &&
		    result[0].message_count > 16 * result[0].move_count);
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
		cmocka_unit_test(worth_it),   cmocka_unit_test(guards_help),
		cmocka_unit_test(same_again), cmocka_unit_test(replayed),
		cmocka_unit_test(messages),   cmocka_unit_test(goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
