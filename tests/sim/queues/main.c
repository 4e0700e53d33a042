/* SPDX-License-Identifier: Apache-2.0 */
/* The command of the simulator of moving queues, and the test of its judge. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/queues/world.h"

static const char help[] =
	"The deterministic simulator of a device's queues that move between nodes.\n"
	"\n"
	"  sim-queues --count N [--from A]   seeds A.. (1..), N of them\n"
	"  sim-queues --seed S [--trace]     one seed, with every step on stdout\n"
	"  sim-queues --broken               every broken variant must be caught\n"
	"\n"
	"Exit status: 0 when nothing failed, 1 when something did, 2 for a wrong command line.\n";

#define FAILURES_MAX 10
#define BROKEN_SEEDS 5000

static const struct variant {
	uint8_t core, edge;
	const char *name;
} variants[] = {
	{ QUEUE_BROKEN_OLD_PLACE, 0, "old news believed" },
	{ QUEUE_BROKEN_OLD_QUEUE, 0, "QUEUE of an old life" },
	{ QUEUE_BROKEN_OLD_GAVE, 0, "given in an old life" },
	{ QUEUE_BROKEN_STAYS, 0, "a reset brings nothing back" },
	{ QUEUE_BROKEN_LEAVING_AWAY, 0, "leaving is away" },
	{ QUEUE_BROKEN_EARLY, 0, "leaves before all know" },
	{ 0, EDGE_BROKEN_NO_LOOK, "takes without a look" },
	{ 0, EDGE_BROKEN_DROP, "doorbell dropped" },
	{ 0, EDGE_BROKEN_LEFT, "left doorbell dropped" },
	{ 0, EDGE_BROKEN_WORD_FIRST, "AWAY before QUEUE" },
	{ 0, EDGE_BROKEN_UNDER_WAY, "given with chains" },
	{ 0, EDGE_BROKEN_STOPPED_EARLY, "STOPPED early" },
	{ 0, EDGE_BROKEN_ONE_STOPPED, "one STOPPED is enough" },
	{ 0, EDGE_BROKEN_TOLD_FIRST, "others are told first" },
	{ 0, EDGE_BROKEN_UNSTARTED, "taken before the start" },
};
#define VARIANT_COUNT (sizeof(variants) / sizeof(variants[0]))

static struct world world;

static uint64_t run_broken(void)
{
	uint64_t missed = VARIANT_COUNT != QUEUE_BROKEN_COUNT + EDGE_BROKEN_COUNT - 2;

	if (missed)
		printf("FAILED: not every defect is tried\n");
	for (size_t i = 0; i < VARIANT_COUNT; i++) {
		uint64_t seed = 1;

		for (world.rule = RULE_NONE; seed <= BROKEN_SEEDS && !world.rule; seed++) {
			struct plan plan;

			plan_make(&plan, seed);
			plan.core_broken = variants[i].core;
			plan.edge_broken = variants[i].edge;
			if (world_run(&world, &plan, false))
				abort();
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
	uint64_t failed = 0, moves = 0, resets = 0, served = 0, bells = 0, forwards = 0,
		 messages = 0;
	uint32_t permille = 0;

	for (uint64_t seed = first; seed < first + count && failed < FAILURES_MAX; seed++) {
		struct plan plan;

		plan_make(&plan, seed);
		if (world_run(&world, &plan, trace))
			abort();
		if (world.rule) {
			failed++;
			printf("FAILED seed %" PRIu64 ": %s at %" PRIu64 " ns: %s\n", seed,
			       rule_name(world.rule), world.now_ns, world.text);
		}
		moves += world.moves;
		resets += world.resets;
		served += world.served;
		bells += world.bells;
		forwards += world.forwards;
		messages += world.messages;
		if (world.bound_permille > permille)
			permille = world.bound_permille;
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " failed: %" PRIu64 " hand-overs, %" PRIu64
	       " resets, %" PRIu64 " chains, %" PRIu64 " doorbells, %" PRIu64 " sent on, %" PRIu64
	       " messages; at most %u permille of the bound\n",
	       count, failed, moves, resets, served, bells, forwards, messages, permille);
	return failed;
}

int main(int argc, char **argv)
{
	struct sim_command command;
	int status = sim_command_parse(argc, argv, "sim-queues", help, &command);
	uint64_t failed = 0;

	if (status >= 0)
		return status;
	if (command.broken)
		failed += run_broken();
	if (command.count)
		failed += run_seeds(command.first, command.count, command.trace);
	return failed ? 1 : 0;
}
