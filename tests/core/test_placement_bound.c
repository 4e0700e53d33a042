// SPDX-License-Identifier: Apache-2.0
/*
 * The guarantee of docs/placement.md against the best choice in hindsight.
 *
 * the_proven_factor_* hold the rule that is proven, and nothing else (PLACEMENT_RULE_ALONE), to the
 * factor that is proven, 3: over all short demands, over random ones, and over an adversary who always
 * asks where the vCPU is not, who comes as close to it as can be. the_other_factors hold the formula of
 * the page's table to a model of the rule with what the table says. And what runs, with all that is
 * added, is held to the same formula with what the replay lets it believe: at random, and over swings
 * as slow as hurt most. That the dynamic program is right is seen by trying all ways.
 */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/placement_trace.h"
#include "tests/rng.h"

#define MOVE_NS 164000u

/* docs/placement.md: the factor for thresholds of low..high moves, a debt and dwell of `late`
 * moves. */
static double factor_of(double low, double high, double late)
{
	double a = high + 1 + late, b = 1 + (high + 2 + 2 * late) / low;

	return a > b ? a : b;
}

struct run {
	struct placement_replay *replay;
	uint64_t now_ns;
	uint32_t nodes;
};

static void line(struct run *run, const char *text)
{
	const char *reason;

	if (placement_replay_line(run->replay, text, strlen(text), &reason) != 0)
		fail_msg("%s: %s", reason, text);
}

static uint64_t lines;

static void begin_broken(struct run *run, enum placement_policy policy, uint32_t broken,
			 uint32_t nodes)
{
	char text[PLACEMENT_TRACE_LINE];

	run->nodes = nodes;
	run->now_ns = 1000000;
	assert_int_equal(placement_replay_create(policy, broken, &run->replay), 0);
	snprintf(text, sizeof(text), "eagre placement trace 2 nodes=%u vcpus=1 move_ns=%u", nodes,
		 MOVE_NS);
	line(run, text);
	line(run, "place 0 0 0 0");
	lines = 1;
}

static void begin(struct run *run, enum placement_policy policy, uint32_t nodes)
{
	begin_broken(run, policy, PLACEMENT_BROKEN_NOTHING, nodes);
}

static void stall(struct run *run, uint32_t owner, uint64_t took_ns, uint64_t ran_ns)
{
	char text[PLACEMENT_TRACE_LINE];

	run->now_ns += took_ns + ran_ns;
	snprintf(text, sizeof(text), "stall %llu 0 %u %llu write %u 1 1 0",
		 (unsigned long long)run->now_ns, owner, (unsigned long long)took_ns, owner);
	line(run, text);
	lines++;
}

static struct placement_replay_result end(struct run *run)
{
	struct placement_replay_result result;
	char text[PLACEMENT_TRACE_LINE];
	const char *reason;

	snprintf(text, sizeof(text), "end %llu", (unsigned long long)lines);
	line(run, text);
	assert_int_equal(placement_replay_finish(run->replay, &result, &reason), 0);
	placement_replay_destroy(run->replay);
	return result;
}

/*
 * What is proven: 3, and for each move as much more as the stall that fills the credit may have too
 * much, which earns nothing. Credit is rounded up, to a 2^30th of the whole.
 */
static double check_proven(const struct placement_replay_result *result, uint64_t too_much_ns)
{
	double late = (double)too_much_ns / MOVE_NS;
	double bound = factor_of(2, 2, late) * (double)result->best_ns;

	if ((double)result->policy_ns > bound + (double)result->stall_count)
		fail_msg("%llu ns, the best %llu: more than %.3f times as much",
			 (unsigned long long)result->policy_ns, (unsigned long long)result->best_ns,
			 factor_of(2, 2, late));
	return result->best_ns ? (double)result->policy_ns / (double)result->best_ns : 0;
}

/* Four stalls fill the credit, so nothing is too much: all demands of so many stalls on three nodes. */
static void the_proven_factor_of_all(void **state)
{
	enum { COUNT = 8, WAYS = 6561 };
	double worst = 0;

	for (uint32_t way = 0; way < WAYS; way++) {
		struct placement_replay_result result;
		struct run run;

		begin_broken(&run, PLACEMENT_BASE, PLACEMENT_RULE_ALONE, 3);
		for (uint32_t i = 0, left = way; i < COUNT; i++, left /= 3)
			stall(&run, left % 3, MOVE_NS / 2, 1000);
		result = end(&run);
		double ratio = check_proven(&result, 0);

		worst = ratio > worst ? ratio : worst;
	}
	print_message("worst of all short demands: %.3f times the best\n", worst);
}

static void the_proven_factor_at_random(void **state)
{
	double worst = 0;

	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct rng rng = { seed };
		uint32_t nodes = 2 + rng_below(&rng, 4), owner = 0;
		uint32_t stay = 1 + rng_below(&rng, 97), longest = 2000 + rng_below(&rng, MOVE_NS);
		struct placement_replay_result result;
		struct run run;

		begin_broken(&run, PLACEMENT_BASE, PLACEMENT_RULE_ALONE, nodes);
		for (int i = 0; i < 1000; i++) {
			if (!rng_chance(&rng, stay))
				owner = rng_below(&rng, nodes);
			/* Of every third the adversary has it as it hurts. */
			if (seed % 3 == 0 && placement_replay_node(run.replay, 0) == owner)
				owner = (owner + 1) % nodes;
			stall(&run, owner, 1000 + rng_below(&rng, longest), rng_below(&rng, 50000));
		}
		result = end(&run);
		double ratio = check_proven(&result, result.longest_ns);

		worst = ratio > worst ? ratio : worst;
	}
	print_message("the rule alone at random: %.3f times the best\n", worst);
}

/* Always where it is not: nobody can be hurt more, and the factor is reached. */
static void the_proven_factor_is_reached(void **state)
{
	for (uint32_t nodes = 2; nodes <= 5; nodes++) {
		struct placement_replay_result result;
		struct run run;

		begin_broken(&run, PLACEMENT_BASE, PLACEMENT_RULE_ALONE, nodes);
		for (int i = 0; i < 40 * 100; i++)
			stall(&run, placement_replay_node(run.replay, 0) == 0, MOVE_NS / 20, 1000);
		result = end(&run);
		double ratio = check_proven(&result, 0);

		print_message("against the rule alone, %u nodes: %.3f times the best\n", nodes,
			      ratio);
		assert_true(ratio > 2.97);
	}
}

/*
 * The table: a rule whose threshold is anything from low to high moves at each stall, as the adversary
 * likes, and that gives no credit to `late` moves' worth of stalls after each move.
 */
static double model(struct rng *rng, double low, double high, double late, double stall_moves)
{
	double credit[3] = { 1, 0, 0 }, best[3] = { 0, 1, 1 }, cost = 0, no_credit = 0, least = 0;
	uint32_t at = 0, owner = 0, stay = 1 + rng_below(rng, 98);

	for (int i = 0; i < 4000; i++) {
		double x = stall_moves, threshold = rng_chance(rng, 50) ? low : high;

		if (!rng_chance(rng, stay) || owner == at)
			owner = (at + 1 + rng_below(rng, 2)) % 3;
		cost += x;
		least = 1e300;
		for (uint32_t n = 0; n < 3; n++) {
			best[n] += n == owner ? 0 : x;
			least = best[n] < least ? best[n] : least;
		}
		for (uint32_t n = 0; n < 3; n++)
			best[n] = best[n] < least + 1 ? best[n] : least + 1;
		if (no_credit > 0) {
			no_credit -= x;
			continue;
		}
		double part = x / threshold, other;

		part = part < 1 - credit[owner] ? part : 1 - credit[owner];
		credit[owner] += part;
		for (uint32_t n = 0; n < 3; n++) {
			if (n == owner || n == at)
				continue;
			other = credit[n] < part ? credit[n] : part;
			credit[n] -= other;
			part -= other;
		}
		credit[at] -= part;
		if (credit[owner] < 1 - 1e-9)
			continue;
		credit[0] = credit[1] = credit[2] = 0;
		credit[owner] = 1;
		at = owner;
		cost += 1;
		no_credit = late;
	}
	return cost / least;
}

static void the_other_factors(void **state)
{
	/* As in docs/placement.md. */
	static const struct {
		double low, high, late, factor;
	} row[] = { { 2, 2, 0, 3 }, { 2, 4, 6, 11 }, { 2, 16, 18, 35 }, { 0.5, 16, 18, 109 } };

	for (size_t k = 0; k < sizeof(row) / sizeof(row[0]); k++) {
		double worst = 0, x = 0.05;
		/* As above: of each move's last stall something is too much, or earns credit late. */
		double bound = factor_of(row[k].low, row[k].high, row[k].late + 2 * x);

		assert_true(factor_of(row[k].low, row[k].high, row[k].late) == row[k].factor);
		for (uint64_t seed = 1; seed <= 200; seed++) {
			struct rng rng = { seed };
			double ratio = model(&rng, row[k].low, row[k].high, row[k].late, x);

			worst = ratio > worst ? ratio : worst;
		}
		print_message("thresholds of %.1f to %.0f, %.0f late: %.2f times the best\n",
			      row[k].low, row[k].high, row[k].late, worst);
		assert_true(worst <= bound);
		assert_true(worst > 2);
	}
}

/* The bound for the policy, with what fading may cost in this time. */
static double check(const struct placement_replay_result *result, enum placement_policy policy)
{
	/* What it leaves behind may be taken to be 50 times what a move costs here. */
	double low = policy == PLACEMENT_LEARNED ? 0.5 : 2, high = 16 + 2 * 50;
	/* What it fetched before, what it leaves behind; a dwell is one; and the last stall. */
	double late = high + 50 + 1 + (double)result->longest_ns / MOVE_NS;
	double fading = (high + 1 + late) * MOVE_NS * (double)result->last_ns / 64e6;
	double bound = factor_of(low, high, late) * (double)result->best_ns + fading;

	assert_true((double)result->policy_ns <= bound);
	return result->best_ns ? (double)result->policy_ns / (double)result->best_ns : 0;
}

static void at_random(void **state)
{
	static const enum placement_policy policy[] = { PLACEMENT_BASE, PLACEMENT_LEARNED };
	double worst = 0;

	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct rng rng = { seed };
		uint32_t nodes = 2 + rng_below(&rng, 5), owner = 0;
		uint32_t stay = 1 + rng_below(&rng, 97);
		struct placement_replay_result result;
		struct run run;

		begin(&run, policy[seed % 2], nodes);
		for (int i = 0; i < 2000; i++) {
			if (!rng_chance(&rng, stay))
				owner = rng_below(&rng, nodes);
			stall(&run, owner, 20000 + rng_below(&rng, 150000), rng_below(&rng, 50000));
		}
		result = end(&run);
		double ratio = check(&result, policy[seed % 2]);

		worst = ratio > worst ? ratio : worst;
	}
	print_message("worst at random: %.2f times the best\n", worst);
	/* Far from the bound: or something has become worse. */
	assert_true(worst < 12);
}

/* The adversary knows the rule and always asks where it is not; and swings with all periods. */
static void against_it(void **state)
{
	double worst = 0;

	for (uint32_t period = 1; period <= 60; period++) {
		struct placement_replay_result result;
		struct run run;

		begin(&run, PLACEMENT_BASE, 2);
		for (int i = 0; i < 3000; i++)
			stall(&run, i / (int)period % 2, 82000, 1000);
		result = end(&run);
		double ratio = check(&result, PLACEMENT_BASE);

		worst = ratio > worst ? ratio : worst;
	}
	print_message("worst of swings: %.2f times the best\n", worst);
	assert_true(worst < 24);
}

/* Without shares: what the rule would be if it moved at once, or never, is not bounded. */
static void others_are_not(void **state)
{
	static const enum placement_policy policy[] = { PLACEMENT_PAGES, PLACEMENT_VCPUS };

	for (int k = 0; k < 2; k++) {
		struct placement_replay_result result;
		struct run run;

		begin(&run, policy[k], 3);
		for (int i = 0; i < 4000; i++)
			stall(&run, k == 0 ? 1 : i % 8 == 0, 20000, 2000000);
		result = end(&run);
		assert_true((double)result.policy_ns > 4 * (double)result.best_ns);
	}
}

/* The best in hindsight, by all ways that there are. */
static uint64_t by_all_ways(const uint32_t *owner, const uint64_t *took, int count, uint32_t at)
{
	uint64_t best = UINT64_MAX;

	if (count == 0)
		return 0;
	for (uint32_t to = 0; to < 3; to++) {
		uint64_t cost = (to != at ? MOVE_NS : 0) + (to != *owner ? *took : 0) +
				by_all_ways(owner + 1, took + 1, count - 1, to);

		best = cost < best ? cost : best;
	}
	return best;
}

static void hindsight(void **state)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct rng rng = { seed };
		uint32_t owner[8];
		uint64_t took[8];
		struct run run;

		begin(&run, PLACEMENT_PAGES, 3);
		for (int i = 0; i < 8; i++) {
			owner[i] = rng_below(&rng, 3);
			took[i] = 1000 + rng_below(&rng, 200000);
			stall(&run, owner[i], took[i], 1000);
		}
		assert_int_equal(end(&run).best_ns, by_all_ways(owner, took, 8, 0));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_proven_factor_of_all),
		cmocka_unit_test(the_proven_factor_at_random),
		cmocka_unit_test(the_proven_factor_is_reached),
		cmocka_unit_test(the_other_factors),
		cmocka_unit_test(at_random),
		cmocka_unit_test(against_it),
		cmocka_unit_test(others_are_not),
		cmocka_unit_test(hindsight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
