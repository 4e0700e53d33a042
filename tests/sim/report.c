/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two tables.
 *
 * Messages per stall: every node works on pages that it shares with three others, however many
 * nodes the pod has; so sharers are the same in every row, and what grows with the rows is the
 * protocol's own.
 *
 * Holds: two and more nodes write the same few pages over links where a stall costs some hundred
 * microseconds, as page tables under nested paging are written. The share of time that actors spend
 * on their instructions, for holds of a fixed length and for the adaptive one.
 */
#include "tests/sim/options.h"

#include <inttypes.h>
#include <stdio.h>

#define US 1000ull
#define MS 1000000ull

/* A row may need so many messages more per stall than the first, in percent. */
#define GROWTH_MAX_PERCENT 10

static struct plan quiet_plan(uint64_t nodes)
{
	return (struct plan){
		.seed = 1,
		.nodes = nodes,
		.shards = 1,
		.vcpus = 1,
		.pages = CHUNK_PAGES / 4 * nodes,
		.fill_percent = 25,
		.window = 16,
		.zero_batch = 1,
		.hold_ns = 10 * US,
		.hold_ns_max = 2000 * US,
		.delay_min_ns = 10 * US,
		.delay_max_ns = 20 * US,
		.wake_min_ns = 2 * US,
		.wake_max_ns = 5 * US,
		.think_min_ns = 1 * US,
		.think_max_ns = 3 * US,
		.pattern = PATTERN_GROUP,
		.hot_pages = 1,
		.write_percent = 30,
		.multi_pages = 1,
		.quota = 1500,
		.events_max = 100000000,
		.quick_end = 1,
	};
}

static void print_row(uint64_t nodes, const struct coh_stats *stats, uint64_t stalls)
{
	const uint64_t *kind = stats->stall_count;
	double each = stalls ? (double)stalls : 1;

	printf("| %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %.3f | %.3f | %" PRIu64 " | %" PRIu64
	       " | %" PRIu64 " | %" PRIu64 " |\n",
	       nodes, stalls, stats->message_count, (double)stats->message_count / each,
	       (double)stats->page_count / each, kind[COH_STALL_ZERO], kind[COH_STALL_READ],
	       kind[COH_STALL_WRITE], kind[COH_STALL_UPGRADE]);
}

/* Messages per thousand stalls at `nodes` nodes; 0: it failed. */
static uint64_t message_row(uint64_t pattern, uint64_t nodes)
{
	struct plan plan = quiet_plan(nodes);
	struct world_result result;
	uint64_t stalls = 0;

	plan.pattern = pattern;
	if (world_run(&plan, false, &result) || result.verdict.rule) {
		printf("FAILED at %" PRIu64 " nodes: %s\n", nodes, result.verdict.text);
		return 0;
	}
	for (int k = 0; k < COH_STALL_KINDS; k++)
		stalls += result.stats.stall_count[k];
	print_row(nodes, &result.stats, stalls);
	return 1000 * result.stats.message_count / (stalls ? stalls : 1);
}

/* Rows from the index `first` on are compared with that one. */
static uint64_t message_table(const char *title, uint64_t pattern, size_t first)
{
	static const uint64_t nodes[] = { 4, 16, 64, 256 };
	uint64_t failed = 0, base = 0;

	printf("%s\n\n| nodes | stalls | messages | messages per stall | pages per stall | zero | "
	       "read | write | upgrade |\n|---|---|---|---|---|---|---|---|---|\n",
	       title);
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		uint64_t per_mille = message_row(pattern, nodes[i]);

		if (i == first)
			base = per_mille;
		failed += !per_mille ||
			  (i > first && per_mille > base + base * GROWTH_MAX_PERCENT / 100);
	}
	if (failed)
		printf("FAILED: messages per stall grow with the number of nodes\n");
	putchar('\n');
	return failed;
}

uint64_t report_messages(void)
{
	return message_table("Groups of four nodes share pages, in chunks of their own:",
			     PATTERN_GROUP, 0) +
	       message_table("The same, pages scattered over all chunks (most homes are elsewhere; "
			     "at 4 nodes none is):",
			     PATTERN_SCATTER, 1);
}

/* A row may need so many messages more per stall than the first after all changes, in percent. */
#define CHANGED_MAX_PERCENT 20

/* Messages per thousand stalls when members have changed so often; 0: it failed. */
static uint64_t changed_row(uint64_t nodes, uint64_t changes)
{
	struct plan plan = quiet_plan(nodes);
	struct world_result result;
	double each;

	plan.changes = changes;
	if (changes) {
		plan.numbers = nodes < NODES_MAX ? 2 * nodes : nodes;
		plan.pages = CHUNK_PAGES / 4 * plan.numbers;
	}
	plan.after_ns = 20 * MS;
	plan.events_max = 2000000000;
	if (world_run(&plan, false, &result) || result.verdict.rule) {
		printf("FAILED at %" PRIu64 " nodes: %s\n", nodes, result.verdict.text);
		return 0;
	}
	each = result.after_stalls ? (double)result.after_stalls : 1;
	printf("| %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %.3f |\n", nodes, changes,
	       result.after_stalls, result.after_messages, (double)result.after_messages / each);
	return (uint64_t)(1000 * (double)result.after_messages / each);
}

uint64_t report_members(uint64_t changes)
{
	/* The first, to compare with, never changes: four members are always one group. */
	static const uint64_t nodes[] = { 4, 16, 64, 256 };
	uint64_t failed = 0, base = 0;

	printf("Groups of four numbers share pages, in chunks of their own, after members have come and gone:\n\n"
	       "| nodes | changes | stalls | messages | messages per stall |\n"
	       "|---|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		uint64_t per_mille = changed_row(nodes[i], i ? changes : 0);

		base = i ? base : per_mille;
		failed += !per_mille || per_mille > base + base * CHANGED_MAX_PERCENT / 100;
	}
	if (failed)
		printf("FAILED: messages per stall grow with the number of nodes\n");
	return failed;
}

static const struct load {
	const char *name;
	uint64_t nodes, pattern, hot_pages, multi_pages, write_percent;
} loads[] = {
	{ "2 nodes write one page", 2, PATTERN_FALSE_SHARING, 1, 1, 100 },
	{ "2 nodes, 4 of 8 pages each time", 2, PATTERN_MULTI, 8, 4, 100 },
	{ "2 nodes read and write 16 pages", 2, PATTERN_HOT, 16, 1, 30 },
	{ "4 nodes write one page", 4, PATTERN_FALSE_SHARING, 1, 1, 100 },
	{ "4 nodes, 4 of 8 pages each time", 4, PATTERN_MULTI, 8, 4, 100 },
};

static struct plan slow_plan(const struct load *load, uint64_t hold_ns, uint64_t hold_ns_max)
{
	struct plan plan = quiet_plan(load->nodes);

	plan.delay_min_ns = 100 * US;
	plan.delay_max_ns = 150 * US;
	plan.wake_min_ns = 100 * US;
	plan.wake_max_ns = 200 * US;
	plan.think_min_ns = US;
	plan.think_max_ns = 2 * US;
	plan.pattern = load->pattern;
	plan.hot_pages = load->hot_pages;
	plan.multi_pages = load->multi_pages;
	plan.write_percent = load->write_percent;
	plan.hold_ns = hold_ns;
	plan.hold_ns_max = hold_ns_max;
	plan.run_ns = 1000 * MS;
	return plan;
}

/* The useful share and the longest instruction for one load and one hold. */
static uint64_t hold_cell(const struct load *load, uint64_t hold_ns, uint64_t hold_ns_max)
{
	struct plan plan = slow_plan(load, hold_ns, hold_ns_max);
	struct world_result result;

	if (world_run(&plan, false, &result) || result.verdict.rule) {
		printf(" FAILED: %s |", result.verdict.text);
		return 1;
	}
	printf(" %" PRIu64 ".%" PRIu64 " %% |", result.useful_permille / 10,
	       result.useful_permille % 10);
	return 0;
}

uint64_t report_holds(void)
{
	static const uint64_t holds_us[] = { 500, 2000, 8000, 32000 };
	uint64_t failed = 0;

	printf("Useful share of the actors' time; a message takes 100 to 150 us, a wake 100 to 200 us.\n\n"
	       "| load | fixed 0.5 ms | 2 ms | 8 ms | 32 ms | adaptive, 0.1 to 32 ms |\n"
	       "|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		printf("| %s |", loads[i].name);
		for (size_t k = 0; k < sizeof(holds_us) / sizeof(holds_us[0]); k++)
			failed += hold_cell(&loads[i], holds_us[k] * US, holds_us[k] * US);
		failed += hold_cell(&loads[i], 100 * US, 32 * MS);
		putchar('\n');
	}
	return failed;
}
