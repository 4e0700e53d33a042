/* SPDX-License-Identifier: Apache-2.0 */
/* The command of the simulator of membership, and the test of its judge. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/members/world.h"

static const char help[] =
	"The deterministic simulator of a pod whose members come and go.\n"
	"\n"
	"  sim-members --count N [--from A]   seeds A.. (1..), N of them\n"
	"  sim-members --seed S [--trace]     one seed, with every step on stdout\n"
	"  sim-members --broken               every broken variant must be caught\n"
	"\n"
	"Exit status: 0 when nothing failed, 1 when something did, 2 for a wrong command line.\n";

#define FAILURES_MAX 10
#define BROKEN_SEEDS 5000

static const struct variant {
	uint8_t core, edge;
	const char *name;
} variants[] = {
	{ MEMBER_BROKEN_ONE_DONE, 0, "one has not said DONE" },
	{ MEMBER_BROKEN_NOT_OVER, 0, "next step before OVER" },
	{ MEMBER_BROKEN_BESIDE_JOIN, 0, "steps beside a join" },
	{ MEMBER_BROKEN_JOINER_ENDS, 0, "a joiner's loss ends all" },
	{ MEMBER_BROKEN_LOST_ACTIVE, 0, "ACTIVE, and lost" },
	{ MEMBER_BROKEN_GONE_EARLY, 0, "GONE, and still needed" },
	{ MEMBER_BROKEN_TWO_STEWARDS, 0, "two stewards" },
	{ MEMBER_BROKEN_WISHES_DROPPED, 0, "wishes not sent on" },
	{ MEMBER_BROKEN_NO_DEADLINE, 0, "no deadline" },
	{ MEMBER_BROKEN_SEAT_LEAVES, 0, "a seat leaves" },
	{ MEMBER_BROKEN_EAGER, 0, "wishes while the seat moves" },
	{ 0, EDGE_BROKEN_DRAIN_AT_ONCE, "DRAIN done at once" },
	{ 0, EDGE_BROKEN_GONE_AT_ONCE, "GONE done at once" },
	{ 0, EDGE_BROKEN_UNFLUSHED, "FREE without flushes" },
	{ 0, EDGE_BROKEN_FREE_LINKED, "FREE while he is linked" },
	{ 0, EDGE_BROKEN_DRAINED_EARLY, "DRAINED before OVER" },
	{ 0, EDGE_BROKEN_READY_EARLY, "READY without links" },
	{ 0, EDGE_BROKEN_BEGINS_DRAINING, "begun at a leaver" },
	{ 0, EDGE_BROKEN_BEGINS_JOINING, "begun by a joiner" },
	{ 0, EDGE_BROKEN_LEAVES_EARLY, "ends at OVER" },
	{ 0, EDGE_BROKEN_ENDS_EARLY, "links ended at DONE" },
};
#define VARIANT_COUNT (sizeof(variants) / sizeof(variants[0]))

static struct world world;

static uint64_t run_broken(void)
{
	uint64_t missed = VARIANT_COUNT != MEMBER_BROKEN_COUNT + EDGE_BROKEN_COUNT - 2;

	if (missed)
		printf("FAILED: not every defect is tried\n");
	for (size_t i = 0; i < VARIANT_COUNT; i++) {
		uint64_t seed = 1;

		for (world.rule = RULE_NONE; seed <= BROKEN_SEEDS && !world.rule; seed++) {
			struct plan plan;

			plan_make(&plan, seed);
			plan.core_broken = variants[i].core;
			plan.edge_broken = variants[i].edge;
			world_run(&world, &plan, false);
		}
		missed += !world.rule;
		printf("%s  %-28s by %-9s at seed %4" PRIu64 "  %s\n",
		       world.rule ? "caught" : "FAILED", variants[i].name, rule_name(world.rule),
		       seed - 1, world.text);
	}
	return missed;
}

static uint64_t run_seeds(uint64_t first, uint64_t count, bool trace)
{
	uint64_t failed = 0, steps = 0, joins = 0, failed_joins = 0, leaves = 0, seats = 0,
		 refused = 0, moves = 0, messages = 0, ends = 0;

	for (uint64_t seed = first; seed < first + count && failed < FAILURES_MAX; seed++) {
		struct plan plan;

		plan_make(&plan, seed);
		world_run(&world, &plan, trace);
		if (world.rule) {
			failed++;
			printf("seed %" PRIu64 ": %s: %s\n", seed, rule_name(world.rule),
			       world.text);
		}
		steps += world.steps;
		joins += world.joins;
		failed_joins += world.failed_joins;
		leaves += world.leaves;
		seats += world.seats;
		refused += world.refused;
		moves += world.moves;
		messages += world.messages;
		ends += world.ends > 0;
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " failed: %" PRIu64 " steps, %" PRIu64
	       " joins of which %" PRIu64 " failed, %" PRIu64 " leaves, %" PRIu64 " seats, %" PRIu64
	       " wishes refused, %" PRIu64 " things moved, %" PRIu64 " messages, %" PRIu64
	       " pods ended\n",
	       count, failed, steps, joins, failed_joins, leaves, seats, refused, moves, messages,
	       ends);
	return failed;
}

int main(int argc, char **argv)
{
	struct sim_command command;
	int status = sim_command_parse(argc, argv, "sim-members", help, &command);
	uint64_t failed = 0;

	if (status >= 0)
		return status;
	if (command.broken)
		failed += run_broken();
	if (command.count)
		failed += run_seeds(command.first, command.count, command.trace);
	return failed ? 1 : 0;
}
